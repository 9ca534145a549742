"""A linear-Gaussian VAE whose log p(x) is known exactly, and densities in the data's own units."""

import math

import numpy as np
import pytest
import torch
from core_helpers import LinearGaussian, model_of, observed_of
from scipy import stats
from torch import nn

import vaekit as vk
from vaekit import heads, networks
from vaekit.data.observation import Centred, Dequantised, Grey, Identity, Standardised
from vaekit.heads import Conditional
from vaekit.metrics.likelihood import per_datum
from vaekit.noise import Noise
from vaekit.objectives import ELBO, Batch
from vaekit.objectives.terms import log_mean_weight, log_weights
from vaekit.recipes import Composition, gaussian_vae


def test_with_the_exact_posterior_every_weight_is_log_p():
    world = LinearGaussian()
    x = world.data(40)
    with torch.no_grad():
        weights = log_weights(world.model.trace(x, k=7, noise=Noise.of(0, 40)), x)
        exact = world.log_p(x)
        torch.testing.assert_close(weights, exact.expand(7, -1), atol=1e-6, rtol=0)
        elbo = ELBO(analytic=False)(world.model, Batch(x, Noise.of(1, 40)), torch.tensor(0)).stats["elbo"]
        assert float(elbo) == pytest.approx(float(exact.mean()), abs=1e-6)
    covariance = (world.W @ world.W.T + world.sigma**2 * torch.eye(world.dims).double()).numpy()
    other = stats.multivariate_normal(world.b.numpy(), covariance).logpdf(x.numpy())
    np.testing.assert_allclose(exact.numpy(), other, atol=1e-9)


def test_the_bound_is_below_log_p_and_rises_to_it_with_the_samples():
    world = LinearGaussian()
    world.spoil(shift=0.15, widen=1.4)
    x, exact = world.data(300), world.log_p(world.data(300))
    gaps = {}
    with torch.no_grad():
        weights = log_weights(world.model.trace(x, k=4096, noise=Noise.of(0, 300)), x)
        for k in (1, 8, 64, 512, 4096):
            bounds = torch.stack([log_mean_weight(w) for w in weights.split(k)])
            gaps[k] = float((exact - bounds.mean(0)).mean())
        elbo = float(ELBO(samples=200)(world.model, Batch(x, Noise.of(1, 300)), torch.tensor(0)).stats["elbo"])
    assert gaps[1] > gaps[8] > gaps[64] > gaps[512] > -1e-3  # the mean of 300 x 8 bounds, each good to 0.05
    assert gaps[1] > 0.1
    assert abs(gaps[4096]) < 0.005
    # the gap of the ELBO is KL(q || exact posterior), in closed form: q's deviation is 1.4 of the exact one's
    A_exact = (world.sigma**2 + (world.W**2).sum(0)) ** -1
    variance = 1 / (1 + (world.W**2).sum(0) / world.sigma**2)
    shift = 0.15 * (A_exact[:, None] * world.W.T @ (x - world.b).T).T
    kl = (0.5 * (1.4**2 - 1 - 2 * math.log(1.4)) + 0.5 * shift**2 / variance).sum(1).mean()
    spread = float(weights.std(0).mean()) / math.sqrt(300 * 200)
    assert float(exact.mean()) - elbo == pytest.approx(float(kl), abs=5 * spread)
    assert gaps[1] == pytest.approx(float(kl), abs=5 * float(weights.std(0).mean()) / math.sqrt(300 * 4096))


