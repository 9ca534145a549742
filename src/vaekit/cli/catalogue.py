"""What can be chosen: recipes and studies with their options, known without importing torch.

catalogue.json is written from the registers by `python tools/catalogue.py` (a test holds the two equal), so that lists,
help and wrong names are answered at once. Without that file the registers themselves are asked.
"""

from __future__ import annotations

import functools
import inspect
import json
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from vaekit.errors import ChoiceError
from vaekit.utils.suggest import unknown

FILE = Path(__file__).with_name("catalogue.json")
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


@dataclass(frozen=True)
class Described:
    """What is known of a recipe without its code.

    Attributes:
        name: what it is called on the command line.
        function: the name of the function that it is a setting of.
        paper: where it comes from.
        settings: the defaults that it changes.
        description: what it is, its first line a summary, with its equation.
        groups: its arguments by heading; what stands before the first heading has "".
    """

    name: str
    function: str
    paper: str
    settings: Mapping[str, Any]
    description: str
    groups: Mapping[str, list[Argument]]

    @property
    def summary(self) -> str:
        return self.description.split("\n")[0].rstrip(".")

    @property
    def arguments(self) -> list[Argument]:
        return [argument for group in self.groups.values() for argument in group]


@dataclass(frozen=True)
class Experiment:
    """What is known of a study without its code: its name, its paper, the data it runs on by default."""

    name: str
    paper: str
    data: str
    summary: str


def arguments(function: Callable[..., Any]) -> dict[str, list[Argument]]:
    """The arguments of a recipe's function by the headings of the `Arguments:` block of its docstring."""
    from vaekit.recipes.choices import belongs
    from vaekit.recipes.compose import compose

    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters
    return {
        heading: [
            _argument(name, hints[name], parameters[name].default, text, belongs(name) if function is compose else {})
            for name, text in texts.items()
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


# --- the file ---------------------------------------------------------------------------------------------------


def written(recipes: Iterable[Any], studies: Iterable[Any]) -> dict[str, Any]:
    """What catalogue.json holds, from the registers of `vaekit.recipes` and `vaekit.studies`."""
    from vaekit.data.arrays import MISSING
    from vaekit.data.core import KINDS
    from vaekit.data.readers.dialect import DECIMALS, HEADERS

    data = {"kind": list(KINDS), "missing": list(MISSING), "header": list(HEADERS), "decimal": list(DECIMALS)}
    functions: dict[str, Any] = {}
    entries = []
    for recipe in recipes:
        function = recipe.function.__name__
        functions[function] = {
            heading: [asdict(argument) for argument in group] for heading, group in arguments(recipe.function).items()
        }
        entries.append(
            {
                "name": recipe.name,
                "function": function,
                "paper": recipe.paper,
                "settings": dict(recipe.settings),
                "description": recipe.description,
            }
        )
    experiments = [{"name": s.name, "paper": s.paper, "data": s.data, "summary": s.summary} for s in studies]
    return {"functions": functions, "recipes": entries, "studies": experiments, "data": data}


@functools.cache
def _read() -> dict[str, Any]:
    if FILE.exists():
        return json.loads(FILE.read_text(encoding="utf8"))
    from vaekit.recipes import RECIPES
    from vaekit.studies import STUDIES

    return written(RECIPES.values(), STUDIES.values())


@functools.cache
def recipes() -> dict[str, Described]:
    """The recipes by name."""
    held = _read()
    found = {}
    for entry in held["recipes"]:
        settings = entry["settings"]
        groups = {
            heading: [Argument(**{**a, "default": _tuple(settings.get(a["name"], a["default"]))}) for a in group]
            for heading, group in held["functions"][entry["function"]].items()
        }
        found[entry["name"]] = Described(**entry, groups=groups)
    return found


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@functools.cache
def studies() -> dict[str, Experiment]:
    """The studies by name."""
    return {entry["name"]: Experiment(**entry) for entry in _read()["studies"]}


def data_choices() -> dict[str, list[str]]:
    """The options of reading data that take one of a few names, and those names."""
    return _read()["data"]


def recipe(name: str) -> Described:
    """The recipe of this name.

    Raises:
        ChoiceError: there is none.
    """
    if name not in recipes():
        raise ChoiceError(unknown("recipe", name, sorted(recipes()), 0.4))
    return recipes()[name]


def study(name: str) -> Experiment:
    """The study of this name.

    Raises:
        ChoiceError: there is none.
    """
    if name not in studies():
        raise ChoiceError(unknown("study", name, studies(), 0.4))
    return studies()[name]
