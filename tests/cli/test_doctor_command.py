"""`vaekit doctor`: exit status, lines and JSON for data and for runs, and the section of the report."""

import json

import numpy as np
import pytest
from core_helpers import QUIET
from sklearn.datasets import load_digits

import vaekit as vk
from vaekit.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doctor")
    x = load_digits().images.astype(np.float32) / 16
    np.save(folder / "digits.npy", x)
    np.save(folder / "bytes.npy", x * 255)
    vk.fit(folder / "digits.npy", out=folder / "run", latent=4, hidden=(16,), steps=60, beta=50, lr=5e-3, **QUIET)
    return folder


def vaekit(capsys, *argv):
    code = main([str(word) for word in argv])
    return code, capsys.readouterr()


def test_data_with_the_options_of_fit(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    code, said = vaekit(capsys, "doctor", "digits.npy")
    assert (code, said.out.splitlines()[0]) == (0, "digits: nothing found; 11 diseases checked, 0 not checked")
    code, said = vaekit(capsys, "doctor", "digits.npy", "--steps", 20, "--lr", 0.001, "--latent", 4, "--json")
    seen = json.loads(said.out)
    assert code == 1
    assert [one["name"] for one in seen["findings"]] == ["too-few-steps", "too-few-latents"]
    code, said = vaekit(capsys, "doctor", "bytes.npy", "--likelihood", "bernoulli", "--kind", "image")
    assert code == 1
    assert "serious: The data do not fit the likelihood (range)" in said.out


def test_a_run(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    code, said = vaekit(capsys, "doctor", "run")
    assert code == 1
    assert "serious: The posterior has collapsed to the prior (posterior-collapse)" in said.out
    assert "--beta 1 in place of 50" in said.out  # remedies name the flags
    before = (folder / "run" / "run.json").read_bytes()
    (folder / "digits.npy").rename(folder / "moved.npy")
    try:
        code, said = vaekit(capsys, "doctor", "run", "--json")
        assert "too-few-latents" in json.loads(said.out)["skipped"]
        code, said = vaekit(capsys, "doctor", "run", "--data", "moved.npy", "--json")
        assert "too-few-latents" not in json.loads(said.out)["skipped"]
    finally:
        (folder / "moved.npy").rename(folder / "digits.npy")
    assert (folder / "run" / "run.json").read_bytes() == before


def test_a_page_has_the_diagnosis(folder, monkeypatch):
    monkeypatch.chdir(folder)
    page = vk.open("run").report(folder / "page.html").read_text(encoding="utf8")
    assert "The posterior has collapsed to the prior" in page
    assert "Health" in page


def test_what_does_not_go_together(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert vaekit(capsys, "doctor", "run", "--latent", 3)[0] == 2
    assert vaekit(capsys, "doctor", "run", "--recipe", "vae")[0] == 2
    code, said = vaekit(capsys, "doctor", "digits.npy", "--data", "x.npy")
    assert code == 2
    assert "moved" in said.err
    assert vaekit(capsys, "doctor", "no-such-thing")[0] == 2
