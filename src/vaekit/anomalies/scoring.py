"""The score of a row, log p(x), as a function of the row alone: every row is scored with the same draws of z.

With noise of its own for each row, as in `TrainedModel.score`, a score would depend on the place of the row. With the
same noise for all, held-out and new rows are scored by one fixed function, so that their scores are exchangeable if
the rows are, nothing depends on the order of the rows, and an exported graph can repeat the computation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit.heads.autoregressive import AutoregressiveHead
from vaekit.latents.fill import visible_log_prob
from vaekit.models.vae import Model
from vaekit.noise import Key, Noise, fold
from vaekit.objectives.terms import Weights, log_weights
from vaekit.runs.observed import Observed, decoded_size
from vaekit.runs.trained import TrainedModel
from vaekit.utils.isolation import in_full_precision

SAMPLES = 50
"""The default number of importance samples."""
NUMBERS = 2_000_000
"""The number of values of x decoded at once."""
SWEEPS = 5
"""The number of reconstructions that fill in hidden elements before encoding."""
PRIOR_DRAWS = 8


def common_noise(x: Tensor, *, first: int = 0, seed: int = 0) -> Noise:
    """Noise that is the same for every row of x (B, *event), from sample number `first`."""
    rows = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    return Noise(torch.tensor(fold(seed, Key.DETECT), device=x.device), rows, first)


def row_x(observed: Observed, rows: np.ndarray, device: torch.device) -> Tensor:
    """x (n, *event) of these rows as a function of the raw rows alone: for a random observation, its expectation."""
    observation = observed.observation
    place = next((buffer.device for buffer in observation.buffers()), torch.device("cpu"))
    return observation.expected(torch.from_numpy(np.ascontiguousarray(observed.raw(rows))).to(place)).float().to(device)


def observed_log_prob(px: Distribution, x: Tensor, hidden: Tensor | None) -> Tensor:
    """log p(x | z) of the elements that are not hidden, (K?, B)."""
    return px.log_prob(x) if hidden is None else visible_log_prob(px, x, ~hidden)


def log_density(model: Model, x: Tensor, c: Tensor | None, k: int, *, hidden: Tensor | None = None) -> Tensor:
    """log p(x) of the elements that are not hidden by K importance samples, (B,), in the units of x.

    For a model without a density, log p(x | z) at the code of x.

    Arguments:
        x: (B, *event), with numbers inside the support at hidden elements.
        hidden: bool (B, *event), or None.
    """
    if model.no_density is not None:
        return observed_log_prob(model.decode(model.encode(x, c)), x, hidden)
    running, chunk = Weights.none(torch.zeros(len(x), device=x.device)), max(1, NUMBERS // x.numel())
    for first in range(0, k, chunk):
        trace = model.trace(x, c, k=min(chunk, k - first), noise=common_noise(x, first=first))
        running = running.add(log_weights(trace, x, observed_log_prob(trace.px, x, hidden)))
    return running.log_mean(k)


def filled(model: Model, x: Tensor, c: Tensor | None, hidden: Tensor) -> Tensor:
    """x with plausible numbers at its hidden elements: the model's mean, then reconstructed `SWEEPS` times.

    They only serve the encoder, whose q(z | x) is the proposal of the importance samples: log p of the visible elements
    is a valid estimate for any of them.
    """
    centre = torch.zeros_like(x)
    for i in range(PRIOR_DRAWS):
        centre += model.decode(model.sample(len(x), c, common_noise(x, seed=i))).mean / PRIOR_DRAWS
    x = torch.where(hidden, centre, x)
    for _ in range(SWEEPS):
        x = torch.where(hidden, model.decode(model.encode(x, c)).mean.to(x.dtype), x)
    return x


def block_of(k: int, dims: int) -> int:
    """The number of rows to score at once."""
    return max(1, min(1000, NUMBERS // max(1, k * dims)))


@torch.no_grad()
@in_full_precision()
def scores(
    run: TrainedModel,
    observed: Observed,
    k: int,
    *,
    rows: np.ndarray | None = None,
    hidden: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """log p(x) of the rows (all by default) in nats and the data's own units, (n,) float64.

    Arguments:
        k: the number of importance samples.
        hidden: bool (n, *event) or (1, *event), elements that are integrated out; missing values (nan) of a run that
            was trained with them always are.
    """
    rows = np.arange(observed.n) if rows is None else rows
    observation, parts, size = run.composition.observation, [], block_of(k, decoded_size(run.spec))
    chained = run.spec.missing and isinstance(getattr(run.model.likelihood, "head", None), AutoregressiveHead)
    if hidden is not None:
        hidden = np.broadcast_to(hidden, (len(rows), *run.spec.shape))
    for a in range(0, len(rows), size):
        part = rows[a : a + size]
        x, c = row_x(observed, part, run.device), observed.condition(part, run.device)
        hole = None if hidden is None else torch.from_numpy(hidden[a : a + size].copy()).to(run.device)
        if hole is not None and not bool(hole.any()):
            hole = None
        if hole is not None and chained:  # hidden elements are missing values, with which the run was trained
            x, hole = x.masked_fill(hole, math.nan), None
        filled_x = x if hole is None else filled(run.model, x, c, hole)
        units = observation.log_units_of(x.cpu().double())
        jacobian = (units if hole is None else torch.where(hole.cpu(), 0.0, units)).flatten(1).sum(1)
        parts.append(log_density(run.model, filled_x, c, k, hidden=hole).cpu().double() + jacobian)
        if progress:
            progress(a + len(part), len(rows))
    found = torch.cat(parts).numpy() if parts else np.zeros(0)
    return np.where(np.isnan(found), -math.inf, found)
