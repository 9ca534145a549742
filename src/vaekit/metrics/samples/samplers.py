"""Every sampler of a run in one table: the prior, and the densities of codes that are fitted after training.

The table is stored as samplers.json in the run directory, where the report finds it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.data.condition import Labels
from vaekit.errors import ChoiceError, RunError
from vaekit.latents.densities import DENSITIES
from vaekit.latents.resample import draw_codes, fit_latents
from vaekit.runs.saved import SavedRun
from vaekit.utils.files import read_json, write_json
from vaekit.utils.progress import say
from vaekit.utils.suggest import unknown

from .measured import folder_of
from .reference import ABOVE, Kind, Reference

Array = NDArray[Any]
PRIOR, ALL, FILE, FORMAT = "prior", "all", "samplers.json", 2


@dataclass(frozen=True)
class Sampled:
    """The measured samplers of a run, as they are stored.

    Attributes:
        rows: for each sampler, its name, the digest of its fit (None for the prior) and the measures as JSON: see
            `Quality.as_json`.
        protocol: data, numbers, features and seed that all share.
    """

    rows: list[dict[str, Any]]
    protocol: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """As it is stored and printed."""
        return {"format": FORMAT, "protocol": self.protocol, "samplers": self.rows}

    def value(self, sampler: str, measure: str, of: str = "value") -> float | None:
        """The value (or another number, such as `se` or `low`) of a measure of a sampler, or None if it is unknown."""
        row = next((row for row in self.rows if row["name"] == sampler), None)
        found = next((m for m in (row or {"measures": []})["measures"] if m["name"] == measure), None)
        return None if found is None else found[of]

    def above(self, sampler: str) -> dict[str, float | None]:
        """The preference of a sampler for training data minus that of real data, with its interval."""
        row = next(row for row in self.rows if row["name"] == sampler)
        found: dict[str, float | None] = next(m for m in row["measures"] if m["name"] == "memorisation")["parts"][ABOVE]
        return found

    @property
    def copying(self) -> list[str]:
        """The samplers that prefer training data more than validation data do: 95% interval of the difference."""
        lows = {row["name"]: self.above(row["name"])["low"] for row in self.rows}
        return [name for name, low in lows.items() if low is not None and low > 0]


def known(run: SavedRun) -> list[str]:
    """The prior, and the densities of codes that are stored with a run."""
    stored = [name for name in DENSITIES if name in run.unstored or (run.path / "latents" / f"{name}.json").exists()]
    return [PRIOR, *stored]


def unfitted(run: SavedRun) -> list[str]:
    """The densities of codes that are not stored with a run."""
    return [name for name in DENSITIES if name not in known(run)]


def chosen(run: SavedRun, latents: Sequence[str] | None) -> list[str]:
    """The samplers with these names: `prior`, those of `DENSITIES`, or `all`; None for the `known` ones.

    Raises:
        ChoiceError: an unknown name.
    """
    if not latents:
        return known(run)
    names = [PRIOR, *DENSITIES]
    for name in latents:
        if name not in (*names, ALL):
            raise ChoiceError(unknown("`latents`", name, [*names, ALL], 0.3))
    return [name for name in names if name in latents or ALL in latents]


def codes_of(run: SavedRun, name: str, n: int, *, labels: Labels | None = None, seed: int = 0) -> Array:
    """n codes (n, D) from the sampler `name`: the prior, or a density that is fitted if it is not stored."""
    if name == PRIOR:
        return SavedRun.sample_latents(run, n, labels=labels, seed=seed)
    return draw_codes(run, fit_latents(run, name), n, labels=labels, seed=seed)


def drawn_by(run: SavedRun, name: str, n: int, *, noise: bool | None = None, seed: int = 0) -> Array:
    """n data of the sampler `name`, (n, *event) in the data's own units; row i does not depend on n.

    For a conditional run, they have the conditions of the first n test data, again from the first one if n is larger.
    """
    observed = run.observed("test")
    labels = observed.labels_of(np.arange(n) % observed.n)
    return run.new_rows(codes_of(run, name, n, labels=labels, seed=seed), noise=noise, seed=seed)


def measure_samplers(
    run: SavedRun,
    *,
    n: int | None = None,
    latents: Sequence[str] | None = None,
    features: Kind = "learned",
    noise: bool | None = None,
    seed: int = 0,
    store: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> Sampled:
    """Measure samples of each sampler of a run against its test data; see `Quality`.

    Samples are in the data's own units: means of p(x|z) for images and signals, draws for tables and counts, unless
    `noise` is given. For a conditional run, they have the conditions of the test data.

    Arguments:
        n: number of samples and of test data; by default all test data.
        latents: names of samplers, or "all"; by default the prior and the densities that are stored with the run.
        features: "learned" (of a network trained on the training data) or "raw" (principal components).
        noise: whether x is drawn from p(x|z), instead of its mean.
        seed: seed of the samples.
        store: whether to store the table with the run, for its report.
        progress: called with (name of the task, units done, total units).

    Raises:
        ChoiceError: an unknown sampler, or data that are not compared as numbers.
    """
    names = chosen(run, latents)

    def report(task: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(task, done, total) if progress else None

    reference = Reference(
        run.data, features=features, n=n, folder=folder_of(run), progress=report("training the features")
    )
    drawn = run.draws_samples if noise is None else noise
    found = []
    for i, name in enumerate(names):
        fit = None if name == PRIOR else fit_latents(run, name, on_progress=progress).record
        measured = reference.measure(drawn_by(run, name, reference.n, noise=drawn, seed=seed))
        found.append({"name": name, "fit": _digest(fit), "measures": [one.as_json() for one in measured]})
        report("measuring samplers")(i + 1, len(names))
    data, digest = run.data_identity
    protocol = {
        "data": data, "digest": digest, "split": "test", "n": reference.n, "features": reference.text, "seed": seed,
        "distances": reference.values.text,
        "x": "draws from p(x|z)" if drawn else "means of p(x|z)", "step": run.config.get("step"),
    }  # fmt: skip
    table = Sampled(found, protocol)
    if store and folder_of(run) is not None:
        try:
            write_json(run.path / FILE, table.as_json())
        except RunError as error:
            say(f"note: {error}; the table is not stored with the run")
    return table


def _digest(fit: dict[str, Any] | None) -> str | None:
    """A digest of how a density was fitted, and of what it was fitted to; None for the prior."""
    if fit is None:
        return None
    known = {name: part for name, part in fit.items() if name != "seconds"}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _is_current(run: SavedRun, row: dict[str, Any]) -> bool:
    """Whether a row is about the density that is stored with the run now."""
    if row["name"] == PRIOR:
        return True
    file = run.path / "latents" / f"{row['name']}.json"
    return file.exists() and row["fit"] == _digest(read_json(file))


def stored(run: SavedRun) -> Sampled | None:
    """The table that is stored with a run, if it is about its present weights; without densities fitted again since."""
    file = run.path / FILE
    if not file.exists():
        return None
    try:
        content = read_json(file)
        if content["format"] != FORMAT or content["protocol"]["step"] != run.config.get("step"):
            return None
        rows = [row for row in content["samplers"] if _is_current(run, row)]
        return Sampled(rows, content["protocol"]) if rows else None
    except (RunError, LookupError, TypeError, json.JSONDecodeError):
        return None
