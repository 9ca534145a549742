"""Find unusual rows: p-values among held-out rows, flags at a false-alarm rate, and the unusual columns of each row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vaekit.data.core import counted
from vaekit.data.writing import shown
from vaekit.errors import ChoiceError, DataError
from vaekit.latents.fill import blanked
from vaekit.runs.new_data import SPLITS, DataLike, NewData, of_split
from vaekit.runs.observed import Observed, laid_out
from vaekit.runs.saved import SavedRun

from . import labelled
from .conformal import FALSE_ALARMS, ROUNDING, HeldOutScores, check_rate, rows_needed
from .drift import FEWEST, ColumnDrift, Drift, compare_columns, two_sample
from .reasons import Columns, Reason, columns, ranked
from .reference import PENALTY, HeldOut, held_out, present, some, unseen_codes, with_values
from .scoring import SAMPLES, scores

REASONS = 3
"""The number of columns that are named for each flagged row."""
MOST_EXPLAINED = 1000
"""The maximum number of flagged rows that are explained: those with the lowest scores."""
NOTABLE = 0.1
"""The largest p-value of a column, beside the most unusual one, that is given as a reason."""
MOST_COMPARED = 10_000
"""The maximum number of new rows whose columns are compared with those of held-out rows."""
PATTERN_SCORES = 200_000
"""The maximum number of held-out rows that are scored again because new rows lack values; see `_by_pattern`."""


@dataclass(frozen=True)
class Detection:
    """The result for n rows.

    Attributes:
        score: (n,) log p(x) of the observed elements in nats; low scores are unusual. Each category that the training
            rows lack costs 1000 nats. For a model without a density, log p(x | z) at the code.
        percentile: (n,) the percentage of held-out rows that are less unusual.
        p_value: (n,) the probability that a row like the held-out ones is at least as unusual.
        flagged: bool (n,), p_value <= false_alarms.
        reasons: for each flagged row its most unusual columns, for all others nothing; empty for images and signals.
        maps: (m, *event) for images and signals, how far the log-density of each element of the explained rows lies
            below its mean over held-out rows, in nats; None for other data.
        expected: (m, *event) the reconstructions of these rows, or None.
        explained: (m,) the numbers of the flagged rows that are explained: all of them, or the `MOST_EXPLAINED` most
            unusual.
        false_alarms: the rate.
        threshold: the score below which a complete row is flagged; for a run that is conditional on classes, if it is
            compared with all of them together.
        held_out: the number of held-out rows (or of their groups).
        drift: the comparison of all rows with the held-out rows; None if there are too few.
        measures: AUROC and others, if labels were given: {name, value, low, high, n}.
        notes: what limits the result, as sentences.
        new: the rows, with the columns that the model does not use.
        unit: what the threshold is a value of.
    """

    score: np.ndarray
    percentile: np.ndarray
    p_value: np.ndarray
    flagged: np.ndarray
    false_alarms: float
    threshold: float
    held_out: int
    new: NewData
    reasons: tuple[tuple[Reason, ...], ...] = ()
    maps: np.ndarray | None = None
    expected: np.ndarray | None = None
    explained: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    drift: Drift | None = None
    measures: list[dict[str, Any]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    unit: str = "log p(x)"
    observed: Observed | None = field(default=None, repr=False)

    def rows(self, index: np.ndarray) -> np.ndarray:
        """The raw rows with these numbers, (n, *event)."""
        assert self.observed is not None
        return self.observed.raw(index)

    def __repr__(self) -> str:
        """The number of flagged rows and the rate, as one line."""
        n, by_chance = len(self.score), self.false_alarms * len(self.score)
        return (
            f"{int(self.flagged.sum()):,} of {counted(n, 'row')} flagged at a false-alarm rate of "
            f"{self.false_alarms:g} ({by_chance:.1f} expected by chance), {self.held_out:,} held-out rows"
        )

    def results(self) -> dict[str, np.ndarray]:
        """The results by name, each (n,): log_px, percentile, p_value, flagged, and the reasons.

        reason_1 is the name of a column, reason_1_value its value and reason_1_expected the value that the others
        suggest; rows that are not flagged have empty cells.
        """
        found: dict[str, np.ndarray] = {
            "log_px": np.round(self.score, 4),
            "percentile": np.round(self.percentile, 2),
            "p_value": np.round(self.p_value, 6),
            "flagged": self.flagged.astype(np.int64),
        }
        for i in range(max(map(len, self.reasons), default=0)):
            known = [reasons[i] if i < len(reasons) else None for reasons in self.reasons]
            name = f"reason_{i + 1}"
            found[name] = np.array(["" if r is None else r.column for r in known])
            found[f"{name}_value"] = np.array(["" if r is None else _shown(r.value) for r in known])
            found[f"{name}_expected"] = np.array(["" if r is None else _shown(r.expected) for r in known])
        return found

    def to_frame(self) -> Any:
        """The carried columns and the results as a data frame of pandas.

        Raises:
            ChoiceError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise ChoiceError("to_frame needs pandas: pip install pandas") from None
        return pd.DataFrame(self.new.table(self.results())).astype({"flagged": bool})


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else "" if value != value else f"{value:.6g}"


