"""Going on with a run: finished runs keep their settings, extended ones equal longer ones, and cells run again."""

import json
import shutil

import numpy as np
import pytest
from core_helpers import QUIET, blobs, own_network, same

import vaekit as vk
from vaekit.errors import ChoiceError, RunError
from vaekit.objectives.schedules import learning_rate
from vaekit.run import fit
from vaekit.training.loop import Trainer, checkpoints
from vaekit.utils.files import read_json, write_json
from vaekit.utils.progress import Silent

TINY = {**QUIET, "latent": 2, "hidden": (8,), "batch": 16}


@pytest.fixture(scope="module")
def images():
    return vk.from_arrays(blobs(61), name="blobs")


@pytest.fixture(scope="module")
def kept(images, tmp_path_factory):
    """A finished run of 12 steps with checkpoints at 6 and 12."""
    out = tmp_path_factory.mktemp("kept") / "run"
    fit(images, "vae", out=out, steps=12, checkpoint_steps=6, lr=2e-3, **TINY)
    return out


@pytest.fixture
def finished(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "run")


def config(path):
    return read_json(path / "run.json")


# --- a finished run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other", [{"steps": 40}, {"lr": 0.5}, {"latent": 9}, {"epochs": 2}, {"beta": 4.0}, {"recipe": "iwae"}]
)
def test_a_finished_run_refuses_what_differs(images, finished, other):
    before = (finished / "run.json").read_bytes()
    for way in ({"resume": True}, {"exists": "resume"}):
        with pytest.raises(RunError, match=f"started with(out)? `?{next(iter(other))}"):
            fit(images, out=finished, progress=False, **way, **other)
    with pytest.raises(RunError, match="data differ"):
        fit(blobs(61, seed=2), out=finished, resume=True, progress=False)
    assert (finished / "run.json").read_bytes() == before


def test_a_finished_run_is_given_back_to_who_asks_for_the_same(images, finished):
    for given in ({}, {"recipe": "vae", "steps": 12, "lr": 2e-3, "latent": 2, "hidden": [8]}, {"likelihood": "auto"}):
        run = fit(images, out=finished, resume=True, progress=False, **given)
        assert (run.state, run.config["step"]) == ("finished", 12)


# --- longer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [False, True], ids=["recipe", "own network with averages"])
def test_a_run_that_is_extended_equals_a_longer_one(images, tmp_path, own):
    """With a constant learning rate and KL weight, weights and checkpoints are those of one training, bit for bit."""
    common = {**QUIET, "ema": 0.9} if own else {**TINY, "schedule": "constant", "warmup": 0}
    build = own_network if own else lambda: "vae"
    longer = fit(images, build(), out=tmp_path / "whole", steps=20, **common)
    fit(images, build(), out=tmp_path / "run", steps=7, **common)
    fit(images, build(), out=tmp_path / "run", extend=True, steps=11, progress=False)
    run = fit(images, build(), out=tmp_path / "run", extend=True, steps=20, progress=False)
    for file in ("model.safetensors", "checkpoint/000000020.safetensors"):
        assert same(tmp_path / "run", tmp_path / "whole", file)
    assert (run.state, run.config["step"], run.config["training"]["steps"]) == ("finished", 20, 20)
    legs = [(leg["from"], leg["to"], leg["asked"]) for leg in run.config["legs"]]
    assert legs == [(0, 7, {"steps": 7}), (7, 11, {"steps": 11}), (11, 20, {"steps": 20})]
    assert all(leg["started"] >= run.config["created"] for leg in run.config["legs"])
    assert [leg["to"] for leg in longer.config["legs"]] == [20]
    assert np.array_equal(run.encode(blobs(5)), longer.encode(blobs(5)))


