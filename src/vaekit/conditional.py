"""A conditional density is a network and a head: `forward(*given) -> Distribution`.

Prior, posterior and likelihood are all this one thing. The network emits raw parameters, flat on the last axis; the
head alone turns them into a distribution, wrapped in `Independent` once, so that its batch shape is (B,) or (K, B)
and `log_prob` gives one number a datum.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributions as D
from torch.distributions import constraints

from .distributions import ContinuousBernoulli, DiscretisedLogistic, Pixels

LOG_SCALE_FLOOR = -6.0


class Head(nn.Module):
    """Raw parameters (..., features) -> a distribution with event shape `event`. Abstract.

    Attributes:
        params: raw numbers an element of the event.
        support: where x may lie, a torch constraint.
        discrete: whether densities are probabilities (then bits per dimension make sense).
    """

    params: int = 1
    support: constraints.Constraint = constraints.real
    discrete: bool = False

    def __init__(self, event: tuple[int, ...]):
        super().__init__()
        self.event = tuple(event)

    @property
    def features(self) -> int:
        """How many raw numbers the network must emit."""
        return self.params * math.prod(self.event)

    def split(self, raw: Tensor) -> tuple[Tensor, ...]:
        """(..., features) -> `params` tensors (..., *event), in float32 at least whatever the network ran in."""
        if raw.dtype in (torch.bfloat16, torch.float16):
            raw = raw.float()
        return raw.reshape(*raw.shape[:-1], self.params, *self.event).unbind(-len(self.event) - 1)

    def independent(self, d: D.Distribution) -> D.Distribution:
        return D.Independent(d, len(self.event), validate_args=False)

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor | None:
        """Raw parameters (features,) of the best constant density for data of this mean and std, if it has one."""
        return None

    def forward(self, raw: Tensor) -> D.Distribution:
        raise RuntimeError(f"{type(self).__name__} does not define forward")


class Bernoulli(Head):
    r"""P(x = 1) = sigmoid(raw), on {0, 1}."""

    support = constraints.boolean
    discrete = True

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        return torch.logit(mean.flatten(), eps=1e-3)

    def forward(self, raw: Tensor) -> D.Distribution:
        (logits,) = self.split(raw)
        return Pixels(logits, len(self.event))


class ContinuousBernoulliHead(Head):
    """The continuous Bernoulli on [0, 1], normaliser included (Loaiza-Ganem and Cunningham 2019)."""

    support = constraints.unit_interval

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        return ContinuousBernoulli.logits_of_mean(mean.flatten().clamp(1e-2, 1 - 1e-2))

    def forward(self, raw: Tensor) -> D.Distribution:
        (logits,) = self.split(raw)
        return self.independent(ContinuousBernoulli(logits, validate_args=False))


SCALES = ("unit", "fixed", "shared", "each", "learned")


class Gaussian(Head):
    r"""N(mean, sigma^2) with its log(2 pi).

    `scale` says whose sigma: `unit` (1), `fixed` (the given `sigma`), `shared` (one learned number), `each` (one
    learned number an element, whatever is given) or `learned` (a raw number an element). A learned log sigma is
    floored softly at -6: the density of grey images is unbounded as sigma -> 0. `squash` is put on the mean: `tanh`
    bounds it by -1 and 1.
    """

    support = constraints.real

    def __init__(self, event: tuple[int, ...], scale: str = "learned", sigma: float = 1.0, squash: str = "none"):
        super().__init__(event)
        if scale not in SCALES:
            raise ValueError(f"scale {scale!r} is not one of {', '.join(SCALES)}")
        if squash not in ("none", "tanh"):
            raise ValueError(f"squash {squash!r} is not one of none, tanh")
        if not sigma > 0:
            raise ValueError(f"sigma must be above 0, got {sigma}")
        self.scale, self.squash = scale, squash
        self.params = 2 if scale == "learned" else 1
        start = torch.tensor(math.log(sigma))
        if scale in ("shared", "each"):
            self.log_scale = nn.Parameter(start if scale == "shared" else start.expand(self.event).clone())
        else:
            self.register_buffer("log_scale", start if scale == "fixed" else torch.zeros(()))

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor | None:
        if self.squash != "none":
            return None
        bias = [mean.flatten()]
        if self.scale == "learned":
            floored = torch.log(std.flatten().clamp_min(math.exp(-4))) - LOG_SCALE_FLOOR
            bias.append(floored + torch.log(-torch.expm1(-floored)) + LOG_SCALE_FLOOR)
        return torch.cat(bias)

    def forward(self, raw: Tensor) -> D.Distribution:
        if self.scale == "learned":
            mean, raw_scale = self.split(raw)
            log_scale = LOG_SCALE_FLOOR + F.softplus(raw_scale - LOG_SCALE_FLOOR)
        else:
            (mean,) = self.split(raw)
            log_scale = self.log_scale
            if self.scale in ("shared", "each"):
                log_scale = LOG_SCALE_FLOOR + F.softplus(log_scale - LOG_SCALE_FLOOR)
        if self.squash == "tanh":
            mean = torch.tanh(mean)
        sigma = torch.exp(log_scale).to(mean.dtype).expand(mean.shape)
        return self.independent(D.Normal(mean, sigma, validate_args=False))


class DiscretisedLogisticHead(Head):
    """Integers 0 .. levels-1 as a binned logistic: a probability, with exact edge bins."""

    params = 2
    discrete = True

    def __init__(self, event: tuple[int, ...], levels: int = 256):
        super().__init__(event)
        self.levels = levels
        self.support = constraints.integer_interval(0, levels - 1)

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        loc = (mean.flatten() / (self.levels - 1)) * 2 - 1
        scale = (std.flatten() * 3**0.5 / math.pi).clamp_min(0.5) / (self.levels - 1) * 2
        return torch.cat([loc, torch.log(scale)])

    def forward(self, raw: Tensor) -> D.Distribution:
        loc, log_scale = self.split(raw)  # in units where the levels span [-1, 1]
        half = (self.levels - 1) / 2
        log_scale = math.log(half) + LOG_SCALE_FLOOR + F.softplus(log_scale - LOG_SCALE_FLOOR)
        return self.independent(DiscretisedLogistic((loc + 1) * half, log_scale, self.levels, validate_args=False))


class Conditional(nn.Module):
    """p(. | given): `head(net(*given))`. Any module with this `forward` fits the same hole, a zuko flow too."""

    def __init__(self, net: nn.Module, head: Head):
        super().__init__()
        self.net, self.head = net, head

    def forward(self, *given: Tensor) -> D.Distribution:
        return self.head(self.net(*given))
