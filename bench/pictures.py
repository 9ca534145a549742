"""Pictures drawn by every sampler, beside real ones: python bench/pictures.py [--sprites FILE] [--emoji FOLDER]

Data sets: Fashion-MNIST and CIFAR-10 by name, FILE.npz of sprites with `x` (n, 64, 64, 3), and FOLDER with images/ and
attributes.csv (see bench/colour.py), whose drawings stay in one split. A data set that is unavailable is skipped, and
the page says why.

Every data set has the same time, MINUTES / 2 on one core by shares, and two are measured at a time, so that four take
MINUTES on two cores: the default VAE of the data, densities of its codes, a VAE whose codes are small images with flow
matching over them, and discrete codes with a transformer. 100 samples are kept as they come: the first 100 of seed 0.

--choose measures on the validation split with seed 1, prints the table and writes no page: it is for choosing settings.
Resumable, also within a training: runs are kept in bench/.runs/pictures. Writes docs/pictures.json, docs/pictures.md
and docs/images/pictures*.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import vaekit as vk
from vaekit.errors import UnavailableError, VaekitError
from vaekit.figures import channels_last, image_grid, to_uint8
from vaekit.latents.densities import Training
from vaekit.metrics.samples import ABOVE, MEASURES, Reference, drawn_by
from vaekit.options import Options
from vaekit.utils.files import read_json, write_atomically, write_json, write_text

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "pictures", HERE.parent / "docs"
MINUTES, AT_ONCE = 30.0, 2
SETS_IN_TIME = 4
"""The number of data sets that share MINUTES, whether or not all are available."""
MOST = 5000
"""The maximum number of held-out data, and of samples, that are compared."""
SHOWN, ROW = 100, 10
"""Samples on the page, and in a row of the README's picture."""
QUALITY = 30
"""Of the pictures' WebP files, so that all of them have a few 100 kB."""


@dataclass(frozen=True)
class DataSet:
    """A data set of the page.

    Attributes:
        title: its name on the page.
        read: returns it from the path that was given, or None.
        option: the command's option for the path; None for a data set that has a name.
        credit: whose pictures they are.
        settings: for each model in MODELS, its recipe and options.
    """

    title: str
    read: Callable[[Path | None], vk.Data]
    option: str | None
    settings: dict[str, tuple[str, dict[str, Any]]]
    credit: str = ""


SQUARED = {"likelihood": "gaussian", "sigma": "optimal"}
"""With the default likelihoods, codes see binarised pictures (grey), or are learned late (sprites)."""
COLOUR: dict[str, tuple[str, dict[str, Any]]] = {"base": ("conv", {}), "grid": ("grid", {}), "vq": ("vq", {})}
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
        COLOUR | {"grid": ("grid", SQUARED)},
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
        options: of the fit of this density; `steps` are those of MINUTES, and fewer in less time.
        share: its share of the time of a data set, of densities that are trained for a given time.
        batch: codes per step of such densities.
    """

    title: str
    model: str
    latents: str = "prior"
    options: dict[str, Any] = field(default_factory=dict)
    share: float = 0.0
    batch: int = 256


MODELS = {"base": 0.18, "grid": 0.18, "vq": 0.08}
"""The models, and their shares of the time of a data set."""
SAMPLERS = {
    "normal": Sampler("default VAE, N(0, I)", "base"),
    "gmm": Sampler("default VAE, `gmm`", "base", "gmm"),
    "flow": Sampler("default VAE, `flow`", "base", "flow", {"steps": 800}),
    "two-stage": Sampler("default VAE, `two-stage`", "base", "two-stage", {"steps": 600}),
    "dense": Sampler("default VAE, `flow-matching`", "base", "flow-matching", {"condition": "none"}, 0.05, 128),
    "grid": Sampler(
        "`grid`, `flow-matching`", "grid", "flow-matching", {"condition": "none", "network": "dense"}, 0.17, 128
    ),
    "vq": Sampler("`vq`, its transformer", "vq"),
}
"""The samplers in the order of the page; the rest of the time is for gmm, flow, two-stage and the measures."""
FIRST, BEST = "normal", "grid"
REBUILT = "rebuilt"
"""The row of reconstructions of held-out data by the grid's model: what its decoder can do with perfect codes."""
GOALS = {"frechet_distance": 0.25, "sample_recall": 0.6}
"""At most this share of the first sampler's Fréchet distance; at least this share of real-against-real recall."""


