"""Two ways of filling in hidden or missing parts of data.

`fill_masked` infers the posterior given the visible part, for any model. `impute_rows` needs one pass of the encoder
and is several times as fast, but requires a model that was trained with missing values.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from vaekit.densities.mixed import Marginal, Mixed
from vaekit.errors import ChoiceError
from vaekit.models.vae import VAE, Model
from vaekit.noise import Key, Noise
from vaekit.objectives.terms import has_closed_form, log_weights
from vaekit.runs.observed import decoded_size
from vaekit.utils.formerly import formerly

from .conditional import check_factorises, visible_log_prob
from .fitted import CodeDensity, drawn_codes
from .given import Infilled, as_seen, blanked, check_codes
from .resample import LatentDensity

if TYPE_CHECKING:
    from vaekit.data.condition import Labels
    from vaekit.data.core import Column
    from vaekit.runs.trained import TrainedModel

SWEEPS = 10
"""The number of reconstructions that lead to a starting point of the inference."""
VALUES = 1_000_000
"""Elements inferred at once."""
PRIOR_DRAWS = 16
"""The number of draws of the prior for the model's mean."""
START_SCALE = 0.3
"""The standard deviation of q(z) at the start of the inference."""


@contextlib.contextmanager
def _frozen(model: Model) -> Iterator[None]:
    """No parameter of the model requires a gradient inside this context."""
    learned = [p for p in model.parameters() if p.requires_grad]
    for p in learned:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in learned:
            p.requires_grad_(True)


@formerly("steps", "pairs", "lr", "seed")
def infer_visible(
    model: VAE,
    x: Tensor,
    visible: Tensor,
    c: Tensor | None = None,
    *,
    rows: Tensor | None = None,
    steps: int = 200,
    pairs: int = 2,
    lr: float = 0.1,
    prior: Distribution | None = None,
    seed: int = 0,
) -> tuple[Normal, Tensor]:
    r"""The q(z) = N(m, diag s^2) nearest in KL to p(z | x_visible), per datum, and its bound on log p(x_visible), (B,).

    Maximises E_q[log p(x_visible | z)] - KL(q || p(z)) by Adam, drawing z in pairs m +- s e, for which the gradient of
    m in a linear Gaussian model is exact. To obtain a starting point from an encoder that was trained on complete data,
    hidden elements are set to the model's mean and then reconstructed SWEEPS times (the pseudo-Gibbs sampling of
    Rezende et al. 2014, appendix F, without its noise). The search starts from the code with the best bound.

    It fits a Gaussian rather than finding the mode, because the decoder was trained on codes of that width, and in
    many dimensions the mode is unlike any of them. Sampling p(z | x_visible) would take minutes rather than a second.
    An autoencoder has no p(z): for it, the likelihood of the visible elements is maximised, times `prior` if given.

    Arguments:
        x, visible: (B, *event), data and bool; hidden elements of x may be any number inside the support.
        c: (B, C), the condition of a conditional model.
        rows: the numbers of the rows, of which the noise is a function; 0..B-1 by default.
        steps, lr: number of steps and initial learning rate of Adam; the rate falls to 0 along half a cosine.
        pairs: number of antithetic pairs per step.
        prior: the density of codes in place of the model's p(z), such as a fitted `CodeDensity`.
        seed: seed of the noise.
    """
    numbers = torch.arange(len(x), device=x.device) if rows is None else rows
    point = model.no_density is not None
    fitted, prior = prior is not None, prior or model.prior()
    width = c.shape[1] if c is not None else 0

    def decode(z: Tensor) -> Distribution:
        return model.decode(torch.cat([z, c.expand(*z.shape[:-1], width)], -1) if c is not None else z)

    def bound(m: Tensor, log_s: Tensor, noise: Tensor) -> Tensor:
        if point:
            return visible_log_prob(decode(m), x, visible) + (prior.log_prob(m) if fitted else 0)
        s = log_s.exp()
        z = torch.cat([m + s * noise, m - s * noise])  # (2 pairs, B, D)
        q = Independent(Normal(m, s, validate_args=False), 1, validate_args=False)
        log_px = visible_log_prob(decode(z), x, visible).mean(0)
        if has_closed_form(q, prior):
            return log_px - kl_divergence(q, prior)
        return log_px - (q.log_prob(z) - prior.log_prob(z)).mean(0)

    def normal(step: int, shape: torch.Size) -> Tensor:
        keyed = Noise.of(seed, numbers, Key.FILL + 1000 * step)
        return keyed.normal((shape[-1],), pairs).to(x.dtype)

    with torch.no_grad():
        z = drawn_codes(prior, PRIOR_DRAWS, seed, Key.FILL, x)
        model_mean = decode(z.unsqueeze(1).expand(-1, len(x), -1)).mean.mean(0)
        full, starts = torch.where(visible, x, model_mean), []
        for _ in range(SWEEPS):
            code = model.encode(full, c)
            starts.append(code[:, : code.shape[1] - width])
            full = torch.where(visible, x, decode(starts[-1]).mean)
        means = torch.stack(starts)  # (S, B, D)
        scale = torch.full_like(means[0], math.log(START_SCALE))
        bounds = torch.stack([bound(m, scale, normal(0, m.shape)) for m in means])
        best = means[bounds.argmax(0), torch.arange(len(x), device=x.device)]
    m, log_s = nn.Parameter(best.clone()), nn.Parameter(scale.clone())
    adam = torch.optim.Adam([m] if point else [m, log_s], lr)
    with _frozen(model), torch.enable_grad():
        for step in range(steps):
            adam.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            adam.zero_grad()
            (-bound(m, log_s, normal(1 + step, m.shape)).sum()).backward()
            adam.step()
    with torch.no_grad():
        final = bound(m, log_s, normal(1 + steps, m.shape))
        return Normal(m.detach(), log_s.detach().exp() * (0.0 if point else 1.0), validate_args=False), final


