"""Tables: what each column is, labels apart, texts coded once and for all, missing values only where asked for."""

import csv
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vaekit.data import from_arrays, load, load_rows, writing
from vaekit.data.core import Column, digest
from vaekit.data.loading import read_rows
from vaekit.data.readers import table
from vaekit.data.readers.cells import is_missing, is_number
from vaekit.data.results import write_columns
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
    read = table.read(write(tmp_path / "a.csv", names, *x.T.tolist(), delimiter=delimiter)).columns
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
    with pytest.raises(DataError, match=r"column patient holds text.*`label` or `group`"):
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
        ("a,b\n1,2\n3\n", "line 3: expected 2 values.*got 1"),
        ("a,a\n1,2\n", "two columns named 'a'"),
        ("a,b\n", "no rows"),
        ("", "no rows"),
        ("label\n1\n2\n3\n", "no numeric or categorical column"),
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
    pq.write_table(pa.table({"a": [{"k": 1}, {"k": 2}]}), tmp_path / "c.parquet")
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


# --- what the columns are ---------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=6)
CELLS = {
    "real": [0.5, 1.25, -3.0, 2.0, 7.5, 0.1, 9.0, 4.0, 2.5],
    "whole": [3, 1, 4, 1, 5, 9, 2, 6, 5],
    "bits": [0, 1, 1, 0, 1, 0, 0, 1, 1],
    "two": ["f", "m", "m", "f", "f", "m", "f", "m", "f"],
    "three": ["u", "v", "w"] * 3,
    "names": [f"id{i}" for i in range(9)],
    "one": ["same"] * 9,
}


def schema_of(tmp_path, columns, **options):
    return load(write(tmp_path / "a.csv", columns, *(CELLS[name] for name in columns)), **options).schema


@pytest.mark.parametrize(
    ("columns", "options", "kinds"),
    [
        (["real", "whole"], {}, ["real", "real"]),
        (["real", "bits"], {}, ["real", "binary"]),
        (["whole", "two", "three"], {}, ["real", "binary", "categorical"]),
        (["whole", "bits"], {}, ["real", "binary"]),
        (["whole", "bits"], {"kind": "counts"}, ["counts", "counts"]),
        (["whole", "bits"], {"kind": "vector"}, ["real", "binary"]),
        (["bits"], {}, ["binary"]),
        (["bits", "whole"], {"types": "bits=binary"}, ["binary", "real"]),
        (["real", "whole"], {"types": "whole=counts"}, ["real", "counts"]),
        (
            ["real", "whole", "bits"],
            {"types": {"whole": "categorical", "bits": "real"}},
            ["real", "categorical", "real"],
        ),
        (["real", "names"], {"types": " names = drop "}, ["real"]),
        (["real", "names"], {"types": "names=categorical"}, ["real", "categorical"]),
        (["real", "two"], {"types": "two=categorical"}, ["real", "categorical"]),
        (["real", "whole"], {"kind": "signal"}, []),
    ],
)
def test_kinds_are_inferred_or_chosen(tmp_path, columns, options, kinds):
    assert [column.kind for column in schema_of(tmp_path, columns, **options)] == kinds


def test_a_column_records_whether_its_numbers_are_whole_and_their_range(tmp_path):
    names = ["age", "x", "holes", "visits", "sex"]
    cells = [range(20, 29), CELLS["real"], ["", *range(-4, 4)], CELLS["whole"], CELLS["two"]]
    data = load(write(tmp_path / "a.csv", names, *cells), types="visits=counts", missing="mask")
    seen = [(column.integer, column.low, column.high) for column in data.schema]
    assert seen == [(True, 20, 28), (False, -3, 9), (True, -4, 3), (True, 1, 9), (False, None, None)]
    again = [Column.from_json(json.loads(json.dumps(column.as_json()))) for column in data.schema]
    assert [(column.integer, column.low, column.high) for column in again] == seen
    assert tuple(again) == data.schema
    old = Column.from_json({"name": "age", "kind": "real"})  # as runs stored it before
    assert (old.integer, old.low, old.high) == (False, None, None)


