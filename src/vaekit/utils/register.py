"""Registers: entries by name, and parts (priors, likelihoods, objectives, ...) with the knobs that they declare."""

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
Entry = TypeVar("Entry")


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


class Named(Mapping[str, Entry]):
    """Entries by name, in the order of their registration; those of installed plug-ins are among them.

    Arguments:
        kind: "recipe", "study", ...
        called: the kind as an error for an unknown name writes it, where it is not `kind`.
    """

    def __init__(self, kind: str, called: str = ""):
        self.kind, self.called = kind, called or kind
        self.entries: dict[str, Entry] = {}
        self._origins: dict[str, str] = {}

    def put(self, name: str, entry: Entry, origin: str) -> Entry:
        """Hold an entry, and return it. One of the same origin, such as a cell that is run again, replaces the last.

        Arguments:
            name: of the entry.
            entry: what is held.
            origin: where it is defined: module, and name in it.

        Raises:
            ChoiceError: the name is taken by an entry of another origin.
        """
        if name in self.entries and self._origins[name] != origin:
            raise ChoiceError(f"there is a {self.kind} {name!r} already, {self._origins[name]}: choose another name")
        self.entries[name], self._origins[name] = entry, origin
        return entry

    def __getitem__(self, name: str) -> Entry:
        load_plugins()
        if name not in self.entries:
            raise ChoiceError(unknown(self.called, name, sorted(self.entries)))
        return self.entries[name]

    def __contains__(self, name: object) -> bool:
        load_plugins()
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        load_plugins()
        return iter(self.entries)

    def __len__(self) -> int:
        load_plugins()
        return len(self.entries)


def origin_of(function: Callable[..., Any]) -> str:
    """Where a function or class is defined: its module, and its name in it."""
    return f"{function.__module__}.{function.__qualname__}"


class Register(Named[Part]):
    """Parts of one kind by name.

    Arguments:
        kind: "prior", "objective", ...
        context: what a part is built from, by the name of its parameter, each with what it is.
    """

    def __init__(self, kind: str, context: Mapping[str, str]):
        super().__init__(kind, f"`{kind}`")
        self.context = context

    def add(self, name: str, paper: str, **traits: Any) -> Callable[[Builder], Builder]:
        """Decorate a class or function to register it as `name`; its knobs are then checked at every call.

        Raises:
            ChoiceError: the name is taken, or a parameter is neither a knob, nor of the context, nor has a default.
        """

        def register(build: Builder) -> Builder:
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
            self.put(name, Part(self.kind, name, checked, paper, traits), origin_of(build))
            return checked

        return register
