"""Runs that were trained on arrays in memory, which are passed again when such a run is opened."""

import re

import numpy as np
import pytest
from core_helpers import QUIET, blobs

import vaekit as vk
from vaekit.errors import DataError, RunError

TINY = {"steps": 2, "batch": 16, "latent": 2, "hidden": (8,), **QUIET}


def written(error, names):
    """The value of the Python that an error tells to write."""
    (code,) = re.findall(r"vk\.\w+\(.*\)", str(error.value).split(", or save")[0])
    return eval(code, {"vk": vk, **names})


@pytest.mark.parametrize("labelled", [False, True])
def test_the_error_says_how_to_pass_them(tmp_path, labelled):
    x, y = blobs(60).astype(np.float32), np.arange(60) % 3
    data = vk.from_arrays(x, label=y if labelled else None)
    run = vk.fit(data, "conditional" if labelled else "vae", out=tmp_path / "run", **TINY)
    expected = run.score("test", samples=4)
    opened = vk.open(tmp_path / "run")
    with pytest.raises(DataError, match=r"which a run does not store.* `data=PATH`") as error:
        opened.score("test", samples=4)
    np.testing.assert_array_equal(written(error, {"x": x, "y": y}).score("test", samples=4), expected)
    np.savez(tmp_path / "x.npz", x=x, y=y) if labelled else np.savez(tmp_path / "x.npz", x=x)
    again = vk.open(tmp_path / "run", data=tmp_path / "x.npz")
    np.testing.assert_array_equal(again.score("test", samples=4), expected)


def test_other_arrays_are_refused(tmp_path):
    x = blobs(60).astype(np.float32)
    vk.fit(x, "vae", out=tmp_path / "run", **TINY)
    with pytest.raises(DataError, match="the array holds other data"):
        vk.open(tmp_path / "run", data=x + 1)
    with pytest.raises(DataError, match="shape"):
        vk.open(tmp_path / "run", data=x[:, :2])


def test_training_is_extended_with_the_same_arrays_in_the_same_splits(tmp_path):
    x = blobs(60).astype(np.float32)
    vk.fit(vk.from_arrays(x, valid=0.3, split_seed=5), "vae", out=tmp_path / "run", **TINY)
    with pytest.raises(RunError, match=r"arrays in memory.* as in vk.fit\(x, out='.*run', extend=True\)"):
        vk.fit(out=tmp_path / "run", extend=True, steps=4)
    assert vk.fit(x, out=tmp_path / "run", extend=True, steps=4, progress=False).config["step"] == 4
