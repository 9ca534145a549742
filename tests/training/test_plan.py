"""The plan of a training: options, the recipe's defaults, the data and the machine, decided once."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from core_helpers import QUIET, blobs

import vaekit as vk
from vaekit.errors import ChoiceError
from vaekit.options import Options, steps_over
from vaekit.training import plan as plans
from vaekit.training.cost import Work, decide_compile
from vaekit.training.plan import Plan, plan_new, plan_stored

DATA = vk.from_arrays(blobs(100))
N = len(DATA.train)


def composition(**defaults):
    made = vk.get_recipe("vae")(vk.DataSpec.of(DATA), latent=2, hidden=(8,))
    return dataclasses.replace(made, defaults=vk.Defaults(**defaults))


def plan(*, recipe=None, **options) -> Plan:
    return plan_new(Options(compile="off", device="cpu", **options), composition(**(recipe or {})), DATA)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"steps": 7}, 7),
        ({"epochs": 2, "batch": 10}, -(-2 * N // 10)),
        ({"epochs": 0.5, "batch": 10_000}, 1),  # a batch has at most all data
        ({"epochs": 3, "batch": 10_000}, 3),
        ({"batch": 10}, -(-5 * N // 10)),  # the recipe's epochs
    ],
)
def test_the_length_in_steps(options, steps):
    decided = plan(recipe={"epochs": 5}, **options)
    assert decided.horizon == steps
    assert decided.batch == min(options.get("batch", 100), N)
    assert decided.epoch_steps == N / decided.batch


def test_a_length_in_minutes_is_estimated_and_leaves_the_recipes_epochs_out():
    decided = plan(minutes=2.0)
    assert (decided.minutes, decided.options.epochs) == (2.0, None)
    assert decided.horizon > 1
    assert steps_over(N, 10) is None


def test_options_come_before_the_recipe_and_the_recipe_before_the_library():
    decided = plan(recipe={"lr": 0.5, "optimiser": "sgd", "clip": 3.0, "ema": 0.9}, steps=1, lr=0.25, ema=0.0)
    assert (decided.lr, decided.optimiser, decided.clip, decided.ema) == (0.25, "sgd", 3.0, None)
    assert (decided.schedule, decided.weight_decay) == ("constant", 0.0)
    assert decided.beta2 == 0.999
    assert plan(recipe={"beta2": 0.9}, steps=1).beta2 == 0.9
    with pytest.raises(ChoiceError, match="`beta2` is an option of adam, adamw, adamax, and the optimiser is sgd"):
        plan(recipe={"optimiser": "sgd"}, steps=1, beta2=0.99)
    assert decided.options.ema == 0.0  # as run.json keeps it: averaging was turned off


def test_validations_are_frequent_enough_and_never_decided_twice():
    assert plan(steps=1).validate_steps == 500
    assert plan(steps=1, patience=3).validate_steps == 100
    assert plan(steps=1, validate_steps=7).validate_steps == 7


@pytest.mark.parametrize(
    ("compiles", "pays", "precision"), [(True, True, "bf16"), (True, False, "fp32"), (False, True, "fp32")]
)
def test_precision_follows_compilation_and_the_machine(monkeypatch, compiles, pays, precision):
    monkeypatch.setattr(plans, "decide_compile", lambda *a: (compiles, "for the test"))
    monkeypatch.setattr(plans, "bf16_pays", lambda device: pays)
    decided = plan(steps=1)
    assert (decided.precision, decided.compile, decided.compile_why) == (precision, compiles, "for the test")
    assert plan(steps=1, precision="fp32").precision == "fp32"


@pytest.mark.parametrize(("pays", "precision"), [(True, "bf16"), (False, "fp32")])
def test_convolutions_are_not_compiled_on_a_cpu_but_use_bf16_where_it_is_fast(monkeypatch, pays, precision):
    monkeypatch.setattr(plans, "bf16_pays", lambda device: pays)
    images = vk.from_arrays(np.arange(20 * 784).reshape(20, 28, 28).astype(np.uint8))
    made = vk.get_recipe("conv")(vk.DataSpec.of(images))
    decided = plan_new(Options(steps=10**9, device="cpu"), made, images)
    assert (decided.compile, decided.precision) == (False, precision)
    assert plan_new(Options(steps=10**9, device="cpu", precision="fp32"), made, images).precision == "fp32"


def test_a_run_is_resumed_with_what_its_start_decided(tmp_path, monkeypatch):
    run = vk.fit(DATA, composition(), out=tmp_path / "run", steps=2, batch=10, lr=0.01, **QUIET)
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    first = plan_stored(run.config, run.composition, DATA)
    assert stored["decided"] == first.decided
    assert stored["training"] == dataclasses.asdict(first.options) == dataclasses.asdict(run.options)
    monkeypatch.setattr(plans, "decide_compile", lambda *a: (not first.compile, "another machine"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 999)
    again = plan_stored(run.config, run.composition, DATA)
    assert {**vars(again), "augment": None} == {**vars(first), "augment": None}
    assert run.epoch_steps == N / 10


def test_every_field_is_decided():
    decided = plan(steps=1)
    left_open = {"clip", "ema", "augment", "minutes", "checkpoint_steps", "patience"}  # None is a decision: without
    assert {name for name, value in vars(decided).items() if value is None} <= left_open
    assert "auto" not in [str(v) for name, v in vars(decided).items() if name != "options"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        decided.lr = 1.0


def test_a_gpu_is_expected_to_do_the_steps_that_repay_compilation():
    """A deep convolutional model takes a CPU so long per step that the few steps of its minutes would not."""
    cost, gpu = Work(4_000_000, 40_000_000, 2300), torch.device("cuda")
    on_cpu, on_gpu = (60 * 10 / cost.seconds(256, kind) for kind in ("cpu", "cuda"))
    assert on_gpu > 20 * on_cpu
    assert not decide_compile("auto", on_cpu, cost, 256, gpu)[0]
    assert decide_compile("auto", on_gpu, cost, 256, gpu)[0]
