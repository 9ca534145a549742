"""Discrete codes on Fashion-MNIST, binarised afresh at each step: what each quantiser reaches, and with which prior.

    python bench/quantised.py [--minutes 10] [--seed 0] [NAME ...]      # ten minutes of one core per row
    python bench/quantised.py choose [--seconds 75] [--seed 10] [CASE ...]
    python bench/quantised.py page                                      # writes the page from what was measured

Each row is one command's training with one thread, with the run's own defaults, scored on the 10,000 test images of the
reference draw with one thread. Rows are independent of each other: pin each to a core of its own (`taskset -c 0 python
bench/quantised.py vq`) and run as many at a time as the machine has idle cores. Everything can be stopped and resumed:
runs and finished rows are kept in bench/.runs/quantised, and collected in docs/quantised.json, from which
docs/quantised.md is made.

`choose` trains `vq` with each prior over codes, and the other recipes with the one that was chosen, for equal time of
one core, and scores them on validation images: settings are chosen with the seeds 10 and 11, and measured with others.
The steps that fit in the time are those of a timing in which all cases alternate, so that other programs favour none.

`nats of the draw` measures why nearest codes lose: 200 test images are binarised 64 times each and encoded, and the
entropy of a code over the draws of one image is summed over its positions and averaged over images. It bounds from
above the part of the codes that tells the binary draw from others of the same image; codes that are drawn are read at
their most probable value.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ladder
import numpy as np
import torch

import vaekit as vk
from vaekit.metrics import per_datum, standard_error
from vaekit.models.quantised import QuantisedEncoder
from vaekit.noise import Noise
from vaekit.utils.files import read_json, write_json, write_text

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "quantised", HERE.parent / "docs"
DATA, SAMPLES, IMAGES, DRAWS = "fashion-mnist", 50, 200, 64
GOAL = -245.0
NEAREST = ["--posterior", "nearest", "--network", "dense", "--codes", "64", "--prior", "masked"]
ROWS: dict[str, tuple[str, list[str]]] = {
    "vq": ("vq", []),
    "fsq": ("fsq", []),
    "residual-vq": ("residual-vq", []),
    "lfq": ("lfq", []),
    "simvq": ("simvq", []),
    "vq, nearest": ("vq", NEAREST),
    "vae": ("vae", []),
    "vq, independent prior": ("vq", ["--prior", "independent"]),
}
"""The rows: recipe and settings."""
Cases = dict[str, tuple[str, dict[str, Any]]]
PRIORS: Cases = {
    "independent": ("vq", {"prior": "independent"}),
    "masked": ("vq", {"prior": "masked"}),
    "masked, width 512": ("vq", {"prior": "masked", "width": 512}),
    "transformer": ("vq", {"prior": "autoregressive"}),
    "transformer, 1 layer": ("vq", {"prior": "autoregressive", "layers": 1}),
}
"""The priors to choose from: recipe and options."""
RECIPES: Cases = {name: (name, {}) for name in ("fsq", "residual-vq", "lfq", "simvq")}
"""The recipes that are checked with the chosen prior."""
CASES = PRIORS | RECIPES
VALIDATED, FEW = 5000, 20
"""Validation images that `choose` scores, and draws of their codes."""

PAGE = """# Discrete codes

