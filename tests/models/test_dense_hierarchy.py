"""The dense top-down model against quadrature, a pass by hand and the VAE that it contains; the recipe's choices."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from core_helpers import blobs
from torch import nn

import vaekit as vk
from vaekit import heads
from vaekit.data.observation import Binary
from vaekit.errors import ChoiceError
from vaekit.models.dense_hierarchy import DenseTopDown
from vaekit.models.hierarchy import TopDown
from vaekit.noise import Noise
from vaekit.objectives import ELBO
from vaekit.objectives.terms import latent_rate, log_mean_weight, log_weights
from vaekit.recipes import DataSpec, get_recipe
from vaekit.recipes.composition import Composition
from vaekit.runs.stored import rebuild
from vaekit.training.optimisers import optimiser
from vaekit.training.step import Engine, Settings
from vaekit.utils.files import read_json, read_tensors

DIGITS = DataSpec("image", (1, 28, 28), 1000, (0.0, 255.0), True)


def tiny(event=(3,), latents=(1, 1), width=6) -> DenseTopDown:
    torch.manual_seed(1)
    model = DenseTopDown(event, heads.Bernoulli(event), width, latents).double().eval()
    with torch.no_grad():
        for layer in model.stages[0].layers[1:]:  # scales start at 1 for every state; here they depend on it
            layer.scale.weight.normal_(0, 0.5)
    return model


def binary(n, *event):
    return (torch.rand(n, *event, generator=torch.Generator().manual_seed(1)) < 0.5).double()


def test_two_small_layers_are_bounded_by_quadrature():
    model = tiny()
    x = torch.tensor([[float(b) for b in f"{i:03b}"] for i in range(8)]).double()
    at = torch.linspace(-9, 9, 181, dtype=torch.float64)
    grid = torch.cartesian_prod(at, at)  # the integrand's tails beyond 9 deviations are below 1e-18
    with torch.no_grad():
        log_w = -0.5 * (grid**2).sum(1) - math.log(2 * math.pi) + 2 * math.log(float(at[1] - at[0]))
        px = model.decode(grid[:, None].expand(-1, 8, -1)).log_prob(x)
        exact = torch.logsumexp(px + log_w[:, None], 0)
        assert float(torch.exp(exact).sum()) == pytest.approx(1, abs=1e-9)
        k = 10_000
        weights = log_weights(model.trace(x, k=k, noise=Noise.of(0, 8)), x)
        relative = torch.exp(weights - exact).std(0)
    assert bool((weights.mean(0) < exact - 0.003).all())  # q is nowhere the posterior: the test would see a shift
    assert float(relative.max()) < 5
    assert bool(((log_mean_weight(weights) - exact).abs() < 5 * relative / math.sqrt(k)).all())


def test_its_pass_is_the_one_of_its_equations():
    model = tiny((1, 3, 2), (3, 2, 2), 5)
    x = binary(4, 1, 3, 2)

    def gated(layer: nn.Linear, more=0.0, *given):
        a, b = (layer(*given) + more).chunk(2, -1)
        return a / (1 + torch.exp(-b))

    with torch.no_grad():
        trace = model.trace(x, k=3, noise=Noise.of(2, 4))
        f = x.flatten(1)
        for layer in model.features.net:
            f = gated(layer.linear, 0.0, f)
        top, *below = model.stages[0].layers
        h, raw = None, top.out(f).expand(3, -1, -1)
        for found, layer in zip(trace.latents, (top, *below), strict=True):
            if h is not None:
                raw = layer.out(gated(layer.seen, layer.above(h), f))
            mean, log_scale = raw.chunk(2, -1)
            torch.testing.assert_close(found.q.mean, mean)
            torch.testing.assert_close(found.q.stddev, torch.exp(5 * torch.tanh(log_scale / 5)))
            z = found.z
            if h is None:
                h = gated(layer.enter.linear, 0.0, z)
            else:
                u = torch.exp(5 * torch.tanh(layer.scale(h) / 5)) * z
                h = gated(layer.enter, layer.state(h), u)
        torch.testing.assert_close(trace.px.mean.flatten(2), torch.sigmoid(model.likelihood.net(h)))


def test_its_closed_form_rate_is_the_mean_of_the_sampled_one():
    model, x = tiny(latents=(2, 2)), torch.ones(4, 3).double()
    with torch.no_grad():
        for h in model.trace(x, k=4_000, noise=Noise.of(0, 4)).latents:
            sampled = h.log_q - h.log_p
            error = sampled.std(0) / math.sqrt(4_000)
            assert bool(((latent_rate(h).mean(0) - sampled.mean(0)).abs() < 5 * error).all())


def test_a_code_holds_the_whole_walk_and_no_row_depends_on_its_batch():
    model, x = tiny((2, 3, 2), (3, 2)), binary(5, 2, 3, 2)
    base, rows = torch.tensor(77), torch.arange(5)
    with torch.no_grad():
        drawn, trace = model.encode(x, noise=Noise.of(5, 5)), model.trace(x, noise=Noise.of(5, 5))
        torch.testing.assert_close(drawn, torch.cat([h.z for h in trace.latents], 1))
        torch.testing.assert_close(model.decode(drawn).mean, trace.px.mean)
        code = model.encode(x)
        torch.testing.assert_close(code[:, :3], trace.latents[0].q.mean)
        both = model.decode(torch.stack([drawn, code]))
        torch.testing.assert_close(both.mean[1], model.decode(code).mean)
        assert both.event_shape == (2, 3, 2)
        whole = log_weights(model.trace(x, k=3, noise=Noise(base, rows)), x)
        for k in range(3):
            torch.testing.assert_close(log_weights(model.trace(x, k=1, noise=Noise(base, rows, k)), x)[0], whole[k])
        alone = log_weights(model.trace(x[2:3], k=3, noise=Noise(base, rows[2:3])), x[2:3])
        torch.testing.assert_close(alone[:, 0], whole[:, 2])
    z = model.sample(3000, noise=Noise.of(0, 3000))
    assert z.dtype == torch.float64
    assert float(z.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / z.numel()))
    torch.testing.assert_close(model.sample(3, noise=Noise.of(0, 3), temperature=0.5), z[:3] / 2)
    with pytest.raises(ValueError, match="takes no condition"):
        model.trace(x, torch.eye(5))


def test_without_the_scale_of_its_lower_layer_it_is_a_vae():
    model, z = tiny((4,), (3, 2)), torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        assert not torch.allclose(model.decode(z).mean, model.decode(z * torch.tensor([1, 1, 1, 0, 0])).mean)
        model.stages[0].layers[1].enter.weight.zero_()
        torch.testing.assert_close(model.decode(z).mean, model.decode(z * torch.tensor([1, 1, 1, 0, 0])).mean)


def test_its_output_starts_at_the_datas_mean_and_a_patch_is_found():
    """A 3 x 3 patch at one of 36 positions: log p(x) is -3.6 at best; independent pixels reach -24.4."""
    event = (1, 8, 8)
    place = torch.randint(0, 6, (300, 64, 2), generator=torch.Generator().manual_seed(0))
    down, right = (((torch.arange(8) - p) >= 0) & ((torch.arange(8) - p) < 3) for p in place.split(1, -1))
    raw = (down[..., :, None] & right[..., None, :])[:, :, None].to(torch.uint8) * 255
    torch.manual_seed(0)
    composition = Composition(DenseTopDown(event, heads.Bernoulli(event), 32, (2, 2)), ELBO(), Binary())
    vk.recipes.parts.start(composition, raw.flatten(0, 1).float() / 255)
    engine = Engine(composition, Settings(optimiser=lambda: optimiser("adamw"), lr=1e-2, seed=1, clip=50.0))
    values = [float(engine.step(x, t, 1.0)[engine.stats.index("elbo")]) for t, x in enumerate(raw)]
    assert values[0] > -40  # 64 log 2 = 44 without the mean
    assert sum(values[-10:]) / 10 > -15


# --- the recipe -------------------------------------------------------------------------------------------------


def test_small_images_have_dense_layers_and_others_have_grids():
    made = get_recipe("ladder")(DIGITS)
    assert made.model.sizes == [40, 20]
    assert made.defaults.lr == get_recipe("vae")(DIGITS).defaults.lr
    made.objective.plan(1000)
    assert float(made.objective.beta(torch.tensor(250))) == 0.5
    three = get_recipe("ladder")(DIGITS, layers=(3,), width=10, latent=2, warmup=0)
    assert three.model.sizes == [2, 2, 2]
    assert three.model.likelihood.net.in_features == 10
    three.objective.plan(1000)
    assert float(three.objective.beta(torch.tensor(0))) == 1.0
    large = replace(DIGITS, shape=(3, 64, 64))
    for spec, layers in ((large, None), (DIGITS, (2, 1)), (DataSpec("vector", (9,), 50, (0.0, 1.0), False), None)):
        gridded = get_recipe("ladder")(spec, layers=layers, width=4, latent=1)
        assert isinstance(gridded.model, TopDown)
        gridded.objective.plan(1000)
        assert float(gridded.objective.beta(torch.tensor(0))) == 1.0
    wide = get_recipe("ladder")(large, layers=(1,), width=4, latent=1)  # dense because asked for
    assert isinstance(wide.model, DenseTopDown)
    assert wide.model.features.net.share == pytest.approx(2048 / 12288)
    with pytest.raises(ChoiceError, match="sum of 1 or more"):
        get_recipe("ladder")(DIGITS, layers=(0,))
    with pytest.raises(ChoiceError, match="at least one layer, with latents"):
        DenseTopDown((4,), heads.Bernoulli((4,)), 4, ())


def test_a_run_from_before_keeps_its_grids():
    folder = Path(__file__).parents[2] / "docs" / "runs" / "ladder"
    config = read_json(folder / "run.json")
    for rules in (1, 4):  # its own, and the last that had grids by default
        config["data"]["facts"]["rules"] = rules
        made = rebuild(config)
        stored = read_tensors(folder / "model.safetensors")[0]
        assert {n.removeprefix("model."): t.shape for n, t in stored.items() if n.startswith("model.")} == {
            n: t.shape for n, t in made.model.state_dict().items()
        }
        made.objective.plan(1000)
        assert float(made.objective.beta(torch.tensor(250))) == 0.5  # its own warm-up of 500 steps


def test_a_trained_run_opens_encodes_and_scores(tmp_path):
    data = vk.from_arrays(blobs(40, 6, 5), kind="image")
    run = vk.fit(
        data, "ladder", out=tmp_path / "run", steps=3, batch=8, width=8, latent=2,
        progress=False, compile="off", device="cpu",
    )  # fmt: skip
    again = vk.open(tmp_path / "run")
    assert again.encode(data.test[:3]).shape == (3, 4)
    assert (again.encode(data.test[:3]) == run.encode(data.test[:3])).all()
    assert again.sample(2).shape == (2, *data.shape)
    assert again.config["data"]["facts"]["rules"] > 4
    x = again.composition.observation(torch.from_numpy(data.test[:3]), Noise.of(0, 3))
    assert again.model.trace(x, noise=Noise.of(0, 3)).px.event_shape == (1, 6, 5)
