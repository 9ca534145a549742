"""The aggregate posterior from a batch, against enumeration and quadrature; and the objective made of it."""

import itertools
import math

import pytest
import torch
from core_helpers import captured
from table_helpers import (
    STEP,
    LearnedMixture,
    assert_compiled_equals_eager,
    batch,
    correlated,
    deterministic,
    gradients,
    ladder,
    random_table,
    student,
    table,
    with_head,
)
from torch import distributions as D

from vaekit.errors import ChoiceError
from vaekit.heads.posteriors import IAF, FullCovariance, Sphere
from vaekit.models.priors import UniformSphere
from vaekit.models.vae import Latent
from vaekit.objectives import ELBO, TotalCorrelation
from vaekit.objectives.aggregate import aggregate_densities, factorises, split_rate, stratified_log_weights
from vaekit.objectives.schedules import Linear
from vaekit.objectives.terms import latent_rate


def latent_of(model, b) -> Latent:
    return model.trace(b.x, noise=b.noise).latents[0]


def enumerated(latent: Latent, every: Latent):
    """log q(z_i) and log q(z_id) by plain loops over all data of `every`."""
    loc, scale = every.q.base_dist.loc, every.q.base_dist.scale
    joint, each = [], []
    for z in latent.z:
        densities = torch.stack([D.Normal(m, s).log_prob(z).exp() for m, s in zip(loc, scale, strict=True)])
        joint.append(densities.prod(1).mean().log())
        each.append(densities.mean(0).log())
    return torch.stack(joint), torch.stack(each)


def test_with_the_whole_data_as_batch_the_density_is_the_enumerated_one():
    n, dims = 7, 3
    latent = latent_of(random_table(n, dims), batch(n))
    given, joint, each = aggregate_densities(latent, n)
    by_hand, each_by_hand = enumerated(latent, latent)
    torch.testing.assert_close(joint, by_hand, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(each, each_by_hand, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(given, latent.log_q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 5, 6])
def test_over_all_batches_the_density_is_unbiased(size):
    """E over every batch that holds datum i, in every order, of the estimated q(z_i) is the enumerated q(z_i)."""
    n, dims = 6, 2
    model = random_table(n, dims, seed=2)
    whole = latent_of(model, batch(n))
    joint, each = enumerated(whole, whole)
    found, found_each, places = torch.zeros(n).double(), torch.zeros(n, dims).double(), torch.zeros(n)
    for chosen in itertools.combinations(range(n), size):
        rows = list(chosen[::-1] if sum(chosen) % 2 else chosen)  # the estimate must not go by the place of a row
        part = Latent(whole.z[rows], D.Independent(D.Normal(*(t[rows] for t in parameters(whole))), 1), whole.p)
        densities = aggregate_densities(part, n)
        found[rows] += densities.joint.exp()
        found_each[rows] += densities.each.exp()
        places[rows] += 1
    torch.testing.assert_close(found / places, joint.exp(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found_each / places[:, None], each.exp(), rtol=1e-12, atol=1e-14)


def parameters(latent: Latent):
    return latent.q.base_dist.loc, latent.q.base_dist.scale


def test_a_single_batch_is_not_the_enumeration():
    """The test of unbiasedness needs this."""
    model = random_table(6, 2, seed=2)
    whole = latent_of(model, batch(6))
    part = Latent(whole.z[:3], D.Independent(D.Normal(*(t[:3] for t in parameters(whole))), 1), whole.p)
    off = aggregate_densities(part, 6).joint - enumerated(part, whole)[0]
    assert float(off.detach().abs().max()) > 0.05


@pytest.mark.parametrize(("rows", "n"), [(1, 1), (1, 50), (2, 50), (7, 50), (50, 50), (8, 5), (3, 1)])
def test_the_weights_stand_on_the_diagonal_and_sum_to_one(rows, n):
    w = stratified_log_weights(rows, n, torch.zeros(1).double()).exp()
    torch.testing.assert_close(w.sum(1), torch.ones(rows).double(), rtol=1e-14, atol=0)
    if rows > 1:
        torch.testing.assert_close(w.diagonal(), torch.full((rows,), 1 / n).double())
        others = w[~torch.eye(rows, dtype=torch.bool)]
        torch.testing.assert_close(others, torch.full_like(others, (n - 1) / (n * (rows - 1))))


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0, 100.0])
def test_the_information_is_at_most_log_n_and_reaches_it_where_posteriors_are_apart(spread):
    n = 9
    g = torch.Generator().manual_seed(1)
    model = table(spread * torch.randn(n, 4, generator=g).double(), torch.full((1, 1), 0.5))
    for seed in range(5):
        information = split_rate(latent_of(model, batch(n, seed=seed)), n).information
        assert bool((information <= math.log(n) + 1e-12).all())  # at every draw: q(z) >= q(z | x) / N
        if spread == 100.0:
            torch.testing.assert_close(information, torch.full((n,), math.log(n)).double())
        if spread == 0.0:
            torch.testing.assert_close(information, torch.zeros(n).double(), rtol=0, atol=1e-12)


