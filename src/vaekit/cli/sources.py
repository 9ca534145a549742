"""Raw data for a run from the command line: a split of its own data, other data, or one example."""

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
    """Rows to encode or score.

    Attributes:
        x: the name of a split of the run's data, or raw rows (N, *row).
        label: (N,) the names of the classes, or their codes for a split of the run's data; or None.
        names: the names of the files, or None.
        columns: further values of the rows by name, each (N,).
        texts: the cells of the table's columns that the run does not model, by column.
    """

    x: Any
    label: np.ndarray | None = None
    names: list[str] | None = None
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)

    def carried(self, *own: str) -> dict[str, list[str]]:
        """The texts by column; a column whose name is in `own` is renamed."""
        return {f"{name} (of the data)" if name in own else name: cells for name, cells in self.texts.items()}


def rows(run: Run, source: str | None, split: str | None, table: str | None = None) -> Rows:
    """A split of the run's own data (by default test), or all rows (or a split) of other data.

    Other data are read with the run's options. If they equal the run's own data, their splits are those of the run.
    `table` describes a folder of images.
    """
    if source is None:
        if table is not None:
            raise ChoiceError("--table describes a folder of new images: give the folder as DATA")
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
            f"the images in {source} have more than 8 bits and the range {own}, but this run was trained on images of "
            "8 bits or of the range 0..65535: omit --split to read them with the run's range"
        )
    part = getattr(data, split)
    label = part.label
    if label is not None and data.label_names is not None:
        label = named(label, data.label_names)
    return Rows(part[:], label, part.names, part.columns)


def labels(run: Run, given: Rows | int, option: str | None = None) -> np.ndarray | None:
    """The conditions of new rows for a conditional run: those in the data, or those given with `--label`.

    Arguments:
        option: value of `--label`: a class (or attributes a,b,c) for all rows, or the column with their classes.

    Raises:
        ChoiceError: the run is not conditional, or the rows have no such condition.
    """
    condition = run.composition.condition
    if option is not None and condition is None:
        raise ChoiceError("--label needs a conditional run, and this run is not conditional")
    if isinstance(given, int):
        if option is not None:
            raise ChoiceError(f"row {given} of the test set has its own condition: --label is for examples from files")
        return None
    if isinstance(given.x, str):
        if option is not None:
            raise ChoiceError("the run's own data have their own conditions: --label is for other data")
        return None
    if condition is None:
        return None
    n = len(given.x)
    if option is not None:
        column = given.columns.get(option) if condition.kind == "label" and option not in condition.names else None
        condition_values = condition.read(option) if column is None else column
    else:
        try:
            condition_values = condition.carried(given.label, given.columns)
        except ChoiceError as error:
            example = condition.names[0] if condition.kind == "label" else ",".join("0" for _ in condition.names)
            raise ChoiceError(f"{error}; or give one for all rows, such as --label {example}") from None
    return condition.decoded(condition.encoded(condition_values, n))


def note_differing(run: Run, source_rows: Rows) -> None:
    """Print a note with the number of rows that differ from the training data in constant columns.

    Each difference lowers log p(x) by `DIFFERS` nats.
    """
    from vaekit.densities.mixed import DIFFERS
    from vaekit.heads.mixed import Masked

    head = getattr(run.model.likelihood, "head", None)
    if not isinstance(head, Masked) or head.held is None:
        return
    constants = head.held.cpu().numpy().ravel()
    observed = run.observed(source_rows.x)
    x = observed(np.arange(observed.n)).numpy().reshape(observed.n, -1)
    differ = (x != constants) & (constants == constants) & (x == x)
    if not differ.any():
        return
    names = [column.name for column in run.columns] or [str(i) for i in range(len(constants))]
    n, differing = int(differ.any(1).sum()), [names[i] for i in np.flatnonzero(differ.any(0))]
    say(
        f"note: {n:,} row{'s differ' if n > 1 else ' differs'} from the training data in the constant column"
        f"{'s' * (len(differing) > 1)} {', '.join(map(repr, differing[:6]))}{' ...' * (len(differing) > 6)}: "
        f"each such value costs {DIFFERS:,.0f} nats"
    )


def condition(run: Run, given: str | None) -> np.ndarray | None:
    """The condition of new samples given with `--label`.

    Raises:
        ChoiceError: the run is not conditional, or the class is unknown.
    """
    if given is None:
        return None
    if run.composition.condition is None:
        raise ChoiceError("--label needs a conditional run, and this run is not conditional")
    return run.composition.condition.read(given)


