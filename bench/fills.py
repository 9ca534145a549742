"""Hidden halves of colour images filled in under the prior and under densities of the codes: bench/fills.py FOLDER

FOLDER contains images/ and attributes.csv (see bench/colour.py); no drawing is in two splits. `conv` is trained on the
images at 32x32, then each density of its codes. The lower half of test images is hidden. With --choose, it measures
validation images of a model of seed 1, prints the table, writes the picture beside the runs and no page: this is for
choosing settings. Resumable: runs are kept in bench/.runs/fills.

--run RUN measures a run that is trained already instead, on its own test data, which are FOLDER or a file: the sprites
of bench/pictures.py, whose run is bench/.runs/pictures/measured/sprites/grid.

Writes the section of its data in docs/fills.json and docs/fills.md, and docs/images/fills*.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from colour import unit  # bench/colour.py
from pictures_page import save_webp  # bench/pictures_page.py

import vaekit as vk
from vaekit.figures import channels_last, image_grid, save_png
from vaekit.latents.densities import Training
from vaekit.latents.editing import named_mask
from vaekit.metrics import standard_error
from vaekit.options import Options
from vaekit.utils.files import write_json, write_text

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "fills", HERE.parent / "docs"
SIZE, SHOWN = 32, 10
SOURCES = ("prior", "gmm", "flow-matching")


def trained(folder: Path, seed: int, minutes: float, density_minutes: float) -> vk.Run:
    """`conv` on the images of a folder, with both densities stored."""
    data = vk.load(folder, table="attributes.csv", group="name", size=SIZE)
    path = RUNS / f"conv-{minutes:g}-{seed}"
    run = vk.fit(
        data, "conv", minutes=minutes, seed=seed, augment="flip", batch=64, out=path,
        resume=(path / "run.json").exists(),
    )  # fmt: skip
    run.fit_latents("gmm")
    if not (path / "latents" / "flow-matching.json").exists():
        options = Options(minutes=density_minutes, batch=128)
        run.fit_latents("flow-matching", condition="none", training=Training(options))
    return run


def measured(raw: np.ndarray, draws: np.ndarray, hidden: np.ndarray) -> dict[str, list[float]]:
    """Squared errors of the hidden pixels of each image: of the mean of its fills, and of one fill; their spread."""
    truth, fills = unit(raw), np.stack([unit(one) for one in draws])
    error = lambda x: ((x - truth)[..., hidden.reshape(-1)] ** 2).mean(-1)  # noqa: E731
    return {
        "mean": error(fills.mean(0)).tolist(),
        "one": error(fills).mean(0).tolist(),
        "spread": np.sqrt(fills[..., hidden.reshape(-1)].var(0, ddof=1).mean(-1)).tolist(),
    }


def filled(run: vk.Run, split: str, n: int, draws: int) -> tuple[dict[str, Any], np.ndarray]:
    """The measures of each density for n images of a split, and a grid of the first of them."""
    observed = run.observed(split)
    rows = np.linspace(0, observed.n - 1, n).astype(int)
    raw, hidden = observed.raw(rows), named_mask("half", run.spec.shape)
    train = run.observed("train")
    mean = np.broadcast_to(train.raw(np.arange(train.n)).mean(0), raw.shape)
    found: dict[str, Any] = {"mean image": measured(raw, np.stack([mean, mean]), hidden)}
    bands = [np.where(hidden, 127, raw), raw]
    stored = [name for name in SOURCES if name == "prior" or (run.path / "latents" / f"{name}.json").exists()]
    for name in stored:
        start = time.process_time()
        fills = run.fill(raw, hidden, latents=name, draws=draws)
        found[name] = measured(raw, fills.draws, hidden) | {"seconds": (time.process_time() - start) / n}
        bands += [fills.filled, *fills.draws[:2]]
    shown = np.concatenate([np.asarray(band[:SHOWN], np.float32) for band in bands])
    return found, image_grid(channels_last(shown), SHOWN, zoom=max(1, 64 // run.spec.shape[-1]))


def table(found: dict[str, Any]) -> list[str]:
    """Rows of means with standard errors, and paired differences from the fills under the prior."""
    out = [
        "| inferred under | error of the mean | minus prior | error of one fill | minus prior | spread | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    shown = lambda e: f"{e.mean():.4f} ± {standard_error(e):.4f}"  # noqa: E731
    for name, row in found.items():
        cells = []
        for measure in ("mean", "one"):
            own, base = np.array(row[measure]), np.array(found[SOURCES[0]][measure])
            cells += [shown(own), "" if name == SOURCES[0] else shown(own - base)]
        seconds = f"{row['seconds']:.1f}" if "seconds" in row else ""
        out.append(f"| {name} | {' | '.join(cells)} | {math.sqrt(np.square(row['spread']).mean()):.3f} | {seconds} |")
    return out


def of_emoji(found: dict[str, Any], run: vk.Run, asked: argparse.Namespace) -> list[str]:
    """How the fills of the emoji were made, and what to see."""
    fm = run.fit_latents("flow-matching").record
    command = (
        f"python bench/fills.py FOLDER --minutes {asked.minutes:g} --density-minutes {asked.density_minutes:g} "
        f"--images {asked.images} --draws {asked.draws}"
    )
    return [
        f"Made by `{command}`:",
        f"`conv` on emoji of two artists at {SIZE}x{SIZE} ({run.config['step']:,} steps), and densities of its codes",
        f"(flow matching: {fm['steps']:,} steps).", "",
        *table(found), "",
        "The spread of fills that are as uncertain as they should be is the root of the error of their mean, which is",
        f"{math.sqrt(np.mean(found['prior']['mean'])):.2f} under the prior. Under the prior and `gmm`, the fills of an",
        "image are draws of one Gaussian with independent directions, which is much too narrow: they are nearly equal.",
        "Under flow matching, each fill starts from its own draw of the density. The",
        "[weight of the likelihood](guides/prior.md#filling-in) was chosen on validation images of another seed.", "",
        f"![The visible part of {SHOWN} test images and the originals; below, for the prior, gmm and flow matching,",
        "the mean of the fills and two fills](images/fills.png)", "",
        "Images by Twemoji, (c) Twitter, Inc and other contributors, and EmojiOne 2.2.7, (c) Emoji One, CC BY 4.0.",
    ]  # fmt: skip


def of_sprites(found: dict[str, Any], run: vk.Run, asked: argparse.Namespace) -> list[str]:
    """How the fills of the sprites were made, and what to see."""
    rms = math.sqrt(np.mean(found["flow-matching"]["mean"]))
    fm = run.fit_latents("flow-matching").record
    return [
        f"Made by `python bench/fills.py SPRITES.npz --run RUN --images {asked.images} --draws {asked.draws}` with the",
        f"run of [pictures.md](pictures.md): `grid` ({run.config['step']:,} steps), and flow matching over its codes",
        f"({fm['steps']:,} steps).", "",
        *table(found), "",
        "Under N(0, I), places of the code that the visible half says nothing about are independent of each other, so",
        "the hidden half becomes coloured blocks. Under flow matching it becomes a sprite. The fills of an image are",
        "too alike under both: the spread should be the root of the error of the mean,",
        f"{rms:.2f} under flow matching.", "",
        f"![The visible part of {SHOWN} test images and the originals; below, for the prior and flow matching, the",
        "mean of the fills and two fills](images/fills-sprites.webp)", "",
        "Sprites by contributors of the Liberated Pixel Cup, CC BY-SA 3.0.",
    ]  # fmt: skip


def page(kept: dict[str, list[str]]) -> str:
    """docs/fills.md, from its sections by the name of the data."""
    out = [
        "# Filled images", "",
        "The lower half of test images is hidden and filled in several times. Errors are mean squared errors of the",
        "hidden pixels in [0, 1], with standard errors over images: of the mean of the fills and of one fill. *Spread*",
        "is the standard deviation of the fills of an image, *CPU s* the time per image. Fills are means of p(x|z),",
        "without its noise.", "",
    ]  # fmt: skip
    for name in sorted(kept, reverse=True):
        out += [f"## {name.capitalize()}", "", *kept[name], ""]
    return "\n".join([*out, f"torch {torch.__version__}, Python {platform.python_version()}, 1 thread.", ""])


def keep(name: str, lines: list[str]) -> None:
    """Put a section into docs/fills.json, and write the page."""
    file = DOCS / "fills.json"
    kept = json.loads(file.read_text(encoding="utf8")) if file.exists() else {}
    kept[name] = lines
    write_json(file, kept)
    write_text(DOCS / "fills.md", page(kept))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0, help="training time of the model")
    parser.add_argument("--density-minutes", type=float, default=10.0, help="training time of flow matching")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--choose", action="store_true", help="validation images and seed 1; no page")
    parser.add_argument("--run", type=Path, help="a trained run of the sprites")
    asked = parser.parse_args()
    if asked.run:
        run = vk.open(asked.run)
        run.use_data(vk.load(asked.folder))
    else:
        run = trained(asked.folder, int(asked.choose), asked.minutes, asked.density_minutes)
    found, grid = filled(run, "valid" if asked.choose else "test", asked.images, asked.draws)
    print("\n".join(table(found)))
    if asked.choose:
        save_png(RUNS / "choose.png", grid)
    elif asked.run:
        save_webp(DOCS / "images" / "fills-sprites.webp", grid)
        keep("sprites", of_sprites(found, run, asked))
    else:
        save_png(DOCS / "images" / "fills.png", grid)
        keep("emoji", of_emoji(found, run, asked))


if __name__ == "__main__":
    main()
