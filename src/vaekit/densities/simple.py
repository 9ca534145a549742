"""Independent binary pixels, and the point distribution, which has no density."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, constraints

from vaekit.noise import Noise

from .drawing import Keyed


class Pixels(Independent):
    r"""Independent Bernoulli variables over an event, parametrised by logits l.

    log p(x) = sum_i x_i l_i - max(l_i, 0) - log(1 + e^{-|l_i|}). Without gradients the last terms are summed as
    logarithms of products of up to 112 factors, each in (1, 2], so that nothing overflows. This takes one logarithm
    per 112 pixels; after the decoder's matrix products, logarithms take most of the time of scoring.
    """

    def __init__(self, logits: Tensor, event_dims: int):
        super().__init__(Bernoulli(logits=logits, validate_args=False), event_dims, validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: Distribution | None = None) -> Pixels:
        logits = self.base_dist.logits
        shape = (*batch_shape, *logits.shape[logits.dim() - len(self.event_shape) :])
        return Pixels(logits.expand(shape), len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        n = self.event_shape.numel()
        factors = next((f for f in range(min(n, 112), 0, -1) if n % f == 0), 1)
        if torch.is_grad_enabled() or factors < 8:
            return super().log_prob(value)
        first = -len(self.event_shape)
        logits = self.base_dist.logits.flatten(first)
        products = (1 + torch.exp(-logits.abs())).unflatten(-1, (n // factors, factors)).prod(-1)
        return (value.flatten(first) * logits - logits.clamp(min=0)).sum(-1) - torch.log(products).sum(-1)


class Point(Keyed):
    """All probability at one point, as in the posterior of an autoencoder. It has no density."""

    arg_constraints: ClassVar = {"loc": constraints.real}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, validate_args: bool | None = None):
        self.loc = loc
        super().__init__(loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.loc.expand(self._extended_shape(torch.Size(sample_shape)))

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        return self.loc.expand((*(() if k is None else (k,)), *self.loc.shape[-len(event) - 1 :]))
