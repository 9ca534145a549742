"""Reconstructions by `grid` after MINUTES on one core: python bench/grid.py --sprites FILE --emoji FOLDER

--fashion-mnist adds this set. The table has the mean squared error of validation data (500 of them, values in 0..1,
seed 1), beside those of the mean image and of PCA of patches with codes of the same size, which is where training
starts. Settings: the recommended ones, and each of VARIANTS, which changes one of them. Every training has the same
time. Runs and pictures (data above their reconstructions) are kept in bench/.runs/grid.

--only NAME [NAME ...] measures these settings only; --minutes sets the time of a training; --first N takes N sprites.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import vaekit as vk
from vaekit.figures import channels_last, image_grid, to_uint8

RUNS = Path(__file__).parent / ".runs" / "grid"
MOST, SHOWN, SEED = 500, 12, 1
SQUARED = {"likelihood": "gaussian", "sigma": "optimal"}
HEADING = "| settings | steps | squared error | of the mean image's | std of codes |\n| --- | --- | --- | --- | --- |"
BEST: dict[str, dict[str, Any]] = {
    "sprites": SQUARED,
    "emoji": SQUARED,
    "fashion-mnist": {"hidden": (32, 48, 64), "code_channels": 8, **SQUARED},
}
"""The recommended settings of each data set."""
VARIANTS: dict[str, dict[str, Any]] = {
    "patch PCA": {"steps": 1, "lr": 1e-12},
    "recommended": {},
    "8 channels": {"code_channels": 8},
    "former": {"direct": False, "batch": 64, "lr": 1e-3, "schedule": "cosine"},
    "former with the linear path": {"batch": 64, "lr": 1e-3, "schedule": "cosine"},
    "without the linear path": {"direct": False},
    "the default likelihood": {"likelihood": None, "sigma": None},
    "without attention": {"attention": False},
}


def measure(name: str, data: vk.Data, minutes: float, only: list[str]) -> None:
    """Train each variant, print its row and keep its picture."""
    train = data.events(data.train[np.linspace(0, len(data.train) - 1, 2000).astype(np.int64)])
    x = data.events(data.valid[: min(MOST, len(data.valid))]).astype(np.float64)
    mean = float(np.square(x - train.mean(0)).mean()) / 255**2
    print(f"\n{name}: {len(data.train):,} training images, {len(x)} measured; mean image {mean:.5f}\n\n{HEADING}")
    for variant, changes in VARIANTS.items():
        if only and variant not in only:
            continue
        settings = {k: v for k, v in {**BEST[name], **changes}.items() if v is not None}
        time = {} if "steps" in settings else {"minutes": minutes}
        out = RUNS / f"{name}-{variant.replace(' ', '-')}"
        run = vk.fit(data, "grid", out=out, exists="replace", seed=SEED, progress=False, **settings, **time)
        run.use_data(data)
        made, spread = run.reconstruct("valid", n=len(x)), run.encode("valid", n=len(x), sample=True).std()
        error, steps = float(np.square(x - made).mean()) / 255**2, run.log[-1]["step"]
        print(f"| {variant} | {steps:,} | {error:.5f} | {error / mean:.3f} | {spread:.2f} |", flush=True)
        pairs = to_uint8(channels_last(np.concatenate([x[:SHOWN], made[:SHOWN]])))
        Image.fromarray(image_grid(pairs, SHOWN)).save(out.with_suffix(".png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sprites", metavar="FILE")
    parser.add_argument("--emoji", metavar="FOLDER")
    parser.add_argument("--fashion-mnist", action="store_true")
    parser.add_argument("--first", type=int, metavar="N", help="use only the first N sprites")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--only", nargs="+", default=[], choices=VARIANTS)
    given = parser.parse_args()
    if given.sprites:
        data = vk.load(given.sprites)
        if given.first:
            data = vk.from_arrays(np.load(given.sprites)["x"][: given.first], name="sprites")
        measure("sprites", data, given.minutes, given.only)
    if given.emoji:
        measure("emoji", vk.load(given.emoji, table="attributes.csv", group="name"), given.minutes, given.only)
    if given.fashion_mnist:
        measure("fashion-mnist", vk.load("fashion-mnist"), given.minutes, given.only)


if __name__ == "__main__":
    main()
