"""The experiments: each finds one fault of a VAE from what its methods return."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from vaekit.errors import ChoiceError
from vaekit.objectives.terms import log_mean_weight
from vaekit.utils.isolation import seeded

from .bench import CLOSE, EXPERIMENTS, LIKELIHOODS, Audit, Bench, Fault, experiment
from .subject import Spread, Subject

ROWS = 16
DRAWS = 256
"""Importance samples of the bound that a loss is compared with."""


@experiment("random-encode")
def random_encode(bench: Bench) -> Fault | None:
    """Two calls of encode give different means."""
    if bench.why:
        raise ChoiceError(bench.why)
    with torch.no_grad():
        first, second = bench.subject.read(bench.x)[0], bench.subject.read(bench.x)[0]
    apart = float((first - second).abs().max())
    if apart <= 1e-5:
        return None
    return Fault(
        "random-encode",
        f"Two calls of encode in evaluation mode differ by up to {apart:.2g}, so scores change.",
        "Return the mean of the posterior, and draw only where a draw is wanted.",
        {"difference": apart},
    )


@experiment("unused-kl")
def unused_kl(bench: Bench) -> Fault | None:
    """The loss does not change with the posterior."""
    usual = bench.at(output=0.3)["total"]
    moved = {
        "mean": bench.at(mean=3.0)["total"] - usual,
        "spread": bench.at(deviation=0.2)["total"] - usual,
    }
    still = [name for name, change in moved.items() if abs(change) <= 1e-6 * (1 + abs(usual))]
    if not still:
        return None
    return Fault(
        "unused-kl",
        f"With the output of decode fixed, the loss does not change with the {' or the '.join(still)} of the "
        "posterior: the KL is clamped or left out, and has no gradient.",
        "Add the KL without a clamp.",
        moved,
    )


@experiment("negative-kl")
def negative_kl(bench: Bench) -> Fault | None:
    """The loss rewards a posterior that is far from the prior."""
    unit = bench.kl_unit()
    if unit >= -1e-9:
        return None
    return Fault(
        "negative-kl", f"The loss falls by {-unit:.2g} per nat of the KL.", "Add the KL to the loss.", {"unit": unit}
    )


@experiment("batch-reduction")
def batch_reduction(bench: Bench) -> Fault | None:
    """Parts of the loss scale differently with the batch size."""
    twice, posterior = torch.cat([bench.x, bench.x]), {}
    if not bench.why:
        posterior = {"KL": (bench.kl_unit(), bench.kl_unit(twice))}
        posterior["reconstruction"] = (bench.unit()[1], bench.unit(twice)[1])
        first, second = bench.at(mean=0.7), bench.at(mean=0.7, x=twice)
    else:
        first, second = bench.subject.measured(bench.x)[0], bench.subject.measured(twice)[0]
    parts = {n: (first[n], second[n]) for n in first if n != "total" and abs(first[n]) > 1e-9 and n in second}
    scales = {n: b / a for n, (a, b) in {**posterior, **parts}.items() if abs(a) > 1e-12}
    if not scales:
        raise ChoiceError("the loss has no parts, and encode returns no posterior")
    if max(scales.values()) - min(scales.values()) < 0.5:
        return None
    named = ", ".join(f"{name} times {scale:.2g}" for name, scale in scales.items())
    return Fault(
        "batch-reduction",
        f"When every datum is repeated, the parts change differently ({named}): their weights depend on "
        "the batch size.",
        "Sum every part over the elements of a datum, and average all over the batch.",
        scales,
    )


@experiment("effective-beta")
def effective_beta(bench: Bench) -> Fault | None:
    """The weight of the KL is not the one that was meant."""
    name, unit = bench.unit()
    kl = bench.kl_unit()
    if abs(kl) < 1e-12 or abs(unit) < 1e-12:
        return None
    weight = kl / unit
    if abs(weight / bench.beta - 1) < CLOSE:
        return None
    why = (
        ""
        if abs(weight / bench.beta / bench.dims - 1) > CLOSE
        else (f" The reconstruction is averaged over the {bench.dims} elements, and the KL is not.")
    )
    why = " The reconstruction is doubled." if abs(weight / bench.beta - 0.5) < CLOSE else why
    why = (
        f" The KL is averaged over the {bench.latent} latents."
        if abs(weight * bench.latent / bench.beta - 1) < CLOSE
        else why
    )
    likelihood = "Gaussian of unit variance" if name == "gaussian" else "Bernoulli"
    return Fault(
        "effective-beta",
        f"For a {likelihood} likelihood, the weight of the KL is {weight:.3g}, not {bench.beta:g}.{why}",
        "Sum both over the elements of a datum, with the likelihood's own factor (1/2 for squared errors).",
        {"beta": weight, "meant": bench.beta},
    )


@experiment("noise-scale")
def noise_scale(bench: Bench) -> Fault | None:
    """The draws have another standard deviation than the posterior."""
    if bench.why:
        raise ChoiceError(bench.why)
    x = bench.x[:1].expand(512, *bench.x.shape[1:])
    shape = (512, bench.latent)
    spread = torch.full(shape, bench.subject.spread_of(2.0))
    bench.subject.module.train()
    try:
        _, seen = bench.subject.measured(x, mean=torch.zeros(shape), spread=spread)
    finally:
        bench.subject.module.eval()
    if not seen:
        raise ChoiceError("the loss does not call decode: name the method with `decode`")
    std = float(seen[-1].std())
    if abs(std / 2 - 1) < 0.15:  # 512 draws or more: 5 standard errors
        return None
    if std < 1e-6:
        return Fault(
            "evaluated-at-the-mean",
            "The loss decodes the posterior mean, not a draw: it is no bound on log p(x).",
            "Draw z = mean + std * noise in the loss.",
            {"std": std},
        )
    why = ": the noise is multiplied by the variance" if abs(std / 4 - 1) < 0.15 else ""
    return Fault(
        "noise-scale",
        f"Draws of a posterior with standard deviation 2 have {std:.3g}{why}.",
        "Draw z = mean + exp(logvar / 2) * noise.",
        {"std": std},
    )


@experiment("evaluated-at-the-mean")
def evaluated_at_the_mean(bench: Bench) -> Fault | None:
    """In evaluation mode the loss decodes the mean."""
    if bench.why:
        raise ChoiceError(bench.why)
    shape = (len(bench.x), bench.latent)
    spread = torch.full(shape, bench.subject.spread_of(2.0))
    _, seen = bench.subject.measured(bench.x, mean=torch.zeros(shape), spread=spread)
    if not seen:
        raise ChoiceError("the loss does not call decode: name the method with `decode`")
    if float(seen[-1].std()) > 1e-6:
        return None
    return Fault(
        "evaluated-at-the-mean",
        "In evaluation mode the loss decodes the posterior mean, not a draw: as an ELBO it is too high.",
        "Draw z in evaluation mode, too.",
        {"std": 0.0},
    )


@experiment("batch-of-one")
def batch_of_one(bench: Bench) -> Fault | None:
    """A last batch of one datum cannot be trained on."""
    bench.subject.module.train()
    try:
        with seeded(0):
            total = bench.subject.terms(bench.x[:1])["total"]
            total.backward()
        value = float(total.detach())
        broken = "" if math.isfinite(value) else f"the loss is {value}"
    except (RuntimeError, ValueError, IndexError) as error:
        broken = f"it fails ({str(error).splitlines()[0][:120]})"
    finally:
        bench.subject.module.eval().zero_grad(set_to_none=True)
    if not broken:
        return None
    return Fault(
        "batch-of-one",
        f"For a training batch of one datum, {broken}.",
        "Do not squeeze the batch axis or normalise over it.",
        {},
    )


@experiment("silent-range")
def silent_range(bench: Bench) -> Fault | None:
    """Data from 0 to 255 are accepted against a Bernoulli likelihood."""
    if bench.unit()[0] == "gaussian":
        return None
    try:
        total = bench.at(x=bench.x * 255)["total"]
    except (RuntimeError, ValueError):
        return None
    return Fault(
        "silent-range",
        f"Data from 0 to 255 give a loss of {total:.3g} without an error, and a Bernoulli likelihood has no "
        "density there.",
        "Check that x lies in [0, 1].",
        {"loss": total},
    )


@experiment("bound")
def above_the_bound(bench: Bench) -> Fault | None:
    """The negative loss is above the importance-weighted bound, so that it is no bound on log p(x)."""
    name, unit = bench.unit()
    if abs(bench.kl_unit() / unit / bench.beta - 1) > CLOSE or bench.beta != 1:
        raise ChoiceError("the weight of the KL is not 1, so the loss is no ELBO")
    values = [-bench.subject.measured(bench.x, seed=seed)[0]["total"] / unit for seed in range(32)]
    constant = -bench.at(output=0.3)["total"] / unit + float(
        LIKELIHOODS[name](bench.x, torch.full_like(bench.x, 0.3)).mean()
    )
    claimed = sum(values) / len(values) - constant
    tight = _weighted(bench, name)
    error = 4 * float(torch.tensor(values).std()) / math.sqrt(len(values)) + 0.05
    if claimed <= tight + error:
        return None
    return Fault(
        "bound",
        f"The negative loss is {claimed:.2f} nats per datum, above the importance-weighted bound with {DRAWS} draws, "
        f"{tight:.2f}: it is no lower bound.",
        "Use log p(x, z) - log q(z|x) at the same draws.",
        {"claimed": claimed, "bound": tight},
    )


def _weighted(bench: Bench, name: str) -> float:
    """The importance-weighted bound of the module's own posterior and likelihood, without constants, per datum."""
    with torch.no_grad(), seeded(0):
        mean, std = bench.subject.read(bench.x)
        noise = torch.randn(DRAWS, *mean.shape)
        weights = []
        for e in noise:
            z = mean + std * e
            log_ratio = (-(z**2) / 2 + e**2 / 2 + torch.log(std)).sum(-1)
            weights.append(log_ratio - LIKELIHOODS[name](bench.x, bench.subject.decoded(z)))
    return float(log_mean_weight(torch.stack(weights)).mean())


