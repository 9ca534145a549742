"""New data for a trained model: read by the model's own columns and classes, with the columns that it does not use."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vaekit.data.arrays import in_order
from vaekit.data.beside import Columns
from vaekit.data.condition import Labels
from vaekit.data.core import Column, Data, Progress, Split, layout, listed
from vaekit.data.loading import read_rows
from vaekit.data.named import SETS
from vaekit.data.paths import exists, known_path
from vaekit.data.readers import frames, images, memory
from vaekit.data.readers.anndata import is_anndata
from vaekit.data.readers.cells import is_missing
from vaekit.data.readers.folders import SUFFIXES as PICTURES
from vaekit.data.readers.infer import chosen_types
from vaekit.data.readers.registry import reader_of
from vaekit.data.readers.table import frame as read_frame
from vaekit.data.readers.table import is_table, typed
from vaekit.data.results import Results, as_columns, write_results
from vaekit.data.source import Source
from vaekit.data.writing import texts
from vaekit.errors import ChoiceError, DataError
from vaekit.recipes.composition import Composition, DataSpec
from vaekit.utils.files import checked_path
from vaekit.utils.progress import say

SPLITS = ("train", "valid", "test")
UNNAMED = "array"
DataLike = Any
"""The name of a split, a path or the name of a data set, a frame, a sparse matrix, an array, or `NewData`."""


class Reader(Protocol):
    """What reading new data needs of a trained model."""

    @property
    def composition(self) -> Composition:
        """The model, whose condition the data have to hold."""

    @property
    def spec(self) -> DataSpec:
        """The description of the data that it accepts."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of x."""

    @property
    def read_options(self) -> dict[str, Any]:
        """The options that its own data were read with."""


@dataclass(frozen=True)
class NewData:
    """Rows for a trained model, in the order of their source, and the columns that the model does not use.

    `Run.read` makes them from a path, a frame or an array, and all methods that take data accept them:

        new = run.read("new.csv")
        log_px = run.score(new)
        new.write("scores.csv", {"log_px": log_px})  # or .parquet, .npz, .h5ad

    Commands get them from `cli.sources.new_data`, which also takes a split of the run's own data.

    Attributes:
        x: raw rows (N, *row), or the name of a split of the run's own data.
        n: number of rows.
        label: (n,) the classes by name, or by code for a split of the run's data; None if the data have none.
        labels: the conditions of the rows for a conditional run.
        columns: further values of the rows by name, parsed, each (n,).
        carried: columns to write beside results, in the order of the source (see `vaekit.data.beside`).
        name: the source, for protocols and messages.
        file: the .h5ad file that the rows came from.
        unseen: the texts that are not a category of their column, by row and column; they are nan in x.
    """

    x: Any
    n: int
    label: np.ndarray | None = None
    labels: Any = None
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    carried: Columns = field(default_factory=dict)
    name: str = UNNAMED
    file: Path | None = None
    unseen: dict[tuple[int, int], str] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.n

    def head(self, n: int) -> NewData:
        """The first n rows of new data."""
        if n >= self.n:
            return self
        first: dict[str, Any] = {name: column[:n] for name, column in self.columns.items()}
        label = None if self.label is None else self.label[:n]
        labels = self.labels[:n] if np.ndim(self.labels) and len(self.labels) == self.n else self.labels
        carried = {name: column[:n] for name, column in self.carried.items()}
        return replace(self, x=self.x[:n], n=n, label=label, labels=labels, columns=first, carried=carried)

    def table(self, results: Results) -> Columns:
        """Results of the first rows as columns by name: `index`, the carried columns, then the results."""
        return as_columns(results, _count(results), self.carried)

    def write(self, path: str | Path, results: Results) -> Path:
        """Write results of the first rows beside the carried columns, by suffix: see `data.results.write_results`.

        Arguments:
            results: by name: (n,) one number, text or bool per row, or (n, D); other arrays (n, ...) fit into .npz.

        Raises:
            DataError: results and format do not fit together, or a package is missing.
            RunError: the file cannot be written.
        """
        target = checked_path(path)
        write_results(target, results, _count(results), self.carried, self.file)
        return target