def test_a_factorised_aggregate_posterior_has_no_total_correlation():
    """Data on a grid a x b x c, each dimension of q by its own coordinate: q(z) is a product, at every z."""
    levels = [torch.tensor(v).double() for v in ([-1.0, 0.2, 2.0], [0.5, -0.7], [0.0, 1.0, 1.5, 4.0])]
    mean = torch.cartesian_prod(*levels)
    sigma = torch.cartesian_prod(*[0.2 + 0.3 * v.abs() for v in levels])
    n = len(mean)
    split = split_rate(latent_of(table(mean, sigma), batch(n)), n)
    torch.testing.assert_close(split.correlation, torch.zeros(n).double(), rtol=0, atol=1e-12)
    assert float(split.information.detach().mean()) > 0.5


def test_the_total_correlation_equals_quadrature():
    """Three data in two dimensions, their means on a line: int q log q / (q_1 q_2) on a fine grid."""
    mean = torch.tensor([[-1.0, -0.8], [0.1, 0.3], [1.2, 0.9]]).double()
    sigma = torch.tensor([[0.4, 0.5], [0.6, 0.3], [0.5, 0.5]]).double()
    model = table(mean, sigma)
    axis = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    a = torch.stack([D.Normal(m, s).log_prob(axis[:, None]).T for m, s in zip(mean, sigma, strict=True)]).exp()
    q = torch.einsum("ix,iy->xy", a[:, 0], a[:, 1]) / 3
    product = a[:, 0].mean(0)[:, None] * a[:, 1].mean(0)[None]
    cell = float(axis[1] - axis[0]) ** 2
    assert float(q.sum() * cell) == pytest.approx(1, abs=1e-9)
    exact_tc = float((q * torch.log(q / product)).sum() * cell)
    conditional = torch.einsum("ix,iy->ixy", a[:, 0], a[:, 1])
    exact_mi = float((conditional * torch.log(conditional / q)).sum() * cell / 3)
    prior = D.Normal(0.0, 1.0).log_prob(axis).exp()
    exact_dims = sum(float((m * torch.log(m / prior)).sum()) * cell**0.5 for m in a.mean(0))
    assert exact_tc > 0.2
    k = 1500
    with torch.no_grad():
        splits = [split_rate(latent_of(model, batch(3, seed=s)), 3) for s in range(k)]
    for values, exact in zip(zip(*splits, strict=True), (exact_mi, exact_tc, exact_dims), strict=True):
        each = torch.stack(values).mean(1)  # one stratified draw of all data
        error = float(each.std()) / math.sqrt(k)
        assert abs(float(each.mean()) - exact) < 4 * error
        assert error < 0.02


