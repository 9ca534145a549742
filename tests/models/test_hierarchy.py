"""Models with several latent layers against closed forms and quadrature; encode, decode and trace agree."""

import math

import pytest
import torch
from core_helpers import needs_compiler, soft_floored
from torch import nn

from vaekit import heads, networks
from vaekit.data.observation import Binary, Identity, Levels
from vaekit.errors import ChoiceError
from vaekit.heads import Conditional
from vaekit.models.hierarchy import Chain, TopDown, top_down
from vaekit.models.priors import StandardNormal
from vaekit.noise import Noise
from vaekit.objectives import ELBO, Batch
from vaekit.objectives.terms import has_closed_form, latent_rate, log_mean_weight, log_weights, rate
from vaekit.recipes.composition import Composition, check_support
from vaekit.training.optimisers import optimiser
from vaekit.training.step import Engine, Settings

EVENTS = [(1, 28, 28), (3, 13, 9), (2, 21), (11,), (1, 6, 5)]


def linear(a: int, b: int, weight, sigma) -> Conditional:
    """N(weight @ given, diag sigma^2)."""
    made = Conditional(networks.MLP((a,), b, ()), heads.Gaussian((b,), "each")).double()
    with torch.no_grad():
        made.net.out.weight.copy_(weight)
        made.net.out.bias.zero_()
        made.head.log_scale.copy_(soft_floored(torch.log(torch.as_tensor(sigma, dtype=torch.float64).expand(b))))
    return made


class World:
    """z2 ~ N(0, I), z1 | z2 ~ N(A z2, s^2 I), x | z1 ~ N(W z1, t^2 I), one latent a layer: all in closed form."""

    def __init__(self, widen: float = 1.0):
        self.A, self.s, self.t = torch.tensor([[0.8]]).double(), 0.6, 0.5
        self.W = torch.tensor([[1.2], [-0.7], [0.4]]).double()
        v1 = float(self.A**2) + self.s**2  # of z1
        precision = 1 / v1 + float((self.W**2).sum()) / self.t**2
        v2 = 1 / (1 + float(self.A**2) / self.s**2)
        self.model = Chain(
            StandardNormal((1,)).double(),
            [linear(1, 1, self.A, self.s)],
            [
                linear(3, 1, self.W.T / self.t**2 / precision, widen * precision**-0.5),
                linear(1, 1, v2 * self.A.T / self.s**2, widen * v2**0.5),
            ],
            linear(1, 3, self.W, self.t),
        )
        covariance = self.W @ self.W.T * v1 + self.t**2 * torch.eye(3).double()
        self.p = torch.distributions.MultivariateNormal(torch.zeros(3).double(), covariance)

    def data(self, n: int) -> torch.Tensor:
        g = torch.Generator().manual_seed(1)
        return torch.randn(n, 3, generator=g, dtype=torch.float64) @ torch.linalg.cholesky(self.p.covariance_matrix).T


# --- the chain --------------------------------------------------------------------------------------------------


def test_with_the_exact_posteriors_every_weight_of_a_chain_is_log_p():
    world = World()
    x = world.data(20)
    with torch.no_grad():
        trace = world.model.trace(x, k=6, noise=Noise.of(0, 20))
        assert [h.z.shape for h in trace.latents] == [(6, 20, 1), (6, 20, 1)]
        # float32 noise, and sigmas that went through a soft floor and back
        torch.testing.assert_close(log_weights(trace, x), world.p.log_prob(x).expand(6, -1), atol=1e-6, rtol=0)


def test_a_chain_with_wrong_posteriors_is_bounded_by_log_p_and_reaches_it():
    world = World(widen=1.4)
    x = world.data(100)
    exact = world.p.log_prob(x)
    with torch.no_grad():
        weights = log_weights(world.model.trace(x, k=5_000, noise=Noise.of(0, 100)), x)
    spread = float(torch.exp(weights - exact).std(0).mean())
    assert float(weights.mean()) < float(exact.mean()) - 0.1
    gap = (log_mean_weight(weights) - exact).mean()
    assert abs(float(gap)) < 5 * spread / math.sqrt(5_000 * 100) + spread**2 / 5_000
    # the gap of the ELBO: q is the exact posterior widened 1.4 fold in each of two dimensions
    kl = 2 * (0.5 * (1.4**2 - 1) - math.log(1.4))
    assert float((exact - weights.mean(0)).mean()) == pytest.approx(
        kl, abs=5 * float(weights.std()) / math.sqrt(5_000 * 100)
    )


