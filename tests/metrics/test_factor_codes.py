"""Scores of disentanglement against codes with known scores, and against slow implementations of the same formulas."""

import math
import tracemalloc

import numpy as np
import pytest
import slow_disentanglement as slow
from scipy.special import ndtr
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.svm import LinearSVC

from vaekit.errors import ChoiceError
from vaekit.metrics import disentanglement as d
from vaekit.metrics.disentanglement import trees
from vaekit.metrics.disentanglement.explicitness import areas
from vaekit.metrics.disentanglement.information import shuffle
from vaekit.metrics.disentanglement.parts import parts
from vaekit.metrics.disentanglement.replicability import median_interval
from vaekit.metrics.disentanglement.separation import machine
from vaekit.metrics.disentanglement.votes import Alike
from vaekit.utils.uncertainty import t_quantile

DSPRITES = (3, 6, 40, 32, 32)


def grid(*counts, times):
    """Every combination of factors with these numbers of values, several times."""
    return np.tile(np.stack(np.unravel_index(np.arange(math.prod(counts)), counts), -1), (times, 1))


def standard(v):
    return (v - v.mean(0)) / v.std(0)


@pytest.fixture(scope="module")
def factors():
    return grid(3, 4, 5, times=8)


@pytest.fixture(scope="module")
def mixed():
    """Codes of three factors in five latents: one clean, two mixed, one noisy, one of noise."""
    rng = np.random.default_rng(3)
    v = np.stack([rng.integers(k, size=700) for k in (2, 4, 6)], 1)
    z = standard(v)
    columns = [z[:, 0], z[:, 1] + 0.5 * z[:, 2], z[:, 2] - 0.3 * z[:, 1], z[:, 1], 0 * z[:, 0]]
    return np.stack(columns, 1) + rng.normal(size=(700, 5)) * [0.05, 0.1, 0.2, 1.0, 1.0], v


def of_each(codes, v):
    """Every score of these codes by name."""
    trees_, lasso = d.dci(codes, v), d.dci(codes, v, predictor="lasso")
    kept = d.in_use(codes)
    matrix = d.info_matrix(codes, v)
    few = {"votes": 1500, "tests": 1000}
    scores = {
        "mig": d.mig_lib(codes, v),
        "med": d.med(codes, v),
        "modularity": d.modularity(codes, v),
        "sap": d.sap_regression(codes, v),
        "explicitness": d.explicitness(codes, v),
        "info_e": d.info_e(codes, v),
        "info_m": d.info_m(matrix, kept),
        "info_c": d.info_c(matrix, kept),
        "disentanglement": trees_.disentanglement,
        "completeness": trees_.completeness,
        "informativeness": trees_.informativeness,
        "lasso disentanglement": lasso.disentanglement,
        "lasso completeness": lasso.completeness,
        "lasso informativeness": lasso.informativeness,
        "factor_vae": d.factor_score(codes, v, **few),
        "beta_vae": d.beta_score(codes, v, **few),
    }
    return {name: score.value for name, score in scores.items()}


def test_a_perfect_code_has_all_scores(factors):
    """Turned, stretched and in another order; the lasso shrinks its coefficients, so that it explains 1 - 0.02^2."""
    codes = standard(factors)[:, [2, 0, 1]] * [3.0, -1.0, 0.5]
    found = of_each(codes, factors)
    assert found.pop("info_e") == pytest.approx(1, abs=0.01)
    assert found == pytest.approx(dict.fromkeys(found, 1.0), abs=2e-3)


def test_a_duplicated_code_is_modular_but_not_compact(factors):
    codes = np.concatenate([standard(factors)] * 2, 1)
    found = of_each(codes, factors)
    for name in ("mig", "sap"):
        assert found[name] == pytest.approx(0, abs=1e-9)
    for name in ("med", "modularity", "disentanglement", "informativeness", "explicitness", "factor_vae", "beta_vae"):
        assert found[name] == pytest.approx(1, abs=2e-3)
    assert found["completeness"] == pytest.approx(1 - math.log(2) / math.log(6), abs=1e-6)  # two of six latents
    assert found["info_c"] == pytest.approx((1 / 2 - 1 / 6) / (1 - 1 / 6), abs=0.01)
    assert found["info_m"] == pytest.approx(1, abs=0.02)
    assert found["lasso completeness"] == pytest.approx(1)  # which uses the first of two equal latents


