"""Figures of a training as one CSV file, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaekit.callbacks.base import Training
from vaekit.errors import RunError
from vaekit.runs.configuration import State
from vaekit.utils.files import unwritable, write_text

from .base import Logger, logger


@logger("csv")
class CSVLogger(Logger):
    """A row for each step that is recorded, a column for each figure.

    Arguments:
        where: the file; by default log.csv in the run directory.
    """

    def __init__(self, where: str | None = None):
        super().__init__()
        self.where = where
        self.columns: list[str] = ["step"]
        self.file = Path()

    def open(self, training: Training, settings: dict[str, Any]) -> None:
        """Create the file; or keep its rows up to the step from which the run resumes."""
        self.file = Path(self.where) if self.where else training.path / "log.csv"
        rows: list[dict[str, str]] = []
        if training.first and self.file.exists():
            with open(self.file, newline="", encoding="utf8") as f:
                reader = csv.DictReader(f)
                rows, self.columns = list(reader), list(reader.fieldnames or ["step"])
            rows = [row for row in rows if (row.get("step") or "").isdigit() and int(row["step"]) <= training.first]
        elif self.where and self.file.exists():
            raise RunError(f"{self.file} exists already: name another file in `log='csv:FILE'`, or remove it")
        self._rewrite(rows)

    def scalars(self, step: int, figures: dict[str, float]) -> None:
        """Append a row. If there are new figures, the file is replaced by one with their columns."""
        row: dict[str, Any] = {"step": step, **figures}
        if new := [name for name in figures if name not in self.columns]:
            with open(self.file, newline="", encoding="utf8") as f:
                rows: list[dict[str, Any]] = list(csv.DictReader(f))
            self.columns += new
            self._rewrite([*rows, row])
            return
        try:
            with open(self.file, "a", newline="", encoding="utf8") as f:
                csv.DictWriter(f, self.columns, restval="").writerow(row)
        except OSError as error:
            raise unwritable(self.file, error) from error

    def _rewrite(self, rows: Sequence[dict[str, Any]]) -> None:
        """Replace the file at once, so that a full disk or a killed process leaves the earlier one."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.file, error) from error
        write_text(self.file, text.getvalue())

    def close(self, state: State) -> None:
        """Nothing is open."""
