"""Tables of probabilities: each against the density that it stands for, and unmoved by small differences."""

import numpy as np
import pytest
import torch
from torch import distributions as D

from vaekit import heads
from vaekit.coding.ans import Stack
from vaekit.coding.latents import Bins, Correlated, Independents, Weighted, fitted_bins, standard_bins
from vaekit.coding.likelihoods import coded
from vaekit.coding.tables import GUARD, PRECISION, Step
from vaekit.data.core import Column
from vaekit.densities.mixture import GaussianMixture
from vaekit.errors import DataError
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


def test_counts_of_any_size_cost_their_log_probability():
    log_mean = torch.tensor([[0.0, 5.0, 9.0, 13.0]], dtype=torch.float64).expand(60, -1)
    px = D.Independent(heads.NegativeBinomialHead((4,))(log_mean).base_dist, 1)
    x = np.random.default_rng(0).poisson(np.exp(log_mean.numpy())).astype(np.int64)
    tables = coded(px, np.zeros_like(x, np.bool_), 2**24 - 1)
    assert tables.count == 3
    log_p = px.log_prob(torch.from_numpy(x).double()).numpy()
    assert_costs(tables, x, log_p)
    # the share of rows that need another shift: each end of an interval is near a boundary with this probability
    symbols = tables.split(x)
    risk = sum(4 * tables.step(i, symbols[:i]).guard.reshape(x.shape).sum(1) * 2.0**PRECISION for i in range(3))
    assert abs(1 - tables.clear(x).mean() - risk.mean()) < 4 * np.sqrt(risk.mean() / len(x))


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
    with pytest.raises(DataError, match="differ here by more than the tolerance"):
        far.push(Stack(1), np.array([[0]]))


# --- latents ----------------------------------------------------------------------------------------------------


def test_bins_have_equal_masses_and_posteriors_their_densities():
    bins, rng = standard_bins(3), np.random.default_rng(5)
    loc, scale = rng.uniform(-1, 1, (2000, 3)), np.exp(rng.uniform(-4, -0.5, (2000, 3)))  # within the outer bins
    tables, stack = Independents(loc, scale, bins, prior=False), Stack(5)
    z = tables.pop(stack)
    drawn = (bins.centres(z).numpy() - loc) / scale
    assert np.abs(drawn.mean(0)).max() < 4 / np.sqrt(2000)
    assert np.abs(drawn.std(0) - 1).max() < 4 / np.sqrt(4000)
    exact = (0.5 * (bins.centres(z).numpy() ** 2 - drawn**2) - np.log(scale)).sum(1)  # log q - log p at z
    per_bin = exact - 3 * bins.bits * np.log(2)
    assert_costs(tables, z, per_bin, 0.02)
    # the divergence of the tables from the density, at most 0.003 nats per latent
    assert -0.009 < (cost(tables, z)[0] + per_bin).mean() < 0.001
    tables.push(stack, z)
    assert stack.settled()


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


def _scales():
    return torch.tensor([[0.3, 1.0, 0.7], [1.0, 0.2, 0.5], [0.6, 0.6, 0.6], [2.0, 0.4, 1.0]], dtype=torch.float64)


def _densities(bins: Bins, z):
    e = (z - bins.loc) / bins.scale
    return np.exp(-(e**2) / 2) / np.sqrt(2 * np.pi) / bins.scale
