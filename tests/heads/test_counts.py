"""Counts of any size: their probabilities in float32 against closed forms, their range, and training on large ones."""

import math

import numpy as np
import pytest
import torch
from core_helpers import QUIET
from scipy import special, stats
from torch import nn

import vaekit as vk
from vaekit import heads
from vaekit.data.core import Column
from vaekit.densities import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from vaekit.heads.base import moments, raw_of_within, within
from vaekit.heads.mixed import MixedHead
from vaekit.recipes import DataSpec, get_recipe

WORST = {1e2: 1e-4, 1e4: 1e-4, 1e6: 2e-4, 1e8: 3e-3}
"""Nats that the docstrings promise in float32, by mean."""
RATIOS = [1e-6, 1e-3, 0.1, 1.0, 30.0, 1e4]  # of r to the mean
N = 2000


def single(value) -> np.ndarray:
    """The value rounded to float32, so that the input is exact and only the error of the arithmetic is measured."""
    return np.float64(np.float32(value))


def drawn(mean: float, r: float = math.inf) -> np.ndarray:
    g = np.random.default_rng(0)
    rate = mean * (np.ones(N) if math.isinf(r) else g.gamma(r, size=N) / r)
    return single(g.poisson(np.minimum(rate, 1e17)))


@pytest.mark.parametrize("mean", WORST)
def test_poisson_in_float32_is_scipys(mean):
    log_rate, x = single(np.log(mean)), drawn(mean)
    ours = Poisson(torch.tensor(log_rate).float()).log_prob(torch.tensor(x).float())
    np.testing.assert_allclose(ours.double(), stats.poisson(np.exp(log_rate)).logpmf(x), rtol=0, atol=WORST[mean])


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("mean", WORST)
def test_negative_binomials_in_float32_are_the_closed_form_with_its_gradient(mean, ratio):
    """d/dlog m = r (x - m) / (r + m), and d/dlog r of Stirling's form, which in float64 keeps 1e-7 of its size."""
    log_m, log_r = single(np.log(mean)), single(np.log(mean * ratio))
    m, r = np.exp(log_m), np.exp(log_r)
    x = drawn(m, r)
    raw = [torch.full((N,), v, dtype=torch.float32, requires_grad=True) for v in (log_m, log_r)]
    log_p = NegativeBinomial(*raw).log_prob(torch.tensor(x).float())
    # scipy's own error grows with r: its log-gammas of 1e6 cancel to 1e-9 of their size
    np.testing.assert_allclose(
        log_p.detach().double(), stats.nbinom(r, r / (r + m)).logpmf(x), rtol=0, atol=WORST[mean] + 1e-14 * r * 40
    )
    by_mean, by_r = (g.double().numpy() for g in torch.autograd.grad(log_p.sum(), raw))
    np.testing.assert_allclose(by_mean, r * (x - m) / (r + m), rtol=1e-4, atol=1e-7 * m + 1e-6)  # e^log m
    if r <= 1e6:
        exact = r * (special.digamma(x + r) - special.digamma(r) - np.log1p(m / r) + (m - x) / (r + m))
        np.testing.assert_allclose(by_r, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mean", WORST)
def test_a_zero_inflated_count_is_its_negative_binomial_less_its_chance(mean):
    log_m, log_r = torch.tensor(np.log(mean)).float(), torch.tensor(2.0)
    x = torch.tensor(drawn(mean, math.exp(2.0))).float().clamp_min(1)
    ours = ZeroInflatedNegativeBinomial(log_m, log_r, torch.tensor(-2.0)).log_prob(x)
    exact = NegativeBinomial(log_m.double(), log_r.double()).log_prob(x.double()) + math.log(1 / (1 + math.exp(-2)))
    np.testing.assert_allclose(ours.double(), exact, rtol=0, atol=WORST[mean])


@pytest.mark.parametrize("mean", [1e-3, 1.0, 1e3, 1e6])
def test_a_negative_binomial_of_large_r_is_poissons(mean):
    """At r = 1e5 m the two differ by (d^2 - x) / 2r nats, d = x - m: a few times 1e-5."""
    x = torch.tensor(drawn(mean)).float()
    log_mean = torch.tensor(math.log(mean))
    near = NegativeBinomial(log_mean, log_mean + math.log(1e5)).log_prob(x)
    torch.testing.assert_close(near, Poisson(log_mean).log_prob(x), rtol=1e-5, atol=2e-4)


def test_softly_bounded_numbers_are_themselves_in_between():
    raw = torch.linspace(-60, 60, 2001, dtype=torch.float64)
    formula = -12 + np.logaddexp(0, 30 - np.logaddexp(0, 30 - raw.numpy()) + 12)
    np.testing.assert_allclose(within(raw, -12, 30), formula, rtol=1e-12, atol=1e-12)
    middle = torch.linspace(8, 13, 2001)  # 17 from either end
    assert torch.equal(within(middle, -12, 30), middle)
    values = torch.linspace(-11, 29, 101, dtype=torch.float64)
    torch.testing.assert_close(within(raw_of_within(values, -12, 30), -12, 30), values)
    far = torch.tensor([-1e30, -1e4, 1e4, 1e30], requires_grad=True)
    (slope,) = torch.autograd.grad(within(far, -12, 30).sum(), far)
    assert torch.equal(within(far, -12, 30), torch.tensor([-12.0, -12.0, 30.0, 30.0]))
    assert bool(torch.isfinite(slope).all())


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    "build", [heads.PoissonHead, heads.NegativeBinomialHead, heads.ZeroInflatedNegativeBinomialHead]
)
def test_a_head_starts_at_data_of_any_size(build, scaled):
    """The bias gives back means from 1e-2 to 1e10, and the dispersion starts at the data's own."""
    mean = 10.0 ** np.arange(-2, 11, 2)
    r = np.array([0.5, 2.0, 5.0, 3.0, 1e3, 1e5, 1e5])
    g = np.random.default_rng(0)
    x = torch.tensor(g.poisson(g.gamma(r, size=(4000, 7)) * mean / r)).float()
    head = build((7,), scaled=scaled)
    head.start_numbers(x)
    _, m, variance = moments(x)
    with torch.no_grad():
        d = head(head.initial_bias(m, variance.sqrt())[None])
    np.testing.assert_allclose(d.mean[0], m, rtol=1e-3)
    if build is heads.NegativeBinomialHead:
        found = d.base_dist.log_inverse_dispersion[0, 1:].exp()
        np.testing.assert_allclose(found, r[1:], rtol=0.15)


