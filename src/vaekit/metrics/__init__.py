"""Measured numbers, each with its protocol, unit and standard error; every metric is registered by `@metric`."""

from __future__ import annotations

from vaekit.utils.uncertainty import area, standard_error, units

from . import bounds, codes, disentanglement, images, latents, samples  # noqa: F401 - they register their metrics

# isort: on
from .comparison import compare, compare_all, compare_measured
from .evaluation import evaluate
from .latents import ACTIVE, is_active, latent_names, survey

# the register lists metrics in the order of these imports
# isort: off
from .likelihood import PerDatum, floors, per_datum

# isort: on

# isort: off  (the register lists metrics in this order)
from .likelihood import entropy_floor
from .measurement import Measurement, shared
from .needs import Need
from .protocol import Protocol, check_comparable
from .registry import Metric, Result, metric, metrics

__all__ = [
    "ACTIVE",
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
    "metrics",
    "per_datum",
    "shared",
    "standard_error",
    "survey",
    "units",
]
