"""Likelihoods and their keyed draws against scipy, enumeration and quadrature."""

import json
import math

import numpy as np
import pytest
import torch
from core_helpers import QUIET, captured, needs_compiler, tensors, weekly
from scipy import special, stats
from torch import distributions as D
from torch import nn

import vaekit as vk
from vaekit import heads, networks
from vaekit.data.observation import Dequantised, Grey, Identity, Levels
from vaekit.densities import (
    Beta,
    Categorical,
    LogisticMixture,
    NegativeBinomial,
    OptimalNormal,
    Poisson,
    StudentT,
    ZeroInflatedNegativeBinomial,
    draw,
    gamma,
    log_standard_gamma,
    standard_gamma,
    standard_poisson,
)
from vaekit.errors import ChoiceError
from vaekit.heads import Conditional
from vaekit.models.priors import StandardNormal
from vaekit.models.vae import VAE
from vaekit.noise import Noise
from vaekit.objectives import ELBO
from vaekit.recipes.composition import Composition, check_support
from vaekit.training.optimisers import optimiser
from vaekit.training.step import Engine, Settings

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


@weekly
@needs_compiler
def test_gamma_draws_and_their_gradient_compile(monkeypatch):
    monkeypatch.setattr(gamma, "ROUNDS", 1)  # all rounds are alike, and each takes its time to compile

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


# --- densities against scipy ------------------------------------------------------------------------------------


def grid(*axes, dtype=torch.float64):
    return (torch.tensor(a, dtype=dtype).flatten() for a in np.meshgrid(*axes, indexing="ij"))


X = np.array([-300.0, -2.5, 0.0, 1e-3, 0.7, 40.0])
DF = np.array([1.01, 1.5, 2.0, 2.5, 8.0, 15.9, 16.1, 1e3, 1e6])


