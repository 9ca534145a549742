"""The toy models against closed forms and scipy, and vaekit's estimators against the toy models."""

import math

import numpy as np
import pytest
import torch
from core_helpers import LinearGaussian
from scipy import integrate, stats
from torch import distributions as D

from vaekit import toys
from vaekit.errors import ChoiceError
from vaekit.noise import Noise
from vaekit.objectives import ELBO, Batch
from vaekit.objectives.terms import log_mean_weight, log_weights

GRID = toys.Quadrature.over(1)


@pytest.fixture(scope="module")
def curve():
    return toys.curve()


def gaussian(loc, scale):
    return D.Independent(D.Normal(loc, scale), 1)


# --- the mixture ------------------------------------------------------------------------------------------------


def test_a_mixture_is_the_marginal_of_its_joint():
    m = toys.MixtureOfGaussians([2, 1, 1], [-2, 0, 3], [0.5, 1, 0.8])
    density = lambda v: math.exp(float(m.log_prob(torch.tensor(v, dtype=torch.float64))))  # noqa: E731
    total, _ = integrate.quad(density, -12, 12, limit=200)
    assert total == pytest.approx(1, abs=1e-9)
    x = torch.linspace(-4, 5, 30)
    density = sum(w * stats.norm(a, s).pdf(x.numpy()) for w, a, s in ((0.5, -2, 0.5), (0.25, 0, 1), (0.25, 3, 0.8)))
    np.testing.assert_allclose(torch.exp(m.log_prob(x)).numpy(), density, rtol=1e-6)
    np.testing.assert_allclose(m.posterior(x).sum(1).numpy(), 1)
    z, drawn = m.sample(20_000, seed=1)
    assert stats.chisquare(np.bincount(z.numpy(), minlength=3), [10_000, 5_000, 5_000]).pvalue > 1e-3
    assert stats.kstest(drawn[z == 2].numpy(), stats.norm(3, 0.8).cdf).pvalue > 1e-3
    # the share of each z among draws near a place is its posterior there
    near = z[(drawn - 0.0).abs() < 0.3]
    share = np.bincount(near.numpy(), minlength=3) / len(near)
    expected = m.posterior(drawn[(drawn - 0.0).abs() < 0.3]).mean(0).numpy()
    np.testing.assert_allclose(share, expected, atol=4 * np.sqrt(0.25 / len(near)))


@pytest.mark.parametrize("wrong", [([1, 1], [0], [1]), ([1, -1], [0, 1], [1, 1]), ([1, 1], [0, 1], [1, 0])])
def test_a_wrong_mixture_is_refused(wrong):
    with pytest.raises(ChoiceError, match="mixture"):
        toys.MixtureOfGaussians(*wrong)


def test_the_bound_of_a_mixture_is_exact_for_any_number_of_samples():
    m = toys.MixtureOfGaussians([0.5, 0.3, 0.2], [-2, 0.5, 3], [0.6, 1, 0.5])
    x = torch.tensor([-1.0, 1.9], dtype=torch.float64)
    q = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], dtype=torch.float64)
    posterior, log_p = m.posterior(x), m.log_prob(x)
    # one sample: log p(x) less the KL to the posterior, and log p(x) itself at the posterior
    gap = D.kl_divergence(D.Categorical(q), D.Categorical(posterior))
    torch.testing.assert_close(m.bound(x, q), log_p - gap)
    for samples in (1, 3):
        torch.testing.assert_close(m.bound(x, posterior, samples), log_p)
    torch.testing.assert_close(m.bound(x[0], q), torch.cat([m.bound(x[:1], row) for row in q]))
    # a q that leaves a component out, and one q for all
    torch.testing.assert_close(m.bound(x, torch.tensor([1.0, 0, 0])), m.log_joint(x)[:, 0])
    # three samples: all 27 triples one by one
    weights = torch.exp(m.log_joint(x) - torch.log(q))
    triples = torch.cartesian_prod(*[torch.arange(3)] * 3)
    slow = (q[:, triples].prod(-1) * torch.log(weights[:, triples].mean(-1))).sum(-1)
    torch.testing.assert_close(m.bound(x, q, 3), slow)
    # it rises to log p(x), the gap being Var[w] / (2 S p(x)^2) in the end (Domke and Sheldon 2018)
    rising = torch.stack([m.bound(x, q, s) for s in (1, 2, 4, 16, 64)])
    assert bool((rising.diff(dim=0) > 0).all())
    assert bool((rising < log_p).all())
    variance = (q * (weights / torch.exp(log_p)[:, None]).square()).sum(-1) - 1
    torch.testing.assert_close(log_p - m.bound(x, q, 300), variance / 600, rtol=0.05, atol=0)
    for wrong in (0, 10_000):
        with pytest.raises(ChoiceError, match="cannot be summed over"):
            m.bound(x, q, wrong)


