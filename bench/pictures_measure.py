"""The rows of bench/pictures.py: the data sets, the samplers, their shares of the time, and how each is measured.

Every row is kept as soon as it is measured, in FOLDER/rows/ROW.json and .npz, with the settings that it was made with.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import vaekit as vk
from vaekit.errors import UnavailableError, VaekitError
from vaekit.figures import channels_last, to_uint8
from vaekit.latents.densities import Training
from vaekit.metrics.samples import Reference, drawn_by
from vaekit.options import Options
from vaekit.utils.files import read_json, write_atomically, write_json

MOST = 5000
"""The maximum number of held-out data, and of samples, that are compared."""
SHOWN = 100
"""Samples on the page."""


@dataclass(frozen=True)
class DataSet:
    """A data set of the page.

    Attributes:
        title: its name on the page.
        read: returns it from the path that was given, or None.
        option: the command's option for the path; None for a data set that has a name.
        credit: whose pictures they are.
        settings: its models, of those in MODELS, with their recipes and options. Others have no row: `vq` does only a
            few dozen steps in its time on colour images.
    """

    title: str
    read: Callable[[Path | None], vk.Data]
    option: str | None
    settings: dict[str, tuple[str, dict[str, Any]]]
    credit: str = ""


SQUARED = {"likelihood": "gaussian", "sigma": "optimal"}
"""With the default likelihoods, codes see binarised pictures (grey), or are learned late (colour)."""
COLOUR: dict[str, tuple[str, dict[str, Any]]] = {"base": ("conv", {}), "grid": ("grid", SQUARED)}
GREY: dict[str, tuple[str, dict[str, Any]]] = {
    "base": ("vae", {}),
    "grid": ("grid", {"hidden": (32, 48, 64), "code_channels": 8, **SQUARED}),
    "vq": ("vq", {}),
}
SETS = {
    "fashion-mnist": DataSet(
        "Fashion-MNIST, 28 x 28 grey", lambda path: vk.load("fashion-mnist"), None, GREY,
        "Fashion-MNIST (c) 2017 Zalando SE, MIT.",
    ),
    "sprites": DataSet(
        "Sprites with six factors, 64 x 64 colour", lambda path: vk.load(path), "sprites",
        COLOUR,
        "Sprites by contributors of the Liberated Pixel Cup, CC BY-SA 3.0.",
    ),
    "emoji": DataSet(
        "Emoji of two artists, 64 x 64 colour",
        lambda path: vk.load(path, table="attributes.csv", group="name"), "emoji", COLOUR,
        "Twemoji (c) Twitter, Inc and other contributors; EmojiOne 2.2.7 (c) Emoji One, CC BY 4.0.",
    ),
    "cifar10": DataSet("CIFAR-10, 32 x 32 colour", lambda path: vk.load("cifar10"), None, COLOUR),
}  # fmt: skip


@dataclass(frozen=True)
class Sampler:
    """A row of the page.

    Attributes:
        title: its name on the page.
        model: the model whose decoder draws, in MODELS.
        latents: what draws its codes: `prior`, or a density of codes.
        options: of the fit of this density; `steps` are those of FULL minutes, and fewer in less time.
        share: its share of the time of a data set, of densities that are trained for a given time.
        batch: codes per step of such densities.
    """

    title: str
    model: str
    latents: str = "prior"
    options: dict[str, Any] = field(default_factory=dict)
    share: float = 0.0
    batch: int = 256


MODELS = {"base": 0.24, "grid": 0.26, "vq": 0.06}
"""The models, and their shares of the time of a data set."""
SAMPLERS = {
    "normal": Sampler("default VAE, N(0, I)", "base"),
    "gmm": Sampler("default VAE, `gmm`", "base", "gmm"),
    "flow": Sampler("default VAE, `flow`", "base", "flow", {"steps": 800}),
    "two-stage": Sampler("default VAE, `two-stage`", "base", "two-stage", {"steps": 600}),
    "dense": Sampler("default VAE, `flow-matching`", "base", "flow-matching", {"condition": "none"}, 0.05, 128),
    "grid": Sampler(
        "`grid`, `flow-matching`", "grid", "flow-matching", {"condition": "none", "network": "dense"}, 0.26, 128
    ),
    "vq": Sampler("`vq`, its prior", "vq"),
}
"""The samplers in the order of the page; the rest of the time is for gmm, flow, two-stage and the measures."""
FIRST, BEST = "normal", "grid"
FULL = 15.0
"""With as many minutes per data set, `flow` and `two-stage` have the steps of their options."""
REBUILT = "rebuilt"
"""The row of reconstructions of held-out data by the grid's model: what its decoder can do with perfect codes."""


