"""Image files in a column of cells, or at the paths in such cells."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from vaekit.data.core import counted, listed
from vaekit.data.paths import REMOTE
from vaekit.errors import DataError

from .columnar import Columnar, is_parquet
from .image_file import File
from .images import Pictures, stat_of

ROWS = 64
"""Images that are read at a time."""
MOST_SHOWN = 200
"""Characters of a path in a message at most."""


@dataclass(frozen=True)
class Cell:
    """The image file in a cell."""

    content: bytes

    def open(self) -> IO[bytes]:
        """The content of the file."""
        return io.BytesIO(self.content)


@dataclass(frozen=True)
class InColumn(Pictures):
    """The image files in a column; their names are the numbers of their rows.

    A cell without bytes may hold the path of an image, which is read if it lies in one of the folders `roots`.

    Attributes:
        path: the data set, for messages.
        columns, column: the files, and the name of the column.
        roots: folders of the images to which paths may lead.
    """

    path: Path
    columns: Columnar
    column: str
    roots: tuple[Path, ...]

    @property
    def names(self) -> list[str]:
        """The names of all images."""
        return [f"{i}" for i in range(len(self.columns))]

    @cached_property
    def paths(self) -> dict[str, tuple[str, Path | None]]:
        """The paths in cells without bytes by the name of the image, and the files that they lead to, if there are."""
        kind = self.columns.schema.field(self.column).type
        names = {kind.field(i).name for i in range(kind.num_fields)}
        if not names >= {"bytes", "path"} or not self.columns.may_lack(f"{self.column}.bytes"):
            return {}
        roots = [os.path.realpath(root) for root in self.roots]
        found: dict[str, tuple[str, Path | None]] = {}
        start = 0
        for file in self.columns.paths:
            beside = [os.path.realpath(file.parent), *roots]
            for batch in Columnar((file,)).batches([self.column], ROWS):
                cells = batch.column(0)
                for row in _without_bytes(cells):
                    path = (cells[row].as_py() or {}).get("path")
                    if isinstance(path, str) and path:
                        found[str(start + row)] = path, _inside(path, beside, roots)
                start += len(cells)
        return found

    def notes(self, skip_bad: bool) -> list[str]:
        """Notes on the paths in cells.

        Raises:
            DataError: a path leads to no file in `roots`; with `skip_bad`, only if no image is left.
        """
        if not self.paths:
            return []
        n, m = len(self.columns), len(self.paths)
        lost = [path for path, file in self.paths.values() if file is None]
        where = listed([str(root) for root in self.roots])
        notes = [f"column {self.column!r} holds the paths, not the bytes, of {m:,} of {counted(n, 'image')} in {where}"]
        if not lost:
            return notes
        shown = lost[0] if len(lost[0]) <= MOST_SHOWN else f"{lost[0][:MOST_SHOWN]}..."
        what = (
            f"column {self.column!r} holds paths without the bytes of the images, and for {len(lost):,} of "
            f"{counted(n, 'cell')} there is no such file in {where}, such as {shown!r}"
        )
        if skip_bad and len(lost) < n:
            return [*(notes if len(lost) < m else []), what]
        raise DataError(
            f"{self.path}: {what}; files elsewhere are not read. Copy the images there and write their paths relative "
            "to that folder; or store their bytes in a folder NEW, on a machine that has the images, with "
            f"`datasets.{self._opened}.cast_column({self.column!r}, datasets.Image()).save_to_disk('NEW')`"
        )

    @property
    def _opened(self) -> str:
        """The call of the library `datasets` that opens the data set."""
        if self.path.parts[:1] == (REMOTE.rstrip("/"),):
            return f"load_dataset({'/'.join(self.path.parts[2:]).partition('@')[0]!r})"
        if self.path.is_file():
            return f"Dataset.{'from_parquet' if is_parquet(self.path) else 'from_file'}({str(self.path)!r})"
        return f"load_from_disk({str(self.path)!r})"

    def identity(self, names: list[str]) -> list[Any]:
        stats = [(str(one.resolve()), one.stat()) for one in self.columns.paths]
        files = [(name, str(file), *stat_of(file)) for name, (_, file) in self.paths.items() if file is not None]
        known = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
        return [self.column, known, files] if files else [self.column, known]

    def chunks(self, names: list[str]) -> Iterator[list[tuple[str, File]]]:
        wanted, row = set(names), 0
        for batch in self.columns.batches([self.column], ROWS):
            cells = batch.column(0)
            for start in range(0, len(cells), ROWS):
                part: list[tuple[str, File]] = []
                for cell in cells.slice(start, ROWS).to_pylist():
                    if (name := str(row)) in wanted:
                        content = cell.get("bytes") if isinstance(cell, dict) else cell
                        _, file = self.paths.get(name, ("", None))
                        part.append((name, file or Cell(content or b"")))
                    row += 1
                if part:
                    yield part


def _inside(path: str, beside: list[str], roots: list[str]) -> Path | None:
    """The file that a path leads to, relative to a folder of `beside`, if it lies below a folder of `roots`.

    Links are followed first, so that neither they nor .. lead out of `roots`.
    """
    for folder in beside:
        try:
            file = os.path.realpath(os.path.join(folder, path))
            if any(os.path.commonpath((file, root)) == root for root in roots) and os.path.isfile(file):
                return Path(file)
        except (OSError, ValueError):  # a name that is too long, or not one of a file
            continue
    return None


def _without_bytes(cells: Any) -> list[int]:
    """The rows whose structs have no bytes."""
    import pyarrow as pa

    if not pa.types.is_struct(cells.type) or cells.type.get_field_index("bytes") < 0:
        return []
    rows = cells.field("bytes").is_null().to_numpy(zero_copy_only=False).nonzero()[0]
    return [int(row) for row in rows]
