"""Observations: how raw data become the x that a likelihood speaks of.

Raw data stay as they are (uint8, counts, floats). An observation maps them to x on the fly, states the support of
x, and knows the Jacobian, so that a density of x is reported in the data's own units. Where a raw value is missing,
nan, x is nan too, whatever the observation; a likelihood of the observed elements alone is `vaekit.heads.mixed.Masked`.
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
"""Seed of the frozen binary draw of validation and test images, shared with published Fashion-MNIST tables."""


def moments(blocks: Callable[[], Iterable[Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and variance of each element over all rows, float64, in two passes that hold one block at a time.

    Missing values (nan) do not count; an element that no row has gets 0 and 0.
    """
    n, total = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    base: Tensor | None = None  # near the values: what is summed is small, and nothing where an element is constant
    for block in blocks():
        seen = ~torch.isnan(block)
        if base is None:
            least = torch.where(seen, block.double(), math.inf).amin(0)
            base = torch.where(torch.isfinite(least), least, 0)
        n, total = n + seen.sum(0), total + torch.where(seen, block.double() - base, 0).sum(0)
    mean = total / n.clamp_min(1) + (0 if base is None else base)
    squares = torch.zeros_like(mean)
    for block in blocks():
        squares = squares + torch.where(torch.isnan(block), 0, block.double() - mean).square().sum(0)
    return mean, squares / n.clamp_min(1)


class TableSupport(constraints.Constraint):
    """Where the rows of a mixed table lie: each column in its own set of numbers."""

    event_dim = 1

    def __init__(self, columns: Sequence[Column]):
        self.is_discrete = all(column.kind != "real" for column in columns)
        tops = {"binary": 1.0, "real": math.inf, "counts": math.inf}
        self.top = torch.tensor([tops.get(column.kind, len(column.categories) - 1) for column in columns])
        self.real = torch.tensor([column.kind == "real" for column in columns])

    def each(self, value: Tensor) -> Tensor:
        """Whether each element of (..., D) lies in its column's set."""
        top, real = self.top.to(value.device), self.real.to(value.device)
        whole = (value >= 0) & (value <= top) & (value == value.round())
        return (real | whole) & torch.isfinite(value)

    def check(self, value: Tensor) -> Tensor:
        return self.each(value).all(-1)


class Observation(nn.Module, ABC):
    """Raw rows (B, *event) -> x (B, *event), float32. Abstract.

    Attributes:
        kind: its name in protocols.
        support: where x lies, a torch constraint.
        stochastic: whether x is a draw given the raw datum. Training draws afresh each step; evaluation draws once.
        bounded: whether raw values must lie in the range the run was trained on.
    """

    kind: str = ""
    support: constraints.Constraint = constraints.real
    stochastic: bool = False
    bounded: bool = False

    seen: Tensor

    @property
    def in_double(self) -> bool:
        """Whether raw data are taken in float64, since float32 would blur what tells them apart."""
        return any(buffer.dtype == torch.float64 for buffer in self.buffers())

    def masked(self, event: tuple[int, ...]) -> Observation:
        """Self, for data with missing values: the share of the rows that have an element is learned with the rest."""
        self.register_buffer("seen", torch.ones(event))
        return self

    def hold(self, constant: Sequence[tuple[int, float]]) -> dict[int, float]:
        """Takes note of elements (by place) that have one raw value in all training rows; those to be held at it.

        Such an element has no scale to measure others by. Returns the x of each that the likelihood is to hold: of the
        kinds that know the range of their data, or have one scale for all, none.
        """
        return {}

    def fit(self, blocks: Callable[[], Iterable[Tensor]]) -> None:
        """Learn what is to be learned from the raw training rows, passed over in blocks. Most learn nothing else."""
        if "seen" in self._buffers:
            n, seen = 0, torch.zeros(self.seen.shape, dtype=torch.float64)
            for block in blocks():
                n, seen = n + len(block), seen + (~torch.isnan(block)).sum(0)
            self.seen.copy_(seen / n)

    @abstractmethod
    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        """x of raw rows (B, *event), of the same shape in float32; with `stochastic`, a draw by `noise`."""

    def check(self, raw: np.ndarray) -> None:
        """Refuse raw rows (N, *event) that cannot be observed, whatever their range; missing values can.

        Raises:
            DataError: naming the first such value.
        """

    @property
    def sound(self) -> bool:
        """Whether what it learned, or was loaded, is what it can have learned."""
        return "seen" not in self._buffers or bool(((self.seen >= 0) & (self.seen <= 1)).all())

    @abstractmethod
    def to_raw(self, x: Tensor) -> Tensor:
        """x, or a mean of x, back in the data's own units: float32, or float64 where the data need that."""

    def log_units(self, event: tuple[int, ...]) -> Tensor:
        """log |dx / draw| of each element, float64 (*event)."""
        return torch.zeros(event, dtype=torch.float64)

    def log_jacobian(self, event: tuple[int, ...]) -> float:
        """log |dx / draw| of one datum in nats: added to log p(x) it gives the density in the data's own units.

        Where values are missing, that of a training datum on average; `log_jacobian_of` has each datum's own.
        """
        units = self.log_units(event)
        return float((units * self.seen.cpu() if "seen" in self._buffers else units).sum())

    def log_jacobian_of(self, x: Tensor) -> Tensor:
        """log |dx / draw| of each datum x (B, *event) over the elements it has, float64 (B,), on the CPU."""
        units = self.log_units(tuple(x.shape[1:]))
        return torch.where(torch.isnan(x).cpu(), 0.0, units).flatten(1).sum(1)

    def _needs(self, noise: Noise | None) -> Noise:
        if noise is None:
            raise ValueError(f"the {self.kind!r} observation is a random draw: pass noise=")
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

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return (raw.float() - self.low) / self.span - self.shift

    def to_raw(self, x: Tensor) -> Tensor:
        return (x + self.shift) * self.span + self.low

    def log_units(self, event: tuple[int, ...]) -> Tensor:
        return torch.full(event, -math.log(self.span), dtype=torch.float64)


