"""Grids of pictures with labels for rows, columns and single pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import ChoiceError

from . import style
from .pictures import Bytes, to_uint8

TILE, WIDTH = 96, 1600  # pixels: minimum length of a picture's longer side, and intended maximum width of the grid
GAP, SPACE, TEXT = 4, 10, 15  # pixels: between pictures, around text, and the height of letters
LONGEST = 40  # the maximum number of characters of a label


@dataclass(frozen=True)
class Labels:
    """The labels of a grid of pictures; empty ones take no space.

    Attributes:
        title: one line above the grid.
        rows: one label per row, to its left.
        columns: one label per column, above it.
        tiles: one label per picture, below it.
    """

    title: str = ""
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    tiles: Sequence[str] = ()


def labelled_grid(
    images: NDArray[Any],
    columns: int,
    labels: Labels,
    scale: tuple[float, float] = (0.0, 255.0),
) -> Bytes:
    """Pictures in rows from the top left, enlarged to a visible size, with their labels: uint8 (H, W, 3).

    Arguments:
        images: (N, H, W[, C]) in units of `scale`.
        columns: pictures per row.
        labels: the labels; there may be fewer of a kind than the grid has places for, but not more.
        scale: the values of black and white.

    Raises:
        ChoiceError: no image, fewer than one column, or more labels than places.
    """
    from PIL import Image, ImageDraw, ImageFont

    tiles = to_uint8(images, scale)
    if not len(tiles) or columns < 1:
        raise ChoiceError(f"a grid needs one image and one column or more, got {len(tiles)} and {columns}")
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    for kind, words, places in (("rows", labels.rows, rows), ("columns", labels.columns, columns),
                                ("tiles", labels.tiles, len(tiles))):  # fmt: skip
        if len(words) > places:
            raise ChoiceError(f"the grid has {places} {kind}, but {len(words)} labels of {kind} are given")
    tiles = _enlarged(tiles, columns)
    height, width = tiles.shape[1:3]
    font: Any = ImageFont.load_default(TEXT)
    shown = {name: [_short(word) for word in getattr(labels, name)] for name in ("rows", "columns", "tiles")}

    def long(words: Sequence[str]) -> int:
        return max((math.ceil(font.getlength(word)) for word in words), default=0)

    # columns are at least as wide as their labels
    step_x = max(width, long(shown["columns"]) + SPACE, long(shown["tiles"]) + SPACE) + GAP
    step_y = height + GAP + (TEXT + SPACE if labels.tiles else 0)
    left = long(shown["rows"]) + 2 * SPACE if labels.rows else SPACE
    line = TEXT + SPACE
    top = SPACE + (line if labels.title else 0) + (line if labels.columns else 0)
    across = max(left + columns * step_x - GAP + SPACE, math.ceil(font.getlength(labels.title)) + 2 * SPACE)
    t = style.THEMES["light"]
    picture = Image.new("RGB", (across, top + rows * step_y - GAP + SPACE), t.surface)
    draw = ImageDraw.Draw(picture)
    if labels.title:
        draw.text((SPACE, SPACE), labels.title, t.text, font)
    centre = width / 2 + (step_x - GAP - width) / 2
    for j, word in enumerate(shown["columns"]):
        draw.text((left + j * step_x + centre, top - SPACE // 2), word, t.muted, font, anchor="mb")
    for i, word in enumerate(shown["rows"]):
        draw.text((left - SPACE, top + i * step_y + height / 2), word, t.text, font, anchor="rm")
    for k, tile in enumerate(tiles):
        x, y = left + k % columns * step_x, top + k // columns * step_y
        picture.paste(Image.fromarray(tile), (x + round((step_x - GAP - width) / 2), y))
        if k < len(shown["tiles"]):
            draw.text((x + centre, y + height + SPACE // 2), shown["tiles"][k], t.muted, font, anchor="mt")
    return np.asarray(picture)


def _enlarged(tiles: Bytes, columns: int) -> Bytes:
    """Enlarge pictures to a visible size by repeating pixels, unless the grid would become too wide."""
    longer = max(tiles.shape[1:3])
    zoom = max(1, min(math.ceil(TILE / longer), round(WIDTH / (columns * longer))))
    return tiles.repeat(zoom, 1).repeat(zoom, 2)


def _short(word: str) -> str:
    return word if len(word) <= LONGEST else word[: LONGEST - 1] + "…"
