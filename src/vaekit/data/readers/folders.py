"""What the folders that images lie in tell: which files are images, which split they belong to, and their classes."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vaekit.data.core import some
from vaekit.data.splits import PARTS, part_named

_PILLOW = """
    png apng jpg jpeg jpe jfif bmp dib gif webp tif tiff ppm pgm pbm pnm pfm avif avifs jp2 j2k j2c jpc jpf jpx tga icb
    vda vst ico icns pcx dds sgi rgb rgba bw qoi psd im msp xbm
"""
_TEXTS = "csv tsv parquet json jsonl txt md xml yaml yml html py ipynb log ini toml"
SUFFIXES = frozenset(f".{suffix}" for suffix in _PILLOW.split())
"""Files that Pillow reads by itself."""
ABOUT = frozenset(f".{suffix}" for suffix in _TEXTS.split())
"""Files that tell about images, whose absence from the data nobody is surprised by."""
SYSTEM = frozenset(("thumbs.db", "desktop.ini", "__macosx", "$recycle.bin"))
Parents = list[tuple[str, ...]]


def listing(path: Path) -> tuple[list[str], list[str]]:
    """Names of the image files below a folder, relative to it and sorted, and notes on what is left out.

    Hidden files and those of operating systems are passed over; links to folders are followed, each folder once.
    """
    found, others = [], Counter[str]()
    for parent, files in _walk(path):
        for name in filter(_counts, files):
            suffix = os.path.splitext(name)[1].lower()
            if suffix in SUFFIXES:
                found.append((Path(parent) / name).relative_to(path).as_posix())
            elif suffix not in ABOUT:
                others[suffix or "without a suffix"] += 1
    kinds = some([f"{suffix} ({count})" for suffix, count in others.most_common()])
    notes = [f"{_many(others.total(), 'file')} of other formats left out: {kinds}"] if others else []
    return sorted(found), notes


def count(path: Path, most: int) -> tuple[int, int]:
    """How many images lie below a folder, and how many files and folders; neither goes on beyond `most` of the last."""
    images = entries = 0
    for _, files in _walk(path):
        entries += 1 + len(files)
        images += sum(_counts(name) and os.path.splitext(name)[1].lower() in SUFFIXES for name in files)
        if entries > most:
            break
    return images, entries


def _walk(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder below `path` once, links followed, with the names of its files."""
    seen = {path.resolve()}
    for parent, folders, files in os.walk(path, followlinks=True):
        inside = []
        for name in folders:
            place = Path(parent, name).resolve()
            if _counts(name) and place not in seen:
                seen.add(place)
                inside.append(name)
        folders[:] = inside
        yield parent, files


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in SYSTEM


def chosen(files: list[str]) -> tuple[list[str], list[str]]:
    """The files that belong to a split, where folders make splits (else all files), with a note on the others."""
    parents = strip([PurePosixPath(name).parent.parts for name in files])
    level = _level_of_splits(parents)
    if level is None:
        return files, []
    inside = [_split_of(parent, level) is not None for parent in parents]
    kept = [name for name, yes in zip(files, inside, strict=True) if yes]
    if len(kept) == len(files):
        return kept, []
    outside = {parent[: level + 1] for parent, yes in zip(parents, inside, strict=True) if not yes}
    where = some(sorted({"/".join(parent) or "no folder" for parent in outside}))
    lost = _many(len(files) - len(kept), "image")
    return kept, [f"{lost} outside the folders of the splits (in {where}) left out; move them, or give one folder"]


@dataclass(frozen=True)
class Told:
    """Labels (-1 where unknown) with the names of the classes, the rows of each split, and notes."""

    label: NDArray[np.int64] | None
    label_names: list[str] | None
    splits: dict[str, NDArray[np.int64]] | None
    notes: list[str]


def told(names: list[str]) -> Told:
    """Splits from folders named train, Test, val and so on; labels from the first folders that tell images apart."""
    parents = strip([PurePosixPath(name).parent.parts for name in names])
    level, splits = _level_of_splits(parents), None
    if level is not None:
        part = np.array([_split_of(parent, level) or "" for parent in parents])
        splits = {name: np.flatnonzero(part == name) for name in PARTS if (part == name).any()}
        parents = strip([parent[:level] + parent[level + 1 :] for parent in parents])
    first = [parent[0] if parent else "" for parent in parents]
    classes = sorted(set(first) - {""})
    if len(classes) < 2:
        return Told(None, None, splits, [])
    notes = []
    if unknown := first.count(""):
        notes.append(f"{_many(unknown, 'image')} in no class folder: without a label")
    if deeper := {"/".join(parent) for parent in parents if len(parent) > 1}:
        notes.append(f"classes are {some(classes)}; folders inside them ({some(sorted(deeper), 4)}) were not used")
    code = {name: i for i, name in enumerate(classes)} | {"": -1}
    return Told(np.array([code[name] for name in first]), classes, splits, notes)


def _level_of_splits(parents: Parents) -> int | None:
    """How deep the folders lie that are named train and test (or valid), if there are such."""
    for level in range(max(map(len, parents), default=0)):
        found = Counter(_split_of(parent, level) for parent in parents)
        outside = found.pop(None, 0)
        if "train" in found and len(found) > 1 and (level == 0 or found.total() > outside):
            return level
    return None


def _split_of(parent: tuple[str, ...], level: int) -> str | None:
    return part_named(parent[level]) if level < len(parent) else None


def strip(parents: Parents) -> Parents:
    """The folders below the one in which all images lie."""
    shared = shared_folders(parents)
    return [parent[shared:] for parent in parents]


def shared_folders(parents: Parents) -> int:
    """How many folders, from the top, all of `parents` have in common."""
    first, last = min(parents), max(parents)
    return next(
        (i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), min(len(first), len(last))
    )


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
