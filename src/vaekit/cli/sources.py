"""Raw data for a run from wherever the user has them: a split, other data, one datum."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaekit.errors import ChoiceError, DataError

if TYPE_CHECKING:
    from vaekit.run import Run


@dataclass(frozen=True)
class Rows:
    """What to encode or score: a split of the run's data by name, or raw rows (N, *row), and what is known of them."""

    x: Any
    label: np.ndarray | None = None
    names: list[str] | None = None


def rows(run: Run, source: str | None, split: str | None) -> Rows:
    """A split of the run's own data (test), or all rows (or a split) of other data, read with the run's options.

    A split of other data that turn out to be the run's own is the run's split.
    """
    if source is None:
        return _own(run, split or "test")
    if split is None:
        return _all(run, source)
    from vaekit.cli.fit import load

    data = load(source, kind=run.facts.kind, **_options(run, source))
    if data.digest == run.config["data"]["digest"]:
        run.use_data(source)
        return _own(run, split)
    part = getattr(data, split)
    return Rows(part[:], part.label, part.names)


def _own(run: Run, split: str) -> Rows:
    part = getattr(run.data, split)
    return Rows(split, part.label, part.names)


def _all(run: Run, source: str) -> Rows:
    """All rows of a name or a path, in their order there; one image file or one datum of an array is one row."""
    from vaekit.cli.output import Doing
    from vaekit.data import load_rows
    from vaekit.data.images import SUFFIXES

    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return Rows(_picture(run, path), None, [path.name])
    with Doing() as doing:
        x, names, label = load_rows(source, **_options(run, source), progress=doing)
    if path.is_dir() and names is not None and x.ndim == 3 and run.facts.shape[0] == 3:
        x = np.broadcast_to(x[..., None], (*x.shape, 3))  # only grey images, for a run of coloured ones
    shape = x.shape[:1] if x.shape[1:] == (1,) else x.shape  # numbers without rows come as rows of one
    return Rows(x.reshape(1, *shape)) if _is_one(run, shape) else Rows(x, label, names)


def _options(run: Run, source: str) -> dict[str, Any]:
    """Those of the run's options that say how to read other data."""
    from vaekit.data.idx import has_idx
    from vaekit.data.table import SUFFIXES

    path, stored = Path(source).expanduser(), run.config["data"]["options"]
    taken: tuple[str, ...] = ()
    if path.is_dir() and run.facts.kind == "image" and not has_idx(path):
        size = "x".join(map(str, run.facts.shape[1:]))
        return {"size": size} | {n: stored[n] for n in ("background", "skip_bad") if n in stored}
    if path.suffix == ".npz":
        taken = ("x_key",)
    elif path.suffix.lower() in SUFFIXES:
        taken = ("label", "group")
    known = {"schema": run.facts.columns} if run.facts.columns and path.suffix.lower() in SUFFIXES else {}
    return known | {n: stored[n] for n in (*taken, "missing") if n in stored}


def _is_one(run: Run, shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape is one datum of the run rather than rows of them."""
    return _fits(run, shape) and not _fits(run, shape[1:])


def _fits(run: Run, row: tuple[int, ...]) -> bool:
    from vaekit.data.core import layout

    if row == run.facts.shape:
        return True
    try:
        return layout(run.facts.kind, row).shape == run.facts.shape  # type: ignore[arg-type]
    except DataError:
        return False


def latent(run: Run, given: str, sample: bool = False, seed: int = 0, place: int = 0) -> np.ndarray:
    """The latent (D,) of one datum: an index of the test set, an image file, or a row of a .npy or .npz file.

    An index sees what `Run.encode("test")` sees of that row: of binarised data the split's one frozen draw, and with
    `sample` the same draw of z. `place` tells the draws for several files apart.

    Raises:
        DataError: no such index or file, or one that holds no datum of this run's shape.
    """
    found = datum(run, given)
    if isinstance(found, int):
        return run.encode("test", sample=sample, seed=seed, rows=np.array([found]))[0]
    return run.encode(found, sample=sample, seed=seed + place)[0]


def condition(run: Run, given: str | None, row: int | np.ndarray | None = None) -> np.ndarray | None:
    """What `--label` tells of data that are not the run's own, for a conditional run.

    Raises:
        ChoiceError: the run is not conditional, there is no such class, or `row` is one of the test set.
    """
    if given is None:
        return None
    if isinstance(row, int):
        raise ChoiceError(f"row {row} of the test set has its own condition: --label is for a datum from a file")
    if run.composition.condition is None:
        raise ChoiceError("--label is for a conditional run, and this one is not")
    return run.composition.condition.read(given)


def datum(run: Run, given: str) -> int | np.ndarray:
    """One datum as the user names it: the number of a row of the test set, or raw (1, *row) read from a file.

    Raises:
        DataError: no such index or file, or one that holds no datum of this run's shape.
    """
    path = Path(given).expanduser()
    if re.fullmatch(r"[+-]?\d+", given) and not path.exists():
        index, n = int(given), len(run.data.test)
        if not 0 <= index < n:
            raise DataError(f"no datum {index} in the test set: indices run from 0 to {n - 1}")
        return index
    name, colon, row = given.rpartition(":")
    if not path.exists() and colon and row.isdigit():
        path, index = Path(name).expanduser(), int(row)
    else:
        index = 0
    if not path.is_file():
        raise DataError(f"{given!r} is neither an index of the test set nor a file")
    return _row(run, path, index) if path.suffix.lower() in (".npy", ".npz") else _picture(run, path)


def mask(run: Run, given: str) -> str | np.ndarray:
    """A named mask as it is; a file as what it hides, bool (*event): bright pixels, or what is not 0 in a .npy file.

    Raises:
        ChoiceError: neither.
        DataError: a file that cannot be read, or of another shape.
    """
    from vaekit.editing import MASKS

    path, shape = Path(given).expanduser(), run.facts.shape
    if given.lower() in MASKS and not path.exists():
        return given.lower()
    if not path.is_file():
        raise ChoiceError(f"--mask {given!r} is neither {' nor '.join(MASKS)} nor a file")
    if path.suffix.lower() == ".npy":
        try:
            held = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{path} cannot be read as an array ({error})") from None
        try:
            return np.broadcast_to(held != 0, shape)
        except ValueError:
            raise DataError(f"{path} is of shape {held.shape}, and a datum of this run of {shape}") from None
    from vaekit.data import images

    if run.facts.kind != "image":
        raise DataError(f"{path}: this run takes {run.facts.kind} data: give the mask as a .npy file")
    try:
        pixels = images._decode(path, (shape[1], shape[2]), images._colour("black"), True)
    except images._unreadable() as error:
        raise DataError(f"{path} cannot be read as an image ({error})") from None
    return np.broadcast_to(pixels.reshape(shape[1:]) > 127, shape)


def _row(run: Run, path: Path, index: int) -> np.ndarray:
    try:
        held = np.load(path, mmap_mode="r" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
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
    x = held[None] if _is_one(run, held.shape) or not held.ndim else held
    if not index < len(x):
        raise DataError(f"{path} has {len(x)} rows: there is no row {index}")
    from vaekit.data.core import cast

    return cast(np.array(x[index : index + 1]))


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
