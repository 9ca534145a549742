"""Mixed tables, counts and missing values between the networks and the data.

A row of a mixed table holds numbers of several kinds (`Column`): `MixedHead` gives each its own density, `OneHot` shows
the encoder the categories apart. Where values are missing, x is nan: `Masked` makes any likelihood that factorises one
of the observed elements alone, and `WithMask` shows the encoder zeros in their place and which they were. `dress` puts
together what the facts of the data call for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints

from vaekit import heads
from vaekit.data.core import Column
from vaekit.data.observation import Counts, MixedTable, Observation, TableSupport
from vaekit.densities import Categorical, OptimalNormal, _from_noise
from vaekit.errors import ChoiceError
from vaekit.noise import Noise

from . import Head, moments

if TYPE_CHECKING:
    from vaekit.recipes.composition import Facts

# --- densities --------------------------------------------------------------------------------------------------


class Categories(Categorical):
    """Categorical codes 0..C-1, whose order means nothing: in place of a mean it has the most probable code.

    Columns of fewer categories than the widest end in logits of -inf.
    """

    def expand(self, batch_shape, _instance=None):
        return Categories(self.logits.expand(*batch_shape, self.levels), validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.logits.argmax(-1).to(self.logits.dtype)


class Mixed(Distribution):
    """The columns of a table, independent, in groups of one kind each.

    Arguments:
        parts: (which columns (n,), their elementwise density with batch shape (..., n)), one a group.
        order: (D,) the place of each column among those of all groups, one after the other.
        support: of the whole row (D,).
    """

    arg_constraints: ClassVar = {}

    def __init__(self, parts: Sequence[tuple[Tensor, Distribution]], order: Tensor, support: TableSupport):
        self.parts, self.order, self._support = tuple(parts), order, support
        lead = self.parts[0][1].batch_shape[:-1]
        super().__init__(lead, self.order.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return self._support

    def expand(self, batch_shape, _instance=None):
        parts = [(which, d.expand((*batch_shape, len(which)))) for which, d in self.parts]
        return Mixed(parts, self.order, self._support)

    def _whole(self, values: Sequence[Tensor]) -> Tensor:
        """The groups' values side by side, (..., D), in the columns' order."""
        return torch.cat(list(values), -1).index_select(-1, self.order)

    def each(self, value: Tensor) -> Tensor:
        """The log-density of each column, (..., D)."""
        return self._whole([d.log_prob(value.index_select(-1, which)) for which, d in self.parts])

    def log_prob(self, value: Tensor) -> Tensor:
        return self.each(value).sum(-1)

    @property
    def mean(self) -> Tensor:
        """The expected value of each column, of a categorical one its most probable code."""
        return self._whole([d.mean for _, d in self.parts])

    def average(self, weights: Tensor) -> Tensor:
        """`mean` of the mixture, with these weights (K, B), of the K densities on the leading axis: (B, D)."""
        found = []
        for _, d in self.parts:
            if isinstance(d, Categories):
                found.append((weights[..., None, None] * torch.softmax(d.logits, -1)).sum(0).argmax(-1).to(weights))
            else:
                found.append((weights[..., None] * d.mean).sum(0))
        return self._whole(found)


@_from_noise.register
def _(d: Mixed, noise: Noise, event, k):
    return d._whole([_from_noise(part, noise, (len(which),), k) for which, part in d.parts])


DIFFERS = 1000.0
"""Nats that a value costs which differs from the one that its element has in every training row."""


class Marginal(Distribution):
    """The density of those elements of x that are there, whatever the others are: nan in x marks a missing one.

    For a density that factorises this is the marginal, exactly. Its mean and its draws are those of all elements.

    An element may be held at one value, which it has with probability 1: its log-density is 0 there and, so that means
    over data stay finite, -`DIFFERS` elsewhere.

    Arguments:
        whole: the density of all elements: `Mixed`, or independent elements.
        fill: a number inside the support of every element, put in place of nan while nothing is made of it.
        held: the values of elements that are held, (*event), nan of the others.
    """

    arg_constraints: ClassVar = {}

    def __init__(self, whole: Mixed | Independent, fill: float = 0.0, held: Tensor | None = None):
        self.whole, self.fill, self.held = whole, fill, held
        super().__init__(whole.batch_shape, whole.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return _WhereThere(self.whole, self.fill)

    def expand(self, batch_shape, _instance=None):
        return Marginal(self.whole.expand(batch_shape), self.fill, self.held)

    def each(self, value: Tensor) -> Tensor:
        """The log-density of each element, 0 of a missing one: (..., *event)."""
        there = ~torch.isnan(value)
        value = torch.where(there, value, self.fill)  # a nan, times 0 in the gradient, would still be nan
        found = self.whole.each(value) if isinstance(self.whole, Mixed) else self.whole.base_dist.log_prob(value)
        if self.held is not None:
            certain = torch.where(value == self.held, 0.0, -DIFFERS).to(found.dtype)
            found = torch.where(torch.isnan(self.held), found, certain)
        return torch.where(there, found, 0.0)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.each(value).flatten(-len(self.event_shape)).sum(-1)

    def put(self, x: Tensor) -> Tensor:
        """x (..., *event) with its held elements at their values."""
        return x if self.held is None else torch.where(torch.isnan(self.held), x, self.held.to(x.dtype))

    @property
    def mean(self) -> Tensor:
        return self.put(self.whole.mean)

    @property
    def variance(self) -> Tensor:
        variance = self.whole.variance
        return variance if self.held is None else torch.where(torch.isnan(self.held), variance, 0.0)


class _WhereThere(constraints.Constraint):
    """The support of a density with nan allowed anywhere."""

    def __init__(self, whole: Distribution, fill: float):
        assert whole.support is not None
        self.inner, self.fill = whole.support, fill
        self.event_dim, self.is_discrete = len(whole.event_shape), self.inner.is_discrete

    def check(self, value: Tensor) -> Tensor:
        return self.inner.check(torch.where(torch.isnan(value), self.fill, value))


@_from_noise.register
def _(d: Marginal, noise: Noise, event, k):
    return d.put(_from_noise(d.whole.base_dist if isinstance(d.whole, Independent) else d.whole, noise, event, k))


# --- heads ------------------------------------------------------------------------------------------------------


class MixedHead(Head):
    """The columns of a table, each with a density of its own kind, independent given z.

    Real columns (standardised by `MixedTable`) are Gaussian, two-valued ones Bernoulli, categorical ones have a logit a
    category, counts are negative binomial or Poisson: as many raw numbers as all of these heads take together.

    Arguments:
        columns: of the table, in the order of x.
        scale: the Gaussians' sigma, as for `Gaussian`: `each` (one learned number a column), `learned` (a raw number,
            so by row as well), `shared` or `unit`.
        counts: "negative-binomial" (one learned dispersion a column) or "poisson".
        scaled: of count columns, see `conditional.count_range`.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        scale: str = "each",
        counts: str = "negative-binomial",
        scaled: bool = False,
    ):
        super().__init__((len(columns),))
        if counts not in ("negative-binomial", "poisson"):
            raise ValueError(f"counts {counts!r} is not one of negative-binomial, poisson")
        self.columns, self.rows = tuple(columns), TableSupport(columns)
        self.support, self.discrete = self.rows, self.rows.is_discrete
        count = heads.PoissonHead if counts == "poisson" else heads.NegativeBinomialHead
        build: dict[str, Callable[[int], Head]] = {
            "real": lambda n: heads.Gaussian((n,), scale),
            "binary": lambda n: heads.Bernoulli((n,)),
            "categorical": lambda n: CategoriesHead([c.width for c in columns if c.kind == "categorical"]),
            "counts": lambda n: count((n,), **heads.count_range(scaled)),
        }
        self.groups = nn.ModuleDict()
        grouped: list[int] = []
        for kind, head in build.items():
            which = [i for i, column in enumerate(columns) if column.kind == kind]
            if which:
                self.groups[kind] = head(len(which))
                self.register_buffer(f"which_{kind}", torch.tensor(which), persistent=False)
                grouped += which
        self.register_buffer("order", torch.tensor(grouped).argsort(), persistent=False)

    @property
    def shared(self) -> list[tuple[Tensor, Head]]:
        """The columns of each kind, and the head that they share."""
        return [(self.which(kind), head) for kind, head in self.groups.items() if isinstance(head, Head)]

    @property
    def features(self) -> int:
        return sum(head.features for _, head in self.shared)

    def which(self, kind: str) -> Tensor:
        """The columns of this kind."""
        return self.get_buffer(f"which_{kind}")

    def start_numbers(self, x: Tensor) -> None:
        if "counts" in self.groups:  # a real column is standardised: its deviation is where it starts
            head = self.groups["counts"]
            assert isinstance(head, Head)
            head.start_numbers(x[:, self.which("counts")])

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor | None:
        return self._gathered(lambda head, which: head.initial_bias(mean[which], std[which]))

    def bias_of(self, x: Tensor) -> Tensor | None:
        """Raw parameters (features,) of the best constant density for rows x (n, D), which may lack values."""
        return self._gathered(lambda head, which: start_bias(head, x[:, which]))

    def _gathered(self, of: Callable[[Head, Tensor], Tensor | None]) -> Tensor | None:
        found = [of(head, which) for which, head in self.shared]
        known = [bias for bias in found if bias is not None]
        return torch.cat(known) if len(known) == len(found) else None

    def forward(self, raw: Tensor) -> Distribution:
        split = raw.split([head.features for _, head in self.shared], -1)
        parts = [(which, head(part).base_dist) for (which, head), part in zip(self.shared, split, strict=True)]
        return Mixed(parts, self.get_buffer("order"), self.rows)


