"""Data: where they come from, how they are split, and what one datum looks like to a model.

>>> from vaekit.data import load
>>> data = load("digits")
>>> data.shape, len(data.train), data.scale
((1, 8, 8), 1437, (0.0, 16.0))
"""

from .arrays import Source
from .core import Data, Split
from .loading import from_arrays, load, load_rows, read_rows
from .named import datasets
from .readers.registry import reader

__all__ = ["Data", "Source", "Split", "datasets", "from_arrays", "load", "load_rows", "read_rows", "reader"]
