"""Output of results: checks of paths before any work, files of pictures, arrays and tables, and progress."""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaekit.errors import ChoiceError, RunError
from vaekit.utils.files import checked_path
from vaekit.utils.progress import say

if TYPE_CHECKING:
    import numpy as np

    from vaekit.figures.labelled import Labels
    from vaekit.run import Run
    from vaekit.runs.new_data import NewData

MAX_COLUMNS = 16
TABLES = (".csv", ".parquet")
ROWS = (".png", ".npz", *TABLES)


# --- checks before any work -------------------------------------------------------------------------------------


def check_file(name: str, suffixes: Sequence[str]) -> Path:
    """The path of a file to write, checked. Raises RunError or ChoiceError if it cannot be written."""
    path = checked_path(name)
    if path.is_dir():
        suffix = path.suffix if path.suffix in suffixes else suffixes[0]
        raise RunError(f"--out {name} is a directory: name a file in it, such as {path / f'out{suffix}'}")
    if path.suffix.lower() not in suffixes:
        example, first = f"{path.stem or 'out'}{suffixes[0]}", ", ".join(suffixes[:-1])
        allowed = f"{first} or {suffixes[-1]}" if first else suffixes[-1]
        raise ChoiceError(f"--out {name}: write a {allowed} file, such as {example}")
    _check_writable(path.parent, name)
    return path


def check_results(name: str, suffixes: Sequence[str] | None = None) -> Path:
    """The path of a file of results (see `vaekit.data.results`), checked.

    Raises RunError, ChoiceError or DataError if it cannot be written.
    """
    from vaekit.data import results

    path = check_file(name, suffixes or results.SUFFIXES)
    results.check_package(path)
    return path


def _is_leftover(name: str) -> bool:
    """Whether a file with this name may have been left by a training that was killed before it wrote run.json."""
    from vaekit.runs.lock import LOCK
    from vaekit.utils.files import is_part

    return name in (LOCK, "splits.safetensors") or is_part(name)


def check_directory(path: Path, resumes: bool, replace: bool = False) -> None:
    """Raise RunError if a run cannot be written to the directory `path`, or if there is no run to resume.

    A new run needs a writable directory without unrelated files, and without a run unless `replace` is set.
    """
    if path.exists() and not path.is_dir():
        raise RunError(f"--out {path} is a file: choose another --out for the run directory")
    has_run = (path / "run.json").exists()
    if resumes and not has_run:
        raise RunError(f"no run to resume at {path}: omit --resume and --extend to start one")
    if has_run and not resumes and not replace:
        raise RunError(
            f"{path} already holds a run: resume it with --resume, train it longer with --extend, replace it with "
            "--exists replace, or choose another --out"
        )
    if not has_run and path.is_dir() and any(not _is_leftover(p.name) for p in path.iterdir()):
        raise RunError(f"--out {path} is a directory with other files in it: name a new one, such as {path / 'run'}")
    _check_writable(path, str(path))


def check_source(source: str) -> None:
    """Raise DataError for a source that is neither a known name nor an existing path, and RunError for a run."""
    from vaekit.data.paths import check_exists

    check_exists(source)
    if (Path(source).expanduser() / "run.json").is_file():
        raise RunError(
            f"{source} is a run, not data: `vaekit fit --out {source} --resume` resumes it, `vaekit evaluate {source}` "
            "measures it, and `vaekit fit DATA` starts another"
        )


def _check_writable(folder: Path, name: str) -> None:
    """Raise RunError if no file can be created in the nearest existing folder.

    It tries to, because the permissions of a folder do not show a read-only file system.
    """
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise RunError(f"--out {name}: {nearest} is a file, not a directory; choose another --out")
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise RunError(f"--out {name}: cannot write in {nearest} ({error.strerror}); choose another --out") from None


def at_least(low: float, **values: float | None) -> None:
    """Raise ChoiceError for a number below `low`; the message names its option."""
    for name, value in values.items():
        if value is not None and not (value >= low and math.isfinite(value)):
            flag = f"-{name}" if len(name) == 1 else f"--{name}"
            raise ChoiceError(f"{flag} must be {low:g} or more, got {value:g}")


