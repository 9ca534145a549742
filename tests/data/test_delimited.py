"""Delimited text: its dialect found in its lines, numbers in every notation, nothing lost and nothing silent."""

import bz2
import csv
import gzip
import io
import json
import lzma

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vaekit.data import load, load_rows, writing
from vaekit.data.loading import read_rows
from vaekit.data.readers import table as tables
from vaekit.data.readers.cells import Cells, are_dates, number
from vaekit.errors import DataError

FIXED = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WAVE = np.round(np.sin(np.arange(40)), 3)


def saved(tmp_path, text, name="a.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(*columns, by=","):
    return "".join(by.join(map(str, row)) + "\n" for row in zip(*columns, strict=True))


def read(tmp_path, text, name="a.csv", **options):
    return tables.read(saved(tmp_path, text, name), **options)


# --- numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "point", "comma"),
    [
        ("1.5", 1.5, None),
        ("1,5", None, 1.5),
        ("1,234", 1234, 1.234),
        ("1.234", 1.234, 1234),
        ("1.234,5", None, 1234.5),
        ("1,234.5", 1234.5, None),
        ("1.234.567", None, 1234567),
        ("0,123", None, 0.123),
        ("0.123", 0.123, None),
        ("12,34,567", None, None),
        ("1 234", 1234, 1234),
        ("1\u202f234", 1234, 1234),
        ("1'234.5", 1234.5, None),
        ("$1,234.50", 1234.5, None),
        ("-$5", -5, -5),
        ("3 €", 3, 3),
        ("USD 5", 5, 5),
        ("12 %", 12, 12),
        ("\u22125", -5, -5),
        ("1e5", 1e5, 1e5),
        ("+3", 3, 3),
        (".5", 0.5, None),
        ("-inf", -np.inf, -np.inf),
        ("1_2", None, None),
        ("٣", None, None),
        ("１", None, None),
        ("0x10", None, None),
        ("--5", None, None),
        ("", None, None),
    ],
)
def test_what_a_cell_says(text, point, comma):
    assert number(text) == point
    assert number(text, "comma") == comma
    for decimal, value in (("point", point), ("comma", comma)):
        found = Cells(decimal).numbers([text, "7"])
        if value is None and text:
            assert found is None
        elif text:
            np.testing.assert_array_equal(found, [value, 7])


@pytest.mark.parametrize(
    "text",
    ["2020-01-02", "2020-01", "1.2.2020", "01/02/20", "10:30", "2020-01-02T10:00:00Z", "2 Jan 2020", "March 3, 2021"],
)
def test_dates_are_told_from_numbers(text):
    assert are_dates([text])
    assert not are_dates([text, "12"])
    assert number(text) is None


def test_numbers_with_leading_zeros_of_one_length_are_names(tmp_path):
    zips = ["01234", "98765", "", "00011"]
    assert read(tmp_path, "zip,x\n" + lines(zips, range(4))).columns["zip"].tolist() == zips
    table = read(tmp_path, "n,x\n" + lines(["007", "12", "5"], range(3)))
    assert table.columns["n"].tolist() == [7, 12, 5]
    assert table.notes == ("column 'n': numbers lose their leading zeros (007)",)


# --- the dialect ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [",", ";", "\t", "|", " ", "   "])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".data"])
def test_the_delimiter_is_found(tmp_path, by, suffix):
    table = read(
        tmp_path, by.join(["a", "b", "c"]) + "\n" + lines(WAVE, range(40), ["u", "v"] * 20, by=by), f"a{suffix}"
    )
    assert list(table.columns) == ["a", "b", "c"]
    np.testing.assert_array_equal(table.columns["a"], WAVE)
    assert table.columns["b"].dtype == np.int64
    assert not table.notes


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_files_are_known_by_their_insides(tmp_path, pack):
    packed = pack(b"a,b\n1,2.5\n3,4\n5,6\n")
    for name in ("a.csv.gz", "a.csv"):
        assert load(saved(tmp_path, packed, name)).feature_names == ["a", "b"]


