"""A run: the directory that training leaves, and everything one does with it afterwards.

run.json            what was asked and decided: recipe, arguments, data, training, versions
model.safetensors   the weights to use (averaged or best), objective and observation included
checkpoint/         the last two states of training
log.jsonl           one line a record
metrics.json        measured numbers, each with its protocol
splits.safetensors  which rows of the source were train, valid and test
latents/            densities fitted to the codes, to sample from
figures/, report.html
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from vaekit.data.condition import Labels, set_apart
from vaekit.data.core import Data
from vaekit.data.readers.frames import is_frame
from vaekit.densities import draw
from vaekit.errors import ChoiceError, DataError, RunError
from vaekit.noise import Noise
from vaekit.recipes.composition import Composition, DataSpec
from vaekit.utils.files import is_writable, read_json, read_tensors, write_json
from vaekit.utils.isolation import check_default_dtype, in_full_precision
from vaekit.utils.progress import say

from vaekit.runs.configuration import Metrics, check
from vaekit.runs.example import PLACE, place
from vaekit.runs.lock import only_writer
from vaekit.runs.observed import UNCONDITIONAL, Observed, as_rows, block_of, events, of_frame
from vaekit.runs.stored import (
    SPLITS,
    check_source,
    check_splits,
    data_options,
    load_weights,
    read_config,
    read_log,
    read_otherwise,
    rebuild,
    stored_splits,
)

if TYPE_CHECKING:
    from vaekit.latents.fill import Infilled
    from vaekit.latents.paths import Mode
    from vaekit.latents.resample import LatentDensity

NOISE_X, NOISE_Z = 11, 12
"""What the noise of looking at a run is for: drawing x from p(x|z), drawing z."""


class Run:
    """A trained model with its data description, opened from a directory. Use `open_run` (or `vk.open`)."""

    def __init__(self, path: Path, config: dict[str, Any], composition: Composition):
        self.path, self.config, self.composition = path, config, composition
        self.spec = DataSpec.from_json(config["data"]["facts"])
        self._data: Data | None = None
        self.graphs: dict[Any, Any] = {}  # what the estimators compiled for this model
        self._observed: dict[str, Observed] = {}
        self.unstored: dict[str, LatentDensity] = {}  # densities that could not be written into the run directory
        self.device = torch.device("cpu")
        self.folder: Any = None  # a temporary directory around it, which goes when it does

    # --- what is stored -----------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        """What it is, with its settings and the day it was made: a line or two to print on a page."""
        config, training = self.config, self.config["training"]
        choices = ", ".join(f"{k}={v}" for k, v in config["arguments"].items())
        return (
            f"{config['recipe'] or 'own composition'}({choices}) on {config['data']['name']}: "
            f"{config['step']:,} steps of {training['batch']} in {config['seconds']:,.0f} s, seed {training['seed']}, "
            f"{config['decided']['parameters']:,} parameters, {config['state']}, made {config['created'][:10]}"
        )

    @property
    def facts(self) -> DataSpec:
        """`spec`, under its name in vaekit 0.1."""
        warnings.warn("run.facts is now run.spec", FutureWarning, stacklevel=2)
        return self.spec

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def state(self) -> str:
        """new, running, finished, stopped early, interrupted or failed."""
        return self.config["state"]

    @property
    def model(self):
        return self.composition.model

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every record of log.jsonl."""
        return read_log(self.path)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """What metrics.json holds: each number with its protocol."""
        file = self.path / "metrics.json"
        held = read_json(file) if file.exists() else []
        check({"metrics": held}, Metrics, file)
        return held

    def add_metrics(self, metrics: list[dict[str, Any]]) -> None:
        """Store these; one of the same name and protocol is replaced, and what others store meanwhile is kept.

        Raises:
            RunError: one of them is not finite, the directory cannot be written, or it has other weights by now.
        """
        for m in metrics:
            if isinstance(m["value"], float) and not math.isfinite(m["value"]):
                raise RunError(
                    f"{self.path}: {m['name']} is {m['value']}: the weights are damaged, or these data are far from "
                    "those of training"
                )
        # one measured before errors were by group gives way, too
        plain = lambda p: {k: v for k, v in p.items() if k != "groups"}  # noqa: E731
        key = lambda m: (m["name"], json.dumps(plain(m["protocol"]), sort_keys=True))  # noqa: E731
        file = self.path / "metrics.json"
        with only_writer(file):
            if (now := read_config(self.path).get("step")) != (then := self.config.get("step")):
                raise RunError(f"{self.path} was trained on to step {now}, and these numbers are of step {then}")
            kept = {key(m): m for m in [*self.metrics, *metrics]}
            write_json(file, list(kept.values()))

    @property
    def data(self) -> Data:
        """The data it was trained on, loaded again with the same rows in the same splits."""
        if self._data is None:
            self.use_data()
        assert self._data is not None
        return self._data

    def use_data(self, source: Any = None) -> Data:
        """Load the run's data, from `source` when they have moved.

        Raises:
            DataError: they cannot be found, or are other data than the run was trained on.
        """
        from vaekit.data import load

        stored = self.config["data"]
        if isinstance(source, Data):
            return self._keep_data(source, source.name)
        where = source if source is not None else stored["source"]
        if source is None and where is not None:
            check_source(where, self.path, sum(stored["n"].values()))
        if where is None:
            raise DataError(f"{self.path} was trained on arrays in memory: pass the data (`data=PATH`)")
        rows = stored_splits(self.path)
        try:
            data = load(where, splits=rows, **data_options(self.config))
        except DataError as error:
            raise DataError(f"{error} (the data of run {self.path}: where have they moved? pass `data=PATH`)") from None
        return self._keep_data(data, str(where))

    def _keep_data(self, data: Data, where: str) -> Data:
        condition = self.composition.condition
        data = set_apart(data, None if condition is None else condition.column)
        if (data.kind, tuple(data.shape)) != (self.spec.kind, self.spec.shape):
            raise DataError(
                f"{where} holds {data.kind} data of shape {tuple(data.shape)}, and {self.path} was trained on "
                f"{self.spec.kind} data of shape {self.spec.shape}"
            )
        if not data.is_same(self.config["data"]["digest"]):
            raise DataError(
                f"{where} holds other data than {self.path} was trained on (their digests differ){read_otherwise(data)}"
            )
        if (self.path / SPLITS).exists():
            check_splits(data, self.path)
        if self.config["data"].get("grouped") and data.test.group is None:
            raise DataError(
                f"{self.path} was trained on data split by group, and {where} was read without groups, by which errors "
                "are: load the data with the same group and pass them"
            )
        self._data = data
        self._observed.clear()
        return data

    def place_of(self, page: str) -> Path:
        """Where a page goes that is given no place: into the run, or here as RUN-PAGE where that cannot be written."""
        if self.path != PLACE and is_writable(self.path):
            return self.path / page
        if self.path != PLACE:
            say(f"note: {self.path} cannot be written, so the page goes to {self.name}-{page}")
        return Path(f"{self.name}-{page}")

    def to(self, device: str | torch.device) -> Run:
        """Move the model; data are observed on the CPU and results come back there."""
        self.device = torch.device(device)
        self.model.to(self.device)
        self.graphs.clear()
        return self

    # --- raw data in, arrays out --------------------------------------------------------------------------------

    def events(self, raw: np.ndarray) -> np.ndarray:
        """Raw rows in any layout that this run's data may have -> (N, *event); see `vaekit.runs.observed.events`."""
        return events(raw, self.spec, self.composition.observation)

    def observed(self, what: str | np.ndarray = "test", labels: Labels | None = None) -> Observed:
        """The x of a split of the run's data (`train`, `valid`, `test`), or of raw rows (`labels` as for `encode`)."""
        if isinstance(what, str):
            if what not in ("train", "valid", "test"):
                raise ChoiceError(f"no split {what!r}: there are train, valid, test")
            if labels is not None:
                raise ChoiceError(
                    UNCONDITIONAL
                    if self.composition.condition is None
                    else f"the {what} data have their own conditions: `labels` is for raw rows"
                )
            if what not in self._observed:  # kept, since its binary draw is
                self._observed[what] = Observed(self.composition, self.spec, what, self.data)
            return self._observed[what]
        if is_frame(what):
            what, labels = of_frame(self, what, labels)
        return Observed(self.composition, self.spec, "array", None, self.events(what), labels)

    @torch.no_grad()
    @in_full_precision()
    def encode(
        self,
        what: str | np.ndarray = "test",
        n: int | None = None,
        sample: bool = False,
        seed: int = 0,
        rows: np.ndarray | Sequence[int] | None = None,
        labels: Labels | None = None,
    ) -> np.ndarray:
        """The posterior mean of each datum, (N, D), or a draw from the posterior with `sample`.

        The code of a conditional model ends in its condition.

        Arguments:
            what: a split of the run's data, or raw rows: an array, or a frame, whose columns are found by name.
            n: only the first n data.
            rows: only the data of these numbers; binarised ones as the split's frozen draw has them.
            labels: of an array of raw rows, for a conditional run: a class for each, or one for all, by name or by
                code 0..size-1; of attributes numbers (n, size). Where any class is named by a whole number, numbers are
                names, never codes: with classes "3", "7" and "9" the 0 is no class and 3 is the class "3".

        Raises:
            ChoiceError: `labels` for a run that is not conditional, or with a split; a class that is unknown.
            DataError: rows that are none of this run's.
        """
        rows = None if rows is None else np.asarray(rows)
        found = []
        for some, x, c in self.observed(what, labels).batches(rows, n, self.device):
            noise = Noise.of(seed, torch.from_numpy(some).to(self.device), NOISE_Z) if sample else None
            z = self.model.encode(x, c, noise)
            found.append(z.cpu().numpy())
        return np.concatenate(found)

    @torch.no_grad()
    @in_full_precision()
    def decode(self, z: np.ndarray | Tensor, noise: bool = False, seed: int = 0) -> np.ndarray:
        """The mean of p(x|z) in the data's own units, (N, *event) float32, or a draw from it with `noise`."""
        z = torch.as_tensor(z, dtype=torch.float32).to(self.device)
        found = []
        block = block_of(self.spec.dims)
        for a in range(0, len(z), block):
            px = self.model.decode(z[a : a + block])
            rows = torch.arange(a, a + len(z[a : a + block]), device=self.device)
            x = draw(px, Noise.of(seed, rows, NOISE_X)) if noise else px.mean
            found.append(self.composition.observation.to_raw(x.cpu()).numpy())
        return np.concatenate(found)

    @torch.no_grad()
    @in_full_precision()
    def kl_per_latent(self, n: int = 1000, split: str = "test") -> np.ndarray:
        """The mean KL of each latent over the first n data of a split, nats, (D,).

        Raises:
            ChoiceError: posterior or prior does not factorise over the latents.
        """
        from vaekit.metrics.latents import kl_of

        found = []
        for some, x, c in self.observed(split).batches(None, n, self.device):
            kl = kl_of(self, some, x, c)
            if kl is None:
                raise ChoiceError("this run's posterior and prior have no KL for each latent apart")
            found.append(kl)
        return np.concatenate(found).mean(0)

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
        """A density of the run's codes to sample from (gmm, flow or two-stage): fitted once and kept with the run.

        A run directory that cannot be written is left as it is, with a note. See `vaekit.latents.resample.fit_latents`.
        """
        from vaekit.latents.resample import fit_latents

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

        Of a conditional run they are for these labels, else for each class in turn.
        """
        if n < 1:
            raise ChoiceError(f"the number of samples must be 1 or more, got {n}")
        if not temperature >= 0:
            raise ChoiceError(f"temperature must be 0 or more, got {temperature:g}")
        c = self._wanted(n, labels)
        if latents is not None:
            z = self.fit_latents(latents).sample(n, temperature, seed)
            return z if c is None else np.concatenate([z, c.cpu().numpy()], 1)
        noise = Noise.of(seed, n, NOISE_Z, device=self.device)
        return self.model.sample(n, c, noise, temperature).cpu().numpy()

    def _wanted(self, n: int, labels: Labels | None) -> Tensor | None:
        """The conditions of n new data."""
        condition = self.composition.condition
        if condition is None:
            if labels is not None:
                raise ChoiceError(UNCONDITIONAL)
            return None
        if labels is not None:
            c = condition.encoded(labels, n)
        elif condition.kind == "label":
            c = np.eye(condition.size, dtype=np.float32)[np.arange(n) % condition.size]
        else:  # combinations of attributes that occur
            c = np.resize(condition.of(self.data.test), (n, condition.size))
        return torch.from_numpy(c).to(self.device)

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

        Codes are drawn from the prior, or from what `latents` names (`fit_latents`). Rows of a table are whole where
        the table's own are and, unless `beyond_range`, within the range of its columns.
        """
        x = self.decode(self.sample_latents(n, temperature, seed, labels, latents), noise, seed)
        return as_rows(self, x, beyond_range)

    def reconstruct(
        self,
        what: str | np.ndarray = "test",
        n: int | None = None,
        sample: bool = False,
        noise: bool = False,
        seed: int = 0,
        labels: Labels | None = None,
    ) -> np.ndarray:
        """Encode and decode: (N, *event) in the data's own units."""
        return self.decode(self.encode(what, n, sample, seed, labels=labels), noise, seed)

    def score(
        self,
        what: str | np.ndarray = "test",
        samples: int = 100,
        n: int | None = None,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
        labels: Labels | None = None,
    ) -> np.ndarray:
        """log p(x) of each datum by importance sampling, in nats and the data's own units, (N,) float64.

        Of a conditional run log p(x | c).

        Raises:
            ChoiceError: the model has no density (an autoencoder).
        """
        from vaekit.runs.likelihood import per_datum

        return per_datum(self, self.observed(what, labels), samples, n=n, seed=seed, progress=progress).log_px

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
        """Measure on a split and store in metrics.json; the list of what was measured (see `vaekit.metrics`).

        Arguments:
            split: of the run's data, or raw rows of other data; what is measured on those is not stored.
            labels: of raw rows, for a conditional run, as for `encode`.
            source: what the protocol calls raw rows.
        """
        from vaekit.metrics import evaluate

        return evaluate(
            self, split, samples=samples, n=n, names=metrics, seed=seed, progress=progress, labels=labels, source=source
        )

    def interpolate(self, a: Any, b: Any, steps: int = 11, mode: Mode = "auto", labels: Any = None) -> np.ndarray:
        """From one datum to another through the latent space, (steps, *event): see `vaekit.latents.paths.interpolate`.

        Arguments:
            a, b: the number of a row of the test set, or a raw datum; raw ones of a conditional run are of `labels`.
        """
        from vaekit.latents.editing import codes_of
        from vaekit.latents.paths import interpolate

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
        """A datum moved along an attribute (or class) of the data, from -strength to strength, (steps, *event).

        See `vaekit.latents.editing.direction` for the arguments. Towards a class, a row of the test set moves
        against its own class unless `against` names another. In a conditional run the condition moves with the code;
        a raw datum needs its own (`labels`).
        """
        from vaekit.latents.editing import code_of, direction, edited, own_class

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
        """Masked parts of data filled in by posterior inference, whatever the model was trained on.

        Arguments:
            what: the number of a row of the test set, or raw rows.
            mask: half, box, or bool (*event) (or one a row) of what is hidden.
            draws: how many answers.
            labels: of raw rows, for a conditional run, as for `encode`.

        See `vaekit.latents.fill.fill_masked`.
        """
        from vaekit.latents.editing import named_mask, raw_of
        from vaekit.latents.fill import fill_masked

        raw = raw_of(self, what) if isinstance(what, int | np.integer) else what
        if is_frame(raw):
            raw, labels = of_frame(self, raw, labels)
        if isinstance(what, int | np.integer) and labels is None:
            labels = self.observed("test").given(int(what))
        hidden = named_mask(mask, self.spec.shape) if isinstance(mask, str) else mask
        return fill_masked(self, raw, hidden, labels, draws, seed=seed)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the one-page report; its path."""
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
        """Write the page that decodes live in the browser; its path. See `vaekit.explorer.write_explorer`."""
        from vaekit.explorer import write_explorer

        return write_explorer(self, path, points=points, tsne=tsne, progress=progress)

    def export(
        self, out: str | Path, format: Literal["onnx", "torch"] = "onnx", graphs: Sequence[str] | None = None
    ) -> list[Path]:
        """Write decoder, encoder and densities for other programs; the files. See `vaekit.export.write_export`."""
        from vaekit.export import write_export

        return write_export(self, out, format, graphs)[0]


def open_run(path: str | Path, model: Composition | None = None, data: Any = None) -> Run:
    """Open a run directory.

    Arguments:
        path: the directory; `example` is the run that comes with vaekit.
        model: the composition, for a run that was trained from one built by hand.
        data: the data or their new place, where they have moved.

    Raises:
        RunError: missing, damaged, written by a newer vaekit, or not fitting `model`.
    """
    check_default_dtype()
    path = place(path)
    config = read_config(path)
    tensors, _ = read_tensors(path / "model.safetensors")
    composition = rebuild(config, model, (path / "model.safetensors").stat().st_size)
    load_weights(composition, tensors, path / "model.safetensors")
    for module in composition.modules.values():
        module.cpu().eval()  # a composition built by hand may have been trained elsewhere
    run = Run(path, config, composition)
    if data is not None:
        run.use_data(data)
    return run
