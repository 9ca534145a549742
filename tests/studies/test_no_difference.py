"""Where there is nothing to find, a page claims something in at most one case of twenty, all its claims together."""

import math

import numpy as np
import pytest

from vaekit.metrics.disentanglement import redrawn
from vaekit.metrics.latents import active_bounds
from vaekit.studies import (
    ae_vs_vae,
    beta,
    blur,
    collapse,
    complete,
    denoising,
    importance,
    interpolation,
    kingma2013,
    kingma2013_marginal,
    kl_weight,
)
from vaekit.studies.words import LEVEL, direction, estimate, highest, paired, ratio, side_of, spread_ratio
from vaekit.utils.uncertainty import area

N = 40


def most(trials=200, level=LEVEL):
    """The largest share that so many trials may show if the chance is `level`: three standard deviations above it."""
    return level + 3 * math.sqrt(level * (1 - level) / trials)


def claims(read, null, words, trials=200):
    """How often any of these words is said of numbers without a difference, as a share of the trials."""
    found = 0
    for seed in range(trials):
        said = " ".join(read(null(np.random.default_rng(seed))))
        found += any(word in said for word in words)
    return found / trials


# --- kinds of claims --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 10, 200])
def test_paired_differences(n):
    rng = np.random.default_rng(n)
    found = [direction(paired(a, b)) != 0 for a, b in rng.normal(size=(2000, 2, n))]
    assert np.mean(found) <= most(2000)
    assert np.mean(found) > 0.03  # it is not for want of saying anything


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_counts_of_three_seeds(spread):
    rng = np.random.default_rng(0)
    counts = np.round(10 + spread * rng.normal(size=(2000, 2, 3)))
    assert np.mean([direction(paired(a, b, step=1.0)) != 0 for a, b in counts]) <= most(2000)


@pytest.mark.parametrize("rate", [0.005, 0.05, 0.5])
def test_hits_of_two_classifiers(rate):
    """Few differ: a t test of such alone would be too sure."""
    rng = np.random.default_rng(0)
    hits = rng.random((1000, 2, 300)) < rate
    assert np.mean([direction(paired(a, b, step=1.0)) != 0 for a, b in hits]) <= most(1000)
    better = rng.random((100, 300)) < 0.4  # of a fifth that is wrong: eight points in a hundred are seen
    wrong = rng.random((100, 300)) < 0.2
    assert np.mean([direction(paired(a | ~b, ~b, step=1.0), 0.004) for a, b in zip(better, wrong, strict=True)]) > 0.9


def test_differences_by_group():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(12), rng.integers(2, 5, 12))
    values = rng.normal(size=(1500, 12))[:, group] + 0.1 * rng.normal(size=(1500, len(group)))
    found = [direction(estimate(v, group)) != 0 for v in values]
    assert np.mean(found) <= most(1500, 0.07)  # groups of unequal size keep the level only approximately
    assert np.mean([direction(estimate(v)) != 0 for v in values]) > 0.15


def test_the_best_of_five():
    rng = np.random.default_rng(0)
    found = [not highest(dict(enumerate(v)))[1] for v in rng.normal(size=(500, 5, 3))]
    assert np.mean(found) <= most(500)


def test_ratios_of_means_and_of_spreads():
    rng = np.random.default_rng(0)
    found = []
    for a, b in rng.normal(3, 1, size=(1000, 2, 30)):
        _, low, high = ratio(a, b)
        found.append(side_of(low, high) != 0)
    assert np.mean(found) <= most(1000)
    walks = rng.normal(size=(1000, 2, 3, 40)).cumsum(-1)  # of training: three seeds, steps that go on from another
    spread = walks.std(2, ddof=1).mean(-1)
    found = [side_of(*spread_ratio(a, b, 3)[1:]) != 0 for a, b in spread]
    assert np.mean(found) <= most(1000)


def test_latents_near_the_threshold():
    rng = np.random.default_rng(0)
    means = 0.1 * rng.normal(size=(200, 2, 60, 8))  # of variance 0.01 itself: which are active is chance
    found = [active_bounds(a, None, LEVEL / 2)[0] > active_bounds(b, None, LEVEL / 2)[1] for a, b in means]
    assert np.mean(found) <= most(200)


def test_shares_and_distances_by_bootstrap(monkeypatch):
    monkeypatch.setattr(ae_vs_vae, "DRAWS", 25)
    rng, found, trials = np.random.default_rng(0), [], 60
    for _ in range(trials):
        drawn = {name: rng.normal(size=(60, 2)) for name in ("a", "b")}
        made = ae_vs_vae.distances(drawn, rng.normal(size=(60, 2)), 1.0, None)
        found.append(direction(ae_vs_vae._bootstrapped(made["a"], 59, made["b"])) != 0)
    assert np.mean(found) <= most(trials)


