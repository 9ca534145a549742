"""Every fault is put into a small VAE and found by its name; the right one passes."""

import json

import numpy as np
import pytest
import torch
from audited import Audited

import vaekit as vk
from vaekit.auditing import from_file
from vaekit.cli import main

FAULTS = {
    "random": "random-encode",
    "clamped": "unused-kl",
    "sign": "negative-kl",
    "sum-kl": "batch-reduction",
    "elements": "effective-beta",
    "doubled": "effective-beta",
    "variance": "noise-scale",
    "mean": "evaluated-at-the-mean",
    "eval-mean": "evaluated-at-the-mean",
    "norm": "batch-of-one",
    "silent": "silent-range",
    "critic": "critic",
    "seed": "seed",
    "state": "state",
    "commit": "batch-reduction",
    "best": "bound",
    "tc-wrong": "tc-weights",
    "nll-sign": "score-sign",
    "count": "score-count",
    "random-score": "random-score",
}


@pytest.fixture(scope="module")
def x():
    return (np.random.default_rng(0).uniform(size=(16, 12)) > 0.5).astype(np.float32)


def made(fault=""):
    torch.manual_seed(0)
    return Audited(fault)


def test_a_right_one_passes(x):
    seen = vk.audit(made(), x, score="nll")
    assert seen.faults == (), str(seen)
    assert set(seen.skipped) == {"tc-weights", "score-samples"}
    assert len(seen.passed) == 13
    assert "tc-weights" in vk.audit(made("tc-right"), x).passed


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found(fault, x):
    seen = vk.audit(made(fault), x, score="nll")
    assert FAULTS[fault] in seen, str(seen)


def test_the_evidence_has_the_numbers(x):
    by_name = {one.name: one for one in vk.audit(made("elements"), x).faults}
    assert by_name["effective-beta"].numbers["beta"] == pytest.approx(12, rel=1e-3)
    assert "averaged over the 12 elements" in by_name["effective-beta"].evidence
    by_name = {one.name: one for one in vk.audit(made("doubled"), x).faults}
    assert by_name["effective-beta"].numbers["beta"] == pytest.approx(0.5, rel=1e-3)
    assert "doubled" in by_name["effective-beta"].evidence


def test_the_module_is_left_as_it_was(x):
    module = made().train()
    before = {n: t.clone() for n, t in module.state_dict().items()}
    vk.audit(module, x)
    assert module.training
    assert "encode" not in module.__dict__
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


def test_a_class_in_a_file(tmp_path, x):
    file = tmp_path / "model.py"
    file.write_text("from audited import Audited\nVAE = Audited\n")
    assert vk.audit(from_file(f"{file}:VAE", {"fault": "clamped"}), shape=(12,)).faults[0].name == "unused-kl"
    with pytest.raises(vk.VaekitError, match="no 'Other'"):
        from_file(f"{file}:Other", {})
    with pytest.raises(vk.VaekitError, match="needs `data`"):
        vk.audit(made())
    with pytest.raises(vk.VaekitError, match="no method"):
        vk.audit(made(), x, loss="criterion")


def test_the_command(tmp_path, capsys):
    file = tmp_path / "model.py"
    file.write_text("from audited import Audited\nVAE = Audited\n")
    assert main(["audit", f"{file}:VAE", "--shape", "12", "--arg", "fault=clamped", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["faults"][0]["name"] == "unused-kl"
    assert main(["audit", f"{file}:VAE", "--shape", "12", "--arg", "latent_dim=2"]) == 0
    assert "0 faults" in capsys.readouterr().out
    assert main(["audit", f"{file}:VAE"]) == 2
