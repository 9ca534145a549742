"""Mixed tables, counts and missing values: densities against sums and integrals, NaN kept out, codes kept in a run."""

import csv
import itertools
import json
import math

import numpy as np
import pytest
import torch
from core_helpers import QUIET, LinearGaussian, model_of, needs_compiler
from torch import distributions as D
from torch import nn

import vaekit as vk
from vaekit import heads, networks
from vaekit.cli import main, sources
from vaekit.data import from_arrays, load
from vaekit.data.core import Column
from vaekit.data.observation import (
    Binary,
    Centred,
    Counts,
    FrozenDraw,
    Grey,
    Identity,
    MixedTable,
    Standardised,
    Threshold,
    moments,
)
from vaekit.densities import draw
from vaekit.densities.mixed import Mixed
from vaekit.errors import ChoiceError, DataError
from vaekit.heads import Conditional
from vaekit.heads.mixed import ManyCategoriesHead, Masked, MixedHead
from vaekit.latents.fill import impute, impute_rows
from vaekit.metrics.likelihood import per_datum
from vaekit.models.priors import StandardNormal
from vaekit.models.vae import VAE
from vaekit.networks.tables import Log1p, OneHot, WithMask
from vaekit.noise import Noise
from vaekit.objectives import ELBO, Batch
from vaekit.recipes.composition import Composition, DataSpec, check_support
from vaekit.recipes.inputs import adapt_inputs, is_mixed
from vaekit.training.prepare import prepare
from vaekit.utils.recording import record

NAN = math.nan
COLUMNS = (
    Column("city", "categorical", ("Bern", "Lyon", "Rome")),
    Column("age", "real"),
    Column("visits", "counts"),
    Column("sex", "binary", ("f", "m")),
)
MANY = (
    Column("a", "categorical", ("p", "q")),
    Column("b", "real"),
    Column("c", "categorical", tuple("tuvwx")),
    Column("d", "binary"),
    Column("e", "categorical", ("i", "j", "k")),
    Column("f", "real"),
)


def raw_of(head, n=1, seed=0, dtype=torch.float64):
    return torch.randn(n, head.features, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rows_of(columns, n, seed=0, dtype=torch.float64):
    """Rows (n, D) that such a table may hold."""
    rng = np.random.default_rng(seed)
    top = {"binary": 2}
    made = [
        rng.normal(size=n) if c.kind == "real" else rng.poisson(4, n) if c.kind == "counts"
        else rng.integers(0, top.get(c.kind) or c.width, n)
        for c in columns
    ]  # fmt: skip
    return torch.tensor(np.stack(made, 1), dtype=dtype)


def holed(x, share=0.3, seed=1):
    there = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) > share
    return torch.where(there, x, NAN)


# --- the density of a mixed row ---------------------------------------------------------------------------------


def test_a_mixed_density_integrates_and_sums_to_one():
    head = MixedHead(COLUMNS).double()
    assert head.features == 3 + 1 + 1 + 1
    px = head(raw_of(head))
    real = torch.linspace(-40, 40, 1601, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for city, sex in itertools.product(range(3), range(2)):
        age, visits = torch.meshgrid(real, torch.arange(300, dtype=torch.float64), indexing="ij")
        x = torch.stack([torch.full_like(age, city), age, visits, torch.full_like(age, sex)], -1).flatten(0, 1)
        total += torch.exp(px.log_prob(x)).sum() * (real[1] - real[0])
    # the trapezoid rule on a Gaussian is exact to rounding; a tail of counts beyond 300 of a mean below 20 remains
    assert float(total.detach()) == pytest.approx(1, abs=1e-6)


def test_each_column_has_its_own_density_whatever_their_order():
    x = rows_of(MANY, 7)
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 0, 4, 2, 1]):
        columns = [MANY[i] for i in order]
        head = MixedHead(columns).double()
        nn.init.normal_(head.groups["real"].log_scale)
        raw = raw_of(head, 7)
        px = head(raw)
        assert (px.batch_shape, px.event_shape) == ((7,), (6,))
        reals = [i for i, c in enumerate(columns) if c.kind == "real"]
        mean = raw[:, :2]
        raw_scale = head.groups["real"].log_scale
        sigma = torch.exp(heads.LOG_SCALE_FLOOR + nn.functional.softplus(raw_scale - heads.LOG_SCALE_FLOOR))
        expected = torch.zeros(7, 6, dtype=torch.float64)
        expected[:, reals] = D.Normal(mean, sigma).log_prob(x[:, order][:, reals])
        (binary,) = [i for i, c in enumerate(columns) if c.kind == "binary"]
        expected[:, binary] = D.Bernoulli(logits=raw[:, 2]).log_prob(x[:, order][:, binary])
        start = 3
        for i, column in enumerate(columns):
            if column.kind == "categorical":
                logits = raw[:, start : start + column.width]
                expected[:, i] = D.Categorical(logits=logits).log_prob(x[:, order][:, i])
                start += column.width
        assert start == head.features
        torch.testing.assert_close(px.each(x[:, order]), expected)
        torch.testing.assert_close(px.log_prob(x[:, order]), expected.sum(-1))
        torch.testing.assert_close(px.expand((3, 7)).log_prob(x[:, order]), expected.sum(-1).expand(3, 7))


