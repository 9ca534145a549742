"""Standard errors by datum and by group, areas under ROC curves, and where they are used."""

import math

import numpy as np
import pytest
from scipy import stats

import vaekit as vk
from vaekit.errors import ChoiceError, DataError
from vaekit.metrics import compare, evaluate, per_datum
from vaekit.report.numbers import beyond_floor, few_groups, protocol_text
from vaekit.utils.uncertainty import area, f_quantile, standard_error, t_quantile, units


def test_copies_count_once():
    means = np.random.default_rng(0).normal(size=12)
    plain = standard_error(means)
    assert standard_error(means, np.arange(12)) == pytest.approx(plain, rel=1e-12)
    assert standard_error(np.repeat(means, 10), np.repeat(np.arange(12), 10)) == pytest.approx(plain, rel=1e-12)
    assert standard_error(np.repeat(means, 10)) == pytest.approx(plain / math.sqrt(10), rel=0.05)


def test_groups_of_unequal_size_by_the_sandwich_formula():
    v, group = np.array([1.0, 2.0, 4.0, 8.0, 9.0, 0.0]), np.array(["a", "b", "a", "c", "c", "c"])
    e = v - 4  # sums of the groups: -3, -2, 5
    assert e.sum() == 0
    assert standard_error(v, group) == pytest.approx(math.sqrt(3 / 2 * (9 + 4 + 25)) / 6)


def test_what_one_unit_cannot_tell():
    assert standard_error([3.0]) is None
    assert standard_error([3.0, 4.0], [7, 7]) is None
    assert units(3) == 3
    assert units(3, [1, 1, 2]) == 2
    with pytest.raises(ChoiceError, match="one value for each of 2"):
        standard_error([1.0, 2.0], [1, 2, 3])


def test_errors_by_group_are_those_seen_when_it_is_done_again():
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(30), rng.integers(1, 12, 30))
    v = rng.normal(size=(4000, 30))[:, group] + rng.normal(size=(4000, len(group)))
    spread = v.mean(1).std()  # the sizes are the same each time
    found = np.mean([standard_error(row, group) for row in v[:400]])
    assert found == pytest.approx(spread, rel=0.06)
    assert np.mean([standard_error(row) for row in v[:400]]) < 0.5 * spread


def test_float32_values_are_summed_in_float64():
    v = (1e4 + np.random.default_rng(2).normal(size=100_000)).astype(np.float32)
    assert standard_error(v) == pytest.approx(v.astype(float).std(ddof=1) / math.sqrt(len(v)), rel=1e-9)


def test_quantiles():
    assert t_quantile(0.05, 2) == pytest.approx(stats.t.ppf(0.975, 2))
    assert f_quantile(0.05, 2, 2) == pytest.approx(19)
    assert t_quantile(0.05, 0) == math.inf
    assert t_quantile(0.05, math.inf) == pytest.approx(stats.norm.ppf(0.975), rel=1e-12)


def test_the_variance_of_an_area_is_delongs():
    rng = np.random.default_rng(3)
    x, y = rng.normal(0.5, 1, 40), rng.normal(0, 1, 25)
    found = area(x, y)
    above = (x[:, None] > y).astype(float)
    by_hand = above.mean(1).var(ddof=1) / 40 + above.mean(0).var(ddof=1) / 25
    assert found.value == pytest.approx(above.mean())
    assert found.value == pytest.approx(stats.mannwhitneyu(x, y).statistic / 1000)
    # each value a group of its own, none of them in common: DeLong's, as the factors are of either kind
    assert found.se == pytest.approx(math.sqrt(by_hand))
    assert area([1.0, 2.0], [1.0, 2.0]).value == 0.5  # ties by half
    assert found.low < found.value < found.high


def test_areas_where_all_lie_above_are_not_taken_for_certain():
    found = area(np.arange(10) + 100.0, np.arange(10.0))
    assert found.value == 1
    assert found.low == pytest.approx(0.025**0.1)
    assert area(np.arange(10.0), np.arange(10) + 100.0).high == pytest.approx(1 - 0.025**0.1)


@pytest.mark.parametrize("copies", [1, 5])
def test_intervals_of_areas_miss_as_often_as_they_say(copies):
    rng = np.random.default_rng(4)
    missed, trials = 0, 600
    for _ in range(trials):  # an image and its altered copy make a group; so do copies of an image
        image = rng.normal(size=40)
        x = np.repeat(image, copies) + 0.1 * rng.normal(size=40 * copies)
        y = np.repeat(0.7 * image + 0.714 * rng.normal(size=40), copies) + 0.1 * rng.normal(size=40 * copies)
        group = np.repeat(np.arange(40), copies)
        found = area(x, y, group, group)
        missed += not found.low <= 0.5 <= found.high
    assert missed / trials < 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


