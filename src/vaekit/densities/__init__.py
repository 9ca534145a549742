"""Densities that torch lacks, and draws from any density with keyed noise."""

from .censored import Censored
from .counts import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial, standard_poisson
from .drawing import draw, draw_tempered, draw_with_density
from .gamma import log_standard_gamma, standard_gamma
from .levels import Categorical, DiscretisedLogistic, LogisticMixture
from .real import Normal, OptimalNormal, StudentT
from .simple import Pixels, Point
from .unit import Beta, ContinuousBernoulli, OpenUnit, open_unit

__all__ = [
    "Beta",
    "Categorical",
    "Censored",
    "ContinuousBernoulli",
    "DiscretisedLogistic",
    "LogisticMixture",
    "NegativeBinomial",
    "Normal",
    "OpenUnit",
    "OptimalNormal",
    "Pixels",
    "Point",
    "Poisson",
    "StudentT",
    "ZeroInflatedNegativeBinomial",
    "draw",
    "draw_tempered",
    "draw_with_density",
    "log_standard_gamma",
    "open_unit",
    "standard_gamma",
    "standard_poisson",
]
