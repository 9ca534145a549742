"""The estimator: scikit-learn's own checks, a pipeline, a grid search, and equality with an ordinary run."""

import copy
import gc
import os
import pickle
import signal

import joblib
import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import vaekit as vk
from vaekit.errors import ChoiceError, RunError
from vaekit.sklearn import VAEDetector, VAEEstimator
from vaekit.training.loop import Trainer

SMALL = {"hidden": (8,), "compile": "off", "batch": 50}


NOISE = "log p(x) is estimated by samples, whose noise belongs to a row's place"
EXPECTED = {"check_methods_sample_order_invariance": NOISE, "check_methods_subset_invariance": NOISE}


@parametrize_with_checks(
    [VAEEstimator(latent=2, steps=3, settings=SMALL, samples=2)], expected_failed_checks=lambda estimator: EXPECTED
)
def test_it_has_an_estimators_manners(estimator, check):
    check(estimator)


ROUNDED = "scores are equal but for the rounding of float32, whose order of sums depends on the batch"


@parametrize_with_checks(
    [VAEDetector(latent=2, steps=3, settings=SMALL, samples=2)],
    expected_failed_checks=lambda estimator: dict.fromkeys(EXPECTED, ROUNDED),
)
@pytest.mark.filterwarnings("ignore:false_alarms=0.05 needs 19")
def test_it_is_a_scikit_learn_outlier_detector(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    z = np.stack([np.cos(2.1 * y), np.sin(2.1 * y)], 1) * 3 + 0.5 * rng.normal(size=(600, 2))
    return z @ rng.normal(size=(2, 7)) + 0.2 * rng.normal(size=(600, 7)), y


def test_codes_serve_a_classifier_in_a_pipeline(blobs):
    x, y = blobs
    vae = VAEEstimator(latent=2, steps=400, settings={"hidden": (32,), "compile": "off"})
    found = make_pipeline(StandardScaler(), vae, LogisticRegression()).fit(x[:400], y[:400])
    assert found.score(x[400:], y[400:]) > 0.95
    assert list(found[:-1].get_feature_names_out()) == ["vae0", "vae1"]


def test_a_linear_model_scores_as_probabilistic_pca_does(blobs):
    x, _ = blobs
    exact = PCA(2).fit(x[:500]).score(x[500:])
    found = VAEEstimator("linear", latent=2, steps=1000, settings={"compile": "off", "lr": 0.03}).fit(x[:500])
    # trained on 449 of the 500 rows, and by gradients
    assert found.score(x[500:]) == pytest.approx(exact, abs=0.5)
    back = found.inverse_transform(found.transform(x[500:]))
    assert back.shape == (100, 7)
    assert ((back - x[500:]) ** 2).mean() < 0.1
    assert found.sample(5, random_state=0).shape == (5, 7)


def test_a_search_prefers_the_latents_the_data_have(blobs):
    x, _ = blobs
    search = GridSearchCV(
        VAEEstimator(steps=300, settings={"hidden": (16,), "compile": "off"}, samples=20), {"latent": [1, 2]}, cv=2
    )
    assert search.fit(x).best_params_ == {"latent": 2}


def test_a_fitted_one_comes_back_from_bytes(blobs, tmp_path):
    x, _ = blobs
    found = VAEEstimator(latent=2, steps=20, settings=SMALL, out=tmp_path / "run").fit(x)
    assert (tmp_path / "run" / "run.json").exists()
    back = pickle.loads(pickle.dumps(found))  # what joblib does for work in several processes
    np.testing.assert_array_equal(back.transform(x[:9]), found.transform(x[:9]))


def test_images_and_recipes_with_labels(blobs):
    from sklearn.datasets import load_digits

    x = load_digits().data[:200].astype(np.uint8)
    found = VAEEstimator(shape=(1, 8, 8), latent=2, steps=5, settings=SMALL).fit(x)
    assert found.run_.spec.kind == "image"
    assert found.inverse_transform(found.transform(x[:3])).shape == (3, 64)
    with pytest.raises(ChoiceError, match="label"):
        VAEEstimator("conditional", steps=2, settings=SMALL).fit(blobs[0])


# --- how people use estimators ----------------------------------------------------------------------------------


def tiny(**more):
    return VAEEstimator(**{"latent": 2, "steps": 4, "settings": SMALL, "samples": 2, **more})


@pytest.fixture(scope="module")
def fitted(blobs):
    return tiny().fit(blobs[0][:80])


def test_before_fit_and_with_other_widths_it_says_so(blobs, fitted):
    x = blobs[0][:5]
    for use in ("transform", "score_samples", "inverse_transform", "score"):
        with pytest.raises(NotFittedError):
            getattr(tiny(), use)(x)
    for use in (tiny().sample, tiny().get_feature_names_out):
        with pytest.raises(NotFittedError):
            use()
    for use in ("transform", "score_samples", "score"):
        with pytest.raises(ValueError, match=r"X has 6 features.*7"):
            getattr(fitted, use)(x[:, :6])
    with pytest.raises(ValueError, match=r"3 columns, expected the 2"):
        fitted.inverse_transform(x[:, :3])
    with pytest.raises(ChoiceError, match=r"\(1, 8, 8\) has 64 numbers, a row of X 7"):
        tiny(shape=(1, 8, 8)).fit(x)


@pytest.mark.parametrize("valid", [-0.1, 1.0, 2, float("nan"), "some"])
def test_shares_for_validation_that_cannot_be(blobs, valid):
    with pytest.raises(ChoiceError, match=r"`valid` must lie in \[0, 1\)"):
        tiny(valid=valid).fit(blobs[0])


@pytest.mark.parametrize("valid", [0, 0.5, 0.99])
def test_any_share_leaves_rows_to_train_and_to_validate_on(blobs, valid):
    n = tiny(valid=valid).fit(blobs[0][:40]).run_.config["data"]["n"]
    assert (n["train"] >= 2, n["test"]) == (True, 1)
    assert n["valid"] == min(max(1, round(valid * 40)), 37)


def test_settings_are_given_once_and_by_their_own_names(blobs):
    for wrong, said in (
        (tiny(settings={**SMALL, "latent": 3}), "latent given both as an argument and in settings"),
        (tiny(settings={**SMALL, "seed": 3}), "random_state"),
        (tiny(settings={**SMALL, "resume": True}), "cannot contain 'resume'"),
        (tiny(epochs=3), "several"),
    ):
        with pytest.raises(ChoiceError, match=said):
            wrong.fit(blobs[0])


def test_a_later_fit_replaces_its_run_and_nobody_elses(blobs, tmp_path):
    x, out = blobs[0][:60], tmp_path / "run"
    found = tiny(out=out).fit(x)
    assert found.set_params(latent=3).fit(x).transform(x).shape == (60, 3)
    assert clone(found).fit(x).run_.path == out
    with pytest.raises(ChoiceError):  # and one that fails leaves it as it was
        found.set_params(latent=0).fit(x)
    assert found.transform(x).shape == (60, 3)
    np.save(tmp_path / "x.npy", x)
    vk.fit(tmp_path / "x.npy", out=tmp_path / "other", steps=2, progress=False, **SMALL)
    with pytest.raises(RunError, match="already holds a run"):
        tiny(out=tmp_path / "other").fit(x)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))], ids=["deepcopy", "pickle"])
