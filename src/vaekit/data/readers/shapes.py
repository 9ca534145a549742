"""Flat rows of images or signals, whose shape the user gives because it cannot be inferred."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vaekit.data.arrays import tidy
from vaekit.data.core import Array, blocks
from vaekit.data.source import Source
from vaekit.data.sparse import Sparse
from vaekit.errors import DataError

Shape = str | Sequence[int]


def parse(shape: Shape) -> tuple[int, ...]:
    """The shape (28, 28) from "28x28" or (28, 28).

    Raises:
        DataError: the shape is not one to three whole numbers above 0.
    """
    sides = re.split(r"\s*[x×,]\s*", shape.strip()) if isinstance(shape, str) else list(shape)
    try:
        parsed = tuple(int(side) for side in sides)
    except (TypeError, ValueError):
        parsed = ()
    if not parsed or min(parsed) < 1 or len(parsed) > 3:
        raise DataError(
            f"shape must be height x width of an image such as '28x28', with channels '28x28x3' or '3x28x28', or "
            f"length x channels of a signal, got {shape!r}"
        )
    return parsed


def text(shape: Shape) -> str:
    """A shape as text for `Data.options`: "28x28"."""
    return "x".join(map(str, parse(shape)))


def shaped(source: Source, shape: Shape, name: str) -> Source:
    """The source with its flat rows reshaped to (H, W), (H, W, C), (C, H, W) or (L, C).

    The columns of a table then lose their names and kinds, and become bytes if they are whole numbers 0..255.

    Raises:
        DataError: the rows are not flat, or have another number of values.
    """
    row, x = parse(shape), tidy(source.x, name)
    if x.ndim != 2 or x.shape[1] != math.prod(row):
        raise DataError(
            f"{name}: shape {text(row)} needs flat rows of {math.prod(row)} numbers, got rows of shape {x.shape[1:]}"
        )
    if source.schema or source.feature_names:
        x = _bytes(x)
    if isinstance(x, Sparse):
        x = Sparse(x.matrix, name, row)
    else:
        x = x.reshape(len(x), *row)
    return replace(source, x=x, schema=(), feature_names=None, kind=None if len(row) > 1 else source.kind)


def _bytes(x: Array) -> Array:
    """`x` as uint8 if all values are whole numbers from 0 to 255 and some are above 1, else unchanged."""
    for _, block in blocks(x):
        if not ((block >= 0) & (block <= 255) & (block == np.round(block))).all():
            return x
    return x.astype(np.uint8) if any(block.max() > 1 for _, block in blocks(x)) else x


def hint(source: Source) -> list[str]:
    """A note for flat rows of bytes or numbers in [0, 1] with as many values as a square image, and for long images."""
    x = source.x
    if x.ndim == 3 and source.kind is None and min(x.shape[1:]) <= 4 and max(x.shape[1:]) >= 16:
        return [
            f"rows of {x.shape[1]} x {x.shape[2]} numbers are read as grey images; if they are signals (length x "
            "channels), use `kind='signal'`"
        ]
    if source.schema:
        pixels = all(
            column.integer and (column.low or 0) >= 0 and (column.high or 0) <= 255 for column in source.schema
        )
        pixels = pixels and max(column.high or 0 for column in source.schema) > 100
    else:
        pixels = x.ndim == 2 and source.kind is None and not source.feature_names and x.dtype.kind in "uf" and _grey(x)
    if not pixels:
        return []
    for channels in (1, 3):
        side = math.isqrt(x.shape[1] // channels)
        if side >= 8 and channels * side**2 == x.shape[1]:
            shape = f"{side}x{side}" + ("x3" if channels == 3 else "")
            return [f"rows of {x.shape[1]} numbers are read as vectors; if they are images, use `shape='{shape}'`"]
    return []


def _grey(x: Any) -> bool:
    """Whether the first rows hold bytes, or numbers between 0 and 1, as pixels do."""
    first = np.asarray(x[:100])
    return first.dtype == np.uint8 or bool((first >= 0).all() and (first <= 1).all())
