"""One training step: parameter groups, clipping, averages, and that compiling changes nothing but the last bits."""

import pytest
import torch
from core_helpers import captured, needs_compiler, own_network
from torch import nn

from vaekit import heads, networks
from vaekit.data.observation import Binary, Identity
from vaekit.errors import TrainingError
from vaekit.noise import Noise, StepKey, fold
from vaekit.objectives import ELBO, Batch, Losses, Objective
from vaekit.objectives.terms import distortion, rate
from vaekit.recipes import Composition, gaussian_vae
from vaekit.training.optimisers import optimiser
from vaekit.training.step import Engine, Settings
from vaekit.utils import compiled as compiling
from vaekit.utils import kernels

DIMS, LATENT, ROWS = 6, 2, 10


def model(seed=0, dtype=torch.float64, head=None):
    torch.manual_seed(seed)
    head = head or heads.Gaussian((DIMS,), "shared")
    return gaussian_vae(
        networks.MLP((DIMS,), 2 * LATENT, (7,), "tanh"),
        networks.MLP((LATENT,), head.features, (5,), "tanh"),
        LATENT,
        head,
    ).to(dtype)


class Doubles(Identity):
    """Raw rows as they are, in float64."""

    def forward(self, raw, noise=None):
        return raw


def data(steps=1, seed=1):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(ROWS, DIMS, generator=g, dtype=torch.float64) for _ in range(steps)]


def engine(composition, rule="sgd", lr=0.1, **settings):
    return Engine(composition, Settings(optimiser=lambda: optimiser(rule), lr=lr, **settings))


class TwoPlayers(Objective):
    """Encoder and decoder with losses of their own, both of which depend on all parameters."""

    def parameter_groups(self, model):
        return {"encoder": list(model.posterior.parameters()), "decoder": list(model.likelihood.net.parameters())}

    def forward(self, model, batch, step):
        trace = model.trace(batch.x, noise=batch.noise)
        d, r = distortion(trace, batch.x).mean(), rate(trace).mean()
        return Losses({"encoder": d + 3 * r, "decoder": d * d / 10 - r}, {"rate": r})


def test_two_players_each_follow_their_own_loss_at_the_same_parameters():
    m = model()
    before = {n: p.detach().clone() for n, p in m.named_parameters()}
    (x,) = data()
    trace = m.trace(x, noise=Noise.of(5, ROWS, 0, StepKey.TRAIN))
    d, r = distortion(trace, x).mean(), rate(trace).mean()
    encoder, decoder = list(m.posterior.parameters()), list(m.likelihood.net.parameters())
    by_hand = [
        *torch.autograd.grad(d + 3 * r, encoder, retain_graph=True),
        *torch.autograd.grad(d * d / 10 - r, decoder, allow_unused=True),
    ]
    wanted = [p.detach() - 0.1 * g for p, g in zip([*encoder, *decoder], by_hand, strict=True)]
    step = engine(Composition(m, TwoPlayers(), Doubles()), seed=5)
    values = step.step(x, 0, 1.0)
    assert step.stats == ["loss/encoder", "loss/decoder", "rate"]
    torch.testing.assert_close(
        values.double(), torch.stack([d + 3 * r, d * d / 10 - r, r]).detach(), rtol=1e-6, atol=1e-6
    )
    for p, w in zip([*encoder, *decoder], wanted, strict=True):
        torch.testing.assert_close(p.detach(), w, rtol=1e-6, atol=1e-8)  # lr travels as float32
        assert not any(torch.equal(p, b) for b in before.values())
    # sigma belongs to no player: it has a gradient in both losses and does not move
    assert torch.equal(m.likelihood.head.log_scale, before["likelihood.head.log_scale"])


