"""Training with values that are missing because of what they are: a model also of the pattern of missing values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import logsigmoid

from vaekit.densities import draw
from vaekit.errors import ChoiceError
from vaekit.heads.autoregressive import AutoregressiveHead
from vaekit.models.vae import Model
from vaekit.noise import Noise

from .base import Batch, Losses, Objective, Samples, objective
from .parts import needs_density
from .terms import grouped_bound, log_weights

FASTER = 10.0
"""How many times as fast as other parameters those of the mask are learned, so that few steps suffice."""


@objective("not-miwae", "Ipsen et al. 2021, arXiv:2006.12871", "Values missing not at random")
class NotMIWAE(Objective):
    r"""loss = -log 1/K sum_k w_k, w_k = p(x_observed | z_k) p(mask | x_observed, x_missing,k) p(z_k) / q(z_k | x).

    The missing values are drawn from the model, x_missing,k ~ p(x_missing | z_k), z_k ~ q(z | x_observed). Each element
    is missing with a probability that depends on its own value, sigmoid(slope x + bias), with slope and bias learned
    per element (the self-masking model of Ipsen et al.; the sign of the slope is free). Elements that are not real
    numbers are missing with a constant probability, which does not change what the model learns of x.

    The stats are those of `IWAE`, where `elbo`, `rate` and `distortion` concern x alone, and `mask`, the mean of
    log p(mask | x). `iwae` is the bound on log p(x_observed, mask).

    Arguments:
        samples: K, the number of samples per example.
        event: shape of x.
        real: whether each element of a flat x is a real number; by default all are.
    """

    densities: ClassVar[dict[str, int]] = {**Objective.densities, "iwae": 1}
    depends: Tensor

    def __init__(self, samples: Samples = 20, event: Sequence[int] = (1,), real: Sequence[bool] | None = None):
        super().__init__()
        self.samples = samples
        self.slower_slope, self.slower_bias = nn.Parameter(torch.zeros(*event)), nn.Parameter(torch.zeros(*event))
        depends = torch.ones(*event) if real is None else torch.tensor(real).reshape(*event).float()
        self.register_buffer("depends", depends, persistent=False)

    def check(self, model: Model) -> None:
        needs_density(self, model)
        if isinstance(getattr(model.likelihood, "head", None), AutoregressiveHead):
            raise ChoiceError(
                "not-miwae draws the missing values from p(x | z), which must be independent given z: write "
                "`likelihood='mixed'`"
            )

    def parameter_groups(self, model: Model) -> dict[str, list[nn.Parameter]]:
        return {"model": [*super().parameter_groups(model)["model"], self.slower_slope, self.slower_bias]}

    @property
    def slope(self) -> Tensor:
        """The slope of each element, 0 for those that are not real numbers."""
        return FASTER * self.slower_slope * self.depends

    @property
    def bias(self) -> Tensor:
        """The logit of the probability that an element with value 0 is missing."""
        return FASTER * self.slower_bias

    def beside(self, px: Distribution, x: Tensor, noise: Noise) -> Tensor:
        missing = torch.isnan(x)
        return self.log_mask(torch.where(missing, draw(px, noise), x), missing)

    def each(self, x: Tensor, missing: Tensor) -> Tensor:
        """log p(mask_j | x_j) of each element of complete x (K, B, *event), some of which were missing (B, *event)."""
        logit = self.slope * x + self.bias
        return logsigmoid(torch.where(missing, logit, -logit))

    def log_mask(self, x: Tensor, missing: Tensor) -> Tensor:
        """log p(mask | x), (K, B); the arguments are those of `each`."""
        return self.each(x, missing).flatten(x.dim() - self.slope.dim()).sum(-1)

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        trace = self.trace(model, batch, self.samples)
        log_px, missing = trace.px.log_prob(batch.x), torch.isnan(batch.x)
        complete = torch.where(missing, draw(trace.px, batch.noise), batch.x)
        of_x, of_mask = log_weights(trace, batch.x, log_px), self.log_mask(complete, missing)
        bound = grouped_bound(of_x + of_mask)
        stats = {
            "elbo": of_x.mean(),
            "rate": (log_px - of_x).mean(),
            "distortion": -log_px.mean(),
            "iwae": bound.mean(),
            "mask": of_mask.mean(),
        }
        return Losses({"model": -bound.mean()}, stats)
