"""The search space of a sweep: what `over` says, checked against the options of the recipe and of training."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from vaekit.data.condition import set_apart
from vaekit.data.core import Data
from vaekit.errors import ChoiceError
from vaekit.metrics import METRICS
from vaekit.metrics.needs import DENSITY
from vaekit.options import Options, abouts, choices
from vaekit.recipes import Composition, DataSpec, get_recipe
from vaekit.utils.arguments import Argument
from vaekit.utils.isolation import seeded
from vaekit.utils.suggest import unknown

if TYPE_CHECKING:
    from optuna import Trial

Over = str | Sequence[str] | Mapping[str, str | Sequence[Any]]
"""What a sweep chooses: `"latent=2..64:log,lr=1e-4..1e-2:log"`, or {"latent": "2..64:log", "activation": [...]}."""
FORMS = "NAME=LOW..HIGH, NAME=LOW..HIGH:log, NAME=LOW..HIGH:STEP or NAME=A|B|C"
MOST_COMBINATIONS = 32
"""Combinations of choices that are tried before the sweep; with more, each choice is tried with the first others."""
DIGITS = 4
"""Significant digits of the numbers that a trial trains with, so that they can be read and typed."""
_LENGTH = "all trials are trained for the same length"
_SAME = "it does not change what is learned"
NOT_TUNED = {
    "epochs": _LENGTH,
    "steps": _LENGTH,
    "minutes": _LENGTH,
    "patience": _LENGTH,
    "seed": "the best of several seeds is luck: `confirm` trains the best trials with further seeds",
    **dict.fromkeys(("validate_steps", "checkpoint_steps", "device", "devices", "compile", "precision"), _SAME),
}
"""Training options that a sweep does not choose, and why."""


@dataclass(frozen=True)
class Dimension:
    """One option that a sweep chooses: a range of numbers, or several values.

    Attributes:
        argument: the option, as the recipe or training declares it.
        text: the range or the values, as `over` writes them.
        low, high: the ends of the range; None for values.
        log: whether numbers are spaced by their logarithm.
        step: the distance between numbers; None for any.
        values: the values by the text that stands for them; empty for a range.
        training: whether it is an option of training.
    """

    argument: Argument
    text: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: bool = False

    @property
    def name(self) -> str:
        """The name of the option."""
        return self.argument.name

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole."""
        return self.argument.type.removesuffix(" | None") == "int"

    @property
    def ends(self) -> list[Any]:
        """The two ends of a range, or all values."""
        return list(self.values.values()) if self.values else [self.low, self.high]

    def suggested(self, trial: Trial) -> Any:
        """The value that Optuna suggests; numbers are rounded to `DIGITS` significant digits, within the range."""
        if self.values:
            return self.values[str(trial.suggest_categorical(self.name, list(self.values)))]
        assert self.low is not None
        assert self.high is not None
        if self.whole:
            step = int(self.step or 1)
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=step, log=self.log)
        value = trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high) if self.step is None else float(f"{value:g}")


