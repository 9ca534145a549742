"""The observation of counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.distributions import constraints

from vaekit.errors import DataError
from vaekit.noise import Noise

from .base import Observation


class Counts(Observation):
    """x = raw, for counts: whole numbers from 0 up."""

    kind = "counts"
    support = constraints.nonnegative_integer

    @staticmethod
    def positive(constant: Sequence[tuple[int, float]]) -> dict[int, float]:
        """The constants above 0; a count that was always 0 is left to its likelihood, since it may occur later."""
        return {position: value for position, value in constant if value > 0}

    def hold(self, constant: Sequence[tuple[int, float]]) -> dict[int, float]:
        return self.positive(constant)

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return raw.float()

    def check(self, raw: np.ndarray) -> None:
        with np.errstate(invalid="ignore"):
            wrong = ~np.isnan(raw) & ~((raw >= 0) & (raw == np.round(raw)) & np.isfinite(raw))
        if wrong.any():
            position = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise DataError(f"counts must be whole numbers from 0 up, got {raw[position]:g} in row {position[0]}")

    def to_raw(self, x: Tensor) -> Tensor:
        return x.float()
