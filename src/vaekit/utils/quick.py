"""Making torch's code generator write the same code with less work."""

from __future__ import annotations

import contextlib
import functools
import itertools
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch

from vaekit.utils.collecting import uncollected

COMPARED = ("2.13",)
"""The versions of torch with which the code was compared. Others generate it without these parts."""
ALONE = threading.RLock()
"""Held while torch's parts are replaced: two threads would otherwise put back each other's replacements."""


@contextlib.contextmanager
def quick_code() -> Iterator[None]:
    """Inside this context, torch's code generator writes the same code, or equivalent code, with less work.

    Python's garbage collector is off, because it would visit all of torch's objects again and again. What each part
    leaves out is written with it. With a version of torch that is not `COMPARED`, all parts stay as they are.
    """
    compared = ".".join(torch.__version__.split(".")[:2]) in COMPARED
    with ALONE, uncollected(), contextlib.ExitStack() as patches:
        for part in _PARTS if compared else ():
            with contextlib.suppress(ImportError, AttributeError):
                for owner, name, replacement in part():
                    patches.enter_context(mock.patch.object(owner, name, replacement))
        yield


def _types_and_ranges() -> Iterator[tuple[Any, str, Any]]:
    """For each operation, torch builds a table of the types of all operations and intersects equal ranges of values."""
    from torch._inductor.codegen import common
    from torch.utils._sympy.value_ranges import ValueRanges

    tighten = ValueRanges.tighten
    yield common, "DtypePropagationOpsHandler", functools.cache(common.DtypePropagationOpsHandler)
    yield ValueRanges, "tighten", lambda a, b: a if a == b else tighten(a, b)


