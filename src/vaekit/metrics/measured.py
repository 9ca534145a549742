"""Measured numbers as a list that a notebook shows as a table."""

from __future__ import annotations

import html
from typing import Any

from vaekit.utils.display import cells
from vaekit.utils.numerals import number

from .protocol import protocol_text, unlike
from .registry import METRICS


class Measured(list[dict[str, Any]]):
    """The entries {name, value, se, unit, protocol} of metrics: an ordinary list, with a display for notebooks."""

    def _repr_html_(self) -> str:
        if not self:
            return "<p>No metrics are stored.</p>"
        apart = unlike(self)
        head = ["metric", "value", "unit", "better", *(["protocol"] if apart else [])]
        rows = []
        for m in self:
            known = METRICS.get(m["name"])  # none for a metric of a plug-in that is not installed
            row = [m["name"], _value(m), m["unit"] or "", (known.better if known else None) or ""]
            own = {key: m["protocol"].get(key) for key in apart}
            rows.append([*row, protocol_text(own)] if apart else row)
        shared = {key: value for key, value in self[0]["protocol"].items() if key not in apart}
        note = f"{protocol_text(shared)}. ± is the standard error."
        return f"{cells(rows, head, [1])}<p><small>{html.escape(note)}</small></p>"


def _value(m: dict[str, Any]) -> str:
    """A value with its standard error, or with its interval if it has one."""
    value, se, interval = m["value"], m.get("se"), m.get("interval")
    if not isinstance(value, int | float):
        return "–" if value is None else str(value)
    text = f"{value:.2g}" if 0 < abs(value) < 0.01 and not se else number(value, se)
    if interval and not se:
        text += f" ({interval['low']:.3g} to {interval['high']:.3g})"
    return text
