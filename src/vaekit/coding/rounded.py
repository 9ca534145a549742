"""Networks whose outputs are rounded, so that encoder and decoder build the same tables from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit.errors import DataError
from vaekit.heads import Head
from vaekit.heads.censored import CensoredHead
from vaekit.heads.mixed import Masked, MixedHead

from .ans import Integers, Stack
from .rounding import COARSEST, FINEST, TOLERANCE, Bools, Grid, Shifts, exponents_of, next_shift
from .tables import Numbers, Tabled

BUDGET = 0.02
"""The expected cost of rounding the outputs of one network, in nats per datum."""
FEW = 32
"""Parameters per element above which they share one grid, as the logits of levels do."""

Tables = Callable[[Distribution, Integers], Tabled]
"""tables(density, shift) -> the tables of a density of rounded numbers, and the shifts of its data."""


def innermost(head: Head) -> Head:
    """The head that others adapt to missing, fixed and repeated values."""
    while isinstance(head, Masked | CensoredHead):
        head = head.head
    return head


def groups_of(head: Head) -> Integers:
    """The group (features,) of each raw number of a head: parameters of one kind have one grid."""
    head = innermost(head)
    if isinstance(head, MixedHead):
        parts: list[Integers] = []
        for _, part in head.shared:
            parts.append(groups_of(part) + (parts[-1].max() + 1 if parts else 0))
        return np.concatenate(parts)
    size = math.prod(head.event)
    if head.params > FEW or head.outputs != head.params * size:
        return np.zeros(head.features, np.int64)
    group = np.repeat(np.arange(head.params), size)
    return np.concatenate([group, np.full(head.features - len(group), head.params)])  # the total of counts, if any


@dataclass
class Rounded:
    """A network, and the density that its rounded output gives.

    Attributes:
        what: its name in errors.
        net: the raw numbers (B, features) of a batch.
        head: the density of rounded numbers, batch shape (B,), float64.
        group: as `groups_of`.
        change: applied to all outputs of the network before they are rounded; for checks, with disturbances.
        moves, coded: the number of shifts that were not clear, and of data, since `set_up`.
    """

    what: str
    net: Callable[..., Tensor]
    head: Callable[[Tensor], Distribution]
    group: Integers
    tolerance: float = TOLERANCE
    exponents: list[int] = field(default_factory=list)
    rate: int = 0
    change: Callable[[Tensor], Tensor] = field(default=lambda raw: raw)

    def set_up(self) -> None:
        """Make the grid and the table of shifts from `exponents` (one per group) and `rate`."""
        self.grid = Grid(np.array(self.exponents, np.int64)[self.group], self.tolerance)
        self.shifts = Shifts(self.rate)
        self.together = max(1, int(math.log(0.5) / math.log1p(-self.shifts.rate / 65536)))
        self.moves = self.coded = 0

    def raw(self, *given: Tensor) -> Tensor:
        """The raw numbers of the network, float64, not yet rounded.

        Raises:
            DataError: they are not finite.
        """
        raw = self.change(self.net(*given).double())
        if not bool(torch.isfinite(raw).all()):
            raise DataError(f"the {self.what} of this run is not finite for some of these data: they cannot be coded")
        return raw

    def density(self, raw: Tensor, shift: Integers) -> Distribution:
        """The density of the rounded numbers."""
        return self.head(self.grid(raw, shift))

    def tune(self, raw: Tensor, value: Tensor) -> None:
        """Choose the grid and the table of shifts by the values (n, ...) of some data."""
        with torch.enable_grad():
            free = raw.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.head(free).log_prob(value).sum(), free)
        information: Numbers = slope.square().mean(0).numpy()
        features = exponents_of(information, self.group, BUDGET)
        self.exponents = [int(features[self.group == g][0]) for g in range(int(self.group.max()) + 1)]
        self.set_up()
        self.settled(raw, np.zeros(len(raw), np.int64), count=True)
        self.tune_shifts()

    def tune_shifts(self) -> None:
        """Choose the table of shifts by those of the data that were coded since `set_up`."""
        self.rate = int(65536 * (0.5 + self.moves) / (1 + self.moves + self.coded))
        self.set_up()

    def to_json(self) -> list[Any]:
        """What `from_json` takes."""
        return [self.exponents, self.rate]

    def from_json(self, stored: Any) -> None:
        """Set up grid and shifts as the encoder had them.

        Raises:
            ValueError: the numbers do not fit this network.
        """
        exponents, rate = stored
        whole = len(exponents) == int(self.group.max()) + 1 and all(isinstance(e, int) for e in [*exponents, rate])
        if not whole or min(exponents) < FINEST or max(exponents) > COARSEST or not 0 <= rate <= 65536:
            raise ValueError(f"the grids of the {self.what} are those of another network")
        self.exponents, self.rate = exponents, rate
        self.set_up()

    # --- coding ---------------------------------------------------------------------------------------------------

    def settled(self, raw: Tensor, shift: Integers, count: bool = False) -> Integers:
        """The next shifts at which all numbers are clear of the boundaries; if `count`, for `tune_shifts`."""
        while not (clear := self.grid.clear(raw, shift)).all():
            shift = next_shift(shift, clear, self.what)
        if count:
            self._count(shift)
        return shift

    def _count(self, shift: Integers) -> None:
        self.moves, self.coded = self.moves + int(shift.sum()), self.coded + len(shift)

    def _parts(self, n: int) -> list[slice]:
        """The data that are drawn at once: so few that no shift of them moves in half of the cases."""
        return [slice(a, min(a + self.together, n)) for a in range(0, n, self.together)]

    def draw(
        self, stack: Stack, raw: Tensor, tables: Tables, accept: Callable[[Integers], Bools] | None = None
    ) -> Integers:
        """Pop values from the density of `raw`, then push the shifts: bits of the stack choose the values.

        Arguments:
            accept: which values (n, D) of some data other tables can code too.
        """
        return np.concatenate([self._draw(stack, raw[part], tables, accept) for part in self._parts(len(raw))])

    def _draw(self, stack: Stack, raw: Tensor, tables: Tables, accept: Callable[[Integers], Bools] | None) -> Integers:
        shift, before = np.zeros(len(raw), np.int64), stack.mark()
        while True:
            shift = self.settled(raw, shift)
            coded = tables(self.density(raw, shift), shift)
            values = coded.pop(stack)
            clear = coded.clear(values)
            clear = clear if accept is None else clear & accept(values)
            if clear.all():
                break
            stack.back(before)
            shift = next_shift(shift, clear, self.what)
        self._count(shift)
        self.shifts.push(stack, shift)
        return values

    def undraw(self, stack: Stack, raw: Tensor, values: Integers, tables: Tables) -> None:
        """The inverse of `draw`, which returns its bits."""
        for part in reversed(self._parts(len(raw))):
            shift = self.shifts.pop(stack, part.stop - part.start)
            tables(self.density(raw[part], shift), shift).push(stack, values[part])

    def put(self, stack: Stack, raw: Tensor, values: Integers, tables: Tables) -> None:
        """Push values with the density of `raw`, then the shifts."""
        shift = np.zeros(len(raw), np.int64)
        while True:
            shift = self.settled(raw, shift)
            coded = tables(self.density(raw, shift), shift)
            if (clear := coded.clear(values)).all():
                break
            shift = next_shift(shift, clear, self.what)
        coded.push(stack, values)
        self._count(shift)
        self.shifts.push(stack, shift)

    def take(self, stack: Stack, raw: Tensor, tables: Tables) -> Integers:
        """Pop values, the inverse of `put`."""
        shift = self.shifts.pop(stack, len(raw))
        return tables(self.density(raw, shift), shift).pop(stack)
