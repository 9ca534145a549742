"""A posterior over sequences of codes: each code is drawn with a probability that falls with its entry's distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekit.densities.drawing import Drawn
from vaekit.densities.special import at_least_single
from vaekit.noise import Noise

if TYPE_CHECKING:
    from .quantisers import Quantiser


class Draws(NamedTuple):
    """Codes drawn from a `StochasticCodes`: P = vectors * stages codes per example, K values of a code."""

    codes: Tensor  # (K?, B, P) int64
    chosen: Tensor  # (K?, B, P, K): one-hot, with the gradient of `straight_through`
    log_q: Tensor  # (K?, B, P, K): log q of every value of a code, given the codes of the stages before it
    z: Tensor  # (K?, B, P * dim): the entries


def straight_through(log_q: Tensor, codes: Tensor) -> Tensor:
    r"""One-hot vectors of drawn codes with the gradient of ReinMax (Liu et al. 2023, arXiv:2304.08612, algorithm 2).

    With probabilities q and the one-hot draw d, the gradient is that of

        2 softmax(log((d + q) / 2) - sg(log q) + log q) - q / 2,

    whose first argument is held at its value: a second-order approximation (Heun's method) of the gradient of the
    expectation of a function of d; it is exact in expectation for quadratic functions of one code. The
    straight-through estimator, the gradient of q, is the first-order one.

    Arguments:
        log_q: (..., K), normalised.
        codes: (...), drawn from it.
    """
    q = log_q.exp()
    drawn = F.one_hot(codes, log_q.shape[-1]).to(q.dtype)
    if not torch.is_grad_enabled():
        return drawn
    middle = torch.softmax(torch.log((drawn + q) / 2).detach() + (log_q - log_q.detach()), -1)
    surrogate = 2 * middle - q / 2
    return drawn + (surrogate - surrogate.detach())


class StochasticCodes(Drawn):
    r"""q(c | x) of sequences of codes: batch (B,), event (P * dim,), the entries of the codes.

    The code at a position has the entry v_k of its codebook with probability

        q(c = k | x) = exp(-|e - v_k|^2 / (2 s^2)) / sum_l exp(-|e - v_l|^2 / (2 s^2))

    (Takida et al. 2022, arXiv:2205.07547), so that the nearest entry is the most probable, and s -> 0 is the
    deterministic posterior. Positions are independent. With several stages, e is what the entries drawn at the stages
    before leave of it.

    Arguments:
        encoded: the encoder's vectors, (B, T, dim).
        quantiser: has the codebooks, and the distances.
        log_scale: (stages,): log s.
    """

    def __init__(self, encoded: Tensor, quantiser: Quantiser, log_scale: Tensor):
        self.encoded, self.quantiser = quantiser.placed(at_least_single(encoded)), quantiser
        self.log_scale = log_scale
        self.tables = quantiser.tables()
        super().__init__(encoded.shape[:-2], encoded.shape[-2] * quantiser.stages * quantiser.dim)

    def _log_q(self, e: Tensor, stage: int) -> Tensor:
        """log q of every value of a stage's codes, (..., T, K), given what is left of the vectors (..., T, dim)."""
        with torch.autocast(e.device.type, enabled=False):
            table = self.tables[stage].to(e.dtype)
            weighted = table * self.quantiser.metric.to(e.dtype)
            nearness = e @ weighted.T - (weighted * table).sum(-1) / 2  # without |e|^2, which all entries share
            return torch.log_softmax(nearness * torch.exp(-2 * self.log_scale[stage].to(e.dtype)), -1)

    @property
    def codes(self) -> Tensor:
        """The most probable codes (B, P): stage by stage, the nearest entries."""
        e, codes = self.encoded, []
        for stage, table in enumerate(self.tables):
            codes.append(self._log_q(e, stage).argmax(-1))
            e = e - F.embedding(codes[-1], table.to(e.dtype))
        return torch.stack(codes, -1).flatten(-2)

    @property
    def mean(self) -> Tensor:
        """The entries of the most probable codes, (B, P * dim): the mean of codes would be the entry of none."""
        return self.quantiser.lookup(self.codes).flatten(-2)

    def draws(self, noise: Noise, k: int | None = None) -> Draws:
        """Codes by inversion of each code's distribution, with what the ELBO and its gradient need."""
        e = self.encoded
        u = noise.uniform((*e.shape[-2:-1], len(self.tables)), k).to(e.dtype)
        stages: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for stage, table in enumerate(self.tables):
            log_q = self._log_q(e, stage)
            sums = log_q.detach().exp().cumsum(-1)
            codes = (sums <= u[..., stage, None] * sums[..., -1:]).sum(-1).clamp(max=self.quantiser.codes - 1)
            log_q = log_q.expand(*codes.shape, log_q.shape[-1])
            chosen = straight_through(log_q, codes)
            if torch.is_grad_enabled():
                with torch.autocast(e.device.type, enabled=False):
                    entries = chosen @ table.to(e.dtype)
            else:
                entries = F.embedding(codes, table.to(e.dtype))
            stages.append((codes, chosen, log_q, entries))
            e = e - entries
        codes, chosen, log_q, entries = (torch.stack(parts, u.dim() - 1) for parts in zip(*stages, strict=True))
        return Draws(codes.flatten(-2), chosen.flatten(-3, -2), log_q.flatten(-3, -2), entries.flatten(-3))

    def drawn_codes(self, noise: Noise) -> Tensor:
        """Codes (B, P) drawn with this noise."""
        return self.draws(noise).codes

    def _drawn(self, noise: Noise, k: int | None) -> tuple[Tensor, Tensor]:
        drawn = self.draws(noise, k)
        return drawn.z, log_prob_of(drawn.log_q, drawn.codes)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q of the codes whose entries are `value` (K?, B, P * dim); -inf for other vectors."""
        z = value.unflatten(-1, (-1, self.quantiser.dim))  # (K?, B, P, dim)
        codes = self.quantiser.nearest(z)
        entries = self.quantiser.lookup(codes).to(z.dtype)
        # a draw is a product with a one-hot vector, which may differ from the entry in the last bits
        matches = ((z.detach() - entries).abs() <= 1e-5 * (1 + entries.abs())).all(-1).all(-1)
        log_q = log_prob_of(self.log_q_at(codes), codes)
        return torch.where(matches, log_q, -math.inf)

    def log_q_at(self, codes: Tensor) -> Tensor:
        """log q of every value of a code, (K?, B, P, K), given those of the stages before in `codes` (K?, B, P)."""
        by_stage = codes.unflatten(-1, (-1, len(self.tables))).unbind(-1)
        parts = [self.log_q_of_stage(by_stage[:stage]) for stage in range(len(self.tables))]
        return torch.stack([p.expand(*by_stage[0].shape, -1) for p in parts], codes.dim()).flatten(-3, -2)

    def log_q_of_stage(self, before: Sequence[Tensor]) -> Tensor:
        """log q of every value of the codes of a stage, (K?, B, T, K), given those of each stage before, (K?, B, T)."""
        e = self.encoded
        for codes, table in zip(before, self.tables, strict=False):
            e = e - F.embedding(codes, table.to(e.dtype))
        return self._log_q(e, len(before))


def log_prob_of(log_q: Tensor, codes: Tensor) -> Tensor:
    """The sum over positions of log q (..., P, K) at codes (..., P): (...)."""
    return log_q.gather(-1, codes[..., None]).sum((-2, -1))
