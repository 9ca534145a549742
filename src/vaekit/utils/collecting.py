"""Python's garbage collector while many objects that stay are created."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected(lasting: bool = False) -> Iterator[None]:
    """Python's garbage collector is off inside this context.

    Importing torch creates a million objects. The collector would visit them again and again, although none is garbage,
    which takes a quarter of the time of the import.

    Arguments:
        lasting: all objects that exist at the end stay until the program ends: the collector never visits them. For
            programs only, because garbage of the code that calls a library would stay, too.
    """
    collects = gc.isenabled()
    if lasting:
        gc.collect()  # garbage would stay, too
    gc.disable()
    try:
        yield
    finally:
        if lasting:
            gc.freeze()
        if collects:
            gc.enable()
