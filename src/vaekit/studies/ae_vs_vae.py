"""An autoencoder, a VAE, and a VAE without its KL."""

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
from vaekit.models import vae
from vaekit.report.blocks import Block, Section, Strips, Table, plot
from vaekit.runs.trained import TrainedModel
from vaekit.utils.uncertainty import resampled, units

from .bench import Bench, Plan
from .needs import check_classes, check_whole
from .page import strip
from .registry import Findings, study
from .words import LEVEL, Estimate, choose, direction, estimate, listed, number, paired

AE, FREE, VAE = "autoencoder", "VAE without KL", "VAE"
LATENT, SHOWN, COMPONENTS = 16, 10, 32


def _check(data: Data) -> None:
    check_classes(data, "ae-vs-vae")
    check_whole(data, "ae-vs-vae")


@study("ae-vs-vae", "Kingma and Welling 2013, arXiv:1312.6114; van der Maaten and Hinton 2008", check=_check)
def ae_vs_vae(bench: Bench) -> Findings:
    """Compares an autoencoder, a VAE and a VAE without its KL: their codes, and decoded samples of N(0, I).

    The same network is trained in three ways: for reconstruction only, with the KL, and with posterior noise but no KL.
    Decoding samples of N(0, I) shows the holes in an autoencoder's latent space.
    """
    label, train_label = bench.data.test.label, bench.data.train.label
    assert label is not None  # _check requires classes
    assert train_label is not None
    shared = {"latent": LATENT}
    own = {**shared, "warmup": 0}
    runs = bench.train(
        {AE: Plan("ae", shared), FREE: Plan("vae", {**own, "beta": 0.0}), VAE: Plan("vae", {**own, "beta": 1.0})}
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
        in_holes = resampled_holes(
            run.encode("train", sample=True, rows=train), run.encode("test", sample=True, rows=test), z, group
        )
        numbers[name] = {
            "knn": knn_correct(known, y, codes[name], y_new).tolist(),
            "probe": probe_correct(known, y, codes[name], y_new).tolist(),
            "probe_penultimate": probe_correct(known_features, y, features, y_new).tolist(),
            "silhouette": silhouettes(codes[name], y_new).tolist(),
            "rand": cluster_agreement(codes[name], y_new).tolist(),
            "code_std": float(codes[name].std(0).mean()),
            "holes": {"value": in_holes.value, "draws": in_holes.draws.tolist()},
        }
    for name, distance in distances(projected, real, components.total, group).items():
        numbers[name]["frechet"] = distance
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


def encode(bench: Bench, run: TrainedModel, split: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The codes (N, D) of these rows and the inputs (N, F) of the encoder's last layer."""
    bench.observed(run, split)
    assert isinstance(run.model, vae.VAE)
    features: list[torch.Tensor] = []
    last = [m for m in run.model.posterior.modules() if isinstance(m, nn.Linear)][-1]
    hook = last.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0].detach().cpu()))
    try:
        codes = run.encode(split, rows=rows)
    finally:
        hook.remove()
    return codes, torch.cat(features).flatten(1).numpy()


CHANCE = 0.05
"""A sample falls in a hole if it is farther from all training codes than all but this share of the test codes."""
DRAWS = 200  # bootstrap samples


class Holes(NamedTuple):
    """The share of samples that fall in holes, and the same share in each bootstrap sample of codes and z."""

    value: float
    draws: np.ndarray


def holes(known: np.ndarray, codes: np.ndarray, z: np.ndarray) -> float:
    """The share of z farther from every known code than 95% of the new codes are; codes are samples of q(z|x)."""
    return resampled_holes(known, codes, z).value


