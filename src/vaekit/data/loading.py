"""`load` and `from_arrays`: whatever the data are, one way in."""

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
from .arrays import Missing, Source, aligned, build, several_labels, tidy
from .condition import named as class_names
from .core import Array, Column, Data, Kind, Progress, row_dtype
from .paths import check_exists, known_path, name_of
from .readers import folders, frames, images, npz, shapes  # noqa: F401 - images registers its reader
from .readers.memory import column_of
from .readers.memory import source as read_memory
from .readers.registry import READERS, Reader, formats, is_default, reader_of, readers
from .readers.table import frame as read_frame
from .splits import FRACTION

LabelName = Annotated[str | None, Knob("column to take labels from")]
KindName = Annotated[Kind | str | None, Knob("what an example is, instead of what is inferred")]
ShapeText = Annotated[
    str | Sequence[int] | None, Knob("shape of flat rows of pixels: 28x28; with channels 28x28x3 or 3x28x28")
]
GroupName = Annotated[str | None, Knob("column whose rows of one value stay in one split")]
MissingRule = Annotated[Missing | str, Knob("nan and empty cells: refuse them, or mask them as missing values")]
ValidFraction = Annotated[float, Knob("fraction of the data for validation")]
TestFraction = Annotated[float, Knob("fraction of the data for testing")]
SplitSeed = Annotated[int, Knob("seed of the random split")]


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
    splits: Mapping[str, ArrayLike] | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Data:
    """Loads data by name (see `datasets`) or from a path; raw values are neither copied nor changed.

    Args:
        source: a name, or the path of an IDX, .npy or .npz file, of a table (.csv, .tsv, .txt, .data, plain or
            compressed, or .parquet), of a folder of IDX files, of a folder of images, or of a format that a plug-in
            reads; or a frame of pandas or polars, or a table of pyarrow. A name wins over a folder of that name: write
            ./mnist for the folder.
        label: column to take labels from.
        kind: "image", "signal", "vector" or "counts", to overrule the guess.
        shape: "28x28" or (28, 28): the shape of flat rows, channels last "28x28x3" or first "3x28x28", of an array or a
            table of pixels; new rows for a run may then be flat or shaped.
        group: column whose rows of one value stay in one split.
        schema: the columns of a table as another has them (its `Data.schema`, a run's `spec.columns`): only these are
            read, and coded by their own categories.
        missing: "mask" takes nan (an empty cell) for a value that is missing; "refuse" is an error.
        valid, test: fractions; at least one datum each. Data with splits of their own keep them.
        split_seed: of the random split.
        splits: the exact rows of train, valid and test.
        cache: folder for downloads and packed images; else `VAEKIT_CACHE`, else the platform's.
        progress: called as (what, done, total) through long work.
        options: of the format, listed below.

    Raises:
        DataError: the data cannot be found, read or used; the message says what to do.
        ChoiceError: no format has an option of this name.
    """
    origin = _Origin.of(source)
    general: dict[str, Any] = {"label": label, "kind": kind, "shape": shape, "group": group, "missing": missing}
    general |= {"valid": valid, "test": test, "split_seed": split_seed}
    found = origin.read(
        options,
        **general | {"kind": kind or (None if shape is None else "image"), "missing": missing == "mask"},
        schema=schema,
        cache=cache,
        progress=progress,
    )
    if shape is not None:
        found = shapes.shaped(found, shape, origin.asked)
    elif kind is None:
        found = replace(found, notes=(*found.notes, *shapes.hint(found)))
    general["shape"] = None if shape is None else shapes.text(shape)
    general["splits"] = None if splits is None else {part: np.asarray(rows).tolist() for part, rows in splits.items()}
    return build(
        found,
        name=origin.name,
        asked=origin.kept,
        kind=kind,
        label=label,
        group=group,
        valid=valid,
        test=test,
        split_seed=split_seed,
        rows=splits,
        missing=missing,
        options=_chosen(options | general),
    )


def load_rows(source: Any, **given: Any) -> tuple[Array, list[str] | None, Array | None]:
    """All rows of a source in its own order, for use with a trained model: without splits, and any number of them.

    Args:
        source, given: as for `read_rows`.

    Returns:
        (N, *row) raw rows in their `row_dtype`, mapped where they are large; the names of files or None; the (N,)
        labels or None: the names of the classes where the source names them, else as they are written there. Notes on
        how they were read are in what `read_rows` gives.

    Raises:
        DataError: the data cannot be found or read.
    """
    found = read_rows(source, **given)
    return found.x, found.names, found.label


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
    """What `load_rows` gives, as `x`, `names` and `label`, with all else that is known of the rows.

    Args:
        source, cache, progress: as for `load`.
        label: column to take labels from, where the data have it.
        group: column of a table that is no datum, where the data have it.
        schema: as for `load`: a table is then read by the columns and categories that a run knows. Without it, columns
            of more than two texts are refused.
        missing: with "mask", a text that is no category of its column is a missing value.
        options: of the format, as for `load`; a column to drop need not be there.

    `notes` is what the reader should tell the user: images resized, values clipped, arrays and columns not used.

    Raises:
        DataError: the data cannot be found or read.
        ChoiceError: no format has an option of this name.
    """
    origin = _Origin.of(source)
    context = {"label": label, "group": group, "schema": schema, "cache": cache, "progress": progress}
    found = origin.read(options, **context, missing=missing == "mask", to_train=False)
    x = tidy(found.x, origin.asked)
    if x.dtype.kind == "b":
        x = x.view(np.uint8)
    elif x.dtype != row_dtype(x.dtype, double=True):
        x = caches.joined([x], cache, progress)
    found, codes, columns = _with_labels(found, len(x), origin.asked)
    if label in columns:
        codes = columns[label]
    elif label not in (None, "label"):
        codes = None
    return replace(
        found,
        x=x,
        label=None if codes is None else aligned(codes, len(x), f"{origin.asked}: label"),
        columns={key: aligned(values, len(x), f"{origin.asked}: column {key!r}") for key, values in columns.items()},
    )


