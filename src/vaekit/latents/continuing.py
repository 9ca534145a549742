"""Densities that are trained as a run in RUN/latents/NAME: whether to begin, resume or extend the training."""

from __future__ import annotations

import hashlib
from typing import Any

from vaekit.errors import ChoiceError, RunError
from vaekit.runs.configuration import Configuration, options_of
from vaekit.runs.resume import FINISHED
from vaekit.runs.saved import SavedRun
from vaekit.runs.stored import read_config
from vaekit.utils.wording import in_python

from .densities import Training


def identity_of(weights: str, asked: dict[str, Any]) -> str:
    """What the posteriors that a density is fitted to are a function of."""
    return hashlib.sha256(f"{weights} {asked['seed']} {asked.get('condition')}".encode()).hexdigest()


def _before(run: SavedRun, name: str) -> Configuration | None:
    """The configuration of the density's training, if it was begun."""
    folder = run.path / "latents" / name
    return read_config(folder) if (folder / "run.json").exists() else None


def is_unfinished(run: SavedRun, name: str, weights: str) -> bool:
    """Whether the density's training with these weights of the run was begun, and the density was not stored."""
    before = _before(run, name)
    if before is None or (run.path / "latents" / f"{name}.json").exists():
        return False
    seed = options_of(before).seed
    return before["data"]["digest"] == identity_of(weights, {**before["arguments"], "seed": seed})


def begun(run: SavedRun, name: str, weights: str, refit: bool, training: Training | None) -> Training:
    """How to train: as requested, or if the training has ended but the density was not stored, from its end.

    Raises:
        RunError: its training was interrupted, and it is requested neither to resume nor to fit again; or there is
            nothing to resume.
    """
    asked, before = training or Training(), _before(run, name)
    if asked.mode != "new":
        if before is None:
            here = in_python(f" or run.fit_latents({name!r})")
            raise RunError(
                f"{run.path} has no {name} to {asked.mode}: train one first, `vaekit prior {run.path}`{here}"
            )
        return asked
    if refit or before is None or not is_unfinished(run, name, weights):
        return asked
    if before["state"] in FINISHED:
        return Training(mode="resume", progress=asked.progress)
    raise RunError(
        f"the training of {name} in {run.path} was interrupted at step {before.get('step', 0):,}: "
        f"{how_to_resume(run, name)}, or fit again with `refit=True`"
    )


def how_to_resume(run: SavedRun, name: str) -> str:
    """What to write to resume the interrupted training of a density."""
    here = in_python(f" or run.fit_latents({name!r}, training=Training(mode='resume'))")
    return f"resume it with `vaekit prior {run.path} --latents {name} --resume`{here}"


def asked_before(run: SavedRun, name: str, known: dict[str, Any], requested: dict[str, Any]) -> dict[str, Any]:
    """The choices with which the density's training was begun.

    Raises:
        ChoiceError: others are requested.
    """
    before = _before(run, name)
    assert before is not None
    options = options_of(before)
    asked = {**before["arguments"], "seed": options.seed, "steps": options.steps}
    for option, value in requested.items():
        if option != "steps" and asked.get(option, known.get(option)) != value:
            raise ChoiceError(
                f"the {name} of {run.path} was begun with {option} {asked.get(option)}, not {value}: leave `{option}` "
                "out, or fit again with `refit=True`"
            )
    return asked
