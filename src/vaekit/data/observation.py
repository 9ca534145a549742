"""Observations: maps from raw data to the x of a likelihood.

Raw data are stored unchanged (uint8, counts, floats). An observation maps them to x when a batch is made, declares
the support of x, and provides the Jacobian, so that a density of x can be reported in the units of the data. A
missing raw value (nan) gives nan in x; `vaekit.heads.mixed.Masked` is the likelihood of the observed elements only.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from vaekit.errors import DataError
from vaekit.noise import Noise

from .core import Column, check_columns

REFERENCE_SEED = 777
"""Seed of the fixed binarisation of validation and test images, as in published tables for Fashion-MNIST."""


def moments(blocks: Callable[[], Iterable[Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and variance of each element over all rows, float64 (*event), in two passes over the blocks.

    Missing values (nan) are ignored; an element without values has mean 0 and variance 0.
    """
    n, total = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    base: Tensor | None = None  # subtracted to keep sums small, and exactly zero for constant elements
    for block in blocks():
        present = ~torch.isnan(block)
        if base is None:
            least = torch.where(present, block.double(), math.inf).amin(0)
            base = torch.where(torch.isfinite(least), least, 0)
        n, total = n + present.sum(0), total + torch.where(present, block.double() - base, 0).sum(0)
    mean = total / n.clamp_min(1) + (0 if base is None else base)
    squares = torch.zeros_like(mean)
    for block in blocks():
        squares = squares + torch.where(torch.isnan(block), 0, block.double() - mean).square().sum(0)
    return mean, squares / n.clamp_min(1)


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


class Observation(nn.Module, ABC):
    """Maps raw rows (B, *event) to x (B, *event), float32. Abstract.

    Attributes:
        kind: name of the observation in protocols.
        support: the support of x, a torch constraint.
        stochastic: whether x is random given the raw datum; training draws it at each step, evaluation once.
        bounded: whether raw values must lie in the range of the training data.
        network_range: the lowest and the highest x if a network must be given x rescaled; None if x is of order 1.
        seen: with missing values, the fraction of the training rows that have each element, (*event).
    """

    kind: str = ""
    support: constraints.Constraint = constraints.real
    stochastic: bool = False
    bounded: bool = False
    network_range: tuple[float, float] | None = None
    seen: Tensor

    @property
    def x_range(self) -> tuple[float, float] | None:
        """The lowest and the highest x, if they are known."""
        return self.network_range or ((0.0, 1.0) if self.bounded else None)

    @property
    def in_double(self) -> bool:
        """Whether raw data are processed in float64, because float32 cannot resolve their differences."""
        return any(buffer.dtype == torch.float64 for buffer in self.buffers())

    def masked(self, event: tuple[int, ...]) -> Observation:
        """Prepare for data with missing values and return self; `fit` then also measures `seen`."""
        self.register_buffer("seen", torch.ones(event))
        return self

    def hold(self, constant: Sequence[tuple[int, float]]) -> dict[int, float]:
        """Record the elements that are constant in the training rows, as (position, raw value).

        Returns:
            The value of x, by position, of the elements that the likelihood must fix at it. Only observations with
            one scale per element need this, because a constant element has none; the others return nothing.
        """
        return {}

    def fit(self, blocks: Callable[[], Iterable[Tensor]]) -> None:
        """Measure the statistics that the observation needs on the raw training rows, which come in blocks."""
        if "seen" in self._buffers:
            n, present = 0, torch.zeros(self.seen.shape, dtype=torch.float64)
            for block in blocks():
                n, present = n + len(block), present + (~torch.isnan(block)).sum(0)
            self.seen.copy_(present / n)

    @abstractmethod
    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        """The x (B, *event) of raw rows (B, *event), float32; `noise` is needed if the observation is `stochastic`."""

    def check(self, raw: np.ndarray) -> None:
        """Check that raw rows (N, *event) hold valid values of their kind; missing values pass.

        Raises:
            DataError: a value is not valid; the message names the first one.
        """

    @property
    def sound(self) -> bool:
        """Whether the statistics, measured or loaded, have possible values."""
        return "seen" not in self._buffers or bool(((self.seen >= 0) & (self.seen <= 1)).all())

    @abstractmethod
    def to_raw(self, x: Tensor) -> Tensor:
        """x, or a mean of x, in the units of the data: float32, or float64 if the data need it."""

    def log_units(self, event: tuple[int, ...]) -> Tensor:
        """log |d x / d raw| of each element, float64 (*event)."""
        return torch.zeros(event, dtype=torch.float64)

    def log_jacobian(self, event: tuple[int, ...]) -> float:
        """log |d x / d raw| per datum in nats: log p(x) plus this constant is the log density in the data's units.

        With missing values, the average over the training data; `log_jacobian_of` returns it for each datum.
        """
        units = self.log_units(event)
        return float((units * self.seen.cpu() if "seen" in self._buffers else units).sum())

    def log_jacobian_of(self, x: Tensor) -> Tensor:
        """log |d x / d raw| of each datum x (B, *event), summed over its observed elements, float64 (B,) on the CPU."""
        units = self.log_units(tuple(x.shape[1:]))
        return torch.where(torch.isnan(x).cpu(), 0.0, units).flatten(1).sum(1)

    def _needs(self, noise: Noise | None) -> Noise:
        if noise is None:
            raise ValueError(f"the {self.kind!r} observation is random: pass `noise`")
        return noise


