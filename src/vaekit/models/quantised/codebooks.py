"""Further quantisers: signs, a linear map of a fixed codebook, and several stages of codebooks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.densities.special import at_least_single
from vaekit.noise import Noise

from .coded import Choice, Coded
from .quantisers import FiniteScalarQuantiser, Quantiser, VectorQuantiser, nearest_entries


class LookupFreeQuantiser(FiniteScalarQuantiser):
    r"""Lookup-free quantisation: the code is the signs of the vector (Yu et al. 2023, arXiv:2310.05737).

    The entries are the 2^bits vectors of -1 and 1, so nothing is looked up: bit i of a code is 1 where e_i > 0. The
    gradient at the entry goes to e unchanged. The penalties, equation 5 of the paper and a commitment, are

        entropy (mean_b H(q_b) - H(mean_b q_b)) + commitment |e - sg(entry)|^2,   q_b(k) ~ exp(2 e_b . v_k),

    where b runs over the batch's vectors: each vector is to be near to one entry, and all entries are to be used.
    q_b is the product over bits of sigmoid(4 e_i), so the first entropy is a sum over bits; the second is that of the
    mean over all 2^bits entries. The second depends on the whole batch, unlike all other terms of the loss.

    Arguments:
        bits: dimensions of a vector; there are 2^bits codes.
        entropy: weight of the entropies, in nats per nat.
        commitment: weight of the squared distance.
    """

    def __init__(self, bits: int = 6, entropy: float = 0.1, commitment: float = 0.25):
        if bits < 1:
            raise ValueError(f"bits must be 1 or more, got {bits}")
        super().__init__((2,) * bits)
        if not entropy >= 0 or not commitment >= 0:
            raise ValueError(f"entropy and commitment must be 0 or more, got {entropy} and {commitment}")
        self.entropy, self.commitment = entropy, commitment

    def placed(self, e: Tensor) -> Tensor:
        return e

    def forward(self, e: Tensor) -> Choice:
        e = at_least_single(e)
        bits = (e.detach() > 0).to(e.dtype)
        return Choice(self._index(bits), e, self._values(bits))

    def penalties(self, q: Coded) -> tuple[Tensor, Tensor]:
        e = q.encoded
        commitment = self.commitment * (e - q.entries.detach()).square().flatten(1).sum(1)
        if self.entropy == 0:
            return commitment, torch.zeros_like(commitment)
        on = 4 * e
        each = (F.softplus(on) - on * torch.sigmoid(on)).flatten(1).sum(1)  # the entropy of a bit with these log-odds
        table = self.tables()[0].to(e.dtype)
        mean = torch.softmax(2 * e.flatten(0, -2) @ table.T, -1).mean(0)
        total = -torch.xlogy(mean, mean).sum()
        return commitment + self.entropy * (each - e[0].numel() // self.dim * total), torch.zeros_like(commitment)


class LinearQuantiser(Quantiser):
    r"""SimVQ: the codebook is a learned linear map of fixed vectors (Zhu et al. 2024, arXiv:2411.02038).

    Entry k is W c_k, where c_k is drawn once from N(0, I) and stays as it is; W starts as the identity. A gradient at
    one entry moves all of them, so that entries that are not chosen move with those that are. The penalties are those
    of equation 3 of van den Oord et al. (2017), with W in place of the entries.

    Arguments:
        codes: number of entries.
        dim: size of an entry.
        commitment: as of `VectorQuantiser`.
    """

    fixed: Tensor

    def __init__(self, codes: int, dim: int, commitment: float = 0.25):
        super().__init__()
        if codes < 1 or dim < 1:
            raise ValueError(f"codes and dim must be 1 or more, got {codes} and {dim}")
        if not commitment >= 0:
            raise ValueError(f"commitment must be 0 or more, got {commitment}")
        self.codes, self.dim, self.commitment = codes, dim, commitment
        self.register_buffer("fixed", torch.randn(codes, dim))
        self.map = nn.Parameter(torch.eye(dim))

    @property
    def codebook(self) -> Tensor:
        """The entries, (codes, dim)."""
        with torch.autocast(self.fixed.device.type, enabled=False):
            return self.fixed @ self.map

    def tables(self) -> list[Tensor]:
        return [self.codebook]

    def nearest(self, v: Tensor) -> Tensor:
        return nearest_entries(v, self.codebook)

    def lookup(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.codebook.detach())

    def forward(self, e: Tensor) -> Choice:
        codebook = self.codebook
        codes = nearest_entries(e, codebook)
        return Choice(codes, at_least_single(e), F.embedding(codes, codebook))

    def penalties(self, q: Coded) -> tuple[Tensor, Tensor]:
        commitment = self.commitment * (q.encoded - q.entries.detach()).square().flatten(1).sum(1)
        return commitment, (q.encoded.detach() - q.entries).square().flatten(1).sum(1)


class ResidualQuantiser(Quantiser):
    r"""Residual quantisation: each stage codes what those before leave (Zeghidour et al. 2021, arXiv:2107.03312).

    r_1 = e, c_i = nearest entry of codebook i to r_i, and r_{i+1} = r_i - v_{c_i}. The latents are the entries of all
    stages, from which the codes can be read; the decoder adds those of one vector. The gradient at the sum goes to e:
    each stage passes on 1 / stages of it.

    Arguments:
        codes: entries of each codebook.
        dim: size of an entry.
        stages: codes per vector.
        decay, commitment, restart: as of `VectorQuantiser`.
    """

    def __init__(
        self,
        codes: int,
        dim: int,
        stages: int = 2,
        decay: float | None = 0.99,
        commitment: float = 0.25,
        restart: float = 0.03,
    ):
        super().__init__()
        if stages < 1:
            raise ValueError(f"stages must be 1 or more, got {stages}")
        self.codes, self.dim, self.stages = codes, dim, stages
        self.books = nn.ModuleList(VectorQuantiser(codes, dim, decay, commitment, restart) for _ in range(stages))

    @property
    def _books(self) -> list[VectorQuantiser]:
        return [book for book in self.books if isinstance(book, VectorQuantiser)]

    def tables(self) -> list[Tensor]:
        return [book.codebook for book in self._books]

    def nearest(self, v: Tensor) -> Tensor:
        parts = v.unflatten(-2, (-1, self.stages)).unbind(-2)
        return torch.stack([b.nearest(part) for b, part in zip(self._books, parts, strict=True)], -1).flatten(-2)

    def lookup(self, codes: Tensor) -> Tensor:
        parts = codes.unflatten(-1, (-1, self.stages)).unbind(-1)
        return torch.stack([b.lookup(part) for b, part in zip(self._books, parts, strict=True)], -2).flatten(-3, -2)

    def forward(self, e: Tensor) -> Choice:
        e = at_least_single(e)
        passed = (e - e.detach()) / self.stages  # 0, with the stage's share of the gradient
        left, choices = e.detach(), []
        for book in self._books:
            choice = book(left)
            choices.append(Choice(choice.codes, left + passed, choice.entries))
            left = left - choice.entries.detach()
        codes = torch.stack([c.codes for c in choices], -1).flatten(-2)
        encoded, entries = (torch.stack([c[i] for c in choices], -2).flatten(-3, -2) for i in (1, 2))
        return Choice(codes, encoded, entries)

    def _of_stages(self, q: Coded) -> list[Coded]:
        """What each stage chose."""
        codes = q.codes.unflatten(-1, (-1, self.stages)).unbind(-1)
        encoded, entries = (part.unflatten(-2, (-1, self.stages)).unbind(-2) for part in (q.encoded, q.entries))
        return [Coded(Choice(*parts)) for parts in zip(codes, encoded, entries, strict=True)]

    def penalties(self, q: Coded) -> tuple[Tensor, Tensor]:
        parts = [book.penalties(part) for book, part in zip(self._books, self._of_stages(q), strict=True)]
        commitments, codebooks = zip(*parts, strict=True)
        return torch.stack(commitments).sum(0), torch.stack(codebooks).sum(0)

    def learn(self, q: Coded, noise: Noise) -> None:
        for book, part in zip(self._books, self._of_stages(q), strict=True):
            book.learn(part, noise)

    @torch.no_grad()
    def initialise(self, e: Tensor) -> None:
        for book in self._books:
            book.initialise(e)
            e = e - book.lookup(book.nearest(e)).to(e.dtype)
