"""The page, its pictures and the row of the README, from the rows that bench/pictures_measure.py measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pictures_measure import BEST, FIRST, MODELS, REBUILT, SAMPLERS, SETS, SHOWN, cell  # bench/pictures_measure.py
from PIL import Image

from vaekit.figures import image_grid
from vaekit.metrics.samples import ABOVE, MEASURES
from vaekit.utils.files import write_atomically

MINUTES, AT_ONCE = 30.0, 2
"""The time of the whole page, and the number of data sets that are measured at a time, each on one core."""
ROW = 10
"""Samples in a row of the README's picture."""
GOALS = {"frechet_distance": 0.25, "sample_recall": 0.6}
"""At most this share of the first sampler's Fréchet distance; at least this share of real-against-real recall."""
QUALITY = 30
"""Of the pictures' WebP files, so that all of them have a few 100 kB."""


def number(row: dict[str, Any], measure: str, of: str = "value") -> float | None:
    """A number of a row's measure; None if it was not measured."""
    found = next((one for one in row["measures"] if one["name"] == measure), None)
    return None if found is None else found[of]


DIGITS = dict(zip(MEASURES, (4, 4, 2, 2, 2, 2, 2, 3), strict=True))
HEADS = dict(zip(MEASURES, ("Fréchet distance", "kernel distance", "precision", "recall", "density", "coverage",
                            "sharpness", "preference for training data"), strict=True))  # fmt: skip
WITH_INTERVAL = ("frechet_distance", "memorisation")


def table(found: dict[str, Any]) -> list[str]:
    """The rows of a data set below those of real data."""
    first = next(iter(found["rows"].values()))["measures"]
    real = {"sampler": "*training data*", "measures": [{"name": one["name"], **one["floor"]} for one in first]}
    out = [f"| sampler | {' | '.join(HEADS.values())} |", "|---" * (1 + len(HEADS)) + "|"]
    for row in (real, *found["rows"].values()):
        by_name = {one["name"]: one for one in row["measures"]}
        cells = [cell(by_name.get(name), DIGITS[name], name in WITH_INTERVAL) for name in HEADS]
        out.append(f"| {row['sampler']} | {' | '.join(cells)} |")
    return out


def reached(found: dict[str, Any], key: str = BEST) -> dict[str, tuple[float, bool]]:
    """For each goal, the sampler's number and whether it reaches the goal."""
    first, row = found["rows"][FIRST], found["rows"][key]
    by_name = {one["name"]: one for one in row["measures"]}
    apart, from_first = number(row, "frechet_distance"), number(first, "frechet_distance")
    share = float("nan") if apart is None or from_first is None else apart / from_first
    recall = by_name["sample_recall"]["value"] / by_name["sample_recall"]["floor"]["value"]
    goals = {
        "frechet_distance": (share, share <= GOALS["frechet_distance"]),
        "sample_recall": (recall, recall >= GOALS["sample_recall"]),
    }
    if "memorisation" in by_name:
        above = by_name["memorisation"]["parts"][ABOVE]
        goals["memorisation"] = (above["value"], above["low"] is None or above["low"] <= 0)
    return goals


def summary(found: dict[str, Any]) -> list[str]:
    """How far the samplers are from the goals, on each data set."""
    heads = (
        "data", "sampler", "Fréchet distance, over that of N(0, I)", "recall, over that of training data",
        "preference for training data, above that of real data",
    )  # fmt: skip
    out = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in found["sets"].values():
        for key in [] if "skipped" in one else [key for key in SAMPLERS if key != FIRST and key in one["rows"]]:
            goals = reached(one, key)
            cells = [f"{value:.3f}{'' if good else ' (missed)'}" for value, good in goals.values()]
            out.append(f"| {one['title'].split(',')[0]} | {one['rows'][key]['sampler']} | {' | '.join(cells)} |")
    return out


def steps_of(row: dict[str, Any]) -> str:
    """The steps of a row's model, and of the density of its codes."""
    density = f" and {row['fit_steps']:,}" if row.get("fit_steps") else ""
    return f"{row['sampler']}: {row['steps']:,}{density}"


def section(name: str, one: dict[str, Any]) -> list[str]:
    """The section of a data set."""
    out = [f"## {SETS[name].title.split(',')[0]}", ""]
    if "skipped" in one:
        return [*out, f"Skipped: {one['skipped']}.", ""]
    train, valid, test = one["sizes"]
    what = "Some rows were resumed; their last starts took" if one["resumed"] else "All rows together took"
    out += [
        f"{one['title']}: {train:,} training, {valid:,} validation and {test:,} test data, of which {one['n']:,} are",
        f"compared with as many samples, in {one['features']}.",
        "Steps of the model, and of the density of its codes:",
        "; ".join(steps_of(row) for key, row in one["rows"].items() if key != REBUILT) + ".",
        f"{what} {one['seconds'] / 60:.1f} minutes on one core; {one['minutes']:.3g} were planned.",
        "",
        *table(one),
        "",
    ]
    for key, row in {"real": {"sampler": "test data"}, **one["rows"]}.items():
        shown = f"the first {SHOWN} {'' if key in ('real', REBUILT) else 'samples by '}{row['sampler']}"
        caption = shown[0].upper() + shown[1:]
        out += [f"{caption}:", "", f"![{caption.replace('`', '')}](images/pictures/{name}-{key}.webp)", ""]
    return out