class Grey(Observation):
    """x = (raw - low) / (high - low) - shift: [0, 1], or [-1/2, 1/2] with shift 1/2."""

    kind = "grey"
    bounded = True

    def __init__(self, low: float = 0.0, high: float = 255.0, shift: float = 0.0):
        super().__init__()
        self.low, self.span, self.shift = low, high - low, shift
        if shift == 0:
            self.support = constraints.unit_interval
        else:
            self.support = constraints.interval(-shift, 1 - shift)
            self.kind = f"grey shifted to [{-shift:g}, {1 - shift:g}]"

    @property
    def x_range(self) -> tuple[float, float]:
        return -self.shift, 1.0 - self.shift

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return (raw.float() - self.low) / self.span - self.shift

    def to_raw(self, x: Tensor) -> Tensor:
        return (x + self.shift) * self.span + self.low

    def log_units(self, event: tuple[int, ...]) -> Tensor:
        return torch.full(event, -math.log(self.span), dtype=torch.float64)


class TwoValued(Observation):
    """x is 0 or 1, for raw values in low..high. Abstract."""

    bounded = True
    support = constraints.boolean

    def __init__(self, low: float = 0.0, high: float = 255.0):
        super().__init__()
        self.low, self.high = low, high

    def to_raw(self, x: Tensor) -> Tensor:
        return x * (self.high - self.low) + self.low


class Binary(TwoValued):
    """x = 1 with probability (raw - low) / (high - low), else 0: redrawn at each step, fixed in evaluation."""

    kind = "binary"
    stochastic = True

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        noise = self._needs(noise)
        if raw.dtype == torch.uint8 and self.low == 0:
            return noise.bernoulli_of_bytes(raw, int(self.high))
        chance = (raw.float() - self.low) / (self.high - self.low)
        drawn = (noise.uniform(raw.shape[1:]) < chance).float()
        return drawn if not raw.is_floating_point() else torch.where(torch.isnan(raw), raw.float(), drawn)

    def chance(self, raw: np.ndarray) -> np.ndarray:
        """The probability that each pixel is 1, float64 in the shape of `raw`."""
        return np.clip((raw.astype(np.float64) - self.low) / (self.high - self.low), 0, 1)


class Threshold(TwoValued):
    """x = 1 if raw lies above the middle of its range low..high, else 0."""

    kind = "threshold"

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        high = (raw.float() > (self.low + self.high) / 2).float()
        return high if not raw.is_floating_point() else torch.where(torch.isnan(raw), raw.float(), high)


