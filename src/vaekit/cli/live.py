"""The commands export (files for other programs) and explore (a page that decodes live)."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from vaekit.errors import ChoiceError

from .output import Doing, at_least, check_file, make_folder
from .use import _open

DEFAULT_POINTS = 60_000
DEFAULT_TSNE = 5000


def export(
    run: str,
    /,
    *,
    format: Literal["onnx", "torch"] = "onnx",
    graphs: Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True)] = None,
    out: str,
    data: str | None = None,
) -> None:
    """Write decoder, encoder and densities as files for other programs, each checked against the run.

    Parameters
    ----------
    run
        The run directory.
    format
        onnx (for onnxruntime and others), or torch (a program of torch.export, without pickle).
    graphs
        Which of decode, draw, encode, weights (importance weights); by default all that the model supports.
    out
        A folder for all files, or one .onnx or .pt2 file (by default of decode).
    data
        Name or path of the run's data, if they have moved.
    """
    opened = _open(run, data)
    names = [name for given in graphs or () for name in given.split(",") if name] or None
    from vaekit.export import write_export

    with Doing() as doing:
        files, missing = write_export(opened, out, format=format, graphs=names, progress=doing)
    for name, why in missing.items():
        print(f"no {name}: {why}", file=sys.stderr)
    for file in files:
        print(file)


def explore(
    run: str,
    /,
    *,
    out: str | None = None,
    points: int = DEFAULT_POINTS,
    tsne: int = DEFAULT_TSNE,
    data: str | None = None,
) -> None:
    """One HTML page that decodes live in the browser: map, sliders, interpolation, your own images. No server.

    Parameters
    ----------
    run
        The run directory; `example` for the one that comes with vaekit.
    out
        The page; by default explorer.html in the run.
    points
        Maximum number of points on the map, test data first; fewer if the page would be too large.
    tsne
        Number of points in a t-SNE map (5000 take minutes on a slow machine); 0 for no map.
    data
        Name or path of the run's data, if they have moved.
    """
    at_least(1, points=points)
    if not 0 <= tsne <= DEFAULT_TSNE:
        raise ChoiceError(f"--tsne must lie in 0..{DEFAULT_TSNE}, got {tsne}")
    path = None if out is None else check_file(out, (".html",))
    opened = _open(run, data)
    from vaekit.explorer import write_explorer

    if path is not None:
        make_folder(path)
    with Doing() as doing:
        page = write_explorer(opened, path, points=points, tsne=tsne, progress=doing)
    print(page)
