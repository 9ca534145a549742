"""Integer tables of cumulative probabilities, computed from exact parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .ans import Integers, Stack
from .rounding import Bools

Numbers = NDArray[np.float64]
Below = Callable[[Integers, Integers], Numbers]
"""below(k, at) -> P(symbol < k) of the elements `at`, for one k each."""

PRECISION = 20
"""Bits of the tables of x. The smallest probability is 2^-20."""
GUARD = 2.0**-40
"""The largest difference of a probability, computed from exact numbers, that rounding to integers absorbs."""
WHOLE = 2**23
"""The largest number of entries of a table that is computed as a whole to find symbols; else they are searched for."""
FEW, MANY = 16, 1024
"""The largest numbers of symbols of a table that is computed as a whole: in general, and if it is only looked up."""


class Step:
    """Symbols of M elements, independent given the steps before: C(k) = round(P(symbol < k) (2^r - K)) + k.

    The K symbols of an element have the integer frequencies C(k + 1) - C(k), each at least 1, which sum to 2^r.

    Arguments:
        below: their cumulative probabilities.
        outcomes: K; the symbols are 0 .. K - 1.
        size: M.
        precision: r.
        possible: whether every symbol has a frequency of 1 or more; if not, C(k) = round(P(symbol < k) 2^r).
        certain: (M,) the elements whose symbol is known to be 0.
        guard: as `GUARD`, one number or (M,).
        unclear: (M,) elements whose parameters another machine may not repeat.
        looked_up: whether `below` only looks up numbers that are there already.
        ways: the number of parts that a step of a search compares: more for less overhead, fewer if `below` is slow.
    """

    def __init__(
        self,
        below: Below,
        outcomes: int,
        size: int,
        precision: int = PRECISION,
        possible: bool = True,
        certain: Bools | None = None,
        guard: float | Numbers = GUARD,
        unclear: Bools | None = None,
        looked_up: bool = False,
        ways: int = 16,
    ):
        self.below, self.outcomes, self.size, self.precision = below, outcomes, size, precision
        self.least = int(possible)
        self.certain, self.guard = certain, np.broadcast_to(guard, (size,))
        self.unclear, self.ways, self.most_whole = unclear, ways, MANY if looked_up else FEW
        self._table: Integers | None = None

    def _exact(self, k: Integers, at: Integers) -> Numbers:
        """The cumulative frequencies before rounding, without the k that makes all symbols possible."""
        return self.below(k, at) * float((1 << self.precision) - self.least * self.outcomes)

    def _cumulative(self, k: Integers, at: Integers) -> Integers:
        inside = np.rint(self._exact(np.clip(k, 1, self.outcomes - 1), at)).astype(np.int64) + self.least * k
        ends = np.where(k <= 0, 0, 1 << self.precision)
        return np.where((k > 0) & (k < self.outcomes), inside, ends)

    def intervals(self, symbols: Integers) -> tuple[Integers, Integers]:
        """The starts and frequencies of the symbols of all elements, (M,) each."""
        at = np.arange(self.size)
        start = self._cumulative(symbols, at)
        frequency = self._cumulative(symbols + 1, at) - start
        if self.certain is not None:
            start, frequency = np.where(self.certain, 0, start), np.where(self.certain, 1 << self.precision, frequency)
        return start, frequency

    def clear(self, symbols: Integers) -> Bools:
        """Whether another machine finds the same intervals for these symbols, (M,)."""
        at, clear = np.arange(self.size), np.ones(self.size, np.bool_)
        for k in (symbols, symbols + 1):
            inside = (k > 0) & (k < self.outcomes)
            exact = self._exact(np.clip(k, 1, self.outcomes - 1), at)
            clear &= ~inside | (np.abs(exact - np.floor(exact) - 0.5) > self.guard * 2.0**self.precision)
        if self.unclear is not None:
            clear &= ~self.unclear
        return clear if self.certain is None else clear | self.certain

    def push(self, stack: Stack, symbols: Integers) -> None:
        """Push one symbol per element."""
        stack.push(*self.intervals(symbols), self.precision)

    def pop(self, stack: Stack) -> Integers:
        """Pop one symbol per element, (M,)."""
        whole = self.outcomes <= self.most_whole and self.size * (self.outcomes + 1) <= WHOLE
        if whole and self._table is None:
            k, at = (v.ravel() for v in np.meshgrid(np.arange(self.outcomes + 1), np.arange(self.size)))
            self._table = self._cumulative(k, at).reshape(self.size, -1)
        return stack.pop(self.size, self.precision, self._find)

    def _find(self, slot: Integers, at: slice) -> tuple[Integers, Integers, Integers]:
        if self._table is None:
            symbol, start, end = self._search(slot, np.arange(at.start, at.stop))
        else:
            symbol, start, end = _place(self._table[at], slot)
        if self.certain is None:
            return symbol, start, end - start
        known = self.certain[at]
        frequency = np.where(known, 1 << self.precision, end - start)
        return np.where(known, 0, symbol), np.where(known, 0, start), frequency

    def _search(self, slot: Integers, at: Integers) -> tuple[Integers, Integers, Integers]:
        """The symbols of the elements `at` whose intervals hold these slots, their starts and ends.

        Each round cuts the range of symbols into `ways` parts, and keeps the one that holds the slot.
        """
        first, width = np.zeros_like(slot), self.outcomes
        while width > 1:
            part = -(-width // self.ways)
            k = np.minimum(first[:, None] + part * np.arange(-(-width // part) + 1), self.outcomes)
            sums = self._cumulative(k.ravel(), np.repeat(at, k.shape[1])).reshape(k.shape)
            chosen, start, end = _place(sums, slot)
            first, width = first + chosen * part, part
        return first, start, end


def _place(sums: Integers, slot: Integers) -> tuple[Integers, Integers, Integers]:
    """The intervals between the cumulative frequencies (n, K + 1) that hold the slots (n,): number, start and end."""
    each, found = np.arange(len(sums)), (sums[:, 1:-1] <= slot[:, None]).sum(1)
    return found, sums[each, found], sums[each, found + 1]


class Tabled(ABC):
    """A density of B rows of n whole numbers, as steps of symbols that are coded one after the other. Abstract.

    Attributes:
        count: number of steps.
        rows: B.
    """

    count: int = 1
    rows: int

    @abstractmethod
    def step(self, i: int, known: Sequence[Integers]) -> Step:
        """The tables of step i, given the symbols of the steps before it."""

    @abstractmethod
    def split(self, x: Integers) -> list[Integers]:
        """The values x (B, n) as symbols of each step, row by row."""

    @abstractmethod
    def join(self, symbols: Sequence[Integers]) -> Integers:
        """The inverse of `split`."""

    def clear(self, x: Integers) -> Bools:
        """Whether another machine finds the same tables for these values of each row, (B,)."""
        symbols, clear = self.split(x), np.ones(self.rows, np.bool_)
        for i, of_step in enumerate(symbols):
            clear &= self.step(i, symbols[:i]).clear(of_step).reshape(self.rows, -1).all(1)
        return clear

    def push(self, stack: Stack, x: Integers) -> None:
        """Push the values x (B, n)."""
        symbols = self.split(x)
        for i in reversed(range(self.count)):
            self.step(i, symbols[:i]).push(stack, symbols[i])

    def pop(self, stack: Stack) -> Integers:
        """Pop values (B, n)."""
        symbols: list[Integers] = []
        for i in range(self.count):
            symbols.append(self.step(i, symbols).pop(stack))
        return self.join(symbols)


class Columns(Tabled):
    """Groups of columns, coded one after the other.

    Arguments:
        groups: the columns of each group, and its density.
    """

    def __init__(self, groups: Sequence[tuple[Integers, Tabled]]):
        self.groups = tuple(groups)
        self.rows = self.groups[0][1].rows
        self.count = sum(one.count for _, one in self.groups)

    def _of(self, i: int) -> tuple[Tabled, int]:
        """The group of step i, and the number of the steps before it."""
        first = 0
        for _, one in self.groups:
            if i < first + one.count:
                return one, first
            first += one.count
        raise IndexError(i)

    def step(self, i: int, known: Sequence[Integers]) -> Step:
        one, first = self._of(i)
        return one.step(i - first, known[first:i])

    def split(self, x: Integers) -> list[Integers]:
        return [symbols for which, one in self.groups for symbols in one.split(x[:, which])]

    def join(self, symbols: Sequence[Integers]) -> Integers:
        x = np.zeros((self.rows, sum(len(which) for which, _ in self.groups)), np.int64)
        first = 0
        for which, one in self.groups:
            x[:, which] = one.join(symbols[first : first + one.count])
            first += one.count
        return x


class Flat(Tabled):
    """One step with a symbol per element. Abstract: a subclass gives `step`.

    Arguments:
        rows: B.
        certain: (B, n) the elements whose value is known; None for none.
    """

    def __init__(self, rows: int, certain: Bools | None = None):
        self.rows = rows
        self.certain = None if certain is None or not certain.any() else certain.ravel()

    def split(self, x: Integers) -> list[Integers]:
        flat = x.ravel()
        return [flat if self.certain is None else np.where(self.certain, 0, flat)]

    def join(self, symbols: Sequence[Integers]) -> Integers:
        return symbols[0].reshape(self.rows, -1)
