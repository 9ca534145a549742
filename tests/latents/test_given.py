"""Hidden values given the visible ones: closed forms, quadrature, and what the commands write."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from torch import nn

import vaekit as vk
from vaekit import toys
from vaekit.cli import main
from vaekit.cli.sources import given_values
from vaekit.data.core import Column
from vaekit.data.observation import Centred, Standardised
from vaekit.errors import ChoiceError, DataError
from vaekit.heads import Conditional, Gaussian
from vaekit.heads.mixed import MixedHead
from vaekit.latents import given as given_module
from vaekit.latents.conditional import WIDER, _Gaussian, averaged, candidates, draw_numbers, resampled, visible_log_prob
from vaekit.latents.coverage import calibrated, coverage
from vaekit.latents.given import _of_features, fill_rows
from vaekit.models.priors import StandardNormal
from vaekit.models.vae import VAE
from vaekit.networks import MLP
from vaekit.noise import Mirrored, Noise


@pytest.fixture(scope="module", params=["complete", "holes"])
def linear(request, tmp_path_factory):
    """A linear Gaussian model, trained on complete rows or on rows with missing values."""
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6)) + 0.5 * rng.normal(size=(300, 6))).astype(np.float32)
    if request.param == "holes":
        x[rng.random(x.shape) < 0.15] = np.nan
    data = vk.from_arrays(2 * x + 7, **({"missing": "mask"} if request.param == "holes" else {}))
    out = tmp_path_factory.mktemp("runs") / request.param
    options = {"network": "dense", "hidden": [], "latent": 2, "likelihood": "gaussian", "sigma": "shared"}
    return vk.fit(data, "vae", out=out, steps=200, lr=0.02, compile="off", progress=False, **options)


def exact(run, raw, hidden):
    """Mean (N, H) and covariance (H, H) of the hidden elements in closed form, and log p(x_visible)."""
    with torch.no_grad():
        px = run.model.decode(torch.cat([torch.zeros(1, 2), torch.eye(2)]))
    px = getattr(px, "whole", px).base_dist
    mean, sigma = px.mean.double().numpy(), px.stddev[0].double().numpy()
    w, b = (mean[1:] - mean[0]).T, mean[0]
    joint = w @ w.T + np.diag(sigma**2)
    h, v = np.flatnonzero(hidden), np.flatnonzero(~hidden)
    inverse = np.linalg.inv(joint[np.ix_(v, v)])
    observation = run.composition.observation
    off = observation(torch.from_numpy(raw)).double().numpy()[:, v] - b[v]
    unit, centre = observation.std.double().numpy()[h], observation.mean.double().numpy()[h]
    covariance = joint[np.ix_(h, h)] - joint[np.ix_(h, v)] @ inverse @ joint[np.ix_(v, h)]
    log_p = -0.5 * (np.einsum("ni,ij,nj->n", off, inverse, off) + np.linalg.slogdet(2 * np.pi * joint[np.ix_(v, v)])[1])
    conditional = b[h] + off @ (joint[np.ix_(h, v)] @ inverse).T
    return conditional * unit + centre, covariance * np.outer(unit, unit), log_p


def test_draws_intervals_and_best_values_are_those_of_the_linear_gaussian_conditional(linear):
    hidden = np.array([False, True, False, True, True, False])
    raw = (7 + 2 * np.random.default_rng(3).normal(size=(40, 6))).astype(np.float32)
    mean, covariance, log_p = exact(linear, raw, hidden)
    spread = np.sqrt(np.diag(covariance))
    changed = np.where(hidden, np.float32(1000), raw)  # hidden values are not used
    found = fill_rows(linear, changed, hidden, draws=400, interval=0.8)
    # 400 draws with an effective sample size above 100: errors of a mean below 0.1 spreads, of a deviation 5 %
    assert found.effective.min() > 100
    assert np.abs((found.filled[:, hidden] - mean) / spread).mean() < 0.07
    deviations = (found.draws[..., hidden] - mean) / spread
    assert abs(deviations.mean()) < 0.02
    np.testing.assert_allclose(deviations.std((0, 1)), 1, atol=0.05)
    got = np.cov(deviations.reshape(-1, 3).T)
    np.testing.assert_allclose(got, covariance / np.outer(spread, spread), atol=0.06)
    np.testing.assert_array_equal(found.draws[..., ~hidden], np.broadcast_to(raw[:, ~hidden], (400, 40, 3)))
    np.testing.assert_allclose(((found.low[:, hidden] - mean) / spread).mean(), -1.2816, atol=0.05)
    np.testing.assert_allclose(((found.high[:, hidden] - mean) / spread).mean(), 1.2816, atol=0.05)
    assert np.isnan(found.low[:, ~hidden]).all()
    assert np.isnan(found.high[:, ~hidden]).all()
    np.testing.assert_allclose(found.bound, log_p, atol=0.3)
    assert abs((found.bound - log_p).mean()) < 0.03
    median = linear.fill(changed, hidden, best="median").filled[:, hidden]
    assert np.abs((median - mean) / spread).mean() < 0.25
    gaps = np.where(hidden, np.nan, raw)
    np.testing.assert_array_equal(linear.fill(gaps, draws=2).filled, linear.fill(changed, hidden, draws=2).filled)


def test_rows_drawn_given_some_values_have_their_conditional_distribution(linear):
    given = {0: 9.0, 3: 4.0}
    if not linear.columns:
        given = {f"x{i}": value for i, value in given.items()}
    hidden = np.array([False, True, True, False, True, True])
    row = np.array([[9.0, 0, 0, 4.0, 0, 0]], np.float32)
    mean, covariance, _ = exact(linear, row, hidden)
    x = linear.sample(4000, given=given, noise=True, seed=1)
    np.testing.assert_array_equal(x[:, ~hidden], np.broadcast_to([9, 4], (4000, 2)))
    spread = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((x[:, hidden].mean(0) - mean[0]) / spread, 0, atol=0.07)
    np.testing.assert_allclose(np.cov(x[:, hidden].T) / np.outer(spread, spread), covariance / np.outer(spread, spread),
                               atol=0.1)  # fmt: skip
    for wrong, said in (({"x9": 1}, "x9"), ({"x0": "many"}, "x0"), ({}, "no column")):
        with pytest.raises((ChoiceError, DataError), match=said):
            linear.sample(2, given=wrong)
    with pytest.raises(ChoiceError, match="temperature"):
        linear.sample(2, given=given, temperature=0.5)


def test_intervals_of_a_model_of_its_own_data_cover_what_they_should(linear):
    gaps = np.random.default_rng(0).random((300, 6)) < 0.3
    raw = linear.observed("train").raw(np.arange(linear.observed("train").n)).astype(float)
    cells = gaps[: len(raw)] & ~np.isnan(raw)
    filled = fill_rows(linear, raw, cells, interval=0.9)
    held = ((filled.low <= raw) & (raw <= filled.high))[cells]
    # above 300 cells, up to six in a row share a code: a standard deviation of about 0.02
    assert abs(held.mean() - 0.9) < 0.05
    patterns = [np.random.default_rng(seed).random((300, 6)) < 0.3 for seed in range(12)]
    found = [coverage(linear, pattern, interval=0.9) for pattern in patterns]
    assert found[0].categories is None
    assert found[0].rows > 10
    # one pattern has about 50 cells, and as many calibrate its intervals: a deviation of 0.06; all share their rows
    assert abs(np.mean([one.numbers.value for one in found]) - 0.9) < 0.06


def test_intervals_of_a_model_that_is_too_sure_are_widened(linear):
    head = linear.model.likelihood.head
    scale = next(p for name, p in head.named_parameters() if name.endswith("log_scale"))
    gaps = np.random.default_rng(0).random((50, 6)) < 0.3
    kept = scale.detach().clone()
    try:
        with torch.no_grad():
            scale -= 1.5
        stretch = calibrated(linear, gaps, interval=0.9)
        assert stretch.factor > 1.5
        raw = linear.observed("test").raw(np.arange(linear.observed("test").n))
        cells = gaps[: len(raw)] & ~np.isnan(raw)
        sure, wide = fill_rows(linear, raw, cells, interval=0.9), linear.fill(raw, cells, interval=0.9)
        held = [((f.low <= raw) & (raw <= f.high))[cells].mean() for f in (sure, wide)]
        assert held[0] < 0.7 < 0.8 < held[1]
        np.testing.assert_array_equal(sure.filled, wide.filled)
        assert coverage(linear, gaps, interval=0.9).numbers.value > 0.8
    finally:
        with torch.no_grad():
            scale.copy_(kept)


def by_quadrature(model, x, visible):
    """p(z | x_visible) at the nodes of a grid, with its cell, and log p(x_visible)."""
    grid = toys.Quadrature.over(model.prior().event_shape.numel())
    with torch.no_grad():
        px = model.decode(grid.z[:, None].to(x.dtype))
        joint = model.prior().log_prob(grid.z)[:, None] + visible_log_prob(px, x, visible).double()
    log_px = torch.logsumexp(joint, 0) + np.log(grid.cell)
    return grid, torch.exp(joint - log_px) * grid.cell, log_px


def test_importance_weights_find_every_mode_of_a_curved_model():
    model = toys.curve(sigma=0.2)
    _, x = toys.sample(model, 12, seed=5)
    visible = torch.tensor([True, False]).expand(12, 2)
    grid, mass, log_px = by_quadrature(model, x, visible)
    want = torch.einsum("mb,mi->bi", mass, model.decode(grid.z).mean.detach())
    found = candidates(model, x, visible, holes=False, samples=20_000, noise=Noise.of(0, 12))
    torch.testing.assert_close(found.log_px, log_px, atol=0.12, rtol=0)
    means = model.decode(found.z).mean.detach()
    got = (found.log_weight.exp()[..., None] * means).sum(0)
    assert (got - want)[:, 1].abs().max() < 0.12  # the hidden coordinate, whose two modes are 2 apart
    torch.testing.assert_close(found.log_weight.exp().sum(0), torch.ones(12, dtype=torch.float64))


def test_categories_counts_and_numbers_have_their_conditional_probabilities():
    columns = [Column("kind", "categorical", ("a", "b", "c")), Column("size", "real"), Column("yes", "binary")]
    torch.manual_seed(2)
    head = MixedHead(columns)
    net = MLP((1,), head.features, (8,), "tanh")
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(3)
    posterior = Conditional(nn.Sequential(nn.Linear(3, 2)), Gaussian((1,)))
    model = VAE(StandardNormal((1,)), posterior, Conditional(net, head))
    x = torch.tensor([[0.0, 0.3, 1.0], [2.0, -1.0, 0.0]])
    visible = torch.tensor([[False, True, True], [True, False, False]])
    grid, mass, log_px = by_quadrature(model, x, visible)
    found = candidates(model, x, visible, holes=False, samples=6000, noise=Noise.of(1, 2))
    torch.testing.assert_close(found.log_px.double(), log_px, atol=0.03, rtol=0)
    index = resampled(found.log_weight, 4000, Noise.of(2, 2))
    px = model.decode(found.z.take_along_dim(index[..., None], 0))
    whole = model.decode(grid.z.float())
    with torch.no_grad():
        logits = next(d.logits for which, d in whole.parts if which.tolist() == [0])
        want = mass[:, 0] @ torch.softmax(logits[:, 0], -1).double()
        got_logits = next(d.logits for which, d in px.parts if which.tolist() == [0])
        got = torch.softmax(got_logits[:, 0, 0], -1).mean(0).double()
        torch.testing.assert_close(got, want, atol=0.03, rtol=0)
        assert averaged(px)[0, 0] == want.argmax()
        size = mass[:, 1] @ whole.mean[:, 1].double()
        assert abs(averaged(px)[1, 1] - size) < 0.05


def test_draws_and_means_of_a_mixed_table_are_on_the_device_of_the_model():
    columns = [Column("town", "categorical", ("a", "b")), Column("yes", "binary", ("no", "yes"))]
    for some in (columns, [*columns, Column("size", "real")]):
        head = MixedHead(columns=some).to("meta")
        px = head(torch.zeros(3, 2, head.features, device="meta"))
        noise = Noise.of(0, 2, device="meta")
        assert draw_numbers(px, noise).device.type == averaged(px).device.type == "meta"


def test_resampling_follows_the_weights_in_any_order():
    weight = torch.tensor([[0.1, 0.7], [0.2, 0.1], [0.7, 0.2]])
    index = resampled(weight.log(), 1000, Noise.of(0, 2))
    shares = torch.stack([(index == k).float().mean(0) for k in range(3)])
    torch.testing.assert_close(shares, weight, atol=2e-3, rtol=0)  # systematic: within one draw of the expectation
    first = torch.stack([(index[:100] == k).float().mean(0) for k in range(3)])
    torch.testing.assert_close(first, weight, atol=0.17, rtol=0)  # any part of them is a fair sample


def test_few_samples_and_a_nearly_singular_proposal():
    model, x = VAE(StandardNormal((1,)), nn.Identity(), nn.Identity()), torch.zeros(1, 2)
    with pytest.raises(ChoiceError, match="`samples` must be 8 or more, got 3"):
        candidates(model, x, x == 0, holes=False, samples=3, noise=Noise.of(0, 1))
    means = torch.tensor([[3e4, 1e4, -2e4], [1e4, 2e4, 3e4]])  # codes far out
    covariance = torch.stack([torch.einsum("mi,mj->ij", means, means), 2 * torch.eye(3)])
    covariance[0, 0, 1] = covariance[0, 1, 0] = covariance[0, 0, 1] * 1.5  # indefinite, as rounding errors can leave it
    found = _Gaussian.fitted(torch.zeros(2, 3), covariance)
    torch.testing.assert_close(found.factor[1], WIDER * 2**0.5 * torch.eye(3))
    torch.testing.assert_close(found.factor[0].square().sum(-1), WIDER**2 * covariance[0].diagonal())


def test_mirrored_noise_is_the_antithetic_partner():
    noise = Noise.of(0, 5)
    noise.normal((2,))
    partner = Mirrored(noise)
    torch.testing.assert_close(partner.normal((3,), 4), -noise.normal((3,), 4))
    torch.testing.assert_close(partner.uniform((3,)), 1 - noise.uniform((3,)))


# --- the commands -----------------------------------------------------------------------------------------------


def write(path, names, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([names, *rows])


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A run on complete rows: the town decides the rent, rooms are whole numbers."""
    rng = np.random.default_rng(0)
    town = rng.integers(0, 3, 400)
    rooms = rng.integers(1, 7, 400)
    rent = 300 * town + 80 * rooms + 15 * rng.normal(size=400)
    names = np.array(["Port, West", "Hill", "Lake"])[town]
    rows = [[names[i], int(rooms[i]), f"{rent[i]:.2f}", "yes" if town[i] else "no"] for i in range(400)]
    folder = tmp_path_factory.mktemp("table")
    write(folder / "homes.csv", ["town", "rooms", "rent", "lift"], rows)
    fit = [
        "fit",
        str(folder / "homes.csv"),
        "--latent",
        "3",
        "--steps",
        "500",
        "--hidden",
        "32",
        "--compile",
        "off",
        "--lr",
        "0.01",
    ]
    assert main([*fit, "--out", str(folder / "run")]) == 0
    return folder, rows


