"""What a model takes as known of the data, which an archive stores beside the bits: missing values, totals, conditions.

The ELBO of a conditional model is a bound on log p(x | c), that of counts with a known total on log p(x | total), and
that of data with missing values on the log p of the observed ones. So these bytes are not part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .archive import deflated, inflated
from .rounding import Bools
from .scheme import Batch


class Known:
    """What is known of n data, by row.

    Arguments:
        n, dims: number of data, and of their elements.
        missing: (n, ceil(dims / 8)) uint8, the elements of each row as bits, or None if nothing is missing.
        total: (n, 1) or None.
        condition: (n, C) or None.
    """

    def __init__(
        self,
        n: int,
        dims: int,
        missing: NDArray[np.uint8] | None = None,
        total: Tensor | None = None,
        c: Tensor | None = None,
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
            np.packbits(missing, 1) if missing.any() else None,
            torch.cat(totals) if totals else None,
            torch.cat(conditions) if conditions else None,
        )

    def part(self, rows: slice) -> Batch:
        """What is known of some of the data."""
        missing: Bools = np.zeros((rows.stop - rows.start, self.dims), np.bool_)
        if self.missing is not None:
            missing = np.unpackbits(self.missing[rows], 1, self.dims).astype(np.bool_)
        return Batch(missing, *(None if t is None else t[rows] for t in (self.c, self.total)))

    def to_bytes(self) -> dict[str, bytes]:
        """The parts of an archive."""
        parts: dict[str, bytes] = {}
        if self.missing is not None:
            parts["missing"] = self.missing.tobytes()
        if self.total is not None:
            parts["total"] = self.total.numpy().astype("<f8").tobytes()
        if self.c is not None:
            parts["condition"] = self.c.numpy().astype("<f4").tobytes()
        return {name: deflated(part) for name, part in parts.items()}

    @classmethod
    def from_bytes(cls, parts: Mapping[str, bytes], n: int, dims: int, totals: int, conditions: int) -> Known:
        """The inverse of `to_bytes`, for a model that takes so many totals and numbers of a condition as known.

        Raises:
            KeyError, ValueError, zlib.error: the parts are not those of such a model.
        """

        def numbers(name: str, dtype: str, width: int) -> NDArray[Any]:
            content = inflated(parts[name], n * width * np.dtype(dtype).itemsize)
            return np.frombuffer(content, dtype).reshape(n, width).astype(dtype[1:])

        missing = numbers("missing", "<u1", -(-dims // 8)) if "missing" in parts else None
        total = torch.from_numpy(numbers("total", "<f8", totals)) if totals else None
        c = torch.from_numpy(numbers("condition", "<f4", conditions)) if conditions else None
        return cls(n, dims, missing, total, c)
