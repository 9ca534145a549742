"""How texts for people name arguments: as Python does, or as the command line does while that runs.

Errors and notes of the library mark an argument as `beta`, or with a value as `likelihood='gaussian'`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

_worded: ContextVar[Callable[[str], str] | None] = ContextVar("worded", default=None)


def worded(text: str) -> str:
    """The text for whoever reads it here."""
    change = _worded.get()
    return text if change is None else change(text)


@contextlib.contextmanager
def wording(change: Callable[[str], str]) -> Iterator[None]:
    """Meanwhile `change` is made to texts before they are shown."""
    before = _worded.set(change)
    try:
        yield
    finally:
        _worded.reset(before)