def test_student_t_is_scipys():
    df, loc, scale, x = grid(DF, [-1.0, 3.0], [0.02, 5.0], X)
    d = StudentT(df, loc, scale)
    np.testing.assert_allclose(d.log_prob(x), stats.t(df, loc, scale).logpdf(x), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(d.mean, stats.t(df, loc, scale).mean())
    np.testing.assert_allclose(d.variance, stats.t(df, loc, scale).var())


def test_beta_is_scipys_with_its_moments():
    a, b, x = grid(
        [7e-3, 0.3, 1.0, 2.5, 40.0, 1e4, 1e5], [7e-3, 0.3, 1.0, 2.5, 40.0, 1e4, 1e5], [1e-9, 0.01, 0.5, 0.99]
    )
    d = Beta(a, b)
    # of the larger of the terms that make up the log density, 1e-13
    np.testing.assert_allclose(d.log_prob(x), stats.beta(a, b).logpdf(x), rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(d.mean, stats.beta(a, b).mean())
    np.testing.assert_allclose(d.variance, stats.beta(a, b).var())


COUNTS = np.array([0.0, 1.0, 2.0, 7.0, 9.0, 300.0, 5e4])
MEANS = np.array([1e-5, 0.3, 5.0, 40.0, 1e3, 1e6])
SHAPES = np.array([3e-3, 0.3, 1.0, 7.9, 8.1, 300.0, 1e5])


def test_poisson_is_scipys():
    mean, x = grid(MEANS, COUNTS)
    d = Poisson(torch.log(mean))
    np.testing.assert_allclose(d.log_prob(x), stats.poisson(mean).logpmf(x), rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(d.mean, mean)
    np.testing.assert_allclose(d.variance, mean)


def test_negative_binomial_is_scipys():
    mean, r, x = grid(MEANS, SHAPES, COUNTS)
    d = NegativeBinomial(torch.log(mean), torch.log(r))
    theirs = stats.nbinom(r, r / (r + mean))
    np.testing.assert_allclose(d.log_prob(x), theirs.logpmf(x), rtol=1e-8, atol=1e-7)
    np.testing.assert_allclose(d.mean, theirs.mean())
    np.testing.assert_allclose(d.variance, theirs.var(), rtol=1e-6)  # scipy's: r (1 - p) / p^2


def test_a_zero_inflated_negative_binomial_is_the_mixture_that_it_says():
    mean, r, dropout, x = grid([0.3, 5.0], [0.3, 8.1], [-40.0, -2.0, 0.0, 3.0], COUNTS)
    chance, theirs = torch.sigmoid(dropout).numpy(), stats.nbinom(r, r / (r + mean))
    p = ZeroInflatedNegativeBinomial(torch.log(mean), torch.log(r), dropout).log_prob(x).exp()
    np.testing.assert_allclose(p, chance * (x.numpy() == 0) + (1 - chance) * theirs.pmf(x), rtol=1e-8)


def test_float32_keeps_its_nats_where_log_gammas_are_huge():
    """The same numbers in float64 and float32, so that only the arithmetic differs; counts are in test_counts.py."""
    many = np.random.default_rng(0)

    def both(build, x, *raw):
        """Log densities in float64, and how far those in float32 are from them."""
        found = []
        for dtype in (torch.float64, torch.float32):
            given = [torch.tensor(np.float32(r)).to(dtype) for r in raw]
            found.append(build(*given).log_prob(torch.tensor(np.float32(x)).to(dtype)).double().numpy())
        return found[0], np.abs(found[1] - found[0]).max()

    df, y = torch.tensor([1e4, 1e6, 1e8]), torch.tensor(0.3)
    np.testing.assert_allclose(
        StudentT(df, torch.zeros(3), torch.ones(3)).log_prob(y), stats.norm.logpdf(0.3), atol=1e-4
    )
    excess = many.uniform(-4, 10, 4000)  # the range of `StudentTHead`
    t = many.standard_t(2 + np.exp(excess))
    assert (
        both(lambda e: StudentT(2 + e.exp(), torch.zeros((), dtype=e.dtype), torch.ones((), dtype=e.dtype)), t, excess)[
            1
        ]
        < 1e-5
    )
    log_a, log_b = many.uniform(-5, 12, (2, 4000))  # the range of `BetaHead`
    x = np.clip(many.beta(np.exp(log_a), np.exp(log_b)), 1e-6, 1 - 2.0**-24)
    exact, off = both(lambda a, b: Beta(a.exp(), b.exp()), x, log_a, log_b)
    single = [np.exp(np.float64(np.float32(v))) for v in (log_a, log_b)]
    np.testing.assert_allclose(exact, stats.beta(*single).logpdf(np.float32(x).astype(float)), atol=1e-8)
    assert off < 2e-4


# --- heads: mass one, moments -----------------------------------------------------------------------------------

NODES, WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(400))

REAL = {
    "laplace learned": lambda e: heads.LaplaceHead(e),
    "laplace shared": lambda e: heads.LaplaceHead(e, "shared", 0.7),
    "laplace each": lambda e: heads.LaplaceHead(e, "each"),
    "laplace fixed": lambda e: heads.LaplaceHead(e, "fixed", 0.2),
    "student learned": lambda e: heads.StudentTHead(e),
    "student each": lambda e: heads.StudentTHead(e, "each"),
    "gaussian optimal": lambda e: heads.Gaussian(e, "optimal").eval(),
}
UNIT = {"beta": lambda e: heads.BetaHead(e)}
LEVELS = {
    "categorical": lambda e: heads.CategoricalHead(e, 7),
    "mixture": lambda e: heads.LogisticMixtureHead(e, 7, 3),
    "mixture of one": lambda e: heads.LogisticMixtureHead(e, 7, 1),
}
COUNTING = {
    "poisson": lambda e: heads.PoissonHead(e),
    "negative binomial": lambda e: heads.NegativeBinomialHead(e),
    "zero-inflated": lambda e: heads.ZeroInflatedNegativeBinomialHead(e),
}
ALL = {**REAL, **UNIT, **LEVELS, **COUNTING}


def make(name, event, dtype=torch.float64):
    """A head whose own parameters, if it has any, differ from their initial values."""
    head = ALL[name](event).to(dtype)
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in head.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=g, dtype=dtype))
    return head


