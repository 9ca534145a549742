"""Sheets of .xlsx files: read like the same CSV, with the values of formulas; errors name the cell."""

import datetime
import zipfile

import numpy as np
import pytest

import vaekit as vk
from vaekit.data import load, read_rows
from vaekit.data.readers import spreadsheet
from vaekit.errors import DataError

openpyxl = pytest.importorskip("openpyxl")


def rows(n=40):
    rng = np.random.default_rng(0)
    return [[round(rng.normal(), 3), int(rng.integers(0, 50)), "abc"[i % 3], bool(i % 2), i % 2] for i in range(n)]


NAMES = ["size", "number", "kind", "flag", "label"]


def write(path, *sheets):
    """Write sheets, each a name and rows of cells."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, lines in sheets:
        sheet = book.create_sheet(name)
        for line in lines:
            sheet.append(line)
    book.save(path)
    return path


def text(path, lines):
    path.write_text("\n".join(",".join("" if c is None else str(c) for c in line) for line in lines) + "\n")
    return path


def test_a_sheet_is_read_like_the_same_csv(tmp_path):
    lines = [NAMES, *rows()]
    lines[5][1] = None
    one = load(write(tmp_path / "a.xlsx", ("s", lines)), missing="mask")
    other = load(text(tmp_path / "a.csv", lines), missing="mask")
    assert one.schema == other.schema
    assert one.digest == other.digest
    np.testing.assert_array_equal(one.train.label, other.train.label)


def test_sheets_are_chosen_by_name_and_recorded(tmp_path):
    path = write(
        tmp_path / "a.xlsx", ("first", [NAMES, *rows()]), ("second one", [["a", "b"], *([i, i * i] for i in range(20))])
    )
    assert load(path).shape == (4,)
    data = load(path, sheet="second one")
    assert (data.feature_names, data.options) == (["a", "b"], {"sheet": "second one"})
    assert any("the sheet 'first' is read, not second one" in note for note in load(path).notes)
    book = openpyxl.load_workbook(path)
    book["first"].sheet_state = "hidden"
    book.active = 1
    book.save(tmp_path / "hidden.xlsx")
    assert load(tmp_path / "hidden.xlsx").feature_names == ["a", "b"]
    with pytest.raises(DataError, match="it has first, second one"):
        load(path, sheet="third")
    with pytest.raises(DataError, match="`sheet` applies to a spreadsheet"):
        load(text(tmp_path / "a.csv", [NAMES, *rows()]), sheet="first")


def test_empty_rows_and_columns_are_skipped_and_a_missing_header_is_noticed(tmp_path):
    lines = [
        [None, "a", None, "b"],
        [],
        *([None, i, None, i % 7] for i in range(12)),
        [],
        *([None, i, None, 3] for i in range(9)),
        [],
    ]
    data = load(write(tmp_path / "a.xlsx", ("s", lines)))
    assert (data.feature_names, len(data.train.raw)) == (["a", "b"], 21)
    bare = load(write(tmp_path / "b.xlsx", ("s", [[i * 1.5, i] for i in range(3, 40)])))
    assert (bare.feature_names, len(bare.train.raw)) == (["column1", "column2"], 37)
    titled = write(
        tmp_path / "c.xlsx", ("s", [["Sales of 2020"], ["a", "b", "c"], *([i, i + 1, i * i] for i in range(20))])
    )
    with pytest.raises(DataError, match=r"the first row \(Sales of 2020\) has cells in 1 of 3 columns"):
        load(titled)


def test_dates_are_read_as_in_a_csv(tmp_path):
    start = datetime.datetime(2020, 1, 1)
    lines = [["day", "x"], *([start + datetime.timedelta(days=3 * i), i * i] for i in range(30))]
    one = load(write(tmp_path / "a.xlsx", ("s", lines)))
    other = load(text(tmp_path / "a.csv", [["day", "x"], *([str(day.date()), x] for day, x in lines[1:])]))
    assert one.schema == other.schema
    assert one.schema[0].format == "%Y-%m-%d"
    np.testing.assert_array_equal(one.train.raw, other.train.raw)


def test_formulas_have_their_stored_values_and_lacking_ones_are_named(tmp_path):
    lines = [["a", "b"], *([i, i % 5] for i in range(20))]
    lines[4][1] = "=A5*2"
    path = write(tmp_path / "a.xlsx", ("s", lines))  # openpyxl stores formulas without values
    with pytest.raises(DataError, match="cell B5 holds a formula whose value is not stored"):
        load(path)
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    sheet = parts["xl/worksheets/sheet1.xml"].decode()
    assert sheet.count("<v></v>") + sheet.count("<v/>") + sheet.count("<v />") == 1
    for empty in ("<v></v>", "<v/>", "<v />"):
        sheet = sheet.replace(empty, "<v>6</v>")
    parts["xl/worksheets/sheet1.xml"] = sheet.encode()
    with zipfile.ZipFile(path, "w") as book:
        for name, content in parts.items():
            book.writestr(name, content)
    assert load(path).train.raw[3].tolist() == [3.0, 6.0]


def test_errors_of_cells_are_refused_but_absent_values_are_missing(tmp_path):
    lines = [["a", "b"], *([i, i % 5] for i in range(20))]
    lines[6][0] = "#N/A"
    data = load(write(tmp_path / "a.xlsx", ("s", lines)), missing="mask")
    assert np.isnan(data.train.raw).sum() == 1
    lines[6][0] = "#DIV/0!"
    with pytest.raises(DataError, match="cell A7 holds the error #DIV/0!"):
        load(write(tmp_path / "a.xlsx", ("s", lines)))


def test_workbooks_that_are_damaged_or_unpack_to_too_much_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.xlsx", ("s", [NAMES, *rows()]))
    whole = path.read_bytes()
    for content in (b"", b"no", whole[:-200], whole[:1500] + bytes(200) + whole[1700:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.xlsx"):
            load(path)
    path.write_bytes(whole)
    monkeypatch.setattr(spreadsheet, "SMALL", 10)
    monkeypatch.setattr(spreadsheet, "RATIO", 1)
    with pytest.raises(DataError, match="which is more than a workbook needs"):
        load(path)
    monkeypatch.undo()
    monkeypatch.setattr(spreadsheet, "MOST_ROWS", 10)
    with pytest.raises(DataError, match="more than 10 rows"):
        load(path)


def test_a_model_of_a_sheet_takes_sheets_and_csv_and_returns_the_other_columns(tmp_path):
    lines = [NAMES, *rows()]
    path = write(tmp_path / "a.xlsx", ("s", lines))
    run = vk.fit(path, out=tmp_path / "run", steps=2, latent=2, hidden=(4,), batch=8, compile="off", progress=False)
    new = [["name", *NAMES[:4]], *([f"n{i}", *row[:4]] for i, row in enumerate(rows(6)))]
    sheet, table = write(tmp_path / "b.xlsx", ("s", new)), text(tmp_path / "b.csv", new)
    np.testing.assert_allclose(run.encode(sheet), run.encode(table), rtol=1e-5)
    assert list(run.read(sheet).carried["name"]) == [f"n{i}" for i in range(6)]
    assert read_rows(sheet, schema=run.columns).x.shape == (6, 4)
