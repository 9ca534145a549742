"""Data of quantised VAEs: their codes with the prior P(c), then x with p(x | c). No bits come back.

The encoder chooses one sequence of codes, so a datum costs -log P(c) - log p(x | c), its negative ELBO.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaekit.densities import Categorical
from vaekit.models.quantised import Coded, CodePrior
from vaekit.models.vae import VAE

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


class Quantised(Scheme):
    """A VAE whose posterior is one sequence of codes."""

    def __init__(self, model: VAE, exact: VAE, tolerance: float = TOLERANCE):
        super().__init__(model, exact, tolerance)
        assert isinstance(model.prior, CodePrior)
        assert isinstance(exact.prior, CodePrior)
        self.net, self.quantiser = model.prior.net, exact.prior.quantiser
        size = self.net.positions, self.quantiser.codes

        def density(raw: Tensor) -> Distribution:
            return Independent(Categorical(raw.unflatten(-1, size), validate_args=False), 1, validate_args=False)

        group = np.zeros(size[0] * size[1], np.int64)
        self.codes = Rounded("prior", lambda codes: self.net(codes).flatten(1), density, group, tolerance)
        self.networks["prior"] = self.codes

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

    def decode(self, stack: Stack, batch: Batch) -> Integers:
        shift = self.codes.shifts.pop(stack, len(batch))
        grid = Grid(np.full(self.quantiser.codes, self.codes.exponents[0]), self.tolerance)

        def choose(i: int, logits: Tensor) -> Tensor:
            rounded = grid(self.codes.change(logits.double()), shift)
            return torch.from_numpy(_step(rounded).pop(stack))

        codes = self.net.generate(len(batch), choose)
        return self.px.take(stack, self._likelihood(codes, batch), self.tables(batch))
