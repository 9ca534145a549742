"""Comparing synthetic rows with the real rows of a table: fidelity, usefulness, detectability and privacy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.data.core import Column, counted, listed
from vaekit.errors import ChoiceError, DataError
from vaekit.utils.suggest import unknown
from vaekit.utils.uncertainty import area

from .detection import detectability
from .estimates import Estimate, Measure, Part
from .features import is_number
from .fidelity import Distances, distances
from .privacy import Nearness, copies, nearness
from .usefulness import Transfer, transfer

Array = NDArray[Any]
ROWS = 10_000
"""The maximum number of rows of each kind that are compared."""
NEAR = 4000
"""The maximum number of rows of each kind whose nearest neighbours are found."""
FEWEST = 10
"""The minimum number of rows of each kind."""
PARTS = ("columns and pairs", "usefulness", "detectability", "privacy")


@dataclass(frozen=True)
class ColumnDistance:
    """The distance of one column of synthetic rows from the test rows, and that of as many training rows."""

    name: str
    measure: str
    estimate: Estimate
    floor: Estimate


@dataclass(frozen=True)
class Comparison:
    """Synthetic rows compared with the real rows of a table.

    Attributes:
        columns: the columns of the table.
        n: the numbers of rows compared: "synthetic", "train" (as many), "test" and, for privacy, "near".
        measures: all measures with their intervals and floors.
        by_column: the distance of each column.
        distances, floor: all distances from the test rows: of the synthetic rows, and of as many training rows.
        transfers: train on synthetic rows, test on real ones: one per target and model.
        nearness: distances to the nearest training and test rows.
        synthetic, test: the rows that were compared, (N, D) and (M, D).
        blanked: names of columns in which only real rows have missing values, so that some synthetic values were left
            out too.
    """

    columns: tuple[Column, ...]
    n: dict[str, int]
    measures: tuple[Measure, ...]
    by_column: tuple[ColumnDistance, ...]
    distances: Distances = field(repr=False)
    floor: Distances = field(repr=False)
    transfers: tuple[Transfer, ...]
    nearness: Nearness = field(repr=False)
    synthetic: Array = field(repr=False)
    test: Array = field(repr=False)
    blanked: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Measure:
        """The measure of this name.

        Raises:
            ChoiceError: there is none.
        """
        found = {m.name: m for m in self.measures}
        if name not in found:
            raise ChoiceError(unknown("measure", name, found))
        return found[name]

    def as_json(self) -> dict[str, Any]:
        """The numbers of rows, all measures and the distance of each column, for a file."""
        return {
            "rows": self.n,
            "blanked": list(self.blanked),
            "measures": [m.as_json() for m in self.measures],
            "columns": [
                {"name": c.name, "measure": c.measure, **c.estimate.as_json(), "floor": c.floor.as_json()}
                for c in self.by_column
            ],
            "usefulness": [
                {"target": t.target, "model": t.model, "score": t.score}
                | {name: getattr(t, name).as_json() for name in ("real", "synthetic", "difference", "floor")}
                for t in self.transfers
            ],
        }


def compare_tables(
    synthetic: Array,
    train: Array,
    test: Array,
    columns: Sequence[Column],
    *,
    valid: Array | None = None,
    log_px: Mapping[str, Array] | None = None,
    target: str | Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """Compare synthetic rows of any generator with the real rows of a table.

    Each measure of the synthetic rows stands beside the same measure of as many training rows, its floor. A table of
    more than `ROWS` rows is compared by a random part of them. Where only real rows have missing values, values are
    left out of the synthetic rows as they are missing in random training rows.

    Arguments:
        synthetic: (N, D) numbers, and codes of categories; nan where a value is missing.
        train: the real rows (R, D) that the generator was trained on.
        test: real rows (M, D) that it was not trained on.
        columns: D columns.
        valid: further real rows (V, D) that it was not trained on, for the floor of privacy.
        log_px: log p(x) of some rows under the generator, by "train", "test" and, for the floor, "valid", for the
            membership gap.
        target: the column or columns to predict in training on synthetic and testing on real rows; by default the last
            column of categories, or else the last column.
        seed: seed of the choice of rows, of the models and of the bootstrap.
        progress: called as progress(part, done, of).

    Raises:
        DataError: rows have another number of columns, or are fewer than `FEWEST`.
        ChoiceError: a target is not a column.
    """
    kinds = {"synthetic": synthetic, "train": train, "test": test}
    for name, rows in kinds.items():
        if rows.ndim != 2 or rows.shape[1] != len(columns):
            raise DataError(f"the {name} rows must have shape (N, {len(columns)}), got {rows.shape}")
        if len(rows) < FEWEST:
            raise DataError(f"a comparison needs {FEWEST} {name} rows or more, got {len(rows)}")
    chosen = target_columns(columns, target)
    synthetic, blanked = _blanked(synthetic, train, np.random.default_rng([seed, 1]))
    rng = np.random.default_rng(seed)
    n = min(ROWS, len(synthetic), len(train))
    own, real, held = (_some(x, k, rng) for x, k in ((synthetic, n), (train, n), (test, ROWS)))
    tell = progress or (lambda part, done, of: None)
    tell(PARTS[0], 0, len(PARTS))
    apart, floor = (distances(x, held, columns, np.concatenate([real, held]), seed=seed) for x in (own, real))
    by_column, measures = _fidelity(columns, apart, floor)
    tell(PARTS[1], 1, len(PARTS))
    transfers = [t for j in chosen for t in transfer(own, real, held, columns, j, seed=seed)]
    measures += [_useful(t) for t in transfers]
    tell(PARTS[2], 2, len(PARTS))
    told, real_told = (Estimate.of_area(detectability(x, held, columns, seed=seed)) for x in (own, real))
    measures.append(
        Measure("detectability", "detectability", told, real_told,
                "AUC of boosted trees that tell synthetic rows from test rows; 0.5 if they cannot")
    )  # fmt: skip
    tell(PARTS[3], 3, len(PARTS))
    near, of_privacy, m = _privacy(synthetic, train, test, valid, columns, rng)
    measures += of_privacy
    if log_px is not None:
        measures.append(density_gap(log_px))
    tell(PARTS[3], 4, len(PARTS))
    sizes = {"synthetic": n, "train": n, "test": len(held), "near": m}
    return Comparison(
        tuple(columns), sizes, tuple(measures), by_column, apart, floor, tuple(transfers), near, own, held,
        tuple(columns[j].name for j in blanked),
    )  # fmt: skip


def target_columns(columns: Sequence[Column], target: str | Sequence[str] | None) -> list[int]:
    """The numbers of these columns; for None, the last column of categories, or else the last column.

    Raises:
        ChoiceError: a target is not a column, or there is no other column to predict it from.
    """
    names, asked = [column.name for column in columns], [target] if isinstance(target, str) else [*(target or ())]
    for name in asked:
        if name not in names:
            raise ChoiceError(f"`target`: the table has no column {name!r}; it has {listed(names)}")
    if len(columns) < 2:
        raise ChoiceError(f"synthetic rows are compared in tables of two columns or more, got {len(columns)}")
    if asked:
        return [names.index(name) for name in asked]
    return [max((j for j, column in enumerate(columns) if not is_number(column)), default=len(columns) - 1)]


def _blanked(synthetic: Array, train: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Synthetic rows with values missing as in random training rows, in the columns where only those miss any.

    A generator that fills every cell would otherwise be told from real rows by this alone. Returns also the numbers of
    these columns.
    """
    here = np.flatnonzero(np.isnan(train).any(0) & ~np.isnan(synthetic).any(0))
    gone = np.zeros(synthetic.shape, bool)
    gone[:, here] = np.isnan(train[rng.integers(0, len(train), len(synthetic))][:, here])
    return (np.where(gone, np.nan, synthetic) if len(here) else synthetic), here


