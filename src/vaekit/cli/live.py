"""The commands export (files for other programs) and explore (a page that decodes live)."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from vaekit.errors import ChoiceError

from .opening import open_given
from .output import TaskProgress, at_least, check_file, make_folder
from .parameters import OwnData, RunFolder

DEFAULT_POINTS = 60_000
DEFAULT_TSNE = 5000


def export(
    run: RunFolder,
    /,
    *,
    format: Literal["onnx", "torch", "hub", "diffusers"] = "onnx",
    graphs: Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True)] = None,
    out: str,
    data: OwnData = None,
) -> None:
    """Export decoder, encoder and densities to files for other programs; each file is checked against the run.

    Parameters
    ----------
    format
        onnx (for onnxruntime and others), torch (a program of torch.export, without pickle), hub (the folder that
        `vaekit push` sends to the Hugging Face hub), or diffusers (AutoencoderKL, for runs with --network
        autoencoder-kl).
    graphs
        One or more of decode, draw, encode and weights (importance weights); by default all that the model supports.
    out
        A folder for all files, or one .onnx or .pt2 file, which holds the decoder unless --graphs names another.
    """
    opened = open_given(run, data)
    names = [name for word in graphs or () for name in word.split(",") if name] or None
    from vaekit.export import write_export

    with TaskProgress() as progress:
        files, missing = write_export(opened, out, format=format, graphs=names, progress=progress)
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
    data: OwnData = None,
) -> None:
    """Write an HTML page that runs the decoder in the browser: map, sliders, interpolation, your own images.

    The page needs no server.

    Parameters
    ----------
    run
        The run directory; `example` is the run that comes with vaekit.
    out
        Path of the page; by default explorer.html in the run.
    points
        Maximum number of points on the map, test data first; fewer if the page would be too large.
    tsne
        Number of points in the t-SNE map; 5000 take minutes on a slow machine, and 0 omits this map.
    """
    at_least(1, points=points)
    if not 0 <= tsne <= DEFAULT_TSNE:
        raise ChoiceError(f"--tsne must lie in 0..{DEFAULT_TSNE}, got {tsne}")
    path = None if out is None else check_file(out, (".html",))
    opened = open_given(run, data)
    from vaekit.explorer import write_explorer

    if path is not None:
        make_folder(path)
    with TaskProgress() as progress:
        page = write_explorer(opened, path, points=points, tsne=tsne, progress=progress)
    print(page)