def test_fill_writes_completed_tables_and_measured_intervals(table, capsys, monkeypatch):
    folder, rows = table
    monkeypatch.chdir(folder)
    gaps = [
        [f"id{i}", *(("" if (i + j) % 3 == 0 else v) for j, v in enumerate(row))] for i, row in enumerate(rows[:60])
    ]
    write("gaps.csv", ["id", "town", "rooms", "rent", "lift"], gaps)
    capsys.readouterr()
    command = ["fill", "run", "gaps.csv", "--draws", "20", "--interval", "0.9", "--out"]
    assert main([*command, "all.csv"]) == 0
    said = capsys.readouterr().err
    assert "90% intervals hold" in said
    assert "the most likely category is right for" in said
    full = read("all.csv")
    assert [int(row["draw"]) for row in full] == [m for m in range(20) for _ in range(60)]
    assert [row["id"] for row in full] == [f"id{i}" for i in range(60)] * 20
    inside = []
    for k, row in enumerate(full):
        i = k % 60
        for j, name in enumerate(("town", "rooms", "rent", "lift")):
            if gaps[i][1 + j] != "":
                assert row[name] == str(gaps[i][1 + j])
                assert row.get(f"{name} low", "") == ""
        assert row["town"] in ("Port, West", "Hill", "Lake")
        assert row["lift"] in ("yes", "no")
        assert 1 <= int(row["rooms"]) <= 6
        if gaps[i][3] == "":
            assert float(row["rent low"]) <= float(row["rent high"])
            if k < 60:
                inside.append(float(row["rent low"]) <= float(rows[i][2]) <= float(row["rent high"]))
    assert np.mean(inside) > 0.6
    draws = np.array([float(row["rent"]) for row in full]).reshape(20, 60)
    hidden = np.array([row[3] == "" for row in gaps])
    assert (np.ptp(draws[:, hidden], 0) > 0).all()
    assert (np.ptp(draws[:, ~hidden], 0) == 0).all()
    assert main([*command, "all.npz"]) == 0
    with np.load("all.npz") as file:
        assert file["draws"].shape == (20, 60, 4)
        assert file["low"].shape == (60, 4)
    assert main(["fill", "run", "gaps.csv", "--best", "median", "--out", "best.csv"]) == 0
    assert len(read("best.csv")) == 60


