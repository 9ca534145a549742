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
from .densities import FlowMatchingDensity
from .fitted import CodeDensity, Transported, drawn_codes
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
AVERAGED = 32
"""The default number of draws of the code of a datum."""
STEPS, DRAW_STEPS = 200, 80
"""The default numbers of steps of `infer_visible` and of `draw_visible`."""
TEMPER = 0.1
"""The weight of the likelihood of the visible part of images and signals under flow matching, chosen on validation
images of emoji: there, codes are as far from N(0, I), and match the visible part as well, as those of whole images."""
BETAS = 0.8, 0.8
"""The decay rates of Adam in `draw_visible`: it forgets the steep first descent to the codes that match, along which it
then has to move far."""


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


def _with(z: Tensor, c: Tensor | None) -> Tensor:
    """Codes z (K?, B, D) followed by the condition c (B, C)."""
    return z if c is None else torch.cat([z, c.expand(*z.shape[:-1], c.shape[1])], -1)


def _starts(
    model: VAE, x: Tensor, visible: Tensor, c: Tensor | None, p: Distribution | Transported, seed: int
) -> Tensor:
    """Codes (SWEEPS, B, D) near p(z | x_visible), by an encoder that was trained on complete data.

    Hidden elements are set to the model's mean under p(z) and then reconstructed SWEEPS times (the pseudo-Gibbs
    sampling of Rezende et al. 2014, appendix F, without its noise).
    """
    z = drawn_codes(p, PRIOR_DRAWS, seed, Key.FILL, x).unsqueeze(1).expand(-1, len(x), -1)
    full, starts = torch.where(visible, x, model.decode(_with(z, c)).mean.mean(0)), []
    for _ in range(SWEEPS):
        code = model.encode(full, c)
        starts.append(code if c is None else code[:, : -c.shape[1]])
        full = torch.where(visible, x, model.decode(_with(starts[-1], c)).mean)
    return torch.stack(starts)


def _best(starts: Tensor, value: Tensor) -> Tensor:
    """Of codes (S, B, D), those of the highest value (S, B): (B, D)."""
    return starts[value.argmax(0), torch.arange(starts.shape[1], device=starts.device)]


def _falling(adam: torch.optim.Adam, lr: float, steps: int) -> Iterator[int]:
    """The steps of a search, of which the learning rate falls from `lr` to 0 along half a cosine."""
    for step in range(steps):
        adam.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        adam.zero_grad()
        yield step
        adam.step()


