"""Loading data: `load` from names and paths, `from_arrays` from memory, `read_rows` for use with a trained model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike

from vaekit.errors import DataError
from vaekit.utils.arguments import Argument, Knob, annotated, knobs

from . import cache as caches
from . import named
from .arrays import Missing, aligned, build, several_labels, tidy
from .condition import named as class_names
from .core import Array, Column, Data, Kind, Progress, row_dtype
from .paths import REMOTE, check_exists, known_path, name_of
from .readers import archives, frames, hdf5_arrays, medical, npz, recordings, shapes, stores, tenx, vectors  # noqa: F401 - imported to register readers
from .readers.anndata import is_anndata
from .readers.foreign import unread
from .readers.memory import column_of
from .readers.memory import source as read_memory
from .readers.registry import CONTEXT, READERS, Reader, is_default, reader_of, readers
from .readers.table import frame as read_frame
from .source import Source
from .splits import FRACTION

LabelName = Annotated[str | None, Knob("column with the labels")]
KindName = Annotated[Kind | str | None, Knob("kind of the examples; by default inferred")]
ShapeText = Annotated[
    str | Sequence[int] | None, Knob("shape of flat rows of pixels: 28x28; with channels 28x28x3 or 3x28x28")
]
GroupName = Annotated[str | None, Knob("column with groups; rows of the same group stay in one split")]
MissingRule = Annotated[Missing | str, Knob("refuse nan and empty cells, or mask them as missing values")]
ValidFraction = Annotated[float, Knob("fraction of the data for validation")]
TestFraction = Annotated[float, Knob("fraction of the data for testing")]
SplitSeed = Annotated[int, Knob("seed of the random split")]
Genes = Annotated[
    int | None, Knob("number of columns of counts to keep: those that differ most between training rows", low=1)
]
MinCells = Annotated[
    int | None, Knob("keep columns of counts that are above 0 in at least so many training rows", low=1)
]


def load(
    source: Any,
    *,
    label: LabelName = None,
    kind: KindName = None,
    shape: ShapeText = None,
    group: GroupName = None,
    schema: Sequence[Column] = (),
    missing: MissingRule = "refuse",
    valid: ValidFraction = FRACTION,
    test: TestFraction = FRACTION,
    split_seed: SplitSeed = 0,
    genes: Genes = None,
    min_cells: MinCells = None,
    splits: Mapping[str, ArrayLike] | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Data:
    """Load data by name (see `datasets`) or from a path; raw values are neither copied nor changed.

    Args:
        source: a name, or the path of an IDX, .npy or .npz file, of a table (.csv, .tsv, .txt, .data, plain or
            compressed, or .parquet), of an .h5ad file, of a 10x matrix (.h5 or folder), of a folder of IDX files, of a
            folder of images, or of a format that a plug-in reads; or a frame of pandas or polars, a table of pyarrow,
            or an AnnData. A name takes precedence over a folder: write ./mnist for the folder.
        label: column with the labels.
        kind: "image", "signal", "vector" or "counts", to override the inferred kind.
        shape: "28x28" or (28, 28): the shape of flat rows in an array or a table of pixels, with channels last
            "28x28x3" or first "3x28x28". New rows for a run may then be flat or shaped.
        group: column whose rows of equal value stay in one split.
        schema: columns of another table (its `Data.schema`, or a run's `spec.columns`): only these columns are read,
            and their categories keep their codes.
        missing: "mask" treats nan (an empty cell) as a missing value; "refuse" raises an error.
        valid, test: fractions of the rows; at least one row each. Data with their own splits keep them.
        split_seed: seed of the random split.
        genes: number of columns of counts to keep, those of highest deviance from a constant share of the row's total
            (Townes et al. 2019), measured on the training rows.
        min_cells: keep only columns of counts that are above 0 in at least so many training rows.
        splits: the exact rows of train, valid and test.
        cache: folder for downloads and packed images; by default `VAEKIT_CACHE` if set, else the platform's.
        progress: called as (task, done, total) during long tasks.
        options: options of the format, listed below.

    Raises:
        DataError: the data cannot be found, read or used; the message names a remedy.
        ChoiceError: no format has an option with this name.
    """
    origin = _Origin.of(source)
    general: dict[str, Any] = {"label": label, "kind": kind, "shape": shape, "group": group, "missing": missing}
    chosen: dict[str, Any] = {"valid": valid, "test": test, "split_seed": split_seed}
    chosen |= {"genes": genes, "min_cells": min_cells}
    general |= chosen
    loaded = origin.read(
        options,
        **general | {"kind": kind or (None if shape is None else "image"), "missing": missing == "mask"},
        schema=schema,
        cache=cache,
        progress=progress,
    )
    if shape is not None:
        loaded = shapes.shaped(loaded, shape, origin.asked)
    elif kind is None:
        loaded = replace(loaded, notes=(*loaded.notes, *shapes.hint(loaded)))
    general["shape"] = None if shape is None else shapes.text(shape)
    general["splits"] = None if splits is None else {part: np.asarray(rows).tolist() for part, rows in splits.items()}
    return build(
        loaded,
        name=origin.name,
        asked=origin.kept,
        kind=kind,
        label=label,
        group=group,
        **chosen,
        rows=splits,
        missing=missing,
        options=_chosen(options | general),
        reader=origin.reader.name,
    )


def data_of(source: Any) -> Data:
    """`Data` as they are; a name or a path as `load` reads it, anything else as `from_arrays` does."""
    if isinstance(source, Data):
        return source
    return load(source) if isinstance(source, str | Path) else from_arrays(source)


def load_rows(source: Any, **given: Any) -> tuple[Array, list[str] | None, Array | None]:
    """All rows of a source in their order, without splits, for use with a trained model; one row suffices.

    Args:
        source, given: as for `read_rows`.

    Returns:
        (N, *row) raw rows in their `row_dtype`, memory-mapped if they are large; names of the files, or None; (N,)
        labels or None: the names of the classes if the source defines them, else the values in the source.
        `read_rows` also returns notes about the reading.

    Raises:
        DataError: the data cannot be found or read.
    """
    loaded = read_rows(source, **given)
    return loaded.x, loaded.names, loaded.label


def read_rows(
    source: Any,
    *,
    label: str | None = None,
    group: str | None = None,
    schema: Sequence[Column] = (),
    missing: str = "refuse",
    cache: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Source:
    """All rows of a source as `load_rows` returns them, in `x`, `names` and `label`, with further values and notes.

    Args:
        source, cache, progress: as for `load`.
        label: column with the labels, if the data have it.
        group: column of a table that is not part of x, if the data have it.
        schema: as for `load`: the columns and categories of a run. Without it, columns with more than two distinct
            texts raise an error.
        missing: with "mask", a text that is not a category of its column is a missing value.
        options: of the format, as for `load`; a column to drop may be missing.

    Returns:
        A `Source`; its `notes` are messages to the user: images resized, values clipped, arrays and columns unused.

    Raises:
        DataError: the data cannot be found or read.
        ChoiceError: no format has an option with this name.
    """
    origin = _Origin.of(source)
    context = {"label": label, "group": group, "schema": schema, "cache": cache, "progress": progress}
    loaded = origin.read(options, **context, missing=missing == "mask", to_train=False)
    x = tidy(loaded.x, origin.asked)
    if x.dtype.kind == "b":
        x = x.view(np.uint8)
    elif x.dtype != row_dtype(x.dtype, double=True):
        x = caches.joined([x], cache, progress)
    loaded, codes, columns = _with_labels(loaded, len(x), origin.asked)
    if label in columns:
        codes = columns[label]
    elif label not in (None, "label"):
        codes = None
    return replace(
        loaded,
        x=x,
        label=None if codes is None else aligned(codes, len(x), f"{origin.asked}: label"),
        columns={key: aligned(values, len(x), f"{origin.asked}: column {key!r}") for key, values in columns.items()},
    )


def _with_labels(loaded: Source, n: int, asked: str) -> tuple[Source, Any, dict[str, Array]]:
    """The labels of a source by the names of their classes; one-hot labels are also among the columns."""
    columns = dict(loaded.columns)
    codes, names = loaded.label, loaded.label_names
    if codes is not None and np.ndim(codes) == 2:
        wide = np.asarray(codes)
        codes, names, label_columns, notes = several_labels(wide, n, names, f"{asked}: label")
        loaded = replace(loaded, notes=(*loaded.notes, *notes))
        if codes is not None and wide.shape[1] > 1:  # one-hot in these rows, but perhaps not in others
            titles = names if names and len(names) == wide.shape[1] else [f"label_{i}" for i in range(wide.shape[1])]
            label_columns = {title: wide[:, i] for i, title in enumerate(titles)}
        columns |= label_columns
    if codes is not None and names is not None and codes.dtype.kind in "iu":
        codes = class_names(codes, names)
    return loaded, codes, columns


def from_arrays(
    x: Any,
    *,
    label: Any = None,
    kind: KindName = None,
    shape: ShapeText = None,
    group: GroupName = None,
    schema: Sequence[Column] = (),
    missing: MissingRule = "refuse",
    valid: Any = FRACTION,
    test: Any = FRACTION,
    split_seed: SplitSeed = 0,
    genes: Genes = None,
    min_cells: MinCells = None,
    splits: Mapping[str, ArrayLike] | None = None,
    name: str = "arrays",
    columns: Mapping[str, ArrayLike] | None = None,
    factor_names: Sequence[str] = (),
    label_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    **options: Any,
) -> Data:
    """Data from NumPy arrays, torch tensors, a torch Dataset or a frame, with the same rules and checks as for files.

    Args:
        x: (N, ...) array or tensor; or a map-style Dataset whose items are x, (x, label) or a dict with x or
            image, and y or label; or a frame of pandas or polars, which is read like the same CSV; or an AnnData.
        label: (N,) classes as numbers or text; omit it if `x` is a Dataset with labels. For a frame or an AnnData,
            also the name of a column.
        kind, shape, group, missing, split_seed, genes, min_cells, splits: as for `load`.
        schema: the columns of `x` (N, D), if they are of several kinds; x then holds their numbers and codes.
        valid, test: fractions, or separate data: like `x`, or a pair (x, label).
        name: name of the data.
        columns: further values of the rows, each (N,).
        factor_names: the columns that are generative factors.
        label_names, feature_names: names of the classes and of the columns of `x`.
        options: options of frames, listed below.

    Raises:
        DataError: the data cannot be used; the message names a remedy.
        ChoiceError: no format has an option with this name.
    """
    recorded: dict[str, Any] = {} if shape is None else {"shape": shapes.text(shape)}
    if frames.is_frame(label):  # with one column, or one-hot
        label_names = frames.names_of(label) if label_names is None and len(frames.names_of(label)) > 1 else label_names
        label = frames.only_column(label)
    recorded |= {option: value for option, value in (("genes", genes), ("min_cells", min_cells)) if value}
    masked, is_table = missing == "mask", frames.is_frame(x) or is_anndata(x)
    if is_table:
        by_name = {"label": label, "group": group}
        recorded |= {option: column for option, column in by_name.items() if isinstance(column, str)}
        recorded |= _chosen(options) if is_anndata(x) else {}
        loaded = _of_table(x, label, name, group=group, kind=kind, missing=masked, schema=schema, **options)
    else:
        READERS["arrays"].check(options, {}, name)
        loaded = Source(x, label=label, schema=tuple(schema))
    parts = {"valid": valid, "test": test}
    fractions: dict[str, Any] = {part: value for part, value in parts.items() if isinstance(value, int | float)}
    separate = {part: value for part, value in parts.items() if part not in fractions and value is not None}
    loaded = _joined(loaded, separate, name, is_table, masked)
    further = {key: column_of(values, f"{name}: column {key!r}") for key, values in (columns or {}).items()}
    loaded = replace(loaded, columns={**loaded.columns, **further})
    loaded = _with_names(loaded, name, label_names, feature_names, factor_names)
    if shape is not None:
        loaded = shapes.shaped(loaded, shape, name)
    return build(
        loaded,
        name=name,
        asked="",  # these data cannot be loaded again
        kind=kind,
        group=group,
        **fractions,
        split_seed=split_seed,
        rows=splits,
        missing=missing,
        genes=genes,
        min_cells=min_cells,
        options=recorded,
    )


def _with_names(
    loaded: Source,
    name: str,
    labels: Sequence[str] | None,
    features: Sequence[str] | None,
    factors: Sequence[str],
) -> Source:
    """The source with the names of its classes, columns and factors, and the kind that its schema implies.

    Raises:
        DataError: the schema has another number of columns than x, or a factor is not a column.
    """
    names = loaded.feature_names if features is None else list(features)
    if loaded.schema:
        names = [column.name for column in loaded.schema]
        if loaded.x.shape[1:] != (len(names),):
            raise DataError(f"{name}: schema has {len(names)} columns, but x has rows of shape {loaded.x.shape[1:]}")
    if lacking := [factor for factor in factors if factor not in loaded.columns]:
        there = ", ".join(loaded.columns) or "none"
        raise DataError(f"factor_names: {lacking[0]!r} is not a column; `columns` has {there}")
    "counts" if all(column.kind == "counts" for column in loaded.schema) else "vector"
    return replace(
        loaded,
        label_names=None if labels is None else [str(label) for label in labels],
        feature_names=names,
        factor_names=list(factors),
        kind=loaded.kind
        if not loaded.schema
        else "counts"
        if all(c.kind == "counts" for c in loaded.schema)
        else "vector",
        options={},
    )


def _of_table(x: Any, label: Any, name: str, **options: Any) -> Source:
    """A frame, read like the same CSV, or an AnnData; `label` is the name of a column, or the labels themselves."""
    column: Any = label if label is None or isinstance(label, str) else False
    if is_anndata(x):
        own = {option: value for option, value in options.items() if option not in CONTEXT}
        loaded = READERS["anndata"](x, own, label=column or None)
    else:
        READERS["frame"].check({option: value for option, value in options.items() if option not in CONTEXT}, {})
        loaded = read_frame(x, name=name, label=column, **options)
    return loaded if column is not False else replace(loaded, label=label)


def _joined(first: Source, own: Mapping[str, Any], name: str, framed: bool, masked: bool) -> Source:
    """The training data and the separate data of other splits in one array, with the rows of each split.

    Raises:
        DataError: the data of the splits do not fit together.
    """
    parts = {"train": read_memory(first.x, label=first.label, name=name)}
    frame_columns = [first.columns] if framed else []
    for part, value in own.items():
        x, codes = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
        if is_anndata(x):
            raise DataError(f"{name}, {part}: give one AnnData with all cells, and the rows of each split as `splits`")
        if framed and frames.is_frame(x):
            other = _of_table(x, codes, f"{name}, {part}", schema=first.schema, missing=masked)
            x, codes = other.x, other.label
            frame_columns.append(other.columns)
        parts[part] = read_memory(x, label=codes, name=f"{name}, {part}")
    labelled = {part: one.label is not None for part, one in parts.items()}
    if len(set(labelled.values())) > 1:
        raise DataError(f"{name}: expected labels for all of {', '.join(labelled)} or for none, got them for some only")
    every = len(frame_columns) == len(parts)
    shared = [key for key in frame_columns[0] if all(key in one for one in frame_columns)] if every else []
    joined, rows = stores.concatenated({part: one.x for part, one in parts.items()}, name)
    for part, one in parts.items():
        if one.label is not None and np.shape(one.label)[:1] != one.x.shape[:1]:
            raise DataError(
                f"{name}, {part}: label must have one value for each of {len(one.x)} rows, got {np.shape(one.label)}"
            )
    labels = [one.label for one in parts.values() if one.label is not None]
    codes = np.concatenate(labels) if labels else None
    columns = {key: np.concatenate([one[key] for one in frame_columns]) for key in shared}
    notes = dict.fromkeys(note for one in (first, *parts.values()) for note in one.notes)
    return replace(first, x=joined, label=codes, columns=columns, splits=rows or None, notes=tuple(notes))


@dataclass(frozen=True)
class _Origin:
    """The source of data and its reader.

    Attributes:
        source: argument of the reader.
        reader: the reader of the format.
        name: name of the data.
        asked: the source as the user wrote it, for messages.
        kept: the source as a run records it, valid in any working directory; empty for data in memory.
    """

    source: Any
    reader: Reader
    name: str
    asked: str
    kept: str

    @classmethod
    def of(cls, source: Any) -> _Origin:
        """The origin of a frame, a name or a path.

        Raises:
            DataError: there are no such data, or their format is unknown.
        """
        if frames.is_frame(source):
            return cls(source, READERS["frame"], "frame", "the frame", "")
        if is_anndata(source):
            return cls(source, READERS["anndata"], "cells", "the AnnData", "")
        path, asked = known_path(source), str(source)
        if asked in named.SETS:
            return cls(asked, READERS["named"], asked, asked, asked)
        check_exists(asked)
        if (reader := reader_of(path)) is None:
            raise unread(path)
        kept = asked if asked.startswith(REMOTE) else str(path.absolute())
        return cls(path, reader, name_of(path), asked, kept)

    def read(self, options: Mapping[str, Any], **context: Any) -> Source:
        """The data, read with these options; see `Reader.__call__`."""
        in_memory = self.reader.name in ("frame", "anndata")
        return self.reader(self.source, options, "" if in_memory else self.asked, **context)


def _chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that differ from their defaults; they suffice to load the same data again."""
    defaults = {argument.name: argument.default for group, _ in data_options().values() for argument in group}
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in given.items()
        if not is_default(value, defaults.get(name))
    }


