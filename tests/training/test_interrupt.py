"""Signals save and stop, and give the run back or raise; streams that nobody reads end no training."""

import builtins
import io
import os
import signal

import pytest
from core_helpers import QUIET, blobs, python, same

import vaekit as vk
from vaekit.cli import main
from vaekit.errors import ChoiceError
from vaekit.run import fit
from vaekit.training.loop import Trainer
from vaekit.utils.files import read_json
from vaekit.utils.progress import Live, Plain, Silent

TINY = {**QUIET, "latent": 2, "hidden": (8,), "batch": 16, "steps": 20, "validate_steps": 5}


@pytest.fixture(scope="module")
def images():
    return vk.from_arrays(blobs(61), name="blobs")


class Sends(Silent):
    """Sends this process a signal when a step is recorded; keeps the notes."""

    def __init__(self, number, at=5):
        self.number, self.at, self.notes = number, at, []

    def update(self, step, *words):
        if step == self.at:
            os.kill(os.getpid(), self.number)

    def note(self, text):
        self.notes.append(text)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_saves_and_the_run_goes_on_from_there(images, tmp_path, name, capsys, request):
    number = getattr(signal, name)
    first = signal.signal(number, signal.default_int_handler)  # whatever the tests were started with, such as nohup
    request.addfinalizer(lambda: signal.signal(number, first))
    before = signal.getsignal(number)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match=str(out)):
        fit(images, "vae", out=out, **{**TINY, "progress": Sends(number)})
    assert signal.getsignal(number) == before
    run = fit(images, "vae", out=tmp_path / "again", on_interrupt="return", **{**TINY, "progress": Sends(number)})
    assert (run.state, run.config["step"]) == ("interrupted", vk.open(out).config["step"])
    assert run.config["step"] == 5
    said = capsys.readouterr().err
    assert "interrupted: saved in" in said
    assert "resume=True" in said
    fit(images, out=out, resume=True, progress=False)
    fit(images, "vae", out=tmp_path / "whole", **TINY)
    assert same(out, tmp_path / "whole")


def test_under_nohup_it_goes_on(images, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = fit(images, "vae", out=tmp_path / "run", **{**TINY, "progress": Sends(signal.SIGHUP)})
    finally:
        signal.signal(signal.SIGHUP, before)
    assert run.state == "finished"


def test_scripts_stop_and_notebooks_have_the_run(images, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        fit(images, "vae", out=tmp_path / "script", **{**TINY, "progress": Sends(signal.SIGINT)})
    monkeypatch.setattr(builtins, "__IPYTHON__", True, raising=False)
    run = fit(images, "vae", out=tmp_path / "notebook", **{**TINY, "progress": Sends(signal.SIGINT)})
    assert run.state == "interrupted"
    assert len(run.sample(2)) == 2
    with pytest.raises(ChoiceError, match="on_interrupt"):
        fit(images, "vae", out=tmp_path / "wrong", on_interrupt="ignore", **TINY)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_after_a_signal_at_the_last_step_the_run_is_complete(images, tmp_path, name, capsys):
    number, out = getattr(signal, name), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match=str(out)):  # a script still ends
        fit(images, "vae", out=out, **{**TINY, "progress": Sends(number, at=20)})
    saved = read_json(out / "run.json")
    assert (saved["state"], saved["step"], saved["valid"]["step"]) == ("finished", 20, 20)
    fit(images, "vae", out=tmp_path / "whole", **TINY)
    assert same(out, tmp_path / "whole")
    again = {**TINY, "progress": Sends(number, at=20)}
    run = fit(images, "vae", out=tmp_path / "again", on_interrupt="return", **again)
    assert run.state == "finished"
    said = capsys.readouterr().err
    assert f"interrupted after the last step: the run in {tmp_path / 'again'} is complete" in said
    assert "resume" not in said


def test_a_signal_at_the_step_of_an_early_stop_ends_the_script_and_the_run_is_complete(images, tmp_path, monkeypatch):
    monkeypatch.setattr("vaekit.training.loop.figure", lambda valid: -valid["step"])  # each validation is worse
    early = {**TINY, "patience": 1, "progress": Sends(signal.SIGINT, at=10)}
    with pytest.raises(KeyboardInterrupt):
        fit(images, "vae", out=tmp_path / "run", **early)
    saved = read_json(tmp_path / "run" / "run.json")
    assert (saved["state"], saved["step"]) == ("stopped early", 10)


def test_a_signal_when_the_minutes_are_over_leaves_a_complete_run(images, tmp_path, monkeypatch):
    def one_step(trainer):
        step(trainer)
        if trainer.step == 7:
            trainer.started -= 3600
            os.kill(os.getpid(), signal.SIGINT)

    step = Trainer.one_step
    monkeypatch.setattr(Trainer, "one_step", one_step)
    limited = {**TINY, "steps": None, "minutes": 30, "progress": False}
    run = fit(images, "vae", out=tmp_path / "run", on_interrupt="return", **limited)
    assert (run.state, run.config["step"], run.config["plan"]["horizon"]) == ("finished", 7, 7)
    assert run.config["valid"]["step"] == 7


def test_a_progress_that_stops_at_the_last_step_leaves_a_complete_run(images, tmp_path):
    class Stops(Silent):
        def update(self, step, horizon, *words):
            self.stop = step == horizon

    run = fit(images, "vae", out=tmp_path / "run", **{**TINY, "progress": Stops()})
    assert (run.state, run.config["step"]) == ("finished", 20)


@pytest.mark.parametrize(("at", "says"), [(19, "resume with"), (20, "the run in run is complete")])
def test_the_command_says_whether_anything_is_left_to_do(tmp_path, monkeypatch, capsys, at, says):
    def one_step(trainer):
        step(trainer)
        if trainer.step == at:
            os.kill(os.getpid(), signal.SIGINT)

    step = Trainer.one_step
    monkeypatch.setattr(Trainer, "one_step", one_step)
    monkeypatch.chdir(tmp_path)
    words = ["fit", "digits", "--steps", "20", "--latent", "2", "--hidden", "8", "--compile", "off", "--out", "run"]
    assert main(words) == 130
    said = capsys.readouterr().err
    assert says in said
    assert ("--resume" in said) == (at == 19)
    assert read_json(tmp_path / "run" / "run.json")["state"] == ("interrupted" if at == 19 else "finished")


class Broken(io.StringIO):
    """A stream that nobody reads any more."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def test_a_stream_that_nobody_reads_ends_no_training(images, tmp_path, monkeypatch):
    for place, progress in enumerate((Plain(Broken()), Live())):
        monkeypatch.setattr("sys.stderr", Broken())
        run = fit(images, "vae", out=tmp_path / f"{place}", **{**TINY, "progress": progress})
        assert run.state == "finished"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_the_command_trains_to_its_end_when_its_reader_goes(tmp_path, stream):
    script = tmp_path / "go.py"
    script.write_text(f"""
import os, sys
from vaekit.cli import main
reader, writer = os.pipe()
os.dup2(writer, sys.{stream}.fileno())
os.close(writer), os.close(reader)
words = "fit digits --steps 60 --latent 2 --hidden 8 --compile off --out"
os._exit(main([*words.split(), sys.argv[1]]))
""")
    done = python(str(script), str(tmp_path / "run"))
    assert done.returncode in ((0,) if stream == "stderr" else (0, 141)), done.stderr
    assert vk.open(tmp_path / "run").state == "finished"
