"""Diseases that can be seen from the log and the weights of a run, during training or after it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Distribution

from vaekit.models.quantised import FiniteScalarQuantiser, LookupFreeQuantiser, QuantisedEncoder
from vaekit.models.vae import VAE
from vaekit.noise import Key, Noise
from vaekit.objectives import Batch
from vaekit.objectives.quantised import code_shares, perplexity
from vaekit.objectives.schedules import Schedule
from vaekit.training.overfitting import fall, why_not_judged
from vaekit.utils.isolation import seeded

from .patient import Array, Patient
from .registry import DATA, DENSITY, RUN, TRAINED, Need, NotJudged, Symptom, disease
from .spectrum import independent

COLLAPSED = 0.1
"""A code with a rate of 0.1 nats distinguishes about exp(0.1) = 1.1 examples."""
FAR = 30.0
"""A mean 30 prior standard deviations from 0 costs 450 nats, more than the information of a latent about any datum."""
WIDE = 10.0
"""A posterior 10 times as wide as the prior costs 47 nats and carries no information."""
SPREAD = 100.0
"""A likelihood 100 times as wide as the data predicts nothing; it is not learned, it has diverged."""
SPIKE, SPIKE_NATS = 2.0, 5.0
"""A spike is twice the rate of the records around it, and at least 5 nats above it."""
AROUND = 3
"""Records before and after a spike that it is compared with."""
DRAWS_PER_CODE = 10
"""An entry that is as likely as the others is drawn by chance at least once in 10 expected draws, but in exp(-10)."""
DEAD = 0.5
"""A layer of which half of the units get no gradient has half of its capacity left."""
SMALLEST = 1e-7
"""A unit whose gradient is below this share of the largest in its layer is at the resolution of float32."""
RISING = 0.05
"""A validation ELBO that rises by more than 5% of its total rise over the last fifth of the steps is not done."""
RISEN = 0.1
"""A rise of a tenth of a nat is not worth more training."""


def _validated(patient: Patient) -> str | None:
    return None if patient.records("valid") else "the log has no validation"


def _quantised(patient: Patient) -> str | None:
    model = patient.composition.model if patient.composition is not None else None
    return None if isinstance(getattr(model, "posterior", None), QuantisedEncoder) else "the codes are not discrete"


VALIDATED = Need("a validation in the log", _validated)
QUANTISED = Need("discrete codes", _quantised)


@disease("non-finite", "Training stopped at a number that is not finite", stage="during", severity="serious",
         needs=[RUN])  # fmt: skip
def non_finite(patient: Patient) -> Symptom | None:
    """A loss or a weight became infinite or not a number"""
    found = patient.records("non-finite")
    if not found:
        return None
    step, term = int(found[-1]["step"]), str(found[-1]["term"])
    lr = patient.training.lr
    remedy = f"Train again with a smaller rate such as `lr={lr / 10:g}`, or with `clip=100` or `precision='fp32'`."
    return Symptom(f"{term} was not finite at step {step:,}.", remedy, {"step": step, "lr": lr})


@disease("posterior-collapse", "The posterior has collapsed to the prior", stage="during", severity="serious",
         needs=[RUN, VALIDATED, DENSITY])  # fmt: skip
def collapse(patient: Patient) -> Symptom | None:
    """The code carries no information about x: the KL of the posterior from the prior is 0 for nearly all data"""
    valid = [record for record in patient.records("valid") if record.get("rate") is not None]
    if not valid or (rate := max(0.0, float(valid[-1]["rate"]))) >= COLLAPSED:  # below 0 by Monte Carlo error
        return None
    highest = max(float(record["rate"]) for record in valid)
    evidence = (
        f"The rate at step {valid[-1]['step']:,} is {rate:.2g} nats per example: the code distinguishes about "
        f"exp({rate:.2g}) = {math.exp(rate):.2f} examples (limit {COLLAPSED:g} nats)."
    )
    beta = patient.choices.get("beta")
    lower = isinstance(beta, int | float) and beta > 1
    remedies = ["`beta=1` in place of " + f"{beta:g}"] if lower else []
    remedies += ["a slow start of the KL (`warmup=STEPS`, half of the steps)", "`free_bits=0.1`", "more steps"]
    numbers = {"rate": rate, "highest_rate": highest}
    remedy = f"Train with {', '.join(remedies[:-1])} or {remedies[-1]}."
    if (why := _explained(patient)) is None:
        return Symptom(evidence, remedy, numbers)
    return Symptom(f"{evidence} {why}", remedy, numbers, severity="warning", certain=False)


def _explained(patient: Patient) -> str | None:
    """Why a code without information may be right; None if the data have structure that it should carry."""
    condition = patient.model.condition
    if condition is not None and (condition.kind != "label" or not patient.in_memory):
        return "The condition may already explain x."
    if not patient.in_memory or not independent(patient):
        return None
    if condition is not None:
        return "Given the class, the elements of x look independent, so there may be no structure left to encode."
    return "The elements of x look independent, so there may be no structure to encode."


@disease("kl-spikes", "The KL jumps", stage="during", severity="warning", needs=[RUN, DENSITY])
def kl_spikes(patient: Patient) -> Symptom | NotJudged | None:
    """The KL has jumps that the records before and after do not have: single steps throw the encoder off"""
    train = [record for record in patient.records("train") if record.get("rate") is not None]
    rates, steps = np.array([r["rate"] for r in train], float), [int(r["step"]) for r in train]
    if len(rates) < 2 * AROUND:
        return NotJudged(f"the log has {len(rates)} records, and it needs {2 * AROUND}")
    falls = _falls(patient, steps)
    if falls is None:
        return NotJudged("a weight of the loss has a schedule of its own")
    where = [i for i in spikes(rates) if not falls[max(0, i - AROUND) : i + 1].any()]
    if not where:
        return None
    worst = max(where, key=lambda i: rates[i])
    usual = _around(rates, worst)
    evidence = (
        f"The rate jumps {len(where)} time{'s' * (len(where) > 1)} to more than twice the records around it, "
        f"to {rates[worst]:,.1f} nats from {usual:,.1f} near step {steps[worst]:,}."
    )
    lr = patient.training.lr
    remedy = f"Use a smaller rate such as `lr={lr / 3:.1g}`, or `clip=100`."
    return Symptom(evidence, remedy, {"spikes": len(where), "highest_rate": float(rates[worst]), "usual_rate": usual})


def _falls(patient: Patient, steps: list[int]) -> NDArray[np.bool_] | None:
    """For each record, whether a weight of the loss fell in its steps; None if that is unknown.

    Where the weight of the KL falls, as at the start of each of its `cycles`, the KL must rise.
    """
    last = np.zeros(len(steps), bool)
    for schedule in patient.model.objective.modules():
        if not isinstance(schedule, Schedule):
            continue
        try:
            weight = schedule(torch.arange(steps[-1] + 1)).double().numpy()
        except (RuntimeError, ValueError, TypeError):  # one that takes no vector of steps
            return None
        fell = np.cumsum(np.diff(weight, prepend=weight[:1]) < -1e-6 * np.abs(weight).max())
        last |= np.diff(fell[steps], prepend=0) > 0
    return last


def spikes(rates: Array) -> list[int]:
    """The indices of the records (n,) that are `SPIKE` times the median before and the median after them."""
    return [
        i
        for i in range(AROUND, len(rates) - 2)
        if rates[i] > SPIKE * (usual := _around(rates, i)) and rates[i] - usual > SPIKE_NATS
    ]


def _around(rates: Array, i: int) -> float:
    """The larger of the medians of the records before and after record i: a trend is not a spike."""
    return float(max(np.median(rates[i - AROUND : i]), np.median(rates[i + 1 : i + 1 + AROUND])))


@disease("over-fitting", "The model overfits", stage="during", severity="warning", needs=[RUN, VALIDATED, DENSITY])
def over_fitting(patient: Patient) -> Symptom | NotJudged | None:
    """The validation ELBO has fallen below its best by more than chance explains"""
    fallen = fall(patient.saved)
    if fallen is None:
        why = why_not_judged(patient.saved)
        return None if why is None else NotJudged(why)
    numbers = {"best_step": fallen.step, "best_elbo": fallen.best, "decrease": fallen.decrease, "se": fallen.se}
    remedy = f"{fallen.remedies[0]}; {'; '.join(fallen.remedies[1:])}."
    return Symptom(f"{fallen.evidence[0].upper()}{fallen.evidence[1:]}.", remedy, numbers)


@disease("unfinished", "Training stopped while the model still improved", stage="during", severity="note",
         needs=[RUN, VALIDATED, DENSITY])  # fmt: skip
def not_done(patient: Patient) -> Symptom | NotJudged | None:
    """The validation ELBO still rises at the end"""
    valid = [record for record in patient.records("valid") if record.get("elbo") is not None]
    last = valid[-1] if valid else {"step": 0}
    before = [record for record in valid if record["step"] <= 0.8 * last["step"]]
    if len(valid) < 4 or not before:
        return NotJudged(f"the log has {len(valid)} validations with an ELBO, and it needs 4")
    rise, total = last["elbo"] - before[-1]["elbo"], last["elbo"] - valid[0]["elbo"]
    if rise <= max(RISEN, RISING * total):
        return None
    evidence = (
        f"The validation ELBO rose by {rise:.2f} nats over the last {1 - before[-1]['step'] / last['step']:.0%} of "
        f"the steps, {rise / total:.0%} of its rise since the first validation (limit {RISING:.0%})."
    )
    remedy = f"Train longer: `vk.fit(out='{patient.saved.path}', extend=True, steps={2 * int(last['step'])})`."
    return Symptom(evidence, remedy, {"rise": rise, "total_rise": total, "step": int(last["step"])})


# --- what the weights show ----------------------------------------------------------------------------------------


class Scales(NamedTuple):
    """Scales of the posterior in prior standard deviations, of the likelihood in those of the data; -inf for none."""

    mean: float
    std: float
    px: float


@torch.no_grad()
def scales(patient: Patient) -> Scales:
    """The largest absolute posterior mean, posterior deviation and likelihood deviation over validation rows."""
    x, c, rows = patient.observed("valid", 200)
    trace = patient.model.model.trace(x, c, noise=Noise.of(0, rows, Key.VALIDATE))
    means, stds = [-math.inf], [-math.inf]
    for latent in trace.latents:
        q, p = _moments(latent.q), _moments(latent.p)
        if q is not None and p is not None:
            means.append(float(((q[0] - p[0]) / p[1]).abs().max()))
            stds.append(float((q[1] / p[1]).max()))
    px = _moments(trace.px)
    spread = x.std(0, correction=0)
    wide = -math.inf
    if px is not None and px[1].shape[-x.dim() + 1 :] == x.shape[1:]:
        ratio = torch.where(spread > 0, px[1] / spread.clamp_min(1e-12), torch.zeros_like(px[1]))
        wide = float(ratio.amax(dim=tuple(range(1, ratio.dim()))).median())
    return Scales(max(means), max(stds), wide)


def _moments(density: Distribution) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation, if the distribution has them."""
    try:
        mean, std = density.mean, density.stddev
    except (NotImplementedError, AttributeError):
        return None
    return (mean, std) if bool((std > 0).any()) else None


