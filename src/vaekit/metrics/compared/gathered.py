"""The numbers of each run, stored or measured anew, by what makes numbers comparable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.data.condition import Labels
from vaekit.errors import ChoiceError, DataError, RunError
from vaekit.models.library import SizedVAE
from vaekit.runs.new_data import SPLITS, DataLike
from vaekit.runs.saved import SavedRun
from vaekit.runs.stored import stored_splits

from ..evaluation import entry, groups_of
from ..measurement import Measurement
from ..registry import METRICS, Metric, chosen
from .estimates import LEVEL
from .rows import Row

Array = NDArray[Any]
Progress = Callable[[int, int], None]
REDUNDANT = ("floor_gap",)
"""Metrics that differ from another one, here log p(x), by what all runs share: compared only if asked for."""
USUAL = 100
"""The number of importance samples K unless all runs have stored numbers with another one."""


@dataclass(frozen=True)
class Number:
    """A metric of one run.

    Attributes:
        name: the metric.
        value, se, unit, protocol: as in metrics.json.
        key: what another number of this metric must share to be comparable, by name.
        per_datum: (n,), one number per datum, if it was measured for a comparison and the metric has them.
        group: (n,), the group of each datum, if the data were split by group.
        interval: its own 95% interval, if it has one.
    """

    name: str
    value: float
    se: float | None
    unit: str
    protocol: dict[str, Any]
    key: dict[str, Any]
    per_datum: Array | None = None
    group: Array | None = None
    interval: tuple[float, float] | None = None

    @property
    def column(self) -> tuple[str, str]:
        """The key of its column."""
        return self.name, json.dumps(self.key, sort_keys=True)


@dataclass(frozen=True)
class Asked:
    """What a comparison measures: see `vaekit.metrics.comparison.compare`."""

    data: DataLike = "test"
    n: int | None = None
    labels: Labels | None = None
    source: str | None = None
    metrics: Sequence[str] | None = None
    samples: int | None = None
    seed: int = 0
    progress: Progress | None = None

    @property
    def own(self) -> bool:
        """Whether a split of each run's own data is measured, rather than the same new data."""
        return isinstance(self.data, str) and self.data in SPLITS


def context(run: SavedRun) -> dict[str, Any]:
    """What the numbers of a run are given, besides the protocol: conditions, and the total of each row."""
    condition = run.composition.condition
    given = () if condition is None else tuple(column.name for column in condition.schema)
    total = isinstance(run.model, SizedVAE)
    return {"given": ", ".join(given) or None, "given total": True if total else None}


def rows_key(run: SavedRun, split: str) -> str | None:
    """A digest of the rows of a split; None for rows that are not of a split."""
    if split not in SPLITS:
        return None
    try:
        rows = stored_splits(run.path)[split]
    except RunError:
        return f"unknown rows of {run.path}"
    return hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()[:16]


def stored(run: SavedRun) -> list[Number]:
    """The numbers in metrics.json of a run that describe the model, in the order in which they were measured."""
    own = context(run)
    splits = {m["protocol"].get("split") for m in run.metrics}
    rows = {split: rows_key(run, str(split)) for split in splits}
    found = []
    for m in run.metrics:
        of_model = m["name"] not in METRICS or METRICS[m["name"]].of == "model"
        if not isinstance(m["value"], int | float) or not of_model:
            continue
        key = {**m["protocol"], **own, "rows": rows[m["protocol"].get("split")]}
        ends = _ends(m.get("interval"))
        found.append(Number(m["name"], m["value"], m.get("se"), m["unit"], m["protocol"], key, interval=ends))
    return found