def test_two_clusters_far_apart_share_one_bit():
    """Means at (m, m, m) and (-m, -m, -m): each dimension knows the cluster, so TC is (D - 1) log 2."""
    model = table(torch.tensor([[30.0] * 3, [-30.0] * 3]).double(), torch.full((1, 1), 0.5))
    split = split_rate(latent_of(model, batch(2)), 2)
    torch.testing.assert_close(split.correlation, torch.full((2,), 2 * math.log(2)).double())


@pytest.mark.parametrize(("size", "n"), [(1, 1), (1, 40), (2, 40), (5, 5), (4, 2)])
def test_the_parts_sum_to_the_sampled_rate_for_any_batch_and_prior(size, n):
    torch.manual_seed(0)
    for prior in (None, LearnedMixture(2)):
        model = random_table(5, 2)
        model.prior = prior or model.prior
        latent = latent_of(model, batch(5, range(size)))
        torch.testing.assert_close(sum(split_rate(latent, n)), latent_rate(latent, analytic=False))


def test_a_batch_of_one_has_neither_information_nor_correlation():
    """With the weight 1/N instead, TC would be off by (D - 1) log N."""
    latent = latent_of(random_table(5, 4), batch(5, [2]))
    split = split_rate(latent, 60000)
    for part in (split.information, split.correlation):
        torch.testing.assert_close(part, torch.zeros(1).double(), rtol=0, atol=1e-12)
    terms = TotalCorrelation(60000)(random_table(5, 4), batch(5, [2]), STEP)
    assert all(bool(torch.isfinite(v)) for v in (*terms.losses.values(), *terms.stats.values()))


@pytest.mark.parametrize("spread", [1.0, 1e4])
@pytest.mark.parametrize(("size", "n"), [(1, 1), (3, 1), (1, 100), (6, 6), (6, 1000)])
def test_values_and_gradients_are_finite(spread, size, n):
    model = random_table(6, 3, spread=spread)
    terms = TotalCorrelation(n)(model, batch(6, range(size)), STEP)
    found = torch.autograd.grad(terms.losses["model"], list(model.parameters()))
    assert all(bool(torch.isfinite(t).all()) for t in (*found, *terms.losses.values(), *terms.stats.values()))


def test_the_loss_weighs_the_parts_and_the_record_does_not():
    n = 8
    model, b = random_table(n, 3), lambda: batch(n, range(5), seed=4)
    loss, stats = TotalCorrelation(n, 0.5, 7.0, Linear(2.0, 10))(model, b(), torch.tensor(5))
    assert set(stats) == {"elbo", "rate", "distortion", "information", "correlation", "dimension_kl"}
    wanted = stats["distortion"] + 0.5 * stats["information"] + 7 * stats["correlation"] + stats["dimension_kl"]
    torch.testing.assert_close(loss["model"], wanted)
    plain = ELBO()(model, b(), STEP).stats
    for name, value in plain.items():
        torch.testing.assert_close(stats[name], value)
    all_one = TotalCorrelation(n, 1, 1, 1)(model, b(), STEP).losses["model"]
    torch.testing.assert_close(all_one, ELBO(analytic=False)(model, b(), STEP).losses["model"])


def test_the_penalty_falls_by_following_its_gradient_and_the_total_correlation_with_it():
    """All mass starts on one line; the enumerated total correlation must decrease."""
    mean = torch.linspace(-2, 2, 10, dtype=torch.float64)[:, None].expand(10, 2)
    model = table(mean, torch.full((1, 1), 0.3))
    objective = TotalCorrelation(10, 0.0, 1.0, 0.0)
    optimiser = torch.optim.Adam(model.posterior.parameters(), 0.03)

    def exact():
        with torch.no_grad():
            drawn = [split_rate(latent_of(model, batch(10, seed=s)), 10).correlation for s in range(1000, 1200)]
        return float(torch.stack(drawn).mean())

    before = exact()
    for t in range(150):
        b = batch(10, torch.randperm(10, generator=torch.Generator().manual_seed(t))[:5], seed=t)
        optimiser.zero_grad()
        parts = objective(model, b, STEP)
        parts.stats["correlation"].backward()
        optimiser.step()
    assert before > 0.8
    assert exact() < 0.6 * before


