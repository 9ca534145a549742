"""Raw data for a run from wherever the user has them: a split, other data, one datum."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaekit.errors import ChoiceError, DataError
from vaekit.utils.progress import say

if TYPE_CHECKING:
    from vaekit.run import Run


@dataclass(frozen=True)
class Rows:
    """What to encode or score: a split of the run's data by name, or raw rows (N, *row), and what is known of them.

    `label` has the classes as the data name them, of the run's own split their codes; `texts` the cells of a table's
    columns that the run does not model, as they are written.
    """

    x: Any
    label: np.ndarray | None = None
    names: list[str] | None = None
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)

    def carried(self, *own: str) -> dict[str, list[str]]:
        """The texts by names that are none of these."""
        return {f"{name} (of the data)" if name in own else name: cells for name, cells in self.texts.items()}


def rows(run: Run, source: str | None, split: str | None, table: str | None = None) -> Rows:
    """A split of the run's own data (test), or all rows (or a split) of other data, read with the run's options.

    A split of other data that turn out to be the run's own is the run's split. `table` describes a folder of images.
    """
    if source is None:
        if table is not None:
            raise ChoiceError("--table describes a folder of new images: name the folder, too")
        return _own(run, split or "test")
    if split is None:
        return _all(run, source, table)
    from vaekit.data.condition import named

    from .fit import load

    options = _options(run, source, table)
    data = load(source, kind=run.spec.kind, **options)
    if data.is_same(run.config["data"]["digest"]):
        run.use_data(source)
        return _own(run, split)
    own = data.options.get("pixel_range")
    if own != options.get("pixel_range"):
        raise DataError(
            f"the images in {source} have more than 8 bits and a range of their own, {own}, and this run was trained "
            "on images of 8 bits, or of the whole range 0..65535: leave --split out to read them so"
        )
    part = getattr(data, split)
    label = part.label
    if label is not None and data.label_names is not None:
        label = named(label, data.label_names)
    return Rows(part[:], label, part.names, part.columns)


def labels(run: Run, given: Rows | int, told: str | None = None) -> np.ndarray | None:
    """What a conditional run is given of new rows: what they carry, or what `--label` says of them.

    Arguments:
        told: a class (or attributes a,b,c) of all rows, or the column that holds the rows' classes.

    Raises:
        ChoiceError: the run is not conditional, or the rows have no such condition.
    """
    condition = run.composition.condition
    if told is not None and condition is None:
        raise ChoiceError("--label is for a conditional run, and this one is not")
    if isinstance(given, int):
        if told is not None:
            raise ChoiceError(f"row {given} of the test set has its own condition: --label is for a datum from a file")
        return None
    if isinstance(given.x, str):
        if told is not None:
            raise ChoiceError("the run's own data have their own conditions: --label is for data from elsewhere")
        return None
    if condition is None:
        return None
    n = len(given.x)
    if told is not None:
        column = given.columns.get(told) if condition.kind == "label" and told not in condition.names else None
        found = condition.read(told) if column is None else column
    else:
        try:
            found = condition.carried(given.label, given.columns)
        except ChoiceError as error:
            example = condition.names[0] if condition.kind == "label" else ",".join("0" for _ in condition.names)
            raise ChoiceError(f"{error}; for all rows alike by --label, such as --label {example}") from None
    return condition.decoded(condition.encoded(found, n))


def note_differing(run: Run, given: Rows) -> None:
    """Says how many rows differ from the training data in what had one value in all of these, which costs them much."""
    from vaekit.densities.mixed import DIFFERS
    from vaekit.heads.mixed import Masked

    head = getattr(run.model.likelihood, "head", None)
    if not isinstance(head, Masked) or head.held is None:
        return
    held = head.held.cpu().numpy().ravel()
    observed = run.observed(given.x)
    x = observed(np.arange(observed.n)).numpy().reshape(observed.n, -1)
    differ = (x != held) & (held == held) & (x == x)
    if not differ.any():
        return
    names = [column.name for column in run.columns] or [str(i) for i in range(len(held))]
    n, where = int(differ.any(1).sum()), [names[i] for i in np.flatnonzero(differ.any(0))]
    say(
        f"note: {n:,} row{'s differ' if n > 1 else ' differs'} from the training data in column"
        f"{'s' * (len(where) > 1)} {', '.join(map(repr, where[:6]))}{' ...' * (len(where) > 6)}, of one value in them: "
        f"that costs {DIFFERS:,.0f} nats per value"
    )


def condition(run: Run, given: str | None) -> np.ndarray | None:
    """What `--label` says of new samples.

    Raises:
        ChoiceError: the run is not conditional, or there is no such class.
    """
    if given is None:
        return None
    if run.composition.condition is None:
        raise ChoiceError("--label is for a conditional run, and this one is not")
    return run.composition.condition.read(given)


def told(run: Run, z: np.ndarray) -> dict[str, list[str]]:
    """The classes that codes (N, D) of a conditional run of a table end in, as a column of text."""
    condition = run.composition.condition
    if condition is None or condition.kind != "label" or run.spec.kind not in ("vector", "counts"):
        return {}
    name = condition.column or run.config["data"]["options"].get("label", "label")
    return {name: condition.decoded(z[:, -condition.size :]).tolist()}


def _own(run: Run, split: str) -> Rows:
    part = getattr(run.data, split)
    return Rows(split, part.label, part.names, part.columns)


def _all(run: Run, source: str, table: str | None = None) -> Rows:
    """All rows of a name or a path, in their order there; one image file or one datum of an array is one row."""
    from vaekit.data.arrays import in_order
    from vaekit.data.core import listed
    from vaekit.data.loading import read_rows
    from vaekit.data.readers.folders import SUFFIXES
    from vaekit.data.readers.registry import reader_of
    from vaekit.data.readers.table import is_table
    from vaekit.data.writing import texts

    from .output import Doing

    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() in SUFFIXES and reader_of(path) is None:
        return Rows(_picture(run, path), None, [path.name])
    with Doing() as doing:
        found = read_rows(source, **_options(run, source, table), progress=doing)
    for note in found.notes:
        say(f"note: {note}")
    if is_table(path) and not run.columns and run.spec.kind in ("vector", "counts"):
        shown = listed(found.feature_names or [])
        say(f"note: this run knows no names of columns: {path.name} is read in its own order, {shown}")
    found = in_order(found, [column.name for column in run.columns], source)
    x, label = found.x, found.label
    if path.is_dir() and found.names is not None:
        if x.ndim == 3 and run.spec.shape[0] == 3:
            x = np.broadcast_to(x[..., None], (*x.shape, 3))  # only grey images, for a run of coloured ones
        label = label if label is not None else _folder_class(run, path, found.names)
    if is_table(path):
        beside, _ = texts(path, found.feature_names or (), **_dialect(run))
        return Rows(x, label, None, found.columns, beside)
    shape = x.shape[:1] if x.shape[1:] == (1,) else x.shape  # numbers without rows come as rows of one
    return Rows(x.reshape(1, *shape)) if _is_one(run, shape) else Rows(x, label, found.names, found.columns)


def _dialect(run: Run) -> dict[str, Any]:
    """How the run's table was read, where that was said or decided, and the names that tell a header."""
    stored = run.config["data"]["options"]
    kept = {name: stored[name] for name in ("delimiter", "header", "decimal") if name in stored}
    if isinstance(kept.get("header"), bool):  # as runs of before keep it
        kept["header"] = "yes" if kept["header"] else "no"
    columns = run.columns
    numbers = {column.name for column in columns if not column.categories}
    return kept | {"expected": [column.name for column in columns], "numeric": numbers.__contains__}


