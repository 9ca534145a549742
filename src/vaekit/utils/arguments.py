"""Choices declared where they are used: a parameter annotated `Annotated[type, Knob(help, ...)]` with its default.

Help, command line, validation and documentation of a choice are derived from that one declaration.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from vaekit.errors import ChoiceError

from .suggest import unknown

PLAIN = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "tuple[int, ...]": tuple[int, ...],
    "tuple[float, ...]": tuple[float, ...],
    "list[str]": list[str],
}


@dataclass(frozen=True, repr=False)
class Knob:
    """The declaration of a parameter that users may set, annotated beside its type.

    Arguments:
        help: one line, without the default.
        low, high: the smallest and the largest value allowed.
        above, below: bounds that are themselves not allowed.
        heading: heading of its group in the help; if empty, it is in the group of the knob before it.
        when: the choices with which it has an effect, such as {"network": ["auto", "conv"]}; empty for all.
        among: the names to choose from, for a name that is looked up in a mapping.
    """

    help: str
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    heading: str = ""
    when: Mapping[str, list[str]] = field(default_factory=dict)
    among: Collection[str] = ()

    def __repr__(self) -> str:
        return repr(self.help)  # the reference shows it in signatures

    @property
    def range(self) -> str:
        """The values allowed, in words; empty if there is no bound."""
        lower = f"{self.low:g} or more" if self.low > -math.inf else f"above {self.above:g}"
        upper = f"at most {self.high:g}" if self.high < math.inf else f"below {self.below:g}"
        has_lower, has_upper = max(self.low, self.above) > -math.inf, min(self.high, self.below) < math.inf
        return " and ".join([*[lower] * has_lower, *[upper] * has_upper])

    def check(self, name: str, value: Any) -> None:
        """Raise ChoiceError for a number outside the range, alone or in a list; values that are not numbers pass."""
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, bool) or not isinstance(one, int | float):
                continue
            inside = self.low <= one <= self.high and self.above < one < self.below
            if not math.isfinite(one) or not inside:
                raise ChoiceError(f"`{name}` must be {self.range or 'a finite number'}, got {one:g}")


@dataclass(frozen=True)
class Argument:
    """A choice that a recipe or a part takes, as the list of recipes in JSON has it.

    `type` is one of `PLAIN` or "choice", with " | None" if it may be left to the recipe. If `when` is not empty, the
    argument has an effect only with one of these choices, such as {"prior": ["mixture", "vamp"]}. `range` describes the
    values allowed in words.
    """

    name: str
    type: str
    default: Any
    choices: list[str] | None
    help: str
    when: Mapping[str, list[str]] = field(default_factory=dict)
    range: str = ""

    def applies(self, chosen: Mapping[str, Any]) -> bool:
        """Whether the argument applies with these choices."""
        return not self.when or any(chosen.get(name) in values for name, values in self.when.items())

    @property
    def hint(self) -> Any:
        """The type as an annotation."""
        kind = self.type.removesuffix(" | None")
        hint = Literal[tuple(self.choices or ())] if kind == "choice" else PLAIN[kind]
        return hint if kind == self.type else hint | None


def annotated(function: Callable[..., Any]) -> Iterator[tuple[inspect.Parameter, Any, tuple[Any, ...]]]:
    """Each parameter of a function, or of a class's constructor, with its type and its further annotations."""
    hints = _hints(function)
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name, Any)
        beside = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        yield parameter, get_args(hint)[0] if beside else hint, beside


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of the parameters of a function or of a class's constructor; evaluating them takes milliseconds."""
    owner = getattr(function, "__self__", None)  # of a class method, whose class may not have its name yet
    named = {owner.__name__: owner} if inspect.isclass(owner) else None
    return get_type_hints(
        function.__init__ if inspect.isclass(function) else function, None, named, include_extras=True
    )


def knobs(function: Callable[..., Any]) -> dict[str, tuple[Argument, Knob]]:
    """The parameters of a function or class that are annotated with a `Knob`, in order."""
    by_name = {}
    for parameter, hint, beside in annotated(function):
        for knob in beside:
            if isinstance(knob, Knob):
                by_name[parameter.name] = _argument(parameter, hint, knob), knob
    return by_name


def _argument(parameter: inspect.Parameter, hint: Any, knob: Knob) -> Argument:
    """The argument for a parameter; of a union, the first type that can be written on a command line is used."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    optional = " | None" if type(None) in parts else ""
    for part in parts:
        options = [*knob.among] or ([str(c) for c in get_args(part)] if get_origin(part) is Literal else None)
        kind = "choice" if options else next((word for word, known in PLAIN.items() if known == part), None)
        if kind:
            default = parameter.default
            return Argument(parameter.name, kind + optional, default, options, knob.help, knob.when, knob.range)
    raise TypeError(f"the knob `{parameter.name}` has the type {hint}; expected one of {', '.join(PLAIN)} or a Literal")


def in_range(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, with a check of the ranges and choices of its knobs at every call."""
    declared = knobs(function)
    if not declared:
        return function
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Any, **named: Any) -> Any:
        bound = signature.bind(*args, **named).arguments
        for name, (argument, knob) in declared.items():
            if name in bound:
                value = bound[name]
                if isinstance(value, str) and argument.choices and value not in argument.choices:
                    raise ChoiceError(unknown(f"`{name}`", value, argument.choices))
                knob.check(name, value)
        return function(*args, **named)

    return checked
