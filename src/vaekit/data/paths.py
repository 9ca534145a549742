"""Paths to data: checks, suggestions for unknown names, and names of data."""

import glob
import itertools
import os
import re
from pathlib import Path
from typing import Any

from vaekit.errors import DataError
from vaekit.utils.suggest import meant

from . import named
from .readers.registry import formats

SHARDS = (".tar", ".tar.gz", ".tgz")
"""Ends of the names of archives of which a pattern may name several."""
REMOTE = "hf://"
"""The beginning of the name of a data set that is downloaded."""
MOST_SHARDS = 10_000
"""Archives that {000..010} may stand for."""


def matching(path: Path) -> list[Path]:
    """The archives that a pattern with * ? [] or {000..010} stands for, sorted; none for other paths."""
    if not path.name.lower().endswith(SHARDS):
        return []
    return sorted({Path(found) for one in _expanded(str(path)) for found in glob.glob(one)})


def _expanded(pattern: str) -> list[str]:
    """A pattern with {000..010} or {a,b} as patterns without braces."""
    found = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if found is None:
        return [pattern]
    first, last, names = found.groups()
    if names is None and int(last) - int(first) >= MOST_SHARDS:
        return []
    words = names.split(",") if names else [str(i).zfill(len(first)) for i in range(int(first), int(last) + 1)]
    return [one for word in words for one in _expanded(pattern[: found.start()] + word + pattern[found.end() :])]


def exists(source: str) -> bool:
    """Whether a text is the name of a remote data set, an existing path, or a pattern of existing archives.

    Raises:
        DataError: it is not a possible path.
    """
    path = known_path(source)
    return source.startswith(REMOTE) or path.exists() or bool(matching(path))


def known_path(source: Any) -> Path:
    """`source` as a path, which need not exist.

    Raises:
        DataError: `source` is not a possible path, is a device or a pipe, or is an object with data.
    """
    if not isinstance(source, str | os.PathLike):
        raise DataError(
            f"load expects a name, a path or a frame, got {type(source).__name__}: use from_arrays for arrays, tensors "
            "and datasets"
        )
    if not os.fspath(source):  # Path("") is the working directory
        raise DataError("the name of the data is empty: give the name of a data set, or a path")
    try:
        path = Path(source).expanduser()
        str(path.absolute()).encode()  # a run stores it
        special = path.exists() and not (path.is_file() or path.is_dir())
    except UnicodeEncodeError:
        name = os.fsencode(path.absolute()).decode("utf-8", "backslashreplace")
        raise DataError(
            f"the path {name} is not UTF-8, so a run could not store it: rename the file or folder"
        ) from None
    except (OSError, RuntimeError, ValueError) as error:  # too long, of an unknown user, or not Unicode
        raise DataError(f"{str(source)[:100]!r} cannot be a path ({error})") from None
    if special:
        raise DataError(f"{source} is a device or a pipe, expected a file or a folder: copy it to a file first")
    return path


def check_exists(asked: str) -> None:
    """Raise the DataError of `unknown` if `asked` is neither the name of a data set nor an existing path."""
    if asked not in named.SETS and not exists(asked):
        raise unknown(asked)


def unknown(asked: str) -> DataError:
    """The error for a text that is neither a name nor an existing path, with a suggestion and the known names."""
    near = meant(asked, [*named.SETS, *_siblings(Path(asked))], 0.5)
    hint = f"did you mean {near!r}? Data sets" if near else "data sets"
    return DataError(
        f"{asked!r} is neither a data set nor a path that exists: {hint} are {', '.join(named.SETS)}; a path names "
        f"a file ({formats()}) or a folder of images"
    )


def _siblings(path: Path) -> list[str]:
    """The paths of up to 1000 files in the folder of `path`, written in the same form as `path`."""
    try:
        return [str(path.with_name(other.name)) for other in itertools.islice(path.expanduser().parent.iterdir(), 1000)]
    except (OSError, ValueError, RuntimeError):
        return []


def table_path(table: str | Path, folder: Path) -> Path:
    """The path of a table, relative to the working directory or to `folder`.

    Raises:
        DataError: there is no such file.
    """
    named = Path(table).expanduser()
    for path in (named, folder / named):
        if path.is_file():
            return path
    raise DataError(f"`table={str(table)!r}`: no such file in the working directory or in {folder}")


def table_to_keep(table: str | Path, folder: Path) -> str:
    """The path of the table to record: relative if the table lies in `folder`, so that both can be moved together."""
    path = table_path(table, folder).absolute()
    return str(path.relative_to(folder.absolute())) if path.is_relative_to(folder.absolute()) else str(path)


def name_of(path: Path) -> str:
    """The name of the data at a path: the name of the file without its suffix, of the folder, or of the repository."""
    if path.parts[:1] == (REMOTE.rstrip("/"),):
        return Path(path.as_posix().partition("@")[0]).name
    name = path.resolve().name
    if not path.exists():  # a pattern of archives
        name = re.sub(r"[-_.]*[*?\[\]{},][^.]*(?=\.)|[*?\[\]{},]+", "", name) or "shards"
    name = name[:-3] if name.endswith(".gz") else name
    return name if path.is_dir() else (Path(name).stem or name)
