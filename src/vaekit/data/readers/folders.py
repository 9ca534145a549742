"""Image files in folders: which files are images, and the splits and classes that the names of folders define."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vaekit.data.core import counted, listed
from vaekit.data.splits import PARTS, part_named

_PILLOW = """
    png apng jpg jpeg jpe jfif bmp dib gif webp tif tiff ppm pgm pbm pnm pfm avif avifs jp2 j2k j2c jpc jpf jpx tga icb
    vda vst ico icns pcx dds sgi rgb rgba bw qoi psd im msp xbm
"""
_TEXTS = "csv tsv parquet json jsonl txt md xml yaml yml html py ipynb log ini toml"
SUFFIXES = frozenset(f".{suffix}" for suffix in _PILLOW.split())
"""Suffixes of the files that Pillow reads without plug-ins."""
ABOUT = frozenset(f".{suffix}" for suffix in _TEXTS.split())
"""Suffixes of files that often accompany images; they are left out without a note."""
SYSTEM = frozenset(("thumbs.db", "desktop.ini", "__macosx", "$recycle.bin"))
Parents = list[tuple[str, ...]]


def listing(path: Path) -> tuple[list[str], list[str]]:
    """The image files below a folder, relative to it and sorted, and notes on the files that are left out.

    Hidden files and files of operating systems are skipped; links to folders are followed, each folder once.
    """
    images, others = [], Counter[str]()
    for parent, files in _walk(path):
        for name in filter(_counts, files):
            suffix = os.path.splitext(name)[1].lower()
            if suffix in SUFFIXES:
                images.append((Path(parent) / name).relative_to(path).as_posix())
            elif suffix not in ABOUT:
                others[suffix or "without a suffix"] += 1
    kinds = listed([f"{suffix} ({count})" for suffix, count in others.most_common()])
    notes = [f"left out {counted(others.total(), 'file')} of other formats: {kinds}"] if others else []
    return sorted(images), notes


def count(path: Path, most: int) -> tuple[int, int]:
    """The number of images, and of files and folders, below a folder; stops after `most` files and folders."""
    images = entries = 0
    for _, files in _walk(path):
        entries += 1 + len(files)
        images += sum(_counts(name) and os.path.splitext(name)[1].lower() in SUFFIXES for name in files)
        if entries > most:
            break
    return images, entries


def _walk(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder below `path` once, through links as well, with the names of its files."""
    visited = {path.resolve()}
    for parent, folders, files in os.walk(path, followlinks=True):
        new = []
        for name in folders:
            target = Path(parent, name).resolve()
            if _counts(name) and target not in visited:
                visited.add(target)
                new.append(name)
        folders[:] = new
        yield parent, files


def _counts(name: str) -> bool:
    """Whether a file or folder is neither hidden nor one of an operating system."""
    return not name.startswith(".") and name.lower() not in SYSTEM


def in_splits(files: list[str]) -> tuple[list[str], list[str]]:
    """The files in a split if folders define splits, else all files; and a note on the files left out."""
    parents = strip([PurePosixPath(name).parent.parts for name in files])
    level = _level_of_splits(parents)
    if level is None:
        return files, []
    inside = [_split_of(parent, level) is not None for parent in parents]
    kept = [name for name, is_inside in zip(files, inside, strict=True) if is_inside]
    if len(kept) == len(files):
        return kept, []
    outside = {parent[: level + 1] for parent, is_inside in zip(parents, inside, strict=True) if not is_inside}
    where = listed(sorted({"/".join(parent) or "no folder" for parent in outside}))
    images = counted(len(files) - len(kept), "image")
    return kept, [f"left out {images} outside the folders of the splits (in {where}); move them, or give one folder"]


@dataclass(frozen=True)
class Assignment:
    """Labels and splits of images.

    Attributes:
        label: (n,) classes, -1 if unknown; None without classes.
        label_names: names of the classes, or None.
        splits: the rows of each split, or None.
        notes: messages to the user.
    """

    label: NDArray[np.int64] | None
    label_names: list[str] | None
    splits: dict[str, NDArray[np.int64]] | None
    notes: list[str]


def labels_and_splits(names: list[str]) -> Assignment:
    """The splits from folders named train, Test, val and so on, and labels from the outermost folders that differ."""
    parents = strip([PurePosixPath(name).parent.parts for name in names])
    level, splits = _level_of_splits(parents), None
    if level is not None:
        part = np.array([_split_of(parent, level) or "" for parent in parents])
        splits = {name: np.flatnonzero(part == name) for name in PARTS if (part == name).any()}
        parents = strip([parent[:level] + parent[level + 1 :] for parent in parents])
    first = [parent[0] if parent else "" for parent in parents]
    classes = sorted(set(first) - {""})
    if len(classes) < 2:
        return Assignment(None, None, splits, [])
    notes = []
    if unknown := first.count(""):
        notes.append(f"{counted(unknown, 'image')} outside the class folders: without a label")
    if deeper := {"/".join(parent) for parent in parents if len(parent) > 1}:
        deeper_folders = listed(sorted(deeper), 4)
        notes.append(f"the classes are {listed(classes)}; the folders inside them ({deeper_folders}) are not used")
    code = {name: i for i, name in enumerate(classes)} | {"": -1}
    return Assignment(np.array([code[name] for name in first]), classes, splits, notes)


def _level_of_splits(parents: Parents) -> int | None:
    """The depth of the folders named train and test (or valid), or None."""
    for level in range(max(map(len, parents), default=0)):
        images = Counter(_split_of(parent, level) for parent in parents)
        outside = images.pop(None, 0)
        if "train" in images and len(images) > 1 and (level == 0 or images.total() > outside):
            return level
    return None


def _split_of(parent: tuple[str, ...], level: int) -> str | None:
    return part_named(parent[level]) if level < len(parent) else None


def strip(parents: Parents) -> Parents:
    """The folders of each image, without those that all images share."""
    shared = shared_folders(parents)
    return [parent[shared:] for parent in parents]


def shared_folders(parents: Parents) -> int:
    """The number of outermost folders that all of `parents` share."""
    first, last = min(parents), max(parents)
    return next(
        (i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), min(len(first), len(last))
    )
