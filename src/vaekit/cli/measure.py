"""What is measured of data, a run's own or new ones: evaluate, compare, encode, score."""

from __future__ import annotations

import json as jsons
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from vaekit.errors import ChoiceError
from vaekit.runs.find import find_run
from vaekit.utils.suggest import unknown

from . import catalogue, listing
from .output import Bar, at_least, check_file, make_folder, table, write
from .use import Flag, N, SplitName, _open

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .sources import Rows

Names = Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True)]


def metric_help() -> str:
    """The help of --metrics, with the names that the register has."""
    known = catalogue.metrics().values()
    listed = [", ".join(one.name for one in known if one.default is default) for default in (True, False)]
    return (
        f"Which metrics; when not given, those of {listed[0]} that apply. Others: {listed[1]}. `vaekit metrics` "
        "explains them."
    )


def _names(given: tuple[str, ...] | None) -> list[str] | None:
    """The metrics that were asked for, each of them known; None where none was."""
    names = [name for word in given or () for name in word.split(",") if name]
    for name in names:
        if name not in catalogue.metrics():
            raise ChoiceError(unknown("metric", name, catalogue.metrics()))
    return names or None


def evaluate(
    run: str,
    source: Annotated[str | None, Parameter(name="DATA")] = None,
    /,
    *,
    samples: int = 100,
    split: SplitName | None = None,
    n: Annotated[int | None, N] = None,
    metrics: Names = None,
    seed: int = 0,
    label: str | None = None,
    table: str | None = None,
    device: str = "cpu",
    data: str | None = None,
    json: Flag = False,
    out: str | None = None,
) -> None:
    """Measure a run on data it was not trained on; numbers of its own data are also saved to its metrics.json.

    Parameters
    ----------
    run
        The run directory.
    source
        A name or a path of other data; the run's own when not given.
    samples
        K: draws of z per datum.
    split
        Which of its data (of the run's own: test, of others: all).
    n
        Only the first n data.
    metrics
        Names of metrics, or `help` for a list of them.
    seed
        Of the draws of z.
    label
        Of new data for a conditional run: the column of their classes, or one class (or attributes a,b,c) of them all.
        A number is a name where any class is named by one, else a code 0, 1, ...
    table
        .csv or .parquet with a column `file` that describes a folder of new images.
    device
        auto, cpu, cuda or mps.
    data
        Where the run's data are, if they have moved.
    json
        Print the list of {name, value, se, unit, protocol} instead of a table.
    out
        Write that list to this .json file as well.
    """
    from .sources import labels, note_differing, rows

    if metrics == ("help",):
        return listing.metrics(json=json)
    at_least(1, samples=samples, n=n)
    names, path = _names(metrics), None if out is None else check_file(out, (".json",))
    opened = _open(run, data, device)
    given = rows(opened, source, split, table)
    classes = labels(opened, given, label)
    note_differing(opened, given)
    with Bar("measuring") as bar:
        measured = opened.evaluate(
            given.x, samples=samples, n=n, metrics=names, seed=seed, progress=bar, labels=classes, source=source
        )
    _show(measured, _measured, path, json)


def _show(
    measured: list[dict[str, Any]], as_table: Callable[[list[dict[str, Any]]], str], path: Path | None, json: bool
) -> None:
    """Print what was measured as a table or JSON, and write it to a file."""
    from vaekit.utils.files import write_json

    if path is not None:
        make_folder(path)
        write_json(path, measured)
    print(jsons.dumps(measured, indent=1, ensure_ascii=False) if json else as_table(measured))


