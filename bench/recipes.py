"""Every recipe on Fashion-MNIST after the same time of training: `make bench-recipes`.

Two minutes a recipe, and ten for `vae` and the learned priors: a little over an hour and a half on 2 cores. It can be
stopped and gone on with at any moment: runs are kept in bench/.runs/recipes, results in docs/recipes.json, from which
docs/recipes.md is made. Scores are paired by image with those of `vae` after the same time.

    python bench/recipes.py [--minutes 2] [--long 10] [NAME ...]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vaekit as vk
from vaekit.files import write_json, write_text
from vaekit.metrics import per_datum, standard_error
from vaekit.noise import Noise
from vaekit.recipes import RECIPES

HERE = Path(__file__).parent
RUNS = HERE / ".runs" / "recipes"
DOCS = HERE.parent / "docs"
DATA = "fashion-mnist"
LONG = ("vae", "mixture", "vamp", "flow-prior")
SAMPLES = 100
VARIANTS = {f"{name} --warmup 3000": (name, ["--warmup", "3000"]) for name in ("vae", "full-covariance")}
"""Other settings, measured to find out why a recipe does as it does."""
OWN = {
    "kingma2013": "- `kingma2013` is the paper's small net with its Adagrad and its prior on the weights.",
    "wake-sleep": "- `wake-sleep` trains its encoder on the decoder's dreams: no bound is maximised by it.",
    "hierarchical": "- `hierarchical` has a second layer to learn, and fewer steps to do it in.",
}
"""What else a recipe's theory says of its place."""
COMMON = "Binary"
"""The observation whose figures stand beside one another."""


def key(name: str, minutes: float) -> str:
    return f"{name.replace(' --', '-').replace(' ', '-')}-{minutes:g}min"


def trained(name: str, minutes: float) -> vk.Run:
    """The finished run of this recipe, trained in a process of its own."""
    path = RUNS / key(name, minutes)
    recipe, settings = VARIANTS.get(name, (name, []))
    command = [sys.executable, "-m", "vaekit", "fit", DATA, "--recipe", recipe, "--minutes", str(minutes), *settings]
    if (path / "run.json").exists():
        command += ["--resume"]
    # threads wait for one another as on a free machine, although the run before this one still counts as load
    environment = {"OMP_WAIT_POLICY": "ACTIVE", **os.environ}
    with tempfile.TemporaryDirectory() as cache:  # every step is compiled anew, as for who trains it the first time
        environment["TORCHINDUCTOR_CACHE_DIR"] = cache
        subprocess.run([*command, "--out", str(path)], check=True, stdout=subprocess.DEVNULL, env=environment)
    return vk.open(path)


def scores(run: vk.Run) -> np.ndarray:
    """IW-100 of each of the test images, (10000,)."""
    file = run.path / f"scores-iw{SAMPLES}.npy"
    if not file.exists():
        scored = per_datum(run, run.observed("test"), SAMPLES)
        np.savez(file.with_suffix(".npz"), elbo=scored.elbo, rate=scored.rate, distortion=scored.distortion)
        np.save(file, scored.log_px)
    return np.load(file)


def spoilt(run: vk.Run, spoil: Any) -> float:
    """The distortion of test images that were encoded as in training: spoilt."""
    found = []
    with torch.no_grad():
        for rows, x, _ in run.observed("test").batches(None, None):
            z = run.model.encode(spoil(x, Noise.of(0, torch.from_numpy(rows), 1)))
            found.append(-run.model.decode(z).log_prob(x))
    return float(torch.cat(found).mean())


def measured(name: str, minutes: float) -> dict[str, Any]:
    """One row of the table."""
    run = trained(name, minutes)
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
        "load": os.getloadavg()[1],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }
    if run.model.no_density is not None:
        (found,) = run.evaluate("test", metrics=["distortion"])
        row |= {"distortion": found["value"], "distortion_se": found["se"], "protocol": found["protocol"]}
        spoil = run.composition.objective.corruption
        return row if spoil is None else row | {"spoilt_distortion": spoilt(run, spoil)}
    log_px = scores(run)
    with np.load(run.path / f"scores-iw{SAMPLES}.npz") as held:
        for part in ("elbo", "rate", "distortion"):
            row[part], row[f"{part}_se"] = float(held[part].mean()), standard_error(held[part])
    row["log_px_iw"], row["log_px_iw_se"] = float(log_px.mean()), standard_error(log_px)
    reference = RUNS / key("vae", minutes) / f"scores-iw{SAMPLES}.npy"
    if row["observation"] == COMMON and reference.exists():
        difference = log_px - np.load(reference)
        row["to_vae"], row["to_vae_se"] = float(difference.mean()), standard_error(difference)
    return row


