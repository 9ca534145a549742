"""Requirements of several objectives on the model, and its parameter groups."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributions import Distribution, Independent

from vaekit.densities import Point
from vaekit.densities.flows import Flow
from vaekit.errors import ChoiceError
from vaekit.heads import Conditional
from vaekit.models.vae import VAE, Model

from .base import Objective


def one_layer(objective: Objective, model: Model) -> VAE:
    """The model as a VAE, whose prior, posterior and p(x | z) (`px`) can be called separately.

    Raises:
        ChoiceError: it is another kind of model.
    """
    if not isinstance(model, VAE):
        raise ChoiceError(
            f"{type(objective).__name__} calls prior, posterior and likelihood separately, and {type(model).__name__} "
            "is not a VAE of one latent layer: use the objective ELBO or IWAE with gradient='plain'"
        )
    return model


def needs_density(objective: Objective, model: Model) -> None:
    """Check that the model has a density.

    Raises:
        ChoiceError: it has none.
    """
    if model.no_density is not None:
        raise ChoiceError(
            f"{type(objective).__name__} needs log q(z | x), and this model has none ({model.no_density}): give it a "
            "Gaussian posterior, or use the objective Autoencoder"
        )


def example(posterior: nn.Module) -> Distribution | None:
    """A distribution of the type that this posterior returns, or None if that depends on the data."""
    if not isinstance(posterior, Conditional):
        return None
    with torch.no_grad():
        like = next(posterior.parameters(), torch.zeros(()))
        return posterior.head(torch.zeros(1, posterior.head.features, dtype=like.dtype, device=like.device))


def needs_density_anywhere(objective: Objective, q: Distribution | None, instead: str) -> None:
    """Check that log q(z | x) is cheap at any z.

    Raises:
        ChoiceError: q is a flow, which has to be inverted for this.
    """
    if isinstance(q, Flow):
        raise ChoiceError(
            f"{type(objective).__name__} needs log q(z | x) at any z, for which a flow has to be inverted: {instead}, "
            f"or give the model a Gaussian posterior, diagonal or full"
        )


def is_point(q: Distribution) -> bool:
    """Whether a posterior is a point per example."""
    return isinstance(q.base_dist if isinstance(q, Independent) else q, Point)


def two_groups(model: VAE) -> dict[str, list[nn.Parameter]]:
    """`encoder`: the parameters of the posterior; `decoder`: those of prior and likelihood that it does not share."""
    encoder = [p for p in model.posterior.parameters() if p.requires_grad]
    taken = {id(p) for p in encoder}
    generative = dict.fromkeys([*model.prior.parameters(), *model.likelihood.parameters()])
    return {"encoder": encoder, "decoder": [p for p in generative if p.requires_grad and id(p) not in taken]}