def test_the_loss_reaches_the_model():
    model = random_table(6, 2)
    loss = TotalCorrelation(6)(model, batch(6), STEP).losses["model"]
    assert gradients(loss, model.posterior) > 0
    assert gradients(loss, model.likelihood) > 0


def test_posteriors_without_a_closed_form_kl():
    torch.manual_seed(0)
    n = 6
    model = student(n, 2)
    stats = TotalCorrelation(n)(model, batch(n), STEP).stats
    torch.testing.assert_close(
        stats["information"] + stats["correlation"] + stats["dimension_kl"], stats["rate"]
    )  # the same draw
    assert float(stats["information"].detach()) <= math.log(n)


def test_what_cannot_work_is_refused_with_what_to_write():
    objective = TotalCorrelation(6)
    objective.check(random_table(6, 2))
    objective.check(student(6, 2))
    with pytest.raises(ChoiceError, match=r"one latent layer.*TopDown.*ELBO, with beta"):
        objective.check(ladder(6, 2))
    with pytest.raises(ChoiceError, match=r"deterministic.*WAE or Adversarial"):
        objective.check(deterministic(6, 2))
    model = correlated(6, 2)
    objective.check(model)  # a module of one's own says only by its distribution what it is
    with pytest.raises(ChoiceError, match=r"MultivariateNormal.*FactorVAE"):
        objective(model, batch(6), STEP)
    with pytest.raises(ValueError, match="n, the number of training data"):
        TotalCorrelation(0)
    for name in ("alpha", "beta", "gamma"):
        with pytest.raises(ValueError, match=f"{name}` must be 0 or more"):
            TotalCorrelation(6, **{name: -1.0})


@pytest.mark.parametrize(
    ("head", "prior"),
    [
        (FullCovariance((2,)), None),
        (IAF((2,), hidden=(8,), context=4), None),
        (Sphere((2,)), UniformSphere((2,))),
    ],
)
def test_a_head_of_another_kind_is_refused_before_any_data(head, prior):
    model = with_head(head, 6, prior)
    with pytest.raises(ChoiceError, match=r"every latent dimension.*FactorVAE"):
        TotalCorrelation(6).check(model)
    with pytest.raises(ChoiceError, match=r"every latent dimension"):
        TotalCorrelation(6)(model, batch(6), STEP)


def test_what_factorises():
    assert factorises(D.Independent(D.Normal(torch.zeros(3, 2), 1.0), 1))
    assert not factorises(D.Independent(D.Normal(torch.zeros(3), 1.0), 0).base_dist)
    assert not factorises(D.MultivariateNormal(torch.zeros(3, 2), torch.eye(2)))
    assert not factorises(D.Independent(D.MultivariateNormal(torch.zeros(3, 4, 2), torch.eye(2)), 1))


def test_latents_of_more_than_one_axis_are_dimensions_all_the_same():
    n = 5
    flat = latent_of(random_table(n, 6), batch(n))
    loc, scale = (t.reshape(n, 2, 3) for t in parameters(flat))
    prior = D.Independent(D.Normal(torch.zeros(2, 3).double(), 1.0), 2)
    shaped = Latent(flat.z.reshape(n, 2, 3), D.Independent(D.Normal(loc, scale), 2), prior)
    for a, b in zip(split_rate(flat, n), split_rate(shaped, n), strict=True):
        torch.testing.assert_close(a, b)


def test_the_step_is_one_graph(monkeypatch):
    captured(monkeypatch)
    assert_compiled_equals_eager(random_table(6, 2).float(), TotalCorrelation(100), torch.eye(6)[:5])