def _expected(decoded: np.ndarray, columns: Sequence[Column]) -> np.ndarray:
    """The mean over draws (K, B, *event); for categories, the most frequent code."""
    expected = decoded.mean(0)
    for j, column in enumerate(columns):
        if column.kind == "categorical":
            codes = decoded[..., j].round().astype(int)
            counts = np.stack([(codes == code).sum(0) for code in range(len(column.categories))])
            expected[:, j] = counts.argmax(0)
    return expected


@formerly("labels", "draws", "steps", "seed")
def fill_masked(
    run: TrainedModel,
    raw: np.ndarray,
    hidden: np.ndarray,
    *,
    labels: Labels | None = None,
    latents: LatentDensity | None = None,
    draws: int = 32,
    steps: int = 200,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Infilled:
    """Fill in the hidden parts of raw data from their visible parts, by the inference of `infer_visible`.

    Arguments:
        raw: rows in any layout that the run accepts; hidden elements are ignored.
        hidden: bool (*event), or one mask per row.
        labels: for a conditional run, as for `Run.encode`.
        latents: a fitted density of the run's codes, to infer under it instead of the prior.
        draws: K, the number of draws of q(z) that are averaged.
        steps: optimisation steps of the inference.
        seed: seed of its noise.
        progress: called as progress(done, of).

    Raises:
        ChoiceError: the model's code is not a vector of real numbers, nothing is visible, or nothing is hidden.
        DataError: the rows have the wrong shape.
    """
    model = check_codes(run)
    events, hidden = blanked(run, raw, hidden)
    if hidden.all((*range(1, hidden.ndim),)).any() or not hidden.any():
        raise ChoiceError("a mask must hide some of the datum and leave some visible")
    x = as_seen(run, events)
    c = run.observed(events, labels=labels).condition(np.arange(len(events)), run.device)
    parts, prior = [], None if latents is None else CodeDensity(latents)
    for rows in torch.arange(len(events), device=run.device).split(max(1, VALUES // decoded_size(run.spec))):
        at, condition = rows.cpu().numpy(), None if c is None else c[rows]
        seen, visible = x[at].to(run.device), torch.from_numpy(~hidden[at]).to(run.device)
        q, bound = infer_visible(model, seen, visible, condition, steps=steps, seed=seed, rows=rows, prior=prior)
        with torch.no_grad():
            noise = Noise.of(seed, rows, Key.FILL_DRAWS).normal((q.mean.shape[1],), (draws + 1) // 2)
            pairs = torch.cat([noise, -noise])[:draws]  # antithetic, as in the inference
            z = q.mean + q.stddev * pairs.to(q.mean.dtype)
            z = z if condition is None else torch.cat([z, condition.expand(*z.shape[:-1], condition.shape[1])], -1)
            decoded = np.stack([run.decode(codes) for codes in z])
        known = events[at].astype(decoded.dtype)
        filled = np.where(hidden[at], _expected(decoded, run.spec.columns), known)
        parts.append((filled, np.where(hidden[at], decoded, known), bound.cpu().numpy()))
        if progress:
            progress(int(at[-1]) + 1, len(events))
    filled, alternatives, bounds = (
        np.concatenate(part, axis) for part, axis in zip(zip(*parts, strict=True), (0, 1, 0), strict=True)
    )
    return Infilled(filled, alternatives, bounds)


# --- amortised: one pass of the encoder, for models trained with missing values ---------------------------------


@formerly("samples", "noise")
def impute(
    model: Model, x: Tensor, c: Tensor | None = None, *, samples: int | None = None, noise: Noise | None = None
) -> Tensor:
    r"""x (B, *event) with its missing values (nan) replaced by E[x_missing | x_observed], or the most likely category.

    Without `samples`, they are the mean of p(x | z) at the code of the observed values. With K samples, they are the
    self-normalised importance-weighted mean sum_k w_k E[x | z_k], with w_k proportional to
    p(x_observed, z_k) / q(z_k | x), which tends to the expectation as K grows (Mattei and Frellsen 2019, MIWAE).

    Arguments:
        c: (B, C), the condition of a conditional model.
        samples: K, or None.
        noise: the random numbers of the samples; fresh ones by default.

    Raises:
        ChoiceError: p(x | z) does not factorise over the elements.
    """
    with torch.no_grad():
        if samples is None:
            px = model.decode(model.encode(x, c))
            check_factorises(px)
            expected = px.mean
        else:
            trace = model.trace(x, c, k=samples, noise=noise)
            check_factorises(trace.px)
            weights = torch.softmax(log_weights(trace, x), 0)  # (K, B)
            whole = trace.px.whole if isinstance(trace.px, Marginal) else trace.px
            if isinstance(whole, Mixed):
                expected = whole.average(weights)
            else:
                weights = weights.reshape(*weights.shape, *(1 for _ in whole.event_shape))
                expected = (weights * whole.mean).sum(0)
            expected = trace.px.put(expected) if isinstance(trace.px, Marginal) else expected
        return torch.where(torch.isnan(x), expected, x)


@formerly("labels", "samples", "seed")
def impute_rows(
    run: TrainedModel, raw: np.ndarray, *, labels: Labels | None = None, samples: int | None = None, seed: int = 0
) -> np.ndarray:
    """Fill in the missing values of raw rows: (N, *event) floats in the data's own units.

    Arguments:
        raw: rows in any layout that the run accepts.
        labels: for a conditional run, as for `Run.encode`.
        samples: as for `impute`; without it, nothing is drawn.
        seed: seed of the samples.
    """
    observed = run.observed(raw, labels=labels)
    blocks = []
    block = max(1, 4_000_000 // max(1, decoded_size(run.spec) * (samples or 1)))
    for a in range(0, observed.n, block):
        rows = np.arange(a, min(a + block, observed.n))
        x, c = observed(rows).to(run.device), observed.condition(rows, run.device)
        noise = Noise.of(seed, torch.from_numpy(rows).to(run.device), Key.IMPUTE)
        complete = impute(run.model, x, c, samples=samples, noise=noise)
        filled = run.composition.observation.to_raw(complete.cpu()).numpy()
        raw_rows = observed.raw(rows).astype(filled.dtype)
        blocks.append(np.where(np.isnan(raw_rows), filled, raw_rows))
    return np.concatenate(blocks)
