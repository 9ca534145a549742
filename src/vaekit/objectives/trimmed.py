"""Trimmed likelihood: training without the least likely rows, for training data with anomalies among them."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from vaekit.models.vae import Model
from vaekit.utils.arguments import Knob

from .base import Batch, Losses, Samples, objective
from .elbo import ELBO
from .missing import expected
from .terms import distortion, elbo_stats, rate


@objective("trimmed", "Hadi and Luceno 1997; Neykov et al. 2007, doi:10.1016/j.csda.2006.12.024", tails=True)
class Trimmed(ELBO):
    """loss = -ELBO averaged over the batch, leaving out the rows with the lowest ELBO (maximum trimmed likelihood).

    The model describes the other rows, so anomalies among the training rows stay unlikely. `trim` need not estimate the
    share of anomalies; it is the largest share that training can ignore. If fewer rows are anomalous, rows at the edge
    of the data are left out too, and log p(x) there is lower than without trimming.

    The ELBO of a row depends on which of its values are missing. With missing values, rows are therefore compared by
    how far the ELBO lies from what is expected of rows of the batch that lack the same values, relative to the scale of
    this difference (`missing.expected`). Otherwise many rows would be left out because of their gaps.

    If several processes train together, each leaves out this share of its own part of the batch.

    Arguments:
        trim: the share of the rows of each batch that is left out.
        samples: L, samples of z per example for the expectation.
        mixed: as in `ELBO`.
        missing: whether x has missing values (nan).
    """

    trims = True

    def __init__(
        self,
        trim: Annotated[
            float, Knob("share of the rows of each batch that is left out: those with the lowest ELBO", low=0, high=0.5)
        ] = 0.1,
        samples: Samples = 1,
        mixed: bool = False,
        missing: bool = False,
    ):
        super().__init__(samples=samples, mixed=mixed)
        self.trim, self.missing = trim, missing

    def _highest(self, figures: Tensor) -> Tensor:
        """Which of these figures (n,) are not among the lowest, bool (n,)."""
        return figures >= figures.sort().values[int(self.trim * len(figures) + 1e-9)]

    def kept(self, figures: Tensor, x: Tensor) -> Tensor:
        if self.missing:
            centre, scale = expected(~torch.isnan(x).flatten(1), figures)
            figures = (figures - centre) / scale
        return self._highest(figures)

    def bounded(self, figures: Tensor, x: Tensor) -> Tensor:
        if not self.missing:
            return super().bounded(figures, x)
        centre, scale = expected(~torch.isnan(x).flatten(1), figures)
        relative = (figures - centre) / scale
        return torch.maximum(figures, centre + scale * relative[self._highest(relative)].min())

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        trace = self.trace(model, batch, None if self.samples == 1 else self.samples)
        d, r = distortion(trace, batch.x), rate(trace)
        kept = self.kept(-(d + r).detach(), batch.x)
        loss = torch.where(kept, d + self.beta(step) * r, 0.0).sum() / kept.sum()
        return Losses({"model": loss}, elbo_stats(d, r))
