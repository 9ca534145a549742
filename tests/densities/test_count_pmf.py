"""Log-probabilities of counts and their gradients: tables and deviances against SciPy and autograd in float64."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from vaekit.densities import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from vaekit.densities.count_pmf import SMALL, negative_binomial_log_pmf, poisson_log_pmf, saddle_point, slopes
from vaekit.densities.special import clamped, digamma_rest

RS = [1e-6, 1e-3, 0.05, 1.0, 7.9, 60.0, 1e4, 1e8]
COUNTS = [0, 1, 2, 7, SMALL - 1, SMALL, SMALL + 1, 300, 5000]


def grid(dtype):
    """Counts (45, 8), log means at 0.2 to 5 times the counts, and log r (8,), which the rows share."""
    times = np.repeat([0.2, 0.9, 1.0, 1.1, 5.0], len(COUNTS))
    x = np.tile(COUNTS, 5)[:, None] * np.ones(len(RS))
    log_mean = np.log(np.maximum(x, 0.5) * times[:, None])
    return (torch.tensor(value, dtype=dtype) for value in (x, log_mean, np.log(RS)))


def exact(x, log_mean, log_r):
    """SciPy's log P, which up to 1e6 for r is good to 1e-8; above, its log-gammas cancel."""
    m, r = np.exp(log_mean.double().numpy()), np.exp(log_r.double().numpy())
    return stats.nbinom(r, r / (r + m)).logpmf(x.double().numpy())


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 3e-6), (torch.float64, 1e-13)])
def test_digamma_is_scipys(dtype, error):
    x = torch.logspace(-6, 8, 5001, dtype=dtype)
    expected = special.digamma(x.double().numpy())
    ours = (digamma_rest(x.to(dtype)) + torch.log(x)).double().numpy()
    np.testing.assert_allclose(ours, expected, rtol=error, atol=error)
    far = torch.tensor([1e3, 1e8], dtype=dtype)
    np.testing.assert_allclose(digamma_rest(far).double(), [-5.0008333e-4, -5e-9], rtol=1e-6)  # nothing cancels


@pytest.mark.parametrize(("dtype", "error", "relative"), [(torch.float32, 5e-5, 3e-6), (torch.float64, 1e-9, 1e-11)])
def test_negative_binomials_that_share_r_are_scipys(dtype, error, relative):
    x, log_mean, log_r = grid(dtype)
    ours = negative_binomial_log_pmf(x, log_mean, log_r).double().numpy()
    known = np.array(RS) < 1e6
    np.testing.assert_allclose(ours[:, known], exact(x, log_mean, log_r)[:, known], rtol=relative, atol=error)
    poisson = stats.poisson(np.exp(log_mean.double().numpy()[:, -1])).logpmf(x[:, -1].double().numpy())
    moderate = x[:, -1].numpy() <= 300  # at r = 1e8 the two differ by about (x - m)^2 / 2r
    np.testing.assert_allclose(ours[moderate, -1], poisson[moderate], rtol=1e-5, atol=2e-4)


