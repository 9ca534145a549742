"""The encoder and the builder of quantised VAEs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vaekit import networks
from vaekit.heads import Conditional, Head
from vaekit.models.vae import VAE

from .coded import Coded
from .networks import GridDecoder, GridEncoder, Once, StageSums, grid_of
from .prior import AutoregressiveCodes, CodeNet, CodePrior
from .quantisers import Quantiser
from .stochastic import StochasticCodes

START_ROWS = 1000
"""Number of training examples that initialise a codebook."""

PriorNet = Callable[[int, int], CodeNet]


class QuantisedEncoder(nn.Module):
    """q(z | x) of a quantised VAE: `net` outputs positions * dim numbers, position by position.

    Arguments:
        net: x (, c) -> (B, positions * dim).
        quantiser: the quantiser of the vectors.
        positions: vectors per example; each has `quantiser.stages` codes.
        stochastic: whether codes are drawn, with the probabilities of `StochasticCodes`, or are the nearest entries.
    """

    def __init__(self, net: nn.Module, quantiser: Quantiser, positions: int, stochastic: bool = False):
        super().__init__()
        self.net, self.quantiser, self.positions = net, quantiser, positions
        start = torch.full((quantiser.stages,), math.log(quantiser.first_scale))
        self.log_scale = nn.Parameter(start) if stochastic else None

    @property
    def stochastic(self) -> bool:
        """Whether codes are drawn."""
        return self.log_scale is not None

    def vectors(self, *given: Tensor) -> Tensor:
        """The vectors before quantisation, (B, positions, dim)."""
        return self.net(*given).unflatten(-1, (self.positions, self.quantiser.dim))

    def forward(self, *given: Tensor) -> Coded | StochasticCodes:
        e = self.vectors(*given)
        if self.log_scale is None:
            return Coded(self.quantiser(e))
        return StochasticCodes(e, self.quantiser, self.log_scale)

    @torch.no_grad()
    def start(self, *given: Tensor) -> None:
        """Initialise the codebook of nearest entries from the first argument, training data x (n, *event).

        Entries that are drawn stay standard normal: all of them are chosen from the first step on.
        """
        if self.stochastic:
            return
        n = min(len(given[0]), START_ROWS)
        rows = torch.linspace(0, len(given[0]) - 1, n, device=given[0].device).long()
        vectors = [self.vectors(*(g[block] for g in given)).flatten(0, 1) for block in rows.split(100)]
        self.quantiser.initialise(torch.cat(vectors))


def quantised_vae(
    event: Sequence[int],
    head: Head,
    quantiser: Quantiser,
    *,
    channels: Sequence[int] = (32, 64),
    blocks: int = 1,
    positions: int | None = None,
    hidden: Sequence[int] = (300, 300),
    prior: PriorNet = AutoregressiveCodes,
    stochastic: bool = False,
    activation: str = "relu",
    scale: tuple[float, float] | None = None,
) -> VAE:
    """A VAE with discrete latents and a learned prior over them: a VQ-VAE where the quantiser is a `VectorQuantiser`.

    Arguments:
        event: shape of x: (C, H, W), (C, L) or, with `positions`, any.
        head: of the likelihood.
        quantiser: of the vector at each position.
        channels: of the convolutions, finest first; each halves the grid, so 28 x 28 has 7 x 7 codes with two.
        blocks: residual blocks at the grid of codes, in encoder and decoder.
        positions: number of vectors per example, for dense networks; None for convolutions.
        hidden: widths of dense networks.
        prior: makes the prior's net from (codes per example, values of a code).
        stochastic: as of `QuantisedEncoder`.
        activation: nonlinearity of dense networks.
        scale: lowest and highest x if they are far from -1 .. 1, such as (0, 255) of `Levels`.
    """
    if positions is None:
        positions = math.prod(grid_of(event, len(channels)))
        params, rest = divmod(head.features, math.prod(event))
        if rest:
            raise ValueError(
                f"a grid of codes needs a head with equally many parameters per element, not {type(head).__name__}: "
                "give `positions`"
            )
        encoder: nn.Module = GridEncoder(event, quantiser.dim, channels, blocks)
        decoder: nn.Module = GridDecoder(event, quantiser.dim, params, channels, blocks)
    else:
        encoder = networks.MLP(event, positions * quantiser.dim, hidden, activation)
        decoder = networks.MLP((positions * quantiser.dim,), head.features, hidden[::-1], activation)
    if scale is not None:
        encoder = networks.Rescaled(encoder, *scale)
    if quantiser.stages > 1:
        decoder = StageSums(decoder, quantiser.stages, quantiser.dim)
    posterior = QuantisedEncoder(encoder, quantiser, positions, stochastic)
    net = prior(positions * quantiser.stages, quantiser.codes)
    return VAE(CodePrior(net, quantiser), posterior, Conditional(Once(decoder), head))
