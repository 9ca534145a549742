"""Densities of mixed tables, with columns of several kinds, and marginals of observed values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from vaekit.noise import Noise

from .drawing import Keyed, from_noise
from .levels import Categorical, chances


class Categories(Categorical):
    """Categorical codes 0..C-1, whose order has no meaning: `mean` is the most probable code.

    Columns with fewer than C categories are padded with logits of -inf.
    """

    @property
    def mean(self) -> Tensor:
        return self.logits.argmax(-1).to(self.logits.dtype)


class Mixed(Keyed):
    """Independent columns of a table, grouped by kind.

    Arguments:
        parts: per group, the indices of its columns (n,) and their elementwise density with batch shape (..., n).
        order: (D,) the position of each column in the concatenation of all groups.
        support: of the whole row (D,).
    """

    arg_constraints: ClassVar = {}

    def __init__(self, parts: Sequence[tuple[Tensor, Distribution]], order: Tensor, support: constraints.Constraint):
        self.parts, self.order, self._support = tuple(parts), order, support
        lead = self.parts[0][1].batch_shape[:-1]
        super().__init__(lead, self.order.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return self._support

    def expand(self, batch_shape: Sequence[int], _instance: Distribution | None = None) -> Mixed:
        parts = [(which, d.expand((*batch_shape, len(which)))) for which, d in self.parts]
        return Mixed(parts, self.order, self._support)

    def _whole(self, values: Sequence[Tensor]) -> Tensor:
        """The groups' values concatenated, (..., D), in the order of the columns."""
        return torch.cat(list(values), -1).index_select(-1, self.order)

    def each(self, value: Tensor) -> Tensor:
        """The log-density of each column, (..., D)."""
        return self._whole([d.log_prob(value.index_select(-1, which)) for which, d in self.parts])

    def log_prob(self, value: Tensor) -> Tensor:
        return self.each(value).sum(-1)

    @property
    def mean(self) -> Tensor:
        """The expected value of each column; for a categorical column, its most probable code."""
        return self._whole([d.mean for _, d in self.parts])

    @property
    def variance(self) -> Tensor:
        """The variance of each column; 0 for a categorical one."""
        return self._whole(
            [torch.zeros_like(d.mean) if isinstance(d, Categories) else d.variance for _, d in self.parts]
        )

    def average(self, weights: Tensor) -> Tensor:
        """`mean` (B, D) of the mixture of the K densities on the leading axis, with these weights (K, B)."""
        means = []
        for _, d in self.parts:
            if isinstance(d, Categories):
                means.append((weights[..., None, None] * chances(d.logits)).sum(0).argmax(-1).to(weights))
            else:
                means.append((weights[..., None] * d.mean).sum(0))
        return self._whole(means)

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        return self._whole([from_noise(part, noise, (len(which),), k) for which, part in self.parts])


DIFFERS = 1000.0
"""The cost in nats of a wrong value of a fixed element."""


class Marginal(Keyed):
    """The marginal density of the observed elements of x, where nan marks a missing one.

    It is exact, since the density factorises. Its mean and its draws cover all elements.

    An element may be fixed at one value, which it has with probability 1: its log-density is 0 at that value and
    -`DIFFERS` elsewhere, so that means over data stay finite.

    Arguments:
        whole: the density of all elements: `Mixed`, or independent elements.
        fill: a number inside the support of every element, which replaces nan before the density is computed.
        held: (*event), the values of the fixed elements, nan for the others.
    """

    arg_constraints: ClassVar = {}

    def __init__(self, whole: Mixed | Independent, fill: float = 0.0, held: Tensor | None = None):
        self.whole, self.fill, self.held = whole, fill, held
        super().__init__(whole.batch_shape, whole.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        assert self.whole.support is not None
        return OrMissing(self.whole.support, len(self.event_shape), self.fill)

    def expand(self, batch_shape: Sequence[int], _instance: Distribution | None = None) -> Marginal:
        return Marginal(self.whole.expand(batch_shape), self.fill, self.held)

    def each(self, value: Tensor) -> Tensor:
        """The log-density of each element, (..., *event), 0 for missing ones."""
        observed = ~torch.isnan(value)
        value = torch.where(observed, value, self.fill)  # since nan times 0 in the gradient would be nan
        log_p = self.whole.each(value) if isinstance(self.whole, Mixed) else self.whole.base_dist.log_prob(value)
        if self.held is not None:
            fixed = torch.where(value == self.held, 0.0, -DIFFERS).to(log_p.dtype)
            log_p = torch.where(torch.isnan(self.held), log_p, fixed)
        return torch.where(observed, log_p, 0.0)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.each(value).flatten(-len(self.event_shape)).sum(-1)

    def put(self, x: Tensor) -> Tensor:
        """x (..., *event) with the fixed elements set to their values."""
        return x if self.held is None else torch.where(torch.isnan(self.held), x, self.held.to(x.dtype))

    @property
    def mean(self) -> Tensor:
        return self.put(self.whole.mean)

    @property
    def variance(self) -> Tensor:
        variance = self.whole.variance
        return variance if self.held is None else torch.where(torch.isnan(self.held), variance, 0.0)

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        whole = self.whole.base_dist if isinstance(self.whole, Independent) else self.whole
        return self.put(from_noise(whole, noise, event, k))


class OrMissing(constraints.Constraint):
    """A support, where any element may also be nan (missing).

    Arguments:
        inner: the support of complete events, with so many axes.
        fill: a number inside the support of every element.
    """

    def __init__(self, inner: constraints.Constraint, event_dim: int, fill: float = 0.0):
        self.inner, self.fill, self.event_dim, self.is_discrete = inner, fill, event_dim, inner.is_discrete

    def check(self, value: Tensor) -> Tensor:
        return self.inner.check(torch.where(torch.isnan(value), self.fill, value))
