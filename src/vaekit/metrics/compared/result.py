"""A comparison of runs: rows of settings, columns of comparable numbers, differences to one row."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vaekit.utils.numerals import decimals

from ..registry import METRICS
from .estimates import LEVEL, Estimate, difference, holm, mean
from .gathered import Number
from .rows import Row

Verdict = Literal["better", "worse", "differs", "no clear difference", "unknown"]
SHORT = {"n": "n = {}", "K": "K = {}", "split": "{} data", "observation": "{} x", "given": "given {}",
         "given total": "given the total", "groups": "{} groups", "seed": "seed {}"}  # fmt: skip
IMPLIED = {"data": ("digest", "draw", "dims", "rows", "n", "groups"), "n": ("draw", "groups"), "split": ("rows", "draw",
           "n"), "observation": ("draw",), "seed": (), "K": ("estimator",)}  # fmt: skip
"""What need not be said of numbers that differ in the first key: the others follow from it."""


@dataclass(frozen=True)
class Column:
    """Numbers that are comparable: of one metric and one protocol.

    Attributes:
        name: the metric.
        label: its name on pages, followed by what sets this protocol apart if the metric has several columns.
        unit, better, help: as registered.
        protocol: the protocol that all its numbers share, as in metrics.json.
        given: what the model is given besides: its conditions or the total of each row.
    """

    name: str
    label: str
    unit: str
    better: str | None
    help: str
    protocol: dict[str, Any]
    given: str = ""


@dataclass(frozen=True)
class Cell:
    """A metric of a row.

    Attributes:
        estimate: the mean over the runs of the row.
        values: the value of each run that was measured so, by its path.
        difference: the difference from the reference row; None for the reference, or if it is undefined.
        how: how the difference was made, in words.
        p, p_holm: p-value of the difference, and adjusted for the number of rows in its column.
        verdict: whether this row is better than the reference.
    """

    estimate: Estimate
    values: dict[str, float]
    difference: Estimate | None = None
    how: tuple[str, ...] = ()
    p: float | None = None
    p_holm: float | None = None
    verdict: Verdict | None = None


class Comparison:
    """Runs beside each other: each row is a setting, each column a metric under one protocol.

    Printing it gives the table, and a notebook shows it as one. `table()` has the numbers as records.

    Attributes:
        rows: the settings, each with its runs.
        columns: the metrics.
        cells: the numbers, by the indices of row and column.
        reference: the index of the row that the others are compared with.
        notes: what a reader of the numbers must know.
        warnings: those of the notes that limit what may be concluded.
    """

    def __init__(
        self, rows: Sequence[Row], numbers: Mapping[str, Sequence[Number]], reference: int | None, notes: Sequence[str]
    ):
        self.rows, self.notes = list(rows), list(notes)
        keys: dict[tuple[str, str], list[Number]] = {}
        for row in rows:
            for run in row.runs:
                for one in numbers[str(run.path)]:
                    keys.setdefault(one.column, []).append(one)
        order = {name: i for i, name in enumerate(METRICS)}
        ordered = sorted(keys, key=lambda key: order.get(key[0], len(order)))
        self.columns = [_column(keys[key][0], [keys[k][0] for k in ordered if k[0] == key[0]]) for key in ordered]
        found = [[_of_row(row, numbers, key) for row in self.rows] for key in ordered]
        self.reference = _most_compared(found) if reference is None else reference
        self.cells: dict[tuple[int, int], Cell] = {}
        for j, members in enumerate(found):
            for i, cell in _cells(self.rows, members, self.reference, self.columns[j].better):
                self.cells[i, j] = cell
        said = _notes(self)
        self.notes += [note for note, _ in said]
        self.warnings = [note for note, warns in said if warns]

    # --- as data ------------------------------------------------------------------------------------------------

    def table(self) -> list[dict[str, Any]]:
        """One record for each row and metric, for `pandas.DataFrame(comparison.table())`.

        Values have 95% intervals (`low`, `high`): over seeds if the row has several runs, else over data. `difference`
        is to the reference row, with its own interval and p-values.
        """
        records = []
        for (i, j), cell in self.cells.items():
            row, column = self.rows[i], self.columns[j]
            low, high = cell.estimate.interval() or (None, None)
            apart = cell.difference
            ends = (apart and apart.interval()) or (None, None)
            records.append({
                "row": row.name, "metric": column.name, "column": column.label, "unit": column.unit,
                "seeds": len(cell.values), "value": cell.estimate.value, "se": cell.estimate.se, "low": low,
                "high": high, "over": cell.estimate.over or None,
                "difference": apart and apart.value, "difference_se": apart and apart.se,
                "difference_low": ends[0], "difference_high": ends[1], "p": cell.p, "p_holm": cell.p_holm,
                "verdict": cell.verdict,
            })  # fmt: skip
        return records

    def as_json(self) -> dict[str, Any]:
        """Everything, for a JSON file: rows with their runs, columns with their protocols, the table, and notes."""
        rows = []
        for row in self.rows:
            config = [run.config for run in row.runs]
            rows.append({
                "name": row.name, "settings": row.settings, "runs": [str(run.path) for run in row.runs],
                "seeds": row.seeds, "parameters": config[0]["decided"]["parameters"],
                "steps": [c.get("step", 0) for c in config], "seconds": [c.get("seconds", 0.0) for c in config],
            })  # fmt: skip
        columns = [
            {"metric": c.name, "column": c.label, "unit": c.unit, "better": c.better, "given": c.given or None,
             "protocol": c.protocol}
            for c in self.columns
        ]  # fmt: skip
        values = [
            {**record, "values": cell.values, "how": list(cell.how)}
            for record, cell in zip(self.table(), self.cells.values(), strict=True)
        ]
        reference = self.rows[self.reference].name
        return {"reference": reference, "rows": rows, "columns": columns, "table": values, "notes": self.notes}

    # --- as text ------------------------------------------------------------------------------------------------

    def trained(self) -> tuple[list[str], list[list[str]]]:
        """What was trained, as text: heading, and for each row its runs, seeds, parameters, steps and training time."""
        head = ["setting", "runs", "seeds", "parameters", "steps", "training"]
        lines = []
        for row in self.rows:
            config = [run.config for run in row.runs]
            names = [run.name for run in row.runs]
            lines.append([
                row.name,
                ", ".join(names) if sum(map(len, names)) <= 44 else f"{names[0]} and {len(names) - 1} more",
                ", ".join(map(str, row.seeds)) if len(row.seeds) <= 6 else f"{len(row.seeds)} seeds",
                _span([c["decided"]["parameters"] for c in config]),
                _span([c.get("step", 0) for c in config]),
                f"{_span([round(c.get('seconds', 0.0)) for c in config])} s",
            ])  # fmt: skip
        return head, lines

    def grid(self) -> tuple[list[str], list[list[str]]]:
        """The table as text: its heading, and one line for each row."""
        head = ["", "seeds", *(f"{c.label}{_arrow(c.better)}" for c in self.columns)]
        lines = []
        for i, row in enumerate(self.rows):
            cells = [self.cells.get((i, j)) for j in range(len(self.columns))]
            lines.append([row.name, str(len(row.runs)), *("–" if c is None else value_text(c.estimate) for c in cells)])
        return head, lines

    def differences(self) -> tuple[list[str], list[list[str]]]:
        """The differences to the reference as text: heading and lines; no lines if there are none."""
        columns = [
            j for j in range(len(self.columns)) if any(c.difference for (_, k), c in self.cells.items() if k == j)
        ]
        head = [f"minus {self.rows[self.reference].name}", *(self.columns[j].label for j in columns)]
        lines = []
        for i, row in enumerate(self.rows):
            if i != self.reference:
                lines.append([row.name, *(difference_text(self.cells.get((i, j))) for j in columns)])
        return head, lines if columns else []

    def __repr__(self) -> str:
        """The tables of values and differences, and the notes, as text."""
        parts = [_lines(self.grid())]
        if self.differences()[1]:
            parts.append(_lines(self.differences()))
        return "\n\n".join([*parts, "\n".join(self.explained)])

    def _repr_html_(self) -> str:
        """The same as HTML, for notebooks."""
        parts = [_html(self.grid())]
        if self.differences()[1]:
            parts.append(_html(self.differences()))
        notes = "".join(f"<p><small>{html.escape(note)}</small></p>" for note in self.explained)
        return "".join(parts) + notes

    @property
    def explained(self) -> list[str]:
        """What the numbers mean, their protocol, and the notes: one sentence or a few for each line."""
        overs = {cell.estimate.over for cell in self.cells.values()}
        meaning = []
        if "seeds" in overs:
            meaning.append("over seeds (Student's t) for rows of several seeds")
        if "data" in overs:
            meaning.append("over data for rows of one run")
        lines = [f"± is half the width of a 95% interval, {' and '.join(meaning)}."] if meaning else []
        lines += differences_explained(self)
        return [*lines, *self.notes, protocols_text(self.columns)]


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def value_text(estimate: Estimate) -> str:
    """A value with half the width of its interval: −241.32 ± 0.21."""
    return _with_reach(estimate.value, estimate.reach(), signed=False)


def difference_text(cell: Cell | None) -> str:
    """A difference with half the width of its interval and its verdict: +1.32 ± 0.21 better."""
    if cell is None or cell.difference is None:
        return "–"
    text = _with_reach(cell.difference.value, cell.difference.reach(), signed=True)
    return f"{text} {cell.verdict}" if cell.verdict in ("better", "worse", "differs") else text


def _with_reach(value: float, reach: float | None, signed: bool) -> str:
    sign = "+" if signed else ""
    if reach is None:
        whole = float(value).is_integer() and not signed
        return f"{value:{sign},.0f}".replace("-", "−") if whole else f"{value:{sign},.3g}".replace("-", "−")
    digits = decimals(reach)
    return f"{value:{sign},.{digits}f} ± {reach:,.{digits}f}".replace("-", "−")


def _arrow(better: str | None) -> str:
    return {"higher": " ↑", "lower": " ↓"}.get(better or "", "")


def _lines(grid: tuple[list[str], list[list[str]]]) -> str:
    head, rows = grid
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    )


def _html(grid: tuple[list[str], list[list[str]]]) -> str:
    head, rows = grid
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = ""
    for name, *cells in rows:
        body += f"<tr><th>{html.escape(name)}</th>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>"
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


# --- how the numbers are made -------------------------------------------------------------------------------------


def _of_row(row: Row, numbers: Mapping[str, Sequence[Number]], key: tuple[str, str]) -> list[tuple[int, Number]]:
    """The numbers of the runs of a row in a column, each with the run's seed."""
    found = []
    for run, seed in zip(row.runs, row.seeds, strict=True):
        found += [(seed, one) for one in numbers[str(run.path)] if one.column == key]
    return found


