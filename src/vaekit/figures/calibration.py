"""Figures of calibration: histograms of ranks, and actual against nominal coverage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.errors import ChoiceError

from . import style

Array = NDArray[Any]


def rank_histograms(shares: Mapping[str, ArrayLike], n: int, columns: int = 4) -> Any:
    """Histograms of ranks, which are flat for a calibrated q, with the range of 95% of the bars of uniform ranks.

    A U shape means a q that is too narrow, a hump one that is too wide, and a slope one that is displaced.

    Arguments:
        shares: name of a latent -> the share of its ranks in each bin, in units of the uniform share, (bins,).
        n: the number of ranks.
    """
    if not shares:
        raise ChoiceError("a histogram of ranks needs a latent or more")
    across = min(columns, len(shares))
    down = math.ceil(len(shares) / across)
    figure = style.new_figure(9.4 if across > 1 else 4.6, 0.4 + 1.7 * down)
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    t = style.current()
    for axes, (name, values) in zip(grid, shares.items(), strict=False):
        height = np.asarray(values, float)
        bins = len(height)
        reach = 1.96 * math.sqrt(bins * (1 - 1 / bins) / n)
        axes.axhspan(1 - reach, 1 + reach, color=t.muted, alpha=0.22, linewidth=0)
        axes.axhline(1.0, color=t.muted, linewidth=1)
        axes.bar((np.arange(bins) + 0.5) / bins, height, 0.94 / bins, color=style.BLUE)
        axes.set_title(name)
        axes.grid(axis="x", visible=False)
        axes.set_xlim(0, 1)
    for spare in grid[len(shares) :]:
        spare.set_visible(False)
    for axes in grid[max(0, len(shares) - across) : len(shares)]:
        axes.set_xlabel("rank of the true latent")
    grid[0].set_ylabel("share / uniform")
    return figure


def coverage_curve(nominal: Sequence[float], actual: ArrayLike, names: Sequence[str], most: int = 24) -> Any:
    """Actual against nominal coverage of central intervals, one thin line per latent and their mean.

    Below the diagonal q is too sure, above it too wide.

    Arguments:
        nominal: (L,) levels.
        actual: (D, L) shares.
        names: (D,) of the latents; up to six are named.
        most: maximum number of thin lines.
    """
    x, y = np.asarray(nominal, float), np.asarray(actual, float)
    if y.shape != (len(names), len(x)):
        raise ChoiceError(f"shares of {len(names)} latents at {len(x)} levels are needed, got shape {y.shape}")
    figure = style.new_figure(4.6, 3.6)
    axes = figure.subplots()
    t = style.current()
    low = float(min(x.min(), y.min())) - 0.03
    axes.plot([low, 1], [low, 1], color=t.muted, linewidth=1, linestyle=":", label="calibrated")
    for i, (name, line) in enumerate(zip(names[:most], y, strict=False)):
        few = len(names) <= 6
        colour = style.class_style(i + 1)[0] if few else t.dead
        axes.plot(x, line, color=colour, linewidth=1, marker="o", markersize=3, label=name if few else None)
    axes.plot(x, y.mean(0), color=style.BLUE, marker="s", markersize=5, label="mean of the latents")
    axes.set_xlabel("nominal coverage")
    axes.set_ylabel("actual coverage")
    axes.legend(loc="upper left")
    return figure
