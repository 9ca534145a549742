"""Columns of dates and times: their format, their cells as numbers, and numbers as cells in the same format.

A format is that of `time.strftime`, with a few directives of our own: `%-d` (also m, H, I) has no leading zero, `%3f`
is a fraction of a second of three digits, and `%?f` one of six digits that is left out if it is 0. Dates are numbers of
days, and times numbers of seconds, since 1970-01-01.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import ArrayLike

from vaekit.errors import DataError

EPOCH = datetime(1970, 1, 1)
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip
SHORT = tuple(name[:3] for name in MONTHS)
_PATTERNS = {
    "Y": "[0-9]{4}",
    "y": "[0-9]{2}",
    **dict.fromkeys("mdHIMS", "[0-9]{2}"),
    **{f"-{c}": "[1-9][0-9]?" for c in "md"},
    **{f"-{c}": "(?:0|[1-9][0-9]?)" for c in "HI"},
    "b": "|".join(SHORT),
    "B": "|".join(MONTHS),
    "p": "AM|PM",
    "f": "[0-9]{6}",
    "?f": r"(?:\.[0-9]{6})?",
    **{f"{n}f": f"[0-9]{{{n}}}" for n in range(1, 10)},
}
_DIRECTIVE = re.compile(r"%(-?[A-Za-z]|[?0-9]f)")
_DAYS = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y-%-m-%-d", "%Y/%-m/%-d",
    "%d.%m.%Y", "%-d.%-m.%Y", "%d.%m.%y", "%-d.%-m.%y",
    "%m/%d/%Y", "%-m/%-d/%Y", "%m/%d/%y", "%-m/%-d/%y", "%d/%m/%Y", "%-d/%-m/%Y", "%d/%m/%y", "%-d/%-m/%y",
    "%m-%d-%Y", "%-m-%-d-%Y", "%m-%d-%y", "%d-%m-%Y", "%-d-%-m-%Y", "%d-%m-%y",
    "%d-%b-%Y", "%-d-%b-%Y", "%d-%b-%y", "%-d-%b-%y", "%d %b %Y", "%-d %b %Y", "%d %B %Y", "%-d %B %Y",
    "%d. %B %Y", "%-d. %B %Y", "%b %d, %Y", "%b %-d, %Y", "%B %d, %Y", "%B %-d, %Y", "%B %-d %Y", "%Y-%m", "%Y/%m",
)  # fmt: skip
_CLOCKS = ("%H:%M", "%-H:%M", "%H:%M:%S", "%-H:%M:%S", "%I:%M %p", "%-I:%M %p", "%I:%M:%S %p", "%-I:%M:%S %p")
_TAIL = re.compile(r"(?<=[0-9AaPpMm])( ?(?:Z|UTC|[+-][0-9]{2}:?[0-9]{2}))$")


def formats_of(texts: Sequence[str]) -> list[str]:
    """The formats in which all of these distinct cells are written, so that they can be written back unchanged."""
    if not texts:
        return []
    first, zone = texts[0], _TAIL.search(texts[0])
    end = zone[1] if zone and ":" in first[: zone.start()] else ""
    fraction = re.search(r":[0-9]{2}([.,])([0-9]{1,9})(?=\D|$)", first)
    ends = [f"{fraction[1]}%{len(fraction[2])}f"] if fraction else []
    clocks = [clock + more for clock in _CLOCKS for more in ("", *(ends if clock.endswith("S") else ()))]
    clocks = [*clocks, "%H:%M:%S%?f"]
    joints = [" "] + (["T"] if "T" in first else []) + ([", "] if "," in first else [])
    timed = [day + joint + clock + end for day in _DAYS for joint in joints for clock in clocks] if ":" in first else []
    found = [form for form in (*_DAYS, *timed) if _pattern(form).fullmatch(first)]
    return [form for form in found if all(number(text, form) is not None for text in texts)]


def twin(form: str) -> str:
    """The format with day and month exchanged; "" if it cannot be confused with it."""
    if not re.match(r"%-?[dm]([/.-])%-?[dm]\1%[Yy]", form):
        return ""
    return re.sub(r"%(-?)([dm])", lambda m: f"%{m[1]}{'m' if m[2] == 'd' else 'd'}", form)


def check_format(form: str, name: str) -> None:
    """Raise DataError if a format of the user is not one, or leaves the day open."""
    directives = set(_DIRECTIVE.findall(form))
    plain = {d.lstrip("-") for d in directives}
    if "%" in _DIRECTIVE.sub("", form) or directives - set(_PATTERNS) or not plain & set("Yy"):
        raise DataError(
            f"types: the format {form!r} of column {name!r} is unknown: write the parts of a date as in '%Y-%m-%d' or "
            "'%d/%m/%Y %H:%M:%S' (%b for Jan, %-d for a day without leading zero)"
        )


def unit(form: str) -> str:
    """The unit of the numbers: "days" for dates, "seconds" for times."""
    return "seconds" if {d.lstrip("-") for d in _DIRECTIVE.findall(form)} & set("HI") else "days"


def whole(form: str) -> bool:
    """Whether the numbers are whole."""
    return not re.search(r"%(\?|[0-9])?f", form)


def number(text: str, form: str) -> float | None:
    """The number of a cell, or None if it is not written in this format."""
    match = _pattern(form).fullmatch(text)
    if match is None:
        return None
    parts = dict(zip(_DIRECTIVE.findall(form), match.groups(), strict=True))
    value = {name.lstrip("-"): part for name, part in parts.items()}
    year = int(value.get("Y") or 0) or (lambda y: y + (1900 if y >= 69 else 2000))(int(value.get("y", 70)))
    names = {**{n: i for i, n in enumerate(MONTHS, 1)}, **{n: i for i, n in enumerate(SHORT, 1)}}
    month = names.get(value.get("b") or value.get("B") or "", int(value.get("m") or 1))
    hour = int(value.get("H") or 0)
    if "I" in value:
        if not 1 <= int(value["I"]) <= 12:
            return None
        hour = int(value["I"]) % 12 + 12 * (value.get("p") == "PM")
    try:
        at = datetime(year, month, int(value.get("d") or 1), hour, int(value.get("M") or 0), int(value.get("S") or 0))
    except ValueError:
        return None
    days = (at - EPOCH).total_seconds() / 86400
    if unit(form) == "days":
        return days
    fraction = next((part for name, part in parts.items() if name.endswith("f")), "") or "0"
    return (at - EPOCH).total_seconds() + float(f"0.{fraction.lstrip('.')}")


def numbers(texts: Sequence[str], form: str) -> list[float | None]:
    """The numbers of cells; None for those that are not written in this format."""
    known = {text: number(text.strip(), form) for text in set(texts)}
    return [known[text] for text in texts]


def written(values: ArrayLike, form: str) -> list[str]:
    """Numbers as cells in this format; a missing value is an empty cell."""
    return ["" if v != v else _text(float(v), form) for v in np.asarray(values, np.float64).tolist()]


def _text(value: float, form: str) -> str:
    digits = next((6 if d in ("f", "?f") else int(d[0]) for d in _DIRECTIVE.findall(form) if d.endswith("f")), 0)
    if unit(form) == "days":
        at, rest = timedelta(days=round(value)), 0
    else:
        ticks = round(value * 10**digits)
        at, rest = timedelta(seconds=ticks // 10**digits), ticks % 10**digits
    try:
        at_time = EPOCH + at
    except OverflowError:
        at_time = datetime.max if value > 0 else datetime.min

    def part(match: re.Match[str]) -> str:
        name = match[1]
        if name.endswith("f"):
            fraction = f"{rest:0{digits}d}"
            return fraction if name != "?f" else f".{fraction}" if rest else ""
        plain = {
            "Y": f"{at_time.year:04d}", "y": f"{at_time.year % 100:02d}", "m": f"{at_time.month:02d}",
            "d": f"{at_time.day:02d}", "H": f"{at_time.hour:02d}", "I": f"{at_time.hour % 12 or 12:02d}",
            "M": f"{at_time.minute:02d}", "S": f"{at_time.second:02d}", "b": SHORT[at_time.month - 1],
            "B": MONTHS[at_time.month - 1], "p": "AM" if at_time.hour < 12 else "PM",
        }[name.lstrip("-")]  # fmt: skip
        return plain.lstrip("0") or "0" if name.startswith("-") else plain

    return _DIRECTIVE.sub(part, form)


def _pattern(form: str) -> re.Pattern[str]:
    pieces = _DIRECTIVE.split(form)  # text, directive, text, ...
    return re.compile("".join(f"({_PATTERNS[p]})" if i % 2 else re.escape(p) for i, p in enumerate(pieces)))
