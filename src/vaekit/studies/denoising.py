"""Denoising autoencoders against a median filter and PCA."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vaekit.data.core import Data
from vaekit.metrics.images import median_filter, psnr, ssim
from vaekit.metrics.samples import Components
from vaekit.noise import Noise
from vaekit.objectives.corruption import corruption
from vaekit.report.blocks import Section, Strips, Table
from vaekit.runs.run import Run

from .bench import Bench, Plan
from .needs import check_images
from .page import strip
from .registry import Findings, study
from .words import LEVEL, choose, direction, estimate, number, paired

LEVELS = {"gaussian": 0.3, "masking": 0.5, "salt-and-pepper": 0.3}
TITLES = {"gaussian": "Gaussian noise", "masking": "masked pixels", "salt-and-pepper": "salt and pepper"}
LATENT, SHOWN = 64, 10
WINDOWS, COMPONENTS = (3, 5), (5, 10, 20, 40, 80, 160)
AUTO, MEDIAN, PCA, NOISY = "autoencoder", "median filter", "PCA", "noisy"
NOISE = 81
BEST = 100.0  # dB, of a picture given back without any error
SIDE = 4  # pixels that an image needs


def _check(data: Data) -> None:
    check_images(data, "denoising", SIDE)


@study("denoising", "Vincent et al. 2008, doi:10.1145/1390156.1390294; Wang et al. 2004 (SSIM)", check=_check)
def denoising(bench: Bench) -> Findings:
    """Denoising autoencoders for three kinds of noise, beside a median filter and PCA: PSNR and SSIM.

    One autoencoder a noise, trained to give back the clean picture: Gaussian noise of 0.3 of the range, half of the
    pixels masked to black, 0.3 of them set to black or white. The median filter's window and PCA's number of
    components are the best of several on the same noise in validation data.
    """
    data = bench.data
    shape = {"latent": LATENT, "likelihood": "gaussian", "observation": "grey"}
    plans = {
        TITLES[kind]: Plan("denoising", {**shape, "corruption": kind, "corruption_level": level})
        for kind, level in LEVELS.items()
    }
    runs = bench.train(plans)
    bench.stage("measuring")
    n = min(bench.sized(300, 2000), len(data.test))
    low, high = data.scale
    learned = (data.events(data.train[: bench.sized(3000, 20_000)]) - low) / (high - low)
    components = Components(learned, max(COMPONENTS))
    noises: dict[str, Any] = {}
    group = bench.groups(n)
    sections = []
    for kind, title in TITLES.items():
        run = runs[title]
        clean, spoilt = spoil(run, kind, "test", n)
        made = {NOISY: spoilt.clip(0, 1), AUTO: denoise(run, spoilt)}
        window, k = tuned(run, kind, components, min(n, len(data.valid)))
        made[MEDIAN] = median_filter(spoilt, window).clip(0, 1)
        made[PCA] = project(components, spoilt, k)
        noises[title] = {
            "window": window,
            "components": k,
            "psnr": {name: np.minimum(psnr(clean, x, 1.0), BEST).tolist() for name, x in made.items()},
            "ssim": {name: ssim(clean, x, 1.0).tolist() for name, x in made.items()},
        }
        shown = {"clean": clean[:SHOWN], **{name: x[:SHOWN] for name, x in made.items()}}
        rows = [strip(bench, name, low + x * (high - low), _note(noises[title], name)) for name, x in shown.items()]
        caption = (
            "The first test data; beside each name its PSNR over all of them. Noise beyond black and white is cut."
        )
        block = Strips(f"denoised-{kind}", rows, f"Pictures with {title}, and what each method makes of them", caption)
        sections.append(Section(kind, title.capitalize(), [block]))
    numbers = {"noises": noises, "group": group}
    return Findings(read(numbers), [_table(noises, n, group), *sections], numbers)


def spoil(run: Run, kind: str, split: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first n clean pictures of a split in [0, 1], and the same with noise that no training saw."""
    x = run.observed(split)(np.arange(n))
    with torch.no_grad():
        noise = Noise.of(NOISE if split == "test" else NOISE + 1, n)
        return x.double().numpy(), corruption(kind, LEVELS[kind])(x, noise).double().numpy()


