"""The section of the report about disentanglement: measured scores per factor, and heat maps of latents and factors."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from vaekit import figures
from vaekit.metrics import METRICS

from . import numbers, sections  # noqa: F401 - their sections come first
from .blocks import Block, Table, plot
from .look import Look
from .registry import figure

LATENTS = 24
"""The maximum number of latents in a heat map: those with the largest numbers."""


@figure("factors", "The factors of each latent")
def factors_of_latents(look: Look) -> list[Block]:
    """The scores of disentanglement in metrics.json, per factor, and the numbers of each latent and factor."""
    best = numbers.best_known(look.run.metrics)
    scores = [name for name, metric in METRICS.items() if metric.family != "calibration"]
    measured = [best[name] for name in scores if name in best and "each" in best[name] and "matrix" in best[name]]
    if not measured:
        return []
    return [_table(measured), *_maps(measured)]


def _table(measured: list[dict[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for m in measured for name in m["each"]))
    rows = []
    for m in measured:
        interval = m.get("interval")
        each = [_value(m["each"].get(name)) for name in names]
        rows.append([numbers.label(m["name"]), numbers.number(m["value"], m["se"]), _ends(interval), *each])
    how = "; ".join(dict.fromkeys(m["interval"]["of"] for m in measured if "interval" in m))
    caption = "Each score, and its value for each factor (–: undefined). "
    caption += f"95% intervals from {how}: they do not include the scores' bias." if how else ""
    head = ["score", "value ± standard error", "95% interval", *names]
    return Table(head, rows, caption.strip(), numeric=range(1, len(head)))


def _ends(interval: dict[str, Any] | None) -> str:
    if interval is None:
        return "–"
    return f"{numbers.number(float(interval['low']))} to {numbers.number(float(interval['high']))}"


def _value(part: dict[str, Any] | None) -> str:
    return "–" if part is None or part["value"] is None else numbers.number(float(part["value"]))


def _maps(measured: list[dict[str, Any]]) -> list[Block]:
    """Heat maps, one figure for the scores of the same factors; equal matrices are shown once."""
    by_columns: dict[tuple[str, ...], dict[str, np.ndarray]] = {}
    for m in measured:
        panels = by_columns.setdefault(tuple(m["matrix"]["columns"]), {})
        values = np.array(m["matrix"]["values"], float)
        same = next((title for title, other in panels.items() if np.array_equal(values, other)), None)
        if same is None:
            panels[numbers.label(m["name"])] = values
    blocks: list[Block] = []
    for i, (columns, panels) in enumerate(by_columns.items()):
        top = np.max([values.max(1) for values in panels.values()], 0)
        shown = np.sort(np.argsort(-top, kind="stable")[:LATENTS])
        rows = [f"z{j}" for j in shown]
        chosen = {title: values[shown] for title, values in panels.items()}
        hidden = len(top) - len(shown)
        caption = (
            "What each score was computed from, one row per latent: mutual information as a share of the factor's "
            "entropy (MIG, modularity, InfoM) or of the information of all latents (MED), the importance for "
            "predicting the factor (DCI), accuracy or R^2 of the latent alone (SAP), votes (FactorVAE), how much less "
            "the latent varies with the factor fixed (beta-VAE), and weights of the classifier (explicitness, InfoE). "
            "In a disentangled code, each row and each column has one dark cell."
        )
        caption += f" {hidden} latents with lower numbers are not shown." if hidden else ""
        draw = partial(figures.matrices, chosen, rows, columns, "", 1.0)
        name = f"factors-{i + 1}" if i else "factors"
        blocks.append(plot(name, draw, "Heat maps of latents against factors, one map per score", caption))
    return blocks
