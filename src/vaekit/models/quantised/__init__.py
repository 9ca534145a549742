"""Discrete latents: vector quantisation, finite scalar quantisation, and priors over sequences of codes.

A quantised VAE is an ordinary `VAE(prior, posterior, likelihood)`. The encoder's numbers are cut into `positions`
vectors, each replaced by the nearest of a few (its code); z is those vectors side by side, flat. The posterior is a
probability of a discrete choice, all of it on the codes chosen, so log q(z | x) = 0 and

    log p(x) >= log p(x | z) + sum_i log P(c_i | c_<i),

with no other gap than the encoder's refusal to say anything but one sequence of codes: K samples of it are one.
"""

from .coded import Choice, Coded
from .models import QuantisedEncoder, fsq_vae, quantised_vae, vq_vae
from .networks import GridDecoder, GridEncoder, Offset, Once, grid_of
from .prior import AutoregressiveCodes, CodePrior, CodeSequence, IndependentCodes
from .quantisers import FiniteScalarQuantiser, Quantiser, VectorQuantiser

__all__ = [
    "AutoregressiveCodes",
    "Choice",
    "CodePrior",
    "CodeSequence",
    "Coded",
    "FiniteScalarQuantiser",
    "GridDecoder",
    "GridEncoder",
    "IndependentCodes",
    "Offset",
    "Once",
    "QuantisedEncoder",
    "Quantiser",
    "VectorQuantiser",
    "fsq_vae",
    "grid_of",
    "quantised_vae",
    "vq_vae",
]
