"""Training options. This module does not import torch, so that the command line can check options at once."""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from vaekit.errors import ChoiceError
from vaekit.utils.suggest import unknown

OptimiserName = Literal["sgd", "adagrad", "adam", "adamw", "adamax"]
ScheduleName = Literal["constant", "linear", "cosine", "trapezoid"]
PrecisionName = Literal["auto", "fp32", "bf16"]
CompileName = Literal["auto", "on", "off"]
OPTIMISER_CALL, SCHEDULE_CALL = "'NAdam(momentum_decay=0.01)'", "'StepLR(step_size=1000, gamma=0.5)'"
NAMED = {"optimiser": get_args(OptimiserName), "schedule": get_args(ScheduleName)}
"""The names that options have beside classes of torch."""
ADAMS = ("adam", "adamw", "adamax")
"""The optimisers that have `beta2`."""
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
    patience: int | None = None
    epochs: float = 20
    beta2: float = 0.999


class Range(NamedTuple):
    """The values that an option may take."""

    says: str
    holds: Callable[[float], bool]


POSITIVE = Range("be above 0", lambda v: 0 < v < math.inf)
NOT_NEGATIVE = Range("be 0 or more", lambda v: 0 <= v < math.inf)
BELOW_ONE = Range("lie in [0, 1)", lambda v: 0 <= v < 1)
DEVICES = Range(f"lie in 1..{MOST_DEVICES}", lambda v: 1 <= v <= MOST_DEVICES)


class About(NamedTuple):
    """The annotation of an option: its description, and the range of its values."""

    help: str
    range: Range | None = None