def test_the_first_line_of_excel_names_the_delimiter(tmp_path):
    assert read(tmp_path, "sep=;\na;b\n1;2\n").columns["b"].tolist() == [2]


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        (lines(["M", "F", "M"], [0.1, 0.2, 0.3], [3, 1, 2]), None, 3),
        (lines([0.1, 0.2, 0.3], [3, 1, 2], ["rose", "lily", "rose"]), None, 3),
        ("1,2\n3,4\n5,6\n", None, 3),
        ("p,x,s\ne,x,y\np,b,s\n", None, 3),
        ("0,0,1\n1,0,1\n", None, 2),
        ("a,b\n1,2\n", ["a", "b"], 1),
        ("class,cap\ne,x\np,x\n", ["class", "cap"], 2),
        ("0,1,2\n0.5,3,4\n0.25,7,8\n", ["0", "1", "2"], 2),
        ("country,2019,2020,2021\nde,1,2.5,3\nfr,4,5,6\n", ["country", "2019", "2020", "2021"], 2),
    ],
)
def test_a_header_is_told_from_data(tmp_path, text, names, rows):
    table = read(tmp_path, text)
    assert list(table.columns) == (names or [f"column{j + 1}" for j in range(len(table.columns))])
    assert {len(values) for values in table.columns.values()} == {rows}
    assert any("`header='yes'`" in note for note in table.notes) == (names is None)


def test_the_header_can_be_said(tmp_path):
    path = saved(tmp_path, "1,2\n3,4\n5,6\n7,8\n")
    assert load(path, header="yes").feature_names == ["1", "2"]
    assert load(path, header="yes").options == {"header": "yes"}
    path = saved(tmp_path, "a,b\n" + lines("cdcdcdcdcd", "efefefefef"))
    assert tables.read(path, header="no").columns["column1"].tolist() == ["a", *"cdcdcdcdcd"]
    assert load(path, header=False, types="column1=categorical,column2=categorical").schema[0].categories == (*"acd",)
    with pytest.raises(DataError, match="header must be one of yes, no, got 'maybe'"):
        load(path, header="maybe")
    with pytest.raises(DataError, match=r"delimiter must be one character or one of tab, .* got 'xx'"):
        load(path, delimiter="xx")
    assert load(saved(tmp_path, "a:b\n" + lines(WAVE, range(40), by=":")), delimiter=":").shape == (2,)


def test_comments(tmp_path):
    table = read(tmp_path, "# made today\n#\na,b\n1,2\n# in between\n3,4\n")
    assert table.columns["a"].tolist() == [1, 3]
    assert table.notes == ("skipped 3 lines starting with #",)
    colours = read(tmp_path, "colour,b\n#ff0000,1\n#00ff00,2\n")
    assert colours.columns["colour"].tolist() == ["#ff0000", "#00ff00"]
    out = io.StringIO()
    np.savetxt(out, [[1.5, 2.5], [3, 4]], header="a,b", delimiter=",", fmt="%g")
    table = read(tmp_path, out.getvalue())
    assert list(table.columns) == ["a", "b"]
    assert "names of the columns come from the comment '# a,b'" in table.notes[0]


def test_line_ends_of_every_kind(tmp_path):
    for text in ("a,b\r1,2\r3,4\r", "a,b\r\n1,2\r3,4\n", "a,b\n1,2\n\n3,4", "a,b\r\n1,2\r\n3,4\r\n\r\n"):
        assert read(tmp_path, text).columns["b"].tolist() == [2, 4]


# --- the decimal sign -------------------------------------------------------------------------------------------


def german(values):
    return [str(value).replace(".", ",") for value in values]


def test_a_decimal_comma_is_seen_noted_and_kept(tmp_path):
    path = saved(tmp_path, "temp;n\n" + lines(german(WAVE), range(3, 43), by=";"))
    data = load(path)
    np.testing.assert_array_equal(data.train[:][:, 0], WAVE[data.train.index].astype(np.float32))
    assert data.options == {"decimal": "comma"}
    assert data.notes[0].startswith("numbers have a decimal comma: '0,0' in column 'temp' is read as 0")
    again = load(path, schema=data.schema, **json.loads(json.dumps(data.options)))
    assert again.digest == data.digest
    with pytest.raises(DataError, match="column temp holds text"):
        load(path, decimal="point")


