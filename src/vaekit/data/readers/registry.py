"""The register of readers: one function per format, whose annotated parameters are the options of that format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vaekit.data.source import Source
from vaekit.errors import ChoiceError, DataError
from vaekit.utils.arguments import Argument, annotated, knobs
from vaekit.utils.plugins import package_of
from vaekit.utils.register import Named, origin_of
from vaekit.utils.suggest import unknown

Read = TypeVar("Read", bound=Callable[..., Source])

CONTEXT = {
    "label": "column with the labels, or None",
    "group": "column with groups, whose rows stay in one split, or None",
    "kind": "kind of the data, if the user gives it",
    "schema": "columns that a table must have; empty to infer them",
    "missing": "whether values may be missing",
    "to_train": "whether a model will be trained on the data; False for use with a trained model",
    "cache": "folder for unpacked files, or None for the default",
    "progress": "called as (task, done, total) during long tasks, or None",
}
"""Parameters that a reader may have besides the path and its own options, by name."""


@dataclass(frozen=True)
class Reader:
    """A format that can be read.

    Attributes:
        name: name of the format.
        what: the kind of source, with an article: "a .npz file".
        read: the function that reads a source.
        reads: whether a path has this format, by its name or by the content of a folder.
        files: names of its files, for messages; empty for a format without files.
        excludes: general options that do not apply to this format, each with an alternative.
    """

    name: str
    what: str
    read: Callable[..., Source]
    reads: Callable[[Path], bool]
    files: str = ""
    excludes: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def options(self) -> dict[str, Argument]:
        """The options of this format, by name."""
        return {name: argument for name, (argument, _) in knobs(self.read).items()}

    @cached_property
    def hints(self) -> dict[str, Any]:
        """The types of all parameters of `read`, by name."""
        return {parameter.name: hint for parameter, hint, _ in annotated(self.read)}

    @property
    def package(self) -> str | None:
        """The package whose plug-in registered this reader; None for readers of vaekit and of scripts."""
        return package_of(self.read.__module__)

    def __call__(self, source: Any, options: Mapping[str, Any], asked: str = "", **context: Any) -> Source:
        """Read `source` with these options; an option that is None keeps its default.

        Arguments:
            source: path or object to read.
            options: options of this format.
            asked: the source as the user wrote it, for messages.
            context: values for the names in `CONTEXT`, and further general options; `read` gets those that it accepts.

        Raises:
            ChoiceError: no format has an option with this name.
            DataError: an option does not apply to this format, or the source cannot be read.
        """
        self.check(options, context, asked)
        accepted = {name: value for name, value in context.items() if name in CONTEXT and name in self.hints}
        chosen = {name: value for name, value in options.items() if value is not None and name in self.options}
        for name, (_, knob) in knobs(self.read).items():
            knob.check(name, chosen.get(name))
        return self.read(source, **accepted, **chosen)

    def check(self, options: Mapping[str, Any], general: Mapping[str, Any], asked: str = "") -> None:
        """Raise the errors of `__call__` for options that do not exist or do not apply to this format."""
        where = f"{self.what} ({asked})" if asked else self.what
        for name, value in options.items():
            others = [one for one in readers() if name in one.options]
            if not others:
                known = {option for one in readers() for option in one.options}
                raise ChoiceError(unknown("option of data", name, sorted({*known, *general})))
            if name not in self.options and not is_default(value, others[0].options[name].default):
                *some, last = (one.what for one in others)
                formats = f"{', '.join(some)} or {last}" if some else last
                raise DataError(f"`{name}` applies to {formats}, not to {where}; omit it")
        for name, instead in self.excludes.items():
            if general.get(name) is not None:
                raise DataError(f"`{name}` does not apply to {where}: {instead}")


def reader(
    name: str,
    what: str,
    *,
    reads: Callable[[Path], bool] = lambda path: False,
    files: str = "",
    excludes: Mapping[str, str] | None = None,
) -> Callable[[Read], Read]:
    """Register a function that reads a format.

    Its first parameter is the path. Its options are keyword parameters with a default, annotated as
    `Annotated[type, Knob(help)]`; it may also have the parameters in `CONTEXT`. It returns a `Source`.

    Arguments:
        name, what, files, excludes: as in `Reader`.
        reads: whether a path has this format. Readers of other packages are tried before those of vaekit.

    Raises:
        ChoiceError: the name is taken; an option has no default, or another type than in another format; or a
            parameter is neither an option nor in `CONTEXT`.
    """

    def register(read: Read) -> Read:
        READERS.check_free(name, origin_of(read))
        registered = Reader(name, what, read, reads, files, excludes or {})
        _, *parameters = annotated(read)
        for parameter, _, _ in parameters:
            option = registered.options.get(parameter.name)
            if option is None and parameter.name not in CONTEXT and parameter.default is parameter.empty:
                raise ChoiceError(
                    f"reader {name!r}: annotate the parameter `{parameter.name}` with a Knob and give it a default, or "
                    f"name it as one of {', '.join(CONTEXT)}"
                )
            if option is not None and parameter.default is parameter.empty:
                raise ChoiceError(f"reader {name!r}: give the option `{parameter.name}` a default")
            for other in READERS.entries.values():
                same = other.options.get(parameter.name)
                if option is not None and same is not None and same.type != option.type:
                    raise ChoiceError(
                        f"reader {name!r}: the option `{parameter.name}` is of type {option.type}, but of type "
                        f"{same.type} in the reader {other.name!r}: choose another name"
                    )
        READERS.put(name, registered, origin_of(read))
        return read

    return register


READERS = Named[Reader]("reader")
"""Readers by name, in the order of registration."""


def readers() -> list[Reader]:
    """All readers; those of installed plug-ins come first."""
    return sorted(READERS.values(), key=lambda one: one.package is None)


def reader_of(path: Path) -> Reader | None:
    """The reader for the file or folder at a path, or None if its format is unknown."""
    return next((one for one in readers() if one.reads(path)), None)


def with_suffix(*suffixes: str) -> Callable[[Path], bool]:
    """A function for `reads`: whether the name of a file ends in one of these suffixes, in upper or lower case."""
    return lambda path: path.suffix.lower() in suffixes and not path.is_dir()


def is_default(value: Any, default: Any) -> bool:
    """Whether the value of an option is None, empty or its default."""
    if isinstance(value, Sized) and not len(value):
        return True
    return value is None or (np.isscalar(value) and value == default)


def formats() -> str:
    """The names of the files of all formats, for messages."""
    return ", ".join(one.files for one in readers() if one.files)
