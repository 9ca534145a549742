"""Rates, distortions and importance weights against Monte Carlo, sums and each other."""

import math

import numpy as np
import pytest
import torch
from core_helpers import LinearGaussian
from torch import distributions as D

from vaekit.densities import draw
from vaekit.densities.special import log_sum_exp
from vaekit.models.vae import Latent, Trace
from vaekit.noise import Noise
from vaekit.objectives import ELBO, Batch
from vaekit.objectives.terms import (
    Weights,
    distortion,
    has_closed_form,
    latent_rate,
    log_mean_weight,
    log_weights,
    rate,
    rate_per_dim,
)
from vaekit.training.cost import subnormals_as_zero


def normal(loc, scale):
    return D.Independent(D.Normal(loc, scale), 1)


def test_the_closed_form_rate_equals_monte_carlo():
    g = torch.Generator().manual_seed(0)
    q = normal(torch.randn(4, 3, generator=g).double(), torch.rand(4, 3, generator=g).double() + 0.2)
    p = normal(torch.zeros(3).double(), torch.ones(3).double())
    k = 20_000
    latent = Latent(draw(q, Noise.of(0, 4), k), q, p)
    closed, sampled = latent_rate(latent), latent_rate(latent, analytic=False)
    assert closed.shape == (4,)
    assert sampled.shape == (k, 4)
    error = sampled.std(0) / math.sqrt(k)
    assert bool(((sampled.mean(0) - closed).abs() < 4 * error).all())
    assert bool((error < 0.02).all())  # else the line above says little
    by_hand = 0.5 * (q.mean**2 + q.variance - torch.log(q.variance) - 1)
    torch.testing.assert_close(rate_per_dim(latent), by_hand)
    torch.testing.assert_close(rate_per_dim(latent).sum(1), closed)


def test_a_rate_without_a_closed_form_is_sampled():
    q = normal(torch.zeros(4, 2), torch.ones(4, 2))
    p = D.MixtureSameFamily(D.Categorical(torch.ones(3)), normal(torch.randn(3, 2), torch.ones(3, 2)))
    latent = Latent(draw(q, Noise.of(0, 4)), q, p)
    assert not has_closed_form(q, p)
    assert rate_per_dim(latent) is None
    torch.testing.assert_close(latent_rate(latent), q.log_prob(latent.z) - p.log_prob(latent.z))


def test_the_rate_of_a_pass_is_the_sum_over_its_layers_and_the_mean_over_its_samples():
    p = normal(torch.zeros(2), torch.ones(2))
    qs = [normal(torch.full((3, 2), float(i)), torch.ones(3, 2)) for i in (1, 2)]
    latents = tuple(Latent(draw(q, Noise.of(i, 3), 5), q, p) for i, q in enumerate(qs))
    px = normal(torch.zeros(5, 3, 4), torch.ones(5, 3, 4))
    trace, x = Trace(latents, px), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rate(trace), torch.full((3,), 1.0 + 4.0))  # mean^2 / 2 a dimension
    sampled = sum((h.log_q - h.log_p).mean(0) for h in latents)
    torch.testing.assert_close(rate(trace, analytic=False), sampled)
    torch.testing.assert_close(distortion(trace, x), -px.log_prob(x).mean(0))
    weights = px.log_prob(x) + sum(h.log_p - h.log_q for h in latents)
    torch.testing.assert_close(log_weights(trace, x), weights)
    torch.testing.assert_close(log_weights(trace, x, px.log_prob(x)), weights)


def test_one_importance_sample_is_the_elbo_on_the_same_noise():
    world = LinearGaussian()
    world.spoil()
    x = world.data(50)
    for k in (None, 1):
        trace = world.model.trace(x, k=k, noise=Noise.of(3, len(x)))
        weights = log_weights(trace, x)
        one = log_mean_weight(weights if k else weights[None])
        torch.testing.assert_close(one, -(distortion(trace, x) + rate(trace, analytic=False)))
    trace = world.model.trace(x, noise=Noise.of(3, len(x)))
    terms = ELBO(analytic=False)(world.model, Batch(x, Noise.of(3, len(x))), torch.tensor(0))
    torch.testing.assert_close(terms.stats["elbo"], log_weights(trace, x).mean())
    torch.testing.assert_close(terms.losses["model"], -terms.stats["elbo"])


