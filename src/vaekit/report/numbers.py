"""Measured numbers as text: values with their errors, protocols, and runs side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from vaekit.metrics import metrics as registered
from vaekit.utils.uncertainty import FEW, t_quantile

from .blocks import Block, Cards, Table, Text

Metric = dict[str, Any]
KNOWN = ("data", "split", "n", "observation", "draw", "estimator", "K", "dims", "seed", "precision", "units", "digest",
         "groups")  # fmt: skip


def label(name: str) -> str:
    """What the page calls a metric, also one of a plug-in that is not installed."""
    known = registered()
    return known[name].label if name in known else name.replace("_", " ")


def meaning(name: str) -> str:
    """What a metric is and which direction is better; nothing for one of a plug-in that is not installed."""
    known = registered()
    return known[name].meaning if name in known else ""


def is_shown(m: Metric) -> bool:
    """Whether it is one number that describes the model or its data, rather than the estimator."""
    known = registered()
    return isinstance(m["value"], int | float) and not (m["name"] in known and known[m["name"]].of == "estimator")


def rank(name: str) -> int:
    """Its place among the metrics: that of the register, unknown ones last."""
    return {known: i for i, known in enumerate(registered())}.get(name, len(registered()))


def number(value: float, se: float | None = None) -> str:
    """A value with as many digits as its standard error allows, two of them uncertain: −279.74 ± 0.97."""
    if isinstance(value, int) and se is None:
        return f"{value:,}"
    if se is not None and se > 0 and math.isfinite(se):
        digits = min(8, max(0, 1 - math.floor(math.log10(se))))
        return f"{value:,.{digits}f} ± {se:.{digits}f}".replace("-", "−")
    return f"{value:,.2f}".replace("-", "−")


def unlike(metrics: Sequence[Metric]) -> list[str]:
    """The keys of the protocols in which these metrics differ."""
    keys = dict.fromkeys(k for m in metrics for k in m["protocol"])
    return [k for k in keys if len({json.dumps(m["protocol"].get(k), sort_keys=True) for m in metrics}) > 1]


def protocol_text(protocol: dict[str, Any], leave_out: Sequence[str] = ()) -> str:
    """A protocol as one line: data and split, n, observation and draw, estimator, seed, precision, units."""
    p = {k: v for k, v in protocol.items() if k not in leave_out and v is not None}
    parts = []
    where = " ".join(str(p[k]) for k in ("data", "split") if k in p)
    if where:
        parts.append(where)
    if "n" in p:
        parts.append(f"n = {p['n']:,}")
    if "observation" in p:
        parts.append(f"{p['observation']} data")
    if "draw" in p:
        parts.append(f"frozen draw {str(p['draw'])[:8]}")
    if "estimator" in p:
        parts.append(str(p["estimator"]))
    if "K" in p and str(p["K"]) not in str(p.get("estimator", "")):
        parts.append(f"K = {p['K']}")
    for key, form in (("dims", "{} dimensions"), ("seed", "seed {}"), ("precision", "{}"), ("units", "{}")):
        if key in p:
            parts.append(form.format(p[key]))
    if "groups" in p:
        parts.append(f"standard errors by group, {p['groups']:,} groups")
    if "digest" in p:
        parts.append(f"data digest {str(p['digest'])[:8]}")
    parts += [f"{k} {v}" for k, v in p.items() if k not in KNOWN]
    return ", ".join(parts)


def beyond_floor(gap: Metric) -> str:
    """How far -log p(x) is from the entropy floor, in standard errors of the paired difference, in words."""
    value, se = gap["value"], gap["se"]
    if not se:
        return "-log p(x) less the floor"
    times = value / se
    if value >= 0:
        return f"-log p(x) lies {times:.3g} standard errors above the floor"
    protocol = gap["protocol"]
    if times > -max(3.0, t_quantile(0.0027, (protocol.get("groups") or protocol["n"]) - 1)):
        return f"-log p(x) lies {-times:.2g} standard errors below the floor: as chance allows on these draws"
    return (
        f"-log p(x) lies {-times:.3g} standard errors below the floor, which chance does not explain: the measurement "
        "is wrong, or these very draws were trained on"
    )


def verdict(difference: Metric, names: tuple[str, str]) -> str:
    """Which of two runs is better by a paired difference of the first less the second, in words.

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
    """A note where standard errors are by so few groups that two of them are no 95% interval; else none."""
    if groups >= FEW:
        return ""
    if groups < 2:
        return "standard errors are by group, and there is one group: nothing is known of the error"
    return (
        f"standard errors are by group, and {groups} groups are few: a 95% interval is ± "
        f"{t_quantile(0.05, groups - 1):.1f} of them (Student's t)"
    )


