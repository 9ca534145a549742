"""Fixed, warmed-up and cyclic weights of the KL."""

from __future__ import annotations

import numpy as np

from vaekit import figures
from vaekit.figures import Line
from vaekit.metrics import ACTIVE, is_active
from vaekit.report.blocks import Section, Table, plot
from vaekit.runs.saved import SavedRun
from vaekit.runs.trained import TrainedModel

from .bench import Bench, Plan
from .registry import Findings, study
from .words import LEVEL, between, choose, direction, estimate, highest, listed, number, paired, side_of, spread_ratio

SEEDS = 3
FIXED = (0.25, 1.0, 4.0)
LINEAR, CYCLIC = "linear warm-up", "cyclic warm-up"
PLAIN = "fixed 1"


@study("kl-weight", "Bowman et al. 2016, arXiv:1511.06349; Fu et al. 2019, arXiv:1903.10145; Alemi et al. 2018")
def kl_weight(bench: Bench) -> Findings:
    """Compares fixed, warmed-up and cyclic KL weights: the ELBO, the stability of training, and collapse.

    The same model is trained with fixed weights, with a weight that rises linearly to 1 over a third of training, and
    with a weight that rises four times, each with three seeds. The ELBO is the true bound, with weight 1, for every
    objective.
    """
    latent = 16
    horizon = bench.decided(
        "steps", lambda: bench.steps_within(Plan("vae", {"latent": latent}), SEEDS * (len(FIXED) + 2))
    )
    weights = {f"fixed {beta:g}": {"beta": beta, "warmup": 0} for beta in FIXED}
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
    numbers = {name: {k: [m[k] for m in by_seed] for k in by_seed[0]} for name, by_seed in measured.items()}
    logs = {name: [log_of(runs[f"{name}, seed {s}"]) for s in range(SEEDS)] for name in weights}
    for name, by_seed in logs.items():
        numbers[name]["spread"] = [spread(by_seed)]
    return Findings(
        read(numbers),
        [_curves(logs), _plane(numbers, n), _table(numbers, latent)],
        numbers,
        [f"ELBO, rate and distortion: the first {n:,} test examples, mean over {SEEDS} seeds ± its standard error."],
    )  # fmt: skip


def measure(bench: Bench, run: TrainedModel, n: int) -> dict[str, float]:
    """ELBO, rate, distortion (nats per example) and number of active latents of a run."""
    scored = bench.score(run, n, samples=4)
    return {
        "elbo": float(scored.elbo.mean()),
        "rate": float(scored.rate.mean()),
        "distortion": float(scored.distortion.mean()),
        "active": float(is_active(scored.means).sum()),
    }


def log_of(run: SavedRun) -> dict[str, np.ndarray]:
    """Steps, rate and distortion of the training batches, as recorded: arrays (n,)."""
    records = [r for r in run.log if r["kind"] == "train" and r.get("rate") is not None]
    steps, first = np.unique([r["step"] for r in records], return_index=True)
    return {"step": steps, **{k: np.array([records[i][k] for i in first]) for k in ("rate", "distortion")}}


