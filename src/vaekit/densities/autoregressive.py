"""Densities of the rows of a table as a product of conditional densities, column by column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaekit.noise import Noise

from .binned import BinnedMixture
from .drawing import Keyed, from_noise
from .mixed import Categories, Marginal, Mixed, OrMissing


class Conditionals(Protocol):
    """Conditional densities of the columns of a table, each given the columns before it and a context.

    `order` has the columns, first to last; `held` (D,) the values of columns that are constant, nan for the others, or
    None if all vary; `support` is that of the whole row.
    """

    order: tuple[int, ...]
    held: Tensor | None
    support: constraints.Constraint

    def given(self, context: Tensor, x: Tensor) -> Mixed:
        """The density of each column given those before it in x (..., D)."""

    def column(self, context: Tensor, seen: Tensor, j: int) -> Distribution:
        """The density of column j, batch shape (..., 1), given the `seen` sum of the columns before it."""

    def raw_of(self, context: Tensor, seen: Tensor, j: int) -> Tensor:
        """The raw numbers (..., n) that `density_of` makes this density from."""

    def density_of(self, raw: Tensor, j: int) -> Distribution:
        """The density of column j, batch shape (..., 1), from its raw numbers."""

    def seen(self, value: Tensor, j: int) -> Tensor:
        """What the value (..., 1) of column j adds to the sum that the columns after it see."""


class Autoregressive(Keyed):
    r"""p(x) = prod_j p(x_j | x_<j, context): each column given the columns before it.

    `log_prob` takes one pass, and a draw one pass per column. Missing values (nan) are left out: the columns after them
    are given that they are missing.

    Arguments:
        conditionals: the densities of the columns.
        context: (..., C), on which they depend.
    """

    arg_constraints: ClassVar = {}

    def __init__(self, conditionals: Conditionals, context: Tensor):
        self.conditionals, self.context = conditionals, context
        event = torch.Size((len(conditionals.order),))
        super().__init__(context.shape[:-1], event, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return OrMissing(self.conditionals.support, 1)

    def expand(self, batch_shape: Sequence[int], _instance: Distribution | None = None) -> Autoregressive:
        return Autoregressive(self.conditionals, self.context.expand(*batch_shape, self.context.shape[-1]))

    def given(self, value: Tensor) -> Marginal:
        """The density of each column given the columns before it in `value` (..., D), where nan is missing."""
        return Marginal(self.conditionals.given(self.context, value), held=self.conditionals.held)

    def each(self, value: Tensor) -> Tensor:
        """log p(x_j | x_<j) of each column, (..., D): 0 for a missing one, and 0 or -`DIFFERS` for a constant one."""
        return self.given(value).each(value)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.each(value).sum(-1)

    @property
    def mean(self) -> Tensor:
        """The mean of each column given the means of those before it; for categories, the most probable code.

        This is the greedy choice, not the expectation of the row, for which there is no closed form.
        """
        return self._walk(lambda density: density.mean)[0]

    @property
    def variance(self) -> Tensor:
        """The variance of each column given the means of those before it; 0 for categories."""
        return self._walk(lambda density: density.mean)[1]

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        with torch.no_grad():
            return self._walk(lambda density: from_noise(density, noise, (1,), k))[0]

    def _walk(self, choose: Callable[[Distribution], Tensor]) -> tuple[Tensor, Tensor]:
        """A value of each column, chosen from its density given the values before it, and its variance: (..., D)."""
        held = self.conditionals.held
        seen = self.context.new_zeros(())
        values, variances = {}, {}
        for j in self.conditionals.order:
            density = self.conditionals.column(self.context, seen, j)
            value = choose(density)
            variance = torch.zeros_like(value) if isinstance(density, Categories) else density.variance
            if held is not None:
                known = held[j].to(value)
                value = torch.where(torch.isnan(known), value, known)
                variance = torch.where(torch.isnan(known), variance, 0.0)
            values[j], variances[j] = value, variance.expand_as(value)
            seen = seen + self.conditionals.seen(_possible(density, value), j)
        columns = range(len(values))
        return torch.cat([values[j] for j in columns], -1), torch.cat([variances[j] for j in columns], -1)


def _possible(density: Distribution, value: Tensor) -> Tensor:
    """The value of x nearest to `value`: a whole number, or that which stands for the interval."""
    if isinstance(density, BinnedMixture):
        return density.bins.represented(value)
    return value if isinstance(density, Categories) else value.round()
