"""An autoencoder beside a VAE and a VAE without its KL."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from vaekit import figures
from vaekit.data.core import Data
from vaekit.latents.paths import nearest
from vaekit.metrics.codes import cluster_agreement, knn_correct, probe_correct, silhouettes, tsne
from vaekit.metrics.samples import Components, frechet
from vaekit.report.blocks import Block, Section, Strips, Table, plot
from vaekit.runs.run import Run
from vaekit.utils.uncertainty import units

from .bench import Bench, Plan
from .needs import check_classes, check_whole
from .page import strip
from .registry import Findings, study
from .words import LEVEL, Estimate, choose, direction, estimate, number, paired, resampled

AE, FREE, VAE = "autoencoder", "VAE without KL", "VAE"
LATENT, SHOWN, COMPONENTS = 16, 10, 32


def _check(data: Data) -> None:
    check_classes(data, "ae-vs-vae")
    check_whole(data, "ae-vs-vae")


@study("ae-vs-vae", "Kingma and Welling 2013, arXiv:1312.6114; van der Maaten and Hinton 2008", check=_check)
def ae_vs_vae(bench: Bench) -> Findings:
    """An autoencoder, a VAE and a VAE without its KL: maps of their codes, what they know, what N(0, I) decodes to.

    The same networks three times: trained to reconstruct alone, with the KL, and with the noise of the posterior but
    no KL. What lies in the holes of an autoencoder's code shows when draws of N(0, I) are decoded.
    """
    label, train_label = bench.data.test.label, bench.data.train.label
    assert label is not None  # checked
    assert train_label is not None
    shared = {"latent": LATENT}
    runs = bench.train(
        {AE: Plan("ae", shared), FREE: Plan("vae", {**shared, "beta": 0.0}), VAE: Plan("vae", {**shared, "beta": 1.0})}
    )
    bench.stage("measuring")
    train, test = labelled(bench, "train", bench.sized(2000, 10_000)), labelled(bench, "test", bench.sized(500, 2000))
    n_train, n = len(train), len(test)
    numbers: dict[str, Any] = {}
    codes: dict[str, np.ndarray] = {}
    group = bench.groups(test)
    components = Components(bench.data.events(bench.data.train[train]), COMPONENTS)
    real = components(bench.data.events(bench.data.test[test]))
    samples, rebuilt, projected = {}, {}, {}
    for name, run in runs.items():
        known, known_features = encode(bench, run, "train", train)
        codes[name], features = encode(bench, run, "test", test)
        y, y_new = train_label[train], label[test]
        z = np.random.default_rng(0).normal(size=(max(n, 500), LATENT)).astype(np.float32)
        drawn = run.decode(z)
        samples[name], rebuilt[name] = drawn[:SHOWN], run.decode(codes[name][:SHOWN])
        projected[name] = components(drawn)
        hole = resampled_holes(
            run.encode("train", sample=True, rows=train), run.encode("test", sample=True, rows=test), z, group
        )
        numbers[name] = {
            "knn": knn_correct(known, y, codes[name], y_new).tolist(),
            "probe": probe_correct(known, y, codes[name], y_new).tolist(),
            "probe_penultimate": probe_correct(known_features, y, features, y_new).tolist(),
            "silhouette": silhouettes(codes[name], y_new).tolist(),
            "rand": cluster_agreement(codes[name], y_new).tolist(),
            "code_std": float(codes[name].std(0).mean()),
            "holes": {"value": hole.value, "draws": hole.draws.tolist()},
        }
    for name, found in distances(projected, real, components.total, group).items():
        numbers[name]["frechet"] = found
    numbers["data"] = {
        "frechet": frechet(components(bench.data.events(bench.data.train[train])), real) / components.total,
        "group": group,
    }
    bench.stage("mapping")
    mapped = {name: tsne(z) for name, z in codes.items()}
    sections = [
        _maps(mapped, label[test], bench.data.label_names),
        *([_pictures(bench, test, samples, rebuilt)] if bench.data.kind == "image" else []),
        _table(numbers, n, n_train, components.k),
    ]
    return Findings(read(numbers), sections, numbers)


def labelled(bench: Bench, split: str, n: int) -> np.ndarray:
    """The first n rows of a split that have a class."""
    return np.flatnonzero(getattr(bench.data, split).label >= 0)[:n]


def encode(bench: Bench, run: Run, split: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N, D) of these data and the numbers that go into the last layer of the encoder, (N, F)."""
    bench.observed(run, split)
    seen: list[torch.Tensor] = []
    last = [m for m in run.model.posterior.modules() if isinstance(m, nn.Linear)][-1]
    hook = last.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach().cpu()))
    try:
        codes = run.encode(split, rows=rows)
    finally:
        hook.remove()
    return codes, torch.cat(seen).flatten(1).numpy()


