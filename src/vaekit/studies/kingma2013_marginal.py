"""Figure 3 of Kingma and Welling (2013): the marginal likelihood during training, with its exact value."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaekit import figures
from vaekit.data.core import Data
from vaekit.data.observation import Observation
from vaekit.errors import ChoiceError
from vaekit.figures import Line
from vaekit.models.vae import VAE
from vaekit.recipes.parts import default_likelihood
from vaekit.report.blocks import Section, Table, Text, plot
from vaekit.utils.files import read_json, write_json

from .bench import QUICK, Bench, Plan, slug
from .grid import error, integrate
from .kingma2013 import AEVB, SLEEP
from .mcem import ACCEPTED, LEAPFROGS, UPDATES, MonteCarloEM
from .needs import check_whole
from .registry import Findings, study
from .words import LEVEL, Estimate, difference, direction, estimate, listed, number, paired

EM = "Monte Carlo EM"
METHODS = (AEVB, SLEEP, EM)
LATENT, WIDTH, BATCH = 3, 100, 100
RATES = {AEVB: 0.1, SLEEP: 0.02, EM: 0.1}
"""Of the paper's 0.01, 0.02 and 0.1, the rate with the highest log p(x) of training data after 1,500 updates on MNIST.

`bench/figure3.py` chooses them; docs/figure3.json has its trials.
"""
FEW = 1000
"""The number of training data of the small training set, if there are at least four times as many."""
FIRST, FACTOR = 50, 2
"""The updates before the first measurement, and their ratio between two measurements."""
COST = 9
"""The time of all models of the study in units of AEVB's, for the plan."""
REACH, EXACT, WIDER = 6.0, 1e-3, 2.0
"""The radius of the grid, which grows by `WIDER` for data with a larger share of their integral at its end."""
FURTHEST = 10.0
FULL = 40.0
"""Minutes of a study in full."""
CHECKED = 200
"""The number of test data whose error of quadrature is measured."""
DRAWS = 30
"""Draws of z per datum for the ELBO."""
SLOW = 100
"""The maximum number of data of each split for likelihoods other than Bernoulli, whose integrals take longer."""
CLAIMS = 2 * (len(METHODS) - 1) + 2 * len(METHODS)  # AEVB against the others, and overfitting, for both sizes


def _check(data: Data) -> None:
    check_whole(data, "kingma2013-marginal")
    if data.kind == "counts":
        raise ChoiceError("kingma2013-marginal needs images or real-valued columns, and these data hold counts")


@study(
    "kingma2013-marginal",
    "Kingma and Welling 2013, arXiv:1312.6114, figure 3; Hinton et al. 1995; Wei and Tanner 1990",
    data="mnist",
    check=_check,
)
def kingma2013_marginal(bench: Bench) -> Findings:
    """Reproduces figure 3 of the paper: log p(x) during training by AEVB, wake-sleep and Monte Carlo EM.

    The paper's networks (one tanh layer, 100 wide, 3 latents, trained by Adagrad with batches of 100) are trained from
    the same initial weights on 1,000 and on all training data (50,000 of MNIST). In Monte Carlo EM, each training datum
    has a Markov chain in z, which Hamiltonian Monte Carlo moves by 10 leapfrog steps before every five updates of the
    decoder. The learning rate is 0.1, for wake-sleep 0.02: as in the paper, the one of 0.01, 0.02 and 0.1 that is best
    on training data early on (after 1,500 updates on MNIST). The paper estimated log p(x) from samples of the
    posterior; here it is an integral over the three latents by quadrature, whose error the page gives. Binary pixels
    are drawn anew for every batch, and fixed where log p(x) is measured.
    """
    sizes = _benches(bench)
    steps = _steps(bench)
    learners = {size: _learners(one) for size, one in sizes.items()}
    curves = _train(bench, sizes, learners, steps)
    bench.stage("measuring")
    numbers: dict[str, Any] = {
        "sizes": list(sizes), "steps": steps, "batch": BATCH, "curves": curves, "log_px": {}, "elbo": {}, "error": {},
        "edge": {}, "seconds": {}, "accepted": {}, "group": bench.groups(_size(bench)), "train_group": {},
    }  # fmt: skip
    for size, one in sizes.items():
        _measure(one, size, learners[size], numbers)
        if one is not bench:
            bench.plans |= {f"{name}, {size}": plan for name, plan in one.plans.items()}
            bench.runs = {f"{name}, {size}": run for name, run in one.runs.items()} | bench.runs
    notes = [f"Chains of {EM} accepted {_shares(numbers)} of their proposals (the aim is {ACCEPTED:.0%})."]
    return Findings(read(numbers), [_figure(numbers), _table(numbers)], numbers, notes)


