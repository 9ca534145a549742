"""Speed of the recipe `ladder`, and its log p(x) beside that of `vae` on Fashion-MNIST: `make bench-ladder`.

    python bench/ladder.py speed [--against SRC] [--rounds 25]
    python bench/ladder.py steps
    python bench/ladder.py hour [--minutes 60] [--samples 5000]

`speed` times an eager step of `vae`, of `ladder`, and of `ladder` on grids (`--layers 2 2 1`, its default before it was
dense), with one thread and in alternation; with --against, also on grids in an earlier version's `src` folder. `steps`
trains `ladder` for as many steps as its row in docs/recipes.json had when it was on grids. `hour` trains `vae` and
`ladder` for the same wall-clock time with all cores, one after the other, and compares them by test image; it can be
stopped and resumed at any moment, and takes 2 hours and about 20 minutes of scoring on 2 cores. Runs are kept in
bench/.runs/ladder and results in docs/ladder.json, from which docs/ladder.md is made.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import recipes
import torch
from families import Worker, processor

import vaekit as vk
from vaekit.metrics import per_datum, standard_error
from vaekit.utils.files import write_json, write_text

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
recipes.RUNS = HERE / ".runs" / "ladder"
BLOCK = 500
"""Test images that are scored between two saves."""
GRIDS = {"layers": (2, 2, 1)}
"""The default for images of 28 x 28 before it was dense."""


# --- speed ------------------------------------------------------------------------------------------------------


def speed(against: Path | None, rounds: int) -> dict[str, Any]:
    """Median and quartiles of milliseconds per step, and of the ratios to `ladder` in the same round, by case."""
    source = HERE.parent / "src"
    plan: dict[str, tuple[Path, str, dict[str, Any]]] = {
        "ladder": (source, "ladder", {}),
        "vae": (source, "vae", {}),
        "grids": (source, "ladder", GRIDS),
    }
    if against:
        plan["grids, before"] = against, "ladder", GRIDS
    workers, facts = {}, {}
    for name, (folder, recipe, options) in plan.items():
        workers[name] = Worker(folder)
        case = {"data": recipes.DATA, "recipe": recipe, "options": options, "adult": ""}
        facts[name] = workers[name].ask("open " + json.dumps(case))
    times: dict[str, list[float]] = {name: [] for name in plan}
    for _ in range(rounds):
        for name, worker in workers.items():
            times[name].append(worker.ask("step"))
    rows: dict[str, Any] = {}
    for name, found in times.items():
        ratio = np.quantile(np.array(found) / np.array(times["ladder"]), [0.5, 0.25, 0.75])
        rows[name] = facts[name] | {"ms": list(np.quantile(found, [0.5, 0.25, 0.75])), "ratio": list(ratio)}
    return {"rows": rows, "rounds": rounds, "processor": processor(), "load": os.getloadavg()[1], **about()}


def about() -> dict[str, Any]:
    return {"torch": torch.__version__, "date": datetime.date.today().isoformat()}


# --- quality ----------------------------------------------------------------------------------------------------


def after_steps() -> dict[str, Any]:
    """Scores of `ladder` after the steps of its row on grids, and that row."""
    before = json.loads((DOCS / "recipes.json").read_text(encoding="utf8"))["ladder-2min"]
    kept = ("steps", "parameters", "elbo", "elbo_se", "log_px_iw", "log_px_iw_se")
    row = recipes.measured("ladder", 2.0, before)
    return {"grids": {n: before[n] for n in kept}, "ladder": {n: row[n] for n in kept}, **about()}


def scores(run: vk.Run, samples: int) -> np.ndarray:
    """The importance-weighted bound of each test image, (10000,)."""
    observed, found = run.observed("test"), []
    for first in range(0, observed.n, BLOCK):
        file = run.path / f"iw{samples}-{first}.npy"
        if not file.exists():
            rows = np.arange(first, min(first + BLOCK, observed.n))
            np.save(file, per_datum(run, observed, samples, rows=rows).log_px)
        found.append(np.load(file))
    return np.concatenate(found)


def hour(minutes: float, samples: int) -> dict[str, Any]:
    """`vae` and `ladder` after equal time, and the paired difference."""
    runs = {name: recipes.trained(name, minutes) for name in ("vae", "ladder")}
    log_px = {name: scores(run, samples) for name, run in runs.items()}
    rows: dict[str, Any] = {}
    for name, run in runs.items():
        config, found = run.config, log_px[name]
        rows[name] = {
            "steps": config["step"],
            "parameters": config["decided"]["parameters"],
            "seconds": config["seconds"],
            "compiled": config["decided"]["compile"],
            "precision": config["decided"]["precision"],
            "threads": config["decided"]["threads"],
            "log_px": float(found.mean()),
            "se": standard_error(found),
        }
    difference = log_px["ladder"] - log_px["vae"]
    return {
        "rows": rows,
        "minutes": minutes,
        "samples": samples,
        "difference": float(difference.mean()),
        "se": standard_error(difference),
        "processor": processor(),
        "load": os.getloadavg()[1],
        **about(),
    }


# --- the page ---------------------------------------------------------------------------------------------------

NAMES = {
    "ladder": "`ladder`, two dense layers",
    "vae": "`vae`",
    "grids": "`ladder --layers 2 2 1`, on grids",
    "grids, before": "the same, in the version before",
}


def page(stored: dict[str, Any]) -> str:
    """docs/ladder.md."""
    lines = [
        "# A hierarchy at the speed of dense layers",
        "",
        "Made by `make bench-ladder`. For images of at most 1,024 elements, the [recipe](glossary.md#recipe) `ladder`",
        "has two layers of latents and dense gated networks. It is `vae` with 20 more latents, which enter the decoder",
        "behind its first layer: their density and their posterior depend on the first 40. Larger images have layers",
        "on grids of several sizes, as small ones do with `--layers 2 2 1`.",
        "",
    ]
    for name, section in (("speed", _speed), ("steps", _steps), ("hour", _hour)):
        if name in stored:
            lines += section(stored[name])
    return "\n".join(lines)


def _speed(found: dict[str, Any]) -> list[str]:
    lines = [
        "## Time of a step",
        "",
        f"Milliseconds per eager step of 100 images of Fashion-MNIST with one thread: median and quartiles of "
        f"{found['rounds']} rounds in",
        "which all rows alternated. The ratio is the median of the ratios to `ladder` in the same round.",
        "",
        "| model | parameters | ms | ratio |",
        "|---|---|---|---|",
    ]
    for name, row in found["rows"].items():
        ms, ratio = ("{:.2f} ({:.2f} to {:.2f})".format(*row[column]) for column in ("ms", "ratio"))
        lines.append(f"| {NAMES[name]} | {row['parameters']:,} | {ms} | {'1' if name == 'ladder' else ratio} |")
    lines += ["", f"{found['processor']}, torch {found['torch']}; load average {found['load']:.1f}.", ""]
    return lines


def _steps(found: dict[str, Any]) -> list[str]:
    lines = [
        "## After equal steps",
        "",
        f"After {found['ladder']['steps']:,} steps, on the 10,000 test images, in nats per image ± one standard error. "
        "The row on grids is the",
        "former one of [all recipes](recipes.md), with its former training defaults.",
        "",
        "| model | parameters | ELBO | IW-100 |",
        "|---|---|---|---|",
    ]
    for name, label in (("ladder", NAMES["ladder"]), ("grids", "`ladder` on grids")):
        row = found[name]
        cells = [f"{row[n]:.2f} ± {row[n + '_se']:.2f}" for n in ("elbo", "log_px_iw")]
        lines.append(f"| {label} | {row['parameters']:,} | {' | '.join(cells)} |")
    return [*lines, ""]


def _hour(found: dict[str, Any]) -> list[str]:
    threads = found["rows"]["vae"]["threads"]
    lines = [
        f"## After {found['minutes']:g} minutes",
        "",
        f"Each recipe is trained with its defaults for {found['minutes']:g} minutes of wall-clock time on {threads} "
        "cores, compilation included,",
        f"seed 0. IW-{found['samples']} of the 10,000 test images, in nats per image ± one standard error.",
        "",
        f"| recipe | steps | parameters | compiled | IW-{found['samples']} |",
        "|---|---|---|---|---|",
    ]
    for name, row in found["rows"].items():
        compiled = f"{'yes' if row['compiled'] else 'no'}, {row['precision']}"
        score = f"{row['log_px']:.2f} ± {row['se']:.2f}"
        lines.append(f"| `{name}` | {row['steps']:,} | {row['parameters']:,} | {compiled} | {score} |")
    lines += [
        "",
        f"`ladder` minus `vae` on the same images: **{found['difference']:+.2f} ± {found['se']:.2f} nats**.",
        "",
        f"{found['processor']}, torch {found['torch']}; load average at the end {found['load']:.1f}.",
        "",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("speed", "steps", "hour", "page"))
    parser.add_argument("--against", type=Path, help="the src folder of an earlier version, for speed")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--samples", type=int, default=5000)
    asked = parser.parse_args()
    file = DOCS / "ladder.json"
    stored: dict[str, Any] = json.loads(file.read_text(encoding="utf8")) if file.exists() else {}
    if asked.part == "speed":
        stored["speed"] = speed(asked.against, asked.rounds)
    elif asked.part == "steps":
        stored["steps"] = after_steps()
    elif asked.part == "hour":
        stored["hour"] = hour(asked.minutes, asked.samples)
    write_json(file, stored)
    write_text(DOCS / "ladder.md", page(stored))


if __name__ == "__main__":
    main()
