"""Estimates of log p(x) that do not rest on the encoder alone, and two that are not bounds.

They are for models with one layer of continuous latents. The slow ones are measured by their own names, on the first
data unless a number of data is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.estimators import (
    ALPHA,
    EXACT,
    Path,
    Target,
    anneal,
    integrate,
    jackknife,
    log_mean_exp,
    log_ratios,
    log_weights,
    mixture_log_weights,
    posterior_draws,
    sumo,
    sumo_terms,
    tune,
)
from vaekit.estimators.hmc import GRADIENT, PILOT_CHAINS
from vaekit.noise import Key, Noise
from vaekit.runs.likelihood import at_once, in_units
from vaekit.utils.isolation import in_full_precision
from vaekit.utils.progress import say

from ..measurement import Array, Measurement
from ..needs import AT_MOST_3, AT_MOST_5, DENSITY, ONE_LAYER, TWO_SAMPLES
from ..registry import Result, metric
from .bounds import given

FIRST = 100
"""The number of data that the slow metrics are measured on by default."""
STEPS, CHAINS = 500, 16
"""Distributions of annealed importance sampling, and its chains per datum."""
DRAWS = 200
"""Draws of the posterior per chain for `log_px_harmonic`."""
LEAST_ACCEPTED, LEAST_EFFECTIVE = 0.3, 2.0
"""Below this acceptance, chains hardly move; below two effective weights, an estimate rests on one of them."""
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
    return Result(f"{how}{given(m)}{of}", None, value, rows)


class _Doubts:
    """Counts the data whose chains hardly move or whose weights rest on one chain or draw: their estimate is poor."""

    def __init__(self) -> None:
        self.n = 0

    def count(self, acceptance: Tensor, log_w: Tensor) -> None:
        """Count data by acceptance (B,) and log-weights (K, B)."""
        effective = 1 / torch.softmax(log_w.double(), 0).square().sum(0)
        self.n += int((~(acceptance >= LEAST_ACCEPTED) | ~(effective >= LEAST_EFFECTIVE)).sum())

    def added(self, name: str, result: Result) -> Result:
        """The result with their number in its protocol, and a note."""
        if not self.n or result.per_datum is None:
            return result
        doubts = (
            f"{self.n} of {len(result.per_datum)} data with an acceptance below {LEAST_ACCEPTED:g} or fewer than "
            f"{LEAST_EFFECTIVE:g} effective weights"
        )
        say(f"note: {name} is not reliable: {doubts}")
        return replace(result, estimator=f"{result.estimator}, {doubts}", comparable=result.estimator)


@metric(
    "log_px_mixture", "nats", needs=[DENSITY, ONE_LAYER, TWO_SAMPLES], better="higher",
    label="log p(x), defensive mixture",
)  # fmt: skip
def log_px_mixture(m: Measurement) -> Result:
    """Lower bound on log p(x) by importance weighting with a mixture of the prior and q, for a q that may be poor."""

    def estimate(target: Target, noise: Noise) -> Tensor:
        return log_mean_exp(torch.cat(list(mixture_log_weights(target, noise, m.samples, chunk=_chunk(m)))))

    value, _ = _measured(m, m.n, _chunk(m), estimate)
    return Result(f"defensive mixture, {ALPHA:.0%} prior, K={m.samples}{given(m)}", m.samples, value)


@metric(
    "log_px_jvi", "nats", needs=[DENSITY, ONE_LAYER, TWO_SAMPLES], label="log p(x), jackknife (not a bound)",
    of="estimator",
)  # fmt: skip
def log_px_jvi(m: Measurement) -> Result:
    """Diagnostic: the importance-weighted bound with its bias of order 1/K removed by the jackknife; not a bound."""

    def estimate(target: Target, noise: Noise) -> Tensor:
        return jackknife(torch.cat(list(log_weights(target, noise, m.samples, chunk=_chunk(m)))))

    return Result(f"JVI-1, K={m.samples}{given(m)}", m.samples, _measured(m, m.n, _chunk(m), estimate)[0])


@metric("log_px_sumo", "nats", needs=[DENSITY, ONE_LAYER], label="log p(x), SUMO (not a bound)", of="estimator")
def log_px_sumo(m: Measurement) -> Result:
    """Diagnostic: log p(x) without bias, but perhaps with infinite variance, by a random number of terms; no bound."""

    def estimate(target: Target, noise: Noise) -> Tensor:
        terms = sumo_terms(noise.uniform(())).to(noise.rows.device)
        most = int(terms.max()) + LEAST
        return sumo(
            torch.cat(list(log_weights(target, noise, most, chunk=at_once(m.run, m.observed)))), terms, least=LEAST
        )

    return Result(f"SUMO from {LEAST} samples{given(m)}", None, _measured(m, m.n, 50, estimate)[0])


@metric(
    "log_px_ais", "nats", needs=[DENSITY, ONE_LAYER], better="higher", label="log p(x), annealed", slow=True,
)  # fmt: skip
def log_px_ais(m: Measurement) -> Result:
    """Lower bound on log p(x) by annealed importance sampling from the prior, without the encoder; slow."""
    doubts = _Doubts()

    def estimate(target: Target, noise: Noise) -> Tensor:
        path = Path(target, "prior")
        found = anneal(path, tune(path, noise), noise, steps=STEPS, chains=CHAINS)
        doubts.count(found.acceptance, found.log_w)
        return found.lower

    how = f"AIS from the prior, {CHAINS} chains of {STEPS} steps of HMC"
    return doubts.added("log_px_ais", _slow(m, GRADIENT * CHAINS, estimate, how))


@metric(
    "log_px_quadrature", "nats", needs=[DENSITY, ONE_LAYER, AT_MOST_3], better="higher",
    label="log p(x), quadrature", slow=True,
)  # fmt: skip
def log_px_quadrature(m: Measurement) -> Result:
    """log p(x) of a model with at most 3 latents as an integral on a grid; slow."""
    errors: list[Tensor] = []

    def estimate(target: Target, noise: Noise) -> Tensor:
        found = integrate(target, at_once=at_once(m.run, m.observed))
        errors.append(found.error)
        return found.log_px

    result = _slow(m, 1, estimate, "quadrature on a grid")
    error = torch.cat(errors)
    failed, n = int((~(error <= EXACT)).sum()), len(error)
    if failed:
        raise ChoiceError(
            f"log_px_quadrature cannot integrate {failed} of {n} data to {EXACT:g} nats, as their posterior is too "
            "narrow or too far from the prior: use log_px_ais"
        )
    return replace(
        result, estimator=f"{result.estimator}, errors at most {float(error.max()):.2g}", comparable=result.estimator
    )


@metric(
    "log_px_harmonic", "nats", needs=[DENSITY, ONE_LAYER, AT_MOST_5], label="log p(x), from the posterior",
    of="estimator", slow=True,
)  # fmt: skip
def log_px_harmonic(m: Measurement) -> Result:
    """Upper bound on log p(x) from posterior draws of HMC (Kingma and Welling 2013, appendix D), few latents; slow."""
    doubts = _Doubts()

    def estimate(target: Target, noise: Noise) -> Tensor:
        path = Path(target, "prior")
        draws = posterior_draws(path, tune(path, noise), noise, DRAWS)
        ratios = log_ratios(path, draws.z, chunk=max(1, at_once(m.run, m.observed) // len(target.x)))
        doubts.count(draws.acceptance, ratios)
        return -log_mean_exp(ratios)

    how = f"appendix D of Kingma and Welling 2013, {PILOT_CHAINS} chains of {DRAWS} draws of HMC"
    return doubts.added("log_px_harmonic", _slow(m, GRADIENT * PILOT_CHAINS, estimate, how))