@dataclass(frozen=True)
class Space:
    """The options that a sweep chooses, in an order in which each follows those that it depends on.

    Attributes:
        recipe: the name of the recipe.
        dimensions: the options.
        fixed: arguments of the recipe that all trials share.
    """

    recipe: str
    dimensions: tuple[Dimension, ...]
    fixed: Mapping[str, Any]

    @property
    def text(self) -> dict[str, str]:
        """The ranges and values by option, as sweep.json has them."""
        return {one.name: one.text for one in self.dimensions}

    @property
    def conditional(self) -> bool:
        """Whether an option applies to some trials only."""
        names = {one.name for one in self.dimensions}
        return any(names & set(one.argument.when) for one in self.dimensions)

    def choose(self, value: Callable[[Dimension], Any]) -> dict[str, Any]:
        """The settings of a trial: the `value` of each option that applies with those before it."""
        defaults = get_recipe(self.recipe).defaults
        settings: dict[str, Any] = {}
        for one in self.dimensions:
            if one.argument.applies({**defaults, **self.fixed, **settings}):
                settings[one.name] = value(one)
        return settings

    def corners(self) -> Iterator[dict[str, Any]]:
        """Settings that together have every value and both ends of every range.

        All combinations of values are made if they are at most `MOST_COMBINATIONS`.
        """
        several = [one for one in self.dimensions if one.values]
        first = {one.name: one.ends[0] for one in several}
        if math.prod(len(one.values) for one in several) <= MOST_COMBINATIONS:
            combined = [
                dict(zip(first, values, strict=True)) for values in itertools.product(*(one.ends for one in several))
            ]
        else:
            combined = [{**first, one.name: value} for one in several for value in one.ends]
        seen: list[dict[str, Any]] = []
        for values, end in itertools.product(combined, (0, -1)):
            settings = self.choose(lambda one, values=values, end=end: values.get(one.name, one.ends[end]))  # type: ignore[misc]
            if settings not in seen:
                seen.append(settings)
                yield settings

    def split(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings of a trial as arguments of the recipe and as options of training."""
        training = {one.name for one in self.dimensions if one.training}
        return {k: v for k, v in settings.items() if k not in training}, {
            k: v for k, v in settings.items() if k in training
        }


def space(over: Over, recipe: str, fixed: Mapping[str, Any], training: Mapping[str, Any]) -> Space:
    """The search space that `over` describes.

    Arguments:
        over: ranges and values; see `Over`.
        recipe: the name of the recipe.
        fixed, training: arguments of the recipe and options of training that all trials share.

    Raises:
        ChoiceError: an option is unknown, given twice, not chosen by sweeps or never has an effect, or a value is not
            one of its own.
    """
    own = {a.name: a for a in get_recipe(recipe).arguments}
    of_training = training_arguments()
    dimensions: dict[str, Dimension] = {}
    for name, written in _pairs(over):
        if why := NOT_TUNED.get(name) if name not in own else None:
            raise ChoiceError(f"`over` cannot choose `{name}`: {why}")
        if name not in own and name not in of_training:
            known = [*own, *(n for n in of_training if n not in NOT_TUNED)]
            raise ChoiceError(unknown(f"option of recipe {recipe!r} in `over`:", name, known))
        if name in dimensions or name in fixed or training.get(name) is not None:
            also = "twice in `over`" if name in dimensions else f"in `over` and as `{name}`"
            raise ChoiceError(f"{name} is given {also}: give it once")
        argument = own.get(name) or of_training[name]
        dimensions[name] = _dimension(argument, written, name not in own)
        for value in dimensions[name].ends if name not in own else ():
            Options(**{name: value}).checked()
    if not dimensions:
        raise ChoiceError(f"`over` is empty: give at least one option as {FORMS}")
    found = Space(recipe, _ordered(dimensions), dict(fixed))
    used = {name for settings in found.corners() for name in settings}
    for one in dimensions.values():
        if one.name not in used:
            when = " or ".join(f"`{n}={v[0]!r}`" for n, v in one.argument.when.items())
            raise ChoiceError(f"`{one.name}` has no effect in this sweep: it needs {when}, or omit it from `over`")
    return found


def _pairs(over: Over) -> Iterator[tuple[str, str | list[Any]]]:
    """Each name in `over` with its range or its values."""
    if isinstance(over, Mapping):
        for name, given in over.items():
            yield str(name).replace("-", "_"), given if isinstance(given, str) else list(given)
        return
    for text in [over] if isinstance(over, str) else over:
        for part in re.split(r",(?=\s*[A-Za-z_][\w-]*\s*=)(?![^()]*\))", text):
            name, equals, written = part.partition("=")
            if part.strip() and not (equals and name.strip() and written.strip()):
                raise ChoiceError(f"`over` has {part.strip()!r}, which is none of {FORMS}")
            if part.strip():
                yield name.strip().lstrip("-").replace("-", "_"), written.strip()


_RANGE = re.compile(r"(?P<low>[^|]+?)\.\.(?P<high>[^:|]+)(?::(?P<by>[^:|]+))?")


def _dimension(argument: Argument, written: str | list[Any], training: bool) -> Dimension:
    """The option with what `over` says about it."""
    kind, name = argument.type.removesuffix(" | None"), argument.name
    match = _RANGE.fullmatch(written) if isinstance(written, str) else None
    if match and kind in ("int", "float"):
        return _range(argument, str(written), match, training)
    if match and kind != "str" and kind != "choice":
        raise ChoiceError(
            f"`over`: {name} is no number, so it has no range: give its values, as in {_example(argument)}"
        )
    words = written.split("|") if isinstance(written, str) else written
    values = {_text(value): value for value in (_value(argument, word) for word in words)}
    if len(values) < 2:
        one = f"`{name}={next(iter(values.values()))!r}`" if values else f"`{name}`"
        raise ChoiceError(f"`over` needs two or more values of {name}, or a range: for a single value give {one}")
    return Dimension(argument, "|".join(values), values=values, training=training)


def _range(argument: Argument, written: str, match: re.Match[str], training: bool) -> Dimension:
    low, high = (_value(argument, match[end]) for end in ("low", "high"))
    by, where = match["by"], f"`over`: {argument.name}={written}"
    log = by == "log"
    step = None if by is None or log else _value(argument, by)
    if not low < high:
        raise ChoiceError(f"{where} must rise: write {argument.name}={high:g}..{low:g}")
    if log and low <= 0:
        raise ChoiceError(f"{where} starts at {low:g}, which has no logarithm: start above 0, or omit :log")
    if step is not None and not 0 < step <= high - low:
        raise ChoiceError(f"{where}: the step must be above 0 and at most {high - low:g}, got {step:g}")
    return Dimension(argument, written, low, high, log, step, training=training)


def _value(argument: Argument, word: Any) -> Any:
    """A value of an option, from the text of `over` or as Python has it."""
    kind, text = argument.type.removesuffix(" | None"), word.strip() if isinstance(word, str) else word
    where = f"`over`: {argument.name}={text}"
    if kind == "choice":
        named = {str(known).lower(): known for known in argument.choices or ()}
        if str(text).lower() not in named:
            raise ChoiceError(unknown(f"`{argument.name}` in `over`:", text, argument.choices or ()))
        return named[str(text).lower()]
    if kind == "bool":
        if str(text).lower() not in ("true", "false"):
            raise ChoiceError(f"{where} is neither true nor false")
        return str(text).lower() == "true"
    try:
        if kind in ("int", "float"):
            number = float(text)
            if not math.isfinite(number) or (kind == "int" and not number.is_integer()):
                raise ValueError
            return int(number) if kind == "int" else number
        if kind.startswith(("tuple", "list")):
            each = {"tuple[int, ...]": int, "tuple[float, ...]": float}.get(kind, str)
            return tuple(each(one) for one in (re.split(r"[,\s]+", text) if isinstance(text, str) else text))
    except (ValueError, TypeError):
        wanted = {"int": "a whole number", "float": "a number"}.get(kind, "a list of numbers such as 300,300")
        raise ChoiceError(f"{where} is not {wanted}; write {_example(argument)}") from None
    return str(text)


def _example(argument: Argument) -> str:
    kind = argument.type.removesuffix(" | None")
    values = {"int": "8..64:log", "float": "0.1..10:log", "tuple[int, ...]": "256|300,300"}
    return f"{argument.name}={values.get(kind, 'A|B')}"


def _text(value: Any) -> str:
    """A value as `over` writes it, and as Optuna stores it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)  # other processes and later calls read this text
    return str(value).lower() if isinstance(value, bool) else str(value)


