"""Objectives: what is minimised, apart from the model that is trained."""

from .adversarial import Adversarial
from .base import Batch, Objective, Terms, Tuning, frozen
from .dip import DIP
from .elbo import ELBO
from .factor import FactorVAE
from .mmd import WAE, InfoVAE
from .semi import SemiSupervised
from .total_correlation import TotalCorrelation

__all__ = [
    "DIP",
    "ELBO",
    "WAE",
    "Adversarial",
    "Batch",
    "FactorVAE",
    "InfoVAE",
    "Objective",
    "SemiSupervised",
    "Terms",
    "TotalCorrelation",
    "Tuning",
    "frozen",
]
