"""The public interface of runs: `Run` and its methods, `open_run` to open one and `fit` to train one."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

import numpy as np

from vaekit.anomalies import Detection, detect
from vaekit.anomalies.scoring import SAMPLES
from vaekit.certificate import Certificate, certify
from vaekit.coding import TOLERANCE, Compressed, compress, decompress
from vaekit.data.condition import Labels
from vaekit.diagnosis import STAGES, Diagnosis, Stage, doctor
from vaekit.errors import ChoiceError
from vaekit.expression import Differential, differential, normalised
from vaekit.latents.counterfactual import counterfactual_rows
from vaekit.latents.coverage import widened
from vaekit.latents.editing import code_of, codes_of, direction, edited, hidden_by, own_class, raw_of
from vaekit.latents.fill import fill_masked, impute_rows
from vaekit.latents.fitted import PRIOR, density_of, source_of
from vaekit.latents.given import Best, Infilled, fill_rows, sample_given
from vaekit.latents.paths import Mode, interpolate
from vaekit.latents.resample import LatentDensity, draw_codes, fit_latents
from vaekit.metrics import evaluate
from vaekit.metrics.samples import Sampled, measure_samplers
from vaekit.recipes.composition import Composition, DataSpec
from vaekit.runs.new_data import DataLike
from vaekit.runs.observed import laid_out
from vaekit.runs.saved import SavedRun
from vaekit.training.fit import train
from vaekit.utils.formerly import formerly

if TYPE_CHECKING:
    from vaekit.synthetic import Comparison

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
        """The former name of `spec`, as in vaekit 0.1."""
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
        **choices: Any,
    ) -> LatentDensity:
        """A density of the run's codes (gmm, flow, two-stage or flow-matching), fitted once and stored with the run.

        `choices` are further arguments, such as `width` and `training`: see `vaekit.latents.resample.fit_latents`.
        """
        choices |= {"components": components, "steps": steps, "seed": seed, "refit": refit, "on_progress": progress}
        return fit_latents(self, name, **choices)

    @formerly("temperature", "seed", "labels", "latents")
    def sample_latents(
        self,
        n: int = 64,
        *,
        labels: Labels | None = None,
        latents: str | None = None,
        guidance: float = 1.0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> np.ndarray:
        """n codes (n, D) drawn from the prior, or from the density `latents` of the run's codes (`fit_latents`).

        For a conditional run, they have these labels, or by default those of each class in turn. Other runs take them
        with `latents="flow-matching"`, with `guidance` (`LatentDensity.sample`). "fitted" is the best stored density.
        """
        latents = source_of(self, latents, guidance=guidance)
        if latents is None:
            return super().sample_latents(n, labels=labels, temperature=temperature, seed=seed)
        given: dict[str, Any] = {"labels": labels, "guidance": guidance, "temperature": temperature, "seed": seed}
        return draw_codes(self, self.fit_latents(latents), n, **given)

    @formerly("temperature", "noise", "seed", "labels", "latents", "beyond_range")
    def sample(
        self,
        n: int = 64,
        *,
        labels: Labels | None = None,
        given: Mapping[str, Any] | None = None,
        like: int | np.ndarray | None = None,
        latents: str | None = None,
        guidance: float = 1.0,
        temperature: float = 1.0,
        noise: bool | None = None,
        beyond_range: bool = False,
        seed: int = 0,
    ) -> np.ndarray:
        """Generate n data in the data's own units: draws from p(x|z) for tables and counts, else its means.

        `noise` chooses: True for draws, False for means.
        Codes are drawn from the prior, or from the density that `latents` names (`fit_latents`); the command `vaekit
        sample` has the default "fitted", the best density that is stored with the run, or else the prior. Integer
        columns of a table get integers, and all values stay in the range of their column unless `beyond_range` is set.

        With `given`, such as `{"age": 30, "sex": "Female"}`, codes are drawn from p(z | the given values), and all rows
        have these values (`vaekit.latents.given.sample_given`).

        With `like`, a row of the test set by its index or a raw row, they are versions of this row in which the given
        values are changed and the others follow (`vaekit.latents.counterfactual.counterfactual_rows`).
        """
        if like is not None and given is None:
            raise ChoiceError("`like` needs the values to change: add `given`")
        if given is not None:
            if latents is not None or temperature != 1:
                raise ChoiceError("`given` draws codes from their posterior: omit `latents` and `temperature`")
            if like is not None:
                if noise is not None:
                    raise ChoiceError("versions of a row keep its own noise: omit `noise`")
                if isinstance(like, int | np.integer):
                    if labels is not None:
                        raise ChoiceError(f"row {like} of the test set has its own condition: `labels` is for raw data")
                    labels = self.observed("test").given(int(like))
                row = raw_of(self, like)
                return counterfactual_rows(self, row, given, n, labels=labels, beyond_range=beyond_range, seed=seed).x
            return sample_given(self, n, given, labels=labels, noise=noise, beyond_range=beyond_range, seed=seed).x
        of: dict[str, Any] = {"latents": latents, "guidance": guidance, "temperature": temperature, "seed": seed}
        z = self.sample_latents(n, labels=labels, **of)
        return self.new_rows(z, noise=noise, beyond_range=beyond_range, seed=seed)

    @formerly("samples", "n", "metrics", "seed", "progress", "labels", "source", split="data")
    def evaluate(
        self,
        data: DataLike = "test",
        *,
        n: int | None = None,
        labels: Labels | None = None,
        source: str | None = None,
        metrics: Sequence[str] | None = None,
        samples: int = 100,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Measure metrics on a split, store them in metrics.json and return them as a list (see `vaekit.metrics`).

        Arguments:
            data: a split of the run's data, or raw rows of other data, whose results are not stored.
            n: measure only the first n data.
            labels: labels of raw rows, for a conditional run, as for `encode`.
            source: the name of raw rows in the protocol.
            metrics: names of metrics; None for those that are measured by default.
            samples: K, importance samples per datum.
            seed: seed of the samples.
            progress: called as progress(done, of).
        """
        return evaluate(
            self,
            data,
            n=n,
            labels=labels,
            source=source,
            metrics=metrics,
            samples=samples,
            seed=seed,
            progress=progress,
        )

    def certify(
        self,
        data: DataLike = "test",
        *,
        n: int = 32,
        labels: Labels | None = None,
        samples: int = 1000,
        chains: int = 8,
        steps: int = 2000,
        tolerance: float = 1.0,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Certificate:
        """Bound the error of each estimator of log p(x) for this model, and check that its densities are consistent.

        `vaekit.certificate.certify` describes the arguments, the bounds and the errors; `vaekit.report` writes the page
        (`write_certificate`).
        """
        asked: dict[str, Any] = {"samples": samples, "chains": chains, "steps": steps, "tolerance": tolerance}
        return certify(self, data, n=n, labels=labels, **asked, seed=seed, progress=progress)

    def detect(
        self,
        data: DataLike = "test",
        *,
        labels: Labels | None = None,
        false_alarms: float | None = None,
        truth: Any = None,
        reasons: bool = True,
        samples: int = SAMPLES,
        progress: Callable[[int, int], None] | None = None,
    ) -> Detection:
        """Flag unusual rows at a false-alarm rate, with the columns that make each of them unusual.

        `vaekit.anomalies.detect` describes the arguments, the guarantee and the errors.
        """
        asked: dict[str, Any] = {"false_alarms": false_alarms, "truth": truth, "reasons": reasons, "samples": samples}
        return detect(self, data, labels=labels, **asked, progress=progress)

    @formerly("steps", "mode", "labels")
    def interpolate(self, a: Any, b: Any, *, labels: Any = None, steps: int = 11, mode: Mode = "auto") -> np.ndarray:
        """Interpolate between two data in latent space, (steps, *event): see `vaekit.latents.paths.interpolate`.

        Arguments:
            a, b: each the index of a test row, or a raw example. For a conditional run, raw examples need `labels`.
        """
        return self.decode(interpolate(*codes_of(self, a, b, labels=labels), steps=steps, mode=mode))

    @formerly("strength", "steps", "against", "balance", "labels")
    def edit(
        self,
        datum: int | np.ndarray,
        attribute: str,
        *,
        labels: Labels | None = None,
        against: str | None = None,
        balance: bool = True,
        strength: float = 1.0,
        steps: int = 9,
    ) -> np.ndarray:
        """Edit an example along the direction of an attribute or class, from -strength to strength: (steps, *event).

        See `vaekit.latents.editing.direction` for the arguments. The direction towards a class starts from the class
        `against`, by default the own class of a test row. In a conditional run the condition moves with the code, and a
        raw example needs its condition (`labels`).
        """
        vector = direction(self, attribute, against=against or own_class(self, datum, attribute), balance=balance)
        return self.decode(edited(code_of(self, datum, labels=labels), vector, strength, steps)[0])

    @formerly("draws", "seed", "labels", what="data")
    def fill(
        self,
        data: DataLike,
        mask: str | np.ndarray | None = None,
        *,
        labels: Labels | None = None,
        latents: str | None = None,
        draws: int = 32,
        best: Best = "mean",
        interval: float | None = None,
        beyond_range: bool = False,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Infilled:
        """Fill in missing or masked parts of data from the visible parts, for any run, trained with holes or not.

        Rows of numbers and tables are filled from draws of p(x_hidden | x_visible) (`vaekit.latents.given.fill_rows`):
        single best values, completed rows with the noise of p(x|z), and intervals. For images, signals and
        autoencoders, one Gaussian q(z) is fitted to each visible part (`vaekit.latents.fill.fill_masked`); draws are
        then means of p(x|z), and there is no interval.

        Arguments:
            data: the index of a test row, or new rows.
            mask: half, box, or bool (*event) (or one mask per row), True where hidden; by default the missing values
                (nan) of the rows, or `half` if no value is missing.
            labels: labels of raw rows, for a conditional run, as for `encode`.
            latents: for images, signals and autoencoders, the density that codes are inferred under: prior (the
                default), gmm or flow (`vaekit.latents.fitted.density_of`).
            draws: number of alternatives, multiple imputations of the hidden values.
            best: the single value of a number, mean or median; categories get the most likely one.
            interval: probability of the interval of each number, such as 0.95; None for no interval. Intervals are
                widened until they hold this share of hidden cells of the validation rows (`latents.coverage`).
            beyond_range: allow values of a table outside the range of their columns.
            seed: seed of the alternatives.
            progress: called as progress(done, of).

        Raises:
            ChoiceError: this run cannot fill, or has no interval.
            DataError: the rows do not fit this run.
        """
        new = None if isinstance(data, int | np.integer) else self.read(data, labels=labels)
        raw, labels = (raw_of(self, data), labels) if new is None else (new.x, new.labels)
        if isinstance(data, int | np.integer) and labels is None:
            labels = self.observed("test").given(int(data))
        hidden = mask if isinstance(mask, np.ndarray) else hidden_by(laid_out(raw, self.spec), mask)
        if self.spec.kind in ("vector", "counts") and self.model.no_density is None:
            if latents not in (None, PRIOR):
                raise ChoiceError("rows of numbers and tables are filled under the prior: leave `latents` out")
            found = fill_rows(
                self, raw, hidden, labels=labels, draws=draws, best=best, interval=interval,
                beyond_range=beyond_range, seed=seed, progress=progress,
            )  # fmt: skip
            if interval is None:
                return found
            return widened(self, found, hidden, interval=interval, beyond_range=beyond_range, seed=seed)
        if interval is not None:
            raise ChoiceError("intervals are for rows of numbers and tables, and for models with a density")
        density = density_of(self, latents)
        return fill_masked(self, raw, hidden, labels=labels, latents=density, draws=draws, seed=seed, progress=progress)

    @formerly("samples", "seed", "labels", what="data")
    def impute(
        self, data: np.ndarray, *, labels: Labels | None = None, samples: int | None = None, seed: int = 0
    ) -> np.ndarray:
        """Fill in the missing values (nan) of raw rows by one pass of the encoder, (N, *event).

        Nothing is drawn by default, which is faster than `fill`, but needs a run that was trained with missing values.

        Arguments:
            data: raw rows: an array, or a frame, whose columns are matched by name.
            labels: labels of raw rows, for a conditional run, as for `encode`.
            samples: importance samples of the expectation; None decodes the code of each row.
            seed: seed of the samples.

        Raises:
            DataError: the run was trained without missing values, or the rows do not fit this run.
        """
        return impute_rows(self, data, labels=labels, samples=samples, seed=seed)

    def normalised(
        self,
        data: DataLike = "test",
        *,
        labels: Labels | None = None,
        as_if: Labels | None = None,
        size: float = 10_000.0,
        draws: int | None = None,
        seed: int = 0,
    ) -> np.ndarray:
        """The mean counts that the model expects of each row if its total were `size`, (N, D).

        See `vaekit.expression.normalised`. `as_if` is a condition to decode all rows under, such as one batch for all.
        """
        return normalised(self, data, labels=labels, as_if=as_if, size=size, draws=draws, seed=seed)

    def differential(
        self,
        a: str,
        b: str | None = None,
        *,
        by: str | None = None,
        data: DataLike = None,
        delta: float = 0.25,
        fdr: float = 0.05,
        draws: int = 50,
        permutations: int = 20,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Differential:
        """Features whose share of the counts differs between the rows of groups a and b (None: all other rows).

        `by` is the column with the groups, by default the labels. The result's `false_discovery_rate` is measured with
        permuted groups. See `vaekit.expression.differential`.
        """
        options: dict[str, Any] = {"delta": delta, "fdr": fdr, "draws": draws, "permutations": permutations}
        return differential(self, a, b, by=by, data=data, seed=seed, progress=progress, **options)

    def doctor(self, *, stages: Sequence[Stage] = STAGES, thorough: bool = False) -> Diagnosis:
        """The diseases of this run and its data, each with evidence and remedy: see `vaekit.diagnosis.doctor`."""
        return doctor(self, stages=stages, thorough=thorough)

    def report(self, path: str | Path | None = None, *, data: DataLike = None, labels: Labels | None = None) -> Path:
        """Write the one-page report, or one about new `data` beside held-out data, and return its path.

        Arguments:
            path: of the page; by default report.html in the run, or report-NAME.html for new data.
            data: new data: a path, a frame, an array, or the result of `read`.
            labels: of the new data, for a conditional run, as for `encode`.
        """
        from vaekit.report import write_new, write_report

        return write_report([self], path) if data is None else write_new(self, self.read(data, labels=labels), path)

    def compare_synthetic(
        self,
        data: Any = None,
        *,
        labels: Labels | None = None,
        target: str | Sequence[str] | None = None,
        seed: int = 0,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Comparison:
        """Compare synthetic rows of a table (by default, rows drawn from this run) with its training and test rows.

        Measures fidelity of columns and pairs, training on synthetic and testing on real rows, detectability and
        privacy, each with an interval and beside the same measure of real rows. See
        `vaekit.synthetic.compare_synthetic`.
        """
        from vaekit.synthetic import compare_synthetic

        return compare_synthetic(self, data, labels=labels, target=target, seed=seed, progress=progress)

    def explore(
        self,
        path: str | Path | None = None,
        *,
        points: int = 60_000,
        tsne: int = 5000,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Path:
        """Write the page that decodes in the browser and return its path. See `vaekit.explorer.write_explorer`."""
        from vaekit.explorer import write_explorer

        return write_explorer(self, path, points=points, tsne=tsne, progress=progress)

    def compress(
        self,
        data: DataLike = "test",
        *,
        path: str | Path,
        n: int | None = None,
        labels: Labels | None = None,
        observed: bool = False,
        tolerance: float = TOLERANCE,
        progress: Callable[[int, int], None] | None = None,
    ) -> Compressed:
        """Compress data of a run with a discrete likelihood without loss, to about their negative ELBO in bits.

        `vaekit.coding.compress` describes the arguments, the archive and the errors.
        """
        asked: dict[str, Any] = {"n": n, "labels": labels, "observed": observed, "tolerance": tolerance}
        return compress(self, data, path=path, **asked, progress=progress)

    def decompress(self, path: str | Path, *, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """The data in an archive of `compress`, (N, *event): see `vaekit.coding.decompress`."""
        return decompress(self, path, progress=progress)

    def samplers(
        self,
        *,
        n: int | None = None,
        latents: Sequence[str] | None = None,
        features: Literal["learned", "raw"] = "learned",
        noise: bool | None = None,
        seed: int = 0,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Sampled:
        """Measure samples of the prior and of the densities of codes: see `vaekit.metrics.samples.measure_samplers`."""
        return measure_samplers(
            self, n=n, latents=latents, features=features, noise=noise, seed=seed, progress=progress
        )

    @formerly("format", "graphs")
    def export(
        self,
        out: str | Path,
        *,
        format: Literal["onnx", "torch"] = "onnx",
        graphs: Sequence[str] | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> list[Path]:
        """Export decoder, encoder and densities for other programs and return the files: see `export.write_export`."""
        from vaekit.export import write_export

        return write_export(self, out, format=format, graphs=graphs, progress=progress)[0]


@formerly("model", "data")
def open_run(path: str | Path, *, model: Composition | None = None, data: Any = None) -> Run:
    """Open a run directory.

    Arguments:
        path: the directory; `example` is the run that comes with vaekit.
        model: the composition, for a run of a composition that was built by hand.
        data: the data (a path, an array, a frame or `Data`), if they have moved or were arrays in memory.

    Raises:
        RunError: the run is missing, damaged, written by a newer vaekit, or does not fit `model`.
    """
    return Run.open(path, model=model, data=data)


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