def data_options() -> dict[str, tuple[list[Argument], str | None]]:
    """The options of reading data, grouped by the data that they apply to: "" for all data, else `Reader.what`.

    Each group comes with the package whose plug-in defines the reader, or None. An option of several formats is listed
    with the first of them.
    """
    general = [argument for argument, _ in knobs(load).values()]
    options: dict[str, tuple[list[Argument], str | None]] = {"": (general, None)}
    listed = {argument.name for argument in general}
    for reader in sorted(readers(), key=lambda one: one.package is not None):
        if own := [argument for name, argument in reader.options.items() if name not in listed]:
            options[reader.what] = own, reader.package
            listed |= {argument.name for argument in own}
    return options


def option_types() -> dict[str, Any]:
    """The type of each option of reading data, by name."""
    own = {name: reader.hints[name] for reader in readers() for name in reader.options}
    return {parameter.name: hint for parameter, hint, beside in annotated(load) if beside} | own


def _document(function: Callable[..., Any], formats: Sequence[Reader]) -> None:
    """Add the options of these formats to the signature and the docstring of a function."""
    doc = inspect.getdoc(function) or ""
    own = [
        parameter.replace(annotation=hint) if beside else parameter for parameter, hint, beside in annotated(function)
    ]
    parameters = {parameter.name: parameter for parameter in own if parameter.kind is not parameter.VAR_KEYWORD}
    lines = []
    for reader in formats:
        if reader.options:
            lines += ["", f"* {reader.what}", ""]
            lines += [f"  * `{name}`: {argument.help}." for name, argument in reader.options.items()]
        for name, argument in reader.options.items():
            option = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=argument.default)
            parameters.setdefault(name, option.replace(annotation=reader.hints[name]))
    if "progress" in parameters:  # the last argument everywhere
        parameters["progress"] = parameters.pop("progress")
    function.__doc__ = f"{doc}\n\nOptions by format:\n" + "\n".join(lines)
    function.__signature__ = inspect.Signature([*parameters.values()], return_annotation=Data)  # type: ignore[attr-defined]


_document(load, [*READERS.entries.values()])
_document(from_arrays, [READERS.entries["frame"]])
