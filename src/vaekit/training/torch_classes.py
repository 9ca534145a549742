"""Optimisers and learning-rate schedulers of torch.optim, by name, in vaekit's training step."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.options import Call, call_of
from vaekit.utils.suggest import unknown

from .optimisers import Optimiser, optimiser


def classes(module: Any, base: type) -> dict[str, type]:
    """The public classes of a module that derive from `base`, by name."""
    found = {n: c for n, c in vars(module).items() if inspect.isclass(c) and issubclass(c, base) and c is not base}
    return {n: c for n, c in found.items() if not n.startswith("_")}


def _chosen(option: str, call: Call, known: dict[str, type]) -> type:
    if call.name not in known:
        raise ChoiceError(unknown(f"`{option}`", call.name, sorted(known)))
    return known[call.name]


class TorchRule(Optimiser):
    """The update of a class of torch.optim, with one instance per parameter.

    Its state is kept in tensors, which checkpoints hold: numbers in the state become tensors of one number.

    Arguments:
        call: the class and its arguments.
        weight_decay: is passed on if it is above 0.

    Raises:
        ChoiceError: there is no such class, or it does not take the arguments.
    """

    fuses = False

    def __init__(self, call: Call, weight_decay: float = 0.0):
        super().__init__(weight_decay)
        self.call, self.kind = call, _chosen("optimiser", call, classes(torch.optim, torch.optim.Optimizer))
        self.options = dict(call.arguments) | ({"weight_decay": weight_decay} if weight_decay else {})
        if "lr" in self.options:
            raise ChoiceError("give the learning rate of `optimiser` with `lr`, not among the arguments of its class")
        self._made: dict[int, Any] = {}
        self._names: dict[int, list[str]] = {}

    def coefficients(self, lr: float, t: int) -> list[float]:
        return [lr, t]

    def _make(self, p: Tensor) -> Any:
        try:
            return self.kind([p], lr=1e-3, **self.options)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ChoiceError(f"torch.optim.{self.call.name} cannot be used here: {error}") from error

    def state(self, parameters: Sequence[Tensor]) -> list[list[Tensor]]:
        """Tensors like those that a trial step on a copy of each parameter creates.

        Raises:
            ChoiceError: the class cannot take a step with a gradient alone.
        """
        found = []
        for p in parameters:
            trial = p.detach().clone()
            trial.grad = torch.zeros_like(trial)
            made = self._make(trial)
            try:
                made.step()
            except (TypeError, RuntimeError) as error:
                reason = str(error).split("\n")[0]
                raise ChoiceError(f"torch.optim.{self.call.name} cannot train this model: {reason}") from error
            state = {name: value for name, value in made.state[trial].items() if value is not None}
            self._names[id(p)] = list(state)
            found.append([_tensor(value) for value in state.values()])
        return found

    def update(self, p: Tensor, g: Tensor, state: Sequence[Tensor], c: Tensor) -> None:
        lr, t = c.tolist()
        made, names = self._made.get(id(p)), self._names[id(p)]
        if made is None:
            made = self._made[id(p)] = self._make(p)
            if t > 1:  # resumed
                kinds = self._fresh_state(p)
                made.state[p] = {n: _like(kinds[n], held) for n, held in zip(names, state, strict=True)}
        for group in made.param_groups:
            group["lr"] = lr
        p.grad = g
        made.step()
        p.grad = None
        for name, held in zip(names, state, strict=True):
            value = made.state[p][name]
            if value is not held:
                held.copy_(_tensor(value))
                if isinstance(value, Tensor):
                    made.state[p][name] = held

    def _fresh_state(self, p: Tensor) -> dict[str, Any]:
        """The state after a first step on a copy, for the types of its numbers."""
        trial = p.detach().clone()
        trial.grad = torch.zeros_like(trial)
        made = self._make(trial)
        made.step()
        return dict(made.state[trial])


def _tensor(value: Any) -> Tensor:
    """A number or a tensor of a state as a tensor of its own."""
    return value.detach().clone() if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)


def _like(kind: Any, held: Tensor) -> Any:
    """The tensor itself, or the number in it in the type of `kind`."""
    return held if isinstance(kind, Tensor) else type(kind)(held.item())


class TorchSchedule:
    """The factor of the learning rate by a class of torch.optim.lr_scheduler.

    Momentum stays that of the optimiser: `cycle_momentum` of OneCycleLR and CyclicLR is False here. After
    `total_steps`, the last rate is kept.

    Attributes:
        by_length: whether the rates depend on the number of steps of the training.

    Arguments:
        call: the class and its arguments; rates among them are relative to `lr`.
        horizon: the number of steps, for classes with `total_steps`.

    Raises:
        ChoiceError: there is no such class, it does not take the arguments, or it needs more than the step.
    """

    def __init__(self, call: Call, horizon: int | None):
        base = torch.optim.lr_scheduler.LRScheduler
        self.kind = _chosen("schedule", call, classes(torch.optim.lr_scheduler, base))
        if call.name == "ReduceLROnPlateau":
            raise ChoiceError("ReduceLROnPlateau waits for validations, which `patience` does: write `patience=5`")
        self.name, self.options = call.name, dict(call.arguments)
        parameters = inspect.signature(self.kind).parameters
        if "cycle_momentum" in parameters and self.options.setdefault("cycle_momentum", False):
            raise ChoiceError(f"a schedule changes the learning rate only: omit cycle_momentum of {call.name}")
        self.by_length = "total_steps" in parameters and "total_steps" not in self.options
        if self.by_length:
            if horizon is None:
                raise ChoiceError(f"with `minutes`, {call.name} needs its own length: write total_steps=... in it")
            self.options["total_steps"] = horizon
        self._restart()

    def _restart(self) -> None:
        self._optimiser = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        try:
            self._scheduler: Any = self.kind(self._optimiser, **self.options)
        except (TypeError, ValueError) as error:
            raise ChoiceError(f"torch.optim.lr_scheduler.{self.name} cannot be used here: {error}") from error
        self._at = 0

    def __call__(self, step: int) -> float:
        """The factor at this step, counted from 0."""
        if step < self._at:
            self._restart()
        last = min(step, self.options.get("total_steps", step + 1) - 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it expects a step of its optimiser before each of its own
            while self._at < last:
                self._scheduler.step()
                self._at += 1
        return float(self._optimiser.param_groups[0]["lr"])


def stretched(text: str, before: int, now: int, done: int) -> str | None:
    """A note on how another number of steps changes the rates of a schedule of torch; None if it does not.

    Arguments:
        text: the schedule.
        before, now: the numbers of steps.
        done: the step at which the number changes.
    """
    was, new = (schedule_of(text, max(steps, 1)) for steps in (before, now))
    if was is None or new is None or not was.by_length or before == now:
        return None
    return (
        f"the schedule {was.name} is stretched to {now:,} steps: at step {done:,} the learning rate jumps from "
        f"{was(done):.2g} to {new(done):.2g} of `lr`, so the result differs from that of one run of {now:,} steps"
    )


def rule_of(name: str, weight_decay: float = 0.0, **options: float) -> Optimiser:
    """The update rule with this name: one of vaekit's own, or a class of torch.optim, whose `options` are in the name.

    Raises:
        ChoiceError: there is no such rule.
    """
    call = call_of(name)
    return optimiser(name, weight_decay, **options) if call is None else TorchRule(call, weight_decay)


def schedule_of(text: str, horizon: int | None) -> TorchSchedule | None:
    """The schedule of a class of torch; None for vaekit's own names."""
    call = call_of(text)
    return None if call is None else TorchSchedule(call, horizon)
