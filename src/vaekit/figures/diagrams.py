"""Graphical models as pictures: circles for random variables, boxes for networks, plates for repetition.

The notation is that of Bishop (2006), chapter 8: an observed variable is a filled circle, a parameter is a dot, and a
rounded rectangle (plate) repeats its content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vaekit.errors import ChoiceError

from .style import BLUE, current

RADIUS = 0.34
Box = tuple[float, float, float, float]  # left, low, right, high
KINDS = ("latent", "observed", "parameter", "function", "text")


@dataclass(frozen=True)
class Node:
    """One variable or function at (x, y); one unit is about the distance between neighbours.

    Attributes:
        kind: `latent` (an empty circle), `observed` (a filled one), `parameter` (a dot), `function` (a box) or `text`.
        label: the text shown; the node's own name if empty.
        width: width of a box.
    """

    x: float
    y: float
    kind: str = "latent"
    label: str = ""
    width: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ChoiceError(f"a node is one of {', '.join(KINDS)}, got {self.kind!r}")


@dataclass(frozen=True)
class Plate:
    """A rounded rectangle around nodes that are repeated; `label` gives the number of repetitions."""

    nodes: Sequence[str]
    label: str


def _half(node: Node) -> float:
    return node.width / 2 if node.kind in ("function", "text") else RADIUS


def _around(plate: Plate, nodes: Mapping[str, Node], drawn: Sequence[tuple[set[str], Box]]) -> Box:
    """Left, low, right, high of a plate: it encloses its nodes and any earlier plates inside it.

    Each plate has room for its label at the bottom, and is at least as wide as the label.
    """
    boxes = [(n.x - _half(n), n.y - RADIUS, n.x + _half(n), n.y + RADIUS) for n in (nodes[k] for k in plate.nodes)]
    boxes += [box for inside, box in drawn if inside <= set(plate.nodes)]
    left, low, right, high = zip(*boxes, strict=True)
    x0, x1 = min(left) - 0.16, max(right) + 0.16
    short = max(0.2 + 0.11 * len(plate.label) - (x1 - x0), 0) / 2
    return x0 - short, min(low) - 0.36, x1 + short, max(high) + 0.16


def draw_graph(
    axes: Any,
    nodes: Mapping[str, Node],
    arrows: Sequence[tuple[str, str]] = (),
    dashed: Sequence[tuple[str, str]] = (),
    plates: Sequence[Plate] = (),
) -> None:
    """A directed graph on matplotlib axes.

    Arguments:
        arrows: (from, to), drawn as solid lines: the generative model.
        dashed: (from, to), drawn as dashed curves, so that both directions of a pair are visible: inference.
    """
    from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

    t = current()
    patches: dict[str, Any] = {}
    for name, node in nodes.items():
        text = node.label or name
        position = (node.x, node.y)
        if node.kind in ("latent", "observed"):
            face = t.line if node.kind == "observed" else t.surface
            patches[name] = Circle(position, RADIUS, facecolor=face, edgecolor=t.text, linewidth=1.2, zorder=3)
        elif node.kind == "parameter":
            patches[name] = Circle(position, 0.07, facecolor=t.text, edgecolor=t.text, zorder=3)
        else:
            box = (node.x - node.width / 2, node.y - 0.26)
            edge = BLUE if node.kind == "function" else "none"
            patches[name] = FancyBboxPatch(box, node.width, 0.52, "round,pad=0.02,rounding_size=0.08",
                                           facecolor=t.surface, edgecolor=edge, linewidth=1.2, zorder=3)  # fmt: skip
        axes.add_patch(patches[name])
        if node.kind == "parameter":
            axes.text(node.x, node.y + 0.17, text, ha="center", va="bottom", zorder=4)
        else:
            axes.text(*position, text, ha="center", va="center", zorder=4)
    for bent, pairs in ((False, arrows), (True, dashed)):
        for a, b in pairs:
            axes.add_patch(FancyArrowPatch(
                (nodes[a].x, nodes[a].y), (nodes[b].x, nodes[b].y), patchA=patches[a], patchB=patches[b],
                arrowstyle="-|>", mutation_scale=11, shrinkA=2, shrinkB=2, color=t.muted if bent else t.text,
                linestyle=(0, (4, 3)) if bent else "-", linewidth=1.2, zorder=2,
                connectionstyle="arc3,rad=0.35" if bent else "arc3",
            ))  # fmt: skip
    boxes = []  # (left, low, right, high) of everything drawn
    for node in nodes.values():
        above = 0.12 if node.kind == "parameter" else 0
        half = _half(node)
        boxes.append((node.x - half, node.y - RADIUS, node.x + half, node.y + RADIUS + above))
    drawn: list[tuple[set[str], Box]] = []
    for plate in plates:
        x0, y0, x1, y1 = _around(plate, nodes, drawn)
        drawn.append((set(plate.nodes), (x0, y0, x1, y1)))
        axes.add_patch(FancyBboxPatch((x0, y0), x1 - x0, y1 - y0, "round,pad=0,rounding_size=0.12",
                                      facecolor="none", edgecolor=t.muted, linewidth=1, zorder=1))  # fmt: skip
        axes.text(x1 - 0.1, y0 + 0.07, plate.label, ha="right", va="bottom", color=t.muted, fontsize=8)
        boxes.append((x0, y0, x1, y1))
    left, low, right, high = zip(*boxes, strict=True)
    axes.set_xlim(min(left) - 0.1, max(right) + 0.1)
    axes.set_ylim(min(low) - 0.1, max(high) + 0.1)
    axes.set_aspect("equal")
    axes.axis("off")
