"""Reading a run directory: checking its configuration, rebuilding its composition, loading its weights."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from vaekit.data.core import Data, counted
from vaekit.data.loading import from_arrays, load
from vaekit.data.named import SETS
from vaekit.data.paths import known_path
from vaekit.data.readers.anndata import is_anndata
from vaekit.data.readers.folders import count
from vaekit.data.readers.frames import is_frame
from vaekit.data.readers.registry import READERS, reader_of
from vaekit.data.splits import PARTS, count_of, rows_of
from vaekit.errors import DataError, RunError
from vaekit.recipes import BEFORE, get_recipe
from vaekit.recipes.composition import Composition, DataSpec
from vaekit.utils.allocation import Bounded
from vaekit.utils.files import parse_json, read_json, read_tensors, read_text, write_tensors
from vaekit.utils.isolation import seeded
from vaekit.utils.plugins import why_absent

from .configuration import Configuration, ReaderRecord, Record, check, check_configuration
from .find import find_run

FORMAT = 2
"""The version of the format of run directories. A newer vaekit writes a higher one; 1 stored every row of a split."""
SPLITS = "splits.safetensors"
MOST_FILES = 2_000_000
"""The maximum number of files in the data folder that a run names; counting them takes seconds."""
SYSTEM_FOLDERS = ("/dev", "/proc", "/sys")
OWN = ("model.safetensors", "checkpoint", "log.jsonl", "metrics.json", "latents", "held_out.safetensors")
"""The files of a run besides run.json and its splits. No run is started in a directory with one but no run.json."""


def write_splits(path: Path, splits: Mapping[str, np.ndarray]) -> None:
    """Write the rows of each split to splits.safetensors, as row numbers (n,) or as intervals (k, 2) of rows.

    For example, the rows 1, 2, 3, 7, 8 are the intervals [1, 4) and [7, 9). The shorter of the two forms is written.
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
    """The rows of each split of the run at `path`, int64, in the stored form: row numbers (n,) or intervals (k, 2).

    Intervals are not expanded, because a damaged one may stand for any number of rows; `load` accepts them and checks
    them against its data.

    Raises:
        RunError: the file is missing or damaged.
    """
    splits = {}
    for part, kept in read_tensors(path / SPLITS)[0].items():
        if kept.dtype not in (torch.int32, torch.int64) or not (kept.dim() == 1 or kept.shape[1:] == (2,)):
            raise RunError(
                f"{path / SPLITS} is damaged: {part} is {kept.dtype} of shape {tuple(kept.shape)}, expected rows or "
                "intervals of rows; restore it or train again"
            )
        splits[part] = kept.numpy().astype(np.int64)
    if set(splits) != set(PARTS):
        raise RunError(
            f"{path / SPLITS} is damaged: it has {', '.join(splits) or 'nothing'}, expected {', '.join(PARTS)}"
        )
    return splits


def reader_record(data: Data) -> ReaderRecord | None:
    """The record of the reader of a run's data: its name and package, if it belongs to a plug-in."""
    package = READERS[data.reader].package if data.reader in READERS else None
    return None if package is None else {"name": data.reader, "package": package}


def data_options(config: Configuration) -> dict[str, Any]:
    """The arguments of `load` that read a run's data as before: the stored options, and the columns or the kind.

    Raises:
        RunError: the plug-in that reads the data is absent.
    """
    reader = config["data"].get("reader")
    if reader is not None and (why := why_absent(reader["package"])):
        raise RunError(f"the data of this run are read by the plug-in reader {reader['name']!r}: {why}")
    spec = DataSpec.from_json(config["data"]["facts"])
    known = {"schema": spec.columns} if spec.columns else {"kind": spec.kind}
    return known | config["data"]["options"]


def read_again(path: Path, config: Configuration, source: Any) -> Data:
    """The data of the run at `path`, read from a name, a path, an array or a frame as they were read for it.

    Raises:
        DataError: they cannot be read so, or their rows are not those of the run's splits.
    """
    options, splits = data_options(config), stored_splits(path)
    if isinstance(source, str | Path):
        return load(source, splits=splits, **options)
    if not (is_frame(source) or is_anndata(source)):  # without columns to find labels or groups by
        names = ("kind", "schema", "shape", "missing", "genes", "min_cells")
        options = {name: options[name] for name in names if name in options}
    return from_arrays(source, splits=splits, **options)


def read_otherwise(data: Data) -> str:
    """Another possible reason why data differ from a run's: an earlier vaekit may have read images differently."""
    if data.train.names is None:
        return ""
    return (
        "; if the files are unchanged, an earlier vaekit may have read some of them differently (16-bit images, images "
        "rotated by EXIF, further formats): train again"
    )


def check_splits(data: Data, path: Path) -> None:
    """Raise RunError unless the data's splits are the rows that the run at `path` was trained on."""
    for part, kept in stored_splits(path).items():
        index = getattr(data, part).index
        if count_of(kept) != len(index) or not np.array_equal(rows_of(kept), index):
            raise RunError(
                f"the {part} rows of these data are not those that {path} was trained on: load the data with the same "
                "split options, or pass their path, so that the stored rows are used"
            )


