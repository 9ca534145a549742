"""Calibration: an exact posterior passes, wrong ones fail in the right direction; draws of the data pass the checks."""

import numpy as np
import pytest
import torch
from core_helpers import LinearGaussian, model_of
from scipy import stats

import vaekit as vk
from vaekit.data.observation import Identity
from vaekit.errors import ChoiceError
from vaekit.metrics import Measurement, evaluate
from vaekit.metrics.calibration import compare_rows, coverage, deviations, holm, matched, rank_of, uniformity
from vaekit.metrics.calibration.checks import compare_dimensions
from vaekit.metrics.calibration.ranks import DRAWS, LEVELS
from vaekit.metrics.measurement import samples
from vaekit.metrics.samples import drawn_by
from vaekit.objectives import ELBO
from vaekit.recipes import Composition
from vaekit.report import Look
from vaekit.report.calibration import calibration

WRONG = {
    "exact": None,
    "narrow": {"shift": 0.0, "widen": 0.5},
    "wide": {"shift": 0.0, "widen": 2.0},
    "displaced": {"shift": 0.0, "widen": 1.0},
}


@pytest.fixture(scope="module")
def measured():
    """The metrics of the family for an exact posterior and for wrong ones, by name."""
    found = {}
    for name, how in WRONG.items():
        world = LinearGaussian(dtype=torch.float32)
        if how is not None:
            world.spoil(**how)
        if name == "displaced":
            with torch.no_grad():
                world.model.posterior.net.out.bias -= 0.1
        run = model_of(Composition(world.model, ELBO(), Identity()), (5,))
        rows = world.data(300).float().numpy()
        found[name] = {m["name"]: m for m in evaluate(run, rows, metrics=["calibration"])}
    return found


# --- ranks ------------------------------------------------------------------------------------------------------


def test_ranks_by_hand():
    draws = np.array([[0.0], [1.0], [1.0], [3.0]])[:, :, None]  # four draws of one latent of one datum
    for truth, u, rank in ((-1.0, 0.5, 0), (2.0, 0.5, 3), (5.0, 0.5, 4), (1.0, 0.1, 1), (1.0, 0.5, 2), (1.0, 0.9, 3)):
        assert rank_of([[truth]], draws, [[u]]) == [[rank]]


def test_the_test_of_uniformity_keeps_its_level_and_has_power():
    rng = np.random.default_rng(0)
    p = uniformity(rng.integers(0, DRAWS + 1, (500, 400)), DRAWS)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    leaning = np.floor((DRAWS + 1) * rng.random((500, 400)) ** 1.3)
    assert (uniformity(leaning.astype(int), DRAWS) < 0.05).mean() > 0.95


def test_intervals_between_draws_hold_what_they_say():
    ranks = np.arange(DRAWS + 1)[:, None]
    for level in LEVELS:
        assert coverage(ranks, DRAWS, level).mean() == pytest.approx(level)
    with pytest.raises(ValueError, match="99 draws"):
        coverage(ranks, 99, 0.95)


def test_deviations_of_uniform_ranks():
    bias, spread = deviations(np.arange(DRAWS + 1)[:, None], DRAWS)
    assert bias.mean() == pytest.approx(0)
    assert spread.mean() == pytest.approx(1)


def test_the_exact_posterior_passes(measured):
    m = measured["exact"]
    assert m["sbc_p"]["value"] > 0.05
    for name, right in (("sbc_bias", 0), ("sbc_spread", 1)):
        assert all(abs(v - right) < 4 * se for v, se in zip(m[name]["value"], m[name]["se"], strict=True))
    assert m["sbc_coverage"]["interval"]["low"] < 0 < m["sbc_coverage"]["interval"]["high"]
    for part, level in zip(m["sbc_coverage"]["each"].values(), LEVELS, strict=True):
        assert part["low"] < level < part["high"]


@pytest.mark.parametrize(("name", "factor"), [("narrow", 0.5), ("wide", 2.0)])
def test_a_wrong_scale_has_the_coverage_of_the_closed_form(measured, name, factor):
    m = measured[name]
    assert m["sbc_p"]["value"] < 1e-9
    assert all(abs(v) < 4 * se for v, se in zip(m["sbc_bias"]["value"], m["sbc_bias"]["se"], strict=True))
    sign = 1 if name == "narrow" else -1
    assert all(sign * (v - 1) > 10 * se for v, se in zip(*(m["sbc_spread"][k] for k in ("value", "se")), strict=True))
    assert m["sbc_coverage"]["value"] * sign < -0.1
    for part, level in zip(m["sbc_coverage"]["each"].values(), LEVELS, strict=True):
        held = 2 * stats.norm.cdf(factor * stats.norm.ppf(0.5 + level / 2)) - 1
        # the ends are draws of q: their quantiles scatter, by far less than a hundredth of the coverage
        assert part["value"] == pytest.approx(held, abs=4 * part["se"] + 0.01)


