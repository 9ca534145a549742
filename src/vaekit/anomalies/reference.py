"""The held-out rows that new rows are compared with: scores, codes and columns, computed once and kept with the run.

The rows are those of the test split, which training never uses. Validation rows join them if the run was trained
without `patience`: then they are only looked at. With `patience` the weights are those that were best on the validation
rows, whose scores are therefore higher than those of new rows, and p-values from them would be too small.

RUN/held_out.safetensors has no row of the data: only scores, log-densities of columns, codes and groups, and the values
of each column of a table, sorted on their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vaekit.densities.mixed import DIFFERS
from vaekit.errors import DataError, RunError, VaekitError
from vaekit.runs.example import is_fixed
from vaekit.runs.observed import Observed
from vaekit.runs.saved import SavedRun
from vaekit.utils.files import is_writable, read_tensors, write_tensors
from vaekit.utils.progress import say

from .conformal import HeldOutScores
from .patterns import Pattern
from .reasons import columns
from .scoring import scores

PENALTY = DIFFERS
"""The cost in nats of a category that does not occur in the training rows, as of another value of a constant column."""
FILE = "held_out.safetensors"
FORMAT = 1
MOST_CODES = 1000
"""The maximum number of held-out codes that are kept for the comparison of a file as a whole."""
MOST_EXPLAINED = 200
"""The maximum number of held-out rows whose columns are explained."""
MOST_VALUES, MOST_NUMBERS = 1000, 1_000_000
"""The maximum number of held-out rows whose values are kept by column, and of their numbers."""
MOST_TRAINING = 1000
"""The maximum number of training rows from which the effect of missing values on a score is learned."""

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class HeldOut:
    """What is known of the held-out rows of a run.

    Attributes:
        score: (n,) log p(x) of the observed elements in nats.
        ranked: (n,) the scores that are compared: `score`, or for a run trained with missing values the score relative
            to other rows that lack the same values (see `Pattern`).
        group: (n,) groups of rows that depend on each other, or None.
        label: (n,) the class of each row of a run that is conditional on classes, or None.
        code: (m, L) codes of at most `MOST_CODES` rows.
        column: (m, *event) log-density of each element of at most `MOST_EXPLAINED` rows; for images and signals
            (1, *event), their mean; None before they are asked for, empty if p(x | z) does not factorise.
        seen: by column, which categories occur in the training rows.
        pattern: the effect of missing values on the score, for a run that was trained with them.
        samples: K, the number of importance samples.
        splits: the splits that the rows are from.
        values: (m, D) the sorted values of each column of at most `MOST_VALUES` rows of a table, missing ones (nan)
            last; None for other data.
    """

    score: np.ndarray
    ranked: np.ndarray
    group: np.ndarray | None
    label: np.ndarray | None
    code: np.ndarray
    column: np.ndarray | None
    seen: dict[int, np.ndarray]
    pattern: Pattern | None
    samples: int
    splits: tuple[str, ...]
    values: np.ndarray | None = None

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.score)

    def scores(self) -> HeldOutScores:
        """The scores to compare with."""
        return HeldOutScores(self.ranked, self.group)


def splits_of(run: SavedRun) -> tuple[str, ...]:
    """The splits whose rows did not influence the weights of the run."""
    return ("test",) if run.options.patience else ("valid", "test")


def read(run: SavedRun, splits: tuple[str, ...]) -> list[tuple[Observed, np.ndarray]]:
    """The observed rows of these splits of the run's data, with their numbers."""
    return [(observed, np.arange(observed.n)) for observed in map(run.observed, splits)]


def held_out(run: SavedRun, samples: int, *, columns: bool = False, progress: OnProgress | None = None) -> HeldOut:
    """The held-out rows of a run, from its directory, or computed from its data and stored there.

    They are computed again if the weights or the number of samples have changed.

    Arguments:
        columns: whether the log-densities of their columns are needed.

    Raises:
        DataError: they are not stored, and the run's data are not found.
    """
    key = fingerprint(run)
    known = run.unstored.get(FILE) or _stored(run)
    if known is None or known[0] != key or known[1].samples != samples:
        try:
            known = key, _measured(run, samples, progress)
        except DataError as error:
            raise DataError(
                f"the threshold is not stored with {run.path}, and its data cannot be read: {error}"
            ) from None
        _store(run, *known)
    if columns and known[1].column is None:
        known = key, replace(known[1], column=_explained(run, known[1]))
        _store(run, *known)
    return known[1]


