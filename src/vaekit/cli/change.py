"""The commands that change an example through its code: edit, fill."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from vaekit.errors import ChoiceError

from .opening import open_given
from .output import Output, TaskProgress, at_least, write
from .parameters import Bare, Described, Flag, OwnData, RunFolder
from .use import SHOWN

if TYPE_CHECKING:
    import numpy as np

    from vaekit.latents.given import Infilled
    from vaekit.run import Run
    from vaekit.runs.new_data import NewData

AS_ONE = 32
"""The default number of samples in the expectation for one example."""


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
    out: str | None = None,
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
        .png (a row) or .npz (x, z, strengths, direction); for a table .csv, .parquet or .npz.
    """
    from vaekit.latents.editing import code_of, direction, edited, own_class

    from .pictures import of_edit
    from .sources import datum
    from .sources import labels as classes

    at_least(2, steps=steps)
    output = Output(out, "edit")
    opened = open_given(run, data)
    path = output.of(opened)
    row = datum(opened, image)
    labels, example = classes(opened, row, label), row if isinstance(row, int) else row.x
    against = against or own_class(opened, example, attribute)
    vector = direction(opened, attribute, against=against, balance=not unbalanced)
    z, strengths = edited(code_of(opened, example, labels=labels), vector, strength, steps)
    x = opened.decode(z)
    picture = _with_original(opened, example, x)
    arrays = {"x": x, "z": z, "strengths": strengths, "direction": vector}
    words = None if bare else of_edit(attribute, against, strengths)
    write(path, opened, picture, len(picture), arrays, words, {"strength": ["original", *strengths]})


def fill(
    run: RunFolder,
    image: str,
    /,
    *,
    mask: str = "half",
    label: str | None = None,
    table: Described = None,
    latents: str | None = None,
    draws: int | None = None,
    best: Literal["mean", "median"] = "mean",
    interval: float | None = None,
    seed: int = 0,
    beyond_range: Flag = False,
    data: OwnData = None,
    bare: Bare = False,
    out: str | None = None,
) -> None:
    """Fill in the masked part of an example, or the missing values of a table, from what is visible.

    In a table (`vaekit fill RUN rows.csv --out filled.csv`), all missing values of all rows are filled in; everything
    else is copied from the file, including columns that the run does not use. For one example, the picture shows the
    example, its visible part, the expected value of the hidden part, then samples of it, without the noise of p(x|z);
    for a folder of images, it has one row per image. Any run can fill, whether it was trained with missing values or
    not.

    Parameters
    ----------
    image
        An index of the test set, an image file, a folder of images, a .npy or .npz file (its first row; rows.npy:3 for
        another), or a table (.csv, .parquet) with missing values.
    mask
        half (hides the lower half), box (hides the middle), or a file: an image (bright pixels are hidden) or .npy.
    label
        For a conditional run and examples from a file, the column with their classes, or one class (or attributes
        a,b,c) for all. If class names are numbers, a number is a name; otherwise it is a class code 0, 1, ...
    latents
        For images, signals and autoencoders, the density under which codes are inferred: prior, gmm (a Gaussian
        mixture), flow (a normalising flow) or flow-matching, which is fitted to the codes once and stored with the run.
        By default the prior.
    draws
        For a table, the number of completed tables to write, one below the other: multiple imputations, drawn from
        p(missing | known), with their number in the column `draw`. By default, one table of single best values.
        For one example, the number of samples in the expectation (32).
    best
        The single value of a missing number: mean or median. Categories and yes/no columns get the most likely value.
    interval
        For a table, also write an interval of this probability, such as 0.95, for each missing number, in the columns
        `NAME low` and `NAME high`. With --draws or --interval, fill also hides cells of test rows in the same pattern,
        and prints the share of them that the intervals hold.
    seed
        Seed of the samples.
    beyond_range
        Allow values of a table outside the range of their columns.
    out
        .png (a row; of a folder the first 8 images) or .npz (x, hidden, filled, draws; of a folder all images); for a
        table .csv, .parquet or .npz (also low, high).
    """
    at_least(1, draws=draws)
    if interval is not None and not 0 < interval < 1:
        raise ChoiceError(f"--interval must be between 0 and 1, such as 0.95, got {interval:g}")
    output = Output(out, "fill")
    opened = open_given(run, data)
    path = output.of(opened)
    latents = _source(opened, latents)
    if _has_gaps(opened, image):
        asked = Asked(draws or 0, best, interval, beyond_range, seed, latents)
        return _fill_table(opened, image, path, asked, label)
    if interval is not None or path.suffix.lower() == ".parquet":
        wanted = "--interval" if interval is not None else "a .parquet file"
        raise ChoiceError(f"{wanted} is for tables with missing values, and {image} has none")
    hidden = _mask(opened, mask)
    if Path(image).expanduser().is_dir():
        under = _density(opened, latents)
        return _fill_folder(opened, image, path, hidden, label, table, under, draws or AS_ONE, seed, bare)
    if table is not None:
        raise ChoiceError(f"--table describes a folder of images, and {image} is none")
    _fill_example(opened, image, path, hidden, label, _density(opened, latents), draws or AS_ONE, seed, bare)


