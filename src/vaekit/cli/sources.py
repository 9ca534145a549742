"""Raw data for a run from the command line: a split of its own data, other data, or one example."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaekit.errors import ChoiceError, DataError
from vaekit.utils.progress import say

if TYPE_CHECKING:
    from vaekit.latents.resample import LatentDensity
    from vaekit.run import Run
    from vaekit.runs.new_data import NewData


def new_data(
    run: Run,
    source: str | None,
    split: str | None = None,
    *,
    label: str | None = None,
    table: str | None = None,
    unseen: bool = False,
) -> NewData:
    """The rows that a command works on: a split of the run's own data (by default test), or other data.

    The result goes into the methods of the run, and writes their results beside the columns that the run does not use:

        new = new_data(opened, source, split, label=label, table=table)
        log_px = opened.score(new)
        new.write(path, {"log_px": log_px})  # `path` checked before by `output.check_results`

    Other data are read with the run's options. If they equal the run's own data, their splits are those of the run.

    Arguments:
        source: name or path of other data; None for the run's own.
        split: of the run's own data, or of the other data; by default all rows of other data.
        label: value of `--label`: a class (or attributes a,b,c) for all rows, or the column with their classes.
        table: value of `--table`: a table that describes a folder of images.
        unseen: whether to accept texts that are not a category of their column, as `TrainedModel.read` does.

    Raises:
        ChoiceError: an option does not apply, or the rows lack the condition of a conditional run.
        DataError: the data cannot be read, or do not fit the run.
    """
    from vaekit.runs.new_data import of_split, read_new

    from .output import TaskProgress

    if source is None:
        if table is not None:
            raise ChoiceError("--table describes a folder of new images: give the folder as NEW")
        new = of_split(run.data, split or "test")
    elif split is not None:
        new = _split_of(run, source, split, table)
    else:
        with TaskProgress() as progress:
            new = read_new(run, source, table=table, unseen=unseen, progress=progress)
    return replace(new, labels=labels(run, new, label))


def labels(run: Run, given: NewData | int, option: str | None = None) -> Any:
    """The conditions of new rows for a conditional run: those in the data, or those given with `--label`.

    Arguments:
        option: value of `--label`: a class (or attributes a,b,c) for all rows, or the column with their classes.

    Raises:
        ChoiceError: the run is not conditional, or the rows have no such condition.
    """
    from vaekit.runs.new_data import conditions

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
    if option is not None:
        is_column = condition.kind == "label" and option not in condition.names and option in given.columns
        return conditions(run, given, labels=option if is_column else condition.read(option))
    try:
        return conditions(run, given)
    except ChoiceError as error:
        one = f"--label {shlex.quote(condition.example)}"
        raise ChoiceError(f"{error}; or give one for all rows, such as {one}") from None


def note_differing(run: Run, new: NewData) -> None:
    """Print a note with the number of rows that differ from the training data in constant columns.

    Each difference lowers log p(x) by `DIFFERS` nats.
    """
    from vaekit.densities.mixed import DIFFERS
    from vaekit.heads.autoregressive import AutoregressiveHead
    from vaekit.heads.mixed import Masked

    head = getattr(run.model.likelihood, "head", None)
    if not isinstance(head, Masked | AutoregressiveHead) or head.held is None:
        return
    constants = head.held.cpu().numpy().ravel()
    observed = run.observed(new.x)
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


def _split_of(run: Run, source: str, split: str, table: str | None) -> NewData:
    """A split of other data."""
    from vaekit.data.condition import named
    from vaekit.runs.new_data import NewData, carried_of, of_split, options_of

    from .fit import load

    options = options_of(run, source, table=table)
    data = load(source, kind=run.spec.kind, **options)
    if data.is_same(run.config["data"]["digest"]):
        run.use_data(source)
        return of_split(run.data, split)
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
    return NewData(part[:], len(part), label, None, part.columns, carried_of(part, label, run.spec.kind), source)


def condition(run: Run, given: str | None, fitted: LatentDensity | None = None) -> np.ndarray | None:
    """The condition of new samples given with `--label`, of the run or else of the density of its codes.

    Raises:
        ChoiceError: neither is conditional, or the class is unknown.
    """
    if given is None:
        return None
    of = run.composition.condition or (None if fitted is None else fitted.condition)
    if of is None and fitted is not None and fitted.density.of_posterior:
        raise ChoiceError(
            f"--label needs a conditional density, and the {fitted.name} of this run is not conditional: `vaekit prior "
            f"{run.path} --latents {fitted.name} --refit` trains one on data with labels"
        )
    if of is None:
        raise ChoiceError(
            "--label needs a conditional run, or --latents flow-matching for data with labels, and this run is not "
            "conditional"
        )
    return of.read(given)


def class_column(run: Run, z: np.ndarray) -> dict[str, list[str]]:
    """The classes or covariates at the end of codes (N, D), as columns of text.

    Empty unless the run is conditional on columns or classes of a table.
    """
    condition = run.composition.condition
    if condition is None or condition.kind == "attributes" or run.spec.kind not in ("vector", "counts"):
        return {}
    columns = condition.columns(z[:, -condition.size :])
    if condition.kind == "label" and condition.column is None:
        columns = {run.config["data"]["options"].get("label", "label"): columns["label"]}
    return {name: [str(value) for value in values] for name, values in columns.items()}


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


def datum(run: Run, given: str) -> int | NewData:
    """One example that the command line names: the index of a test row, or one row read from a file.

    The file is an image, or a .npy, .npz, .csv or .parquet file, of which the first row is read, or the numbered one
    (rows.npy:3).

    Raises:
        DataError: the index or file does not exist, or the file has no example of this run's shape.
    """
    from vaekit.data.core import counted
    from vaekit.data.readers.registry import reader_of
    from vaekit.runs.new_data import NewData, picture, read_new

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
        return NewData(picture(run, path), 1, name=str(path))
    if reader.name == "npy":
        return NewData(_row(run, path, index), 1, name=str(path))
    table = read_new(run, str(path))
    if not index < len(table.x):
        raise DataError(f"{path} has {counted(len(table.x), 'row')}, numbered from 0: there is no row {index}")
    one = slice(index, index + 1)
    label = None if table.label is None else table.label[one]
    columns = {name: values[one] for name, values in table.columns.items()}
    return NewData(np.array(table.x[one]), 1, label, None, columns, name=str(path))


def given_values(text: str) -> dict[str, str]:
    """The values by column of `--given`: COLUMN=VALUE,... where names and values with commas are in double quotes.

    Raises:
        ChoiceError: the text has another form, or a column occurs twice.
    """
    values: dict[str, str] = {}
    for pair in re.findall(r'(?:[^,"]|"[^"]*")+', text):
        name, equals, value = (part.replace('"', "").strip() for part in pair.partition("="))
        if not equals or not name or not value:
            raise ChoiceError(
                f"--given expects COLUMN=VALUE,... such as 'age=30,sex=Female', got {pair.strip()!r}; names and values "
                "with commas need double quotes, as in '\"height, cm\"=180'"
            )
        if name in values:
            raise ChoiceError(f"--given has two values for the column {name!r}")
        values[name] = value
    return values


def filled_cells(
    run: Run,
    path: Path,
    tables: np.ndarray,
    hidden: np.ndarray,
    beyond_range: bool,
    ends: Sequence[tuple[str, np.ndarray]] = (),
) -> tuple[dict[str, list[str]], str]:
    """The cells of a file, of which those in `hidden` (N, D) have filled-in values, and the delimiter of the file.

    Arguments:
        tables: (M, N, D) filled tables, whose cells follow one below the other.
        ends: names and values (N, D) of columns to add for each column of numbers with hidden cells.
    """
    from vaekit.data.writing import shown, texts
    from vaekit.runs.new_data import dialect_of

    original, dialect = texts(path, **dialect_of(run))
    cells = {name: column * len(tables) for name, column in original.items()}
    for j, column in enumerate(run.columns):
        changed = np.flatnonzero(hidden[:, j])
        for m, filled in enumerate(tables):
            new = shown(column, column.fitted(filled[changed, j], beyond_range), dialect.decimal)
            for i, text in zip(changed.tolist(), new, strict=True):
                cells[column.name][m * len(hidden) + i] = text or original[column.name][i]
        if len(changed) and not column.categories:
            for name, values in ends:
                told = shown(column, values[:, j], dialect.decimal)
                cells[f"{column.name} {name}"] = told * len(tables)
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
    from vaekit.runs.new_data import is_one

    array = npz.array(path)
    x = array[None] if is_one(run, array.shape) or not array.ndim else array
    if not index < len(x):
        raise DataError(f"{path} has {counted(len(x), 'row')}, numbered from 0: there is no row {index}")

    return cast(np.array(x[index : index + 1]), double=True)