def _ends(interval: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """The ends of a 95% interval as in metrics.json; None without one."""
    if interval is None or round(1 - interval["level"], 9) != LEVEL:
        return None
    return interval["low"], interval["high"]


def common(numbers: Sequence[Sequence[Number]], asked: Asked, names: Iterable[str]) -> dict[str, list[Number]]:
    """For each metric that all runs have stored under one protocol that fits what is asked: the number of each run.

    Of several protocols, the one with the most data is taken, then the latest.
    """
    found = {}
    for name in names:
        by_run = [{n.column: n for n in run if n.name == name and _fits(n, asked)} for run in numbers]
        shared = [column for column in by_run[0] if all(column in one for one in by_run)]
        if shared:
            best = max(enumerate(shared), key=lambda c: (by_run[0][c[1]].protocol.get("n") or 0, c[0]))[1]
            found[name] = [one[best] for one in by_run]
    return found


def _fits(number: Number, asked: Asked) -> bool:
    p = number.protocol
    return (
        p.get("split") == asked.data
        and p.get("seed") == asked.seed
        and (asked.n is None or p.get("n") == asked.n)
        and (asked.samples is None or p.get("K") in (None, asked.samples))
    )


def wanted(asked: Asked, numbers: Sequence[Sequence[Number]]) -> list[str]:
    """The names of the metrics to compare: those asked for, else those measured by default or stored with all runs."""
    if asked.metrics:
        return [m.name for m in chosen(asked.metrics)]
    names = [m.name for m in chosen(None) if m.of == "model" and m.name not in REDUNDANT]
    in_all = set.intersection(*({n.name for n in run} for run in numbers))
    return [*names, *(n.name for n in numbers[0] if n.name in in_all - {*names, *REDUNDANT})]


def gather(rows: Sequence[Row], asked: Asked, measure: bool | None) -> tuple[dict[str, list[Number]], list[str]]:
    """The numbers of each run, by its path, and notes about where they are from.

    Raises:
        ChoiceError: a metric is unknown, or cannot be measured for any run; or nothing is stored and `measure` is
            False.
        DataError: the data of a run cannot be read, and not all its numbers are stored.
    """
    runs = [run for row in rows for run in row.runs]
    kept = [stored(run) for run in runs]
    names = list(dict.fromkeys(wanted(asked, kept)))
    shared = common(kept, asked, names) if measure is not True and asked.own else {}
    if measure is False:
        return _stored_only(runs, kept, shared, names)
    somewhere = {n.name for run in kept for n in run}
    pairs = any(len(row.runs) == 1 for row in rows) and len(rows) > 1
    if (
        shared
        and not pairs
        and all(name in shared for name in names if name in somewhere or name in (asked.metrics or ()))
    ):
        return _by_run(runs, shared), ["Numbers are those stored with the runs."]
    left = [n for n in names if n in METRICS and (n not in shared or METRICS[n].per_datum or METRICS[n].default)]
    taken = {name: found for name, found in shared.items() if name not in left}
    try:
        measured, notes = measure_all(runs, left, asked, _like(shared, left))
    except DataError as error:
        if not shared or measure:
            raise
        note = f"Numbers are those stored with the runs, and differences of single runs are not paired: {error}"
        return _by_run(runs, shared), [f"{note.rstrip('.')}."]
    where = "Numbers were measured for this comparison"
    if taken:
        where += f", except for those stored with the runs: {', '.join(_labels(taken))}"
    found = _by_run(runs, taken)
    return {path: [*found[path], *measured[path]] for path in found}, [f"{where}.", *notes]


def _like(shared: Mapping[str, Sequence[Number]], left: Sequence[str]) -> list[dict[str, Any]]:
    """The stored protocols whose n and K all that is `left` to measure shares: those of fast metrics of single data.

    Slow metrics are stored for fewer data than the others, so theirs are taken only if nothing else is measured.
    """
    usual = [name for name in shared if _is_usual(name)]
    chosen = usual if usual or any(map(_is_usual, left)) else shared
    protocols = [shared[name][0].protocol for name in chosen]
    return [p for p in protocols if p.get("n") == protocols[0].get("n")]


def _is_usual(name: str) -> bool:
    return name in METRICS and METRICS[name].per_datum and not METRICS[name].slow


def _labels(names: Iterable[str]) -> list[str]:
    return [METRICS[name].label if name in METRICS else name for name in names]


def _by_run(runs: Sequence[SavedRun], shared: dict[str, list[Number]]) -> dict[str, list[Number]]:
    return {str(run.path): [found[i] for found in shared.values()] for i, run in enumerate(runs)}


def _stored_only(
    runs: Sequence[SavedRun], kept: Sequence[Sequence[Number]], shared: dict[str, list[Number]], names: Sequence[str]
) -> tuple[dict[str, list[Number]], list[str]]:
    """Stored numbers: of the protocol that all runs have, else all of them."""
    found = {
        str(run.path): [
            n for n in numbers if n.name in names and (n.name not in shared or n.column == shared[n.name][i].column)
        ]
        for i, (run, numbers) in enumerate(zip(runs, kept, strict=True))
    }
    if not any(found.values()):
        raise ChoiceError("the runs have no stored numbers of these metrics: evaluate them, or omit `measure=False`")
    return found, ["Numbers are those stored with the runs."]


def measure_all(
    runs: Sequence[SavedRun], names: Sequence[str], asked: Asked, like: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, list[Number]], list[str]]:
    """Measure metrics of each run on its own data, or on the same new data; with n and K of the protocols `like`.

    Raises:
        ChoiceError: a metric that was asked for cannot be measured for any run.
    """
    metrics = [METRICS[name] for name in names if name in METRICS]
    k = asked.samples or next((protocol["K"] for protocol in like if protocol.get("K")), USUAL)
    n = (like[0].get("n") if like else None) if asked.n is None else asked.n
    found: dict[str, list[Number]] = {}
    lacking: dict[str, list[str]] = {}
    data: dict[Any, Any] = {}
    for run in runs:
        if asked.own:
            share_data(run, data)
        m = Measurement(run, asked.data, n=n, labels=asked.labels, source=asked.source, samples=k, seed=asked.seed,
                        progress=asked.progress)  # fmt: skip
        found[str(run.path)] = []
        for metric in metrics:
            if (why := metric.lacking(m)) is not None:
                lacking.setdefault(metric.name, []).append(why)
            elif (number := _measured(metric, m, run)) is not None:
                found[str(run.path)].append(number)
    notes = []
    for name, reasons in lacking.items():
        if asked.metrics and len(reasons) == len(runs) and (name in asked.metrics or not any(found.values())):
            raise ChoiceError(reasons[0])
        if len(reasons) < len(runs):
            notes.append(f"{METRICS[name].label} is not defined for {len(reasons)} of the runs: {reasons[0]}.")
    return found, notes


