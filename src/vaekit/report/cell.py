"""What a notebook shows of a run: an overview, and sections of the report."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from vaekit.errors import ChoiceError, VaekitError
from vaekit.figures.notebook import image_html
from vaekit.metrics.measured import Measured
from vaekit.runs.saved import SavedRun
from vaekit.utils.display import TILES, Shown, cells, facts, spark, thumbnails
from vaekit.utils.files import checked_path, write_atomically, write_text
from vaekit.utils.suggest import unknown

from . import about
from .blocks import Block, Cards, Chapter, Code, Picture, Section, Strips, Table
from .look import Look
from .page import render
from .registry import FIGURES
from .sections import series_of

USUAL = ("training", "samples", "latents")
"""The sections that are shown if none is named."""
SYNONYMS = {"curves": "training", "curve": "training", "loss": "training", "map": "latents", "maps": "latents"}
"""Other words for some sections."""


class Sections(Shown):
    """Sections of a run's report, which a notebook shows; printed, it names them.

    Attributes:
        sections: the sections with their blocks.
        pictures: the PNG file of each picture by name.
    """

    def __init__(self, look: Look, sections: Sequence[Section]):
        self.look, self.sections = look, list(sections)
        self.pictures = {
            block.name: block.png for part in sections for block in part.blocks if isinstance(block, Picture | Strips)
        }
        alt = f"{', '.join(part.title for part in sections)} of {look.run.name}: `.save(PATH)` writes .html or .png"
        super().__init__("".join(map(_section, sections)), alt)

    def save(self, path: str | Path) -> Path:
        """Write the sections as a page (.html), or their picture, if it is one, as .png; returns the path.

        Raises:
            ChoiceError: another suffix, or .png for several pictures, which `pictures` has by name.
            RunError: the file cannot be written.
        """
        target = checked_path(path)
        if target.suffix == ".html":
            title, state = about.title(self.look), self.look.run.config["state"]
            chapter = Chapter("run", title, about.facts(self.look), state, (), self.sections)
            write_text(target, render(title, [], [chapter]))
            return target
        if target.suffix != ".png":
            raise ChoiceError(f"`path` must end in .html or .png, got {str(path)!r}")
        if len(self.pictures) != 1:
            raise ChoiceError(
                f"a .png file holds one picture, and these are {len(self.pictures)} ({', '.join(self.pictures)}): "
                "write `.save('figures.html')`, or take one of `.pictures`"
            )
        (content,) = self.pictures.values()
        write_atomically(target, lambda part: part.write_bytes(content) and None)
        return target


def show(run: SavedRun, names: Sequence[str] = ()) -> Sections:
    """Sections of the run's report for a notebook, by name; by default training, samples and latents.

    Raises:
        ChoiceError: an unknown name.
    """
    wanted = [SYNONYMS.get(name, name) for name in names or USUAL]
    for name in wanted:
        if name not in FIGURES:
            raise ChoiceError(unknown("figure", name, FIGURES))
    look = Look(run)
    drawn = [FIGURES[name].section(look) for name in wanted]
    return Sections(look, [section for section in drawn if section is not None])


def run_html(run: SavedRun) -> str:
    """An overview of a run: settings, state, validation curve, samples and stored metrics; below 200 kB."""
    config, series = run.config, series_of(run.log, "valid")
    choices = ", ".join(f"{name}={value}" for name, value in config["arguments"].items())
    found = {
        "model": f"{config['recipe'] or 'own composition'}({choices})",
        "data": f"{config['data']['name']} ({config['data']['n']['train']:,} training rows)",
        "training": f"{config['state']}, {config['step']:,} steps of {run.options.batch} in "
        f"{about.duration(config['seconds'])}, seed {run.options.seed}",
        "parameters": f"{config['decided']['parameters']:,}",
        "created": config["created"][:10],
    }
    parts = []
    if "elbo" in series and len(series["elbo"]):
        last, step = series["elbo"][-1], int(series["step"][-1])
        found["validation"] = f"ELBO {last:.2f} nats per example at step {step:,}"
        parts.append(spark(series["elbo"], "Validation ELBO during training"))
    parts += [*_samples(run), *([Measured(run.metrics)._repr_html_()] if run.metrics else [])]
    return facts(run.name, found, *parts)


def _samples(run: SavedRun) -> list[str]:
    """Samples of the prior, if they are images."""
    if run.spec.kind != "image":
        return []
    from vaekit.figures import channels_last

    try:
        drawn = channels_last(run.sample(TILES))
    except VaekitError:  # the conditions of the samples are those of data that are not found
        return []
    return [f"<p><small>Samples of the prior:</small></p>{thumbnails(drawn, run.spec.scale, 'Samples of the prior')}"]


def _section(section: Section) -> str:
    blocks = "".join(map(_block, section.blocks))
    return f'<div class="vaekit"><h4>{html.escape(section.title)}</h4>{blocks}</div>'


def _block(block: Block) -> str:
    if isinstance(block, Picture):
        images = [image_html(block.light, block.alt, "picture" if block.dark is None else "only-light", block.width)]
        if block.dark is not None:
            images.append(image_html(block.dark, block.alt, "only-dark", block.width))
        return f"<div>{''.join(images)}</div>{_caption(block.caption)}"
    if isinstance(block, Strips):
        rows = "".join(_strip(row.label, row.note, row.source) for row in block.rows)
        return f'<div role="group" aria-label="{html.escape(block.alt)}">{rows}</div>{_caption(block.caption)}'
    if isinstance(block, Table):
        return cells(block.rows, block.head, block.numeric) + _caption(block.caption)
    if isinstance(block, Cards):
        return cells([(name, value, unit) for name, value, unit, *_ in block.cards]) + _caption(block.caption)
    if isinstance(block, Code):
        return f"<p>{html.escape(block.title)}</p><pre>{html.escape(block.text)}</pre>"
    return f"<p>{_ticks(block.text)}</p>"


def _strip(label: str, note: str, source: str) -> str:
    words = html.escape(f"{label} {note}".strip())
    return (
        f'<div style="display:flex;align-items:center;gap:8px"><small style="flex:0 0 9em">{words}</small>'
        f'<img alt="{words}" src="{source}" style="max-width:calc(100% - 10em);height:auto"></div>'
    )


def _caption(text: str) -> str:
    return f"<p><small>{_ticks(text)}</small></p>" if text else ""


def _ticks(text: str) -> str:
    """Escaped text, with what stands in backticks as code."""
    parts = html.escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
