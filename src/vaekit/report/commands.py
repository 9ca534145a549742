"""Commands for the next steps with a run."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Sequence

from torch import nn

from vaekit.heads.autoregressive import AutoregressiveHead
from vaekit.models.priors import UniformSphere
from vaekit.models.vae import VAE
from vaekit.objectives import Autoencoder
from vaekit.runs.saved import SavedRun


def following(run: SavedRun, path: str) -> list[str]:
    """Shell commands for the next steps with a trained run.

    Arguments:
        path: the run directory, as one would type it.
    """
    name = shlex.quote(path)
    explore = f"vaekit explore {name}"
    if any(importlib.util.find_spec(module) is None for module in ("onnx", "onnxscript", "onnxruntime")):
        explore += "  # needs pip install 'vaekit[onnx]'"
    if isinstance(getattr(run.model.likelihood, "head", None), AutoregressiveHead):
        explore = f"vaekit report {name} --synthetic sample"  # its decoder cannot be exported
    return [f"vaekit evaluate {name}", f"vaekit report {name}", explore, f"vaekit sample {name} {_sampling(run)}"]


def comparing(paths: Sequence[str], reference: str, out: str) -> str:
    """The shell command that compares these runs with a reference, and writes the page `out`."""
    return f"vaekit compare {shlex.join(paths)} --to {shlex.quote(reference)} --out {shlex.quote(out)}"


def _sampling(run: SavedRun) -> str:
    """Options of `vaekit sample` that suit the run: a label, the better latents, and a fitting file format."""
    words = ["-n 64"]
    condition = run.composition.condition
    if condition is not None:
        words.append(f"--label {shlex.quote(condition.example)}")
    if _needs_latents(run):
        words.append("--latents gmm")
    pictured = run.spec.kind in ("image", "signal")
    return " ".join([*words, f"--out samples.{'png' if pictured else 'csv'}"])


def _needs_latents(run: SavedRun) -> bool:
    """Whether a fitted latent density gives better samples than the prior: for autoencoders and photographs."""
    model = run.model
    if type(model) is not VAE or isinstance(model.prior, UniformSphere):
        return False
    convolved = any(isinstance(module, nn.Conv2d) for module in model.modules())
    colour = run.spec.kind == "image" and run.spec.shape[0] == 3
    return isinstance(run.composition.objective, Autoencoder) or (colour and convolved)