def detect(
    run: SavedRun,
    data: DataLike = "test",
    *,
    labels: Any = None,
    false_alarms: float | None = None,
    truth: Any = None,
    reasons: bool = True,
    samples: int = SAMPLES,
    progress: Callable[[int, int], None] | None = None,
) -> Detection:
    """Flag unusual rows at a false-alarm rate; `vaekit.anomalies.conformal` describes the guarantee.

    Rows are compared with held-out rows of the run's own data, which are scored once and kept with the run. If `data`
    are these rows themselves, each is compared with the others.

    Arguments:
        data: new rows: a path, a frame, an array, or `NewData`; or a split of the run's data.
        labels: for a conditional run, as for `Run.encode`.
        false_alarms: the probability of flagging a row that is like the held-out rows; None for 0.01, or for the
            smallest rate that these rows support, with a note.
        truth: for measures: the name of a column of labels (0 and 1), `COLUMN=VALUE` with the value of anomalous rows,
            or (n,) truth values.
        reasons: whether to find the columns, or pixels, that make each flagged row unusual.
        samples: K, importance samples per row.
        progress: called as progress(done, of).

    Raises:
        ChoiceError: the rate is out of range, or there are too few held-out rows for it.
        DataError: the rows do not fit the run, or its own data are needed and not found.
    """
    rate = check_rate(FALSE_ALARMS if false_alarms is None else false_alarms)
    if samples < 1:
        raise ChoiceError(f"`samples` must be 1 or more, got {samples}")
    own = isinstance(data, str) and data in SPLITS
    new = of_split(run.data, data) if own else run.read(data, labels=labels, unseen=True)
    anomalous = None if truth is None else _truth(truth, new)
    known = held_out(run, samples, columns=reasons, progress=progress)
    reference = known.scores()
    raised: tuple[str, ...] = ()
    least = 1 / reference.n if own and data in known.splits else reference.smallest_rate  # among the n - 1 others
    if false_alarms is None and rate < least:
        rate = least
        raised = (
            f"the false-alarm rate is {rate:.2g} instead of {FALSE_ALARMS:g}, which needs "
            f"{rows_needed(FALSE_ALARMS):,} held-out rows; there {'is' if reference.n == 1 else 'are'} {reference.n:,}",
        )
    reference.check_supports(rate)
    rows = _Rows.of(run, new, known)
    found = scores(run, rows.observed, samples, hidden=rows.hidden, progress=progress)
    found = found - PENALTY * rows.unseen.sum(1)
    p, percentile, notes = _compared(run, known, reference, rows, found, samples, rate)
    flagged, notes = p <= rate + ROUNDING, (*raised, *notes)
    chosen = np.flatnonzero(flagged) if reasons else np.zeros(0, int)
    if len(chosen) > MOST_EXPLAINED:
        notes = (*notes, f"reasons are given for the {MOST_EXPLAINED:,} most unusual of {len(chosen):,} flagged rows")
        chosen = np.sort(chosen[np.argsort(found[chosen], kind="stable")[:MOST_EXPLAINED]])
    explained, maps, expected = _explained(run, known, rows, new, chosen)
    drift, untested = _drift(run, known, rows, found)
    whole = known.pattern is None and rows.hidden is None  # else log p(x) of rows with other values are not comparable
    return Detection(
        found,
        percentile,
        p,
        flagged,
        rate,
        reference.threshold(rate),
        reference.n,
        new,
        explained,
        maps,
        expected,
        chosen,
        drift,
        [] if anomalous is None else labelled.measures(found if whole else _order(p, found), flagged, anomalous),
        (*notes, *untested),
        _unit(run),
        rows.observed,
    )


