"""Training: repeatable, resumable anywhere, stopped loudly, and open to the user's own parts."""

import errno
import json
import os
import shutil
import types

import numpy as np
import pytest
import torch
from core_helpers import QUIET, blobs, own_network, python, same, tensors
from torch import nn

import vaekit as vk
from vaekit import heads, networks
from vaekit.data.observation import Binary, Grey
from vaekit.errors import ChoiceError, RunError, TrainingError, VaekitError
from vaekit.objectives import ELBO, Batch, Losses
from vaekit.recipes import RECIPES, Composition, Defaults, gaussian_vae
from vaekit.run import fit
from vaekit.training.length import Clock
from vaekit.training.loop import Trainer, checkpoints
from vaekit.training.step import Engine
from vaekit.utils import files

TINY = {**QUIET, "latent": 2, "hidden": (8,), "batch": 16}


@pytest.fixture(scope="module")
def images():
    return vk.from_arrays(blobs(61), name="blobs")


def steps_of(path):
    return [int(f.stem) for f in sorted((path / "checkpoint").glob("*.safetensors"))]


# --- repeatable -------------------------------------------------------------------------------------------------


def test_one_seed_is_one_run(images, tmp_path):
    for place, (name, seed) in enumerate((("a", 1), ("b", 1), ("c", 2))):
        torch.manual_seed(place)  # the caller's generator is no part of it
        fit(images, "vae", out=tmp_path / name, steps=12, seed=seed, **TINY)
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


def test_looking_does_not_change_training(images, tmp_path):
    for name, more in (
        ("often", {"validate_steps": 3}),
        ("once", {"validate_steps": 30}),
        ("saved", {"validate_steps": 7, "checkpoint_steps": 4}),
    ):
        torch.manual_seed(0)
        fit(images, own_network(), out=tmp_path / name, steps=30, seed=1, ema=0.9, **QUIET, **more)
    assert same(tmp_path / "often", tmp_path / "once")
    assert same(tmp_path / "often", tmp_path / "saved")
    valid = [r for r in vk.open(tmp_path / "often", model=own_network()).log if r["kind"] == "valid"]
    assert [r["step"] for r in valid] == list(range(3, 31, 3))
    assert all(r["elbo"] == pytest.approx(-(r["rate"] + r["distortion"])) for r in valid)


def test_training_improves_the_bound(tmp_path):
    """Pictures white on the left or on the right: ln 2 nats of information, 20 for pixels drawn independently."""
    raw = np.zeros((300, 6, 5), np.uint8)
    raw[::2, :, :2] = raw[1::2, :, 3:] = 255
    run = fit(raw, "vae", out=tmp_path / "run", steps=300, lr=1e-2, ema=0.0, validate_steps=20, **TINY)
    valid = [r["elbo"] for r in run.log if r["kind"] == "valid"]
    assert valid[-1] > valid[0] + 5
    assert -4 < valid[-1] < -np.log(2) + 0.35  # half of 30 validation data may by chance be 11 or 19: their entropy


# --- killed and resumed -----------------------------------------------------------------------------------------

