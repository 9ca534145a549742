"""Denoising autoencoders, a median filter, and PCA."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vaekit.data.core import Data
from vaekit.metrics.images import median_filter, psnr, ssim
from vaekit.metrics.samples import Components
from vaekit.noise import Noise
from vaekit.objectives.corruption import CORRUPTIONS
from vaekit.report.blocks import Section, Strips, Table
from vaekit.runs.trained import TrainedModel

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
BEST = 100.0  # dB, the PSNR of a picture without error
SIDE = 4  # fewest pixels per side


def _check(data: Data) -> None:
    check_images(data, "denoising", SIDE)


@study("denoising", "Vincent et al. 2008, doi:10.1145/1390156.1390294; Wang et al. 2004 (SSIM)", check=_check)
def denoising(bench: Bench) -> Findings:
    """Compares denoising autoencoders with a median filter and PCA for three kinds of noise, by PSNR and SSIM.

    One autoencoder per kind of noise is trained to restore the clean picture. The kinds are Gaussian noise with
    standard deviation 0.3 of the range, half of the pixels masked to black, and 0.3 of the pixels set to black or
    white. The median filter's window and PCA's number of components are the best of several for the same noise on
    validation data.
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
    train = (data.events(data.train[: bench.sized(3000, 20_000)]) - low) / (high - low)
    components = Components(train, max(COMPONENTS))
    noises: dict[str, Any] = {}
    group = bench.groups(n)
    sections = []
    for kind, title in TITLES.items():
        run = runs[title]
        clean, noisy = corrupt(run, kind, "test", n)
        results = {NOISY: noisy.clip(0, 1), AUTO: denoise(run, noisy)}
        window, k = tuned(run, kind, components, min(n, len(data.valid)))
        results[MEDIAN] = median_filter(noisy, side=window).clip(0, 1)
        results[PCA] = project(components, noisy, k)
        noises[title] = {
            "window": window,
            "components": k,
            "psnr": {name: np.minimum(psnr(clean, x, 1.0), BEST).tolist() for name, x in results.items()},
            "ssim": {name: ssim(clean, x, 1.0).tolist() for name, x in results.items()},
        }
        shown = {"clean": clean[:SHOWN], **{name: x[:SHOWN] for name, x in results.items()}}
        rows = [strip(bench, name, low + x * (high - low), _note(noises[title], name)) for name, x in shown.items()]
        caption = (
            "The first test examples. The number at each name is the mean PSNR over all test examples. Noisy values "
            "are clipped to black and white."
        )
        block = Strips(f"denoised-{kind}", rows, f"Pictures with {title}, and the result of each method", caption)
        sections.append(Section(kind, title.capitalize(), [block]))
    numbers = {"noises": noises, "group": group}
    return Findings(read(numbers), [_table(noises, n, group), *sections], numbers)