def test_the_decimal_comma_may_come_late(tmp_path):
    table = read(tmp_path, "a;b\n" + "1;2\n" * 500 + "1,5;2\n")
    assert table.columns["a"][-1] == 1.5
    assert table.options == {"decimal": "comma"}
    with pytest.raises(
        DataError, match=r"'1,5' in column 'a' has a decimal comma and '0\.5' in column 'b' a decimal point"
    ):
        read(tmp_path, "a;b\n" + "1;0.5\n" * 500 + "1,5;2\n")


@pytest.mark.parametrize(
    ("by", "cell", "decimal", "value", "note"),
    [
        (",", '"1,234"', None, 1234, "'1,234' in column 'a' is read as 1234; `decimal='comma'` reads"),
        (",", '"1,234"', "comma", 1.234, ""),
        (";", "1,234", None, 1.234, "'1,234' in column 'a' is read as 1.234; `decimal='point'` reads"),
        (";", "1,234", "point", 1234, "column 'a': '1,234' is read as the number 1234"),
        (";", "1.234", None, 1.234, "'1.234' in column 'a' is read as 1.234; `decimal='comma'` reads"),
        (";", "1.234", "comma", 1234, "column 'a': '1.234' is read as the number 1234"),
        ("\t", "1,234", None, 1234, "'1,234' in column 'a' is read as 1234; `decimal='comma'` reads"),
        (",", "1.234", None, 1.234, ""),
    ],
)
def test_what_may_be_either_is_noted_and_can_be_overruled(tmp_path, by, cell, decimal, value, note):
    table = read(tmp_path, f"a{by}b\n" + f"{cell}{by}2\n" * 3, decimal=decimal)
    assert table.columns["a"].tolist() == [value] * 3
    assert len(table.notes) == bool(note)
    assert all(said.startswith(note) for said in table.notes)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("a;b;c\n1,5;2;1.234\n", [1.5, 2, 1234]),
        ("a;b;c\n1;2;1.234\n", [1, 2, 1234]),  # says nothing itself, so it is read as the training data were
        ("a,b,c\n1,2,1.234\n", [1, 2, 1.234]),  # commas separate: as vaekit itself writes tables
        ('a,b,c\n"1,5",2,3\n', [1.5, 2, 3]),
        ("a;b;c\n1.5;2;3\n", [1.5, 2, 3]),
    ],
)
def test_new_files_of_a_table_with_decimal_commas(tmp_path, text, row):
    cells = [f"{1000 + 100 * i:,}".replace(",", ".") for i in range(40)]
    data = load(saved(tmp_path, "a;b;c\n" + lines(german(WAVE), range(40), cells, by=";")))
    new = read_rows(saved(tmp_path, text, "new.csv"), schema=data.schema, **data.options)
    np.testing.assert_allclose(new.x, [row], rtol=1e-6)
    assert not any("decimal=" in note for note in new.notes)  # the commands that read new files have no such option


def test_codes_with_commas_can_be_categories(tmp_path):
    path = saved(tmp_path, "x,pair\n" + lines(WAVE, ['"1,2"', '"3,4"'] * 20))
    with pytest.raises(DataError, match="'1,2' in column 'pair' has a decimal comma"):
        load(path)
    assert load(path, types="pair=categorical").schema[1].categories == ("1,2", "3,4")


# --- quotes, lengths, encodings ---------------------------------------------------------------------------------


