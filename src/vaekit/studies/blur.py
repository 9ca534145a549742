"""Blur of reconstructions and samples, measured by power spectra."""

from __future__ import annotations

from typing import Any

import numpy as np

from vaekit import figures
from vaekit.data.core import Data
from vaekit.errors import ChoiceError
from vaekit.figures import Line
from vaekit.metrics.images import radial_power
from vaekit.report.blocks import Section, Strips, Table, plot

from .bench import Bench, Plan
from .needs import check_images
from .page import strip
from .registry import Findings, study
from .words import LEVEL, choose, direction, estimate, number, paired

LIKELIHOODS = {
    "unit Gaussian": {"likelihood": "gaussian", "sigma": "unit", "observation": "grey"},
    "fitted sigma": {"likelihood": "gaussian", "sigma": "optimal", "observation": "grey"},
    "logistic mixture": {"likelihood": "logistic-mixture"},
}
LATENTS = (8, 64)
HIGH = 0.25  # cycles per pixel, half of the highest frequency; frequencies above it count as high
SHOWN = 6
SIDE = 8  # fewest pixels per side, for high frequencies
KINDS = {"mean": "reconstruction, mean", "drawn": "reconstruction, sampled", "prior": "sample of the prior"}


def _check(data: Data) -> None:
    if data.kind != "image" or data.train[:1].dtype != np.uint8:
        raise ChoiceError("blur needs images of integers (uint8), such as image files")
    check_images(data, "blur", SIDE)


@study("blur", "Larsen et al. 2016, arXiv:1512.09300; Rybkin et al. 2021, arXiv:2006.13202; Salimans et al. 2017",
       check=_check)  # fmt: skip
def blur(bench: Bench) -> Findings:
    """Compares power spectra of data, reconstructions and samples: how much fine detail each model loses.

    The likelihoods are a Gaussian with standard deviation 1 for values in [0, 1], a Gaussian whose standard deviation
    is fitted to the errors, and a mixture of discretised logistics, each with 8 and with 64 latents. High frequencies
    are those above a quarter of a cycle per pixel. Reconstructions are shown as means of p(x|z) and as samples from
    it.
    """
    data = bench.data
    plans = {
        f"{name}, {latent} latents": Plan("vae", {**choices, "latent": latent, "warmup": 0})
        for latent in LATENTS
        for name, choices in LIKELIHOODS.items()
    }
    runs = bench.train(plans)
    bench.stage("measuring")
    n = min(bench.sized(200, 2000), len(data.test))
    low, high = data.scale
    clean = (data.events(data.test[:n]) - low) / (high - low)
    frequency, power = radial_power(clean)
    fine = frequency >= HIGH
    numbers: dict[str, Any] = {"frequency": frequency.tolist(), "data": power.mean(0).tolist(), "models": {}}
    of_data = power[:, fine].sum(1)
    total = of_data.mean()
    numbers |= {"fine": (of_data / total).tolist(), "group": bench.groups(n)}
    rows = [strip(bench, "data", low + np.concatenate([clean[:SHOWN]] * 2) * (high - low))]
    spectra: dict[str, dict[str, np.ndarray]] = {}
    for name, run in runs.items():
        z = run.encode("test", n=n)
        pictures_of = {"mean": run.decode(z), "drawn": run.decode(z, noise=True), "prior": run.sample(n)}
        power_of = {kind: radial_power((x - low) / (high - low))[1] for kind, x in pictures_of.items()}
        spectra[name] = {kind: p.mean(0) for kind, p in power_of.items()}
        numbers["models"][name] = {
            "kept": {kind: (p[:, fine].sum(1) / total).tolist() for kind, p in power_of.items()},
            "error": float(((pictures_of["mean"] - low) / (high - low) - clean).std()),
            "spectra": {kind: p.mean(0).tolist() for kind, p in power_of.items()},
        }
        shown = np.concatenate([pictures_of["mean"][:SHOWN], pictures_of["drawn"][:SHOWN]])
        rows.append(strip(bench, name, shown))
    caption = f"Reconstructions of the first {SHOWN} test examples: means of p(x|z), then samples from it."
    pictures = Section("pictures", "Reconstructions", [Strips("blur", rows, "Reconstructions by model", caption)])
    return Findings(read(numbers), [_spectra(frequency, power.mean(0), spectra), pictures, _table(numbers, n)], numbers)


def kept(numbers: dict[str, Any], name: str, kind: str) -> float:
    """The power of a model's pictures at high frequencies, divided by that of the data."""
    return float(np.mean(numbers["models"][name]["kept"][kind]))


