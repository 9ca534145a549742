"""Image files in folders: which files are images, and the splits and classes that the names of folders define."""

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vaekit.data.core import counted, listed
from vaekit.data.paths import SHARDS
from vaekit.data.splits import PARTS, part_named
from vaekit.errors import DataError

_PILLOW = """
    png apng jpg jpeg jpe jfif bmp dib gif webp tif tiff ppm pgm pbm pnm pfm avif avifs jp2 j2k j2c jpc jpf jpx tga icb
    vda vst ico icns pcx dds sgi rgb rgba bw qoi psd im msp xbm
"""
_TEXTS = "csv tsv parquet json jsonl txt md xml yaml yml html py ipynb log ini toml"
SUFFIXES = frozenset(f".{suffix}" for suffix in _PILLOW.split())
"""Suffixes of the files that Pillow reads without plug-ins."""
ABOUT = frozenset(f".{suffix}" for suffix in _TEXTS.split())
"""Suffixes of files that often accompany images; they are left out without a note."""
SOUND = (".wav", ".flac")
MEDICAL = (".dcm", ".nii", ".nii.gz")
SYSTEM = frozenset(("thumbs.db", "desktop.ini", "__macosx", "$recycle.bin"))
Parents = list[tuple[str, ...]]


def listing(path: Path) -> tuple[list[str], list[str]]:
    """The image files below a folder, relative to it and sorted, and notes on the files that are left out.

    Hidden files and files of operating systems are skipped; links to folders are followed, each folder once. A link to
    another image below the folder is left out, so that no image is in two splits.
    """
    found = ((Path(parent) / name).relative_to(path).as_posix() for parent, files in _walk(path) for name in files)
    images, notes = images_among(found)
    if links := {name: target for name in images if (target := _target(path, name))}:
        first = {os.path.realpath(path / name): name for name in sorted(images, reverse=True) if name in links}
        first |= {os.path.realpath(path / name): name for name in images if name not in links}
        kept = [name for name in images if name not in links or first[links[name]] == name]
        if len(kept) < len(images):
            notes.append(
                f"left out {counted(len(images) - len(kept), 'link')} to images that are in the folder as well"
            )
        images = kept
    return sorted(images), notes


