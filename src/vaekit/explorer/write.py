"""Write the explorer page of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.errors import ChoiceError, RunError
from vaekit.export import Exported, export_graphs
from vaekit.runs.example import NAME, PLACE
from vaekit.runs.saved import SavedRun
from vaekit.utils.files import checked_path, write_text

from . import about, maps
from .pack import Blobs, add_runtime, page
from .points import UNLABELLED, OnProgress, Points, gather, sources, stored_tsne

POINTS = 60_000
SIZE = 14_700_000
"""Target size of a page in bytes; larger models exceed it."""
PAGE = 300_000
"""Bytes reserved for the page's code and texts."""
LEAST = 4_000_000
"""Minimum number of bytes for the data, for any size of model."""


def write_explorer(
    run: SavedRun,
    path: str | Path | None = None,
    *,
    points: int = POINTS,
    tsne: int = maps.MOST_TSNE,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Write an HTML page that explores the run's latent space with a live decoder; return its path.

    The page contains the run's graphs, a runtime for them, and codes and thumbnails of its data. It needs no network.

    Arguments:
        path: the file to write; by default explorer.html in the run directory (for the packaged example, example.html
            in the working directory).
        points: maximum number of points on the map, test data first.
        tsne: number of points for the t-SNE map; 0 for no such map.
        progress: called as progress(task, done, total), with `total` 0 if unknown.

    Raises:
        ChoiceError: the decoder or the encoder cannot be exported, onnx is not installed, or a number is out of range.
        DataError: the run's data are unavailable.
        RunError: the page cannot be written.
    """
    if points < 1 or not 0 <= tsne <= maps.MOST_TSNE:
        raise ChoiceError(f"`points` must be at least 1 and `tsne` in 0..{maps.MOST_TSNE}, got {points} and {tsne}")
    if path is None:
        path = f"{NAME}.html" if run.path == PLACE else run.place_of("explorer.html")
    place = checked_path(path)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the directory {place.parent}: {error.strerror}; choose another place") from error
    on_progress, device = progress or (lambda what, done, of: None), run.device
    try:
        title, meta, blobs, first = _contents(run.to("cpu"), points, tsne, on_progress)
    finally:
        run.to(device)
    write_text(place, page(title, meta, blobs, first=first))
    return place


def _contents(
    run: SavedRun, points: int, tsne: int, on_progress: OnProgress
) -> tuple[str, dict[str, Any], Blobs, bytes | None]:
    """The page's title, its facts, its bytes, and its first picture as a PNG file."""
    sources(run, 1)  # unavailable data fail before the slow export
    exported = export_graphs(run, half=True, progress=on_progress)
    for name in ("decode", "encode"):
        if isinstance(exported.graphs[name], str):
            raise ChoiceError(f"{run.path} has no explorer: {exported.graphs[name]}")
    blobs = Blobs()
    runtime = add_runtime(blobs)
    for name, raw in exported.files().items():
        blobs.add_bytes(name, raw)
    shown = gather(run, points, max(SIZE - PAGE - blobs.size, LEAST), on_progress)
    meta = _meta(run, exported, shown, runtime)
    _add_points(run, blobs, shown, meta, tsne, on_progress)
    x = run.decode(shown.z[:1].astype(np.float32))  # shown until the page's decoder runs
    blobs.add("first", x.astype(np.float32))
    meta["blobs"] = blobs.shapes
    return meta["title"], meta, blobs, first_picture(run, x)


def first_picture(run: SavedRun, x: np.ndarray) -> bytes | None:
    """The image x (1, *event) as a PNG file; None for other kinds of data."""
    if run.spec.kind != "image":
        return None
    from vaekit.figures.pictures import channels_last, png_bytes, to_uint8

    return png_bytes(to_uint8(channels_last(x), run.spec.scale)[0])


def _meta(run: SavedRun, exported: Exported, shown: Points, runtime: dict[str, str]) -> dict[str, Any]:
    names = run.config["data"].get("label_names") or list(run.spec.classes)
    return {
        "format": 1,
        "title": about.title(run),
        "made": time.strftime("%Y-%m-%d", time.gmtime()),
        "run": about.of_run(run),
        "python": about.python(run),
        "event": about.event(run, shown),
        "latent": about.latents(run, shown),
        "labels": {"names": list(names)} if shown.label is not None and names else None,
        "directions": maps.directions(run, shown),
        "maps": [{"id": "pair", "title": "Two latents"}],
        "metrics": about.metrics(run),
        "fitted": None,
        "graphs": exported.as_json(),
        "precision": "float16" if exported.store.half else "float32",
        "points": {name: shown.count(name) for name in ("test", "train")},
        "runtime": runtime,
        "limits": {"points": len(shown), "thumbs": len(shown.thumbs), "logpx": shown.scored},
    }


def _add_points(
    run: SavedRun, blobs: Blobs, shown: Points, meta: dict[str, Any], tsne: int, on_progress: OnProgress
) -> None:
    z = shown.z.astype(np.float32)
    mean, spread = z.mean(0, dtype=np.float64), z.std(0, dtype=np.float64)
    dims = z.shape[1] - meta["latent"]["condition"]
    live = ~np.array(meta["latent"]["dead"]) & (np.arange(z.shape[1]) < dims)
    if live.sum() < 2:  # barely trained or collapsed: map all latents
        live = np.arange(z.shape[1]) < dims
    meta["maps"].append(maps.plane(z, live))
    known, n = stored_tsne(run), min(tsne, len(z))
    embedded = maps.tsne(z, live, n, on_progress) if known is None else known[:n]
    if len(embedded):
        how = maps.how_tsne(len(embedded)) if known is None else None
        meta["maps"].append({"id": "tsne", "title": "t-SNE of the codes", "how": how})
        blobs.add("map.tsne", embedded)
    meta["limits"]["tsne"] = len(embedded)
    # codes of an unused latent hardly vary, but any value that is likely under the prior is typical
    meta["off"] = maps.away(z, mean, np.where(meta["latent"]["dead"], np.maximum(spread, 1.0), spread))
    label = np.full(len(z), -1) if shown.label is None else shown.label
    blobs.add("points.z", shown.z)
    blobs.add("points.label", np.where(label < 0, UNLABELLED, label).astype(np.uint16))
    blobs.add("points.row", shown.row)
    blobs.add("points.logpx", shown.logpx)
    blobs.add("points.error", shown.error)
    blobs.add("thumbs", shown.thumbs)
    blobs.add("prior", maps.prior(run, z.shape[1]))
    if (fitted := maps.fitted(run, z.shape[1])) is not None:
        meta["fitted"], drawn = fitted
        blobs.add("fitted", drawn)
    blobs.add("hist", maps.histogram(z, mean, spread))
