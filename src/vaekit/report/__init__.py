"""Reports as one self-contained HTML file: a run, several side by side, or synthetic rows beside real ones."""

from __future__ import annotations

from .look import Look
from .page import write_report
from .registry import DATA, DENSITY, FIGURES, VECTOR, figure
from .synthetic import write_synthetic

__all__ = ["DATA", "DENSITY", "FIGURES", "VECTOR", "Look", "figure", "write_report", "write_synthetic"]
