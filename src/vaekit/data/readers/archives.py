"""Images in .zip and .tar archives, WebDataset shards included: read in place, without unpacking them to disk."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
import zipfile
import zlib
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from vaekit.data import cache as caches
from vaekit.data.core import Progress, counted, listed
from vaekit.data.paths import SHARDS, matching
from vaekit.data.source import Source
from vaekit.data.splits import PARTS, part_named
from vaekit.errors import DataError

from . import folders, webdataset, zip_directory
from .image_file import File, content_of
from .images import Background, Pictures, PixelRange, Size, SkipBad, packed
from .npz import Key  # registers .npz first: an option of several formats is listed with the first
from .registry import reader

ZIP, TAR = ".zip", SHARDS[0]
MOST_BYTES = 2**26
"""Bytes of a file in an archive at most."""
RATIO, SMALL = 1100, 2**20
"""All files of a .zip may be 1,100 times as large as it (deflate reaches 1,032), or this many bytes."""
MANY = 20_000
"""Files of a .zip whose headers are compared with its directory each time; those of a larger one only once."""
CHUNK, CHUNK_BYTES = 64, 2**25
"""Files, and bytes of a compressed archive, that are read at a time."""
DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, IndexError, OverflowError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error),
)
"""Exceptions of zipfile and tarfile for damaged archives."""


def _ends(path: Path, *suffixes: str) -> bool:
    return path.name.lower().endswith(suffixes)


def is_archive(path: Path) -> bool:
    """Whether a path is an archive by its name, a pattern of such names, or a folder of .tar files."""
    return folders.has_shards(path) if path.is_dir() else _ends(path, ZIP, *SHARDS)


def shards(path: Path) -> list[Path]:
    """The archives that a path stands for: a folder of .tar files, a pattern (see `paths.matching`), or one file."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if _ends(file, *SHARDS) and not file.name.startswith("."))
    return [path] if path.exists() else matching(path)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Raise DataError for any exception about a damaged archive."""
    try:
        yield
    except DataError:
        raise
    except DAMAGE as error:
        raise DataError(
            f"{path} cannot be read as an archive ({error}): damaged, protected by a password, or another format"
        ) from error


@dataclass
class Archive:
    """An archive of files. Abstract: the subclasses know the formats.

    Attributes:
        path: the file.
        cache: the cache folder, if not the default.
        sizes: bytes of each regular file by its name, in the order of the archive.
        left_out: number of links, and of files with names that lead out of the archive.
        notes: messages to the user.
    """

    path: Path
    cache: str | Path | None = None

    def __post_init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.left_out = 0
        self.notes: list[str] = []
        with _damage(self.path):
            self._list()

    def _list(self) -> None:
        """Fill `sizes`."""
        raise NotImplementedError

    def _add(self, name: str, size: int, regular: bool) -> bool:
        """Record a file; returns whether it is used."""
        unsafe = not regular or name.startswith("/") or ".." in PurePosixPath(name).parts or ":" in name[:3]
        if unsafe or folders.hidden(name):
            self.left_out += unsafe
            return False
        if name in self.sizes:
            raise DataError(f"{self.path} has two files named {name!r}: rename one of them")
        self.sizes[name] = size
        return True

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a file of at most `MOST_BYTES`."""

    def check(self, name: str) -> None:
        """Raise DataError for a file that is too large."""
        if self.sizes[name] > MOST_BYTES:
            raise DataError(
                f"{self.path}: {name} has {self.sizes[name]:,} bytes, expected at most {MOST_BYTES:,}: unpack it"
            )

    def chunks(self, names: Sequence[str]) -> Iterator[list[tuple[str, File]]]:
        """These files in their order, with their names, a few at a time."""
        for start in range(0, len(names), CHUNK):
            yield [(name, Inside(self, name)) for name in names[start : start + CHUNK]]


@dataclass(frozen=True)
class Inside:
    """A file in an archive, read when it is opened."""

    archive: Archive
    name: str

    def open(self) -> IO[bytes]:
        """The content of the file."""
        return io.BytesIO(self.archive.read(self.name))


@dataclass(frozen=True)
class Content:
    """The content of a file, already read."""

    content: bytes

    def open(self) -> IO[bytes]:
        """The content of the file."""
        return io.BytesIO(self.content)


