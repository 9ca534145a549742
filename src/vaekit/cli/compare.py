"""The command that compares runs: settings in a table and on a page, or two runs by their difference."""

from __future__ import annotations

import glob
import json as jsons
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from vaekit.errors import ChoiceError, RunError
from vaekit.runs.find import find_run, is_run, runs_in
from vaekit.utils.files import checked_path
from vaekit.utils.hub import is_address
from vaekit.utils.progress import say

from . import listing
from .measure import Names, _names, _number, _protocol, _show
from .opening import is_data, open_given
from .output import Bar, at_least, check_file, make_folder, table, wrapped
from .parameters import Described, Device, First, Flag, Labels, OwnData, Seed, Split

if TYPE_CHECKING:
    from vaekit.metrics.compared import Comparison
    from vaekit.run import Run


def compare(
    runs: Annotated[tuple[str, ...], Parameter(name="RUN")],
    /,
    *,
    to: str | None = None,
    each: Annotated[bool | None, Parameter(negative="")] = None,
    measure: Annotated[bool | None, Parameter(negative="--stored")] = None,
    samples: int | None = None,
    split: Split = None,
    n: First = None,
    metrics: Names = None,
    seed: Seed = 0,
    label: Labels = None,
    table: Described = None,
    device: Device = "cpu",
    data: OwnData = None,
    json: Flag = False,
    out: str | None = None,
) -> None:
    """Compare runs on the same data: vaekit compare RUN RUN ... [NEW].

    Runs that differ only in their seed are one row, with the mean and a 95% interval over seeds. The other rows are
    compared with the first one, or with --to: the differences are paired by example and by seed. Numbers that were not
    measured in the same way are in different columns. Two runs are compared with each other, metric by metric.

    Parameters
    ----------
    runs
        Run directories, folders of runs, or patterns such as 'runs/vae-*'; the last argument may be the name or path
        of new data, to measure all runs on them. Runs of folders and patterns that cannot be opened are left out.
    to
        The run or row that the others are compared with; by default the first that has numbers in common with most.
    each
        Make each run a row of its own.
    measure
        Measure all numbers for this table, or use only those stored with the runs. By default, stored ones are used if
        all runs have them under one protocol and each row has several seeds.
    samples
        K: number of draws of z per example; by default 100, or as stored with all runs. The same holds for -n.
    json
        Print JSON instead of a table: for two runs a list of {name, value, se, unit, protocol, a, b, better}, and a
        `note` if the runs have different conditions; for more runs {reference, rows, columns, table, notes}.
    out
        Also write this to a .json file, or a page to an .html file.
    """
    if metrics == ("help",):
        return listing.metrics(json=json)
    at_least(1, samples=samples, n=n)
    names, path = _names(metrics), None if out is None else check_file(out, (".html", ".json"))
    words, source = list(runs), None
    if len(words) > 1 and is_data(words[-1]):
        source = words.pop()
    opened, left_out = _opened(words, data, device)
    asked: dict[str, Any] = {"samples": samples, "seed": seed, "n": n}
    page = path is not None and path.suffix.lower() == ".html"
    own = None if source is None else _new(opened[0], source, split, label, table)
    if own is None and (label, table) != (None, None):
        raise ChoiceError("--label and --table apply to new data: vaekit compare RUN RUN ... NEW")
    if len(opened) == 2 and not page and (to, each, measure) == (None, None, None):
        for note in left_out:
            say(note)
        return _two(opened, own or split or "test", names, asked, path, json)
    from vaekit.metrics import compare as compare_runs

    with Bar("measuring") as bar:
        comparison = compare_runs(
            opened, data=own or split or "test", to=_reference(to), each=each, metrics=names, measure=measure,
            **asked, progress=bar,
        )  # fmt: skip
    comparison.notes += left_out
    comparison.warnings += left_out
    _tell(comparison, path, json, page)


