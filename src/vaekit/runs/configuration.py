"""The fields of a run's JSON files, their types, and constraints beyond the types."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from vaekit.data.core import KINDS
from vaekit.data.loading import option_types
from vaekit.errors import RunError, VaekitError
from vaekit.options import ADAMS, Defaults, Options
from vaekit.recipes.composition import DataSpec
from vaekit.utils.plugins import why_absent
from vaekit.utils.typed import mismatch

MOST_NUMBERS = 2**31
"""The number of elements of one datum must be below this."""

FAILED = "compiling failed"
"""`compile_why` begins with this where a step that should have been compiled could not be."""

ADDED = {"beta2": 0.999}
"""Options of Adam that runs of earlier versions do not store, with their values there."""


class ReaderRecord(TypedDict):
    """The plug-in that read the data."""

    name: str
    package: str


class DataPart(TypedDict):
    """The description of a run's data in run.json."""

    name: str
    source: str | None
    options: dict[str, Any]
    digest: str
    facts: dict[str, Any]
    n: dict[str, int]
    label_names: NotRequired[list[str] | None]
    grouped: NotRequired[bool]
    reader: NotRequired[ReaderRecord]
    feature_names: NotRequired[list[str] | None]


class Decided(TypedDict):
    """Settings decided before training: device, precision, compilation, and the steps (and minutes) then planned."""

    device: str
    precision: str
    compile: bool
    compile_why: str
    parameters: int
    threads: int
    steps: NotRequired[int]
    minutes: NotRequired[float]


class Length(TypedDict):
    """The length of training, in steps and in epochs."""

    horizon: int
    epochs: NotRequired[float]


class Valid(TypedDict, total=False):
    """The results of a validation, in nats per example."""

    step: int
    elbo: float
    rate: float
    distortion: float
    joint: float  # the ELBO plus log p of the pattern of missing values, for objectives that model it
    bounded: float  # the ELBO with a lower bound on that of each row, for objectives that leave out unlikely rows
    code_std: float  # standard deviation of all elements of codes that are small images, drawn from q(z | x)


Leg = TypedDict("Leg", {"asked": dict[str, float], "started": str, "from": int, "to": int})
"""One leg of a run: the length requested, when it started, its first step, and its last step so far."""


State = Literal["new", "running", "interrupted", "finished", "stopped early", "failed"]


class Configuration(TypedDict):
    """The content of run.json."""

    format: int
    recipe: str | None
    arguments: dict[str, Any]
    defaults: NotRequired[dict[str, Any]]
    data: DataPart
    observation: str
    training: dict[str, Any]
    decided: Decided
    versions: dict[str, str]
    plan: NotRequired[Length]
    created: str
    legs: NotRequired[list[Leg]]
    state: State
    step: NotRequired[int]
    seconds: NotRequired[float]
    valid: NotRequired[Valid]
    best: NotRequired[Valid]
    init_from: NotRequired[str]
    plugins: NotRequired[dict[str, str]]


class Record(TypedDict):
    """A line of log.jsonl; None stands for a value that was not finite."""

    step: int
    kind: str
    seconds: NotRequired[float]
    elbo: NotRequired[float | None]
    rate: NotRequired[float | None]
    distortion: NotRequired[float | None]
    se_below_best: NotRequired[float | None]
    units: NotRequired[int]


class Interval(TypedDict):
    """An interval of a metric: see `vaekit.metrics.registry.Interval`."""

    low: float
    high: float
    level: float
    of: str


class Part(TypedDict):
    """A part of a metric, such as one factor."""

    value: float | None
    se: float | None
    low: float | None
    high: float | None


class Matrix(TypedDict):
    """Numbers that relate latents to factors."""

    rows: list[str]
    columns: list[str]
    values: list[list[float]]


class Metric(TypedDict):
    """An entry of metrics.json."""

    name: str
    value: float | list[float] | None
    se: NotRequired[float | list[float] | list[float | None] | None]
    unit: str
    protocol: dict[str, str | float | bool | None]
    interval: NotRequired[Interval]
    floor: NotRequired[Part]
    each: NotRequired[dict[str, Part]]
    matrix: NotRequired[Matrix]


class Metrics(TypedDict):
    """The content of metrics.json."""

    metrics: list[Metric]


class Checkpoint(TypedDict):
    """The metadata of a checkpoint."""

    step: int
    seconds: float
    horizon: int
    best: Valid
    since_best: int
    valid: Valid
    state: NotRequired[str]


