"""Flat rows with a shape of their own, and arrays of 0 and 1."""

import numpy as np
import pytest
import scipy.sparse as sp

from vaekit import fit
from vaekit.data import from_arrays, load
from vaekit.data.readers.shapes import parse, text
from vaekit.errors import DataError
from vaekit.recipes import get_recipe
from vaekit.recipes.composition import DataSpec
from vaekit.runs.observed import events

SMALL = {"latent": 1, "hidden": (4,), "steps": 2, "batch": 20, "validate_steps": 2, "progress": False}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "event"),
    [("6x5", (1, 6, 5)), ((6, 5), (1, 6, 5)), ("2x5x3", (3, 2, 5)), ("3x2x5", (3, 2, 5)), ([3, 5, 2], (2, 3, 5))],
)
def test_flat_rows_are_what_shaped_ones_are(tmp_path, rng, shape, event):
    x = rng.integers(0, 256, (20, 30), dtype=np.uint8)
    np.savez(tmp_path / "flat.npz", x=x)
    np.save(tmp_path / "shaped.npy", x.reshape(20, *parse(shape)))
    shaped = load(tmp_path / "shaped.npy")
    for data in (load(tmp_path / "flat.npz", shape=shape), from_arrays(x, shape=shape)):
        assert (data.kind, data.shape, data.options["shape"]) == ("image", event, text(shape))
        assert data.digest == shaped.digest
        np.testing.assert_array_equal(data.events(data.test[:]), shaped.events(shaped.test[:]))
    again = load(tmp_path / "flat.npz", **data.options)
    assert again.digest == data.digest
    spec = DataSpec.of(data)
    observation = get_recipe("vae")(spec, latent=1, hidden=(4,), network="dense").observation
    for new in (x, x.reshape(20, *parse(shape)), data.events(x.reshape(20, *parse(shape)))):  # new data: in any shape
        np.testing.assert_array_equal(events(new, spec, observation), shaped.events(x.reshape(20, *parse(shape))))


def test_a_table_of_pixels(tmp_path, rng):
    x = rng.integers(0, 256, (40, 12))
    label = np.arange(40) % 3
    header = ",".join(["label", *(f"pixel{i}" for i in range(12))])
    np.savetxt(tmp_path / "p.csv", np.column_stack([label, x]), "%d", ",", header=header, comments="")
    data = load(tmp_path / "p.csv", shape="3x4", label="label")
    assert (data.kind, data.shape, data.schema, data.scale) == ("image", (1, 3, 4), (), (0.0, 255.0))
    assert data.train.raw.dtype == np.uint8
    np.testing.assert_array_equal(data.train[:], x.reshape(-1, 3, 4)[data.train.index])
    np.testing.assert_array_equal(data.train.label, label[data.train.index])
    run = fit(data, out=tmp_path / "run", **SMALL)
    flat, shaped = (
        run.score(x[:5].astype(np.uint8), samples=3),
        run.score(x[:5].reshape(5, 3, 4).astype(np.uint8), samples=3),
    )
    np.testing.assert_array_equal(flat, shaped)


@pytest.mark.parametrize("shape", ["28", "0x4", "axb", (2, 2, 2, 2), "", "2x3"])
def test_shapes_that_do_not_fit(rng, shape):
    with pytest.raises(DataError, match=r"shape must be height x width|needs flat rows of"):
        from_arrays(rng.random((9, 12)), shape=shape)


def test_flat_images_are_hinted_at(tmp_path, rng):
    np.save(tmp_path / "a.npy", rng.integers(0, 256, (9, 784), dtype=np.uint8))
    assert "`shape='28x28'`" in load(tmp_path / "a.npy").notes[0]
    assert not load(tmp_path / "a.npy", kind="vector").notes
    np.save(tmp_path / "b.npy", rng.normal(size=(9, 784)))
    assert not load(tmp_path / "b.npy").notes
    np.save(tmp_path / "c.npy", rng.random((9, 3072)))
    assert "`shape='32x32x3'`" in load(tmp_path / "c.npy").notes[0]


BITS = {
    "float64": lambda x: x.astype(np.float64),
    "float32": lambda x: x.astype(np.float32),
    "int64": lambda x: x.astype(np.int64),
    "uint16": lambda x: x.astype(np.uint16),
    "bool": lambda x: x.astype(bool),
    "uint8": lambda x: x.astype(np.uint8),
    "sparse": lambda x: sp.csr_array(x.astype(np.float64)),
    "sparse bool": lambda x: sp.csr_array(x.astype(bool)),
}


@pytest.mark.parametrize("kind", BITS)
def test_zeros_and_ones_are_bernoulli_whatever_their_type(tmp_path, rng, kind):
    x = rng.random((60, 9)) < 0.3
    data = from_arrays(BITS[kind](x))
    spec = DataSpec.of(data)
    assert (data.kind, spec.integer, spec.scale) == ("vector", True, (0.0, 1.0))
    composition = get_recipe("vae")(spec, latent=1, hidden=(4,))
    assert composition.observation.kind == "binary"
    assert type(composition.model.likelihood.head).__name__ == "Bernoulli"
    run = fit(data, out=tmp_path / "run", **SMALL)
    scores = [run.score(BITS[other](x[:7]), samples=3) for other in ("float64", "int64", "bool", "sparse")]
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], atol=1e-5)
    assert np.isfinite(scores[0]).all()
    with pytest.raises(DataError, match=r"trained on"):
        run.score(x[:7] * 0.5)


def test_counts_stay_counts_when_asked_for(rng):
    x = (rng.random((60, 9)) < 0.3).astype(np.int64)
    assert from_arrays(x, kind="counts").kind == "counts"
    x[0, 0] = 2
    assert from_arrays(x).kind == "counts"


def test_whole_floats_are_taken_where_bytes_were_trained_on(rng):
    x = rng.integers(0, 256, (30, 4, 4), dtype=np.uint8)
    data = from_arrays(x)
    spec = DataSpec.of(data)
    observation = get_recipe("vae")(spec, latent=1, hidden=(4,)).observation
    np.testing.assert_array_equal(events(x.astype(np.float64), spec, observation)[:, 0], x)
    with pytest.raises(DataError, match=r"pass the raw uint8 data"):
        events((x > 127).astype(np.float64), spec, observation)  # shares of 255, more likely than nearly black images


def test_long_images_may_be_signals(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(12, 100, 2))
    np.save("ecg.npy", x)
    np.save("images.npy", x.reshape(12, 20, 10))
    assert load("images.npy").notes == ()
    assert "if they are signals (length x channels), use `kind='signal'`" in load("ecg.npy").notes[0]
    assert load("ecg.npy", kind="signal").shape == (2, 100)
