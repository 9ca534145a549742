"""Discrete latents: codes, codebooks, priors over codes, and the objective that trains them."""

import itertools
import json
import math
import shutil

import numpy as np
import pytest
import torch
from core_helpers import QUIET, blobs, captured, model_of, python, python_here, same, tensors
from torch import nn

import vaekit as vk
from vaekit import heads, networks
from vaekit.data.observation import Binary, Identity
from vaekit.densities import draw
from vaekit.errors import ChoiceError
from vaekit.metrics.likelihood import per_datum
from vaekit.models.quantised import (
    AutoregressiveCodes,
    Coded,
    CodePrior,
    CodeSequence,
    FiniteScalarQuantiser,
    GridDecoder,
    GridEncoder,
    IndependentCodes,
    QuantisedEncoder,
    VectorQuantiser,
    grid_of,
    quantised_vae,
)
from vaekit.noise import Noise
from vaekit.objectives import Batch, Quantised
from vaekit.objectives.quantised import perplexity
from vaekit.objectives.terms import distortion, log_mean_weight, log_weights, rate
from vaekit.recipes.composition import Composition, Defaults
from vaekit.training.optimisers import optimiser
from vaekit.training.step import Engine, Settings

IMAGE = (3, 10, 7)


def shaken(module: nn.Module, seed: int = 5, by: float = 0.5) -> nn.Module:
    """The module with random changes of all weights, so that none keeps an initial value of zero."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(by * torch.randn(p.shape, generator=g, dtype=p.dtype))
    return module


def prior_net(kind, positions, codes, seed=0):
    torch.manual_seed(seed)
    net = (
        IndependentCodes(positions, codes) if kind == "independent" else AutoregressiveCodes(positions, codes, 8, 2, 2)
    )
    return shaken(net, seed).double()


def small(quantiser="vq", event=(1, 6, 5), seed=0, **choices):
    """A small model with random weights in its prior; `quantiser` is vq, gradient or fsq."""
    torch.manual_seed(seed)
    head = heads.Bernoulli(event)
    if quantiser == "fsq":
        model = quantised_vae(event, head, FiniteScalarQuantiser((3, 4)), channels=(4, 8), blocks=1, **choices)
    else:
        decay = None if quantiser == "gradient" else 0.9
        model = quantised_vae(event, head, VectorQuantiser(6, 3, decay), channels=(4, 8), blocks=1, **choices)
    shaken(model.prior)
    return model


def pixels(n, event=(1, 6, 5), seed=1, dtype=torch.float32):
    return (torch.rand(n, *event, generator=torch.Generator().manual_seed(seed)) < 0.4).to(dtype)


def batch_of(x, seed=3):
    return Batch(x, Noise.of(seed, len(x)))


KINDS = ["vq", "gradient", "fsq"]


# --- quantisers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (2,), (2, 3, 4, 7), (3, 3)])
def test_every_scalar_code_is_reached_and_comes_back(levels):
    quantiser = FiniteScalarQuantiser(levels)
    codes = torch.arange(math.prod(levels))
    entries = quantiser.lookup(codes)
    assert quantiser.codes == len(codes) == len(torch.unique(entries, dim=0))
    assert entries.min() == -1
    assert entries.max() == 1
    assert torch.equal(quantiser.nearest(entries), codes)
    choice = quantiser(torch.atanh(entries * (1 - 1e-4)))
    assert torch.equal(choice.codes, codes)
    assert torch.equal(choice.entries, entries)
    # bounded: no number, however far, has a code that is not there
    far = quantiser(torch.full((1, len(levels)), 50.0)).codes
    assert torch.equal(far, codes[-1:])
    assert torch.equal(quantiser(torch.full((1, len(levels)), -50.0)).codes, codes[:1])


@pytest.mark.parametrize("levels", [(), (1, 3)])
def test_scalar_levels_are_refused_where_there_is_nothing_to_choose(levels):
    with pytest.raises(ValueError, match="2 or more levels"):
        FiniteScalarQuantiser(levels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_vector_gets_the_nearest_entry_exactly(dtype):
    torch.manual_seed(0)
    quantiser = VectorQuantiser(9, 3).to(dtype)
    e = torch.randn(40, 2, 3, dtype=dtype)
    choice = quantiser(e)
    distance = (e[..., None, :] - quantiser.codebook).square().sum(-1)
    assert torch.equal(choice.codes, distance.argmin(-1))
    assert torch.equal(choice.entries, quantiser.codebook[choice.codes])
    z = Coded(choice).loc
    assert torch.equal(z, choice.entries.flatten(1))  # to the last bit, and so back to the same codes
    assert torch.equal(quantiser.nearest(z.unflatten(-1, (2, 3))), choice.codes)
    assert torch.equal(quantiser.lookup(choice.codes), choice.entries)


def test_entries_that_hardly_differ_are_told_apart_far_from_zero():
    """|e|^2 - 2 e.c + |c|^2 in float32 loses differences of 1e-3 at 1e3; differences themselves do not."""
    quantiser = VectorQuantiser(4, 2)
    entries = torch.tensor([[1000.0, 0.0], [1000.001, 0.0], [1000.002, 0.0], [1000.003, 0.0]])
    quantiser.initialise(entries)
    codes = quantiser.nearest(quantiser.codebook)
    assert torch.equal(codes, torch.arange(4))


def test_codes_and_codebook_are_in_float32_whatever_the_network_runs_in():
    torch.manual_seed(0)
    plain = VectorQuantiser(64, 4, decay=0.5)
    inside = VectorQuantiser(64, 4, decay=0.5)
    inside.load_state_dict(plain.state_dict())
    e = torch.randn(300, 2, 4)
    q = Coded(plain(e))
    plain.learn(q, Noise.of(0, 300))
    with torch.autocast("cpu", torch.bfloat16):
        cast = Coded(inside(e))
        inside.learn(cast, Noise.of(0, 300))
        assert inside(e.bfloat16()).entries.dtype == torch.float32
    assert torch.equal(q.codes, cast.codes)
    assert torch.equal(plain.codebook, inside.codebook)


@pytest.mark.parametrize("kind", KINDS)
def test_the_straight_through_gradient_is_the_decoders_gradient_at_the_entries(kind):
    model = small(kind).double()
    x = pixels(5, dtype=torch.float64)
    e = model.posterior.vectors(x)
    choice = model.posterior.quantiser(e)
    q = Coded(choice)
    loss = -model.likelihood(q.rsample()).log_prob(x).sum()
    (to_encoder,) = torch.autograd.grad(loss, e)
    at = choice.entries.detach().flatten(1).requires_grad_()
    (at_entries,) = torch.autograd.grad(-model.likelihood(at).log_prob(x).sum(), at)
    slope = 1 - torch.tanh(e.detach()) ** 2 if kind == "fsq" else 1.0  # rounding is bounded by a tanh
    torch.testing.assert_close(to_encoder, at_entries.reshape(e.shape) * slope)


def test_running_means_equal_their_closed_form_on_fixed_choices():
    """N_n = d^n N_0 + (1 - d^n) share, and the same for the totals: entries are their ratio."""
    torch.manual_seed(0)
    quantiser = VectorQuantiser(4, 2, decay=0.8, restart=0.0).double()
    e = torch.randn(10, 3, 2, dtype=torch.float64)
    q = Coded(quantiser(e))
    usage, total = quantiser.usage.clone(), quantiser.total.clone()
    chosen = nn.functional.one_hot(q.codes.flatten(), 4).double() / 30
    steps = 7
    for _ in range(steps):
        quantiser.learn(q, Noise.of(0, 10))
    left = 0.8**steps
    torch.testing.assert_close(quantiser.usage, left * usage + (1 - left) * chosen.sum(0))
    torch.testing.assert_close(quantiser.total, left * total + (1 - left) * chosen.T @ e.flatten(0, 1))
    torch.testing.assert_close(quantiser.codebook, quantiser.total / quantiser.usage[:, None])
    for _ in range(300):
        quantiser.learn(q, Noise.of(0, 10))
    for code in q.codes.unique():  # in the end, the mean of what chose it
        torch.testing.assert_close(quantiser.codebook[code], e.flatten(0, 1)[q.codes.flatten() == code].mean(0))


def test_running_means_of_shares_do_not_depend_on_how_a_batch_is_cut():
    """The mean over parts of a batch, weighted by their rows, equals the whole batch, as several processes need."""
    torch.manual_seed(0)
    whole = VectorQuantiser(16, 2, decay=0.8, restart=0.5).double()
    parts = [VectorQuantiser(16, 2, decay=0.8, restart=0.5).double() for _ in range(2)]
    for part in parts:
        part.load_state_dict(whole.state_dict())
    for step in range(12):
        e = torch.randn(15, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        rows = torch.arange(15)
        whole.learn(Coded(whole(e)), Noise.of(step, 15))
        for i, part in enumerate(parts):
            part.learn(Coded(part(e[i::2])), Noise.of(step, rows[i::2]))
        for name, buffer in whole.named_buffers():
            together = sum(len(rows[i::2]) / 15 * part.get_buffer(name) for i, part in enumerate(parts))
            for part in parts:
                part.get_buffer(name).copy_(together)
            if name not in ("offer", "offered"):
                torch.testing.assert_close(together, buffer)
        torch.testing.assert_close(parts[0].codebook, whole.codebook)


@torch.no_grad()
def dying(batch=40, codes=5, decay=0.5):
    """A codebook in which only entry 0 is chosen, and the batch that does so."""
    quantiser = VectorQuantiser(codes, 2, decay=decay, restart=0.2)
    far = torch.full((codes, 2), 100.0) + torch.arange(codes)[:, None]
    far[0] = 0
    if decay is None:
        quantiser.entries.copy_(far)
    else:
        quantiser.total.copy_(far / codes)
    g = torch.Generator().manual_seed(0)
    return quantiser, 0.1 * torch.randn(batch, 3, 2, generator=g)


@pytest.mark.parametrize(("decay", "steps"), [(0.5, 2), (None, 160)])
def test_dead_entries_become_vectors_of_the_batch(decay, steps):
    """0.5^2 of an even share is above the fifth at which an entry dies, and so is 0.99^160; a step later neither is."""
    quantiser, e = dying(decay=decay)
    before = quantiser.codebook.detach().clone()
    for step in range(steps):
        quantiser.learn(Coded(quantiser(e)), Noise.of(step, len(e)))
    torch.testing.assert_close(quantiser.codebook[1:], before[1:])
    quantiser.learn(Coded(quantiser(e)), Noise.of(steps, len(e)))
    alive = quantiser.codebook[1:].detach()
    offered = (alive[:, None] - e.flatten(0, 1)).abs().amax(-1).amin(1)
    torch.testing.assert_close(offered, torch.zeros(4), atol=1e-5, rtol=0)  # 104 and what it was moved by, in float32
    assert len(torch.unique(alive, dim=0)) == 4
    assert len(quantiser(e).codes.unique()) > 1


def test_restarts_draw_nothing_from_torchs_generator():
    found = []
    for seed in (0, 1):
        torch.manual_seed(0)
        quantiser, e = dying()
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        for step in range(6):
            quantiser.learn(Coded(quantiser(e)), Noise.of(step, len(e)))
        assert torch.equal(state, torch.get_rng_state())
        found.append(quantiser.codebook)
    assert torch.equal(*found)
    other, e = dying()
    for step in range(6):
        other.learn(Coded(other(e)), Noise.of(step, len(e), 9))
    assert not torch.equal(other.codebook, found[0])


def test_a_batch_smaller_than_the_codebook_restarts_it_over_several_steps():
    quantiser, e = dying(batch=2, codes=9)
    for step in range(60):
        quantiser.learn(Coded(quantiser(e)), Noise.of(step, len(e)))
    assert quantiser.codebook.abs().max() < 1


def test_an_entry_restarted_goes_on_learning_by_gradients():
    """An entry is the sum of a buffer and a parameter, so it moves by the change of the parameter."""
    quantiser, e = dying(decay=None)
    for step in range(170):
        quantiser.learn(Coded(quantiser(e)), Noise.of(step, len(e)))
    restarted = quantiser.codebook.detach().clone()
    assert quantiser.moved[1:].abs().min() > 90
    q = Coded(quantiser(e))
    (g,) = torch.autograd.grad(quantiser.penalties(q)[1].sum(), [quantiser.entries])
    chosen = nn.functional.one_hot(q.codes.flatten(), 5).float()
    torch.testing.assert_close(g, 2 * (chosen.sum(0)[:, None] * restarted - chosen.T @ e.flatten(0, 1)))
    with torch.no_grad():
        quantiser.entries.sub_(0.1 * g)
    torch.testing.assert_close(quantiser.codebook.detach(), restarted - 0.1 * g, atol=3e-5, rtol=0)


def test_without_restarts_a_dead_entry_stays_finite():
    quantiser, e = dying()
    quantiser.restart = 0.0
    for step in range(400):  # 2^-400 is no float32
        quantiser.learn(Coded(quantiser(e)), Noise.of(step, len(e)))
    assert torch.isfinite(quantiser.codebook).all()


@pytest.mark.parametrize("decay", [0.99, None])
def test_a_codebook_starts_from_the_data(decay):
    torch.manual_seed(0)
    model = quantised_vae((1, 8, 8), heads.Bernoulli((1, 8, 8)), VectorQuantiser(12, 3, decay), channels=(4, 8))
    x = pixels(50, (1, 8, 8))
    model.posterior.start(x)
    e = model.posterior.vectors(x).detach().flatten(0, 1)
    entries = model.posterior.quantiser.codebook.detach()
    assert (entries[:, None] - e).abs().amax(-1).amin(1).max() < 1e-5
    assert len(torch.unique(entries, dim=0)) == 12
    again = entries.clone()
    torch.manual_seed(7)
    model.posterior.start(x)
    assert torch.equal(again, model.posterior.quantiser.codebook)


def test_a_codebook_starts_from_fewer_vectors_than_entries():
    quantiser = VectorQuantiser(5, 2)
    quantiser.initialise(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert torch.isfinite(quantiser.codebook).all()
    assert len(torch.unique(quantiser.codebook, dim=0)) == 2


@pytest.mark.parametrize(
    "wrong", [{"codes": 0}, {"dim": 0}, {"decay": 1.0}, {"decay": -0.1}, {"commitment": -1.0}, {"restart": 1.0}]
)
def test_codebooks_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).removesuffix("s")):
        VectorQuantiser(**{"codes": 4, "dim": 2, **wrong})


# --- the prior --------------------------------------------------------------------------------------------------

ALPHABET, LENGTH = 3, 4
ALL = torch.tensor(list(itertools.product(range(ALPHABET), repeat=LENGTH)))


def sequence(kind, temperature=1.0, seed=0):
    torch.manual_seed(seed)
    quantiser = VectorQuantiser(ALPHABET, 2).double()
    return CodeSequence(prior_net(kind, LENGTH, ALPHABET, seed), quantiser, temperature)


@pytest.mark.parametrize("kind", ["independent", "autoregressive"])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 2.0, 0.0])
def test_probabilities_of_all_sequences_sum_to_one(kind, temperature):
    p = sequence(kind, temperature)
    log_p = p.log_prob_of(ALL)
    assert log_p.shape == (ALPHABET**LENGTH,)
    assert float(log_p.detach().exp().sum()) == pytest.approx(1, abs=1e-12)
    z = p.quantiser.lookup(ALL).flatten(-2)
    assert torch.equal(p.log_prob(z), log_p)
    assert p.event_shape == z.shape[1:]


@pytest.mark.parametrize("kind", ["independent", "autoregressive"])
@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_a_temperature_divides_the_logits_of_every_code(kind, temperature):
    p = sequence(kind)
    logits = p.net(ALL)
    shares = torch.softmax(logits, -1) ** (1 / temperature)
    by_hand = torch.log(shares / shares.sum(-1, keepdim=True)).gather(-1, ALL[..., None]).sum((1, 2))
    torch.testing.assert_close(p.tempered(temperature).log_prob_of(ALL), by_hand)


@pytest.mark.parametrize("kind", ["independent", "autoregressive"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sampled_sequences_follow_their_probabilities(kind, temperature):
    p = sequence(kind).tempered(temperature)
    n = 40_000
    z = draw(p, Noise.of(0, n))
    codes = p.quantiser.nearest(z.unflatten(-1, (LENGTH, 2)))
    number = (codes * ALPHABET ** torch.arange(LENGTH - 1, -1, -1)).sum(-1)
    counts = torch.bincount(number, minlength=len(ALL)).double()
    expected = n * p.log_prob_of(ALL).exp()
    # Pearson's statistic over cells of 5 or more has as many degrees of freedom: mean f, deviation sqrt(2 f)
    kept = expected >= 5
    statistic = ((counts - expected) ** 2 / expected)[kept].sum()
    f = int(kept.sum())
    assert float(statistic.detach()) < f + 5 * math.sqrt(2 * f)
    assert float(counts[~kept].sum()) <= float(expected[~kept].detach().sum()) + 5 * math.sqrt(n * 5e-4) + 5


def test_a_code_depends_on_those_before_it_alone():
    net = prior_net("autoregressive", LENGTH, ALPHABET)
    logits = net(ALL)
    for i in range(LENGTH):
        changed = ALL.clone()
        changed[:, i:] = (changed[:, i:] + 1) % ALPHABET
        torch.testing.assert_close(net(changed)[:, : i + 1], logits[:, : i + 1], rtol=0, atol=1e-12)
        if i < LENGTH - 1:
            assert not torch.allclose(net(changed)[:, i + 1 :], logits[:, i + 1 :])


@pytest.mark.parametrize("kind", ["independent", "autoregressive"])
def test_sampling_code_by_code_uses_the_logits_of_one_pass(kind):
    net = prior_net(kind, LENGTH, ALPHABET)
    seen = []

    def choose(i, logits):
        seen.append(logits)
        return ALL[:, i]

    assert torch.equal(net.generate(len(ALL), choose), ALL)
    torch.testing.assert_close(torch.stack(seen, 1), net(ALL), rtol=0, atol=1e-12)


def test_at_temperature_zero_the_likeliest_code_is_certain():
    p = sequence("autoregressive").tempered(0.0)
    z = draw(p, Noise.of(0, 20))
    assert torch.equal(z, z[:1].expand_as(z))
    assert float(p.log_prob(z[:1])) == 0.0
    others = p.log_prob(p.quantiser.lookup(ALL).flatten(-2))
    assert int((others == 0).sum()) == 1
    assert int(torch.isinf(others).sum()) == len(ALL) - 1


def test_a_row_draws_the_same_codes_in_any_batch_and_any_chunk_of_samples():
    p = sequence("autoregressive")
    whole = draw(p, Noise.of(4, 9), 6)
    assert whole.shape == (6, 9, LENGTH * 2)
    part = draw(p, Noise.of(4, torch.tensor([7, 2])), 6)
    assert torch.equal(part, whole[:, [7, 2]])
    late = draw(p, Noise(Noise.of(4, 9).base, torch.arange(9), 2), 3)
    assert torch.equal(late, whole[2:5])


@pytest.mark.parametrize("kind", ["independent", "autoregressive"])
def test_the_prior_starts_even(kind):
    torch.manual_seed(0)
    make = IndependentCodes if kind == "independent" else AutoregressiveCodes
    p = CodeSequence(make(7, 11), VectorQuantiser(11, 2))
    codes = torch.randint(0, 11, (5, 7))
    torch.testing.assert_close(p.log_prob_of(codes), torch.full((5,), -7 * math.log(11)))


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of heads"):
        AutoregressiveCodes(4, 3, width=6, heads=4)


# --- networks and models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "channels", "grid"),
    [
        ((1, 28, 28), (4, 8), (7, 7)),
        (IMAGE, (4, 8), (3, 2)),
        ((3, 10, 7), (4,), (5, 4)),
        ((2, 13), (4, 6), (4,)),
        ((1, 1, 1), (4,), (1, 1)),
    ],
)
def test_grids_of_any_size(event, channels, grid):
    assert grid_of(event, len(channels)) == grid
    encoder, decoder = GridEncoder(event, 5, channels), GridDecoder(event, 5, 2, channels)
    x = torch.randn(3, *event)
    z = encoder(x)
    assert z.shape == (3, math.prod(grid) * 5)
    assert decoder(z).shape == (3, 2 * math.prod(event))
    assert decoder(z.expand(4, 3, -1)).shape == (4, 3, 2 * math.prod(event))
    assert encoder(x.expand(2, 3, *event)).shape == (2, 3, z.shape[1])


def test_a_place_of_the_grid_is_one_vector_on_the_way_in_and_out():
    """Column-major or channel-major flattening on either side would tear the vectors apart."""
    torch.manual_seed(0)
    encoder, decoder = GridEncoder((1, 16, 8), 5, (4, 6), 0), GridDecoder((1, 16, 8), 5, 1, (4, 6), 0)
    x = torch.randn(1, 1, 16, 8)
    z = encoder(x).reshape(4, 2, 5)
    by_hand = encoder.convs(x)[0].permute(1, 2, 0)
    assert torch.equal(z, by_hand)
    seen = []
    hook = decoder.inp.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    decoder(z.reshape(1, -1))
    hook.remove()
    assert torch.equal(seen[0][0].permute(1, 2, 0), by_hand)


@pytest.mark.parametrize("head", [heads.Bernoulli(IMAGE), heads.DiscretisedLogisticHead(IMAGE), heads.Gaussian(IMAGE)])
@pytest.mark.parametrize("positions", [None, 4])
def test_the_output_can_start_at_the_datas_mean(head, positions):
    model = quantised_vae(IMAGE, head, VectorQuantiser(4, 2), channels=(4, 8), positions=positions, hidden=(8,))
    bias = torch.randn(head.features)
    assert networks.set_output_bias(model.likelihood.net, bias)
    for name, p in model.likelihood.net.named_parameters():
        if not (name.endswith("offset.bias") or name.endswith("out.bias")):
            nn.init.zeros_(p)
    torch.testing.assert_close(model.likelihood.net(torch.randn(2, model.prior().event_shape[0])), bias.expand(2, -1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape", [{"event": IMAGE}, {"event": (2, 13)}, {"event": (7,), "positions": 3, "hidden": (8,)}]
)
def test_encoding_decoding_sampling_and_scoring_need_nothing_special(kind, shape):
    model = small(kind, **shape)
    event = shape["event"]
    x = pixels(5, event)
    z = model.encode(x)
    dims = model.posterior.positions * model.posterior.quantiser.dim
    assert z.shape == (5, dims)
    assert torch.equal(z, model.encode(x, noise=Noise.of(0, 5)))
    assert model.decode(z).event_shape == event
    assert model.decode(0.3 * z[:1] + 0.7 * z[1:2]).mean.shape == (1, *event)  # between codes, decoded as it is
    for temperature in (1.0, 0.5, 0.0):
        new = model.sample(6, noise=Noise.of(1, 6), temperature=temperature)
        assert new.shape == (6, dims)
        codes = model.posterior.quantiser.nearest(new.unflatten(-1, (model.posterior.positions, -1)))
        assert torch.equal(model.posterior.quantiser.lookup(codes).flatten(1), new)
    assert torch.isfinite(rate(model.trace(x))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_k_samples_are_one_and_the_bound_is_the_elbo(kind):
    model = small(kind).eval()
    x = pixels(5)
    one, many = model.trace(x), model.trace(x, k=4)
    (latent,) = many.latents
    assert latent.z.shape == (4, *one.latents[0].z.shape)
    assert latent.log_p.shape == latent.log_q.shape == many.px.log_prob(x).shape == (4, 5)
    assert torch.equal(latent.log_q, torch.zeros(4, 5))
    elbo = -(distortion(one, x) + rate(one))
    torch.testing.assert_close(log_mean_weight(log_weights(many, x)), elbo)
    torch.testing.assert_close(-(distortion(many, x) + rate(many)), elbo)


def test_k_samples_cost_one_decoding():
    model = small().eval()
    sizes = []
    model.likelihood.net.net.register_forward_hook(lambda _, given, out: sizes.append(given[0].shape))
    model.trace(pixels(5), k=50)
    assert sizes == [(5, model.prior().event_shape[0])]
    free = torch.randn(3, 5, model.prior().event_shape[0])
    assert model.likelihood(free).batch_shape == (3, 5)  # draws that differ are all decoded
    assert sizes[1] == free.shape


def test_a_point_elsewhere_has_no_probability():
    q = Coded(small().posterior.quantiser(torch.randn(2, 4, 3)))
    assert torch.equal(q.log_prob(q.loc), torch.zeros(2))
    assert torch.isinf(q.log_prob(q.loc + 1e-3)).all()


def test_the_elbo_bounds_the_log_evidence_summed_over_all_codes():
    """log p(x) = log sum_c P(c) p(x | c), by enumeration; p(x) sums to 1 over all x."""
    torch.manual_seed(0)
    event = (5,)
    model = quantised_vae(event, heads.Bernoulli(event), VectorQuantiser(3, 2), positions=3, hidden=(6,)).double()
    shaken(model)
    x = torch.tensor(list(itertools.product((0.0, 1.0), repeat=5)), dtype=torch.float64)
    codes = torch.tensor(list(itertools.product(range(3), repeat=3)))
    p = model.prior()
    z = p.quantiser.lookup(codes).flatten(1)
    joint = p.log_prob_of(codes)[:, None] + model.likelihood(z[:, None]).log_prob(x)
    evidence = torch.logsumexp(joint, 0)
    assert float(evidence.exp().sum()) == pytest.approx(1)
    trace = model.trace(x)
    elbo = -(distortion(trace, x) + rate(trace))
    assert (elbo <= evidence + 1e-12).all()
    assert (elbo < evidence - 1e-6).any()
    assert float(elbo.exp().sum()) < 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_of_a_datum_does_not_depend_on_the_others(kind):
    model = small(kind).double().eval()
    x = pixels(9, dtype=torch.float64)
    trace = model.trace(x)
    for rows in ([4], [0, 8], [3, 2, 1]):
        part = model.trace(x[rows])
        assert torch.equal(part.latents[0].q.codes, trace.latents[0].q.codes[rows])
        torch.testing.assert_close(part.latents[0].log_p, trace.latents[0].log_p[rows])
        torch.testing.assert_close(distortion(part, x[rows]), distortion(trace, x)[rows])


# --- the objective ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_a_batch_is_the_mean_of_its_datas_own(kind):
    """The loss of a datum, commitment and codebook loss included, does not depend on the rest of its batch."""
    model = small(kind).double().eval()
    x = pixels(9, dtype=torch.float64)
    objective = Quantised().eval()
    whole = objective(model, batch_of(x), torch.tensor(0))
    alone = [objective(model, batch_of(x[i : i + 1]), torch.tensor(0)) for i in range(9)]
    for name in whole.losses:
        torch.testing.assert_close(whole.losses[name], torch.stack([a.losses[name] for a in alone]).mean())
    for name in ("elbo", "rate", "distortion", "commitment"):
        torch.testing.assert_close(whole.stats[name], torch.stack([a.stats[name] for a in alone]).mean())
    doubled = objective(model, batch_of(torch.cat([x, x])), torch.tensor(0))
    for name in whole.losses:
        torch.testing.assert_close(doubled.losses[name], whole.losses[name])


@pytest.mark.parametrize("kind", KINDS)
def test_the_terms_are_what_they_say(kind):
    model = small(kind).double().eval()
    x = pixels(6, dtype=torch.float64)
    terms = Quantised()(model, batch_of(x), torch.tensor(0))
    q = model.posterior(x)
    square = (q.encoded - q.entries).square().sum((1, 2)).mean()
    d = -model.likelihood(q.loc).log_prob(x).mean()
    r = -model.prior().log_prob(q.loc).mean()
    commitment = 0.0 * square if kind == "fsq" else 0.25 * square
    torch.testing.assert_close(terms.stats["commitment"], commitment)
    torch.testing.assert_close(terms.stats["distortion"], d)
    torch.testing.assert_close(terms.stats["rate"], r)
    torch.testing.assert_close(terms.stats["elbo"], -(d + r))
    torch.testing.assert_close(terms.losses["model"], d + commitment + (square if kind == "gradient" else 0.0))
    torch.testing.assert_close(terms.losses["prior"], r)
    assert 1 <= float(terms.stats["perplexity"]) <= model.posterior.quantiser.codes


@pytest.mark.parametrize("kind", KINDS)
def test_each_loss_reaches_its_own_player_alone(kind):
    model = small(kind)
    objective = Quantised()
    parameter_groups = objective.parameter_groups(model)
    assert list(parameter_groups) == ["model", "prior"]
    owned = [id(p) for ps in parameter_groups.values() for p in ps]
    assert len(owned) == len(set(owned)) == len(list(model.parameters()))
    terms = objective(model, batch_of(pixels(6)), torch.tensor(0))
    for mine, other in (("model", "prior"), ("prior", "model")):
        stray = torch.autograd.grad(terms.losses[mine], parameter_groups[other], retain_graph=True, allow_unused=True)
        assert all(g is None for g in stray)
        own = torch.autograd.grad(terms.losses[mine], parameter_groups[mine], retain_graph=True, allow_unused=True)
        assert all(g is not None for g in own)


def test_the_codebooks_gradient_draws_entries_to_what_chose_them():
    """d/d entry of sum |sg(e) - entry|^2 / B; the commitment's and the decoder's do not reach it."""
    model = small("gradient").double()
    x = pixels(6, dtype=torch.float64)
    terms = Quantised()(model, batch_of(x), torch.tensor(0))
    (g,) = torch.autograd.grad(terms.losses["model"], [model.posterior.quantiser.entries])
    q = model.posterior(x)
    chosen = nn.functional.one_hot(q.codes.flatten(), 6).double()
    by_hand = 2 * chosen.T @ (q.entries - q.encoded).detach().flatten(0, 1) / 6
    torch.testing.assert_close(g, by_hand)


@pytest.mark.parametrize("kind", ["vq", "gradient"])
def test_the_encoder_follows_distortion_and_commitment_alone(kind):
    model = small(kind).double()
    x = pixels(6, dtype=torch.float64)
    weights = list(model.posterior.net.parameters())
    q = model.posterior(x)
    square = (q.encoded - q.entries.detach()).square().sum((1, 2))
    by_hand = torch.autograd.grad((-model.likelihood(q.loc).log_prob(x) + 0.25 * square).mean(), weights)
    terms = Quantised()(model, batch_of(x), torch.tensor(0))
    for g, wanted in zip(torch.autograd.grad(terms.losses["model"], weights), by_hand, strict=True):
        torch.testing.assert_close(g, wanted)


def test_a_prior_that_does_not_learn_is_no_player():
    model = small()
    model.prior.net.requires_grad_(False)
    objective = Quantised()
    assert list(objective.parameter_groups(model)) == ["model"]
    assert list(objective(model, batch_of(pixels(4)), torch.tensor(0)).losses) == ["model"]


def test_running_means_move_in_training_alone():
    model = small()
    x = pixels(6)
    objective = Quantised()
    before = {n: b.clone() for n, b in model.named_buffers()}

    def moved():
        return any(not torch.equal(b, before[n]) for n, b in model.named_buffers())

    model.trace(x)
    model.encode(x)
    with torch.no_grad():
        objective(model, batch_of(x), torch.tensor(0))  # such as the check before the first step
    model.eval()
    objective(model, batch_of(x), torch.tensor(0))
    assert not moved()
    model.train()
    objective(model, batch_of(x), torch.tensor(0))
    assert moved()


def test_the_entries_that_were_used_are_those_of_before_the_step():
    model = small()
    x = pixels(6)
    held = model.posterior(x)
    terms = Quantised()(model, batch_of(x), torch.tensor(0))
    square = (held.encoded - held.entries).square().sum((1, 2)).mean()
    torch.testing.assert_close(terms.stats["commitment"], 0.25 * square)
    torch.autograd.grad(terms.losses["model"], list(model.posterior.net.parameters()))  # nothing saved was overwritten


def test_other_models_are_refused():
    model = vk.gaussian_vae(networks.MLP((4,), 4, ()), networks.MLP((2,), 4, ()), 2, heads.Bernoulli((4,)))
    with pytest.raises(ChoiceError, match="discrete latents"):
        Quantised().check(model)
    Quantised().check(small())


def test_perplexity_is_the_number_of_codes_used_evenly():
    assert float(perplexity(torch.tensor([[0, 1], [2, 3]]), 9)) == pytest.approx(4)
    assert float(perplexity(torch.zeros(3, 2, dtype=torch.long), 9)) == pytest.approx(1)


# --- training ---------------------------------------------------------------------------------------------------


def composition(kind="vq", event=(1, 6, 5), observation=None, **defaults):
    made = Composition(small(kind, event), Quantised(), observation or Binary(), Defaults("adam", 3e-3, 16, **defaults))
    made.start = lambda c, x: c.model.posterior.start(x)
    return made


class Bits(Identity):
    """Raw rows as they are."""

    def forward(self, raw, noise=None):
        return raw.float()


def engine(kind, **settings):
    made = Composition(small(kind), Quantised(), Bits())
    return Engine(made, Settings(optimiser=lambda: optimiser("adam"), lr=1e-2, seed=1, **settings))


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_both_losses(kind):
    step = engine(kind)
    x = pixels(4)[torch.arange(24) % 4]
    first = dict(zip(*(lambda v: (step.stats, v.tolist()))(step.step(x, 0, 1.0)), strict=True))
    for t in range(1, 150):
        values = step.step(x, t, 1.0)
    last = dict(zip(step.stats, values.tolist(), strict=True))
    assert last["distortion"] < 0.7 * first["distortion"]
    assert last["rate"] < 0.7 * first["rate"]


def test_a_batch_of_one_trains():
    step = engine("vq")
    for t, n in enumerate((4, 1, 1)):
        assert torch.isfinite(step.step(pixels(n), t, 1.0)).all()


@pytest.mark.parametrize("kind", ["vq", "gradient"])
def test_a_codebook_put_back_goes_on_to_the_same_weights(kind):
    xs = [pixels(10, seed=s) for s in range(8)]
    whole = engine(kind, ema=0.9)
    for t, x in enumerate(xs):
        whole.step(x, t, 1.0)
        if t == 3:
            held = {n: v.clone() for n, v in whole.tensors().items()}
    if kind == "vq":
        assert "buffer/model.posterior.quantiser.total" in held
    other = engine(kind, ema=0.9)
    other.load(held)
    for t, x in enumerate(xs[4:], 4):
        other.step(x, t, 1.0)
    for n, v in whole.tensors().items():
        assert torch.equal(v, other.tensors()[n]), n


def test_compiled_steps_equal_eager_ones(monkeypatch):
    """Running means, restarts and both parameter groups in one graph."""
    captured(monkeypatch)

    def make(compiled):
        torch.manual_seed(0)
        quantiser_vae = quantised_vae(
            (6,),
            heads.Bernoulli((6,)),
            VectorQuantiser(8, 2, 0.6),
            positions=2,
            hidden=(),
            prior=lambda positions, codes: AutoregressiveCodes(positions, codes, 4, 1, 1),
        )
        quantiser_vae.posterior.quantiser.restart = 0.5
        made = Engine(
            Composition(quantiser_vae, Quantised(), Bits()),
            Settings(optimiser=lambda: optimiser("sgd"), lr=1e-3, seed=1, clip=5.0, ema=0.5),
        )
        if compiled:
            made.compiled()
        return made

    torch._dynamo.reset()
    eager, compiled = make(False), make(True)
    start = eager.tensors()["buffer/model.posterior.quantiser.usage"].clone()
    for t in range(6):
        x = pixels(10, (6,), seed=t)
        torch.testing.assert_close(eager.step(x, t, 1.0), compiled.step(x, t, 1.0), rtol=1e-4, atol=1e-4)
    assert compiled.stats == eager.stats
    assert not torch.equal(start, eager.tensors()["buffer/model.posterior.quantiser.usage"])
    for n, v in eager.tensors().items():
        torch.testing.assert_close(v, compiled.tensors()[n], rtol=1e-4, atol=1e-5, msg=lambda m, n=n: f"{n}: {m}")


@pytest.fixture(scope="module")
def data():
    return vk.from_arrays(blobs(70, 6, 5), name="blobs")


@pytest.fixture(scope="module", params=KINDS)
def run(request, data, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "run"
    made = composition(request.param, ema=0.9)
    found = vk.fit(data, made, out=out, steps=8, seed=2, checkpoint_steps=4, **QUIET)
    found.kind = request.param
    return found


def test_a_run_stopped_and_resumed_is_one_that_was_not(run, data, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run.path, out)
    (out / "run.json").write_text(json.dumps(run.config | {"state": "running"}))
    (out / "checkpoint" / f"{8:09d}.safetensors").unlink()
    (out / "model.safetensors").unlink()
    vk.fit(data, composition(run.kind, ema=0.9), out=out, resume=True, progress=False)
    assert same(out, run.path)
    if run.kind == "vq":
        assert "model.posterior.quantiser.total" in tensors(out / "model.safetensors")


def test_a_run_is_used_as_any_other(run, data):
    run.use_data(data)
    again = vk.open(run.path, model=composition(run.kind, ema=0.9), data=data)
    x = data.test[:]
    for f in (
        lambda r: r.encode(x),
        lambda r: r.reconstruct(x),
        lambda r: r.sample(5),
        lambda r: r.sample(4, temperature=0.5),
        lambda r: r.score(x, samples=3),
    ):
        assert np.isfinite(f(run)).all()
        assert np.array_equal(f(run), f(again))
    found = {m["name"]: m["value"] for m in run.evaluate(samples=5)}
    assert found["elbo"] == pytest.approx(-(found["rate"] + found["distortion"]))
    assert found["log_px_iw"] == pytest.approx(found["elbo"], abs=1e-3)  # K draws of a point mass are one draw
    assert found["ess"] == pytest.approx(5)
    assert found["rate"] > 0
    still = run.sample(3, temperature=0.0)
    np.testing.assert_allclose(still, np.broadcast_to(still[:1], still.shape), rtol=1e-5)


def test_a_score_does_not_depend_on_its_batch(run, data):
    run.use_data(data)
    whole = per_datum(run, run.observed("test"), 5)
    for batch in (1, 3):
        part = per_datum(run, run.observed("test"), 5, batch=batch)
        np.testing.assert_allclose(part.log_px, whole.log_px, rtol=1e-5, atol=1e-4)


def test_a_model_by_hand_is_scored_by_its_own_bound():
    model = small().eval()
    scored = model_of(Composition(model, Quantised(), Bits()), (1, 6, 5), "image")
    x = pixels(4)
    found = scored.score(x.numpy(), samples=7)
    trace = model.trace(x)
    np.testing.assert_allclose(found, -(distortion(trace, x) + rate(trace)).detach().numpy(), rtol=1e-5)


PROCESSES = """
import sys
import torch
torch.set_num_threads(1)
import vaekit as vk
from core_helpers import blobs
from vaekit import heads
from vaekit.recipes.composition import Composition, Defaults
from vaekit.data.observation import Binary
from vaekit.objectives import Quantised
from vaekit.models.quantised import VectorQuantiser, quantised_vae

