"""Encoder inputs for tables: counts as logarithms, categories as vectors, missing values as zeros and a mask."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaekit.data.core import Column

MOST_ONE_HOT = 64
"""Columns with more categories are embedded."""


class Log1p(nn.Module):
    """Applies `net` to log(1 + x): counts span orders of magnitude, and networks train best on numbers near 1.

    Negative x, which only corrupted counts can have, is replaced by 0.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        return self.net(_log1p(x), *condition)


def _log1p(x: Tensor) -> Tensor:
    return torch.log1p(x.clamp_min(0))


class OneHot(nn.Module):
    """Applies `net` to the rows of a mixed table: categories one-hot, counts as log(1 + x), numbers unchanged.

    A missing value is nan in every input made from it. The inputs are sorted by kind: real, two-valued, counts,
    categories, embedded categories.

    Arguments:
        most: categories of columns with more of them are embedded: each is a learned vector; None embeds none.

    Attributes:
        width: the number of inputs of the net per row.
        firsts: for each column, in the order of the inputs, the index of its first input.
    """

    def __init__(self, net: nn.Module, columns: Sequence[Column], most: int | None = None):
        super().__init__()
        self.net = net
        which = {kind: [i for i, c in enumerate(columns) if c.kind == kind] for kind in _KINDS}
        embedded = [i for i in which["categorical"] if most is not None and columns[i].width > most]
        which["categorical"] = [i for i in which["categorical"] if i not in embedded]
        sizes = [columns[i].width for i in which["categorical"]]
        self.embeddings = nn.ModuleList(
            nn.Embedding(columns[i].width, embedding_size(columns[i].width)) for i in embedded
        )
        plain = len(columns) - len(sizes) - len(embedded)
        widths = [*(1 for _ in range(plain)), *sizes, *(embedding_size(columns[i].width) for i in embedded)]
        self.width = sum(widths)
        self.firsts = [sum(widths[:i]) for i in range(len(widths))]
        codes = [code for size in sizes for code in range(size)]
        of = [i for i, size in zip(which["categorical"], sizes, strict=True) for _ in range(size)]
        indices = {"plain": which["real"] + which["binary"], "counts": which["counts"], "of": of, "codes": codes}
        indices["embedded"] = embedded
        for name, index in indices.items():
            self.register_buffer(name, torch.tensor(index, dtype=torch.long), persistent=False)

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        plain, counts, of, codes = (self.get_buffer(n) for n in ("plain", "counts", "of", "codes"))
        categories = x.index_select(-1, of)
        hot = torch.where(torch.isnan(categories), categories, (categories == codes).to(x.dtype))
        inputs = [x.index_select(-1, plain), _log1p(x.index_select(-1, counts)), hot]
        if len(self.embeddings):
            of_embedded = x.index_select(-1, self.get_buffer("embedded"))[..., None].unbind(-2)
            for embedding, code in zip(self.embeddings, of_embedded, strict=True):
                vector = embedding(torch.nan_to_num(code[..., 0]).long())
                inputs.append(torch.where(torch.isnan(code), code, vector))
        return self.net(torch.cat(inputs, -1), *condition)


def embedding_size(categories: int) -> int:
    """The length of the vectors that stand for so many categories: the square root of their number, at most 32."""
    return min(32, math.ceil(math.sqrt(categories)))


_KINDS = ("real", "binary", "counts", "categorical")


class WithMask(nn.Module):
    """Applies `net` to x with missing values set to 0, and to a mask that is 1 for observed and 0 for missing values.

    The mask is concatenated to x: as channels for images and signals, so that `net` takes events (2 C, *size), and as
    elements for vectors, so that it takes (D + number of mask elements,).

    Arguments:
        dims: the number of axes of the event: 1 for vectors, 2 for signals, 3 for images.
        which: the elements of a vector whose mask is an input of the net; by default all.
    """

    which: Tensor | None

    def __init__(self, net: nn.Module, dims: int, which: Sequence[int] | None = None):
        super().__init__()
        self.net, self.dims = net, dims
        indices = None if which is None else torch.tensor(which, dtype=torch.long)
        self.register_buffer("which", indices, persistent=False)

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        observed = ~torch.isnan(x)
        mask = (observed if self.which is None else observed.index_select(-1, self.which)).to(x.dtype)
        return self.net(torch.cat([torch.where(observed, x, 0.0), mask], -self.dims), *condition)
