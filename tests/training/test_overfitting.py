"""When a run is said to overfit: by falls of its validation ELBO that chance does not explain."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from core_helpers import QUIET, blobs

import vaekit as vk
from vaekit.noise import Noise
from vaekit.objectives.terms import distortion, rate
from vaekit.options import Options
from vaekit.run import fit
from vaekit.training.overfitting import past_its_best
from vaekit.utils.uncertainty import standard_error


def recorded(elbos, training=None, se=0.5, units=200, train=None, **arguments):
    """A run as it would be left by these validations, the last of which lies below the best with this error."""
    steps = [100 * (i + 1) for i in range(len(elbos))]
    valid = [{"kind": "valid", "step": step, "elbo": e} for step, e in zip(steps, elbos, strict=True)]
    if valid and se is not None:
        valid[-1] |= {"se_below_best": se, "units": units}
    rising = [-200.0 + i for i in range(len(elbos))] if train is None else train
    known = [{"kind": "train", "step": step, "elbo": e} for step, e in zip(steps, rising, strict=True)]

    class Left:
        config: ClassVar = {
            "arguments": arguments,
            "data": {"facts": {"kind": "image"}},
        }
        options = Options(**(training or {}))
        log: ClassVar = [record for pair in zip(known, valid, strict=True) for record in pair]

    return Left()


def test_a_run_that_fell_from_its_best_says_so():
    said = past_its_best(recorded([-300.0, -250.0, -240.0, -260.0]))
    assert "the model overfits" in said
    assert "step 300 (-240.00 nats) and has fallen by 20.00 since (standard error 0.50)" in said
    assert "`patience=" in said
    assert "`augment=" in said
    assert "`augment=" not in past_its_best(recorded([-300.0, -240.0, -260.0], {"augment": "flip"}))
    assert past_its_best(recorded([-300.0, -250.0, -240.0])) is None  # it rose to the end
    assert past_its_best(recorded([-300.0, -240.0, -242.0])) is None  # by less than a twentieth of its rise
    assert past_its_best(recorded([-300.0, -299.9, -300.5], se=0.01)) is None  # by less than a nat
    assert past_its_best(recorded([-300.0, -240.0, -260.0], {"patience": 5})) is None  # its best weights are kept
    assert past_its_best(recorded([-300.0, -240.0, -260.0], beta=4.0)) is None  # trained on something else
    assert past_its_best(recorded([])) is None


def test_a_fall_that_chance_or_a_worse_fit_explains_is_not_overfitting():
    elbos = [-300.0, -250.0, -240.0, -260.0]
    # four validations, one in 1,000: two-sided t of 2.5e-4 is 3.73 with 199 degrees of freedom, 20.6 with 3
    assert past_its_best(recorded(elbos, se=20 / 3.80)) is not None
    assert past_its_best(recorded(elbos, se=20 / 3.65)) is None
    assert past_its_best(recorded(elbos, se=20 / 20, units=4)) is None
    assert past_its_best(recorded(elbos, se=20 / 21, units=4)) is not None
    assert past_its_best(recorded(elbos, se=None)) is None  # of an earlier version: nothing is known of the error
    assert past_its_best(recorded(elbos, train=[-200.0, -190.0, -180.0, -195.0])) is None  # training fell with it


def test_noise_alone_is_hardly_ever_said_to_be_overfitting():
    """1,000 runs that stay where they are, of 20 validations of 100 data each."""
    rng, said, fell = np.random.default_rng(0), 0, 0
    for _ in range(1000):
        curves = rng.normal(-250, 50, (20, 100))
        elbos = curves.mean(1)
        fallen = curves[elbos.argmax()] - curves[-1]
        fell += fallen.mean() > max(1.0, 0.05 * (elbos.max() - elbos[0]))  # what was enough before
        said += past_its_best(recorded(elbos.tolist(), se=standard_error(fallen), units=100)) is not None
    assert fell > 900
    assert said <= 6  # at most 1 is expected: more than 6 in a thousandth of a Poisson's cases


def test_the_error_of_a_fall_is_paired_by_datum_and_kept_when_resumed(tmp_path):
    """Against figures of the two models, of runs that end where the best and the last validation were."""
    data = vk.from_arrays(blobs(60))
    settings = {"latent": 2, "hidden": (8,), "batch": 16, "validate_steps": 2, "lr": 0.5, "schedule": "constant"}
    settings["warmup"] = 0
    run = fit(data, "vae", out=tmp_path / "whole", steps=12, **settings, **QUIET)
    valid = [r for r in run.log if r["kind"] == "valid"]
    best, last = max(valid, key=lambda r: r["elbo"]), valid[-1]
    assert best["step"] < last["step"]
    first = fit(data, "vae", out=tmp_path / "part", steps=best["step"], **settings, **QUIET)

    def figures(of):
        seen = of.observed("valid")
        rows = torch.arange(seen.n)
        with torch.no_grad():
            trace = of.model.trace(seen(rows.numpy()), noise=Noise.of(0, rows, 21))
        return -(distortion(trace, seen(rows.numpy())) + rate(trace)).double().numpy()

    fallen = figures(first) - figures(run)
    assert best["elbo"] - last["elbo"] == pytest.approx(fallen.mean(), rel=1e-4)
    assert last["se_below_best"] == pytest.approx(standard_error(fallen), rel=1e-4)
    assert last["units"] == len(fallen)
    assert "se_below_best" not in best
    longer = fit(data, out=tmp_path / "part", extend=True, steps=12, progress=False)
    assert [r for r in longer.log if r["kind"] == "valid"][-1]["se_below_best"] == last["se_below_best"]
