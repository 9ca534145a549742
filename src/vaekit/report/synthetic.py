"""The page about synthetic rows of a table, beside the real rows of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vaekit import figures
from vaekit.data.core import counted, listed
from vaekit.errors import RunError
from vaekit.runs.saved import SavedRun
from vaekit.synthetic import Comparison, Estimate, Measure
from vaekit.synthetic.fidelity import PAIRED
from vaekit.utils.files import checked_path, write_json, write_text

from .blocks import Block, Chapter, Section, Table, Text, plot
from .page import render

SHOWN, NAMED, WORST = 24, 16, 10
"""The maximum numbers of columns with a histogram, of columns in a matrix of pairs, and of pairs in a table."""


def write_synthetic(run: SavedRun, comparison: Comparison, path: str | Path | None = None, *, source: str = "") -> Path:
    """Write the page about synthetic rows, and all its numbers as a .json file beside it; returns the path of the page.

    Arguments:
        run: the run whose real rows they were compared with.
        comparison: of `vaekit.synthetic.compare_synthetic`.
        path: the path of the page; by default synthetic.html in the run's directory.
        source: a name of the synthetic rows.

    Raises:
        RunError: a file cannot be written.
    """
    target = run.place_of("synthetic.html") if path is None else checked_path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the directory {target.parent}: {error.strerror}; choose another `path`") from error
    n = comparison.n
    parts = [_summary(comparison), _columns(comparison), _pairs(comparison), _usefulness(comparison)]
    parts += [_privacy(comparison), _method(comparison)]
    facts = [f"{n['synthetic']:,} synthetic rows", f"{n['train']:,} training rows", f"{n['test']:,} test rows",
             counted(len(comparison.columns), "column")]  # fmt: skip
    title = f"{run.config['data']['name']}: {source or 'synthetic rows'}"
    chapter = Chapter("synthetic", title, facts, "", [], [part for part in parts if part.blocks])
    write_text(target, render(title, [], [chapter]))
    write_json(target.with_suffix(".json"), {"source": source, "run": run.name, **comparison.as_json()})
    return target


def interval(estimate: Estimate | None, signed: bool = False, digits: int = 3) -> str:
    """A number with its 95% interval: 0.012 [0.008, 0.016]."""
    if estimate is None:
        return "–"
    form = f"{{:{'+' if signed else ''}.{digits}f}}"
    value, low, high = (form.format(v).replace("-", "−") for v in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]" if estimate.se == estimate.se else value


def rows_of(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """The table of measures: name, synthetic rows, real rows, verdict."""
    changes = [m.ideal == 0 for m in comparison.measures]
    return [
        (("change in " if change else "") + m.name, interval(m.estimate, change), interval(m.floor, change), m.verdict)
        for m, change in zip(comparison.measures, changes, strict=True)
    ]


def without(comparison: Comparison) -> str:
    """A sentence about the values that were left out of the synthetic rows; "" if none were."""
    names = comparison.blanked
    if not names:
        return ""
    return (
        f"Only real rows have missing values in {counted(len(names), 'column')} ({listed(names, 6)}): values are left "
        "out of the synthetic rows as they are missing in training rows chosen at random."
    )


def conclusion(measures: tuple[Measure, ...]) -> str:
    """The verdicts of all measures in one or two sentences."""
    worse = [m.name for m in measures if m.verdict == "worse"]
    if not worse:
        return f"None of {counted(len(measures), 'measure')} finds these rows clearly worse than real ones."
    return f"Clearly worse than real rows in {len(worse)} of {counted(len(measures), 'measure')}: {listed(worse)}."


def _summary(comparison: Comparison) -> Section:
    caption = (
        "Brackets are 95% intervals. Real rows: the same measure with as many training rows in place of the synthetic "
        "ones (for privacy, validation rows). The verdict is by a 99% interval of the difference. A change in AUC or "
        "R2 is that of a model trained on synthetic instead of real rows; it is best at 0 or above. Distances and "
        "errors are best at or below the value of real rows. Detectability, the share nearer to training rows and "
        "membership are best at 0.5."
    )
    head = ["measure", "synthetic rows", "real rows", "verdict"]
    words = f"{conclusion(comparison.measures)} {without(comparison)}".strip()
    return Section("summary", "Summary", [Text(words), Table(head, rows_of(comparison), caption, numeric=(1, 2))])


def _columns(comparison: Comparison) -> Section:
    order = sorted(range(len(comparison.columns)), key=lambda j: -comparison.by_column[j].estimate.value)
    drawn = sorted(order[:SHOWN])
    panels, notes = {}, {}
    for j in drawn:
        column, apart = comparison.columns[j], comparison.by_column[j]
        names = column.categories or (("0", "1") if column.kind == "binary" else ())
        panels[column.name] = (comparison.test[:, j], comparison.synthetic[:, j], names)
        notes[column.name] = f"({apart.estimate.value:.3f})"
    which = "" if len(drawn) == len(order) else f" The {SHOWN} columns that differ most, of {len(order):,}."
    picture = plot(
        "synthetic-columns", lambda: figures.marginals(panels, notes),
        f"Histograms of {counted(len(drawn), 'column')} in real and in synthetic rows",
        "Test rows (grey) and synthetic rows (blue), with the distance of the column in brackets. The outer bins of a "
        f"number include all values beyond; of the categories, the eight most frequent are shown.{which}",
    )  # fmt: skip
    table = [
        [c.name, c.measure, interval(c.estimate), interval(c.floor)]
        for c in (comparison.by_column[j] for j in order[: 2 * SHOWN])
    ]
    caption = (
        "Largest first. KS: the largest difference between the two distribution functions of a number. Total "
        "variation: half the sum of the differences between the shares of each category. Missing values count as a "
        "value."
    )
    return Section("columns", "Columns", [
        picture, Table(["column", "distance", "synthetic rows", "real rows"], table, caption, numeric=(2, 3))
    ])  # fmt: skip


def _pairs(comparison: Comparison) -> Section:
    names = [column.name for column in comparison.columns[:PAIRED]]
    blocks: list[Block] = []
    found = {
        "synthetic rows": np.abs(comparison.distances.associations[0]),
        "real rows": np.abs(comparison.floor.associations[0]),
    }
    if len(names) <= NAMED:
        blocks.append(
            plot("synthetic-pairs", lambda: figures.matrices(_without_diagonal(found), names, names, "difference"),
                 "Heat maps of the differences in association of all pairs of columns",
                 "Absolute difference in association from the test rows: in rank correlation for two numbers, in "
                 "Cramér's V for all other pairs (numbers in ten bins).")
        )  # fmt: skip
    a, b = np.triu_indices(len(names), 1)
    order = np.argsort(-found["synthetic rows"][a, b])[:WORST]
    table = []
    for i in order:
        here = (slice(None), a[i], b[i])
        values = [Estimate.of_draws(d.associations[here]) for d in (comparison.distances, comparison.floor)]
        apart = [Estimate.of_draws(d.pairs[here], 0, 1) for d in (comparison.distances, comparison.floor)]
        cells = [*(interval(e, True, 2) for e in values), *(interval(e, digits=2) for e in apart)]
        table.append([f"{names[a[i]]}, {names[b[i]]}", *cells])
    head = ["pair", "association", "of real rows", "total variation", "of real rows"]
    caption = (
        f"The {counted(len(order), 'pair')} whose association differs most: the association in synthetic rows minus "
        "that in test rows, and the total variation distance of the pair's contingency table."
    )
    if len(comparison.columns) > PAIRED:
        caption += f" Pairs of the first {PAIRED} columns."
    return Section("pairs", "Pairs of columns", [*blocks, Table(head, table, caption, numeric=range(1, 5))])


def _without_diagonal(matrices: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.where(np.eye(len(m), dtype=bool), 0, m) for name, m in matrices.items()}


def _usefulness(comparison: Comparison) -> Section:
    table = [
        [t.target, t.model, t.score, *map(interval, (t.real, t.synthetic)), interval(t.difference, True),
         interval(t.floor, True)]
        for t in comparison.transfers
    ]  # fmt: skip
    head = ["predicted column", "model", "score", "real", "synthetic", "difference", "of real rows"]
    caption = (
        "Scores on test rows of models trained on real and on as many synthetic rows; AUC is the mean over classes. "
        "The difference is paired by test row; its interval is over test and training rows. Of real rows: the same "
        "difference between two sets of real rows, 0 on average, from models of four disjoint parts of them."
    )
    return Section("usefulness", "Train on synthetic, test on real", [
        Table(head, table, caption, numeric=range(3, 7))
    ])  # fmt: skip


def _privacy(comparison: Comparison) -> Section:
    near, share = comparison.nearness, np.linspace(0, 1, 101)
    lines = {
        "nearest training row": figures.Line(np.quantile(near.to_train, share), share),
        "nearest test row": figures.Line(np.quantile(near.to_test, share), share, dashed=True),
    }
    picture = plot(
        "synthetic-privacy",
        lambda: figures.curves({"": lines}, "distance (mean difference per column)", "share of synthetic rows",
                               marked=False),
        "Curves of the distances of synthetic rows to the nearest training row and to the nearest test row",
        f"Distances of synthetic rows to the nearest of {comparison.n['near']:,} training rows and of as many test "
        "rows. If the left curve is the one of training rows, synthetic rows lie too close to them.",
    )  # fmt: skip
    note = (
        "These measures can show that rows reveal training rows; they cannot prove that none do. Only training with "
        "differential privacy, which vaekit does not offer, gives a guarantee."
    )
    return Section("privacy", "Privacy", [picture, Text(note, "note")])


def _method(comparison: Comparison) -> Section:
    n = comparison.n
    text = (
        f"{n['synthetic']:,} synthetic rows, and as many training rows for the column real rows, were each compared "
        f"with {n['test']:,} test rows. Standard errors are over rows: for columns and pairs by bootstrap, for "
        "usefulness by bootstrap of the test rows and by parts of the training rows, for areas under ROC curves by "
        "DeLong's method, and for the share that is nearer to training rows by nearest neighbour. Detectability and "
        "usefulness use boosted trees with the default settings of scikit-learn; detectability is cross-validated in "
        "five folds."
    )
    meanings = [[m.name, m.help] for m in comparison.measures]
    return Section("method", "How this was measured", [Text(text), Table([], meanings)])
