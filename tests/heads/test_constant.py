"""Elements that are constant in the training data: fixed, with log-density 0, and an anomaly where they differ."""

import csv
import json

import numpy as np
import pytest
import torch

import vaekit as vk
from vaekit import heads
from vaekit.cli import main
from vaekit.data.core import Column
from vaekit.data.observation import Counts, MixedTable, Standardised
from vaekit.densities import draw
from vaekit.densities.mixed import DIFFERS
from vaekit.heads.mixed import Masked, MixedHead
from vaekit.noise import Noise
from vaekit.recipes.composition import DataSpec
from vaekit.recipes.inputs import adapt_inputs

QUIET = {"progress": False, "compile": "off"}
NAN = float("nan")


def test_a_held_element_has_probability_one_at_its_value():
    head = heads.Gaussian((4,), "learned")
    px = Masked(head, {1: 0.0, 3: 2.0})(torch.randn(2, 8, generator=torch.Generator().manual_seed(0)))
    others = torch.tensor([0, 2])
    x = torch.tensor([[0.3, 0.0, -1.0, 2.0], [0.3, 0.0, -1.0, 2.0]])
    expected = px.whole.base_dist.log_prob(x)[:, others].sum(1)
    torch.testing.assert_close(px.log_prob(x), expected)
    x[0, 1] = 0.5
    x[1, 1], x[1, 3] = 0.5, 0.0
    torch.testing.assert_close(px.log_prob(x) - expected, torch.tensor([-DIFFERS, -2 * DIFFERS]))
    x[:, 1] = NAN  # missing is not different
    torch.testing.assert_close(px.log_prob(x) - expected, torch.tensor([0.0, -DIFFERS]))
    for value in (px.mean, draw(px, Noise.of(0, 2)), px.expand((3, 2)).mean):
        assert (value[..., 1] == 0).all()
        assert (value[..., 3] == 2).all()
    assert px.variance[:, [1, 3]].tolist() == [[0, 0], [0, 0]]


def test_a_standardised_constant_comes_back_exactly_and_adds_no_units():
    """float32 cannot represent 0.1, and a mean of many values may differ from it: the value is stored, not measured."""
    raw = torch.tensor([[1.0, 0.1], [3.0, 0.1], [8.0, 0.1]])
    seen = Standardised((2,))
    assert seen.hold([(1, float(raw[0, 1]))]) == {1: 0.0}
    seen.fit(lambda: iter([raw]))
    x = seen(raw)
    assert (x[:, 1] == 0).all()
    assert (seen.to_raw(x + 5)[:, 1] == raw[:, 1]).all()
    assert float(seen.log_units((2,))[1]) == 0
    assert float(seen(torch.tensor([[1.0, 0.6]]))[0, 1]) == pytest.approx(0.5)  # in its own units
    assert seen.sound
    seen.std[0] = 0.0  # which only a damaged file has
    assert not seen.sound


@pytest.mark.parametrize(
    ("observation", "spec", "held"),
    [
        (Standardised((3,)), DataSpec("vector", (3,), 9, (0, 9), False, constant=((2, 7.0),)), {2: 0.0}),
        (Counts(), DataSpec("counts", (3,), 9, (0, 9), False, constant=((0, 0.0), (2, 7.0))), {2: 7.0}),
        (
            MixedTable((Column("a", "real"), Column("b", "binary"), Column("c", "counts"))),
            DataSpec("vector", (3,), 9, (0, 9), False, constant=((0, 5.0), (1, 1.0), (2, 7.0))),
            {0: 0.0, 2: 7.0},
        ),
    ],
)
def test_what_is_held(observation, spec, held):
    """Elements whose density can express a constant are not fixed: two-valued columns, and counts that are all 0."""
    head = MixedHead(observation.columns) if isinstance(observation, MixedTable) else heads.Gaussian((3,), "shared")
    values = adapt_inputs(spec, observation, head).head.held
    assert {i: float(v) for i, v in enumerate(values) if not torch.isnan(v)} == held
    assert DataSpec.from_json(json.loads(json.dumps(spec.as_json()))) == spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("constant")
    lines = [f"{a:.3f},7.1,{c:.3f}" for a, c in rng.normal(size=(200, 2))]
    (folder / "constant.csv").write_text("\n".join(["a,b,c", *lines]) + "\n")
    (folder / "new.csv").write_text("a,b,c\n0.1,7.1,0.2\n0.1,7.5,0.2\n")
    return folder


def test_a_constant_column_from_fit_to_score(folder, capsys):
    words = ["--latent", "2", "--hidden", "8", "--steps", "60", "--compile", "off"]
    run = str(folder / "run")
    assert main(["fit", str(folder / "constant.csv"), "--out", run, *words]) == 0
    assert "column 'b' is 7.1 in every training row" in capsys.readouterr().err
    assert main(["sample", run, "-n", "4", "--noise", "--out", str(folder / "s.csv")]) == 0
    with open(folder / "s.csv") as file:
        assert [row["b"] for row in csv.DictReader(file)] == ["7.1"] * 4
    capsys.readouterr()
    assert main(["score", run, str(folder / "new.csv"), "--out", str(folder / "n.csv")]) == 0
    assert "1 row differs from the training data in the constant column 'b'" in capsys.readouterr().err
    with open(folder / "n.csv") as file:
        same, other = (float(row["log_px"]) for row in csv.DictReader(file))
    assert other == pytest.approx(same - DIFFERS, abs=5)
    opened = vk.open(run)
    measured = {m["name"]: m["value"] for m in opened.evaluate(samples=10)}
    assert measured["elbo"] <= measured["log_px_iw"] + 1e-9
    assert abs(measured["log_px_iw"]) < 20
    hidden = np.array([[False, True, True]])
    filled = opened.fill(np.array([[0.1, 0.0, 0.0]], np.float32), hidden, draws=4).filled
    assert filled[0, 1] == np.float32(7.1)


def test_a_run_made_before_elements_were_held_stays_as_it_was(tmp_path, monkeypatch):
    x = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    x[:, 1] = 3.0
    with monkeypatch.context() as before:
        before.setattr("vaekit.recipes.composition._constant", lambda data: ())
        run = vk.fit(vk.from_arrays(x), "vae", latent=2, hidden=(4,), steps=5, out=tmp_path / "run", **QUIET)
    config = json.loads((run.path / "run.json").read_text())
    del config["data"]["facts"]["constant"]
    (run.path / "run.json").write_text(json.dumps(config))
    opened = vk.open(run.path)
    assert not isinstance(opened.composition.model.likelihood.head, Masked)
    np.testing.assert_array_equal(opened.score(x[:4], samples=5), run.score(x[:4], samples=5))


def test_constant_numbers_of_arrays(tmp_path):
    """For arrays and for tables, with and without missing values."""
    x = np.random.default_rng(2).normal(size=(80, 4)).astype(np.float32)
    x[:, 2] = -1.5
    for missing in ("refuse", "mask"):
        if missing == "mask":
            x[::7, 0] = np.nan
            x[::9, 2] = np.nan
        data = vk.from_arrays(x, missing=missing)
        run = vk.fit(data, "vae", latent=2, hidden=(4,), steps=5, out=tmp_path / missing, **QUIET)
        rows = np.array([[0, 0, -1.5, 0], [0, 0, 1, 0]], np.float32)
        same, other = run.score(rows, samples=20)
        assert other == pytest.approx(same - DIFFERS, abs=10)
        assert (run.sample(5, noise=True)[:, 2] == -1.5).all()
        assert (run.reconstruct("test")[:, 2] == -1.5).all()
