"""What a run directory holds, read again: its configuration checked, its composition rebuilt, its weights put back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .composition import Composition, Facts
from .data.core import Data
from .errors import RunError
from .files import read_json, read_tensors, write_tensors
from .recipes import get_recipe

FORMAT = 2
"""Of a run directory: one of a higher was written by a newer vaekit; 1 wrote every row of its splits."""
SPLITS = "splits.safetensors"


def write_splits(path: Path, splits: Mapping[str, np.ndarray]) -> None:
    """The rows of each split to splits.safetensors: as they are, or as (k, 2) first and last + 1 of their runs.

    Rows of 1, 2, 3, 7, 8 are the runs [1, 4) and [7, 9). Whichever is shorter is written.
    """
    tensors = {}
    for part, rows in splits.items():
        rows = np.asarray(rows, np.int64)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        starts, ends = np.r_[0, breaks], np.r_[breaks, len(rows)] - 1
        runs = np.stack([rows[starts], rows[ends] + 1], 1) if len(rows) else np.zeros((0, 2), np.int64)
        kept = runs if runs.size < rows.size or not rows.size else rows
        tensors[part] = torch.from_numpy(kept.astype(np.int32 if rows.max(initial=0) < 2**31 - 1 else np.int64))
    write_tensors(path / SPLITS, tensors)


def read_splits(path: Path) -> dict[str, np.ndarray]:
    """The rows of each split of the run at `path`, int64.

    Raises:
        RunError: the file is missing or damaged.
    """
    found = {}
    for part, kept in read_tensors(path / SPLITS)[0].items():
        rows = kept.numpy().astype(np.int64)
        if rows.ndim == 2:
            rows = np.concatenate([np.arange(a, b) for a, b in rows] or [rows[:, 0]])
        found[part] = rows
    return found


def check_splits(data: Data, path: Path) -> None:
    """Raises RunError unless the data's splits are the rows that the run at `path` was trained on."""
    for part, rows in read_splits(path).items():
        if not np.array_equal(rows, getattr(data, part).index):
            raise RunError(
                f"the {part} rows of these data are not those that {path} was trained on: load them with the same "
                "split options, or give their path and the stored rows are used"
            )


def read_config(path: str | Path) -> dict[str, Any]:
    """run.json of a run directory, checked.

    Raises:
        RunError: no run there, damaged, or written by a newer vaekit.
    """
    path = Path(path)
    if not path.is_dir():
        raise RunError(f"no run at {path}: train one with `vaekit fit DATA --out {path}`")
    config = read_json(path / "run.json")
    if not isinstance(config, dict) or not isinstance(config.get("format"), int):
        raise RunError(f"{path / 'run.json'} is damaged: it has no format number")
    if config["format"] > FORMAT:
        raise RunError(f"{path} was written by a newer vaekit (format {config['format']}, this one reads {FORMAT})")
    try:
        Facts.from_json(config["data"]["facts"])
        missing = [part for part in ("recipe", "arguments", "training", "state") if part not in config]
        if missing:
            raise KeyError(missing[0])
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path / 'run.json'} is damaged: {error} is missing or malformed") from None
    return config


def rebuild(config: dict[str, Any], composition: Composition | None = None) -> Composition:
    """The composition that a configuration describes, with fresh weights."""
    if config["recipe"] is None:
        if composition is None:
            raise RunError("this run has a network of its own: open it in Python with vk.open(run, model=composition)")
        return composition
    recipe = get_recipe(config["recipe"])
    # the defaults of its day, so that a later version's do not change a model that was trained
    then = {k: v for k, v in config.get("defaults", {}).items() if k in recipe.parameters}
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in {**then, **config["arguments"]}.items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return recipe(Facts.from_json(config["data"]["facts"]), **arguments)


def load_weights(composition: Composition, tensors: dict[str, Tensor], path: Path) -> None:
    """Put saved tensors into the three parts of a composition, all of them and nothing else."""
    for part, module in composition.modules.items():
        mine = {n.removeprefix(part + "."): t for n, t in tensors.items() if n.startswith(part + ".")}
        own = module.state_dict()
        wrong = sorted(set(own) ^ set(mine)) or [n for n in own if own[n].shape != mine[n].shape]
        if wrong:
            raise RunError(f"{path} does not fit the model that run.json describes: {part}.{wrong[0]} differs")
        module.load_state_dict(mine)
