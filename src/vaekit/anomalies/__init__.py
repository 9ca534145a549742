"""Unusual rows: p-values among held-out rows, flags at a false-alarm rate, and the unusual columns of each row."""

from .conformal import HeldOutScores
from .detection import Detection, detect
from .drift import Drift
from .reasons import Reason
from .reference import HeldOut, held_out

__all__ = ["Detection", "Drift", "HeldOut", "HeldOutScores", "Reason", "detect", "held_out"]