def raw_of(head, *lead, spread=1.0, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return spread * torch.randn(*lead, head.features, generator=g, dtype=dtype)


def points_of(name, head):
    """An integration rule for the events (1,) of the head's 9 rows: x and weights (N, 9)."""
    if name in REAL:  # x = m + s tan(angle): tails of any weight
        d = head(raw_of(head, 9))
        loc = d.mean[:, 0]
        scale = d.stddev[:, 0].nan_to_num(posinf=1.0)
        angle = (NODES + 1)[:, None] / 2 * (math.pi / 2)  # half a line: Laplace has a kink at its centre
        reach = scale * torch.tan(angle)
        w = WEIGHTS[:, None] * (math.pi / 4) * scale / torch.cos(angle) ** 2
        return torch.cat([loc - reach, loc + reach]), torch.cat([w, w])
    if name in UNIT:  # x = sigmoid(t)
        t = 34 * NODES[:, None].expand(-1, 9)
        x = torch.sigmoid(t)
        return x, 34 * WEIGHTS[:, None] * x * torch.sigmoid(-t)
    x = torch.arange(7.0 if name in LEVELS else 20_000.0, dtype=torch.float64)[:, None].expand(-1, 9)
    return x, torch.ones_like(x)


@pytest.mark.parametrize("name", ALL)
def test_a_head_has_mass_one_and_its_moments(name):
    head = make(name, (1,))
    raw = raw_of(head, 9) if name not in UNIT else 1 + raw_of(head, 9, spread=0.5)  # no mass where 1 - x is rounded
    with torch.no_grad():
        d = head(raw)
        x, w = points_of(name, head)
        p = w * torch.exp(d.log_prob(x[..., None]))
        mass = p.sum(0)
        mean = (p * x).sum(0)
        variance = (p * (x - mean) ** 2).sum(0)
        # quadrature of a tail of df = 2.5 has an error of its own in the variance, and none in the mass
        np.testing.assert_allclose(mass, 1, atol=1e-7)
        np.testing.assert_allclose(d.mean[:, 0], mean, rtol=1e-6, atol=1e-6)
        if not name.startswith("student"):
            np.testing.assert_allclose(d.variance[:, 0], variance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("event", [(2, 1, 1), (2, 1, 2), (2, 2)])
def test_a_mixture_over_all_pictures_sums_to_one_and_is_the_formula(event):
    """All images of 2 channels; the channels of a pixel share a component, so they are dependent."""
    head = heads.LogisticMixtureHead(event, 5, 3)
    raw = raw_of(head, 1, spread=1.5)
    d = head(raw)
    n, pixels = math.prod(event), math.prod(event) // 2
    x = torch.cartesian_prod(*[torch.arange(5.0).double()] * n).reshape(-1, 1, *event)
    p = torch.exp(d.log_prob(x))[:, 0]
    assert float(p.sum()) == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(d.mean[0], (p.reshape(-1, *[1] * len(event)) * x[:, 0]).sum(0), atol=1e-9)
    spread = (x[:, 0] - d.mean[0]) ** 2
    np.testing.assert_allclose(d.variance[0], (p.reshape(-1, *[1] * len(event)) * spread).sum(0), atol=1e-9)
    # by hand: scipy's logistic, bins open at the ends
    edges = np.array([-np.inf, 0.5, 1.5, 2.5, 3.5, np.inf])
    loc, scale = d.loc[0].reshape(3, 2, pixels).numpy(), d.log_scale[0].exp().reshape(3, 2, pixels).numpy()
    bins = np.diff(stats.logistic.cdf((edges - loc[..., None]) / scale[..., None]), axis=-1)  # (k, c, pixels, level)
    weight = torch.softmax(d.logits[0].reshape(3, pixels), 0).numpy()
    pixel = np.einsum("kp,kpi,kpj->pij", weight, bins[:, 0], bins[:, 1])
    picks = x.reshape(-1, 2, pixels).long().numpy()
    by_hand = np.prod([pixel[i, picks[:, 0, i], picks[:, 1, i]] for i in range(pixels)], 0)
    np.testing.assert_allclose(p, by_hand, atol=1e-12)
    alone = pixel.sum(2)[:, :, None] * pixel.sum(1)[:, None]
    assert np.abs(pixel - alone).max() > 1e-3  # not a product over the channels


def test_components_of_a_vector_are_its_elements_own():
    """In a vector every element is a pixel, so the density is the product over elements."""
    head, one = heads.LogisticMixtureHead((4,), 5, 3), heads.LogisticMixtureHead((1,), 5, 3)
    raw = raw_of(head, 6)
    x = torch.randint(0, 5, (6, 4), generator=torch.Generator().manual_seed(1)).double()
    parts = sum(one(raw.reshape(6, 9, 4)[..., i]).log_prob(x[:, i : i + 1]) for i in range(4))
    np.testing.assert_allclose(head(raw).log_prob(x), parts, atol=1e-12)


# --- heads: shapes, layout, extremes ----------------------------------------------------------------------------


def inside(name, d, *lead, event):
    """Some x in the head's support."""
    g = torch.Generator().manual_seed(2)
    u = torch.rand(*lead, *event, generator=g, dtype=torch.float64)
    if name in UNIT:
        return u
    return torch.floor(7 * u) if name in LEVELS or name in COUNTING else 4 * u - 2


@pytest.mark.parametrize("event", [(3, 5, 7), (2, 6), (5,)])
@pytest.mark.parametrize("name", ALL)
def test_log_prob_gives_one_number_a_datum_whatever_the_axes(name, event):
    head = make(name, event)
    raw = raw_of(head, 2, 4)
    d = head(raw)
    x = inside(name, d, 4, event=event)
    assert (tuple(d.batch_shape), tuple(d.event_shape)) == ((2, 4), event)
    log_p = d.log_prob(x)
    assert log_p.shape == (2, 4)
    assert d.mean.shape == d.variance.shape == (2, 4, *event)
    assert bool(d.support.check(x).all())
    if "optimal" not in name:
        one = head(raw[1])
        assert (tuple(one.batch_shape), one.log_prob(x).shape) == ((4,), (4,))
        torch.testing.assert_close(one.log_prob(x), log_p[1])
    wide = head(raw[:, :1]).expand((2, 4))
    assert tuple(wide.batch_shape) == (2, 4)
    torch.testing.assert_close(wide.log_prob(x), head(raw[:, :1].expand(2, 4, -1)).log_prob(x))
    assert head(raw.to(torch.bfloat16)).log_prob(x.float()).dtype in (torch.float32, torch.float64)


@pytest.mark.parametrize("name", [n for n in ALL if "mixture" not in n])
def test_an_elementwise_head_lays_its_numbers_out_by_parameter_then_event(name):
    head, one = make(name, (3, 5, 7)), make(name, (1,))
    raw = raw_of(head, 4)
    x = inside(name, None, 4, event=(3, 5, 7))
    own = dict(head.named_parameters())
    total = torch.zeros(4, dtype=torch.float64)
    for i in range(3 * 5 * 7):
        with torch.no_grad():
            for n, p in one.named_parameters():
                p.copy_(own[n].flatten()[i] if own[n].numel() > 1 else own[n])
        total += one(raw.reshape(4, head.params, -1)[..., i]).log_prob(x.flatten(1)[:, i : i + 1]).detach()
    torch.testing.assert_close(head(raw).log_prob(x).detach(), total)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ALL)
def test_no_raw_number_makes_a_log_density_or_its_gradient_infinite(name, dtype):
    event = (2, 3)
    head = ALL[name](event).to(dtype)
    g = torch.Generator().manual_seed(0)
    ends = torch.tensor([-1e4, -90.0, -20.0, 0.0, 20.0, 90.0, 1e4], dtype=dtype)
    raw = ends[torch.randint(0, 7, (400, head.features), generator=g)].requires_grad_()
    if name in UNIT:
        values = torch.tensor([2.0**-32, 1e-3, 0.5, 1 - 2.0**-24, 1.0])
    elif name in LEVELS:
        values = torch.arange(7.0)
    elif name in COUNTING:
        values = torch.tensor([0.0, 1.0, 2.0, 9.0, 300.0, 1e5])
    else:
        values = torch.tensor([-1e3, -1.0, 0.0, 1e-6, 1e3])
    x = values[torch.randint(0, len(values), (400, *event), generator=g)].to(dtype)
    log_p = head(raw).log_prob(x)
    assert bool(torch.isfinite(log_p).all())
    wanted = [raw, *head.parameters()]
    for found in torch.autograd.grad(log_p.sum(), wanted, allow_unused=True):
        assert found is None or bool(torch.isfinite(found).all())
    assert bool(torch.isfinite(head(raw).mean).all())


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_those_of_the_log_density(name):
    head = make(name, (2, 2))
    raw = raw_of(head, 3).requires_grad_()
    x = inside(name, None, 3, event=(2, 2))
    assert torch.autograd.gradcheck(lambda r: head(r).log_prob(x), raw)


# --- heads: drawing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [(3, 5, 7), (2, 3), (4,)])
@pytest.mark.parametrize("name", ALL)
def test_draws_are_the_same_in_any_batch(name, event):
    """In float32, as in practice. A network may round single rows differently, so raw numbers are passed directly."""
    head = make(name, event, torch.float32)
    raw = raw_of(head, 7, dtype=torch.float32)
    with torch.no_grad():
        whole = draw(head(raw), rows(0, 7))
        assert whole.shape == (7, *event)
        parts = torch.cat([draw(head(raw[i : i + 1]), rows(i, i + 1)) for i in range(7)])
        torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-6)
        many = draw(head(raw), rows(0, 7), 3)
        assert many.shape == (3, 7, *event)
        stacked = draw(head(raw.expand(3, 7, -1)), rows(0, 7))
        torch.testing.assert_close(many, stacked, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(many[:, 2:4], draw(head(raw[2:4]), rows(2, 4), 3), rtol=1e-5, atol=1e-6)
        assert not torch.equal(many[0], many[1])
        assert bool(head(raw).support.check(many).all())
        # next to the same rows with other parameters: the noise that one row takes is not another's matter
        other = draw(head(torch.cat([raw[:1], 3 * raw[1:]])), rows(0, 7))
        torch.testing.assert_close(other[0], whole[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*REAL, *UNIT])
def test_real_draws_follow_the_density(name):
    head = make(name, (2,), torch.float32)
    raw = raw_of(head, 1, dtype=torch.float32)
    raw = raw + 1 if name in UNIT else raw  # 1 - x is a multiple of 6e-8: at a concentration of 0.1 that shows
    with torch.no_grad():
        d = head(raw)
        x = draw(head(raw.expand(N, -1)), Noise.of(0, N)).double().numpy()
    for i in range(2):
        if name == "beta":
            a, b = (float(t[0, i]) for t in (d.base_dist.concentration1, d.base_dist.concentration0))
            cdf = stats.beta(a, b).cdf
        elif "laplace" in name:
            cdf = stats.laplace(float(d.mean[0, i]), float(d.stddev[0, i]) / 2**0.5).cdf
        elif "student" in name:
            cdf = stats.t(float(d.base_dist.df[0, i]), float(d.mean[0, i]), float(d.base_dist.scale[0, i])).cdf
        else:
            cdf = stats.norm(float(d.mean[0, i]), float(d.stddev[0, i])).cdf
        assert stats.kstest(x[:, i], cdf).pvalue > 1e-4


def follows(x, p):
    """Whether counts x (N,) are consistent with the probabilities p; cells with fewer than 5 expected are merged."""
    order = np.argsort(-p)
    p, seen = p[order], np.bincount(x, minlength=len(p))[order]
    cut = max(int((len(x) * p >= 5).sum()), 1)
    p, seen = np.append(p[:cut], max(1 - p[:cut].sum(), 0)), np.append(seen[:cut], seen[cut:].sum())
    if len(x) * p[-1] < 5:
        assert seen[-1] <= 5 + len(x) * p[-1] * 5
        p, seen = p[:-1], seen[:-1]
    if len(p) < 2:
        return True
    return stats.chisquare(seen, seen.sum() * p / p.sum()).pvalue > 1e-4


@pytest.mark.parametrize("name", [*LEVELS, *COUNTING])
def test_discrete_draws_follow_their_probabilities(name):
    head = make(name, (2,), torch.float32)
    raw = raw_of(head, 1, spread=1.5, dtype=torch.float32)
    with torch.no_grad():
        x = draw(head(raw.expand(N, -1)), Noise.of(0, N)).long().numpy()
        top = 7 if name in LEVELS else max(int(x.max()) + 1, 2000)
        values = torch.arange(float(top))
        base = head(raw)
        for i in range(2):
            events = torch.zeros(top, 1, 2)
            events[:, 0, i] = values
            # the other element at 0 scales all alike
            p = torch.exp((base.log_prob(events)).double())[:, 0].numpy()
            assert follows(x[:, i], p / p.sum())


def test_draws_of_a_mixture_share_their_component_among_channels_only():
    head = heads.LogisticMixtureHead((2, 1, 2), 5, 3)
    raw = raw_of(head, 1, spread=1.5, seed=3, dtype=torch.float32)
    with torch.no_grad():
        x = draw(head(raw.expand(N, -1)), Noise.of(0, N)).long().reshape(N, 4)
        pictures = torch.cartesian_prod(*[torch.arange(5.0)] * 4)
        p = torch.exp(head(raw).log_prob(pictures.reshape(-1, 1, 2, 1, 2)).double())[:, 0].numpy()
    code = (x * torch.tensor([125, 25, 5, 1])).sum(1).numpy()
    assert follows(code, p / p.sum())


RATES = [1e-6, 0.01, 0.9, 3.0, 9.99, 10.0, 12.0, 45.0, 3e3, 1e6]


@pytest.mark.parametrize("rate", RATES)
def test_poisson_draws_follow_their_probabilities(rate):
    n = 100_000
    x = standard_poisson(Noise.of(4, n), torch.tensor(rate).log(), (1,))[:, 0].double().numpy()
    assert bool((x == np.round(x)).all())
    lowest = int(x.min())
    top = int(stats.poisson(rate).ppf(1 - 1e-12)) + 2
    assert x.max() <= top
    if rate < 1e4:
        assert follows(x.astype(int), stats.poisson(rate).pmf(np.arange(max(top, int(x.max()) + 1))))
    else:  # cells are many and small: the distribution function, whose steps are 4e-4
        u = np.random.default_rng(0).uniform(size=n)
        low, high = stats.poisson(rate).cdf(x - 1), stats.poisson(rate).cdf(x)
        assert stats.kstest(low + u * (high - low), "uniform").pvalue > 1e-4
        assert lowest > rate - 6 * rate**0.5


@pytest.mark.parametrize("d", [D.Poisson(torch.tensor([4.0])), D.Gamma(torch.tensor([3.0]), torch.tensor([2.0]))])
def test_torchs_own_counts_and_gammas_are_keyed_too(d):
    d = D.Independent(d, 1)
    x = draw(d, rows(0, 7))
    assert torch.equal(x, torch.cat([draw(d, rows(i, i + 1)) for i in range(7)]))


def test_reparametrised_draws_carry_their_gradient():
    """d E[x] / d theta from draws against the closed form, within 5 standard errors."""
    a, b = (torch.full((N, 1), v, dtype=torch.float64, requires_grad=True) for v in (0.7, 2.5))
    x = draw(D.Independent(Beta(a, b), 1), Noise.of(0, N))
    for g, exact in zip(torch.autograd.grad(x.sum(), [a, b]), (2.5 / 3.2**2, -0.7 / 3.2**2), strict=True):
        assert abs(float(g.mean()) - exact) < 5 * float(g.std()) / N**0.5
    df = torch.full((N, 1), 9.0, dtype=torch.float64, requires_grad=True)
    t = draw(D.Independent(StudentT(df, torch.zeros(()).double(), torch.ones(()).double()), 1), Noise.of(0, N))
    (g,) = torch.autograd.grad((t**2).sum(), df)  # E t^2 = df / (df - 2)
    assert abs(float(g.mean()) + 2 / 49) < 5 * float(g.std()) / N**0.5


def test_densities_can_be_sampled_as_torchs_are():
    d = Beta(torch.tensor([1.0, 2.0]), torch.tensor(3.0))
    torch.manual_seed(0)
    assert d.sample((5,)).shape == d.rsample((5,)).shape == (5, 2)
    assert Poisson(torch.zeros(3)).sample((2, 4)).shape == (2, 4, 3)
    assert Categorical(torch.zeros(3, 7)).sample().shape == (3,)
    with pytest.raises(ValueError, match="Poisson"):
        Poisson(torch.zeros(3)).rsample()


def test_a_level_of_no_chance_is_never_drawn():
    logits = torch.full((N, 1, 8), -300.0)
    logits[..., 2], logits[..., 5] = 0.0, 1.0
    x = draw(D.Independent(Categorical(logits), 1), Noise.of(0, N))
    assert set(x.flatten().tolist()) == {2.0, 5.0}


# --- heads: where training starts -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in ALL if n not in LEVELS])
def test_the_initial_bias_gives_the_moments_of_the_data_back(name):
    g = torch.Generator().manual_seed(0)
    mean = 0.1 + 0.8 * torch.rand((2, 4), generator=g, dtype=torch.float64)
    std = 0.05 + 0.1 * torch.rand((2, 4), generator=g, dtype=torch.float64)
    head = ALL[name]((2, 4)).double()
    if name in COUNTING:
        mean, std = 20 * mean, (20 * mean + 30 * mean**2 + 1).sqrt() * 2  # more spread than Poisson, and than its zeros
    bias = head.initial_bias(mean, std)
    assert bias.shape == (head.features,)
    with torch.no_grad():
        d = head(bias[None])
        np.testing.assert_allclose(d.mean[0], mean, rtol=1e-5)
        if "learned" in name or name == "beta":
            np.testing.assert_allclose(d.stddev[0], std, rtol=0.01)


@pytest.mark.parametrize("scale", ["shared", "each"])
@pytest.mark.parametrize("make_head", [heads.Gaussian, heads.LaplaceHead, heads.StudentTHead])
def test_a_learned_number_starts_at_the_deviation_of_the_data(make_head, scale):
    """The optimum of a constant Gaussian; other heads have the same standard deviation. Missing values are ignored."""
    head = make_head((3,), scale=scale).double()
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.tensor(
        [0.1, 0.3, 2]
    )
    x[:100, 2] = math.nan
    head.start_numbers(x)
    each = torch.stack([column[~column.isnan()].var(correction=0) for column in x.T])
    variance = each if scale == "each" else (each @ torch.tensor([5.0, 5.0, 4.0]).double()) / 14
    with torch.no_grad():
        found = head(torch.zeros(1, 3).double()).variance[0]
    torch.testing.assert_close(found, variance.expand(3), rtol=1e-3, atol=0)
    fixed = make_head((3,), scale="fixed", sigma=0.7)
    before = fixed.log_scale.clone()
    fixed.start_numbers(x)
    assert torch.equal(fixed.log_scale, before)


@pytest.mark.parametrize("make_head", [heads.CategoricalHead, heads.LogisticMixtureHead])
@pytest.mark.parametrize("event", [(3, 2, 2), (5,)])
def test_the_initial_bias_of_levels(make_head, event):
    """Far from the edges, where values would be clipped; the categorical head is mixed with 1% of the uniform."""
    g = torch.Generator().manual_seed(0)
    mean = 100 + 60 * torch.rand(event, generator=g, dtype=torch.float64)
    std = 5 + 10 * torch.rand(event, generator=g, dtype=torch.float64)
    head = make_head(event)
    bias = head.initial_bias(mean, std)
    assert bias.shape == (head.features,)
    d = head(bias[None])
    np.testing.assert_allclose(d.mean[0], mean, atol=0.5)
    if make_head is heads.LogisticMixtureHead:
        np.testing.assert_allclose(d.stddev[0], std, rtol=0.02)  # bins add 1/12 to a variance
    for degenerate in (torch.zeros(event), torch.full(event, 255.0)):
        assert bool(torch.isfinite(head.initial_bias(degenerate, torch.zeros(event))).all())


# --- what a head takes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make_head", "match"),
    [
        (lambda: heads.LaplaceHead((2,), "optimal"), "scale 'optimal' is not one of"),
        (lambda: heads.Gaussian((2,), "best"), "scale 'best'"),
        (lambda: heads.StudentTHead((2,), "best"), "scale 'best'"),
        (lambda: heads.LogisticMixtureHead((2,), 8, 0), "components"),
    ],
)
def test_choices_are_checked(make_head, match):
    with pytest.raises(ValueError, match=match):
        make_head()


