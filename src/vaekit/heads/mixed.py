"""Heads for mixed tables, and for data with missing values or constant elements.

A row of a mixed table holds numbers of several kinds (`Column`): `MixedHead` gives each its own density. Missing
values are nan in x: `Masked` restricts any likelihood that factorises to the observed elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints

from vaekit import heads
from vaekit.data.core import Column
from vaekit.data.observation import Observation, TableSupport
from vaekit.densities import OptimalNormal
from vaekit.densities.mixed import Categories, Marginal, Mixed
from vaekit.densities.special import at_least_single, without
from vaekit.errors import ChoiceError
from vaekit.networks.tables import embedding_size

from . import Head
from .real import Sigma, scale_and_sigma
from .register import likelihood

ALIKE = 2
"""Largest ratio of the numbers of categories of columns that are padded to the same number."""


@likelihood("mixed", "Nazabal et al. 2020, arXiv:1807.03653", observation="mixed", tables=True)
class MixedHead(Head):
    """The columns of a table, independent given z, each with a density that suits its kind.

    Real columns (standardised by `MixedTable`) are Gaussian with one learned sigma each, or as `sigma` says,
    two-valued columns Bernoulli; categorical columns have one logit per category, or logits of low rank if they have
    many; counts are negative binomial. The raw numbers of these heads are concatenated.

    Arguments:
        columns: the table's columns, in the order of x.
        most: columns with more categories have a `ManyCategoriesHead`; None for none.
        scaled: for count columns, see `heads.counts.count_range`.
        sigma: of the real columns.
    """

    def __init__(self, columns: Sequence[Column], scaled: bool = False, most: int | None = None, sigma: Sigma = "auto"):
        super().__init__((len(columns),))
        self.columns, self.rows = tuple(columns), TableSupport(columns)
        self.support, self.discrete = self.rows, self.rows.is_discrete
        kinds: list[str] = [c.kind for c in columns]
        many = [i for i, c in enumerate(columns) if most is not None and c.kind == "categorical" and c.width > most]
        for i in many:
            kinds[i] = f"many{i}"
        few = [c.width for c, kind in zip(columns, kinds, strict=True) if kind == "categorical"]
        build: dict[str, Callable[[int], Head]] = {
            "real": lambda n: heads.Gaussian((n,), *scale_and_sigma(sigma, "mixed", (n,))),
            "binary": lambda n: heads.Bernoulli((n,)),
            "categorical": lambda n: CategoriesHead(few),
            "counts": lambda n: heads.NegativeBinomialHead((n,), **heads.count_range(scaled)),
        }
        build |= {kinds[i]: partial(_many, columns[i].width) for i in many}
        self.groups = nn.ModuleDict()
        grouped: list[int] = []
        for kind, head in build.items():
            which = [i for i, kind_of_column in enumerate(kinds) if kind_of_column == kind]
            if which:
                shared = self.groups[kind] = head(len(which))
                self.register_buffer(f"which_{kind}", torch.tensor(which), persistent=False)
                alike = shared.alike if isinstance(shared, CategoriesHead) else [range(len(which))]
                grouped += [which[i] for columns_alike in alike for i in columns_alike]
        self.register_buffer("order", torch.tensor(grouped).argsort(), persistent=False)

    @property
    def shared(self) -> list[tuple[Tensor, Head]]:
        """Pairs of the columns of one kind and the head that they share."""
        return [(self.which(kind), head) for kind, head in self.groups.items() if isinstance(head, Head)]

    @property
    def features(self) -> int:
        return sum(head.features for _, head in self.shared)

    def which(self, kind: str) -> Tensor:
        """The indices of the columns of this kind."""
        return self.get_buffer(f"which_{kind}")

    def start_numbers(self, x: Tensor) -> None:
        for kind, head in self.groups.items():
            assert isinstance(head, Head)
            if kind != "real":  # real columns are standardised: their initial sigma of 1 already fits
                head.start_numbers(x[:, self.which(kind)])

    def bias_of(self, x: Tensor) -> Tensor | None:
        biases = [head.bias_of(x[:, which]) for which, head in self.shared]
        known = [bias for bias in biases if bias is not None]
        return torch.cat(known) if len(known) == len(biases) else None

    def forward(self, raw: Tensor) -> Distribution:
        split = raw.split([head.features for _, head in self.shared], -1)
        parts: list[tuple[Tensor, Distribution]] = []
        for (which, head), part in zip(self.shared, split, strict=True):
            density = head(part)
            if isinstance(density, Mixed):
                parts += [(which.index_select(0, i), each) for i, each in density.parts]
            else:
                parts.append((which, density.base_dist))
        return Mixed(parts, self.get_buffer("order"), self.rows)


class CategoriesHead(Head):
    """Categorical columns, which may differ in their number of categories; their logits are concatenated.

    Arguments:
        sizes: the number of categories of each column.

    Attributes:
        alike: positions of the columns in groups of similar size, the largest first. Only columns of one group are
            padded to the same size.
    """

    discrete = True

    def __init__(self, sizes: Sequence[int]):
        super().__init__((len(sizes),))
        self.sizes = tuple(sizes)
        self.support = constraints.integer_interval(0, max(sizes) - 1)
        self.alike: list[list[int]] = []
        for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
            if not self.alike or sizes[i] * ALIKE < sizes[self.alike[-1][0]]:
                self.alike.append([])
            self.alike[-1].append(i)
        starts = torch.tensor([0, *sizes]).cumsum(0)[:-1]
        for g, columns in enumerate(self.alike):
            code = torch.arange(sizes[columns[0]]).expand(len(columns), -1)
            padding = code >= torch.tensor([sizes[i] for i in columns])[:, None]
            self.register_buffer(f"columns_{g}", torch.tensor(columns), persistent=False)
            self.register_buffer(f"padding_{g}", padding, persistent=False)
            index = (starts[columns][:, None] + code).masked_fill(padding, 0)
            self.register_buffer(f"index_{g}", index, persistent=False)
        self.register_buffer(
            "order", torch.tensor([i for group in self.alike for i in group]).argsort(), persistent=False
        )

    @property
    def features(self) -> int:
        return sum(self.sizes)

    def bias_of(self, x: Tensor) -> Tensor:
        """The log-frequencies of the codes in x (n, columns), with 1 added to the count of each category."""
        log_frequencies = []
        for column, size in zip(x.unbind(-1), self.sizes, strict=True):
            codes = column[~torch.isnan(column)].long()
            counts = torch.bincount(codes, minlength=size).to(x.dtype) + 1
            log_frequencies.append(torch.log(counts / counts.sum()))
        return torch.cat(log_frequencies)

    def forward(self, raw: Tensor) -> Distribution:
        logits = at_least_single(raw)
        parts = [(self.get_buffer(f"columns_{g}"), self._density(logits, g)) for g in range(len(self.alike))]
        return Mixed(parts, self.get_buffer("order"), self.support)

    def _density(self, logits: Tensor, group: int) -> Categories:
        index, padding = self.get_buffer(f"index_{group}"), self.get_buffer(f"padding_{group}")
        padded = logits.index_select(-1, index.flatten()).unflatten(-1, index.shape)
        return Categories(without(padded, padding), validate_args=False)


class ManyCategoriesHead(Head):
    """A categorical column with many categories: each has a learned direction and bias, logits = W h + b.

    The raw numbers h are as many as the directions are long, so that the network's output does not grow with the number
    of categories.

    Arguments:
        categories: their number.
    """

    discrete = True

    def __init__(self, categories: int):
        super().__init__((1,))
        self.support = constraints.integer_interval(0, categories - 1)
        size = embedding_size(categories)
        self.directions = nn.Parameter(torch.randn(categories, size) / math.sqrt(size))
        self.bias = nn.Parameter(torch.zeros(categories))

    @property
    def features(self) -> int:
        return self.directions.shape[1]

    def bias_of(self, x: Tensor) -> Tensor:
        return torch.zeros(self.features, dtype=x.dtype)

    @torch.no_grad()
    def start_numbers(self, x: Tensor) -> None:
        """Set the biases to the log-frequencies of the codes, with 1 added to the count of each category."""
        counts = torch.bincount(x[~torch.isnan(x)].long(), minlength=len(self.bias)) + 1
        self.bias.copy_(torch.log(counts / counts.sum()))

    def forward(self, raw: Tensor) -> Distribution:
        logits = torch.nn.functional.linear(at_least_single(raw), self.directions, self.bias)
        return self.independent(Categories(logits.unsqueeze(-2), validate_args=False))


def _many(categories: int, n: int) -> ManyCategoriesHead:
    return ManyCategoriesHead(categories)


class Masked(Head):
    """`head` for data with missing values: the exact marginal density of the observed elements.

    Arguments:
        head: a head whose density factorises over the elements of x.
        held: the elements that are constant in the training data, as {flat index: value of x}; see `Marginal`.

    Raises:
        ChoiceError: the density of `head` does not factorise, so the marginal would need an integral.
    """

    held: Tensor | None

    def __init__(self, head: Head, held: Mapping[int, float] | None = None):
        super().__init__(head.event)
        self.head, self.support, self.discrete, self.params = head, head.support, head.discrete, head.params
        whole = factor_density(head)
        if whole is None:
            raise ChoiceError(
                f"likelihood {type(head).__name__} does not factorise over the elements of x, so it cannot handle "
                "missing values: choose another `likelihood` (gaussian with `sigma='shared'`, bernoulli, ...)"
            )
        self.fill = 0.0 if isinstance(whole, Mixed) else _inside(whole.base_dist.support)
        values = torch.full(head.event, torch.nan)
        for index, value in (held or {}).items():
            values.view(-1)[index] = value
        self.register_buffer("held", values if held else None, persistent=False)

    @property
    def features(self) -> int:
        return self.head.features

    @property
    def outputs(self) -> int:
        return self.head.outputs

    def bias_of(self, x: Tensor) -> Tensor | None:
        return self.head.bias_of(x)

    def start_numbers(self, x: Tensor) -> None:
        self.head.start_numbers(x)

    def observe(self, observation: Observation) -> None:
        self.head.observe(observation)

    def forward(self, raw: Tensor) -> Distribution:
        return Marginal(self.head(raw), self.fill, self.held)


def factor_density(head: Head) -> Mixed | Independent | None:
    """A density of the head (batch shape (1,)) if it factorises over the elements of x, else None."""
    training = head.training
    with torch.no_grad():
        whole = head.eval()(torch.zeros(1, head.features))
    head.train(training)
    if isinstance(whole, Mixed):
        return whole
    elementwise = isinstance(whole, Independent) and not whole.base_dist.event_shape
    return whole if elementwise and not isinstance(whole.base_dist, OptimalNormal) else None


def _inside(support: constraints.Constraint) -> float:
    """A number inside an elementwise support."""
    return next(v for v in (0.0, 0.5, 1.0) if bool(support.check(torch.tensor(v))))