# --- training ---------------------------------------------------------------------------------------------------

CHOICES = {"latent": LATENT, "hidden": (WIDTH,), "activation": "tanh", "network": "dense"}


def _plans() -> dict[str, Plan]:
    training = {
        "validate_steps": 10_000_000, "optimiser": "adagrad", "batch": BATCH, "ema": 0.0, "weight_decay": 0.0,
    }  # fmt: skip
    return {
        AEVB: Plan("vae", {**CHOICES, "warmup": 0}, {**training, "lr": RATES[AEVB]}),
        SLEEP: Plan("wake-sleep", CHOICES, {**training, "lr": RATES[SLEEP]}),
    }


def _benches(bench: Bench) -> dict[str, Bench]:
    """A bench with few training data, and the whole one, by the number of training data in words."""
    n = len(bench.data.train)
    few = min(FEW, n // 4)
    data = dataclasses.replace(bench.data, train=bench.data.train.head(few))
    small = Bench(data, bench.minutes, bench.folder / "few", bench.on_progress, bench.started)
    return {f"{few:,}": small, f"{n:,}": bench}


def _steps(bench: Bench) -> int:
    """Updates of each model in all: the given number, or as many as fit into the time for training."""
    if bench.steps is not None:
        steps = bench.steps
    else:
        within = f"updates within {bench.minutes:g} minutes"
        steps = bench.decided(within, lambda: bench.steps_within(_plans()[AEVB], COST))
    return -(-steps // UPDATES) * UPDATES


def _targets(steps: int) -> Iterator[int]:
    """The numbers of updates at which log p(x) is measured: geometric, and the last one."""
    target = FIRST
    while target < steps:
        yield target
        target *= FACTOR
    yield steps


class _Learners(NamedTuple):
    """What trains on one training set."""

    bench: Bench
    em: MonteCarloEM

    def advance(self, target: int) -> None:
        """Train all three methods to this many updates; those that have more are left as they are."""
        done = max((_done(self.bench, name) for name in _plans()), default=0)
        if done <= target:
            whole, self.bench.steps = self.bench.steps, target
            try:
                self.bench.train(_plans())
            finally:
                self.bench.steps = whole
        self.em.advance(target, lambda step: self.bench.on_progress("training", step, target))

    def models(self) -> dict[str, tuple[VAE, int]]:
        """Each method's model, with its number of updates."""
        found = {EM: (self.em.model, self.em.steps)}
        for name, run in self.bench.runs.items():
            assert isinstance(run.model, VAE)
            found[name] = run.model, int(run.config.get("step", 0))
        return {name: found[name] for name in METHODS if name in found}


def _done(bench: Bench, name: str) -> int:
    file = bench.folder / slug(name) / "run.json"
    return int(read_json(file).get("step", 0)) if file.exists() else 0


def _learners(bench: Bench) -> _Learners:
    bench.folder.mkdir(parents=True, exist_ok=True)
    file = bench.folder / f"{slug(EM)}.safetensors"
    return _Learners(bench, MonteCarloEM(bench.data, file, "vae", {**CHOICES, "warmup": 0}, lr=RATES[EM], batch=BATCH))


def _train(bench: Bench, sizes: dict[str, Bench], learners: dict[str, _Learners], steps: int) -> dict[str, Any]:
    """Train all models, and measure log p(x) at each of the `_targets`; measurements of earlier sessions are kept.

    Returns:
        for each model, the training points evaluated, and the mean log p(x) of training and test data.
    """
    file = bench.folder / "curves.json"
    points: dict[str, dict[str, list[float]]] = read_json(file) if file.exists() else {}
    for target in _targets(steps):
        for size, one in sizes.items():
            learners[size].advance(target)
            bench.stage(f"measuring after {target:,} updates")
            for method, (model, done) in learners[size].models().items():
                known = points.setdefault(f"{method}, {size}", {})
                if done == target and str(target) not in known:
                    found = log_px(one, model, _half(_size(one)), _sized(bench, 41, 71))
                    known[str(target)] = [float(found.train.mean()), float(found.test.mean())]
                    write_json(file, points)
    return {name: _curve(known) for name, known in points.items()}


def _curve(known: dict[str, list[float]]) -> dict[str, list[float]]:
    steps = sorted(map(int, known))
    values = np.array([known[str(step)] for step in steps]).reshape(-1, 2)
    return {"samples": [float(s * BATCH) for s in steps], "train": values[:, 0].tolist(), "test": values[:, 1].tolist()}


# --- measuring --------------------------------------------------------------------------------------------------


def _sized(bench: Bench, quick: int, full: int) -> int:
    """`Bench.sized` for a study that takes longer: `full` from `FULL` minutes on, because quadrature is slow."""
    share = math.log(bench.minutes / QUICK) / math.log(FULL / QUICK)
    return round(quick * (full / quick) ** min(max(share, 0.0), 1.0))


def _size(bench: Bench) -> int:
    """The number of data of each split that log p(x) is measured of."""
    n = min(_sized(bench, 30, 1000), len(bench.data.train), len(bench.data.test))  # the paper's 1,000
    return n if default_likelihood(bench.spec) == "bernoulli" else min(n, SLOW)


def _x(bench: Bench, split: str, n: int) -> tuple[Tensor, Observation]:
    """The first n data of a split as AEVB observes them: binary pixels are drawn once."""
    run = bench.runs[AEVB]
    return bench.observed(run, split)(np.arange(n)), run.composition.observation


def _half(n: int) -> int:
    """The number of data of each split for the curves, of those for the end of training."""
    return max(1, n // 2)


class _Measured(NamedTuple):
    """log p(x) of the first n training and test data, and for all 2 n the share of the integral at the edge."""

    train: np.ndarray
    test: np.ndarray
    edge: np.ndarray


def log_px(bench: Bench, model: VAE, n: int, points: int) -> _Measured:
    """log p(x) of the first n training and test data; the grid grows for data whose posterior reaches its ends.

    Arguments:
        points: nodes per dimension, before the grid grows.
    """
    parts = [_x(bench, part, n) for part in ("train", "test")]
    x, model = torch.cat([part for part, _ in parts]), model.cpu()
    reach = REACH
    step = 2 * reach / (points - 1)
    value, edge = integrate(model, x, points, reach)
    while bool((far := edge > EXACT).any()) and reach < FURTHEST:
        reach += WIDER
        value[far], edge[far] = integrate(model, x[far], round(2 * reach / step) + 1, reach)
    jacobian = parts[0][1].log_jacobian(bench.data.shape)
    whole = value.numpy() + jacobian
    return _Measured(whole[:n], whole[n:], edge.numpy())


def _measure(bench: Bench, size: str, learners: _Learners, numbers: dict[str, Any]) -> None:
    """log p(x), its error and the ELBO of each datum at the end of training, for the models of one training set."""
    n = _size(bench)
    numbers["train_group"][size] = bench.groups(n, "train")
    for method, (model, _) in learners.models().items():
        name = f"{method}, {size}"
        points, some = _sized(bench, 41, 121), min(n, CHECKED)
        found, (x, observation) = log_px(bench, model, n, points), _x(bench, "test", some)
        near = torch.from_numpy(found.edge[n : n + some] < EXACT)  # the others have another grid
        value = torch.from_numpy(found.test[:some] - observation.log_jacobian(bench.data.shape))
        wrong = error(model, x[near], points, REACH, value[near]) if bool(near.any()) else torch.tensor([torch.nan])
        numbers["log_px"][name] = {"train": found.train.tolist(), "test": found.test.tolist()}
        numbers["error"][name] = {"mean": float(wrong.mean()), "largest": float(wrong.max())}
        numbers["edge"][name] = float(found.edge.max())
        if method != EM:
            run = bench.runs[method]
            numbers["elbo"][name] = bench.score(run, n, DRAWS).elbo.tolist()
            numbers["seconds"][name] = float(run.config["seconds"])
    numbers["seconds"][f"{EM}, {size}"] = learners.em.seconds
    numbers["accepted"][size] = learners.em.accepted


# --- sentences --------------------------------------------------------------------------------------------------


def scored(numbers: dict[str, Any], method: str, size: str, part: str = "test") -> np.ndarray:
    """log p(x) of each datum at the end of training, (n,)."""
    return np.array(numbers["log_px"][f"{method}, {size}"][part], float)


def read(numbers: dict[str, Any]) -> list[str]:
    """The results for the methods, for overfitting, for the bound, and for the time."""
    level = LEVEL / CLAIMS
    sizes = numbers["sizes"]
    sentences = [_methods(numbers, size, level) for size in reversed(sizes)]
    sentences += [_overfitting(numbers, size, level) for size in sizes]
    return [*sentences, _bound(numbers), _truth(numbers), _time(numbers)]


def _methods(numbers: dict[str, Any], size: str, level: float) -> str:
    """AEVB against the two other methods after equally many training points."""
    group = numbers.get("group")
    gaps = {m: paired(scored(numbers, AEVB, size), scored(numbers, m, size), group) for m in METHODS[1:]}
    signs = {m: direction(gap, level) for m, gap in gaps.items()}
    words = {1: "above", -1: "below", 0: "not significantly apart from"}
    if len(set(signs.values())) == 1:
        (sign,) = set(signs.values())
        verdict = f"{words[sign]} {listed(list(gaps))}"
    else:
        verdict = listed([f"{words[s]} {m}" for m, s in signs.items()])
    points = numbers["steps"] * numbers["batch"]
    values = listed([gap.text() for gap in gaps.values()])
    return (
        f"With {size} training data and after {points:,} training points, AEVB ends {verdict} in log p(x) of test "
        f"data: by {values} nats ({listed(list(gaps))}).{_reached(numbers, size)}"
    )


def _reached(numbers: dict[str, Any], size: str) -> str:
    """After how many training points AEVB first had the others' last values, all read from curves of the same data."""
    curves = {m: numbers["curves"].get(f"{m}, {size}") for m in METHODS}
    aevb, parts = curves[AEVB], []
    for method in METHODS[1:]:
        other = curves[method]
        if aevb is None or other is None:
            return ""
        first = next((s for s, v in zip(aevb["samples"], aevb["test"], strict=True) if v >= other["test"][-1]), None)
        parts.append(f"that of {method} {'never' if first is None else f'by {first:,.0f} points'}")
    return f" In the figure, AEVB reached the last value of the others on test data: {listed(parts)}."


def _overfitting(numbers: dict[str, Any], size: str, level: float) -> str:
    """log p(x) of training data minus that of test data, for each method."""
    gaps = {}
    for m in METHODS:
        train = estimate(scored(numbers, m, size, "train"), numbers.get("train_group", {}).get(size))
        gaps[m] = difference(train, estimate(scored(numbers, m, size), numbers.get("group")))
    signs = [direction(gap, level) for gap in gaps.values()]
    over = [m for m, s in zip(gaps, signs, strict=True) if s > 0]
    verdict = (
        "all three methods overfit."
        if len(over) == len(METHODS)
        else f"{listed(over)} overfit{'s' if len(over) == 1 else ''}."
        if over
        else "no significant overfitting."
    )
    values = listed([f"{gap.text()} ({m})" for m, gap in gaps.items()])
    return f"With {size} training data, log p(x) of training data minus that of test data is {values} nats: {verdict}"


def _bound(numbers: dict[str, Any]) -> str:
    """How far the ELBO of the encoders is below log p(x)."""
    group, parts = numbers.get("group"), []
    for size, method in itertools.product(numbers["sizes"], (AEVB, SLEEP)):
        gap = paired(scored(numbers, method, size), numbers["elbo"][f"{method}, {size}"], group)
        parts.append(f"{gap.text()} ({method}, {size})")
    return (
        f"The ELBO of test data is below log p(x) by {listed(parts)} nats: this is the KL of the encoder's q(z|x) from "
        "the posterior, which quadrature makes measurable."
    )


def _truth(numbers: dict[str, Any]) -> str:
    """How exact log p(x) is."""
    error_of = numbers["error"]
    unknown = [name for name, each in error_of.items() if not math.isfinite(each["mean"])]
    if unknown:
        names = listed([f"{name} training data" for name in unknown])
        return (
            f"The error of quadrature is unknown for {names}, whose posteriors reach the end of the grid for every "
            "example: log p(x) may be too low there."
        )
    worst = max(error_of, key=lambda name: error_of[name]["mean"])
    mean, largest = error_of[worst]["mean"], error_of[worst]["largest"]
    edge = max(numbers["edge"].values())
    group, sizes = numbers.get("group"), numbers["sizes"]
    errors = [paired(scored(numbers, AEVB, s), scored(numbers, m, s), group).se for s in sizes for m in METHODS[1:]]
    small = mean < 0.1 * min(errors) and edge < 10 * EXACT
    return (
        f"Quadrature gives log p(x) with a mean error of at most {mean:.2g} nats ({worst} training data; of one "
        f"example at most {largest:.2g}), and at most {edge:.1g} of an integral lies at the edge of the grid"
        + (": small beside the standard errors." if small else ": not small beside the standard errors.")
    )


def _time(numbers: dict[str, Any]) -> str:
    """The time per million training points of each method."""
    million = numbers["steps"] * numbers["batch"] / 1e6
    size = numbers["sizes"][-1]
    each = [f"{number(numbers['seconds'][f'{m}, {size}'] / million)} ({m})" for m in METHODS]
    return (
        f"A million training points took {listed(each)} seconds. A training point is one example in one update of "
        f"the weights; {EM} also needs the gradient of log p(x, z) {LEAPFROGS + 1} times per {UPDATES} updates, and a "
        "chain for each training datum."
    )


def _shares(numbers: dict[str, Any]) -> str:
    return listed([f"{share:.0%} ({size} training data)" for size, share in numbers["accepted"].items()])


# --- figures ----------------------------------------------------------------------------------------------------


def _figure(numbers: dict[str, Any]) -> Section:
    panels: dict[str, dict[str, Line]] = {}
    for size in numbers["sizes"]:
        lines: dict[str, Line] = {}
        for method in METHODS:
            curve = numbers["curves"].get(f"{method}, {size}")
            if curve:
                lines[f"{method}, training data"] = Line(curve["samples"], curve["train"])
                lines[f"{method}, test data"] = Line(
                    curve["samples"], curve["test"], dashed=True, like=f"{method}, training data"
                )
        panels[f"{size} training data"] = lines
    drawn: list[list[float]] = [
        np.asarray(line.y, float).tolist() for lines in panels.values() for line in lines.values()
    ]
    late = [v for y in drawn for v in y[len(y) // 4 :]]
    if not any(len(y) > 1 for y in drawn):
        return Section(
            "figure3", "log p(x) against training points", [Text("Not shown: too few updates for a curve.", "note")]
        )
    margin = 0.06 * (max(late) - min(late)) or 1.0
    limits = (min(late) - margin, max(late) + margin)
    picture = plot(
        "figure3",
        lambda: figures.curves(panels, "training points evaluated", "log p(x), nats per example", log_x=True,
                               height=3.6, limits=limits),
        "log p(x) against training points evaluated for AEVB, wake-sleep and Monte Carlo EM, with few and all training "
        "data",
        f"As figure 3 of the paper, with a logarithmic axis. log p(x) by quadrature over {LATENT} latents, of "
        f"{_half(len(scored(numbers, AEVB, numbers['sizes'][0]))):,} training and as many test examples. The first "
        "quarter of the measurements may lie outside.",
    )  # fmt: skip
    return Section("figure3", "log p(x) against training points", [picture])


def _table(numbers: dict[str, Any]) -> Section:
    rows = []
    for size, method in itertools.product(numbers["sizes"], METHODS):
        name = f"{method}, {size}"
        train = estimate(scored(numbers, method, size, "train"), numbers["train_group"].get(size))
        test = estimate(scored(numbers, method, size), numbers["group"])
        against = "" if method == AEVB else _less(numbers, method, size).text()
        elbo = estimate(numbers["elbo"][name], numbers["group"]).text() if name in numbers["elbo"] else "–"
        rows.append([size, method, train.text(), test.text(), against, elbo, f"{numbers['seconds'][name]:,.0f}"])
    head = ["training data", "method", "log p(x), training", "log p(x), test", "minus AEVB, test", "ELBO, test", "s"]
    caption = (
        "At the end of training, in nats per example, ± standard error. The difference is paired by example, and its "
        "error is therefore smaller. The last column is the time of training in seconds."
    )
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=range(2, len(head)))])


def _less(numbers: dict[str, Any], method: str, size: str) -> Estimate:
    return paired(scored(numbers, method, size), scored(numbers, AEVB, size), numbers["group"])
