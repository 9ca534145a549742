"""Estimators of log p(x) against closed forms, quadrature and slow computations: every one, on models known exactly."""

import itertools
import math

import numpy as np
import pytest
import torch
from core_helpers import LinearGaussian, model_of
from scipy import stats

import vaekit as vk
from vaekit import toys
from vaekit.data.observation import Identity
from vaekit.errors import ChoiceError
from vaekit.estimators import (
    Integral,
    Path,
    Target,
    Tuned,
    anneal,
    fit_pareto,
    integrate,
    jackknife,
    k_hat,
    linear_gaussian,
    log_mean_exp,
    log_px_from_posterior,
    log_weights,
    mixture_log_weights,
    posterior_draws,
    reliable,
    sumo,
    sumo_terms,
    tail_size,
    transition,
    tune,
    why_not,
)
from vaekit.estimators.hmc import leapfrog
from vaekit.metrics import METRICS, evaluate
from vaekit.metrics.registry import chosen
from vaekit.noise import Key, Noise
from vaekit.objectives import ELBO
from vaekit.recipes import RECIPES, Composition, DataSpec
from vaekit.runs.likelihood import per_datum
from vaekit.runs.trained import TrainedModel

N = 6
W = torch.tensor([[1.0, 0.5], [0.3, -1.0], [0.2, 0.1], [0.7, 0.7]], dtype=torch.float64)
SIGMA = 0.4


@pytest.fixture(scope="module")
def linear():
    """A linear-Gaussian model with dependent latents given x, data of it with their z, and the settings of its chains.

    Its q is untrained, a poor one.
    """
    model = toys.linear(W, SIGMA)
    z, x = toys.sample(model, N, seed=1)
    target = Target.of(model, x)
    return target, z, tune(Path(target), Noise.of(0, N, 1))


def noise(seed, n=N):
    return Noise.of(seed, n, 2)


def exact(x):
    return torch.distributions.MultivariateNormal(
        torch.zeros(4, dtype=torch.float64), W @ W.T + SIGMA**2 * torch.eye(4, dtype=torch.float64)
    ).log_prob(x)


# --- Hamiltonian Monte Carlo ------------------------------------------------------------------------------------


