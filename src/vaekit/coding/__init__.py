"""Lossless compression by a run: data for the bytes that their ELBO predicts.

`compress` writes an archive, `decompress` reads it. `ans` is the coder, `rounding` makes another machine repeat the
tables of `tables`, `likelihoods` and `latents`, and `bitsback` is the order in which the variables of a model are
coded.
"""

from .compress import Compressed, compress, decompress
from .rounding import TOLERANCE

__all__ = ["TOLERANCE", "Compressed", "compress", "decompress"]
