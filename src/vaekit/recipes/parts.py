"""Shared by recipes: the choice of likelihood, observation and activation, and the initialisation from the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

from torch import Tensor, nn

from vaekit import heads, networks
from vaekit.data.observation import Observation
from vaekit.errors import ChoiceError
from vaekit.heads import LIKELIHOODS, Conditional, Head
from vaekit.models.library import library_of
from vaekit.utils.arguments import Knob
from vaekit.utils.register import Chosen

from .composition import Composition, DataSpec
from .factors import start_as_factors
from .inputs import Adapted, adapt_inputs, is_mixed, most_one_hot
from .patches import start_as_patches, weight_of_kl
from .signature import Pick

Activation = Annotated[Chosen, Pick(networks.ACTIVATIONS, "nonlinearity of the dense layers", "gated", knobs=False)]
Latent = Annotated[int, Knob("number of latents", low=1)]
Widths = Annotated[tuple[int, ...], Knob("widths of the hidden layers", low=1)]


def default_likelihood(spec: DataSpec) -> str:
    """The name of the default likelihood for these data.

    Negative binomial for counts; `mixed` for tables with columns that are not real; Bernoulli for binary data and for
    grey images in a known range; discretised logistic for 8-bit colour images; Gaussian for all others.
    """
    if spec.kind == "counts":
        return "negative-binomial"
    if is_mixed(spec):
        return "mixed"
    known = spec.integer or spec.scale == (0.0, 1.0)
    if spec.integer and spec.scale == (0.0, 1.0):
        return "bernoulli"
    if spec.kind == "image" and known and spec.shape[0] == 1:
        return "bernoulli"
    if spec.kind == "image" and spec.integer:
        return "discretised-logistic"
    return "gaussian"


def make_head(spec: DataSpec, likelihood: Chosen) -> Head:
    """The head of a likelihood for these data.

    Raises:
        ChoiceError: the likelihood is for tables only, or the data have categorical columns that it does not support.
    """
    tables = likelihood.traits["tables"]
    if tables and not spec.columns:
        raise ChoiceError(
            f"likelihood {likelihood.name!r} is for tables (.csv, .parquet), whose columns differ in kind"
        )
    if not tables and any(column.kind == "categorical" for column in spec.columns):
        raise ChoiceError(
            f"this table has categorical columns, which {likelihood.name} would treat as numbers: write "
            "`likelihood='mixed'`"
        )
    if tables and spec.rules < 3:  # such runs store a `sigma` that did not apply
        likelihood = Chosen(likelihood.part, {name: v for name, v in likelihood.knobs.items() if name != "sigma"})
    if likelihood.name == "discretised-logistic" and spec.rules < 6:
        likelihood = Chosen(likelihood.part, {**likelihood.knobs, "least_scale": 0.0})
    return likelihood.make(
        event=spec.shape,
        levels=int(spec.scale[1]) + 1 if spec.integer else 256,
        columns=spec.columns,
        most=most_one_hot(spec),
        **heads.count_range(scaled=spec.rules > 1),
    )


def _likelihood_by_data(spec: DataSpec, names: Mapping[str, str]) -> str:
    return default_likelihood(spec)


Likelihood = Annotated[
    Chosen,
    Pick(
        LIKELIHOODS,
        "p(x|z); auto: Bernoulli for grey images, discretised logistic for colour, negative binomial for counts, mixed "
        "for tables with other columns than numbers, else Gaussian",
        auto=_likelihood_by_data,
        by_data=True,
    ),
]


def observe(spec: DataSpec, likelihood: Chosen, observation: Chosen, sized: bool = False) -> Adapted:
    """An observation, the likelihood's head and the encoder's input, adapted to the data.

    As `adapt_inputs`, with levels rescaled to [-1, 1] for the encoder.

    Arguments:
        sized: whether the recipe's models support a total count (`library`).

    Raises:
        ChoiceError: the likelihood has a total count, but the models do not support it; or as for `adapt_inputs`.
    """
    head = make_head(spec, likelihood)
    if (library := library_of(head)) != "none" and not sized:
        raise ChoiceError(
            f"`library={library!r}` is an option of the recipe vae and its settings: write `recipe='vae'`"
        )
    adapted = adapt_inputs(spec, observation.make(spec=spec), head)
    reach = adapted.observation.network_range
    if reach is None:
        return adapted
    return adapted._replace(wrap=lambda net: networks.Rescaled(adapted.wrap(net), *reach))


def plain(spec: DataSpec, likelihood: Chosen, observation: Chosen) -> tuple[Observation, Head]:
    """The observation and the likelihood's head of recipes whose encoder takes x itself.

    Raises:
        ChoiceError: the data are a mixed table or have missing values.
    """
    adapted = observe(spec, likelihood, observation)
    if adapted.event != spec.shape:
        raise ChoiceError(
            "this recipe is for images, signals and vectors without missing values: use `recipe='vae'` for these data"
        )
    return adapted.observation, adapted.head


def start(
    composition: Composition,
    x: Tensor,
    c: Tensor | None = None,
    *,
    wrap: Callable[[nn.Module], nn.Module] | None = None,
) -> None:
    """Initialise a model from training data x (n, *event) and, if it is conditional, their conditions c (n, C).

    The decoder starts at the best constant density, or the model as factor analysis (of patches, if codes are small
    images) if its networks have a linear path, and the encoder's linear layer is centred on the mean of its input.
    Then `start(x)` of every module that has this method is called, such as that of a VampPrior or a codebook.

    Arguments:
        wrap: as in `Adapted`; None if the encoder's linear layer is not to be centred.
    """
    likelihood = composition.model.likelihood
    if isinstance(likelihood, Conditional) and isinstance(likelihood.head, Head):
        likelihood.head.start_numbers(x)
        bias = likelihood.head.bias_of(x)
        if bias is not None:
            networks.set_output_bias(likelihood.net, bias)
    objective = composition.objective
    start_as_factors(composition.model, x, c, objective.kept if objective.trims else None)
    if wrap:
        start_as_patches(composition.model, x, wrap, weight_of_kl(objective))
    for module in composition.model.modules():
        if wrap and isinstance(module, networks.DirectIn):
            module.centre.copy_(wrap(nn.Identity())(x).mean(0)[: module.channels])
        begin = getattr(module, "start", None)
        if callable(begin):
            begin(x)
