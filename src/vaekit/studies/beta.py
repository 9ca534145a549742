"""What the weight of the KL does to single latents, and whether they come to carry single factors."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch

from vaekit import figures
from vaekit.data.core import Data
from vaekit.errors import ChoiceError
from vaekit.figures import Line
from vaekit.latents.paths import order_by_kl, traverse
from vaekit.metrics import ACTIVE, is_active
from vaekit.metrics.disentanglement import Score, factor_score, mig_ceiling, mig_chen, mig_lib
from vaekit.report.blocks import Block, Section, Strips, Table, Text, plot
from vaekit.runs.run import Run
from vaekit.training.compiled import has_compiler
from vaekit.utils.uncertainty import units

from .bench import Bench, Plan
from .page import strip
from .registry import Findings, study
from .words import LEVEL, Estimate, choose, direction, estimate, listed, number, paired, resampled, trend

LATENT, STEPS, RANGE = 10, 11, 3.0
BETAS = (1, 2, 4, 8)
TC = "tc 6"
HOT, COOLED = 40, 4
COOLING = f"beta {COOLED} from {HOT}"
COOLS = 0.6  # of the training, over which the weight falls
COMPILED = 20.0  # minutes, from which it pays to compile
DRAWS = 100  # of the bootstrap of a score
CARRIES = 0.1  # of a factor's entropy beyond what chance shows, from which a latent is said to carry it
LIB_STEPS = 300_000  # of the literature's protocol
SCORES = {"mig_lib": "MIG (lib)", "mig_chen": "MIG (Chen)", "factor": "FactorVAE score"}


@study(
    "beta",
    "Higgins et al. 2017; Chen et al. 2018, arXiv:1802.04942; Locatello et al. 2019, arXiv:1811.12359; Wu et al. 2021 "
    "(DEFT), arXiv:2102.03986",
    data="dsprites",
    check=lambda data: _check(data),
)
def beta(bench: Bench) -> Findings:
    """beta-VAE and beta-TCVAE with ten latents: which latent carries what, and the scores of disentanglement.

    Models of one shape with the KL weighted by 1, 2, 4 and 8, one with its total correlation weighted by 6, and one
    whose KL weight falls from 40 to 4 as it learns, in equal ratios over three fifths of its training: under a heavy
    weight only the latent that pays most is used, and as it falls others follow, one factor at a time
    (the annealing test of Wu et al. 2021 measures when).
    That it starts from 40 was chosen after a few short trials on dSprites by the same scores, the fixed weights not.
    Networks are dense, as in Higgins et al.: on a CPU they take many more steps than convolutions in the same time.
    Where the data name their factors, two versions of the mutual information gap and the FactorVAE score are measured;
    the table holds the same scores of codes whose answer is known. Disentanglement takes long training: minutes show
    the mechanism, `--minutes 60` and more the thing itself.
    """
    data = bench.data
    shape: dict[str, Any] = {"latent": LATENT}
    training: dict[str, Any] = {}
    if data.kind == "image" and min(data.shape[1:]) >= 48:
        shape |= {"network": "dense", "hidden": (256, 256)}
        training["batch"] = 64  # as in the literature
    if bench.decided("compiled", lambda: bench.minutes >= COMPILED and has_compiler()):
        training["compile"] = "on"
    plans = {f"beta {b}": Plan("vae", {**shape, "beta": float(b)}, training) for b in BETAS}
    plans[TC] = Plan("tc", {**shape, "beta": 6.0}, training)
    steps = bench.decided("steps", lambda: bench.steps_within(plans[f"beta {COOLED}"], len(plans) + 1))
    cooling = {"beta": float(COOLED), "beta_from": float(HOT), "warmup": max(1, int(COOLS * steps))}
    plans[COOLING] = Plan("vae", {**shape, **cooling}, training)
    runs = bench.train(plans)
    bench.stage("measuring")
    n = min(bench.sized(2000, 10_000), len(data.test))
    factors, names = known_factors(bench, n)
    group = bench.groups(n)
    numbers: dict[str, Any] = {
        "models": {},
        "factors": names,
        "steps": bench.trained_steps,
        "group": bench.groups(min(n, 1000)),
        "degrees": units(n, group) - 1,
    }
    drawn = [] if factors is None else redrawn(factors, group)
    codes, shares, rows = {}, {}, {}
    for name, run in runs.items():
        means, scales, kl = posterior(bench, run, n)
        codes[name] = means
        order = order_by_kl(kl)
        scored = bench.score(run, min(n, 1000))
        found: dict[str, Any] = {
            "kl": kl.tolist(),
            "active": int(is_active(means).sum()),
            "rate": float(scored.rate.mean()),
            "distortion": scored.distortion.tolist(),
        }
        if factors is not None:
            scores = measure(means, scales, factors, names, data.name)
            found |= {key: score.value for key, score in scores.items()}
            found["carries"] = carried(scores["mig_lib"].matrix - by_chance(means, factors), names)
            found["draws"] = [mig_lib(means[i], factors[i]).value for i in drawn]
            shares[name] = scores["mig_lib"].matrix[order]
            rows[name] = [f"z{j}" for j in order]
        numbers["models"][name] = found
    sections = [_traversals(bench, run, numbers["models"][name], name, codes[name]) for name, run in runs.items()]
    if factors is not None:
        numbers["ceiling"] = mig_ceiling([len(np.unique(column)) for column in factors.T])
        numbers["known"] = {
            name: {k: s.value for k, s in scores.items()}
            for name, scores in synthetic(factors, names, data.name).items()
        }
        sections = [_scores(numbers, n), _matrices(shares, rows, names), *sections]
    return Findings(read(numbers), [_weights(numbers), *sections], numbers)


def _check(data: Data) -> None:
    for name in data.factor_names:
        if len(data.test) == len(np.unique(data.test.columns[name])):
            raise ChoiceError(
                f"beta needs factors whose values recur, and every test datum of {data.name} has a {name!r} of its "
                "own: give more data, or leave that factor out"
            )


def known_factors(bench: Bench, n: int) -> tuple[np.ndarray | None, list[str]]:
    """The factors (n, F) of the first test data and their names: the data's own, else the class, else none."""
    test = bench.data.test
    names = [f for f in bench.data.factor_names if len(np.unique(test.columns[f][:n])) > 1]
    if names:
        return np.stack([test.columns[f][:n] for f in names], 1), names
    if test.label is not None and len(np.unique(test.label[:n])) > 1 and (test.label[:n] >= 0).all():
        return test.label[:n, None], ["class"]
    return None, []