@disease("exploding-scales", "Scales have exploded", stage="during", severity="serious", needs=[TRAINED, DATA, DENSITY])
def exploding(patient: Patient) -> Symptom | None:
    """Means or standard deviations of the posterior, or of the likelihood, have left every sensible range"""
    found = scales(patient)
    parts = [
        f"{text} (limit {limit:g})"
        for value, limit, text in (
            (found.mean, FAR, f"a posterior mean lies {found.mean:,.0f} prior standard deviations from the prior's"),
            (found.std, WIDE, f"a posterior is {found.std:,.0f} times as wide as the prior"),
            (found.px, SPREAD, f"the likelihood is typically {found.px:,.0f} times as wide as the data"),
        )
        if value > limit
    ]
    if not parts:
        return None
    lr = patient.training.lr
    remedy = f"Train again with a smaller rate such as `lr={lr / 10:g}`, and with `clip=100`."
    evidence = "; ".join(parts)
    known = {"posterior_mean": found.mean, "posterior_std": found.std, "likelihood_std": found.px}
    numbers = {name: value for name, value in known.items() if math.isfinite(value)}
    return Symptom(f"{evidence[0].upper()}{evidence[1:]}.", remedy, numbers)


@disease("dead-codes", "Codes are dead", stage="during", severity="warning", needs=[TRAINED, DATA, QUANTISED])
def dead_codes(patient: Patient) -> Symptom | NotJudged | None:
    """Entries of the codebook are chosen for no datum"""
    model = patient.model.model
    assert isinstance(model, VAE)
    assert isinstance(model.posterior, QuantisedEncoder)
    x, c, _ = patient.observed("valid", 1000)
    with torch.no_grad():
        q = model.posterior(*((x,) if c is None else (x, c)))
        codes = q.drawn_codes(Noise.of(0, len(x), Key.CODES, device=x.device))
    quantiser = model.posterior.quantiser
    among, effective = quantiser.codes * quantiser.stages, float(perplexity(codes, quantiser.codes, quantiser.stages))
    draws = codes.numel() / among
    used = int((code_shares(codes, quantiser.codes, quantiser.stages) > 0).sum())
    unused = 1 - used / among
    if draws < DRAWS_PER_CODE:
        return NotJudged(f"the validation data give {draws:.1f} draws per code, and it needs {DRAWS_PER_CODE}")
    if unused < 0.2:
        return None
    evidence = (
        f"{among - used:,} of {among:,} codes are not chosen once for {len(x):,} validation examples with {draws:.0f} "
        f"draws per code (limit 20%); in effect {effective:.1f} codes are used."
    )
    few = max(2, 2 ** math.ceil(math.log2(max(2.0, effective))))
    remedy = f"Use fewer codes (`codes={few}`), or `recipe='simvq'`, whose entries move together."
    if isinstance(quantiser, LookupFreeQuantiser):
        remedy = f"Use fewer bits, such as `bits={max(1, int(math.log2(few)))}`, so that each code is used."
    elif isinstance(quantiser, FiniteScalarQuantiser):
        remedy = "Use fewer levels, such as `levels=(4, 4)`, so that each code is used."
    numbers = {"codes": among, "used": used, "perplexity": effective, "draws_per_code": draws}
    return Symptom(evidence, remedy, numbers, severity="serious" if unused > 0.9 else None)