def test_a_code_turned_by_45_degrees_has_half_of_two_factors_in_each_of_two_latents():
    v = grid(4, 4, 4, times=10)
    a, b, c = standard(v).T
    codes = np.stack([a + b, a - b, c], 1)
    third, two_of_three = 1 / 3, 1 - math.log(2) / math.log(3)
    assert d.sap_regression(codes, v).value == pytest.approx(third)
    assert d.mig_lib(codes, v).value == pytest.approx(third)
    score = d.modularity(codes, v)
    np.testing.assert_allclose(score.latents, [0.5, 0.5, 1])
    assert score.value == pytest.approx(2 / 3)
    score = d.med(codes, v)
    np.testing.assert_allclose(score.latents, [two_of_three, two_of_three, 1])
    np.testing.assert_allclose(score.each, [two_of_three, two_of_three, 1])
    assert score.value == pytest.approx((2 * two_of_three + 1) / 3)
    exact = score.matrix
    np.testing.assert_allclose(exact, [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]], atol=1e-12)
    everything = np.ones(3, bool)
    np.testing.assert_allclose(d.info_m(exact, everything).latents, [0.25, 0.25, 1])
    np.testing.assert_allclose(d.info_c(exact, everything).each, [0.25, 0.25, 1])
    found = d.dci(codes, v, predictor="lasso")
    mixed, clean = math.sqrt(0.5) - 0.02, 0.98  # absolute coefficients of standardised codes, less the penalty
    weighted = (4 * mixed * two_of_three + clean) / (4 * mixed + clean)
    assert found.disentanglement.value == pytest.approx(weighted, abs=1e-3)
    assert found.completeness.value == pytest.approx((2 * two_of_three + 1) / 3, abs=1e-3)
    assert found.informativeness.value > 0.99
    found = d.dci(codes, v)
    np.testing.assert_allclose(found.disentanglement.latents[2], 1, atol=1e-6)
    assert found.completeness.each[:2] == pytest.approx(two_of_three, abs=0.1)


def test_a_noisy_code_has_the_scores_of_a_gaussian_channel():
    """z = +-1 with noise s: R^2, accuracy, area and information in closed form or by quadrature."""
    rng, s, n = np.random.default_rng(0), 0.8, 6000
    v = rng.integers(2, size=(n, 2))
    codes = 2.0 * v - 1 + s * rng.normal(size=v.shape)
    error = 4 / math.sqrt(n / 3)  # of a share of the data that are tested, with room for those learned from
    assert d.sap_regression(codes, v).value == pytest.approx(1 / (1 + s**2), abs=error)
    assert d.sap_classifier(codes, v).value == pytest.approx(ndtr(1 / s) - 0.5, abs=error)
    assert d.explicitness(codes, v).value == pytest.approx(ndtr(2 / (s * math.sqrt(2))), abs=error)
    assert d.dci(codes, v).informativeness.value == pytest.approx(ndtr(1 / s), abs=error)
    x = np.linspace(-10, 10, 20_001)
    density = np.exp(-0.5 * ((x - 1) / s) ** 2) / (s * math.sqrt(2 * math.pi))
    left = np.sum(density * np.log1p(np.exp(-2 * x / s**2))) * (x[1] - x[0])  # H(v | z), by symmetry
    want = 1 - left / math.log(2)
    assert d.info_e(codes, v).value == pytest.approx(want, abs=error)
    matrix = d.info_matrix(codes, v)
    np.testing.assert_allclose(np.diag(matrix), want, atol=error)
    assert d.info_m(matrix, d.in_use(codes)).value > 0.95