class Dequantised(Observation):
    """x = ((raw - low) / step + u) / levels with u uniform on [0, 1): uniform dequantisation (Theis et al. 2016).

    The expected log density of x is a lower bound on the log probability of the raw value, so it cannot grow without
    bound on values that repeat. Raw values should be `low` plus whole numbers of steps; for other values in the range
    it is the density of the value plus noise of one step.

    Arguments:
        low: the lowest raw value.
        levels: number of raw values.
        step: distance between raw values, in raw units.
    """

    kind = "dequantised"
    bounded = True
    support = constraints.unit_interval
    stochastic = True

    def __init__(self, low: float = 0.0, levels: int = 256, step: float = 1.0):
        super().__init__()
        self.low, self.levels, self.step = low, levels, step

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        x = ((raw.float() - self.low) / self.step + self._needs(noise).uniform(raw.shape[1:])) / self.levels
        return x.clamp(max=1 - 2.0**-24)  # in float32, 255 + u can round to 256

    def to_raw(self, x: Tensor) -> Tensor:
        return (x * self.levels - 0.5) * self.step + self.low

    def log_units(self, event: tuple[int, ...]) -> Tensor:
        return torch.full(event, -math.log(self.levels * self.step), dtype=torch.float64)


class Identity(Observation):
    """x = raw."""

    kind = "raw"

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return raw.float()

    def to_raw(self, x: Tensor) -> Tensor:
        return x.float()


class Levels(Identity):
    """x = raw, integers 0..levels-1, for discrete likelihoods of 8-bit data."""

    kind = "levels"
    bounded = True

    def __init__(self, levels: int = 256):
        super().__init__()
        self.levels = levels
        self.network_range = 0.0, levels - 1.0
        self.support = constraints.integer_interval(0, levels - 1)


class Standardised(Observation):
    """x = (raw - mean) / std of each feature, measured on the training rows and stored with the run.

    A feature that is constant in the training rows has std 0: its x is raw - mean, and `to_raw` returns the mean.

    Arguments:
        event: shape of x.
        double: whether raw rows and the arithmetic on them are float64; x is float32 in any case.
    """

    kind = "standardised"

    mean: Tensor
    std: Tensor

    def __init__(self, event: tuple[int, ...], double: bool = False):
        super().__init__()
        dtype = torch.float64 if double else torch.float32
        self.register_buffer("mean", torch.zeros(event, dtype=dtype))
        self.register_buffer("std", torch.ones(event, dtype=dtype))
        self.held: dict[int, float] = {}

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

    @property
    def unit(self) -> Tensor:
        """The size of one unit of x in the units of the data; 1 for a constant feature."""
        return torch.where(self.std > 0, self.std, 1.0)

    @property
    def sound(self) -> bool:
        constant = torch.zeros_like(self.std, dtype=torch.bool)
        constant.view(-1)[list(self.held)] = True
        return super().sound and bool(((self.std > 0) | (constant & (self.std == 0))).all())

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return ((raw.to(self.mean.dtype) - self.mean) / self.unit).float()

    def to_raw(self, x: Tensor) -> Tensor:
        return x.to(self.mean.dtype) * self.std + self.mean

    def log_units(self, event: tuple[int, ...]) -> Tensor:
        return -torch.log(self.unit.cpu().double())


class MixedTable(Standardised):
    """Standardises real columns; binary columns, codes of categories and counts are unchanged.

    Arguments:
        columns: the columns of the table, in the order of x.
        double: as for `Standardised`.
    """

    kind = "mixed table"

    def __init__(self, columns: Sequence[Column], double: bool = False):
        super().__init__((len(columns),), double)
        self.columns, self.support = tuple(columns), TableSupport(columns)

    def hold(self, constant: Sequence[tuple[int, float]]) -> dict[int, float]:
        real = super().hold([(i, value) for i, value in constant if self.columns[i].kind == "real"])
        return real | Counts.positive([(i, v) for i, v in constant if self.columns[i].kind == "counts"])

    def fit(self, blocks: Callable[[], Iterable[Tensor]]) -> None:
        super().fit(blocks)
        for i, column in enumerate(self.columns):
            if column.kind != "real":
                self.mean[i], self.std[i] = 0.0, 1.0

    @property
    def sound(self) -> bool:
        unchanged = torch.tensor([column.kind != "real" for column in self.columns])
        return super().sound and bool((self.mean[unchanged] == 0).all() and (self.std[unchanged] == 1).all())

    def check(self, raw: np.ndarray) -> None:
        check_columns(self.columns, raw, "the data")


