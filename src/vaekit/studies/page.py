"""Write the findings of a study as one page."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path

from vaekit import figures
from vaekit.figures.pictures import Array, Bytes
from vaekit.report.about import duration, shown_path
from vaekit.report.blocks import Block, Chapter, Code, Section, Strip, Table, Text
from vaekit.report.page import render
from vaekit.utils.files import write_text
from vaekit.utils.uncertainty import units
from vaekit.utils.wording import worded

from .bench import Bench
from .registry import Findings, Study
from .words import LEVEL

TILE = 84  # smallest longer side of a picture, in pixels of the page
YOUNG, OLD = 5, 20_000  # the page warns if a model had fewer epochs and fewer steps than these


def write_page(study: Study, bench: Bench, findings: Findings, path: Path) -> None:
    """Write one self-contained page with the results, the figures and the method."""
    results = Section("found", "Results", [Text(s) for s in findings.sentences])
    results.blocks += [Text(note, "note") for note in [*findings.notes, _claims(bench)]]
    sections = [results, *findings.sections, _how(study, bench, path)]
    now = datetime.now(UTC)
    steps = [run.config.get("step", 0) for run in bench.runs.values()]
    each = f"{steps[0]:,}" if len(set(steps)) == 1 else f"{min(steps):,} to {max(steps):,}" if steps else "0"
    models = "1 model" if len(steps) == 1 else f"{len(steps)} models"
    spec = [f"{now.day} {now:%B %Y}", bench.data.name, f"{models}, {each} steps each"]
    if bench.steps is None:
        spec.append(_minutes(bench.minutes))
    title = f"{study.name} on {bench.data.name}"
    warnings = [worded(text) for text in _warnings(bench)]
    chapter = Chapter(study.name, title, spec, "finished", warnings, sections)
    write_text(path, render(title, [], [chapter], "vaekit study"))


def _claims(bench: Bench) -> str:
    """A sentence on how significance was tested."""
    seeds = {plan.training.get("seed", 0) for plan in bench.plans.values()}
    group = bench.data.test.group
    if len(seeds) > 1:
        over, caveat = f"the {len(seeds)} seeds", ""
    else:
        over = "examples" if group is None else f"groups ({units(len(group), group):,} in the test data)"
        caveat = " Each model was trained once: the results hold for these models, and another seed may reverse them."
    return (
        f"Significance is tested by Student's t test over {over}, at a level such that a page without any real "
        f"difference makes a false claim with a probability of at most {LEVEL:.0%}.{caveat}"
    )


def _minutes(minutes: float) -> str:
    return f"{minutes:g} minute{'s' if minutes != 1 else ''}"


def _warnings(bench: Bench) -> list[str]:
    """A warning if the models had little training."""
    run = min(bench.runs.values(), key=lambda run: run.config.get("step", 0), default=None)
    if run is None:
        return []
    epochs = run.config["step"] / run.epoch_steps
    if epochs >= YOUNG or run.config["step"] >= OLD:  # with very many examples, fewer epochs are enough
        return []
    return [
        f"Short training: each model was trained for only {epochs:.2g} epoch{'' if f'{epochs:.2g}' == '1' else 's'}, "
        f"and longer training may change the results. More `{bench.limit}` continue the training of the same models."
    ]


def _how(study: Study, bench: Bench, path: Path) -> Section:
    """The method: every model with its steps, the data, and the command that repeats the study."""
    rows = []
    for name, run in bench.runs.items():
        config = run.config
        epochs = config["step"] / run.epoch_steps
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
    length = f"--minutes {bench.minutes:g}" + (f" --steps {bench.steps}" if bench.steps is not None else "")
    again = f"vaekit study {study.name} {source} {length} --out {shlex.quote(shown_path(path))}"
    blocks: list[Block] = [
        Text(worded(f"{study.summary} {study.description}")),
        Table(["model", "recipe and settings", "steps", "epochs", "trained for", "parameters"], rows,
              "The models of this page are kept in a folder beside it. Running the study for longer continues their "
              "training.",
              numeric=(2, 3, 4, 5), wide=(1,)),
        Text(f"Data: {data.name}, {shape}; {sizes}. After {study.paper}."),
        Code("Command", again),
    ]  # fmt: skip
    return Section("how", "Method", blocks)


# --- blocks used by several studies -----------------------------------------------------------------------------


def tiles(bench: Bench, events: Array) -> Bytes:
    """Image events (N, C, H, W) as one row of pictures."""
    pictures = figures.channels_last(events)
    zoom = max(1, -(-TILE // max(pictures.shape[1:3])))
    gap = max(2, zoom * max(pictures.shape[1:3]) // 28)
    return figures.image_grid(pictures, len(pictures), gap, None, bench.data.scale, zoom)


def strip(bench: Bench, label: str, events: Array, note: str = "", muted: bool = False) -> Strip:
    """A labelled row of images."""
    return Strip(label, tiles(bench, events), note, muted)
