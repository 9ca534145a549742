"""Flows: each map undoes its inverse, its determinant is the Jacobian's, its density integrates to one."""

import math

import numpy as np
import pytest
import torch

from vaekit.densities import draw, draw_with_density
from vaekit.densities.drawing import Drawn
from vaekit.densities.flows import BOUND, Autoregressive, Coupling, Flow, affine_map
from vaekit.noise import Noise

HIDDEN, CONTEXT = (9, 7), 3
STEPS = {
    "affine 0": lambda d, h: Coupling(d, h, HIDDEN, "affine", 0),
    "affine 1": lambda d, h: Coupling(d, h, HIDDEN, "affine", 1),
    "affine 2": lambda d, h: Coupling(d, h, HIDDEN, "affine", 2),
    "spline 0": lambda d, h: Coupling(d, h, HIDDEN, "spline", 0),
    "spline 3": lambda d, h: Coupling(d, h, HIDDEN, "spline", 3),
    "autoregressive": lambda d, h: Autoregressive(d, h, HIDDEN),
    "backwards": lambda d, h: Autoregressive(d, h, HIDDEN, backwards=True),
}


def made(name, dims, context=0, dtype=torch.float64, spread=0.5):
    """A step whose weights are far from their initial values."""
    torch.manual_seed(0)
    step = STEPS[name](dims, context).double()
    with torch.no_grad():
        for p in step.parameters():
            p.add_(spread * torch.randn_like(p))
    return step.to(dtype)


def numbers(*shape, seed=1, dtype=torch.float64):
    return 1.5 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("dims", [1, 2, 5])
@pytest.mark.parametrize("context", [0, CONTEXT])
def test_a_map_and_its_inverse_undo_each_other(name, dims, context):
    f = made(name, dims, context).bind(numbers(6, context, seed=2) if context else None)
    e = numbers(4, 6, dims)
    z, forth = f.forward(e)
    back, log_det = f.inverse(z)
    assert z.shape == e.shape
    assert forth.shape == (4, 6)
    torch.testing.assert_close(back, e, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(forth, log_det, rtol=1e-6, atol=1e-6)
    assert float((z - e).detach().abs().max()) > 0.1


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("dims", [1, 2, 5])
def test_the_determinant_is_that_of_the_jacobian(name, dims):
    f = made(name, dims).bind()
    for e in numbers(5, dims):
        jacobian = torch.autograd.functional.jacobian(lambda v: f.forward(v)[0], e)
        assert float(f.forward(e)[1].detach()) == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]), abs=1e-9)


def test_a_step_reaches_what_it_says_it_reaches():
    """A coupling keeps one half; an autoregressive step's Jacobian is triangular, in either order."""
    e = numbers(5)
    for turn, kept in ((0, [0, 1]), (1, [2, 3, 4]), (2, [0, 2, 4]), (3, [1, 3])):
        z = made(f"affine {turn}", 5).bind().forward(e)[0] if turn < 3 else made("spline 3", 5).bind().forward(e)[0]
        assert [i for i in range(5) if z[i] == e[i]] == kept
    for name, upper in (("autoregressive", True), ("backwards", False)):
        f = made(name, 5).bind()
        jacobian = torch.autograd.functional.jacobian(lambda v, f=f: f.forward(v)[0], e)
        other = torch.triu(jacobian, 1) if upper else torch.tril(jacobian, -1)
        assert float(other.abs().max()) == 0
        below = torch.tril(jacobian, -1) if upper else torch.triu(jacobian, 1)
        assert int((below != 0).sum()) == 10  # and on the other side everything depends on everything


@pytest.mark.parametrize("name", ["autoregressive", "backwards"])
def test_the_context_reaches_every_place_of_an_autoregressive_step(name):
    step, h = made(name, 4, CONTEXT), numbers(CONTEXT, seed=3)
    moved = torch.autograd.functional.jacobian(lambda v: step.bind(v).forward(numbers(4))[0], h)
    assert bool((moved.abs().sum(-1) > 0).all())


def test_four_couplings_let_every_place_depend_on_every_other():
    maps = [made(name, 5).bind() for name in ("affine 0", "affine 1", "affine 2", "spline 3")]

    def image(e):
        for f in maps:
            e = f.forward(e)[0]
        return e

    assert bool((torch.autograd.functional.jacobian(image, numbers(5)) != 0).all())


