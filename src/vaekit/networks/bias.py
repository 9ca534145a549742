"""The bias of a network's output, from which a decoder starts."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bias(nn.Module):
    """x + bias, with one number per feature; the bias of a convolution has only one per channel."""

    def __init__(self, features: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


def set_output_bias(net: nn.Module, bias: Tensor) -> bool:
    """Copy `bias` into the last layer with weights if it is a dense layer or `Bias` of that size; return whether it is.

    A dense layer followed by convolutions is left alone, even if it happens to have that size.
    """
    last = [m for m in net.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd | Bias)][-1:]
    if not last or not isinstance(last[0], nn.Linear | Bias) or last[0].bias is None:
        return False
    if last[0].bias.shape != bias.shape:
        return False
    with torch.no_grad():
        last[0].bias.copy_(bias)
    return True
