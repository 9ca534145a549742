"""A run's graphs for other programs: ONNX, or programs of torch.export."""

from .graphs import NAMES, Graph, Port, build
from .write import Exported, export_graphs

__all__ = ["NAMES", "Exported", "Graph", "Port", "build", "export_graphs"]
