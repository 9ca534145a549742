"""What the page shows of one run, computed once: chosen test data, their latents, what can and cannot be had."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.data.core import Data
from vaekit.data.observation import Binary
from vaekit.errors import DataError
from vaekit.figures import channels_last, image_grid
from vaekit.figures.pictures import Bytes
from vaekit.latents.paths import nearest
from vaekit.metrics import PerDatum, latent_names, per_datum, survey
from vaekit.metrics.latents import Survey
from vaekit.runs.observed import Observed
from vaekit.runs.run import Run

Array = NDArray[Any]
EXAMPLES = 10
SCORED = 2000
SCORE_SAMPLES = 2
SCORE_NUMBERS = 2e7
SEARCHED = 20_000
SEARCHED_BYTES = 200 * 2**20
TILE = 84  # pixels of the longer side of a tile on the page


class Look:
    """One run under the report's eye.

    Attributes:
        data: the run's data, or None with the reason in `missing`.
    """

    def __init__(self, run: Run):
        self.run = run
        self.data: Data | None = None
        self.missing = ""
        try:
            self.data = run.data
        except DataError as error:
            self.missing = str(error)
        self.spec = run.spec
        self.is_image = self.spec.kind == "image"
        self.scale = self.spec.scale

    @property
    def jacobian(self) -> float:
        """log |dx / draw|: added to a log density of x it gives that of the data in their own units."""
        return self.run.composition.observation.log_jacobian(self.spec.shape)

    # --- latents ------------------------------------------------------------------------------------------------

    @cached_property
    def prior_latents(self) -> Array:
        """Draws from the prior, (64, ...)."""
        return self.run.sample_latents(64)

    @property
    def plain(self) -> bool:
        """Whether a latent is one vector, as lines and traversals need it."""
        return self.prior_latents.ndim == 2

    @property
    def width(self) -> int:
        """Numbers a code, those of a condition or class included."""
        return int(np.prod(self.prior_latents.shape[1:]))

    @property
    def places(self) -> NDArray[np.int64]:
        """The places of a code that are latents."""
        return np.arange(self.width)[self.run.model.latent_dims]

    @property
    def latents(self) -> int:
        return len(self.places)

    @property
    def latent_names(self) -> list[str]:
        """z0, z1, ...: what each latent is called, (latents,)."""
        names = latent_names(self.run, self.width)
        return [names[i] for i in self.places]

    # --- test data ----------------------------------------------------------------------------------------------

    @cached_property
    def observed(self) -> Observed:
        return self.run.observed("test")

    @cached_property
    def examples(self) -> NDArray[np.int64]:
        """Rows of the test split to show: the first of each class in turn, then the first ones not taken yet."""
        assert self.data is not None
        label = self.data.test.label
        first: list[int] = []
        if label is not None:
            classes, rows = np.unique(label, return_index=True)
            first = [int(r) for c, r in zip(classes, rows, strict=True) if c >= 0][:EXAMPLES]
        rest = [i for i in range(min(len(self.data.test), 2 * EXAMPLES)) if i not in first]
        return np.array([*first, *rest][: min(EXAMPLES, len(self.data.test))])

    @cached_property
    def raw(self) -> Array:
        """The example data in their own units, (n, *event)."""
        return self.observed.raw(self.examples)

    @cached_property
    def means(self) -> Array:
        """Posterior means of the example data, as evaluation sees them, (n, D)."""
        import torch

        with torch.no_grad():
            x = self.observed(self.examples).to(self.run.device)
            return self.run.model.encode(x, self.observed.condition(self.examples, self.run.device)).cpu().numpy()

    def name(self, row: int) -> str:
        """What to call a test datum: its class, else its file, else its number."""
        assert self.data is not None
        test = self.data.test
        if test.label is not None and test.label[row] >= 0:
            code = int(test.label[row])
            return str(self.data.label_names[code]) if self.data.label_names else f"class {code}"
        return str(test.names[row]) if test.names else f"test {row}"

    @property
    def names(self) -> list[str]:
        return [self.name(int(r)) for r in self.examples]

    @cached_property
    def drawn(self) -> Array | None:
        """The frozen binary draw of the examples in the data's units, where the observation is one."""
        if not isinstance(self.run.composition.observation, Binary):
            return None
        return self.run.composition.observation.to_raw(self.observed(self.examples)).numpy()

    @property
    def has_density(self) -> bool:
        return self.run.model.no_density is None

    @property
    def _scored_rows(self) -> int:
        return min(SCORED, max(200, int(SCORE_NUMBERS / (SCORE_SAMPLES * self.spec.dims))))

    @cached_property
    def scored(self) -> PerDatum:
        """ELBO, KL and posterior means of the first test data, with few samples: for pictures, not for tables."""
        return per_datum(self.run, self.observed, SCORE_SAMPLES, n=self._scored_rows, compile=False)

    @cached_property
    def codes(self) -> Array:
        """Posterior means of the same data, (n, D); codes where the posterior is a point."""
        return self.scored.means if self.has_density else self.run.encode("test", self._scored_rows)

    @cached_property
    def survey(self) -> Survey:
        """Names, KL, variance and order of the latents over test data."""
        return survey(self.run, self.observed)

    # --- how events are shown -----------------------------------------------------------------------------------

    @cached_property
    def _units(self) -> tuple[Array, Array]:
        """Mean and standard deviation of each feature over (some) training data."""
        assert self.data is not None
        some = np.asarray(self.searched[:5000], dtype=float)
        spread = np.nanstd(some, 0)
        return np.nanmean(some, 0), np.where(spread > 0, spread, 1.0)

    def shown(self, events: Array) -> Array:
        """Events as they are drawn: vectors in standard deviations of the training data, the rest in their units."""
        if self.spec.kind in ("image", "signal") or self.data is None:
            return events
        mean, spread = self._units
        return (events - mean) / spread

    @property
    def unit(self) -> str:
        if self.spec.kind in ("image", "signal") or self.data is None:
            return "data units"
        return "standard deviations"

    @property
    def gaps(self) -> str:
        """A sentence on what missing values look like, where data have such."""
        if not self.spec.missing:
            return ""
        return " Sand-coloured: values that are missing." if self.is_image else " Gaps are values that are missing."

    @property
    def kinds(self) -> str:
        """A sentence on columns whose numbers are names, where a table has such."""
        named = [column.name for column in self.spec.columns if column.kind == "categorical"]
        some = f"{', '.join(named[:3])}{' and others' if len(named) > 3 else ''}"
        return f" Of categories ({some}) the number is shown, whose order means nothing." if named else ""

    @property
    def features(self) -> list[str] | None:
        return None if self.data is None else self.data.feature_names

    def tiles(self, events: Array) -> Bytes:
        """Image events (N, C, H, W) as one row of tiles with clear gaps."""
        return self.row(channels_last(events), self.scale)

    def row(self, pictures: Array, scale: tuple[float, float] = (0.0, 255.0)) -> Bytes:
        """Pictures (N, H, W[, C]) as one row of tiles with clear gaps."""
        zoom = max(1, math.ceil(TILE / max(pictures.shape[1:3])))
        return image_grid(pictures, len(pictures), gap=4, background=None, scale=scale, zoom=zoom)

    # --- training data nearby -----------------------------------------------------------------------------------

    @cached_property
    def searched(self) -> Array:
        """The training data that are searched for neighbours, (M, *event)."""
        assert self.data is not None
        bytes_each = max(1, self.data.train.raw[:1].nbytes)
        n = min(len(self.data.train), SEARCHED, max(1000, SEARCHED_BYTES // bytes_each))
        return self.data.events(self.data.train[slice(0, n)])

    def neighbours(self, events: Array) -> tuple[Array, Array]:
        """The nearest of the searched training data to each, and the RMS difference, as they are shown.

        Returns:
            (n, *event) and (n,).
        """
        if self.spec.kind in ("image", "signal"):
            index, square = nearest(events, self.searched)
        else:
            index, square = nearest(self.shown(events), self.shown(self.searched))
        return self.searched[index[:, 0]], np.sqrt(square[:, 0] / self.spec.dims)
