r"""The columns that make a row unusual: the log-density of each of its columns given the others.

For a column j the number is log p(x_j | x_-j), where x_-j are the other columns of the row. With draws z_k and weights
w_k proportional to p(x_-j | z_k) p(z_k) / q(z_k), it is estimated by log sum_k w_k p(x_j | z_k) - log sum_k w_k. Half
of the draws come from q(z | x) and half from the encoder's answer to the row with x_j hidden, and q is the mixture of
both: if x_j is wrong, q(z | x) alone has no draws where p(z | x_-j) has its mass. In a linear Gaussian model, where the
value is known, the root mean square error for rows with one wrong column is 0.1 nats, against 2.9 for draws of q(z | x)
alone and 4.7 for the mean of log p(x_j | z) over q(z | x) (tests/anomalies/test_reasons.py).

For images, signals, tables of more than `MOST_COLUMNS` columns, models that know the total of a row, which a column is
part of, and models without such a mixture, the number is the mean of log p(x_j | z) over q(z | x), which needs one pass
for all elements. For the autoregressive likelihood it is the mean of log p(x_j | x_<j, z), given the columns before j.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaekit.densities import LogisticMixture
from vaekit.densities.autoregressive import Autoregressive
from vaekit.densities.drawing import Drawn
from vaekit.densities.mixed import Marginal, Mixed
from vaekit.heads.autoregressive import AutoregressiveHead
from vaekit.models.library import SizedVAE
from vaekit.models.vae import VAE, Model
from vaekit.runs.observed import Observed, decoded_size
from vaekit.runs.trained import TrainedModel
from vaekit.utils.isolation import in_full_precision

from .scoring import NUMBERS, common_noise, filled, row_x

MOST_COLUMNS = 64
DRAWS = 32
"""The number of draws of z per column, or per row without the conditional density."""


@dataclass(frozen=True)
class Reason:
    """One column that makes a row unusual.

    Attributes:
        column: the name of the column.
        value: its value in the row, as a number, or as text for a category.
        expected: the expected value given the other columns, or the most probable category; for a column that is mapped
            by its quantiles, about its median.
        p_value: the rank of its log-density among held-out rows, (1 + number at most as high) / (n + 1).
        log_p: log p(x_j | x_-j) in nats.
    """

    column: str
    value: float | str
    expected: float | str
    p_value: float
    log_p: float


@dataclass(frozen=True)
class Columns:
    """The log-density and the expected value of each element of rows, (n, *event), in the data's own units.

    Elements that are hidden or missing have the log-density nan.
    """

    log_p: np.ndarray
    expected: np.ndarray


def elements(px: Distribution, x: Tensor) -> Tensor | None:
    """log p(x_j | z) of each element, (K?, B, *event); None if p(x | z) does not factorise over the elements."""
    if isinstance(px, Mixed | Marginal):
        return px.each(x)
    if isinstance(px, Independent) and not px.base_dist.event_shape and not isinstance(px, LogisticMixture):
        return px.base_dist.log_prob(x)
    return None


def is_conditional(run: TrainedModel) -> bool:
    """Whether log p(x_j | x_-j) is estimated, rather than the mean of log p(x_j | z)."""
    model, few = run.model, len(run.spec.shape) == 1 and run.spec.dims <= MOST_COLUMNS
    chained = isinstance(getattr(model.likelihood, "head", None), AutoregressiveHead)
    return few and isinstance(model, VAE) and not (isinstance(model, SizedVAE) or chained or model.no_density)


def conditional(
    model: VAE, x: Tensor, c: Tensor | None, hidden: Tensor, *, missing: bool = False, k: int = DRAWS
) -> tuple[Tensor, Tensor] | None:
    """log p(x_j | x_-j) of each column and its expectation, both (B, D) and in the units of x.

    Arguments:
        x: (B, D), with plausible numbers where `hidden`.
        hidden: bool (B, D), elements to integrate out.
        missing: whether the model takes nan for hidden elements.
        k: the number of draws, half of them from each proposal.

    Returns None if p(x | z) does not factorise or q(z | x) cannot be evaluated at other points than its own draws.
    """
    b, d = x.shape
    eye = torch.eye(d, dtype=torch.bool, device=x.device).repeat(b, 1)  # (B D, D): which column each copy asks about
    full, gone = x.repeat_interleave(d, 0), hidden.repeat_interleave(d, 0)
    conditions = None if c is None else c.repeat_interleave(d, 0)
    without = full.masked_fill(eye | gone, math.nan) if missing else filled(model, full, conditions, eye | gone)
    log_q: list[Tensor] = []
    draws, posteriors = [], []
    for proposal, seed in ((without, 0), (full.masked_fill(gone, math.nan) if missing else full, 1)):
        latent = model.trace(proposal, conditions, k=k // 2, noise=common_noise(proposal, seed=seed)).latents[0]
        if isinstance(latent.q, Drawn):
            return None
        draws.append(latent.z)
        posteriors.append(latent.q)
    z = torch.cat(draws)  # (K, B D, L)
    log_q = [q.log_prob(z) for q in posteriors]
    code = z if conditions is None else torch.cat([z, conditions.expand(len(z), *conditions.shape)], -1)
    px = model.decode(code)
    each = elements(px, full)
    if each is None:
        return None
    own = torch.where(eye, each, 0.0).sum(-1)  # (K, B D)
    others = torch.where(eye | gone, 0.0, each).sum(-1)
    weights = others + model.prior().log_prob(z) - (torch.logaddexp(*log_q) - math.log(2))
    log_p = torch.logsumexp(weights + own, 0) - torch.logsumexp(weights, 0)
    return log_p.reshape(b, d), _average(px, torch.softmax(weights, 0))[eye].reshape(b, d)


def _average(px: Distribution, weights: Tensor) -> Tensor:
    """The expectation of x under the mixture of p(x | z_k) with these weights (K, B), (B, *event)."""
    whole = px.whole if isinstance(px, Marginal) else px
    if isinstance(whole, Mixed):
        expected = whole.average(weights)
    else:
        expected = (weights.reshape(*weights.shape, *(1 for _ in whole.event_shape)) * whole.mean).sum(0)
    return px.put(expected) if isinstance(px, Marginal) else expected


def _by_element(px: Distribution, x: Tensor) -> Distribution:
    """p(x | z), or for an autoregressive one the densities of the columns, each given those before it in x."""
    return px.given(x) if isinstance(px, Autoregressive) else px


def averaged(model: Model, x: Tensor, c: Tensor | None, k: int) -> tuple[Tensor, Tensor] | None:
    """The mean of log p(x_j | z) over K draws of q(z | x), and the mean of x: both (B, *event), in the units of x."""
    if model.no_density is not None:
        px = _by_element(model.decode(model.encode(x, c)), x)
        each = elements(px, x)
        return None if each is None else (each, px.mean)
    px = _by_element(model.trace(x, c, k=k, noise=common_noise(x)).px, x)
    each = elements(px, x)
    if each is None:
        return None
    return each.mean(0), _average(px, torch.full(each.shape[:2], 1 / k, device=x.device))


@torch.no_grad()
@in_full_precision()
def columns(
    run: TrainedModel, observed: Observed, rows: np.ndarray, *, hidden: np.ndarray | None = None
) -> Columns | None:
    """How unusual each element of these rows is; None if p(x | z) does not factorise over the elements.

    Arguments:
        rows: (n,) row numbers.
        hidden: bool (n, *event), elements to leave out, or None.
    """
    model, observation, shape = run.model, run.composition.observation, tuple(run.spec.shape)
    asked = is_conditional(run)
    dims = run.spec.dims
    draws = DRAWS if asked else max(8, min(DRAWS, NUMBERS // dims))
    size = max(1, NUMBERS // (draws * decoded_size(run.spec) * (dims if asked else 1)))
    log_p, expected = [], []
    for a in range(0, len(rows), size):
        part = rows[a : a + size]
        x, c = row_x(observed, part, run.device), observed.condition(part, run.device)
        hole = torch.isnan(x)
        if hidden is not None:
            hole = hole | torch.from_numpy(hidden[a : a + size].copy()).to(run.device)
        if not run.spec.missing and bool(hole.any()):
            x = filled(model, x, c, hole)
        found = None
        if asked:
            assert isinstance(model, VAE)
            found = conditional(model, x, c, hole, missing=run.spec.missing)
        found = averaged(model, x, c, draws) if found is None else found
        if found is None:
            return None
        density = torch.where(hole, math.nan, found[0]).cpu().double() + observation.log_units_of(x.cpu().double())
        log_p.append(density.numpy())
        expected.append(observation.to_raw(found[1].cpu()).numpy())
    if not log_p:
        return Columns(np.zeros((0, *shape)), np.zeros((0, *shape)))
    return Columns(np.concatenate(log_p), np.concatenate(expected))


def ranked(log_p: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The p-value of each element (n, D) among held-out rows (m, D), and the order of the elements of each row.

    The lowest p-value comes first. Ties, as for elements that are more unusual than in any held-out row, are ordered by
    how far the log-density lies below the mean of held-out rows. Missing elements (nan) come last.
    """
    p = np.ones_like(log_p)
    excess = np.zeros_like(log_p)
    for j in range(log_p.shape[1]):
        known = np.sort(held[~np.isnan(held[:, j]), j])
        if len(known):
            p[:, j] = (1 + np.searchsorted(known, log_p[:, j], "right")) / (len(known) + 1)
            excess[:, j] = known.mean() - log_p[:, j]
    p[np.isnan(log_p)], excess[np.isnan(log_p)] = math.inf, -math.inf
    return p, np.lexsort((-excess, p), axis=1)