def test_kinds_and_notes(tmp_path):
    path = write(tmp_path / "a.csv", CELLS, *CELLS.values())
    data = load(path, types="names=drop,one=drop,whole=counts")
    assert data.kind == "vector"
    assert data.feature_names == ["real", "whole", "bits", "two", "three"]
    assert data.schema == (
        Column("real", "real"),
        Column("whole", "counts"),
        Column("bits", "binary"),
        Column("two", "binary", ("f", "m")),
        Column("three", "categorical", ("u", "v", "w")),
    )
    assert data.notes == ("columns: real real; binary bits, two (f, m); categorical three (u, v, w); counts whole",)
    assert load(write(tmp_path / "b.csv", ["a"], CELLS["real"])).notes == ()
    counts = load(write(tmp_path / "c.csv", ["a", "b"], CELLS["whole"], CELLS["bits"]), kind="counts")
    assert (counts.kind, counts.train.raw.dtype) == ("counts", np.int64)


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ("names=words", "types: expected NAME=KIND with KIND one of real, binary, categorical, counts, drop"),
        ("names", "types: expected NAME=KIND"),
        ({"nothing": "real"}, "types: .* has no column 'nothing'; it has real, whole"),
        ("names=real", "row 0, column 'names' is 'id0', expected a finite number"),
        ("names=counts", "row 0, column 'names' is 'id0', expected a whole number from 0 up"),
        ("real=counts,names=drop,one=drop", "row 0, column 'real' is 0.5, expected a whole number from 0 up"),
        ("three=binary,names=drop,one=drop", "column 'three' of .* has 3 distinct values, but a binary column has 2"),
        ("one=drop", r"column names holds text.*9 distinct texts in 9 rows.*drop=\['names'\].*names=categorical"),
        ("", "column names holds text"),
    ],
)
def test_types_that_do_not_fit(tmp_path, types, message):
    with pytest.raises(DataError, match=message):
        load(write(tmp_path / "a.csv", CELLS, *CELLS.values()), types=types)


def test_types_belong_to_tables(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(9, 3)))
    with pytest.raises(DataError, match=r"`types` applies to a table \(\.csv.* or a frame .*, not to a \.npy file"):
        load(tmp_path / "a.npy", types="a=real")


def test_tables_of_numbers_have_the_digest_they_always_had(tmp_path):
    """Runs of earlier versions find their data by it."""
    a, b, sex = np.linspace(0, 1, 9), np.arange(9), ["f", "m", "m"] * 3
    data = load(write(tmp_path / "a.csv", ["a", "b", "sex"], a, b, sex))
    expected = np.stack([a, b, np.array([0, 1, 1] * 3)], 1).astype(np.float32)
    assert data.digest == digest(expected)
    data = load(write(tmp_path / "b.csv", ["b", "sex"], b, sex))
    assert data.digest == digest(np.stack([b, np.array([0, 1, 1] * 3)], 1))


# --- codes ------------------------------------------------------------------------------------------------------


@FIXED
@given(alphabet=st.lists(TEXT, min_size=2, max_size=6, unique=True), data=st.data())
def test_a_second_table_is_coded_by_the_categories_of_the_first(tmp_path, alphabet, data):
    """Whatever the texts look like (numbers, "NA", quotes), and however the second table is ordered."""
    cells = alphabet + data.draw(st.lists(st.sampled_from(alphabet), min_size=4, max_size=20))
    assume(any(not is_number(text) for text in alphabet))
    assume(not any(map(is_missing, alphabet)))
    numbers = np.arange(len(cells)) / 4
    first = load(write(tmp_path / "a.csv", ["text", "b"], cells, numbers), types="text=categorical")
    (column, _) = first.schema
    assert set(column.categories) == set(alphabet)
    coded = np.concatenate([first.train[:], first.valid[:], first.test[:]])
    order = np.concatenate([first.train.index, first.valid.index, first.test.index])
    assert [column.categories[int(code)] for code in coded[:, 0]] == [cells[i] for i in order]
    some = data.draw(st.lists(st.sampled_from(alphabet), min_size=1, max_size=5))
    second = write(tmp_path / "b.csv", ["other", "b", "text"], some, numbers[: len(some)], some)
    x, _, _ = load_rows(second, schema=first.schema)
    assert [column.categories[int(code)] for code in x[:, 0]] == some
    np.testing.assert_array_equal(x[:, 1], numbers[: len(some)].astype(x.dtype))


