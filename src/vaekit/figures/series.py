"""Figures of data other than images: signals and vectors as lines, vectors also as heat maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import ChoiceError

from . import style
from .pictures import MISSING

Array = NDArray[Any]
NAMED = 14
"""The maximum number of features that are named on the axis."""


def _channels(x: Array) -> Array:
    """Signals (..., C, L) unchanged, vectors (..., D) as one channel: always (N, C, L)."""
    if x.ndim not in (2, 3):
        raise ChoiceError(f"expected signals (N, C, L) or vectors (N, D), got {x.shape}")
    return x[:, None] if x.ndim == 2 else x


def _grid(n: int, columns: int, named: bool, legend: bool = False) -> tuple[Any, list[Any]]:
    """n panels with shared axes; margins are fixed in inches, as a layout engine takes longer than the drawing."""
    columns = max(1, min(columns, n))
    rows = math.ceil(n / columns)
    bottom = 0.35 + 0.85 * named + 0.3 * legend
    width, height = 9.4, 1.3 * rows + bottom + 0.25
    figure = style.new_figure(width, height, None)
    figure.subplots_adjust(0.65 / width, bottom / height, 1 - 0.08 / width, 1 - 0.25 / height, wspace=0.09, hspace=0.36)
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel())
    for spare in axes[n:]:
        spare.set_visible(False)
    return figure, axes[:n]


def _name_features(axes: Any, names: Sequence[str] | None, d: int) -> None:
    if names is not None and len(names) == d and d <= NAMED:
        short = [name if len(name) <= 16 else name[:15] + "…" for name in map(str, names)]
        axes.set_xticks(range(d), short, rotation=90, fontsize=7)


def lines(
    x: Array,
    other: Array | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 4,
    labels: tuple[str, str] = ("data", "reconstruction"),
    names: Sequence[str] | None = None,
    unit: str = "",
) -> Any:
    """One small panel per datum; `other` adds a second line, to compare data with reconstructions.

    Arguments:
        x, other: signals (N, C, L), with one colour per channel, or vectors (N, D) over the index of the feature.
        titles: one per panel.
        columns: panels per row.
        labels: names of `x` and `other` in the legend.
        names: names of the features of vectors.
        unit: unit of the values.
    """
    first, second = _channels(x), None if other is None else _channels(other)
    if second is not None and second.shape != first.shape:
        raise ChoiceError(f"the two differ in shape, as (N, C, L): {first.shape} and {second.shape}")
    few = x.ndim == 2 and names is not None and first.shape[-1] <= NAMED
    figure, panels = _grid(len(first), columns, few, second is not None)
    t = style.current()
    marker = "." if first.shape[-1] <= 30 else ""
    for i, axes in enumerate(panels):
        for c in range(first.shape[1]):
            colour = style.PALETTE[c % len(style.PALETTE)]
            first_colour = t.muted if second is not None and first.shape[1] == 1 else colour
            alpha = 0.45 if second is not None and first.shape[1] > 1 else 1.0
            axes.plot(first[i, c], color=first_colour, linewidth=1.2, alpha=alpha, marker=marker, label=labels[0])
            if second is not None:
                axes.plot(second[i, c], color=colour, linewidth=1.4, marker=marker, label=labels[1])
        if titles is not None:
            axes.set_title(titles[i][:28], fontsize=8.5)
        _name_features(axes, names if x.ndim == 2 else None, first.shape[-1])
        axes.locator_params(axis="y", nbins=3)
    if second is not None:
        handles, texts = panels[0].get_legend_handles_labels()
        figure.legend(handles[:2], texts[:2], loc="lower left", ncols=2, borderaxespad=0.1)
    if unit:
        figure.supylabel(unit, x=0.008, fontsize=8.5, color=t.muted)
    return figure


def families(
    x: Array, titles: Sequence[str], muted: Sequence[bool] | None = None, columns: int = 4,
    names: Sequence[str] | None = None, unit: str = "",
) -> Any:  # fmt: skip
    """One panel per row of related data, coloured from dark blue to yellow: traversals and interpolations.

    Arguments:
        x: (R, V, C, L), of which the first channel is shown, or (R, V, D).
        titles: one per panel.
        muted: panels drawn in grey.
        columns: panels per row.
        names: names of the features of vectors.
        unit: unit of the values.
    """
    import matplotlib

    if x.ndim not in (3, 4):
        raise ChoiceError(f"expected (R, V, D) or (R, V, C, L), got {x.shape}")
    values = x if x.ndim == 3 else x[:, :, 0]
    few = x.ndim == 3 and names is not None and values.shape[-1] <= NAMED
    figure, panels = _grid(len(values), columns, few)
    t = style.current()
    ramp = matplotlib.colormaps["viridis"](np.linspace(0.08, 0.95, values.shape[1]))
    for i, axes in enumerate(panels):
        grey = muted is not None and muted[i]
        for line, colour in zip(values[i], ramp, strict=True):
            axes.plot(line, color=t.dead if grey else colour, linewidth=1.1)
        axes.set_title(titles[i][:30], fontsize=8.5, color=t.muted if grey else t.text)
        _name_features(axes, names if x.ndim == 3 else None, values.shape[-1])
        axes.locator_params(axis="y", nbins=3)
    if unit:
        figure.supylabel(unit, x=0.008, fontsize=8.5, color=t.muted)
    return figure


def heat(data: Array, reconstruction: Array, names: Sequence[str] | None = None, unit: str = "") -> Any:
    """Vectors, their reconstructions and the errors side by side, one row per datum, on one diverging colour scale.

    Missing values (nan) have the colour `pictures.MISSING`.

    Arguments:
        data, reconstruction: (N, D) in the same unit, preferably standardised.
        names: names of the features.
        unit: unit of the values.
    """
    import matplotlib

    if data.ndim != 2 or data.shape != reconstruction.shape:
        raise ChoiceError(f"expected two arrays (N, D) of one shape, got {data.shape} and {reconstruction.shape}")
    named = names is not None and data.shape[1] <= NAMED
    figure = style.new_figure(9.4, min(6.0, 1.1 + 0.14 * len(data)) + (0.8 if named else 0))
    limit = float(np.nanquantile(np.abs(data), 0.99)) or 1.0
    panels = figure.subplots(1, 3, sharey=True)
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="#{:02x}{:02x}{:02x}".format(*MISSING))
    error = reconstruction - data
    shown = (("data", data), ("reconstruction", reconstruction), ("reconstruction − data", error))
    for axes, (title, values) in zip(panels, shown, strict=True):
        image = axes.imshow(values, cmap=colours, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        axes.set_title(title)
        axes.grid(visible=False)
        axes.set_yticks([])
        axes.set_xlabel("" if named else "feature")
        _name_features(axes, names, data.shape[1])
    figure.colorbar(image, ax=panels, label=unit, fraction=0.03, pad=0.01)
    return figure