def with_values(run: SavedRun, held: HeldOut) -> tuple[HeldOut, str]:
    """Add the values of the columns to a table's record, if an earlier version stored it without them.

    Returns the record and an empty text, or the unchanged record and the reason why the values cannot be read.
    """
    if held.values is not None or len(run.spec.shape) != 1:
        return held, ""
    try:
        complete = replace(held, values=sorted_values([run.observed(split) for split in held.splits]))
    except VaekitError as error:
        return held, str(error)
    _store(run, fingerprint(run), complete)
    return complete, ""


def fingerprint(run: SavedRun) -> str:
    """SHA-256 of the weights in memory."""
    sha = hashlib.sha256()
    for part, module in run.composition.modules.items():
        for name, tensor in sorted(module.state_dict().items()):
            sha.update(f"{part}.{name} {tensor.dtype}".encode())
            sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def _measured(run: SavedRun, samples: int, progress: OnProgress | None) -> HeldOut:
    splits, seen = splits_of(run), seen_categories(run)
    parts = [run.observed(split) for split in splits]
    hidden = [unseen_codes(part, seen) for part in parts]
    found = np.concatenate(
        [scores(run, part, samples, hidden=hole, progress=progress) for part, hole in zip(parts, hidden, strict=True)]
    )
    penalty = np.concatenate(
        [np.zeros(p.n) if h is None else PENALTY * h.sum(1) for p, h in zip(parts, hidden, strict=True)]
    )
    pattern, ranked = None, found
    if run.spec.missing:
        train = run.observed("train")
        rows = some(train.n, MOST_TRAINING)
        pattern = Pattern.fit(present(train, rows), scores(run, train, samples, rows=rows))
        ranked = pattern.relative(np.concatenate([present(p, np.arange(p.n)) for p in parts]), found)
    groups = [part.groups() for part in parts]
    condition = run.composition.condition
    label = None
    if condition is not None and condition.kind == "label":
        of = [part.condition(np.arange(part.n)) for part in parts]
        label = np.concatenate([c.argmax(1).numpy() for c in of if c is not None])
    z = np.concatenate([run.encode(split) for split in splits])
    code = z[:, run.model.latent_dims][some(len(z), MOST_CODES)].reshape(-1, z[:1, run.model.latent_dims].size)
    group = None if any(g is None for g in groups) else np.concatenate([np.asarray(g) for g in groups])
    values = sorted_values(parts)
    return HeldOut(found - penalty, ranked - penalty, group, label, code, None, seen, pattern, samples, splits, values)


