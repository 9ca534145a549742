"""Comparing two runs on the same data: paired differences with their standard error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vaekit.data.condition import Labels
from vaekit.data.core import listed
from vaekit.errors import ChoiceError
from vaekit.runs.new_data import DataLike
from vaekit.runs.trained import TrainedModel
from vaekit.utils.formerly import formerly
from vaekit.utils.uncertainty import standard_error

from .evaluation import applicable, entry, groups_of, protocol_of
from .measurement import Measurement
from .protocol import check_comparable
from .registry import Metric, Result, chosen


@formerly("samples", "n", "seed", "metric", split="data")
def compare(
    a: TrainedModel,
    b: TrainedModel,
    data: DataLike = "test",
    *,
    n: int | None = None,
    labels: Labels | None = None,
    source: str | None = None,
    metric: str = "log_px_iw",
    samples: int = 100,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """A metric of run a minus that of run b on the same data: the mean paired difference, with its standard error.

    Over 10,000 images, the standard error of log p(x) is about a nat unpaired, but a few hundredths when paired by
    datum. If the data were split by group, standard errors are by group.

    Returns {name, value, se, unit, protocol, a, b, better}: `a` and `b` are the values of the runs, and `better` is the
    direction of improvement ("higher", "lower" or None). `se` is None for metrics that are not a mean over data. If the
    runs have different conditions, `note` names these.

    Arguments:
        a, b: the two runs.
        data: `train`, `valid` or `test`, or raw rows, with `labels` for conditional runs and `source` as their name.
        n: use the first n data; None for all.
        metric: its name; `vaekit metrics` lists all.
        samples: K, importance samples per datum.
        seed: seed of the evaluation's noise.
        progress: called with (data done, data in total).

    Raises:
        ChoiceError: the two runs do not model the same x (other data, rows, observation or draw), or one of them lacks
            this metric.
    """
    (difference,) = compare_all(
        a, b, data, n=n, labels=labels, source=source, metrics=[metric], samples=samples, seed=seed, progress=progress
    )
    return difference


@formerly("samples", "n", "seed", "metrics", "progress", "labels", "source", split="data")
def compare_all(
    a: TrainedModel,
    b: TrainedModel,
    data: DataLike = "test",
    *,
    n: int | None = None,
    labels: Labels | None = None,
    source: str | None = None,
    metrics: Sequence[str] | None = None,
    samples: int = 100,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """`compare` for several `metrics`, by default those that are measured by default and describe the model."""
    chosen(metrics)  # reject unknown names before any data are loaded
    first, second = (
        Measurement(run, data, n=n, labels=labels, source=source, samples=samples, seed=seed, progress=progress)
        for run in (a, b)
    )
    return compare_measured(first, second, metrics=metrics)


@formerly("metrics")
def compare_measured(a: Measurement, b: Measurement, *, metrics: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """`compare` for two measurements `a` and `b`, whose shared results are used if they are already computed.

    Raises:
        ChoiceError: they do not measure the same data, or one of the `metrics` asked for cannot be compared.
    """
    check_same_data(a, b)
    if not metrics and a.given_total != b.given_total:
        raise ChoiceError(
            "one run measures log p(x) given the total of each row (`library='observed'`) and the other does not, so "
            "they cannot be compared: compare runs with the same `library`, or name other `metrics`, such as `rate`"
        )
    wanted = [m for m in chosen(metrics) if metrics or m.of == "model"]
    for m in (a, b):
        wanted = applicable(wanted, m, asked=metrics or ())
    pairs = [(metric, metric.measure(a), metric.measure(b)) for metric in wanted]
    unlike = [_unlike(metric, a, b, *results) for metric, *results in pairs]
    refused = [why for (metric, *_), why in zip(pairs, unlike, strict=True) if why and metric.name in (metrics or ())]
    if refused:
        raise ChoiceError(refused[0])
    return [_difference(*pair, a, b) for pair, why in zip(pairs, unlike, strict=True) if why is None]


def check_same_data(a: Measurement, b: Measurement) -> None:
    """Raises ChoiceError, naming the difference, unless both measure the same x of the same rows."""
    check_comparable(a.protocol.of("", a.samples), b.protocol.of("", b.samples))
    if a.observed.array is None and not np.array_equal(a.indices, b.indices):
        raise ChoiceError(
            f"the {a.observed.split} rows of the two runs are not the same: train both with the same `valid`, `test`, "
            "`split_seed` and `group`"
        )


def _unlike(metric: Metric, a: Measurement, b: Measurement, of_a: Result, of_b: Result) -> str | None:
    """Why the difference of two runs' results is undefined; None if it is defined."""
    if isinstance(of_a.value, list) or isinstance(of_b.value, list):
        return f"{metric.name} has one number per latent, and the latents of two runs do not correspond"
    if _compared(of_a) != _compared(of_b):
        return (
            f"{metric.name} is measured differently in the two runs ({_compared(of_a)!r} and {_compared(of_b)!r}), so "
            "its values cannot be compared"
        )
    return None


def _compared(result: Result) -> str:
    return result.estimator if result.comparable is None else result.comparable


def _difference(metric: Metric, of_a: Result, of_b: Result, a: Measurement, b: Measurement) -> dict[str, Any]:
    one, other = entry(metric, a, of_a), entry(metric, b, of_b)
    value, se = one["value"] - other["value"], None
    if of_a.per_datum is not None and of_b.per_datum is not None:
        group = next((g for g in (groups_of(a, of_a), groups_of(b, of_b)) if g is not None), None)
        paired = of_a.per_datum - of_b.per_datum
        value, se = float(np.mean(paired, dtype=np.float64)), standard_error(paired, group)
    note = _known(a, b) if metric.of == "model" else None
    return {
        "name": f"{metric.name} difference",
        "value": value,
        "se": se,
        "unit": one["unit"] if one["unit"] == other["unit"] else metric.unit,
        "protocol": protocol_of(metric, a, of_a, estimator=_compared(of_a)),
        "a": one["value"],
        "b": other["value"],
        "better": metric.better,
        **({} if note is None else {"note": note}),
    }


def _known(a: Measurement, b: Measurement) -> str | None:
    """A note that names the conditions of the two runs, or None if they are the same."""
    of_a, of_b = a.given, b.given
    if of_a == of_b:
        return None
    one, other = (f"conditional on {listed(known)}" if known else "unconditional" for known in (of_a, of_b))
    return f"the first run is {one}, the second is {other}"
