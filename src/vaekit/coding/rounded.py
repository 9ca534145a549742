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
from .rounding import TOLERANCE, Bools, Grid, Shifts, exponents_of, next_shift
from .tables import Numbers, Tabled

BUDGET = 0.02
"""The expected cost of rounding the outputs of one network, in nats per datum."""
FEW = 32
"""Parameters per element above which they share one grid, as the logits of levels do."""

Tables = Callable[[Distribution], Tabled]


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
    """

    what: str
    net: Callable[..., Tensor]
    head: Callable[[Tensor], Distribution]
    group: Integers
    tolerance: float = TOLERANCE
    exponents: list[int] = field(default_factory=list)
    rate: int = 0

    def set_up(self) -> None:
        """Make the grid and the table of shifts from `exponents` (one per group) and `rate`."""
        self.grid = Grid(np.array(self.exponents, np.int64)[self.group], self.tolerance)
        self.shifts = Shifts(self.rate)

    def raw(self, *given: Tensor) -> Tensor:
        """The raw numbers of the network, float64, not yet rounded.

        Raises:
            DataError: they are not finite.
        """
        raw = self.net(*given).double()
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
        clear = self.grid.clear(raw, np.zeros(len(raw), np.int64))
        self.rate = int(65536 * (0.5 + (~clear).sum()) / (1 + len(clear)))
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
        if len(exponents) != int(self.group.max()) + 1 or not all(isinstance(e, int) for e in [*exponents, rate]):
            raise ValueError(f"the grids of the {self.what} are those of another network")
        self.exponents, self.rate = [min(max(e, -1000), 1000) for e in exponents], rate
        self.set_up()

    # --- coding ---------------------------------------------------------------------------------------------------

    def settled(self, raw: Tensor, shift: Integers) -> Integers:
        """The next shifts at which all numbers are clear of the boundaries."""
        while not (clear := self.grid.clear(raw, shift)).all():
            shift = next_shift(shift, clear, self.what)
        return shift

    def draw(
        self, stack: Stack, raw: Tensor, tables: Tables, accept: Callable[[Integers], Bools] | None = None
    ) -> Integers:
        """Pop values from the density of `raw`, then push the shifts: bits of the stack choose the values.

        Arguments:
            accept: which values of each datum other tables can code too.
        """
        shift = np.zeros(len(raw), np.int64)
        while True:
            shift = self.settled(raw, shift)
            coded, trial = tables(self.density(raw, shift)), stack.copy()
            values = coded.pop(trial)
            clear = coded.clear(values)
            clear = clear if accept is None else clear & accept(values)
            if clear.all():
                stack.become(trial)
                self.shifts.push(stack, shift)
                return values
            shift = next_shift(shift, clear, self.what)

    def undraw(self, stack: Stack, raw: Tensor, values: Integers, tables: Tables) -> None:
        """The inverse of `draw`, which returns its bits."""
        shift = self.shifts.pop(stack, len(raw))
        tables(self.density(raw, shift)).push(stack, values)

    def put(self, stack: Stack, raw: Tensor, values: Integers, tables: Tables) -> None:
        """Push values with the density of `raw`, then the shifts."""
        shift = np.zeros(len(raw), np.int64)
        while True:
            shift = self.settled(raw, shift)
            coded = tables(self.density(raw, shift))
            if (clear := coded.clear(values)).all():
                break
            shift = next_shift(shift, clear, self.what)
        coded.push(stack, values)
        self.shifts.push(stack, shift)

    def take(self, stack: Stack, raw: Tensor, tables: Tables) -> Integers:
        """Pop values, the inverse of `put`."""
        shift = self.shifts.pop(stack, len(raw))
        return tables(self.density(raw, shift)).pop(stack)