def quoted(**at):
    rows = [f"{i}.5,{'abc'[i % 3]}" for i in range(100)]
    for place, row in at.items():
        rows[int(place[1:])] = row
    return "v,c\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (quoted(_60='60.5,"a'), r"line 62: a quote \(\"\) opens a value and is not closed"),
        (quoted(_60='60.5,"a', _70='70.5,b"'), "line 62: .* ends in line 72 and seems to contain rows"),
        (quoted(_60='60.5,"a', _61='61.5,b"'), "line 62: .* ends in line 63 and seems to contain rows"),
        (quoted(_60='60.5,"a', _70='70.5,"b"'), "line 62: a value continues after its closing quote"),
        (
            quoted(_60='"60.5,a', _61='61.5,b"'),
            r"lines 62 to 63, which a quote \(\"\) joins: expected 2 values.* got 1",
        ),
        (quoted(_60="60.5"), "line 62: expected 2 values, as in the header, got 1"),
        (quoted(_60="60.5,a,b"), "line 62: expected 2 values, as in the header, got 3"),
        (quoted(_60='60.5,"' + "a" * 140_000 + '"'), "line 62: a value has more than 131,072 characters"),
        (
            "x\n1,5\n2,5\n",
            "line 2: expected 1 value, .* got 2; if the comma is the decimal sign, use `delimiter=';'`",
        ),
        ("My report\n\na,b\n1,x\n", "line 3: expected 1 value, .* if there are lines above the header, delete them"),
        ("a,a\n1,2\n", "two columns named 'a'"),
    ],
)
def test_damage_is_refused_by_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        load(saved(tmp_path, text))


def test_a_value_of_several_lines_is_kept_and_noted(tmp_path):
    path = saved(tmp_path, "v,c\n" + lines(WAVE, ['"New\nYork"', "Rome"] * 20))
    data = load(path)
    assert data.schema[1].categories == ("New\nYork", "Rome")
    assert "20 rows with a value of several lines, the first in line 2" in data.notes


@pytest.mark.parametrize(
    ("encoding", "note"),
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("cp1252", "not UTF-8 (line 1) and is read as Windows-1252"),
    ],
)
def test_encodings(tmp_path, encoding, note):
    table = read(tmp_path, ("größe,art\n" + lines(range(40), ["é", "ä"] * 20)).encode(encoding))
    assert list(table.columns) == ["größe", "art"]
    assert table.columns["art"][:2].tolist() == ["é", "ä"]
    assert len(table.notes) == (note is not None)
    assert note is None or note in table.notes[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\né,1\né,2\n".encode() + b"\xe9,2\n", "line 4: not UTF-8, unlike the other lines"),
        (b"a,b\n1,\0\0\n", "is not text .it holds zero bytes.*UTF-8"),
        (b"PK\x03\x04", "an Excel workbook or a .zip archive"),
        (b"\n<!DOCTYPE html>", "a web page"),
        (b'{"a": 1}', "looks like JSON"),
        (b"@RELATION iris\n", "an ARFF file"),
        (gzip.compress(b"a,b\n" + bytes(range(33, 99)), mtime=0)[:-9], "cannot be read"),
    ],
    ids=range(7),
)
def test_files_that_are_no_tables_are_named(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        load(saved(tmp_path, content))


# --- columns without a name, names of every kind ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names", "left_out"),
    [
        (",a,b\n" + lines(range(40), WAVE, WAVE[::-1]), ["a", "b"], "numbers or names the rows"),
        (",0,1\n" + lines(range(40), WAVE, WAVE[::-1]), ["0", "1"], "numbers or names the rows"),
        ("Unnamed: 0,a\n" + lines(range(7, 47), WAVE), ["a"], "'Unnamed: 0' numbers or names the rows"),
        ("a,b,\n" + lines(WAVE, WAVE, [""] * 40), ["a", "b"], "is empty and is left out"),
        ("a,b\n" + lines(WAVE, WAVE, [""] * 40), ["a", "b"], "is empty and is left out"),
        ("a b\n" + lines([f"r{i}" for i in range(40)], WAVE, WAVE, by=" "), ["a", "b"], "numbers or names the rows"),
        ("a,b,\n" + lines(WAVE, WAVE, ["u", "v"] * 20), ["a", "b", "column3"], None),
    ],
)
def test_columns_without_a_name(tmp_path, text, names, left_out):
    data = load(saved(tmp_path, text))
    assert data.feature_names == names
    assert any("is left out" in note for note in data.notes) == (left_out is not None)
    assert left_out is None or any(left_out in note for note in data.notes)
    x, _, _ = load_rows(saved(tmp_path, text), schema=data.schema)
    assert x.shape == (40, len(names))