# --- measuring --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """How a data set is measured.

    Attributes:
        minutes: its time in minutes.
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
        options["steps"] = max(5, round(options["steps"] * min(1, plan.minutes / (MINUTES * AT_ONCE / SETS_IN_TIME))))
    if sampler.share:
        known: dict[str, Any] = {"batch": sampler.batch, "patience": 0, "compile": "off", **plan.length(sampler.share)}
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


def measure(name: str, data: vk.Data, plan: Plan) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Every row of a data set, and its first samples as pictures (SHOWN, H, W, 3)."""
    began, settings = time.perf_counter(), SETS[name].settings
    resumed = any(plan.folder.glob("*/run.json"))
    plan.folder.mkdir(parents=True, exist_ok=True)
    part = getattr(data, plan.split)
    real = data.events(part[slice(0, plan.most)])
    reference = Reference(data, real, part.group, n=len(real), folder=plan.folder)
    runs: dict[str, vk.Run] = {}
    rows, shown = {}, {"real": real[:SHOWN]}
    for key, sampler in SAMPLERS.items():
        if sampler.model not in runs:
            runs[sampler.model] = trained(data, sampler.model, settings[sampler.model], plan)
        run = runs[sampler.model]
        fit = fitted(run, sampler, plan)
        start = time.perf_counter()
        x = drawn_by(run, sampler.latents, reference.n, noise=False, seed=plan.seed)
        drawn = time.perf_counter() - start
        steps = run.config["step"]
        rows[key] = {"sampler": sampler.title, "recipe": settings[sampler.model][0], "steps": steps, **fit}
        rows[key] |= {"draw_seconds": drawn, "measures": measured(reference, x, plan.choose)}
        shown[key] = x[:SHOWN]
        print(f"{name}: {line(rows[key])}", flush=True)
    grid = runs["grid"]
    rebuilt = grid.decode(grid.encode(plan.split, rows=np.arange(reference.n)))
    rows[REBUILT] = {"sampler": "reconstructions by `grid`", "steps": grid.config["step"]}
    rows[REBUILT] |= {"measures": measured(reference, rebuilt, choose=True)}
    shown[REBUILT] = rebuilt[:SHOWN]
    found = {
        "title": SETS[name].title,
        "n": reference.n,
        "sizes": [len(data.train), len(data.valid), len(data.test)],
        "features": reference.text,
        "minutes": plan.minutes,
        "seconds": time.perf_counter() - began,
        "resumed": resumed,
        "options": {model: options for model, (_, options) in settings.items()},
        "rows": rows,
    }
    return found, {key: to_uint8(channels_last(x), grid.spec.scale) for key, x in shown.items()}


def one_set(name: str, path: Path | None, plan: Plan) -> dict[str, Any]:
    """The rows of a data set, or why it is skipped; pictures are kept beside its runs."""
    option = SETS[name].option
    if option is not None and path is None:
        return {"skipped": f"not given (`--{option}`)"}
    try:
        data = SETS[name].read(path)
    except UnavailableError:
        return {"skipped": "it is neither cached nor downloadable"}
    except VaekitError as error:
        return {"skipped": str(error).splitlines()[0]}
    found, shown = measure(name, data, plan)
    np.savez_compressed(plan.folder / "shown.npz", **shown)
    return found


# --- the page ---------------------------------------------------------------------------------------------------


def number(row: dict[str, Any], measure: str, of: str = "value") -> float | None:
    """A number of a row's measure; None if it was not measured."""
    found = next((one for one in row["measures"] if one["name"] == measure), None)
    return None if found is None else found[of]


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


DIGITS = dict(zip(MEASURES, (4, 4, 2, 2, 2, 2, 2, 3), strict=True))
HEADS = dict(zip(MEASURES, ("Fréchet distance", "kernel distance", "precision", "recall", "density", "coverage",
                            "sharpness", "preference for training data"), strict=True))  # fmt: skip
WITH_INTERVAL = ("frechet_distance", "memorisation")


def table(found: dict[str, Any]) -> list[str]:
    """The rows of a data set below those of real data."""
    first = found["rows"][FIRST]["measures"]
    real = {"sampler": "*training data*", "measures": [{"name": one["name"], **one["floor"]} for one in first]}
    out = [f"| sampler | {' | '.join(HEADS.values())} |", "|---" * (1 + len(HEADS)) + "|"]
    for row in (real, *found["rows"].values()):
        by_name = {one["name"]: one for one in row["measures"]}
        cells = [cell(by_name.get(name), DIGITS[name], name in WITH_INTERVAL) for name in HEADS]
        out.append(f"| {row['sampler']} | {' | '.join(cells)} |")
    return out


