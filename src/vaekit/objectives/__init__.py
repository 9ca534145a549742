"""Objectives: what is minimised, apart from the model that is trained."""

from .base import Batch, Objective, Terms, Tuning, frozen
from .elbo import ELBO
from .semi import SemiSupervised

__all__ = ["ELBO", "Batch", "Objective", "SemiSupervised", "Terms", "Tuning", "frozen"]
