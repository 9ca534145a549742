r"""Rounding that another machine repeats, although its networks differ in the last bits.

The decoder must build exactly the tables of the encoder, but floating-point sums depend on the machine, the threads and
the compiler. A number near a boundary of any fixed grid would round either way, however small the difference. So the
grid of each datum is shifted: the encoder takes the first of `SHIFTS` shifts at which no number lies within the
tolerance of a boundary, and writes its number into the archive. Any machine whose numbers r' satisfy

    |r' - r| <= tolerance (1 + |r|)

then rounds every number as the encoder did. What is computed from rounded numbers, in float64 and element by element,
differs by far less, and is rounded once more, to integer tables; there the encoder also requires that no interval that
it uses has an end within `GUARD` of a boundary, or takes the next shift.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaekit.errors import ChoiceError

from .ans import Integers, Stack

SHIFTS = 256
SHARE = 16
"""The precision of the table of shifts."""
TOLERANCE = 2.0**-30
"""The default tolerance: a million times the differences between machines in float64."""
FINEST, COARSEST = -40, 0
"""Bounds of the exponents of a grid's step."""

Bools = NDArray[np.bool_]


def _turns() -> NDArray[np.float64]:
    """The shifts as parts of a step, multiples of 1 / SHIFTS in an order in which successive ones are far apart."""
    bits = int(math.log2(SHIFTS))
    return np.array([int(f"{i:0{bits}b}"[::-1], 2) / SHIFTS for i in range(SHIFTS)])


TURNS = torch.from_numpy(_turns())


class Grid:
    """Rounds raw numbers (B, features) to the centres of cells of width 2^exponent.

    Arguments:
        exponents: (features,) int64.
        tolerance: the largest difference that rounding absorbs, relative to 1 + |number|.
    """

    def __init__(self, exponents: Integers, tolerance: float = TOLERANCE):
        self.tolerance = tolerance
        self.step = torch.from_numpy(np.ldexp(1.0, exponents))

    def __call__(self, raw: Tensor, shift: Integers) -> Tensor:
        """The rounded numbers, float64, the same for all raw numbers that differ by the tolerance at most."""
        offset = TURNS[torch.from_numpy(shift)][:, None] * self.step
        return (torch.floor((raw - offset) / self.step) + 0.5) * self.step + offset

    def clear(self, raw: Tensor, shift: Integers) -> Bools:
        """Whether all numbers of a datum are further than the tolerance from a boundary, (B,)."""
        at = (raw - TURNS[torch.from_numpy(shift)][:, None] * self.step) / self.step
        # half as much again, so that the rounding errors of this subtraction do not count
        near = (at - at.round()).abs() * self.step <= 1.5 * self.tolerance * (1 + raw.abs())
        return ~near.any(1).numpy()


def exponents_of(information: NDArray[np.float64], group: Integers, budget: float) -> Integers:
    """The coarsest grid, (features,), whose rounding costs at most `budget` nats per datum to second order.

    Rounding to cells of width d changes a number by d^2 / 12 in the mean square, which costs half of that times the
    information I in nats. Each group has one width, and the same part of the budget.

    Arguments:
        information: (features,) the mean square of d log p / d raw.
        group: (features,) the number of the group that each feature belongs to.
        budget: in nats.
    """
    total = np.bincount(group, np.where(np.isfinite(information), information, 0.0))
    width = np.sqrt(24 * budget / len(total) / np.maximum(total, 1e-30))
    found: Integers = np.clip(np.floor(np.log2(width)), FINEST, COARSEST).astype(np.int64)[group]
    return found


class Shifts:
    """The table by which shifts are coded: number s has a probability of about (1 - rate) rate^s.

    Arguments:
        rate: the share of data for which a shift is not clear, in units of 1 / 65536.
    """

    def __init__(self, rate: int):
        self.rate = min(max(rate, 16), 60_000)
        left, counts = 1 << SHARE, []
        for s in range(SHIFTS - 1):
            after = SHIFTS - 1 - s
            counts.append(max(1, (left - after) * ((1 << SHARE) - self.rate) >> SHARE))
            left -= counts[-1]
        self.frequency = np.array([*counts, left])
        self.start = np.cumsum(self.frequency) - self.frequency

    def push(self, stack: Stack, shift: Integers) -> None:
        """Push the shifts of data."""
        stack.push(self.start[shift], self.frequency[shift], SHARE)

    def pop(self, stack: Stack, count: int) -> Integers:
        """Pop the shifts of `count` data."""

        def find(slot: Integers, at: slice) -> tuple[Integers, Integers, Integers]:
            s = np.searchsorted(self.start, slot, "right") - 1
            return s, self.start[s], self.frequency[s]

        return stack.pop(count, SHARE, find)


def next_shift(shift: Integers, clear: Bools, what: str) -> Integers:
    """The shifts with those of data that are not clear moved on.

    Raises:
        ChoiceError: no shift is left for a datum.
    """
    moved = shift + ~clear
    if moved.max(initial=0) >= SHIFTS:
        raise ChoiceError(
            f"the tolerance is too large for the {what} of this run, whose outputs are rounded more finely: choose a "
            "smaller `tolerance`"
        )
    return moved
