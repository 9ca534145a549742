"""Measured numbers as text: values with their errors, protocols, and comparisons of runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vaekit.metrics import METRICS
from vaekit.metrics.protocol import protocol_text, unlike
from vaekit.utils.numerals import number
from vaekit.utils.uncertainty import FEW, t_quantile

from .blocks import Block, Cards, Table, Text

Metric = dict[str, Any]


def label(name: str) -> str:
    """The label of a metric on the page; for a metric of a plug-in that is not installed, its name."""
    return METRICS[name].label if name in METRICS else name.replace("_", " ")


def meaning(name: str) -> str:
    """The meaning of a metric and its better direction; empty for a metric of a plug-in that is not installed."""
    return METRICS[name].meaning if name in METRICS else ""


def is_shown(m: Metric) -> bool:
    """Whether the value is one number that describes the model or its data, rather than the estimator."""
    name = m["name"]
    return isinstance(m["value"], int | float) and not (name in METRICS and METRICS[name].of == "estimator")


def rank(name: str) -> int:
    """The position of a metric on the page: in the order of the register, then unknown metrics."""
    return {known: i for i, known in enumerate(METRICS)}.get(name, len(METRICS))


def interval_text(interval: Mapping[str, Any]) -> str:
    """An interval in words: 95% interval 0.31 to 0.38."""
    low, high = (fine(interval[end]) for end in ("low", "high"))
    return f"{interval['level']:.0%} interval {low} to {high}"


def floor_text(floor: Mapping[str, Any]) -> str:
    """The value of real data in the place of samples, in words: real data 0.94 (0.92 to 0.96)."""
    value, low, high = (None if floor[key] is None else fine(floor[key]) for key in ("value", "low", "high"))
    return f"real data {value or '–'}" + (f" ({low} to {high})" if low and high else "")


def fine(value: float) -> str:
    """A number with two digits after the point, or as many digits as it has if it is small."""
    return f"{value:.2g}".replace("-", "−") if 0 < abs(value) < 0.01 else number(value)


def each_text(each: Mapping[str, Mapping[str, Any]], most: int = 8) -> str:
    """The values of the parts of a metric: shape 0.12, scale 0.44."""
    words = [f"{name} {'–' if part['value'] is None else number(part['value'])}" for name, part in each.items()]
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def beyond_floor(gap: Metric) -> str:
    """How far -log p(x) is from the entropy floor, in standard errors of the paired difference, in words."""
    value, se = gap["value"], gap["se"]
    if not se:
        return "-log p(x) minus the floor"
    times = value / se
    if value >= 0:
        return f"-log p(x) is {times:.3g} standard errors above the floor"
    protocol = gap["protocol"]
    if times > -max(3.0, t_quantile(0.0027, (protocol.get("groups") or protocol["n"]) - 1)):
        return f"-log p(x) is {-times:.2g} standard errors below the floor, which can be chance"
    return (
        f"-log p(x) is {-times:.3g} standard errors below the floor, which is not chance: the measurement is wrong, or "
        "the model was trained on the same draw"
    )


def verdict(difference: Metric, names: tuple[str, str]) -> str:
    """Which of two runs is better, in words, by the paired difference of the first minus the second.

    A difference counts if it lies outside a 95% interval of Student's t about 0.
    """
    value, se, protocol = difference["value"], difference["se"], difference["protocol"]
    if se is None:
        return "its standard error is unknown"
    if abs(value) <= t_quantile(0.05, (protocol.get("groups") or protocol["n"]) - 1) * se:
        return "no clear difference"
    if difference["better"] is None:
        return "they differ"
    return f"{names[0] if (value > 0) == (difference['better'] == 'higher') else names[1]} is better"


def few_groups(groups: int) -> str:
    """A note if there are too few groups for ± 2 standard errors to be a 95% interval; else ""."""
    if groups >= FEW:
        return ""
    if groups < 2:
        return "standard errors are over groups, but there is only one group, so the error is unknown"
    return (
        f"standard errors are over only {groups} groups: a 95% interval is ± {t_quantile(0.05, groups - 1):.1f} "
        "standard errors (Student's t)"
    )


def best_known(metrics: Sequence[Metric]) -> dict[str, Metric]:
    """One metric per name: preferably on the test split, then on the most data, then the latest measurement."""
    chosen: dict[str, Metric] = {}
    for m in metrics:
        before = chosen.get(m["name"])
        if before is None or _weight(m) >= _weight(before):
            chosen[m["name"]] = m
    return chosen


def _weight(m: Metric) -> tuple[bool, int]:
    return m["protocol"].get("split") == "test", m["protocol"].get("n") or 0


def key_numbers(metrics: Sequence[Metric]) -> Block:
    """The cards at the top of a page, followed by the part of the protocol that they share.

    Scores per factor have a section of their own, and are among the cards only if there is nothing else.
    """
    chosen = best_known(metrics)
    shown = sorted((m for m in chosen.values() if is_shown(m)), key=lambda m: rank(m["name"]))
    shown = [m for m in shown if "matrix" not in m] or shown
    apart = ["estimator", "K", *unlike(shown)]
    cards = []
    for m in shown:
        how = protocol_text(m["protocol"], leave_out=[k for k in m["protocol"] if k not in apart])
        how = f"{how}; {beyond_floor(m)}" if m["name"] == "floor_gap" else how
        name = label(m["name"])
        unit = "" if m["unit"].lower() == name.lower() else m["unit"]
        cards.append((name, number(m["value"], m["se"]), unit, meaning(m["name"]), how))
    shared = protocol_text(shown[0]["protocol"], leave_out=apart) if shown else ""
    note = f"Measured on {shared}. ± is the standard error of the mean over the data." if shared else ""
    groups = {m["protocol"]["groups"] for m in shown if m["protocol"].get("groups")}
    if few := few_groups(min(groups)) if groups else "":
        note += f" {few[0].upper()}{few[1:]}."
    return Cards(cards, note)


def all_numbers(metrics: Sequence[Metric]) -> Table:
    """All numbers with their full protocols."""
    rows = [
        [label(m["name"]), number(m["value"], m["se"]), m["unit"], protocol_text(m["protocol"])]
        for m in metrics
        if isinstance(m["value"], int | float)
    ]
    return Table(["metric", "value ± standard error", "unit", "protocol"], rows, numeric=(1,), wide=(3,))


def comparison(named: Mapping[str, Sequence[Metric]]) -> list[Block]:
    """Runs side by side, with one column per metric and protocol, so that each column is comparable.

    Arguments:
        named: run name -> its metrics.
    """
    columns: dict[tuple[str, str], dict[str, Metric]] = {}
    for run, metrics in named.items():
        for m in metrics:
            if is_shown(m):
                columns.setdefault((m["name"], json.dumps(m["protocol"], sort_keys=True)), {})[run] = m
    if not columns:
        return [
            Text(
                "No run has been evaluated: evaluate each with `vaekit evaluate RUN`, then write this page again.",
                "note",
            )
        ]
    order = sorted(columns, key=lambda c: (rank(c[0]), c[0]))
    several = {name for name, _ in order if sum(other == name for other, _ in order) > 1}
    letters: dict[str, str] = {}
    head, notes = ["run"], []
    for name, protocol in order:
        mark, unit = "", shared_unit(columns[name, protocol])
        if name in several:
            letters.setdefault(protocol, _letter(len(letters)))
            mark = f" [{letters[protocol]}]"
        head.append(f"{label(name)}{mark}" + (f", {unit}" if unit else ""))
    rows = []
    for run in named:
        rows.append([run, *(_cell(columns[key], run) for key in order)])
    blocks: list[Block] = []
    for name in sorted(several, key=rank):
        same_metric = [next(iter(columns[key].values())) for key in order if key[0] == name]
        notes.append(f"{label(name)}: {', '.join(unlike(same_metric))}")
    if notes:
        blocks.append(
            Text("Some numbers are not comparable: they were measured with different protocols, each in its own "
                 f"column. The protocols differ in {'; '.join(notes)}.", "warning")
        )  # fmt: skip
    caption = (
        "Numbers in one column were measured in the same way. ± is the standard error of each number over the data. A "
        "difference of two runs that is paired by example has a smaller standard error (`vaekit compare`)."
    )
    blocks.append(Table(head, rows, caption, numeric=range(1, len(head))))
    blocks += _not_measured(named, columns)
    if letters:
        lines = [[f"[{mark}]", protocol_text(json.loads(protocol))] for protocol, mark in letters.items()]
        blocks.append(Table(["", "protocol"], lines))
    else:
        common = json.loads(order[0][1])
        blocks.append(Text(f"Protocol: {protocol_text(common, leave_out=['estimator', 'K'])}."))
    return blocks


def _not_measured(
    named: Mapping[str, Sequence[Metric]], columns: Mapping[tuple[str, str], Mapping[str, Metric]]
) -> list[Block]:
    """A note that lists the runs without a metric that another run has, under any protocol."""
    measured = {run: {name for (name, _), column in columns.items() if run in column} for run in named}
    names = list(dict.fromkeys(name for name, _ in columns))
    lacking = {run: [label(n) for n in names if n not in present] for run, present in measured.items()}
    notes = [f"{run} has no {', '.join(words)}" for run, words in lacking.items() if words]
    if not notes:
        return []
    return [Text(f"Not measured: {'; '.join(notes)}. Evaluate these runs with `vaekit evaluate RUN`, then write this "
                 "page again. Metrics that are undefined for a model stay empty.", "note")]  # fmt: skip


def shared_unit(column: Mapping[str, Metric]) -> str:
    """The unit of all runs in a column, or "" if they differ or the metric's name is the unit."""
    units = {m["unit"] for m in column.values()}
    name = label(next(iter(column.values()))["name"])
    return "" if len(units) > 1 or units == {name.lower()} else units.pop()


def _cell(column: Mapping[str, Metric], run: str) -> str:
    m = column.get(run)
    if m is None:
        return "–"
    apart = len({other["unit"] for other in column.values()}) > 1
    return number(m["value"], m["se"]) + (f" {m['unit']}" if apart else "")


def _letter(i: int) -> str:
    return chr(ord("a") + i) if i < 26 else f"{i + 1}"
