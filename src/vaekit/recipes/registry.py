"""What a recipe is: a named way to call a function `(spec, **choices) -> Composition`.

The function's typed signature is the configuration: the command line reads it, `run.json` stores the choices, and a
run is rebuilt by calling the function again. Several recipes may share a function and differ in their settings.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vaekit.errors import ChoiceError
from vaekit.options import Options
from vaekit.utils.arguments import Argument, arguments
from vaekit.utils.suggest import unknown
from vaekit.utils.typed import mismatch

from .composition import Composition, DataSpec, check_support


@dataclass(frozen=True)
class Recipe:
    """A named composition: calling it builds one.

    Arguments:
        name: what it is called on the command line.
        function: (spec, **choices) -> Composition.
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
        """The first line of the description."""
        return self.description.split("\n")[0].rstrip(".")

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The arguments by name."""
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
    def groups(self) -> dict[str, list[Argument]]:
        """The arguments of its function by heading, with that function's defaults."""
        return arguments(self.function, APPLIES.get(self.function, lambda name: {}))

    @property
    def arguments(self) -> list[Argument]:
        """What it takes, in the order of its docstring."""
        own = [argument for group in self.groups.values() for argument in group]
        return [dataclasses.replace(a, default=self.settings.get(a.name, a.default)) for a in own]

    def __call__(self, spec: DataSpec, **choices: Any) -> Composition:
        """Build it.

        Raises:
            ChoiceError: a choice that does not exist or cannot work with the others or with the data, and why.
        """
        parameters = self.parameters
        for name, value in choices.items():
            if name not in parameters:
                raise ChoiceError(self._no_argument(name))
            annotation = parameters[name].annotation
            if get_origin(annotation) is Literal and not (isinstance(value, str) and value in get_args(annotation)):
                raise ChoiceError(unknown(f"`{name}`", value, map(str, get_args(annotation))))
            if wrong := mismatch(value, annotation, f"`{name}`"):
                raise ChoiceError(f"recipe {self.name!r}: {wrong}")
        composition = self.function(spec, **{**self.settings, **choices})
        check_support(composition)
        composition.objective.check(composition.model)
        return composition

    def _no_argument(self, name: str) -> str:
        """What to say of an argument that is none of this recipe's."""
        from vaekit.data.loading import load, option_types

        if name in (*inspect.signature(load).parameters, *option_types()):
            return f"{name!r} is about reading the data: give it to vk.load(source, {name}=...), and its result to fit"
        training = (f.name for f in dataclasses.fields(Options))
        return unknown(f"argument of {self.name}", name, [*self.parameters, *training])


BEFORE: dict[str, Any] = {"decoder_decay": None}
"""What choices amounted to before they existed: a run whose run.json does not know one was trained so."""

RECIPES: dict[str, Recipe] = {}

APPLIES: dict[Callable[..., Composition], Callable[[str], Mapping[str, list[str]]]] = {}
"""Of a function: beside which other choices an argument of this name means something."""


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
        raise ChoiceError(unknown("recipe", name, sorted(RECIPES), 0.4))
    return RECIPES[name]