def _opened(words: list[str], data: str | None, device: str) -> tuple[list[Run], list[str]]:
    """The runs that the arguments stand for, and notes about those of folders and patterns that cannot be opened.

    Raises:
        ChoiceError: there are fewer than two.
        RunError: there is no run, or one that was named cannot be opened.
    """
    opened, notes = [], []
    found = [(folder, named) for folders, named in map(_folders, words) for folder in folders]
    for folder, named in found if len(found) > 1 else ():
        try:
            opened.append(open_given(str(folder), data, device))
        except RunError as error:
            if named:
                raise
            notes.append(f"{folder} is left out: {str(error).rstrip('.')}.")
    if len(opened) < 2:
        number = len(opened) if notes else len(found)
        raise ChoiceError(
            " ".join([f"compare needs two or more runs, got {number}: vaekit compare RUN RUN ...", *notes])
        )
    return opened, notes


def _folders(word: str) -> tuple[list[Path], bool]:
    """The run directories that an argument stands for, and whether it names one, not a folder of runs or a pattern.

    Raises:
        RunError: there is no run; the message says what was found, or suggests a run.
    """
    if is_address(word):
        return [find_run(word)], True
    folder = checked_path(word)
    if not folder.exists() and glob.has_magic(word):
        found = [Path(path) for path in sorted(glob.glob(str(folder))) if (Path(path) / "run.json").is_file()]
        if not found:
            raise RunError(f"no run matches {word!r}")
        return found, False
    if folder.is_dir() and not (folder / "run.json").is_file() and (inside := runs_in(folder)):
        return inside, False
    return [find_run(word)], True


def _reference(to: str | None) -> str | None:
    """`to` as a path where it is one."""
    return str(find_run(to)) if to is not None and is_run(to) else to


def _new(run: Run, source: str, split: str | None, label: str | None, table: str | None) -> Any:
    """New data to measure all runs on, read as the first run reads them."""
    from .sources import new_data, note_differing

    new = new_data(run, source, split, label=label, table=table)
    note_differing(run, new)
    return new


def _two(
    runs: list[Run], data: Any, names: list[str] | None, asked: dict[str, Any], path: Path | None, json: bool
) -> None:
    """The paired differences of two runs."""
    from vaekit.metrics import compare_all

    settings = {**asked, "metrics": names, "samples": asked["samples"] or 100}
    with Bar("measuring") as bar:
        differences = compare_all(runs[0], runs[1], data, **settings, progress=bar)
    _show(differences, lambda compared: _compared(compared, (runs[0].name, runs[1].name)), path, json)


def _tell(comparison: Comparison, path: Path | None, json: bool, page: bool) -> None:
    """Print a comparison, and write it to a file."""
    from vaekit.utils.files import write_json

    if path is not None:
        make_folder(path)
    if path is not None and not page:
        write_json(path, comparison.as_json())
    print(jsons.dumps(comparison.as_json(), indent=1, ensure_ascii=False) if json else _as_text(comparison))
    if path is not None and page:
        from vaekit.report import write_comparison

        print(write_comparison(comparison, path))


def _as_text(comparison: Comparison) -> str:
    """The settings, the values, the differences and what they mean, as wide as the terminal."""
    parts = [comparison.trained(), comparison.grid(), comparison.differences()]
    return "\n\n".join([*(wrapped(head, rows) for head, rows in parts if rows), "\n".join(comparison.explained)])


def _compared(differences: list[dict[str, Any]], names: tuple[str, str]) -> str:
    """The table of differences, followed by their common protocol."""
    from vaekit.report.numbers import verdict

    a, b = names if names[0] != names[1] else ("first", "second")
    rows = [("metric", a, b, f"{a} - {b}", "se", "unit")]
    for m in differences:
        se = "" if m["se"] is None else _number(m["se"])
        unit = f"{m['unit']}; {verdict(m, (a, b))}"
        rows.append((m["name"].removesuffix(" difference"), *map(_number, (m["a"], m["b"], m["value"])), se, unit))
    notes = {m["note"]: None for m in differences if "note" in m}
    return "\n".join([table(rows), _protocol(differences), *(f"note: {note}" for note in notes)])