class Counts(Observation):
    """x = raw, for counts: whole numbers from 0 up."""

    kind = "counts"
    support = constraints.nonnegative_integer

    @staticmethod
    def positive(constant: Sequence[tuple[int, float]]) -> dict[int, float]:
        """The constants above 0; a count that was always 0 is left to its likelihood, since it may occur later."""
        return {position: value for position, value in constant if value > 0}

    def hold(self, constant: Sequence[tuple[int, float]]) -> dict[int, float]:
        return self.positive(constant)

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return raw.float()

    def check(self, raw: np.ndarray) -> None:
        with np.errstate(invalid="ignore"):
            wrong = ~np.isnan(raw) & ~((raw >= 0) & (raw == np.round(raw)) & np.isfinite(raw))
        if wrong.any():
            position = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise DataError(f"counts must be whole numbers from 0 up, got {raw[position]:g} in row {position[0]}")

    def to_raw(self, x: Tensor) -> Tensor:
        return x.float()


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


class FrozenDraw:
    """The fixed binarisation of the data for evaluation, drawn once, with its hash.

    The pixels come from NumPy's legacy `RandomState(777)`, validation rows first, then test rows; for Fashion-MNIST
    this is the reference binarisation of the literature. Rows are drawn when first needed and stored as bits.
    """

    BLOCK = 1000

    def __init__(self, observation: Binary, *parts: Callable[[int, int], np.ndarray], sizes: tuple[int, ...]):
        """`parts[i](a, b)` returns the raw rows a..b of part i, which has `sizes[i]` rows."""
        self.observation, self.readers, self.sizes = observation, parts, sizes
        self.rng = np.random.RandomState(REFERENCE_SEED)
        self.packed: list[np.ndarray] = []
        self.missing: list[np.ndarray | None] = []  # mask of the missing elements, packed; None if none is missing
        self.done = [0] * len(sizes)

    def _part(self, part: int, n: int) -> np.ndarray:
        """The packed bits of a part, drawn for at least its first n rows, after all rows of the earlier parts."""
        for i in range(part + 1):
            while (a := self.done[i]) < (n if i == part else self.sizes[i]):
                b = min(a + self.BLOCK, self.sizes[i])
                chance = self.observation.chance(self.readers[i](a, b))
                missing = np.isnan(chance)
                drawn = self.rng.binomial(1, np.where(missing, 0.0, chance)).astype(bool)
                bits = np.packbits(drawn.reshape(b - a, -1), axis=1)
                if a == 0:
                    self.packed.append(np.empty((self.sizes[i], bits.shape[1]), np.uint8))
                    self.missing.append(None)
                self.packed[i][a:b] = bits
                if missing.any():
                    mask = self.missing[i]
                    self.missing[i] = mask = np.zeros_like(self.packed[i]) if mask is None else mask
                    mask[a:b] = np.packbits(missing.reshape(b - a, -1), axis=1)
                self.done[i] = b
        return self.packed[part]

    def digest(self, part: int, n: int) -> str:
        """SHA-256 in hexadecimal of the packed bits of the first n rows of a part."""
        return hashlib.sha256(self._part(part, n)[:n].tobytes()).hexdigest()

    def rows(self, part: int, rows: np.ndarray, event: tuple[int, ...]) -> np.ndarray:
        """The pixels of these rows of a part, (n, *event): uint8, or float32 with nan for missing pixels."""
        bits = np.unpackbits(self._part(part, int(rows.max()) + 1)[rows], axis=1, count=math.prod(event))
        mask = self.missing[part]
        if mask is not None:
            missing = np.unpackbits(mask[rows], axis=1, count=math.prod(event))
            bits = np.where(missing.astype(bool), np.float32(np.nan), bits.astype(np.float32))
        return bits.reshape(len(rows), *event)