def test_numbers_as_categories_are_one_however_written(tmp_path):
    cells = ["1", "2", "10"] * 3
    path = write(tmp_path / "a.csv", ["a", "b"], cells, CELLS["real"])
    data = load(path, types="a=categorical")
    assert data.schema[0].categories == ("1", "2", "10")
    (tmp_path / "b.csv").write_text("a,b\n10.0,1\n02,1\n1,1\n")
    x, _, _ = load_rows(tmp_path / "b.csv", schema=data.schema)
    assert x[:, 0].tolist() == [2, 1, 0]
    (tmp_path / "b.csv").write_text("a,b\n3,1\n")
    with pytest.raises(DataError, match="row 0, column 'a' is '3', expected one of 1, 2, 10"):
        load_rows(tmp_path / "b.csv", schema=data.schema)


def test_rows_without_a_schema_hold_no_categories(tmp_path):
    path = write(tmp_path / "a.csv", ["real", "three"], CELLS["real"], CELLS["three"])
    with pytest.raises(DataError, match="column three holds text"):
        load_rows(path)
    x, _, _ = load_rows(path, schema=(Column("three", "categorical", ("w", "u", "v")),))
    assert x[:3, 0].tolist() == [1, 2, 0]


def test_a_split_of_other_data_is_coded_alike(tmp_path):
    schema = (Column("three", "categorical", ("w", "u", "v", "never")), Column("real", "real"))
    data = load(write(tmp_path / "a.csv", ["real", "three"], CELLS["real"], CELLS["three"]), schema=schema)
    assert data.schema == schema
    np.testing.assert_array_equal(data.train[:][:, 0], (data.train.index + 1) % 3)
    with pytest.raises(DataError, match=r"has no column 'real'; expected three, real"):
        load(write(tmp_path / "b.csv", ["three"], CELLS["three"]), schema=schema)


@FIXED
@given(
    codes=hnp.arrays(np.int64, (7, 2), elements=st.integers(0, 2)),
    real=hnp.arrays(np.float32, (7, 1), elements=st.floats(-1e6, 1e6, width=32)),
    holes=hnp.arrays(bool, (7, 4)),
)
def test_rows_are_written_as_they_are_read(tmp_path, codes, real, holes):
    schema = (
        Column("a", "categorical", ("x", 'say "y"', "1,5")),
        Column("b", "counts"),
        Column("c", "real"),
        Column("d", "binary", ("no", "yes")),
    )
    x = np.concatenate([codes, real, codes[:, :1] % 2], 1).astype(np.float32)
    x = np.where(holes, np.float32(np.nan), x)
    write_columns(tmp_path / "a.csv", writing.typed(schema, x))
    back, _, _ = load_rows(tmp_path / "a.csv", schema=schema, missing="mask")
    np.testing.assert_array_equal(back.astype(np.float32), x)


def test_arrays_of_codes(tmp_path):
    schema = (Column("a", "categorical", ("x", "y", "z")), Column("b", "real"))
    x = np.array([[0, 0.5], [2, 1.5], [1, -3], [0, 4]])
    data = from_arrays(x, schema=schema)
    assert (data.kind, data.schema, data.feature_names) == ("vector", schema, ["a", "b"])
    x[2, 0] = 3
    with pytest.raises(DataError, match=r"arrays: row 2, column 'a' is 3, expected a code 0\.\.2 of x, y, z"):
        from_arrays(x, schema=schema)
    with pytest.raises(DataError, match="schema has 1 columns"):
        from_arrays(x, schema=schema[:1])