# --- quadrature -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [1, 2])
def test_a_linear_model_by_quadrature_is_its_closed_form(latent):
    world = LinearGaussian(dims=4, latent=latent)
    x, grid = world.data(12), toys.Quadrature.over(latent)
    torch.testing.assert_close(grid.log_px(world.model, x), world.log_p(x), atol=1e-8, rtol=0)
    mass = torch.exp(grid.log_posterior(world.model, x)) * grid.cell
    torch.testing.assert_close(mass.sum(1), torch.ones(12, dtype=torch.float64), atol=1e-9, rtol=0)
    exact = world.model.posterior(x).base_dist
    torch.testing.assert_close(mass @ grid.z, exact.mean, atol=1e-6, rtol=0)
    # the exact posterior has no gap, and the best Gaussian is that posterior
    assert float(grid.gap(world.model, x, gaussian(exact.mean.detach(), exact.stddev.detach())).abs().max()) < 1e-6
    for full in (False, True):
        loc, scale = toys.best_gaussian(world.model, x[:3], full, points=61 if latent == 2 else None)
        torch.testing.assert_close(loc, exact.mean[:3].detach(), atol=1e-4, rtol=0)
        spread = scale.diagonal(dim1=-2, dim2=-1) if full else scale
        torch.testing.assert_close(spread, exact.stddev[:3].detach(), atol=1e-4, rtol=0)


def test_the_density_of_the_curve_integrates_to_one(curve):
    side = torch.linspace(-8, 8, 161, dtype=torch.float64)
    plane = torch.cartesian_prod(side, side)
    grid = toys.Quadrature.over(1, 801)
    assert float(torch.exp(grid.log_px(curve, plane)).sum() * 0.1**2) == pytest.approx(1, abs=1e-6)


def test_ancestral_draws_have_the_moments_of_quadrature(curve):
    z, x = toys.sample(curve, 40_000, seed=2)
    assert stats.kstest(z[:, 0].numpy(), "norm").pvalue > 1e-3
    prior = torch.exp(-0.5 * GRID.z.square()) / math.sqrt(2 * math.pi) * GRID.cell
    f = curve.decode(GRID.z).mean.detach()
    mean = (prior * f).sum(0)
    variance = (prior * (f - mean).square()).sum(0) + 0.3**2
    np.testing.assert_allclose(x.mean(0), mean, atol=4 * float(variance.max()) ** 0.5 / 200)
    np.testing.assert_allclose(x.var(0), variance, rtol=0.04)


def test_the_three_forms_of_the_bound_are_one_number(curve):
    _, x = toys.sample(curve, 20)
    loc = torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]
    scale = torch.linspace(0.05, 0.9, 20, dtype=torch.float64)[:, None]
    with torch.no_grad():
        by_rate, by_joint = toys.bound(curve, x, loc, scale), toys.bound(curve, x, loc, scale, joint=True)
        by_gap = GRID.log_px(curve, x) - GRID.gap(curve, x, gaussian(loc, scale))
    torch.testing.assert_close(by_rate, by_joint, atol=1e-9, rtol=0)
    torch.testing.assert_close(by_rate, by_gap, atol=1e-7, rtol=1e-9)
    assert bool((GRID.gap(curve, x, gaussian(loc, scale)) > 0).all())


