"""How training starts: from another run, from an older checkpoint, without a compiler; what it leaves alone."""

import numpy as np
import pytest
import torch

import vaekit as vk
from vaekit.utils.files import write_json

TINY = {"compile": "off", "progress": False, "hidden": (8,), "latent": 2}


def pictures(n=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 5, 4), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return vk.fit(vk.from_arrays(pictures()), "vae", out=tmp_path_factory.mktemp("r") / "run", steps=5, **TINY)


def test_a_run_started_from_another_starts_over_from_it(run, tmp_path):
    data = run.data
    straight = vk.fit(data, "vae", out=tmp_path / "a", steps=6, init_from=run.path, **TINY)
    again = vk.fit(data, "vae", out=tmp_path / "b", steps=6, init_from=run.path, **TINY)
    for file in (again.path / "checkpoint").iterdir():  # as if it had been killed before its first checkpoint
        file.unlink()
    write_json(again.path / "run.json", {**again.config, "state": "running"})
    resumed = vk.fit(data, "vae", out=tmp_path / "b", steps=6, resume=True, **TINY)
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(run, tmp_path):
    made = vk.fit(run.data, "vae", out=tmp_path / "a", steps=8, checkpoint_steps=3, **TINY)
    last = sorted((made.path / "checkpoint").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:100])
    write_json(made.path / "run.json", {**made.config, "state": "running"})
    resumed = vk.fit(run.data, "vae", out=tmp_path / "a", steps=8, resume=True, **TINY)
    assert resumed.config["step"] == 8
    for a, b in zip(made.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_training_leaves_the_callers_generator_alone(run, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    vk.fit(run.data, "vae", out=tmp_path / "a", steps=3, **TINY)
    assert torch.equal(torch.rand(3), expected)


def test_without_a_compiler_training_is_eager_and_says_why(monkeypatch):
    from vaekit.training import cost as hardware

    monkeypatch.setattr(hardware, "has_compiler", lambda: False)
    decided, why = hardware.decide_compile("auto", 1e9, hardware.Work(10**6, 0), 100, torch.device("cpu"))
    assert not decided
    assert "compiler" in why
    with pytest.raises(vk.VaekitError, match="compiler"):
        hardware.decide_compile("on", 1e9, hardware.Work(10**6, 0), 100, torch.device("cpu"))


def test_a_step_that_cannot_be_compiled_is_run_eagerly(tmp_path, run, monkeypatch):
    from vaekit.training import step as engine

    def graph(*arguments):
        raise torch._dynamo.exc.Unsupported("no such graph")

    monkeypatch.setattr(engine, "whole_graph", lambda method: graph)
    monkeypatch.setattr("vaekit.training.plan.decide_compile", lambda *a: (True, "for the test"))
    tried = vk.fit(run.data, "vae", out=tmp_path / "a", steps=5, **{**TINY, "compile": "auto"}, precision="fp32")
    assert not tried.config["decided"]["compile"]
    for a, b in zip(tried.model.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(a, b)
