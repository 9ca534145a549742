"""Views of the codes: PCA, t-SNE, histograms, distances from the mean code, samples, attribute directions."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np

from vaekit.errors import ChoiceError
from vaekit.latents.densities import DENSITIES
from vaekit.latents.editing import CODES, direction
from vaekit.latents.fitted import stored_density
from vaekit.latents.resample import draw_codes
from vaekit.runs.saved import SavedRun
from vaekit.runs.trained import TrainedModel

from .points import Points

BINS, REACH = 41, 4.1
"""Histogram of each latent: number of bins, and range in standard deviations about the mean."""
MOST_TSNE, TSNE_DIMS, PERPLEXITY = 5000, 50, 30
PART, LEAST_PART, PLACED_BY = 4, 500, 10
"""t-SNE first maps 1 / PART of the codes, at least LEAST_PART. Each other code starts at the median position of its
PLACED_BY nearest neighbours among them."""
PART_STEPS, ALL_STEPS = 750, 350
"""Iterations for the part, and then for all codes. For 5,000 codes this takes half the time of 1,000 iterations for all
of them, and the Kullback-Leibler divergence is a few percent larger."""
ANGLE = 0.8
"""How coarsely t-SNE sums over distant points; at 0.5, scikit-learn's default, it takes a quarter longer."""
PRIOR, PRIOR_NUMBERS = 2000, 400_000


def plane(z: np.ndarray, live: np.ndarray) -> dict[str, Any]:
    """The first two principal components of codes (n, D) over the latents that are `live`: a map for the page."""
    mean = z.mean(0, dtype=np.float64)
    components, explained = np.zeros((2, z.shape[1])), [0.0, 0.0]
    used = np.flatnonzero(live)
    if len(used):
        centred = z[:20_000, used] - mean[used]
        values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
        for i in range(min(2, len(used))):
            axis = vectors[:, -1 - i]
            components[i, used] = axis * np.sign(axis[np.abs(axis).argmax()])  # the solver's sign is arbitrary
            explained[i] = float(values[-1 - i] / values.sum()) if values.sum() > 0 else 0.0
    return {
        "id": "pca",
        "title": "PCA of the codes",
        "mean": _plain(mean),
        "components": [_plain(c) for c in components],
        "explained": explained,
    }


def tsne(z: np.ndarray, live: np.ndarray, n: int, on_progress: Callable[[str, int, int], None]) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton 2008) of the first n codes: (n, 2) float32, centred, standard deviation 1."""
    from sklearn.decomposition import PCA

    x = z[:n, live].astype(np.float32)
    n = len(x)
    if n < 10 or x.shape[1] < 2:
        return np.zeros((0, 2), np.float32)
    if x.shape[1] > TSNE_DIMS:
        x = PCA(min(TSNE_DIMS, n), random_state=0).fit_transform(x)
    part = _part(n)
    if part == n:
        y = _mapped(x, "pca", PART_STEPS, lambda done: on_progress("t-SNE", done, PART_STEPS))
    else:
        total = PART_STEPS + ALL_STEPS
        y = _mapped(x[:part], "pca", PART_STEPS, lambda done: on_progress("t-SNE", done, total))
        start = _placed(x, y) * np.sqrt(n / part)  # at equal density
        y = _mapped(x, start, ALL_STEPS, lambda done: on_progress("t-SNE", PART_STEPS + done, total))
    return ((y - y.mean(0)) / np.maximum(y.std(), 1e-6)).astype(np.float32)


def _part(n: int) -> int:
    """The number of codes that t-SNE maps first."""
    return min(n, max(LEAST_PART, n // PART))


def _mapped(x: np.ndarray, init: str | np.ndarray, steps: int, report: Callable[[int], None]) -> np.ndarray:
    """t-SNE of x from `init`. Given positions are refined without early exaggeration, which would undo them."""
    from sklearn.manifold import TSNE

    report(0)
    exaggeration = 12.0 if isinstance(init, str) else 1.0
    rate = max(len(x) / 48, 50.0)  # of Belkina et al. (2019)
    settings = {"max_iter": steps, "angle": ANGLE, "random_state": 0, "n_jobs": 1, "verbose": 2}
    mapping = TSNE(
        2, perplexity=_perplexity(len(x)), init=init, early_exaggeration=exaggeration, learning_rate=rate, **settings
    )
    with contextlib.redirect_stdout(_Iterations(sys.stdout, report)):
        y = mapping.fit_transform(x)
    report(steps)
    return y


def _placed(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Positions of all x (n, D), of which the first m have positions y (m, 2): (n, 2) float32.

    The others get the median position of their nearest neighbours. Noise keeps positions apart, since t-SNE cannot
    separate equal ones.
    """
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=PLACED_BY).fit(x[: len(y)]).kneighbors(x[len(y) :], return_distance=False)
    placed = np.concatenate([y, np.median(y[nearest], axis=1)])
    apart = np.random.default_rng(0).normal(size=placed.shape) * 0.01 * y.std()
    return (placed + apart).astype(np.float32)