def _folder_class(run: Run, path: Path, names: list[str]) -> np.ndarray | None:
    """The class of images that all lie in the folder of one of the run's classes."""
    shared = [
        parts for parts in zip(*(Path(name).parent.parts for name in names), strict=False) if len(set(parts)) == 1
    ]
    known = [folder for folder in (path.resolve().name, *(parts[0] for parts in shared)) if folder in run.spec.classes]
    return np.full(len(names), known[-1]) if known else None


def _options(run: Run, source: str, table: str | None = None) -> dict[str, Any]:
    """Those of the run's options that say how to read other data."""
    from vaekit.data.named import SETS
    from vaekit.data.readers.registry import reader_of

    path, stored = Path(source).expanduser(), run.config["data"]["options"]
    reader = reader_of(path) if source not in SETS and path.exists() else None
    images = reader is not None and reader.name == "images" and run.spec.kind == "image"
    if table is not None and not images:
        raise ChoiceError(f"--table describes a folder of images, and {source} is none")
    ways = () if reader is None else (*reader.options, *(name for name in ("label", "group") if name in reader.hints))
    kept = {name: stored[name] for name in ways if name in stored}
    if images:
        own = stored.get("table", "") if run.composition.condition is not None else ""
        # the table that described the training images may describe these, or one of its name lie among them
        beside = table or (own if own and ((path / own).is_file() or Path(own).is_file()) else None)
        if not beside:
            kept.pop("label", None)
        return kept | {"size": "x".join(map(str, run.spec.shape[1:])), "table": beside}
    if reader is not None and reader.name == "table":
        kept |= {"types": None, "drop": None}  # they are in the columns of the run, where it knows these
        kept |= {"schema": run.columns} if run.columns else {"drop": _dropped(stored)}
    return kept | ({"missing": stored["missing"]} if "missing" in stored else {})


