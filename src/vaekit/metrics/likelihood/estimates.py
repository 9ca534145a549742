"""Estimates of log p(x) that do not rest on the encoder alone, and two that are not bounds.

They are for models with one layer of continuous latents. The slow ones are measured by their own names, on the first
data unless a number of data is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from vaekit.estimators import (
    ALPHA,
    Path,
    Target,
    anneal,
    integrate,
    jackknife,
    log_mean_exp,
    log_px_from_posterior,
    log_weights,
    mixture_log_weights,
    posterior_draws,
    sumo,
    sumo_terms,
    tune,
)
from vaekit.noise import Key, Noise
from vaekit.runs.likelihood import at_once, in_units
from vaekit.utils.isolation import in_full_precision

from ..measurement import Array, Measurement
from ..needs import AT_MOST_3, AT_MOST_5, DENSITY, ENOUGH_SAMPLES, ONE_LAYER
from ..registry import Result, metric

FIRST = 100
"""The number of data that the slow metrics are measured on by default."""
STEPS, CHAINS = 500, 16
"""Distributions of annealed importance sampling, and its chains per datum."""
DRAWS = 200
"""Draws of the posterior per chain for `log_px_harmonic`."""
LEAST = 5
"""The number of weights in the first bound of SUMO."""

Estimate = Callable[[Target, Noise], Tensor]


def _measured(m: Measurement, n: int, codes: int, estimate: Estimate) -> tuple[Array, Array]:
    """The estimates (n,) or (n, E) of the first n data, in the data's units, in blocks; `codes` are decoded per datum.

    The noise is keyed by (seed, datum), so that a result does not depend on the block.
    """
    found: list[np.ndarray] = []
    for rows in _blocks(m, n, codes):
        x = m.observed(rows).to(m.run.device)
        target = Target.of(m.run.model, x, m.observed.condition(rows, m.run.device))
        noise = Noise.of(m.seed, torch.from_numpy(rows).to(m.run.device), Key.ESTIMATE)
        with in_full_precision():
            value = estimate(target, noise).double().cpu()
        found.append(in_units(m.run, m.observed, x, value).numpy())
        if m.progress:
            m.progress(int(rows[-1]) + 1, n)
    return np.concatenate(found), np.arange(n)


def _blocks(m: Measurement, n: int, codes: int) -> Iterator[np.ndarray]:
    block = max(1, min(n, at_once(m.run, m.observed) // codes))
    for a in range(0, n, block):
        yield np.arange(a, min(a + block, n))


def _chunk(m: Measurement) -> int:
    """The samples per datum that are decoded at once."""
    return min(m.samples, at_once(m.run, m.observed))


def _first(m: Measurement) -> tuple[int, str]:
    """The number of data that a slow metric is measured on, and its words for the protocol."""
    n = min(m.n, FIRST) if m.all_data else m.n
    return n, "" if n == m.n else f", first {n} data"


def _slow(m: Measurement, codes: int, estimate: Estimate, how: str) -> Result:
    n, of = _first(m)
    value, rows = _measured(m, n, codes, estimate)
    return Result(f"{how}{of}", None, value, rows)


@metric(
    "log_px_mixture", "nats", needs=[DENSITY, ONE_LAYER, ENOUGH_SAMPLES], better="higher",
    label="log p(x), defensive mixture",
)  # fmt: skip
def log_px_mixture(m: Measurement) -> Result:
    """Lower bound on log p(x) by importance weighting with a mixture of the prior and q, for a q that may be poor."""

    def estimate(target: Target, noise: Noise) -> Tensor:
        return log_mean_exp(torch.cat(list(mixture_log_weights(target, noise, m.samples, chunk=_chunk(m)))))

    value, _ = _measured(m, m.n, _chunk(m), estimate)
    return Result(f"defensive mixture, {ALPHA:.0%} prior, K={m.samples}", m.samples, value)


@metric(
    "log_px_jvi", "nats", needs=[DENSITY, ONE_LAYER, ENOUGH_SAMPLES], label="log p(x), jackknife (not a bound)",
    of="estimator",
)  # fmt: skip
def log_px_jvi(m: Measurement) -> Result:
    """Diagnostic: the importance-weighted bound with its bias of order 1/K removed by the jackknife; not a bound."""

    def estimate(target: Target, noise: Noise) -> Tensor:
        return jackknife(torch.cat(list(log_weights(target, noise, m.samples, chunk=_chunk(m)))))

    return Result(f"JVI-1, K={m.samples}", m.samples, _measured(m, m.n, _chunk(m), estimate)[0])


@metric("log_px_sumo", "nats", needs=[DENSITY, ONE_LAYER], label="log p(x), SUMO (not a bound)", of="estimator")
def log_px_sumo(m: Measurement) -> Result:
    """Diagnostic: log p(x) without bias, but perhaps with infinite variance, by a random number of terms; no bound."""

    def estimate(target: Target, noise: Noise) -> Tensor:
        terms = sumo_terms(noise.uniform(())).to(noise.rows.device)
        most = int(terms.max()) + LEAST
        return sumo(
            torch.cat(list(log_weights(target, noise, most, chunk=at_once(m.run, m.observed)))), terms, least=LEAST
        )

    return Result(f"SUMO from {LEAST} samples", None, _measured(m, m.n, 50, estimate)[0])


@metric(
    "log_px_ais", "nats", needs=[DENSITY, ONE_LAYER], better="higher", label="log p(x), annealed", slow=True,
)  # fmt: skip
def log_px_ais(m: Measurement) -> Result:
    """Lower bound on log p(x) by annealed importance sampling from the prior, without the encoder; slow."""

    def estimate(target: Target, noise: Noise) -> Tensor:
        path = Path(target, "prior")
        return anneal(path, tune(path, noise), noise, steps=STEPS, chains=CHAINS).lower

    return _slow(m, CHAINS, estimate, f"AIS from the prior, {CHAINS} chains of {STEPS} steps of HMC")


@metric(
    "log_px_quadrature", "nats", needs=[DENSITY, ONE_LAYER, AT_MOST_3], better="higher",
    label="log p(x), quadrature", slow=True,
)  # fmt: skip
def log_px_quadrature(m: Measurement) -> Result:
    """log p(x) of a model with at most 3 latents as an integral on a grid; slow."""
    worst = 0.0

    def estimate(target: Target, noise: Noise) -> Tensor:
        nonlocal worst
        found = integrate(target, at_once=at_once(m.run, m.observed))
        worst = max(worst, float(found.error.max()))
        return found.log_px

    result = _slow(m, 64, estimate, "quadrature on a grid")
    return Result(f"{result.estimator}, errors at most {worst:.2g}", None, result.per_datum, result.rows,
                  comparable=result.estimator)  # fmt: skip


@metric(
    "log_px_harmonic", "nats", needs=[DENSITY, ONE_LAYER, AT_MOST_5], label="log p(x), from the posterior",
    of="estimator", slow=True,
)  # fmt: skip
def log_px_harmonic(m: Measurement) -> Result:
    """Upper bound on log p(x) from posterior draws of HMC (Kingma and Welling 2013, appendix D), few latents; slow."""

    def estimate(target: Target, noise: Noise) -> Tensor:
        path = Path(target, "prior")
        tuned = tune(path, noise)
        return log_px_from_posterior(path, posterior_draws(path, tuned, noise, DRAWS))

    return _slow(m, CHAINS, estimate, f"appendix D of Kingma and Welling 2013, 8 chains of {DRAWS} draws of HMC")