@dataclass(frozen=True)
class Options:
    """Training options; an option that is None takes the recipe's default.

    Give at most one of `epochs`, `steps` and `minutes`; `minutes` limits the whole call, compilation included.

    >>> Options(epochs=5, lr=3e-4).checked().epochs
    5
    """

    epochs: Annotated[
        float | None, About("passes through the training data; give one of epochs, steps and minutes", POSITIVE)
    ] = None
    steps: Annotated[int | None, About("training steps", POSITIVE)] = None
    minutes: Annotated[float | None, About("wall-clock time for the whole call", POSITIVE)] = None
    seed: Annotated[int, About("seed of the initial weights, the order of the data and the noise")] = 0
    lr: Annotated[float | None, About("learning rate", POSITIVE)] = None
    batch: Annotated[int | None, About("examples per step", POSITIVE)] = None
    optimiser: Annotated[
        str | None,
        About(f"update rule: {', '.join(get_args(OptimiserName))}; or a class of torch.optim, as in {OPTIMISER_CALL}"),
    ] = None
    schedule: Annotated[
        str | None,
        About(
            f"how the learning rate changes during training: {', '.join(get_args(ScheduleName))}; or a class of "
            f"torch.optim.lr_scheduler, as in {SCHEDULE_CALL}"
        ),
    ] = None
    weight_decay: Annotated[float | None, About("L2 penalty (adamw: decoupled weight decay)", NOT_NEGATIVE)] = None
    beta2: Annotated[
        float | None, About("decay of the running mean of the squared gradients (adam, adamw, adamax)", BELOW_ONE)
    ] = None
    clip: Annotated[float | None, About("largest norm of the gradient; larger ones are scaled down", POSITIVE)] = None
    ema: Annotated[float | None, About("decay of the running average of the weights; 0 for none", BELOW_ONE)] = None
    augment: Annotated[
        str | None, About("random changes of training images: flip (left-right), shift, shift:PIXELS, joined by commas")
    ] = None
    patience: Annotated[
        int | None,
        About(
            "stop after this many validations without a better ELBO, and keep the best weights; 0 for never",
            NOT_NEGATIVE,
        ),
    ] = None
    validate_steps: Annotated[int | None, About("steps between validations", POSITIVE)] = None
    checkpoint_steps: Annotated[int | None, About("steps between checkpoints, besides one per minute", POSITIVE)] = None
    device: Annotated[str, About("device to train on: auto, cpu, cuda, cuda:1, mps")] = "auto"
    devices: Annotated[int, About("number of devices to train on", DEVICES)] = 1
    precision: Annotated[
        PrecisionName,
        About("arithmetic of the training step; auto uses bf16 where that is faster (compiled steps and convolutions)"),
    ] = "auto"
    compile: Annotated[CompileName, About("compile the training step; auto does if that saves time")] = "auto"

    def checked(self) -> Options:
        """These options, checked, with names in lower case.

        Raises:
            ChoiceError: a value is out of range or unknown; the message names the first such option.
        """
        if sum(v is not None for v in (self.epochs, self.steps, self.minutes)) > 1:
            raise ChoiceError("give one of `epochs`, `steps` and `minutes`, not several")
        for name, about in abouts().items():
            value = getattr(self, name)
            if value is not None and about.range is not None and not about.range.holds(value):
                raise ChoiceError(f"`{name}` must {about.range.says}, got {value}")
        lower: dict[str, Any] = {}
        for name, known in choices().items():
            value = getattr(self, name)
            if value is not None and str(value).lower() not in known:
                raise ChoiceError(unknown(f"`{name}`", value, known))
            lower[name] = value if value is None else str(value).lower()
        for name, known in NAMED.items():
            if (value := getattr(self, name)) is not None:
                lower[name] = _of_torch(name, value, known)
        return dataclasses.replace(self, **lower)

    def over(self, defaults: Defaults = Defaults()) -> Defaults:
        """The defaults, replaced by the options of the same name that are given."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(defaults)}
        return dataclasses.replace(defaults, **{name: value for name, value in values.items() if value is not None})

    def with_defaults(self, defaults: Defaults) -> Options:
        """These options with the recipe's defaults instead of None.

        Its `epochs` and `patience` apply only if no length is given.

        Raises:
            ChoiceError: `beta2` is given, and the optimiser does not have it.
        """
        filled: dict[str, Any] = dataclasses.asdict(self.over(defaults))
        if filled["optimiser"].lower() not in ADAMS:
            if self.beta2 is not None:
                raise ChoiceError(
                    f"`beta2` is an option of {', '.join(ADAMS)}, and the optimiser is {filled['optimiser']}"
                )
            filled["beta2"] = None
        if call_of(filled["optimiser"]) is not None and self.weight_decay is None:
            filled["weight_decay"] = 0.0  # that of the recipe was chosen for another rule; the class has its own
        if self.steps is not None or self.minutes is not None:
            del filled["epochs"]
        if (self.epochs, self.steps, self.minutes) != (None, None, None):
            del filled["patience"]
        return dataclasses.replace(self, **filled)


def steps_over(n: int, batch: int, *, steps: int | None = None, epochs: float | None = None) -> int | None:
    """The length of a training on n data in steps; None if it is given in neither steps nor epochs."""
    if steps is not None or epochs is None:
        return steps
    return max(1, math.ceil(epochs * (n / min(batch, n))))


class Call(NamedTuple):
    """A class of torch by name, with its arguments."""

    name: str
    arguments: dict[str, Any]


def call_of(text: str) -> Call | None:
    """The class and the arguments in NAME or NAME(argument=value, ...); None for text of another form, as in `adam`.

    Values are literals: numbers, text, True, tuples and lists. Nothing in the text is executed.
    """
    try:
        found = ast.parse(text.strip(), mode="eval").body
        if isinstance(found, ast.Name):
            return Call(found.id, {}) if found.id != found.id.lower() else None
        if not isinstance(found, ast.Call) or not isinstance(found.func, ast.Name) or found.args:
            return None
        return Call(found.func.id, {str(k.arg): ast.literal_eval(k.value) for k in found.keywords if k.arg})
    except (SyntaxError, ValueError):
        return None


def _of_torch(option: str, value: Any, known: tuple[str, ...]) -> str:
    """The option as text: a known name in lower case, or a class of torch with its arguments.

    Raises:
        ChoiceError: it is neither.
    """
    given, arguments = (value.func, value.keywords) if isinstance(value, functools.partial) else (value, {})
    if isinstance(given, type):
        if not given.__module__.startswith("torch.optim") or (isinstance(value, functools.partial) and value.args):
            raise ChoiceError(
                f"`{option}` must be a name, or a class of torch.optim with arguments by name, got {value!r}"
            )
        inner = ", ".join(f"{name}={one!r}" for name, one in arguments.items())
        value = f"{given.__name__}({inner})"
    text = str(value)
    if text.lower() in known:
        return text.lower()
    if call_of(text) is None:
        call = OPTIMISER_CALL if option == "optimiser" else SCHEDULE_CALL
        raise ChoiceError(f"{unknown(f'`{option}`', value, known)}, or a class of torch.optim, as in {call}")
    return text


def choices() -> dict[str, tuple[str, ...]]:
    """The allowed names of each option that takes one of a few names."""
    names = {}
    for name, hint in get_type_hints(Options).items():
        for part in (hint, *get_args(hint)):
            if get_origin(part) is Literal:
                names[name] = get_args(part)
    return names


def abouts() -> dict[str, About]:
    """The annotation of each option, by name."""
    return {name: get_args(hint)[1] for name, hint in get_type_hints(Options, include_extras=True).items()}


def _attributes() -> str:
    """The options as a section of a docstring: meaning, range and default of each."""
    recipes, known, lines = {field.name for field in dataclasses.fields(Defaults)}, choices(), []
    for name, about in abouts().items():
        parts = [about.help]
        parts += [f"one of {', '.join(known[name])}"] if name in known else []
        parts += [f"must {about.range.says}"] if about.range else []
        default = "the recipe's" if name in recipes else getattr(Options, name)
        lines.append(f"        {name}: {'; '.join(parts)}. Default: {default}.")
    return "\n".join(["    Attributes:", *lines])


Options.__doc__ = f"{(Options.__doc__ or '').rstrip()}\n\n{_attributes()}\n    "
