"""Objectives: what is minimised, apart from the model that is trained."""

from .adversarial import Adversarial
from .autoencoder import Autoencoder
from .base import OBJECTIVES, Batch, Losses, Objective, Tuning, frozen, objective
from .capacity import Capacity
from .constrained import Constrained
from .dip import DIP
from .elbo import ELBO
from .factor import FactorVAE
from .importance import CIWAE, IWAE, PIWAE
from .mmd import WAE, InfoVAE
from .not_at_random import NotMIWAE
from .quantised import CodeELBO, Quantised
from .semi import SemiSupervised
from .total_correlation import TotalCorrelation
from .trimmed import Trimmed
from .wake_sleep import ReweightedWakeSleep, WakeSleep

__all__ = [
    "CIWAE",
    "DIP",
    "ELBO",
    "IWAE",
    "OBJECTIVES",
    "PIWAE",
    "WAE",
    "Adversarial",
    "Autoencoder",
    "Batch",
    "Capacity",
    "CodeELBO",
    "Constrained",
    "FactorVAE",
    "InfoVAE",
    "Losses",
    "NotMIWAE",
    "Objective",
    "Quantised",
    "ReweightedWakeSleep",
    "SemiSupervised",
    "TotalCorrelation",
    "Trimmed",
    "Tuning",
    "WakeSleep",
    "frozen",
    "objective",
]
