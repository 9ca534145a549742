"""Comparing synthetic rows with the real rows of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.data.condition import Labels, class_codes
from vaekit.data.core import Column, ColumnKind
from vaekit.errors import ChoiceError
from vaekit.runs.observed import Observed
from vaekit.runs.trained import TrainedModel

from .compare import ROWS, Comparison, compare_tables, target_columns

Array = NDArray[Any]
SEARCHED = 200_000
"""The maximum number of training rows that are searched for copies."""
SCORED, SAMPLES = 1000, 50
"""The maximum number of rows of each split whose log p(x) is measured, and the importance samples for each."""


def compare_synthetic(
    run: TrainedModel,
    data: Any = None,
    *,
    labels: Labels | None = None,
    target: str | Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """Compare synthetic rows with the training and test rows of a run: see `compare_tables`.

    For a conditional run, the condition is a column of the table, too. The membership gap by log p(x) is that of the
    run, whatever made the rows.

    Arguments:
        data: the synthetic rows: a path, a frame, whose columns are matched by name, or an array; None draws as many
            rows as there are training rows from the run, with the conditions of training rows.
        labels: labels of the rows, for a conditional run, as for `encode`.
        target: the column or columns to predict in training on synthetic and testing on real rows.
        seed: seed of the choice of rows, of the models and of the bootstrap.
        progress: called as progress(part, done, of).

    Raises:
        ChoiceError: the run does not model a table, or a target is not a column.
        DataError: the rows do not fit this run, or there are too few.
    """
    if run.spec.kind not in ("vector", "counts"):
        raise ChoiceError(
            f"synthetic rows are compared for tables, and this run models {run.spec.kind} data: `metrics='frechet'` "
            "compares its samples with the data"
        )
    columns = table_columns(run)
    target_columns(columns, target)
    rng = np.random.default_rng(seed)
    most = {"train": SEARCHED, "valid": ROWS, "test": ROWS}
    chosen = {split: _chosen(run.observed(split).n, n, rng) for split, n in most.items()}
    real = {split: _rows(run, run.observed(split), rows) for split, rows in chosen.items()}
    given = run.observed(data, labels=labels) if data is not None else _drawn(run, chosen["train"][:ROWS], seed)
    own = _rows(run, given, _chosen(given.n, ROWS, rng))
    log_px = None
    if run.model.no_density is None:
        scored = {split: rows[_chosen(len(rows), SCORED, rng)] for split, rows in chosen.items()}
        log_px = {split: run.score(split, rows=rows, samples=SAMPLES, seed=seed) for split, rows in scored.items()}
    return compare_tables(
        own, real["train"], real["test"], columns, valid=real["valid"], log_px=log_px, target=target, seed=seed,
        progress=progress,
    )  # fmt: skip


def table_columns(run: TrainedModel) -> tuple[Column, ...]:
    """The columns of the run's table, followed by those of its condition."""
    kind: ColumnKind = "counts" if run.spec.kind == "counts" else "real"
    columns = run.columns or tuple(Column(f"x{j}", kind) for j in range(run.spec.dims))
    condition = run.composition.condition
    return columns if condition is None else (*columns, *condition.schema)


def _chosen(n: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """At most `most` of the numbers 0..n-1, chosen at random, in their order."""
    return np.sort(rng.permutation(n)[:most])


def _rows(run: TrainedModel, observed: Observed, rows: NDArray[np.int64]) -> Array:
    """These rows with their conditions, (n, D), with one number per `table_columns`."""
    raw = observed.raw(rows).reshape(len(rows), -1).astype(np.float64)
    c, condition = observed.condition(rows), run.composition.condition
    if c is None or condition is None:
        return raw
    values = condition.columns(c.numpy())
    coded = [class_codes(values[one.name], one.categories) if one.categories else values[one.name]
             for one in condition.schema]  # fmt: skip
    return np.column_stack([raw, *coded]).astype(np.float64)


def _drawn(run: TrainedModel, like: NDArray[np.int64], seed: int) -> Observed:
    """Rows drawn from the run, with the conditions of these training rows."""
    c, condition = run.observed("train").condition(like), run.composition.condition
    labels = None if c is None or condition is None else condition.decoded(c.numpy())
    return run.observed(run.sample(len(like), labels=labels, noise=True, seed=seed), labels=labels)