def test_a_mixed_mean_is_the_expectation_and_of_categories_the_most_probable():
    head = MixedHead(COLUMNS).double()
    raw = raw_of(head, 5)
    px = head(raw)
    names = {kind: list(head.which(kind)) for kind in ("real", "binary", "categorical", "counts")}
    torch.testing.assert_close(px.mean[:, names["real"]], raw[:, :1])
    torch.testing.assert_close(px.mean[:, names["binary"]], torch.sigmoid(raw[:, 1:2]))
    assert px.mean[:, names["categorical"]][:, 0].tolist() == raw[:, 2:5].argmax(1).tolist()
    assert (px.mean[:, names["counts"]] > 0).all()
    # of a mixture: the codes 0 and 2 at 0.4 each lose to 1, which both think likely
    head = MixedHead(COLUMNS[:1]).double()
    px = head(torch.log(torch.tensor([[[0.5, 0.48, 0.02]], [[0.02, 0.48, 0.5]]], dtype=torch.float64)))
    assert px.mean[:, 0, 0].tolist() == [0, 2]
    assert px.average(torch.full((2, 1), 0.5, dtype=torch.float64)).tolist() == [[1]]


def test_mixed_draws_are_keyed_and_follow_the_density():
    head = MixedHead(COLUMNS)
    raw = raw_of(head, 1, dtype=torch.float32).expand(20_000, -1)
    px = head(raw)
    x = draw(px, Noise.of(3, 20_000))
    assert torch.equal(x, draw(px, Noise.of(3, 20_000)))
    part = draw(head(raw[:10]), Noise.of(3, torch.arange(40, 50)))
    assert torch.equal(part, x[40:50])
    assert bool(px.support.check(x).all())
    expected = px.mean[0]
    shares = torch.softmax(raw[0, head.groups["real"].features + 1 :][:3], 0)
    seen = torch.bincount(x[:, 0].long(), minlength=3) / len(x)
    # five standard errors of 20,000 draws
    torch.testing.assert_close(seen, shares, atol=5 * 0.5 / 141, rtol=0)
    for i in (1, 2, 3):
        assert float((x[:, i].mean() - expected[i]).abs()) < 5 * float(x[:, i].std()) / 141
    two = draw(px.expand((2, 20_000)), Noise.of(3, 20_000))
    assert two.shape == (2, 20_000, 4)
    assert not torch.equal(two[0], two[1])


def test_the_support_is_held_column_by_column():
    support = MixedHead(COLUMNS).support
    x = torch.tensor([[2.0, -7.5, 3.0, 1.0]])
    assert bool(support.check(x))
    for column, wrong in ((0, 3.0), (0, 0.5), (0, -1.0), (1, math.inf), (2, -1.0), (2, 1.5), (3, 2.0), (1, NAN)):
        bad = x.clone()
        bad[0, column] = wrong
        assert not bool(support.check(bad)), (column, wrong)
    assert not support.is_discrete
    assert MixedHead([COLUMNS[0], COLUMNS[3]]).discrete


def test_the_starting_bias_is_the_best_constant_density():
    x = rows_of(MANY, 4000)
    head = MixedHead(MANY).double()
    bias = head.bias_of(x)
    px = head(bias)
    for i, column in enumerate(MANY):
        if column.kind == "categorical":
            codes = torch.arange(column.width, dtype=x.dtype)
            probe = px.mean.expand(column.width, -1).clone()
            probe[:, i] = codes
            shares = torch.exp(px.expand((column.width,)).each(probe)[:, i])
            # one more of each category than seen
            expected = (torch.bincount(x[:, i].long(), minlength=column.width) + 1) / (4000 + column.width)
            torch.testing.assert_close(shares, expected.double())
        else:
            assert float(px.mean[i]) == pytest.approx(float(x[:, i].mean()), abs=1e-6)
    gaps = holed(x, 0.5)
    torch.testing.assert_close(Masked(head).bias_of(gaps), bias, atol=0.2, rtol=0.2)
    assert bool(torch.isfinite(Masked(head).bias_of(torch.full_like(x, NAN))).all())
    plain = heads.Bernoulli((6,))
    torch.testing.assert_close(plain.bias_of((x > 0).double()), plain.initial_bias((x > 0).double().mean(0), x.std(0)))


# --- missing values in the likelihood ---------------------------------------------------------------------------