def test_the_rate_of_a_chain_is_taken_at_its_draws_where_a_closed_form_would_be_of_something_else():
    """KL(q(z1|x) || p(z1|z2)) at a z2 drawn from z1 is not E[log q(z1|x) - log p(z1|z2)], even if both are Gaussian."""
    world = World(widen=1.4)
    x = world.data(50)
    with torch.no_grad():
        trace = world.model.trace(x, k=5_000, noise=Noise.of(0, 50))
        top, bottom = trace.latents
        assert has_closed_form(top.q, top.p)
        assert not has_closed_form(bottom.q, bottom.p)
        sampled = rate(trace, analytic=False)
        error = float((sum(h.log_q - h.log_p for h in trace.latents)).std()) / math.sqrt(5_000 * 50)
        assert float(rate(trace).mean()) == pytest.approx(float(sampled.mean()), abs=5 * error)
        wrong = torch.distributions.kl_divergence(bottom.q, bottom.p.density).mean() + latent_rate(top).mean()
        assert abs(float(wrong - sampled.mean())) > 0.05  # what the test above guards against
        assert (latent_rate(bottom) == bottom.log_q - bottom.log_p).all()


def test_codes_and_samples_of_a_chain():
    world = World()
    model, x = world.model, world.data(5)
    with torch.no_grad():
        assert model.encode(x).shape == (5, 1)
        assert torch.equal(model.encode(x), model.posteriors[0](x).mean)
        noise = Noise.of(3, 5)
        drawn = model.encode(x, noise=noise)
        assert torch.equal(drawn, model.trace(x, noise=Noise.of(3, 5)).latents[-1].z)
        assert model.decode(drawn).log_prob(x).shape == (5,)
        z = model.sample(40_000, noise=Noise.of(0, 40_000))
        assert z.shape == (40_000, 1)
        assert float(z.var()) == pytest.approx(1.0, abs=5 * math.sqrt(2 / 40_000))  # 0.8^2 + 0.6^2
        cold = model.sample(40_000, noise=Noise.of(0, 40_000), temperature=0.5)
        torch.testing.assert_close(cold, z / 2)  # linear: the deviations of both layers are halved
    for call in (model.encode, model.trace):
        with pytest.raises(ValueError, match="no condition"):
            call(x, x)
    with pytest.raises(ValueError, match="every latent layer but the top: 1 for 2"):
        Chain(StandardNormal((1,)), [], [nn.Identity(), nn.Identity()], nn.Identity())


def test_a_chain_of_three_layers_walks_in_order():
    torch.manual_seed(0)

    def gaussian(a, b):
        return Conditional(networks.MLP((a,), 2 * b, (5,), "tanh"), heads.Gaussian((b,), "learned"))

    posteriors, generators = [gaussian(6, 4), gaussian(4, 3), gaussian(3, 2)], [gaussian(2, 3), gaussian(3, 4)]
    model = Chain(
        StandardNormal((2,)), generators, posteriors, Conditional(networks.MLP((4,), 6, ()), heads.Bernoulli((6,)))
    )
    x = torch.ones(7, 6)
    trace = model.trace(x, k=3, noise=Noise.of(0, 7))
    z3, z2, z1 = (h.z for h in trace.latents)
    assert [z.shape[-1] for z in (z3, z2, z1)] == [2, 3, 4]
    by_hand = posteriors[0](x).log_prob(z1) + posteriors[1](z1).log_prob(z2) + posteriors[2](z2).log_prob(z3)
    torch.testing.assert_close(sum(h.log_q for h in trace.latents), by_hand)
    prior = model.prior().log_prob(z3) + generators[0](z3).log_prob(z2) + generators[1](z2).log_prob(z1)
    torch.testing.assert_close(sum(h.log_p for h in trace.latents), prior)
    assert model.sample(5).shape == (5, 4)


