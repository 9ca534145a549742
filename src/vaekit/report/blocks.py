"""What a page is made of, and how a figure becomes part of it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vaekit.figures import figure_png, png_bytes, theme
from vaekit.figures.pictures import Bytes

VERSIONS = ("light", "dark")
"""The themes that plots are drawn in; the first must be light."""


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


@dataclass
class Picture:
    """One picture with a caption; plots have a second version for dark pages.

    Attributes:
        name: of its file in figures/, without ending.
        width, height: in CSS pixels.
    """

    name: str
    light: bytes
    alt: str
    caption: str
    width: int
    height: int
    dark: bytes | None = None
    kind: str = "picture"

    @property
    def sources(self) -> tuple[str, str | None]:
        """Data URIs of the light and the dark version."""
        return data_uri(self.light), None if self.dark is None else data_uri(self.dark)

    @property
    def png(self) -> bytes:
        return self.light


@dataclass
class Strip:
    """One row of tiles with a label and a note before it."""

    label: str
    tiles: Bytes  # (H, W, 4): a row of tiles with clear gaps
    note: str = ""
    muted: bool = False

    @property
    def source(self) -> str:
        return data_uri(png_bytes(self.tiles))


@dataclass
class Strips:
    """Rows of tiles, the columns headed by `heads` where given."""

    name: str
    rows: list[Strip]
    alt: str
    caption: str
    heads: Sequence[str] = ()
    kind: str = "strips"

    @property
    def png(self) -> bytes:
        """All rows below one another on white."""
        gap = 4
        width = max(r.tiles.shape[1] for r in self.rows)
        whole = np.full((sum(r.tiles.shape[0] + gap for r in self.rows) - gap, width, 3), 255, np.uint8)
        top = 0
        for row in self.rows:
            height, own, _ = row.tiles.shape
            clear = row.tiles[..., 3:] == 0
            whole[top : top + height, :own] = np.where(clear, 255, row.tiles[..., :3])
            top += height + gap
        return png_bytes(whole)


@dataclass
class Table:
    """Rows of text under `head` (which may be empty); `numeric` columns are set to the right, `wide` ones kept wide."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numeric: Sequence[int] = ()
    wide: Sequence[int] = ()
    kind: str = "table"


@dataclass
class Cards:
    """The key numbers: (name, value with its error, unit, what it means, how it was measured)."""

    cards: Sequence[tuple[str, str, str, str, str]]
    caption: str = ""
    kind: str = "cards"


@dataclass
class Text:
    """A paragraph; `tone` is "plain", "note" or "warning"."""

    text: str
    tone: str = "plain"
    kind: str = "text"


@dataclass
class Code:
    """Lines to type."""

    title: str
    text: str
    kind: str = "code"


Block = Picture | Strips | Table | Cards | Text | Code


@dataclass
class Section:
    """A part of the page with a heading."""

    key: str
    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass
class Chapter:
    """One run's sections under its title."""

    key: str
    title: str
    facts: Sequence[str]
    state: str
    warnings: Sequence[str]
    sections: list[Section]


def plot(name: str, make: Callable[[], Any], alt: str, caption: str) -> Picture:
    """A matplotlib figure as a picture in each of VERSIONS; `make` is called once in each."""
    versions = {}
    width = height = 0
    for which in VERSIONS:
        with theme(which):
            figure = make()
            width, height = (round(float(inches) * 96) for inches in figure.get_size_inches())
            versions[which] = figure_png(figure)
    return Picture(name, versions["light"], alt, caption, width, height, dark=versions.get("dark"))


def still(name: str, pixels: Bytes, alt: str, caption: str) -> Picture:
    """A uint8 picture that is the same in both themes."""
    return Picture(name, png_bytes(pixels), alt, caption, pixels.shape[1], pixels.shape[0])
