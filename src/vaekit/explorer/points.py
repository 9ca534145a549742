"""The data that the explorer shows, with the code, label, log p(x), error and thumbnail of each."""

from __future__ import annotations

import functools
import gzip
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from vaekit.data.readers.npz import arrays
from vaekit.errors import DataError
from vaekit.figures.pictures import channels_last, to_uint8
from vaekit.runs.likelihood import log_likelihood
from vaekit.runs.observed import Observed, decoded_size
from vaekit.runs.saved import SavedRun

OnProgress = Callable[[str, int, int], None]
MOST_THUMBS, THUMB = 10_000, 32
UNLABELLED = 65535
BLOCK_NUMBERS = 1_000_000
"""Maximum number of values of x in one batch."""
SAMPLES = 8
"""Importance samples per datum for log p(x)."""
WORK, PER_VALUE = 1e12, 50
"""The most work for log p(x) of a page, in multiply-adds, and the multiply-adds that each decoded value counts besides
those of the networks. A limit of work, unlike one of time, does not depend on the speed of the machine."""
BASE64 = 4 / 3
SHOWN = "shown.npz"
"""A file of data to show that a run may contain: x (n, *row), label (n,), row (n,), tsne (m, 2)."""


@dataclass
class Source:
    """The data to show from one split.

    Attributes:
        name: "test" or "train".
        observed: x and raw events by index.
        place: (n,) the indices of these data in `observed`.
        row: (n,) their rows in the split.
        label: (n,) int64, -1 if unknown; or None.
        columns: further columns, each (n,).
    """

    name: str
    observed: Observed
    place: np.ndarray
    row: np.ndarray
    label: np.ndarray | None
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.place)

    def head(self, n: int) -> Source:
        """The first n points."""
        label = None if self.label is None else self.label[:n]
        columns = {name: column[:n] for name, column in self.columns.items()}
        return Source(self.name, self.observed, self.place[:n], self.row[:n], label, columns)

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Their indices, `size` at a time."""
        yield from (self.place[a : a + size] for a in range(0, len(self), size))


def sources(run: SavedRun, n: int, seed: int = 0) -> list[Source]:
    """At most n data in the order of the page: shuffled test data, then shuffled training data.

    If the run contains a file of data to show (`SHOWN`, as in the packaged example), those are the data.
    """
    if (run.path / SHOWN).exists():
        return [_stored(run, n)]
    rng = np.random.default_rng(seed)
    parts: list[Source] = []
    for name, split in (("test", run.data.test), ("train", run.data.train)):
        row = rng.permutation(len(split))[: n - sum(len(s) for s in parts)]
        if len(row):
            label = None if split.label is None else split.label[row]
            columns = {k: np.asarray(column)[row] for k, column in split.columns.items()}
            parts.append(Source(name, run.observed(name), row, row, label, columns))
    return parts


def _stored(run: SavedRun, n: int) -> Source:
    stored = _shown(run)
    x, label, row = (stored[key][:n] for key in ("x", "label", "row"))
    condition = run.composition.condition
    observed = run.observed(x, labels=None if condition is None else np.array(condition.names)[label])
    return Source("test", observed, np.arange(len(x)), row, label.astype(np.int64), {})


def stored_tsne(run: SavedRun) -> np.ndarray | None:
    """The t-SNE map (m, 2) stored with a run's data to show, or None."""
    if not (run.path / SHOWN).exists():
        return None
    stored = _shown(run)
    return stored["tsne"].astype(np.float32) if "tsne" in stored else None


def _shown(run: SavedRun) -> dict[str, np.ndarray]:
    """The arrays of `SHOWN`.

    Raises:
        DataError: an array is missing or has the wrong shape, type or values.
    """
    path = run.path / SHOWN
    stored = arrays(path)
    whole = {
        name: stored[name].dtype.kind in "iu" and stored[name].ndim == 1 for name in ("label", "row") if name in stored
    }
    n = len(stored["row"]) if whole.get("row") else 0
    fits = (
        n
        and whole.get("label")
        and "x" in stored
        and stored["x"].ndim
        and len(stored["x"]) == len(stored["label"]) == n
    )
    tsne = stored.get("tsne", np.zeros((0, 2)))
    classes = len(run.spec.classes)
    if not fits or tsne.ndim != 2 or tsne.shape[1] != 2 or tsne.dtype.kind != "f" or len(tsne) > n:
        raise DataError(f"{path} is damaged: expected x (n, ...), whole numbers label (n,) and row (n,), tsne (m, 2)")
    if stored["label"].min() < -1 or (classes and stored["label"].max() >= classes):
        raise DataError(f"{path} is damaged: labels must lie in -1..{classes - 1}")
    return stored


