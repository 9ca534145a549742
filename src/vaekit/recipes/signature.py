"""What a recipe takes: the parameters of its function, and the knobs of all parts that it lets users choose from."""

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
    """Annotates a parameter of a recipe's function that is a `Chosen` part: users write its name and set its knobs.

    Arguments:
        register: what to choose from.
        help: one line.
        default: the name taken unless users choose; "auto" where `auto` decides.
        auto: gives the name for the data and for the other names chosen, which may be "auto" themselves.
        by_data: whether what `auto` gives goes by the data, so that any knob may apply beside it.
        knobs: whether users may set the knobs of the part.
        heading: of the group of help that it opens.
    """

    register: Register
    help: str
    default: str = AUTO
    auto: Callable[[DataSpec, Mapping[str, str]], str] | None = None
    by_data: bool = False
    knobs: bool = True
    heading: str = ""

    @property
    def parts(self) -> list[Part]:
        """What to choose from, the default first."""
        return sorted(self.register.values(), key=lambda part: part.name != self.default)

    def argument(self, name: str) -> Argument:
        """The choice of a part by its name."""
        names = [*([AUTO] if self.auto else []), *(part.name for part in self.parts)]
        return Argument(name, "choice", self.default, names, self.help)


@dataclass(frozen=True)
class Declared:
    """A part that declares a knob, and how: `pick` is the parameter by which the part is chosen."""

    pick: str
    part: Part
    argument: Argument


@dataclass(frozen=True)
class Signature:
    """The arguments of a recipe's function as users give them."""

    function: Callable[..., Any]
    picks: Mapping[str, Pick]
    own: Mapping[str, tuple[Argument, Knob]]

    @property
    def declared(self) -> dict[str, list[Declared]]:
        """The knobs of all parts that may be chosen, each with the parts that have it."""
        found: dict[str, list[Declared]] = {}
        for name, pick in self.picks.items():
            for part in pick.parts if pick.knobs else ():
                for knob, argument in part.knobs.items():
                    found.setdefault(knob, []).append(Declared(name, part, argument))
        return found

    @property
    def groups(self) -> dict[str, list[Argument]]:
        """All arguments by the headings of their groups; what stands before the first heading has ""."""
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
                if len(names) == len(declared[name]) == 1:  # the heading says whose it is
                    argument = dataclasses.replace(argument, help=declared[name][0].argument.help)
                kind = below[heading][0].kind + "s" * (len(names) > 1)
                shown = heading if names[0] in heading.split() else f"{heading} ({kind} {', '.join(names)})"
                groups.setdefault(shown, []).append(argument)
        return groups

    def _merged(self, name: str, among: list[Declared]) -> Argument:
        """One argument of what several parts call by the same name: its default where they agree on it, else None.

        Raises:
            ChoiceError: they differ in type, or the name is taken by an argument of the recipe, of training or of data.
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
        for name, pick in self.picks.items():
            if names[name] == AUTO and pick.auto:
                names[name] = pick.auto(spec, names)
        return {name: pick.register[names[name]] for name, pick in self.picks.items()}

    def defaults(self, spec: DataSpec, values: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults of the knobs of the parts that these values choose; None where two of these parts differ."""
        found: dict[str, list[Any]] = {}
        for name, part in self.parts(spec, values).items():
            for knob, argument in part.knobs.items() if self.picks[name].knobs else ():
                found.setdefault(knob, []).append(argument.default)
        return {knob: one[0] if all(other == one[0] for other in one) else None for knob, one in found.items()}

    def resolve(self, spec: DataSpec, values: Mapping[str, Any], strict: bool = True) -> dict[str, Any]:
        """The arguments to call the function with: parts chosen, with their knobs, and its own arguments.

        Arguments:
            values: by name; None stands for the default.
            strict: refuse knobs that no chosen part takes, rather than leave them out.

        Raises:
            ChoiceError: a value is out of range, or a knob is set that no chosen part takes.
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
        """Raise ChoiceError for a knob that is set, not to its default, and that no chosen part takes."""
        if any(parts[d.pick] is d.part for d in among) or value == self._merged(name, among).default:
            return
        owners: dict[str, list[str]] = {}
        for d in among:
            owners.setdefault(d.part.kind, []).append(d.part.name)
        where = ", or to ".join(f"{kind} {' or '.join(names)}" for kind, names in owners.items())
        other = parts[among[0].pick]
        takes = ", ".join(f"`{own}`" for own in other.knobs) or "none of these options"
        raise ChoiceError(
            f"`{name}` belongs to {where}: {other.kind} {other.name!r} takes no `{name}`, it takes {takes}"
        )


def _below(heading: str, declared: Mapping[str, list[Declared]]) -> list[Part]:
    """The parts whose knobs stand below a heading."""
    parts = {d.part.name: d.part for among in declared.values() for d in among}
    return [part for part in parts.values() if part.traits.get("heading") == heading]


def _explained(among: list[Declared], agreed: bool) -> str:
    """The help of a knob, with the parts that have it and their defaults unless all agree."""
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
    """Names of arguments of training and of reading data."""
    return {f.name for f in dataclasses.fields(Options)} | set(inspect.signature(load).parameters) | set(option_types())


@functools.cache
def signature_of(function: Callable[..., Any]) -> Signature:
    """What is declared in the signature of a recipe's function.

    Raises:
        TypeError: a parameter after the first is neither a `Pick` nor a `Knob`.
    """
    picks = {p.name: one for p, _, beside in annotated(function) for one in beside if isinstance(one, Pick)}
    own = knobs(function)
    for name in list(inspect.signature(function).parameters)[1:]:
        if name not in picks and name not in own:
            raise TypeError(f"{function.__name__}: annotate the parameter {name!r} with a Knob or a Pick")
    return Signature(function, picks, own)