def test_the_leapfrog_is_reversible_and_its_energy_error_is_of_second_order():
    model = toys.curve(latent=2, observed=3)
    path = Path(Target.of(model, toys.sample(model, 4)[1]))
    state = path.at(0.3 * torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    momentum = torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def energy(s, p):
        return -s.log_density(0.7) + 0.5 * p.square().sum(-1)

    errors = []
    for steps in (40, 80, 160):
        size = torch.full((5, 4, 1), 0.2 / steps, dtype=torch.float64)
        end, last = leapfrog(path, state, momentum, 0.7, size, steps)
        errors.append((energy(end, last) - energy(state, momentum)).abs().mean())
        again, back = leapfrog(path, end, -last, 0.7, size, steps)
        torch.testing.assert_close(again.z, state.z, rtol=0, atol=1e-9)
        torch.testing.assert_close(-back, momentum, rtol=0, atol=1e-8)
    assert float(errors[0] / errors[1]) == pytest.approx(4, rel=0.05)
    assert float(errors[1] / errors[2]) == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_transitions_leave_the_path_s_density_as_it_is(linear, beta):
    """From exact draws of f_beta, with steps so large that a third is rejected: mean and covariance stay."""
    target, _, _ = linear
    precision = torch.eye(2, dtype=torch.float64) + beta * W.T @ W / SIGMA**2
    mean = torch.linalg.solve(precision, beta * W.T @ target.x.T / SIGMA**2).T  # (N, 2)
    factor = torch.linalg.cholesky(torch.linalg.inv(precision))
    k, path, keyed = 1500, Path(target), noise(3)
    state = path.at(mean + keyed.normal((2,), k).double() @ factor.T)
    step, scale = torch.full((N,), 1.5, dtype=torch.float64), factor.square().sum(-1).sqrt().expand(N, 2)
    for _ in range(6):
        state, chance = transition(path, state, beta, step, scale, keyed)
    assert 0.4 < chance.mean() < 0.9
    e = torch.linalg.solve_triangular(factor, (state.z - mean).flatten(0, 1).T, upper=False)  # N(0, I)
    torch.testing.assert_close(e.mean(1), torch.zeros(2).double(), rtol=0, atol=4 / math.sqrt(k * N))
    torch.testing.assert_close(torch.cov(e), torch.eye(2).double(), rtol=0, atol=4 * math.sqrt(2 / (k * N)))


# --- annealing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["prior", "q"])
def test_few_steps_of_annealing_have_weights_of_the_exact_mean_both_ways(linear, start):
    target, _, tuned = linear
    path, truth = Path(target, start), exact(target.x)
    torch.testing.assert_close(linear_gaussian(target), truth, rtol=0, atol=1e-5)  # the floor of sigma is soft
    there = anneal(path, tuned, noise(4), steps=12, chains=800)
    w = torch.exp(there.log_w - truth)
    np.testing.assert_allclose(w.mean(), 1, atol=4 * float(w.std(0).max()) / math.sqrt(800))
    assert (there.lower.mean() - truth.mean()).abs() < 0.2


@pytest.mark.parametrize("start", ["prior", "q"])
def test_going_back_from_exact_draws_has_weights_of_mean_one_over_p(start):
    """Over many data, each with one exact draw of its posterior: only over such draws is the mean of 1 / w exact."""
    model = toys.linear(W, 1.0)
    z, x = toys.sample(model, 1500, seed=2)
    path = Path(Target.of(model, x), start)
    truth = linear_gaussian(path.target)
    ones = torch.ones(1500, 2, dtype=torch.float64)
    settings = Tuned(torch.full((2, 1500), -0.3, dtype=torch.float64), ones, 0.6 * ones, z[None], z, z)
    ratio = torch.exp(anneal(path, settings, noise(5, 1500), steps=12, chains=1, back_from=z).log_w[0] + truth)
    assert float(ratio.mean()) == pytest.approx(1, abs=4 * float(ratio.std()) / math.sqrt(1500))
    assert float(ratio.std()) / math.sqrt(1500) < 0.05


def test_bidirectional_monte_carlo_brackets_log_p(linear):
    target, z, tuned = linear
    truth = exact(target.x)
    for steps, width in ((25, 2.0), (150, 0.35)):
        low = anneal(Path(target), tuned, noise(6), steps=steps, chains=300)
        high = anneal(Path(target), tuned, noise(7), steps=steps, chains=300, back_from=z)
        # a log-weight of 25 steps has a deviation of about 1.5, so that 1,800 chains are good to 0.05
        assert low.lower.mean() < truth.mean() + 0.15
        assert high.upper.mean() > truth.mean() - 0.15
        assert high.upper.mean() - low.lower.mean() < width
        assert 0.6 < low.acceptance.mean() < 0.95


def test_draws_of_the_posterior_estimate_log_p_from_above(linear):
    target, _, tuned = linear
    path = Path(target)
    off = log_px_from_posterior(path, posterior_draws(path, tuned, noise(8), 80).z) - exact(target.x)
    assert off.abs().max() < 0.2
    assert off.mean() > -0.04


# --- quadrature -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"sigma": 0.05}, {"latent": 2, "observed": 3, "sigma": 0.3}])
def test_quadrature_agrees_with_a_fine_grid(settings):
    model = toys.curve(**settings)
    x = toys.sample(model, 8, seed=3)[1]
    found = integrate(Target.of(model, x))
    known = toys.Quadrature.over(settings.get("latent", 1)).log_px(model, x)
    assert found.error.max() < 1e-3
    torch.testing.assert_close(found.log_px, known, rtol=0, atol=1e-3)


def test_quadrature_in_three_dimensions_and_its_limit():
    model = toys.copies(toys.linear(W[:, :1], SIGMA), 3)
    x = toys.sample(model, 3)[1]
    found = integrate(Target.of(model, x))
    torch.testing.assert_close(found.log_px, linear_gaussian(Target.of(model, x)), rtol=0, atol=1e-5)
    four = toys.copies(toys.linear(W[:, :1], SIGMA), 4)
    with pytest.raises(ChoiceError, match="at most 3 latents, and this model has 4"):
        integrate(Target.of(four, toys.sample(four, 1)[1]))


def test_posteriors_outside_the_first_grid_are_integrated_and_failed_ones_are_refused(monkeypatch):
    """x of up to 15 deviations with a decoder that is sharp, in blocks: never a coarse sum in place of the integral."""
    model, x = toys.linear(torch.ones(1, 1), 1e-4), torch.tensor([[0.0], [3.0], [8.0], [15.0]], dtype=torch.float64)
    known = torch.distributions.Normal(0, 1).log_prob(x[:, 0])
    for settings in ({}, {"at_once": 2}):
        found = integrate(Target.of(model, x), **settings)
        torch.testing.assert_close(found.log_px, known, rtol=0, atol=1e-4)
        assert found.error.max() < 1e-3
    run = model_of(Composition(model.float(), ELBO(), Identity()), (1,))
    for failed in (math.inf, math.nan, 0.02):

        def unsettled(target, failed=failed, **settings):
            return Integral(known, torch.tensor([0.0, failed, 0.0, 0.0]))

        monkeypatch.setattr("vaekit.metrics.likelihood.estimates.integrate", unsettled)
        with pytest.raises(ChoiceError, match="cannot integrate 1 of 4 data"):
            evaluate(run, x.float().numpy(), metrics=["log_px_quadrature"])


def test_only_a_linear_decoder_has_a_closed_form():
    """A bend counts relative to the scale of p(x | z): one of 8e-4 is 0.08 deviations here."""
    model = toys.curve()
    assert linear_gaussian(Target.of(model, toys.sample(model, 2)[1])) is None
    model = toys.linear(torch.ones(3, 1), 0.01)
    x = toys.sample(model, 2)[1]
    assert linear_gaussian(Target.of(model, x)) is not None
    straight = model.likelihood.net.forward
    model.likelihood.net.forward = lambda *z: straight(*z) + 8e-4 * torch.sin(straight(*z))
    assert linear_gaussian(Target.of(model, x)) is None


# --- weights ----------------------------------------------------------------------------------------------------


def test_the_defensive_mixture_is_unbiased_and_bounded_where_q_is_far_too_narrow():
    world = LinearGaussian()
    world.set_posterior(torch.zeros(2, 5).double(), torch.full((2,), 0.02).double())
    x = world.data(N)
    target, truth = Target.of(world.model, x), world.log_p(x)
    # with q alone, all draws miss the posterior
    assert (log_mean_exp(torch.cat([*log_weights(target, noise(9), 4000)])) - truth).mean() < -1
    w = torch.cat([*mixture_log_weights(target, noise(10), 8000, alpha=0.5, chunk=3000)]).double()
    assert len(w) == 8000
    mean = torch.exp(w - truth)
    # stratified: the error is at most that of independent draws
    assert ((mean.mean(0) - 1).abs() < 4 * mean.std(0) / math.sqrt(8000)).all()
    sharpest = -5 * (math.log(world.sigma) + 0.5 * math.log(2 * math.pi))
    assert float(w.max()) < sharpest + math.log(2)
    whole = torch.cat([*mixture_log_weights(target, noise(10), 8000, alpha=0.5)])
    torch.testing.assert_close(whole.double(), w)


def test_the_jackknife_is_the_mean_over_all_subsets_and_removes_the_first_bias():
    g = torch.Generator().manual_seed(0)
    w = torch.randn(6, 3, generator=g, dtype=torch.float64) * 2
    w[0, 2] = 800.0  # one weight is all of the sum
    bounds = [
        torch.stack([log_mean_exp(w[list(kept)]) for kept in itertools.combinations(range(6), 6 - j)]).mean(0)
        for j in range(3)
    ]
    torch.testing.assert_close(jackknife(w), 6 * bounds[0] - 5 * bounds[1])
    torch.testing.assert_close(jackknife(w, order=2), 18 * bounds[0] - 25 * bounds[1] + 8 * bounds[2])
    normal = torch.randn(10, 40_000, generator=g, dtype=torch.float64)  # log-normal weights of mean e^(1/2)
    bias = [float(f(normal).mean()) - 0.5 for f in (log_mean_exp, jackknife)]
    assert bias[0] < -0.05
    assert abs(bias[1]) < 0.4 * abs(bias[0])
    with pytest.raises(ValueError, match="order 3"):
        jackknife(w, order=3)


def test_sumo_has_the_mean_log_p():
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    terms = sumo_terms(u)
    for n, chance in ((1, 1.0), (2, 0.5), (7, 1 / 7), (80, 1 / 80), (90, 0.9**10 / 80)):
        assert float((terms >= n).double().mean()) == pytest.approx(chance, abs=1e-5)
    g = torch.Generator().manual_seed(0)
    terms = sumo_terms(torch.rand(6000, generator=g, dtype=torch.float64))
    w = torch.randn(int(terms.max()) + 2, 6000, generator=g, dtype=torch.float64)
    found, bound = sumo(w, terms, least=2), log_mean_exp(w[:2])
    error = float(found.std()) / math.sqrt(6000)
    assert error < 0.05
    assert float(found.mean()) == pytest.approx(0.5, abs=4 * error)
    assert float(bound.mean()) < 0.3


@pytest.mark.parametrize("shape", [0.2, 0.7, 1.2])
def test_k_hat_finds_the_shape_of_known_tails(shape):
    rng = np.random.default_rng(1)
    w = rng.uniform(size=(5000, 60)) ** -shape  # P(w > t) = t^(-1 / k)
    found = k_hat(torch.from_numpy(np.log(w)))
    # the fit has a deviation of (1 + k) / sqrt(M) for each of 60, and the prior pulls by 10 of M = 213 towards 1/2
    pulled = (213 * shape + 5) / 223
    assert float(found.mean()) == pytest.approx(pulled, abs=4 * (1 + shape) / math.sqrt(213 * 60) + 0.03)
    kept = torch.from_numpy(np.log(np.sort(w, 0)[-tail_size(5000) - 1 :]))
    torch.testing.assert_close(k_hat(kept, samples=5000), found)
    torch.testing.assert_close(k_hat(kept - 1000, samples=5000), found)


def test_the_pareto_fit_agrees_with_maximum_likelihood():
    rng = np.random.default_rng(2)
    x = np.sort(stats.genpareto.rvs(0.6, scale=3.0, size=1500, random_state=rng))
    slow, _, scale = stats.genpareto.fit(x, floc=0)
    k, sigma = fit_pareto(torch.from_numpy(x)[:, None])
    assert float(k) == pytest.approx((1500 * slow + 5) / 1510, abs=0.01)
    assert float(sigma) == pytest.approx(scale, rel=0.02)
    assert float(k_hat(torch.zeros(100, 1))) == 0
    assert math.isnan(float(k_hat(torch.zeros(10, 1))))


# --- models and runs --------------------------------------------------------------------------------------------


def test_other_models_are_refused_with_the_reason():
    data = vk.from_arrays(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32))
    spec = DataSpec.of(data)
    for recipe, reason in (
        ("ae", "an autoencoder has no log p"),
        ("hyperspherical", "lie on a sphere"),
        ("hierarchical", "several layers"),
    ):
        run = TrainedModel(RECIPES[recipe](spec, latent=3, hidden=(4,)), spec, data)
        assert reason in str(why_not(run.model))
        with pytest.raises(ChoiceError, match=reason):
            evaluate(run, metrics=["log_px_ais"])
    normal = RECIPES["vae"](spec, latent=4, hidden=(4,)).model
    assert why_not(normal) is None