def _known_ranges() -> Iterator[tuple[Any, str, Any]]:
    """For each operation, torch imports three modules again before it looks up the range of its values."""
    from torch._inductor.codegen.common import CSEProxy
    from torch._inductor.codegen.cpp import CppKernel
    from torch._inductor.loop_body import InterpreterShim
    from torch._inductor.virtualized import V
    from torch.utils._sympy.value_ranges import ValueRanges

    search = CSEProxy._bound_variable

    def known(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        interpreter, ranges = V.interpreter, self.kernel.node_to_bounds
        if isinstance(interpreter, InterpreterShim) and ranges is not None and isinstance(V.kernel, CppKernel):
            node = interpreter.current_node
            if node is not None and node.target == name:
                return ranges[node] if node in ranges else ValueRanges.unknown()
        return search(self, name, *args, **kwargs)

    yield CSEProxy, "_bound_variable", known


def _interpretation() -> Iterator[tuple[Any, str, Any]]:
    """For each node of a loop's body, torch prepares a message for its log and enters a context that does nothing."""
    from torch._inductor.loop_body import InterpreterShim
    from torch.fx import traceback
    from torch.fx.node import map_arg

    step = InterpreterShim.run_node

    def run_node(self: Any, node: Any) -> Any:
        if traceback.should_preserve_node_meta:
            return step(self, node)
        self.current_node, found = node, self.env.__getitem__
        return getattr(self, node.op)(node.target, map_arg(node.args, found), map_arg(node.kwargs, found))

    yield InterpreterShim, "run_node", run_node


def _settings() -> Iterator[tuple[Any, str, Any]]:
    """For each reading of a setting, torch asks whether it is deprecated or has another name."""
    from torch.utils._config_module import _IMMUTABLE_CONFIG_TYPES, _UNSET_SENTINEL, ConfigModule

    search = ConfigModule.__getattr__

    def read(self: Any, name: str) -> Any:
        entry = self._config.get(name)
        if entry is None or entry.hide or entry.deprecated or entry.alias is not None or entry.justknob is not None:
            return search(self, name)
        for value in (entry.env_value_force, entry.user_override.get(), entry.env_value_default):
            if value is not _UNSET_SENTINEL:
                return value
        return entry.default if isinstance(entry.default, _IMMUTABLE_CONFIG_TYPES) else search(self, name)

    yield ConfigModule, "__getattr__", read


def _leaves() -> Iterator[tuple[Any, str, Any]]:
    """For each operation, torch takes its result apart and puts it together again, although it is one variable."""
    from torch._inductor.codegen.cpp_utils import CppCSEVariable
    from torch.utils import _pytree

    search, leaves = _pytree.tree_map, (str, CppCSEVariable)

    def tree_map(function: Any, tree: Any, *rests: Any, is_leaf: Any = None) -> Any:
        if type(tree) in leaves and not rests and is_leaf is None:
            return function(tree)
        return search(function, tree, *rests, is_leaf=is_leaf)

    yield _pytree, "tree_map", tree_map


def _tilings() -> Iterator[tuple[Any, str, Any]]:
    """Torch writes code for the remainder of loops that have none."""
    from torch._inductor.codegen.cpp import TilingSelect

    select = TilingSelect.select_tiling

    def selected(self: Any, functions: Any, sizes: Any) -> Any:
        factors, indices, stats = select(self, functions, sizes)
        if len(indices) == 1:
            whole = [*itertools.chain(*max(sizes, key=lambda pair: len(pair[1])))]
            if whole[indices[0]] % factors[0] == 0:
                stats.mask_op_count += 1 + sum(stats.op_counter.values())
        return factors, indices, stats

    yield TilingSelect, "select_tiling", selected


def _strides() -> Iterator[tuple[Any, str, Any]]:
    """Torch simplifies each index, in general, to find by how much it grows with a variable."""
    import sympy
    from torch._inductor.codegen import cpp

    simplified = cpp.stride_at_vec_range

    def stride(index: Any, var: Any, vec_length: int | None = None) -> Any:
        if isinstance(index, sympy.Expr):
            terms = index.as_coefficients_dict()
            if all((t.is_Symbol or t is sympy.S.One) and c.is_Integer for t, c in terms.items()):
                return terms.get(var, sympy.S.Zero)  # of a sum of multiples of variables
        return simplified(index, var, vec_length)

    yield cpp, "stride_at_vec_range", stride


def _outer_loops() -> Iterator[tuple[Any, str, Any]]:
    """Torch writes loops whose outer loops turn out not to be shared a second time, although nothing has changed."""
    from torch._inductor.codegen.cpp import CppScheduling, LocalBufferContext
    from torch._inductor.virtualized import V

    generate = CppScheduling.codegen_outer_loop_node

    def generated(self: Any, node: Any) -> None:
        kind, total = self.kernel_proxy_cls, len(node.get_outer_nodes())
        proxies: list[Any] = []
        states: list[str | None] = []  # when each proxy was made: which buffers share memory; None if some are local

        def proxy(group: Any) -> Any:
            context, shared = V.local_buffer_context, repr(group.args.inplace_buffers)
            local = isinstance(context, LocalBufferContext) and context.local_buffers
            states.append(None if local else shared)
            first = len(proxies) - total  # the number of this proxy in the first attempt
            again = first >= 0 and states[first] == shared
            made = proxies[first] if again else kind(group)
            if again:
                made.codegen_nodes = lambda nodes: None
            proxies.append(made)
            return made

        with mock.patch.object(self, "kernel_proxy_cls", proxy):
            generate(self, node)

    yield CppScheduling, "codegen_outer_loop_node", generated


def _instructions() -> Iterator[tuple[Any, str, Any]]:
    """Torch compiles and runs a program for each set of instructions; here the compiler is asked about its flags."""
    from torch._inductor.cpu_vec_isa import VecISA

    yield VecISA, "check_build", lambda isa, code: _knows(isa.build_arch_flags())


@functools.cache
def _knows(flags: str) -> bool:
    """Whether the compiler knows these flags; whether the processor has the instructions, torch asks itself."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    command = [get_cpp_compiler(), *flags.split(), "-fsyntax-only", "-x", "c++", "-"]
    return subprocess.run(command, input=b"", capture_output=True, check=False).returncode == 0


_PARTS: tuple[Callable[[], Iterator[tuple[Any, str, Any]]], ...] = (
    _types_and_ranges,
    _known_ranges,
    _interpretation,
    _settings,
    _leaves,
    _tilings,
    _strides,
    _outer_loops,
    _instructions,
)