def test_copies_are_fitted_and_need_the_first_no_more(blobs, copied):
    x = blobs[0][:50]
    first = tiny().fit(x)
    codes, scores = first.transform(x), first.score_samples(x)
    again = copied(copied(first))
    del first
    gc.collect()
    np.testing.assert_array_equal(again.transform(x), codes)
    np.testing.assert_array_equal(again.score_samples(x), scores)
    assert not hasattr(clone(again), "run_")


def test_joblib_keeps_it(blobs, fitted, tmp_path):
    joblib.dump(fitted, tmp_path / "vae.joblib")
    x = blobs[0][:9]
    np.testing.assert_array_equal(joblib.load(tmp_path / "vae.joblib").transform(x), fitted.transform(x))


def test_the_run_outlives_its_estimator(blobs):
    run = tiny().fit(blobs[0][:50]).run_
    gc.collect()
    assert run.log
    assert run.evaluate("valid", samples=2)


def test_data_frames_in_and_out(blobs):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(blobs[0][:60], columns=list("abcdefg"), index=range(100, 160))
    found = tiny().set_output(transform="pandas").fit(frame)
    assert list(found.feature_names_in_) == list("abcdefg")
    codes = found.transform(frame)
    assert list(codes.columns) == list(found.get_feature_names_out()) == ["vae0", "vae1"]
    assert list(codes.index) == list(frame.index)
    for wrong in (frame[list("gfedcba")], frame.rename(columns={"a": "z"})):
        with pytest.raises(ValueError, match="feature names"):
            found.transform(wrong)
    with pytest.raises(ValueError, match="could not convert"):
        tiny().fit(frame.assign(a="word"))


