"""Sound (.wav, .flac) as signals: recordings cut into windows of equal length."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from vaekit.data import cache as caches
from vaekit.data.core import Array, Progress, counted, listed
from vaekit.data.source import Source
from vaekit.errors import DataError
from vaekit.utils.arguments import Knob

from . import flac, folders
from .registry import reader

WINDOW = 1024
BLOCK = 2**18
"""Samples per channel that are read at a time."""
PIPED = 2**31 - 2**16
"""Programs that write .wav to a pipe declare this many bytes or more, because they do not know the length."""
UNKNOWN = 2**62
"""libsndfile reports so many samples or more for a file that does not state their number."""
DAMAGE = (RuntimeError, OSError, ValueError, TypeError, OverflowError, MemoryError)
"""Exceptions of soundfile for damaged files."""


@dataclass(frozen=True)
class Recording:
    """The header of a sound file: samples per second, channels, and samples per channel."""

    rate: int
    channels: int
    length: int


def is_sound(path: Path) -> bool:
    """Whether a path is a .wav or .flac file, or a folder whose first data file is one."""
    return folders.leading(path) in folders.SOUND if path.is_dir() else path.suffix.lower() in folders.SOUND


@reader("recordings", "sound (.wav, .flac)", reads=is_sound, files=".wav, .flac (or a folder of them)")
def source(
    path: Path,
    *,
    window: Annotated[int | None, Knob(f"samples per example of sound; by default {WINDOW}", low=2)] = None,
    sample_rate: Annotated[
        int | None, Knob("sample rate in Hz that recordings must have; by default that of the first", low=1)
    ] = None,
    group: str | None = None,
    to_train: bool = True,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """The recordings in a file, or below a folder sorted by name, cut into windows that do not overlap.

    Samples are float32 in [-1, 1]: (N, window), or (N, window, channels). Samples after the last whole window are left
    out. Class folders become labels, train and test folders splits, as for images. The columns `recording` and `start`
    hold the file and the time in seconds of each window. Recordings are not resampled.

    Args:
        path: the file or folder.
        window: samples of each example.
        sample_rate: of all recordings, in Hz; it is recorded, so that new recordings must have it.
        group: column whose rows of equal value stay in one split, such as `recording`.
        to_train: whether to leave out recordings outside the splits if folders define splits.
        cache: the cache folder, if not the default.
        progress: called while a large array is written to the cache.

    Raises:
        DataError: soundfile is missing; a file is damaged; the recordings differ in sample rate or channels; or none is
            as long as a window.
    """
    root, files, notes = folders.files_of(path, folders.SOUND, "recording", to_train)
    window = window or WINDOW
    heads = {name: _head(root / name) for name in files}
    first = next(iter(heads))
    wanted = Recording(sample_rate or heads[first].rate, heads[first].channels, 0)
    for name, head in heads.items():
        _check(root / name, head, wanted, "`sample_rate`" if sample_rate else first)
    counts = {name: head.length // window for name, head in heads.items()}
    rest = sum(head.length % window for name, head in heads.items() if counts[name])
    if rest:
        notes.append(f"{counted(rest, 'sample')} after the last whole window of a recording: left out")
    if short := [name for name, count in counts.items() if not count]:
        notes.append(f"{counted(len(short), 'recording')} shorter than a window: left out: {listed(short, 4)}")
    n = sum(counts.values())
    if not n:
        raise DataError(f"{path}: no recording has {window:,} samples: give a smaller `window`")
    row = (window,) if wanted.channels == 1 else (window, wanted.channels)
    parts = (part for name in files for part in _windows(root / name, counts[name], row))
    stats = [
        (str(root.resolve()), name, (root / name).stat().st_size, (root / name).stat().st_mtime_ns) for name in files
    ]
    key = hashlib.sha256(json.dumps([stats, window]).encode()).hexdigest()[:32]
    if n * int(np.prod(row)) * 4 < caches.LARGE:
        x = np.concatenate(list(parts))
    else:
        x = caches.written(caches.folder(cache) / "sound" / f"{key}.npy", np.dtype("f4"), (n, *row), parts, progress)
    assigned = folders.labels_and_splits([folders.printable(name) for name in files])
    times = np.array([counts[name] for name in files])
    recording = np.repeat(np.array([folders.printable(name) for name in files]), times)
    start = np.concatenate([np.arange(count) for count in times]) * window / wanted.rate
    if to_train and group is None and len(files) > 2 and assigned.splits is None:
        notes.append("windows of one recording may be in several splits; `group='recording'` keeps them in one")
    notes.append(f"windows of {window:,} samples ({window / wanted.rate:.3g} s at {wanted.rate:,} Hz)")
    owner = np.repeat(np.arange(len(files)), times)
    return Source(
        x,
        label=None if assigned.label is None else assigned.label[owner],
        label_names=assigned.label_names,
        columns={"recording": recording, "start": start},
        splits=assigned.splits
        and {part: np.flatnonzero(np.isin(owner, rows)) for part, rows in assigned.splits.items()},
        kind="signal",
        options={"window": window, "sample_rate": wanted.rate},
        notes=(*notes, *assigned.notes),
    )


def _head(path: Path) -> Recording:
    with _opened(path) as file:
        if file.frames >= UNKNOWN:
            raise DataError(
                f"{path} does not state its length, because it was written to a pipe: write it again, for example with "
                f"`ffmpeg -i {path.name} new-{path.stem}{path.suffix}`"
            )
        return Recording(file.samplerate, file.channels, max(0, file.frames))


def _opened(path: Path) -> Any:
    """An open sound file.

    Raises:
        DataError: soundfile is missing, or the file is damaged.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package lacks its library
        raise DataError(f"reading {path} needs soundfile: pip install 'vaekit[audio]'") from error
    _check_length(path)
    try:
        return soundfile.SoundFile(str(path))
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read as sound ({error}): damaged, or another format") from error


