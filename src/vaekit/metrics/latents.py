"""The latents of a run: how they are numbered, which are active, and in what order they are shown.

Reports, traversals, explorers and studies all use this module, so that z3 and the number of active latents are the same
in each.
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
"""A latent is active if the variance of its posterior mean over the data exceeds this (Burda et al. 2016)."""
SURVEYED, SURVEYED_NUMBERS = 10_000, 4e7
"""The maximum number of test data, and of values of x, in a survey; a survey has at least a thousand data."""


def variances(means: ArrayLike) -> Array:
    """The unbiased variance of each latent over posterior means (N, D), in float64: (D,); nan if N is 1."""
    z = np.asarray(means, np.float64)
    return z.var(0, ddof=1) if len(z) > 1 else np.full(z.shape[1:], np.nan)


def is_active(means: ArrayLike) -> NDArray[np.bool_]:
    """Which latents are active over posterior means (N, D): (D,). With a single datum, all count as active."""
    return ~(variances(means) <= ACTIVE)


@metric("active_units", "latents", needs=[SEVERAL], label="Active latents", default=True, per_datum=False)
def active_units(m: Measurement) -> Result:
    """Number of latents that are used: those whose posterior mean has a variance above 0.01 over the data."""
    active = is_active(latent_means(m))
    how = f"posterior means varying by more than {ACTIVE}"
    return Result(how, value=int(active.sum()), unit=f"of {len(active)} latents")


def active_bounds(means: ArrayLike, group: ArrayLike | None, level: float) -> tuple[int, int]:
    """Lower and upper bounds of the number of active latents in the population that the means (N, D) are drawn from.

    The interval of each of the D variances is a Student's t interval of its logarithm, at `level` / D (Bonferroni).
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
    """The name of each element of a code (width,).

    Latents are z0, z1, ... in the order of the code. Elements of a class or a condition have other names and are not
    counted: z0 is column 0 of `Run.encode` unless a class precedes it.
    """
    columns = np.arange(width)[run.model.latent_dims]
    first, last = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
    before = list(run.spec.classes)[:first] or [f"class {i}" for i in range(first)]
    condition = run.composition.condition
    after = [] if condition is None else list(condition.names)
    return [*before, *(f"z{i}" for i in range(last - first)), *after[: width - last]]


class Survey(NamedTuple):
    """The L latents of a run, surveyed over the first n data of its test split."""

    names: list[str]
    """The names of the latents, (L,)."""
    places: NDArray[np.int64]
    """The columns of the latents in a code, (L,)."""
    kl: Array | None
    """The mean KL of each latent from its prior, in nats, (L,); None if the model has no KL per latent."""
    variance: Array
    """The variance of each latent's posterior mean, (L,)."""
    active: NDArray[np.bool_]
    order: NDArray[np.int64]
    """The indices of the latents, largest KL first; without a KL, largest variance first."""
    n: int


def survey(run: TrainedModel, observed: Observed | None = None) -> Survey:
    """Encode test data (or other `observed` data) and survey the latents."""
    observed = run.observed("test") if observed is None else observed
    n = min(observed.n, SURVEYED, max(1000, int(SURVEYED_NUMBERS / run.spec.dims)))
    codes = run.encode(observed, n=n).astype(np.float64)
    with torch.no_grad():
        kls = [kl_of(run, rows, x, c) for rows, x, c in observed.batches(None, n, run.device)]
    columns = np.arange(codes.shape[1])[run.model.latent_dims]
    kl = None if any(k is None for k in kls) else np.concatenate([k for k in kls if k is not None]).mean(0, dtype=float)
    if kl is not None and len(kl) != len(columns):  # includes layers that are not part of the code
        kl = None
    names = latent_names(run, codes.shape[1])
    variance = variances(codes)[columns]
    importance = np.nan_to_num(variance) if kl is None else kl
    active = is_active(codes)[columns]
    return Survey([names[i] for i in columns], columns, kl, variance, active, order_by_kl(importance), n)
