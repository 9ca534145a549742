"""Recipes that reproduce a published model: Kingma and Welling (2013), ethanluoyc/pytorch-vae, probabilistic PCA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import nn

from vaekit import heads, networks
from vaekit.data.observation import Centred, Grey, Observation
from vaekit.errors import ChoiceError
from vaekit.heads import LIKELIHOODS, Conditional, Head
from vaekit.models.priors import StandardNormal
from vaekit.models.vae import VAE
from vaekit.objectives import ELBO
from vaekit.utils.arguments import Knob
from vaekit.utils.formerly import formerly
from vaekit.utils.register import Chosen

from .composition import Composition, DataSpec, Defaults
from .inputs import hold, is_mixed
from .observations import OBSERVATIONS, plain, whole_range
from .parts import Latent, default_likelihood, make_head
from .registry import recipe
from .signature import Pick


def check_complete(spec: DataSpec, name: str) -> None:
    """Raise ChoiceError for missing values and mixed tables, which the published models do not handle."""
    if spec.missing or is_mixed(spec):
        raise ChoiceError(f"recipe {name!r} is for numbers without missing values: use `recipe='vae'` for this table")


@formerly("observation")
def gaussian_vae(
    encoder: nn.Module, decoder: nn.Module, latent: int, head: Head, *, observation: Observation | None = None
) -> VAE:
    """A VAE with an N(0, I) prior and a diagonal Gaussian posterior.

    Arguments:
        encoder: x (B, *event) -> (B, 2 * latent), the means and raw log scales.
        decoder: z (..., latent) -> the head's raw parameters (..., head.features).
        observation: if it is `Levels` (x in 0 .. 255), the encoder's input is rescaled to [-1, 1].
    """
    if observation is not None and observation.network_range is not None:
        encoder = networks.Rescaled(encoder, *observation.network_range)
    posterior = Conditional(encoder, heads.Gaussian((latent,), "learned"))
    return VAE(StandardNormal((latent,)), posterior, Conditional(decoder, head))


def _bernoulli_or_gaussian(spec: DataSpec, names: Mapping[str, str]) -> str:
    return "bernoulli" if default_likelihood(spec) == "bernoulli" else "gaussian"


@recipe("kingma2013", "Kingma and Welling 2013, arXiv:1312.6114")
def kingma2013(
    spec: DataSpec,
    likelihood: Annotated[
        Chosen,
        Pick(
            LIKELIHOODS,
            "Bernoulli for grey images, else a Gaussian with learned mean and variance",
            auto=_bernoulli_or_gaussian,
            by_data=True,
            knobs=False,
        ),
    ],
    *,
    latent: Latent = 20,
    hidden: Annotated[int, Knob("width of the single hidden layer of encoder and decoder", low=1)] = 500,
) -> Composition:
    """The model and training of the paper: one tanh layer, weights drawn from N(0, 0.01^2), Adagrad, weight decay."""
    check_complete(spec, "kingma2013")
    observation = OBSERVATIONS[plain(spec, {"likelihood": likelihood.name})].build(spec)
    own = {"sigma": "learned"} if "sigma" in likelihood.part.knobs else {}
    head = hold(spec, observation, make_head(spec, Chosen(likelihood.part, own)))
    model = gaussian_vae(
        networks.MLP(spec.shape, 2 * latent, (hidden,), "tanh", spec.rules > 1),
        networks.MLP((latent,), head.features, (hidden,), "tanh"),
        latent,
        head,
        observation=observation,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.01)
    # the paper's prior N(0, I) on the weights: subtracting log N(theta; 0, I) / N from the mean loss adds the gradient
    # theta / N, which is a weight decay of 1 / N
    defaults = Defaults("adagrad", 0.02, 100, "constant", weight_decay=1 / spec.n, epochs=100)
    return Composition(model, ELBO(), observation, defaults)


@recipe("unit-gaussian", "ethanluoyc/pytorch-vae, vae.py")
def unit_gaussian(
    spec: DataSpec,
    *,
    latent: Latent = 8,
    hidden: Annotated[tuple[int, ...], Knob("widths of the encoder's layers", low=1)] = (512, 512),
    decoder_hidden: Annotated[tuple[int, ...], Knob("widths of the decoder's layers", low=1)] = (512,),
) -> Composition:
    """A Gaussian likelihood with unit variance and a tanh on its mean; pixels in [-0.5, 0.5], ReLU layers."""
    check_complete(spec, "unit-gaussian")
    head = heads.Gaussian(spec.shape, "unit", squash="tanh")
    model = gaussian_vae(
        networks.MLP(spec.shape, 2 * latent, hidden, "relu", spec.rules > 1),
        networks.MLP((latent,), head.features, decoder_hidden, "relu"),
        latent,
        head,
    )
    low, high = whole_range(spec, "the 'unit-gaussian' recipe")
    return Composition(model, ELBO(), Grey(low, high, 0.5), Defaults("adam", 1e-3, 128, epochs=100))


@recipe("linear", "Tipping and Bishop 1999; Lucas et al. 2019, arXiv:1911.02469")
def linear(
    spec: DataSpec,
    *,
    latent: Annotated[int, Knob("number of latents, below the number of data dimensions", low=1)] = 10,
) -> Composition:
    """Linear encoder and decoder, one learned sigma; the optimum is probabilistic PCA, found by gradient descent."""
    check_complete(spec, "linear")
    if latent >= spec.dims:
        raise ChoiceError(f"recipe 'linear' needs fewer latents than data dimensions: `latent` below {spec.dims}")
    # centring and one common scale do not change the class of models; reported numbers include the Jacobian
    posterior = Conditional(
        networks.MLP(spec.shape, latent, (), wide=spec.rules > 1), heads.Gaussian((latent,), "each")
    )
    likelihood = Conditional(networks.MLP((latent,), spec.dims, ()), heads.Gaussian(spec.shape, "shared"))
    model = VAE(StandardNormal((latent,)), posterior, likelihood)
    defaults = Defaults("adam", 1e-2, min(500, spec.n), "cosine", epochs=400)
    return Composition(model, ELBO(), Centred(spec.shape, spec.double), defaults)
