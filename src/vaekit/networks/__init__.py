"""Networks built for given shapes: each maps (..., *event) to flat (..., features), with any leading axes."""

from .bias import Bias, set_output_bias
from .convolutional import (
    ConvDecoder,
    ConvEncoder,
    DirectIn,
    DirectOut,
    Residual,
    cropped,
    default_levels,
    doubling,
    grid_sizes,
    norm_groups,
)
from .dense import ACTIVATIONS, MLP, WIDE, Batched, Gated, Rescaled, activation
from .tables import Log1p, OneHot, WithMask

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "WIDE",
    "Batched",
    "Bias",
    "ConvDecoder",
    "ConvEncoder",
    "DirectIn",
    "DirectOut",
    "Gated",
    "Log1p",
    "OneHot",
    "Rescaled",
    "Residual",
    "WithMask",
    "activation",
    "cropped",
    "default_levels",
    "doubling",
    "grid_sizes",
    "norm_groups",
    "set_output_bias",
]
