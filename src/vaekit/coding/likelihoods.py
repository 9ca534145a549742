"""The tables of likelihoods: the cumulative probabilities of each discrete density of x."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, constraints

from vaekit.densities import Categorical, DiscretisedLogistic, LogisticMixture, NegativeBinomial, Poisson
from vaekit.densities import ZeroInflatedNegativeBinomial as ZeroInflated
from vaekit.densities.autoregressive import Autoregressive
from vaekit.densities.levels import chances
from vaekit.densities.mixed import Marginal, Mixed
from vaekit.errors import ChoiceError

from .ans import Integers
from .rounding import TOLERANCE, Bools, Grid
from .tables import GUARD, Below, Columns, Flat, Numbers, Step, Tabled

DIGIT = 8
"""Counts are coded in digits of 8 bits, so that tables do not grow with them."""
COUNT_GUARD = 2.0**-36
"""The largest relative difference of a tail of the density of counts up to a million, which grows as their root: those
of SciPy are right to 2^-41 there."""
NEARLY, LARGE = 2.0**46, 11.0
"""Above e^LARGE, Poisson tails are those of a negative binomial with this inverse dispersion, which differ by less than
2^-16: SciPy's own have too few terms there."""
LEVEL = 2.0**-7
"""The part of the tail beyond an interval of counts below which its values are uniform: there the density falls by
about this part over the interval, which costs LEVEL^2 / 24 nats, and a difference of tails would lose its digits."""
VANISHING = 1e-250
"""The tail below which the same holds, because it loses digits."""
FINE, SPARE = -12, 14
"""The exponents of the grids of a network that is evaluated column by column: of their step, and of the least step
relative to the tolerance."""

Change = Callable[[Tensor], Tensor]


def coded(
    px: Distribution,
    missing: Bools,
    top: int,
    shift: Integers | None = None,
    tolerance: float = TOLERANCE,
    change: Change = lambda raw: raw,
) -> Tabled:
    """The tables of a density of B data.

    Arguments:
        px: batch shape (B,), float64.
        missing: (B, n) the elements that are not coded because they are missing.
        top: the largest count.
        shift, tolerance, change: (B,) the shifts, and as of `Rounded`, for a density that evaluates a network.

    Raises:
        ChoiceError: the density is not discrete, or has no tables.
    """
    if isinstance(px, Autoregressive):
        none = np.zeros(len(missing), np.int64)
        return Rows(px, missing, top, none if shift is None else shift, tolerance, change)
    if isinstance(px, Marginal):
        held = px.held
        return _of_whole(px.whole, missing if held is None else missing | ~np.isnan(held.reshape(-1).numpy()), top)
    return _of_whole(px, missing, top)


def _of_whole(px: Distribution, known: Bools, top: int) -> Tabled:
    """The tables of a density, except of the elements that are known."""
    if isinstance(px, Mixed):
        return Columns([(which.numpy(), _elements(d, known[:, which.numpy()], top)) for which, d in px.parts])
    if isinstance(px, LogisticMixture):
        return Mixture(px, known)
    if isinstance(px, Independent) and not px.base_dist.event_shape:
        return _elements(px.base_dist, known, top)
    raise ChoiceError(f"the density {type(px).__name__} of this run has no tables of probabilities to code with")


def _elements(d: Distribution, known: Bools, top: int) -> Tabled:
    """The tables of independent elements: batch shape (B, *event)."""
    if known.all():
        return Nothing(*known.shape)
    if isinstance(d, Poisson | NegativeBinomial | ZeroInflated):
        return Digits(d, known, top)
    return Finite(d, known)


class Nothing(Flat):
    """Elements that are all known, of any density: they cost nothing."""

    def __init__(self, rows: int, size: int):
        super().__init__(rows)
        self.size = size

    def step(self, i: int, known: Sequence[Integers]) -> Step:
        certain = np.ones(self.rows * self.size, np.bool_)
        return Step(lambda k, at: np.zeros(len(k)), 2, len(certain), certain=certain)

    def split(self, x: Integers) -> list[Integers]:
        return [np.zeros(self.rows * self.size, np.int64)]


def _numbers(t: Tensor, shape: Sequence[int]) -> Numbers:
    """A parameter, expanded to this shape and flattened, as NumPy array."""
    flat: Numbers = t.detach().double().expand(*shape).reshape(-1).numpy()
    return flat


