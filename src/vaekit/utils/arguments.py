"""The arguments of a function as a user may give them: name, type, default, choices and help, from its signature."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

PLAIN = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "tuple[int, ...]": tuple[int, ...],
    "tuple[float, ...]": tuple[float, ...],
}


@dataclass(frozen=True)
class Argument:
    """One choice a recipe takes, as `vaekit recipes --json` lists it.

    `type` is one of `PLAIN` or "choice", with " | None" where it may be left to the recipe. Where `when` is not empty,
    the argument means something only beside one of these choices, such as {"prior": ["mixture", "vamp"]}.
    """

    name: str
    type: str
    default: Any
    choices: list[str] | None
    help: str
    when: Mapping[str, list[str]] = field(default_factory=dict)

    def applies(self, chosen: Mapping[str, Any]) -> bool:
        """Whether it means something beside these choices."""
        return not self.when or any(chosen.get(name) in values for name, values in self.when.items())

    @property
    def hint(self) -> Any:
        """The type as an annotation."""
        kind = self.type.removesuffix(" | None")
        hint = Literal[tuple(self.choices or ())] if kind == "choice" else PLAIN[kind]
        return hint if kind == self.type else hint | None


def arguments(
    function: Callable[..., Any], when: Callable[[str], Mapping[str, list[str]]] = lambda name: {}
) -> dict[str, list[Argument]]:
    """The arguments of a recipe's function by the headings of the `Arguments:` block of its docstring.

    `when` gives the choices beside which an argument means something.
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
    """The `Arguments:` block of a docstring by its headings: lines that end in a colon."""
    block = (inspect.getdoc(function) or "").partition("Arguments:")[2]
    names = set(inspect.signature(function).parameters)
    found: dict[str, dict[str, str]] = {}
    heading, name = "", ""
    for line in (line.strip() for line in block.splitlines()):
        head, colon, rest = line.partition(": ")
        if colon and head in names:
            name = head
            found.setdefault(heading, {})[name] = rest
        elif line.endswith(":"):
            heading = line.removesuffix(":")
        elif line and name:
            found[heading][name] += " " + line
    return found


def _argument(name: str, hint: Any, default: Any, text: str, when: Mapping[str, list[str]]) -> Argument:
    optional, plain = "", hint
    if get_origin(hint) in (Union, types.UnionType):
        (plain,) = (part for part in get_args(hint) if part is not type(None))
        optional = " | None"
    if get_origin(plain) is Literal:
        return Argument(name, f"choice{optional}", default, [str(c) for c in get_args(plain)], text, when)
    kind = next(word for word, known in PLAIN.items() if known == plain)
    return Argument(name, kind + optional, default, None, text, when)
