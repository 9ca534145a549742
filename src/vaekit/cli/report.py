"""The command `vaekit report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vaekit.errors import ChoiceError
from vaekit.runs.find import find_run
from vaekit.utils.progress import say

from .opening import is_data, open_given
from .output import TaskProgress, at_least, check_file, check_source, make_folder, table
from .parameters import Described, First, Labels, OwnData, Seed


def report(
    runs: Annotated[tuple[str, ...], Parameter(name="RUN")],
    /,
    *,
    n: First = None,
    samples: int = 100,
    label: Labels = None,
    table: Described = None,
    synthetic: str | None = None,
    target: Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True)] = None,
    seed: Seed = 0,
    out: str | None = None,
    data: OwnData = None,
) -> None:
    """Write an HTML page about a run, about new data for a run (`vaekit report RUN NEW`), or about several runs.

    The page about new data shows their metrics, reconstructions, scores and codes beside those of held-out data.
    With --synthetic, the page compares synthetic rows of a table with the run's real rows: fidelity of columns and
    pairs, training on synthetic and testing on real rows, detectability and privacy, each beside the same measure of
    real rows. All numbers are also written to a .json file beside it.

    Parameters
    ----------
    runs
        The run directories; or one run directory, then the name or path of new data.
    n
        With new data, use only their first N rows.
    samples
        With new data, K: number of draws of z per row.
    synthetic
        File with synthetic rows, from `vaekit sample RUN --out new.csv` or any other program; or `sample`, for
        rows drawn from the run.
    target
        With --synthetic, the columns to predict in training on synthetic and testing on real rows; by default the last
        column of categories, or else the last column.
    out
        Path of the page; by default report.html in the run, report-NAME.html for new data, or synthetic.html with
        --synthetic.
    """
    if not runs:
        raise ChoiceError("report needs a run directory: vaekit report RUN [RUN ...], or vaekit report RUN NEW")
    path = None if out is None else check_file(out, (".html",))
    at_least(1, n=n, samples=samples)
    source = runs[-1] if len(runs) > 1 and is_data(runs[-1]) else None
    runs = runs if source is None else runs[:-1]
    runs = tuple(str(find_run(run)) for run in runs)
    if synthetic is None and target is not None:
        raise ChoiceError("--target applies to synthetic rows: add --synthetic FILE")
    if synthetic is not None and len(runs) > 1:
        raise ChoiceError(f"--synthetic compares rows with one run, got {len(runs)}: write a page for each")
    if source is not None and (len(runs) > 1 or synthetic is not None):
        raise ChoiceError("a page about new data takes one run, and no --synthetic: vaekit report RUN NEW")
    if source is None and (n, label, table) != (None, None, None):
        raise ChoiceError("-n, --label and --table apply to new data: vaekit report RUN NEW")
    if path is not None:
        make_folder(path)
    if source is not None:
        from vaekit.report import write_new

        from .sources import new_data

        opened = open_given(runs[0], data)
        new = new_data(opened, source, label=label, table=table)
        print(write_new(opened, new, path, n=n, samples=samples, seed=seed))
        return
    if synthetic is not None:
        _compare_synthetic(runs[0], synthetic, target, seed, path, data)
        return
    from vaekit.report import write_report

    print(write_report([open_given(run, data) for run in runs], path))


def _compare_synthetic(
    run: str, source: str, target: tuple[str, ...] | None, seed: int, path: Path | None, data: str | None
) -> None:
    """Compare synthetic rows with those of a run; print a table and write a page."""
    from vaekit.report.synthetic import conclusion, rows_of, without, write_synthetic
    from vaekit.synthetic import compare_synthetic

    from .sources import new_data

    opened = open_given(run, data)
    if source != "sample":
        check_source(source)
    rows = None if source == "sample" else new_data(opened, source)
    with TaskProgress() as progress:
        comparison = compare_synthetic(opened, rows, target=target, seed=seed, progress=progress)
    print(table([("measure", "synthetic rows", "real rows", "verdict"), *rows_of(comparison)]))
    print(conclusion(comparison.measures))
    if words := without(comparison):
        say(f"note: {words[0].lower()}{words[1:]}")
    name = "rows drawn from the run" if source == "sample" else source
    print(write_synthetic(opened, comparison, path, source=name))
