"""Columns that are mapped by their quantiles: the map, its Jacobian, and the probabilities of repeated values."""

import copy
import itertools
import json
import math
import shutil

import numpy as np
import pytest
import torch
from core_helpers import same
from torch.distributions import Independent, Normal

import vaekit as vk
from vaekit import heads
from vaekit.data.core import Column
from vaekit.data.observation import MixedTable, Standardised, quantiles
from vaekit.data.observation.quantiles import curve_of, distance_from_gaussian, spacing
from vaekit.densities import Censored
from vaekit.errors import ChoiceError
from vaekit.heads.censored import CensoredHead
from vaekit.noise import Noise
from vaekit.recipes import get_recipe
from vaekit.recipes.composition import DataSpec
from vaekit.utils.normal import log_mass

N = 1500
NAMES = ("gaussian", "long-tailed", "whole", "zero-heavy", "two humps", "tenths")
GAUSSIAN, LONG, WHOLE, ZEROS, HUMPS, TENTHS = range(len(NAMES))
SPACED = {WHOLE: 1.0, TENTHS: 0.1}


def table(n=N, seed=0, double=False):
    rng = np.random.default_rng(seed)
    columns = [
        rng.normal(5, 2, n),
        np.exp(rng.normal(3, 1, n)),
        np.round(rng.gamma(3, 4, n)),
        np.where(rng.random(n) < 0.8, 0, np.exp(rng.normal(2, 1, n))),
        rng.normal(np.where(rng.random(n) < 0.5, -4, 4), 1),
        np.round(rng.normal(0, 1, n), 1),
    ]
    return torch.from_numpy(np.stack(columns, 1)).to(torch.float64 if double else torch.float32)


@pytest.fixture(scope="module")
def raw():
    return table()


@pytest.fixture(scope="module")
def seen(raw):
    observation = Standardised((len(NAMES),), far=0.02)
    observation.fit(lambda: raw.split(400))
    return observation


def standard(seen, loc=0.0, scale=1.0):
    """The density of x whose elements are all Gaussian, with the intervals of the observation."""
    q = seen.quantiles
    base = Normal(torch.full((len(q.x),), loc, dtype=q.x.dtype), torch.full((len(q.x),), scale, dtype=q.x.dtype))
    return Censored(base, q.x, q.run == 0)


def log_density(seen, raw, **shape):
    """log p of each element, in the units of the data."""
    x = seen(raw)
    return (standard(seen, **shape).log_prob(x) + seen.log_units_of(x)).double()


def test_only_columns_far_from_a_gaussian_are_mapped(seen, raw):
    assert seen.quantiles.mapped.tolist() == [name != "gaussian" for name in NAMES]
    plain = Standardised((len(NAMES),))
    plain.fit(lambda: raw.split(400))
    assert torch.equal(seen(raw)[:, GAUSSIAN], plain(raw)[:, GAUSSIAN])
    x = torch.randn(7, len(NAMES))
    assert torch.equal(seen.to_raw(x)[:, GAUSSIAN], plain.to_raw(x)[:, GAUSSIAN])
    every = Standardised((len(NAMES),), far=0)
    every.fit(lambda: raw.split(400))
    assert every.quantiles.mapped.all()


def test_the_distance_from_a_gaussian_is_that_of_kolmogorov_and_smirnov():
    stats = pytest.importorskip("scipy.stats")
    values = np.sort(table(300)[:, LONG].numpy().astype(float))
    exact = stats.kstest(values, "norm", (values.mean(), values.std())).statistic
    assert distance_from_gaussian(values) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("n", [50, 200, 1000, 5000])
def test_a_sample_of_a_gaussian_is_not_mapped(n):
    rng = np.random.default_rng(n)
    mapped = [curve_of(np.sort(rng.normal(3, 7, n))) is not None for _ in range(20)]
    assert sum(mapped) <= 2


