"""Compare training defaults of images after equal numbers of steps: `make bench-learning`.

Trains `vae` on Fashion-MNIST with its defaults, and with one of them changed at a time. The measure is IW-100 on the
first 1,000 validation images, one binary draw of each, the same for all settings. Differences are paired by seed.
Resumable: results are kept in bench/.runs/learning. Writes docs/learning.json, and docs/learning.md with the results
of bench/ideas.py below. Takes about 3 hours on one core.

    python bench/learning.py [--steps 3000 12000] [--seeds 0 1 2] [--only NAME ...]
                             [--recipes NAME ...] [--recipe-steps 1500]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import ideas
import torch

import vaekit as vk
from vaekit.metrics import per_datum
from vaekit.utils.files import write_json, write_text

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "learning", HERE.parent / "docs"
IMAGES, SAMPLES = 1000, 100
DEFAULT = "the default"
COSINE: dict[str, Any] = {"lr": 3e-3, "schedule": "cosine", "beta2": 0.999}
SETTINGS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "learning rate 0.003, cosine schedule, beta2 0.999": COSINE,
    "learning rate 0.001": {"lr": 1e-3},
    "learning rate 0.003": {"lr": 3e-3},
    "learning rate 0.003, beta2 0.999": {"lr": 3e-3, "beta2": 0.999},
    "cosine schedule": {"schedule": "cosine"},
    "beta2 0.999": {"beta2": 0.999},
    "beta 1 from the first step": {"warmup": 0},
    "beta rises over a quarter of the steps": {"rise": 0.25},
    "no average of the weights": {"ema": 0.0},
    "two layers of 512, SiLU instead of gates": {"hidden": (512, 512), "activation": "silu"},
    "one layer of 512, ReLU": {"hidden": (512,), "activation": "relu"},
    "batches of 200": {"batch": 200},
}
"""Options of `fit` by the name of a setting; `rise` is the share of the steps over which beta rises."""


RECIPES = (
    "ae", "denoising", "beta", "free-bits", "tc", "factor", "info", "wae", "aae", "iwae", "ciwae", "wake-sleep",
    "mixture", "vamp", "flow-prior", "hierarchical", "full-covariance", "iaf", "nsf", "hyperspherical", "conditional",
)  # fmt: skip
"""Further recipes with dense networks."""


def measured_recipe(recipe: str, steps: int, seed: int) -> None:
    """Keep the validation figures of a recipe with the defaults, and with `COSINE`."""
    for which, options in (("default", {}), ("cosine", COSINE)):
        kept = RUNS / "recipes" / f"{recipe}-{which}-{steps}-{seed}.json"
        if kept.exists():
            continue
        out = RUNS / "run"
        shutil.rmtree(out, ignore_errors=True)
        run = vk.fit("fashion-mnist", recipe, out=out, steps=steps, seed=seed, progress=False, compile="off", **options)
        kept.parent.mkdir(exist_ok=True)
        write_json(kept, {"recipe": recipe, "which": which, "steps": steps, "seed": seed} | dict(run.config["valid"]))
        print(kept.stem, run.config["valid"], flush=True)


def recipes_table(results: list[dict[str, Any]]) -> list[str]:
    """A row for each recipe with both of its results."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for r in results:
        found.setdefault((r["recipe"], r["which"]), {})[r["seed"]] = -(r["distortion"] + r.get("rate", 0.0))
    lines = [
        f"## Other recipes, after {results[0]['steps']:,} steps",
        "",
        "Validation ELBO with the defaults, and with a learning rate of 0.003 that follows a cosine and beta2 0.999;",
        "for autoencoders, minus the reconstruction error. Not compiled, fp32.",
        "",
        "| recipe | seeds | default | 0.003, cosine, 0.999 | difference |",
        "|---|---|---|---|---|",
    ]
    for recipe in dict.fromkeys(r["recipe"] for r in results):
        now, then = (found.get((recipe, which), {}) for which in ("default", "cosine"))
        if seeds := sorted(set(now) & set(then)):
            means = (statistics.mean(of[seed] for seed in seeds) for of in (now, then))
            gap = paired([now[seed] - then[seed] for seed in seeds])
            lines.append(f"| `{recipe}` | {len(seeds)} | {' | '.join(f'{v:.2f}' for v in means)} | {gap} |")
    return [*lines, ""]