def test_what_it_does_not_take_is_refused_in_words(blobs):
    x = blobs[0][:40]
    with pytest.raises(TypeError, match="sample_weight"):
        tiny().fit(x, sample_weight=np.ones(40))
    with pytest.raises(TypeError, match="sample_weight"):
        make_pipeline(StandardScaler(), tiny()).fit(x, vaeestimator__sample_weight=np.ones(40))
    with pytest.raises(TypeError, match="dense"):
        tiny().fit(sparse.csr_matrix(x))
    with pytest.raises(ValueError, match="NaN"):
        tiny().fit(np.where(x > 3, np.nan, x))
    with pytest.raises(ValueError, match="infinity"):
        tiny().fit(np.where(x > 3, np.inf, x))
    with pytest.raises(ValueError, match="Expected 2D"):
        tiny().fit(x[0])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "bool"])
def test_numbers_of_any_type(blobs, dtype):
    x = np.abs(blobs[0][:40] * 10).clip(0, 200)
    x = x > 30 if dtype == "bool" else x.astype(dtype)
    found = tiny().fit(x)
    assert found.transform(x).dtype == np.float32
    assert np.isfinite(found.score_samples(x)).all()
    assert found.inverse_transform(found.transform(x)).shape == x.shape


def test_seeds(blobs):
    x = blobs[0][:40]
    codes = [tiny(random_state=state).fit_transform(x) for state in (0, 0, 1, None, None, np.random.RandomState(0))]
    np.testing.assert_array_equal(codes[0], codes[1])
    assert not np.array_equal(codes[0], codes[2])
    assert not np.array_equal(codes[3], codes[4])
    found = tiny().fit(x)
    np.testing.assert_array_equal(found.sample(3, random_state=1), found.sample(3, random_state=1))


def test_columns_unions_searches_and_cross_validation(blobs):
    x, y = blobs[0][:90], blobs[1][:90]
    columns = ColumnTransformer([("codes", tiny(), [0, 1, 2, 3]), ("rest", "passthrough", [4, 5])])
    assert columns.fit_transform(x).shape == (90, 4)
    assert list(columns.get_feature_names_out()) == ["codes__vae0", "codes__vae1", "rest__x4", "rest__x5"]
    assert make_union(tiny(), PCA(2)).fit_transform(x).shape == (90, 4)
    with joblib.parallel_config("threading"):
        search = GridSearchCV(tiny(), {"latent": [1, 2]}, cv=2, n_jobs=2, error_score="raise").fit(x)
    alone = GridSearchCV(tiny(), {"latent": [1, 2]}, cv=2, error_score="raise").fit(x)
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(search.cv_results_[name], alone.cv_results_[name])
    model = make_pipeline(StandardScaler(), tiny(), LogisticRegression())
    assert len(cross_val_score(model, x, y, cv=2, error_score="raise")) == 2
    cached = Pipeline([("vae", tiny()), ("clf", LogisticRegression())], memory=None).fit(x, y)
    assert cached.predict(x).shape == (90,)


def test_an_interrupted_fit_raises_and_keeps_what_was_fitted(blobs, monkeypatch):
    x = blobs[0][:40]
    found = tiny().fit(x)
    codes = found.transform(x)

    def interrupt(trainer):
        os.kill(os.getpid(), signal.SIGINT)
        return one_step(trainer)

    one_step = Trainer.one_step
    monkeypatch.setattr(Trainer, "one_step", interrupt)
    monkeypatch.setattr("builtins.__IPYTHON__", True, raising=False)
    with pytest.raises(KeyboardInterrupt):
        found.fit(x)
    np.testing.assert_array_equal(found.transform(x), codes)


def test_the_old_name_warns_and_keeps_the_names_of_steps(blobs):
    import vaekit.sklearn

    with pytest.warns(FutureWarning, match="VAEEstimator"):
        old = vaekit.sklearn.VAE
    assert issubclass(old, VAEEstimator)
    pipe = make_pipeline(StandardScaler(), old(latent=2, steps=2, settings=SMALL))
    assert pipe.set_params(vae__latent=3).named_steps["vae"].latent == 3
    with pytest.warns(FutureWarning):
        assert type(pickle.loads(pickle.dumps(clone(pipe[-1])))) is old
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = vaekit.sklearn.no_such_thing