def resampled_holes(known: np.ndarray, codes: np.ndarray, z: np.ndarray, group: ArrayLike | None = None) -> Holes:
    """The same with bootstrap samples of the new codes (by group) and of z, shared by codes of the same data."""
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
    """Fréchet distances to the same data in units of `total`, with bootstrap samples that all of them share."""
    rows = list(resampled(len(real), group, DRAWS))
    drawn_rows = list(resampled(min(map(len, drawn.values())), None, DRAWS))
    return {
        name: {
            "value": frechet(x, real) / total,
            "draws": [frechet(x[i], real[j]) / total for i, j in zip(drawn_rows, rows, strict=True)],
        }
        for name, x in drawn.items()
    }


def _bootstrapped(
    measured: dict[str, Any], degrees: float, minus: dict[str, Any] | None = None, times: float = 1.0
) -> Estimate:
    """A bootstrapped number, minus `times` another one from the same bootstrap samples."""
    draws = np.array(measured["draws"], float)
    value = measured["value"]
    if minus is not None:
        draws, value = draws - times * np.array(minus["draws"], float), value - times * minus["value"]
    return Estimate(value, float(draws.std(ddof=1)), degrees)


CLAIMS = 2 + 6 + 2 + 3  # distances; holes; classes by neighbours and by probe; the layer before the code


def _closed(numbers: dict[str, Any], degrees: float, level: float) -> str:
    """The effect of the KL on the holes: on the share of samples in holes beyond the 5% expected without holes."""
    shares = {name: numbers[name]["holes"] for name in (AE, FREE, VAE)}
    if all(_bootstrapped(share, degrees).interval(level)[1] < 2 * CHANCE for share in shares.values()):
        return f"None of the three models has large holes: the shares are below {2 * CHANCE:.0%}."
    beyond = {name: {k: np.asarray(v) - CHANCE for k, v in share.items()} for name, share in shares.items()}
    without = min((AE, FREE), key=lambda name: float(beyond[name]["value"]))

    def remaining(share: float) -> int:
        return direction(_bootstrapped(beyond[VAE], degrees, beyond[without], share), level)

    for share, part in ((0.1, ""), (0.5, "most of "), (0.8, "some of ")):
        if remaining(share) < 0 and direction(_bootstrapped(beyond[without], degrees), level) > 0:
            return f"Without holes, {CHANCE:.0%} would be that far; the KL closed {part}the holes."
    return (
        "The KL did not close the holes." if remaining(0.8) > 0 else "Whether the KL closed any of them is uncertain."
    )


def read(numbers: dict[str, Any]) -> list[str]:
    """The results for samples, holes, class information in the codes, and the layer before the code."""
    level, group = LEVEL / CLAIMS, numbers["data"].get("group")
    degrees = units(len(numbers[VAE]["knn"]), group) - 1
    in_holes = _by_model({name: f"{numbers[name]['holes']['value']:.0%}" for name in (AE, FREE, VAE)})
    sentences = [
        _samples(numbers, degrees, level),
        f"Of these samples {in_holes} fall in holes of the latent space: they are farther from all training codes than "
        "95% of the test codes are. " + _closed(numbers, degrees, level),
    ]
    for key, classifier in (
        ("knn", "Ten nearest neighbours of the codes predict"),
        ("probe", "A linear probe on the codes predicts"),
    ):
        gain = paired(numbers[VAE][key], numbers[AE][key], group, step=1.0)
        accuracy = _by_model({name: f"{np.mean(numbers[name][key]):.1%}" for name in (AE, FREE, VAE)})
        sentences.append(
            f"{classifier} the class of {accuracy} of the test data: "
            + choose(
                direction(gain, level),
                "the VAE's codes contain more information about the classes than the autoencoder's.",
                "the VAE's codes contain less information about the classes than the autoencoder's.",
                "the difference between the VAE and the autoencoder is not significant.",
            )
        )
    return [*sentences, _before(numbers, group, level)]


def _by_model(texts: dict[str, str]) -> str:
    return listed([f"{text} ({name})" for name, text in texts.items()])


