"""All ONNX graphs of a run, compared with PyTorch, with shared weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaekit.errors import ChoiceError, DataError, RunError
from vaekit.runs.trained import TrainedModel
from vaekit.utils.formerly import formerly
from vaekit.utils.suggest import unknown

from .graphs import NAMES, PLAIN, Graph, build
from .onnx import Session, Store, check, convert, difference, require

if TYPE_CHECKING:
    from onnx import ModelProto

SHARP = 1e-3
"""Largest relative change of an output by float16 weights: a quarter of a grey level."""
TRIED = 64
"""Number of examples on which a graph is compared with PyTorch."""


@dataclass
class Exported:
    """The exported graphs of a run.

    Attributes:
        graphs: for each name in `NAMES` a `Graph`, or the reason why it cannot be exported.
        models: the ONNX models of the exported graphs.
        store: the large tensors that they share.
    """

    graphs: dict[str, Graph | str]
    models: dict[str, ModelProto]
    store: Store

    def files(self) -> dict[str, bytes]:
        """The files by name: decode.onnx and so on, and the shared weights."""
        files = {f"{name}.onnx": model.SerializeToString() for name, model in self.models.items()}
        return files | {self.store.file: bytes(self.store.bytes)}

    def as_json(self) -> dict[str, Any]:
        """The ports of each graph, or why it is missing, as JSON."""
        return {n: {"why": g} if isinstance(g, str) else g.as_json() for n, g in self.graphs.items()}


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names without duplicates.

    Raises:
        ChoiceError: a name is not one of `NAMES`.
    """
    for name in names:
        if name not in NAMES:
            raise ChoiceError(unknown("graph", name, NAMES))
    return tuple(dict.fromkeys(names))


@formerly("half", "progress", "names", "shared")
def export_graphs(
    run: TrainedModel,
    *,
    names: Sequence[str] = PLAIN,
    half: bool = False,
    shared: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> Exported:
    """Export the run's graphs to ONNX; each is compared with PyTorch on data of the run. The model must be on the CPU.

    Arguments:
        names: names of the graphs to export, by default those that need only the weights.
        half: store weights as float16 if this changes no output by more than 1e-3 of its size.
        shared: put large tensors into one store; otherwise each graph contains its own.
        progress: called as progress(stage, done, total).

    Raises:
        ChoiceError: onnx is not installed.
    """
    require()
    graphs: dict[str, Graph | str] = {}
    plain: dict[str, ModelProto] = {}
    inputs: dict[str, tuple[torch.Tensor, ...]] = {}
    for done, name in enumerate(names):
        if progress:
            progress("exporting", done, len(names))
        try:
            graph = build(run, name)
            model = described(slim(convert(graph)), graph.about)
            inputs[name] = feeds(run, graph)
            check(graph, Session(model), inputs[name])
        except ChoiceError as error:
            graphs[name] = str(error)
        else:
            graphs[name], plain[name] = graph, model
    if progress:
        progress("exporting", len(names), len(names))
    if not shared:
        return Exported(graphs, plain, Store())
    for store in (Store(half=True), Store()) if half else (Store(),):
        models = {name: store.take(model) for name, model in plain.items()}
        if not store.half or all(_is_sharp(graphs[n], Session(m, store), inputs[n]) for n, m in models.items()):
            break
    return Exported(graphs, models, store)


def _is_sharp(graph: Graph | str, session: Session, inputs: tuple[torch.Tensor, ...]) -> bool:
    """Whether float16 weights change the outputs negligibly. Not checked for samples, which are discontinuous."""
    assert isinstance(graph, Graph)
    return graph.name == "draw" or max(difference(graph, session, inputs)) < SHARP


def feeds(run: TrainedModel, graph: Graph, n: int = TRIED) -> tuple[torch.Tensor, ...]:
    """Inputs for the comparison: random noise, and x and codes of test data, or of prior samples if there are none."""
    example = list(graph.example(n))
    try:
        observed = run.observed("test")
        rows = np.arange(n) % observed.n
        raw = torch.from_numpy(np.ascontiguousarray(observed.raw(rows))).float()
        z, c = torch.from_numpy(run.encode("test", rows=rows)), observed.condition(rows)
    except (DataError, RunError):
        c = next((e for e, port in zip(example, graph.inputs, strict=True) if port.kind == "c"), None)
        with torch.no_grad():
            z = run.model.sample(n, c)
        raw = torch.from_numpy(run.decode(z)).float()
    for i, port in enumerate(graph.inputs):
        value = {"x": raw, "z": z, "c": c}.get(port.kind)
        example[i] = example[i] if value is None else value
    return tuple(example)


def described(model: ModelProto, about: Mapping[str, str]) -> ModelProto:
    """Add properties to the model, in place; returns the model."""
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model


def slim(model: ModelProto) -> ModelProto:
    """Remove torch's notes on the origin of each node from the model, in place; returns the model."""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    return model
