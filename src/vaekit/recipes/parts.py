"""The choices that recipes share: observation and likelihood by name, and checks of sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from vaekit import heads, networks
from vaekit.data.observation import (
    Binary,
    Centred,
    Counts,
    Dequantised,
    Grey,
    Levels,
    MixedTable,
    Observation,
    Standardised,
    Threshold,
)
from vaekit.errors import ChoiceError
from vaekit.heads import Conditional, Head
from vaekit.heads.mixed import Masked, MixedHead, start_bias
from vaekit.objectives.schedules import Constant, Cyclic, Geometric, Linear, Schedule

from .composition import Composition, DataSpec
from .inputs import Adapted, adapt_inputs, is_mixed

LikelihoodName = Literal[
    "auto", "bernoulli", "continuous-bernoulli", "beta", "gaussian", "laplace", "student-t", "discretised-logistic",
    "logistic-mixture", "categorical", "poisson", "negative-binomial", "zero-inflated", "mixed",
]  # fmt: skip
ObservationName = Literal[
    "auto", "binary", "threshold", "grey", "dequantised", "levels", "standardised", "centred", "counts", "mixed"
]
COUNTED = ("poisson", "negative-binomial", "zero-inflated")
Activation = Literal["relu", "tanh", "silu", "gelu", "elu", "softplus", "gated"]


def whole_range(spec: DataSpec, wanted: str) -> tuple[float, float]:
    """The known range of the raw data, for observations that scale by it."""
    low, high = spec.scale
    if not spec.integer and (low < 0 or high > 1):
        raise ChoiceError(
            f"{wanted} needs uint8 or numbers in [0, 1], whose range is known, but these run from {low:g} to {high:g}: "
            "store them as uint8 (of 16 bits: round((x - low) / (high - low) * 255)), divide them into [0, 1] (for "
            "0..255 images: x / 255), or choose `likelihood='gaussian'`"
        )
    return low, high


def choose_observation(spec: DataSpec, name: str, likelihood: str, shift: float = 0.0) -> Observation:
    """The observation of this name, or the natural one of the likelihood for `auto`."""
    if name == "auto":
        natural = {
            "bernoulli": "binary",
            "beta": "dequantised",
            "continuous-bernoulli": "dequantised" if spec.rules > 1 else "grey",
            "mixed": "mixed",
            **dict.fromkeys(("discretised-logistic", "logistic-mixture", "categorical"), "levels"),
            **dict.fromkeys(COUNTED, "counts"),
        }
        if likelihood in natural:
            name = natural[likelihood]
        elif spec.kind == "image" and (spec.integer or spec.scale == (0.0, 1.0)):
            name = "grey"
        elif spec.kind in ("vector", "counts"):
            name = "standardised"
        else:
            name = "centred"
    if name == "standardised":
        return Standardised(spec.shape, spec.double)
    if name == "mixed":
        if not spec.columns:
            raise ChoiceError("the 'mixed' observation is for tables (.csv, .parquet), whose columns differ in kind")
        return MixedTable(spec.columns, spec.double)
    if name == "counts":
        if spec.scale[0] < 0 or not (spec.kind == "counts" or spec.integer):
            raise ChoiceError("the 'counts' observation needs whole numbers from 0: load the data with `kind='counts'`")
        return Counts()
    if name == "centred":
        return Centred(spec.shape, spec.double)
    low, high = whole_range(spec, f"the {name!r} observation")
    if name == "dequantised" and not spec.integer:
        return Dequantised(0.0, 256, 1 / 255)  # of 8-bit images divided by 255 these are the levels
    if name in ("levels", "dequantised"):
        if not spec.integer or low != 0:
            raise ChoiceError(
                f"the {name!r} observation needs whole numbers from 0 (uint8): store the data as uint8, or choose "
                "`likelihood='continuous-bernoulli'` or gaussian"
            )
        return Levels(int(high) + 1) if name == "levels" else Dequantised(low, int(high) + 1)
    if name == "grey":
        return Grey(low, high, shift)
    return {"binary": Binary, "threshold": Threshold}[name](low, high)


def default_likelihood(spec: DataSpec) -> str:
    """Bernoulli for grey images of a known range, discretised logistic for colour bytes, negative binomial for counts,
    each column its own for tables of several kinds, Gaussian for the rest.
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


