"""Warnings about overfitting: before training, for small data sets, and afterwards, if it happened."""

from __future__ import annotations

import math

from vaekit.data.core import Data
from vaekit.options import Options
from vaekit.runs.saved import SavedRun
from vaekit.utils.uncertainty import t_quantile

FEW = 2000
"""A data set of images is small with fewer images than this, and fewer than the values per image."""
ONCE_IN = 1000
"""Among so many runs that do not overfit, about one is reported to."""


def small_set(data: Data, options: Options) -> str | None:
    """A note about training on few images, with remedies; None if there are enough images, or for other data."""
    n = len(data.train)
    if data.kind != "image" or n >= min(FEW, math.prod(data.shape)):
        return None
    helps = {"augment": "`augment='flip,shift'`", "patience": "`patience=10` (keeps the best weights)"}
    missing = [text for name, text in helps.items() if getattr(options, name) is None]
    return (
        f"{n:,} training images are few: such a model gives maps, scores and clean copies of images much like these, "
        "but it blurs or misses what is new in others (the validation ELBO tells) and its samples look like blends of "
        f"training images. What helps: {', '.join([*missing, 'a smaller `latent`', 'more images'])}"
    )


def past_its_best(run: SavedRun) -> str | None:
    """A warning about a run that overfits, whose validation ELBO ended well below its best; else None.

    It must have fallen by more than a nat, by more than 5% of its rise since the first validation, and by more than
    chance explains (in one of `ONCE_IN` runs, for the best of so many validations), while the training ELBO has not
    fallen. Runs with another KL weight than 1 are not judged, nor runs with patience, which keep their best weights.
    """
    config, options = run.config, run.options
    known = [r for r in run.log if r.get("elbo") is not None]
    train, valid = ([r for r in known if r["kind"] == kind] for kind in ("train", "valid"))
    chosen = {**config.get("defaults", {}), **config["arguments"]}
    plain = chosen.get("objective", "elbo") == "elbo" and chosen.get("beta") in (None, 1)
    if options.patience or not plain or not valid:
        return None
    best, last = max(valid, key=lambda r: r["elbo"]), valid[-1]
    fallen, se, units = best["elbo"] - last["elbo"], last.get("se_below_best"), last.get("units", 0)
    if se is None or units < 2 or fallen <= max(1.0, 0.05 * (best["elbo"] - valid[0]["elbo"])):
        return None
    if fallen <= se * t_quantile(1 / (ONCE_IN * len(valid)), units - 1):
        return None
    then = [r["elbo"] for r in train if r["step"] <= best["step"]]
    if then and train[-1]["elbo"] < then[-1]:
        return None
    helps = ["`patience=5` keeps the best weights"]
    if config["data"]["facts"]["kind"] == "image" and not options.augment:
        helps.append("`augment='flip,shift'` delays it")
    return (
        f"the model overfits: the validation ELBO was best at step {best['step']:,} ({best['elbo']:.2f} nats) and has "
        f"fallen by {fallen:.2f} since (standard error {se:.2f}). "
        f"{'; '.join([*helps, 'so do more data, or a smaller `latent`'])}"
    )