NAMES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=6).map(str.strip),
    min_size=2,
    max_size=5,
    unique=True,
).filter(lambda names: sum(name.isalpha() for name in names) > 0)


@FIXED
@given(names=NAMES, data=st.data())
def test_every_column_can_be_dropped_or_typed_whatever_its_name(tmp_path, names, data):
    out = io.StringIO()
    csv.writer(out).writerows(
        [["x", *names], *[[v, *[k] * len(names)] for v, k in zip(WAVE, [3, 4] * 20, strict=True)]]
    )
    path = saved(tmp_path, out.getvalue())
    if "x" in names or any(name.startswith(("#", "column", "Unnamed")) or name in tables.LABEL for name in names):
        return
    chosen = data.draw(st.sampled_from(names))
    assert load(path, header="yes", drop=[chosen]).shape == (len(names),)
    quoted = '"' + chosen.replace('"', '""') + '"'
    assert load(path, header="yes", types=f"{quoted}=drop").shape == (len(names),)
    kinds = [column.kind for column in load(path, header="yes", types=f"x=real,{quoted}=categorical").schema]
    assert kinds == ["real", *("categorical" if name == chosen else "real" for name in names)]


def test_what_cannot_be_dropped_is_said(tmp_path):
    path = saved(tmp_path, "a,b\n" + lines(WAVE, WAVE))
    with pytest.raises(DataError, match=r"drop: .* has no column 'c'; it has a, b"):
        load(path, drop="c")
    with pytest.raises(DataError, match="`drop` applies to a table"):
        load("digits", drop=["c"])
    assert load(path, drop="b").options == {"drop": ["b"]}


# --- round trips ------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=5)