def class_column(run: Run, z: np.ndarray) -> dict[str, list[str]]:
    """The classes at the end of codes (N, D), as a column of text.

    Empty unless the run is conditional on the classes of a table.
    """
    condition = run.composition.condition
    if condition is None or condition.kind != "label" or run.spec.kind not in ("vector", "counts"):
        return {}
    name = condition.column or run.config["data"]["options"].get("label", "label")
    return {name: condition.decoded(z[:, -condition.size :]).tolist()}


def _own(run: Run, split: str) -> Rows:
    part = getattr(run.data, split)
    return Rows(split, part.label, part.names, part.columns)


def _all(run: Run, source: str, table: str | None = None) -> Rows:
    """All rows of a named data set or a path, in their order; an image file or an array of one example is one row."""
    from vaekit.data.arrays import in_order
    from vaekit.data.core import listed
    from vaekit.data.loading import read_rows
    from vaekit.data.readers.folders import SUFFIXES
    from vaekit.data.readers.registry import reader_of
    from vaekit.data.readers.table import is_table
    from vaekit.data.writing import texts

    from .output import TaskProgress

    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() in SUFFIXES and reader_of(path) is None:
        return Rows(_picture(run, path), None, [path.name])
    with TaskProgress() as progress:
        read = read_rows(source, **_options(run, source, table), progress=progress)
    for note in read.notes:
        say(f"note: {note}")
    if is_table(path) and not run.columns and run.spec.kind in ("vector", "counts"):
        shown = listed(read.feature_names or [])
        say(f"note: this run has no column names: the columns of {path.name} are read in their order, {shown}")
    read = in_order(read, [column.name for column in run.columns], source)
    x, label = read.x, read.label
    if path.is_dir() and read.names is not None:
        if x.ndim == 3 and run.spec.shape[0] == 3:
            x = np.broadcast_to(x[..., None], (*x.shape, 3))  # grey images, for a run on colour images
        label = label if label is not None else _folder_class(run, path, read.names)
    if is_table(path):
        other_cells, _ = texts(path, read.feature_names or (), **_dialect(run))
        return Rows(x, label, None, read.columns, other_cells)
    shape = x.shape[:1] if x.shape[1:] == (1,) else x.shape  # a reader returns a vector as rows of one number
    return Rows(x.reshape(1, *shape)) if _is_one(run, shape) else Rows(x, label, read.names, read.columns)


def _dialect(run: Run) -> dict[str, Any]:
    """The options with which the run's table was read, and the names of its columns, to recognise a header."""
    stored = run.config["data"]["options"]
    kept = {name: stored[name] for name in ("delimiter", "header", "decimal") if name in stored}
    if isinstance(kept.get("header"), bool):  # as in runs of earlier versions
        kept["header"] = "yes" if kept["header"] else "no"
    columns = run.columns
    numbers = {column.name for column in columns if not column.categories}
    return kept | {"expected": [column.name for column in columns], "numeric": numbers.__contains__}


def _folder_class(run: Run, path: Path, names: list[str]) -> np.ndarray | None:
    """The class of images that all lie in a folder with the name of a class of the run, or None."""
    shared = [
        parts for parts in zip(*(Path(name).parent.parts for name in names), strict=False) if len(set(parts)) == 1
    ]
    known = [folder for folder in (path.resolve().name, *(parts[0] for parts in shared)) if folder in run.spec.classes]
    return np.full(len(names), known[-1]) if known else None


def _options(run: Run, source: str, table: str | None = None) -> dict[str, Any]:
    """The options of the run for reading other data."""
    from vaekit.data.named import SETS
    from vaekit.data.readers.registry import reader_of

    path, stored = Path(source).expanduser(), run.config["data"]["options"]
    reader = reader_of(path) if source not in SETS and path.exists() else None
    images = reader is not None and reader.name == "images" and run.spec.kind == "image"
    if table is not None and not images:
        raise ChoiceError(f"--table describes a folder of images, but {source} is not one")
    names = () if reader is None else (*reader.options, *(name for name in ("label", "group") if name in reader.hints))
    kept = {name: stored[name] for name in names if name in stored}
    if images:
        own = stored.get("table", "") if run.composition.condition is not None else ""
        # the training images' table may also describe these images, or their folder may have a table of that name
        described_by = table or (own if own and ((path / own).is_file() or Path(own).is_file()) else None)
        if not described_by:
            kept.pop("label", None)
        return kept | {"size": "x".join(map(str, run.spec.shape[1:])), "table": described_by}
    if reader is not None and reader.name == "table":
        kept |= {"types": None, "drop": None}  # the schema of the run, if it has one, includes them
        kept |= {"schema": run.columns} if run.columns else {"drop": _dropped(stored)}
    return kept | ({"missing": stored["missing"]} if "missing" in stored else {})


