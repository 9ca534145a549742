"""The public interface of runs: `Run` and its methods, `open_run` to open one and `fit` to train one."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec

import numpy as np

from vaekit.data.condition import Labels
from vaekit.data.readers.frames import is_frame
from vaekit.latents.editing import code_of, codes_of, direction, edited, named_mask, own_class, raw_of
from vaekit.latents.fill import Infilled, fill_masked, impute_rows
from vaekit.latents.paths import Mode, interpolate
from vaekit.latents.resample import LatentDensity, fit_latents
from vaekit.metrics import evaluate
from vaekit.recipes.composition import Composition, DataSpec
from vaekit.runs.saved import SavedRun
from vaekit.training.fit import train

P = ParamSpec("P")


class Run(SavedRun):
    """A trained model with its data description, opened from a directory. Use `open_run` (or `vk.open`)."""

    @classmethod
    def of(cls, saved: SavedRun) -> Run:
        """The `Run` of a saved run."""
        run = cls(saved.path, saved.config, saved.composition)
        run._data = saved._data
        return run

    @property
    def facts(self) -> DataSpec:
        """The name of `spec` in vaekit 0.1."""
        warnings.warn("run.facts is now run.spec", FutureWarning, stacklevel=2)
        return self.spec

    def fit_latents(
        self,
        name: str,
        *,
        components: int | None = None,
        steps: int | None = None,
        seed: int | None = None,
        refit: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> LatentDensity:
        """A density of the run's codes to sample from (gmm, flow or two-stage), fitted once and stored with the run.

        If the run directory cannot be written, a note says so. See `vaekit.latents.resample.fit_latents`.
        """
        return fit_latents(self, name, components=components, steps=steps, seed=seed, refit=refit, on_progress=progress)

    def sample_latents(
        self,
        n: int,
        temperature: float = 1.0,
        seed: int = 0,
        labels: Labels | None = None,
        latents: str | None = None,
    ) -> np.ndarray:
        """n codes (n, D) drawn from the prior, or from the density `latents` of the run's codes (`fit_latents`).

        In a conditional run they are for these labels, or by default for each class in turn.
        """
        if latents is None:
            return super().sample_latents(n, temperature, seed, labels)
        c = self._conditions(n, temperature, labels)
        z = self.fit_latents(latents).sample(n, temperature, seed)
        return z if c is None else np.concatenate([z, c.cpu().numpy()], 1)

    def sample(
        self,
        n: int = 64,
        temperature: float = 1.0,
        noise: bool = False,
        seed: int = 0,
        labels: Labels | None = None,
        latents: str | None = None,
        beyond_range: bool = False,
    ) -> np.ndarray:
        """n new data in the data's own units: means of p(x|z), or draws from it with `noise`.

        Codes are drawn from the prior, or from the density that `latents` names (`fit_latents`). Columns of a table
        that hold integers get integers, and all stay in the column's range unless `beyond_range`.
        """
        x = self.decode(self.sample_latents(n, temperature, seed, labels, latents), noise, seed)
        return self.as_rows(x, beyond_range)

    def evaluate(
        self,
        split: str | np.ndarray = "test",
        samples: int = 100,
        n: int | None = None,
        metrics: Sequence[str] | None = None,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
        labels: Labels | None = None,
        source: str | None = None,
    ) -> list[dict[str, Any]]:
        """Measure metrics on a split, store them in metrics.json and return them as a list (see `vaekit.metrics`).

        Arguments:
            split: a split of the run's data, or raw rows of other data, whose results are not stored.
            labels: labels of raw rows, for a conditional run, as for `encode`.
            source: the name of raw rows in the protocol.
        """
        return evaluate(
            self,
            split,
            samples=samples,
            n=n,
            metrics=metrics,
            seed=seed,
            progress=progress,
            labels=labels,
            source=source,
        )

    def interpolate(self, a: Any, b: Any, steps: int = 11, mode: Mode = "auto", labels: Any = None) -> np.ndarray:
        """Interpolate between two data in latent space, (steps, *event): see `vaekit.latents.paths.interpolate`.

        Arguments:
            a, b: the index of a test row, or a raw datum. For a conditional run, raw data need `labels`.
        """
        return self.decode(interpolate(*codes_of(self, a, b, labels), steps, mode))

    def edit(
        self,
        datum: int | np.ndarray,
        attribute: str,
        strength: float = 1.0,
        steps: int = 9,
        against: str | None = None,
        balance: bool = True,
        labels: Labels | None = None,
    ) -> np.ndarray:
        """Edit a datum along the direction of an attribute or class, from -strength to strength: (steps, *event).

        See `vaekit.latents.editing.direction` for the arguments. A test row that moves towards a class moves away from
        its own class, unless `against` names another. In a conditional run the condition moves with the code, and a
        raw datum needs its condition (`labels`).
        """
        way = direction(self, attribute, against or own_class(self, datum, attribute), balance)
        return self.decode(edited(code_of(self, datum, labels), way, strength, steps)[0])

    def fill(
        self,
        what: int | np.ndarray,
        mask: str | np.ndarray = "half",
        draws: int = 32,
        seed: int = 0,
        labels: Labels | None = None,
    ) -> Infilled:
        """Fill in masked parts of data by posterior inference; the model need not be trained with missing values.

        Arguments:
            what: the index of a test row, or raw rows.
            mask: half, box, or bool (*event) (or one mask per row), True where hidden.
            draws: number of alternatives.
            labels: labels of raw rows, for a conditional run, as for `encode`.

        See `vaekit.latents.fill.fill_masked`.
        """
        raw = raw_of(self, what) if isinstance(what, int | np.integer) else what
        if is_frame(raw):
            raw, labels = self.of_frame(raw, labels)
        if isinstance(what, int | np.integer) and labels is None:
            labels = self.observed("test").given(int(what))
        hidden = named_mask(mask, self.spec.shape) if isinstance(mask, str) else mask
        return fill_masked(self, raw, hidden, labels, draws, seed=seed)

    def impute(
        self, what: np.ndarray, samples: int | None = None, seed: int = 0, labels: Labels | None = None
    ) -> np.ndarray:
        """Fill in the missing values (nan) of raw rows by one pass of the encoder, (N, *event).

        It is several times as fast as `fill`, but needs a run that was trained with missing values.

        Arguments:
            what: raw rows: an array, or a frame, whose columns are matched by name.
            samples: importance samples of the expectation; None decodes the code of each row.
            labels: labels of raw rows, for a conditional run, as for `encode`.

        Raises:
            DataError: the run was trained without missing values, or the rows do not fit this run.
        """
        return impute_rows(self, what, labels, samples, seed)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the one-page report and return its path."""
        from vaekit.report import write_report

        return write_report([self], path)

    def explore(
        self,
        path: str | Path | None = None,
        *,
        points: int = 60_000,
        tsne: int = 5000,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Path:
        """Write the page that decodes live in the browser, return its path. See `vaekit.explorer.write_explorer`."""
        from vaekit.explorer import write_explorer

        return write_explorer(self, path, points=points, tsne=tsne, progress=progress)

    def export(
        self, out: str | Path, format: Literal["onnx", "torch"] = "onnx", graphs: Sequence[str] | None = None
    ) -> list[Path]:
        """Write decoder, encoder and densities for other programs, return the files: see `export.write_export`."""
        from vaekit.export import write_export

        return write_export(self, out, format, graphs)[0]


def open_run(path: str | Path, model: Composition | None = None, data: Any = None) -> Run:
    """Open a run directory.

    Arguments:
        path: the directory; `example` is the run that comes with vaekit.
        model: the composition, for a run of a composition that was built by hand.
        data: the data or their new path, if they have moved.

    Raises:
        RunError: the run is missing, damaged, written by a newer vaekit, or does not fit `model`.
    """
    return Run.open(path, model, data)


def _returning_run(train: Callable[P, SavedRun]) -> Callable[P, Run]:
    """`train` under its public name, with its signature and documentation, returning a `Run`."""

    @functools.wraps(train)
    def fit(*args: P.args, **kwargs: P.kwargs) -> Run:
        return Run.of(train(*args, **kwargs))

    fit.__name__ = fit.__qualname__ = "fit"
    fit.__module__ = __name__
    fit.__signature__ = inspect.signature(train).replace(return_annotation="Run")  # type: ignore[attr-defined]
    return fit


fit = _returning_run(train)
