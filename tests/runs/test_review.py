"""What a review found wrong once."""

import numpy as np
import pytest
import torch
from core_helpers import needs_compiler

import vaekit as vk
from vaekit.data.observation import moments
from vaekit.errors import DataError, RunError
from vaekit.metrics import likelihood, per_datum
from vaekit.utils.files import read_json, write_json

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


def test_values_outside_the_range_of_training_are_refused(tmp_path):
    x = np.random.default_rng(0).random((60, 5, 4), dtype=np.float32)
    run = vk.fit(vk.from_arrays(x), "vae", out=tmp_path / "a", steps=3, **TINY)
    with pytest.raises(DataError, match=r"0\.\.1"):
        run.score(255 * x[:3], 2)


def test_a_network_that_does_not_trace_is_scored_all_the_same(run, monkeypatch):
    def graph(*arguments):
        raise torch._dynamo.exc.Unsupported("no such graph")

    plain = per_datum(run, run.observed("test"), 7, compile=False)
    monkeypatch.setattr(likelihood, "whole_graph", lambda method: graph)
    run.graphs.clear()
    scored = per_datum(run, run.observed("test"), 7, compile=True)
    run.graphs.clear()
    np.testing.assert_allclose(scored.log_px, plain.log_px, atol=1e-4)


def test_the_kl_of_each_latent_adds_up_to_the_rate(run):
    scored = {m["name"]: m["value"] for m in run.evaluate("test", samples=2)}
    assert run.kl_per_latent(split="test").sum() == pytest.approx(scored["rate"], abs=1e-4)


def test_training_leaves_the_callers_generator_alone(run, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    vk.fit(run.data, "vae", out=tmp_path / "a", steps=3, **TINY)
    assert torch.equal(torch.rand(3), expected)


def test_moments_in_blocks_are_those_of_the_whole():
    x = torch.randn(101, 3, 2, dtype=torch.float64) * 7 + 100
    mean, variance = moments(lambda: x.split(10))
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close(variance, x.var(0, correction=0))


def test_the_error_of_one_datum_is_unknown(run):
    for m in run.evaluate("test", samples=2, n=1):
        assert m["se"] is None or all(s is None for s in m["se"])


@needs_compiler
def test_compiled_scores_are_those_of_eager_ones_last_short_batch_included(run):
    plain = per_datum(run, run.observed("train"), 5, n=17, batch=5, compile=False)
    run.graphs.clear()
    scored = per_datum(run, run.observed("train"), 5, n=17, batch=5, compile=True)
    run.graphs.clear()
    for name in ("log_px", "elbo", "distortion", "ess"):
        np.testing.assert_allclose(getattr(scored, name), getattr(plain, name), rtol=1e-4, atol=1e-4)


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
    monkeypatch.setattr("vaekit.training.fit.decide_compile", lambda *a: (True, "for the test"))
    tried = vk.fit(run.data, "vae", out=tmp_path / "a", steps=5, **{**TINY, "compile": "auto"}, precision="fp32")
    assert not tried.config["decided"]["compile"]
    for a, b in zip(tried.model.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(a, b)
