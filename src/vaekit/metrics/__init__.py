"""Measured numbers, each with its protocol, unit and standard error; every metric is registered by `@metric`."""

from __future__ import annotations

from vaekit.utils.uncertainty import area, standard_error, units

from . import bounds, codes, disentanglement, images, latents, samples  # noqa: F401 - they register their metrics

# isort: on
from .comparison import compare, compare_all, differences
from .evaluation import evaluate
from .latents import ACTIVE, is_active, latent_names, survey

# isort: off  (the register lists metrics in this order)
from .likelihood import PerDatum, entropy_floor, floors, per_datum
from .measurement import Measurement, shared
from .needs import Need
from .protocol import Protocol, check_comparable
from .registry import METRICS, Metric, Result, label, metric

__all__ = [
    "ACTIVE",
    "METRICS",
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
    "differences",
    "entropy_floor",
    "evaluate",
    "floors",
    "is_active",
    "label",
    "latent_names",
    "metric",
    "per_datum",
    "shared",
    "standard_error",
    "survey",
    "units",
]