def together(logs: list[dict[str, np.ndarray]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps that all seeds recorded (n,), and the values of `name` at them (seeds, n)."""
    steps = logs[0]["step"]
    for log in logs[1:]:
        steps = np.intersect1d(steps, log["step"])
    return steps, np.stack([log[name][np.searchsorted(log["step"], steps)] for log in logs])


def spread(logs: list[dict[str, np.ndarray]]) -> float:
    """The standard deviation of the ELBO between seeds during training, averaged over steps, in nats.

    The first fifth of training is left out: there the ELBO depends on the initial weights.
    """
    steps, rate = together(logs, "rate")
    _, distortion = together(logs, "distortion")
    late = steps >= 0.2 * steps.max()
    return float((rate + distortion)[:, late].std(0, ddof=1).mean())


CLAIMS = 6  # the best ELBO, two gains, two ratios of spreads, the active latents


def read(numbers: dict[str, dict[str, list[float]]]) -> list[str]:
    """The results for warm-ups, for the weight, and for collapse; differences are paired by seed."""
    level = LEVEL / CLAIMS
    elbo = {name: np.array(measured["elbo"], float) for name, measured in numbers.items()}
    best, ties = highest(elbo, level=level)
    sentences = [
        f"The best ELBO is that of `{best}`, {estimate(elbo[best]).text()} nats; it is "
        + (f"not significantly above {listed([f'`{t}`' for t in ties])}." if ties else "higher than all others.")
    ]
    for name in (LINEAR, CYCLIC):
        gain = paired(elbo[name], elbo[PLAIN])
        ended = f"ended {number(abs(gain.value))} nats {'above' if gain.value > 0 else 'below'} a fixed weight of 1"
        significance = choose(direction(gain, level), ".", ".", ", which is not significant.")
        value, low, high = spread_ratio(numbers[name]["spread"][0], numbers[PLAIN]["spread"][0], SEEDS, level)
        comparison = f"the spread between seeds during training was {number(value)} times that of the fixed weight"
        stability = choose(
            side_of(low, high),
            f"Training was less stable, contrary to what is often claimed: {comparison}.",
            f"Training was more stable, as is often claimed: {comparison}.",
            f"Its often-claimed stability is not significant: {comparison} ({between(low, high, level)}).",
        )
        sentences.append(f"A {name} {ended}{significance} {stability}")
    fixed = sorted((float(name.split()[1]), name) for name in numbers if name.startswith("fixed"))
    (low_weight, first), (high_weight, last) = fixed[0], fixed[-1]
    active = [f"{np.mean(numbers[name]['active']):.3g}" for name in (first, last)]
    rates = [float(np.mean(numbers[name]["rate"])) for name in (first, last)]
    counts = f"on average {active[0]} were active at weight {low_weight:g} and {active[1]} at weight {high_weight:g}"
    sentences.append(
        f"From weight {low_weight:g} to {high_weight:g} the rate went from {number(rates[0])} to {number(rates[1])} "
        "nats, and "
        + choose(
            direction(paired(numbers[last]["active"], numbers[first]["active"], step=1.0), level),
            f"no latents collapsed: {counts}.",
            f"latents collapsed: {counts}.",
            f"the number of active latents did not change significantly: {counts}.",
        )
    )
    return sentences


# --- figures ----------------------------------------------------------------------------------------------------


def _curves(logs: dict[str, list[dict[str, np.ndarray]]]) -> Section:
    panels: dict[str, dict[str, Line]] = {"rate, KL(q ‖ p)": {}, "distortion, −log p(x|z)": {}}
    for title, key in zip(panels, ("rate", "distortion"), strict=True):
        for name, by_seed in logs.items():
            steps, values = together(by_seed, key)
            panels[title][name] = Line(steps, values.mean(0), values.min(0), values.max(0))
    picture = plot(
        "curves", lambda: figures.curves(panels, "training step", "nats per example"),
        "Rate and distortion against the training step for each weight, with bands over seeds",
        f"Training batches; the line is the mean of {SEEDS} seeds, the band extends from the lowest to the highest.",
    )  # fmt: skip
    return Section("curves", "During training", [picture])


def _plane(numbers: dict[str, dict[str, list[float]]], n: int) -> Section:
    points = {name: (measured["rate"], measured["distortion"]) for name, measured in numbers.items()}
    picture = plot(
        "rate-distortion",
        lambda: figures.scatter(points, "rate, nats per example", "distortion, nats per example", equal_sum=True),
        "Distortion against rate, one point per trained model",
        f"Each point is one trained model on the first {n:,} test examples. The ELBO is constant along each thin line "
        "and higher towards the lower left. A larger weight moves a model along the curve to a lower rate.",
    )  # fmt: skip
    return Section("plane", "Rate against distortion", [picture])


def _table(numbers: dict[str, dict[str, list[float]]], latent: int) -> Section:
    rows = [
        [name, *(estimate(measured[k]).text() for k in ("elbo", "rate", "distortion")),
         f"{np.mean(measured['active']):.1f} of {latent}", number(measured["spread"][0])]
        for name, measured in numbers.items()
    ]  # fmt: skip
    head = ["weight", "ELBO", "rate", "distortion", "active latents", "spread during training"]
    caption = (
        "Nats per example. Spread during training: the standard deviation of the training ELBO between seeds, averaged "
        f"over the last four fifths of training. Active: variance of the posterior mean above {ACTIVE}."
    )
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(1, 2, 3, 4, 5))])
