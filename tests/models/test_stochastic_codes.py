"""Posteriors that draw codes, their ELBO and its gradient, and the quantisers with signs, linear maps and stages."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from core_helpers import QUIET
from torch import nn

import vaekit as vk
from vaekit import heads
from vaekit.densities import draw
from vaekit.errors import ChoiceError
from vaekit.metrics import evaluate
from vaekit.models.quantised import (
    AutoregressiveCodes,
    Coded,
    FiniteScalarQuantiser,
    IndependentCodes,
    LinearQuantiser,
    LookupFreeQuantiser,
    MaskedCodes,
    ResidualQuantiser,
    StochasticCodes,
    VectorQuantiser,
    quantised_vae,
    straight_through,
)
from vaekit.noise import Noise
from vaekit.objectives import Batch, CodeELBO, Quantised
from vaekit.objectives.quantised import code_shares, perplexity
from vaekit.objectives.terms import rate
from vaekit.recipes import DataSpec, get_recipe
from vaekit.utils.files import read_json, write_json

MAKERS = {
    "vq": lambda: VectorQuantiser(3, 2, None),
    "fsq": lambda: FiniteScalarQuantiser((3, 2)),
    "lfq": lambda: LookupFreeQuantiser(2),
    "simvq": lambda: LinearQuantiser(3, 2),
    "residual-vq": lambda: ResidualQuantiser(3, 2, 2, None),
}
KINDS = list(MAKERS)
PRIORS = {
    "independent": IndependentCodes,
    "autoregressive": lambda positions, codes: AutoregressiveCodes(positions, codes, 4, 1, 1),
    "masked": lambda positions, codes: MaskedCodes(positions, codes, 16),
}


def made(kind="vq", prior="autoregressive", event=(5,), positions=2, stochastic=True, seed=0):
    """A small model in float64 with random weights everywhere."""
    torch.manual_seed(seed)
    model = quantised_vae(
        event, heads.Bernoulli(event), MAKERS[kind](), positions=positions, hidden=(6,), prior=PRIORS[prior],
        stochastic=stochastic,
    ).double()  # fmt: skip
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=g, dtype=p.dtype))
    return model


def binary(n, event=(5,), seed=1):
    return (torch.rand(n, *event, generator=torch.Generator().manual_seed(seed)) < 0.4).double()


def every(model):
    """All sequences of codes of a model, and their entries."""
    p = model.prior()
    codes = torch.tensor(list(itertools.product(range(p.quantiser.codes), repeat=p.net.positions)))
    return codes, p.quantiser.lookup(codes).flatten(1).double()


# --- the posterior ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_of_all_codes_sum_to_one_and_are_those_of_the_draws(kind):
    model = made(kind)
    q = model.posterior(binary(3))
    codes, z = every(model)
    log_q = q.log_prob(z[:, None].expand(-1, 3, -1))
    torch.testing.assert_close(log_q.exp().sum(0), torch.ones(3, dtype=torch.float64))
    drawn = q.draws(Noise.of(0, 3), 5000)
    z_drawn, log_drawn = q._drawn(Noise.of(0, 3), 5000)
    assert torch.equal(z_drawn, drawn.z)
    torch.testing.assert_close(q.log_prob(z_drawn), log_drawn)
    number = (drawn.codes * q.quantiser.codes ** torch.arange(drawn.codes.shape[-1] - 1, -1, -1)).sum(-1)
    for row in range(3):
        shares = torch.bincount(number[:, row], minlength=len(codes)).double() / 5000
        p = log_q[:, row].exp().detach()
        assert ((shares - p).abs() < 5 * (p * (1 - p) / 5000).sqrt() + 1e-3).all()
    assert torch.isinf(q.log_prob(drawn.z[0] + 0.1)).all()


def test_probabilities_fall_with_the_distance_to_the_entries():
    """softmax(-|e - v|^2 / 2 s^2) by hand, and of levels in units of their distance."""
    e = torch.randn(4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    log_scale = torch.tensor([0.3], dtype=torch.float64)
    for quantiser, weight in (
        (VectorQuantiser(5, 2, None).double(), torch.ones(2)),
        (LinearQuantiser(5, 2).double(), torch.ones(2)),
        (LookupFreeQuantiser(2).double(), torch.full((2,), 0.25)),
        (FiniteScalarQuantiser((3, 5)).double(), torch.tensor([1.0, 4.0])),
    ):
        q = StochasticCodes(e, quantiser, log_scale)
        table = quantiser.lookup(torch.arange(quantiser.codes)).double()
        place = torch.tanh(e) if type(quantiser) is FiniteScalarQuantiser else e
        square = (weight * (place[..., None, :] - table).square()).sum(-1)
        by_hand = torch.log_softmax(-square / (2 * math.exp(0.6)), -1)
        torch.testing.assert_close(q.log_q_at(torch.zeros(4, 2, dtype=torch.long)), by_hand)
        assert torch.equal(q.codes, by_hand.argmax(-1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_scale_is_the_nearest_entry(kind):
    model, nearest = made(kind), made(kind, stochastic=False)
    nearest.load_state_dict({k: v for k, v in model.state_dict().items() if "log_scale" not in k})
    x = binary(7)
    with torch.no_grad():
        model.posterior.log_scale.fill_(-12.0)
    assert torch.equal(model.encode(x), nearest.encode(x))
    assert torch.equal(model.encode(x, noise=Noise.of(0, 7)), nearest.encode(x))
    torch.testing.assert_close(rate(model.trace(x, noise=Noise.of(0, 7))), rate(nearest.trace(x)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_draws_the_same_codes_in_any_batch(kind):
    model, x = made(kind), binary(6)
    whole = model.encode(x, noise=Noise.of(2, 6))
    part = model.encode(x[[4, 1]], noise=Noise.of(2, torch.tensor([4, 1])))
    assert torch.equal(part, whole[[4, 1]])
    assert not torch.equal(whole, model.encode(x, noise=Noise.of(3, 6)))
    assert torch.equal(model.encode(x), model.encode(x))
    assert draw(model.posterior(x), Noise.of(0, 6), 3).shape == (3, *whole.shape)


def test_the_gradient_of_a_draw_is_exact_for_quadratic_functions():
    """Averaged over all draws, against the gradient of the exact expectation; the straight-through one is not exact."""
    g = torch.Generator().manual_seed(0)
    a = torch.randn(4, 4, dtype=torch.float64, generator=g)
    b = torch.randn(4, dtype=torch.float64, generator=g)
    logits = torch.randn(4, dtype=torch.float64, generator=g, requires_grad=True)

    def f(d):
        return (d @ a * d).sum(-1) + d @ b

    exact = (torch.softmax(logits, -1) * f(torch.eye(4, dtype=torch.float64))).sum()
    (wanted,) = torch.autograd.grad(exact, logits)
    log_q = torch.log_softmax(logits, -1).expand(4, 4)
    drawn = straight_through(log_q, torch.arange(4))
    assert torch.equal(drawn, torch.eye(4, dtype=torch.float64))
    (found,) = torch.autograd.grad((log_q.exp().diagonal().detach() * f(drawn)).sum(), logits, retain_graph=True)
    torch.testing.assert_close(found, wanted)
    plain = torch.eye(4, dtype=torch.float64) + (log_q.exp() - log_q.exp().detach())
    (first_order,) = torch.autograd.grad((log_q.exp().diagonal().detach() * f(plain)).sum(), logits)
    assert float((first_order - wanted).abs().max()) > 0.01


# --- the objective ----------------------------------------------------------------------------------------------


def exact_parts(model, x):
    """E_q[-log p(x|c)], KL(q || P) and log p(x), each (B,), by enumeration."""
    codes, z = every(model)
    log_q = model.posterior(x).log_prob(z[:, None].expand(-1, len(x), -1))
    log_p = model.prior().log_prob_of(codes)[:, None]
    log_px = model.likelihood(z[:, None]).log_prob(x)
    q = log_q.exp()
    return -(q * log_px).sum(0), (q * (log_q - log_p)).sum(0), torch.logsumexp(log_p + log_px, 0)


@pytest.mark.parametrize(
    ("kind", "prior"), [("vq", "masked"), ("fsq", "independent"), ("residual-vq", "autoregressive")]
)
def test_the_loss_is_an_unbiased_estimate_of_the_exact_negative_elbo(kind, prior):
    model, x = made(kind, prior), binary(4)
    with torch.no_grad():
        d, r, evidence = exact_parts(model, x)
        assert (-(d + r) < evidence).all()
        n = 3000
        copies = Batch(x.repeat_interleave(n, 0), Noise.of(0, 4 * n))
        losses = CodeELBO()(model, copies, torch.tensor(0))
        one = [CodeELBO()(model, Batch(x, Noise.of(s, 4)), torch.tensor(0)).losses["model"] for s in range(60)]
    sigma = float(torch.stack(one).std()) * math.sqrt(1 / n)
    assert abs(float(losses.losses["model"] - (d + r).mean())) < 5 * sigma
    assert abs(float(losses.stats["rate"] - r.mean())) < 5 * sigma
    assert float(losses.stats["elbo"]) == pytest.approx(-float(losses.losses["model"]))


def test_the_kl_of_one_code_needs_no_draw():
    model, x = made(positions=1, prior="independent"), binary(4)
    _, r, _ = exact_parts(model, x)
    for seed in range(3):
        stats = CodeELBO()(model, Batch(x, Noise.of(seed, 4)), torch.tensor(0)).stats
        torch.testing.assert_close(stats["rate"], r.mean())


@pytest.mark.parametrize("prior", list(PRIORS))
def test_one_hot_codes_have_the_logits_of_their_numbers(prior):
    net = made(prior=prior).prior.net
    codes = torch.tensor(list(itertools.product(range(3), repeat=2)))
    torch.testing.assert_close(net(nn.functional.one_hot(codes, 3).double()), net(codes))


def test_masked_codes_depend_on_those_before_alone_and_generate_with_the_same_logits():
    torch.manual_seed(0)
    net = MaskedCodes(4, 3, 16).double()
    torch.testing.assert_close(net(torch.zeros(1, 4, dtype=torch.long)), torch.zeros(1, 4, 3, dtype=torch.float64))
    nn.init.normal_(net.last.weight)
    codes = torch.randint(0, 3, (6, 4))
    logits = net(codes)
    for i in range(4):
        changed = codes.clone()
        changed[:, i:] = (changed[:, i:] + 1) % 3
        assert torch.equal(net(changed)[:, : i + 1], logits[:, : i + 1])
        assert i == 3 or not torch.allclose(net(changed)[:, i + 1 :], logits[:, i + 1 :])
    seen = []
    assert torch.equal(net.generate(6, lambda i, one: (seen.append(one), codes[:, i])[1]), codes)
    torch.testing.assert_close(torch.stack(seen, 1), logits)


def test_the_encoder_is_charged_for_the_rate():
    """Minimising with a large weight of the KL draws the posterior to the prior; without one the rate grows."""
    x, rates = binary(40), {}
    for beta in (0.0, 20.0):
        model = made(prior="independent")
        objective, found = CodeELBO(beta), torch.optim.Adam(model.parameters(), 0.03)
        for t in range(60):
            losses = objective(model, Batch(x, Noise.of(t, 40)), torch.tensor(t))
            found.zero_grad()
            losses.losses["model"].backward()
            found.step()
        rates[beta] = float(losses.stats["rate"].detach())
    assert rates[20.0] < 0.1
    assert rates[0.0] > 10 * rates[20.0]


def test_objectives_refuse_the_other_posterior():
    with pytest.raises(ChoiceError, match="CodeELBO"):
        Quantised().check(made())
    with pytest.raises(ChoiceError, match="Quantised"):
        CodeELBO().check(made(stochastic=False))
    with pytest.raises(ChoiceError, match="discrete latents"):
        CodeELBO().check(vk.gaussian_vae(nn.Linear(4, 4), nn.Linear(2, 4), 2, heads.Bernoulli((4,))))


def test_use_is_counted_for_each_stage():
    codes = torch.tensor([[0, 1], [0, 2], [0, 1], [0, 2]])
    torch.testing.assert_close(code_shares(codes, 3, 2), torch.tensor([[1, 0, 0], [0, 0.5, 0.5]]))
    assert float(perplexity(codes, 3, 2)) == pytest.approx((1 + 2) / 2)


# --- quantisers -------------------------------------------------------------------------------------------------


def test_lookup_free_codes_are_signs_and_their_entropies_those_of_all_entries():
    """The entropy of the product over bits, and that of the mean over the batch, by enumeration of 2^bits entries."""
    quantiser = LookupFreeQuantiser(3, entropy=0.7, commitment=0.0).double()
    e = torch.randn(6, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    q = Coded(quantiser(e))
    assert torch.equal(q.entries, torch.where(e > 0, 1.0, -1.0))
    assert torch.equal(q.codes, ((e > 0).long() * torch.tensor([1, 2, 4])).sum(-1))
    assert torch.equal(quantiser.nearest(q.entries), q.codes)
    table = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    each = torch.softmax(-(e[..., None, :] - table).square().sum(-1), -1)
    entropy = -torch.xlogy(each, each).sum(-1)
    mean = each.mean((0, 1))
    total = -torch.xlogy(mean, mean).sum()
    penalty, other = quantiser.penalties(q)
    torch.testing.assert_close(penalty.mean(), 0.7 * 2 * (entropy.mean() - total))
    assert not other.any()


def test_a_gradient_at_one_entry_of_a_linear_codebook_moves_all():
    torch.manual_seed(0)
    quantiser = LinearQuantiser(5, 3).double()
    before, fixed = quantiser.codebook.detach().clone(), quantiser.fixed.clone()
    (g,) = torch.autograd.grad(quantiser.tables()[0][2].square().sum(), [quantiser.map])
    with torch.no_grad():
        quantiser.map.sub_(0.1 * g)
    assert torch.equal(quantiser.fixed, fixed)
    assert (quantiser.codebook - before).abs().amax(-1).min() > 1e-3
    e = torch.randn(4, 2, 3, dtype=torch.float64)
    choice = quantiser(e)
    distance = (e[..., None, :] - quantiser.codebook).square().sum(-1)
    assert torch.equal(choice.codes, distance.argmin(-1))
    commitment, codebook = quantiser.penalties(Coded(choice))
    square = distance.amin(-1).sum(1)
    torch.testing.assert_close(commitment, 0.25 * square)
    torch.testing.assert_close(codebook, square)


def test_stages_code_what_is_left_and_the_gradient_of_their_sum_is_the_vectors():
    torch.manual_seed(0)
    quantiser = ResidualQuantiser(8, 2, 3, 0.9).double()
    vectors = torch.randn(200, 2, dtype=torch.float64)
    quantiser.initialise(vectors)
    e = vectors.reshape(20, 10, 2).requires_grad_()
    choice = quantiser(e)
    assert choice.codes.shape == (20, 30)
    assert torch.equal(quantiser.nearest(choice.entries), choice.codes)
    assert torch.equal(quantiser.lookup(choice.codes), choice.entries)
    by_stage = choice.entries.detach().unflatten(-2, (10, 3)).cumsum(-2)
    left = (e.detach()[..., None, :] - by_stage).square().sum(-1).mean((0, 1))
    assert left[0] > left[1] > left[2]
    z = Coded(choice).loc.unflatten(-1, (10, 3, 2)).sum(-2)
    torch.testing.assert_close(z, by_stage[..., -1, :])
    (g,) = torch.autograd.grad((z * torch.arange(2.0)).sum(), e)
    torch.testing.assert_close(g, torch.tensor([0.0, 1.0]).double().expand_as(g))
    quantiser.learn(Coded(choice), Noise.of(0, 20))
    commitment, other = quantiser.penalties(Coded(choice))
    torch.testing.assert_close(commitment, 0.25 * (choice.encoded - choice.entries).square().sum((1, 2)).detach())
    assert not other.any()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: LookupFreeQuantiser(0), "bits"),
        (lambda: LookupFreeQuantiser(2, entropy=-1.0), "entropy"),
        (lambda: LinearQuantiser(0, 2), "codes"),
        (lambda: LinearQuantiser(2, 2, -1.0), "commitment"),
        (lambda: ResidualQuantiser(2, 2, 0), "stages"),
    ],
)
def test_quantisers_that_cannot_be_are_refused(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()


# --- recipes and runs -------------------------------------------------------------------------------------------

BINARY = DataSpec("image", (1, 8, 8), 60, (0.0, 1.0), True)
COLOUR = DataSpec("image", (3, 8, 8), 60, (0.0, 255.0), True)
SMALL = {"vq": {"codes": 6, "dim": 2}, "fsq": {"levels": (3, 2)}, "lfq": {"bits": 3}, "simvq": {"codes": 6, "dim": 2},
         "residual-vq": {"codes": 4, "dim": 2}}  # fmt: skip


def test_codes_of_binary_data_are_drawn_and_those_of_other_data_and_of_earlier_runs_are_the_nearest():
    model = get_recipe("vq")(BINARY).model
    assert model.posterior.stochastic
    assert model.posterior.positions == 16
    assert isinstance(model.prior.net, MaskedCodes)
    for spec in (COLOUR, replace(BINARY, rules=6)):
        model = get_recipe("vq")(spec, hidden=(4, 8)).model
        assert not model.posterior.stochastic
        assert model.posterior.positions == 4  # a grid
        assert isinstance(model.prior.net, AutoregressiveCodes)
    assert get_recipe("vq")(COLOUR, posterior="stochastic", network="grid", hidden=(4,)).model.posterior.stochastic


@pytest.mark.parametrize(
    ("choices", "prior"),
    [
        ({"posterior": "nearest", "network": "dense"}, AutoregressiveCodes),
        ({"network": "grid", "hidden": (4, 8)}, AutoregressiveCodes),
        ({"positions": 3}, MaskedCodes),
        ({"likelihood": "gaussian"}, AutoregressiveCodes),
        ({"prior": "autoregressive"}, AutoregressiveCodes),
    ],
)
def test_the_prior_goes_by_how_codes_are_made(choices, prior):
    assert isinstance(get_recipe("vq")(BINARY, **choices).model.prior.net, prior)


def test_runs_from_before_the_masked_prior_was_the_default_keep_the_transformer(tmp_path):
    x = (np.random.default_rng(0).random((60, 1, 6, 6)) < 0.3).astype(np.uint8)
    small = {"hidden": (8,), "codes": 4, "dim": 2, "prior": "autoregressive", "width": 8, "layers": 1}
    run = vk.fit(vk.from_arrays(x, name="toy"), "vq", out=tmp_path / "run", steps=2, batch=20, **small, **QUIET)
    stored = read_json(run.path / "run.json")
    stored["defaults"] |= {name: stored["arguments"].pop(name) for name in ("prior", "width", "layers")}
    write_json(run.path / "run.json", stored)
    again = vk.open(run.path)
    assert isinstance(again.model.prior.net, AutoregressiveCodes)
    np.testing.assert_array_equal(again.score(x[:4]), run.score(x[:4]))


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"codebook": "ema"}, "posterior='nearest'"),
        ({"posterior": "nearest", "beta": 2.0}, "posterior='stochastic'"),
        ({"network": "grid", "positions": 3}, "leave it out"),
        ({"levels": (3, 3)}, "quantiser='fsq'"),
    ],
)
def test_choices_that_do_not_fit_are_refused_with_what_to_write(choices, reason):
    with pytest.raises(ChoiceError, match=reason):
        get_recipe("vq")(BINARY, **choices)


@pytest.fixture(scope="module", params=KINDS)
def run(request, tmp_path_factory):
    x = (np.random.default_rng(0).random((60, 1, 6, 6)) < 0.3).astype(np.uint8)
    out = tmp_path_factory.mktemp("runs") / "run"
    small = {"hidden": (8,), "positions": 3, "prior": "masked", "width": 8}
    return vk.fit(vk.from_arrays(x, name="toy"), request.param, out=out, steps=6, batch=20, **small,
                  **SMALL[request.param], **QUIET)  # fmt: skip


def test_a_run_logs_and_measures_the_use_of_its_codebook(run):
    train = [row for row in map(json.loads, (run.path / "log.jsonl").read_text().splitlines()) if "used" in row]
    assert train
    codes = run.model.posterior.quantiser.codes
    found = {m["name"]: m for m in evaluate(run, metrics=["code_perplexity", "codes_used"], store=False)}
    assert 1 <= found["code_perplexity"]["value"] <= codes
    assert 1 / codes <= found["codes_used"]["value"] <= 1


def test_a_run_is_scored_sampled_and_decoded(run):
    x = run.data.test[:]
    z = run.encode(x)
    assert np.array_equal(z, run.encode(x))
    assert run.sample(3).shape == (3, 1, 6, 6)
    assert np.isfinite(run.decode(z)).all()
    with pytest.raises(ChoiceError, match="discrete codes"):
        run.evaluate(metrics=["log_px_ais"])
    one, many = run.score(x, samples=1), run.score(x, samples=200)
    assert many.mean() > one.mean()  # a stochastic posterior has a bound that K samples tighten