def denoise(run: Run, spoilt: np.ndarray) -> np.ndarray:
    """Encoded and decoded, within [0, 1]."""
    found = []
    with torch.no_grad():
        for a in range(0, len(spoilt), 500):
            x = torch.from_numpy(spoilt[a : a + 500]).float().to(run.device)
            found.append(run.model.decode(run.model.encode(x)).mean.cpu().numpy())
    return np.concatenate(found).astype(float).clip(0, 1)


def project(components: Components, spoilt: np.ndarray, k: int) -> np.ndarray:
    """Pictures as the first k components give them back, within [0, 1]."""
    axes = components.axes[:, :k]
    flat = spoilt.reshape(len(spoilt), -1) - components.mean
    return (flat @ axes @ axes.T + components.mean).reshape(spoilt.shape).clip(0, 1)


def tuned(run: Run, kind: str, components: Components, n: int) -> tuple[int, int]:
    """The window and the number of components of the best PSNR on noisy validation data."""
    clean, spoilt = spoil(run, kind, "valid", n)
    window = max(WINDOWS, key=lambda side: psnr(clean, median_filter(spoilt, side).clip(0, 1), 1.0).mean())
    counts = [k for k in COMPONENTS if k <= components.k] or [components.k]
    return window, max(counts, key=lambda k: psnr(clean, project(components, spoilt, k), 1.0).mean())


CLAIMS = 4 * len(LEVELS)  # PSNR and SSIM against each of two methods, for each noise


def read(numbers: dict[str, Any]) -> list[str]:
    """For each noise, whether the autoencoder or the better of the other two wins, and by how much."""
    said, wins, losses = [], 0, 0
    group, level = numbers.get("group"), LEVEL / CLAIMS
    for title, found in numbers["noises"].items():
        against = {name: paired(found["psnr"][AUTO], found["psnr"][name], group) for name in (MEDIAN, PCA)}
        signs = {name: direction(gain, level) for name, gain in against.items()}
        rival = min(against, key=lambda name: (signs[name], against[name].value))
        which = signs[rival]  # ahead: of both
        wins, losses = wins + (which > 0), losses + (which < 0)
        means = {name: f"{np.mean(found['psnr'][name]):.1f}" for name in (NOISY, AUTO, rival)}
        alike = direction(paired(found["ssim"][AUTO], found["ssim"][rival], group), level)
        agrees = (
            "SSIM says the same."
            if alike == which
            else "SSIM cannot tell them apart."
            if alike == 0
            else "SSIM does not say the same."
        )
        named = f"the {rival}" if rival == MEDIAN else rival
        gap = against[rival].value
        said.append(
            f"{title.capitalize()}: from {means[NOISY]} dB the autoencoder comes to {means[AUTO]} dB, {named}, the "
            f"harder of the other two to beat, to {means[rival]} dB; "
            + choose(
                which,
                f"the autoencoder is ahead by {number(gap)} dB. ",
                f"{named} is ahead by {number(-gap)} dB. ",
                "the two cannot be told apart. ",
            )
            + agrees
        )
    total = len(numbers["noises"])
    if wins == total:
        head = "A learned network beats both simple methods on every kind of noise."
    elif losses == total:
        head = "A simple method beats the learned network on every kind of noise."
    else:
        head = (
            f"The learned network beats both simple methods on {wins} of {total} kinds of noise and is beaten on "
            f"{losses}."
        )
    return [head, *said]


# --- figures ----------------------------------------------------------------------------------------------------


def _note(found: dict[str, Any], name: str) -> str:
    extra = {MEDIAN: f", {found['window']}×{found['window']}", PCA: f", {found['components']} components"}
    return f"{np.mean(found['psnr'][name]):.1f} dB{extra.get(name, '')}" if name in found["psnr"] else ""


def _table(numbers: dict[str, Any], n: int, group: list[int] | None) -> Section:
    rows = [
        [title, name, estimate(found["psnr"][name], group).text(2), estimate(found["ssim"][name], group).text(3)]
        for title, found in numbers.items()
        for name in found["psnr"]
    ]
    caption = f"{n:,} test data, mean ± standard error. PSNR and SSIM against the clean picture; higher is better."
    head = ["noise", "method", "PSNR, dB", "SSIM"]
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(2, 3))])
