"""The public interface of runs: `Run` and its methods, `open_run` to open one and `fit` to train one."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

import numpy as np

from vaekit.anomalies import Detection, detect
from vaekit.anomalies.scoring import SAMPLES
from vaekit.certificate import Certificate, certify
from vaekit.coding import TOLERANCE, Compressed, compress, decompress
from vaekit.data.condition import Labels
from vaekit.diagnosis import STAGES, Diagnosis, Stage, doctor
from vaekit.expression import Differential, differential, normalised
from vaekit.latents.run import LatentRun
from vaekit.metrics import Measured, evaluate
from vaekit.metrics.samples import Sampled, measure_samplers
from vaekit.recipes.composition import Composition, DataSpec
from vaekit.runs.new_data import DataLike
from vaekit.runs.saved import SavedRun
from vaekit.training.fit import train
from vaekit.utils.display import Page
from vaekit.utils.formerly import formerly

if TYPE_CHECKING:
    from vaekit.report.cell import Sections
    from vaekit.synthetic import Comparison

P = ParamSpec("P")


class Run(LatentRun):
    """A trained model with its data description, opened from a directory. Use `open_run` (or `vk.open`)."""

    @classmethod
    def of(cls, saved: SavedRun) -> Run:
        """The `Run` of a saved run."""
        run = cls(saved.path, saved.config, saved.composition)
        run._data = saved._data
        return run

    def _repr_html_(self) -> str:
        """Settings, state, validation curve, samples and stored metrics, for notebooks."""
        from vaekit.report.cell import run_html

        return run_html(self)

    @property
    def metrics(self) -> Measured:
        """The entries of metrics.json, each with its protocol; a notebook shows them as a table."""
        return Measured(super().metrics)

    @property
    def facts(self) -> DataSpec:
        """The former name of `spec`, as in vaekit 0.1."""
        warnings.warn("run.facts is now run.spec", FutureWarning, stacklevel=2)
        return self.spec

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
    ) -> Measured:
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

    def show(self, *figures: str) -> Sections:
        """Sections of the report, which a notebook shows: by default training curves, samples and the latent space.

        Elsewhere, `run.show("samples").save("samples.html")` writes them, and `.pictures` has each picture as PNG.

        Arguments:
            figures: names of sections of the report, such as `training`, `reconstructions`, `samples`,
                `interpolations`, `traversals`, `manifold` and `latents`.

        Raises:
            ChoiceError: an unknown name.
        """
        from vaekit.report.cell import show

        return show(self, figures)

    def report(self, path: str | Path | None = None, *, data: DataLike = None, labels: Labels | None = None) -> Page:
        """Write the one-page report, or one about new `data` beside held-out data, and return its path.

        A notebook shows the page in the cell.

        Arguments:
            path: of the page; by default report.html in the run, or report-NAME.html for new data.
            data: new data: a path, a frame, an array, or the result of `read`.
            labels: of the new data, for a conditional run, as for `encode`.
        """
        from vaekit.report import write_new, write_report

        if data is None:
            return Page(write_report([self], path))
        return Page(write_new(self, self.read(data, labels=labels), path))

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
    ) -> Page:
        """Write the page that decodes in the browser and return its path. See `vaekit.explorer.write_explorer`.

        A notebook shows the page in the cell, if it has at most 40 MB; `points=2000, tsne=0` makes a small one.
        """
        from vaekit.explorer import write_explorer

        return Page(write_explorer(self, path, points=points, tsne=tsne, progress=progress))

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

    def push(
        self,
        repo: str,
        *,
        out: str | Path | None = None,
        license: str | None = None,
        densities: bool = True,
        reconstructions: bool = False,
        checkpoints: bool = False,
        revision: str | None = None,
        private: bool = False,
        message: str | None = None,
        dry_run: bool = False,
    ) -> str:
        """Send the run to the Hugging Face hub and return its address, which `vk.open` takes: see `export.push`."""
        from vaekit.export import push

        chosen: dict[str, Any] = {"densities": densities, "reconstructions": reconstructions}
        sending: dict[str, Any] = {"revision": revision, "private": private, "message": message, "dry_run": dry_run}
        return push(self, repo, out=out, license=license, checkpoints=checkpoints, **chosen, **sending)

    @formerly("format", "graphs")
    def export(
        self,
        out: str | Path,
        *,
        format: Literal["onnx", "torch", "hub", "diffusers"] = "onnx",
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
        path: the directory; `example` is the run that comes with vaekit, and hf://user/name or
            hf://user/name@revision one of the Hugging Face hub, which is downloaded.
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