def reached(found: dict[str, Any], key: str = BEST) -> dict[str, tuple[float, bool]]:
    """For each goal, the sampler's number and whether it reaches the goal."""
    first, row = found["rows"][FIRST], found["rows"][key]
    by_name = {one["name"]: one for one in row["measures"]}
    apart, from_first = number(row, "frechet_distance"), number(first, "frechet_distance")
    share = float("nan") if apart is None or from_first is None else apart / from_first
    recall = by_name["sample_recall"]["value"] / by_name["sample_recall"]["floor"]["value"]
    goals = {
        "frechet_distance": (share, share <= GOALS["frechet_distance"]),
        "sample_recall": (recall, recall >= GOALS["sample_recall"]),
    }
    if "memorisation" in by_name:
        above = by_name["memorisation"]["parts"][ABOVE]
        goals["memorisation"] = (above["value"], above["low"] is None or above["low"] <= 0)
    return goals


def summary(found: dict[str, Any]) -> list[str]:
    """How far the samplers are from the goals, on each data set."""
    heads = (
        "data", "sampler", "Fréchet distance, over that of N(0, I)", "recall, over that of training data",
        "preference for training data, above that of real data",
    )  # fmt: skip
    out = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in found["sets"].values():
        for key in [] if "skipped" in one else [key for key in SAMPLERS if key != FIRST]:
            goals = reached(one, key)
            cells = [f"{value:.3f}{'' if good else ' (missed)'}" for value, good in goals.values()]
            out.append(f"| {one['title'].split(',')[0]} | {one['rows'][key]['sampler']} | {' | '.join(cells)} |")
    return out


def steps_of(row: dict[str, Any]) -> str:
    """The steps of a row's model, and of the density of its codes."""
    density = f" and {row['fit_steps']:,}" if row.get("fit_steps") else ""
    return f"{row['sampler']}: {row['steps']:,}{density}"


def section(name: str, one: dict[str, Any]) -> list[str]:
    """The section of a data set."""
    out = [f"## {SETS[name].title.split(',')[0]}", ""]
    if "skipped" in one:
        return [*out, f"Skipped: {one['skipped']}.", ""]
    train, valid, test = one["sizes"]
    what = "It was resumed; its last start took" if one["resumed"] else "All rows together took"
    out += [
        f"{one['title']}: {train:,} training, {valid:,} validation and {test:,} test data, of which {one['n']:,} are",
        f"compared with as many samples, in {one['features']}.",
        "Steps of the model, and of the density of its codes:",
        "; ".join(steps_of(row) for key, row in one["rows"].items() if key != REBUILT) + ".",
        f"{what} {one['seconds'] / 60:.1f} minutes on one core.",
        "",
        *table(one),
        "",
    ]
    for key, row in {"real": {"sampler": "test data"}, **one["rows"]}.items():
        shown = f"the first {SHOWN} {'' if key in ('real', REBUILT) else 'samples by '}{row['sampler']}"
        caption = shown[0].upper() + shown[1:]
        out += [f"{caption}:", "", f"![{caption.replace('`', '')}](images/pictures/{name}-{key}.webp)", ""]
    return out


def page(found: dict[str, Any]) -> str:
    """docs/pictures.md."""
    share = found["minutes"] * AT_ONCE / SETS_IN_TIME
    shorter = [f"**A short measurement, of {found['minutes']:g} instead of {MINUTES:g} minutes.**", ""]
    out = [
        "# Pictures from every sampler",
        "",
        "![For each data set, ten samples of the default VAE from N(0, I), and below them ten samples of grid with",
        "flow-matching](images/pictures.webp)",
        "",
        f"Made by `make bench-pictures`. Each data set has {share:g} minutes on one core for all of its rows, training",
        f"included, so that four take {found['minutes']:g} minutes on two cores. The default VAE is `--recipe vae` for",
        "Fashion-MNIST and `--recipe conv` for colour images; docs/pictures.json has the options.",
        "`flow-matching` is that of `vaekit prior RUN --network dense --condition none --batch 128`: the dense network",
        "was chosen for its number of steps in this time, not by a comparison of samples. The likelihood of `grid` on",
        "the sprites was chosen by a trial of 45 seconds on validation data with seed 1, because after a short",
        "training with its default it drew the mean image only. The page is measured with seed 0 on test data.",
        "",
        "All pictures and measures are of means of p(x|z), not of draws from it. A draw adds the noise of the",
        "[likelihood](glossary.md#likelihood) to each pixel independently, which looks like coloured noise.",
        "The [guide](guides/samples.md) explains the measures. *Training data* in the place of samples show the values",
        "of equal distributions; for the preference for training data, validation data take this place. The Fréchet",
        "distance is unbiased, so it may be below 0 by chance; 95% intervals are in brackets. *Reconstructions* are of",
        "the test data themselves: they show what the decoder of `grid` does with the best codes.",
        "",
        *(shorter if found["minutes"] < MINUTES else []),
        *([*found["note"], ""] if "note" in found else []),
        "## Goals",
        "",
        "At most a quarter of the Fréchet distance of N(0, I), at least 0.6 of the recall of training data, and no",
        "significant preference for training data above that of real data.",
        "",
        *summary(found),
        "",
    ]
    for name, one in found["sets"].items():
        out += section(name, one)
    credit = [SETS[name].credit for name, one in found["sets"].items() if "skipped" not in one and SETS[name].credit]
    return "\n".join([*out, " ".join(credit), "", found["machine"], ""])


