"""Discrete latents: quantisers, posteriors over codes, and priors over sequences of codes.

A quantised VAE is an ordinary `VAE(prior, posterior, likelihood)`. The encoder's output consists of `positions`
vectors, each of which is replaced by an entry of a codebook (its code); z is the concatenation of these entries. A
stochastic posterior draws the codes, with probabilities that fall with the distance of the entries, and is trained by
the ELBO. Otherwise the codes are the nearest entries: the posterior puts all its probability on them, so
log q(z | x) = 0 and

    log p(x) >= log p(x | z) + sum_i log P(c_i | c_<i),

whose only gap is that the posterior is a single sequence of codes: all of its samples are equal.
"""

from .codebooks import LinearQuantiser, LookupFreeQuantiser, ResidualQuantiser
from .coded import Coded
from .models import QuantisedEncoder, quantised_vae
from .networks import GridDecoder, GridEncoder, grid_of
from .prior import (
    CODE_PRIORS,
    AutoregressiveCodes,
    CodePrior,
    CodeSequence,
    IndependentCodes,
    MaskedCodes,
    code_prior,
)
from .quantisers import FiniteScalarQuantiser, Quantiser, VectorQuantiser
from .stochastic import Draws, StochasticCodes, straight_through

__all__ = [
    "CODE_PRIORS",
    "AutoregressiveCodes",
    "CodePrior",
    "CodeSequence",
    "Coded",
    "Draws",
    "FiniteScalarQuantiser",
    "GridDecoder",
    "GridEncoder",
    "IndependentCodes",
    "LinearQuantiser",
    "LookupFreeQuantiser",
    "MaskedCodes",
    "QuantisedEncoder",
    "Quantiser",
    "ResidualQuantiser",
    "StochasticCodes",
    "VectorQuantiser",
    "code_prior",
    "grid_of",
    "quantised_vae",
    "straight_through",
]
