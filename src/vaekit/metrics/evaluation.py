"""Measuring a run: registered metrics on a split, each with its protocol, unit and standard error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from vaekit.data.condition import Labels
from vaekit.errors import ChoiceError, RunError
from vaekit.runs.example import is_fixed
from vaekit.runs.new_data import DataLike
from vaekit.runs.saved import SavedRun
from vaekit.runs.trained import TrainedModel
from vaekit.utils.formerly import formerly
from vaekit.utils.progress import say
from vaekit.utils.uncertainty import standard_error
from vaekit.utils.waiting import adaptive_waiting

from .measured import Measured
from .measurement import Measurement
from .registry import Metric, Result, chosen


@formerly("samples", "n", "metrics", "seed", "progress", "store", "labels", "source", split="data")
@adaptive_waiting()
def evaluate(
    run: TrainedModel,
    data: DataLike = "test",
    *,
    n: int | None = None,
    labels: Labels | None = None,
    source: str | None = None,
    metrics: Sequence[str] | None = None,
    samples: int = 100,
    seed: int = 0,
    store: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Measure `metrics` on the first n data of a split and store them in metrics.json.

    By default, the applicable metrics of likelihood and use of latents are measured; `vaekit metrics` lists all names
    and families, of which the applicable metrics are measured.
    Only the intermediate results that the chosen metrics need are computed. In place of a split, raw rows of other data
    may be passed (named `source`, with `labels` for a conditional run); their results are not stored.

    Returns a list of {name, value, se, unit, protocol}, which a notebook shows as a table, in nats per datum, with
    densities in the data's own units; some also have `interval`, `floor` (of real data in the place of samples), `each`
    (the value of each factor) and `matrix`. Data that were split by group have standard errors by group, and the
    protocol gives the number of groups.

    Arguments:
        data: `train`, `valid` or `test`, or raw rows.
        n: use the first n data; None for all.
        labels: of raw rows, for a conditional run.
        source: name of raw rows in the protocol.
        metrics: names of metrics or of families of metrics.
        samples: K, importance samples per datum.
        seed: seed of the evaluation's noise.
        store: whether to store the results with the run.
        progress: called with (data done, data in total).

    Raises:
        ChoiceError: an unknown metric, K or n below 1, or a metric that does not apply to the model or the data; a
            metric of a family that cannot be measured is left out with a note.
    """
    wanted = chosen(metrics)
    m = Measurement(run, data, n=n, labels=labels, source=source, samples=samples, seed=seed, progress=progress)
    measured = Measured(entry(metric, m, result) for metric, result in results(wanted, m, asked=metrics or ()))
    if store and isinstance(run, SavedRun) and m.observed.array is None and not is_fixed(run.path):
        try:
            run.add_metrics(measured)
        except RunError as error:  # a read-only run or a full disk: the results are returned all the same
            say(f"note: {error}; the numbers are not stored with the run")
    return measured


def applicable(metrics: Sequence[Metric], m: Measurement, asked: Sequence[str]) -> list[Metric]:
    """The metrics whose needs are met.

    Raises:
        ChoiceError: a metric that was `asked` for by its own name cannot be measured, or none of a family can; says why
            and what to do.
    """
    lacking = {metric.name: metric.lacking(m) for metric in metrics}
    missing = [why for name, why in lacking.items() if why is not None and name in asked]
    if asked and not missing and None not in lacking.values():
        missing = [why for why in lacking.values() if why is not None]
    if missing:
        raise ChoiceError(missing[0])
    return [metric for metric in metrics if lacking[metric.name] is None]


def results(metrics: Sequence[Metric], m: Measurement, asked: Sequence[str]) -> list[tuple[Metric, Result]]:
    """The `applicable` metrics with their results.

    Those of a family that turn out to be undefined for these data are left out with a note.

    Raises:
        ChoiceError: also if a metric that was asked for by its own name is undefined, or all of the family are.
    """
    found, failed = [], None
    for metric in applicable(metrics, m, asked):
        try:
            found.append((metric, metric.measure(m)))
        except ChoiceError as error:
            if not asked or metric.name in asked:
                raise
            say(f"note: {metric.name} is left out: {error}")
            failed = error
    if failed is not None and not found:
        raise failed
    return found


def entry(metric: Metric, m: Measurement, result: Result) -> dict[str, Any]:
    """The stored entry of a metric: {name, value, se, unit, protocol}.

    It has interval, floor, each and matrix too if the result has them.

    Raises:
        ChoiceError: the metric returned one number per datum although it is registered otherwise, or the reverse.
    """
    value, se = result.value, result.se
    if metric.per_datum == (result.per_datum is None):
        kind = "one value for all data" if metric.per_datum else "one number per datum"
        raise ChoiceError(f"metric {metric.name!r} returns {kind}: register it with `per_datum={not metric.per_datum}`")
    if result.per_datum is not None:
        value = float(np.mean(result.per_datum, dtype=np.float64))
        se = standard_error(result.per_datum, groups_of(m, result))
    unit = metric.unit if result.unit is None else result.unit
    further: dict[str, Any] = {}
    if result.interval is not None:
        further["interval"] = asdict(result.interval)
    if result.floor is not None:
        further["floor"] = asdict(result.floor)
    if result.each is not None:
        further["each"] = {name: asdict(part) for name, part in result.each.items()}
    if result.matrix is not None:
        further["matrix"] = asdict(result.matrix)
    protocol = protocol_of(metric, m, result)
    return {"name": metric.name, "value": value, "se": se, "unit": unit, "protocol": protocol, **further}


def protocol_of(metric: Metric, m: Measurement, result: Result, *, estimator: str | None = None) -> dict[str, Any]:
    """The protocol of a result as JSON, with `estimator` replaced if given."""
    protocol = m.protocol.of(result.estimator if estimator is None else estimator, result.K)
    # stored files have always had the same `units` for all metrics measured by default, whatever their unit
    return (protocol if metric.default else replace(protocol, units="x in the data's own units")).as_json()


def groups_of(m: Measurement, result: Result) -> np.ndarray | None:
    """The groups of the data that a result describes; None if the data were not split by group."""
    groups = m.groups
    return groups if groups is None or result.rows is None else groups[result.rows]
