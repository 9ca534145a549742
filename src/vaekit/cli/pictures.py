"""Labels of the pictures that commands write: values, latents, classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vaekit.figures.labelled import Labels

if TYPE_CHECKING:
    from vaekit.run import Run

CLASSES = 16
"""The largest number of classes for which a grid of samples has one column per class."""


def of_samples(
    run: Run, n: int, label: str | None, latents: str | None, temperature: float, noise: bool | None
) -> tuple[int, Labels]:
    """The number of columns of a grid of n samples, and its labels."""
    source = "the prior"
    if latents is not None:
        from vaekit.latents.densities import DENSITIES

        source = f"{DENSITIES[latents].traits['called']} fitted to the codes"
    shown = "Draws from p(x|z)" if (run.draws_samples if noise is None else noise) else "Means of p(x|z)"
    at_temperature = "" if temperature == 1 else f" at temperature {temperature:g}"
    title = f"{shown}, z from {source}{at_temperature}"
    condition, square = run.composition.condition, max(1, round(n**0.5))
    if label is not None:
        return square, Labels(f"{title}, given {label}")
    if condition is None:
        return square, Labels(title)
    if condition.kind != "label":
        return square, Labels(title)
    names = [str(name) for name in condition.names]
    if condition.size <= min(CLASSES, n):
        return condition.size, Labels(title, columns=names)
    return square, Labels(title, tiles=[names[i % condition.size] for i in range(n)])


def of_reconstructions(split: str, rows: int) -> Labels:
    """Labels of rows of data of a split above rows of their reconstructions."""
    return Labels(f"Data ({split}) above their reconstructions", rows=["data", "reconstruction"] * (rows // 2))


def of_interpolation(a: str, b: str, steps: int, mode: str) -> Labels:
    """Labels of a row from datum `a` to datum `b`."""
    path = {"lerp": "straight line", "slerp": "great circle"}[mode]
    ends = [f"test datum {end}" if end.isdigit() else end for end in (a, b)]
    shares = [f"{share:.2g}" for share in np.linspace(0, 1, steps)]
    return Labels(f"From {ends[0]} (0) to {ends[1]} (1) along a {path} in latent space", columns=shares)


def of_traversal(names: Sequence[str], kl: np.ndarray | None, values: np.ndarray, start: str) -> Labels:
    """Labels of one row per latent: its name and KL, and the values of the pictures."""
    rows = list(names) if kl is None else [f"{name}  KL {k:.2f}" for name, k in zip(names, kl, strict=True)]
    title = f"One latent at a time, from {start}" + ("" if kl is None else "; KL in nats")
    if (values == values[0]).all():
        return Labels(title, rows=rows, columns=[f"{v:+.2f}" for v in values[0]])
    return Labels(title, rows=rows, tiles=[f"{v:+.2f}" for v in values.ravel()])


def of_edit(attribute: str, against: str | None, strengths: np.ndarray) -> Labels:
    """Labels of the example and of the strip along an attribute."""
    direction = f"From {against} towards {attribute}" if against else f"Towards {attribute}"
    return Labels(f"{direction}: strength of the edit (0 is the reconstruction)",
                  columns=["datum", *(f"{s:+.2g}" for s in strengths)])  # fmt: skip


def of_fill(draws: int, shown: int) -> Labels:
    """Labels of the example, its visible part, the expected value and samples of the hidden part."""
    words = ["datum", "visible", f"mean of {draws}", *(f"draw {i + 1}" for i in range(shown))]
    return Labels("The hidden part filled in from the visible part", columns=words)
