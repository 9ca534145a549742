"""Plots of numbers: curves, bars, histograms and maps of latents, as matplotlib figures from arrays.

Create and save the figures inside `theme(...)`. No function opens a window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.errors import ChoiceError

from . import style

Array = NDArray[Any]
NAMED = 24
"""The maximum number of classes in a legend."""


def training_curves(
    train: Mapping[str, Array],
    valid: Mapping[str, Array],
    epoch_steps: float | None = None,
    floor: float | None = None,
) -> Any:
    """ELBO, distortion and rate of training and validation against the step; one panel for each that is given.

    The vertical range is that of the last nine tenths of training, because the steep start would flatten the rest.

    Arguments:
        train, valid: "step" and some of "elbo", "distortion", "rate", each (n,), in nats per datum; may be empty.
        epoch_steps: steps per epoch; adds an axis of epochs.
        floor: entropy of the observation in nats per datum: its negative is an upper limit of the ELBO.
    """
    titles = {"elbo": "ELBO (higher is better)", "distortion": "distortion, −log p(x|z)", "rate": "rate, KL(q ‖ p)"}
    titles = {name: title for name, title in titles.items() if name in train or name in valid} or titles
    figure = style.new_figure(9.4 if len(titles) > 1 else 5.4, 3)
    for axes, (name, title) in zip(figure.subplots(1, len(titles), squeeze=False)[0], titles.items(), strict=True):
        axes.set_title(title)
        late: list[float] = []
        for label, records, colour in (("training", train, style.BLUE), ("validation", valid, style.ORANGE)):
            if name not in records or not len(records["step"]):
                continue
            step, value = np.asarray(records["step"], float), np.asarray(records[name], float)
            marker = "o" if len(step) < 12 else ""
            axes.plot(step, value, color=colour, label=label, marker=marker, markersize=4)
            late += value[step >= 0.1 * step.max()].tolist()
        late = [v for v in late if math.isfinite(v)]
        if name == "elbo" and floor is not None and floor > 0:
            axes.axhline(-floor, color=style.current().muted, linewidth=1, linestyle="--", label="entropy of the draw")
            late.append(-floor)
        if late:
            low, high = min(late), max(late)
            pad = 0.06 * (high - low) or max(1e-6, 0.01 * abs(high))
            axes.set_ylim(low - pad, high + pad)
        axes.set_xlabel("step")
        axes.locator_params(axis="x", nbins=5)
        if name == next(iter(titles)):
            axes.set_ylabel("nats per example")
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="best")
        if epoch_steps:
            top = axes.secondary_xaxis(-0.27, functions=(lambda s: s / epoch_steps, lambda e: e * epoch_steps))
            top.set_xlabel("epoch")
            top.spines["bottom"].set_visible(False)
            top.locator_params(axis="x", nbins=5)
    return figure


def compared_curves(runs: Mapping[str, Mapping[str, Array]], against: str = "step") -> Any:
    """The validation ELBO of several runs over `against`, which is "step" or "seconds"."""
    figure = style.new_figure(9.4, 3.4)
    axes = figure.subplots()
    late: list[float] = []
    for i, (name, records) in enumerate(runs.items()):
        step, value = np.asarray(records[against], float), np.asarray(records["elbo"], float)
        colour, marker = style.class_style(i)
        axes.plot(step, value, color=colour, marker=marker, markersize=4, label=name)
        late += value[step >= 0.1 * step.max()].tolist() if len(step) else []
    late = [v for v in late if math.isfinite(v)]
    if late:
        pad = 0.06 * (max(late) - min(late)) or 1.0
        axes.set_ylim(min(late) - pad, max(late) + pad)
    axes.set_xlabel(against)
    axes.set_ylabel("validation ELBO, nats per example")
    axes.legend(loc="best")
    return figure


def rate_distortion(points: Mapping[str, tuple[float, float]]) -> Any:
    """Runs in the plane of rate and distortion (nats per datum), each with its line of equal ELBO.

    Alemi et al. (2018), arXiv:1711.00464.

    Arguments:
        points: name -> (rate, distortion).
    """
    figure = style.new_figure(5.4, 4)
    axes = figure.subplots()
    for i, (name, (rate, distortion)) in enumerate(points.items()):
        colour, marker = style.class_style(i)
        axes.scatter([rate], [distortion], color=colour, marker=marker, s=46, label=name, zorder=3)
        axes.axline((rate, distortion), slope=-1, color=colour, linewidth=0.8, alpha=0.5)
    rates, distortions = np.array(list(points.values())).T
    for limits, values in ((axes.set_xlim, rates), (axes.set_ylim, distortions)):
        pad = 0.35 * float(np.ptp(values)) or 0.1 * float(abs(values[0])) or 1.0
        limits(values.min() - pad, values.max() + pad)
    axes.set_xlabel("rate, nats per example")
    axes.set_ylabel("distortion, nats per example")
    axes.legend(loc="best")
    return figure


def kl_bars(kl: ArrayLike, active: ArrayLike | None = None, most: int = 128) -> Any:
    """The KL of each latent as bars, largest first, with inactive ones in grey.

    Arguments:
        kl: (D,) nats per datum.
        active: (D,) bool; by default all are active.
        most: maximum number of bars.
    """
    values = np.asarray(kl, dtype=float)
    alive = np.ones(len(values), bool) if active is None else np.asarray(active, dtype=bool)
    order = np.argsort(-values, kind="stable")[:most]
    figure = style.new_figure(9.4, 2.7)
    axes = figure.subplots()
    t = style.current()
    colours = [style.BLUE if alive[i] else t.dead for i in order]
    axes.bar(np.arange(len(order)), values[order], color=colours, width=0.78)
    few = len(order) <= 48
    axes.set_xticks(np.arange(len(order)) if few else [], [f"z{i}" for i in order] if few else [], fontsize=7.5)
    axes.grid(axis="x", visible=False)
    axes.set_xlim(-0.8, len(order) - 0.2)
    axes.set_xlabel("latent" if few else f"latents, sorted ({len(order)} of {len(values)})")
    axes.set_ylabel("KL, nats per example")
    if not alive.all():
        from matplotlib.patches import Patch

        n = int(alive.sum())
        axes.legend(
            handles=[Patch(color=style.BLUE, label=f"active ({n})"),
                     Patch(color=t.dead, label=f"collapsed ({len(alive) - n})")],
            loc="upper right",
        )  # fmt: skip
    return figure


def active_units(variance: ArrayLike, threshold: float = 0.01) -> Any:
    """The variance of each latent's posterior mean over data, sorted, on a log scale, with the activity threshold.

    Burda et al. (2016), arXiv:1509.00519.

    Arguments:
        variance: (D,).
        threshold: a latent with a larger variance is active.
    """
    values = np.sort(np.asarray(variance, dtype=float))[::-1]
    figure = style.new_figure(4.6, 2.7)
    axes = figure.subplots()
    axes.plot(np.arange(1, len(values) + 1), np.maximum(values, 1e-12), color=style.BLUE, marker="o", markersize=3)
    axes.axhline(threshold, color=style.VERMILLION, linewidth=1, linestyle="--")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
    axes.yaxis.set_minor_formatter(lambda v, _: "")
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel(f"latents, sorted: {int((values > threshold).sum())} of {len(values)} active")
    axes.set_ylabel("variance of the mean")
    return figure


def histogram(values: ArrayLike, name: str, unit: str = "nats per example") -> Any:
    """The histogram of one number per datum, with the mean.

    Arguments:
        values: (N,), such as log p(x) or the ELBO of each datum.
        name, unit: the label of the axis.
    """
    x = np.asarray(values, dtype=float)
    figure = style.new_figure(4.6, 2.7)
    axes = figure.subplots()
    axes.hist(x, bins=max(5, min(60, int(math.sqrt(len(x))))), color=style.BLUE, alpha=0.85)
    axes.axvline(x.mean(), color=style.ORANGE, linewidth=1.4, label=f"mean {x.mean():,.1f}".replace("-", "−"))
    axes.grid(axis="x", visible=False)
    axes.set_xlabel(f"{name}, {unit}")
    axes.set_ylabel("data")
    axes.legend(loc="upper left")
    return figure


def project(z: ArrayLike) -> tuple[Array, Array | None]:
    """Latents in the plane: (N, 2) unchanged, others by their first two principal components.

    Returns:
        (N, 2), and the shares of the variance that the two components explain, (2,), or None without a projection.
    """
    points = np.asarray(z, dtype=float)
    if points.ndim != 2 or not len(points):
        raise ChoiceError(f"latents must have shape (N, D), got {points.shape}")
    if points.shape[1] == 2:
        return points, None
    if points.shape[1] == 1:
        return np.concatenate([points, np.zeros_like(points)], 1), None
    centred = points - points.mean(0)
    _, size, axes = np.linalg.svd(centred, full_matrices=False)
    if len(size) < 2:
        size, axes = np.append(size, 0.0), np.concatenate([axes, np.zeros_like(axes)])
    total = float((size**2).sum()) or 1.0
    return centred @ axes[:2].T, size[:2] ** 2 / total


def latent_scatter(z: ArrayLike, label: ArrayLike | None = None, names: Sequence[str] | None = None) -> Any:
    """Latents in the plane, with one colour and marker per class, and the name of each class at its median.

    Arguments:
        z: (N, D), projected by `project` unless D is 2.
        label: (N,) class numbers, -1 where unknown; None without classes.
        names: the name of each class.
    """
    points, shares = project(z)
    figure = style.new_figure(9.4, 5.8)
    axes = figure.subplots()
    t = style.current()
    size = 9 if len(points) > 1500 else 16
    codes = np.full(len(points), -1) if label is None else np.asarray(label)
    classes = [int(c) for c in np.unique(codes)]
    for c in classes:
        members = points[codes == c]
        colour, marker = (t.muted, "o") if c < 0 else style.class_style(c)
        name = "no label" if c < 0 else str(names[c]) if names is not None else str(c)
        label_of = name if classes != [-1] else None
        axes.scatter(
            members[:, 0], members[:, 1], s=size, color=colour, marker=marker, alpha=0.6, linewidths=0, label=label_of,
            rasterized=True,
        )  # fmt: skip
        if c >= 0 and len(classes) <= 20:
            middle = np.median(members, 0)
            box = {"boxstyle": "round,pad=0.2", "facecolor": t.surface, "edgecolor": colour, "alpha": 0.85}
            axes.annotate(name[:24], middle, fontsize=7.5, ha="center", va="center", color=t.text, bbox=box)
    if classes != [-1]:
        handles, texts = axes.get_legend_handles_labels()
        title = f"{NAMED} of {len(texts)} classes" if len(texts) > NAMED else None
        texts = [text if len(text) <= 24 else text[:23] + "…" for text in texts]
        place = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "markerscale": 1.6}
        axes.legend(handles[:NAMED], texts[:NAMED], title=title, **place)
    if shares is None:
        axes.set_xlabel("latent 0")
        axes.set_ylabel("latent 1" if np.shape(z)[1] == 2 else "")
    else:
        axes.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
        axes.set_ylabel(f"second ({shares[1]:.0%})")
    return figure
