"""Metrics as registered: each by name, with unit and protocol, computing only what it needs, refused with a reason."""

import math

import numpy as np
import pytest
import torch
from core_helpers import LinearGaussian, model_of

import vaekit as vk
from vaekit.data.observation import Identity
from vaekit.errors import ChoiceError
from vaekit.metrics import METRICS, Measurement, Result, compare_all, evaluate, registry
from vaekit.metrics.codes import cluster_agreement, knn_correct, probe_correct, silhouettes
from vaekit.metrics.disentanglement import (
    bootstrap,
    factor_score,
    measured,
    mig_chen,
    mig_lib,
    repeated,
    sap_regression,
    spread,
    trees,
    udr,
)
from vaekit.metrics.images import psnr, ssim
from vaekit.metrics.samples import Components, frechet
from vaekit.objectives import ELBO
from vaekit.recipes import Composition
from vaekit.report import FIGURES, Look
from vaekit.report.numbers import verdict

QUIET = {"progress": False, "compile": "off", "device": "cpu"}
TINY = {"latent": 3, "hidden": (8,), "steps": 5, **QUIET}


def numbers(run, *names, **how):
    return {m["name"]: m for m in evaluate(run, metrics=names, store=False, **how)}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return vk.fit("digits", "vae", out=tmp_path_factory.mktemp("runs") / "vae", **TINY)


@pytest.fixture(scope="module")
def factors(tmp_path_factory):
    """Twenty combinations of two factors, ten times over with a little noise, in eight columns."""
    rng = np.random.default_rng(0)
    a, b = (v.ravel() for v in np.meshgrid(np.arange(4), np.arange(5)))
    a, b = np.tile(a, 30), np.tile(b, 30)
    x = np.stack([a, b, a, b, a, b, a + b, a - b], 1) + 0.1 * rng.normal(size=(600, 8))
    data = vk.from_arrays(x.astype(np.float32), columns={"a": a, "b": b}, factor_names=["a", "b"], label=a, test=0.5)
    return vk.fit(data, "vae", out=tmp_path_factory.mktemp("runs") / "factors", **TINY)


class Counting:
    """Counts the codes decoded and the data encoded by a run's model."""

    def __init__(self, run):
        self.decoded = self.encoded = 0
        likelihood, posterior = run.model.likelihood, run.model.posterior
        self.hooks = [
            likelihood.register_forward_pre_hook(lambda _, z: self.count("decoded", z[0].shape[:-1])),
            posterior.register_forward_pre_hook(lambda _, x: self.count("encoded", x[0].shape[:1])),
        ]

    def count(self, what, shape):
        setattr(self, what, getattr(self, what) + math.prod(shape))


@pytest.fixture
def counting(digits):
    found = Counting(digits)
    yield found
    for hook in found.hooks:
        hook.remove()


@pytest.mark.parametrize(
    ("names", "decoded", "encoded"),
    [
        (["active_units"], 0, 50),  # codes only
        (["mse"], 50, 50),
        (["mse", "psnr", "ssim"], 50, 50),  # reconstructions are shared
        (["silhouette", "cluster_agreement"], 0, 50),
        (["entropy_floor"], 1, 1),  # of one datum, to see that p(x|z) is discrete
    ],
)
def test_one_metric_does_not_run_what_it_does_not_need(digits, counting, names, decoded, encoded):
    evaluate(digits, n=50, metrics=names, store=False)
    assert (counting.decoded, counting.encoded) == (decoded, encoded)


def test_the_kl_alone_takes_no_importance_samples(digits, counting):
    evaluate(digits, n=50, samples=100, metrics=["rate"], store=False)
    assert counting.decoded <= 52  # one draw of each datum, and of one to see that the KL has a closed form


def test_metrics_asked_for_alone_equal_those_measured_together(digits):
    whole = {m["name"]: m for m in evaluate(digits, samples=3, n=60, store=False)}
    for name, found in whole.items():
        alone = numbers(digits, name, samples=3, n=60)[name]
        assert alone["protocol"] == found["protocol"]
        assert alone["value"] == pytest.approx(found["value"], rel=1e-5)
        if found["se"] is not None:
            assert alone["se"] == pytest.approx(found["se"], rel=1e-4)


