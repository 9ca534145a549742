"""Figures and tables for notebooks and the documentation, in a light and a dark version, readable on a phone.

A page of the documentation shows the version of the theme that its reader chose; a plain notebook shows the light one.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vaekit.utils.display import Shown

from .pictures import Bytes, png_bytes
from .style import Theme, figure_png, new_figure, theme

Draw = Callable[[Any], None]
"""Draws on matplotlib axes."""


def image_html(png: bytes, alt: str, kind: str, width: float) -> str:
    """A PNG file as HTML; `kind` is picture, only-light or only-dark, the last of which stays hidden in a notebook."""
    # a documentation page hides one of the two versions; elsewhere the dark one stays hidden
    hidden = ' style="display:none"' if kind == "only-dark" else ""
    data = base64.b64encode(png).decode()
    size = f'width="{width:.0f}"'
    return f'<img class="{kind}" alt="{html.escape(alt)}" {size}{hidden} src="data:image/png;base64,{data}">'


def _side_by_side(parts: Sequence[str]) -> str:
    style = "display:flex;flex-wrap:wrap;gap:8px;align-items:flex-start"
    return f'<div class="vaekit-figure" style="{style}">' + "".join(parts) + "</div>"


def show(*panels: Draw, alt: str, width: float | None = None, height: float = 2.9) -> Shown:
    """Show panels side by side, or below each other on a narrow page.

    Arguments:
        panels: each draws on the axes passed to it; called once per theme.
        alt: a description of the figure for people who cannot see it.
        width, height: size of one panel in inches; by default all panels fit in one row of a page.
    """
    width = width or {1: 5.6, 2: 3.75}.get(len(panels), 2.5)
    parts = []
    for i, draw in enumerate(panels):
        images = []
        for name in ("light", "dark"):
            with theme(name):
                figure = new_figure(width, height)
                draw(figure.subplots())
                images.append(image_html(figure_png(figure, 190), alt if i == 0 else "", f"only-{name}", width * 96))
        parts.append(f'<div style="flex:0 1 {width * 96:.0f}px">{"".join(images)}</div>')
    return Shown(_side_by_side(parts), alt)


def show_pictures(pictures: Mapping[str, Bytes], alt: str, width: float | None = None) -> Shown:
    """Show uint8 pictures (H, W[, C]), each with its name; they look the same in both themes.

    Arguments:
        width: width of one picture in CSS pixels; by default its own.
    """
    parts = []
    for i, (name, pixels) in enumerate(pictures.items()):
        wide = width or pixels.shape[1]
        image = image_html(png_bytes(pixels), f"{alt}: {name}" if name else alt if i == 0 else "", "picture", wide)
        caption = f'<div style="font-size:.85em">{html.escape(name)}</div>' if name else ""
        parts.append(f'<div style="flex:0 1 {wide:.0f}px">{caption}{image}</div>')
    return Shown(_side_by_side(parts), alt)


def table(rows: Sequence[Mapping[str, Any]], digits: int = 3, alt: str = "") -> Shown:
    """Rows as a table, with one column per key of the first row; floats have `digits` decimal places."""

    def cell(value: Any) -> str:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        text = f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}" if number else str(value)
        side = ' style="text-align:right"' if number else ' style="text-align:left"'
        return f"<td{side}>{html.escape(text)}</td>"

    names = list(rows[0])
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(cell(row[name]) for name in names) + "</tr>" for row in rows)
    plain = "\n".join(", ".join(f"{name}: {row[name]}" for name in names) for row in rows)
    content = f'<table class="docutils"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return Shown(content, alt or plain)


__all__ = ["Draw", "Shown", "Theme", "show", "show_pictures", "table"]
