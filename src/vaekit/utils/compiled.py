"""Compiling a function whose shapes never change into one graph."""

from __future__ import annotations

import functools
import logging
import shutil
import sys
import types
from collections.abc import Callable
from typing import Any

import torch

from vaekit.utils.kernels import built_together
from vaekit.utils.launching import bound
from vaekit.utils.lowering import graph_of, separate_biases
from vaekit.utils.recording import NotRecordable, record, tensors_of

_log = logging.getLogger(__name__)

COMPILERS = ("g++", "c++", "clang++")
"""C++ compilers that torch can use on a CPU."""


class WholeGraph:
    """A bound method as one compiled graph: see `whole_graph`.

    Attributes:
        draws: whether a call may draw from torch's generators, which must then be seeded.
    """

    def __init__(self, method: Callable[..., Any]):
        self.method, self.draws = method, True
        self._graph: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self._graph is None:
            recorded = _recorded(self.method, arguments)
            self._graph, self.draws = recorded or _traced(self.method), recorded is None
        return self._graph(*arguments)


def whole_graph(method: Callable[..., Any]) -> WholeGraph:
    """The bound method as one compiled graph, for arguments whose shapes, types and aliasing never change.

    The graph has no gradients. On a CPU, the operations that the method calls are recorded and compiled, or found in
    the cache folder. `torch.compile`, which takes longer, compiles methods that cannot be recorded, such as
    those that draw from torch's generators, and methods on another device.
    """
    return WholeGraph(method)


def _recorded(method: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[..., Any] | None:
    """The compiled method, or None if it cannot be compiled in this way."""
    if any(t.device.type != "cpu" for t in tensors_of(arguments)) or sys.platform == "win32":
        return None
    try:
        program = record(method, arguments)
        graph = graph_of(program, [*tensors_of(arguments), *program.found])
    except NotRecordable as reason:
        _log.info("traced by torch.compile: %s", reason)
        return None
    except Exception:  # this version of torch names its parts differently, or the compiler fails
        _log.info("traced by torch.compile", exc_info=True)
        return None
    launch, result = bound(graph, program.found), program.result

    def run(*arguments: Any) -> Any:
        with torch.no_grad():
            return result(launch(tensors_of(arguments)))

    return run


@functools.cache
def _bias_apart() -> Any:
    """`separate_biases` for `torch.compile`."""
    from torch._inductor.cpu_vec_isa import pick_vec_isa
    from torch._inductor.custom_graph_pass import CustomGraphPass  # takes a second to import

    class BiasApart(CustomGraphPass):
        def __call__(self, graph: torch.fx.Graph) -> None:
            separate_biases(graph)

        def uuid(self) -> Any:
            # part of the key of torch's graph cache, which lacks the processor's vector instructions: code generated
            # for one processor and compiled for another reads and writes beyond the ends of its arrays
            return f"vaekit-bias-apart-1-{pick_vec_isa() if has_compiler() else None}"

    return BiasApart()


def _traced(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method compiled by `torch.compile`.

    Guards are dropped, because they would take a tenth of a training step on a CPU. Graphs are cached by code object,
    so the method gets its own code object; otherwise the graph of another object could be called instead.
    """
    function = method.__func__  # type: ignore[attr-defined]
    copy = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    options: dict[str, Any] = {
        "guard_filter_fn": lambda entries: [False for _ in entries],
        "post_grad_custom_post_pass": _bias_apart(),
    }
    bound = types.MethodType(copy, method.__self__)  # type: ignore[attr-defined]
    graph = torch.compile(bound, fullgraph=True, dynamic=False, options=options)

    compiled = False

    def call(*arguments: Any) -> Any:
        nonlocal compiled
        if compiled:
            return graph(*arguments)
        # the setting allows torch.autograd.grad in a graph
        with torch._dynamo.config.patch(trace_autograd_ops=True), built_together():
            result = graph(*arguments)
        compiled = True
        return result

    return call


def is_compile_error(error: Exception) -> bool:
    """Whether a call failed because its graph could not be compiled, rather than while the graph ran."""
    dynamo = sys.modules.get("torch._dynamo")  # imported if anything was compiled
    failed = dynamo is not None and isinstance(error, dynamo.exc.TorchDynamoException)
    return failed or "Inductor" in type(error).__name__


def has_compiler() -> bool:
    """Whether torch can compile for the CPU here."""
    return any(shutil.which(c) for c in COMPILERS)
