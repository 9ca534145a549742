"""Figures 2 and 4 of Kingma and Welling (2013) on any data; `kingma2013_marginal` has figure 3."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from vaekit import figures
from vaekit.data.observation import Binary
from vaekit.figures import Line
from vaekit.latents.paths import manifold_grid
from vaekit.metrics import floors
from vaekit.report.blocks import Section, Table, Text, plot, still
from vaekit.runs.saved import SavedRun
from vaekit.runs.trained import TrainedModel

from .bench import Bench, Plan
from .registry import Findings, study
from .words import LEVEL, Estimate, choose, difference, direction, estimate, highest, listed, number, paired, trend

LATENTS = (3, 5, 10, 20, 200)
AEVB, SLEEP = "AEVB", "wake-sleep"
GRID = 20


@study("kingma2013-bound", "Kingma and Welling 2013, arXiv:1312.6114, figures 2 and 4; Hinton et al. 1995")
def kingma2013_bound(bench: Bench) -> Findings:
    """Reproduces figure 2 of the paper, the bound of AEVB and wake-sleep during training, and figure 4, the manifold.

    The paper's networks (one tanh layer, 500 wide, trained by Adagrad with batches of 100) have 3, 5, 10, 20 and 200
    latents and are trained by AEVB and by wake-sleep from the same initial weights. The learning rate is 0.005, the
    best of 0.005, 0.01 and 0.02 for both methods after a thousand steps on Fashion-MNIST; at 0.02, one of the paper's
    rates, wake-sleep diverges. The lower bound on training and validation data is recorded during training. The
    manifold is that of the recipe `kingma2013`.
    """
    width = 500 if len(bench.data.train) > 5000 else 200
    training = {
        "validate_steps": 100,
        "optimiser": "adagrad",
        "lr": 0.005,
        "batch": 100,
        "ema": 0.0,
        "weight_decay": 0.0,
    }
    plans = {}
    for d in LATENTS:
        choices = {"latent": d, "hidden": (width,), "activation": "tanh", "network": "dense"}
        plans[f"{AEVB}, {d}"] = Plan("vae", {**choices, "warmup": 0}, training)
        plans[f"{SLEEP}, {d}"] = Plan("wake-sleep", choices, training)
    manifold = bench.data.kind == "image"
    if manifold:
        plans["manifold"] = Plan("kingma2013", {"latent": 2, "hidden": width}, {"validate_steps": 100})
    runs = bench.train(plans)
    bench.stage("measuring")
    batch = min(100, len(bench.data.train))
    sizes = {part: min(bench.sized(300, 2000), len(getattr(bench.data, part))) for part in ("train", "valid")}
    numbers: dict[str, Any] = {"curves": {}, "elbo": {}, "floor": None}
    numbers |= {"group": bench.groups(sizes["valid"], "valid"), "train_group": bench.groups(sizes["train"], "train")}
    for name in plans:
        if name != "manifold":
            numbers["curves"][name] = {kind: curve(runs[name], kind, batch) for kind in ("train", "valid")}
            numbers["elbo"][name] = {
                part: bench.score(runs[name], n, split=part).elbo.tolist() for part, n in sizes.items()
            }
    first = runs[f"{AEVB}, {LATENTS[0]}"]
    if isinstance(first.composition.observation, Binary):
        observed = bench.observed(first, "valid")
        numbers["floor"] = floors(first, observed, sizes["valid"]).tolist()
    sections = [_figure2(numbers), _table(numbers)]
    if manifold:
        sections.append(_figure4(bench, runs["manifold"]))
    return Findings(read(numbers), sections, numbers)


def curve(run: SavedRun, kind: str, batch: int) -> dict[str, list[float]]:
    """Samples seen and the ELBO: of validation data (`valid`), or of the training batches between records (`train`)."""
    records = [r for r in run.log if r["kind"] == kind]
    elbo = {}
    for r in records:
        value = r.get("elbo")
        if value is None and r.get("rate") is not None and r.get("distortion") is not None:
            value = -(r["rate"] + r["distortion"])
        if value is not None:
            elbo[r["step"]] = value
    return {"samples": [float(s * batch) for s in sorted(elbo)], "elbo": [elbo[s] for s in sorted(elbo)]}


def scored(numbers: dict[str, Any], method: str, d: int, part: str = "valid") -> np.ndarray:
    """The ELBO of each example at the end of training, (n,)."""
    return np.array(numbers["elbo"][f"{method}, {d}"][part], float)


CLAIMS = len(LATENTS) + 3  # the methods for each number of latents, the best number, its lead, overfitting
LITTLE = 0.05  # superfluous latents cost little if they cost less than this share of the bound


def read(numbers: dict[str, Any]) -> list[str]:
    """The results for the two methods, for superfluous latents, and for overfitting."""
    level, group = LEVEL / CLAIMS, numbers.get("group")
    ends = {str(d): scored(numbers, AEVB, d) for d in LATENTS}
    best, ties = highest(ends, group, level)
    cost = paired(ends[best], ends[str(LATENTS[-1])], group)
    over, steps = _overfitting(numbers)
    sentences = [
        _methods(numbers, level),
        f"The bound of AEVB is best with {best} latents"
        + (f", not significantly better than with {listed(ties)}. " if ties else ". ")
        + _superfluous(best, bool(ties), cost, float(np.mean(ends[best])), level),
        f"The bound on training data minus that on validation data is {listed([e.text() for e in over])} nats for "
        "these numbers of latents: "
        + choose(
            trend(steps, level),
            "more latents overfit more.",
            "more latents overfit less.",
            "no significant trend.",
        ),
    ]
    if numbers["floor"] is not None:
        below = paired(-np.array(numbers["floor"], float), ends[best], group)
        sentences.append(
            f"In expectation no bound can exceed {number(-float(np.mean(numbers['floor'])))} nats, minus the entropy "
            f"of the binary draw; the best bound here is {below.text()} nats lower."
        )
    return sentences


def _methods(numbers: dict[str, Any], level: float) -> str:
    """Which of the two methods ends above the other, for each number of latents."""
    gaps = {d: paired(scored(numbers, AEVB, d), scored(numbers, SLEEP, d), numbers.get("group")) for d in LATENTS}
    signs = {d: direction(gap, level) for d, gap in gaps.items()}
    above, below, similar = ([str(d) for d in LATENTS if signs[d] == s] for s in (1, -1, 0))
    if len(above) == len(LATENTS):
        text = "AEVB ends above wake-sleep for every number of latents"
    elif len(below) == len(LATENTS):
        text = "Wake-sleep ends above AEVB for every number of latents, contrary to the paper"
    elif len(similar) == len(LATENTS):
        text = "AEVB and wake-sleep do not differ significantly for any number of latents"
    else:
        verdicts = (("above", above), ("below", below), ("not significantly apart from", similar))
        text = "AEVB ends " + listed(
            [f"{word} wake-sleep with {listed(which)} latents" for word, which in verdicts if which]
        )
    values = listed([gap.text() for gap in gaps.values()])
    return f"{text}. AEVB minus wake-sleep is {values} nats with {listed([str(d) for d in LATENTS])} latents."


def _overfitting(numbers: dict[str, Any]) -> tuple[list[Estimate], list[Estimate]]:
    """AEVB's bound on training data minus that on validation data, and its change between numbers of latents."""
    groups = {"train": numbers.get("train_group"), "valid": numbers.get("group")}
    of = {d: {part: scored(numbers, AEVB, d, part) for part in groups} for d in LATENTS}
    over = [difference(*(estimate(of[d][part], group) for part, group in groups.items())) for d in LATENTS]
    steps = [
        difference(*(paired(of[b][part], of[a][part], group) for part, group in groups.items()))
        for a, b in itertools.pairwise(LATENTS)
    ]
    return over, steps


