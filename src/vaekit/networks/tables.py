"""What an encoder sees of a table: counts as logarithms, categories one-hot, missing values as zeros and a mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaekit.data.core import Column


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
