"""Where vaekit keeps what it would otherwise compute or download again, and how it writes there."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from vaekit.data.core import Array
from vaekit.errors import DataError


def folder(cache: str | Path | None = None) -> Path:
    """The cache: `cache` if given, else `VAEKIT_CACHE`, else the platform's place (on Linux ~/.cache/vaekit)."""
    if cache is not None:
        return Path(cache).expanduser()
    if chosen := os.environ.get("VAEKIT_CACHE"):
        return Path(chosen).expanduser()
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "vaekit"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "vaekit"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "vaekit" / "cache"
    return Path.home() / ".cache" / "vaekit"


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears at `path` whole or not at all: written beside it, synced, renamed.

    Raises:
        DataError: the cache cannot be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> DataError:
    """The error for a cache that cannot be written."""
    return DataError(
        f"cannot write {path} ({error.strerror or error}): set VAEKIT_CACHE (or cache=) to a folder you may write, "
        "with room enough"
    )


class Packer:
    """Writes rows one after the other into a .npy file whose number of rows is known only at the end."""

    def __init__(self, file: IO[bytes], row: tuple[int, ...]) -> None:
        self.file, self.row, self.n = file, row, 0
        self._header()
        self._data = file.tell()

    def _header(self) -> None:
        shape = (self.n, *self.row)
        np.lib.format.write_array_header_1_0(  # numpy pads it so that the first axis can grow in place
            self.file, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )

    def add(self, row: Array) -> None:
        """Appends one uint8 row."""
        assert (row.shape, row.dtype) == (self.row, np.uint8)
        self.file.write(np.ascontiguousarray(row).data)
        self.n += 1

    def close(self) -> None:
        """Writes the number of rows into the header."""
        self.file.seek(0)
        self._header()
        assert self.file.tell() == self._data
