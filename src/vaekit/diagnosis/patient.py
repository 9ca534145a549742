"""What the doctor examines: data with the settings of a recipe, or a run; shared results are computed once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vaekit.data.condition import set_apart
from vaekit.data.core import Computed, Data
from vaekit.errors import DataError, RunError, SupportError, TrainingError
from vaekit.metrics.latents import Survey, survey
from vaekit.metrics.measurement import Measurement
from vaekit.models.quantised import QuantisedEncoder
from vaekit.models.vae import VAE
from vaekit.options import Defaults, Options
from vaekit.recipes import get_recipe
from vaekit.recipes.composition import Composition, DataSpec
from vaekit.runs.saved import SavedRun
from vaekit.training.plan import plan_new
from vaekit.training.prepare import prepare
from vaekit.utils.isolation import seeded

Array = NDArray[Any]
ROWS = 2000
"""The maximum number of rows of a split that checks look at."""
NUMBERS = 8_000_000
"""The maximum number of values of x that a check looks at, but at least 200 rows."""
SAMPLES, SCORED = 200, 200
"""Importance samples per example, and the number of test examples, of the checks of the likelihood. With 200 samples,
k-hat is fitted to 40 weights; with 50, to 10, as many as its prior is worth."""


class Codes(NamedTuple):
    """Codes (n, L) drawn from q(z|x) of training data and of held-out data, and from the prior."""

    train: Array
    held: Array
    prior: Array
    group: Array | None
    """The group of each held-out datum, if the data were split by group."""


class Patient:
    """Data with the settings of a recipe, or a run with its data.

    Attributes:
        data: the data, or None if they are unavailable.
        missing: why they are unavailable, else "".
        composition: the model, or None if the recipe refuses the data.
        refusal: why the recipe refuses the data, else "".
        choices: the arguments of the recipe, with its defaults for those that were not given.
        training: the training options, with the recipe's defaults.
        steps: the number of training steps, planned or made.
        run: the run; None before training.
    """

    def __init__(
        self,
        data: Data | None,
        composition: Composition | None,
        *,
        choices: Mapping[str, Any],
        training: Defaults,
        steps: int,
        run: SavedRun | None = None,
        missing: str = "",
        refusal: str = "",
    ):
        self.data, self.composition, self.choices, self.run = data, composition, dict(choices), run
        self.training, self.steps, self.missing, self.refusal = training, steps, missing, refusal

    @classmethod
    def of_data(cls, data: Data, recipe: str, options: Options, choices: Mapping[str, Any]) -> Patient:
        """Data, and the settings with which they are to be trained. Nothing is written.

        Raises:
            ChoiceError: there is no such recipe, or an option is wrong or does not suit the data.
        """
        data, made = set_apart(data, choices.get("condition")), get_recipe(recipe)
        try:
            with seeded(options.seed):
                composition = made(DataSpec.of(data), **choices)
            plan = plan_new(replace(options, compile="off", device="cpu", devices=1), composition, data)
            composition.objective.plan(plan.horizon)
            prepare(data, composition, plan.seed)
        except (DataError, SupportError, TrainingError) as error:
            return cls(data, None, choices=choices, training=options.over(), steps=0, refusal=str(error))
        known = {**made.defaults_for(DataSpec.of(data), choices), **choices}
        return cls(data, composition, choices=known, training=plan.options.over(), steps=plan.horizon)

    @classmethod
    def of_run(cls, run: SavedRun) -> Patient:
        """A run with its data, if they are available."""
        data, missing = None, ""
        try:
            data = run.data
        except DataError as error:
            missing = str(error)
        config = run.config
        choices = {**config.get("defaults", {}), **config["arguments"]}
        steps = config.get("step", config.get("plan", {}).get("horizon", 0))
        return cls(
            data,
            run.composition,
            choices=choices,
            training=run.options.over(),
            steps=steps,
            run=run,
            missing=missing,
        )

    # --- what both have -----------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """The kind of the data: image, signal, vector or counts."""
        return self.run.spec.kind if self.run is not None else self.known.kind

    @property
    def known(self) -> Data:
        """The data. Raises DataError if they are unavailable."""
        if self.data is None:
            raise DataError(self.missing)
        return self.data

    @property
    def model(self) -> Composition:
        """The composition. Raises RunError if there is none."""
        if self.composition is None:
            raise RunError(self.refusal)
        return self.composition

    @property
    def saved(self) -> SavedRun:
        """The run. Raises RunError before training."""
        if self.run is None:
            raise RunError("there is no run yet")
        return self.run

    @cached_property
    def weights(self) -> bool:
        """Whether the run has weights that training has saved."""
        return self.run is not None and (self.run.path / "model.safetensors").is_file()

    @property
    def latent(self) -> int | None:
        """The number of latents of a code that is one vector; None for other models."""
        model = None if self.composition is None else self.composition.model
        if not isinstance(model, VAE) or isinstance(model.posterior, QuantisedEncoder):
            return None
        event = model.prior().event_shape
        return int(event[0]) if len(event) == 1 else None

    @property
    def epochs(self) -> float:
        """Passes through the training data."""
        n = len(self.known.train)
        return self.steps * min(self.training.batch, n) / n

    def rows(self, split: str, most: int = ROWS) -> Array:
        """At most `most` evenly spaced rows of a split, as (n, D) float64."""
        data, chosen = self.known, self.chosen(split, most)
        rows = data.events(getattr(data, split)[chosen])
        return np.asarray(rows, np.float64).reshape(len(chosen), math.prod(data.shape))

    def chosen(self, split: str, most: int = ROWS) -> NDArray[np.int64]:
        """The numbers of these rows."""
        n = len(getattr(self.known, split))
        return self._spread(n, min(most, max(200, NUMBERS // math.prod(self.known.shape))))

    @property
    def in_memory(self) -> bool:
        """Whether the rows are an array that can be read in full."""
        return self.data is not None and not isinstance(self.data.train.raw, Computed)

    # --- what a run has -----------------------------------------------------------------------------------------

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """The records of training."""
        return self.saved.log

    def records(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind, such as train or valid."""
        return [record for record in self.log if record.get("kind") == kind]

    @cached_property
    def measurement(self) -> Measurement:
        """A measurement of the first test data with few samples, whose results the checks share."""
        n = min(SCORED, max(20, NUMBERS // (SAMPLES * self.saved.spec.dims)))
        return Measurement(self.saved, "test", n=n, samples=SAMPLES, compile=False)

    @cached_property
    def survey(self) -> Survey:
        """Names, KL, variance and use of the latents on test data."""
        return survey(self.saved)

    @cached_property
    def codes(self) -> Codes:
        """Codes of training data, held-out data and the prior.

        Held-out data are those of the test split, and those of the validation split if the test split is small.
        """
        run = self.saved
        most = min(ROWS, max(200, NUMBERS // run.spec.dims))
        test, valid = len(run.data.test), len(run.data.valid)
        parts = [("test", min(test, most)), ("valid", min(valid, max(0, most - test)))]
        parts = [(split, n) for split, n in parts if n]
        groups = [getattr(run.data, split).group for split, _ in parts]
        held = np.concatenate([self._drawn(split, n) for split, n in parts])
        known = [g[self._spread(len(g), n)] for (_, n), g in zip(parts, groups, strict=True) if g is not None]
        latents = run.model.latent_dims
        prior = run.sample_latents(max(len(held), 500), seed=1).astype(np.float64)
        group = np.concatenate(known) if len(known) == len(parts) else None
        return Codes(self._drawn("train", most), held, prior.reshape(len(prior), -1)[:, latents], group)

    @staticmethod
    def _spread(n: int, most: int) -> NDArray[np.int64]:
        return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))

    def _drawn(self, split: str, most: int) -> Array:
        """A draw z ~ q(z|x) for evenly spaced rows of a split, (n, L); the code, if the model has no density."""
        run = self.saved
        rows = self._spread(len(getattr(run.data, split)), most)
        z = run.encode(split, rows=rows, sample=run.model.no_density is None)
        return z.reshape(len(z), -1)[:, run.model.latent_dims].astype(np.float64)

    @torch.no_grad()
    def observed(self, split: str, most: int) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """The first rows of a split as the model sees them: x, their condition, and their row numbers."""
        run = self.saved
        observed = run.observed(split)
        rows = np.arange(min(observed.n, most, max(50, NUMBERS // run.spec.dims)))
        return observed(rows), observed.condition(rows), torch.from_numpy(rows)
