"""A masked network: the outputs for a column depend on the columns before it alone, and on a context."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaskedLinear(nn.Module):
    """A linear map without the weights where `mask` (outputs, inputs) is False."""

    mask: Tensor

    def __init__(self, mask: Tensor):
        super().__init__()
        self.register_buffer("mask", mask.float(), persistent=False)
        bound = mask.sum(1, keepdim=True).clamp_min(1).rsqrt()  # that of `nn.Linear`, for the inputs that are seen
        self.weight = nn.Parameter(bound * (2 * torch.rand(mask.shape) - 1))
        self.bias = nn.Parameter(torch.zeros(len(mask)))

    def forward(self, x: Tensor, at: slice = slice(None)) -> Tensor:
        """The outputs `at` these indices, (..., outputs)."""
        return F.linear(x, self.weight[at] * self.mask[at], self.bias[at])


class MaskedMLP(nn.Module):
    """The masked network of MADE (Germain et al. 2015) with residual layers (Durkan and Nash 2019) and a context.

    The outputs of the column at position j depend on the context and on the inputs of the columns at positions below j.
    Hidden units have the positions 0 to D - 1, evenly; a unit at position d sees the columns before d.

    Arguments:
        inputs: (E,) the position of the column of each input.
        outputs: (O,) that of each output.
        context: the number of elements of the context.
        width: units of each hidden layer.
        layers: the number of hidden layers.
        dropout: the probability that a hidden unit is dropped in training.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        context: int,
        width: int,
        layers: int,
        dropout: float,
    ):
        super().__init__()
        to, of = torch.tensor(inputs), torch.tensor(outputs)
        unit = torch.arange(width) * (int(of.max()) + 1) // width
        self.first = MaskedLinear(to[None] < unit[:, None])
        self.inner = nn.ModuleList(MaskedLinear(unit[None] <= unit[:, None]) for _ in range(layers - 1))
        self.last = MaskedLinear(unit[None] <= of[:, None])
        self.context = nn.ModuleList(nn.Linear(context, width, bias=False) for _ in range(layers))
        self.direct = nn.Linear(context, len(of), bias=False)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def seen(self, e: Tensor, at: slice = slice(None)) -> Tensor:
        """What the inputs e (..., n) `at` these indices add to the first layer, (..., width)."""
        return F.linear(e, self.first.weight[:, at] * self.first.mask[:, at])

    def forward(self, seen: Tensor, context: Tensor, at: slice = slice(None)) -> Tensor:
        """The outputs `at` these indices, (..., n), for the sum of what the inputs add and a context (..., C)."""
        h = F.silu(seen + self.first.bias + self.context[0](context))
        for layer, of_context in zip(self.inner, self.context[1:], strict=True):
            h = h + F.silu(layer(self.dropout(h)) + of_context(context))
        return self.last(self.dropout(h), at) + F.linear(context, self.direct.weight[at])
