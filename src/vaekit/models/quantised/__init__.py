"""Discrete latents: vector quantisation, finite scalar quantisation, and priors over sequences of codes.

A quantised VAE is an ordinary `VAE(prior, posterior, likelihood)`. The encoder's output consists of `positions`
vectors, each of which is replaced by the nearest entry of a codebook (its code); z is the concatenation of these
entries. The posterior puts all its probability on the chosen codes, so log q(z | x) = 0 and

    log p(x) >= log p(x | z) + sum_i log P(c_i | c_<i),

whose only gap is that the posterior is a single sequence of codes: all of its samples are equal.
"""

from .coded import Coded
from .models import QuantisedEncoder, quantised_vae
from .networks import GridDecoder, GridEncoder, grid_of
from .prior import CODE_PRIORS, AutoregressiveCodes, CodePrior, CodeSequence, IndependentCodes, code_prior
from .quantisers import FiniteScalarQuantiser, Quantiser, VectorQuantiser

__all__ = [
    "CODE_PRIORS",
    "AutoregressiveCodes",
    "CodePrior",
    "CodeSequence",
    "Coded",
    "FiniteScalarQuantiser",
    "GridDecoder",
    "GridEncoder",
    "IndependentCodes",
    "QuantisedEncoder",
    "Quantiser",
    "VectorQuantiser",
    "code_prior",
    "grid_of",
    "quantised_vae",
]
