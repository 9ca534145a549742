"""Recording a function as the list of torch's operations that it calls, without importing torch's compiler."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vaekit.errors import VaekitError


class NotRecordable(VaekitError):
    """A function does something that a fixed list of operations cannot express."""


class Ref(NamedTuple):
    """A tensor of a program by its number."""

    number: int


class Call(NamedTuple):
    """One operation; `results` are the numbers of the tensors that it returns, in order."""

    operation: Any
    args: Any
    kwargs: Any
    results: list[int]


class Program:
    """The operations that a function calls on its tensors, and on others that it finds, such as parameters.

    Attributes:
        found: the inputs that are not arguments of the function.
        outputs: the function's result with a `Ref` for each tensor.
    """

    def __init__(self) -> None:
        self.found: list[Tensor] = []
        self.inputs: list[int] = []
        self.described: list[str] = []
        self.calls: list[Call] = []
        self.outputs: Any = None

    @property
    def text(self) -> str:
        """The program as text: equal texts compute the same."""
        calls = (f"{c.results}={c.operation}{c.args}{c.kwargs}" for c in self.calls)
        return "\n".join([*self.described, *calls, f"{self.outputs}"])

    def same(self, other: Program) -> bool:
        """Whether another program does the same on the same arguments."""
        pairs = zip(self.found, other.found, strict=False)
        return self.text == other.text and all(
            a is b or torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in pairs
        )

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Run the operations on other inputs: the arguments, then the tensors found; returns the tensors of outputs."""
        known = dict(zip(self.inputs, inputs, strict=True))
        for call in self.calls:
            result = call.operation(*_replaced(call.args, known), **_replaced(call.kwargs, known))
            known.update(zip(call.results, tensors_of(result), strict=True))
        return [known[number] for number in self.returned]

    @property
    def returned(self) -> list[int]:
        """The numbers of the tensors of the result, in order."""
        refs: list[int] = []
        _mapped(self.outputs, Ref, lambda ref: refs.append(ref.number))
        return refs

    def result(self, tensors: Sequence[Tensor]) -> Any:
        """The result of the function with these tensors in it."""
        left = iter(tensors)
        return _mapped(self.outputs, Ref, lambda _: next(left))


def _mapped(tree: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Lists, tuples and dictionaries in which every leaf of a kind is changed."""
    if isinstance(tree, kind):
        return change(tree)
    if isinstance(tree, dict):
        return {name: _mapped(value, kind, change) for name, value in tree.items()}
    if isinstance(tree, tuple) and "_fields" in vars(type(tree)):
        return type(tree)(*(_mapped(value, kind, change) for value in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(_mapped(value, kind, change) for value in tree)
    return tree


def _replaced(tree: Any, known: dict[int, Tensor]) -> Any:
    return _mapped(tree, Ref, lambda ref: known[ref.number])


def tensors_of(tree: Any) -> list[Tensor]:
    """The tensors in lists, tuples and dictionaries, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, list | tuple):
        return []
    return [t for value in tree for t in tensors_of(value)]


