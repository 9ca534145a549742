"""HTML for the cells of notebooks: tables, pages in a frame, pictures of a few rows. It imports nothing of Jupyter."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

SIDE, TILES = 64, 10
"""Most pixels along a side of an example's picture, and most pictures: below 200 kB together, whatever they show."""
LARGEST_PAGE = 40_000_000
"""Bytes of the largest page that is shown inside a notebook, which stores it."""
SPARK = 120, 26
"""Width and height of a small line, in CSS pixels."""


class Shown:
    """HTML content that a notebook displays; `alt` is its text for plain-text output and screen readers."""

    def __init__(self, content: str, alt: str):
        self.content, self.alt = content, alt

    def _repr_html_(self) -> str:
        return self.content

    def __repr__(self) -> str:
        return self.alt


if TYPE_CHECKING:
    _Path = Path
else:  # Python 3.11 has no subclasses of Path itself
    _Path = type(Path())


class Page(_Path):
    """The path of a page of vaekit, which a notebook shows in a frame.

    The frame is sealed off: scripts in it reach neither the notebook nor its other outputs. A page of more than
    `LARGEST_PAGE` bytes is named instead of shown, because the notebook stores what it shows.
    """

    def with_segments(self, *parts: Any) -> Path:
        """Paths made from this one are ordinary paths."""
        return Path(*parts)

    def _repr_html_(self) -> str | None:
        if self.suffix != ".html" or not self.is_file():
            return None
        size = self.stat().st_size
        if size > LARGEST_PAGE:
            return (
                f"<p>The page has {size / 1e6:,.0f} MB, too many for a notebook: open "
                f"<code>{html.escape(str(self))}</code> in a browser.</p>"
            )
        return framed(self.read_text(encoding="utf8"))


def framed(page: str, height: int = 720) -> str:
    """A whole HTML page as a frame of this height, in CSS pixels, apart from the page around it."""
    inside = page.replace("&", "&amp;").replace('"', "&quot;")
    return (
        f'<iframe srcdoc="{inside}" sandbox="allow-scripts allow-downloads" title="a page of vaekit" '
        f'style="width:100%;height:{height}px;border:1px solid #8884;border-radius:8px"></iframe>'
    )


def cells(rows: Iterable[Sequence[str]], head: Sequence[str] = (), numeric: Sequence[int] = ()) -> str:
    """Rows of text as an HTML table; all text is escaped, and the columns `numeric` are right-aligned."""

    def row(texts: Sequence[str], tag: str) -> str:
        sides = ["right" if j in numeric else "left" for j in range(len(texts))]
        return "".join(
            f'<{tag} style="text-align:{side}">{html.escape(text)}</{tag}>'
            for text, side in zip(texts, sides, strict=True)
        )

    top = f"<thead><tr>{row(head, 'th')}</tr></thead>" if head else ""
    body = "".join(f"<tr>{row(texts, 'td')}</tr>" for texts in rows)
    return f'<table class="docutils">{top}<tbody>{body}</tbody></table>'


def facts(title: str, rows: Mapping[str, str], *parts: str) -> str:
    """A title, facts about it, and further HTML below them: what a notebook shows of an object."""
    table = cells(rows.items())
    return f'<div class="vaekit"><p><b>{html.escape(title)}</b></p>{table}{"".join(parts)}</div>'


def thumbnails(images: NDArray[Any], scale: tuple[float, float], alt: str) -> str:
    """The first `TILES` images (N, H, W[, C]) in a row, at most `SIDE` pixels high and wide: fewer than 200 kB of HTML.

    Larger images are thinned to every second, third, ... pixel; missing values (nan) are black.
    """
    from PIL import Image

    low, high = scale
    x = np.asarray(images[:TILES], dtype=np.float32)
    x = x[..., None] if x.ndim == 3 else x
    step = math.ceil(max(x.shape[1:3]) / SIDE)
    x = np.nan_to_num((x[:, ::step, ::step] - low) / ((high - low) or 1.0))
    x = np.concatenate([x, np.zeros_like(x[..., :1])], -1) if x.shape[-1] == 2 else x
    pixels = np.round(255 * np.clip(x, 0, 1)).astype(np.uint8)
    pixels = np.repeat(pixels, 3, -1) if pixels.shape[-1] == 1 else pixels[..., :3]
    row = np.concatenate(list(np.pad(pixels, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=255)), 1)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(row)).save(file, "PNG", optimize=True)
    zoom = max(1, SIDE // pixels.shape[1])
    source = base64.b64encode(file.getvalue()).decode()
    return (
        f'<img alt="{html.escape(alt)}" width="{zoom * row.shape[1]}" src="data:image/png;base64,{source}" '
        'style="image-rendering:pixelated;max-width:100%;height:auto">'
    )


def spark(values: Sequence[float] | NDArray[Any], alt: str, width: int = SPARK[0], height: int = SPARK[1]) -> str:
    """Numbers as a small line (SVG) in the colour of the text; values that are not finite are left out."""
    y = np.asarray(values, dtype=np.float64)
    y = y[:: math.ceil(len(y) / (2 * width))] if len(y) else y
    x = np.arange(len(y))[np.isfinite(y)]
    y = y[np.isfinite(y)]
    if len(y) < 2:
        return ""
    across = 1 + (width - 2) * (x - x[0]) / (x[-1] - x[0])
    span = float(y.max() - y.min()) or 1.0
    down = height - 1 - (height - 2) * (y - y.min()) / span
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))
    return (
        f'<svg role="img" aria-label="{html.escape(alt)}" width="{width}" height="{height}">'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.3"/></svg>'
    )
