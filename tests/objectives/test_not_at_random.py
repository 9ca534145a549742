"""Values that are missing because of what they are: the mean of a linear Gaussian model, and the density of masks."""

import numpy as np
import pytest
import torch

import vaekit as vk
from vaekit.objectives import NotMIWAE
from vaekit.objectives.not_at_random import FASTER

LOADINGS = np.array([[1, 0, 1, 0.5, -1], [0, 1, 0.5, -1, 1]])


def test_the_mean_of_values_missing_not_at_random_is_recovered(tmp_path):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(1500, 2)) @ LOADINGS + 0.4 * rng.normal(size=(1500, 5))).astype(np.float32)
    gaps = np.zeros(x.shape, bool)
    for j, slope in ((0, 3), (1, -3)):  # large values of one column are missing, and small ones of another
        gaps[:, j] = rng.random(len(x)) < 1 / (1 + np.exp(-slope * x[:, j]))
    data = vk.from_arrays(np.where(gaps, np.nan, x), missing="mask")
    choices = {"network": "dense", "hidden": [], "latent": 2, "likelihood": "gaussian", "observation": "standardised"}

    def bias(name):
        run = vk.fit(data, "vae", objective=name, samples=10, steps=300, lr=0.02, compile="off", progress=False,
                     out=tmp_path / name, **choices)  # fmt: skip
        with torch.no_grad():
            mean = run.composition.observation.mean_in_units(run.model.decode(torch.zeros(1, 2)))[0]
        return run, mean.numpy() - x.mean(0)

    _, ignorable = bias("iwae")
    run, modelled = bias("not-miwae")
    assert ignorable[0] < -0.15
    assert ignorable[1] > 0.15
    # 1,500 rows, half of whose values are missing: a standard error of about 0.05
    assert np.abs(modelled).max() < 0.13
    slope = run.composition.objective.slope.detach()
    assert slope[0] > 0.5
    assert slope[1] < -0.5
    assert slope[2:].abs().max() < 0.2
    some = np.where(gaps, np.nan, x)[:300]
    errors = [
        (filled - x[:300])[gaps[:300, 0], 0].mean()
        for filled in (run.fill(some).filled, run.fill(x[:300], gaps[:300]).filled)
    ]  # missing as in the data, or hidden at random
    assert abs(errors[0]) < 0.12
    assert errors[1] < errors[0] - 0.1
    again = vk.open(tmp_path / "not-miwae").composition.objective.slope
    torch.testing.assert_close(again.detach(), slope)


def test_the_bound_counts_the_mask_by_the_element_that_it_hides():
    objective = NotMIWAE(samples=4, event=(3,), real=[True, False, True])
    with torch.no_grad():
        objective.slower_slope.copy_(torch.tensor([2.0, 5.0, -1.0]) / FASTER)
        objective.slower_bias.copy_(torch.tensor([0.5, -1.0, 0.0]) / FASTER)
    x = torch.tensor([[[1.0, 3.0, 2.0]]])
    missing = torch.tensor([[True, False, False]])
    p = torch.sigmoid(torch.tensor([2.5, -1.0, -2.0]))  # the second is no real number: its own value does not matter
    want = torch.log(p[0]) + torch.log(1 - p[1]) + torch.log(1 - p[2])
    assert objective.log_mask(x, missing).item() == pytest.approx(float(want), abs=1e-6)


def test_only_real_numbers_are_missing_by_their_value(tmp_path):
    """Draws of counts and of yes/no values carry no gradient to the model, so their slopes are 0."""
    rng = np.random.default_rng(0)
    gaps = rng.random((60, 3)) < 0.2
    for x, kind in ((rng.poisson(3, (60, 3)), "counts"), (rng.random((60, 3)) < 0.5, None)):
        data = vk.from_arrays(np.where(gaps, np.nan, x.astype(np.float32)), kind=kind, missing="mask")
        run = vk.fit(data, "vae", objective="not-miwae", samples=2, steps=3, hidden=[4], latent=1, compile="off",
                     progress=False, out=tmp_path / str(kind))  # fmt: skip
        assert run.composition.objective.slope.abs().max() == 0
        assert run.composition.objective.bias.abs().max() > 0
