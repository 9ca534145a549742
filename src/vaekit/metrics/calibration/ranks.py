"""Simulation-based calibration of q(z|x): the ranks of true latents among draws of q, and coverage of its intervals."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike

from vaekit.densities import draw
from vaekit.metrics.latents import latent_names
from vaekit.metrics.measurement import Array, Measurement, shared
from vaekit.metrics.needs import DENSITY, ONE_LAYER, UNSIZED
from vaekit.metrics.registry import Interval, Matrix, Part, Result, metric
from vaekit.models.vae import VAE
from vaekit.noise import Key, Noise
from vaekit.utils.isolation import in_full_precision
from vaekit.utils.uncertainty import t_quantile

SIMULATED, DRAWS = 2000, 199
"""Simulated data, and draws of q(z|x) for each: the ends of all `LEVELS` are then draws."""
BINS = 20
"""Bins of the histogram of ranks, of equal size: a divisor of `DRAWS` + 1."""
LEVELS = (0.5, 0.8, 0.9, 0.95)
"""The nominal coverage of central intervals."""
AT_ONCE = 4_000_000
"""The number of latents that are drawn at once."""
LEVEL = 0.05
"""One minus the confidence of intervals."""


def rank_of(truth: ArrayLike, draws: ArrayLike, u: ArrayLike) -> Array:
    """The rank of each true value (n, D) among L draws (L, n, D): 0..L, int64 (n, D).

    It is the number of lower draws, plus a random share of equal ones, by u (n, D) in (0, 1).
    """
    z, drawn = np.asarray(truth), np.asarray(draws)
    equal = (drawn == z).sum(0)
    return (drawn < z).sum(0) + np.floor(np.asarray(u, float) * (equal + 1)).astype(np.int64)


def histogram(ranks: Array, draws: int, *, bins: int = BINS) -> Array:
    """The number of ranks (n, D) in 0..`draws` in each of `bins` bins of equal size: (D, bins).

    If the bins cannot have equal sizes, their sizes differ by one.
    """
    place = ranks * bins // (draws + 1)
    return np.stack([np.bincount(column, minlength=bins) for column in place.T])


def uniformity(ranks: Array, draws: int, *, bins: int = BINS) -> Array:
    """The p-value of Pearson's chi-squared test that ranks (n, D) are uniform on 0..`draws`, for each latent: (D,)."""
    from scipy.special import chdtrc

    sizes = np.bincount(np.arange(draws + 1) * bins // (draws + 1), minlength=bins)
    expected = len(ranks) * sizes / (draws + 1)
    statistic = ((histogram(ranks, draws, bins=bins) - expected) ** 2 / expected).sum(1)
    return np.asarray(chdtrc(bins - 1, statistic))


def deviations(ranks: Array, draws: int) -> tuple[Array, Array]:
    """How ranks (n, D) deviate from uniform ones, for each datum and latent: bias and spread, each (n, D).

    With u = (rank + 1/2) / (draws + 1), the mean of the bias u - 1/2 is 0 for uniform ranks, and positive if q lies
    below the posterior. The mean of the spread (u - 1/2)^2, in units of its uniform mean, is 1 for uniform ranks, above
    1 if the true values are too often far outside (q too narrow, or displaced) and below 1 if q is too wide.
    """
    away = (ranks + 0.5) / (draws + 1) - 0.5
    return away, away**2 / ((1 - (draws + 1.0) ** -2) / 12)


def coverage(ranks: Array, draws: int, level: float) -> Array:
    """Whether the central interval of this level between draws holds each true value, bool (n, D).

    The interval leaves out k = (1 - level) / 2 (draws + 1) draws at either end, so that it holds the true value with a
    probability of `level` if all are draws of one distribution, whatever it is.

    Raises:
        ValueError: k is not a whole number.
    """
    k = (1 - level) / 2 * (draws + 1)
    if abs(k - round(k)) > 1e-9:
        raise ValueError(f"{draws} draws have no interval of level {level:g}: (1 - level) / 2 * (draws + 1) is {k:g}")
    return (ranks >= round(k)) & (ranks <= draws - round(k))


@shared
@torch.no_grad()
@in_full_precision()
def simulated(m: Measurement) -> Array:
    """The rank of each latent of simulated data among draws of q(z|x), (SIMULATED, D).

    A conditional model gets the conditions of the measured data in turn.
    """
    model, device = m.run.model, m.run.device
    assert isinstance(model, VAE)
    dims = model.prior().event_shape.numel()
    block, found = max(1, AT_ONCE // (DRAWS * dims)), []
    for a in range(0, SIMULATED, block):
        numbers = np.arange(a, min(a + block, SIMULATED))
        noise = Noise.of(m.seed, torch.from_numpy(numbers).to(device), Key.SIMULATE, device=device)
        c = m.observed.condition(numbers % m.n, device)
        given = () if c is None else (c,)
        z = draw(model.prior(), noise)
        x = draw(model.likelihood(z, *given), noise)
        draws = draw(model.posterior(x, *given), noise, DRAWS)
        u = noise.uniform(z.shape[1:])
        found.append(rank_of(z.cpu().numpy(), draws.cpu().numpy(), u.cpu().numpy()))
    return np.concatenate(found)


HOW = f"{SIMULATED:,} simulated data, {DRAWS} draws of q each"


def _names(m: Measurement) -> list[str]:
    width = simulated(m).shape[1]
    return latent_names(m.run, width + getattr(m.run.model, "condition", 0))[:width]


def _error(values: Array) -> Array:
    """The standard error of the mean over simulated data, which are independent."""
    return values.std(0, ddof=1) / math.sqrt(len(values))


@metric("sbc_p", "p-value", needs=[DENSITY, ONE_LAYER, UNSIZED], label="q is the posterior", per_datum=False)
def sbc_p(m: Measurement) -> Result:
    """p-value that q(z|x) is the model's posterior, by simulation-based calibration of all latents (Bonferroni)."""
    ranks = simulated(m)
    corrected = np.minimum(uniformity(ranks, DRAWS) * ranks.shape[1], 1.0)
    names = _names(m)
    shares = histogram(ranks, DRAWS) * (BINS / len(ranks))
    ends = [f"{(i + 1) / BINS:g}" for i in range(BINS)]
    each = {name: Part(float(p)) for name, p in zip(names, corrected, strict=True)}
    how = f"smallest of {len(names)} corrected p-values; chi-squared of ranks in {BINS} bins; {HOW}"
    return Result(how, value=float(corrected.min()), each=each, matrix=Matrix(names, ends, shares.tolist()))


@metric("sbc_bias", "of the range of ranks", needs=[DENSITY, ONE_LAYER, UNSIZED], label="Bias of q", per_datum=False)
def sbc_bias(m: Measurement) -> Result:
    """Mean rank of true latents among draws of q, minus 1/2: positive if q lies too low, 0 if q is the posterior."""
    bias, _ = deviations(simulated(m), DRAWS)
    return Result(HOW, value=bias.mean(0).tolist(), se=_error(bias).tolist())


@metric("sbc_spread", "of uniform ranks", needs=[DENSITY, ONE_LAYER, UNSIZED], label="Spread of ranks", per_datum=False)
def sbc_spread(m: Measurement) -> Result:
    """Spread of the ranks of true latents among draws of q: above 1 if q is too narrow, below 1 if it is too wide."""
    _, spread = deviations(simulated(m), DRAWS)
    return Result(HOW, value=spread.mean(0).tolist(), se=_error(spread).tolist())


@metric(
    "sbc_coverage",
    "of the intervals",
    needs=[DENSITY, ONE_LAYER, UNSIZED],
    label="Excess coverage of q",
    per_datum=False,
)
def sbc_coverage(m: Measurement) -> Result:
    """Share of true latents in intervals of q, minus the nominal 50, 80, 90 and 95%: negative if q is too sure."""
    ranks = simulated(m)
    inside = {level: coverage(ranks, DRAWS, level) for level in LEVELS}
    excess = np.mean([held.mean(1) - level for level, held in inside.items()], 0)  # (n,)
    reach = t_quantile(LEVEL, len(ranks) - 1)
    each = {f"{level:.0%}": _part(held.mean(1), reach) for level, held in inside.items()}
    value, se = float(excess.mean()), float(_error(excess))
    interval = Interval(value - reach * se, value + reach * se, 1 - LEVEL, f"{SIMULATED:,} simulated data")
    shares = np.stack([held.mean(0) for held in inside.values()], 1)
    matrix = Matrix(_names(m), list(each), shares.tolist())
    return Result(
        f"mean over latents and levels; {HOW}", value=value, se=se, interval=interval, each=each, matrix=matrix
    )


def _part(values: Array, reach: float) -> Part:
    """The mean of one number per simulated datum, with its interval."""
    value, se = float(values.mean()), float(_error(values))
    return Part(value, se, max(0.0, value - reach * se), min(1.0, value + reach * se))
