"""The bench of a hierarchical model on a GPU: its phases on tiny data, its time limits, and its page."""

import contextlib
import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vaekit as vk
from vaekit.latents.densities import flow_matching
from vaekit.recipes import get_recipe
from vaekit.recipes.composition import DataSpec
from vaekit.utils.files import read_tensors, write_json

BENCH = Path(__file__).parents[2] / "bench"
IMAGES, FEW, MANY = 40, 5, 20


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("frontier_gpu_bench", BENCH / "frontier_gpu.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCH)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def plan(bench, tmp_path_factory):
    """A trained model of the digits."""
    folder = tmp_path_factory.mktemp("frontier-gpu")
    plan = bench.Plan(str(folder), **bench.QUICK | {"data": "digits", "few": FEW, "samples": MANY, "n": IMAGES})
    plan = dataclasses.replace(plan, steps=4)
    bench.phase("train", plan)
    return plan


@pytest.fixture(scope="module")
def score(bench, plan):
    bench.phase("score", plan)
    return json.loads((plan.path / "score.json").read_text())


def test_what_is_scored_is_the_run_of_the_release_folder(plan, score):
    release, run = vk.open(plan.path / "release"), vk.open(plan.path / "run")
    stored = read_tensors(plan.path / "release" / "model.safetensors")[0]
    exact = read_tensors(plan.path / "run" / "model.safetensors")[0]
    assert {t.dtype for n, t in stored.items() if n.startswith("model.")} == {torch.float16}
    assert all(torch.equal(stored[n], t.half()) for n, t in exact.items() if n.startswith("model."))
    rows = np.arange(IMAGES)
    assert score["of_many"]["bound"] == pytest.approx(release.score("test", rows=rows, samples=MANY).mean(), abs=1e-4)
    assert score["of_many"]["bound"] != pytest.approx(run.score("test", rows=rows, samples=MANY).mean(), abs=1e-9)
    assert score["bytes"] == (plan.path / "release" / "model.safetensors").stat().st_size
    assert sorted(f.name for f in (plan.path / "release").iterdir()) == [
        "log.jsonl", "model.safetensors", "run.json", "splits.safetensors",
    ]  # fmt: skip
    assert score["estimate"] == pytest.approx(score["of_many"]["bound"])
    assert score["estimate_se"] == 0


def test_weights_beyond_float16_are_stored_as_bfloat16(bench, plan, tmp_path):
    run = vk.open(plan.path / "run")
    tensors, meta = read_tensors(run.path / "model.safetensors")
    name = next(n for n in tensors if n.startswith("model."))
    tensors[name].flatten()[0] = 1e6
    wide = tmp_path / "run"
    bench.shutil.copytree(run.path, wide)
    bench.write_tensors(wide / "model.safetensors", tensors, meta)
    stored = bench.released(vk.open(wide), tmp_path / "release").composition.model.state_dict()
    assert stored[name.removeprefix("model.")].flatten()[0] == torch.tensor(1e6).bfloat16().float()


def test_without_time_no_image_is_scored_and_blocks_are_kept(bench, plan, score):
    run, folder = vk.open(plan.path / "release"), plan.path / "late"
    assert bench.scored(run, MANY, folder, IMAGES, until=-1.0) == {}
    kept = bench.scored(run, MANY, plan.path / f"scores-{MANY}", IMAGES, until=-1.0)
    assert kept["bound"].mean() == pytest.approx(score["of_many"]["bound"])


def test_the_estimate_is_the_mean_of_the_tighter_bound(bench):
    rng = np.random.default_rng(0)
    few = -220 + 50 * rng.standard_normal(20_000)
    many = few + 0.5 + 0.1 * rng.standard_normal(len(few))
    from_some, error = bench.estimated(few, many[:500])
    assert 0 < error < 0.01
    assert abs(from_some - many.mean()) < 4 * error
    assert abs(many[:500].mean() - many.mean()) > 0.5  # without the pairs


def test_samples_of_a_prior_over_small_images(bench, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(flow_matching, "EXACT", 0)
    monkeypatch.setattr(flow_matching.FlowMatchingDensity, "PROBES", 1)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8))
    drawn = dataclasses.replace(plan, pictures=str(tmp_path / "x.npz"), folder=str(tmp_path))
    found = bench.pictures(drawn)
    assert (found["steps"], found["prior_steps"], found["shape"]) == (4, 4, [3, 16, 16])
    assert (tmp_path / "samples.png").stat().st_size > 1000


