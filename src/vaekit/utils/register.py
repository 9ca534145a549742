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
        kind: the kind of part: "prior", "objective", ...
        name: its name on the command line.
        build: the class or function.
        paper: the paper that it comes from.
        traits: further properties that its register records.
    """

    kind: str
    name: str
    build: Callable[..., Any]
    paper: str
    traits: Mapping[str, Any]

    @cached_property
    def knobs(self) -> dict[str, Argument]:
        """The arguments that users may set, in the order of its signature."""
        return {name: argument for name, (argument, _) in knobs(self.build).items()}

    @property
    def package(self) -> str | None:
        """The package whose plug-in registered the part; None for parts of vaekit and of scripts."""
        return package_of(self.build.__module__)


@dataclass(frozen=True)
class Chosen:
    """A chosen part and the values of its knobs; knobs without a value keep their defaults."""

    part: Part
    knobs: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The part's name."""
        return self.part.name

    @property
    def traits(self) -> Mapping[str, Any]:
        """The part's traits."""
        return self.part.traits

    def make(self, **context: Any) -> Any:
        """Build the part; parameters that are not knobs are taken from `context` by name."""
        wanted = inspect.signature(self.part.build).parameters
        return self.part.build(**{n: v for n, v in context.items() if n in wanted}, **self.knobs)


class Named(Mapping[str, Entry]):
    """Entries by name, in the order of registration, including those of installed plug-ins.

    Arguments:
        kind: "recipe", "study", ...
        called: the name of the kind in the error for an unknown name; by default `kind`.
    """

    def __init__(self, kind: str, called: str = ""):
        self.kind, self.called = kind, called or kind
        self.entries: dict[str, Entry] = {}
        self._origins: dict[str, str] = {}

    def put(self, name: str, entry: Entry, origin: str) -> Entry:
        """Add an entry and return it. It replaces an entry of the same origin, as when a notebook cell is run again.

        Arguments:
            name: name of the entry.
            entry: the entry.
            origin: where the entry is defined: module, and name in it.

        Raises:
            ChoiceError: the name is taken by an entry of another origin.
        """
        self.check_free(name, origin)
        self.entries[name], self._origins[name] = entry, origin
        return entry

    def check_free(self, name: str, origin: str) -> None:
        """Raises ChoiceError if the name is taken by an entry of another origin."""
        if name in self.entries and self._origins[name] != origin:
            raise ChoiceError(f"there is a {self.kind} {name!r} already, {self._origins[name]}: choose another name")

    def __getitem__(self, name: str) -> Entry:
        load_plugins()
        if name not in self.entries:
            raise ChoiceError(unknown(self.called, name, sorted(self.entries)))
        return self.entries[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The entry of this name, or `default` if there is none."""
        load_plugins()
        return self.entries.get(name, default)

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
        context: the parameters that a part may have besides its knobs, by name, each with a description.
    """

    def __init__(self, kind: str, context: Mapping[str, str]):
        super().__init__(kind, f"`{kind}`")
        self.context = context

    def add(self, name: str, paper: str, **traits: Any) -> Callable[[Builder], Builder]:
        """Decorate a class or function to register it as `name`; its knobs are then checked at every call.

        Raises:
            ChoiceError: the name is taken, or a parameter is neither a knob nor in the context and has no default.
        """

        def register(build: Builder) -> Builder:
            self.check_free(name, origin_of(build))
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
