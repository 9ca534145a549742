"""Numbers as text: rounded as far as their error allows."""

from __future__ import annotations

import math


def number(value: float, se: float | None = None) -> str:
    """A value with its standard error, rounded to two digits of the error: −279.74 ± 0.97."""
    if isinstance(value, int) and se is None:
        return f"{value:,}"
    if se is not None and se > 0 and math.isfinite(se):
        digits = decimals(se)
        return f"{value:,.{digits}f} ± {se:.{digits}f}".replace("-", "−")
    return f"{value:,.2f}".replace("-", "−")


def decimals(error: float) -> int:
    """The number of decimals that show two digits of an error above 0, at most 8."""
    return min(8, max(0, 1 - math.floor(math.log10(error))))


def probability(p: float) -> str:
    """A p-value: `p = 0.012`, `p < 0.0001`."""
    if p < 1e-4:
        return "p < 0.0001"
    return f"p = {p:.2g}" if p < 0.095 else f"p = {p:.2f}"
