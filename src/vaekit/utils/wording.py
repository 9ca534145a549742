"""The names of arguments in messages: as in Python, or as flags while the command line runs.

Errors and notes of the library write an argument as `beta`, or with a value as `likelihood='gaussian'`, and what to
call as `vk.fit('wine.csv')`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

_worded: ContextVar[Callable[[str], str] | None] = ContextVar("worded", default=None)


def worded(text: str) -> str:
    """`text` with its arguments named for the reader: as in Python, or by the active `wording`."""
    change = _worded.get()
    return text if change is None else change(text)


def in_python(text: str) -> str:
    """`text`, which tells what to write in Python alone; empty inside a `wording`, as while the command line runs."""
    return text if _worded.get() is None else ""


@contextlib.contextmanager
def wording(change: Callable[[str], str]) -> Iterator[None]:
    """Apply `change` to every text that is shown inside this context."""
    before = _worded.set(change)
    try:
        yield
    finally:
        _worded.reset(before)