def pictured(run: Run) -> bool:
    """Whether the data of a run have a picture; others are rows of a table."""
    return run.spec.kind in ("image", "signal")


def check_picture(run: Run, path: Path) -> None:
    """Raise ChoiceError for a .png file of a table, and for a table of images or signals."""
    if path.suffix.lower() == ".png" and not pictured(run):
        raise ChoiceError(
            f"{run.spec.kind} data have no picture: write a table with --out {path.with_suffix('.csv')}, or arrays "
            f"with {path.with_suffix('.npz')}"
        )
    if path.suffix.lower() in (".csv", ".parquet") and pictured(run):
        raise ChoiceError(f"{run.spec.kind}s are not a table: use --out {path.with_suffix('.png')}, or .npz for arrays")


class Output:
    """The file of a command that writes a picture, or rows of a table, checked before any work.

    Arguments:
        out: --out, or None for a file named `stem` in the working directory: .png if the data have a picture, else
            .csv.
        stem: the name of that file.
        suffixes: of the files that the command writes.

    Raises RunError, ChoiceError or DataError if it cannot be written.
    """

    def __init__(self, out: str | None, stem: str, suffixes: Sequence[str] = ROWS) -> None:
        self.out, self.stem, self.suffixes = out, stem, suffixes
        self.path = check_results(f"{stem}.png" if out is None else out, suffixes)

    def of(self, run: Run) -> Path:
        """The path for this run, checked. Also raises ChoiceError for a picture of a table."""
        named = self.out is not None or pictured(run)
        path = self.path if named else check_results(f"{self.stem}.csv", self.suffixes)
        check_picture(run, path)
        return path


# --- writing results --------------------------------------------------------------------------------------------


