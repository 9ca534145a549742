"""How well scores separate rows that are known to be anomalous: areas and shares, each with its interval."""

from __future__ import annotations

from typing import Any

import numpy as np

from vaekit.errors import DataError
from vaekit.utils.uncertainty import area, resampled

DRAWS = 500
LEVEL = 0.05
TRUE = ("1", "1.0", "true", "yes", "anomaly", "anomalous", "outlier", "abnormal")
FALSE = ("0", "0.0", "false", "no", "normal", "inlier")


def truth_of(values: np.ndarray, anomalous: str | None, *, column: str = "truth") -> np.ndarray:
    """Which rows are anomalous, bool (n,), from a column of labels.

    Arguments:
        values: (n,) labels: texts, numbers or truth values.
        anomalous: the label of anomalous rows; None for 1, true, yes, anomaly, outlier and the like.
        column: the name of the column, for messages.

    Raises:
        DataError: no row has that label, or the labels are not of two such kinds.
    """
    texts = np.array([_text(v) for v in np.asarray(values).tolist()])
    known = sorted(set(texts.tolist()))
    if anomalous is not None:
        wanted = _text(anomalous)
        if wanted not in known:
            raise DataError(f"no row has {column}={anomalous}: the column holds {', '.join(known[:8])}")
        return texts == wanted
    lower = np.char.lower(texts) if len(texts) else texts
    if other := sorted({text for text in lower.tolist() if text not in TRUE + FALSE}):
        raise DataError(
            f"column {column!r} holds {other[0]!r}, expected 0 and 1 (1 is anomalous): name the anomalous value, as in "
            f"`truth='{column}={known[0]}'`"
        )
    return np.isin(lower, TRUE)


def _text(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "1" if value else "0"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def measures(score: np.ndarray, flagged: np.ndarray, truth: np.ndarray, *, seed: int = 0) -> list[dict[str, Any]]:
    """AUROC, average precision, recall and the share of false alarms, as {name, value, low, high, n}.

    The interval of AUROC is by DeLong et al. (1988); that of average precision is a bootstrap within each kind; those
    of shares are by Clopper and Pearson (1934). All have a level of 95%.

    Arguments:
        score: (n,) low scores are unusual.
        flagged: bool (n,).
        truth: bool (n,) which rows are anomalous.

    Raises:
        DataError: the rows are all anomalous, or none is.
    """
    bad, good = np.flatnonzero(truth), np.flatnonzero(~truth)
    if not len(bad) or not len(good):
        raise DataError(
            f"{'no' if not len(bad) else 'every'} row is anomalous by its label: rows of both kinds are needed to "
            "measure how well they are separated"
        )
    found = area(-score[bad], -score[good], level=LEVEL)
    precision = average_precision(score, truth)
    draws = [
        average_precision(score[rows], truth[rows])
        for a, b in zip(
            resampled(len(bad), None, DRAWS, seed=seed), resampled(len(good), None, DRAWS, seed=seed + 1), strict=True
        )
        for rows in (np.r_[bad[a], good[b]],)
    ]
    low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2])
    rows = [
        ("auroc", found.value, found.low, found.high, len(truth)),
        ("average_precision", precision, float(low), float(high), len(truth)),
        ("recall", *share(int(flagged[bad].sum()), len(bad)), len(bad)),
        ("false_alarms", *share(int(flagged[good].sum()), len(good)), len(good)),
    ]
    return [dict(zip(("name", "value", "low", "high", "n"), row, strict=True)) for row in rows]


def average_precision(score: np.ndarray, truth: np.ndarray) -> float:
    """The mean of the precision at each anomalous row, in the order of the scores (low first); ties share one rank."""
    order = np.argsort(score, kind="stable")
    hits, ordered = np.cumsum(truth[order]), score[order]
    last = np.r_[np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1]  # the last row of each tie
    recall = hits[last] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * hits[last] / (last + 1)).sum())


def share(count: int, n: int, *, level: float = LEVEL) -> tuple[float, float, float]:
    """count / n, with its Clopper-Pearson interval."""
    from scipy.stats import beta

    low = 0.0 if count == 0 else float(beta.ppf(level / 2, count, n - count + 1))
    high = 1.0 if count == n else float(beta.ppf(1 - level / 2, count + 1, n - count))
    return count / n, low, high
