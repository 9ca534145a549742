"""The directory of a run: a trained model with its configuration, log, metrics and data.

run.json            settings requested and decided: recipe, arguments, data, training, versions
model.safetensors   the weights to use (averaged or best), including those of objective and observation
checkpoint/         the last two states of training
log.jsonl           one record per line
metrics.json        measured metrics, each with its protocol
splits.safetensors  the rows of the source in the training, validation and test splits
latents/            densities fitted to the codes, to sample from
samplers.json       measures of the samples of the prior and of these densities
features.safetensors  the network in whose features samples are compared
figures/, report.html
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from vaekit.data.condition import set_apart
from vaekit.data.core import Data
from vaekit.errors import DataError, RunError
from vaekit.options import Options
from vaekit.recipes.composition import Composition, DataSpec
from vaekit.utils.files import is_writable, read_json, read_tensors, write_json
from vaekit.utils.formerly import formerly
from vaekit.utils.hub import origin
from vaekit.utils.isolation import check_default_dtype
from vaekit.utils.progress import say
from vaekit.utils.wording import in_python

from .configuration import Configuration, Metrics, check, options_of
from .example import is_fixed, place
from .lock import only_writer
from .processes import writes
from .stored import (
    SPLITS,
    check_source,
    check_splits,
    load_weights,
    read_again,
    read_config,
    read_log,
    read_otherwise,
    rebuild,
)
from .trained import TrainedModel


class SavedRun(TrainedModel):
    """A trained model and the directory that it was opened from."""

    def __init__(self, path: Path, config: Configuration, composition: Composition):
        super().__init__(composition, DataSpec.from_json(config["data"]["facts"]))
        self.path, self.config = path, config
        self.unstored: dict[str, Any] = {}  # densities of codes that could not be written into the run directory
        self.folder: Any = None  # its temporary directory, if any, which is deleted with this object

    @classmethod
    @formerly("model", "data")
    def open(cls, path: str | Path, *, model: Composition | None = None, data: Any = None) -> Self:
        """Open a run directory; for the arguments and what it raises see `vaekit.run.open_run`."""
        check_default_dtype()
        path = place(path)
        config = read_config(path)
        tensors, _ = read_tensors(path / "model.safetensors")
        composition = rebuild(config, model, (path / "model.safetensors").stat().st_size)
        load_weights(composition, tensors, path / "model.safetensors")
        for module in composition.modules.values():
            module.cpu().eval()  # a composition built by hand may be on another device
        run = cls(path, config, composition)
        if data is not None:
            run.use_data(data)
        return run

    def __repr__(self) -> str:
        """The run with its settings and its date of creation, in one or two lines."""
        config, options = self.config, self.options
        choices = ", ".join(f"{k}={v}" for k, v in config["arguments"].items())
        return (
            f"{config['recipe'] or 'own composition'}({choices}) on {config['data']['name']}: "
            f"{config['step']:,} steps of {options.batch} in {config['seconds']:,.0f} s, seed {options.seed}, "
            f"{config['decided']['parameters']:,} parameters, {config['state']}, created {config['created'][:10]}"
        )

    @property
    def feature_names(self) -> Sequence[str]:
        return self.config["data"].get("feature_names") or ()

    @property
    def read_options(self) -> dict[str, Any]:
        return self.config["data"]["options"]

    @property
    def data_identity(self) -> tuple[str, str]:
        return self.config["data"]["name"], self.config["data"]["digest"]

    @property
    def name(self) -> str:
        """The name of the directory, or of the repository of the hub."""
        source = origin(self.path)
        return self.path.name if source is None else source.repo.partition("/")[2]

    @property
    def options(self) -> Options:
        """The options that it was trained with, those of its recipe included."""
        return options_of(self.config)

    @property
    def epoch_steps(self) -> float:
        """Training steps per pass through its training data."""
        n = self.config["data"]["n"]["train"]
        return n / min(self.options.over().batch, n)

    @property
    def state(self) -> str:
        """The state of training: new, running, finished, stopped early, interrupted or failed."""
        return self.config["state"]

    @property
    def scaling_factor(self) -> float | None:
        """1 / standard deviation of all elements of codes that are small images; None for other codes.

        It is measured on draws of q(z | x) of validation data at the last validation (the best one, if early stopping
        kept its weights), as the number of this name of diffusers' AutoencoderKL (Rombach et al. 2022, appendix G).
        Codes multiplied by it have unit variance.
        """
        of = self.config.get("best", {}) if self.options.patience else self.config.get("valid", {})
        return 1 / of["code_std"] if of.get("code_std") else None

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every record of log.jsonl."""
        return read_log(self.path)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The entries of metrics.json, each with its protocol."""
        file = self.path / "metrics.json"
        stored = read_json(file) if file.exists() else []
        check({"metrics": stored}, Metrics, file)
        return stored

    def add_metrics(self, metrics: list[dict[str, Any]]) -> None:
        """Store metrics in metrics.json, replacing those of the same name and protocol.

        Metrics that other processes store at the same time are kept.

        Raises:
            RunError: a value is not finite, the directory cannot be written, or its weights have changed since.
        """
        for m in metrics:
            if isinstance(m["value"], float) and not math.isfinite(m["value"]):
                raise RunError(
                    f"{self.path}: {m['name']} is {m['value']}: the weights are damaged, or these data are very "
                    "different from the training data"
                )
        # earlier versions stored metrics without groups in the protocol: replace these too
        plain = lambda p: {k: v for k, v in p.items() if k != "groups"}  # noqa: E731
        key = lambda m: (m["name"], json.dumps(plain(m["protocol"]), sort_keys=True))  # noqa: E731
        if not writes():
            return
        file = self.path / "metrics.json"
        with only_writer(file):
            if (now := read_config(self.path).get("step")) != (then := self.config.get("step")):
                raise RunError(
                    f"{self.path} was trained further to step {now}, but these metrics are those of step {then}"
                )
            kept = {key(m): m for m in [*self.metrics, *metrics]}
            write_json(file, list(kept.values()))

    @property
    def data(self) -> Data:
        """The data that the run was trained on, reloaded with the same rows in the same splits."""
        if self._data is None:
            self.use_data()
        assert self._data is not None
        return self._data

    @formerly(source="data")
    def use_data(self, data: Any = None) -> Data:
        """Use the run's data: load them, from `data` if they have moved, or take `Data` as they are.

        Raises:
            DataError: the data are not found, or differ from those that the run was trained on.
        """
        if isinstance(data, Data):
            return self._keep_data(data, data.name)
        if data is not None and not isinstance(data, str | Path):
            return self._keep_data(read_again(self.path, self.config, data), "the array")
        stored = self.config["data"]
        where = stored["source"] if data is None else str(data)
        if where is None:
            given = "vk.from_arrays(x, label=y)" if self.spec.classes else "x"
            by = in_python(f"pass them again by vk.open({str(self.path)!r}, data={given}), or ")
            raise DataError(
                f"{self.path} was trained on arrays in memory, which a run does not store: {by}save them as a .npy or "
                ".npz file and pass `data=PATH`"
            )
        if data is None:
            check_source(where, self.path, sum(stored["n"].values()))
        try:
            loaded = read_again(self.path, self.config, where)
        except DataError as error:
            raise DataError(
                f"{error} (the data of the run {self.path}; if they have moved, pass `data=PATH`)"
            ) from None
        return self._keep_data(loaded, where)

    def _keep_data(self, data: Data, where: str) -> Data:
        condition = self.composition.condition
        data = set_apart(data, None if condition is None else condition.column)
        if (data.kind, tuple(data.shape)) != (self.spec.kind, self.spec.shape):
            raise DataError(
                f"{where} holds {data.kind} data of shape {tuple(data.shape)}, but {self.path} was trained on "
                f"{self.spec.kind} data of shape {self.spec.shape}"
            )
        if not data.is_same(self.config["data"]["digest"]):
            raise DataError(
                f"{where} holds other data than {self.path} was trained on (the digests differ){read_otherwise(data)}"
            )
        if (self.path / SPLITS).exists():
            check_splits(data, self.path)
        if self.config["data"].get("grouped") and data.test.group is None:
            raise DataError(
                f"{self.path} was trained on data split by group, but {where} was read without groups, which the "
                "standard errors need: load the data with the same `group` and pass them"
            )
        self._data = data
        self._observed.clear()
        return data

    def place_of(self, page: str) -> Path:
        """The default path of a page: in the run, or RUN-PAGE in the current directory if the run cannot be written."""
        if not is_fixed(self.path) and is_writable(self.path):
            return self.path / page
        if not is_fixed(self.path):
            say(f"note: {self.path} cannot be written, so the page is written to {self.name}-{page}")
        return Path(f"{self.name}-{page}")
