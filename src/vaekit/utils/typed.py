"""Checks JSON from a file against type annotations, so that the code that uses it can rely on its types.

An annotation is a plain type, a union, a Literal, a list, tuple or dict of these, a TypedDict or a dataclass.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

LARGEST = 2**63
"""Upper limit of whole numbers: torch and NumPy cannot hold larger ones."""


def mismatch(value: Any, annotation: Any, where: str = "it") -> str | None:
    """The first mismatch, such as "training.batch is 'many', expected int"; None if the value fits.

    A float must be finite and may be written as a whole number; a tuple may be written as a list. Unknown keys are
    accepted in a TypedDict, because a later version may add some, and refused in a dataclass.
    """
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        mismatches: list[str] = []
        for option in get_args(annotation):
            if (wrong := mismatch(value, option, where)) is None:
                return None
            mismatches.append(wrong)
        inside = [wrong for wrong in mismatches if not wrong.startswith(f"{where} is ")]
        return inside[0] if inside else _wrong(value, annotation, where)
    if is_typeddict(annotation):
        return _record(value, *_fields(annotation), where)
    if dataclasses.is_dataclass(annotation):
        hints, required = _fields(annotation)  # type: ignore[arg-type]
        if isinstance(value, Mapping) and (unknown := sorted(set(value) - set(hints))):
            return f"{_below(where, unknown[0])} is unknown, expected one of {', '.join(hints)}"
        return _record(value, hints, required, where)
    if origin in (list, tuple, Sequence):
        return _sequence(value, annotation, where)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            return _wrong(value, annotation, where)
        below = (mismatch(v, get_args(annotation)[1], _below(where, k)) for k, v in value.items())
        return next((wrong for wrong in below if wrong is not None), None)
    if origin is Literal:
        fits = any(value == option and type(value) is type(option) for option in get_args(annotation))
    else:
        check = _PLAIN.get(annotation)
        fits = check is None or check(value)
    return None if fits else _wrong(value, annotation, where)


@functools.cache
def _fields(annotation: Any) -> tuple[dict[str, Any], set[str]]:
    """The annotations of a TypedDict or a dataclass by name, and the names that are required."""
    if dataclasses.is_dataclass(annotation):
        return get_type_hints(annotation), {f.name for f in dataclasses.fields(annotation) if _required(f)}
    hints = get_type_hints(annotation, include_extras=True)
    optional = {name for name, hint in hints.items() if get_origin(hint) is NotRequired}
    return get_type_hints(annotation), set(hints) - optional if annotation.__total__ else set()


def _record(value: Any, hints: Mapping[str, Any], required: set[str], where: str) -> str | None:
    if not isinstance(value, Mapping):
        return f"{where} is {_shown(value)}, expected an object"
    if lacking := sorted(required - set(value)):
        return f"{_below(where, lacking[0])} is missing"
    results = (mismatch(value[name], hint, _below(where, name)) for name, hint in hints.items() if name in value)
    return next((text for text in results if text is not None), None)


def _sequence(value: Any, annotation: Any, where: str) -> str | None:
    if not isinstance(value, list | tuple):
        return _wrong(value, annotation, where)
    options = get_args(annotation)
    if get_origin(annotation) is tuple and options[-1] is not Ellipsis and len(options) != len(value):
        return _wrong(value, annotation, where)
    each = options if len(options) == len(value) and options[-1] is not Ellipsis else [options[0]] * len(value)
    results = (mismatch(v, option, f"{where}[{i}]") for i, (v, option) in enumerate(zip(value, each, strict=True)))
    return next((text for text in results if text is not None), None)


def _is_int(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and -LARGEST <= int(value) < LARGEST


def _is_float(value: Any) -> bool:
    if isinstance(value, numbers.Integral):
        return _is_int(value)
    return isinstance(value, numbers.Real) and math.isfinite(value)


_PLAIN: dict[Any, Callable[[Any], bool]] = {
    None: lambda value: value is None,
    type(None): lambda value: value is None,
    bool: lambda value: isinstance(value, bool),
    int: _is_int,
    float: _is_float,
    str: lambda value: isinstance(value, str),
}


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _below(where: str, name: Any) -> str:
    return str(name) if where == "it" else f"{where}.{name}"


def _wrong(value: Any, annotation: Any, where: str) -> str:
    return f"{where} is {_shown(value)}, expected {_named(annotation)}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple) and len(value) > 8:
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) >= LARGEST:
        return "a number too large"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _named(annotation: Any) -> str:
    """An annotation in words."""
    origin, options = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_named(option) for option in options)
    if origin is Literal:
        return f"one of {', '.join(map(str, options))}"
    if origin in (list, Sequence) or (origin is tuple and options[-1] is Ellipsis):
        return f"a list of {_named(options[0])}"
    if origin is tuple:
        return f"a list [{', '.join(map(_named, options))}]"
    if origin in (dict, Mapping):
        return "an object"
    names = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
