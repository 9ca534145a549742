"""Sweeps: choosing options by training models with many settings (Optuna)."""

from __future__ import annotations

from .analysis import Importance, Lead
from .records import Trial
from .sweep import Sweep, tune

__all__ = ["Importance", "Lead", "Sweep", "Trial", "tune"]