def _mask(run: Run, given: str) -> np.ndarray:
    """The mask that `--mask` names, bool (*event)."""
    from vaekit.latents.editing import named_mask

    from .sources import mask

    hidden = mask(run, given)
    return named_mask(hidden, run.spec.shape) if isinstance(hidden, str) else hidden


def _source(run: Run, latents: str | None) -> str | None:
    """`latents` in lower case, checked before the example is read.

    Raises:
        ChoiceError: it is unknown, or rows of this run are filled under its prior only.
    """
    from vaekit.latents.fitted import check_source
    from vaekit.latents.given import check_under

    if latents is None:
        return None
    check_source(latents := latents.lower())
    check_under(run, latents)
    return latents


def _density(run: Run, latents: str | None) -> str | None:
    """The density that codes are inferred under, fitted if it is not stored, by its name for `Run.fill`."""
    from vaekit.latents.fitted import density_of

    with TaskProgress() as progress:
        found = density_of(run, latents, progress=progress)
    if found is not None:
        print(found)
    return latents


def _fill_example(
    run: Run,
    image: str,
    path: Path,
    hidden: np.ndarray,
    label: str | None,
    latents: str | None,
    draws: int,
    seed: int,
    bare: bool,
) -> None:
    """Write one example with its masked part filled in."""
    from vaekit.latents.editing import raw_of

    from .sources import datum
    from .sources import labels as classes

    row = datum(run, image)
    labels, example = classes(run, row, label), row if isinstance(row, int) else row.x
    raw = raw_of(run, example)
    x = example if isinstance(example, int) else raw
    found = run.fill(x, hidden, labels=labels, latents=latents, draws=draws, seed=seed)
    arrays = {"x": raw[0], "hidden": hidden, "filled": found.filled[0], "draws": found.draws[:, 0]}
    _write_masked(run, path, raw, hidden, found, arrays, bare)


def _fill_folder(
    run: Run,
    folder: str,
    path: Path,
    hidden: np.ndarray,
    label: str | None,
    table: str | None,
    latents: str | None,
    draws: int,
    seed: int,
    bare: bool,
) -> None:
    """Write all images of a folder with their masked part filled in; as a picture, the first `SHOWN`."""
    import numpy as np

    from vaekit.data.results import prefixed

    from .output import Bar
    from .sources import new_data

    new = new_data(run, folder, label=label, table=table)
    new = new.head(SHOWN) if path.suffix.lower() == ".png" else new
    with Bar("filling images") as bar:
        found = run.fill(new, hidden, latents=latents, draws=draws, seed=seed, progress=bar)
    raw = run.observed(new).raw(np.arange(new.n))
    arrays = {"x": raw, "hidden": hidden, "filled": found.filled, "draws": found.draws}
    _write_masked(run, path, raw, hidden, found, arrays | prefixed(new.carried, new.n), bare)


def _write_masked(
    run: Run,
    path: Path,
    raw: np.ndarray,
    hidden: np.ndarray,
    found: Infilled,
    arrays: dict[str, np.ndarray],
    bare: bool,
) -> None:
    """Write a row per example (raw, visible part, expectation, draws), or these arrays."""
    import numpy as np

    from .pictures import of_fill

    low, high = run.spec.scale
    visible = np.where(hidden, np.float32((low + high) / 2), raw.astype(np.float32))
    strip = np.stack([raw.astype(np.float32), visible, found.filled, *found.draws[:4]], 1)  # (N, columns, *event)
    words = None if bare else of_fill(len(found.draws), strip.shape[1] - 3)
    write(path, run, strip.reshape(-1, *strip.shape[2:]), strip.shape[1], arrays, words)


class Asked(NamedTuple):
    """What to write of the missing values of a table."""

    draws: int
    best: Literal["mean", "median"]
    interval: float | None
    beyond_range: bool
    seed: int
    latents: str | None


def _has_gaps(run: Run, source: str) -> bool:
    """Whether the source is a table, or a file of rows of numbers of which some are missing."""
    import numpy as np

    from vaekit.data.loading import read_rows
    from vaekit.data.readers.table import is_table

    path = Path(source).expanduser()
    if not path.is_file() or run.spec.kind not in ("vector", "counts"):
        return False
    return is_table(path) or (path.suffix.lower() in (".npy", ".npz") and bool(np.isnan(read_rows(source).x).any()))


