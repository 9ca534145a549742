"""Bounds of log p(x) that hold in expectation, and every estimator on the same data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vaekit.estimators import (
    EXACT,
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
from vaekit.estimators.hmc import GRADIENT, PILOT_CHAINS, PILOT_STEPS
from vaekit.estimators.posterior import MOST_LATENTS as FEW_LATENTS
from vaekit.estimators.quadrature import MOST_LATENTS
from vaekit.metrics.likelihood.estimates import CHAINS, STEPS

from .batches import Batch

LEAST_STEPS = 250
"""Steps of annealing of the first attempt; each further one has twice as many, or as many as the last one suggests."""
SHARP = 0.1
"""Nats between the bounds at which no further attempt is made."""
FEW, DRAWS = 100, 100
"""Draws of q of the smaller estimates, and draws of the posterior per chain."""


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


def exact(batch: Batch, codes: int) -> Truth | None:
    """log p(x) in closed form or by quadrature, if the model has one; at most `codes` are decoded at once."""
    closed: list[Tensor] = []
    for part in batch.parts(codes // (batch.target.dims + 7)):
        found = linear_gaussian(part.target)
        if found is None:
            break
        closed.append(found)
    else:
        return _known("closed form", torch.cat(closed))
    if batch.target.dims > MOST_LATENTS:
        return None
    grid = integrate(batch.target, at_once=codes)
    if bool((grid.error > EXACT).any()):
        return None
    return _known("quadrature", grid.log_px)


def _known(method: str, log_px: Tensor) -> Truth:
    value = log_px.cpu().numpy()
    return Truth(method, value, value)


@dataclass(frozen=True)
class Chains:
    """Annealed chains of a batch along the path from the prior: forwards, and for simulated data backwards.

    Attributes:
        parts: the blocks of data that were annealed at once, each with its frozen settings.
        there, back: the results; `back` is None without exact z.
        steps, chains: their size.
    """

    parts: tuple[tuple[Batch, Tuned], ...]
    there: Annealed
    back: Annealed | None
    steps: int
    chains: int

    @property
    def truth(self) -> Truth:
        """The bounds of bidirectional Monte Carlo."""
        upper = None if self.back is None else self.back.upper.cpu().numpy()
        return Truth("bidirectional Monte Carlo", self.there.lower.cpu().numpy(), upper)


@dataclass(frozen=True)
class Size:
    """The size of the computation.

    Attributes:
        chains: annealed chains per datum.
        samples: K, draws from q per datum.
        codes: the number that is decoded at once.
        seed: of all noise.
    """

    chains: int
    samples: int
    codes: int
    seed: int

    @property
    def rows(self) -> int:
        """The number of data whose chains move at once; a code with its gradient takes as much as `GRADIENT` codes."""
        return max(1, self.codes // (GRADIENT * max(self.chains, PILOT_CHAINS)))


def annealed(batch: Batch, tuned: Sequence[Tuned] | None, size: Size, steps: int, tick: Callable[[], None]) -> Chains:
    """Chains along the path from the prior, so that the encoder plays no part; `tuned` are known settings by part."""
    parts, there, back = [], [], []
    for i, part in enumerate(batch.parts(size.rows)):
        path = Path(part.target, "prior")
        pilot = min(PILOT_STEPS, steps)
        known = tune(path, part.noise(size.seed, 0), steps=pilot, progress=tick) if tuned is None else tuned[i]
        go = partial(anneal, path, known, chains=size.chains, steps=steps, progress=tick)
        there.append(go(part.noise(size.seed, 10 * steps)))
        if part.z is not None:
            back.append(go(part.noise(size.seed, 10 * steps + 1), back_from=part.z))
        parts.append((part, known))
    backwards = Annealed.joined(back) if back else None
    return Chains(tuple(parts), Annealed.joined(there), backwards, steps, size.chains)


def sandwiched(batch: Batch, size: Size, steps: int, tick: Callable[[], None]) -> Chains:
    """Bidirectional Monte Carlo on simulated data, with more steps until the bounds are `SHARP`, or at most `steps`."""
    now = min(LEAST_STEPS, steps)
    found = annealed(batch, None, size, now, tick)
    while now < steps:
        truth = found.truth
        if truth.upper is None or float(np.mean(truth.upper - truth.lower)) <= SHARP:
            break
        enough = 1.2 * now * float(np.mean(truth.upper - truth.lower)) / SHARP  # the distance falls as 1 / steps
        now = min(max(2 * now, math.ceil(enough)), steps)
        found = annealed(batch, [tuned for _, tuned in found.parts], size, now, tick)
    return found


@dataclass(frozen=True)
class Estimates:
    """Every estimator on one batch.

    Attributes:
        values: (n,) float64 arrays by name, in nats.
        k_hat: (n,) of the weights of q.
        metrics: the metric of the same estimator and its K, by name; None where the metric has other settings.
        bounds: the names of those that are below log p(x) in expectation.
        of_q: the names of those that rest on log q.
        of_weights: the names of those that rest on a mean of the weights of q.
    """

    values: dict[str, np.ndarray]
    k_hat: np.ndarray
    metrics: dict[str, tuple[str | None, int | None]]
    bounds: frozenset[str]
    of_q: frozenset[str]
    of_weights: frozenset[str]


def estimates(chains: Chains, size: Size) -> Estimates:
    """All estimators of log p(x) that apply."""
    k, few = size.samples, min(FEW, size.samples)
    same = chains.steps == STEPS and chains.chains == CHAINS
    iw, mixture, jvi = f"IW-{few}", f"defensive mixture-{k}", f"JVI-{few}"
    metrics: dict[str, tuple[str | None, int | None]] = {"ELBO": ("elbo", k), iw: ("log_px_iw", few)}
    if k > few:
        metrics[f"IW-{k}"] = "log_px_iw", k
    metrics |= {mixture: ("log_px_mixture", k), "AIS": ("log_px_ais" if same else None, None)}
    bounds = frozenset(metrics)
    metrics |= {jvi: ("log_px_jvi", few), "SUMO": ("log_px_sumo", None)}
    of_q = frozenset(metrics) - {"AIS"}
    parts = [_of_part(part, tuned, size) for part, tuned in chains.parts]
    found = {name: torch.cat([values[name] for values, _ in parts]) for name in parts[0][0]} | {
        "AIS": chains.there.lower
    }
    if "appendix D" in found:
        metrics["appendix D"] = None, None  # the metric has more draws
    values = {name: found[name].double().cpu().numpy() for name in metrics}
    tails = torch.cat([tail for _, tail in parts]).cpu().numpy()
    return Estimates(values, tails, metrics, bounds, of_q, of_q - {"ELBO", mixture})


def _of_part(part: Batch, tuned: Tuned, size: Size) -> tuple[dict[str, Tensor], Tensor]:
    """The estimates of some of the data by name, but for annealing, and k-hat of the weights of q."""
    target, seed, samples = part.target, size.seed, size.samples
    chunk = max(1, size.codes // len(target.x))
    terms = sumo_terms(part.noise(seed, 1).uniform(())).to(target.x.device)
    most = max(samples, int(terms.max()) + 5)
    all_weights = torch.cat(list(log_weights(target, part.noise(seed, 2), most, chunk=chunk))).double()
    w = all_weights[:samples]
    mixed = torch.cat(list(mixture_log_weights(target, part.noise(seed, 3), samples, chunk=chunk)))
    few = min(FEW, samples)
    found = {"ELBO": w.mean(0), f"IW-{few}": log_mean_exp(w[:few]), f"IW-{samples}": log_mean_exp(w)}
    found |= {f"defensive mixture-{samples}": log_mean_exp(mixed), f"JVI-{few}": jackknife(w[:few])}
    found["SUMO"] = sumo(all_weights, terms)
    if target.dims <= FEW_LATENTS:
        path = Path(target, "prior")
        draws = posterior_draws(path, tuned, part.noise(seed, 4), DRAWS).z
        found["appendix D"] = log_px_from_posterior(path, draws, chunk=chunk)
    return found, k_hat(w)
