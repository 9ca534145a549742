"""Priors, posteriors and objectives by name, as `compose` puts them together.

The keyword arguments of a function here are the choices that its part takes; one that is not given keeps the default
that stands here, one that the chosen part does not take is refused.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from vaekit.errors import ChoiceError
from vaekit.heads import Gaussian, Head
from vaekit.heads.posteriors import IAF, CouplingFlow, FullCovariance, PointHead, Sphere
from vaekit.objectives import (
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
from vaekit.objectives.schedules import Linear

from .parts import kl_weight, positive

PriorName = Literal["auto", "normal", "mixture", "vamp", "flow", "hierarchical", "sphere"]
PosteriorName = Literal["gaussian", "full", "iaf", "nsf", "sphere", "point"]
ObjectiveName = Literal[
    "elbo", "capacity", "constrained", "tc", "factor", "dip", "info", "wae", "aae", "iwae", "piwae", "ciwae",
    "wake-sleep", "autoencoder",
]  # fmt: skip
Gradient = Literal["plain", "dreg"]


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
        raise ChoiceError("a sphere needs at least two dimensions: write `latent=2` or more")
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
    beta_from: float = 0.0,
    cycles: int = 0,
    samples: int = 1,
    free_bits: float = 0.0,
) -> Objective:
    _at_least(0, free_bits=free_bits)
    positive(samples=samples)
    return ELBO(kl_weight(beta, warmup, cycles, beta_from), samples, free_bits=free_bits)


def capacity(
    n: int, latent: int, *, gamma: float = 5.0, capacity: float = 25.0, capacity_steps: int = 10000, samples: int = 1
) -> Objective:
    _at_least(0, gamma=gamma, capacity=capacity)
    positive(capacity_steps=capacity_steps, samples=samples)
    return Capacity(gamma, Linear(capacity, capacity_steps), samples=samples)


def constrained(
    n: int,
    latent: int,
    *,
    hold: Literal["distortion", "rate"] = "rate",
    target: float = 20.0,
    multiplier: float = 1.0,
    multiplier_lr: float = 0.01,
    samples: int = 1,
) -> Objective:
    _at_least(0 if hold == "rate" else -math.inf, target=target)
    positive(samples=samples)
    if not 0 < multiplier <= 1e6:
        raise ChoiceError(f"`multiplier` must be above 0 and at most 1e6, got {multiplier:g}")
    if not 0 < multiplier_lr < math.inf:
        raise ChoiceError(f"`multiplier_lr` must be above 0, got {multiplier_lr:g}")
    return Constrained(hold, target, multiplier_lr, multiplier, samples)


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
    if not -math.inf < alpha <= 1:
        raise ChoiceError(f"`alpha` must be 1 or less in info, above which the KL would be made large, got {alpha:g}")
    return InfoVAE(alpha, weight, kernel)


def wae(n: int, latent: int, *, weight: float = 100.0, kernel: Literal["imq", "gaussian"] = "imq") -> Objective:
    _at_least(0, weight=weight)
    return WAE(weight, kernel)


def aae(n: int, latent: int, *, weight: float = 1.0) -> Objective:
    _at_least(0, weight=weight)
    return Adversarial(latent, weight)


def iwae(n: int, latent: int, *, samples: int = 50, gradient: Gradient = "plain", groups: int = 1) -> Objective:
    _shared(samples, groups)
    return IWAE(samples, gradient, groups)


def piwae(n: int, latent: int, *, samples: int = 48, groups: int = 6, gradient: Gradient = "plain") -> Objective:
    _shared(samples, groups)
    return PIWAE(samples, groups, gradient)


def ciwae(n: int, latent: int, *, samples: int = 50, mix: float = 0.05) -> Objective:
    positive(samples=samples)
    if not 0 <= mix <= 1:
        raise ChoiceError(f"`mix` must lie in 0..1, got {mix:g}")
    return CIWAE(samples, mix)


def wake_sleep(n: int, latent: int) -> Objective:
    return WakeSleep()


def autoencoder(
    n: int,
    latent: int,
    *,
    l1: float = 0.0,
    l2: float = 0.0,
    gradient_penalty: float = 0.0,
    sparsity: float = 0.0,
    activity: float = 0.05,
    decoder_decay: float = 0.0,
) -> Objective:
    _at_least(0, l1=l1, l2=l2, gradient_penalty=gradient_penalty, sparsity=sparsity, decoder_decay=decoder_decay)
    if not 0 < activity < 1:
        raise ChoiceError(f"`activity` must lie between 0 and 1, got {activity:g}")
    return Autoencoder(l2, gradient_penalty, l1, (activity, sparsity) if sparsity else None, decoder_decay)


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


BELONGS = {
    "components": {"prior": ["mixture", "vamp"]},
    "transforms": {"prior": ["flow"], "posterior": ["iaf", "nsf"]},
    "corruption_level": {"corruption": ["gaussian", "masking", "salt-and-pepper"]},
    "blocks": {"network": ["auto", "conv"]},
    "direct": {"network": ["auto", "conv"]},
}
"""Choices of `compose` that mean something only beside one of these other choices."""


def belongs(name: str) -> dict[str, list[str]]:
    """Beside which other choices one of `compose` means something; empty where beside any."""
    objectives = [objective for objective, part in OBJECTIVES.items() if name in takes(part)]
    return {"objective": objectives} if objectives else BELONGS.get(name, {})


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
            flags = ", ".join(f"`{o}`" for o in own) or "none of these"
            raise ChoiceError(f"{what} {name!r} takes no `{n}`; it takes {flags}")
    return found


def _shared(samples: int, groups: int) -> None:
    positive(samples=samples, groups=groups)
    if samples % groups:
        raise ChoiceError(f"`samples={samples}` cannot be shared over `groups={groups}` evenly")


def _at_least(least: float, **values: float) -> None:
    for name, value in values.items():
        if not (least <= value and math.isfinite(value)):
            wanted = f"{least:g} or more" if math.isfinite(least) else "a number"
            raise ChoiceError(f"`{name}` must be {wanted}, got {value:g}")
