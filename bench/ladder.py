"""Speed of the recipe `ladder`, and its log p(x) beside that of `vae` on Fashion-MNIST: `make bench-ladder`.

    python bench/ladder.py speed [--against SRC] [--rounds 25]
    python bench/ladder.py steps
    python bench/ladder.py pilot [--seconds 110]
    python bench/ladder.py hour [--minutes 60] [--samples 5000]

`speed` times an eager step of `vae`, of `ladder`, and of `ladder` on grids (`--layers 2 2 1`, its default before it was
dense), with one thread and in alternation; with --against, also on grids in an earlier version's `src` folder. `steps`
trains `ladder` for as many steps as its stored row on grids. `pilot` trains `vae` and settings of `ladder` for equal
time of one core and compares them on validation images with another seed than the others, to choose settings; it prints
its results. `hour` trains `vae` and `ladder` for the same wall-clock time with
all cores, one after the other, and compares them by test image; it can be stopped and resumed at any moment, and takes
2 hours and about 20 minutes of scoring on 2 cores. Runs are kept in bench/.runs/ladder and results in docs/ladder.json,
from which docs/ladder.md is made.
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
PILOTS: dict[str, tuple[str, dict[str, Any]]] = {
    "vae": ("vae", {}),
    "ladder": ("ladder", {}),
    "ladder --layers 3": ("ladder", {"layers": (3,)}),
}
"""Recipe and options of each pilot."""
SEED, VALIDATED = 11, 2000
"""Of the pilots: their seed, and the number of validation images."""
GRIDS = {"layers": (2, 2, 1)}
"""The default for images of 28 x 28 before it was dense."""


# --- speed ------------------------------------------------------------------------------------------------------


Plan = dict[str, tuple[Path, str, dict[str, Any]]]  # the src folder of a version, recipe, options


def timed(plan: Plan, rounds: int) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Facts of each case, and its milliseconds per step in rounds in which all cases alternate."""
    workers, facts = {}, {}
    for name, (folder, recipe, options) in plan.items():
        workers[name] = Worker(folder)
        case = {"data": recipes.DATA, "recipe": recipe, "options": options, "adult": ""}
        facts[name] = workers[name].ask("open " + json.dumps(case))
    times: dict[str, list[float]] = {name: [] for name in plan}
    for _ in range(rounds):
        for name, worker in workers.items():
            times[name].append(worker.ask("step"))
    for worker in workers.values():
        worker.process.kill()
    return facts, times


def speed(against: Path | None, rounds: int) -> dict[str, Any]:
    """Median and quartiles of milliseconds per step, and of the ratios to `ladder` in the same round, by case."""
    source = HERE.parent / "src"
    plan: Plan = {
        "ladder": (source, "ladder", {}),
        "vae": (source, "vae", {}),
        "grids": (source, "ladder", GRIDS),
    }
    if against:
        plan["grids, before"] = against, "ladder", GRIDS
    facts, times = timed(plan, rounds)
    rows: dict[str, Any] = {}
    for name, found in times.items():
        ratio = np.quantile(np.array(found) / np.array(times["ladder"]), [0.5, 0.25, 0.75])
        rows[name] = facts[name] | {"ms": list(np.quantile(found, [0.5, 0.25, 0.75])), "ratio": list(ratio)}
    return {"rows": rows, "rounds": rounds, "processor": processor(), "load": os.getloadavg()[1], **about()}


def about() -> dict[str, Any]:
    return {"torch": torch.__version__, "date": datetime.date.today().isoformat()}


# --- quality ----------------------------------------------------------------------------------------------------


def after_steps() -> dict[str, Any]:
    """Scores of `ladder` after the steps of its stored row on grids, and that row."""
    grids = json.loads((DOCS / "ladder.json").read_text(encoding="utf8"))["steps"]["grids"]
    row = recipes.measured("ladder", 2.0, grids["steps"])
    return {"grids": grids, "ladder": {n: row[n] for n in grids}, **about()}


def pilot(seconds: float, rounds: int) -> None:
    """Print IW-50 of validation images after equal time of one core, and the paired differences from `vae`."""
    source = HERE.parent / "src"
    _, times = timed({name: (source, *case) for name, case in PILOTS.items()}, rounds)
    base = None
    for name, (recipe, options) in PILOTS.items():
        ms = float(np.median(times[name]))
        steps = max(1, round(1000 * seconds / ms))
        out = recipes.RUNS / f"pilot-{recipes.key(name, seconds / 60)}"
        chosen = {"seed": SEED, "steps": steps, "compile": "off", "progress": False, "exists": "replace"}
        run = vk.fit(recipes.DATA, recipe, out=out, **chosen, **options)
        found = per_datum(run, run.observed("valid"), 50, n=VALIDATED, compile=False).log_px
        base = found if base is None else base
        away = f"{(found - base).mean():+.2f} ± {standard_error(found - base):.2f} from vae"
        print(f"{name}: {steps:,} steps of {ms:.1f} ms, IW-50 {found.mean():.2f}, {away}", flush=True)


