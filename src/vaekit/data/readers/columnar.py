"""Files of columns with types (Parquet, Arrow, Feather): their columns, whole or in batches."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.data import cache as caches
from vaekit.data.core import Array
from vaekit.errors import DataError

from . import frames
from .cells import Table

PARQUET, ARROW = (".parquet", ".pq"), (".arrow", ".feather", ".ipc")
BATCH = 2**16
"""Rows of Parquet that are read at a time."""
PICTURES = ("image", "images", "img", "picture", "photo", "png", "jpg", "jpeg", "webp")
"""Names of columns of bytes that are image files."""
FEW = 3
"""A file with more columns of plain fractions is a table, even if it has a column of lists."""


def is_parquet(path: Path) -> bool:
    """Whether a file is in Parquet format, by its first bytes or its suffix."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1" or path.suffix.lower() in PARQUET


def is_columnar(path: Path) -> bool:
    """Whether a file is in Parquet, Arrow or Feather format."""
    return path.is_file() and (path.suffix.lower() in ARROW or is_parquet(path))


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Raise DataError for a missing pyarrow, and for any exception of pyarrow about a damaged file."""
    form = "Arrow" if path.suffix.lower() in ARROW else "Parquet"
    try:
        import pyarrow as pa
    except ImportError as error:
        raise DataError(
            f"reading {path} needs pyarrow: pip install 'vaekit[parquet]', or save the table as CSV"
        ) from error
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} cannot be read as {form}: the name of a column is not UTF-8; rename it, or save the table as CSV"
        ) from error
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise DataError(f"{path} cannot be read as {form} ({error}): damaged, or another format") from error


@dataclass(frozen=True)
class Columnar:
    """The rows of one or several files of the same columns.

    Attributes:
        paths: the files, in the order of their rows.
    """

    paths: tuple[Path, ...]

    @cached_property
    def schema(self) -> Any:
        """The names and types of the columns, a pyarrow schema."""
        with damage(self.paths[0]):
            first = self._open(self.paths[0])
            found = first.schema_arrow if _is_parquet_file(first) else first.schema
            _ = found.names
            return found

    @cached_property
    def counts(self) -> list[int]:
        """The number of rows of each file."""
        return [self._count(path) for path in self.paths]

    def __len__(self) -> int:
        return sum(self.counts)

    @property
    def features(self) -> dict[str, Any]:
        """The types of the columns as Hugging Face datasets describe them, by name; empty if they do not."""
        try:
            stored = json.loads((self.schema.metadata or {}).get(b"huggingface", b"{}"))
            found = stored["info"]["features"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {}
        return {k: v for k, v in found.items() if isinstance(v, dict)} if isinstance(found, dict) else {}

    def _open(self, path: Path) -> Any:
        """An open file: a ParquetFile, or a reader of record batches."""
        import pyarrow as pa
        import pyarrow.feather as feather
        import pyarrow.parquet as pq

        if not path.is_file():
            raise DataError(f"{path}: no such file")
        if is_parquet(path):
            return pq.ParquetFile(path, page_checksum_verification=True)  # of pages that have one
        with path.open("rb") as file:
            start = file.read(6)
        if start == b"ARROW1":
            return pa.ipc.open_file(pa.memory_map(str(path)))
        if start[:4] == b"FEA1":
            return feather.read_table(path)
        return pa.ipc.open_stream(pa.memory_map(str(path)))

    def _count(self, path: Path) -> int:
        with damage(path):
            opened = self._open(path)
            if _is_parquet_file(opened):
                return int(opened.metadata.num_rows)
            return sum(batch.num_rows for batch in _batches(opened, None))

    def may_lack(self, leaf: str) -> bool:
        """Whether values of a nested column such as "image.bytes" may be missing, by the statistics of Parquet."""
        return any(self._may_lack(path, leaf) for path in self.paths)

    def _may_lack(self, path: Path, leaf: str) -> bool:
        with damage(path):
            opened = self._open(path)
            if not _is_parquet_file(opened):
                return True
            groups = (opened.metadata.row_group(i) for i in range(opened.metadata.num_row_groups))
            chunks = (group.column(j) for group in groups for j in range(group.num_columns))
            stats = [chunk.statistics for chunk in chunks if chunk.path_in_schema == leaf]
            return any(one is None or not one.has_null_count or one.null_count > 0 for one in stats)

    def batches(self, columns: Sequence[str] | None = None, rows: int = BATCH) -> Iterator[Any]:
        """The rows in record batches of pyarrow, with only these columns; each is checked."""
        for path in self.paths:
            with damage(path):
                for batch in _batches(self._open(path), columns, rows):
                    batch.validate(full=True)
                    yield batch

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """The rows as a table of pyarrow, in memory."""
        import pyarrow as pa

        with damage(self.paths[0]):
            if len(self.paths) == 1 and _is_parquet_file(opened := self._open(self.paths[0])):
                whole = opened.read(None if columns is None else list(columns))
            else:
                schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
                whole = pa.Table.from_batches(list(self.batches(columns)), schema)
            _ = whole.column_names
            return whole


def _is_parquet_file(opened: Any) -> bool:
    import pyarrow.parquet as pq

    return isinstance(opened, pq.ParquetFile)


def _batches(opened: Any, columns: Sequence[str] | None, rows: int = BATCH) -> Iterator[Any]:
    """The record batches of an open file, with only these columns."""
    import pyarrow as pa

    if _is_parquet_file(opened):
        yield from opened.iter_batches(batch_size=rows, columns=None if columns is None else list(columns))
        return
    if isinstance(opened, pa.Table):
        found = iter(opened.to_batches(max_chunksize=rows))
    elif isinstance(opened, pa.ipc.RecordBatchFileReader):
        found = (opened.get_batch(i) for i in range(opened.num_record_batches))
    else:
        found = iter(opened)
    for batch in found:
        yield batch if columns is None else batch.select(list(columns))


def is_number(kind: Any) -> bool:
    """Whether cells of a type of pyarrow are integers or floats."""
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def table_of(path: Path, drop: Collection[str] = (), texts: Collection[str] = (), cache: Any = None) -> Table:
    """The columns of a table in a file; those of a large one are read one at a time, and its numbers are mapped.

    Args:
        path: the file.
        drop, texts: columns to leave out, and columns to read as text.
        cache: folder for the temporary file, if not the default.

    Raises:
        DataError: pyarrow is missing; the file is damaged; or as for `frames.read`.
    """
    source, where = Columnar((path,)), str(path)
    names = list(source.schema.names)
    apart = {*drop, *texts}
    if 8 * len(source) * len(names) < caches.LARGE or len({name.strip() for name in names}) < len(names):
        return frames.read(source.table(), where, texts=texts, drop=drop)
    numeric = [name for name in names if is_number(source.schema.field(name).type) and name.strip() not in apart]
    rest = [name for name in names if name not in numeric]
    stored = [frames.Stored(str(source.schema.field(name).type), partial(_cells, source, name, where)) for name in rest]
    read = frames.read(frames.Sheet(rest, stored), where, texts=texts, drop=drop)
    mapped, missing = _numbers(source, numeric, cache)
    columns = {name.strip(): mapped.get(name.strip(), read.columns.get(name.strip())) for name in names}
    unnamed = tuple(name for name in columns if frames.INDEX.fullmatch(name) or not name)
    return replace(
        read,
        columns={name: values for name, values in columns.items() if values is not None},
        names=tuple(name.strip() for name in names),
        unnamed=unnamed,
        words=read.words | ({""} if missing else set()),
    )


def _cells(source: Columnar, name: str, where: str) -> tuple[list[Any], Array | None]:
    """The cells of a column, or the distinct ones and their numbers by row; see `frames.Stored`."""
    import pyarrow as pa

    kind, title = source.schema.field(name).type, f"{where}: column {name!r}"
    if not _repeats(kind):
        return frames.as_list(source.table([name]).column(0), title), None
    known: dict[Any, int] = {}
    rows = np.empty(len(source), np.int32)
    for start, cells in _parts(source, name):
        encoded = cells if pa.types.is_dictionary(kind) else cells.dictionary_encode()
        index = encoded.indices.cast(pa.int64())
        found = [*frames.as_list(encoded.dictionary, title), *[None] * bool(index.null_count)]
        numbers = np.array([known.setdefault(value, len(known)) for value in found], np.int32)
        rows[start : start + len(cells)] = numbers[index.fill_null(len(found) - 1).to_numpy(zero_copy_only=False)]
    return list(known), rows


def _parts(source: Columnar, name: str) -> Iterator[tuple[int, Any]]:
    """The number of the first row and the cells of each batch of a column.

    Raises:
        DataError: the file declares another number of rows.
    """
    at, n = 0, len(source)
    for batch in source.batches([name]):
        if (end := at + batch.num_rows) <= n:
            yield at, batch.column(0)
        at = end
    if at != n:
        raise DataError(f"{source.paths[0]} declares {n:,} rows, but column {name!r} has {at:,}: it is damaged")


def _repeats(kind: Any) -> bool:
    """Whether cells of a type are texts or times, of which equal ones are written alike."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_temporal(kind))


