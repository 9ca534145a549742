"""Command lines that work for a run: what to do with it next."""

from __future__ import annotations

import importlib.util
import shlex

from torch import nn

from vaekit.models.priors import UniformSphere
from vaekit.models.vae import VAE
from vaekit.objectives import Autoencoder
from vaekit.runs.run import Run


def following(run: Run, path: str) -> list[str]:
    """What one does with a run that has just been trained, as lines for a shell.

    `path` is the run directory as one would type it.
    """
    name = shlex.quote(path)
    explore = f"vaekit explore {name}"
    if any(importlib.util.find_spec(module) is None for module in ("onnx", "onnxscript", "onnxruntime")):
        explore += "  # needs pip install 'vaekit[onnx]'"
    return [f"vaekit evaluate {name}", f"vaekit report {name}", explore, f"vaekit sample {name} {_sampling(run)}"]


def _sampling(run: Run) -> str:
    """Options for new data that look as good as they can, in a file that can hold them."""
    words = ["-n 64"]
    condition = run.composition.condition
    if condition is not None:
        one = condition.names[0] if condition.kind == "label" else ",".join(["1", *"0" * (condition.size - 1)])
        words.append(f"--label {shlex.quote(one)}")
    if _needs_latents(run):
        words.append("--latents gmm")
    pictured = run.spec.kind in ("image", "signal")
    return " ".join([*words, f"--out samples.{'png' if pictured else 'csv'}"])


def _needs_latents(run: Run) -> bool:
    """Whether codes of data lie elsewhere than where the prior draws them: of an autoencoder, and of photographs."""
    model = run.model
    if type(model) is not VAE or isinstance(model.prior, UniformSphere):
        return False
    convolved = any(isinstance(module, nn.Conv2d) for module in model.modules())
    colour = run.spec.kind == "image" and run.spec.shape[0] == 3
    return isinstance(run.composition.objective, Autoencoder) or (colour and convolved)