def test_the_best_gaussian_beats_its_neighbours_and_a_full_one_the_diagonal():
    model = toys.VAE(
        toys.StandardNormal((2,)),
        toys.Conditional(toys.MLP((1,), 4, (4,)), toys.Gaussian((2,))),
        toys.Conditional(torch.nn.Linear(2, 1), toys.Gaussian((1,), "fixed", 0.3)),
    ).double()
    with torch.no_grad():  # x = z1 + z2 + noise: the posterior is a ridge along z1 = -z2
        net = model.likelihood.net
        net.weight.fill_(1.0)
        net.bias.zero_()
    x = torch.tensor([[0.7], [-1.2]], dtype=torch.float64)
    grid = toys.Quadrature.over(2)
    log_p = grid.log_px(model, x)
    diagonal = toys.best_gaussian(model, x, points=201)
    full = toys.best_gaussian(model, x, full=True, points=201)
    values = [toys.bound(model, x, *q, points=201) for q in (diagonal, full)]
    torch.testing.assert_close(values[1], log_p, atol=1e-6, rtol=0)  # the posterior is Gaussian: the full one finds it
    # by mean field the variances are the inverse diagonal of the precision, and KL = 1/2 log(prod of precisions / det)
    precision = np.eye(2) + np.ones((2, 2)) / 0.3**2
    gap = 0.5 * math.log(precision[0, 0] * precision[1, 1] / np.linalg.det(precision))
    torch.testing.assert_close(log_p - values[0], torch.full((2,), gap, dtype=torch.float64), atol=1e-6, rtol=0)
    for step in (0.05, -0.05):
        loc, scale = diagonal
        assert bool((toys.bound(model, x, loc + step, scale, points=201) < values[0]).all())
        assert bool((toys.bound(model, x, loc, scale * (1 + step), points=201) < values[0]).all())


def test_the_best_gaussian_of_a_posterior_with_several_modes_is_the_highest_of_all(curve):
    _, x = toys.sample(curve, 60, seed=1)
    log_p = GRID.log_posterior(curve, x)
    inner = log_p[:, 1:-1]
    modes = ((inner > log_p[:, :-2]) & (inner > log_p[:, 2:]) & (inner > log_p.max(1, keepdim=True).values - 4)).sum(1)
    assert int((modes > 1).sum()) > 15
    with torch.no_grad():
        reached = toys.bound(curve, x, *toys.best_gaussian(curve, x, points=61))
        # every Gaussian on a grid of means and deviations
        for loc in torch.arange(-2.5, 2.5, 0.05, dtype=torch.float64):
            for scale in (0.04, 0.08, 0.12, 0.2, 0.35):
                q = loc.expand(60, 1), torch.full((60, 1), scale, dtype=torch.float64)
                assert bool((toys.bound(curve, x, *q, points=61) <= reached + 1e-9).all())


def test_the_best_full_gaussian_is_never_worse_than_the_best_diagonal_one():
    model = toys.curve(observed=1, latent=2)
    _, x = toys.sample(model, 3, seed=5)
    log_p = toys.Quadrature.over(2).log_px(model, x)
    with torch.no_grad():
        values = [toys.bound(model, x, *toys.best_gaussian(model, x, f, points=41), points=101) for f in (False, True)]
    assert bool((values[1] > values[0]).all())
    assert bool((log_p > values[1]).all())


def test_the_best_diagonal_gaussian_of_a_bent_ridge_is_found():
    model, x = toys.curve(seed=11, observed=1, latent=2), torch.tensor([[2.46]]).double()
    with torch.no_grad():
        reached = toys.bound(model, x, *toys.best_gaussian(model, x, points=41), points=41)
        places = toys.Quadrature.over(2, 41, 2.0).z
        for sizes in ((0.1, 0.1), (0.1, 0.4), (0.2, 0.2), (0.2, 0.7), (0.4, 0.1), (0.4, 0.4), (0.7, 0.2)):
            q = places, torch.tensor(sizes).double().expand_as(places)
            assert float(toys.bound(model, x.expand(len(places), 1), *q, points=41).max()) <= float(reached) + 1e-9


