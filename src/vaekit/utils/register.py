"""Registers of parts: priors, posteriors, likelihoods and objectives by name, each with the knobs that it declares."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from vaekit.errors import ChoiceError

from .arguments import Argument, annotated, in_range, knobs
from .plugins import load_plugins, package_of
from .suggest import unknown

Builder = TypeVar("Builder", bound=Callable[..., Any])


@dataclass(frozen=True)
class Part:
    """A class or function that was registered by name.

    Arguments:
        kind: what it is: "prior", "objective", ...
        name: what it is called on the command line.
        build: the class or function.
        paper: where it comes from.
        traits: what its register knows of it besides.
    """

    kind: str
    name: str
    build: Callable[..., Any]
    paper: str
    traits: Mapping[str, Any]

    @cached_property
    def knobs(self) -> dict[str, Argument]:
        """What users may set, in the order of its signature."""
        return {name: argument for name, (argument, _) in knobs(self.build).items()}

    @property
    def package(self) -> str | None:
        """The package whose plug-in registered it; None for vaekit's own and for what a script registered."""
        return package_of(self.build.__module__)


@dataclass(frozen=True)
class Chosen:
    """A part that was chosen, and the knobs that were set for it; those left out keep their defaults."""

    part: Part
    knobs: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The part's name."""
        return self.part.name

    @property
    def traits(self) -> Mapping[str, Any]:
        """What the part's register knows of it."""
        return self.part.traits

    def make(self, **context: Any) -> Any:
        """Build it, its parameters that are no knobs taken from the context by name."""
        wanted = inspect.signature(self.part.build).parameters
        return self.part.build(**{n: v for n, v in context.items() if n in wanted}, **self.knobs)


class Register(Mapping[str, Part]):
    """Parts of one kind by name, in the order of their registration; those of installed plug-ins are among them.

    Arguments:
        kind: "prior", "objective", ...
        context: what a part is built from, by the name of its parameter, each with what it is.
    """

    def __init__(self, kind: str, context: Mapping[str, str]):
        self.kind, self.context = kind, context
        self._parts: dict[str, Part] = {}

    def add(self, name: str, paper: str, **traits: Any) -> Callable[[Builder], Builder]:
        """Decorate a class or function to register it as `name`; its knobs are then checked at every call.

        Raises:
            ChoiceError: the name is taken, or a parameter is neither a knob, nor of the context, nor has a default.
        """

        def register(build: Builder) -> Builder:
            if name in self._parts:
                raise ChoiceError(f"there is a {self.kind} {name!r} already, {self._parts[name].build}: name it apart")
            declared = knobs(build)
            for parameter, _, _ in annotated(build):
                variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
                if variadic or parameter.name in self.context or parameter.name in declared:
                    continue
                if parameter.default is parameter.empty:
                    raise ChoiceError(
                        f"{self.kind} {name!r}: the parameter `{parameter.name}` has no default. Annotate it with a "
                        f"Knob and give it a default, or take one of {', '.join(self.context)}"
                    )
            for knob, (argument, _) in declared.items():
                if knob in self.context:
                    raise ChoiceError(f"{self.kind} {name!r}: `{knob}` is {self.context[knob]}; rename the knob")
                if argument.default is inspect.Parameter.empty:
                    raise ChoiceError(f"{self.kind} {name!r}: give the knob `{knob}` a default")
            checked: Any = build
            if inspect.isclass(build):
                build.__init__ = in_range(build.__init__)  # type: ignore[method-assign]
            else:
                checked = in_range(build)
            self._parts[name] = Part(self.kind, name, checked, paper, traits)
            return checked

        return register

    def __getitem__(self, name: str) -> Part:
        load_plugins()
        if name not in self._parts:
            raise ChoiceError(unknown(f"`{self.kind}`", name, self._parts))
        return self._parts[name]

    def __contains__(self, name: object) -> bool:
        load_plugins()
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        load_plugins()
        return iter(self._parts)

    def __len__(self) -> int:
        load_plugins()
        return len(self._parts)
