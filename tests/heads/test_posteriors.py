"""Posteriors against scipy and Monte Carlo; and that every prior and posterior takes a training step as one graph."""

import math

import numpy as np
import pytest
import torch
from core_helpers import captured, needs_compiler, weekly
from scipy import stats
from torch import distributions as D

from vaekit import heads, networks
from vaekit.data.observation import Identity
from vaekit.densities import draw, draw_with_density
from vaekit.densities.sphere import PowerSpherical
from vaekit.heads import Conditional
from vaekit.heads.posteriors import IAF, CouplingFlow, FullCovariance, FullNormal, PointHead, Sphere
from vaekit.models.priors import FlowPrior, Mixture, StandardNormal, UniformSphere, Vamp
from vaekit.models.vae import VAE
from vaekit.noise import Noise
from vaekit.objectives import ELBO, frozen
from vaekit.objectives.terms import has_closed_form, rate, rate_per_dim
from vaekit.recipes import Composition
from vaekit.training.optimisers import optimiser
from vaekit.training.step import Engine, Settings

N = 20_000
HEADS = {
    "full": lambda d: FullCovariance((d,)),
    "iaf": lambda d: IAF((d,), 3, (9, 7), 4),
    "iaf alone": lambda d: IAF((d,), 1, (9,), 0),
    "spline": lambda d: CouplingFlow((d,), 4, (9,), 4),
    "sphere": lambda d: Sphere((d,)),
}
FLOWS = ["iaf", "iaf alone", "spline"]


def made(name, dims=3, dtype=torch.float64, spread=0.3):
    """A head whose own weights, if it has any, are far from their start."""
    torch.manual_seed(0)
    head = HEADS[name](dims).double()
    with torch.no_grad():
        for p in head.parameters():
            p.add_(spread * torch.randn_like(p))
    return head.to(dtype)


def raw(head, *lead, seed=1, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*lead, head.features, generator=g, dtype=torch.float64).to(dtype)


# --- what all have in common ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("dims", [1, 2, 7])
def test_a_draw_comes_with_its_density_on_every_axis(name, dims):
    if name == "sphere" and dims == 1:
        pytest.skip("there is no sphere of one dimension")
    head = made(name, dims)
    q = head(raw(head, 5))
    assert (tuple(q.batch_shape), tuple(q.event_shape)) == ((5,), (dims,))
    assert q.mean.shape == (5, dims)
    for k in (None, 3):
        z, log_q = draw_with_density(q, Noise.of(0, 5), k)
        lead = (5,) if k is None else (3, 5)
        assert (tuple(z.shape), tuple(log_q.shape)) == ((*lead, dims), lead)
        assert torch.equal(z, draw(q, Noise.of(0, 5), k))
        torch.testing.assert_close(q.log_prob(z), log_q, rtol=1e-6, atol=1e-6)
    many = head(raw(head, 3, 5))  # a density that has its sample axis already
    z, log_q = draw_with_density(many, Noise.of(0, 5))
    assert (tuple(z.shape), tuple(log_q.shape)) == ((3, 5, dims), (3, 5))
    torch.testing.assert_close(many.log_prob(z), log_q, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="a sample axis of 3"):
        draw_with_density(many, Noise.of(0, 5), 2)
    assert q.rsample((2,)).shape == (2, 5, dims)


@pytest.mark.parametrize("name", HEADS)
def test_a_draw_does_not_depend_on_the_batch(name):
    head = made(name)
    numbers = raw(head, 10)
    whole = draw(head(numbers), Noise.of(0, 10), 4)
    part = draw(head(numbers[3:7]), Noise.of(0, torch.arange(3, 7)), 4)
    torch.testing.assert_close(part, whole[:, 3:7], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0])
def test_float32_gradients_are_finite(name, size):
    """With raw numbers of zero and large ones: gradients of a draw, of its density, and of the density at a fixed z."""
    head = made(name, 6, torch.float32)
    numbers = (size * raw(head, 500, dtype=torch.float32)).requires_grad_()
    prior = UniformSphere((6,))() if name == "sphere" else StandardNormal((6,))()
    q = head(numbers)
    z, log_q = draw_with_density(q, Noise.of(0, 500), 2)
    rates = D.kl_divergence(q, prior) if has_closed_form(q, prior) else log_q - prior.log_prob(z)
    values = [z.sum(), log_q.sum(), rates.sum()]
    if not name.startswith("iaf"):  # whose inverse is exact, but divides by a product of gates
        values.append(q.log_prob(z.detach()).sum())
    for value in values:
        assert bool(torch.isfinite(value))
        found = torch.autograd.grad(value, [numbers, *head.parameters()], allow_unused=True, retain_graph=True)
        assert all(bool(torch.isfinite(g).all()) for g in found if g is not None)


