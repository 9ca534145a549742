"""Turning a recorded program into a graph of compiled kernels, which is kept in the cache folder.

`torch.compile` traces Python's byte code, prepares for gradients and searches for hundreds of patterns, in every
process anew. A recorded program needs none of this. Here, only torch's code generator is used, and it is not even
imported for a program that was compiled before.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .kernels import (
    CHARACTERS,
    FEWER,
    Libraries,
    cores,
    header_in_advance,
    kept,
    machine,
    tidy,
    together,
    trusted,
    write,
)
from .quick import quick_code
from .recording import NotRecordable, Program

VERSION = 4
"""Part of the key of a kept graph: increase it when the same program is to be compiled differently."""

LARGE = 300
"""A program with more operations has so many kernels that their header is compiled in advance."""

_START = "async_compile = AsyncCompile()"
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "convolution")


def graph_of(program: Program, inputs: Sequence[Tensor]) -> Callable[[list[Tensor]], Sequence[Tensor]]:
    """The program as a function that computes its outputs from a list of inputs, which it empties.

    Arguments:
        inputs: those of the program; they give shapes and types only.
    """
    known = (VERSION, machine(), torch.get_num_threads(), program.text)
    path = kept(hashlib.sha256("\n".join(map(str, known)).encode()).hexdigest()[:32] + ".py")
    large = len(program.calls) > LARGE and cores() > 1
    kernels = _Kernels(Libraries(characters=FEWER if large else CHARACTERS))
    if trusted(path):
        return loaded(path.read_bytes().decode(), kernels)
    tidy()
    with quick_code(), header_in_advance() if large else contextlib.nullcontext():
        source = lowered(program, inputs, kernels)
        graph = loaded(source, kernels)
    with contextlib.suppress(OSError):  # the cache folder cannot be written
        write(path, lambda part: part.write_bytes(source.encode()))
    return graph


def lowered(program: Program, inputs: Sequence[Tensor], kernels: _Kernels) -> str:
    """The Python source of the graph, with the C++ source of its kernels, which are built as they are written."""
    from torch._inductor import config
    from torch._inductor.compile_fx import view_to_reshape
    from torch._inductor.debug import DebugContext
    from torch._inductor.decomposition import select_decomp_table
    from torch._inductor.fx_passes.post_grad import post_grad_passes
    from torch._inductor.graph import GraphLowering
    from torch._inductor.virtualized import V
    from torch.fx.experimental.proxy_tensor import make_fx

    class _Lowering(GraphLowering):
        def run_node(self, node: torch.fx.Node) -> Any:
            result: Any = super().run_node(node)
            if node.op == "call_function" and (_is_key(node) or _is_draw(node)):
                result.realize()
            return result

        def init_wrapper_code(self, *args: Any, **kwargs: Any) -> None:
            super().init_wrapper_code(*args, **kwargs)
            define = self.wrapper_code.define_kernel

            def defined(name: str, body: str, *args: Any, **kwargs: Any) -> None:
                eval(body, {"async_compile": kernels})
                define(name, body, *args, **kwargs)

            self.wrapper_code.define_kernel = defined  # type: ignore[method-assign, assignment]

    functional = torch.func.functionalize(program)
    table = {**select_decomp_table(), torch.ops.aten.lerp.Tensor: _lerp}
    normed = torch.ops.aten.native_group_norm_backward.default
    table[normed] = _in_type_of_input(table[normed])
    # rows are not padded, like in torch.compile on a CPU: oneDNN's products in bfloat16 with AMX multiply the padding,
    # which nothing writes, by 0, so that losses and gradients are NaN where that memory happens to hold NaN or inf
    settings = {"pattern_matcher": False, "graph_partition": False, "comprehensive_padding": False}
    with torch.no_grad(), config.patch(settings):
        module = make_fx(functional, decomposition_table=table, tracing_mode="fake")(*inputs)
        module.graph.eliminate_dead_code()
        view_to_reshape(module)
        known = next(node.meta["val"] for node in module.graph.nodes)  # of an input
        with V.set_fake_mode(known.fake_mode):
            post_grad_passes(module, is_inference=True)
            separate_biases(module.graph)
            graph = _Lowering(module, example_inputs=inputs, is_inference=True)
            with DebugContext(), V.set_graph_handler(graph), V.set_extern_kernel_nodes([]):
                graph.run(*inputs)
                return graph.codegen()[0].value


def _lerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """`torch.lerp` in the fewest operations; torch's own is exact at a weight of 1, but needs nine."""
    return a + weight * (b - a)