def test_latents_of_noise_are_left_out():
    """Pure noise has a modularity of 0.67 on dSprites, because factors with many values share more by chance."""
    rng = np.random.default_rng(0)
    v = np.stack([rng.integers(k, size=3000) for k in DSPRITES], 1)
    noise = rng.normal(size=(3000, 10))
    assert d.modularity(noise, v, kept=np.ones(10, bool)).value == pytest.approx(0.67, abs=0.05)
    assert not d.informative(noise, v).any()
    assert d.modularity(noise, v).value == 0
    codes = np.concatenate([standard(v), noise], 1)
    assert d.informative(codes, v).tolist() == [True] * 5 + [False] * 10
    score = d.modularity(codes, v)
    assert score.value == pytest.approx(1, abs=0.01)
    assert np.isnan(score.latents[5:]).all()
    assert d.modularity(codes, v, kept=np.ones(15, bool)).value < 0.85


def test_noise_that_groups_share_is_left_out():
    """Noise of 60 subjects about a factor of subjects, in 10 rows each: 600 rows have no more information than 60."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(60), 10)
    angle = np.tile(np.arange(10), 60)  # in the same order in every group
    v = np.stack([rng.integers(4, size=60)[group], angle], 1)
    noise = rng.normal(size=(60, 4))[group]
    codes = np.concatenate([noise, standard(v)], 1)
    assert d.informative(codes, v)[:4].any()  # as if rows were independent
    assert d.informative(codes, v, group).tolist() == [False] * 4 + [True] * 2
    order = rng.permutation(600)  # the result does not depend on the order of the rows
    assert d.informative(codes[order], v[order], group[order]).tolist() == [False] * 4 + [True] * 2
    uneven = np.repeat(np.arange(3), [2, 3, 5])
    drawn = uneven[shuffle(10, uneven, rng)]
    assert [len(set(drawn[uneven == g])) for g in range(3)] == [1, 1, 1]
    assert len(set(drawn)) == 3


def test_pairs_are_of_different_data_with_the_same_value():
    v = np.array([[0], [1], [1], [2], [2], [2]])
    one, other = Alike(v, np.random.default_rng(0)).pairs(0, (4000,))
    assert (one != other).all()
    assert (v[one, 0] == v[other, 0]).all()
    counts = np.bincount(one * 6 + other, minlength=36).reshape(6, 6)
    np.testing.assert_allclose(counts[1:3, 1:3].sum() / 4000, 2 / 5, atol=0.04)
    np.testing.assert_allclose(counts[3:, 3:][~np.eye(3, dtype=bool)] / 4000, 0.1, atol=0.03)


def test_the_beta_score_of_noise_is_at_chance_for_factors_of_many_values():
    """A datum is no pair of its own: pairs of a factor with 200 values of 10 data each would be the same in 10%."""
    rng = np.random.default_rng(0)
    v = np.stack([rng.integers(2, size=2000), np.repeat(np.arange(200), 10)], 1)
    found = d.beta_score(rng.normal(size=(2000, 3)), v, votes=1500, tests=1500)
    assert found.value == pytest.approx(0.5, abs=0.1)


def test_entropies_of_many_values_need_little_memory():
    """10,000 values: a table of their pairs has 10^8 cells."""
    v = np.stack([np.arange(10_000), np.arange(10_000) % 7], 1)
    tracemalloc.start()
    np.testing.assert_allclose(d.entropies(v), [math.log(10_000), math.log(7)], rtol=1e-5)
    codes = np.random.default_rng(0).normal(size=(10_000, 40))
    information = d.mutual_information(d.binned(codes), v)
    assert tracemalloc.get_traced_memory()[1] < 400e6
    tracemalloc.stop()
    np.testing.assert_allclose(information[3:4], d.mutual_information(d.binned(codes[:, 3:4]), v))


def test_a_value_that_was_not_learned_has_no_information():
    """InfoE counts it as predicted with probability 1/K; the other data are known exactly."""
    v = np.repeat([0, 1, 2], [200, 200, 4])
    group = np.concatenate([np.arange(400), np.full(4, 400)])
    seed = next(s for s in range(40) if 2 not in parts(v[:, None], v, group, seed=s).v)
    codes = standard(np.stack([v, v], 1)) * 10
    data = parts(codes, v, group, seed=seed)
    unknown = (data.v_test == 2).mean()
    assert unknown > 0
    assert d.info_e(codes, v, group, seed=seed).value == pytest.approx(1 - unknown, abs=0.01)


def test_without_a_code_values_of_any_frequency_have_an_info_e_of_nothing():
    v = np.repeat([0, 1], [540, 60])
    assert d.info_e(np.zeros((600, 2)), v).value == pytest.approx(0, abs=1e-6)


def test_a_collapsed_code_is_at_chance(factors):
    codes = 1e-4 * np.random.default_rng(0).normal(size=(480, 3))
    found = of_each(codes, factors)
    chance = {
        "factor_vae": 1 / 3,
        "beta_vae": 1 / 3,
        "explicitness": 0.5,
        "mig": 0,
        "med": 0,
        "modularity": 0,
        "sap": 0,
    }
    assert {name: found[name] for name in chance} == pytest.approx(chance, abs=0.08)
    assert found["info_e"] < 0.02
    assert found["disentanglement"] < 0.1
    assert not d.informative(codes, factors).any()
    constant = np.zeros((480, 3))
    assert d.dci(constant, factors).disentanglement.value == 0
    assert d.dci(constant, factors, predictor="lasso").completeness.value == 0
    assert d.med(constant, factors).value == 0
    assert d.explicitness(constant, factors).value == 0.5
    assert d.info_e(constant, factors).value == pytest.approx(0, abs=1e-6)
    nobody = np.zeros(3, bool)
    assert d.info_m(d.info_matrix(constant, factors), nobody).value == 0
    assert d.info_c(d.info_matrix(constant, factors), nobody).value == 0


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_score_equals_the_slow_one(mixed):
    codes, v = mixed
    data, all_of_them, raw = parts(codes, v), np.ones(5, bool), parts(codes, v, standardise=False)
    assert d.mig_lib(codes, v).value == pytest.approx(slow.mig(codes, v), abs=1e-12)
    assert d.med(codes, v).value == pytest.approx(slow.med(codes, v), abs=1e-8)
    assert d.modularity(codes, v, kept=all_of_them).value == pytest.approx(slow.modularity(codes, v), abs=1e-12)
    assert d.sap_regression(codes, v).value == pytest.approx(slow.sap_regression(codes, v), abs=1e-12)
    assert d.sap_classifier(codes, v).value == pytest.approx(slow.sap_classifier(raw, 1e-10), abs=1e-12)
    assert d.explicitness(codes, v).value == pytest.approx(slow.explicitness(data), abs=1e-9)
    assert d.info_e(codes, v).value == pytest.approx(slow.info_e(data), abs=1e-9)
    matrix, reference = d.info_matrix(codes, v), slow.info_matrix(codes, v)
    np.testing.assert_allclose(matrix, reference, atol=1e-12)
    assert d.info_m(matrix, all_of_them).value == pytest.approx(slow.info_m(reference), abs=1e-12)
    assert d.info_c(matrix, all_of_them).value == pytest.approx(slow.info_c(reference), abs=1e-12)
    lasso = d.dci(codes, v, predictor="lasso")
    fast = (lasso.disentanglement.value, lasso.completeness.value, lasso.informativeness.value)
    assert fast == pytest.approx(slow.dci_lasso(data), abs=1e-8)
    votes = {"votes": 1500, "tests": 1500, "size": 16}
    error = 4 * math.sqrt(0.25 / 1500) * math.sqrt(2)  # both are shares of 1500 votes: 0.07
    assert d.factor_score(codes, v, **votes).value == pytest.approx(slow.factor_score(codes, v, **votes), abs=error)
    assert d.beta_score(codes, v, **votes).value == pytest.approx(slow.beta_score(codes, v, **votes), abs=error)


def labelled(classes):
    """Classes and three latents of a few values: two about the class, with noise, and one of noise."""
    rng = np.random.default_rng(classes)
    label = rng.integers(classes, size=900)
    codes = np.stack([label, (label * 3) % classes, 0 * label], 1) + 1.5 * rng.normal(size=(900, 3))
    return np.clip(np.round(codes), 0, classes), label


@pytest.mark.parametrize("classes", [2, 4])
def test_trees_of_codes_in_bins_are_those_of_scikit_learn(classes, monkeypatch):
    codes, label = labelled(classes)
    monkeypatch.setattr(trees, "STAGES", 5)
    known, new = codes[:600], codes[600:]
    found = trees.boosted(known, label[:600], new)
    learned = GradientBoostingClassifier(n_estimators=5, random_state=0).fit(known, label[:600])
    np.testing.assert_allclose(found.importance, learned.feature_importances_, atol=1e-12)
    np.testing.assert_array_equal(found.predicted, learned.predict(new))


def test_latents_that_split_equally_well_share_the_gain(monkeypatch):
    """Scikit-learn gives it to one of them at random: two outcomes here, of which the shares are the mean."""
    codes, label = labelled(3)
    monkeypatch.setattr(trees, "STAGES", 1)
    found = trees.boosted(codes[:600], label[:600], codes[600:]).importance
    drawn = [
        GradientBoostingClassifier(n_estimators=1, random_state=seed).fit(codes[:600], label[:600])
        for seed in range(10)
    ]
    outcomes = np.unique(np.round([one.feature_importances_ for one in drawn], 9), axis=0)
    assert len(outcomes) == 2
    np.testing.assert_allclose(found, outcomes.mean(0), atol=1e-8)
    doubled = codes[:, [0, 0, 1, 2]]
    twice = trees.boosted(doubled, label, doubled).importance
    assert twice[0] == twice[1] > 0


def test_fast_and_slow_dci_agree(mixed):
    """The slow one equals `predictor="lib"`, which is measured once: its trees take seconds."""
    codes, v = mixed
    lib = d.dci(codes, v, predictor="lib")
    exact = (slow.disentanglement(lib.completeness.matrix), slow.completeness(lib.completeness.matrix))
    assert (lib.disentanglement.value, lib.completeness.value) == pytest.approx(exact)
    fast, exact = d.dci(codes, v), (*exact, lib.informativeness.value)
    assert fast.disentanglement.value == pytest.approx(exact[0], abs=0.02)
    assert fast.completeness.value == pytest.approx(exact[1], abs=0.02)
    assert fast.informativeness.value == pytest.approx(exact[2], abs=0.03)
    assert fast.completeness.matrix.sum(0) == pytest.approx(1)


def test_linear_machines_minimise_their_loss(mixed):
    """The derivative of the loss at the solution is 0 for 2 classes and for 6."""
    codes, v = mixed
    for k in (0, 2):
        x, y = codes[:, 1], v[:, k]
        w, b = machine(x, y)
        counts = np.bincount(y)
        for c in range(len(w)):
            own = y == (c if len(w) > 1 else 1)
            weight = np.where(own, len(x) / (len(counts) * counts[y]), 1.0 if len(w) > 1 else len(x) / (2 * counts[y]))
            sign = np.where(own, 1.0, -1.0)
            slack = np.maximum(0, 1 - sign * (w[c] * x + b[c]))
            assert w[c] == pytest.approx(0.02 * (weight * slack * sign * x).sum(), abs=1e-6)
            assert b[c] == pytest.approx(0.02 * (weight * slack * sign).sum(), abs=1e-6)


def test_machines_of_codes_of_any_scale_are_those_of_scikit_learn(mixed):
    """Codes are not standardised: one that hardly varies predicts the same value for all."""
    x, y = mixed[0][:, 1], mixed[1][:, 1]
    for scale in (0.01, 1.0, 30.0):
        learned = LinearSVC(C=0.01, class_weight="balanced", dual=False, tol=1e-12, max_iter=10_000)
        learned.fit(scale * x[:, None], y)
        w, b = machine(scale * x, y)
        np.testing.assert_allclose(w, learned.coef_[:, 0], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(b, learned.intercept_, rtol=1e-4, atol=1e-7)
    small = d.sap_classifier(mixed[0] * [0.01, 1, 1, 1, 1], mixed[1]).matrix[0]
    assert (small < d.sap_classifier(*mixed).matrix[0]).any()


def test_latents_that_vary_by_rounding_only_are_constant():
    codes = np.random.default_rng(0).normal(size=(90, 2)) * [1.0, 1e-9] + [0, 3]
    data = parts(codes, np.arange(90) % 3)
    assert data.z[:, 0].std() == pytest.approx(1)
    np.testing.assert_array_equal(data.z[:, 1], 0)
    alone = parts(1e-9 * codes[:, :1], np.arange(90) % 3)  # nothing varies more
    assert alone.z.std() == pytest.approx(1)


def test_areas_count_ties_half():
    scores = np.array([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5], [0.1, 0.9]])
    np.testing.assert_allclose(areas(scores, np.array([0, 0, 1, 1])), [0.875, 0.875])
    assert np.isnan(areas(scores, np.array([0, 0, 0, 0]))).all()


def test_runs_whose_latents_agree_replicate():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, 4))
    spun = z.copy()
    spun[:, :2] = np.stack([z[:, 0] + z[:, 1], z[:, 0] - z[:, 1]], 1) / math.sqrt(2)
    same = z[:, [2, 0, 3, 1]] * [-1, 2, 1, 0.5]
    for similarity, best in (("lasso", 0.9), ("spearman", 1.0)):  # the penalty of the lasso leaves 0.9 of 1
        agreeing = d.udr([z, same], similarity=similarity)
        np.testing.assert_allclose(agreeing.each, best, atol=0.06)  # Spearman: chance correlations of the others
        codes = [z, same, spun]
        np.testing.assert_allclose(d.udr(codes, similarity=similarity).each, slow.udr(codes, similarity), atol=1e-9)
    used = np.array([True, True, False, False])
    turned = d.udr([z, spun], used=[used, used], similarity="spearman")
    rank = 6 / math.pi * math.asin(0.5 / math.sqrt(2))  # Spearman's correlation of Gaussians correlated by 1/sqrt 2
    np.testing.assert_allclose(turned.each, rank / 2, atol=0.02)
    nothing = d.udr([z, same], used=[used, np.zeros(4, bool)])
    np.testing.assert_array_equal(nothing.each, 0)
    with pytest.raises(ChoiceError, match="two models or more"):
        d.udr([z])


def test_the_median_of_six_pairs_lies_between_all_of_them():
    """Six values are all on one side of the median with probability 2 / 64, and one of ten or none with 22 / 1024."""
    assert median_interval(np.arange(5.0)) is None
    assert median_interval(np.array([3.0, 1, 2, 6, 5, 4])) == (1, 6)
    assert median_interval(np.arange(10.0)) == (1, 8)


# --- errors -----------------------------------------------------------------------------------------------------


def test_a_group_counts_once(mixed):
    """Five copies of each datum, by group, have exactly the error of the data; as if independent, a smaller one."""
    codes, v = mixed
    few, copies = (codes[:200], v[:200]), (np.repeat(codes[:200], 5, 0), np.repeat(v[:200], 5, 0))
    group = np.repeat(np.arange(200), 5)

    def error(data, score, draws):
        z, y = data
        found = d.repeated(lambda rows: score(z[rows], y[rows]), draws)
        return d.spread(found, draws, score(z, y))

    for score in (d.mig_lib, d.sap_regression):
        one = error(few, score, d.bootstrap(few[1]))
        clustered = error(copies, score, d.bootstrap(copies[1], group))
        assert (clustered.se, clustered.low, clustered.high) == pytest.approx((one.se, one.low, one.high))
        np.testing.assert_allclose(clustered.each_se, one.each_se)
        many = error(few, score, d.bootstrap(few[1], draws=200)).se  # known to a twentieth
        assert error(copies, score, d.bootstrap(copies[1], draws=200)).se < 0.6 * many  # 1 / sqrt 5 is expected
        clustered = error(copies, score, d.subsamples(copies[1], group))
        assert clustered.se == pytest.approx(error(few, score, d.subsamples(few[1])).se)
    known = parts(copies[0], np.stack([group, copies[1][:, 0]], 1), group)
    assert not set(known.v[:, 0]) & set(known.v_test[:, 0])  # no group is both learned from and tested


def test_intervals_contain_the_score_of_the_population():
    """R^2 of a Gaussian channel, 1 / (1 + s^2), in 95% of 100 data sets: 88% and more are within chance."""
    rng, s = np.random.default_rng(0), 0.7
    inside = {"bootstrap": 0, "subsamples": 0}
    widths, values = {kind: [] for kind in inside}, []
    for _ in range(100):
        v = rng.integers(8, size=(400, 2))
        z = standard(v) + s * rng.normal(size=v.shape)
        z[:, 1] = rng.normal(size=400)  # a second latent of noise, so that the gap is R^2
        score = d.sap_regression(z, v[:, :1])
        values.append(score.value)
        for kind, draws in (("bootstrap", d.bootstrap(v)), ("subsamples", d.subsamples(v, draws=20))):
            found = d.repeated(lambda rows, z=z, v=v: d.sap_regression(z[rows], v[rows, :1]), draws)
            known = d.spread(found, draws, score)
            inside[kind] += known.low <= 1 / (1 + s**2) <= known.high
            widths[kind].append(known.high - known.low)
    assert min(inside.values()) >= 88
    for kind, degrees in (("bootstrap", 49), ("subsamples", 19)):
        wanted = 2 * t_quantile(0.05, degrees) * np.std(values)  # the deviation of 100 data sets is known to 7%
        assert np.mean(widths[kind]) == pytest.approx(wanted, rel=0.3)


def test_intervals_of_a_learned_score_contain_its_closed_form():
    """The area of a Gaussian channel, in 95% of 25 data sets: 21 and more are within chance."""
    rng, s, inside = np.random.default_rng(1), 1.0, 0
    for _ in range(25):
        v = rng.integers(2, size=(600, 1))
        z = 2.0 * v - 1 + s * rng.normal(size=v.shape)
        draws = d.subsamples(v)
        found = d.repeated(lambda rows, z=z, v=v: d.explicitness(z[rows], v[rows]), draws)
        known = d.spread(found, draws, d.explicitness(z, v))
        inside += known.low <= ndtr(2 / (s * math.sqrt(2))) <= known.high
        assert known.high - known.low < 0.2
    assert inside >= 21


def test_errors_that_are_unknown_are_none():
    v = np.array([[0], [1], [0], [1]])
    one = d.Score(0.5, np.array([0.5]), np.zeros((1, 1)))
    assert d.spread([one], d.bootstrap(v), one) is None
    assert not d.subsamples(v, np.zeros(4)).rows

    def undefined(rows):
        raise ChoiceError("no")

    assert d.repeated(undefined, d.bootstrap(v)) == []


def test_what_cannot_be_scored_is_refused(factors):
    codes, single = standard(factors), factors[:, :1]
    for score in (d.med, d.modularity, d.beta_score):
        with pytest.raises(ChoiceError, match="two factors or more"):
            score(codes, single)
    assert d.dci(codes, single).disentanglement is None
    with pytest.raises(ChoiceError, match="one of trees, lasso, lib"):
        d.dci(codes, factors, predictor="forest")
    with pytest.raises(ChoiceError, match="at most 256"):
        d.dci(codes, np.arange(480))
    with pytest.raises(ChoiceError, match="two data or groups"):
        d.explicitness(codes, factors, np.zeros(480))
    with pytest.raises(ChoiceError, match="single value"):
        d.sap_classifier(codes, np.repeat([0, 1], [479, 1]))


def test_a_single_latent_is_compared_with_none(factors):
    code = standard(factors)[:, :1]
    assert d.sap_regression(code, factors[:, :1]).value == pytest.approx(1)
    assert d.dci(code, factors[:, :1]).completeness.value == 1
    assert d.info_c(d.info_matrix(code, factors[:, :1]), np.ones(1, bool)).value == 1
