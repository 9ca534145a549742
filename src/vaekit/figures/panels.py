"""Plots that compare models: curves with bands, bars, matrices and maps, as matplotlib figures from arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.errors import ChoiceError

from . import style

Array = NDArray[Any]
WIDTH = 9.4  # inches: the width of a page's column


@dataclass(frozen=True)
class Line:
    """y over x, both (n,), with a band from `low` to `high` if given; `dashed` marks a second kind of line.

    `like` names the line whose colour it shares (its counterpart of the other kind).
    """

    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    dashed: bool = False
    like: str | None = None


def curves(
    panels: Mapping[str, Mapping[str, Line]],
    x: str,
    y: str | Sequence[str],
    log_x: bool = False,
    log_y: bool = False,
    levels: Mapping[str, float] | None = None,
    height: float = 3.3,
    marked: bool = True,
    limits: tuple[float, float] | None = None,
    shared: bool = False,
) -> Any:
    """Lines in panels side by side, with one legend for all of them below.

    Arguments:
        panels: title -> name -> line; a name has the same colour and marker in all panels.
        x, y: labels of the axes, with units; y is one label per panel or one for all.
        levels: horizontal lines in every panel, by name.
        marked: draw markers at the points of lines that have few.
        limits: the range of y in all panels.
        shared: use one range of y for all panels.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    with_colour = [
        name for name in names if all(lines[name].like is None for lines in panels.values() if name in lines)
    ]
    figure = style.new_figure(WIDTH if len(panels) > 1 else 6.6, height + 0.22 * math.ceil(len(names) / 4))
    all_axes = figure.subplots(1, len(panels), squeeze=False, sharey=shared or limits is not None)[0]
    t = style.current()
    for position, (axes, (title, lines)) in enumerate(zip(all_axes, panels.items(), strict=True)):
        for name, line in lines.items():
            colour, marker = style.class_style(with_colour.index(line.like or name))
            few = marked and np.size(line.x) <= 24
            axes.plot(
                line.x, line.y, color=colour, marker=marker if few else "", markersize=4, label=name,
                linestyle="--" if line.dashed else "-",
            )  # fmt: skip
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
        for name, value in (levels or {}).items():
            axes.axhline(value, color=t.muted, linewidth=1, linestyle=":")
            if position == 0:
                axes.annotate(name, (0.02, value), xycoords=("axes fraction", "data"), fontsize=7.5, color=t.muted,
                              va="bottom", annotation_clip=False)  # fmt: skip
        if log_x:
            _logarithmic(axes, len(panels))
        if log_y:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
            axes.yaxis.set_minor_formatter(lambda v, _: "")
        if limits is not None:
            axes.set_ylim(*limits)
        axes.set_title(title)
        axes.set_xlabel(x)
        label = y if isinstance(y, str) else y[position]
        if position == 0 or not isinstance(y, str):
            axes.set_ylabel(label)
    _legend(figure, all_axes)
    return figure


