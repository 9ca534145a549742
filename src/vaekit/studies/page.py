"""From findings to one page."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path

from vaekit import figures
from vaekit.figures.pictures import Bytes
from vaekit.report.about import duration, shown_path
from vaekit.report.blocks import Block, Chapter, Code, Section, Strip, Table, Text
from vaekit.report.page import render
from vaekit.utils.files import write_text
from vaekit.utils.uncertainty import units

from .bench import Bench
from .registry import Findings, Study
from .words import LEVEL

TILE = 84  # pixels of the longer side of a tile
YOUNG, OLD = 5, 20_000  # epochs below which a model is young, and steps from which it is not


def write_page(study: Study, bench: Bench, findings: Findings, path: Path) -> None:
    """One self-contained page: what was found, the figures, and how it was done."""
    found = Section("found", "What was found", [Text(s) for s in findings.sentences])
    found.blocks += [Text(note, "note") for note in [*findings.notes, _claims(bench)]]
    sections = [found, *findings.sections, _how(study, bench, path)]
    now = datetime.now(UTC)
    steps = [run.config.get("step", 0) for run in bench.runs.values()]
    each = f"{steps[0]:,}" if len(set(steps)) == 1 else f"{min(steps):,} to {max(steps):,}" if steps else "0"
    models = "1 model" if len(steps) == 1 else f"{len(steps)} models"
    spec = [f"{now.day} {now:%B %Y}", bench.data.name, f"{models}, {each} steps each", _minutes(bench.minutes)]
    title = f"{study.name} on {bench.data.name}"
    chapter = Chapter(study.name, title, spec, "finished", _warnings(bench), sections)
    write_text(path, render(title, [], [chapter], "vaekit study"))


def _claims(bench: Bench) -> str:
    """How the sentences above were judged."""
    seeds = {plan.training.get("seed", 0) for plan in bench.plans.values()}
    group = bench.data.test.group
    by = "data" if group is None else f"groups ({units(len(group), group):,} of them in the test data)"
    over = f"seeds ({len(seeds)})" if len(seeds) > 1 else by
    alone = (
        ""
        if len(seeds) > 1
        else " Each model was trained once: what is said holds of these models, and another seed may reverse it."
    )
    return (
        f"A difference is claimed where Student's t over {over} tells it from none; all claims of this page together "
        f"are made by chance in {LEVEL:.0%} of pages where there is nothing to find.{alone}"
    )


def _minutes(minutes: float) -> str:
    return f"{minutes:g} minute{'s' if minutes != 1 else ''}"


def _warnings(bench: Bench) -> list[str]:
    """Too little training is the first thing that a reader must know."""
    run = min(bench.runs.values(), key=lambda run: run.config.get("step", 0), default=None)
    if run is None:
        return []
    epochs = run.config["step"] * min(run.config["training"]["batch"], len(bench.data.train)) / len(bench.data.train)
    if epochs >= YOUNG or run.config["step"] >= OLD:  # of very many data no one waits for five times
        return []
    return [
        f"A quick look: each model saw its training data {epochs:.2g} times. What is said below holds of models so "
        "young; `--minutes` gives them longer, and the study goes on from where it stands."
    ]


def _how(study: Study, bench: Bench, path: Path) -> Section:
    """Every model with its steps, the data, and the command that makes the page again."""
    rows = []
    for name, run in bench.runs.items():
        config = run.config
        batch = min(config["training"]["batch"], len(bench.data.train))
        epochs = config["step"] * batch / len(bench.data.train)
        rows.append(
            [name, bench.plans[name].settings, f"{config['step']:,}", f"{epochs:.1f}", duration(config["seconds"]),
             f"{config['decided']['parameters']:,}"]
        )  # fmt: skip
    data = bench.data
    shape = " × ".join(map(str, data.shape))
    sizes = ", ".join(f"{len(getattr(data, part)):,} {part}" for part in ("train", "valid", "test"))
    source = shlex.quote(str(data.source)) if data.source else "DATA"
    columns = {name: data.options[name] for name in ("label", "group") if name in data.options}
    source += "".join(f" --{name} {shlex.quote(column)}" for name, column in columns.items())
    again = f"vaekit study {study.name} {source} --minutes {bench.minutes:g} --out {shlex.quote(shown_path(path))}"
    blocks: list[Block] = [
        Text(f"{study.summary} {study.description}"),
        Table(["model", "recipe and settings", "steps", "epochs", "trained for", "parameters"], rows,
              "Every model of this page. They are kept beside it and trained on when the study is run for longer.",
              numeric=(2, 3, 4, 5), wide=(1,)),
        Text(f"Data: {data.name}, {shape}; {sizes}. After {study.paper}."),
        Code("Again", again),
    ]  # fmt: skip
    return Section("how", "How it was done", blocks)


# --- blocks that several studies show -----------------------------------------------------------------------------


def tiles(bench: Bench, events) -> Bytes:
    """Image events (N, C, H, W) as one row of a strip."""
    pictures = figures.channels_last(events)
    zoom = max(1, -(-TILE // max(pictures.shape[1:3])))
    gap = max(2, zoom * max(pictures.shape[1:3]) // 28)
    return figures.image_grid(pictures, len(pictures), gap, None, bench.data.scale, zoom)


def strip(bench: Bench, label: str, events, note: str = "", muted: bool = False) -> Strip:
    """A labelled row of images."""
    return Strip(label, tiles(bench, events), note, muted)
