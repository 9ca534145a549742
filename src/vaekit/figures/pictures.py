"""Pictures as uint8 arrays, without a plotting library: tiles, grids, error maps, PNG files."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.errors import ChoiceError
from vaekit.utils.files import write_atomically

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
TILE = 56  # the minimum length of a tile's longer side, in pixels
_BELOW, _ZERO, _ABOVE = (33, 102, 172), (247, 247, 247), (178, 24, 43)  # ColorBrewer RdBu: safe for colour-blind eyes
MISSING = (222, 184, 110)
"""The colour of missing values (nan): sand, which occurs in neither grey images nor error maps."""


def channels_last(events: Array) -> Array:
    """Image events (N, C, H, W) as pictures: (N, H, W) when grey, else (N, H, W, C); a view."""
    if events.ndim != 4:
        raise ChoiceError(f"image events have shape (N, C, H, W), got {events.shape}")
    return events[:, 0] if events.shape[1] == 1 else np.moveaxis(events, 1, -1)


def to_uint8(images: Array, scale: tuple[float, float] = (0.0, 255.0)) -> Bytes:
    """Images in their own units as RGB bytes: (N, H, W[, C]) -> (N, H, W, 3).

    A grey channel is repeated; two channels become red and green; a fourth channel (alpha) is dropped. Values outside
    `scale` are clipped, for display only. A pixel with a missing value (nan) has the colour `MISSING`.

    Arguments:
        images: (N, H, W) or (N, H, W, C) with C from 1 to 4.
        scale: the values of black and white.

    Raises:
        ChoiceError: an array of another shape, or an empty scale.
    """
    x = np.asarray(images)
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or not 1 <= x.shape[-1] <= 4:
        raise ChoiceError(f"images must have shape (N, H, W) or (N, H, W, C) with C from 1 to 4, got {images.shape}")
    low, high = scale
    if not high > low:
        raise ChoiceError(f"scale must be (black, white) with black < white, got {scale}")
    missing = np.isnan(x).any(-1) if x.dtype.kind == "f" else None
    if missing is not None and missing.any():
        coloured = to_uint8(np.nan_to_num(x, nan=low), scale)
        coloured[missing] = MISSING
        return coloured
    if x.dtype != np.uint8 or (low, high) != (0, 255):
        x = np.round(np.clip((x.astype(np.float32) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    if x.shape[-1] == 1:
        return np.repeat(x, 3, -1)
    if x.shape[-1] == 2:
        return np.concatenate([x, np.zeros_like(x[..., :1])], -1)
    return np.ascontiguousarray(x[..., :3])


def image_grid(
    images: Array,
    columns: int | None = None,
    gap: int = 2,
    background: tuple[int, int, int] | None = (255, 255, 255),
    scale: tuple[float, float] = (0.0, 255.0),
    zoom: int | None = None,
) -> Bytes:
    """Tiles in rows from the top left: uint8 (H, W, 3), or (H, W, 4) with transparent gaps if `background` is None.

    Arguments:
        images: (N, H, W[, C]) in units of `scale`.
        columns: tiles per row; by default the grid is about square.
        gap: pixels between tiles.
        background: colour of gaps and empty places.
        scale: the values of black and white.
        zoom: integer magnification; by default small images are enlarged to a visible size.
    """
    tiles = to_uint8(images, scale)
    n, height, width, _ = tiles.shape
    if n == 0:
        raise ChoiceError("a grid needs one image or more, got none")
    if columns is not None and columns < 1:
        raise ChoiceError(f"columns must be 1 or more, got {columns}")
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    zoom = zoom or max(1, math.ceil(TILE / max(height, width)))
    tiles = tiles.repeat(zoom, 1).repeat(zoom, 2)
    height, width, rows = height * zoom, width * zoom, math.ceil(n / columns)
    grid = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 3 if background else 4), np.uint8)
    if background:
        grid[:] = background
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        grid[top : top + height, left : left + width, :3] = tile
        if background is None:
            grid[top : top + height, left : left + width, 3] = 255
    return grid


def diverging(values: ArrayLike, limit: float) -> Bytes:
    """Signed numbers as colours: blue below 0, near white at 0, red above, `MISSING` for nan: (...,) -> uint8 (..., 3).

    Arguments:
        values: any numbers.
        limit: the absolute value that gets the full colour, as do all larger ones.
    """
    if not limit > 0:
        raise ChoiceError(f"limit must be above 0, got {limit:g}")
    t = np.clip(np.asarray(values, dtype=float) / limit, -1, 1)[..., None]
    end = np.where(t < 0, _BELOW, _ABOVE)
    mixed = np.abs(t) * end + (1 - np.abs(t)) * np.array(_ZERO)
    return np.round(np.where(np.isnan(t), MISSING, mixed)).astype(np.uint8)


def error_map(data: Array, reconstruction: Array, limit: float | None = None) -> Bytes:
    """reconstruction - data of images (N, H, W[, C]), averaged over channels, as colours: uint8 (N, H, W, 3).

    Arguments:
        data, reconstruction: images of the same shape and units.
        limit: the error that gets the full colour; by default the largest.
    """
    if data.shape != reconstruction.shape:
        raise ChoiceError(f"data and reconstruction differ in shape: {data.shape} and {reconstruction.shape}")
    error = reconstruction.astype(float) - data.astype(float)
    if error.ndim == 4:
        error = error.mean(-1)
    return diverging(error, limit or float(np.nanmax(np.abs(error), initial=0.0)) or 1.0)


def png_bytes(array: Array) -> bytes:
    """A uint8 picture (H, W), (H, W, 3) or (H, W, 4) as the bytes of a PNG file."""
    from PIL import Image

    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)):
        raise ChoiceError(f"a picture is uint8 (H, W), (H, W, 3) or (H, W, 4), got {array.dtype} {array.shape}")
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, "PNG", optimize=True)
    return file.getvalue()


def save_png(path: str | Path, array: Array) -> Path:
    """Write a uint8 picture as PNG, atomically, and return its path.

    Raises:
        RunError: the file cannot be written.
        ChoiceError: the array is not a picture.
    """
    content = png_bytes(array)
    write_atomically(Path(path), lambda part: part.write_bytes(content) and None)
    return Path(path)
