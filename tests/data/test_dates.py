"""Columns of dates are numbers with a format, and are written back as they were."""

import datetime

import numpy as np
import pytest

from vaekit.data.core import Column
from vaekit.data.loading import from_arrays, load
from vaekit.data.readers import dates
from vaekit.data.readers.table import source
from vaekit.data.results import write_columns
from vaekit.data.writing import shown, typed
from vaekit.errors import DataError

N = 40
DAYS = [datetime.date(2019, 12, 20) + datetime.timedelta(days=9 * i) for i in range(N)]
TIMES = [datetime.datetime(2019, 12, 20, 8, 5, 3) + datetime.timedelta(hours=31 * i, seconds=7 * i) for i in range(N)]


def file(path, cells, name="when"):
    path.write_text(f"x,{name}\n" + "".join(f'{i / 7},"{cell}"\n' for i, cell in enumerate(cells)))
    return path


def plain(form, at):
    """`strftime` without leading zeros, which not every platform has."""
    return form.replace("%-d", str(at.day)).replace("%-m", str(at.month)).replace("%-H", str(getattr(at, "hour", 0)))


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%-d.%-m.%Y", "%m/%d/%Y", "%-m/%-d/%Y", "%d-%b-%Y", "%-d %B %Y",
        "%b %d, %Y", "%d.%m.%y", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S+02:00",
        "%m/%d/%Y %I:%M:%S %p", "%d.%m.%Y %-H:%M:%S", "%Y-%m-%d %H:%M:%S.%3f",
    ],
)  # fmt: skip
def test_dates_are_read_as_numbers_and_written_as_they_were(tmp_path, form):
    timed = "M:" in form
    at = TIMES if timed else DAYS
    cells = [a.strftime(plain(form, a).replace("%3f", "250")) for a in at]
    assert dates.formats_of(sorted(set(cells)))[0] == form
    data = load(file(tmp_path / "a.csv", cells))
    column = data.schema[1]
    assert (column.kind, column.format) == ("real", form)
    rows = data.train.raw[:, 1].astype(np.float64)
    epoch = datetime.datetime(1970, 1, 1)
    exact = [(a - epoch).total_seconds() + 0.25 * ("f" in form) if timed else (a - epoch.date()).days for a in at]
    np.testing.assert_array_equal(rows, exact)
    assert shown(column, rows) == cells
    assert shown(column, np.array([np.nan])) == [""]
    assert any(f"'when': dates such as {max(cells)!r} are read as" in note for note in data.notes)
    assert Column.from_json(column.as_json()) == column
    again = source(file(tmp_path / "b.csv", cells[::-1]), schema=data.schema).x[:, 1]
    np.testing.assert_array_equal(again, rows[::-1])


def test_day_and_month_are_noted_where_they_may_be_exchanged(tmp_path):
    cells = [f"{1 + i % 12:02}/{1 + i % 9:02}/2020" for i in range(N)]
    data = load(file(tmp_path / "a.csv", cells))
    assert data.schema[1].format == "%m/%d/%Y"
    (note,) = [note for note in data.notes if "not certain" in note]
    assert "`types='when=%d/%m/%Y'` exchanges them" in note
    other = load(file(tmp_path / "a.csv", cells), types="when=%d/%m/%Y")
    assert other.schema[1].format == "%d/%m/%Y"
    assert shown(other.schema[1], other.train.raw[:, 1]) == cells
    assert not [note for note in load(file(tmp_path / "b.csv", [*cells[1:], "12/31/2020"])).notes if "certain" in note]


def test_whole_numbers_may_be_dates_if_the_user_says_so(tmp_path):
    cells = [day.strftime("%Y%m%d") for day in DAYS]
    data = load(file(tmp_path / "a.csv", cells), types={"when": "%Y%m%d"})
    assert shown(data.schema[1], data.train.raw[:, 1]) == cells
    assert data.train.raw[1, 1] - data.train.raw[0, 1] == 9


def test_a_missing_date_is_missing_and_another_format_an_error(tmp_path):
    cells = [day.isoformat() for day in DAYS]
    data = load(file(tmp_path / "a.csv", ["", "NA", *cells[2:]]), missing="mask")
    assert np.isnan(data.train.raw[:2, 1]).all()
    with pytest.raises(DataError, match=r"'when' holds dates or times .* not all written in one"):
        load(file(tmp_path / "b.csv", ["20.12.2019", *cells[1:]]))
    with pytest.raises(DataError, match=r"row 3, column 'when' is '2020-02-30', expected a date written %Y-%m-%d"):
        load(file(tmp_path / "c.csv", [*cells[:3], "2020-02-30", *cells[4:]]), types="when=%Y-%m-%d")
    with pytest.raises(DataError, match=r"the format '%Q' of column 'when' is unknown"):
        load(file(tmp_path / "a.csv", cells), types="when=%Q")


def test_dates_in_frames(tmp_path):
    pa = pytest.importorskip("pyarrow")
    x = [i / 3 for i in range(N)]
    data = from_arrays(pa.table({"x": x, "day": DAYS, "time": TIMES}))
    assert [column.format for column in data.schema] == ["", "%Y-%m-%d", "%Y-%m-%d %H:%M:%S"]
    write_columns(tmp_path / "out.csv", typed(data.schema, np.asarray(data.train.raw)))
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "x,day,time"
    assert [line.split(",", 1)[1] for line in lines[1:]] == [f"{d},{t}" for d, t in zip(DAYS, TIMES, strict=True)]
