"""Draws from any density with keyed noise."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import singledispatch
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    Distribution,
    Gamma,
    Independent,
    Laplace,
    Normal,
    OneHotCategorical,
    StudentT,
    constraints,
)

from vaekit.noise import Noise
from vaekit.utils.isolation import seeded

from .gamma import standard_beta, standard_gamma, standard_t


class Keyed(Distribution):
    """A density that is drawn from keyed noise, by its `keyed_draw`. Abstract.

    Densities are not `abc.ABC`s: if one were registered, `singledispatch` would read the ABC cache token at each call,
    and torch.compile would break the graph there.
    """

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        """Draws of shape (K?, B, *event); `event` of a density of one element may have any axes."""
        raise TypeError(f"{type(self).__name__} does not define keyed_draw")

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with torch.no_grad():
            return self._fresh(torch.Size(sample_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        if not self.has_rsample:
            raise ValueError(f"draws of {type(self).__name__} carry no gradient")
        return self._fresh(torch.Size(sample_shape))

    def _fresh(self, samples: torch.Size) -> Tensor:
        device = next((v.device for v in vars(self).values() if isinstance(v, Tensor)), torch.device("cpu"))
        shape, batch = self._extended_shape(samples), self.batch_shape
        if not self.event_shape:
            return self.keyed_draw(Noise.fresh(1, device), shape, None)[0]
        if len(batch) == 2 and samples.numel() != 1:
            raise ValueError(f"{samples.numel()} samples, but this density already has a sample axis: draw 1")
        rows, k = (batch[-1], samples.numel() if len(batch) == 1 else None) if batch else (samples.numel(), None)
        return draw(self, Noise.fresh(rows, device), k).reshape(shape)

    def expand(self, batch_shape: Sequence[int], _instance: Distribution | None = None) -> Self:
        if not self.arg_constraints:
            raise ValueError(f"{type(self).__name__} cannot be expanded")
        new = copy.copy(self)
        for name in self.arg_constraints:
            value = getattr(self, name)
            setattr(new, name, value.expand(*batch_shape, *value.shape[len(self.batch_shape) :]))
        Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        return new


@singledispatch
def from_noise(d: Distribution, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    """Draws from `d`, a density of one element or of a whole event, of shape (K?, B, *event).

    A density that is neither `Keyed` nor registered here is drawn by its own sampler, with a generator seeded from the
    noise. This is repeatable, but the draw of a row depends on the batch that the row is in, and the step cannot be
    compiled.
    """
    shape = torch.Size(((k,) if k is not None else ()) + (len(noise.rows), *event))
    sample_shape = shape[: len(shape) - len(d.batch_shape) - len(d.event_shape)]
    with seeded(int(noise.bits((1,))[..., 0].long().sum()), noise.rows.device):
        return d.rsample(sample_shape) if d.has_rsample else d.sample(sample_shape)


@from_noise.register
def _(d: Keyed, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    return d.keyed_draw(noise, event, k)


@from_noise.register
def _(d: Normal, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    return d.loc + d.scale * noise.normal(event, k).to(d.loc.dtype)


@from_noise.register
def _(d: Bernoulli, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    return (noise.uniform(event, k) < d.probs).to(d.probs.dtype)


@from_noise.register
def _(d: OneHotCategorical, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    below = torch.cumsum(d.probs, -1)[..., :-1]  # the class is the number of cumulative probabilities that u exceeds
    index = (noise.uniform((1,), k) > below).sum(-1)
    return F.one_hot(index, event[0]).to(d.probs.dtype)


@from_noise.register
def _(d: Laplace, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    return d.icdf(noise.uniform(event, k))


@from_noise.register
def _(d: Gamma, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    return standard_gamma(noise, d.concentration, event, k) / d.rate


@from_noise.register
def _(d: Beta, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    return standard_beta(noise, d.concentration1, d.concentration0, event, k)


@from_noise.register
def _(d: StudentT, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    return d.loc + d.scale * standard_t(noise, d.df, event, k)


def sample_axis(d: Distribution, k: int | None) -> int | None:
    """k, or the size of the sample axis that `d` already has: its batch shape is (K, B)."""
    if len(d.batch_shape) < 2:
        return k
    if k is not None:
        raise ValueError(f"k={k}, but this density already has a sample axis of {d.batch_shape[0]}: omit k")
    return d.batch_shape[0]


def draw(d: Distribution, noise: Noise, k: int | None = None) -> Tensor:
    """One draw per row of `noise`, or k of them on a leading axis, reparametrised where the density allows it.

    `d` has batch shape () (a prior), (B,) or, with k samples already on its leading axis, (K, B); the draw has shape
    (B, *event) or (K, B, *event).
    """
    base = d.base_dist if isinstance(d, Independent) else d
    return from_noise(base, noise, tuple(d.event_shape), sample_axis(d, k))


class Tempered(Keyed):
    """A density with its own rule for draws at a temperature. Abstract."""

    def tempered(self, temperature: float) -> Distribution:
        """The density at a temperature: unchanged at 1, concentrated at its centre or mode at 0."""
        raise TypeError(f"{type(self).__name__} does not define tempered")


def draw_tempered(d: Distribution, noise: Noise, temperature: float) -> Tensor:
    """`draw` at a temperature: by its own rule if `d` is `Tempered`, else with deviations from the mean scaled."""
    if temperature == 1.0:
        return draw(d, noise)
    if isinstance(d, Tempered):
        return draw(d.tempered(temperature), noise)
    return d.mean + temperature * (draw(d, noise) - d.mean)


class Drawn(Keyed):
    """A density over (D,) that computes log q of a draw together with the draw, in `_drawn(noise, k)`. Abstract.

    Its batch shape is (), (B,) or (K, B), as for `draw`.
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, batch: Sequence[int], dims: int):
        super().__init__(torch.Size(batch), torch.Size((dims,)), validate_args=False)

    def _drawn(self, noise: Noise, k: int | None) -> tuple[Tensor, Tensor]:
        raise TypeError(f"{type(self).__name__} does not define _drawn")

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        return self._drawn(noise, k)[0]


def draw_with_density(d: Distribution, noise: Noise, k: int | None = None) -> tuple[Tensor, Tensor | None]:
    """`draw`, and log d(draw) (K?, B) if drawing yields it, as for flows, else None."""
    return d._drawn(noise, sample_axis(d, k)) if isinstance(d, Drawn) else (draw(d, noise, k), None)