def _samples(numbers: dict[str, Any], degrees: float, level: float) -> str:
    """How close decoded samples of N(0, I) are to the data, and whether the KL brings them closer."""
    far = {name: numbers[name]["frechet"] for name in (AE, FREE, VAE)}
    best = min(far, key=lambda name: far[name]["value"])
    others = [f"{number(far[name]['value'])} for the {name}" for name in far if name != best]
    verdict = {1: "The KL improves samples.", 0: "The KL does not improve samples significantly."}.get(
        min(direction(_bootstrapped(far[name], degrees, far[VAE]), level) for name in (AE, FREE)),
        "The KL does not improve samples here.",
    )
    if verdict.endswith("here.") and numbers[VAE]["code_std"] < 0.3:
        verdict += (
            f" The VAE's codes have a standard deviation of only {number(numbers[VAE]['code_std'])}: they contain "
            "little information so far, and all samples of N(0, I) decode to nearly the same picture."
        )
    return (
        f"Decoded samples of N(0, I) are nearest to the data for the {best}: its Fréchet distance is "
        f"{number(far[best]['value'])}, against {', '.join(others)}, and {number(numbers['data']['frechet'])} for "
        f"training data. {verdict}"
    )


def _before(numbers: dict[str, Any], group: list[int] | None, level: float) -> str:
    """Whether the layer before the code contains more or less information about the classes than the code."""
    gain = {
        name: paired(numbers[name]["probe_penultimate"], numbers[name]["probe"], group, step=1.0)
        for name in (AE, FREE, VAE)
    }
    signs = {direction(g, level) for g in gain.values()}
    points = ", ".join(f"{100 * g.value:+.1f} points ({name})".replace("-", "−") for name, g in gain.items())
    return f"On the layer before the code, the accuracy of the probe differs by {points}: " + (
        choose(
            signs.pop(),
            "some information about the class is lost between this layer and the code.",
            "the code predicts the class better than this layer.",
            "none of these differences is significant.",
        )
        if len(signs) == 1
        else "it is higher for some models and lower for others."
        if {1, -1} <= signs
        else "only some of these differences are significant."
    )


# --- figures ----------------------------------------------------------------------------------------------------


def _maps(mapped: dict[str, np.ndarray], label: np.ndarray, names: list[str] | None) -> Section:
    picture = plot(
        "maps", lambda: figures.maps(mapped, label, names), "t-SNE maps of the codes of the three models, by class",
        f"t-SNE maps of the codes of {len(label):,} test examples (perplexity 30, initialised with principal "
        "components, seed 0). Distances between distant groups and group sizes have no meaning in such a map.",
    )  # fmt: skip
    return Section("maps", "Maps of the codes", [picture])


def _pictures(bench: Bench, test: np.ndarray, samples: dict, rebuilt: dict) -> Section:
    data = bench.data.events(bench.data.test[test[:SHOWN]])
    names = list(samples)
    blocks: list[Block] = [
        Strips("samples", [strip(bench, name, samples[name]) for name in names],
               "Rows of images decoded from samples of N(0, I), one row per model",
               "The same samples z of N(0, I), decoded by each model (means of p(x|z)), not selected."),
        Strips("reconstructions", [strip(bench, "data", data), *(strip(bench, name, rebuilt[name]) for name in names)],
               "Test images and their reconstructions by each model",
               "The first test examples and their reconstructions by each model."),
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
                _bootstrapped(m["frechet"], 1).text(),
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
        f"{n:,} test examples; neighbours and probe use {n_train:,} training examples. Rand index: adjusted for "
        "chance, of k-means with as many clusters as classes, mean of three seeds. Fréchet: the squared distance "
        f"between decoded samples of N(0, I) and test data in the first {k} principal components of the data, in units "
        f"of their variance; for training data it is {number(numbers['data']['frechet'])}. ±: standard error over test "
        "data (of Fréchet, by bootstrap)."
    )
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(1, 2, 3, 4, 5, 6))])