@pytest.fixture(scope="module")
def world():
    return LinearGaussian(dtype=torch.float32)


def test_the_metrics_agree_with_the_closed_form_and_state_their_protocol(world):
    run = model_of(Composition(world.model, ELBO(), Identity()), (5,))
    x = world.data(4).numpy()
    truth = float(world.log_p(torch.from_numpy(x)).mean())
    world.spoil()
    names = ["log_px_mixture", "log_px_jvi", "log_px_sumo", "log_px_ais", "log_px_quadrature", "log_px_harmonic"]
    found = {m["name"]: m for m in evaluate(run, x, metrics=names, samples=1000, n=4)}
    for name, within in zip(names, (0.05, 0.05, 1.0, 0.1, 1e-3, 0.1), strict=True):
        assert found[name]["value"] == pytest.approx(truth, abs=within), name
        assert found[name]["protocol"]["n"] == 4
    assert "10% prior" in found["log_px_mixture"]["protocol"]["estimator"]
    assert "16 chains of 500 steps" in found["log_px_ais"]["protocol"]["estimator"]
    two = evaluate(run, x, metrics=["log_px_mixture", "log_px_jvi"], samples=2, n=4)
    assert all(math.isfinite(m["value"]) for m in two)
    with pytest.raises(ChoiceError, match="log_px_jvi needs `samples` of 2 or more, got 1"):
        evaluate(run, x, metrics=["log_px_jvi"], samples=1)
    assert METRICS["log_px_sumo"].label.endswith("(not a bound)")
    assert "log_px_ais" not in {m.name for m in chosen(["likelihood"])}
    assert {"log_px_mixture", "k_hat"} <= {m.name for m in chosen(["likelihood"])}