def _superfluous(best: str, tied: bool, cost: Estimate, bound: float, level: float) -> str:
    """The cost of the largest number of latents, compared with the best number."""
    if best == str(LATENTS[-1]):
        return "Whether any of these are superfluous is uncertain." if tied else "None of these are superfluous."
    low, high = cost.interval(level)
    line = LITTLE * abs(bound)
    return f"With {LATENTS[-1]} latents it is {cost.text()} nats lower: " + (
        "as the paper says, superfluous latents cost little, since the KL switches them off."
        if high < line
        else "here superfluous latents reduce the bound, contrary to the paper."
        if low > line
        else f"whether that is more than {LITTLE:.0%} of the bound is uncertain."
    )


# --- figures ----------------------------------------------------------------------------------------------------


def _figure2(numbers: dict[str, Any]) -> Section:
    panels: dict[str, dict[str, Line]] = {}
    for d in LATENTS:
        lines = {}
        for method in (AEVB, SLEEP):
            for kind in ("train", "valid"):
                measured = numbers["curves"][f"{method}, {d}"][kind]
                name = f"{method}, {'training' if kind == 'train' else 'validation'} data"
                partner = f"{method}, training data" if kind == "valid" else None
                lines[name] = Line(measured["samples"], measured["elbo"], dashed=kind == "valid", like=partner)
        panels[f"{d} latents"] = lines
    ends = [y for lines in panels.values() for line in lines.values() for y in np.asarray(line.y)[1:]]
    if not ends:
        return Section(
            "figure2",
            "The bound against samples seen",
            [Text("Not shown: the models have too few steps for a curve.", "note")],
        )
    floor = numbers["floor"]
    levels = None if floor is None else {"minus the draw's entropy": -float(np.mean(floor))}
    low, high = np.quantile(ends, 0.05), max([*ends, *(levels or {}).values()])
    limits = (float(low - 0.1 * (high - low)), float(high + 0.06 * (high - low)))
    picture = plot(
        "figure2",
        lambda: figures.curves(panels, "training samples seen", "bound, nats per example", log_x=True, levels=levels,
                               height=3.0, marked=False, limits=limits),
        "The lower bound against training samples seen for each number of latents, AEVB and wake-sleep",
        "As figure 2 of the paper. Training data: batches, averaged between records. Validation: at most 2,000 "
        "examples.",
    )  # fmt: skip
    return Section("figure2", "The bound against samples seen", [picture])


