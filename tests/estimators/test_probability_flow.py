"""Velocities with closed forms: densities by the path integral, guidance, and the model that starts at N(0, I)."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from vaekit.errors import ChoiceError
from vaekit.estimators.probability_flow import path_log_prob
from vaekit.models.probability_flow import ProbabilityFlow, Velocity, runge_kutta
from vaekit.networks.velocity import DenseVelocity, GridVelocity
from vaekit.noise import Noise
from vaekit.objectives import ELBO, Batch
from vaekit.objectives.flow_matching import FlowMatching

F64 = torch.float64


class GaussianNet(torch.nn.Module):
    """The network with which `Velocity` is that of data from N(means[0], scale^2), or of N(means[1 + label], scale^2).

    x_t ~ N(t m, s^2), s^2 = (1 - t)^2 + t^2 scale^2: E[x - e | x_t] = m + (t scale^2 - (1 - t)) / s^2 (x_t - t m).
    """

    def __init__(self, means, scale):
        super().__init__()
        self.means, self.scale = torch.as_tensor(means, dtype=F64), scale

    def forward(self, x, t, c):
        t = t[:, None].double()
        root = (t.square() + (1 - t).square()).sqrt()
        m = self.means[0] if c is None else torch.cat([1 - c[:, -1:], c[:, :-1]], -1) @ self.means
        at, s2 = x * root, (1 - t) ** 2 + (t * self.scale) ** 2
        v = m + (t * self.scale**2 - (1 - t)) / s2 * (at - t * m)
        return (v - (2 * t - 1) / root.square() * at) * root


def test_gaussian_data_have_their_density_and_the_error_is_stated():
    mean, scale = torch.tensor([1.0, -0.5, 0.0], dtype=F64), 0.4
    field = Velocity(GaussianNet(mean[None], scale)).at(None)
    x = mean + scale * Noise.of(0, 6).normal((3,)).double()
    exact = Normal(mean, scale).log_prob(x).sum(-1)
    before = math.inf
    for steps in (6, 12, 24):
        found = path_log_prob(field, x, steps=steps)
        error = (found.log_prob - exact).abs()
        assert error.max() < before / 8  # order 4
        assert steps == 6 or error.mean() < 2 * found.solver_error.mean()  # an estimate for steps that are small
        before = float(error.max())
    assert before < 1e-5
    assert float(found.probe_se.max()) == 0


def test_hutchinsons_estimate_is_unbiased_within_its_standard_error():
    """dx/dt = A x: log p(x) = log N(exp(-A) x) - tr A, for any direction of the probes in expectation."""
    a = 0.3 * Noise.of(1, 4).normal((4,)).double()
    x = Noise.of(2, 400).normal((4,)).double()
    start = x @ torch.matrix_exp(-a).T
    exact = MultivariateNormal(torch.zeros(4, dtype=F64), torch.eye(4, dtype=F64)).log_prob(start) - a.trace()
    found = path_log_prob(lambda x, t: x @ a.T, x, steps=8, probes=16, noise=Noise.of(3, 400))
    z = (found.log_prob - exact) / found.probe_se
    assert abs(float(z.mean())) < 5 / math.sqrt(400)
    # Student's t with 15 degrees of freedom has a standard deviation of 1.07
    assert float(z.std()) == pytest.approx(1.07, abs=0.2)
    assert torch.allclose(path_log_prob(lambda x, t: x @ a.T, x, steps=8).log_prob, exact, atol=1e-5)
    assert bool(path_log_prob(lambda x, t: x @ a.T, x[:2], steps=2, probes=1).probe_se.isnan().all())


def test_guidance_moves_the_mean_of_gaussians_as_the_closed_form():
    """Guidance g between Gaussians of one variance is the velocity of the Gaussian with the mean m0 + g (m1 - m0)."""
    means, scale = [[0.5, 0.0], [2.0, -1.0], [-1.0, 1.0]], 0.3
    velocity = Velocity(GaussianNet(means, scale))
    e = Noise.of(0, 5).normal((2,)).double()
    for label in (0, 1):
        c = torch.tensor([[1.0 - label, label, 1.0]], dtype=F64).expand(5, 3)
        for g in (0.0, 1.0, 2.5):
            mean = torch.tensor(means[0], dtype=F64) + g * torch.tensor(
                [b - a for a, b in zip(means[0], means[1 + label], strict=True)], dtype=F64
            )
            moved = runge_kutta(velocity.at(c, g), e, 0.0, 1.0, 40)
            assert torch.allclose(moved, mean + scale * e, atol=1e-4), (label, g)


@pytest.mark.parametrize(
    "net", [DenseVelocity(6, 3, 16, 2), GridVelocity((2, 3, 1), 3, 16, 1), GridVelocity((1, 6), 3, 16, 1)]
)
def test_an_untrained_model_is_the_standard_normal(net):
    model = ProbabilityFlow(net, 6, 3)
    x, c = Noise.of(0, 7).normal((6,)), torch.eye(3)[[0, 1, 2, 0, 1, 2, 0]]
    with torch.no_grad():
        found = path_log_prob(model.velocity.at(c), x)
        torch.testing.assert_close(found.log_prob.float(), Normal(0, 1).log_prob(x).sum(-1), atol=1e-4, rtol=0)
        z = model.encode(x, c)
        assert z.shape == (7, 9)
        torch.testing.assert_close(z[:, :6], x, atol=1e-4, rtol=0)  # at time 1 as at time 0
        torch.testing.assert_close(model.decode(z).mean, x, atol=1e-4, rtol=0)
        torch.testing.assert_close(model.decode(z[None]).mean[0], x, atol=1e-4, rtol=0)


def test_data_are_decoded_from_their_codes_by_a_network_with_weights():
    model = ProbabilityFlow(DenseVelocity(3, 0, 16, 1), 3, steps=32)
    torch.nn.init.normal_(model.velocity.net.out.weight, generator=torch.Generator().manual_seed(0))
    x = Noise.of(0, 5).normal((3,))
    with torch.no_grad():
        z = model.encode(x)
        assert float((z - x).abs().max()) > 0.1
        torch.testing.assert_close(model.decode(z).mean, x, atol=1e-3, rtol=0)
        drawn = model.sample(4, noise=Noise.of(0, 4))
        torch.testing.assert_close(drawn, model.sample(9, noise=Noise.of(0, 9))[:4])


@pytest.mark.parametrize("grid", [(3, 4, 4), (2, 16, 12), (1, 70), (4, 2, 2, 2)])
def test_patches_are_cut_and_joined(grid):
    net = GridVelocity(grid, 0, 32, 1)
    x = torch.arange(2 * math.prod(grid)).float().reshape(2, -1)
    cut = net._cut(x)
    assert torch.equal(net._joined(cut), x)
    first = x[0].reshape(grid)[(slice(None), *(slice(p) for p in net.patch))]
    assert torch.equal(cut[0, 0], first.flatten())


def test_the_loss_is_the_error_of_the_velocity():
    """For data from N(0, I) the untrained velocity is right, and the loss is the mean of 1 / (t^2 + (1 - t)^2)."""
    n = 20_000
    model, objective = ProbabilityFlow(DenseVelocity(2, 0, 8, 1), 2, spread=1.5), FlowMatching()
    with torch.no_grad():
        found = objective(model, Batch(Noise.of(1, n).normal((2,)), Noise.of(2, n)), torch.tensor(0))
    t = torch.sigmoid(1.5 * torch.linspace(-6, 6, 4001, dtype=F64))
    weight = Normal(0, 1).log_prob(torch.linspace(-6, 6, 4001, dtype=F64)).exp()
    exact = float((weight / (t**2 + (1 - t) ** 2)).sum() / weight.sum())
    # per datum, the mean of two squared normals has a standard deviation of about its mean
    assert float(found.losses["model"]) == pytest.approx(exact, abs=5 * 1.5 / math.sqrt(n))
    with pytest.raises(ChoiceError, match="FlowMatching trains a ProbabilityFlow"):
        objective.check(torch.nn.Identity())
    assert model.no_density
    with pytest.raises(ChoiceError):
        ELBO().check(model)