def check(value: Any, annotation: Any, file: Path | str, where: str = "it") -> None:
    """Raises RunError, naming the entry, unless the content of `file` (at `where`) fits the annotation."""
    if wrong := mismatch(value, annotation, where):
        raise RunError(f"{file} is damaged: {wrong}; restore it or train again")


def options_of(config: Configuration) -> Options:
    """The options that the run is trained with, those of its recipe included."""
    return Options(**config["training"])


def check_configuration(config: Configuration, file: Path) -> None:
    """Raises RunError, naming the entry, unless run.json is complete and its types and values are valid."""
    check(config, Configuration, file)
    if str(config["training"].get("optimiser")).lower() in ADAMS:
        config["training"] = ADDED | config["training"]
    check(config["training"], Options, file, "training")
    known, reader = option_types(), config["data"].get("reader")
    absent = reader is not None and why_absent(reader["package"]) is not None
    for name, value in config["data"]["options"].items():
        if name not in known:
            if absent:  # the option belongs to that plug-in, without which the data cannot be loaded
                continue
            raise RunError(
                f"{file} has the unknown data option {name!r}: remove it from data.options (possible options are "
                f"{', '.join(known)})"
            )
        check(value, known[name], f"{file}, data.options.{name}")
    try:
        _check_facts(config["data"]["facts"])
        options = options_of(config).checked()
    except VaekitError as error:
        raise RunError(f"{file} is damaged: {error}") from None
    optional = {"epochs"} if str(options.optimiser).lower() in ADAMS else {"epochs", "beta2"}
    for name in (f.name for f in dataclasses.fields(Defaults) if f.default is not None and f.name not in optional):
        if getattr(options, name) is None:  # a recipe decides these
            raise RunError(f"{file} is damaged: training.{name} is missing")
    config["training"] = {**dataclasses.asdict(Options()), **config["training"]}
    for name, value in (("step", config.get("step", 0)), ("seconds", config.get("seconds", 0.0))):
        if value < 0:
            raise RunError(f"{file} is damaged: {name} is {value}, expected 0 or more")
    if ("step" in config) != ("seconds" in config):
        raise RunError(f"{file} is damaged: it has one of step and seconds without the other")


def check_checkpoint(meta: Any, file: Path) -> None:
    """Raises RunError unless `meta` can be the metadata of this checkpoint."""
    check(meta, Checkpoint, file)
    if f"{meta['step']:09d}" != file.stem or min(meta["seconds"], meta["since_best"]) < 0:
        raise RunError(f"{file} is damaged: it describes step {meta['step']}, or has numbers below 0")
    if meta["best"] and not {"elbo", "distortion"} & set(meta["best"]):
        raise RunError(f"{file} is damaged: its best validation has neither ELBO nor distortion")


def _check_facts(stored: dict[str, Any]) -> None:
    """Raises a VaekitError for an impossible description of data."""
    columns = stored.get("columns", [])
    if wrong := mismatch(stored, DataSpec, "data.facts"):
        raise RunError(wrong)
    shape, (low, high) = stored["shape"], stored["scale"]
    if stored["kind"] not in KINDS:
        raise RunError(f"data.facts.kind is {stored['kind']!r}, expected one of {', '.join(KINDS)}")
    if not shape or min(shape) < 1 or math.prod(shape) >= MOST_NUMBERS:
        raise RunError(f"data.facts.shape is {shape}, expected whole numbers of 1 or more")
    axes = {"image": 3, "signal": 2}.get(stored["kind"], 1)
    if len(shape) != axes:
        raise RunError(f"data.facts.shape is {shape}, expected {axes} numbers for {stored['kind']} data")
    if not low <= high:
        raise RunError(f"data.facts.scale is {stored['scale']}, expected the lowest value and the highest")
    if stored["integer"] and not (float(low).is_integer() and float(high).is_integer()):
        raise RunError(f"data.facts.scale is {stored['scale']}, expected whole numbers for data that are whole numbers")
    if columns and len(columns) != shape[0]:
        raise RunError(f"data.facts.columns has {len(columns)} columns, but the shape has {shape[0]}")
    counts = stored.get("class_counts", [])
    if counts and (len(counts) != len(stored.get("classes", [])) or min(counts) < 0):
        raise RunError(f"data.facts.class_counts is {counts}, expected a number of 0 or more for each class")
    if flat := [name for name, (_, std) in stored.get("numbers", {}).items() if not std > 0]:
        raise RunError(f"data.facts.numbers has no spread for {flat[0]!r}, expected a standard deviation above 0")
    if stored["n"] < 1:
        raise RunError(f"data.facts.n is {stored['n']}, expected 1 or more")
    DataSpec.from_json(stored)
