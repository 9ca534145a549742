"""All ONNX graphs of a run together, checked, and the numbers they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaekit.errors import ChoiceError, DataError, RunError
from vaekit.runs.trained import TrainedModel
from vaekit.utils.suggest import unknown

from .graphs import NAMES, Graph, build
from .onnx import Session, Store, check, convert, difference, require

if TYPE_CHECKING:
    from onnx import ModelProto

SHARP = 1e-3
"""How far float16 numbers may move what a graph gives, of its size: a quarter of a grey level."""
TRIED = 64
"""Data that a graph is tried on."""


@dataclass
class Exported:
    """The graphs of a run that can be had, and of the others why not.

    Attributes:
        graphs: by name (`NAMES`), a `Graph` or a sentence.
        models: the ONNX models of the former, their large tensors in `store` where they share it.
    """

    graphs: dict[str, Graph | str]
    models: dict[str, ModelProto]
    store: Store

    def files(self) -> dict[str, bytes]:
        """decode.onnx, ..., and the weights they share."""
        made = {f"{name}.onnx": model.SerializeToString() for name, model in self.models.items()}
        return made | {self.store.file: bytes(self.store.bytes)}

    def as_json(self) -> dict[str, Any]:
        return {n: {"why": g} if isinstance(g, str) else g.as_json() for n, g in self.graphs.items()}


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Raises ChoiceError for a name of no graph."""
    for name in names:
        if name not in NAMES:
            raise ChoiceError(unknown("graph", name, NAMES))
    return tuple(dict.fromkeys(names))


def export_graphs(
    run: TrainedModel,
    half: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    names: Sequence[str] = NAMES,
    shared: bool = True,
) -> Exported:
    """The run's graphs as ONNX, each held against PyTorch on data of the run, whose model must be on the CPU.

    Arguments:
        half: keep the weights as float16 where that moves nothing by more than 1e-3 of its size.
        progress: called as progress(what, done, of).
        names: of the graphs wanted.
        shared: large tensors into one store; otherwise each graph holds its own.

    Raises:
        ChoiceError: onnx is not installed.
    """
    require()
    graphs: dict[str, Graph | str] = {}
    plain: dict[str, ModelProto] = {}
    given: dict[str, tuple[torch.Tensor, ...]] = {}
    for done, name in enumerate(names):
        if progress:
            progress("exporting", done, len(names))
        try:
            graph = build(run, name)
            model = slim(convert(graph))
            given[name] = feeds(run, graph)
            check(graph, Session(model), given[name])
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
        if not store.half or all(_sharp(graphs[n], Session(m, store), given[n]) for n, m in models.items()):
            break
    return Exported(graphs, models, store)


def _sharp(graph: Graph | str, session: Session, given: tuple[torch.Tensor, ...]) -> bool:
    """Whether float16 weights cost nothing visible. A draw may jump where its chance moves by a little: not asked."""
    assert isinstance(graph, Graph)
    return graph.name == "draw" or max(difference(graph, session, given)) < SHARP


def feeds(run: TrainedModel, graph: Graph, n: int = TRIED) -> tuple[torch.Tensor, ...]:
    """Inputs to try a graph with: x and codes of test data where they can be had, else of the prior; drawn noise."""
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
        held = {"x": raw, "z": z, "c": c}.get(port.kind)
        example[i] = example[i] if held is None else held
    return tuple(example)


def slim(model: ModelProto) -> ModelProto:
    """The model without what torch notes of where each node came from."""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    return model