def _most_compared(found: Sequence[Sequence[Sequence[Any]]]) -> int:
    """The first of the rows that have the most numbers in common with others, for each column and row of `found`."""
    rows = range(len(found[0])) if found else range(1)
    shared = [sum(sum(map(bool, column)) - 1 for column in found if column[i]) for i in rows]
    return shared.index(max(shared))


def _cells(
    rows: Sequence[Row], found: Sequence[Sequence[tuple[int, Number]]], reference: int, better: str | None
) -> list[tuple[int, Cell]]:
    """The cells of one column, with the indices of their rows."""
    cells = {}
    for i, members in enumerate(found):
        if not members:
            continue
        ones = [one for _, one in members]
        paths = [str(run.path) for run in rows[i].runs if run.config["training"]["seed"] in dict(members)]
        first = ones[0]
        degrees = (first.protocol.get("groups") or first.protocol.get("n") or math.inf) - 1
        estimate = mean([one.value for one in ones], se=first.se, degrees=degrees, ends=first.interval)
        cells[i] = Cell(estimate, dict(zip(paths, (one.value for one in ones), strict=True)))
    if reference not in cells:
        return list(cells.items())
    made = {i: _difference(found[i], found[reference]) for i in cells if i != reference}
    adjusted = dict(zip(made, holm([d.p for d, _ in made.values()]), strict=True))
    for i, (apart, how) in made.items():
        p = adjusted[i]
        verdict: Verdict = "unknown"
        if p is not None and p > LEVEL:
            verdict = "no clear difference"
        elif p is not None:
            higher = apart.value > 0
            verdict = "differs" if better is None else "better" if higher == (better == "higher") else "worse"
        cells[i] = Cell(cells[i].estimate, cells[i].values, apart, how, apart.p, p, verdict)
    return sorted(cells.items())


