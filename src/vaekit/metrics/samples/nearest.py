"""Distances between two sets of features, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Squares = NDArray[np.float32]
AT_ONCE = 16_000_000
"""The number of distances that are held at once: 64 MB."""
ROUNDING = 5e-7
"""Squared distances that differ by less, relative to the mean squared length of the centred rows, are equal:
float32 rounds."""


def chunks(n: int, width: int) -> Iterator[slice]:
    """Slices of n rows, so that a matrix of a slice and `width` columns has at most `AT_ONCE` elements."""
    step = max(1, AT_ONCE // max(1, width))
    yield from (slice(a, min(a + step, n)) for a in range(0, n, step))


def squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (n, m) of rows (n, D) and (m, D), to within rounding."""
    centre = b.mean(0)
    a, b = a - centre, b - centre
    return torch.addmm(b.square().sum(1), a, b.T, alpha=-2).add_(a.square().sum(1, keepdim=True)).clamp_(min=0)


def slack(rows: Tensor) -> float:
    """The rounding of squared distances from these rows."""
    return ROUNDING * float((rows - rows.mean(0)).double().square().sum(1).mean())


def nearest_of(rows: Tensor, others: Tensor) -> tuple[Squares, NDArray[np.int64]]:
    """The squared distance from each row (N, D) to the nearest of the others (M, D), and its number: (N,) each."""
    found = [squares(rows[part], others).min(1) for part in chunks(len(rows), len(others))]
    return torch.cat([one.values for one in found]).numpy(), torch.cat([one.indices for one in found]).numpy()


def radii(rows: Tensor, k: int) -> Squares:
    """The squared distance from each row (N, D) to its k-th nearest other row, (N,)."""
    found = []
    for part in chunks(len(rows), len(rows)):
        square = squares(rows[part], rows)
        own = torch.arange(len(square))
        square[own, own + part.start] = torch.inf  # a row is not its own neighbour
        found.append(torch.topk(square, k, dim=1, largest=False, sorted=True).values[:, -1])
    return torch.cat(found).numpy()