def save_webp(path: Path, picture: np.ndarray) -> None:
    """Write a picture (H, W, 3) as WebP."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda part: Image.fromarray(picture).save(part, "WEBP", quality=QUALITY, method=6))


def pictures(shown: dict[str, dict[str, np.ndarray]], folder: Path) -> None:
    """The first samples of each sampler as a sheet of ten columns, and the README's rows."""
    bands, most = [], 0
    for name, by_sampler in shown.items():
        for key, x in by_sampler.items():
            save_webp(folder / "pictures" / f"{name}-{key}.webp", image_grid(x, ROW, zoom=1))
        zoom = max(1, round(64 / by_sampler[FIRST].shape[1]))
        rows = np.concatenate([by_sampler[FIRST][:ROW], by_sampler[BEST][:ROW]])
        bands.append(image_grid(rows, ROW, zoom=zoom))
        most = max(most, bands[-1].shape[1])
    stacked = []
    for band in bands:
        left = (most - band.shape[1]) // 2
        stacked.append(np.pad(band, ((0, 10), (left, most - band.shape[1] - left), (0, 0)), constant_values=255))
    save_webp(folder / "pictures.webp", np.concatenate(stacked)[:-10])


# --- the command ------------------------------------------------------------------------------------------------


def machine() -> str:
    """The versions and the number of cores."""
    return f"{os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}."


def started(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """The rows of a data set, measured by a process of one thread."""
    folder = RUNS / ("chosen" if asked.choose else "measured") / name
    given = [f"--{option}={value}" for option in ("sprites", "emoji") if (value := getattr(asked, option))]
    command = [sys.executable, __file__, f"--one={name}", f"--minutes={asked.minutes}", *given]
    result = folder / "result.json"
    if not result.exists() or asked.choose:
        subprocess.run(
            [*command, *(["--choose"] if asked.choose else [])], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True
        )
    return read_json(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sprites", type=Path, help="the sprites' .npz file")
    parser.add_argument("--emoji", type=Path, help="the folder of emoji")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="time of four data sets on two cores")
    parser.add_argument("--only", action="append", choices=SETS, help="one of these data sets; may be repeated")
    parser.add_argument("--choose", action="store_true", help="measure on validation data with seed 1, write no page")
    parser.add_argument("--page", action="store_true", help="write the page again from docs/pictures.json")
    parser.add_argument("--one", choices=SETS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.page:
        write_text(DOCS / "pictures.md", page(json.loads((DOCS / "pictures.json").read_text(encoding="utf8"))))
        return
    if asked.one:
        kind = "chosen" if asked.choose else "measured"
        minutes = asked.minutes * AT_ONCE / SETS_IN_TIME
        plan = Plan(minutes, int(asked.choose), asked.choose, RUNS / kind / asked.one)
        found = one_set(asked.one, getattr(asked, SETS[asked.one].option or "", None), plan)
        plan.folder.mkdir(parents=True, exist_ok=True)
        write_json(plan.folder / "result.json", found)
        return
    names = asked.only or list(SETS)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(names, pool.map(lambda name: started(name, asked), names), strict=True))
    if asked.choose:
        for one in found.values():
            print("\n".join([one["skipped"]] if "skipped" in one else table(one)))
        return
    kept = {"minutes": asked.minutes, "seed": 0, "sets": found, "machine": machine()}
    write_json(DOCS / "pictures.json", kept)
    write_text(DOCS / "pictures.md", page(kept))
    some = [name for name in names if "skipped" not in found[name]]
    pictures({name: dict(np.load(RUNS / "measured" / name / "shown.npz")) for name in some}, DOCS / "images")


if __name__ == "__main__":
    main()