def _count(results: Results) -> int:
    return len(next(iter(results.values())))


def is_source(name: str) -> bool:
    """Whether data have this name or path."""
    return name in SETS or exists(name)


def of_split(data: Data, split: str) -> NewData:
    """The rows of a split of a model's own data, which keep its fixed binarisation."""
    part = getattr(data, split)
    names = replace(part, columns={})  # the run's own columns are with its data
    return NewData(split, len(part), part.label, None, part.columns, carried_of(names, None, data.kind), data.name)


def read_new(
    model: Reader,
    source: Any,
    *,
    table: str | None = None,
    unseen: bool = False,
    progress: Progress | None = None,
) -> NewData:
    """All rows of a source in their order, read with the options, columns and classes of the model's own data.

    Notes on reading go to standard error.

    Arguments:
        source: a named data set, a path (a single image is one row), a frame, an array, or rows already read.
        table: a table that describes a folder of images.
        unseen: whether to accept texts that are not a category of their column, as `NewData.unseen`.
        progress: called as (task, done, total).

    Raises:
        DataError: the source cannot be read, or does not fit the model.
    """
    if isinstance(source, NewData):
        return source
    if isinstance(source, str | os.PathLike):
        return _of_path(model, os.fspath(source), table, unseen, progress)
    if table is not None:
        raise ChoiceError("`table` describes a folder of images, but the data are in memory")
    if frames.is_frame(source):
        return _of_frame(model, source, unseen)
    if is_anndata(source):
        return _of_cells(model, source)
    read = memory.source(source, name="the rows")
    carried: Columns = {} if read.label is None else {"label": read.label}
    shape = read.x.shape
    n = 1 if math.prod(shape) == model.spec.dims or not shape else shape[0]
    return NewData(read.x, n, read.label, carried=carried)


def conditions(model: Reader, new: NewData, *, labels: Labels | None = None) -> Any:
    """The conditions of rows for a conditional model, as `Observed` takes them; None for other models and splits.

    Arguments:
        labels: as for `Run.encode`, or the name of the column that has them; by default those in the data.

    Raises:
        ChoiceError: the rows have no such condition; the model is not conditional, but `labels` are given.
    """
    condition = model.composition.condition
    if condition is None or isinstance(new.x, str):
        return labels
    if isinstance(labels, str) and condition.kind == "label" and labels not in condition.names:
        labels = new.columns.get(labels, labels)
    if labels is None:
        if new.labels is not None:
            return new.labels
        if new.name == UNNAMED and new.label is None:  # an array, which may be used without its condition
            return None
        labels = condition.carried(new.label, new.columns)
    return labels if new.name == UNNAMED else condition.decoded(condition.encoded(labels, new.n))


def _of_frame(model: Reader, frame: Any, unseen: bool) -> NewData:
    options, columns = model.read_options, model.columns
    not_x: dict[str, Any] = {name: options.get(name) for name in ("label", "group")}
    read = read_frame(frame, schema=columns, missing=model.spec.missing or unseen, to_train=False, **not_x)
    for note in read.notes:
        say(f"note: the frame: {note}")
    modelled = {column.name for column in columns} or {*(read.feature_names or ())}
    carried = frames.index_of(frame)
    carried |= {name: column for name, column in frames.columns_of(frame) if name not in modelled}
    coded = {column.name for column in columns if column.categories}
    cells = {name: frames.cells_of(column) for name, column in frames.columns_of(frame) if unseen and name in coded}
    return NewData(
        read.x, len(read.x), read.label, None, read.columns, carried, "the frame", unseen=_unseen(model, read.x, cells)
    )