def vae(head, latent=2, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    event = head.event
    encoder = nn.Sequential(nn.Flatten(1), nn.Linear(math.prod(event), 2 * latent))
    decoder = networks.MLP((latent,), head.features, ())
    posterior = Conditional(encoder, heads.Gaussian((latent,)))
    return VAE(StandardNormal((latent,)), posterior, Conditional(decoder, head)).to(dtype)


def test_a_beta_is_refused_where_data_may_be_0_or_1():
    model = vae(heads.BetaHead((3,)))
    check_support(Composition(model, ELBO(), Dequantised(0, 256)))
    with pytest.raises(ChoiceError, match=r"open-unit.*write `observation='dequantised'`"):
        check_support(Composition(model, ELBO(), Grey()))
    assert not bool(model.likelihood(torch.zeros(2, 2)).support.check(torch.tensor([0.0, 0.5, 0.5])).any())


@pytest.mark.parametrize("name", [*LEVELS, *COUNTING])
def test_levels_fit_levels_and_counts(name):
    check_support(Composition(vae(ALL[name]((3,))), ELBO(), Levels(7)))
    with pytest.raises(ChoiceError):
        check_support(Composition(vae(ALL[name]((3,))), ELBO(), Grey()))
    if name in COUNTING:
        with pytest.raises(ChoiceError, match="write `observation='counts'`"):
            check_support(Composition(vae(ALL[name]((3,))), ELBO(), Identity()))


# --- the optimal sigma ------------------------------------------------------------------------------------------


def optimal(loc, log_scale=0.3, updates=0.0):
    buffers = (torch.tensor(v, dtype=torch.float64) for v in (log_scale, updates))
    return OptimalNormal(loc, *buffers)


def test_the_optimal_sigma_is_the_best_of_the_batch_and_has_its_gradient():
    g = torch.Generator().manual_seed(0)
    loc = torch.randn(4, 5, 6, generator=g, dtype=torch.float64, requires_grad=True)
    x = torch.randn(5, 6, generator=g, dtype=torch.float64)
    d = optimal(loc)
    total = d.log_prob(x).sum()
    best = float(total.detach())
    mse = ((x - loc) ** 2).mean().detach()
    for s in (0.9, 1.0, 1.1):
        other = D.Normal(loc.detach(), s * mse.sqrt()).log_prob(x).sum()
        assert best >= float(other) - 1e-3  # the floor e^-12 is in the sigma
    (found,) = torch.autograd.grad(total, loc)
    wanted = torch.autograd.grad(-loc.numel() / 2 * torch.log(((x - loc) ** 2).mean()), loc)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-8)
    exact = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)  # a perfect reconstruction
    value = optimal(exact).log_prob(exact.detach())
    assert bool(torch.isfinite(value).all())
    assert bool(torch.isfinite(torch.autograd.grad(value.sum(), exact)[0]).all())


