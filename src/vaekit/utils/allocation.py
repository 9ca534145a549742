"""A limit on the tensors that code may allocate, so that a small file cannot describe a huge model."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from vaekit.errors import RunError

BYTES, CALLS = 2**26, 20_000
"""Bytes and calls that are always allowed."""


class Bounded(TorchDispatchMode):
    """Stops code in this thread before it allocates too many tensors, or tensors that are too large.

    Arguments:
        held: size in bytes of the file with the weights; the limit is four times this size plus `BYTES`.
        why: the text of the error.

    Raises:
        RunError: with the text `why`, inside the context, when the code exceeds the limit.
    """

    def __init__(self, held: int, why: str):
        super().__init__()
        self.bytes, self.calls, self.why = 4 * held + BYTES, CALLS, why

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here; True would import torch's compiler, which is as slow as torch itself

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