def test_few_groups_are_told():
    assert few_groups(20) == ""
    assert "only 5 groups: a 95% interval is ± 2.8" in few_groups(5)
    assert "only one group" in few_groups(1)


def test_how_far_from_the_floor_in_words():
    gap = lambda value, se, **protocol: beyond_floor({"value": value, "se": se, "protocol": {"n": 2000, **protocol}})  # noqa: E731
    assert "200 standard errors above" in gap(10.0, 0.05)
    assert "can be chance" in gap(-0.1, 0.05)
    assert "is not chance" in gap(-1.0, 0.05)
    assert "can be chance" in gap(-1.0, 0.05, groups=2)  # two groups: a t of one degree of freedom


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two hundred patients with five near-copies of a row each, split by patient, and two runs on them."""
    folder = tmp_path_factory.mktemp("groups")
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(200), 5)
    x = rng.normal(size=(200, 3))[patient] + 0.01 * rng.normal(size=(1000, 3))
    rows = [f"p{p},{a:.4f},{b:.4f},{c:.4f}" for p, (a, b, c) in zip(patient, x, strict=True)]
    (folder / "rows.csv").write_text("\n".join(["patient,a,b,c", *rows]) + "\n")
    data = vk.load(folder / "rows.csv", group="patient")
    plain = {"progress": False, "compile": "off", "device": "cpu", "latent": 2, "hidden": (8,), "steps": 5}
    return folder, [vk.fit(data, "vae", out=folder / f"run{i}", seed=i, **plain) for i in range(2)]


def test_a_run_split_by_group_is_measured_by_group(table):
    _, runs = table
    run = vk.open(runs[0].path)  # the data are loaded anew, by the run's own rows
    group = run.data.test.group
    assert len(np.unique(group)) == 20
    assert run.data.test.head(7).group.tolist() == group[:7].tolist()
    elbo = per_datum(run, run.observed("test"), 2).elbo
    found = {m["name"]: m for m in evaluate(run, samples=2)}
    assert found["elbo"]["protocol"]["groups"] == 20
    assert "standard errors over 20 groups" in protocol_text(found["elbo"]["protocol"])
    means = np.array([elbo[group == g].mean() for g in np.unique(group)])
    assert found["elbo"]["se"] == pytest.approx(means.std(ddof=1) / math.sqrt(20))  # groups of equal size
    assert found["elbo"]["se"] > 1.8 * standard_error(elbo)
    difference = compare(*(vk.open(r.path) for r in runs), samples=2)
    assert difference["protocol"]["groups"] == 20
    logs = [per_datum(r, r.observed("test"), 2).log_px for r in runs]
    assert difference["se"] == pytest.approx(standard_error(logs[0] - logs[1], group))


def test_numbers_stored_before_errors_were_by_group_give_way(table):
    run = vk.open(table[1][1].path)
    (old,) = evaluate(run, samples=2, metrics=["elbo"])
    del old["protocol"]["groups"]
    run.add_metrics([old])
    assert "groups" not in run.metrics[-1]["protocol"]
    evaluate(run, samples=2, metrics=["elbo"])
    assert [m["protocol"].get("groups") for m in run.metrics if m["name"] == "elbo"] == [20]


def test_runs_on_other_rows_are_not_compared(table, tmp_path):
    folder, runs = table
    data = vk.load(folder / "rows.csv", group="patient", split_seed=1)
    plain = {"progress": False, "compile": "off", "device": "cpu", "latent": 2, "hidden": (8,), "steps": 2}
    other = vk.fit(data, "vae", out=tmp_path / "run", **plain)
    with pytest.raises(ChoiceError, match="rows of the two runs are not the same"):
        compare(runs[0], other, samples=2)


def test_data_without_their_groups_are_refused(table):
    folder, runs = table
    run = vk.open(runs[0].path)
    data = vk.load(folder / "rows.csv", group="patient")
    parts = {part: getattr(data, part).index for part in ("train", "valid", "test")}
    x = data.train.raw
    names = data.feature_names
    alone = vk.from_arrays(x, feature_names=names, schema=data.schema, splits=parts)
    with pytest.raises(DataError, match="split by group"):
        run.use_data(alone)
    assert run.use_data(data).test.group is not None
