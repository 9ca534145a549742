"""What the trials tell, against cases with known answers."""

import numpy as np
import pytest

pytest.importorskip("optuna", reason="sweeps need optuna")

import optuna

from vaekit.studies.words import Estimate
from vaekit.tuning.analysis import Lead, chances, front, importance, lead, ranked
from vaekit.tuning.page import lead_in_words
from vaekit.tuning.records import Trial, judges

ELBO = {"name": "elbo", "better": "higher"}


def trial(name, path, **values):
    return Trial(name, path / name, "finished", {}, values)


def test_the_best_of_equal_trials_leads_by_selection_alone():
    """Forty trials of equal quality: on the data that choose, the best one leads the second; on others it does not."""
    rng, valid, test = np.random.default_rng(0), [], []
    for _ in range(200):
        scores = [{f"t{i}": {"elbo": rng.normal(size=60)} for i in range(40)} for _ in range(2)]
        first, second = sorted(scores[0], key=lambda name: -scores[0][name]["elbo"].mean())[:2]
        found = lead(ELBO, first, second, *scores)
        valid.append(found.valid.value)
        test.append(found.test.value)
        assert found.selection.value == pytest.approx(found.valid.value - found.test.value)
    assert np.mean(valid) > 3 * np.std(valid) / np.sqrt(200)
    assert abs(np.mean(test)) < 3 * np.std(test) / np.sqrt(200)


def test_chances_agree_with_the_normal_approximation():
    """Two trials whose mean difference is k standard errors above 0: the first is best in Phi(k) of the samples."""
    from statistics import NormalDist

    rng = np.random.default_rng(1)
    noise = rng.normal(size=400)
    noise = (noise - noise.mean()) / noise.std()
    scores = {"a": {"elbo": noise + 1 / np.sqrt(400)}, "b": {"elbo": np.zeros(400)}}
    found = chances(ELBO, scores, draws=4000)
    assert found["a"] == pytest.approx(NormalDist().cdf(1), abs=4 * np.sqrt(0.16 * 0.84 / 4000))
    assert found["a"] + found["b"] == 1
    lower = chances({"name": "elbo", "better": "lower"}, scores, draws=4000)
    assert lower["a"] == pytest.approx(1 - found["a"])


def test_rows_of_a_group_are_resampled_together():
    scores = {"a": {"elbo": np.repeat([1.0, -0.9], 50), "group": np.repeat([0.0, 1.0], 50)},
              "b": {"elbo": np.zeros(100), "group": np.repeat([0.0, 1.0], 50)}}  # fmt: skip
    assert chances(ELBO, scores)["a"] == pytest.approx(0.75, abs=0.06)  # unless the second group is drawn twice


def test_an_option_that_decides_everything_is_important():
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: t.suggest_float("a", 0, 1) + 0 * t.suggest_float("b", 0, 1), n_trials=30)
    found = importance(study, 0)
    assert found["a"].value > 0.9
    assert found["b"].value < 0.1
    assert found["a"].se < 0.1
    assert importance(study, 0) == found
    few = optuna.create_study(direction="maximize")
    few.add_trials(study.trials[:5])
    assert importance(few, 0) == {}


def test_order_and_front(tmp_path):
    points = {"a": (1.0, 4.0), "b": (2.0, 2.0), "c": (3.0, 3.0), "d": (4.0, 1.0)}
    trials = [trial(name, tmp_path, rate=r, distortion=d) for name, (r, d) in points.items()]
    judged = judges("rate,distortion")
    assert [one["better"] for one in judged] == ["lower", "lower"]
    assert [one.name for one in ranked(trials, judged[1])] == ["d", "b", "c", "a"]
    assert [one.name for one in front(trials, judged)] == ["a", "b", "d"]
    assert judges("active_units:higher,mse") == [
        {"name": "active_units", "better": "higher"},
        {"name": "mse", "better": "lower"},
    ]


@pytest.mark.parametrize(
    ("test", "said"),
    [(Estimate(0.5, 0.1, 99), "significant at 5%"), (Estimate(0.1, 0.1, 99), "not significant at 5%")],
)
def test_the_words_follow_the_numbers(test, said):
    words = " ".join(lead_in_words(Lead("a", "b", Estimate(0.6, 0.05, 99), test), "nats"))
    assert f"nats, {said}" in words
    assert ("which may be chance" in words) == (test.value == 0.5)
