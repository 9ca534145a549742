"""A bound on the tensors that code may make: what a file describes must not be larger than what it holds."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from vaekit.errors import RunError

BYTES, CALLS = 2**26, 20_000
"""What is always allowed."""


class Bounded(TorchDispatchMode):
    """Stops code in this thread before it makes too many tensors, or tensors too large.

    Arguments:
        held: bytes that the file of the code's weights holds; four times as much may be made, and `BYTES` more.
        why: the error's text.
    """

    def __init__(self, held: int, why: str):
        super().__init__()
        self.bytes, self.calls, self.why = 4 * held + BYTES, CALLS, why

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here; else torch imports its compiler, which takes as long as torch itself

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if any(argument.name == "device" for argument in func._schema.arguments):  # it makes a tensor
            planned = func(
                *args, **{**kwargs, "device": "meta"} | ({"generator": None} if "generator" in kwargs else {})
            )
            self.bytes -= planned.numel() * planned.element_size()
            self.calls -= 1
            if self.bytes < 0 or self.calls < 0:
                raise RunError(self.why)
        return func(*args, **kwargs)
