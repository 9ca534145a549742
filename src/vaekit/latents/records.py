"""The records of densities stored with a run, RUN/latents/NAME.json: how each was fitted."""

from __future__ import annotations

import hashlib
from typing import Any, NotRequired, TypedDict

from vaekit.errors import RunError
from vaekit.runs.saved import SavedRun
from vaekit.utils.files import read_json
from vaekit.utils.progress import say
from vaekit.utils.typed import mismatch

from .densities import DENSITIES


class HeldOut(TypedDict):
    """How well a density fits held-out codes: mean log-densities in nats."""

    n: int
    log_density: float
    log_density_given: NotRequired[float]
    log_density_normal: float
    se: float
    se_normal: float
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
    """How the densities that are stored with a run were fitted, by name.

    Those of other weights are left out, and damaged ones too, with a note.
    """
    weights, found = weights_of(run), {}
    for name in DENSITIES:
        file = run.path / "latents" / f"{name}.json"
        if not file.exists():
            continue
        try:
            record = read_json(file)
            wrong = None if isinstance(record, dict) and record.get("weights") != weights else mismatch(record, Record)
        except RunError as error:
            wrong = str(error)
        if wrong:
            say(f"note: {name} is passed over, since {file} is damaged ({wrong}): fit it again with `refit=True`")
        elif record["weights"] == weights:
            found[name] = record
    return found


def of_codes(record: Record | dict[str, Any]) -> float:
    """The mean log-density of held-out codes, given their labels if the density is conditional."""
    held: HeldOut = record["held_out"]
    return held.get("log_density_given", held["log_density"])


def weights_of(run: SavedRun) -> str:
    """SHA-256 of the weights of a run."""
    with open(run.path / "model.safetensors", "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
