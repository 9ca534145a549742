"""Networks built for given shapes: each maps (..., *event) to flat (..., features), with any leading axes."""

from .autoencoder_kl import KLDecoder, KLEncoder
from .bias import Bias, set_output_bias
from .convolutional import (
    ConvDecoder,
    ConvEncoder,
    DirectIn,
    DirectOut,
    Residual,
    convolution,
    cropped,
    default_levels,
    doubling,
    doublings,
    fastest_layout,
    grid_sizes,
    halvings,
)
from .dense import ACTIVATIONS, MLP, WIDE, Batched, Gated, Rescaled, activation
from .grids import Attention, GridDecoder, GridEncoder, PatchIn, PatchOut, cut
from .tables import Log1p, OneHot, WithMask

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "WIDE",
    "Attention",
    "Batched",
    "Bias",
    "ConvDecoder",
    "ConvEncoder",
    "DirectIn",
    "DirectOut",
    "Gated",
    "GridDecoder",
    "GridEncoder",
    "KLDecoder",
    "KLEncoder",
    "Log1p",
    "OneHot",
    "PatchIn",
    "PatchOut",
    "Rescaled",
    "Residual",
    "WithMask",
    "activation",
    "convolution",
    "cropped",
    "cut",
    "default_levels",
    "doubling",
    "doublings",
    "fastest_layout",
    "grid_sizes",
    "halvings",
    "set_output_bias",
]
