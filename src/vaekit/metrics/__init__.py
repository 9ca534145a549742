"""Measured numbers, each with its protocol, unit and standard error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from vaekit.data.condition import Labels
from vaekit.data.core import digest
from vaekit.data.observation import Binary
from vaekit.errors import ChoiceError, RunError
from vaekit.runs.example import PLACE
from vaekit.runs.observed import Observed
from vaekit.runs.run import Run
from vaekit.utils.progress import say
from vaekit.utils.suggest import unknown
from vaekit.utils.uncertainty import area, standard_error, units

from .latents import ACTIVE, is_active, latent_names, survey
from .likelihood import PerDatum, entropy_floor, floors, per_datum
from .protocol import Protocol, check_comparable

NAMES = (
    "elbo",
    "rate",
    "distortion",
    "log_px_iw",
    "ess",
    "bits_per_dim",
    "active_units",
    "kl_per_latent",
    "entropy_floor",
    "floor_gap",
)
WITHOUT_DENSITY = ("distortion", "active_units", "entropy_floor")
"""What a model without log p(x) still has."""


def evaluate(
    run: Run,
    split: str | np.ndarray = "test",
    samples: int = 100,
    n: int | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    store: bool = True,
    labels: Labels | None = None,
    source: str | None = None,
) -> list[dict[str, Any]]:
    """Measure `names` (all that apply, when not given) on the first n data of a split; store them in metrics.json.

    Raw rows of other data (called `source`, with `labels` for a conditional run) may stand in place of the split; what
    is measured on them is not stored.

    Returns a list of {name, value, se, unit, protocol}: nats per datum, densities in the data's own units. Data split
    by group have standard errors by group, and the protocol says how many groups there are.

    Raises:
        ChoiceError: an unknown metric, K or n below 1, or a metric that this run's likelihood does not have.
    """
    if wrong := [name for name in names or () if name not in NAMES]:
        raise ChoiceError(unknown("metric", wrong[0], NAMES))
    if n is not None and n < 1:
        raise ChoiceError(f"the number of data to evaluate must be 1 or more, got {n}")
    observed = run.observed(split, labels)
    n = observed.n if n is None else min(n, observed.n)
    discrete = is_discrete(run, observed)
    binary = isinstance(run.composition.observation, Binary)
    refused = {}
    if not discrete:
        refused["bits_per_dim"] = "bits_per_dim needs a discrete likelihood, which this run does not have"
    elif run.spec.missing:
        refused["bits_per_dim"] = "bits_per_dim needs data of as many values each, and some of these are missing"
    if not (binary and discrete):
        for name in ("entropy_floor", "floor_gap"):
            refused[name] = f"{name} needs binarised data and a Bernoulli likelihood"
    if run.model.no_density is not None:
        refused |= {name: f"{run.model.no_density}: it has no {name}" for name in NAMES if name not in WITHOUT_DENSITY}
    for metric in names or ():
        if metric in refused:
            raise ChoiceError(refused[metric])
    asked = set(names or [name for name in NAMES if not refused.get(name)])
    protocol = _protocol(run, observed, n, seed, source)
    metrics: list[dict[str, Any]] = []

    def add(name: str, value: Any, se: Any, unit: str, estimator: str, k: int | None = None) -> None:
        if name in asked:
            entry = {"name": name, "value": value, "se": se, "unit": unit}
            metrics.append({**entry, "protocol": protocol.of(estimator, k).as_json()})

    group = observed.groups(n)
    scored = None
    if run.model.no_density is not None:
        _of_codes(run, observed, n, add)
    elif asked - {"entropy_floor"}:
        scored = per_datum(run, observed, samples, n=n, seed=seed, progress=progress)
        _from_scores(scored, samples, discrete, run.spec.dims, group, add)
        _active_units(scored.means[:, run.model.latent_dims], add)
    if asked & {"entropy_floor", "floor_gap"}:
        floor = floors(run, observed, n)
        add("entropy_floor", _mean(floor), standard_error(floor, group), "nats", "entropy of the frozen draw")
        if scored is not None:
            gap = -scored.log_px - floor
            add("floor_gap", _mean(gap), standard_error(gap, group), "nats", f"IWAE-{samples}", samples)
    if store and observed.array is None and run.path != PLACE:  # the packaged run stays as it came
        try:
            run.add_metrics(metrics)
        except RunError as error:  # of a read-only run, or a full disk: the numbers are given all the same
            say(f"note: {error}; the numbers are not stored with the run")
    return metrics


def _of_codes(run: Run, observed: Observed, n: int, add: Callable[..., None]) -> None:
    """What can be measured of a model that has codes but no density."""
    distortions, codes, units = [], [], []
    observation = run.composition.observation
    with torch.no_grad():
        for a in range(0, n, 500):
            rows = np.arange(a, min(a + 500, n))
            x, c = observed(rows).to(run.device), observed.condition(rows, run.device)
            codes.append(run.model.encode(x, c))
            distortions.append(-run.model.decode(codes[-1]).log_prob(x))
            if run.spec.missing:
                units.append(observation.log_jacobian_of(x))
    jacobian = torch.cat(units).cpu().numpy() if units else observation.log_jacobian(run.spec.shape)
    values = torch.cat(distortions).double().cpu().numpy() - jacobian
    add("distortion", _mean(values), standard_error(values, observed.groups(n)), "nats", "at the code")
    _active_units(torch.cat(codes).cpu().numpy()[:, run.model.latent_dims], add)


def _active_units(codes: np.ndarray, add: Callable[..., None]) -> None:
    if len(codes) > 1:
        active = is_active(codes)
        estimator = f"posterior means varying by more than {ACTIVE}"
        add("active_units", int(active.sum()), None, f"of {len(active)} latents", estimator)


def is_discrete(run: Run, observed: Observed) -> bool:
    """Whether p(x|z) is a probability of whole values, so that bits per dimension mean something."""
    with torch.no_grad():
        one = np.arange(1)
        x = observed(one).to(run.device)
        support = run.model.decode(run.model.encode(x, observed.condition(one, run.device))).support
    return support is not None and bool(support.is_discrete)


def _protocol(run: Run, observed: Observed, n: int, seed: int, source: str | None = None) -> Protocol:
    group = observed.groups(n)
    new, stored = observed.array, run.config["data"]
    return Protocol(
        data=stored["name"] if new is None else source or "array",
        digest=stored["digest"] if new is None else digest(new),
        split=observed.split if new is None else "all",
        n=n,
        observation=run.composition.observation.kind,
        draw=observed.draw_hash(n),
        dims=run.spec.dims,
        seed=seed,
        precision="fp32",
        units="nats per datum, x in the data's own units",
        groups=None if group is None else units(n, group),
    )


def compare(
    a: Run, b: Run, split: str = "test", samples: int = 100, n: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """log p(x) of run a minus run b on the same data: mean paired difference, its standard error, and the protocol.

    Over 10,000 images an unpaired standard error is near a nat; paired by datum it is a few hundredths. By group where
    the data were split by group.

    Raises:
        ChoiceError: the two runs do not model the same x (other data, rows, observation or draw).
    """
    protocols, rows, groups, checked = [], [], [], []
    for run in (a, b):
        observed = run.observed(split)
        m = observed.n if n is None else min(n, observed.n)
        protocols.append(_protocol(run, observed, m, seed).of(f"IWAE-{samples}", samples))
        rows.append(getattr(run.data, split).index[:m])
        groups.append(observed.groups(m))
        checked.append((run, observed, m))
    check_comparable(*protocols)
    if not np.array_equal(*rows):
        raise ChoiceError(
            f"the {split} rows of the two runs are not the same: train both with the same `valid`, `test`, "
            "`split_seed` and `group`"
        )
    scores = [per_datum(run, observed, samples, n=m, seed=seed).log_px for run, observed, m in checked]
    difference = scores[0] - scores[1]
    group = next((g for g in groups if g is not None), None)
    return {
        "name": "log_px_iw difference",
        "value": _mean(difference),
        "se": standard_error(difference, group),
        "unit": "nats",
        "protocol": protocols[0].as_json(),
    }


def _from_scores(
    s: PerDatum, samples: int, discrete: bool, dims: int, group: np.ndarray | None, add: Callable[..., None]
) -> None:
    sampled = f"mean over K={samples} draws of q"
    estimator = f"IWAE-{samples}"
    found = [
        ("elbo", s.elbo, "nats", f"{sampled}, closed-form KL" if s.kl is not None else sampled),
        ("rate", s.rate, "nats", "closed-form KL" if s.kl is not None else sampled),
        ("distortion", s.distortion, "nats", sampled),
        ("log_px_iw", s.log_px, "nats", estimator),
        ("ess", s.ess, "samples", estimator),
    ]
    if discrete:
        found.append(("bits_per_dim", -s.log_px / (dims * math.log(2)), "bits per dimension", estimator))
    for name, values, unit, how in found:
        add(name, _mean(values), standard_error(values, group), unit, how, samples)
    if s.kl is not None:
        se = [standard_error(column, group) for column in s.kl.T]
        add("kl_per_latent", [_mean(column) for column in s.kl.T], se, "nats", "closed-form KL")


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64))


__all__ = [
    "ACTIVE",
    "NAMES",
    "PerDatum",
    "Protocol",
    "area",
    "check_comparable",
    "compare",
    "entropy_floor",
    "evaluate",
    "floors",
    "is_active",
    "latent_names",
    "per_datum",
    "standard_error",
    "survey",
    "units",
]