@dataclass
class Points:
    """The points of the map.

    Attributes:
        sources: the sources of the points, in order.
        z: (n, D) codes, float16.
        logpx, error: (n,) float32, nan if not measured: nats; root mean squared error in the data's units.
        thumbs: (t, h, w, c) uint8 of the first t.
        scored: the number of points, from the first on, whose log p(x) was computed.
    """

    sources: list[Source]
    z: np.ndarray
    logpx: np.ndarray
    error: np.ndarray
    thumbs: np.ndarray
    scored: int = 0

    def __len__(self) -> int:
        return len(self.z)

    @property
    def row(self) -> np.ndarray:
        """(n,) int32 rows in their split."""
        return np.concatenate([s.row for s in self.sources]).astype(np.int32)

    @property
    def label(self) -> np.ndarray | None:
        """(n,) int64, -1 if unknown; None if no datum has a label."""
        if all(s.label is None for s in self.sources):
            return None
        return np.concatenate([np.full(len(s), -1) if s.label is None else s.label for s in self.sources])

    def count(self, name: str) -> int:
        """The number of points of the source `name`."""
        return sum(len(s) for s in self.sources if s.name == name)


def gather(run: SavedRun, n: int, room: float, on_progress: OnProgress, samples: int = SAMPLES) -> Points:
    """At most `n` points, fewer if they would take more than `room` bytes in the page.

    Thumbnails take at most half of the room; the codes take the rest.
    """
    available = sources(run, n)
    step, sample = rounding(run, available[0]), available[0].head(300)
    each = _packed(_rounded(_codes(run, [sample], lambda *_: None), step)) + 6.0  # and label, log p(x), error and row
    per_thumb = _packed(_thumbs(run, sample))
    thumbs = min(MOST_THUMBS, len(available[0]), int(room / 2 / per_thumb) if per_thumb else 0)
    left = max(500, int((room - thumbs * per_thumb) / each))
    kept = [s.head(left - before) for s, before in zip(available, _before(available), strict=True) if left > before]
    z = _rounded(_codes(run, kept, on_progress), step)
    unknown = np.full(len(z), np.nan, np.float32)
    points = Points(kept, z, unknown, unknown.copy(), _thumbs(run, kept[0].head(thumbs)))
    _errors(run, points, on_progress)
    if run.model.no_density is None and samples > 0:
        _densities(run, points, samples, on_progress)
    return points


def _before(sources: list[Source]) -> list[int]:
    """The number of data before each source."""
    return [0, *itertools.accumulate(map(len, sources))][: len(sources)]


def _packed(x: np.ndarray) -> float:
    """Bytes per row in the page, compressed and in base64."""
    return BASE64 * len(gzip.compress(x.tobytes(), 6)) / max(1, len(x))


# --- codes ------------------------------------------------------------------------------------------------------


def rounding(run: SavedRun, source: Source) -> np.ndarray | None:
    """A rounding step per latent, a power of two far below q's standard deviation: (D,), or None for no rounding.

    Codes are uncertain by q's standard deviation anyway, and rounded codes compress well.
    """
    from vaekit.export.graphs import build

    graph = build(run, "encode")
    if len(graph.outputs) < 2:
        return None
    place = source.place[:200]
    raw = torch.from_numpy(np.ascontiguousarray(source.observed.raw(place))).float()
    c = source.observed.condition(place)
    with torch.no_grad():
        spread = graph.module(raw, *(() if c is None else (c,)))[1].numpy()
    middle = np.median(spread, 0).astype(np.float64)
    return np.where(middle > 0, 2.0 ** np.floor(np.log2(np.maximum(middle, 1e-30) / 8)), 2.0**-14)