# --- the top-down model -----------------------------------------------------------------------------------------


def awake(model: TopDown, seed: int = 0, by: float = 0.3) -> TopDown:
    """The model with random values for weights that start at zero, so that posterior, scale and state all matter."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if not bool(p.any()):
                p.add_(by * torch.randn(p.shape, generator=g).to(p.dtype))
    return model.eval()


def tiny(event=(3,), layers=(2,), latent=1, head=None) -> TopDown:
    torch.manual_seed(1)
    return awake(TopDown(event, head or heads.Bernoulli(event), layers, (6,), (latent,)).double())


def test_a_top_down_model_of_two_small_layers_is_bounded_by_quadrature():
    model = tiny()
    x = torch.tensor([[float(b) for b in f"{i:03b}"] for i in range(8)]).double()
    at = torch.linspace(-9, 9, 241, dtype=torch.float64)
    grid = torch.cartesian_prod(at, at)  # the integrand's tails beyond 9 deviations are below 1e-18
    with torch.no_grad():
        log_w = -0.5 * (grid**2).sum(1) - math.log(2 * math.pi) + 2 * math.log(float(at[1] - at[0]))
        px = model.decode(grid[:, None].expand(-1, 8, -1)).log_prob(x)
        exact = torch.logsumexp(px + log_w[:, None], 0)
        assert float(torch.exp(exact).sum()) == pytest.approx(1, abs=1e-9)
        k = 20_000
        weights = log_weights(model.trace(x, k=k, noise=Noise.of(0, 8)), x)
        bound = log_mean_weight(weights)
        relative = torch.exp(weights - exact).std(0)
    assert bool((weights.mean(0) < exact - 0.003).all())  # q is nowhere the posterior: the test would see a shift
    assert float(relative.max()) < 5
    assert bool(((bound - exact).abs() < 5 * relative / math.sqrt(k)).all())


def test_its_closed_form_rate_is_the_mean_of_the_sampled_one():
    model = tiny(latent=2)
    x = torch.ones(4, 3).double()
    with torch.no_grad():
        trace = model.trace(x, k=5_000, noise=Noise.of(0, 4))
        for h in trace.latents:
            sampled = h.log_q - h.log_p
            error = sampled.std(0) / math.sqrt(5_000)
            assert bool(((latent_rate(h).mean(0) - sampled.mean(0)).abs() < 5 * error).all())


@pytest.mark.parametrize("event", EVENTS)
def test_it_takes_any_shape_and_starts_at_the_prior(event):
    torch.manual_seed(0)
    model = top_down(event, heads.Gaussian(event, "shared"), width=8, latent=1)
    x = torch.randn(3, *event)
    trace = model.trace(x, noise=Noise.of(0, 3))
    assert trace.px.event_shape == event
    assert trace.px.batch_shape == (3,)
    assert float(rate(trace).detach().abs().max()) < 1e-6
    assert [h.z.numel() // 3 for h in trace.latents] == model.sizes
    terms = ELBO()(model, Batch(x, Noise.of(0, 3)), torch.tensor(0))
    gradients = torch.autograd.grad(terms.losses["model"], list(model.parameters()), allow_unused=True)
    moved = {
        n for (n, _), g in zip(model.named_parameters(), gradients, strict=True) if g is not None and bool(g.any())
    }
    # the posterior's last layer leaves zero at the first step, and everything before it at the second
    assert {n for n, _ in model.named_parameters() if n.endswith(("out.weight", "project.weight"))} <= moved


@pytest.mark.parametrize("event", EVENTS)
def test_a_code_holds_the_whole_walk(event):
    model = awake(top_down(event, heads.Bernoulli(event), width=8, latent=2))
    x = (torch.rand(4, *event, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    with torch.no_grad():
        drawn = model.encode(x, noise=Noise.of(5, 4))
        trace = model.trace(x, noise=Noise.of(5, 4))
        torch.testing.assert_close(drawn, torch.cat([h.z.flatten(1) for h in trace.latents], 1), rtol=1e-5, atol=1e-5)
        assert drawn.shape == (4, sum(model.sizes))
        torch.testing.assert_close(model.decode(drawn).mean, trace.px.mean, rtol=1e-4, atol=1e-5)
        # the mean of every layer given the means of those above, by a walk of its own
        code, parts, h = model.encode(x), [], model.start.expand(4, -1)
        features = model.features(x)
        for stage, f in zip(model.stages, features, strict=True):
            h = stage.entered(h)
            for layer in stage.layers:
                z = layer.posterior(h, f)[0]
                parts.append(z.flatten(1))
                h = layer(h, z)
        torch.testing.assert_close(code, torch.cat(parts, 1))
        torch.testing.assert_close(model.decode(code).mean, model.likelihood(h).mean)
        both = model.decode(torch.stack([drawn, code]))
        assert both.batch_shape == (2, 4)
        torch.testing.assert_close(both.mean[1], model.decode(code).mean, rtol=1e-4, atol=1e-5)
        moved = code.clone()
        moved[:, 0] += 1  # the top reaches x
        assert not torch.allclose(model.decode(moved).mean, model.decode(code).mean, atol=1e-6)


@pytest.mark.parametrize("event", [(1, 9, 7), (11,)])
def test_a_sample_axis_equals_separate_draws_and_no_row_depends_on_its_batch(event):
    model = awake(top_down(event, heads.Bernoulli(event), width=8, latent=2))
    x = (torch.rand(5, *event, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    base = torch.tensor(77)
    rows = torch.arange(5)
    with torch.no_grad():
        whole = log_weights(model.trace(x, k=4, noise=Noise(base, rows)), x)
        assert whole.shape == (4, 5)
        for k in range(4):
            one = log_weights(model.trace(x, k=1, noise=Noise(base, rows, k)), x)
            torch.testing.assert_close(one[0], whole[k], rtol=1e-4, atol=1e-4)
        for b in range(5):
            alone = log_weights(model.trace(x[b : b + 1], k=4, noise=Noise(base, rows[b : b + 1])), x[b : b + 1])
            torch.testing.assert_close(alone[:, 0], whole[:, b], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(model.encode(x[b : b + 1])[0], model.encode(x)[b], rtol=1e-4, atol=1e-5)
    assert float(whole.std(0).min()) > 1e-3  # the samples are not one


def test_codes_from_the_prior_are_standard_normal_and_spread_by_the_temperature():
    model = top_down((1, 9, 7), heads.Bernoulli((1, 9, 7)), width=8, latent=2)
    z = model.sample(3000, noise=Noise.of(0, 3000))
    assert z.shape == (3000, sum(model.sizes))
    assert float(z.mean()) == pytest.approx(0, abs=5 / math.sqrt(z.numel()))
    assert float(z.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / z.numel()))
    assert torch.equal(model.sample(3, noise=Noise.of(0, 3)), z[:3])
    torch.testing.assert_close(model.sample(3, noise=Noise.of(0, 3), temperature=0.7), 0.7 * z[:3])
    assert model.decode(z[:3]).mean.shape == (3, 1, 9, 7)


def test_a_condition_is_refused():
    event = (1, 6, 5)
    model = top_down(event, heads.Bernoulli(event), width=8, latent=1)
    x, c = torch.zeros(2, *event), torch.eye(3)[:2]
    for call in (model.encode, model.trace):
        with pytest.raises(ValueError, match="takes no condition"):
            call(x, c)
    with pytest.raises(ValueError, match="takes no condition"):
        model.sample(2, c)


def test_its_output_starts_at_the_datas_mean_and_its_support_is_checked():
    for event in ((1, 9, 7), (11,)):
        head = heads.Bernoulli(event)
        model = top_down(event, head, width=8, latent=1)
        mean = torch.linspace(0.1, 0.9, math.prod(event)).reshape(event)
        assert networks.set_output_bias(model.likelihood.net, head.initial_bias(mean, mean))
        check_support(Composition(model, ELBO(), Binary()))
        with pytest.raises(ChoiceError, match="`observation='binary'`"):
            check_support(Composition(model, ELBO(), Levels(256)))
        with torch.no_grad():
            for p in model.parameters():
                if p.shape != (head.features,):
                    p.zero_()
            torch.testing.assert_close(model.decode(torch.zeros(1, sum(model.sizes))).mean[0], mean)


def test_levels_are_brought_into_reach_of_the_way_up():
    event = (3, 8, 8)
    torch.manual_seed(0)
    head = heads.DiscretisedLogisticHead(event)
    model = awake(top_down(event, head, width=8, latent=1, values=(0, 255)))
    x = torch.randint(0, 256, (2, *event)).float()
    plain = model.features.net(x / 127.5 - 1)
    for a, b in zip(model.features(x), plain, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"event": (5,), "layers": (1, 1), "widths": (4, 4), "latents": (1, 1)}, "no grids"),
        ({"event": (1, 8, 8), "layers": (2,), "widths": (4,), "latents": (1,)}, "at least two"),
        ({"event": (1, 8, 8), "layers": (2, 1), "widths": (4,), "latents": (1, 1)}, "one number per grid"),
        ({"event": (5,), "layers": (0,), "widths": (4,), "latents": (1,)}, "at least one layer"),
    ],
)
def test_sizes_that_cannot_be_are_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        TopDown(head=heads.Bernoulli(wrong["event"]), **wrong)


# --- trained ----------------------------------------------------------------------------------------------------


def steps(model, raw, observation, rule="adamw", compiled=False, **settings):
    made = Engine(
        Composition(model, ELBO(), observation),
        Settings(optimiser=lambda: optimiser(rule), lr=1e-2, seed=1, **settings),
    )
    if compiled:
        made.compiled()
    return made, [made.step(x, t, 1.0) for t, x in enumerate(raw)]


def test_training_it_finds_out_where_a_patch_is():
    """A 3 x 3 patch at one of 36 positions: log p(x) is -3.6 at best; independent pixels reach -24.4."""
    torch.manual_seed(0)
    event = (1, 8, 8)
    place = torch.randint(0, 6, (200, 64, 2), generator=torch.Generator().manual_seed(0))
    down, right = (((torch.arange(8) - p) >= 0) & ((torch.arange(8) - p) < 3) for p in place.split(1, -1))
    raw = (down[..., :, None] & right[..., None, :])[:, :, None].to(torch.uint8) * 255
    model = top_down(event, heads.Bernoulli(event), layers=(1, 1), width=16, latent=1)
    made, values = steps(model, raw, Binary(), clip=50.0, ema=0.5)
    elbo = [float(v[made.stats.index("elbo")]) for v in values]
    assert elbo[0] < -30
    assert sum(elbo[-10:]) / 10 > -15


@needs_compiler
def test_a_compiled_step_equals_an_eager_one():
    """With the head whose sigma is a buffer that each step writes. Plain descent, whose update is few operations."""

    def make():
        torch.manual_seed(0)
        return top_down((6,), heads.Gaussian((6,), "optimal"), layers=(1,), width=8, latent=1)

    raw = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(3)).unbind()
    torch._dynamo.reset()
    eager, one = steps(make(), raw, Identity(), "sgd")
    compiled, two = steps(make(), raw, Identity(), "sgd", compiled=True)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    before = dict(make().named_parameters())
    assert not any(torch.equal(before[n.removeprefix("model.")], v) for n, v in eager.parameters.items())
    assert any(n.endswith("log_scale") and float(v) != 0 for n, v in compiled.tensors().items())
    for n, v in eager.tensors().items():
        torch.testing.assert_close(v, compiled.tensors()[n], rtol=1e-3, atol=1e-4, msg=lambda m, n=n: f"{n}: {m}")


def test_it_scores_through_the_evaluator():
    from core_helpers import model_of

    from vaekit.metrics.likelihood import per_datum

    model = tiny().float()
    run = model_of(Composition(model, ELBO(), Identity()), (3,))
    x = torch.tensor([[0.0, 1, 1], [1, 0, 1]]).numpy()
    scored = per_datum(run, run.observed(x), 500)
    assert (scored.log_px >= scored.elbo - 1e-6).all()
    assert scored.means.shape == (2, 2)
