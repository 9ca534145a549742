"""Densities that torch lacks, and drawing from any density with keyed noise."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Distribution,
    Independent,
    Laplace,
    Normal,
    OneHotCategorical,
    constraints,
)

from ..noise import Noise
from .gamma import log_standard_gamma as log_standard_gamma
from .gamma import standard_gamma as standard_gamma

_ONE = torch.Size()


class Pixels(Independent):
    r"""Independent Bernoulli variables over an event, given by logits l.

    log p(x) = sum_i x_i l_i - max(l_i, 0) - log(1 + e^{-|l_i|}). Where nothing is differentiated the last terms are
    taken as the logarithm of products of up to 112 factors, each in (1, 2] and so without overflow: one logarithm
    for 112 pixels, which is what scoring spends most of its time on besides the decoder's products.
    """

    def __init__(self, logits: Tensor, event_dims: int):
        super().__init__(Bernoulli(logits=logits, validate_args=False), event_dims, validate_args=False)

    def expand(self, batch_shape, _instance=None):
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


class Point(Distribution):
    """All probability at one place: what an autoencoder has for a posterior. It has no density."""

    arg_constraints: ClassVar = {"loc": constraints.real}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, validate_args: bool | None = None):
        self.loc = loc
        super().__init__(loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    def expand(self, batch_shape, _instance=None):
        return Point(self.loc.expand(batch_shape))

    def rsample(self, sample_shape=_ONE) -> Tensor:
        return self.loc.expand(self._extended_shape(sample_shape))


class ContinuousBernoulli(Distribution):
    r"""p(x) = C(l) e^{l x} / (1 + e^l) on [0, 1], with its normaliser C(l) = l / tanh(l / 2).

    Loaiza-Ganem and Cunningham (2019). Given by logits l; the series of log C about l = 0 replaces a 0/0.
    """

    arg_constraints: ClassVar = {"logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        return ContinuousBernoulli(self.logits.expand(batch_shape), validate_args=False)

    @classmethod
    def logits_of_mean(cls, mean: Tensor) -> Tensor:
        """The logits whose mean is `mean`, in (0.01, 0.99) say, by bisection: the mean rises with the logit."""
        low, high = torch.full_like(mean, -1000.0), torch.full_like(mean, 1000.0)
        for _ in range(60):
            middle = (low + high) / 2
            above = cls(middle, validate_args=False).mean > mean
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2

    def _series(self) -> tuple[Tensor, Tensor]:
        """Where the series is used, and logits kept away from 0 so that the other branch has finite gradients."""
        near = self.logits.abs() < 0.05
        return near, torch.where(near, torch.ones_like(self.logits), self.logits)

    @property
    def log_normaliser(self) -> Tensor:
        near, away = self._series()
        square = torch.where(near, self.logits, torch.zeros_like(self.logits)) ** 2
        series = math.log(2) + square / 12 - 7 * square**2 / 1440
        return torch.where(near, series, torch.log(away / torch.tanh(away / 2)))

    def log_prob(self, value: Tensor) -> Tensor:
        return value * self.logits - F.softplus(self.logits) + self.log_normaliser

    @property
    def mean(self) -> Tensor:
        near, away = self._series()
        series = 0.5 + self.logits / 12 - self.logits**3 / 720
        size = away.abs()  # the mean at -l is one minus that at l: no exponential overflows
        far = -1 / torch.expm1(-size) - 1 / size
        return torch.where(near, series, torch.where(away > 0, far, 1 - far))

    @property
    def variance(self) -> Tensor:
        near, away = self._series()
        series = 1 / 12 - self.logits**2 / 240
        size = away.abs()
        return torch.where(near, series, 1 / size**2 - torch.exp(-size) / torch.expm1(-size) ** 2)

    def icdf(self, value: Tensor) -> Tensor:
        near, away = self._series()
        # log1p(u expm1(l)) / l, written for either sign of l so that nothing overflows
        size = away.abs()
        up = 1 + torch.log(value + (1 - value) * torch.exp(-size)) / size
        down = -torch.log1p(value * torch.expm1(-size)) / size
        far = torch.where(away > 0, up, down)
        rest = value * (1 - value)
        series = value + self.logits * rest / 2 + self.logits**2 * rest * (1 - 2 * value) / 6
        return torch.where(near, series, far).clamp(0, 1)

    def rsample(self, sample_shape=_ONE) -> Tensor:
        shape = self._extended_shape(sample_shape)
        return self.icdf(torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device))


class DiscretisedLogistic(Distribution):
    r"""A logistic on the real line, collected into the integers 0 .. levels-1: exact edge bins, no density fallback.

    P(x) = s((x + 1/2 - m) / b) - s((x - 1/2 - m) / b), s the logistic function, the first bin open below and the
    last above (Kingma et al. 2016; Salimans et al. 2017). `loc` and e^`log_scale` are in units of one level.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "log_scale": constraints.real}
    has_enumerate_support = False

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int = 256, validate_args: bool | None = None):
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self):
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape, _instance=None):
        loc, log_scale = self.loc.expand(batch_shape), self.log_scale.expand(batch_shape)
        return DiscretisedLogistic(loc, log_scale, self.levels, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        centred, inverse = value - self.loc, torch.exp(-self.log_scale)
        upper, lower = (centred + 0.5) * inverse, (centred - 0.5) * inverse
        # log(s(u) - s(l)) = log s(u) + log s(-l) + log(1 - e^{l - u})
        middle = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-inverse))
        first, last = value <= 0, value >= self.levels - 1
        return torch.where(first, F.logsigmoid(upper), torch.where(last, F.logsigmoid(-lower), middle))

    @property
    def mean(self) -> Tensor:
        """E[x] over the levels, by summing the survival function: sum_{j=1}^{levels-1} P(x >= j)."""
        total, inverse = torch.zeros_like(self.loc), torch.exp(-self.log_scale)
        for level in range(1, self.levels):  # one at a time: memory is that of the mean alone
            total += torch.sigmoid((self.loc - (level - 0.5)) * inverse)
        return total

    def icdf(self, value: Tensor) -> Tensor:
        real = self.loc + torch.exp(self.log_scale) * torch.logit(value)
        return real.round().clamp(0, self.levels - 1)

    def sample(self, sample_shape=_ONE) -> Tensor:
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            return self.icdf(u.clamp(2.0**-25, 1 - 2.0**-24))


