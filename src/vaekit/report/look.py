"""The data behind the report of one run, computed once: chosen test examples, their latents and reconstructions."""

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
from vaekit.latents.fitted import stored_density
from vaekit.latents.paths import nearest
from vaekit.latents.resample import LatentDensity
from vaekit.metrics import PerDatum, latent_names, per_datum, survey
from vaekit.metrics.latents import Survey
from vaekit.runs.observed import Observed
from vaekit.runs.saved import SavedRun

Array = NDArray[Any]
EXAMPLES = 10
SCORED = 2000
SCORE_SAMPLES = 2
SCORE_NUMBERS = 2e7
SEARCHED = 20_000
SEARCHED_BYTES = 200 * 2**20
TILE = 84  # smallest longer side of a tile, in pixels of the page


class Look:
    """The results that a report shows of one run, computed when first used.

    Attributes:
        data: the run's data, or None if they are unavailable.
        missing: why they are unavailable, else "".
    """

    def __init__(self, run: SavedRun):
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
        """log |dx / d raw|: added to log p(x), it gives the log density in the data's own units."""
        return self.run.composition.observation.log_jacobian(self.spec.shape)

    # --- latents ------------------------------------------------------------------------------------------------

    @cached_property
    def prior_latents(self) -> Array:
        """Samples of the prior, (64, ...)."""
        return self.run.sample_latents(64)

    @cached_property
    def stored(self) -> LatentDensity | None:
        """The density of the codes that samples are drawn from by default, or None for the prior."""
        return stored_density(self.run)

    @property
    def plain(self) -> bool:
        """Whether the latent code is one vector, as interpolations and traversals require."""
        return self.prior_latents.ndim == 2

    @property
    def width(self) -> int:
        """The size of a code, including a condition or class."""
        return int(np.prod(self.prior_latents.shape[1:]))

    @property
    def latent_indices(self) -> NDArray[np.int64]:
        """The indices of the latents within a code, (latents,)."""
        return np.arange(self.width)[self.run.model.latent_dims]

    @property
    def latents(self) -> int:
        """The number of latents."""
        return len(self.latent_indices)

    @property
    def latent_names(self) -> list[str]:
        """The names of the latents, z0, z1, ...: (latents,)."""
        names = latent_names(self.run, self.width)
        return [names[i] for i in self.latent_indices]

    # --- test data ----------------------------------------------------------------------------------------------

    @cached_property
    def observed(self) -> Observed:
        """The test data as the model observes them."""
        return self.run.observed("test")

    @cached_property
    def examples(self) -> NDArray[np.int64]:
        """Rows of the test split to show: the first example of each class, then the first others."""
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
        """The shown examples in their own units, (n, *event)."""
        return self.observed.raw(self.examples)

    @cached_property
    def means(self) -> Array:
        """Posterior means of the shown examples, observed as in evaluation, (n, D)."""
        return self.run.encode(self.observed, rows=self.examples)

    def name(self, row: int) -> str:
        """The name of a test example: its class, else its file, else its row number."""
        assert self.data is not None
        test = self.data.test
        if test.label is not None and test.label[row] >= 0:
            code = int(test.label[row])
            return str(self.data.label_names[code]) if self.data.label_names else f"class {code}"
        return str(test.names[row]) if test.names else f"test {row}"

    @property
    def names(self) -> list[str]:
        """The names of the shown examples."""
        return [self.name(int(r)) for r in self.examples]

    @cached_property
    def drawn(self) -> Array | None:
        """The fixed binary draw of the examples in the data's units, for a binary observation; else None."""
        if not isinstance(self.run.composition.observation, Binary):
            return None
        return self.run.composition.observation.to_raw(self.observed(self.examples)).numpy()

    @property
    def has_density(self) -> bool:
        """Whether the model has a density p(x)."""
        return self.run.model.no_density is None

    @property
    def _scored_rows(self) -> int:
        return min(SCORED, max(200, int(SCORE_NUMBERS / (SCORE_SAMPLES * self.spec.dims))))

    @cached_property
    def scored(self) -> PerDatum:
        """ELBO, KL and posterior means of the first test examples, with few samples: for figures, not for tables."""
        return per_datum(self.run, self.observed, SCORE_SAMPLES, n=self._scored_rows, compile=False)

    @cached_property
    def codes(self) -> Array:
        """Posterior means of the same examples, or their codes if the model has no density, (n, D)."""
        return self.scored.means if self.has_density else self.run.encode("test", n=self._scored_rows)

    @cached_property
    def survey(self) -> Survey:
        """Names, KL, variance and order of the latents on test data."""
        return survey(self.run, self.observed)

    # --- display of examples ------------------------------------------------------------------------------------

    @cached_property
    def _units(self) -> tuple[Array, Array]:
        """Mean and standard deviation of each feature over the first training data."""
        assert self.data is not None
        train = np.asarray(self.searched[:5000], dtype=float)
        spread = np.nanstd(train, 0)
        return np.nanmean(train, 0), np.where(spread > 0, spread, 1.0)

    def shown(self, events: Array) -> Array:
        """Examples as plotted: vectors in standard deviations of the training data, others in their own units."""
        if self.spec.kind in ("image", "signal") or self.data is None:
            return events
        mean, spread = self._units
        return (events - mean) / spread

    @property
    def unit(self) -> str:
        """The unit of `shown`."""
        if self.spec.kind in ("image", "signal") or self.data is None:
            return "data units"
        return "standard deviations"

    @property
    def gaps(self) -> str:
        """A sentence on how missing values are plotted, if the data have any; else ""."""
        if not self.spec.missing:
            return ""
        return " Missing values are sand-coloured." if self.is_image else " Gaps are missing values."

    @property
    def kinds(self) -> str:
        """A sentence on categorical columns, if a table has any; else ""."""
        named = [column.name for column in self.spec.columns if column.kind == "categorical"]
        examples = f"{', '.join(named[:3])}{' and others' if len(named) > 3 else ''}"
        return (
            f" Categorical columns ({examples}) show the category's index, whose order has no meaning." if named else ""
        )

    @property
    def features(self) -> list[str] | None:
        """The names of the features, or None."""
        return None if self.data is None else self.data.feature_names

    def tiles(self, events: Array) -> Bytes:
        """Images (N, C, H, W) as one row of tiles with transparent gaps."""
        return self.row(channels_last(events), self.scale)

    def row(self, pictures: Array, scale: tuple[float, float] = (0.0, 255.0)) -> Bytes:
        """Pictures (N, H, W[, C]) as one row of tiles with transparent gaps."""
        zoom = max(1, math.ceil(TILE / max(pictures.shape[1:3])))
        return image_grid(pictures, len(pictures), gap=4, background=None, scale=scale, zoom=zoom)

    # --- nearest training data ----------------------------------------------------------------------------------

    @cached_property
    def searched(self) -> Array:
        """The first training data, among which nearest neighbours are sought, (M, *event)."""
        assert self.data is not None
        bytes_each = max(1, self.data.train.raw[:1].nbytes)
        n = min(len(self.data.train), SEARCHED, max(1000, SEARCHED_BYTES // bytes_each))
        return self.data.events(self.data.train[slice(0, n)])

    def neighbours(self, events: Array) -> tuple[Array, Array]:
        """The nearest training example to each of `events`, and the RMS difference in the unit that is shown.

        Returns:
            the neighbours (n, *event) and the differences (n,).
        """
        if self.spec.kind in ("image", "signal"):
            index, square = nearest(events, self.searched)
        else:
            index, square = nearest(self.shown(events), self.shown(self.searched))
        return self.searched[index[:, 0]], np.sqrt(square[:, 0] / self.spec.dims)