def _some(rows: Array, n: int, rng: np.random.Generator) -> Array:
    """At most n of the rows, chosen at random, in their order."""
    return rows if len(rows) <= n else rows[np.sort(rng.permutation(len(rows))[:n])]


def _fidelity(
    columns: Sequence[Column], apart: Distances, floor: Distances
) -> tuple[tuple[ColumnDistance, ...], list[Measure]]:
    def both(pick: Callable[[Distances], Array], high: float = 1.0) -> tuple[Estimate, Estimate]:
        return Estimate.of_draws(pick(apart), 0, high), Estimate.of_draws(pick(floor), 0, high)

    def of_columns(which: Array) -> Callable[[Distances], Array]:
        return lambda d: d.columns[:, which].mean(1)

    def measure(name: str, part: Part, help: str, pick: Callable[[Distances], Array], high: float = 1.0) -> Measure:
        return Measure(name, part, *both(pick, high), help)

    numbers = np.array([is_number(column) for column in columns], bool)
    by_column = tuple(
        ColumnDistance(c.name, "KS" if is_number(c) else "total variation", *both(of_columns(np.array([j]))))
        for j, c in enumerate(columns)
    )
    measures = [
        measure(name, "columns", f"{what}, mean over {counted(int(which.sum()), 'column')}", of_columns(which))
        for name, which, what in (
            ("KS of numbers", numbers, "Kolmogorov-Smirnov distance of a number from test rows"),
            (
                "distance of categories",
                ~numbers,
                "total variation distance of categories from test rows",
            ),
        )
        if which.any()
    ]
    upper = (slice(None), *np.triu_indices(apart.pairs.shape[1], 1))
    pairs = counted(len(upper[1]), "pair")
    return by_column, [
        *measures,
        measure("largest distance", "columns", "the largest of these distances", lambda d: d.columns.max(1)),
        measure("association error", "pairs",
                f"absolute difference in rank correlation (Cramér's V with categories), mean over {pairs}",
                lambda d: np.abs(d.associations[upper]).mean(1), 2.0),
        measure("distance of pairs", "pairs",
                f"total variation distance of a pair's contingency table, numbers in ten bins, mean over {pairs}",
                lambda d: d.pairs[upper].mean(1)),
    ]  # fmt: skip


