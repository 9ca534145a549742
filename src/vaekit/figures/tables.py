"""Plots of the columns of tables: real rows beside synthetic ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import style
from .panels import WIDTH

Array = NDArray[Any]
ACROSS, NAMED, BINS = 4, 8, 24


def marginals(panels: Mapping[str, tuple[Array, Array, Sequence[str]]], titles: Mapping[str, str] | None = None) -> Any:
    """The distribution of each column in real rows (grey) and in synthetic rows (blue), as shares of the rows.

    The lowest and the highest bin of a number include everything below and above.

    Arguments:
        panels: name -> (real values (N,), synthetic values (M,), names of the categories); no names for numbers.
        titles: name -> a note after the name, such as its distance.
    """
    down = math.ceil(len(panels) / ACROSS)
    figure = style.new_figure(WIDTH, 1.75 * down + 0.35)
    grid = figure.subplots(down, ACROSS, squeeze=False).ravel()
    handles: list[Any] = []
    for axes, (name, (real, synthetic, categories)) in zip(grid, panels.items(), strict=False):
        note = (titles or {}).get(name, "")
        axes.set_title(f"{name if len(name) <= 18 else name[:17] + '…'} {note}".strip(), fontsize=8.5)
        draw = _categories if len(categories) else _numbers
        handles = draw(axes, real[~np.isnan(real)], synthetic[~np.isnan(synthetic)], categories)
        axes.grid(axis="x", visible=False)
        axes.locator_params(axis="y", nbins=3)
        axes.tick_params(labelsize=7)
        axes.yaxis.set_major_formatter(lambda v, _: f"{100 * v:g}%")
    for spare in grid[len(panels) :]:
        spare.set_visible(False)
    figure.legend(handles, ["real rows", "synthetic rows"], loc="outside lower center", ncols=2)
    return figure


def _numbers(axes: Any, real: Array, synthetic: Array, categories: Sequence[str]) -> list[Any]:
    low, high = np.quantile(real, [0.005, 0.995]) if len(real) else (0.0, 1.0)
    if not high > low:
        low, high = low - 0.5, low + 0.5
    if (real == np.round(real)).all():  # bins of equally many whole numbers, so that none is empty by rounding
        width = max(1, math.ceil((high - low + 1) / BINS))
        edges = np.arange(np.floor(low), np.ceil(high) + width + 1, width) - 0.5
    else:
        edges = np.linspace(low, high, BINS + 1)
    shares = [np.histogram(np.clip(x, edges[0], edges[-1]), edges)[0] / max(1, len(x)) for x in (real, synthetic)]
    bars = axes.stairs(shares[0], edges, fill=True, color=style.current().dead)
    line = axes.stairs(shares[1], edges, color=style.BLUE, linewidth=1.4)
    axes.locator_params(axis="x", nbins=4)
    return [bars, line]


def _categories(axes: Any, real: Array, synthetic: Array, categories: Sequence[str]) -> list[Any]:
    counts = [np.bincount(x.astype(int), minlength=len(categories)) / max(1, len(x)) for x in (real, synthetic)]
    order = np.argsort(-counts[0], kind="stable")[:NAMED]
    places = np.arange(len(order))
    bars = axes.bar(places - 0.2, counts[0][order], 0.38, color=style.current().dead)
    others = axes.bar(places + 0.2, counts[1][order], 0.38, color=style.BLUE)
    names = [str(categories[i]).strip() for i in order]
    axes.set_xticks(places, [name if len(name) <= 11 else name[:10] + "…" for name in names], rotation=35,
                    ha="right", rotation_mode="anchor", fontsize=6.5)  # fmt: skip
    return [bars, others]
