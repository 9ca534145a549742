"""Likelihoods and their keyed draws against scipy, enumeration and quadrature."""

import numpy as np
import pytest
import torch
from core_helpers import needs_compiler
from scipy import special, stats

from vaekit.distributions import log_standard_gamma, standard_gamma
from vaekit.noise import Noise

N = 20_000


def rows(a: int, b: int) -> Noise:
    return Noise.of(3, torch.arange(a, b))


# --- gamma draws ------------------------------------------------------------------------------------------------

CONCENTRATIONS = [1e-3, 0.05, 0.3, 0.999, 1.0, 1.5, 4.0, 60.0, 1e4, 1e7]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("a", CONCENTRATIONS)
def test_gamma_draws_follow_their_distribution(a, dtype):
    """On the log scale, where a concentration of 1e-3 puts its draws far below the smallest float."""
    log_x = log_standard_gamma(Noise.of(0, N), torch.tensor(a, dtype=dtype), (3,))
    assert log_x.shape == (N, 3)
    assert log_x.dtype == dtype

    # P(log X <= t) = P(a, e^t), and e^{a t} / Gamma(a + 1) where e^t is as good as 0
    def cdf(t):
        small = np.exp(a * np.minimum(t, -30) - special.gammaln(a + 1))
        return np.where(t < -30, small, special.gammainc(a, np.exp(np.maximum(t, -30))))

    for column in range(3):
        assert stats.kstest(log_x[:, column].double().numpy(), cdf).pvalue > 1e-4


@pytest.mark.parametrize("a", CONCENTRATIONS)
def test_the_gradient_of_a_gamma_draw_is_that_of_the_quantile(a):
    """d log x / da at a fixed probability, against central differences of scipy's quantile."""
    leaf = torch.tensor(a, dtype=torch.float64).expand(40, 1).clone().requires_grad_()
    log_x = log_standard_gamma(Noise.of(1, 40), leaf, (1,))
    (g,) = torch.autograd.grad(log_x.sum(), leaf)
    x, h = np.exp(log_x.detach().numpy()), 1e-5 * a
    if a < 0.01:  # x is far below the smallest float: the limit solved by hand

        def quantile(b, p):
            return (np.log(p) + special.gammaln(b + 1)) / b

        p = np.exp(a * log_x.detach().numpy() - special.gammaln(a + 1))
        use = log_x.detach().numpy() < -30
    else:

        def quantile(b, p):
            return np.log(
                np.where(p > 0.5, special.gammainccinv(b, special.gammaincc(a, x)), special.gammaincinv(b, p))
            )

        p, use = special.gammainc(a, x), x > 1e-200
    assert use.sum() >= 20
    finite = (quantile(a + h, p) - quantile(a - h, p)) / (2 * h)
    # torch's own series is good to 1e-3 or so between its regimes; the differences are better
    np.testing.assert_allclose(g.numpy()[use], finite[use], rtol=5e-3)


def test_gamma_draws_are_the_same_in_any_batch():
    a = torch.rand(7, 3, 5, generator=torch.Generator().manual_seed(0)) * 2
    whole = standard_gamma(rows(0, 7), a, (3, 5))
    parts = [standard_gamma(rows(i, i + 1), a[i : i + 1], (3, 5)) for i in range(7)]
    assert torch.equal(whole, torch.cat(parts))
    many = standard_gamma(rows(0, 7), a, (3, 5), 4)
    assert many.shape == (4, 7, 3, 5)
    assert torch.equal(many[:, 2:4], standard_gamma(rows(2, 4), a[2:4], (3, 5), 4))
    later = standard_gamma(Noise(rows(0, 7).base, torch.arange(7), 2), a, (3, 5), 2)
    assert torch.equal(many[2:], later)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gamma_draws_and_gradients_are_finite_at_any_concentration(dtype):
    a = torch.logspace(-6, 8, 57, dtype=dtype).expand(50, 57).clone().requires_grad_()
    for f in (standard_gamma, log_standard_gamma):
        x = f(Noise.of(2, 50), a, (57,))
        (g,) = torch.autograd.grad(x.sum(), a)
        assert bool(torch.isfinite(x).all())
        assert bool(torch.isfinite(g).all())
    assert bool((standard_gamma(Noise.of(2, 50), a, (57,)) > 0).all())


@needs_compiler
def test_gamma_draws_and_their_gradient_compile():
    def step(base, index, a):
        return standard_gamma(Noise(base, index), a, (3,))

    n = Noise.of(5, 6)
    results = []
    for f in (step, torch.compile(step, fullgraph=True)):
        a = torch.tensor([0.2, 1.0, 7.0]).expand(6, 3).clone().requires_grad_()
        x = f(n.base, n.rows, a)
        results.append((x.detach(), *torch.autograd.grad(x.sum(), a)))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two)
