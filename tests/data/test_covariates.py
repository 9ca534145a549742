"""Conditions: several covariates of both kinds, as columns of a table or beside the data."""

import numpy as np
import pytest
from core_helpers import QUIET

import vaekit as vk
from vaekit.cli import main
from vaekit.data.condition import set_apart
from vaekit.data.covariates import Covariate, Covariates
from vaekit.errors import ChoiceError
from vaekit.recipes import DataSpec

BOTH = Covariates.of_columns([Covariate("batch", ("A", "B")), Covariate("mito", (), 3.0, 2.0)])
N = 60
RNG = np.random.default_rng(0)
COLUMNS = {"batch": np.array(["AB"[i % 2] for i in range(N)]), "mito": RNG.random(N) * 9, "many": np.arange(N) * 3}


def test_classes_and_numbers_side_by_side():
    c = BOTH.encoded({"mito": [3.0, 7.0], "batch": ["B", "A"]}, 2)
    np.testing.assert_array_equal(c, [[0, 1, 0], [1, 0, 2]])
    np.testing.assert_array_equal(BOTH.encoded(BOTH.decoded(c)), c)
    np.testing.assert_array_equal(BOTH.encoded({"mito": 5, "batch": "A"}, 2), [[1, 0, 1]] * 2)
    np.testing.assert_array_equal(BOTH.encoded(BOTH.read("mito=7, batch=B"), 1), [[0, 1, 2]])
    assert BOTH.names == ("batch=A", "batch=B", "mito")
    np.testing.assert_array_equal(BOTH.columns(c)["mito"], [3, 7])
    np.testing.assert_array_equal(BOTH.changed(c, {"batch": "A"}), [[1, 0, 0], [1, 0, 2]])
    with pytest.raises(ChoiceError, match="unknown covariate 'batches'"):
        BOTH.changed(c, {"batches": "A"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch": ["A"]}, "lack 'mito'; expected a value of each of batch"),
        ({"batch": ["A", "B"], "mito": [1.0, 2.0, 3.0]}, "one value for each of 2 rows"),
        ({"batch": ["C", "A"], "mito": 1.0}, "row 0 is of class 'C'"),
        ({"batch": "A", "mito": [1.0, np.nan]}, "row 1 has no value of 'mito'"),
        ({"batch": "A", "mito": ["1.5", "x"]}, "must hold numbers, got 'x'"),
        (np.zeros((2, 3)), r"shape \(2, 2\), got \(2, 3\)"),
    ],
)
def test_covariates_that_do_not_fit(given, message):
    with pytest.raises(ChoiceError, match=message):
        BOTH.encoded(given, 2)


@pytest.mark.parametrize(
    ("given", "message"), [("batch=A", "lacks 'mito'"), ("batch=A,mito=x", "got 'x'"), ("a=1,mito=2", "unknown .* 'a'")]
)
def test_texts_that_do_not_fit(given, message):
    with pytest.raises(ChoiceError, match=message):
        BOTH.read(given)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    x = RNG.poisson(4.0, (N, 5)).astype(np.int32)
    data = vk.from_arrays(x, columns=COLUMNS)
    out = tmp_path_factory.mktemp("covariates") / "run"
    return vk.fit(data, condition="batch,mito", latent=2, hidden=(8,), steps=3, out=out, **QUIET)


def test_a_run_stores_its_covariates_and_takes_new_data_by_name(run):
    condition = vk.open(run.path).composition.condition
    assert condition == run.composition.condition
    rows = run.data.train.index
    assert condition.covariates[1].mean == pytest.approx(COLUMNS["mito"][rows].mean())
    raw, columns = run.data.test[:], run.data.test.columns
    expected = run.encode("test")
    by_name = {name: columns[name] for name in ("mito", "batch")}
    np.testing.assert_allclose(run.encode(raw, labels=by_name), expected, atol=1e-6)
    both = np.stack([columns["batch"], columns["mito"].astype(str)], 1)
    np.testing.assert_allclose(run.encode(raw, labels=both), expected, atol=1e-6)
    z = run.sample_latents(3, labels={"batch": "A", "mito": 4.0})
    np.testing.assert_allclose(condition.columns(z[:, 2:])["mito"], 4.0, rtol=1e-5)
    assert run.sample(4).shape == (4, 5)
    with pytest.raises(ChoiceError, match="conditional on columns: pass those"):
        run.encode(raw)


def test_columns_of_a_table_become_covariates(tmp_path):
    lines = [f"{a:.3f},{b:.3f},{g},{m:.3f}" for a, b, g, m in
             zip(RNG.random(N), RNG.random(N), COLUMNS["batch"], COLUMNS["mito"], strict=True)]  # fmt: skip
    (tmp_path / "a.csv").write_text("\n".join(["a,b,batch,mito", *lines]) + "\n")
    data = set_apart(vk.load(tmp_path / "a.csv"), "batch,mito")
    assert [column.name for column in data.schema] == ["a", "b"]
    assert DataSpec.of(data).categories == {"batch": ("A", "B")}
    run = vk.fit(tmp_path / "a.csv", condition="mito", latent=1, hidden=(4,), steps=2, out=tmp_path / "run", **QUIET)
    assert run.spec.shape == (3,)
    new = run.encode(str(tmp_path / "a.csv"))
    standardised = (COLUMNS["mito"] - run.spec.numbers["mito"][0]) / run.spec.numbers["mito"][1]
    np.testing.assert_allclose(new[:, -1], standardised, atol=1e-3)
    assert main(["encode", str(run.path), str(tmp_path / "a.csv"), "--out", str(tmp_path / "z.csv")]) == 0
    header = (tmp_path / "z.csv").read_text().split("\n")[0].split(",")
    assert [name for name in header if name[0] == "z"] == ["z0"]  # rows would differ in the condition


def test_unknown_columns_are_named(tmp_path):
    data = vk.from_arrays(RNG.poisson(4.0, (N, 5)).astype(np.int32), columns=COLUMNS)
    with pytest.raises(ChoiceError, match=r"no column 'donor' .*choose from label, batch, many, mito"):
        vk.fit(data, condition="batch,donor", steps=1, out=tmp_path / "run", **QUIET)
