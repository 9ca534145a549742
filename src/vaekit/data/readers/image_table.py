"""A table that describes the images of a folder, by a column with their names."""

from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from vaekit.data.arrays import Source
from vaekit.data.core import counted
from vaekit.errors import DataError

from . import folders
from . import table as tables


def described(source: Source, where: Path, label: str | None = None) -> Source:
    """The images of `source` with the columns of the table in a file, whose column `file` holds their names.

    Names are relative to the folder, or to the folder in which all images lie. A column `label` (or the one asked
    for) takes the place of the class folders; what is missing there is an unknown label.

    Raises:
        DataError: no column `file`, a name twice, or images without a row.
    """
    assert source.names is not None
    read = tables.read(where, texts=["file"])
    table = read.columns
    if "file" not in table:
        raise DataError(f"{where} needs a column 'file' with each image's name; it has {', '.join(table)}")
    files = [str(PurePosixPath(str(name))) for name in table["file"]]
    row = {name: i for i, name in enumerate(files)}
    if len(row) < len(files):
        twice = next(name for name, count in Counter(files).items() if count > 1)
        raise DataError(f"{where} has several rows for the image {twice!r}: expected one row for each image")
    shared = folders.shared_folders([PurePosixPath(name).parent.parts for name in source.names])
    short = [str(PurePosixPath(*PurePosixPath(name).parts[shared:])) for name in source.names]
    found = [row.get(name, row.get(below)) for name, below in zip(source.names, short, strict=True)]
    missing = [name for name, i in zip(source.names, found, strict=True) if i is None]
    if missing:
        raise DataError(
            f"{where} has no row for {len(missing)} of {len(found)} images, the first being {missing[0]!r}: its column "
            "'file' must hold names relative to the folder of images"
        )
    order = np.array(found, dtype=np.int64)
    prose = [name for name, values in table.items() if values.dtype.kind == "O"]
    columns = {name: values[order] for name, values in table.items() if name not in ("file", *prose)}
    codes, names = source.label, source.label_names
    notes = (*source.notes, *(f"{where.name}: {note}" for note in read.notes))
    target = "label" if label is None else label
    if target in columns and columns[target].dtype.kind != "i":  # whole numbers are all there
        columns[target], unknown = tables.classes(columns[target])
        if unknown:
            notes += (f"{unknown:,} of {counted(len(order), 'label')} in column {target!r} are missing",)
    if label is None and "label" in columns:
        codes, names = columns.pop("label"), None
    unused = len(files) - len(found)
    if unused:
        notes += (f"not used, since they belong to no image: {counted(unused, 'row')} of {where.name}",)
    if prose:
        notes += (f"columns of long texts in {where.name} were not used: {', '.join(prose)}",)
    return replace(source, label=codes, label_names=names, columns=columns, notes=notes)