def _order(p: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The position of each row (n,) in the order of the p-values, and of the scores where they are equal."""
    position = np.empty(len(p))
    position[np.lexsort((score, p))] = np.arange(len(p))
    return position


def _unit(run: SavedRun) -> str:
    """What the threshold is a value of."""
    if run.spec.missing:
        return "standard deviations from the log p(x) of rows that lack the same values"
    return "log p(x)" if run.model.no_density is None else "log p(x|z)"


@dataclass(frozen=True)
class _Rows:
    """New rows as a model sees them.

    Attributes:
        observed: the rows, with numbers inside the support at hidden elements.
        hidden: bool (n, *event), elements to integrate out; None if there are none.
        unseen: bool (n, D), categories that the training rows lack.
        split: the split, or None for other rows.
        name: the source of the rows.
    """

    observed: Observed
    hidden: np.ndarray | None
    unseen: np.ndarray
    split: str | None
    name: str

    @classmethod
    def of(cls, run: SavedRun, new: NewData, known: HeldOut) -> _Rows:
        split = new.x if isinstance(new.x, str) else None
        if split is not None:
            observed, hidden = run.observed(split), None
        else:
            raw = laid_out(new.x, run.spec)
            holes = np.isnan(raw) if raw.dtype.kind == "f" else np.zeros(raw.shape, bool)
            if run.spec.missing or not holes.any():
                observed, hidden = run.observed(new), None
            else:
                events, hidden = blanked(run, raw, holes)
                observed = run.observed(events, labels=new.labels)
        unseen = np.zeros((observed.n, run.spec.dims), bool)
        for row, column in new.unseen:
            unseen[row, column] = True
        codes = unseen_codes(observed, known.seen)
        if codes is not None:
            unseen |= codes if hidden is None else codes & ~hidden
        if unseen.any():
            hidden = unseen if hidden is None else hidden | unseen
        return cls(observed, hidden, unseen, split, new.name)


def _compared(
    run: SavedRun,
    known: HeldOut,
    reference: HeldOutScores,
    rows: _Rows,
    found: np.ndarray,
    samples: int,
    rate: float,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The p-values and percentiles of rows with these scores, and notes on them."""
    notes: list[str] = []
    source = run.config["data"]["source"]
    if rows.split is None and source is not None and source == rows.name:
        notes.append("these are the run's own data: the rows that it was trained on look less unusual than new rows")
    if known.group is not None:
        notes.append(f"the held-out rows form {counted(reference.n, 'group')}, which count as one row each")
    if rows.split in known.splits:
        start = sum(run.observed(split).n for split in known.splits[: known.splits.index(rows.split)])
        own = reference.own_p_values()[start : start + rows.observed.n]
        return own, reference.percentiles(known.ranked[start : start + rows.observed.n]), tuple(notes)
    if rows.split is not None:
        notes.append(
            f"the {rows.split} rows influenced the model, so they look less unusual than new rows: their p-values are "
            "too high"
        )
    ranked_scores = found
    if known.pattern is not None:
        there = present(rows.observed, np.arange(rows.observed.n)) & ~rows.unseen
        penalty = PENALTY * rows.unseen.sum(1)
        ranked_scores = known.pattern.relative(there, found + penalty) - penalty
    p, percentile = reference.p_values(ranked_scores), reference.percentiles(ranked_scores)
    if known.label is not None:
        _by_class(known, rows, ranked_scores, rate, p, percentile, notes)
    if known.pattern is None and rows.hidden is not None:
        _by_pattern(run, known, rows, found, samples, rate, p, percentile, notes)
    return p, percentile, tuple(notes)


def _by_class(
    known: HeldOut,
    rows: _Rows,
    score: np.ndarray,
    rate: float,
    p: np.ndarray,
    percentile: np.ndarray,
    notes: list[str],
) -> None:
    """Compare the rows of a conditional run with held-out rows of their own class, where there are enough of them.

    Then the rate holds within each class, and for files with another mix of classes than the held-out rows.
    """
    condition = rows.observed.condition(np.arange(rows.observed.n))
    assert known.label is not None
    assert condition is not None
    own, lacking = condition.argmax(1).numpy(), []
    for value in np.unique(own):
        members = known.label == value
        of_class = None
        if members.any():
            of_class = HeldOutScores(known.ranked[members], None if known.group is None else known.group[members])
        if of_class is None or of_class.n < rows_needed(rate):
            lacking.append(value)
            continue
        p[own == value] = of_class.p_values(score[own == value])
        percentile[own == value] = of_class.percentiles(score[own == value])
    if lacking:
        notes.append(
            f"{counted(len(lacking), 'class', 'classes')} of these rows {'has' if len(lacking) == 1 else 'have'} fewer "
            f"than {rows_needed(rate)} held-out rows, so their rows are compared with all classes together"
        )


def _by_pattern(
    run: SavedRun,
    known: HeldOut,
    rows: _Rows,
    found: np.ndarray,
    samples: int,
    rate: float,
    p: np.ndarray,
    percentile: np.ndarray,
    notes: list[str],
) -> None:
    """Compare rows that lack values with held-out rows of which the same values are hidden.

    The held-out rows are complete. With the same elements hidden, they are scored by the same function as the new row,
    so the p-value is valid for every pattern of missing values that does not depend on the values themselves (Zaffran
    et al. 2023). If this needs more than `PATTERN_SCORES` scores, a random part of the held-out rows is used.

    Rows with unseen categories are compared with complete held-out rows, which the cost of each such category exceeds.
    """
    assert rows.hidden is not None
    lacking = np.flatnonzero(rows.hidden.reshape(len(found), -1).any(1) & ~rows.unseen.any(1))
    if not len(lacking):
        return
    patterns, which = np.unique(rows.hidden[lacking], axis=0, return_inverse=True)
    parts = [run.observed(split) for split in known.splits]
    n = known.n
    most = max(rows_needed(rate), PATTERN_SCORES // len(patterns))
    kept = np.arange(n)
    if most < n:
        kept = np.sort(np.random.default_rng(0).choice(n, most, replace=False))
        notes.append(
            f"{counted(len(lacking), 'row')} with missing values are compared with {most:,} of the {n:,} held-out "
            "rows, because they lack values in many different ways"
        )
    starts = np.cumsum([0, *(part.n for part in parts)])
    for i, pattern in enumerate(patterns):
        score = np.concatenate(
            [
                scores(run, part, samples, rows=inside - start, hidden=pattern[None])
                for part, start in zip(parts, starts, strict=False)
                if len(inside := kept[(kept >= start) & (kept < start + part.n)])
            ]
        )
        reference = HeldOutScores(score, None if known.group is None else known.group[kept])
        members = lacking[which.ravel() == i]
        p[members], percentile[members] = reference.p_values(found[members]), reference.percentiles(found[members])


def _explained(
    run: SavedRun, known: HeldOut, rows: _Rows, new: NewData, chosen: np.ndarray
) -> tuple[tuple[tuple[Reason, ...], ...], np.ndarray | None, np.ndarray | None]:
    """The reasons of the chosen rows, or their maps and reconstructions for images and signals."""
    flat = len(run.spec.shape) == 1
    if known.column is None or not len(known.column):
        return (), None, None
    hidden = None if rows.hidden is None else rows.hidden[chosen]
    found = columns(run, rows.observed, chosen, hidden=hidden)
    assert found is not None
    if not flat:
        return (), known.column - found.log_p, found.expected
    named: list[tuple[Reason, ...]] = [()] * rows.observed.n
    raw = rows.observed.raw(chosen)
    p, order = ranked(found.log_p, known.column)
    for i, row in enumerate(chosen):
        unseen = np.flatnonzero(rows.unseen[row]).tolist()
        notable = [j for place, j in enumerate(order[i].tolist()) if p[i, j] <= (1 if place == 0 else NOTABLE)]
        first = [*unseen, *notable]
        named[row] = tuple(
            _reason(run, new, int(row), j, raw[i, j], found, i, known, p[i, j]) for j in dict.fromkeys(first[:REASONS])
        )
    return tuple(named), None, None


def _reason(
    run: SavedRun,
    new: NewData,
    row: int,
    j: int,
    value: float,
    found: Columns,
    i: int,
    known: HeldOut,
    p: float,
) -> Reason:
    names = [column.name for column in run.columns]
    name = names[j] if names else f"x{j}"
    expected = float(found.expected[i, j])
    if not np.isfinite(p):  # a category that the training rows lack
        text = new.unseen.get((row, j)) or _in_words(run, j, value)
        return Reason(name, text, _in_words(run, j, expected), 1 / (len(known.column) + 1), -PENALTY)  # type: ignore[arg-type]
    return Reason(name, _in_words(run, j, value), _in_words(run, j, expected), float(p), float(found.log_p[i, j]))


def _in_words(run: SavedRun, j: int, value: float) -> float | str:
    """A number of column j, or the text of its category or date."""
    column = run.spec.columns[j] if run.spec.columns else None
    if column is not None and (column.categories or column.format):
        return shown(column, np.array([value]))[0]
    return float(value if column is None else column.fitted(np.array([value]), True)[0])


def _truth(truth: Any, new: NewData) -> np.ndarray:
    """Which rows are anomalous, bool (n,)."""
    if not isinstance(truth, str):
        given = np.asarray(truth)
        if given.shape != (new.n,):
            raise DataError(f"`truth` must have one value for each of {new.n} rows, got shape {given.shape}")
        return labelled.truth_of(given, None)
    name, equals, value = truth.partition("=")
    known = {**new.columns, **new.carried}
    if new.label is not None:
        known.setdefault("label", new.label)
    if name not in known:
        raise DataError(f"the data have no column {name!r} for `truth`; they have {', '.join(known) or 'no others'}")
    from vaekit.data.beside import as_texts

    column = known[name]
    return labelled.truth_of(np.array(as_texts(column)), value if equals else None, column=name)


def _drift(run: SavedRun, known: HeldOut, rows: _Rows, found: np.ndarray) -> tuple[Drift | None, tuple[str, ...]]:
    """The comparison of the complete new rows with held-out rows, and notes on it.

    None for the run's own splits and for held-out rows in groups, which are not exchangeable one by one.
    """
    if rows.split is not None or known.group is not None:
        return None, ()
    whole = np.arange(rows.observed.n)
    if rows.hidden is not None:
        whole = whole[~rows.hidden.reshape(len(whole), -1).any(1)]
    if not len(whole):
        return None, ()
    code = run.encode(rows.observed, rows=whole)[:, run.model.latent_dims]
    known, why = with_values(run, known) if rows.observed.n >= FEWEST else (known, "")
    drift = two_sample(known.score, found[whole], known.code, code, columns=_column_drift(run, known, rows))
    if drift is None or not why:
        return drift, ()
    return drift, (
        "the columns are not compared one by one: this run was first used for detection by an earlier version, which "
        f"did not store the values of its held-out rows, and they cannot be read again ({why})",
    )


def _column_drift(run: SavedRun, known: HeldOut, rows: _Rows) -> tuple[ColumnDrift, ...]:
    """The comparison of each column of a table; hidden elements and unseen categories count as missing."""
    if known.values is None or rows.observed.n < FEWEST:
        return ()
    compared = some(rows.observed.n, MOST_COMPARED)
    raw = rows.observed.raw(compared).astype(np.float64)
    if rows.hidden is not None:
        raw[rows.hidden[compared]] = np.nan
    schema = run.spec.columns
    names = [column.name for column in run.columns] or [f"x{j}" for j in range(run.spec.dims)]
    categories = [2 if c.kind == "binary" else len(c.categories) for c in schema] or [0] * run.spec.dims
    return compare_columns(known.values, raw, names, categories)