class Zip(Archive):
    """A .zip archive."""

    def _list(self) -> None:
        self.file = zipfile.ZipFile(self.path)
        total = 0
        for info in self.file.infolist():
            if info.flag_bits & 1:
                raise DataError(f"{self.path} is protected by a password: unpack it, or save it without one")
            if not info.is_dir() and self._add(info.filename, info.file_size, True):
                total += info.file_size
        size = self.path.stat().st_size
        if total > max(SMALL, RATIO * size):
            raise DataError(f"{self.path} declares files of {total:,} bytes, but has only {size:,}: it is damaged")
        if len(self.file.filelist) <= MANY:
            zip_directory.check(self.path, self.file)
        else:
            self._check_once()

    def _check_once(self) -> None:
        """Compare the directory with the headers, which lie far apart; a file in the cache records the success."""
        stat = self.path.stat()
        key = hashlib.sha256(f"{self.path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:32]
        passed = caches.folder(self.cache) / "zip" / f"{key}.ok"
        if not passed.exists():
            zip_directory.check(self.path, self.file)
            with suppress(DataError), caches.writing(passed):
                pass  # if the cache cannot be written, they are compared again next time

    def read(self, name: str) -> bytes:
        self.check(name)
        with _damage(self.path), self.file.open(name) as file:
            return file.read()


class AnyTar(Archive):
    """A .tar archive, compressed or not. Abstract."""

    def _check_end(self, last: bytes) -> None:
        """Check the block of 512 bytes after the last file, which holds zeros; a note says that it is missing."""
        note = f"{self.path.name} has no end mark: it may be cut short, and lack its last files"
        if last not in (b"", bytes(512)):
            raise DataError(f"{self.path} is cut short or damaged after {counted(len(self.sizes), 'file')}")
        if not last and note not in self.notes:
            self.notes.append(note)


class Tar(AnyTar):
    """A .tar archive that is not compressed, whose files are read at their places."""

    def _list(self) -> None:
        self.places: dict[str, int] = {}
        with tarfile.open(self.path, "r:") as file:
            for member in file:
                regular = member.isreg() and not member.issparse()
                if not member.isdir() and self._add(member.name, member.size, regular):
                    self.places[member.name] = member.offset_data
            end = file.offset
        with self.path.open("rb") as raw:
            raw.seek(end)
            self._check_end(raw.read(512))

    def read(self, name: str) -> bytes:
        self.check(name)
        with _damage(self.path), self.path.open("rb") as file:  # one per call, because several threads read
            file.seek(self.places[name])
            content = file.read(self.sizes[name])
        if len(content) < self.sizes[name]:
            raise DataError(f"{self.path} is cut short: {name} is not complete")
        return content


class PackedTar(AnyTar):
    """A compressed .tar archive, which can only be read from its beginning: its files keep their order."""

    def _members(self) -> Iterator[tuple[Any, Any]]:
        with gzip.open(self.path) as raw, tarfile.open(fileobj=raw, mode="r:") as file:
            for member in file:
                yield file, member
            raw.seek(file.offset)
            self._check_end(raw.read(512))
            while raw.read(2**20):  # at the end, gzip compares the checksum
                pass

    def _list(self) -> None:
        for _, member in self._members():
            if not member.isdir():
                self._add(member.name, member.size, member.isreg() and not member.issparse())

    def read(self, name: str) -> bytes:
        return next(content_of(file).read() for part in self.chunks([name]) for _, file in part)

    def chunks(self, names: Sequence[str]) -> Iterator[list[tuple[str, File]]]:
        wanted, held = set(names), 0
        part: list[tuple[str, File]] = []
        for name in names:
            self.check(name)
        with _damage(self.path):
            for file, member in self._members():
                if member.name not in wanted:
                    continue
                wanted.remove(member.name)
                content = file.extractfile(member).read()
                part.append((member.name, Content(content)))
                held += len(content)
                if len(part) == CHUNK or held > CHUNK_BYTES:
                    yield part
                    part, held = [], 0
        if wanted:
            raise DataError(f"{self.path} changed while it was read")
        if part:
            yield part


def opened(path: Path, cache: str | Path | None = None) -> Archive:
    """An archive, by the suffix of its name; `cache` is the cache folder, if not the default.

    Raises:
        DataError: it is missing, damaged or protected by a password.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return (Zip if _ends(path, ZIP) else Tar if _ends(path, TAR) else PackedTar)(path, cache)


@dataclass(frozen=True)
class InArchives(Pictures):
    """The image files in one or several archives; with several, names begin with that of the archive."""

    path: Path
    archives: dict[str, Archive]

    def place(self, name: str) -> tuple[Archive, str]:
        """The archive of a file, and its name there."""
        if len(self.archives) == 1:
            return next(iter(self.archives.values())), name
        shard, _, inner = name.partition("/")
        return self.archives[shard], inner

    def identity(self, names: list[str]) -> list[Any]:
        stats = [(str(one.path.resolve()), one.path.stat()) for one in self.archives.values()]
        return ["archives", [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats], names]

    def chunks(self, names: list[str]) -> Iterator[list[tuple[str, File]]]:
        of_shard: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for name in names:
            archive, inner = self.place(name)
            of_shard[archive.path.name].append((name, inner))
        for pairs in of_shard.values():
            archive, outer = self.place(pairs[0][0])[0], {inner: name for name, inner in pairs}
            for part in archive.chunks([inner for _, inner in pairs]):
                yield [(outer[inner], file) for inner, file in part]


@reader(
    "archive",
    "an archive of images (.zip, .tar)",
    reads=is_archive,
    files=".zip, .tar, .tar.gz (of images)",
    excludes={"shape": "resize its images with `size`"},
)
def source(
    path: Path,
    *,
    size: Size = None,
    background: Background = "white",
    pixel_range: PixelRange = None,
    skip_bad: SkipBad = False,
    x_key: Key = None,
    label: str | None = None,
    to_train: bool = True,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """The images in a .zip or .tar archive, read like a folder of images, or as a WebDataset.

    An archive is a WebDataset if files such as 17.cls or 17.json lie beside 17.jpg. Their numbers, texts and lists of
    numbers then become columns (see `webdataset.described`), and `cls` (or `label`, ...) the labels. Splits are those
    in the names of the archives (train-000.tar).

    Args:
        path: an archive; several .tar files as a folder or as a pattern with * ? [] or {000..010}.
        size, background, pixel_range, skip_bad, to_train, cache, progress: as for a folder of images.
        x_key: suffix of the images of a WebDataset, if it has several per example.
        label: column with the labels of a WebDataset.

    Raises:
        DataError: an archive is damaged or has no images; or as for a folder of images.
    """
    paths = shards(path)
    if not paths:
        raise DataError(f"{path}: no such file")
    pictures = InArchives(path, {one.name: opened(one, cache) for one in paths})
    single = len(paths) == 1
    names = [name if single else f"{shard}/{name}" for shard, one in pictures.archives.items() for name in one.sizes]
    values = webdataset.values_among(names)
    beside = {name for found in values.values() for name in found.values()}
    files, notes = folders.images_among(name for name in names if name not in beside)
    if not files:
        kinds = Counter(PurePosixPath(name).suffix or name for name in names)
        raise DataError(
            f"{path} holds no images, but {listed([kind for kind, _ in kinds.most_common()]) or 'no files'}: unpack "
            "it, and give the file or folder with the data"
        )
    if left_out := sum(one.left_out for one in pictures.archives.values()):
        notes = [*notes, f"left out {counted(left_out, 'link')} and files with unsafe names"]
    notes += [note for one in pictures.archives.values() for note in one.notes]
    options: dict[str, Any] = {"size": size, "background": background, "pixel_range": pixel_range, "skip_bad": skip_bad}
    options |= {"to_train": to_train, "cache": cache, "progress": progress}
    if values:
        files = webdataset.one_each(files, x_key, path)
        read = packed(pictures, files, **options)
        read = replace(read, label=None, label_names=None, splits=None)
        read = webdataset.described(read, pictures, values, label, to_train)
    else:
        files, split_notes = folders.in_splits(files) if to_train and single else (files, [])
        if all(not isinstance(one, PackedTar) for one in pictures.archives.values()):
            files = sorted(files)
        read = packed(pictures, files, **options)
        notes = [*notes, *split_notes]
    read = read if single or not to_train else replace(read, splits=_splits(read.names or []))
    return replace(read, notes=(*notes, *read.notes))


def _splits(names: Sequence[str]) -> dict[str, Any] | None:
    """The rows of the splits that the names of the archives stand for, such as train-000.tar; None without any."""
    stems = [re.sub(r"([-_.]?\d+)*(\.tar)?(\.gz|\.tgz)?$", "", name.partition("/")[0]) for name in names]
    found = {stem: part_named(stem) for stem in set(stems)}
    parts = np.array([(found[stem] or ("", ""))[0] for stem in stems])
    splits = {part: np.flatnonzero(parts == part) for part in PARTS if (parts == part).any()}
    return splits if "train" in splits and len(splits) > 1 and (parts != "").all() else None
