"""Dense networks, and wrappers for any network. Inputs are (..., *event), outputs flat (..., features)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.utils.register import Builder, Register

ACTIVATIONS = Register("activation", {"features_in": "number of inputs", "features_out": "number of outputs"})
"""The activations of dense networks by name."""


def activation(name: str, paper: str) -> Callable[[Builder], Builder]:
    """Register a function (features_in, features_out) -> modules of one hidden layer, in order, as an activation.

    Arguments:
        name: its name on the command line.
        paper: its source.
    """
    return ACTIVATIONS.add(name, paper)


def _elementwise(name: str, paper: str, function: Callable[[], nn.Module]) -> None:
    """Register a function of each element, applied after a linear map, as the activation `name`."""

    @activation(name, paper)
    def layer(features_in: int, features_out: int) -> tuple[nn.Module, ...]:
        return nn.Linear(features_in, features_out), function()


_elementwise("relu", "Nair and Hinton 2010", nn.ReLU)
_elementwise("tanh", "LeCun et al. 1998, doi:10.1007/3-540-49430-8_2", nn.Tanh)
_elementwise("silu", "Elfwing et al. 2018, arXiv:1702.03118", nn.SiLU)
_elementwise("gelu", "Hendrycks and Gimpel 2016, arXiv:1606.08415", nn.GELU)
_elementwise("elu", "Clevert et al. 2016, arXiv:1511.07289", nn.ELU)
_elementwise("softplus", "Dugas et al. 2001", nn.Softplus)

WIDE = 2048
"""The largest input whose first layer is not rescaled; published results use smaller inputs."""


class Gated(nn.Module):
    """(W x + b) * sigmoid(V x + c): the gated layer of Dauphin et al. (2017)."""

    def __init__(self, features_in: int, features_out: int):
        super().__init__()
        self.linear = nn.Linear(features_in, 2 * features_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.linear(x), -1)


@activation("gated", "Dauphin et al. 2017, arXiv:1612.08083")
def gated(features_in: int, features_out: int) -> tuple[nn.Module, ...]:
    """A gated layer."""
    return (Gated(features_in, features_out),)


class MLP(nn.Module):
    """Dense layers over a flattened event.

    Arguments:
        event: shape of one input.
        features: the number of outputs.
        hidden: widths of the hidden layers; without any, the network is an affine map.
        activation: a name in `ACTIVATIONS`.
        wide: whether inputs of more than `WIDE` numbers are multiplied by WIDE / numbers, and the first weights divided
            by it. The network starts the same, but its steps are smaller: an optimiser moves each weight by about the
            learning rate, so the features would otherwise move in proportion to the number of inputs.
        direct: whether to add a linear map of the input to the output; it starts at zero.
    """

    def __init__(
        self,
        event: Sequence[int],
        features: int,
        hidden: Sequence[int] = (512,),
        activation: str = "relu",
        wide: bool = False,
        direct: bool = False,
    ):
        super().__init__()
        self.dims = len(tuple(event))
        self.share = min(1.0, WIDE / math.prod(event)) if wide else 1.0
        widths = [math.prod(event), *hidden]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += ACTIVATIONS[activation].build(a, b)
        self.hidden = nn.Sequential(*layers)
        self.direct = nn.Linear(widths[0], features, bias=False) if direct else None
        self.out = nn.Linear(widths[-1], features)  # the last one: its bias is the output's
        with torch.no_grad():
            next(self.parameters()).div_(self.share)
            if self.direct is not None:
                self.direct.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(-self.dims) if self.dims > 1 else x
        x = x * self.share if self.share < 1 else x
        y = self.out(self.hidden(x))
        return y if self.direct is None else y + self.direct(x)


class Rescaled(nn.Module):
    """Applies `net` to x rescaled from low..high to -1..1: networks train best on numbers near 1, not on 0..255.

    Further inputs are passed to `net` unchanged.
    """

    def __init__(self, net: nn.Module, low: float, high: float):
        super().__init__()
        self.net, self.low, self.reach = net, low, (high - low) / 2

    def forward(self, x: Tensor, *more: Tensor) -> Tensor:
        return self.net((x - self.low) / self.reach - 1, *more)


class Batched(nn.Module):
    """Apply a network with one batch axis to inputs with any leading axes (samples, batch): returns (..., features).

    Arguments:
        net: (N, *event) -> (N, ...).
        event: the number of axes of an event: 1 for latents (D,), 3 for images (C, H, W).
    """

    def __init__(self, net: nn.Module, event: int = 1):
        super().__init__()
        self.net, self.event = net, event

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[: x.dim() - self.event]
        return self.net(x.reshape(-1, *x.shape[len(lead) :])).reshape(*lead, -1)
