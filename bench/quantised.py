"""Discrete codes on Fashion-MNIST, binarised afresh at each step: why they lost, and what each quantiser reaches now.

    python bench/quantised.py [--minutes 10] [--seed 0] [NAME ...]    # ten minutes per row, 90 minutes for all of them
    python bench/quantised.py --minutes 2 "vq, nearest, grid" vq      # some rows, for a shorter time
    python bench/quantised.py --page                                  # writes the page from the rows that exist

Each row is one command's training, in its own process and with the run's own defaults, scored on the 10,000 test images
of the reference draw. It can be stopped and resumed: finished rows stay in docs/quantised.json, from which
docs/quantised.md is made; runs are kept in bench/.runs/quantised. The settings of the recipes were chosen on validation
images with the seed 11.

`nats of the draw` measures the cause: 200 test images are binarised 64 times each and encoded, and the entropy of a
code over the draws of one image is summed over its positions and averaged over images. It bounds from above the part of
the codes that tells the binary draw from others of the same image; codes that are drawn are read at their most probable
value.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vaekit as vk
from vaekit.metrics import per_datum, standard_error
from vaekit.models.quantised import QuantisedEncoder
from vaekit.noise import Noise
from vaekit.utils.files import read_json, write_json, write_text

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "quantised", HERE.parent / "docs"
DATA, SAMPLES, IMAGES, DRAWS = "fashion-mnist", 100, 200, 64
GOAL = -245.0
NEAREST = ["--posterior", "nearest"]
ROWS: dict[str, tuple[str, list[str]]] = {
    "vq, nearest, grid": ("vq", [*NEAREST, "--network", "grid"]),
    "fsq, nearest, grid": ("fsq", [*NEAREST, "--network", "grid"]),
    "vq, nearest, dense": ("vq", [*NEAREST, "--network", "dense", "--codes", "64"]),
    "vq": ("vq", []),
    "fsq": ("fsq", []),
    "residual-vq": ("residual-vq", []),
    "lfq": ("lfq", []),
    "simvq": ("simvq", []),
    "vq, masked prior": ("vq", ["--prior", "masked"]),
    "vq, independent prior": ("vq", ["--prior", "independent"]),
}
"""The rows: recipe and settings."""

PAGE = """# Discrete codes

`python bench/quantised.py` makes this page: recipes with discrete codes on Fashion-MNIST, binarised afresh at
each training step, and by the reference draw for the 10,000 test images. Nats per image, mean ± standard error
over images. Rows with the same time are comparable; a machine that does other work makes fewer steps.

{table}

## Why nearest codes lose

An encoder that takes the nearest entries is trained by the distortion alone, so nothing charges it for the rate;
the prior is fitted afterwards to the codes that it chose. Every pixel of the binary draw that the codes tell
lowers the distortion, so a grid of 49 codes tells as much of the draw as fits. The entropy of the draw given the
grey images is 189.87 nats on average (test set); a distortion below it is only possible if the codes tell at
least the difference in nats of noise, for which the prior pays. The column `nats of the draw` bounds the noise
in the codes from above.

## What ends it

With `--posterior stochastic`, the default for binary data, the encoder draws each code c with a probability
q(c|x) that falls with the distance of its entry (Takida et al. 2022), and the loss is the negative ELBO,

    E_q[-log p(x|c)] + E_q[sum_i KL(q(c_i|c_<i, x) || P(c_i|c_<i))],

which charges the encoder for the rate. The KL of each code is summed over all of its values, and the gradient of
the draws is that of ReinMax (Liu et al. 2023). Small images have dense networks with 16 codes, which make several
times as many steps in the same time as convolutions to a grid of 49.
"""


def trained(name: str, minutes: float, seed: int) -> vk.Run:
    """The finished run of a row."""
    recipe, settings = ROWS[name]
    path = RUNS / f"{name.replace(', ', '-').replace(' ', '-')}-{minutes:g}min-{seed}"
    command = [sys.executable, "-m", "vaekit", "fit", DATA, "--recipe", recipe, *settings]
    command += ["--minutes", str(minutes), "--seed", str(seed), "--out", str(path)]
    command += ["--resume"] if (path / "run.json").exists() else []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={"OMP_WAIT_POLICY": "ACTIVE", **os.environ})
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


def measured(name: str, minutes: float, seed: int) -> dict[str, Any]:
    """One row of the table."""
    run = trained(name, minutes, seed)
    posterior = run.model.posterior
    assert isinstance(posterior, QuantisedEncoder)
    scored = per_datum(run, run.observed("test"), SAMPLES if posterior.stochastic else 1)
    parts = {"elbo": scored.elbo, "rate": scored.rate, "distortion": scored.distortion, "iw": scored.log_px}
    row: dict[str, Any] = {"name": name, "minutes": minutes, "seed": seed}
    for part, values in parts.items():
        row[part], row[f"{part}_se"] = float(np.mean(values)), standard_error(values)
    use = {m["name"]: m["value"] for m in run.evaluate(metrics=["code_perplexity", "codes_used"], n=2000)}
    nats, agree = nats_of_the_draw(run)
    capacity = run.model.prior.net.positions * np.log(posterior.quantiser.codes)
    config = run.config
    return row | {
        "perplexity": use["code_perplexity"], "used": use["codes_used"], "codes": posterior.quantiser.codes,
        "positions": run.model.prior.net.positions, "capacity": float(capacity), "draw": nats, "agree": agree,
        "steps": config["step"], "parameters": config["decided"]["parameters"],
        "precision": config["decided"]["precision"], "threads": config["decided"]["threads"],
        "load": os.getloadavg()[1], "torch": torch.__version__, "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as Markdown."""
    lines = [
        "| row | minutes | seed | steps | ELBO | IW-100 | rate | distortion | nats of the draw | codes x values | "
        "perplexity | used |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        nats = " | ".join(f"{r[p]:.2f} ± {r[f'{p}_se']:.2f}" for p in ("elbo", "iw", "rate", "distortion"))
        lines.append(
            f"| `{r['name']}` | {r['minutes']:g} | {r['seed']} | {r['steps']:,} | {nats} | {r['draw']:.1f} | "
            f"{r['positions']} x {r['codes']} | {r['perplexity']:.1f} | {r['used']:.0%} |"
        )
    return lines


def write_page(rows: list[dict[str, Any]]) -> None:
    """Write docs/quantised.md."""
    ordered = sorted(rows, key=lambda r: (-r["minutes"], list(ROWS).index(r["name"]), r["seed"]))
    write_text(DOCS / "quantised.md", PAGE.format(table="\n".join(table(ordered))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"rows: {'; '.join(ROWS)}")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", action="store_true", help="only write the page again")
    given = parser.parse_args()
    unknown = set(given.names) - set(ROWS)
    if unknown:
        parser.error(f"unknown rows {', '.join(sorted(unknown))}; choose from {'; '.join(ROWS)}")
    file = DOCS / "quantised.json"
    rows: list[dict[str, Any]] = read_json(file) if file.exists() else []
    for name in [] if given.page else given.names or list(ROWS):
        key = name, given.minutes, given.seed
        if not any((r["name"], r["minutes"], r["seed"]) == key for r in rows):
            rows.append(measured(*key))
            write_json(file, rows)
            r = rows[-1]
            print(f"{name}: ELBO {r['elbo']:.2f} ({'reaches' if r['elbo'] > GOAL else 'misses'} {GOAL:g})", flush=True)
    write_page(rows)


if __name__ == "__main__":
    main()