def test_masked_gaussian_is_the_marginal():
    head = heads.Gaussian((5,), "learned").double()
    masked = Masked(head)
    assert masked.features == head.features == 10
    raw = raw_of(head, 32)
    whole = head(raw)
    x = torch.randn(32, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(masked(raw).log_prob(x), whole.log_prob(x))
    gaps = holed(x, 0.5)
    for i, row in enumerate(gaps):
        there = (~torch.isnan(row)).nonzero()[:, 0]
        mean, covariance = whole.mean[i, there], torch.diag(whole.variance[i, there])
        expected = D.MultivariateNormal(mean, covariance).log_prob(row[there]) if len(there) else torch.zeros(())
        assert float(masked(raw).log_prob(gaps)[i]) == pytest.approx(float(expected), rel=1e-9, abs=1e-12)
    nothing = masked(raw).log_prob(torch.full_like(x, NAN))
    assert torch.equal(nothing, torch.zeros(32, dtype=torch.float64))
    torch.testing.assert_close(masked(raw).mean, whole.mean)
    assert torch.equal(draw(masked(raw), Noise.of(0, 32)), draw(whole, Noise.of(0, 32)))
    assert bool(masked(raw).support.check(gaps).all())


@pytest.mark.parametrize(
    ("head", "x"),
    [
        (heads.Bernoulli((1, 4, 3)), torch.ones(2, 1, 4, 3)),
        (heads.ContinuousBernoulliHead((1, 4, 3)), torch.full((2, 1, 4, 3), 0.25)),
        (heads.BetaHead((1, 4, 3)), torch.full((2, 1, 4, 3), 0.25)),
        (heads.DiscretisedLogisticHead((3, 2, 2)), torch.full((2, 3, 2, 2), 7.0)),
        (heads.CategoricalHead((3, 2, 2), 9), torch.full((2, 3, 2, 2), 7.0)),
        (heads.LaplaceHead((6,)), torch.full((2, 6), -1.5)),
        (heads.StudentTHead((6,)), torch.full((2, 6), -1.5)),
        (heads.PoissonHead((6,)), torch.full((2, 6), 3.0)),
        (heads.NegativeBinomialHead((6,)), torch.full((2, 6), 3.0)),
        (heads.ZeroInflatedNegativeBinomialHead((6,)), torch.full((2, 6), 3.0)),
        (MixedHead(COLUMNS), torch.tensor([[2.0, -7.5, 3.0, 1.0]] * 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_masked_parts_add_up_and_no_nan_reaches_a_gradient(head, x):
    """For every head that factorises, observed and missing elements add up to the whole, in value and gradient."""
    masked = Masked(head)
    raw = raw_of(head, 2, dtype=torch.float32).requires_grad_()
    there = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) > 0.4
    a = masked(raw).log_prob(torch.where(there, x, NAN))
    b = masked(raw).log_prob(torch.where(there, NAN, x))
    whole = head(raw).log_prob(x)
    torch.testing.assert_close(a + b, whole, rtol=1e-5, atol=1e-5)
    (one,) = torch.autograd.grad(a.sum(), raw, retain_graph=True)
    (two,) = torch.autograd.grad(b.sum(), raw, retain_graph=True)
    (both,) = torch.autograd.grad(whole.sum(), raw)
    assert bool(torch.isfinite(one).all())
    assert bool(torch.isfinite(two).all())
    torch.testing.assert_close(one + two, both, rtol=1e-4, atol=1e-5)


def test_heads_that_do_not_factorise_are_refused():
    for head in (heads.LogisticMixtureHead((3, 4, 4)), heads.Gaussian((6,), "optimal")):
        before = {name: t.clone() for name, t in head.state_dict().items()}
        with pytest.raises(ChoiceError, match=f"{type(head).__name__} does not factorise"):
            Masked(head)
        assert all(torch.equal(before[name], t) for name, t in head.state_dict().items())
        assert head.training


class PriorAsPosterior(nn.Module):
    """q(z | x) = N(0, I) whatever x: importance weights are then likelihoods alone, of the observed elements."""

    def __init__(self, latent):
        super().__init__()
        self.latent = latent

    def forward(self, x):
        zeros = torch.zeros(len(x), self.latent, dtype=x.dtype)
        return D.Independent(D.Normal(zeros, 1.0, validate_args=False), 1, validate_args=False)


def incomplete_gaussian():
    """A linear-Gaussian model with a masked likelihood, and rows with 1 to 4 of 5 values missing."""
    exact = LinearGaussian(sigma=0.7)
    model = VAE(
        StandardNormal((2,)),
        PriorAsPosterior(2),
        Conditional(exact.model.likelihood.net, Masked(exact.model.likelihood.head)),
    ).double()
    x = exact.data(4)
    for row in range(4):
        x[row, : row + 1] = NAN
    return exact, model, x


def test_scores_of_incomplete_data_are_exact_marginals():
    exact, model, x = incomplete_gaussian()
    composition = Composition(model.float(), ELBO(), Identity().masked((5,)))
    spec = DataSpec("vector", (5,), 4, (-9.0, 9.0), False, missing=True)
    run = model_of(composition, (5,))
    run.spec = spec
    found = per_datum(run, run.observed(x.numpy()), 200_000)
    covariance = exact.W @ exact.W.T + exact.sigma**2 * torch.eye(5, dtype=torch.float64)
    for row in range(4):
        there = list(range(row + 1, 5))
        p = D.MultivariateNormal(exact.b[there], covariance[there][:, there])
        # the log of a mean of weights with effective sample size s is off by some 1 / sqrt(s)
        assert found.log_px[row] == pytest.approx(float(p.log_prob(x[row, there])), abs=5 / math.sqrt(found.ess[row]))


def test_filling_in_tends_to_the_conditional_expectation():
    exact, model, x = incomplete_gaussian()
    covariance = exact.W @ exact.W.T + exact.sigma**2 * torch.eye(5, dtype=torch.float64)
    filled = impute(model, x, samples=200_000, noise=Noise.of(0, 4))
    for row in range(4):
        lost, there = list(range(row + 1)), list(range(row + 1, 5))
        regression = covariance[lost][:, there] @ torch.linalg.inv(covariance[there][:, there])
        expected = exact.b[lost] + regression @ (x[row, there] - exact.b[there])
        # weights of effective sample size above 2,000 on numbers of deviation below 2
        torch.testing.assert_close(filled[row, lost], expected, atol=0.2, rtol=0)
        assert torch.equal(filled[row, there], x[row, there])
    at_code = impute(model, x)
    torch.testing.assert_close(at_code[torch.isnan(x)], exact.b.expand(4, 5)[torch.isnan(x)])


# --- what the encoder sees --------------------------------------------------------------------------------------


def test_one_hot_and_mask():
    seen = {}

    class Spy(nn.Module):
        def forward(self, x, *given):
            seen["x"], seen["given"] = x, given
            return x

    x = torch.tensor([[2.0, -7.5, 3.0, 1.0], [NAN, 0.5, NAN, NAN]])
    plain = OneHot(Spy(), COLUMNS)
    assert plain(x).shape == (2, plain.width) == (2, 6)
    torch.testing.assert_close(seen["x"][0], torch.tensor([-7.5, 1.0, math.log(4), 0, 0, 1]))
    assert torch.isnan(seen["x"][1]).tolist() == [False, True, True, True, True, True]
    assert len(plain.firsts) == len(COLUMNS)
    given = torch.ones(2, 3)
    both = OneHot(WithMask(Spy(), 1, plain.firsts), COLUMNS)(x, given)
    assert both.shape == (2, 6 + 4)
    torch.testing.assert_close(both[0], torch.tensor([-7.5, 1.0, math.log(4), 0, 0, 1, 1, 1, 1, 1]))
    torch.testing.assert_close(both[1], torch.tensor([0.5, 0, 0, 0, 0, 0, 1, 0, 0, 0]))
    assert seen["given"][0] is given
    picture = torch.rand(2, 3, 4, 5)
    picture[0, 1, 2, 3] = NAN
    shown = WithMask(Spy(), 3)(picture)
    assert shown.shape == (2, 6, 4, 5)
    assert (float(shown[0, 1, 2, 3]), float(shown[0, 4, 2, 3]), float(shown[1, 4, 2, 3])) == (0, 0, 1)
    logs = Log1p(Spy())(torch.tensor([[0.0, 99.0, -1.0, NAN]]))
    torch.testing.assert_close(logs, torch.tensor([[0.0, math.log(100), 0.0, NAN]]), equal_nan=True)


def facts_of(columns=(), missing=False, kind="vector", shape=None):
    shape = shape or (len(columns),)
    return DataSpec(kind, shape, 100, (0.0, 9.0), False, columns=tuple(columns), missing=missing)


def test_dress_leaves_plain_data_alone():
    seen, head, net = Standardised((4,)), heads.Gaussian((4,)), nn.Identity()
    for spec in (facts_of(shape=(4,)), facts_of([Column(n, "real") for n in "abcd"])):
        dressed = adapt_inputs(spec, seen, head)
        assert dressed[:3] == (seen, head, (4,))
        assert dressed.wrap(net) is net
        assert not is_mixed(spec)
    assert is_mixed(facts_of(COLUMNS))
    assert not is_mixed(facts_of([Column("a", "counts")], kind="counts"))
    counts = adapt_inputs(facts_of(kind="counts", shape=(4,)), Counts(), heads.PoissonHead((4,)))
    assert isinstance(counts.wrap(net), Log1p)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(
    ("observation", "head", "shape"),
    [
        (MixedTable(MANY), MixedHead(MANY), (6,)),
        (Standardised((6,)), heads.Gaussian((6,)), (6,)),
        (Counts(), heads.NegativeBinomialHead((6,)), (6,)),
        (Grey(0, 1), heads.ContinuousBernoulliHead((2, 4, 3)), (2, 4, 3)),
    ],
)
def test_no_nan_reaches_a_gradient_of_a_whole_model(observation, head, shape, missing):
    columns = MANY if isinstance(observation, MixedTable) else ()
    kind = "counts" if isinstance(observation, Counts) else "image" if len(shape) == 3 else "vector"
    seen, head, event, wrap = adapt_inputs(facts_of(columns, missing, kind, shape), observation, head)
    torch.manual_seed(0)
    encoder = wrap(networks.MLP(event, 2 * 3, (8,)))
    model = VAE(
        StandardNormal((3,)),
        Conditional(encoder, heads.Gaussian((3,))),
        Conditional(networks.MLP((3,), head.features, (8,)), head),
    )
    raw = (
        rows_of(MANY, 40, dtype=torch.float32) if columns else torch.rand(40, *shape).mul(9 if kind == "counts" else 1)
    )
    raw = raw.floor() if kind == "counts" else raw
    raw = holed(raw) if missing else raw
    if missing:
        raw[0] = NAN
    seen.fit(lambda: [raw])
    x = seen(raw)
    assert torch.equal(torch.isnan(x), torch.isnan(raw))
    terms = ELBO()(model, Batch(x, Noise.of(0, 40)), torch.tensor(0))
    (loss,) = terms.losses.values()
    loss.backward()
    assert bool(torch.isfinite(loss))
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert bool(torch.isfinite(p.grad).all()), name
    check_support(Composition(model, ELBO(), seen))


# --- observations -----------------------------------------------------------------------------------------------


def test_moments_skip_what_is_missing():
    x = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[:20, 0], x[:, 2] = NAN, NAN
    mean, variance = moments(lambda: x.split(7))
    torch.testing.assert_close(mean[:2], torch.stack([x[20:, 0].mean(), x[:, 1].mean()]))
    torch.testing.assert_close(variance[0], x[20:, 0].var(correction=0))
    assert (float(mean[2]), float(variance[2])) == (0, 0)


@pytest.mark.parametrize("make", [lambda: Standardised((3,)), lambda: Centred((3,)), lambda: Grey(0, 5)])
def test_the_jacobian_of_incomplete_data_counts_what_is_there(make):
    raw = holed(torch.rand(200, 3, dtype=torch.float64) * torch.tensor([1.0, 2.0, 5.0]), 0.4)
    seen = make().masked((3,))
    seen.fit(lambda: raw.split(60))
    x = seen(raw)
    each = seen.log_units((3,))
    expected = torch.stack([each[~torch.isnan(row)].sum() for row in raw])
    torch.testing.assert_close(seen.log_jacobian_of(x), expected)
    assert seen.log_jacobian((3,)) == pytest.approx(float(expected.mean()), abs=1e-5)
    assert make().log_jacobian((3,)) == pytest.approx(float(make().log_units((3,)).sum()))
    there = ~torch.isnan(raw)
    torch.testing.assert_close(seen.to_raw(x)[there].double(), raw[there], atol=1e-5, rtol=1e-5)


def test_a_mixed_table_standardises_its_real_columns_only():
    raw = rows_of(MANY, 300) * torch.tensor([1, 5.0, 1, 1, 1, 0.1], dtype=torch.float64)
    seen = MixedTable(MANY)
    seen.fit(lambda: raw.split(100))
    x = seen(raw)
    codes = [0, 2, 3, 4]
    assert torch.equal(x[:, codes].double(), raw[:, codes])
    assert float(x[:, 1].std(correction=0)) == pytest.approx(1, abs=1e-5)
    assert seen.log_jacobian((6,)) == pytest.approx(
        -float(torch.log(raw[:, [1, 5]].std(0, correction=0)).sum()), abs=1e-5
    )
    torch.testing.assert_close(seen.to_raw(x).double(), raw, atol=1e-4, rtol=1e-5)
    seen.check(raw.numpy())
    wrong = raw.numpy().copy()
    wrong[7, 4] = 3
    with pytest.raises(DataError, match=r"row 7, column 'e' is 3, expected a code 0\.\.2 of i, j, k"):
        seen.check(wrong)


def test_counts_are_whole_numbers():
    seen = Counts()
    raw = np.array([[0, 3, 2973]])
    assert seen(torch.from_numpy(raw)).tolist() == raw.tolist()
    assert seen.log_jacobian((3,)) == 0
    seen.check(raw)
    seen.check(np.array([[0.0, NAN]]))
    for wrong in (-1.0, 0.5, math.inf):
        with pytest.raises(DataError, match=r"counts must be whole numbers from 0 up, got .* in row 1"):
            seen.check(np.array([[1.0], [wrong]]))


def test_binary_pixels_that_are_missing_stay_so():
    raw = np.random.default_rng(0).random((30, 1, 4, 3)).astype(np.float32)
    raw[3, 0, 1, 2] = raw[7] = NAN
    gone = np.isnan(raw)
    for seen in (Binary(0, 1), Threshold(0, 1)):
        x = seen(torch.from_numpy(raw), Noise.of(0, 30)).numpy()
        np.testing.assert_array_equal(np.isnan(x), gone)
        assert set(np.unique(x[~gone])) == {0, 1}
    filled = np.where(gone, 0, raw)
    drawn = FrozenDraw(Binary(0, 1), lambda a, b: raw[a:b], sizes=(30,)).rows(0, np.arange(30), (1, 4, 3))
    whole = FrozenDraw(Binary(0, 1), lambda a, b: filled[a:b], sizes=(30,)).rows(0, np.arange(30), (1, 4, 3))
    np.testing.assert_array_equal(np.isnan(drawn), gone)
    np.testing.assert_array_equal(drawn[~gone], whole[~gone])
    assert whole.dtype == np.uint8


def test_support_must_agree():
    def composition(head, seen):
        net = networks.MLP((2,), head.features, ())
        posterior = Conditional(networks.MLP(head.event, 4, ()), heads.Gaussian((2,)))
        return Composition(VAE(StandardNormal((2,)), posterior, Conditional(net, head)), ELBO(), seen)

    check_support(composition(MixedHead(COLUMNS), MixedTable(COLUMNS)))
    check_support(composition(Masked(MixedHead(COLUMNS)), MixedTable(COLUMNS)))
    check_support(composition(heads.PoissonHead((4,)), Counts()))
    with pytest.raises(ChoiceError, match="support 'mixed'"):
        check_support(composition(MixedHead(COLUMNS), Standardised((4,))))
    with pytest.raises(ChoiceError, match=r"support 'counts'.*`observation='counts'`"):
        check_support(composition(heads.PoissonHead((4,)), Standardised((4,))))


# --- from the file to the likelihood ----------------------------------------------------------------------------


def table(path, n=120, seed=0, holes=0.0, cities=("Bern", "Lyon", "Rome"), extra=None):
    """A table with dependent columns; `cities` are written in the given order, `extra` in row 0."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, n)
    rows = [
        [
            cities[k],
            f"{k + 0.1 * rng.normal():.4f}",
            str(rng.poisson(2 + 5 * k)),
            "fm"[int(rng.random() < 0.3 + 0.2 * k)],
        ]
        for k in kind
    ]
    if extra is not None:
        rows[0][0] = extra
    rows = [["" if rng.random() < holes else cell for cell in row] for row in rows]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["city", "age", "visits", "sex"], *rows])
    return path


def composition_for(data):
    spec = DataSpec.of(data)
    torch.manual_seed(0)
    seen, head, event, wrap = adapt_inputs(spec, MixedTable(spec.columns), MixedHead(spec.columns))
    posterior = Conditional(wrap(networks.MLP(event, 2 * 2, (16,))), heads.Gaussian((2,)))
    model = VAE(StandardNormal((2,)), posterior, Conditional(networks.MLP((2,), head.features, (16,)), head))

    def start(composition, x):
        networks.set_output_bias(model.likelihood.net, head.bias_of(x))

    return Composition(model, ELBO(), seen, start=start)


@pytest.mark.parametrize("missing", ["refuse", "mask"])
def test_a_table_from_the_file_to_the_score(tmp_path, missing):
    path = table(tmp_path / "a.csv", holes=0.2 if missing == "mask" else 0.0)
    data = load(path, types="visits=counts", missing=missing)
    assert [c.kind for c in data.schema] == ["categorical", "real", "counts", "binary"]
    composition = composition_for(data)
    run = vk.fit(data, composition, out=tmp_path / "run", steps=60, batch=32, lr=1e-2, **QUIET)
    run = vk.open(tmp_path / "run", model=composition)  # which finds its data again
    assert run.spec == DataSpec.of(data)
    found = {m["name"]: m["value"] for m in run.evaluate(samples=20)}
    assert np.isfinite(found["log_px_iw"])
    valid = [r for r in run.log if r["kind"] == "valid"][-1]
    assert np.isfinite(valid["elbo"])
    assert run.sample(3).shape == (3, 4)
    assert np.isfinite(run.sample(3, noise=True)).all()

    # other rows: their categories in another order, and of fewer rows than categories
    swapped = tmp_path / "b.csv"
    swapped.write_text("sex,visits,city,age\nm,3,Rome,1.5\nf,0,Bern,0\n")
    rows = sources.new_data(run, str(swapped))
    np.testing.assert_allclose(rows.x, [[2, 1.5, 3, 1], [0, 0, 0, 0]])
    assert np.isfinite(run.score(rows.x, samples=5)).all()

    strange = table(tmp_path / "c.csv", 30, seed=3, extra="Oslo")
    if missing == "refuse":
        with pytest.raises(DataError, match="row 0, column 'city' is 'Oslo', expected one of Bern, Lyon, Rome"):
            sources.new_data(run, str(strange))
        lacking = table(tmp_path / "d.csv", 30, seed=3, holes=0.3)
        with pytest.raises(DataError, match=r"row .*column .* is nan.*`missing='mask'`"):
            run.score(sources.new_data(run, str(lacking)).x)
    else:
        x = sources.new_data(run, str(strange)).x
        assert np.isnan(x[0, 0])
        assert not np.isnan(x[1:]).any()
        filled = impute_rows(run, x)
        assert filled[0, 0] in (0, 1, 2)
        np.testing.assert_array_equal(filled[1:], x[1:].astype(filled.dtype))
        assert np.isfinite(run.score(x, samples=5)).all()
        assert impute_rows(run, x, samples=20)[0, 0] in (0, 1, 2)
    with pytest.raises(DataError, match=r"column 'city' is 7, expected a code 0\.\.2"):
        run.score(np.array([[7.0, 0, 0, 0]]))
    without = tmp_path / "e.csv"
    without.write_text("age,visits,sex\n1,2,f\n")
    with pytest.raises(DataError, match="has no column 'city'"):
        sources.new_data(run, str(without))


def test_a_two_valued_column_keeps_the_codes_of_the_run(tmp_path):
    """A regression test: a later table with only "m", or with "m" and "x", was coded by its own categories."""
    path = table(tmp_path / "a.csv")
    run = vk.fit(load(path), composition_for(load(path)), out=tmp_path / "run", steps=1, **QUIET)
    for cells, codes in ((["m", "m"], [1, 1]), (["m", "f"], [1, 0]), (["f"], [0])):
        other = tmp_path / "b.csv"
        other.write_text("city,age,visits,sex\n" + "".join(f"Rome,0.5,3,{cell}\n" for cell in cells))
        assert sources.new_data(run, str(other)).x[:, 3].tolist() == codes
    other.write_text("city,age,visits,sex\nRome,0.5,3,m\nRome,0.5,3,x\n")
    with pytest.raises(DataError, match="row 1, column 'sex' is 'x', expected one of f, m"):
        sources.new_data(run, str(other))


def test_facts_survive_json_and_old_ones_open(tmp_path):
    data = load(table(tmp_path / "a.csv", holes=0.1), types={"visits": "counts"}, missing="mask")
    spec = DataSpec.of(data)
    assert spec.missing
    assert spec.columns == data.schema
    assert DataSpec.from_json(json.loads(json.dumps(spec.as_json()))) == spec
    old = {"kind": "vector", "shape": [4], "n": 96, "scale": [0.0, 9.0], "integer": False}
    assert DataSpec.from_json(old) == DataSpec("vector", (4,), 96, (0.0, 9.0), False)


def test_training_on_incomplete_images(tmp_path):
    rng = np.random.default_rng(0)
    x = np.clip(rng.random((60, 1)) * np.ones((60, 16)) + 0.1 * rng.normal(size=(60, 16)), 0, 1).astype(np.float32)
    x = np.where(rng.random(x.shape) < 0.2, np.float32(NAN), x).reshape(60, 4, 4)
    with pytest.raises(DataError, match=r"is nan.*`missing='mask'`"):
        from_arrays(x)
    data = from_arrays(x, missing="mask")
    spec = DataSpec.of(data)
    assert (spec.kind, spec.shape, spec.missing, spec.scale) == ("image", (1, 4, 4), True, (0.0, 1.0))
    torch.manual_seed(0)
    seen, head, event, wrap = adapt_inputs(spec, Binary(0, 1), heads.Bernoulli((1, 4, 4)))
    assert event == (2, 4, 4)
    posterior = Conditional(wrap(networks.MLP(event, 4, (16,))), heads.Gaussian((2,)))
    model = VAE(StandardNormal((2,)), posterior, Conditional(networks.MLP((2,), head.features, (16,)), head))
    run = vk.fit(data, Composition(model, ELBO(), seen), out=tmp_path / "run", steps=40, batch=20, **QUIET)
    measured = {m["name"]: m["value"] for m in run.evaluate(samples=10)}
    assert measured["elbo"] <= -measured["entropy_floor"] + 1
    assert "bits_per_dim" not in measured
    gaps = data.test[:]
    filled = impute_rows(run, gaps)
    assert np.isfinite(filled).all()
    there = ~np.isnan(gaps[:, None])
    np.testing.assert_array_equal(filled[there], gaps[:, None][there])


def test_a_step_is_a_fixed_list_of_operations(tmp_path):
    """Such a step compiles quickly; see `utils.recording`."""
    data = load(table(tmp_path / "a.csv", holes=0.2), types="visits=counts", missing="mask")
    composition = composition_for(data)
    prepare(data, composition, 0)
    raw, noise = torch.from_numpy(data.train[:20]), Noise.of(0, 20)

    def loss(raw):
        batch = Batch(composition.observation(raw), Noise(noise.base, noise.rows))
        return composition.objective(composition.model, batch, torch.zeros(())).losses["model"].detach()

    program = record(loss, (raw,))
    torch.testing.assert_close(program(raw, *program.found)[0], loss(raw))


@needs_compiler
def test_it_compiles(tmp_path):
    data = load(table(tmp_path / "a.csv", holes=0.2), types="visits=counts", missing="mask")
    composition = composition_for(data)
    options = {**QUIET, "compile": "on", "precision": "fp32"}
    run = vk.fit(data, composition, out=tmp_path / "run", steps=5, batch=32, seed=1, **options)
    plain = vk.fit(data, composition_for(data), out=tmp_path / "plain", steps=5, batch=32, seed=1, **QUIET)

    def mean(run):  # a record is the mean of the steps since the last one; a slow compilation adds a record
        records = [r for r in run.log if r["kind"] == "train"]
        steps = np.diff([0, *(r["step"] for r in records)])
        return float(np.average([r["elbo"] for r in records], weights=steps))

    assert mean(run) == pytest.approx(mean(plain), rel=1e-3)
    assert isinstance(run.model.decode(torch.zeros(1, 2)).whole, Mixed)


def test_the_command_line_reads_such_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "a.csv", holes=0.2)
    table(tmp_path / "b.csv", 20, seed=5, holes=0.2, extra="Oslo")
    small = ("--out", "run", "--steps", "5", "--compile", "off", "--hidden", "8", "--latent", "2")
    assert main(["fit", "a.csv", *small]) == 2
    told = capsys.readouterr().err
    assert "is nan" in told
    assert "--missing mask" in told
    assert not (tmp_path / "run").exists()
    assert main(["fit", "a.csv", "--missing", "mask", "--types", "visits=counts", *small]) == 0
    told = capsys.readouterr().err
    assert "categorical city (Bern, Lyon, Rome); counts visits" in told
    assert "values are missing, in 4 columns" in told
    assert main(["score", "run", "b.csv", "--samples", "3", "--out", "scores.csv"]) == 0
    with open("scores.csv") as file:
        scores = [float(row["log_px"]) for row in csv.DictReader(file)]
    assert len(scores) == 20
    assert np.isfinite(scores).all()
    run = vk.open("run")
    assert [c.kind for c in run.spec.columns] == ["categorical", "real", "counts", "binary"]
    assert np.isfinite([m["value"] for m in run.evaluate(samples=3) if isinstance(m["value"], float)]).all()


# --- many categories --------------------------------------------------------------------------------------------

WIDE = [
    Column("a", "real"),
    Column("b", "categorical", ("x", "y", "z")),
    Column("c", "categorical", tuple(map(str, range(90)))),
]


def wide_rows(n=200, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.stack(
        [torch.randn(n, generator=g), torch.randint(3, (n,), generator=g), torch.randint(90, (n,), generator=g) // 2], 1
    )


def test_many_categories_have_logits_of_low_rank():
    head = MixedHead(WIDE, most=64)
    (many,) = [h for _, h in head.shared if isinstance(h, ManyCategoriesHead)]
    assert head.features == 1 + 3 + 10
    x = wide_rows(5000)
    head.start_numbers(x)
    px = head(head.bias_of(x)[None])
    value = torch.zeros(90, 3)
    value[:, 2] = torch.arange(90)
    counts = torch.bincount(x[:, 2].long(), minlength=90) + 1
    torch.testing.assert_close(px.each(value)[:, 2].exp(), counts / counts.sum())
    h = torch.randn(4, 10)
    exact = torch.log_softmax(h @ many.directions.T + many.bias, -1)
    torch.testing.assert_close(many(h).base_dist.logits.log_softmax(-1)[:, 0], exact)
    raw = torch.randn(6, head.features, requires_grad=True)
    head(raw).log_prob(x[:6]).sum().backward()
    assert bool(raw.grad[:, 4:].any(0).all())
    drawn = draw(head(torch.zeros(4000, head.features)), Noise.of(0, 4000))[:, 2]
    assert int(drawn.max()) < 90
    assert abs(float((drawn < 45).float().mean()) - 5045 / 5090) < 0.01


def test_many_categories_are_embedded_for_the_encoder():
    net = OneHot(nn.Identity(), WIDE, 64)
    assert (net.width, net.firsts) == (1 + 3 + 10, [0, 1, 4])
    x = wide_rows(50)
    out = net(x)
    assert out.shape == (50, 14)
    assert torch.equal(out[:, 4:], net.embeddings[0].weight[x[:, 2].long()])
    assert torch.equal(out[:, :4], OneHot(nn.Identity(), WIDE)(x)[:, :4])
    x[3, 2] = NAN
    assert torch.isnan(net(x)[3, 4:]).all()
    one_hot = OneHot(WithMask(networks.MLP((17,), 2, (4,)), 1, [0, 1, 4]), WIDE, 64)
    one_hot(x).sum().backward()
    weight = one_hot.embeddings[0].weight.grad
    assert bool(torch.isfinite(weight).all())
    assert bool(weight[x[~torch.isnan(x[:, 2]), 2].long()].any())


def test_a_table_with_many_categories_is_read_and_learned(tmp_path):
    rng = np.random.default_rng(0)
    code = rng.permutation(1500) % 300
    lines = [f"{c % 2 + rng.normal():.3f},k{c:03}" for c in code]
    (tmp_path / "t.csv").write_text("x,code\n" + "\n".join(lines) + "\n")
    data = vk.load(tmp_path / "t.csv")
    assert [column.kind for column in data.schema] == ["real", "categorical"]
    assert any("has 300 categories" in note for note in data.notes)
    run = vk.fit(data, steps=5, latent=2, hidden=(16,), seed=0, out=tmp_path / "run")
    assert sum(p.numel() for p in run.model.likelihood.net.parameters()) < 1500  # no output per category
    raw = np.asarray(data.test[:50])
    np.testing.assert_array_equal(vk.open(run.path).score(raw, samples=4), run.score(raw, samples=4))
    assert set(run.sample(300, noise=True)[:, 1]) <= set(range(300))
