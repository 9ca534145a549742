"""Which data the explorer shows, and what is known of each: code, label, log p(x), error, thumbnail."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..figures.pictures import channels_last, to_uint8
from ..metrics.likelihood import EVALUATION
from ..noise import Noise, fold
from ..run import Observed, Run
from ..terms import log_mean_weight, log_weights

Told = Callable[[str, int, int], None]
MOST_THUMBS, THUMB = 10_000, 32
UNLABELLED = 65535
BLOCK_NUMBERS = 1_000_000
"""Numbers of x decoded at once."""
SAMPLES, SECONDS = 8, 60.0
"""Importance samples of log p(x) a datum, and how long is spent on them at most."""
BASE64 = 4 / 3


@dataclass
class Points:
    """Data in the order in which the page shows them: rows of the test set, then of the training set.

    Attributes:
        z: (n, D) codes. label: (n,) int64, -1 where unknown, or None.
        row: (n,) rows in their split; the first `test` are of the test set.
        logpx, error: (n,) float32, nan where not measured: nats; root mean square error in the data's own units.
        thumbs: (t, h, w, c) uint8.
    """

    z: np.ndarray
    row: np.ndarray
    test: int
    label: np.ndarray | None
    logpx: np.ndarray
    error: np.ndarray
    thumbs: np.ndarray

    @property
    def parts(self) -> list[tuple[str, np.ndarray]]:
        """(split, rows) of the two splits, those that have rows."""
        both = [("test", self.row[: self.test]), ("train", self.row[self.test :])]
        return [(split, rows) for split, rows in both if len(rows)]


def chosen(run: Run, n: int, seed: int = 0) -> tuple[np.ndarray, int]:
    """Rows of n data, or of all there are, shuffled: (rows, how many of them are test rows, which come first)."""
    rng = np.random.default_rng(seed)
    test = rng.permutation(len(run.data.test))[:n]
    train = rng.permutation(len(run.data.train))[: n - len(test)]
    return np.concatenate([test, train]).astype(np.int32), len(test)


def gather(run: Run, n: int, room: float, told: Told, samples: int = SAMPLES) -> Points:
    """As many as `n` data, fewer where they would take more than `room` bytes in the page.

    Half of the room may go to thumbnails; the codes get what is left.
    """
    row, test = chosen(run, n)
    parts = [("test", row[:test]), ("train", row[test:])]
    parts = [(split, rows) for split, rows in parts if len(rows)]
    step = rounding(run)
    first = _rounded(run.encode("test", rows=row[: min(500, test)]), step)
    each = _packed(first) + 6.0  # and label, log p(x), error and row
    thumbs = _thumbs(run, row[: min(test, 200)])
    per_thumb = _packed(thumbs)
    count = min(MOST_THUMBS, test, len(row), int(room / 2 / per_thumb) if per_thumb else 0)
    left = max(500, int((room - count * per_thumb) / each))
    if left < len(row):
        row, test = row[:left], min(test, left)
    points = Points(first, row, test, _labels(run, row, test), *(np.full(len(row), np.nan, np.float32),) * 2, thumbs)
    points.logpx = points.logpx.copy()
    points.z = _rounded(_codes(run, points, told), step)
    points.thumbs = _thumbs(run, row[: min(count, test)])
    _errors(run, points, told)
    if run.model.no_density is None and samples > 0:
        _densities(run, points, samples, told)
    return points


def _packed(x: np.ndarray) -> float:
    """Bytes that one of these rows takes in the page, compressed and in base64."""
    return BASE64 * len(gzip.compress(x.tobytes(), 6)) / max(1, len(x))


# --- codes ------------------------------------------------------------------------------------------------------


def rounding(run: Run) -> np.ndarray | None:
    """A step of each latent that is small against q's deviation there, a power of two: (D,), or None to round nothing.

    Codes are known to no more than q's deviation, and rounded ones compress.
    """
    from ..export.graphs import build

    graph = build(run, "encode")
    if len(graph.outputs) < 2:
        return None
    observed = run.observed("test")
    rows = np.arange(min(200, observed.n))
    raw = torch.from_numpy(np.ascontiguousarray(observed.raw(rows))).float()
    c = observed.condition(rows)
    with torch.no_grad():
        spread = graph.module(raw, *(() if c is None else (c,)))[1].numpy()
    middle = np.median(spread, 0).astype(np.float64)
    return np.where(middle > 0, 2.0 ** np.floor(np.log2(np.maximum(middle, 1e-30) / 8)), 2.0**-14)


def _rounded(z: np.ndarray, step: np.ndarray | None) -> np.ndarray:
    return (z if step is None else np.round(z / step) * step).astype(np.float16)


def _block(run: Run, samples: int = 1) -> int:
    return max(1, min(1000, BLOCK_NUMBERS // (run.facts.dims * samples)))


def _codes(run: Run, points: Points, told: Told) -> np.ndarray:
    found, done, n = [], 0, len(points.row)
    for split, rows in points.parts:
        for a in range(0, len(rows), 1000):
            found.append(run.encode(split, rows=rows[a : a + 1000]))
            done += len(found[-1])
            told("encoding", done, n)
    return np.concatenate(found)


# --- what is measured -------------------------------------------------------------------------------------------


def _errors(run: Run, points: Points, told: Told) -> None:
    done, block = 0, _block(run)
    for split, rows in points.parts:
        observed = run.observed(split)
        for a in range(0, len(rows), block):
            some = rows[a : a + block]
            made = run.decode(points.z[done : done + len(some)].astype(np.float32))
            off = (made - observed.raw(some).astype(np.float32)).reshape(len(some), -1)
            with np.errstate(invalid="ignore"):
                points.error[done : done + len(some)] = _short(np.sqrt(np.nanmean(off**2, 1)))
            done += len(some)
            told("reconstructing", done, len(points.row))


def _densities(run: Run, points: Points, samples: int, told: Told) -> None:
    """log p(x) of the points in order, until the time for it is over."""
    done, block, over = 0, _block(run, samples), time.monotonic() + SECONDS
    for split, rows in points.parts:
        observed = run.observed(split)
        for a in range(0, len(rows), block):
            if time.monotonic() > over:
                return
            some = rows[a : a + block]
            points.logpx[done : done + len(some)] = _short(log_px(run, observed, some, samples))
            done += len(some)
            told("log p(x)", done, len(points.row))


@torch.no_grad()
def log_px(run: Run, observed: Observed, rows: np.ndarray, samples: int) -> np.ndarray:
    """The importance-weighted bound on log p(x) of these rows, with the draws that `run.score` takes: (n,)."""
    x, c = observed(rows).to(run.device), observed.condition(rows, run.device)
    number = torch.from_numpy(rows.astype(np.int64)).to(run.device)
    noise = Noise(torch.tensor(fold(0, EVALUATION), device=run.device), number)
    found = log_mean_weight(log_weights(run.model.trace(x, c, k=samples, noise=noise), x)).cpu().double()
    observation = run.composition.observation
    units = observation.log_jacobian_of(x) if run.facts.missing else observation.log_jacobian(run.facts.shape)
    return (found + units).numpy()


def _short(values: np.ndarray) -> np.ndarray:
    """To four digits or so, which compress."""
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.floor(np.log2(np.maximum(np.abs(values), 1e-30)))
    step = 2.0 ** (size - 12)
    return (np.round(values / step) * step).astype(np.float32)


def _labels(run: Run, row: np.ndarray, test: int) -> np.ndarray | None:
    if run.data.test.label is None or run.data.train.label is None:
        return None
    return np.concatenate([run.data.test.label[row[:test]], run.data.train.label[row[test:]]])


# --- thumbnails -------------------------------------------------------------------------------------------------


def _thumbs(run: Run, rows: np.ndarray) -> np.ndarray:
    """Pictures of test rows, at most THUMB a side: (t, h, w, 1 or 3) uint8; t = 0 for other data."""
    if run.facts.kind != "image" or not len(rows):
        return np.zeros((0, 1, 1, 1), np.uint8)
    found = []
    for a in range(0, len(rows), 500):
        raw = np.nan_to_num(run.observed("test").raw(rows[a : a + 500]), nan=run.facts.scale[0])
        pictures = to_uint8(channels_last(raw), run.facts.scale)
        found.append(_small(pictures[..., :1] if run.facts.shape[0] == 1 else pictures))
    return np.concatenate(found)


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
