"""The least scale of a discretised logistic that validation data choose."""

import math
import weakref

import numpy as np
import pytest
import torch
from core_helpers import QUIET, same

import vaekit as vk
from vaekit import heads
from vaekit.heads.levels import WIDTHS
from vaekit.recipes import get_recipe
from vaekit.recipes.composition import DataSpec
from vaekit.training.start import take_weights
from vaekit.utils.progress import Silent

FACTS = DataSpec("image", (3, 4, 4), 50, (0.0, 255.0), True)
SMALL = {**QUIET, "latent": 4, "hidden": (64,), "network": "dense", "batch": 20, "ema": 0.0, "lr": 1e-2, "warmup": 0}


def floor_of(run):
    return float(run.model.likelihood.head.floor)


@pytest.fixture(scope="module")
def noise():
    """Images of colour noise, of which a decoder can only memorise the training rows."""
    x = np.random.default_rng(0).normal(128, 40, (60, 4, 4, 3)).clip(0, 255).astype(np.uint8)
    return vk.from_arrays(x, splits={"train": np.arange(20), "valid": np.arange(20, 50), "test": np.arange(50, 60)})


def test_candidates_are_the_densities_that_the_head_gives_with_each_least_scale():
    fitted = heads.DiscretisedLogisticHead((3, 2), least_scale=None).eval()
    raw = torch.randn(5, 12, generator=torch.Generator().manual_seed(0)) - 3
    x = torch.arange(0.0, 30.0).reshape(5, 3, 2) * 8
    fitted.choose(4)  # the floor is taken off before another is put on
    found = torch.stack([px.log_prob(x) for px in fitted.candidates(fitted(raw))])
    fixed = [heads.DiscretisedLogisticHead((3, 2), least_scale=w * 127.5)(raw).log_prob(x) for w in WIDTHS]
    torch.testing.assert_close(found, torch.stack(fixed), rtol=1e-4, atol=1e-3)
    for position, width in enumerate(WIDTHS):
        fitted.choose(position)
        assert float(fitted.floor) == pytest.approx(math.log(width) if width else heads.LOG_SCALE_FLOOR)


def test_candidates_are_made_one_at_a_time():
    """Of 500 images of 64 x 64, each takes 25 MB."""
    fitted = heads.DiscretisedLogisticHead((3, 2), least_scale=None).eval()
    found = fitted.candidates(fitted(torch.zeros(5, 12)))
    first = weakref.ref(next(found).base_dist.log_scale)
    next(found)
    assert first() is None


def test_the_least_scale_is_a_bound_of_the_scale_in_levels():
    raw = torch.tensor([[0.0, -100.0]])
    for levels, least in ((256, 7.0), (16, 2.0)):
        px = heads.DiscretisedLogisticHead((1,), levels, least)(raw).base_dist
        assert float(torch.exp(px.log_scale)) == pytest.approx(least, rel=1e-4)


def test_training_that_memorises_chooses_the_scale_of_the_validation_errors(noise, tmp_path):
    run = vk.fit(noise, out=tmp_path / "run", steps=600, validate_steps=100, **SMALL)
    plain = vk.fit(noise, out=tmp_path / "plain", steps=600, validate_steps=100, least_scale=0.0, **SMALL)
    elbos = [[r["elbo"] for r in of.log if r["kind"] == "valid"] for of in (run, plain)]
    assert elbos[1][-1] < elbos[1][0] - 20
    assert elbos[0][-1] > max(elbos[1]) - 5
    # 40 levels of standard deviation are a scale of 22 = 40 sqrt(3) / pi; the decoder's own scales are added
    assert 10 < 127.5 * math.exp(floor_of(run)) < 34
    # the validation ELBO in the log is that of the chosen scale, with the noise of training
    assert vk.open(tmp_path / "run", data=noise).evaluate("valid", samples=50, metrics=["elbo"])[0][
        "value"
    ] == pytest.approx(elbos[0][-1], abs=2)


def test_a_run_that_is_stopped_and_resumed_keeps_its_least_scale(noise, tmp_path):
    common = {**SMALL, "validate_steps": 10}
    vk.fit(noise, out=tmp_path / "whole", steps=40, checkpoint_steps=20, **common)

    class Stop(Silent):
        def update(self, step, *figures):
            self.stop = step >= 20

    kept = {**common, "progress": Stop(), "on_interrupt": "return"}
    assert vk.fit(noise, out=tmp_path / "run", steps=40, checkpoint_steps=20, **kept).state == "interrupted"
    vk.fit(noise, out=tmp_path / "run", resume=True, progress=False)
    assert same(tmp_path / "run", tmp_path / "whole", "model.safetensors")


def test_runs_of_earlier_rules_keep_the_fixed_bound_and_their_tensors():
    import dataclasses

    new, old = (get_recipe("vae")(dataclasses.replace(FACTS, rules=r), network="dense") for r in (6, 5))
    assert new.model.likelihood.head.chooses
    assert not old.model.likelihood.head.chooses
    assert set(new.model.state_dict()) - set(old.model.state_dict()) == {"likelihood.head.floor"}
    raw = torch.randn(2, 96)
    kept = heads.DiscretisedLogisticHead((3, 4, 4))
    assert torch.equal(old.model.likelihood.head(raw).base_dist.log_scale, kept(raw).base_dist.log_scale)


def test_the_training_step_uses_half_of_the_least_scale():
    head, raw = heads.DiscretisedLogisticHead((1,), least_scale=None), torch.tensor([[0.0, -100.0]])
    head.choose(8)
    head.train()
    assert float(torch.exp(head(raw).base_dist.log_scale)) == pytest.approx(127.5 * WIDTHS[8] / 2, rel=1e-4)
    head.eval()
    assert float(torch.exp(head(raw).base_dist.log_scale)) == pytest.approx(127.5 * WIDTHS[8], rel=1e-4)
    head.choose(0)
    for mode in (True, False):
        least = head.train(mode)(raw).base_dist.log_scale
        assert float(least) == pytest.approx(math.log(127.5) + heads.LOG_SCALE_FLOOR, rel=1e-4)


@pytest.mark.parametrize(("before", "after"), [(0.0, None), (None, 0.0), (None, None)])
def test_weights_of_another_run_come_without_its_least_scale(before, after, noise, tmp_path):
    run = vk.fit(noise, "conv", out=tmp_path / "run", least_scale=before, steps=2, **SMALL)
    shape = {name: SMALL[name] for name in ("latent", "hidden", "network")}
    composition = get_recipe("conv")(run.spec, least_scale=after, **shape)
    head = composition.model.likelihood.head
    floor = float(head.floor)
    take_weights(composition, tmp_path / "run")
    for name, weights in composition.model.likelihood.net.state_dict().items():
        torch.testing.assert_close(weights, run.model.likelihood.net.state_dict()[name], rtol=0, atol=0)
    assert float(head.floor) == floor
