"""The section of the report about calibration: ranks of true latents, coverage of q, and predictive checks."""

from __future__ import annotations

from typing import Any

import numpy as np

from vaekit import figures
from vaekit.metrics.calibration.ranks import LEVELS, SIMULATED

from . import factors, numbers  # noqa: F401 - the section of factors comes first
from .blocks import Block, Table, Text, plot
from .look import Look
from .registry import figure

SHOWN = 12
"""The maximum number of histograms: those of the latents with the smallest p-values."""
FALSE = 0.05


@figure("calibration", "Calibration")
def calibration(look: Look) -> list[Block]:
    """The metrics of the family `calibration` in metrics.json, in words, and as figures."""
    known = numbers.best_known(look.run.metrics)
    blocks: list[Block] = []
    if (ranks := known.get("sbc_p")) is not None and "matrix" in ranks:
        blocks += [Text(verdict(known)), _ranks(ranks)]
    if (coverage := known.get("sbc_coverage")) is not None and "matrix" in coverage:
        blocks.append(_coverage(coverage))
    if (checks := known.get("ppc_difference")) is not None and "each" in checks:
        blocks.append(_checks(checks, known.get("ppc_p")))
    return blocks


def verdict(known: dict[str, dict[str, Any]]) -> str:
    """Whether q(z|x) is the model's posterior on its own data, and if not, in which direction it is wrong."""
    p = known["sbc_p"]["value"]
    if p >= FALSE:
        return (
            f"On {SIMULATED:,} data of the model itself, q(z|x) is not significantly different from the posterior "
            f"(p = {p:.2g}, all latents together)."
        )
    text = f"On data of the model itself, q(z|x) is not the posterior (p = {p:.2g}, all latents together)"
    coverage = known.get("sbc_coverage", {})
    interval = coverage.get("interval")
    if interval is None:
        return f"{text}."
    held = coverage["each"][f"{LEVELS[-1]:.0%}"]["value"]
    said = "too sure" if interval["high"] < 0 else "too wide" if interval["low"] > 0 else ""
    about = f"its intervals are {said}: " if said else "its intervals have about the right coverage: "
    return f"{text}; {about}those of {LEVELS[-1]:.0%} hold {held:.1%} of the true latents."


def _ranks(ranks: dict[str, Any]) -> Block:
    matrix = ranks["matrix"]
    values = dict(zip(matrix["rows"], matrix["values"], strict=True))
    least = sorted(values, key=lambda name: ranks["each"][name]["value"])[:SHOWN]
    shown = {
        f"{name}, p = {ranks['each'][name]['value']:.2g}": np.array(values[name]) for name in values if name in least
    }
    caption = (
        f"Ranks of the true latents of {SIMULATED:,} simulated data among draws of q(z|x), from 0 to 1. They are flat "
        "if q is the posterior; a U shape means that q is too narrow, a hump that it is too wide, a slope that it is "
        "displaced. The band holds 95% of the bars of uniform ranks. p-values are corrected for the number of latents."
    )
    caption += f" The {len(values) - SHOWN} latents with larger p-values are not shown." if len(values) > SHOWN else ""
    return plot(
        "ranks", lambda: figures.rank_histograms(shown, SIMULATED), "Histograms of ranks, one per latent", caption
    )


def _coverage(coverage: dict[str, Any]) -> Block:
    matrix = coverage["matrix"]
    values = np.array(matrix["values"], float)
    caption = (
        f"How many of the true latents of {SIMULATED:,} simulated data lie in central intervals of q(z|x). "
        + "; ".join(
            f"{name}: {part['value']:.1%} ({part['low']:.1%} to {part['high']:.1%})"
            for name, part in coverage["each"].items()
        )
        + " (95% intervals)."
    )
    return plot(
        "coverage", lambda: figures.coverage_curve(LEVELS, values, matrix["rows"]),
        "Actual against nominal coverage of the intervals of q, one line per latent", caption,
    )  # fmt: skip


def _checks(checks: dict[str, Any], p: dict[str, Any] | None) -> Table:
    rows = []
    for name, part in checks["each"].items():
        corrected = "–" if p is None or name not in p.get("each", {}) else f"{p['each'][name]['value']:.2g}"
        ends = f"{numbers.number(part['low'])} to {numbers.number(part['high'])}"
        rows.append([name, numbers.number(part["value"], part["se"]), ends, corrected])
    caption = (
        "Draws of the model minus held-out data, in the mean of each statistic of a row, in standard deviations of "
        "that statistic over the data. Intervals hold all differences at once with 95%; p-values are corrected for the "
        f"number of statistics. {checks['protocol']['estimator']}."
    )
    return Table(["statistic", "difference", "interval", "p-value"], rows, caption, numeric=(1, 2, 3))