def test_the_linear_model_and_its_best_gaussians_are_their_closed_forms():
    weight = torch.tensor([[1.0, 1.0]]).double()
    model, x = toys.linear(weight, 0.5), torch.tensor([[1.0], [-0.4]]).double()
    precision = torch.eye(2).double() + weight.T @ weight / 0.25
    covariance = torch.linalg.inv(precision)
    grid = toys.Quadrature.over(2)
    torch.testing.assert_close(grid.log_px(model, x), D.Normal(0, 1.5).log_prob(x)[:, 0], atol=1e-6, rtol=0)
    mean = x @ weight @ covariance / 0.25
    for full in (False, True):
        loc, scale = toys.best_gaussian(model, x, full, points=101)
        torch.testing.assert_close(loc, mean, atol=1e-5, rtol=0)
        spread = scale @ scale.mT if full else torch.diag_embed(scale.square())
        wanted = covariance if full else torch.diag(1 / precision.diagonal())
        torch.testing.assert_close(spread, wanted.expand(2, 2, 2), atol=1e-5, rtol=0)


def test_the_density_of_copies_is_the_product_of_theirs(curve):
    two = toys.copies(curve, 2)
    x = toys.sample(curve, 10, seed=6)[1]
    single = GRID.log_px(curve, x)
    torch.testing.assert_close(
        toys.Quadrature.over(2).log_px(two, x.reshape(5, 4)), single.reshape(5, 2).sum(1), atol=1e-6, rtol=0
    )
    for times in (3, 20):  # whose parts stand side by side, in order
        z = torch.linspace(-1, 1, times, dtype=torch.float64)
        mean = toys.copies(curve, times).decode(z).mean
        torch.testing.assert_close(mean, curve.decode(z[:, None]).mean.flatten())
    with pytest.raises(ChoiceError, match="one fixed standard deviation"):
        toys.copies(toys.VAE(curve.prior, curve.posterior, curve.posterior), 2)


def test_the_kl_of_two_gaussians_by_quadrature_is_its_closed_form():
    q, p = D.Normal(torch.tensor([0.5, -1.0]).double(), 0.6), D.Normal(torch.tensor([0.0, 0.3]).double(), 1.3)
    found = GRID.kl(q.log_prob(GRID.z).T, p.log_prob(GRID.z).T)
    torch.testing.assert_close(found, D.kl_divergence(q, p), atol=1e-9, rtol=0)


def test_grids_too_large_and_models_of_another_kind_are_refused():
    with pytest.raises(ChoiceError, match="cannot be summed over"):
        toys.Quadrature.over(8)
    with pytest.raises(ChoiceError, match="one latent layer"):
        GRID.log_px(torch.nn.Linear(1, 1), torch.zeros(1, 2))


# --- vaekit's estimators against it -----------------------------------------------------------------------------


def test_the_objective_and_the_weights_estimate_what_quadrature_knows(curve):
    _, x = toys.sample(curve, 60, seed=4)
    with torch.no_grad():
        q = curve.posterior(x).base_dist
        exact = toys.bound(curve, x, q.mean, q.stddev)
        k = 4000
        trace = curve.trace(x, k=k, noise=Noise.of(0, 60))
        spread = float(trace.px.log_prob(x).std(0).square().sum().sqrt()) / 60 / math.sqrt(k)
        found = ELBO(samples=k)(curve, Batch(x, Noise.of(1, 60)), torch.tensor(0)).stats["elbo"]
        assert float(found) == pytest.approx(float(exact.mean()), abs=5 * spread)
        # q is an untrained network's: its weights say how good log p(x) by them can be
        weights = log_weights(curve.trace(x, k=200_000, noise=Noise.of(2, 60)), x)
        error = torch.exp(2 * (weights - weights.max(0).values)).sum(0).sqrt() / torch.exp(
            weights - weights.max(0).values
        ).sum(0)
        difference = log_mean_weight(weights) - GRID.log_px(curve, x)
        good = error < 0.02
        assert int(good.sum()) > 30
        assert float((difference[good] / error[good]).abs().max()) < 5