def _difference(x: Sequence[tuple[int, Number]], y: Sequence[tuple[int, Number]]) -> tuple[Estimate, tuple[str, ...]]:
    """The difference of two rows in a column, and how it was made."""
    seeds = [seed for seed, _ in x]
    same = len(x) > 1 and seeds == [seed for seed, _ in y]
    numbers = [one for _, one in [*x, *y]]
    data = all(one.per_datum is not None for one in numbers)
    a, b = ([one.per_datum if data and one.per_datum is not None else np.array([one.value]) for _, one in side]
            for side in (x, y))  # fmt: skip
    made = difference(a, b, paired=same, group=numbers[0].group if data else None)
    how = ["paired by datum where the metric has a number for each"] if data else []
    if same:
        how.append("paired by seed")
    elif len(x) > 1 and len(y) > 1:
        how.append("seeds not paired, because they are not the same")
    elif len(x) + len(y) > 2:
        how.append("one side has a single run, and the spread over seeds of the other is taken for both")
    return made, tuple(how)


def _column(first: Number, same_metric: Sequence[Number]) -> Column:
    """The column of a number; `same_metric` holds one number of each column of its metric."""
    known = METRICS.get(first.name)
    label = known.label if known else first.name.replace("_", " ")
    words = _apart(first, same_metric)
    given = [f"given {first.key['given']}"] if first.key.get("given") else []
    given += ["given the total of each row"] if first.key.get("given total") else []
    return Column(
        first.name,
        f"{label} ({words})" if words else label,
        first.unit,
        known.better if known else None,
        known.help if known else "",
        first.protocol,
        " and ".join(given),
    )


