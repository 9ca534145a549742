"""The records of densities stored with a run, RUN/latents/NAME.json: how each was fitted."""

from __future__ import annotations

import hashlib
from typing import Any, TypedDict

from vaekit.runs.saved import SavedRun
from vaekit.utils.files import read_json
from vaekit.utils.typed import mismatch

from .densities import DENSITIES


class HeldOut(TypedDict):
    """How well a density fits held-out codes: mean log-densities in nats."""

    n: int
    log_density: float
    log_density_normal: float
    bound: bool


class Record(TypedDict):
    """The content of latents/NAME.json."""

    format: int
    name: str
    n: int
    seed: int
    steps: int
    choices: dict[str, Any]
    asked: dict[str, Any]
    weights: str
    held_out: HeldOut


def records(run: SavedRun) -> dict[str, dict[str, Any]]:
    """How the densities that are stored with a run were fitted, by name; those of other weights are left out."""
    weights, found = weights_of(run), {}
    for name in DENSITIES:
        file = run.path / "latents" / f"{name}.json"
        if file.exists() and (record := read_json(file)).get("weights") == weights and not mismatch(record, Record):
            found[name] = record
    return found


def weights_of(run: SavedRun) -> str:
    """SHA-256 of the weights of a run."""
    with open(run.path / "model.safetensors", "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
