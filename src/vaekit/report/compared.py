"""The page that compares runs: a table of settings, intervals, learning curves, reconstructions and samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vaekit import figures
from vaekit.data.core import counted
from vaekit.errors import DataError, RunError
from vaekit.figures.compared import Mark, intervals, seed_curves
from vaekit.metrics.compared import Cell, Column, Comparison
from vaekit.metrics.compared.gathered import rows_key, share_data
from vaekit.metrics.compared.result import difference_text
from vaekit.metrics.compared.rows import settings_of, shown
from vaekit.metrics.protocol import protocol_text
from vaekit.utils.files import checked_path, write_json, write_text
from vaekit.utils.numerals import decimals, probability

from .about import shown_path
from .blocks import Block, Chapter, Code, Section, Strip, Strips, Table, Text, plot
from .commands import comparing
from .look import Look
from .page import render
from .sections import series_of

SENTENCES = 4
"""The maximum number of settings that the results tell one by one."""
PICTURED = 12
"""The maximum number of settings whose reconstructions and samples are shown."""
HEADLINES = ("log_px_iw", "elbo", "mse", "frechet", "mig")
"""The metrics of which a page's results tell the first that there is."""

ALONE = "A setting with a single run may owe its results to its seed."
FULL = ("difference", "95% interval", "p", "verdict")
"""The columns of the differences to a single other setting."""
CLEAR = ("better", "worse", "differs")
"""The verdicts of differences that are not chance."""


