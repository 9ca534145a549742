"""Encoders and decoders from the data specification: dense or convolutional, conditional or not."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vaekit import networks
from vaekit.errors import ChoiceError
from vaekit.heads import Head
from vaekit.models.m2 import Joined

from .composition import DataSpec


class Planes(nn.Module):
    """`net` on images or signals x (..., C, *size) with a condition c (..., P) laid on as P constant channels."""

    def __init__(self, net: nn.Module, dims: int):
        super().__init__()
        self.net, self.dims = net, dims

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        size = x.shape[x.dim() - self.dims + 1 :]
        planes = c.reshape(*c.shape, *(1 for _ in size)).expand(*x.shape[: x.dim() - self.dims], c.shape[-1], *size)
        return self.net(torch.cat([x, planes], -self.dims))


def is_dense(spec: DataSpec, network: str) -> bool:
    """Whether the networks are dense: for vectors and small images, unless asked otherwise."""
    if network == "conv" and spec.kind not in ("image", "signal"):
        raise ChoiceError(f"convolutions need images or signals; these are {spec.kind} data: use `network='dense'`")
    if network != "auto":
        return network == "dense"
    return spec.kind in ("vector", "counts") or spec.dims <= 1024


def default_latent(spec: DataSpec, dense: bool) -> int:
    """The number of latents for data of this size."""
    return (40 if spec.dims >= 256 else max(1, min(16, spec.dims // 4))) if dense else 128


def default_channels(spec: DataSpec) -> tuple[int, ...]:
    """32, 64, 128, 256 channels as far as the size goes."""
    return tuple(min(32 * 2**i, 256) for i in range(networks.default_levels(spec.shape[1:])))


def dense_encoder(
    event: tuple[int, ...],
    features: int,
    hidden: tuple[int, ...],
    activation: str,
    condition: int = 0,
    wide: bool = True,
) -> nn.Module:
    """x (, c) -> features by dense layers."""
    if not condition:
        return networks.MLP(event, features, hidden, activation, wide)
    return Joined(networks.MLP((math.prod(event) + condition,), features, hidden, activation, wide), (len(event), 1))


def conv_encoder(
    event: tuple[int, ...],
    features: int,
    channels: tuple[int, ...],
    blocks: int = 0,
    direct: int = 0,
    condition: int = 0,
) -> nn.Module:
    """x (, c) -> features by convolutions, with a dense layer beside them for the first `direct` features."""
    c, *size = event
    net = networks.ConvEncoder((c + condition, *size), features, channels, blocks, c if direct else 0, direct)
    return Planes(net, len(event)) if condition else net


def dense_decoder(latent: int, head: Head, hidden: tuple[int, ...], activation: str, condition: int = 0) -> nn.Module:
    """z (, c) -> the head's raw parameters by dense layers; `hidden` are the encoder's widths, so they are reversed."""
    net = networks.MLP((latent + condition,), head.features, hidden[::-1], activation)
    return Joined(net, (1, 1)) if condition else net


def conv_decoder(
    latent: int,
    event: tuple[int, ...],
    head: Head,
    channels: tuple[int, ...],
    blocks: int = 0,
    direct: bool = True,
    condition: int = 0,
) -> nn.Module:
    """z (, c) -> the head's raw parameters by convolutions, with a dense layer beside them if `direct`."""
    size = event[1:]
    planes = head.features // math.prod(size)
    net = networks.ConvDecoder(latent + condition, (planes, *size), 1, channels, blocks, event[0] if direct else 0)
    return Joined(net, (1, 1)) if condition else net