class Layer(NamedTuple):
    """A layer with weights (units, ...) and the share of its units that get no gradient."""

    name: str
    units: int
    dead: float


def layers_without_gradient(patient: Patient) -> Iterator[Layer]:
    """The layers of the model of which some unit gets no gradient on training rows.

    A unit is a row of a weight matrix, or a channel of a convolution. Layers that give the numbers of the likelihood
    are left out: elements that are constant in the data get none there. So are frozen ones, and those that the
    objective does not use.
    """
    composition = patient.model
    model, objective = composition.model, composition.objective
    data, rows = patient.known, np.arange(min(500, len(patient.known.train)))
    raw = torch.from_numpy(np.ascontiguousarray(data.events(data.train[rows])))
    noise = Noise.of(0, torch.from_numpy(rows))
    c, y = composition.condition, composition.targets
    x = composition.observation(raw, noise if composition.observation.stochastic else None)
    batch = Batch(
        x,
        noise,
        torch.from_numpy(c.of(data.train)[rows]) if c else None,
        torch.from_numpy(y.of(data.train)[rows]) if y else None,
    )
    outputs = getattr(getattr(model.likelihood, "head", None), "features", -1)
    with torch.enable_grad(), seeded(0):
        losses = objective(model, batch, torch.tensor(patient.steps)).losses
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    for group, parameters in objective.parameter_groups(model).items():
        if not (known := [p for p in parameters if id(p) in names]):
            continue
        gradients = torch.autograd.grad(losses[group], known, retain_graph=True, allow_unused=True)
        for p, g in zip(known, gradients, strict=True):
            if g is not None and p.dim() > 1 and len(p) != outputs and len(p) > 1:
                yield Layer(names[id(p)], len(p), _dead(g))


def _dead(gradient: Tensor) -> float:
    norms = gradient.flatten(1).norm(dim=1)
    return float((norms <= SMALLEST * norms.max()).float().mean())


@disease("dying-gradients", "Units get no gradient", stage="during", severity="warning", needs=[TRAINED, DATA])
def dying(patient: Patient) -> Symptom | None:
    """Most units of a layer get no gradient from any training row, so that they never change again"""
    found = list(layers_without_gradient(patient))
    worst = max(found, key=lambda layer: layer.dead, default=None)
    if worst is None or worst.dead <= DEAD:
        return None
    evidence = (
        f"{worst.dead:.0%} of the {worst.units:,} units of {worst.name} get no gradient from 500 training rows "
        f"(limit {DEAD:.0%})."
    )
    lr, activation = patient.training.lr, patient.choices.get("activation")
    other = "`activation='gated'` or " if activation == "relu" else ""
    remedy = f"Train again with {other}a smaller rate such as `lr={lr / 10:g}`; dead units do not recover."
    numbers = {"layer": worst.name, "units": worst.units, "share_dead": worst.dead}
    return Symptom(evidence, remedy, numbers, severity="serious" if worst.dead == 1 else None)
