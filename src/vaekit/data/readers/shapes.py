"""Rows that are images or signals, written flat: the shape they have is told, since it cannot be seen."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vaekit.data.arrays import Source, tidy
from vaekit.data.core import Array, blocks
from vaekit.data.sparse import Sparse
from vaekit.errors import DataError

Shape = str | Sequence[int]


def parse(shape: Shape) -> tuple[int, ...]:
    """(28, 28) from "28x28" or (28, 28).

    Raises:
        DataError: no whole numbers above 0.
    """
    sides = re.split(r"\s*[x×,]\s*", shape.strip()) if isinstance(shape, str) else list(shape)
    try:
        found = tuple(int(side) for side in sides)
    except (TypeError, ValueError):
        found = ()
    if not found or min(found) < 1 or len(found) > 3:
        raise DataError(
            f"shape must be height x width of an image such as '28x28', with channels '28x28x3' or '3x28x28', or "
            f"length x channels of a signal, got {shape!r}"
        )
    return found


def text(shape: Shape) -> str:
    """As options keep it: "28x28"."""
    return "x".join(map(str, parse(shape)))


def shaped(source: Source, shape: Shape, name: str) -> Source:
    """The source with its flat rows in this shape, read as arrays of it are: (H, W), (H, W, C) or (C, H, W).

    Columns of a table are then places of one thing, and bytes where they hold whole numbers 0..255.

    Raises:
        DataError: rows that are not flat, or of another number of values.
    """
    row, x = parse(shape), tidy(source.x, name)
    if x.ndim != 2 or x.shape[1] != math.prod(row):
        raise DataError(
            f"{name}: shape {text(row)} is for flat rows of {math.prod(row)} numbers, got rows of shape {x.shape[1:]}"
        )
    if source.schema or source.feature_names:
        x = _bytes(x)
    if isinstance(x, Sparse):
        x = Sparse(x.matrix, name, row)
    else:
        x = x.reshape(len(x), *row)
    return replace(source, x=x, schema=(), feature_names=None, kind=None if len(row) > 1 else source.kind)


def _bytes(x: Array) -> Array:
    """As uint8, where all are whole numbers from 0 to 255 and some are above 1."""
    for _, block in blocks(x):
        if not ((block >= 0) & (block <= 255) & (block == np.round(block))).all():
            return x
    return x.astype(np.uint8) if any(block.max() > 1 for _, block in blocks(x)) else x


def hint(source: Source) -> list[str]:
    """A note, where flat rows of bytes, or of numbers in [0, 1], have as many values as a square image."""
    x = source.x
    if x.ndim != 2 or source.kind is not None or source.feature_names or x.dtype.kind not in "uf":
        return []
    for channels in (1, 3):
        side = math.isqrt(x.shape[1] // channels)
        if side >= 8 and channels * side**2 == x.shape[1] and _grey(x):
            told = f"{side}x{side}" + ("x3" if channels == 3 else "")
            return [f"rows of {x.shape[1]} numbers are taken as vectors; of images, say `shape='{told}'`"]
    return []


def _grey(x: Any) -> bool:
    """Whether the first rows hold bytes, or numbers between 0 and 1, as pixels are."""
    first = np.asarray(x[:100])
    return first.dtype == np.uint8 or bool((first >= 0).all() and (first <= 1).all())
