"""Monotone maps from the numbers of a column to a standard normal x, by the quantiles of the training rows.

With F the distribution of the column, x = Phi^-1(F(raw)): piecewise linear between knots, and linear beyond the first
and the last knot. A value that many rows share is an atom: it stands for a whole interval of x, whose mass under
N(0, 1) is the share of those rows. The density of x over that interval is the probability of the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vaekit.utils.normal import tail

Numbers = NDArray[np.float64]

ATOMS = 256
"""A column with at most so many distinct values, each in `REPEATS` rows on average, consists of atoms only."""
REPEATS = 4
HEAVY, FEWEST = 0.05, 10
"""In other columns a value is an atom if at least this share of the rows, and so many, have it."""
KNOTS = 128
"""The largest number of knots beside atoms; from n rows, 2 sqrt(n)."""
SIZE = 2 * ATOMS
PADDING = torch.finfo(torch.float32).max
"""Fills unused knots: above all data, and finite, as stored tensors must be."""
LEAST_ROWS = 20
"""A column with fewer values is not mapped."""
FAR = 0.02
"""Kolmogorov-Smirnov distance from a Gaussian, beyond that of a Gaussian sample, above which a column is mapped."""
NOISE = 0.9
"""The distance of n draws of a Gaussian from the Gaussian fitted to them is below NOISE / sqrt(n) in 19 of 20 cases."""
LEAST_MASS = 1e-6
"""The mass of the numbers between two neighbouring atoms: positive, so that a number there has a finite density."""
DIGITS = 4
"""Decimal places of the numbers that may be evenly spaced."""
BLOCK = 2**22
"""Numbers computed at once for a mean."""
MOST_ROWS = 200_000
"""Rows from which the quantiles are measured."""


def distance_from_gaussian(values: Numbers) -> float:
    """Kolmogorov-Smirnov distance of sorted numbers (n,) from the Gaussian with their mean and variance."""
    std = values.std()
    if not std > 0:
        return 0.0
    normal = torch.special.ndtr(torch.from_numpy((values - values.mean()) / std)).numpy()
    below = np.searchsorted(values, values, "left") / len(values)
    to = np.searchsorted(values, values, "right") / len(values)
    return float(np.maximum(np.abs(normal - below), np.abs(normal - to)).max())


def spacing(distinct: Numbers) -> tuple[float, int]:
    """The largest step of which all differences of sorted distinct numbers are multiples, and their decimal places.

    (0, 0) if they have none. The numbers may have been rounded to float32.
    """
    for digits in range(DIGITS + 1):
        scaled = distinct * 10**digits
        rounding = 0.0 if digits == 0 else 1e-3 + 2.0**-24 * np.abs(scaled)
        if np.max(rounding) > 0.2 or np.abs(scaled).max() >= 2**53:
            break
        whole = np.round(scaled)
        if (np.abs(scaled - whole) <= rounding).all():
            return int(np.gcd.reduce(np.diff(whole).astype(np.int64))) / 10**digits, digits
    return 0.0, 0


@dataclass(frozen=True)
class Curve:
    """The map of one column.

    Attributes:
        raw, x: (M,) the knots, sorted; an atom is two knots with the same raw value.
        low, high: the derivatives dx / d raw below the first and above the last knot.
        step, digits: the spacing of the values if they are evenly spaced, and their decimal places; else 0.
    """

    raw: Numbers
    x: Numbers
    low: float
    high: float
    step: float
    digits: int


def curve_of(values: Numbers, far: float = FAR) -> Curve | None:
    """The map of a column with these sorted numbers (n,), or None if it is near a Gaussian, or its rows are few.

    A column whose values are evenly spaced and repeat is mapped even if it is near a Gaussian.

    Arguments:
        far: see `FAR`; 0 maps every column.
    """
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    if n < LEAST_ROWS or len(distinct) < 2:
        return None
    discrete = len(distinct) <= ATOMS and n >= REPEATS * len(distinct)
    atom = np.full(len(distinct), True) if discrete else counts >= max(FEWEST, HEAVY * n)
    step, digits = spacing(distinct)
    repeated = atom.any() or (step > 0 and n >= REPEATS * len(distinct))
    if far and not repeated and distance_from_gaussian(values) <= far + NOISE / math.sqrt(n):
        return None
    at = distinct[atom] if discrete else np.union1d(distinct[atom], _knots(np.repeat(distinct[~atom], counts[~atom])))
    is_atom = np.isin(at, distinct[atom])
    below, to = np.searchsorted(values, at, "left") / n, np.searchsorted(values, at, "right") / n
    middle = (below + to) / 2
    ends = np.stack([np.where(is_atom, below, middle), np.where(is_atom, to, middle)], 1).ravel()
    kept = np.stack([np.ones_like(is_atom), is_atom], 1).ravel()
    raw, mass = np.repeat(at, 2)[kept], np.diff(ends[kept], prepend=0, append=1)
    mass[0], mass[-1] = max(mass[0], 0.5 / (n + 1)), max(mass[-1], 0.5 / (n + 1))
    if discrete:
        mass[2:-1:2] += _unseen(distinct, counts, step)
    mass = np.maximum(mass, LEAST_MASS)
    x = torch.special.ndtri(torch.from_numpy(np.cumsum(mass / mass.sum())[:-1])).numpy()
    low, high = (_tail(raw[::way] * way, x[::way] * way, float(values.std())) for way in (-1, 1))
    return Curve(raw, x, low, high, step, digits)


def _knots(values: Numbers) -> Numbers:
    """Distinct quantiles of sorted numbers: evenly spaced, and closer at both ends."""
    n = len(values)
    if not n:
        return values
    count = min(KNOTS - 16, max(2, int(2 * math.sqrt(n))))
    tail = 4.0 ** np.arange(int(math.log(max(n / count, 1), 4)) + 1) / n
    levels = np.concatenate([np.linspace(0, 1, count), tail, 1 - tail])
    at = np.unique(values[np.clip(np.round(levels * (n - 1)).astype(int), 0, n - 1)])
    low, high = values[n // 4], values[3 * n // 4]
    apart = np.diff(at, prepend=-math.inf) > 1e-4 * (high - low)
    apart[-1] = True  # the maximum stays
    return at[apart]


def _unseen(distinct: Numbers, counts: NDArray[np.int64], step: float) -> Numbers:
    """The mass of each gap between atoms, by the estimate of Good and Turing: the share of values that occur once."""
    between = np.diff(distinct)
    weights = np.round(between / step) - 1 if step else np.ones_like(between)
    total = weights.sum()
    return weights / total * (counts == 1).sum() / counts.sum() if total else weights


def _tail(raw: Numbers, x: Numbers, std: float) -> float:
    """dx / d raw beyond the last knot: the average over the last tenth of the values, else one standard deviation."""
    last = x > 1.28
    start = int(last.argmax()) if last.any() else len(x) - 1
    apart = raw[-1] - raw[start]
    return float((x[-1] - x[start]) / apart) if apart > 0 else 1 / std


class Quantiles(nn.Module):
    """The curves of the elements of an event (D,); elements without a curve are not `mapped`.

    Arguments:
        size: D.
        far: see `curve_of`.
        dtype: of the arithmetic.

    Attributes:
        raw, x: (D, SIZE) the knots, padded with `PADDING`.
        run: (D, SIZE + 1) d raw / dx below the first knot, above each knot, and 0 within an atom.
        step: (D,) the spacing of the values; 0 without one.
        places: (D,) 10 to the power of their number of decimal places.
        units: (D,) the mean of log |d x / d raw| over the training rows.
    """

    raw: Tensor
    x: Tensor
    run: Tensor
    step: Tensor
    places: Tensor
    units: Tensor

    def __init__(self, size: int, far: float = FAR, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.far = far
        padding = torch.full((size, SIZE), PADDING, dtype=dtype)
        self.register_buffer("raw", padding)
        self.register_buffer("x", padding.clone())
        self.register_buffer("run", torch.ones((size, SIZE + 1), dtype=dtype))
        self.register_buffer("step", torch.zeros(size, dtype=dtype))
        self.register_buffer("places", torch.ones(size, dtype=dtype))
        self.register_buffer("units", torch.zeros(size, dtype=dtype))

    @property
    def mapped(self) -> Tensor:
        """Whether each element has a curve, (D,)."""
        return self.raw[:, 0] < PADDING

    @property
    def sound(self) -> bool:
        """Whether the knots are sorted and the derivatives possible."""
        order = [(k[:, 1:] >= k[:, :-1]).all() for k in (self.raw, self.x)]
        return bool(order[0] & order[1] & (self.run >= 0).all() & (self.step >= 0).all() & (self.places >= 1).all())

    def of_features(self, features: Tensor) -> Quantiles:
        """The curves of these elements (H,), which may repeat."""
        part = Quantiles(0, self.far, self.raw.dtype)
        for name, values in self.named_buffers():
            setattr(part, name, values[features])
        return part

    def fit(self, blocks: Callable[[], Iterable[Tensor]], elements: list[int]) -> None:
        """Measure the curves of these elements on the training rows (n, D), which come in blocks."""
        n = sum(len(block) for block in blocks())
        every, first, rows = max(1, -(-n // MOST_ROWS)), 0, torch.empty(0)
        for block in blocks():
            part = block[-first % every :: every, elements]
            if first == 0:
                rows = torch.empty((-(-n // every), len(elements)), dtype=part.dtype)
            done = -(-first // every)
            rows[done : done + len(part)] = part
            first += len(block)
        for j, i in enumerate(elements):
            column = rows[:, j].double().numpy()
            curve = curve_of(np.sort(column[~np.isnan(column)]), self.far)
            if curve is not None:
                self._put(i, curve)
        self.units.copy_(self._mean_units(rows, elements))

    @torch.no_grad()
    def _mean_units(self, rows: Tensor, elements: list[int]) -> Tensor:
        """The mean of log |d x / d raw| over these rows of these elements, (D,); 0 for the others."""
        total, n = torch.zeros(len(self.raw), dtype=torch.float64), torch.zeros(len(self.raw), dtype=torch.int64)
        for part in rows.split(max(1, BLOCK // 4 // len(self.raw))):
            whole = torch.full((len(part), len(self.raw)), math.nan, dtype=self.raw.dtype)
            whole[:, elements] = part.to(self.raw.dtype)
            units, present = self.log_units(self(whole)), ~torch.isnan(whole)
            total += torch.where(present, units, 0.0).double().sum(0)
            n += present.sum(0)
        return total / n.clamp_min(1)

    def _put(self, i: int, curve: Curve) -> None:
        m = len(curve.raw)
        raw, x = torch.from_numpy(curve.raw).to(self.raw), torch.from_numpy(curve.x).to(self.x)
        self.raw[i, :m], self.x[i, :m], self.step[i], self.places[i] = raw, x, curve.step, 10.0**curve.digits
        self.run[i, 0], self.run[i, m] = 1 / curve.low, 1 / curve.high
        rise = x.diff()
        self.run[i, 1:m] = torch.where(rise > 0, raw.diff() / torch.where(rise > 0, rise, 1), 0)

    def forward(self, raw: Tensor) -> Tensor:
        """x (..., D) of raw numbers (..., D); an atom is the centre of mass of its interval."""
        above = _above(raw, self.raw)
        at, x = _take(self.raw, above - 1), _take(self.x, above - 1)
        run = _take(self.run, above)
        within = _take(self.run, (above - 1).clamp_min(0)) == 0  # the interval that ends at this knot is an atom
        atom = (raw == at) & within & (above > 1)
        centre = centre_of(_take(self.x, above - 2), x)
        return torch.where(atom, centre, x + (raw - at) / torch.where(run > 0, run, 1))

    def back(self, x: Tensor) -> Tensor:
        """The raw numbers (..., D) of x (..., D); any x of the interval of an atom gives its value."""
        above = _above(x, self.x)
        at, run = _take(self.raw, above - 1), _take(self.run, above)
        raw = at + (x - _take(self.x, above - 1)) * run
        first, step = self.raw[:, 0], self.step
        spaced = (step > 0) & (run > 0)
        steps = torch.round((raw - first) / torch.where(step > 0, step, 1))
        return torch.where(spaced, torch.round((first + steps * step) * self.places) / self.places, raw)

    def mean(self, loc: Tensor, scale: Tensor) -> Tensor:
        """The mean of the raw numbers (..., D) of Gaussian x with these means and standard deviations (..., D).

        Each piece of the curve contributes its derivative times the mean of the part of x that lies in it.
        """
        if torch.compiler.is_compiling():
            return self._mean(loc, scale)
        rows = max(1, BLOCK // self.x.numel())
        parts = zip(*(v.reshape(-1, len(self.x)).split(rows) for v in (loc, scale)), strict=True)
        return torch.cat([self._mean(*part) for part in parts]).reshape(loc.shape)

    def _mean(self, loc: Tensor, scale: Tensor) -> Tensor:
        loc, scale = loc[..., None], scale[..., None]
        knots = self.x.clamp_max(1e4)  # padding: beyond any x
        t = (knots - loc) / scale
        above = scale * (torch.exp(-t.square() / 2) / math.sqrt(2 * math.pi) - t * tail(t))  # E[(x - knot)+]
        width = knots[:, 1:] - knots[:, :-1]
        narrow = width < 0.01 * scale  # where a difference loses its digits
        share = torch.where(narrow, tail((t[..., 1:] + t[..., :-1]) / 2), above[..., :-1] - above[..., 1:])
        share = share / torch.where(narrow, 1.0, width)
        raw = self.raw[:, 0] + self.run[:, 0] * (loc - knots[:, :1] - above[..., :1])[..., 0]
        return raw + (self.run[:, 1:-1] * width * share).sum(-1) + self.run[:, -1] * above[..., -1]

    def log_units(self, x: Tensor) -> Tensor:
        """log |d x / d raw| of each element of x (..., D); in the interval of an atom, the log of 1 / `step`.

        So an atom adds the log of its probability: per unit of the data if the values are evenly spaced, as a density.
        """
        run = _take(self.run, _above(x, self.x))
        wide = torch.where(run > 0, run, torch.where(self.step > 0, self.step, 1))
        return torch.where(self.mapped, -torch.log(wide), 0)


def _above(values: Tensor, knots: Tensor) -> Tensor:
    """The number of knots (D, M) at or below each of the values (..., D)."""
    if torch.compiler.is_compiling():  # a comparison fuses, and exporters lack the search
        return (values[..., None] >= knots).sum(-1)
    found = torch.searchsorted(knots, values.reshape(-1, len(knots)).T.contiguous(), right=True)
    return found.T.reshape(values.shape)


def _take(table: Tensor, index: Tensor) -> Tensor:
    """The entries of a table (D, M) at an index (..., D) of each element; -1 and less stand for the first."""
    rows = torch.arange(len(table), device=table.device) * table.shape[1]
    return table.flatten().index_select(0, (index.clamp(0, table.shape[1] - 1) + rows).flatten()).reshape(index.shape)


def centre_of(low: Tensor, high: Tensor) -> Tensor:
    """The mean of a standard normal between two numbers, inside them."""
    mass = torch.special.ndtr(high) - torch.special.ndtr(low)
    density = torch.exp(-low.square() / 2) - torch.exp(-high.square() / 2)
    mean = density / math.sqrt(2 * math.pi) / mass.clamp_min(1e-30)
    inside = (mean > low) & (mean < high) & (mass > 1e-3)
    return torch.where(inside, mean, (low + high) / 2)
