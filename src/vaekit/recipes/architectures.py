"""The register of networks: encoders and decoders from the data specification, conditional or not."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from vaekit import networks
from vaekit.errors import ChoiceError
from vaekit.heads import Head
from vaekit.models.m2 import Joined
from vaekit.utils.arguments import Knob
from vaekit.utils.register import Builder, Register

from .composition import USUAL, DataSpec, Defaults, long_enough
from .factors import WIDEST
from .inputs import is_mixed

NETWORKS = Register(
    "network",
    {
        "spec": "the description of the data",
        "hidden": "widths of the hidden layers, or None for the network's default",
        "activation": "name of the nonlinearity of the dense layers",
    },
)
"""The networks by name."""


def network(name: str, paper: str) -> Callable[[Builder], Builder]:
    """Register an `Architecture` as the network `name`.

    Its parameters annotated with a `Knob` are its options. It may also take `spec`, `hidden` and `activation`.

    Arguments:
        name: its name on the command line.
        paper: its source.
    """
    return NETWORKS.add(name, paper)


class Architecture(ABC):
    """Builds the encoder and the decoder of a model for data that a `DataSpec` describes. Abstract.

    Attributes:
        latent: the default number of latents.
        width: width of the hidden layer of networks between two layers of latents.
        defaults: the training defaults.
    """

    latent: int
    width: int
    defaults: Defaults

    @abstractmethod
    def encoder(self, event: tuple[int, ...], features: int, latent: int, condition: int) -> nn.Module:
        """A network from x (..., *event), or x and a condition c (..., condition), to (..., features).

        Arguments:
            event: shape of the encoder's input.
            features: number of outputs, the posterior's raw parameters.
            latent: number of latents.
            condition: number of elements of c; 0 for no condition.
        """

    @abstractmethod
    def decoder(self, latent: int, head: Head, condition: int) -> nn.Module:
        """A network from z (..., latent), or z and c, to the head's raw parameters (..., head.outputs)."""

    def grid(self, latent: int) -> tuple[int, ...] | None:
        """The shape (C, *size) of codes of this many latents that are small images or signals; None for vectors.

        Raises:
            ChoiceError: no grid has this many latents.
        """
        return None


MOST = 40
"""The default number of latents is at most this."""
LEAST_STEPS, LEAST_MIXED = 2000, 4000
"""A table, and one whose columns differ in kind, is trained for so many steps by default, however few its rows."""
MIXED_LR = 3e-3
"""The learning rate of tables whose columns differ in kind."""
OF_IMAGES = replace(USUAL, lr=2e-3, schedule="trapezoid", beta2=0.99)
"""The training defaults of dense networks for images; docs/learning.md compares them with others."""
STEADY, STEADY_OTHER = 200.0, 2000.0
"""The largest norms of the gradient for images of 784 elements, binary and others; see `steadied`."""
DECAY = 0.03
"""The weight decay of dense networks that are steadied."""
FEW_ROWS = 10_000
"""A table with fewer training rows is trained with early stopping by default."""
PATIENCE = 5
"""Validations without a better ELBO, after which such a training stops."""


