"""Tables in memory: frames and tables of three libraries are read as the same CSV would be."""

import datetime
import decimal
import sys

import numpy as np
import pytest

from vaekit.data import from_arrays, load, load_rows
from vaekit.data.readers import frames
from vaekit.errors import DataError

N = 40
RNG = np.random.default_rng(0)
COLUMNS = {
    "x": RNG.normal(size=N).round(3).tolist(),
    "whole": RNG.integers(0, 9, N).tolist(),
    "flag": (RNG.random(N) < 0.5).tolist(),
    "kind": RNG.choice(list("uvw"), N).tolist(),
    "gaps": [None if i % 7 == 0 else i % 5 for i in range(N)],
    "maybe": [None if i % 9 == 0 else i % 2 == 0 for i in range(N)],
    "word": [None if i % 8 == 0 else "pq"[i % 2] for i in range(N)],
    "class": RNG.choice(list("kl"), N).tolist(),
}


def arrow(**columns):
    return pytest.importorskip("pyarrow").table(columns)


def pandas(**columns):
    pd = pytest.importorskip("pandas")
    kinds = {"kind": "category", "gaps": "Int64", "maybe": "boolean", "word": "string"}
    return pd.DataFrame({name: pd.Series(cells, dtype=kinds.get(name)) for name, cells in columns.items()})


def polars(**columns):
    pl = pytest.importorskip("polars")
    return pl.DataFrame(columns).with_columns(pl.col("kind").cast(pl.Categorical)) if "kind" in columns else (
        pl.DataFrame(columns)
    )  # fmt: skip


LIBRARIES = [arrow, pandas, polars]


@pytest.fixture
def csv_file(tmp_path):
    rows = zip(*COLUMNS.values(), strict=True)
    text = "\n".join(",".join("" if cell is None else str(cell) for cell in row) for row in rows)
    path = tmp_path / "a.csv"
    path.write_text(",".join(COLUMNS) + "\n" + text + "\n")
    return path


@pytest.mark.parametrize("make", LIBRARIES)
@pytest.mark.parametrize("way", [load, from_arrays])
def test_a_frame_is_read_as_the_same_csv(csv_file, make, way):
    expected = load(csv_file, missing="mask")
    found = way(make(**COLUMNS), missing="mask")
    assert [column.kind for column in found.schema] == [
        "real",
        "real",
        "binary",
        "categorical",
        "real",
        *["binary"] * 2,
    ]
    assert (found.schema, found.label_names, found.notes) == (expected.schema, ["k", "l"], expected.notes)
    assert [(c.integer, c.low, c.high) for c in found.schema] == [(c.integer, c.low, c.high) for c in expected.schema]
    np.testing.assert_array_equal(found.train[:], expected.train[:])
    np.testing.assert_array_equal(found.train.label, expected.train.label)


@pytest.mark.parametrize("make", LIBRARIES)
def test_options_of_frames(make):
    frame = make(**{name: COLUMNS[name] for name in ("x", "whole", "kind")})
    assert load(frame, drop="x", types="whole=categorical").schema[0].categories == tuple("012345678")
    assert load(frame, label="kind").label_names == ["u", "v", "w"]
    assert from_arrays(frame, label="kind").feature_names == ["x", "whole"]
    given = from_arrays(frame, label=["a", "b"] * 20)
    assert (given.label_names, given.feature_names) == (["a", "b"], ["x", "whole", "kind"])
    x, _, _ = load_rows(frame, schema=given.schema)
    assert x.shape == (N, 3)
    parts = from_arrays(frame, valid=make(x=[1.0, 2.0], whole=[3, 4], kind=["w", "u"]))
    assert parts.valid[:].tolist() == [[1, 3, 2], [2, 4, 0]]
    with pytest.raises(DataError, match=r"drop: the frame has no column 'z'; it has x, whole, kind"):
        load(frame, drop=["z"])
    with pytest.raises(DataError, match=r"`delimiter` applies to a table \(\.csv, \.parquet, \.xlsx\), not to a frame"):
        load(frame, delimiter=";")
    with pytest.raises(DataError, match="holds no rows"):
        load(frame[:0])


@pytest.mark.parametrize("make", LIBRARIES)
def test_labels_and_columns_may_be_series(make):
    frame = make(**COLUMNS)
    data = from_arrays(np.array(COLUMNS["x"]), label=frame["class"], columns={"flag": frame["flag"]})
    assert data.label_names == ["k", "l"]
    assert set(data.train.columns["flag"].tolist()) == {"False", "True"}
    assert from_arrays(frame["x"]).shape == (1,)


