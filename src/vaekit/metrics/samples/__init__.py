"""Quality of samples: how far they are from data, what they miss, whether they are blurred or copied.

`Reference` holds the real data and measures samples of any generator; `samplers` measures every sampler of a run. Each
measure has an interval, and the value of real data in the place of the samples beside it.
"""

from __future__ import annotations

from .blocks import Blocked, Estimate, jackknife, ratio
from .detail import energies, octaves
from .kernel import kernel_distance
from .learned import LearnedFeatures, learned_features
from .measured import DRAWS
from .memorised import NearestCounts, PlainValues, counts, excess, preference, preferred
from .moments import Components, frechet, frechet_distance
from .neighbours import Balls, Neighbours, neighbours
from .reference import ABOVE, FEATURES, LEARNED, MEASURES, ROWS, Quality, RawFeatures, Reference, sample_quality
from .samplers import Sampled, codes_of, drawn_by, measure_samplers

__all__ = [
    "ABOVE",
    "DRAWS",
    "FEATURES",
    "LEARNED",
    "MEASURES",
    "ROWS",
    "Balls",
    "Blocked",
    "Components",
    "Estimate",
    "LearnedFeatures",
    "NearestCounts",
    "Neighbours",
    "PlainValues",
    "Quality",
    "RawFeatures",
    "Reference",
    "Sampled",
    "codes_of",
    "counts",
    "drawn_by",
    "energies",
    "excess",
    "frechet",
    "frechet_distance",
    "jackknife",
    "kernel_distance",
    "learned_features",
    "measure_samplers",
    "neighbours",
    "octaves",
    "preference",
    "preferred",
    "ratio",
    "sample_quality",
]