def _fill_table(run: Run, source: str, path: Path, asked: Asked, label: str | None) -> None:
    """Write a table with its missing values filled in and all other cells unchanged."""
    import numpy as np

    from vaekit.data.core import counted
    from vaekit.latents.given import blanked, draws_rows

    from .output import Bar
    from .sources import new_data

    table = new_data(run, source, label=label)
    raw, labels = np.asarray(table.x, np.result_type(table.x.dtype, np.float32)), table.labels
    hidden = np.isnan(raw)
    blanked(run, raw, hidden)  # its errors name the row numbers of the file
    part = np.flatnonzero(hidden.any(1) & ~hidden.all(1))
    arrays: dict[str, np.ndarray] = {"x": raw, "hidden": hidden, "filled": raw}
    if len(part):
        under = _density(run, asked.latents)
        with Bar("filling rows") as bar:
            found = run.fill(
                raw[part], hidden[part], labels=None if labels is None else labels[part], draws=asked.draws,
                latents=under, best=asked.best, interval=asked.interval, beyond_range=asked.beyond_range,
                seed=asked.seed, progress=bar,
            )  # fmt: skip
        arrays["filled"] = _inserted(raw, hidden, part, run.as_rows(found.filled, beyond_range=asked.beyond_range))
        if asked.draws:
            arrays["draws"] = np.stack([_inserted(raw, hidden, part, one) for one in found.draws])
        if found.low is not None and found.high is not None:
            blank = np.full_like(raw, np.nan)
            arrays |= {"low": _inserted(blank, hidden, part, found.low)}
            arrays |= {"high": _inserted(blank, hidden, part, found.high)}
    _write_filled(run, Path(source).expanduser(), path, arrays, table, asked.beyond_range)
    empty = int(hidden.all(1).sum())
    remark = f"; {counted(empty, 'row')} without any value stayed empty" if empty else ""
    values, all_rows = counted(int(hidden[part].sum()), "value"), counted(len(raw), "row")
    print(f"{values} filled in, in {len(part):,} of {all_rows}{remark}", file=sys.stderr)
    if len(part) and draws_rows(run) and (asked.draws or asked.interval):
        _tell_coverage(run, hidden[part], asked)
        _tell_effective(found.effective)


def _inserted(raw: np.ndarray, hidden: np.ndarray, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Raw rows with the hidden cells of some rows replaced by values, with the digits of the model's float32."""
    import numpy as np

    full = raw.copy()
    full[rows] = np.where(hidden[rows], values.astype(str).astype(raw.dtype), raw[rows])
    return full


def _write_filled(
    run: Run, source: Path, path: Path, arrays: dict[str, np.ndarray], new: NewData, beyond_range: bool
) -> None:
    """Write the filled tables in the format of the suffix; for .csv and .parquet with the other columns of a table."""
    import numpy as np

    from vaekit.data.readers.table import is_table
    from vaekit.data.results import prefixed, write_columns

    from .output import make_folder
    from .sources import filled_cells

    tables = arrays.get("draws", arrays["filled"][None])
    number = {"draw": np.repeat(np.arange(len(tables)), tables.shape[1])} if "draws" in arrays else {}
    if path.suffix.lower() == ".npz" or not run.columns or not is_table(source):
        flat, beside = tables.reshape(-1, tables.shape[2]), {k: v.astype(str).tolist() for k, v in number.items()}
        return write(path, run, flat, 1, arrays | prefixed(new.carried, new.n), beside=beside)
    ends = [(name, arrays[name]) for name in ("low", "high") if name in arrays]
    cells, delimiter = filled_cells(run, source, tables, arrays["hidden"], beyond_range, ends)
    own = new.carried if path.suffix.lower() == ".parquet" and not number else {}  # with their types
    make_folder(path)
    write_columns(path, {**{name: own.get(name, texts) for name, texts in cells.items()}, **number}, delimiter)
    print(path)


def _tell_coverage(run: Run, hidden: np.ndarray, asked: Asked) -> None:
    """Print how often the intervals hold hidden cells of the test rows."""
    from vaekit.data.core import counted
    from vaekit.errors import DataError
    from vaekit.latents.coverage import Share, coverage

    level = asked.interval or 0.95
    try:
        found = coverage(run, hidden, interval=level, seed=asked.seed)
    except DataError as error:
        print(f"note: the coverage of the intervals is not measured, because {error}", file=sys.stderr)
        return

    def share(part: Share) -> str:
        return f"{100 * part.value:.1f}%" + ("" if part.se is None else f" +- {100 * part.se:.1f}")

    words = []
    if (numbers := found.numbers) is not None:
        words.append(f"{100 * level:g}% intervals hold {share(numbers)} of {counted(numbers.n, 'hidden number')}")
    if (kinds := found.categories) is not None:
        right = "the most likely category is right for"
        words.append(f"{right} {share(kinds)} of {counted(kinds.n, 'hidden cell')}")
    rows = counted(found.rows, "test row")
    print(f"measured on {rows} with the same cells hidden: {'; '.join(words) or 'no cell'}", file=sys.stderr)


def _tell_effective(effective: np.ndarray | None) -> None:
    """A note if the weighted draws of some rows rest on few codes."""
    from vaekit.latents.given import FEW

    if effective is not None and (few := int((effective < FEW).sum())):
        n = f"{few:,} of {len(effective):,} rows"
        print(f"note: the draws of {n} rest on fewer than {FEW} codes (effective sample size)", file=sys.stderr)


def _with_original(run: Run, example: int | np.ndarray, x: np.ndarray) -> np.ndarray:
    """The example followed by its edited versions `x`."""
    import numpy as np

    from vaekit.latents.editing import raw_of

    return np.concatenate([raw_of(run, example).astype(x.dtype), x])
