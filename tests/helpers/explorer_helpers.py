"""Small runs that were never trained, and one that was, a little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import vaekit as vk
from vaekit.data.core import Column
from vaekit.noise import Noise
from vaekit.recipes import RECIPES, DataSpec, get_recipe
from vaekit.runs.trained import TrainedModel

QUIET = {"progress": False, "compile": "off", "device": "cpu"}
LONG = 240_000
"""Milliseconds that anything in a browser may take: tests wait for what happens, never for a time."""
HOSTILE = ["<script>alert(1)</script>", "a \"quoted\" & 'odd' one", "</script><!-- \u2028"]
SMALL = {"latent": 3, "hidden": (8,), "codes": 6, "dim": 2, "width": 8, "labelled": 12}

CLASSES = ("a", "b", "c")
FACTS = {
    "image": DataSpec("image", (1, 6, 5), 70, (0.0, 255.0), True, classes=CLASSES),
    "signal": DataSpec("signal", (2, 12), 70, (-3.0, 3.0), False),
    "vector": DataSpec("vector", (5,), 70, (-3.0, 3.0), False),
    "counts": DataSpec("counts", (5,), 70, (0.0, 30.0), False),
    "missing": DataSpec("vector", (5,), 70, (-3.0, 3.0), False, missing=True),
    "table": DataSpec(
        "vector",
        (4,),
        70,
        (0.0, 9.0),
        False,
        columns=(
            Column("a", "real"),
            Column("b", "binary"),
            Column("c", "categorical", CLASSES),
            Column("d", "counts"),
        ),
    ),
}


def pictures(n: int = 70, seed: int = 0) -> np.ndarray:
    """uint8 (n, 6, 5): a bright patch whose place varies, over a little noise."""
    rng = np.random.default_rng(seed)
    place = rng.integers(0, 30, n)[:, None]
    x = 220 * np.exp(-((np.arange(30)[None] - place) ** 2) / 9) + rng.uniform(0, 30, (n, 30))
    return x.astype(np.uint8).reshape(n, 6, 5)


def raw_of(kind: str, n: int, seed: int = 1) -> np.ndarray:
    """Raw events (n, *event), float32, such as data with these facts have."""
    rng = np.random.default_rng(seed)
    if kind == "image":
        return pictures(n, seed)[:, None].astype(np.float32)
    if kind == "counts":
        return rng.poisson(6, (n, 5)).astype(np.float32)
    if kind == "table":
        columns = [rng.normal(size=n), rng.integers(0, 2, n), rng.integers(0, 3, n), rng.poisson(4, n)]
        return np.stack(columns, 1).astype(np.float32)
    x = rng.normal(size=(n, *FACTS[kind].shape)).astype(np.float32)
    if kind == "missing":
        x[rng.uniform(size=x.shape) < 0.3] = np.nan
    return x


def made_up(recipe: str, kind: str = "image", **choices) -> TrainedModel:
    """A model of this recipe in memory; its weights are random, and none is zero."""
    spec, takes = FACTS[kind], RECIPES[recipe].parameters
    torch.manual_seed(0)
    composition = get_recipe(recipe)(spec, **{k: v for k, v in SMALL.items() if k in takes} | choices)
    with torch.no_grad():
        for module in composition.modules.values():
            for parameter in module.eval().parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return TrainedModel(composition, spec)


def trained(out: Path, recipe: str = "vae", n: int = 70, names=HOSTILE, **choices) -> vk.Run:
    """A run trained for a few steps on pictures whose classes have hostile names."""
    data = vk.from_arrays(pictures(n), label=np.arange(n) % 3, label_names=names, name="<b>blobs</b>")
    small = {k: v for k, v in SMALL.items() if k in RECIPES[recipe].parameters}
    run = vk.fit(data, recipe, out=out, steps=6, batch=16, seed=2, **QUIET, **small | choices)
    run.use_data(data)
    return run


class Recorded(Noise):
    """Keyed noise that keeps the numbers it gave."""

    def __init__(self, n: int, seed: int = 0):
        made = Noise.of(seed, n)
        super().__init__(made.base, made.rows)
        self.given: list[torch.Tensor] = []
        self.inside = False

    def _kept(self, make, event, k):
        outer, self.inside = not self.inside, True
        found = make(event, k)
        if outer:
            self.given.append(found)
            self.inside = False
        return found

    def uniform(self, event, k=None):
        return self._kept(super().uniform, event, k)

    def normal(self, event, k=None):
        return self._kept(super().normal, event, k)
