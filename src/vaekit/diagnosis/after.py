"""Diseases of a trained model: of its latents, its prior and its importance weights."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from torch.distributions import Independent

from vaekit.certificate.certify import STORED as CERTIFICATE
from vaekit.coding.compress import digest_of
from vaekit.data.core import counted, listed
from vaekit.errors import RunError
from vaekit.estimators import reliable, why_not
from vaekit.latents.paths import nearest
from vaekit.metrics.latents import ACTIVE
from vaekit.metrics.likelihood import scored
from vaekit.models.quantised import QuantisedEncoder
from vaekit.models.vae import VAE
from vaekit.utils.files import read_json
from vaekit.utils.uncertainty import area

from .neighbours import share_at_least
from .patient import SAMPLES, Array, Patient
from .registry import DATA, DENSITY, TRAINED, Need, NotJudged, Symptom, disease

UNUSED = 0.5
"""With more than half of the latents unused, the model is much larger than its code."""
OUTSIDE = 0.01
"""The share of held-out codes that lie farther from the training codes than the limit of a hole."""
FARTHER = 1.25
"""A hole is a quarter farther than that: with many latents all distances are alike, and any difference exceeds a
quantile."""
HOLES = 0.2
"""With one prior sample in five in a hole, samples are visibly worse than reconstructions."""
GAP, WIDE_GAP = 0.75, 0.9
"""Areas of 0.75 and 0.9 are those of two unit normals 1 and 1.8 standard deviations apart. The first is common for a
Gaussian prior, the second not."""
BINS = 20
"""Bins of a latent for the lower bound of the KL."""
WEIGHTED = 2.0
"""Below two effective samples, the bound of most data rests on a single draw, and more draws change it."""


def _continuous(patient: Patient) -> str | None:
    model = patient.composition.model if patient.composition is not None else None
    return "the codes are discrete" if isinstance(getattr(model, "posterior", None), QuantisedEncoder) else None


CONTINUOUS = Need("continuous codes", _continuous)


@disease("unused-latents", "Latents are unused", stage="after", severity="note",
         needs=[TRAINED, DATA, DENSITY, CONTINUOUS])  # fmt: skip
def unused_latents(patient: Patient) -> Symptom | NotJudged | None:
    """Latents whose posterior is the same for all data carry no information"""
    seen = patient.survey
    unused = [name for name, active in zip(seen.names, seen.active, strict=True) if not active]
    total = len(seen.names)
    if seen.n < 2:
        return NotJudged("it needs 2 test examples")
    if not unused:
        return None
    numbers = {"unused": len(unused), "latents": total}
    if len(unused) == total:
        rate = "" if seen.kl is None else f", although the KL is {seen.kl.sum():.2g} nats"
        evidence = (
            f"The posterior mean of no latent varies by more than {ACTIVE} (variance) over {seen.n:,} test examples"
            f"{rate}: all data have one code."
        )
        remedy = "Train again with `warmup=STEPS` (half of the steps), a smaller `lr`, or `free_bits=0.1`."
        return Symptom(evidence, remedy, numbers, severity="serious")
    evidence = (
        f"{len(unused)} of {total} latents ({listed(unused, 6)}) have posterior means with a variance of at most "
        f"{ACTIVE} over {seen.n:,} test examples."
    )
    if patient.latent is None:
        return Symptom(evidence, "A model with fewer latents may suffice.", numbers)
    many = len(unused) > UNUSED * total
    remedy = f"Use `latent={total - len(unused)}`, the number in use, or `free_bits=0.1`, which brings more into use."
    return Symptom(evidence, remedy, numbers, severity="warning" if many else None)


# --- the aggregate posterior and the prior ------------------------------------------------------------------------


def holes(train: Array, held: Array, prior: Array) -> tuple[int, float]:
    """The number of prior codes in holes, and the distance that makes a hole.

    A code is in a hole if its nearest training code is farther than that of 99% of held-out codes, by a quarter. If the
    prior were the distribution of codes, less than 1% of its samples would be there, whatever the number of latents.
    All are codes (n, L) in one scale.
    """
    _, of_held = nearest(held, train)
    _, of_prior = nearest(prior, train)
    limit = FARTHER**2 * float(np.quantile(of_held[:, 0], 1 - OUTSIDE))
    return int((of_prior[:, 0] > limit).sum()), math.sqrt(limit)


def _in_use(patient: Patient) -> tuple[Array, Array, Array]:
    """The codes of `Patient.codes`, restricted to active latents, in standard deviations of the training codes."""
    codes, active = patient.codes, patient.survey.active
    keep = active if active.any() else np.ones_like(active)
    scale = codes.train[:, keep].std(0)
    scale = np.where(scale > 0, scale, 1)
    return codes.train[:, keep] / scale, codes.held[:, keep] / scale, codes.prior[:, keep] / scale


@disease("prior-holes", "The prior has holes", stage="after", severity="warning", needs=[TRAINED, DATA, CONTINUOUS])
def prior_holes(patient: Patient) -> Symptom | NotJudged | None:
    """Samples of the prior lie where no datum has its code, so that the decoder never learned to decode them"""
    train, held, prior = _in_use(patient)
    if len(held) < 100:
        return NotJudged(f"it needs 100 test and validation examples, and there are {len(held)}")
    count, limit = holes(train, held, prior)
    share = count / len(prior)
    if not share_at_least(count, len(prior), HOLES):
        return None
    evidence = (
        f"{share:.0%} of {len(prior):,} prior samples are farther from every training code than 99% of held-out codes, "
        f"by a quarter or more ({limit:.2g} standard deviations; limit {HOLES:.0%})."
    )
    remedy = "Sample with `latents='gmm'`, or train with `prior='vamp'`, `prior='flow'` or a larger `beta`."
    return Symptom(evidence, remedy, {"share_in_holes": share, "prior_samples": len(prior), "distance": limit})


class Gap(NamedTuple):
    """How well a classifier tells held-out codes from prior samples: area under its curve, with a 95% interval."""

    area: float
    low: float
    high: float


def gap(held: Array, prior: Array, group: Array | None = None) -> Gap:
    """The area of a logistic regression of linear and quadratic features of codes (n, L), (m, L).

    It is learned on one half of the codes and tested on the other; halves are of whole groups.
    """
    from sklearn.linear_model import LogisticRegression

    units = np.arange(len(held)) if group is None else np.unique(group, return_inverse=True)[1].ravel()
    first = np.random.default_rng(0).permutation(units.max() + 1)[units] % 2 == 0
    half = np.arange(len(prior)) % 2 == 0
    learned, tested = (
        (_quadratic(np.concatenate([held[a], prior[b]])), np.arange(a.sum() + b.sum()) < a.sum())
        for a, b in ((first, half), (~first, ~half))
    )
    mean, std = learned[0].mean(0), learned[0].std(0)
    std = np.where(std > 0, std, 1)
    fitted = LogisticRegression(max_iter=300, C=0.1).fit((learned[0] - mean) / std, learned[1])
    score = fitted.decision_function((tested[0] - mean) / std)
    inside, out = score[tested[1]], score[~tested[1]]
    groups = None if group is None else units[~first]
    found = area(inside, out, groups, None if groups is None else units.max() + 1 + np.arange(len(out)))
    return Gap(found.value, found.low, found.high)


def kl_at_least(held: Array, prior: Array, factorises: bool) -> float:
    r"""A lower bound of KL(q(z) || p(z)) in nats, from codes (n, L) and prior samples (m, L).

    Each latent is divided into `BINS` bins that are equally likely under the prior. By the data-processing inequality,
    sum_b q_b log(q_b / p_b) <= KL(q(z_j) || p(z_j)) <= KL(q(z) || p(z)); if p factorises, their sum over j is a bound
    too. The bias of the estimate, (BINS - 1) (1/n + 1/m) / 2 for each latent, is subtracted.
    """
    each = []
    for j in range(held.shape[1]):
        edges = np.quantile(prior[:, j], np.linspace(0, 1, BINS + 1)[1:-1])
        q = np.bincount(np.searchsorted(edges, held[:, j]), minlength=BINS) / len(held)
        known = q > 0
        each.append(float((q[known] * np.log(q[known] * BINS)).sum()))
    bias = (BINS - 1) * (1 / len(held) + 1 / len(prior)) / 2
    reduced = np.maximum(np.array(each) - bias, 0)
    return float(reduced.sum() if factorises else reduced.max())


def _quadratic(z: Array) -> Array:
    """Linear and quadratic features of codes (n, L); products of pairs for up to 20 latents."""
    squares = [z, z**2]
    if 1 < z.shape[1] <= 20:
        i, j = np.triu_indices(z.shape[1], 1)
        squares.append(z[:, i] * z[:, j])
    return np.concatenate(squares, 1)


@disease("posterior-prior-gap", "The codes of data are not distributed as the prior", stage="after",
         severity="note", needs=[TRAINED, DATA, CONTINUOUS])  # fmt: skip
def posterior_prior_gap(patient: Patient) -> Symptom | NotJudged | None:
    """The aggregate posterior differs from the prior, so that samples of the prior are unlike codes of data"""
    codes = patient.codes
    if len(codes.held) < 200:
        return NotJudged(f"it needs 200 test and validation examples, and there are {len(codes.held)}")
    found = gap(codes.held, codes.prior, codes.group)
    if found.low <= GAP:
        return None
    model = patient.model.model
    factorises = isinstance(model, VAE) and patient.latent is not None and isinstance(model.prior(), Independent)
    kl = kl_at_least(codes.held, codes.prior, factorises)
    evidence = (
        f"A classifier tells codes of held-out data from prior samples with an area of {found.area:.2f} (95% interval "
        f"{found.low:.2f} to {found.high:.2f}; limit {GAP}, 0.5 if they were alike); the KL of the aggregate "
        f"posterior from the prior is at least {kl:.2g} nats."
    )
    remedy = "Sample with `latents='gmm'`, or train with `prior='vamp'`, `prior='flow'` or a larger `beta`."
    numbers = {"area": found.area, "low": found.low, "high": found.high, "kl_at_least": kl}
    return Symptom(evidence, remedy, numbers, severity="warning" if found.low > WIDE_GAP else None)


# --- the estimator of log p(x) ------------------------------------------------------------------------------------


@disease("few-effective-samples", "Importance weights without effective samples", stage="after", severity="warning",
         needs=[TRAINED, DATA, DENSITY])  # fmt: skip
def few_effective_samples(patient: Patient) -> Symptom | None:
    """The importance weights of most data rest on a single draw, so that log p(x) is underestimated"""
    m = patient.measurement
    found, tails = scored(m).ess, scored(m).k_hat
    typical, alone = float(np.median(found)), float((found < WEIGHTED).mean())
    limit = reliable(SAMPLES)
    heavy = float((tails > limit).mean())
    if typical >= WEIGHTED:
        return None
    evidence = (
        f"Half of {counted(m.n, 'test example')} have at most {typical:.2f} effective samples of {SAMPLES} "
        f"(limit {WEIGHTED:g}), and the weights of {heavy:.0%} have a tail without a reliable mean (k-hat above "
        f"{limit:.2f}, the limit for {SAMPLES} draws): `log_px_iw` and `score` are near the ELBO and rise with more "
        "draws."
    )
    remedy = "Measure with `samples=1000`, or train a better posterior: `posterior='iaf'` or `posterior='full'`."
    numbers = {
        "median_ess": typical,
        "samples": SAMPLES,
        "share_below_2": alone,
        "k_hat_limit": limit,
        "share_k_hat_above_limit": heavy,
    }
    return Symptom(evidence, remedy, numbers)


# --- the certificate ----------------------------------------------------------------------------------------------

DENSITIES = ("log q", "bounds")
"""The checks of a certificate that fail if a log density is wrong."""
REFERENCE = "reference"
"""The check that fails if the certificate's own bounds of log p(x) are too far apart to judge an estimate."""