def _useful(t: Transfer) -> Measure:
    return Measure(
        f"{t.score} of {t.target} ({t.model})",
        "usefulness",
        t.difference,
        t.floor,
        f"{t.score} on test rows after training on synthetic rows ({t.synthetic.value:.3f}) minus that after training "
        f"on as many real rows ({t.real.value:.3f})",
        ideal=0.0,
        better="higher",
    )


def _privacy(
    synthetic: Array, train: Array, test: Array, valid: Array | None, columns: Sequence[Column],
    rng: np.random.Generator,
) -> tuple[Nearness, list[Measure], int]:  # fmt: skip
    """The distances to real rows, their measures, and the number of training rows that are searched."""
    m = min(NEAR, len(train), len(test))
    inside, outside = (_some(x, m, rng) for x in (train, test))
    own = _some(synthetic, NEAR, rng)
    near = nearness(own, inside, outside, columns)
    fresh = None if valid is None or len(valid) < FEWEST else _some(valid, NEAR, rng)
    base = None if fresh is None else nearness(fresh, inside, outside, columns)
    measures = [
        Measure("nearer to training", "privacy", near.nearer, None if base is None else base.nearer,
                "share of synthetic rows that are nearer to a training row than to any of as many test rows", 0.5),
        Measure("copies of training", "privacy", copies(synthetic, train), copies(test, train),
                "share of synthetic rows that equal a training row; for real rows, the share of test rows"),
        Measure("membership by distance", "privacy", near.membership, None if base is None else base.membership,
                "AUC of the distance to the nearest synthetic row, telling training rows from test rows", 0.5),
    ]  # fmt: skip
    return near, measures, m


def density_gap(log_px: Mapping[str, Array]) -> Measure:
    """The membership gap: how well log p(x) of a generator tells its training rows from test rows.

    Arguments:
        log_px: log p(x) of rows by "train", "test" and, for the floor, "valid".
    """
    inside = Estimate.of_area(area(log_px["train"], log_px["test"]))
    fresh = log_px.get("valid")
    base = None if fresh is None or len(fresh) < FEWEST else Estimate.of_area(area(fresh, log_px["test"]))
    what = "AUC of log p(x) under the model, telling training rows from test rows"
    return Measure("membership by log p", "privacy", inside, base, what, 0.5)