def _rounded(z: np.ndarray, step: np.ndarray | None) -> np.ndarray:
    return (z if step is None else np.round(z / step) * step).astype(np.float16)


def _codes(run: SavedRun, sources: list[Source], on_progress: OnProgress) -> np.ndarray:
    """The posteriors' centres as given by `Run.encode`: (n, D)."""
    codes: list[np.ndarray] = []
    n = sum(map(len, sources))
    for source, before in zip(sources, _before(sources), strict=True):
        report = functools.partial(lambda before, done, of: on_progress("encoding", before + done, n), before)
        codes.append(run.encode(source.observed, rows=source.place, progress=report))
    return np.concatenate(codes)


# --- measurements -----------------------------------------------------------------------------------------------


def _errors(run: SavedRun, points: Points, on_progress: OnProgress) -> None:
    done, block = 0, max(1, min(1000, BLOCK_NUMBERS // run.spec.dims))
    for source in points.sources:
        for place in source.blocks(block):
            block_rows = slice(done, done + len(place))
            decoded = run.decode(points.z[block_rows].astype(np.float32))
            error = (decoded - source.observed.raw(place).astype(decoded.dtype)).reshape(len(place), -1)
            present = ~np.isnan(error)
            square = np.where(present, error, 0.0) ** 2
            points.error[block_rows] = _short(np.sqrt(square.sum(1) / np.maximum(present.sum(1), 1)))
            done += len(place)
            on_progress("reconstructing", done, len(points))


def _densities(run: SavedRun, points: Points, samples: int, on_progress: OnProgress) -> None:
    """log p(x) of the points in order, as many as `WORK` allows."""
    most = min(len(points), max(1, int(WORK / _work(run, points.sources[0].head(1), samples))))
    for source in points.sources:
        chosen, before = source.head(most - points.scored), points.scored
        if len(chosen):
            report = functools.partial(lambda before, done, of: on_progress("log p(x)", before + done, most), before)
            found = log_likelihood(run, source.observed, samples, rows=chosen.place, compile=False, progress=report)
            points.logpx[before : before + len(chosen)] = _short(found)
            points.scored += len(chosen)


def _work(run: SavedRun, one: Source, samples: int) -> int:
    """The work for log p(x) of one datum."""
    from vaekit.training.cost import Count

    with Count() as count:
        log_likelihood(run, one.observed, samples, rows=one.place, compile=False)
    return count.dense + count.convolved + PER_VALUE * samples * decoded_size(run.spec)


def _short(values: np.ndarray) -> np.ndarray:
    """Rounded to about four digits, which compress well."""
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.floor(np.log2(np.maximum(np.abs(values), 1e-30)))
    step = 2.0 ** (size - 12)
    return (np.round(values / step) * step).astype(np.float32)


# --- thumbnails -------------------------------------------------------------------------------------------------


def _thumbs(run: SavedRun, source: Source) -> np.ndarray:
    """Pictures of the data, at most THUMB pixels per side: (t, h, w, 1 or 3) uint8; t = 0 unless they are images."""
    if run.spec.kind != "image" or not len(source):
        return np.zeros((0, 1, 1, 1), np.uint8)
    parts = []
    for place in source.blocks(500):
        raw = np.nan_to_num(source.observed.raw(place), nan=run.spec.scale[0])
        pictures = to_uint8(channels_last(raw), run.spec.scale)
        parts.append(_small(pictures[..., :1] if run.spec.shape[0] == 1 else pictures))
    return np.concatenate(parts)


def _small(pictures: np.ndarray) -> np.ndarray:
    from PIL import Image

    height, width = pictures.shape[1:3]
    factor = THUMB / max(height, width)
    if factor >= 1:
        return pictures
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    grey = pictures.shape[-1] == 1
    images = [Image.fromarray(p[..., 0] if grey else p).resize(size, Image.Resampling.LANCZOS) for p in pictures]
    return np.stack([np.asarray(image).reshape(size[1], size[0], -1) for image in images])