@pytest.mark.parametrize(
    ("kind", "categories"),
    [("real", ("a",)), ("counts", ("a",)), ("binary", ("a",)), ("categorical", ()), ("categorical", ("a", "a"))],
)
def test_columns_that_cannot_be(kind, categories):
    with pytest.raises(DataError, match="column 'n': the categories"):
        Column("n", kind, categories)
    with pytest.raises(DataError, match="kind must be one of"):
        Column("n", "colour")


# --- missing values ---------------------------------------------------------------------------------------------


@FIXED
@given(holes=hnp.arrays(bool, (12, 4)), word=st.sampled_from(["", "NA", "n/a", "NaN", "null", "None", "?"]))
def test_missing_cells_are_nan_and_nothing_else_is(tmp_path, holes, word):
    holes[:3] = False  # something is known of every column
    columns = {
        "a": np.arange(12) / 4,
        "b": np.arange(12) + 1,
        "c": np.array(["u", "v", "w"] * 4),
        "d": np.arange(12) % 2,
    }
    cells = [
        [("" if name == "c" else word) if hole else str(cell) for hole, cell in zip(holes[:, i], column, strict=True)]
        for i, (name, column) in enumerate(columns.items())
    ]
    path = write(tmp_path / "a.csv", columns, *cells)
    types = "c=categorical"
    data = load(path, types=types, missing="mask")
    assert data.missing
    assert [column.kind for column in data.schema] == ["real", "real", "categorical", "binary"]
    x, _, _ = load_rows(path, schema=data.schema, missing="mask")
    np.testing.assert_array_equal(np.isnan(x), holes)
    assert any(" missing, in " in note for note in data.notes) == holes.any()
    if holes.any():
        row, column = np.argwhere(holes)[0]
        with pytest.raises(DataError, match=f"row {row}, column {list(columns)[column]!r} is nan.*`missing='mask'`"):
            load(path, types=types)
    else:
        assert not load(path, types=types).missing


def test_an_unknown_category_is_missing_where_values_may_be(tmp_path):
    data = load(write(tmp_path / "a.csv", ["real", "three"], CELLS["real"], CELLS["three"]), missing="mask")
    (tmp_path / "b.csv").write_text("real,three\n1,x\n,w\n")
    x, _, _ = load_rows(tmp_path / "b.csv", schema=data.schema, missing="mask")
    np.testing.assert_array_equal(x, np.array([[1, np.nan], [np.nan, 2]], np.float32))
    with pytest.raises(DataError, match="row 0, column 'three' is 'x', expected one of u, v, w"):
        load_rows(tmp_path / "b.csv", schema=data.schema)


def test_what_masking_does_not_excuse(tmp_path):
    x = np.arange(20.0).reshape(5, 4)
    x[1, 2] = np.nan
    assert from_arrays(x, missing="mask").missing
    known = from_arrays(x, missing="mask")
    assert known.scale == (np.nanmin(known.train[:]), np.nanmax(known.train[:]))
    x[3, 1] = np.inf
    with pytest.raises(DataError, match="row 3, column 1 is inf"):
        from_arrays(x, missing="mask")
    x[3, 1], x[:, 0] = 2.0, np.nan
    with pytest.raises(DataError, match="column 'a' holds no values; drop it"):
        from_arrays(x, missing="mask", feature_names=list("abcd"))
    with pytest.raises(DataError, match="missing must be one of refuse, mask, got 'drop'"):
        from_arrays(x, missing="drop")
    counts = np.where(np.arange(20).reshape(5, 4) == 7, np.nan, np.arange(20.0).reshape(5, 4))
    assert from_arrays(counts, kind="counts", missing="mask").missing
    with pytest.raises(DataError, match=r"row 0, column 1 is 0\.5; counts are whole"):
        from_arrays(counts / 2, kind="counts", missing="mask")
    bytes_ = from_arrays(np.arange(20, dtype=np.uint8).reshape(5, 4), missing="mask")
    assert not bytes_.missing
    assert bytes_.notes == ("no value is missing: uint8 cannot hold nan",)