def test_a_displaced_posterior_is_biased_downwards(measured):
    m = measured["displaced"]
    assert m["sbc_p"]["value"] < 1e-3
    assert all(v > 4 * se for v, se in zip(m["sbc_bias"]["value"], m["sbc_bias"]["se"], strict=True))


def test_what_is_stored_has_a_row_per_latent_and_an_unchanged_mean(measured):
    m = measured["narrow"]
    ranks, held = m["sbc_p"]["matrix"], m["sbc_coverage"]["matrix"]
    assert ranks["rows"] == held["rows"] == ["z0", "z1"]
    assert np.mean(ranks["values"], 1) == pytest.approx([1, 1])
    assert held["columns"] == ["50%", "80%", "90%", "95%"]
    assert "2,000 simulated data" in m["sbc_p"]["protocol"]["estimator"]


def test_other_models_are_refused(tmp_path):
    run = vk.fit("digits", "hierarchical", out=tmp_path / "run", steps=2, progress=False, compile="off", hidden=(8,))
    with pytest.raises(ChoiceError, match="one layer of continuous latents"):
        run.evaluate("test", metrics=["sbc_p"])
    assert {m["name"] for m in run.evaluate("test", n=60, metrics=["calibration"])} == {
        "ppc_p", "ppc_difference", "ppc_dimensions",
    }  # fmt: skip


# --- predictive checks --------------------------------------------------------------------------------------------


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]


def test_the_models_own_data_pass(measured):
    """The linear Gaussian world is the model of its data, whatever the posterior."""
    m = measured["narrow"]
    assert m["ppc_p"]["value"] > 0.05
    assert m["ppc_dimensions"]["value"] == 0
    assert all(part["low"] < 0 < part["high"] or part["se"] == 0 for part in m["ppc_difference"]["each"].values())


@pytest.fixture
def few_permutations(monkeypatch):
    monkeypatch.setattr(matched, "PERMUTATIONS", 199)


def within_level(false, of):
    return false / of <= 0.05 + 3 * (0.05 * 0.95 / of) ** 0.5


def test_the_checks_keep_their_level_also_by_group(few_permutations):
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 5)
    false = {"rows": 0, "groups": 0}
    for _ in range(150):
        drawn, rows = rng.normal(size=(300, 4)), rng.normal(size=(200, 4))
        false["rows"] += min(c.p for c in compare_rows(rows, drawn).values()) < 0.05
        dependent = rows + 0.7 * rng.normal(size=(40, 4))[group]
        alike = drawn + 0.7 * rng.normal(size=(300, 4))
        false["groups"] += min(c.p for c in compare_rows(dependent, alike, group).values()) < 0.05
    assert within_level(max(false.values()), 150)


@pytest.mark.parametrize(("n", "draws"), [(60, 1020), (100, 1000), (1000, 1000)])
def test_binary_and_sparse_elements_keep_the_level(few_permutations, n, draws):
    """Also elements that are constant in the data and not in draws: rare pixels, rare genes."""
    rng = np.random.default_rng(0)
    p = np.repeat([0.003, 0.012, 0.3], [70, 70, 10])
    false = {"binary": 0, "counts": 0, "rows": 0}
    for _ in range(60):
        held, drawn = (np.float32(rng.random((k, len(p))) < p) for k in (n, draws))
        false["binary"] += compare_dimensions(held, drawn).p.min() < 0.05
        few = held[:, :12], drawn[:, :12]  # most rows are 0, as are their shares of zeros and highest values
        false["rows"] += min(c.p for c in compare_rows(*few).values()) < 0.05
        genes = [rng.poisson(rng.gamma(0.5, 2 * p, (k, len(p)))) for k in (n, draws)]
        false["counts"] += compare_dimensions(*genes).p.min() < 0.05
    assert within_level(max(false.values()), 60), false


def test_binary_elements_keep_the_level_by_group():
    """Rare pixels are not judged; others are, with the larger error of dependent rows."""
    rng = np.random.default_rng(0)
    p, group = np.repeat([0.003, 0.012, 0.3], [20, 20, 10]), np.repeat(np.arange(50), 4)
    false = 0
    for _ in range(60):
        # three quarters of the rows of a group are equal to its first in each element
        own, first = rng.random((200, 50)) < p, (rng.random((50, 50)) < p)[group]
        held = np.where(rng.random((200, 50)) < 0.75, first, own)
        found = compare_dimensions(held.astype(float), (rng.random((1000, 50)) < p).astype(float), group)
        assert not found.judged[:, :20].any()
        assert found.judged[0, 40:].all()
        false += found.p.min() < 0.05
    assert within_level(false, 60)


