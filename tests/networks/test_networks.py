"""Networks from shapes: their outputs, their cost, and their initial values."""

import math

import numpy as np
import pytest
import torch
from core_helpers import own_network
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vaekit import fit, heads, networks
from vaekit.data.observation import Identity
from vaekit.networks import convolutional
from vaekit.objectives import ELBO
from vaekit.recipes import Composition, DataSpec, gaussian_vae, get_recipe
from vaekit.training.cost import Work, decide_compile, work

EVENTS = [(1, 28, 28), (3, 64, 64), (2, 17, 9), (1, 6, 5), (4, 50), (1, 7)]


def macs(net: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(x)
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize(("blocks", "direct", "most"), [(0, 0, 1), (1, 0, 1), (0, 1, 10**6), (0, 1, 20)])
def test_convolutions_take_any_shape_with_any_leading_axes(event, blocks, direct, most, monkeypatch):
    monkeypatch.setattr(convolutional, "DIRECT", most)
    torch.manual_seed(0)
    encoder = networks.ConvEncoder(event, 6, (8, 12), blocks, direct * event[0]).eval()
    decoder = networks.ConvDecoder(3, event, 2, (8, 12), blocks, direct * event[0]).eval()
    if direct:
        nn.init.normal_(decoder.direct.image.weight)
    x, z = torch.randn(2, 4, *event), torch.randn(2, 4, 3)
    with torch.no_grad():
        assert encoder(x).shape == (2, 4, 6)
        out = decoder(z)
        assert out.shape == (2, 4, 2 * math.prod(event))
        # GroupNorm is a datum's own: no row depends on its batch
        torch.testing.assert_close(decoder(z[1, 2]), out[1, 2], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder(x[1, 2]), encoder(x)[1, 2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("most", [10**6, 20])
def test_what_is_beside_the_convolutions_is_linear(most, monkeypatch):
    """DirectIn and DirectOut are affine maps for small and large images; DirectOut starts at zero, for locations."""
    monkeypatch.setattr(convolutional, "DIRECT", most)
    torch.manual_seed(0)
    for event in EVENTS:
        into, out = networks.DirectIn(event, 5), networks.DirectOut(4, event, 2 * event[0])
        assert math.prod(out.start) <= most or math.prod(out.start[1:]) == 1
        x, y, z = torch.randn(3, *event), torch.randn(3, *event), torch.randn(3, 4)
        torch.testing.assert_close(into(2 * x - y), 2 * into(x) - into(y), rtol=1e-4, atol=1e-5)
        into.centre.copy_(y[0])
        torch.testing.assert_close(into(y[:1]), torch.zeros(1, 5))
        assert out(z).shape == (3, 2 * event[0], *event[1:])
        bias = out(torch.zeros(1, 4))  # one row takes another route through a matrix product than three
        torch.testing.assert_close(out(z), bias.expand_as(out(z)), rtol=1e-5, atol=1e-6)
        nn.init.normal_(out.image.weight)
        torch.testing.assert_close(out(3 * z) - bias, 3 * (out(z) - bias), rtol=1e-4, atol=1e-4)
        location, scale = (out(z) - bias).detach().split(event[0], 1)
        assert float(location.std(0).min()) > 0  # every place is reached
        assert float(scale.abs().max()) < 1e-5  # of a difference of numbers of order one
        nn.init.normal_(out.mix.weight)
        assert float((out(z) - bias).detach().std(0).min()) > 0


def test_what_is_linear_reaches_the_first_features_alone():
    torch.manual_seed(0)
    for event in EVENTS:
        net = networks.ConvEncoder(event, 6, (8,), direct=event[0], linear=2)
        x = torch.randn(3, *event)
        before = net(x)
        nn.init.normal_(net.direct.dense.weight)
        moved = (net(x) - before).detach()
        assert bool(moved[:, :2].all())
        assert not moved[:, 2:].any()


@pytest.mark.parametrize("condition", ["none", "label"])
def test_the_dense_layer_is_centred_on_what_the_encoder_sees(condition):
    """The network gets bytes rescaled to -1..1, with or without further inputs."""
    spec = DataSpec("image", (3, 8, 8), 40, (0.0, 255.0), True, classes=("a", "b"))
    made = get_recipe("conv")(spec, latent=4, hidden=(4,), condition=condition)
    x = torch.randint(0, 256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        made.start(made, x)
    (into,) = (m for m in made.model.modules() if isinstance(m, networks.DirectIn))
    torch.testing.assert_close(into.centre, (x / 127.5 - 1).mean(0), rtol=1e-5, atol=1e-6)


def test_every_output_is_reached_by_the_code_and_every_weight_by_the_output():
    """Odd sizes are cropped; every output must depend on the input."""
    for event in EVENTS:
        decoder = networks.ConvDecoder(3, event, 1, (8, 12), 1)
        z = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
        out = decoder(z)
        assert float(out.detach().std(0).min()) > 0, event
        gradients = torch.autograd.grad(out.square().sum(), list(decoder.parameters()))
        # the first convolution of a residual block waits for its last to leave zero
        waiting = ("norm1", "norm2", "conv1")
        for (n, _), g in zip(decoder.named_parameters(), gradients, strict=True):
            assert bool(g.any()) or n.split(".")[-2] in waiting, n


def test_a_decoder_costs_less_than_a_third_of_convolving_after_upsampling():
    channels, latent = (32, 64, 128, 256), 512
    decoder = networks.ConvDecoder(latent, (3, 64, 64), 2, channels)
    cost = macs(decoder, torch.randn(1, latent))
    # 4 taps an output and the dense layer
    by_hand = 4 * (64 * 256 * 128 + 256 * 128 * 64 + 1024 * 64 * 32 + 4096 * 32 * 6) + latent * 4096
    assert cost == by_hand
    upsampled = 9 * (64 * 256 * 128 + 256 * 128 * 64 + 1024 * 64 * 32 + 4096 * 32 * 32 + 4096 * 32 * 6) + latent * 4096
    assert cost < upsampled / 3


def test_its_layers_keep_the_size_of_what_goes_through():
    """The standard deviation stays near 1 at each level: weights are initialised for the taps that an output sums."""
    torch.manual_seed(0)
    layer = networks.doubling(64, 32, 2)
    h = layer(torch.randn(8, 64, 8, 8))
    # torch's bound sqrt(1 / n) of uniform weights over n inputs gives a deviation of sqrt(1 / 3)
    assert float(h[..., 1:-1, 1:-1].detach().std()) == pytest.approx(3**-0.5, rel=0.1)
    assert h.shape == (8, 32, 16, 16)


def test_a_grid_is_cropped_to_its_first_rows():
    h = torch.arange(24.0).reshape(1, 1, 4, 6)
    assert torch.equal(networks.cropped(h, (3, 5)), h[:, :, :3, :5])
    assert networks.cropped(h, (4, 6)).shape == h.shape


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_values_and_gradients_do_not_depend_on_the_layout_in_memory(size, monkeypatch):
    torch.manual_seed(0)
    event = (3, *size)
    net = nn.Sequential(
        networks.ConvEncoder(event, 4, (8, 16), direct=3), networks.ConvDecoder(4, event, 2, (8, 16), direct=3)
    ).double()
    x = torch.randn(5, *event, dtype=torch.float64)

    def values_and_gradients():
        y = net(x)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), list(net.parameters()))]

    fast = values_and_gradients()
    monkeypatch.setattr(convolutional, "fastest_layout", lambda x: x)
    for a, b in zip(fast, values_and_gradients(), strict=True):
        torch.testing.assert_close(a, b)
    assert all(p.is_contiguous() for p in net.parameters())


def test_a_bias_of_places_is_found_as_the_output_bias():
    net = nn.Sequential(networks.ConvDecoder(2, (1, 6, 5), 1, (4,)), networks.Bias(30))
    before = net[0](torch.zeros(1, 2))
    assert networks.set_output_bias(net, torch.arange(30.0))
    torch.testing.assert_close(net(torch.zeros(1, 2)), before + torch.arange(30.0))
    assert not networks.set_output_bias(net, torch.zeros(7))


def test_a_network_of_one_batch_axis_serves_samples_too():
    net = nn.Sequential(nn.Linear(3, 8), nn.Unflatten(1, (2, 2, 2)), nn.ConvTranspose2d(2, 1, 2, 2))
    z = torch.randn(5, 4, 3)
    found = networks.Batched(net)(z)
    assert found.shape == (5, 4, 16)
    torch.testing.assert_close(found[2], net(z[2]).flatten(1))
    images = torch.randn(5, 4, 1, 6, 6)
    assert networks.Batched(nn.Conv2d(1, 2, 3), 3)(images).shape == (5, 4, 32)


# --- what a step costs, and whether to compile it ---------------------------------------------------------------


def test_work_is_counted_in_multiply_adds_and_changes_nothing():
    event = (1, 8, 8)
    torch.manual_seed(0)
    encoder, decoder = networks.ConvEncoder(event, 4, (4,)), networks.ConvDecoder(2, event, 1, (4,))
    model = gaussian_vae(encoder, decoder, 2, heads.Bernoulli(event))
    counted = work(Composition(model, ELBO(), Identity()), event)
    assert counted[:2] == (64 * 4 + 2 * 64, 16 * 4 * 9 + 16 * 4 * 16)
    dense = gaussian_vae(networks.MLP((7,), 4, (5,)), networks.MLP((2,), 7, (3,)), 2, heads.Bernoulli((7,)))
    assert work(Composition(dense, ELBO(), Identity()), (7,))[:2] == (7 * 5 + 5 * 4 + 2 * 3 + 3 * 7, 0)


def test_the_operations_of_a_step_are_counted_forward_and_backward():
    spec = DataSpec("image", (1, 8, 8), 100, (0.0, 255.0), True)
    plain = work(get_recipe("vae")(spec), (1, 8, 8)).operations
    assert 150 < plain < 600
    made = get_recipe("ladder")(spec, layers=(2, 2)), get_recipe("hyperspherical")(spec)
    deep, sphere = (work(one, (1, 8, 8)).operations for one in made)
    assert deep > 4 * plain
    assert sphere > 2 * plain
    quantised = get_recipe("vq")(spec)  # averages that a step updates stay as they are
    before = {n: t.clone() for n, t in quantised.model.state_dict().items()}
    assert work(quantised, (1, 8, 8)).operations > 100
    assert all(torch.equal(before[n], t) for n, t in quantised.model.state_dict().items())
    assert all(p.grad is None for p in quantised.model.parameters())


def test_work_leaves_modes_statistics_and_random_numbers_alone():
    composition = own_network()  # dropout and batch normalisation
    frozen = composition.model.posterior.net[2]
    frozen.eval()
    before = {n: t.clone() for n, t in composition.model.state_dict().items()}
    state = torch.get_rng_state()
    assert work(composition, (1, 6, 5)).dense == 30 * 12 + 12 * 4 + 2 * 12 + 12 * 30
    assert torch.equal(state, torch.get_rng_state())
    assert composition.model.training
    assert not frozen.training
    assert all(torch.equal(before[n], t) for n, t in composition.model.state_dict().items())
    # of a shape it does not take: a number, and the error waits for the check of the first batch
    assert work(composition, (1, 9, 9))[:2] == (sum(p.numel() for p in composition.model.parameters()), 0)


def test_compiling_is_decided_by_the_dense_products():
    cpu = torch.device("cpu")
    small, large = Work(10**6, 0, 333), Work(2 * 10**8, 0, 333)
    assert not decide_compile("off", 1e9, large, 100, cpu)[0]
    if not decide_compile("auto", 1e9, small, 100, cpu)[0]:
        pytest.skip("no C++ compiler here")
    assert not decide_compile("auto", 1000, small, 100, cpu)[0]
    assert decide_compile("auto", 1000, large, 100, cpu)[0]
    assert not decide_compile("auto", 100, large._replace(operations=6000), 100, cpu)[0]  # such a graph takes minutes
    assert decide_compile("auto", 100, large, 100, cpu)[0]
    assert not decide_compile("auto", 100, large, 100, cpu, crowded=4.0)[0]  # beside other programs
    # convolutions are no faster in a graph
    assert not decide_compile("auto", 1000, Work(0, 2 * 10**8, 333), 100, cpu)[0]
    assert large.seconds(100) == Work(0, 2 * 10**8, 333).seconds(100) == pytest.approx(1.202, abs=1e-4)


@pytest.mark.parametrize("hidden", [(), (7,)])
@pytest.mark.parametrize("activation", ["relu", "gated"])
def test_a_wide_input_starts_alike_and_moves_as_one_of_2048_numbers(hidden, activation):
    n = 3 * networks.WIDE
    x = torch.randn(5, n)
    made = []
    for wide in (False, True):
        torch.manual_seed(0)
        made.append(networks.MLP((n,), 4, hidden, activation, wide))
    plain, scaled = made
    torch.testing.assert_close(scaled(x), plain(x), rtol=1e-4, atol=1e-5)
    rate, first = 1e-3, next(scaled.parameters())
    before = scaled.hidden[0](x * scaled.share) if hidden and activation == "relu" else None
    with torch.no_grad():
        first += rate * x[0].sign()  # what Adam does at first: every weight by the learning rate
    if hidden and activation == "relu":
        moved = (
            (torch.nn.functional.linear(x[:1] * scaled.share, first) + scaled.hidden[0].bias - before[:1]).abs().max()
        )
        assert moved.item() == pytest.approx(rate * networks.WIDE * float(x[0].abs().mean()), rel=1e-3)
    torch.manual_seed(0)
    narrow = networks.MLP((networks.WIDE,), 4, hidden, activation, True)
    torch.manual_seed(0)
    for a, b in zip(
        narrow.parameters(), networks.MLP((networks.WIDE,), 4, hidden, activation).parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_wide_data_start_with_a_small_kl(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 12_000)).astype(np.float32)
    run = fit(
        x, out=tmp_path / "r", latent=20, hidden=(32,), steps=4, batch=24, validate_steps=1, progress=False, seed=0
    )
    rates = [record["rate"] for record in run.log if record["kind"] == "train"]
    assert max(rates) < 3  # nats; where the input is not scaled, 15 from the second step on
