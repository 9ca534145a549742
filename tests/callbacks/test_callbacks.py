"""Callbacks: the order of events, what they see, that they change nothing, and that they may stop."""

import json
import random

import numpy as np
import pytest
import torch

import vaekit as vk
from vaekit.callbacks import Callback
from vaekit.errors import ChoiceError
from vaekit.utils.progress import Silent

STEPS = 60
SETTINGS = {"hidden": (16,), "steps": STEPS, "validate_steps": 20, "compile": "off", "progress": False}


@pytest.fixture(scope="module")
def rows():
    return vk.from_arrays(np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32))


@pytest.fixture(scope="module")
def plain(rows, tmp_path_factory):
    """A run without callbacks."""
    return vk.fit(rows, out=tmp_path_factory.mktemp("plain") / "run", **SETTINGS)


def weights(run):
    return (run.path / "model.safetensors").read_bytes()


class Recorder(Callback):
    """Notes every event, and draws random numbers to disturb the training."""

    def __init__(self):
        self.events, self.terms, self.gradients, self.means = [], [], [], []

    def on_start(self, training):
        torch.manual_seed(random.randrange(1000))
        self.events.append(("start", training.step, training.horizon))

    def on_step(self, training, terms):
        torch.rand(7)
        np.random.seed(training.step)
        self.terms.append(dict(terms))

    def on_record(self, training, means):
        self.means.append((training.step, dict(means)))

    def on_validation(self, training):
        self.events.append(("validation", training.step, training.valid["step"]))
        with training.trained() as model:
            torch.rand(3)
            assert model.sample(2).shape == (2, 5)
            self.score = model.score("valid")

    def on_checkpoint(self, training):
        self.events.append(("checkpoint", training.step, vk.open(training.path).config["step"]))

    def on_end(self, training, state):
        self.events.append(("end", training.step, state))


def test_events_come_in_order_with_every_term_and_change_nothing(rows, plain, tmp_path):
    one, two = Recorder(), Recorder()

    run = vk.fit(rows, out=tmp_path / "run", callbacks=[one, two], **SETTINGS)

    assert weights(run) == weights(plain)
    validations = [("validation", step, step) for step in (20, 40, 60)]
    assert one.events == [("start", 0, STEPS), *validations, ("checkpoint", 60, 60), ("end", 60, "finished")]
    assert two.events == one.events
    assert len(one.terms) == STEPS
    assert {"elbo", "rate", "distortion", "loss/model"} <= set(one.terms[0])
    for terms in one.terms:
        assert terms["elbo"] == pytest.approx(-terms["rate"] - terms["distortion"], abs=1e-3)
    logged = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    train = [record for record in logged if record["kind"] == "train"]
    assert [step for step, _ in one.means] == [record["step"] for record in train]
    first = one.means[0][0]
    mean = np.mean([terms["elbo"] for terms in one.terms[:first]])
    assert one.means[0][1]["elbo"] == pytest.approx(mean, rel=1e-5)
    assert train[0]["elbo"] == pytest.approx(mean, rel=1e-5)


def test_the_model_inside_trained_is_the_one_that_is_saved(rows, tmp_path):
    class Scores(Callback):
        def on_checkpoint(self, training):
            with training.trained() as model:
                self.here = model.score("test", samples=3)
            self.saved = vk.open(training.path, data=rows).score("test", samples=3)

    scores = Scores()
    vk.fit(rows, out=tmp_path / "run", callbacks=[scores], **SETTINGS)

    np.testing.assert_array_equal(scores.here, scores.saved)


def test_a_callback_stops_the_training_which_can_be_resumed_to_the_same_weights(rows, plain, tmp_path):
    class Stop(Callback):
        def on_step(self, training, terms):
            if training.step == 33:
                training.stop("enough")

        def on_end(self, training, state):
            self.state = state

    stop = Stop()
    run = vk.fit(rows, out=tmp_path / "run", callbacks=stop, **SETTINGS)
    assert (run.config["step"], run.state, stop.state) == (33, "interrupted", "interrupted")
    run = vk.fit(rows, out=tmp_path / "run", resume=True, progress=False)
    assert (run.config["step"], run.state) == (STEPS, "finished")
    assert weights(run) == weights(plain)


def test_a_callback_that_stops_after_the_last_step_leaves_a_complete_run(rows, plain, tmp_path):
    class Stop(Callback):
        def on_step(self, training, terms):
            if training.step == STEPS:
                training.stop("enough")

        def on_end(self, training, state):
            self.state = state

    class Notes(Silent):
        texts = ()

        def note(self, text):
            self.texts = (*self.texts, text)

    stop, notes = Stop(), Notes()
    run = vk.fit(rows, out=tmp_path / "run", callbacks=stop, **SETTINGS | {"progress": notes})
    assert (run.config["step"], run.state, stop.state) == (STEPS, "finished", "finished")
    assert "a stop was requested after the last step: enough" in notes.texts
    assert weights(run) == weights(plain)


