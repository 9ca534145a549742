"""Paths between two examples through the latent space."""

from __future__ import annotations

from typing import Any

import numpy as np

from vaekit import figures
from vaekit.data.core import Data
from vaekit.errors import ChoiceError
from vaekit.figures import Line
from vaekit.latents.paths import interpolate, lerp, midpoint, slerp
from vaekit.report.blocks import Section, Strips, Table, plot
from vaekit.runs.trained import TrainedModel

from .bench import Bench, Plan
from .needs import check_whole
from .page import strip
from .registry import Findings, study
from .words import LEVEL, choose, difference, direction, estimate, listed, number, paired

STEPS, SHOWN, VARIATIONS = 9, 3, 8
SPREAD = 0.5  # of the variations around a midpoint, in standard deviations of the codes
WITHIN, BETWEEN = "within a class", "between classes"
LEAST_PAIRS = 5  # minimum number of pairs of each kind


@study(
    "interpolation",
    "White 2016, arXiv:1609.04468; Kingma and Welling 2013, arXiv:1312.6114",
    check=lambda data: _check(data),
)
def interpolation(bench: Bench) -> Findings:
    """Interpolates between examples with lerp, slerp and the midpoint, within a class and between classes.

    The models are a VAE and an autoencoder of the same shape. Steps are equal in latent space; the study measures on
    many pairs how even and how straight the path is in pixels.
    """
    latent = 20
    runs = bench.train(
        {"VAE": Plan("vae", {"latent": latent, "warmup": 0}), "autoencoder": Plan("ae", {"latent": latent})}
    )
    bench.stage("measuring")
    n = bench.sized(60, 400)
    pairs = pick_pairs(bench.data, n)
    numbers: dict[str, Any] = {}
    for name, run in runs.items():
        bench.observed(run)
        codes = {kind: [run.encode("test", rows=rows) for rows in ends] for kind, ends in pairs.items()}
        norms = np.linalg.norm(np.concatenate([z for ends in codes.values() for z in ends]), axis=1)
        numbers[name] = {"norm": float(np.median(norms))}
        for kind, (a, b) in codes.items():
            for mode in ("lerp", "slerp"):
                measured = along(run, a, b, mode)
                measured["middle norm"] = np.linalg.norm(midpoint(a, b, mode=mode), axis=1) / np.median(norms)
                numbers[name][f"{kind}, {mode}"] = {k: v.tolist() for k, v in measured.items()}
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
    """Row numbers of up to n pairs of test examples of each kind; without classes there is one kind.

    No example is in two pairs, and no group if the data are split by group, so that all pairs are independent.
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
    """The first row of each group, in this order; all rows if there are no groups."""
    return rows if group is None else rows[np.sort(np.unique(group[rows], return_index=True)[1])]


def _alike(rows: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Disjoint pairs (P, 2) of rows of the same class, shuffled."""
    pairs = [np.zeros((0, 2), np.int64)]
    for c in np.unique(label[rows]):
        of_class = rows[label[rows] == c]
        pairs.append(of_class[: len(of_class) // 2 * 2].reshape(-1, 2))
    return np.random.default_rng(1).permutation(np.concatenate(pairs))


def _unlike(rows: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Disjoint pairs (P, 2) of rows of different classes, shuffled: sorted by class, the first half with the second."""
    order = rows[np.argsort(label[rows], kind="stable")]
    half = len(order) // 2
    pairs = np.stack([order[:half], order[len(order) - half :]], 1)
    return np.random.default_rng(2).permutation(pairs[label[pairs[:, 0]] != label[pairs[:, 1]]])


def _check(data: Data) -> None:
    check_whole(data, "interpolation")
    count = len(pick_pairs(data, LEAST_PAIRS)[BETWEEN][0])
    if count < LEAST_PAIRS:
        raise ChoiceError(
            f"interpolation needs {LEAST_PAIRS} pairs of test examples from different classes (and groups), but "
            f"{data.name} has {count}: give more data, or omit the classes"
        )


def along(run: TrainedModel, a: np.ndarray, b: np.ndarray, mode: str) -> dict[str, np.ndarray]:
    """How even and straight the decoded paths of equal latent steps between codes a and b (P, D) are.

    Returns:
        `unevenness` (P,): the largest step divided by the mean step, 1 if all are equal;
        `detour` (P,): the length of the path divided by the distance between its ends, in RMS over elements;
        `steps` (P, STEPS - 1): each step as a share of the length.
    """
    point = lerp if mode == "lerp" else slerp
    z = np.stack([point(a, b, t) for t in np.linspace(0, 1, STEPS)], 1)  # (P, STEPS, D)
    x = run.decode(z.reshape(-1, z.shape[-1])).reshape(len(a), STEPS, -1)
    steps = np.sqrt(((x[:, 1:] - x[:, :-1]) ** 2).mean(2))
    length = np.maximum(steps.sum(1), 1e-12)
    ends = np.maximum(np.sqrt(((x[:, -1] - x[:, 0]) ** 2).mean(1)), 1e-12)
    return {
        "unevenness": steps.max(1) / (length / (STEPS - 1)),
        "detour": length / ends,
        "steps": steps / length[:, None],
    }


CLAIMS = 4  # slerp against lerp, within against between classes, and two for the models


def read(numbers: dict[str, Any]) -> list[str]:
    """The results for lerp against slerp, for classes, and for the two models."""
    level = LEVEL / CLAIMS
    vae, ae = numbers["VAE"], numbers["autoencoder"]
    kinds = [kind for kind in (WITHIN, BETWEEN) if f"{kind}, lerp" in vae]
    bend = paired(vae[f"{BETWEEN}, slerp"]["detour"], vae[f"{BETWEEN}, lerp"]["detour"])
    norm = {m: float(np.mean(vae[f"{BETWEEN}, {m}"]["middle norm"])) for m in ("lerp", "slerp")}
    sentences = [
        f"Halfway between two codes of the VAE, the straight line has {norm['lerp']:.0%} of a code's usual norm, and "
        f"the great circle has {norm['slerp']:.0%}. In pixels the great circle is "
        + choose(
            direction(bend, level),
            f"the longer path, by {number(bend.value)} times the distance between its ends.",
            f"the shorter path, by {number(-bend.value)} times the distance between its ends.",
            "not significantly longer or shorter.",
        )
    ]
    if len(kinds) == 2:
        inside, across = (estimate(vae[f"{kind}, lerp"]["unevenness"]) for kind in kinds)
        sentences.append(
            f"The straight line's largest pixel step is {inside.text()} times the mean step within a class and "
            f"{across.text()} times between classes: "
            + choose(
                direction(difference(across, inside), level),
                "between classes the picture changes more abruptly, where one class turns into the other.",
                "between classes the path is more even.",
                "the difference is not significant.",
            )
        )
    paths = {name: model[f"{BETWEEN}, lerp"] for name, model in (("VAE", vae), ("autoencoder", ae))}
    evenness, length = (paired(paths["autoencoder"][key], paths["VAE"][key]) for key in ("unevenness", "detour"))
    text = {name: [estimate(path[key]).text() for key in ("unevenness", "detour")] for name, path in paths.items()}
    sentences.append(
        "Between the same examples, the autoencoder's path is "
        + choose(
            direction(evenness, level),
            "less even than the VAE's",
            "more even than the VAE's",
            "not significantly more or less even than the VAE's",
        )
        + f" (largest step {text['autoencoder'][0]} against {text['VAE'][0]} times the mean) and "
        + choose(direction(length, level), "longer", "straighter", "not significantly longer or shorter")
        + f" (length {text['autoencoder'][1]} against {text['VAE'][1]} times the distance between its ends)."
    )
    return sentences


# --- figures ----------------------------------------------------------------------------------------------------


def _strips(bench: Bench, run: TrainedModel, pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> Section:
    rows = []
    observed = run.observed("test")
    for kind, (a, b) in pairs.items():
        for first, second in zip(a[:SHOWN], b[:SHOWN], strict=True):
            ends = run.encode("test", rows=[first, second])
            data = observed.raw(np.array([first, second]))
            for mode in ("lerp", "slerp"):
                x = run.decode(interpolate(ends[0], ends[1], steps=STEPS, mode=mode))
                rows.append(strip(bench, mode, np.concatenate([data[:1], x, data[1:]]), kind))
    ends = run.encode("test", rows=[pairs[BETWEEN][0][0], pairs[BETWEEN][1][0]])
    middle = ends[0] + (ends[1] - ends[0]) / 2
    spread = SPREAD * run.encode("test", n=500).std(0)
    around = middle + np.random.default_rng(0).normal(size=(VARIATIONS, len(middle))) * spread
    varied = run.decode(np.concatenate([middle[None], around]))
    head = ["data", *("" for _ in range(STEPS)), "data"]
    blocks = [
        Strips("ways", rows, "Rows of images that change from one to another",
               f"The VAE's paths between test examples, in {STEPS} equal steps in latent space; the outer columns are "
               "the examples themselves.", head),
        Strips("midpoint", [strip(bench, "midpoint", varied, f"and {VARIATIONS} variations")],
               "A midpoint and variations around it",
               f"The midpoint z1 + (z2 - z1)/2 of the first pair between classes, then {VARIATIONS} random codes "
               f"around it with {SPREAD} times the codes' standard deviation."),
    ]  # fmt: skip
    return Section("ways", "Paths", list(blocks))


def _steps(numbers: dict[str, Any]) -> Section:
    t = np.arange(1, STEPS)
    panels: dict[str, dict[str, Line]] = {}
    for name in ("VAE", "autoencoder"):
        panels[name] = {}
        for key, measured in numbers[name].items():
            if key == "norm":
                continue
            values = np.array(measured["steps"]) * (STEPS - 1)
            mode = key.split(", ")[1]
            partner = key.replace("slerp", "lerp") if mode == "slerp" else None
            panels[name][key] = Line(t, values.mean(0), dashed=mode == "slerp", like=partner)
    picture = plot(
        "steps", lambda: figures.curves(panels, "step along the path", "pixel step, mean step = 1"),
        "Size of the pixel step against the position along the path",
        "Change of the picture at each of the equal latent steps, relative to the mean step, averaged over pairs. A "
        "flat line at 1 means that the path is as even in pixels as in latent space.",
    )  # fmt: skip
    return Section("steps", "Pixel steps along latent steps", [picture])


def _table(numbers: dict[str, Any], pairs: dict[str, int]) -> Section:
    rows = []
    for name in ("VAE", "autoencoder"):
        for key, measured in numbers[name].items():
            if key != "norm":
                rows.append(
                    [name, key, *(estimate(measured[k]).text() for k in ("unevenness", "detour", "middle norm"))]
                )
    count = listed([f"{n} pairs {kind}" for kind, n in pairs.items()])
    caption = (
        f"{count}, mean ± standard error. The largest step is divided by the mean step; the length of the path is "
        "divided by the distance between its ends, in RMS of pixels; the norm of the code halfway is divided by the "
        "median norm of the data's codes."
    )
    head = ["model", "path", "largest step", "length", "norm halfway"]
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(2, 3, 4))])
