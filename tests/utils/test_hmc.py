"""Hamiltonian Monte Carlo: its dynamics, the distribution it leaves unchanged, and its step sizes."""

import math

import torch
from scipy import stats
from torch import distributions as D

from vaekit.noise import Noise
from vaekit.utils.hmc import Chain, advance, leapfrog, transition, tuned

GAUSSIAN = D.MultivariateNormal(
    torch.tensor([1.0, -2.0]).double(), torch.tensor([[1.0, 1.5], [1.5, 4.0]]).double(), validate_args=False
)


def exact(n, seed=0):
    """n draws of `GAUSSIAN`."""
    return GAUSSIAN.loc + Noise.of(seed, n).normal((2,)).double() @ GAUSSIAN.scale_tril.T


def two_modes(z):
    """An unnormalised mixture of two Gaussians in one dimension: 0.3 N(-1.5, 0.5^2) + 0.7 N(1, 1)."""
    left, right = D.Normal(-1.5, 0.5), D.Normal(1.0, 1.0)
    parts = [math.log(0.3) + left.log_prob(z), math.log(0.7) + right.log_prob(z)]
    return torch.logsumexp(torch.stack(parts), 0)[..., 0] + 7.0


def test_leapfrog_is_reversible_and_keeps_the_energy_to_second_order():
    z, r = exact(5), Noise.of(1, 5).normal((2,)).double()
    start = Chain.at(GAUSSIAN.log_prob, z)
    torch.testing.assert_close(start.slope, -(z - GAUSSIAN.loc) @ GAUSSIAN.precision_matrix)

    def error(size, steps):
        end, final = leapfrog(GAUSSIAN.log_prob, start, r, size, steps)
        return ((0.5 * final.square().sum(-1) - end.log_p) - (0.5 * r.square().sum(-1) - start.log_p)).abs().mean()

    end, final = leapfrog(GAUSSIAN.log_prob, start, r, 0.3, 7)
    back, momentum = leapfrog(GAUSSIAN.log_prob, end, -final, 0.3, 7)
    torch.testing.assert_close(back.z, z)
    torch.testing.assert_close(-momentum, r)
    assert 3 < error(0.1, 10) / error(0.05, 20) < 5  # half the step, a quarter of the error


def test_exact_draws_stay_exact_also_with_poor_step_sizes():
    """Chains that start at draws of p end at draws of p, although half of the proposals are rejected."""
    n = 4000
    noise = Noise.of(0, n)
    left = noise.uniform(()).double() < 0.3
    e = noise.normal((1,)).double()
    z = torch.where(left[:, None], -1.5 + 0.5 * e, 1 + e)
    chain, chance = advance(two_modes, Chain.at(two_modes, z), Noise.of(1, n), 1.6, steps=3, transitions=5)
    assert 0.3 < float(chance.mean()) < 0.8
    assert float((chain.z != z).float().mean()) > 0.8
    cdf = lambda v: 0.3 * stats.norm.cdf(v, -1.5, 0.5) + 0.7 * stats.norm.cdf(v, 1, 1)  # noqa: E731
    assert stats.kstest(chain.z[:, 0].numpy(), cdf).pvalue > 0.001


def test_tuned_chains_forget_their_start():
    """Sizes tuned in the pilot have the acceptance asked for, and frozen chains have the moments of p."""
    n = 2000
    start = Chain.at(GAUSSIAN.log_prob, torch.full((2, n // 2, 2), 5.0).double())
    noise = Noise.of(0, n // 2)
    size, chain = tuned(GAUSSIAN.log_prob, start, noise, 3.0, steps=6, transitions=40)
    assert size.shape == (2, n // 2, 1)
    chain, chance = advance(GAUSSIAN.log_prob, chain, noise, size, steps=6, transitions=20)
    assert abs(float(chance.mean()) - 0.8) < 0.06
    z = chain.z.reshape(-1, 2)
    assert ((z.mean(0) - GAUSSIAN.loc).abs() < 4.5 * GAUSSIAN.stddev / math.sqrt(n)).all()
    spread = torch.cov(z.T)
    # the variance of a sample covariance is (S_ij^2 + S_ii S_jj) / n
    d = GAUSSIAN.variance
    error = ((GAUSSIAN.covariance_matrix**2 + d[:, None] * d) / n).sqrt()
    assert ((spread - GAUSSIAN.covariance_matrix).abs() < 4.5 * error).all()


def test_a_chain_does_not_depend_on_its_batch():
    z = exact(6)
    whole, _ = transition(GAUSSIAN.log_prob, Chain.at(GAUSSIAN.log_prob, z), Noise.of(3, 6), 0.4)
    rows = torch.tensor([5, 2])
    part, _ = transition(GAUSSIAN.log_prob, Chain.at(GAUSSIAN.log_prob, z[rows]), Noise.of(3, rows), 0.4)
    torch.testing.assert_close(part.z, whole.z[rows])


def test_divergent_trajectories_are_rejected():
    steep = lambda z: -z.square().sum(-1).exp()  # noqa: E731
    z = torch.full((4, 2), 2.0).double()
    chain, chance = transition(steep, Chain.at(steep, z), Noise.of(0, 4), 50.0)
    assert torch.equal(chain.z, z)
    assert torch.equal(chance, torch.zeros(4).double())


def test_a_size_per_dimension_is_a_rescaled_problem():
    scale = torch.tensor([0.5, 3.0]).double()
    z = exact(4)
    rescaled = lambda y: GAUSSIAN.log_prob(y * scale)  # noqa: E731
    a, _ = transition(GAUSSIAN.log_prob, Chain.at(GAUSSIAN.log_prob, z), Noise.of(0, 4), 0.2 * scale, 3)
    b, _ = transition(rescaled, Chain.at(rescaled, z / scale), Noise.of(0, 4), 0.2, 3)
    torch.testing.assert_close(a.z, b.z * scale)