def test_the_recorded_elbo_has_weight_one_whatever_beta_is():
    world = LinearGaussian()
    x = world.data(20)
    found = [ELBO(beta, 3)(world.model, Batch(x, Noise.of(0, 20)), torch.tensor(0)) for beta in (1.0, 4.0)]
    torch.testing.assert_close(found[0].stats, found[1].stats)
    stats = found[1].stats
    torch.testing.assert_close(found[1].losses["model"], stats["distortion"] + 4 * stats["rate"])
    torch.testing.assert_close(stats["elbo"], -(stats["distortion"] + stats["rate"]))


@pytest.mark.parametrize("cuts", [(12,), (1,) * 12, (5, 4, 3)])
def test_streamed_weights_equal_those_held_together(cuts):
    g = torch.Generator().manual_seed(0)
    w = torch.randn(12, 6, generator=g, dtype=torch.float64) * torch.tensor([0, 1, 5, 50, 300, 1e-6])
    w += torch.tensor([0.0, 1e3, -1e3, 0, -5e4, 7]).double()
    running = Weights.none(w[0])
    for part in w.split(list(cuts)):
        running = running.add(part)
    torch.testing.assert_close(running.log_mean(12), log_mean_weight(w), rtol=1e-13, atol=1e-11)
    normalised = torch.softmax(w, 0)
    torch.testing.assert_close(running.ess, 1 / normalised.square().sum(0), rtol=1e-9, atol=0)
    assert bool(((running.ess >= 1 - 1e-12) & (running.ess <= 12 + 1e-9)).all())
    assert float(running.ess[0]) == pytest.approx(12)  # equal weights
    assert float(running.ess[4]) == pytest.approx(1)  # one that outweighs all


def test_an_analytic_rate_in_the_weights_would_overshoot_and_ours_do_not():
    """log 1/K sum_k p(x|z_k) e^-KL is not a bound: here it exceeds the exact log p(x), and ours equals it."""
    world = LinearGaussian(sigma=1.0)
    world.spoil(shift=0.1, widen=1.2)
    x, k = world.data(200), 2000
    with torch.no_grad():
        trace = world.model.trace(x, k=k, noise=Noise.of(0, len(x)))
        ours = log_mean_weight(log_weights(trace, x))
        wrong = log_mean_weight(trace.px.log_prob(x) - rate(trace))
    gap_ours, gap_wrong = (ours - world.log_p(x)).numpy(), (wrong - world.log_p(x)).numpy()
    # ours: bias -var(w) / 2K, below 1e-3 here; its noise over 200 data is some 0.01 / sqrt(200)
    assert abs(gap_ours.mean()) < 5 * gap_ours.std() / math.sqrt(len(x)) + 1e-3
    assert gap_wrong.mean() > 0.1
    assert np.mean(gap_wrong > 0) > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sum_of_exponentials_is_as_ever_but_its_gradient_is_never_subnormal(dtype):
    """Weights of samples lie hundreds of nats apart early in training; subnormal gradients made a step seven times as
    long."""
    x = torch.cat([torch.linspace(-110, 0, 400), torch.tensor([-745.0, -math.inf])]).to(dtype).requires_grad_()
    value = log_sum_exp(x, 0)
    torch.testing.assert_close(value, torch.logsumexp(x, 0), atol=0, rtol=4 * torch.finfo(dtype).eps)
    (gradient,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(gradient, torch.softmax(x, 0), atol=1e-4 * torch.finfo(dtype).eps, rtol=1e-5)
    assert float(gradient[gradient != 0].abs().min()) > torch.finfo(torch.float32).tiny * 1e6
    (plain,) = torch.autograd.grad(torch.logsumexp(x, 0), x)
    if dtype == torch.float32:
        assert float(plain[plain != 0].abs().min()) < torch.finfo(dtype).tiny  # what this is against


def test_a_sum_of_exponentials_hides_no_nan_and_takes_minus_infinity():
    assert math.isnan(float(log_sum_exp(torch.tensor([0.0, math.nan]), 0)))
    assert float(log_sum_exp(torch.tensor([-math.inf, -math.inf]), 0)) == -math.inf
    assert float(log_sum_exp(torch.tensor([math.inf, 0.0]), 0)) == math.inf


def test_subnormal_numbers_are_zero_while_training_only():
    def zero():
        return float(torch.tensor(1e-310, dtype=torch.float64) * 1) == 0

    assert not zero()
    with subnormals_as_zero():
        assert zero()
        with subnormals_as_zero():
            pass
        assert zero()
    assert not zero()
