"""A network that classifies two kinds of codes, and its loss."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.densities.special import at_least_single
from vaekit.errors import ChoiceError


class Critic(nn.Module):
    """Codes (B, *event) of `latent` numbers -> logits (B,) of the first kind: dense layers with leaky ReLU of 0.2.

    The optimal logit is log p_first(z) - log p_second(z).
    """

    def __init__(self, latent: int, hidden: Sequence[int]):
        super().__init__()
        if latent < 1 or any(width < 1 for width in hidden):
            raise ValueError(f"sizes must be 1 or more, got latent {latent} and hidden {tuple(hidden)}")
        self.latent = latent
        widths = [latent, *hidden]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, z: Tensor) -> Tensor:
        z = z.flatten(1)
        if z.shape[1] != self.latent:
            raise ChoiceError(
                f"the critic is for codes of {self.latent} numbers, and the model's have {z.shape[1]}: "
                f"write latent={z.shape[1]}"
            )
        return at_least_single(self.layers(z).squeeze(-1))


def classification_loss(first: Tensor, second: Tensor) -> Tensor:
    """The cross-entropy of the logits of equally many codes of each kind, in nats per code; log 2 for guessing."""
    return 0.5 * (F.softplus(-first).mean() + F.softplus(second).mean())


def accuracy(first: Tensor, second: Tensor) -> Tensor:
    """The share of codes that are classified correctly."""
    return 0.5 * ((first > 0).float().mean() + (second < 0).float().mean())