@formerly("steps", "pairs", "lr", "seed")
def infer_visible(
    model: VAE,
    x: Tensor,
    visible: Tensor,
    c: Tensor | None = None,
    *,
    rows: Tensor | None = None,
    steps: int = STEPS,
    pairs: int = 2,
    lr: float = 0.1,
    prior: Distribution | None = None,
    seed: int = 0,
) -> tuple[Normal, Tensor]:
    r"""The q(z) = N(m, diag s^2) nearest in KL to p(z | x_visible), per datum, and its bound on log p(x_visible), (B,).

    Maximises E_q[log p(x_visible | z)] - KL(q || p(z)) by Adam, drawing z in pairs m +- s e, for which the gradient of
    m in a linear Gaussian model is exact. The search starts from the code with the best bound among those of the
    encoder (`_starts`).

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

    def decode(z: Tensor) -> Distribution:
        return model.decode(_with(z, c))

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
        means = _starts(model, x, visible, c, prior, seed)
        scale = torch.full_like(means[0], math.log(START_SCALE))
        best = _best(means, torch.stack([bound(m, scale, normal(0, m.shape)) for m in means]))
    m, log_s = nn.Parameter(best.clone()), nn.Parameter(scale.clone())
    adam = torch.optim.Adam([m] if point else [m, log_s], lr)
    with _frozen(model), torch.enable_grad():
        for step in _falling(adam, lr, steps):
            (-bound(m, log_s, normal(1 + step, m.shape)).sum()).backward()
    with torch.no_grad():
        final = bound(m, log_s, normal(1 + steps, m.shape))
        return Normal(m.detach(), log_s.detach().exp() * (0.0 if point else 1.0), validate_args=False), final


def draw_visible(
    model: VAE,
    x: Tensor,
    visible: Tensor,
    c: Tensor | None = None,
    *,
    through: Transported,
    rows: Tensor | None = None,
    draws: int = 1,
    steps: int = DRAW_STEPS,
    lr: float = 0.1,
    temper: float = 1.0,
    seed: int = 0,
) -> Tensor:
    r"""Codes z (K, B, D) of p(z | x_visible) under flow matching, for which z = z(e) with e ~ N(0, I).

    For draws e_k of N(0, I), minimises over e

        -log p(x_visible | z(e)) + |e - e_k|^2 / 2,

    randomised maximum a posteriori estimation (Oliver, He and Reynolds 1996; Bardsley et al. 2014, SIAM J. Sci.
    Comput. 36). Directions of e that the visible part says nothing about stay those of e_k. If z(e) and the decoder
    are linear, the results are draws of the posterior, up to the noise of p(x_visible | z), which is left out; else
    they approximate it. A Gaussian with independent directions would not do: the visible part couples directions of
    e, so that its spread would nearly vanish.

    The likelihood takes the errors of elements as independent. Those of neighbouring pixels are not, and codes that are
    searched for the best match of the visible part overfit it: they lie far from the codes of data, and the hidden part
    looks like noise. `temper` is the weight of log p(x_visible | z) against this.

    Arguments:
        x, visible, c, rows: as for `infer_visible`.
        draws: K.
        steps, lr: number of steps and initial learning rate of Adam, which falls to 0 along half a cosine.
        temper: weight of log p(x_visible | z); with 1, draws are those of the posterior.
        seed: seed of the e_k.
    """
    numbers = torch.arange(len(x), device=x.device) if rows is None else rows
    with torch.no_grad():
        starts = _starts(model, x, visible, c, through, seed)
        fits = torch.stack([visible_log_prob(model.decode(_with(z, c)), x, visible) for z in starts])
        start = through.noise(_best(starts, fits)[None], numbers)
    drawn = Noise.of(seed, numbers, Key.FILL).normal((through.dims,), draws).to(x.dtype)  # e_k
    e = nn.Parameter(start.expand(draws, -1, -1).clone())
    adam = torch.optim.Adam([e], lr, betas=BETAS)
    with _frozen(model), _frozen(through.density.model), torch.enable_grad():
        for _ in _falling(adam, lr, steps):
            fit = visible_log_prob(model.decode(_with(through.codes(e, numbers), c)), x, visible)  # (K, B)
            (0.5 * (e - drawn).square().sum() - temper * fit.sum()).backward()
    with torch.no_grad():
        return through.codes(e, numbers)


def _expected(decoded: np.ndarray, columns: Sequence[Column]) -> np.ndarray:
    """The mean over draws (K, B, *event); for categories, the most frequent code."""
    expected = decoded.mean(0)
    for j, column in enumerate(columns):
        if column.kind == "categorical":
            codes = decoded[..., j].round().astype(int)
            counts = np.stack([(codes == code).sum(0) for code in range(len(column.categories))])
            expected[:, j] = counts.argmax(0)
    return expected


def _under(run: TrainedModel, latents: LatentDensity | None, c: Tensor | None) -> CodeDensity | Transported | None:
    """The density of codes to infer under for data with the condition c, None for the prior."""
    if latents is None:
        return None
    if not isinstance(latents.density, FlowMatchingDensity):
        return CodeDensity(latents)
    own = run.composition.condition
    if own is None or c is None:
        return Transported(latents)
    return Transported(latents, own.decoded(c.cpu().numpy()), len(c))


def _codes(
    model: VAE,
    x: Tensor,
    visible: Tensor,
    c: Tensor | None,
    under: CodeDensity | Transported | None,
    rows: Tensor,
    draws: int,
    steps: int | None,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Draws (K, B, D) of codes given the visible part, and the bound on log p of it, (B,), nan if there is none."""
    if isinstance(under, Transported):
        steps = DRAW_STEPS if steps is None else steps
        temper = TEMPER if x[0].dim() > 1 and model.no_density is None else 1.0
        z = draw_visible(
            model, x, visible, c, through=under, rows=rows, draws=draws, steps=steps, temper=temper, seed=seed
        )
        return z, torch.full_like(z[0, :, 0], math.nan)
    steps = STEPS if steps is None else steps
    q, bound = infer_visible(model, x, visible, c, steps=steps, seed=seed, rows=rows, prior=under)
    noise = Noise.of(seed, rows, Key.FILL_DRAWS).normal((q.mean.shape[1],), (draws + 1) // 2)
    pairs = torch.cat([noise, -noise])[:draws]  # antithetic, as in the inference
    return q.mean + q.stddev * pairs.to(q.mean.dtype), bound


@formerly("labels", "draws", "steps", "seed")
def fill_masked(
    run: TrainedModel,
    raw: np.ndarray,
    hidden: np.ndarray,
    *,
    labels: Labels | None = None,
    latents: LatentDensity | None = None,
    draws: int = AVERAGED,
    steps: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Infilled:
    """Fill in the hidden parts of raw data from their visible parts, by `infer_visible` or `draw_visible`.

    Draws are means of p(x | z) for draws of z, without the noise of p(x | z). Under flow matching, no bound is
    computed: it is nan.

    Arguments:
        raw: rows in any layout that the run accepts; hidden elements are ignored.
        hidden: bool (*event), or one mask per row.
        labels: for a conditional run, as for `Run.encode`.
        latents: a fitted density of the run's codes, to infer under it instead of the prior.
        draws: K, the number of draws of z whose means are averaged; 0 to average `AVERAGED` and return none.
        steps: optimisation steps of the inference, by default `STEPS`, under flow matching `DRAW_STEPS`.
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
    under = _under(run, latents, c)
    k = draws or AVERAGED
    copies = k if isinstance(under, Transported) else 1
    parts = []
    for rows in torch.arange(len(events), device=run.device).split(max(1, VALUES // (copies * decoded_size(run.spec)))):
        at, condition = rows.cpu().numpy(), None if c is None else c[rows]
        seen, visible = x[at].to(run.device), torch.from_numpy(~hidden[at]).to(run.device)
        z, bound = _codes(model, seen, visible, condition, under, rows, k, steps, seed)
        decoded = np.stack([run.decode(codes) for codes in _with(z, condition)])
        known = events[at].astype(decoded.dtype)
        filled = np.where(hidden[at], _expected(decoded, run.spec.columns), known)
        parts.append((filled, np.where(hidden[at], decoded[:draws], known), bound.cpu().numpy()))
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
