"""The bias of a network's output, which a decoder starts from."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bias(nn.Module):
    """x + bias, one number a feature: what a convolution's output lacks, which knows channels but no places."""

    def __init__(self, features: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


def set_output_bias(net: nn.Module, bias: Tensor) -> bool:
    """Copy `bias` into the last layer with weights if it is an affine one of that size, or a `Bias`; whether it was.

    A dense layer before convolutions does not count, though by chance it may have as many numbers.
    """
    last = [m for m in net.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd | Bias)][-1:]
    if not last or not isinstance(last[0], nn.Linear | Bias) or last[0].bias is None:
        return False
    if last[0].bias.shape != bias.shape:
        return False
    with torch.no_grad():
        last[0].bias.copy_(bias)
    return True
