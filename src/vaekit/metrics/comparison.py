"""Comparing runs on the same data: paired differences with their standard errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from vaekit.data.condition import Labels
from vaekit.data.core import listed
from vaekit.errors import ChoiceError
from vaekit.runs.new_data import DataLike
from vaekit.runs.saved import SavedRun
from vaekit.runs.trained import TrainedModel
from vaekit.utils.formerly import formerly
from vaekit.utils.uncertainty import standard_error

from .compared import Comparison, compare_runs
from .compared.gathered import Asked
from .evaluation import applicable, entry, groups_of, protocol_of
from .measurement import Measurement
from .protocol import check_comparable
from .registry import Metric, Result, chosen


@overload
def compare(
    a: TrainedModel,
    b: TrainedModel,
    data: DataLike = "test",
    *,
    n: int | None = None,
    labels: Labels | None = None,
    source: str | None = None,
    metric: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]: ...


@overload
def compare(
    a: Sequence[SavedRun | str | Path],
    b: None = None,
    data: DataLike = "test",
    *,
    to: str | Path | None = None,
    each: bool | None = None,
    n: int | None = None,
    labels: Labels | None = None,
    source: str | None = None,
    metric: str | None = None,
    metrics: Sequence[str] | None = None,
    samples: int | None = None,
    seed: int = 0,
    measure: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison: ...


@formerly("samples", "n", "seed", "metric", split="data")
def compare(
    a: TrainedModel | Sequence[SavedRun | str | Path],
    b: TrainedModel | None = None,
    data: DataLike = "test",
    *,
    to: str | Path | None = None,
    each: bool | None = None,
    n: int | None = None,
    labels: Labels | None = None,
    source: str | None = None,
    metric: str | None = None,
    metrics: Sequence[str] | None = None,
    samples: int | None = None,
    seed: int = 0,
    measure: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any] | Comparison:
    """Compare runs on the same data: `compare([run, ...])` any number of them, `compare(a, b)` one metric of two runs.

    **A list of runs**, or of their paths, gives a `Comparison`: a table with one row for each setting and one column
    for each metric and protocol. Runs that differ in their seed only are one row, with the mean over seeds and an
    interval of Student's t. The others are compared with one row (`to`): datum by datum where
    their data are the same, and run by run where their seeds are. The intervals of these differences then hold for
    other seeds and other data; see `vaekit.metrics.compared.estimates`. p-values are adjusted for the number of rows
    (Holm). Numbers of different protocols are in different columns, and no difference of them is taken. If all runs
    have stored numbers of one protocol (`vaekit evaluate`), these are used, unless a row has a single run, whose
    differences need the numbers of each datum.

    **Two runs** give a metric of a minus that of b: the mean paired difference, with its standard error. Over 10,000
    images, the standard error of log p(x) is about a nat unpaired, but a few hundredths when paired by datum. If the
    data were split by group, standard errors are by group. The result is {name, value, se, unit, protocol, a, b,
    better}: `a` and `b` are the values of the runs, and `better` is the direction of improvement ("higher", "lower" or
    None). `se` is None for metrics that are not a mean over data. If the runs have different conditions, `note` names
    these.

    Arguments:
        a, b: the two runs, or a list of runs and nothing.
        data: `train`, `valid` or `test`, or raw rows, with `labels` for conditional runs and `source` as their name.
        to: the run (its path) or the name of the row that the others are compared with; by default the first row, or
            the first that has comparable numbers with most others.
        each: whether each run is a row of its own; by default only for two runs.
        n: use the first n data; by default all, or for a list as many as all runs have stored numbers of.
        metric: its name; `vaekit metrics` lists all. By default log p(x) of two runs.
        metrics: for a list, names of metrics or of families; by default those measured by default that describe the
            model, and those that all runs have stored.
        samples: K, importance samples per datum; by default 100, or as stored with all runs.
        seed: seed of the evaluation's noise.
        measure: whether a list is measured anew; False uses stored numbers only.
        progress: called with (data done, data in total).

    Raises:
        ChoiceError: the two runs do not model the same x (other data, rows, observation or draw), or one of them lacks
            this metric; or an option does not apply.
    """
    if isinstance(a, TrainedModel):
        if b is None:
            raise ChoiceError("a comparison needs two runs, `compare(a, b)`, or a list, `compare([a, b, ...])`")
        if (to, each, metrics, measure) != (None, None, None, None):
            raise ChoiceError("`to`, `each`, `metrics` and `measure` apply to a list of runs: `compare([a, b], ...)`")
        (difference,) = compare_all(
            a, b, data, n=n, labels=labels, source=source, metrics=[metric or "log_px_iw"],
            samples=100 if samples is None else samples, seed=seed, progress=progress,
        )  # fmt: skip
        return difference
    if isinstance(a, str | Path):
        raise ChoiceError("a comparison needs a list of runs or paths: `compare(['runs/a', 'runs/b'])`")
    if b is not None:
        raise ChoiceError("a list of runs is compared with nothing else: `compare([a, b, ...], data=...)`")
    names = [metric] if metric is not None else metrics
    asked = Asked(data, n, labels, source, names, samples, seed, progress)
    return compare_runs(list(a), asked, to=to, each=each, measure=measure)


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
