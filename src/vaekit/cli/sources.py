"""Raw data for a run from wherever the user has them: a split, other data, one datum."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaekit.errors import DataError

if TYPE_CHECKING:
    from vaekit.data import Data
    from vaekit.run import Run


@dataclass(frozen=True)
class Rows:
    """What to encode or score: a split of the run's data by name, or raw rows (N, *row), and what is known of them."""

    x: Any
    label: np.ndarray | None = None
    names: list[str] | None = None


def rows(run: Run, source: str | None, split: str | None) -> Rows:
    """A split of the run's own data (test), or all rows (or a split) of other data, read with the run's options."""
    if source is None:
        part = getattr(run.data, split or "test")
        return Rows(split or "test", part.label, part.names)
    data = _like(run, source)
    if split is not None:
        part = getattr(data, split)
        return Rows(part[:], part.label, part.names)
    whole = [data.train, data.valid, data.test]
    order = np.argsort(np.concatenate([part.index for part in whole]))  # back into the order of the source
    x = np.concatenate([part[:] for part in whole])[order]
    label = None if data.train.label is None else np.concatenate([np.asarray(p.label) for p in whole])[order]
    names = [name for part in whole for name in part.names or ()]
    return Rows(x, label, [names[i] for i in order] if names else None)


def _like(run: Run, source: str) -> Data:
    """Other data, with those of the run's options that say how to read them."""
    from vaekit.cli.fit import load

    path, stored = Path(source).expanduser(), run.config["data"]["options"]
    taken = {"kind": run.facts.kind}
    if path.is_dir() and run.facts.kind == "image":
        taken |= {n: stored[n] for n in ("size", "background", "skip_bad") if n in stored}
        from vaekit.data.idx import has_idx

        if not has_idx(path):
            taken["size"] = "x".join(map(str, run.facts.shape[1:]))
        else:
            taken = {"kind": run.facts.kind}
    elif path.suffix == ".npz" and "x_key" in stored:
        taken["x_key"] = stored["x_key"]
    elif path.suffix in (".csv", ".parquet"):
        taken |= {n: stored[n] for n in ("label", "group") if n in stored}
    return load(source, **taken)


def datum(run: Run, given: str) -> np.ndarray:
    """One raw datum (1, *row): an index of the test set, an image file, or a row of a .npy or .npz file.

    Raises:
        DataError: no such index or file, or one that holds no datum of this run's shape.
    """
    path = Path(given).expanduser()
    if re.fullmatch(r"[+-]?\d+", given) and not path.exists():
        index, n = int(given), len(run.data.test)
        if not 0 <= index < n:
            raise DataError(f"no datum {index} in the test set: indices run from 0 to {n - 1}")
        return run.data.test[np.array([index])]
    name, colon, row = given.rpartition(":")
    if not path.exists() and colon and row.isdigit():
        path, index = Path(name).expanduser(), int(row)
    else:
        index = 0
    if not path.is_file():
        raise DataError(f"{given!r} is neither an index of the test set nor a file")
    if path.suffix.lower() in (".npy", ".npz"):
        return _row(run, path, index)
    return _picture(run, path)


def _row(run: Run, path: Path, index: int) -> np.ndarray:
    try:
        held = np.load(path, allow_pickle=False)
        if isinstance(held, np.lib.npyio.NpzFile):
            likely = (run.config["data"]["options"].get("x_key"), "x", *held.files)
            key = next((k for k in likely if k in held.files), None)
            if key is None:
                raise DataError(f"{path} holds no array")
            held = held[key]
    except (ValueError, OSError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as an array ({error})") from None
    one = held.ndim == run.data.train.raw.ndim - 1 or held.shape == run.facts.shape
    x = held[None] if one else held
    if not index < len(x):
        raise DataError(f"{path} has {len(x)} rows: there is no row {index}")
    return x[index : index + 1]


def _picture(run: Run, path: Path) -> np.ndarray:
    """An image file read as the run's folder of images was, in the units of the run's data."""
    from vaekit.data import images

    facts = run.facts
    if facts.kind != "image":
        raise DataError(f"{path}: this run takes {facts.kind} data; give an index, or a .npy or .npz file")
    channels, *size = facts.shape
    if channels not in (1, 3):
        raise DataError(f"{path}: this run takes images of {channels} channels; give a .npy or .npz file")
    background = images._colour(run.config["data"]["options"].get("background", "white"))
    try:
        pixels = images._decode(path, (size[0], size[1]), background, channels == 1)
    except images._unreadable() as error:
        raise DataError(f"{path} cannot be read as an image ({error})") from None
    x = pixels[None] if channels == 3 else pixels[None, ..., None]
    low, high = facts.scale
    if facts.integer and (low, high) == (0.0, 255.0):
        return np.moveaxis(x, -1, 1)
    scaled = low + x.astype(np.float32) / 255 * (high - low)
    return np.moveaxis(np.round(scaled).astype(np.uint8) if facts.integer else scaled, -1, 1)