CHANCE = 0.05
"""The share of new codes that are called far from all that are known."""
DRAWS = 200  # of the bootstrap


class Holes(NamedTuple):
    """The share of draws that fall in holes, and the same share in bootstrap draws of data and of z."""

    value: float
    draws: np.ndarray


def holes(known: np.ndarray, codes: np.ndarray, z: np.ndarray) -> float:
    """The share of draws z that lie farther from every known code than 95% of new codes do, all drawn from q(z|x)."""
    return resampled_holes(known, codes, z).value


def resampled_holes(known: np.ndarray, codes: np.ndarray, z: np.ndarray, group: ArrayLike | None = None) -> Holes:
    """The same with its bootstrap draws: of the new codes (by group) and of z, equal for codes of the same data."""
    usual, far = nearest(codes, known)[1][:, 0], nearest(z, known)[1][:, 0]
    rng = np.random.default_rng(7)
    drawn = [
        (far[rng.integers(len(far), size=len(far))] > np.quantile(usual[rows], 1 - CHANCE)).mean()
        for rows in resampled(len(usual), group, DRAWS)
    ]
    return Holes(float((far > np.quantile(usual, 1 - CHANCE)).mean()), np.array(drawn))


def distances(
    drawn: dict[str, np.ndarray], real: np.ndarray, total: float, group: ArrayLike | None
) -> dict[str, dict[str, Any]]:
    """Frechet distances of samples from the same data in units of `total`, and in bootstrap draws that they share."""
    rows = list(resampled(len(real), group, DRAWS))
    some = list(resampled(min(map(len, drawn.values())), None, DRAWS))
    return {
        name: {
            "value": frechet(x, real) / total,
            "draws": [frechet(x[i], real[j]) / total for i, j in zip(some, rows, strict=True)],
        }
        for name, x in drawn.items()
    }


def _of(found: dict[str, Any], degrees: float, less: dict[str, Any] | None = None, times: float = 1.0) -> Estimate:
    """A bootstrapped number, or it less `times` another of the same draws."""
    draws = np.array(found["draws"], float)
    value = found["value"]
    if less is not None:
        draws, value = draws - times * np.array(less["draws"], float), value - times * less["value"]
    return Estimate(value, float(draws.std(ddof=1)), degrees)


CLAIMS = 2 + 6 + 2 + 3  # distances; holes and what closed them; classes by neighbours and probe; the layer before


def _closed(numbers: dict[str, Any], degrees: float, level: float) -> str:
    """What the KL did to the holes, by the shares that fall in them beyond the 5% that would without any."""
    lost = {name: numbers[name]["holes"] for name in (AE, FREE, VAE)}
    if all(_of(found, degrees).interval(level)[1] < 2 * CHANCE for found in lost.values()):
        return "none of the three has holes to speak of."
    beyond = {name: {k: np.asarray(v) - CHANCE for k, v in found.items()} for name, found in lost.items()}
    without = min((AE, FREE), key=lambda name: float(beyond[name]["value"]))

    def left(share: float) -> int:
        return direction(_of(beyond[VAE], degrees, beyond[without], share), level)

    for share, much in ((0.1, ""), (0.5, "most of "), (0.8, "some of ")):
        if left(share) < 0 and direction(_of(beyond[without], degrees), level) > 0:
            return f"5% would without holes, so the KL closed {much}them."
    return "the KL did not close them." if left(0.8) > 0 else "whether the KL closed any these data do not tell."


def read(numbers: dict[str, Any]) -> list[str]:
    """What the numbers say of holes, of classes in the codes, and of the layer before."""
    level, group = LEVEL / CLAIMS, numbers["data"].get("group")
    n = len(numbers[VAE]["knn"])
    degrees = units(n, group) - 1
    far = {name: numbers[name]["frechet"] for name in (AE, FREE, VAE)}
    best = min(far, key=lambda name: far[name]["value"])
    better = [direction(_of(far[name], degrees, far[VAE]), level) for name in (AE, FREE)]
    distance = {name: number(found["value"]) for name, found in far.items()}
    lost = {name: numbers[name]["holes"]["value"] for name in (AE, FREE, VAE)}
    said = [
        f"Decoded draws of N(0, I) lie nearest to the data for the {best} (Fréchet distance {distance[best]}, "
        f"training data {number(numbers['data']['frechet'])}): "
        + ", ".join(f"{distance[name]} for the {name}" for name in far if name != best)
        + ". "
        + (
            "The VAE made the better samples."
            if min(better) > 0
            else "That the KL makes better samples these data do not tell."
            if min(better) == 0
            else "So here the KL did not make better samples."
            + (
                f" The codes of the VAE have a standard deviation of {number(numbers[VAE]['code_std'])} only: they "
                "tell little of a datum yet, and draws of N(0, I) decode to much the same."
                if numbers[VAE]["code_std"] < 0.3
                else ""
            )
        ),
        f"Of these draws {lost[AE]:.0%} ({AE}), {lost[FREE]:.0%} ({FREE}) and {lost[VAE]:.0%} ({VAE}) fall in holes, "
        "farther from every drawn code of training data than those of 95% of test data are; "
        + _closed(numbers, degrees, level),
    ]
    for key, what in (
        ("knn", "Ten nearest neighbours on the codes find"),
        ("probe", "A linear probe on the codes finds"),
    ):
        gain = paired(numbers[VAE][key], numbers[AE][key], group, step=1.0)
        share = {name: f"{np.mean(numbers[name][key]):.1%}" for name in (AE, FREE, VAE)}
        said.append(
            f"{what} the class of {share[AE]} of test data ({AE}), {share[FREE]} ({FREE}) and "
            f"{share[VAE]} ({VAE}): "
            + choose(
                direction(gain, level),
                "the classes are easier to read off the VAE's codes.",
                "the VAE's codes tell less of the classes than the autoencoder's.",
                "the KL made no difference that these data could show.",
            )
        )
    return [*said, _before(numbers, group, level)]


