"""Graphs of a run as ONNX, exported by torch.onnx and compared with PyTorch in onnxruntime."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import torch

from vaekit.errors import ChoiceError

from .graphs import Graph
from .operators import table
from .trace import quiet, trace, unexportable

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
TOLERANCE = 1e-4
"""Largest difference of an exported graph from PyTorch, relative to the largest output."""
INLINE = 1024
"""Tensors of at most this many bytes stay in their graph instead of the shared weights."""


def require() -> None:
    """Check that onnx, onnxscript and onnxruntime are installed.

    Raises:
        ChoiceError: one of them is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ChoiceError(f"this needs {error.name}: install it with `pip install 'vaekit[onnx]'`") from None


def convert(graph: Graph) -> ModelProto:
    """The graph as an ONNX model with a free batch axis.

    Raises:
        ChoiceError: PyTorch or ONNX does not support one of its operations, or onnx is not installed.
    """
    require()
    program = trace(graph)
    try:
        with quiet(), torch.no_grad(), _operators_read_once():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[port.name for port in graph.inputs],
                output_names=[port.name for port in graph.outputs],
                opset_version=OPSET,
                custom_translation_table=table(),
                verbose=False,
            )
        assert exported is not None
        return exported.model_proto
    except Exception as error:  # such as an operator that ONNX lacks
        raise unexportable(graph, error) from error


def _operators_read_once() -> contextlib.AbstractContextManager[Any]:
    """Inside this context, torch.onnx keeps onnxscript's table of operators, which it parses anew for each graph."""
    try:
        from torch.onnx._internal.exporter import _registration

        apis = _registration.onnxscript_apis
        return mock.patch.object(apis, "get_torchlib_ops", functools.partial(_operators, apis.get_torchlib_ops))
    except (ImportError, AttributeError):  # another version of torch
        return contextlib.nullcontext()


@functools.cache
def _operators(read: Callable[[], Any]) -> Any:
    return read()


# --- shared weights ---------------------------------------------------------------------------------------------


class Store:
    """The large tensors of several graphs in one block of bytes, without duplicates.

    Arguments:
        file: the file name of the block, relative to the graphs.
        half: store float32 tensors as float16; graphs cast them back when they load.
    """

    def __init__(self, file: str = "weights.bin", half: bool = False):
        self.file, self.half = file, half
        self.bytes = bytearray()
        self.places: dict[bytes, tuple[int, int]] = {}

    def _put(self, raw: bytes) -> tuple[int, int]:
        """The (offset, length) of `raw` in the block; appends it if it is new."""
        if raw not in self.places:
            self.bytes += b"\0" * (-len(self.bytes) % 16)
            self.places[raw] = (len(self.bytes), len(raw))
            self.bytes += raw
        return self.places[raw]

    def take(self, model: ModelProto) -> ModelProto:
        """A copy of the model whose large tensors are in this store."""
        from onnx import ModelProto, TensorProto, helper, numpy_helper

        copy = ModelProto()
        copy.CopyFrom(model)
        casts = []
        for tensor in copy.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.nbytes <= INLINE:
                continue
            name = tensor.name
            if self.half and values.dtype == np.float32 and np.abs(values).max() < 6e4:
                values = values.astype(np.float16)
                casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
                name = f"{name}_half"
            offset, length = self._put(values.tobytes())
            tensor.Clear()
            tensor.name, tensor.data_type = name, helper.np_dtype_to_tensor_dtype(values.dtype)
            tensor.dims.extend(values.shape)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", self.file), ("offset", offset), ("length", length)):
                entry = tensor.external_data.add()
                entry.key, entry.value = key, str(value)
        nodes = [*casts, *copy.graph.node]
        del copy.graph.node[:]
        copy.graph.node.extend(nodes)
        return copy


# --- running and checking ---------------------------------------------------------------------------------------


@dataclass
class Session:
    """An ONNX model loaded into onnxruntime on the CPU."""

    model: ModelProto
    store: Store | None = None

    def __post_init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if self.store is not None and self.store.bytes:
            weights = bytes(self.store.bytes)
            options.add_external_initializers_from_files_in_memory([self.store.file], [weights], [len(weights)])
        self.session = onnxruntime.InferenceSession(
            self.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, graph: Graph, inputs: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
        feeds = {port.name: t.numpy() for port, t in zip(graph.inputs, inputs, strict=True)}
        used = {i.name for i in self.session.get_inputs()}  # unused inputs may be missing
        return self.session.run([p.name for p in graph.outputs], {n: v for n, v in feeds.items() if n in used})


def difference(graph: Graph, session: Session, inputs: tuple[torch.Tensor, ...]) -> list[float]:
    """The largest difference from PyTorch for each output, divided by the largest PyTorch value (at least 1)."""
    with torch.no_grad():
        expected = graph.module(*inputs)
    differences = []
    outputs = session(graph, inputs)
    for want, have in zip(expected if isinstance(expected, tuple) else (expected,), outputs, strict=True):
        want = want.numpy()
        if want.shape != have.shape or (np.isfinite(want) != np.isfinite(have)).any():
            differences.append(float("inf"))
            continue
        finite = np.isfinite(want)
        scale = max(1.0, float(np.abs(want[finite]).max(initial=0.0)))
        differences.append(float(np.abs(want - have, where=finite, out=np.zeros_like(want)).max(initial=0.0)) / scale)
    return differences


def check(graph: Graph, session: Session, inputs: tuple[torch.Tensor, ...], tolerance: float = TOLERANCE) -> None:
    """Compare an exported graph with PyTorch on these inputs.

    Raises:
        ChoiceError: an output differs by more than `tolerance`, relative to the largest value.
    """
    for port, off in zip(graph.outputs, difference(graph, session, inputs), strict=True):
        if off > tolerance and port.continuous:
            raise ChoiceError(
                f"{port.name} of its exported {graph.name} graph differs from PyTorch by {off:.1e} of its size, more "
                f"than the {tolerance:g} allowed"
            )
