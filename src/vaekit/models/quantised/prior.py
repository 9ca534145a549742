"""Priors over sequences of codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.densities.drawing import Tempered
from vaekit.densities.special import at_least_single
from vaekit.networks.masked import MaskedLinear
from vaekit.noise import Noise
from vaekit.utils.arguments import Knob
from vaekit.utils.register import Builder, Register

from .coded import once
from .quantisers import Quantiser

CODE_PRIORS = Register("code prior", {"positions": "codes per example", "codes": "number of different codes"})
"""The priors over sequences of codes by name."""


def code_prior(name: str, paper: str) -> Callable[[Builder], Builder]:
    """Register a network that gives the logits of each code from those before it as the code prior `name`.

    It is given `positions`, the codes per example, and `codes`, the number of different codes, and has the methods of
    `IndependentCodes`. Its parameters annotated with a `Knob` are its options.

    Arguments:
        name: its name on the command line.
        paper: its source.
    """
    return CODE_PRIORS.add(name, paper)


@code_prior("independent", "van den Oord et al. 2017, arXiv:1711.00937")
class IndependentCodes(nn.Module):
    """P(codes) = prod_i P_i(c_i), a learned table of logits; uniform at the start."""

    def __init__(self, positions: int, codes: int):
        super().__init__()
        self.positions = positions
        self.logits = nn.Parameter(torch.zeros(positions, codes))

    def forward(self, codes: Tensor) -> Tensor:
        """Logits (N, positions, codes) of each code of (N, positions), or of one-hot (N, positions, codes)."""
        return self.logits.expand(len(codes), *self.logits.shape)

    def generate(self, n: int, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """n sequences (n, positions), code by code: choose(i, logits (n, codes)) -> (n,)."""
        return torch.stack([choose(i, row.expand(n, -1)) for i, row in enumerate(self.logits)], 1)


class _Block(nn.Module):
    """A block of a causal transformer: attention and a dense layer, both pre-norm and residual."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dense = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, past: list[Tensor] | None = None) -> Tensor:
        """h is (N, T, width); with `past`, keys and values of the earlier positions, T = 1 and `past` is extended."""
        q, k, v = self.qkv(self.norm1(h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, T, .)
        if past is not None:
            if past:
                k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
            past[:] = [k, v]
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        h = h + self.proj(attended.transpose(1, 2).flatten(2))
        return h + self.dense(self.norm2(h))


@code_prior("autoregressive", "van den Oord et al. 2017, arXiv:1711.00937; Vaswani et al. 2017, arXiv:1706.03762")
class AutoregressiveCodes(nn.Module):
    """P(codes) = prod_i P(c_i | c_<i) by a small causal transformer (Vaswani et al. 2017) with learned positions.

    For sequences and for grids, row by row. Training computes all conditionals in one pass; sampling caches keys and
    values. It is uniform at the start: -log P = positions log codes.

    Arguments:
        positions: codes per example.
        codes: number of different codes.
        width: of the transformer, a multiple of `heads`.
        layers: number of blocks.
        heads: of the attention.
    """

    def __init__(
        self,
        positions: int,
        codes: int,
        width: Annotated[int, Knob("width of the prior's network", low=1)] = 64,
        layers: Annotated[int, Knob("blocks of the prior's transformer", low=1)] = 2,
        heads: int = 4,
    ):
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
        """Logits (N, positions, codes) of each code of (N, positions), or one-hot, given those before it."""
        before = codes[:, :-1] @ self.token.weight if codes.is_floating_point() else self.token(codes[:, :-1])
        h = torch.cat([self.first.expand(len(codes), 1, -1), before], 1) + self.place
        for block in self.blocks:
            h = block(h)
        return self.out(self.norm(h))

    def generate(self, n: int, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """n sequences (n, positions), code by code: choose(i, logits (n, codes)) -> (n,)."""
        past: list[list[Tensor]] = [[] for _ in self.blocks]
        before, codes = self.first.expand(n, -1), []
        for i in range(self.positions):
            h = (before + self.place[i])[:, None]
            for block, kept in zip(self.blocks, past, strict=True):
                h = block(h, kept)
            codes.append(choose(i, self.out(self.norm(h))[:, 0]))
            before = self.token(codes[-1])
        return torch.stack(codes, 1)


@code_prior("masked", "Germain et al. 2015, arXiv:1502.03509")
class MaskedCodes(nn.Module):
    """P(codes) = prod_i P(c_i | c_<i) by one hidden layer whose weights are masked (MADE, Germain et al. 2015).

    A step takes a fraction of the time of a transformer's; each code has its own weights for every earlier position, so
    it suits tens of positions. It is uniform at the start.

    Arguments:
        positions: codes per example.
        codes: number of different codes.
        width: hidden units, spread evenly over the positions; a unit at position i sees the codes before i.
    """

    def __init__(
        self,
        positions: int,
        codes: int,
        width: Annotated[int, Knob("width of the prior's network", low=1)] = 128,
    ):
        super().__init__()
        self.positions, self.codes = positions, codes
        unit = torch.arange(width) % max(positions - 1, 1) + 1
        place = torch.arange(positions).repeat_interleave(codes)
        self.first, self.last = MaskedLinear(place[None] < unit[:, None]), MaskedLinear(unit[None] <= place[:, None])
        nn.init.zeros_(self.last.weight)
        with torch.no_grad():
            self.first.weight.mul_(codes**0.5)  # of the inputs of a position, one is 1 and the others are 0

    def forward(self, codes: Tensor) -> Tensor:
        """Logits (N, positions, codes) of each code of (N, positions), or one-hot, given those before it."""
        chosen = codes if codes.is_floating_point() else F.one_hot(codes, self.codes).to(self.first.weight.dtype)
        return self.last(F.silu(self.first(chosen.flatten(1)))).unflatten(1, (self.positions, self.codes))

    def generate(self, n: int, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """n sequences (n, positions), code by code: choose(i, logits (n, codes)) -> (n,)."""
        seen, codes = self.first.bias.expand(n, -1), []
        weight = (self.first.weight * self.first.mask).T
        for i in range(self.positions):
            at = slice(i * self.codes, (i + 1) * self.codes)
            codes.append(choose(i, self.last(F.silu(seen), at)))
            seen = seen + F.embedding(codes[-1], weight[at])
        return torch.stack(codes, 1)


CodeNet = IndependentCodes | AutoregressiveCodes | MaskedCodes


class CodeSequence(Tempered):
    """A distribution over flat quantised vectors: batch (), event (positions * dim,).

    Arguments:
        net: logits of each code given those before it.
        quantiser: turns codes into vectors and back.
        temperature: divides the logits of each conditional; at 0 the most probable code is certain.
    """

    arg_constraints: ClassVar = {}

    def __init__(self, net: CodeNet, quantiser: Quantiser, temperature: float = 1.0):
        self.net, self.quantiser, self.temperature = net, quantiser, temperature
        super().__init__(torch.Size(), torch.Size((net.positions * quantiser.dim,)), validate_args=False)

    def tempered(self, temperature: float) -> CodeSequence:
        """The same distribution with all logits divided by `temperature`."""
        return CodeSequence(self.net, self.quantiser, temperature)

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        """log P of each code, (..., codes), at least in float32."""
        logits = at_least_single(logits)
        if self.temperature == 0:
            likeliest = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
            return torch.log(likeliest)
        return torch.log_softmax(logits if self.temperature == 1 else logits / self.temperature, -1)

    def log_p_after(self, chosen: Tensor) -> Tensor:
        """log P of every value of a code given those before, (..., positions, codes), for one-hot codes of that shape.

        The gradient reaches the codes before, as far as their one-hot vectors carry one.
        """
        return self._log_probabilities(self.net(chosen.flatten(0, -3))).reshape(chosen.shape)

    def log_prob_of(self, codes: Tensor) -> Tensor:
        """log P of sequences (..., positions): (...)."""
        log_p = self._log_probabilities(self.net(codes.reshape(-1, self.net.positions)))
        return log_p.gather(-1, codes.reshape(-1, self.net.positions, 1)).sum((-2, -1)).reshape(codes.shape[:-1])

    def log_prob(self, value: Tensor) -> Tensor:
        """log P of the codes nearest to flat vectors (..., positions * dim), without gradient for the vectors."""

        def of(z: Tensor) -> Tensor:
            return self.log_prob_of(self.quantiser.nearest(z.unflatten(-1, (self.net.positions, self.quantiser.dim))))

        return once(of, value)

    @torch.no_grad()
    def sample_codes(self, u: Tensor) -> Tensor:
        """Sequences (n, positions) from uniform numbers of that shape, by inverting each code's distribution."""

        def choose(i: int, logits: Tensor) -> Tensor:
            if self.temperature == 0:
                return logits.argmax(-1)
            sums = self._log_probabilities(logits).exp().cumsum(-1)
            return (sums <= u[:, i, None] * sums[:, -1:]).sum(-1).clamp(max=logits.shape[-1] - 1)

        return self.net.generate(len(u), choose)

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        u = noise.uniform((self.net.positions,), k)
        codes = self.sample_codes(u.flatten(0, -2))
        return self.quantiser.lookup(codes).flatten(-2).reshape(*u.shape[:-1], -1)


class CodePrior(nn.Module):
    """p(z) of a quantised VAE: `net` gives the probabilities of codes, the encoder's `quantiser` their vectors.

    The quantiser belongs to the encoder and is not registered here: torch's `functional_call` would not restore
    parameters that are registered under two names.
    """

    def __init__(self, net: CodeNet, quantiser: Quantiser):
        super().__init__()
        self.net = net
        self._of_encoder = (quantiser,)  # in a tuple, so that it is not registered

    @property
    def quantiser(self) -> Quantiser:
        """The encoder's quantiser."""
        return self._of_encoder[0]

    def forward(self, *given: Tensor) -> CodeSequence:
        return CodeSequence(self.net, self.quantiser)
