"""The page about new data, beside the held-out data of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vaekit import figures
from vaekit.anomalies import Detection, Reason, detect, held_out
from vaekit.anomalies.scoring import SAMPLES
from vaekit.data.beside import as_texts
from vaekit.data.core import counted
from vaekit.errors import DataError, RunError
from vaekit.metrics import METRICS, Measurement
from vaekit.metrics.evaluation import applicable, entry
from vaekit.metrics.registry import chosen
from vaekit.runs.new_data import NewData
from vaekit.runs.saved import SavedRun
from vaekit.utils.files import checked_path, write_text
from vaekit.utils.uncertainty import t_quantile

from . import numbers
from .about import shown_path
from .blocks import Block, Chapter, Section, Strip, Strips, Table, Text, plot
from .look import EXAMPLES, SCORE_NUMBERS, SCORED, Look
from .page import render

LISTED, BESIDE, PLOTTED = 20, 4, 2000
"""The maximum numbers of unusual rows, of columns beside them, and of codes on the map."""
LOWEST = 0.005
"""The share of the lowest scores that the figure omits: a single row may lie far below all others."""


def write_new(
    run: SavedRun,
    new: NewData,
    path: str | Path | None = None,
    *,
    n: int | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Path:
    """Write one page about new data of a run: metrics, reconstructions, scores and codes, beside held-out data.

    The page loads nothing from the network. The run's metrics and its own report stay unchanged.

    Arguments:
        new: the rows, from `Run.read`.
        path: the path of the page; by default report-NAME.html in the run's directory.
        n: use only the first n rows.
        samples: K, importance samples per row.
        seed: seed of the metrics.

    Raises:
        RunError: the page cannot be written.
    """
    name = "new-data" if isinstance(new.x, str) else Path(new.name.replace(" ", "-")).stem or "new-data"
    target = run.place_of(f"report-{name}.html") if path is None else checked_path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the directory {target.parent}: {error.strerror}; choose another `path`") from error
    about = _About(run, new if n is None else new.head(n), samples, seed)
    parts = [about.numbers(), about.reconstructions(), about.scores(), about.unusual(), about.codes(), about.method()]
    title = f"{new.name}: new data for {run.name}"
    facts = [counted(about.new.n, "row"), f"trained on {run.config['data']['name']}"]
    chapter = Chapter("new-data", title, facts, "", about.warnings, [part for part in parts if part.blocks])
    write_text(target, render(title, [], [chapter]))
    return target


class _About:
    """The sections of the page.

    Attributes:
        look: the run and its own data.
        found: the scores among held-out data, or None if those are unavailable.
        warnings: what is left out, and why.
    """

    def __init__(self, run: SavedRun, new: NewData, samples: int, seed: int):
        self.run, self.new, self.samples, self.seed = run, new, samples, seed
        self.look = Look(run)
        self.observed = run.observed(new)
        self.warnings: list[str] = []
        self.found: Detection | None = None
        self.held = np.empty(0)
        try:
            self.found, self.held = detect(run, new, samples=samples), held_out(run, samples).score
        except DataError as error:
            self.warnings.append(f"There is no comparison with held-out data: {error}.")

    @property
    def scored(self) -> str:
        """What a score is, with its unit."""
        return f"log p({'x' if self.run.model.no_density is None else 'x|z'}), nats"

    @property
    def measured(self) -> int:
        """The maximum number of rows for metrics."""
        return int(min(SCORED, max(200, SCORE_NUMBERS / (self.samples * self.run.spec.dims))))

    def numbers(self) -> Section:
        """The metrics of the new data beside those of the test data."""
        here = self._metrics(self.new)
        there = {m["name"]: m for m in self._metrics("test")} if self.look.data is not None else {}
        rows = []
        for m in filter(numbers.is_shown, here):
            other = there.get(m["name"])
            row = [numbers.label(m["name"]), numbers.number(m["value"], m["se"])]
            row += ["–", "–"] if other is None else [numbers.number(other["value"], other["se"]), _difference(m, other)]
            rows.append([*row, m["unit"]])
        caption = (
            f"At most {self.measured:,} rows of each, with K = {self.samples} samples per row. ± is the standard error "
            "over rows. A difference is called clear if it lies outside a 95% interval about 0."
        )
        head = ["metric", "new data", "test data", "difference", "unit"]
        return Section("numbers", "Metrics", [Table(head, rows, caption, numeric=(1, 2, 3))] if rows else [])

    def _metrics(self, data: Any) -> list[dict[str, Any]]:
        m = Measurement(self.run, data, n=self.measured, samples=self.samples, seed=self.seed, compile=False)
        wanted = [*chosen(None), *(METRICS[name] for name in ("mse",) if not METRICS[name].default)]
        return [entry(metric, m, metric.measure(m)) for metric in applicable(wanted, m, asked=())]

    def reconstructions(self) -> Section:
        """The first rows and the most unusual ones, above their reconstructions."""
        blocks: list[Block] = []
        first = np.arange(min(EXAMPLES, self.observed.n))
        sets = {"first": (first, "The first rows")}
        if self.found is not None and self.observed.n > len(first):
            lowest = _most_unusual(self.found)[:EXAMPLES]
            sets["lowest"] = (lowest, "The most unusual rows, the most unusual first")
        for name, (rows, words) in sets.items():
            x, again = self.observed.raw(rows), self.run.reconstruct(self.observed, rows=rows)
            heads = [self._name(int(row)) for row in rows]
            caption = f"{words}, encoded to the posterior mean and decoded to the mean of p(x|z)."
            blocks.append(self._picture(f"new-{name}", x, again, heads, caption))
        return Section("reconstructions", "Reconstructions", blocks)

    def _picture(self, name: str, x: np.ndarray, again: np.ndarray, heads: list[str], caption: str) -> Block:
        look, alt = self.look, f"{len(x)} rows of new data and their reconstructions"
        if look.is_image:
            strips = [Strip("data", look.tiles(x)), Strip("reconstruction", look.tiles(again))]
            return Strips(name, strips, alt, f"{caption}{look.gaps}", heads)
        data, mean = look.shown(x), look.shown(again)
        text = f"{caption} Values in {look.unit}.{look.kinds}{look.gaps}"
        return plot(name, lambda: figures.lines(data, mean, heads, names=look.features, unit=look.unit), alt, text)

    def _name(self, row: int) -> str:
        names = self.new.carried.get("file", self.new.carried.get("cell"))
        return f"row {row}" if names is None else as_texts(names[row : row + 1])[0]

    def scores(self) -> Section:
        """The distribution of the scores among those of held-out rows."""
        if self.found is None:
            return Section("scores", "Scores", [])
        share, found = np.linspace(LOWEST, 1, 200), self.found
        lines = {
            "new data": figures.Line(np.quantile(found.score, share), share),
            "held-out data": figures.Line(np.quantile(self.held, share), share, dashed=True),
        }
        flagged, expected = int(found.flagged.sum()), found.false_alarms * self.observed.n
        text = (
            f"{flagged:,} of {counted(self.observed.n, 'row')} have a p-value of at most {found.false_alarms:.3g} "
            f"among {found.held_out:,} held-out rows; about {expected:.3g} are expected if all are like those."
        )
        if found.drift is not None:
            differ = "differ" if found.drift.p_value <= 0.05 else "do not clearly differ"
            p = "p < 0.001" if found.drift.p_value < 0.001 else f"p = {found.drift.p_value:.2g}"
            text += f" As a whole, the new rows {differ} from the held-out rows ({p})."
            text += f" The columns that differ most are {named}." if (named := found.drift.named()) else ""
        blocks: list[Block] = [
            Text(text),
            plot("new-scores",
                 lambda: figures.curves({"": lines}, self.scored, "share of rows", marked=False),
                 "Cumulative shares of the scores of new and of held-out rows",
                 "The share of rows with a score of at most this value. A curve further left has lower scores: its "
                 f"rows are more unusual for the model. The lowest {LOWEST:.1%} of the scores are not shown."),
            *(Text(note, "note") for note in found.notes),
        ]  # fmt: skip
        return Section("scores", "Scores", blocks)

    def unusual(self) -> Section:
        """The rows with the lowest p-values, with the columns that came with the data."""
        if self.found is None:
            return Section("unusual", "The most unusual rows", [])
        found, beside = self.found, list(self.new.carried)[:BESIDE]
        rows = _most_unusual(found)[:LISTED]
        cells = {name: as_texts(self.new.carried[name]) for name in beside}
        table = []
        for row in rows:
            why = "; ".join(_words(reason) for reason in (found.reasons[row] if found.reasons else ()))
            table.append([str(row), *(cells[name][row] for name in beside), numbers.number(float(found.score[row])),
                          f"{found.percentile[row]:.1f}", f"{found.p_value[row]:.2g}", why])  # fmt: skip
        reasons = any(line[-1] for line in table)
        head = ["row", *beside, self.scored, "percentile", "p-value", *(["reasons"] * reasons)]
        caption = (
            "Rows are numbered from 0. The percentile is the percentage of held-out rows that are less unusual. "
            "`vaekit detect` writes all rows, at a false-alarm rate of your choice."
        )
        shown = [line if reasons else line[:-1] for line in table]
        numeric = range(len(beside) + 1, len(beside) + 4)
        return Section("unusual", "The most unusual rows", [Table(head, shown, caption, numeric=numeric)])

    def codes(self) -> Section:
        """The codes of new rows among those of test rows."""
        if self.look.data is None or not self.look.plain:
            return Section("codes", "Codes", [])
        here = self.run.encode(self.observed, n=PLOTTED)[:, self.look.latent_indices]
        there = self.run.encode("test", n=PLOTTED)[:, self.look.latent_indices]
        z, side = np.concatenate([there, here]), np.repeat([0, 1], [len(there), len(here)])
        picture = plot(
            "new-codes", lambda: figures.latent_scatter(z, side, ["test data", "new data"]),
            "Scatter plot of posterior means of test and new data",
            f"Posterior means of the first {len(there):,} test rows and the first {len(here):,} new rows.",
        )  # fmt: skip
        return Section("codes", "Codes", [picture])

    def method(self) -> Section:
        """Where the data are from, and how the numbers were measured."""
        rows = [["new data", self.new.name], ["run", shown_path(self.run.path)],
                ["samples per row", f"{self.samples:,}"], ["seed of the metrics", f"{self.seed}"]]  # fmt: skip
        if carried := list(self.new.carried):
            rows.append(["columns not used by the run", ", ".join(carried)])
        return Section("method", "How this was measured", [Table([], rows)])


def _difference(m: dict[str, Any], other: dict[str, Any]) -> str:
    """The difference of two unpaired means, and whether it is clear."""
    if m["se"] is None or other["se"] is None:
        return numbers.number(m["value"] - other["value"])
    value, se = m["value"] - other["value"], float(np.hypot(m["se"], other["se"]))
    fewer = min(one["protocol"].get("groups") or one["protocol"]["n"] for one in (m, other))
    clear = abs(value) > t_quantile(0.05, max(1, fewer - 1)) * se
    return f"{numbers.number(value, se)}{', clear' if clear else ''}"


def _words(reason: Reason) -> str:
    value, expected = (v if isinstance(v, str) else f"{v:.4g}" for v in (reason.value, reason.expected))
    return f"{reason.column} is {value}, expected {expected}"


def _most_unusual(found: Detection) -> np.ndarray:
    """The rows in the order of their p-values, and of their scores where these are equal."""
    return np.lexsort((found.score, found.p_value))
