"""The detector for PyOD: its base class, its combinations, and the direction of its scores."""

import numpy as np
import pytest

pytest.importorskip("pyod")

from pyod.models.lscp import LSCP
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from vaekit.errors import ChoiceError
from vaekit.pyod import PyODDetector
from vaekit.sklearn import VAEDetector

rng = np.random.default_rng(0)
INSIDE, OUTSIDE = rng.normal(size=(250, 3)), rng.normal(size=(20, 3)) + 6
NEW, TRUTH = np.concatenate([rng.normal(size=(50, 3)), OUTSIDE]), np.repeat([0, 1], [50, 20])


@pytest.fixture(scope="module")
def detector():
    return PyODDetector(VAEDetector(steps=60), contamination=0.1).fit(INSIDE)


def test_high_scores_are_outliers(detector):
    assert roc_auc_score(TRUTH, detector.decision_function(NEW)) > 0.99
    assert detector.predict(NEW)[50:].tolist() == [1] * 20
    assert (detector.predict_proba(NEW)[50:, 1] > 0.9).all()


def test_contamination_is_the_share_of_flagged_training_rows(detector):
    assert detector.labels_.sum() == 25
    np.testing.assert_array_equal(detector.predict(INSIDE), detector.labels_)


def test_a_copy_is_trained(detector):
    again = clone(detector).fit(INSIDE)
    assert detector.detector is not again.detector_
    np.testing.assert_array_equal(again.decision_scores_, detector.decision_scores_)


def test_it_is_combined_with_other_detectors():
    from pyod.models.knn import KNN

    both = LSCP([PyODDetector(VAEDetector(steps=60)), KNN()], random_state=0).fit(INSIDE)
    assert roc_auc_score(TRUTH, both.decision_function(NEW)) > 0.99


def test_bad_arguments_are_named():
    with pytest.raises((ChoiceError, ValueError), match="contamination"):
        PyODDetector(contamination=0.7)
    with pytest.raises(ChoiceError, match="false_alarms"):
        PyODDetector(VAEDetector(false_alarms=2)).fit(INSIDE)
