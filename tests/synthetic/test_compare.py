"""Synthetic rows compared with a run's: the measures by name, the page, the command and what each refuses."""

import json

import numpy as np
import pytest
from core_helpers import QUIET, blobs

import vaekit as vk
from vaekit.cli import main
from vaekit.data.core import Column
from vaekit.errors import ChoiceError, DataError
from vaekit.report import blocks
from vaekit.report.synthetic import conclusion, interval, without
from vaekit.synthetic import Estimate, Measure, compare_tables, features, fidelity, of_run, table_columns, usefulness

N = 240
HOSTILE = "<b>c"


@pytest.fixture(scope="module", autouse=True)
def small():
    """Fewer trees, bootstrap draws and dots than users get, for speed."""
    from vaekit.figures import figure_png

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "ROUNDS", 5)
        patch.setattr(fidelity, "DRAWS", 8)
        patch.setattr(usefulness, "DRAWS", 8)
        patch.setattr(of_run, "SAMPLES", 3)
        patch.setattr(blocks, "VERSIONS", ("light",))
        patch.setattr(blocks, "figure_png", lambda figure: figure_png(figure, dpi=40))
        yield


def table(n, seed=0):
    """A file's text: a number, a whole number with holes, a category and a class that depends on the number."""
    rng = np.random.default_rng(seed)
    a, whole = rng.normal(size=n), rng.integers(0, 9, n)
    cells = ["" if rng.random() < 0.1 else str(w) for w in whole]
    rows = zip(
        a,
        cells,
        rng.choice(["x", "y", HOSTILE], n),
        np.where(a + 0.3 * rng.normal(size=n) > 0, "hi", "lo"),
        strict=True,
    )
    return "a,whole,c,class_of\n" + "".join(f"{v:.4f},{w},{c},{k}\n" for v, w, c, k in rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic")
    (out / "real.csv").write_text(table(N))
    (out / "new.csv").write_text(table(90, seed=1))
    return out


@pytest.fixture(scope="module")
def run(folder):
    data = vk.load(folder / "real.csv", missing="mask", test=0.2, valid=0.2)
    return vk.fit(data, "vae", condition="class_of", latent=2, hidden=(8,), steps=30, out=folder / "run", **QUIET)


@pytest.fixture(scope="module")
def comparison(run):
    return run.compare_synthetic()


def test_rows_drawn_from_the_run_are_compared_with_their_condition(run, comparison):
    assert [c.name for c in comparison.columns] == ["a", "whole", "c", "class_of"]
    assert comparison.columns == table_columns(run)
    assert comparison.n == {"synthetic": 144, "train": 144, "test": 48, "near": 48}
    assert comparison.transfers[0].target == "class_of"
    # conditions are those of the training rows, so their shares are equal
    by_name = {c.name: c.estimate.value for c in comparison.by_column}
    train = compare_tables(comparison.synthetic, comparison.synthetic, comparison.test, comparison.columns)
    assert by_name["class_of"] == train.by_column[3].floor.value
    whole = comparison.synthetic[:, 1]
    known = whole[~np.isnan(whole)]
    assert (known == np.round(known)).all()
    names = [m.name for m in comparison.measures]
    assert len(set(names)) == len(names) == 12
    assert {m.part for m in comparison.measures} == {"columns", "pairs", "usefulness", "detectability", "privacy"}
    for m in comparison.measures:
        assert m.estimate.low <= m.estimate.value <= m.estimate.high
        assert m.floor is not None
    with pytest.raises(ChoiceError, match="detectability"):
        comparison["detectablity"]


def test_rows_without_missing_values_are_compared_with_rows_that_have_some():
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(300, 2))
    real = np.where(rng.random(rows.shape) < [0.4, 0], np.nan, rows)
    columns, fresh = (Column("a", "real"), Column("b", "real")), rng.normal(size=(100, 2))
    found = compare_tables(fresh, real[:150], real[150:], columns)
    assert found.blanked == ("a",)
    assert abs(np.isnan(found.synthetic[:, 0]).mean() - np.isnan(real[:150, 0]).mean()) < 0.15
    left = found.synthetic == found.synthetic
    np.testing.assert_array_equal(found.synthetic[left], fresh[left])
    assert found["KS of numbers"].verdict == "like real"
    assert without(found).startswith("Only real rows have missing values in 1 column (a)")
    some = np.where(np.arange(100)[:, None] == [0, -1], np.nan, fresh)  # a generator that leaves out a value itself
    assert compare_tables(some, real[:150], real[150:], columns)["KS of numbers"].verdict == "worse"


