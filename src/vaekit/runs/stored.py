"""What a run directory holds, read again: its configuration checked, its composition rebuilt, its weights put back."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaekit.data.core import Data, counted
from vaekit.data.named import SETS
from vaekit.data.paths import known_path
from vaekit.data.readers.folders import count
from vaekit.data.readers.registry import READERS, reader_of
from vaekit.data.splits import PARTS, count_of, rows_of
from vaekit.errors import DataError, RunError
from vaekit.recipes import BEFORE, get_recipe
from vaekit.recipes.composition import Composition, DataSpec
from vaekit.utils.allocation import Bounded
from vaekit.utils.files import parse_json, read_json, read_tensors, read_text, write_tensors
from vaekit.utils.isolation import seeded
from vaekit.utils.plugins import why_absent

from .configuration import Record, check, check_configuration
from .find import find_run

FORMAT = 2
"""Of a run directory: one of a higher was written by a newer vaekit; 1 wrote every row of its splits."""
SPLITS = "splits.safetensors"
MOST_FILES = 2_000_000
"""Of a folder that a run names for its data; they are counted within seconds."""
SYSTEM_FOLDERS = ("/dev", "/proc", "/sys")
OWN = ("model.safetensors", "checkpoint", "log.jsonl", "metrics.json", "latents")
"""Of a run, besides run.json and its splits: without a run.json beside them the directory is not for a new run."""


def write_splits(path: Path, splits: Mapping[str, np.ndarray]) -> None:
    """The rows of each split to splits.safetensors: as they are, or as (k, 2) first and last + 1 of their runs.

    Rows of 1, 2, 3, 7, 8 are the runs [1, 4) and [7, 9). Whichever is shorter is written.
    """
    tensors = {}
    for part, rows in splits.items():
        rows = np.asarray(rows, np.int64)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        starts, ends = np.r_[0, breaks], np.r_[breaks, len(rows)] - 1
        runs = np.stack([rows[starts], rows[ends] + 1], 1) if len(rows) else np.zeros((0, 2), np.int64)
        kept = runs if runs.size < rows.size or not rows.size else rows
        tensors[part] = torch.from_numpy(kept.astype(np.int32 if rows.max(initial=0) < 2**31 - 1 else np.int64))
    write_tensors(path / SPLITS, tensors)


def stored_splits(path: Path) -> dict[str, np.ndarray]:
    """The rows of each split of the run at `path`, int64, as they are kept: (n,) rows, or (k, 2) runs of them.

    A few runs may stand for any number of rows: `load` takes them as they are, and holds them against its data.

    Raises:
        RunError: the file is missing or damaged.
    """
    found = {}
    for part, kept in read_tensors(path / SPLITS)[0].items():
        if kept.dtype not in (torch.int32, torch.int64) or not (kept.dim() == 1 or kept.shape[1:] == (2,)):
            raise RunError(
                f"{path / SPLITS} is damaged: {part} is {kept.dtype} of shape {tuple(kept.shape)}, expected rows or "
                "runs of rows; restore it or train again"
            )
        found[part] = kept.numpy().astype(np.int64)
    if set(found) != set(PARTS):
        raise RunError(
            f"{path / SPLITS} is damaged: it has {', '.join(found) or 'nothing'}, expected {', '.join(PARTS)}"
        )
    return found


def reader_record(data: Data) -> dict[str, str] | None:
    """What a run records of the reader of its data: its name and package, if it is of a plug-in."""
    reader = READERS.get(data.reader)
    return None if reader is None or reader.package is None else {"name": reader.name, "package": reader.package}


def data_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `load` that read a run's data again as they were read: its options, and what they were.

    Raises:
        RunError: the plug-in that reads them is absent.
    """
    reader = config["data"].get("reader")
    if reader is not None and (why := why_absent(reader["package"])):
        raise RunError(f"the data of this run are read by the plug-in reader {reader['name']!r}: {why}")
    spec = DataSpec.from_json(config["data"]["facts"])
    known = {"schema": spec.columns} if spec.columns else {"kind": spec.kind}
    return known | config["data"]["options"]


def read_otherwise(data: Data) -> str:
    """What else may be the reason that data differ from a run's: of images, that they were read by another vaekit."""
    if data.train.names is None:
        return ""
    return (
        "; if the files are the same, an earlier vaekit read some of them otherwise (images of 16 bits, or turned by "
        "EXIF; files of further formats): train again"
    )


def check_splits(data: Data, path: Path) -> None:
    """Raises RunError unless the data's splits are the rows that the run at `path` was trained on."""
    for part, kept in stored_splits(path).items():
        index = getattr(data, part).index
        if count_of(kept) != len(index) or not np.array_equal(rows_of(kept), index):
            raise RunError(
                f"the {part} rows of these data are not those that {path} was trained on: load them with the same "
                "split options, or give their path and the stored rows are used"
            )


def read_log(path: Path) -> list[dict[str, Any]]:
    """Every record of the log of the run at `path`; a last line that was cut short is none.

    Raises:
        RunError: another line is damaged.
    """
    file = path / "log.jsonl"
    lines = read_text(file).split("\n") if file.exists() else []
    records = []
    for i, line in enumerate(lines):
        whole = i < len(lines) - 1 or line.endswith("}")
        if line and whole:
            record = parse_json(line, f"{file}, line {i + 1},")
            check(record, Record, f"{file}, line {i + 1},")
            records.append(record)
    return records


