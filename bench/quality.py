"""Measure the default recipe on Fashion-MNIST, and bf16 against fp32: `make bench-quality`.

Takes about an hour on 2 idle cores. Resumable; runs are kept in bench/.runs. Writes docs/quality.md.
"""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import torch

import vaekit as vk
from vaekit.metrics import per_datum, standard_error

HERE = Path(__file__).parent
RUNS = HERE / ".runs"
DATA = "fashion-mnist"
SEEDS = (0, 1, 2)
STEPS = 20_000  # for each of the six runs of the bf16 comparison


def trained(name: str, **options) -> vk.Run:
    """The finished run of this name; trains it if it is missing."""
    path = RUNS / name
    return vk.fit(DATA, "vae", out=path, resume=(path / "run.json").exists(), **options)


def headline() -> tuple[vk.Run, dict[str, dict]]:
    run = trained("vae-10min", minutes=10)
    known = {(m["name"], m["protocol"].get("K"), m["protocol"]["n"]): m for m in run.metrics}
    if ("log_px_iw", 500, 10000) not in known:
        run.evaluate("test", samples=500)
    return run, {m["name"]: m for m in run.metrics if m["protocol"].get("K") in (500, None)}


def scores(run: vk.Run) -> np.ndarray:
    """IW-100 of each test image."""
    file = run.path / "scores-iw100.npy"
    if not file.exists():
        np.save(file, per_datum(run, run.observed("test"), 100).log_px)
    return np.load(file)


def main() -> None:
    run, metrics = headline()
    lines = [
        "# Quality on Fashion-MNIST",
        "",
        "Made by `make bench-quality`. Training images are binarised again at every step. The 10,000 test images use",
        f"one fixed binary draw (SHA-256 begins {metrics['elbo']['protocol']['draw'][:16]}) and are scored in fp32.",
        "Log-probabilities are in [nats](glossary.md#nats) per image. [Rate](glossary.md#rate) is the KL term and",
        "[distortion](glossary.md#distortion) the reconstruction term of the [ELBO](glossary.md#elbo). The",
        # The stored results; delete this sentence when they are measured again.
        "[glossary](glossary.md) defines the other quantities. The model was trained with the",
        "former defaults (now `--lr 0.001 --schedule cosine --beta2 0.999 --warmup 0`).",
        "",
        "| quantity | value | standard error | estimator |",
        "|---|---|---|---|",
    ]
    for name in ("elbo", "rate", "distortion", "log_px_iw", "bits_per_dim", "ess", "active_units", "entropy_floor"):
        m = metrics[name]
        se = "" if m["se"] is None else f"{m['se']:.3f}"
        value = m["value"] if isinstance(m["value"], int) else f"{m['value']:.3f}"
        lines.append(f"| {name} | {value} | {se} | {m['protocol']['estimator']} |")
    decided, config = run.config["decided"], run.config
    lines += [
        "",
        f"Recipe `vae` with its defaults. Requested time: {config['training']['minutes']:g} minutes; used:",
        f"{config['seconds']:.0f} s, {config['step']:,} steps with batches of {config['training']['batch']};",
        f"{decided['parameters']:,} parameters, {decided['precision']}, compiled: {decided['compile']},",
        f"{decided['threads']} threads,",
        f"torch {torch.__version__}, Python {platform.python_version()}.",
        "",
        "The standard error is that of the mean over images. To compare two models, use paired differences, as below.",
        "",
        "## bf16 against fp32",
        "",
        f"The same recipe, trained for {STEPS:,} steps with three seeds in each precision. The score is the",
        "[importance-weighted bound](glossary.md#importance-weighted-bound) with 100 samples in fp32, paired by image.",
        "",
        "| seed | fp32 | bf16 | fp32 - bf16 | paired standard error |",
        "|---|---|---|---|---|",
    ]
    differences = []
    for seed in SEEDS:
        pair = {}
        for precision in ("fp32", "bf16"):
            run_of_seed = trained(f"{precision}-{seed}", steps=STEPS, seed=seed, precision=precision, compile="on")
            pair[precision] = scores(run_of_seed)
        d = pair["fp32"] - pair["bf16"]
        differences.append(d)
        fp32, bf16 = pair["fp32"].mean(), pair["bf16"].mean()
        lines.append(f"| {seed} | {fp32:.3f} | {bf16:.3f} | {d.mean():+.3f} | {standard_error(d):.3f} |")
    means = np.array([d.mean() for d in differences])
    overall = np.mean(differences, axis=0)
    lines += [
        "",
        f"The mean difference over seeds is {means.mean():+.3f} nats, with standard error",
        f"{standard_error(overall):.3f} over images and {standard_error(means):.3f} over seeds. A positive difference",
        "means that fp32 is better.",
        "",
    ]
    (HERE.parent / "docs").mkdir(exist_ok=True)
    (HERE.parent / "docs" / "quality.md").write_text("\n".join(lines), encoding="utf8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
