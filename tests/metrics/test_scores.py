"""Scores of a run: compiled or not, in blocks, and their errors."""

import numpy as np
import pytest
import torch
from core_helpers import needs_compiler

import vaekit as vk
from vaekit.metrics import per_datum
from vaekit.runs import likelihood

TINY = {"compile": "off", "progress": False, "hidden": (8,), "latent": 2}


def pictures(n=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 5, 4), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return vk.fit(vk.from_arrays(pictures()), "vae", out=tmp_path_factory.mktemp("r") / "run", steps=5, **TINY)


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
    assert run.kl_per_latent("test").sum() == pytest.approx(scored["rate"], abs=1e-4)


def test_the_error_of_one_datum_is_unknown(run):
    for m in run.evaluate("test", samples=2, n=1):
        assert m["se"] is None or all(s is None for s in m["se"])


@needs_compiler
def test_scores_that_cannot_be_compiled_are_computed_eagerly_with_a_warning(run, monkeypatch):
    class InductorError(Exception):
        pass

    def fails(*_):
        raise InductorError("no such kernel\nand more")

    monkeypatch.setattr("vaekit.runs.likelihood.whole_graph", lambda method: fails)
    run.graphs.clear()
    with pytest.warns(UserWarning, match=r"cannot be compiled \(no such kernel\)"):
        scored = per_datum(run, run.observed("train"), 5, n=6, compile=True)
    run.graphs.clear()
    plain = per_datum(run, run.observed("train"), 5, n=6, compile=False)
    run.graphs.clear()
    np.testing.assert_array_equal(scored.log_px, plain.log_px)


def test_compiled_scores_are_those_of_eager_ones_last_short_batch_included(run):
    plain = per_datum(run, run.observed("train"), 5, n=17, batch=5, compile=False)
    run.graphs.clear()
    scored = per_datum(run, run.observed("train"), 5, n=17, batch=5, compile=True)
    assert run.graphs
    assert all(chunk.graph is not None for chunk in run.graphs.values())  # else they were computed eagerly
    run.graphs.clear()
    for name in ("log_px", "elbo", "distortion", "ess"):
        np.testing.assert_allclose(getattr(scored, name), getattr(plain, name), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("samples", "n", "expected"), [(1000, 50, (2, 1000)), (100, 2000, (20, 100)), (5000, 3, (1, 1250))]
)
def test_chunks_hold_many_samples_of_few_data(samples, n, expected):
    """Each chunk encodes its data again, and each size of chunk is compiled."""
    assert likelihood._plan(2040, samples, n) == expected


def test_scores_do_not_depend_on_the_chunks_and_progress_counts_data(run, monkeypatch):
    told = []
    whole = per_datum(run, run.observed("train"), 6, n=17, compile=False)
    monkeypatch.setattr(likelihood, "CHUNK_NUMBERS", 20 * 7)  # 7 codes: (1, 6)
    run.graphs.clear()
    parts = per_datum(run, run.observed("train"), 6, n=17, compile=False, progress=lambda *now: told.append(now))
    run.graphs.clear()
    assert told == [(i, 17) for i in range(1, 18)]
    for name in ("log_px", "elbo", "rate", "distortion", "ess", "means"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-5, atol=1e-5)
