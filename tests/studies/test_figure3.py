"""Figure 3 of Kingma and Welling (2013): quadrature on a shared grid, Monte Carlo EM, and the study of both."""

import json
import math

import numpy as np
import pytest
import torch
from core_helpers import blobs
from torch import nn

import vaekit as vk
from vaekit import estimators
from vaekit.heads import Bernoulli, Conditional, Gaussian
from vaekit.models.priors import StandardNormal
from vaekit.models.vae import VAE
from vaekit.networks import MLP
from vaekit.noise import Noise
from vaekit.studies import kingma2013_marginal as figure3
from vaekit.studies import study
from vaekit.studies.grid import error, integrate
from vaekit.studies.mcem import UPDATES, MonteCarloEM
from vaekit.toys import Quadrature, curve, linear, sample

SHAPE = {"latent": 2, "hidden": (6,), "activation": "tanh", "network": "dense", "warmup": 0}


def pixels(latent=2, dims=12) -> VAE:
    """Bernoulli pixels from a small network, in float64."""
    torch.manual_seed(0)
    likelihood = Conditional(MLP((latent,), dims, (5,), "tanh"), Bernoulli((dims,)))
    return VAE(
        StandardNormal((latent,)), Conditional(MLP((dims,), 2 * latent, ()), Gaussian((latent,))), likelihood
    ).double()


# --- quadrature -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [1, 2])
def test_a_shared_grid_gives_what_a_fine_one_gives(latent):
    model = curve(latent=latent, observed=3)
    x = sample(model, 20)[1]
    exact = Quadrature.over(latent).log_px(model, x)
    found = integrate(model, x, {1: 801, 2: 402}[latent], 8.0)
    torch.testing.assert_close(found.log_px, exact, atol=1e-6, rtol=0)
    assert float(found.edge.max()) < 1e-6


def test_three_latents_against_the_closed_form_and_the_error_by_a_shift():
    weight = torch.tensor([[1.0, 0.3, 0.0], [0.2, 0.8, 0.4], [0.0, 0.5, 1.2], [0.3, 0.0, 0.6]]).double()
    model = linear(weight, 0.7)
    x = sample(model, 15)[1]
    covariance = weight @ weight.T + 0.7**2 * torch.eye(4).double()
    exact = torch.distributions.MultivariateNormal(torch.zeros(4).double(), covariance).log_prob(x)
    torch.testing.assert_close(integrate(model, x, 41, 7.0).log_px, exact, atol=1e-6, rtol=0)
    coarse = integrate(model, x, 13, 7.0).log_px
    wrong, told = (coarse - exact).abs(), error(model, x, 13, 7.0, coarse)
    assert float(wrong.max()) > 1e-3
    assert (told > 0.5 * wrong - 1e-4).all()
    assert float(told.mean()) < 3 * float(wrong.mean())


def test_pixels_are_summed_over_features_of_the_last_layer():
    model = pixels(3)
    x = sample(model, 9)[1]
    found = integrate(model, x, 21, 6.0)
    torch.testing.assert_close(found.log_px, Quadrature.over(3, 21, 6.0).log_px(model, x))
    model.likelihood.net = nn.Sequential(model.likelihood.net)  # the same numbers, by log_prob
    other = integrate(model, x, 21, 6.0)
    torch.testing.assert_close(found.log_px, other.log_px)
    torch.testing.assert_close(found.edge, other.edge)
    model = pixels(2)
    adaptive = estimators.integrate(estimators.Target.of(model, sample(model, 6)[1])).log_px
    torch.testing.assert_close(integrate(model, sample(model, 6)[1], 61, 6.0).log_px, adaptive, atol=1e-4, rtol=0)


def test_a_posterior_beyond_the_grid_is_seen():
    model = linear(torch.tensor([[1.0]]), 0.1)
    x = torch.tensor([[0.0], [8.0]]).double()
    edge = integrate(model, x, 61, 5.0).edge
    assert edge[0] < 1e-9
    assert edge[1] > 0.5


# --- Monte Carlo EM ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images():
    return vk.from_arrays(blobs(300, 6, 6), name="small")


def made(images, path, **how):
    return MonteCarloEM(images, path / "em.safetensors", "vae", SHAPE, lr=0.05, batch=50, **how)


