"""What the default recipe reaches on Fashion-MNIST, and whether bf16 costs anything: `make bench-quality`.

About an hour on 2 quiet cores; resumable (runs are kept in bench/.runs). Writes docs/quality.md.
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
    """The finished run of this name, trained now if it is not there."""
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
    run, found = headline()
    lines = [
        "# Quality on Fashion-MNIST",
        "",
        "Made by `make bench-quality`. Dynamic binarisation, the reference draw of the test images",
        f"(SHA-256 begins {found['elbo']['protocol']['draw'][:16]}), 10,000 test images, nats per image, fp32 scoring.",
        "",
        "| quantity | value | standard error | estimator |",
        "|---|---|---|---|",
    ]
    for name in ("elbo", "rate", "distortion", "log_px_iw", "bits_per_dim", "ess", "active_units", "entropy_floor"):
        m = found[name]
        se = "" if m["se"] is None else f"{m['se']:.3f}"
        value = m["value"] if isinstance(m["value"], int) else f"{m['value']:.3f}"
        lines.append(f"| {name} | {value} | {se} | {m['protocol']['estimator']} |")
    decided, config = run.config["decided"], run.config
    lines += [
        "",
        f"Recipe `vae` with its defaults, {config['training']['minutes']:g} minutes asked,",
        f"{config['seconds']:.0f} s used, {config['step']:,} steps of {config['training']['batch']},",
        f"{decided['parameters']:,} parameters, {decided['precision']}, compiled: {decided['compile']},",
        f"{decided['threads']} threads,",
        f"torch {torch.__version__}, Python {platform.python_version()}.",
        "",
        "The standard error above is that of the mean over images; models are compared by paired differences.",
        "",
        "## bf16 against fp32",
        "",
        f"The same recipe for {STEPS:,} steps, three seeds each way, scored by IW-100 in fp32; paired by image.",
        "",
        "| seed | fp32 | bf16 | fp32 - bf16 | paired standard error |",
        "|---|---|---|---|---|",
    ]
    differences = []
    for seed in SEEDS:
        pair = {}
        for precision in ("fp32", "bf16"):
            made = trained(f"{precision}-{seed}", steps=STEPS, seed=seed, precision=precision, compile="on")
            pair[precision] = scores(made)
        d = pair["fp32"] - pair["bf16"]
        differences.append(d)
        fp32, bf16 = pair["fp32"].mean(), pair["bf16"].mean()
        lines.append(f"| {seed} | {fp32:.3f} | {bf16:.3f} | {d.mean():+.3f} | {standard_error(d):.3f} |")
    means = np.array([d.mean() for d in differences])
    overall = np.mean(differences, axis=0)
    lines += [
        "",
        f"Mean difference over seeds {means.mean():+.3f} nats, standard error {standard_error(overall):.3f} over",
        f"images and {standard_error(means):.3f} over seeds (positive: fp32 is better).",
        "",
    ]
    (HERE.parent / "docs").mkdir(exist_ok=True)
    (HERE.parent / "docs" / "quality.md").write_text("\n".join(lines), encoding="utf8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
