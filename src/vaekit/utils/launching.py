"""Calling the kernels of a small compiled graph with little Python between them.

The function that torch's code generator writes allocates and frees every intermediate tensor in each call. Python's own
memory is not in the caches after a kernel that reads all weights, so that this takes several times as long as it does
in a loop of its own: a twentieth of a small training step. Here, the memory is reserved once.
"""

from __future__ import annotations

import ast
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .lowering import PRODUCTS

_log = logging.getLogger(__name__)
MOST = 8 * 2**20
"""Bytes that a graph may reserve. In graphs that need more, the time between the kernels does not matter."""

Graph = Callable[[list[Tensor]], Sequence[Tensor]]


def bound(graph: Graph, found: Sequence[Tensor]) -> Graph:
    """A graph as a function of its first inputs alone; the last ones are always the tensors `found`.

    Memory is reserved for its intermediate tensors, except in a large graph or one of another form. The outputs are new
    tensors in each call.

    Arguments:
        graph: from `lowering.loaded`; its kernels and its source are among its globals.
    """

    def plain(arguments: list[Tensor]) -> Sequence[Tensor]:
        return graph([*arguments, *found])

    scope = graph.__globals__
    try:
        with torch.inference_mode(False), torch.no_grad():  # the tensors are used in later calls, whatever their mode
            quick = _Rewritten(scope["source"], found).function(scope)
    except Exception as reason:
        _log.info("no memory is reserved: %r", reason)
        return plain
    alone, addresses = threading.Lock(), _addresses(found)

    def call(arguments: list[Tensor]) -> Sequence[Tensor]:
        # the views of tensors that now have other memory are wrong, as after `parameter.data = ...`
        if _addresses(found) != addresses or not alone.acquire(blocking=False):  # another thread uses the memory
            return plain(arguments)
        try:
            return quick(arguments)
        finally:
            alone.release()

    return call


def _addresses(tensors: Sequence[Tensor]) -> list[int]:
    return [t.data_ptr() for t in tensors]


class _OtherForm(Exception):
    """The source of a graph has statements that cannot be rewritten, or needs much memory."""