def _with_labels(found: Source, n: int, asked: str) -> tuple[Source, Any, dict[str, Array]]:
    """The labels of a source by the names of their classes, with one-hot ones among its columns as well."""
    columns = dict(found.columns)
    codes, names = found.label, found.label_names
    if codes is not None and np.ndim(codes) == 2:
        given = np.asarray(codes)
        codes, names, several, notes = several_labels(given, n, names, f"{asked}: label")
        found = replace(found, notes=(*found.notes, *notes))
        if codes is not None and given.shape[1] > 1:  # one-hot in these rows, perhaps not in others
            titles = names if names and len(names) == given.shape[1] else [f"label_{i}" for i in range(given.shape[1])]
            several = {title: given[:, i] for i, title in enumerate(titles)}
        columns |= several
    if codes is not None and names is not None and codes.dtype.kind in "iu":
        codes = class_names(codes, names)
    return found, codes, columns


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
    splits: Mapping[str, ArrayLike] | None = None,
    name: str = "arrays",
    columns: Mapping[str, ArrayLike] | None = None,
    factor_names: Sequence[str] = (),
    label_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    **options: Any,
) -> Data:
    """Data from NumPy arrays, torch tensors, a torch Dataset or a frame, under the same rules and checks as files.

    Args:
        x: (N, ...) array or tensor; or a map-style Dataset whose items are x, (x, label) or a dict with x or
            image, and y or label; or a frame of pandas or polars, which is read as the same CSV would be.
        label: (N,) classes, numbers or text; not where `x` is a Dataset with labels. Of a frame also the name of a
            column.
        kind, shape, group, missing, split_seed, splits: as for `load`.
        schema: what each column of `x` (N, D) is, where they are not all numbers of one kind; x then holds the codes.
        valid, test: fractions, or data of their own: as `x`, or a pair (x, label).
        name: what to call the data.
        columns: what else is known of each of the N rows.
        factor_names: the columns that are generative factors.
        label_names, feature_names: names of the classes and of the columns of `x`.
        options: of a frame, listed below.

    Raises:
        DataError: as `load`.
        ChoiceError: no format has an option of this name.
    """
    taken = {} if shape is None else {"shape": shapes.text(shape)}
    if frames.is_frame(label):  # of one column, or one-hot
        label_names = frames.names_of(label) if label_names is None and len(frames.names_of(label)) > 1 else label_names
        label = frames.only_column(label)
    masked, framed = missing == "mask", frames.is_frame(x)
    READERS["frame" if framed else "arrays"].check(options, {}, "" if framed else name)
    if framed:
        taken |= {option: column for option, column in (("label", label), ("group", group)) if isinstance(column, str)}
        found = _of_frame(x, label, name, group=group, kind=kind, missing=masked, schema=schema, **options)
    else:
        found = Source(x, label=label, schema=tuple(schema))
    fractions: dict[str, Any] = {
        part: own for part, own in (("valid", valid), ("test", test)) if isinstance(own, int | float)
    }
    own = {part: given for part, given in (("valid", valid), ("test", test)) if part not in fractions}
    found = _joined(found, {part: given for part, given in own.items() if given is not None}, name, framed, masked)
    beside = {**found.columns, **{key: column_of(c, f"{name}: column {key!r}") for key, c in (columns or {}).items()}}
    names = found.feature_names if feature_names is None else list(feature_names)
    if found.schema:
        names = [column.name for column in found.schema]
        if found.x.shape[1:] != (len(names),):
            raise DataError(f"{name}: schema has {len(names)} columns, x has rows of shape {found.x.shape[1:]}")
    if lacking := [factor for factor in factor_names if factor not in beside]:
        raise DataError(f"factor_names: {lacking[0]!r} is no column; columns has {', '.join(beside) or 'none'}")
    found = replace(
        found,
        label_names=None if label_names is None else [str(name) for name in label_names],
        columns=beside,
        feature_names=names,
        factor_names=list(factor_names),
        kind=None if not found.schema else "counts" if all(c.kind == "counts" for c in found.schema) else "vector",
        options={},
    )
    if shape is not None:
        found = shapes.shaped(found, shape, name)
    return build(
        found,
        name=name,
        asked="",  # a name of the user's own is nowhere to load from
        kind=kind,
        group=group,
        **fractions,
        split_seed=split_seed,
        rows=splits,
        missing=missing,
        options=taken,
    )


