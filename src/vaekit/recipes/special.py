"""Recipes whose latents are not one real vector: discrete codes, classes, several layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

from vaekit.data.condition import Targets
from vaekit.data.observation import Levels, Observation
from vaekit.errors import ChoiceError
from vaekit.models.hierarchy import top_down
from vaekit.models.m2 import m2
from vaekit.models.quantised import AutoregressiveCodes, IndependentCodes, fsq_vae, vq_vae
from vaekit.models.vae import VAE
from vaekit.objectives import ELBO, Quantised, SemiSupervised

from .composition import Composition, DataSpec, Defaults
from .inputs import Adapted
from .parts import Activation, LikelihoodName, ObservationName, kl_weight, positive, seen_as, start
from .registry import recipe

CodePriorName = Literal["autoregressive", "independent"]
_CODE_PRIORS = {"autoregressive": AutoregressiveCodes, "independent": IndependentCodes}


def _plain(spec: DataSpec, likelihood: str, sigma: str, observation: str) -> Adapted:
    """`seen_as` where the encoder has a network of its own and sees x as it is."""
    made = seen_as(spec, likelihood, sigma, observation)
    if made.event != spec.shape:
        raise ChoiceError("discrete codes are for images, signals and plain vectors: use `recipe='vae'` for tables")
    return made


def _scale(observation: Observation) -> tuple[float, float] | None:
    """The range of x where a network should not be given it as it is."""
    return (0.0, observation.levels - 1.0) if isinstance(observation, Levels) else None


def _quantised(
    spec: DataSpec,
    build: Callable[..., VAE],
    prior: str,
    hidden: tuple[int, ...] | None,
    positions: int | None,
    blocks: int,
    seen_by: tuple[str, str, str],
) -> Composition:
    """What `build` makes of a quantiser, as a recipe; `seen_by` are the names of likelihood, sigma and observation."""
    positive(hidden=hidden, positions=positions)
    seen, head, _, _ = _plain(spec, *seen_by)
    if positions is None and spec.kind not in ("image", "signal"):
        positions = max(1, min(16, spec.dims // 4))  # of a vector; images and signals have a grid of codes
    model = build(
        spec.shape,
        head,
        channels=hidden or (32, 64),
        hidden=hidden or (300, 300),
        blocks=blocks,
        positions=positions,
        prior=_CODE_PRIORS[prior],
        scale=_scale(seen),
    )
    defaults = Defaults("adamw", 1e-3, 100, "cosine", weight_decay=1e-4, ema=0.999, epochs=50)
    return Composition(model, Quantised(), seen, defaults, start)


@recipe("vq", "van den Oord et al. 2017, arXiv:1711.00937")
def vq(
    spec: DataSpec,
    *,
    codes: int = 128,
    dim: int = 16,
    codebook: Literal["ema", "gradient"] = "ema",
    commitment: float = 0.25,
    prior: CodePriorName = "autoregressive",
    hidden: tuple[int, ...] | None = None,
    positions: int | None = None,
    blocks: int = 1,
    likelihood: LikelihoodName = "auto",
    sigma: str = "shared",
    observation: ObservationName = "auto",
) -> Composition:
    """VQ-VAE: discrete codes, the nearest entries of a learned codebook, with a learned prior over them.

    log p(x) >= log p(x | c(x)) + log P(c(x)): the code is a choice, so this is a bound with no KL to estimate. The
    prior is trained beside the rest as a parameter group of its own.

    Arguments:
        codes: entries of the codebook.
        dim: numbers an entry.
        codebook: learned by running averages (ema) or by gradient.
        commitment: weight that ties the encoder to its entries.
        prior: over the sequence of codes.
        hidden: channels of the convolutions, finest first, or widths of dense networks.
        positions: codes a datum, by dense networks; images and signals have a grid of them when not given.
        blocks: residual blocks at the grid of codes.
        likelihood: p(x|z); auto is Bernoulli for grey images, discretised logistic for colour, else Gaussian.
        sigma: the Gaussian's: unit, shared (one learned number), learned (a number an element), or a value.
        observation: how raw data become x; auto is the likelihood's natural one.
    """
    positive(codes=codes, dim=dim)
    if not commitment >= 0:
        raise ChoiceError(f"`commitment` must be 0 or more, got {commitment:g}")
    decay = 0.99 if codebook == "ema" else None
    build = partial(vq_vae, codes=codes, dim=dim, decay=decay, commitment=commitment)
    return _quantised(spec, build, prior, hidden, positions, blocks, (likelihood, sigma, observation))


@recipe("fsq", "Mentzer et al. 2023, arXiv:2309.15505")
def fsq(
    spec: DataSpec,
    *,
    levels: tuple[int, ...] = (8, 6, 5),
    prior: CodePriorName = "autoregressive",
    hidden: tuple[int, ...] | None = None,
    positions: int | None = None,
    blocks: int = 1,
    likelihood: LikelihoodName = "auto",
    sigma: str = "shared",
    observation: ObservationName = "auto",
) -> Composition:
    """Finite scalar quantisation: each number of the code rounded to a few levels; no codebook to learn.

    log p(x) >= log p(x | c(x)) + log P(c(x)), as for `vq`.

    Arguments:
        levels: how many levels each number of a code has; their product is the number of codes.
        prior: over the sequence of codes.
        hidden: channels of the convolutions, finest first, or widths of dense networks.
        positions: codes a datum, by dense networks; images and signals have a grid of them when not given.
        blocks: residual blocks at the grid of codes.
        likelihood: p(x|z); auto is Bernoulli for grey images, discretised logistic for colour, else Gaussian.
        sigma: the Gaussian's: unit, shared (one learned number), learned (a number an element), or a value.
        observation: how raw data become x; auto is the likelihood's natural one.
    """
    if not levels or min(levels) < 2:
        raise ChoiceError(f"`levels` must be 2 or more each, got {levels}")
    build = partial(fsq_vae, levels=levels)
    return _quantised(spec, build, prior, hidden, positions, blocks, (likelihood, sigma, observation))


@recipe("semi-supervised", "Kingma et al. 2014, arXiv:1406.5298")
def semi_supervised(
    spec: DataSpec,
    *,
    labelled: int | None = None,
    label_seed: int = 0,
    class_prior: Literal["labels", "uniform"] = "labels",
    frequencies: tuple[float, ...] | None = None,
    alpha: float = 10.0,
    latent: int = 40,
    hidden: tuple[int, ...] = (300, 300),
    activation: Activation = "gated",
    likelihood: LikelihoodName = "auto",
    sigma: str = "shared",
    observation: ObservationName = "auto",
) -> Composition:
    """M2: the class is a latent too, known for some of the data.

    p(x) = sum_y p(y) integral p(z) p(x | y, z) dz, with q(y|x) q(z|x,y); q(y|x) classifies.

    Arguments:
        labelled: how many labels it may see, equally many of each class (a hundredth of the data; all labels where some
            rows have none).
        label_seed: of the choice of labels.
        class_prior: p(y): the frequencies of all labels in the training rows (those that --labelled hides too), or
            uniform.
        frequencies: p(y) itself, a number for each class in the order of their codes, up to a common factor.
        alpha: weight of the classification loss, nats a datum.
        latent: latent dimensions beside the class.
        hidden: widths of the hidden layers.
        activation: the layers' nonlinearity.
        likelihood: p(x|y,z); auto is Bernoulli for grey images, discretised logistic for colour, else Gaussian.
        sigma: the Gaussian's: unit, shared (one learned number), learned (a number an element), or a value.
        observation: how raw data become x; auto is the likelihood's natural one.
    """
    positive(latent=latent, hidden=hidden, labelled=labelled)
    classes = len(spec.classes)
    if classes < 2:
        raise ChoiceError(
            "recipe 'semi-supervised' needs labels of two classes or more, and these data have none: name a column "
            "(`label=COLUMN`), or use `recipe='vae'`"
        )
    known = sum(spec.class_counts) or spec.n
    if labelled is not None and labelled > known:
        raise ChoiceError(f"`labelled={labelled}` is more than the {known} training data that have a label")
    usual = known if known < spec.n else max(classes, spec.n // 100)
    count = labelled if labelled is not None else usual
    shares = class_frequencies(spec, class_prior, frequencies)
    seen, head, event, wrap = seen_as(spec, likelihood, sigma, observation)
    model = m2(event, classes, latent, hidden, activation, head, shares, spec.rules > 1)
    for part in (model.classifier, model.posterior):
        part.net = wrap(part.net)  # type: ignore[arg-type]
    return Composition(
        model,
        SemiSupervised(alpha, count / spec.n),
        seen,
        Defaults("adamw", 1e-3, 100, "cosine", weight_decay=1e-4, ema=0.999, epochs=50),
        start,
        targets=Targets(classes, count, label_seed),
    )


def class_frequencies(spec: DataSpec, name: str, given: tuple[float, ...] | None) -> list[float]:
    """p(y) of the classes up to a common factor; a class that no training row has counts as one row.

    Raises:
        ChoiceError: the numbers given are not one above 0 for each class.
    """
    classes = len(spec.classes)
    if given is not None:
        if len(given) != classes or not all(0 < f < math.inf for f in given):
            raise ChoiceError(
                f"`frequencies` must be {classes} numbers above 0, one for each of {', '.join(spec.classes)}, "
                f"got {', '.join(f'{f:g}' for f in given)}"
            )
        return list(given)
    counts = spec.class_counts if name == "labels" else ()
    return [float(max(n, 1)) for n in counts or (1,) * classes]


@recipe("ladder", "Sonderby et al. 2016, arXiv:1602.02282; Child 2021, arXiv:2011.10650")
def ladder(
    spec: DataSpec,
    *,
    layers: tuple[int, ...] | None = None,
    width: int | None = None,
    latent: int | None = None,
    blocks: int = 1,
    likelihood: LikelihoodName = "auto",
    sigma: str = "shared",
    observation: ObservationName = "auto",
    beta: float = 1.0,
    warmup: int = 0,
    free_bits: float = 0.0,
) -> Composition:
    """A hierarchy of latent layers inferred from the top down, each posterior beside its prior.

    p(x, z) = p(z_L) prod_l p(z_l | z_>l) p(x | z), with q(z_l | z_>l, x): generation and inference walk down together.

    Arguments:
        layers: stochastic layers on each grid, coarsest first, the first number without a grid (by the data's size).
        width: channels on the finest grid, doubled on coarser ones; of vectors, of all layers.
        latent: latent channels a layer; of vectors, latents a layer.
        blocks: residual blocks on each grid of the encoder.
        likelihood: p(x|z); auto is Bernoulli for grey images, discretised logistic for colour, else Gaussian.
        sigma: the Gaussian's: unit, shared (one learned number), learned (a number an element), or a value.
        observation: how raw data become x; auto is the likelihood's natural one.
        beta: weight of the KL.
        warmup: steps over which beta rises from 0.
        free_bits: nats a layer below which its KL costs nothing more.
    """
    positive(width=width, latent=latent, blocks=blocks)
    if not free_bits >= 0:
        raise ChoiceError(f"`free_bits` must be 0 or more, got {free_bits:g}")
    if layers is not None and (not layers or min(layers) < 0 or sum(layers) < 1):
        raise ChoiceError(f"`layers` must be counts of layers, one or more in all, got {layers}")
    seen, head, _, _ = _plain(spec, likelihood, sigma, observation)
    model = top_down(spec.shape, head, layers, width, latent, blocks, values=_scale(seen))
    return Composition(
        model,
        ELBO(kl_weight(beta, warmup), free_bits=free_bits),
        seen,
        Defaults("adamw", 1e-3, 100, "cosine", weight_decay=1e-4, clip=200.0, ema=0.999, epochs=50),
        start,
    )
