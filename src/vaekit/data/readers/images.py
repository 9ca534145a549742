"""A folder of image files: decoded once into a packed uint8 .npy in the cache, then memory-mapped."""

import hashlib
import json
import math
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from vaekit.data import cache as caches
from vaekit.data.core import Array, Progress, counted
from vaekit.data.paths import table_path, table_to_keep
from vaekit.data.source import Source
from vaekit.errors import DataError
from vaekit.utils.arguments import Knob

from . import folders, image_table
from .image_file import FULL, MOST_PIXELS, File, Head, decode_image, head_of, range_of, unreadable
from .registry import reader, readers

VERSION = 3  # of the packed files: increase it if the decoding or its notes change
CHUNK = 256  # images decoded at a time, to limit the memory
FEW_LEVELS = 128  # 16-bit values that would use fewer grey levels are rescaled
Size = Annotated[str | int | None, Knob("resize to this size: 64 or 64x48 (height x width)")]
Background = Annotated[str, Knob("colour behind transparent images")]
PixelRange = Annotated[
    str | None,
    Knob("LOW,HIGH: the values that become black and white in images with more than 8 bits; else inferred"),
]
SkipBad = Annotated[bool, Knob("leave unreadable images out")]


class Pictures(ABC):
    """The image files of a data set, wherever they lie.

    Attributes:
        path: the folder or file, for messages.
    """

    path: Path

    @abstractmethod
    def identity(self, names: list[str]) -> list[Any]:
        """What changes if one of these files does, as JSON."""

    @abstractmethod
    def chunks(self, names: list[str]) -> Iterator[list[tuple[str, File]]]:
        """These files in their order, with their names, a few at a time."""


@dataclass(frozen=True)
class InFolder(Pictures):
    """The image files below a folder."""

    path: Path

    def identity(self, names: list[str]) -> list[Any]:
        return [[name, *stat_of(self.path / name)] for name in names]

    def chunks(self, names: list[str]) -> Iterator[list[tuple[str, File]]]:
        for start in range(0, len(names), CHUNK):
            yield [(name, self.path / name) for name in names[start : start + CHUNK]]


