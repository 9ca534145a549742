"""The experiments: each finds one fault of a VAE from what its methods return."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vaekit.errors import ChoiceError
from vaekit.utils.isolation import seeded

from .bench import BROKEN, CLOSE, EXPERIMENTS, Audit, Bench, Fault, experiment
from .subject import Spread, Subject

ROWS = 16


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
    if bench.subject.encoded > 1:
        raise ChoiceError("the loss calls encode more than once, so that its prior may be made of posteriors, too")
    moved = {  # 18 and 6.4 nats per latent: above what a floor (free bits) hides
        "mean": bench.at(mean=6.0)["total"] - usual,
        "spread": bench.at(deviation=1e-3)["total"] - usual,
    }
    still = [name for name, change in moved.items() if abs(change) <= 1e-6 * (1 + abs(usual))]
    if not still:
        return None
    return Fault(
        "unused-kl",
        f"With the output of decode fixed, the loss does not change with the {' or the '.join(still)} of the "
        "posterior: the KL is clamped, left out or has the weight 0, and has no gradient.",
        "Add the KL without a clamp; audit a warm-up at its end.",
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
    scales, batches = {}, {n: torch.cat([bench.x] * n) for n in (2, 4)}
    if not bench.why:
        for name, unit in {"KL": bench.kl_unit, "reconstruction": lambda x: bench.unit(x)[1]}.items():
            with contextlib.suppress(ChoiceError):
                scales[name] = [unit(batches[n]) / one for n in batches if (one := unit(bench.x))]
    once = _terms(bench, bench.x)
    again = {n: _terms(bench, x) for n, x in batches.items()}
    for name, value in once.items():
        if name != "total" and abs(value) > 1e-9 and all(name in more for more in again.values()):
            scales[name] = [more[name] / value for more in again.values()]
    alone = bench.why and len(once) == 1 and _terms(bench, bench.x, seed=1) == once
    if alone:  # parts that are not told, and no draws: the sum scales as its parts if they do as each other
        ratios = [more["total"] / once["total"] for more in again.values()]
        if not any(abs(ratios[1] / ratio - 1) < 0.01 for ratio in (1.0, 4.0)):
            return _reduced({"the loss": ratios[0]})
        return None
    told = {n: s for n, s in scales.items() if len(s) == 2}
    sums = {n: s[0] for n, s in told.items() if abs(s[0] - 2) < 0.2 and abs(s[1] - 4) < 0.4}
    means = {n: s[0] for n, s in told.items() if abs(s[0] - 1) < 0.1 and abs(s[1] - 1) < 0.1}
    if not sums and not means:
        raise ChoiceError("the loss has no parts that scale with the batch or stay, and encode returns no posterior")
    if not sums or not means:
        return None
    return _reduced({**sums, **means})


def _terms(bench: Bench, x: Tensor, seed: int = 0) -> dict[str, float]:
    """The terms of a batch, with a fixed posterior where encode has one."""
    return bench.at(mean=0.7, x=x, seed=seed) if not bench.why else bench.subject.measured(x, seed=seed)[0]


def _reduced(scales: dict[str, float]) -> Fault:
    named = ", ".join(f"{name} times {scale:.2g}" for name, scale in scales.items())
    return Fault(
        "batch-reduction",
        f"When every datum is given twice, the parts change differently ({named}): their weights depend on "
        "the batch size.",
        "Sum every part over the elements of a datum, and average all over the batch.",
        scales,
    )


@experiment("effective-beta")
def effective_beta(bench: Bench) -> Fault | None:
    """The weight of the KL is not the one that was meant."""
    name, unit = bench.unit()
    weight = bench.kl_weight(unit)
    if abs(weight) < 1e-12:
        return None
    meant = [bench.beta, *_numbers(bench, "beta", "kl_weight", "kld_weight", "weight_kl", "kl_coef")]
    if any(abs(weight - each) < CLOSE * abs(each) for each in meant) or _has_variance(bench, name, unit, weight):
        return None
    known = {
        "The reconstruction is doubled.": 0.5,
        f"The reconstruction is averaged over the {bench.dims} elements, and the KL is not.": bench.dims,
        f"The KL is averaged over the {bench.latent} latents.": 1 / bench.latent,
        f"The reconstruction is averaged over the {bench.dims} elements, the KL over the {bench.latent} latents.":
            bench.dims / bench.latent,
    }  # fmt: skip
    why = next((f" {text}" for text, ratio in known.items() if abs(weight / bench.beta / ratio - 1) < CLOSE), "")
    likelihood = "Gaussian likelihood of unit variance" if name == "gaussian" else "Bernoulli likelihood"
    return Fault(
        "effective-beta",
        f"For a {likelihood}, the weight of the KL is {weight:.3g}, not {bench.beta:g}.{why}",
        "Sum both over the elements of a datum, with the likelihood's own factor (1/2 for squared errors).",
        {"beta": weight, "meant": bench.beta},
    )


def _numbers(bench: Bench, *words: str) -> list[float]:
    """The numbers with such a word in their name that the module or its configuration holds."""
    module = bench.subject.module
    named = {**vars(module), **dict(module.named_parameters()), **dict(module.named_buffers())}
    for where in ("config", "model_config", "cfg", "hparams"):
        held = getattr(module, where, None)
        named.update(held if isinstance(held, Mapping) else getattr(held, "__dict__", {}))
    fit = {k: v for k, v in named.items() if any(word in k.lower() for word in words)}
    scalar = [v for v in fit.values() if isinstance(v, int | float) or (isinstance(v, Tensor) and v.numel() == 1)]
    return [float(v) for v in scalar]


def _has_variance(bench: Bench, name: str, unit: float, weight: float) -> bool:
    """Whether the weight is the variance of a Gaussian likelihood: the loss has its constant, or the module holds it.

    -log p(x|z) = D/2 log(2 pi v) + |x - o|^2 / 2v, with the first term with or without 2 pi.
    """
    variance = weight / bench.beta
    if name != "gaussian" or variance <= 0:
        return False
    constant = bench.constant(name, unit) / variance / bench.dims  # nats per element if the KL has the weight 1
    if any(abs(constant - math.log(turn * variance) / 2) < 0.01 for turn in (1.0, 2 * math.pi)):
        return True
    held = _numbers(bench, "sigma", "scale", "std", "var", "noise", "precision")
    kinds = (lambda v: v, lambda v: v * v, math.exp, lambda v: math.exp(2 * v), lambda v: 1 / v)
    made = [kind(v) for v in held if 0 < abs(v) < 100 for kind in kinds]
    return any(abs(v / variance - 1) < CLOSE for v in made)


@experiment("noise-scale")
def noise_scale(bench: Bench) -> Fault | None:
    """The draws have another standard deviation than the posterior."""
    with bench.training():
        std = float(bench.draws(bench.x[:1].expand(bench.rows, *bench.x.shape[1:])).std())
    if std < 1e-6:
        return Fault(
            "evaluated-at-the-mean",
            "The loss decodes the posterior mean, not a draw: it is no bound on log p(x).",
            "Draw z = mean + std * noise in the loss.",
            {"std": std},
        )
    if bench.unclear:
        raise ChoiceError(bench.unclear)
    if abs(std / 2 - 1) < 0.15:  # 1,536 draws or more: 8 standard errors
        return None
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
    if float(bench.draws(bench.x).std()) > 1e-6:
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
    try:
        with bench.training(), seeded(0):
            total = bench.subject.terms(bench.x[:1])["total"]
            total.backward()
        value = float(total.detach())
        broken = "" if math.isfinite(value) else f"the loss is {value}"
    except (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        broken = f"it fails ({str(error).splitlines()[0][:120]})"
    if not broken:
        return None
    return Fault(
        "batch-of-one",
        f"For a training batch of one datum, {broken}.",
        "Do not squeeze the batch axis or normalise over it; or leave such a batch out.",
        {},
    )


@experiment("silent-range")
def silent_range(bench: Bench) -> Fault | None:
    """Data from 0 to 255 are accepted against a Bernoulli likelihood."""
    if bench.unit()[0] == "gaussian":
        return None
    try:
        total = bench.at(x=bench.x * 255)["total"]
    except (RuntimeError, ValueError, AssertionError):
        return None
    if not math.isfinite(total):
        return None
    return Fault(
        "silent-range",
        f"Data from 0 to 255 give a loss of {total:.3g} without an error, and a Bernoulli likelihood has no "
        "density there.",
        "Check that x lies in [0, 1].",
        {"loss": total},
    )


@experiment("critic")
def critic(bench: Bench) -> Fault | None:
    """The loss of a critic trains the encoder.

    A critic's parameters are those that neither the posterior nor the output of decode depends on. Its loss is the part
    by this name, or a part that trains them while the whole loss does not: it has an optimiser of its own.
    """
    if bench.why:
        raise ChoiceError(bench.why)
    subject = bench.subject
    params = [p for p in subject.module.parameters() if p.requires_grad]
    with seeded(0):
        mean, spread = subject.read(bench.x)
        encoder = _trained(mean.sum() + spread.sum(), params)
        vae = encoder | _trained(subject.decoded(mean).sum(), params)
        terms = subject.terms(bench.x)
    trained = {n: _trained(value, params) for n, value in terms.items()}
    parts = [n for n in terms if n != "total" and trained[n] - vae]
    named = [n for n in parts if any(word in n.lower() for word in ("disc", "critic"))]
    alone = parts if not trained["total"] - vae else []
    if not named and not alone:
        raise ChoiceError("no part of the loss can be told to be that of a critic, by its name or by its gradients")
    found = [n for n in named or alone if trained[n] & encoder]
    if not found:
        return None
    return Fault(
        "critic",
        f"The part {found[0]!r} trains {len(trained[found[0]] - vae)} parameters of a critic, and has a gradient for "
        f"{len(trained[found[0]] & encoder)} of the encoder: training the critic trains the encoder against itself.",
        "Detach the codes in the critic's loss.",
        {"encoder": float(len(trained[found[0]] & encoder))},
    )


def _trained(value: Tensor, params: list[nn.Parameter]) -> set[int]:
    """The parameters that a value has a gradient for, by their numbers."""
    if not value.requires_grad:
        return set()
    grads = torch.autograd.grad(value, params, allow_unused=True, retain_graph=True)
    return {i for i, g in enumerate(grads) if g is not None and float(g.abs().sum()) > 0}


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
        key: the key of the dict that the loss takes in place of x, such as data; pair for a pair of x and a label 0.
        spread: what stands beside the mean: log_variance, std, variance or log_std; by default by its name, or by
            the KL in the loss.
        beta: the weight of the KL that is meant; one that the module holds by this name is right, too.

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
        with seeded(0):
            bench.subject.terms(bench.x)  # whatever it raises is the caller's to see
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
        except BROKEN as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
            skipped[name] = f"the module cannot be called so: {why}"
            continue
        finally:
            bench.restore()
        if found is None:
            passed.append(name)
        else:
            faults.setdefault(found.name, found)
    return Audit(of, tuple(faults.values()), tuple(passed), skipped)
