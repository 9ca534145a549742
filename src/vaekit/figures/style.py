"""The style of plots, in a light and a dark theme, and the conversion of a figure to PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from vaekit.errors import ChoiceError
from vaekit.utils.suggest import unknown


@dataclass(frozen=True)
class Theme:
    """Colours of a plot's parts."""

    surface: str
    text: str
    muted: str
    line: str
    dead: str


THEMES = {
    "light": Theme("#ffffff", "#1d2329", "#5d6772", "#e4e7ea", "#c4cad0"),
    "dark": Theme("#1b2026", "#e4e7ea", "#9aa5b1", "#323a43", "#4d5761"),
}

BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, GREY = (
    "#2f7fc1", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8b949e",
)  # fmt: skip
PALETTE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, GREY)
"""The colour-blind safe palette of Okabe and Ito (2008), without the two that are invisible on white or on black."""
MARKERS = ("o", "^", "s", "D", "v", "P", "X")


def class_style(i: int) -> tuple[str, str]:
    """Colour and marker of class i: 49 different pairs, so classes stay distinct when the colours repeat."""
    return PALETTE[i % len(PALETTE)], MARKERS[i // len(PALETTE) % len(MARKERS)]


@contextmanager
def theme(name: str = "light") -> Iterator[Theme]:
    """A context in which figures are created and saved with this theme; settings are restored afterwards."""
    import matplotlib

    if name not in THEMES:
        raise ChoiceError(unknown("theme", name, THEMES))
    t = THEMES[name]
    parameters: Any = {
        "figure.facecolor": t.surface,
        "axes.facecolor": t.surface,
        "savefig.facecolor": t.surface,
        "text.color": t.text,
        "axes.labelcolor": t.muted,
        "axes.titlecolor": t.text,
        "axes.edgecolor": t.line,
        "xtick.color": t.line,
        "ytick.color": t.line,
        "xtick.labelcolor": t.muted,
        "ytick.labelcolor": t.muted,
        "grid.color": t.line,
        "grid.linewidth": 0.8,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titleweight": "normal",
        "axes.titlelocation": "left",
        "axes.labelsize": 9,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "legend.fontsize": 8.5,
        "legend.frameon": False,
        "legend.labelcolor": t.text,
        "font.family": "sans-serif",
        "font.size": 9,
        "lines.linewidth": 1.6,
        "text.parse_math": False,  # names from data are shown verbatim
        "axes.unicode_minus": True,
    }
    with matplotlib.rc_context(parameters):
        yield t


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Any:
    """An empty figure of this size in inches on the Agg canvas, independent of pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def current() -> Theme:
    """The current theme: the one whose surface colour is set, else light."""
    import matplotlib

    surface = matplotlib.rcParams["axes.facecolor"]
    return next((t for t in THEMES.values() if t.surface == surface), THEMES["light"])


def figure_png(figure: Any, dpi: int = 150) -> bytes:
    """A matplotlib figure as the bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()