def test_r_and_the_mean_end_where_the_docstring_says():
    for value, log_mean, log_r in ((1e4, 30.0, 26.0), (-1e4, -12.0, -6.0)):
        head = heads.NegativeBinomialHead((1,))
        nn.init.constant_(head.raw_dispersion, value)
        d = head(torch.full((1, 1), value)).base_dist
        assert (float(d.log_mean), float(d.log_inverse_dispersion)) == (log_mean, log_r)
    with pytest.raises(ValueError, match="highest"):
        heads.PoissonHead((1,), highest=90.0)


@pytest.mark.parametrize("likelihood", ["poisson", "negative-binomial"])
def test_counts_of_ten_million_are_learned(likelihood, tmp_path):
    """A Poisson variable with known rate: its own log p is the optimum, and 150 steps come within 1 nat of it."""
    rate = np.array([1e7, 3e6])
    x = np.random.default_rng(0).poisson(rate, (300, 2))
    run = vk.fit(
        vk.from_arrays(x, kind="counts"), "vae", out=tmp_path / "run", likelihood=likelihood, latent=1, hidden=(6,),
        steps=150, batch=50, **QUIET,
    )  # fmt: skip
    best = stats.poisson(rate).logpmf(x[run.data.test.index]).sum(1)
    gap = (best - run.score("test", samples=20)).mean()
    assert -0.2 < gap < 1.0
    losses = [r["loss/model"] for r in run.log if r["kind"] == "train"]
    assert losses[0] < 1000  # the first steps are no catastrophe: at the data's mean, with its own spread
    again = vk.open(run.path, data=run.data)
    np.testing.assert_array_equal(again.score("test", samples=20), run.score("test", samples=20))


def test_a_run_from_before_counts_were_scaled_keeps_its_head():
    spec = DataSpec("counts", (3,), 50, (0.0, 1e9), False)
    stored = spec.as_json()
    del stored["rules"]
    old, new = (get_recipe("vae")(f, latent=1, hidden=(4,)).model for f in (DataSpec.from_json(stored), spec))
    assert "likelihood.head.spread" in new.state_dict()
    assert "likelihood.head.spread" not in old.state_dict()
    assert old.likelihood.head.highest == 16.0
    assert DataSpec.from_json(spec.as_json()).rules == spec.rules


def test_a_count_column_of_a_table_starts_at_its_size():
    g = torch.Generator().manual_seed(0)
    rate = torch.tensor([1e7, 3.0])
    x = torch.cat([torch.randn(500, 1, generator=g), torch.poisson(rate.expand(500, 2), generator=g)], 1)
    head = MixedHead([Column("size", "real"), Column("a", "counts"), Column("b", "counts")], scaled=True)
    head.start_numbers(x)
    with torch.no_grad():
        log_p = head(head.bias_of(x)[None]).each(x)[:, 1:].mean(0)
    best = [0.5 * math.log(2 * math.pi * math.e * 1e7), float(stats.poisson(3.0).entropy())]
    np.testing.assert_allclose(-log_p, best, atol=0.15)


def test_counts_beyond_float32s_whole_numbers_are_data(tmp_path):
    """At 1e9 float32 rounds by 32 where a Poisson variable deviates by 3e4."""
    x = np.random.default_rng(0).poisson([1e9, 1e3], (100, 2))
    run = vk.fit(
        vk.from_arrays(x, kind="counts"),
        "vae",
        out=tmp_path / "run",
        latent=1,
        hidden=(4,),
        steps=60,
        batch=50,
        **QUIET,
    )
    best = stats.poisson([1e9, 1e3]).logpmf(x[run.data.test.index]).sum(1)
    assert (best - run.score("test", samples=10)).mean() < 3
