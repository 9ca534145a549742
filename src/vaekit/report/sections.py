"""The figures of every report, and its key numbers: functions of a `Look`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit import figures
from vaekit.latents.densities import DENSITIES
from vaekit.latents.paths import Mode, chosen_mode, interpolate, manifold_grid, order_by_kl, traversal_values, traverse
from vaekit.latents.resample import draw_codes
from vaekit.metrics import ACTIVE
from vaekit.metrics.protocol import protocol_text
from vaekit.models.priors import StandardNormal
from vaekit.training.overfitting import past_its_best

from . import numbers
from .about import shown_path
from .blocks import Block, Section, Strip, Strips, Text, plot, still
from .look import SCORE_SAMPLES, Look
from .registry import DATA, VECTOR, figure

Array = NDArray[Any]
STEPS = 9
PAIRS = 5
TRAVERSED, COLLAPSED = 12, 3
EACH = 10  # number of samples shown with their nearest training data


def key_numbers(look: Look) -> Section:
    """The key numbers; for a run without metrics, how to measure them, and the last validation."""
    run = look.run
    section = Section("numbers", "Key numbers")
    metrics = run.metrics
    if any(numbers.is_shown(m) for m in metrics):
        section.blocks.append(numbers.key_numbers(metrics))
    else:
        section.blocks.append(
            Text(f"This run has not been evaluated on test data yet. Run `vaekit evaluate {shown_path(run.path)}` (or "
                 "`run.evaluate()`), then write this page again.", "note")
        )  # fmt: skip
        valid = run.config.get("valid") or {}
        if valid:
            own = {k: valid[k] for k in ("elbo", "rate", "distortion") if k in valid}
            each = ", ".join(f"{numbers.label(k)} {numbers.number(v)}" for k, v in own.items())
            section.blocks.append(
                Text(f"Validation at step {valid['step']:,}, on at most 2,000 examples with one sample each, in nats "
                     f"per example: {each}.")
            )  # fmt: skip
    return section


def log_series(look: Look, kind: str) -> dict[str, Array]:
    """Arrays from the "train" or "valid" records: step, seconds, and those of ELBO, distortion and rate that exist."""
    return series_of(look.run.log, kind)


def series_of(log: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Array]:
    """`log_series` of the records of a run."""
    records = [r for r in log if r.get("kind") == kind]
    series = {"step": np.array([r["step"] for r in records], dtype=float)}
    for name in ("elbo", "distortion", "rate"):
        if records and all(name in r for r in records):
            series[name] = np.array([math.nan if r[name] is None else r[name] for r in records])
    series["seconds"] = np.array([r.get("seconds", math.nan) for r in records], dtype=float)
    return series


@figure("training", "Training")
def training(look: Look) -> list[Block]:
    """ELBO, distortion and rate during training."""
    train, valid = log_series(look, "train"), log_series(look, "valid")
    if not len(train["step"]) and not len(valid["step"]):
        return [Text("The run has no record of training (log.jsonl).", "note")]
    floor = numbers.best_known(look.run.metrics).get("entropy_floor")
    bound = "elbo" in train or "elbo" in valid
    caption = (
        f"Nats per example{'; the ELBO is the true bound for every objective' if bound else ''}. Training: means over "
        "the steps between records, with the current weights; validation: with the weights that would be saved. The "
        "first tenth of training may be cut off."
    )
    if floor and bound:
        entropy = numbers.number(floor["value"], floor["se"])
        caption += f" Dashed: minus the entropy of the binary draw ({entropy} nats), an upper bound in expectation."
    blocks: list[Block] = [
        plot(
            "training",
            lambda: figures.training_curves(
                train, valid, look.run.epoch_steps, None if floor is None else floor["value"]
            ),
            f"Line plots of {'ELBO, distortion and rate' if bound else 'the distortion'} against the training step",
            caption,
        )
    ]
    if warning := past_its_best(look.run):
        blocks.append(Text(f"{warning[0].upper()}{warning[1:]}.", "note"))
    return blocks


@figure("reconstructions", "Held-out reconstructions", needs=[DATA])
def reconstructions(look: Look) -> list[Block]:
    """Test examples as observed by the model, their reconstructions and errors."""
    assert look.data is not None
    rebuilt = look.run.decode(look.means)
    chosen = f"The first {len(look.raw)} test examples"
    if look.data.test.label is not None:
        chosen = f"The first test example of each class, then the first others, {len(look.raw)} in total"
    method = "encoded to the posterior mean and decoded to the mean of p(x|z)."
    if look.is_image:
        data, mean = figures.channels_last(look.raw), figures.channels_last(rebuilt)
        limit = float(look.scale[1] - look.scale[0]) / 2
        rows = [Strip("data", look.tiles(look.raw))]
        if look.drawn is not None:
            rows.append(Strip("binary draw", look.tiles(look.drawn), "the encoder's input"))
        rows.append(Strip("reconstruction", look.tiles(rebuilt)))
        rms = float(np.sqrt(np.nanmean((mean.astype(float) - data) ** 2)))
        errors = look.row(figures.error_map(data, mean, limit))
        rows.append(Strip("error", errors, f"RMS {rms / (2 * limit):.3f} of the range"))
        caption = (
            f"{chosen}, {method} Error: reconstruction minus data, red above 0 and blue below; full colour is half the "
            f"range ({limit:g}).{look.gaps}"
        )
        alt = f"Rows of {len(data)} test images, their reconstructions and signed errors"
        return [Strips("reconstructions", rows, alt, caption, look.names)]
    data, mean = look.shown(look.raw), look.shown(rebuilt)
    blocks: list[Block] = [
        plot(
            "reconstructions",
            lambda: figures.lines(data, mean, look.names, names=look.features, unit=look.unit),
            f"Line plots of {len(data)} test examples with their reconstructions on top",
            f"{chosen}, {method} Values in {look.unit}.{look.kinds}{look.gaps}",
        )
    ]
    if data.ndim == 2:
        n = min(40, look.observed.n)
        more = look.observed.raw(np.arange(n))
        again = look.run.reconstruct("test", n=n)
        left, right = look.shown(more), look.shown(again)
        blocks.append(
            plot(
                "reconstruction-heat",
                lambda: figures.heat(left, right, look.features, look.unit),
                "Heat maps of data, reconstructions and errors, one row per example and one column per feature",
                f"The first {n} test examples, one per row, in {look.unit} of the training data."
                + (" Missing values are sand-coloured." if look.spec.missing else ""),
            )
        )
    return blocks


@figure("samples", "Samples")
def samples(look: Look) -> list[Block]:
    """Samples of the prior and of the stored density that `vaekit sample` draws from, and the nearest training data."""
    means, given = "Means of p(x|z) for samples z of", "at temperature 1, not selected."
    blocks = _sampled(look, "", look.run.decode(look.prior_latents), f"{means} the prior {given}")
    if (stored := look.stored) is not None:
        called = DENSITIES[stored.name].traits["called"]
        drawn = look.run.decode(draw_codes(look.run, stored, len(look.prior_latents)))
        words = f"{means} {stored.name}, {called} fitted to the codes, from which `vaekit sample` draws {given}"
        blocks += _sampled(look, f"-{stored.name}", drawn, words)
    if look.data is None:
        blocks.append(Text("Not shown: their nearest training data, because the data are unavailable.", "note"))
    return blocks


def _sampled(look: Look, of: str, drawn: Array, words: str) -> list[Block]:
    """Samples (n, *event), which `words` describe, and the training data nearest to them; `of` ends their anchors."""
    blocks: list[Block] = []
    if look.is_image:
        pictures = figures.channels_last(drawn[:40])
        grid = figures.image_grid(pictures, 10, gap=4, background=None, scale=look.scale,
                                  zoom=max(1, math.ceil(84 / max(pictures.shape[1:3]))))  # fmt: skip
        blocks.append(still(f"samples{of}", grid, f"A grid of {len(pictures)} sampled images", words))
    else:
        blocks.append(
            plot(f"samples{of}", lambda: figures.lines(look.shown(drawn[:12]), names=look.features, unit=look.unit),
                 "Line plots of 12 samples", f"{words} Values in {look.unit}.")
        )  # fmt: skip
    if look.data is None:
        return blocks
    few = drawn[:EACH]
    close, rms = look.neighbours(few)
    _, usual = look.neighbours(look.raw)
    span = (look.scale[1] - look.scale[0]) if look.is_image else 1.0
    unit = "of the range" if look.is_image else look.unit
    caption = (
        f"Samples and the nearest of the first {len(look.searched):,} training examples by squared difference. The "
        f"median RMS difference is {np.median(rms) / span:.3f} {unit}; for the test examples above it is "
        f"{np.median(usual) / span:.3f}. Copies of training data would have a much smaller difference, blurred samples "
        f"a slightly smaller one.{look.gaps}"
    )
    if look.is_image:
        rows = [Strip("sample", look.tiles(few)), Strip("nearest in training", look.tiles(close))]
        heads = [f"{r / span:.3f}" for r in rms]
        alt = "Sampled images above their nearest training images"
        blocks.append(Strips(f"nearest{of}", rows, alt, caption, heads))
    else:
        blocks.append(
            plot(f"nearest{of}",
                 lambda: figures.lines(look.shown(close), look.shown(few), names=look.features, unit=look.unit,
                                       labels=("nearest in training", "sample")),
                 "Line plots of samples over their nearest training data", caption)
        )  # fmt: skip
    return blocks


@figure("interpolations", "Interpolations", needs=[DATA, VECTOR])
def interpolations(look: Look) -> list[Block]:
    """Decoded paths between test examples."""
    paths: list[tuple[str, str, int, int, Array]] = []
    usual: Mode = chosen_mode("auto", look.latents)
    other: Mode = "slerp" if usual == "lerp" else "lerp"
    pairs = [(2 * i, 2 * i + 1) for i in range(min(PAIRS, len(look.examples) // 2))]
    for a, b in pairs:
        for mode in (usual, other) if a == 0 and look.latents > 1 else (usual,):
            line = interpolate(look.means[a], look.means[b], steps=STEPS, mode=mode)
            paths.append((f"{look.names[a]} → {look.names[b]}", mode, a, b, look.run.decode(line)))
    caption = (
        f"From one test example to another in {STEPS} steps between their posterior means, both ends included, by "
        f"{'lerp (a straight line)' if usual == 'lerp' else 'slerp (a great circle)'}, the default for "
        + (f"{look.latents} latents; the first pair also by {other}." if look.latents > 1 else "one latent.")
    )
    if look.is_image:
        rows = [
            Strip(name, look.tiles(np.concatenate([look.raw[a : a + 1], path, look.raw[b : b + 1]])),
                  f"{mode}, test {look.examples[a]} to {look.examples[b]}")
            for name, mode, a, b, path in paths
        ]  # fmt: skip
        caption += f" The two outer columns are the examples themselves.{look.gaps}"
        heads = ["data", *("" for _ in range(STEPS)), "data"]
        alt = "Rows of images that change from one to another"
        return [Strips("interpolations", rows, alt, caption, heads)]
    lines = look.shown(np.stack([path for *_, path in paths]))
    titles = [f"{name} ({mode})" for name, mode, *_ in paths]
    return [
        plot("interpolations", lambda: figures.families(lines, titles, names=look.features, unit=look.unit),
                 "Line plots that change from one example to another", f"{caption} Dark to yellow along the path.")
    ]  # fmt: skip


def _kl(look: Look) -> tuple[Array | None, str]:
    """The KL of each latent, and the data on which it was measured: test data, else those of metrics.json."""
    if look.data is not None:
        return look.survey.kl, f"the first {look.survey.n:,} test examples"
    stored = numbers.best_known(look.run.metrics).get("kl_per_latent")
    if stored is None:
        return None, ""
    where = protocol_text(stored["protocol"], leave_out=["digest", "dims", "units"])
    return np.asarray(stored["value"], dtype=float), where


@figure("traversals", "Traversals", needs=[VECTOR])
def traversals(look: Look) -> list[Block]:
    """One latent varies at a time over the range of the data's codes; largest KL first, collapsed ones greyed."""
    kl, _ = _kl(look)
    if look.data is None:
        base, values = np.zeros(look.width), np.tile(np.linspace(-2, 2, STEPS + 2), (look.width, 1))
        active = np.ones(look.latents, bool)
        start = "0, over −2 to 2, because the data are unavailable"
    else:
        base, values = look.means[0], traversal_values(look.codes, n=STEPS + 2)
        active = look.survey.active
        start = (
            f"the posterior mean of test example {look.examples[0]} ({look.names[0]}), over the middle 98% of the "
            "posterior means of test data"
        )
    order = np.arange(look.latents) if kl is None else order_by_kl(kl)
    if look.data is not None:
        order = look.survey.order
    alive, dead = order[active[order]], order[~active[order]]
    chosen = [*alive[:TRAVERSED], *dead[:COLLAPSED]]  # among the latents
    labels = [f"KL {kl[i]:.2f} nats" if kl is not None else "" for i in chosen]
    names = [look.latent_names[i] for i in chosen]
    dims, dead = [int(look.latent_indices[i]) for i in chosen], look.latent_indices[dead]  # in the code
    decoded = look.run.decode(traverse(base, dims, values[dims]).reshape(-1, look.width))
    decoded = decoded.reshape(len(dims), -1, *look.spec.shape)
    ends = [f"{values[i, 0]:.2f} to {values[i, -1]:.2f}".replace("-", "−") for i in dims]
    ranking = "largest KL first" if kl is not None else "largest spread first"
    caption = f"One latent varies at a time, from {start}; {ranking}."
    if hidden := len(order) - len(dims):
        if look.data is not None:
            caption += f" {len(alive)} of {len(order)} latents are active."
        caption += f" {hidden} more {'is' if hidden == 1 else 'are'} not shown."
    if len(dead):
        caption += f" Collapsed latents (variance of the posterior mean at most {ACTIVE}) are greyed."
    if look.is_image:
        rows = [
            Strip(names[r], look.tiles(decoded[r]), f"{labels[r]}\n{ends[r]}".strip(), i in dead)
            for r, i in enumerate(dims)
        ]
        return [Strips("traversals", rows, "Rows of images; one latent changes along each row", caption)]
    titles = [f"{name}, {label}".strip(", ") for name, label in zip(names, labels, strict=True)]
    return [
        plot("traversals",
                 lambda: figures.families(look.shown(decoded), titles, [i in dead for i in dims], names=look.features,
                                          unit=look.unit),
                 "Line plots; one latent changes in each", f"{caption} Dark to yellow from low to high.")
    ]  # fmt: skip


