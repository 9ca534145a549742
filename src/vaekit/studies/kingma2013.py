"""Figures 2 and 4 of Kingma and Welling (2013) on data of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import figures
from ..data.observation import Binary
from ..figures import Line
from ..latent import manifold_grid
from ..metrics import entropy_floor
from ..report.blocks import Section, Table, Text, plot, still
from ..run import Run
from .bench import Bench, Plan
from .registry import Findings, study
from .words import choose, listed, number, trend

LATENTS = (3, 5, 10, 20, 200)
AEVB, SLEEP = "AEVB", "wake-sleep"
GRID = 20


@study("kingma2013-bound", "Kingma and Welling 2013, arXiv:1312.6114, figures 2 and 4; Hinton et al. 1995")
def kingma2013_bound(bench: Bench) -> Findings:
    """Figure 2 of the paper: the bound against samples seen, AEVB beside wake-sleep; and figure 4, the manifold.

    The paper's networks (one tanh layer, 500 wide, trained by Adagrad with 100 data a step) with 3, 5, 10, 20 and 200
    latents, by AEVB and by wake-sleep from the same initial weights. The rate is 0.005: on Fashion-MNIST the best of
    0.005, 0.01 and 0.02 for either method after a thousand steps, where at 0.02, one of the paper's, wake-sleep breaks
    down. The lower bound on training and validation data is recorded as they learn. The manifold is that of the recipe
    `kingma2013`.
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
        plans[f"{AEVB}, {d}"] = Plan("vae", choices, training)
        plans[f"{SLEEP}, {d}"] = Plan("wake-sleep", choices, training)
    manifold = bench.data.kind == "image"
    if manifold:
        plans["manifold"] = Plan("kingma2013", {"latent": 2, "hidden": width}, {"validate_steps": 100})
    runs = bench.train(plans)
    bench.stage("measuring")
    batch = min(100, len(bench.data.train))
    numbers: dict[str, Any] = {"curves": {}, "floor": None}
    for name in plans:
        if name != "manifold":
            numbers["curves"][name] = {kind: curve(runs[name], kind, batch) for kind in ("train", "valid")}
    first = runs[f"{AEVB}, {LATENTS[0]}"]
    if isinstance(first.composition.observation, Binary):
        observed = bench.observed(first, "valid")
        numbers["floor"] = -entropy_floor(first, observed, min(observed.n, 2000))[0]
    sections = [_figure2(numbers), _table(numbers)]
    if manifold:
        sections.append(_figure4(bench, runs["manifold"]))
    return Findings(read(numbers), sections, numbers)


def curve(run: Run, kind: str, batch: int) -> dict[str, list[float]]:
    """Samples seen and the ELBO: of validation data, or of the training batches between two records."""
    records = [r for r in run.log if r["kind"] == kind]
    found = {}
    for r in records:
        value = r.get("elbo")
        if value is None and r.get("rate") is not None and r.get("distortion") is not None:
            value = -(r["rate"] + r["distortion"])
        if value is not None:
            found[r["step"]] = value
    return {"samples": [float(s * batch) for s in sorted(found)], "elbo": [found[s] for s in sorted(found)]}


def last(numbers: dict[str, Any], method: str, d: int) -> float:
    """The validation bound at the end."""
    return numbers["curves"][f"{method}, {d}"]["valid"]["elbo"][-1]


