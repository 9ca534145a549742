"""A folder of image files: decoded once into a packed uint8 .npy in the cache, then memory mapped."""

import contextlib
import hashlib
import json
import os
import re
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vaekit.data import cache as caches
from vaekit.data.arrays import Source
from vaekit.data.core import Array, Progress
from vaekit.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"])
PARTS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
VERSION = 1  # of the packed files: raised when decoding changes
CHUNK = 256  # images decoded before they are written: bounds the memory
MOST_PIXELS, BIG = 2**26, 2**22  # of an image; an image of more than so many is decoded alone, to bound the memory
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values that swap width and height
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")


_alone = threading.Lock()


@dataclass(frozen=True)
class _Head:
    """What the start of an image file tells: its size, and whether it is grey and opaque."""

    height: int
    width: int
    grey: bool
    opaque: bool


def folder(
    path: Path,
    *,
    size: str | int | None = None,
    background: str = "white",
    skip_bad: bool = False,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """The images below a folder, sorted by name; class folders become labels, train and test folders splits.

    Args:
        path: the folder; hidden files and files that are no images are passed over.
        size: "64" or "64x48" (height x width): resize to exactly this (Lanczos).
        background: colour behind transparent images.
        skip_bad: leave images out that cannot be read, and count them in the notes, rather than stop.
        cache: where the packed images go.
        progress: called while images are opened and decoded.

    Raises:
        DataError: no images, images of several sizes and no `size`, an unreadable image, an unknown colour or size.
    """
    colour, target = _colour(background), parse_size(size)
    files = _listing(path)
    if not files:
        others = sorted(file.name for file in path.iterdir() if not file.name.startswith("."))
        there = f"it holds {', '.join(others[:6])}{' ...' * (len(others) > 6)}" if others else "it is empty"
        raise DataError(
            f"{path} holds no images: expected {', '.join(sorted(SUFFIXES))} files in it or in class folders, but "
            f"{there}; give the folder of images, or the file of data itself"
        )
    stats = [(path / name).stat() for name in files]
    identity: Any = [VERSION, str(path.resolve()), target, colour, skip_bad]
    identity += [[name, stat.st_size, stat.st_mtime_ns] for name, stat in zip(files, stats, strict=True)]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    packed = caches.folder(cache) / "images" / f"{key}.npy"
    listing = packed.with_suffix(".json")
    if not packed.exists() or not listing.exists():
        _pack(path, files, packed, listing, target, colour, skip_bad, progress)
    names: list[str] = json.loads(listing.read_text())
    label, label_names, splits = _classes(names)
    skipped = len(files) - len(names)
    return Source(
        np.load(packed, mmap_mode="r", allow_pickle=False),
        label=label,
        label_names=label_names,
        names=names,
        splits=splits,
        kind="image",
        notes=(f"{skipped} of {len(files)} images could not be read and were left out",) if skipped else (),
    )


def parse_size(size: str | int | None) -> tuple[int, int] | None:
    """(height, width) from "64" or "64x48"."""
    if size is None:
        return None
    match = re.fullmatch(r"\s*([1-9]\d{0,4})\s*(?:[x×]\s*([1-9]\d{0,4}))?\s*", str(size))
    if match is None:
        raise DataError(f"size must be like '64' or '64x48' (height x width, in pixels), got {size!r}")
    height, width = int(match[1]), int(match[2] or match[1])
    if height * width > MOST_PIXELS:
        raise DataError(f"size must be at most {MOST_PIXELS:,} pixels, got {height}x{width}")
    return height, width


def _colour(name: str) -> tuple[int, int, int]:
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(name)[:3]
    except ValueError as error:
        raise DataError(f"background must be a colour such as 'white', 'black' or '#7f7f7f', got {name!r}") from error
    return red, green, blue


def _listing(path: Path) -> list[str]:
    """Names of the image files below `path`, relative to it and sorted, hidden ones left out."""
    found = []
    for parent, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                found.append((Path(parent) / name).relative_to(path).as_posix())
    return sorted(found)


def _pack(
    path: Path,
    files: list[str],
    packed: Path,
    listing: Path,
    target: tuple[int, int] | None,
    colour: tuple[int, int, int],
    skip_bad: bool,
    progress: Progress | None,
) -> None:
    """Decodes all images into `packed`, and writes the names of those that could be read to `listing`."""

    def attempt(task: Any) -> Any:
        name, job = task
        try:
            return job(path / name)
        except _unreadable() as error:
            if skip_bad:
                return None
            raise DataError(
                f"{path / name} cannot be read as an image ({error}): repair or remove it, "
                "or pass --skip-bad (skip_bad=True)"
            ) from error

    def each(names: list[str], job: Any, what: str) -> Any:
        for start in range(0, len(names), CHUNK):
            part = names[start : start + CHUNK]
            yield from zip(part, pool.map(attempt, ((name, job) for name in part)), strict=True)
            if progress is not None:
                progress(what, min(start + CHUNK, len(names)), len(names))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        heads = {name: head for name, head in each(files, _head, "opening images") if head is not None}
        if not heads:
            raise DataError(f"{path}: none of its {len(files)} images can be read")
        height, width = target or _common_size(path, heads)
        neutral = len(set(colour)) == 1
        grey = all(head.grey and (head.opaque or neutral) for head in heads.values())

        def decode(file: Path) -> Array:
            return _decode(file, (height, width), colour, grey)

        kept = []
        with caches.writing(packed) as out:
            packer = caches.Packer(out, (height, width) if grey else (height, width, 3))
            for name, image in each(list(heads), decode, "decoding images"):
                if image is not None:
                    packer.add(image)
                    kept.append(name)
            if not kept:
                raise DataError(f"{path}: none of its {len(files)} images can be read")
            packer.close()
            with caches.writing(listing) as names:  # first, so that a packed file never stands without it
                names.write(json.dumps(kept).encode())


def _common_size(path: Path, heads: dict[str, _Head]) -> tuple[int, int]:
    sizes = Counter((head.height, head.width) for head in heads.values())
    common = sizes.most_common(4)
    if len(sizes) > 1:
        example = {(head.height, head.width): name for name, head in reversed(heads.items())}
        shown = ", ".join(f"{h}x{w} ({count}, such as {example[h, w]})" for (h, w), count in common)
        more = f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""
        (height, width), _ = common[0]
        raise DataError(
            f"{path} holds images of {len(sizes)} sizes (height x width): {shown}{more}; expected one: pass "
            f"--size {height}x{width} (in Python size='{height}x{width}') to resize them all"
        )
    return common[0][0]


def _unreadable() -> tuple[type[Exception], ...]:
    """What Pillow raises on files that are damaged, are no images, or are too large to be meant."""
    import struct

    from PIL import Image

    return OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError


def _turn(image: "Image.Image") -> int:
    """The EXIF orientation of a photograph; other formats would have to be decoded to ask."""
    return image.getexif().get(ORIENTATION, 1) if image.format in ("JPEG", "MPO") else 1


def _head(file: Path) -> _Head:
    from PIL import Image

    with Image.open(file) as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise ValueError(f"{width}x{height} pixels, expected at most {MOST_PIXELS:,}")
        if _turn(image) in TURNED:
            width, height = height, width
        grey = image.mode in GREY
        if image.mode == "P" and image.palette is not None:
            palette = np.array(image.getpalette("RGB") or [0, 0, 1], np.uint8).reshape(-1, 3)
            grey = bool((palette == palette[:, :1]).all())
        return _Head(height, width, grey, not image.has_transparency_data)


def _decode(file: Path, size: tuple[int, int], colour: tuple[int, int, int], grey: bool) -> Array:
    """One image as (H, W) if `grey`, else (H, W, 3), uint8."""
    from PIL import Image, ImageOps

    with Image.open(file) as opened, _alone if opened.width * opened.height > BIG else contextlib.nullcontext():
        if opened.width * opened.height > MOST_PIXELS:
            raise ValueError(f"{opened.width}x{opened.height} pixels, expected at most {MOST_PIXELS:,}")
        image: Image.Image = opened
        if _turn(image) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode == "F":
            raise ValueError("floating-point pixels have no fixed range; save such images as a .npy array")
        if image.mode.startswith("I"):
            wide = np.asarray(image).astype(np.int64)
            image = Image.fromarray(((np.clip(wide, 0, 65535) + 128) // 257).astype(np.uint8))
        elif image.has_transparency_data:
            over = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", over.size, (*colour, 255)), over)
        image = image.convert("RGB").convert("L") if grey else image.convert("RGB")
        if image.size != size[::-1]:
            image = image.resize(size[::-1], Image.Resampling.LANCZOS)
        return np.array(image)


def _classes(names: list[str]) -> tuple[Array | None, list[str] | None, dict[str, NDArray[np.int64]] | None]:
    """Labels from the first folder that tells images apart, and splits from folders named train, test and so on."""
    parents = [PurePosixPath(name).parent.parts for name in names]
    parents = _strip(parents)
    tops = {parent[0] if parent else "" for parent in parents}
    splits = None
    if {"train", "test"} <= {PARTS.get(top) for top in tops} and tops <= set(PARTS):
        part = np.array([PARTS[parent[0]] for parent in parents])
        splits = {name: np.flatnonzero(part == name) for name in ("train", "valid", "test") if (part == name).any()}
        parents = _strip([parent[1:] for parent in parents])
    classes = sorted({parent[0] if parent else "" for parent in parents})
    if len(classes) < 2 or "" in classes:
        return None, None, splits
    return np.array([classes.index(parent[0]) for parent in parents]), classes, splits


def _strip(parents: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The folders below the one in which all images lie."""
    shared = _shared(parents)
    return [parent[shared:] for parent in parents]


def _shared(parents: list[tuple[str, ...]]) -> int:
    """How many folders, from the top, all of `parents` have in common."""
    first, last = min(parents), max(parents)
    return next(
        (i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), min(len(first), len(last))
    )


def described(source: Source, table: dict[str, Array], where: Path, label: str | None = None) -> Source:
    """The images of `source` with the columns of a table whose column `file` holds their names.

    Names are relative to the folder, or to the folder in which all images lie. A column `label` (or the one asked
    for) takes the place of the class folders.

    Raises:
        DataError: no column `file`, a name twice, or images without a row.
    """
    assert source.names is not None
    if "file" not in table:
        raise DataError(f"{where} needs a column 'file' with each image's name; it has {', '.join(table)}")
    files = [str(PurePosixPath(str(name))) for name in table["file"]]
    row = {name: i for i, name in enumerate(files)}
    if len(row) < len(files):
        twice = next(name for name, count in Counter(files).items() if count > 1)
        raise DataError(f"{where} has several rows for the image {twice!r}: expected one row for each image")
    shared = _shared([PurePosixPath(name).parent.parts for name in source.names])
    short = [str(PurePosixPath(*PurePosixPath(name).parts[shared:])) for name in source.names]
    found = [row.get(name, row.get(below)) for name, below in zip(source.names, short, strict=True)]
    missing = [name for name, i in zip(source.names, found, strict=True) if i is None]
    if missing:
        raise DataError(
            f"{where} has no row for {len(missing)} of {len(found)} images, the first being {missing[0]!r}: its column "
            "'file' must hold names relative to the folder of images"
        )
    order = np.array(found, dtype=np.int64)
    prose = [name for name, values in table.items() if values.dtype.kind == "O"]
    columns = {name: values[order] for name, values in table.items() if name not in ("file", *prose)}
    codes, names = source.label, source.label_names
    if label is None and "label" in columns:
        codes, names = columns.pop("label"), None
    unused = len(files) - len(found)
    notes = source.notes
    if unused:
        notes += (f"{unused} rows of {where.name} belong to no image and were not used",)
    if prose:
        notes += (f"columns of long texts in {where.name} were not used: {', '.join(prose)}",)
    return Source(source.x, codes, names, columns, source.names, splits=source.splits, kind=source.kind, notes=notes)