def test_mapped_columns_are_standard_normal(seen, raw):
    x = seen(raw).double()
    for j in (LONG, HUMPS):
        assert distance_from_gaussian(np.sort(x[:, j].numpy())) < 0.03
    u = torch.special.ndtr(x[:, WHOLE])
    assert float(u.mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("double", [False, True])
def test_repeated_values_come_back_exactly_and_all_others_closely(double):
    raw = table(double=double)
    if double:
        raw[:, WHOLE] += 1.7e9  # time stamps, which float32 cannot hold
    observation = Standardised((len(NAMES),), double, far=0.02)
    observation.fit(lambda: raw.split(400))
    back = observation.to_raw(observation(raw))
    assert back.dtype == raw.dtype
    atoms = [WHOLE, TENTHS]
    assert torch.equal(back[:, atoms], raw[:, atoms])
    zero = raw[:, ZEROS] == 0
    assert torch.equal(back[zero, ZEROS], raw[zero, ZEROS])
    torch.testing.assert_close(back, raw, rtol=1e-4, atol=1e-4)
    assert torch.isnan(observation(torch.full((1, len(NAMES)), math.nan, dtype=raw.dtype))).all()


def test_any_x_of_an_interval_gives_its_value_and_spaced_columns_stay_spaced(seen, raw):
    x = torch.randn(4000, len(NAMES), generator=torch.Generator().manual_seed(0))
    drawn = seen.to_raw(x)
    for j, step in SPACED.items():
        steps = drawn[:, j].double() / step
        assert float((steps - steps.round()).abs().max()) < 1e-4
    share = float((drawn[:, ZEROS] == 0).float().mean())
    assert share == pytest.approx(float((raw[:, ZEROS] == 0).float().mean()), abs=0.03)
    for j in range(len(NAMES)):  # the quantiles of draws of N(0, 1) are those of the column
        a, b = np.sort(drawn[:, j].numpy()), np.sort(raw[:, j].numpy())
        at = np.unique(np.r_[a, b])
        ks = np.abs(np.searchsorted(a, at, "right") / len(a) - np.searchsorted(b, at, "right") / len(b)).max()
        assert ks < 1.63 * math.sqrt(1 / len(a) + 1 / len(b))  # the 1 % level of the two-sample test


def test_the_jacobian_is_the_derivative_of_x(seen, raw):
    rows = raw[:200].double() + 0.01 * torch.rand(200, len(NAMES), dtype=torch.float64)
    observation = Standardised((len(NAMES),), True, far=0.02)
    observation.fit(lambda: [raw.double()])
    q = observation.quantiles
    for j in (LONG, HUMPS, ZEROS):
        values = rows[rows[:, j] > 0.5]
        h = 1e-7
        low, high = values.clone(), values.clone()
        low[:, j], high[:, j] = values[:, j] - h, values[:, j] + h
        slope = (q(high) - q(low))[:, j] / (2 * h)
        units = q.log_units(q(values))[:, j]
        near = (units - torch.log(slope)).abs() < 1e-3
        assert float(near.double().mean()) > 0.97  # a difference across a knot is neither slope


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (1.3, 0.2), (-0.9, 0.6)])
def test_the_mean_in_the_units_of_the_data_is_that_of_draws(seen, loc, scale):
    base = standard(seen, loc, scale)
    mean = seen.mean_in_units(Independent(base, 1))
    double = copy.deepcopy(seen).double()
    torch.testing.assert_close(
        mean.double(), double.mean_in_units(Independent(standard(double, loc, scale), 1)), rtol=1e-5, atol=1e-5
    )
    x = loc + scale * torch.randn(40_000, len(NAMES), generator=torch.Generator().manual_seed(1))
    drawn = seen.to_raw(x).double()
    error = drawn.std(0) / math.sqrt(len(x))
    error[WHOLE] += 0.05  # the mean of a gap between whole numbers, which draws round, may lie off the middle
    assert ((mean - drawn.mean(0)).abs() < 4.5 * error + 1e-6).all()


