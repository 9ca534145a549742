"""The metrics of the likelihood: bounds on log p(x) and their parts, and slower estimates that check them."""

from __future__ import annotations

# the register lists metrics in the order of these imports
# isort: off
from .bounds import (
    binary_floors,
    closed_form,
    distortion_at_code,
    entropy_floor,
    floors,
    scored,
)
from . import estimates  # noqa: F401

# isort: on
from vaekit.runs.likelihood import PerDatum, per_datum

__all__ = [
    "PerDatum",
    "binary_floors",
    "closed_form",
    "distortion_at_code",
    "entropy_floor",
    "floors",
    "per_datum",
    "scored",
]