def page(found: dict[str, Any]) -> str:
    """docs/pictures.md."""
    some = [one for one in found["sets"].values() if "skipped" not in one]
    share = max((one["minutes"] for one in some), default=0.0)
    shorter = [f"**A short measurement, of {found['minutes']:g} instead of {MINUTES:g} minutes.**", ""]
    out = [
        "# Pictures from every sampler",
        "",
        "![For each data set, ten samples of the default VAE from N(0, I), and below them ten samples of grid with",
        "flow-matching](images/pictures.webp)",
        "",
        f"Made by `make bench-pictures`. {found['minutes']:g} minutes on two cores are divided among the data sets",
        f"that can be read: each has {share:.3g} minutes of one core for all of its rows, training included, and two",
        f"are measured at a time. Of this time, the default VAE has {MODELS['base']:.0%}, `grid` {MODELS[BEST]:.0%}",
        f"and the density of its codes {SAMPLERS[BEST].share:.0%}. The default VAE is `--recipe vae` for Fashion-MNIST",
        "and `--recipe conv` for colour images; docs/pictures.json has the options. `flow-matching` is trained by",
        "`vaekit prior RUN --network dense --condition none --batch 128`; the dense network was chosen because it",
        "makes more steps in this time. `grid` is trained with `--likelihood gaussian --sigma optimal`, because its",
        "codes learn late under the default likelihood",
        "([comparison](reference/models.md#codes-that-are-small-images)). Settings were chosen on validation data",
        "with seed 1; the page is measured with seed 0 on test data.",
        "",
        "All pictures and measures are of means of p(x|z), not of draws from it. A draw adds the noise of the",
        "[likelihood](glossary.md#likelihood) to each pixel independently, which looks like coloured noise. The",
        "[guide](guides/samples.md) explains the measures; the preference for training data is its *memorisation*,",
        "and k is the number of neighbours. In the row *training data*, these take the place of samples and show the",
        "values of equal distributions; for the preference for training data, validation data take this place. 95%",
        "intervals are in brackets. The Fréchet distance is unbiased, so it may be below 0 by chance.",
        "*Reconstructions* are of the test data themselves and show what the decoder of `grid` does with the best",
        "codes. As they depend on these data, the correction of the bias is too large for them, and their distances",
        "may be clearly below 0.",
        "",
        *(shorter if found["minutes"] < MINUTES else []),
        *([*found["note"], ""] if "note" in found else []),
        "## Goals",
        "",
        "Samples should have at most a quarter of the Fréchet distance of N(0, I), at least 0.6 of the recall of",
        "training data, and no preference for training data that is significantly above that of real data.",
        "",
        *summary(found),
        "",
    ]
    for name, one in found["sets"].items():
        out += section(name, one)
    credit = [SETS[name].credit for name, one in found["sets"].items() if "skipped" not in one and SETS[name].credit]
    return "\n".join([*out, " ".join(credit), "", found["machine"], ""])


def save_webp(path: Path, picture: np.ndarray) -> None:
    """Write a picture (H, W, 3) as WebP."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda part: Image.fromarray(picture).save(part, "WEBP", quality=QUALITY, method=6))


def pictures(shown: dict[str, dict[str, np.ndarray]], folder: Path) -> None:
    """The first samples of each sampler as a sheet of ten columns, and the README's rows."""
    bands, most = [], 0
    for name, by_sampler in shown.items():
        for key, x in by_sampler.items():
            save_webp(folder / "pictures" / f"{name}-{key}.webp", image_grid(x, ROW, zoom=1))
        zoom = max(1, round(64 / by_sampler[FIRST].shape[1]))
        rows = np.concatenate([by_sampler[FIRST][:ROW], by_sampler[BEST][:ROW]])
        bands.append(image_grid(rows, ROW, zoom=zoom))
        most = max(most, bands[-1].shape[1])
    stacked = []
    for band in bands:
        left = (most - band.shape[1]) // 2
        stacked.append(np.pad(band, ((0, 10), (left, most - band.shape[1] - left), (0, 0)), constant_values=255))
    save_webp(folder / "pictures.webp", np.concatenate(stacked)[:-10])
