"""The commands that measure or encode data with a run: evaluate, encode, score."""

from __future__ import annotations

import json as jsons
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from vaekit.errors import ChoiceError
from vaekit.utils.suggest import unknown

from . import catalogue, listing
from .opening import open_given
from .output import Bar, at_least, check_file, check_results, make_folder, table, write_results
from .parameters import Described, Device, DrawZ, First, Flag, Labels, NewSource, OwnData, RunFolder, Seed, Split

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Names = Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True)]


def metric_help() -> str:
    """The help of --metrics, with the names of all registered metrics."""
    known = catalogue.metrics().values()
    listed = [", ".join(one.name for one in known if one.default is default) for default in (True, False)]
    return (
        f"Names of metrics; by default those of {listed[0]} that apply. Others: {listed[1]}. Families: "
        f"{', '.join(_families())}, for those that apply. `vaekit metrics` explains them."
    )


def _families() -> list[str]:
    """The families of metrics, in the order of the register."""
    return list(dict.fromkeys(one.family for one in catalogue.metrics().values() if one.family is not None))


def _names(words: tuple[str, ...] | None) -> list[str] | None:
    """The names in --metrics, checked; None without the option."""
    names = [name for word in words or () for name in word.split(",") if name]
    for name in names:
        if name not in (known := [*catalogue.metrics(), *_families()]):
            raise ChoiceError(unknown("metric", name, known))
    return names or None


def _checked(
    metrics: tuple[str, ...] | None, samples: int, n: int | None, out: str | None
) -> tuple[list[str] | None, Path | None]:
    """The metrics in --metrics and the file of --out, after a check of what a measurement is asked for."""
    at_least(1, samples=samples, n=n)
    return _names(metrics), None if out is None else check_file(out, (".json",))


def evaluate(
    run: RunFolder,
    source: NewSource = None,
    /,
    *,
    samples: int = 100,
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
    """Measure a run on data that it was not trained on.

    Results on the run's own data are also saved to its metrics.json. Processes started by torchrun share the rows.

    Parameters
    ----------
    samples
        K: number of draws of z per example.
    json
        Print a list of {name, value, se, unit, protocol} instead of a table.
    out
        Also write this list to a .json file.
    """
    from .sources import new_data, note_differing

    if metrics == ("help",):
        return listing.metrics(json=json)
    names, path = _checked(metrics, samples, n, out)
    opened = open_given(run, data, device)
    new = new_data(opened, source, split, label=label, table=table)
    note_differing(opened, new)
    with _together() as first, Bar("measuring") as bar:
        measured = opened.evaluate(new, n=n, metrics=names, samples=samples, seed=seed, progress=bar)
    if first:
        _show(measured, _measured, path, json)


def _together() -> AbstractContextManager[bool]:
    """A context in which the processes that torchrun started share the rows; its value is whether this one writes."""
    from vaekit.runs.processes import together

    return together()


def _show(
    measured: list[dict[str, Any]], as_table: Callable[[list[dict[str, Any]]], str], path: Path | None, json: bool
) -> None:
    """Print results as a table or JSON, and write them to a file."""
    from vaekit.utils.files import write_json

    if path is not None:
        make_folder(path)
        write_json(path, measured)
    print(jsons.dumps(measured, indent=1, ensure_ascii=False) if json else as_table(measured))


def _measured(metrics: list[dict[str, Any]]) -> str:
    """The table of metrics, followed by their common protocol."""
    from vaekit.report.numbers import beyond_floor, each_text, few_groups, floor_text, interval_text

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
            unit = f"{unit}; expected to be at most {-floor:.2f} on data binarised like this (entropy_floor)"
        if m["name"] == "floor_gap":
            unit = f"{unit}; {beyond_floor(m)}"
        if "interval" in m:
            unit = f"{unit}; {interval_text(m['interval'])}"
        if "floor" in m:
            unit = f"{unit}; {floor_text(m['floor'])}"
        if "each" in m:
            unit = f"{unit}; {each_text(m['each'])}"
        rows.append((m["name"], _number(value), "" if se is None else _number(se), unit))
    few = [] if groups is None else [few_groups(groups)]
    return "\n".join([table(rows), _protocol(metrics), *filter(None, few)])


def _protocol(metrics: list[dict[str, Any]]) -> str:
    """The settings that the protocols of these metrics share, as one line."""
    protocols = [m["protocol"] for m in metrics]
    shared = {k: v for k, v in protocols[0].items() if all(p.get(k) == v for p in protocols) and v is not None}
    k = {p["K"] for p in protocols if p.get("K") is not None}
    parts = [f"{name} {_short(value)}" for name, value in ({"K": k.pop(), **shared} if len(k) == 1 else shared).items()]
    return ", ".join(parts)


def _number(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    small = 0 < abs(value) < 0.01
    return f"{value:.2g}" if small else f"{value:.3f}" if abs(value) < 100 else f"{value:.2f}"


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def encode(
    run: RunFolder,
    source: NewSource = None,
    /,
    *,
    split: Split = None,
    sample: DrawZ = False,
    seed: Seed = 0,
    label: Labels = None,
    table: Described = None,
    data: OwnData = None,
    out: str = "z.npz",
) -> None:
    """Write the codes of data: posterior means, in the order of the data.

    Parameters
    ----------
    out
        .csv or .parquet: index, the columns of the data that the run does not use (file for a folder of images), z0,
        z1, ...; .npz: z, label if the data have one, and the columns not used as column.NAME; .h5ad: z in
        .obsm["X_vae"]. The codes of a conditional run, or with --library, end in the condition or the total; these are
        only in .npz.
    """
    from .sources import new_data

    path = check_results(out)
    opened = open_given(run, data)
    new = new_data(opened, source, split, label=label, table=table)
    with _together() as first:
        z = opened.encode(new, sample=sample, seed=seed)
    if not first:
        return
    if path.suffix.lower() != ".npz":
        return write_results(path, new, {"z": opened.latents_of(z)})
    write_results(path, new, {"z": z} | ({} if new.label is None else {"label": new.label}))


def score(
    run: RunFolder,
    source: NewSource = None,
    /,
    *,
    samples: int = 100,
    split: Split = None,
    n: First = None,
    seed: Seed = 0,
    label: Labels = None,
    table: Described = None,
    device: Device = "cpu",
    data: OwnData = None,
    out: str = "scores.csv",
) -> None:
    """Write log p(x) of each example in nats, in the units of the data: low scores mark unusual data.

    For a conditional run, the score is log p(x | condition).

    Parameters
    ----------
    samples
        K: number of draws of z per example for the importance-sampled estimate.
    out
        .csv or .parquet: index (from 0, within the split), the columns of the data that the run does not use (file for
        a folder of images), log_px; .npz: log_px, and the columns not used as column.NAME; .h5ad: log_px in .obs (nan
        for cells that -n leaves out).
    """
    from .sources import new_data, note_differing

    at_least(1, samples=samples, n=n)
    path = check_results(out)
    opened = open_given(run, data, device)
    new = new_data(opened, source, split, label=label, table=table)
    note_differing(opened, new)
    with _together() as first, Bar("scoring") as bar:
        log_px = opened.score(new, n=n, samples=samples, seed=seed, progress=bar)
    if first:
        write_results(path, new, {"log_px": log_px.round(6)})
