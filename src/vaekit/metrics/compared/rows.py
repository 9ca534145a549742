"""Runs grouped into settings: runs that differ in their seed only are one row."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vaekit.errors import ChoiceError
from vaekit.runs.saved import SavedRun

UNSET = object()
"""The value of a setting that a run does not have, such as the argument of another recipe."""
MACHINE = ("seed", "device", "devices", "compile", "checkpoint_steps")
"""Training options that do not make runs different settings."""
LONGEST = 40
"""The maximum length of a value in a row's name."""


@dataclass
class Row:
    """Runs of one setting.

    Attributes:
        name: what distinguishes the setting from the others, such as `latent 10, beta 4`.
        runs: its runs, in the order of their seeds.
        settings: the settings that are not the same in all rows.
    """

    name: str
    runs: list[SavedRun]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """The training seed of each run."""
        return [run.config["training"]["seed"] for run in self.runs]


def settings_of(run: SavedRun) -> dict[str, Any]:
    """All settings of a run but its seed and the machine that it ran on, by name."""
    config, data = run.config, run.config["data"]
    arguments = {**config.get("defaults", {}), **config["arguments"]}
    training = {name: value for name, value in config["training"].items() if name not in MACHINE}
    own = {} if config["recipe"] else {"model": str(run.path)}  # nothing tells models built by hand apart
    return {
        "data": data["name"],
        "digest": data["digest"],
        "recipe": config["recipe"] or "custom model",
        **own,
        **{name: _plain(value) for name, value in arguments.items()},
        "observation": config["observation"],
        **{name: _plain(value) for name, value in data["options"].items()},
        "training data": data["n"]["train"],
        **{name: value for name, value in training.items() if name not in arguments},
        "started from": config.get("init_from"),
    }


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def rows_of(runs: Sequence[SavedRun], *, each: bool | None = None) -> tuple[list[Row], list[str]]:
    """The rows of a comparison in the order of their first runs, and notes about runs that are rows of their own.

    Arguments:
        each: whether each run is a row; by default for two runs, which are compared with each other.

    Raises:
        ChoiceError: there are no runs.
    """
    runs = list({run.path.resolve(): run for run in runs}.values())
    if not runs:
        raise ChoiceError("a comparison needs runs, got none")
    each = len(runs) <= 2 if each is None else each
    groups: dict[Any, list[SavedRun]] = {}
    notes = []
    for i, run in enumerate(runs):
        key = json.dumps(settings_of(run), sort_keys=True, default=str)
        same = [other for other in groups.get(key, []) if _seed(other) == _seed(run)]
        if same and not each:
            notes.append(f"{run.path} has the settings and the seed of {same[0].path}, so it is a row of its own")
        groups.setdefault(f"{i}" if each or same else key, []).append(run)
    rows = [Row("", sorted(members, key=_seed)) for members in groups.values()]
    _name(rows)
    return rows, notes


def _seed(run: SavedRun) -> int:
    return run.config["training"]["seed"]


def _name(rows: Sequence[Row]) -> None:
    """Name rows by the settings in which they differ; equal names are followed by the name of their first run."""
    found = [settings_of(row.runs[0]) for row in rows]
    explicit = [_explicit(row.runs[0]) for row in rows]
    names = list(dict.fromkeys(name for one in found for name in one))
    recipes = {one["recipe"] for one in found}
    told = []
    for name in names:
        values = [one.get(name, UNSET) for one in found]
        if all(value == values[0] for value in values) or name in ("digest", "model"):
            continue
        # what recipes set differently by default is said by their names
        if len(recipes) == 1 or name in ("recipe", "data") or any(name in one for one in explicit):
            told.append(name)
    if len({one["digest"] for one in found}) > len({one["data"] for one in found}):
        told.append("digest")
    for row, one in zip(rows, found, strict=True):
        row.settings = {name: one[name] for name in told if name in one}
        parts = [_part(name, value) for name, value in row.settings.items()]
        row.name = ", ".join(filter(None, parts)) or (one["recipe"] if not told else "")
    given = [row.name for row in rows]
    for name in {name for name in given if given.count(name) > 1}:
        same = [row for row, was in zip(rows, given, strict=True) if was == name]
        seeded = len({tuple(row.seeds) for row in same}) == len(same) and all(len(row.runs) == 1 for row in same)
        for row in (row for row in same if len(row.runs) == 1):  # a row of several seeds keeps its name
            more = f"seed {row.seeds[0]}" if seeded else row.runs[0].name
            row.name = f"{name}, {more}" if told and name else more
    taken: set[str] = set()
    for row in rows:
        name, i = row.name or row.runs[0].name, 2
        row.name = name
        while row.name in taken:
            row.name, i = f"{name} ({i})", i + 1
        taken.add(row.name)


def _explicit(run: SavedRun) -> set[str]:
    """The names of the settings that differ from the defaults of the run's recipe."""
    config = run.config
    usual = dataclasses.asdict(run.composition.defaults)
    lengths = {"epochs", "steps", "minutes"}
    trained = {
        name
        for name, value in config["training"].items()
        if value != usual.get(name) and (name in usual or value is not None) and name not in lengths
    }
    return {*config["arguments"], *config["data"]["options"], *trained, *lengths, "training data", "started from"}


def _part(name: str, value: Any) -> str:
    """One setting in the name of a row: `beta 4`, `mnist`, `no clip`."""
    if name in ("recipe", "data"):
        return str(value)
    name = {"digest": "data digest"}.get(name, name.replace("_", " "))
    if value is None:
        return f"no {name}" if name in ("clip", "ema", "augment", "patience") else ""
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return f"{name} {shown(value)}"


def shown(value: Any) -> str:
    """The value of a setting as text."""
    if isinstance(value, tuple):
        text = " ".join(map(shown, value))
    elif isinstance(value, Mapping):
        text = ", ".join(f"{key}={shown(one)}" for key, one in value.items())
    elif isinstance(value, float):
        text = f"{value:g}"
    elif isinstance(value, str) and len(value) == 64:
        text = value[:8]
    else:
        text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def reference(rows: Sequence[Row], to: str) -> int:
    """The index of the row that the others are compared with: that of the run `to` (its path), or so named.

    Raises:
        ChoiceError: no row has this run or name.
    """
    for i, row in enumerate(rows):
        if to == row.name or any(Path(to).resolve() == run.path.resolve() for run in row.runs):
            return i
    for i, row in enumerate(rows):
        if any(to == run.name for run in row.runs):
            return i
    raise ChoiceError(f"`to` names the run or row that the others are compared with, got {to!r}: choose from "
                      f"{', '.join(row.name for row in rows)}")  # fmt: skip
