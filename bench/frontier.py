"""Choose the settings of the recipe `best` on Fashion-MNIST, and measure it on the test images: `make bench-frontier`.

`choose` trains each setting for the same number of steps with seeds that the measurement does not use. The measure is
IW-100 on the first 1,000 validation images, one binary draw of each, the same for all settings; differences are paired
by seed. `measure` trains a recipe for the given minutes, then takes IW-5000 of the 10,000 test images; binary images
have the reference draw. Resumable: runs are kept in bench/.runs/frontier, an interrupted training is resumed, and
scores are kept in blocks of 500 images. Writes docs/frontier.json and docs/frontier.md.

    python bench/frontier.py choose [--set GROUP ...] [--seeds 10 11 12] [--only NAME ...]
    python bench/frontier.py measure [--minutes 10] [--recipe best] [--seed 0] [--wide] [--grey] [--samples 5000]
    python bench/frontier.py page
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import time
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
from families import processor
from learning import paired

import vaekit as vk
from vaekit.metrics import per_datum, standard_error
from vaekit.utils.files import write_json, write_text

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "frontier", HERE.parent / "docs"
IMAGES, SAMPLES, BLOCK = 1000, 100, 500
PIXELS = 784


class Group(NamedTuple):
    """Settings that are compared after equal numbers of steps, the first with each of the others.

    Attributes:
        title: the heading of the table.
        steps: the length of each training.
        settings: recipe and options of `fit` by the name of a setting.
    """

    title: str
    steps: int
    settings: dict[str, tuple[str, dict[str, Any]]]


OF_500: dict[str, Any] = {"components": 500}
MIXTURE = "`mixture` of 500"
GROUPS = {
    "best": Group(
        "The recipe `best`",
        12_000,
        {
            "`best`": ("best", {}),
            MIXTURE: ("mixture", OF_500),
            "`vamp` of 100": ("vamp", {}),
            "`vae`": ("vae", {}),
        },
    ),
    "ideas": Group(
        "Further ideas",
        12_000,
        {
            MIXTURE: ("mixture", OF_500),
            "2,000 Gaussians": ("mixture", {"components": 2000}),
            "learning rate 0.001": ("mixture", OF_500 | {"lr": 1e-3}),
            "beta rises over a quarter of the steps": ("mixture", OF_500 | {"warmup": 3000}),
            "layers of 512, SiLU": ("mixture", OF_500 | {"hidden": (512, 512), "activation": "silu"}),
            "half of the images mirrored": ("mixture", OF_500 | {"augment": "flip"}),
        },
    ),
    "longer": Group("Longer training", 60_000, {"`best`": ("best", {}), MIXTURE: ("mixture", OF_500)}),
    "grey": Group(
        "Likelihoods of grey values",
        3_000,
        {
            "discretised logistic": ("best", {"likelihood": "discretised-logistic"}),
            "mixture of 5 discretised logistics": ("best", {"likelihood": "logistic-mixture"}),
        },
    ),
}
WIDE: dict[str, Any] = {"hidden": (512, 512), "weight_decay": 0.05}
"""The settings of `measure --wide`, for long trainings."""
WIDE_WORDS = " --hidden 512 512 --weight-decay 0.05"
GREY = {"likelihood": "logistic-mixture"}
"""The likelihood of 8-bit grey values that `measure --grey` takes."""


def trained(out: Path, recipe: str, data: Any = "fashion-mnist", **options: Any) -> vk.Run:
    """The finished run in `out`, resumed if it was interrupted."""
    known = {"progress": False} | options
    return vk.fit(data, recipe, out=out, resume=(out / "run.json").exists(), **known)


def tried(group: Group, name: str, seed: int) -> None:
    """Train one setting and keep its scores."""
    recipe, options = group.settings[name]
    key = f"{name.replace(' ', '-').replace('%', '')}-{group.steps}-{seed}"
    kept = RUNS / "choice" / f"{key}.json"
    if kept.exists():
        return
    out = RUNS / key
    begun = time.process_time()
    run = trained(out, recipe, steps=group.steps, seed=seed, **options)
    seconds = time.process_time() - begun
    valid = per_datum(run, run.observed("valid"), SAMPLES, n=IMAGES)
    train = per_datum(run, run.observed("train"), 20, n=IMAGES)
    result = {"name": name, "steps": group.steps, "seed": seed, "cpu": seconds}
    result |= {"recipe": recipe, "options": options, "parameters": run.config["decided"]["parameters"]}
    result |= {"elbo": float(valid.elbo.mean()), "bound": float(valid.log_px.mean()), "rate": float(valid.rate.mean())}
    result |= {"train_elbo": float(train.elbo.mean()), "precision": run.config["decided"]["precision"]}
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, result)
    shutil.rmtree(out)
    print(result, flush=True)


def choice_table(group: Group, results: list[dict[str, Any]]) -> list[str]:
    """A row for each setting of the group, with its difference from the first one, paired by seed."""
    first, *_ = group.settings
    base = {r["seed"]: r for r in results if r["name"] == first}
    lines = [
        f"### {group.title}",
        "",
        f"After {group.steps:,} steps on one core.",
        "",
        "| setting | seeds | ELBO | IW-100 | IW-100 minus the first row's | training ELBO | rate | parameters |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in group.settings:
        own = [r for r in results if r["name"] == name]
        if not own:
            continue
        gap = (
            "0" if name == first else paired([r["bound"] - base[r["seed"]]["bound"] for r in own if r["seed"] in base])
        )
        row = [name, ", ".join(str(r["seed"]) for r in own)]
        row += [f"{mean(r[k] for r in own):.2f}" for k in ("elbo", "bound")]
        row += [gap, *(f"{mean(r[k] for r in own):{form}}" for k, form in (("train_elbo", ".2f"), ("rate", ".1f")))]
        lines.append(f"| {' | '.join(row)} | {own[0]['parameters']:,} |")
    return [*lines, ""]


def scored(
    run: vk.Run,
    samples: int,
    folder: Path | None = None,
    n: int | None = None,
    until: float = math.inf,
    compile: bool | None = None,
) -> dict[str, np.ndarray]:
    """ELBO, rate, distortion and bound of each test image; blocks of images that were scored before are kept.

    Arguments:
        folder: where blocks are kept, by default in the run.
        n: score the first n images only.
        until: the time of `time.monotonic()` at which the last block must end: the result then has fewer images.
            Every block is expected to take as long as the one before it. Empty if not even one block was scored.
        compile: as of `per_datum`.
    """
    folder = folder or run.path / f"scores-{samples}"
    folder.mkdir(exist_ok=True)
    observed = run.observed("test")
    parts: list[dict[str, np.ndarray]] = []
    most, last = min(observed.n, n or observed.n), 0.0
    for a in range(0, most, BLOCK):
        file = folder / f"{a}.npz"
        if not file.exists():
            begun = time.monotonic()
            if begun + last > until:
                break
            found = per_datum(run, observed, samples, rows=np.arange(a, min(a + BLOCK, most)), compile=compile)
            last = time.monotonic() - begun
            figures = {"elbo": found.elbo, "rate": found.rate, "distortion": found.distortion, "bound": found.log_px}
            partial = folder / "partial.npz"
            np.savez(partial, **figures, k_hat=found.k_hat, ess=found.ess)
            partial.rename(file)
            print(f"{a + len(found.elbo):,} images: {float(found.log_px.mean()):.2f} in the last {BLOCK}", flush=True)
        with np.load(file) as held:
            parts.append({name: held[name] for name in held.files})
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def averaged(found: dict[str, np.ndarray]) -> dict[str, float]:
    """Means of the scores with their standard errors, the lowest bound, and how often the weights have heavy tails."""
    row: dict[str, float] = {}
    for name in ("elbo", "rate", "distortion", "bound"):
        row[name], row[f"{name}_se"] = float(found[name].mean()), standard_error(found[name])
    return row | {"worst": float(found["bound"].min()), "high_k_hat": float((found["k_hat"] > 0.7).mean())}


def measured(recipe: str, minutes: float, seed: int, samples: int, grey: bool, wide: bool) -> None:
    """Train a recipe for some minutes and keep its scores of the test images."""
    key = f"{recipe}{'-wide' if wide else ''}{'-grey' if grey else ''}-{minutes:g}min-{seed}"
    run = trained(RUNS / key, recipe, minutes=minutes, seed=seed, **(GREY if grey else {}), **(WIDE if wide else {}))
    found = scored(run, samples)
    config = run.config
    row: dict[str, Any] = {"recipe": recipe, "minutes": minutes, "seed": seed, "samples": samples, "grey": grey}
    row |= {"wide": wide, "processor": processor()}
    row |= {"steps": config["step"], "seconds": config["seconds"], "images": len(found["bound"])}
    row |= {k: config["decided"][k] for k in ("parameters", "precision", "threads", "compile")}
    row |= averaged(found)
    if grey:
        row["bits"], row["bits_se"] = (abs(row[k]) / (PIXELS * math.log(2)) for k in ("bound", "bound_se"))
    else:
        row["draw"] = run.observed("test").draw_hash(len(found["bound"]))
    kept = RUNS / "measured" / f"{key}.json"
    kept.parent.mkdir(exist_ok=True)
    write_json(kept, row)
    print(row, flush=True)


def measured_table(rows: list[dict[str, Any]]) -> list[str]:
    """The test scores of every measured run."""
    lines = [
        "| recipe | minutes | cores | seed | steps | IW | ELBO | rate | distortion | lowest image | k-hat above 0.7 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda r: (r["minutes"], r["recipe"], r["seed"])):
        name = f"`{row['recipe']}{WIDE_WORDS if row.get('wide') else ''}`"
        cells = [name, f"{row['minutes']:g}", f"{row['threads']}, {row['processor']}", str(row["seed"])]
        cells.append(f"{row['steps']:,}")
        cells += [f"{row[k]:.2f} ± {row[f'{k}_se']:.2f}" for k in ("bound", "elbo", "rate", "distortion")]
        lines.append(f"| {' | '.join(cells)} | {row['worst']:.0f} | {row['high_k_hat']:.1%} |")
    return [*lines, ""]


def page(tries: list[dict[str, Any]], rows: list[dict[str, Any]], notes: list[str]) -> str:
    """The page, from the results of `choose` and of `measure`, and notes written by hand."""
    lines = [
        "# The frontier on Fashion-MNIST",
        "",
        "Made by `make bench-frontier`; the header of bench/frontier.py describes the protocol. Values are in",
        "[nats](glossary.md#nats) per image; ± is one [standard error](glossary.md#standard-error).",
        "",
    ]
    binary, grey = ([r for r in rows if r["grey"] is kind] for kind in (False, True))
    if binary:
        one = binary[0]
        lines += [
            "## Test images, binarised",
            "",
            "    vaekit fit fashion-mnist --recipe best --minutes 10",
            "",
            f"{one['images']:,} test images with one fixed [draw](glossary.md#draw) (SHA-256 begins",
            f"{one['draw'][:16]}), scored in fp32. *IW* is the [importance-weighted",
            f"bound](glossary.md#importance-weighted-bound) with {one['samples']:,} samples. Training took the given",
            "minutes of wall-clock time, start-up and compilation included. *Lowest image* is the smallest bound of",
            "an image. *k-hat* is the [shape of the tail](lessons/10-importance-sampling.md) of the importance",
            "weights; the column has the share of images for which it is above 0.7, so that their bound is",
            "unreliable.",
            "",
            *measured_table(binary),
            "Published IW-5000 of models trained on GPUs with dynamic binarisation (Norouzi et al. 2020,",
            "arXiv:2004.04795): VAE -228.70, VampPrior -227.35, Exemplar VAE -226.75.",
            "",
        ]
    if grey:
        one = grey[0]
        lines += [
            "## Test images, 8-bit grey values",
            "",
            "    vaekit fit fashion-mnist --recipe best --likelihood logistic-mixture --minutes 10",
            "",
            f"The {one['images']:,} test images as they are, integers from 0 to 255; given the code, each pixel is a",
            "mixture of 5 discretised logistics. Bits per dimension are -IW / (784 ln 2), with no dequantisation: log",
            f"p(x) is the log of a probability. IW has {one['samples']:,} samples.",
            "",
            "| recipe | minutes | seed | bits per dimension |",
            "|---|---|---|---|",
            *(
                f"| `{r['recipe']}` | {r['minutes']:g} | {r['seed']} | {r['bits']:.4f} ± {r['bits_se']:.4f} |"
                for r in grey
            ),
            "",
            *measured_table(grey),
        ]
    lines += [
        "## Choice of settings",
        "",
        f"ELBO, IW-{SAMPLES} and rate of the first {IMAGES:,} validation images (one binary draw), and the ELBO of as",
        "many training images, in nats: means over seeds that the test results above do not use. Differences are",
        "paired by seed, ± one standard error over seeds. `mixture` of 500 has a mixture of 500 Gaussians as the",
        "prior, `vamp` of 100 one of posteriors at 100 pseudo-inputs.",
        "",
    ]
    for group in GROUPS.values():
        own = [r for r in tries if r["name"] in group.settings and r["steps"] == group.steps]
        lines += choice_table(group, own) if own else []
    if notes:
        lines += ["### Notes", "", *(f"- {note}" for note in notes), ""]
    lines += [f"torch {torch.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores.", ""]
    return "\n".join(lines)


def write() -> None:
    """docs/frontier.json from the results of this machine and those stored there, and docs/frontier.md."""
    file = DOCS / "frontier.json"
    held = json.loads(file.read_text(encoding="utf8")) if file.exists() else {"tries": [], "measured": [], "notes": []}
    for part, folder, keys in (
        ("tries", "choice", ("name", "steps", "seed")),
        ("measured", "measured", ("recipe", "minutes", "seed", "grey", "wide", "samples")),
    ):
        found = {tuple(r.get(k) for k in keys): r for r in held[part]}
        for one in sorted((RUNS / folder).glob("*.json")):
            row = json.loads(one.read_text(encoding="utf8"))
            found[tuple(row.get(k) for k in keys)] = row
        held[part] = list(found.values())
    write_json(file, held)
    write_text(DOCS / "frontier.md", page(held["tries"], held["measured"], held["notes"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("choose", "measure", "page"))
    parser.add_argument("--set", nargs="+", default=list(GROUPS), choices=GROUPS, metavar="GROUP")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--recipe", default="best")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--wide", action="store_true", help="with the settings for long trainings")
    parser.add_argument("--grey", action="store_true", help="8-bit grey values instead of binary images")
    asked = parser.parse_args()
    if asked.what == "choose":
        for seed in asked.seeds:
            for group in (GROUPS[name] for name in asked.set):
                for name in group.settings:
                    if not asked.only or name in asked.only:
                        tried(group, name, seed)
    elif asked.what == "measure":
        measured(asked.recipe, asked.minutes, asked.seed, asked.samples, asked.grey, asked.wide)
    write()


if __name__ == "__main__":
    main()
