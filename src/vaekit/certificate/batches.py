"""The data that a certificate is computed on: measured data, and data simulated from the model with their exact z."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vaekit.densities import draw
from vaekit.estimators import Target
from vaekit.noise import Key, Noise
from vaekit.runs.likelihood import in_units
from vaekit.runs.observed import Observed
from vaekit.runs.trained import TrainedModel


@dataclass(frozen=True)
class Batch:
    """Data with all that their certificate needs.

    Attributes:
        target: log p(x, z) of the data.
        noise_key: of the noise of the estimators, so that both batches have noise of their own.
        units: (n,) what log p(x) in the data's own units adds to log p of x.
        groups: (n,) the group of each datum; None for independent data.
        z: (n, D) the exact latents of simulated data; None for measured data.
    """

    target: Target
    noise_key: int
    units: np.ndarray
    groups: np.ndarray | None
    z: Tensor | None = None

    def noise(self, seed: int, use: int) -> Noise:
        """Noise for one use, (seed, batch, use)."""
        return Noise.of(seed, len(self.target.x), Key.ESTIMATE, self.noise_key, use, device=self.target.x.device)


def measured(run: TrainedModel, observed: Observed, n: int) -> Batch:
    """The first n data."""
    rows = np.arange(n)
    x = observed(rows).to(run.device)
    target = Target.of(run.model, x, observed.condition(rows, run.device))
    return Batch(target, 0, _units(run, observed, x), observed.groups(n))


def simulated(run: TrainedModel, observed: Observed, n: int, seed: int) -> Batch:
    """n data drawn from the model, with the conditions, totals and missing elements of the first n data."""
    rows = np.arange(n)
    like = measured(run, observed, n).target
    noise = Noise.of(seed, torch.from_numpy(rows).to(run.device), Key.SIMULATE)
    with torch.no_grad():
        z = draw(like.prior, noise)
        x = draw(like.decode(z), noise).to(like.x.dtype)
        x = torch.where(torch.isnan(like.x), torch.nan, x.reshape(like.x.shape))
    return Batch(Target.of(run.model, x, like.c, like.u), 1, _units(run, observed, x), None, z)


def _units(run: TrainedModel, observed: Observed, x: Tensor) -> np.ndarray:
    return in_units(run, observed, x, torch.zeros(len(x), dtype=torch.float64)).numpy()