@pytest.mark.parametrize("name", HEADS)
def test_low_precision_numbers_make_a_float32_density(name):
    head = made(name, 4, torch.float32)
    numbers = raw(head, 5, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        z, log_q = draw_with_density(head(numbers), Noise.of(0, 5))
    assert (z.dtype, log_q.dtype) == (torch.float32, torch.float32)
    exact, log_exact = draw_with_density(head(numbers.float()), Noise.of(0, 5))
    torch.testing.assert_close(z, exact)
    torch.testing.assert_close(log_q, log_exact)


@pytest.mark.parametrize("name", HEADS)
def test_a_frozen_copy_knows_the_gradient_of_z_alone(name):
    """DReG needs log q at any z with the weights of q held constant, also after the copy has been called."""
    head = made(name, 3)
    posterior = Conditional(networks.MLP((4,), head.features, ()), head).double()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    z = draw(posterior(x), Noise.of(0, 5), 2)
    held = frozen(posterior)(x)
    log_q = held.log_prob(z)
    torch.testing.assert_close(log_q, posterior(x).log_prob(z))
    weights = list(posterior.parameters())
    through_z = torch.autograd.grad(log_q.sum(), weights, allow_unused=True)
    (g,) = torch.autograd.grad(frozen(posterior)(x).log_prob(y := z.detach().requires_grad_()).sum(), y)
    by_hand = torch.autograd.grad(draw(posterior(x), Noise.of(0, 5), 2), weights, g, allow_unused=True)
    for a, b in zip(through_z, by_hand, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


# --- full covariance --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 2, 5])
def test_full_covariance_equals_scipy(dims):
    head = made("full", dims)
    q = head(raw(head, 4))
    z = 2 * raw(head, 3, 4, seed=3)[..., :dims]
    for i in range(4):
        exact = stats.multivariate_normal(q.mean[i].numpy(), q.covariance_matrix[i].numpy())
        np.testing.assert_allclose(q.log_prob(z)[:, i].numpy(), exact.logpdf(z[:, i].numpy()), rtol=1e-9)
        assert float(q.entropy()[i]) == pytest.approx(exact.entropy(), rel=1e-9)
    torch.testing.assert_close(q.variance, q.covariance_matrix.diagonal(dim1=-2, dim2=-1))


def test_full_covariance_draws_have_its_moments():
    head = made("full", 3)
    q = head(raw(head, 1))
    z = draw(q, Noise.of(0, 1), N)[:, 0]
    c = q.covariance_matrix[0]
    np.testing.assert_array_less(((z.mean(0) - q.mean[0]) / torch.sqrt(c.diagonal() / N)).abs().numpy(), 5)
    # the variance of a product of two normals about their means is c_ii c_jj + c_ij^2
    spread = torch.sqrt((c.diagonal()[:, None] * c.diagonal() + c**2) / N)
    np.testing.assert_array_less(((z.T.cov() - c) / spread).abs().numpy(), 5)


def test_every_number_of_a_full_covariance_has_one_place():
    """Each raw number changes exactly one element of the mean or of the factor, each a different one."""
    head = FullCovariance((5,)).double()
    base = raw(head, 1)[0]

    def parts(r):
        q = head(r)
        return torch.cat([q.mean, q.factor.flatten()])

    jacobian = torch.autograd.functional.jacobian(parts, base)
    assert bool(((jacobian != 0).sum(0) == 1).all())
    assert bool(((jacobian != 0).sum(1) <= 1).all())
    q = head(raw(head, 9) * 20)
    assert bool((q.factor.triu(1) == 0).all())
    assert float(q.factor.diagonal(dim1=-2, dim2=-1).min()) >= math.exp(-6)


@pytest.mark.parametrize("dims", [1, 4])
def test_the_kl_of_a_full_covariance_is_closed_and_right(dims):
    head = made("full", dims)
    q = head(raw(head, 6))
    loc, scale = torch.linspace(-1, 1, dims).double(), torch.linspace(0.5, 2, dims).double()
    for p in (StandardNormal((dims,)).double()(), D.Independent(D.Normal(loc, scale), 1)):
        assert has_closed_form(q, p)
        normal = p.base_dist
        exact = D.kl_divergence(
            D.MultivariateNormal(q.mean, scale_tril=q.factor),
            D.MultivariateNormal(normal.loc, scale_tril=torch.diag(normal.scale)),
        )
        torch.testing.assert_close(D.kl_divergence(q, p), exact)
        z, log_q = draw_with_density(q, Noise.of(0, 6), N)
        gap = (log_q - p.log_prob(z)).detach()
        error = (gap.mean(0) - exact).abs() / (gap.std(0) / math.sqrt(N))
        assert float(error.detach().max()) < 5
    assert not has_closed_form(q, Mixture((dims,), 2).double()())
    laplace = D.Independent(D.Laplace(torch.zeros(dims), torch.ones(dims)), 1)
    assert not has_closed_form(q, laplace)


def test_a_diagonal_factor_is_the_diagonal_gaussian():
    scale = torch.tensor([[0.5, 1.0, 3.0]])
    loc = torch.tensor([[1.0, -1.0, 0.0]])
    full, plain = FullNormal(loc, torch.diag_embed(scale)), D.Independent(D.Normal(loc, scale), 1)
    z = torch.randn(7, 1, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(full.log_prob(z), plain.log_prob(z))
    p = StandardNormal((3,))()
    torch.testing.assert_close(D.kl_divergence(full, p), D.kl_divergence(plain, p))
    assert torch.equal(draw(full, Noise.of(0, 1), 5), draw(plain, Noise.of(0, 1), 5))


def test_more_sample_axes_than_one():
    """A value may have any axes before those of the density: components of a mixture, for one."""
    for name in HEADS:
        head = made(name, 3)
        q = head(raw(head, 4))
        z = draw(q, Noise.of(0, 4), 6)
        torch.testing.assert_close(q.log_prob(z.reshape(2, 3, 4, 3)), q.log_prob(z).reshape(2, 3, 4))


# --- flows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_posterior_integrates_to_one_whatever_the_context(name):
    head = made(name, 2, spread=0.2)
    for numbers in 0.5 * raw(head, 3)[:, None]:
        with torch.no_grad():
            q = head(numbers)
            draws = draw(q, Noise.of(0, 1), N)[:, 0]
            low, high = draws.amin(0) - 1, draws.amax(0) + 1
            axes = [
                torch.linspace(float(a), float(b), 500, dtype=torch.float64) for a, b in zip(low, high, strict=True)
            ]
            points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 1, 2)
            area = float((axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0]))
            total = float(torch.exp(q.log_prob(points)).sum() * area)
        # of a spline the density has kinks, about which a sum over a grid errs by the square of its mesh
        assert total == pytest.approx(1, abs=2e-3 if name == "spline" else 1e-3)


@pytest.mark.parametrize("name", FLOWS)
def test_the_centre_of_a_flow_is_the_image_of_its_gaussians_mean(name):
    head = made(name, 3)
    q = head(raw(head, 4))
    with torch.no_grad():
        torch.testing.assert_close(draw(q.tempered(0.0), Noise.of(0, 4)), q.mean)
        # and so where a flow does next to nothing it is the mean
        torch.manual_seed(0)
        fresh = HEADS["spline"](3).double()
        numbers = raw(fresh, 4)
        torch.testing.assert_close(fresh(numbers).mean, numbers[:, :3])


def test_a_coupling_posterior_starts_as_the_diagonal_gaussian():
    head = HEADS["spline"](3).double()
    plain = heads.Gaussian((3,), "learned")
    numbers = raw(head, 4)
    z = draw(q := head(numbers), Noise.of(0, 4), 9)
    torch.testing.assert_close(q.log_prob(z), plain(numbers[:, :6]).log_prob(z))
    torch.testing.assert_close(z, draw(plain(numbers[:, :6]), Noise.of(0, 4), 9))


@pytest.mark.parametrize("name", ["iaf", "spline"])
def test_a_flow_posterior_uses_its_context(name):
    head = made(name, 3)
    numbers = raw(head, 2)
    numbers[1, :6] = numbers[0, :6]  # the same Gaussian, another context
    z = draw(head(numbers), Noise.of(0, torch.zeros(2, dtype=torch.long)))
    assert float((z[0] - z[1]).detach().abs().max()) > 0.01


def test_an_iaf_fits_what_no_gaussian_can():
    """A density along a parabola: the KL from it falls well below that of the best Gaussian, which a draw confirms."""

    def log_p(z):
        return D.Normal(0.0, 1.0).log_prob(z[..., 0]) + D.Normal(z[..., 0] ** 2, 0.3).log_prob(z[..., 1])

    found = {}
    for name in ("plain", "iaf", "spline"):
        torch.manual_seed(0)
        head = heads.Gaussian((2,), "learned") if name == "plain" else HEADS[name](2)
        numbers = torch.nn.Parameter(torch.zeros(1, head.features))
        rule = torch.optim.Adam([numbers, *head.parameters()], 2e-2)
        for step in range(300):
            q = head(numbers)
            z, log_q = draw_with_density(q, Noise.of(0, 1, step), 100)
            loss = ((q.log_prob(z) if log_q is None else log_q) - log_p(z)).mean()
            rule.zero_grad()
            loss.backward()
            rule.step()
        with torch.no_grad():
            q = head(numbers)
            z = draw(q, Noise.of(1, 1), 4000)
            found[name] = float((q.log_prob(z) - log_p(z)).mean())
    assert found["plain"] > 0.5
    assert -0.05 < found["iaf"] < 0.5 * found["plain"]
    assert -0.05 < found["spline"] < 0.5 * found["plain"]


def test_flows_have_no_kl_in_closed_form_nor_a_latent_at_a_time():
    for name in FLOWS:
        head = made(name)
        model = VAE(
            StandardNormal((3,)).double(), Conditional(networks.MLP((4,), head.features, ()), head).double(), None
        )
        model.likelihood = torch.nn.Identity()
        trace = model.trace(torch.zeros(5, 4, dtype=torch.float64), noise=Noise.of(0, 5))
        (h,) = trace.latents
        assert not has_closed_form(h.q, h.p)
        assert rate_per_dim(h) is None
        assert h.known_log_q is not None
        torch.testing.assert_close(rate(trace), h.q.log_prob(h.z) - h.p.log_prob(h.z))


# --- the sphere -------------------------------------------------------------------------------------------------


def test_a_spherical_posterior_is_about_its_direction():
    head = Sphere((3,))
    numbers = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, -0.1, 0.0, 30.0], [0.0, 0.0, 0.0, -100.0]])
    q = head(numbers)
    assert isinstance(q, PowerSpherical)
    torch.testing.assert_close(q.mean, torch.tensor([[1.0, 0, 0], [0, -1, 0], [1, 0, 0]]), rtol=0, atol=1e-4)
    torch.testing.assert_close(q.concentration, torch.tensor([1 + math.log(2), 31.0, 1.0]))
    assert head.features == 4
    with pytest.raises(ValueError, match="2 or more"):
        Sphere((1,))


