"""The metrics of the likelihood: ELBO, rate, distortion, log p(x) and metrics derived from them."""

from __future__ import annotations

import math

import numpy as np
import torch

from vaekit.data.observation import Binary
from vaekit.errors import ChoiceError
from vaekit.estimators import limit_in_words
from vaekit.runs.likelihood import PerDatum, closed_form_rates, per_datum
from vaekit.runs.observed import Observed
from vaekit.runs.trained import TrainedModel
from vaekit.utils.isolation import in_full_precision
from vaekit.utils.uncertainty import standard_error

from ..measurement import Array, Measurement, codes, shared
from ..needs import BINARY, COMPLETE, DENSITY, DISCRETE, ENOUGH_SAMPLES, FACTORISED, has_closed_form_rate
from ..registry import Result, metric

CLOSED = "closed-form KL"


def entropy_floor(run: TrainedModel, observed: Observed, n: int) -> tuple[float, float | None]:
    """Mean and standard error of the `floors` of the first n data, in nats per datum."""
    values = floors(run, observed, n)
    return float(values.mean()), standard_error(values, observed.groups(n))


def floors(run: TrainedModel, observed: Observed, n: int) -> np.ndarray:
    """The negative log-likelihood of the first n binary draws under their true probabilities, in nats, (n,).

    Each binary pixel i was drawn with a known probability r_i. In expectation over draws, no model's -log p(x) is below
    -sum_i log Bernoulli(x_i; r_i). On one draw of the data its mean may be lower by chance, by a few standard errors of
    the difference.

    Raises:
        ChoiceError: the data are not binarised.
    """
    observation = run.composition.observation
    if not isinstance(observation, Binary):
        raise ChoiceError("the entropy floor needs binarised data")
    floors = []
    for a in range(0, n, 1000):
        rows = np.arange(a, min(a + 1000, n))
        chance = observation.chance(observed.raw(rows))
        x = observed(rows).numpy() > 0.5
        floors.append(-np.nansum(np.log(np.where(x, chance, 1 - chance)).reshape(len(rows), -1), 1))  # nan is missing
    return np.concatenate(floors)


@shared
def scored(m: Measurement) -> PerDatum:
    """ELBO, rate, distortion and log p(x) of each datum, from K importance samples."""
    scores = per_datum(m.run, m.observed, m.samples, n=m.n, seed=m.seed, compile=m.compile, progress=m.progress)
    m.keep(codes, scores.means)
    if has_closed_form_rate(m):
        m.keep(closed_form, (scores.rate, scores.kl))
    return scores


@shared
@torch.no_grad()
@in_full_precision()
def closed_form(m: Measurement) -> tuple[Array, Array | None]:
    """The closed-form KL of each datum (n,), and of each latent (n, D) if the densities factorise."""
    rates, kls = [], []
    for _, x, c in m.observed.batches(None, m.n, m.run.device):
        rate, kl, _ = closed_form_rates(m.run.model, x, c)
        assert rate is not None
        rates.append(rate.numpy())
        if kl is not None:
            kls.append(kl.numpy())
    return np.concatenate(rates), np.concatenate(kls) if kls else None


@shared
@torch.no_grad()
@in_full_precision()
def distortion_at_code(m: Measurement) -> Array:
    """-log p(x|z) at the code of each datum, in nats, with the density in the data's own units, (n,)."""
    values, jacobians = [], []
    z, observation, spec = codes(m), m.run.composition.observation, m.run.spec
    for rows, x, _ in m.observed.batches(None, m.n, m.run.device):
        px = m.run.model.decode(torch.from_numpy(z[rows]).to(m.run.device))
        values.append(-px.log_prob(x))
        if spec.missing or observation.uneven:  # the Jacobian differs between data
            jacobians.append(observation.log_jacobian_of(x))
    jacobian = torch.cat(jacobians).cpu().numpy() if jacobians else observation.log_jacobian(spec.shape)
    return torch.cat(values).double().cpu().numpy() - jacobian


@shared
def binary_floors(m: Measurement) -> Array:
    """The entropy floor of each datum, in nats, (n,)."""
    return floors(m.run, m.observed, m.n)


