"""What data a study needs, checked before anything is trained: refusals name the numbers that are there and needed."""

from __future__ import annotations

import math

import numpy as np

from vaekit.data.core import Data
from vaekit.errors import ChoiceError
from vaekit.utils.uncertainty import units

LEAST = {"test": (30, 0.1), "valid": (10, 0.1), "train": (100, 0.8)}
"""Data of each part that a study needs, and the share that the usual split gives it."""
GROUPS = 10  # of test data, where they are split by group
EACH = 2  # test data of a class at least, on average


def check_sizes(data: Data, name: str) -> None:
    """Raises ChoiceError where a part of the data is too small for a study to say anything."""
    for part, (least, share) in LEAST.items():
        n = len(getattr(data, part))
        if n < least:
            raise ChoiceError(
                f"{name} needs {least} {part} data or more, and {data.name} has {n}: give {math.ceil(least / share)} "
                f"data or more, or splits of your own with {least} {part} data"
            )
    group = data.test.group
    if group is not None and units(len(group), group) < GROUPS:
        raise ChoiceError(
            f"{name} needs test data of {GROUPS} groups or more, since errors are by group, and those of {data.name} "
            f"are of {units(len(group), group)}: give data of {10 * GROUPS} groups or more"
        )


def check_classes(data: Data, name: str) -> None:
    """Raises ChoiceError unless test and training data have two classes or more, with data enough in each."""
    for part in ("test", "train"):
        label = getattr(data, part).label
        known = np.zeros(0, int) if label is None else label[label >= 0]
        classes = len(np.unique(known))
        if classes < 2:
            raise ChoiceError(
                f"{name} needs data of two classes or more, and the {part} data of {data.name} have {classes}: give a "
                "folder of class folders, or name a column of classes (`label`)"
            )
        need = max(LEAST[part][0], EACH * classes)
        if len(known) < need:
            raise ChoiceError(
                f"{name} needs {need} {part} data with a class ({classes} classes), and {data.name} has {len(known)}"
            )


def check_whole(data: Data, name: str) -> None:
    """Raises ChoiceError where values are missing or columns are of several kinds: such data have no distances."""
    if data.missing:
        raise ChoiceError(f"{name} needs data without missing values: fill them in or drop such rows first")
    check_kinds(data, name)


def check_kinds(data: Data, name: str) -> None:
    """Raises ChoiceError where columns of a table are of several kinds."""
    if data.kind == "counts":
        return
    if kinds := sorted({column.kind for column in data.schema} - {"real"}):
        raise ChoiceError(
            f"{name} needs columns of plain numbers, and {data.name} has columns that are {', '.join(kinds)}: "
            "drop them or declare them real"
        )


def check_images(data: Data, name: str, side: int) -> None:
    """Raises ChoiceError unless the data are images of so many pixels a side."""
    if data.kind != "image":
        raise ChoiceError(f"{name} needs images, and {data.name} holds data of kind {data.kind}")
    if min(data.shape[1:]) < side:
        height, width = data.shape[1:]
        raise ChoiceError(f"{name} needs images of {side} pixels a side or more, and these are {height}x{width}")
