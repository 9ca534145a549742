"""Tables of probabilities: each against the density that it stands for, and unmoved by small differences."""

import numpy as np
import pytest
import torch
from other_maths import other_maths
from scipy.special import ndtr, xlogy
from torch import distributions as D

from vaekit import heads
from vaekit.coding.ans import Desynchronised, Stack
from vaekit.coding.latents import Bins, Correlated, Independents, Weighted, fitted_bins, standard_bins
from vaekit.coding.likelihoods import coded
from vaekit.coding.tables import GUARD, PRECISION, Step
from vaekit.data.core import Column
from vaekit.densities import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from vaekit.densities.mixture import GaussianMixture
from vaekit.heads.mixed import Masked, MixedHead
from vaekit.heads.posteriors import FullNormal

COLUMNS = [
    Column("kind", "categorical", tuple("abcde")),
    Column("events", "counts"),
    Column("flag", "binary", ("no", "yes")),
    Column("place", "categorical", ("x", "y")),
]
HEADS = {
    "bernoulli": heads.Bernoulli((2, 3)),
    "levels": heads.DiscretisedLogisticHead((2, 3), 40),
    "categorical": heads.CategoricalHead((2, 3), 5),
    "mixture, grey": heads.LogisticMixtureHead((1, 2, 3), 40, 3),
    "mixture, colour": heads.LogisticMixtureHead((3, 1, 2), 40, 3),
    "mixture, vector": heads.LogisticMixtureHead((6,), 40, 2),
    "poisson": heads.PoissonHead((6,)),
    "negative binomial": heads.NegativeBinomialHead((6,)),
    "zero-inflated": heads.ZeroInflatedNegativeBinomialHead((6,)),
    "mixed": MixedHead(COLUMNS),
}


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def case(name, rows=40, seed=0):
    """A density of some rows, and draws from it as whole numbers (rows, n)."""
    head = HEADS[name].double()
    generator = torch.Generator().manual_seed(seed)
    px = head(2 * torch.randn(rows, head.features, generator=generator, dtype=torch.float64))
    torch.manual_seed(seed)
    with torch.random.fork_rng():
        return px, px.sample().flatten(1).numpy().astype(np.int64)


def cost(tables, x):
    """The cost of each row in nats by the intervals of its symbols, and the error that their rounding allows.

    An interval of f units is exact to one unit at each end; where f is small, the symbol may be far less probable.
    """
    symbols, nats, error = tables.split(x), np.zeros(len(x)), np.full(len(x), 1e-3)
    for i, each in enumerate(symbols):
        step = tables.step(i, symbols[:i])
        f = step.intervals(each)[1].reshape(len(x), -1)
        nats += (step.precision * np.log(2) - np.log(f)).sum(1)
        error += (np.where(f < 8, np.inf, 2 / f) + step.outcomes / 2**step.precision * step.least).sum(1)
    return nats, error


def assert_costs(tables, x, log_p, more=0.0):
    nats, error = cost(tables, x)
    assert np.isfinite(error).mean() > 0.8
    assert (np.abs(nats + log_p) <= error + more).all()
    assert (nats <= -log_p + np.where(np.isfinite(error), error, 1) + more).all()


@pytest.mark.parametrize("name", HEADS)
def test_the_cost_is_the_log_probability_and_the_values_come_back(name):
    px, x = case(name)
    top = 100 * int(x.max()) if name in ("poisson", "negative binomial", "zero-inflated", "mixed") else int(x.max())
    tables = coded(px, np.zeros_like(x, np.bool_), top)  # counts above `top` have no code, nor any probability
    log_p = px.log_prob(torch.from_numpy(x).double().reshape(len(x), *px.event_shape)).numpy()
    assert_costs(tables, x, log_p)
    stack = Stack(7)
    tables.push(stack, x)
    np.testing.assert_array_equal(tables.pop(stack), x)
    assert stack.settled()


