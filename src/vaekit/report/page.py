"""Write runs as one HTML file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vaekit import figures
from vaekit.errors import ChoiceError, RunError
from vaekit.metrics.protocol import unlike
from vaekit.runs.example import is_fixed
from vaekit.runs.saved import SavedRun
from vaekit.utils.files import checked_path, is_writable, write_atomically, write_text

from . import about, numbers, sections
from . import calibration as _calibration  # noqa: F401 - registers its section, after the others
from . import factors as _factors  # noqa: F401 - the same
from . import health as _health  # noqa: F401 - the same
from . import samplers as _samplers  # noqa: F401 - the same
from .blocks import Block, Chapter, Picture, Section, Strips, Text, plot
from .look import Look
from .paired import paired
from .registry import FIGURES


def write_report(runs: Sequence[SavedRun], path: str | Path | None = None) -> Path:
    """Write one self-contained page about a run, or about several side by side; returns its path.

    The pictures are in the page and, as PNG files, in each run's figures/. The page loads nothing from the network.

    Arguments:
        runs: at least one run.
        path: the path of the page; by default report.html in the run's directory, or comparison.html in that of the
            first of several runs (for the packaged run, example-report.html in the working directory).

    Raises:
        ChoiceError: no runs are given.
        RunError: the page or a picture cannot be written.
    """
    runs = list(runs)
    if not runs:
        raise ChoiceError("a report needs at least one run, got none")
    name = "report.html" if len(runs) == 1 else "comparison.html"
    target = runs[0].place_of(name) if path is None else checked_path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the directory {target.parent}: {error.strerror}; choose another `path`") from error
    looks = [Look(run) for run in runs]
    names = distinct([run.name for run in runs])
    opening = [_compared(looks, names)] if len(runs) > 1 else []
    chapters = [_chapter(look, name, len(runs) > 1) for look, name in zip(looks, names, strict=True)]
    heading = about.title(looks[0]) if len(runs) == 1 else f"{len(runs)} runs compared"
    write_text(target, render(heading, opening, chapters))
    return target


def distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number after repeated ones: `a`, `a (2)`."""
    unique: list[str] = []
    for name in names:
        candidate, i = name, 2
        while candidate in unique:
            candidate, i = f"{name} ({i})", i + 1
        unique.append(candidate)
    return unique


def _chapter(look: Look, name: str, several: bool) -> Chapter:
    drawn = [section for figure in FIGURES.values() if (section := figure.section(look)) is not None]
    parts = [sections.key_numbers(look), *drawn, about.trained(look), about.opening(look)]
    if not is_fixed(look.run.path) and is_writable(look.run.path):
        _store(look.run.path / "figures", parts)
    key = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    for part in parts:
        part.key = f"{key}-{part.key}" if several else part.key
    heading = f"{name}: {about.title(look)}" if several else about.title(look)
    return Chapter(key or "run", heading, about.facts(look), look.run.config["state"], about.warnings(look), parts)


def _store(folder: Path, parts: Sequence[Section]) -> None:
    """Write every picture as a PNG file into the run's figures/."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {folder}: {error.strerror}; free some space, or make the run writable") from error
    for part in parts:
        for block in part.blocks:
            if isinstance(block, Picture | Strips):
                write_atomically(folder / f"{block.name}.png", partial(_write, block.png))


def _write(content: bytes, file: Path) -> None:
    file.write_bytes(content)


def _compared(looks: Sequence[Look], names: Sequence[str]) -> Section:
    """The runs side by side: metrics by protocol, validation curves, the rate-distortion plane."""
    by_name = {name: look.run.metrics for name, look in zip(names, looks, strict=True)}
    blocks: list[Block] = [*numbers.comparison(by_name), *paired(looks, names)]
    curves = {name: sections.log_series(look, "valid") for name, look in zip(names, looks, strict=True)}
    curves = {name: series for name, series in curves.items() if "elbo" in series and len(series["step"])}
    observed = {(look.run.config["data"]["digest"], look.run.config["observation"]) for look in looks}
    if len(observed) > 1:
        blocks.append(Text("Not shown: validation curves, because the runs' data or observations differ.", "note"))
    elif len(curves) > 1:
        blocks.append(
            plot("compared-curves", lambda: figures.compared_curves(curves),
                 "Line plot of the validation ELBO of each run against the step",
                 "Validation ELBO (at most 2,000 examples, one sample each), nats per example; higher is better.")
        )  # fmt: skip
    points, protocols = {}, []
    for name, metrics in by_name.items():
        best = numbers.best_known(metrics)
        if "rate" in best and "distortion" in best:
            points[name] = (best["rate"]["value"], best["distortion"]["value"])
            protocols.append(best["distortion"])
    if len(points) > 1 and not unlike(protocols):
        blocks.append(
            plot("rate-distortion", lambda: figures.rate_distortion(points),
                 "Scatter plot of distortion against rate, one point per run",
                 "Distortion against rate, nats per example. The ELBO is constant along each thin line and higher "
                 "towards the lower left.")
        )  # fmt: skip
    return Section("compared", "Side by side", blocks)


def render(title: str, opening: Sequence[Section], chapters: Sequence[Chapter], kicker: str = "vaekit report") -> str:
    """The page as HTML; all text is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from vaekit import __version__

    environment = Environment(
        loader=PackageLoader("vaekit", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    template = environment.get_template("template.html")
    return template.render(title=title, opening=opening, chapters=chapters, version=__version__, kicker=kicker)