def test_slow_estimates_say_where_they_failed(monkeypatch, capsys):
    """Chains of two steps end far from the posterior: the weights rest on one of them."""
    monkeypatch.setattr("vaekit.metrics.likelihood.estimates.STEPS", 2)
    model = toys.linear(torch.eye(4, dtype=torch.float64), 0.01)
    x = toys.sample(model, 3)[1].float().numpy()
    run = model_of(Composition(model.float(), ELBO(), Identity()), (4,))
    found = evaluate(run, x, metrics=["log_px_ais"])[0]
    assert "of 3 data with an acceptance below 0.3 or fewer than 2 effective weights" in found["protocol"]["estimator"]
    assert "note: log_px_ais is not reliable: " in capsys.readouterr().err


def test_the_tail_of_streamed_weights_is_that_of_all(world):
    run = model_of(Composition(world.model, ELBO(), Identity()), (5,))
    x = world.data(12)
    whole = per_datum(run, run.observed(x.numpy()), 300)
    w = torch.cat([*log_weights(Target.of(world.model, x.float()), Noise.of(0, 12, Key.EVALUATE), 300)])
    np.testing.assert_allclose(whole.k_hat, k_hat(w), atol=0.02)  # float32 rounding of nearly equal weights
    np.testing.assert_allclose(whole.log_px, log_mean_exp(w), atol=1e-5)
    np.testing.assert_allclose(per_datum(run, run.observed(x.numpy()), 300, batch=5).k_hat, whole.k_hat, atol=0.02)
    assert np.isnan(per_datum(run, run.observed(x.numpy()), 10).k_hat).all()
    for samples, words in ((100, "too few draws to judge, 200 or more"), (300, "reliable up to 0.60")):
        assert words in evaluate(run, x.numpy(), metrics=["k_hat"], samples=samples)[0]["protocol"]["estimator"]
    assert (reliable(100), reliable(5000)) == (0.5, 0.7)
    with pytest.raises(ChoiceError, match="k_hat needs `samples` of 21 or more, got 10"):
        evaluate(run, x.numpy(), metrics=["k_hat"], samples=10)
