"""Recipes: named compositions of prior, posterior, likelihood, objective and observation.

A recipe is a function `(facts, **choices) -> Composition`. Its typed signature is its configuration: the command line
reads it, `run.json` stores the choices, and a run is rebuilt by calling the function again.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from . import conditional as heads
from . import nets
from .composition import Composition, Defaults, Facts, check_support
from .conditional import Conditional, Head
from .data.observation import (
    Binary,
    Centred,
    Dequantised,
    Grey,
    Levels,
    Observation,
    Standardised,
    Threshold,
)
from .errors import ChoiceError
from .model import VAE
from .objectives import ELBO
from .priors import StandardNormal
from .schedules import Constant, Linear, Schedule


@dataclass(frozen=True)
class Argument:
    """One choice a recipe takes, as `vaekit recipes --json` lists it."""

    name: str
    type: str
    default: Any
    choices: list[str] | None
    help: str


@dataclass(frozen=True)
class Recipe:
    """A named composition: calling it builds one."""

    name: str
    function: Callable[..., Composition]
    paper: str

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.function) or "").split("\n")[0].rstrip(".")

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        hints = get_type_hints(self.function)
        found = list(inspect.signature(self.function).parameters.values())[1:]
        return {p.name: p.replace(annotation=hints[p.name]) for p in found}

    @property
    def help(self) -> dict[str, str]:
        """One line an argument, from the `Arguments:` block of the docstring."""
        text = inspect.getdoc(self.function) or ""
        block = text.partition("Arguments:")[2]
        found: dict[str, str] = {}
        name = None
        for line in block.splitlines():
            head, colon, rest = line.strip().partition(": ")
            if colon and head in self.parameters:
                name = head
                found[name] = rest
            elif name and line.strip():
                found[name] += " " + line.strip()
        return found

    @property
    def arguments(self) -> list[Argument]:
        listed = []
        for name, p in self.parameters.items():
            literal = get_origin(p.annotation) is Literal
            kind = "choice" if literal else getattr(p.annotation, "__name__", str(p.annotation))
            if get_origin(p.annotation) not in (None, Literal):
                kind = str(p.annotation)
            choices = [str(c) for c in get_args(p.annotation)] if literal else None
            listed.append(Argument(name, kind, p.default, choices, self.help.get(name, "")))
        return listed

    def __call__(self, facts: Facts, **choices: Any) -> Composition:
        unknown = set(choices) - set(self.parameters)
        if unknown:
            raise ChoiceError(
                f"recipe {self.name!r} has no choice {sorted(unknown)[0]!r}; it takes {', '.join(self.parameters)}"
            )
        composition = self.function(facts, **choices)
        check_support(composition)
        return composition


RECIPES: dict[str, Recipe] = {}


def recipe(name: str, paper: str) -> Callable[[Callable[..., Composition]], Callable[..., Composition]]:
    """Register a function as the recipe `name`."""

    def register(function: Callable[..., Composition]) -> Callable[..., Composition]:
        RECIPES[name] = Recipe(name, function, paper)
        return function

    return register


def get_recipe(name: str) -> Recipe:
    """The recipe of this name; an unknown one is answered with the nearest."""
    import difflib

    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, 1, 0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ChoiceError(f"no recipe {name!r}{hint or ';'} there are {', '.join(sorted(RECIPES))}")
    return RECIPES[name]


# --- choices that several recipes share -------------------------------------------------------------------------

LikelihoodName = Literal["auto", "bernoulli", "continuous-bernoulli", "gaussian", "discretised-logistic"]
ObservationName = Literal["auto", "binary", "threshold", "grey", "dequantised", "levels", "standardised", "centred"]
Activation = Literal["relu", "tanh", "silu", "gelu", "elu", "softplus", "gated"]


def _whole_range(facts: Facts, wanted: str) -> tuple[float, float]:
    """The known range of the raw data, for observations that scale by it."""
    low, high = facts.scale
    if not facts.integer and (low < 0 or high > 1):
        raise ChoiceError(
            f"{wanted} needs data of a known range, but these are floats from {low:g} to {high:g}: "
            "store them as uint8, or divide them into [0, 1] (for 0..255 images: x / 255), "
            "or choose --likelihood gaussian"
        )
    return low, high


def choose_observation(facts: Facts, name: str, likelihood: str, shift: float = 0.0) -> Observation:
    """The observation of this name, or the natural one of the likelihood for `auto`."""
    if name == "auto":
        if likelihood == "bernoulli":
            name = "binary"
        elif likelihood == "discretised-logistic":
            name = "levels"
        elif likelihood == "continuous-bernoulli" or (
            facts.kind == "image" and (facts.integer or facts.scale == (0.0, 1.0))
        ):
            name = "grey"
        elif facts.kind in ("vector", "counts"):
            name = "standardised"
        else:
            name = "centred"
    if name == "standardised":
        return Standardised(facts.shape)
    if name == "centred":
        return Centred(facts.shape)
    low, high = _whole_range(facts, f"the {name!r} observation")
    if name in ("levels", "dequantised"):
        if not facts.integer or low != 0:
            raise ChoiceError(f"the {name!r} observation needs whole numbers from 0 (uint8); use --observation grey")
        return Levels(int(high) + 1) if name == "levels" else Dequantised(low, int(high) + 1)
    if name == "grey":
        return Grey(low, high, shift)
    return {"binary": Binary, "threshold": Threshold}[name](low, high)


def default_likelihood(facts: Facts) -> str:
    """Bernoulli for grey images of a known range, discretised logistic for colour bytes, Gaussian for the rest."""
    known = facts.integer or facts.scale == (0.0, 1.0)
    if facts.integer and facts.scale == (0.0, 1.0):
        return "bernoulli"
    if facts.kind == "image" and known and facts.shape[0] == 1:
        return "bernoulli"
    if facts.kind == "image" and facts.integer:
        return "discretised-logistic"
    return "gaussian"


def choose_head(facts: Facts, likelihood: str, sigma: str) -> Head:
    """The head of a likelihood; `sigma` is for the Gaussian: unit, shared, learned, or a number."""
    if likelihood == "bernoulli":
        return heads.Bernoulli(facts.shape)
    if likelihood == "continuous-bernoulli":
        return heads.ContinuousBernoulliHead(facts.shape)
    if likelihood == "discretised-logistic":
        return heads.DiscretisedLogisticHead(facts.shape, int(facts.scale[1]) + 1 if facts.integer else 256)
    if sigma in ("unit", "shared", "learned"):
        return heads.Gaussian(facts.shape, sigma)
    try:
        number = float(sigma)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ChoiceError(f"sigma {sigma!r} is not unit, shared, learned or a number above 0")
    return heads.Gaussian(facts.shape, "fixed", number)


def _positive(**values: int | tuple[int, ...] | None) -> None:
    """Refuse sizes below 1, and lists that hold one; what is None is yet to be chosen."""
    for name, value in values.items():
        sizes = value if isinstance(value, tuple | list) else () if value is None else (value,)
        for size in sizes:
            if size < 1:
                raise ChoiceError(f"--{name.replace('_', '-')} must be 1 or more, got {size}")


def _beta(beta: float, warmup: int) -> Schedule:
    if not 0 <= beta < math.inf:
        raise ChoiceError(f"--beta must be 0 or more, got {beta:g}")
    if warmup < 0:
        raise ChoiceError(f"--warmup must be 0 or more steps, got {warmup}")
    return Linear(beta, warmup) if warmup else Constant(beta)


def _start_at_data_mean(composition: Composition, x: Tensor) -> None:
    """Set the decoder's output bias to the best constant density, so that training starts from the marginals."""
    likelihood = composition.model.likelihood
    assert isinstance(likelihood, Conditional)
    net, head = likelihood.net, likelihood.head
    bias = head.initial_bias(x.mean(0), x.std(0, correction=0))
    if bias is not None:
        nets.set_output_bias(net, bias)