def choose_head(spec: DataSpec, likelihood: str, sigma: str) -> Head:
    """The head of a likelihood; `sigma` is for those with a scale: unit, shared, learned, optimal or a number."""
    if likelihood == "mixed":
        if not spec.columns:
            raise ChoiceError("likelihood 'mixed' is for tables (.csv, .parquet), whose columns differ in kind")
        return MixedHead(spec.columns, scaled=spec.rules > 1)
    if any(column.kind == "categorical" for column in spec.columns):
        raise ChoiceError(
            f"this table has columns of categories, which {likelihood} would take for numbers: write mixed"
        )
    plain: dict[str, Callable[..., Head]] = {
        "bernoulli": heads.Bernoulli,
        "continuous-bernoulli": heads.ContinuousBernoulliHead,
        "beta": heads.BetaHead,
    }
    if likelihood in plain:
        return plain[likelihood](spec.shape)
    counted: dict[str, Callable[..., Head]] = {
        "poisson": heads.PoissonHead,
        "negative-binomial": heads.NegativeBinomialHead,
        "zero-inflated": heads.ZeroInflatedNegativeBinomialHead,
    }
    if likelihood in counted:
        return counted[likelihood](spec.shape, **heads.count_range(scaled=spec.rules > 1))
    levels = int(spec.scale[1]) + 1 if spec.integer else 256
    of_levels: dict[str, Callable[..., Head]] = {
        "discretised-logistic": heads.DiscretisedLogisticHead,
        "logistic-mixture": heads.LogisticMixtureHead,
        "categorical": heads.CategoricalHead,
    }
    if likelihood in of_levels:
        return of_levels[likelihood](spec.shape, levels)
    scaled: dict[str, Callable[..., Head]] = {
        "gaussian": heads.Gaussian,
        "laplace": heads.LaplaceHead,
        "student-t": lambda event, *scale: heads.StudentTHead(event, "shared", *scale),
    }
    if sigma in ("unit", "shared", "learned") or (sigma == "optimal" and likelihood == "gaussian"):
        return scaled[likelihood](spec.shape, sigma)
    try:
        number = float(sigma)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        also = ", optimal" if likelihood == "gaussian" else ""
        raise ChoiceError(f"sigma {sigma!r} is not unit, shared, learned{also} or a number above 0")
    return scaled[likelihood](spec.shape, "fixed", number)


def seen_as(spec: DataSpec, likelihood: str, sigma: str, observation: str) -> Adapted:
    """Observation, head and what the encoder sees of x, for a likelihood and an observation by name.

    Counts are shown to it as logarithms, categories one-hot, levels within [-1, 1], missing values with their mask.
    """
    name = default_likelihood(spec) if likelihood == "auto" else likelihood
    made = adapt_inputs(spec, choose_observation(spec, observation, name), choose_head(spec, name, sigma))
    if not isinstance(made.observation, Levels):
        return made
    top = made.observation.levels - 1
    return made._replace(wrap=lambda net: networks.Rescaled(made.wrap(net), 0, top))


def x_range(observation: Observation) -> tuple[float, float] | None:
    """The lowest and the highest x an observation gives, where it has such."""
    if isinstance(observation, Levels):
        return 0.0, observation.levels - 1.0
    if isinstance(observation, Grey):
        return -observation.shift, 1.0 - observation.shift
    return (0.0, 1.0) if observation.bounded else None


def positive(**values: int | tuple[int, ...] | None) -> None:
    """Refuse sizes below 1, and lists that hold one; what is None is yet to be chosen."""
    for name, value in values.items():
        sizes = value if isinstance(value, tuple | list) else () if value is None else (value,)
        for size in sizes:
            if size < 1:
                raise ChoiceError(f"`{name}` must be 1 or more, got {size}")


def kl_weight(beta: float, warmup: int, cycles: int = 0, start: float = 0.0) -> Schedule:
    """beta at every step, or reached from `start` over `warmup` steps, or risen to in every cycle of `cycles` steps.

    From 0 it rises evenly; from any other start it moves in equal ratios.
    """
    if not 0 <= beta < math.inf:
        raise ChoiceError(f"`beta` must be 0 or more, got {beta:g}")
    if not 0 <= start < math.inf:
        raise ChoiceError(f"`beta_from` must be 0 or more, got {start:g}")
    if start and (not warmup or cycles or not beta):
        raise ChoiceError("`beta_from` takes the steps to `beta` as `warmup`, a `beta` above 0 and no `cycles`")
    if warmup < 0 or cycles < 0:
        raise ChoiceError(f"`warmup` and `cycles` must be 0 or more steps, got {min(warmup, cycles)}")
    if cycles:
        if warmup > cycles:
            raise ChoiceError(f"`warmup={warmup}` must fit into a cycle of `cycles={cycles}` steps")
        return Cyclic(beta, cycles, warmup / cycles if warmup else 0.5)
    if start:
        return Geometric(beta, warmup, start)
    return Linear(beta, warmup) if warmup else Constant(beta)


def start(composition: Composition, x: Tensor, wrap: Callable[[nn.Module], nn.Module] | None = None) -> None:
    """Start from the data: the output at the best constant density, the centre of what the encoder sees of x
    (`wrap` makes an encoder of a network), and whatever has a `start(x)` of its own.
    """
    likelihood = composition.model.likelihood
    if isinstance(likelihood, Conditional) and isinstance(likelihood.head, Head):
        head = likelihood.head.head if isinstance(likelihood.head, Masked) else likelihood.head
        head.start_numbers(x)
        bias = start_bias(head, x)
        if bias is not None:
            networks.set_output_bias(likelihood.net, bias)
    for module in composition.model.modules():
        if wrap and isinstance(module, networks.DirectIn):
            module.centre.copy_(wrap(nn.Identity())(x).mean(0)[: module.channels])
        begin = getattr(module, "start", None)
        if callable(begin):
            begin(x)
