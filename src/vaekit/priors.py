"""Priors over the latents: conditionals given nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch import distributions as D


class StandardNormal(nn.Module):
    """p(z) = N(0, I) over `event`."""

    zero: Tensor

    def __init__(self, event: tuple[int, ...]):
        super().__init__()
        self.event = tuple(event)
        self.register_buffer("zero", torch.zeros(self.event), persistent=False)

    def forward(self, *given: Tensor) -> D.Distribution:
        normal = D.Normal(self.zero, torch.ones_like(self.zero), validate_args=False)
        return D.Independent(normal, len(self.event), validate_args=False)