def test_after_an_error_at_the_last_checkpoint_the_run_is_complete(rows, plain, tmp_path):
    class Fails(Callback):
        def on_checkpoint(self, training):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        vk.fit(rows, out=tmp_path / "run", callbacks=[Fails()], **SETTINGS)
    saved = vk.open(tmp_path / "run")
    assert (saved.config["step"], saved.state) == (STEPS, "finished")
    assert weights(saved) == weights(plain)


def test_gradients_are_those_of_the_loss_before_the_update(rows, plain, tmp_path):
    class Gradients(Callback):
        def __init__(self):
            self.sizes = []

        def on_gradients(self, training, gradients):
            assert set(gradients) == {f"model.{n}" for n, _ in training.model.named_parameters()}
            self.sizes.append(torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt().item())

    seen = Gradients()
    run = vk.fit(rows, out=tmp_path / "run", callbacks=[seen], **SETTINGS)
    assert len(seen.sizes) == STEPS
    assert all(0 < size < 1e4 for size in seen.sizes)
    assert weights(run) == weights(plain)  # eagerly, the step is the same with and without them

    # with plain gradient descent, the difference of the weights is the gradient times the rate
    class Difference(Callback):
        def on_gradients(self, training, gradients):
            self.before = {n: p.detach().clone() for n, p in training.model.named_parameters()}
            self.gradients = {n.removeprefix("model."): g.clone() for n, g in gradients.items()}

        def on_step(self, training, terms):
            for n, p in training.model.named_parameters():
                torch.testing.assert_close(p, self.before[n] - 1e-3 * self.gradients[n], rtol=1e-5, atol=1e-7)
            self.checked = True

    difference = Difference()
    plainly = {"optimiser": "sgd", "lr": 1e-3, "weight_decay": 0.0, "schedule": "constant", "steps": 3}
    vk.fit(rows, out=tmp_path / "sgd", callbacks=[difference], **SETTINGS | plainly)
    assert difference.checked


def test_an_error_in_a_callback_is_raised_after_the_run_is_saved(rows, plain, tmp_path):
    class Fails(Callback):
        calls = 0

        def on_step(self, training, terms):
            Fails.calls += 1
            if training.step == 41:
                raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        vk.fit(rows, out=tmp_path / "run", callbacks=[Fails()], **SETTINGS)
    assert Fails.calls == 41
    saved = vk.open(tmp_path / "run")
    assert (saved.config["step"], saved.state) == (41, "interrupted")
    assert weights(vk.fit(rows, out=tmp_path / "run", resume=True, progress=False)) == weights(plain)


class Closes(Callback):
    """Notes the state at the end; raises an error at the events in `at`."""

    def __init__(self, *at):
        self.at, self.ends = at, []

    def on_start(self, training):
        self._raise("start")

    def on_record(self, training, means):
        self._raise("record")

    def on_end(self, training, state):
        self.ends.append(state)
        self._raise("end")

    def _raise(self, event):
        if event in self.at:
            raise ZeroDivisionError(event)


@pytest.mark.parametrize("event", ["start", "record", "end"])
def test_after_an_error_in_one_callback_the_others_can_close_what_they_opened(rows, tmp_path, event):
    first, fails, last = Closes(), Closes(event), Closes()
    with pytest.raises(ZeroDivisionError, match=event):
        vk.fit(rows, out=tmp_path / "run", callbacks=[first, fails, last], **SETTINGS)
    state = "finished" if event == "end" else "failed"
    assert first.ends == [state]
    assert fails.ends == ([state] if event == "end" else [])
    assert last.ends == ([] if event == "start" else [state])  # it had not begun


def test_an_error_at_the_end_does_not_hide_that_of_the_training(rows, tmp_path):
    with pytest.raises(ZeroDivisionError, match="record") as raised:
        vk.fit(rows, out=tmp_path / "run", callbacks=[Closes("end"), Closes("record")], **SETTINGS)
    assert raised.value.__notes__ == ["ZeroDivisionError in `on_end` of a callback: end"]


@pytest.mark.parametrize(("wrong", "says"), [(Recorder, r"write Recorder\(\)"), (print, "got <built-in")])
def test_what_is_not_a_callback_is_refused_before_the_run_is_created(rows, tmp_path, wrong, says):
    with pytest.raises(ChoiceError, match=says):
        vk.fit(rows, out=tmp_path / "run", callbacks=[wrong], **SETTINGS)
    assert not (tmp_path / "run").exists()