def posterior(bench: Bench, run: Run, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means and standard deviations (n, D) of q(z|x) of test data, and the mean KL (D,) of each latent from N(0, 1)."""
    observed = bench.observed(run)
    means, scales = [], []
    with torch.no_grad():
        for a in range(0, n, 500):
            q = run.model.posterior(observed(np.arange(a, min(a + 500, n))).to(run.device))
            means.append(q.mean.cpu().numpy())
            scales.append(q.stddev.cpu().numpy())
    m, s = np.concatenate(means).astype(float), np.concatenate(scales).astype(float)
    return m, s, (0.5 * (m**2 + s**2 - 1) - np.log(s)).mean(0)


def measure(
    means: np.ndarray, scales: np.ndarray, factors: np.ndarray, names: list[str], data: str
) -> dict[str, Score]:
    """The scores; Chen's MIG without the shape of dSprites, as in the paper; one factor has no vote to take."""
    counted = [i for i, name in enumerate(names) if not (data == "dsprites" and name == "shape")]
    found = {"mig_lib": mig_lib(means, factors), "mig_chen": mig_chen(means, scales, factors[:, counted])}
    return found | ({"factor": factor_score(means, factors)} if len(names) > 1 else {})


def redrawn(factors: np.ndarray, group: list[int] | None) -> list[np.ndarray]:
    """Bootstrap draws of rows in which every factor varies; a draw that lost a rare value has no score."""
    draws = resampled(len(factors), group, DRAWS)
    return [i for i in draws if (factors[i] != factors[i[0]]).any(0).all()]


def by_chance(means: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """What the latents seem to tell of factors that are shuffled, so that they tell nothing: (D, F), the least bias."""
    shuffled = np.random.default_rng(5).permutation(factors)
    return mig_lib(means, shuffled).matrix


def carried(matrix: np.ndarray, names: list[str]) -> list[str]:
    """For each latent the factor it tells most of, where that is worth naming, else an empty text."""
    best = matrix.argmax(1)
    return [names[k] if matrix[j, k] >= CARRIES else "" for j, k in enumerate(best)]


def synthetic(factors: np.ndarray, names: list[str], data: str) -> dict[str, dict[str, Score]]:
    """The scores of codes whose answer is known, made from these very factors."""
    rng = np.random.default_rng(0)
    whole = np.stack([np.unique(c, return_inverse=True)[1] for c in factors.T], 1).astype(float)
    perfect = (whole - whole.mean(0)) / whole.std(0)
    spin = np.linalg.qr(rng.normal(size=(perfect.shape[1],) * 2))[0]
    codes = {
        "perfect": perfect,
        "rotated": perfect @ spin,
        "noisy": perfect + rng.normal(size=perfect.shape),
        "duplicated": np.concatenate([perfect, perfect], 1),
        "collapsed": 1e-3 * rng.normal(size=perfect.shape),
    }
    return {
        name: measure(code, np.full(code.shape, 1.0 if name == "collapsed" else 0.05), factors, names, data)
        for name, code in codes.items()
    }


CLAIMS = 4  # the best, the trends of scores and of distortions, the falling weight


def read(numbers: dict[str, Any]) -> list[str]:
    """What the numbers say of the weight, of what single latents carry, and of how far training has come."""
    models, level, group = numbers["models"], LEVEL / CLAIMS, numbers.get("group")
    weights = [f"beta {b}" for b in BETAS]
    active = [models[w]["active"] for w in weights]
    lost = [np.array(models[w]["distortion"], float) for w in weights]
    mean = [float(d.mean()) for d in lost]
    said = [
        f"From beta {BETAS[0]} to {BETAS[-1]} the active latents went from {active[0]} to {active[-1]} of {LATENT}, "
        + choose(
            trend([paired(b, a, group) for a, b in itertools.pairwise(lost)], level),
            f"and the distortion rose at every step, by {number(mean[-1] - mean[0])} nats in all: the price of the "
            "weight.",
            f"and the distortion fell at every step, by {number(mean[0] - mean[-1])} nats in all, which no longer "
            "training would show.",
            f"and the distortion went from {number(mean[0])} to {number(mean[-1])} nats, not surely one way all along.",
        )
    ]
    if not numbers["factors"]:
        return [*said, "These data name no factors, so no score can say which latent carries what."]
    said.insert(0, _best(numbers, level))
    cooled, fixed = models[COOLING]["mig_lib"], models[f"beta {COOLED}"]["mig_lib"]
    gap = _gap(models, COOLING, f"beta {COOLED}", numbers["degrees"])
    said.append(
        f"A weight that falls from {HOT} to {COOLED} ended with a MIG (lib) of {number(cooled)}, and one that is "
        f"{COOLED} from the start with {number(fixed)}: "
        + choose(
            direction(gap, level),
            "with the same weight in the end, the model whose latents came into use one at a time scored higher here.",
            "letting latents into use one at a time has not helped here.",
            "a difference that these data cannot tell from none.",
        )
    )
    best = max(models, key=lambda name: models[name]["mig_lib"])
    said.append(_carried(models[best]["carries"], numbers["factors"], best))
    steps = numbers["steps"]
    said.append(
        f"The models had {steps:,} steps; the literature gives them {LIB_STEPS:,}. "
        + (
            "What is seen here is the mechanism, not disentanglement."
            if steps < 0.1 * LIB_STEPS
            else "The scores may be held against published ones, of one seed here."
        )
        + " Scores of one weight differ widely between seeds (Locatello et al. 2019), and each model here is one seed: "
        "what is told apart are these models, not the weights."
    )
    return said


def _gap(models: dict[str, Any], a: str, b: str, degrees: float) -> Estimate:
    """The MIG (lib) of one model less that of another, by bootstrap draws of the data that they share."""
    draws = np.array(models[a]["draws"], float) - np.array(models[b]["draws"], float)
    se = float(draws.std(ddof=1)) if len(draws) >= DRAWS / 2 else math.nan  # else a value is too rare to tell
    return Estimate(models[a]["mig_lib"] - models[b]["mig_lib"], se, degrees)


def _best(numbers: dict[str, Any], level: float) -> str:
    """The highest score, what a perfect code has, and whether the score goes with the weight."""
    models, degrees = numbers["models"], numbers["degrees"]
    weights = [f"beta {b}" for b in BETAS]
    scores = {name: found["mig_lib"] for name, found in models.items()}
    best = max(scores, key=scores.__getitem__)
    share = level / (len(scores) * (len(scores) - 1) / 2)
    ties = [n for n in scores if n != best and direction(_gap(models, best, n, degrees), share) <= 0]
    perfect, rotated = numbers["known"]["perfect"]["mig_lib"], numbers["known"]["rotated"]["mig_lib"]
    return (
        f"The highest MIG (lib) is that of `{best}`, {number(scores[best])}"
        + (f", which these data cannot tell from that of {listed([f'`{n}`' for n in ties])}" if ties else "")
        + f"; a perfect code of these factors has {number(numbers['ceiling'])} ({number(perfect)} on these data)"
        + (f", the same code rotated {number(rotated)}. " if len(numbers["factors"]) > 1 else ". ")
        + choose(
            trend([_gap(models, b, a, degrees) for a, b in itertools.pairwise(weights)], level),
            "It grew with beta all along.",
            "It fell with beta all along: here more weight cost information before it sorted it.",
            f"It did not surely go one way with beta ({', '.join(number(scores[w]) for w in weights)}).",
        )
    )


def _carried(carries: list[str], factors: list[str], name: str) -> str:
    """Which factors one latent, several or none tell of."""
    parts = [
        f"{what} {listed(which)}"
        for what, which in (
            ("one latent alone tells most of", [f for f in factors if carries.count(f) == 1]),
            ("several latents share", [f for f in factors if carries.count(f) > 1]),
            ("no latent tells of", [f for f in factors if f not in carries]),
        )
        if which
    ]
    return f"In `{name}` {'; '.join(parts)}."


# --- figures ----------------------------------------------------------------------------------------------------


def _weights(numbers: dict[str, Any]) -> Section:
    models = numbers["models"]
    lines = {name: Line(np.arange(1, LATENT + 1), np.sort(found["kl"])[::-1]) for name, found in models.items()}
    picture = plot(
        "kl", lambda: figures.curves({"": lines}, "latents, sorted by KL", "KL, nats per datum"),
        "KL of each latent, sorted, for each model",
        "Mean KL of each latent from N(0, 1) on test data: how many are used.",
    )  # fmt: skip
    rows = [
        [name, number(f["rate"]), estimate(f["distortion"], numbers["group"]).text(), f"{f['active']} of {LATENT}"]
        for name, f in models.items()
    ]
    head = ["model", "rate", "distortion", "active latents"]
    caption = f"Nats per datum, test data. Active: variance of the posterior mean above {ACTIVE}."
    return Section("weights", "What the weight costs", [picture, Table(head, rows, caption, numeric=(1, 2, 3))])


def _scores(numbers: dict[str, Any], n: int) -> Section:
    keys = [key for key in SCORES if key in next(iter(numbers["models"].values()))]
    rows = [[name, *(number(f[k], 3) for k in keys)] for name, f in numbers["models"].items()]
    rows += [[f"known: {name}", *(number(f[k], 3) for k in keys)] for name, f in numbers["known"].items()]
    caption = (
        f"{n:,} test data; factors: {listed(numbers['factors'])}. Known codes are made from the same factors, with a "
        "posterior of deviation 0.05 (collapsed: 1). MIG (lib): posterior means in 20 bins, all factors; over all "
        f"combinations of factors a perfect code has {numbers['ceiling']:.4f}, below 1 where a factor has more values "
        "than bins. MIG (Chen): the aggregate posterior integrated, on dSprites without the shape. Do not mix the two."
    )
    if "factor" in keys:
        caption += f" FactorVAE score: by chance {number(1 / len(numbers['factors']))}."
    return Section("scores", "Scores", [Table(["code", *(SCORES[k] for k in keys)], rows, caption, numeric=(1, 2, 3))])


def _matrices(shares: dict[str, np.ndarray], rows: dict[str, list[str]], names: list[str]) -> Section:
    picture = plot(
        "information", lambda: figures.matrices(shares, rows, names, "share of the factor's entropy", 1.0),
        "Heat maps of what each latent tells of each factor, a map a model",
        "Mutual information of each latent (a row, largest KL first) with each factor, as a share of the factor's "
        "entropy; posterior means in 20 bins. Disentangled: one dark cell in each column.",
    )  # fmt: skip
    return Section("information", "Which latent carries what", [picture])


def _traversals(bench: Bench, run: Run, found: dict[str, Any], name: str, means: np.ndarray) -> Section:
    key = f"traversals-{name.replace(' ', '-')}"
    title = f"Traversals: {name}"
    if bench.data.kind != "image":
        return Section(key, title, [Text("Not shown: the data are no images.", "note")])
    kl = np.array(found["kl"])
    order = order_by_kl(kl)
    values = np.linspace(-RANGE, RANGE, STEPS)
    decoded = run.decode(traverse(means[0], order, values).reshape(-1, LATENT)).reshape(
        LATENT, STEPS, *bench.data.shape
    )
    carries = found.get("carries", [""] * LATENT)
    dead = ~is_active(means)
    rows = [
        strip(bench, f"z{j}: KL {kl[j]:.2f}", decoded[place], carries[j], bool(dead[j]))
        for place, j in enumerate(order)
    ]
    heads = [f"{v:g}".replace("-", "−") for v in values]
    blocks: list[Block] = [
        Strips(key, rows, "Rows of images, one latent changing along each",
               f"One latent at a time from −{RANGE:g} to {RANGE:g}, the others as in the first test datum; largest KL "
               "first, greyed where collapsed. A name: the factor it tells most of, where that is a tenth of its "
               "entropy or more.", heads)
    ]  # fmt: skip
    return Section(key, title, blocks)
