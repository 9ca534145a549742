"""Synthetic tables compared with real ones: fidelity, usefulness, detectability and privacy, with intervals and floors.

The functions take rows (N, D) of numbers and codes of categories with their columns, from any generator.
"""

from __future__ import annotations

from .compare import ColumnDistance, Comparison, compare_tables, density_gap, target_columns
from .detection import detectability
from .estimates import Estimate, Measure
from .fidelity import Distances, distances
from .of_run import compare_synthetic, table_columns
from .privacy import Nearness, copies, nearness
from .usefulness import Transfer, transfer

__all__ = [
    "ColumnDistance",
    "Comparison",
    "Distances",
    "Estimate",
    "Measure",
    "Nearness",
    "Transfer",
    "compare_synthetic",
    "compare_tables",
    "copies",
    "density_gap",
    "detectability",
    "distances",
    "nearness",
    "table_columns",
    "target_columns",
    "transfer",
]