def test_masses_are_shares_of_rows_and_every_column_sums_to_one(seen, raw):
    rows = raw[:1].repeat(len(raw), 1)
    for j in (WHOLE, TENTHS, ZEROS):
        values, counts = raw[:, j].unique(return_counts=True)
        some = rows[: len(values)].clone()
        some[:, j] = values
        log_p = log_density(seen, some)[:, j]
        step = SPACED.get(j, 1.0)
        if j == ZEROS:
            assert float(log_p[0].exp()) == pytest.approx(float(counts[0]) / N, abs=2e-3)
        else:  # a density per unit of the data: its sum over the values, times their spacing, is 1 less the unseen
            torch.testing.assert_close(log_p.exp() * step, counts.double() / N, rtol=0.03, atol=0)
            assert 0.97 < float(log_p.exp().sum() * step) <= 1


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (1.3, 0.2), (-0.4, 0.05)])
def test_the_density_integrates_to_one_whatever_the_decoder(loc, scale):
    raw = table(double=True)
    seen = Standardised((len(NAMES),), True, far=0.02)
    seen.fit(lambda: raw.split(400))
    q = seen.quantiles
    for j in (LONG, HUMPS, ZEROS):
        knots = q.raw[j][q.raw[j] < 1e300].unique()
        tails = [float(knots[0] - 30 / (1 / q.run[j, 0])), float(knots[-1] + 30 * q.run[j, len(knots)])]
        ends = torch.cat([torch.tensor(tails[:1]), knots, torch.tensor(tails[1:])])
        total = 0.0
        for a, b in itertools.pairwise(ends):
            inner = (torch.arange(50, dtype=torch.float64) + 0.5) / 50
            grid = raw[:1].repeat(50, 1)
            grid[:, j] = a + (b - a) * inner
            total += float(log_density(seen, grid, loc=loc, scale=scale)[:, j].exp().mean() * (b - a))
        if j == ZEROS:
            row = raw[:1].clone()
            row[:, j] = 0
            total += float(log_density(seen, row, loc=loc, scale=scale)[0, j].exp())
        assert total == pytest.approx(1, abs=5e-3)


def test_log_p_falls_far_outside_the_data(seen, raw):
    high, spread = raw.max(0).values, raw.std(0)
    low = raw.min(0).values
    for edge, way in ((high, 1), (low, -1)):
        rows = torch.stack([edge + way * k * spread for k in (0, 10, 100, 1000)])
        log_p = log_density(seen, rows)
        assert (log_p.diff(dim=0) < -1).all()
        assert (log_p[2] < log_p[0] - 10).all()


def test_the_mass_of_an_interval_at_any_width_and_distance():
    g = torch.Generator().manual_seed(0)
    low = 8 * torch.randn(3000, dtype=torch.float64, generator=g)
    width = 10 ** (4 * torch.rand(3000, dtype=torch.float64, generator=g) - 3)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    t = torch.from_numpy(nodes)[:, None] / 2 + 0.5
    near = width < 3
    exponent = Normal(0.0, 1.0).log_prob(low + t * width) + torch.from_numpy(weights / 2).log()[:, None]
    exact = torch.logsumexp(exponent, 0) + torch.log(width)
    torch.testing.assert_close(log_mass(low, low + width)[near], exact[near], rtol=2e-5, atol=2e-5)
    single = log_mass(low.float(), (low + width).float())
    torch.testing.assert_close(single[near].double(), exact[near], rtol=1e-3, atol=1e-3)
    low.requires_grad_()
    (slope,) = torch.autograd.grad(log_mass(low, low + width).sum(), low)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize(
    ("values", "step", "digits"),
    [
        ([1, 2, 5], 1, 0),
        ([0, 20, 60], 20, 0),
        ([0.1, 0.4, 0.6], 0.1, 1),
        ([0.5, 2.0, 3.5], 1.5, 1),
        ([0.05, 300.12, 4000.01], 0.01, 2),
        ([0.1, 0.15, 8684.8], 0.05, 2),
        ([20.01, 15000.5, 30000.07], 0.01, 2),
        ([0, 0.123456, 1], 0, 0),
    ],
)
def test_the_spacing_of_values(values, step, digits):
    found = spacing(np.array(values, np.float32).astype(float))
    assert found == (pytest.approx(step), digits)


