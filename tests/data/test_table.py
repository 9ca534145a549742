"""Tables: numbers are data, a label is a label, text is refused by the name of its column."""

import csv

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vaekit.data import load, load_rows, table
from vaekit.errors import DataError

FIXED = settings(
    max_examples=50, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(path, header, *columns, delimiter=","):
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *zip(*columns, strict=True)])
    return path


@FIXED
@given(
    x=hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.floats(-1e6, 1e6)),
    delimiter=st.sampled_from(",;\t"),
)
def test_numbers_round_trip(tmp_path, x, delimiter):
    names = [f"column {i}" for i in range(x.shape[1])]
    read = table.read(write(tmp_path / "a.csv", names, *x.T.tolist(), delimiter=delimiter))
    assert list(read) == names
    np.testing.assert_array_equal(np.stack(list(read.values()), 1), x)


def test_label_and_two_valued_text(tmp_path):
    path = write(
        tmp_path / "a.csv", ["a", "sex", "class"], np.linspace(0, 1, 9), ["f", "m", "m"] * 3, ["u", "v", "w"] * 3
    )
    data = load(path)
    assert (data.kind, data.shape, data.feature_names) == ("vector", (2,), ["a", "sex"])
    assert data.label_names == ["u", "v", "w"]
    np.testing.assert_array_equal(data.train[:][:, 1], (data.train.index % 3 > 0))
    np.testing.assert_array_equal(data.train.label, data.train.index % 3)


def test_a_fractional_y_is_data(tmp_path):
    path = write(tmp_path / "a.csv", ["x", "y"], np.linspace(0, 1, 9), np.linspace(0, 1, 9) ** 2)
    assert load(path).feature_names == ["x", "y"]
    with pytest.raises(DataError, match="labels must be whole numbers"):
        load(path, label="y")


def test_text_is_refused_by_name_unless_it_is_label_or_group(tmp_path):
    rows = [f"id{i % 5}" for i in range(10)]
    path = write(tmp_path / "a.csv", ["a", "b", "patient"], range(10), np.linspace(0, 1, 10), rows)
    with pytest.raises(DataError, match=r"column patient holds text.*label= or group="):
        load(path)
    data = load(path, group="patient")
    assert data.feature_names == ["a", "b"]
    assert not set(data.train.columns["patient"]) & set(data.valid.columns["patient"])
    with pytest.raises(DataError, match=r"group='nobody'.*a, b, patient"):
        load(path, group="nobody")


def test_missing_values_are_refused_by_row_and_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n3,\n5,6\n7,8\n")
    with pytest.raises(DataError, match="row 1, column 'b' is nan"):
        load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n3,4\n5,6\n", "no header"),
        ("a,b\n1,2\n3\n", "line 3: expected 2 values.*got 1"),
        ("a,a\n1,2\n", "two columns named 'a'"),
        ("a,b\n", "no rows"),
        ("", "no rows"),
        ("label\n1\n2\n3\n", "no numeric column"),
    ],
)
def test_malformed(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "a.csv")


def test_not_text_at_all(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,b\n\xff\xfe\x00\n")
    with pytest.raises(DataError, match="UTF-8"):
        load(tmp_path / "a.csv")


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = {"a": np.arange(9) / 2, "b": [True, False, True] * 3, "label": ["u", "v", "w"] * 3}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    data = load(tmp_path / "a.parquet")
    assert (data.feature_names, data.label_names) == (["a", "b"], ["u", "v", "w"])
    np.testing.assert_array_equal(data.train[:][:, 0], data.train.index / 2)
    pq.write_table(pa.table({"a": [1.0, None, 2.0], "b": [1, 2, 3]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="row 1, column 'a' is nan"):
        load(tmp_path / "b.parquet")
    pq.write_table(pa.table({"a": [[1, 2], [3, 4]]}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match="'a' is nested"):
        load(tmp_path / "c.parquet")
    (tmp_path / "d.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        load(tmp_path / "d.parquet")


def test_columns_that_new_rows_lack(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    raw, _, label = load_rows(tmp_path / "a.csv", label="kind", group="donor")
    assert raw.tolist() == [[1, 2]]
    assert label is None