def test_rows_that_only_lack_the_same_are_identical():
    x = np.full((4, 3), np.nan)
    x[:, 1:] = 2
    with pytest.raises(DataError, match="all 4 rows are identical"):
        from_arrays(x, missing="mask", kind="signal")


def test_options_of_tables_load_the_same_again(tmp_path):
    path = write(tmp_path / "a.csv", ["a", "b", "three"], ["", *CELLS["real"][1:]], CELLS["whole"], CELLS["three"])
    for types in ("b=counts", {"b": "counts"}):
        data = load(path, types=types, missing="mask")
        assert data.options == {"types": types, "missing": "mask"}
        again = load(data.source, **json.loads(json.dumps(data.options)))
        assert (again.digest, again.schema, again.missing) == (data.digest, data.schema, True)


def test_parquet_columns_of_every_type(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = {
        "small": pa.array([1, 2, 3] * 3, pa.uint8()),
        "flag": pa.array([True, None, False] * 3),
        "word": pa.array(["u", None, "v"] * 3),
        "kind": pa.array([" x", "y", "z"] * 3).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    data = load(tmp_path / "a.parquet", types="kind=categorical", missing="mask")
    assert [column.kind for column in data.schema] == ["real", "binary", "binary", "categorical"]
    assert data.schema[3].categories == ("x", "y", "z")
    x, _, _ = load_rows(tmp_path / "a.parquet", schema=data.schema, missing="mask")
    np.testing.assert_array_equal(x[:3], [[1, 1, 0, 0], [2, np.nan, np.nan, 1], [3, 0, 1, 2]])


# --- what is noted or refused -----------------------------------------------------------------------------------

N = 40
WAVE = np.round(np.sin(np.arange(N)), 3)


def of_columns(tmp_path, name="a.csv", **columns):
    return write(tmp_path / name, columns, *columns.values())


@pytest.mark.parametrize("word", ["NA", "?", "nan", "", "-", "null", "N/A", ".", "NULL", "<NA>"])
def test_missing_words_mean_the_same_among_numbers_and_texts(tmp_path, word):
    path = of_columns(tmp_path, dose=[word, 1.5, 2.5, 0.5] * 10, smoker=["no", "yes", word, "no"] * 10)
    with pytest.raises(DataError, match="row 0, column 'dose' is nan"):
        load(path)
    data = load(path, missing="mask")
    assert data.schema == (Column("dose", "real"), Column("smoker", "binary", ("no", "yes")))
    x, _, _ = load_rows(path, schema=data.schema, missing="mask")
    np.testing.assert_array_equal(np.isnan(x), [[i % 4 == 0, i % 4 == 2] for i in range(N)])
    said = f" (written {word})" if word not in ("", "nan") else ""
    assert data.notes[-1].startswith("20 of 80 values are missing, in 2 columns" + said)


CATEGORY = "is a category, not a missing value; leave the cell empty if the value is missing"


def test_words_that_may_be_categories_stay_so(tmp_path):
    path = of_columns(tmp_path, x=WAVE, rh=["+", "-"] * 20, pain=["none", "mild", "severe", "mild"] * 10)
    data = load(path)
    assert [column.categories for column in data.schema[1:]] == [("+", "-"), ("mild", "none", "severe")]
    assert f"column 'rh': '-' {CATEGORY}" in data.notes
    assert f"column 'pain': 'none' {CATEGORY}" in data.notes
    old = (Column("x", "real"), Column("work", "categorical", ("?", "Private")))  # as runs stored it before
    x, _, _ = load_rows(of_columns(tmp_path, x=[1, 2], work=["?", "Private"]), schema=old)
    assert x[:, 1].tolist() == [0, 1]


def test_labels_may_be_missing(tmp_path):
    data = load(of_columns(tmp_path, x=WAVE, label=["u", "NA", "v", ""] * 10))
    assert data.label_names == ["u", "v"]
    np.testing.assert_array_equal(data.train.label, np.array([0, -1, 1, -1])[data.train.index % 4])
    assert data.notes == ("20 of 40 labels in column 'label' are missing",)
    data = load(of_columns(tmp_path, x=WAVE, label=[0, "NA", 1, 2] * 10))
    np.testing.assert_array_equal(data.train.label, np.array([0, -1, 1, 2])[data.train.index % 4])
    data = load(of_columns(tmp_path, x=WAVE, y=[1, -1] * 20))  # two classes, neither of them unknown
    assert data.label_names == ["-1", "1"]
    assert load(of_columns(tmp_path, x=WAVE, **{"class": ["+", "-"] * 20})).label_names == ["+", "-"]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            [f"2020-01-{i % 28 + 1:02}" if i % 2 else f"1/{i % 28 + 1}/2020" for i in range(N)],
            r"holds dates or times \('1/1/2020'\) that are not all .* drop it \(`drop=\['c'\]`",
        ),
        ([f"{i % 4}:30" for i in range(N)], r"holds dates or times .* \(`types='c=categorical'`\)"),
        (["unknown" if i == 7 else i for i in range(N)], "holds numbers, but row 7 is 'unknown': correct it"),
        ([("x", "y")[i] if i < 2 else i for i in range(N)], "row 0 is 'x' and 1 other value is not a number"),
        ([f"{i:032x}" for i in range(N)], "column c holds text.*40 distinct texts in 40 rows"),
        ([hex(i) for i in range(N)], r"column c holds text.*\('0x0', '0x1', '0x10' and 37 more\)"),
        (["inf" if i == 5 else i for i in range(N)], "row 5, column 'c' is inf"),
    ],
)
def test_columns_that_are_neither_numbers_nor_categories(tmp_path, cells, message):
    path = of_columns(tmp_path, x=WAVE, c=cells)
    with pytest.raises(DataError, match=message):
        load(path)
    assert load(path, drop="c").shape == (1,)