def test_tables_and_deviances_are_one_function_with_the_gradient_of_autograd():
    x, log_mean, log_r = grid(torch.float64)
    each = log_r.expand(log_mean.shape)  # not shared: no tables
    weight = torch.linspace(-1, 2, x.numel(), dtype=torch.float64).view(x.shape)
    torch.testing.assert_close(
        negative_binomial_log_pmf(x, log_mean, log_r), negative_binomial_log_pmf(x, log_mean, each), rtol=1e-10,
        atol=1e-9,
    )  # fmt: skip
    expected = torch.autograd.functional.jacobian(
        lambda m, r: (weight * saddle_point(x, m, r)).sum(), (log_mean, log_r)
    )
    known = log_r < math.log(1e6)  # in float64 autograd's own terms cancel to 1e-16 r
    for dtype, error in ((torch.float64, 2e-6), (torch.float32, 2e-5)):
        leaves = [t.to(dtype).requires_grad_() for t in (log_mean, log_r)]
        loss = (weight.to(dtype) * negative_binomial_log_pmf(x.to(dtype), *leaves)).sum()
        for ours, theirs in zip(torch.autograd.grad(loss, leaves), expected, strict=True):
            scale = theirs.abs().amax(0) + 1
            assert float(((ours.double() - theirs).abs() / scale)[..., known].max()) < error
    by_mean, by_r = slopes(x, log_mean, each)
    torch.testing.assert_close((weight * by_mean).sum(0), expected[0].sum(0), rtol=1e-7, atol=1e-5)
    torch.testing.assert_close((weight * by_r).sum(0)[known], expected[1][known], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("log_r", [20.0, 30.0, 40.0])
def test_large_counts_of_a_large_r_have_the_limit_of_the_gradient(log_r):
    """For r far above x and m, the derivative by log r is (x - (x - m)^2) / 2 r, which is 0 to rounding."""
    x, log_mean = torch.tensor([[65.0], [1000.0], [90.0]]), torch.tensor([[0.0], [7.0], [4.5]], requires_grad=True)
    shared = torch.tensor([log_r], requires_grad=True)
    by_mean, by_r = torch.autograd.grad(negative_binomial_log_pmf(x, log_mean, shared).sum(), (log_mean, shared))
    mean = log_mean.detach().exp()
    limit = float(((x - (x - mean).square()) / (2 * math.exp(log_r))).sum())
    assert abs(float(by_r) - limit) < 1e-6 * float(by_mean.abs().sum() + x.sum())
    torch.testing.assert_close(by_mean, x - mean, rtol=1e-4, atol=1e-3)


def test_samples_images_and_missing_counts_have_the_densities_of_single_counts():
    g = torch.Generator().manual_seed(0)
    x = torch.poisson(torch.full((4, 2, 3), float(SMALL)), generator=g)
    log_mean = (torch.randn(5, 4, 2, 3, generator=g) + 4).requires_grad_()
    log_r = torch.randn(2, 3, generator=g).requires_grad_()
    assert 0 < int((x > SMALL).sum()) < x.numel()
    ours = NegativeBinomial(log_mean, log_r).log_prob(x)
    np.testing.assert_allclose(ours.detach(), exact(x, log_mean.detach(), log_r.detach()), atol=5e-5)
    together = torch.autograd.grad(ours.sum(), (log_mean, log_r))
    single = [NegativeBinomial(log_mean[k], log_r).log_prob(x).sum() for k in range(5)]
    for a, b in zip(together, torch.autograd.grad(sum(single), (log_mean, log_r)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    one = NegativeBinomial(log_mean[0, 0], log_r).log_prob(x)  # rows that share their mean
    slope = torch.autograd.grad(one.sum(), log_mean)[0][0, 0]
    m, r = log_mean[0, 0].detach().exp(), log_r.detach().exp()
    torch.testing.assert_close(slope, (r / (r + m) * (x - m)).sum(0), rtol=1e-4, atol=1e-4)
    holes = torch.where(x == x.amax(), math.nan, x)
    for density in (NegativeBinomial(log_mean, log_r), Poisson(log_mean)):
        torch.testing.assert_close(
            density.log_prob(holes), torch.where(holes.isnan(), math.nan, density.log_prob(x)), equal_nan=True
        )
    assert NegativeBinomial(log_mean[0, :0], log_r).log_prob(x[:0]).shape == (0, 2, 3)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 3e-5), (torch.float64, 1e-10)])
def test_poissons_and_their_gradients_are_closed_forms(dtype, error):
    x, log_rate, _ = grid(dtype)
    log_rate.requires_grad_()
    ours = poisson_log_pmf(x, log_rate)
    rate = np.exp(log_rate.detach().double().numpy())
    np.testing.assert_allclose(
        ours.detach().double(), stats.poisson(rate).logpmf(x.double().numpy()), rtol=1e-6, atol=error
    )
    (slope,) = torch.autograd.grad(ours.sum(), log_rate)
    np.testing.assert_allclose(slope.double(), x.double().numpy() - rate, rtol=1e-4, atol=1e-3 * float(error > 1e-9))


def test_counts_may_be_transposed_or_integers_and_are_not_changed():
    x, log_mean, log_r = grid(torch.float32)
    want = NegativeBinomial(log_mean, log_r).log_prob(x), Poisson(log_mean).log_prob(x)
    for counts in (x.T.contiguous().T, x.int()):
        before, mean = counts.clone(), log_mean.T.contiguous().T.requires_grad_()
        got = NegativeBinomial(mean, log_r).log_prob(counts), Poisson(mean).log_prob(counts)
        torch.testing.assert_close(got, want)
        (slope,) = torch.autograd.grad(got[0].sum(), mean)
        torch.testing.assert_close(slope, slopes(x, log_mean, log_r)[0], rtol=1e-3, atol=1e-3)
        assert torch.equal(counts, before)


def test_extra_zeros_have_the_probability_that_the_counts_lack():
    x, log_mean, log_r = grid(torch.float64)
    dropout = torch.linspace(-4, 4, len(RS), dtype=torch.float64)
    ours = ZeroInflatedNegativeBinomial(log_mean, log_r, dropout).log_prob(x)
    extra = special.expit(dropout.numpy())
    p = (1 - extra) * np.exp(exact(x, log_mean, log_r)) + extra * (x.numpy() == 0)
    known = (np.array(RS) < 1e6) & (p > 1e-290)
    np.testing.assert_allclose(ours.numpy()[known], np.log(p[known]), rtol=1e-9, atol=1e-9)


def test_clamped_is_clamp_with_its_gradient():
    for values in ([-1.0, 0.5, 2.0], [-3.0, 0.5, 4.0], [math.nan, 0.0, 9.0]):
        x = torch.tensor(values, requires_grad=True)
        ours, theirs = clamped(x, -2.0, 3.0), x.clamp(-2.0, 3.0)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
        slopes = [torch.autograd.grad(y.sum(), x)[0] for y in (ours, theirs)]
        torch.testing.assert_close(*slopes, rtol=0, atol=0)
    assert clamped(torch.zeros(0, 3), -2.0, 3.0).shape == (0, 3)
