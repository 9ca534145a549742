"""Splits into train, valid and test: deterministic, disjoint and not empty."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.errors import ChoiceError, DataError

from .core import Array, counted

Rows = NDArray[np.int64]
FRACTION = 0.1
PARTS = ("train", "valid", "test")
WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Common names of the splits."""
ENDINGS = ("", "set", "data", "images", "imgs", "split")
"""Endings that may follow these names."""


def part_named(name: str) -> tuple[str, str] | None:
    """The split that a name such as Train, test_set, val2017 or pets-train stands for, and the rest of the name.

    The rest is the same for all splits of one data set: "" for the first three names, "pets" for the last. None if the
    name contains no split, or several.
    """
    words = re.findall("[a-z]+|[0-9]+", name.lower())
    whole = "".join(filter(str.isalpha, words))
    alone = [w for end in ENDINGS if (w := whole.removesuffix(end)) in WORDS and whole.endswith(end)]
    if alone:
        return WORDS[alone[0]], ""
    parts = [word for word in words if word in WORDS]
    if len(parts) != 1:
        return None
    return WORDS[parts[0]], " ".join(word for word in words if word not in (*parts, *ENDINGS))


def count_of(kept: Rows) -> int:
    """The number of rows in `kept`: row numbers (n,), or ranges (k, 2) of first and last + 1."""
    return len(kept) if kept.ndim == 1 else int((kept[:, 1] - kept[:, 0]).clip(0).sum())


def rows_of(kept: Rows) -> Rows:
    """The row numbers (n,) in `kept`: row numbers (n,), or ranges (k, 2) of first and last + 1."""
    return kept if kept.ndim == 1 else np.concatenate([np.arange(a, b) for a, b in kept] or [kept[:, 0]])


def stored(splits: Mapping[str, ArrayLike], n: int) -> dict[str, Rows]:
    """The rows of train, valid and test as `splits` gives them, such as those stored by an earlier run.

    A part may be row numbers (n,), or ranges of rows (k, 2) of first and last + 1.

    Raises:
        DataError: a part is missing or empty, or rows repeat, overlap or lie outside 0..n-1.
    """
    if set(splits) != set(PARTS):
        raise DataError(f"splits needs exactly the keys train, valid and test, got {sorted(splits)}")
    rows: dict[str, Rows] = {}
    for part in PARTS:
        index = np.asarray(splits[part])
        if index.ndim == 2 and index.shape[1] == 2 and index.dtype.kind in "iu":
            if len(index) and (index.min() < 0 or index.max() > n or count_of(index) > n):
                raise DataError(
                    f"splits[{part!r}] contains rows {index.min()} to {index.max() - 1}, but the data have rows "
                    f"0..{n - 1}: these splits belong to other data; load those data, or omit `splits`"
                )
            index = rows_of(index)
        if index.ndim != 1 or not len(index) or index.dtype.kind not in "iu":
            raise DataError(
                f"splits[{part!r}] must be a non-empty list of row numbers, got {index.dtype} of shape {index.shape}"
            )
        if index.min() < 0 or index.max() >= n:
            outside = index[(index < 0) | (index >= n)][0]
            raise DataError(
                f"splits[{part!r}] contains row {outside}, but the data have rows 0..{n - 1}: these splits belong to "
                "other data; load those data, or omit `splits`"
            )
        rows[part] = index.astype(np.int64)
    repeated = np.flatnonzero(sum(np.bincount(rows[part], minlength=n) for part in PARTS) > 1)
    if len(repeated):
        raise DataError(
            f"splits contains row {repeated[0]} more than once ({len(repeated)} rows are repeated): "
            "train, valid and test must not overlap"
        )
    return rows


def assign(
    n: int,
    *,
    valid: float = FRACTION,
    test: float = FRACTION,
    seed: int = 0,
    own: Mapping[str, Rows] | None = None,
    group: Array | None = None,
) -> dict[str, Rows]:
    """Rows of train, valid and test: parts in `own` are kept, the others are drawn from its "train" rows (or all).

    Args:
        n: number of rows in all.
        valid, test: fractions of the rows that are drawn from; at least one row each.
        seed: seed of the draw.
        own: parts that the source itself defines.
        group: (n,); rows with equal values stay in one part, and the fractions are approximate.

    Raises:
        DataError: a fraction is out of range or for a part in `own`, or there are too few rows or groups.
    """
    own = dict(own or {})
    wanted = {"test": float(test), "valid": float(valid)}
    for part, fraction in wanted.items():
        if not 0 <= fraction < 1:
            raise DataError(f"{part} must be a fraction in [0, 1), got {fraction:g}")
        if part in own and fraction != FRACTION:
            raise DataError(
                f"`{part}={fraction:g}` does not apply: the data come with their own {part} split "
                f"({len(own[part])} rows); omit `{part}`, or give your own rows as `splits`"
            )
    pool = own.pop("train", np.arange(n))
    wanted = {part: fraction for part, fraction in wanted.items() if part not in own}
    if sum(wanted.values()) >= 1:
        raise DataError(f"valid + test must be below 1 to leave rows to train on, got {sum(wanted.values()):g}")
    need = 1 + len(wanted)
    if len(pool) < need:
        raise DataError(
            f"the data have {len(pool)} row{'s' * (len(pool) != 1)} for {', '.join(['train', *wanted])}, "
            f"expected at least {need}: every split needs a row; give more data"
        )
    if group is None:
        parts = _rows(pool, wanted, seed)
    elif wanted:
        parts = _groups(pool, group, wanted, seed)
    else:
        raise DataError("`group` does not apply: the data come with their own splits; omit `group`")
    return {part: (own | parts)[part].astype(np.int64) for part in PARTS}