# --- points -----------------------------------------------------------------------------------------------------


def test_a_point_has_a_code_and_no_density():
    posterior = Conditional(networks.MLP((4,), 3, ()), PointHead((3,)))
    model = VAE(StandardNormal((3,)), posterior, Conditional(networks.MLP((3,), 4, ()), heads.Gaussian((4,), "unit")))
    assert "autoencoder" in model.no_density
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    z = model.encode(x)
    assert torch.equal(z, posterior.net(x))
    assert torch.equal(model.encode(x, noise=Noise.of(0, 5)), z)
    (h,) = model.trace(x, k=2, noise=Noise.of(0, 5)).latents
    assert torch.equal(h.z, z.expand(2, 5, 3))
    assert PointHead((2, 3)).features == 6
    with pytest.raises(NotImplementedError):
        h.q.log_prob(h.z)


def test_sizes_that_cannot_be_are_refused():
    for make in (FullCovariance, IAF, CouplingFlow, Sphere):
        with pytest.raises(ValueError, match="over vectors"):
            make((2, 3))
    with pytest.raises(ValueError, match="`transforms` must be 1 or more"):
        IAF((3,), 0)
    with pytest.raises(ValueError, match="context must be 0 or more"):
        CouplingFlow((3,), 1, context=-1)


# --- in the engine ----------------------------------------------------------------------------------------------


