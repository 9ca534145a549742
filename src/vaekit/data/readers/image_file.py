"""One image file: its header, the range of its values, and its pixels as bytes."""

import contextlib
import functools
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from vaekit.data.core import Array

if TYPE_CHECKING:
    from PIL import Image

FORMATS = (
    *("PNG", "JPEG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "ICO", "ICNS", "PCX"),
    *("DDS", "SGI", "QOI", "PSD", "IM", "MSP", "XBM"),
)
"""Formats that are tried for every file; formats that run another program, such as PostScript, are excluded."""
MOST_PIXELS, BIG = 2**26, 2**22  # maximum pixels of an image; a big image is decoded alone, to limit the memory
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values that swap width and height
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
FULL = 65535  # maximum of 16 bits


_alone = threading.Lock()


class Opener(Protocol):
    """An image file that lies inside another file, such as an archive."""

    def open(self) -> IO[bytes]:
        """The content of the file, from its beginning."""
        ...


File = Path | Opener


def content_of(file: File) -> IO[bytes]:
    """The content of an image file, open for reading."""
    return file.open("rb") if isinstance(file, Path) else file.open()


def _stream(file: File) -> "Path | IO[bytes]":
    return file if isinstance(file, Path) else file.open()


@dataclass(frozen=True)
class Head:
    """The header of an image file.

    Attributes:
        height, width: size in pixels, after rotation by EXIF.
        grey, opaque: whether the image is grey, and whether it has no transparency.
        mode: mode of the image in Pillow.
        deep: whether its channels have more than 8 bits, of which Pillow reads the higher 8.
        frames: number of images (pages, frames) in the file.
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
        """Whether the values have more than 8 bits."""
        return self.mode.startswith("I") or self.mode == "F"


def unreadable() -> tuple[type[Exception], ...]:
    """The exceptions that Pillow raises for files that are damaged, are not images, or are too large."""
    import struct

    from PIL import Image

    damage = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, NotImplementedError)
    return *damage, AssertionError, struct.error, Image.DecompressionBombError


def _turn(image: "Image.Image") -> int:
    """The EXIF orientation by which the image must still be rotated; 1 for none."""
    if image.format == "TIFF":
        return 1  # Pillow rotates TIFF images when it loads them
    if image.format == "PNG" and not any("exif" in str(key) or "xmp" in str(key) for key in image.info):
        return 1  # getexif would decode the image
    return image.getexif().get(ORIENTATION, 1)


@functools.cache
def _formats() -> list[str]:
    """The `FORMATS` that the installed Pillow supports."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


@contextlib.contextmanager
def _opened(file: File) -> "Iterator[Image.Image]":
    """An open image file; big images are opened one at a time.

    Raises:
        ValueError: the image has too many pixels. Pillow raises the exceptions in `unreadable`.
    """
    from PIL import Image

    try:
        with Image.open(_stream(file), formats=_formats()) as image:
            pixels = image.width * image.height
            if pixels > MOST_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels, expected at most {MOST_PIXELS:,}")
            with _alone if pixels > BIG else contextlib.nullcontext():
                yield image
    except MemoryError:  # some formats declare sizes that Pillow does not check
        raise ValueError("it needs more memory than there is") from None


def head_of(file: File) -> Head:
    """The header of an image file."""
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
        deep = not image.mode.startswith(("I", "F")) and _bits(image, file) > 8
        frames = 1 if image.format in ("MPO", "ICO", "ICNS", "PSD") else _frames(image)
        return Head(height, width, grey, not image.has_transparency_data, image.mode, deep, frames)


def _check_sums(file: File) -> None:
    """Check the checksums of the chunks of a PNG that hold its pixels and palette; Pillow does not.

    Raises:
        ValueError: one of them is wrong.
    """
    with content_of(file) as stream:
        stream.read(8)
        while len(head := stream.read(8)) == 8 and (kind := head[4:]) != b"IEND":
            body = stream.read(int.from_bytes(head[:4], "big"))
            wrong = zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(stream.read(4), "big")
            if wrong and kind[:1].isupper():  # a small letter marks what is not needed for the pixels
                raise ValueError(f"its chunk {kind.decode('ascii', 'replace')} has a wrong checksum")


def _bits(image: "Image.Image", file: File) -> int:
    """Bits per channel in the file; Pillow decodes channels of colour images with more than 8 bits to 8."""
    if image.format in ("JPEG2000", "AVIF"):
        return _bits_of_header(file)
    for decoder, _, _, arguments in getattr(image, "tile", ()):
        first, *rest = arguments if isinstance(arguments, tuple) else (arguments,)
        if decoder == "SGI16" or ";16" in str(first) or (image.format == "PPM" and rest and rest[0] > 255):
            return 16
    return 8


def _bits_of_header(file: File) -> int:
    """Bits per channel of a JPEG 2000 (marker SIZ, ISO/IEC 15444-1, A.5.1) or an AVIF (box av1C); 8 if not found."""
    with content_of(file) as opened:
        start = opened.read(2**18)
    if (at := start.find(b"\xff\x4f\xff\x51")) >= 0 and len(start) > at + 42:
        return (start[at + 42] & 0x7F) + 1
    if (at := start.find(b"av1C")) >= 0 and len(start) > at + 6:
        high, twelve = start[at + 6] & 0x40, start[at + 6] & 0x20
        return 12 if high and twelve else 10 if high else 8
    return 8


def _frames(image: "Image.Image") -> int:
    """The number of images in a file; 1 if the file is damaged after the first."""
    try:
        return int(getattr(image, "n_frames", 1))
    except unreadable():
        return 1


class Range(NamedTuple):
    """The range of the values of an image, the range of their middle 98%, and whether they are whole numbers."""

    low: float
    high: float
    most_low: float
    most_high: float
    whole: bool


def range_of(file: File) -> Range:
    """The range of the values of an image."""
    with _opened(file) as image:
        values = _values(image)
        low, high = np.percentile(values, (1, 99))
        return Range(float(values.min()), float(values.max()), float(low), float(high), image.mode != "F")


def _values(image: "Image.Image") -> Array:
    """The values of an image with more than 8 bits, (H, W): integers unchanged, floats as float64."""
    values = np.asarray(image)
    if values.dtype.kind != "f":
        return values
    if not np.isfinite(values).all():
        raise ValueError("its values include nan or infinities")
    return values.astype(np.float64)


def _spread(values: Array, low: float, high: float) -> tuple[Array, int]:
    """Rescale values from low..high to 0..255, in blocks of rows, because float64 needs eight times the memory.

    Returns:
        The bytes, and the number of values outside the range, which are clipped.
    """
    scaled, outside = np.empty(values.shape, np.uint8), 0
    rows = max(1, BIG // max(1, values.shape[1]))
    for a in range(0, len(values), rows):
        share = (values[a : a + rows].astype(np.float64) - low) / (high - low)
        outside += int(((share < 0) | (share > 1)).sum())
        scaled[a : a + rows] = np.floor(np.clip(share, 0, 1) * 255 + 0.5)
    return scaled, outside


def decode_image(
    file: File,
    size: tuple[int, int],
    colour: tuple[int, int, int],
    grey: bool,
    span: tuple[float, float] | None = None,
    resize: bool = True,
) -> tuple[Array, int]:
    """One image as (H, W) if `grey`, else (H, W, 3), uint8; values of more than 8 bits are rescaled from `span`.

    Returns:
        The image, and the number of its values outside `span`, which are clipped.
    """
    from PIL import Image, ImageOps

    outside = 0
    with _opened(file) as opened:
        if opened.format == "PNG":
            _check_sums(file)
        image: Image.Image = opened
        image.load()
        if _turn(image) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode == "F" and span is None:
            raise ValueError("floating-point pixels have no fixed range; give it with `pixel_range='LOW,HIGH'`")
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
                raise ValueError(f"its size is {image.height}x{image.width}, but its header says {size[0]}x{size[1]}")
            image = image.resize(size[::-1], Image.Resampling.LANCZOS)
        return np.array(image), outside