def test_fill_takes_arrays_with_holes_and_names_mistakes(table, capsys, monkeypatch):
    folder, _ = table
    monkeypatch.chdir(folder)
    x = vk.open("run").observed("test").raw(np.arange(6)).astype(np.float32)
    x[0, 2] = x[3, 1] = np.nan
    np.save("x.npy", x)
    assert main(["fill", "run", "x.npy", "--draws", "3", "--out", "x.csv"]) == 0
    assert len(read("x.csv")) == 18
    capsys.readouterr()
    for wrong, said in ((["--interval", "95"], "--interval"), (["--draws", "0"], "--draws"), (["--best", "x"], "best")):
        assert main(["fill", "run", "x.npy", *wrong, "--out", "x.csv"]) == 2
        assert said in capsys.readouterr().err


def test_sample_given_values(table, capsys, monkeypatch):
    folder, _ = table
    monkeypatch.chdir(folder)
    assert main(["sample", "run", "-n", "40", "--given", 'town="Port, West",rooms=2', "--out", "s.csv"]) == 0
    new = read("s.csv")
    assert {(row["town"], row["rooms"]) for row in new} == {("Port, West", "2")}
    assert sum(row["lift"] == "no" for row in new) > 30  # as in the data, where every home of this town has none
    run = vk.open("run")
    python = run.sample(40, given={"town": "Port, West", "rooms": 2})
    np.testing.assert_allclose(python[:, 2], [float(row["rent"]) for row in new], rtol=1e-5)
    capsys.readouterr()
    for given, said in (
        ("twon=Hill", "did you mean 'town'"),
        ("town=Rome", "expected one of"),
        ("rooms=two", "column 'rooms' is 'two'"),
        ("town", "COLUMN=VALUE"),
    ):
        assert main(["sample", "run", "--given", given, "--out", "s.csv"]) == 2
        assert said in capsys.readouterr().err
    assert main(["sample", "run", "--given", "rooms=2", "--temperature", "0.5", "--out", "s.csv"]) == 2


