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

from .distributions import (
    Beta,
    Categorical,
    ContinuousBernoulli,
    DiscretisedLogistic,
    LogisticMixture,
    NegativeBinomial,
    OptimalNormal,
    Pixels,
    Poisson,
    StudentT,
    ZeroInflatedNegativeBinomial,
    open_unit,
)

LOG_SCALE_FLOOR = -6.0
LOG_SCALE_CEILING = 30.0
"""Out of every data's reach; there so that no raw number overflows."""


def _floored(raw: Tensor, low: float = LOG_SCALE_FLOOR) -> Tensor:
    """Softly above `low`: `raw` itself far above it."""
    return low + F.softplus(raw - low)


def _raw_of_floored(value: Tensor, low: float = LOG_SCALE_FLOOR) -> Tensor:
    """The raw number that `_floored` turns into `value`, above `low`."""
    above = value - low
    return above + torch.log(-torch.expm1(-above)) + low


def _raw_of_scale(scale: Tensor) -> Tensor:
    """The raw number of a scale, of e^-4 where it is less: near the floor there is little gradient."""
    return _raw_of_floored(torch.log(scale.clamp_min(math.exp(-4))))


def _within(raw: Tensor, low: float, high: float) -> Tensor:
    """Softly between `low` and `high`: `raw` itself far from both."""
    return low + F.softplus(high - F.softplus(high - raw) - low)


def _raw_of_within(value: Tensor, low: float, high: float) -> Tensor:
    """The raw number that `_within` turns into `value`; one too near an end is read a little inside."""
    edge = 0.01 * (high - low)
    return -_raw_of_floored(-_raw_of_floored(value.clamp(low + edge, high - edge), low), -high)


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

    def parts(self, raw: Tensor) -> Tensor:
        """(..., features) -> (..., params, *event), in float32 at least whatever the network ran in."""
        if raw.dtype in (torch.bfloat16, torch.float16):
            raw = raw.float()
        return raw.reshape(*raw.shape[:-1], self.params, *self.event)

    def split(self, raw: Tensor) -> tuple[Tensor, ...]:
        """(..., features) -> `params` tensors (..., *event)."""
        return self.parts(raw).unbind(-len(self.event) - 1)

    def independent(self, d: D.Distribution) -> D.Distribution:
        return D.Independent(d, len(self.event), validate_args=False)

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor | None:
        """Raw parameters (features,) of the best constant density for data of this mean and std, if it has one."""
        return None

    def forward(self, raw: Tensor) -> D.Distribution:
        raise RuntimeError(f"{type(self).__name__} does not define forward")