KILLED = """
import json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import vaekit as vk
from core_helpers import blobs, own_network
from vaekit.run import fit

def train(kind, out):
    data = vk.from_arrays(blobs(61), name="blobs")
    common = dict(out=out, exists="resume", progress=False, compile="off", device="cpu", seed=3, checkpoint_steps=3)
    if kind == "recipe":
        fit(data, "vae", steps=45, latent=2, hidden=(8,), batch=16, validate_steps=20, **common)
    else:
        fit(data, own_network(), steps=45, ema=0.95, patience=50, validate_steps=4, batch=16, **common)

def killed(kind, out, at, renamed):
    "Train until the file of this number is to be renamed into place, or has been; how it ended."
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    real, count = os.replace, 0
    def replace(part, path):
        nonlocal count
        count += 1
        if renamed and count == at:
            real(part, path)
        if count == at:
            os.kill(os.getpid(), 9)
        real(part, path)
    os.replace = replace
    try:
        train(kind, out)
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)

kind, folder = sys.argv[1], Path(sys.argv[2])
assert killed(kind, folder / "whole", 0, False) == 0
# the splits, run.json, then a checkpoint, the weights and run.json again and again
for at, renamed in ((1, False), (2, False), (2, True), (1, False), (1, True), (2, False), (3, False), (3, True),
                    (11, False), (12, True), (2, True)):
    assert killed(kind, folder / "killed", at, renamed) == 9, f"it ended before the kill at {at}"
assert killed(kind, folder / "killed", 0, False) == 0
print(sorted(p.name for p in (folder / "killed").iterdir()))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kind", ["recipe", "own network, averages, patience, dropout"])
def test_killed_at_any_file_and_resumed_it_ends_in_the_same_weights(kind, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    done = python(str(script), kind, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['checkpoint', 'log.jsonl', 'model.safetensors', 'run.json', 'splits.safetensors']\n"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert same(whole, killed)
    assert same(whole, killed, "checkpoint/000000045.safetensors")
    assert sorted(p.name for p in (killed / "checkpoint").iterdir()) == [
        "000000042.safetensors",
        "000000045.safetensors",
    ]
    read = lambda path: [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]  # noqa: E731
    valid = [
        [{k: v for k, v in r.items() if k != "seconds"} for r in read(p) if r["kind"] == "valid"]
        for p in (whole, killed)
    ]
    assert valid[0] == valid[1]
    assert json.loads((killed / "run.json").read_text())["state"] == "finished"


def test_resuming_a_finished_run_returns_it(images, tmp_path):
    fit(images, "vae", out=tmp_path / "run", steps=5, **TINY)
    before = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    run = fit(images, "vae", out=tmp_path / "run", resume=True, progress=False)
    assert run.config["step"] == 5
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == before


def interrupted(images, out, **more):
    """A run that was stopped half-way: its state is `running` and its newest checkpoint is of step 6."""
    fit(images, "vae", out=out, steps=12, checkpoint_steps=6, **{**TINY, **more})
    shutil.copytree(out, kept := out.with_name(out.name + "-whole"))
    config = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(config | {"state": "running"}))
    (out / "checkpoint" / "000000012.safetensors").unlink()
    return kept


def test_resuming_needs_no_settings_and_takes_no_others(images, tmp_path):
    out = tmp_path / "run"
    whole = interrupted(images, out, lr=2e-3)
    for other, named in (
        ({"lr": 1e-3}, "lr"),
        ({"latent": 3}, "latent"),
        ({"steps": 20}, "steps"),
        ({"optimiser": "sgd"}, "optimiser"),
        ({"seed": 4}, "seed"),
        ({"beta": 2.0}, "beta"),
    ):
        with pytest.raises(RunError, match=named):
            fit(images, "vae", out=out, resume=True, progress=False, **other)
    with pytest.raises(RunError, match="data differ"):
        fit(vk.from_arrays(blobs(61, seed=5)), "vae", out=out, resume=True, progress=False)
    with pytest.raises(RunError, match="vae"):
        fit(images, "kingma2013", out=out, resume=True, progress=False)
    with pytest.raises(RunError, match="vae"):
        fit(images, own_network(), out=out, resume=True, progress=False)
    with pytest.raises(RunError, match="already holds a run"):
        fit(images, "vae", out=out, steps=12, **TINY)
    fit(images, out=out, resume=True, progress=False)
    assert same(out, whole)


def test_a_run_of_another_recipe_resumes_without_its_name(images, tmp_path):
    out = tmp_path / "run"
    fit(images, "kingma2013", out=out, steps=4, latent=2, hidden=8, **QUIET)
    config = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(config | {"state": "running"}))
    shutil.copytree(out, tmp_path / "whole")
    shutil.rmtree(out / "checkpoint")  # stopped before anything was saved: it starts again
    fit(images, out=out, resume=True, progress=False)
    assert same(out, tmp_path / "whole")


def test_early_stopping_bounds_the_rows_that_the_objective_leaves_out(images, tmp_path):
    run = fit(images, "robust", out=tmp_path / "run", steps=4, patience=2, validate_steps=2, trim=0.5, **TINY)
    log = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    found = [record for record in log if record["kind"] == "valid"]
    assert all(record["bounded"] > record["elbo"] for record in found)
    assert run.config["best"]["bounded"] == max(record["bounded"] for record in found)
    assert vk.open(run.path).config["best"] == run.config["best"]


def test_an_early_stop_that_was_not_recorded_is_kept(images, tmp_path):
    """Killed between the last checkpoint and run.json: the resumed run must not train on."""
    out = tmp_path / "run"
    run = fit(images, "vae", out=out, steps=400, lr=0.5, patience=2, validate_steps=2, **TINY)
    assert run.config["state"] == "stopped early"
    shutil.copytree(out, tmp_path / "whole")
    (out / "run.json").write_text(json.dumps(run.config | {"state": "running"}))
    resumed = fit(images, out=out, resume=True, progress=False)
    assert resumed.config["step"] == run.config["step"]
    assert resumed.config["state"] == "stopped early"
    assert same(out, tmp_path / "whole")


def test_init_from_starts_from_the_weights_of_another_run(images, tmp_path):
    fit(images, "vae", out=tmp_path / "a", steps=5, **TINY)
    fit(
        images, "vae", out=tmp_path / "b", steps=1, lr=1e-12, weight_decay=0.0, init_from=tmp_path / "a", seed=9, **TINY
    )
    a, b = tensors(tmp_path / "a/model.safetensors"), tensors(tmp_path / "b/model.safetensors")
    for n in a:
        torch.testing.assert_close(a[n], b[n], atol=1e-9, rtol=1e-6)
    with pytest.raises(RunError, match="does not fit"):
        fit(images, "vae", out=tmp_path / "c", steps=1, init_from=tmp_path / "a", **{**TINY, "latent": 3})


# --- stopped loudly ---------------------------------------------------------------------------------------------


class NaNAtSeven(ELBO):
    def forward(self, model, batch: Batch, step):
        losses, stats = super().forward(model, batch, step)
        return Losses(losses, stats | {"mine": torch.where(step == 7, torch.nan, 1.0)})


def test_a_non_finite_term_stops_naming_step_and_term(images, tmp_path):
    composition = own_network()
    composition.objective = NaNAtSeven()
    with pytest.raises(TrainingError, match=r"mine became nan at step 7.*000000006\.safetensors"):
        fit(images, composition, out=tmp_path / "run", steps=30, checkpoint_steps=2, **QUIET)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "failed"
    assert steps_of(tmp_path / "run") == [4, 6]
    run = vk.open(tmp_path / "run", model=own_network())
    assert np.isfinite(run.sample(3)).all()
    records = [r for r in run.log if r["kind"] == "non-finite"]
    assert [(r["step"], r["term"]) for r in records] == [(7, "mine")]


@pytest.mark.parametrize("checkpoint_steps", [1, None])
def test_a_huge_learning_rate_stops_and_leaves_no_broken_weights(images, tmp_path, checkpoint_steps):
    out = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"at step \d+.*`lr`"):
        fit(
            images,
            "kingma2013",
            out=out,
            steps=200,
            lr=1e30,
            optimiser="sgd",
            latent=2,
            hidden=8,
            batch=16,
            checkpoint_steps=checkpoint_steps,
            **QUIET,
        )
    for file in (out / "checkpoint").glob("*.safetensors"):
        assert all(bool(torch.isfinite(t).all()) for t in tensors(file).values()), file


class NaNGradientAtSeven(ELBO):
    """sqrt(0) is 0 with an infinite gradient: the loss of step 7 is finite and the weights after it are not."""

    def forward(self, model, batch: Batch, step):
        losses, stats = super().forward(model, batch, step)
        bad = torch.sqrt(0 * next(model.parameters()).sum())
        return Losses({n: v + torch.where(step == 7, bad, 0.0 * bad.detach()) for n, v in losses.items()}, stats)


def test_weights_spoilt_by_a_gradient_are_not_saved(images, tmp_path):
    composition = own_network()
    composition.objective = NaNGradientAtSeven()
    with pytest.raises(TrainingError, match=r"weight .* became nan at step \d+"):
        fit(images, composition, out=tmp_path / "run", steps=9, checkpoint_steps=1, **QUIET)
    for file in (tmp_path / "run").rglob("*.safetensors"):
        assert all(bool(torch.isfinite(t.double()).all()) for t in tensors(file).values()), file


@pytest.mark.parametrize("refused", ["safetensors", "json"])
def test_a_full_disk_is_told_and_the_earlier_files_still_open(images, tmp_path, monkeypatch, refused):
    out = tmp_path / "run"
    kept = files.write_atomically

    def full(path, write):
        config = json.loads((out / "run.json").read_text()) if (out / "run.json").exists() else {}
        if config.get("step", 0) >= 4 and path.suffix == "." + refused:

            def write(part):
                part.write_bytes(b"half of it")
                raise OSError(errno.ENOSPC, "No space left on device")

        return kept(path, write)

    monkeypatch.setattr(files, "write_atomically", full)
    with pytest.raises(RunError, match=r"cannot write .*No space left on device"):
        fit(images, "vae", out=out, steps=20, checkpoint_steps=2, **TINY)
    monkeypatch.undo()
    assert not list(out.rglob("*.part"))
    assert vk.open(out).config["step"] == 4
    assert tensors(checkpoints(out)[-1])
    run = fit(images, out=out, resume=True, progress=False)
    assert run.config["step"] == 20


def test_the_last_two_checkpoints_are_kept(images, tmp_path):
    fit(images, "vae", out=tmp_path / "run", steps=11, checkpoint_steps=3, **TINY)
    assert steps_of(tmp_path / "run") == [9, 11]


def test_patience_stops_early_and_keeps_the_best_weights(images, tmp_path):
    run = fit(images, "vae", out=tmp_path / "run", steps=400, lr=0.5, patience=2, validate_steps=2, warmup=0, **TINY)
    assert run.config["state"] == "stopped early"
    assert run.config["step"] < 400
    valid = [(r["step"], r["elbo"]) for r in run.log if r["kind"] == "valid"]
    best, elbo = max(valid, key=lambda v: v[1])
    assert valid[-1][0] - best == 2 * 2
    again = fit(
        images,
        "vae",
        out=tmp_path / "again",
        steps=best,
        lr=0.5,
        schedule="constant",
        validate_steps=2,
        warmup=0,
        **TINY,
    )
    if run.config["training"]["schedule"] == "constant":
        assert same(tmp_path / "run", tmp_path / "again")
    assert again.config["step"] == best
    assert elbo > valid[-1][1]


def test_patience_begins_when_the_weight_of_the_kl_has_risen(images, tmp_path, monkeypatch):
    monkeypatch.setattr("vaekit.training.loop.figure", lambda valid: -valid["step"])  # the first is the best
    run = fit(images, "vae", out=tmp_path / "run", steps=90, warmup=40, patience=2, validate_steps=2, **TINY)
    assert (run.config["state"], run.config["step"], run.config["best"]["step"]) == ("stopped early", 42, 2)


WORK = types.SimpleNamespace(seconds=lambda batch, device="cpu": 0.0001, convolutional=False)
"""The cost of a step of 0.1 ms."""


@pytest.fixture
def clock(monkeypatch):
    """A clock that training steps alone move, each by `step_seconds`."""
    clock = types.SimpleNamespace(now=100.0, step_seconds=0.01)
    clock.monotonic = lambda: clock.now
    for module in ("fit", "loop", "length"):
        monkeypatch.setattr(f"vaekit.training.{module}.time", clock)
    one_step = Trainer.one_step

    def timed(trainer):
        one_step(trainer)
        clock.now += clock.step_seconds

    monkeypatch.setattr(Trainer, "one_step", timed)
    return clock


@pytest.mark.parametrize("step_seconds", [0.01, 0.05])
def test_minutes_end_in_time_and_log_their_plans(images, tmp_path, monkeypatch, clock, step_seconds):
    """The plan is exact: a run of 3 s has as many steps as fit into it."""
    clock.step_seconds = step_seconds
    notes = []
    monkeypatch.setattr("vaekit.utils.progress.Silent.note", lambda progress, text: notes.append(text))
    run = fit(images, "vae", out=tmp_path / "run", minutes=0.05, warmup=3000, **TINY)
    assert run.config["state"] == "finished"
    assert "beta ends at" in notes[-1]
    steps = round(3 / step_seconds)
    assert abs(run.config["step"] - steps) <= 1  # the sum of float steps may round to either side
    assert run.config["step"] == run.config["plan"]["horizon"]
    assert run.config["seconds"] == pytest.approx(3, abs=1.01 * step_seconds)
    plans = [r for r in run.log if r["kind"] == "plan"]
    assert plans
    assert all(abs(r["horizon"] - steps) <= 1 for r in plans)
    assert all(r["step_ms"] == pytest.approx(1000 * step_seconds, rel=1e-6) for r in plans)


def test_minutes_are_used_although_the_first_estimate_is_of_fewer_steps_than_measure_a_pace(
    images, tmp_path, monkeypatch, clock
):
    """A step is estimated at 0.15 s and takes 0.01 s: the run of 3 s does not end after the estimated 20 steps."""
    slow = types.SimpleNamespace(seconds=lambda batch, device="cpu": 0.15, convolutional=False)
    monkeypatch.setattr("vaekit.training.plan.work", lambda *of: slow)
    monkeypatch.setattr("vaekit.training.plan.decide_compile", lambda *of: (False, ""))
    run = fit(images, "vae", out=tmp_path / "run", minutes=0.05, **TINY)
    assert run.config["decided"]["steps"] <= Clock.WARM
    assert abs(run.config["step"] - 300) <= 1


def test_a_planned_rise_of_beta_follows_the_minutes_however_long_a_step_takes(images, tmp_path, monkeypatch, clock):
    """Steps take a hundred times as long as was planned, and beta still rises over half of them."""
    monkeypatch.setattr("vaekit.training.plan.work", lambda *of: WORK)
    monkeypatch.setattr("vaekit.training.plan.decide_compile", lambda *of: (False, ""))
    betas, step = [], Engine.step

    def recorded(engine, *of):
        betas.append(float(engine.module.objective.beta(of[-1])))
        return step(engine, *of)

    monkeypatch.setattr(Engine, "step", recorded)
    run = fit(images, "vae", out=tmp_path / "run", minutes=0.05, **TINY)
    steps = run.config["step"]
    assert run.config["decided"]["steps"] > 50 * steps
    assert len(betas) == steps
    known = range(2 * Clock.WARM, steps)  # the time of a step is known
    assert [betas[i] for i in known] == pytest.approx([min(1, 2 * i / steps) for i in known], abs=0.1)


@pytest.mark.parametrize("more", [{"minutes": 0.2}, {"steps": 200}])
def test_a_planned_rise_of_beta_is_not_repeated_when_a_run_by_minutes_is_extended(
    images, tmp_path, monkeypatch, clock, more
):
    monkeypatch.setattr("vaekit.training.plan.work", lambda *of: WORK)
    monkeypatch.setattr("vaekit.training.plan.decide_compile", lambda *of: (False, ""))
    clock.step_seconds = 0.03
    fit(images, "vae", out=tmp_path / "run", minutes=0.05, **TINY)
    betas, step = [], Engine.step

    def recorded(engine, *of):
        betas.append(float(engine.module.objective.beta(of[-1])))
        return step(engine, *of)

    monkeypatch.setattr(Engine, "step", recorded)
    run = fit(images, "vae", out=tmp_path / "run", extend=True, **TINY | more)
    assert len(betas) > 90
    assert min(betas) == 1
    assert run.config["state"] == "finished"


def test_a_weight_of_0_does_not_rise_so_patience_counts_from_the_start():
    assert not ELBO(beta=0.0, images=True).planned
    assert ELBO(beta=0.5, images=True).planned


def test_only_one_length_is_taken(images, tmp_path):
    with pytest.raises(ChoiceError, match="not several"):
        fit(images, out=tmp_path / "run", steps=3, epochs=1.0, **TINY)
    for bad in ({"lr": 0.0}, {"batch": -1}, {"ema": 1.0}, {"steps": 0}, {"clip": float("nan")}, {"precision": "fp8"}):
        with pytest.raises(ChoiceError, match=next(iter(bad))):
            fit(images, out=tmp_path / "run", **{**TINY, **bad})
    assert not (tmp_path / "run").exists()


# --- sizes and shapes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 16, 48, 49, 1000])
def test_any_batch_size_fits_any_number_of_data(images, tmp_path, batch):
    n = len(images.train)
    assert n == 49
    run = fit(images, "vae", out=tmp_path / "run", epochs=2, **{**TINY, "batch": batch})
    assert run.config["step"] == -(-2 * n // min(batch, n))
    assert np.isfinite(run.log[-1]["elbo"])


def test_a_last_batch_of_one_is_evaluated_like_any_other(tmp_path):
    """501 validation data make blocks of 500 and 1: the mean is over data, not over blocks."""
    raw = blobs(560)
    data = vk.from_arrays(raw, splits={"train": range(50), "valid": range(50, 551), "test": range(551, 560)})
    run = fit(data, "vae", out=tmp_path / "run", steps=3, **TINY)
    recorded = next(r for r in run.log if r["kind"] == "valid")
    run.use_data(data)
    assert recorded["rate"] == pytest.approx(
        next(m for m in run.evaluate("valid", samples=1) if m["name"] == "rate")["value"]
    )


SHAPES = {
    "colour image": ((3, 20, 14), "image"),
    "grey image": ((9, 16), "image"),
    "bytes": ((7,), "vector"),
    "colour channels last": ((10, 6, 3), "image"),
    "large colour image": ((34, 22, 3), "image"),
    "signal": ((50,), "signal"),
    "signal of two": ((33, 2), "signal"),
    "floats": ((11,), "vector"),
}


SHAPED = ("vae", "conv", "kingma2013", "unit-gaussian", "linear", "ae", "conditional", "semi-supervised", "vq", "fsq")
"""Those of different networks; the rest are `vae` with other priors, posteriors and objectives."""


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("name", [*SHAPED, "ladder"])
def test_every_network_takes_every_shape_it_says(name, kind, tmp_path):
    shape, sort = SHAPES[kind]
    raw = blobs(24, *shape)
    if kind in ("floats", "signal", "signal of two"):
        raw = (raw.astype(np.float32) - 30) / 17
    data = vk.from_arrays(raw, kind=sort, label=np.arange(24) % 2)
    choices = {"latent": 2} if "latent" in RECIPES[name].parameters else {}
    cannot = {("conv", "bytes"), ("conv", "floats"), ("unit-gaussian", "floats"), ("unit-gaussian", "signal")}
    cannot |= {("unit-gaussian", "signal of two")}
    if (name, kind) in cannot:  # refused before anything is written, for a reason that says what it needs
        with pytest.raises(ChoiceError, match="need"):
            fit(data, name, out=tmp_path / "run", steps=2, batch=8, **QUIET, **choices)
        assert not (tmp_path / "run").exists()
        return
    run = fit(data, name, out=tmp_path / "run", steps=2, batch=8, **QUIET, **choices)
    assert run.sample(3).shape == (3, *data.shape)
    labels = {"labels": data.test.label[:2]} if run.composition.condition else {}
    assert run.reconstruct(data.test[:2], **labels).shape == (2, *data.shape)
    if run.model.no_density is None:
        assert np.isfinite(run.score(data.test[:2], samples=2, **labels)).all()


# --- the user's own parts ---------------------------------------------------------------------------------------


class Pictures(torch.utils.data.Dataset):
    def __init__(self):
        self.x = torch.from_numpy(blobs(40))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], i % 3


def test_a_dataset_and_a_network_of_ones_own(tmp_path):
    run = vk.fit(Pictures(), own_network(), out=tmp_path / "run", steps=5, **QUIET)
    x = Pictures().x.numpy()
    with pytest.raises(RunError, match=r"vk\.open\(run, model=composition\)"):
        vk.open(tmp_path / "run")
    again = vk.open(tmp_path / "run", model=own_network(seed=8))
    assert np.array_equal(run.encode(x), again.encode(x))
    with pytest.raises(RunError, match="does not fit"):
        vk.open(tmp_path / "run", model=Composition(own_network().model, TwoNumbers(), Binary()))


class TwoNumbers(ELBO):
    def __init__(self):
        super().__init__()
        self.more = nn.Parameter(torch.zeros(2))


def test_a_layer_used_twice_is_saved_and_opened(images, tmp_path):
    def build():
        composition = own_network()
        shared = nn.Linear(4, 4)
        composition.model.posterior.net = nn.Sequential(composition.model.posterior.net, shared, nn.Tanh(), shared)
        return composition

    run = fit(images, build(), out=tmp_path / "run", steps=4, ema=0.5, patience=3, validate_steps=1, **QUIET)
    again = vk.open(tmp_path / "run", model=build())
    assert np.array_equal(run.encode(blobs(5)), again.encode(blobs(5)))


def test_bytes_as_floats_are_refused_with_the_remedy(tmp_path):
    raw = blobs(30).astype(np.float32)
    with pytest.raises(ChoiceError, match=r"x / 255"):
        fit(raw[..., None], "vae", out=tmp_path / "a", likelihood="continuous-bernoulli", steps=1, **QUIET)
    event = (1, 6, 5)
    torch.manual_seed(0)
    model = gaussian_vae(
        networks.MLP(event, 4, ()), networks.MLP((2,), 30, ()), 2, heads.ContinuousBernoulliHead(event)
    )
    for observation, good in ((Grey(0, 1), False), (Grey(0, 255), True)):
        made = Composition(model, ELBO(), observation, Defaults(batch=8))
        if good:
            fit(raw, made, out=tmp_path / "c", steps=1, **QUIET)
        else:
            with pytest.raises(ChoiceError, match=r"outside the support.*x / 255"):
                fit(raw, made, out=tmp_path / "b", steps=1, **QUIET)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_an_event_of_another_shape_is_refused_before_training(images, tmp_path):
    made = own_network(shape=(5, 6))
    with pytest.raises(ChoiceError, match=r"\(1, 5, 6\).*\(1, 6, 5\)"):
        fit(images, made, out=tmp_path / "run", steps=1, **QUIET)
    assert not (tmp_path / "run").exists()


def test_unknown_names_are_answered_with_the_nearest(images, tmp_path):
    with pytest.raises(ChoiceError, match="kingma2013"):
        fit(images, "kingma2014", out=tmp_path / "run")
    with pytest.raises(ChoiceError, match="latent"):
        fit(images, "vae", out=tmp_path / "run", laten=3)
    with pytest.raises(VaekitError, match="neither a data set nor a path"):
        fit("no-such-data", out=tmp_path / "run")


@pytest.mark.parametrize("rule", ["sgd", "adagrad", "adamax"])
def test_the_options_of_a_run_train_another(images, tmp_path, rule):
    """Also those of an optimiser without beta2."""
    first = fit(images, "vae", out=tmp_path / "a", steps=2, optimiser=rule, lr=1e-3, **TINY)
    given = {name: getattr(first.options, name) for name in vk.Options.__dataclass_fields__}
    fit(images, "vae", out=tmp_path / "b", latent=2, hidden=(8,), progress=False, **given)
    assert same(tmp_path / "a", tmp_path / "b")
    assert (first.options.beta2 is None) == (rule != "adamax")