def _of_frame(frame: Any, label: Any, name: str, **options: Any) -> Source:
    """A frame as the same CSV would be read, with the labels of one of its columns or those given."""
    column: Any = label if label is None or isinstance(label, str) else False
    found = read_frame(frame, name=name, label=column, **options)
    return found if column is not False else replace(found, label=label)


def _joined(first: Source, own: Mapping[str, Any], name: str, framed: bool, masked: bool) -> Source:
    """The data for training and those `own` to a split, as one array with the rows of each.

    Raises:
        DataError: they do not fit together.
    """
    parts = {"train": read_memory(first.x, label=first.label, name=name)}
    beside = [first.columns] if framed else []
    for part, given in own.items():
        x, codes = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        if framed and frames.is_frame(x):
            other = _of_frame(x, codes, f"{name}, {part}", schema=first.schema, missing=masked)
            x, codes = other.x, other.label
            beside.append(other.columns)
        parts[part] = read_memory(x, label=codes, name=f"{name}, {part}")
    have = {part: one.label is not None for part, one in parts.items()}
    if len(set(have.values())) > 1:
        raise DataError(f"{name}: expected labels for all of {', '.join(have)} or for none, got them for some only")
    shared = [key for key in beside[0] if all(key in one for one in beside)] if len(beside) == len(parts) else []
    joined, rows = npz.concatenated({part: one.x for part, one in parts.items()}, name)
    for part, one in parts.items():
        if one.label is not None and np.shape(one.label)[:1] != one.x.shape[:1]:
            raise DataError(
                f"{name}, {part}: label must have one value for each of {len(one.x)} rows, got {np.shape(one.label)}"
            )
    codes = np.concatenate([one.label for one in parts.values() if one.label is not None]) if have["train"] else None
    columns = {key: np.concatenate([one[key] for one in beside]) for key in shared}
    return replace(first, x=joined, label=codes, columns=columns, splits=rows or None)


@dataclass(frozen=True)
class _Origin:
    """Where data come from.

    Attributes:
        source: what their reader gets.
        reader: of their format.
        name: what the data are called.
        asked: what the user called the source, for messages.
        kept: what a run finds them by from any folder; empty for data in memory.
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
            DataError: neither, or of no format that is known.
        """
        if frames.is_frame(source):
            return cls(source, READERS["frame"], "frame", "the frame", "")
        path, asked = known_path(source), str(source)
        if asked in named.SETS:
            return cls(asked, READERS["named"], asked, asked, asked)
        check_exists(asked)
        if (reader := reader_of(path)) is None:
            raise _unread(path)
        return cls(path, reader, name_of(path), asked, str(path.absolute()))

    def read(self, options: Mapping[str, Any], **context: Any) -> Source:
        return self.reader(self.source, options, "" if self.reader.name == "frame" else self.asked, **context)


def _unread(path: Path) -> DataError:
    """The error for a file of no format that is known."""
    suffix = path.suffix.lower()
    if suffix in folders.SUFFIXES:
        return DataError(f"{path} is a single image: give the folder of images")
    if suffix in (".xlsx", ".xls", ".ods"):
        return DataError(f"{path} is a spreadsheet: save the sheet as CSV (UTF-8)")
    return DataError(
        f"{path}: cannot tell the format from its name, expected {formats()} or a folder; convert or rename it"
    )


def _chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not at their defaults: what it takes to load the same data again."""
    defaults = {name: argument.default for mine in data_options().values() for name, argument in mine.items()}
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in given.items()
        if not is_default(value, defaults.get(name))
    }


def data_options() -> dict[str, dict[str, Argument]]:
    """The options of reading data by what they belong to: "" for all data, else what a reader reads.

    An option of several formats is listed with the first.
    """
    found = {"": {name: argument for name, (argument, _) in knobs(load).items()}}
    listed: set[str] = set()
    for reader in sorted(readers(), key=lambda one: one.package is not None):
        if mine := {name: argument for name, argument in reader.options.items() if name not in listed}:
            found[reader.what] = mine
            listed |= set(mine)
    return found


def option_types() -> dict[str, Any]:
    """The type of each option of reading data, by name."""
    own = {name: reader.hints[name] for reader in readers() for name in reader.options}
    return {parameter.name: hint for parameter, hint, beside in annotated(load) if beside} | own


def _document(function: Callable[..., Any], formats: Sequence[Reader]) -> None:
    """Show the options of these formats in the signature and the docstring of a function."""
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
    function.__doc__ = f"{doc}\n\nOptions by format:\n" + "\n".join(lines)
    function.__signature__ = inspect.Signature([*parameters.values()], return_annotation=Data)  # type: ignore[attr-defined]


_document(load, [*READERS.values()])
_document(from_arrays, [READERS["frame"]])
