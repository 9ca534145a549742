"""Checks of the data before training: each error says how many examples a study needs and how many the data have."""

from __future__ import annotations

import math

import numpy as np

from vaekit.data.core import Data
from vaekit.errors import ChoiceError
from vaekit.utils.uncertainty import units

from .words import listed

LEAST = {"test": (30, 0.1), "valid": (10, 0.1), "train": (100, 0.8)}
"""For each split: the number of examples that a study needs, and the share that the default split gives it."""
GROUPS = 10  # minimum number of groups in the test data, if the data are split by group
EACH = 2  # minimum number of labelled examples per class, on average


def check_sizes(data: Data, name: str) -> None:
    """Check that every split has enough examples, and the test split enough groups.

    Raises:
        ChoiceError: a split is too small for a study.
    """
    for part, (least, share) in LEAST.items():
        n = len(getattr(data, part))
        if n < least:
            raise ChoiceError(
                f"{name} needs at least {least} {part} examples, but {data.name} has {n}: give at least "
                f"{math.ceil(least / share)} examples, or your own splits with {least} {part} examples"
            )
    group = data.test.group
    if group is not None and units(len(group), group) < GROUPS:
        raise ChoiceError(
            f"{name} needs test data from at least {GROUPS} groups, because standard errors are computed over groups, "
            f"but {data.name} has {units(len(group), group)}: give data from at least {10 * GROUPS} groups"
        )


def check_classes(data: Data, name: str) -> None:
    """Check that test and training data have at least two classes, with enough labelled examples.

    Raises:
        ChoiceError: a split has fewer than two classes, or too few labelled examples.
    """
    for part in ("test", "train"):
        label = getattr(data, part).label
        known = np.zeros(0, int) if label is None else label[label >= 0]
        classes = len(np.unique(known))
        if classes < 2:
            raise ChoiceError(
                f"{name} needs at least two classes, but the {part} data of {data.name} have {classes}: give a folder "
                "with one folder per class, or name the column of classes (`label`)"
            )
        need = max(LEAST[part][0], EACH * classes)
        if len(known) < need:
            raise ChoiceError(
                f"{name} needs at least {need} labelled {part} examples for {classes} classes, but {data.name} has "
                f"{len(known)}"
            )


def check_whole(data: Data, name: str) -> None:
    """Check that distances between examples are defined: no missing values, and columns of one kind.

    Raises:
        ChoiceError: values are missing, or a table has columns that are not real.
    """
    if data.missing:
        raise ChoiceError(f"{name} needs data without missing values: fill them in, or drop those rows")
    check_kinds(data, name)


def check_kinds(data: Data, name: str) -> None:
    """Check that all columns of a table are real-valued.

    Raises:
        ChoiceError: a table has columns of another kind.
    """
    if data.kind == "counts":
        return
    if kinds := sorted({column.kind for column in data.schema} - {"real"}):
        raise ChoiceError(
            f"{name} needs real-valued columns, but {data.name} has {listed(kinds)} columns: drop these, or declare "
            "them as real"
        )


def check_images(data: Data, name: str, side: int) -> None:
    """Check that the data are images with at least `side` pixels per side.

    Raises:
        ChoiceError: the data are not images, or are too small.
    """
    if data.kind != "image":
        raise ChoiceError(f"{name} needs images, but {data.name} holds data of kind {data.kind}")
    if min(data.shape[1:]) < side:
        height, width = data.shape[1:]
        raise ChoiceError(f"{name} needs images of at least {side}x{side} pixels, but these are {height}x{width}")
