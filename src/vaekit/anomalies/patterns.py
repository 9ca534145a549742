"""The effect of missing values on a score: a row with fewer values has another log p(x).

For runs that were trained with missing values. Rows with different values missing are compared by how far each score
lies from what is expected of rows that lack the same values, in standard deviations. Both are learned from training
rows, and anomalies among these have little influence (`vaekit.objectives.missing`). The expectation is linear in the
indicators of the values that are present, the variance in their number. Any such function of row and missing values
keeps the p-values valid, as long as new rows lack values in the same way as held-out rows. A good one finds more
anomalies for each pattern of missing values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vaekit.objectives.missing import regression


@dataclass(frozen=True)
class Pattern:
    """The expected score and its variance, given which values are present.

    Attributes:
        effect: (1 + D,) the constant, and the effect of each value that is present.
        spread: (2,) the constant of the variance, and the effect of the number of values that are present.
        floor: the least variance.
    """

    effect: np.ndarray
    spread: np.ndarray
    floor: float

    @classmethod
    def fit(cls, present: np.ndarray, score: np.ndarray) -> Pattern:
        """The pattern of the scores (n,) of rows whose values are `present`, bool (n, D)."""
        known = np.isfinite(score)
        present = present[known]
        found = regression(torch.from_numpy(present), torch.from_numpy(np.asarray(score[known], np.float64)))
        squares = found.bounded.square().numpy()
        count = np.stack([np.ones(len(present)), present.sum(1)], 1)
        spread = np.linalg.lstsq(count, squares, rcond=None)[0]
        return cls(found.effect.numpy(), spread, max(0.05 * float(squares.mean()), 1e-12))

    def relative(self, present: np.ndarray, score: np.ndarray) -> np.ndarray:
        """The scores (n,) in standard deviations from the expectation for these present values (n, D)."""
        present = present.astype(float)
        variance = np.maximum(self.spread[0] + self.spread[1] * present.sum(1), self.floor)
        return (score - self.effect[0] - present @ self.effect[1:]) / np.sqrt(variance)

    def arrays(self) -> dict[str, np.ndarray]:
        """The pattern as arrays by name, for `of`."""
        return {
            "pattern.effect": self.effect,
            "pattern.spread": self.spread,
            "pattern.floor": np.array([self.floor]),
        }

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> Pattern:
        """The pattern that `arrays` returned. Raises KeyError if it is not there."""
        return cls(arrays["pattern.effect"], arrays["pattern.spread"], float(arrays["pattern.floor"][0]))