# --- pages ------------------------------------------------------------------------------------------------------------


def test_kl_weight():
    names = ("fixed 0.25", "fixed 1", "fixed 4", kl_weight.LINEAR, kl_weight.CYCLIC)

    def null(rng):
        return {
            name: {
                "elbo": rng.normal(-100, 1, 3).tolist(),
                "rate": [20.0] * 3,
                "active": rng.integers(8, 13, 3).tolist(),
                "spread": [rng.normal(size=3).std(ddof=1)],
            }
            for name in names
        }

    assert (
        claims(
            kl_weight.read,
            null,
            (
                "higher than all",
                "nats above a fixed weight of 1. ",
                "nats below a fixed weight of 1. ",
                "was less stable",
                "was more stable",
                "no latents collapsed",
                "latents collapsed",
            ),
        )
        <= most()
    )


def test_collapse_and_cures():
    def null(rng):
        models = {}
        for name in (collapse.COLLAPSED, collapse.PLAIN, *collapse.REMEDIES):
            means = 0.1 * rng.normal(size=(N, 8))
            bounds = active_bounds(means, None, LEVEL / collapse.CLAIMS / 6)
            models[name] = {"elbo": rng.normal(-100, 1, N).tolist(), "rate": 1.0, "active": 4, "bounds": bounds}
        return {"models": models}

    assert claims(
        collapse.read, null, ("has collapsed.", "latents active (", "nats above", "nats below", "better in"), 100
    ) <= most(100)


def test_denoising_and_blur_and_copying():
    def noises(rng):
        methods = (denoising.NOISY, denoising.AUTO, denoising.MEDIAN, denoising.PCA)
        made = {key: {m: rng.normal(20, 1, N).tolist() for m in methods} for key in ("psnr", "ssim")}
        return {"noises": {str(i): made for i in range(3)}}

    assert (
        claims(
            denoising.read,
            noises,
            ("is better by", "better than both simple methods for every", "A simple method is better"),
        )
        <= most()
    )

    def spectra(rng):
        names = [f"{name}, {latent} latents" for name in blur.LIKELIHOODS for latent in blur.LATENTS]
        made = {n: {"kept": {k: rng.normal(1, 0.1, N).tolist() for k in ("mean", "drawn")}} for n in names}
        return {"models": made, "fine": rng.normal(1, 0.1, N).tolist()}

    assert (
        claims(
            blur.read,
            spectra,
            (
                "Every model",
                "models lose",
                "small code",
                "less sharp",
                "too much weight",
                "blurs more",
                "with grain",
                "does not restore",
            ),
        )
        <= most()
    )

    def lost(rng):
        made = {
            m: {k: rng.normal(1, 0.2, N).tolist() for k in ("data", "shuffled", "masked")}
            | {"knn": (rng.random(N) < 0.5).tolist()}
            for m in complete.MODELS
        }
        return {"dims": 4, "under": 2, "over": 5, "models": made}

    assert (
        claims(
            complete.read,
            lost,
            ("so it has learned", "has begun to copy its input.", "it copies", "fills in", "filling in", "contain"),
        )
        <= most()
    )


def test_importance_and_other_data():
    def null(rng):
        def model():
            return {
                "first": rng.normal(-5, 1, N).tolist(),
                "gap": {importance.FROM_P: rng.normal(0, 1, N).tolist()},
                "ess": {
                    importance.FROM_Q: rng.normal(20, 3, N).tolist(),
                    importance.FROM_P: rng.normal(10, 1.5, N).tolist(),
                },
            }

        inside = rng.normal(size=N)
        keys = ("log_px", "typicality", "ratio")
        out = {
            str(i): {k: area(inside, rng.normal(size=N), level=LEVEL / importance.CLAIMS)._asdict() for k in keys}
            for i in range(5)
        }
        models = {importance.PLAIN: model(), importance.MIXTURE: model()}
        return {"counts": [1, 64], "models": models, "out": {"test data": {}, **out}}

    assert (
        claims(
            importance.read,
            null,
            (
                "nats higher, because",
                "nats lower, because",
                "The encoder more than doubles it",
                "hardly better",
                "is tighter",
                "is looser",
                'is higher for "',
                "lower for all",
            ),
        )
        <= most()
    )