@pytest.mark.parametrize("kind", ["affine", "spline"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_coupling_starts_as_the_identity(kind, dtype):
    torch.manual_seed(0)
    f = Coupling(5, CONTEXT, HIDDEN, kind, 1).to(dtype).bind(numbers(7, CONTEXT, dtype=dtype))
    e = 2 * numbers(7, 5, dtype=dtype)
    for way in f:
        z, log_det = way(e)
        torch.testing.assert_close(z, e, rtol=1e-6, atol=5e-6)
        torch.testing.assert_close(log_det, torch.zeros(7, dtype=dtype), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_spline_is_continuous_monotone_and_the_identity_outside(dtype):
    f = made("spline 0", 1, dtype=dtype, spread=2.0).bind()
    e = torch.linspace(-1.5 * BOUND, 1.5 * BOUND, 20_001, dtype=dtype)[:, None]
    z, log_slope = f.forward(e)
    z = z[:, 0].detach()
    # monotone, to the rounding of a few operations on numbers of the size of the interval
    assert float(z.diff().min()) >= -8 * BOUND * torch.finfo(dtype).eps
    outside = e[:, 0].abs() >= BOUND
    assert torch.equal(z[outside], e[outside, 0])
    steps = z.double().diff()
    inner = torch.exp(log_slope.detach().double())
    # between neighbours the image moves by their distance times a slope between 1e-5 and 1e3
    assert float(steps.max()) < 2 * float(inner.max()) * 3 * BOUND / 20_000
    edges = torch.tensor([-BOUND, BOUND], dtype=dtype)[:, None]
    for way in f:
        torch.testing.assert_close(way(edges)[0], edges)


@pytest.mark.parametrize("name", STEPS)
def test_float32_has_finite_gradients_far_out_and_at_the_knots(name):
    step = made(name, 4, CONTEXT, torch.float32, spread=1.0)
    places = [0.0, 1e-30, -BOUND, BOUND, 0.25 * BOUND, 0.5 * BOUND, 30.0, -1e3]
    e = torch.tensor(places)[:, None].expand(-1, 4).clone().requires_grad_()
    h = numbers(len(places), CONTEXT, dtype=torch.float32)
    for inverse in (False, True):
        if name in ("autoregressive", "backwards") and inverse:
            continue  # its inverse multiplies by 1 / s once a place: far out it leaves float32 by right
        image, log_det = step.bind(h)[inverse](e)
        found = torch.autograd.grad(image.sum() + log_det.sum(), [e, *step.parameters()], allow_unused=True)
        assert bool(torch.isfinite(image).all())
        assert all(bool(torch.isfinite(g).all()) for g in found if g is not None)


# --- the density of a flow --------------------------------------------------------------------------------------


def flow(name="spline 0", dims=2, batch=(), spread=0.3, dtype=torch.float64) -> Flow:
    """Two steps of this kind, then a scale and a shift; with data, each datum has its own context."""
    other = {"spline 0": "spline 3", "affine 0": "affine 1", "autoregressive": "backwards"}[name]
    h = numbers(*batch, CONTEXT, seed=5, dtype=dtype) if batch else None
    steps = [made(n, dims, CONTEXT if batch else 0, dtype, spread).bind(h) for n in (name, other)]
    scale = affine_map(torch.full((dims,), 0.3, dtype=dtype), torch.full((dims,), -0.4, dtype=dtype))
    return Flow([*steps, scale], batch, torch.zeros(dims, dtype=dtype))


KINDS = ["spline 0", "affine 0", "autoregressive"]


def grid(half=6.0, n=901):
    x = torch.linspace(-half, half, n, dtype=torch.float64)
    return torch.stack(torch.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2), float(x[1] - x[0]) ** 2


@pytest.mark.parametrize("name", KINDS)
def test_a_flow_integrates_to_one(name):
    points, area = grid()
    with torch.no_grad():
        total = torch.exp(flow(name).log_prob(points)).sum() * area
    # a spline's slope has kinks, about which a sum over a grid errs by the square of its mesh
    assert float(total) == pytest.approx(1, abs=3e-4 if name.startswith("spline") else 1e-7)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("batch", [(), (6,), (3, 6)])
def test_a_draw_comes_with_its_density(name, batch):
    d = flow(name, 5, batch)
    k = None if len(batch) == 2 else 3
    z, log_q = draw_with_density(d, Noise.of(0, 6), k)
    assert z.shape == (3, 6, 5)
    assert log_q.shape == (3, 6)
    assert torch.equal(z, draw(d, Noise.of(0, 6), k))
    torch.testing.assert_close(d.log_prob(z), log_q, rtol=1e-6, atol=1e-6)
    if len(batch) < 2:
        z, log_q = draw_with_density(d, Noise.of(0, 6))
        assert (z.shape, log_q.shape) == ((6, 5), (6,))
        torch.testing.assert_close(d.log_prob(z), log_q, rtol=1e-6, atol=1e-6)
    assert d.mean.shape == (*batch, 5)
    assert d.rsample().shape == (*batch, 5)
    if len(batch) == 2:
        with pytest.raises(ValueError, match="a sample axis of 3"):
            draw_with_density(d, Noise.of(0, 6), 2)
    else:
        assert d.rsample((2, 4)).shape == (2, 4, *batch, 5)


@pytest.mark.parametrize("name", KINDS)
def test_float32_agrees_with_float64(name):
    z = draw(flow(name, 5), Noise.of(0, 500)).detach()
    one, two = flow(name, 5, dtype=torch.float32), flow(name, 5)
    error = (one.log_prob(z.float()).double() - two.log_prob(z)).detach().abs()
    assert float(error.median()) < 1e-5
    # where a spline is steep, by up to 340, a rounding of z moves its base by as much more: a number in a thousand
    assert float(error.quantile(0.99)) < 1e-3
    assert float(error.max()) < 1e-2


def test_a_draw_does_not_depend_on_the_batch():
    d = flow("spline 0", 3)
    whole = draw(d, Noise.of(0, 10), 4)
    part = draw(d, Noise.of(0, torch.arange(3, 7)), 4)
    torch.testing.assert_close(whole[:, 3:7], part, rtol=1e-12, atol=1e-12)


def test_the_centre_is_the_image_of_zero_and_what_is_left_at_temperature_zero():
    d = flow("spline 0", 3)
    with torch.no_grad():
        still = draw(d.tempered(0.0), Noise.of(0, 5))
    torch.testing.assert_close(still, d.mean.expand(5, 3))
    half = d.tempered(0.5)
    z, log_q = draw_with_density(half, Noise.of(0, 9))
    torch.testing.assert_close(half.log_prob(z), log_q, rtol=1e-6, atol=1e-6)
    points, area = grid()
    narrow = flow("affine 0").tempered(0.5)
    with torch.no_grad():
        assert float(torch.exp(narrow.log_prob(points)).sum() * area) == pytest.approx(1, abs=1e-7)


def test_a_density_keeps_the_weights_it_was_made_with():
    """The density of a frozen copy is evaluated after the copy is gone; its weights must still get no gradient."""
    from vaekit.objectives import frozen

    class Made(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.step = made("spline 0", 4)

        def forward(self, zero):
            return Flow([self.step.bind()], (), zero)

    module, zero = Made(), torch.zeros(4, dtype=torch.float64)
    z = numbers(3, 4).requires_grad_()
    log_q = frozen(module)(zero).log_prob(z)
    torch.testing.assert_close(log_q, module(zero).log_prob(z))
    found = torch.autograd.grad(log_q.sum(), [z, *module.parameters()], allow_unused=True)
    assert bool((found[0] != 0).any())
    assert all(g is None for g in found[1:])


def test_a_flow_is_one_map_under_autocast():
    d = flow("affine 0", 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        z, log_q = draw_with_density(d, Noise.of(0, 50))
        again = d.log_prob(z)
    assert z.dtype == torch.float32
    torch.testing.assert_close(again, log_q, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="not one of affine, spline"):
        Coupling(3, 0, HIDDEN, "cubic")
    with pytest.raises(ValueError, match="hidden layer"):
        Coupling(3, 0, (), "spline")
    with pytest.raises(TypeError, match="_drawn"):
        draw(Drawn((), 2), Noise.of(0, 3))


def test_draws_of_a_standard_base_are_standard():
    d = Flow([], (), torch.zeros(3))
    z = draw(d, Noise.of(0, 20_000))
    np.testing.assert_allclose(z.mean(0).numpy(), 0, atol=5 / math.sqrt(20_000))
    assert float(d.log_prob(torch.zeros(3))) == pytest.approx(-1.5 * math.log(2 * math.pi))