def test_the_frozen_sigma_follows_the_batches_and_scores_without_them():
    head = heads.Gaussian((3,), "optimal").double()
    g = torch.Generator().manual_seed(0)
    raw = torch.zeros(8, 3, dtype=torch.float64, requires_grad=True)
    average = 0.0
    for n, scale in enumerate((3.0, 2.0, 1.0, 0.5)):
        x = scale * torch.randn(8, 3, generator=g, dtype=torch.float64)
        head(raw).log_prob(x)
        share = max(0.01, 10 / (10 + n))
        average += share * (0.5 * math.log(float((x**2).mean()) + math.exp(-12)) - average)
        assert float(head.log_scale) == pytest.approx(average, rel=1e-6)
        assert float(head.updates) == n + 1
    with torch.no_grad():  # in training mode as well: a first batch is looked at before training
        log_p = head(raw).log_prob(x)
    np.testing.assert_allclose(log_p, D.Normal(0, math.exp(average)).log_prob(x).sum(-1), rtol=1e-6)
    head.eval()
    alone = torch.cat([head(raw[i : i + 1]).log_prob(x[i : i + 1]) for i in range(8)])  # with gradient
    np.testing.assert_allclose(alone.detach(), log_p, rtol=1e-12)
    assert float(head.updates) == 4
    assert float(head(raw).stddev.detach()[0, 0]) == pytest.approx(math.exp(average))


