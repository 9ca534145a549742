"""Paths to data: which can be, what may have been meant, and what their files are called."""

import itertools
import os
from pathlib import Path
from typing import Any

from vaekit.errors import DataError
from vaekit.utils.suggest import meant

from . import named
from .readers.registry import formats


def known_path(source: Any) -> Path:
    """`source` as a path, which need not exist.

    Raises:
        DataError: no path can be written so, it is a device or a pipe, or it is data.
    """
    if not isinstance(source, str | os.PathLike):
        raise DataError(
            f"load takes a name, a path or a frame, got {type(source).__name__}: give arrays, tensors and datasets to "
            "from_arrays"
        )
    try:
        path = Path(source).expanduser()
        special = path.exists() and not (path.is_file() or path.is_dir())
    except (OSError, RuntimeError, ValueError) as error:  # too long, unknown user, or not Unicode
        raise DataError(f"{str(source)[:100]!r} cannot be a path ({error})") from None
    if special:
        raise DataError(f"{source} is a device or a pipe, expected a file or a folder: copy it to a file first")
    return path


def check_exists(asked: str) -> None:
    """Raises DataError for what is neither a name nor a path, with the names and what may have been meant."""
    if asked not in named.SETS and not known_path(asked).exists():
        raise unknown(asked)


def unknown(asked: str) -> DataError:
    """The error for what is neither a name nor a path."""
    near = meant(asked, [*named.SETS, *_beside(Path(asked))], 0.5)
    hint = f"did you mean {near!r}? Data sets" if near else "data sets"
    return DataError(
        f"{asked!r} is neither a data set nor a path that exists: {hint} are {', '.join(named.SETS)}; paths are of "
        f"{formats()}, or of a folder of images"
    )


def _beside(path: Path) -> list[str]:
    """The files in the folder where a file was looked for, as paths written alike."""
    try:
        return [str(path.with_name(other.name)) for other in itertools.islice(path.expanduser().parent.iterdir(), 1000)]
    except (OSError, ValueError, RuntimeError):
        return []


def table_path(table: str | Path, folder: Path) -> Path:
    """Where a table lies that was asked for, in the working directory or in the folder.

    Raises:
        DataError: in neither.
    """
    given = Path(table).expanduser()
    for place in (given, folder / given):
        if place.is_file():
            return place
    raise DataError(f"`table={str(table)!r}`: no such file, here or in {folder}")


def table_to_keep(table: str | Path, folder: Path) -> str:
    """How to find the table again: relative to the folder where it lies in it, so that both can move together."""
    place = table_path(table, folder).absolute()
    return str(place.relative_to(folder.absolute())) if place.is_relative_to(folder.absolute()) else str(place)


def name_of(path: Path) -> str:
    """What data at a path are called: the file's name without its suffix."""
    name = path.resolve().name
    name = name[:-3] if name.endswith(".gz") else name
    return name if path.is_dir() else (Path(name).stem or name)
