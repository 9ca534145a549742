"""What a recipe is: a named way to call a function `(facts, **choices) -> Composition`.

The function's typed signature is the configuration: the command line reads it, `run.json` stores the choices, and a
run is rebuilt by calling the function again. Several recipes may share a function and differ in their settings.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..composition import Composition, Facts, check_support
from ..errors import ChoiceError
from ..typed import mismatch


@dataclass(frozen=True)
class Argument:
    """One choice a recipe takes, as `vaekit recipes --json` lists it."""

    name: str
    type: str
    default: Any
    choices: list[str] | None
    help: str


@dataclass(frozen=True)
class Recipe:
    """A named composition: calling it builds one.

    Arguments:
        name: what it is called on the command line.
        function: (facts, **choices) -> Composition.
        paper: where it comes from.
        settings: defaults of this recipe where they differ from the function's; every one can be overridden.
        text: what it is, its first line a summary, with its equation; the function's docstring where not given.
    """

    name: str
    function: Callable[..., Composition]
    paper: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""

    @property
    def description(self) -> str:
        """What it is, with its equation, without the arguments."""
        return (self.text or (inspect.getdoc(self.function) or "").partition("Arguments:")[0]).strip()

    @property
    def summary(self) -> str:
        return self.description.split("\n")[0].rstrip(".")

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        hints = get_type_hints(self.function)
        found = list(inspect.signature(self.function).parameters.values())[1:]
        return {
            p.name: p.replace(annotation=hints[p.name], default=self.settings.get(p.name, p.default)) for p in found
        }

    @property
    def defaults(self) -> dict[str, Any]:
        """What each choice is when it is not given, where that is known."""
        return {n: p.default for n, p in self.parameters.items() if p.default is not p.empty}

    @property
    def help(self) -> dict[str, str]:
        """One line an argument, from the `Arguments:` block of the function's docstring."""
        return {name: text for group in self.groups.values() for name, text in group.items()}

    @property
    def groups(self) -> dict[str, dict[str, str]]:
        """The `Arguments:` block by its headings: lines that end in a colon. What stands before the first has ""."""
        block = (inspect.getdoc(self.function) or "").partition("Arguments:")[2]
        names = set(inspect.signature(self.function).parameters)
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

    @property
    def arguments(self) -> list[Argument]:
        listed = []
        for name, p in self.parameters.items():
            literal = get_origin(p.annotation) is Literal
            kind = "choice" if literal else getattr(p.annotation, "__name__", str(p.annotation))
            if get_origin(p.annotation) not in (None, Literal):
                kind = str(p.annotation)
            choices = [str(c) for c in get_args(p.annotation)] if literal else None
            listed.append(Argument(name, kind, p.default, choices, self.help.get(name, "")))
        return listed

    def __call__(self, facts: Facts, **choices: Any) -> Composition:
        """Build it.

        Raises:
            ChoiceError: a choice that does not exist or cannot work with the others or with the data, and why.
        """
        parameters = self.parameters
        for name, value in choices.items():
            if name not in parameters:
                near = difflib.get_close_matches(name, parameters, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ";"
                raise ChoiceError(f"recipe {self.name!r} has no choice {name!r}{hint} it takes {', '.join(parameters)}")
            annotation = parameters[name].annotation
            if get_origin(annotation) is Literal and not (isinstance(value, str) and value in get_args(annotation)):
                options = [str(c) for c in get_args(annotation)]
                near = difflib.get_close_matches(str(value), options, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ";"
                raise ChoiceError(f"no {name} {value!r}{hint} there are {', '.join(options)}")
            if wrong := mismatch(value, annotation, name):
                raise ChoiceError(f"recipe {self.name!r}: {wrong}")
        composition = self.function(facts, **{**self.settings, **choices})
        check_support(composition)
        composition.objective.check(composition.model)
        return composition


RECIPES: dict[str, Recipe] = {}


def recipe(name: str, paper: str) -> Callable[[Callable[..., Composition]], Callable[..., Composition]]:
    """Register a function as the recipe `name`."""

    def register(function: Callable[..., Composition]) -> Callable[..., Composition]:
        RECIPES[name] = Recipe(name, function, paper)
        return function

    return register


def setting(name: str, function: Callable[..., Composition], paper: str, text: str, **settings: Any) -> None:
    """Register good settings of a function as the recipe `name`."""
    RECIPES[name] = Recipe(name, function, paper, settings, inspect.cleandoc(text))


def get_recipe(name: str) -> Recipe:
    """The recipe of this name; an unknown one is answered with the nearest."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, 1, 0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ChoiceError(f"no recipe {name!r}{hint or ';'} there are {', '.join(sorted(RECIPES))}")
    return RECIPES[name]