def read_log(path: Path) -> list[dict[str, Any]]:
    """Every record of the log of the run at `path`; an incomplete last line is ignored.

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
    """Check that the data path in run.json can be read without a request by the user.

    The files of a folder are counted before any image is opened, up to a limit that depends on the run's `n` data.

    Raises:
        DataError: the path is the root of the file system, lies in a folder of devices or system information, or is a
            folder with far more files than the run has data, or with fewer images.
    """
    place = known_path(source)
    if source in SETS or not place.is_dir():
        return
    full = place.resolve()
    if full == Path(full.anchor) or any(full.is_relative_to(system) for system in SYSTEM_FOLDERS):
        raise DataError(f"{path} names {source} as its data, but that is not a folder of data: pass `data=PATH`")
    most = min(1000 + 10 * max(n, 0), MOST_FILES)
    images, entries = count(place, most)
    if entries > most:
        raise DataError(
            f"{path} names {source} as its {n:,} data, but that folder has more than {most:,} files: pass `data=PATH` "
            "to read it anyway"
        )
    reader = reader_of(place)
    if images < n and reader is not None and reader.name == "images":
        raise DataError(
            f"{path} was trained on {n:,} images, but {source}, which it names as its data, holds "
            f"{counted(images, 'image')}: if the data have moved, pass `data=PATH`"
        )


def read_config(path: str | Path) -> Configuration:
    """Read and check run.json of a run directory.

    Raises:
        RunError: there is no run, it is damaged, or it was written by a newer vaekit.
    """
    path = find_run(path)
    config = read_json(path / "run.json")
    if not isinstance(config, dict) or type(config.get("format")) is not int:
        raise RunError(f"{path / 'run.json'} is damaged: it has no format number")
    if config["format"] > FORMAT:
        raise RunError(f"{path} was written by a newer vaekit (format {config['format']}, this one reads {FORMAT})")
    _name_classes(config)
    checked = cast(Configuration, config)
    check_configuration(checked, path / "run.json")
    return checked


def _name_classes(config: dict[str, Any]) -> None:
    """Convert numeric class names to strings: earlier versions stored them as numbers."""
    data = config.get("data")
    spec = data.get("facts") if isinstance(data, dict) else None
    for part, key in ((data, "label_names"), (spec, "classes")):
        if isinstance(part, dict) and isinstance(names := part.get(key), list):
            part[key] = [str(name) if type(name) in (int, float) else name for name in names]


def clear(path: Path) -> None:
    """Remove the files of a run except run.json, so that the directory holds a run until that is replaced."""
    pages, pictures = ("report.html", "explorer.html"), (path / "figures").glob("*.png")
    for file in (*(path / name for name in (*OWN, *pages)), *pictures, *path.glob("metrics-*.json")):
        if file.is_dir():
            shutil.rmtree(file, ignore_errors=True)
        else:
            file.unlink(missing_ok=True)


def rebuild(
    config: Configuration, composition: Composition | None = None, held: int | None = None, seed: int = 0
) -> Composition:
    """The composition that a configuration describes, with fresh weights.

    Arguments:
        config: the content of run.json, checked.
        composition: the composition, for a run of one that was built by hand.
        held: size in bytes of the file with its weights, if there is one; a much larger model is refused.
        seed: seed of the fresh weights.

    Raises:
        RunError: the model is much larger than the file of its weights, or `composition` is needed but was not passed.
        ChoiceError: an unknown recipe or choice.
    """
    if config["recipe"] is None:
        if composition is None:
            raise RunError(
                "this run has a composition built by hand: open it in Python with vk.open(run, model=composition)"
            )
        return composition
    check_plugins(config)
    recipe = get_recipe(config["recipe"])
    # use the defaults stored with the run, so that a later version's defaults do not change a trained model
    known = recipe.parameters
    defaults = {k: v for k, v in {**BEFORE, **config.get("defaults", {})}.items() if k in known}
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in {**defaults, **config["arguments"]}.items()}
    why = "run.json describes a model far larger than the weights beside it: restore it or train again"
    bound = contextlib.nullcontext() if held is None else Bounded(held, why)
    with seeded(seed), bound:
        return recipe.build(DataSpec.from_json(config["data"]["facts"]), arguments, strict=False)


def check_plugins(config: Configuration) -> None:
    """Raise RunError, naming the package, if a plug-in that registered a part of the run is not loaded."""
    for kind, package in config.get("plugins", {}).items():
        if why := why_absent(package):
            name = config["recipe"] if kind == "recipe" else config["arguments"].get(kind)
            raise RunError(f"this run uses the {kind} {name!r} of another package: {why}")


def load_weights(composition: Composition, tensors: dict[str, Tensor], path: Path) -> None:
    """Load saved tensors into the three parts of a composition; the names must match exactly."""
    for part, module in composition.modules.items():
        saved = {n.removeprefix(part + "."): t for n, t in tensors.items() if n.startswith(part + ".")}
        expected = module.state_dict()
        wrong = sorted(set(expected) ^ set(saved)) or [n for n in expected if expected[n].shape != saved[n].shape]
        if wrong:
            raise RunError(f"{path} does not fit the model that run.json describes: {part}.{wrong[0]} differs")
        for n, t in saved.items():
            if expected[n].is_floating_point() != t.is_floating_point() or t.is_complex():
                raise RunError(f"{path} is damaged: {part}.{n} is {t.dtype}, expected {expected[n].dtype}")
            if t.is_floating_point() and not bool(torch.isfinite(t.float()).all()):
                raise RunError(f"{path} is damaged: {part}.{n} is not finite everywhere; restore it or train again")
        module.load_state_dict(saved)
    if not composition.observation.sound:
        raise RunError(f"{path} is damaged: no data have the statistics of its observation; restore it or train again")