def read(numbers: dict[str, Any]) -> list[str]:
    """What the curves say of the two methods, of superfluous latents, and of overfitting."""
    gaps = {d: last(numbers, AEVB, d) - last(numbers, SLEEP, d) for d in LATENTS}
    ahead, behind = [d for d in LATENTS if gaps[d] > 0], [d for d in LATENTS if gaps[d] <= 0]
    said = [
        (
            "AEVB ends above wake-sleep at every number of latents"
            if not behind
            else "Wake-sleep ends above AEVB at every number of latents, the opposite of the paper"
            if not ahead
            else f"AEVB ends above wake-sleep with {listed([str(d) for d in ahead])} latents, below with "
            f"{listed([str(d) for d in behind])}"
        )
        + f" (AEVB less wake-sleep: {listed([number(gaps[d]) for d in LATENTS])} nats with "
        f"{listed([str(d) for d in LATENTS])} latents)."
    ]
    ends = [last(numbers, AEVB, d) for d in LATENTS]
    best = LATENTS[int(np.argmax(ends))]
    cost = max(ends) - ends[-1]
    said.append(
        f"The bound of AEVB is best with {best} latents. "
        + (
            "The most latents are the best: nothing was superfluous."
            if best == LATENTS[-1]
            else f"{LATENTS[-1]} latents lie {number(cost)} nats below it: "
            + (
                "superfluous latents cost little, as the paper says, since the KL switches them off."
                if cost < 0.05 * abs(max(ends))
                else "here superfluous latents did cost, which the paper did not see."
            )
        )
    )
    over = {}
    for d in LATENTS:
        found = numbers["curves"][f"{AEVB}, {d}"]
        over[d] = found["train"]["elbo"][-1] - found["valid"]["elbo"][-1]
    said.append(
        f"The bound on training data less that on validation data is {listed([number(over[d]) for d in LATENTS])} "
        "nats: "
        + choose(
            trend(LATENTS, list(over.values())),
            "more latents overfit more.",
            "more latents overfit less.",
            "more latents do not overfit more.",
        )
    )
    if numbers["floor"] is not None:
        said.append(
            f"No bound can lie above {number(numbers['floor'])} nats, the entropy of the binary draw itself; the best "
            f"here is {number(numbers['floor'] - max(ends))} nats below it."
        )
    return said


# --- figures ----------------------------------------------------------------------------------------------------


def _figure2(numbers: dict[str, Any]) -> Section:
    panels: dict[str, dict[str, Line]] = {}
    for d in LATENTS:
        lines = {}
        for method in (AEVB, SLEEP):
            for kind in ("train", "valid"):
                found = numbers["curves"][f"{method}, {d}"][kind]
                name = f"{method}, {'training' if kind == 'train' else 'validation'} data"
                partner = f"{method}, training data" if kind == "valid" else None
                lines[name] = Line(found["samples"], found["elbo"], dashed=kind == "valid", like=partner)
        panels[f"{d} latents"] = lines
    ends = [y for lines in panels.values() for line in lines.values() for y in np.asarray(line.y)[1:]]
    levels = {"entropy of the draw": numbers["floor"]} if numbers["floor"] is not None else None
    low, high = np.quantile(ends, 0.05), max([*ends, *(levels or {}).values()])
    limits = (float(low - 0.1 * (high - low)), float(high + 0.06 * (high - low)))
    picture = plot(
        "figure2",
        lambda: figures.curves(panels, "training samples seen", "lower bound, nats a datum", log_x=True, levels=levels,
                               height=3.0, marked=False, limits=limits),
        "The lower bound against training samples seen for each number of latents, AEVB and wake-sleep",
        "As figure 2 of the paper. Training data: the batches as they came, averaged between records. Validation: at "
        "most 2,000 data.",
    )  # fmt: skip
    return Section("figure2", "The bound against samples seen", [picture])


def _table(numbers: dict[str, Any]) -> Section:
    rows = [
        [f"{d}", *(number(last(numbers, m, d), 2) for m in (AEVB, SLEEP)),
         number(last(numbers, AEVB, d) - last(numbers, SLEEP, d), 2)]
        for d in LATENTS
    ]  # fmt: skip
    head = ["latents", AEVB, SLEEP, "difference"]
    caption = "Lower bound on validation data at the end, nats a datum."
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(1, 2, 3))])


def _figure4(bench: Bench, run: Run) -> Section:
    if bench.data.kind != "image":
        return Section("figure4", "The manifold", [Text("Not shown: the data are no images.", "note")])
    pictures = figures.channels_last(run.decode(manifold_grid(GRID)))
    zoom = max(1, -(-42 // max(pictures.shape[1:3])))
    grid = figures.image_grid(pictures, GRID, gap=0, scale=bench.data.scale, zoom=zoom)
    caption = (
        "As figure 4 of the paper: two latents on a grid evenly spaced in the probability of N(0, I), 5% to 95%, each "
        "point decoded to the mean of p(x|z)."
    )
    return Section(
        "figure4", "The manifold of two latents", [still("figure4", grid, "A grid of decoded images", caption)]
    )