def sigma_engine(steps, compiled=False, precision="fp32"):
    head = heads.Gaussian((6,), "optimal")
    made = Engine(
        Composition(vae(head), ELBO(), Identity()),
        Settings(optimiser=lambda: optimiser("adam"), lr=1e-2, seed=1, ema=0.5, precision=precision),
    )
    made.module.train()
    if compiled:
        made.compiled()
    values = []
    for t in range(steps):
        x = torch.randn(10, 6, generator=torch.Generator().manual_seed(t)) * 0.3
        values.append(made.step(x, t, 1.0))
    return made, head, torch.stack(values)


def test_the_optimal_sigma_trains_the_same_compiled(monkeypatch):
    """Captured; `test_hierarchy.py` has generated code write sigma."""
    captured(monkeypatch)
    torch._dynamo.reset()
    eager, one, a = sigma_engine(6)
    compiled, two, b = sigma_engine(6, True)
    assert float(one.updates) == float(two.updates) == 6
    assert float(one.log_scale) == pytest.approx(float(two.log_scale), abs=1e-4)
    assert float(one.log_scale) != 0
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert eager.tensors().keys() == compiled.tensors().keys()
    with compiled.using():  # evaluation reads the buffer that the graph wrote
        z = torch.zeros(1, 2)
        sigma = compiled.module.model.likelihood(z).stddev
        assert float(sigma.detach()[0, 0]) == pytest.approx(math.exp(float(two.log_scale)), rel=1e-6)


