"""UDR of a run: the agreement of its latents with those of runs of the same settings and other seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import ChoiceError, VaekitError
from vaekit.runs.configuration import Configuration
from vaekit.runs.find import runs_in
from vaekit.runs.saved import SavedRun
from vaekit.runs.stored import read_config
from vaekit.runs.trained import TrainedModel

from ..latents import is_active
from ..measurement import Measurement, latent_means, shared
from ..needs import Need
from ..registry import Interval, Part, Result, metric
from .intervals import LEVEL
from .replicability import PENALTY, median_interval, udr

Array = NDArray[Any]
USED = 0.01
"""A latent is in use if its mean KL from the prior exceeds this many nats; without a KL, if it is active."""
SURVEYED = 10_000
"""The maximum number of data whose codes are compared."""


def _settings(config: Configuration) -> dict[str, Any]:
    """The settings of a run that its siblings share: all but the seed."""
    data = {key: config["data"][key] for key in ("digest", "options", "n")}
    training = {key: value for key, value in config["training"].items() if key != "seed"}
    shared_ones = {"recipe": config["recipe"], "arguments": config["arguments"], "observation": config["observation"]}
    return {**shared_ones, "data": data, "training": training, "step": config.get("step")}


@shared
def siblings(m: Measurement) -> list[Path]:
    """The runs in the folder of this run that differ from it in their seed only; damaged ones are left out."""
    run = m.run
    if not isinstance(run, SavedRun):
        return []
    found = []
    for path in runs_in(run.path.resolve().parent):
        try:
            config = read_config(path)
        except VaekitError:
            continue
        if _settings(config) == _settings(run.config) and config["training"]["seed"] != run.config["training"]["seed"]:
            found.append(path)
    return found


def _alone(name: str, m: Measurement) -> str | None:
    if m.observed.data is None:
        return f"{name} compares runs on their own data: use one of the splits"
    if siblings(m):
        return None
    return f"{name} needs runs of the same settings and other seeds: train some into the same folder"


SIBLINGS = Need("runs with other seeds in the same folder", _alone)


def _used(run: TrainedModel, split: str, z: Array, n: int) -> NDArray[np.bool_]:
    """Which latents of codes (n, L) are in use."""
    try:
        kl = run.kl_per_latent(split, n=n)
    except ChoiceError:  # it has no closed form
        return is_active(z)
    return kl > USED if len(kl) == z.shape[1] else is_active(z)


@metric("udr", "0 to 1", needs=[SIBLINGS], better="higher", label="UDR", per_datum=False)
def udr_of_seeds(m: Measurement) -> Result:
    """Agreement of the latents with those of runs with other seeds, without known factors (Duan et al. 2020)."""
    n, split = min(m.n, SURVEYED), m.observed.split
    names, codes = [], [latent_means(m)[:n]]
    used = [_used(m.run, split, codes[0], n)]
    for path in siblings(m):
        run = SavedRun.open(path)
        run.use_data(m.run.data)
        names.append(path.name)
        codes.append(run.encode(split, n=n).reshape(n, -1)[:, run.model.latent_dims])
        used.append(_used(run, split, codes[-1], n))
    found = udr(codes, used=used)
    pairs, known = found.pairs[1:, 0], median_interval(found.pairs[1:, 0])
    others = len(pairs)
    how = (
        f"median over {others} run{'s' if others > 1 else ''} with other seeds; lasso, penalty {PENALTY}; latents with "
        f"a KL above {USED} nats; {n:,} data"
    )
    each = {name: Part(float(pair)) for name, pair in zip(names, pairs, strict=True)}
    of = f"order statistics of {others} pairs of seeds"
    interval = None if known is None else Interval(*known, 1 - LEVEL, of)
    return Result(how, value=float(found.each[0]), each=each, interval=interval)