def _of_cells(model: Reader, cells: Any) -> NewData:
    """The cells of an AnnData object."""
    stored = {name: model.read_options[name] for name in ("layer", "label") if name in model.read_options}
    read = read_rows(cells, **stored)
    for note in read.notes:
        say(f"note: the AnnData: {note}")
    read = _matched(model, read, "the AnnData")
    carried = carried_of(read, read.label, model.spec.kind)
    return NewData(read.x, len(read.x), read.label, None, read.columns, carried, "the AnnData")


def _matched(model: Reader, read: Source, where: str) -> Source:
    """The source with the columns of the model; absent ones of counts are missing values if it knows them, else 0."""
    absent = None if model.spec.kind != "counts" else np.nan if model.spec.missing else 0.0
    matched = in_order(read, [column.name for column in model.columns], where, absent)
    for note in matched.notes[len(read.notes) :]:
        say(f"note: {note}")
    return matched


def _unseen(model: Reader, x: np.ndarray, cells: Mapping[str, Sequence[str]]) -> dict[tuple[int, int], str]:
    """The texts in cells of these columns that are neither missing nor a category, by row and column."""
    places = {column.name: j for j, column in enumerate(model.columns)}
    return {
        (row, places[name]): texts[row]
        for name, texts in cells.items()
        for row in np.flatnonzero(np.isnan(x[:, places[name]])).tolist()
        if not is_missing(texts[row])
    }


def _of_path(model: Reader, source: str, table: str | None, unseen: bool, progress: Progress | None) -> NewData:
    path, spec = known_path(source), model.spec
    if path.is_file() and path.suffix.lower() in PICTURES and reader_of(path) is None:
        return NewData(picture(model, path), 1, carried={"file": [path.name]}, name=source)
    options = options_of(model, source, table=table)
    unseen = unseen and is_table(path) and any(column.categories for column in model.columns)
    read = read_rows(source, **(options | {"missing": "mask"} if unseen else options), progress=progress)
    for note in read.notes:
        say(f"note: {note}")
    if is_table(path) and not model.columns and spec.kind in ("vector", "counts"):
        shown = listed(read.feature_names or [])
        say(f"note: this run has no column names: the columns of {path.name} are read in their order, {shown}")
    read = _matched(model, read, source)
    x, label = read.x, read.label
    if read.kind == "image" and read.names is not None:
        if x.ndim == 3 and spec.shape[0] == 3:
            x = np.broadcast_to(x[..., None], (*x.shape, 3))  # grey images, for a run on colour images
        label = label if label is not None else _folder_class(model, path, read.names)
    if is_table(path):
        carried = _beside(model, path, read.feature_names or ())
        coded = {column.name for column in model.columns if column.categories and unseen}
        numbers = [name for name in read.feature_names or () if name not in coded]
        cells = texts(path, [*numbers, *carried], **dialect_of(model))[0] if coded else {}
        return NewData(x, len(x), label, None, read.columns, carried, source, unseen=_unseen(model, x, cells))
    shape = x.shape[:1] if x.shape[1:] == (1,) else x.shape  # a reader returns a vector as rows of one number
    if is_one(model, shape):
        return NewData(x.reshape(1, *shape), 1, name=source)
    file = path if path.suffix.lower() == ".h5ad" else None
    return NewData(x, len(x), label, None, read.columns, carried_of(read, label, spec.kind), source, file)


def _beside(model: Reader, path: Path, modelled: Sequence[str]) -> Columns:
    """The columns of a table in a file that are not modelled, with their own types if the file has types."""
    given = dialect_of(model)
    frame = typed(path, given.get("sheet"), given.get("header"), given["expected"])
    if isinstance(frame, frames.Sheet):
        return frames.texts(frame, str(path), modelled)
    if frame is not None:
        return {name: cells for name, cells in frames.columns_of(frame) if name not in modelled}
    return dict(texts(path, modelled, **dialect_of(model))[0])