@dataclass(frozen=True)
class Plan:
    """How a data set is measured.

    Attributes:
        minutes: its time in minutes of one core.
        seed: of models, densities and samples.
        choose: whether settings are being chosen: validation data are in the place of test data.
        folder: where runs are kept.
        most: the maximum number of held-out data.
        steps: of every training, in the place of the time.
    """

    minutes: float
    seed: int
    choose: bool
    folder: Path
    most: int = MOST
    steps: int | None = None

    def length(self, share: float) -> dict[str, Any]:
        """The training option for a share of the time."""
        return {"minutes": share * self.minutes} if self.steps is None else {"steps": self.steps}

    @property
    def split(self) -> str:
        """The split of the held-out data."""
        return "valid" if self.choose else "test"


def trained(data: vk.Data, model: str, settings: tuple[str, dict[str, Any]], plan: Plan) -> vk.Run:
    """The model, trained for its share of the time."""
    out, (recipe, options) = plan.folder / model, settings
    known = {**plan.length(MODELS[model]), "seed": plan.seed, "resume": (out / "run.json").exists()}
    return vk.fit(data, recipe, out=out, **known, **options)


def fitted(run: vk.Run, sampler: Sampler, plan: Plan) -> dict[str, Any]:
    """How the density of codes was fitted: the seconds since its last start and its steps; nothing for a prior."""
    if sampler.latents == "prior":
        return {}
    options = dict(sampler.options)
    if plan.steps is not None:
        options["steps"] = plan.steps
    elif "steps" in options:
        options["steps"] = max(5, round(options["steps"] * min(1, plan.minutes / FULL)))
    if sampler.share:
        known: dict[str, Any] = {"batch": sampler.batch, "compile": "off", **plan.length(sampler.share)}
        options["training"] = Training(Options(**known))
    began, folder = time.perf_counter(), run.path / "latents"
    if (folder / f"{sampler.latents}.json").exists():
        density = run.fit_latents(sampler.latents)
    elif sampler.share and (folder / sampler.latents / "run.json").exists():  # stopped within its training
        density = run.fit_latents(sampler.latents, training=Training(mode="resume"))
    else:
        density = run.fit_latents(sampler.latents, seed=plan.seed, **options)
    seconds = density.record.get("seconds", time.perf_counter() - began)
    return {"fit_seconds": seconds, "fit_steps": density.record["steps"]}


def measured(reference: Reference, x: np.ndarray, choose: bool) -> list[dict[str, Any]]:
    """The measures of samples as JSON; memorisation needs validation data that settings were not chosen on."""
    return [one.as_json() for one in reference.measure(x) if not choose or one.name != "memorisation"]


def line(row: dict[str, Any]) -> str:
    """A row in one line, for the terminal."""
    parts = [f"{one['name'].removeprefix('sample_')} {cell(one, 4)}" for one in row["measures"]]
    return ", ".join([row["sampler"], f"{row['steps']:,} steps", *parts])


def cell(one: dict[str, Any] | None, digits: int, interval: bool = False) -> str:
    """A value, with its 95% interval if asked."""
    if one is None or one["value"] is None:
        return "–"
    bounds = [] if one["low"] is None or not interval else [one["low"], one["high"]]
    between = f" ({' to '.join(f'{bound:.{digits}f}' for bound in bounds)})" if bounds else ""
    return f"{one['value']:.{digits}f}{between}"


def keep(path: Path, x: np.ndarray, scale: tuple[float, float]) -> None:
    """Store the first pictures of a row, (SHOWN, H, W, 3)."""
    shown = to_uint8(channels_last(x[:SHOWN]), scale)

    def write(part: Path) -> None:
        with part.open("wb") as file:  # numpy adds an ending to names
            np.savez_compressed(file, x=shown)

    write_atomically(path, write)


