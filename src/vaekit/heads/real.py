"""Heads on the real line: a location and a scale."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch import distributions as D
from torch.distributions import constraints

from vaekit.densities import Normal, OptimalNormal, StudentT
from vaekit.errors import ChoiceError
from vaekit.utils.arguments import Knob

from .base import LOG_SCALE_CEILING, Head, floored, moments, raw_of_scale, slowed, within
from .register import likelihood

SCALES = ("unit", "fixed", "shared", "each", "learned")


class LocationScale(Head):
    r"""A density on the real line with a location and a scale. Abstract.

    `scale` says how the scale s is set: `unit` (1), `fixed` (the given `sigma`), `shared` (one learned number), `each`
    (one learned number per element, independent of the input) or `learned` (a raw number per element). A learned log s
    has a soft lower bound of -6: for data that repeat values exactly (grey images) the density is unbounded as s -> 0.
    """

    support = constraints.real

    def __init__(self, event: tuple[int, ...], scale: str = "learned", sigma: float = 1.0):
        super().__init__(event)
        if scale not in SCALES:
            raise ValueError(f"scale {scale!r} is not one of {', '.join(SCALES)}")
        if not sigma > 0:
            raise ValueError(f"sigma must be above 0, got {sigma}")
        self.scale = scale
        self.params = 2 if scale == "learned" else 1
        start = torch.tensor(math.log(sigma))
        if scale in ("shared", "each"):
            self.log_scale = nn.Parameter(start if scale == "shared" else start.expand(self.event).clone())
        else:
            self.register_buffer("log_scale", start if scale == "fixed" else torch.zeros(()))

    def location_and_scale(self, location: Tensor, *raw_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale from the raw tensors; a scale that examples or elements share is not expanded."""
        log_scale: Tensor = self.log_scale
        if self.scale == "learned":
            log_scale = floored(raw_scale[0]).clamp_max(LOG_SCALE_CEILING)
        elif self.scale in ("shared", "each"):
            log_scale = floored(log_scale)
        return location, torch.exp(log_scale).to(location.dtype)

    def scale_of(self, std: Tensor) -> Tensor:
        """The scale at which the density has this standard deviation."""
        return std

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor | None:
        if self.scale != "learned":
            return mean.flatten()
        return torch.cat([mean.flatten(), raw_of_scale(self.scale_of(std).flatten())])

    @torch.no_grad()
    def start_numbers(self, x: Tensor) -> None:
        if self.scale not in ("shared", "each"):
            return
        n, _, variance = moments(x)
        if self.scale == "shared":
            variance = (variance * n).sum() / n.sum().clamp_min(1)
        self.log_scale.copy_(raw_of_scale(self.scale_of(variance.sqrt())))


class Gaussian(LocationScale):
    r"""N(mean, sigma^2), its log(2 pi) included; `scale` as for every `LocationScale`, or `optimal`.

    `optimal` is sigma-VAE (Rybkin et al. 2021), with one sigma. In training sigma is the optimum of each batch, which
    makes a loss but no density of x. Elsewhere it is the frozen `log_scale`, the running average of those optima, which
    is saved with the weights: evaluation with it gives a valid bound. See `OptimalNormal`.

    `squash` is applied to the mean: `tanh` bounds it by -1 and 1. With `slow`, a learned sigma is e^raw up to 1, and
    above that 1 + raw: a few outliers then cannot get an astronomic sigma, from which no gradient leads back.
    """

    updates: Tensor

    def __init__(
        self,
        event: tuple[int, ...],
        scale: str = "learned",
        sigma: float = 1.0,
        squash: str = "none",
        slow: bool = False,
    ):
        if scale not in (*SCALES, "optimal"):
            raise ValueError(f"scale {scale!r} is not one of {', '.join((*SCALES, 'optimal'))}")
        if squash not in ("none", "tanh"):
            raise ValueError(f"squash {squash!r} is not one of none, tanh")
        super().__init__(event, "unit" if scale == "optimal" else scale, sigma)
        self.scale, self.squash, self.slow = scale, squash, slow
        if scale == "optimal":
            self.register_buffer("updates", torch.zeros(()))

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor | None:
        return None if self.squash != "none" else super().initial_bias(mean, std)

    def location_and_scale(self, location: Tensor, *raw_scale: Tensor) -> tuple[Tensor, Tensor]:
        if not (self.slow and self.scale == "learned"):
            return super().location_and_scale(location, *raw_scale)
        return location, torch.exp(slowed(floored(raw_scale[0]))).to(location.dtype)

    def forward(self, raw: Tensor) -> D.Distribution:
        mean, sigma = self.location_and_scale(*self.split(raw))
        if self.squash == "tanh":
            mean = torch.tanh(mean)
        if self.scale == "optimal":
            return self.independent(OptimalNormal(mean, self.log_scale, self.updates if self.training else None))
        return self.independent(Normal(mean, sigma))