def make_folder(path: Path) -> None:
    """Create the folder of a file. Raises RunError if it cannot be created."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {path.parent} ({error.strerror}); choose another --out") from None


def write(
    path: Path,
    run: Run,
    picture: np.ndarray,
    columns: int,
    arrays: dict[str, Any],
    labels: Labels | None = None,
    beside: Mapping[str, Any] | None = None,
) -> None:
    """Write `picture` (N, *event) as a .png grid of `columns` columns or as rows of a table, or `arrays` as .npz.

    Prints the path. With `labels`, the pictures in a grid are enlarged and labelled. `beside` are further columns of a
    table, by name.
    """
    import numpy as np

    from vaekit.data import results
    from vaekit.utils.files import write_atomically

    make_folder(path)
    if path.suffix.lower() == ".npz":

        def save(part: Path) -> None:
            with open(part, "wb") as file:  # if given a name, NumPy would append .npz to it
                np.savez_compressed(file, **arrays)

        write_atomically(path, save)
    elif path.suffix.lower() in results.TABLES:
        rows = row_columns(run, picture)
        further = {f"{name}_" if name in rows else name: column for name, column in (beside or {}).items()}
        results.write_columns(path, rows | further)
    elif run.spec.kind == "image":
        from vaekit.figures import channels_last, image_grid, labelled_grid, save_png

        tiles, scale = channels_last(picture), run.spec.scale
        grid = (
            image_grid(tiles, columns, scale=scale) if labels is None else labelled_grid(tiles, columns, labels, scale)
        )
        save_png(path, grid)
    else:
        write_atomically(path, lambda part: _lines(part, picture, columns, labels))
    print(path)


def write_results(path: Path, new: NewData, results: Mapping[str, Any]) -> None:
    """Write results by row beside the columns carried with the data, and print the path: see `NewData.write`."""
    make_folder(path)
    new.write(path, results)
    print(path)


def row_columns(run: Run, rows: np.ndarray) -> dict[str, Any]:
    """Rows (N, D) in the units of the data as columns by name, with categories as text."""
    from vaekit.data.core import Column
    from vaekit.data.writing import typed

    columns = run.columns
    if not columns:
        names = run.feature_names or [f"x{i}" for i in range(rows.shape[1])]
        columns = tuple(Column(name, "counts" if run.spec.kind == "counts" else "real") for name in names)
    return typed(columns, rows)


def _lines(path: Path, x: np.ndarray, columns: int, labels: Labels | None) -> None:
    """Plot signals (N, C, L) on a common scale, with labels per row and column, or per signal."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = math.ceil(len(x) / columns)
    figure = Figure(figsize=(min(2 * columns, 24), min(1.2 * rows, 24)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, signal in zip(axes, x, strict=False):
        axis.plot(signal.T, linewidth=0.8)
    if labels is not None:
        figure.suptitle(labels.title, x=0.01, ha="left", fontsize=9)
        for axis, word in zip(axes, labels.tiles or labels.columns, strict=False):
            axis.set_title(word, fontsize=7)
        for axis, word in zip(axes[::columns], labels.rows, strict=False):
            axis.text(-0.02, 0.5, word, transform=axis.transAxes, ha="right", va="center", fontsize=7)
    figure.savefig(path, format="png", dpi=120)


def in_rows(*groups: np.ndarray) -> tuple[np.ndarray, int]:
    """Interleave groups (N, *event) in rows of a grid: a row of the first group above the same row of the second.

    Returns the events in the order of the grid, and the number of its columns.
    """
    import numpy as np

    n = len(groups[0])
    bands = math.ceil(n / MAX_COLUMNS)
    columns = math.ceil(n / bands)
    parts = []
    for a in range(0, n, columns):
        for group in groups:
            row = group[a : a + columns]
            blank = np.repeat(row[-1:] * 0, columns - len(row), 0)  # completes the row of the grid
            parts.append(np.concatenate([row, blank]))
    return np.concatenate(parts), columns


def table(rows: Iterable[Sequence[str]]) -> str:
    """A table as text: the first and last columns are left-aligned, the others right-aligned."""
    cells = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def wrapped(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text, whose columns continue below where the terminal ends; the first column is repeated."""
    width = shutil.get_terminal_size((140, 24)).columns
    grid = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in grid) for i in range(len(head))]
    parts: list[list[int]] = []
    left = 0
    for i in range(1, len(head)):
        left -= widths[i] + 2
        if not parts or left < 0:
            parts.append([])
            left = width - widths[0] - widths[i] - 2
        parts[-1].append(i)
    return "\n\n".join(table([[*(row[i] for i in (0, *part)), ""] for row in grid]) for part in parts)


class TaskProgress:
    """Reports (task, done, total) of long tasks: a bar on a terminal, else lines on standard error."""

    EVERY = 2.0  # seconds between lines

    def __init__(self) -> None:
        self.bar: Any = None
        self.tasks: dict[str, Any] = {}
        self.reported: dict[str, tuple[float, int]] = {}  # time and tenths of the last line of each task

    def __enter__(self) -> TaskProgress:
        return self

    def __call__(self, task: str, done: int, total: int) -> None:
        if sys.stderr.isatty():
            self._draw(task, done, total)
            return
        now, tenths = time.monotonic(), 10 * done // total if total else -1
        last, last_tenths = self.reported.get(task, (-math.inf, -2))
        if tenths > last_tenths and (now - last >= self.EVERY or done == total):
            self.reported[task] = now, tenths
            share = f"{100 * done // total}%" if total else ""
            say(f"{task} {share}".rstrip())

    def _draw(self, task: str, done: int, total: int) -> None:
        if self.bar is None:
            from rich.console import Console
            from rich.progress import Progress

            self.bar = Progress(console=Console(stderr=True), transient=True)
            self.bar.start()
        if task not in self.tasks:
            self.tasks[task] = self.bar.add_task(task, total=total or None)
        self.bar.update(self.tasks[task], completed=done, total=total or None)

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()


class Bar:
    """Reports (done, total) as a bar on standard error if that is a terminal."""

    def __init__(self, title: str):
        self.title = title
        self.progress: Any = None

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self.progress = Progress(console=Console(stderr=True), transient=True)
            self.task = self.progress.add_task(self.title, total=None)
            self.progress.start()
        return self

    def __call__(self, done: int, of: int) -> None:
        if self.progress is not None:
            self.progress.update(self.task, completed=done, total=of)

    def __exit__(self, *error: object) -> None:
        if self.progress is not None:
            self.progress.stop()
