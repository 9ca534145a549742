"""Asymmetric numeral systems: a stack of bits that symbols of known probabilities are pushed on and popped from.

The range variant (rANS; Duda 2013, arXiv:1311.2540) in integers only, over interleaved lanes that share one stack of
words (Giesen 2014, arXiv:1402.3392), so that NumPy codes a symbol of every lane at once. Push and pop are exact
inverses in both orders, which bits-back coding needs: popping a symbol that was never pushed is a draw.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import DataError

Integers = NDArray[np.int64]
Words = NDArray[np.uint32]
Find = Callable[[Integers, slice], tuple[Integers, Integers, Integers]]
"""find(slots, at) -> (symbols, starts, frequencies) of the elements `at`: the intervals that hold these slots."""

LOW = 31
"""The state of a lane lies in 2^31 .. 2^63 - 1, and words have 32 bits."""
WORD = 32


def borrowed(first: int, count: int) -> Words:
    """The words number `first` to `first + count - 1` below the bottom of the stack, pseudo-random (SplitMix64)."""
    with np.errstate(over="ignore"):
        x = (np.arange(first, first + count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(WORD)).astype(np.uint32)


def fresh(lanes: int) -> NDArray[np.uint64]:
    """The states of an empty stack: 2^31 + 31 pseudo-random bits, so that the first draws are random."""
    return np.uint64(1 << LOW) | (borrowed(1 << 60, lanes).astype(np.uint64) >> np.uint64(1))


class Desynchronised(DataError):
    """The bits are not those of these tables."""

    def __init__(self, more: str = "") -> None:
        super().__init__(
            "the archive cannot be decoded: the outputs of its networks differ here by more than the tolerance that it "
            f"was made with; compress with a larger `tolerance`{more}"
        )


class Stack:
    """A stack of symbols. Pops beyond its bottom borrow bits, which are returned when the pops are undone.

    Arguments:
        lanes: number of interleaved states; symbol i of a push or pop is coded by lane i mod `lanes`.

    Attributes:
        states: (lanes,) uint64.
        missing: number of words that were borrowed.
        whole: whether the stack has all words that pops can take, as that of an archive, so that none are borrowed.
    """

    def __init__(self, lanes: int):
        self.states = fresh(lanes)
        self._words = np.zeros(1024, np.uint32)
        self._top = 0
        self.missing = 0
        self.whole = False

    @classmethod
    def of(cls, states: NDArray[np.uint64], words: Words, missing: int, whole: bool = False) -> Stack:
        """The stack with these contents."""
        stack = cls(len(states))
        stack.states, stack._words, stack._top, stack.missing = states.copy(), words.copy(), len(words), missing
        stack.whole = whole
        return stack

    @property
    def words(self) -> Words:
        """The words on the stack, bottom first."""
        return self._words[: self._top].copy()

    @property
    def bits(self) -> int:
        """The size of the stack: its words, and all bits of the states."""
        return WORD * self._top + 64 * len(self.states)

    @property
    def held(self) -> int:
        """The bits of the states that symbols have filled, at most 32 per lane."""
        return int((np.log2(self.states.astype(np.float64)) - np.log2(fresh(len(self.states)))).sum())

    def mark(self) -> tuple[NDArray[np.uint64], Words, int, int]:
        """The present contents, for `back`."""
        return self.states.copy(), self._words, self._top, self.missing

    def back(self, mark: tuple[NDArray[np.uint64], Words, int, int]) -> None:
        """Undo the pops since a `mark`, which leave the words in place; symbols must not have been pushed."""
        states, self._words, self._top, self.missing = mark
        self.states = states.copy()  # `mark` may be gone back to again

    def settled(self) -> bool:
        """Whether only the borrowed words are left, after everything was undone."""
        whole = bool((self.states == fresh(len(self.states))).all()) and self._top == self.missing
        return whole and bool((self._words[: self._top] == borrowed(0, self.missing)[::-1]).all())

    def _give(self, words: Words) -> None:
        """Put words on the stack."""
        end = self._top + len(words)
        if end > len(self._words):
            self._words = np.concatenate([self._words[: self._top], np.zeros(max(end, 1024), np.uint32)])
        self._words[self._top : end] = words
        self._top = end

    def _take(self, count: int) -> Words:
        """The uppermost words, in the order in which they were given."""
        short = count - self._top
        if short > 0 and self.whole:
            raise Desynchronised
        if short > 0:
            lent = borrowed(self.missing, short)[::-1]
            self._words, self._top = np.concatenate([lent, self._words[: self._top]]), count
            self.missing += short
        self._top -= count
        return self._words[self._top : self._top + count].copy()

    def push(self, starts: Integers, frequencies: Integers, precision: int) -> None:
        """Push symbols, each given by its interval [start, start + frequency) of 0 .. 2^precision - 1.

        A symbol of frequency f adds precision - log2(f) bits.

        Arguments:
            starts, frequencies: (n,); frequencies are 1 or more.
            precision: at most 31. Rounding of the states costs up to 2^(precision - 31) bits per symbol, and less than
                a thirtieth of it on average.

        Raises:
            Desynchronised: a symbol has no interval, so that it cannot have been drawn from these tables.
        """
        if (frequencies < 1).any() or (starts < 0).any() or (starts + frequencies > 1 << precision).any():
            raise Desynchronised
        r, lanes = np.uint64(precision), len(self.states)
        start, frequency = starts.astype(np.uint64), frequencies.astype(np.uint64)
        for a in range((max(len(start), 1) - 1) // lanes * lanes, -1, -lanes):
            f, first = frequency[a : a + lanes], start[a : a + lanes]
            x = self.states[: len(f)]
            full = (x >> np.uint64(LOW + WORD - precision)) >= f
            if full.any():
                self._give(x[full].astype(np.uint32))  # the lower 32 bits
                x = np.where(full, x >> np.uint64(WORD), x)
            above = x // f
            self.states[: len(f)] = (above << r) + (x - above * f) + first

    def pop(self, count: int, precision: int, find: Find) -> Integers:
        """Pop symbols, the inverse of `push`: (count,).

        Arguments:
            count: number of symbols.
            find: the table, which returns the symbols whose intervals hold the slots of the elements at a slice.

        Raises:
            Desynchronised: the bits are not those of these tables.
        """
        r, mask, lanes = np.uint64(precision), np.uint64((1 << precision) - 1), len(self.states)
        symbols = np.empty(count, np.int64)
        for a in range(0, count, lanes):
            at = slice(a, min(a + lanes, count))
            x = self.states[: at.stop - a]
            slot = x & mask
            symbols[at], start, frequency = find(slot.astype(np.int64), at)
            if (frequency < 1).any():
                raise Desynchronised
            x = frequency.astype(np.uint64) * (x >> r) + slot - start.astype(np.uint64)
            low = np.flatnonzero(x < np.uint64(1 << LOW))
            if len(low):
                x[low] = (x[low] << np.uint64(WORD)) | self._take(len(low)).astype(np.uint64)
            self.states[: len(x)] = x
        return symbols


def push_uniform(stack: Stack, symbols: Integers, precision: int) -> None:
    """Push symbols that are uniform on 0 .. 2^precision - 1."""
    stack.push(symbols, np.ones_like(symbols), precision)


def pop_uniform(stack: Stack, count: int, precision: int) -> Integers:
    """Pop symbols that are uniform on 0 .. 2^precision - 1, the inverse of `push_uniform`."""
    return stack.pop(count, precision, lambda slot, at: (slot, slot, np.ones_like(slot)))
