"""Schedules: step -> weight, as small modules that work on a number or inside a compiled graph."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import get_args

import torch
from torch import Tensor, nn

from vaekit.errors import ChoiceError
from vaekit.options import ScheduleName
from vaekit.utils.suggest import unknown

FALL = 0.3
"""The share of the training over which the `trapezoid` learning rate falls."""


class Schedule(nn.Module, ABC):
    """A weight that depends on the training step (counted from 0). Abstract: `forward(step) -> scalar tensor`."""

    @abstractmethod
    def forward(self, step: Tensor | float) -> Tensor:
        """The weight at a step, a scalar."""


class Constant(Schedule):
    """The same value at every step."""

    def __init__(self, value: float):
        super().__init__()
        self.value = value

    def forward(self, step: Tensor | float) -> Tensor:
        return torch.full_like(_tensor(step), self.value)


class Linear(Schedule):
    """From `start` to `value` in equal increments over `steps`, then constant; only `value` if `steps` is 0.

    The warm-up of the KL of Bowman et al. (2016) and Sønderby et al. (2016).
    """

    def __init__(self, value: float, steps: int, start: float = 0.0):
        super().__init__()
        self.value, self.steps, self.start = value, _not_negative(steps), start

    def forward(self, step: Tensor | float) -> Tensor:
        return self.start + (self.value - self.start) * _done(step, self.steps)


class Geometric(Schedule):
    """From `start` to `value`, both above 0, in equal ratios over `steps`, then constant; only `value` if `steps` is 0.

    A KL weight that falls from a large value brings latents into use one at a time, as in the annealing test of Wu et
    al. (2021, DEFT, arXiv:2102.03986).
    """

    def __init__(self, value: float, steps: int, start: float):
        super().__init__()
        if not (value > 0 and start > 0):
            raise ValueError(f"start and value must be above 0, got {start} and {value}")
        self.value, self.steps, self.start = value, _not_negative(steps), start

    def forward(self, step: Tensor | float) -> Tensor:
        done = _done(step, self.steps)
        return torch.exp((1 - done) * math.log(self.start) + done * math.log(self.value))


class Cyclic(Schedule):
    """`Linear` repeated every `period` steps, rising over the first `share` of it (Fu et al. 2019)."""

    def __init__(self, value: float, period: int, share: float = 0.5):
        super().__init__()
        if period < 1 or not 0 < share <= 1:
            raise ValueError(f"period must be 1 step or more and share in (0, 1], got {period} and {share}")
        self.value, self.period, self.share = value, period, share

    def forward(self, step: Tensor | float) -> Tensor:
        phase = torch.remainder(_tensor(step), self.period) / self.period
        return self.value * torch.clamp(phase / self.share, max=1.0)


def kl_weight(beta: float, warmup: int = 0, cycles: int = 0, start: float = 0.0) -> Schedule:
    """The schedule of the weight of the KL.

    Arguments:
        beta: the final weight, constant if `warmup` and `cycles` are 0.
        warmup: steps until beta is reached: in equal increments from 0, or in equal ratios from another `start`.
        cycles: repeat the rise from 0 every `cycles` steps, over the first `warmup` of them (by default half).
        start: the initial weight.

    Raises:
        ChoiceError: the numbers do not fit together.
    """
    if start and (not warmup or cycles or not beta):
        raise ChoiceError("`beta_from` needs `warmup` steps and a `beta` above 0, and does not work with `cycles`")
    if cycles:
        if warmup > cycles:
            raise ChoiceError(f"`warmup={warmup}` must fit into a cycle of `cycles={cycles}` steps")
        return Cyclic(beta, cycles, warmup / cycles if warmup else 0.5)
    if start:
        return Geometric(beta, warmup, start)
    return Linear(beta, warmup) if warmup else Constant(beta)


def unfinished(objective: nn.Module, steps: int) -> str | None:
    """A note if a weight or capacity has not reached its final value after `steps` steps; else None."""
    options = {"beta": "`warmup`", "capacity": "`capacity_steps`"}
    for name, schedule in objective.named_modules():
        if isinstance(schedule, Linear | Geometric) and schedule.steps > steps:
            shorter = f", or a smaller {options[name]}" if name in options else ""
            return (
                f"{name} ends at {float(schedule(steps)):.3g} instead of {schedule.value:g}: its schedule takes "
                f"{schedule.steps:,} steps, and this run has {steps:,}; use more steps{shorter}"
            )
    return None


def _tensor(step: Tensor | float) -> Tensor:
    return step.float() if isinstance(step, Tensor) else torch.tensor(float(step))


def _not_negative(steps: int) -> int:
    if steps < 0:
        raise ValueError(f"steps must be 0 or more, got {steps}")
    return steps


def _done(step: Tensor | float, steps: int) -> Tensor:
    """The completed share of a schedule over `steps`: 0 at step 0, 1 from step `steps` on."""
    now = _tensor(step)
    return torch.clamp(now / steps, max=1.0) if steps else torch.ones_like(now)


def learning_rate(name: str, progress: float, warmup: float = 0.01) -> float:
    """The learning rate's factor after `progress` (0 to 1) of training by a `ScheduleName` of `vaekit.options`.

    Every schedule but `constant` warms up linearly over the first `warmup` of the training. `trapezoid` is constant
    after that and falls linearly over the last `FALL` of the training (Zhai et al. 2022, arXiv:2106.04560; Hägele et
    al. 2024, arXiv:2405.18392).
    """
    progress = min(max(progress, 0.0), 1.0)
    if name == "constant":
        return 1.0
    if progress < warmup:
        return max(progress / warmup, 1e-3)
    rest = (progress - warmup) / (1 - warmup)
    if name == "linear":
        return 1 - rest
    if name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * rest))
    if name == "trapezoid":
        return min(1.0, (1 - progress) / FALL)
    raise ChoiceError(unknown("`schedule`", name, get_args(ScheduleName)))