@figure("manifold", "The manifold")
def manifold(look: Look) -> list[Block]:
    """A two-dimensional latent space, decoded on a grid of equal probability."""
    model = look.run.model
    if look.width != 2 or not isinstance(getattr(model, "prior", None), StandardNormal) or not look.has_density:
        return []
    caption = (
        "Decoded codes on a grid, evenly spaced in the probability of the prior from 5% to 95%. z0 increases to the "
        "right, z1 upwards."
    )
    if look.is_image:
        pictures = figures.channels_last(look.run.decode(manifold_grid(20)))
        zoom = max(1, math.ceil(42 / max(pictures.shape[1:3])))
        grid = figures.image_grid(pictures, 20, gap=0, scale=look.scale, zoom=zoom)
        return [still("manifold", grid, "A 20 by 20 grid of images that change smoothly", caption)]
    decoded = look.shown(look.run.decode(manifold_grid(6)))
    return [
        plot("manifold", lambda: figures.lines(decoded, columns=6), "A 6 by 6 grid of line plots",
             f"{caption} Values in {look.unit}.")
    ]  # fmt: skip


@figure("latents", "The latent space")
def latent_space(look: Look) -> list[Block]:
    """The codes of test data, the KL and variance of each latent, and the ELBO of test data."""
    blocks: list[Block] = []
    if look.data is not None:
        means = look.codes[:, look.latent_indices]
        label = look.data.test.label
        label = None if label is None else label[: len(means)]
        projected = "" if means.shape[1] <= 2 else ", projected onto their first two principal components"
        coloured = (
            " Colour and marker show the class; each name is at the median of its class." if label is not None else ""
        )
        blocks.append(
            plot(
                "latent-map",
                lambda: figures.latent_scatter(means, label, look.data.label_names if look.data else None),
                "Scatter plot of posterior means of test data, by class",
                f"Posterior means of the first {len(means):,} test examples{projected}.{coloured}",
            )
        )
    kl, where = _kl(look)
    active = look.survey.active if look.data is not None else None
    if kl is not None:
        count = ""
        if active is not None:
            count = f" {int(active.sum())} of {len(active)} are active."
        blocks.append(
            plot("kl", lambda: figures.kl_bars(kl, active), "Bars of the KL of each latent, sorted",
                 f"Mean KL of each latent's posterior from its prior, nats per example ({where}); {kl.sum():.2f} in "
                 f"total.{count}")
        )  # fmt: skip
    if look.data is None:
        blocks.append(Text("Not shown: the map of test data, because the data are unavailable.", "note"))
    elif look.has_density:
        values = look.scored.elbo
        blocks.append(
            plot("elbo-histogram", lambda: figures.histogram(values, "ELBO"), "Histogram of the ELBO of test data",
                 f"The ELBO of the first {len(values):,} test examples, with {SCORE_SAMPLES} samples each. Examples "
                 "far to the left are unlikely under the model.")
        )  # fmt: skip
    if look.data is not None and look.survey.n > 1:
        variance = look.survey.variance
        blocks.append(
            plot("active-units", lambda: figures.active_units(variance, ACTIVE),
                 "Variance of each latent's posterior mean over test data, sorted",
                 f"Variance of each latent's posterior mean over the first {look.survey.n:,} test examples. Latents "
                 f"above the dashed line ({ACTIVE}) are active.")
        )  # fmt: skip
    return blocks
