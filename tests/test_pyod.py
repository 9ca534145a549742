"""The detector for PyOD: its base class, its combinations, and the direction of its scores."""

import numpy as np
import pytest

pytest.importorskip("pyod")

from pyod.models.lscp import LSCP
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from vaekit.errors import ChoiceError
from vaekit.pyod import VAE

rng = np.random.default_rng(0)
INSIDE, OUTSIDE = rng.normal(size=(250, 3)), rng.normal(size=(20, 3)) + 6
NEW, TRUTH = np.concatenate([rng.normal(size=(50, 3)), OUTSIDE]), np.repeat([0, 1], [50, 20])


@pytest.fixture(scope="module")
def detector():
    return VAE(contamination=0.1, steps=60).fit(INSIDE)


def test_high_scores_are_outliers(detector):
    assert roc_auc_score(TRUTH, detector.decision_function(NEW)) > 0.99
    assert detector.predict(NEW)[50:].tolist() == [1] * 20
    assert (detector.predict_proba(NEW)[50:, 1] > 0.9).all()


def test_contamination_is_the_share_of_flagged_training_rows(detector):
    assert detector.labels_.sum() == 25
    np.testing.assert_array_equal(detector.predict(INSIDE), detector.labels_)


def test_a_false_alarm_rate_sets_the_threshold_of_held_out_rows():
    detector = clone(VAE(false_alarms=0.05, steps=60)).fit(INSIDE)
    assert detector.threshold_ == detector.detector_.threshold_
    assert detector.predict(NEW)[50:].sum() == 20


def test_it_is_combined_with_other_detectors():
    from pyod.models.knn import KNN

    both = LSCP([VAE(steps=60), KNN()], random_state=0).fit(INSIDE)
    assert roc_auc_score(TRUTH, both.decision_function(NEW)) > 0.99


def test_bad_arguments_are_named():
    with pytest.raises((ChoiceError, ValueError), match="contamination"):
        VAE(contamination=0.7)
    with pytest.raises(ChoiceError, match="false_alarms"):
        VAE(false_alarms=2).fit(INSIDE)
