"""Graphs of a run as torch.export programs, from which both formats are written."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.export import Dim, ExportedProgram

from vaekit.errors import ChoiceError

from .graphs import Graph

MOST = 2**20  # largest batch size


class _Fixed(nn.Module):
    """The graph's module with one fixed signature for any number of inputs."""

    def __init__(self, graph: Graph):
        super().__init__()
        self.module = graph.module

    def forward(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)


def trace(graph: Graph) -> ExportedProgram:
    """The graph as a torch.export program with a free batch axis.

    Raises:
        ChoiceError: PyTorch cannot export one of its operations.
    """
    axis = Dim("n", min=1, max=MOST)
    shapes = (tuple({0: axis} for _ in graph.inputs),)
    module, example = _Fixed(graph).eval(), graph.example()
    with quiet(), _unvalidated(), torch.no_grad():
        # non-strict export runs the code, so `len(x)` becomes a constant; strict export analyses the code instead
        with contextlib.suppress(Exception):
            return torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
        try:
            return torch.export.export(module, example, dynamic_shapes=shapes, strict=True)
        except Exception as error:  # such as a sampler, or a shape that depends on data
            raise unexportable(graph, error) from error


def unexportable(graph: Graph, error: Exception) -> ChoiceError:
    """The error of torch's exporter as a ChoiceError with a short reason."""
    cause = error.__cause__ or error
    if isinstance(error, ChoiceError):
        return error
    if operator := re.search(r"target=torch\.ops\.([\w.]+)", str(cause)):
        return ChoiceError(f"its {graph.name} graph needs {operator[1]}, which ONNX does not have")
    reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return ChoiceError(f"PyTorch cannot export its {graph.name} graph ({reason})")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppresses the output of torch's exporter."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        nowhere = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _unvalidated() -> Iterator[None]:
    """Turns off the validation of the arguments of distributions, which is impossible while tracing."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)
