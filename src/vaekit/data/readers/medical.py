"""Medical images (.dcm, .nii): the slices of volumes as images, with their values."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import math
import struct
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from vaekit.data import cache as caches
from vaekit.data.core import Array, Progress, listed
from vaekit.data.source import Source
from vaekit.errors import DataError
from vaekit.utils.arguments import Knob

from . import folders
from .registry import reader

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The axis of a volume (right, anterior, superior) across which each plane lies."""
VERSION = 2
"""Version of how values are read; part of the names of cached files."""
DEFLATED = "1.2.840.10008.1.2.1.99"
"""The transfer syntax of DICOM files that are compressed as a whole."""
RATIO, SMALL = 1100, 2**24
"""A file may declare values of 1,100 times its bytes (deflate reaches 1,032), or so many bytes."""
DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError),
    *(NotImplementedError, RecursionError, MemoryError, AssertionError, ImportError, struct.error, zlib.error),
)
"""Exceptions of pydicom and nibabel for damaged files, and for compressions that need further packages."""
Plane = Annotated[
    Literal["axial", "coronal", "sagittal"] | str, Knob("plane of the slices of a volume (.nii)", among=tuple(PLANES))
]


def is_medical(path: Path) -> bool:
    """Whether a path is a .dcm or .nii file, or a folder whose first data file is one."""
    return folders.leading(path) in folders.MEDICAL if path.is_dir() else folders.ends(path.name, folders.MEDICAL)