def sorted_values(parts: Sequence[Observed]) -> np.ndarray | None:
    """The values of each column of some of these rows, each sorted on its own, (m, D); None for images and signals."""
    if len(parts[0].spec.shape) != 1:
        return None
    most = max(1, min(MOST_VALUES, MOST_NUMBERS // parts[0].spec.dims) // len(parts))
    rows = np.concatenate([part.raw(some(part.n, most)) for part in parts]).astype(np.float64)
    return np.sort(rows, axis=0)


def some(n: int, most: int) -> np.ndarray:
    """The indices of all n rows, or of `most` of them."""
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(0).choice(n, most, replace=False))


def present(observed: Observed, rows: np.ndarray) -> np.ndarray:
    """Which elements of these rows are not missing, bool (n, D)."""
    raw = observed.raw(rows)
    return ~np.isnan(raw.reshape(len(rows), -1)) if raw.dtype.kind == "f" else np.ones((len(rows), raw[0].size), bool)


def seen_categories(run: SavedRun) -> dict[int, np.ndarray]:
    """By column, which of its categories occur in the training rows, for columns of texts."""
    train = run.observed("train")
    coded = {j: column for j, column in enumerate(run.spec.columns) if column.categories}
    if not coded:
        return {}
    seen = {j: np.zeros(len(column.categories), bool) for j, column in coded.items()}
    for a in range(0, train.n, 100_000):
        raw = train.raw(np.arange(a, min(a + 100_000, train.n)))
        for j, known in seen.items():
            codes = raw[:, j]
            known[codes[~np.isnan(codes)].astype(int)] = True
    return seen


def unseen_codes(observed: Observed, seen: dict[int, np.ndarray]) -> np.ndarray | None:
    """Which elements of the rows are categories that no training row has, bool (n, D); None if there are none."""
    if all(known.all() for known in seen.values()):
        return None
    raw = observed.raw(np.arange(observed.n))
    unseen = np.zeros(raw.shape, bool)
    for j, known in seen.items():
        codes = raw[:, j]
        there = ~np.isnan(codes)
        unseen[there, j] = ~known[codes[there].astype(int)]
    return unseen if unseen.any() else None


def _explained(run: SavedRun, held: HeldOut) -> np.ndarray:
    """The log-densities of the elements of some held-out rows; for images and signals, their mean."""
    found = []
    for split in held.splits:
        observed = run.observed(split)
        rows = some(observed.n, MOST_EXPLAINED // len(held.splits))
        part = columns(run, observed, rows)
        if part is None:
            return np.zeros((0, *run.spec.shape))
        found.append(part.log_p)
    log_p = np.concatenate(found)
    return log_p if len(run.spec.shape) == 1 else np.nanmean(log_p, 0, keepdims=True)


# --- the file in the run directory ------------------------------------------------------------------------------


def _store(run: SavedRun, key: str, held: HeldOut) -> None:
    """Keep the record with the run: in its directory if that can be written, and in memory in any case."""
    run.unstored[FILE] = key, held
    if is_fixed(run.path) or not is_writable(run.path):
        return
    arrays: dict[str, Any] = {"score": held.score, "ranked": held.ranked, "code": held.code.astype(np.float32)}
    optional = {"group": held.group, "label": held.label}
    arrays |= {
        name: np.unique(v, return_inverse=True)[1] if name == "group" else v
        for name, v in optional.items()
        if v is not None
    }
    arrays |= {} if held.column is None else {"column": held.column.astype(np.float32)}
    arrays |= {} if held.values is None else {"values": held.values}
    arrays |= {f"seen.{j}": known for j, known in held.seen.items()}
    arrays |= {} if held.pattern is None else held.pattern.arrays()
    meta = {"format": FORMAT, "weights": key, "samples": held.samples, "splits": list(held.splits)}
    try:
        write_tensors(run.path / FILE, {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in arrays.items()}, meta)
    except RunError as error:  # a full disk
        say(f"note: {error}; the threshold is not stored with the run")


def _stored(run: SavedRun) -> tuple[str, HeldOut] | None:
    """The stored record and the fingerprint of its weights; None if there is none, or not one of this version."""
    file = run.path / FILE
    if not file.is_file():
        return None
    tensors, meta = read_tensors(file)
    try:
        if meta["format"] != FORMAT:
            return None
        a = {name: tensor.numpy() for name, tensor in tensors.items()}
        seen = {int(name.removeprefix("seen.")): known for name, known in a.items() if name.startswith("seen.")}
        score, ranked, code = a["score"], a["ranked"], a["code"]
        if score.ndim != 1 or not len(score) or score.shape != ranked.shape or np.isnan(ranked).any() or code.ndim != 2:
            raise ValueError("its arrays do not belong together")
        pattern = Pattern.of(a) if run.spec.missing else None
        splits = tuple(str(split) for split in meta["splits"])
        held = HeldOut(
            score,
            ranked,
            a.get("group"),
            a.get("label"),
            code,
            a.get("column"),
            seen,
            pattern,
            int(meta["samples"]),
            splits,
            a.get("values"),
        )
        return str(meta["weights"]), held
    except (LookupError, TypeError, ValueError) as error:
        raise RunError(f"{file} is damaged ({error}): delete it, and it will be computed again") from None
