"""Sweeps: trials by Optuna, pruning, continuing after an interruption or a kill, several processes, the page."""

import html.parser
import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from core_helpers import QUIET, same

import vaekit as vk
from vaekit.cli import main
from vaekit.errors import ChoiceError, RunError, TrainingError

pytest.importorskip("optuna", reason="sweeps need optuna")

from vaekit.tuning import Sweep
from vaekit.tuning.page import sentences
from vaekit.tuning.records import attribute, study_of
from vaekit.tuning.work import recover

QUIETLY = {k: v for k, v in QUIET.items() if k != "progress"}
TINY = {**QUIETLY, "hidden": (8,), "steps": 40, "batch": 32, "progress": False}
OVER = "latent=1..4,lr=1e-6..3e-2:log,beta=0.2|1|5"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A file of 300 rows with three columns that depend on each other."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5))
    x[:, 1] += 2 * x[:, 0]
    x[:, 2] -= 2 * x[:, 0]
    path = tmp_path_factory.mktemp("table") / "table.npz"
    np.savez(path, x=x.astype(np.float32))
    return path


@pytest.fixture(scope="module")
def sweep(table, tmp_path_factory):
    """Twelve trials in one process."""
    return vk.tune(str(table), over=OVER, trials=12, out=tmp_path_factory.mktemp("sweeps") / "whole", **TINY)


# --- what a sweep finds -----------------------------------------------------------------------------------------


def test_every_trial_has_a_run_and_the_best_one_is_named(sweep):
    stored = json.loads((sweep.path / "sweep.json").read_text())
    assert [one.name for one in sweep.trials] == [f"trial-{i:03d}" for i in range(12)]
    assert all((one.path / "run.json").is_file() for one in sweep.trials)
    assert stored["best"] == sweep.best.name
    assert [one["name"] for one in stored["trials"]] == [one.name for one in sweep.trials]
    assert (stored["seed"], sweep.run(sweep.best).options.seed) == (0, 0)
    assert sweep.best.values["elbo"] == max(one.values["elbo"] for one in sweep.ranked)
    assert {"trial", "latent", "lr", "beta", "elbo", "rate", "steps"} <= set(sweep.table()[0])
    for one in sweep.trials:
        config = sweep.run(one).config
        assert config["arguments"]["latent"] == one.settings["latent"]
        assert config["arguments"]["beta"] == one.settings["beta"]
        assert config["training"]["lr"] == one.settings["lr"]


def test_trials_are_judged_by_the_same_bound_whatever_beta_they_train_with(sweep):
    assert len({one.settings["beta"] for one in sweep.ranked}) > 1
    for one in sweep.ranked[:3]:
        scores = sweep.run(one).observed("valid")
        measured = sweep.run(one).evaluate("valid", metrics=["elbo"], samples=10)[0]
        assert one.values["elbo"] == pytest.approx(measured["value"], rel=1e-6)
        assert one.se["elbo"] == pytest.approx(measured["se"], rel=1e-6)
        assert one.values["elbo"] == pytest.approx(-(one.beside["rate"] + one.beside["distortion"]), abs=0.3)
        assert scores.n == sweep.settings["rows"]


def test_a_pruned_trial_is_stopped_early(sweep):
    pruned = [one for one in sweep.trials if one.state == "pruned"]
    assert pruned
    assert all(one.steps < TINY["steps"] and not one.values for one in pruned)
    assert all(one.steps == TINY["steps"] for one in sweep.ranked)
    assert all(sweep.run(one).config["step"] == one.steps for one in sweep.trials)
    assert len([one for one in sweep.trials[: sweep.trials.index(pruned[0])] if one.state == "finished"]) >= 5


def test_the_command_trains_the_best_trial_again_to_the_same_weights(sweep, tmp_path, capsys):
    command = shlex.split(sweep.command(out=str(tmp_path / "again")))
    assert command[:2] == ["vaekit", "fit"]
    assert main(command[1:]) == 0
    assert same(tmp_path / "again", sweep.best.path)
    run = sweep.fit_best(out=tmp_path / "longer", steps=50, progress=False)
    assert run.config["step"] == 50
    assert run.config["training"]["lr"] == sweep.best.settings["lr"]