def _before(numbers: dict[str, Any], group: list[int] | None, level: float) -> str:
    """What the layer before the code knows more or less of the classes."""
    gain = {
        name: paired(numbers[name]["probe_penultimate"], numbers[name]["probe"], group, step=1.0)
        for name in (AE, FREE, VAE)
    }
    signs = {direction(g, level) for g in gain.values()}
    points = ", ".join(f"{100 * g.value:+.1f} points ({name})".replace("-", "−") for name, g in gain.items())
    return f"On the layer before the code the accuracy of the probe differs by {points}: " + (
        choose(
            signs.pop(),
            "the encoder knows more of the class than it passes on.",
            "the code is the better place to read the class.",
            "as far as these data tell, the code passes on all of what the encoder knows of the class.",
        )
        if len(signs) == 1
        else "the models differ in what they pass on."
        if {1, -1} <= signs
        else "that holds of some of the models only, as far as these data tell."
    )


# --- figures ----------------------------------------------------------------------------------------------------


def _maps(mapped: dict[str, np.ndarray], label: np.ndarray, names: list[str] | None) -> Section:
    picture = plot(
        "maps", lambda: figures.maps(mapped, label, names), "t-SNE maps of the codes of the three models, by class",
        f"t-SNE maps of the codes of {len(label):,} test data (perplexity 30, from the principal components, seed 0). "
        "Distances between far groups and the sizes of groups mean nothing in such a map.",
    )  # fmt: skip
    return Section("maps", "Maps of the codes", [picture])


def _pictures(bench: Bench, test: np.ndarray, samples: dict, rebuilt: dict) -> Section:
    data = bench.data.events(bench.data.test[test[:SHOWN]])
    names = list(samples)
    blocks: list[Block] = [
        Strips("samples", [strip(bench, name, samples[name]) for name in names],
               "Rows of images decoded from draws of N(0, I), a row a model",
               "The same draws z of N(0, I) decoded by each model (means of p(x|z)); not chosen by hand."),
        Strips("reconstructions", [strip(bench, "data", data), *(strip(bench, name, rebuilt[name]) for name in names)],
               "Test images and their reconstructions by each model",
               "The first test data and what each model makes of their codes."),
    ]  # fmt: skip
    return Section("pictures", "What N(0, I) decodes to", blocks)


def _table(numbers: dict[str, Any], n: int, n_train: int, k: int) -> Section:
    rows, group = [], numbers["data"]["group"]
    for name in (AE, FREE, VAE):
        m = numbers[name]
        hits = [estimate(m[key], group, 1.0) for key in ("knn", "probe", "probe_penultimate")]
        shares = [f"{100 * e.value:.1f} ± {100 * e.se:.1f}" for e in hits]
        rows.append(
            [
                name,
                *shares,
                estimate(m["silhouette"], group).text(3),
                number(float(np.mean(m["rand"])), 2),
                _of(m["frechet"], 1).text(),
            ]
        )
    head = [
        "model",
        "10 neighbours, %",
        "linear probe, %",
        "probe on the layer before, %",
        "silhouette",
        "Rand index",
        "Fréchet",
    ]
    caption = (
        f"{n:,} test data; neighbours and probe learn from {n_train:,} training data. Rand index: of k-means with as "
        "many clusters as classes, adjusted for chance, the mean of three seeds of k-means. Fréchet: the squared "
        f"distance of decoded draws of N(0, I) from test data in the first {k} principal components of the data, in "
        f"units of their variance; of training data it is {number(numbers['data']['frechet'])}. ±: standard error over "
        "test data (of Fréchet, by bootstrap)."
    )
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(1, 2, 3, 4, 5, 6))])