def test_training_rows_themselves_are_found_to_be_copies(run):
    observed = run.observed("train")
    rows = np.arange(observed.n)
    labels = run.composition.condition.decoded(observed.condition(rows).numpy())
    found = run.compare_synthetic(observed.raw(rows), labels=labels)
    assert found["copies of training"].verdict == "worse"
    assert found["copies of training"].estimate.value == 1
    assert found["nearer to training"].estimate.low > 0.5
    assert found["membership by distance"].estimate.value == 1
    assert found["KS of numbers"].verdict == "like real"
    assert found["AUC of class_of (linear)"].estimate.value == 0


def test_the_command_reads_a_file_and_writes_a_page_and_its_numbers(run, folder, capsys):
    assert main(["report", str(run.path), "--synthetic", str(folder / "new.csv"), "--target", "a", "c"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split("  ")[0] == "measure"
    assert "R2 of a (boosted trees)" in printed
    assert printed.splitlines()[-1] == str(run.path / "synthetic.html")
    page = (run.path / "synthetic.html").read_text(encoding="utf8")
    assert "<b>c" not in page
    assert "Train on synthetic, test on real" in page
    assert page.count("<img") == 3
    stored = json.loads((run.path / "synthetic.json").read_text(encoding="utf8"))
    assert {t["target"] for t in stored["usefulness"]} == {"a", "c"}
    assert stored["rows"]["synthetic"] == 90
    for m in stored["measures"]:
        assert m["low"] <= m["value"] <= m["high"]
        assert m["verdict"] in ("worse", "like real", "better")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["RUN", "--target", "a"], "add --synthetic FILE"),
        (["RUN", "RUN", "--synthetic", "NEW"], "one run, got 2"),
        (["RUN", "--synthetic", "NEW", "--target", "agee"], "--target: the table has no column 'agee'"),
        (["RUN", "--synthetic", "nothing.csv"], "nothing.csv"),
        (["RUN", "--synthetic", "FEW"], "needs 10 synthetic rows or more, got 3"),
    ],
)
def test_what_the_command_refuses(run, folder, capsys, argv, told):
    (folder / "few.csv").write_text(table(3))
    files = {"RUN": run.path, "NEW": folder / "new.csv", "FEW": folder / "few.csv"}
    assert main(["report", *(str(files.get(word, word)) for word in argv)]) == 2
    assert told in capsys.readouterr().err


def test_all_columns_of_a_condition_are_compared(folder, tmp_path):
    data = vk.load(folder / "real.csv", missing="mask", test=0.2, valid=0.2)
    run = vk.fit(data, "vae", condition="class_of,a", latent=2, hidden=(8,), steps=2, out=tmp_path / "run", **QUIET)
    comparison = run.compare_synthetic(folder / "new.csv")
    assert [(c.name, c.kind) for c in comparison.columns[2:]] == [("class_of", "categorical"), ("a", "real")]
    first = np.loadtxt(folder / "new.csv", str, delimiter=",", skiprows=1)
    assert np.allclose(comparison.synthetic[:, 3], first[:, 0].astype(float), atol=1e-5)
    assert (comparison.synthetic[:, 2] == (first[:, 3] == "lo")).all()


def test_images_and_rows_of_other_columns_are_refused(tmp_path):
    images = vk.fit(vk.from_arrays(blobs(40)), "vae", latent=2, hidden=(8,), steps=2, out=tmp_path / "images", **QUIET)
    with pytest.raises(ChoiceError, match="models image data"):
        images.compare_synthetic()
    rows = np.zeros((20, 2))
    with pytest.raises(DataError, match=r"synthetic rows must have shape \(N, 2\), got \(20, 3\)"):
        compare_tables(np.zeros((20, 3)), rows, rows, [Column("a", "real"), Column("b", "real")])


def test_a_verdict_is_a_clear_difference_from_what_real_rows_have():
    def verdict(value, floor=None, ideal=None, better="lower"):
        base = None if floor is None else Estimate.normal(floor, 0.01)
        return Measure("m", "columns", Estimate.normal(value, 0.01), base, "", ideal, better)

    assert verdict(0.10, 0.09).verdict == "like real"
    assert verdict(0.14, 0.10).verdict == "worse"
    assert verdict(0.06, 0.10).verdict == "better"
    assert verdict(0.54, ideal=0.5).verdict == "worse"
    assert verdict(-0.04, ideal=0.0, better="higher").verdict == "worse"
    assert verdict(0.3).verdict == "unknown"
    assert conclusion((verdict(0.3, 0.1), verdict(0.1, 0.1))) == "Clearly worse than real rows in 1 of 2 measures: m."
    assert interval(Estimate.normal(-0.25, 0.1)) == "−0.250 [−0.446, −0.054]"