CLAIMS = 2 * len(LIKELIHOODS) * len(LATENTS) + 2  # each model's mean and samples, the latents, the sigma


def read(numbers: dict[str, Any]) -> list[str]:
    """The results for means, samples, the likelihood, and the number of latents."""
    models, group, level = numbers["models"], numbers.get("group"), LEVEL / CLAIMS
    share = {name: kept(numbers, name, "mean") for name in models}
    sharpest, blurriest = max(share, key=share.__getitem__), min(share, key=share.__getitem__)
    blurred = [
        name for name in models if direction(paired(models[name]["kept"]["mean"], numbers["fine"], group), level) < 0
    ]
    few, many = (f"fitted sigma, {latent} latents" for latent in LATENTS)
    unit = f"unit Gaussian, {LATENTS[1]} latents"
    latents = paired(models[many]["kept"]["mean"], models[few]["kept"]["mean"], group)
    sigma = paired(models[many]["kept"]["mean"], models[unit]["kept"]["mean"], group)
    drawn = {name: kept(numbers, name, "drawn") for name in models}
    nearest = min(drawn, key=lambda name: abs(np.log(max(drawn[name], 1e-9))))
    noise = paired(models[nearest]["kept"]["drawn"], models[nearest]["kept"]["mean"], group)
    return [
        (
            "Every model's mean reconstruction loses fine detail"
            if len(blurred) == len(models)
            else "No model's mean reconstruction loses a significant amount of fine detail"
            if not blurred
            else f"The mean reconstructions of {len(blurred)} of {len(models)} models lose fine detail"
        )
        + f": they keep between {share[blurriest]:.0%} ({blurriest}) and {share[sharpest]:.0%} ({sharpest}) of the "
        "power at high frequencies.",
        f"With a fitted sigma, {LATENTS[1]} latents keep {share[many]:.0%} and {LATENTS[0]} latents {share[few]:.0%}: "
        + choose(
            direction(latents, level),
            "part of the blur comes from the small code.",
            "more latents make the reconstruction less sharp.",
            "the difference is not significant.",
        ),
        f"Fitting sigma instead of fixing it at 1 changes this share from {share[unit]:.0%} to {share[many]:.0%}: "
        + choose(
            direction(sigma, level),
            "a standard deviation of 1 on pictures in [0, 1] gives the KL too much weight, which blurs.",
            "the fitted sigma blurs more here.",
            "the difference is not significant.",
        ),
        f"Samples from p(x|z) have {number(drawn[nearest])} times the data's power at high frequencies at best "
        f"({nearest}), and {number(drawn[unit])} times for the {unit}: "
        + choose(
            direction(noise, level),
            "pixel noise replaces the missing power with grain, not with detail.",
            "sampling does not restore the missing power.",
            "whether sampling restores any of the missing power is uncertain.",
        ),
    ]


# --- figures ----------------------------------------------------------------------------------------------------


def _spectra(frequency: np.ndarray, data: np.ndarray, spectra: dict[str, dict[str, np.ndarray]]) -> Section:
    panels: dict[str, dict[str, Line]] = {}
    for kind, title in KINDS.items():
        panels[title] = {"data": Line(frequency, data)}
        for name, powers in spectra.items():
            first = name.replace(f", {LATENTS[1]} ", f", {LATENTS[0]} ")
            panels[title][name] = Line(
                frequency, powers[kind], dashed=name != first, like=None if name == first else first
            )
    picture = plot(
        "spectra",
        lambda: figures.curves(panels, "cycles per pixel", "power", log_y=True, marked=False, height=3.6, shared=True),
        "Radially averaged power spectra of data, reconstructions and samples",
        "Power at each spatial frequency, averaged over directions and pictures, for values in [0, 1]; dashed: "
        f"{LATENTS[1]} latents. A line below that of the data means too little detail of that size; a line above it "
        "means too much.",
    )  # fmt: skip
    return Section("spectra", "Power spectra", [picture])


def _table(numbers: dict[str, Any], n: int) -> Section:
    rows = [
        [
            name,
            *(estimate(f["kept"][kind], None if kind == "prior" else numbers["group"]).text(3) for kind in KINDS),
            number(f["error"]),
        ]
        for name, f in numbers["models"].items()
    ]
    caption = (
        f"Power at frequencies above {HIGH:g} cycles per pixel, divided by that of the data; {n:,} test examples and "
        "as many samples, mean ± standard error. Error: RMS error of the mean reconstruction, for values in [0, 1]."
    )
    head = ["model", *KINDS.values(), "error"]
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(1, 2, 3, 4))])
