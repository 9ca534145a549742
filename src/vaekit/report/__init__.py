"""Reports as one self-contained HTML file: a run, several side by side, or new or synthetic rows beside its own."""

from __future__ import annotations

from .certificate import write_certificate
from .compared import write_comparison
from .look import Look
from .new_data import write_new
from .page import write_report
from .registry import DATA, DENSITY, FIGURES, VECTOR, figure
from .synthetic import write_synthetic

__all__ = [
    "DATA",
    "DENSITY",
    "FIGURES",
    "VECTOR",
    "Look",
    "figure",
    "write_certificate",
    "write_comparison",
    "write_new",
    "write_report",
    "write_synthetic",
]
