"""What was trained, in words: the title, the state, every setting, and the lines that open a run again."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import numbers
from .blocks import Code, Section, Table, Text
from .commands import following
from .look import Look

STATES = {
    "new": "training had not begun when this page was written",
    "running": "training was still going on (or was cut off) when this page was written",
    "interrupted": "training was interrupted",
    "failed": "training stopped on a number that was not finite",
}


def shown_path(path: Path) -> str:
    """A path as one would type it here: relative where it lies below the working directory."""
    full, here = Path(os.path.abspath(path)), Path.cwd()
    return str(full.relative_to(here)) if full.is_relative_to(here) else str(path)


def title(look: Look) -> str:
    config = look.run.config
    return f"{config['data']['name']} · {config['recipe'] or 'custom model'}"


def date(look: Look) -> str:
    """When the run's state was last written."""
    written = datetime.fromtimestamp((look.run.path / "run.json").stat().st_mtime, UTC)
    return f"{written.day} {written:%B %Y}"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def facts(look: Look) -> list[str]:
    """The line under the title."""
    config = look.run.config
    line = [date(look), config["state"]]
    if "step" in config:
        line.append(f"{config['step']:,} steps in {duration(config['seconds'])}")
    line.append(f"{look.latents:,} latent{'s' if look.latents != 1 else ''}")
    line.append(f"{config['decided']['parameters']:,} parameters")
    return line


def warnings(look: Look) -> list[str]:
    """What the reader must know before reading on."""
    config = look.run.config
    found = []
    if config["state"] in STATES:
        horizon = config.get("plan", {}).get("horizon")
        at = f" at step {config['step']:,} of {horizon:,}" if horizon and "step" in config else ""
        typed = f"; go on with `vaekit fit --out {shown_path(look.run.path)} --resume`"
        go_on = "" if config["state"] == "failed" else typed
        found.append(f"{STATES[config['state']].capitalize()}{at}: what follows is of the weights saved last{go_on}.")
    if look.data is None:
        found.append(f"The data cannot be had, so whatever needs them is left out: {look.missing}.")
    return found


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def trained(look: Look) -> Section:
    """Every number measured and every setting."""
    config = look.run.config
    data, decided, training = config["data"], config["decided"], config["training"]
    shape = " × ".join(map(str, data["facts"]["shape"]))
    low, high = data["facts"]["scale"]
    arguments = ", ".join(f"{k} = {_text(v)}" for k, v in config["arguments"].items())
    length = next((f"{_text(training[k])} {k}" for k in ("steps", "epochs", "minutes") if training[k] is not None), "")
    rows = [
        ["recipe", config["recipe"] or "built by hand"],
        ["its arguments", arguments or "the recipe's defaults"],
        ["data", f"{data['name']} ({data['facts']['kind']}, {shape}, from {low:g} to {high:g})"],
        ["source", str(data["source"] or "arrays in memory")],
        ["split", ", ".join(f"{n:,} {part}" for part, n in data["n"].items())],
        ["digest", data["digest"]],
        ["observation", config["observation"]],
        ["parameters", f"{decided['parameters']:,}"],
        ["optimiser", f"{training['optimiser']}, learning rate {_text(training['lr'])}, {training['schedule']} "
                      f"schedule, weight decay {_text(training['weight_decay'])}, clip {_text(training['clip'])}"],
        ["batch", _text(training["batch"])],
        ["averaged weights", f"EMA {_text(training['ema'])}" if training["ema"] else "no"],
        ["asked for", length or "the recipe's length"],
        ["trained", f"{config.get('step', 0):,} steps in {duration(config.get('seconds', 0.0))}"],
        ["device", f"{decided['device']}, {decided['threads']} threads, {decided['precision']}"],
        ["compiled", f"{'yes' if decided['compile'] else 'no'}: {decided['compile_why']}"],
        ["seed", _text(training["seed"])],
        ["versions", ", ".join(f"{k} {v}" for k, v in config["versions"].items())],
    ]  # fmt: skip
    if "init_from" in config:
        rows.append(["started from", config["init_from"]])
    section = Section("trained", "What was trained", [Table([], rows)])
    if look.run.metrics:
        section.blocks += [Text("Every number measured, with its protocol:"), numbers.all_numbers(look.run.metrics)]
    return section


def opening(look: Look) -> Section:
    """The lines that open the run."""
    path = shown_path(look.run.path)
    quoted = f'"{path}"'
    composed = "" if look.run.config["recipe"] else ", model=composition"
    python = f"""import vaekit as vk

run = vk.open({quoted}{composed})
z = run.encode("test")     # posterior means, (N, D)
x = run.decode(z)          # in the data's own units
new = run.sample(64)
run.evaluate(samples=100)  # into metrics.json"""
    blocks = [Code("Python", python)]
    if not composed:  # the command line cannot rebuild a network of one's own
        blocks.append(Code("Command line", "\n".join(following(look.run, path))))
    return Section("open", "Open it", list(blocks))
