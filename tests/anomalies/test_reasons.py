"""The columns that make a row unusual: conditional densities in closed form, and which column is named."""

import numpy as np
import pytest
import torch
from core_helpers import LinearGaussian

from vaekit.anomalies.reasons import averaged, conditional, ranked
from vaekit.anomalies.scoring import filled, log_density


def exact(toy, x):
    """log p(x_j | x_-j) and E[x_j | x_-j] of the linear Gaussian model, from its precision matrix."""
    covariance = toy.W @ toy.W.T + toy.sigma**2 * torch.eye(toy.dims, dtype=torch.float64)
    precision = torch.linalg.inv(covariance)
    variance = 1 / precision.diagonal()
    mean = x - ((x - toy.b) @ precision) * variance
    return torch.distributions.Normal(mean, variance.sqrt()).log_prob(x), mean


@pytest.fixture(scope="module")
def toy():
    return LinearGaussian(8, 3, 0.15)


@pytest.fixture(scope="module")
def wrong(toy):
    """Rows with one wrong column each, and its number."""
    x, j = toy.data(60), torch.arange(60) % 8
    x[torch.arange(60), j] += 1.5 * (1 - 2 * (torch.arange(60) % 2))
    return x, j


@torch.no_grad()
def test_the_density_of_a_column_given_the_others_has_its_closed_form(toy, wrong):
    for x in (toy.data(60, 5), wrong[0]):
        truth, mean = exact(toy, x)
        log_p, expected = conditional(toy.model, x, None, torch.zeros_like(x, dtype=torch.bool), k=64)
        error = (log_p - truth).abs()
        assert error.square().mean().sqrt() < 0.15  # 64 draws of z; the values span tens of nats
        assert (expected - mean).square().mean().sqrt() < 0.05
    assert (log_p.argmin(1) == wrong[1]).all()


@torch.no_grad()
def test_draws_given_the_whole_row_miss_it(toy, wrong):
    """Why the column is hidden from the encoder: the mean over q(z | x) is nats off and names other columns."""
    x, j = wrong
    truth, _ = exact(toy, x)
    log_p, _ = averaged(toy.model, x, None, 64)
    assert (log_p - truth).square().mean().sqrt() > 2
    assert (log_p.argmin(1) == j).double().mean() < 0.99


@torch.no_grad()
def test_hidden_elements_are_integrated_out(toy):
    """log p of the visible elements is the marginal of the Gaussian, and their conditionals do not see the others."""
    x, hidden = toy.data(40, 7), torch.zeros(40, 8, dtype=torch.bool)
    hidden[:, [1, 4]] = True
    covariance = toy.W @ toy.W.T + toy.sigma**2 * torch.eye(8, dtype=torch.float64)
    kept = torch.tensor([0, 2, 3, 5, 6, 7])
    part = torch.distributions.MultivariateNormal(toy.b[kept], covariance[kept][:, kept])
    log_p = log_density(toy.model, filled(toy.model, x, None, hidden), None, 400, hidden=hidden)
    assert (log_p - part.log_prob(x[:, kept])).abs().mean() < 0.3
    blank = torch.where(hidden, 99.0, x)
    again = log_density(toy.model, filled(toy.model, blank, None, hidden), None, 400, hidden=hidden)
    torch.testing.assert_close(again, log_p)


@torch.no_grad()
def test_the_score_is_a_function_of_the_row_alone(toy):
    x = toy.data(30)
    whole = log_density(toy.model, x, None, 50)
    order = torch.arange(29, -1, -1)
    torch.testing.assert_close(log_density(toy.model, x[order], None, 50)[order], whole)
    torch.testing.assert_close(log_density(toy.model, x[3:4], None, 50), whole[3:4])
    assert (whole - toy.log_p(x)).abs().max() < 1e-6  # q is the exact posterior: each weight is p(x)


def test_columns_are_ordered_by_their_rank_among_held_out_rows_then_by_nats():
    held = np.array([[-1.0, -10.0, -1.0], [-2.0, -20.0, -1.5], [-3.0, -30.0, np.nan]])
    p, order = ranked(np.array([[-2.5, -40.0, -9.0], [-9.0, np.nan, -1.2]]), held)
    np.testing.assert_allclose(p, [[2 / 4, 1 / 4, 1 / 3], [1 / 4, np.inf, 2 / 3]])
    assert order.tolist() == [[1, 2, 0], [0, 2, 1]]
