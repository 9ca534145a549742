"""Calls in the form of earlier versions: arguments by position that are now keyword-only, and renamed arguments."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")
BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def formerly(*positional: str, **renamed: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Accept the earlier form of calls of the decorated function, with a DeprecationWarning that says what to write.

    Arguments:
        positional: arguments that are now keyword-only, in their former order after those that are still positional.
        renamed: the current name of each argument by its former name.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        known = [p.name for p in inspect.signature(function).parameters.values() if p.kind in BY_POSITION]

        @functools.wraps(function)
        def accepting(*args: Any, **kwargs: Any) -> T:
            extra = dict(zip(positional, args[len(known) :], strict=False))
            others = {renamed[old]: kwargs[old] for old in renamed if old in kwargs}
            if (not extra and not others) or len(args) > len(known) + len(positional):
                return function(*args, **kwargs)
            written = ", ".join(f"{name}={_shown(value)}" for name, value in {**extra, **others}.items())
            where = cast(Any, function).__qualname__
            warnings.warn(f"{where}: give these arguments by name: {written}", DeprecationWarning, stacklevel=2)
            kept = {name: value for name, value in kwargs.items() if name not in renamed}
            return cast(Callable[..., T], function)(*args[: len(known)], **extra, **others, **kept)

        return cast(Callable[P, T], accepting)

    return decorate


def _shown(value: Any) -> str:
    """A number, text or None as written in Python; `...` for other values."""
    return repr(value) if value is None or isinstance(value, str | int | float) else "..."
