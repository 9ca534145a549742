"""Optimisers and schedulers of torch.optim: the same weights as torch alone, exact resume, clear refusals."""

import functools
import inspect

import numpy as np
import pytest
import torch

import vaekit as vk
from vaekit.errors import ChoiceError
from vaekit.options import Call, Options, call_of
from vaekit.training.torch_classes import TorchRule, TorchSchedule, classes, stretched

KNOWN = classes(torch.optim, torch.optim.Optimizer)
UNSUITED = {"LBFGS", "SparseAdam", "Muon"}  # they need a closure, sparse gradients, matrices
SETTINGS = {"hidden": (8,), "compile": "off", "progress": False, "validate_steps": 20, "ema": 0.0}


@pytest.fixture(scope="module")
def rows():
    return vk.from_arrays(np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32))


@pytest.mark.parametrize("name", sorted(set(KNOWN) - UNSUITED))
def test_each_class_updates_as_torch_does(name):
    torch.manual_seed(0)
    ours = [torch.randn(3, 4), torch.randn(5)]
    theirs = [torch.nn.Parameter(p.clone()) for p in ours]
    rule, reference = TorchRule(Call(name, {})), KNOWN[name](theirs, lr=0.01)
    state = rule.state(ours)
    for t in range(1, 6):
        gradients = [torch.randn_like(p) for p in ours]
        rates = torch.tensor(rule.coefficients(0.01 / t, t))
        reference.param_groups[0]["lr"] = float(rates[0])
        if t == 4:  # resumed from its tensors
            copies = [[tensor.clone() for tensor in one] for one in state]
            rule = TorchRule(Call(name, {}))
            state = rule.state(ours)
            for one, copy in zip(state, copies, strict=True):
                for tensor, value in zip(one, copy, strict=True):
                    tensor.copy_(value)
        for p, theirs_p, g, s in zip(ours, theirs, gradients, state, strict=True):
            theirs_p.grad = g.clone()
            rule.update(p, g.clone(), s, rates)
        reference.step()
    for p, theirs_p in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, theirs_p.detach(), rtol=1e-6, atol=1e-7)


def test_a_run_with_a_class_of_torch_resumes_to_the_same_bytes(rows, tmp_path):
    choices = {"optimiser": "NAdam(momentum_decay=0.01)", "schedule": "StepLR(step_size=10, gamma=0.5)", "steps": 40}
    whole = vk.fit(rows, out=tmp_path / "whole", **choices, **SETTINGS)

    class Stop(vk.Callback):
        def on_step(self, training, terms):
            if training.step == 23:
                training.stop()

    vk.fit(rows, out=tmp_path / "parts", callbacks=[Stop()], **choices, **SETTINGS)
    parts = vk.fit(rows, out=tmp_path / "parts", resume=True, progress=False)
    assert parts.config["step"] == 40
    assert parts.options.optimiser == "NAdam(momentum_decay=0.01)"
    weights = [(run.path / "model.safetensors").read_bytes() for run in (whole, parts)]
    assert weights[0] == weights[1]


def test_classes_and_partials_are_stored_as_text():
    made = Options(
        optimiser=functools.partial(torch.optim.RMSprop, momentum=0.9, centered=True),
        schedule=torch.optim.lr_scheduler.ConstantLR,
    ).checked()
    assert (made.optimiser, made.schedule) == ("RMSprop(momentum=0.9, centered=True)", "ConstantLR()")
    assert call_of(made.optimiser) == Call("RMSprop", {"momentum": 0.9, "centered": True})
    assert Options(optimiser="AdamW", schedule="Cosine").checked().optimiser == "adamw"


@pytest.mark.parametrize(
    ("text", "horizon"),
    [
        ("StepLR(step_size=7, gamma=0.3)", None),
        ("CosineAnnealingWarmRestarts(T_0=5)", None),
        ("ExponentialLR(gamma=0.9)", None),
        ("OneCycleLR(max_lr=2.0)", 30),
        ("CyclicLR(base_lr=0.1, max_lr=1.0, step_size_up=4)", None),
    ],
)
def test_schedules_are_those_of_torch(text, horizon):
    call = call_of(text)
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    kind = getattr(torch.optim.lr_scheduler, call.name)
    scheduler = kind(optimiser, **call.arguments, **({"total_steps": horizon} if horizon else {}))
    wanted = []
    for _ in range(25):
        wanted.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    ours = TorchSchedule(call, horizon)
    assert [ours(step) for step in range(25)] == pytest.approx(wanted)
    assert TorchSchedule(call, horizon)(17) == pytest.approx(wanted[17])  # as after a resume
    assert ours(3) == pytest.approx(wanted[3])


def test_a_schedule_keeps_its_last_rate_and_says_that_it_is_stretched():
    ended = TorchSchedule(call_of("OneCycleLR(max_lr=2.0, total_steps=10)"), None)
    assert ended(25) == ended(9) < ended(8)
    said = stretched("OneCycleLR(max_lr=2.0)", 30, 60, 30)
    assert said.startswith("the schedule OneCycleLR is stretched to 60 steps: at step 30 the learning rate jumps from")
    assert stretched("OneCycleLR(max_lr=2.0)", 30, 30, 30) is None
    for text in ("OneCycleLR(max_lr=2.0, total_steps=10)", "StepLR(step_size=7)", "cosine"):
        assert stretched(text, 30, 60, 30) is None


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"optimiser": "Nadam"}, "did you mean 'NAdam'"),
        ({"optimiser": "LBFGS"}, "LBFGS cannot train this model"),
        ({"optimiser": "SparseAdam"}, "SparseAdam cannot train this model"),
        ({"optimiser": "SGD(momentum=2, speed=3)"}, "unexpected keyword argument 'speed'"),
        ({"optimiser": "SGD(lr=3.0)"}, "give the learning rate of `optimiser` with `lr`"),
        ({"optimiser": "SGD(momentum=open('x'))"}, "or a class of torch.optim, as in 'NAdam"),
        ({"optimiser": vk.Callback}, "must be a name, or a class of torch.optim"),
        ({"schedule": "ReduceLROnPlateau"}, "write `patience=5`"),
        ({"schedule": "OneCycleLR(max_lr=1.0)", "steps": None, "minutes": 1}, "write total_steps"),
        ({"schedule": "OneCycleLR(max_lr=1.0, cycle_momentum=True)"}, "omit cycle_momentum of OneCycleLR"),
        ({"schedule": "LambdaLR"}, "LambdaLR cannot be used here"),
    ],
)
def test_what_cannot_train_is_refused_before_the_run_is_created(rows, tmp_path, choices, says):
    with pytest.raises(ChoiceError) as error:
        vk.fit(rows, out=tmp_path / "run", **SETTINGS | {"steps": 5} | choices)
    assert says in str(error.value)
    assert not (tmp_path / "run").exists()


def test_every_class_of_torch_is_covered():
    assert all(inspect.isclass(kind) for kind in KNOWN.values())
    assert {"Adam", "NAdam", "RMSprop", "Rprop", "Adafactor"} <= set(KNOWN) - UNSUITED
