"""Mixtures of diagonal Gaussians."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from vaekit.noise import Noise

from .drawing import Tempered
from .special import log_sum_exp


class GaussianMixture(Tempered):
    r"""sum_c w_c N(z; loc_c, diag scale_c^2) over (D,), batch shape ().

    log p(z) is the log-sum-exp of one matrix product, [z^2, z] times the natural parameters. In float32 its large terms
    would cancel, with errors of 1e-3 for scales of 0.05; in float64 it is exact and still faster than computing the
    distances. A draw is reparametrised within its component, but has no gradient with respect to the weights.

    Arguments:
        logits: (C,) log-weights up to a constant.
        loc, scale: (C, D).
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor):
        self.logits, self.loc, self.scale = torch.log_softmax(logits, -1), loc, scale
        super().__init__(torch.Size(), loc.shape[-1:], validate_args=False)

    def tempered(self, temperature: float) -> GaussianMixture:
        """Scales times t, weights to the power 1/t; at t = 0, a point at the mean of the heaviest component."""
        if temperature > 0:
            return GaussianMixture(self.logits / temperature, self.loc, self.scale * temperature)
        best = self.logits.argmax(-1, keepdim=True)
        return GaussianMixture(torch.zeros_like(self.logits[best]), self.loc[best], 0 * self.scale[best])

    @property
    def mean(self) -> Tensor:
        return (torch.exp(self.logits)[:, None] * self.loc).sum(0)

    @property
    def variance(self) -> Tensor:
        inner = self.scale.square() + (self.loc - self.mean).square()
        return (torch.exp(self.logits)[:, None] * inner).sum(0)

    def log_prob(self, value: Tensor) -> Tensor:
        dims = value.shape[-1]
        if value.device.type == "mps":  # MPS has no float64
            far = ((value[..., None, :] - self.loc) / self.scale).square().sum(-1)
            constant = torch.log(self.scale).sum(-1) + 0.5 * dims * math.log(2 * math.pi)
            return log_sum_exp(self.logits - constant - 0.5 * far, -1)
        z, loc, scale, logits = (t.double() for t in (value, self.loc, self.scale, self.logits))
        precision = scale.square().reciprocal()
        constant = (0.5 * loc.square() * precision + torch.log(scale)).sum(-1) + 0.5 * dims * math.log(2 * math.pi)
        # The terms without z are a column of the product, which then also sums their gradient over z. If they were
        # added separately, inductor would fuse that sum with the optimiser's update of loc, and fail (torch 2.13).
        natural = torch.cat([-0.5 * precision, loc * precision, (logits - constant)[:, None]], -1)
        each = torch.cat([z.square(), z, torch.ones_like(z[..., :1])], -1) @ natural.T
        return log_sum_exp(each.to(self.loc.dtype), -1)

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        below = torch.cumsum(torch.exp(self.logits), -1)[:-1]  # the component: how many cumulative weights u exceeds
        component = (noise.uniform((1,), k) > below).sum(-1)
        return self.loc[component] + self.scale[component] * noise.normal(event, k).to(self.loc.dtype)
