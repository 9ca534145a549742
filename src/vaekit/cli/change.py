"""The commands that change an example through its code: edit, fill."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .output import at_least, check_file, check_picture, write
from .parameters import Bare, Flag, OwnData, RunFolder
from .use import GRID, ROWS, _open

if TYPE_CHECKING:
    import numpy as np

    from vaekit.run import Run

BLOCK = 2000
"""Number of table rows to fill in at once."""


def edit(
    run: RunFolder,
    image: str,
    /,
    *,
    attribute: str,
    strength: float = 1.0,
    against: str | None = None,
    label: str | None = None,
    unbalanced: Flag = False,
    steps: int = 9,
    data: OwnData = None,
    bare: Bare = False,
    out: str = "edit.png",
) -> None:
    """Edit one example along an attribute direction.

    The picture shows the example, then its decoded code, moved along the direction from -strength to strength.

    Parameters
    ----------
    image
        An index of the test set, an image file, or a .npy, .npz, .csv or .parquet file (its first row; rows.npy:3 for
        another).
    attribute
        A two-valued column or a class of the run's data.
    strength
        Distance of both ends of the strip from the example's code. 1 is the distance between the mean codes of the data
        with and without the attribute.
    against
        Attribute or class from which the direction starts. By default, the example's own class if --attribute is
        another class and the example is in the test set.
    label
        For a conditional run, the class (or the attributes a,b,c) of an example from a file.
        If class names are numbers, a number is a name; otherwise it is a class code 0, 1, ...
    unbalanced
        Do not correct the direction for other attributes that correlate with this one in the data.
    steps
        Number of points of the strip.
    out
        .png (a row) or .npz (x, z, strengths, direction).
    """
    from vaekit.latents.editing import code_of, direction, edited, own_class

    from .pictures import of_edit
    from .sources import datum
    from .sources import labels as classes

    at_least(2, steps=steps)
    path = check_file(out, GRID)
    opened = _open(run, data)
    check_picture(opened, path)
    row = datum(opened, image)
    labels, example = classes(opened, row, label), row if isinstance(row, int) else row.x
    against = against or own_class(opened, example, attribute)
    vector = direction(opened, attribute, against=against, balance=not unbalanced)
    z, strengths = edited(code_of(opened, example, labels=labels), vector, strength, steps)
    x = opened.decode(z)
    picture = _with_original(opened, example, x)
    arrays = {"x": x, "z": z, "strengths": strengths, "direction": vector}
    write(path, opened, picture, len(picture), arrays, None if bare else of_edit(attribute, against, strengths))


def fill(
    run: RunFolder,
    image: str,
    /,
    *,
    mask: str = "half",
    label: str | None = None,
    draws: int = 32,
    seed: int = 0,
    beyond_range: Flag = False,
    data: OwnData = None,
    bare: Bare = False,
    out: str = "fill.png",
) -> None:
    """Fill in the masked part of an example from its visible part.

    The code is inferred from the visible part. The picture shows the example, its visible part, the expected value of
    the hidden part, then samples of it. In a table (`vaekit fill RUN rows.csv --out filled.csv`), all missing values
    of all rows are filled in; everything else is copied from the file, including columns that the run does not model.

    Parameters
    ----------
    image
        An index of the test set, an image file, a .npy or .npz file (its first row; rows.npy:3 for another), or a table
        (.csv, .parquet) with missing values.
    mask
        half (hides the lower half), box (hides the middle), or a file: an image (bright pixels are hidden) or .npy.
    label
        For a conditional run and examples from a file, the column with their classes, or one class (or attributes
        a,b,c) for all. If class names are numbers, a number is a name; otherwise it is a class code 0, 1, ...
    draws
        Number of samples in the expectation.
    seed
        Seed of the samples.
    beyond_range
        Allow values of a table outside the range of their columns.
    out
        .png (a row) or .npz (x, hidden, filled, draws); for a table .csv.
    """
    import numpy as np

    from vaekit.data.readers.table import is_table
    from vaekit.latents.editing import named_mask, raw_of

    from .pictures import of_fill
    from .sources import datum
    from .sources import labels as classes
    from .sources import mask as read_mask

    at_least(2, draws=draws)
    path = check_file(out, ROWS)
    opened = _open(run, data)
    check_picture(opened, path)
    if is_table(Path(image)):
        return _fill_table(opened, image, path, draws, seed, label, beyond_range)
    row = datum(opened, image)
    labels, example = classes(opened, row, label), row if isinstance(row, int) else row.x
    hidden = read_mask(opened, mask)
    hidden = named_mask(hidden, opened.spec.shape) if isinstance(hidden, str) else hidden
    raw = raw_of(opened, example)
    infilled = opened.fill(example if isinstance(example, int) else raw, hidden, labels=labels, draws=draws, seed=seed)
    low, high = opened.spec.scale
    visible = np.where(hidden, np.float32((low + high) / 2), raw.astype(np.float32))
    picture = np.concatenate([raw.astype(np.float32), visible, infilled.filled, infilled.draws[:4, 0]])
    arrays = {"x": raw[0], "hidden": hidden, "filled": infilled.filled[0], "draws": infilled.draws[:, 0]}
    words = of_fill(draws, len(picture) - 3)
    write(path, opened, picture, len(picture), arrays, None if bare else words)


def _fill_table(
    run: Run, source: str, path: Path, draws: int, seed: int, label: str | None, beyond_range: bool
) -> None:
    """Write a table with its missing values filled in, as .csv with all other cells unchanged, or as .npz."""
    import numpy as np

    from vaekit.data.core import counted
    from vaekit.data.writing import write_texts
    from vaekit.latents.fill import blanked
    from vaekit.utils.files import write_atomically

    from .output import TaskProgress, make_folder
    from .sources import filled_cells, new_data

    table = new_data(run, source, label=label)
    raw, labels = np.asarray(table.x, np.result_type(table.x.dtype, np.float32)), table.labels
    hidden = np.isnan(raw)
    blanked(run, raw, hidden)  # its errors name the row numbers of the file
    filled = raw.copy()
    rows_to_fill = np.flatnonzero(hidden.any(1) & ~hidden.all(1))
    with TaskProgress() as progress:
        for a in range(0, len(rows_to_fill), BLOCK):
            part = rows_to_fill[a : a + BLOCK]
            part_labels = None if labels is None else labels[part]
            means = run.fill(raw[part], hidden[part], labels=part_labels, draws=draws, seed=seed).filled
            # with the digits of the model's float32, even if `raw` has more
            rounded = run.as_rows(means, beyond_range=beyond_range).astype(str).astype(raw.dtype)
            filled[part] = np.where(hidden[part], rounded, raw[part])
            progress("filling rows", a + len(part), len(rows_to_fill))
    if path.suffix.lower() == ".csv" and run.columns:
        cells, delimiter = filled_cells(run, Path(source).expanduser(), filled, hidden, beyond_range)
        make_folder(path)
        write_atomically(path, lambda part: write_texts(part, cells, delimiter))
        print(path)
    else:
        write(path, run, filled, 1, {"x": raw, "hidden": hidden, "filled": filled})
    empty = int(hidden.all(1).sum())
    remark = f"; {counted(empty, 'row')} without any value stayed empty" if empty else ""
    values, all_rows = counted(int(hidden[rows_to_fill].sum()), "value"), counted(len(raw), "row")
    print(f"{values} filled in, in {len(rows_to_fill):,} of {all_rows}{remark}", file=sys.stderr)


def _with_original(run: Run, example: int | np.ndarray, x: np.ndarray) -> np.ndarray:
    """The example followed by its edited versions `x`."""
    import numpy as np

    from vaekit.latents.editing import raw_of

    return np.concatenate([raw_of(run, example).astype(x.dtype), x])