def test_the_score_is_any_metric_that_has_a_better_direction(blobs):
    x = blobs[0][:80]
    plain = tiny(recipe="ae", metric="mse").fit(x)
    again = plain.inverse_transform(plain.transform(x))
    assert plain.score(x) == pytest.approx(-((x - again) ** 2).mean(), rel=1e-4)
    with pytest.raises(ValueError, match="unknown metric to score by 'rate'"):
        plain.set_params(metric="rate").score(x)
    with pytest.raises(ValueError, match=r"no log p\(x\)"):
        plain.set_params(metric="log_px_iw").score(x)
    usual = tiny().fit(x)
    assert usual.score(x) == pytest.approx(usual.score_samples(x).mean(), rel=1e-9)


def test_masked_values_are_not_data(blobs):
    """scikit-learn takes the values under the mask."""
    with pytest.raises(ValueError, match="X contains NaN"):
        VAEEstimator(steps=2).fit(np.ma.masked_greater(blobs[0], 1))


# --- the detector -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector(blobs):
    found = VAEDetector(latent=2, steps=60, false_alarms=0.1, held_out=0.4, settings=SMALL, samples=5)
    return found.fit(blobs[0][:400])


def test_outliers_are_flagged_and_others_at_the_rate(blobs, detector):
    x, far = blobs[0][400:], blobs[0][:20] + 30
    assert (detector.predict(far) == -1).all()
    # 160 rows for the threshold, with 40 for validation, and 200 new ones: three standard errors of their difference
    assert abs((detector.predict(x) == -1).mean() - 0.1) < 3 * np.sqrt(0.09 * (1 / 200 + 1 / 200))
    score = detector.score_samples(x)
    np.testing.assert_allclose(detector.decision_function(x), score - detector.offset_)
    np.testing.assert_array_equal(detector.predict(x) == -1, detector.p_values(x) <= detector.false_alarms_ + 1e-9)
    assert detector.run_.detect(x, false_alarms=0.1, samples=5).threshold == detector.offset_


def test_attributes_of_pyod_and_the_order_of_rows(blobs, detector):
    x = blobs[0][:400]
    np.testing.assert_allclose(detector.decision_scores_, -detector.score_samples(x))
    np.testing.assert_array_equal(detector.labels_, detector.decision_scores_ > detector.threshold_)
    assert detector.threshold_ == -detector.offset_
    np.testing.assert_allclose(detector.score_samples(x[::-1])[::-1], detector.score_samples(x), atol=1e-4)


def test_a_fitted_detector_comes_back_from_bytes(blobs, detector):
    x = blobs[0][400:420]
    back = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(back.predict(x), detector.predict(x))
    np.testing.assert_array_equal(back.p_values(x), detector.p_values(x))
    assert back.run_.detect(x, false_alarms=0.1, samples=5, reasons=False).held_out == 200


def test_outliers_among_the_rows_of_a_fit_are_found():
    """A tight group of a tenth of the rows, which an untrimmed model learns, stays unlikely for the default recipe."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 4))
    x[:60] = 4 + 0.3 * rng.normal(size=(60, 4))
    steps = {"steps": 150, "settings": {**SMALL, "lr": 0.01}, "samples": 10, "held_out": 0.1}
    area = {}
    for recipe in ("robust", "vae"):
        found = VAEDetector(recipe, **steps).fit(x)
        area[recipe] = roc_auc_score(np.arange(600) < 60, found.decision_scores_)
    assert area["robust"] > 0.99
    assert area["vae"] < 0.9


def test_few_rows_support_a_higher_rate_only(blobs):
    with pytest.warns(UserWarning, match="false_alarms=0.01 needs 99 held-out rows and has 24: the rate is 0.04"):
        found = VAEDetector(latent=2, steps=2, false_alarms=0.01, settings=SMALL, samples=2).fit(blobs[0][:40])
    assert found.false_alarms_ == 1 / 25
    for wrong, why in (
        ({"false_alarms": 0}, "between 0 and 1"),
        ({"held_out": 1.0}, r"`held_out` must lie in \(0, 1\)"),
    ):
        with pytest.raises(ChoiceError, match=why):
            VAEDetector(steps=2, **wrong).fit(blobs[0][:40])