class Tags(html.parser.HTMLParser):
    """Checks that tags are closed in the order in which they are opened."""

    VOID = ("meta", "img", "source", "br", "link", "input")

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_well_formed_and_says_what_was_found(sweep):
    tags = Tags()
    tags.feed((sweep.path / "sweep.html").read_text(encoding="utf8"))
    tags.close()
    assert tags.open == []
    text = " ".join(tags.text)
    for one in sweep.trials:
        assert one.name in text
    assert f"{sweep.best.name} is the best of {len(sweep.ranked)} finished trials" in text
    assert "These data chose it" in text
    assert "had no part in the choice" in text
    assert sweep.command() in text.replace("&#39;", "'")
    assert "vaekit tune" in text


def test_the_lead_is_paired_on_both_splits(sweep):
    first, second = sweep.ranked[:2]
    lead = sweep.lead
    for split, found in (("valid", lead.valid), ("test", lead.test)):
        a, b = (sweep.scores(split)[one.name]["elbo"] for one in (first, second))
        assert found.value == pytest.approx((a - b).mean())
        assert found.se == pytest.approx((a - b).std(ddof=1) / np.sqrt(len(a)))
    assert lead.valid.value == pytest.approx(first.values["elbo"] - second.values["elbo"])
    assert lead.selection.value == pytest.approx(lead.valid.value - lead.test.value)
    assert sum(sweep.chances.values()) == pytest.approx(1)
    assert max(sweep.chances, key=sweep.chances.get) == first.name


# --- continuing -------------------------------------------------------------------------------------------------


def test_an_interrupted_sweep_continues_as_if_it_had_not_stopped(sweep, table, tmp_path):
    """Interrupted between trials, then inside one: the same settings, and the same weights."""
    out, seen = tmp_path / "stopped", []

    def stop(trial):
        seen.append(trial.name)
        if len(seen) == 2:
            raise KeyboardInterrupt

    asked = {**TINY, "over": OVER, "out": out}
    with pytest.raises(KeyboardInterrupt):
        vk.tune(str(table), **{**asked, "progress": stop}, trials=12)
    assert [one.state for one in Sweep(out).trials] == ["finished", "finished"]
    inside = "import os, signal, vaekit.training.loop as t\n"
    inside += "step = t.Trainer.one_step\n"
    inside += "def kill(self):\n    step(self)\n    if self.step == 25: os.kill(os.getpid(), signal.SIGKILL)\n"
    inside += "t.Trainer.one_step = kill\nimport vaekit as vk\n"
    named = {**asked, "out": str(out), "trials": 12}
    done = subprocess.run([sys.executable, "-c", f"{inside}vk.tune({str(table)!r}, **{named!r})"], timeout=600)
    assert done.returncode == -signal.SIGKILL
    assert [one.state for one in Sweep(out).trials] == ["finished", "finished", "unfinished"]
    again = vk.tune(str(table), **asked, trials=4)
    assert [one.state for one in again.trials] == [one.state for one in sweep.trials[:4]]
    assert [one.settings for one in again.trials] == [one.settings for one in sweep.trials[:4]]
    assert all(same(one.path, other.path) for one, other in zip(again.trials, sweep.trials, strict=False))
    assert len(again.settings["sessions"]) == 3
    before = [one.path.stat().st_mtime_ns for one in again.trials]
    assert [one.path.stat().st_mtime_ns for one in vk.tune(str(table), **asked, trials=4).trials] == before