def test_one_hot_frames_of_labels_name_the_classes():
    eye = np.eye(3, dtype=int)[np.arange(N) % 3]
    data = from_arrays(np.array(COLUMNS["x"]), label=arrow(a=eye[:, 0], b=eye[:, 1], c=eye[:, 2]))
    assert data.label_names == ["a", "b", "c"]
    np.testing.assert_array_equal(data.train.label, data.train.index % 3)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([datetime.time(i) for i in range(9)], "'c' holds dates or times"),
        ([datetime.timedelta(days=i) for i in range(9)], "'c' holds dates or times"),
        ([b"x"] * 9, "'c' holds bytes"),
        ([{"k": 1}] * 9, "'c' is nested"),
    ],
)
def test_columns_of_parquet_that_are_no_numbers(tmp_path, cells, message):
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(arrow(x=[i / 2 for i in range(9)], c=cells), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        load(tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet", drop=["c"]).shape == (1,)


def test_numbers_of_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = {
        "exact": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("2.25")]),
        "huge": pa.array([2**64 - 1, 1, 2], pa.uint64()),
        "half": pa.array(np.array([0.5, 1, 2], np.float16)),
        "texts": pa.array(["1", "NA", "2.5"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    x, _, _ = load_rows(tmp_path / "a.parquet")
    np.testing.assert_array_equal(x, [[1.5, 2.0**64, 0.5, 1], [np.nan, 1, 1, np.nan], [2.25, 2, 2, 2.5]])
    pq.write_table(pa.table([pa.array([1, 2]), pa.array([3, 4])], names=["a", "a"]), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="two columns named 'a'"):
        load(tmp_path / "b.parquet")


def test_what_is_no_frame_is_said():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.arange(20.0)[:, None])
    for given in (np.zeros((5, 3)), data, torch.utils.data.DataLoader(data)):
        with pytest.raises(DataError, match=f"a path or a frame, got {type(given).__name__}: use from_arrays"):
            load(given)
    assert from_arrays(data).shape == (1,)
    with pytest.raises(DataError, match=r"a DataLoader yields batches.*loader\.dataset"):
        from_arrays(torch.utils.data.DataLoader(data))
    with pytest.raises(DataError, match="an iterator has no length"):
        from_arrays(row for row in np.eye(3))
    with pytest.raises(DataError, match=r"from_arrays expects arrays, got 'a\.csv': use load for names and paths"):
        from_arrays("a.csv")
    with pytest.raises(DataError, match=r"`drop` applies to a table .* or a frame .*, not to arrays in memory"):
        from_arrays(np.eye(4), drop=["a"])


def test_reading_files_imports_no_frames(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2.5\n3,4\n5,6\n")
    before = {"pandas", "polars"} & set(sys.modules)
    load(tmp_path / "a.csv")
    assert {"pandas", "polars"} & set(sys.modules) == before


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_columns_of_labels_and_groups_are_kept(library):
    frame = library(**COLUMNS | {"y": COLUMNS["whole"]})
    kept = {"label": "class", "group": "kind"}
    for data in (
        load(frame, label="class", group="kind", missing="mask"),
        from_arrays(frame, label="class", group="kind", missing="mask"),
    ):
        assert {option: data.options.get(option) for option in kept} == kept


def test_an_index_with_a_name_is_told():
    """It may be data: `df.set_index("age")`."""
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"age": np.arange(N) % 7, "x": COLUMNS["x"]})
    assert not any("index" in note for note in load(table).notes)
    assert load(table.set_index("age")).notes[0] == "the index (age) is not used; `reset_index()` makes it a column"


def test_types_and_names_of_pandas():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"x": COLUMNS["x"], "part": pandas.cut(COLUMNS["x"], 3)})
    assert [column.kind for column in load(table).schema] == ["real", "categorical"]
    table = pandas.DataFrame({("x", "mean"): COLUMNS["x"], ("whole", ""): COLUMNS["whole"]})
    assert load(table).feature_names == ["x mean", "whole"]


def test_times_with_nanoseconds_are_text():
    """Python's datetime ends at microseconds: pyarrow without pandas refuses to convert such a time."""
    pyarrow = pytest.importorskip("pyarrow")
    times = pyarrow.array([2_000_000_000_000_001, None], pyarrow.timestamp("ns"))
    assert [str(cell)[:10] for cell in frames.as_list(times)] in (["1970-01-24", "None"], ["1970-01-24", "NaT"])