def _perplexity(n: int) -> float:
    return min(PERPLEXITY, (n - 1) / 3)


def how_tsne(n: int) -> str:
    """How `tsne` maps n codes, for the page."""
    part, start = _part(n), "from the first two principal components"
    first = f"perplexity {_perplexity(n):.3g}, {PART_STEPS} iterations {start}"
    return first if part == n else f"{first} for {part:,} of the examples, then {ALL_STEPS} for all"


class _Iterations(io.TextIOBase):
    """Reads the number of iterations from what scikit-learn's t-SNE prints, and passes on what others print."""

    def __init__(self, out: TextIO, report: Callable[[int], None]):
        self.out, self.report, self.inside = out, report, False

    def write(self, text: str) -> int:
        if text.startswith("[t-SNE]"):
            if found := re.match(r"\[t-SNE\] Iteration (\d+)", text):
                self.report(int(found[1]))
            self.inside = not text.endswith("\n")
        elif not (self.inside and text == "\n"):
            self.out.write(text)
        else:
            self.inside = False
        return len(text)

    def flush(self) -> None:
        self.out.flush()


def away(z: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> dict[str, Any]:
    """Quantiles of the distance of codes from their mean, each latent in units of its standard deviation."""
    used = spread > 1e-6
    distance = np.sqrt((((z - mean) / np.where(used, spread, 1))[:, used] ** 2).sum(1))
    return {
        "mean": _plain(mean),
        "sd": _plain(spread),
        "distance_quantiles": _plain(np.quantile(distance, np.linspace(0, 1, 101))),
    }


def histogram(z: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Counts (D, BINS) uint16 of (z - mean) / spread on [-REACH, REACH], scaled down if they exceed uint16."""
    u = (z - mean) / np.where(spread > 0, spread, 1)
    bins = np.floor((u + REACH) / (2 * REACH) * BINS).astype(int)
    counts = np.stack([np.bincount(b[(b >= 0) & (b < BINS)], minlength=BINS) for b in bins.T])
    return (counts if counts.max() < 65536 else counts * 65535 // counts.max()).astype(np.uint16)


def prior(run: TrainedModel, dims: int) -> np.ndarray:
    """Samples of the prior (at most PRIOR, fewer for long codes), rounded to 1/64: (p, D) float16."""
    z = run.sample_latents(_drawn(dims))
    return (z if _discrete(run) else np.round(z * 64) / 64).astype(np.float16)


def fitted(run: SavedRun, dims: int) -> tuple[dict[str, str], np.ndarray] | None:
    """The density of the codes that `vaekit sample` draws from, and samples of it as of `prior`; None for the prior."""
    stored = stored_density(run)
    if stored is None:
        return None
    z = draw_codes(run, stored, _drawn(dims))
    named = {"name": stored.name, "called": DENSITIES[stored.name].traits["called"]}
    return named, (np.round(z * 64) / 64).astype(np.float16)


def _drawn(dims: int) -> int:
    """The number of samples on the page of codes with this many dimensions."""
    return max(50, min(PRIOR, PRIOR_NUMBERS // dims))


def _discrete(run: TrainedModel) -> bool:
    from vaekit.models.quantised import CodePrior

    return isinstance(getattr(run.model, "prior", None), CodePrior)


def directions(run: TrainedModel, points: Points) -> list[dict[str, Any]]:
    """The direction of each attribute as in `Run.edit`: from training data, balanced over the other attributes."""
    names = [n for n in run.spec.attributes if all(n in source.columns for source in points.sources)]
    if not names:
        return []
    vectors, codes = [], run.encode("train", n=CODES)
    size = 0 if run.composition.condition is None else run.composition.condition.size
    for name in names:
        has = np.asarray(run.data.train.columns[name])[:CODES] > 0
        try:
            vector = direction(run, name, codes=codes).astype(np.float64)
        except ChoiceError:  # the attribute does not vary, or not independently of the others
            continue
        vector[len(vector) - size :] = 0.0  # the condition is given, not inferred
        counts = {"n_with": int(has.sum()), "n_without": int((~has).sum())}
        vectors.append({"name": name, "vector": _plain(vector), **counts})
    return vectors


def _plain(x: np.ndarray) -> list[float]:
    """Numbers for JSON, with six significant digits."""
    return [float(f"{v:.6g}") for v in np.asarray(x, dtype=float)]
