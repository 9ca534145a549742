"""Data: loading, checks, splits, and the layout of one datum for a model.

>>> from vaekit.data import load
>>> data = load("digits")
>>> data.shape, len(data.train), data.scale
((1, 8, 8), 1437, (0.0, 16.0))
"""

from .core import Data, Split
from .loading import from_arrays, load, load_rows, read_rows
from .named import datasets
from .readers.registry import reader
from .source import Source

__all__ = ["Data", "Source", "Split", "datasets", "from_arrays", "load", "load_rows", "read_rows", "reader"]