def images_among(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The image files among files with these names, and a note on those that are neither images nor descriptions."""
    images, others = [], Counter[str]()
    for name in names:
        file = name.rpartition("/")[2]
        if not _counts(file):
            continue
        suffix = os.path.splitext(file)[1].lower()
        if suffix in SUFFIXES:
            images.append(name)
        elif suffix not in ABOUT:
            others[suffix or "without a suffix"] += 1
    kinds = listed([f"{suffix} ({count})" for suffix, count in others.most_common()])
    return images, [f"left out {counted(others.total(), 'file')} of other formats: {kinds}"] if others else []


def hidden(name: str) -> bool:
    """Whether a file in an archive is hidden or one of an operating system, or lies in a folder that is."""
    return not all(_counts(part) for part in PurePosixPath(name).parts)


def printable(name: str) -> str:
    """A name of a file without the bytes that are not UTF-8, which could not be printed or written: caf\\xe9.png."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _target(path: Path, name: str) -> str:
    """The file that a link leads to; empty if `name` is not a link."""
    return os.path.realpath(path / name) if os.path.islink(path / name) else ""


def ends(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether the name of a file ends in one of these suffixes, in upper or lower case."""
    return name.lower().endswith(suffixes)


def leading(path: Path) -> str:
    """The suffix of the first file below a folder that is an image, sound or a medical image; empty without any."""
    known = (*SUFFIXES, *SOUND, *MEDICAL)
    for _, files in _walk(path):
        for name in sorted(filter(_counts, files)):
            if ends(name, known):
                return next(suffix for suffix in (*SOUND, *MEDICAL, *SUFFIXES) if ends(name, (suffix,)))
    return ""


def files_of(path: Path, suffixes: tuple[str, ...], word: str, to_train: bool) -> tuple[Path, list[str], list[str]]:
    """A folder, the names of its files with these suffixes, and notes on the files left out; or a file of its own.

    Arguments:
        word: what a file is called in the notes.
        to_train: whether folders named train, test and valid define splits.

    Raises:
        DataError: there is no such file.
    """
    if not path.is_dir():
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        return path.parent, [path.name], []
    names = with_suffixes(path, suffixes)
    kept, notes = in_splits(names) if to_train else (names, [])
    return path, kept, [note.replace("image", word) for note in notes]


def with_suffixes(path: Path, suffixes: tuple[str, ...]) -> list[str]:
    """The files with these suffixes below a folder, relative to it and sorted; hidden files are skipped."""
    found = ((Path(parent) / name).relative_to(path).as_posix() for parent, files in _walk(path) for name in files)
    return sorted(name for name in found if ends(name, suffixes) and _counts(name.rpartition("/")[2]))


def has_shards(path: Path) -> bool:
    """Whether a folder holds .tar files, and otherwise only files that describe data."""
    if not path.is_dir():
        return False
    names = [file.name.lower() for file in path.iterdir() if _counts(file.name)]
    tars = [name for name in names if name.endswith(SHARDS)]
    return bool(tars) and all(name in tars or os.path.splitext(name)[1] in ABOUT for name in names)


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
    """Each folder below `path` once, through links as well, with the names of its files.

    A link to a folder that contains `path` is not followed, because it leads to everything beside it.
    """
    visited = {path.resolve(), *path.resolve().parents}
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
    place = _place_of_splits(parents)
    if place is None:
        return files, []
    inside = [place.split_of(parent) is not None for parent in parents]
    kept = [name for name, is_inside in zip(files, inside, strict=True) if is_inside]
    if len(kept) == len(files):
        return kept, []
    outside = {parent[: place.level + 1] for parent, is_inside in zip(parents, inside, strict=True) if not is_inside}
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
    place, splits = _place_of_splits(parents), None
    if place is not None:
        part = np.array([place.split_of(parent) or "" for parent in parents])
        splits = {name: np.flatnonzero(part == name) for name in PARTS if (part == name).any()}
        parents = strip([place.without(parent) for parent in parents])
    first = [parent[0] if parent else "" for parent in parents]
    classes = sorted(set(first) - {""})
    if len(classes) < 2:
        return Assignment(None, None, splits, [])
    notes = []
    if alike := [name for name in classes if place is None and re.match("train|test|val", name.lower())][1:]:
        notes.append(
            f"the folders {listed(classes)} are classes, and splits are drawn at random from all of them; if "
            f"{alike[0]!r} is a split, name the folders train, valid and test"
        )
    if unknown := first.count(""):
        notes.append(f"{counted(unknown, 'image')} outside the class folders: without a label")
    if deeper := {"/".join(parent) for parent in parents if len(parent) > 1}:
        deeper_folders = listed(sorted(deeper), 4)
        notes.append(f"the classes are {listed(classes)}; the folders inside them ({deeper_folders}) are not used")
    code = {name: i for i, name in enumerate(classes)} | {"": -1}
    return Assignment(np.array([code[name] for name in first]), classes, splits, notes)


@dataclass(frozen=True)
class _Place:
    """The folders of the splits: their depth, and the part of their names that is not the name of the split."""

    level: int
    rest: str

    def split_of(self, parent: tuple[str, ...]) -> str | None:
        """The split of an image in the folders `parent`, or None if it is outside the splits."""
        named = part_named(parent[self.level]) if self.level < len(parent) else None
        return named[0] if named is not None and named[1] == self.rest else None

    def without(self, parent: tuple[str, ...]) -> tuple[str, ...]:
        """The folders `parent` without that of the split; an archive may hold it twice, as train/train/cat."""
        above, below = parent[: self.level], parent[self.level :]
        return above + tuple(itertools.dropwhile(lambda folder: folder == below[0], below))


def _place_of_splits(parents: Parents) -> _Place | None:
    """The place of the folders named train and test (or valid), or None."""
    for level in range(max(map(len, parents), default=0)):
        names = {parent[level] for parent in parents if level < len(parent)}
        for rest in sorted({named[1] for name in names if (named := part_named(name)) is not None}):
            place = _Place(level, rest)
            images = Counter(map(place.split_of, parents))
            outside = images.pop(None, 0)
            if "train" in images and len(images) > 1 and (level == 0 or images.total() > outside):
                return place
    return None


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