def carried_of(rows: Source | Split, label: np.ndarray | None, kind: str) -> Columns:
    """The names of rows (`file` of images, `cell` of others), their label and all further values."""
    names: Columns = {} if rows.names is None else {"file" if kind == "image" else "cell": list(rows.names)}
    return names | ({} if label is None or "label" in rows.columns else {"label": label}) | rows.columns


def dialect_of(model: Reader) -> dict[str, Any]:
    """The options with which the run's table was read, and the names of its columns, to recognise a header."""
    stored = model.read_options
    kept = {name: stored[name] for name in ("delimiter", "header", "decimal", "sheet") if name in stored}
    if isinstance(kept.get("header"), bool):  # as in runs of earlier versions
        kept["header"] = "yes" if kept["header"] else "no"
    columns = model.columns
    numbers = {column.name for column in columns if not column.categories}
    return kept | {"expected": [column.name for column in columns], "numeric": numbers.__contains__}


def _folder_class(model: Reader, path: Path, names: list[str]) -> np.ndarray | None:
    """The class of images that all lie in a folder with the name of a class of the run, or None."""
    shared = [
        parts for parts in zip(*(Path(name).parent.parts for name in names), strict=False) if len(set(parts)) == 1
    ]
    folders = (path.resolve().name, *(parts[0] for parts in shared))
    known = [folder for folder in folders if folder in model.spec.classes]
    return np.full(len(names), known[-1]) if known else None


def options_of(model: Reader, source: str, *, table: str | None = None) -> dict[str, Any]:
    """The options of the run for reading other data."""
    path, stored = Path(source).expanduser(), model.read_options
    reader = reader_of(path) if source not in SETS and exists(source) else None
    of_images = reader is not None and "size" in reader.options and model.spec.kind == "image"
    if table is not None and not of_images:
        raise ChoiceError(f"`table` describes a folder of images, but {source} is not one")
    names = () if reader is None else (*reader.options, *(name for name in ("label", "group") if name in reader.hints))
    kept = {name: stored[name] for name in names if name in stored}
    if of_images:
        own = stored.get("table", "") if model.composition.condition is not None else ""
        # the training images' table may also describe these images, or their folder may have a table of that name
        described_by = table or (own if own and ((path / own).is_file() or Path(own).is_file()) else None)
        if not described_by and reader is not None and "table" in reader.options:
            kept.pop("label", None)
        return kept | {"size": "x".join(map(str, model.spec.shape[1:])), "table": described_by}
    if reader is not None and reader.name == "table":
        kept |= {"types": None, "drop": None}  # the schema of the run, if it has one, includes them
        kept |= {"schema": model.columns} if model.columns else {"drop": _dropped(stored)}
    return kept | ({"missing": stored["missing"]} if "missing" in stored else {})


def _dropped(stored: dict[str, Any]) -> list[str]:
    """The columns of the run's table that are not modelled."""
    kinds = chosen_types(stored.get("types"))
    return [*stored.get("drop", ()), *(name for name, kind in kinds.items() if kind == "drop")]


def is_one(model: Reader, shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape is one example of the run, rather than rows of examples."""
    return _fits(model, shape) and not _fits(model, shape[1:])


def _fits(model: Reader, row: tuple[int, ...]) -> bool:
    if row in (model.spec.shape, (model.spec.dims,)):
        return True
    try:
        return layout(model.spec.kind, row).shape == model.spec.shape  # type: ignore[arg-type]
    except DataError:
        return False


def picture(model: Reader, path: Path) -> np.ndarray:
    """An image file, read like the run's folder of images, in the units of the run's data."""
    spec = model.spec
    if spec.kind != "image":
        raise DataError(f"{path}: this run takes {spec.kind} data; give an index, or a .npy or .npz file")
    channels, *size = spec.shape
    if channels not in (1, 3):
        raise DataError(f"{path}: this run takes images of {channels} channels; give a .npy or .npz file")
    stored = model.read_options
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