def table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| recipe | steps | begun, s | parameters | ELBO | IW-100 | rate | distortion | IW-100 minus `vae` |",
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
    """Where a recipe is below `vae` after the short time, and for what reason; numbers from the rows."""
    short = {r["recipe"]: r for r in rows.values() if r["minutes"] == min(r["minutes"] for r in rows.values())}
    surely = lambda r: r.get("to_vae", 0.0) < -3 * r.get("to_vae_se", np.inf)  # noqa: E731  (some 40 are compared)
    below = sorted((n for n, r in short.items() if surely(r)), key=lambda n: short[n]["to_vae"])
    steps = short["vae"]["steps"]
    slow = [n for n in below if short[n]["steps"] < steps / 2]
    other = [n for n in ("beta", "tc", "dip", "info", "annealed") if n in below and n not in slow]
    listed = lambda names: ", ".join(f"`{n}`" for n in names)  # noqa: E731
    lines = [
        "",
        "## Where a recipe is below `vae`, and why",
        "",
        f"- Dearer steps: {listed(slow)} did less than half of the {steps:,} steps that `vae` did in the same time.",
        f"- Another objective than the bound: {listed(other)} trade log p(x) for what they weigh besides it.",
    ]
    lines += [text for name, text in OWN.items() if name in below]
    coded = {n: short[n] for n in ("vq", "fsq") if n in short}
    if coded:
        told = " and ".join(f"{r['distortion']:.0f}" for r in coded.values())
        lines += [
            f"- {listed(coded)}: nothing charges their encoder for the rate. Their distortions ({told} nats) lie below",
            f"  the entropy {-floor:.0f} of the draw: the codes hold its noise, which the prior then pays for.",
        ]
    warm, cold = (short.get(f"full-covariance{end}") for end in (" --warmup 3000", ""))
    if warm and cold and "vae --warmup 3000" in short:
        lines += [
            "- Richer posteriors (`full-covariance`, `nsf`, `iaf`) contain the diagonal one and can be below it only",
            f"  by where training ends: `full-covariance` keeps a rate of {cold['rate']:.1f} nats, `vae`",
            f"  {short['vae']['rate']:.1f}. Directions of the latent space that carry nothing early on are given up",
            "  before the decoder has learned to use them. A KL that is warmed up over 3,000 steps keeps them: the",
            f"  difference to `vae` goes from {cold['to_vae']:+.2f} to {warm['to_vae']:+.2f}, the rate to",
            f"  {warm['rate']:.1f}; `vae` itself gains {short['vae --warmup 3000']['to_vae']:+.2f} by it.",
        ]
    return lines


def write(rows: dict[str, dict[str, Any]]) -> None:
    """docs/recipes.json, and the page made from it."""
    write_json(DOCS / "recipes.json", rows)
    some = next(iter(rows.values()))
    floor = -189.869
    lines = [
        "# Every recipe on Fashion-MNIST",
        "",
        "Made by `make bench-recipes`: each recipe with its defaults for the same time on the clock, compilation",
        f"included, on {some['threads']} cores. Binarised images (`Binary`), the reference draw of the 10,000 test",
        "images; nats an image; ELBO and IW-100 (the importance-weighted bound of 100 samples) scored in fp32, with",
        "the standard error of the mean over images. No model can be expected above the entropy of the draw,",
        f"{floor} nats. The last column is the mean difference to `vae` on the same images with its own standard",
        "error, which is far smaller than that of either figure. A model without a density has a distortion only.",
        "",
        "Two minutes measure how fast a recipe learns here as much as how good it is: `steps` says how far it came,",
        "and `begun` after how many seconds the first 50 steps were done, nearly all of it compiling.",
    ]
    for minutes in sorted({r["minutes"] for r in rows.values()}):
        lines += ["", f"## After {minutes:g} minutes", ""]
        these = [r for r in rows.values() if r["minutes"] == minutes]
        lines += table([r for r in these if r.get("observation", COMMON) == COMMON])
        if other := [r for r in these if r.get("observation", COMMON) != COMMON]:
            lines += ["", "Densities of the grey values 0 to 255, another x, not to be held against the others:", ""]
            lines += table(other)
    lines += why(rows, floor)
    for row in rows.values():
        if "spoilt_distortion" in row:
            lines += [
                "",
                f"`{row['recipe']}` has its distortion of {row['distortion']:.2f} on clean images, which it never saw",
                "in training: masking makes them darker. Of images that were spoilt as in training its distortion is",
                f"{row['spoilt_distortion']:.2f}.",
            ]
    loads = [r["load"] for r in rows.values()]
    lines += [
        "",
        f"torch {some['torch']}, Python {some['python']}; the machine's load average over these runs was",
        f"{min(loads):.1f} to {max(loads):.1f}; every row with its settings and date is in `recipes.json`.",
        "",
    ]
    write_text(DOCS / "recipes.md", "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="recipes to measure; all when none is named")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--long", type=float, default=10.0, help=f"minutes for {', '.join(LONG)}; 0 for none")
    asked = parser.parse_args()
    names = asked.names or ["vae", *sorted(n for n in RECIPES if n != "vae")]
    plan = [(n, asked.minutes) for n in names]
    plan += [(n, asked.minutes) for n in VARIANTS if not asked.names]
    if asked.long:
        plan += [(n, asked.long) for n in LONG if not asked.names or n in asked.names]
    file = DOCS / "recipes.json"
    rows: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf8")) if file.exists() else {}
    for name, minutes in plan:
        if key(name, minutes) in rows and not asked.names:
            continue
        print(f"{name}, {minutes:g} minutes ...", flush=True)
        row = rows[key(name, minutes)] = measured(name, minutes)
        found = row.get("log_px_iw", row["distortion"])
        print(f"{name}: {found:.2f} after {row['steps']:,} steps", flush=True)
        write(rows)


if __name__ == "__main__":
    main()