class Binary(Observation):
    """Pixels drawn 1 with probability (raw - low) / (high - low): afresh each training step, once for evaluation."""

    kind = "binary"
    bounded = True
    support = constraints.boolean
    stochastic = True

    def __init__(self, low: float = 0.0, high: float = 255.0):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        noise = self._needs(noise)
        if raw.dtype == torch.uint8 and self.low == 0:
            return noise.bernoulli_of_bytes(raw, int(self.high))
        chance = (raw.float() - self.low) / (self.high - self.low)
        drawn = (noise.uniform(raw.shape[1:]) < chance).float()
        return drawn if not raw.is_floating_point() else torch.where(torch.isnan(raw), raw.float(), drawn)

    def to_raw(self, x: Tensor) -> Tensor:
        return x * (self.high - self.low) + self.low

    def chance(self, raw: np.ndarray) -> np.ndarray:
        return np.clip((raw.astype(np.float64) - self.low) / (self.high - self.low), 0, 1)


class Threshold(Observation):
    """x = 1 where raw lies above the middle of its range."""

    kind = "threshold"
    bounded = True
    support = constraints.boolean

    def __init__(self, low: float = 0.0, high: float = 255.0):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        high = (raw.float() > (self.low + self.high) / 2).float()
        return high if not raw.is_floating_point() else torch.where(torch.isnan(raw), raw.float(), high)

    def to_raw(self, x: Tensor) -> Tensor:
        return x * (self.high - self.low) + self.low


class Dequantised(Observation):
    """x = ((raw - low) / step + u) / levels, u uniform on [0, 1): its density bounds the pmf (Theis et al. 2016).

    Raw values are whole numbers of steps from `low`; a density of x cannot grow without bound on values that repeat.
    Of other raw values in the range it is the density of the value with noise one step wide.

    Arguments:
        low: the lowest raw value.
        levels: how many values there are.
        step: from one to the next, in raw units.
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
        return x.clamp(max=1 - 2.0**-24)  # 255 + u may round up to 256 in float32

    def to_raw(self, x: Tensor) -> Tensor:
        return (x * self.levels - 0.5) * self.step + self.low

    def log_units(self, event: tuple[int, ...]) -> Tensor:
        return torch.full(event, -math.log(self.levels * self.step), dtype=torch.float64)


class Levels(Observation):
    """The integers themselves, 0 .. levels-1, for likelihoods that are probabilities of 8-bit data."""

    kind = "levels"
    bounded = True

    def __init__(self, levels: int = 256):
        super().__init__()
        self.levels = levels
        self.support = constraints.integer_interval(0, levels - 1)

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return raw.float()

    def to_raw(self, x: Tensor) -> Tensor:
        return x.float()


class Identity(Observation):
    """The data's own units."""

    kind = "raw"

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return raw.float()

    def to_raw(self, x: Tensor) -> Tensor:
        return x.float()


class Standardised(Observation):
    """x = (raw - mean) / std of each feature, measured on the training rows and stored with the run.

    With `double` the raw rows and the arithmetic on them are float64; x is float32 all the same.
    A feature that is the same in all training rows has std 0: its x is raw - mean, and comes back as its mean whatever
    the model makes of it.
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
        for place, value in self.held.items():
            self.mean.view(-1)[place], self.std.view(-1)[place] = value, 0.0

    @property
    def unit(self) -> Tensor:
        """What one unit of x is, in the data's own: 1 of a feature without a spread."""
        return torch.where(self.std > 0, self.std, 1.0)

    @property
    def sound(self) -> bool:
        still = torch.zeros_like(self.std, dtype=torch.bool)
        still.view(-1)[list(self.held)] = True
        return super().sound and bool(((self.std > 0) | (still & (self.std == 0))).all())

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return ((raw.to(self.mean.dtype) - self.mean) / self.unit).float()

    def to_raw(self, x: Tensor) -> Tensor:
        return x.to(self.mean.dtype) * self.std + self.mean

    def log_units(self, event: tuple[int, ...]) -> Tensor:
        return -torch.log(self.unit.cpu().double())


