"""Results by row in each format, beside the columns that came with the data."""

import csv

import numpy as np
import pytest

from vaekit.data.beside import as_array, as_texts
from vaekit.data.results import as_columns, check_package, write_results
from vaekit.errors import DataError

CARRIED = {
    "id": ["007", "010", "3"],
    "visits": ["1", "", "30"],
    "weight": ["1.5", "-2", ".5e1"],
    "date": ["2026-01-02", "2026-01-03", ""],
    "score": np.array([1, 2, 3]),
    "flag": np.array([True, False, True]),
}
RESULTS = {"score": np.array([0.1, np.nan, -3.0]), "z": np.arange(6, dtype=np.float32).reshape(3, 2) / 3}


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_text_is_read_as_numbers_only_if_nothing_is_lost():
    assert as_array(CARRIED["id"]).tolist() == ["007", "010", "3"]
    assert as_array(["7", "-1"]).dtype == np.int64
    np.testing.assert_array_equal(as_array(CARRIED["visits"]), [1, np.nan, 30])
    np.testing.assert_array_equal(as_array(CARRIED["weight"]), [1.5, -2, 5])
    assert as_array(["1", "."]).tolist() == ["1", "."]
    assert as_array(["", ""]).tolist() == ["", ""]
    assert as_array([True, False]).dtype == bool
    assert as_array([1, None]).tolist()[0] == 1.0
    big = str(2**70)
    assert as_array([big]).tolist() == [float(big)]
    assert as_texts(np.array([0.1, np.nan], np.float32)) == ["0.1", ""]
    assert as_texts(np.array([1 / 3])) == ["0.3333333333333333"]


def test_columns_come_in_the_order_of_the_source_and_none_is_lost(capsys):
    columns = as_columns(RESULTS, 3, CARRIED)
    expected = ["index", "id", "visits", "weight", "date", "score (of the data)", "flag", "score", "z0", "z1"]
    assert list(columns) == expected
    assert "note: the column 'score' of the data is called 'score (of the data)'" in capsys.readouterr().err
    assert columns["score (of the data)"].tolist() == [1, 2, 3]
    both = as_columns({"a": np.zeros(1)}, 1, {"a": ["x"], "a (of the data)": ["y"]})
    assert sorted(cells[0] for name, cells in both.items() if name not in ("index", "a")) == ["x", "y"]
    with pytest.raises(DataError, match=r"\.npz"):
        as_columns({"x": np.zeros((3, 2, 2))}, 3, {})


def test_the_first_rows_of_a_csv(tmp_path, capsys):
    write_results(tmp_path / "r.csv", {name: values[:2] for name, values in RESULTS.items()}, 2, CARRIED)
    first, second = read(tmp_path / "r.csv")
    assert (first["id"], first["weight"], first["flag"], first["score"]) == ("007", "1.5", "True", "0.1")
    assert (second["index"], second["visits"], second["score"], second["z1"]) == ("1", "", "", "1.0")


def test_parquet_keeps_types(tmp_path, capsys):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    day = pa.array([1, 2, None], pa.date32())
    write_results(tmp_path / "r.parquet", RESULTS, 3, {**CARRIED, "day": day})
    table = parquet.read_table(tmp_path / "r.parquet")
    types = dict(zip(table.schema.names, map(str, table.schema.types), strict=True))
    assert types == {
        "index": "int64", "id": "string", "visits": "int64", "weight": "double", "date": "string",
        "score (of the data)": "int64", "flag": "bool", "day": "date32[day]", "score": "double", "z0": "float",
        "z1": "float",
    }  # fmt: skip
    assert table["id"].to_pylist() == ["007", "010", "3"]
    assert table["visits"].to_pylist() == [1, None, 30]
    np.testing.assert_array_equal(table["z1"].to_numpy(), RESULTS["z"][:, 1])


def test_npz_has_whole_arrays_and_a_prefix(tmp_path):
    write_results(tmp_path / "r.npz", {**RESULTS, "x": np.ones((3, 2, 2))}, 3, CARRIED)
    with np.load(tmp_path / "r.npz") as held:
        assert {*held} == {"score", "z", "x", *(f"column.{name}" for name in CARRIED)}
        np.testing.assert_array_equal(held["z"], RESULTS["z"])
        assert held["column.id"].tolist() == ["007", "010", "3"]
        assert held["column.score"].tolist() == [1, 2, 3]


def test_h5ad_is_anndata_and_a_copy_of_the_file_that_the_rows_came_from(tmp_path, capsys):
    h5py = pytest.importorskip("h5py")
    first, second = tmp_path / "a.h5ad", tmp_path / "b.h5ad"
    write_results(first, {"score": RESULTS["score"]}, 3, {"id": CARRIED["id"]})
    with h5py.File(first, "r+") as file:
        assert dict(file.attrs) == {"encoding-type": "anndata", "encoding-version": "0.1.0"}
        assert file["obs"].attrs["column-order"].tolist() == ["id", "score"]
        assert file["obs/id"].asstr()[:].tolist() == ["007", "010", "3"]
        file["uns/kept"] = 5
    write_results(second, RESULTS, 3, {"id": ["not", "used", ""]}, first)
    write_results(first, {"z": RESULTS["z"] + 1}, 3, {}, second)
    with h5py.File(first) as file:
        assert file["uns/kept"][()] == 5
        assert file["obs"].attrs["column-order"].tolist() == ["id", "score (of the data)", "score"]
        np.testing.assert_array_equal(file["obs/score"], RESULTS["score"])
        np.testing.assert_array_equal(file["obsm/X_vae (of the data)"], RESULTS["z"])
        np.testing.assert_array_equal(file["obsm/X_vae"], RESULTS["z"] + 1)
    write_results(tmp_path / "c.h5ad", {"score": np.zeros(2), "z": np.ones((2, 2)), "why": ["a", "b"]}, 2, {}, second)
    with h5py.File(tmp_path / "c.h5ad") as file:  # results of the first two cells
        np.testing.assert_array_equal(file["obs/score"], [0, 0, np.nan])
        np.testing.assert_array_equal(file["obsm/X_vae"], [[1, 1], [1, 1], [np.nan, np.nan]])
        assert file["obs/why"].asstr()[:].tolist() == ["a", "b", ""]


@pytest.mark.parametrize("part", ["values", "codes"])
def test_an_index_of_texts_that_may_be_missing_or_of_categories_has_its_length(tmp_path, part):
    """anndata 0.12 writes the index of a pandas 3 frame as a group of values and a mask."""
    h5py = pytest.importorskip("h5py")
    source, out = tmp_path / "a.h5ad", tmp_path / "b.h5ad"
    write_results(source, {}, 3, {})
    with h5py.File(source, "r+") as file:
        names = file["obs/_index"].asstr()[:]
        del file["obs/_index"]
        held = names.astype(object) if part == "values" else np.arange(3)
        file["obs"].create_group("_index").create_dataset(part, data=held)
    write_results(out, RESULTS, 3, {}, source)
    with h5py.File(out) as file:
        np.testing.assert_array_equal(file["obs/score"], RESULTS["score"])
        np.testing.assert_array_equal(file["obsm/X_vae"], RESULTS["z"])


def test_a_missing_package_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("pyarrow", "h5py") else object())
    for suffix, said in (
        (".parquet", r"needs pyarrow: pip install 'vaekit\[parquet\]'"),
        (".h5ad", r"vaekit\[cells\]"),
    ):
        with pytest.raises(DataError, match=said):
            check_package(tmp_path / f"r{suffix}")
    check_package(tmp_path / "r.csv")