class CategoriesHead(Head):
    """Categorical columns of their own numbers of categories: the logits of all side by side.

    Arguments:
        sizes: the number of categories of each column.
    """

    discrete = True

    def __init__(self, sizes: Sequence[int]):
        super().__init__((len(sizes),))
        self.sizes = tuple(sizes)
        most = max(sizes)
        self.support = constraints.integer_interval(0, most - 1)
        starts = torch.tensor([0, *sizes]).cumsum(0)[:-1]
        place = torch.arange(most).expand(len(sizes), most)
        none = place >= torch.tensor(sizes)[:, None]
        self.register_buffer("none", none, persistent=False)
        self.register_buffer("place", (starts[:, None] + place).masked_fill(none, 0), persistent=False)

    @property
    def features(self) -> int:
        return sum(self.sizes)

    def bias_of(self, x: Tensor) -> Tensor:
        """The log-frequencies of the codes in x (n, columns), with one more of each category seen."""
        found = []
        for column, size in zip(x.unbind(-1), self.sizes, strict=True):
            codes = column[~torch.isnan(column)].long()
            seen = torch.bincount(codes, minlength=size).to(x.dtype) + 1
            found.append(torch.log(seen / seen.sum()))
        return torch.cat(found)

    def forward(self, raw: Tensor) -> Distribution:
        raw = raw.float() if raw.dtype in (torch.bfloat16, torch.float16) else raw
        place, none = self.get_buffer("place"), self.get_buffer("none")
        logits = raw.index_select(-1, place.flatten()).unflatten(-1, place.shape).masked_fill(none, -torch.inf)
        return self.independent(Categories(logits, validate_args=False))


