"""A run's graphs for other programs: ONNX, or programs of torch.export."""

from .graphs import NAMES, Graph, Port, build
from .several import Exported, export_graphs
from .write import write_export

__all__ = ["NAMES", "Exported", "Graph", "Port", "build", "export_graphs", "write_export"]
