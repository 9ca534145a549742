"""What the weight of the KL does, and its warm-up."""

from __future__ import annotations

import numpy as np

from vaekit import figures
from vaekit.figures import Line
from vaekit.metrics import ACTIVE, is_active
from vaekit.report.blocks import Section, Table, plot
from vaekit.runs.run import Run

from .bench import Bench, Plan
from .registry import Findings, study
from .words import LEVEL, beside, between, choose, direction, estimate, highest, listed, number, paired, spread_ratio

SEEDS = 3
FIXED = (0.25, 1.0, 4.0)
LINEAR, CYCLIC = "linear warm-up", "cyclic warm-up"
PLAIN = "fixed 1"


@study("kl-weight", "Bowman et al. 2016, arXiv:1511.06349; Fu et al. 2019, arXiv:1903.10145; Alemi et al. 2018")
def kl_weight(bench: Bench) -> Findings:
    """The weight of the KL fixed, warmed up and cycled: what is learned, how steadily, what collapses.

    The same model is trained with the KL weighted by fixed numbers, by a weight that rises linearly to 1 over a third
    of training, and by one that rises again and again (four times), each from three seeds. The ELBO shown is the bound
    itself, with weight 1, whatever was trained.
    """
    latent = 16
    horizon = bench.decided(
        "steps", lambda: bench.steps_within(Plan("vae", {"latent": latent}), SEEDS * (len(FIXED) + 2))
    )
    weights = {f"fixed {beta:g}": {"beta": beta} for beta in FIXED}
    weights[LINEAR] = {"beta": 1.0, "warmup": max(1, horizon // 3)}
    weights[CYCLIC] = {"beta": 1.0, "warmup": max(1, horizon // 8), "cycles": max(1, horizon // 4)}
    plans = {
        f"{name}, seed {seed}": Plan("vae", {"latent": latent, **choices}, {"seed": seed})
        for seed in range(SEEDS)
        for name, choices in weights.items()
    }
    runs = bench.train(plans)
    bench.stage("measuring")
    n = min(bench.sized(500, 4000), len(bench.data.test))
    measured = {name: [measure(bench, runs[f"{name}, seed {s}"], n) for s in range(SEEDS)] for name in weights}
    numbers = {name: {k: [m[k] for m in found] for k in found[0]} for name, found in measured.items()}
    logs = {name: [log_of(runs[f"{name}, seed {s}"]) for s in range(SEEDS)] for name in weights}
    for name, found in logs.items():
        numbers[name]["spread"] = [spread(found)]
    return Findings(
        read(numbers),
        [_curves(logs), _plane(numbers, n), _table(numbers, latent)],
        numbers,
        [f"ELBO, rate, distortion: the first {n:,} test data, mean over {SEEDS} seeds ± its standard error."],
    )  # fmt: skip


def measure(bench: Bench, run: Run, n: int) -> dict[str, float]:
    """ELBO, rate, distortion, active latents of a run."""
    scored = bench.score(run, n, samples=4)
    return {
        "elbo": float(scored.elbo.mean()),
        "rate": float(scored.rate.mean()),
        "distortion": float(scored.distortion.mean()),
        "active": float(is_active(scored.means).sum()),
    }


def log_of(run: Run) -> dict[str, np.ndarray]:
    """Steps, rate and distortion of training batches, as recorded."""
    records = [r for r in run.log if r["kind"] == "train" and r.get("rate") is not None]
    steps, first = np.unique([r["step"] for r in records], return_index=True)
    return {"step": steps, **{k: np.array([records[i][k] for i in first]) for k in ("rate", "distortion")}}


def together(logs: list[dict[str, np.ndarray]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps that all seeds recorded (n,), and their values (seeds, n)."""
    steps = logs[0]["step"]
    for log in logs[1:]:
        steps = np.intersect1d(steps, log["step"])
    return steps, np.stack([log[name][np.searchsorted(log["step"], steps)] for log in logs])


def spread(logs: list[dict[str, np.ndarray]]) -> float:
    """How far seeds lie apart in the course of learning: the deviation of the ELBO between seeds, averaged over steps.

    The first fifth is left out, in which every weight falls from where it started.
    """
    steps, rate = together(logs, "rate")
    _, distortion = together(logs, "distortion")
    late = steps >= 0.2 * steps.max()
    return float((rate + distortion)[:, late].std(0, ddof=1).mean())


CLAIMS = 6  # the best, two gains, two ratios of spreads, the active latents


def read(numbers: dict[str, dict[str, list[float]]]) -> list[str]:
    """What the numbers say of warm-ups, of the weight, and of what collapses; seeds are paired."""
    level = LEVEL / CLAIMS
    elbo = {name: np.array(found["elbo"], float) for name, found in numbers.items()}
    best, ties = highest(elbo, level=level)
    said = [
        f"The best ELBO is that of `{best}`, {estimate(elbo[best]).text()} nats"
        + (
            f"; {SEEDS} seeds cannot tell {listed([f'`{t}`' for t in ties])} from it."
            if ties
            else ", above all others."
        )
    ]
    for name in (LINEAR, CYCLIC):
        gain = paired(elbo[name], elbo[PLAIN])
        ended = choose(
            direction(gain, level),
            f"ended {number(gain.value)} nats above a weight fixed at 1",
            f"ended {number(-gain.value)} nats below a weight fixed at 1",
            f"ended {number(abs(gain.value))} nats {'above' if gain.value > 0 else 'below'} a weight fixed at 1, which "
            f"{SEEDS} seeds cannot tell from none",
        )
        how, low, high = spread_ratio(numbers[name]["spread"][0], numbers[PLAIN]["spread"][0], SEEDS, level)
        apart = f"its seeds lay {number(how)} times as far apart on the way"
        steadier = choose(
            beside(low, high),
            f"Learning was less steady: {apart}, the opposite of what is often claimed for it.",
            f"Learning was steadier: {apart}, as is often claimed for it.",
            f"Whether learning was steadier, as is often claimed for it, {SEEDS} seeds cannot tell: {apart} "
            f"({between(low, high, level)}).",
        )
        said.append(f"A {name} {ended}. {steadier}")
    fixed = sorted((float(name.split()[1]), name) for name in numbers if name.startswith("fixed"))
    (low_weight, first), (high_weight, last) = fixed[0], fixed[-1]
    active = [float(np.mean(numbers[name]["active"])) for name in (first, last)]
    rates = [float(np.mean(numbers[name]["rate"])) for name in (first, last)]
    said.append(
        f"From weight {low_weight:g} to {high_weight:g} the rate went from {number(rates[0])} to {number(rates[1])} "
        "nats, and "
        + choose(
            direction(paired(numbers[last]["active"], numbers[first]["active"], step=1.0), level),
            f"more latents were active, not fewer ({active[0]:.3g} to {active[1]:.3g}): nothing collapsed.",
            f"latents collapsed: {active[0]:.3g} were active at the one and {active[1]:.3g} at the other.",
            f"no collapse is to be told from chance: {active[0]:.3g} latents were active at the one and "
            f"{active[1]:.3g} at the other.",
        )
    )
    return said


# --- figures ----------------------------------------------------------------------------------------------------


def _curves(logs: dict[str, list[dict[str, np.ndarray]]]) -> Section:
    panels: dict[str, dict[str, Line]] = {"rate, KL(q ‖ p)": {}, "distortion, −log p(x|z)": {}}
    for title, key in zip(panels, ("rate", "distortion"), strict=True):
        for name, found in logs.items():
            steps, values = together(found, key)
            panels[title][name] = Line(steps, values.mean(0), values.min(0), values.max(0))
    picture = plot(
        "curves", lambda: figures.curves(panels, "training step", "nats a datum"),
        "Rate and distortion against the training step for each weight, with bands over seeds",
        f"Training batches; the line is the mean of {SEEDS} seeds, the band from the lowest to the highest of them.",
    )  # fmt: skip
    return Section("curves", "In the course of training", [picture])


def _plane(numbers: dict[str, dict[str, list[float]]], n: int) -> Section:
    points = {name: (found["rate"], found["distortion"]) for name, found in numbers.items()}
    picture = plot(
        "rate-distortion",
        lambda: figures.scatter(points, "rate, nats a datum", "distortion, nats a datum", equal_sum=True),
        "Distortion against rate, a point a trained model",
        f"Each point is one trained model on the first {n:,} test data. Along a thin line the ELBO is the same; nearer "
        "the lower left it is better. The weight slides a model along the curve, from much rate to little.",
    )  # fmt: skip
    return Section("plane", "Rate against distortion", [picture])


def _table(numbers: dict[str, dict[str, list[float]]], latent: int) -> Section:
    rows = [
        [name, *(estimate(found[k]).text() for k in ("elbo", "rate", "distortion")),
         f"{np.mean(found['active']):.1f} of {latent}", number(found["spread"][0])]
        for name, found in numbers.items()
    ]  # fmt: skip
    head = ["weight", "ELBO", "rate", "distortion", "active latents", "spread on the way"]
    caption = (
        "nats a datum. Spread on the way: the standard deviation of the training ELBO between seeds, averaged over the "
        f"last four fifths of training. Active: variance of the posterior mean above {ACTIVE}."
    )
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(1, 2, 3, 4, 5))])
