"""Export a run's computations (decode, draw, encode, weights) as ONNX or torch.export programs."""

from .graphs import NAMES, Graph, Port, build
from .several import Exported, export_graphs
from .write import write_export

__all__ = ["NAMES", "Exported", "Graph", "Port", "build", "export_graphs", "write_export"]