def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many data of x (n, *event) have each element, its mean and its variance; missing values are nan.

    Of an element that no datum has, the mean and the variance are taken to be 0.
    """
    there = ~torch.isnan(x)
    n = there.sum(0)
    mean = torch.where(there, x, 0.0).sum(0) / n.clamp_min(1)
    return n, mean, torch.where(there, (x - mean).square(), 0.0).sum(0) / n.clamp_min(1)


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


class LocationScale(Head):
    r"""A density on the real line with a location and a scale. Abstract.

    `scale` says whose scale s: `unit` (1), `fixed` (the given `sigma`), `shared` (one learned number), `each` (one
    learned number an element, whatever is given) or `learned` (a raw number an element). A learned log s is floored
    softly at -6: a density of data that repeat values exactly (grey images) is unbounded as s -> 0.
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

    def location_and_scale(self, location: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """From the raw tensors: location, scale, and those left over."""
        log_scale: Tensor = self.log_scale
        if self.scale == "learned":
            log_scale, rest = _floored(rest[0]).clamp_max(LOG_SCALE_CEILING), rest[1:]
        elif self.scale in ("shared", "each"):
            log_scale = _floored(log_scale)
        return location, torch.exp(log_scale).to(location.dtype).expand(location.shape), rest

    def scale_of(self, std: Tensor) -> Tensor:
        """The scale at which the density has this standard deviation."""
        return std

    def bias(self, mean: Tensor, std: Tensor) -> list[Tensor]:
        """Raw parameters of the density of this mean and deviation, those that the network gives."""
        if self.scale != "learned":
            return [mean.flatten()]
        return [mean.flatten(), _raw_of_scale(self.scale_of(std).flatten())]

    @torch.no_grad()
    def start_scale(self, x: Tensor) -> None:
        """Put a learned number at the scale of the best constant density for x (n, *event), where nan is missing.

        An optimiser moves log s by about its rate a step, so that from s = 1 it would be long on its way.
        """
        if self.scale not in ("shared", "each"):
            return
        n, _, variance = moments(x)
        if self.scale == "shared":
            variance = (variance * n).sum() / n.sum().clamp_min(1)
        self.log_scale.copy_(_raw_of_scale(self.scale_of(variance.sqrt())))


class Gaussian(LocationScale):
    r"""N(mean, sigma^2) with its log(2 pi); `scale` as for every `LocationScale`, or `optimal`.

    `optimal` is sigma-VAE (Rybkin et al. 2021): one sigma, in training each batch's own optimum, a device of training
    that is no density of x; elsewhere the frozen `log_scale`, the running average of the optima seen in training,
    which is saved with the weights: what is measured with it is a bound like any other. See `OptimalNormal`.

    `squash` is put on the mean: `tanh` bounds it by -1 and 1.
    """

    updates: Tensor

    def __init__(self, event: tuple[int, ...], scale: str = "learned", sigma: float = 1.0, squash: str = "none"):
        if scale not in (*SCALES, "optimal"):
            raise ValueError(f"scale {scale!r} is not one of {', '.join((*SCALES, 'optimal'))}")
        if squash not in ("none", "tanh"):
            raise ValueError(f"squash {squash!r} is not one of none, tanh")
        super().__init__(event, "unit" if scale == "optimal" else scale, sigma)
        self.scale, self.squash = scale, squash
        if scale == "optimal":
            self.register_buffer("updates", torch.zeros(()))

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor | None:
        return None if self.squash != "none" else torch.cat(self.bias(mean, std))

    def forward(self, raw: Tensor) -> D.Distribution:
        mean, sigma, _ = self.location_and_scale(*self.split(raw))
        if self.squash == "tanh":
            mean = torch.tanh(mean)
        if self.scale == "optimal":
            return self.independent(OptimalNormal(mean, self.log_scale, self.updates if self.training else None))
        return self.independent(D.Normal(mean, sigma, validate_args=False))


class LaplaceHead(LocationScale):
    """p(x) = e^{-|x - m| / b} / 2b: the likelihood of the absolute error."""

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        return torch.cat(self.bias(mean, std))

    def scale_of(self, std: Tensor) -> Tensor:
        return std / 2**0.5

    def forward(self, raw: Tensor) -> D.Distribution:
        location, scale, _ = self.location_and_scale(*self.split(raw))
        return self.independent(D.Laplace(location, scale, validate_args=False))


class StudentTHead(LocationScale):
    """Student's t, for data with outliers.

    Arguments:
        df: the degrees of freedom, a number above 1 (at 1 there is no mean to reconstruct), or whose they are:
            `shared` (one learned number) or `learned` (a raw number an element). Learned ones are above 2, where the
            variance exists, and below 22,000, where nothing tells the density from a Gaussian.
    """

    LOWEST, HIGHEST = -4.0, 10.0

    def __init__(self, event: tuple[int, ...], df: float | str = "shared", scale: str = "learned", sigma: float = 1.0):
        super().__init__(event, scale, sigma)
        if isinstance(df, str) and df not in ("shared", "learned"):
            raise ValueError(f"df {df!r} is not shared, learned or a number above 1")
        if not isinstance(df, str) and not 1 < df < math.inf:
            raise ValueError(f"df must be a number above 1, where the mean exists, got {df}")
        self.df = df
        self.params += df == "learned"
        if df == "shared":
            self.log_excess = nn.Parameter(torch.tensor(math.log(8.0)))

    def degrees(self, *raw: Tensor) -> Tensor:
        """The degrees of freedom, from what was left of the raw tensors."""
        if isinstance(self.df, str):
            excess = raw[0] if self.df == "learned" else self.log_excess
            return 2 + torch.exp(_within(excess, self.LOWEST, self.HIGHEST))
        return torch.tensor(float(self.df))

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        found = self.bias(mean, std)
        if self.df == "learned":
            start = torch.full_like(found[0], math.log(self.start_df - 2))
            found.append(_raw_of_within(start, self.LOWEST, self.HIGHEST))
        return torch.cat(found)

    @property
    def start_df(self) -> float:
        return 10.0 if isinstance(self.df, str) else self.df

    def scale_of(self, std: Tensor) -> Tensor:
        return std * math.sqrt(max(self.start_df - 2, 0.5) / self.start_df)

    def forward(self, raw: Tensor) -> D.Distribution:
        location, scale, rest = self.location_and_scale(*self.split(raw))
        df = self.degrees(*rest).to(location).expand(location.shape)
        return self.independent(StudentT(df, location, scale, validate_args=False))


class BetaHead(Head):
    """The beta density on the open interval (0, 1): for dequantised data, since at 0 and 1 it may be infinite.

    The logs of both concentrations are raw numbers, softly between -5 and 12 (a deviation of 0.001 at 1/2).
    """

    params = 2
    support = open_unit
    LOWEST, HIGHEST = -5.0, 12.0

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        mean = mean.flatten().clamp(1e-3, 1 - 1e-3)
        both = (mean * (1 - mean) / std.flatten().clamp_min(1e-2) ** 2 - 1).clamp_min(0.1)
        logs = torch.cat([torch.log(mean * both), torch.log((1 - mean) * both)])
        return _raw_of_within(logs, self.LOWEST, self.HIGHEST)

    def forward(self, raw: Tensor) -> D.Distribution:
        a, b = (torch.exp(_within(t, self.LOWEST, self.HIGHEST)) for t in self.split(raw))
        return self.independent(Beta(a, b, validate_args=False))


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


class CategoricalHead(Head):
    """Integers 0 .. levels-1 with a logit each: the exact reference for 8-bit data, 256 raw numbers an element."""

    discrete = True

    def __init__(self, event: tuple[int, ...], levels: int = 256):
        super().__init__(event)
        self.levels = self.params = levels
        self.support = constraints.integer_interval(0, levels - 1)

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        """A discretised logistic of this mean and deviation, and a hundredth of the uniform."""
        mean, scale = mean.flatten(), (std.flatten() * 3**0.5 / math.pi).clamp_min(0.5)
        level = torch.arange(self.levels, dtype=mean.dtype, device=mean.device)[:, None]
        log_p = DiscretisedLogistic(mean, torch.log(scale), self.levels, validate_args=False).log_prob(level)
        return torch.log(0.99 * torch.exp(log_p) + 0.01 / self.levels).flatten()

    def forward(self, raw: Tensor) -> D.Distribution:
        return self.independent(Categorical(self.parts(raw).movedim(-len(self.event) - 1, -1), validate_args=False))


class LogisticMixtureHead(Head):
    """Integers 0 .. levels-1 as a mixture of binned logistics, its component shared by the channels of a pixel.

    In an event (channels, *space) a pixel's raw numbers are a location and a log scale for each component and channel,
    and a weight for each component; in a vector every element is a pixel. Networks give every channel equally many
    numbers, so up to channels - 1 of a pixel go unused. See `LogisticMixture` for what Salimans et al. (2017) do more.
    """

    discrete = True
    HIGHEST = 4.0  # of a log scale: half of the probability then lies on either edge

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
        """Components side by side, together of this mean and deviation."""
        k = self.components
        reach = 0.7 * torch.linspace(-1, 1, k, dtype=mean.dtype, device=mean.device) if k > 1 else mean.new_zeros(1)
        within = torch.sqrt(1 - reach.square().mean())
        place = (mean.flatten() + reach[:, None] * std.flatten()) / (self.levels - 1) * 2 - 1
        scale = (within * std.flatten() * 3**0.5 / math.pi).clamp_min(0.5) / (self.levels - 1) * 2
        weights = mean.new_zeros((self.params - 2 * k) * math.prod(self.event))
        log_scale = _raw_of_within(torch.log(scale), LOG_SCALE_FLOOR, self.HIGHEST)
        return torch.cat([place.flatten(), log_scale.expand(k, -1).flatten(), weights])

    def forward(self, raw: Tensor) -> D.Distribution:
        parts, k, lead = self.parts(raw), self.components, raw.shape[:-1]
        first = parts.dim() - len(self.event) - 1
        shape = (*lead, k, self.channels, *self.space)
        loc, log_scale = (parts.narrow(first, i * k, k).reshape(shape) for i in (0, 1))
        rest = parts.narrow(first, 2 * k, self.params - 2 * k).reshape(*lead, -1, *self.space)
        logits = rest.narrow(len(lead), 0, k)
        half = (self.levels - 1) / 2  # in units where the levels span [-1, 1]
        log_scale = math.log(half) + _within(log_scale, LOG_SCALE_FLOOR, self.HIGHEST)
        return LogisticMixture(logits, (loc + 1) * half, log_scale, self.levels, len(self.space), self.vector)


class Counts(Head):
    """Counts 0, 1, 2, ... of a mean given by its logarithm, softly between -12 and 16. Abstract.

    Arguments:
        link: what a raw number is: the log mean (`exp`) or the mean before a `softplus`.
    """

    support = constraints.nonnegative_integer
    discrete = True
    LOWEST, HIGHEST = -12.0, 16.0

    def __init__(self, event: tuple[int, ...], link: str = "exp"):
        super().__init__(event)
        if link not in ("exp", "softplus"):
            raise ValueError(f"link {link!r} is not one of exp, softplus")
        self.link = link

    def log_mean(self, raw: Tensor) -> Tensor:
        if self.link == "softplus":
            low = raw < -15  # there softplus(raw) = e^raw to float32's last bit
            raw = torch.where(low, raw, torch.log(F.softplus(torch.where(low, torch.zeros_like(raw), raw))))
        return _within(raw, self.LOWEST, self.HIGHEST)

    def raw_mean(self, mean: Tensor) -> Tensor:
        """The raw numbers of a mean; one of 0 is read as 0.001."""
        raw = _raw_of_within(torch.log(mean.flatten().clamp_min(1e-3)), self.LOWEST, self.HIGHEST)
        return _raw_of_floored(torch.exp(raw), 0.0) if self.link == "softplus" else raw


class PoissonHead(Counts):
    """Poisson counts: the variance is the mean."""

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        return self.raw_mean(mean)

    def forward(self, raw: Tensor) -> D.Distribution:
        (mean,) = self.split(raw)
        return self.independent(Poisson(self.log_mean(mean), validate_args=False))


DISPERSIONS = ("shared", "each", "learned")


class OverdispersedCounts(Counts):
    """Counts whose rate varies, with an inverse dispersion r. Abstract.

    Arguments:
        dispersion: whose log r: `shared` (one learned number), `each` (one learned number an element, whatever is
            given) or `learned` (a raw number an element). It lies softly between -6 and 12, where the density is
            Poisson's.
        link: see `Counts`.
    """

    def __init__(self, event: tuple[int, ...], dispersion: str = "each", link: str = "exp"):
        super().__init__(event, link)
        if dispersion not in DISPERSIONS:
            raise ValueError(f"dispersion {dispersion!r} is not one of {', '.join(DISPERSIONS)}")
        self.dispersion = dispersion
        self.params = 2 if dispersion == "learned" else 1
        if dispersion != "learned":
            self.raw_dispersion = nn.Parameter(torch.zeros(() if dispersion == "shared" else self.event))

    def mean_and_dispersion(self, mean: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """log m and log r from the raw tensors, and those left over."""
        if self.dispersion == "learned":
            raw, rest = rest[0], rest[1:]
        else:
            raw = self.raw_dispersion.to(mean.dtype).expand(mean.shape)
        return self.log_mean(mean), _within(raw, LOG_SCALE_FLOOR, 12.0), rest

    def bias(self, mean: Tensor, variance: Tensor) -> list[Tensor]:
        """Raw parameters of a negative binomial of this mean and variance, those that the network gives."""
        found = [self.raw_mean(mean)]
        if self.dispersion == "learned":
            excess = (variance - mean).flatten().clamp_min(1e-6)
            log_r = torch.log(mean.flatten().square() / excess).clamp(-3, 5)
            found.append(_raw_of_within(log_r, LOG_SCALE_FLOOR, 12.0))
        return found


class NegativeBinomialHead(OverdispersedCounts):
    """Negative binomial counts, variance m + m^2 / r: counts of genes in cells."""

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        return torch.cat(self.bias(mean, std.square()))

    def forward(self, raw: Tensor) -> D.Distribution:
        log_mean, log_r, _ = self.mean_and_dispersion(*self.split(raw))
        return self.independent(NegativeBinomial(log_mean, log_r, validate_args=False))


class ZeroInflatedNegativeBinomialHead(OverdispersedCounts):
    """A negative binomial that is 0 with a chance of its own as well: its logit is one more raw number an element."""

    START = -2.0  # the logit before training: a chance of 0.12

    def __init__(self, event: tuple[int, ...], dispersion: str = "each", link: str = "exp"):
        super().__init__(event, dispersion, link)
        self.params += 1

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor:
        """A negative binomial that makes up for the zeros put in: its mean, and the deviation that stays."""
        kept = 1 / (1 + math.exp(self.START))
        counts = mean / kept
        variance = (std.square() - kept * (1 - kept) * counts**2) / kept
        return torch.cat([*self.bias(counts, variance), torch.full_like(counts.flatten(), self.START)])

    def forward(self, raw: Tensor) -> D.Distribution:
        log_mean, log_r, (dropout,) = self.mean_and_dispersion(*self.split(raw))
        return self.independent(ZeroInflatedNegativeBinomial(log_mean, log_r, dropout, validate_args=False))


class Conditional(nn.Module):
    """p(. | given): `head(net(*given))`. Any module with this `forward` fits the same hole, a zuko flow too."""

    def __init__(self, net: nn.Module, head: Head):
        super().__init__()
        self.net, self.head = net, head

    def forward(self, *given: Tensor) -> D.Distribution:
        return self.head(self.net(*given))