def _logarithmic(axes: Any, panels: int) -> None:
    """A logarithmic x axis with few labels, whatever its range: 500, 20k, 1M."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for subs in ((1,), (1, 3), (1, 2, 5)):
        ticks = [s * 10.0**p for p in powers for s in subs if low <= s * 10.0**p <= high]
        if len(ticks) > 1:
            break
    ticks = ticks or [low, high]
    axes.set_xticks(ticks[:: math.ceil(len(ticks) / max(3, 12 // panels))], minor=False)
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(lambda v, _: _short(v))


def _short(value: float) -> str:
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def _legend(figure: Any, all_axes: Any) -> None:
    handles: dict[str, Any] = {}
    for axes in all_axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    if len(handles) > 1:
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=min(4, len(handles)))


def scatter(
    groups: Mapping[str, tuple[ArrayLike, ArrayLike]], x: str, y: str, joined: bool = False, equal_sum: bool = False
) -> Any:
    """Points of several groups in one plane, each group in its colour and marker.

    Arguments:
        groups: name -> (x, y), each (n,).
        joined: draw a thin line through the points of each group, in their order.
        equal_sum: draw thin lines of constant x + y, which in the plane of rate and distortion have constant ELBO.
    """
    figure = style.new_figure(6.2, 4.2)
    axes = figure.subplots()
    t = style.current()
    for i, (name, (a, b)) in enumerate(groups.items()):
        colour, marker = style.class_style(i)
        axes.plot(a, b, color=colour, marker=marker, markersize=6, linewidth=0.9 if joined else 0, label=name, zorder=3)
    if equal_sum:
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        for total in np.linspace(left + low, right + high, 9)[1:-1]:
            axes.axline((left, total - left), slope=-1, color=t.line, linewidth=0.9, zorder=1)
        axes.set_xlim(left, right)
        axes.set_ylim(low, high)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(loc="best")
    return figure


def bars(
    groups: Mapping[str, Sequence[float]], names: Sequence[str], y: str, errors: Mapping[str, ArrayLike] | None = None
) -> Any:
    """Bars side by side for each of `names`, with one colour per group.

    Arguments:
        groups: name -> one value for each of `names`.
        errors: standard errors of the same shape.
    """
    figure = style.new_figure(WIDTH, 3.0)
    axes = figure.subplots()
    width = 0.8 / len(groups)
    for i, (group, values) in enumerate(groups.items()):
        position = np.arange(len(names)) + (i - (len(groups) - 1) / 2) * width
        error = None if errors is None else np.nan_to_num(np.asarray(errors[group], float))
        axes.bar(position, values, 0.92 * width, color=style.class_style(i)[0], label=group, yerr=error,
                 error_kw={"elinewidth": 1, "ecolor": style.current().muted})  # fmt: skip
    axes.set_xticks(np.arange(len(names)), [n if len(n) <= 22 else n[:21] + "…" for n in names])
    axes.grid(axis="x", visible=False)
    axes.set_ylabel(y)
    if len(groups) > 1:
        axes.legend(loc="best", ncols=min(4, len(groups)))
    return figure


def error_spans(spans: Mapping[str, tuple[float, float]], label: str, linear: float = 1.0) -> Any:
    """Horizontal intervals about 0, one row for each name; the axis is logarithmic beyond `linear`.

    Arguments:
        spans: (low, high) by name, in the order of the rows.
    """
    figure = style.new_figure(7.4, 0.9 + 0.3 * len(spans))
    axes = figure.subplots()
    t = style.current()
    axes.axvline(0, color=t.muted, linewidth=1)
    for i, (low, high) in enumerate(spans.values()):
        axes.plot([low, high], [i, i], color=style.BLUE, linewidth=3, solid_capstyle="butt")
        axes.plot([low, high], [i, i], "|", color=style.BLUE, markersize=9, markeredgewidth=2)
    axes.set_yticks(range(len(spans)), list(spans))
    axes.set_ylim(len(spans) - 0.4, -0.6)
    largest = max((abs(v) for span in spans.values() for v in span), default=1.0)
    if largest > linear:
        axes.set_xscale("symlog", linthresh=linear)
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}".replace("-", "−"))
    return figure


def matrices(
    panels: Mapping[str, Array],
    rows: Sequence[str] | Mapping[str, Sequence[str]],
    columns: Sequence[str],
    unit: str,
    top: float | None = None,
) -> Any:
    """Non-negative matrices (R, C) as heat maps on one scale, with the numbers in the cells if there is room.

    Arguments:
        rows: names of the rows, for all panels or for each panel by its name.
        top: the number that gets the darkest colour; by default the largest.
    """
    named = rows if isinstance(rows, Mapping) else dict.fromkeys(panels, rows)
    shapes = {values.shape for values in panels.values()}
    high = len(next(iter(named.values())))
    if shapes != {(high, len(columns))} or {len(names) for names in named.values()} != {high}:
        raise ChoiceError(f"matrices of {high} rows and {len(columns)} columns are needed, got {shapes}")
    top = top or max(float(np.nanmax(values)) for values in panels.values()) or 1.0
    across = min(len(panels), 3)
    down = math.ceil(len(panels) / across)
    figure = style.new_figure(WIDTH, down * (0.9 + 0.26 * high))
    grid = figure.subplots(down, across, squeeze=False, sharey=named is not rows).ravel()
    for axes, (title, values) in zip(grid, panels.items(), strict=False):
        image = axes.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto")
        axes.set_title(title)
        axes.grid(visible=False)
        narrow = across * max(map(len, columns)) * len(columns) > 100
        turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if narrow else {}
        axes.set_xticks(np.arange(len(columns)), columns, fontsize=7.5, **turned)
        axes.set_yticks(np.arange(high), named[title], fontsize=7.5)
        if len(columns) * across <= 24:
            for (r, c), value in np.ndenumerate(values):
                colour = "#ffffff" if value > 0.6 * top else "#1d2329"
                axes.text(c, r, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
    for spare in grid[len(panels) :]:
        spare.set_visible(False)
    figure.colorbar(image, ax=list(grid), label=unit, fraction=0.025, pad=0.01)
    return figure


def maps(panels: Mapping[str, Array], label: ArrayLike | None = None, names: Sequence[str] | None = None) -> Any:
    """Maps (N, 2) of the same data side by side, with one colour and marker per class; the axes have no meaning.

    Arguments:
        label: (N,) class numbers, -1 where unknown.
        names: names of the classes.
    """
    across = min(len(panels), 3)
    down = math.ceil(len(panels) / across)
    codes = np.full(len(next(iter(panels.values()))), -1) if label is None else np.asarray(label)
    classes = [int(c) for c in np.unique(codes)]
    figure = style.new_figure(WIDTH, 3.2 * down + (0.22 * math.ceil(len(classes) / 5) if classes != [-1] else 0))
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (title, points) in zip(grid, panels.items(), strict=False):
        for c in classes:
            colour, marker = (style.current().muted, "o") if c < 0 else style.class_style(c)
            name = "no label" if c < 0 else str(names[c])[:24] if names is not None else str(c)
            axes.scatter(
                *points[codes == c].T, s=9, color=colour, marker=marker, alpha=0.7, linewidths=0, label=name,
                rasterized=True,
            )  # fmt: skip
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
    for spare in grid[len(panels) :]:
        spare.set_visible(False)
    if classes != [-1]:
        handles, texts = grid[0].get_legend_handles_labels()
        figure.legend(handles[:25], texts[:25], loc="outside lower center", ncols=5, markerscale=1.8)
    return figure