def drawn(given: Mapping[str, Rows] | None, parts: Mapping[str, Rows]) -> list[str]:
    """A note on the parts that were drawn from the training rows, if the data have some splits of their own."""
    lacking = [f"{part} ({counted(len(parts[part]), 'row')})" for part in PARTS if given and part not in given]
    if not given or not lacking:
        return []
    return [
        f"the data come with their own {' and '.join(given)} splits; {' and '.join(lacking)} drawn from the train split"
    ]


def _rows(pool: Rows, wanted: Mapping[str, float], seed: int) -> dict[str, Rows]:
    order = np.random.default_rng(seed).permutation(pool) if wanted else pool
    sizes = {part: max(1, round(fraction * len(pool))) for part, fraction in wanted.items()}
    while sizes and sum(sizes.values()) >= len(pool):
        sizes[max(sizes, key=lambda part: sizes[part])] -= 1
    parts: dict[str, Rows] = {}
    for part, size in sizes.items():
        parts[part], order = np.sort(order[:size]), order[size:]
    return parts | {"train": np.sort(order) if wanted else pool}


def _groups(pool: Rows, group: Array, wanted: Mapping[str, float], seed: int) -> dict[str, Rows]:
    values, code, sizes = np.unique(group[pool], return_inverse=True, return_counts=True)
    if len(values) <= len(wanted):
        raise DataError(
            f"`group` has {len(values)} distinct value{'s' * (len(values) != 1)}, expected at least "
            f"{1 + len(wanted)}: each split needs a whole group; choose a column with more values"
        )
    home: dict[int, str] = {}
    filled: dict[str, int] = dict.fromkeys(wanted, 0)
    for g in map(int, np.random.default_rng(seed).permutation(len(values))):
        fits = (p for p, f in wanted.items() if filled[p] + sizes[g] <= f * len(pool))
        home[g] = part = next(fits, "train")
        filled[part] = filled.get(part, 0) + int(sizes[g])
    for part in (*wanted, "train"):  # fill parts that stayed empty because every group exceeds their fraction
        if not filled.get(part):
            counts = {p: sum(h == p for h in home.values()) for p in (*wanted, "train")}
            spare = [g for g in home if counts[home[g]] > 1]
            smallest = min(spare, key=lambda g: (int(sizes[g]), g))
            filled[home[smallest]] -= int(sizes[smallest])
            home[smallest], filled[part] = part, int(sizes[smallest])
    owner: NDArray[Any] = np.array([home[g] for g in range(len(values))])[code]
    return {part: np.sort(pool[owner == part]) for part in (*wanted, "train")}


def labelled_rows(labels: Array, count: int, seed: int) -> Rows:
    """The rows whose labels a semi-supervised model uses: `count` rows, balanced over the classes, ascending.

    The classes take turns, so that their numbers of rows differ by at most one unless a class runs out of rows. The
    rows for a smaller `count` are a subset of those for a larger one.

    Args:
        labels: (n,) class numbers; -1 is unknown and is not chosen.
        count: number of rows.
        seed: seed of the choice.

    Raises:
        ChoiceError: `count` is below the number of classes or above the number of labels.
    """
    labels = np.asarray(labels)
    known = np.flatnonzero(labels != -1)
    values, codes = np.unique(labels[known], return_inverse=True)
    if not max(len(values), 1) <= count <= len(known):
        raise ChoiceError(
            f"the number of labelled rows must lie in {max(len(values), 1)}..{len(known)} (from one per class, for "
            f"{len(values)} classes, to all rows with a label), got {count}"
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(known))
    turn = np.empty(len(known), np.int64)  # 0 for the first row of a class, 1 for the second, ...
    for c in range(len(values)):
        members = order[codes[order] == c]
        turn[members] = np.arange(len(members))
    rank = rng.permutation(len(values))[codes]
    return np.sort(known[np.lexsort((rank, turn))[:count]]).astype(np.int64)