def _numbers(source: Columnar, names: Sequence[str], cache: Any) -> tuple[dict[str, Array], bool]:
    """These columns of numbers as int64 or float64, mapped from a temporary file; and whether a value is missing."""
    n, folder = len(source), caches.folder(cache)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the maps keep it, and it has no name
        file.truncate(8 * n * len(names))
    except OSError as error:
        raise caches.unwritable(folder, error) from error
    columns: dict[str, Array] = {}
    missing = False
    for j, name in enumerate(names):
        floating = not str(source.schema.field(name).type).startswith(("int", "uint"))
        values = np.memmap(file, np.float64 if floating else np.int64, "r+", 8 * n * j, (n,))
        for at, cells in _parts(source, name):
            part = cells.to_numpy(zero_copy_only=False)
            missing = missing or bool(cells.null_count)
            beyond = part.dtype == np.uint64 and bool((part > np.iinfo(np.int64).max).any())
            if values.dtype == np.int64 and (part.dtype.kind == "f" or beyond):
                values = _as_floats(values, at)
            values[at : at + len(part)] = part
        columns[name.strip()] = values
    return columns, missing


def _as_floats(values: Any, known: int) -> Any:
    """A mapped column of int64 as float64 in the same place; the first `known` values are converted."""
    floats = values.view(np.float64)
    for start in range(0, known, BATCH):
        end = min(start + BATCH, known)
        floats[start:end] = values[start:end].astype(np.float64)
    return floats