def by_dims(dims: int) -> int:
    """The default number of latents for data whose spectrum is not measured."""
    return MOST if dims >= 256 else max(1, min(16, dims // 4))


def for_rows(n: int, mixed: bool = False) -> Defaults:
    """The training defaults for a table of n training rows, whose columns may differ in kind."""
    steps_per_epoch = n / min(USUAL.batch, n)
    epochs = max(USUAL.epochs, math.ceil((LEAST_MIXED if mixed else LEAST_STEPS) / steps_per_epoch))
    lr = MIXED_LR if mixed else USUAL.lr
    return replace(USUAL, lr=lr, epochs=epochs, patience=PATIENCE if n < FEW_ROWS else None)


def steadied(defaults: Defaults, spec: DataSpec, binary: bool, dense: bool) -> Defaults:
    """The training defaults for images with a limit for the norm of the gradient, and dense networks with more decay.

    While beta rises, for half of the training, little holds the posterior: an image whose code is wide or far from the
    others has a gradient that can be 100 times the usual norm, which is 20 to 150 for binary images of 784 pixels and
    120 to 1,200 for grey values. One such step moves all weights of the encoder, and makes the next images of this kind
    worse. Without a limit, `vae` fell apart after 67,000 of 470,000 steps, and a prior of many Gaussians, whose KL is
    estimated by draws, after 68,000 of 86,000. With this limit alone, the scales of a few posteriors still reached e^30
    after 160,000 steps, so they also grow slower above 1 (`heads.Gaussian`, `slow`). The limit grows with the number of
    elements of an image, as the log-likelihood does.

    Without more decay, weights of gated layers still grow until single images have codes and outputs far from all
    others: with the limits, the validation ELBO of `vae` was at times -10,000 nats after 107,000 of 211,000 steps.
    """
    if spec.kind != "image":
        return defaults
    clip = (STEADY if binary else STEADY_OTHER) * max(1.0, spec.dims / 784)
    decay = DECAY if dense and defaults.optimiser == "adamw" else defaults.weight_decay
    return replace(defaults, clip=defaults.clip or clip, weight_decay=decay)


@network("dense", "Kingma and Welling 2013, arXiv:1312.6114")
class Dense(Architecture):
    """Dense layers; the decoder has the encoder's widths in reverse order.

    For vectors that are not wide, a linear map is added to both networks, from which training starts: see `factors`.
    """

    def __init__(self, spec: DataSpec, hidden: Sequence[int] | None = None, activation: str = "gated"):
        self.wide = spec.rules > 1
        measured = spec.kind == "vector" and spec.rules > 2
        self.direct = measured and not is_mixed(spec) and spec.dims <= WIDEST
        usual = (64, 64) if measured and spec.n < FEW_ROWS else (300, 300)
        self.hidden, self.activation = tuple(usual if hidden is None else hidden), activation
        self.latent = min(spec.rank, MOST) if measured and spec.rank else by_dims(spec.dims)
        self.width = self.hidden[-1] if self.hidden else 300
        if measured:
            self.defaults = for_rows(spec.n, is_mixed(spec))
        else:
            self.defaults = long_enough(OF_IMAGES if spec.kind == "image" else USUAL, spec.n)

    def encoder(self, event: tuple[int, ...], features: int, latent: int, condition: int) -> nn.Module:
        shape = (math.prod(event) + condition,) if condition else event
        net = networks.MLP(shape, features, self.hidden, self.activation, self.wide, self.direct)
        return Joined(net, (len(event), 1)) if condition else net

    def decoder(self, latent: int, head: Head, condition: int) -> nn.Module:
        size = latent + condition
        net = networks.MLP((size,), head.outputs, self.hidden[::-1], self.activation, direct=self.direct)
        return Joined(net, (1, 1)) if condition else net


ResidualBlocks = Annotated[int, Knob("residual blocks per level of the convolutions", low=0)]
Direct = Annotated[
    bool, Knob("add linear layers in parallel with the convolutions, from image to code and from code to image")
]


CodeChannels = Annotated[
    int, Knob("channels of the code, if `latent` does not give the number of all its elements", low=1)
]
OverGrid = Annotated[bool, Knob("attention over the grid of the code")]


@network("conv", "Radford et al. 2016, arXiv:1511.06434")
class Convolutional(Architecture):
    """Strided convolutions down to a small grid, and transposed convolutions back up; `hidden` are the channels.

    Raises:
        ChoiceError: the data are neither images nor signals.
    """

    latent = 128
    width = 300
    usual = replace(USUAL, batch=64, clip=10000.0)

    def __init__(
        self,
        spec: DataSpec,
        hidden: Sequence[int] | None = None,
        blocks: ResidualBlocks = 0,
        direct: Direct = True,
    ):
        if spec.kind not in ("image", "signal"):
            raise ChoiceError(f"convolutions need images or signals; these are {spec.kind} data: use `network='dense'`")
        levels = networks.default_levels(spec.shape[1:])
        self.shape, self.blocks, self.direct = spec.shape, blocks, direct
        self.defaults = long_enough(self.usual, spec.n)
        self.channels = tuple(min(32 * 2**i, 256) for i in range(levels)) if hidden is None else tuple(hidden)

    def encoder(self, event: tuple[int, ...], features: int, latent: int, condition: int) -> nn.Module:
        c, *size = event
        direct = (c, latent) if self.direct else (0, 0)
        net = networks.ConvEncoder((c + condition, *size), features, self.channels, self.blocks, *direct)
        return Planes(net, len(event)) if condition else net

    def decoder(self, latent: int, head: Head, condition: int) -> nn.Module:
        channels, *size = self.shape
        event = (head.outputs // math.prod(size), *size)
        direct = channels if self.direct else 0
        net = networks.ConvDecoder(latent + condition, event, 1, self.channels, self.blocks, direct)
        return Joined(net, (1, 1)) if condition else net


@network("grid", "Rombach et al. 2022, arXiv:2112.10752")
class Grid(Architecture):
    """Convolutions to a code that is itself a small image (C, *size), and back; `hidden` are their channels.

    Each of `hidden` halves the grid. Residual blocks with attention between them (Wang et al. 2018, arXiv:1711.07971)
    work on the grid of the code. Unless values are missing, a linear map of patches of at most 1,024 elements to the
    places of the code, and one back, are added, from which training starts: see `patches`.

    Raises:
        ChoiceError: the data are neither images nor signals.
    """

    width = 300
    usual = replace(Convolutional.usual, batch=16, lr=3e-3, schedule="trapezoid")
    SMALLEST: ClassVar = {"image": 8, "signal": 32}
    """The grid is halved until its shorter side is this or less."""
    FIRST, WIDEST = 32, 64
    """Channels after the first halving, which double with each further one, and the most by default."""
    READ, WRITTEN = 1, 2
    """Residual blocks on the grid of the code, of the encoder and of the decoder."""

    def __init__(
        self,
        spec: DataSpec,
        hidden: Sequence[int] | None = None,
        blocks: ResidualBlocks = 0,
        code_channels: CodeChannels = 4,
        attention: OverGrid = True,
        direct: Direct = True,
    ):
        if spec.kind not in self.SMALLEST:
            raise ChoiceError(f"a grid needs images or signals; these are {spec.kind} data: use `network='dense'`")
        levels = networks.default_levels(spec.shape[1:], self.SMALLEST[spec.kind])
        self.shape, self.blocks, self.attention = spec.shape, blocks, attention
        self.defaults = long_enough(self.usual, spec.n)
        widths = (min(self.FIRST * 2**i, self.WIDEST) for i in range(levels))
        self.channels = tuple(widths) if hidden is None else tuple(hidden)
        if not self.channels:
            raise ChoiceError("a grid needs one halving or more: give `hidden` one number or more")
        self.size = networks.grid_sizes(spec.shape[1:], len(self.channels))[-1]
        patch = spec.shape[0] * 2 ** (len(self.channels) * len(self.size))
        self.direct = direct and spec.rules > 7 and not spec.missing and patch <= WIDEST
        self.latent = code_channels * math.prod(self.size)

    def grid(self, latent: int) -> tuple[int, ...]:
        channels, rest = divmod(latent, math.prod(self.size))
        if rest or not channels:
            size = " x ".join(map(str, self.size))
            raise ChoiceError(
                f"the code has {size} places, so `latent` must be a multiple of {math.prod(self.size)}, got {latent}: "
                "give the channels instead (`code_channels=4`), or other halvings (one for each number of `hidden`)"
            )
        return (channels, *self.size)

    def dim_of(self, features: int, channels: int) -> int:
        """The channels that the encoder outputs, for a posterior of so many numbers.

        Raises:
            ChoiceError: they are not equally many for every latent.
        """
        dim, rest = divmod(features, math.prod(self.size))
        if rest or dim % channels:
            raise ChoiceError(
                "a code with a grid needs a posterior with equally many numbers for every latent: write "
                "`posterior='gaussian'`, or `posterior='point'` for an autoencoder"
            )
        return dim

    def planes_of(self, head: Head) -> int:
        """The planes that the decoder outputs, for this likelihood.

        Raises:
            ChoiceError: it has not equally many parameters for every element.
        """
        planes, rest = divmod(head.outputs, math.prod(self.shape[1:]))
        if rest or planes % self.shape[0]:
            raise ChoiceError("a grid needs a likelihood with equally many parameters for every element")
        return planes

    def encoder(self, event: tuple[int, ...], features: int, latent: int, condition: int) -> nn.Module:
        channels, (c, *whole) = self.grid(latent)[0], event
        net = networks.GridEncoder(
            (c + condition, *whole),
            self.dim_of(features, channels),
            self.channels,
            self.blocks,
            self.READ,
            self.attention,
            *((c, channels) if self.direct else ()),
        )
        return Planes(net, len(event)) if condition else net

    def decoder(self, latent: int, head: Head, condition: int) -> nn.Module:
        net = networks.GridDecoder(
            self.shape,
            self.grid(latent)[0],
            self.planes_of(head) // self.shape[0],
            self.channels,
            self.blocks,
            self.WRITTEN,
            self.attention,
            condition,
            self.direct,
        )
        return Joined(net, (1, 1)) if condition else net


@network("autoencoder-kl", "Rombach et al. 2022, arXiv:2112.10752")
class AutoencoderKL(Grid):
    """The networks of diffusers' AutoencoderKL, so that `vaekit export --format diffusers` is exact.

    `hidden` are the channels of each level, finest grid first; each level after the first halves the grid. Its
    convolutions also work on the whole image, and it has no linear path, so it learns more slowly than grid.

    Raises:
        ChoiceError: the data are not images without missing values, their sides cannot be halved, or there is a
            condition.
    """

    usual = replace(Grid.usual, lr=1e-3)
    BLOCKS = 1
    """Residual blocks per level of the encoder; the decoder has one more."""

    def __init__(
        self,
        spec: DataSpec,
        hidden: Sequence[int] | None = None,
        code_channels: CodeChannels = 4,
        attention: OverGrid = True,
    ):
        if spec.kind != "image" or spec.missing:
            raise ChoiceError("diffusers' AutoencoderKL is for images without missing values: use `network='grid'`")
        sides, levels = spec.shape[1:], 1
        while hidden is None and min(sides) // 2 ** (levels - 1) > 8 and not any(s % 2**levels for s in sides):
            levels += 1
        self.shape, self.attention = spec.shape, attention
        self.defaults = long_enough(self.usual, spec.n)
        widths = (min(self.FIRST * 2**i, self.WIDEST) for i in range(levels))
        self.channels = tuple(widths) if hidden is None else tuple(hidden)
        self.groups = math.gcd(8, *self.channels)
        step = 2 ** (len(self.channels) - 1)
        if not self.channels or any(s % step for s in sides):
            raise ChoiceError(
                f"each number of `hidden` after the first halves the sides of the image, but {sides[0]} x {sides[1]} "
                f"are not multiples of {step}: give fewer numbers, or use `network='grid'`"
            )
        self.size = tuple(s // step for s in sides)
        self.latent = code_channels * math.prod(self.size)

    def encoder(self, event: tuple[int, ...], features: int, latent: int, condition: int) -> nn.Module:
        if condition:
            raise ChoiceError("diffusers' AutoencoderKL takes no condition: use `network='grid'`, or omit `condition`")
        dim = self.dim_of(features, self.grid(latent)[0])
        return networks.KLEncoder(event, dim, self.channels, self.BLOCKS, self.groups, self.attention)

    def decoder(self, latent: int, head: Head, condition: int) -> nn.Module:
        planes = self.planes_of(head)
        return networks.KLDecoder(self.grid(latent), planes, self.channels, self.BLOCKS, self.groups, self.attention)


class Planes(nn.Module):
    """Applies `net` to images or signals x (..., C, *size) and a condition c (..., P), added as P constant channels."""

    def __init__(self, net: nn.Module, dims: int):
        super().__init__()
        self.net, self.dims = net, dims

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        size = x.shape[x.dim() - self.dims + 1 :]
        planes = c.reshape(*c.shape, *(1 for _ in size)).expand(*x.shape[: x.dim() - self.dims], c.shape[-1], *size)
        return self.net(torch.cat([x, planes], -self.dims))


def by_size(spec: DataSpec, names: Mapping[str, str]) -> str:
    """The default network: dense for vectors, counts and data of at most 1,024 elements, else convolutional."""
    return "dense" if spec.kind in ("vector", "counts") or spec.dims <= 1024 else "conv"
