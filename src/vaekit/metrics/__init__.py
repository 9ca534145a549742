"""Metrics with their protocols, units and standard errors; `@metric` registers each."""

from __future__ import annotations

# the register lists metrics in the order of these imports
# isort: off
from . import likelihood, latents, codebook, images, samples, codes, disentanglement, calibration  # noqa: F401

# isort: on
from vaekit.utils.uncertainty import area, standard_error, units

from .comparison import compare, compare_all, compare_measured
from .evaluation import evaluate
from .latents import ACTIVE, is_active, latent_names, survey
from .likelihood import PerDatum, entropy_floor, floors, per_datum
from .measured import Measured
from .measurement import Measurement, shared
from .needs import Need
from .protocol import Protocol, check_comparable
from .registry import METRICS, Metric, Result, metric

__all__ = [
    "ACTIVE",
    "METRICS",
    "Measured",
    "Measurement",
    "Metric",
    "Need",
    "PerDatum",
    "Protocol",
    "Result",
    "area",
    "check_comparable",
    "compare",
    "compare_all",
    "compare_measured",
    "entropy_floor",
    "evaluate",
    "floors",
    "is_active",
    "latent_names",
    "metric",
    "per_datum",
    "shared",
    "standard_error",
    "survey",
    "units",
]
