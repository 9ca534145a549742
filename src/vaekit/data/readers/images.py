"""A folder of image files: decoded once into a packed uint8 .npy in the cache, then memory mapped."""

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from vaekit.data import cache as caches
from vaekit.data.arrays import Source
from vaekit.data.core import Array, Progress, counted
from vaekit.data.paths import table_path, table_to_keep
from vaekit.errors import DataError
from vaekit.utils.arguments import Knob

from . import folders, image_table
from .idx import has_idx
from .registry import reader

if TYPE_CHECKING:
    from PIL import Image

VERSION = 3  # of the packed files: raised when decoding, or what is noted of it, changes
FORMATS = (
    *("PNG", "JPEG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "ICO", "ICNS", "PCX"),
    *("DDS", "SGI", "QOI", "PSD", "IM", "MSP", "XBM"),
)
"""Formats that are tried whatever a file's name: not those that run another program, as PostScript does."""
CHUNK = 256  # images decoded before they are written: bounds the memory
MOST_PIXELS, BIG = 2**26, 2**22  # of an image; an image of more than so many is decoded alone, to bound the memory
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values that swap width and height
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
FULL, FEW_LEVELS = 65535, 128  # the range of 16 bits; levels of 256 below which 16-bit values are spread


_alone = threading.Lock()


@dataclass(frozen=True)
class _Head:
    """What the start of an image file tells.

    Attributes:
        height, width: as the image stands upright.
        grey, opaque: whether it is.
        mode: Pillow's.
        deep: whether it is a colour image of 16 bits, of which Pillow reads 8.
        frames: how many images (pages, frames) the file holds.
    """

    height: int
    width: int
    grey: bool
    opaque: bool
    mode: str
    deep: bool
    frames: int

    @property
    def wide(self) -> bool:
        """Whether its values are of more than 8 bits."""
        return self.mode.startswith("I") or self.mode == "F"


@reader(
    "images",
    "a folder of images",
    reads=lambda path: path.is_dir() and not has_idx(path),
    excludes={"shape": "resize its images with `size`"},
)
def folder(
    path: Path,
    *,
    size: Annotated[str | int | None, Knob("resize to this size: 64 or 64x48 (height x width)")] = None,
    background: Annotated[str, Knob("colour behind transparent images")] = "white",
    pixel_range: Annotated[
        str | None, Knob("LOW,HIGH: what becomes black and white of images with more than 8 bits; else inferred")
    ] = None,
    skip_bad: Annotated[bool, Knob("leave unreadable images out")] = False,
    table: Annotated[
        str | Path | None,
        Knob(
            "a .csv or .parquet file with a column `file` that describes the images; relative to the working "
            "directory or the folder"
        ),
    ] = None,
    label: str | None = None,
    to_train: bool = True,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """The images below a folder, sorted by name; class folders become labels, train and test folders splits.

    Args:
        path: the folder; hidden files and files that are no images are passed over.
        size, background, pixel_range: "64x48", a colour, "LOW,HIGH"; images are resized by Lanczos' filter.
        skip_bad: leave images out that cannot be read, and count them in the notes, rather than stop.
        table: describes the images; see `image_table.described`.
        label: the table's column to take labels from.
        to_train: whether to find that range from the images, where all have more than 8 bits and 0..65535 would leave
            few levels of them (it is then among the source's options), and to leave out images that belong to no
            split where folders make splits. For use with a trained model neither is wanted.
        cache: where the packed images go.
        progress: called while images are opened and decoded.

    Raises:
        DataError: no images, images of several sizes and no `size`, an unreadable image, an unknown colour or size.
    """
    colour, target, span = _colour(background), parse_size(size), parse_range(pixel_range)
    files, left = folders.listing(path)
    if not files:
        others = sorted(file.name for file in path.iterdir() if not file.name.startswith("."))
        there = f"it holds {', '.join(others[:6])}{' ...' * (len(others) > 6)}" if others else "it is empty"
        raise DataError(
            f"{path} holds no images: expected .png, .jpg, .webp, .tif or others that Pillow reads, in it or in class "
            f"folders, but {there}; give the folder of images, or the file of data itself"
        )
    files, outside = folders.chosen(files) if to_train else (files, [])
    stats = [_stat(path / name) for name in files]
    identity: Any = [VERSION, str(path.resolve()), target, colour, skip_bad, span, to_train]
    identity += [[name, *stat] for name, stat in zip(files, stats, strict=True)]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    packed = caches.folder(cache) / "images" / f"{key}.npy"
    about = packed.with_suffix(".json")
    if not packed.exists() or not about.exists():
        _Packing(path, target, colour, span, skip_bad, progress).pack(files, packed, about, to_train)
    kept = json.loads(about.read_text())
    names: list[str] = kept["names"]
    told = folders.told(names)
    found = kept["range"] if span is None else None
    chosen = {
        "size": None if size is None else str(size),
        "pixel_range": pixel_range if found is None else f"{found[0]!r},{found[1]!r}",
        "table": None if table is None else table_to_keep(table, path),
    }
    source = Source(
        np.load(packed, mmap_mode="r", allow_pickle=False),
        label=told.label,
        label_names=told.label_names,
        names=names,
        splits=told.splits,
        kind="image",
        options={name: value for name, value in chosen.items() if value is not None},
        notes=(*left, *outside, *kept["notes"], *told.notes),
    )
    return source if table is None else image_table.described(source, table_path(table, path), label)


def _stat(file: Path) -> tuple[int, int]:
    """Size and time of a file; of a link into nowhere, which `_Packing` will complain of, zeros."""
    try:
        stat = file.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def parse_range(pixel_range: str | None) -> tuple[float, float] | None:
    """(low, high) from "LOW,HIGH"."""
    if pixel_range is None:
        return None
    try:
        low, high = (float(side) for side in str(pixel_range).split(","))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise DataError(f"pixel_range must be 'LOW,HIGH' such as '0,4095', got {pixel_range!r}")
    return low, high


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


@dataclass
class _Packing:
    """Decodes images below `path` into one packed array.

    Attributes:
        path, target, colour, skip_bad, progress: as for `folder`, parsed.
        span: what becomes black and white of images with more than 8 bits; None for 0..65535.
        notes: what the user should know.
    """

    path: Path
    target: tuple[int, int] | None
    colour: tuple[int, int, int]
    span: tuple[float, float] | None
    skip_bad: bool
    progress: Progress | None
    notes: list[str] = field(default_factory=list)

    def pack(self, files: list[str], packed: Path, about: Path, spread: bool) -> None:
        """Writes the images to `packed`; names of those that could be read, the range and notes to `about`."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            heads = {n: head for n, head in self._each(pool, files, _head, "opening images") if head is not None}
            if not heads:
                raise DataError(f"{self.path}: none of its {len(files)} images can be read")
            height, width = self.target or _common_size(self.path, heads)
            neutral = len(set(self.colour)) == 1
            grey = all(head.grey and (head.opaque or neutral) for head in heads.values())
            wide = [name for name, head in heads.items() if head.wide]
            if spread and self.span is None and len(wide) == len(heads):
                self._find_span(pool, wide)
            span, resize = self.span, self.target is not None

            def decode(file: Path) -> tuple[Array, int]:
                return _decode(file, (height, width), self.colour, grey, span, resize)

            kept, beyond = [], []
            with caches.writing(packed) as out:
                packer = caches.Packer(out, (height, width) if grey else (height, width, 3))
                for name, found in self._each(pool, list(heads), decode, "decoding images"):
                    if found is not None:
                        packer.add(found[0])
                        kept.append(name)
                        beyond.append(found[1])
                if not kept:
                    raise DataError(f"{self.path}: none of its {len(files)} images can be read")
                packer.close()
                if len(files) > len(kept):
                    self.notes.insert(
                        0, f"{len(files) - len(kept)} of {len(files)} images could not be read and were left out"
                    )
                self.notes += _told([heads[name] for name in kept], (height, width), self.span, beyond)
                told = {"names": kept, "range": self.span, "notes": self.notes}
                with caches.writing(about) as text:  # first, so that a packed file never stands without it
                    text.write(json.dumps(told).encode())

    def _each(self, pool: ThreadPoolExecutor, names: list[str], job: Any, what: str) -> Iterator[tuple[str, Any]]:
        """(name, job's result) of each file; None where it cannot be read and may be left out."""

        def attempt(name: str) -> Any:
            try:
                return job(self.path / name)
            except _unreadable() as error:
                if self.skip_bad:
                    return None
                raise DataError(
                    f"{self.path / name} cannot be read as an image ({error}): repair or remove it, "
                    "or pass `skip_bad=True`"
                ) from error

        for start in range(0, len(names), CHUNK):
            part = names[start : start + CHUNK]
            yield from zip(part, pool.map(attempt, part), strict=True)
            if self.progress is not None:
                self.progress(what, min(start + CHUNK, len(names)), len(names))

    def _find_span(self, pool: ThreadPoolExecutor, names: list[str]) -> None:
        """The range of all values, where 0..65535 does not hold them or leaves few levels of them."""
        each = [ends for _, ends in self._each(pool, names, _ends, "measuring images") if ends is not None]
        if not each:
            return
        low, high = min(ends[0] for ends in each), max(ends[1] for ends in each)
        whole = all(ends[4] for ends in each)
        if whole and low >= 0 and high <= FULL and high - low >= FEW_LEVELS * 257:
            most_low, most_high = min(ends[2] for ends in each), max(ends[3] for ends in each)
            if most_high - most_low < FEW_LEVELS * 257:
                self.notes.append(
                    f"98 of 100 values of each image lie in {most_low:g}..{most_high:g}, which are few of 256 levels: "
                    f"`pixel_range='{most_low:g},{most_high:g}'` spreads them"
                )
        else:
            self.span = (low, high if high > low else low + 1)


def _told(heads: list[_Head], size: tuple[int, int], span: tuple[float, float] | None, beyond: list[int]) -> list[str]:
    """What of these images was read otherwise than as it stands; `beyond` values of each were outside the range."""
    n, told = len(heads), []

    def these(count: int, has: str, have: str) -> str:
        return f"the image {has}" if n == 1 else f"{count} of {n} images {have}"

    low, high = span or (0, FULL)
    if wide := [head for head in heads if head.wide]:
        told.append(
            f"{these(len(wide), 'has', 'have')} more than 8 bits: values {low:g}..{high:g} were brought to 0..255"
        )
    if span and (narrow := n - len(wide)):
        told.append(f"{these(narrow, 'has', 'have')} 8 bits and no part in the range {low:g}..{high:g} of wider ones")
    if outside := sum(count > 0 for count in beyond):
        share = sum(beyond) / sum(head.height * head.width for head in wide)
        told.append(
            f"{these(outside, 'has', 'have')} values outside {low:g}..{high:g}, which were clipped to it: "
            f"{counted(sum(beyond), 'value')}, {100 * share:.2g}% of all"
        )
    if other := [head for head in heads if (head.height, head.width) != size]:
        told.append(
            f"{these(len(other), 'was', 'were')} of another size ({other[0].height}x{other[0].width}) and resized to "
            f"{size[0]}x{size[1]} (height x width)"
        )
    if deep := sum(head.deep for head in heads):
        told.append(f"{these(deep, 'is', 'are')} of 16 bits in colour: only the higher 8 were read")
    if several := [head.frames - 1 for head in heads if head.frames > 1]:
        told.append(
            f"{len(several)} of {counted(n, 'file')} {'holds' if n == 1 else 'hold'} several images (pages, frames): "
            f"the first of each was read, {sum(several)} were left out; save them as files of their own to use them"
        )
    return told


def one(
    file: Path, size: tuple[int, int], colour: str, grey: bool, pixel_range: str | None = None
) -> tuple[Array, list[str]]:
    """One image as (H, W) if `grey`, else (H, W, 3), uint8, and notes on what was read otherwise than as it stands.

    Raises:
        DataError: it cannot be read.
    """
    span = parse_range(pixel_range)
    try:
        head = _head(file)
        pixels, outside = _decode(file, size, _colour(colour), grey, span)
    except _unreadable() as error:
        raise DataError(f"{file} cannot be read as an image ({error})") from None
    coloured = ["the image is in colour and was read as grey"] if grey and not head.grey else []
    return pixels, [*_told([head], size, span, [outside]), *coloured]


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
            f"`size='{height}x{width}'` to resize them all"
        )
    return common[0][0]


def _unreadable() -> tuple[type[Exception], ...]:
    """What Pillow raises on files that are damaged, are no images, or are too large to be meant."""
    import struct

    from PIL import Image

    damage = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, NotImplementedError)
    return *damage, AssertionError, struct.error, Image.DecompressionBombError


def _turn(image: "Image.Image") -> int:
    """The EXIF orientation that is still to be carried out."""
    if image.format == "TIFF":
        return 1  # Pillow turns those as it loads them
    if image.format == "PNG" and not any("exif" in str(key) or "xmp" in str(key) for key in image.info):
        return 1  # to ask further, Pillow would decode the image
    return image.getexif().get(ORIENTATION, 1)


@functools.cache
def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow has."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


@contextlib.contextmanager
def _opened(file: Path) -> "Iterator[Image.Image]":
    """An image file, alone where it is big.

    Raises:
        ValueError: it has too many pixels; and what Pillow raises (`_unreadable`).
    """
    from PIL import Image

    with Image.open(file, formats=_formats()) as image:
        pixels = image.width * image.height
        if pixels > MOST_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels, expected at most {MOST_PIXELS:,}")
        with _alone if pixels > BIG else contextlib.nullcontext():
            yield image


def _head(file: Path) -> _Head:
    with _opened(file) as image:
        width, height = image.size
        turn = _turn(image)
        if image.format == "TIFF":
            tags = image.tag_v2  # type: ignore[attr-defined]
            (width, height), turn = (tags[256], tags[257]), tags.get(ORIENTATION, 1)
        if turn in TURNED:
            width, height = height, width
        grey = image.mode in GREY
        if image.mode == "P" and image.palette is not None:
            palette = np.array(image.getpalette("RGB") or [0, 0, 1], np.uint8).reshape(-1, 3)
            grey = bool((palette == palette[:, :1]).all())
        deep = not image.mode.startswith("I") and any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        frames = 1 if image.format in ("MPO", "ICO", "ICNS", "PSD") else _frames(image)
        return _Head(height, width, grey, not image.has_transparency_data, image.mode, deep, frames)


def _frames(image: "Image.Image") -> int:
    """How many images a file holds; 1 where that is damaged beyond the first."""
    try:
        return int(getattr(image, "n_frames", 1))
    except _unreadable():
        return 1


def _ends(file: Path) -> tuple[float, float, float, float, bool]:
    """Least and largest value of an image, the same of its middle 98 percent, and whether its values are whole."""
    with _opened(file) as image:
        values = _values(image)
        low, high = np.percentile(values, (1, 99))
        return float(values.min()), float(values.max()), float(low), float(high), image.mode != "F"


def _values(image: "Image.Image") -> Array:
    """The values of an image with more than 8 bits, (H, W): whole numbers as they are, others as float64."""
    values = np.asarray(image)
    if values.dtype.kind != "f":
        return values
    if not np.isfinite(values).all():
        raise ValueError("it has values that are nan or infinite")
    return values.astype(np.float64)


def _spread(values: Array, low: float, high: float) -> tuple[Array, int]:
    """Values from low..high to 0..255, a few rows at a time, since float64 takes eight times the memory.

    Returns:
        The bytes, and how many values lay outside the range and were clipped.
    """
    found, outside = np.empty(values.shape, np.uint8), 0
    rows = max(1, BIG // max(1, values.shape[1]))
    for a in range(0, len(values), rows):
        share = (values[a : a + rows].astype(np.float64) - low) / (high - low)
        outside += int(((share < 0) | (share > 1)).sum())
        found[a : a + rows] = np.floor(np.clip(share, 0, 1) * 255 + 0.5)
    return found, outside


def _decode(
    file: Path,
    size: tuple[int, int],
    colour: tuple[int, int, int],
    grey: bool,
    span: tuple[float, float] | None = None,
    resize: bool = True,
) -> tuple[Array, int]:
    """One image as (H, W) if `grey`, else (H, W, 3), uint8; values of more than 8 bits from `span` to 0..255.

    Returns:
        The image, and how many of its values lay outside the span and were clipped.
    """
    from PIL import Image, ImageOps

    outside = 0
    with _opened(file) as opened:
        image: Image.Image = opened
        image.load()
        if _turn(image) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode == "F" and span is None:
            raise ValueError("floating-point pixels have no fixed range; say it with pixel_range='LOW,HIGH'")
        if image.mode == "F" or image.mode.startswith("I"):
            low, high = span or (0, FULL)
            spread, outside = _spread(_values(image), low, high)
            image = Image.fromarray(spread)
        elif image.has_transparency_data:
            over = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", over.size, (*colour, 255)), over)
        image = image.convert("RGB").convert("L") if grey else image.convert("RGB")
        if image.size != size[::-1]:
            if not resize:
                raise ValueError(f"it is {image.height}x{image.width}, and its header says {size[0]}x{size[1]}")
            image = image.resize(size[::-1], Image.Resampling.LANCZOS)
        return np.array(image), outside