def compare(
    run: str,
    other: Annotated[str, Parameter(name="OTHER")],
    source: Annotated[str | None, Parameter(name="DATA")] = None,
    /,
    *,
    samples: int = 100,
    split: SplitName | None = None,
    n: Annotated[int | None, N] = None,
    metrics: Names = None,
    seed: int = 0,
    label: str | None = None,
    table: str | None = None,
    device: str = "cpu",
    data: str | None = None,
    json: Flag = False,
    out: str | None = None,
) -> None:
    """Compare two runs on the same data: the mean of the differences by datum, with its standard error.

    The errors of two runs on the same data are alike, so a paired difference is known far better than either number.

    Parameters
    ----------
    run
        A run directory.
    other
        The run directory that it is compared with.
    source
        A name or a path of other data; the runs' own when not given.
    samples
        K: draws of z per datum.
    split
        Which of the data (of the runs' own: test, of others: all).
    n
        Only the first n data.
    metrics
        Names of metrics, or `help` for a list of them.
    seed
        Of the draws of z.
    label
        Of new data for conditional runs: the column of their classes, or one class (or attributes a,b,c) of them all.
        A number is a name where any class is named by one, else a code 0, 1, ...
    table
        .csv or .parquet with a column `file` that describes a folder of new images.
    device
        auto, cpu, cuda or mps.
    data
        Where the runs' data are, if they have moved.
    json
        Print the list of {name, value, se, unit, protocol, a, b, better} instead of a table.
    out
        Write that list to this .json file as well.
    """
    from .sources import labels, note_differing, rows

    if metrics == ("help",):
        return listing.metrics(json=json)
    at_least(1, samples=samples, n=n)
    names, path = _names(metrics), None if out is None else check_file(out, (".json",))
    for one in (run, other):
        find_run(one)
    first, second = (_open(one, data, device) for one in (run, other))
    given = rows(first, source, split, table)
    classes = labels(first, given, label)
    note_differing(first, given)
    from vaekit.metrics import compare_all

    with Bar("measuring") as bar:
        found = compare_all(first, second, given.x, samples, n, seed, names, bar, classes, source)
    _show(found, lambda compared: _compared(compared, (first.name, second.name)), path, json)


def _measured(metrics: list[dict[str, Any]]) -> str:
    """The table of metrics, and below it the protocol they share."""
    from vaekit.report.numbers import beyond_floor, few_groups

    floor = next((m["value"] for m in metrics if m["name"] == "entropy_floor"), None)
    groups = next((m["protocol"]["groups"] for m in metrics if m["protocol"].get("groups")), None)
    rows = [("metric", "value", "se", "unit")]
    for m in metrics:
        value, se, unit = m["value"], m["se"], m["unit"]
        if isinstance(value, list):
            largest = max(range(len(value)), key=value.__getitem__)
            unit = f"{unit}; the largest of {len(value)}, z{largest}"
            value, se = value[largest], se[largest] if isinstance(se, list) else se
        if m["name"] == "elbo" and floor is not None:
            unit = f"{unit}; in expectation at most {-floor:.2f} on data so binarised (entropy_floor)"
        if m["name"] == "floor_gap":
            unit = f"{unit}; {beyond_floor(m)}"
        rows.append((m["name"], _number(value), "" if se is None else _number(se), unit))
    few = [] if groups is None else [few_groups(groups)]
    return "\n".join([table(rows), _protocol(metrics), *filter(None, few)])


def _protocol(metrics: list[dict[str, Any]]) -> str:
    """What the protocols of these metrics have in common, in a line."""
    protocols = [m["protocol"] for m in metrics]
    shared = {k: v for k, v in protocols[0].items() if all(p.get(k) == v for p in protocols) and v is not None}
    k = {p["K"] for p in protocols if p.get("K") is not None}
    parts = [f"{name} {_short(value)}" for name, value in ({"K": k.pop(), **shared} if len(k) == 1 else shared).items()]
    return ", ".join(parts)


def _compared(found: list[dict[str, Any]], names: tuple[str, str]) -> str:
    """The table of differences, and below it the protocol they share."""
    from vaekit.report.numbers import verdict

    a, b = names if names[0] != names[1] else ("first", "second")
    rows = [("metric", a, b, f"{a} - {b}", "se", "unit")]
    for m in found:
        known = "" if m["se"] is None else _number(m["se"])
        said = f"{m['unit']}; {verdict(m, (a, b))}"
        rows.append((m["name"].removesuffix(" difference"), *map(_number, (m["a"], m["b"], m["value"])), known, said))
    return "\n".join([table(rows), _protocol(found)])