@pytest.mark.parametrize(
    ("columns", "notes"),
    [
        ({"c": [7] * N}, ["1 constant column: c (7); a constant carries no information"]),
        ({"c": ["same"] * N, "d": [0] * N}, ["2 constant columns: c (same), d (0)"]),
        (
            {"patient_id": list(range(100, 100 + N))[::-1]},
            ["column 'patient_id' holds a different whole number in every"],
        ),
        ({"c": [10**15 + 7 * i for i in range(N)]}, ["column 'c' holds a different whole number in every row"]),
        ({"age": [20 + 37 * i for i in range(N)]}, []),
        ({"c": ["Yes", "yes", "no", "no"] * 10}, ["column 'c': 'Yes' and 'yes' are separate categories"]),
        ({"c": ['a"', "a", "b", "b"] * 10}, ["column 'c': 'a' and 'a\"' are separate categories"]),
        ({"c": ["$1,234.50", "$3"] * 20}, ["column 'c': '$1,234.50' is read as the number 1234.5"]),
    ],
)
def test_what_is_worth_a_look_is_noted(tmp_path, columns, notes):
    said = [note for note in load(of_columns(tmp_path, x=WAVE, **columns)).notes if not note.startswith("columns: ")]
    assert len(said) == len(notes)
    assert all(note.startswith(start) for note, start in zip(said, notes, strict=True))


def test_counts_are_recognised_only_where_they_are_plain(tmp_path):
    rng = np.random.default_rng(0)
    few, many = rng.poisson(0.5, (N, 5)), rng.poisson(0.5, (N, 30))

    def load_of(x, **options):
        return load(write(tmp_path / "a.csv", [f"g{j}" for j in range(x.shape[1])], *x.T), **options)

    assert load_of(few).kind == "vector"
    assert load_of(few).notes[0].startswith("the table holds only whole numbers from 0 up, which are modelled as real")
    assert load_of(few, kind="counts").kind == "counts"
    assert load_of(few, kind="vector").notes == ()
    assert load_of(many).kind == "counts"
    assert (
        load_of(many)
        .notes[0]
        .startswith("30 columns of whole numbers from 0 up, many of them 0, are modelled as counts")
    )
    assert load_of(many, kind="vector").kind == "vector"
    assert load_of(many + 5).kind == "vector"  # ages, not events
    assert load_of(255 * np.minimum(many, 1)).kind == "vector"  # pixels
    counts = load_of(few, kind="counts")
    again = load(tmp_path / "a.csv", schema=counts.schema)  # as a run reads its data again
    assert (again.kind, again.digest) == ("counts", counts.digest)


