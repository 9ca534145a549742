"""The general recipe: any compatible prior, posterior, likelihood and objective.

The recipes in `named` are this one with other defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Annotated

from torch import nn

from vaekit.data.condition import Condition, column_names
from vaekit.data.covariates import Covariate, Covariates
from vaekit.data.observation import Observation
from vaekit.errors import ChoiceError
from vaekit.heads import Bernoulli, Conditional
from vaekit.heads.posteriors import POSTERIORS
from vaekit.models.library import FromTotal, SizedVAE, WithTotal, library_of
from vaekit.models.priors import PRIORS
from vaekit.models.vae import VAE, Model
from vaekit.objectives import OBJECTIVES
from vaekit.objectives.corruption import CORRUPTIONS
from vaekit.utils.arguments import Knob
from vaekit.utils.register import Chosen
from vaekit.utils.wording import in_python

from .architectures import NETWORKS, Dense, by_size, steadied
from .composition import Composition, DataSpec
from .inputs import is_mixed
from .observations import OBSERVE
from .parts import Activation, Likelihood, observe, start
from .registry import recipe
from .signature import Pick


def _space(spec: DataSpec, names: Mapping[str, str]) -> str:
    """The default prior: the first one registered in the space of the posterior, real or sphere."""
    space = POSTERIORS[names["posterior"]].traits["space"]
    return next(name for name, part in PRIORS.items() if part.traits["space"] == space)


Prior = Annotated[
    Chosen,
    Pick(PRIORS, "p(z); auto: N(0, I), or uniform for the posterior sphere", auto=_space, heading="Model"),
]
Posterior = Annotated[
    Chosen,
    Pick(
        POSTERIORS,
        "q(z|x): Gaussian, diagonal or with full covariance, flow (iaf, nsf), on the sphere, or point (autoencoders)",
        "gaussian",
    ),
]
Minimised = Annotated[Chosen, Pick(OBJECTIVES, "what training minimises; each objective has its own options", "elbo")]
Latent = Annotated[
    int | None, Knob("number of latents; by default it depends on the size of the data", low=1, heading="Networks")
]
Hidden = Annotated[
    tuple[int, ...] | None,
    Knob("widths of the encoder's hidden layers, or channels of its convolutions, finest grid first", low=1),
]
Network = Annotated[
    Chosen,
    Pick(
        NETWORKS,
        "dense, convolutional (conv), or convolutional with small images as codes (grid, or for diffusers "
        "autoencoder-kl); auto: dense or conv, by the size of the data",
        auto=by_size,
        by_data=True,
    ),
]
Observed = Annotated[Chosen, dataclasses.replace(OBSERVE, heading="What the model sees")]
Conditioned = Annotated[
    str,
    Knob(
        "additional input of encoder and decoder: label, attributes, or names of columns with a few classes or with "
        "numbers, separated by commas"
    ),
]
Corruption = Annotated[
    Chosen,
    Pick(CORRUPTIONS, "corrupts the encoder's input in training; the target stays clean", "none"),
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
    """The default: dense networks for vectors and small images, else convolutions; a likelihood that suits the data.

    ELBO(x) = E_{q(z|x)}[log p(x|z)] - KL(q(z|x) || p(z)). Each part, and the objective, can be replaced.
    """
    architecture = network.make(spec=spec, hidden=hidden, activation=activation.name)
    latent = latent if latent is not None else architecture.latent
    x_observation, head, event, wrap = observe(spec, likelihood, observation, sized=True)
    wanted = choose_condition(spec, condition)
    size = wanted.size if wanted else 0
    library = check_library(library_of(head), prior, posterior)
    latents = latent + (library == "latent")
    narrow = prior.name in ("mixture", "vamp")  # their Gaussians are narrow
    slow = spec.kind == "image" and spec.rules > (8 if narrow else 9)
    q_head = posterior.make(event=(latents,), slow=slow)
    check_prior(spec, prior, posterior, wanted, q_head.no_density)
    encoder = wrap(architecture.encoder(event, q_head.features, latents, size))
    q = Conditional(FromTotal(encoder, latents) if library == "latent" else encoder, q_head)
    decoder = architecture.decoder(latent, head, size)
    px = Conditional(decoder if library == "none" else WithTotal(decoder), head)
    low, high = x_observation.x_range or (None, None)
    p_z = prior.make(
        event=(latents,),
        posterior=q,
        likelihood=px,
        shape=spec.shape,
        low=low,
        high=high,
        width=architecture.width,
        activation=activation.name,
    )
    kind = SizedVAE if library == "observed" else VAE
    model = p_z if isinstance(p_z, Model) else kind(p_z, q, px, size)
    model.grid = None if isinstance(p_z, Model) else architecture.grid(latents)
    real = [column.kind == "real" for column in spec.columns] or [not head.discrete] * spec.dims
    loss = objective.make(
        n=spec.n,
        latent=latents,
        mixed=is_mixed(spec),
        images=spec.kind == "image" and spec.rules > 3,
        event=spec.shape,
        real=real,
        missing=spec.missing,
    )
    if (corrupting := make_corruption(spec, corruption, x_observation)) is not None:
        loss.corruption = corrupting
    defaults = architecture.defaults
    if narrow or loss.planned:
        defaults = steadied(defaults, spec, isinstance(head, Bernoulli), isinstance(architecture, Dense))
    if loss.most_lr is not None:
        defaults = dataclasses.replace(defaults, lr=min(defaults.lr, loss.most_lr))
    return Composition(model, loss, x_observation, defaults, partial(start, wrap=wrap), wanted)


def check_library(library: str, prior: Chosen, posterior: Chosen) -> str:
    """`library`, after a check that prior and posterior support it.

    Raises:
        ChoiceError: they do not.
    """
    if library == "latent" and posterior.name != "gaussian":
        raise ChoiceError(
            f"`library='latent'` needs a Gaussian posterior, not {posterior.name}: write `library='observed'`, or "
            "leave `posterior` out"
        )
    if library != "none" and prior.name == "hierarchical":
        raise ChoiceError(f"`library={library!r}` does not support the prior hierarchical: leave `prior` out")
    return library


def check_prior(
    spec: DataSpec, prior: Chosen, posterior: Chosen, condition: Condition | None, no_density: str | None
) -> None:
    """Raise ChoiceError for a prior that is incompatible with the posterior, a condition or the data."""
    traits, name = prior.traits, prior.name
    if traits["space"] != posterior.traits["space"]:
        where = [part.name for part in PRIORS.values() if part.traits["space"] == posterior.traits["space"]]
        raise ChoiceError(
            f"the prior {name} is defined on another space ({traits['space']}) than the posterior {posterior.name} "
            f"({posterior.traits['space']}): write `prior={where[0]!r}`, or leave `prior` out"
        )
    if condition and not traits["conditional"]:
        raise ChoiceError(
            f"the prior {name} does not support a condition: write `prior='mixture'` or `prior='flow'`, or leave "
            "`condition` out"
        )
    if no_density and traits["density"]:
        raise ChoiceError(
            f"the prior {name} needs a posterior with a density, which an autoencoder does not have: write "
            "`prior='normal'`"
        )
    if traits["rows"] and (spec.missing or is_mixed(spec)):
        raise ChoiceError(
            f"the pseudo-inputs of a {name} prior are rows of data, which cannot be learned where columns hold "
            "categories or values are missing: write `prior='mixture'` or `prior='flow'`"
        )


def choose_condition(spec: DataSpec, name: str) -> Condition | None:
    """The condition of the model, or None.

    Raises:
        ChoiceError: the data have no such labels, attributes or column.
    """
    if name == "none":
        return None
    if name in spec.categories:
        return Condition("label", spec.categories[name], name)
    several = [name] if name in spec.numbers else column_names(name)
    if len(several) > 1 or name in spec.numbers:
        return Covariates.of_columns([_covariate(spec, one) for one in several])
    if name not in ("label", "attributes"):
        raise ChoiceError(
            f"`condition={name!r}`: the data have no such column of numbers or of a few classes; choose from label, "
            f"attributes{_columns_of(spec)}"
        )
    names = spec.classes if name == "label" else spec.attributes
    if not names:
        given = "`table='attributes.csv'` beside a folder of images"
        if name == "label":
            given = f"`label=COLUMN`, {given}{in_python(', or vk.from_arrays(x, label=y)')}"
        raise ChoiceError(
            f"a model conditional on {'labels' if name == 'label' else 'attributes'} needs data that have them, and "
            f"these have none: read them with theirs ({given}), or use `recipe='vae'`"
        )
    return Condition(name, names)


def _covariate(spec: DataSpec, name: str) -> Covariate:
    """The covariate of one column, or of the labels.

    Raises:
        ChoiceError: the data have no such column.
    """
    if name in spec.categories:
        return Covariate(name, spec.categories[name])
    if name in spec.numbers:
        return Covariate(name, (), *spec.numbers[name])
    if name == "label" and spec.classes:
        return Covariate(name, spec.classes)
    raise ChoiceError(
        f"`condition`: the data have no column {name!r} of numbers or of a few classes; choose from label"
        f"{_columns_of(spec)}"
    )


def _columns_of(spec: DataSpec) -> str:
    """The names of the columns that may be a condition, for messages."""
    of_table = (column.name for column in spec.columns if column.categories)
    return "".join(f", {name}" for name in dict.fromkeys((*spec.categories, *spec.numbers, *of_table)))


def make_corruption(spec: DataSpec, corruption: Chosen, observation: Observation) -> nn.Module | None:
    """The module that corrupts the encoder's input in training, or None.

    Raises:
        ChoiceError: an option is out of range, or the data are a mixed table or have missing values.
    """
    low, high = observation.x_range or (-1.0, 1.0)
    module = corruption.make(low=low, high=high)
    if module is not None and (spec.missing or is_mixed(spec)):
        raise ChoiceError("corruption is for images and plain vectors, not for mixed tables or missing values")
    return module
