"""Comparing any number of runs: settings as rows, metrics as columns, differences to one of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vaekit.errors import ChoiceError
from vaekit.runs.saved import SavedRun

from ..registry import chosen
from .estimates import Estimate, difference, holm, mean
from .gathered import Asked, gather
from .result import Cell, Column, Comparison
from .rows import Row, reference, rows_of

__all__ = ["Cell", "Column", "Comparison", "Estimate", "Row", "compare_runs", "difference", "holm", "mean"]


def compare_runs(
    runs: Sequence[SavedRun | str | Path],
    asked: Asked,
    *,
    to: str | Path | None = None,
    each: bool | None = None,
    measure: bool | None = None,
) -> Comparison:
    """`vaekit.compare` for a list of runs.

    Raises:
        ChoiceError: no runs, an unknown metric, row or split, or a metric that no run has.
        RunError: a path is not a run.
        DataError: the data of a run cannot be read, and its numbers are not stored.
    """
    chosen(asked.metrics)  # reject unknown names before any run is opened
    opened = []
    for run in runs:
        if not isinstance(run, SavedRun | str | Path):
            raise ChoiceError(f"a comparison of several takes runs or their paths, got {type(run).__name__}")
        opened.append(run if isinstance(run, SavedRun) else SavedRun.open(run))
    rows, notes = rows_of(opened, each=each)
    chosen_row = None if to is None else reference(rows, str(to))
    numbers, where = gather(rows, asked, measure)
    return Comparison(rows, numbers, chosen_row, [*where, *notes])
