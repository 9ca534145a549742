"""A density of codes in one file of another package, as CONTRIBUTING.md says, is fitted, stored and sampled."""

import numpy as np
import pytest
import torch
from core_helpers import QUIET
from plugin_helpers import installed
from scipy import stats

import vaekit as vk
from vaekit.cli import main
from vaekit.errors import ChoiceError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of an installed package with the density that CONTRIBUTING shows."""
    with installed(tmp_path, monkeypatch, "vaekit-laplace", "laplace_density", "Add a density of codes") as folder:
        yield folder


def test_a_density_of_a_plugin_is_fitted_stored_and_sampled(package, tmp_path, capsys):
    data = vk.from_arrays(np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32))
    run = vk.fit(data, "ae", out=tmp_path / "run", latent=2, hidden=(4,), steps=3, batch=50, **QUIET)
    fitted = run.fit_latents("laplace")
    z = fitted.sample(2000)
    codes = torch.from_numpy(run.encode("train"))
    middle = codes.median(0).values
    loc, scale = middle.numpy(), (codes - middle).abs().mean(0).numpy()
    expected = stats.laplace.logpdf(z[:5], loc, scale).sum(-1)
    np.testing.assert_allclose(fitted.log_prob(z[:5]), expected, rtol=1e-3, atol=1e-3)
    # the mean of |z - loc| is the scale, with a standard error of scale / sqrt(n)
    np.testing.assert_allclose(np.abs(z - loc).mean(0), scale, rtol=5 / np.sqrt(len(z)))
    again = vk.open(run.path, data=data)
    assert np.array_equal(again.fit_latents("laplace").sample(5), z[:5])
    with pytest.raises(ChoiceError, match="`components` is for gmm, not for laplace"):
        run.fit_latents("laplace", components=3)
    with pytest.raises(ChoiceError, match="did you mean 'laplace'"):
        run.fit_latents("laplac")
    assert main(["sample", str(run.path), "--latents", "laplace", "--out", str(tmp_path / "x.npz")]) == 0
    assert "laplace: independent Laplace densities" in capsys.readouterr().out
