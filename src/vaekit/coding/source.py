"""The data of a run on their way into an archive: as raw numbers, as x and as whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaekit.errors import DataError
from vaekit.heads import Head
from vaekit.models.library import SizedVAE
from vaekit.runs.observed import Observed
from vaekit.runs.trained import TrainedModel

from .ans import Integers
from .scheme import Batch, Scheme

BLOCK = 500
EXACT = 2**24
"""The whole numbers below are exact in float32."""


def in_units(run: TrainedModel, x: Tensor, observed: bool, dtype: np.dtype[Any]) -> NDArray[Any]:
    """x (B, *event) as it is stored: in the units of the data and their dtype, or if `observed` as it is.

    Missing values are all the same nan, and 0 has no sign.
    """
    if observed:
        return canonical(x.float().numpy())
    raw = run.composition.observation.to_raw(x.float()).cpu().numpy()
    return np.rint(raw).astype(dtype) if dtype.kind in "biu" else canonical(raw.astype(dtype))


def canonical(raw: NDArray[Any]) -> NDArray[Any]:
    """Numbers with one form of nan and of 0."""
    return raw if raw.dtype.kind != "f" else np.where(np.isnan(raw), raw.dtype.type(np.nan), raw + raw.dtype.type(0))


def little(raw: NDArray[Any]) -> bytes:
    """The content of an array in little endian."""
    return np.ascontiguousarray(raw.astype(raw.dtype.newbyteorder("<"), copy=False)).tobytes()


class Source:
    """Data by row number.

    Arguments:
        run: the run.
        rows: its data.
        scheme: how they are coded.
        observed: whether x is stored in place of the raw numbers.
    """

    def __init__(self, run: TrainedModel, rows: Observed, scheme: Scheme, observed: bool):
        self.run, self.rows, self.scheme, self.observed = run, rows, scheme, observed

    def wanted(self, at: NDArray[np.int64], x: Tensor | None = None) -> NDArray[Any]:
        """The numbers that the archive must return for these rows, (B, *event)."""
        if self.observed:
            return in_units(self.run, self.rows(at) if x is None else x, True, np.dtype(np.float32))
        return canonical(self.rows.raw(at))

    def x(self, at: NDArray[np.int64]) -> Tensor:
        """x (B, *event), float64, nan where it is missing.

        Raises:
            DataError: x does not determine the data.
        """
        x = self.rows(at).cpu().double()
        if not self.observed:
            raw = self.wanted(at)
            again = in_units(self.run, x, False, raw.dtype)
            same = np.array_equal(again, raw, equal_nan=raw.dtype.kind == "f")
            if np.fmax.reduce(raw, None) >= EXACT and not (same and raw.dtype.kind in "iu"):
                raise DataError(
                    f"whole numbers from {EXACT:,} up are read as float32, which rounds them: leave these rows out, or "
                    "divide the column by a common factor"
                )
            if not same:
                raise DataError(
                    f"the run models the {self.run.composition.observation.kind!r} observation of these data, which "
                    "does not determine them: compress what it observes with `observed=True`, or train a run with a "
                    "likelihood of the data themselves, such as `likelihood='discretised-logistic'`"
                )
        return x

    def values(self, at: NDArray[np.int64], x: Tensor) -> Integers:
        """x as whole numbers (B, n), 0 where it is missing.

        Raises:
            DataError: the likelihood cannot have a value.
        """
        head = self.scheme.px.head
        assert isinstance(head, Head)
        present, known = ~torch.isnan(x.flatten(1)).numpy(), torch.nan_to_num(x, nan=0.0)
        flat, held = known.flatten(1).numpy(), self.scheme.held.ravel()
        differ = present & ~np.isnan(held) & (flat != held)
        if differ.any():
            row, element = (int(v) for v in np.argwhere(differ)[0])
            columns = self.run.columns
            name = f"column {columns[element].name!r}" if columns else f"element {element}"
            raise DataError(
                f"row {at[row]}, {name}, differs from the value that all training rows had, and any other has "
                "probability 0: leave this row out"
            )
        if not bool(head.support.check(known).all()) or (flat != np.round(flat)).any() or (flat < 0).any():
            raise DataError("these data have values that the likelihood of this run cannot have")
        found: Integers = flat.astype(np.int64)
        return found

    def batch(self, at: NDArray[np.int64], x: Tensor) -> Batch:
        """What the model takes as known of these rows."""
        total: Tensor | None = None
        if isinstance(self.scheme.exact, SizedVAE):
            total = torch.nan_to_num(x, nan=0.0).sum(-1, keepdim=True)
        return Batch(torch.isnan(x.flatten(1)).numpy(), self.rows.condition(at), total)

    def top(self, rows: NDArray[np.int64]) -> int:
        """The largest value of x in these rows."""
        parts = (self.x(rows[a : a + BLOCK]) for a in range(0, len(rows), BLOCK))
        return int(max(float(torch.nan_to_num(x, nan=0.0).max()) for x in parts))
