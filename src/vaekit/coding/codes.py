"""Data of quantised VAEs: their codes with the prior P(c), and x with p(x | c).

An encoder that takes the nearest entries chooses one sequence of codes, so a datum costs -log P(c) - log p(x | c), its
negative ELBO, and no bits come back. An encoder that draws codes draws them from the bits of the data coded before,
which come back: a datum costs its negative ELBO, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaekit.densities import Categorical
from vaekit.models.quantised import Coded, CodePrior, QuantisedEncoder, StochasticCodes
from vaekit.models.vae import VAE
from vaekit.noise import Key, Noise

from .ans import Integers, Stack
from .likelihoods import Finite
from .rounded import Rounded
from .rounding import TOLERANCE, Grid
from .scheme import Batch, Scheme
from .tables import Step, Tabled


class CodeByCode(Tabled):
    """Codes (B, positions), one after the other, from the logits (B, positions, codes) of all."""

    def __init__(self, logits: Tensor):
        self.logits, self.rows, self.count = logits, len(logits), logits.shape[1]

    def step(self, i: int, known: Sequence[Integers]) -> Step:
        return _step(self.logits[:, i])

    def split(self, x: Integers) -> list[Integers]:
        return list(x.T)

    def join(self, symbols: Sequence[Integers]) -> Integers:
        return np.stack(symbols, 1)


def _step(logits: Tensor) -> Step:
    """The tables of codes at one position, from logits (B, codes)."""
    return Finite(Categorical(logits, validate_args=False), np.zeros((len(logits), 1), np.bool_)).step(0, [])


def _tables(p: Distribution, shift: Integers) -> CodeByCode:
    assert isinstance(p, Independent)
    assert isinstance(p.base_dist, Categorical)
    return CodeByCode(p.base_dist.logits)


class NearestCodes(Scheme):
    """A VAE whose posterior is one sequence of codes, those of the nearest entries."""

    def __init__(self, model: VAE, exact: VAE, tolerance: float = TOLERANCE):
        super().__init__(model, exact, tolerance)
        assert isinstance(model.prior, CodePrior)
        assert isinstance(exact.prior, CodePrior)
        self.net, self.quantiser = model.prior.net, exact.prior.quantiser
        size = self.net.positions, self.quantiser.codes

        self.codes = self._rounded("prior", lambda codes: self.net(codes).flatten(1), size)

    def _rounded(self, name: str, net: Callable[[Tensor], Tensor], size: tuple[int, int]) -> Rounded:
        """The network of the logits of so many (codes, values of a code)."""

        def density(raw: Tensor) -> Distribution:
            return Independent(Categorical(raw.unflatten(-1, size), validate_args=False), 1, validate_args=False)

        group = np.zeros(size[0] * size[1], np.int64)
        self.networks[name] = Rounded(name, net, density, group, self.tolerance)
        return self.networks[name]

    @property
    def drawn(self) -> int:
        return 0

    def fit(self, x: Tensor, batch: Batch) -> None:
        """Codes have no bins."""

    def _codes_of(self, x: Tensor, batch: Batch) -> Tensor:
        q = self.exact.posterior(*(g for g in (x, batch.c) if g is not None))
        assert isinstance(q, Coded)
        return q.codes

    def _likelihood(self, codes: Tensor, batch: Batch) -> Tensor:
        return self.px.raw(*self.given(self.quantiser.lookup(codes).flatten(-2), batch.c))

    def observed(self, x: Tensor, batch: Batch) -> Iterator[tuple[Rounded, Tensor, Tensor]]:
        codes = self._codes_of(x, batch)
        yield self.codes, self.codes.raw(codes), codes
        yield self.px, self._likelihood(codes, batch), x

    def encode(self, stack: Stack, x: Tensor, values: Integers, batch: Batch) -> None:
        codes = self._codes_of(x, batch)
        self.px.put(stack, self._likelihood(codes, batch), values, self.tables(batch))
        self.codes.put(stack, self.codes.raw(codes), codes.numpy(), _tables)

    def _pop_codes(self, stack: Stack, batch: Batch) -> Tensor:
        """The codes that were put with the prior."""
        shift = self.codes.shifts.pop(stack, len(batch))
        grid = Grid(np.full(self.quantiser.codes, self.codes.exponents[0]), self.tolerance)

        def choose(i: int, logits: Tensor) -> Tensor:
            rounded = grid(self.codes.change(logits.double()), shift)
            return torch.from_numpy(_step(rounded).pop(stack))

        return self.net.generate(len(batch), choose)

    def decode(self, stack: Stack, batch: Batch) -> Integers:
        return self.px.take(stack, self._likelihood(self._pop_codes(stack, batch), batch), self.tables(batch))


class DrawnCodes(NearestCodes):
    """A VAE whose posterior draws codes: stage by stage, given x and the codes of the stages before."""

    def __init__(self, model: VAE, exact: VAE, tolerance: float = TOLERANCE):
        super().__init__(model, exact, tolerance)
        stages = self.quantiser.stages
        size = self.net.positions // stages, self.quantiser.codes
        self.stages = [self._rounded(f"posterior {i + 1}", lambda raw: raw, size) for i in range(stages)]

    @property
    def drawn(self) -> int:
        return int(self.net.positions)

    def _posterior(self, x: Tensor, batch: Batch) -> StochasticCodes:
        q = self.model.posterior(*self.given(x, batch.c))
        assert isinstance(q, StochasticCodes)
        return q

    def _raw(self, q: StochasticCodes, i: int, before: Sequence[Tensor]) -> Tensor:
        """The logits of the codes of stage i, (B, T * codes), given those of the stages before, (B, T) each."""
        return self.stages[i].raw(q.log_q_of_stage(before).flatten(1))

    def observed(self, x: Tensor, batch: Batch) -> Iterator[tuple[Rounded, Tensor, Tensor]]:
        q, stages = self._posterior(x, batch), len(self.stages)
        codes = q.draws(Noise.of(0, len(x), Key.CODES)).codes
        by_stage = codes.unflatten(-1, (-1, stages)).unbind(-1)
        for i, (network, chosen) in enumerate(zip(self.stages, by_stage, strict=True)):
            yield network, self._raw(q, i, by_stage[:i]), chosen
        yield self.codes, self.codes.raw(codes), codes
        yield self.px, self._likelihood(codes, batch), x

    def encode(self, stack: Stack, x: Tensor, values: Integers, batch: Batch) -> None:
        q = self._posterior(x, batch)
        drawn: list[Tensor] = []
        for i, network in enumerate(self.stages):
            drawn.append(torch.from_numpy(network.draw(stack, self._raw(q, i, drawn), _tables)))
        codes = torch.stack(drawn, -1).flatten(-2)
        self.px.put(stack, self._likelihood(codes, batch), values, self.tables(batch))
        self.codes.put(stack, self.codes.raw(codes), codes.numpy(), _tables)

    def decode(self, stack: Stack, batch: Batch) -> Integers:
        codes = self._pop_codes(stack, batch)
        values = self.px.take(stack, self._likelihood(codes, batch), self.tables(batch))
        q = self._posterior(self.x_of(values, batch), batch)
        by_stage = codes.unflatten(-1, (-1, len(self.stages))).unbind(-1)
        for i in reversed(range(len(self.stages))):
            self.stages[i].undraw(stack, self._raw(q, i, by_stage[:i]), by_stage[i].numpy(), _tables)
        return values


def quantised_scheme(model: VAE, exact: VAE, tolerance: float) -> NearestCodes:
    """The scheme of a quantised VAE."""
    posterior = exact.posterior
    assert isinstance(posterior, QuantisedEncoder)
    return (DrawnCodes if posterior.stochastic else NearestCodes)(model, exact, tolerance)