def gaussian_vae(
    encoder: nn.Module, decoder: nn.Module, latent: int, head: Head, observation: Observation | None = None
) -> VAE:
    """N(0, I) prior, diagonal Gaussian posterior: the encoder puts out 2 * latent numbers.

    Where x are whole levels (0 .. 255), the encoder sees them scaled into [-1, 1].
    """
    if isinstance(observation, Levels):
        encoder = nets.Rescaled(encoder, 0, observation.levels - 1)
    posterior = Conditional(encoder, heads.Gaussian((latent,), "learned"))
    return VAE(StandardNormal((latent,)), posterior, Conditional(decoder, head))


def convolutions(
    facts: Facts, latent: int, head: Head, channels: tuple[int, ...] | None, blocks: int = 0
) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder for images or signals; by default 32, 64, 128, 256 channels as far as the size goes."""
    if channels is None:
        channels = tuple(min(32 * 2**i, 256) for i in range(nets.default_levels(facts.shape[1:])))
    encoder = nets.ConvEncoder(facts.shape, 2 * latent, channels, blocks)
    return encoder, nets.ConvDecoder(latent, facts.shape, head.params, channels, blocks)


# --- the recipes ------------------------------------------------------------------------------------------------


@recipe("vae", "Kingma and Welling 2013, arXiv:1312.6114")
def vae(
    facts: Facts,
    *,
    latent: int | None = None,
    hidden: tuple[int, ...] | None = None,
    activation: Activation = "gated",
    likelihood: LikelihoodName = "auto",
    sigma: str = "shared",
    observation: ObservationName = "auto",
    beta: float = 1.0,
    warmup: int = 0,
    samples: int = 1,
) -> Composition:
    """The default: dense networks for small images and vectors, convolutions above; a likelihood that fits the data.

    Arguments:
        latent: latent dimensions (from the data's size when not given).
        hidden: widths of the hidden layers, or channels of the convolutions.
        activation: the dense layers' nonlinearity.
        likelihood: p(x|z); auto is Bernoulli for grey images, discretised logistic for colour, else Gaussian.
        sigma: the Gaussian's: unit, shared (one learned number), learned (a number an element), or a value.
        observation: how raw data become x; auto is the likelihood's natural one.
        beta: weight of the KL.
        warmup: steps over which beta rises from 0.
        samples: draws of z a datum in training (L).
    """
    dense = facts.kind in ("vector", "counts") or facts.dims <= 1024
    if latent is None:
        latent = (40 if facts.dims >= 256 else max(1, min(16, facts.dims // 4))) if dense else 128
    _positive(latent=latent, hidden=hidden, samples=samples)
    name = default_likelihood(facts) if likelihood == "auto" else likelihood
    head, seen = choose_head(facts, name, sigma), choose_observation(facts, observation, name)
    if dense:
        hidden = hidden if hidden is not None else (300, 300)
        encoder: nn.Module = nets.MLP(facts.shape, 2 * latent, hidden, activation)
        decoder: nn.Module = nets.MLP((latent,), head.features, hidden[::-1], activation)
        defaults = Defaults("adamw", 1e-3, 100, "cosine", weight_decay=1e-4, clip=None, ema=0.999, epochs=50)
    else:
        encoder, decoder = convolutions(facts, latent, head, hidden)
        defaults = Defaults("adamw", 1e-3, 64, "cosine", weight_decay=1e-4, clip=10000.0, ema=0.999, epochs=50)
    return Composition(
        gaussian_vae(encoder, decoder, latent, head, seen),
        ELBO(_beta(beta, warmup), samples),
        seen,
        defaults,
        _start_at_data_mean,
    )


@recipe("kingma2013", "Kingma and Welling 2013, arXiv:1312.6114")
def kingma2013(
    facts: Facts, *, latent: int = 20, hidden: int = 500, likelihood: LikelihoodName = "auto"
) -> Composition:
    """The paper's model and training: one tanh layer, initial deviation 0.01, Adagrad, a N(0, I) prior on the weights.

    Arguments:
        latent: latent dimensions.
        hidden: width of the one hidden layer of encoder and decoder.
        likelihood: Bernoulli for grey images, else a Gaussian with learned mean and variance.
    """
    _positive(latent=latent, hidden=hidden)
    name = likelihood
    if likelihood == "auto":
        name = "bernoulli" if default_likelihood(facts) == "bernoulli" else "gaussian"
    head, seen = choose_head(facts, name, "learned"), choose_observation(facts, "auto", name)
    model = gaussian_vae(
        nets.MLP(facts.shape, 2 * latent, (hidden,), "tanh"),
        nets.MLP((latent,), head.features, (hidden,), "tanh"),
        latent,
        head,
        seen,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.01)
    # log N(theta; 0, I) / N on the mean loss has the gradient theta / N: a weight decay of 1 / N
    defaults = Defaults("adagrad", 0.02, 100, "constant", weight_decay=1 / facts.n, epochs=100)
    return Composition(model, ELBO(), seen, defaults)


@recipe("unit-gaussian", "ethanluoyc/pytorch-vae, vae.py")
def unit_gaussian(
    facts: Facts, *, latent: int = 8, hidden: tuple[int, ...] = (512, 512), decoder_hidden: tuple[int, ...] = (512,)
) -> Composition:
    """Pixels shifted to [-0.5, 0.5], ReLU layers, tanh on the output mean, unit variance.

    Arguments:
        latent: latent dimensions.
        hidden: widths of the encoder's layers.
        decoder_hidden: widths of the decoder's layers.
    """
    _positive(latent=latent, hidden=hidden, decoder_hidden=decoder_hidden)
    head = heads.Gaussian(facts.shape, "unit", squash="tanh")
    model = gaussian_vae(
        nets.MLP(facts.shape, 2 * latent, hidden, "relu"),
        nets.MLP((latent,), head.features, decoder_hidden, "relu"),
        latent,
        head,
    )
    low, high = _whole_range(facts, "the 'unit-gaussian' recipe")
    return Composition(model, ELBO(), Grey(low, high, 0.5), Defaults("adam", 1e-3, 128, epochs=100))


@recipe("conv", "Kingma and Welling 2013, arXiv:1312.6114")
def conv(
    facts: Facts,
    *,
    latent: int = 512,
    channels: tuple[int, ...] | None = None,
    blocks: int = 0,
    likelihood: LikelihoodName = "auto",
    sigma: str = "shared",
    observation: ObservationName = "auto",
    beta: float = 1.0,
    warmup: int = 0,
) -> Composition:
    """Convolutions for images (or signals) of any size and channels, made for 64x64x3 with 512 latents.

    Arguments:
        latent: latent dimensions.
        channels: channels of each level, finest first; every level halves the grid.
        blocks: residual blocks a level.
        likelihood: p(x|z); auto is Bernoulli for grey images, discretised logistic for colour, else Gaussian.
        sigma: the Gaussian's: unit, shared (one learned number), learned (a number an element), or a value.
        observation: how raw data become x; auto is the likelihood's natural one.
        beta: weight of the KL.
        warmup: steps over which beta rises from 0.
    """
    _positive(latent=latent, channels=channels)
    if blocks < 0:
        raise ChoiceError(f"--blocks must be 0 or more, got {blocks}")
    if facts.kind not in ("image", "signal"):
        raise ChoiceError(f"recipe 'conv' needs images or signals, but these are {facts.kind} data: use --recipe vae")
    name = default_likelihood(facts) if likelihood == "auto" else likelihood
    head = choose_head(facts, name, sigma)
    encoder, decoder = convolutions(facts, latent, head, channels, blocks)
    seen = choose_observation(facts, observation, name)
    return Composition(
        gaussian_vae(encoder, decoder, latent, head, seen),
        ELBO(_beta(beta, warmup)),
        seen,
        Defaults("adamw", 1e-3, 64, "cosine", weight_decay=1e-4, ema=0.999, epochs=50),
        _start_at_data_mean,
    )


@recipe("linear", "Tipping and Bishop 1999; Lucas et al. 2019, arXiv:1911.02469")
def linear(facts: Facts, *, latent: int = 10) -> Composition:
    """Linear encoder and decoder with one free sigma: its optimum is probabilistic PCA, reached here by gradients.

    Arguments:
        latent: latent dimensions, at most the data's minus one.
    """
    _positive(latent=latent)
    if latent >= facts.dims:
        raise ChoiceError(f"recipe 'linear' needs fewer latents than data dimensions: --latent below {facts.dims}")
    # shift and one isotropic scale leave the model class as it is; the Jacobian goes into every reported number
    posterior = Conditional(nets.MLP(facts.shape, latent, ()), heads.Gaussian((latent,), "each"))
    likelihood = Conditional(nets.MLP((latent,), facts.dims, ()), heads.Gaussian(facts.shape, "shared"))
    model = VAE(StandardNormal((latent,)), posterior, likelihood)
    defaults = Defaults("adam", 1e-2, min(500, facts.n), "cosine", epochs=400)
    return Composition(model, ELBO(), Centred(facts.shape), defaults)
