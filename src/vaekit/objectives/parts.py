"""What several objectives ask of a model, and the input that its encoder sees."""

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
    """The model as one whose prior, posterior and likelihood can be called apart.

    Raises:
        ChoiceError: it is another kind of model.
    """
    if not isinstance(model, VAE):
        raise ChoiceError(
            f"{type(objective).__name__} takes prior, posterior and likelihood apart, and {type(model).__name__} is "
            "not a VAE of one latent layer: use the objective ELBO, or IWAE with gradient='plain'"
        )
    return model


def needs_density(objective: Objective, model: Model) -> None:
    """Refuse a model without log p(x)."""
    if model.no_density is not None:
        raise ChoiceError(
            f"{type(objective).__name__} needs log q(z | x), and this model has none ({model.no_density}): give it a "
            "Gaussian posterior, or use the objective Autoencoder"
        )


def example(posterior: nn.Module) -> Distribution | None:
    """A distribution as this posterior gives it, or None where only a datum could tell."""
    if not isinstance(posterior, Conditional):
        return None
    with torch.no_grad():
        like = next(posterior.parameters(), torch.zeros(()))
        return posterior.head(torch.zeros(1, posterior.head.features, dtype=like.dtype, device=like.device))


def needs_density_anywhere(objective: Objective, q: Distribution | None, instead: str) -> None:
    """Refuse a posterior that is cheap to draw from, but has to be inverted for log q(z | x) at another z: a flow."""
    if isinstance(q, Flow):
        raise ChoiceError(
            f"{type(objective).__name__} takes log q(z | x) at a z that was not just drawn from it, for which a flow "
            f"has to be inverted: {instead}, or give the model a Gaussian posterior, diagonal or full"
        )


def is_point(q: Distribution) -> bool:
    """Whether a posterior is one point a datum."""
    return isinstance(q.base_dist if isinstance(q, Independent) else q, Point)


def two_groups(model: VAE) -> dict[str, list[nn.Parameter]]:
    """`encoder`: what the posterior is made of; `decoder`: prior and likelihood, less what they share with it."""
    encoder = [p for p in model.posterior.parameters() if p.requires_grad]
    taken = {id(p) for p in encoder}
    generative = dict.fromkeys([*model.prior.parameters(), *model.likelihood.parameters()])
    return {"encoder": encoder, "decoder": [p for p in generative if p.requires_grad and id(p) not in taken]}
