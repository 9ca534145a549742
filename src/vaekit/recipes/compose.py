"""The general recipe: any prior, posterior, likelihood and objective that fit together.

Every named recipe that shares its networks is a setting of this one.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

from torch import nn

from vaekit import networks
from vaekit.data.condition import Condition
from vaekit.data.observation import Observation
from vaekit.errors import ChoiceError
from vaekit.heads import Conditional, Gaussian
from vaekit.heads.posteriors import PointPosterior
from vaekit.models.hierarchy import Chain
from vaekit.models.priors import FlowPrior, Mixture, StandardNormal, UniformSphere, Vamp
from vaekit.models.vae import VAE, Model
from vaekit.objectives.corruption import corruption as make_corruption

from . import architectures
from .choices import (
    OBJECTIVE_CHOICES,
    OBJECTIVES,
    POSTERIORS,
    Gradient,
    ObjectiveName,
    PosteriorName,
    PriorName,
    chosen,
)
from .composition import Composition, DataSpec, Defaults
from .inputs import is_mixed
from .parts import Activation, LikelihoodName, ObservationName, positive, seen_as, start, x_range

Network = Literal["auto", "dense", "conv"]
CorruptionName = Literal["none", "gaussian", "masking", "salt-and-pepper"]


def compose(
    spec: DataSpec,
    *,
    prior: PriorName = "auto",
    posterior: PosteriorName = "gaussian",
    likelihood: LikelihoodName = "auto",
    objective: ObjectiveName = "elbo",
    latent: int | None = None,
    hidden: tuple[int, ...] | None = None,
    network: Network = "auto",
    activation: Activation = "gated",
    blocks: int = 0,
    direct: bool = True,
    sigma: str = "shared",
    observation: ObservationName = "auto",
    condition: str = "none",
    corruption: CorruptionName = "none",
    corruption_level: float | None = None,
    components: int | None = None,
    transforms: int | None = None,
    beta: float | None = None,
    warmup: int | None = None,
    beta_from: float | None = None,
    cycles: int | None = None,
    free_bits: float | None = None,
    samples: int | None = None,
    gradient: Gradient | None = None,
    groups: int | None = None,
    mix: float | None = None,
    alpha: float | None = None,
    gamma: float | None = None,
    capacity: float | None = None,
    capacity_steps: int | None = None,
    hold: Literal["distortion", "rate"] | None = None,
    target: float | None = None,
    multiplier: float | None = None,
    multiplier_lr: float | None = None,
    dip: Literal["i", "ii"] | None = None,
    off_diagonal: float | None = None,
    diagonal: float | None = None,
    weight: float | None = None,
    kernel: Literal["imq", "gaussian"] | None = None,
    l1: float | None = None,
    l2: float | None = None,
    sparsity: float | None = None,
    activity: float | None = None,
    gradient_penalty: float | None = None,
    decoder_decay: float | None = None,
) -> Composition:
    """The default: dense networks for small images and vectors, convolutions above; a likelihood that fits the data.

    ELBO(x) = E_{q(z|x)}[log p(x|z)] - KL(q(z|x) || p(z)), with any prior, posterior, likelihood and objective that fit
    together.

    Arguments:
        Model:
        prior: p(z); auto is N(0, I), or uniform on the sphere for a posterior on it.
        components: of the prior: how many Gaussians or pseudo-inputs (100 of either; the paper of Vamp takes 500, which
            makes a step on a CPU four times as dear).
        posterior: q(z|x): diagonal or full-covariance Gaussian, a flow (iaf, nsf), on the sphere, or a point.
        transforms: layers of a flow (4 of a prior, 2 of a posterior).
        likelihood: p(x|z); auto is Bernoulli for grey images, discretised logistic for colour, else Gaussian.
        sigma: the Gaussian's: unit, shared (one learned number), learned (a number an element), optimal, or a value.
        objective: what is minimised; each takes some of the weights below.

        Networks:
        latent: latent dimensions (from the data's size when not given).
        hidden: widths of the hidden layers, or channels of the convolutions, finest first.
        network: dense or convolutional; auto goes by the data's size.
        activation: the dense layers' nonlinearity.
        blocks: residual blocks a level of the convolutions.
        direct: dense layers beside the convolutions, from the image to the code and from the code to the image.

        What the model sees:
        observation: how raw data become x; auto is the likelihood's natural one.
        condition: what else encoder and decoder are given of a datum: label, attributes, or a column of a few classes.
        corruption: what is done to x before it is encoded in training; the target stays clean.
        corruption_level: standard deviation of the noise, or share of the elements that are corrupted (0.3).

        The weight of the KL (objective elbo):
        beta: weight of the KL (1), or of the total correlation in tc (6).
        warmup: steps over which beta rises from 0, or moves from `beta_from`.
        beta_from: a weight to start from; far above beta it lets latents into use one at a time, which may disentangle.
        cycles: length of a cycle in steps, for a rise that is repeated.
        free_bits: nats a latent below which its KL costs nothing more.

        A KL that is held (objectives capacity, constrained):
        capacity: C in nats at the end (25).
        capacity_steps: steps over which C rises from 0 (10000).
        hold: what the constraint holds at its target (rate).
        target: nats a datum at which it is held, in the data's own units, as evaluate reports them (20).
        multiplier: of the constraint, at the start (1).
        multiplier_lr: how fast the multiplier's logarithm moves (0.01); less where it swings.

        Draws a datum (objectives iwae, piwae, ciwae):
        samples: draws of z a datum in training: 50, in piwae 48; in elbo, capacity and constrained 1.
        groups: that the draws are shared out over: the mean of their bounds is what iwae trains on (1), and the encoder
            in piwae (6).
        gradient: of the encoder in iwae and piwae: plain (when not given), or doubly reparametrised.
        mix: weight of the ELBO beside the importance-weighted bound in ciwae (0.05).

        The codes of all data together (tc, factor, dip, info, wae, aae):
        alpha: weight of the mutual information in tc (1), of the KL's absence in info (0).
        gamma: weight of |KL - C| in capacity (5), of the dimensions' KL in tc (1), of the total correlation in factor
            (10).
        dip: which DIP-VAE: i on the means' covariance, ii on that of the draws (ii).
        off_diagonal: DIP's penalty on covariances (10).
        diagonal: DIP's penalty on variances other than 1 (10).
        weight: of the MMD in info and wae (100), of the critic in aae (1).
        kernel: of the MMD: inverse multiquadratic (imq) or Gaussian.

        Autoencoders (objective autoencoder):
        l1: penalty on the code's size, for a sparse autoencoder.
        l2: penalty on the code's square.
        sparsity: penalty on units of the code that are active more, or less, than `activity` of the time.
        activity: that share (0.05).
        gradient_penalty: penalty on the decoder's slope.
        decoder_decay: penalty on half the square of the decoder's weights.
    """
    named = locals()
    given = {n: named[n] for n in OBJECTIVE_CHOICES}
    dense = architectures.is_dense(spec, network)
    latent = latent if latent is not None else architectures.default_latent(spec, dense)
    positive(latent=latent, hidden=hidden, components=components, transforms=transforms)
    if blocks < 0:
        raise ChoiceError(f"`blocks` must be 0 or more, got {blocks}")
    seen, head, event, wrap = seen_as(spec, likelihood, sigma, observation)
    wanted = choose_condition(spec, condition)
    size = wanted.size if wanted else 0
    chosen_prior = choose_prior_name(prior, posterior, wanted)
    if chosen_prior == "vamp" and (spec.missing or is_mixed(spec)):
        raise ChoiceError(
            "the pseudo-inputs of a vamp prior are rows of data, which cannot be learned where columns hold categories "
            "or values are missing: write `prior='mixture'` or `prior='flow'`"
        )
    if components is not None and chosen_prior not in ("mixture", "vamp"):
        raise ChoiceError(f"`components` belongs to the priors mixture and vamp, and this prior is {chosen_prior}")
    if transforms is not None and chosen_prior != "flow" and posterior not in ("iaf", "nsf"):
        raise ChoiceError("`transforms` belongs to a flow: `prior='flow'`, `posterior='iaf'` or `posterior='nsf'`")

    flow = {} if transforms is None or posterior not in ("iaf", "nsf") else {"transforms": transforms}
    q_head = POSTERIORS[posterior](latent, **flow)
    if dense:
        widths = hidden if hidden is not None else (300, 300)
        encoder = architectures.dense_encoder(event, q_head.features, widths, activation, size, spec.rules > 1)
        decoder = architectures.dense_decoder(latent, head, widths, activation, size)
        defaults = Defaults("adamw", 1e-3, 100, "cosine", weight_decay=1e-4, ema=0.999, epochs=50)
    else:
        widths = hidden if hidden is not None else architectures.default_channels(spec)
        encoder = architectures.conv_encoder(event, q_head.features, widths, blocks, latent if direct else 0, size)
        decoder = architectures.conv_decoder(latent, spec.shape, head, widths, blocks, direct, size)
        defaults = Defaults("adamw", 1e-3, 64, "cosine", weight_decay=1e-4, clip=10000.0, ema=0.999, epochs=50)
    encoder = wrap(encoder)
    q = PointPosterior(encoder, (latent,)) if posterior == "point" else Conditional(encoder, q_head)
    px = Conditional(decoder, head)
    if chosen_prior == "hierarchical":
        width = widths[-1] if dense else 300
        top = max(1, latent // 2)
        down = Conditional(networks.MLP((top,), 2 * latent, (width,), activation), Gaussian((latent,), "learned"))
        up = Conditional(networks.MLP((latent,), 2 * top, (width,), activation), Gaussian((top,), "learned"))
        model: Model = Chain(StandardNormal((top,)), [down], [q, up], px)
    else:
        model = VAE(choose_prior(spec, chosen_prior, latent, q, seen, components, transforms), q, px, size)
    build = OBJECTIVES[objective]
    loss = build(spec.n, latent, **chosen("objective", objective, build, given))
    if corruption != "none":
        if spec.missing or is_mixed(spec):
            raise ChoiceError("corruption is for images and plain vectors, not for tables of mixed or missing values")
        loss.corruption = choose_corruption(corruption, corruption_level, seen)
    elif corruption_level is not None:
        raise ChoiceError("`corruption_level` needs a `corruption`: gaussian, masking or salt-and-pepper")
    return Composition(model, loss, seen, defaults, partial(start, wrap=wrap), wanted)


def choose_condition(spec: DataSpec, name: str) -> Condition | None:
    """What the model is to be given beside x."""
    if name == "none":
        return None
    if name in spec.categories:
        return Condition("label", spec.categories[name], name)
    if name not in ("label", "attributes"):
        raise ChoiceError(
            f"`condition={name!r}`: the data have no such column of a few classes; choose from label, attributes"
            + "".join(f", {column}" for column in (*spec.categories, *(c.name for c in spec.columns if c.categories)))
        )
    names = spec.classes if name == "label" else spec.attributes
    if not names:
        raise ChoiceError(
            f"a model conditional on {'labels' if name == 'label' else 'attributes'} needs data that have them, and "
            "these have none: name a column (`label=COLUMN`), give `table='attributes.csv'`, or use `recipe='vae'`"
        )
    return Condition(name, names)


def choose_prior_name(prior: str, posterior: str, condition: Condition | None) -> str:
    """The prior that `auto` stands for; a prior that cannot work with the rest is refused."""
    if prior == "auto":
        return "sphere" if posterior == "sphere" else "normal"
    if (prior == "sphere") != (posterior == "sphere"):
        raise ChoiceError(
            "a prior on the sphere and a posterior on the sphere need each other: `posterior='sphere'` alone"
        )
    if prior == "vamp" and condition:
        raise ChoiceError("pseudo-inputs of a vamp prior have no condition: write `prior='mixture'` or `prior='flow'`")
    if prior == "hierarchical" and condition:
        raise ChoiceError("a hierarchical prior cannot be conditional: write `prior='flow'`")
    if posterior == "point" and prior in ("vamp", "hierarchical"):
        raise ChoiceError(f"an autoencoder has no density to make a {prior} prior of: write `prior='normal'`")
    return prior


def choose_prior(
    spec: DataSpec,
    name: str,
    latent: int,
    posterior: Conditional,
    observation: Observation,
    components: int | None,
    transforms: int | None,
) -> nn.Module:
    """p(z) of this name over `latent` dimensions."""
    if name == "mixture":
        return Mixture((latent,), components or 100)
    if name == "vamp":
        return Vamp(posterior, spec.shape, components or 100, *(x_range(observation) or (None, None)))
    if name == "flow":
        return FlowPrior((latent,), transforms or 4)
    return UniformSphere((latent,)) if name == "sphere" else StandardNormal((latent,))


def choose_corruption(name: str, level: float | None, observation: Observation) -> nn.Module:
    """What spoils the encoder's input in training."""
    level = 0.3 if level is None else level
    if not 0 < level < math.inf or (name != "gaussian" and level > 1):
        raise ChoiceError(f"`corruption_level` must be above 0 (a share up to 1 for {name}), got {level:g}")
    return make_corruption(name, level, *(x_range(observation) or (-1.0, 1.0)))
