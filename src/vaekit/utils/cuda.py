"""Training steps on a CUDA device: copies that do not wait, and kernels that are launched together as one graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

WARM_UP = 3
"""Calls before the recording, in which libraries choose their kernels and take their memory."""


def sent(values: Tensor, device: torch.device) -> Tensor:
    """`values` of the host on the device; the host does not wait for the earlier work of a CUDA device."""
    return values.to(device, non_blocking=device.type == "cuda")


class CudaGraph:
    """Records work for a CUDA device (see `torch.cuda.CUDAGraph`)."""

    def __init__(self, device: torch.device):
        self.device = device
        with torch.cuda.device(device):
            self.graph, self.beside = torch.cuda.CUDAGraph(), torch.cuda.Stream()

    def warm(self, run: Callable[[], Tensor]) -> Tensor:
        """Run on a stream of its own, as CUDA requires before a recording."""
        current = torch.cuda.current_stream(self.device)
        self.beside.wait_stream(current)
        with torch.cuda.stream(self.beside):
            result = run()
        current.wait_stream(self.beside)
        return result

    def record(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """A function that repeats the work of `run` on the same memory; calling `run` here has no effect on the device.

        Raises:
            RuntimeError: `run` cannot be recorded, for example because it reads a value from the device.
        """
        with torch.cuda.device(self.device):
            current = torch.cuda.current_stream()
            try:
                with torch.cuda.graph(self.graph):
                    result = run()
            finally:
                torch.cuda.set_stream(current)  # torch leaves the stream of a recording that failed in place

        def replay() -> Tensor:
            self.graph.replay()
            return result.clone()  # the next replay overwrites the result

        return replay


class Replayed:
    """A function of tensors that is recorded after a few calls and then replayed in one launch.

    Launching the few hundred kernels of a small step one by one takes the host longer than the device needs to run
    them. The first calls are not recorded, and a function that cannot be recorded is always called as it is.

    Arguments:
        function: gets tensors whose shapes and types never change, in containers or alone, and returns a tensor. What
            it changes in place, such as weights, must keep its memory.
        graph: the recorder.
    """

    def __init__(self, function: Callable[..., Tensor], graph: CudaGraph):
        self.function, self.graph = function, graph
        self.left = WARM_UP
        self.static: list[Tensor] = []  # the arguments of the recording
        self.replay: Callable[[], Tensor] | None = None

    def __call__(self, *arguments: Any) -> Tensor:
        if self.left > 0:
            result = self.graph.warm(lambda: self.function(*arguments))
            self.left -= 1
            return result
        tensors = [t for t in pytree.tree_leaves(arguments) if isinstance(t, Tensor)]
        if self.left == 0:
            self.left = -1
            self._record(arguments)
        if self.replay is None:
            return self.function(*arguments)
        for mine, given in zip(self.static, tensors, strict=True):
            mine.copy_(given, non_blocking=True)
        return self.replay()

    def _record(self, arguments: tuple[Any, ...]) -> None:
        own = pytree.tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, arguments)
        try:
            self.replay = self.graph.record(lambda: self.function(*own))
        except RuntimeError as error:
            reason = str(error.__context__ or error).strip().split("\n", 1)[0]
            message = f"the training step cannot be recorded as a CUDA graph and takes longer: {reason}"
            warnings.warn(message, stacklevel=3)
            return
        self.static = [t for t in pytree.tree_leaves(own) if isinstance(t, Tensor)]