def _apart(one: Number, others: Sequence[Number]) -> str:
    """What sets the protocol of a number apart from those of the other columns of its metric, in words."""
    keys = dict.fromkeys(key for other in others for key in other.key)
    differing = [key for key in keys if len({str(other.key.get(key)) for other in others}) > 1]
    implied = {other for key in differing for other in IMPLIED.get(key, ())}
    kept = [key for key in differing if key not in implied] or differing
    words = []
    for key in kept:
        value = one.key.get(key)
        if key in ("given", "given total") and value is None:
            continue
        shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        words.append(SHORT.get(key, "{}" if key in ("data", "estimator") else f"{key} {{}}").format(shown[:48]))
    return ", ".join(words) or ("unconditional" if {"given", "given total"} & set(differing) else "")


# --- what must be said --------------------------------------------------------------------------------------------


def differences_explained(comparison: Comparison) -> list[str]:
    """How the differences were made, and what their verdicts mean."""
    made = [cell for cell in comparison.cells.values() if cell.difference is not None]
    if not made:
        return []
    hows = "; ".join(dict.fromkeys(part for cell in made for part in cell.how))
    overs = {cell.difference.over for cell in made if cell.difference is not None} - {""}
    lines = [f"Differences are to {comparison.rows[comparison.reference].name}{f': {hows}' if hows else ''}."]
    if "seeds and data" in overs:
        lines[0] += " Their intervals hold for other seeds and other data."
    elif "seeds" in overs and "data" not in overs:
        lines[0] += " Their intervals hold for other seeds, on these data."
    elif overs == {"data"}:
        lines[0] += " Their intervals are over data, for these very runs: another seed may reverse a difference."
    most = max(sum(c.p is not None for (_, k), c in comparison.cells.items() if k == j)
               for j in range(len(comparison.columns)))  # fmt: skip
    adjusted = f", adjusted for the {most} differences of a column (Holm)" if most > 1 else ""
    lines.append(f"Better, worse and differs: p below 0.05{adjusted}. Metrics are not adjusted for each other.")
    return lines


def protocols_text(columns: Sequence[Column]) -> str:
    """The protocol that all columns share, as a sentence."""
    if not columns:
        return "No numbers."
    shared = {k: v for k, v in columns[0].protocol.items() if all(c.protocol.get(k) == v for c in columns)}
    parts = [f"{shared['data']}" if "data" in shared else "several data sets"]
    for key, form in (("split", "{} data"), ("n", "n = {:,}"), ("observation", "{} x"), ("seed", "noise seed {}")):
        if shared.get(key) is not None:
            parts.append(form.format(shared[key]))
    samples = {c.protocol["K"] for c in columns if c.protocol.get("K") is not None}
    if len(samples) == 1:
        parts.append(f"K = {samples.pop()}")
    if shared.get("draw"):
        parts.append(f"draw {str(shared['draw'])[:8]}")
    if shared.get("groups"):
        parts.append(f"errors over {shared['groups']:,} groups")
    return f"Protocol: {', '.join(parts)}."


def _notes(comparison: Comparison) -> list[tuple[str, bool]]:
    """Notes about protocols, conditions, unfinished runs and missing numbers, and whether each is a warning."""
    notes = []
    names = [c.name for c in comparison.columns]
    split = [n for n in dict.fromkeys(names) if names.count(n) > 1]
    if split:
        labels = ", ".join(METRICS[n].label if n in METRICS else n for n in split)
        notes.append((f"Numbers in different columns of {labels} are not comparable: their protocols differ, as the "
                      "headings say, and no differences are taken between them.", True))  # fmt: skip
    given = {column.given for column in comparison.columns}
    if len(given) > 1:
        words = " and others of ".join(f"x {word}" if word else "x alone" for word in sorted(given))
        note = f"Some numbers are of {words}: they differ in what the model knows, so they are not compared."
        notes.append((note, True))
    for row in comparison.rows:
        for run in row.runs:
            if (state := run.config["state"]) not in ("finished", "stopped early"):
                notes.append((f"{run.path} is {state} at step {run.config.get('step', 0):,}.", True))
    for i, row in enumerate(comparison.rows):
        partial = [c.label for j, c in enumerate(comparison.columns)
                   if (i, j) in comparison.cells and len(comparison.cells[i, j].values) < len(row.runs)]  # fmt: skip
        if partial:
            note = f"Not all runs of {row.name} have {', '.join(partial)}: these are means of those that do."
            notes.append((note, False))
    return notes
