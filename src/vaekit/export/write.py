"""Write a run's graphs to files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from vaekit.errors import ChoiceError, RunError
from vaekit.runs.saved import SavedRun
from vaekit.utils.files import write_atomically, write_json
from vaekit.utils.formerly import formerly
from vaekit.utils.progress import say
from vaekit.utils.suggest import unknown

from .diffusers import write_diffusers
from .graphs import NAMES, Graph, build, rounding
from .hub import write_hub
from .onnx import TOLERANCE
from .several import check_names, export_graphs, feeds
from .trace import quiet, trace

Format = Literal["onnx", "torch", "hub", "diffusers"]
SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}
WHOLE: dict[str, Callable[[SavedRun, str | Path], list[Path]]] = {"hub": write_hub, "diffusers": write_diffusers}
"""The formats of a whole model, which is written to a folder."""


@formerly("format", "graphs", "progress")
def write_export(
    run: SavedRun,
    out: str | Path,
    *,
    format: Format = "onnx",
    graphs: Sequence[str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[list[Path], dict[str, str]]:
    """Write the run's graphs for other programs; each is compared with PyTorch before it is written.

    `onnx` files run in onnxruntime and others; `torch` files are torch.export programs without pickles
    (`torch.export.load(path).module()`). Neither needs vaekit. graphs.json beside them describes inputs and outputs.
    Graphs are in float32; for a run in float64, a note on standard error states the rounding error.

    Arguments:
        out: a folder for a file NAME.onnx or NAME.pt2 per graph; or a file with this suffix, for one graph.
        format: "onnx", "torch", "hub" for the folder that `push` sends to the Hugging Face hub (`write_hub`), or
            "diffusers" for its AutoencoderKL (`write_diffusers`).
        graphs: some of decode, draw, encode, weights and detect; by default all of them, or decode if `out` is a file.
        progress: called as progress(stage, done, total).

    Returns:
        the written files, and the reason for each graph that cannot be exported.

    Raises:
        ChoiceError: the format or a graph is unknown, no graph can be exported, or onnx is not installed.
        RunError: a file cannot be written.
    """
    if format not in get_args(Format):
        raise ChoiceError(unknown("`format`", format, get_args(Format)))
    if format in WHOLE:
        if graphs:
            raise ChoiceError(f"the {format} format is the whole model, not one of its graphs: omit `graphs`")
        return WHOLE[format](run, out), {}
    path, suffix = Path(out), SUFFIX[format]
    one = path.suffix in SUFFIX.values()
    if one and path.suffix != suffix:
        raise ChoiceError(f"the {format} format is written to {suffix} files or to a folder, not to {path.name}")
    names = check_names(graphs or (("decode",) if one else NAMES))
    if one and len(names) > 1:
        raise ChoiceError(f"{path} is a file, for one graph: give a folder, or one of {', '.join(names)}")
    make, device = _onnx if format == "onnx" else _torch, run.device
    try:
        writers, why, ports = make(run.to("cpu"), names, progress)
    finally:
        run.to(device)
    if not writers:
        raise ChoiceError(f"{run.path} cannot be exported: {'; '.join(dict.fromkeys(why.values()))}")
    folder = path.parent if one else path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the directory {folder}: {error.strerror}; choose another `out`") from error
    files = {name: path if one else folder / f"{name}{suffix}" for name in writers}
    for name, write in writers.items():
        write_atomically(files[name], write)
    if note := rounding(run):
        say(f"note: {note}")
    if not one:
        config = run.config
        about = {"run": run.name, "recipe": config["recipe"], "data": config["data"]["name"], "graphs": ports}
        write_json(folder / "graphs.json", about | {"missing": why})
    return list(files.values()), why


Writers = dict[str, Callable[[Path], object]]


def _onnx(run: SavedRun, names: Sequence[str], progress: Any) -> tuple[Writers, dict[str, str], dict[str, Any]]:
    exported = export_graphs(run, progress=progress, names=names, shared=False)
    why = {name: graph for name, graph in exported.graphs.items() if isinstance(graph, str)}
    raw = {name: model.SerializeToString() for name, model in exported.models.items()}
    writers: Writers = {name: lambda part, b=b: part.write_bytes(b) for name, b in raw.items()}  # type: ignore[misc]
    return writers, why, {name: exported.as_json()[name] for name in writers}


def _torch(run: SavedRun, names: Sequence[str], progress: Any) -> tuple[Writers, dict[str, str], dict[str, Any]]:
    writers: Writers = {}
    why: dict[str, str] = {}
    ports: dict[str, Any] = {}
    for done, name in enumerate(names):
        if progress:
            progress("exporting", done, len(names))
        try:
            graph = build(run, name)
            program = trace(graph)
            _check(graph, program.module(), feeds(run, graph))
        except ChoiceError as error:
            why[name] = str(error)
            continue
        program._example_inputs = None  # torch would pickle them
        writers[name] = lambda part, program=program: _save(program, part)  # type: ignore[misc]
        ports[name] = graph.as_json()
    if progress:
        progress("exporting", len(names), len(names))
    return writers, why, ports


def _save(program: torch.export.ExportedProgram, part: Path) -> None:
    with quiet(), open(part, "wb") as file:  # given a path, torch requires the suffix .pt2
        torch.export.save(program, file)


def _check(graph: Graph, program: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """Compare an exported program with the run.

    Raises:
        ChoiceError: an output differs.
    """
    with torch.no_grad():
        ours, theirs = graph.module(*inputs), program(*inputs)
    found = (o if isinstance(o, tuple) else (o,) for o in (ours, theirs))
    for port, want, have in zip(graph.outputs, *found, strict=True):
        if port.continuous and not torch.allclose(want, have, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            raise ChoiceError(f"its exported {graph.name} graph differs from the run")
