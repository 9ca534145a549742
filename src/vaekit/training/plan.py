"""Everything about a training that is decided before its first step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from vaekit.data.core import Data
from vaekit.options import Options, call_of, steps_over
from vaekit.recipes.composition import Composition
from vaekit.runs.configuration import Configuration, Decided, options_of

from .augment import Augment
from .cost import bf16_pays, choose_device, crowding, decide_compile, work
from .torch_classes import rule_of, schedule_of


@dataclass(frozen=True)
class Plan:
    """The settings of a training, decided from the options, the recipe's defaults, the data and the machine.

    Attributes:
        options: the options with the recipe's defaults, as run.json stores them.
        batch: examples per step, at most the training data.
        epoch_steps: steps per pass through the training data.
        horizon: the length in steps; an estimate if the run is limited by `minutes`.
        device: the device of the training, unless several processes share it.
        compile: whether the step is compiled, and why (`compile_why`).
        must_compile: whether a step that cannot be compiled is an error.
        parameters: the number of the model's parameters.
        threads: the number of threads of the CPU.

    The others are those of `Options`.
    """

    options: Options
    optimiser: str
    lr: float
    schedule: str
    weight_decay: float
    beta2: float
    clip: float | None
    ema: float | None
    seed: int
    augment: Augment | None
    batch: int
    epoch_steps: float
    horizon: int
    minutes: float | None
    validate_steps: int
    checkpoint_steps: int | None
    patience: int | None
    device: torch.device
    devices: int
    precision: str
    compile: bool
    compile_why: str
    must_compile: bool
    parameters: int
    threads: int

    @property
    def decided(self) -> Decided:
        """The settings of a new training that depend on the machine and the model, as run.json stores them."""
        decided: Decided = {
            "device": str(self.device),
            "precision": self.precision,
            "compile": self.compile,
            "compile_why": self.compile_why,
            "parameters": self.parameters,
            "threads": self.threads,
            "steps": self.horizon,
        }
        return decided if self.minutes is None else {**decided, "minutes": self.minutes}


def plan_new(options: Options, composition: Composition, data: Data) -> Plan:
    """The plan of a new training.

    Raises:
        ChoiceError: the device or the compiler is unavailable, or the augmentation does not apply to the data.
    """
    options = options.with_defaults(composition.defaults)
    device = choose_device(options.device, composition.observation.in_double)
    n, cost = len(data.train), work(composition, data.shape)
    batch = min(options.over().batch, n)
    steps = steps_over(n, batch, steps=options.steps, epochs=options.epochs)
    check_classes(options, composition, steps)
    guess = steps if steps is not None else 60 * (options.minutes or 0) / cost.seconds(batch, device.type)
    crowded = 1.0 if options.minutes is None else crowding()  # runs of so many steps are the same at any load
    compiled, why = decide_compile(options.compile, guess, cost, batch, device, crowded)
    precision = options.precision
    if precision == "auto":
        casts = compiled or (device.type == "cpu" and cost.convolutional)  # elsewhere, casting takes what products save
        precision = "bf16" if casts and bf16_pays(device) else "fp32"
    decided: Decided = {
        "device": str(device),
        "precision": precision,
        "compile": compiled,
        "compile_why": why,
        "parameters": sum(p.numel() for p in composition.model.parameters()),
        "threads": torch.get_num_threads(),
    }
    return _plan(options, data, device, decided, max(1, math.ceil(guess)))


def check_classes(options: Options, composition: Composition, steps: int | None) -> None:
    """Raise ChoiceError if the optimiser or the schedule is a class of torch that cannot train this model."""
    chosen = options.over()
    if call_of(chosen.optimiser) is not None:
        rule_of(chosen.optimiser, chosen.weight_decay).state(list(composition.model.parameters()))
    schedule_of(chosen.schedule, steps)


def plan_stored(config: Configuration, composition: Composition, data: Data) -> Plan:
    """The plan of a run that is resumed: as it was decided at its start, on a device of this machine.

    Raises:
        ChoiceError: the device is unavailable.
    """
    options = options_of(config)
    device = choose_device(options.device, composition.observation.in_double)
    return _plan(options, data, device, config["decided"], config.get("plan", {}).get("horizon", 1000))


def _plan(options: Options, data: Data, device: torch.device, decided: Decided, horizon: int) -> Plan:
    """The plan with these options and decisions; `horizon` is the length of a run that is limited by minutes."""
    n = len(data.train)
    chosen = options.over()
    batch = min(chosen.batch, n)
    epoch_steps = n / batch
    # with patience, validate often: a model can overfit a small data set within a few hundred steps
    least = 100 if options.patience else 500
    return Plan(
        options=options,
        optimiser=chosen.optimiser,
        lr=chosen.lr,
        schedule=chosen.schedule,
        weight_decay=chosen.weight_decay,
        beta2=chosen.beta2,
        clip=chosen.clip,
        ema=chosen.ema or None,
        seed=options.seed,
        augment=Augment.parse(options.augment, data.kind, data.shape) if options.augment else None,
        batch=batch,
        epoch_steps=epoch_steps,
        horizon=steps_over(n, batch, steps=options.steps, epochs=options.epochs) or horizon,
        minutes=options.minutes,
        validate_steps=options.validate_steps or int(min(max(epoch_steps, least), 2000)),
        checkpoint_steps=options.checkpoint_steps,
        patience=options.patience or None,
        device=device,
        devices=options.devices,
        precision=decided["precision"],
        compile=decided["compile"],
        compile_why=decided["compile_why"],
        must_compile=options.compile == "on",
        parameters=decided["parameters"],
        threads=decided["threads"],
    )