class Masked(Head):
    """`head` for data with missing values: the density of the observed elements alone, their exact marginal.

    Arguments:
        head: one that factorises over the elements of x.
        held: elements that have one value in all training data, by place, with that value of x: see `Marginal`.

    Raises:
        ChoiceError: it does not, so that leaving elements out needs an integral.
    """

    held: Tensor | None

    def __init__(self, head: Head, held: Mapping[int, float] | None = None):
        super().__init__(head.event)
        self.head, self.support, self.discrete, self.params = head, head.support, head.discrete, head.params
        whole = _elements(head)
        if whole is None:
            raise ChoiceError(
                f"likelihood {type(head).__name__} does not factorise over the elements of x, so it cannot leave "
                "missing ones out: take another `likelihood` (gaussian with `sigma='shared'`, bernoulli, ...)"
            )
        self.fill = 0.0 if isinstance(whole, Mixed) else _inside(whole.base_dist.support)
        values = torch.full(head.event, torch.nan)
        for place, value in (held or {}).items():
            values.view(-1)[place] = value
        self.register_buffer("held", values if held else None, persistent=False)

    @property
    def features(self) -> int:
        return self.head.features

    def initial_bias(self, mean: Tensor, std: Tensor) -> Tensor | None:
        return self.head.initial_bias(mean, std)

    def forward(self, raw: Tensor) -> Distribution:
        return Marginal(self.head(raw), self.fill, self.held)


