"""A trained model in memory, without a directory: raw data in, arrays out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from vaekit.data.condition import Labels
from vaekit.data.core import Column, ColumnKind, Data, check_numbers
from vaekit.data.readers.memory import as_array
from vaekit.densities import draw
from vaekit.errors import ChoiceError, DataError
from vaekit.heads import Conditional
from vaekit.models.library import WithTotal
from vaekit.models.vae import VAE, Model
from vaekit.noise import Key, Noise
from vaekit.recipes.composition import Composition, DataSpec
from vaekit.utils.formerly import formerly
from vaekit.utils.isolation import in_full_precision
from vaekit.utils.suggest import unknown

from .likelihood import kl_of, log_likelihood
from .new_data import SPLITS, DataLike, NewData, conditions, is_source, read_new
from .observed import UNCONDITIONAL, Observed, block_of, events, gathered, rows_of
from .processes import shared

DRAWN = 100_000
"""The number of codes that are drawn from the prior at once."""


class TrainedModel:
    """A composition with trained weights, and the description of its data: encodes, decodes, samples and scores.

    Arguments:
        composition: model, objective and observation, with trained weights.
        spec: the description of the data that it accepts.
        data: the data, whose splits can then be used by name.
    """

    def __init__(self, composition: Composition, spec: DataSpec, data: Data | None = None):
        self.composition, self.spec, self._data = composition, spec, data
        self.device = torch.device("cpu")
        self.graphs: dict[Any, Any] = {}  # graphs that the estimators compiled for this model
        self._observed: dict[str, Observed] = {}

    @property
    def model(self) -> Model:
        """The latent-variable model."""
        return self.composition.model

    @property
    def data(self) -> Data:
        """The data whose splits are used by name.

        Raises:
            DataError: the model has none.
        """
        if self._data is None:
            raise DataError("this model has no data of its own: pass raw rows instead of the name of a split")
        return self._data

    @property
    def feature_names(self) -> Sequence[str]:
        """The names of the elements of x; empty if the data have none."""
        return (self._data and self._data.feature_names) or ()

    @property
    def read_options(self) -> dict[str, Any]:
        """The options that the data were read with."""
        return {} if self._data is None else self._data.options

    @property
    def data_identity(self) -> tuple[str, str]:
        """The name and the digest of the data."""
        return self.data.name, self.data.digest

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of x: those of the table, else numeric columns with the feature names; empty without names."""
        kind: ColumnKind = "counts" if self.spec.kind == "counts" else "real"
        return self.spec.columns or tuple(Column(name, kind) for name in self.feature_names)

    def to(self, device: str | torch.device) -> Self:
        """Move the model and objective to a device. Data are observed on the CPU, and results are arrays on the CPU."""
        self.device = torch.device(device)
        self.model.to(self.device)
        self.composition.objective.to(self.device)
        self.graphs.clear()
        return self

    # --- from raw data to arrays --------------------------------------------------------------------------------

    def events(self, raw: np.ndarray) -> np.ndarray:
        """Raw rows in any layout that this run accepts -> (N, *event); see `vaekit.runs.observed.events`."""
        return events(raw, self.spec, self.composition.observation)

    def row(self, index: int | np.integer) -> np.ndarray:
        """The index of a row of the test split as an array of one element.

        Raises:
            ChoiceError: the row does not exist.
        """
        n = len(self.data.test)
        if not 0 <= index < n:
            raise ChoiceError(f"the test split has rows 0..{n - 1}, got {index}")
        return np.array([int(index)])

    @formerly("labels", what="data")
    def observed(self, data: DataLike = "test", *, labels: Labels | None = None) -> Observed:
        """The x of a split of the data (`train`, `valid`, `test`), or of raw rows (`labels` as for `encode`).

        An `Observed` is returned unchanged.

        Raises:
            ChoiceError: the split is unknown, `data` is a row number, or `labels` do not apply to this run or data.
        """
        if isinstance(data, Observed):
            return data
        if isinstance(data, int | np.integer):
            raise ChoiceError(
                f"the name of a split or raw rows are expected, got {data}: row {data} of the test split is "
                f"`run.observed('test').raw([{data}])`"
            )
        if isinstance(data, NewData) and isinstance(data.x, str):
            data = data.x
        if isinstance(data, str) and data in SPLITS:
            if labels is not None:
                raise ChoiceError(
                    UNCONDITIONAL
                    if self.composition.condition is None
                    else f"the {data} data have their own conditions: `labels` is for raw rows"
                )
            if data not in self._observed:  # cached, to keep its binary draw
                self._observed[data] = Observed(self.composition, self.spec, data, self.data)
            return self._observed[data]
        if isinstance(data, str) and not is_source(data):
            raise ChoiceError(f"{unknown('split', data, SPLITS)}; no data have this name or path")
        new = self.read(data, labels=labels)
        array = rows_of(new.x, self.spec, self.composition.observation)
        return Observed(self.composition, self.spec, "array", None, array, new.labels, new.name)

    @formerly("labels")
    def read(
        self, source: Any, *, labels: Labels | None = None, table: str | Path | None = None, unseen: bool = False
    ) -> NewData:
        """New data with the columns that the model does not use, for all methods that take data.

        Arguments:
            source: a path, the name of a data set, a frame, a sparse matrix, an array, or `NewData`. Tables are read by
                the columns and categories of the model's own data, images at their size.
            labels: for a conditional run, as for `encode`, or the name of the column with the labels; by default
                those in the data.
            table: a table that describes a folder of images.
            unseen: whether to accept texts that are not a category of their column: they are nan in x, and
                `NewData.unseen` has them.

        Raises:
            ChoiceError: the rows lack the condition of a conditional run.
            DataError: the source cannot be read, or does not fit the model.
        """
        new = read_new(self, source, table=None if table is None else str(table), unseen=unseen)
        return replace(new, labels=conditions(self, new, labels=labels))

    @formerly("n", "sample", "seed", "rows", "labels", "progress", what="data")
    @torch.no_grad()
    @in_full_precision()
    def encode(
        self,
        data: DataLike = "test",
        *,
        n: int | None = None,
        rows: np.ndarray | Sequence[int] | None = None,
        labels: Labels | None = None,
        sample: bool = False,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """The posterior mean of each datum, (N, D), or a draw from the posterior with `sample`.

        The code of a conditional model ends in its condition.

        Arguments:
            data: a split of the run's data; the index of a row of the test split; or new data: a path, a frame (whose
                columns are matched by name), a sparse matrix, an array, one datum without the axis of rows (N = 1), or
                the result of `read`.
            n: encode only the first n data.
            rows: encode only the data with these indices; binarised data use the split's fixed draw.
            labels: labels of an array of raw rows, for a conditional run: one class per row or one for all rows, by
                name or by code 0..size-1; for attributes, numbers (n, size). If the name of any class is an integer,
                integers are names, never codes: with classes "3", "7" and "9", 0 is not a class and 3 is the class "3".
            sample: draw from the posterior instead of taking its mean.
            seed: seed of the draw.
            progress: called as progress(done, of).

        Raises:
            ChoiceError: `labels` for a run that is not conditional, or with a split; or an unknown class.
            DataError: the rows do not fit this run.
        """
        if isinstance(data, int | np.integer):
            rows, data = self.row(data), "test"
        observed, rows = self.observed(data, labels=labels), None if rows is None else np.asarray(rows)
        total = len(rows) if rows is not None else observed.n if n is None else min(n, observed.n)
        if total < 1:
            raise ChoiceError("the number of data to encode must be 1 or more")

        def codes(part: np.ndarray) -> Iterator[np.ndarray]:
            done = 0
            for block, x, c in observed.batches(part, None, self.device):
                noise = Noise.of(seed, torch.from_numpy(block).to(self.device), Key.CODES) if sample else None
                yield self.model.encode(x, c, noise).cpu().numpy()
                done += len(block)
                if progress:
                    progress(done, len(part))

        chosen = observed.chosen(rows, n)
        return shared(chosen, lambda part: gathered(codes(part), len(part)), lambda z: [z], lambda arrays: arrays[0])

    def latents_of(self, z: np.ndarray) -> np.ndarray:
        """Codes z (N, D) of `encode` without what follows the latents: the total of counts, and the condition.

        Use them for maps, neighbours and clusters, in which the condition would separate rows.
        """
        model, condition = self.model, self.composition.condition
        likelihood = model.likelihood if isinstance(model, VAE) else None
        total = isinstance(likelihood, Conditional) and isinstance(likelihood.net, WithTotal)
        given = total + (0 if condition is None else condition.size)
        return z[:, : z.shape[1] - given] if given else z

    @formerly("noise", "seed")
    @torch.no_grad()
    @in_full_precision()
    def decode(self, z: np.ndarray | Tensor, *, noise: bool = False, seed: int = 0) -> np.ndarray:
        """The mean of p(x|z), or with `noise` a draw from p(x|z), in the data's own units: (N, *event) float32.

        Raises:
            ChoiceError: z are not codes as `encode` returns them, (N, D).
        """
        codes, block = self._codes(z), block_of(self.spec.dims)
        blocks = (self._decoded(codes[a : a + block], a, seed if noise else None) for a in range(0, len(codes), block))
        return gathered(blocks, len(codes))

    def _decoded(self, z: Tensor, first: int, seed: int | None) -> np.ndarray:
        """The means of p(x|z) in the data's units, or with a seed draws from it for the rows from number `first`."""
        seen = self.composition.observation
        try:
            px = self.model.decode(z)
        except (RuntimeError, IndexError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ChoiceError(
                f"codes of shape {tuple(z.shape[1:])} do not fit this model: give codes as `encode` returns them"
            ) from error
        if seed is None:
            return seen.mean_in_units(px).cpu().numpy()
        rows = torch.arange(first, first + len(z), device=self.device)
        return seen.to_raw(draw(px, Noise.of(seed, rows, Key.DECODE)).cpu()).numpy()

    def _codes(self, z: np.ndarray | Tensor) -> Tensor:
        """Codes (N, D) on the device, after a check of what they hold."""
        codes = np.asarray(as_array(z, "the codes"))
        check_numbers(codes, "the codes")
        if codes.ndim < 2 or not len(codes) or not np.isfinite(codes).all():
            wrong = f"of shape {codes.shape}" if codes.ndim < 2 or not len(codes) else "that are not finite"
            raise ChoiceError(f"expected codes (N, D) of finite numbers, as `encode` returns them, got codes {wrong}")
        return torch.from_numpy(np.ascontiguousarray(codes, np.float32)).to(self.device)

    @formerly(split="data")
    @torch.no_grad()
    @in_full_precision()
    def kl_per_latent(self, data: DataLike = "test", *, n: int = 1000, labels: Labels | None = None) -> np.ndarray:
        """The mean KL of each latent over the first n data of a split or of raw rows, in nats, (D,).

        Raises:
            ChoiceError: posterior or prior does not factorise over the latents.
        """
        if isinstance(data, int):  # in earlier versions the first argument was n
            replacement = f"TrainedModel.kl_per_latent: give these arguments by name: n={data}"
            warnings.warn(replacement, DeprecationWarning, stacklevel=5)
            return self.kl_per_latent(n=data, labels=labels)
        parts = []
        for block, x, c in self.observed(data, labels=labels).batches(None, n, self.device):
            kl = kl_of(self, block, x, c)
            if kl is None:
                raise ChoiceError("the KL of this run is not a sum over latents: its posterior or prior couples them")
            parts.append(kl)
        return np.concatenate(parts).mean(0)

    @formerly("temperature", "seed", "labels")
    def sample_latents(
        self, n: int = 64, *, labels: Labels | None = None, temperature: float = 1.0, seed: int = 0
    ) -> np.ndarray:
        """Draw n codes (n, D) from the prior.

        For a conditional model, they have these labels, or by default those of each class in turn.

        Raises:
            ChoiceError: n below 1, a negative temperature, or labels unknown to the model.
        """
        c = self._conditions(n, temperature, labels)

        def codes() -> Iterator[np.ndarray]:
            for a in range(0, n, DRAWN):
                rows = torch.arange(a, min(a + DRAWN, n), device=self.device)
                given = None if c is None else c[a : a + DRAWN]
                noise = Noise.of(seed, rows, Key.CODES)
                yield self.model.sample(len(rows), given, noise, temperature).cpu().numpy()

        return gathered(codes(), n)

    def _conditions(self, n: int, temperature: float, labels: Labels | None) -> Tensor | None:
        """Check the labels and return the conditions of n new data."""
        if not isinstance(n, int | np.integer) or n < 1:
            raise ChoiceError(f"the number of samples must be 1 or more (a whole number), got {n!r}")
        if not temperature >= 0:
            raise ChoiceError(f"temperature must be 0 or more, got {temperature:g}")
        condition = self.composition.condition
        if condition is None:
            if labels is not None:
                raise ChoiceError(UNCONDITIONAL)
            return None
        if labels is not None:
            c = condition.encoded(labels, n)
        elif condition.kind == "label":
            c = np.eye(condition.size, dtype=np.float32)[np.arange(n) % condition.size]
        else:  # combinations of attributes that occur in the data
            c = np.resize(condition.of(self.data.test), (n, condition.size))
        return torch.from_numpy(c).to(self.device)

    @formerly("temperature", "noise", "seed", "labels")
    def sample(
        self,
        n: int = 64,
        *,
        labels: Labels | None = None,
        temperature: float = 1.0,
        noise: bool | None = None,
        beyond_range: bool = False,
        seed: int = 0,
    ) -> np.ndarray:
        """Generate n data in the data's own units: draws from p(x|z) for tables and counts, else its means.

        `noise` chooses: True for draws, False for means.
        Codes are drawn from the prior. Integer columns of a table get integers, and all values stay in the range of
        their column unless `beyond_range` is set.
        """
        z = self.sample_latents(n, labels=labels, temperature=temperature, seed=seed)
        return self.new_rows(z, noise=noise, beyond_range=beyond_range, seed=seed)

    def new_rows(
        self, z: np.ndarray, *, noise: bool | None = None, beyond_range: bool = False, seed: int = 0
    ) -> np.ndarray:
        """New data with these codes (N, D); the arguments are those of `sample`."""
        drawn = self.draws_samples if noise is None else noise
        return self.as_rows(self.decode(z, noise=drawn, seed=seed), beyond_range=beyond_range)

    @property
    def draws_samples(self) -> bool:
        """Whether samples are draws from p(x|z) by default, as for tables, in which means are not like rows."""
        return self.spec.kind in ("vector", "counts")

    @formerly("beyond_range")
    def as_rows(self, x: np.ndarray, *, beyond_range: bool = False) -> np.ndarray:
        """Decoded rows (N, D) fitted to the columns of the table (`Column.fitted`); other data unchanged."""
        columns = self.spec.columns
        return np.stack([c.fitted(x[:, j], beyond_range) for j, c in enumerate(columns)], 1) if columns else x

    @formerly("n", "sample", "noise", "seed", "labels", what="data")
    def reconstruct(
        self,
        data: DataLike = "test",
        *,
        n: int | None = None,
        rows: np.ndarray | Sequence[int] | None = None,
        labels: Labels | None = None,
        sample: bool = False,
        noise: bool = False,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Encode and decode: (N, *event) in the data's own units; for the arguments see `encode` and `decode`."""
        z = self.encode(data, n=n, rows=rows, labels=labels, sample=sample, seed=seed, progress=progress)
        return self.decode(z, noise=noise, seed=seed)

    @formerly("samples", "n", "seed", "progress", "labels", what="data")
    def score(
        self,
        data: DataLike = "test",
        *,
        n: int | None = None,
        rows: np.ndarray | Sequence[int] | None = None,
        labels: Labels | None = None,
        samples: int = 100,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """log p(x) of each datum by importance sampling, in nats and the data's own units, (N,) float64.

        A conditional run gives log p(x | c). The other arguments are those of `encode`.

        Arguments:
            samples: K, importance samples per datum.

        Raises:
            ChoiceError: the model has no density (an autoencoder).
        """
        if isinstance(data, int | np.integer):
            rows, data = self.row(data), "test"
        observed, rows = self.observed(data, labels=labels), None if rows is None else np.asarray(rows)
        return log_likelihood(self, observed, samples, n=n, seed=seed, progress=progress, rows=rows)