def posterior(head) -> Conditional:
    return Conditional(networks.MLP((6,), head.features, ()), head)


def composition(name) -> Composition:
    """Each prior and each posterior once, as small as possible: compilation time depends on the number of kernels."""
    torch.manual_seed(0)
    plain = posterior(heads.Gaussian((2,), "learned"))
    normal = StandardNormal((2,))
    prior, q = {
        "mixture": (Mixture((2,), 4), plain),
        "vamp": (Vamp(plain, (6,), 4), plain),
        "flow prior": (FlowPrior((2,), 2, (5,), "affine"), plain),
        "spline prior": (FlowPrior((2,), 2, (5,), "spline"), plain),
        "sphere": (UniformSphere((2,)), posterior(Sphere((2,)))),
        "full": (normal, posterior(FullCovariance((2,)))),
        "iaf": (normal, posterior(IAF((2,), 2, (5,), 2))),
        "coupling": (normal, posterior(CouplingFlow((2,), 2, (5,), 2))),
    }[name]
    likelihood = Conditional(networks.MLP((2,), 6, ()), heads.Gaussian((6,), "shared"))
    return Composition(VAE(prior, q, likelihood), ELBO(), Identity())


ALL = ["mixture", "vamp", "flow prior", "spline prior", "sphere", "full", "iaf", "coupling"]


