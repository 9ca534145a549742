"""Measures of rows whose truth is known, against scikit-learn and closed forms."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from vaekit.anomalies.labelled import average_precision, measures, share, truth_of
from vaekit.errors import DataError


def test_measures_are_those_of_scikit_learn_with_intervals():
    rng = np.random.default_rng(0)
    truth = rng.random(300) < 0.2
    score = np.round(rng.normal(size=300) - 1.5 * truth, 1)  # with ties
    flagged = score < -1.5
    found = {m["name"]: m for m in measures(score, flagged, truth)}
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(truth, -score))
    assert found["average_precision"]["value"] == pytest.approx(average_precision_score(truth, -score))
    assert found["recall"]["value"] == pytest.approx(flagged[truth].mean())
    assert found["false_alarms"]["value"] == pytest.approx(flagged[~truth].mean())
    for m in found.values():
        assert m["low"] < m["value"] < m["high"]
    assert average_precision(np.arange(4.0), np.array([True, False, True, False])) == pytest.approx((1 + 2 / 3) / 2)


def test_shares_have_exact_intervals():
    """By Clopper and Pearson: of no success in 10, the upper end is 1 - 0.025^(1/10)."""
    assert share(0, 10) == (0, 0, pytest.approx(1 - 0.025**0.1))
    assert share(10, 10) == (1, pytest.approx(0.025**0.1), 1)


def test_labels_of_anomalous_rows():
    for values in ([0, 1, 1], ["0", "1", "1"], [False, True, True], ["normal", "Outlier", "anomaly"], [0.0, 1.0, 1.0]):
        np.testing.assert_array_equal(truth_of(np.array(values), None), [False, True, True])
    np.testing.assert_array_equal(truth_of(np.array(["M", "B", "M"]), "M"), [True, False, True])
    np.testing.assert_array_equal(truth_of(np.array([2.0, 3.0]), "3"), [False, True])
    with pytest.raises(DataError, match=r"'truth' holds 'b', expected 0 and 1.*truth=B"):
        truth_of(np.array(["M", "B"]), None)
    with pytest.raises(DataError, match=r"holds '-1', expected 0 and 1.*truth=-1"):  # scikit-learn's outliers are -1
        truth_of(np.array([-1.0, 1.0]), None)
    np.testing.assert_array_equal(truth_of(np.array([-1.0, 1.0]), "-1"), [True, False])
    with pytest.raises(DataError, match="holds 'nan'"):
        truth_of(np.array([0.0, np.nan, 1.0]), None)
    with pytest.raises(DataError, match="no row has y=c: the column holds a, b"):
        truth_of(np.array(["a", "b"]), "c", column="y")
    with pytest.raises(DataError, match="no row is anomalous"):
        measures(np.zeros(3), np.zeros(3, bool), np.zeros(3, bool))
