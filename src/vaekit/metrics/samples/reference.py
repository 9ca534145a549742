"""Real data that samples are compared with, prepared once: features, balls and the real-against-real floors."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vaekit.data.core import Data, Split
from vaekit.errors import ChoiceError
from vaekit.utils.wording import in_python

from .blocks import Blocked, Estimate, ratio
from .detail import energies
from .kernel import kernel_distance
from .learned import LEARNED, LearnedFeatures, Progress, learned_features
from .memorised import NearestCounts, PlainValues, counts, excess, preferred
from .moments import Components, frechet_distance
from .neighbours import Balls, K, neighbours

Array = NDArray[Any]
Better = Literal["higher", "lower"]
Kind = Literal["learned", "raw"]
FEATURES = 32
"""The number of principal components in which raw samples are compared."""
ROWS = 2
"""The Fréchet distance needs as many data, and samples, per feature: with about one, even the corrected distance is
above 0 for samples of the data's distribution."""
MOST = 50_000
"""The maximum number of training data among which the nearest to a sample is sought."""
MEASURES: dict[str, tuple[str, str, Better | None]] = {
    "frechet_distance": ("Fréchet distance, unbiased", "of the data's variance", "lower"),
    "kernel_distance": ("Kernel distance", "squared MMD", "lower"),
    "sample_precision": ("Precision of samples", "share of samples", "higher"),
    "sample_recall": ("Recall of samples", "share of data", "higher"),
    "sample_density": ("Density of samples", "balls per sample, over k", "higher"),
    "sample_coverage": ("Coverage of samples", "share of data", "higher"),
    "sharpness": ("Sharpness of samples", "of the data's fine detail", None),
    "memorisation": ("Preference for training data", "0 to 1", "lower"),
}
"""The measures by name: label, unit and better direction."""
ABOVE = "above real data"
"""The part of memorisation that says by how much samples prefer training data more than validation data do."""


@dataclass(frozen=True)
class Quality:
    """One measure of samples, beside that of real data in their place.

    Attributes:
        name: see `MEASURES`.
        estimate: of the samples.
        floor: of as many training data in place of the samples; for memorisation, of validation data.
        parts: further estimates by name: the ratio of energies at each octave of frequencies, for sharpness; the
            difference from the floor with its error (`ABOVE`), for memorisation.
    """

    name: str
    estimate: Estimate
    floor: Estimate
    parts: dict[str, Estimate]

    @property
    def relative(self) -> float:
        """The value over that of real data, such as the share of real-against-real recall."""
        return self.estimate.value / self.floor.value

    def as_json(self) -> dict[str, Any]:
        """As JSON, without what is unknown."""
        label, unit, better = MEASURES[self.name]
        found = {"name": self.name, **_json(self.estimate), "floor": _json(self.floor)}
        found |= {"label": label, "unit": unit, "better": better}
        return found | ({"parts": {name: _json(part) for name, part in self.parts.items()}} if self.parts else {})


def _json(estimate: Estimate) -> dict[str, float | None]:
    return {name: float(x) if np.isfinite(x) else None for name, x in estimate._asdict().items()}


class RawFeatures:
    """Principal components of training data, divided so that their mean variance is at most 1.

    Attributes:
        text: how they were made, for protocols.
        size: their number.
    """

    def __init__(self, data: Data, k: int = FEATURES):
        self.project = Components(data.events(data.train[slice(0, LEARNED)]), k)
        self.size = self.project.k
        self.scale = np.sqrt(self.project.total / self.size)
        self.text = f"{self.size} principal components of {min(LEARNED, len(data.train)):,} training data"

    def __call__(self, x: Array) -> Array:
        return self.project(x) / self.scale


Features = RawFeatures | LearnedFeatures


def _blocks(read: Callable[[slice], Array], n: int) -> Iterator[Array]:
    """n data in blocks."""
    return (read(slice(a, min(a + 1000, n))) for a in range(0, n, 1000))


