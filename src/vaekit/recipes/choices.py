"""Priors, posteriors and objectives by name, as `compose` puts them together.

The keyword arguments of a function here are the choices that its part takes; one that is not given keeps the default
that stands here, one that the chosen part does not take is refused.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ..conditional import Gaussian, Head
from ..errors import ChoiceError
from ..objectives import (
    CIWAE,
    DIP,
    ELBO,
    IWAE,
    PIWAE,
    WAE,
    Adversarial,
    Autoencoder,
    Capacity,
    Constrained,
    FactorVAE,
    InfoVAE,
    Objective,
    TotalCorrelation,
    WakeSleep,
)
from ..posteriors import IAF, CouplingFlow, FullCovariance, PointHead, Sphere
from ..schedules import Linear
from .parts import kl_weight, positive

PriorName = Literal["auto", "normal", "mixture", "vamp", "flow", "hierarchical", "sphere"]
PosteriorName = Literal["gaussian", "full", "iaf", "nsf", "sphere", "point"]
ObjectiveName = Literal[
    "elbo", "capacity", "constrained", "tc", "factor", "dip", "info", "wae", "aae", "iwae", "piwae", "ciwae",
    "wake-sleep", "autoencoder",
]  # fmt: skip


# --- posteriors: latent dimensions -> head -----------------------------------------------------------------------


def gaussian(latent: int) -> Head:
    return Gaussian((latent,), "learned")


def full(latent: int) -> Head:
    return FullCovariance((latent,))


def iaf(latent: int, *, transforms: int = 2) -> Head:
    return IAF((latent,), transforms=transforms)


def nsf(latent: int, *, transforms: int = 2) -> Head:
    return CouplingFlow((latent,), transforms=transforms)


def sphere(latent: int) -> Head:
    if latent < 2:
        raise ChoiceError("a sphere needs at least two dimensions: write --latent 2 or more")
    return Sphere((latent,))


def point(latent: int) -> Head:
    return PointHead((latent,))


POSTERIORS: dict[str, Callable[..., Head]] = {
    "gaussian": gaussian,
    "full": full,
    "iaf": iaf,
    "nsf": nsf,
    "sphere": sphere,
    "point": point,
}


# --- objectives: (number of training data, latent dimensions) -> objective -------------------------------------------


def elbo(
    n: int,
    latent: int,
    *,
    beta: float = 1.0,
    warmup: int = 0,
    cycles: int = 0,
    samples: int = 1,
    free_bits: float = 0.0,
) -> Objective:
    _at_least(0, free_bits=free_bits)
    positive(samples=samples)
    return ELBO(kl_weight(beta, warmup, cycles), samples, free_bits=free_bits)


def capacity(
    n: int, latent: int, *, gamma: float = 5.0, capacity: float = 25.0, capacity_steps: int = 10000
) -> Objective:
    _at_least(0, gamma=gamma, capacity=capacity)
    positive(capacity_steps=capacity_steps)
    return Capacity(gamma, Linear(capacity, capacity_steps))


def constrained(
    n: int, latent: int, *, hold: Literal["distortion", "rate"] = "rate", target: float = 20.0
) -> Objective:
    return Constrained(hold, target)


def tc(n: int, latent: int, *, alpha: float = 1.0, beta: float = 6.0, gamma: float = 1.0) -> Objective:
    _at_least(0, alpha=alpha, beta=beta, gamma=gamma)
    return TotalCorrelation(n, alpha, beta, gamma)


def factor(n: int, latent: int, *, gamma: float = 10.0) -> Objective:
    _at_least(0, gamma=gamma)
    return FactorVAE(latent, gamma)


def dip(
    n: int, latent: int, *, dip: Literal["i", "ii"] = "ii", off_diagonal: float = 10.0, diagonal: float = 10.0
) -> Objective:
    _at_least(0, off_diagonal=off_diagonal, diagonal=diagonal)
    return DIP(dip, off_diagonal, diagonal)


def info(
    n: int, latent: int, *, alpha: float = 0.0, weight: float = 100.0, kernel: Literal["imq", "gaussian"] = "imq"
) -> Objective:
    _at_least(0, weight=weight)
    return InfoVAE(alpha, weight, kernel)


def wae(n: int, latent: int, *, weight: float = 100.0, kernel: Literal["imq", "gaussian"] = "imq") -> Objective:
    _at_least(0, weight=weight)
    return WAE(weight, kernel)


def aae(n: int, latent: int, *, weight: float = 1.0) -> Objective:
    _at_least(0, weight=weight)
    return Adversarial(latent, weight)


def iwae(n: int, latent: int, *, samples: int = 50, gradient: Literal["plain", "dreg"] = "plain") -> Objective:
    positive(samples=samples)
    return IWAE(samples, gradient)


def piwae(n: int, latent: int, *, samples: int = 48, groups: int = 6) -> Objective:
    positive(samples=samples, groups=groups)
    if samples % groups:
        raise ChoiceError(f"--samples {samples} cannot be shared over --groups {groups} evenly")
    return PIWAE(samples, groups)


def ciwae(n: int, latent: int, *, samples: int = 50, mix: float = 0.05) -> Objective:
    positive(samples=samples)
    if not 0 <= mix <= 1:
        raise ChoiceError(f"--mix must lie in 0..1, got {mix:g}")
    return CIWAE(samples, mix)


def wake_sleep(n: int, latent: int) -> Objective:
    return WakeSleep()


def autoencoder(n: int, latent: int, *, l1: float = 0.0, l2: float = 0.0, gradient_penalty: float = 0.0) -> Objective:
    _at_least(0, l1=l1, l2=l2, gradient_penalty=gradient_penalty)
    return Autoencoder(l1=l1, l2=l2, gradient_penalty=gradient_penalty)


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "elbo": elbo,
    "capacity": capacity,
    "constrained": constrained,
    "tc": tc,
    "factor": factor,
    "dip": dip,
    "info": info,
    "wae": wae,
    "aae": aae,
    "iwae": iwae,
    "piwae": piwae,
    "ciwae": ciwae,
    "wake-sleep": wake_sleep,
    "autoencoder": autoencoder,
}


def takes(part: Callable[..., Any]) -> list[str]:
    """The choices a part takes by name."""
    return [n for n, p in inspect.signature(part).parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY]


OBJECTIVE_CHOICES = tuple(dict.fromkeys(c for part in OBJECTIVES.values() for c in takes(part)))


def chosen(what: str, name: str, part: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given choices that are set.

    Raises:
        ChoiceError: one of them is set that the part does not take.
    """
    found = {n: v for n, v in given.items() if v is not None}
    own = takes(part)
    for n in found:
        if n not in own:
            flags = ", ".join(f"--{o.replace('_', '-')}" for o in own) or "none of these"
            raise ChoiceError(f"{what} {name!r} takes no --{n.replace('_', '-')}; it takes {flags}")
    return found


def _at_least(least: float, **values: float) -> None:
    for name, value in values.items():
        if not least <= value < math.inf:
            raise ChoiceError(f"--{name.replace('_', '-')} must be {least:g} or more, got {value:g}")
