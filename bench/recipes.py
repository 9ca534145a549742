"""Compare all recipes on Fashion-MNIST after equal training time: `make bench-recipes`.

Trains each recipe for two minutes, and two also for ten, each on one core; as many at once as there are cores. On 2
cores this takes about 75 minutes. It can be stopped and resumed at any moment; runs are kept in bench/.runs/recipes and
results in docs/recipes.json, from which docs/recipes.md is made. Scores are paired by image with those of `vae` after
the same time. Recipes that are named are measured again.

    python bench/recipes.py [--minutes 2] [--long 10] [NAME ...]
    python bench/recipes.py --page
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from families import processor

import vaekit as vk
from vaekit.metrics import per_datum, standard_error
from vaekit.noise import Noise
from vaekit.recipes import RECIPES
from vaekit.utils.files import write_json, write_text

HERE = Path(__file__).parent
RUNS = HERE / ".runs" / "recipes"
DOCS = HERE.parent / "docs"
DATA = "fashion-mnist"
LONG = ("vae", "vamp")
"""The recipes that are also trained for the longer time."""
SAMPLES = 100
VARIANTS = {f"{name} --warmup 0": (name, ["--warmup", "0"]) for name in ("vae", "full-covariance")}
"""Further settings, measured to explain the results."""
OBJECTIVES = ("annealed", "beta", "constrained", "dip", "factor", "free-bits", "grid", "info", "robust", "tc")
"""Recipes whose loss is not the negative ELBO."""
CODES = ("vq", "fsq", "lfq", "simvq", "residual-vq")
"""Recipes with discrete codes."""
OWN = {
    "kingma2013": "- `kingma2013` is the small network of the paper, with Adagrad and a prior on the weights.",
    "wake-sleep": "- `wake-sleep` trains its encoder on samples from the decoder, which does not maximise a bound.",
    "reweighted-wake-sleep": "- `reweighted-wake-sleep` trains its encoder in part on samples from the decoder.",
    "hyperspherical": "- `hyperspherical` has codes on a sphere, with the uniform prior.",
    "semi-supervised": "- `semi-supervised` evaluates every image once for each class.",
}
"""Explanations from the definition of a recipe."""
COMMON = "Binary"
"""The observation of the main table; numbers for other observations are not comparable with it."""


def key(name: str, minutes: float) -> str:
    return f"{name.replace(' --', '-').replace(' ', '-')}-{minutes:g}min"


def trained(name: str, minutes: float, steps: int | None = None) -> vk.Run:
    """The finished run of this recipe, trained in a separate process for these minutes, or for these steps instead."""
    path = RUNS / key(name, minutes)
    recipe, settings = VARIANTS.get(name, (name, []))
    length = ["--minutes", str(minutes)] if steps is None else ["--steps", str(steps)]
    command = [sys.executable, "-m", "vaekit", "fit", DATA, "--recipe", recipe, *length, *settings]
    if (path / "run.json").exists():
        command += ["--resume"]
    # threads wait as on an idle machine, although the load average still includes the previous run
    environment = {"OMP_WAIT_POLICY": "ACTIVE", **os.environ}
    with tempfile.TemporaryDirectory() as cache:  # an empty cache, as in a first run
        environment["TORCHINDUCTOR_CACHE_DIR"] = cache
        subprocess.run([*command, "--out", str(path)], check=True, stdout=subprocess.DEVNULL, env=environment)
    return vk.open(path)


def scores(run: vk.Run) -> np.ndarray:
    """IW-100 of each test image, (10000,)."""
    file = run.path / f"scores-iw{SAMPLES}.npy"
    if not file.exists():
        scored = per_datum(run, run.observed("test"), SAMPLES)
        np.savez(file.with_suffix(".npz"), elbo=scored.elbo, rate=scored.rate, distortion=scored.distortion)
        np.save(file, scored.log_px)
    return np.load(file)


def corrupted_distortion(run: vk.Run, corruption: Any) -> float:
    """The distortion of clean test images decoded from codes of corrupted ones, as in training."""
    distortions = []
    with torch.no_grad():
        for rows, x, _ in run.observed("test").batches(None, None):
            z = run.model.encode(corruption(x, Noise.of(0, torch.from_numpy(rows), 1)))
            distortions.append(-run.model.decode(z).log_prob(x))
    return float(torch.cat(distortions).mean())


def measured(name: str, minutes: float, steps: int | None = None) -> dict[str, Any]:
    """One row of the table, without its difference from `vae`."""
    run = trained(name, minutes, steps)
    config = run.config
    row: dict[str, Any] = {
        "recipe": name,
        "minutes": minutes,
        "observation": type(run.composition.observation).__name__,
        "seconds": config["seconds"],
        "started": next((r["seconds"] for r in run.log if r["kind"] == "train"), None),
        "steps": config["step"],
        "parameters": config["decided"]["parameters"],
        "precision": config["decided"]["precision"],
        "compiled": config["decided"]["compile"],
        "threads": config["decided"]["threads"],
        "batch": config["training"]["batch"],
        "processor": processor(),
        "load": os.getloadavg()[1],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }
    if run.model.no_density is not None:
        (found,) = run.evaluate("test", metrics=["distortion"])
        row |= {"distortion": found["value"], "distortion_se": found["se"], "protocol": found["protocol"]}
        corruption = run.composition.objective.corruption
        return row if corruption is None else row | {"corrupted_distortion": corrupted_distortion(run, corruption)}
    log_px = scores(run)
    with np.load(run.path / f"scores-iw{SAMPLES}.npz") as held:
        for part in ("elbo", "rate", "distortion"):
            row[part], row[f"{part}_se"] = float(held[part].mean()), standard_error(held[part])
    row["log_px_iw"], row["log_px_iw_se"] = float(log_px.mean()), standard_error(log_px)
    return row


def pair(rows: dict[str, dict[str, Any]]) -> None:
    """Add to each row of binary images its difference from `vae` after the same time, where both have kept scores."""
    kept = {name: RUNS / name / f"scores-iw{SAMPLES}.npy" for name in rows}
    for name, row in rows.items():
        reference = kept.get(key("vae", row["minutes"]))
        if row["observation"] == COMMON and reference and reference.exists() and kept[name].exists():
            difference = np.load(kept[name]) - np.load(reference)
            row["to_vae"], row["to_vae_se"] = float(difference.mean()), standard_error(difference)


def table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| recipe | steps | start, s | parameters | ELBO | IW-100 | rate | distortion | IW-100 minus `vae` |",
        "|---|---|---|---|---|---|---|---|---|",
    ]

    def cell(row: dict[str, Any], name: str, digits: int = 2, sign: str = "") -> str:
        if name not in row:
            return "-"
        se = row.get(f"{name}_se")
        return f"{row[name]:{sign}.{digits}f}" + (f" ± {se:.{digits}f}" if se is not None else "")

    for row in sorted(rows, key=lambda r: -r.get("log_px_iw", -1e9)):
        lines.append(
            f"| `{row['recipe']}` | {row['steps']:,} | {row.get('started') or 0:.0f} | {row['parameters']:,} | "
            f"{cell(row, 'elbo')} | {cell(row, 'log_px_iw')} | {cell(row, 'rate')} | {cell(row, 'distortion')} | "
            f"{'0' if row['recipe'] == 'vae' else cell(row, 'to_vae', 3, '+')} |"
        )
    return lines


def why(rows: dict[str, dict[str, Any]], floor: float) -> list[str]:
    """Lines that explain why recipes are below `vae` after the short time, with numbers from the rows."""
    short = {r["recipe"]: r for r in rows.values() if r["minutes"] == min(r["minutes"] for r in rows.values())}
    surely = lambda r: r.get("to_vae", 0.0) < -3 * r.get("to_vae_se", np.inf)  # noqa: E731  (about 40 comparisons)
    below = sorted((n for n, r in short.items() if surely(r)), key=lambda n: short[n]["to_vae"])
    steps = short["vae"]["steps"]
    slow = [n for n in below if short[n]["steps"] < steps / 2]
    other = [n for n in below if n in OBJECTIVES and n not in slow]
    codes = [n for n in below if n in CODES]
    listed = lambda names: ", ".join(f"`{n}`" for n in names)  # noqa: E731
    lines = ["", "## Why some recipes are below `vae`", ""]
    if slow:
        lines.append(
            f"- Slower steps: {listed(slow)} took less than half as many steps as `vae` ({steps:,}) in the same time."
        )
    if other:
        lines.append(f"- Another objective: {listed(other)} trade log p(x) for the other terms of their loss.")
    if codes:
        lines.append(f"- Discrete codes: {listed(codes)}. [Their page](quantised.md) has longer training runs.")
    if (grid := short.get("grid")) and grid["distortion"] < -floor:
        lines += [
            "- `grid` weighs the KL with 0.1, for codes whose density is fitted later (`vaekit prior`). Its distortion",
            f"  ({grid['distortion']:.0f} nats) is below the entropy of the draw ({-floor:.0f}): the codes store the "
            "noise of the draw,",
            f"  and the rate is high ({grid['rate']:.0f}).",
        ]
    lines += [text for name, text in OWN.items() if name in below]
    cold = {name: short.get(f"{name} --warmup 0") for name in ("vae", "full-covariance")}
    if "full-covariance" in short and all(cold.values()):
        rates = {name: [short[name]["rate"], cold[name]["rate"]] for name in cold}
        lines += [
            "- The richer posteriors (`full-covariance`, `nsf`, `iaf`) include the diagonal one; a lower score comes",
            "  from training. Early on, they give up latent directions that the decoder does not use yet. The default,",
            "  a weight of the KL that rises over the first half of the training, prevents most of this: without it",
            f"  (`--warmup 0`), `full-covariance` ends with a rate of {rates['full-covariance'][1]:.1f} instead of "
            f"{rates['full-covariance'][0]:.1f} nats,",
            f"  `vae` with {rates['vae'][1]:.1f} instead of {rates['vae'][0]:.1f}.",
        ]
    return lines


def write(rows: dict[str, dict[str, Any]]) -> None:
    """Write docs/recipes.json and the page made from it."""
    pair(rows)
    rows = dict(sorted(rows.items()))
    write_json(DOCS / "recipes.json", rows)
    first = next(iter(rows.values()))
    floor = -189.869
    lines = [
        "# Every recipe on Fashion-MNIST",
        "",
        "Made by `make bench-recipes`. Each [recipe](glossary.md#recipe) is trained with its defaults for the same",
        "wall-clock time, compilation included, on one core, with seed 0.",
        "",
        "- The 10,000 test images use one fixed [binary draw](glossary.md#draw) and are scored in fp32. Values are in",
        "  [nats](glossary.md#nats) per image, ± one [standard error](glossary.md#standard-error).",
        "- [ELBO](glossary.md#elbo) and *IW-100* (the",
        "  [importance-weighted bound](glossary.md#importance-weighted-bound) with 100 samples) are better when",
        f"  higher; the best expected value is {floor} nats, minus the [entropy floor](glossary.md#entropy-floor).",
        "- The ELBO is minus the sum of [rate](glossary.md#rate), the KL term, and",
        "  [distortion](glossary.md#distortion), the reconstruction term. A model without a density has only a",
        "  distortion.",
        "- The last column is the mean difference from `vae` on the same images. Because it is paired, its standard",
        "  error is much smaller than that of either number.",
        "- *Start* is the time until the first 50 steps are done, mostly compilation.",
        "",
        "Two minutes are short, so the numbers also reflect how fast a recipe learns. Compare the *steps*, too.",
    ]
    for minutes in sorted({r["minutes"] for r in rows.values()}):
        lines += ["", f"## After {minutes:g} minutes", ""]
        at_minutes = [r for r in rows.values() if r["minutes"] == minutes]
        lines += table([r for r in at_minutes if r.get("observation", COMMON) == COMMON])
        if other := [r for r in at_minutes if r.get("observation", COMMON) != COMMON]:
            lines += ["", "Densities of the grey values 0 to 255, not comparable with those of binarised images:", ""]
            lines += table(other)
    if key("vae", min(r["minutes"] for r in rows.values())) in rows:
        lines += why(rows, floor)
    for row in rows.values():
        if "corrupted_distortion" in row:
            lines += [
                "",
                f"`{row['recipe']}` has a distortion of {row['distortion']:.2f} when it encodes clean images, which it",
                "never sees in training: the masked images of its training are darker. When it encodes images that are",
                f"corrupted as in training, its distortion is {row['corrupted_distortion']:.2f}.",
            ]
    processors = sorted({r["processor"] for r in rows.values()})
    loads = [r["load"] for r in rows.values()]
    lines += [
        "",
        f"{' and '.join(processors)}, torch {first['torch']}, Python {first['python']}. As many recipes were trained",
        f"at once as there were cores; the load average was {min(loads):.1f} to {max(loads):.1f}. `recipes.json` has "
        "the settings and date of every row.",
        "",
    ]
    write_text(DOCS / "recipes.md", "\n".join(lines))


def on_core(cores: SimpleQueue[int], name: str, minutes: float) -> dict[str, Any]:
    """The row of `measured`, from a process that has one core to itself."""
    core = cores.get()
    print(f"{name}, {minutes:g} minutes ...", flush=True)
    try:
        command = [sys.executable, __file__, name, "--minutes", str(minutes), "--core", str(core)]
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    finally:
        cores.put(core)
    return json.loads(done.stdout.splitlines()[-1])


def planned(names: list[str], minutes: float, long: float) -> list[tuple[str, float]]:
    """What to measure: recipe or variant, and minutes."""
    plan = [(n, minutes) for n in names or ["vae", *sorted(n for n in RECIPES if n != "vae"), *VARIANTS]]
    return plan + ([(n, long) for n in LONG if not names or n in names] if long else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="recipes to measure again; default: all that have no row")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--long", type=float, default=10.0, help=f"minutes for {', '.join(LONG)}; 0: skip")
    parser.add_argument("--page", action="store_true", help="only write the page from the kept results")
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.core is not None:
        os.sched_setaffinity(0, {asked.core})
        print(json.dumps(measured(asked.names[0], asked.minutes)))
        return
    file = DOCS / "recipes.json"
    rows: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf8")) if file.exists() else {}
    plan = [] if asked.page else planned(asked.names, asked.minutes, asked.long)
    for one in plan:
        if asked.names and key(*one) in rows:  # otherwise its finished run would be read again
            shutil.rmtree(RUNS / key(*one), ignore_errors=True)
    available = sorted(os.sched_getaffinity(0))
    cores: SimpleQueue[int] = SimpleQueue()
    for core in available:
        cores.put(core)
    workers = ThreadPoolExecutor(len(available))
    work = [workers.submit(on_core, cores, *one) for one in plan if asked.names or key(*one) not in rows]
    try:
        for done in as_completed(work):
            row = done.result()
            rows[key(row["recipe"], row["minutes"])] = row
            score = row.get("log_px_iw", row["distortion"])
            print(f"{row['recipe']}: {score:.2f} after {row['steps']:,} steps", flush=True)
            write(rows)
    finally:
        workers.shutdown(wait=False, cancel_futures=True)
    write(rows)


if __name__ == "__main__":
    main()
