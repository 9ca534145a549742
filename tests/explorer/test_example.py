"""The run that comes with vaekit."""

import json

import numpy as np
import pytest
from PIL import Image

import vaekit as vk
from vaekit.explorer import about
from vaekit.explorer.points import SHOWN, sources, stored_tsne
from vaekit.runs.example import PLACE, place


@pytest.fixture(scope="module")
def example():
    return vk.open("example")


def test_it_is_small_and_whole():
    assert sum(f.stat().st_size for f in PLACE.rglob("*") if f.is_file() and f.suffix != ".pyc") < 3e6
    config = json.loads((PLACE / "run.json").read_text())
    assert config["state"] == "finished"
    assert config["data"]["source"] == "fashion-mnist"
    assert "/" not in config["data"]["source"]


def test_a_directory_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place("example") == PLACE
    (tmp_path / "example").mkdir()
    assert str(place("example")) == "example"
    assert str(place("runs/example")) == "runs/example"


def test_what_it_shows_are_test_images(example, fashion_mnist):
    with np.load(PLACE / SHOWN) as held:
        np.testing.assert_array_equal(held["x"], fashion_mnist.test[held["row"]])
        np.testing.assert_array_equal(held["label"], fashion_mnist.test.label[held["row"]])
        assert len(stored_tsne(example)) == len(held["x"])


def test_it_reconstructs_what_it_shows(example):
    (source,) = sources(example, 100)
    x = source.observed.raw(source.place).astype(np.float64)
    made = example.reconstruct(x.astype(np.uint8))
    off, apart = ((made - x) ** 2).mean(), ((x - x.mean(0)) ** 2).mean()
    assert off < 0.25 * apart
    assert about.python(example) == "run = vk.open('example')"


def test_it_is_sampled_on_the_command_line(tmp_path, capsys):
    from vaekit.cli import main

    out = tmp_path / "samples.png"
    assert main(["sample", "example", "-n", "4", "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    assert Image.open(out).size[0] > 56


def test_it_stays_as_it_came(tmp_path, monkeypatch, capsys, fashion_mnist):
    from vaekit.cli import main

    monkeypatch.chdir(tmp_path)
    before = {f.name: f.stat().st_mtime_ns for f in PLACE.iterdir() if f.is_file()}
    assert main(["evaluate", "example", "-n", "50", "--samples", "2"]) == 0
    assert main(["report", "example"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "example-report.html"
    assert (tmp_path / "example-report.html").stat().st_size > 10_000
    assert {f.name: f.stat().st_mtime_ns for f in PLACE.iterdir() if f.is_file()} == before
    assert not (PLACE / "figures").exists()
