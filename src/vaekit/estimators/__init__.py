"""Estimators of log p(x) for models with one layer of continuous latents, each a function of a `Target`."""

from .annealing import Annealed, anneal
from .exact import linear_gaussian
from .hmc import Path, Tuned, schedule, transition, tune
from .importance import ALPHA, jackknife, log_weights, mixture_log_weights, sumo, sumo_terms
from .pareto import LEAST_TAIL, RELIABLE, fit_pareto, k_hat, reliable, tail_size
from .posterior import log_px_from_posterior, posterior_draws
from .quadrature import Integral, integrate
from .target import Target, log_mean_exp, why_not

__all__ = [
    "ALPHA",
    "LEAST_TAIL",
    "RELIABLE",
    "Annealed",
    "Integral",
    "Path",
    "Target",
    "Tuned",
    "anneal",
    "fit_pareto",
    "integrate",
    "jackknife",
    "k_hat",
    "linear_gaussian",
    "log_mean_exp",
    "log_px_from_posterior",
    "log_weights",
    "mixture_log_weights",
    "posterior_draws",
    "reliable",
    "schedule",
    "sumo",
    "sumo_terms",
    "tail_size",
    "transition",
    "tune",
    "why_not",
]
