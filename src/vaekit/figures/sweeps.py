"""Figures of a sweep: the metric against each option, and the learning curves of all trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import style
from .panels import WIDTH


def slices(
    panels: Mapping[str, tuple[Sequence[Any], ArrayLike]], y: str, best: int | None = None, log: Sequence[str] = ()
) -> Any:
    """The value of each trial against each option, in one small panel per option; later trials are darker.

    Arguments:
        panels: option -> (settings, values), each (N,); a setting is a number, a name, or None where the option does
            not apply.
        y: label of the values.
        best: the position of the trial that is marked.
        log: the options with a logarithmic axis.
    """
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    figure = style.new_figure(WIDTH if across > 1 else 5.4, 2.7 * down + 0.2)
    for i, (axes, (name, (settings, values))) in enumerate(
        zip(figure.subplots(down, across, squeeze=False, sharey=True).ravel(), panels.items(), strict=False)
    ):
        used = [k for k, setting in enumerate(settings) if setting is not None]
        given = [settings[k] for k in used]
        if any(isinstance(one, str | bool) for one in given):
            names = sorted(dict.fromkeys(map(str, given)))
            x = [names.index(str(one)) for one in given]
            axes.set_xticks(range(len(names)), [n if len(n) <= 14 else n[:13] + "…" for n in names])
            axes.set_xlim(-0.6, len(names) - 0.4)
        else:
            x = given
            if name in log:
                axes.set_xscale("log")
        shade = [0.25 + 0.65 * k / max(len(settings) - 1, 1) for k in used]
        axes.scatter(x, np.asarray(values, float)[used], s=26, color=style.BLUE, alpha=shade, linewidths=0)
        if best in used:
            where = used.index(best)
            axes.scatter([x[where]], [np.asarray(values, float)[best]], s=70, facecolors="none",
                         edgecolors=style.ORANGE, linewidths=2, label="best", zorder=3)  # fmt: skip
        axes.set_xlabel(name)
        if i % across == 0:
            axes.set_ylabel(y)
    for axes in figure.axes[len(panels) :]:
        axes.set_visible(False)
    return figure


def trial_curves(
    curves: Sequence[tuple[ArrayLike, ArrayLike]], y: str, pruned: Sequence[int] = (), best: int | None = None
) -> Any:
    """The learning curve of every trial: pruned ones in grey, the best one in front.

    The vertical range leaves out the first tenth of the longest training, and values far below the others.

    Arguments:
        curves: (step, value) of each trial.
        y: label of the values.
        pruned: the positions of the trials that were pruned or failed.
        best: the position of the best trial.
    """
    figure = style.new_figure(WIDTH, 3.3)
    axes = figure.subplots()
    t, late = style.current(), []
    end = max((float(np.max(step)) for step, _ in curves if len(np.atleast_1d(step))), default=1.0)
    labelled: set[str] = set()
    for i, (step, value) in enumerate(curves):
        x, v = np.asarray(step, float), np.asarray(value, float)
        kind = "best" if i == best else "pruned" if i in pruned else "finished"
        colour = {"best": style.ORANGE, "pruned": t.dead, "finished": style.BLUE}[kind]
        axes.plot(x, v, color=colour, linewidth=2.4 if i == best else 1.1, alpha=1 if i == best else 0.8,
                  marker="o" if len(x) == 1 else "", markersize=3, zorder={"best": 4, "finished": 3, "pruned": 2}[kind],
                  label=None if kind in labelled else kind)  # fmt: skip
        labelled.add(kind)
        late += v[(x >= 0.1 * end) & np.isfinite(v)].tolist()
    if late:
        low, high = float(np.percentile(late, 5)), max(late)
        pad = 0.08 * (high - low) or max(1e-6, 0.01 * abs(high))
        axes.set_ylim(low - pad, high + pad)
    axes.set_xlabel("step")
    axes.set_ylabel(y)
    if labelled:
        axes.legend(loc="best")
    return figure