def _dropped(stored: dict[str, Any]) -> list[str]:
    """The columns that a run's table was read without."""
    from vaekit.data.readers.infer import chosen_types

    kinds = chosen_types(stored.get("types"))
    return [*stored.get("drop", ()), *(name for name, kind in kinds.items() if kind == "drop")]


def _is_one(run: Run, shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape is one datum of the run rather than rows of them."""
    return _fits(run, shape) and not _fits(run, shape[1:])


def _fits(run: Run, row: tuple[int, ...]) -> bool:
    from vaekit.data.core import layout

    if row in (run.spec.shape, (run.spec.dims,)):
        return True
    try:
        return layout(run.spec.kind, row).shape == run.spec.shape  # type: ignore[arg-type]
    except DataError:
        return False


def latent(
    run: Run, given: str, sample: bool = False, seed: int = 0, place: int = 0, label: str | None = None
) -> np.ndarray:
    """The latent (D,) of one datum: see `datum`.

    An index sees what `Run.encode("test")` sees of that row: of binarised data the split's one frozen draw, and with
    `sample` the same draw of z. `place` tells the draws for several files apart.

    Raises:
        DataError: no such index or file, or one that holds no datum of this run's shape.
    """
    found = datum(run, given)
    if isinstance(found, int):
        return run.encode("test", sample=sample, seed=seed, rows=np.array([found]))[0]
    return run.encode(found.x, sample=sample, seed=seed + place, labels=labels(run, found, label))[0]


def datum(run: Run, given: str) -> int | Rows:
    """One datum as the user names it: the number of a row of the test set, or one row read from a file.

    The file is an image, or a .npy, .npz, .csv or .parquet file: its first row, or that of a number (rows.npy:3).

    Raises:
        DataError: no such index or file, or one that holds no datum of this run's shape.
    """
    from vaekit.data.core import counted
    from vaekit.data.readers.registry import reader_of

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
    reader = reader_of(path)
    if reader is None:
        return Rows(_picture(run, path))
    if reader.name == "npy":
        return Rows(_row(run, path, index))
    found = _all(run, str(path))
    if not index < len(found.x):
        raise DataError(f"{path} has {counted(len(found.x), 'row')}, numbered from 0: there is no row {index}")
    one = slice(index, index + 1)
    label = None if found.label is None else found.label[one]
    return Rows(np.array(found.x[one]), label, None, {name: values[one] for name, values in found.columns.items()})


def filled_cells(
    run: Run, path: Path, filled: np.ndarray, hidden: np.ndarray, beyond_range: bool
) -> tuple[dict[str, list[str]], str]:
    """The cells of a file with those `hidden` (N, D) replaced by what was filled in, and the file's delimiter.

    All others are as the file has them.
    """
    from vaekit.data.writing import shown, texts

    cells, dialect = texts(path, **_dialect(run))
    for j, column in enumerate(run.columns):
        new = shown(column, column.fitted(filled[:, j], beyond_range), dialect.decimal)
        for i in np.flatnonzero(hidden[:, j] & ~np.isnan(filled[:, j])):
            cells[column.name][i] = new[i]
    return cells, dialect.delimiter


def mask(run: Run, given: str) -> str | np.ndarray:
    """A named mask as it is; a file as what it hides, bool (*event): bright pixels, or what is not 0 in a .npy file.

    Raises:
        ChoiceError: neither.
        DataError: a file that cannot be read, or of another shape.
    """
    from vaekit.latents.editing import MASKS

    path, shape = Path(given).expanduser(), run.spec.shape
    if given.lower() in MASKS and not path.exists():
        return given.lower()
    if not path.is_file():
        raise ChoiceError(f"--mask {given!r} is neither {' nor '.join(MASKS)} nor a file")
    if path.suffix.lower() == ".npy":
        from vaekit.data.readers import npz

        held = npz.array(path)
        try:
            return np.broadcast_to(held != 0, shape)
        except ValueError:
            raise DataError(f"{path} is of shape {held.shape}, and a datum of this run of {shape}") from None
    from vaekit.data.readers import images

    if run.spec.kind != "image":
        raise DataError(f"{path}: this run takes {run.spec.kind} data: give the mask as a .npy file")
    pixels, notes = images.one(path, (shape[1], shape[2]), "black", True)
    for note in notes:
        say(f"note: {path.name}: {note}")
    return np.broadcast_to(pixels.reshape(shape[1:]) > 127, shape)


def _row(run: Run, path: Path, index: int) -> np.ndarray:
    """One row of a .npy file, (1, *row), without reading the others."""
    from vaekit.data.core import cast, counted
    from vaekit.data.readers import npz

    held = npz.array(path)
    x = held[None] if _is_one(run, held.shape) or not held.ndim else held
    if not index < len(x):
        raise DataError(f"{path} has {counted(len(x), 'row')}, numbered from 0: there is no row {index}")

    return cast(np.array(x[index : index + 1]), double=True)


def _picture(run: Run, path: Path) -> np.ndarray:
    """An image file read as the run's folder of images was, in the units of the run's data."""
    from vaekit.data.readers import images

    spec = run.spec
    if spec.kind != "image":
        raise DataError(f"{path}: this run takes {spec.kind} data; give an index, or a .npy or .npz file")
    channels, *size = spec.shape
    if channels not in (1, 3):
        raise DataError(f"{path}: this run takes images of {channels} channels; give a .npy or .npz file")
    stored = run.config["data"]["options"]
    background, span = stored.get("background", "white"), stored.get("pixel_range")
    pixels, notes = images.one(path, (size[0], size[1]), background, channels == 1, span)
    for note in notes:
        say(f"note: {path.name}: {note}")
    x = pixels[None] if channels == 3 else pixels[None, ..., None]
    low, high = spec.scale
    if spec.integer and (low, high) == (0.0, 255.0):
        return np.moveaxis(x, -1, 1)
    scaled = low + x.astype(np.float32) / 255 * (high - low)
    return np.moveaxis(np.round(scaled).astype(np.uint8) if spec.integer else scaled, -1, 1)
