"""Scores of disentanglement: whether each latent encodes one factor, and each factor is encoded in one latent.

Functions of codes (N, D) and known factors (N, F); `measured` registers them as metrics of a run. They measure
different things, and several have versions that must not be mixed, such as `mig_lib` and `mig_chen`.
"""

from __future__ import annotations

from .explicitness import explicitness, info_e
from .gaps import counted_by_chen, mig_ceiling, mig_chen, mig_lib
from .importance import DCI, completeness, dci, disentanglement, med
from .information import (
    BINS,
    NEIGHBOURS,
    Score,
    binned,
    entropies,
    informative,
    mutual_information,
    neighbour_information,
)
from .intervals import DRAWS, Draws, Spread, bootstrap, redrawn, repeated, spread, subsamples
from .measured import scales
from .modularity import in_use, info_c, info_m, info_matrix, modularity
from .replicability import Replicability, udr
from .seeds import siblings
from .separation import sap_classifier, sap_regression
from .votes import PRUNED, SIZE, TESTS, VOTES, beta_score, factor_score

__all__ = [
    "BINS",
    "DCI",
    "DRAWS",
    "NEIGHBOURS",
    "PRUNED",
    "SIZE",
    "TESTS",
    "VOTES",
    "Draws",
    "Replicability",
    "Score",
    "Spread",
    "beta_score",
    "binned",
    "bootstrap",
    "completeness",
    "counted_by_chen",
    "dci",
    "disentanglement",
    "entropies",
    "explicitness",
    "factor_score",
    "in_use",
    "info_c",
    "info_e",
    "info_m",
    "info_matrix",
    "informative",
    "med",
    "mig_ceiling",
    "mig_chen",
    "mig_lib",
    "modularity",
    "mutual_information",
    "neighbour_information",
    "redrawn",
    "repeated",
    "sap_classifier",
    "sap_regression",
    "scales",
    "siblings",
    "spread",
    "subsamples",
    "udr",
]