def is_array(kind: Any) -> bool:
    """Whether cells of a type of pyarrow are arrays: lists of numbers, lists of such lists, or tensors of one shape."""
    import pyarrow as pa

    if isinstance(kind, pa.FixedShapeTensorType):
        order = kind.permutation
        return is_number(kind.value_type) and (order is None or list(order) == sorted(order))
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    nested = _is_list(kind)
    while _is_list(kind):
        kind = kind.value_type
    return nested and is_number(kind)


def is_picture(name: str, kind: Any) -> bool:
    """Whether the cells of a column are image files: structs of bytes and path, or bytes in a column of such a name."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        paths = set(fields) == {"bytes", "path"} and pa.types.is_null(fields["bytes"])  # all cells lack their bytes
        return paths or ("bytes" in fields and _is_bytes(fields["bytes"]) and set(fields) <= {"bytes", "path"})
    return _is_bytes(kind) and name.lower() in PICTURES


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def has_arrays(path: Path) -> bool:
    """Whether a file has a column of arrays or images, and few columns of plain fractions; False if it is damaged."""
    import pyarrow as pa

    schema = Columnar((path,)).schema
    found = any(is_array(field.type) or is_picture(field.name, field.type) for field in schema)
    return found and sum(pa.types.is_floating(field.type) for field in schema) <= FEW


def holds_arrays(path: Path) -> bool:
    """Whether a path is a file in one of these formats for which `has_arrays` is true."""
    if path.suffix.lower() not in (*PARQUET, *ARROW) or not path.is_file():
        return False
    try:
        return has_arrays(path)
    except (DataError, ImportError):  # reported by the reader of tables
        return False


def numbers_in(cells: Any, where: str) -> Array:
    """The cells of a column of arrays as one array (n, ...); all lists of one level must have the same length.

    Raises:
        DataError: a cell or number is missing, or lengths differ.
    """
    import pyarrow as pa

    n = len(cells)
    sides = list(cells.type.shape) if isinstance(cells.type, pa.FixedShapeTensorType) else []
    tensor = bool(sides)
    cells = cells.storage if isinstance(cells, pa.ExtensionArray) else cells
    while _is_list(cells.type):
        if cells.null_count:
            raise DataError(f"{where} has cells without values: drop these rows, or fill them")
        fixed = pa.types.is_fixed_size_list(cells.type)
        lengths = [cells.type.list_size] if fixed else np.unique(cells.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            raise DataError(
                f"{where} has lists of {lengths[0]:,} to {lengths[-1]:,} values, expected one length: pad or cut them"
            )
        sides += [] if tensor else [int(side) for side in lengths[:1]]
        cells = cells.flatten()
    if cells.null_count:
        raise DataError(f"{where} has missing numbers: drop these rows, or fill them")
    values: Array = cells.to_numpy(zero_copy_only=False)
    return values.reshape(n, *sides) if n else np.empty((0, *sides), values.dtype)


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