def test_truth_is_read_however_it_is_written(tmp_path):
    schema = load(of_columns(tmp_path, x=WAVE, b=["True", "False"] * 20)).schema
    assert schema[1] == Column("b", "binary", ("False", "True"))
    for cells in (["False", "True"], ["false", "TRUE"], [0, 1], ["0.0", "1.0"]):
        x, _, _ = load_rows(of_columns(tmp_path, x=[1, 2], b=cells), schema=schema)
        assert x[:, 1].tolist() == [0, 1]
    three = (Column("b", "categorical", ("FALSE", "false", "true")),)
    assert load_rows(of_columns(tmp_path, b=["false", "FALSE", "True"]), schema=three)[0][:, 0].tolist() == [1, 0, 2]
    x, _, _ = load_rows(of_columns(tmp_path, b=["false", "True"]), schema=(Column("b", "binary"),))
    assert x[:, 0].tolist() == [0, 1]


def test_unknown_categories_that_count_as_missing_are_noted(tmp_path):
    schema = (Column("x", "real"), Column("c", "categorical", ("u", "v")))
    found = read_rows(of_columns(tmp_path, x=[1, 2, 3], c=["u", "w", "NA"]), schema=schema, missing="mask")
    assert found.notes == (
        "column 'c': 1 value such as 'w', unknown to the model, treated as missing",
        "2 of 6 values are missing, in 1 column (written NA)",
    )


def test_one_row_of_new_data_makes_no_notes(tmp_path):
    schema = load(of_columns(tmp_path, x=WAVE, c=["u", "v"] * 20)).schema
    assert read_rows(of_columns(tmp_path, x=[1], c=["u"]), schema=schema).notes == ()


def test_a_missing_label_beside_ones_is_unknown(tmp_path):
    data = load(write(tmp_path / "a.csv", ["a", "label"], np.linspace(0, 1, 30), ["1", "", "1"] * 10))
    assert data.label_names == ["1"]
    assert set(data.train.label.tolist()) == {-1, 0}


def test_every_text_is_a_category_where_the_user_says_so(tmp_path):
    path = of_columns(tmp_path, x=WAVE, country=["NA", "DE", "", "FR"] * 10)
    data = load(path, types="country=categorical", missing="mask")
    assert data.schema[1].categories == ("DE", "FR", "NA")
    assert f"column 'country': 'NA' {CATEGORY}" in data.notes
    x, _, _ = load_rows(path, schema=data.schema, missing="mask")
    np.testing.assert_array_equal(x[:4, 1], [2, 0, np.nan, 1])
    assert load(path, missing="mask").schema[1].categories == ("DE", "FR")


@pytest.mark.parametrize("word", ["?", "nan", "NA"])
def test_the_note_on_a_word_taken_for_a_category_says_how_to_have_it_missing(tmp_path, word):
    path = of_columns(tmp_path, x=WAVE, country=[word, "DE", "US", "FR"] * 10)
    kept = load(path, types="country=categorical", missing="mask")
    assert kept.schema[1].categories == tuple(sorted([word, "DE", "US", "FR"]))
    assert f"column 'country': {word!r} {CATEGORY}" in kept.notes
    path = of_columns(tmp_path, x=WAVE, country=["", "DE", "US", "FR"] * 10)
    emptied = load(path, types="country=categorical", missing="mask")
    assert emptied.schema[1].categories == ("DE", "FR", "US")
    assert not any("is a category" in note for note in emptied.notes)
    assert any(note.startswith("10 of 80 values are missing, in 1 column") for note in emptied.notes)
