"""Compare all recipes on Fashion-MNIST after equal training time: `make bench-recipes`.

Trains each recipe for two minutes, and `vae` and the learned priors also for ten: about 100 minutes on 2 cores. It can
be stopped and resumed at any moment; runs are kept in bench/.runs/recipes and results in docs/recipes.json, from which
docs/recipes.md is made. Scores are paired by image with those of `vae` after the same time.

    python bench/recipes.py [--minutes 2] [--long 10] [--as-before] [NAME ...]

With --as-before, a recipe whose settings changed is trained for as many steps as its earlier row, instead of for the
minutes. On a busy machine this may take longer. The page says which recipes were trained this way.
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
from vaekit.metrics import per_datum, standard_error
from vaekit.noise import Noise
from vaekit.recipes import RECIPES
from vaekit.utils.files import write_json, write_text

HERE = Path(__file__).parent
RUNS = HERE / ".runs" / "recipes"
DOCS = HERE.parent / "docs"
DATA = "fashion-mnist"
LONG = ("vae", "mixture", "vamp", "flow-prior")
SAMPLES = 100
VARIANTS = {f"{name} --warmup 3000": (name, ["--warmup", "3000"]) for name in ("vae", "full-covariance")}
"""Further settings, measured to explain the results."""
OWN = {
    "kingma2013": "- `kingma2013` is the small network of the paper, with Adagrad and a prior on the weights.",
    "wake-sleep": "- `wake-sleep` trains its encoder on samples from the decoder, which does not maximise a bound.",
    "hierarchical": "- `hierarchical` has a second layer to learn, in fewer steps.",
}
"""Explanations from the theory of a recipe."""
COMMON = "Binary"
"""The observation of the main table; numbers for other observations are not comparable with it."""


def key(name: str, minutes: float) -> str:
    return f"{name.replace(' --', '-').replace(' ', '-')}-{minutes:g}min"


def trained(name: str, minutes: float, before: dict[str, Any] | None = None) -> vk.Run:
    """The finished run of this recipe, trained in a separate process for these minutes, or like the row `before`."""
    path = RUNS / key(name, minutes)
    recipe, settings = VARIANTS.get(name, (name, []))
    length = ["--minutes", str(minutes)]
    if before:
        length = ["--steps", str(before["steps"]), "--precision", before["precision"]]
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


def measured(name: str, minutes: float, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """One row of the table; with the same steps and start as the row `before` it, if that is given."""
    run = trained(name, minutes, before)
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
    if before:
        row |= {"same_steps": True, "started": before["started"], "seconds": before["seconds"]}
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
    reference = RUNS / key("vae", minutes) / f"scores-iw{SAMPLES}.npy"
    if row["observation"] == COMMON and reference.exists():
        difference = log_px - np.load(reference)
        row["to_vae"], row["to_vae_se"] = float(difference.mean()), standard_error(difference)
    return row


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
    other = [n for n in ("beta", "tc", "dip", "info", "annealed") if n in below and n not in slow]
    listed = lambda names: ", ".join(f"`{n}`" for n in names)  # noqa: E731
    lines = [
        "",
        "## Why some recipes are below `vae`",
        "",
        f"- Slower steps: {listed(slow)} took less than half as many steps as `vae` ({steps:,}) in the same time.",
        f"- Another objective: {listed(other)} trade log p(x) for the other terms of their loss.",
    ]
    lines += [text for name, text in OWN.items() if name in below]
    coded = {n: short[n] for n in ("vq", "fsq") if n in short and short[n]["distortion"] < -floor}
    if coded:
        distortions = " and ".join(f"{r['distortion']:.0f}" for r in coded.values())
        lines += [
            f"- {listed(coded)}, with the nearest codes: the loss of their encoder does not penalise the rate. Their",
            f"  distortions ({distortions} nats) are below the entropy of the draw ({-floor:.0f}), so the codes store",
            "  its noise, and the rate under the prior is high. [Drawn codes](quantised.md) are charged for it.",
        ]
    warm, cold = (short.get(f"full-covariance{end}") for end in (" --warmup 3000", ""))
    if warm and cold and "vae --warmup 3000" in short:
        lines += [
            "- The richer posteriors (`full-covariance`, `nsf`, `iaf`) include the diagonal one; a lower score comes",
            "  from training. Early on, they give up latent directions that the decoder does not use yet:",
            f"  `full-covariance` ends with a rate of {cold['rate']:.1f} nats, `vae` with {short['vae']['rate']:.1f}.",
            f"  A KL warm-up of 3,000 steps prevents this: the rate rises to {warm['rate']:.1f}, and the difference",
            f"  from `vae` goes from {cold['to_vae']:+.2f} to {warm['to_vae']:+.2f}. `vae` itself gains",
            f"  {short['vae --warmup 3000']['to_vae']:+.2f} from the warm-up.",
        ]
    return lines


def write(rows: dict[str, dict[str, Any]]) -> None:
    """Write docs/recipes.json and the page made from it."""
    write_json(DOCS / "recipes.json", rows)
    first = next(iter(rows.values()))
    floor = -189.869
    lines = [
        "# Every recipe on Fashion-MNIST",
        "",
        "Made by `make bench-recipes`. Each [recipe](glossary.md#recipe) is trained with its defaults for the same",
        # The stored results; delete this sentence when they are measured again.
        f"wall-clock time, compilation included, on {first['threads']} cores. All rows were measured with the former "
        "defaults:",
        "`--lr 0.001 --schedule cosine --beta2 0.999` for dense networks, and, except where `--warmup` is named,",
        "`--warmup 0`.",
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
    former = [f"- `{row['recipe']}`: {row['former']}." for row in rows.values() if "former" in row]
    if former:
        lines += ["", "Rows that were measured with former defaults of their own, and differ today:", "", *former]
    lines += why(rows, floor)
    for row in rows.values():
        if "corrupted_distortion" in row:
            lines += [
                "",
                f"`{row['recipe']}` has a distortion of {row['distortion']:.2f} when it encodes clean images, which it",
                "never sees in training: the masked images of its training are darker. When it encodes images that are",
                f"corrupted as in training, its distortion is {row['corrupted_distortion']:.2f}.",
            ]
    again = sorted({f"`{r['recipe']}`" for r in rows.values() if r.get("same_steps")})
    if again:
        lines += [
            "",
            f"Measured again with the same steps, after a change of settings: {', '.join(again)}. Their",
            "difference from `vae` needs its run and was not measured.",
        ]
    loads = [r["load"] for r in rows.values()]
    lines += [
        "",
        f"torch {first['torch']}, Python {first['python']}. The machine's load average during the runs was",
        f"{min(loads):.1f} to {max(loads):.1f}. `recipes.json` has the settings and date of every row.",
        "",
    ]
    write_text(DOCS / "recipes.md", "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="recipes to measure; default: all")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--long", type=float, default=10.0, help=f"minutes for {', '.join(LONG)}; 0: skip")
    parser.add_argument("--as-before", action="store_true", help="train for the number of steps of the existing rows")
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
        before = rows.get(key(name, minutes)) if asked.as_before else None
        row = rows[key(name, minutes)] = measured(name, minutes, before)
        score = row.get("log_px_iw", row["distortion"])
        print(f"{name}: {score:.2f} after {row['steps']:,} steps", flush=True)
        write(rows)


if __name__ == "__main__":
    main()
