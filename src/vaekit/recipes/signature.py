"""The arguments of a recipe: the parameters of its function, and the knobs of all parts that users can choose."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vaekit.data.loading import load, option_types
from vaekit.errors import ChoiceError
from vaekit.options import Options
from vaekit.utils.arguments import Argument, Knob, annotated, knobs
from vaekit.utils.register import Chosen, Part, Register

from .composition import DataSpec

AUTO = "auto"


@dataclass(frozen=True)
class Pick:
    """Annotation of a recipe's parameter that takes a `Chosen` part: users give the part's name and set its knobs.

    Arguments:
        register: the parts to choose from.
        help: one line.
        default: the name of the default part, or "auto" if `auto` decides.
        auto: a function of the data and of the chosen names (some of which may still be "auto") and the other values
            that were given, by parameter, that returns a name.
        by_data: whether `auto` depends on the data, so that the knobs of every part may apply with "auto".
        knobs: whether users may set the knobs of the part.
        heading: the heading of the help group that starts with this parameter.
    """

    register: Register
    help: str
    default: str = AUTO
    auto: Callable[[DataSpec, Mapping[str, Any]], str] | None = None
    by_data: bool = False
    knobs: bool = True
    heading: str = ""

    @property
    def parts(self) -> list[Part]:
        """The parts to choose from, the default first."""
        return sorted(self.register.values(), key=lambda part: part.name != self.default)

    def argument(self, name: str) -> Argument:
        """The argument `name`, which takes the name of a part."""
        names = [*([AUTO] if self.auto else []), *(part.name for part in self.parts)]
        return Argument(name, "choice", self.default, names, self.help)


@dataclass(frozen=True)
class Declared:
    """The declaration of a knob by one part; `pick` is the name of the parameter that chooses the part."""

    pick: str
    part: Part
    argument: Argument


@dataclass(frozen=True)
class Signature:
    """The arguments of a recipe's function, as users write them.

    Attributes:
        function: the recipe's function.
        picks: its parameters that choose a part, by name.
        own: its other parameters, by name.
    """

    function: Callable[..., Any]
    picks: Mapping[str, Pick]
    own: Mapping[str, tuple[Argument, Knob]]

    @property
    def declared(self) -> dict[str, list[Declared]]:
        """The knobs of all parts that can be chosen, each with its declaration by every part that has it."""
        declared: dict[str, list[Declared]] = {}
        for name, pick in self.picks.items():
            for part in pick.parts if pick.knobs else ():
                for knob, argument in part.knobs.items():
                    declared.setdefault(knob, []).append(Declared(name, part, argument))
        return declared

    @property
    def groups(self) -> dict[str, list[Argument]]:
        """All arguments by the heading of their group; the heading of those before the first one is ""."""
        declared = self.declared
        merged = {name: self._merged(name, among) for name, among in declared.items()}
        under = {name: among[0].part.traits.get("heading", "") for name, among in declared.items()}
        below = {heading: _below(heading, declared) for heading in under.values() if heading}
        groups: dict[str, list[Argument]] = {}
        heading = ""
        for name in inspect.signature(self.function).parameters:
            if name in self.picks:
                heading = self.picks[name].heading or heading
                group = groups.setdefault(heading, [])
                group.append(self.picks[name].argument(name))
                group += [merged[k] for k, d in declared.items() if d[0].pick == name and not under[k]]
            elif name in self.own:
                argument, knob = self.own[name]
                heading = knob.heading or heading
                groups.setdefault(heading, []).append(argument)
        for name, heading in under.items():
            if heading:
                argument, names = merged[name], [part.name for part in below[heading]]
                if len(names) == len(declared[name]) == 1:  # the heading names the part
                    argument = dataclasses.replace(argument, help=declared[name][0].argument.help)
                kind = below[heading][0].kind + "s" * (len(names) > 1)
                shown = heading if names[0] in heading.split() else f"{heading} ({kind} {', '.join(names)})"
                groups.setdefault(shown, []).append(argument)
        return groups

    def _merged(self, name: str, among: list[Declared]) -> Argument:
        """One argument for the knob of several parts that share its name; the default is None unless all have the same.

        Raises:
            ChoiceError: they differ in type, or an argument of the recipe, of training or of reading has the same name.
        """
        first = among[0].argument
        for one in among:
            source = f"{one.part.kind} {one.part.name!r}" + (f" of {one.part.package}" if one.part.package else "")
            if (one.argument.type, one.argument.choices) != (first.type, first.choices):
                raise ChoiceError(
                    f"`{name}` is {one.argument.type} in {source} and {first.type} in {among[0].part.kind} "
                    f"{among[0].part.name!r}: give it the same type, or another name"
                )
            if name in self.picks or name in self.own or name in _reserved():
                raise ChoiceError(f"the knob `{name}` of {source} has the name of another argument: rename it")
        defaults = {repr(d.argument.default) for d in among}
        kind = first.type if first.type.endswith(" | None") else f"{first.type} | None"
        when: dict[str, list[str]] = {}
        for one in among:
            when.setdefault(one.pick, [AUTO] if self.picks[one.pick].by_data else []).append(one.part.name)
        return Argument(
            name,
            kind,
            first.default if len(defaults) == 1 else None,
            first.choices,
            _explained(among, agreed=len(defaults) == 1),
            when,
            first.range if all(d.argument.range == first.range for d in among) else "",
        )

    # --- what is built from the arguments ------------------------------------------------------------------------

    def parts(self, spec: DataSpec, values: Mapping[str, Any]) -> dict[str, Part]:
        """The parts that these values choose, by the parameter that each is chosen by."""
        names = {name: values.get(name) or pick.default for name, pick in self.picks.items()}
        given = {name: values[name] for name in self.own if values.get(name) is not None}
        for name, pick in self.picks.items():
            if names[name] == AUTO and pick.auto:
                names[name] = pick.auto(spec, {**given, **names})
        return {name: pick.register[names[name]] for name, pick in self.picks.items()}

    def defaults(self, spec: DataSpec, values: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults of the knobs of the chosen parts, by knob; None if two of these parts differ in it."""
        defaults: dict[str, list[Any]] = {}
        for name, part in self.parts(spec, values).items():
            for knob, argument in part.knobs.items() if self.picks[name].knobs else ():
                defaults.setdefault(knob, []).append(argument.default)
        return {knob: one[0] if all(other == one[0] for other in one) else None for knob, one in defaults.items()}

    def resolve(self, spec: DataSpec, values: Mapping[str, Any], strict: bool = True) -> dict[str, Any]:
        """The arguments to call the function with: the chosen parts with their knobs, and its other parameters.

        Arguments:
            values: values by name; None stands for the default.
            strict: whether a knob that no chosen part has is an error; else it is ignored.

        Raises:
            ChoiceError: a value is out of range, or a knob is set that no chosen part has.
        """
        parts = self.parts(spec, values)
        declared = self.declared
        knobs = {name: values[name] for name in declared if values.get(name) is not None}
        if strict:
            for name, value in knobs.items():
                self._refuse_unused(name, value, declared[name], parts)
        chosen = {
            name: Chosen(part, {k: v for k, v in knobs.items() if self.picks[name].knobs and k in part.knobs})
            for name, part in parts.items()
        }
        own = {name: values[name] for name in self.own if name in values}
        for name, value in own.items():
            self.own[name][1].check(name, value)
        return {**chosen, **own}

    def _refuse_unused(self, name: str, value: Any, among: list[Declared], parts: Mapping[str, Part]) -> None:
        """Raise ChoiceError if no chosen part has this knob and its value is not the default."""
        if any(parts[d.pick] is d.part for d in among) or value == self._merged(name, among).default:
            return
        owners: dict[str, list[str]] = {}
        for d in among:
            owners.setdefault(d.part.kind, []).append(d.part.name)
        where = ", or to ".join(f"{kind} {' or '.join(names)}" for kind, names in owners.items())
        other = parts[among[0].pick]
        takes = f" (it takes {', '.join(f'`{own}`' for own in other.knobs)})" if other.knobs else ""
        raise ChoiceError(
            f"`{name}` belongs to {where}, and {other.kind} {other.name!r} takes no `{name}`{takes}: "
            f"choose `{among[0].pick}={among[0].part.name!r}`, or omit `{name}`"
        )


