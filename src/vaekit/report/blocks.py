"""The parts of a page: sections, tables and pictures."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vaekit.figures import figure_png, png_bytes, theme
from vaekit.figures.pictures import Bytes

VERSIONS = ("light", "dark")
"""The themes in which each plot is drawn; the first must be light."""


def data_uri(png: bytes) -> str:
    """A PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


@dataclass
class Picture:
    """One picture with a caption; plots have a second version for dark pages.

    Attributes:
        name: the name of its file in figures/, without suffix.
        light, dark: PNG files; `dark` is None for pictures that are the same in both themes.
        alt: alternative text.
        caption: the text below it.
        width, height: size in CSS pixels.
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
        """The PNG file that is stored in figures/: the light version."""
        return self.light


@dataclass
class Strip:
    """One row of tiles, with a label and a note on its left."""

    label: str
    tiles: Bytes  # (H, W, 4): tiles side by side with transparent gaps
    note: str = ""
    muted: bool = False

    @property
    def source(self) -> str:
        """The row as a data URI."""
        return data_uri(png_bytes(self.tiles))


@dataclass
class Strips:
    """Rows of tiles; `heads` are optional headings of the columns."""

    name: str
    rows: list[Strip]
    alt: str
    caption: str
    heads: Sequence[str] = ()
    kind: str = "strips"

    @property
    def png(self) -> bytes:
        """All rows as one PNG file on a white background."""
        gap = 4
        width = max(r.tiles.shape[1] for r in self.rows)
        whole = np.full((sum(r.tiles.shape[0] + gap for r in self.rows) - gap, width, 3), 255, np.uint8)
        top = 0
        for row in self.rows:
            height, row_width, _ = row.tiles.shape
            clear = row.tiles[..., 3:] == 0
            whole[top : top + height, :row_width] = np.where(clear, 255, row.tiles[..., :3])
            top += height + gap
        return png_bytes(whole)


@dataclass
class Table:
    """Rows of text under `head`, which may be empty; `numeric` columns are right-aligned, `wide` columns wider."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numeric: Sequence[int] = ()
    wide: Sequence[int] = ()
    kind: str = "table"


@dataclass
class Cards:
    """The key numbers, each as (name, value with its error, unit, meaning, protocol)."""

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
    """A command or program to copy."""

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
    """The sections of one run, under its title."""

    key: str
    title: str
    facts: Sequence[str]
    state: str
    warnings: Sequence[str]
    sections: list[Section]


def plot(name: str, make: Callable[[], Any], alt: str, caption: str) -> Picture:
    """A matplotlib figure as a picture; `make` draws it once for each of `VERSIONS`."""
    versions = {}
    width = height = 0
    for version in VERSIONS:
        with theme(version):
            figure = make()
            width, height = (round(float(inches) * 96) for inches in figure.get_size_inches())
            versions[version] = figure_png(figure)
    return Picture(name, versions["light"], alt, caption, width, height, dark=versions.get("dark"))


def still(name: str, pixels: Bytes, alt: str, caption: str) -> Picture:
    """A uint8 picture that is the same in both themes."""
    return Picture(name, png_bytes(pixels), alt, caption, pixels.shape[1], pixels.shape[0])
