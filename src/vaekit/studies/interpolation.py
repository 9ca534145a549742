"""Ways between two data through the latent space."""

from __future__ import annotations

from typing import Any

import numpy as np

from vaekit import figures
from vaekit.data.core import Data
from vaekit.errors import ChoiceError
from vaekit.figures import Line
from vaekit.latents.paths import interpolate, lerp, midpoint, slerp
from vaekit.report.blocks import Section, Strips, Table, plot
from vaekit.runs.run import Run

from .bench import Bench, Plan
from .needs import check_whole
from .page import strip
from .registry import Findings, study
from .words import LEVEL, choose, difference, direction, estimate, listed, number, paired

STEPS, SHOWN, VARIATIONS = 9, 3, 8
SPREAD = 0.5  # of the variations about a midpoint, in standard deviations of the codes
WITHIN, BETWEEN = "within a class", "between classes"
LEAST_PAIRS = 5  # of a kind


@study(
    "interpolation",
    "White 2016, arXiv:1609.04468; Kingma and Welling 2013, arXiv:1312.6114",
    check=lambda data: _check(data),
)
def interpolation(bench: Bench) -> Findings:
    """Lerp, slerp and the midpoint between two data: how smooth the way is, within a class and between classes.

    A VAE and an autoencoder of the same shape. The way is even in the latent space; how even and how straight it is in
    pixels is measured on many pairs.
    """
    latent = 20
    runs = bench.train({"VAE": Plan("vae", {"latent": latent}), "autoencoder": Plan("ae", {"latent": latent})})
    bench.stage("measuring")
    n = bench.sized(60, 400)
    pairs = pick_pairs(bench.data, n)
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


def pick_pairs(data: Data, n: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows of test data to go between, up to n pairs of each kind; without classes there is one kind.

    No datum (and where data are split by group, no group) is in two pairs, so that all pairs are independent.
    """
    label, group, rng = data.test.label, data.test.group, np.random.default_rng(0)
    if label is None or len(np.unique(label[label >= 0])) < 2:
        rows = _one_of_each(rng.permutation(len(data.test)), group)
        pairs = {BETWEEN: rows[: len(rows) // 2 * 2].reshape(-1, 2)}
    else:
        rows = _one_of_each(rng.permutation(np.flatnonzero(label >= 0)), group)
        half = len(rows) // 2
        pairs = {WITHIN: _alike(rows[:half], label), BETWEEN: _unlike(rows[half:], label)}
    return {kind: (p[:n, 0], p[:n, 1]) for kind, p in pairs.items() if kind == BETWEEN or len(p) >= LEAST_PAIRS}


def _one_of_each(rows: np.ndarray, group: np.ndarray | None) -> np.ndarray:
    """The first row of each group, in the order given; all rows where there are none."""
    return rows if group is None else rows[np.sort(np.unique(group[rows], return_index=True)[1])]


def _alike(rows: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Disjoint pairs (P, 2) of rows of one class, in mixed order."""
    found = [np.zeros((0, 2), np.int64)]
    for c in np.unique(label[rows]):
        mine = rows[label[rows] == c]
        found.append(mine[: len(mine) // 2 * 2].reshape(-1, 2))
    return np.random.default_rng(1).permutation(np.concatenate(found))


def _unlike(rows: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Disjoint pairs (P, 2) of rows of two classes: sorted by class, the first half beside the second; mixed order."""
    order = rows[np.argsort(label[rows], kind="stable")]
    half = len(order) // 2
    pairs = np.stack([order[:half], order[len(order) - half :]], 1)
    return np.random.default_rng(2).permutation(pairs[label[pairs[:, 0]] != label[pairs[:, 1]]])


def _check(data: Data) -> None:
    check_whole(data, "interpolation")
    found = len(pick_pairs(data, LEAST_PAIRS)[BETWEEN][0])
    if found < LEAST_PAIRS:
        raise ChoiceError(
            f"interpolation needs {LEAST_PAIRS} pairs of test data of two classes (of groups of their own), and "
            f"{data.name} has {found}: give more data, or leave the classes out"
        )


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


CLAIMS = 4  # the bend, the classes, and two of the models


def read(numbers: dict[str, Any]) -> list[str]:
    """What the numbers say of lerp against slerp, of classes, and of the two models."""
    level = LEVEL / CLAIMS
    vae, ae = numbers["VAE"], numbers["autoencoder"]
    kinds = [kind for kind in (WITHIN, BETWEEN) if f"{kind}, lerp" in vae]
    bend = paired(vae[f"{BETWEEN}, slerp"]["detour"], vae[f"{BETWEEN}, lerp"]["detour"])
    shrink = {m: float(np.mean(vae[f"{BETWEEN}, {m}"]["middle norm"])) for m in ("lerp", "slerp")}
    said = [
        f"Half way between two data of the VAE a straight line is at {shrink['lerp']:.0%} of a code's usual norm, a "
        f"great circle at {shrink['slerp']:.0%}. In pixels the great circle's way was "
        + choose(
            direction(bend, level),
            f"longer, by {number(bend.value)} of the distance between the ends: the straight line is the shorter way.",
            f"shorter, by {number(-bend.value)} of the distance between the ends, in spite of its bend.",
            "as long as the straight line's, as far as these pairs can tell.",
        )
    ]
    if len(kinds) == 2:
        inside, across = (estimate(vae[f"{kind}, lerp"]["unevenness"]) for kind in kinds)
        said.append(
            f"Its largest pixel step is {inside.text()} times the mean one within a class and {across.text()} times "
            "between classes: "
            + choose(
                direction(difference(across, inside), level),
                "between classes the picture changes more at once, where one class gives way to the other.",
                "between classes the way is the more even one.",
                "whether a change of class makes the way less even these pairs cannot tell.",
            )
        )
    ways = {name: found[f"{BETWEEN}, lerp"] for name, found in (("VAE", vae), ("autoencoder", ae))}
    even, straight = (paired(ways["autoencoder"][key], ways["VAE"][key]) for key in ("unevenness", "detour"))
    text = {name: [estimate(way[key]).text() for key in ("unevenness", "detour")] for name, way in ways.items()}
    said.append(
        "Between the same data the autoencoder's way is "
        + choose(
            direction(even, level),
            "less even than the VAE's",
            "more even than the VAE's",
            "as even as the VAE's, as far as these pairs can tell",
        )
        + f" ({text['autoencoder'][0]} against {text['VAE'][0]}), "
        + choose(
            direction(straight, level),
            "and it goes the longer way round",
            "and it goes the straighter way",
            "and as straight, as far as they can tell",
        )
        + f" ({text['autoencoder'][1]} against {text['VAE'][1]} times the distance of its ends)."
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
