"""What a model takes as known of the data, which an archive stores beside the bits: missing values, totals, conditions.

The ELBO of a conditional model is a bound on log p(x | c), that of counts with a known total on log p(x | total), and
that of data with missing values on the log p of the observed ones. So these bytes are not part of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .rounding import Bools
from .scheme import Batch


class Known:
    """What is known of n data, by row.

    Arguments:
        n, dims: number of data, and of their elements.
        missing: (n, dims), or None if nothing is missing.
        total: (n, 1) or None.
        condition: (n, C) or None.
    """

    def __init__(
        self, n: int, dims: int, missing: Bools | None = None, total: Tensor | None = None, c: Tensor | None = None
    ):
        self.n, self.dims, self.missing, self.total, self.c = n, dims, missing, total, c

    @classmethod
    def of(cls, batches: list[Batch]) -> Known:
        """What is known of several batches."""
        missing = np.concatenate([b.missing for b in batches])
        totals = [b.total for b in batches if b.total is not None]
        conditions = [b.c for b in batches if b.c is not None]
        n, dims = missing.shape
        return cls(
            n,
            dims,
            missing if missing.any() else None,
            torch.cat(totals) if totals else None,
            torch.cat(conditions) if conditions else None,
        )

    def part(self, rows: slice) -> Batch:
        """What is known of some of the data."""
        size = rows.stop - rows.start
        missing = np.zeros((size, self.dims), np.bool_) if self.missing is None else self.missing[rows]
        return Batch(missing, *(None if t is None else t[rows] for t in (self.c, self.total)))

    def to_bytes(self) -> dict[str, bytes]:
        """The parts of an archive."""
        parts: dict[str, bytes] = {}
        if self.missing is not None:
            parts["missing"] = np.packbits(self.missing).tobytes()
        if self.total is not None:
            parts["total"] = self.total.numpy().astype("<f8").tobytes()
        if self.c is not None:
            parts["condition"] = self.c.numpy().astype("<f4").tobytes()
        return parts

    @classmethod
    def from_bytes(cls, parts: Mapping[str, bytes], n: int, dims: int, totals: int, conditions: int) -> Known:
        """The inverse of `to_bytes`, for a model that takes so many totals and numbers of a condition as known.

        Raises:
            KeyError, ValueError: the parts are not those of such a model.
        """
        missing: Bools | None = None
        if "missing" in parts:
            if len(parts["missing"]) != -(-n * dims // 8):
                raise ValueError("the missing values are those of other data")
            bits = np.unpackbits(np.frombuffer(parts["missing"], np.uint8), count=n * dims)
            missing = bits.astype(np.bool_).reshape(n, dims)

        def numbers(name: str, dtype: str, width: int) -> Tensor | None:
            if not width:
                return None
            found: NDArray[np.floating] = np.frombuffer(parts[name], dtype).reshape(n, width)
            return torch.from_numpy(found.astype(dtype[1:]))

        return cls(n, dims, missing, numbers("total", "<f8", totals), numbers("condition", "<f4", conditions))
