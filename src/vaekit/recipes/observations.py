"""The register of observations: how raw data become x, by name, for data that a `DataSpec` describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

from vaekit.data.observation import (
    Binary,
    Centred,
    Counts,
    Dequantised,
    Grey,
    Levels,
    MixedTable,
    Standardised,
    Threshold,
)
from vaekit.errors import ChoiceError
from vaekit.heads import LIKELIHOODS
from vaekit.utils.register import Builder, Chosen, Register

from .composition import DataSpec
from .signature import Pick

OBSERVATIONS = Register("observation", {"spec": "the description of the data"})
"""The observations by name."""


def observation(name: str, paper: str = "") -> Callable[[Builder], Builder]:
    """Register a function of a `DataSpec` that returns an `Observation`, or raises ChoiceError, as `name`.

    Arguments:
        name: its name on the command line; a likelihood may name it as its natural observation.
        paper: its source, if it has one.
    """
    return OBSERVATIONS.add(name, paper)


def whole_range(spec: DataSpec, wanted: str) -> tuple[float, float]:
    """The known range of the raw data, for observations that scale by it."""
    low, high = spec.scale
    if not spec.integer and (low < 0 or high > 1):
        raise ChoiceError(
            f"{wanted} needs uint8 or numbers in [0, 1], whose range is known, but these run from {low:g} to {high:g}: "
            "store them as uint8 (of 16 bits: round((x - low) / (high - low) * 255)), divide them into [0, 1] (for "
            "0..255 images: x / 255), or choose `likelihood='gaussian'`"
        )
    return low, high


def _levels(spec: DataSpec, name: str) -> int:
    """The number of values of whole numbers from 0."""
    low, high = whole_range(spec, f"the {name!r} observation")
    if not spec.integer or low != 0:
        raise ChoiceError(
            f"the {name!r} observation needs whole numbers from 0 (uint8): store the data as uint8, or choose "
            "`likelihood='continuous-bernoulli'` or gaussian"
        )
    return int(high) + 1


@observation("binary", "Salakhutdinov and Murray 2008")
def binary(spec: DataSpec) -> Binary:
    """x is 1 with the probability of the intensity, redrawn at each training step."""
    return Binary(*whole_range(spec, "the 'binary' observation"))


@observation("threshold")
def threshold(spec: DataSpec) -> Threshold:
    """x is 1 above the middle of the range."""
    return Threshold(*whole_range(spec, "the 'threshold' observation"))


@observation("grey")
def grey(spec: DataSpec) -> Grey:
    """Intensities in [0, 1]."""
    return Grey(*whole_range(spec, "the 'grey' observation"))


@observation("dequantised", "Theis et al. 2016, arXiv:1511.01844")
def dequantised(spec: DataSpec) -> Dequantised:
    """Intensities in [0, 1) with uniform noise of one level."""
    low, _ = whole_range(spec, "the 'dequantised' observation")
    if not spec.integer:
        return Dequantised(0.0, 256, 1 / 255)  # of 8-bit images divided by 255 these are the levels
    return Dequantised(low, _levels(spec, "dequantised"))


@observation("levels")
def levels(spec: DataSpec) -> Levels:
    """Whole numbers from 0, as they are."""
    return Levels(_levels(spec, "levels"))


@observation("standardised")
def standardised(spec: DataSpec) -> Standardised:
    """Each element with mean 0 and variance 1."""
    return Standardised(spec.shape, spec.double)


@observation("centred")
def centred(spec: DataSpec) -> Centred:
    """Each element with mean 0, all divided by one number."""
    return Centred(spec.shape, spec.double)


@observation("counts")
def counts(spec: DataSpec) -> Counts:
    """Counts, as they are."""
    if spec.scale[0] < 0 or not (spec.kind == "counts" or spec.integer):
        raise ChoiceError("the 'counts' observation needs whole numbers from 0: load the data with `kind='counts'`")
    return Counts()


@observation("mixed")
def mixed(spec: DataSpec) -> MixedTable:
    """Real columns standardised, others as they are."""
    if not spec.columns:
        raise ChoiceError("the 'mixed' observation is for tables (.csv, .parquet), whose columns differ in kind")
    return MixedTable(spec.columns, spec.double)


def natural(spec: DataSpec, names: Mapping[str, str]) -> str:
    """The observation that the likelihood names, or the usual one for data of this kind."""
    likelihood = LIKELIHOODS[names["likelihood"]]
    if spec.rules == 1 and likelihood.name == "continuous-bernoulli":
        return "grey"
    if likelihood.traits["observation"] != "auto":
        return likelihood.traits["observation"]
    if spec.kind == "image" and (spec.integer or spec.scale == (0.0, 1.0)):
        return "grey"
    return "standardised" if spec.kind in ("vector", "counts") else "centred"


OBSERVE = Pick(OBSERVATIONS, "how raw data become x; auto is the likelihood's natural one", auto=natural, by_data=True)
Observe = Annotated[Chosen, OBSERVE]