def test_the_optimal_sigma_is_restored_and_used_by_a_saved_run(tmp_path):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(200, 6)) * 0.2 + rng.normal(size=(200, 1))).astype(np.float32)
    data = vk.from_arrays(x, kind="vector")

    def composition():
        return Composition(vae(heads.Gaussian((6,), "optimal")), ELBO(), Identity())

    run = vk.fit(data, composition(), out=tmp_path / "a", steps=60, batch=50, **QUIET)
    saved = tensors(tmp_path / "a" / "model.safetensors")
    name = "model.likelihood.head.log_scale"
    assert float(saved["model.likelihood.head.updates"]) == 60
    assert float(saved[name]) != 0
    again = vk.open(tmp_path / "a", model=composition())
    head = again.model.likelihood.head
    assert float(head.log_scale) == float(saved[name])
    with torch.no_grad():
        stddev = again.model.decode(torch.zeros(1, 2)).stddev
    assert float(stddev[0, 0]) == pytest.approx(math.exp(float(saved[name])), rel=1e-6)
    # scored by the frozen sigma: a datum has the same density alone and among others, and measuring changes nothing
    both = [again.score(x[:8], samples=5), np.concatenate([again.score(x[i : i + 1], samples=5) for i in range(2)])]
    assert np.isfinite(both[0]).all()
    assert float(head.log_scale) == float(saved[name])
    assert run.model.likelihood.head.log_scale == head.log_scale
    # killed after step 40 and gone on with, it ends with the same sigma, bit for bit
    b = tmp_path / "b"
    vk.fit(data, composition(), out=b, steps=60, batch=50, checkpoint_steps=20, **QUIET)
    last = b / "checkpoint" / "000000060.safetensors"
    last.unlink()
    config = json.loads((b / "run.json").read_text())
    (b / "run.json").write_text(json.dumps(config | {"state": "running"}))
    vk.fit(data, composition(), out=b, resume=True, progress=False)
    assert last.exists()
    assert torch.equal(tensors(b / "model.safetensors")[name], saved[name])


