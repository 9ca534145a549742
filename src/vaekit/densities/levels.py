"""Probabilities of the integers 0 .. levels-1, such as 8-bit pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints

from vaekit.noise import Noise

from .drawing import Keyed
from .special import log_sum_exp

WIDE, WINDOW = 1.5, 60
"""The least scale, in levels, at which a logistic's mean is an integral, and the levels about it that are summed if its
scale is less. Both are exact to 1e-8 levels; with 256 levels they have a quarter of the terms of the whole sum."""


class DiscretisedLogistic(Keyed):
    r"""A logistic on the real line, binned into the integers 0 .. levels-1.

    P(x) = s((x + 1/2 - m) / b) - s((x - 1/2 - m) / b), s the logistic function; the first bin extends to -infinity and
    the last to infinity (Kingma et al. 2016; Salimans et al. 2017). Small probabilities are exact, not replaced by a
    density. `loc` (m) and e^`log_scale` (b) are in units of one level.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "log_scale": constraints.real}

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int = 256, validate_args: bool | None = None):
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        given = (value, self.loc, self.log_scale)
        if any(t.requires_grad for t in given):
            log_p: Tensor = _LogisticMass.apply(*given, self.levels)
            return log_p
        return _logistic_mass(*given, self.levels)

    @property
    def mean(self) -> Tensor:
        """E[x] over the levels, the sum of the survival function: sum_{j=1}^{levels-1} P(x >= j)."""
        if self.levels <= WINDOW + 1:
            return _sum_from(1, self.levels - 1, self.loc, torch.exp(-self.log_scale))
        given = self.loc, self.log_scale, self.levels
        return torch.where(self.log_scale < math.log(WIDE), _narrow_mean(*given), _wide_mean(*given))

    @property
    def variance(self) -> Tensor:
        mean, total = self.mean, torch.zeros_like(self.loc)
        for level in range(self.levels):  # a sum of squares has no cancellation
            total += torch.exp(self.log_prob(torch.full_like(self.loc, level))) * (level - mean) ** 2
        return total

    def icdf(self, value: Tensor) -> Tensor:
        real = self.loc + torch.exp(self.log_scale) * torch.logit(value)
        return real.round().clamp(0, self.levels - 1)

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        return self.icdf(noise.uniform(event, k))