@singledispatch
def _from_noise(d: Distribution, noise: Noise, event: tuple[int, ...], k: int | None) -> Tensor:
    """One draw from an elementwise density `d`, of shape (K?, B, *event).

    A density nobody registered is drawn by its own sampler under a generator seeded from the noise: repeatable, but
    a row's number then depends on the batch it stands in, and the step cannot be compiled.
    """
    wanted = torch.Size(((k,) if k is not None else ()) + (len(noise.rows), *event))
    missing = wanted[: len(wanted) - len(d.batch_shape) - len(d.event_shape)]
    with torch.random.fork_rng():
        torch.manual_seed(int(noise.bits((1,))[..., 0].long().sum()))
        return d.rsample(missing) if d.has_rsample else d.sample(missing)


@_from_noise.register
def _(d: Normal, noise: Noise, event, k):
    return d.loc + d.scale * noise.normal(event, k).to(d.loc.dtype)


@_from_noise.register
def _(d: Point, noise: Noise, event, k):
    return d.loc.expand((*(() if k is None else (k,)), *d.loc.shape[-len(event) - 1 :]))


@_from_noise.register
def _(d: Bernoulli, noise: Noise, event, k):
    return (noise.uniform(event, k) < d.probs).to(d.probs.dtype)


@_from_noise.register
def _(d: OneHotCategorical, noise: Noise, event, k):
    below = torch.cumsum(d.probs, -1)[..., :-1]  # the class is how many steps of the distribution function u passes
    place = (noise.uniform((1,), k) > below).sum(-1)
    return F.one_hot(place, event[0]).to(d.probs.dtype)


@_from_noise.register(Laplace)
@_from_noise.register(ContinuousBernoulli)
@_from_noise.register(DiscretisedLogistic)
def _(d, noise: Noise, event, k):
    return d.icdf(noise.uniform(event, k))


def draw(d: Distribution, noise: Noise, k: int | None = None) -> Tensor:
    """One draw a row of `noise`, or k of them on a leading axis, reparametrised where the density can be.

    `d` has batch shape () (a prior), (B,) or, with k samples already on its leading axis, (K, B); the draw has shape
    (B, *event) or (K, B, *event).
    """
    if len(d.batch_shape) == 2:
        if k is not None:
            raise ValueError(f"k={k} samples asked of a density that already has {d.batch_shape[0]}")
        k = d.batch_shape[0]
    base = d.base_dist if isinstance(d, Independent) else d
    return _from_noise(base, noise, tuple(d.event_shape), k)


def draw_with_density(d: Distribution, noise: Noise, k: int | None = None) -> tuple[Tensor, Tensor | None]:
    """`draw`, and log d(draw) (K?, B) where drawing yields it (`d.draw_with_density`: a flow), else None."""
    own = getattr(d, "draw_with_density", None)
    return own(noise, k) if own is not None else (draw(d, noise, k), None)