def _certified(patient: Patient) -> str | None:
    if (why := why_not(patient.model.model)) is not None:
        return f"its log p(x) cannot be certified: {why}"
    if not (patient.saved.path / CERTIFICATE).is_file():
        return "the run has no certificate: `vaekit certify RUN` makes one"
    return None


CERTIFIED = Need("a certificate", _certified)


@disease("failed-certificate", "An estimate of log p(x) cannot be trusted", stage="after", severity="serious",
         needs=[TRAINED, CERTIFIED])  # fmt: skip
def failed_certificate(patient: Patient) -> Symptom | NotJudged | None:
    """The certificate of the run says that its densities are inconsistent, or that a measured estimate is far off"""
    run = patient.saved
    stored = read_json(run.path / CERTIFICATE)
    try:
        if stored["weights"] != digest_of(run):
            return NotJudged("its certificate is of other weights: `vaekit certify RUN` renews it")
        failed = {one["name"]: str(one["words"]) for one in stored["checks"] if one["passed"] is False}
        wrong = {(one["metric"], one["K"]): one for one in stored["verdicts"] if one["passed"] is False}
        off = [wrong[key] for m in run.metrics if (key := (m["name"], m["protocol"].get("K"))) in wrong]
        said = [f"{one['metric']} ({one['estimate']}): {one['words']}" for one in off]
    except (KeyError, TypeError) as error:
        raise RunError(f"{CERTIFICATE} is damaged or old ({error}): run `vaekit certify` again") from None
    reference = failed.pop(REFERENCE, None)
    numbers = {"failed": list(failed), "metrics": [one["metric"] for one in off]}
    if densities := [f"{name}: {failed[name]}" for name in DENSITIES if name in failed]:
        remedy = "Do not report log p(x) of this run: train it again, and see the page of `vaekit certify`."
        return Symptom(f"The certificate failed: {'; '.join(densities)}.", remedy, numbers)
    remedy = "Report the bounds of `vaekit certify`, or measure with more draws (`samples=5000`)."
    if said:
        return Symptom(f"Of the stored numbers: {'; '.join(dict.fromkeys(said))}.", remedy, numbers, severity="warning")
    if failed:
        words = "; ".join(f"{name}: {words}" for name, words in failed.items())
        return Symptom(f"The certificate failed: {words}.", remedy, numbers, severity="warning")
    if reference is not None:
        return NotJudged(f"the run is not certified ({reference}): give `vaekit certify` more `steps`")
    return None