def _check_length(path: Path) -> None:
    """Raise DataError for a .wav file with fewer bytes of samples than it declares, which soundfile would accept."""
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            start, at = file.read(12), 12
            if start[:4] != b"RIFF" or start[8:] != b"WAVE":
                return
            while at + 8 <= total:
                file.seek(at)
                kind, size = struct.unpack("<4sI", file.read(8))
                at += 8
                if kind == b"data" and total - at < size < PIPED:
                    raise DataError(
                        f"{path} is cut short: it declares {size:,} bytes of samples, but has {total - at:,}"
                    )
                at = total if kind == b"data" else at + size + size % 2
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error


def _check(path: Path, head: Recording, wanted: Recording, like: str) -> None:
    """Raise DataError for a recording of another sample rate or number of channels."""
    if head.rate != wanted.rate:
        raise DataError(
            f"{path} has {head.rate:,} samples per second, expected {wanted.rate:,} as {like}: resample it first, for "
            f"example with `ffmpeg -i {path.name} -ar {wanted.rate} new-{path.stem}.wav`"
        )
    if head.channels != wanted.channels:
        raise DataError(
            f"{path} has {counted(head.channels, 'channel')}, expected {wanted.channels} as {like}: mix it down first, "
            f"for example with `ffmpeg -i {path.name} -ac {wanted.channels} new-{path.stem}.wav`"
        )


def _windows(path: Path, count: int, row: tuple[int, ...]) -> Iterator[Array]:
    """The first `count` windows of a recording, (n, *row) at a time, float32; the last follow if its checksum holds."""
    step, done = max(1, BLOCK // row[0]), 0
    with _opened(path) as file:
        checksum = flac.checksum(path)
        while done < count:
            n = min(step, count - done)
            samples = _read(path, file, n * row[0], checksum)
            if len(samples) < n * row[0]:
                raise DataError(f"{path} is cut short: it has fewer samples than its header says")
            done += n
            if done == count and checksum is not None:
                while len(_read(path, file, BLOCK, checksum)):
                    pass
                if not checksum.matches:
                    raise DataError(
                        f"{path} cannot be read as sound (its samples differ from the MD5 checksum in its header): "
                        "damaged; copy it again, or encode it again from its source"
                    )
            yield samples.reshape(n, *row)


def _read(path: Path, file: Any, n: int, checksum: flac.Checksum | None) -> Array:
    """The next `n` samples per channel at most, float32."""
    try:
        if checksum is None:
            return np.asarray(file.read(n, dtype="float32"))
        samples = file.read(n, dtype="int32")
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read as sound ({error}): damaged") from error
    checksum.update(samples)
    return (samples / 2**31).astype(np.float32)  # what soundfile gives as float32
