"""A table that describes the images of a folder; its column `file` holds their names."""

from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from vaekit.data.core import counted
from vaekit.data.source import Source
from vaekit.errors import DataError

from . import folders
from . import table as tables


def described(source: Source, where: Path, label: str | None = None) -> Source:
    """The images of `source` with the columns of a table, whose column `file` holds the names of the images.

    Names are relative to the folder, or to the innermost folder with all images. A column `label` (or the one given)
    replaces the class folders; its missing values are unknown labels.

    Args:
        source: the images, with their names.
        where: path of the table.
        label: column with the labels.

    Raises:
        DataError: there is no column `file`, a name occurs twice, or an image has no row.
    """
    assert source.names is not None
    read = tables.read(where, texts=["file"])
    table = read.columns
    if "file" not in table:
        raise DataError(f"{where} needs a column 'file' with each image's name; it has {', '.join(table)}")
    files = [str(PurePosixPath(str(name).replace("\\", "/"))) for name in table["file"]]  # some are from Windows
    row = {name: i for i, name in enumerate(files)}
    if len(row) < len(files):
        twice = next(name for name, count in Counter(files).items() if count > 1)
        raise DataError(f"{where} has several rows for the image {twice!r}: expected one row for each image")
    shared = folders.shared_folders([PurePosixPath(name).parent.parts for name in source.names])
    short = [str(PurePosixPath(*PurePosixPath(name).parts[shared:])) for name in source.names]
    rows = [row.get(name, row.get(below)) for name, below in zip(source.names, short, strict=True)]
    missing = [name for name, i in zip(source.names, rows, strict=True) if i is None]
    if missing:
        raise DataError(
            f"{where} has no row for {len(missing)} of {len(rows)} images, the first is {missing[0]!r}: its column "
            "'file' must hold names relative to the folder of images"
        )
    order = np.array(rows, dtype=np.int64)
    prose = [name for name, values in table.items() if values.dtype.kind == "O"]
    columns = {name: values[order] for name, values in table.items() if name not in ("file", *prose)}
    codes, names = source.label, source.label_names
    notes = (*source.notes, *(f"{where.name}: {note}" for note in read.notes))
    target = "label" if label is None else label
    if target in columns and columns[target].dtype.kind != "i":  # a column of integers has no missing values
        columns[target], unknown = tables.classes(columns[target])
        if unknown:
            notes += (f"{unknown:,} of {counted(len(order), 'label')} in column {target!r} are missing",)
    if label is None and "label" in columns:
        codes, names = columns.pop("label"), None
    unused = len(files) - len(rows)
    if unused:
        notes += (f"{counted(unused, 'row')} of {where.name} without an image: not used",)
    if prose:
        notes += (f"columns of long texts in {where.name}: not used: {', '.join(prose)}",)
    return replace(source, label=codes, label_names=names, columns=columns, notes=notes)
