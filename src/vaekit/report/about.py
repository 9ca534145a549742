"""The title, state and settings of a run, and the commands that open it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vaekit.data.core import counted
from vaekit.utils.hub import origin

from . import numbers
from .blocks import Code, Section, Table, Text
from .commands import following
from .look import Look

STATES = {
    "new": "training had not started when this page was written",
    "running": "training was still running, or was killed, when this page was written",
    "interrupted": "training was interrupted",
    "failed": "training stopped because a number was not finite",
}


def shown_path(path: Path) -> str:
    """The path as one would type it: relative if it lies below the working directory, or an address of the hub."""
    if (source := origin(path)) is not None:
        return str(source)
    full, here = Path(os.path.abspath(path)), Path.cwd()
    return str(full.relative_to(here)) if full.is_relative_to(here) else str(path)


def title(look: Look) -> str:
    """The data and the recipe of the run, as a heading."""
    config = look.run.config
    return f"{config['data']['name']} · {config['recipe'] or 'custom model'}"


def date(look: Look) -> str:
    """The date on which the run's state was last written."""
    written = datetime.fromtimestamp((look.run.path / "run.json").stat().st_mtime, UTC)
    return f"{written.day} {written:%B %Y}"


def duration(seconds: float) -> str:
    """Seconds as text: in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def facts(look: Look) -> list[str]:
    """The line under the title: date, state, steps, latents and parameters."""
    config = look.run.config
    line = [date(look), config["state"]]
    if "step" in config:
        line.append(f"{config['step']:,} steps in {duration(config['seconds'])}")
    line.append(f"{look.latents:,} latent{'s' if look.latents != 1 else ''}")
    line.append(f"{config['decided']['parameters']:,} parameters")
    return line


def warnings(look: Look) -> list[str]:
    """Warnings at the top of the page: an unfinished run, and unavailable data."""
    config = look.run.config
    messages = []
    if config["state"] in STATES:
        horizon = config.get("plan", {}).get("horizon")
        at = f" at step {config['step']:,} of {horizon:,}" if horizon and "step" in config else ""
        command = f" Resume it with `vaekit fit --out {shown_path(look.run.path)} --resume`."
        resume = "" if config["state"] == "failed" else command
        messages.append(f"{STATES[config['state']].capitalize()}{at}. This page shows the last saved weights.{resume}")
    if look.data is None:
        messages.append(f"The data are unavailable, so sections that need them are left out: {look.missing}.")
    return messages


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def trained(look: Look) -> Section:
    """All settings of the run and all measured numbers."""
    config = look.run.config
    data, decided, options = config["data"], config["decided"], look.run.options
    shape = " × ".join(map(str, data["facts"]["shape"]))
    low, high = data["facts"]["scale"]
    arguments = ", ".join(f"{k} = {_text(v)}" for k, v in config["arguments"].items())
    lengths = {"steps": options.steps, "epochs": options.epochs, "minutes": options.minutes}
    length = next((f"{_text(value)} {name}" for name, value in lengths.items() if value is not None), "")
    rows = [
        ["recipe", config["recipe"] or "built by hand"],
        ["recipe arguments", arguments or "the recipe's defaults"],
        ["data", f"{data['name']} ({data['facts']['kind']}, {shape}, from {low:g} to {high:g})"],
        ["source", str(data["source"] or "arrays in memory")],
        ["split", ", ".join(f"{n:,} {part}" for part, n in data["n"].items())],
        ["digest", data["digest"]],
        ["observation", config["observation"]],
        ["parameters", f"{decided['parameters']:,}"],
        ["optimiser", f"{options.optimiser}, learning rate {_text(options.lr)}, {options.schedule} "
                      f"schedule, weight decay {_text(options.weight_decay)}, "
                      f"beta2 {_text(options.beta2)}, clip {_text(options.clip)}"],
        ["batch", _text(options.batch)],
        ["averaged weights", f"EMA {_text(options.ema)}" if options.ema else "no"],
        ["length", length or "the recipe's default"],
        ["trained", f"{config.get('step', 0):,} steps in {duration(config.get('seconds', 0.0))}"],
        ["device", f"{decided['device']}, {counted(decided['threads'], 'thread')}, {decided['precision']}"],
        ["compiled", f"{'yes' if decided['compile'] else 'no'}: {decided['compile_why']}"],
        ["seed", _text(options.seed)],
        ["versions", ", ".join(f"{k} {v}" for k, v in config["versions"].items())],
    ]  # fmt: skip
    if "init_from" in config:
        rows.append(["started from", config["init_from"]])
    section = Section("trained", "Settings", [Table([], rows)])
    if look.run.metrics:
        section.blocks += [Text("All measured numbers, with their protocols:"), numbers.all_numbers(look.run.metrics)]
    return section


def opening(look: Look) -> Section:
    """The commands that open the run."""
    path = shown_path(look.run.path)
    quoted = f'"{path}"'
    composed = "" if look.run.config["recipe"] else ", model=composition"
    python = f"""import vaekit as vk

run = vk.open({quoted}{composed})
z = run.encode("test")     # posterior means, (N, D)
x = run.decode(z)          # in the data's own units
new = run.sample(64)
run.evaluate(samples=100)  # also saved to metrics.json"""
    blocks = [Code("Python", python)]
    if not composed:  # the command line cannot rebuild a custom model
        blocks.append(Code("Command line", "\n".join(following(look.run, path))))
    return Section("open", "Open this run", list(blocks))
