"""The general recipe: any prior, posterior, likelihood and objective that fit together.

Every named recipe that shares its networks is a setting of this one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Annotated

from torch import nn

from vaekit.data.condition import Condition
from vaekit.data.observation import Observation
from vaekit.errors import ChoiceError
from vaekit.heads import Conditional
from vaekit.heads.posteriors import POSTERIORS
from vaekit.models.priors import PRIORS
from vaekit.models.vae import VAE, Model
from vaekit.objectives import OBJECTIVES
from vaekit.objectives.corruption import CORRUPTIONS
from vaekit.utils.arguments import Knob
from vaekit.utils.register import Chosen

from .architectures import NETWORKS, by_size
from .composition import Composition, DataSpec
from .inputs import is_mixed
from .observations import OBSERVE
from .parts import Activation, Likelihood, observe, start, x_range
from .registry import recipe
from .signature import Pick


def _space(spec: DataSpec, names: Mapping[str, str]) -> str:
    """The first prior that lies where the posterior does."""
    space = POSTERIORS[names["posterior"]].traits["space"]
    return next(name for name, part in PRIORS.items() if part.traits["space"] == space)


Prior = Annotated[
    Chosen,
    Pick(PRIORS, "p(z); auto is N(0, I), or uniform on the sphere for a posterior on it", auto=_space, heading="Model"),
]
Posterior = Annotated[
    Chosen,
    Pick(
        POSTERIORS,
        "q(z|x): diagonal or full-covariance Gaussian, a flow (iaf, nsf), on the sphere, or a point",
        "gaussian",
    ),
]
Minimised = Annotated[Chosen, Pick(OBJECTIVES, "what is minimised; each takes some of the options below", "elbo")]
Latent = Annotated[
    int | None, Knob("latent dimensions (from the data's size when not given)", low=1, heading="Networks")
]
Hidden = Annotated[
    tuple[int, ...] | None,
    Knob("widths of the hidden layers, or channels of the convolutions, finest first", low=1),
]
Network = Annotated[
    Chosen, Pick(NETWORKS, "dense or convolutional; auto goes by the data's size", auto=by_size, by_data=True)
]
Observed = Annotated[Chosen, dataclasses.replace(OBSERVE, heading="What the model sees")]
Conditioned = Annotated[
    str, Knob("what else encoder and decoder are given per datum: label, attributes, or a column of a few classes")
]
Corruption = Annotated[
    Chosen,
    Pick(CORRUPTIONS, "what is done to x before it is encoded in training; the target stays clean", "none"),
]


@recipe("vae", "Kingma and Welling 2013, arXiv:1312.6114")
def compose(
    spec: DataSpec,
    prior: Prior,
    posterior: Posterior,
    likelihood: Likelihood,
    objective: Minimised,
    *,
    latent: Latent = None,
    hidden: Hidden = None,
    network: Network,
    activation: Activation,
    observation: Observed,
    condition: Conditioned = "none",
    corruption: Corruption,
) -> Composition:
    """The default: dense networks for small images and vectors, convolutions above; a likelihood that fits the data.

    ELBO(x) = E_{q(z|x)}[log p(x|z)] - KL(q(z|x) || p(z)), with any prior, posterior, likelihood and objective that fit
    together.
    """
    architecture = network.make(spec=spec, hidden=hidden, activation=activation.name)
    latent = latent if latent is not None else architecture.latent
    seen, head, event, wrap = observe(spec, likelihood, observation)
    wanted = choose_condition(spec, condition)
    size = wanted.size if wanted else 0
    q_head = posterior.make(event=(latent,))
    check_prior(spec, prior, posterior, wanted, q_head.no_density)
    q = Conditional(wrap(architecture.encoder(event, q_head.features, latent, size)), q_head)
    px = Conditional(architecture.decoder(latent, head, size), head)
    low, high = x_range(seen) or (None, None)
    made = prior.make(
        event=(latent,),
        posterior=q,
        likelihood=px,
        shape=spec.shape,
        low=low,
        high=high,
        width=architecture.width,
        activation=activation.name,
    )
    model = made if isinstance(made, Model) else VAE(made, q, px, size)
    loss = objective.make(n=spec.n, latent=latent)
    if (corrupting := make_corruption(spec, corruption, seen)) is not None:
        loss.corruption = corrupting
    return Composition(model, loss, seen, architecture.defaults, partial(start, wrap=wrap), wanted)


def check_prior(
    spec: DataSpec, prior: Chosen, posterior: Chosen, condition: Condition | None, no_density: str | None
) -> None:
    """Raise ChoiceError for a prior that cannot work with the posterior, with a condition or with the data."""
    traits, name = prior.traits, prior.name
    if traits["space"] != posterior.traits["space"]:
        where = [part.name for part in PRIORS.values() if part.traits["space"] == posterior.traits["space"]]
        raise ChoiceError(
            f"the prior {name} lies in another space ({traits['space']}) than the posterior {posterior.name} "
            f"({posterior.traits['space']}): write `prior={where[0]!r}`, or leave `prior` out"
        )
    if condition and not traits["conditional"]:
        raise ChoiceError(
            f"a {name} prior has no condition: write `prior='mixture'` or `prior='flow'`, or leave `condition` out"
        )
    if no_density and traits["density"]:
        raise ChoiceError(f"an autoencoder has no density to make a {name} prior of: write `prior='normal'`")
    if traits["rows"] and (spec.missing or is_mixed(spec)):
        raise ChoiceError(
            f"the pseudo-inputs of a {name} prior are rows of data, which cannot be learned where columns hold "
            "categories or values are missing: write `prior='mixture'` or `prior='flow'`"
        )


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


def make_corruption(spec: DataSpec, corruption: Chosen, observation: Observation) -> nn.Module | None:
    """What corrupts the encoder's input in training; None where nothing does."""
    low, high = x_range(observation) or (-1.0, 1.0)
    made = corruption.make(low=low, high=high)
    if made is not None and (spec.missing or is_mixed(spec)):
        raise ChoiceError("corruption is for images and plain vectors, not for tables of mixed or missing values")
    return made