def test_the_evaluator_gives_the_exact_log_p_and_the_elbo_below_it():
    world = LinearGaussian(dtype=torch.float32)
    run = model_of(Composition(world.model, ELBO(), Identity()), (5,))
    x = world.data(64)
    exact = world.log_p(x).numpy()
    scored = per_datum(run, run.observed(x.numpy()), 50)
    np.testing.assert_allclose(scored.log_px, exact, atol=2e-4)  # float32 sums of a few tens of nats
    np.testing.assert_allclose(scored.ess, 50, rtol=1e-3)
    # the closed-form rate takes its own noise out of the sampled log p(z) - log q(z|x): a small mean difference left
    assert abs((scored.elbo - exact).mean()) < 5 * (scored.elbo - exact).std() / math.sqrt(64) + 1e-4
    np.testing.assert_allclose(scored.elbo, -(scored.rate + scored.distortion), atol=1e-9)
    assert scored.kl is not None
    np.testing.assert_allclose(scored.kl.sum(1), scored.rate, atol=1e-5)
    world.spoil()
    worse = per_datum(run, run.observed(x.numpy()), 2000)
    assert worse.elbo.mean() < exact.mean() - 0.05
    assert worse.log_px.mean() == pytest.approx(exact.mean(), abs=0.01)
    assert (worse.ess < 1900).all()
    assert (worse.ess > 1).all()


def test_scores_do_not_depend_on_the_batch_they_were_computed_in():
    world = LinearGaussian(dtype=torch.float32)
    world.spoil()
    run = model_of(Composition(world.model, ELBO(), Identity()), (5,))
    x = world.data(30).numpy()
    whole = per_datum(run, run.observed(x), 40)
    for batch in (1, 7, 29):
        part = per_datum(run, run.observed(x), 40, batch=batch)
        np.testing.assert_allclose(part.log_px, whole.log_px, atol=1e-4)
        np.testing.assert_allclose(part.elbo, whole.elbo, atol=1e-4)
    assert not np.allclose(per_datum(run, run.observed(x), 40, seed=1).elbo, whole.elbo, atol=1e-3)


# --- units ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["raw", "standardised", "centred", "grey", "grey shifted"])
def test_a_density_integrates_to_one_over_the_raw_data(name):
    """p(x) of one-dimensional data in their own units: raw temperatures about 300, or pixels of 0..255."""
    world = LinearGaussian(dims=1, latent=1, sigma=0.5, dtype=torch.float32)
    observation = {
        "raw": Identity,
        "standardised": lambda: Standardised((1,)),
        "centred": lambda: Centred((1,)),
        "grey": lambda: Grey(0, 255),
        "grey shifted": lambda: Grey(10, 200, 0.5),
    }[name]()
    g = torch.Generator().manual_seed(0)
    rows = 300 + 17 * torch.randn(500, 1, generator=g)
    observation.fit(lambda: [rows])
    run = model_of(Composition(world.model, ELBO(), observation), (1,))
    spread = float(world.W[0, 0] ** 2 + world.sigma**2) ** 0.5
    ends = [float(observation.to_raw(world.b.float() + s * 9 * spread)) for s in (-1, 1)]
    grid = np.linspace(*ends, 3001, dtype=np.float32)[:, None]
    scored = per_datum(run, observed_of(run, grid), 3)
    # sums of 3,000 points over 18 standard deviations are exact; what is left is the float32 of x and of the scores
    total = np.trapezoid(np.exp(scored.log_px), grid[:, 0].astype(np.float64))
    assert total == pytest.approx(1, abs=2e-3)
    back = observation.to_raw(observation(torch.from_numpy(grid)))
    np.testing.assert_allclose(back.numpy(), grid, rtol=1e-5, atol=1e-4)


def test_a_dequantised_density_sums_to_one_over_the_levels():
    """sum_r E_u p(r + u) = 1: the mean of exp(log p) over many draws of u a level, added over the 17 levels."""
    net, head = networks.MLP((1,), 1, ()), heads.ContinuousBernoulliHead((1,))
    with torch.no_grad():
        net.out.weight.zero_()
        net.out.bias.fill_(2.5)
    model = gaussian_vae(networks.MLP((1,), 2, ()), net, 1, head)
    with torch.no_grad():  # the posterior is the prior: every weight is p(x)
        model.posterior.net.out.weight.zero_()
        model.posterior.net.out.bias.copy_(torch.tensor([0.0, -6 + math.log(math.expm1(6.0))]))
    run = model_of(Composition(model, ELBO(), Dequantised(0, 17)), (1,), scale=(0, 16), integer=True)
    raw = np.tile(np.arange(17, dtype=np.uint8), 300)[:, None]
    p = np.exp(per_datum(run, run.observed(raw), 1).log_px).reshape(300, 17)
    # within a level p varies by exp(2.5 / 17), 4 % about its mean: an error of 0.04 / sqrt(300 * 17)
    assert p.mean(0).sum() == pytest.approx(1, abs=5 * 0.05 / math.sqrt(5100))


