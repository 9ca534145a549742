"""Recipes, named functions `(spec, **choices) -> Composition`, and their register.

The function's annotated signature is the configuration: the command line derives its options from it, `run.json` stores
the choices, and a run is rebuilt by calling the function again. Several recipes may share a function and differ in
their defaults.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from vaekit.data.loading import from_arrays, load, option_types
from vaekit.errors import ChoiceError
from vaekit.options import Options
from vaekit.utils.arguments import Argument
from vaekit.utils.plugins import package_of
from vaekit.utils.register import Named, origin_of
from vaekit.utils.suggest import unknown
from vaekit.utils.typed import mismatch

from .composition import Composition, DataSpec, check_support
from .signature import Signature, signature_of


@dataclass(frozen=True)
class Recipe:
    """A named recipe; calling it with a `DataSpec` and choices builds a `Composition`.

    Arguments:
        name: its name on the command line.
        function: (spec, **choices) -> Composition.
        paper: the publication that introduced it.
        settings: defaults that differ from the function's; users can override each.
        text: its description: a one-line summary, then the equation. By default the function's docstring.
        package: the package of the plug-in that registered it, or None.
    """

    name: str
    function: Callable[..., Composition]
    paper: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    package: str | None = None

    @property
    def description(self) -> str:
        """The whole description: summary and equation."""
        return (self.text or inspect.getdoc(self.function) or "").strip()

    @property
    def summary(self) -> str:
        """The first line of the description."""
        return self.description.split("\n")[0].rstrip(".")

    @property
    def signature(self) -> Signature:
        """The arguments of its function."""
        return signature_of(self.function)

    @property
    def groups(self) -> dict[str, list[Argument]]:
        """The arguments of its function by heading, with the function's defaults."""
        return self.signature.groups

    @property
    def arguments(self) -> list[Argument]:
        """Its arguments in the order of the help, with the recipe's defaults."""
        own = [argument for group in self.groups.values() for argument in group]
        return [dataclasses.replace(a, default=self.settings.get(a.name, a.default)) for a in own]

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Its arguments as parameters of a Python function, by name."""
        keyword = inspect.Parameter.KEYWORD_ONLY
        return {
            a.name: inspect.Parameter(a.name, keyword, default=a.default, annotation=a.hint) for a in self.arguments
        }

    @property
    def __signature__(self) -> inspect.Signature:
        spec = inspect.Parameter("spec", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=DataSpec)
        return inspect.Signature([spec, *self.parameters.values()], return_annotation=Composition)

    @property
    def defaults(self) -> dict[str, Any]:
        """The default of each argument, by name; None if the recipe decides from the data or the other arguments."""
        return {a.name: a.default for a in self.arguments}

    def defaults_for(self, spec: DataSpec, choices: Mapping[str, Any]) -> dict[str, Any]:
        """`defaults` with these choices: a knob that several parts declare has the default of the chosen part."""
        return {**self.defaults, **self.signature.defaults(spec, {**self.settings, **choices}), **self.settings}

    def packages(self, choices: Mapping[str, Any]) -> dict[str, str]:
        """The plug-in packages that a run needs: of the recipe, as "recipe", and of each chosen part, by argument."""
        packages = {"recipe": self.package} if self.package else {}
        for name, pick in self.signature.picks.items():
            chosen = {**self.settings, **choices}.get(name) or pick.default
            if chosen in pick.register and (package := pick.register[chosen].package):
                packages[name] = package
        return packages

    def __call__(self, spec: DataSpec, **choices: Any) -> Composition:
        """Build the composition for data of this specification.

        Raises:
            ChoiceError: a choice is unknown or incompatible with the other choices or the data.
        """
        return self.build(spec, choices)

    def build(self, spec: DataSpec, choices: Mapping[str, Any], strict: bool = True) -> Composition:
        """Build the composition; an option that no chosen part has is an error if `strict`, else ignored.

        Raises:
            ChoiceError: a choice is unknown or incompatible with the other choices or the data.
        """
        hints = {a.name: a.hint for a in self.arguments}
        for name, value in choices.items():
            if name not in hints:
                raise ChoiceError(self._no_argument(name, hints))
            annotation = hints[name]
            if get_origin(annotation) is Literal and not (isinstance(value, str) and value in get_args(annotation)):
                raise ChoiceError(unknown(f"`{name}`", value, map(str, get_args(annotation))))
            if wrong := mismatch(value, annotation, f"`{name}`"):
                raise ChoiceError(f"recipe {self.name!r}: {wrong}")
        arguments = self.signature.resolve(spec, {**self.settings, **choices}, strict)
        composition = self.function(spec, **arguments)
        check_support(composition)
        composition.objective.check(composition.model)
        return composition

    def _no_argument(self, name: str, known: Mapping[str, Any]) -> str:
        """The message for an argument that this recipe does not have."""
        readers = {"vk.load(source": {*inspect.signature(load).parameters, *option_types()}}
        readers["vk.from_arrays(x"] = {*inspect.signature(from_arrays).parameters}
        if calls := [f"{call}, {name}=...)" for call, options in readers.items() if name in options]:
            return f"{name!r} is an option of reading data: pass it to {' or '.join(calls)} and the result to fit"
        training = (f.name for f in dataclasses.fields(Options))
        return unknown(f"argument of {self.name}", name, [*known, *training])


BEFORE: dict[str, Any] = {"decoder_decay": None, "sigma": "shared"}
"""Values of choices that the run.json of older runs lacks: how those runs were trained."""


RECIPES = Named[Recipe]("recipe")
"""The recipes by name."""


def recipe(name: str, paper: str) -> Callable[[Callable[..., Composition]], Recipe]:
    """Register a function as the recipe `name`.

    Its first parameter is the `DataSpec`. Each of the others is annotated with a `Knob` or, if users choose a part by
    it, with a `Pick`. The docstring is the description: a one-line summary, then the equation.

    Arguments:
        name: its name on the command line.
        paper: the publication that introduced it.
    """

    def register(function: Callable[..., Composition]) -> Recipe:
        entry = Recipe(name, function, paper, package=package_of(function.__module__))
        return RECIPES.put(name, entry, origin_of(function))

    return register


def setting(name: str, base: Recipe, paper: str, text: str, **settings: Any) -> Recipe:
    """Register a recipe that differs from `base` in its defaults.

    Arguments:
        name: its name on the command line.
        base: the recipe whose function it calls.
        paper: the publication that introduced it.
        text: its description: a one-line summary, then the equation.
        settings: its defaults that differ from those of the function.
    """
    module = sys._getframe(1).f_globals["__name__"]
    entry = Recipe(name, base.function, paper, settings, inspect.cleandoc(text), package_of(module))
    return RECIPES.put(name, entry, module)


def get_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        ChoiceError: there is none; the message suggests the nearest name.
    """
    if name not in RECIPES:
        raise ChoiceError(unknown("recipe", name, sorted(RECIPES), 0.4))
    return RECIPES[name]