def _number(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    small = 0 < abs(value) < 0.01
    return f"{value:.2g}" if small else f"{value:.3f}" if abs(value) < 100 else f"{value:.2f}"


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def encode(
    run: str,
    source: Annotated[str | None, Parameter(name="DATA")] = None,
    /,
    *,
    split: SplitName | None = None,
    sample: Flag = False,
    seed: int = 0,
    label: str | None = None,
    table: str | None = None,
    data: str | None = None,
    out: str = "z.npz",
) -> None:
    """The latents of data: posterior means, in the order of the data.

    Parameters
    ----------
    run
        The run directory.
    source
        A name or a path (also of one image); the run's own data when not given.
    split
        Which of its data (of the run's own: test, of others: all).
    sample
        Draw z from q(z|x) rather than take its mean.
    seed
        Of the draws.
    label
        Of new data for a conditional run: the column of their classes, or one class (or attributes a,b,c) of them all.
        A number is a name where any class is named by one, else a code 0, 1, ...
    table
        .csv or .parquet with a column `file` that describes a folder of new images.
    data
        Where the run's data are, if they have moved.
    out
        .npz (z, and label where there is one), or .csv: index, name (of image files), the columns of a table that the
        run does not model, z0, z1, ...
    """
    import numpy as np

    from .sources import labels, rows

    path = check_file(out, (".npz", ".csv"))
    opened = _open(run, data)
    given = rows(opened, source, split, table)
    z = opened.encode(given.x, None, sample, seed, labels=labels(opened, given, label))
    if path.suffix.lower() == ".csv":
        _write_rows(path, given, {f"z{i}": [f"{v:.6g}" for v in column] for i, column in enumerate(z.T)})
    else:
        beside = {name: np.array(cells) for name, cells in given.carried("z", "label").items()}
        known = {} if given.label is None else {"label": given.label}
        write(path, opened, z, 1, {"z": z, **known, **beside})


def score(
    run: str,
    source: Annotated[str | None, Parameter(name="DATA")] = None,
    /,
    *,
    samples: int = 100,
    split: SplitName | None = None,
    n: Annotated[int | None, N] = None,
    seed: int = 0,
    label: str | None = None,
    table: str | None = None,
    device: str = "cpu",
    data: str | None = None,
    out: str = "scores.csv",
) -> None:
    """log p(x) of each datum, in nats and the data's own units: low scores mark unusual data.

    Of a conditional run it is log p(x | condition).

    Parameters
    ----------
    run
        The run directory.
    source
        A name or a path (also of one image); the run's own data when not given.
    samples
        K: draws of z per example for the importance-sampled estimate.
    split
        Which of its data (of the run's own: test, of others: all).
    n
        Only the first n data.
    seed
        Of the draws.
    label
        Of new data for a conditional run: the column of their classes, or one class (or attributes a,b,c) of them all.
        A number is a name where any class is named by one, else a code 0, 1, ...
    table
        .csv or .parquet with a column `file` that describes a folder of new images.
    device
        auto, cpu, cuda or mps.
    data
        Where the run's data are, if they have moved.
    out
        .csv: index (from 0; of a split the place in it), name (of image files), the columns of a table that the run
        does not model, log_px.
    """
    from .sources import labels, note_differing, rows

    at_least(1, samples=samples, n=n)
    path = check_file(out, (".csv",))
    opened = _open(run, data, device)
    given = rows(opened, source, split, table)
    classes = labels(opened, given, label)
    note_differing(opened, given)
    with Bar("scoring") as bar:
        found = opened.score(given.x, samples, n, seed, bar, classes)
    _write_rows(path, given, {"log_px": [f"{value:.6f}" for value in found]})


def _write_rows(path: Path, given: Rows, found: dict[str, list[str]]) -> None:
    """One row per datum as .csv: its place, what it is called, what was found of it."""
    from vaekit.data.writing import write_texts
    from vaekit.utils.files import write_atomically

    n = len(next(iter(found.values())))
    called = {} if given.names is None else {"name": given.names[:n]}
    beside = {name: cells[:n] for name, cells in given.carried("index", "name", *found).items()}
    columns = {"index": [str(i) for i in range(n)], **called, **beside, **found}
    make_folder(path)
    write_atomically(path, lambda part: write_texts(part, columns))
    print(path)
