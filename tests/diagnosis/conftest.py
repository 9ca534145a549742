"""Small runs on digits that the tests of the doctor share, each trained once."""

import numpy as np
import pytest
from core_helpers import QUIET
from sklearn.datasets import load_digits

import vaekit as vk

SMALL = {"latent": 6, "hidden": (32,), "validate_steps": 100, "lr": 5e-3, **QUIET}


@pytest.fixture(scope="session")
def digits():
    return vk.from_arrays(load_digits().images.astype(np.float32) / 16)


@pytest.fixture(scope="session")
def trained(digits, tmp_path_factory):
    """Trains a run on digits, or on other data, with these settings; a run of the same name is trained once."""
    folder = tmp_path_factory.mktemp("doctor")

    def train(name, data=digits, **settings):
        small = {key: SMALL[key] for key in SMALL if key != "latent" or settings.get("recipe") != "fsq"}
        return vk.fit(data, out=folder / name, exists="resume", **{**small, **settings})

    return train


@pytest.fixture(scope="session")
def sound(trained):
    """A healthy run on images, and one on a table."""
    columns = load_digits().data[:, [2, 3, 4, 10, 12, 18, 20]]
    table = vk.from_arrays(columns, kind="vector")
    return trained("sound", steps=500), trained("table", table, steps=400, latent=4)


@pytest.fixture(scope="session")
def collapsed(trained):
    return trained("collapse", beta=50, steps=100)