def test_reconstruction_errors_are_those_of_reconstructions(digits):
    found = numbers(digits, "mse", "psnr", "ssim")
    raw, again = digits.data.events(digits.data.test[:]).astype(float), digits.reconstruct("test")
    each = ((raw - again) ** 2).mean((1, 2, 3)) / 16**2
    assert found["mse"]["value"] == pytest.approx(each.mean(), rel=1e-5)
    assert found["mse"]["se"] == pytest.approx(each.std(ddof=1) / math.sqrt(len(each)), rel=1e-5)
    assert found["psnr"]["value"] == pytest.approx(-10 * np.log10(each).mean(), rel=1e-5)
    assert found["psnr"]["value"] == pytest.approx(psnr(raw, again, 16).mean(), rel=1e-5)
    assert found["ssim"]["value"] == pytest.approx(ssim(raw, again, 16).mean(), rel=1e-5)
    assert found["psnr"]["protocol"]["n"] == len(raw)
    assert "peak 16" in found["psnr"]["protocol"]["estimator"]


def test_classes_of_codes_are_those_of_the_functions_on_arrays(digits):
    found = numbers(digits, "knn", "linear_probe", "silhouette", "cluster_agreement")
    known, new = digits.encode("train"), digits.encode("test")
    y, y_new = digits.data.train.label, digits.data.test.label
    right = knn_correct(known, y, new, y_new)
    assert found["knn"]["value"] == pytest.approx(right.mean())
    assert found["knn"]["se"] == pytest.approx(right.std(ddof=1) / math.sqrt(len(right)))
    assert found["linear_probe"]["value"] == pytest.approx(probe_correct(known, y, new, y_new).mean())
    assert found["silhouette"]["value"] == pytest.approx(silhouettes(new, y_new).mean())
    assert found["cluster_agreement"]["value"] == pytest.approx(cluster_agreement(new, y_new).mean())


def test_disentanglement_is_that_of_the_functions_on_arrays(factors):
    found = numbers(factors, "mig", "mig_chen", "factor_vae_score")
    means, test = factors.encode("test"), factors.data.test
    v = np.stack([test.columns["a"], test.columns["b"]], 1)
    with torch.no_grad():
        q = factors.model.posterior(factors.observed("test")(np.arange(len(means))))
    assert found["mig"]["value"] == pytest.approx(mig_lib(means, v).value)
    assert found["mig_chen"]["value"] == pytest.approx(mig_chen(means, q.stddev.numpy(), v).value, rel=1e-4)
    assert found["factor_vae_score"]["value"] == pytest.approx(factor_score(means, v).value)
    assert "factors a, b" in found["mig"]["protocol"]["estimator"]
    assert found["mig"]["se"] > 0


def test_the_frechet_distance_is_that_of_the_function_on_arrays(factors):
    found = numbers(factors, "frechet", seed=3)["frechet"]
    data = factors.data
    seen = Components(data.events(data.train[:]), 32)
    drawn = factors.sample(len(data.test), seed=3)
    expected = frechet(seen(drawn), seen(data.events(data.test[:]))) / seen.total
    assert found["value"] == pytest.approx(expected, rel=1e-5)
    assert found["se"] > 0
    assert "8 principal components of 240 training data" in found["protocol"]["estimator"]


def test_components_of_more_columns_than_rows_are_those_of_a_singular_value_decomposition():
    x = np.random.default_rng(0).normal(size=(20, 50)) * np.linspace(3, 0.5, 50)
    seen = Components(x, 5)
    _, s, v = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(seen.variances, s[:5] ** 2 / 20)
    np.testing.assert_allclose(np.abs(np.sum(seen.axes * v[:5].T, 0)), 1)
    assert seen.total == pytest.approx((s**2).sum() / 20)


def test_the_squared_error_of_a_linear_model_is_the_closed_form():
    """z is found as E[z|x], so x less its reconstruction is M (x - b) with M = I - W A."""
    world = LinearGaussian(dtype=torch.float32)
    run = model_of(Composition(world.model, ELBO(), Identity()), (5,))
    x = world.data(400)
    A = world.model.posterior.net.out.weight.detach().double()
    errors = ((x - world.b) @ (torch.eye(5).double() - world.W @ A).T).square().mean(1).numpy()
    found = numbers(run, "mse", data=x.numpy())["mse"]
    assert found["value"] == pytest.approx(errors.mean(), rel=1e-4)
    assert found["unit"] == "squared units of the data"
    assert found["protocol"]["units"] == "x in the data's own units"


