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
        rows: (n,) the numbers of the data, which key their noise.
        units: (n,) what log p(x) in the data's own units adds to log p of x.
        groups: (n,) the group of each datum; None for independent data.
        z: (n, D) the exact latents of simulated data; None for measured data.
    """

    target: Target
    noise_key: int
    rows: Tensor
    units: np.ndarray
    groups: np.ndarray | None
    z: Tensor | None = None

    def noise(self, seed: int, use: int) -> Noise:
        """Noise for one use, (seed, batch, use)."""
        return Noise.of(seed, self.rows, Key.ESTIMATE, self.noise_key, use)

    def parts(self, size: int) -> list[Batch]:
        """Batches of at most `size` of the data each, or of one; the noise of a datum is the same in any."""
        n = len(self.rows)
        if size >= n:
            return [self]
        return [self._of(torch.arange(a, min(a + max(size, 1), n))) for a in range(0, n, max(size, 1))]

    def _of(self, rows: Tensor) -> Batch:
        here, there = rows.numpy(), rows.to(self.rows.device)
        groups = None if self.groups is None else self.groups[here]
        z = None if self.z is None else self.z[there]
        return Batch(self.target.of_rows(there), self.noise_key, self.rows[there], self.units[here], groups, z)


def measured(run: TrainedModel, observed: Observed, n: int) -> Batch:
    """The first n data."""
    rows = np.arange(n)
    number = torch.from_numpy(rows).to(run.device)
    x = observed(rows).to(run.device)
    target = Target.of(run.model, x, observed.condition(rows, run.device))
    return Batch(target, 0, number, _units(run, observed, x), observed.groups(n))


def simulated(run: TrainedModel, observed: Observed, n: int, seed: int, codes: int) -> Batch:
    """n data drawn from the model, with the conditions, totals and missing elements of the first n data.

    At most `codes` are decoded at once.
    """
    whole, found = measured(run, observed, n), []
    for part in whole.parts(codes):
        like, noise = part.target, Noise.of(seed, part.rows, Key.SIMULATE)
        with torch.no_grad():
            z = draw(like.prior, noise)
            x = draw(like.decode(z), noise).to(like.x.dtype)
            found.append((z, torch.where(torch.isnan(like.x), torch.nan, x.reshape(like.x.shape))))
    z, x = (torch.cat(both) for both in zip(*found, strict=True))
    target = Target.of(run.model, x, whole.target.c, whole.target.u)
    return Batch(target, 1, whole.rows, _units(run, observed, x), None, z)


def _units(run: TrainedModel, observed: Observed, x: Tensor) -> np.ndarray:
    return in_units(run, observed, x, torch.zeros(len(x), dtype=torch.float64)).numpy()