def _ordered(dimensions: dict[str, Dimension]) -> tuple[Dimension, ...]:
    """The options, each after those that decide whether it applies."""
    left, ordered = dict(dimensions), []
    while left:
        ready = [one for one in left.values() if not set(one.argument.when) & set(left) - {one.name}]
        for one in ready or list(left.values()):
            ordered.append(left.pop(one.name))
    return tuple(ordered)


def built(recipe: str, data: Data, arguments: Mapping[str, Any]) -> Composition:
    """The composition of a recipe with these arguments for these data, with the weights of seed 0.

    Raises:
        ChoiceError: an argument is unknown, or does not fit the others or the data.
    """
    spec = DataSpec.of(set_apart(data, arguments.get("condition")))
    with seeded(0):
        return get_recipe(recipe)(spec, **arguments)


def check(space: Space, data: Data, training: Mapping[str, Any], metrics: Sequence[str]) -> None:
    """Check the ends and values of all options, alone and with each other, before anything is trained.

    Raises:
        ChoiceError: a value is out of range, values do not fit each other or the data, a metric does not apply, or an
            option changes what x is, so that numbers could not be compared.
    """
    observations: dict[str, dict[str, Any]] = {}
    for settings in space.corners():
        arguments, of_training = space.split(settings)
        written = ", ".join(f"{name}={_text(value)}" for name, value in settings.items())
        try:
            options = Options(**{**training, **of_training}).checked()
            composition = built(space.recipe, data, {**space.fixed, **arguments})
            options.with_defaults(composition.defaults)
        except ChoiceError as error:
            raise ChoiceError(f"`over`: {error} (with {written})") from None
        needs_density = [name for name in metrics if DENSITY in METRICS[name].needs]
        if needs_density and (why := composition.model.no_density):
            raise ChoiceError(f"{why}: it has no {needs_density[0]}; choose other `metrics`, such as `metrics='mse'`")
        observations.setdefault(composition.observation.kind, settings)
    if len(observations) > 1:
        (a, one), (b, other) = list(observations.items())[:2]
        differing = [name for name in {**one, **other} if one.get(name) != other.get(name)]
        raise ChoiceError(
            f"trials could not be compared, because x differs: {a} data with {_named(one, differing)}, {b} data with "
            f"{_named(other, differing)}. Omit {differing[0]} from `over`, or fix `observation`"
        )


def _named(settings: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {_text(settings[name])}" for name in names if name in settings)


@functools.cache
def training_arguments() -> dict[str, Argument]:
    """The options of training by name, in the form of a recipe's arguments."""
    known, hints, found = choices(), get_type_hints(Options), {}
    for name, about in abouts().items():
        plain = next((part for part in (hints[name], *get_args(hints[name])) if part in (int, float, str)), str)
        kind = "choice" if name in known else plain.__name__
        found[name] = Argument(name, kind, getattr(Options, name), list(known[name]) if name in known else None,
                               about.help, range=about.range.says if about.range else "")  # fmt: skip
    return found