def test_values_that_are_missing_are_left_out_of_the_squared_error(tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 4))
    x[::3, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    run = vk.fit(vk.load(tmp_path / "x.npy", missing="mask"), "vae", out=tmp_path / "run", **TINY)
    raw, again = run.data.test[:], run.reconstruct("test")
    assert numbers(run, "mse")["mse"]["value"] == pytest.approx(np.nanmean((raw - again) ** 2, 1).mean(), rel=1e-5)
    for name in ("frechet", "psnr"):
        with pytest.raises(ChoiceError, match="images" if name == "psnr" else "missing"):
            evaluate(run, metrics=[name])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("psnr", "needs images, and this run models vector data"),
        ("entropy_floor", "binarised data"),
        ("bits_per_dim", "discrete likelihood"),
    ],
)
def test_a_metric_that_cannot_be_computed_says_why(factors, name, why):
    with pytest.raises(ChoiceError, match=why):
        evaluate(factors, metrics=["rate", name])


def test_a_metric_that_needs_classes_or_factors_says_how_data_get_them(digits, tmp_path):
    data = vk.from_arrays(np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32))
    m = Measurement(digits, "test")
    assert "two factors or more" in METRICS["factor_vae_score"].lacking(m)
    assert METRICS["mig"].lacking(m) is None
    x = digits.data.events(digits.data.test[slice(0, 3)])
    assert "run's own data only" in METRICS["knn"].lacking(Measurement(digits, x))
    run = vk.fit(data, "vae", out=tmp_path / "run", **TINY)
    with pytest.raises(ChoiceError, match=r"or a table with `label=COLUMN`; of arrays, vk.from_arrays"):
        evaluate(run, metrics=["knn"])
    with pytest.raises(ChoiceError, match="`factor_names`"):
        evaluate(run, metrics=["mig"])


def test_every_metric_states_what_it_is():
    for name, metric in METRICS.items():
        assert name == metric.name
        assert metric.help
        assert not metric.help.endswith(".")
        assert metric.unit
        assert metric.better in ("higher", "lower", None)


def test_a_difference_is_paired_by_datum_and_says_which_run_is_better(digits, tmp_path):
    other = vk.fit("digits", "vae", out=tmp_path / "run", seed=1, **TINY)
    found = vk.compare(digits, other, samples=3)
    scores = [run.score("test", samples=3) for run in (digits, other)]
    each = scores[0] - scores[1]
    assert found["value"] == pytest.approx(each.mean(), rel=1e-4, abs=1e-5)
    assert found["se"] == pytest.approx(each.std(ddof=1) / math.sqrt(len(each)), rel=1e-4)
    assert (found["a"], found["b"]) == pytest.approx((scores[0].mean(), scores[1].mean()))
    unpaired = math.hypot(*(s.std(ddof=1) / math.sqrt(len(s)) for s in scores))
    assert found["se"] < unpaired / 2
    whole = compare_all(digits, other, samples=3)
    assert whole[3] == found
    other_kinds = {"kl_per_latent", "code_perplexity", "codes_used"}  # several values; of discrete codes
    wanted = [m.name for m in METRICS.values() if m.default and m.of == "model" and m.name not in other_kinds]
    assert [m["name"].removesuffix(" difference") for m in whole] == wanted
    assert verdict({**found, "value": 3 * found["se"]}, ("a", "b")) == "a is better"
    assert verdict({**found, "value": -3 * found["se"]}, ("a", "b")) == "b is better"
    assert verdict({**found, "value": 0.5 * found["se"]}, ("a", "b")) == "no clear difference"
    with pytest.raises(ChoiceError, match="latents of two runs do not correspond"):
        vk.compare(digits, other, samples=3, metric="kl_per_latent")


def test_a_lower_error_is_better():
    lower = {"value": -1.0, "se": 0.1, "better": "lower", "protocol": {"n": 100}}
    assert verdict(lower, ("a", "b")) == "a is better"
    assert verdict({**lower, "better": None}, ("a", "b")) == "they differ"
    assert verdict({**lower, "se": None}, ("a", "b")) == "its standard error is unknown"


