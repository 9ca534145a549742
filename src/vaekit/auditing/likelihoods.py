"""Experiments on log p(x): whether the loss bounds it, and whether a score is it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import torch
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.objectives.terms import log_mean_weight
from vaekit.utils.isolation import seeded

from .bench import CLOSE, LIKELIHOODS, Bench, Fault, experiment
from .subject import Output

DRAWS = 256
"""Importance samples of the bound that a score is compared with."""
ROWS = 256
COUNTS = ("n_samples", "num_samples", "nsamples", "samples", "n_draws", "draws", "k")
"""Names of an argument that is the number of draws per datum."""


def _known(name: str, x: Tensor) -> Callable[[Tensor], Tensor]:
    """A decoder for one datum that follows the first latent t alone: outputs of the codes (B, L).

    Gaussian: -log p(x|z) = (t - 4)^2 / 2 without constants. Bernoulli: up to 8 elements have the logit t towards their
    value in x, and the others 0.
    """
    flat = x.flatten()
    if name == "gaussian":
        return lambda z: flat + (z[:, :1] - 4) / math.sqrt(len(flat))
    towards = torch.where(flat > 0.5, 1.0, -1.0) * (torch.arange(len(flat)) < 8)
    return lambda z: z[:, :1] * towards if name == "logits" else torch.sigmoid(z[:, :1] * towards)


@experiment("bound")
def above_the_bound(bench: Bench) -> Fault | None:
    """The negative loss is above log p(x), so that it is no bound.

    The decoder is replaced with one that follows a single latent, so that log p(x) is an integral over it. A lower
    bound lies below it for every posterior. Some posteriors are tried, and the highest loss is drawn again.
    """
    name, unit = bench.unit()
    bench.draws(bench.x)
    if abs(bench.kl_weight(unit) - 1) > CLOSE:
        raise ChoiceError("the weight of the KL is not 1, so the loss is no ELBO")
    prior = bench.at()["total"]
    if abs(bench.at(0.1)["total"] - prior) <= 2e-7 * abs(prior):
        raise ChoiceError("the KL has a floor (free bits), so the constant of the loss is not known")
    one = bench.x[:1]
    x, decoder = one.expand(ROWS, *one.shape[1:]), _known(name, one)
    unit = bench.unit(x)[1]
    constant = bench.constant(name, unit, x)

    t = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    out = decoder(t.float()[:, None]).reshape(len(t), *one.shape[1:])
    joint = -LIKELIHOODS[name](one.expand_as(out), out).double() - t**2 / 2 - math.log(2 * math.pi) / 2
    log_px = float(torch.logsumexp(joint, 0)) + math.log(float(t[1] - t[0]))
    weights = torch.softmax(joint, 0)
    centre = float((weights * t).sum())
    width = float((weights * (t - centre) ** 2).sum().sqrt())

    codes = 0

    def claims(mean: float, deviation: float, seeds: range, output: Output) -> Tensor:
        nonlocal codes
        means, spreads = torch.zeros(bench.latent), torch.full((bench.latent,), bench.subject.spread_of(1.0))
        means[0], spreads[0] = mean, bench.subject.spread_of(deviation)
        totals = []
        for seed in seeds:
            terms, seen = bench.subject.measured(x, seed=seed, mean=means, spread=spreads, output=output)
            totals.append(terms["total"])
            codes = sum(z.numel() for z in seen) // (ROWS * bench.latent)
        return constant - torch.tensor(totals) / unit

    tried = [(0.0, 1.0)] + [(centre * m, width * s) for m in (0.6, 0.8, 1.0) for s in (0.6, 1.0, 1.3)]
    best = max(tried, key=lambda q: float(claims(q[0], q[1], range(2), decoder).mean()))
    values = claims(best[0], best[1], range(100, 116), decoder)
    alike = claims(best[0], best[1], range(200, 216), 0.3)
    claimed, error = float(values.mean()), float(values.std()) / math.sqrt(len(values))
    paid = -float(alike.mean()) - float(LIKELIHOODS[name](one, torch.full_like(one, 0.3)))
    slack = 0.03 + 3 * float(alike.std()) / math.sqrt(len(alike))
    if min(abs(paid - each) for each in _divergences(best[0], best[1], codes)) > slack:
        raise ChoiceError("the loss has other terms that depend on the codes, so it is no ELBO")
    if claimed <= log_px + 5 * error + slack:
        return None
    return Fault(
        "bound",
        f"With a decoder that follows one latent, log p(x) of a datum is {log_px:.3f} nats, and the negative loss "
        f"{claimed:.3f} (standard error {error:.2g}): it is no lower bound.",
        "Use log p(x, z) - log q(z|x) at the same draws, and for several draws the log of their mean ratio.",
        {"claimed": claimed, "log_px": log_px, "error": error},
    )


def _divergences(mean: float, deviation: float, draws: int) -> list[float]:
    """What a loss adds to -log p(x|z) where that is the same for every z: the KL, or its kin of several draws.

    With w = N(z; 0, 1) / N(z; mean, deviation^2): the KL in closed form; -log of the mean of w over the draws; and
    minus the sum of normalised w times log w, which is a loss for gradients, not the bound.
    """
    kl = (mean**2 + deviation**2 - 1) / 2 - math.log(deviation)
    with seeded(0):
        e = torch.randn(max(draws, 1), 20_000)
    log_w = (e**2 - (mean + deviation * e) ** 2) / 2 + math.log(deviation)
    return [kl, -float(log_mean_weight(log_w).mean()), -float((torch.softmax(log_w, 0) * log_w).sum(0).mean())]


def _weighted(bench: Bench, name: str) -> float:
    """The importance-weighted bound of the module's own posterior and likelihood, without constants, per datum."""
    with torch.no_grad(), seeded(0):
        mean, std = bench.subject.read(bench.x)
        weights = []
        for _ in range(DRAWS):
            e = torch.randn_like(mean)
            z = mean + std * e
            log_ratio = (-(z**2) / 2 + e**2 / 2 + torch.log(std)).flatten(1).sum(-1)
            weights.append(log_ratio - LIKELIHOODS[name](bench.x, bench.subject.decoded(z)))
    return float(log_mean_weight(torch.stack(weights)).mean())