def corrupt(run: TrainedModel, kind: str, split: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first n clean pictures of a split, in [0, 1], and the same with noise that training did not use."""
    x = run.observed(split)(np.arange(n))
    with torch.no_grad():
        noise = Noise.of(NOISE if split == "test" else NOISE + 1, n)
        return x.double().numpy(), CORRUPTIONS[kind].build(LEVELS[kind])(x, noise).double().numpy()


def rebuilt(run: TrainedModel, x: np.ndarray) -> np.ndarray:
    """The reconstruction of x (n, *event), both as the model sees them: float32 of the same shape."""
    decoded = []
    with torch.no_grad():
        for a in range(0, len(x), 500):
            block = torch.from_numpy(x[a : a + 500]).float().to(run.device)
            decoded.append(run.model.decode(run.model.encode(block)).mean.cpu().numpy())
    return np.concatenate(decoded)


def denoise(run: TrainedModel, noisy: np.ndarray) -> np.ndarray:
    """Encoded and decoded pictures, clipped to [0, 1]."""
    return rebuilt(run, noisy).astype(float).clip(0, 1)


def project(components: Components, noisy: np.ndarray, k: int) -> np.ndarray:
    """Projections on the first k principal components, clipped to [0, 1]."""
    axes = components.axes[:, :k]
    flat = noisy.reshape(len(noisy), -1) - components.mean
    return (flat @ axes @ axes.T + components.mean).reshape(noisy.shape).clip(0, 1)


def tuned(run: TrainedModel, kind: str, components: Components, n: int) -> tuple[int, int]:
    """The median filter's window and PCA's number of components with the best PSNR on noisy validation data."""
    clean, noisy = corrupt(run, kind, "valid", n)
    window = max(WINDOWS, key=lambda side: psnr(clean, median_filter(noisy, side=side).clip(0, 1), 1.0).mean())
    counts = [k for k in COMPONENTS if k <= components.k] or [components.k]
    return window, max(counts, key=lambda k: psnr(clean, project(components, noisy, k), 1.0).mean())


CLAIMS = 4 * len(LEVELS)  # for each noise, PSNR and SSIM against each of two methods


def read(numbers: dict[str, Any]) -> list[str]:
    """For each noise, whether the autoencoder is better than both simple methods, and by how much."""
    sentences, wins, losses = [], 0, 0
    group, level = numbers.get("group"), LEVEL / CLAIMS
    for title, scores in numbers["noises"].items():
        gains = {name: paired(scores["psnr"][AUTO], scores["psnr"][name], group) for name in (MEDIAN, PCA)}
        signs = {name: direction(gain, level) for name, gain in gains.items()}
        rival = min(gains, key=lambda name: (signs[name], gains[name].value))
        sign = signs[rival]  # 1 only if better than both
        wins, losses = wins + (sign > 0), losses + (sign < 0)
        psnr = {name: f"{np.mean(scores['psnr'][name]):.1f}" for name in (NOISY, AUTO, rival)}
        ssim_sign = direction(paired(scores["ssim"][AUTO], scores["ssim"][rival], group), level)
        agreement = (
            "SSIM agrees."
            if ssim_sign == sign
            else "The difference in SSIM is not significant."
            if ssim_sign == 0
            else "SSIM does not agree."
        )
        rival_name = f"the {rival}" if rival == MEDIAN else rival
        gap = gains[rival].value
        sentences.append(
            f"{title.capitalize()}: the autoencoder changes the PSNR from {psnr[NOISY]} to {psnr[AUTO]} dB, and "
            f"{rival_name}, the better simple method, to {psnr[rival]} dB; "
            + choose(
                sign,
                f"the autoencoder is better by {number(gap)} dB. ",
                f"{rival_name} is better by {number(-gap)} dB. ",
                "the difference is not significant. ",
            )
            + agreement
        )
    total = len(numbers["noises"])
    if wins == total:
        head = "The denoising autoencoder is better than both simple methods for every kind of noise."
    elif losses == total:
        head = "A simple method is better than the denoising autoencoder for every kind of noise."
    else:
        head = (
            f"The denoising autoencoder is better than both simple methods for {wins} of {total} kinds of noise, and "
            f"worse than one of them for {losses}."
        )
    return [head, *sentences]


# --- figures ----------------------------------------------------------------------------------------------------


def _note(scores: dict[str, Any], name: str) -> str:
    extra = {MEDIAN: f", {scores['window']}×{scores['window']}", PCA: f", {scores['components']} components"}
    return f"{np.mean(scores['psnr'][name]):.1f} dB{extra.get(name, '')}" if name in scores["psnr"] else ""


def _table(numbers: dict[str, Any], n: int, group: list[int] | None) -> Section:
    rows = [
        [title, name, estimate(scores["psnr"][name], group).text(2), estimate(scores["ssim"][name], group).text(3)]
        for title, scores in numbers.items()
        for name in scores["psnr"]
    ]
    caption = (
        f"{n:,} test examples, mean ± standard error. PSNR and SSIM compare with the clean picture; higher is better."
    )
    head = ["noise", "method", "PSNR, dB", "SSIM"]
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(2, 3))])
