"""Heads for the integers 0 .. levels-1, such as 8-bit pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import distributions as D
from torch.distributions import constraints

from vaekit.densities import Categorical, DiscretisedLogistic, LogisticMixture
from vaekit.utils.arguments import Knob

from .base import LOG_SCALE_FLOOR, Head, raw_of_within, within
from .register import likelihood

WIDTHS = (0.0, 0.004, 0.008, 0.012, 0.016, 0.024, 0.032, 0.048, 0.064, 0.096, 0.128, 0.192, 0.256)
"""The smallest scales among which `fitted` chooses, in units where the levels span [-1, 1]; half a level to 33 of 256
levels."""


class DiscretisedLogisticHead(Head):
    r"""Integers 0 .. levels-1 as a logistic in bins of width 1; the first and the last bin extend to infinity.

    The raw numbers are a location m and a log scale r per element, in units where the levels span [-1, 1]. The scale
    is e^r + e^f, where f is -6 or, if larger, the log of the smallest scale.

    A scale per element overfits: with few data or long training, it describes how precisely the decoder reproduces the
    training data, which is more precise than it reproduces others (Takahashi et al. 2018 and Rybkin et al. 2021 bound
    or share it). A `fitted` smallest scale is therefore the one of `WIDTHS` with the highest validation ELBO.
    Training chooses it again at each validation, so that it is 0 as long as the decoder does not overfit. The training
    step itself uses half of it: with all of it, reconstructions are worse, because codes then carry less information.
    An extended run chooses once more than a run of its length: at its former end.

    Arguments:
        levels: number of levels.
        least_scale: the smallest scale, in levels; None for a fitted one.
    """

    params = 2
    discrete = True
    floor: Tensor | float

    def __init__(self, event: tuple[int, ...], levels: int = 256, least_scale: float | None = 0.0):
        super().__init__(event)
        self.levels, self.middle = levels, (levels - 1) / 2
        self.support = constraints.integer_interval(0, levels - 1)
        self.chooses = least_scale is None
        if least_scale is None:
            self.register_buffer("floor", torch.tensor(LOG_SCALE_FLOOR))
        else:
            self.floor = _log_floor(least_scale / self.middle)

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        loc = (mean.flatten() / (self.levels - 1)) * 2 - 1
        scale = (std.flatten() * 3**0.5 / math.pi).clamp_min(0.5) / (self.levels - 1) * 2
        return torch.cat([loc, torch.log(scale)])

    def forward(self, raw: Tensor) -> D.Distribution:
        loc, log_scale = self.split(raw)  # in units where the levels span [-1, 1]
        floor = self.floor
        if self.training and isinstance(floor, Tensor):
            floor = (floor - math.log(2)).clamp_min(LOG_SCALE_FLOOR)
        log_scale = math.log(self.middle) + floor + F.softplus(log_scale - floor)
        return self.independent(
            DiscretisedLogistic((loc + 1) * self.middle, log_scale, self.levels, validate_args=False)
        )

    def candidates(self, px: D.Distribution) -> Iterator[D.Distribution]:
        each = px.base_dist if isinstance(px, D.Independent) else None
        if not (self.chooses and isinstance(each, DiscretisedLogistic)):
            return
        own = (torch.exp(each.log_scale) - self.middle * math.exp(self.floor)).clamp_min(0)  # the scale above the floor
        for width in WIDTHS:
            log_scale = torch.log(own + self.middle * math.exp(_log_floor(width)))
            yield self.independent(DiscretisedLogistic(each.loc, log_scale, self.levels, False))

    def choose(self, position: int) -> None:
        if not isinstance(self.floor, Tensor):
            super().choose(position)
        else:
            self.floor.fill_(_log_floor(WIDTHS[position]))


def _log_floor(scale: float) -> float:
    return max(LOG_SCALE_FLOOR, math.log(scale)) if scale > 0 else LOG_SCALE_FLOOR


@likelihood("discretised-logistic", "Kingma et al. 2016, arXiv:1606.04934", observation="levels")
def discretised_logistic(
    event: tuple[int, ...],
    levels: int = 256,
    least_scale: Annotated[
        float | None,
        Knob(
            "smallest scale of the logistic, in levels; by default it is fitted: at each validation, the one with the "
            "highest ELBO of the validation data",
            low=0,
        ),
    ] = None,
) -> DiscretisedLogisticHead:
    """Integers 0 .. levels-1 as a logistic in bins, with a location and a scale per element."""
    return DiscretisedLogisticHead(event, levels, least_scale)


@likelihood("categorical", "van den Oord et al. 2016, arXiv:1601.06759", observation="levels")
class CategoricalHead(Head):
    """Integers 0 .. levels-1 with one logit per level, which can represent any distribution of an element."""

    discrete = True

    def __init__(self, event: tuple[int, ...], levels: int = 256):
        super().__init__(event)
        self.levels = self.params = levels
        self.support = constraints.integer_interval(0, levels - 1)

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        """Log-probabilities of a discretised logistic of this mean and std, mixed with 1% of the uniform."""
        mean, scale = mean.flatten(), (std.flatten() * 3**0.5 / math.pi).clamp_min(0.5)
        level = torch.arange(self.levels, dtype=mean.dtype, device=mean.device)[:, None]
        log_p = DiscretisedLogistic(mean, torch.log(scale), self.levels, validate_args=False).log_prob(level)
        return torch.log(0.99 * torch.exp(log_p) + 0.01 / self.levels).flatten()

    def forward(self, raw: Tensor) -> D.Distribution:
        return self.independent(Categorical(self.parts(raw).movedim(-len(self.event) - 1, -1), validate_args=False))


@likelihood("logistic-mixture", "Salimans et al. 2017, arXiv:1701.05517", observation="levels")
class LogisticMixtureHead(Head):
    """Integers 0 .. levels-1 as a mixture of binned logistics; all channels of a pixel share its component.

    In an event (channels, *space) the raw numbers of a pixel are a location and a log scale for each component and
    channel, and a weight for each component; in a vector every element is a pixel. Networks output equally many
    numbers for every channel, so up to channels - 1 numbers per pixel are unused. `LogisticMixture` says how this
    differs from Salimans et al. (2017).
    """

    discrete = True
    HIGHEST = 4.0  # the upper bound of a log scale, where each edge bin has half of the probability

    def __init__(self, event: tuple[int, ...], levels: int = 256, components: int = 5):
        super().__init__(event)
        if components < 1:
            raise ValueError(f"components must be 1 or more, got {components}")
        self.levels, self.components = levels, components
        self.vector = len(self.event) == 1
        self.channels, self.space = (1, self.event) if self.vector else (self.event[0], self.event[1:])
        self.params = 2 * components + math.ceil(components / self.channels)
        self.support = constraints.integer_interval(0, levels - 1)

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        """Evenly spaced components whose mixture has this mean and std."""
        k = self.components
        reach = 0.7 * torch.linspace(-1, 1, k, dtype=mean.dtype, device=mean.device) if k > 1 else mean.new_zeros(1)
        within = torch.sqrt(1 - reach.square().mean())
        loc = (mean.flatten() + reach[:, None] * std.flatten()) / (self.levels - 1) * 2 - 1
        scale = (within * std.flatten() * 3**0.5 / math.pi).clamp_min(0.5) / (self.levels - 1) * 2
        weights = mean.new_zeros((self.params - 2 * k) * math.prod(self.event))
        log_scale = raw_of_within(torch.log(scale), LOG_SCALE_FLOOR, self.HIGHEST)
        return torch.cat([loc.flatten(), log_scale.expand(k, -1).flatten(), weights])

    def forward(self, raw: Tensor) -> D.Distribution:
        parts, k, lead = self.parts(raw), self.components, raw.shape[:-1]
        first = parts.dim() - len(self.event) - 1
        shape = (*lead, k, self.channels, *self.space)
        loc, log_scale = (parts.narrow(first, i * k, k).reshape(shape) for i in (0, 1))
        rest = parts.narrow(first, 2 * k, self.params - 2 * k).reshape(*lead, -1, *self.space)
        logits = rest.narrow(len(lead), 0, k)
        half = (self.levels - 1) / 2  # in units where the levels span [-1, 1]
        log_scale = math.log(half) + within(log_scale, LOG_SCALE_FLOOR, self.HIGHEST)
        return LogisticMixture(logits, (loc + 1) * half, log_scale, self.levels, len(self.space), self.vector)
