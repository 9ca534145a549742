"""The latents of a run: how they are numbered, which are active, and in what order they are shown.

Reports, traversals, explorers and studies all ask here, so that z3 is the same latent in each and one count is given.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vaekit.latents.paths import order_by_kl
from vaekit.runs.likelihood import kl_of
from vaekit.runs.observed import Observed
from vaekit.runs.trained import TrainedModel
from vaekit.utils.uncertainty import standard_error, t_quantile, units

from .measurement import Measurement, latent_means
from .needs import SEVERAL
from .registry import Result, metric

Array = NDArray[Any]
ACTIVE = 0.01
"""A latent is active when the variance of its posterior mean over the data is above this (Burda et al. 2016)."""
SURVEYED, SURVEYED_NUMBERS = 10_000, 4e7
"""How many test data, and numbers of x, are looked at; at least a thousand data."""


def variances(means: ArrayLike) -> Array:
    """The unbiased variance of each latent over posterior means (N, D), in float64: (D,); nan where N is 1."""
    z = np.asarray(means, np.float64)
    return z.var(0, ddof=1) if len(z) > 1 else np.full(z.shape[1:], np.nan)


def is_active(means: ArrayLike) -> NDArray[np.bool_]:
    """Which latents are active over posterior means (N, D): (D,). Of a single datum nothing is known, and all are."""
    return ~(variances(means) <= ACTIVE)


@metric("active_units", "latents", needs=[SEVERAL], label="Active latents", default=True, per_datum=False)
def active_units(m: Measurement) -> Result:
    """Latents that are used: those whose posterior mean has a variance above 0.01 over the data."""
    active = is_active(latent_means(m))
    how = f"posterior means varying by more than {ACTIVE}"
    return Result(how, value=int(active.sum()), unit=f"of {len(active)} latents")


def active_bounds(means: ArrayLike, group: ArrayLike | None, level: float) -> tuple[int, int]:
    """How many latents are surely active and how many may be, over all data like these means (N, D).

    The interval of each variance is Student's t on its logarithm, at its share of `level`.
    """
    z = np.asarray(means, np.float64)
    n, square = units(len(z), group), (z - z.mean(0)) ** 2
    if n < 3:
        return 0, z.shape[1]
    variance = variances(z)
    se = np.array([standard_error(column, group) for column in square.T], float)
    reach = np.exp(t_quantile(level / z.shape[1], n - 1) * se / np.maximum(variance, 1e-300))
    return int((variance / reach > ACTIVE).sum()), int((variance * reach > ACTIVE).sum())


def latent_names(run: TrainedModel, width: int) -> list[str]:
    """What each number of a code (width,) is called.

    Latents are z0, z1, ... in the order of the code, without those of a class or a condition, which have names of
    their own; z0 is column 0 of `Run.encode` wherever no class stands before it.
    """
    places = np.arange(width)[run.model.latent_dims]
    first, last = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
    before = list(run.spec.classes)[:first] or [f"class {i}" for i in range(first)]
    condition = run.composition.condition
    after = [] if condition is None else list(condition.names)
    return [*before, *(f"z{i}" for i in range(last - first)), *after[: width - last]]


class Survey(NamedTuple):
    """What is known of the L latents of a run over the first n data of its test split."""

    names: list[str]
    """Of the latents, (L,)."""
    places: NDArray[np.int64]
    """Their columns in a code, (L,)."""
    kl: Array | None
    """The mean KL of each from its prior, nats, (L,); None where the model has none for each latent."""
    variance: Array
    """Of the posterior mean of each, (L,)."""
    active: NDArray[np.bool_]
    order: NDArray[np.int64]
    """The numbers of the latents, largest KL first; where there is none, largest variance first."""
    n: int


def survey(run: TrainedModel, observed: Observed | None = None) -> Survey:
    """Encode test data (or others that are `observed`) and see which latents they use."""
    observed = run.observed("test") if observed is None else observed
    n = min(observed.n, SURVEYED, max(1000, int(SURVEYED_NUMBERS / run.spec.dims)))
    codes = run.encode(observed, n).astype(np.float64)
    with torch.no_grad():
        kls = [kl_of(run, some, x, c) for some, x, c in observed.batches(None, n, run.device)]
    places = np.arange(codes.shape[1])[run.model.latent_dims]
    kl = None if any(k is None for k in kls) else np.concatenate([k for k in kls if k is not None]).mean(0, dtype=float)
    if kl is not None and len(kl) != len(places):  # of layers that are no part of the code
        kl = None
    names = latent_names(run, codes.shape[1])
    variance = variances(codes)[places]
    worth = np.nan_to_num(variance) if kl is None else kl
    active = is_active(codes)[places]
    return Survey([names[i] for i in places], places, kl, variance, active, order_by_kl(worth), n)