@experiment("critic")
def critic(bench: Bench) -> Fault | None:
    """The loss of a critic trains the encoder."""
    module = bench.subject.module
    encoder = [p for n, p in module.named_parameters() if n.startswith("enc")]
    with seeded(0):
        terms = bench.subject.terms(bench.x)
    named = [n for n in terms if any(word in n.lower() for word in ("disc", "critic", "adv"))]
    if not named or not encoder:
        raise ChoiceError("the loss has no part named as that of a critic, or no parameter is named enc...")
    value = terms[named[0]]
    grads = torch.autograd.grad(value, encoder, allow_unused=True) if value.requires_grad else []
    size = sum(float(g.abs().sum()) for g in grads if g is not None)
    if not size:
        return None
    return Fault(
        "critic",
        f"The part {named[0]!r} has a gradient of {size:.2g} for the encoder: training the critic trains the "
        "encoder against itself.",
        "Detach the codes in the critic's loss.",
        {"gradient": size},
    )


PARTS = {"alpha": ("mi", "mutual"), "beta": ("tc", "total_corr"), "gamma": ("dw", "dim")}
"""The parts of the KL that the weights of the total-correlation VAE belong to, by the beginnings of their names."""


@experiment("tc-weights")
def tc_weights(bench: Bench) -> Fault | None:
    """A weight of the total-correlation VAE multiplies another part of the KL than its own."""
    module = bench.subject.module
    values = vars(module)
    terms = bench.subject.measured(bench.x)[0]
    parts = {w: next((n for n in terms if n.lower().startswith(names)), None) for w, names in PARTS.items()}
    weights = [w for w in PARTS if isinstance(values.get(w), int | float) and parts[w] is not None]
    if len(weights) < 2:
        raise ChoiceError("the module has no numbers alpha, beta, gamma with parts mi, tc and dw in its loss")
    for weight in weights:
        before = values[weight]
        try:
            setattr(module, weight, before + 1.0)
            change = bench.subject.measured(bench.x)[0]["total"] - terms["total"]
        finally:
            setattr(module, weight, before)
        own = str(parts[weight])
        if abs(change - terms[own]) > CLOSE * max(abs(terms[own]), 1e-3):
            other = next((n for n, v in terms.items() if n != "total" and abs(change - v) < 0.01 * abs(v)), "no part")
            return Fault(
                "tc-weights",
                f"One more {weight} changes the loss by {change:.3g}, which is {other}, not {own!r} "
                f"({terms[own]:.3g}).",
                f"Multiply {own!r} by {weight}.",
                {"change": change, "part": terms[own]},
            )
    return None


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
    tight = _weighted(bench, bench.unit()[0])
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
    if abs(mean + wanted) < abs(mean - wanted) and abs(mean) > spread:
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