def share_data(run: SavedRun, known: dict[Any, Any]) -> None:
    """Give a run the data that another run has loaded, if they are the same; else load its own.

    Arguments:
        known: the data that are loaded, by their description; they are added to it.

    Raises:
        DataError: its data cannot be read.
    """
    stored = run.config["data"]
    key = json.dumps([stored["digest"], stored["options"], rows_key(run, "test")], sort_keys=True, default=str)
    if key in known:
        try:
            run.use_data(known[key])
            return
        except DataError:
            pass
    known[key] = run.data


def _measured(metric: Metric, m: Measurement, run: SavedRun) -> Number | None:
    """One metric of a run; None for one that has a number for each latent, which runs do not share."""
    result = metric.measure(m)
    if isinstance(result.value, list):
        return None
    one = entry(metric, m, result)
    protocol = one["protocol"]
    split = None if m.observed.array is not None else m.observed.split
    key = {**protocol, **context(run), "rows": None if split is None else rows_key(run, split)}
    if result.comparable is not None:
        key["estimator"] = result.comparable
    number = Number(metric.name, one["value"], one["se"], one["unit"], protocol, key)
    if result.per_datum is not None:
        number = replace(number, per_datum=np.asarray(result.per_datum), group=groups_of(m, result))
    return replace(number, interval=_ends(one.get("interval")))