def _logistic_mass(value: Tensor, loc: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """log P of a `DiscretisedLogistic`."""
    centred, inverse = value - loc, torch.exp(-log_scale)
    below, above = F.logsigmoid((0.5 + centred) * inverse), F.logsigmoid((0.5 - centred) * inverse)
    # log(s(u) - s(l)) = log s(u) + log s(-l) + log(1 - e^{l - u}); at the first and last levels, one of the first two
    # terms alone
    width = torch.log(-torch.expm1(-inverse).clamp_max(-torch.finfo(inverse.dtype).tiny))
    not_first, not_last = _inside(value, levels, centred.dtype)
    return torch.addcmul(torch.addcmul(below * not_last, above, not_first), width, not_first * not_last)


def _inside(value: Tensor, levels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Factors that are 0 at the first or at the last level, else 1; multiplying is faster than `torch.where`."""
    return (value > 0).to(dtype), (value < levels - 1).to(dtype)


def _sum_from(first: Tensor | int, terms: int, loc: Tensor, inverse: Tensor) -> Tensor:
    """sum_{j=first}^{first+terms-1} P(x >= j), one term at a time, so that memory does not grow with their number."""
    above, total = loc - first + 0.5, torch.zeros_like(loc)
    for j in range(terms):
        total = total + torch.sigmoid((above - j) * inverse)
    return total


def _narrow_mean(loc: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """The mean of a `DiscretisedLogistic` of scale less than WIDE: P(x >= j) is 1 below the window and 0 above it."""
    first = (torch.floor(loc.detach() + 0.5) - (WINDOW // 2 - 1)).clamp(1, levels - WINDOW)
    return first - 1 + _sum_from(first, WINDOW, loc, torch.exp(-log_scale).clamp_min(1 / WIDE))


def _wide_mean(loc: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """The mean of a `DiscretisedLogistic` of scale at least WIDE, by the Euler-Maclaurin formula for midpoints.

    With s the logistic function, b the scale, n = levels - 1 and j = 1 .. n, sum s((m + 1/2 - j) / b) is the integral
    of s((m - t) / b) over (0, n) and a series in odd derivatives at both ends.
    """
    n, inverse = levels - 1, torch.exp(-log_scale)
    inverse = inverse.clamp(torch.finfo(inverse.dtype).tiny, 1 / WIDE)
    # b log((1 + e^(m/b)) / (1 + e^((m-n)/b))), for m up to n/2: the other half is its mirror image
    upper, steep = loc >= n / 2, inverse.clamp_min(8 / n)
    less = torch.where(upper, n - loc, loc)
    integral = (F.logsigmoid((n - less) * steep) - F.logsigmoid(-less * steep)) / steep
    integral = torch.where(upper, n - integral, integral)
    # the same without cancellation for b > n/8
    flat = inverse.clamp_max(8 / n)
    product = torch.tanh((loc - n / 2) * flat / 2) * torch.tanh(n * flat / 4)
    integral = torch.where(inverse * n > 8, integral, n / 2 + 2 * torch.atanh(product) / flat)
    return integral + _at_end(loc * inverse, inverse) - _at_end((loc - n) * inverse, inverse)


def _at_end(u: Tensor, inverse: Tensor) -> Tensor:
    """The terms of `_wide_mean` at one end: the derivatives of orders 1, 3, 5 and 7 as polynomials in p = s'(u)."""
    s, a2 = torch.sigmoid(u), inverse.square()
    p = s * (1 - s)
    third, fifth = 1 - 6 * p, 1 + p * (120 * p - 30)
    seventh = 1 + p * (p * (1680 - 5040 * p) - 126)
    series = -1 / 24 + a2 * (7 / 5760 * third + a2 * (-31 / 967680 * fifth + a2 * (127 / 154828800 * seventh)))
    return inverse * p * series


class _LogisticMass(torch.autograd.Function):
    """`_logistic_mass`, with its gradient in closed form."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, loc: Tensor, log_scale: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward(value, loc, log_scale)
        ctx.levels = levels
        return _logistic_mass(value, loc, log_scale, levels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        value, loc, log_scale = ctx.saved_tensors
        of_value, of_loc, of_scale, _ = ctx.needs_input_grad
        centred, inverse = value - loc, torch.exp(-log_scale)
        not_first, not_last = _inside(value, ctx.levels, centred.dtype)
        upper, lower = (0.5 + centred) * inverse, (0.5 - centred) * inverse  # u and -l
        up = gradients[0] * torch.sigmoid(-upper) * not_last
        down = gradients[0] * torch.sigmoid(-lower) * not_first
        by_loc = (down - up) * inverse if of_value or of_loc else None
        by_scale = None
        if of_scale:
            share = inverse / torch.expm1(inverse.clamp_max(80))  # 0 beyond, where its own gradient would overflow
            width = gradients[0] * share * (not_first * not_last)
            by_scale = -(up * upper + down * lower + width).sum_to_size(log_scale.shape)
        return (
            -by_loc.sum_to_size(value.shape) if of_value and by_loc is not None else None,
            by_loc.sum_to_size(loc.shape) if of_loc and by_loc is not None else None,
            by_scale,
            None,
        )


def chances(logits: Tensor) -> Tensor:
    """Softmax over the last axis (..., outcomes); for few outcomes, torch's takes ten times as long on a CPU."""
    weight = torch.exp(logits - logits.amax(-1, keepdim=True))
    return weight / weight.sum(-1, keepdim=True)


def outcomes(logits: Tensor, u: Tensor) -> Tensor:
    """Outcomes (...) int64 for logits (..., outcomes) by inverting the CDF at u (...); none has probability 0."""
    total = chances(logits).cumsum(-1)
    index = (total <= (u.to(total.dtype) * total[..., -1])[..., None]).sum(-1)
    return index.clamp_max(logits.shape[-1] - 1)


class Categorical(Keyed):
    r"""P(x = j) = e^{l_j} / sum_i e^{l_i} over the integers 0 .. levels-1; logits (..., levels) of any strides.

    The reference for 8-bit data: it can represent any distribution over the levels. log P is the selected logit minus
    a logsumexp, so that the gradient does not need a second tensor of `levels` numbers per element.
    """

    arg_constraints: ClassVar = {"logits": constraints.real_vector}

    def __init__(self, logits: Tensor, validate_args: bool | None = None):
        self.logits, self.levels = logits, logits.shape[-1]
        super().__init__(logits.shape[:-1], validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        logits = self.logits.expand(*shape, self.levels)
        picked = logits.gather(-1, value.long().expand(shape)[..., None])[..., 0]
        return picked - torch.logsumexp(self.logits, -1)

    @property
    def _levels(self) -> Tensor:
        return torch.arange(self.levels, dtype=self.logits.dtype, device=self.logits.device)

    @property
    def mean(self) -> Tensor:
        return torch.softmax(self.logits, -1) @ self._levels

    @property
    def variance(self) -> Tensor:
        return (torch.softmax(self.logits, -1) * (self._levels - self.mean[..., None]) ** 2).sum(-1)

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        with torch.no_grad():
            return outcomes(self.logits, noise.uniform(event, k)).to(self.logits.dtype)


class LogisticMixture(Keyed):
    r"""A mixture of discretised logistics whose component is drawn once per pixel and shared by the pixel's channels.

    P(x) = prod_pixels sum_k pi_k prod_c P(x_c; m_kc, b_kc), where each factor is a `DiscretisedLogistic`. Given the
    component, the channels are independent. In Salimans et al. (2017) the means of green and blue also depend linearly
    on the preceding channels, with coefficients from the network; here the channels depend on each other through the
    component only. Unlike their code, this one does not replace small probabilities by a density.

    Arguments:
        logits: (..., components, *space).
        loc, log_scale: (..., components, channels, *space), in units of one level.
        vector: whether the event has no channel axis (channels is 1, and every element is a pixel).
    """

    arg_constraints: ClassVar = {"logits": constraints.real, "loc": constraints.real, "log_scale": constraints.real}

    def __init__(self, logits: Tensor, loc: Tensor, log_scale: Tensor, levels: int, space: int, vector: bool = False):
        self.logits, self.loc, self.log_scale, self.levels = logits, loc, log_scale, levels
        self.space, self.vector = space, vector
        event = loc.shape[loc.dim() - space - (not vector) :]
        super().__init__(logits.shape[: logits.dim() - space - 1], event, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.integer_interval(0, self.levels - 1), len(self.event_shape))

    @property
    def components(self) -> DiscretisedLogistic:
        """The components, elementwise: (..., components, channels, *space)."""
        return DiscretisedLogistic(self.loc, self.log_scale, self.levels, validate_args=False)

    def log_prob(self, value: Tensor, observed: Tensor | None = None) -> Tensor:
        """log P(x), or the log marginal probability of the `observed` elements, bool of the event's shape."""
        value = value.unsqueeze(-self.space - 1) if self.vector else value  # (..., channels, *space)
        each = self.components.log_prob(value.unsqueeze(-self.space - 2))
        if observed is not None:
            observed = observed.unsqueeze(-self.space - 1) if self.vector else observed
            each = each * observed.unsqueeze(-self.space - 2)
        each = each.sum(-self.space - 1)
        weights = torch.log_softmax(self.logits, -self.space - 1)
        return log_sum_exp(weights + each, -self.space - 1).flatten(-self.space).sum(-1)

    def _over_components(self, values: Tensor) -> Tensor:
        weights = torch.softmax(self.logits, -self.space - 1).unsqueeze(-self.space - 1)
        mean = (weights * values).sum(-self.space - 2)
        return mean.squeeze(-self.space - 1) if self.vector else mean

    @property
    def mean(self) -> Tensor:
        return self._over_components(self.components.mean)

    @property
    def variance(self) -> Tensor:
        """The variance of each element, within and between the components."""
        mean = self.mean.unsqueeze(-self.space - 1) if self.vector else self.mean
        between = (self.components.mean - mean.unsqueeze(-self.space - 2)) ** 2
        return self._over_components(self.components.variance + between)

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        with torch.no_grad():
            space = event if self.vector else event[1:]
            pixel, u = noise.uniform(space, k), noise.uniform(event, k)
            chosen = outcomes(self.logits.movedim(-self.space - 1, -1), pixel)  # (K?, B, *space)
            lead = chosen.shape[: chosen.dim() - self.space]

            def of_chosen(values: Tensor) -> Tensor:
                values = values.expand(*lead, *values.shape[-self.space - 2 :])  # (K?, B, components, channels, *space)
                index = chosen.unsqueeze(-self.space - 1).unsqueeze(-self.space - 1)
                index = index.expand(*lead, 1, *values.shape[-self.space - 1 :])
                values = values.gather(-self.space - 2, index).squeeze(-self.space - 2)
                return values.squeeze(-self.space - 1) if self.vector else values

            one = DiscretisedLogistic(of_chosen(self.loc), of_chosen(self.log_scale), self.levels, validate_args=False)
            return one.icdf(u.to(self.loc.dtype))
