"""Densities on [0, 1] of data that hold exact zeros and ones: none grows without bound."""

import math

import numpy as np
import pytest
import torch
from core_helpers import QUIET, blobs

import vaekit as vk
from vaekit.data.observation import Dequantised
from vaekit.heads import ContinuousBernoulliHead
from vaekit.noise import Noise
from vaekit.recipes import DataSpec, get_recipe
from vaekit.training.prepare import piled_up


def binary(dtype=np.uint8):
    """Images with values 0 and 255 only, each in half of the rows of a pixel."""
    x = (np.random.default_rng(0).uniform(size=(80, 4, 4)) < 0.5) * np.uint8(255)
    return x if dtype == np.uint8 else (x / 255).astype(dtype)


@pytest.mark.parametrize("likelihood", ["continuous-bernoulli", "beta"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_log_p_of_exact_zeros_and_ones_is_a_bound_however_long_one_trains(likelihood, dtype, tmp_path):
    """Two levels of chance 1/2: log P is at most -16 log 2 nats in levels; floats are in units of 255 levels."""
    data = vk.from_arrays(binary(dtype), kind="image")
    run = vk.fit(
        data, "vae", out=tmp_path / "run", likelihood=likelihood, latent=1, hidden=(8,), steps=200, batch=40, lr=0.05,
        **QUIET,
    )  # fmt: skip
    assert isinstance(run.composition.observation, Dequantised)
    unit = 0.0 if dtype == np.uint8 else 16 * math.log(255)
    assert run.score("train", samples=20).mean() - unit < -16 * math.log(2) + 0.5


def test_dequantised_floats_are_the_levels_of_the_bytes():
    raw = torch.from_numpy(blobs(20))[:, None]
    bytes_, floats = Dequantised(0, 256), Dequantised(0.0, 256, 1 / 255)
    torch.testing.assert_close(bytes_(raw, Noise.of(0, 20)), floats(raw / 255, Noise.of(0, 20)), rtol=0, atol=1e-6)
    x = floats(raw / 255, Noise.of(0, 20))
    assert bool(((x > 0) & (x < 1)).all())
    torch.testing.assert_close(floats.to_raw((raw.float() + 0.5) / 256), raw / 255, rtol=0, atol=1e-6)
    # a density of raw / 255 is 255 times one of raw, in each dimension
    assert floats.log_jacobian((3,)) - bytes_.log_jacobian((3,)) == pytest.approx(3 * math.log(255))


@pytest.mark.parametrize("integer", [True, False])
def test_auto_is_dequantised_and_grey_has_a_stated_bound(integer):
    spec = DataSpec("image", (1, 2, 2), 50, (0.0, 255.0) if integer else (0.0, 1.0), integer)
    for likelihood in ("continuous-bernoulli", "beta"):
        made = get_recipe("vae")(spec, likelihood=likelihood, latent=1, hidden=(4,))
        assert made.observation.kind == "dequantised"
    made = get_recipe("vae")(spec, likelihood="continuous-bernoulli", observation="grey", latent=1, hidden=(4,))
    assert made.observation.kind == "grey"


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_logits_are_themselves_until_near_their_bound(end):
    head = ContinuousBernoulliHead((1,))
    raw = torch.tensor([[-900.0], [-3.0], [0.0], [40.0], [970.0]])
    assert torch.equal(head(raw).base_dist.logits, raw)
    far = torch.tensor([[-1e6], [1e6]], requires_grad=True)
    log_p = head(far).log_prob(torch.full((1, 1), end))
    assert float(log_p.detach().max()) == pytest.approx(math.log(1000), abs=1e-3)
    assert bool(torch.isfinite(torch.autograd.grad(log_p.sum(), far)[0]).all())


@pytest.mark.parametrize(
    ("choices", "limit"),
    [
        ({"likelihood": "continuous-bernoulli", "observation": "grey"}, "7 nats"),
        ({"likelihood": "gaussian", "sigma": "learned"}, "5 nats"),
        ({"likelihood": "continuous-bernoulli"}, None),
        ({"likelihood": "gaussian"}, None),
        ({"likelihood": "bernoulli"}, None),
    ],
)
def test_values_piled_up_at_the_ends_are_noted(choices, limit):
    data = vk.from_arrays(binary(), kind="image")
    note = piled_up(data, get_recipe("vae")(DataSpec.of(data), latent=1, hidden=(4,), **choices))
    assert (note is None) == (limit is None)
    if limit is not None:
        assert note.startswith("100% of the values")
        assert limit in note
    data = vk.from_arrays(np.random.default_rng(0).integers(3, 250, (60, 4, 4), dtype=np.uint8), kind="image")
    assert piled_up(data, get_recipe("vae")(DataSpec.of(data), latent=1, hidden=(4,), **choices)) is None
