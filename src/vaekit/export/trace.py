"""Graphs of a run as programs of torch.export, which both formats start from."""

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

MOST = 2**20  # data at once


class _Fixed(nn.Module):
    """The graph's module under one signature, whatever the number of its inputs."""

    def __init__(self, graph: Graph):
        super().__init__()
        self.module = graph.module

    def forward(self, *given: Tensor) -> Any:
        return self.module(*given)


def trace(graph: Graph) -> ExportedProgram:
    """The graph as a program whose batch axis is free.

    Raises:
        ChoiceError: PyTorch cannot export something it does.
    """
    axis = Dim("n", min=1, max=MOST)
    shapes = (tuple({0: axis} for _ in graph.inputs),)
    module, example = _Fixed(graph).eval(), graph.example()
    with quiet(), _unvalidated(), torch.no_grad():
        # `len(x)` is a fixed number where code is run, as here; where it is read, as in the second way, it is not
        with contextlib.suppress(Exception):
            return torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
        try:
            return torch.export.export(module, example, dynamic_shapes=shapes, strict=True)
        except Exception as error:  # whatever torch stumbles over: a sampler, a shape that depends on data
            raise unexportable(graph, error) from error


def unexportable(graph: Graph, error: Exception) -> ChoiceError:
    """What is told of an error in torch's exporter."""
    cause = error.__cause__ or error
    if isinstance(error, ChoiceError):
        return error
    if operator := re.search(r"target=torch\.ops\.([\w.]+)", str(cause)):
        return ChoiceError(f"its {graph.name} graph needs {operator[1]}, which ONNX does not have")
    reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return ChoiceError(f"PyTorch cannot export its {graph.name} graph ({reason})")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporter tells its own developers."""
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
    """Densities that do not look at their arguments, for which a program would need numbers it has not yet."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)