def test_a_stop_while_trials_are_recovered_loses_none(tmp_path, monkeypatch):
    settings = {"metrics": [{"name": "elbo", "better": "higher"}]}
    study = study_of(tmp_path, settings, create=True)
    trial = study.ask()
    trial.suggest_int("latent", 2, 8)
    attribute(trial, run="trial-000", settings={"latent": 3})

    def stop(*args, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(study, "tell", stop)
        with pytest.raises(KeyboardInterrupt):
            recover(tmp_path, study)
    recover(tmp_path, study)
    assert len([one for one in study.get_trials() if not one.state.is_finished()]) == 1
    again = study.ask()
    assert (again.user_attrs["run"], again.suggest_int("latent", 2, 8)) == ("trial-000", trial.params["latent"])


def test_time_is_counted_over_all_sessions_and_stops_a_trial(table, tmp_path, capsys):
    asked = {**TINY, "over": OVER, "out": tmp_path / "timed", "steps": 10**6}
    sweep = vk.tune(str(table), **asked, minutes=0.02)
    assert [one.state for one in sweep.trials] in (["unfinished"], [])
    assert sum(one["seconds"] for one in sweep.settings["sessions"]) >= 1.2
    steps = [one.steps for one in sweep.trials]
    again = vk.tune(str(table), **asked, minutes=0.02)
    assert [one.steps for one in again.trials] == steps
    assert "No trial has finished" in sentences(again)[0]
    with pytest.raises(RunError, match="no trial of"):
        _ = again.best


def test_another_sweep_in_the_same_directory_is_refused(sweep, table, tmp_path):
    asked = {**TINY, "over": OVER, "trials": 12, "out": sweep.path}
    with pytest.raises(RunError, match=r"`lr`|`latent`"):
        vk.tune(str(table), **{**asked, "over": "latent=1..4"})
    with pytest.raises(RunError, match="`steps` 40, not 50"):
        vk.tune(str(table), **{**asked, "steps": 50})
    with pytest.raises(RunError, match="`metrics` elbo, not mse"):
        vk.tune(str(table), metrics="mse", **asked)
    with pytest.raises(RunError, match="other data"):
        vk.tune(np.load(table)["x"][:200], **asked)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(RunError, match="other files"):
        vk.tune(str(table), **{**asked, "out": tmp_path / "full"})


def test_two_processes_share_a_sweep(table, tmp_path):
    told = []
    asked = {**TINY, "over": OVER, "out": tmp_path / "two", "progress": told.append}
    sweep = vk.tune(str(table), **asked, trials=5, jobs=2)
    assert [one.name for one in sweep.trials] == [f"trial-{i:03d}" for i in range(5)]
    assert {one.state for one in sweep.trials} == {"finished"}
    assert len({tuple(one.settings.items()) for one in sweep.trials}) == 5
    assert sorted(one.name for one in told) == [one.name for one in sweep.trials]
    assert sweep.settings["sessions"][0]["jobs"] == 2
    with pytest.raises(ChoiceError, match="`jobs` above 1 needs data that other processes can read"):
        vk.tune(np.load(table)["x"], **{**asked, "out": tmp_path / "array"}, jobs=2)


# --- kinds of metrics, failures, seeds --------------------------------------------------------------------------


def test_several_metrics_have_a_front(table, tmp_path):
    sweep = vk.tune(str(table), over="beta=0.01..10:log,latent=1..4", metrics="rate,distortion", trials=5,
                    out=tmp_path / "front", **TINY)  # fmt: skip
    assert {one.state for one in sweep.trials} == {"finished"}
    points = {one.name: (one.values["rate"], one.values["distortion"]) for one in sweep.trials}
    front = {a for a, p in points.items() if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points.values())}
    assert {one.name for one in sweep.front} == front
    assert "Pareto front" in (sweep.path / "sweep.html").read_text()
    with pytest.raises(ChoiceError, match="choose one of `front`"):
        _ = sweep.best


