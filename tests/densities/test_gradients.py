"""Gradients in closed form equal those of finite differences, once and twice."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from vaekit.densities import DiscretisedLogistic, Normal
from vaekit.densities.flows import _spline
from vaekit.densities.gamma import log_standard_gamma
from vaekit.densities.special import log_sum_exp
from vaekit.heads.base import within
from vaekit.noise import Mirrored, Noise
from vaekit.utils.normal import log_mass


def numbers(*shape, low=-1.0, high=1.0, seed=0):
    u = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (low + (high - low) * u).requires_grad_()


X = numbers(2, 3, seed=1)
LEVELS = torch.tensor([[0.0, 3.0, 7.0], [1.0, 0.0, 7.0]], dtype=torch.float64)


def normal(*given):
    x, loc, scale = given if len(given) == 3 else (X, *given)
    return Normal(loc, scale).log_prob(x)


def in_bins(values):
    return lambda loc, log_scale: DiscretisedLogistic(loc, log_scale, 8).log_prob(values)


LOC = numbers(2, 3, low=0, high=7)
CASES = {
    "normal, shared scale": (normal, numbers(2, 3), numbers(low=0.5)),
    "normal, scale per element": (normal, numbers(4, 2, 3), numbers(3, low=0.5)),
    "normal, of many values": (normal, numbers(4, 2, 3), numbers(2, 3, seed=2), numbers(2, 3, low=0.5)),
    "logistic in bins": (in_bins(LEVELS), LOC, numbers(2, 3)),
    "narrow logistic in bins": (in_bins(LEVELS), LOC, torch.full((2, 3), -7.0, dtype=torch.float64).requires_grad_()),
    "logistics in bins": (in_bins(LEVELS[:, None]), numbers(2, 4, 3, low=0, high=7), numbers(2, 4, 3)),
    "normal in intervals": (lambda a, w: log_mass(a, a + w), numbers(40, low=-6, high=6), numbers(40, low=0.1, high=3)),
    "soft bounds": (lambda raw: within(raw, -2.0, 3.0), numbers(40, low=-9, high=9)),
    "sum of exponentials": (lambda x: log_sum_exp(x, 1), numbers(3, 4, 2, low=-3, high=3)),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_in_closed_form_equal_finite_differences(case):
    function, *given = CASES[case]
    assert gradcheck(function, given)
    assert gradgradcheck(function, given)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(("x", "raw"), [((6, 3), (6, 23, 3)), ((2, 6, 3), (6, 23, 3)), ((3,), (6, 23, 3))])
def test_the_gradient_of_a_spline_equals_finite_differences(inverse, x, raw):
    given = numbers(*x, low=-8, high=8), numbers(*raw, low=-2, high=2, seed=1)
    assert gradcheck(lambda x, raw: _spline(x, raw, inverse), given)


def test_the_gradient_of_the_mass_of_an_interval_is_the_density_at_its_ends():
    middle = torch.linspace(-9, 9, 37, dtype=torch.float64)
    for width in (1e-6, 0.05, 3.0):
        low, high = (middle - width / 2).requires_grad_(), (middle + width / 2).requires_grad_()
        mass = log_mass(low, high)
        found = torch.autograd.grad(mass.sum(), (low, high))
        normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
        for sign, end, gradient in zip((-1, 1), (low, high), found, strict=True):
            torch.testing.assert_close(gradient, sign * torch.exp(normal.log_prob(end) - mass), rtol=1e-9, atol=0)


def test_the_gradient_of_a_mass_far_out_keeps_its_digits():
    z = torch.tensor([30.0, 1000.0, 1e5, -1e5])
    low, high = (z - 0.5).requires_grad_(), (z + 0.5).requires_grad_()
    found = torch.stack(torch.autograd.grad(log_mass(low, high).sum(), (low, high)))
    near = z.abs() - 0.5
    hazard = near + 1 / near  # of the end that is nearer to 0, to 2 / near^3; that of the other is negligible
    wanted = torch.stack([torch.where(z > 0, -hazard, 0.0), torch.where(z > 0, 0.0, hazard)])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("event", "k"), [((), None), ((), 3), ((5,), None)])
def test_gamma_draws_are_the_same_however_many_proposals_are_computed_together(event, k, monkeypatch):
    shape = (*(() if k is None else (k,)), 40, *event)
    concentration = numbers(*shape, low=0.1, high=3).detach().float()

    def drawn(few, kind):
        monkeypatch.setattr("vaekit.densities.gamma.FEW", few)
        noise = Noise.of(3, 40)
        noise = Mirrored(noise) if kind == "mirrored" else noise
        return log_standard_gamma(noise, concentration, event, k), noise.uniform(event, k)

    for kind in ("plain", "mirrored"):
        for together, alone in zip(drawn(10**9, kind), drawn(0, kind), strict=True):
            torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
