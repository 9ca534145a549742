"""Normalised expression, differential expression with its measured false discovery rate, and cells with other genes."""

from dataclasses import replace

import numpy as np
import pytest
from core_helpers import QUIET
from scipy import sparse

import vaekit as vk
from vaekit.data.arrays import in_order
from vaekit.data.source import Source
from vaekit.data.sparse import Sparse
from vaekit.errors import ChoiceError, DataError
from vaekit.expression import shares
from vaekit.expression.differential import calls

N, D, MARKERS = 240, 30, 6
RNG = np.random.default_rng(0)
KIND = np.arange(N) % 2
BATCH = (np.arange(N) // 2) % 2
LOG = RNG.normal(0, 0.7, D) * (np.arange(D) >= 2 * MARKERS) + np.zeros((N, 1))
SIGNS = np.where(np.arange(MARKERS) % 2, 0.8, -0.8)  # as many up as down, so that the shares of other genes stay
LOG[:, :MARKERS] += SIGNS * (2 * KIND[:, None] - 1)
LOG[:, MARKERS : 2 * MARKERS] += SIGNS * (2 * BATCH[:, None] - 1)  # differ between batches only
RATES = np.exp(LOG) / np.exp(LOG).sum(1, keepdims=True) * RNG.lognormal(5.5, 0.4, (N, 1))
COUNTS = RNG.poisson(RATES).astype(np.int32)
COLUMNS = {
    "kind": np.array(["A", "B"])[KIND],
    "batch": np.array(["x", "y"])[BATCH],
    "noise": np.array(["p", "q"])[RNG.integers(0, 2, N)],
}
GENES = [f"g{i}" for i in range(D)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run conditional on the batch, whose total is known."""
    data = vk.from_arrays(COUNTS, columns=COLUMNS, feature_names=GENES, label=COLUMNS["kind"])
    choices = {"condition": "batch", "library": "observed", "latent": 3, "hidden": (24,), "steps": 250, "batch": 60}
    return vk.fit(data, out=tmp_path_factory.mktemp("cells") / "run", lr=5e-3, **choices, **QUIET)


def test_normalised_expression_has_one_total(run):
    x = run.normalised("test", size=1000)
    np.testing.assert_allclose(x.sum(1), 1000, rtol=1e-4)
    z = run.encode("test")
    np.testing.assert_allclose(x, 1000 * shares(run, z).numpy(), rtol=1e-5)
    as_x, as_y, own = (run.normalised("test", as_if=batch)[:, MARKERS + 1] for batch in ("x", "y", None))
    np.testing.assert_allclose(np.where(run.data.test.columns["batch"] == "x", as_x, as_y), own, rtol=1e-4)
    assert (as_y > 1.5 * as_x).all()
    assert run.latents_of(run.encode("test")).shape[1] == 3  # neither the total nor the batch, in which rows differ
    many = run.normalised("test", size=1000, draws=3)
    np.testing.assert_allclose(many.sum(1), 1000, rtol=1e-4)
    assert np.abs(many - x).max() > 0


def test_differential_expression_finds_the_markers(run):
    found = run.differential("B", "A", by="kind", draws=20, permutations=10)
    assert found.called[:MARKERS].all()
    assert not found.called[MARKERS : 2 * MARKERS].any()  # batches are no difference between groups
    assert found.called[2 * MARKERS :].sum() <= 1
    assert (found.fold[:MARKERS] * SIGNS > 0.8).all()  # the truth is 2.3; few steps shrink it
    assert (found.low <= found.fold).all()
    assert (found.fold <= found.high).all()
    assert found.false_discovery_rate <= 0.2
    assert found.rows == (N // 2, N // 2)
    table = found.table()
    assert set(table["feature"][:MARKERS]) == set(GENES[:MARKERS])
    assert "measured false discovery rate" in str(found)
    by_label = run.differential("B", draws=20, permutations=10)  # kind is also the label, and A are all others
    np.testing.assert_array_equal(by_label.fold, found.fold)


def test_groups_that_do_not_differ_are_not_called(run):
    found = run.differential("p", "q", by="noise", draws=20, permutations=5)
    assert found.called.sum() <= 1
    assert found.false_discovery_rate <= 1
    some = replace(found, called=np.arange(D) < 4, permuted=np.array([1, 0, 2]))
    assert some.false_discovery_rate == 1 / 4
    assert replace(some, called=np.zeros(D, bool)).false_discovery_rate == 0  # nothing is discovered


def test_calls_keep_the_expected_rate():
    p = np.array([0.5, 1.0, 0.99, 0.9, 0.0])
    np.testing.assert_array_equal(calls(p, 0.05), [False, True, True, True, False])  # mean of 0, .01, .1 is .037
    np.testing.assert_array_equal(calls(p, 0.0), [False, True, False, False, False])
    assert not calls(p[3:], 0.05).any()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": "C", "by": "kind"}, "group of kind 'C'"),
        ({"a": "A", "b": "A", "by": "kind"}, "choose two"),
        ({"a": "A", "by": "other"}, "no such column; they have kind, batch"),
        ({"a": "x", "by": "batch"}, "conditional on 'batch'"),
    ],
)
def test_groups_that_do_not_exist(run, given, message):
    with pytest.raises(ChoiceError, match=message):
        run.differential(**given)


@pytest.mark.parametrize("stored", [np.asarray, lambda x: Sparse(sparse.csr_array(x))])
def test_columns_are_matched_by_name(stored):
    x = COUNTS[:4, :6].astype(np.float32)
    source = Source(stored(x), feature_names=["a", "b", "c", "d", "e", "f"])
    mapped = in_order(source, ["c", "new", "a", "f"], "cells", 0.0)
    np.testing.assert_array_equal(np.asarray(mapped.x[:]), np.stack([x[:, 2], 0 * x[:, 2], x[:, 0], x[:, 5]], 1))
    assert isinstance(mapped.x, type(source.x))
    assert "1 of 4 columns are absent and taken as 0 (new)" in mapped.notes
    assert "3 columns are not in the model and not used" in mapped.notes
    missing = in_order(source, ["c", "new", "a"], "cells", np.nan).x[:]
    assert np.isnan(missing[:, 1]).all()
    np.testing.assert_array_equal(missing[:, [0, 2]], x[:, [2, 0]])
    with pytest.raises(DataError, match="only 1 of the 3 columns"):
        in_order(source, ["a", "x", "y"], "cells", 0.0)
    with pytest.raises(DataError, match="no column 'new'"):
        in_order(source, ["c", "new"], "cells")


def test_a_query_with_other_genes(run, tmp_path, capsys):
    order = np.array([*range(D - 1, 2, -1)])
    names = np.array([*(GENES[i] for i in order), "other"])
    query = np.c_[COUNTS[:8, order], np.full(8, 7)]
    np.savez(tmp_path / "query.npz", counts=query, genes=names, batch=COLUMNS["batch"][:8])
    z = run.encode(str(tmp_path / "query.npz"))
    whole = COUNTS[:8].copy()
    whole[:, :3] = 0
    np.testing.assert_allclose(z, run.encode(whole, labels=COLUMNS["batch"][:8]), atol=1e-6)
    notes = capsys.readouterr().err
    assert "3 of 30 columns are absent and taken as 0 (g0, g1, g2)" in notes
    assert "1 column is not in the model and not used" in notes


def test_de_command(run, tmp_path, capsys):
    from vaekit.cli import main

    np.savez(tmp_path / "new.npz", counts=COUNTS, genes=np.array(GENES), **COLUMNS)
    words = ["de", str(run.path), str(tmp_path / "new.npz"), "--groups", "B,A", "--by", "kind", "--draws", "10"]
    assert main([*words, "--permutations", "3", "--out", str(tmp_path / "de.csv")]) == 0
    shown = capsys.readouterr().out
    assert "expected false discovery rate of 5%" in shown
    assert "measured false discovery rate" in shown
    lines = (tmp_path / "de.csv").read_text().splitlines()
    assert lines[0].startswith("feature,log2_fold,low,high,probability,bayes_factor")
    assert {line.split(",")[0] for line in lines[1 : MARKERS + 1]} == set(GENES[:MARKERS])
