"""Posterior collapse: brought about, seen, cured."""

from __future__ import annotations

from typing import Any

import numpy as np

from vaekit import figures
from vaekit.figures import Line
from vaekit.metrics import ACTIVE, is_active
from vaekit.metrics.latents import active_bounds
from vaekit.report.blocks import Section, Strips, Table, plot

from .bench import Bench, Plan
from .kl_weight import log_of
from .page import strip
from .registry import Findings, study
from .words import LEVEL, choose, direction, estimate, listed, number, paired

LATENT, SHOWN = 32, 10
HEAVY = 100.0
ILL = "collapsed"
PLAIN = "plain"
CURES = ("warm-up", "free bits", "a held rate", "less weight")


@study("collapse", "Bowman et al. 2016; Kingma et al. 2016; Lucas et al. 2019, arXiv:1911.02469; Razavi et al. 2019")
def collapse(bench: Bench) -> Findings:
    """Posterior collapse brought about by a heavy KL, seen in its latents, and cured in four ways.

    A KL of weight 100 is more than a nat of the code can pay back: q(z|x) becomes the prior, and every reconstruction
    the mean datum. Four cures are tried on the same network: a weight that rises from 0 over half of the training, free
    bits (0.25 nats a latent), a rate held at 10 nats by a learned multiplier, and a weight of 0.5. `plain` is weight 1.
    """
    shape = {"latent": LATENT}
    steps = bench.decided("steps", lambda: bench.steps_within(Plan("vae", shape), 2 + len(CURES)))
    runs = bench.train(
        {
            ILL: Plan("vae", {**shape, "beta": HEAVY}),
            PLAIN: Plan("vae", {**shape, "beta": 1.0}),
            "warm-up": Plan("vae", {**shape, "beta": 1.0, "warmup": max(1, steps // 2)}),
            "free bits": Plan("vae", {**shape, "free_bits": 0.25}),
            "a held rate": Plan("constrained", {**shape, "hold": "rate", "target": 10.0}),
            "less weight": Plan("vae", {**shape, "beta": 0.5}),
        }
    )
    bench.stage("measuring")
    n = min(bench.sized(500, 5000), len(bench.data.test))
    group = bench.groups(n)
    models: dict[str, Any] = {}
    rebuilt = {}
    for name, run in runs.items():
        scored = bench.score(run, n, samples=bench.sized(8, 64))
        models[name] = {
            "elbo": scored.elbo.tolist(),
            "log_px": float(scored.log_px.mean()),
            "rate": float(scored.rate.mean()),
            "distortion": float(scored.distortion.mean()),
            "active": int(is_active(scored.means).sum()),
            "bounds": active_bounds(scored.means, group, LEVEL / CLAIMS / len(runs)),
            "kl": [] if scored.kl is None else scored.kl.mean(0).tolist(),
        }
        rebuilt[name] = run.decode(scored.means[:SHOWN])
    logs = {name: log_of(run) for name, run in runs.items()}
    sections = [_course(logs), _latents(models)]
    if bench.data.kind == "image":
        data = bench.observed(runs[ILL]).raw(np.arange(len(rebuilt[ILL])))
        rows = [strip(bench, "data", data), *(strip(bench, name, x) for name, x in rebuilt.items())]
        picture = Strips("reconstructions", rows, "Test images and what each model makes of them",
                         "Decoded posterior means of the first test data: a collapsed model gives every datum the same "
                         "picture.")  # fmt: skip
        sections.append(Section("pictures", "What it looks like", [picture]))
    numbers = {"models": models, "group": group}
    return Findings(read(numbers), [*sections, _table(models, n, group)], numbers)


CLAIMS = 2 * len(CURES)  # each cure's latents, and its bound


def read(numbers: dict[str, Any]) -> list[str]:
    """What the numbers say of the illness and of each cure; `active` is how many latents are, surely and perhaps."""
    models, group = numbers["models"], numbers.get("group")
    ill, plain = models[ILL], models[PLAIN]
    level = LEVEL / CLAIMS
    said = [
        f"With weight {HEAVY:g} the code carries {number(ill['rate'])} nats in {ill['active']} of {LATENT} latents: "
        + (
            "the posterior has collapsed."
            if ill["bounds"][1] == 0
            else f"it has collapsed in part, where a weight of 1 uses {plain['active']}."
            if ill["bounds"][1] < plain["bounds"][0]
            else "the posterior has not collapsed, or not yet."
            if ill["bounds"][0] > 0
            else "these data do not tell whether the posterior collapsed."
        )
    ]
    cured = [name for name in CURES if models[name]["bounds"][0] > ill["bounds"][1]]
    failed = [name for name in CURES if name not in cured]
    gain = {name: paired(models[name]["elbo"], plain["elbo"], group) for name in CURES}
    if cured:
        best = max(cured, key=lambda name: gain[name].value)
        said.append(
            f"{_upper(listed(cured))} {'keep' if len(cured) > 1 else 'keeps'} latents in use "
            f"({listed([str(models[name]['active']) for name in cured])} of {LATENT})"
            + (f"; of {listed(failed)} that cannot be said." if failed else ".")
        )
        said.append(
            f"The best bound among them is that of {best}, "
            + choose(
                direction(gain[best], level),
                f"{number(gain[best].value)} nats above the plain model's: the cure pays even where nothing was ill.",
                f"{number(-gain[best].value)} nats below the plain model's: latents in use are not yet a better model.",
                "which these data cannot tell from the plain model's.",
            )
        )
    else:
        said.append("None of the four cures surely keeps more latents in use than the collapsed model has.")
    more = [name for name in CURES if models[name]["bounds"][0] > plain["bounds"][1]]
    lower = [name for name in more if direction(gain[name], level) < 0]
    if lower:
        said.append(
            f"{_upper(listed(lower))} {'use' if len(lower) > 1 else 'uses'} more latents than the plain model and "
            f"{'have' if len(lower) > 1 else 'has'} a lower bound: active latents are not an end in themselves."
        )
    return said


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- figures ----------------------------------------------------------------------------------------------------


def _course(logs: dict[str, dict[str, np.ndarray]]) -> Section:
    panels = {
        title: {name: Line(log["step"], log[key]) for name, log in logs.items() if len(log["step"])}
        for title, key in (("rate, KL(q ‖ p)", "rate"), ("distortion, −log p(x|z)", "distortion"))
    }
    picture = plot(
        "course", lambda: figures.curves(panels, "training step", "nats a datum"),
        "Rate and distortion against the training step for each model", "Training batches, as recorded.",
    )  # fmt: skip
    return Section("course", "In the course of training", [picture])


def _latents(numbers: dict[str, Any]) -> Section:
    lines = {
        name: Line(np.arange(1, len(found["kl"]) + 1), np.sort(found["kl"])[::-1])
        for name, found in numbers.items()
        if found["kl"]
    }
    picture = plot(
        "kl", lambda: figures.curves({"": lines}, "latent, sorted by KL", "KL, nats per datum", marked=False),
        "KL of each latent, sorted, for each model",
        "Mean KL of each latent from its prior on test data. A collapsed latent lies at 0.",
    )  # fmt: skip
    return Section("latents", "Latent by latent", [picture])


def _table(numbers: dict[str, Any], n: int, group: list[int] | None) -> Section:
    rows = [
        [name, estimate(f["elbo"], group).text(2), number(f["log_px"], 2), number(f["rate"]), number(f["distortion"]),
         f"{f['active']} ({f['bounds'][0]} to {f['bounds'][1]}) of {LATENT}"]
        for name, f in numbers.items()
    ]  # fmt: skip
    head = ["model", "ELBO", "log p(x)", "rate", "distortion", "active latents"]
    caption = (
        f"{n:,} test data, nats a datum; the ELBO is the bound itself whatever was trained. Active: variance of the "
        f"posterior mean above {ACTIVE}; in brackets how many surely are and how many may be; ± is the "
        "standard error over the data."
    )
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(1, 2, 3, 4, 5))])
