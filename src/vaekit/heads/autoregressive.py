"""The autoregressive likelihood of a table: each column given the code and the columns before it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, constraints

from vaekit.data.core import Column
from vaekit.data.observation import Observation, Standardised, TableSupport
from vaekit.data.observation.quantiles import PADDING, SIZE
from vaekit.densities import NegativeBinomial
from vaekit.densities.autoregressive import Autoregressive
from vaekit.densities.binned import BinnedMixture, Bins, bins_of
from vaekit.densities.mixed import Categories, Mixed
from vaekit.densities.special import at_least_single, without
from vaekit.networks.masked import MaskedMLP
from vaekit.networks.tables import embedding_size
from vaekit.utils.arguments import Knob

from .base import LOG_SCALE_CEILING, LOG_SCALE_FLOOR, Head, floored, moments, raw_of_floored, within
from .counts import Counts
from .mixed import ALIKE
from .register import likelihood

CONTEXT = 64
"""The number of numbers of the decoder, from which all conditional densities start."""
LAYERS = 2
"""The number of hidden layers of the masked network."""
FAR = 8.0
"""Standard deviations from the mean beyond which numbers are inputs at this distance."""
ALL = slice(None)


class Kind(nn.Module, ABC):
    """Columns of one kind: their inputs to the masked network, and their densities given its outputs. Abstract.

    Attributes:
        which: their indices in the row.
        inputs, outputs: numbers per column.
    """

    inputs: int
    outputs: int
    index: Tensor

    def __init__(self, which: Sequence[int]):
        super().__init__()
        self.which = tuple(which)
        self.register_buffer("index", torch.tensor(self.which), persistent=False)

    @abstractmethod
    def encode(self, x: Tensor, at: slice = ALL) -> Tensor:
        """The inputs (..., n, inputs) for the values x (..., n) of the columns `at` these positions.

        All are 0 for a missing value (nan).
        """

    @abstractmethod
    def density(self, raw: Tensor, at: slice = ALL) -> Distribution:
        """The density, batch shape (..., n), of the columns `at` these positions, from raw (..., n, outputs)."""

    @abstractmethod
    def initial(self, x: Tensor) -> Tensor:
        """The raw numbers (n, outputs) of the best constant density for x (rows, n); other numbers are set to it."""


class Numbers(Kind):
    """Real columns: a mixture of normals and of bins of about equally many training rows; see `BinnedMixture`.

    Arguments:
        normals: the number of normals.
        bins: the largest number of bins.
    """

    def __init__(self, which: Sequence[int], normals: int, bins: int):
        super().__init__(which)
        self.count, self.normals = bins, normals
        self.inputs, self.outputs = 1 + bins, 3 * normals + bins
        n = len(which)
        plain = bins_of(np.full((n, SIZE), np.inf), np.zeros((n, SIZE + 1), dtype=np.bool_), bins)
        for name, tensor in plain._asdict().items():
            self.register_buffer(name, tensor)

    def bins(self, at: slice = ALL) -> Bins:
        """The bins of the columns `at` these positions."""
        return Bins(*(self.get_buffer(name)[at] for name in Bins._fields))

    def observe(self, observation: Standardised) -> None:
        """Take the intervals that single values stand for, which bins do not divide."""
        quantiles = observation.quantiles
        if quantiles is not None:
            x, run = (v[list(self.which)].cpu().double().numpy() for v in (quantiles.x, quantiles.run))
            found = bins_of(np.where(x < PADDING, x, np.inf), run == 0, self.count)
            for name, tensor in found._asdict().items():
                self.get_buffer(name).copy_(tensor)

    def encode(self, x: Tensor, at: slice = ALL) -> Tensor:
        known, x = ~torch.isnan(x)[..., None], torch.nan_to_num(x)
        bin_of = self.bins(at).of(x)[..., None]
        hot = (bin_of == torch.arange(self.count, device=x.device)) & known
        return torch.cat([x.clamp(-FAR, FAR)[..., None], hot.to(x.dtype)], -1)

    def density(self, raw: Tensor, at: slice = ALL) -> Distribution:
        logits, loc, log_scale = raw.split([self.normals + self.count, self.normals, self.normals], -1)
        return BinnedMixture(logits, loc, floored(log_scale).clamp_max(LOG_SCALE_CEILING), self.bins(at))

    def initial(self, x: Tensor) -> Tensor:
        """Normals at quantiles of N(0, 1) and bins of its mass, since x is standardised, or mapped to it."""
        c, mass = self.normals, self.bins().mass
        loc = torch.special.ndtri((torch.arange(c) + 0.5) / c)
        scale = raw_of_floored(torch.full((c,), math.log(2 / (c + 1))))
        normals = (v.expand(len(mass), -1) for v in (torch.full((c,), -math.log(c)), loc, scale))
        logits, loc, scale = normals
        return torch.cat([logits, torch.log(mass.clamp_min(1e-6)), loc, scale], -1)


class Binaries(Kind):
    """Two-valued columns: Bernoulli."""

    inputs, outputs = 2, 1

    def encode(self, x: Tensor, at: slice = ALL) -> Tensor:
        return (x[..., None] == torch.arange(2, device=x.device)).to(x.dtype)

    def density(self, raw: Tensor, at: slice = ALL) -> Distribution:
        return Bernoulli(logits=raw[..., 0], validate_args=False)

    def initial(self, x: Tensor) -> Tensor:
        return torch.logit(moments(x)[1], eps=1e-3)[:, None]


class CountColumns(Kind):
    """Counts: negative binomial, whose inverse dispersion is softly bounded as in `OverdispersedCounts`."""

    inputs, outputs = 4, 2
    HIGHEST = 30.0
    centre: Tensor
    spread: Tensor

    def __init__(self, which: Sequence[int]):
        super().__init__(which)
        self.register_buffer("centre", torch.zeros(len(which)))
        self.register_buffer("spread", torch.ones(len(which)))

    def encode(self, x: Tensor, at: slice = ALL) -> Tensor:
        log = torch.log1p(torch.nan_to_num(x).clamp_min(0))
        return torch.stack([log, *(v.to(x.dtype) for v in (x == 0, x == 1, x > 1))], -1)

    def density(self, raw: Tensor, at: slice = ALL) -> Distribution:
        log_mean = within(self.centre[at] + self.spread[at] * raw[..., 0], Counts.LOWEST, self.HIGHEST)
        return NegativeBinomial(log_mean, within(raw[..., 1], LOG_SCALE_FLOOR, self.HIGHEST - 4), validate_args=False)

    def initial(self, x: Tensor) -> Tensor:
        _, mean, variance = moments(x.double())
        self.centre.copy_(torch.log(mean.clamp_min(1e-3)))
        log_r = torch.log(mean.square().clamp_min(1e-6) / (variance - mean).clamp_min(1e-6)).clamp(-4, 8)
        return torch.stack([torch.zeros_like(log_r), log_r], -1).float()


class CategoryColumns(Kind):
    """Categorical columns of similar width, each with one logit per category."""

    padding: Tensor

    def __init__(self, which: Sequence[int], widths: Sequence[int]):
        super().__init__(which)
        self.inputs = self.outputs = max(widths)
        padding = torch.arange(max(widths)) >= torch.tensor(widths)[:, None]
        self.register_buffer("padding", padding, persistent=False)

    def encode(self, x: Tensor, at: slice = ALL) -> Tensor:
        return (x[..., None] == torch.arange(self.inputs, device=x.device)).to(x.dtype)

    def density(self, raw: Tensor, at: slice = ALL) -> Distribution:
        return Categories(without(raw, self.padding[at]), validate_args=False)

    def initial(self, x: Tensor) -> Tensor:
        count = self.encode(x).sum(0) + 1
        return torch.log(count / count.sum(-1, keepdim=True))


class ManyCategories(Kind):
    """A categorical column with many categories: embedded, with logits W h + b of low rank."""

    def __init__(self, which: Sequence[int], categories: int):
        super().__init__(which)
        self.inputs = self.outputs = size = embedding_size(categories)
        self.embedding = nn.Embedding(categories, size)
        self.directions = nn.Parameter(torch.randn(categories, size) / math.sqrt(size))
        self.bias = nn.Parameter(torch.zeros(categories))

    def encode(self, x: Tensor, at: slice = ALL) -> Tensor:
        known = ~torch.isnan(x)[..., None]
        return torch.where(known, self.embedding(torch.nan_to_num(x).long()), 0.0)

    def density(self, raw: Tensor, at: slice = ALL) -> Distribution:
        return Categories(nn.functional.linear(raw, self.directions, self.bias), validate_args=False)

    def initial(self, x: Tensor) -> Tensor:
        counts = torch.bincount(x[~torch.isnan(x)].long(), minlength=len(self.bias)) + 1
        self.bias.copy_(torch.log(counts / counts.sum()))
        return torch.zeros(1, self.outputs)


@likelihood(
    "autoregressive",
    "Germain et al. 2015, arXiv:1502.03509",
    observation="mixed",
    tables=True,
    heading="Likelihood autoregressive",
)
class AutoregressiveHead(Head):
    r"""p(x|z) = prod_j p(x_j | x_<j, z): each column of a table depends on the code and on the columns before it.

    Real columns have a mixture of normals and of bins, two-valued columns are Bernoulli, categorical columns have one
    logit per category, or logits of low rank if they have many; counts are negative binomial. One masked network gives
    all conditional densities from the columns of x and the decoder's output. Drawing a row takes one pass per column.

    Arguments:
        columns: the table's columns, in the order of x.
        most: columns with more categories are embedded; None for none.
    """

    held: Tensor | None
    places: Tensor

    def __init__(
        self,
        columns: Sequence[Column],
        most: int | None = None,
        masked_width: Annotated[int, Knob("units of each hidden layer of the masked network", low=1)] = 256,
        normals: Annotated[int, Knob("normal densities per column of numbers", low=1)] = 8,
        bins: Annotated[int, Knob("bins per column of numbers, each with a probability of its own", low=2)] = 64,
        dropout: Annotated[
            float, Knob("share of the hidden units of the masked network that are dropped in training", low=0, high=0.9)
        ] = 0.2,
    ):
        super().__init__((len(columns),))
        self.columns, self.order = tuple(columns), tuple(range(len(columns)))
        rows = TableSupport(columns)
        self.support = constraints.real if bool(rows.real.all()) else rows
        self.discrete = rows.is_discrete
        self.groups = nn.ModuleList(_kinds(columns, most, normals, bins))
        self.inputs_of, inputs = _layout(self.kinds, lambda kind: kind.inputs)
        self.outputs_of, outputs = _layout(self.kinds, lambda kind: kind.outputs)
        self.net = MaskedMLP(inputs, outputs, CONTEXT, masked_width, LAYERS, dropout)
        grouped = [j for kind in self.kinds for j in kind.which]
        self.register_buffer("places", torch.tensor(grouped).argsort(), persistent=False)
        self.register_buffer("held", None, persistent=False)

    @property
    def kinds(self) -> list[Kind]:
        """The columns by kind."""
        return [kind for kind in self.groups if isinstance(kind, Kind)]

    def _kind(self, j: int) -> tuple[Kind, slice]:
        """The kind of column j, and its position there."""
        kind = next(kind for kind in self.kinds if j in kind.which)
        i = kind.which.index(j)
        return kind, slice(i, i + 1)

    @property
    def features(self) -> int:
        return CONTEXT

    def hold(self, held: Mapping[int, float]) -> None:
        """Fix columns that are constant in the training data at these values of x, by index."""
        values = torch.full(self.event, torch.nan)
        for j, value in held.items():
            values[j] = value
        self.register_buffer("held", values if held else None, persistent=False)

    def bias_of(self, x: Tensor) -> None:
        return None

    @torch.no_grad()
    def start_numbers(self, x: Tensor) -> None:
        self.net.last.bias.copy_(torch.cat([kind.initial(x[:, kind.index]).flatten() for kind in self.kinds]))

    def observe(self, observation: Observation) -> None:
        for kind in self.kinds:
            if isinstance(kind, Numbers) and isinstance(observation, Standardised):
                kind.observe(observation)

    def forward(self, raw: Tensor) -> Autoregressive:
        return Autoregressive(self, at_least_single(raw))

    def given(self, context: Tensor, x: Tensor) -> Mixed:
        """The density of each column given those before it in x (..., D), where nan is missing."""
        kinds = self.kinds
        encoded = torch.cat([kind.encode(x.index_select(-1, kind.index)).flatten(-2) for kind in kinds], -1)
        raw = at_least_single(self.net(self.net.seen(encoded), context))
        numbers = raw.split([len(kind.which) * kind.outputs for kind in kinds], -1)
        parts = [
            (kind.index, kind.density(part.unflatten(-1, (-1, kind.outputs))))
            for kind, part in zip(kinds, numbers, strict=True)
        ]
        return Mixed(parts, self.places, self.support)

    def column(self, context: Tensor, seen: Tensor, j: int) -> Distribution:
        """The density of column j, batch shape (..., 1), given the sum of what the columns before it add."""
        return self.density_of(self.raw_of(context, seen, j), j)

    def raw_of(self, context: Tensor, seen: Tensor, j: int) -> Tensor:
        """The raw numbers (..., n) of column j."""
        return at_least_single(self.net(seen, context, self.outputs_of[j]))

    def density_of(self, raw: Tensor, j: int) -> Distribution:
        """The density of column j, batch shape (..., 1), from its raw numbers."""
        kind, at = self._kind(j)
        return kind.density(raw[..., None, :], at)

    def seen(self, value: Tensor, j: int) -> Tensor:
        """What the value (..., 1) of column j adds to the first layer of the network, (..., width)."""
        kind, at = self._kind(j)
        return self.net.seen(kind.encode(value, at)[..., 0, :], self.inputs_of[j])


def _layout(kinds: Sequence[Kind], size: Callable[[Kind], int]) -> tuple[dict[int, slice], list[int]]:
    """Where the numbers of each column are, if each has `size(kind)` of them, and the column of each number."""
    slices: dict[int, slice] = {}
    columns: list[int] = []
    for kind in kinds:
        for j in kind.which:
            slices[j] = slice(len(columns), len(columns) + size(kind))
            columns += [j] * size(kind)
    return slices, columns


def _kinds(columns: Sequence[Column], most: int | None, normals: int, bins: int) -> list[Kind]:
    """The columns by kind; categorical ones in groups of similar width."""
    which = {kind: [i for i, c in enumerate(columns) if c.kind == kind] for kind in ("real", "binary", "counts")}
    kinds: list[Kind] = []
    if which["real"]:
        kinds.append(Numbers(which["real"], normals, bins))
    if which["binary"]:
        kinds.append(Binaries(which["binary"]))
    if which["counts"]:
        kinds.append(CountColumns(which["counts"]))
    wide = sorted((i for i, c in enumerate(columns) if c.kind == "categorical"), key=lambda i: -columns[i].width)
    alike: list[list[int]] = []
    for i in wide:
        width = columns[i].width
        if most is not None and width > most:
            kinds.append(ManyCategories([i], width))
        elif not alike or width * ALIKE < columns[alike[-1][0]].width:
            alike.append([i])
        else:
            alike[-1].append(i)
    return kinds + [CategoryColumns(group, [columns[i].width for i in group]) for group in alike]
