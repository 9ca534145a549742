"""Working in latent space: paths, edits, filling in, and densities fitted to codes. NumPy arrays in and out."""

from .paths import (
    attribute_direction,
    interpolate,
    lerp,
    manifold_grid,
    midpoint,
    nearest,
    order_by_kl,
    slerp,
    traversal_values,
    traverse,
)

__all__ = [
    "attribute_direction",
    "interpolate",
    "lerp",
    "manifold_grid",
    "midpoint",
    "nearest",
    "order_by_kl",
    "slerp",
    "traversal_values",
    "traverse",
]