@pytest.mark.parametrize("log_r", [-1.0, 0.0, 4.0, 25.0])
def test_counts_of_any_size_cost_their_log_probability_and_are_nearly_all_clear(log_r):
    log_mean = torch.tensor([[0.0, 5.0, 9.0, 11.5, 13.8, 15.0]], dtype=torch.float64).expand(100, -1)
    px = D.Independent(NegativeBinomial(log_mean, torch.full_like(log_mean, log_r)), 1)
    rng = np.random.default_rng(0)
    x = rng.poisson(np.exp(log_mean.numpy()) * rng.gamma(np.exp(log_r), np.exp(-log_r), log_mean.shape))
    x = np.minimum(x, 2**24 - 1)
    tables = coded(px, np.zeros_like(x, np.bool_), 2**24 - 1)
    assert tables.count == 3
    given = torch.from_numpy(x).double()
    # where the mean is 3 million, some of the probability is above `top` and not coded
    log_p = px.base_dist.log_prob(given)[:, :-1].sum(1).numpy()
    fewer = coded(D.Independent(NegativeBinomial(log_mean[:, :-1], torch.full((100, 5), log_r)), 1), *_all(x[:, :-1]))
    assert_costs(fewer, x[:, :-1], log_p, 2e-3)
    # each end of an interval is near a boundary with this probability, and each row needs another shift with their sum
    symbols = tables.split(x)
    risk = [4 * tables.step(i, symbols[:i]).guard.reshape(x.shape) * 2.0**PRECISION for i in range(3)]
    assert np.sum(risk, 0).mean() < 0.005
    clear = tables.clear(x)
    assert abs(1 - clear.mean() - np.sum(risk, (0, 2)).mean()) < 4 * np.sqrt(0.03 / len(x))
    assert_unmoved(lambda: coded(px, np.zeros_like(x, np.bool_), 2**24 - 1), x)
    stack = Stack(3)
    tables.push(stack, x)
    np.testing.assert_array_equal(tables.pop(stack), x)


def _all(x):
    return np.zeros_like(x, np.bool_), 2**24 - 1


def test_poisson_counts_far_in_the_tails_of_large_rates_have_intervals():
    log_rate = torch.log(torch.tensor([[30.0, 5e4, 1e6, 1e7]], dtype=torch.float64)).expand(41, -1)
    rate = log_rate.exp().numpy()
    x = np.rint(rate + np.linspace(-7, 7, 41)[:, None] * np.sqrt(rate)).clip(0).astype(np.int64)
    px = D.Independent(Poisson(log_rate), 1)
    tables, stack = coded(px, *_all(x)), Stack(3)
    log_p = px.log_prob(torch.from_numpy(x).double()).numpy()
    nats, error = cost(tables, x)
    near = np.isfinite(error)
    assert near.sum() > 20
    assert (np.abs(nats + log_p)[near] <= error[near] + 5e-3).all()
    tables.push(stack, x)
    np.testing.assert_array_equal(tables.pop(stack), x)
    assert_unmoved(lambda: coded(px, *_all(x)), x)


def test_outliers_of_zero_inflated_counts_have_the_intervals_of_their_counts():
    """Far from the mean, the window of a count has no mass beside that of extra zeros."""
    shape = (30, 1)
    log_mean, log_r, logit = (torch.full(shape, v, dtype=torch.float64) for v in (13.8, 8.0, 2.2))
    px = D.Independent(ZeroInflatedNegativeBinomial(log_mean, log_r, logit), 1)
    x = np.linspace(60_000, 80_000, 30).astype(np.int64)[:, None]
    assert_unmoved(lambda: coded(px, *_all(x)), x)
    tables, stack = coded(px, *_all(x)), Stack(1)
    tables.push(stack, x)
    np.testing.assert_array_equal(tables.pop(stack), x)


def assert_unmoved(make, x):
    """On a machine with other special functions, clear values have the same intervals."""
    tables = make()
    symbols, wanted = tables.split(x), []
    for i, each in enumerate(symbols):
        step = tables.step(i, symbols[:i])
        wanted.append((step.clear(each), *step.intervals(each)))
    assert np.mean([clear.mean() for clear, _, _ in wanted]) > 0.9
    with other_maths():
        other = make()
        for i, (each, (clear, start, frequency)) in enumerate(zip(symbols, wanted, strict=True)):
            found = other.step(i, symbols[:i]).intervals(each)
            np.testing.assert_array_equal(found[0][clear], start[clear])
            np.testing.assert_array_equal(found[1][clear], frequency[clear])


