"""Bounds of log p(x) that hold in expectation, and every estimator on the same data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vaekit.estimators import (
    Annealed,
    Path,
    Tuned,
    anneal,
    integrate,
    jackknife,
    k_hat,
    linear_gaussian,
    log_mean_exp,
    log_px_from_posterior,
    log_weights,
    mixture_log_weights,
    posterior_draws,
    sumo,
    sumo_terms,
    tune,
)
from vaekit.estimators.hmc import PILOT_STEPS
from vaekit.estimators.posterior import MOST_LATENTS as FEW_LATENTS
from vaekit.estimators.quadrature import MOST_LATENTS

from .batches import Batch

LEAST_STEPS = 250
"""Steps of annealing of the first attempt; each further one has twice as many, or as many as the last one suggests."""
SHARP = 0.1
"""Nats between the bounds at which no further attempt is made."""
EXACT = 0.01
"""The largest error of quadrature, in nats, with which its result counts as exact."""


@dataclass(frozen=True)
class Truth:
    """What is known of log p(x) of each datum: float64 (n,) arrays between which it lies in expectation.

    Attributes:
        method: `closed form`, `quadrature` or `bidirectional Monte Carlo`.
        lower, upper: equal if log p(x) is exact; `upper` is None for data whose exact z is unknown.
    """

    method: str
    lower: np.ndarray
    upper: np.ndarray | None

    @property
    def exact(self) -> bool:
        """Whether log p(x) is known exactly."""
        return self.upper is not None and self.upper is self.lower


def exact(batch: Batch) -> Truth | None:
    """log p(x) in closed form or by quadrature, if the model has one."""
    closed = linear_gaussian(batch.target)
    if closed is not None:
        return _known("closed form", closed)
    if batch.target.dims > MOST_LATENTS:
        return None
    found = integrate(batch.target)
    if bool((found.error > EXACT).any()):
        return None
    return _known("quadrature", found.log_px)


def _known(method: str, log_px: Tensor) -> Truth:
    value = log_px.cpu().numpy()
    return Truth(method, value, value)


@dataclass(frozen=True)
class Chains:
    """Annealed chains of a batch: forwards, and for simulated data backwards.

    Attributes:
        path, tuned: the path from the prior, with its frozen settings.
        there, back: the results; `back` is None without exact z.
        steps, chains: their size.
    """

    path: Path
    tuned: Tuned
    there: Annealed
    back: Annealed | None
    steps: int
    chains: int

    @property
    def truth(self) -> Truth:
        """The bounds of bidirectional Monte Carlo."""
        upper = None if self.back is None else self.back.upper.cpu().numpy()
        return Truth("bidirectional Monte Carlo", self.there.lower.cpu().numpy(), upper)


def annealed(batch: Batch, tuned: Tuned | None, seed: int, steps: int, chains: int, tick: Callable[[], None]) -> Chains:
    """Chains along the path from the prior, so that the encoder plays no part."""
    path = Path(batch.target, "prior")
    if tuned is None:
        tuned = tune(path, batch.noise(seed, 0), steps=min(PILOT_STEPS, steps), progress=tick)
    go = partial(anneal, path, tuned, chains=chains, steps=steps, progress=tick)
    there = go(batch.noise(seed, 10 * steps))
    back = None if batch.z is None else go(batch.noise(seed, 10 * steps + 1), back_from=batch.z)
    return Chains(path, tuned, there, back, steps, chains)


def sandwiched(batch: Batch, seed: int, steps: int, chains: int, tick: Callable[[], None]) -> Chains:
    """Bidirectional Monte Carlo on simulated data, with more steps until the bounds are `SHARP`, or at most `steps`."""
    now = min(LEAST_STEPS, steps)
    found = annealed(batch, None, seed, now, chains, tick)
    while now < steps:
        truth = found.truth
        if truth.upper is None or float(np.mean(truth.upper - truth.lower)) <= SHARP:
            break
        enough = 1.2 * now * float(np.mean(truth.upper - truth.lower)) / SHARP  # the distance falls as 1 / steps
        now = min(max(2 * now, math.ceil(enough)), steps)
        found = annealed(batch, found.tuned, seed, now, chains, tick)
    return found


@dataclass(frozen=True)
class Estimates:
    """Every estimator on one batch.

    Attributes:
        values: (n,) float64 arrays by name, in nats.
        k_hat: (n,) of the weights of q.
        bounds: the names of those that are below log p(x) in expectation.
        of_q: the names of those that rest on log q.
    """

    values: dict[str, np.ndarray]
    k_hat: np.ndarray
    bounds: frozenset[str]
    of_q: frozenset[str]


def estimates(batch: Batch, chains: Chains, samples: int, seed: int, codes: int) -> Estimates:
    """All estimators of log p(x) that apply; `codes` are decoded at once."""
    target, n = batch.target, len(batch.target.x)
    chunk = max(1, codes // n)
    terms = sumo_terms(batch.noise(seed, 1).uniform(())).to(target.x.device)
    most = max(samples, int(terms.max()) + 5)
    all_weights = torch.cat(list(log_weights(target, batch.noise(seed, 2), most, chunk=chunk))).double()
    w = all_weights[:samples]
    mixed = torch.cat(list(mixture_log_weights(target, batch.noise(seed, 3), samples, chunk=chunk)))
    few = min(100, samples)
    found = {"ELBO": w.mean(0), f"IW-{few}": log_mean_exp(w[:few])}
    if samples > few:
        found[f"IW-{samples}"] = log_mean_exp(w)
    found[f"defensive mixture-{samples}"] = log_mean_exp(mixed)
    found["AIS"] = chains.there.lower
    bounds = frozenset(found)
    found[f"JVI-{few}"] = jackknife(w[:few])
    found["SUMO"] = sumo(all_weights, terms)
    of_q = frozenset(found) - {"AIS"}
    if target.dims <= FEW_LATENTS:
        draws = posterior_draws(chains.path, chains.tuned, batch.noise(seed, 4), 100)
        found["appendix D"] = log_px_from_posterior(chains.path, draws)
    values = {name: value.double().cpu().numpy() for name, value in found.items()}
    return Estimates(values, k_hat(w).cpu().numpy(), bounds, of_q)