def settings_of(name: str, key: str, plan: Plan) -> dict[str, Any]:
    """What a row is a function of, as JSON."""
    sampler = SAMPLERS[BEST if key == REBUILT else key]
    recipe, options = SETS[name].settings[sampler.model]
    row = {"model": [recipe, options, MODELS[sampler.model]], "sampler": {} if key == REBUILT else vars(sampler)}
    row |= {"minutes": plan.minutes, "steps": plan.steps, "seed": plan.seed, "split": plan.split, "most": plan.most}
    found: dict[str, Any] = json.loads(json.dumps(row))
    return found


def begun(name: str, key: str, plan: Plan) -> dict[str, Any]:
    """What is kept of a row: its settings, and its `row` if it was measured; empty for a new row.

    Raises:
        SystemExit: it was begun with other settings.
    """
    path = plan.folder / "rows" / f"{key}.json"
    kept: dict[str, Any] = read_json(path) if path.exists() else {}
    if kept and kept["settings"] != settings_of(name, key, plan):
        model = plan.folder / SAMPLERS[BEST if key == REBUILT else key].model
        raise SystemExit(f"{path} was measured with other settings: remove it and {model} to measure it again")
    return kept


def drawn(run: vk.Run, key: str, reference: Reference, plan: Plan) -> tuple[dict[str, Any], np.ndarray]:
    """A row, and what it measures: samples, or reconstructions of the held-out data."""
    if key == REBUILT:
        x = run.decode(run.encode(plan.split, rows=np.arange(reference.n)))
        row = {"sampler": "reconstructions by `grid`", "steps": run.config["step"]}
        return row | {"measures": measured(reference, x, choose=True)}, x
    sampler = SAMPLERS[key]
    fit, start = fitted(run, sampler, plan), time.perf_counter()
    x = drawn_by(run, sampler.latents, reference.n, noise=False, seed=plan.seed)
    row = {"sampler": sampler.title, "recipe": run.config["recipe"], "steps": run.config["step"], **fit}
    return row | {"draw_seconds": time.perf_counter() - start, "measures": measured(reference, x, plan.choose)}, x


def measure(name: str, data: vk.Data, plan: Plan, keys: Sequence[str] = ()) -> dict[str, Any]:
    """The rows of a data set, all or these, and what is known of it. Rows that are kept are not measured again."""
    runs: dict[str, vk.Run] = {}
    before, settings, part = time.perf_counter(), SETS[name].settings, getattr(data, plan.split)
    rows, folder = {}, plan.folder / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    real = data.events(part[slice(0, plan.most)])
    reference = Reference(data, real, part.group, n=len(real), folder=plan.folder)
    keep(folder / "real.npz", real, data.scale)
    samplers = [key for key, sampler in SAMPLERS.items() if sampler.model in settings]
    for key in [key for key in keys if key in samplers] if keys else [*samplers, REBUILT]:
        kept = begun(name, key, plan)
        if "row" not in kept:
            model, known = SAMPLERS[BEST if key == REBUILT else key].model, settings_of(name, key, plan)
            write_json(folder / f"{key}.json", {"settings": known})
            if model not in runs:
                runs[model] = trained(data, model, settings[model], plan)
            row, x = drawn(runs[model], key, reference, plan)
            keep(folder / f"{key}.npz", x, data.scale)
            now = time.perf_counter()
            row |= {"seconds": now - before, "resumed": bool(kept)}
            kept = {"settings": known, "row": row}
            write_json(folder / f"{key}.json", kept)
        before, rows[key] = time.perf_counter(), kept["row"]
        print(f"{name}: {line(rows[key])}", flush=True)
    return {
        "title": SETS[name].title,
        "n": reference.n,
        "sizes": [len(data.train), len(data.valid), len(data.test)],
        "features": reference.text,
        "minutes": plan.minutes,
        "seconds": sum(row["seconds"] for row in rows.values()),
        "resumed": any(row["resumed"] for row in rows.values()),
        "options": {model: options for model, (_, options) in settings.items()},
        "rows": rows,
    }


def read(name: str, path: Path | None) -> vk.Data | str:
    """A data set, or why it is unavailable."""
    option = SETS[name].option
    if option is not None and path is None:
        return f"not given (`--{option}`)"
    try:
        return SETS[name].read(path)
    except UnavailableError:
        return "it is neither cached nor downloadable"
    except VaekitError as error:
        return str(error).splitlines()[0]
