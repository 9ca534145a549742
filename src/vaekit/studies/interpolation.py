"""Ways between two data through the latent space."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import figures
from ..errors import ChoiceError
from ..figures import Line
from ..latent import interpolate, lerp, midpoint, slerp
from ..report.blocks import Section, Strips, Table, plot
from ..run import Run
from .bench import Bench, Plan
from .page import strip
from .registry import Findings, study
from .words import choose, direction, estimate, listed, number, paired, sign

STEPS, SHOWN, VARIATIONS = 9, 3, 8
SPREAD = 0.5  # of the variations about a midpoint, in standard deviations of the codes
WITHIN, BETWEEN = "within a class", "between classes"


@study("interpolation", "White 2016, arXiv:1609.04468; Kingma and Welling 2013, arXiv:1312.6114")
def interpolation(bench: Bench) -> Findings:
    """Lerp, slerp and the midpoint between two data: how smooth the way is, within a class and between classes.

    A VAE and an autoencoder of the same shape. The way is even in the latent space; how even and how straight it is in
    pixels is measured on many pairs.
    """
    latent = 20
    runs = bench.train({"VAE": Plan("vae", {"latent": latent}), "autoencoder": Plan("ae", {"latent": latent})})
    bench.stage("measuring")
    n = bench.sized(60, 400)
    pairs = pick_pairs(bench, n)
    numbers: dict[str, Any] = {}
    ways: dict[str, dict[str, np.ndarray]] = {}
    for name, run in runs.items():
        bench.observed(run)
        codes = {kind: [run.encode("test", rows=rows) for rows in ends] for kind, ends in pairs.items()}
        norms = np.linalg.norm(np.concatenate([z for ends in codes.values() for z in ends]), axis=1)
        numbers[name] = {"norm": float(np.median(norms))}
        ways[name] = {}
        for kind, (a, b) in codes.items():
            for mode in ("lerp", "slerp"):
                measured, decoded = along(run, a, b, mode)
                measured["middle norm"] = np.linalg.norm(midpoint(a, b, mode), axis=1) / np.median(norms)
                numbers[name][f"{kind}, {mode}"] = {k: v.tolist() for k, v in measured.items()}
                ways[name][f"{kind}, {mode}"] = decoded
    return Findings(
        read(numbers),
        [
            *([_strips(bench, runs["VAE"], pairs)] if bench.data.kind == "image" else []),
            _steps(numbers),
            _table(numbers, {kind: len(a) for kind, (a, _) in pairs.items()}),
        ],
        numbers,
    )


def pick_pairs(bench: Bench, n: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows of test data to go between, n pairs of each kind; without classes there is one kind."""
    label, rng = bench.data.test.label, np.random.default_rng(0)
    if label is None or len(np.unique(label[label >= 0])) < 2:
        order = rng.permutation(len(bench.data.test))[: 2 * n]
        half = len(order) // 2
        return {BETWEEN: (order[:half], order[half : 2 * half])}
    rows = np.flatnonzero(label >= 0)
    if len(rows) < 4:
        raise ChoiceError("interpolation needs more test data: give more data, or a larger --test")
    a, b = rng.choice(rows, 20 * n), rng.choice(rows, 20 * n)
    same = (label[a] == label[b]) & (a != b)
    return {kind: (a[these][:n], b[these][:n]) for kind, these in ((WITHIN, same), (BETWEEN, label[a] != label[b]))}


