"""The data of a run: its rows by number, and other data that are refused."""

import numpy as np
import pytest

import vaekit as vk
from vaekit.errors import DataError, RunError
from vaekit.utils.files import read_json

TINY = {"compile": "off", "progress": False, "hidden": (8,), "latent": 2}


def pictures(n=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 5, 4), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return vk.fit(vk.from_arrays(pictures()), "vae", out=tmp_path_factory.mktemp("r") / "run", steps=5, **TINY)


def test_rows_of_a_split_are_seen_as_its_frozen_draw_has_them(run):
    whole = run.encode("test")
    np.testing.assert_allclose(run.encode("test", rows=[3, 1]), whole[[3, 1]], atol=1e-6)
    with pytest.raises(vk.VaekitError, match="rows"):
        run.encode("test", rows=[len(whole)])


def test_other_data_are_refused_also_as_a_data_object(run):
    with pytest.raises(DataError, match="other data"):
        vk.open(run.path, data=vk.from_arrays(pictures(seed=1)))


def test_the_same_rows_split_otherwise_are_refused(tmp_path):
    x = pictures()
    vk.fit(vk.from_arrays(x), "vae", out=tmp_path / "a", steps=4, checkpoint_steps=2, **TINY)
    config = read_json(tmp_path / "a" / "run.json")
    other = vk.from_arrays(x, split_seed=5)
    assert other.digest == config["data"]["digest"]
    with pytest.raises(RunError, match="rows of these data"):
        vk.open(tmp_path / "a", data=other)


def test_values_outside_the_range_of_training_are_refused(tmp_path):
    x = np.random.default_rng(0).random((60, 5, 4), dtype=np.float32)
    run = vk.fit(vk.from_arrays(x), "vae", out=tmp_path / "a", steps=3, **TINY)
    with pytest.raises(DataError, match=r"0\.\.1"):
        run.score(255 * x[:3], samples=2)
