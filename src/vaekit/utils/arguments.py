"""The arguments of a function as a user may give them: name, type, default, choices and help, from its signature."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

PLAIN = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "tuple[int, ...]": tuple[int, ...],
    "tuple[float, ...]": tuple[float, ...],
    "list[str]": list[str],
}


@dataclass(frozen=True)
class Knob:
    """What stands beside the type of a parameter that users may set: `Annotated[int | None, Knob("what it does")]`.

    Arguments:
        help: one line, without the default.
        when: other choices beside one of which it means something, such as {"network": ["auto", "conv"]}.
    """

    help: str
    when: Mapping[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Argument:
    """One argument of a recipe, as `vaekit recipes --json` lists it.

    `type` is one of `PLAIN` or "choice", followed by " | None" if the recipe can choose the value. If `when` is not
    empty, the argument applies only with one of these choices, such as {"prior": ["mixture", "vamp"]}.
    """

    name: str
    type: str
    default: Any
    choices: list[str] | None
    help: str
    when: Mapping[str, list[str]] = field(default_factory=dict)

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
    """Each parameter of a function, with its type and what is annotated beside it."""
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name, Any)
        beside = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        yield parameter, get_args(hint)[0] if beside else hint, beside


def knobs(function: Callable[..., Any]) -> dict[str, tuple[Argument, Knob]]:
    """The parameters of a function that are annotated with a `Knob`, in order."""
    found = {}
    for parameter, hint, beside in annotated(function):
        for knob in beside:
            if isinstance(knob, Knob):
                argument = _argument(parameter.name, hint, parameter.default, knob.help, knob.when)
                found[parameter.name] = argument, knob
    return found


def arguments(
    function: Callable[..., Any], when: Callable[[str], Mapping[str, list[str]]] = lambda name: {}
) -> dict[str, list[Argument]]:
    """The arguments of a recipe's function, grouped by the headings in the `Arguments:` block of its docstring.

    `when` returns, for the name of an argument, the choices that it needs.
    """
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters
    return {
        heading: [
            _argument(name, hints[name], parameters[name].default, text, when(name)) for name, text in texts.items()
        ]
        for heading, texts in explained(function).items()
    }


def explained(function: Callable[..., Any]) -> dict[str, dict[str, str]]:
    """The help texts in the `Arguments:` block of a docstring by heading (a line that ends in a colon) and name."""
    block = (inspect.getdoc(function) or "").partition("Arguments:")[2]
    names = set(inspect.signature(function).parameters)
    texts: dict[str, dict[str, str]] = {}
    heading, name = "", ""
    for line in (line.strip() for line in block.splitlines()):
        head, colon, rest = line.partition(": ")
        if colon and head in names:
            name = head
            texts.setdefault(heading, {})[name] = rest
        elif line.endswith(":"):
            heading = line.removesuffix(":")
        elif line and name:
            texts[heading][name] += " " + line
    return texts


def _argument(name: str, hint: Any, default: Any, text: str, when: Mapping[str, list[str]]) -> Argument:
    """Of a union the first type that can be written on a command line counts; None makes it optional."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    optional = " | None" if type(None) in parts else ""
    for part in parts:
        if get_origin(part) is Literal:
            return Argument(name, f"choice{optional}", default, [str(c) for c in get_args(part)], text, when)
        if kind := next((word for word, known in PLAIN.items() if known == part), None):
            return Argument(name, kind + optional, default, None, text, when)
    raise TypeError(f"`{name}` has the type {hint}; expected one of {', '.join(PLAIN)} or a Literal")