class LaplaceHead(LocationScale):
    """p(x) = e^{-|x - m| / b} / 2b, the likelihood that corresponds to the absolute error."""

    def scale_of(self, std: Tensor) -> Tensor:
        return std / 2**0.5

    def forward(self, raw: Tensor) -> D.Distribution:
        location, scale = self.location_and_scale(*self.split(raw))
        return self.independent(D.Laplace(location, scale, validate_args=False))


class StudentTHead(LocationScale):
    """Student's t, for data with outliers.

    Its degrees of freedom are one learned number above 2, where the variance exists, and below 22,000, where the
    density is nearly Gaussian.
    """

    LOWEST, HIGHEST, START = -4.0, 10.0, 10.0

    def __init__(self, event: tuple[int, ...], scale: str = "learned", sigma: float = 1.0):
        super().__init__(event, scale, sigma)
        self.log_excess = nn.Parameter(torch.tensor(math.log(self.START - 2)))

    def scale_of(self, std: Tensor) -> Tensor:
        return std * math.sqrt((self.START - 2) / self.START)

    def forward(self, raw: Tensor) -> D.Distribution:
        location, scale = self.location_and_scale(*self.split(raw))
        df = 2 + torch.exp(within(self.log_excess, self.LOWEST, self.HIGHEST)).to(location)
        return self.independent(StudentT(df, location, scale, validate_args=False))


Sigma = Annotated[
    str,
    Knob(
        "scale of the density: unit, shared (one learned number), each (one learned number per element), learned (by "
        "the decoder, for each element), optimal (of each batch), or a number; auto: each for vectors and the real "
        "columns of mixed tables, shared for images and signals"
    ),
]


def scale_and_sigma(sigma: str, name: str, event: tuple[int, ...]) -> tuple[Any, ...]:
    """The arguments `scale` and `sigma` of a `LocationScale` head over `event` for the value of the option `sigma`.

    Raises:
        ChoiceError: the value is neither a known word nor a number above 0.
    """
    words = ("unit", "shared", "each", "learned", *(("optimal",) if name == "gaussian" else ()), "auto")
    if sigma == "auto":  # the elements of an image are alike, the columns of a table are not
        return ("each" if len(event) == 1 else "shared",)
    if sigma in words:
        return (sigma,)
    try:
        number = float(sigma)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ChoiceError(
            f"`sigma` of a {name} likelihood must be {', '.join(words)} or a number above 0, got {sigma!r}"
        )
    return "fixed", number


@likelihood("gaussian", "Kingma and Welling 2013, arXiv:1312.6114; Rybkin et al. 2021, arXiv:2006.13202")
def gaussian(event: tuple[int, ...], sigma: Sigma = "auto") -> Gaussian:
    """A Gaussian p(x|z)."""
    return Gaussian(event, *scale_and_sigma(sigma, "gaussian", event))


@likelihood("laplace", "Laplace 1774")
def laplace(event: tuple[int, ...], sigma: Sigma = "auto") -> LaplaceHead:
    """A Laplace p(x|z)."""
    return LaplaceHead(event, *scale_and_sigma(sigma, "laplace", event))


@likelihood("student-t", "Takahashi et al. 2018, doi:10.24963/ijcai.2018/374")
def student_t(event: tuple[int, ...], sigma: Sigma = "auto") -> StudentTHead:
    """A Student's t p(x|z) with learned degrees of freedom."""
    return StudentTHead(event, *scale_and_sigma(sigma, "student-t", event))
