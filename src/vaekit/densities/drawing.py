"""Draws from any density with keyed noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

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
)

from vaekit.noise import Noise
from vaekit.utils.isolation import seeded

from .gamma import standard_beta, standard_gamma, standard_t


@singledispatch
def _from_noise(d: Distribution, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    """Draws from an elementwise density `d`, of shape (K?, B, *event).

    A density that is not registered is drawn by its own sampler, with a generator seeded from the noise. This is
    repeatable, but the draw of a row depends on the batch that the row is in, and the step cannot be compiled.
    """
    shape = torch.Size(((k,) if k is not None else ()) + (len(noise.rows), *event))
    sample_shape = shape[: len(shape) - len(d.batch_shape) - len(d.event_shape)]
    with seeded(int(noise.bits((1,))[..., 0].long().sum()), noise.rows.device):
        return d.rsample(sample_shape) if d.has_rsample else d.sample(sample_shape)


@_from_noise.register
def _(d: Normal, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    return d.loc + d.scale * noise.normal(event, k).to(d.loc.dtype)


@_from_noise.register
def _(d: Bernoulli, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    return (noise.uniform(event, k) < d.probs).to(d.probs.dtype)


@_from_noise.register
def _(d: OneHotCategorical, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    below = torch.cumsum(d.probs, -1)[..., :-1]  # the class is the number of cumulative probabilities that u exceeds
    index = (noise.uniform((1,), k) > below).sum(-1)
    return F.one_hot(index, event[0]).to(d.probs.dtype)


@_from_noise.register
def _(d: Laplace, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    return d.icdf(noise.uniform(event, k))


@_from_noise.register
def _(d: Gamma, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    return standard_gamma(noise, d.concentration, event, k) / d.rate


@_from_noise.register
def _(d: Beta, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    return standard_beta(noise, d.concentration1, d.concentration0, event, k)


@_from_noise.register
def _(d: StudentT, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    return d.loc + d.scale * standard_t(noise, d.df, event, k)


def draw(d: Distribution, noise: Noise, k: int | None = None) -> Tensor:
    """One draw per row of `noise`, or k of them on a leading axis, reparametrised where the density allows it.

    `d` has batch shape () (a prior), (B,) or, with k samples already on its leading axis, (K, B); the draw has shape
    (B, *event) or (K, B, *event).
    """
    if len(d.batch_shape) == 2:
        if k is not None:
            raise ValueError(f"k={k}, but this density already has a sample axis of {d.batch_shape[0]}: omit k")
        k = d.batch_shape[0]
    base = d.base_dist if isinstance(d, Independent) else d
    return _from_noise(base, noise, tuple(d.event_shape), k)


class Tempered(Distribution):
    """A density with its own rule for draws at a temperature. Abstract.

    Densities are not `abc.ABC`s: if one were registered, `singledispatch` would read the ABC cache token at each call,
    and torch.compile would break the graph there.
    """

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


def draw_with_density(d: Distribution, noise: Noise, k: int | None = None) -> tuple[Tensor, Tensor | None]:
    """`draw`, and log d(draw) (K?, B) if drawing yields it (`d.draw_with_density`, as for flows), else None."""
    own = getattr(d, "draw_with_density", None)
    return own(noise, k) if own is not None else (draw(d, noise, k), None)


class Elementwise(Distribution):
    """A density of one element (no event axes), whose `sample` and `rsample` use its keyed draw. Abstract."""

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with torch.no_grad():
            return _from_noise(self, Noise.fresh(1), tuple(self._extended_shape(torch.Size(sample_shape))), None)[0]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        if not self.has_rsample:
            raise ValueError(f"draws of {type(self).__name__} carry no gradient")
        return _from_noise(self, Noise.fresh(1), tuple(self._extended_shape(torch.Size(sample_shape))), None)[0]