def test_an_extension_that_is_killed_and_resumed_equals_one_that_is_not(images, finished, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    whole = shutil.copytree(finished, tmp_path / "whole")
    fit(images, out=whole, extend=True, steps=30, progress=False)
    save = Trainer.save

    def until(trainer, state):
        if trainer.step > 18:
            raise Killed
        save(trainer, state)

    monkeypatch.setattr(Trainer, "save", until)
    with pytest.raises(Killed):
        fit(images, out=finished, extend=True, steps=30, progress=False)
    monkeypatch.undo()
    assert (config(finished)["step"], config(finished)["state"]) == (18, "running")
    fit(images, out=finished, resume=True, progress=False)
    assert same(finished, whole)
    assert [(leg["from"], leg["to"]) for leg in config(finished)["legs"]] == [(0, 12), (12, 30)]


def test_killed_before_its_first_step_an_extension_goes_on_as_it_was_asked(images, finished, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(trainer):
        raise Killed

    monkeypatch.setattr(Trainer, "one_step", kill)
    with pytest.raises(Killed):
        fit(images, out=finished, extend=True, steps=15, progress=False)
    monkeypatch.undo()
    assert fit(images, out=finished, resume=True, progress=False).config["step"] == 15


def test_extending_again_to_the_same_length_trains_no_more(images, finished):
    run = fit(images, out=finished, extend=True, epochs=4, progress=False)
    assert run.config["step"] == -(-4 * 49 // 16)
    assert (run.config["training"]["epochs"], run.config["training"]["steps"]) == (4, None)
    again = fit(images, out=finished, extend=True, epochs=4, progress=False)
    assert len(again.config["legs"]) == 2


def test_what_cannot_be_extended_says_why(images, finished, tmp_path):
    for given, said in (
        ({}, "`epochs`, `steps` or `minutes`"),
        ({"steps": 11}, "has taken 12 steps"),
        ({"epochs": 2}, "has taken 12 steps"),
        ({"steps": 20, "lr": 1e-4}, "started with `lr"),
        ({"steps": 20, "latent": 3}, "started with `latent"),
        ({"steps": 20, "patience": 3}, "had no `patience`"),
        ({"steps": 20, "exists": "replace"}, "`extend` needs the run"),
        ({"minutes": 1e-9}, "minutes already"),
    ):
        with pytest.raises((ChoiceError, RunError), match=said):
            fit(images, out=finished, extend=True, progress=False, **given)
    with pytest.raises(RunError, match="no run at"):
        fit(images, out=tmp_path / "nowhere", extend=True, steps=20, progress=False)
    shutil.rmtree(finished / "checkpoint")
    with pytest.raises(RunError, match="init_from"):
        fit(images, out=finished, extend=True, steps=20, progress=False)
    assert config(finished)["state"] == "finished"


def test_an_early_stop_is_extended_by_patience(images, tmp_path):
    common = {"lr": 0.5, "validate_steps": 2, **TINY}
    stopped = fit(images, "vae", out=tmp_path / "run", steps=60, patience=2, **common)
    assert stopped.state == "stopped early"
    with pytest.raises(RunError, match="patience=4"):
        fit(images, out=tmp_path / "run", extend=True, patience=2, progress=False)
    run = fit(images, out=tmp_path / "run", extend=True, patience=30, progress=False)
    assert (run.state, run.config["step"]) == ("finished", 60)
    fit(images, "vae", out=tmp_path / "whole", steps=60, patience=30, **common)
    assert same(tmp_path / "run", tmp_path / "whole")


def test_an_early_stop_is_extended_to_the_whole_length(images, tmp_path, capsys):
    common, out = {"lr": 0.5, "validate_steps": 2, "warmup": 0, **TINY}, tmp_path / "run"
    stopped = fit(images, "vae", out=out, steps=60, patience=2, **common)
    assert (stopped.state, stopped.config["step"] < 20) == ("stopped early", True)
    best = stopped.config["best"]
    run = fit(images, out=out, extend=True, steps=40, progress=True)
    assert "had stopped early" in capsys.readouterr().err
    assert (run.state, run.config["step"]) == ("finished", 40)
    assert run.config["best"]["elbo"] >= best["elbo"]
    again = fit(images, out=out, extend=True, steps=40, progress=False)
    assert (again.config["step"], len(again.config["legs"])) == (40, 2)


def test_a_schedule_is_stretched_and_the_note_says_so(images, tmp_path, capsys):
    """The learning rate after the extension is that of the new length; what was trained stays as it was."""
    out, common = tmp_path / "run", {**TINY, "progress": True}
    fit(images, "vae", out=out, steps=10, schedule="cosine", **common)
    capsys.readouterr()
    seen = []
    step = Trainer.one_step

    def watched(trainer):
        seen.append((trainer.step, trainer.length.horizon))
        step(trainer)

    with pytest.MonkeyPatch.context() as m:
        m.setattr(Trainer, "one_step", watched)
        fit(images, out=out, extend=True, steps=20)
    assert seen == [(i, 20) for i in range(10, 20)]
    said = capsys.readouterr().err
    was, now = learning_rate("cosine", 1.0), learning_rate("cosine", 0.5)
    assert f"from {was:.2g} to {now:.2g}" in said
    assert "the result differs" in said


def test_another_number_of_threads_is_announced(images, finished, monkeypatch):
    notes = []
    monkeypatch.setattr(Silent, "note", lambda progress, text: notes.append(text) if "thread" in text else None)
    fit(images, out=finished, extend=True, steps=14, progress=False)
    assert notes == []
    monkeypatch.setattr("vaekit.training.start.torch.get_num_threads", lambda: 3)
    fit(images, out=finished, extend=True, steps=16, progress=False)
    (note,) = notes
    assert "started with 1 thread and is resumed with 3" in note
    assert "OMP_NUM_THREADS=1" in note


def test_minutes_count_from_the_beginning(images, finished):
    stored = config(finished)
    write_json(finished / "run.json", stored | {"seconds": 30.0})
    with pytest.raises(ChoiceError, match=r"0\.5 minutes already"):
        fit(images, out=finished, extend=True, minutes=0.25, progress=False)

    class Stop(Silent):
        stop = True

    run = fit(images, out=finished, extend=True, minutes=0.6, progress=Stop(), on_interrupt="return")
    assert run.config["training"]["minutes"] == 0.6
    assert run.config["plan"]["horizon"] > 12  # some 14, at 12 steps in 30 seconds


def test_a_run_of_an_earlier_version_gets_its_first_leg(images, finished):
    stored = config(finished)
    del stored["legs"]
    write_json(finished / "run.json", stored)
    run = fit(images, out=finished, extend=True, steps=14, progress=False)
    assert [(leg["from"], leg["to"]) for leg in run.config["legs"]] == [(0, 12), (12, 14)]
    assert run.config["legs"][0]["started"] == stored["created"]


# --- a cell that runs again -------------------------------------------------------------------------------------


def test_a_cell_that_runs_again(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fit(images, steps=3, **TINY)
    assert run.path.as_posix() == "runs/blobs-vae"
    with pytest.raises(RunError, match=r"exists='resume'.*exists='replace'") as refused:
        fit(images, steps=3, **TINY)
    assert "--" not in str(refused.value)
    assert fit(images, steps=3, exists="resume", **TINY).config["created"] == run.config["created"]
    (run.path / "metrics.json").write_text("[]")
    (run.path / "mine.txt").write_text("the user's")
    other = fit(images, steps=2, exists="replace", **{**TINY, "latent": 3})
    assert (other.config["step"], other.config["arguments"]["latent"]) == (2, 3)
    assert [int(f.stem) for f in checkpoints(run.path)] == [2]
    assert not (run.path / "metrics.json").exists()
    assert (run.path / "mine.txt").read_text() == "the user's"
    with pytest.raises(ChoiceError, match="`exists` must be one of"):
        fit(images, steps=3, exists="overwrite", **TINY)


def test_a_new_run_that_cannot_start_replaces_nothing(images, finished):
    before = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    for wrong in ({"latent": 0}, {"lr": -1}, {"likelihood": "none"}):
        with pytest.raises(ChoiceError):
            fit(images, out=finished, exists="replace", steps=2, **{**TINY, **wrong})
    assert {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()} == before


def test_weights_without_their_description_are_not_written_over(images, finished):
    (finished / "run.json").unlink()
    with pytest.raises(RunError, match=r"model\.safetensors but no run\.json"):
        fit(images, out=finished, exists="replace", steps=2, **TINY)
    assert checkpoints(finished)


def test_a_run_finds_its_own_data(tmp_path):
    np.save(tmp_path / "x.npy", blobs(40))
    fit(tmp_path / "x.npy", "vae", out=tmp_path / "run", steps=3, **TINY)
    assert fit(out=tmp_path / "run", extend=True, steps=5, progress=False).config["step"] == 5
    fit(blobs(40), "vae", out=tmp_path / "memory", steps=3, **TINY)
    assert fit(out=tmp_path / "memory", resume=True, progress=False).state == "finished"
    with pytest.raises(RunError, match="arrays in memory"):
        fit(out=tmp_path / "memory", extend=True, steps=5, progress=False)
    with pytest.raises(ChoiceError, match="fit needs data"):
        fit(out=tmp_path / "new", steps=5, progress=False)


@pytest.mark.parametrize(
    ("name", "said"), [("", "empty"), ("x" * 300, "too long"), ("a\udcffb", "not UTF-8"), ("a\0b", "null")]
)
def test_names_that_no_run_can_have(images, tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    for use in (lambda: fit(images, out=name, steps=1, **TINY), lambda: vk.open(name)):
        with pytest.raises(RunError, match=said) as refused:
            use()
        assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_the_log_of_legs_is_one(images, finished):
    run = fit(images, out=finished, extend=True, steps=24, progress=False)
    lines = (finished / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == sorted(json.loads(line)["step"] for line in lines)
    assert run.log[-1]["step"] == 24


def test_numbers_of_earlier_weights_are_set_aside(images, tmp_path):
    run = fit(images, "vae", out=tmp_path / "run", **TINY | {"steps": 7})
    run.evaluate(samples=2)
    fit(images, out=run.path, resume=True, progress=False)  # finished: nothing is trained
    assert vk.open(run.path).metrics
    longer = fit(images, out=run.path, extend=True, steps=11, progress=False)
    assert longer.metrics == []
    assert {m["name"] for m in read_json(run.path / "metrics-000000007.json")} >= {"elbo", "rate"}


def test_a_length_that_was_extended_may_be_asked_for_again(images, tmp_path):
    out = tmp_path / "run"
    fit(images, "vae", out=out, **TINY | {"steps": 7})
    fit(images, out=out, extend=True, steps=11, progress=False)
    assert fit(images, "vae", out=out, exists="resume", **TINY | {"steps": 7}).config["step"] == 11
    with pytest.raises(RunError, match="steps"):
        fit(images, "vae", out=out, exists="resume", **TINY | {"steps": 9})


def test_classes_named_by_numbers(tmp_path):
    x = blobs(40)
    run = fit(
        vk.from_arrays(x, label=np.arange(40) % 3, label_names=range(3)), out=tmp_path / "run", **TINY | {"steps": 3}
    )
    assert run.config["data"]["label_names"] == ["0", "1", "2"]
    config = read_json(run.path / "run.json")
    config["data"]["label_names"] = [0, 1, 2]  # as earlier versions wrote them
    write_json(run.path / "run.json", config)
    assert vk.open(run.path).config["data"]["label_names"] == ["0", "1", "2"]


def test_a_run_without_beta2_is_resumed_with_that_of_its_version(images, tmp_path):
    """Earlier versions did not store it; the recipe's default is another one now."""
    common = {**TINY, "schedule": "constant", "warmup": 0}
    for name, given in (("now", {}), ("then", {"beta2": 0.999})):
        fit(images, "vae", out=tmp_path / name, steps=6, **common, **given)
    stored = read_json(tmp_path / "then" / "run.json")
    del stored["training"]["beta2"]
    write_json(tmp_path / "then" / "run.json", stored)
    assert [vk.open(tmp_path / name).options.beta2 for name in ("now", "then")] == [0.99, 0.999]
    fit(images, out=tmp_path / "then", extend=True, steps=12, progress=False)
    fit(images, "vae", out=tmp_path / "whole", steps=12, beta2=0.999, **common)
    assert same(tmp_path / "then", tmp_path / "whole")