class Finite(Flat):
    """Elements with K values: binary, categorical, levels, or any density whose support is 0 .. K - 1."""

    def __init__(self, d: Distribution, known: Bools):
        super().__init__(len(known), known)
        below, outcomes, looked_up = _below(d)
        self._step = Step(below, outcomes, known.size, certain=self.certain, looked_up=looked_up)

    def step(self, i: int, known: Sequence[Integers]) -> Step:
        return self._step


def _below(d: Distribution) -> tuple[Below, int, bool]:
    """The cumulative probabilities of elements, flattened, the number of values, and whether they are looked up."""
    from scipy.special import expit

    if isinstance(d, DiscretisedLogistic):
        loc, inverse = _numbers(d.loc, d.batch_shape), np.exp(-_numbers(d.log_scale, d.batch_shape))
        return lambda k, at: expit((k - 0.5 - loc[at]) * inverse[at]), d.levels, False
    if isinstance(d, Bernoulli):
        zero = expit(-_numbers(d.logits, d.batch_shape))
        return lambda k, at: np.where(k > 0, zero[at], 0.0), 2, True
    if isinstance(d, Categorical):
        share = chances(d.logits.double())
    else:
        size = _outcomes(d)
        values = torch.arange(size, dtype=torch.float64).view(-1, *[1] * len(d.batch_shape))
        share = torch.exp(d.log_prob(values.expand(size, *d.batch_shape)).double()).movedim(0, -1)
    total = share.cumsum(-1).reshape(-1, share.shape[-1]).numpy()
    total = total / total[:, -1:]
    return lambda k, at: np.where(k > 0, total[at, np.maximum(k, 1) - 1], 0.0), share.shape[-1], True


def _outcomes(d: Distribution) -> int:
    """The number K of values of a density on 0 .. K - 1."""
    support = d.support
    if support is constraints.boolean:
        return 2
    if isinstance(support, type(constraints.integer_interval(0, 1))) and int(support.lower_bound) == 0:
        return int(support.upper_bound) + 1
    raise ChoiceError(
        f"the density {type(d).__name__} is not one of finitely many whole numbers from 0: only discrete likelihoods "
        "have a size in bytes"
    )