def _table(numbers: dict[str, Any]) -> Section:
    group = numbers["group"]
    rows = [
        [f"{d}", *(estimate(scored(numbers, m, d), group).text() for m in (AEVB, SLEEP)),
         paired(scored(numbers, AEVB, d), scored(numbers, SLEEP, d), group).text()]
        for d in LATENTS
    ]  # fmt: skip
    head = ["latents", AEVB, SLEEP, "difference"]
    n = len(scored(numbers, AEVB, LATENTS[0]))
    caption = f"Final lower bound on the first {n:,} validation examples, in nats per example, ± standard error."
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(1, 2, 3))])


def _figure4(bench: Bench, run: TrainedModel) -> Section:
    if bench.data.kind != "image":
        return Section("figure4", "The manifold", [Text("Not shown: the data are not images.", "note")])
    pictures = figures.channels_last(run.decode(manifold_grid(GRID)))
    zoom = max(1, -(-42 // max(pictures.shape[1:3])))
    grid = figures.image_grid(pictures, GRID, gap=0, scale=bench.data.scale, zoom=zoom)
    caption = (
        "As figure 4 of the paper: a grid of two latents, evenly spaced in the probability of N(0, I) from 5% to 95%; "
        "each point is decoded to the mean of p(x|z)."
    )
    return Section(
        "figure4", "The manifold of two latents", [still("figure4", grid, "A grid of decoded images", caption)]
    )
