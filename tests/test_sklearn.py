"""The estimator: scikit-learn's own checks, a pipeline, a search, and that it is the run it says it is."""

import pickle

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from vaekit.errors import ChoiceError
from vaekit.sklearn import VAE

SMALL = {"hidden": (8,), "compile": "off", "batch": 50}


NOISE = "log p(x) is estimated by samples, whose noise belongs to a row's place"
EXPECTED = {"check_methods_sample_order_invariance": NOISE, "check_methods_subset_invariance": NOISE}


@parametrize_with_checks(
    [VAE(latent=2, steps=3, settings=SMALL, samples=2)], expected_failed_checks=lambda estimator: EXPECTED
)
def test_it_has_an_estimators_manners(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    z = np.stack([np.cos(2.1 * y), np.sin(2.1 * y)], 1) * 3 + 0.5 * rng.normal(size=(600, 2))
    return z @ rng.normal(size=(2, 7)) + 0.2 * rng.normal(size=(600, 7)), y


def test_codes_serve_a_classifier_in_a_pipeline(blobs):
    x, y = blobs
    vae = VAE(latent=2, steps=400, settings={"hidden": (32,), "compile": "off"})
    found = make_pipeline(StandardScaler(), vae, LogisticRegression()).fit(x[:400], y[:400])
    assert found.score(x[400:], y[400:]) > 0.95
    assert list(found[:-1].get_feature_names_out()) == ["vae0", "vae1"]


def test_a_linear_model_scores_as_probabilistic_pca_does(blobs):
    x, _ = blobs
    exact = PCA(2).fit(x[:500]).score(x[500:])
    found = VAE("linear", latent=2, steps=4000, settings={"compile": "off", "lr": 0.01}).fit(x[:500])
    # trained on 449 of the 500 rows, and by gradients
    assert found.score(x[500:]) == pytest.approx(exact, abs=0.5)
    back = found.inverse_transform(found.transform(x[500:]))
    assert back.shape == (100, 7)
    assert ((back - x[500:]) ** 2).mean() < 0.1
    assert found.sample(5, random_state=0).shape == (5, 7)


def test_a_search_prefers_the_latents_the_data_have(blobs):
    x, _ = blobs
    search = GridSearchCV(
        VAE(steps=300, settings={"hidden": (16,), "compile": "off"}, samples=20), {"latent": [1, 2]}, cv=2
    )
    assert search.fit(x).best_params_ == {"latent": 2}


def test_a_fitted_one_comes_back_from_bytes(blobs, tmp_path):
    x, _ = blobs
    found = VAE(latent=2, steps=20, settings=SMALL, out=tmp_path / "run").fit(x)
    assert (tmp_path / "run" / "run.json").exists()
    back = pickle.loads(pickle.dumps(found))  # what joblib does for work in several processes
    np.testing.assert_array_equal(back.transform(x[:9]), found.transform(x[:9]))


def test_images_and_recipes_with_labels(blobs):
    from sklearn.datasets import load_digits

    x = load_digits().data[:200].astype(np.uint8)
    found = VAE(shape=(1, 8, 8), latent=2, steps=5, settings=SMALL).fit(x)
    assert found.run_.facts.kind == "image"
    assert found.inverse_transform(found.transform(x[:3])).shape == (3, 64)
    with pytest.raises(ChoiceError, match="label"):
        VAE("conditional", steps=2, settings=SMALL).fit(blobs[0])
