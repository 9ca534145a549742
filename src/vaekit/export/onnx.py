"""Graphs of a run as ONNX, by torch.onnx (dynamo), held against PyTorch by onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
"""How far an exported graph may be from PyTorch, of the size of what it gives."""
INLINE = 1024
"""Bytes up to which a tensor stays in its graph rather than in the weights that graphs share."""


def require() -> None:
    """Raises ChoiceError where onnx, onnxscript or onnxruntime is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ChoiceError(f"this needs {error.name}: install it with `pip install 'vaekit[onnx]'`") from None


def convert(graph: Graph) -> ModelProto:
    """The graph as an ONNX model whose batch axis is free.

    Raises:
        ChoiceError: PyTorch cannot export something it does; or onnx is not installed.
    """
    require()
    program = trace(graph)
    try:
        with quiet(), torch.no_grad():
            made = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[port.name for port in graph.inputs],
                output_names=[port.name for port in graph.outputs],
                opset_version=OPSET,
                custom_translation_table=table(),
                verbose=False,
            )
        assert made is not None
        return made.model_proto
    except Exception as error:  # an operator that ONNX does not have
        raise unexportable(graph, error) from error


# --- weights that graphs share ----------------------------------------------------------------------------------


class Store:
    """One block of bytes that holds the large tensors of several graphs, each once.

    Arguments:
        file: the name under which graphs look for it, relative to where they lie.
        half: hold float32 tensors as float16; graphs turn them back as they are loaded.
    """

    def __init__(self, file: str = "weights.bin", half: bool = False):
        self.file, self.half = file, half
        self.bytes = bytearray()
        self.places: dict[bytes, tuple[int, int]] = {}

    def _put(self, raw: bytes) -> tuple[int, int]:
        """Where `raw` stands: (offset, length)."""
        if raw not in self.places:
            self.bytes += b"\0" * (-len(self.bytes) % 16)
            self.places[raw] = (len(self.bytes), len(raw))
            self.bytes += raw
        return self.places[raw]

    def take(self, model: ModelProto) -> ModelProto:
        """A copy of the model with its large tensors here."""
        from onnx import ModelProto, TensorProto, helper, numpy_helper

        made = ModelProto()
        made.CopyFrom(model)
        casts = []
        for tensor in made.graph.initializer:
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
        nodes = [*casts, *made.graph.node]
        del made.graph.node[:]
        made.graph.node.extend(nodes)
        return made


# --- running and checking ---------------------------------------------------------------------------------------


@dataclass
class Session:
    """An ONNX model in onnxruntime on the CPU."""

    model: ModelProto
    store: Store | None = None

    def __post_init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if self.store is not None and self.store.bytes:
            held = bytes(self.store.bytes)
            options.add_external_initializers_from_files_in_memory([self.store.file], [held], [len(held)])
        self.session = onnxruntime.InferenceSession(
            self.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, graph: Graph, given: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
        fed = {port.name: t.numpy() for port, t in zip(graph.inputs, given, strict=True)}
        wanted = {i.name for i in self.session.get_inputs()}  # an input that nothing depends on may be left out
        return self.session.run([p.name for p in graph.outputs], {n: v for n, v in fed.items() if n in wanted})


def difference(graph: Graph, session: Session, given: tuple[torch.Tensor, ...]) -> list[float]:
    """For each output the largest difference from PyTorch, over the largest value that PyTorch gives (or 1)."""
    with torch.no_grad():
        ours = graph.module(*given)
    found = []
    for want, have in zip(ours if isinstance(ours, tuple) else (ours,), session(graph, given), strict=True):
        want = want.numpy()
        if want.shape != have.shape or (np.isfinite(want) != np.isfinite(have)).any():
            found.append(float("inf"))
            continue
        there = np.isfinite(want)
        scale = max(1.0, float(np.abs(want[there]).max(initial=0.0)))
        found.append(float(np.abs(want - have, where=there, out=np.zeros_like(want)).max(initial=0.0)) / scale)
    return found


def check(graph: Graph, session: Session, given: tuple[torch.Tensor, ...], tolerance: float = TOLERANCE) -> None:
    """Raises ChoiceError where the exported graph gives something else than PyTorch."""
    for port, off in zip(graph.outputs, difference(graph, session, given), strict=True):
        if off > tolerance:
            raise ChoiceError(
                f"its exported {graph.name} graph differs from PyTorch by {off:.1e} of {port.name}'s size, more than "
                f"the {tolerance:g} allowed"
            )