@FIXED
@given(
    numbers=st.lists(st.floats(-1e9, 1e9) | st.integers(-(10**6), 10**6), min_size=4, max_size=12),
    words=st.lists(
        TEXT | st.sampled_from(["a b", 'say "x"', "a,b", "c;d", "e|f", "two\nlines"]), min_size=2, max_size=5
    ),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_whatever_csv_writes_comes_back(tmp_path, numbers, words, delimiter, quoting, end, encoding):
    cells = [f"w{words[i % len(words)]}" for i in range(len(numbers))]
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([["number", "word"], *zip(numbers, cells, strict=True)])
    table = read(tmp_path, out.getvalue().encode(encoding))
    assert list(table.columns) == ["number", "word"]
    np.testing.assert_array_equal(table.columns["number"], np.array(numbers, np.float64))
    assert table.columns["word"].tolist() == cells


def test_text_that_appears_far_down_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("vaekit.data.readers.delimited.BLOCK_CELLS", 8)
    monkeypatch.setattr("vaekit.data.readers.delimited.BLOCK_ROWS", 4)
    cells = [*map(str, range(30)), "x", "NA"]
    table = read(tmp_path, "a,b\n# note\n" + lines(cells, [*range(31), 0.5]))
    assert table.columns["a"].tolist() == cells
    np.testing.assert_array_equal(table.columns["b"], [*range(31), 0.5])
    assert table.notes == ("skipped 1 line starting with #",)


@pytest.mark.parametrize("text", ["NA\n1.5\n2.5\n3.5\n", "?,anna\n5,bob\n7,cleo\n9,dora\n"])
def test_a_first_row_of_missing_numbers_is_no_header(tmp_path, text):
    found = read(tmp_path, text)
    assert found.names[0] == "column1"
    assert len(found.columns["column1"]) == 4
    assert "not a header" in " ".join(found.notes)


def test_an_empty_cell_above_an_index_is_in_a_header(tmp_path):
    assert read(tmp_path, ",name\n0,bob\n1,cleo\n2,dora\n").names == ("column1", "name")


def test_comments_within_one_column(tmp_path):
    found = read(tmp_path, "1.5\n#recalibrated\n2.5\n4.5\n")
    np.testing.assert_array_equal(found.columns["column1"], [1.5, 2.5, 4.5])


def test_header_may_be_a_bool_and_is_kept_as_a_word(tmp_path):
    path = saved(tmp_path, lines(WAVE, WAVE[::-1]))
    assert load(path, header=False).options["header"] == "no"
    assert load(path, header=True).options["header"] == "yes"


def test_categories_with_decimal_commas_are_read_again_with_a_schema(tmp_path):
    text = "x;dose;mass\n" + lines(german(WAVE), ["0,5", "1,5"] * 20, ["1.000", "1"] * 20, by=";")
    path = saved(tmp_path, text)
    data = load(path, types="dose=categorical,mass=categorical", decimal="comma")
    assert data.schema[2].categories == ("1", "1000")
    again = read_rows(path, schema=data.schema, decimal="comma")
    np.testing.assert_array_equal(again.x[:, 1:], [[0, 1], [1, 0]] * 20)


def test_a_decimal_comma_that_comes_late_is_that_of_the_cells_too(tmp_path):
    path = saved(tmp_path, "a;b\n" + "1;2\n" * 500 + "1,5;2\n")
    cells, dialect = writing.texts(path)
    assert dialect.decimal == "comma"
    assert cells["a"][-1] == "1,5"


@pytest.mark.parametrize(
    ("cells", "note"),
    [
        (["0.5%", "0.25"], "numbers with % and no sign are mixed, and the signs are ignored"),
        (["$3.50", "€4"], "numbers with $ and € are mixed"),
        (["20200131", "20200201"], "dates written as numbers such as 20200131, whose differences are not days"),
        (["-999", "0.5", "2.5"], "14 values are -999, and all others are much smaller"),
        (["9999", "12", "17"], "14 values are 9999, and all others are much smaller"),
        ([str(10**17 + i) for i in range(42)], "more than 15 digits, which lose their last digits"),
        (["3%", "4%"], None),
        (["20200131", "20201301"], None),
        (["-999", "-998", "1000"], None),
        (["99", "70"], None),
    ],
)
def test_numbers_that_may_mean_something_else_are_noted(tmp_path, cells, note):
    """They are read as they stand: -999 of a station without a measurement, 0.5% beside 0.005."""
    text = "v,w\n" + lines([cells[i % len(cells)] for i in range(42)], np.arange(42) ** 2)
    said = " ".join(load(saved(tmp_path, text)).notes)
    if note is None:
        assert not any(words in said for words in ("mixed", "dates", "much smaller", "digits"))
    else:
        assert "column 'v'" in said
        assert note in said


@pytest.mark.parametrize("values", [WAVE, np.arange(40) % 3])
def test_a_row_of_units_is_refused(tmp_path, values):
    """Even below a column of few different numbers, which would become categories with the unit."""
    text = "temp,n\n°C,pcs\n" + lines(values, np.arange(40) % 4)
    with pytest.raises(DataError, match="row 0 is '°C': if that row holds units or further names, delete it"):
        load(saved(tmp_path, text))


def test_a_second_byte_order_mark_is_no_part_of_a_name(tmp_path):
    table = read(tmp_path, "\ufeff\ufeffv,w\n" + lines(WAVE, WAVE))
    assert table.names == ("v", "w")


def test_rows_longer_than_the_header_may_begin_with_their_names(tmp_path):
    """As R writes a filtered table."""
    with pytest.raises(DataError, match="got 3; if the first value of each row is its name, give that column a name"):
        read(tmp_path, '"v" "w"\n' + lines([f'"{i}"' for i in np.arange(40) * 3], WAVE, WAVE, by=" "))
    with pytest.raises(DataError, match="got 2; if there are lines above the header, delete them"):
        read(tmp_path, "% made by a program\n" + lines(WAVE, WAVE, by=" "))


def test_tables_of_pixels_and_of_labels_by_other_names_are_noted(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 64))
    header = "Label," + ",".join(f"{i}x{j}" for i in range(8) for j in range(8))
    path = saved(tmp_path, header + "\n" + lines(np.arange(20) % 3, *pixels.T))
    said = " ".join(load(path).notes)
    assert "if column 'Label' holds the labels, give `label='Label'`" in said
    assert "if they are images, use `shape='8x8'`" in " ".join(load(path, label="Label").notes)
    assert load(path, label="Label", shape="8x8").shape == (1, 8, 8)
    assert not any("label" in note for note in load(path, label="Label").notes)