def test_differences_of_binary_elements_are_found():
    """A pixel that is on twice as often, one that the data never have, and one that the model never has."""
    rng = np.random.default_rng(0)
    p = np.full(30, 0.01)
    p[[3, 20, 21, 22]] = 0.25, 0.0, 0.3, 0.3
    held = rng.random((200, 30)) < p
    p[[3, 20, 21]] = 0.5, 0.3, 0.0
    found = compare_dimensions(held.astype(float), (rng.random((1000, 30)) < p).astype(float))
    assert np.flatnonzero(found.p[0] < 0.05).tolist() == [3, 20, 21]
    assert not found.judged[1].any()  # the variance of a pixel follows from its mean


def test_permuted_means_are_those_of_scipy():
    rng = np.random.default_rng(1)
    held, drawn = rng.gamma(1.0, size=(30, 1)), rng.gamma(1.4, size=(30, 1))
    p = matched.permutation_p(held, drawn, np.array([[True], [False]]))
    d = np.concatenate([held, drawn], 1)  # sets of two: exchanging them flips the sign of the difference
    exact = stats.permutation_test(
        (d[:, 0], d[:, 1]), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples", vectorized=True,
        n_resamples=9999, rng=np.random.default_rng(2),
    ).pvalue  # fmt: skip
    assert p[0, 0] == pytest.approx(exact, abs=4 * (exact / 1000) ** 0.5)
    assert p[1, 0] == 1


def test_permutations_exchange_rows_of_a_set_only():
    places = matched.places(3, 7)
    assert places[0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    sets = np.concatenate([np.arange(3), np.arange(7) * 3 // 7])
    for i in range(3):
        assert (places[:, sets == i].sum(1) == 1).all()
        share = 1 / (sets == i).sum()
        assert np.abs(places[:, sets == i].mean(0) - share).max() < 0.06
    with pytest.raises(ValueError, match="a draw or more"):
        matched.places(3, 2)


def test_draws_of_a_conditional_run_have_the_classes_of_the_data(tmp_path):
    """Data of the run itself, a tenth of them of one class, pass its checks; draws of balanced classes do not."""
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    data = vk.from_arrays((3.0 * y[:, None] + rng.normal(size=(400, 4))).astype(np.float32), label=y)
    run = vk.fit(data, "conditional", out=tmp_path / "run", latent=2, hidden=(16,), steps=150, progress=False,
                 compile="off")  # fmt: skip
    labels = np.sort(rng.random(300) < 0.1).astype(int)
    x = run.sample(300, labels=labels, noise=True, seed=7)
    m = Measurement(run, x, labels=labels)
    found = {one["name"]: one for one in evaluate(run, x, labels=labels, metrics=["calibration"])}
    assert found["ppc_p"]["value"] > 0.05
    assert found["ppc_dimensions"]["value"] == 0
    assert ", given label of the data, against 300 data" in found["ppc_p"]["protocol"]["estimator"]
    assert samples(m).mean() == pytest.approx(x.mean(), abs=0.15)
    assert run.sample(300).mean() > x.mean() + 0.5
    assert np.array_equal(samples(Measurement(run)), drawn_by(run, "prior", len(run.data.test)))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda x: x + 0.5, "mean"),
        (lambda x: 1.5 * x, "variance"),
        (lambda x: np.where(np.abs(x) < 0.3, 0, x), "zeros"),
        (lambda x: np.minimum(x, 1.0), "highest"),
    ],
)
def test_each_statistic_sees_its_own_change(change, found):
    rng = np.random.default_rng(0)
    drawn, held = rng.normal(size=(2, 800, 6))
    checks = compare_rows(held, change(drawn))
    assert checks[found].p == pytest.approx(0.001)  # of 999 permutations, none is as far
    sign = 1 if found != "highest" else -1
    assert checks[found].difference * sign > 5 * checks[found].se


def test_a_single_element_is_found_among_many():
    rng = np.random.default_rng(0)
    drawn, held = rng.normal(size=(2, 600, 50))
    drawn[:, 7] *= 2
    assert np.argwhere(compare_dimensions(held, drawn).p < 0.05).tolist() == [[1, 7]]


def test_pixels_are_compared_as_binary_draws(tmp_path):
    run = vk.fit("digits", "vae", out=tmp_path / "run", steps=3, progress=False, compile="off", hidden=(8,), latent=2)
    found = {m["name"]: m for m in run.evaluate("test", n=150, metrics=["calibration"])}
    assert found["ppc_p"]["value"] < 0.05  # hardly trained
    assert set(found["ppc_p"]["each"]) == {"mean", "variance", "zeros", "lowest", "highest"}
    page = calibration(Look(vk.open(tmp_path / "run")))
    assert [block.kind for block in page] == ["text", "picture", "picture", "table"]
    assert "q(z|x)" in page[0].text
    assert len(page[3].rows) == 5