# --- in training ------------------------------------------------------------------------------------------------


def a_step(name, compiled):
    head = ALL[name]((6,)).train()
    observation = Dequantised(0, 7) if name in UNIT else Levels(7) if name in {**LEVELS, **COUNTING} else Identity()
    made = Engine(Composition(vae(head), ELBO(), observation), Settings(optimiser=lambda: optimiser("sgd"), lr=1e-5))
    made.module.train()
    if compiled:
        made.compiled()
    raw = torch.randint(0, 7, (10, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    values = torch.stack([made.step(raw, t, 1.0) for t in range(2)])
    return values, made.parameters


@pytest.mark.parametrize("name", ALL)
def test_every_head_trains_as_one_graph(name, monkeypatch):
    captured(monkeypatch)
    torch._dynamo.reset()
    values, parameters = a_step(name, False)
    again, others = a_step(name, True)
    assert bool((values.abs() < 1e5).all())  # numbers of a training, not of one that blew up
    torch.testing.assert_close(values, again, rtol=1e-4, atol=1e-4)
    for n, p in parameters.items():
        torch.testing.assert_close(p, others[n], rtol=1e-4, atol=1e-5)


def test_a_convolutional_decoder_gives_a_mixture_its_numbers():
    """35 numbers per pixel need 12 per channel with three channels, so one is unused."""
    head = heads.LogisticMixtureHead((3, 6, 5), 256, 5)
    assert (head.params, head.features) == (12, 12 * 90)
    d = head(networks.ConvDecoder(2, (3, 6, 5), head.params, (8, 8))(torch.zeros(4, 2)))
    assert isinstance(d, LogisticMixture)
    assert tuple(d.logits.shape) == (4, 5, 6, 5)
    assert tuple(d.loc.shape) == (4, 5, 3, 6, 5)
