"""Posterior collapse: its cause, its signs, and four remedies."""

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
COLLAPSED = "collapsed"
PLAIN = "plain"
REMEDIES = ("warm-up", "free bits", "constrained rate", "lower weight")


@study("collapse", "Bowman et al. 2016; Kingma et al. 2016; Lucas et al. 2019, arXiv:1911.02469; Razavi et al. 2019")
def collapse(bench: Bench) -> Findings:
    """Causes posterior collapse with a high KL weight, shows it in the latents, and tries four remedies.

    With a KL weight of 100, a nat of information in the code costs more than it gains, so q(z|x) becomes the prior, and
    every reconstruction becomes the mean of the data. The four remedies use the same network: a weight that rises from
    0 over half of the training, free bits (0.25 nats per latent), a rate held at 10 nats by a learned multiplier, and a
    weight of 0.5. `plain` has weight 1.
    """
    shape = {"latent": LATENT}
    fixed = {**shape, "warmup": 0}
    steps = bench.decided("steps", lambda: bench.steps_within(Plan("vae", shape), 2 + len(REMEDIES)))
    runs = bench.train(
        {
            COLLAPSED: Plan("vae", {**fixed, "beta": HEAVY}),
            PLAIN: Plan("vae", {**fixed, "beta": 1.0}),
            "warm-up": Plan("vae", {**shape, "beta": 1.0, "warmup": max(1, steps // 2)}),
            "free bits": Plan("vae", {**fixed, "free_bits": 0.25}),
            "constrained rate": Plan("constrained", {**shape, "hold": "rate", "target": 10.0}),
            "lower weight": Plan("vae", {**fixed, "beta": 0.5}),
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
        data = bench.observed(runs[COLLAPSED]).raw(np.arange(len(rebuilt[COLLAPSED])))
        rows = [strip(bench, "data", data), *(strip(bench, name, x) for name, x in rebuilt.items())]
        picture = Strips("reconstructions", rows, "Test images and their reconstructions by each model",
                         "Decoded posterior means of the first test examples. A collapsed model decodes every example "
                         "to the same picture.")  # fmt: skip
        sections.append(Section("pictures", "Reconstructions", [picture]))
    numbers = {"models": models, "group": group}
    return Findings(read(numbers), [*sections, _table(models, n, group)], numbers)


CLAIMS = 2 * len(REMEDIES)  # the latents and the bound of each remedy


def read(numbers: dict[str, Any]) -> list[str]:
    """The results for the collapse and for each remedy; `bounds` is the interval of the number of active latents."""
    models, group = numbers["models"], numbers.get("group")
    collapsed, plain = models[COLLAPSED], models[PLAIN]
    level = LEVEL / CLAIMS
    sentences = [
        f"With weight {HEAVY:g} the code carries {number(collapsed['rate'])} nats, and {collapsed['active']} of "
        f"{LATENT} latents are active: "
        + (
            "the posterior has collapsed."
            if collapsed["bounds"][1] == 0
            else f"the posterior has partly collapsed; with weight 1, {plain['active']} are active."
            if collapsed["bounds"][1] < plain["bounds"][0]
            else "the posterior has not collapsed."
            if collapsed["bounds"][0] > 0
            else "whether the posterior has collapsed is uncertain."
        )
    ]
    helped = [name for name in REMEDIES if models[name]["bounds"][0] > collapsed["bounds"][1]]
    unclear = [name for name in REMEDIES if name not in helped]
    gain = {name: paired(models[name]["elbo"], plain["elbo"], group) for name in REMEDIES}
    if helped:
        best = max(helped, key=lambda name: gain[name].value)
        sentences.append(
            f"{_capitalised(listed(helped))} {'keep' if len(helped) > 1 else 'keeps'} latents active "
            f"({listed([str(models[name]['active']) for name in helped])} of {LATENT})"
            + (f"; for {listed(unclear)} the difference is not significant." if unclear else ".")
        )
        sentences.append(
            f"The best bound among them is that of {best}, "
            + choose(
                direction(gain[best], level),
                f"{number(gain[best].value)} nats above the plain model's: this remedy helps even without collapse.",
                f"{number(-gain[best].value)} nats below the plain model's: active latents alone do not make a better "
                "model.",
                "not significantly different from the plain model's.",
            )
        )
    else:
        sentences.append("None of the four remedies keeps significantly more latents active than the collapsed model.")
    more = [name for name in REMEDIES if models[name]["bounds"][0] > plain["bounds"][1]]
    if lower := [name for name in more if direction(gain[name], level) < 0]:
        sentences.append(
            f"With {listed(lower)}, more latents are active than in the plain model but the bound is lower: more "
            "active latents are not better in themselves."
        )
    return sentences


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- figures ----------------------------------------------------------------------------------------------------


def _course(logs: dict[str, dict[str, np.ndarray]]) -> Section:
    panels = {
        title: {name: Line(log["step"], log[key]) for name, log in logs.items() if len(log["step"])}
        for title, key in (("rate, KL(q ‖ p)", "rate"), ("distortion, −log p(x|z)", "distortion"))
    }
    picture = plot(
        "course", lambda: figures.curves(panels, "training step", "nats per example"),
        "Rate and distortion against the training step for each model", "Training batches, as recorded.",
    )  # fmt: skip
    return Section("course", "During training", [picture])


def _latents(numbers: dict[str, Any]) -> Section:
    lines = {
        name: Line(np.arange(1, len(measured["kl"]) + 1), np.sort(measured["kl"])[::-1])
        for name, measured in numbers.items()
        if measured["kl"]
    }
    picture = plot(
        "kl", lambda: figures.curves({"": lines}, "latent, sorted by KL", "KL, nats per example", marked=False),
        "KL of each latent, sorted, for each model",
        "Mean KL of each latent from its prior on test data. It is 0 for a collapsed latent.",
    )  # fmt: skip
    return Section("latents", "KL per latent", [picture])


def _table(numbers: dict[str, Any], n: int, group: list[int] | None) -> Section:
    rows = [
        [name, estimate(f["elbo"], group).text(2), number(f["log_px"], 2), number(f["rate"]), number(f["distortion"]),
         f"{f['active']} ({f['bounds'][0]} to {f['bounds'][1]}) of {LATENT}"]
        for name, f in numbers.items()
    ]  # fmt: skip
    head = ["model", "ELBO", "log p(x)", "rate", "distortion", "active latents"]
    caption = (
        f"{n:,} test examples, nats per example. The ELBO is the true bound for every objective. Active: variance of "
        f"the posterior mean above {ACTIVE}, with a confidence interval in brackets. ±: standard error over the data."
    )
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(1, 2, 3, 4, 5))])