def test_the_learning_rate_factor_and_the_order_of_players():
    m, n = model(), model()
    (x,) = data()

    class Swapped(TwoPlayers):
        def parameter_groups(self, model):
            return dict(reversed(super().parameter_groups(model).items()))

        def forward(self, model, batch, step):
            losses, stats = super().forward(model, batch, step)
            return Losses(dict(reversed(losses.items())), stats)

    engine(Composition(m, TwoPlayers(), Doubles()), lr=0.05).step(x, 0, 0.5)
    engine(Composition(n, Swapped(), Doubles()), lr=0.025).step(x, 0, 1.0)
    for a, b in zip(m.parameters(), n.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_players_must_be_disjoint():
    class Overlapping(TwoPlayers):
        def parameter_groups(self, model):
            return {"encoder": list(model.parameters()), "decoder": list(model.likelihood.parameters())}

    with pytest.raises(TrainingError, match="disjoint"):
        engine(Composition(model(), Overlapping(), Doubles()))


@pytest.mark.parametrize("clip", [1e-3, 1.0, 1e6])
def test_clipping_equals_torch(clip):
    m, n = model(), model()
    (x,) = data()
    engine(Composition(m, ELBO(), Doubles()), clip=clip, seed=2).step(x, 0, 1.0)
    loss = ELBO()(n, Batch(x, Noise.of(2, ROWS, 0, StepKey.TRAIN)), torch.tensor(0)).losses["model"]
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(n.parameters(), clip)
    assert (float(norm) > clip) == (clip < 100)
    for a, b in zip(m.parameters(), n.parameters(), strict=True):
        torch.testing.assert_close(a.detach(), (b - 0.1 * b.grad).detach(), rtol=1e-6, atol=1e-8)


def test_each_player_is_clipped_by_its_own_norm():
    m, n = model(), model()
    (x,) = data()
    engine(Composition(m, TwoPlayers(), Doubles()), clip=1e-2).step(x, 0, 1.0)
    for part in ("posterior", "likelihood"):
        moved = [
            (a - b).flatten() for a, b in zip(getattr(m, part).parameters(), getattr(n, part).parameters(), strict=True)
        ]
        assert float(torch.cat(moved).detach().norm()) == pytest.approx(0.1 * 1e-2, rel=1e-3)


def test_the_running_average_rises_to_its_decay_and_is_what_is_used():
    """average <- d average + (1 - d) weight with d = min(ema, (1 + step) / (10 + step)), from the initial weights."""
    m = model()
    step = engine(Composition(m, ELBO(), Doubles()), ema=0.3, lr=0.02)
    name = "model.posterior.net.out.weight"
    average = step.parameters[name].clone()
    for t, x in enumerate(data(12)):
        step.step(x, t, 1.0)
        d = min(0.3, (1 + t) / (10 + t))
        average = d * average + (1 - d) * step.parameters[name]
        torch.testing.assert_close(step.average[name], average, rtol=1e-6, atol=1e-9)
    trained = step.parameters[name].clone()
    with step.using() as module:
        assert not module.training
        assert torch.equal(m.posterior.net.out.weight, step.average[name])
    assert torch.equal(m.posterior.net.out.weight, trained)
    assert not torch.equal(trained, step.average[name])


def test_a_state_put_back_goes_on_to_the_same_weights():
    xs = data(8)
    whole = engine(Composition(model(), ELBO(), Doubles()), "adam", ema=0.9, seed=4)
    for t, x in enumerate(xs):
        whole.step(x, t, 1.0)
        if t == 3:
            held = {n: v.clone() for n, v in whole.tensors().items()}
    other = engine(Composition(model(seed=9), ELBO(), Doubles()), "adam", ema=0.9, seed=4)
    other.load(held)
    for t, x in enumerate(xs[4:], 4):
        other.step(x, t, 1.0)
    for n, v in whole.tensors().items():
        assert torch.equal(v, other.tensors()[n]), n
    with pytest.raises(TrainingError, match="does not fit this model"):
        engine(Composition(model(), ELBO(), Doubles()), "sgd").load(held)


def test_a_layer_under_two_names_is_saved_under_both():
    """Tied weights are one parameter with two entries in the state dict."""
    m = model()
    shared = nn.Linear(DIMS, DIMS).double()
    m.posterior.net = nn.Sequential(shared, nn.Tanh(), shared, m.posterior.net)
    step = engine(Composition(m, ELBO(), Doubles()))
    step.step(*data(), 0, 1.0)
    used = step.weights_to_use()
    state = step.module.state_dict()
    assert set(used) == set(state)
    for n, v in state.items():
        assert torch.equal(used[n], v), n


@needs_compiler
def test_compiled_steps_equal_eager_ones(monkeypatch):
    waited = []
    build = kernels.Libraries.build
    monkeypatch.setattr(kernels.Libraries, "build", lambda self: (waited.append(len(self.waiting)), build(self))[1])
    raw = [
        torch.randint(0, 256, (ROWS, DIMS), generator=torch.Generator().manual_seed(t)).to(torch.uint8)
        for t in range(5)
    ]

    def make(compiled):
        torch.manual_seed(0)  # nets without hidden layers: a compilation's time goes by the number of kernels
        head = heads.Bernoulli((DIMS,))
        m = gaussian_vae(networks.MLP((DIMS,), 2 * LATENT, ()), networks.MLP((LATENT,), DIMS, ()), LATENT, head)
        made = engine(Composition(m, ELBO(), Binary()), "adamw", lr=1e-2, seed=1, clip=5.0, ema=0.5)
        if compiled:
            made.compiled()
        return made

    torch._dynamo.reset()
    eager, compiled = make(False), make(True)
    for t, x in enumerate(raw):
        torch.testing.assert_close(eager.step(x, t, 1.0), compiled.step(x, t, 1.0), rtol=1e-4, atol=1e-4)
    assert len(waited) < sum(waited)  # a library holds several kernels of the graph
    assert compiled.stats == eager.stats
    for n, v in eager.tensors().items():
        # Adam divides by the root of a second moment: a rounding of a tiny gradient moves a weight by some lr / 100
        torch.testing.assert_close(v, compiled.tensors()[n], rtol=1e-3, atol=2e-4, msg=lambda m, n=n: f"{n}: {m}")


def test_a_second_engine_does_not_get_the_first_ones_graph(monkeypatch):
    """Same shapes, other objective: with the guards dropped, only a code object of its own keeps them apart."""
    captured(monkeypatch)
    monkeypatch.setattr("vaekit.utils.compiled._recorded", lambda *of: None)
    torch._dynamo.reset()
    (x,) = data()
    found = {}
    for compiled in (True, False):
        for beta in (1.0, 6.0):
            made = engine(Composition(model(), ELBO(beta), Doubles()), seed=1)
            if compiled:
                made.compiled()
            found[compiled, beta] = made.step(x, 0, 1.0)
    for beta in (1.0, 6.0):
        torch.testing.assert_close(found[True, beta], found[False, beta])
    assert float(found[True, 6.0][0]) > float(found[True, 1.0][0]) + 0.1


def test_noise_of_a_step_follows_from_its_seed_and_number():
    assert fold(1, 2, StepKey.TRAIN) != fold(1, 3, StepKey.TRAIN)
    a, b, c = (engine(Composition(model(), ELBO(), Doubles()), seed=s) for s in (1, 1, 2))
    (x,) = data()
    one, two, other = a.step(x, 7, 1.0), b.step(x, 7, 1.0), c.step(x, 7, 1.0)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_a_submodule_in_two_places_keeps_its_parameters():
    """As a Vamp prior's posterior stands in the prior and in the model: torch's own swap would leave others behind."""
    from vaekit.objectives import frozen
    from vaekit.utils.functional import call, places

    shared = torch.nn.Linear(3, 3)
    tied = torch.nn.Linear(3, 3)
    tied.weight = shared.weight
    module = torch.nn.Sequential(torch.nn.Sequential(shared, torch.nn.Tanh()), shared, tied)
    before = dict(module.named_parameters())
    x = torch.randn(4, 3)
    fresh = {p: torch.zeros_like(t) for p, t in places(module).items()}
    assert not call(module, fresh, x).any()
    frozen(module)(x)
    after = dict(module.named_parameters())
    assert all(after[n] is before[n] for n in before)
    assert frozen(module)(x.requires_grad_()).grad_fn is not None


def test_the_key_of_the_cache_of_graphs_names_the_processors_instructions(monkeypatch):
    """torch's own key leaves them out, and code for vectors of 8 numbers, built for 16, writes beyond its arrays."""
    from torch._inductor import cpu_vec_isa

    from vaekit.utils.compiled import _bias_apart

    keys = []
    for isa in (cpu_vec_isa.VecAVX2(), cpu_vec_isa.VecAVX512()):
        monkeypatch.setattr(cpu_vec_isa, "pick_vec_isa", lambda isa=isa: isa)
        _bias_apart.cache_clear()
        keys.append(_bias_apart().uuid())
    _bias_apart.cache_clear()
    assert keys[0] != keys[1]


def test_a_compiled_step_whose_layers_draw_is_seeded_by_the_step(monkeypatch):
    """As a graph of torch.compile with dropout; here the graph is the eager step."""
    monkeypatch.setattr(compiling, "_recorded", lambda method, arguments: None)
    monkeypatch.setattr(compiling, "_traced", lambda method: method)
    raw = torch.arange(ROWS * 30).remainder(256).to(torch.uint8).reshape(ROWS, 1, 6, 5)
    results = []
    for seed in (1, 2):
        made = engine(own_network(dropout=0.5))
        made.compiled()
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append([made.step(raw, step, 1.0) for step in (0, 0, 1)])
        assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
