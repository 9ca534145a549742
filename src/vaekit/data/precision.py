"""What the values of an array need: whether they are bits, and whether float32 resolves their differences."""

from typing import Any

import numpy as np

from vaekit.errors import DataError

from .core import Computed, Kind, blocks

SAMPLED = 20_000  # rows examined to decide whether float32 suffices
BLURRED = 2.0**-17  # rounding to float32 that is too coarse, relative to an element's standard deviation
LEAST, LARGEST = 1e-150, 1e150  # the squares of numbers between these are normal float64 numbers


def is_bits(x: Any) -> bool:
    """Whether every value is 0, 1 or nan."""
    if isinstance(x, Computed) and x.trusted:
        return False
    return all(bool(((block == 0) | (block == 1) | (block != block)).all()) for _, block in blocks(x, double=True))


def needs_double(x: Any, kind: Kind, name: str) -> bool:
    """Whether float32 is too coarse for the differences between rows, as for time stamps.

    This is so if rounding to float32 moves an element by more than 2^-17 of its standard deviation over the rows; for
    images and signals, of the root mean square of all elements' deviations. Counts are exact in float32.

    Raises:
        DataError: an element varies over the rows by so little that its variance underflows in float64.
    """
    if kind == "counts" or not (x.dtype.kind in "fiu" and x.dtype.itemsize >= 4) or x.dtype == np.float32:
        return False
    rows = np.linspace(0, len(x) - 1, min(len(x), SAMPLED)).astype(np.int64)
    first = x[:1].astype(np.float64)[0]
    first = np.where(np.isnan(first), 0, first)
    n, total, squares, moved = (np.zeros(first.shape) for _ in range(4))
    least, most = np.full(first.shape, np.inf), np.full(first.shape, -np.inf)
    for _, block in blocks(x, rows, double=True):
        values = block.astype(np.float64)
        with np.errstate(over="ignore"):
            rounded = np.abs(values - values.astype(np.float32))
        apart = values - first
        n += (~np.isnan(values)).sum(0)
        total, squares = total + np.nansum(apart, 0), squares + np.nansum(apart**2, 0)
        moved, least = np.fmax(moved, np.fmax.reduce(rounded)), np.fmin(least, np.fmin.reduce(values))
        most = np.fmax(most, np.fmax.reduce(values))
    n = np.maximum(n, 1)
    deviation = np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0))
    if kind in ("image", "signal"):
        deviation, moved = np.sqrt((deviation**2).mean()), moved.max()
        least, most = least.min(), most.max()
    if ((deviation < LEAST) & (most > least) & (most - least < LEAST)).any():
        raise DataError(f"{name}: the values of an element differ by less than {LEAST:g}: rescale the data first")
    return bool((moved > BLURRED * np.where(deviation > 0, deviation, 1)).any())