def test_scores_of_pixels_in_0_255_carry_the_jacobian_of_the_unit_interval():
    world = LinearGaussian(dims=3, latent=1, dtype=torch.float32)
    grey = model_of(Composition(world.model, ELBO(), Grey(0, 255)), (3,))
    unit = model_of(Composition(world.model, ELBO(), Identity()), (3,))
    x = world.data(10).float()
    a = per_datum(grey, observed_of(grey, (255 * x).numpy()), 5)
    b = per_datum(unit, unit.observed(x.numpy()), 5)
    np.testing.assert_allclose(a.log_px, b.log_px - 3 * math.log(255), atol=1e-3)
    np.testing.assert_allclose(a.elbo, b.elbo - 3 * math.log(255), atol=1e-3)
    np.testing.assert_allclose(a.elbo, -(a.rate + a.distortion), atol=1e-9)


# --- the linear recipe ------------------------------------------------------------------------------------------


def test_the_linear_recipe_trains_to_probabilistic_pca(tmp_path):
    from sklearn.decomposition import PCA

    data = vk.load("digits")
    latent = 5
    run = vk.fit(data, "linear", latent=latent, out=tmp_path / "run", compile="off", progress=False, device="cpu")
    raw = data.events(data.train[:]).reshape(len(data.train), -1).astype(np.float64)
    assert raw.max() == 16
    pca = PCA(latent).fit(raw).score(raw)
    model, observation = run.model, run.composition.observation
    with torch.no_grad():
        W = model.likelihood.net.out.weight.double()
        b = model.likelihood.net.out.bias.double()
        sigma = float(model.likelihood(torch.zeros(1, latent)).stddev.flatten()[0])
        x = observation(torch.from_numpy(raw).reshape(-1, *data.shape)).double().flatten(1)
        covariance = W @ W.T + sigma**2 * torch.eye(64, dtype=torch.float64)
        exact = torch.distributions.MultivariateNormal(b, covariance).log_prob(x) + observation.log_jacobian(data.shape)
    assert float(exact.mean()) == pytest.approx(pca, abs=0.05)
    assert float(exact.mean()) < pca + 1e-3 + 64 / len(raw)  # no model of the class is above its maximum likelihood
    scored = per_datum(run, run.observed("train"), 100)
    np.testing.assert_allclose(scored.log_px, exact.numpy(), atol=0.3)
    assert scored.log_px.mean() == pytest.approx(float(exact.mean()), abs=0.02)
    assert scored.elbo.mean() < exact.mean()
    assert scored.elbo.mean() > exact.mean() - 0.1  # the posterior of this class is exact at the optimum


def test_a_decoder_bias_is_found_only_where_the_last_layer_has_it():
    """A convolutional decoder's first dense layer may by chance have as many biases as there are pixels."""
    head = heads.Bernoulli((1, 64, 64))
    decoder = networks.ConvDecoder(3, (1, 64, 64), 1, (4, 8, 16, 256))
    assert decoder.inp.bias.shape == (head.features,)
    assert not networks.set_output_bias(decoder, torch.ones(head.features))
    assert not bool((decoder.inp.bias == 1).any())
    dense = networks.MLP((3,), 8, (5,), "gated")
    assert networks.set_output_bias(dense, torch.arange(8.0))
    assert torch.equal(dense.out.bias, torch.arange(8.0))
    assert not networks.set_output_bias(nn.ReLU(), torch.zeros(1))
    assert isinstance(Conditional(dense, heads.Bernoulli((8,)))(torch.zeros(1, 3)), torch.distributions.Distribution)
