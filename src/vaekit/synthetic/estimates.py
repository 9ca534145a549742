"""Estimates with intervals, and measures of synthetic rows beside the same measures of real ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.utils.uncertainty import Area, t_quantile

Array = NDArray[Any]
Part = Literal["columns", "pairs", "usefulness", "detectability", "privacy"]
Z = t_quantile(0.05, math.inf)
"""Half the width of a normal 95% interval, in standard errors."""
CLEAR = t_quantile(0.01, math.inf)
"""The number of standard errors of a clear difference; at 95%, one of a dozen measures would often differ by chance."""


class Estimate(NamedTuple):
    """A number with its standard error and its 95% interval."""

    value: float
    se: float
    low: float
    high: float

    @classmethod
    def normal(cls, value: float, se: float | None, low: float = -math.inf, high: float = math.inf) -> Estimate:
        """An estimate with a normal interval that is cut off at the bounds `low` and `high` of the number."""
        error = math.nan if se is None else se
        return cls(value, error, max(low, value - Z * error), min(high, value + Z * error))

    @classmethod
    def of_draws(cls, values: Array, low: float = -math.inf, high: float = math.inf) -> Estimate:
        """An estimate, the first of the values (1 + B,), with the standard deviation of B bootstrap draws of it."""
        return cls.normal(float(values[0]), float(np.std(values[1:], ddof=1)), low, high)

    @classmethod
    def of_area(cls, area: Area) -> Estimate:
        """An area under a ROC curve."""
        return cls(*area)

    def as_json(self) -> dict[str, float | None]:
        """The number, its standard error and its interval; None for one that is unknown."""
        return {name: value if math.isfinite(value) else None for name, value in self._asdict().items()}


@dataclass(frozen=True)
class Measure:
    """One measure of synthetic rows, beside the same measure of as many real rows.

    Attributes:
        name: a short name.
        part: what it measures: "columns", "pairs", "usefulness", "detectability" or "privacy".
        estimate: of the synthetic rows.
        floor: of real rows in their place; None if there are no rows left for it.
        help: what the number is, in one sentence.
        ideal: the number that rows of the same distribution have on average, if that is known without a floor.
        better: the direction in which rows are better.
    """

    name: str
    part: Part
    estimate: Estimate
    floor: Estimate | None
    help: str
    ideal: float | None = None
    better: Literal["lower", "higher"] = "lower"

    @property
    def excess(self) -> Estimate | None:
        """How much worse the synthetic rows are than real ones: than the ideal, or else than the floor.

        None if neither is known. Both are measured on the same test rows, so the interval is rather too wide.
        """
        base = self.floor if self.ideal is None else Estimate.normal(self.ideal, 0.0)
        if base is None:
            return None
        sign = 1 if self.better == "lower" else -1
        return Estimate.normal(sign * (self.estimate.value - base.value), math.hypot(self.estimate.se, base.se))

    @property
    def verdict(self) -> str:
        """Worse, like real, better or unknown: by the 99% interval of the `excess`."""
        excess = self.excess
        if excess is None or not math.isfinite(excess.se):
            return "unknown"
        if abs(excess.value) <= CLEAR * excess.se:
            return "like real"
        return "worse" if excess.value > 0 else "better"

    def as_json(self) -> dict[str, Any]:
        """The measure as it is stored in synthetic.json."""
        return {
            "name": self.name,
            "part": self.part,
            **self.estimate.as_json(),
            "floor": None if self.floor is None else self.floor.as_json(),
            "ideal": self.ideal,
            "better": self.better,
            "verdict": self.verdict,
            "help": self.help,
        }