def along(run: Run, a: np.ndarray, b: np.ndarray, mode: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """How a way (P, STEPS) of equal latent steps goes in the data: its evenness and straightness, by pair.

    `unevenness` is the largest step over the mean one (1 where all are equal); `detour` the length of the way over the
    distance of its ends, in RMS over elements; `steps` (P, STEPS - 1) the steps as shares of the way.
    """
    go = lerp if mode == "lerp" else slerp
    t = np.linspace(0, 1, STEPS)
    z = np.stack([go(a, b, s) for s in t], 1)  # (P, STEPS, D)
    x = run.decode(z.reshape(-1, z.shape[-1])).reshape(len(a), STEPS, -1)
    steps = np.sqrt(((x[:, 1:] - x[:, :-1]) ** 2).mean(2))
    length = np.maximum(steps.sum(1), 1e-12)
    ends = np.maximum(np.sqrt(((x[:, -1] - x[:, 0]) ** 2).mean(1)), 1e-12)
    found = {
        "unevenness": steps.max(1) / (length / (STEPS - 1)),
        "detour": length / ends,
        "steps": steps / length[:, None],
    }
    return found, x


def read(numbers: dict[str, Any]) -> list[str]:
    """What the numbers say of lerp against slerp, of classes, and of the two models."""
    vae, ae = numbers["VAE"], numbers["autoencoder"]
    kinds = [kind for kind in (WITHIN, BETWEEN) if f"{kind}, lerp" in vae]
    bend = paired(vae[f"{BETWEEN}, slerp"]["detour"], vae[f"{BETWEEN}, lerp"]["detour"])
    shrink = {m: float(np.mean(vae[f"{BETWEEN}, {m}"]["middle norm"])) for m in ("lerp", "slerp")}
    said = [
        f"Half way between two data of the VAE a straight line is at {shrink['lerp']:.0%} of a code's usual norm, a "
        f"great circle at {shrink['slerp']:.0%}. In pixels the great circle's way was "
        + choose(
            direction(bend),
            f"longer, by {number(bend.value)} of the distance between the ends: the straight line is the shorter way.",
            f"shorter, by {number(-bend.value)} of the distance between the ends, in spite of its bend.",
            "as long as the straight line's, as far as these pairs can tell.",
        )
    ]
    if len(kinds) == 2:
        inside, across = (estimate(vae[f"{kind}, lerp"]["unevenness"]) for kind in kinds)
        gap = sign(across, inside)
        said.append(
            f"Its largest pixel step is {inside.text()} times the mean one within a class and {across.text()} times "
            "between classes: "
            + choose(
                gap,
                "between classes the picture changes more at once, where one class gives way to the other.",
                "between classes the way is the more even one.",
                "a change of class makes the way no less even.",
            )
        )
    even = paired(ae[f"{BETWEEN}, lerp"]["unevenness"], vae[f"{BETWEEN}, lerp"]["unevenness"])
    said.append(
        "Between the same data the autoencoder's way is "
        + choose(direction(even), "less even than the VAE's", "more even than the VAE's", "as even as the VAE's")
        + f" ({estimate(ae[f'{BETWEEN}, lerp']['unevenness']).text()} against "
        f"{estimate(vae[f'{BETWEEN}, lerp']['unevenness']).text()}), "
        + choose(
            direction(paired(ae[f"{BETWEEN}, lerp"]["detour"], vae[f"{BETWEEN}, lerp"]["detour"])),
            "and it goes the longer way round",
            "and it goes the straighter way",
            "and it is as straight",
        )
        + f" ({estimate(ae[f'{BETWEEN}, lerp']['detour']).text()} against "
        f"{estimate(vae[f'{BETWEEN}, lerp']['detour']).text()} times the distance of its ends)."
    )
    return said


# --- figures ----------------------------------------------------------------------------------------------------


def _strips(bench: Bench, run: Run, pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> Section:
    rows = []
    observed = run.observed("test")
    for kind, (a, b) in pairs.items():
        for first, second in zip(a[:SHOWN], b[:SHOWN], strict=True):
            ends = run.encode("test", rows=[first, second])
            data = observed.raw(np.array([first, second]))
            for mode in ("lerp", "slerp"):
                x = run.decode(interpolate(ends[0], ends[1], STEPS, mode))
                rows.append(strip(bench, mode, np.concatenate([data[:1], x, data[1:]]), kind))
    ends = run.encode("test", rows=[pairs[BETWEEN][0][0], pairs[BETWEEN][1][0]])
    middle = ends[0] + (ends[1] - ends[0]) / 2
    spread = SPREAD * run.encode("test", 500).std(0)
    around = middle + np.random.default_rng(0).normal(size=(VARIATIONS, len(middle))) * spread
    varied = run.decode(np.concatenate([middle[None], around]))
    head = ["data", *("" for _ in range(STEPS)), "data"]
    blocks = [
        Strips("ways", rows, "Rows of images that change from one to another",
               f"The VAE's ways between test data, {STEPS} even steps in the latent space; the outer columns are the "
               "data themselves.", head),
        Strips("midpoint", [strip(bench, "midpoint", varied, f"and {VARIATIONS} variations")],
               "A midpoint and variations about it",
               f"The midpoint z1 + (z2 - z1)/2 of the first pair between classes, then {VARIATIONS} codes drawn around "
               f"it with {SPREAD} of the codes' standard deviation."),
    ]  # fmt: skip
    return Section("ways", "Ways", list(blocks))


def _steps(numbers: dict[str, Any]) -> Section:
    t = np.arange(1, STEPS)
    panels: dict[str, dict[str, Line]] = {}
    for name in ("VAE", "autoencoder"):
        panels[name] = {}
        for key, found in numbers[name].items():
            if key == "norm":
                continue
            values = np.array(found["steps"]) * (STEPS - 1)
            mode = key.split(", ")[1]
            partner = key.replace("slerp", "lerp") if mode == "slerp" else None
            panels[name][key] = Line(t, values.mean(0), dashed=mode == "slerp", like=partner)
    picture = plot(
        "steps", lambda: figures.curves(panels, "step along the way", "pixel step, mean step = 1"),
        "Size of the pixel step against the place along the way",
        "How much the picture changes at each of the equal latent steps, relative to the mean step; mean over pairs. "
        "A flat line at 1 is a way as even in pixels as in the latent space.",
    )  # fmt: skip
    return Section("steps", "Pixel steps along latent steps", [picture])


def _table(numbers: dict[str, Any], pairs: dict[str, int]) -> Section:
    rows = []
    for name in ("VAE", "autoencoder"):
        for key, found in numbers[name].items():
            if key != "norm":
                rows.append([name, key, *(estimate(found[k]).text() for k in ("unevenness", "detour", "middle norm"))])
    count = listed([f"{n} pairs {kind}" for kind, n in pairs.items()])
    caption = (
        f"{count}, mean ± standard error. Largest step: over the mean one. Length: of the way over the distance of its "
        "ends, in RMS of pixels. Norm: of the code half way, over the median norm of the codes of data."
    )
    head = ["model", "way", "largest step", "length", "norm half way"]
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(2, 3, 4))])
