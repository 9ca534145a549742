"""Priors over sequences of codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.densities import _from_noise
from vaekit.densities.drawing import Tempered
from vaekit.noise import Noise

from .coded import exact, once
from .quantisers import Quantiser


class IndependentCodes(nn.Module):
    """P(codes) = prod_i P_i(c_i): a table of logits, even at the start."""

    def __init__(self, positions: int, codes: int):
        super().__init__()
        self.positions = positions
        self.logits = nn.Parameter(torch.zeros(positions, codes))

    def forward(self, codes: Tensor) -> Tensor:
        """Logits (N, positions, codes) of each code of (N, positions) given those before it."""
        return self.logits.expand(len(codes), *self.logits.shape)

    def generate(self, n: int, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """n sequences (n, positions), code by code: choose(i, logits (n, codes)) -> (n,)."""
        return torch.stack([choose(i, row.expand(n, -1)) for i, row in enumerate(self.logits)], 1)


class _Block(nn.Module):
    """A causal transformer's block: attention and a dense layer, each after a layer norm and added to its input."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dense = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, past: list[Tensor] | None = None) -> Tensor:
        """h (N, T, width); with `past` it is the one position after those whose keys and values `past` holds."""
        q, k, v = self.qkv(self.norm1(h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, T, .)
        if past is not None:
            if past:
                k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
            past[:] = [k, v]
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        h = h + self.proj(seen.transpose(1, 2).flatten(2))
        return h + self.dense(self.norm2(h))


class AutoregressiveCodes(nn.Module):
    """P(codes) = prod_i P(c_i | c_<i) by a small causal transformer (Vaswani et al. 2017) with learned positions.

    One net serves sequences and grids (row by row: the learned positions know what is above), where a PixelCNN needs
    a grid and a masked dense net positions * codes inputs. All conditionals come out of one pass in training; in
    sampling, keys and values are kept, so that a code costs one position. Even at the start: -log P = positions log
    codes.

    Arguments:
        positions: codes a datum.
        codes: how many there are.
        width: of the transformer, a multiple of `heads`.
        layers: its blocks.
        heads: of the attention.
    """

    def __init__(self, positions: int, codes: int, width: int = 64, layers: int = 2, heads: int = 4):
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads ({heads}), got {width}")
        self.positions = positions
        self.token = nn.Embedding(codes, width)
        self.first = nn.Parameter(torch.zeros(width))
        self.place = nn.Parameter(0.02 * torch.randn(positions, width))
        self.blocks = nn.ModuleList([_Block(width, heads) for _ in range(layers)])
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, codes)
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits (N, positions, codes) of each code of (N, positions) given those before it."""
        before = self.token(codes[:, :-1])
        h = torch.cat([self.first.expand(len(codes), 1, -1), before], 1) + self.place
        for block in self.blocks:
            h = block(h)
        return self.out(self.norm(h))

    def generate(self, n: int, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """n sequences (n, positions), code by code: choose(i, logits (n, codes)) -> (n,)."""
        past: list[list[Tensor]] = [[] for _ in self.blocks]
        before, found = self.first.expand(n, -1), []
        for i in range(self.positions):
            h = (before + self.place[i])[:, None]
            for block, kept in zip(self.blocks, past, strict=True):
                h = block(h, kept)
            found.append(choose(i, self.out(self.norm(h))[:, 0]))
            before = self.token(found[-1])
        return torch.stack(found, 1)


class CodeSequence(Tempered):
    """A distribution over flat quantised vectors: batch (), event (positions * dim,).

    Arguments:
        net: logits of each code given those before it.
        quantiser: turns codes into vectors and back.
        temperature: divides the logits of every code given those before it; at 0 the likeliest one is certain.
    """

    arg_constraints: ClassVar = {}

    def __init__(self, net: IndependentCodes | AutoregressiveCodes, quantiser: Quantiser, temperature: float = 1.0):
        self.net, self.quantiser, self.temperature = net, quantiser, temperature
        super().__init__(torch.Size(), torch.Size((net.positions * quantiser.dim,)), validate_args=False)

    def tempered(self, temperature: float) -> CodeSequence:
        """The same with all logits divided by `temperature`."""
        return CodeSequence(self.net, self.quantiser, temperature)

    def _log_shares(self, logits: Tensor) -> Tensor:
        """log P of each code, (..., codes), in float32 at least."""
        logits = exact(logits)
        if self.temperature == 0:
            likeliest = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
            return torch.log(likeliest)
        return torch.log_softmax(logits / self.temperature, -1)

    def log_prob_of(self, codes: Tensor) -> Tensor:
        """log P of sequences (..., positions): (...)."""
        shares = self._log_shares(self.net(codes.reshape(-1, self.net.positions)))
        return shares.gather(-1, codes.reshape(-1, self.net.positions, 1)).sum((-2, -1)).reshape(codes.shape[:-1])

    def log_prob(self, value: Tensor) -> Tensor:
        """log P of the codes nearest to flat vectors (..., positions * dim). No gradient goes to them."""

        def of(z: Tensor) -> Tensor:
            return self.log_prob_of(self.quantiser.nearest(z.unflatten(-1, (self.net.positions, self.quantiser.dim))))

        return once(of, value)

    @torch.no_grad()
    def sample_codes(self, u: Tensor) -> Tensor:
        """Sequences (n, positions) from uniform numbers of that shape, by inverting each code's distribution."""

        def choose(i: int, logits: Tensor) -> Tensor:
            if self.temperature == 0:
                return logits.argmax(-1)
            sums = self._log_shares(logits).exp().cumsum(-1)
            return (sums <= u[:, i, None] * sums[:, -1:]).sum(-1).clamp(max=logits.shape[-1] - 1)

        return self.net.generate(len(u), choose)


@_from_noise.register
def _(d: CodeSequence, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
    u = noise.uniform((d.net.positions,), k)
    codes = d.sample_codes(u.flatten(0, -2))
    return d.quantiser.lookup(codes).flatten(-2).reshape(*u.shape[:-1], -1)


class CodePrior(nn.Module):
    """p(z) of a quantised VAE: `net` says the codes' probabilities, the encoder's own `quantiser` their vectors.

    The quantiser is a part of the encoder, and here is only looked into: registered under two names its parameters
    would not be put back by torch's `functional_call`, which swaps them name by name.
    """

    def __init__(self, net: IndependentCodes | AutoregressiveCodes, quantiser: Quantiser):
        super().__init__()
        self.net = net
        self._of_encoder = (quantiser,)  # in a tuple, so that it is not registered

    @property
    def quantiser(self) -> Quantiser:
        return self._of_encoder[0]

    def forward(self, *given: Tensor) -> CodeSequence:
        return CodeSequence(self.net, self.quantiser)