def _elements(head: Head) -> Mixed | Independent | None:
    """A density that a head gives, if it factorises over the elements of x."""
    training = head.training
    with torch.no_grad():
        whole = head.eval()(torch.zeros(1, head.features))
    head.train(training)
    if isinstance(whole, Mixed):
        return whole
    apart = isinstance(whole, Independent) and not whole.base_dist.event_shape
    return whole if apart and not isinstance(whole.base_dist, OptimalNormal) else None


def _inside(support: constraints.Constraint) -> float:
    """A number that lies in an elementwise support."""
    return next(v for v in (0.0, 0.5, 1.0) if bool(support.check(torch.tensor(v))))


def start_bias(head: Head, x: Tensor) -> Tensor | None:
    """Raw parameters (features,) of the best constant density for data x (n, *event), if the head has one.

    Missing values do not count; of an element that no datum has, the mean is taken to be 0.
    """
    if isinstance(head, Masked):
        return start_bias(head.head, x)
    if isinstance(head, MixedHead | CategoriesHead):
        return head.bias_of(x)
    _, mean, variance = moments(x)
    return head.initial_bias(mean, variance.sqrt())


# --- what the encoder sees --------------------------------------------------------------------------------------


class Log1p(nn.Module):
    """`net` on log(1 + x): counts span orders of magnitude, and networks want numbers about 1.

    Below 0, where only corrupted counts lie, x is read as 0.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, *given: Tensor) -> Tensor:
        return self.net(_log1p(x), *given)


def _log1p(x: Tensor) -> Tensor:
    return torch.log1p(x.clamp_min(0))


class OneHot(nn.Module):
    """`net` on the rows of a mixed table: categories one-hot, counts as log(1 + x), the rest as they are.

    A missing value stays nan, in every number made of it. What the net sees is sorted by kind: real, two-valued,
    counts, categories.

    Attributes:
        width: how many numbers the net sees of a row.
        firsts: of each column, the place of one of its numbers.
    """

    def __init__(self, net: nn.Module, columns: Sequence[Column]):
        super().__init__()
        self.net = net
        which = {kind: [i for i, c in enumerate(columns) if c.kind == kind] for kind in _SEEN}
        sizes = [columns[i].width for i in which["categorical"]]
        self.width = len(columns) - len(sizes) + sum(sizes)
        plain = len(columns) - len(sizes)
        self.firsts = [*range(plain), *(plain + sum(sizes[:i]) for i in range(len(sizes)))]
        codes = [code for size in sizes for code in range(size)]
        of = [i for i, size in zip(which["categorical"], sizes, strict=True) for _ in range(size)]
        places = {"plain": which["real"] + which["binary"], "counts": which["counts"], "of": of, "codes": codes}
        for name, place in places.items():
            self.register_buffer(name, torch.tensor(place, dtype=torch.long), persistent=False)

    def forward(self, x: Tensor, *given: Tensor) -> Tensor:
        plain, counts, of, codes = (self.get_buffer(n) for n in ("plain", "counts", "of", "codes"))
        picked = x.index_select(-1, of)
        hot = torch.where(torch.isnan(picked), picked, (picked == codes).to(x.dtype))
        seen = [x.index_select(-1, plain), _log1p(x.index_select(-1, counts)), hot]
        return self.net(torch.cat(seen, -1), *given)


_SEEN = ("real", "binary", "counts", "categorical")


class WithMask(nn.Module):
    """`net` on x with zeros for its missing values, and on 1 where there is a value, 0 where there is none, beside it.

    Images and signals get the mask as further channels, vectors as further numbers: the net takes (2 C, *size) or 2 D.

    Arguments:
        dims: of the event: 1 for vectors, 2 for signals, 3 for images.
        which: of a vector, the elements whose mask the net sees; all where not given.
    """

    which: Tensor | None

    def __init__(self, net: nn.Module, dims: int, which: Sequence[int] | None = None):
        super().__init__()
        self.net, self.dims = net, dims
        places = None if which is None else torch.tensor(which, dtype=torch.long)
        self.register_buffer("which", places, persistent=False)

    def forward(self, x: Tensor, *given: Tensor) -> Tensor:
        there = ~torch.isnan(x)
        mask = (there if self.which is None else there.index_select(-1, self.which)).to(x.dtype)
        return self.net(torch.cat([torch.where(there, x, 0.0), mask], -self.dims), *given)


# --- for recipes ------------------------------------------------------------------------------------------------


def is_mixed(facts: Facts) -> bool:
    """Whether the data are a table that needs `MixedTable` and `MixedHead`: not all of its columns real or counts."""
    return facts.kind == "vector" and any(column.kind != "real" for column in facts.columns)


class Dress(NamedTuple):
    """What `dress` makes of an observation, a head and an encoder.

    `wrap` turns a network that takes events of shape `event` (and perhaps a condition after them) into the encoder.
    """

    observation: Observation
    head: Head
    event: tuple[int, ...]
    wrap: Callable[[nn.Module], nn.Module]


def hold(facts: Facts, observation: Observation, head: Head) -> Head:
    """`head` with the elements held that have one value in all training data, where the observation calls for that.

    A head that does not factorise over the elements comes back as it was, and takes them like any others.
    """
    if not facts.constant or _elements(head) is None:
        return head
    held = observation.hold(facts.constant)
    return Masked(head, held) if held else head


def dress(facts: Facts, observation: Observation, head: Head) -> Dress:
    """An observation and a head fit for the data's missing values, and what the encoder is to see of x.

        seen, head, event, wrap = dress(facts, choose_observation(facts, ...), choose_head(facts, ...))
        posterior = Conditional(wrap(nets.MLP(event, 2 * latent)), Gaussian((latent,)))

    Counts are shown to the encoder as log(1 + x), categories one-hot. With missing values the observation learns how
    often each element is there, the head becomes `Masked`, and the encoder sees zeros (the means of standardised data)
    and the mask. Elements that have one value in all training data are held at it. Where the facts call for none of
    this, everything comes back as it was: `event` is the data's shape, `wrap` gives its argument.

    Raises:
        ChoiceError: values are missing and the head does not factorise.
    """
    event, which = tuple(facts.shape), None
    layers: list[Callable[[nn.Module], nn.Module]] = []
    if isinstance(observation, MixedTable):
        columns = observation.columns
        layers.append(lambda net: OneHot(net, columns))
        plan = OneHot(nn.Identity(), columns)
        event, which = (plan.width,), plan.firsts
    elif isinstance(observation, Counts):
        layers.append(Log1p)
    head = hold(facts, observation, head)
    if facts.missing:
        observation, head = observation.masked(tuple(facts.shape)), head if isinstance(head, Masked) else Masked(head)
        dims, shown = len(event), which
        layers.append(lambda net: WithMask(net, dims, shown))
        event = (event[0] + (event[0] if which is None else len(which)), *event[1:])

    def wrap(net: nn.Module) -> nn.Module:
        for layer in reversed(layers):
            net = layer(net)
        return net

    return Dress(observation, head, event, wrap)