def test_ways_between_data():
    def null(rng):
        def model():
            return {
                f"{kind}, {mode}": {
                    key: rng.normal(1.5, 0.2, N).tolist() for key in ("detour", "unevenness", "middle norm")
                }
                for kind in (interpolation.WITHIN, interpolation.BETWEEN)
                for mode in ("lerp", "slerp")
            }

        return {"VAE": model(), "autoencoder": model()}

    assert (
        claims(
            interpolation.read,
            null,
            (
                "longer path",
                "shorter path",
                "one class turns",
                "path is more even.",
                "path is less even than",
                "path is more even than",
                "and longer",
                "and straighter",
            ),
        )
        <= most()
    )


def test_the_bound_of_2013():
    def null(rng):
        names = [f"{m}, {d}" for m in (kingma2013.AEVB, kingma2013.SLEEP) for d in kingma2013.LATENTS]
        return {
            "elbo": {n: {p: rng.normal(-100, 3, N).tolist() for p in ("train", "valid")} for n in names},
            "floor": None,
        }

    assert (
        claims(
            kingma2013.read,
            null,
            (
                "above wake-sleep",
                "below wake-sleep",
                "Wake-sleep ends",
                "None of these are superfluous",
                "overfit more.",
                "overfit less.",
            ),
        )
        <= most()
    )


def test_the_marginal_likelihood_of_2013():
    names = [f"{m}, {size}" for size in ("1,000", "50,000") for m in kingma2013_marginal.METHODS]

    def null(rng):
        return {
            "log_px": {n: {p: rng.normal(-100, 3, N).tolist() for p in ("train", "test")} for n in names},
            "sizes": ["1,000", "50,000"], "steps": 1000, "batch": 100, "curves": {},
            "elbo": {n: rng.normal(-102, 3, N).tolist() for n in names},
            "error": {n: {"mean": 0.0, "largest": 0.0} for n in names},
            "edge": dict.fromkeys(names, 0.0), "seconds": dict.fromkeys(names, 1.0),
        }  # fmt: skip

    def read(numbers):
        return kingma2013_marginal.read(numbers)[:4]

    assert claims(read, null, ("ends above", "ends below", "and above", "and below", "overfit.", "overfits.")) <= most()


def test_scores_of_disentanglement():
    names = [*(f"beta {b}" for b in beta.BETAS), beta.TC, beta.COOLING]

    def null(rng):
        made = {}
        for name in names:
            value = 0.2 + 0.02 * rng.normal()
            made[name] = {
                "mig_lib": value,
                "draws": (value + 0.02 * rng.normal(size=100)).tolist(),
                "active": 5,
                "distortion": rng.normal(50, 3, N).tolist(),
                "carries": ["x"],
            }
        return {
            "models": made,
            "factors": ["x"],
            "steps": 1000,
            "degrees": 999,
            "ceiling": 1.0,
            "known": {"perfect": {"mig_lib": 1.0}, "rotated": {"mig_lib": 0.1}},
        }

    def read(numbers):  # the best is claimed where nothing is said to be as good
        said = beta.read(numbers)
        return [*said, "" if "not significantly above that of" in said[0] else "THE BEST"]

    assert (
        claims(
            read,
            null,
            (
                "THE BEST",
                "It rises with beta",
                "It falls with beta",
                "distortion rose",
                "distortion fell",
                "scored higher here",
                "did not help",
            ),
        )
        <= most()
    )


def test_holes_and_classes():
    def null(rng):
        def boot(value, wide):
            value += wide * rng.normal()
            return {"value": value, "draws": (value + wide * rng.normal(size=100)).tolist()}

        hits = ("knn", "probe", "probe_penultimate")
        made = {
            name: {"frechet": boot(1.0, 0.1), "holes": boot(0.4, 0.03), "code_std": 1.0}
            | {k: (rng.random(N) < 0.6).tolist() for k in hits}
            for name in (ae_vs_vae.AE, ae_vs_vae.FREE, ae_vs_vae.VAE)
        }
        return made | {"data": {"frechet": 0.1, "group": None}}

    assert (
        claims(
            ae_vs_vae.read,
            null,
            (
                "KL improves",
                "not improve samples here",
                "closed them",
                "most of them",
                "some of them.",
                "contain more",
                "contain less",
                "is lost between",
                "predicts the class better",
                "lower for others",
            ),
        )
        <= most()
    )


def test_a_value_too_rare_to_be_drawn_again_leaves_no_verdict():
    factors = np.zeros((40, 1), int)
    factors[7] = 1
    drawn = redrawn(factors, None, beta.DRAWS)
    assert 0.5 * beta.DRAWS < len(drawn) < 0.75 * beta.DRAWS  # 1 - 1/e of them
    assert all((factors[i] == 1).any() for i in drawn)
    models = {"a": {"mig_lib": 0.9, "draws": [0.9, 0.91]}, "b": {"mig_lib": 0.1, "draws": [0.1, 0.1]}}
    assert direction(beta._gap(models, "a", "b", 39)) == 0