class _Rewritten(ast.NodeTransformer):
    """The source of a graph without allocations and without checks of the tensors that never change."""

    def __init__(self, source: str, found: Sequence[Tensor]):
        first, *self.body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
        names = _inputs(first)
        count = len(names) - len(found)
        self.arguments = names[:count]
        self.reserved: dict[str, Tensor] = dict(zip(names[count:], found, strict=True))
        self.group = _groups(self.body)
        self.returned = {self.group.get(n.id, n.id) for n in ast.walk(self.body[-1]) if isinstance(n, ast.Name)}
        self.alive: dict[str, set[str]] = {}  # by group: the names of the tensors that use its memory
        self.memory: dict[str, torch.UntypedStorage] = {}
        self.free: dict[int, list[torch.UntypedStorage]] = {}  # by bytes
        self.bytes = 0

    def function(self, scope: dict[str, Any]) -> Graph:
        kept = [ast.unparse(s) for statement in self.body for s in self.kept(statement)]
        lines = ["def call(arguments):", f"({', '.join(self.arguments)},) = arguments", *kept]
        inner = "\n        ".join(lines)
        made: dict[str, Any] = {}
        exec(f"def bind({', '.join(self.reserved)}):\n    {inner}\n    return call", scope, made)
        return made["bind"](*self.reserved.values())

    def kept(self, statement: ast.stmt) -> list[ast.stmt]:
        """What remains of a statement in every call."""
        match statement:
            case ast.Delete(targets):
                left: list[ast.expr] = [t for t in targets if isinstance(t, ast.Name) and not self.release(t.id)]
                return [ast.Delete(left)] if left else []
            case ast.Expr(ast.Call(ast.Attribute(ast.Name("args"), "clear"))):
                return []
            case ast.Expr(ast.Call(ast.Name("assert_size_stride"), [ast.Name(name), *_])):
                return [] if name in self.reserved else [statement]
            case ast.Assign([ast.Name(name)], value) if self.reserve(name, value):
                return []
            case ast.Assign([ast.Name()], ast.Call() as call) | ast.Expr(ast.Call() as call) if _known(call):
                return [self.visit(statement)]
            case ast.Return() | ast.Assign([ast.Name()], ast.Name()):
                return [self.visit(statement)]
        raise _OtherForm(ast.unparse(statement))

    def reserve(self, name: str, value: ast.expr) -> bool:
        """Whether the tensor that is assigned to this name is made now, for all calls."""
        group, made = self.group.get(name, name), None
        if group in self.returned:
            return False
        match value:
            case ast.Call(ast.Name("empty_strided_cpu"), [shape, stride, ast.Attribute(ast.Name("torch"), kind)]):
                sizes, steps = ast.literal_eval(shape), ast.literal_eval(stride)
                dtype = getattr(torch, kind)
                last = sum((n - 1) * s for n, s in zip(sizes, steps, strict=True))
                self.memory[group] = self.taken(dtype.itemsize * (last + 1))
                made = torch.empty(0, dtype=dtype, device="cpu").set_(self.memory[group], 0, sizes, steps)
            case ast.Call(ast.Name("reinterpret_tensor")):
                made = self.view(value)
            case ast.Name(other):
                made = self.reserved.get(other)
        if made is None:
            return False
        self.reserved[name] = made
        self.alive.setdefault(group, set()).add(name)
        return True

    def taken(self, size: int) -> torch.UntypedStorage:
        """Memory of this size that no living tensor uses."""
        if self.free.get(size):
            return self.free[size].pop()
        self.bytes += size
        if self.bytes > MOST:
            raise _OtherForm("large")
        return torch.empty(size, dtype=torch.uint8, device="cpu").untyped_storage()

    def release(self, name: str) -> bool:
        """Whether a tensor that the graph frees is a reserved one; others may use its memory from here on."""
        if name not in self.reserved:
            return False
        group = self.group.get(name, name)
        alive = self.alive.get(group, set())
        alive.discard(name)
        if not alive and group in self.memory:
            memory = self.memory.pop(group)
            self.free.setdefault(memory.nbytes(), []).append(memory)
        return True

    def view(self, call: ast.Call) -> Tensor | None:
        """The result of this call of `reinterpret_tensor`, if its tensor is reserved."""
        tensor, *geometry = call.args
        if not isinstance(tensor, ast.Name) or tensor.id not in self.reserved:
            return None
        base = self.reserved[tensor.id]
        sizes, steps, offset = (ast.literal_eval(g) for g in geometry)
        return base.as_strided(sizes, steps, base.storage_offset() + offset)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        made = self.view(node) if isinstance(node.func, ast.Name) and node.func.id == "reinterpret_tensor" else None
        if made is None:
            return node
        name = f"view{len(self.reserved)}"
        self.reserved[name] = made
        return ast.Name(name, ast.Load())


def _inputs(statement: ast.stmt) -> list[str]:
    """The names in `arg0, arg1 = args`."""
    match statement:
        case ast.Assign([ast.Tuple(targets)], ast.Name("args")):
            return [t.id for t in targets if isinstance(t, ast.Name)]
    raise _OtherForm(ast.unparse(statement))


def _groups(body: Sequence[ast.stmt]) -> dict[str, str]:
    """For each name of a tensor that shares memory with an earlier one, the first name of this memory."""
    group: dict[str, str] = {}
    for statement in body:
        match statement:
            case ast.Assign([ast.Name(name)], ast.Name(other)) | ast.Assign(
                [ast.Name(name)], ast.Call(ast.Name("reinterpret_tensor"), [ast.Name(other), *_])
            ):
                group[name] = group.get(other, other)
    return group


def _known(call: ast.Call) -> bool:
    """Whether a call makes a tensor or computes one; the result never shares the memory of a reserved tensor."""
    match call.func:
        case ast.Name(name):
            return name.startswith("cpp_fused") or name in ("empty_strided_cpu", "reinterpret_tensor")
        case ast.Attribute(ast.Name("extern_kernels"), name):
            return name in PRODUCTS
    return False