def test_an_autoencoder_is_compared_with_a_vae_by_what_both_have(digits, tmp_path):
    plain = vk.fit("digits", "ae", out=tmp_path / "run", **TINY)
    assert [m["name"] for m in compare_all(digits, plain, samples=2)] == ["active_units difference"]
    with pytest.raises(ChoiceError, match="measured differently in the two runs"):
        vk.compare(digits, plain, samples=2, metric="distortion")
    with pytest.raises(ChoiceError, match=r"no log p\(x\)"):
        vk.compare(digits, plain, samples=2)
    errors = [((run.data.test[:][:, None] - run.reconstruct("test")) / 16) ** 2 for run in (digits, plain)]
    each = errors[0].mean((1, 2, 3)) - errors[1].mean((1, 2, 3))
    assert vk.compare(digits, plain, metric="mse")["value"] == pytest.approx(each.mean(), rel=1e-4)


def test_a_metric_whose_results_are_not_what_it_declares_is_refused(digits, monkeypatch):
    monkeypatch.setattr(METRICS, "entries", dict(METRICS.entries))
    registry.metric("broken", "of 1")(lambda m: Result("made up", value=1.0))
    with pytest.raises(ChoiceError, match="register it with `per_datum=False`"):
        evaluate(digits, metrics=["broken"], store=False)
    with pytest.raises(ChoiceError, match="there is a metric 'mse' already"):
        registry.metric("mse", "of 1")(lambda m: Result("made up", value=1.0))


# --- disentanglement as a family ----------------------------------------------------------------------------------


def test_a_family_is_measured_by_its_name(factors, monkeypatch):
    """Every score has an interval, a value per factor and a matrix; all are stored with the run and on its page."""
    monkeypatch.setattr(trees, "STAGES", 5)  # a twentieth of the time
    names = [name for name, metric in METRICS.items() if metric.family == "disentanglement"]
    assert {"dci_completeness", "sap_classifier", "explicitness", "info_e", "udr"} < set(names)
    assert not {"dci_lib_disentanglement", "mse"} & set(names)
    run = vk.open(factors.path, data=factors.data)
    found = {m["name"]: m for m in evaluate(run, metrics=["disentanglement"])}
    assert set(names) - set(found) == {"udr"}  # there is one run
    for m in found.values():
        assert m["interval"]["low"] <= m["value"] <= m["interval"]["high"], m["name"]
        assert m["interval"]["of"].startswith(("50 bootstrap draws of data", "12 subsamples of 150 data"))
        assert list(m["each"]) == m["matrix"]["columns"] == ["a", "b"]
        assert m["matrix"]["rows"] == ["z0", "z1", "z2"]
        assert "factors a, b" in m["protocol"]["estimator"]
    stored = {m["name"]: m for m in vk.open(factors.path).metrics}
    assert stored["info_m"] == found["info_m"]
    scores, maps = FIGURES["factors"].section(Look(run)).blocks
    assert scores.head == ["score", "value ± standard error", "95% interval", "a", "b"]
    assert "DCI completeness (lasso)" in [row[0] for row in scores.rows]
    assert len(scores.rows) == len(found)
    assert maps.height > 300
    with pytest.raises(ChoiceError, match="needs runs of the same settings and other seeds"):
        evaluate(run, metrics=["disentanglement", "udr"], store=False)
    assert [m["name"] for m in compare_all(run, run, metrics=["disentanglement"])] == [f"{n} difference" for n in found]