@reader(
    "images",
    "a folder of images",
    reads=lambda path: path.is_dir() and not any(one.reads(path) for one in readers() if one.name != "images"),
    excludes={"shape": "resize its images with `size`"},
)
def folder(
    path: Path,
    *,
    size: Size = None,
    background: Background = "white",
    pixel_range: PixelRange = None,
    skip_bad: SkipBad = False,
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
        path: the folder; hidden files and files that are not images are skipped.
        size: "64" or "64x48" (height x width): resize to exactly this size (Lanczos).
        background: colour behind transparent images.
        pixel_range: "LOW,HIGH": the values of images with more than 8 bits that become 0 and 255.
        skip_bad: leave out unreadable images and count them in the notes, instead of raising an error.
        table: file that describes the images; see `image_table.described`.
        label: column of the table with the labels.
        to_train: whether to infer `pixel_range` (if all images have more than 8 bits and 0..65535 would leave few grey
            levels; the range is then in the options of the source), and to leave out images outside the splits if
            folders define splits. False for use with a trained model.
        cache: the cache folder for the packed images, if not the default.
        progress: called while images are opened and decoded.

    Raises:
        DataError: there are no images, or of several sizes without `size`; an image is unreadable; or an argument is
            not valid.
    """
    _parsed(size, background, pixel_range)  # wrong options are refused before the folder is read
    files, format_notes = folders.listing(path)
    if not files:
        others = sorted(file.name for file in path.iterdir() if not file.name.startswith("."))
        content = f"it holds {', '.join(others[:6])}{' ...' * (len(others) > 6)}" if others else "it is empty"
        raise DataError(
            f"{path} holds no images: expected .png, .jpg, .webp, .tif or another format of Pillow, in it or in class "
            f"folders, but {content}; give a folder of images, or the file with the data"
        )
    files, split_notes = folders.in_splits(files) if to_train else (files, [])
    source = packed(
        InFolder(path),
        files,
        size=size,
        background=background,
        pixel_range=pixel_range,
        skip_bad=skip_bad,
        to_train=to_train,
        cache=cache,
        progress=progress,
    )
    source = replace(source, notes=(*format_notes, *split_notes, *source.notes))
    if table is None:
        return source
    source = replace(source, options=source.options | {"table": table_to_keep(table, path)})
    return image_table.described(source, table_path(table, path), label)


def _parsed(
    size: str | int | None, background: str, pixel_range: str | None
) -> tuple[tuple[int, int, int], tuple[int, int] | None, tuple[float, float] | None]:
    return _colour(background), parse_size(size), parse_range(pixel_range)


def packed(
    pictures: Pictures,
    files: list[str],
    *,
    size: str | int | None = None,
    background: str = "white",
    pixel_range: str | None = None,
    skip_bad: bool = False,
    to_train: bool = True,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """These image files in the packed array of the cache; labels and splits are those of their folders.

    Arguments and errors are as for `folder`.
    """
    colour, target, span = _parsed(size, background, pixel_range)
    identity: Any = [VERSION, str(pictures.path.resolve()), target, colour, skip_bad, span, to_train]
    identity += pictures.identity(files)
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    target_file = caches.folder(cache) / "images" / f"{key}.npy"
    about = target_file.with_suffix(".json")
    if not target_file.exists() or not about.exists():
        _Packing(pictures, target, colour, span, skip_bad, progress).pack(files, target_file, about, to_train)
    kept = json.loads(about.read_text())
    names = [folders.printable(name) for name in kept["names"]]
    assigned = folders.labels_and_splits(names)
    inferred = kept["range"] if span is None else None
    chosen = {
        "size": None if size is None else str(size),
        "pixel_range": pixel_range if inferred is None else f"{inferred[0]!r},{inferred[1]!r}",
    }
    return Source(
        np.load(target_file, mmap_mode="r", allow_pickle=False),
        label=assigned.label,
        label_names=assigned.label_names,
        names=names,
        splits=assigned.splits,
        kind="image",
        options={name: value for name, value in chosen.items() if value is not None},
        notes=(*kept["notes"], *assigned.notes),
    )


def stat_of(file: Path) -> tuple[int, int]:
    """Size and modification time of a file; zeros for a broken link, for which `_Packing` raises the error."""
    try:
        stat = file.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def parse_range(pixel_range: str | None) -> tuple[float, float] | None:
    """(low, high) from "LOW,HIGH". Raises DataError for another text."""
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
    """(height, width) from "64" or "64x48". Raises DataError for another text, or for more than 2^26 pixels."""
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
    """Decodes images into one packed array.

    Attributes:
        pictures: where the images lie.
        target, colour, skip_bad, progress: as for `folder`, parsed.
        span: the values of images with more than 8 bits that become black and white; None for 0..65535.
        notes: messages to the user.
    """

    pictures: Pictures
    target: tuple[int, int] | None
    colour: tuple[int, int, int]
    span: tuple[float, float] | None
    skip_bad: bool
    progress: Progress | None
    notes: list[str] = field(default_factory=list)

    def pack(self, files: list[str], packed: Path, about: Path, spread: bool) -> None:
        """Write the images to `packed`, and the names of the readable ones, the range and the notes to `about`."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            heads = {n: head for n, head in self._each(pool, files, head_of, "opening images") if head is not None}
            if not heads:
                raise DataError(f"{self.pictures.path}: none of its {len(files)} images can be read")
            height, width = self.target or _common_size(self.pictures.path, heads)
            neutral = len(set(self.colour)) == 1
            grey = all(head.grey and (head.opaque or neutral) for head in heads.values())
            wide = [name for name, head in heads.items() if head.wide]
            if spread and self.span is None and len(wide) == len(heads):
                self._find_span(pool, wide)
            span, resize = self.span, self.target is not None

            def decode(file: File) -> tuple[Array, int]:
                return decode_image(file, (height, width), self.colour, grey, span, resize)

            kept, clipped = [], []
            with caches.writing(packed) as out:
                packer = caches.Packer(out, (height, width) if grey else (height, width, 3))
                for name, decoded in self._each(pool, list(heads), decode, "decoding images"):
                    if decoded is not None:
                        packer.add(decoded[0])
                        kept.append(name)
                        clipped.append(decoded[1])
                if not kept:
                    raise DataError(f"{self.pictures.path}: none of its {len(files)} images can be read")
                packer.close()
                if len(files) > len(kept):
                    self.notes.insert(
                        0, f"{len(files) - len(kept)} of {len(files)} images cannot be read and are left out"
                    )
                self.notes += _notes([heads[name] for name in kept], (height, width), self.span, clipped)
                facts = {"names": kept, "range": self.span, "notes": self.notes}
                with caches.writing(about) as text:  # before `packed` is renamed, so that it never exists alone
                    text.write(json.dumps(facts).encode())

    def _each(self, pool: ThreadPoolExecutor, names: list[str], job: Any, task: str) -> Iterator[tuple[str, Any]]:
        """(name, result of the job) for each file; the result is None for an unreadable file that is left out."""

        def attempt(pair: tuple[str, File]) -> Any:
            name, file = pair
            try:
                return job(file)
            except unreadable() as error:
                if self.skip_bad:
                    return None
                raise DataError(
                    f"{self.pictures.path / name} cannot be read as an image ({error}): repair or remove it, "
                    "or pass `skip_bad=True`"
                ) from error

        done = 0
        for part in self.pictures.chunks(names):
            yield from zip((name for name, _ in part), pool.map(attempt, part), strict=True)
            done += len(part)
            if self.progress is not None:
                self.progress(task, done, len(names))

    def _find_span(self, pool: ThreadPoolExecutor, names: list[str]) -> None:
        """Set the span to the range of all values if 0..65535 does not contain them or leaves few grey levels."""
        ranges = [values for _, values in self._each(pool, names, range_of, "measuring images") if values is not None]
        if not ranges:
            return
        low, high = min(values.low for values in ranges), max(values.high for values in ranges)
        whole = all(values.whole for values in ranges)
        if whole and low >= 0 and high <= FULL and high - low >= FEW_LEVELS * 257:
            most_low, most_high = min(values.most_low for values in ranges), max(values.most_high for values in ranges)
            if most_high - most_low < FEW_LEVELS * 257:
                self.notes.append(
                    f"98% of the values of each image lie in {most_low:g}..{most_high:g}, which become few of 256 grey "
                    f"levels: `pixel_range='{most_low:g},{most_high:g}'` uses them all"
                )
        else:
            self.span = (low, high if high > low else low + 1)


def _notes(heads: list[Head], size: tuple[int, int], span: tuple[float, float] | None, clipped: list[int]) -> list[str]:
    """Messages about images that were rescaled, clipped, resized or read in part; `clipped` values of each image."""
    n, notes = len(heads), []

    def images(count: int, has: str, have: str) -> str:
        return f"the image {has}" if n == 1 else f"{count} of {n} images {have}"

    low, high = span or (0, FULL)
    if wide := [head for head in heads if head.wide]:
        notes.append(
            f"{images(len(wide), 'has', 'have')} more than 8 bits: values {low:g}..{high:g} are rescaled to 0..255"
        )
    if span and (narrow := n - len(wide)):
        notes.append(f"{images(narrow, 'has', 'have')} 8 bits: the range {low:g}..{high:g} does not apply")
    if outside := sum(count > 0 for count in clipped):
        share = sum(clipped) / sum(head.height * head.width for head in wide)
        notes.append(
            f"{images(outside, 'has', 'have')} values outside {low:g}..{high:g}, which are clipped: "
            f"{counted(sum(clipped), 'value')}, {100 * share:.2g}% of all"
        )
    if other := [head for head in heads if (head.height, head.width) != size]:
        notes.append(
            f"{images(len(other), 'has', 'have')} another size ({other[0].height}x{other[0].width}): resized to "
            f"{size[0]}x{size[1]} (height x width)"
        )
    if deep := sum(head.deep for head in heads):
        notes.append(f"{images(deep, 'has', 'have')} more than 8 bits per channel: only the higher 8 bits are read")
    if several := [head.frames - 1 for head in heads if head.frames > 1]:
        notes.append(
            f"{len(several)} of {counted(n, 'file')} {'holds' if n == 1 else 'hold'} several images (pages, frames): "
            f"only the first of each is read, {sum(several)} are left out; save them as separate files to use them"
        )
    return notes


def one(
    file: Path, size: tuple[int, int], colour: str, grey: bool, pixel_range: str | None = None
) -> tuple[Array, list[str]]:
    """One image as (H, W) if `grey`, else (H, W, 3), uint8, and notes if it was rescaled, clipped or resized.

    Args:
        file: the image.
        size: (height, width) to resize it to.
        colour: colour behind a transparent image.
        grey: whether to convert it to grey.
        pixel_range: as for `folder`.

    Raises:
        DataError: the image cannot be read.
    """
    span = parse_range(pixel_range)
    try:
        head = head_of(file)
        pixels, outside = decode_image(file, size, _colour(colour), grey, span)
    except unreadable() as error:
        raise DataError(f"{file} cannot be read as an image ({error})") from None
    coloured = ["the image is in colour and is converted to grey"] if grey and not head.grey else []
    return pixels, [*_notes([head], size, span, [outside]), *coloured]


def _common_size(path: Path, heads: dict[str, Head]) -> tuple[int, int]:
    sizes = Counter((head.height, head.width) for head in heads.values())
    common = sizes.most_common(4)
    if len(sizes) > 1:
        example = {(head.height, head.width): name for name, head in reversed(heads.items())}
        shown = ", ".join(f"{h}x{w} ({count}, such as {example[h, w]})" for (h, w), count in common)
        others = f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""
        (height, width), _ = common[0]
        raise DataError(
            f"{path} holds images of {len(sizes)} sizes (height x width): {shown}{others}; expected one size: use "
            f"`size='{height}x{width}'` to resize all images"
        )
    return common[0][0]
