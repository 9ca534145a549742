"""Real data, where this machine has them: `VAEKIT_SHARED`, or ../shared beside the repository."""

import os
from pathlib import Path

import numpy as np
import pytest

from vaekit.data import load, named

SHARED = Path(os.environ.get("VAEKIT_SHARED", Path(__file__).parents[3] / "shared")) / "data"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not here; set VAEKIT_SHARED to the folder that holds data/{name}")
    return SHARED / name


def test_fashion_mnist_by_name():
    if not (named.SYSTEM / "fashion-mnist").is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    data = load("fashion-mnist")
    assert (data.shape, len(data.train), len(data.valid), len(data.test)) == ((1, 28, 28), 50_000, 10_000, 10_000)
    assert np.bincount(data.test.label).tolist() == [1000] * 10
    assert data.label_names[data.train.label[0]] == "Ankle boot"
    assert isinstance(data.train.raw, np.memmap)


def test_mnist_by_folder_holds_the_known_content():
    folder = shared("mnist")
    for file in named.SETS["mnist"].files:
        assert file.problem(folder / file.name) is None
    data = load(folder)
    assert (len(data.train), len(data.valid), len(data.test)) == (50_000, 10_000, 10_000)
    assert data.train.label[:5].tolist() == [5, 0, 4, 1, 9]


def test_emoji_keeps_the_tones_of_one_drawing_together():
    folder = shared("emoji")
    data = load(folder, table="attributes.csv", group="name")
    assert (data.shape, data.label_names[:2]) == ((3, 64, 64), ["activities", "animals_nature"])
    assert {"female", "light_skin", "face"} <= set(data.attribute_names)
    names = [set(split.columns["name"]) for split in (data.train, data.valid, data.test)]
    assert not names[0] & names[1] | names[0] & names[2] | names[1] & names[2]
    assert sum(len(split) for split in (data.train, data.valid, data.test)) == 5191


def test_lpc_sprites():
    data = load(shared("lpc_sprites") / "lpc_sprites64_12k.npz")
    assert data.factor_names == ["body", "bottomwear", "topwear", "hair", "pose", "direction"]
    assert (data.kind, data.shape, len(data.train)) == ("image", (3, 64, 64), 9600)


def test_sc_mixology():
    data = load(shared("sc_mixology") / "sc_mixology_hvg2000.npz")
    assert (data.kind, data.shape, len(data.feature_names)) == ("counts", (2000,), 2000)
    assert data.label_names == ["A549", "H1975", "H2228", "H838", "HCC827"]
    assert {"sc_celseq2", "sc_dropseq"} <= set(data.train.columns["batch"].tolist())
