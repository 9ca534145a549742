"""The labels and further values of a WebDataset: files such as 17.cls, 17.json and 17.txt beside the image 17.jpg."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.data.core import Array, counted, listed
from vaekit.data.source import Source
from vaekit.errors import DataError

from . import folders, frames
from .image_file import content_of
from .images import Pictures

VALUES = ("cls", "json", "txt")
"""Suffixes of the files that hold a label or further values."""
LABELS = ("label", "cls", "class", "y", "target")
MOST_TEXT = 2**20
"""Bytes of a file with a label or further values at most."""
MOST_NUMBERS = 100
"""Numbers of a list that become columns at most."""


def key_of(name: str) -> tuple[str, str]:
    """The key and the suffix of a file: its name is split at the first point of its last part."""
    folder, slash, file = name.rpartition("/")
    key, _, suffix = file.partition(".")
    return folder + slash + key, suffix.lower()


def values_among(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """The files with a label or further values, by the key of the image beside them and their suffix; empty if none."""
    images = {key_of(name)[0] for name in folders.images_among(names)[0]}
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        key, suffix = key_of(name)
        if suffix in VALUES and key in images:
            found[key][suffix] = name
    return dict(found)


def one_each(files: list[str], chosen: str | None, path: Path) -> list[str]:
    """The images with the chosen suffix, or all if no two have the same key.

    Raises:
        DataError: there are none with this suffix, or several images per key.
    """
    if chosen is not None:
        kept = [name for name in files if key_of(name)[1] == chosen.lower().lstrip(".")]
        if not kept:
            raise DataError(f"x_key={chosen!r}: {path} has no such images; it has {_suffixes(files)}")
        return kept
    if len({key_of(name)[0] for name in files}) < len(files):
        raise DataError(f"{path} has several images per example ({_suffixes(files)}): choose one of them with `x_key`")
    return files


def _suffixes(files: Sequence[str]) -> str:
    return listed([suffix for suffix, _ in Counter(key_of(name)[1] for name in files).most_common()])


def described(
    read: Source, pictures: Pictures, values: dict[str, dict[str, str]], label: str | None, to_train: bool
) -> Source:
    """The images with the labels and columns of the files beside them.

    A number or text becomes a cell of a column. Lists of numbers that have one length in all examples become the
    columns NAME_0, NAME_1, ..., and lists of one number the column NAME. Notes name the values that are not used.

    Args:
        read: the images, with their names.
        pictures: where the images and the files beside them lie.
        values: the files beside them, as from `values_among`.
        label: column with the labels; else a usual one, if it holds whole numbers or texts.
        to_train: whether a missing `label` is an error.

    Raises:
        DataError: a file is too long or damaged, or there is no column `label`.
    """
    path, names = pictures.path, read.names or []
    of_key = {folders.printable(key): found for key, found in values.items()}
    wanted = [name for image in names for name in of_key.get(key_of(image)[0], {}).values()]
    row = {key_of(image)[0]: i for i, image in enumerate(names)}
    cells: dict[str, list[Any]] = {}
    for part in pictures.chunks(wanted):
        for name, file in part:
            key, suffix = key_of(name)
            with content_of(file) as stream:
                text = stream.read(MOST_TEXT + 1)
            for column, value in _parsed(text, suffix, f"{path}: {name}").items():
                cells.setdefault(column, [None] * len(names))[row[folders.printable(key)]] = value
    columns, unused, notes = _columns(cells, path)
    if label is not None and label not in columns and to_train:
        why = f"no such column, but {unused[label]} of this name" if label in unused else "no such column"
        raise DataError(f"label={label!r}: {path} has {why}; it has {listed(list(columns)) or 'none'}")
    target = (
        label
        if label in columns
        else next((name for name in LABELS if name in columns and _is_code(columns[name])), None)
    )
    codes = None if target is None or label in columns else columns.pop(target)  # a label that is asked for is a column
    if codes is not None and codes.dtype.kind == "f":
        codes = np.where(np.isnan(codes), -1, codes)
    return replace(read, label=codes, columns=columns, notes=(*read.notes, *notes))


def _is_code(values: Array) -> bool:
    known = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    return values.dtype.kind != "f" or bool((known == np.round(known)).all())


def _parsed(content: bytes, suffix: str, where: str) -> dict[str, Any]:
    """The values in a file, by the name of the column.

    Raises:
        DataError: the file is too long, or is not text in UTF-8 or JSON.
    """
    if len(content) > MOST_TEXT:
        raise DataError(f"{where} is longer than {MOST_TEXT:,} bytes")
    try:
        text = content.decode("utf-8").strip()
        found = json.loads(text) if suffix == "json" else {suffix: text}
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not {'JSON' if suffix == 'json' else 'text in UTF-8'} ({error})") from error
    found = found if isinstance(found, dict) else {"json": found}
    return {name: value for name, value in found.items() if value is not None}


def _columns(cells: dict[str, list[Any]], path: Path) -> tuple[dict[str, Array], dict[str, str], list[str]]:
    """The columns, what the values that are not used hold by name, and notes."""
    columns: dict[str, Array] = {}
    unused: dict[str, str] = {}
    notes = []
    for name, found in _flat(cells).items():
        others = [value for value in found if _is_other(value)]
        plain = [None if _is_other(value) else value for value in found]
        if others and all(value is None for value in plain):
            unused[name] = _kind(others)
            continue
        if others:
            notes.append(
                f"column {name!r}: {_kind(others)} are read as missing values ({len(others):,} of {len(found):,})"
            )
        parsed = frames.values_of(plain, f"{path}: {name}")
        if parsed.dtype.kind == "O":
            notes.append(f"column {name!r} holds long texts: not used")
        else:
            columns[name] = parsed
    if unused:
        which = listed([f"{name!r} ({what})" for name, what in unused.items()])
        notes.append(
            f"values in .json files that are not used: {which}; numbers, texts and lists of up to {MOST_NUMBERS} "
            "numbers, of one length in all examples, become columns if no other value has the name of the column"
        )
    return columns, unused, notes


def _flat(cells: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The cells, with lists of numbers of one length as the cells of one column per number."""
    flat: dict[str, list[Any]] = {}
    for name, found in cells.items():
        lists = [value for value in found if value is not None]
        lengths = {len(value) if _has_numbers(value) else 0 for value in lists}
        size = lengths.pop() if len(lengths) == 1 else 0
        titles = [name] if size == 1 else [f"{name}_{i}" for i in range(size)]
        if not 0 < size <= MOST_NUMBERS or (size > 1 and not cells.keys().isdisjoint(titles)):
            flat[name] = found
        else:
            flat |= {title: [value and value[i] for value in found] for i, title in enumerate(titles)}
    return flat


def _has_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(item is None or isinstance(item, int | float) for item in value)


def _is_other(value: Any) -> bool:
    """Whether a value is neither a finite number, nor a text, nor missing."""
    return isinstance(value, list | dict) or (isinstance(value, float) and math.isinf(value))


def _kind(values: list[Any]) -> str:
    """What these values hold, for a message."""
    kinds = []
    if any(isinstance(value, float) for value in values):
        kinds.append("infinite numbers")
    if any(isinstance(value, dict) for value in values):
        kinds.append("objects")
    if lists := [value for value in values if isinstance(value, list)]:
        low, high = min(map(len, lists)), max(map(len, lists))
        length = counted(high, "value") if low == high else f"{low:,} to {high:,} values"
        kinds.append(f"lists of {length}{'' if all(map(_has_numbers, lists)) else ', not only numbers'}")
    return " and ".join(kinds)
