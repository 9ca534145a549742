"""Reports: a run, or several side by side, as one self-contained HTML file."""

from __future__ import annotations

from .page import write_report

__all__ = ["write_report"]
