"""Measurements of a model on data; intermediate results that metrics share are computed once, on demand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from vaekit.data.condition import Labels
from vaekit.data.core import digest, listed
from vaekit.errors import ChoiceError
from vaekit.models.library import SizedVAE
from vaekit.runs.new_data import DataLike
from vaekit.runs.observed import block_of
from vaekit.runs.trained import TrainedModel
from vaekit.utils.formerly import formerly
from vaekit.utils.uncertainty import units

from .protocol import Protocol

Array = NDArray[Any]
T = TypeVar("T")
KEPT = 50_000_000
"""The maximum number of values of x for which reconstructions are kept; larger ones are recomputed for each metric."""


class Measurement:
    """The input of metrics: a run, the first n data of a split (or raw rows), K, and the seed of the noise.

    Arguments:
        data: `train`, `valid` or `test` of the run's data, or raw rows (with `labels` for a conditional run).
        source: the name of raw rows in the protocol.
        samples: K, importance samples per datum.
        compile: whether the estimator of log p(x) is compiled; by default if it has enough work.

    Raises:
        ChoiceError: K or n below 1.
    """

    @formerly("samples", "n", "seed", "progress", "labels", "source", "compile", split="data")
    def __init__(
        self,
        run: TrainedModel,
        data: DataLike = "test",
        *,
        n: int | None = None,
        labels: Labels | None = None,
        source: str | None = None,
        samples: int = 100,
        seed: int = 0,
        compile: bool | None = None,
        progress: Callable[[int, int], None] | None = None,
    ):
        if n is not None and n < 1:
            raise ChoiceError(f"the number of data to evaluate must be 1 or more, got {n}")
        if samples < 1:
            raise ChoiceError(f"the number of importance samples K must be 1 or more, got {samples}")
        self.run, self.observed = run, run.observed(data, labels=labels)
        self.n, self.all_data = self.observed.n if n is None else min(n, self.observed.n), n is None
        self.samples, self.seed, self.progress, self.source, self.compile = samples, seed, progress, source, compile
        self.results: dict[Any, Any] = {}

    @property
    def has_density(self) -> bool:
        """Whether the model has log p(x)."""
        return self.run.model.no_density is None

    @property
    def given_total(self) -> bool:
        """Whether log p is that of a row given its total, which the model knows (`library="observed"`)."""
        return isinstance(self.run.model, SizedVAE)

    @property
    def given(self) -> tuple[str, ...]:
        """The names of the classes or columns that log p(x) is conditional on."""
        condition = self.run.composition.condition
        return () if condition is None else tuple(column.name for column in condition.schema)

    @property
    def groups(self) -> Array | None:
        """The group of each datum, (n,); None if the data were not split by group."""
        return self.observed.groups(self.n)

    @property
    def indices(self) -> Array:
        """The row numbers of the data in their source, (n,), for a split of the run's data."""
        return getattr(self.run.data, self.observed.split).index[: self.n]

    @functools.cached_property
    def protocol(self) -> Protocol:
        """The protocol that all metrics of this measurement share."""
        new, group = self.observed.array, self.groups
        name, known = self.run.data_identity if new is None else (self.source or self.observed.name, digest(new))
        return Protocol(
            data=name,
            digest=known,
            split=self.observed.split if new is None else "all",
            n=self.n,
            observation=self.run.composition.observation.kind,
            draw=self.observed.draw_hash(self.n),
            dims=self.run.spec.dims,
            seed=self.seed,
            precision="fp32",
            units="nats per datum, x in the data's own units",
            groups=None if group is None else units(self.n, group),
        )

    def keep(self, function: Callable[[Measurement], T], result: T) -> None:
        """Store the result of a `shared` function that another function has computed as a by-product."""
        self.results.setdefault(function, result)


def shared(function: Callable[[Measurement], T]) -> Callable[[Measurement], T]:
    """Decorate a function of a `Measurement` so that its result is computed once per measurement, at the first call."""

    @functools.wraps(function)
    def once(m: Measurement) -> T:
        if once not in m.results:
            m.results[once] = function(m)
        return cast(T, m.results[once])

    return once


@shared
def codes(m: Measurement) -> Array:
    """The posterior mean of each datum, (n, ...), including the elements of a class or a condition."""
    return m.run.encode(m.observed, n=m.n, progress=m.progress)


@shared
def latent_means(m: Measurement) -> Array:
    """The posterior mean of each latent of each datum, (n, L), without the elements of a class or a condition."""
    return _latents(m, codes(m))


def _latents(m: Measurement, z: Array) -> Array:
    return z.reshape(len(z), -1)[:, m.run.model.latent_dims]


def training_means(m: Measurement, rows: Array) -> Array:
    """The `latent_means` of these rows of the training data, (len(rows), L)."""
    return _latents(m, m.run.encode("train", rows=rows))


class Reconstructions:
    """Pairs of raw data and their reconstructions at the posterior mean, per block, in the data's own units."""

    def __init__(self, m: Measurement):
        self.m = m
        self.kept: list[tuple[Array, Array]] | None = None

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        if self.kept is not None:
            yield from self.kept
            return
        m, z = self.m, codes(self.m)
        kept: list[tuple[Array, Array]] = []
        block, small = block_of(m.run.spec.dims), m.n * m.run.spec.dims <= KEPT
        for a in range(0, m.n, block):
            rows = np.arange(a, min(a + block, m.n))
            pair = m.observed.raw(rows), m.run.decode(z[rows])
            if small:
                kept.append(pair)
            yield pair
        self.kept = kept if small else None


@shared
def reconstructions(m: Measurement) -> Reconstructions:
    """Pairs of raw data and reconstructions; see `Reconstructions`."""
    return Reconstructions(m)


def codes_like(m: Measurement, rows: Array) -> Array:
    """A code from the prior for each of these rows of the measured data, whose conditions they have, (len(rows), ...).

    Without them, samples of a conditional model would have classes in other shares than the data.
    """
    return m.run.sample_latents(len(rows), labels=m.observed.labels_of(rows), seed=m.seed)


def like_data(m: Measurement) -> str:
    """What `codes_like` adds to the words "z from the prior", for estimators."""
    return f", given {listed(m.given)} of the data" if m.given else ""


@shared
def samples(m: Measurement) -> Array:
    """n samples, with n the number of data measured, (n, *event): rows or means of p(x|z), as `run.sample` gives.

    Those of a conditional run have the conditions of the data.
    """
    return m.run.new_rows(codes_like(m, np.arange(m.n)), seed=m.seed)
