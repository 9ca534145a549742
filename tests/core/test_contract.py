"""What every recipe owes its users, whatever its parts."""

import json
import shutil

import numpy as np
import pytest
import torch
from core_helpers import QUIET, blobs, same, tensors

import vaekit as vk
from vaekit.metrics.likelihood import per_datum
from vaekit.recipes import RECIPES
from vaekit.train import fit

NAMES = sorted(RECIPES)
SMALL = {"latent": 2, "hidden": (8,), "decoder_hidden": (8,), "channels": (4, 8)}
STEPS = 6


def choices(name):
    """Choices that make the recipe's net small, of those that it takes."""
    takes = RECIPES[name].parameters
    small = {k: v for k, v in SMALL.items() if k in takes}
    if isinstance(takes.get("hidden") and takes["hidden"].default, int):
        small["hidden"] = 8
    return small


@pytest.fixture(scope="module")
def data():
    return vk.from_arrays(blobs(70, 6, 5), name="blobs")


@pytest.fixture(scope="module", params=NAMES)
def run(request, data, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "run"
    return fit(
        data,
        request.param,
        out=out,
        steps=STEPS,
        batch=16,
        seed=2,
        checkpoint_steps=3,
        **QUIET,
        **choices(request.param),
    )


def test_its_terms_are_finite_and_add_up(run):
    train = [r for r in run.log if r["kind"] == "train"]
    assert train
    for record in train:
        assert all(np.isfinite(v) for v in record.values() if isinstance(v, float))
        assert record["elbo"] == pytest.approx(-(record["rate"] + record["distortion"]), rel=1e-5)
        assert record["rate"] >= 0


def test_it_opens_to_the_same_outputs(run, data):
    again = vk.open(run.path, data=data)
    x = data.test[:]
    for f in (
        lambda r: r.encode(x),
        lambda r: r.reconstruct(x),
        lambda r: r.sample(5),
        lambda r: r.score(x, samples=3),
        lambda r: r.encode(x, sample=True),
        lambda r: r.sample(5, noise=True, seed=4),
    ):
        assert np.array_equal(f(run), f(again))
    assert again.config["recipe"] == run.config["recipe"]


def test_encoding_and_reconstructing_draw_nothing_unless_asked(run, data):
    x = data.test[:]
    torch.manual_seed(0)
    a, b = run.encode(x), run.reconstruct(x)
    torch.manual_seed(1)
    assert np.array_equal(a, run.encode(x))
    assert np.array_equal(b, run.reconstruct(x))
    state = torch.get_rng_state()
    run.sample(3)
    run.score(x, samples=2)
    assert torch.equal(state, torch.get_rng_state())
    drawn = run.encode(x, sample=True)
    assert not np.array_equal(drawn, a)
    assert not np.array_equal(drawn, run.encode(x, sample=True, seed=1))
    if not run.composition.observation.stochastic:  # else a datum's draw goes by its number
        assert np.allclose(run.encode(x[3:4])[0], a[3], atol=1e-5)


def test_its_samples_are_data(run, data):
    for noise in (False, True):
        x = run.sample(7, noise=noise)
        assert x.shape == (7, *data.shape)
        assert np.isfinite(x).all()
        assert np.array_equal(x, run.sample(7, noise=noise))
        assert not np.array_equal(x, run.sample(7, noise=noise, seed=1))
    assert np.array_equal(run.sample(7)[:3], run.sample(3)) or np.allclose(run.sample(7)[:3], run.sample(3), atol=1e-3)
    still = run.sample(4, temperature=0.0)
    assert np.allclose(still, still[:1], atol=1e-5)


def test_a_score_does_not_depend_on_the_batch(run, data):
    run.use_data(data)
    whole = per_datum(run, run.observed("test"), 20)
    for batch in (1, 7, 100):
        part = per_datum(run, run.observed("test"), 20, batch=batch)
        # sums over 30 pixels in float32, in an order that may go by the batch: some 1e-6 of a few hundred nats
        np.testing.assert_allclose(part.log_px, whole.log_px, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(part.elbo, whole.elbo, rtol=1e-5, atol=1e-4)


def test_the_importance_weighted_bound_is_above_the_elbo(run, data):
    run.use_data(data)
    one = per_datum(run, run.observed("train"), 1)
    many = per_datum(run, run.observed("train"), 200)
    # on average over the draws; the ELBO's closed-form rate and 200 draws leave it a noise far below the gap's spread
    assert many.log_px.mean() > many.elbo.mean()
    assert many.log_px.mean() > one.elbo.mean() - 3 * one.elbo.std() / np.sqrt(len(one.elbo))
    assert (many.ess >= 1 - 1e-6).all()
    assert (many.ess <= 200 + 1e-3).all()
    np.testing.assert_allclose(one.ess, 1)


def test_it_is_measured_with_its_protocol(run, data):
    run.use_data(data)
    found = {m["name"]: m for m in run.evaluate(samples=5)}
    assert found["elbo"]["value"] == pytest.approx(-(found["rate"]["value"] + found["distortion"]["value"]))
    for metric in found.values():
        assert metric["protocol"]["n"] == len(data.test)
        assert metric["protocol"]["digest"] == data.digest
    assert {m["name"] for m in vk.open(run.path).metrics} == set(found)
    run.evaluate(samples=5)
    assert len(run.metrics) == len(found)


def test_the_ends_of_an_interpolation_are_the_reconstructions(run, data):
    latent = pytest.importorskip("vaekit.latent")
    run.use_data(data)
    z = run.encode("test", n=4)
    for mode in ("lerp", "slerp"):
        path = run.decode(latent.interpolate(z[0], z[3], 5, mode))
        assert path.shape == (5, *data.shape)
        np.testing.assert_allclose(path[[0, -1]], run.reconstruct("test", n=4)[[0, 3]], rtol=1e-5, atol=1e-3)


def test_stopped_half_way_and_resumed_it_is_the_same(run, data, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run.path, out)
    (out / "run.json").write_text(json.dumps(run.config | {"state": "running"}))
    (out / "checkpoint" / f"{STEPS:09d}.safetensors").unlink()
    (out / "model.safetensors").unlink()
    fit(data, out=out, resume=True, progress=False)
    assert same(out, run.path)
    assert set(tensors(out / "model.safetensors")) == set(tensors(run.path / "model.safetensors"))
