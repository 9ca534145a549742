"""Estimators of log p(x) for models with one layer of continuous latents, each a function of a `Target`."""

from .annealing import Annealed, anneal
from .exact import linear_gaussian
from .hmc import Path, Tuned, schedule, transition, tune
from .importance import ALPHA, jackknife, log_weights, mixture_log_weights, sumo, sumo_terms
from .pareto import ENOUGH, LEAST_TAIL, RELIABLE, fit_pareto, k_hat, limit_in_words, reliable, tail_size
from .posterior import Draws, log_px_from_posterior, log_ratios, posterior_draws
from .quadrature import EXACT, Integral, integrate
from .target import Target, log_mean_exp, why_not

__all__ = [
    "ALPHA",
    "ENOUGH",
    "EXACT",
    "LEAST_TAIL",
    "RELIABLE",
    "Annealed",
    "Draws",
    "Integral",
    "Path",
    "Target",
    "Tuned",
    "anneal",
    "fit_pareto",
    "integrate",
    "jackknife",
    "k_hat",
    "limit_in_words",
    "linear_gaussian",
    "log_mean_exp",
    "log_px_from_posterior",
    "log_ratios",
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