def test_errors_of_scores_are_by_group(tmp_path):
    """Ten copies of each row: errors by group are about sqrt 10 times those that take the copies for independent."""
    rng = np.random.default_rng(0)
    a = rng.integers(4, size=60)
    x = np.stack([a, -a, a], 1) + rng.normal(size=(60, 3))
    x, a, group = np.repeat(x, 10, 0).astype(np.float32), np.repeat(a, 10), np.repeat(np.arange(60), 10)
    columns = {"a": a, "site": group}
    grouped = vk.from_arrays(x, columns=columns, factor_names=["a"], group="site", test=0.5)
    run = vk.fit(grouped, "vae", out=tmp_path / "run", **TINY)
    found = numbers(run, "sap_regression", "explicitness")
    assert found["sap_regression"]["interval"]["of"] == "50 bootstrap draws of groups"
    assert found["explicitness"]["interval"]["of"].startswith("12 subsamples of ")
    assert "groups without replacement" in found["explicitness"]["interval"]["of"]
    z, v = run.encode("test"), grouped.test.columns["a"][:, None]
    plain = bootstrap(v)
    each = repeated(lambda rows: sap_regression(z[rows], v[rows]), plain)
    assert found["sap_regression"]["se"] > 2 * spread(each, plain, sap_regression(z, v)).se


def test_a_family_of_which_nothing_applies_says_why(tmp_path):
    data = vk.from_arrays(np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32))
    run = vk.fit(data, "vae", out=tmp_path / "run", **TINY)
    with pytest.raises(ChoiceError, match="mig needs known generative factors"):
        evaluate(run, metrics=["disentanglement"])
    assert {m["name"] for m in evaluate(run, metrics=["images", "mse"])} == {"mse"}
    with pytest.raises(ChoiceError, match="did you mean 'disentanglement'"):
        evaluate(run, metrics=["disentaglement"])


def test_a_score_that_is_undefined_is_left_out_of_its_family(tmp_path, capsys):
    """A real-valued factor has no scores of values that occur twice, and data of one group none that is learned."""
    rng = np.random.default_rng(0)
    x, columns = rng.normal(size=(80, 4)), {"a": np.arange(80) % 3, "t": rng.normal(size=80)}
    data = vk.from_arrays(x.astype(np.float32), columns=columns, factor_names=["a", "t"], test=0.5)
    run = vk.fit(data, "vae", out=tmp_path / "real", **TINY)
    found = numbers(run, "disentanglement")
    assert {"mig", "med", "modularity", "sap_regression"} <= set(found)
    assert not {"factor_vae_score", "beta_vae_score"} & set(found)
    with pytest.raises(ChoiceError, match="every value of 't' occurs once"):
        evaluate(run, metrics=["disentanglement", "beta_vae_score"], store=False)
    columns = {"a": np.arange(80) % 3, "site": np.arange(80) // 20}
    data = vk.from_arrays(x.astype(np.float32), columns=columns, factor_names=["a"], group="site", test=0.25)
    run = vk.fit(data, "vae", out=tmp_path / "grouped", **TINY)
    found = numbers(run, "disentanglement")
    assert "mig" in found
    assert "explicitness" not in found
    assert "note: explicitness is left out: " in capsys.readouterr().err
    with pytest.raises(ChoiceError, match="two data or groups are needed"):
        evaluate(run, metrics=["explicitness"], store=False)


def test_learned_scores_are_of_data_at_random(factors, monkeypatch):
    monkeypatch.setattr(measured, "LEARNED", 60)
    monkeypatch.setattr(measured, "TESTED", 30)
    m = Measurement(factors, "test")
    few, everything = measured.few_coded(m), measured.coded(m)
    assert few.z.shape == (90, 3)
    assert not np.array_equal(few.v, everything.v[:90])
    found = numbers(factors, "sap_classifier")["sap_classifier"]
    assert "two thirds of 90 data at random to learn from" in found["protocol"]["estimator"]


def test_seeds_in_one_folder_replicate(tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 2)) @ np.random.default_rng(1).normal(size=(2, 6))
    data = vk.from_arrays(x.astype(np.float32))
    how = {**TINY, "steps": 60, "latent": 2}
    runs = [vk.fit(data, "vae", out=tmp_path / f"seed {s}", seed=s, **how) for s in range(3)]
    vk.fit(data, "vae", out=tmp_path / "other", seed=9, beta=2.0, **how)
    found = numbers(runs[0], "udr")["udr"]
    assert list(found["each"]) == ["seed 1", "seed 2"]
    codes = [run.encode("test") for run in runs]
    used = [run.kl_per_latent("test") > 0.01 for run in runs]
    assert found["value"] == pytest.approx(udr(codes, used=used).each[0])
    assert "median over 2 runs with other seeds" in found["protocol"]["estimator"]
    assert "interval" not in found  # which needs six pairs
