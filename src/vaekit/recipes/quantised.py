"""Recipes with discrete codes: one function, and a setting for each quantiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from vaekit.errors import ChoiceError
from vaekit.models.quantised import (
    CODE_PRIORS,
    FiniteScalarQuantiser,
    LinearQuantiser,
    LookupFreeQuantiser,
    Quantiser,
    ResidualQuantiser,
    VectorQuantiser,
    quantised_vae,
)
from vaekit.objectives import CodeELBO, Objective, Quantised
from vaekit.objectives.elbo import Beta, Warmup
from vaekit.utils.arguments import Knob
from vaekit.utils.register import Builder, Chosen, Register

from .architectures import OF_IMAGES, by_size
from .composition import USUAL, Composition, DataSpec, long_enough
from .observations import Observe
from .parts import Activation, Likelihood, default_likelihood, plain, start
from .registry import recipe, setting
from .signature import AUTO, Pick

QUANTISERS = Register("quantiser", {"stochastic": "whether codes are drawn, or are the nearest entries"})
"""The quantisers by name."""


def quantiser(name: str, paper: str) -> Callable[[Builder], Builder]:
    """Register a `Quantiser` class, or a function that returns one, as the quantiser `name`.

    Its parameters annotated with a `Knob` are its options. It may also take `stochastic`, whether codes are drawn.

    Arguments:
        name: its name on the command line.
        paper: its source.
    """
    return QUANTISERS.add(name, paper)


Codes = Annotated[
    int | None, Knob("number of entries of a codebook; by default 64 if codes are drawn, else 128", low=1)
]
Dim = Annotated[int, Knob("dimensions of an entry", low=1)]
Learned = Annotated[
    Literal["auto", "ema", "gradient"],
    Knob("how a codebook is learned: by running averages (ema; auto for nearest entries) or by gradients"),
]
Commitment = Annotated[
    float, Knob("weight of the commitment loss, which keeps the encoder's output near the nearest entries", low=0)
]
DIM, COMMITMENT, DECAY = 16, 0.25, 0.99


def _codes(codes: int | None, stochastic: bool) -> int:
    return codes if codes is not None else 64 if stochastic else 128


def _decay(codebook: str, stochastic: bool) -> float | None:
    """The decay of running averages, or None for gradients.

    Raises:
        ChoiceError: running averages of vectors that chose an entry, with a posterior that draws codes.
    """
    if codebook == "ema" and stochastic:
        raise ChoiceError(
            "`codebook='ema'` averages the vectors nearest to an entry, but a stochastic posterior draws codes and "
            "learns entries by gradients: write `posterior='nearest'`, or leave `codebook` out"
        )
    return None if stochastic or codebook == "gradient" else DECAY


@quantiser("vq", "van den Oord et al. 2017, arXiv:1711.00937")
def _vq(
    codes: Codes = None,
    dim: Dim = DIM,
    codebook: Learned = "auto",
    commitment: Commitment = COMMITMENT,
    stochastic: bool = False,
) -> VectorQuantiser:
    return VectorQuantiser(_codes(codes, stochastic), dim, _decay(codebook, stochastic), commitment)


@quantiser("residual-vq", "Zeghidour et al. 2021, arXiv:2107.03312")
def _residual(
    codes: Codes = None,
    dim: Dim = DIM,
    stages: Annotated[int, Knob("codes per vector, each for what those before leave of it", low=1)] = 2,
    codebook: Learned = "auto",
    commitment: Commitment = COMMITMENT,
    stochastic: bool = False,
) -> ResidualQuantiser:
    return ResidualQuantiser(_codes(codes, stochastic), dim, stages, _decay(codebook, stochastic), commitment)


@quantiser("simvq", "Zhu et al. 2024, arXiv:2411.02038")
def _simvq(
    codes: Codes = None, dim: Dim = DIM, commitment: Commitment = COMMITMENT, stochastic: bool = False
) -> LinearQuantiser:
    return LinearQuantiser(_codes(codes, stochastic), dim, commitment)


@quantiser("fsq", "Mentzer et al. 2023, arXiv:2309.15505")
def _fsq(
    levels: Annotated[
        tuple[int, ...] | None,
        Knob(
            "number of levels of each dimension of a code; their product is the number of codes; by default 4 4 4 if "
            "codes are drawn, else 8 6 5",
            low=2,
        ),
    ] = None,
    stochastic: bool = False,
) -> FiniteScalarQuantiser:
    if levels is None:
        levels = (4, 4, 4) if stochastic else (8, 6, 5)
    if not levels:
        raise ChoiceError("`levels` must have one number or more, each 2 or more")
    return FiniteScalarQuantiser(levels)


@quantiser("lfq", "Yu et al. 2023, arXiv:2310.05737")
def _lfq(
    bits: Annotated[int, Knob("bits of a code, the signs of a vector; there are 2^bits codes", low=1, high=12)] = 6,
    entropy: Annotated[
        float, Knob("weight of the entropies that make nearest codes certain one by one and even over a batch", low=0)
    ] = 0.1,
    commitment: Commitment = COMMITMENT,
) -> LookupFreeQuantiser:
    return LookupFreeQuantiser(bits, entropy, commitment)


def _grid(spec: DataSpec, network: str, positions: int | None, stochastic: bool) -> bool:
    """Whether the codes are a grid that convolutions make.

    Raises:
        ChoiceError: a grid of codes for vectors, or with a number of positions.
    """
    shaped = spec.kind in ("image", "signal")
    if network == "grid" and (not shaped or positions is not None):
        why = f"these are {spec.kind} data" if not shaped else "their number goes by the size of the data"
        raise ChoiceError(f"`network='grid'` has a code for each place of an image or signal, and {why}: leave it out")
    if network != "auto" or positions is not None or not shaped:
        return network == "grid"
    return not stochastic or by_size(spec, {}) == "conv"


def _prior_by_codes(spec: DataSpec, chosen: Mapping[str, Any]) -> str:
    """The prior over codes: masked for those that dense networks draw (docs/quantised.md), else the transformer.

    The positions of a grid share the transformer's weights; a masked network has weights for each pair of positions.
    """
    likelihood = chosen["likelihood"] if chosen["likelihood"] != AUTO else default_likelihood(spec)
    drawn = _stochastic(spec, chosen.get("posterior", AUTO), likelihood)
    grid = _grid(spec, chosen.get("network", AUTO), chosen.get("positions"), drawn)
    return "masked" if drawn and not grid else "autoregressive"


POSITIONS = 16
"""Codes per example of dense networks, by default at most."""


@recipe("vq", "van den Oord et al. 2017, arXiv:1711.00937; Takida et al. 2022, arXiv:2205.07547")
def vq(
    spec: DataSpec,
    *,
    quantiser: Annotated[Chosen, Pick(QUANTISERS, "what the codes stand for", "vq")],
    posterior: Annotated[
        Literal["auto", "stochastic", "nearest"],
        Knob(
            "draw each code with a probability that falls with the distance of its entry, and train by the ELBO "
            "(stochastic; auto for binary data), or take the nearest entries"
        ),
    ] = "auto",
    prior: Annotated[
        Chosen,
        Pick(
            CODE_PRIORS,
            "prior over the sequence of codes; auto: masked for codes that dense networks draw, else autoregressive",
            auto=_prior_by_codes,
            by_data=True,
        ),
    ],
    network: Annotated[
        Literal["auto", "dense", "grid"],
        Knob("dense networks, or convolutions to a grid of codes; auto: dense for vectors and small binary images"),
    ] = "auto",
    hidden: Annotated[
        tuple[int, ...] | None,
        Knob("channels of the convolutions, finest first, or widths of dense networks", low=1),
    ] = None,
    positions: Annotated[
        int | None, Knob("vectors per datum, with dense networks; convolutions make one for each place", low=1)
    ] = None,
    blocks: Annotated[int, Knob("residual blocks on the grid of codes", low=0)] = 1,
    activation: Activation,
    likelihood: Likelihood,
    observation: Observe,
    beta: Beta = 1.0,
    warmup: Warmup = 0,
) -> Composition:
    """VQ-VAE: discrete codes, entries of a codebook, and a learned prior over the codes.

    ELBO(x) = E_q[log p(x|c)] - E_q[sum_i KL(q(c_i|c_<i,x) || P(c_i|c_<i))] with codes drawn from q (stochastic), or
    log p(x|c(x)) + log P(c(x)) with c(x) the nearest entries, whose encoder is not charged for the rate.
    """
    x_observation, head = plain(spec, likelihood, observation)
    drawn = _stochastic(spec, posterior, likelihood.name)
    grid = _grid(spec, network, positions, drawn)
    if not drawn and (beta != 1.0 or warmup):
        raise ChoiceError("`beta` and `warmup` weigh the KL of a stochastic posterior: write `posterior='stochastic'`")
    made: Quantiser = quantiser.make(stochastic=drawn)
    model = quantised_vae(
        spec.shape,
        head,
        made,
        channels=hidden or (32, 64),
        hidden=hidden or (300, 300),
        blocks=blocks,
        positions=None if grid else positions or max(1, min(POSITIONS, spec.dims // 4)),
        prior=lambda positions, codes: prior.make(positions=positions, codes=codes),
        stochastic=drawn,
        activation=activation.name if spec.rules > 6 else "relu",
        scale=x_observation.network_range,
    )
    objective: Objective = CodeELBO(beta, warmup) if drawn else Quantised()
    defaults = OF_IMAGES if drawn and spec.kind == "image" and not grid else USUAL
    return Composition(model, objective, x_observation, long_enough(defaults, spec.n), start)


def _stochastic(spec: DataSpec, posterior: str, likelihood: str) -> bool:
    """Whether codes are drawn: by default for binary data, but not in runs of earlier rules."""
    if posterior == "auto":
        return spec.rules > 6 and likelihood == "bernoulli"
    return posterior == "stochastic"


setting(
    "fsq",
    vq,
    "Mentzer et al. 2023, arXiv:2309.15505",
    """Finite scalar quantisation: each dimension of a code is rounded to a few levels; no codebook is learned.

    ELBO(x) = E_q[log p(x|c)] - E_q[sum_i KL(q(c_i|c_<i,x) || P(c_i|c_<i))], or the bound of nearest codes, as for `vq`.
    """,
    quantiser="fsq",
)
setting(
    "lfq",
    vq,
    "Yu et al. 2023, arXiv:2310.05737",
    """Lookup-free quantisation: a code consists of the signs of a few numbers; no codebook is learned.

    ELBO(x) = E_q[log p(x|c)] - E_q[sum_i KL(q(c_i|c_<i,x) || P(c_i|c_<i))], or the bound of nearest codes, as for `vq`.
    """,
    quantiser="lfq",
)
setting(
    "simvq",
    vq,
    "Zhu et al. 2024, arXiv:2411.02038",
    """SimVQ: the codebook is a learned linear map of fixed random vectors, so that all of its entries stay in use.

    ELBO(x) = E_q[log p(x|c)] - E_q[sum_i KL(q(c_i|c_<i,x) || P(c_i|c_<i))], or the bound of nearest codes, as for `vq`.
    """,
    quantiser="simvq",
)
setting(
    "residual-vq",
    vq,
    "Zeghidour et al. 2021, arXiv:2107.03312",
    """Residual quantisation: several codes per vector, each for what those before leave of it.

    ELBO(x) = E_q[log p(x|c)] - E_q[sum_i KL(q(c_i|c_<i,x) || P(c_i|c_<i))], or the bound of nearest codes, as for `vq`.
    """,
    quantiser="residual-vq",
    codes=32,
)
