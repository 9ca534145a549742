"""Sweeps: choosing options by training models with many settings (Optuna)."""

from __future__ import annotations

from .analysis import Importance, Lead
from .records import Trial
from .search import tune
from .sweep import Sweep

__all__ = ["Importance", "Lead", "Sweep", "Trial", "tune"]
