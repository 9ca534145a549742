"""Observations of intensities in a known range: pixels and their levels, and the frozen draw of binary ones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from vaekit.noise import Noise

from .base import Identity, Observation

REFERENCE_SEED = 777
"""Seed of the fixed binarisation of validation and test images, as in published tables for Fashion-MNIST."""


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

    def expected(self, raw: Tensor) -> Tensor:
        return (raw - self.low) / (self.high - self.low)

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

    def expected(self, raw: Tensor) -> Tensor:
        return ((raw - self.low) / self.step + 0.5) / self.levels

    def to_raw(self, x: Tensor) -> Tensor:
        return (x * self.levels - 0.5) * self.step + self.low

    def log_units(self, event: tuple[int, ...]) -> Tensor:
        return torch.full(event, -math.log(self.levels * self.step), dtype=torch.float64)


class Levels(Identity):
    """x = raw, integers 0..levels-1, for discrete likelihoods of 8-bit data."""

    kind = "levels"
    bounded = True

    def __init__(self, levels: int = 256):
        super().__init__()
        self.levels = levels
        self.network_range = 0.0, levels - 1.0
        self.support = constraints.integer_interval(0, levels - 1)


class FrozenDraw:
    """The fixed binarisation of the data for evaluation, drawn once, with its hash.

    The pixels come from NumPy's legacy `RandomState(777)`, validation rows first, then test rows; for Fashion-MNIST
    this is the reference binarisation of the literature. Rows are drawn when first needed and stored as bits.
    """

    BLOCK, VALUES = 1000, 4_000_000
    """Rows, and values, that are drawn at once; the draws do not depend on them."""

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
                raw = self.readers[i](a, b)
                step = max(1, self.VALUES // raw[0].size)  # the probabilities are float64
                drawn = [self._draw(raw[start : start + step]) for start in range(0, b - a, step)]
                bits, missing = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
                if a == 0:
                    self.packed.append(np.empty((self.sizes[i], bits.shape[1]), np.uint8))
                    self.missing.append(None)
                self.packed[i][a:b] = bits
                if missing.any():
                    mask = self.missing[i]
                    self.missing[i] = mask = np.zeros_like(self.packed[i]) if mask is None else mask
                    mask[a:b] = missing
                self.done[i] = b
        return self.packed[part]

    def _draw(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pixels of the next rows and the mask of missing ones, both packed."""
        chance = self.observation.chance(raw)
        missing = np.isnan(chance)
        drawn = self.rng.binomial(1, np.where(missing, 0.0, chance)).astype(bool)
        pixels, mask = (np.packbits(part.reshape(len(raw), -1), axis=1) for part in (drawn, missing))
        return pixels, mask

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