def _digits(top: int) -> int:
    """The number of digits of counts up to `top`."""
    return max(1, -(-int(top).bit_length() // DIGIT))


def _split(x: Integers, count: int) -> list[Integers]:
    """The digits of whole numbers, the highest first."""
    lower = [x >> (DIGIT * place) & ((1 << DIGIT) - 1) for place in reversed(range(count - 1))]
    return [x >> (DIGIT * (count - 1)), *lower]


def _joined(digits: Sequence[Integers], size: int) -> Integers:
    """The inverse of `_split`: (size,)."""
    value = np.zeros(size, np.int64)
    for digit in digits:
        value = (value << DIGIT) + digit
    return value


class Digits(Tabled):
    """Counts, in digits to the base 256, the highest first, from their cumulative distribution function.

    A digit after the first divides an interval by differences of a tail. The smaller one is taken, which keeps its
    digits, and where the interval is a small part of it, its values are uniform; see `LEVEL`.
    """

    def __init__(self, d: Distribution, known: Bools, top: int):
        self.rows, self.known = len(known), known.ravel()
        self.count, self.top, self.tails = _digits(top), top, _tails(d)

    def split(self, x: Integers) -> list[Integers]:
        return _split(np.where(self.known, 0, x.ravel()), self.count)

    def join(self, symbols: Sequence[Integers]) -> Integers:
        return _joined(symbols, len(self.known)).reshape(self.rows, -1)

    def step(self, i: int, known: Sequence[Integers]) -> Step:
        width = 1 << DIGIT * (self.count - 1 - i)
        outcomes = (self.top // width) + 1 if i == 0 else 1 << DIGIT
        first = _joined(known[:i], len(self.known)) * (width << DIGIT)
        everywhere, inner = np.arange(len(first)), first > 0
        below, above = self.tails(first, everywhere, inner)
        below_end, above_end = self.tails(first + outcomes * width, everywhere, inner)
        upper = above < below
        mass = np.where(upper, above - above_end, below_end - below)
        tail = np.where(upper, above, below_end)
        flat = (mass < LEVEL * tail) | (tail < VANISHING)
        share = np.where(flat, 1.0, mass)

        def under(k: Integers, at: Integers) -> Numbers:
            lower, higher = self.tails(first[at] + k * width, at, inner[at], upper[at])
            part = np.where(upper[at], above[at] - higher, lower - below[at]) / share[at]
            return np.clip(np.where(flat[at], k / outcomes, part), 0, 1)

        growth = np.maximum(1, np.sqrt(first + outcomes * width) / 1024)
        guard = np.where(flat, GUARD, COUNT_GUARD * growth * tail / share)
        unclear = (np.abs(mass / np.maximum(tail, VANISHING) - LEVEL) < LEVEL * 2.0**-20) & (tail >= VANISHING)
        unclear |= (np.abs(tail / VANISHING - 1) < 2.0**-20) | (inner & (np.abs(above - below) < 2.0**-20))
        return Step(under, outcomes, len(first), certain=self.known, guard=guard, unclear=unclear, ways=4)


def _tail(k: Numbers, r: Numbers, stay: Numbers, rise: Numbers, above: bool) -> Numbers:
    """P(x >= k) if `above`, else P(x < k), of a negative binomial: by the smaller of m / (r + m) and r / (r + m).

    The larger may be so near to 1 that its last bit is much of the smaller.
    """
    from scipy.special import betainc, betaincc

    found, swap = np.empty_like(k), rise < stay
    for which, a, b, p in ((~swap, r, k, stay), (swap, k, r, rise)):
        tail = betainc if (p is rise) == above else betaincc
        found[which] = tail(a[which], b[which], p[which])
    return found


Tails = Callable[..., tuple[Numbers, Numbers]]
"""tails(k, at, inner, upper=None) -> P(x < k) and P(x >= k) of the elements `at`, for one k each: without extra zeros
where `inner`, and if `upper` is given, only the upper one where it is True and only the lower one elsewhere."""


def _tails(d: Distribution) -> Tails:
    """Both tails of the counts of each element, flattened."""
    from scipy.special import expit, gammainc, gammaincc

    if isinstance(d, Poisson):
        log_rate = _numbers(d.log_rate, d.batch_shape)
        large, rate, extra = log_rate > LARGE, np.exp(log_rate), np.zeros_like(log_rate)
        few, many = expit(math.log(NEARLY) - log_rate), expit(log_rate - math.log(NEARLY))

        nearly = np.full_like(rate, NEARLY)

        def half(k: Numbers, at: Integers, above: bool) -> Numbers:
            found: Numbers = gammainc(k, rate[at]) if above else gammaincc(k, rate[at])
            if (some := large[at]).any():
                found[some] = _tail(k[some], nearly[at[some]], few[at[some]], many[at[some]], above)
            return found

    else:
        assert isinstance(d, NegativeBinomial | ZeroInflated)
        log_mean, log_r = (_numbers(t, d.batch_shape) for t in (d.log_mean, d.log_inverse_dispersion))
        r, stay, rise = np.exp(log_r), expit(log_r - log_mean), expit(log_mean - log_r)
        extra = expit(_numbers(d.dropout, d.batch_shape)) if isinstance(d, ZeroInflated) else np.zeros_like(r)

        def half(k: Numbers, at: Integers, above: bool) -> Numbers:
            return _tail(k, r[at], stay[at], rise[at], above)

    def tails(k: Integers, at: Integers, inner: Bools, upper: Bools | None = None) -> tuple[Numbers, Numbers]:
        some = np.maximum(k, 1).astype(np.float64)
        below, above = np.zeros(len(k)), np.ones(len(k))
        low = (k > 0) if upper is None else (k > 0) & ~upper
        high = (k > 0) if upper is None else (k > 0) & upper
        zeros = np.where(inner, 0.0, extra[at])
        below[low] = zeros[low] + (1 - zeros[low]) * half(some[low], at[low], False)
        above[high] = (1 - zeros[high]) * half(some[high], at[high], True)
        return below, above

    return tails


class Mixture(Tabled):
    """A `LogisticMixture`, channel by channel: the channels before one change the weights of the components."""

    def __init__(self, px: LogisticMixture, known: Bools):
        self.px, self.rows = px, len(known)
        self.count = 1 if px.vector else px.loc.shape[-px.space - 1]
        self.known = known.reshape(self.rows, self.count, -1)
        shape = (self.rows, -1, self.count, self.known.shape[2])
        self.loc, self.inverse = px.loc.reshape(shape), torch.exp(-px.log_scale).reshape(shape)
        self.logits = px.logits.reshape(self.rows, -1, shape[3])

    def split(self, x: Integers) -> list[Integers]:
        channels = np.where(self.known, 0, x.reshape(self.known.shape))
        return [channels[:, c].ravel() for c in range(self.count)]

    def join(self, symbols: Sequence[Integers]) -> Integers:
        return np.stack([s.reshape(self.rows, -1) for s in symbols], 1).reshape(self.rows, -1)

    def step(self, i: int, known: Sequence[Integers]) -> Step:
        from scipy.special import expit

        logits = self.logits
        for c, symbols in enumerate(known[:i]):
            value = torch.from_numpy(symbols).double().reshape(self.rows, 1, -1)
            scale = -torch.log(self.inverse[:, :, c])
            each = DiscretisedLogistic(self.loc[:, :, c], scale, self.px.levels, validate_args=False).log_prob(value)
            logits = logits + torch.where(torch.from_numpy(self.known[:, None, c]), 0.0, each)
        weight, loc, inverse = (
            t.movedim(1, 0).reshape(t.shape[1], -1).numpy()
            for t in (torch.softmax(logits, 1), self.loc[:, :, i], self.inverse[:, :, i])
        )

        def below(k: Integers, at: Integers) -> Numbers:
            found: Numbers = (weight[:, at] * expit((k - 0.5 - loc[:, at]) * inverse[:, at])).sum(0)
            return found

        return Step(below, self.px.levels, loc.shape[1], certain=self.known[:, i].ravel())


class Rows(Tabled):
    """An `Autoregressive` density of the rows of a table, column by column.

    The outputs of its network are rounded to a grid with the shifts of the data, as those of all networks.
    """

    def __init__(self, px: Autoregressive, missing: Bools, top: int, shift: Integers, tolerance: float, change: Change):
        self.px, self.missing, self.top, self.rows = px, missing, top, len(missing)
        self.shift, self.tolerance, self.change = shift, tolerance, change
        self.order, held = px.conditionals.order, px.conditionals.held
        self.held = np.full(len(self.order), np.nan) if held is None else held.double().numpy()
        counts = self._parts_of_counts()
        vary = [j for j in self.order if np.isnan(self.held[j])]
        steps = [(j, place) for j in vary for place in range(_digits(top) if j in counts else 1)]
        self.steps, self.count = steps, len(steps)

    def _parts_of_counts(self) -> set[int]:
        """The columns of counts."""
        nothing = torch.full((1, len(self.order)), torch.nan, dtype=torch.float64)
        parts = self.px.conditionals.given(self.px.context[:1], nothing).parts
        return {int(j) for which, d in parts if isinstance(d, NegativeBinomial) for j in which}

    def _symbols(self, j: int, symbols: Sequence[Integers]) -> list[Integers]:
        """The symbols of column j among those of the first steps."""
        return [s for (column, _), s in zip(self.steps, symbols, strict=False) if column == j]

    def _column(self, j: int, symbols: Sequence[Integers]) -> tuple[Tabled, Bools]:
        """The tables of column j given the symbols of the columns before it, and the rows that are clear, (B,)."""
        conditionals, seen = self.px.conditionals, self.px.context.new_zeros(())
        for before in self.order[: self.order.index(j)]:
            value = _joined(self._symbols(before, symbols), self.rows).astype(np.float64)
            value = value if np.isnan(self.held[before]) else np.full_like(value, self.held[before])
            value = np.where(self.missing[:, before], np.nan, value)
            seen = seen + conditionals.seen(torch.from_numpy(value)[:, None], before)
        raw = self.change(conditionals.raw_of(self.px.context, seen, j))
        step = max(FINE, math.ceil(math.log2(self.tolerance)) + SPARE)
        grid = Grid(np.full(raw.shape[-1], step), self.tolerance)
        density = conditionals.density_of(grid(raw, self.shift), j)
        known = self.missing[:, [j]] | ~np.isnan(self.held[j])
        return _elements(density, known, self.top), grid.clear(raw, self.shift)

    def step(self, i: int, known: Sequence[Integers]) -> Step:
        j, place = self.steps[i]
        tables, clear = self._column(j, known[: i - place])
        step = tables.step(place, known[i - place : i])
        step.unclear = ~clear if step.unclear is None else step.unclear | ~clear
        return step

    def split(self, x: Integers) -> list[Integers]:
        digits = {j: sum(column == j for column, _ in self.steps) for j in self.order}
        unknown = np.where(self.missing | ~np.isnan(self.held), 0, x)
        return [_split(unknown[:, j], digits[j])[place] for j, place in self.steps]

    def join(self, symbols: Sequence[Integers]) -> Integers:
        return np.stack([_joined(self._symbols(j, symbols), self.rows) for j in sorted(self.order)], 1)