def check_source(source: str, path: Path, n: int) -> None:
    """Refuse the place that run.json names for its data where nothing should be read unasked.

    A folder is counted before any image of it is opened, and no further than makes sense for the `n` data of the run.

    Raises:
        DataError: the root of the file system, devices and what the system tells of itself, or a folder that has far
            more files than the run has data, or fewer images.
    """
    place = known_path(source)
    if source in SETS or not place.is_dir():
        return
    full = place.resolve()
    if full == Path(full.anchor) or any(full.is_relative_to(system) for system in SYSTEM_FOLDERS):
        raise DataError(f"{path} names {source} for its data, which is no folder of data: pass `data=PATH`")
    most = min(1000 + 10 * max(n, 0), MOST_FILES)
    images, entries = count(place, most)
    if entries > most:
        raise DataError(
            f"{path} names {source} for its {n:,} data, a folder of more than {most:,} files: pass `data=PATH` to read "
            "it all the same"
        )
    reader = reader_of(place)
    if images < n and reader is not None and reader.name == "images":
        raise DataError(
            f"{path} was trained on {n:,} images, and {source}, which it names for its data, holds "
            f"{counted(images, 'image')}: where have they moved? pass `data=PATH`"
        )


def read_config(path: str | Path) -> dict[str, Any]:
    """run.json of a run directory, checked.

    Raises:
        RunError: no run there, damaged, or written by a newer vaekit.
    """
    path = find_run(path)
    config = read_json(path / "run.json")
    if not isinstance(config, dict) or type(config.get("format")) is not int:
        raise RunError(f"{path / 'run.json'} is damaged: it has no format number")
    if config["format"] > FORMAT:
        raise RunError(f"{path} was written by a newer vaekit (format {config['format']}, this one reads {FORMAT})")
    _name_classes(config)
    check_configuration(config, path / "run.json")
    return config


def _name_classes(config: dict[str, Any]) -> None:
    """Earlier versions stored class names that were given as numbers as numbers."""
    data = config.get("data")
    spec = data.get("facts") if isinstance(data, dict) else None
    for held, key in ((data, "label_names"), (spec, "classes")):
        if isinstance(held, dict) and isinstance(names := held.get(key), list):
            held[key] = [str(name) if type(name) in (int, float) else name for name in names]


def clear(path: Path) -> None:
    """Remove what a run directory holds, except run.json: until that is replaced the directory has a run."""
    pages, pictures = ("report.html", "explorer.html"), (path / "figures").glob("*.png")
    for file in (*(path / name for name in (*OWN, *pages)), *pictures, *path.glob("metrics-*.json")):
        if file.is_dir():
            shutil.rmtree(file, ignore_errors=True)
        else:
            file.unlink(missing_ok=True)


def rebuild(
    config: dict[str, Any], composition: Composition | None = None, held: int | None = None, seed: int = 0
) -> Composition:
    """The composition that a configuration describes, with fresh weights.

    Arguments:
        config: of run.json, checked.
        composition: of a run that was trained from one built by hand.
        held: bytes of the file that its weights are in, where there is one; a model much larger is refused.
        seed: of the weights.

    Raises:
        RunError: the model is larger than its weights, or a network of its own was not given.
        ChoiceError: no such recipe or choice.
    """
    if config["recipe"] is None:
        if composition is None:
            raise RunError("this run has a network of its own: open it in Python with vk.open(run, model=composition)")
        return composition
    check_plugins(config)
    recipe = get_recipe(config["recipe"])
    # the defaults of its day, so that a later version's do not change a model that was trained
    then = {k: v for k, v in {**BEFORE, **config.get("defaults", {})}.items() if k in recipe.parameters}
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in {**then, **config["arguments"]}.items()}
    why = "run.json describes a model far larger than the weights beside it: restore it or train again"
    bound = contextlib.nullcontext() if held is None else Bounded(held, why)
    with seeded(seed), bound:
        return recipe.build(DataSpec.from_json(config["data"]["facts"]), arguments, strict=False)


def check_plugins(config: dict[str, Any]) -> None:
    """Raise RunError, naming the package, where a plug-in that registered a part of the run is not loaded."""
    for what, package in config.get("plugins", {}).items():
        if why := why_absent(package):
            name = config["recipe"] if what == "recipe" else config["arguments"].get(what)
            raise RunError(f"this run uses the {what} {name!r} of another package: {why}")


def load_weights(composition: Composition, tensors: dict[str, Tensor], path: Path) -> None:
    """Put saved tensors into the three parts of a composition, all of them and nothing else."""
    for part, module in composition.modules.items():
        mine = {n.removeprefix(part + "."): t for n, t in tensors.items() if n.startswith(part + ".")}
        own = module.state_dict()
        wrong = sorted(set(own) ^ set(mine)) or [n for n in own if own[n].shape != mine[n].shape]
        if wrong:
            raise RunError(f"{path} does not fit the model that run.json describes: {part}.{wrong[0]} differs")
        for n, t in mine.items():
            if own[n].is_floating_point() != t.is_floating_point() or t.is_complex():
                raise RunError(f"{path} is damaged: {part}.{n} is {t.dtype}, expected {own[n].dtype}")
            if t.is_floating_point() and not bool(torch.isfinite(t.float()).all()):
                raise RunError(f"{path} is damaged: {part}.{n} is not finite everywhere; restore it or train again")
        module.load_state_dict(mine)
    if not composition.observation.sound:
        raise RunError(f"{path} is damaged: its observation is one that no data give; restore it or train again")