@pytest.mark.parametrize("name", HEADS)
def test_other_special_functions_give_the_same_intervals(name):
    head = HEADS[name].double()
    raw = 3 * torch.randn(60, head.features, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.manual_seed(3)
    with torch.random.fork_rng():
        x = head(raw).sample().flatten(1).numpy().astype(np.int64)
    assert_unmoved(lambda: coded(head(raw), np.zeros_like(x, np.bool_), int(x.max())), x)


def test_missing_and_fixed_values_cost_nothing():
    _, x = case("levels")
    hidden = np.random.default_rng(2).random(x.shape) < 0.5
    head = Masked(HEADS["levels"], {0: 3.0}).double()
    raw = torch.randn(40, head.features, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x[:, 0] = 3
    given = torch.where(torch.from_numpy(hidden), torch.nan, torch.from_numpy(x).double()).reshape(40, 2, 3)
    tables = coded(head(raw), hidden, 39)
    assert_costs(tables, x, head(raw).log_prob(given).numpy())
    stack = Stack(3)
    tables.push(stack, x)
    shown = ~hidden & (np.arange(6) > 0)
    np.testing.assert_array_equal(tables.pop(stack)[shown], x[shown])


def test_impossible_values_can_be_coded():
    px = heads.Bernoulli((1,)).double()(torch.tensor([[800.0], [-800.0]], dtype=torch.float64))
    x = np.array([[0], [1]])
    tables, stack = coded(px, np.zeros_like(x, np.bool_), 1), Stack(1)
    np.testing.assert_allclose(cost(tables, x)[0], PRECISION * np.log(2))
    tables.push(stack, x)
    np.testing.assert_array_equal(tables.pop(stack), x)


def test_clear_symbols_keep_their_interval_under_any_difference_below_the_guard():
    rng = np.random.default_rng(4)
    # cumulative probabilities a few guards away from a boundary of the table
    exact = (rng.integers(1, 2**PRECISION - 3, 4000) + 0.5) / (2**PRECISION - 2)
    chance = exact + rng.uniform(-4, 4, 4000) * GUARD

    def step(disturbance):
        return Step(lambda k, at: chance[at] + disturbance[at], 2, len(chance))

    symbols = rng.integers(0, 2, 4000)
    clear = step(np.zeros(4000)).clear(symbols)
    assert 0.5 < clear.mean() < 0.9
    wanted = step(np.zeros(4000)).intervals(symbols)
    changed = np.zeros(4000, np.bool_)
    for sign in (-1, 1):
        found = step(sign * 0.999 * GUARD * np.ones(4000)).intervals(symbols)
        changed |= (found[0] != wanted[0]) | (found[1] != wanted[1])
    assert changed[~clear].mean() > 0.5
    assert not changed[clear].any()


def test_a_symbol_that_cannot_have_been_drawn_is_refused():
    far = Independents(np.zeros((1, 1)), np.full((1, 1), 0.01), standard_bins(1), prior=False)
    with pytest.raises(Desynchronised, match="differ here by more than the tolerance"):
        far.push(Stack(1), np.array([[0]]))


# --- latents ----------------------------------------------------------------------------------------------------


def expected_divergence(loc, scale, bins, precision=24):
    """KL(f | F) / 2^precision of the frequencies f of a posterior's bins, from their exact F, each rounded at random.

    A frequency is the difference of two rounded numbers: floor(F) or floor(F) + 1, with mean F.
    """
    edges = np.diff(ndtr((bins.loc + bins.scale * bins.edges - loc) / scale))
    exact = edges[edges > 0] * 2.0**precision
    low = np.floor(exact)
    share = exact - low
    return float(((1 - share) * xlogy(low, low / exact) + share * (low + 1) * np.log((low + 1) / exact)).sum() / 2**24)


def test_bins_have_equal_masses_and_posteriors_their_densities():
    bins, rng = standard_bins(3), np.random.default_rng(5)
    kinds = np.column_stack([rng.uniform(-1, 1, 6), np.exp(np.linspace(-4, -0.5, 6))])  # within the outer bins
    loc, scale = np.repeat(kinds, 1000, 0).T.reshape(2, 2000, 3)
    tables, stack = Independents(loc, scale, bins, prior=False), Stack(5)
    z = tables.pop(stack)
    drawn = (bins.centres(z).numpy() - loc) / scale
    assert np.abs(drawn.mean(0)).max() < 4 / np.sqrt(2000)
    assert np.abs(drawn.std(0) - 1).max() < 4 / np.sqrt(4000)
    step, flat = tables.step(0, []), z.ravel()
    nats = 24 * np.log(2) - np.log(step.intervals(flat)[1]).reshape(z.shape)
    # log q - log p at z, of bins of equal masses under p
    excess = nats + 0.5 * (bins.centres(z).numpy() ** 2 - drawn**2) - np.log(scale) - bins.bits * np.log(2)
    exact = -np.mean([expected_divergence(*kind, standard_bins(1)) for kind in kinds])
    assert abs(excess.mean() - exact) < 4 * excess.std() / np.sqrt(excess.size)
    assert -0.01 < exact < 0  # nats per latent, which bits-back coding loses
    tables.push(stack, z)
    assert stack.settled()
    assert_unmoved(lambda: Independents(loc, scale, bins, prior=False), z)
    assert_unmoved(lambda: Independents(loc, scale, bins, prior=True), z)


@pytest.mark.parametrize(("narrow", "wide", "dims"), [(0.1, 0.5, 5), (0.0026, 0.01, 5), (0.1, 0.04, 30)])
def test_correlated_latents_are_unmoved_by_other_special_functions(narrow, wide, dims):
    rng = np.random.default_rng(8)
    factor = np.tril(rng.normal(0, wide, (200, dims, dims)), -1) + narrow * np.eye(dims)
    q = FullNormal(torch.from_numpy(rng.normal(0, 0.3, (200, dims))), torch.from_numpy(factor))
    z = Correlated(q, standard_bins(dims)).pop(Stack(5))
    sign = torch.from_numpy(rng.choice([-1.0, 1.0], factor.shape))
    moved = FullNormal(q.loc, q.factor * (1 + 2.0**-52 * sign))  # the factor itself is computed by exponentials
    which = iter([q] + 9 * [moved])
    assert_unmoved(lambda: Correlated(next(which), standard_bins(dims)), z)


def test_correlated_latents_are_drawn_from_their_density():
    factor = torch.tensor([[0.5, 0.0], [-0.4, 0.1]], dtype=torch.float64).expand(4000, -1, -1)
    q = FullNormal(torch.tensor([0.3, -0.2], dtype=torch.float64).expand(4000, -1), factor)
    bins = standard_bins(2)
    tables, stack = Correlated(q, bins), Stack(9)
    z = tables.pop(stack)
    np.testing.assert_allclose(np.cov(bins.centres(z).numpy().T), q.covariance_matrix[0], atol=0.02)
    log_p = D.Normal(0, 1).log_prob(bins.centres(z)).sum(1)
    per_bin = (q.log_prob(bins.centres(z)) - log_p).numpy() - 2 * bins.bits * np.log(2)
    assert_costs(tables, z, per_bin, 0.02)
    tables.push(stack, z)
    assert stack.settled()


def test_a_mixture_prior_costs_its_density_per_bin():
    generator = torch.Generator().manual_seed(6)
    p = GaussianMixture(*(torch.randn(*shape, generator=generator).double() for shape in ((4,), (4, 3))), _scales())
    z = p.sample((500,)).numpy()
    bins = fitted_bins(z)
    assert bins.bits == 18
    assert (bins.scale >= z.std(0)).all()
    k = np.clip((torch.special.ndtr(torch.from_numpy((z - bins.loc) / bins.scale)).numpy() * 2**18), 0, 2**18 - 1)
    k = k.astype(np.int64)
    tables = Weighted(p, 500, bins)
    centres = bins.centres(k)
    density = np.log(2**-18 / _densities(bins, centres.numpy())).sum(1)  # log of the volume of the bin
    assert_costs(tables, k, p.log_prob(centres).numpy() + density, 0.02)
    stack = Stack(2)
    tables.push(stack, k)
    np.testing.assert_array_equal(tables.pop(stack), k)
    assert_unmoved(lambda: Weighted(p, 500, bins), k)


def _scales():
    return torch.tensor([[0.3, 1.0, 0.7], [1.0, 0.2, 0.5], [0.6, 0.6, 0.6], [2.0, 0.4, 1.0]], dtype=torch.float64)


def _densities(bins: Bins, z):
    e = (z - bins.loc) / bins.scale
    return np.exp(-(e**2) / 2) / np.sqrt(2 * np.pi) / bins.scale
