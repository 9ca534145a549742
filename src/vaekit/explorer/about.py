"""The facts about a run on the page: name, training, data, latents, metrics, and the line of Python that opens it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from vaekit.data.observation import Binary
from vaekit.metrics import ACTIVE, latent_names, survey
from vaekit.models.hierarchy import TopDownPass
from vaekit.models.m2 import M2
from vaekit.models.priors import StandardNormal
from vaekit.models.vae import VAE
from vaekit.report.about import shown_path
from vaekit.runs.example import NAME, PLACE
from vaekit.runs.saved import SavedRun

from .maps import _discrete, _plain
from .points import Points


def title(run: SavedRun) -> str:
    """The title of the page: the data and the recipe."""
    return f"{run.config['data']['name']} · {run.config['recipe'] or 'custom model'}"


def of_run(run: SavedRun) -> dict[str, Any]:
    """The facts about a run that the page shows."""
    config = run.config
    written = datetime.fromtimestamp((run.path / "run.json").stat().st_mtime, UTC)
    return {
        "name": run.name,
        "recipe": config["recipe"],
        "arguments": config["arguments"],
        "steps": config.get("step"),
        "seconds": config.get("seconds"),
        "state": config["state"],
        "date": f"{written:%Y-%m-%d}",
        "vaekit": config["versions"]["vaekit"],
        "data": config["data"]["name"],
        "n": config["data"]["n"],
        "observation": config["observation"],
        "parameters": config["decided"]["parameters"],
        "path": _path(run),
    }


def python(run: SavedRun) -> str:
    """The line that opens the run."""
    composed = "" if run.config["recipe"] else ", model=composition"
    return f"run = vk.open({_path(run)!r}{composed})"


def _path(run: SavedRun) -> str:
    return NAME if run.path == PLACE else shown_path(run.path)


USUAL = 2000
"""Number of examples from which the mean and the spread of each element of a vector are computed."""


def event(run: SavedRun, points: Points) -> dict[str, Any]:
    """The shape and the range of a datum, and the names of a vector's elements if they are known."""
    spec = run.spec
    columns = [column.name for column in spec.columns] or None
    if columns is None and spec.kind in ("vector", "counts"):
        columns = run.data.feature_names
    kind = spec.kind if spec.kind in ("image", "signal") else "vector"
    channels, height, width = (*spec.shape, 1, 1)[:3] if kind == "image" else (1, 1, spec.dims)
    if kind == "signal":
        channels, width = spec.shape
    low, high = spec.scale
    usual = None
    if kind == "vector":  # each element is drawn on the scale of its mean and spread
        observed = points.sources[0].observed
        sample = np.ma.masked_invalid(
            observed.raw(np.arange(min(USUAL, observed.n))).reshape(-1, spec.dims).astype(float)
        )
        usual = [_plain(sample.mean(0).filled(0.0)), _plain(sample.std(0).filled(0.0))]
    return {
        "usual": usual,
        "kind": kind, "shape": list(spec.shape), "height": height, "width": width, "channels": channels,
        "drawn": isinstance(run.composition.observation, Binary),
        "low": low, "high": high, "integer": spec.integer, "missing": spec.missing, "columns": columns,
        "schema": [column.as_json() for column in spec.columns],
    }  # fmt: skip


def latents(run: SavedRun, points: Points) -> dict[str, Any]:
    """Names, KL, order, mean and spread of the latents over the codes of the points."""
    z, source = points.z.astype(np.float32), points.sources[0]
    condition = run.composition.condition
    size = 0 if condition is None else condition.size
    dims = z.shape[1]
    mean, spread = z.mean(0, dtype=np.float64), z.std(0, dtype=np.float64)
    ranking = survey(run, source.observed)
    classes = run.model.classes if isinstance(run.model, M2) else 0
    dead = np.zeros(dims, bool)
    dead[ranking.places] = ~ranking.active
    kl = np.zeros(dims)
    if ranking.kl is not None:
        kl[ranking.places] = ranking.kl
    conditions = [i for i in range(dims) if i not in set(ranking.places.tolist())]
    model = run.model
    gaussian = isinstance(model, TopDownPass) or (isinstance(model, VAE) and type(model.prior) is StandardNormal)
    return {
        "dims": dims,
        "condition": size,
        "condition_kind": None if condition is None else condition.kind,
        "classes": classes,
        "names": latent_names(run, dims),
        "kl": None if ranking.kl is None else _plain(kl),
        "dead": [bool(d) for d in dead],
        "active": ACTIVE,
        "order": [*ranking.places[ranking.order].tolist(), *conditions],
        "centre": _plain(mean),
        "scale": _plain(spread),
        "gaussian_prior": gaussian,
        "discrete": _discrete(run),
    }


def metrics(run: SavedRun) -> list[dict[str, Any]]:
    """The stored metrics that are single numbers."""
    return [m for m in run.metrics if isinstance(m.get("value"), int | float)]