def test_amounts_with_cents_are_drawn_with_cents():
    rng = np.random.default_rng(0)
    cents = np.where(rng.random(900) < 0.5, 0, rng.exponential(1e4, 900).round())
    raw = torch.from_numpy(cents / 100).float()[:, None]
    seen = Standardised((1,), far=0.02)
    seen.fit(lambda: [raw])
    drawn = seen.to_raw(torch.randn(3000, 1, generator=torch.Generator().manual_seed(0)))
    assert all(len(str(value).partition(".")[2]) <= 2 for value in drawn[:, 0].numpy())
    assert float((drawn == 0).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_unseen_whole_numbers_have_a_probability_and_fractions_hardly_any(raw):
    values = raw[:, [WHOLE]]
    kept = values[values[:, 0] != 7]
    observation = Standardised((1,), far=0.02)
    observation.fit(lambda: [kept])
    rows = torch.tensor([[6.0], [7.0], [6.5], [5.5]])
    x = observation(rows)
    log_p = (standard(observation).log_prob(x) + observation.log_units_of(x))[:, 0]
    assert torch.isfinite(log_p).all()
    assert log_p[0] > log_p[1] > log_p[3]
    assert observation.to_raw(x)[:2].tolist() == [[6.0], [7.0]]


def test_a_mixed_table_maps_its_real_columns_only(raw):
    columns = [Column("a", "real"), Column("b", "categorical", ("x", "y", "z")), Column("c", "counts")]
    rows = torch.stack([raw[:, ZEROS], raw[:, WHOLE] % 3, raw[:, WHOLE]], 1)
    seen = MixedTable(columns, far=0.0)
    seen.fit(lambda: rows.split(500))
    assert seen.quantiles.mapped.tolist() == [True, False, False]
    assert torch.equal(seen(rows)[:, 1:], rows[:, 1:])
    assert seen.sound


def test_the_average_jacobian_is_that_of_the_training_rows(seen, raw):
    assert seen.uneven
    assert seen.log_jacobian((len(NAMES),)) == pytest.approx(float(seen.log_jacobian_of(seen(raw)).mean()), rel=1e-5)


def test_only_a_gaussian_has_intervals():
    with pytest.raises(ChoiceError, match="observation='standardised'"):
        CensoredHead(heads.LaplaceHead((2,)))


# --- runs -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = vk.from_arrays(table(400).numpy())
    out, steps = tmp_path_factory.mktemp("q") / "run", {"steps": 40, "checkpoint_steps": 20}
    return vk.fit(data, latent=2, hidden=(8,), batch=50, seed=3, out=out, **steps)


def test_a_run_keeps_its_quantiles_and_samples_values_of_the_data(run):
    assert run.composition.observation.kind == "quantile"
    opened = vk.open(run.path)
    again = opened.composition.observation.quantiles
    assert torch.equal(again.raw, run.composition.observation.quantiles.raw)
    rows = run.sample(200, noise=True)
    assert set(rows[:, WHOLE]) <= set(range(-50, 200))
    assert (rows[:, ZEROS] == 0).mean() > 0.3
    raw = table(5, seed=9).numpy()
    np.testing.assert_array_equal(opened.score(raw, samples=5), run.score(raw, samples=5))


def test_a_resumed_run_ends_in_the_same_weights_and_quantiles(run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run.path, out)
    (out / "run.json").write_text(json.dumps(run.config | {"state": "running"}))
    (out / "checkpoint" / f"{40:09d}.safetensors").unlink()
    (out / "model.safetensors").unlink()
    vk.fit(run.data, out=out, exists="resume", progress=False)
    assert same(out, run.path)


def test_decode_is_the_mean_of_draws(run):
    z = run.sample_latents(3)
    drawn = run.decode(np.repeat(z, 4000, 0), noise=True).reshape(3, 4000, -1)
    error = drawn.std(1) / math.sqrt(4000)
    error[:, WHOLE] += 0.05
    assert (np.abs(run.decode(z) - drawn.mean(1)) < 5 * error + 1e-5).all()


def test_the_score_is_that_of_the_intervals_and_the_jacobian_of_each_row(run):
    raw = table(40, seed=9).numpy()
    observed = run.observed(raw)
    x, k = observed(np.arange(40)), 64
    noise = Noise.of(0, 40)
    with torch.no_grad():
        trace = run.model.trace(x, k=k, noise=noise)
        (latent,) = trace.latents
        weights = trace.px.log_prob(x) + latent.log_p - latent.log_q
        ours = torch.logsumexp(weights, 0) - math.log(k) + run.composition.observation.log_jacobian_of(x)
    score = run.score(raw, samples=k)
    assert abs(float(ours.mean()) - score.mean()) < 0.5
    outlier = raw[:1] + 100 * table().std(0).numpy()
    assert run.score(outlier, samples=k)[0] < score.min() - 50


def test_runs_of_earlier_rules_are_standardised(run):
    spec = DataSpec.of(run.data)
    assert spec.rules == DataSpec.rules
    old = DataSpec.from_json(json.loads(json.dumps(spec.as_json())) | {"rules": 2})

    assert get_recipe("vae")(old).observation.kind == "standardised"
    assert get_recipe("vae")(spec).observation.kind == "quantile"
    assert get_recipe("kingma2013")(spec).observation.kind == "standardised"  # as published
    assert get_recipe("vae")(spec, sigma="optimal").observation.kind == "quantile"
    assert get_recipe("vae")(spec, likelihood="laplace").observation.kind == "standardised"
    with pytest.raises(ChoiceError, match="observation='standardised'"):
        get_recipe("vae")(spec, likelihood="laplace", observation="quantile")


def test_an_exported_observation_has_no_map_if_no_column_is_mapped(raw):
    for columns, mapped in ([GAUSSIAN], False), ([GAUSSIAN, LONG], True):
        seen = Standardised((len(columns),), double=True, far=0.05)
        seen.fit(lambda columns=columns: [raw[:, columns]])
        exported = seen.for_export()
        assert (exported.quantiles is not None) == mapped
        assert seen.quantiles is not None  # it is a copy
        x = seen(raw[:, columns])
        torch.testing.assert_close(exported(raw[:, columns]), x)
        torch.testing.assert_close(exported.to_raw(x), seen.to_raw(x).float(), rtol=1e-5, atol=1e-4)


def test_what_is_measured_does_not_depend_on_the_blocks_of_rows(monkeypatch):
    raw = torch.from_numpy(np.random.default_rng(0).exponential(size=(1000, 3)).astype(np.float32))

    def fitted(size, numbers):
        monkeypatch.setattr(quantiles, "MOST_ROWS", 300)  # every fourth row
        monkeypatch.setattr(quantiles, "BLOCK", numbers)
        made = quantiles.Quantiles(3)
        made.fit(lambda: raw.split(size), [0, 2])
        return made

    whole, parts = fitted(1000, 2**22), fitted(70, 400)
    assert whole.mapped.tolist() == [True, False, True]
    for name, buffer in whole.named_buffers():
        torch.testing.assert_close(dict(parts.named_buffers())[name], buffer, rtol=1e-6, atol=1e-7)
    every = raw[::4]
    expected = whole.log_units(whole(every)).double().mean(0)
    torch.testing.assert_close(whole.units.double()[[0, 2]], expected[[0, 2]], rtol=1e-6, atol=1e-7)
