"""Codes that are small images: networks, the recipe `grid`, its refusals, and what a run does with such codes."""

import math

import numpy as np
import pytest
import torch
from core_helpers import QUIET, blobs
from torch import nn

import vaekit as vk
from vaekit import networks
from vaekit.errors import ChoiceError
from vaekit.heads.base import slowed
from vaekit.latents.paths import interpolate
from vaekit.models.quantised import GridDecoder, GridEncoder
from vaekit.noise import Noise
from vaekit.recipes import DataSpec, get_recipe

SHAPES = [
    ("image", (1, 28, 28), (4, 7, 7)),
    ("image", (3, 64, 64), (4, 8, 8)),
    ("image", (3, 30, 45), (4, 8, 12)),
    ("image", (2, 9, 5), (4, 5, 3)),
    ("signal", (2, 101), (4, 26)),
]


def shaken(module: nn.Module) -> nn.Module:
    """The module with random changes of all weights, so that no layer is the identity."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return module.eval()


def spec_of(kind, shape, **more):
    scale = (0.0, 255.0) if kind == "image" else (-3.0, 3.0)
    return DataSpec(kind, shape, 100, scale, kind == "image", **more)


@pytest.mark.parametrize(("kind", "shape", "grid"), SHAPES)
def test_the_grid_of_any_shape_by_default(kind, shape, grid):
    model = get_recipe("grid")(spec_of(kind, shape)).model.eval()
    assert model.grid == grid
    x = torch.zeros(2, *shape)
    with torch.no_grad():
        z = model.encode(x)
        assert z.shape == (2, math.prod(grid))
        assert model.decode(z.expand(3, *z.shape)).mean.shape == (3, 2, *shape)


@pytest.mark.parametrize(("kind", "shape", "grid"), SHAPES[2:])
@pytest.mark.parametrize("blocks", [0, 1])
def test_a_flat_code_is_its_grid_channel_by_channel(kind, shape, grid, blocks):
    made = get_recipe("grid")(spec_of(kind, shape), hidden=(6, 8)[-1 if shape == (2, 9, 5) else 0 :], blocks=blocks)
    model, x = shaken(made.model), torch.rand(2, *shape)
    encoder, decoder = model.posterior.net, model.likelihood.net
    with torch.no_grad():
        if isinstance(encoder, networks.Rescaled):
            planes = encoder.net.planes((x - encoder.low) / encoder.reach - 1)
        else:
            planes = encoder.planes(x)
        q = model.posterior(x)
        torch.testing.assert_close(q.mean.reshape(2, *grid), planes[:, : grid[0]])
        spread = torch.log(q.stddev).reshape(2, *grid)
        raw = planes[:, grid[0] :].flatten()
        wanted = slowed(raw) if model.posterior.head.slow else raw
        assert float(torch.corrcoef(torch.stack([spread.flatten(), wanted]))[0, 1]) > 0.99
        assert torch.equal(decoder.planes(q.mean).reshape(2, *grid), q.mean.reshape(2, *grid))
        assert model.trace(x, k=3, noise=Noise.of(0, 2)).px.batch_shape == (3, 2)


def test_attention_is_that_of_torch_and_adds_only_its_bias_at_the_start():
    torch.manual_seed(0)
    layer = networks.Attention(8, 2)
    h = torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(layer(h), h + layer.out.bias[:, None, None])
    shaken(layer)
    q, k, v = layer.qkv(layer.norm(h)).flatten(2).transpose(1, 2).chunk(3, -1)
    mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(h.shape)
    torch.testing.assert_close(layer(h), h + layer.out(mixed))
    order = torch.randperm(15)
    moved = h.flatten(2)[:, :, order].reshape(h.shape)  # it has no places: their order does not matter
    torch.testing.assert_close(layer(moved), layer(h).flatten(2)[:, :, order].reshape(h.shape), rtol=1e-4, atol=1e-5)


def test_a_change_of_one_place_of_the_code_changes_its_neighbourhood_most():
    torch.manual_seed(0)
    decoder = shaken(networks.GridDecoder((1, 32, 32), 2, channels=(8, 8), last=1))
    z = torch.randn(1, 2 * 64)
    other = z.reshape(1, 2, 8, 8).clone()
    other[:, :, 2, 5] += 1.0
    moved = (decoder(other.flatten(1)) - decoder(z)).detach().reshape(8, 4, 8, 4).square().sum((1, 3))
    share = float(moved[1:4, 4:7].sum() / moved.sum())
    assert share > 2 * 9 / 64  # the 9 places around it; 9 / 64 if the decoder had no notion of places


def test_quantised_grids_are_the_same_networks_row_by_row():
    torch.manual_seed(0)
    event, dim = (2, 9, 7), 3
    one, other = GridEncoder(event, dim, (4, 8)), networks.GridEncoder(event, dim, (4, 8))
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, *event)
    torch.testing.assert_close(one(x).unflatten(1, (6, 3)), other(x).unflatten(1, (3, 6)).transpose(1, 2))
    down, up = GridDecoder(event, dim, 1, (4, 8)), networks.GridDecoder(event, dim, 1, (4, 8))
    up.load_state_dict(down.state_dict())
    z = torch.randn(2, 6, 3)
    torch.testing.assert_close(down(z.flatten(1)), up(z.transpose(1, 2).flatten(1)))


def test_a_condition_is_constant_channels_of_the_grid():
    spec = spec_of("image", (1, 9, 6), classes=("a", "b", "c"))
    made = get_recipe("grid")(spec, hidden=(8,), condition="label")
    model = shaken(made.model)
    x, c = torch.zeros(4, 1, 9, 6), torch.eye(3)[[0, 1, 2, 0]]
    with torch.no_grad():
        z = model.encode(x, c)
        assert z.shape == (4, 4 * 5 * 3 + 3)
        planes = model.likelihood.net.net.planes(z)
        assert torch.equal(planes[:, 4:], c[:, :, None, None].expand(-1, -1, 5, 3))
        assert not torch.equal(model.decode(z).mean[0], model.decode(torch.cat([z[:, :-3], c.roll(1, 1)], 1)).mean[0])


@pytest.mark.parametrize(
    ("choices", "shape", "reason"),
    [
        ({"latent": 10}, (1, 9, 6), "multiple of 15"),
        ({"posterior": "sphere", "latent": 15}, (1, 9, 6), "posterior='gaussian'"),
        ({"hidden": ()}, (1, 9, 6), "one halving"),
        ({}, (7,), "images or signals"),
    ],
)
def test_refusals_say_what_to_write(choices, shape, reason):
    kind = "image" if len(shape) == 3 else "vector"
    with pytest.raises(ChoiceError, match=reason):
        get_recipe("grid")(spec_of(kind, shape), **{"hidden": (8,), **choices})


# --- a run ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = vk.from_arrays(blobs(80, 9, 6), label=np.arange(80) % 2)
    made = vk.fit(data, "grid", out=tmp_path_factory.mktemp("grid") / "run", hidden=(8,), steps=8, batch=16, **QUIET)
    made.use_data(data)
    return made


def test_the_scale_of_its_codes_is_stored(run):
    drawn = run.encode("valid", sample=True)
    # other draws of q(z | x) than those of validation: 480 numbers
    assert run.scaling_factor == pytest.approx(1 / drawn.std(), rel=0.15)
    assert vk.open(run.path).scaling_factor == run.scaling_factor
    assert run.config["valid"]["code_std"] == pytest.approx(1 / run.scaling_factor)


def test_codes_of_vectors_have_no_such_scale(tmp_path):
    plain = vk.fit(blobs(40), out=tmp_path / "run", latent=2, hidden=(4,), steps=2, batch=16, **QUIET)
    assert plain.scaling_factor is None
    assert plain.model.grid is None
    assert "code_std" not in plain.config["valid"]


def test_an_interpolation_of_flat_codes_is_that_of_grids(run):
    z = run.encode("test", n=2)
    path = interpolate(z[0], z[1], steps=5, mode="lerp")
    grids = np.linspace(z[0].reshape(run.model.grid), z[1].reshape(run.model.grid), 5)
    np.testing.assert_allclose(path.reshape(5, *run.model.grid), grids, rtol=1e-5, atol=1e-6)
    assert run.decode(path).shape == (5, 1, 9, 6)