@pytest.mark.parametrize("setting", ["grids", "dense"])
def test_the_weights_of_the_settings_fit_into_the_release(bench, setting):
    recipe, options = bench.SETTINGS[setting]
    images = vk.from_arrays(np.random.default_rng(0).integers(0, 256, (60, 28, 28), np.uint8))
    known = get_recipe(recipe).parameters
    model = get_recipe(recipe)(DataSpec.of(images), **{k: v for k, v in options.items() if k in known}).model
    assert 2 * sum(p.numel() for p in model.parameters()) < 0.98 * bench.MOST_BYTES


# --- time limits ------------------------------------------------------------------------------------------------


def test_a_phase_is_stopped_at_its_limit_and_keeps_what_it_wrote(bench, tmp_path, monkeypatch):
    code = f"import time; open({str(tmp_path / 'score.json')!r}, 'w').write('{{\"a\": 1}}'); time.sleep(60)"
    monkeypatch.setattr(bench, "command", lambda name, plan: [sys.executable, "-c", code])
    found = bench.Started("score", bench.Plan(str(tmp_path)), 1.0).result()
    assert (found["ended"], found["a"]) == ("stopped at its limit", 1)
    assert found["process_seconds"] < 15


@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_training_starts_again_uncompiled_if_compiling_fails_or_hangs(bench, tmp_path, monkeypatch, how):
    def command(name, plan):
        write = f"open({str(plan.path / 'train.json')!r}, 'w').write('{{}}')"
        first = {"fails": "raise SystemExit(1)", "hangs": "import time; time.sleep(60)"}[how]
        return [sys.executable, "-c", first if plan.compile == "on" else write]

    monkeypatch.setattr(bench, "command", command)
    monkeypatch.setattr(bench, "COMPILE", 0.5 if how == "hangs" else 30.0)
    with contextlib.ExitStack() as stack:
        found = bench.training(bench.Plan(str(tmp_path), minutes=0.5), stack)
    assert found["ended"] == "finished"
    assert found["again"] == {"fails": "compiling failed", "hangs": "compiling took too long"}[how]


def test_phases_that_were_finished_are_not_started_again(bench, plan, score, monkeypatch):
    started = []

    def command(name, plan):
        started.append(name)
        write = f"import json; json.dump({{'of_few': {score['of_few']}}}, open({str(plan.path / 'score.json')!r}, 'w'))"
        return [sys.executable, "-c", write]

    monkeypatch.setattr(bench, "command", command)
    found = bench.measured(dataclasses.replace(plan, pictures=None))
    assert started == ["score"]
    assert found["train"]["ended"] == "finished before"
    write_json(plan.path / "score.json", score)


# --- the page ---------------------------------------------------------------------------------------------------


def test_the_page_has_every_phase_and_says_whether_the_goal_is_reached(bench, plan, score):
    ends = {"ended": "finished", "process_seconds": 3.0}
    drawn = {"data": "sprites", "shape": [3, 64, 64], "steps": 900, "prior_steps": 4000}
    found = {"plan": dataclasses.asdict(plan), "options": {"recipe": "ladder"}, "machine": "torch", "seconds": 9.0}
    found |= {"train": {"card": "H100", **ends}, "pictures": drawn | ends, "score": score | ends}
    text = bench.page(found)
    assert "on H100" in text
    assert "900 steps" in text
    assert "| train | finished | 3 |" in text
    digits = score | {"estimate": -223.5, "estimate_se": 0.02}
    part = digits | {"test": 10_000}
    assert "-224 is reached" in bench.page(found | {"score": digits | ends})
    assert "± 0.02 (the error of the estimate)" in bench.page(found | {"score": part | ends})
    assert "missed" in bench.page(found | {"score": digits | ends | {"estimate": -224.5}})
    without = bench.page({k: v for k, v in found.items() if k not in ("score", "pictures")})
    assert "Samples" not in without