class _Recorder(TorchDispatchMode):
    def __init__(self, arguments: list[Tensor]):
        super().__init__()
        self.program = Program()
        self.numbers: dict[int, int] = {}  # by the tensor's id
        self.alive: list[Tensor] = []  # so that no other tensor gets their ids
        self.outside: dict[int, dict[Any, int]] = {}  # inputs by storage and geometry
        self.before: dict[int, tuple[Tensor, Tensor]] = {}  # storages that were written to, as bytes, and copies
        for t in arguments:
            self.input(t)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here; True would import torch's compiler, which takes 3 s

    def new(self, t: Tensor) -> int:
        number = len(self.alive)
        self.numbers[id(t)] = number
        self.alive.append(t)
        return number

    def input(self, t: Tensor) -> int:
        number = self.new(t)
        shared = self.outside.setdefault(t.untyped_storage()._cdata, {})
        if shared and t.untyped_storage()._cdata in self.before:
            raise NotRecordable("it writes to a tensor that shares memory with another")
        shared[number if _geometry(t) in shared else _geometry(t)] = number
        self.program.inputs.append(number)
        self.program.described.append(f"{number}: {t.dtype} {list(t.shape)} {t.stride()} {t.device}")
        return number

    def number(self, t: Tensor) -> int:
        """The number of a tensor; a new one gets that of the input with the same memory, or becomes an input."""
        if (number := self.numbers.get(id(t))) is not None:
            return number
        number = self.outside.get(t.untyped_storage()._cdata, {}).get(_geometry(t))
        if number is None:
            self.program.found.append(t)
            return self.input(t)
        self.numbers[id(t)] = number
        self.alive.append(t)
        return number

    def write(self, t: Tensor) -> None:
        storage = t.untyped_storage()
        if storage._cdata in self.outside and storage._cdata not in self.before:
            if len(self.outside[storage._cdata]) > 1:
                raise NotRecordable("it writes to a tensor that shares memory with another")
            content = torch.empty(0, dtype=torch.uint8, device=t.device).set_(storage)
            self.before[storage._cdata] = content, content.clone()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags:
            raise NotRecordable(f"{func} depends on the values of its tensors")
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise NotRecordable(f"{func} draws from torch's generator")
        named = {a.name: v for a, v in zip(func._schema.arguments, args, strict=False)} | kwargs
        if named.get("running_mean") is not None and named.get("training", True):
            raise NotRecordable(f"{func} updates its running statistics without declaring it")
        refer = lambda t: Ref(self.number(t))  # noqa: E731
        refs = _mapped(args, Tensor, refer), _mapped(kwargs, Tensor, refer)
        for place, argument in enumerate(func._schema.arguments):
            if argument.is_write:
                for t in tensors_of([args[place] if place < len(args) else kwargs.get(argument.name)]):
                    self.write(t)
        result = func(*args, **kwargs)
        known = [(t, self.numbers.get(id(t))) for t in tensors_of(result)]
        numbers = [self.new(t) if number is None else number for t, number in known]
        self.program.calls.append(Call(func, *refs, numbers))
        return result


def _geometry(t: Tensor) -> Any:
    return t.dtype, tuple(t.shape), t.stride(), t.storage_offset()


_READS = ("numpy", "tolist", "__array__", "__dlpack__", "data_ptr")
"""Methods of tensors that give their values to code outside torch's operations."""


_ALONE = threading.RLock()
"""Held while torch's parts are replaced: two threads would otherwise put back each other's replacements."""


class _Here:
    """True in the thread that created it and false in other threads, whose calls do not change."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def __bool__(self) -> bool:
        return self.thread == threading.get_ident()


def _refused(name: str, here: _Here) -> Callable[..., Any]:
    plain = getattr(torch.Tensor, name)

    def method(*args: Any, **kwargs: Any) -> Any:
        if here:
            raise NotRecordable(f"Tensor.{name} depends on the values of a tensor")
        return plain(*args, **kwargs)

    return method


def record(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Program:
    """The operations of a function that is called with these arguments; its writes to existing tensors are undone.

    The function is called twice, to notice numbers and attributes of Python that change with each call.

    Raises:
        NotRecordable: the function depends on values of tensors, draws from torch's generators, writes to a tensor that
            shares memory with another, or does something else when it is called again.
    """
    program = _recorded(function, arguments)
    if not program.same(_recorded(function, arguments)):
        raise NotRecordable("it does something else when it is called again")
    return program


def _recorded(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Program:
    arguments = _mapped(arguments, Tensor, lambda t: t.detach())  # one passed twice may be two tensors next time
    recorder = _Recorder(tensors_of(arguments))
    try:
        with _ALONE, contextlib.ExitStack() as stack:
            here = _Here()
            stack.enter_context(mock.patch.object(torch.compiler, "_is_compiling_flag", here))
            for name in _READS:
                stack.enter_context(mock.patch.object(torch.Tensor, name, _refused(name, here)))
            stack.enter_context(recorder)
            result = function(*arguments)
    finally:
        for content, before in recorder.before.values():
            content.copy_(before)
    recorder.program.outputs = _mapped(result, Tensor, lambda t: Ref(recorder.number(t)))
    return recorder.program