def best_known(metrics: Sequence[Metric]) -> dict[str, Metric]:
    """One metric a name: of the test split before others, on the most data, the last one measured."""
    chosen: dict[str, Metric] = {}
    for m in metrics:
        old = chosen.get(m["name"])
        if old is None or _weight(m) >= _weight(old):
            chosen[m["name"]] = m
    return chosen


def _weight(m: Metric) -> tuple[bool, int]:
    return m["protocol"].get("split") == "test", m["protocol"].get("n") or 0


def key_numbers(metrics: Sequence[Metric]) -> Block:
    """The cards at the top of a page; what their protocols share is said once below them."""
    chosen = best_known(metrics)
    shown = sorted((m for m in chosen.values() if is_shown(m)), key=lambda m: rank(m["name"]))
    apart = ["estimator", "K", *unlike(shown)]
    cards = []
    for m in shown:
        how = protocol_text(m["protocol"], [k for k in m["protocol"] if k not in apart])
        how = f"{how}; {beyond_floor(m)}" if m["name"] == "floor_gap" else how
        name = label(m["name"])
        unit = "" if m["unit"].lower() == name.lower() else m["unit"]
        cards.append((name, number(m["value"], m["se"]), unit, meaning(m["name"]), how))
    shared = protocol_text(shown[0]["protocol"], apart) if shown else ""
    note = f"Measured on {shared}. ± is the standard error of the mean over the data." if shared else ""
    groups = {m["protocol"]["groups"] for m in shown if m["protocol"].get("groups")}
    if few := few_groups(min(groups)) if groups else "":
        note += f" {few[0].upper()}{few[1:]}."
    return Cards(cards, note)


def all_numbers(metrics: Sequence[Metric]) -> Table:
    """Every single number with its whole protocol."""
    rows = [
        [label(m["name"]), number(m["value"], m["se"]), m["unit"], protocol_text(m["protocol"])]
        for m in metrics
        if isinstance(m["value"], int | float)
    ]
    return Table(["metric", "value ± standard error", "unit", "protocol"], rows, numeric=(1,), wide=(3,))


def comparison(named: Mapping[str, Sequence[Metric]]) -> list[Block]:
    """Runs side by side: one column for one metric of one protocol, so that unlike numbers never stand together.

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
            Text("No run has been evaluated: run `vaekit evaluate RUN` for each, then write this page again.", "note")
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
        found = [next(iter(columns[key].values())) for key in order if key[0] == name]
        notes.append(f"{label(name)}: {', '.join(unlike(found))}")
    if notes:
        blocks.append(
            Text("Not every number can be compared: protocols differ, and each has a column of its own. They differ in "
                 f"{'; '.join(notes)}.", "warning")
        )  # fmt: skip
    caption = (
        "Numbers in one column were measured in the same way. ± is each number's own standard error over the data; on "
        "the same data, the paired difference of two runs has a smaller standard error (`vaekit.metrics.compare`)."
    )
    blocks.append(Table(head, rows, caption, numeric=range(1, len(head))))
    blocks += _not_measured(named, columns)
    if letters:
        lines = [[f"[{mark}]", protocol_text(json.loads(protocol))] for protocol, mark in letters.items()]
        blocks.append(Table(["", "protocol"], lines))
    else:
        common = json.loads(order[0][1])
        blocks.append(Text(f"Protocol: {protocol_text(common, ['estimator', 'K'])}."))
    return blocks


def _not_measured(
    named: Mapping[str, Sequence[Metric]], columns: Mapping[tuple[str, str], Mapping[str, Metric]]
) -> list[Block]:
    """Which runs have no number of a metric that another run has, under any protocol."""
    measured = {run: {name for (name, _), column in columns.items() if run in column} for run in named}
    names = list(dict.fromkeys(name for name, _ in columns))
    lacking = {run: [label(n) for n in names if n not in has] for run, has in measured.items()}
    notes = [f"{run} has no {', '.join(words)}" for run, words in lacking.items() if words]
    if not notes:
        return []
    return [Text(f"Not measured: {'; '.join(notes)}. Run `vaekit evaluate RUN` for these runs (a metric that a model "
                 "cannot have stays empty), then write this page again.", "note")]  # fmt: skip


def shared_unit(column: Mapping[str, Metric]) -> str:
    """The unit of all runs in a column, or "" where each has its own or the metric's name says it."""
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
