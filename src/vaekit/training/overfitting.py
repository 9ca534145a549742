"""Warnings about overfitting: before training, for small data sets, and afterwards, if it happened."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from vaekit.data.core import Data
from vaekit.options import Options
from vaekit.runs.saved import SavedRun
from vaekit.utils.uncertainty import t_quantile

FEW = 2000
"""A data set of images is small with fewer images than this, and fewer than the values per image."""
ONCE_IN = 1000
"""About one in this many runs that do not overfit gets the warning by chance."""


def small_set(data: Data, options: Options) -> str | None:
    """A note about training on few images, with remedies; None if there are enough images, or for other data."""
    n = len(data.train)
    if data.kind != "image" or n >= min(FEW, math.prod(data.shape)):
        return None
    remedies = {"augment": "`augment='flip,shift'`", "patience": "`patience=10` (keeps the best weights)"}
    unused = [text for name, text in remedies.items() if getattr(options, name) is None]
    return (
        f"{n:,} training images are few, so the model is likely to overfit: it works for similar images, but blurs or "
        "omits whatever is new in others (the validation ELBO shows this), and its samples look like blends of "
        f"training images. Remedies: {', '.join([*unused, 'a smaller `latent`', 'more images'])}"
    )


def why_not_judged(run: SavedRun) -> str | None:
    """Why it cannot be told whether a run overfits (see `fall`); None if it can."""
    chosen = {**run.config.get("defaults", {}), **run.config["arguments"]}
    valid = _records(run, "valid")
    if run.options.patience:
        return "the run has patience, which keeps its best weights"
    if chosen.get("objective", "elbo") != "elbo" or chosen.get("beta") not in (None, 1):
        return "its loss is not the ELBO with a KL weight of 1"
    if not valid:
        return "the log has no validation ELBO"
    is_best = valid[-1]["elbo"] >= max(r["elbo"] for r in valid)
    if not is_best and (valid[-1].get("se_below_best") is None or valid[-1].get("units", 0) < 2):
        return "the log has no standard error of the validation ELBO"
    return None


def _records(run: SavedRun, kind: str) -> list[dict[str, Any]]:
    return [r for r in run.log if r["kind"] == kind and r.get("elbo") is not None]


class Fall(NamedTuple):
    """The fall of a validation ELBO below its best, in nats, with its standard error, and what helps against it."""

    step: int
    best: float
    decrease: float
    se: float
    remedies: tuple[str, ...]

    @property
    def evidence(self) -> str:
        """The fall in one clause."""
        return (
            f"the validation ELBO was best at step {self.step:,} ({self.best:.2f} nats) and has fallen by "
            f"{self.decrease:.2f} since (standard error {self.se:.2f})"
        )


def past_its_best(run: SavedRun) -> str | None:
    """A warning about a run that overfits (see `fall`); else None."""
    fallen = fall(run)
    return None if fallen is None else f"the model overfits: {fallen.evidence}. {'; '.join(fallen.remedies)}"


def fall(run: SavedRun) -> Fall | None:
    """The fall of a run that overfits, whose validation ELBO ended well below its best; else None.

    The validation ELBO must have fallen by more than one nat, by more than 5% of its rise since the first validation,
    and by more than chance explains in all but one of `ONCE_IN` runs, given that the best of several validations is
    always favoured by chance. The training ELBO must not have fallen. Runs with a KL weight other than 1 are not
    judged, nor are runs with patience, which keep their best weights.
    """
    config, options = run.config, run.options
    if why_not_judged(run) is not None:
        return None
    train, valid = _records(run, "train"), _records(run, "valid")
    best, last = max(valid, key=lambda r: r["elbo"]), valid[-1]
    decrease, se, units = best["elbo"] - last["elbo"], last.get("se_below_best"), last.get("units", 0)
    if se is None or decrease <= max(1.0, 0.05 * (best["elbo"] - valid[0]["elbo"])):
        return None
    if decrease <= se * t_quantile(1 / (ONCE_IN * len(valid)), units - 1):
        return None
    until_best = [r["elbo"] for r in train if r["step"] <= best["step"]]
    if until_best and train[-1]["elbo"] < until_best[-1]:
        return None
    remedies = ["`patience=5` keeps the best weights"]
    if config["data"]["facts"]["kind"] == "image" and not options.augment:
        remedies.append("`augment='flip,shift'` delays overfitting")
    remedies.append("more data or a smaller `latent` reduce it")
    return Fall(best["step"], best["elbo"], decrease, se, tuple(remedies))