def test_given_values_may_be_quoted():
    assert given_values('age=30, sex=Female,"a,b"="x, y",income=<=50K') == {
        "age": "30", "sex": "Female", "a,b": "x, y", "income": "<=50K"
    }  # fmt: skip
    with pytest.raises(ChoiceError, match="two values"):
        given_values("a=1,a=2")


def test_a_condition_among_the_given_values_is_the_label(table, monkeypatch):
    folder, _ = table
    out = folder / "conditional"
    run = vk.fit(folder / "homes.csv", condition="town", latent=2, hidden=[16], steps=60, out=out, compile="off",
                 progress=False)  # fmt: skip
    x = run.sample(5, given={"town": "Hill", "rooms": 3}, noise=True)
    np.testing.assert_array_equal(x, run.sample(5, given={"rooms": 3}, labels="Hill", noise=True))
    assert (x[:, 0] == 3).all()
    with pytest.raises(ChoiceError, match="give it once"):
        run.sample(5, given={"town": "Hill", "rooms": 3}, labels="Lake")
    in_turn = run.sample(6, given={"rooms": 3})
    assert in_turn.shape == (6, 3)
    monkeypatch.setattr(given_module, "CODES", given_module.NEW_SAMPLES)  # one condition at a time
    np.testing.assert_allclose(run.sample(6, given={"rooms": 3}), in_turn, rtol=1e-4)


def test_single_cells_have_the_units_of_their_columns():
    g = torch.Generator().manual_seed(0)
    raw = torch.stack([torch.randn(500, generator=g), torch.exp(2 * torch.randn(500, generator=g))], 1).double()
    columns = torch.tensor([1, 0, 1, 1])
    for observation in (Standardised((2,), double=True, far=0.05), Standardised((2,)), Centred((2,))):
        observation.fit(lambda: [raw])
        x = observation(raw)
        cells = _of_features(observation, columns).to_raw(x[:, columns])
        torch.testing.assert_close(cells, observation.to_raw(x)[:, columns], rtol=0, atol=0)
