"""Rows with some values changed: the regression of a linear Gaussian model, quantiles, categories, and the command."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Normal

import vaekit as vk
from vaekit.cli import main
from vaekit.densities.counts import Poisson
from vaekit.densities.levels import Categorical
from vaekit.densities.mixed import Categories
from vaekit.errors import ChoiceError
from vaekit.latents.counterfactual import _moved
from vaekit.noise import Noise


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    """A linear Gaussian model."""
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6)) + 0.5 * rng.normal(size=(300, 6))).astype(np.float32)
    options = {"network": "dense", "hidden": [], "latent": 2, "likelihood": "gaussian", "sigma": "shared"}
    out = tmp_path_factory.mktemp("runs") / "linear"
    return vk.fit(vk.from_arrays(2 * x + 7), "vae", out=out, steps=100, lr=0.02, compile="off", progress=False,
                  observation="standardised", **options)  # fmt: skip


def test_the_other_values_of_a_linear_gaussian_row_follow_by_their_regression(linear):
    with torch.no_grad():
        px = linear.model.decode(torch.cat([torch.zeros(1, 2), torch.eye(2)])).base_dist
    mean, sigma = px.mean.double().numpy(), px.stddev[0].double().numpy()
    w = (mean[1:] - mean[0]).T
    unit = linear.composition.observation.std.double().numpy()
    joint = (w @ w.T + np.diag(sigma**2)) * np.outer(unit, unit)
    row, of = np.array([[5.0, 8, 7, 9, 6, 7.5]], np.float32), [0, 3]
    change = np.array([3.0, -2])
    want = row[0] + joint[:, of] @ np.linalg.solve(joint[np.ix_(of, of)], change)
    given = {"x0": 5 + change[0], "x3": 9 + change[1]}
    for like in (row, row[0]):
        found = linear.sample(5, like=like, given=given)
        np.testing.assert_array_equal(found[:, of], np.tile([8.0, 7.0], (5, 1)))
        # whatever code is drawn; the mean codes of about 1,000 effective draws differ by less than 0.03
        np.testing.assert_allclose(found, np.broadcast_to(want, (5, 6)), atol=0.15)
    np.testing.assert_allclose(linear.sample(3, like=row, given={"x0": 5, "x3": 9}), np.tile(row, (3, 1)), atol=1e-4)
    with pytest.raises(ChoiceError, match="add `given`"):
        linear.sample(3, like=row)
    with pytest.raises(ChoiceError, match="keep its own noise"):
        linear.sample(3, like=row, given=given, noise=False)


def test_values_keep_their_quantiles_and_categories_their_probabilities():
    n = 20_000
    noise = Noise.of(0, n)
    x = Normal(1.0, 2.0).sample((n, 1))
    moved = _moved(Normal(torch.ones(n, 1), 2.0), Normal(torch.full((n, 1), 5.0), 1.0), x, noise)
    torch.testing.assert_close(moved, 5 + (x - 1) / 2)
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.6, 0.2])
    before, after = (Categories(torch.log(v).expand(n, 1, 3)) for v in (p, q))
    x = torch.multinomial(p, n, replacement=True).float()[:, None]
    moved = _moved(before, after, x, noise)
    shares = torch.bincount(moved[:, 0].long(), minlength=3) / n
    torch.testing.assert_close(shares, q, atol=0.015, rtol=0)  # four standard deviations
    assert (moved == x).float().mean() == pytest.approx(0.7, abs=0.015)  # the largest possible share
    assert (moved[x == 2] == 2).all()
    yes = (torch.rand(n, 1, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    moved = _moved(Bernoulli(torch.full((n, 1), 0.4)), Bernoulli(torch.full((n, 1), 0.7)), yes, noise)
    assert moved.mean() == pytest.approx(0.7, abs=0.015)
    assert moved[yes == 1].all()
    count = torch.poisson(torch.full((n, 1), 3.0), generator=torch.Generator().manual_seed(1))
    rates = [Poisson(torch.log(torch.full((n, 1), rate))) for rate in (3.0, 8.0)]
    moved = _moved(*rates, count, noise)
    assert (moved >= count).all()
    assert moved.mean() == pytest.approx(8, abs=0.1)
    assert moved.var() == pytest.approx(8, abs=0.4)


def test_counts_beyond_the_table_of_quantiles_and_levels():
    noise, count = Noise.of(0, 3), torch.tensor([[2900.0], [3000.0], [3110.0]])
    p, q = (Poisson(torch.log(torch.full((3, 1), rate))) for rate in (3000.0, 6000.0))
    for before, after, x in ((p, q, count), (q, p, 2 * count)):
        moved = _moved(before, after, x, noise)
        want = after.mean + after.stddev * (x - before.mean) / before.stddev  # both are nearly normal
        torch.testing.assert_close(moved, want, atol=2, rtol=0)
    levels = Categorical(torch.zeros(3, 1, 4))
    same = _moved(levels, levels, torch.tensor([[0.0], [2.0], [3.0]]), noise)
    assert same.flatten().tolist() == [0, 2, 3]


def test_versions_of_a_row_of_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    town, rooms = rng.integers(0, 3, 400), rng.integers(1, 7, 400)
    rent = 300 * town + 80 * rooms + 15 * rng.normal(size=400)
    names = np.array(["Port", "Hill", "Lake"])[town]
    with open("homes.csv", "w", newline="") as file:
        rows = [[names[i], int(rooms[i]), f"{rent[i]:.2f}"] for i in range(400)]
        csv.writer(file).writerows([["town", "rooms", "rent"], *rows])
    words = ["--latent", "2", "--steps", "400", "--hidden", "32", "--compile", "off", "--lr", "0.01"]
    assert main(["fit", "homes.csv", "--out", "run", *words]) == 0
    like = int(np.flatnonzero((town == 0) & (rooms == 3))[0])
    command = ["sample", "run", "-n", "30", "--like", f"homes.csv:{like}", "--given", "town=Lake", "--out", "new.csv"]
    assert main(command) == 0
    with open("new.csv", newline="") as file:
        new = list(csv.DictReader(file))
    assert {row["town"] for row in new} == {"Lake"}
    rents = np.array([float(row["rent"]) for row in new])
    assert np.median(rents) > rent[like] + 200  # homes at the lake cost 600 more
    capsys.readouterr()
    assert main(["sample", "run", "--like", "3"]) == 2
    assert main([*command, "--mean"]) == 2
    assert "--given" in capsys.readouterr().err
    conditional = vk.fit("homes.csv", condition="town", latent=2, hidden=[16], steps=100, out="c", compile="off",
                         progress=False)  # fmt: skip
    row = np.array([[3, rent[like]]], np.float32)
    moved = conditional.sample(4, like=row, given={"town": "Lake"}, labels="Port")
    assert (moved[:, 1] > rent[like] + 200).all()
    same = conditional.sample(4, like=row, given={"town": "Port"}, labels="Port")
    np.testing.assert_allclose(same, np.tile(row, (4, 1)), rtol=0.05)
