"""Densities and heads: they integrate to one, know their moments, draw what they say, and have finite gradients."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributions as D

from vaekit import heads
from vaekit.densities import ContinuousBernoulli, DiscretisedLogistic, Pixels, draw
from vaekit.densities.drawing import from_noise
from vaekit.densities.mixture import GaussianMixture
from vaekit.noise import Noise

NODES, WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(200))
LOGITS = [0.0, 1e-6, -1e-6, 0.04999, -0.04999, 0.05, -0.05, 0.05001, -0.05001, 0.5, -0.5, 3.0, -3.0, 40.0, -40.0]


def unit_quadrature():
    return (NODES + 1) / 2, WEIGHTS / 2


# --- continuous Bernoulli ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_integrates_to_one_with_its_moments(logit):
    x, w = unit_quadrature()
    d = ContinuousBernoulli(torch.tensor(logit, dtype=torch.float64))
    p = torch.exp(d.log_prob(x))
    assert float((w * p).sum()) == pytest.approx(1, abs=1e-8)
    mean = (w * p * x).sum()
    assert float(d.mean) == pytest.approx(float(mean), abs=1e-8)
    # near 0.05 the series' next term is l^4 / 6048 = 1e-9; 1/l^2 - ... loses 400 * 2e-16 there
    assert float(d.variance) == pytest.approx(float((w * p * (x - mean) ** 2).sum()), abs=2e-8)


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_icdf_inverts_the_integral_of_its_density(logit):
    d = ContinuousBernoulli(torch.tensor(logit, dtype=torch.float64))
    for u in (1e-4, 0.1, 0.5, 0.77, 0.9999):
        end = float(d.icdf(torch.tensor(u, dtype=torch.float64)))
        assert 0 <= end <= 1
        inner, w = (NODES + 1) / 2 * end, WEIGHTS / 2 * end
        # the series about 0 drops a term of l^3 u^2 (1-u)^2 / 24 at most: 4e-7
        assert float((w * torch.exp(d.log_prob(inner))).sum()) == pytest.approx(u, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_continuous_bernoulli_has_finite_gradients_everywhere(dtype):
    logits = torch.tensor([*LOGITS, 100.0, -100.0, 1e-20, 0.0499999], dtype=dtype, requires_grad=True)
    d = ContinuousBernoulli(logits)
    for value in (
        d.log_prob(torch.full_like(logits, 0.3)),
        d.log_prob(torch.ones_like(logits)),
        d.log_prob(torch.zeros_like(logits)),
        d.mean,
        d.icdf(torch.full_like(logits, 0.4)),
    ):
        (g,) = torch.autograd.grad(value.sum(), logits)
        assert bool(torch.isfinite(value).all())
        assert bool(torch.isfinite(g).all())


def test_continuous_bernoulli_gradient_of_the_log_density_is_the_distance_to_the_mean():
    """d log p / d logit = x - mean: an exponential family; in float32 across the joint of the series."""
    logits = torch.linspace(-0.2, 0.2, 401, requires_grad=True)
    d = ContinuousBernoulli(logits)
    (g,) = torch.autograd.grad(d.log_prob(torch.full_like(logits, 0.7)).sum(), logits)
    exact = 0.7 - ContinuousBernoulli(logits.detach().double()).mean
    # a float32 log of l / tanh(l / 2) has a derivative good to eps / l
    np.testing.assert_allclose(g.numpy(), exact.numpy(), atol=1e-5)


def test_continuous_bernoulli_equals_torch_where_torch_is_exact():
    logits = torch.tensor([-5.0, -1.0, 1.0, 5.0], dtype=torch.float64)
    ours, theirs = ContinuousBernoulli(logits), D.ContinuousBernoulli(logits=logits)
    x = torch.tensor([0.0, 0.2, 0.8, 1.0], dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x), rtol=1e-6, atol=1e-6)


# --- discretised logistic ---------------------------------------------------------------------------------------

PLACES = [(0.0, -9.0), (0.5, -3.0), (7.3, 0.0), (-40.0, 1.0), (400.0, 0.5), (8.0, 3.0), (100.2, 8.0), (3.0, 20.0)]


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_discretised_logistic_sums_to_one_with_its_mean(levels):
    loc, log_scale = (torch.tensor(v, dtype=torch.float64) for v in zip(*PLACES, strict=True))
    d = DiscretisedLogistic(loc, log_scale, levels)
    x = torch.arange(levels, dtype=torch.float64)[:, None]
    p = torch.exp(d.log_prob(x))
    np.testing.assert_allclose(p.sum(0).numpy(), 1, atol=1e-9)
    np.testing.assert_allclose(d.mean.numpy(), (p * x).sum(0).numpy(), atol=1e-7)


@pytest.mark.parametrize("levels", [61, 62, 256, 1000])
def test_discretised_logistic_has_the_mean_and_the_gradients_of_the_whole_sum(levels):
    """From a point mass to a scale of 1e39 levels, within, at and far outside the levels."""
    n = levels - 1
    places = [-1e6, -1e3, -40.0, -1.0, 0.0, 0.25, 0.5, 7.3, n / 3, n / 2, n / 2 + 1e-3, n - 0.5, n, n + 60.0, 1e6]
    scales = [-9.0, -1.0, 0.0, 0.4, math.log(1.5), 0.41, 1.0, 2.0, math.log(n / 8), 4.0, 8.0, 20.0, 90.0]
    loc, log_scale = (g.flatten() for g in torch.meshgrid(*map(torch.tensor, (places, scales)), indexing="ij"))
    given = [t.double().requires_grad_() for t in (loc, log_scale)]
    exact = sum(torch.sigmoid((given[0] - (j - 0.5)) * torch.exp(-given[1])) for j in range(1, levels))
    mean = DiscretisedLogistic(*given, levels).mean
    torch.testing.assert_close(mean, exact, atol=1e-8, rtol=0)
    for found, of_sum in zip(*(torch.autograd.grad(m.sum(), given) for m in (mean, exact)), strict=True):
        torch.testing.assert_close(found, of_sum, atol=1e-7, rtol=0)
    single = DiscretisedLogistic(loc, log_scale, levels).mean  # rounding: 2^-24 of the mean, a few times
    torch.testing.assert_close(single.double(), exact.detach(), atol=2e-7 * levels + 1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_discretised_logistic_has_finite_gradients_far_from_the_data(dtype):
    for levels in (2, 17, 256):
        loc = torch.tensor([p[0] for p in PLACES] + [1e4, -1e4], dtype=dtype, requires_grad=True)
        log_scale = torch.tensor([p[1] for p in PLACES] + [-4.0, 4.0], dtype=dtype, requires_grad=True)
        x = torch.arange(levels, dtype=dtype)[:, None]
        value = DiscretisedLogistic(loc, log_scale, levels).log_prob(x)
        assert bool(torch.isfinite(value).all())
        for g in torch.autograd.grad(value.sum(), [loc, log_scale]):
            assert bool(torch.isfinite(g).all())


def test_discretised_logistic_bins_are_logistic_cdf_differences():
    d = DiscretisedLogistic(*torch.tensor([7.3, 0.4], dtype=torch.float64), 17)
    edges = stats.logistic.cdf(np.arange(-0.5, 17), 7.3, math.exp(0.4))
    edges[0], edges[-1] = 0, 1
    p = torch.exp(d.log_prob(torch.arange(17.0).double())).numpy()
    np.testing.assert_allclose(p, np.diff(edges), atol=1e-12)


# --- heads ------------------------------------------------------------------------------------------------------


def raw(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(9, n, generator=g, dtype=torch.float64) * 2


CONTINUOUS = {
    "gaussian learned": lambda: heads.Gaussian((1,), "learned"),
    "gaussian unit": lambda: heads.Gaussian((1,), "unit"),
    "gaussian fixed": lambda: heads.Gaussian((1,), "fixed", 0.3),
    "gaussian shared": lambda: heads.Gaussian((1,), "shared", 0.7),
    "gaussian each": lambda: heads.Gaussian((1,), "each", 2.0),
    "gaussian tanh": lambda: heads.Gaussian((1,), "unit", squash="tanh"),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_real_head_integrates_to_one(name):
    head = CONTINUOUS[name]().double()
    d = head(raw(head.features))
    mean, sigma = d.mean[:, 0], d.stddev[:, 0]
    x = mean + 12 * sigma * NODES[:, None]
    p = torch.exp(d.log_prob(x[..., None]))
    np.testing.assert_allclose((12 * sigma * (WEIGHTS[:, None] * p).sum(0)).detach().numpy(), 1, atol=1e-9)


def test_the_continuous_bernoulli_head_integrates_to_one():
    x, w = unit_quadrature()
    d = heads.ContinuousBernoulliHead((1,))(raw(1))
    p = torch.exp(d.log_prob(x[:, None, None].expand(-1, 9, 1)))
    np.testing.assert_allclose((w[:, None] * p).sum(0).numpy(), 1, atol=1e-9)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_discretised_head_sums_to_one(levels):
    head = heads.DiscretisedLogisticHead((1,), levels)
    p = torch.exp(head(raw(2) * 3).log_prob(torch.arange(levels).double()[:, None, None].expand(-1, 9, 1)))
    np.testing.assert_allclose(p.sum(0).numpy(), 1, atol=1e-9)


def test_the_bernoulli_head_sums_to_one_over_all_pictures_of_four_pixels():
    pictures = torch.tensor([[(i >> b) & 1 for b in range(4)] for i in range(16)]).double().reshape(16, 1, 1, 2, 2)
    p = torch.exp(heads.Bernoulli((1, 2, 2))(raw(4)).log_prob(pictures.expand(-1, 9, 1, 2, 2)))
    assert p.shape == (16, 9)
    np.testing.assert_allclose(p.sum(0).numpy(), 1, atol=1e-12)


def test_a_gaussian_keeps_its_constant():
    d = heads.Gaussian((3, 2, 2), "unit").double()(torch.zeros(1, 12, dtype=torch.float64))
    assert float(d.log_prob(torch.zeros(1, 3, 2, 2, dtype=torch.float64))) == pytest.approx(-6 * math.log(2 * math.pi))
    assert 0.5 * 784 * math.log(2 * math.pi) == pytest.approx(720.5, abs=0.1)  # the known constant of 28x28 pixels


def test_a_learned_sigma_has_a_soft_floor():
    head = heads.Gaussian((1,), "learned").double()
    low = torch.tensor([[0.0, -100.0]], dtype=torch.float64, requires_grad=True)
    sigma = head(low).stddev
    assert float(sigma.detach()) == pytest.approx(math.exp(-6), rel=1e-6)
    high = head(torch.tensor([[0.0, 1.3]], dtype=torch.float64)).stddev
    assert float(high) == pytest.approx(math.exp(1.3), rel=1e-3)  # softplus(7.3) = 7.3007


@pytest.mark.parametrize("event", [(3,), (1, 3, 2), (2, 5)])
@pytest.mark.parametrize("kind", ["bernoulli", "continuous", "learned", "shared", "logistic"])
def test_log_prob_gives_one_number_a_datum(kind, event):
    head = {
        "bernoulli": heads.Bernoulli,
        "continuous": heads.ContinuousBernoulliHead,
        "learned": lambda e: heads.Gaussian(e, "learned"),
        "shared": lambda e: heads.Gaussian(e, "shared"),
        "logistic": lambda e: heads.DiscretisedLogisticHead(e, 17),
    }[kind](event)
    for lead in ((4,), (2, 4)):
        d = head(torch.zeros(*lead, head.features))
        assert (tuple(d.batch_shape), tuple(d.event_shape)) == (lead, event)
        assert d.log_prob(torch.ones(4, *event)).shape == lead


def test_a_head_lays_its_numbers_out_by_parameter_then_event():
    head = heads.Gaussian((2, 3), "learned")
    d = head(torch.arange(12.0)[None])
    assert torch.equal(d.mean[0], torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("kind", ["bernoulli", "continuous", "learned", "shared", "logistic"])
def test_the_initial_bias_gives_the_mean_of_the_data_back(kind):
    g = torch.Generator().manual_seed(0)
    mean = 0.05 + 0.9 * torch.rand((2, 4), generator=g, dtype=torch.float64)
    std = 0.05 + 0.1 * torch.rand((2, 4), generator=g, dtype=torch.float64)
    head = {
        "bernoulli": heads.Bernoulli,
        "continuous": heads.ContinuousBernoulliHead,
        "learned": lambda e: heads.Gaussian(e, "learned"),
        "shared": lambda e: heads.Gaussian(e, "shared"),
        "logistic": lambda e: heads.DiscretisedLogisticHead(e, 256),
    }[kind]((2, 4))
    if kind == "logistic":
        mean, std = 60 + 140 * mean, 60 * std  # far from the edges, which would clip the mean
    bias = head.initial_bias(mean, std)
    assert bias.shape == (head.features,)
    d = head(bias[None])
    tolerance = {"logistic": 0.05}.get(kind, 1e-6)
    np.testing.assert_allclose(d.mean[0].detach().numpy(), mean.numpy(), atol=tolerance)
    if kind == "learned":
        np.testing.assert_allclose(d.stddev[0].numpy(), std.numpy(), rtol=1e-6)


# --- drawing ----------------------------------------------------------------------------------------------------

N = 20_000


@pytest.mark.parametrize(
    ("name", "d", "cdf"),
    [
        ("normal", D.Normal(1.5, 0.3), stats.norm(1.5, 0.3).cdf),
        ("laplace", D.Laplace(-1.0, 2.0), stats.laplace(-1, 2).cdf),
        ("continuous 3", ContinuousBernoulli(torch.tensor(3.0)), lambda x: np.expm1(3 * x) / np.expm1(3)),
        ("continuous -0.04", ContinuousBernoulli(torch.tensor(-0.04)), lambda x: np.expm1(-0.04 * x) / np.expm1(-0.04)),
        ("continuous -20", ContinuousBernoulli(torch.tensor(-20.0)), lambda x: np.expm1(-20 * x) / np.expm1(-20)),
        ("student", D.StudentT(torch.tensor(4.0), 1.0, 2.0), stats.t(4, 1, 2).cdf),
    ],
)
def test_draws_follow_their_distribution(name, d, cdf):
    d = D.Independent(d.expand((3,)), 1)
    x = draw(d, Noise.of(0, N))
    assert x.shape == (N, 3)
    assert stats.kstest(x[:, 1].double().numpy(), cdf).pvalue > 1e-4


def test_discrete_draws_follow_their_probabilities():
    d = D.Independent(DiscretisedLogistic(torch.tensor([9.2]), torch.tensor([1.1]), 17), 1)
    x = draw(d, Noise.of(0, N))[:, 0].long()
    p = torch.exp(d.base_dist.log_prob(torch.arange(17.0)[:, None]))[:, 0].double().numpy()
    assert stats.chisquare(np.bincount(x, minlength=17), N * p / p.sum()).pvalue > 1e-4
    b = draw(D.Independent(D.Bernoulli(torch.tensor([0.0, 0.3, 1.0])), 1), Noise.of(1, N)).double().mean(0)
    assert float(b[0]) == 0
    assert float(b[2]) == 1
    assert abs(float(b[1]) - 0.3) < 5 * math.sqrt(0.21 / N)


@pytest.mark.parametrize("base", [D.Normal, D.Laplace, lambda a, b: D.StudentT(5.0 + 0 * a, a, b), D.Gumbel])
def test_a_draw_has_the_shape_that_noise_and_samples_say(base):
    def make(*shape):
        return D.Independent(base(torch.zeros(*shape), torch.ones(*shape)), 2)

    noise = Noise.of(0, 5)
    assert draw(make(2, 3), noise).shape == (5, 2, 3)
    assert draw(make(2, 3), noise, 4).shape == (4, 5, 2, 3)
    assert draw(make(5, 2, 3), noise).shape == (5, 2, 3)
    assert draw(make(5, 2, 3), noise, 4).shape == (4, 5, 2, 3)
    assert draw(make(4, 5, 2, 3), noise).shape == (4, 5, 2, 3)
    with pytest.raises(ValueError, match="a sample axis of 4"):
        draw(make(4, 5, 2, 3), noise, 4)
    assert torch.equal(draw(make(2, 3), Noise.of(0, 5)), draw(make(2, 3), Noise.of(0, 5)))


@pytest.mark.parametrize("base", [D.Normal, D.Laplace])
def test_a_draw_carries_the_gradient_of_its_parameters(base):
    loc, scale = torch.tensor([0.5], requires_grad=True), torch.tensor([2.0], requires_grad=True)
    x = draw(D.Independent(base(loc, scale), 1), Noise.of(0, 3))
    a, b = torch.autograd.grad(x.sum(), [loc, scale])
    assert float(a) == pytest.approx(3)
    assert float(b) == pytest.approx(float(((x - loc) / scale).sum().detach()), rel=1e-5)


def test_a_density_of_an_event_is_sampled_and_expanded_as_in_torch():
    head = heads.LogisticMixtureHead((2, 3, 3), 5, 2)
    d = head(torch.randn(4, head.features, generator=torch.Generator().manual_seed(0)))
    torch.manual_seed(0)
    x = d.sample((5000,))
    assert x.shape == (5000, 4, 2, 3, 3)
    # six standard errors of the mean of levels 0..4
    torch.testing.assert_close(x.mean(0), d.mean, atol=6 * 2 / 5000**0.5, rtol=0)
    many = d.expand((6, 4))
    assert (many.batch_shape, many.event_shape) == ((6, 4), (2, 3, 3))
    assert torch.equal(many.log_prob(x[0]), d.log_prob(x[0]).expand(6, 4))
    assert many.sample().shape == (6, 4, 2, 3, 3)
    with pytest.raises(ValueError, match="already has a sample axis"):
        many.sample((2,))
    with pytest.raises(ValueError, match="GaussianMixture cannot be expanded"):
        GaussianMixture(torch.zeros(2), torch.zeros(2, 3), torch.ones(2, 3)).expand((4,))


def test_a_draw_leaves_compiled_graphs_whole():
    """With an ABC registered, `singledispatch` asks for its cache token, at which torch.compile breaks the graph."""
    assert [d.__name__ for d in from_noise.registry if type(d) is not type] == []


# --- pixels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [(784,), (2, 3, 16), (13,), (1,), (239,)])
def test_pixels_that_share_logarithms_are_independent_bernoulli_variables(event, monkeypatch):
    """Values, gradients and second derivatives, also where all products of factors are largest, and far out."""
    torch.manual_seed(0)
    logits = torch.randn(3, 2, *event).double() * 4
    logits[0], logits[1, 0] = 0.0, 300.0
    logits.requires_grad_()
    x = (torch.rand(2, *event) > 0.5).double()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    got = Pixels(logits, len(event)).log_prob(x)
    wanted = D.Independent(D.Bernoulli(logits=logits), len(event)).log_prob(x)
    assert torch.allclose(got, wanted, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(Pixels(logits, len(event)).log_prob(x), got)
    slopes = [torch.autograd.grad(v.square().sum(), logits, create_graph=True)[0] for v in (got, wanted)]
    assert torch.allclose(*slopes, rtol=1e-12, atol=1e-12)
    curved = [torch.autograd.grad(s.square().sum(), logits)[0] for s in slopes]
    assert torch.allclose(*curved, rtol=1e-10, atol=1e-10)


def test_pixels_have_a_gradient_with_respect_to_x(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    logits, x = torch.linspace(-3, 3, 32).double().expand(4, 2, 32), torch.rand(2, 32).double().requires_grad_()
    (slope,) = torch.autograd.grad(Pixels(logits, 1).log_prob(x).sum(), x)
    assert torch.allclose(slope, logits.sum(0))