torch.manual_seed(0)
model = quantised_vae((1, 6, 5), heads.Bernoulli((1, 6, 5)), VectorQuantiser(8, 2, 0.6), positions=3, hidden=(8,))
model.posterior.quantiser.restart = 0.3
made = Composition(model, Quantised(), Binary(), Defaults("sgd", 1e-3, 15, clip=3.0, ema=0.9))
made.start = lambda c, x: c.model.posterior.start(x)
data = vk.from_arrays(blobs(61), name="blobs")
vk.fit(data, made, out=sys.argv[1], devices=int(sys.argv[2]), steps=12, seed=1, checkpoint_steps=6, device="cpu",
       compile="off", progress=False)
"""


def test_two_processes_reach_the_codebook_of_one(tmp_path):
    """A batch of 15 is cut in 8 and 7; each process counts its own rows, and offers dead entries what it has."""
    pytest.importorskip("lightning_fabric")
    script = tmp_path / "two.py"
    script.write_text(PROCESSES)
    python_here(str(script), str(tmp_path / "1"), "1")
    done = python(str(script), str(tmp_path / "2"), "2")
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = tensors(tmp_path / "1/model.safetensors"), tensors(tmp_path / "2/model.safetensors")
    offers = {n for n in one if n.rsplit(".", 1)[-1] in ("offer", "offered")}
    for n in sorted(set(one) - offers):  # offers are kept times the share of their rows
        torch.testing.assert_close(two[n], one[n], rtol=1e-4, atol=1e-5, msg=lambda m, n=n: f"{n}: {m}")


def test_parts_can_be_put_together_by_hand():
    """An encoder and decoder of one's own, and the scalar quantiser."""
    torch.manual_seed(0)
    quantiser = FiniteScalarQuantiser((3, 3))
    posterior = QuantisedEncoder(networks.MLP((4,), 6, (5,)), quantiser, 3)
    likelihood = heads.Conditional(networks.MLP((6,), 4, (5,)), heads.Bernoulli((4,)))
    model = vk.VAE(CodePrior(IndependentCodes(3, 9), quantiser), posterior, likelihood)
    terms = Quantised()(model, batch_of(pixels(4, (4,))), torch.tensor(0))
    assert float(terms.stats["rate"]) == pytest.approx(3 * math.log(9), rel=1e-6)