def measured(name: str, steps: int, seed: int) -> None:
    """Keep the scores of one setting, trained for so many steps."""
    kept = RUNS / f"{name.replace(' ', '-')}-{steps}-{seed}.json"
    if kept.exists():
        return
    options = dict(SETTINGS[name])
    if rise := options.pop("rise", None):
        options["warmup"] = int(rise * steps)
    out = RUNS / "run"
    shutil.rmtree(out, ignore_errors=True)
    begun = time.process_time()
    run = vk.fit("fashion-mnist", out=out, steps=steps, seed=seed, progress=False, **options)
    seconds = time.process_time() - begun
    scored = per_datum(run, run.observed("valid"), SAMPLES, n=IMAGES)
    result = {"name": name, "steps": steps, "seed": seed, "precision": run.config["decided"]["precision"]}
    result["cpu"] = seconds
    result |= {"elbo": float(scored.elbo.mean()), "bound": float(scored.log_px.mean())}
    result |= {"parameters": run.config["decided"]["parameters"], "rate": run.config["valid"]["rate"]}
    write_json(kept, result)
    print(result, flush=True)


def table(results: list[dict[str, Any]], names: list[str]) -> list[str]:
    """A row for each setting; the first is the one that the others are compared with."""
    first, *_ = names
    further = {"parameters": ("parameters", ",.0f"), "rate": ("rate", ".1f"), "cpu": ("CPU seconds", ".0f")}
    shown = {k: v for k, v in further.items() if k in results[0]}
    seeds = sorted({r["seed"] for r in results})
    heads = ["setting", "ELBO", "IW-100", "IW-100 minus the first row's", *(head for head, _ in shown.values())]
    lines = [f"Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}.", ""]
    lines += [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    base = {r["seed"]: r["bound"] for r in results if r["name"] == first}
    for name in names:
        if own := [r for r in results if r["name"] == name]:
            means = {k: statistics.mean(r[k] for r in own) for k in ("elbo", "bound", *shown)}
            gap = "0" if name == first else paired([r["bound"] - base[r["seed"]] for r in own])
            row = [name, f"{means['elbo']:.2f}", f"{means['bound']:.2f}", gap]
            row += [f"{means[k]:{form}}" for k, (_, form) in shown.items()]
            lines.append(f"| {' | '.join(row)} |")
    return [*lines, ""]


def report(results: list[dict[str, Any]], tried: list[dict[str, Any]], recipes: list[dict[str, Any]]) -> str:
    """The tables: one for each number of steps, that of other recipes, and that of bench/ideas.py."""
    lines = [
        "# Training defaults of images",
        "",
        "Made by `make bench-learning`; the header of bench/learning.py describes the protocol. `vae` on Fashion-MNIST",
        "with its defaults, or with one or more of them changed. Values are in [nats](glossary.md#nats) per image,",
        "means over seeds; ± is the standard error over seeds, paired with the default.",
        "",
    ]
    for steps in sorted({r["steps"] for r in results}):
        here = [r for r in results if r["steps"] == steps]
        how = " and ".join(sorted({r["precision"] for r in here}))
        lines += [f"## After {steps:,} steps, {how}", "", *table(here, list(SETTINGS))]
    if recipes:
        lines += recipes_table(recipes)
    if tried:
        steps = tried[0]["steps"]
        lines += [
            f"## Ideas, after {steps:,} steps",
            "",
            "Ways of learning that are not options of vaekit, in the plain loop of bench/ideas.py (fp32, one thread).",
            "CPU time is that of the training.",
            "",
            *table(tried, list(ideas.IDEAS)),
        ]
    lines += [f"torch {torch.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores.", ""]
    return "\n".join(lines)


def paired(gaps: list[float]) -> str:
    """The mean of differences with its standard error."""
    error = f" ± {statistics.stdev(gaps) / len(gaps) ** 0.5:.2f}" if len(gaps) > 1 else ""
    return f"{statistics.mean(gaps):+.2f}{error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[3000, 12000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="*", default=RECIPES, metavar="NAME")
    parser.add_argument("--recipe-steps", type=int, default=1500)
    parser.add_argument("--only", nargs="+", default=list(SETTINGS), choices=SETTINGS, metavar="NAME")
    asked = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    for seed in asked.seeds:
        for n in asked.steps:
            for name in asked.only:
                measured(name, n, seed)
    for recipe in asked.recipes:
        for seed in asked.seeds:
            measured_recipe(recipe, asked.recipe_steps, seed)
    results = [json.loads(file.read_text()) for file in sorted(RUNS.glob("*.json"))]
    write_json(DOCS / "learning.json", results)
    kept = DOCS / "learning-ideas.json"
    recipes = [
        json.loads(file.read_text()) for file in sorted((RUNS / "recipes").glob(f"*-{asked.recipe_steps}-*.json"))
    ]
    write_json(DOCS / "learning-recipes.json", recipes)
    page = report(results, json.loads(kept.read_text()) if kept.exists() else [], recipes)
    write_text(DOCS / "learning.md", page)
    print(page)


if __name__ == "__main__":
    main()
