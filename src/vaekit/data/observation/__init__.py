"""Observations: maps from raw data to the x of a likelihood.

Raw data are stored unchanged (uint8, counts, floats). An observation maps them to x when a batch is made, declares
the support of x, and provides the Jacobian, so that a density of x can be reported in the units of the data. A
missing raw value (nan) gives nan in x; `vaekit.heads.mixed.Masked` is the likelihood of the observed elements only.
"""

from .base import Identity, Observation, moments
from .counts import Counts
from .images import REFERENCE_SEED, Binary, Dequantised, FrozenDraw, Grey, Levels, Threshold, TwoValued
from .tables import Centred, MixedTable, Standardised, TableSupport

__all__ = [
    "REFERENCE_SEED",
    "Binary",
    "Centred",
    "Counts",
    "Dequantised",
    "FrozenDraw",
    "Grey",
    "Identity",
    "Levels",
    "MixedTable",
    "Observation",
    "Standardised",
    "TableSupport",
    "Threshold",
    "TwoValued",
    "moments",
]