`python bench/quantised.py` makes this page: recipes with discrete codes on Fashion-MNIST, binarised afresh at
each training step, and by the reference draw for the 10,000 test images. Numbers are in [nats](glossary.md#nats)
per image, mean ± standard error over images; the ELBO and IW-{samples} are from {samples} draws of the codes per
image. Each row has one core and one thread for its minutes. *Codes x values* is the number of codes per image and
of values that a code can take; *used* is the share of these values that occur, and *perplexity* how many equally
frequent values they are worth. `vq, nearest` has the same networks, number of codes and prior as `vq`, but its
codes are the nearest entries of the [codebook](glossary.md#codebook).

{table}

## Why nearest codes lose

An encoder that takes the nearest entries is trained by the distortion alone, so nothing charges it for the rate;
the prior is fitted afterwards to the codes that it chose. Every pixel of the binary draw that the codes describe
lowers the distortion, so a grid of 49 codes describes as much of the draw as fits. The entropy of the draw given
the grey images is 189.87 nats on average (test set). A distortion below it is only possible if the codes contain at
least the difference in nats of noise, and this noise adds to the rate. The column *nats of the draw* is an upper
bound of the noise in the codes.

## The remedy: codes drawn at random

With `--posterior stochastic`, the default for binary data, the encoder draws each code c with a probability
q(c|x) that falls with the distance of its entry (Takida et al. 2022), and the loss is the negative ELBO,

    E_q[-log p(x|c)] + E_q[sum_i KL(q(c_i|c_<i, x) || P(c_i|c_<i))],

which charges the encoder for the rate. The KL of each code is summed over all of its values, and the gradient of
the draws is that of ReinMax (Liu et al. 2023). Small images have dense networks with 16 codes, which make several
times as many steps in the same time as convolutions to a grid of 49.

## Which prior

`python bench/quantised.py choose` trains `vq` with each prior for the same time on one core (as many eager steps as
fit, by the milliseconds per step), and scores {validated:,} validation images with {few} draws each. The prior is
chosen with these seeds; the results above are those of other seeds. The last rows are the other recipes with the
chosen prior.

{choices}

The validation ELBO during training, at equal numbers of steps (2,000 images, averaged weights):

{courses}

The masked network (MADE) is the default where dense networks draw the codes. A prior that lets codes depend on
each other helps most at the start: at equal steps, its ELBO is higher than that of an independent one by 12 nats
after 500 steps and by 3 after 3,000, with a lower rate. Compared with a step with an independent prior, one with
the masked network takes 15% longer, one with a transformer of one layer 68% longer, and of two layers 125% longer.
At equal steps, the transformer is not better than the masked network: the meaning of a code of dense networks
depends on its position, and the masked network has weights of its own for each position, whereas a transformer
shares them. Codes on a grid, whose positions are alike, keep the transformer.
"""


# --- rows -------------------------------------------------------------------------------------------------------


def folder(name: str, minutes: float, seed: int) -> Path:
    """Where the run of a row is kept, and its row.json."""
    return RUNS / f"{name.replace(', ', '-').replace(' ', '-')}-{minutes:g}min-{seed}"


def trained(name: str, minutes: float, seed: int) -> vk.Run:
    """The finished run of a row, trained in a process of its own with one thread."""
    recipe, settings = ROWS[name]
    path = folder(name, minutes, seed)
    command = [sys.executable, "-m", "vaekit", "fit", DATA, "--recipe", recipe, *settings]
    command += ["--minutes", str(minutes), "--seed", str(seed), "--out", str(path)]
    command += ["--resume"] if (path / "run.json").exists() else []
    with tempfile.TemporaryDirectory() as cache:  # an empty cache of compiled steps, as in a first run
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": cache}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return vk.open(path)


@torch.no_grad()
def nats_of_the_draw(run: vk.Run) -> tuple[float, float]:
    """Entropy of the codes over draws of one image, summed over positions, and the share of codes that two draws share.

    Both are means over images; the entropy in nats.
    """
    raw = torch.as_tensor(run.observed("test").raw(np.arange(IMAGES)))
    posterior = run.model.posterior
    draws = [run.composition.observation(raw, Noise.of(seed, IMAGES, 7)) for seed in range(DRAWS)]
    codes = torch.stack([posterior(x).codes for x in draws])  # (DRAWS, IMAGES, P)
    counts = torch.nn.functional.one_hot(codes, int(codes.max()) + 1).sum(0)
    shares = counts / DRAWS
    entropy = -torch.xlogy(shares, shares).sum(-1)
    return float(entropy.sum(-1).mean()), float((codes[::2] == codes[1::2]).float().mean())


def bounds(run: vk.Run, part: str, samples: int, n: int | None = None) -> dict[str, float]:
    """ELBO, rate, distortion and importance-weighted bound: means over the images of a part, and standard errors."""
    posterior = run.model.posterior
    nearest = isinstance(posterior, QuantisedEncoder) and not posterior.stochastic
    scored = per_datum(run, run.observed(part), 1 if nearest else samples, n=n)
    found: dict[str, float] = {}
    for kind, values in (
        ("elbo", scored.elbo), ("rate", scored.rate), ("distortion", scored.distortion), ("iw", scored.log_px),
    ):  # fmt: skip
        found[kind], found[f"{kind}_se"] = float(np.mean(values)), standard_error(values)
    return found


def use_of_codes(run: vk.Run) -> dict[str, Any]:
    """How many codes a row has, and how they are used; nothing for a model without codes."""
    posterior = run.model.posterior
    if not isinstance(posterior, QuantisedEncoder):
        return {}
    use = {m["name"]: m["value"] for m in run.evaluate(metrics=["code_perplexity", "codes_used"], n=2000)}
    nats, agree = nats_of_the_draw(run)
    positions, codes = run.model.prior.net.positions, posterior.quantiser.codes
    return {
        "perplexity": use["code_perplexity"], "used": use["codes_used"], "codes": codes, "positions": positions,
        "capacity": float(positions * np.log(codes)), "draw": nats, "agree": agree,
        "prior": type(run.model.prior.net).__name__,
    }  # fmt: skip


def measured(name: str, minutes: float, seed: int) -> dict[str, Any]:
    """One row of the table, stored beside its run."""
    file = folder(name, minutes, seed) / "row.json"
    if file.exists():
        return read_json(file)
    run = trained(name, minutes, seed)
    started = time.monotonic()
    row = {"name": name, "minutes": minutes, "seed": seed, "samples": SAMPLES, **bounds(run, "test", SAMPLES)}
    scoring = time.monotonic() - started
    decided = run.config["decided"]
    row |= use_of_codes(run) | {
        "steps": run.config["step"], "parameters": decided["parameters"], "precision": decided["precision"],
        "compiled": decided["compile"], "threads": decided["threads"], "scoring": scoring,
        "load": os.getloadavg()[1], "torch": torch.__version__, "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    write_json(file, row)
    return row


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as Markdown."""
    lines = [
        f"| row | minutes | seed | steps | ELBO | IW-{SAMPLES} | rate | distortion | nats of the draw | "
        "codes x values | perplexity | used |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        nats = " | ".join(f"{r[p]:.2f} ± {r[f'{p}_se']:.2f}" for p in ("elbo", "iw", "rate", "distortion"))
        codes = (
            f"{r['draw']:.1f} | {r['positions']} x {r['codes']} | {r['perplexity']:.1f} | {r['used']:.0%}"
            if "codes" in r
            else "- | - | - | -"
        )
        lines.append(f"| `{r['name']}` | {r['minutes']:g} | {r['seed']} | {r['steps']:,} | {nats} | {codes} |")
    return lines


# --- the choice of the prior ------------------------------------------------------------------------------------


def timed(cases: Cases, file: Path, rounds: int = 9) -> dict[str, float]:
    """Milliseconds of an eager step of each case with one thread: the medians of rounds in which all alternate."""
    if not file.exists():
        RUNS.mkdir(parents=True, exist_ok=True)
        _, times = ladder.timed({name: (HERE.parent / "src", *case) for name, case in cases.items()}, rounds)
        write_json(file, {name: float(np.median(found)) for name, found in times.items()})
    return read_json(file)


def choose(name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Train a case for equal time and score it on validation images; with its course in training."""
    recipe, options = CASES[name]
    out = RUNS / f"choice-{name.replace(', ', '-').replace(' ', '-')}-{seconds:g}s-{seed}"
    file = out / "row.json"
    if file.exists():
        return read_json(file)
    ms = timed(*((PRIORS, RUNS / "ms-priors.json") if name in PRIORS else (RECIPES, RUNS / "ms-recipes.json")))[name]
    steps = max(1, round(1000 * seconds / ms))
    run = vk.fit(
        DATA, recipe, out=out, steps=steps, seed=seed, compile="off", progress=False, exists="resume", **options
    )
    course = [{k: r[k] for k in ("step", "elbo", "rate")} for r in run.log if r["kind"] == "valid"]
    row = {"name": name, "seconds": seconds, "seed": seed, "ms": ms, "steps": steps, "course": course}
    row |= bounds(run, "valid", FEW, VALIDATED)
    write_json(file, row)
    return row


def choices(rows: list[dict[str, Any]]) -> list[str]:
    """The rows of `choose` as Markdown."""
    lines = [
        "| case | seconds | seed | ms per step | steps | ELBO | rate | distortion |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        nats = " | ".join(f"{r[p]:.2f}" for p in ("elbo", "rate", "distortion"))
        lines.append(f"| {r['name']} | {r['seconds']:g} | {r['seed']} | {r['ms']:.1f} | {r['steps']:,} | {nats} |")
    return lines


def courses(rows: list[dict[str, Any]]) -> list[str]:
    """The validation ELBO of each case during training, every 500 steps, as Markdown."""
    steps = range(500, 4001, 500)
    lines = ["| case | seed | " + " | ".join(f"{s:,}" for s in steps) + " |", "|---" * (len(steps) + 2) + "|"]
    for r in rows:
        at = {c["step"]: f"{c['elbo']:.1f}" for c in r["course"]}
        lines.append(f"| {r['name']} | {r['seed']} | " + " | ".join(at.get(s, "") for s in steps) + " |")
    return lines


# --- the page ---------------------------------------------------------------------------------------------------


def collect() -> None:
    """Write docs/quantised.json from its rows and those beside runs, which replace older ones, and the page."""
    file = DOCS / "quantised.json"
    RUNS.mkdir(parents=True, exist_ok=True)
    with (RUNS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other rows may end at the same time
        kept = read_json(file)
        for path in sorted(RUNS.glob("*/row.json")):
            row = read_json(path)
            part, key = ("rows", "minutes") if "minutes" in row else ("choices", "seconds")
            same = [(row["name"], row[key], row["seed"]) == (r["name"], r[key], r["seed"]) for r in kept[part]]
            kept[part] = [r for r, s in zip(kept[part], same, strict=True) if not s] + [row]
        rows = [r for r in kept["rows"] if r["name"] in ROWS]
        rows.sort(key=lambda r: (-r["minutes"], list(ROWS).index(r["name"]), r["seed"]))
        cases = [r for r in kept["choices"] if r["name"] in CASES]
        cases.sort(key=lambda r: (r["name"] in RECIPES, -r["seconds"], list(CASES).index(r["name"]), r["seed"]))
        write_json(file, {"rows": rows, "choices": cases})
        parts = {"table": table(rows), "choices": choices(cases), "courses": courses(cases)}
        joined = {name: "\n".join(lines) for name, lines in parts.items()}
        write_text(DOCS / "quantised.md", PAGE.format(samples=SAMPLES, validated=VALIDATED, few=FEW, **joined))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"rows ({'; '.join(ROWS)}), `choose` or `page`")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=75, help="of each case of `choose`")
    parser.add_argument("--seed", type=int, help="0, or 10 for `choose`")
    given = parser.parse_intermixed_args()
    command, names = (
        (given.names[0], given.names[1:]) if given.names[:1] in (["choose"], ["page"]) else ("", given.names)
    )
    among = CASES if command else ROWS
    if unknown := set(names) - set(among):
        parser.error(f"unknown names {', '.join(sorted(unknown))}; choose from {'; '.join(among)}")
    torch.set_num_threads(1)
    for name in () if command == "page" else names or among:
        if command:
            row = choose(name, given.seconds, 10 if given.seed is None else given.seed)
        else:
            row = measured(name, given.minutes, given.seed or 0)
        says = "reaches" if row["elbo"] > GOAL else "misses"
        print(f"{name}: {row['steps']:,} steps, ELBO {row['elbo']:.2f} ({says} {GOAL:g})", flush=True)
        collect()
    collect()


if __name__ == "__main__":
    main()
