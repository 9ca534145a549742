"""Training options. This module does not import torch, so that the command line can check options at once."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vaekit.errors import ChoiceError
from vaekit.utils.suggest import unknown

OptimiserName = Literal["sgd", "adagrad", "adam", "adamw", "adamax"]
ScheduleName = Literal["constant", "linear", "cosine"]
PrecisionName = Literal["auto", "fp32", "bf16"]
CompileName = Literal["auto", "on", "off"]
MOST_DEVICES = 1024
"""Limit of `devices`: more than any machine has."""


@dataclass(frozen=True)
class Defaults:
    """A recipe's training defaults; each can be overridden by the option of the same name."""

    optimiser: str = "adam"
    lr: float = 1e-3
    batch: int = 100
    schedule: str = "constant"
    weight_decay: float = 0.0
    clip: float | None = None
    ema: float | None = None
    epochs: float = 20


@dataclass(frozen=True)
class Options:
    """Training options; an option that is None takes the recipe's default.

    Give at most one of `epochs`, `steps` and `minutes`; `minutes` limits the whole call, compilation included.
    """

    epochs: float | None = None
    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    lr: float | None = None
    batch: int | None = None
    optimiser: OptimiserName | None = None
    schedule: ScheduleName | None = None
    weight_decay: float | None = None
    clip: float | None = None
    ema: float | None = None
    augment: str | None = None
    patience: int | None = None
    validate_steps: int | None = None
    checkpoint_steps: int | None = None
    device: str = "auto"
    devices: int = 1
    precision: PrecisionName = "auto"
    compile: CompileName = "auto"

    def checked(self) -> Options:
        """These options, checked, with names in lower case.

        Raises:
            ChoiceError: a value is out of range or unknown; the message names the first such option.
        """
        if sum(v is not None for v in (self.epochs, self.steps, self.minutes)) > 1:
            raise ChoiceError("give one of `epochs`, `steps` and `minutes`, not several")
        for name in (
            "epochs",
            "steps",
            "minutes",
            "lr",
            "batch",
            "clip",
            "patience",
            "validate_steps",
            "checkpoint_steps",
            "devices",
        ):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ChoiceError(f"`{name}` must be above 0, got {value}")
        if self.devices > MOST_DEVICES:
            raise ChoiceError(f"`devices` must lie in 1..{MOST_DEVICES}, got {self.devices}")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ChoiceError(f"`ema` must lie in [0, 1), got {self.ema}")
        if self.weight_decay is not None and not 0 <= self.weight_decay < math.inf:
            raise ChoiceError(f"`weight_decay` must be 0 or more, got {self.weight_decay}")
        lower: dict[str, Any] = {}
        for name, known in choices().items():
            value = getattr(self, name)
            if value is not None and str(value).lower() not in known:
                raise ChoiceError(unknown(f"`{name}`", value, known))
            lower[name] = value if value is None else str(value).lower()
        return dataclasses.replace(self, **lower)

    def with_defaults(self, defaults: Defaults) -> Options:
        """These options with the recipe's defaults instead of None."""
        filled: dict[str, Any] = {
            f.name: getattr(self, f.name) if getattr(self, f.name) is not None else getattr(defaults, f.name)
            for f in dataclasses.fields(defaults)
            if f.name != "epochs"
        }
        epochs = self.epochs
        if epochs is None and self.steps is None and self.minutes is None:
            epochs = defaults.epochs
        return dataclasses.replace(self, epochs=epochs, **filled)


def choices() -> dict[str, tuple[str, ...]]:
    """The options that take one of a few names, with these names."""
    names = {}
    for name, hint in get_type_hints(Options).items():
        for part in (hint, *get_args(hint)):
            if get_origin(part) is Literal:
                names[name] = get_args(part)
    return names