def _in_type_of_input(backward: Callable[..., Any]) -> Callable[..., Any]:
    """The gradients of a normalisation, whose first has the type of the input, as in eager steps.

    Torch's decomposition returns float32 for a bfloat16 input with float32 weights, which the next product refuses.
    """

    def gradients(gradient: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
        of_x, *others = backward(gradient, x, *rest)
        return None if of_x is None else of_x.to(x.dtype), *others

    return gradients


_VIEWS = {"alias", "unsqueeze", "squeeze", "expand", "view", "reshape", "select", "slice", "permute"}


def _is_key(node: torch.fx.Node) -> bool:
    """Whether a node computes integers that many elements of another tensor use, such as the keys of noise.

    Such integers are stored. Otherwise the kernels would compute them again for each element, and the code generator
    would spend most of its time on their expressions.
    """
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.is_floating_point() or _name(node) in _VIEWS or not node.all_input_nodes:
        return False
    return _broadcasts(node, 8 * value.numel())


def _is_draw(node: torch.fx.Node) -> bool:
    """Whether a node is 0 or 1 by a comparison of integers, such as random bits, and several others use it.

    It is stored, because most of the time of the kernels that use it would go into its bits.
    """
    if not _holds(node, torch.is_floating_point) or len(node.all_input_nodes) != 1 or len(_users(node)) < 2:
        return False
    compared = node.all_input_nodes[0]
    integers = [_holds(n, lambda t: not t.is_floating_point()) for n in compared.all_input_nodes]
    return _holds(compared, lambda t: t.dtype == torch.bool) and bool(integers) and all(integers)


def _holds(node: torch.fx.Node, condition: Callable[[Tensor], bool]) -> bool:
    """Whether a node is one tensor that fulfils a condition."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and condition(value)


def _users(node: torch.fx.Node) -> set[torch.fx.Node]:
    """The nodes that use a node or its views."""
    return {n for user in node.users for n in (_users(user) if _name(user) in _VIEWS else [user])}


def _broadcasts(node: torch.fx.Node, size: int) -> bool:
    for user in node.users:
        value = user.meta.get("val")
        if isinstance(value, Tensor) and (value.numel() >= size or (_name(user) in _VIEWS and _broadcasts(user, size))):
            return True
    return False


def _name(node: torch.fx.Node) -> str:
    return str(node.target).split(".")[1] if "." in str(node.target) else str(node.target)


def separate_biases(graph: torch.fx.Graph) -> None:
    """Split addmm into a product and a sum: the bias then fuses with the activation instead of being copied first."""
    aten = torch.ops.aten
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is aten.addmm.default and not node.kwargs:
            bias, a, b = node.args
            with graph.inserting_before(node):
                product = graph.call_function(aten.mm.default, (a, b))
                total = graph.call_function(aten.add.Tensor, (product, bias))
            product.meta.update(node.meta)
            total.meta.update(node.meta)
            node.replace_all_uses_with(total)
            graph.erase_node(node)


class _Kernels:
    """Stands for torch's `AsyncCompile` in the source of a graph."""

    def __init__(self, libraries: Libraries):
        self.libraries = libraries

    def cpp_pybinding(self, types: list[str], source: str) -> _Waiting:
        code = together(types, source)
        if code is None:
            raise NotRecordable("a kernel of another form")
        return _Waiting(self.libraries.add(types, code))

    def wait(self, scope: dict[str, Any]) -> None:
        scope.update({name: w.function() for name, w in list(scope.items()) if isinstance(w, _Waiting)})
        self.libraries.pool.shutdown()


class _Waiting(NamedTuple):
    """A kernel that may not be built yet; `function` returns it."""

    function: Callable[[], Any]


class _Products:
    """Stands for torch's `extern_kernels` in the source of a graph."""

    def __getattr__(self, name: str) -> Any:
        if name not in PRODUCTS:
            from torch._inductor.select_algorithm import extern_kernels  # takes 2 s to import

            return getattr(extern_kernels, name)
        return getattr(torch, name)


def loaded(source: str, kernels: _Kernels) -> Callable[[list[Tensor]], Sequence[Tensor]]:
    """The function `call` of the source of a graph; kernels that are not in the cache folder are built.

    Imports of torch's compiler that the source does not use are left out, because they take 2 s.
    """
    head, start, body = source.partition(_START)
    if not start:
        raise NotRecordable("a graph of another form")
    lines = []
    for line in head.splitlines():
        imported = re.fullmatch(r"from torch\._inductor\S* import (?:\w+ as )?(\w+)", line)
        if not imported or re.search(rf"\b{imported[1]}\b", body):
            lines.append(line)
    kept_lines = [line for line in lines if not line.endswith((" extern_kernels", " AsyncCompile"))]
    scope: dict[str, Any] = {"__name__": "graph", "extern_kernels": _Products(), "AsyncCompile": lambda: kernels}
    exec(compile("\n".join([*kept_lines, start, body]), "graph", "exec"), scope)
    scope["source"] = "def call(" + body.partition("\ndef call(")[2].partition("\ndef ")[0]  # for `launching`
    return scope["call"]