def scores(run: vk.Run, samples: int) -> np.ndarray:
    """The importance-weighted bound of each test image, (10000,)."""
    observed, found = run.observed("test"), []
    for first in range(0, observed.n, BLOCK):
        file = run.path / f"iw{samples}-{first}.npy"
        if not file.exists():
            rows = np.arange(first, min(first + BLOCK, observed.n))
            part = file.with_name("part.npy")
            np.save(part, per_datum(run, observed, samples, rows=rows).log_px)
            part.replace(file)
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
    "grids, before": "the same, in the previous version",
}


def page(stored: dict[str, Any]) -> str:
    """docs/ladder.md."""
    lines = [
        "# A hierarchy at the speed of dense layers",
        "",
        "Made by `make bench-ladder`. For images of at most 1,024 elements, the [recipe](glossary.md#recipe) `ladder`",
        "has two layers of latents and dense gated networks. It is `vae` with 20 more latents, which enter the decoder",
        "after its first layer: their density and their posterior depend on the first 40. Larger images have layers",
        "on grids of several sizes, as small ones do with `--layers 2 2 1`.",
        "",
    ]
    for name, section in (("speed", _speed), ("steps", _steps), ("hour", _hour)):
        if name in stored:
            lines += section(stored[name])
    return "\n".join(lines + TRIED)


TRIED = [
    "## How the settings were chosen",
    "",
    "They were chosen in short trial runs with seed 11, of equal time on one core beside other work. The table shows",
    "the difference in IW-50 from `vae` on the same 2,000 validation images, in nats ± one standard error.",
    "`python bench/ladder.py pilot` repeats the runs of `vae`, `ladder` and `--layers 3`.",
    "",
    "| model | ms per step | after 40 s | after 110 s |",
    "|---|---|---|---|",
    "| `vae` | 13.6 to 17.3 | 0 (2,934 steps) | 0 (6,366 steps) |",
    "| 40 and 20 latents, gated layers, hidden layer in the second posterior: **`ladder`** | 19.7 to 21.8 | "
    "-0.85 ± 0.07 (2,034 steps) | -0.21 ± 0.06 (5,048 steps) |",
    "| the same without that hidden layer | 15.9 to 18.5 | -0.38 ± 0.08 | -1.04 ± 0.06 |",
    "| and with features of the encoder's first layer | 16.4 | -0.98 ± 0.09 | - |",
    "| and with layers of 30, 20 and 20 latents | 20.6 | -1.14 ± 0.09 | - |",
    "| two layers of 20, residual blocks as on grids, width 300 | 23.8 | -5.10 ± 0.19 | - |",
    "| three layers of 16, residual blocks as on grids, width 256 | 24.4 | -7.30 ± 0.27 | - |",
    "",
    "After so short a time, the number of steps still decides. `ladder` learns more per step, and its gap to `vae`",
    "closes: the comparison after a longer time, above, is the one that counts.",
    "",
    "On grids, most of a step is convolutions with 4 to 64 channels and passes over their outputs. Matrix products",
    "instead of the convolutions of width 1 took longer (3.2 ms instead of 1.1 ms forward and backward from 32 to 8",
    "channels on 100 images of 14 x 14), and so did fp32 instead of the bf16 that such a machine chooses (121 ms",
    "instead of 105 ms per step). The time per step on grids is therefore unchanged.",
    "",
]
"""Measured once; the models other than `vae` and `ladder` were variants that are not kept."""


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
        "The row on grids is",
        "from an earlier version, with the training defaults of that version.",
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
        f"core{'' if threads == 1 else 's'}, compilation included,",
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
    parser.add_argument("part", choices=("speed", "steps", "pilot", "hour", "page"))
    parser.add_argument("--against", type=Path, help="the src folder of an earlier version, for speed")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=110.0)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--samples", type=int, default=5000)
    asked = parser.parse_args()
    file = DOCS / "ladder.json"
    stored: dict[str, Any] = json.loads(file.read_text(encoding="utf8")) if file.exists() else {}
    if asked.part == "speed":
        stored["speed"] = speed(asked.against, asked.rounds)
    elif asked.part == "steps":
        stored["steps"] = after_steps()
    elif asked.part == "pilot":
        pilot(asked.seconds, asked.rounds)
        return
    elif asked.part == "hour":
        stored["hour"] = hour(asked.minutes, asked.samples)
    write_json(file, stored)
    write_text(DOCS / "ladder.md", page(stored))


if __name__ == "__main__":
    main()