def _below(heading: str, declared: Mapping[str, list[Declared]]) -> list[Part]:
    """The parts whose knobs are listed under a heading."""
    parts = {d.part.name: d.part for among in declared.values() for d in among}
    return [part for part in parts.values() if part.traits.get("heading") == heading]


def _explained(among: list[Declared], agreed: bool) -> str:
    """The help of a knob, with the names of the parts that have it, and their defaults unless these agree."""
    several = len({d.part.kind for d in among}) > 1
    texts = []
    for text in dict.fromkeys(d.argument.help for d in among):
        sharing = [d for d in among if d.argument.help == text]
        by_default: dict[tuple[str, str], list[str]] = {}
        for d in sharing:
            default = "" if agreed else f": {_plain(d.argument.default)}"
            by_default.setdefault((f"{d.part.kind} " if several else "", default), []).append(d.part.name)
        parts = "; ".join(f"{kind}{', '.join(names)}{default}" for (kind, default), names in by_default.items())
        texts.append(f"{text} ({parts})")
    return "; ".join(texts)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@functools.cache
def _reserved() -> set[str]:
    """The names of the options of training and of reading data, which a knob must not have."""
    return {f.name for f in dataclasses.fields(Options)} | set(inspect.signature(load).parameters) | set(option_types())


@functools.cache
def signature_of(function: Callable[..., Any]) -> Signature:
    """The arguments that a recipe's function declares in its signature.

    Raises:
        TypeError: a parameter after the first is neither a `Pick` nor a `Knob`.
    """
    picks = {p.name: one for p, _, beside in annotated(function) for one in beside if isinstance(one, Pick)}
    own = knobs(function)
    for name in list(inspect.signature(function).parameters)[1:]:
        if name not in picks and name not in own:
            raise TypeError(f"{function.__name__}: annotate the parameter {name!r} with a Knob or a Pick")
    return Signature(function, picks, own)