def _features_of(features: Features | PlainValues, read: Callable[[slice], Array], n: int) -> Array:
    """The features of n data that are read in blocks."""
    return np.concatenate([features(x) for x in _blocks(read, n)])


def _tensor(x: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, np.float32))


class Reference:
    """What samples of a data set are compared with.

    Arguments:
        data: the data. Samples are compared with its test split, or with `real`.
        real: held-out rows (n, *event) in the place of the test split.
        group: their groups.
        spare: held-out data that are not among `real`, to take the place of samples for memorisation; by default the
            validation split.
        n: use the first n held-out data.
        features: "learned" (of a network trained on the training data) or "raw" (principal components).
        seed: of the features and of the choice of training data.
        folder: where the network of learned features is stored.
        progress: called with (steps done, all steps) while it is trained.

    Raises:
        ChoiceError: data with missing values or categories, or fewer than `K` + 2 rows.
    """

    def __init__(
        self,
        data: Data,
        real: Array | None = None,
        group: ArrayLike | None = None,
        *,
        spare: Split | None = None,
        n: int | None = None,
        features: Kind = "learned",
        seed: int = 0,
        folder: Path | None = None,
        progress: Progress | None = None,
    ):
        if data.missing or any(column.kind == "categorical" for column in data.schema):
            raise ChoiceError(
                "samples are compared as numbers without gaps, and these data have missing values or categories: "
                f"rows of such tables are compared by `vaekit report RUN --synthetic sample`"
                f"{in_python(' or run.compare_synthetic()')}"
            )
        self.data, self.seed, self.spare = data, seed, data.valid if spare is None else spare
        if real is None:
            real, group = data.events(data.test[slice(0, n)]), data.test.group
        self.real = real if n is None else real[:n]
        self.group = None if group is None else np.asarray(group)[: len(self.real)]
        if min(len(self.real), len(data.train)) < K + 2:
            raise ChoiceError(f"{K + 2} held-out and training data or more are needed, got {len(self.real)} held-out")
        self.kind = features
        self.features: Features = (
            RawFeatures(data, max(1, min(FEATURES, self.n // (ROWS + 1))))
            if features == "raw"
            else learned_features(data, seed=seed, folder=folder, progress=progress)
        )
        self.rows = np.random.default_rng(seed).permutation(len(data.train))  # training data in random order

    @property
    def n(self) -> int:
        """The number of held-out data, and of samples that are asked for."""
        return len(self.real)

    @property
    def text(self) -> str:
        """How samples are compared, for protocols."""
        return f"{self.features.text}; k = {K}"

    def _rows_of(self, split: Split, rows: NDArray[np.int64], features: Features) -> Tensor:
        """Features of rows of a split."""
        return _tensor(_features_of(features, lambda part: self.data.events(split[rows[part]]), len(rows)))

    @functools.cached_property
    def balls(self) -> Balls:
        """The balls of the held-out data."""
        held_out = _features_of(self.features, self.real.__getitem__, self.n)
        return Balls(Blocked(held_out, self.group, seed=self.seed))

    @functools.cached_property
    def _train(self) -> NDArray[np.int64]:
        """Rows of as many training data as there are held-out data, or of all if they are fewer."""
        return np.sort(self.rows[: self.n])

    def _near(self, part: slice) -> Array:
        """Some of the training data, at most `MOST`, that samples may be copies of."""
        return self.data.events(self.data.train[np.sort(self.rows[:MOST])[part]])

    @functools.cached_property
    def values(self) -> PlainValues:
        """How distances to training data and to held-out data are measured."""
        both = itertools.chain(_blocks(self._near, len(self.rows[:MOST])), _blocks(self.real.__getitem__, self.n))
        plain = self.data.kind in ("image", "signal")
        return PlainValues(math.prod(self.data.shape), None if plain else both, seed=self.seed)

    @functools.cached_property
    def _known(self) -> tuple[Tensor, Tensor]:
        """The rows of the training data and of the held-out data for distances."""
        train = _features_of(self.values, self._near, len(self.rows[:MOST]))
        return _tensor(train), _tensor(_features_of(self.values, self.real.__getitem__, self.n))

    @functools.cached_property
    def _near_groups(self) -> dict[str, Array | None]:
        group = self.data.train.group
        of_train = None if group is None else group[np.sort(self.rows[:MOST])]
        return {"train_group": of_train, "held_out_group": self.group}

    def _counts(self, read: Callable[[slice], Array], n: int) -> NearestCounts:
        """The number of n samples that each training and each held-out datum is the nearest to."""
        return counts(_tensor(_features_of(self.values, read, n)), *self._known)

    @functools.cached_property
    def _spare(self) -> NearestCounts:
        """The counts of as many spare data in place of samples, or of all if they are fewer."""
        return self._counts(lambda part: self.data.events(self.spare[part]), min(self.n, len(self.spare)))

    @functools.cached_property
    def floors(self) -> dict[str, Estimate]:
        """The measures of training data in place of samples, and of spare data for memorisation."""
        split, rows = self.data.train, self._train
        group = None if split.group is None else split.group[rows]
        drawn = Blocked(self._rows_of(split, rows, self.features), group, seed=self.seed)
        compared = self._compared(drawn, self.data.events(split[rows]), group)
        found = {name: one for name, (one, _) in compared}
        found["memorisation"] = preferred(self._spare, **self._near_groups)
        return found

    @functools.cached_property
    def _detail(self) -> dict[str, Array]:
        return energies(self.real)

    def _compared(
        self, drawn: Blocked, x: Array, group: Array | None = None
    ) -> list[tuple[str, tuple[Estimate, dict[str, Estimate]]]]:
        """All measures but memorisation, of rows given by features and values."""
        size, real = self.features.size, self.balls
        enough = min(len(real.rows), len(drawn)) >= ROWS * size
        apart = Estimate(*(part / size for part in frechet_distance(real.rows, drawn))) if enough else Estimate(np.nan)
        near = neighbours(real, Balls(drawn))
        found = [apart, kernel_distance(real.rows, drawn), near.precision, near.recall, near.density, near.coverage]
        names = list(MEASURES)[: len(found)]
        measured: list[tuple[str, tuple[Estimate, dict[str, Estimate]]]]
        measured = [(name, (one, {})) for name, one in zip(names, found, strict=True)]
        if self.data.kind in ("image", "signal"):
            drawn_detail = energies(x)
            parts = {
                name: ratio(drawn_detail[name], own, a_group=group, b_group=self.group)
                for name, own in self._detail.items()
            }
            if parts:
                measured.append(("sharpness", (next(iter(parts.values())), parts)))
        return measured

    def measure(self, samples: Array) -> list[Quality]:
        """All measures of samples (m, *event) in the data's own units, by any generator; best with m = `n`.

        Precision, recall, density and coverage depend on m.

        Raises:
            ChoiceError: samples of another shape, or that are not finite.
        """
        x = np.asarray(samples)
        if x.shape[1:] != tuple(self.data.shape):
            raise ChoiceError(f"samples have shape (m, {', '.join(map(str, self.data.shape))}), got {x.shape}")
        drawn = _features_of(self.features, x.__getitem__, len(x))
        compared = self._compared(Blocked(drawn, seed=self.seed), x)
        found = [Quality(name, one, self.floors[name], parts) for name, (one, parts) in compared]
        near, groups = self._counts(x.__getitem__, len(x)), self._near_groups
        above = {ABOVE: excess(near, self._spare, **groups)}
        return [*found, Quality("memorisation", preferred(near, **groups), self.floors["memorisation"], above)]


def sample_quality(
    samples: Array,
    data: Data,
    *,
    n: int | None = None,
    features: Kind = "learned",
    seed: int = 0,
    folder: Path | None = None,
) -> dict[str, Quality]:
    """The measures of samples (m, *event) against the test split of a data set, by name; see `MEASURES`.

    For several sets of samples, make one `Reference` and call its `measure` for each.
    """
    reference = Reference(data, features=features, n=n, seed=seed, folder=folder)
    return {one.name: one for one in reference.measure(samples)}
