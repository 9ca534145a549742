"""Observations that shift and scale numbers, and those of tables with columns of several kinds."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaekit.data.core import Column, check_columns
from vaekit.noise import Noise

from .base import Observation, moments
from .counts import Counts
from .quantiles import Quantiles


class Standardised(Observation):
    """x = (raw - mean) / std of each feature, measured on the training rows and stored with the run.

    A feature that is constant in the training rows has std 0: its x is raw - mean, and `to_raw` returns the mean.

    Features that are far from Gaussian, or have values that repeat, may be mapped by their quantiles instead: see
    `quantiles.Quantiles`. `heads.censored.Censored` is then the likelihood.

    Arguments:
        event: shape of x.
        double: whether raw rows and the arithmetic on them are float64; x is float32 in any case.
        far: for vectors, the distance from a Gaussian above which a feature is mapped by its quantiles; 0 maps every
            feature, and None none.
    """

    kind = "standardised"

    mean: Tensor
    std: Tensor

    def __init__(self, event: tuple[int, ...], double: bool = False, far: float | None = None):
        super().__init__()
        dtype = torch.float64 if double else torch.float32
        self.register_buffer("mean", torch.zeros(event, dtype=dtype))
        self.register_buffer("std", torch.ones(event, dtype=dtype))
        self.held: dict[int, float] = {}
        self.quantiles: Quantiles | None = None
        if far is not None:
            self.quantiles = Quantiles(event[0], far, dtype)
            self.kind, self.uneven = "quantile", True

    def for_export(self) -> Observation:
        observation = super().for_export()
        assert isinstance(observation, Standardised)
        if observation.quantiles is not None and not bool(observation.quantiles.mapped.any()):
            observation = copy.copy(observation)
            observation._modules = {**observation._modules, "quantiles": None}
        return observation

    def hold(self, constant: Sequence[tuple[int, float]]) -> dict[int, float]:
        self.held = dict(constant)
        return dict.fromkeys(self.held, 0.0)

    def fit(self, blocks: Callable[[], Iterable[Tensor]]) -> None:
        super().fit(blocks)
        mean, variance = moments(blocks)
        self.mean.copy_(mean)
        std = variance.sqrt()
        self.std.copy_(torch.where(std > 0, std, torch.ones_like(std)))
        for position, value in self.held.items():
            self.mean.view(-1)[position], self.std.view(-1)[position] = value, 0.0
        if self.quantiles is not None:
            self.quantiles.fit(blocks, self._mappable())

    def _mappable(self) -> list[int]:
        """The features that may be mapped by their quantiles."""
        return [i for i in range(len(self.mean)) if i not in self.held]

    @property
    def unit(self) -> Tensor:
        """The size of one unit of x in the units of the data; 1 for a constant feature."""
        return torch.where(self.std > 0, self.std, 1.0)

    @property
    def sound(self) -> bool:
        constant = torch.zeros_like(self.std, dtype=torch.bool)
        constant.view(-1)[list(self.held)] = True
        possible = super().sound and bool(((self.std > 0) | (constant & (self.std == 0))).all())
        return possible and (self.quantiles is None or self.quantiles.sound)

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        raw = raw.to(self.mean.dtype)
        x = (raw - self.mean) / self.unit
        if self.quantiles is not None:
            x = torch.where(self.quantiles.mapped, self.quantiles(raw), x)
        return x.float()

    def to_raw(self, x: Tensor) -> Tensor:
        x = x.to(self.mean.dtype)
        raw = x * self.std + self.mean
        return raw if self.quantiles is None else torch.where(self.quantiles.mapped, self.quantiles.back(x), raw)

    def mean_in_units(self, px: Distribution) -> Tensor:
        if self.quantiles is None:
            return super().mean_in_units(px)
        mean, std = px.mean.to(self.mean), px.variance.to(self.mean).sqrt()
        return torch.where(self.quantiles.mapped, self.quantiles.mean(mean, std), self.to_raw(mean))

    def log_units(self, event: tuple[int, ...]) -> Tensor:
        units = -torch.log(self.unit.cpu().double())
        if self.quantiles is None:
            return units
        return torch.where(self.quantiles.mapped.cpu(), self.quantiles.units.cpu().double(), units)

    def log_units_of(self, x: Tensor) -> Tensor:
        if self.quantiles is None:
            return super().log_units_of(x)
        units = torch.where(self.quantiles.mapped, self.quantiles.log_units(x.to(self.mean)), -torch.log(self.unit))
        return torch.where(torch.isnan(x), 0.0, units.to(x))


class Centred(Observation):
    """x = (raw - mean) / scale, with a mean per feature and one scale for all: a shift and an isotropic scaling.

    Arguments:
        event: shape of x.
        double: as for `Standardised`.
    """

    kind = "centred"

    mean: Tensor
    scale: Tensor

    def __init__(self, event: tuple[int, ...], double: bool = False):
        super().__init__()
        dtype = torch.float64 if double else torch.float32
        self.register_buffer("mean", torch.zeros(event, dtype=dtype))
        self.register_buffer("scale", torch.ones((), dtype=dtype))

    def fit(self, blocks: Callable[[], Iterable[Tensor]]) -> None:
        super().fit(blocks)
        mean, variance = moments(blocks)
        self.mean.copy_(mean)
        scale = variance.mean().sqrt()
        self.scale.copy_(scale if scale > 0 else torch.ones_like(scale))

    @property
    def sound(self) -> bool:
        return super().sound and bool(self.scale > 0)

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return ((raw.to(self.mean.dtype) - self.mean) / self.scale).float()

    def to_raw(self, x: Tensor) -> Tensor:
        return x.to(self.mean.dtype) * self.scale + self.mean

    def log_units(self, event: tuple[int, ...]) -> Tensor:
        return torch.full(event, -math.log(float(self.scale)), dtype=torch.float64)


class TableSupport(constraints.Constraint):
    """The support of the rows of a mixed table: the product of the supports of its columns."""

    event_dim = 1

    def __init__(self, columns: Sequence[Column]):
        self.is_discrete = all(column.kind != "real" for column in columns)
        tops = {"binary": 1.0, "real": math.inf, "counts": math.inf}
        self.top = torch.tensor([tops.get(column.kind, len(column.categories) - 1) for column in columns])
        self.real = torch.tensor([column.kind == "real" for column in columns])

    def each(self, value: Tensor) -> Tensor:
        """Whether each element of (..., D) lies in the support of its column."""
        top, real = self.top.to(value.device), self.real.to(value.device)
        whole = (value >= 0) & (value <= top) & (value == value.round())
        return (real | whole) & torch.isfinite(value)

    def check(self, value: Tensor) -> Tensor:
        """Whether each row of (..., D) lies in the support, (...)."""
        return self.each(value).all(-1)


class MixedTable(Standardised):
    """Standardises real columns; binary columns, codes of categories and counts are unchanged.

    Arguments:
        columns: the columns of the table, in the order of x.
        double, far: as for `Standardised`, for real columns.
    """

    kind = "mixed table"

    def __init__(self, columns: Sequence[Column], double: bool = False, far: float | None = None):
        super().__init__((len(columns),), double, far)
        self.columns, self.support = tuple(columns), TableSupport(columns)

    def hold(self, constant: Sequence[tuple[int, float]]) -> dict[int, float]:
        real = super().hold([(i, value) for i, value in constant if self.columns[i].kind == "real"])
        return real | Counts.positive([(i, v) for i, v in constant if self.columns[i].kind == "counts"])

    def fit(self, blocks: Callable[[], Iterable[Tensor]]) -> None:
        super().fit(blocks)
        for i, column in enumerate(self.columns):
            if column.kind != "real":
                self.mean[i], self.std[i] = 0.0, 1.0

    def _mappable(self) -> list[int]:
        return [i for i in super()._mappable() if self.columns[i].kind == "real"]

    @property
    def sound(self) -> bool:
        unchanged = torch.tensor([column.kind != "real" for column in self.columns])
        return super().sound and bool((self.mean[unchanged] == 0).all() and (self.std[unchanged] == 1).all())

    def check(self, raw: np.ndarray) -> None:
        check_columns(self.columns, raw, "the data")