def test_it_starts_as_a_training_of_the_same_seed(images, tmp_path):
    run = vk.fit(images, "vae", out=tmp_path / "run", steps=1, lr=1e-12, optimiser="sgd", schedule="constant",
                 weight_decay=0.0, ema=0.0, progress=False, compile="off", device="cpu", **SHAPE)  # fmt: skip
    weights = made(images, tmp_path).weights
    for name, weight in run.model.likelihood.named_parameters():
        torch.testing.assert_close(weights[name], weight.cpu(), atol=1e-6, rtol=0)


def test_it_resumes_where_it_stopped_and_raises_log_p(images, tmp_path):
    (tmp_path / "parts").mkdir()
    whole = made(images, tmp_path)
    x = whole.composition.observation(whole.rows(torch.arange(100)), Noise.of(9, 100))
    before = integrate(whole.model, x, 61, 6.0).log_px.mean()
    whole.advance(2 * UPDATES * 60)
    part = made(images, tmp_path / "parts")
    part.advance(UPDATES * 60)
    part = made(images, tmp_path / "parts")
    assert part.steps == UPDATES * 60
    part.advance(2 * UPDATES * 60 - 1)  # whole M-steps
    assert part.steps == whole.steps
    assert 0.6 < whole.accepted < 1
    assert torch.equal(part.chains, whole.chains)
    assert all(torch.equal(part.weights[n], w) for n, w in whole.weights.items())
    assert integrate(whole.model, x, 61, 6.0).log_px.mean() > before + 1


def test_the_e_step_leaves_the_posterior_unchanged_and_reaches_it(images, tmp_path):
    """Many chains of one datum, from the prior: their moments are those of quadrature."""
    em = made(images, tmp_path)
    em.size = 0.13
    x = em.composition.observation(em.rows(torch.tensor([3])), Noise.of(2, 1)).expand(1500, -1, -1, -1)
    noise = Noise.of(0, len(x))
    z = noise.normal((2,))
    for _ in range(12):
        z, chance = em._moved(x, z, noise)
    assert float(chance.mean()) > 0.8
    grid = Quadrature.over(2, 161)
    mass = torch.exp(grid.log_posterior(em.model, x[:1]))[0] * grid.cell
    mean = mass @ grid.z
    spread = torch.sqrt(mass @ (grid.z - mean) ** 2)
    assert ((z.mean(0) - mean).abs() < 4.5 * spread / math.sqrt(len(z))).all()
    assert ((z.std(0) - spread).abs() < 4.5 * spread / math.sqrt(len(z))).all()


# --- the study --------------------------------------------------------------------------------------------------


def test_the_study_measures_along_the_way_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setitem(figure3.CHOICES, "latent", 2)  # for a small grid
    data = vk.from_arrays(blobs(420, 6, 6), name="small")
    out = tmp_path / "page.html"

    def found(steps):
        study("kingma2013-marginal", data, minutes=0.25, steps=steps, out=out)
        return json.loads((tmp_path / "page.runs" / "findings.json").read_text())["numbers"]

    first = found(52)
    assert first["steps"] == 55
    names = {f"{method}, {size}" for method in figure3.METHODS for size in ("84", "336")}
    assert set(first["curves"]) == set(first["log_px"]) == names
    again = found(60)
    assert out.read_text().count("Monte Carlo EM") > 4
    for name in names:
        assert again["curves"][name]["samples"] == [5000.0, 5500.0, 6000.0]
        assert again["curves"][name]["test"][:2] == first["curves"][name]["test"]
        final = again["log_px"][name]["test"]
        assert again["curves"][name]["test"][2] == pytest.approx(np.mean(final[: len(final) // 2]))
        assert again["error"][name]["mean"] < 1e-3
    for name, elbo in again["elbo"].items():
        assert np.mean(elbo) < np.mean(again["log_px"][name]["test"])


def test_it_refuses_what_it_cannot_integrate():
    counts = vk.from_arrays(np.arange(4000).reshape(1000, 4) % 7, kind="counts")
    with pytest.raises(vk.VaekitError, match="counts"):
        study("kingma2013-marginal", counts, steps=10)