def write_comparison(comparison: Comparison, path: str | Path | None = None) -> Path:
    """Write the page of a comparison, and all its numbers as a .json file beside it; returns the path of the page.

    Arguments:
        comparison: of `vaekit.compare` with a list of runs.
        path: the path of the page; by default comparison.html in the working directory.

    Raises:
        RunError: a file cannot be written.
    """
    target = checked_path("comparison.html" if path is None else path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the directory {target.parent}: {error.strerror}; choose another `path`") from error
    data: dict[Any, Any] = {}
    for row in comparison.rows:
        with suppress(DataError):  # a section says so
            share_data(row.runs[0], data)
    looks = [Look(row.runs[0]) for row in comparison.rows]
    parts = [_results(comparison), _values(comparison), _apart(comparison), _curves(comparison)]
    parts += [_reconstructions(comparison, looks), _samples(comparison, looks), _method(comparison, target)]
    named = list(dict.fromkeys(run.config["data"]["name"] for row in comparison.rows for run in row.runs))
    runs = sum(len(row.runs) for row in comparison.rows)
    names = [row.name for row in comparison.rows]
    title = " against ".join(names) if len(", ".join(names)) < 50 else f"{len(names)} settings"
    title = f"{', '.join(named[:3])}: {title}"
    now = datetime.now(UTC)
    facts = [f"{now.day} {now:%B %Y}", counted(len(names), "setting"), counted(runs, "run")]
    chapter = Chapter("comparison", title, facts, "", [], [part for part in parts if part.blocks])
    write_text(target, render(title, [], [chapter], "vaekit compare"))
    write_json(target.with_suffix(".json"), comparison.as_json())
    return target


# --- numbers ------------------------------------------------------------------------------------------------------


def _results(comparison: Comparison) -> Section:
    """What was found, in sentences; what was trained."""
    section = Section("results", "Results")
    headlines = [c for name in HEADLINES for c in comparison.columns if c.name == name][:1]
    for column in headlines or comparison.columns[:1]:
        section.blocks += [Text(text) for text in _sentences(comparison, column)]
    section.blocks += [Text(note, "warning") for note in comparison.warnings]
    keys = list(dict.fromkeys(key for row in comparison.rows for key in row.settings))
    keys = [key for key in keys if key not in ("digest",)]
    _, lines = comparison.trained()
    head = ["setting", *(key.replace("_", " ") for key in keys), "seeds", "parameters", "steps", "training"]
    rows = []
    for row, line in zip(comparison.rows, lines, strict=True):
        rows.append([row.name, *(shown(row.settings.get(key, "–")) for key in keys), *line[2:]])
    if len(keys) == 1:  # the name of the row says it
        head, rows = [head[0], *head[2:]], [[line[0], *line[2:]] for line in rows]
    caption = f"What was trained. All settings share {_shared(comparison)}."
    section.blocks.append(Table(head, rows, caption, numeric=range(len(head) - 3, len(head))))
    return section


def _shared(comparison: Comparison) -> str:
    """The main settings that all rows share, in words."""
    found = [settings_of(row.runs[0]) for row in comparison.rows]
    parts = []
    for key, form in (("data", "the data {}"), ("training data", "{:,} training examples"), ("recipe", "recipe {}"),
                      ("latent", "{} latents"), ("hidden", "hidden layers of {}"), ("objective", "objective {}"),
                      ("observation", "{} x"), ("batch", "batches of {}"), ("optimiser", "{}"),
                      ("lr", "learning rate {:g}"), ("minutes", "{:g} minutes each"),
                      ("epochs", "{:g} epochs"), ("steps", "{:,} steps")):  # fmt: skip
        values = [one.get(key) for one in found]
        if values[0] is not None and all(value == values[0] for value in values):
            parts.append(form.format(shown(values[0]) if isinstance(values[0], str | tuple) else values[0]))
    return ", ".join(parts) or "no settings"


def _sentences(comparison: Comparison, column: Column) -> list[str]:
    """How the rows compare with the reference in one metric."""
    j = comparison.columns.index(column)
    reference = comparison.rows[comparison.reference].name
    cells = {i: cell for (i, k), cell in comparison.cells.items() if k == j}
    apart = {i: cell.difference.value for i, cell in cells.items() if cell.difference is not None}
    if not apart:
        return []
    unit = f" {column.unit}" if column.unit.lower() != column.label.lower() else ""
    clear = [i for i in apart if cells[i].verdict in CLEAR]
    order = sorted(apart, key=lambda i: -abs(apart[i]))
    sentences = [_sentence(comparison.rows[i].name, reference, column, cells[i], unit) for i in order[:SENTENCES]]
    if len(order) > SENTENCES:
        sentences.append(f"Of {len(order)} settings, {len(clear)} differ clearly from {reference} in {column.label}.")
    if any(len(row.runs) == 1 for row in comparison.rows):
        sentences.append(ALONE)
    return sentences


def _sentence(name: str, reference: str, column: Column, cell: Cell, unit: str) -> str:
    apart = cell.difference
    assert apart is not None
    ends = apart.interval()
    if ends is None:
        return f"{column.label}: {name} and {reference} differ by {_signed(apart.value)}{unit}, with unknown error."
    digits = decimals((ends[1] - ends[0]) / 2)
    low, high = sorted(ends, key=abs) if ends[0] * ends[1] > 0 else ends
    flip = -1 if apart.value < 0 and ends[1] < 0 else 1
    span = f"95% interval {_plain(flip * low, digits)} to {_plain(flip * high, digits)}"
    p = f", {probability(cell.p_holm)}" if cell.p_holm is not None else ""
    if cell.verdict == "no clear difference":
        return (
            f"{column.label}: no clear difference between {name} and {reference} "
            f"({_signed(apart.value, digits)}{unit}, {span}{p})."
        )
    by = f"by {_plain(abs(apart.value), digits)}{unit} ({span}{p})"
    if cell.verdict in ("better", "worse"):
        return f"{column.label}: {name} is {cell.verdict} than {reference} {by}."
    return f"{column.label} is {'higher' if apart.value > 0 else 'lower'} in {name} than in {reference} {by}."


def _signed(value: float, digits: int = 2) -> str:
    return f"{value:+,.{digits}f}".replace("-", "−")


def _plain(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}".replace("-", "−")


def _panels(comparison: Comparison, differences: bool) -> tuple[dict[str, dict[str, Mark]], dict[str, str]]:
    """The marks of each metric, or of its differences, and the units."""
    panels: dict[str, dict[str, Mark]] = {}
    units = {}
    for j, column in enumerate(comparison.columns):
        marks = {}
        for i, row in enumerate(comparison.rows):
            cell = comparison.cells.get((i, j))
            shown_one = None if cell is None else cell.difference if differences else cell.estimate
            if cell is None or shown_one is None:
                continue
            low, high = shown_one.interval() or (None, None)
            each = () if differences else tuple(cell.values.values())
            faint = differences and cell.verdict not in CLEAR
            marks[row.name] = Mark(shown_one.value, low, high, each, faint)
        if marks:
            panels[column.label] = marks
            arrow = {"higher": ", higher is better", "lower": ", lower is better"}.get(column.better or "", "")
            units[column.label] = f"{column.unit}{arrow}"
    return panels, units


def _values(comparison: Comparison) -> Section:
    head, lines = comparison.grid()
    caption = " ".join(line for line in comparison.explained if line.startswith("±"))
    caption += " Arrows show the better direction."
    blocks: list[Block] = [Table(["setting", *head[1:]], lines, caption, numeric=range(1, len(head)))]
    panels, units = _panels(comparison, differences=False)
    names = [row.name for row in comparison.rows]
    if panels and len(comparison.rows) > 1:
        blocks.append(
            plot("values", lambda: intervals(panels, units, settings=names),
                 "Points with intervals, one panel for each metric",
                 "Means with their 95% intervals. Small open points are single runs.")
        )  # fmt: skip
    return Section("numbers", "Numbers", blocks)


def _apart(comparison: Comparison) -> Section:
    reference = comparison.rows[comparison.reference].name
    others = [i for i in range(len(comparison.rows)) if i != comparison.reference]
    made = [j for j in range(len(comparison.columns)) if any(_has(comparison, i, j) for i in others)]
    if not made:
        return Section("differences", "Differences")
    words = [line for line in comparison.explained if line.startswith(("Differences are", "Better,"))]
    table: list[list[str]] = []
    for j in made:
        column = comparison.columns[j]
        if len(others) > 1:
            table.append([column.label, *(difference_text(comparison.cells.get((i, j))) for i in others)])
        else:
            table.append([column.label, *_in_full(comparison.cells[others[0], j])])
    heads = [comparison.rows[i].name for i in others] if len(others) > 1 else FULL
    blocks: list[Block] = [Table(["metric", *heads], table, " ".join(words), numeric=range(1, len(heads) + 1))]
    panels, units = _panels(comparison, differences=True)
    names = [row.name for row in comparison.rows]
    blocks.append(
        plot("differences", lambda: intervals(panels, units, True, names),
             f"Differences to {reference} with intervals, one panel for each metric",
             f"Differences to {reference} with their 95% intervals. Grey ones may be chance.")
    )  # fmt: skip
    return Section("differences", f"Differences to {reference}", blocks)


def _has(comparison: Comparison, i: int, j: int) -> bool:
    cell = comparison.cells.get((i, j))
    return cell is not None and cell.difference is not None


def _in_full(cell: Cell) -> list[str]:
    """A difference with its interval, its p-value and its verdict, each in its column."""
    apart = cell.difference
    assert apart is not None
    ends = apart.interval()
    if ends is None:
        return [_signed(apart.value), "–", "–", "no spread over seeds" if apart.se == 0 else "error unknown"]
    digits = decimals((ends[1] - ends[0]) / 2)
    interval = " to ".join(_signed(end, digits) for end in ends)
    p = "–" if cell.p is None else probability(cell.p).removeprefix("p = ").removeprefix("p ")
    return [_signed(apart.value, digits), interval, p, cell.verdict or ""]


# --- training -----------------------------------------------------------------------------------------------------


def _curves(comparison: Comparison) -> Section:
    """The validation curves of all runs that observe the same data."""
    section = Section("curves", "Learning curves")
    first = comparison.rows[comparison.reference].runs[0].config
    same = {(run.config["data"]["digest"], run.config["observation"]) for row in comparison.rows for run in row.runs}
    curves, steps, seconds = {}, {}, {}
    for row in comparison.rows:
        found = [series_of(run.log, "valid") for run in row.runs
                 if (run.config["data"]["digest"], run.config["observation"])
                 == (first["data"]["digest"], first["observation"])]  # fmt: skip
        found = [series for series in found if "elbo" in series and len(series["step"])]
        if found:
            curves[row.name] = [(s["step"], s["elbo"]) for s in found]
            steps[row.name], seconds[row.name] = [s["step"] for s in found], [s["seconds"] for s in found]
    if not curves:
        return section
    timed = all(np.isfinite(x).all() for each in seconds.values() for x in each)
    across = {"step": steps, **({"seconds of training": seconds} if timed else {})}
    caption = "Validation ELBO (at most 2,000 examples, one sample each) of every run, nats per example. "
    caption += "The first tenth of training may be cut off."
    if len(same) > 1:
        caption += " Runs on other data or with another observation are not shown."
    section.blocks.append(
        plot("learning-curves", lambda: seed_curves(curves, "validation ELBO, nats", across),
             "Line plots of the validation ELBO of all runs, against steps and against time", caption)
    )  # fmt: skip
    return section


# --- pictures -----------------------------------------------------------------------------------------------------


def _alike(comparison: Comparison, looks: Sequence[Look]) -> list[int]:
    """The rows that have the data and the test rows of the reference."""
    first = looks[comparison.reference].run
    key = (first.config["data"]["digest"], rows_key(first, "test"))
    return [i for i, look in enumerate(looks) if (look.run.config["data"]["digest"], rows_key(look.run, "test")) == key]


def _note(comparison: Comparison, i: int) -> str:
    row = comparison.rows[i]
    return f"seed {row.seeds[0]}" if len(row.runs) > 1 else ""


def _reconstructions(comparison: Comparison, looks: Sequence[Look]) -> Section:
    """The same test data, reconstructed by the first run of each row."""
    section = Section("reconstructions", "Reconstructions of the same data")
    base = looks[comparison.reference]
    if base.data is None:
        section.blocks.append(Text(f"Not shown, because the data are unavailable: {base.missing}.", "note"))
        return section
    chosen = [i for i in _alike(comparison, looks) if looks[i].data is not None][:PICTURED]
    rebuilt = {i: looks[i].run.decode(looks[i].run.encode(looks[i].observed, rows=base.examples)) for i in chosen}
    several = any(len(comparison.rows[i].runs) > 1 for i in chosen)
    caption = "Test examples, not selected, encoded to the posterior mean and decoded to the mean of p(x|z)"
    caption += ", by the first seed of each setting." if several else "."
    if base.is_image:
        rows = [Strip("data", base.tiles(base.raw))]
        span = float(base.scale[1] - base.scale[0]) or 1.0
        for i, x in rebuilt.items():
            rms = math.sqrt(float(np.nanmean((x.astype(float) - base.raw) ** 2))) / span
            note = f"RMS {rms:.3f} of the range"
            rows.append(Strip(comparison.rows[i].name, looks[i].tiles(x), note))
        alt = "Rows of test images and their reconstructions by each setting"
        section.blocks.append(Strips("compared-reconstructions", rows, alt, caption, base.names))
    else:
        for i, x in rebuilt.items():
            name = comparison.rows[i].name
            data, mean = base.shown(base.raw), base.shown(x)
            section.blocks.append(
                plot(f"compared-reconstructions-{i}",
                     partial(figures.lines, data, mean, base.names, names=base.features, unit=base.unit),
                     f"Line plots of test examples with their reconstructions by {name}",
                     f"{name}. {caption} Values in {base.unit}.{base.kinds}{base.gaps}")
            )  # fmt: skip
    if left := len(looks) - len(chosen):
        section.blocks.append(Text(f"{counted(left, 'setting')} of other data, or further down, not shown.", "note"))
    return section


def _samples(comparison: Comparison, looks: Sequence[Look]) -> Section:
    """Samples of the prior of the first run of each row, by the same seed."""
    section = Section("samples", "Samples, not selected")
    drawn = {i: look.run.decode(look.run.sample_latents(10, seed=0)) for i, look in enumerate(looks[:PICTURED])}
    caption = "Means of p(x|z) for the first 10 samples z of the prior with seed 0, at temperature 1."
    if all(look.is_image for look in looks):
        rows = [Strip(comparison.rows[i].name, looks[i].tiles(x), _note(comparison, i)) for i, x in drawn.items()]
        section.blocks.append(Strips("compared-samples", rows, "Rows of images sampled by each setting", caption))
        return section
    for i, x in drawn.items():
        look = looks[i]
        section.blocks.append(
            plot(f"compared-samples-{i}",
                 partial(figures.lines, look.shown(x), names=look.features, unit=look.unit),
                 f"Line plots of samples of {comparison.rows[i].name}",
                 f"{comparison.rows[i].name}. {caption} Values in {look.unit}.")
        )  # fmt: skip
    return section


# --- method -------------------------------------------------------------------------------------------------------


def _method(comparison: Comparison, path: Path) -> Section:
    """How the numbers were made: protocols, runs, and the command."""
    blocks: list[Block] = [Text(note) for note in comparison.notes]
    protocols = [c.protocol for c in comparison.columns]
    shared = [k for k, v in protocols[0].items() if all(p.get(k) == v for p in protocols)] if protocols else []
    rows = []
    for c in comparison.columns:
        own = ", ".join(filter(None, [protocol_text(c.protocol, leave_out=[*shared, "units"]), c.given]))
        rows.append([c.label, c.help, own or "as all"])
    together = protocol_text({k: protocols[0][k] for k in shared}) if shared else "nothing"
    blocks.append(Table(["metric", "meaning", "protocol"], rows, f"All metrics share: {together}.", wide=(1, 2)))
    runs = [
        [row.name, str(row.seeds[r]), shown_path(run.path), f"{run.config.get('step', 0):,}", run.config["state"]]
        for row in comparison.rows
        for r, run in enumerate(row.runs)
    ]
    blocks.append(Table(["setting", "seed", "run", "steps", "state"], runs, "Every run.", numeric=(1, 3)))
    paths = [shown_path(run.path) for row in comparison.rows for run in row.runs]
    first = shown_path(comparison.rows[comparison.reference].runs[0].path)
    blocks.append(Code("Command", comparing(paths, first, shown_path(path))))
    return Section("method", "Method", blocks)