@experiment("seed")
def seeds(bench: Bench) -> Fault | None:
    """A call sets torch's global seed, or changes the module in evaluation mode."""
    before = {n: t.clone() for n, t in bench.subject.module.state_dict().items()}
    numbers = []
    with torch.no_grad(), seeded(0):
        for _ in range(2):
            bench.subject.terms(bench.x)
            numbers.append(float(torch.rand(())))
    if numbers[0] == numbers[1]:
        return Fault(
            "seed",
            "After each call of the loss, torch draws the same numbers: it sets the global seed.",
            "Take a generator as an argument.",
            {},
        )
    changed = [n for n, t in bench.subject.module.state_dict().items() if not torch.equal(t, before[n])]
    if not changed:
        return None
    return Fault(
        "state",
        f"The loss changes {changed[0]} in evaluation mode, so results depend on earlier calls.",
        "Update buffers in training mode only.",
        {"changed": float(len(changed))},
    )


def audit(
    module: nn.Module,
    data: Any = None,
    *,
    shape: tuple[int, ...] | None = None,
    encode: str = "encode",
    decode: str = "decode",
    loss: str = "loss",
    score: str = "",
    key: str = "",
    spread: Spread | None = None,
    beta: float = 1.0,
) -> Audit:
    """Find faults of a VAE by experiments on its methods; its code is not read, and it is not trained.

    Arguments:
        module: an instance; its weights are left as they are.
        data: x (N, *event) in the range that the module expects; by default random numbers in [0, 1].
        shape: event shape of x, if no data are given.
        encode, decode, loss: names of its methods or submodules. encode returns mean and spread, as a pair or by name;
            decode returns the mean (or logits) of x; the loss takes x and returns a number, or a dict or tuple of them.
        score: the name of a method that gives log p(x) of each datum, or its mean; names with nll or neg are negative.
        key: the key of the dict that the loss takes in place of x, such as data.
        spread: what stands beside the mean: log_variance (the default), std, variance or log_std.
        beta: the weight of the KL that is meant.

    Raises:
        ChoiceError: the module has no such methods, or they return something else.
    """
    if data is None and shape is None:
        raise ChoiceError("an audit needs `data`, or the `shape` of one datum, such as (1, 28, 28)")
    with seeded(0):
        x = torch.rand(ROWS, *(shape or ())) if data is None else torch.as_tensor(data)[:ROWS].float()
    training = module.training
    bench = Bench(Subject(module, encode=encode, decode=decode, loss=loss, key=key, spread=spread), x, beta, score)
    try:
        return _audited(bench, type(module).__name__)
    finally:
        module.train(training)


def _audited(bench: Bench, of: str) -> Audit:
    faults: dict[str, Fault] = {}
    passed, skipped = [], {}
    for name, made in EXPERIMENTS.items():
        try:
            found = made(bench)
        except ChoiceError as error:
            skipped[name] = str(error)
            continue
        if found is None:
            passed.append(name)
        else:
            faults.setdefault(found.name, found)
    return Audit(of, tuple(faults.values()), tuple(passed), skipped)
