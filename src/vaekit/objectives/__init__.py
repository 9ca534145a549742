"""Objectives: what is minimised, apart from the model that is trained."""

from .base import Batch, Objective, Terms, Tuning, frozen
from .elbo import ELBO

__all__ = ["ELBO", "Batch", "Objective", "Terms", "Tuning", "frozen"]
