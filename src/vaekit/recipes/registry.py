"""What a recipe is: a named way to call a function `(spec, **choices) -> Composition`.

The function's annotated signature is the configuration: the command line derives its options from it, `run.json` stores
the choices, and a run is rebuilt by calling the function again. Several recipes may share a function and differ in
their settings.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from vaekit.data.loading import load, option_types
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
    """A named composition: calling it builds one.

    Arguments:
        name: what it is called on the command line.
        function: (spec, **choices) -> Composition.
        paper: where it comes from.
        settings: defaults of this recipe where they differ from the function's; every one can be overridden.
        text: what it is, its first line a summary, with its equation; the function's docstring where not given.
        package: of the plug-in that registered it, if one did.
    """

    name: str
    function: Callable[..., Composition]
    paper: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    package: str | None = None

    @property
    def description(self) -> str:
        """What it is, with its equation."""
        return (self.text or inspect.getdoc(self.function) or "").strip()

    @property
    def summary(self) -> str:
        """The first line of the description."""
        return self.description.split("\n")[0].rstrip(".")

    @property
    def signature(self) -> Signature:
        """What its function takes."""
        return signature_of(self.function)

    @property
    def groups(self) -> dict[str, list[Argument]]:
        """The arguments of its function by heading, with that function's defaults."""
        return self.signature.groups

    @property
    def arguments(self) -> list[Argument]:
        """What it takes, in the order of help, with its own defaults."""
        own = [argument for group in self.groups.values() for argument in group]
        return [dataclasses.replace(a, default=self.settings.get(a.name, a.default)) for a in own]

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """What it takes, as parameters of a Python function."""
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
        """What each choice is when it is not given; None where that is left to the recipe."""
        return {a.name: a.default for a in self.arguments}

    def defaults_for(self, spec: DataSpec, choices: Mapping[str, Any]) -> dict[str, Any]:
        """`defaults` where these choices are made: of a knob that several parts declare, that of the part chosen."""
        return {**self.defaults, **self.signature.defaults(spec, {**self.settings, **choices}), **self.settings}

    def packages(self, choices: Mapping[str, Any]) -> dict[str, str]:
        """The packages whose plug-ins registered this recipe or a part that these choices name, by what they name."""
        found = {"recipe": self.package} if self.package else {}
        for name, pick in self.signature.picks.items():
            chosen = {**self.settings, **choices}.get(name) or pick.default
            if chosen in pick.register and (package := pick.register[chosen].package):
                found[name] = package
        return found

    def __call__(self, spec: DataSpec, **choices: Any) -> Composition:
        """Build it.

        Raises:
            ChoiceError: a choice that does not exist or cannot work with the others or with the data, and why.
        """
        return self.build(spec, choices)

    def build(self, spec: DataSpec, choices: Mapping[str, Any], strict: bool = True) -> Composition:
        """Build it; options that no chosen part takes are refused if `strict`, else left out.

        Raises:
            ChoiceError: a choice that does not exist or cannot work with the others or with the data, and why.
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
        """What to say of an argument that is none of this recipe's."""
        if name in (*inspect.signature(load).parameters, *option_types()):
            return f"{name!r} is about reading the data: give it to vk.load(source, {name}=...), and its result to fit"
        training = (f.name for f in dataclasses.fields(Options))
        return unknown(f"argument of {self.name}", name, [*known, *training])


BEFORE: dict[str, Any] = {"decoder_decay": None}
"""What choices amounted to before they existed: a run whose run.json does not know one was trained so."""


RECIPES = Named[Recipe]("recipe")
"""The recipes by name."""


def recipe(name: str, paper: str) -> Callable[[Callable[..., Composition]], Recipe]:
    """Register a function as the recipe `name`.

    Its first parameter is the `DataSpec`; each of the others is annotated with a `Knob` or, where it is a part that
    users choose, with a `Pick`. Its docstring says what it is, the first line as a summary, with the equation.
    """

    def register(function: Callable[..., Composition]) -> Recipe:
        made = Recipe(name, function, paper, package=package_of(function.__module__))
        return RECIPES.put(name, made, origin_of(function))

    return register


def setting(name: str, base: Recipe, paper: str, text: str, **settings: Any) -> Recipe:
    """Register good settings of a recipe as the recipe `name`."""
    module = sys._getframe(1).f_globals["__name__"]
    made = Recipe(name, base.function, paper, settings, inspect.cleandoc(text), package_of(module))
    return RECIPES.put(name, made, module)


def get_recipe(name: str) -> Recipe:
    """The recipe of this name; an unknown one is answered with the nearest."""
    if name not in RECIPES:
        raise ChoiceError(unknown("recipe", name, sorted(RECIPES), 0.4))
    return RECIPES[name]
