"""Reports: a run, or several side by side, as one self-contained HTML file."""

from __future__ import annotations

from .look import Look
from .page import write_report
from .registry import DATA, DENSITY, FIGURES, VECTOR, figure

__all__ = ["DATA", "DENSITY", "FIGURES", "VECTOR", "Look", "figure", "write_report"]
