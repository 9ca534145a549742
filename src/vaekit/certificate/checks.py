"""Checks of a run's consistency: each names one disease by the statistic that identifies it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.distributions import MultivariateNormal

from vaekit.densities import draw, draw_with_density
from vaekit.estimators import ENOUGH, k_hat, log_mean_exp, reliable

from .batches import Batch
from .bounds import Chains, Estimates, Truth
from .statistics import STRICT, mean_of

FAR = 1.0
"""Nats by which q's weights may miss log p(x) before the encoder is suspected, if that is also `SHARE` of the rate."""
SHARE = 0.1
LOG_Q_ERROR = 0.02
"""The smallest error of log q, in nats, that is reported."""
SCALE = 1.5
"""The factor by which residuals may differ from the decoder's scale, for all elements together."""
ELEMENT = 2.0
"""The factor for one element; this share of the elements may have residuals that much larger than the scale."""
ELEMENTS = 0.1
REPLICATES = 12
"""Draws of x from p(x | z) per chain, for the distribution of residuals under the model."""
DRAWN = 8_000_000
"""Numbers of the draws of q that are held at once."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: `log q`, `bounds`, `encoder`, `decoder scale` or `reference`.
        passed: None if it could not be judged.
        words: one sentence or two, with the numbers.
        numbers: the numbers by name.
    """

    name: str
    passed: bool | None
    words: str
    numbers: dict[str, float] = field(default_factory=dict)


