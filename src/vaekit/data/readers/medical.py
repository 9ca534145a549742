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

    The values of DICOM files are in their units (slope and intercept applied), such as Hounsfield units. Volumes in
    NIfTI files are turned to the closest of the axes right, anterior and superior; in axial slices, anterior is up and
    right is on the right. Class folders become labels, train and test folders splits. The columns `volume` and `slice`
    hold the file and the number of each slice.

    Args:
        path: the file or folder.
        plane: the plane of the slices of NIfTI volumes; a DICOM file holds the slices that were stored.
        group: column whose rows of equal value stay in one split, such as `volume`.
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
    shapes = {name: _shape(root / name, plane, remarks) for name in files}
    if remarks:
        notes.append(f"headers of NIfTI files are unusual: {listed([*dict.fromkeys(remarks)], 4)}")
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
        key = hashlib.sha256(json.dumps([stats, plane]).encode()).hexdigest()[:32]
        x = caches.written(caches.folder(cache) / "medical" / f"{key}.npy", np.dtype("f4"), (n, *size), parts, progress)
    names = [folders.printable(name) for name in files]
    assigned = folders.labels_and_splits(names)
    counts = np.array([shapes[name][0] for name in files])
    owner = np.repeat(np.arange(len(files)), counts)
    if to_train and group is None and assigned.splits is None and (counts > 1).any() and len(files) > 2:
        notes.append("slices of one volume may be in several splits; `group='volume'` keeps them in one")
    return Source(
        x,
        label=None if assigned.label is None else assigned.label[owner],
        label_names=assigned.label_names,
        columns={"volume": np.array(names)[owner], "slice": np.concatenate([np.arange(count) for count in counts])},
        splits=assigned.splits
        and {part: np.flatnonzero(np.isin(owner, rows)) for part, rows in assigned.splits.items()},
        kind="image",
        options={} if plane == "axial" else {"plane": plane},
        notes=(*notes, *assigned.notes),
    )


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


def _shape(path: Path, plane: str, remarks: list[str]) -> tuple[int, int, int]:
    """The number, height and width of the slices in a file, from its header; `remarks` are those of `_volume`."""
    if _is_dicom(path):
        header = _dicom(path, stop_before_pixels=True)
        with _damage(path):
            shape = int(header.get("NumberOfFrames", 1) or 1), int(header.Rows), int(header.Columns)
            if int(header.get("SamplesPerPixel", 1)) != 1:
                raise DataError(f"{path} is in colour: save it as PNG, and give a folder of images")
    else:
        import nibabel

        volume = _volume(path, remarks)
        with _damage(path):
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
    return shape


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
        from pydicom.pixels import apply_modality_lut

        values = np.asarray(apply_modality_lut(dataset.pixel_array, dataset), np.float32)
        if dataset.get("PhotometricInterpretation") == "MONOCHROME1":  # low values are bright
            values = values.min() + values.max() - values
        return values[None] if values.ndim == 2 else values


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