def _sampled(m: Measurement) -> str:
    return f"mean over K={m.samples} draws of q{given(m)}"


def _weighted(m: Measurement) -> str:
    return f"IWAE-{m.samples}{given(m)}"


def given(m: Measurement) -> str:
    """What the densities are conditional on besides a condition, in words for the protocol."""
    return ", given the total of each row" if m.given_total else ""


@metric("elbo", "nats", needs=[DENSITY], better="higher", label="ELBO", default=True)
def elbo(m: Measurement) -> Result:
    """Lower bound on log p(x)."""
    how = f"{_sampled(m)}, {CLOSED}" if has_closed_form_rate(m) else _sampled(m)
    return Result(how, m.samples, scored(m).elbo, comparable=_sampled(m))


@metric("rate", "nats", needs=[DENSITY], default=True)
def rate(m: Measurement) -> Result:
    """KL of the posterior from the prior: the information in the latents."""
    if has_closed_form_rate(m):
        return Result(CLOSED, m.samples, closed_form(m)[0], comparable="KL")
    return Result(_sampled(m), m.samples, scored(m).rate, comparable="KL")


@metric("distortion", "nats", default=True)
def distortion(m: Measurement) -> Result:
    """−log p(x|z): the reconstruction error, as a negative log-likelihood."""
    if m.has_density:
        return Result(_sampled(m), m.samples, scored(m).distortion)
    return Result("at the code", None, distortion_at_code(m))


@metric("log_px_iw", "nats", needs=[DENSITY], better="higher", label="log p(x)", default=True)
def log_px_iw(m: Measurement) -> Result:
    """Tighter lower bound on log p(x), by importance weighting."""
    return Result(_weighted(m), m.samples, scored(m).log_px)


@metric("ess", "samples", needs=[DENSITY], label="Effective samples", default=True, of="estimator")
def ess(m: Measurement) -> Result:
    """Effective sample size of the K importance weights."""
    return Result(_weighted(m), m.samples, scored(m).ess)


@metric(
    "k_hat", "shape", needs=[DENSITY, ENOUGH_SAMPLES], better="lower", label="Pareto k-hat", default=True,
    of="estimator",
)  # fmt: skip
def pareto(m: Measurement) -> Result:
    """Tail of K importance weights: log p(x) is unreliable above min(1 - 1/log10(K), 0.7); not judged below K=200."""
    how = f"{_weighted(m)}, {limit_in_words(m.samples)}"
    return Result(how, m.samples, scored(m).k_hat, comparable=_weighted(m))


@metric(
    "bits_per_dim", "bits per dimension", needs=[DENSITY, DISCRETE, COMPLETE], better="lower",
    label="Bits per dimension", default=True,
)  # fmt: skip
def bits_per_dim(m: Measurement) -> Result:
    """Length of a lossless code, −log p(x) in bits per dimension."""
    return Result(_weighted(m), m.samples, -scored(m).log_px / (m.run.spec.dims * math.log(2)))


@metric("kl_per_latent", "nats", needs=[DENSITY, FACTORISED], label="KL of each latent", default=True, per_datum=False)
def kl_per_latent(m: Measurement) -> Result:
    """KL of the posterior from the prior, for each latent."""
    kl = closed_form(m)[1]
    assert kl is not None
    means = [float(np.mean(column, dtype=np.float64)) for column in kl.T]
    return Result(CLOSED, value=means, se=[standard_error(column, m.groups) for column in kl.T])


@metric("entropy_floor", "nats", needs=[BINARY], default=True, of="data")
def floor(m: Measurement) -> Result:
    """Entropy of the binarisation: no model's expected −log p(x) is lower."""
    return Result("entropy of the frozen draw", None, binary_floors(m))


@metric("floor_gap", "nats", needs=[DENSITY, BINARY], better="lower", label="Above the floor", default=True)
def floor_gap(m: Measurement) -> Result:
    """−log p(x) minus the entropy floor; 0 or more in expectation."""
    return Result(_weighted(m), m.samples, -scored(m).log_px - binary_floors(m))