def test_a_trial_that_fails_is_kept_with_its_reason_and_the_sweep_goes_on(table, tmp_path, monkeypatch):
    from vaekit.training.loop import Trainer

    run = Trainer.run

    def failing(trainer):
        if trainer.plan.lr > 0.5:
            raise TrainingError("the loss became nan")
        return run(trainer)

    monkeypatch.setattr(Trainer, "run", failing)
    asked = {**TINY, "over": "lr=0.001|1.0"}
    sweep = vk.tune(str(table), **asked, trials=4, out=tmp_path / "some")
    assert {one.settings["lr"]: (one.state, one.why) for one in sweep.trials} == {
        0.001: ("finished", None),
        1.0: ("failed", "the loss became nan"),
    }
    with pytest.raises(TrainingError, match="the first 3 trials failed; the last one: the loss became nan"):
        vk.tune(str(table), **{**asked, "over": "lr=1.0|2.0"}, trials=4, out=tmp_path / "all")


def test_the_best_trials_are_trained_again_with_other_seeds(table, tmp_path, capsys):
    sweep = vk.tune(str(table), over="latent=1|3", trials=2, out=tmp_path / "seeds", **{**TINY, "steps": 10})
    assert len(sweep.ranked) == 2
    found = sweep.confirm(seeds=2, progress=False)
    assert {name: list(values) for name, values in found.items()} == {one.name: [1, 2] for one in sweep.ranked}
    for name, values in sweep.confirmed().items():
        assert values == pytest.approx(found[name])
    assert any("Trained again with 2 other seeds" in said for said in sentences(sweep))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"metrics": "elbow"}, "did you mean 'elbo'"),
        ({"metrics": "active_units"}, "no better direction"),
        ({"metrics": "entropy_floor:lower"}, "describes the data"),
        ({"trials": 0}, "`trials` must be above 0"),
        ({"devices": 2}, "`jobs`"),
        ({"lrr": 3}, "did you mean 'lr'"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(table, tmp_path, asked, message):
    with pytest.raises(ChoiceError, match=message):
        vk.tune(str(table), **{**TINY, "over": "latent=1..2", "out": tmp_path / "none", **asked})
    assert not (tmp_path / "none").exists()


# --- the command line -------------------------------------------------------------------------------------------


def test_the_command_line(table, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["tune", str(table), "--over", "latent=1..3,hidden=4|6,6", "--steps", "8", "--batch", "32",
             "--compile", "off", "--device", "cpu", "--trials", "2", "--out", "sweep"]  # fmt: skip
    assert main(words) == 0
    said = capsys.readouterr()
    assert "trial-000: ELBO" in said.err
    assert "is the best of 2 finished trials" in said.out
    assert "vaekit compare sweep/trial-00" in said.out
    assert said.out.rstrip().endswith("sweep/sweep.html")
    assert main(["tune", "--trials", "3", "--out", "sweep"]) == 0
    assert len(Sweep("sweep").trials) == 3
    assert main(["tune", "--steps", "9", "--out", "sweep"]) == 2
    assert "continued with its own settings: omit --steps" in capsys.readouterr().err
    capsys.readouterr()
    assert main(["tune", "digits", "--over", "latnet=2..4"]) == 2
    assert "did you mean 'latent'" in capsys.readouterr().err
    assert main(["tune", "digits"]) == 2
    assert "tune needs --over" in capsys.readouterr().err
    assert main(["tune", "digits", "--over", "latent=2..4", "--learning-rate", "1"]) == 2
    assert "did you mean --lr" in capsys.readouterr().err


def test_ctrl_c_on_the_command_line_keeps_the_trials(table, tmp_path):
    """SIGINT inside a trial of two processes: both save, and the status is 130."""
    out = tmp_path / "sweep"
    words = [sys.executable, "-m", "vaekit", "tune", str(table), "--over", "latent=1..4", "--steps", "1000000",
             "--hidden", "8", "--compile", "off", "--device", "cpu", "--jobs", "2", "--out", str(out)]  # fmt: skip
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 300
    while len(list(out.glob("trial-*/log.jsonl"))) + len(list(out.glob("trial-*/run.json"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 130
    assert "the same command continues the sweep" in said
    assert {one.state for one in Sweep(out).trials} == {"unfinished"}
    assert all(one.config["state"] == "interrupted" for one in map(vk.open, sorted(Path(out).glob("trial-*"))))
