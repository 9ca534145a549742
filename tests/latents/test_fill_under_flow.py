"""Filling in under flow matching, against quadrature: a mixture of Gaussians as the density, a linear decoder."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from core_helpers import QUIET, LinearGaussian, blobs
from torch.distributions import Normal

import vaekit as vk
from vaekit.cli import main
from vaekit.errors import ChoiceError
from vaekit.latents.densities import FlowMatchingDensity
from vaekit.latents.fill import draw_visible
from vaekit.latents.fitted import Transported
from vaekit.latents.resample import LatentDensity, Scale
from vaekit.models.probability_flow import ProbabilityFlow

LOC, SPREAD = torch.tensor([1.0, -0.5]), torch.tensor([2.0, 1.0])
WEIGHTS, MEANS, SCALES = torch.tensor([0.4, 0.6]), torch.tensor([[-1.0, 0.5], [0.5, -0.3]]), torch.tensor([0.5, 0.8])
DRAWS, SIGMA = 128, 0.05


class MixtureNet(torch.nn.Module):
    """The network with which `Velocity` is that of a mixture of Gaussians N(m_i, s_i^2).

    x_t ~ N(t m_i, v_i) with v_i = (1 - t)^2 + t^2 s_i^2 in component i, where E[x - e | x_t] is
    m_i + (t s_i^2 - (1 - t)) / v_i (x_t - t m_i).
    """

    def forward(self, x, t, c):
        t = t[:, None]
        root = (t.square() + (1 - t).square()).sqrt()
        at = x * root
        far = at[:, None] - t[..., None] * MEANS  # (n, 2, 2)
        v = (1 - t) ** 2 + (t * SCALES) ** 2
        share = torch.softmax(torch.log(WEIGHTS) - torch.log(v) - 0.5 * far.square().sum(-1) / v, -1)
        each = MEANS + ((t * SCALES**2 - (1 - t)) / v)[..., None] * far
        velocity = (share[..., None] * each).sum(1)
        return (velocity - (2 * t - 1) / root.square() * at) * root


@pytest.fixture(scope="module")
def latents():
    run = SimpleNamespace(model=ProbabilityFlow(MixtureNet(), 2), device="cpu", config={"step": 1})
    density = FlowMatchingDensity(run, {"dims": 2, "condition": None, "drop": 0.1}, None)
    return LatentDensity(density, Scale(LOC, SPREAD), {"name": "flow-matching"})


def by_quadrature(linear, x, visible):
    """Mean and standard deviation of the hidden elements given the visible ones (n, hidden)."""
    axes = [torch.linspace(a, b, 300, dtype=torch.float64) for a, b in ((-9, 9), (-5.5, 4.5))]
    z = torch.cartesian_prod(*axes)
    far = ((z - LOC) / SPREAD)[:, None] - MEANS
    log_p = torch.logsumexp(torch.log(WEIGHTS) - 2 * torch.log(SCALES) - 0.5 * far.square().sum(-1) / SCALES**2, -1)
    mean = z @ linear.W.T + linear.b
    fit = Normal(mean[:, visible], linear.sigma).log_prob(x[:, None, visible].double()).sum(-1)  # (n, points)
    weight = torch.softmax(log_p + fit, -1)
    first, second = weight @ mean[:, ~visible], weight @ mean[:, ~visible].square()
    return first, (second - first.square()).sqrt()


def test_draws_have_the_mean_and_the_spread_of_the_posterior(latents):
    """To 0.1 standard deviations and 10%, plus 4 standard errors of 128 draws: 0.35 and 25% for each row.

    The first hidden element has more of the noise of p(x | z), which draws lack, than the others.
    """
    linear = LinearGaussian(sigma=SIGMA, dtype=torch.float32)
    z = torch.from_numpy(latents.sample(8, seed=3)).double()
    x = (z @ linear.W.T + linear.b).float()
    visible = torch.tensor([True, False, False, False, False])
    mean, spread = by_quadrature(linear, x, visible)
    through, shown = Transported(latents), visible.expand(8, 5)
    drawn = draw_visible(linear.model, x, shown, through=through, draws=DRAWS, steps=200)
    found = (drawn.double() @ linear.W.T + linear.b)[..., ~visible]
    far, ratio = (found.mean(0) - mean) / spread, found.std(0) / spread
    assert float(far.abs().max()) < 0.45
    assert float(far.square().mean().sqrt()) < 0.1 + 0.09  # over rows, and the standard error of their mean
    assert float((ratio[:, 1:] - 1).abs().max()) < 0.35
    assert float(ratio[:, 1:].mean()) == pytest.approx(1, abs=0.1)
    assert bool((ratio[:, 0] < 1.25).all())
    again = draw_visible(linear.model, x[3:4], shown[:1], through=through, rows=torch.tensor([3]), draws=3, steps=2)
    with_others = draw_visible(linear.model, x, shown, through=through, draws=3, steps=2)
    torch.testing.assert_close(again[:, 0], with_others[:, 3])


def test_noise_and_codes_are_inverse(latents):
    through = Transported(latents)
    e = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(5)
    torch.testing.assert_close(through.noise(through.codes(e, rows), rows), e, atol=0.02, rtol=0)


def test_images_are_filled_by_draws_that_differ_and_labels_that_are_unknown_need_a_density_without(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", x=blobs(60, 6, 5), y=np.arange(60) % 2)
    data = vk.load(tmp_path / "x.npz")
    run = vk.fit(data, "vae", out=tmp_path / "run", steps=30, latent=2, hidden=(8,), **QUIET)
    run.fit_latents("flow-matching", steps=20, width=8, layers=1)
    found = run.fill(3, "half", latents="flow-matching", draws=4)
    raw = run.observed("test").raw(np.arange(3, 4))
    hidden = found.draws.std(0) > 0
    np.testing.assert_array_equal(found.draws[:, ~hidden], np.broadcast_to(raw, found.draws.shape)[:, ~hidden])
    assert hidden.mean() == pytest.approx(0.5)
    np.testing.assert_allclose(found.filled, found.draws.mean(0), rtol=1e-5)
    out = str(tmp_path / "f.npz")
    assert main(["fill", str(run.path), "3", "--latents", "flow-matching", "--draws", "4", "--out", out]) == 0
    with np.load(out) as held:
        np.testing.assert_allclose(held["draws"], found.draws[:, 0], rtol=1e-5)
    run.fit_latents("flow-matching", steps=2, width=8, layers=1, drop=0, refit=True)
    with pytest.raises(ChoiceError, match="filling in data without labels needs a density"):
        run.fill(3, "half", latents="flow-matching", draws=1)