def engine(name, rule="adamw", **settings) -> Engine:
    return Engine(composition(name), Settings(lambda: optimiser(rule), 1e-3, seed=1, clip=5.0, ema=0.5, **settings))


def data(seed=1):
    return torch.randn(10, 6, generator=torch.Generator().manual_seed(seed))


def assert_compiled_equals_eager(name):
    torch._dynamo.reset()
    one, two = engine(name), engine(name)
    two.compiled()
    for t in range(2):
        torch.testing.assert_close(one.step(data(t), t, 1.0), two.step(data(t), t, 1.0), rtol=1e-4, atol=1e-4)
    for n, v in one.tensors().items():
        # Adam divides by the root of a second moment: a rounding of a tiny gradient moves a weight by up to lr
        torch.testing.assert_close(v, two.tensors()[n], rtol=1e-3, atol=4e-3, msg=lambda m, n=n: f"{n}: {m}")


@pytest.mark.parametrize("name", ALL)
def test_a_training_step_is_one_graph(name, monkeypatch):
    """Gradients and update included."""
    captured(monkeypatch)
    assert_compiled_equals_eager(name)


@weekly
@needs_compiler
def test_a_compiled_mixture_under_adam_equals_an_eager_one():
    """Inductor of torch 2.13 fails where a sum over the batch is fused with an update in place of the means."""
    assert_compiled_equals_eager("mixture")


@pytest.mark.parametrize("name", ALL)
def test_a_bf16_step_is_near_the_float32_one(name):
    exact, low = engine(name).step(data(), 0, 1.0), engine(name, precision="bf16").step(data(), 0, 1.0)
    torch.testing.assert_close(low, exact, rtol=0.05, atol=0.3)  # factors of 8 bits, in nats of some ten


@pytest.mark.parametrize("name", ALL)
def test_training_brings_the_loss_down(name):
    step = engine(name, "adam")
    step.settings.lr = 1e-2
    x = data() @ torch.randn(6, 6, generator=torch.Generator().manual_seed(7)) / 2
    values = torch.stack([step.step(x, t, 1.0) for t in range(150)])
    assert bool(torch.isfinite(values).all())
    assert float(values[-20:, 0].mean()) < float(values[:20, 0].mean()) - 0.5


def test_slow_scales_are_exponential_up_to_one_then_linear_with_a_gradient_everywhere():
    raw = torch.tensor([-20.0, -3.0, -0.1, 0.0, 0.1, 2.0, 28.0, 500.0], dtype=torch.float64, requires_grad=True)
    slow, usual = (
        head(torch.cat([torch.zeros_like(raw), raw])).base_dist.scale
        for head in (heads.Gaussian((8,), slow=True), heads.Gaussian((8,)))
    )
    floor = -6 + torch.nn.functional.softplus(raw + 6)
    torch.testing.assert_close(slow, torch.where(floor > 0, 1 + floor, torch.exp(floor)))
    assert torch.equal(slow[:3], usual[:3])
    (gradient,) = torch.autograd.grad(slow.sum(), raw)
    assert (gradient > 0).all()
    assert gradient[3:].tolist() == pytest.approx([1] * 5, rel=0.01)  # the usual scale has none above e^30
    assert torch.autograd.grad(usual.sum(), raw)[0][-1] == 0