def log_q(batch: Batch, samples: int, seed: int) -> Check:
    r"""Whether log q(z | x) is the density of q's own draws, by two facts about any density h.

    E_q[h(z) / q(z | x)] = 1, and E_q[log h(z) - log q(z | x)] <= 0. h is a Gaussian with the mean of other draws of q
    and a smaller covariance, so that the ratio has a small variance where q is a Gaussian: per latent, (h / q)^2 has
    the mean 1 / (a sqrt(2 - a^2)) for h with a times the deviation of q, and a is chosen so that the product over the
    latents is e. The first fact is used only if the ratios have a light tail, the second one always.
    """
    samples = max(samples, 20 * batch.target.dims)
    both = [_ratios(part, samples, seed) for part in batch.parts(DRAWN // (samples * batch.target.dims))]
    ratio, differences = (torch.cat(parts, 1) for parts in zip(*both, strict=True))
    apart = float(differences.median())
    heavy = bool(k_hat(ratio).median() > reliable(samples))
    gibbs = mean_of(ratio.mean(0).cpu().numpy(), batch.groups, STRICT)
    found = mean_of(torch.exp(log_mean_exp(ratio).clamp_max(100)).cpu().numpy(), batch.groups, STRICT)
    off = -math.log(max(found.value, 1e-300))
    numbers = {"mean_ratio": found.value, "low": found.low, "high": found.high, "apart": apart, "gibbs": gibbs.value}
    wrong = "log q(z|x) is not the log density of q's own draws"
    if apart > LOG_Q_ERROR:
        return Check("log q", False, f"{wrong}: as drawn and as evaluated it differs by {apart:.3g} nats", numbers)
    if not heavy and not found.low <= 1 <= found.high and abs(off) > LOG_Q_ERROR:
        how = f"it is {abs(off):.3g} nats too {'high' if off > 0 else 'low'}"
        why = f"E_q[h/q] is {found.value:.3g}, and would be 1 for every density h"
        return Check("log q", False, f"{wrong}: {how}, because {why}", numbers)
    if gibbs.low > LOG_Q_ERROR:
        why = f"on average it is {gibbs.value:.3g} nats below the log density of a Gaussian, which is impossible"
        return Check("log q", False, f"{wrong}: {why}", numbers)
    if heavy:
        return Check("log q", None, "not judged: q is too far from a Gaussian for the test", numbers)
    reason = f"log q(z|x) is the log density of q's draws: E_q[h/q] is {found.value:.3f}, and 1 is right"
    return Check("log q", True, reason, numbers)


def _ratios(batch: Batch, samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """log h - log q of draws of q, and |log q| as drawn minus as evaluated: (K, n) each."""
    q = batch.target.q
    with torch.no_grad():
        z, known = draw_with_density(q, batch.noise(seed, 5), samples)
        evaluated = q.log_prob(z).double()
        other = draw(q, batch.noise(seed, 6), samples).double()
    ratio = _narrower(other, batch.target.dims).log_prob(z.double()) - evaluated
    return ratio, torch.zeros_like(ratio) if known is None else (known - evaluated).abs()


def _narrower(draws: torch.Tensor, dims: int) -> MultivariateNormal:
    """The Gaussian h of `log_q` for draws (K, B, D) of q."""
    mean = draws.mean(0)
    centred = draws - mean
    covariance = torch.einsum("kbi,kbj->bij", centred, centred) / len(draws)
    narrower = 1 - math.sqrt(1 - math.exp(-2 / dims))
    least = 1e-12 * torch.eye(dims, dtype=torch.float64, device=draws.device)
    return MultivariateNormal(mean, narrower * covariance + least, validate_args=False)


def order(truths: list[tuple[str, Truth, Estimates, np.ndarray | None]]) -> Check:
    """Whether every lower bound is below the upper one, on simulated data and wherever log p(x) is exact."""
    worst, numbers = None, {}
    for where, truth, found, groups in truths:
        if truth.upper is None:
            continue
        for name in found.bounds:
            above = mean_of(found.values[name] - truth.upper, groups, STRICT)
            numbers[f"{name}, {where}"] = above.value
            if above.low > LOG_Q_ERROR and (worst is None or above.value > worst[0]):
                worst = above.value, name, where, truth
    if worst is not None:
        value, name, where, truth = worst
        reason = (
            f"{name} is {value:.3g} nats above {'log p(x)' if truth.exact else 'its upper bound'} on {where} data, "
            "where no estimate with correct densities can be: a log density is wrong"
        )
        return Check("bounds", False, reason, numbers)
    return Check("bounds", True, "no lower bound is above the upper one", numbers)


def encoder(batch: Batch, truth: Truth, chains: Chains, found: Estimates, samples: int, valid: bool) -> Check:
    """Whether q reaches the posterior: q's weights against a reference without the encoder, and their k-hat.

    It passes if the whole interval of the gap is small, and fails if none of it is and the tails of most weights are
    heavy; else the data are too few, or the draws from q, to tell.

    The gap is compared with the rate KL(posterior || prior), which the chains at the posterior give: a large model with
    a good encoder loses a small share of it.
    """
    if not valid:
        return Check("encoder", None, "not judged, because a log density is wrong")
    name = max((n for n in found.bounds if n.startswith("IW-")), key=lambda n: int(n[3:]))
    gap = mean_of(truth.lower - found.values[name], batch.groups)
    given = chains.there.log_px_given.double().mean(0).cpu().numpy()
    rate = max(0.0, float(np.mean(given - chains.truth.lower)))
    least, limit = max(FAR, SHARE * rate), reliable(samples)
    bad = float(np.mean(found.k_hat > limit))
    numbers = {"gap": gap.value, "low": gap.low, "high": gap.high, "rate": rate, "k_hat_above": bad}
    against = truth.method if truth.exact else "annealing without the encoder"
    words = f"{name} is {gap.value:.3g} nats (95% interval {gap.low:.3g} to {gap.high:.3g}) below {against}"
    judged = samples >= ENOUGH
    few = f"{samples:,} draws are too few to judge k-hat ({ENOUGH} or more)"
    tails = f"k-hat is above {limit:.2f} for {bad:.0%} of the data" if judged else few
    if gap.low > least and judged and bad > 0.5:
        reason = (
            f"q misses the posterior: {words}, with {samples:,} draws from q per datum, and {tails}; "
            "the encoder does not fit the decoder"
        )
        return Check("encoder", False, reason, numbers)
    if gap.high > least:
        unknown = f"not judged: {words}, and up to {least:.3g} nats are small; {tails}; use more data or `samples`"
        return Check("encoder", None, unknown, numbers)
    return Check("encoder", True, f"q reaches the posterior: {words}; {tails}", numbers)


def decoder_scale(batch: Batch, chains: Chains, of_model: np.ndarray, seed: int) -> Check:
    """Whether residuals x - E[x | z] of the data are as large as p(x | z) says, with z from the posterior.

    The size is the mean absolute residual, compared with that of new draws of x from p(x | z) at the same z. An element
    counts only if it is above all such draws, so that rare events do not count. Residuals of single elements that are
    smaller than the scale are no fault: a scale that all elements share is too large for those that hardly vary.
    """
    z = chains.there.z.split([len(part.rows) for part, _ in chains.parts], 1)
    try:
        found = [_residuals(part, codes, seed) for (part, _), codes in zip(chains.parts, z, strict=True)]
    except NotImplementedError:
        return Check("decoder scale", None, "not judged: p(x|z) has no mean")
    ours, expected = torch.cat([one[0] for one in found]), torch.cat([one[1] for one in found])
    pooled = float(ours.sum() / expected.sum())
    spread = mean_of((ours - pooled * expected).sum(1).cpu().numpy(), batch.groups, STRICT)
    reach = (spread.high - spread.value) / float(expected.sum(1).mean())
    sums, limits = ours.sum(0), torch.stack([one[2] for one in found]).sum(0)  # (E,), (R, E)
    ratio = sums / expected.sum(0).clamp_min(1e-30)
    off = (sums > limits.amax(0)) & (ratio > ELEMENT) & (expected.sum(0) > 0)
    share = float(off.double().mean())
    log_px = chains.truth.lower + batch.units
    numbers = {
        "ratio": pooled, "low": pooled - reach, "high": pooled + reach, "elements_off": share,
        "log_px": float(log_px.mean()), "log_px_simulated": float(of_model.mean()),
    }  # fmt: skip
    likely = (
        f"log p(x) of the data is {log_px.mean():,.1f} nats, that of data simulated from the model "
        f"{of_model.mean():,.1f} (standard deviation {of_model.std():,.1f})"
    )
    all_off = not 1 / SCALE <= pooled <= SCALE and not pooled - reach <= 1 <= pooled + reach
    if not all_off and share <= ELEMENTS:
        reason = f"residuals of the data are {pooled:.2f} times as large as p(x|z) says; {likely}"
        return Check("decoder scale", True, reason, numbers)
    if all_off:
        what = f"residuals of the data are {pooled:.3g} times as large as p(x|z) says (mean absolute values)"
    else:
        worst = int(torch.where(off, ratio, 0).argmax())
        what = (
            f"residuals of {share:.0%} of the elements are more than {ELEMENT:g} times as large as p(x|z) says; "
            f"those of element {worst} {float(ratio[worst]):.3g} times"
        )
    reason = f"the decoder's scale is wrong for these data: {what}. {likely[0].upper()}{likely[1:]}"
    return Check("decoder scale", False, reason, numbers)


def _residuals(batch: Batch, z: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sizes of residuals of the data and of new draws, (n, E) each, averaged over codes z, and sums of new ones (R, E).

    Raises:
        NotImplementedError: p(x | z) has no mean.
    """
    x, noise = batch.target.x, batch.noise(seed, 7)
    ours = expected = torch.zeros(())
    sums = []
    with torch.no_grad():
        for code in z:  # one chain at a time
            px = batch.target.decode(code)
            mean = px.mean
            ours = ours + _sizes(x, mean, x) / len(z)
            for _ in range(REPLICATES):
                new = _sizes(draw(px, noise), mean, x)
                expected = expected + new / (REPLICATES * len(z))
                sums.append(new.sum(0))
    return ours, expected, torch.stack(sums)


def _sizes(x: torch.Tensor, mean: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """|x - mean| of each element, (n, E) float64, 0 where `like` is missing."""
    size = (x.double() - mean.double()).abs().reshape(len(like), -1)
    return torch.where(torch.isnan(like).reshape(len(like), -1), 0.0, size)


def reference(truth: Truth, chains: Chains, tolerance: float) -> Check:
    """Whether the bounds of bidirectional Monte Carlo are close enough to certify anything."""
    accepted = float(chains.there.acceptance.mean())
    if truth.exact:
        return Check("reference", True, f"log p(x) is exact, by {truth.method}", {"acceptance": accepted})
    assert truth.upper is not None
    width = mean_of(truth.upper - truth.lower)
    numbers = {"width": width.value, "low": width.low, "high": width.high, "acceptance": accepted}
    words = (
        f"the bounds on log p(x) of simulated data by bidirectional Monte Carlo are {width.value:.2g} nats apart (95% "
        f"interval {width.low:.2g} to {width.high:.2g}), with {chains.steps:,} steps and {chains.chains} chains "
        f"({accepted:.0%} of the moves accepted)"
    )
    if width.value > tolerance:
        return Check("reference", False, f"not certified: {words}, which is too wide: use more `steps`", numbers)
    return Check("reference", True, words, numbers)
