"""Independent binary pixels, and the point distribution, which has no density."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, constraints

from vaekit.noise import Noise

from .drawing import Keyed


def _sum_of_logs(logits: Tensor, value: Tensor) -> Tensor:
    """sum_i x_i l_i - log(1 + e^{l_i}) over the last axis, with one logarithm for many pixels.

    log(1 + e^l) = max(l, 0) + log(1 + e^{-|l|}), and the last terms are summed as logarithms of products of up to 112
    factors, each in (1, 2], so that nothing overflows. The factors of a product are 16 pixels apart, so that vector
    instructions compute 16 products at once.
    """
    n = logits.shape[-1]
    lanes = 16 if n % 16 == 0 else 1
    factors = next((f for f in range(min(n // lanes, 112), 0, -1) if n // lanes % f == 0), 1)
    shape = (n // factors // lanes, factors, lanes)
    products = (1 + torch.exp(-logits.abs())).unflatten(-1, shape).prod(-2)
    linear = (value * logits - logits.clamp(min=0)).unflatten(-1, shape).sum(-2)
    return (linear - torch.log(products)).sum((-1, -2))


class _SumOfLogs(torch.autograd.Function):
    """`_sum_of_logs` with a gradient that does not pass through the products."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(logits, value)
        return _sum_of_logs(logits, value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None]:
        logits, value = ctx.saved_tensors
        g = gradients[0].unsqueeze(-1)
        return g * (value - torch.sigmoid(logits)), g * logits if ctx.needs_input_grad[1] else None


class Pixels(Independent):
    r"""Independent Bernoulli variables over an event, parametrised by logits l.

    log p(x) = sum_i x_i l_i - log(1 + e^{l_i}). After matrix products, logarithms take most of the time of scoring, so
    several pixels share one.
    """

    def __init__(self, logits: Tensor, event_dims: int):
        super().__init__(Bernoulli(logits=logits, validate_args=False), event_dims, validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: Distribution | None = None) -> Pixels:
        logits = self.base_dist.logits
        shape = (*batch_shape, *logits.shape[logits.dim() - len(self.event_shape) :])
        return Pixels(logits.expand(shape), len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return super().log_prob(value)  # eagerly, torch's own operation is faster
        first = -len(self.event_shape)
        logits, value = torch.broadcast_tensors(self.base_dist.logits.flatten(first), value.flatten(first))
        return _SumOfLogs.apply(logits, value) if torch.is_grad_enabled() else _sum_of_logs(logits, value)


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