@reader("medical", "medical images (.dcm, .nii)", reads=is_medical, files=".dcm, .nii, .nii.gz (or a folder of them)")
def source(
    path: Path,
    *,
    plane: Plane = "axial",
    group: str | None = None,
    to_train: bool = True,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """The slices in a file, or in the files below a folder sorted by name, as images (N, H, W) of float32.

    The values of DICOM files are in their units (slope and intercept applied), such as Hounsfield units; where low
    values are bright (MONOCHROME1), they are inverted within the range of the stored bits, in all files alike. Volumes
    in NIfTI files are turned to the closest of the axes right, anterior and superior; in axial slices, anterior is up
    and right is on the right. Class folders become labels, train and test folders splits. The columns `volume` and
    `slice` hold the file and the number of each slice, and for DICOM `series` the first file of its series.

    Args:
        path: the file or folder.
        plane: the plane of the slices of NIfTI volumes; a DICOM file holds the slices that were stored.
        group: column whose rows of equal value stay in one split, such as `volume` or `series`.
        to_train: whether to leave out files outside the splits if folders define splits.
        cache: the cache folder, if not the default.
        progress: called while a large array is written to the cache.

    Raises:
        DataError: pydicom or nibabel is missing; a file is damaged or compressed in a way that needs further packages;
            or the slices have several sizes.
    """
    if plane not in PLANES:
        raise DataError(f"plane must be one of {', '.join(PLANES)}, got {plane!r}")
    root, files, notes = folders.files_of(path, folders.MEDICAL, "file", to_train)
    remarks: list[str] = []
    heads = {name: _head(root / name, plane, remarks) for name in files}
    if remarks:
        notes.append(f"headers of NIfTI files are unusual: {listed([*dict.fromkeys(remarks)], 4)}")
    shapes = {name: shape for name, (shape, _) in heads.items()}
    sizes = Counter(shape[1:] for shape in shapes.values())
    if len(sizes) > 1:
        shown = listed([f"{'x'.join(map(str, size))} ({count})" for size, count in sizes.most_common()])
        raise DataError(
            f"{path} holds slices of {len(sizes)} sizes (height x width): {shown}; expected one: resample the volumes "
            "to one grid first"
        )
    n, size = sum(shape[0] for shape in shapes.values()), next(iter(sizes))
    parts = (_slices(root / name, plane, shape) for name, shape in shapes.items())
    if n * math.prod(size) * 4 < caches.LARGE:
        x = np.concatenate(list(parts))
    else:
        stats = [(str(root.resolve()), f, (root / f).stat().st_size, (root / f).stat().st_mtime_ns) for f in files]
        key = hashlib.sha256(json.dumps([VERSION, stats, plane]).encode()).hexdigest()[:32]
        x = caches.written(caches.folder(cache) / "medical" / f"{key}.npy", np.dtype("f4"), (n, *size), parts, progress)
    names = [folders.printable(name) for name in files]
    assigned = folders.labels_and_splits(names)
    counts = np.array([shapes[name][0] for name in files])
    owner = np.repeat(np.arange(len(files)), counts)
    columns = {"volume": np.array(names)[owner], "slice": np.concatenate([np.arange(count) for count in counts])}
    series = _series(names, [uid for _, uid in heads.values()])
    if any(map(_is_dicom, map(Path, files))):
        columns["series"] = series[owner]
    whole = "series" if len(set(series)) < len(files) else "volume"
    if to_train and group is None and assigned.splits is None and len(set(series)) > 2 and n > len(set(series)):
        notes.append(f"slices of one {whole} may be in several splits; `group={whole!r}` keeps them in one")
    return Source(
        x,
        label=None if assigned.label is None else assigned.label[owner],
        label_names=assigned.label_names,
        columns=columns,
        splits=assigned.splits
        and {part: np.flatnonzero(np.isin(owner, rows)) for part, rows in assigned.splits.items()},
        kind="image",
        options={} if plane == "axial" else {"plane": plane},
        notes=(*notes, *assigned.notes),
    )


def _series(names: list[str], identifiers: list[str]) -> Array:
    """The first file of the series of each file; a file without an identifier is a series of its own."""
    first: dict[str, str] = {}
    return np.array([first.setdefault(one or name, name) for name, one in zip(names, identifiers, strict=True)])


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Raise DataError for any exception about a damaged file; warnings about details of the format are not shown."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except _damages() as error:
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
        raise DataError(
            f"{path} cannot be read ({why}): damaged, or of a kind that is not supported; convert it, for example to "
            "NIfTI with dcm2niix"
        ) from error


def _damages() -> tuple[type[Exception], ...]:
    """The exceptions in `DAMAGE`, and further ones of pydicom and nibabel if they are imported."""
    found: list[type[Exception]] = [*DAMAGE]
    if "pydicom" in sys.modules:
        from pydicom.errors import BytesLengthException, InvalidDicomError

        found += [InvalidDicomError, BytesLengthException]
    if "nibabel" in sys.modules:
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError, HeaderTypeError

        found += [ImageFileError, HeaderDataError, HeaderTypeError]
    return tuple(found)


def _is_dicom(path: Path) -> bool:
    return path.suffix.lower() == ".dcm"


def _needs(path: Path, package: str) -> DataError:
    return DataError(f"reading {path} needs {package}: pip install 'vaekit[medical]'")


def _dicom(path: Path, **how: Any) -> Any:
    """A DICOM data set."""
    try:
        import pydicom
    except ImportError as error:
        raise _needs(path, "pydicom") from error
    with _damage(path):
        meta = pydicom.filereader.read_file_meta_info(str(path))
        if str(meta.get("TransferSyntaxUID", "")) == DEFLATED:
            raise DataError(f"{path} is compressed as a whole: save it with another transfer syntax")
        return pydicom.dcmread(str(path), **how)


def _volume(path: Path, remarks: list[str] | None = None) -> Any:
    """An open NIfTI image, whose values are not read yet; what is unusual in its header is added to `remarks`."""
    try:
        import nibabel
    except ImportError as error:
        raise _needs(path, "nibabel") from error
    with _damage(path), _heard([] if remarks is None else remarks):
        opened: Any = nibabel.load(str(path))
        if len(opened.shape) not in (3, 4) or 0 in opened.shape:
            raise DataError(f"{path} has the shape {opened.shape}, expected a volume, or several")
        if (kind := opened.get_data_dtype()).kind not in "buif":
            raise DataError(
                f"{path} holds {'complex numbers' if kind.kind == 'c' else 'colours'}, expected one real number per "
                "voxel: save its magnitude or one of its channels"
            )
        return opened


@contextmanager
def _heard(remarks: list[str]) -> Iterator[None]:
    """Add to `remarks` what nibabel says about a header and corrects in it, which it would write to standard error."""
    from nibabel.imageglobals import logger

    handler, before = logging.Handler(), logger.handlers
    handler.emit = lambda record: remarks.append(record.getMessage())  # type: ignore[method-assign]
    logger.handlers = [handler]
    try:
        yield
    finally:
        logger.handlers = before


def _head(path: Path, plane: str, remarks: list[str]) -> tuple[tuple[int, int, int], str]:
    """The number, height and width of the slices in a file, and the identifier of its series if it has one.

    What is unusual in the header of a volume is added to `remarks`.
    """
    series = ""
    if _is_dicom(path):
        header = _dicom(path, stop_before_pixels=True)
        with _damage(path):
            shape = int(header.get("NumberOfFrames", 1) or 1), int(header.Rows), int(header.Columns)
            series = str(header.get("SeriesInstanceUID") or "")
            if int(header.get("SamplesPerPixel", 1)) != 1:
                raise DataError(f"{path} is in colour: save it as PNG, and give a folder of images")
    else:
        volume = _volume(path, remarks)
        with _damage(path):
            import nibabel

            axes = nibabel.io_orientation(volume.affine)[:, 0]
            if not np.isfinite(axes).all():
                raise DataError(f"{path} does not say how its axes lie: save it with an affine matrix")
            sides = [0, 0, 0]
            for axis, side in zip(axes.astype(int), volume.shape[:3], strict=True):
                sides[axis] = int(side)
            count, (width, height) = sides[PLANES[plane]], [s for i, s in enumerate(sides) if i != PLANES[plane]]
            shape = count * math.prod(volume.shape[3:]), height, width
    size = path.stat().st_size
    if min(shape) < 1 or math.prod(shape) > max(SMALL, RATIO * size):
        raise DataError(f"{path} declares slices of shape {shape}, but has only {size:,} bytes: it is damaged")
    return shape, series


def _slices(path: Path, plane: str, shape: tuple[int, int, int]) -> Array:
    """The slices of a file, float32 of this shape."""
    values = _of_dicom(path) if _is_dicom(path) else _of_volume(path, plane)
    if values.shape != shape:
        raise DataError(f"{path} has slices of shape {values.shape}, but its header says {shape}: it is damaged")
    if not np.isfinite(values).all():
        raise DataError(f"{path} holds values that are not finite: replace them first")
    return values


def _of_dicom(path: Path) -> Array:
    dataset = _dicom(path)
    with _damage(path), np.errstate(all="ignore"):
        stored = np.asarray(dataset.pixel_array)
        stored = stored[None] if stored.ndim == 2 else stored
        values = _in_units(stored, dataset)
        if dataset.get("PhotometricInterpretation") == "MONOCHROME1":  # low values are bright
            low, high = _range(stored, dataset)
            ends = np.full((2, len(stored), 1, 1), [[[[low]]], [[[high]]]], stored.dtype)
            values = _in_units(ends[0], dataset) + _in_units(ends[1], dataset) - values
        return values.astype(np.float32)


def _range(stored: Array, dataset: Any) -> tuple[int, int]:
    """The least and the greatest value that the file could store, which are those of all files of its kind."""
    if stored.dtype.kind == "f":
        return 0, 0
    bits = int(dataset.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if stored.dtype.kind == "i" else (0, 2**bits - 1)


def _in_units(stored: Array, dataset: Any) -> Array:
    """Stored values (slice, height, width) in the units of the file, as float64.

    Files of several frames ("enhanced") hold slope and intercept for all frames or for each, others in the data set.
    """
    from pydicom.pixels import apply_modality_lut

    common = dataset.get("SharedFunctionalGroupsSequence") or [{}]
    each = dataset.get("PerFrameFunctionalGroupsSequence") or []
    found = [_slope(one) or _slope(common[0]) for one in each] or [_slope(common[0])]
    if not any(found):
        return np.asarray(apply_modality_lut(stored, dataset), np.float64)
    if not all(found) or len(found) not in (1, len(stored)):
        raise ValueError("slope and intercept are missing for some of its frames")
    slope, intercept = np.array(found, np.float64).T[..., None, None]
    return stored * slope + intercept


def _slope(group: Any) -> tuple[float, float] | None:
    """Slope and intercept in a functional group of frames, or None."""
    found = group.get("PixelValueTransformationSequence")
    return (float(found[0].RescaleSlope), float(found[0].RescaleIntercept)) if found else None


def _of_volume(path: Path, plane: str) -> Array:
    import nibabel

    volume = _volume(path)
    with _damage(path), np.errstate(all="ignore"):
        if path.suffix.lower() == ".gz":
            with gzip.open(path) as stream:
                while stream.read(2**20):  # at the end, gzip compares the checksum, which nibabel does not reach
                    pass
        values = np.asarray(nibabel.as_closest_canonical(volume).dataobj, np.float32)
        values = values[..., None] if values.ndim == 3 else values
        # (right, anterior, superior, volume) -> (volume, slice, height, width), with the last axis of the plane upwards
        slices = np.moveaxis(values, PLANES[plane], 0)
        turned = slices.transpose(3, 0, 2, 1)[:, :, ::-1]
        return np.ascontiguousarray(turned.reshape(-1, *turned.shape[2:]))
