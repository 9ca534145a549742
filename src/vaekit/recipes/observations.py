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
from vaekit.data.observation.quantiles import FAR
from vaekit.errors import ChoiceError, SupportError
from vaekit.heads import LIKELIHOODS
from vaekit.objectives import OBJECTIVES
from vaekit.utils.arguments import Knob
from vaekit.utils.register import Builder, Chosen, Register

from .composition import DataSpec
from .signature import Pick

OBSERVATIONS = Register("observation", {"spec": "the description of the data"})
"""The observations by name."""


def observation(name: str, paper: str = "") -> Callable[[Builder], Builder]:
    """Register a function of a `DataSpec` that returns an `Observation` as the observation `name`.

    It raises ChoiceError if the observation does not fit the data.

    Arguments:
        name: its name on the command line; a likelihood may name it as its default observation.
        paper: its source, if it has one.
    """
    return OBSERVATIONS.add(name, paper)


def whole_range(spec: DataSpec, wanted: str) -> tuple[float, float]:
    """The lowest and the highest possible raw value, for observations that divide by the range.

    Arguments:
        wanted: what needs the range, for the message.

    Raises:
        SupportError: the range is unknown, because the data are neither whole numbers nor within [0, 1].
    """
    low, high = spec.scale
    if not spec.integer and (low < 0 or high > 1):
        raise SupportError(
            f"{wanted} needs uint8 or numbers in [0, 1], whose range is known, but these run from {low:g} to {high:g}: "
            "store them as uint8 (16-bit data: round((x - low) / (high - low) * 255)), scale them to [0, 1] (images in "
            "0..255: x / 255), or choose `likelihood='gaussian'`"
        )
    return low, high


def _levels(spec: DataSpec, name: str) -> int:
    """The number of levels of data that are whole numbers from 0.

    Raises:
        SupportError: the data are not.
    """
    low, high = whole_range(spec, f"the {name!r} observation")
    if not spec.integer or low != 0:
        raise SupportError(
            f"the {name!r} observation needs whole numbers from 0 (uint8): store the data as uint8, or choose "
            "`likelihood='continuous-bernoulli'` or 'gaussian'"
        )
    return int(high) + 1


@observation("binary", "Salakhutdinov and Murray 2008")
def binary(spec: DataSpec) -> Binary:
    """x is 1 with a probability equal to the intensity, else 0; it is drawn again at each training step."""
    return Binary(*whole_range(spec, "the 'binary' observation"))


@observation("threshold")
def threshold(spec: DataSpec) -> Threshold:
    """x is 1 for values above the middle of the range, else 0."""
    return Threshold(*whole_range(spec, "the 'threshold' observation"))


@observation("grey")
def grey(spec: DataSpec) -> Grey:
    """Intensities in [0, 1]."""
    return Grey(*whole_range(spec, "the 'grey' observation"))


@observation("dequantised", "Theis et al. 2016, arXiv:1511.01844")
def dequantised(spec: DataSpec) -> Dequantised:
    """Intensities with uniform noise of one level, in (0, 1)."""
    low, _ = whole_range(spec, "the 'dequantised' observation")
    if not spec.integer:
        return Dequantised(0.0, 256, 1 / 255)  # the levels of 8-bit images that were divided by 255
    return Dequantised(low, _levels(spec, "dequantised"))


@observation("levels")
def levels(spec: DataSpec) -> Levels:
    """Whole numbers from 0, unchanged."""
    return Levels(_levels(spec, "levels"))


@observation("standardised")
def standardised(spec: DataSpec) -> Standardised:
    """Each element is shifted and scaled to mean 0 and variance 1."""
    return Standardised(spec.shape, spec.double)


@observation("centred")
def centred(spec: DataSpec) -> Centred:
    """Each element is shifted to mean 0, and all elements are divided by one number."""
    return Centred(spec.shape, spec.double)


@observation("counts")
def counts(spec: DataSpec) -> Counts:
    """Counts, unchanged."""
    if spec.scale[0] < 0 or not (spec.kind == "counts" or spec.integer):
        raise ChoiceError("the 'counts' observation needs whole numbers from 0: load the data with `kind='counts'`")
    return Counts()


@observation("mixed")
def mixed(spec: DataSpec) -> MixedTable:
    """Real columns are standardised, others unchanged."""
    if not spec.columns:
        raise ChoiceError("the 'mixed' observation is for tables (.csv, .parquet), whose columns differ in kind")
    return MixedTable(spec.columns, spec.double)


@observation("quantile")
def quantile(
    spec: DataSpec,
    far: Annotated[
        float,
        Knob(
            "distance from a Gaussian (Kolmogorov-Smirnov) above which a column is mapped by its quantiles; 0 maps "
            "every column",
            low=0,
        ),
    ] = FAR,
) -> Standardised:
    """Columns far from Gaussian, or with repeated values, are mapped to a standard normal by their quantiles.

    The other columns are treated as by standardised and mixed.
    """
    if spec.kind != "vector":
        raise ChoiceError(f"the 'quantile' observation is for tables and vectors, not for {spec.kind} data")
    if any(column.kind != "real" for column in spec.columns):
        return MixedTable(spec.columns, spec.double, far)
    return Standardised(spec.shape, spec.double, far)


MOST_MAPPED = 256
"""Wider vectors are mostly pixels, spectra or embeddings, and are standardised."""


def _is_table(spec: DataSpec) -> bool:
    """Whether the data are a table of a few columns, which runs since `rules` 3 map by their quantiles."""
    return spec.rules > 2 and spec.kind == "vector" and not spec.integer and spec.dims <= MOST_MAPPED


def natural(spec: DataSpec, names: Mapping[str, str]) -> str:
    """The default observation: quantiles for tables, unless the objective needs their tails; else `plain`."""
    tails = "objective" in names and OBJECTIVES[names["objective"]].traits["tails"]
    mapped = names["likelihood"] in ("gaussian", "mixed", "autoregressive") and _is_table(spec) and not tails
    return "quantile" if mapped else plain(spec, names)


def plain(spec: DataSpec, names: Mapping[str, str]) -> str:
    """The observation that the likelihood names, or else one that suits the kind of data, by a shift and a scale."""
    likelihood = LIKELIHOODS[names["likelihood"]]
    if spec.rules == 1 and likelihood.name == "continuous-bernoulli":
        return "grey"
    if likelihood.traits["observation"] != "auto":
        return likelihood.traits["observation"]
    if spec.kind == "image" and (spec.integer or spec.scale == (0.0, 1.0)):
        return "grey"
    return "standardised" if spec.kind in ("vector", "counts") else "centred"


OBSERVE = Pick(
    OBSERVATIONS, "how raw data become x; auto decides by the likelihood and the data", auto=natural, by_data=True
)
Observe = Annotated[Chosen, OBSERVE]
