"""What a VAE blurs: power spectra of data, reconstructions and samples."""

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
HIGH = 0.25  # cycles a pixel, half of the highest frequency: from here on a frequency is called high
SHOWN = 6
SIDE = 8  # pixels that an image needs, to have high frequencies
KINDS = {"mean": "reconstruction, mean", "drawn": "reconstruction, drawn", "prior": "sample of the prior"}


def _check(data: Data) -> None:
    if data.kind != "image" or data.train[:1].dtype != np.uint8:
        raise ChoiceError("blur needs images of whole numbers (uint8), as files of pictures give them")
    check_images(data, "blur", SIDE)


@study("blur", "Larsen et al. 2016, arXiv:1512.09300; Rybkin et al. 2021, arXiv:2006.13202; Salimans et al. 2017",
       check=_check)  # fmt: skip
def blur(bench: Bench) -> Findings:
    """Power spectra of data, reconstructions and samples: how much fine detail is lost, by likelihood and latents.

    A Gaussian of fixed unit deviation in the range [0, 1], one whose deviation is fitted to the errors, and a mixture
    of discretised logistics, each with 8 and with 64 latents. Power at high frequencies is that above a quarter of a
    cycle a pixel; reconstructions are shown as means of p(x|z) and as draws from it.
    """
    data = bench.data
    plans = {
        f"{name}, {latent} latents": Plan("vae", {**choices, "latent": latent})
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
        z = run.encode("test", n)
        made = {"mean": run.decode(z), "drawn": run.decode(z, noise=True), "prior": run.sample(n)}
        of = {kind: radial_power((x - low) / (high - low))[1] for kind, x in made.items()}
        spectra[name] = {kind: p.mean(0) for kind, p in of.items()}
        numbers["models"][name] = {
            "kept": {kind: (p[:, fine].sum(1) / total).tolist() for kind, p in of.items()},
            "error": float(((made["mean"] - low) / (high - low) - clean).std()),
            "spectra": {kind: p.mean(0).tolist() for kind, p in of.items()},
        }
        shown = np.concatenate([made["mean"][:SHOWN], made["drawn"][:SHOWN]])
        rows.append(strip(bench, name, shown))
    caption = f"The first {SHOWN} test data as means of p(x|z), then the same as draws from it."
    pictures = Section("pictures", "What it looks like", [Strips("blur", rows, "Reconstructions by model", caption)])
    return Findings(read(numbers), [_spectra(frequency, power.mean(0), spectra), pictures, _table(numbers, n)], numbers)


def kept(numbers: dict[str, Any], name: str, kind: str) -> float:
    """The share of the data's power at high frequencies that a model gives back."""
    return float(np.mean(numbers["models"][name]["kept"][kind]))


CLAIMS = 2 * len(LIKELIHOODS) * len(LATENTS) + 2  # each model's loss and its draws, the latents, the deviation


def read(numbers: dict[str, Any]) -> list[str]:
    """What the numbers say of the mean, of draws, of the likelihood and of the number of latents."""
    models, group, level = numbers["models"], numbers.get("group"), LEVEL / CLAIMS
    share = {name: kept(numbers, name, "mean") for name in models}
    sharp, dull = max(share, key=share.__getitem__), min(share, key=share.__getitem__)
    lose = [
        name for name in models if direction(paired(models[name]["kept"]["mean"], numbers["fine"], group), level) < 0
    ]
    said = [
        (
            "Every model's mean reconstruction loses fine detail"
            if len(lose) == len(models)
            else "No model's mean reconstruction surely loses fine detail"
            if not lose
            else f"{len(lose)} of {len(models)} models surely lose fine detail in their mean reconstructions"
        )
        + f": of the power at high frequencies they keep {share[dull]:.0%} ({dull}) to {share[sharp]:.0%} ({sharp})."
    ]
    few, many = (f"fitted sigma, {latent} latents" for latent in LATENTS)
    gain = paired(models[many]["kept"]["mean"], models[few]["kept"]["mean"], group)
    said.append(
        f"With {LATENTS[1]} latents instead of {LATENTS[0]} a fitted sigma keeps {share[many]:.0%} instead of "
        f"{share[few]:.0%}: "
        + choose(
            direction(gain, level),
            "part of the blur is what the code has no room for.",
            "more room in the code made it no sharper, but less sharp.",
            "whether the room in the code makes a difference these data do not tell.",
        )
    )
    unit = f"unit Gaussian, {LATENTS[1]} latents"
    better = paired(models[many]["kept"]["mean"], models[unit]["kept"]["mean"], group)
    said.append(
        f"Fitting sigma instead of fixing it at 1 changes what is kept from {share[unit]:.0%} to {share[many]:.0%}: "
        + choose(
            direction(better, level),
            "a deviation of 1 on pictures in [0, 1] weighs the KL too heavily, and that blurs.",
            "a learned deviation blurs more here.",
            "whether the deviation makes a difference these data do not tell.",
        )
    )
    drawn = {name: kept(numbers, name, "drawn") for name in models}
    nearest = min(drawn, key=lambda name: abs(np.log(max(drawn[name], 1e-9))))
    more = direction(paired(models[nearest]["kept"]["drawn"], models[nearest]["kept"]["mean"], group), level)
    said.append(
        f"Draws from p(x|z) have {number(drawn[nearest])} times the data's power at high frequencies at best "
        f"({nearest}), and {number(drawn[unit])} times for the {unit}: "
        + choose(
            more,
            "what the mean lacks the noise of a pixel puts in, but as grain, not as detail.",
            "drawing puts none of it back.",
            "whether drawing puts any of it back these data do not tell.",
        )
    )
    return said


# --- figures ----------------------------------------------------------------------------------------------------


def _spectra(frequency: np.ndarray, data: np.ndarray, spectra: dict[str, dict[str, np.ndarray]]) -> Section:
    panels: dict[str, dict[str, Line]] = {}
    for kind, title in KINDS.items():
        panels[title] = {"data": Line(frequency, data)}
        for name, of in spectra.items():
            first = name.replace(f", {LATENTS[1]} ", f", {LATENTS[0]} ")
            panels[title][name] = Line(frequency, of[kind], dashed=name != first, like=None if name == first else first)
    picture = plot(
        "spectra",
        lambda: figures.curves(panels, "cycles a pixel", "power", log_y=True, marked=False, height=3.6, shared=True),
        "Radially averaged power spectra of data, reconstructions and samples",
        "Power at each spatial frequency, averaged over direction and pictures, values in [0, 1]; dashed: "
        f"{LATENTS[1]} latents. A line below that of the data lacks detail of that size, one above has too much.",
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
        f"Power at frequencies from {HIGH:g} cycles a pixel up, over that of the data (1: as much as in the data); "
        f"{n:,} test data and as many samples, mean ± standard error. Error: RMS of the mean reconstruction, values in "
        "[0, 1]."
    )
    head = ["model", *KINDS.values(), "error"]
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(1, 2, 3, 4))])
