"""Priors against scipy, explicit sums and quadrature; their initial values. Training steps are in `test_posteriors`."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import distributions as D

from vaekit import heads, networks
from vaekit.data.observation import Identity
from vaekit.densities import draw, draw_with_density
from vaekit.densities.mixture import GaussianMixture
from vaekit.densities.sphere import PowerSpherical, UniformOnSphere
from vaekit.errors import ChoiceError
from vaekit.heads import Conditional
from vaekit.heads.posteriors import IAF, CouplingFlow, FullCovariance, Sphere
from vaekit.models.priors import FlowPrior, Mixture, StandardNormal, UniformSphere, Vamp
from vaekit.models.vae import VAE
from vaekit.noise import Noise
from vaekit.objectives import ELBO
from vaekit.objectives.terms import has_closed_form
from vaekit.recipes import Composition
from vaekit.training.optimisers import optimiser
from vaekit.training.step import Engine, Settings

N = 20_000


def mixture(c=7, dims=3, spread=2.0, scale=0.5, seed=0, dtype=torch.float64) -> GaussianMixture:
    """Components of unlike weights, places and widths."""
    g = torch.Generator().manual_seed(seed)
    logits, loc, log_scale = (
        torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((c,), (c, dims), (c, dims))
    )
    return GaussianMixture(*(t.to(dtype) for t in (logits, spread * loc, scale * torch.exp(0.3 * log_scale))))


def explicit(d: GaussianMixture, z: torch.Tensor) -> np.ndarray:
    """log p by scipy, component by component."""
    w, loc, scale = torch.softmax(d.logits.double(), -1), d.loc.double(), d.scale.double()
    each = [
        np.log(float(a)) + stats.norm(m.numpy(), s.numpy()).logpdf(z.double().numpy()).sum(-1)
        for a, m, s in zip(w, loc, scale, strict=True)
    ]
    return special.logsumexp(each, axis=0)


# --- mixtures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [5.0, 0.5, 0.05, 0.0025])
@pytest.mark.parametrize("dims", [1, 3, 40])
def test_a_mixture_equals_scipy_also_in_float32(scale, dims):
    """Down to the lower bound of scales, where a float32 product would be wrong by whole nats."""
    d = mixture(50, dims, scale=scale, dtype=torch.float32)
    z = draw(d, Noise.of(0, 20), 5)
    exact = explicit(d, z)
    # the number itself is rounded to float32
    np.testing.assert_allclose(d.log_prob(z).numpy(), exact, rtol=2e-7, atol=1e-4)
    far = 3 * z + 4
    np.testing.assert_allclose(d.log_prob(far).numpy(), explicit(d, far), rtol=1e-6, atol=1e-4)


def test_a_mixture_integrates_to_one_with_its_moments():
    d = mixture(5, 1)
    x, w = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(2000))
    p = 12 * w * torch.exp(d.log_prob(12 * x[:, None]))
    assert float(p.sum()) == pytest.approx(1, abs=1e-9)
    mean = (p * 12 * x).sum()
    assert float(d.mean) == pytest.approx(float(mean), abs=1e-9)
    assert float(d.variance) == pytest.approx(float((p * (12 * x - mean) ** 2).sum()), abs=1e-8)


def test_mixture_draws_follow_the_mixture():
    d = mixture(5, 3)
    z = draw(d, Noise.of(0, N)).numpy()
    w = torch.softmax(d.logits, -1).numpy()
    for i in range(3):

        def cdf(x, i=i):
            return (w[:, None] * stats.norm(d.loc[:, i, None].numpy(), d.scale[:, i, None].numpy()).cdf(x)).sum(0)

        assert stats.kstest(z[:, i], cdf).pvalue > 1e-4
    # and together: the mean log-density is minus the entropy, whose standard error is known from the draws
    other = d.sample((N,))
    a, b = d.log_prob(torch.from_numpy(z)), d.log_prob(other)
    assert abs(float(a.mean() - b.mean())) < 5 * float(torch.sqrt((a.var() + b.var()) / N))


def test_a_mixture_draw_has_its_shapes_and_does_not_depend_on_the_batch():
    d = mixture()
    assert draw(d, Noise.of(0, 4)).shape == (4, 3)
    whole = draw(d, Noise.of(0, 10), 5)
    assert whole.shape == (5, 10, 3)
    assert torch.equal(draw(d, Noise.of(0, torch.arange(2, 6)), 5), whole[:, 2:6])
    assert d.log_prob(whole).shape == (5, 10)
    assert d.sample((2, 4)).shape == (2, 4, 3)
    _, log_p = draw_with_density(d, Noise.of(0, 4))
    assert log_p is None


def test_a_draw_that_lands_in_no_step_takes_the_last_component():
    """Weights rounded to a sum below one must not send a draw past the end."""
    d = mixture(1000, 2, dtype=torch.float32)
    d.logits = d.logits - 1e-3
    assert bool(torch.isfinite(draw(d, Noise.of(0, N))).all())


def test_a_tempered_mixture_narrows_its_components_to_the_heaviest_one():
    d = mixture(4, 2)
    half = d.tempered(0.5)
    assert torch.equal(half.scale, d.scale / 2)
    w = torch.softmax(d.logits, -1)
    torch.testing.assert_close(torch.exp(half.logits), w**2 / (w**2).sum())
    still = draw(d.tempered(0.0), Noise.of(0, 6))
    assert torch.equal(still, d.loc[w.argmax()].expand(6, 2))


def test_a_learned_mixture_starts_near_the_standard_normal():
    torch.manual_seed(0)
    d = Mixture((8,), 500)()
    # 500 component means of variance 1/4: the mean is good to 0.5 / sqrt(500) and the variance to 0.25 sqrt(2 / 500)
    np.testing.assert_allclose(d.mean.detach().numpy(), 0, atol=5 * 0.5 / math.sqrt(500))
    np.testing.assert_allclose(d.variance.detach().numpy(), 1, atol=5 * 0.25 * math.sqrt(2 / 500))
    z = draw(d, Noise.of(0, 2000)).detach()
    normal = D.Normal(0.0, 1.0).log_prob(z).sum(-1)
    assert 0 <= float((d.log_prob(z) - normal).mean().detach()) < 0.3


def test_a_learned_mixture_is_learned():
    torch.manual_seed(0)
    prior = Mixture((2,), 3)
    z = draw(mixture(3, 2), Noise.of(0, 300)).float()
    before = [p.detach().clone() for p in prior.parameters()]
    rule = torch.optim.Adam(prior.parameters(), 0.05)
    losses = []
    for _ in range(300):
        loss = -prior().log_prob(z).mean()
        rule.zero_grad()
        loss.backward()
        assert all(bool(torch.isfinite(p.grad).all()) for p in prior.parameters())
        rule.step()
        losses.append(float(loss.detach()))
    assert all(not torch.equal(a, p) for a, p in zip(before, prior.parameters(), strict=True))
    assert losses[-1] < float(-mixture(3, 2).log_prob(z.double()).mean()) + 0.3
    with torch.no_grad():
        prior.log_scale.fill_(-100.0)
    assert float(prior().scale.min().detach()) == pytest.approx(math.exp(-6), rel=1e-5)


def test_a_mixtures_gradient_is_that_of_the_explicit_sum():
    d = mixture(6, 4, scale=0.1, dtype=torch.float32)
    z = draw(d, Noise.of(0, 9))
    leaves = [t.clone().requires_grad_() for t in (z, d.logits, d.loc, d.scale)]
    g = torch.autograd.grad(GaussianMixture(*leaves[1:]).log_prob(leaves[0]).sum(), leaves)
    exact = [t.detach().double().requires_grad_() for t in leaves]
    normal = D.Independent(D.Normal(exact[2], exact[3]), 1).log_prob(exact[0][:, None])
    wanted = torch.autograd.grad(torch.logsumexp(torch.log_softmax(exact[1], -1) + normal, -1).sum(), exact)
    for a, b in zip(g, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-3)  # gradients of some 10 to 1000


# --- vamp -------------------------------------------------------------------------------------------------------

EVENT = (1, 4, 3)


def encoder(latent=2, seed=0, scale="learned") -> Conditional:
    torch.manual_seed(seed)
    head = heads.Gaussian((latent,), scale)
    return Conditional(networks.MLP(EVENT, head.features, (7,), "tanh"), head)


def test_vamp_is_the_mixture_of_its_posteriors():
    posterior = encoder()
    prior = Vamp(posterior, EVENT, 6, 0.0, 1.0)
    with torch.no_grad():
        prior.pseudo.mul_(3)
    q = posterior(prior.pseudo.clamp(0, 1))
    z = torch.randn(5, 9, 2, generator=torch.Generator().manual_seed(1))
    by_hand = torch.logsumexp(torch.log_softmax(prior.logits, -1) + q.log_prob(z[:, :, None]), -1)
    torch.testing.assert_close(prior().log_prob(z), by_hand, rtol=1e-5, atol=1e-5)
    assert draw(prior(), Noise.of(0, 4), 3).shape == (3, 4, 2)


def test_vamp_shares_the_posterior_with_its_model():
    """The posterior is also trained through the prior, but registered in the model only, so a step keeps it."""
    posterior = encoder()
    model = VAE(Vamp(posterior, EVENT, 5, 0.0, 1.0), posterior, encoder())
    alone = VAE(StandardNormal((2,)), posterior, encoder())
    assert len(list(model.parameters())) == len(list(alone.parameters())) + 1
    assert set(model.state_dict()) - set(alone.state_dict()) == {"prior.pseudo"}
    (g,) = torch.autograd.grad(model.prior().log_prob(torch.zeros(3, 2)).sum(), [posterior.net.out.weight])
    assert float(g.abs().sum()) > 0
    q = Conditional(networks.MLP((6,), 4, ()), heads.Gaussian((2,), "learned"))
    px = Conditional(networks.MLP((2,), 6, ()), heads.Gaussian((6,), "shared"))
    small = VAE(Vamp(q, (6,), 4), q, px)
    step = Engine(Composition(small, ELBO(), Identity()), Settings(lambda: optimiser("sgd"), 1e-2))
    step.step(torch.ones(4, 6), 0, 1.0)
    assert all(isinstance(p, torch.nn.Parameter) for p in small.parameters())


@pytest.mark.parametrize("n", [3, 6, 50])
def test_vamp_starts_at_data(n):
    x = torch.rand(n, *EVENT, generator=torch.Generator().manual_seed(0)).round()
    prior = Vamp(encoder(), EVENT, 6, 0.0, 1.0)
    prior.start(x)
    u = prior.pseudo.detach()
    distance = (u[:, None] - x[None]).flatten(2).abs().amax(-1)
    assert float(distance.amin(1).max()) < 0.06  # six deviations of 0.01
    assert len(set(distance.argmin(1).tolist())) == min(n, 6)
    assert float(u.min()) >= 0
    assert float(u.max()) <= 1
    assert float((u - u.round()).abs().max()) > 0
    again, other = Vamp(encoder(), EVENT, 6, 0.0, 1.0), Vamp(encoder(), EVENT, 6, 0.0, 1.0)
    again.start(x)
    other.start(x, seed=1)
    assert torch.equal(again.pseudo, prior.pseudo)
    assert not torch.equal(other.pseudo, prior.pseudo)
    (g,) = torch.autograd.grad(prior().log_prob(torch.zeros(1, 2)).sum(), [prior.pseudo])
    assert bool((g.flatten(1).abs().sum(1) > 0).all())


def test_vamp_without_a_range_follows_the_datas_own_scale():
    x = 1000 + 50 * torch.randn(40, *EVENT, generator=torch.Generator().manual_seed(0))
    prior = Vamp(encoder(), EVENT, 40)
    prior.start(x)
    nearest = (prior.inputs[:, None] - x[None]).flatten(2).square().mean(-1).sqrt().amin(1)
    assert float(nearest.mean().detach()) == pytest.approx(0.5, rel=0.1)


def test_vamp_refuses_what_it_cannot_be():
    with pytest.raises(ValueError, match="low < high"):
        Vamp(encoder(), EVENT, 5, 0.0)
    with pytest.raises(ValueError, match="low < high"):
        Vamp(encoder(), EVENT, 5, 1.0, 1.0)
    with pytest.raises(ValueError, match="`components` must be 1 or more"):
        Vamp(encoder(), EVENT, 0)
    sphere = Sphere((2,))
    with pytest.raises(ChoiceError, match="PowerSpherical"):
        Vamp(Conditional(networks.MLP(EVENT, sphere.features), sphere), EVENT, 5)()


@pytest.mark.parametrize("head", [FullCovariance((2,)), IAF((2,), 1), CouplingFlow((2,), 1)])
def test_vamp_has_gaussian_components_for_other_posteriors(head):
    posterior = Conditional(networks.MLP(EVENT, head.features), head)
    mixture = Vamp(posterior, EVENT, 5)
    raw = posterior.net(mixture.inputs)
    p = mixture()
    if isinstance(head, FullCovariance):
        q = head(raw)
        torch.testing.assert_close(p.loc, q.mean)
        torch.testing.assert_close(p.scale**2, torch.diagonal(q.covariance_matrix, dim1=-2, dim2=-1))
    else:
        torch.testing.assert_close(p.loc, raw[:, :2])


# --- flows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["affine", "spline"])
@pytest.mark.parametrize("dims", [1, 2, 5])
def test_a_flow_prior_starts_as_the_standard_normal(kind, dims):
    d = FlowPrior((dims,), 5, (16,), kind)()
    z = draw(StandardNormal((dims,))(), Noise.of(0, 40), 3)
    torch.testing.assert_close(d.log_prob(z), D.Normal(0.0, 1.0).log_prob(z).sum(-1), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(draw(d, Noise.of(0, 40), 3), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(d.mean, torch.zeros(dims), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["affine", "spline"])
def test_a_flow_prior_learns_a_density_that_is_not_gaussian(kind):
    """A ring, whose entropy is known: log p = -log(2 pi r) + log N(r; 2, 0.2^2)."""
    torch.manual_seed(0)
    prior = FlowPrior((2,), 4, (32,), kind)
    z = draw(StandardNormal((2,))(), Noise.of(0, 3000))
    angle, r = 2 * math.pi * D.Normal(0.0, 1.0).cdf(z[:, 0]), 2 + 0.2 * z[:, 1]
    ring = torch.stack([r * torch.cos(angle), r * torch.sin(angle)], -1)
    best = float((D.Normal(2.0, 0.2).log_prob(r) - torch.log(2 * math.pi * r)).mean())
    rule = torch.optim.Adam(prior.parameters(), 1e-2)
    for step in range(250 if kind == "affine" else 120):
        loss = -prior().log_prob(ring[step % 3 :: 3]).mean()
        rule.zero_grad()
        loss.backward()
        assert all(bool(torch.isfinite(p.grad).all()) for p in prior.parameters())
        rule.step()
    with torch.no_grad():
        d = prior()
        # the Gaussian of the same moments is 1.2 nats short of the best: seeds of either kind are 0.1 to 0.7 and 0.05
        gaussian = float(D.MultivariateNormal(ring.mean(0), ring.T.cov()).log_prob(ring).mean())
        found = float(d.log_prob(ring).mean())
        assert found > (gaussian + 0.3 if kind == "affine" else best - 0.1)
        drawn, log_p = draw_with_density(d, Noise.of(1, 2000))
        torch.testing.assert_close(d.log_prob(drawn), log_p, rtol=1e-3, atol=1e-3)
        x = torch.linspace(-6, 6, 601)
        points = torch.stack(torch.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2)
        assert float(torch.exp(d.log_prob(points).double()).sum() * 0.02**2) == pytest.approx(1, abs=5e-3)


def test_flows_and_mixtures_are_over_vectors():
    for make in (Mixture, FlowPrior, UniformSphere):
        with pytest.raises(ValueError, match="over vectors"):
            make((2, 3))
    with pytest.raises(ValueError, match="over vectors of 2"):
        UniformSphere((1,))
    with pytest.raises(ValueError, match="`components` must be 1 or more"):
        Mixture((2,), 0)
    with pytest.raises(ValueError, match="`transforms` must be 1 or more"):
        FlowPrior((2,), 0)


# --- the sphere -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dims", "area"), [(2, 2 * math.pi), (3, 4 * math.pi), (4, 2 * math.pi**2)])
def test_the_uniform_sphere_knows_its_area(dims, area):
    d = UniformSphere((dims,))()
    z, log_p = draw_with_density(d, Noise.of(0, 5), 3)
    assert z.shape == (3, 5, dims)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(3, 5))
    torch.testing.assert_close(log_p, torch.full((3, 5), -math.log(area)))
    assert float(d.entropy()) == pytest.approx(math.log(area), rel=1e-6)


def pole_of(dims, seed=0, dtype=torch.float64):
    v = torch.randn(dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(v, dim=-1).to(dtype)


@pytest.mark.parametrize("c", [0.0, 0.7, 1.0, 10.0, 300.0])
def test_power_spherical_integrates_to_one_on_the_sphere_of_three_dimensions(c):
    """Gauss-Legendre in the cosine of the polar angle, equal steps around the axis that is not the density's own."""
    d = PowerSpherical(pole_of(3), torch.tensor(c, dtype=torch.float64))
    t, w = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(200))
    around = torch.arange(200, dtype=torch.float64) * (2 * math.pi / 200)
    s = torch.sqrt(1 - t**2)[:, None]
    points = torch.stack([s * torch.cos(around), s * torch.sin(around), t[:, None].expand(-1, 200)], -1)
    p = torch.exp(d.log_prob(points)) * w[:, None] * (2 * math.pi / 200)
    # a power that is not whole has a kink in some derivative at the far pole
    assert float(p.sum()) == pytest.approx(1, abs=1e-6 if c < 1 else 1e-8)
    entropy = -(p * d.log_prob(points)).sum()
    assert float(d.entropy()) == pytest.approx(float(entropy), abs=1e-6)
    mean = (p[..., None] * points).sum((0, 1))
    torch.testing.assert_close(mean, d.mean * c / (c + 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dims", [2, 3, 40])
@pytest.mark.parametrize("c", [0.0, 1.5, 30.0, 1e4])
def test_power_spherical_normalises_in_any_dimension(dims, c):
    """The density of t = <z, loc> is p(t) times the area of the ring at t: 1-D quadrature in the angle."""
    d = PowerSpherical(pole_of(dims), torch.tensor(c, dtype=torch.float64))
    ring = math.log(2) + (dims - 1) / 2 * math.log(math.pi) - math.lgamma((dims - 1) / 2)

    def density(angle):
        z = torch.zeros(dims, dtype=torch.float64)
        z[0], z[1] = math.cos(angle), math.sin(angle)
        first = torch.zeros(dims, dtype=torch.float64)
        first[0] = 1
        log_p = float(PowerSpherical(first, d.concentration).log_prob(z))
        return math.exp(log_p + ring) * math.sin(angle) ** (dims - 2)

    scale = min(math.pi, 12 * math.sqrt((dims + 2) / (c + 1)))
    assert integrate.quad(density, 0, scale, limit=200)[0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dims", [2, 3, 17])
@pytest.mark.parametrize("c", [0.0, 2.0, 50.0])
def test_power_spherical_draws_follow_it(dims, c):
    d = PowerSpherical(pole_of(dims, dtype=torch.float32), torch.tensor(c))
    z, log_p = draw_with_density(d, Noise.of(0, N))
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(N), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(d.log_prob(z), log_p, rtol=1e-4, atol=2e-3 if c > 10 else 1e-3)
    t = ((z @ d.loc).double().numpy() + 1) / 2
    beta = stats.beta((dims - 1) / 2 + c, (dims - 1) / 2)
    assert stats.kstest(t.clip(0, 1), beta.cdf).pvalue > 1e-4
    # and around loc no direction is better than another
    rest = z - (z @ d.loc)[:, None] * d.loc
    rest = rest / rest.norm(dim=-1, keepdim=True)
    np.testing.assert_allclose(rest.mean(0).numpy(), 0, atol=5 / math.sqrt(N))
    assert float(-log_p.mean()) == pytest.approx(float(d.entropy()), abs=5 * float(log_p.std()) / math.sqrt(N) + 1e-4)


@pytest.mark.parametrize("dims", [2, 3, 40])
def test_the_kl_to_the_uniform_sphere_is_closed_and_right(dims):
    p = UniformSphere((dims,)).double()()
    loc = torch.stack([pole_of(dims, s) for s in range(4)])
    q = PowerSpherical(loc, torch.tensor([0.0, 1.3, 20.0, 1e5], dtype=torch.float64))
    assert has_closed_form(q, p)
    kl = D.kl_divergence(q, p)
    assert kl.shape == (4,)
    assert float(kl[0]) == pytest.approx(0, abs=1e-9)
    z, log_q = draw_with_density(q, Noise.of(0, 4), N)
    gap = log_q - p.log_prob(z)
    np.testing.assert_array_less((kl - gap.mean(0)).abs().numpy(), 5 * gap.std(0).numpy() / math.sqrt(N) + 1e-6)
    single = PowerSpherical(loc.float(), q.concentration.float())
    torch.testing.assert_close(D.kl_divergence(single, UniformSphere((dims,))()).double(), kl, rtol=1e-6, atol=1e-6)


def test_power_spherical_gradients_are_those_of_the_expectation():
    """d E[t] / dc = (D - 1) / (c + D - 1)^2, by reparametrised draws; E f(z) follows loc."""
    c = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    loc = pole_of(4)
    q = PowerSpherical(loc, c)
    t = draw(q, Noise.of(0, N)) @ loc
    (g,) = torch.autograd.grad(t.mean(), c)
    assert float(g) == pytest.approx(3 / (3 + 3) ** 2, rel=0.05)
    raw = loc.clone().requires_grad_()
    moved = PowerSpherical(torch.nn.functional.normalize(raw, dim=-1), c.detach())
    target = pole_of(4, 1)
    (g,) = torch.autograd.grad((draw(moved, Noise.of(0, N)) @ target).mean(), raw)
    exact = 3 / 6 * (target - (target @ loc) * loc)
    torch.testing.assert_close(g, exact, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("first", [1.0, -1.0, 0.0])
def test_power_spherical_is_finite_at_the_axes(first):
    """Where a reflection onto loc could divide by zero, and at the ends of the density."""
    rest = math.sqrt(1 - first**2)
    loc = torch.tensor([[first, rest, 0.0]], requires_grad=True)
    c = torch.tensor([5.0], requires_grad=True)
    q = PowerSpherical(loc, c)
    z, log_q = draw_with_density(q, Noise.of(0, 1), 100)
    at = torch.stack([loc.detach()[0], -loc.detach()[0], torch.tensor([0.0, 0.0, 1.0])])[:, None]
    for value in (z.sum(), log_q.sum(), q.log_prob(at).sum(), q.entropy().sum()):
        found = torch.autograd.grad(value, [loc, c], allow_unused=True, retain_graph=True)
        assert bool(torch.isfinite(value))
        assert all(bool(torch.isfinite(g).all()) for g in found if g is not None)
    torch.testing.assert_close((z * loc).sum(-1).mean().detach(), torch.tensor(5 / 7), rtol=0.1, atol=0)


def test_a_spherical_draw_does_not_depend_on_the_batch():
    d = PowerSpherical(pole_of(3), torch.tensor(4.0, dtype=torch.float64))
    whole = draw(d, Noise.of(0, 10), 4)
    torch.testing.assert_close(draw(d, Noise.of(0, torch.arange(3, 7)), 4), whole[:, 3:7])


def test_a_tempered_sphere_draws_to_one_place():
    d = UniformSphere((6,))()
    assert isinstance(d, UniformOnSphere)
    still = draw(d.tempered(0.0), Noise.of(0, 9))
    assert still.shape == (9, 6)
    np.testing.assert_allclose(still.numpy(), np.eye(6)[:1].repeat(9, 0), atol=1e-6)
    assert float(draw(d.tempered(0.5), Noise.of(0, 500))[:, 0].mean()) > 0.5
    torch.testing.assert_close(d.tempered(1.0).log_prob(still), d.log_prob(still))


@pytest.mark.parametrize("dims", [2, 64, 512])
def test_a_power_spherical_density_in_float32_is_the_closed_form(dims):
    """Against scipy's normaliser in float64; the length of z is known to 1e-7, which a concentration c multiplies."""
    c = torch.exp(torch.linspace(-3, 10, 200))
    loc = torch.eye(dims)[:1].expand(200, dims)
    z = draw(PowerSpherical(loc, c), Noise.of(0, 200))
    beta = (dims - 1) / 2
    alpha = beta + c.double().numpy()
    area = (alpha + beta) * np.log(2) + beta * np.log(np.pi) + special.gammaln(alpha) - special.gammaln(alpha + beta)
    far = (z.double() + loc.double()).square().sum(-1).numpy() / 2  # 1 + t where z is of length 1
    exact = c.double().numpy() * np.log(far) - area
    off = np.abs(PowerSpherical(loc, c).log_prob(z).double().numpy() - exact)
    assert (off < 1e-4 + 2e-7 * c.double().numpy()).all()
