"""Figures that compare settings, each trained with one or more seeds: intervals, differences and learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import style
from .panels import WIDTH

Array = NDArray[Any]


@dataclass(frozen=True)
class Mark:
    """A value with its interval from `low` to `high` if known, and the values of single runs as small points.

    `faint` marks a value as unremarkable, such as a difference that may be chance.
    """

    value: float
    low: float | None = None
    high: float | None = None
    each: Sequence[float] = field(default_factory=tuple)
    faint: bool = False


def intervals(
    panels: Mapping[str, Mapping[str, Mark]],
    units: Mapping[str, str],
    zero: bool = False,
    settings: Sequence[str] | None = None,
) -> Any:
    """Values with their intervals: one small panel per metric, one line per setting, in the settings' own colours.

    Arguments:
        panels: title -> setting -> mark; a setting has the same colour and line in all panels.
        units: the label of each panel's axis.
        zero: show a line at 0, for differences.
        settings: all settings, whose order decides the colours; by default those that have a mark.
    """
    marked = dict.fromkeys(name for marks in panels.values() for name in marks)
    colours = {name: style.class_style(i)[0] for i, name in enumerate(settings or marked)}
    names = [name for name in colours if name in marked]
    across = min(len(panels), 3)
    down = math.ceil(len(panels) / across)
    left = 0.35 + 0.075 * min(34, max(map(len, names)))  # inches, for the names
    high = 0.24 * len(names) + 0.78
    figure = style.new_figure(WIDTH, down * high + 0.05, None)
    gap, cell = 0.28, (WIDTH - left - 0.1 - 0.28 * (across - 1)) / across
    t = style.current()
    for i, (title, marks) in enumerate(panels.items()):
        x, y = left + (i % across) * (cell + gap), down * high - (i // across + 1) * high + 0.48
        axes = figure.add_axes((x / WIDTH, y / (down * high + 0.05), cell / WIDTH,
                                (high - 0.76) / (down * high + 0.05)))  # fmt: skip
        for row, name in enumerate(names):
            if name in marks:
                _mark(axes, row, marks[name], t.muted if marks[name].faint else colours[name])
        if zero:
            axes.axvline(0, color=t.muted, linewidth=1, zorder=1)
        shown = (
            [name if len(name) <= 34 else name[:33] + "…" for name in names] if i % across == 0 else [""] * len(names)
        )
        axes.set_yticks(np.arange(len(names)), shown, fontsize=8.5)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0, labelcolor=t.text)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_title(title, fontsize=9.5)
        axes.set_xlabel(units.get(title, ""), fontsize=8)
        axes.margins(x=0.12)
        low, high_end = axes.get_xlim()
        if high_end - low < 1e-9 * max(1.0, abs(low)) or all(m.low is None and m.value == 0 for m in marks.values()):
            axes.set_xlim(low - 1, low + 1)  # equal values without an interval
        axes.locator_params(axis="x", nbins=4)
        axes.xaxis.get_major_formatter().set_useOffset(False)
    return figure


def _mark(axes: Any, row: int, mark: Mark, colour: str) -> None:
    if mark.low is not None and mark.high is not None:
        axes.plot([mark.low, mark.high], [row, row], color=colour, linewidth=2.2, solid_capstyle="round", zorder=2)
    if len(mark.each) > 1:
        axes.scatter(mark.each, np.full(len(mark.each), row), s=13, color=style.current().surface, edgecolors=colour,
                     linewidths=1, zorder=4)  # fmt: skip
    axes.scatter([mark.value], [row], s=34, color=colour, zorder=3)


def seed_curves(
    settings: Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]],
    y: str,
    axes_of_x: Mapping[str, Mapping[str, Sequence[ArrayLike]]],
) -> Any:
    """Learning curves of all runs: a thin line for each run, in the colour of its setting.

    The vertical range is that of the last nine tenths of training, because the steep start would flatten the rest.

    Arguments:
        settings: name -> (step, value) of each run.
        y: label of the values.
        axes_of_x: label -> setting -> what is on the horizontal axis for each run, one panel for each label.
    """
    figure = style.new_figure(WIDTH, 3.3 + 0.2 * math.ceil(len(settings) / 3))
    panels = figure.subplots(1, len(axes_of_x), squeeze=False, sharey=True)[0]
    late: list[float] = []
    for panel, (label, horizontal) in zip(panels, axes_of_x.items(), strict=True):
        for i, (name, curves) in enumerate(settings.items()):
            colour, _ = style.class_style(i)
            for r, ((step, value), x) in enumerate(zip(curves, horizontal[name], strict=True)):
                panel.plot(x, value, color=colour, linewidth=1.3, alpha=0.85, label=name if r == 0 else None)
                kept = np.asarray(value, float)[np.asarray(step, float) >= 0.1 * np.max(step)]
                late += kept[np.isfinite(kept)].tolist()
        panel.set_xlabel(label)
        panel.locator_params(axis="x", nbins=6)
    if late:
        pad = 0.06 * (max(late) - min(late)) or 1.0
        panels[0].set_ylim(min(late) - pad, max(late) + pad)
    panels[0].set_ylabel(y)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(3, len(names)))
    return figure