def _dropped(stored: dict[str, Any]) -> list[str]:
    """The columns of the run's table that are not modelled."""
    from vaekit.data.readers.infer import chosen_types

    kinds = chosen_types(stored.get("types"))
    return [*stored.get("drop", ()), *(name for name, kind in kinds.items() if kind == "drop")]


def _is_one(run: Run, shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape is one example of the run, rather than rows of examples."""
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
    run: Run, given: str, sample: bool = False, seed: int = 0, position: int = 0, label: str | None = None
) -> np.ndarray:
    """The code (D,) of one example: see `datum`.

    The code of a test row equals that row of `Run.encode("test")`: it uses the split's fixed binarisation, and with
    `sample` the same draw of z. `position` is added to the seed of a file, so that several files have different draws.

    Raises:
        DataError: the index or file does not exist, or the file has no example of this run's shape.
    """
    example = datum(run, given)
    if isinstance(example, int):
        return run.encode("test", sample=sample, seed=seed, rows=np.array([example]))[0]
    return run.encode(example.x, sample=sample, seed=seed + position, labels=labels(run, example, label))[0]


def datum(run: Run, given: str) -> int | Rows:
    """One example that the command line names: the index of a test row, or one row read from a file.

    The file is an image, or a .npy, .npz, .csv or .parquet file, of which the first row is read, or the numbered one
    (rows.npy:3).

    Raises:
        DataError: the index or file does not exist, or the file has no example of this run's shape.
    """
    from vaekit.data.core import counted
    from vaekit.data.readers.registry import reader_of

    path = Path(given).expanduser()
    if re.fullmatch(r"[+-]?\d+", given) and not path.exists():
        index, n = int(given), len(run.data.test)
        if not 0 <= index < n:
            raise DataError(f"the test set has no row {index}: indices are 0 to {n - 1}")
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
    table = _all(run, str(path))
    if not index < len(table.x):
        raise DataError(f"{path} has {counted(len(table.x), 'row')}, numbered from 0: there is no row {index}")
    one = slice(index, index + 1)
    label = None if table.label is None else table.label[one]
    return Rows(np.array(table.x[one]), label, None, {name: values[one] for name, values in table.columns.items()})


def filled_cells(
    run: Run, path: Path, filled: np.ndarray, hidden: np.ndarray, beyond_range: bool
) -> tuple[dict[str, list[str]], str]:
    """The cells of a file, of which those in `hidden` (N, D) have filled-in values, and the delimiter of the file."""
    from vaekit.data.writing import shown, texts

    cells, dialect = texts(path, **_dialect(run))
    for j, column in enumerate(run.columns):
        new = shown(column, column.fitted(filled[:, j], beyond_range), dialect.decimal)
        for i in np.flatnonzero(hidden[:, j] & ~np.isnan(filled[:, j])):
            cells[column.name][i] = new[i]
    return cells, dialect.delimiter


def mask(run: Run, given: str) -> str | np.ndarray:
    """The name of a mask, or the mask in a file, bool (*event): bright pixels, or elements of a .npy that are not 0.

    Raises:
        ChoiceError: `given` is neither the name of a mask nor a file.
        DataError: the file cannot be read, or has another shape.
    """
    from vaekit.latents.editing import MASKS

    path, shape = Path(given).expanduser(), run.spec.shape
    if given.lower() in MASKS and not path.exists():
        return given.lower()
    if not path.is_file():
        raise ChoiceError(f"--mask {given!r} is neither {' nor '.join(MASKS)} nor a file")
    if path.suffix.lower() == ".npy":
        from vaekit.data.readers import npz

        array = npz.array(path)
        try:
            return np.broadcast_to(array != 0, shape)
        except ValueError:
            raise DataError(
                f"{path} has the shape {array.shape}, but an example of this run has the shape {shape}"
            ) from None
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

    array = npz.array(path)
    x = array[None] if _is_one(run, array.shape) or not array.ndim else array
    if not index < len(x):
        raise DataError(f"{path} has {counted(len(x), 'row')}, numbered from 0: there is no row {index}")

    return cast(np.array(x[index : index + 1]), double=True)


def _picture(run: Run, path: Path) -> np.ndarray:
    """An image file, read like the run's folder of images, in the units of the run's data."""
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