@experiment("score")
def score(bench: Bench) -> Fault | None:
    """The score has the wrong sign, depends on the number of data, or changes between calls."""
    if not bench.score:
        raise ChoiceError("no `score` is named")
    method = bench.subject.find(bench.score)
    with torch.no_grad():
        first = torch.as_tensor(method(bench.x)).float()
        again = torch.as_tensor(method(bench.x)).float()
        twice = torch.as_tensor(method(torch.cat([bench.x, bench.x]))).float()
    mean, apart = float(first.mean()), float((first - again).abs().max())
    name, unit = bench.unit()
    tight = _weighted(bench, name)
    spread = 0.05 * abs(tight) + 3 * apart
    negative = any(word in bench.score.lower() for word in ("nll", "neg", "loss", "energy"))
    wanted = -tight if negative else tight
    numbers = {"score": mean, "expected": wanted, "again": apart, "doubled": float(twice.mean())}
    if abs(float(twice.mean()) - mean) > spread:
        return Fault(
            "score-count",
            f"When every datum is repeated, the mean score changes from {mean:.4g} to "
            f"{numbers['doubled']:.4g}: it is divided by a wrong count.",
            "Average over the draws of each datum.",
            numbers,
        )
    told = name != "gaussian" or abs(bench.kl_unit() / unit - 1) < CLOSE  # else log p(x) has an unknown variance
    if told and wanted * mean < 0 and min(abs(wanted), abs(mean)) > spread:
        return Fault(
            "score-sign",
            f"{bench.score} is {mean:.4g}, and {'-' if negative else ''}log p(x) about {wanted:.4g}: the sign is "
            "wrong.",
            "Return log p(x), or name it a negative.",
            numbers,
        )
    if apart > 1e-4 * (1 + abs(mean)):
        return Fault(
            "random-score",
            f"Two calls of {bench.score} differ by up to {apart:.3g}.",
            "Fix the draws of each datum by a seed.",
            numbers,
        )
    return None


@experiment("score-samples")
def score_samples(bench: Bench) -> Fault | None:
    """The score uses another number of draws per datum than it is asked for."""
    if not bench.score:
        raise ChoiceError("no `score` is named")
    method = bench.subject.find(bench.score)
    count = next((name for name in inspect.signature(method).parameters if name.lower() in COUNTS), None)
    if count is None:
        raise ChoiceError("the score takes no number of draws by a name such as n_samples")
    x, used = bench.x[:2], {}
    for asked in (3, 7):
        with bench.subject.fixed() as seen, seeded(0), torch.no_grad():
            method(x, **{count: asked})
        used[asked] = sum(len(z) if z.dim() == bench.codes else z.flatten(0, -bench.codes).shape[0] for z in seen)
    if all(used[asked] == asked * len(x) for asked in used):
        return None
    return Fault(
        "score-samples",
        f"Asked for 3 and 7 draws of each of two data, {bench.score} decodes {used[3]} and {used[7]} codes in all.",
        f"Draw {count} codes of each datum.",
        {"asked 3": float(used[3]), "asked 7": float(used[7])},
    )