class MixedTable(Standardised):
    """Real columns standardised; two-valued ones, categories' codes and counts left alone.

    Arguments:
        columns: of the table, in the order of x.
    """

    kind = "mixed table"

    def __init__(self, columns: Sequence[Column], double: bool = False):
        super().__init__((len(columns),), double)
        self.columns, self.support = tuple(columns), TableSupport(columns)

    def hold(self, constant: Sequence[tuple[int, float]]) -> dict[int, float]:
        found = super().hold([(i, value) for i, value in constant if self.columns[i].kind == "real"])
        return found | Counts.above_nothing([(i, v) for i, v in constant if self.columns[i].kind == "counts"])

    def fit(self, blocks: Callable[[], Iterable[Tensor]]) -> None:
        super().fit(blocks)
        for i, column in enumerate(self.columns):
            if column.kind != "real":
                self.mean[i], self.std[i] = 0.0, 1.0

    @property
    def sound(self) -> bool:
        alone = torch.tensor([column.kind != "real" for column in self.columns])
        return super().sound and bool((self.mean[alone] == 0).all() and (self.std[alone] == 1).all())

    def check(self, raw: np.ndarray) -> None:
        check_columns(self.columns, raw, "the data")


class Counts(Observation):
    """Counts as they are, whole numbers from 0 up."""

    kind = "counts"
    support = constraints.nonnegative_integer

    @staticmethod
    def above_nothing(constant: Sequence[tuple[int, float]]) -> dict[int, float]:
        """Those that are not 0: what was never counted yet may be, and densities of counts say how unlikely that is."""
        return {place: value for place, value in constant if value > 0}

    def hold(self, constant: Sequence[tuple[int, float]]) -> dict[int, float]:
        return self.above_nothing(constant)

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return raw.float()

    def check(self, raw: np.ndarray) -> None:
        with np.errstate(invalid="ignore"):
            wrong = ~np.isnan(raw) & ~((raw >= 0) & (raw == np.round(raw)) & np.isfinite(raw))
        if wrong.any():
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise DataError(f"counts are whole numbers from 0 up, got {raw[place]:g} in row {place[0]}")

    def to_raw(self, x: Tensor) -> Tensor:
        return x.float()


class Centred(Observation):
    """x = (raw - mean of each feature) / one scale for all: a shift and an isotropic change of units, nothing more."""

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
    """The one draw of every evaluated datum, fixed in advance, with its hash.

    Binary pixels come from numpy's legacy `RandomState(777)`, validation rows first, then test rows, so that
    Fashion-MNIST gets the reference draw of the literature. They are drawn as far as they are asked for and held
    packed, one bit a pixel.
    """

    BLOCK = 1000

    def __init__(self, observation: Binary, *parts: Callable[[int, int], np.ndarray], sizes: tuple[int, ...]):
        """`parts[i](a, b)` gives raw rows a..b of part i, which has `sizes[i]` of them."""
        self.observation, self.readers, self.sizes = observation, parts, sizes
        self.rng = np.random.RandomState(REFERENCE_SEED)
        self.packed: list[np.ndarray] = []
        self.holes: list[np.ndarray | None] = []  # which elements are missing, packed; None where none are
        self.done = [0] * len(sizes)

    def _part(self, part: int, n: int) -> np.ndarray:
        """The packed bits of the first n rows (or more) of a part, every earlier part drawn whole before it."""
        for i in range(part + 1):
            while (a := self.done[i]) < (n if i == part else self.sizes[i]):
                b = min(a + self.BLOCK, self.sizes[i])
                chance = self.observation.chance(self.readers[i](a, b))
                holes = np.isnan(chance)
                drawn = self.rng.binomial(1, np.where(holes, 0.0, chance)).astype(bool)
                bits = np.packbits(drawn.reshape(b - a, -1), axis=1)
                if a == 0:
                    self.packed.append(np.empty((self.sizes[i], bits.shape[1]), np.uint8))
                    self.holes.append(None)
                self.packed[i][a:b] = bits
                if holes.any():
                    mine = self.holes[i]
                    self.holes[i] = mine = np.zeros_like(self.packed[i]) if mine is None else mine
                    mine[a:b] = np.packbits(holes.reshape(b - a, -1), axis=1)
                self.done[i] = b
        return self.packed[part]

    def digest(self, part: int, n: int) -> str:
        """SHA-256 of the packed bits of the first n rows."""
        return hashlib.sha256(self._part(part, n)[:n].tobytes()).hexdigest()

    def rows(self, part: int, rows: np.ndarray, event: tuple[int, ...]) -> np.ndarray:
        """The drawn pixels of these rows, (n, *event): uint8, or float32 with nan where pixels are missing."""
        bits = np.unpackbits(self._part(part, int(rows.max()) + 1)[rows], axis=1, count=math.prod(event))
        holes = self.holes[part]
        if holes is not None:
            missing = np.unpackbits(holes[rows], axis=1, count=math.prod(event))
            bits = np.where(missing.astype(bool), np.float32(np.nan), bits.astype(np.float32))
        return bits.reshape(len(rows), *event)
