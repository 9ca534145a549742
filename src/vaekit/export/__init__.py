"""Export a run's computations (decode, draw, encode, weights) as ONNX or torch.export programs, or the run to a hub."""

from .diffusers import write_diffusers
from .graphs import NAMES, Graph, Port, build
from .hub import push, upload, write_hub
from .several import Exported, export_graphs
from .write import write_export

__all__ = [
    "NAMES",
    "Exported",
    "Graph",
    "Port",
    "build",
    "export_graphs",
    "push",
    "upload",
    "write_diffusers",
    "write_export",
    "write_hub",
]
