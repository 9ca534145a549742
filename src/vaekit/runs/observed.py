"""Raw data as a trained model sees them: checked, laid out, observed, and addressed by row number."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaekit.data.core import Computed, Data, blocks, cast, check_numbers, layout, listed, row_dtype
from vaekit.data.observation import REFERENCE_SEED, Binary, FrozenDraw, Observation
from vaekit.data.readers.memory import as_array
from vaekit.errors import ChoiceError, DataError
from vaekit.noise import Noise
from vaekit.recipes.composition import Composition, DataSpec

UNCONDITIONAL = "this run is not conditional, so it takes no `labels`: omit them"
Batch = tuple[np.ndarray, Tensor, Tensor | None]
"""Row numbers (n,), x (n, *event), and the condition of a conditional model (n, C)."""


class Observed:
    """The x of evaluated data by row number; a random observation is drawn once and stays the same.

    Attributes:
        n: number of data.
        split: "valid", "test", "train" or "array".
        labels: the labels of an array, as `Condition.encoded` takes them.
        name: the source of an array, for protocols.

    Raises:
        ChoiceError: `labels` for a model that is not conditional.
    """

    def __init__(
        self,
        composition: Composition,
        spec: DataSpec,
        split: str,
        data: Data | None,
        array: np.ndarray | None = None,
        labels: Any = None,
        name: str = "array",
    ):
        if labels is not None and composition.condition is None:
            raise ChoiceError(UNCONDITIONAL)
        self.composition, self.observation = composition, composition.observation
        self.spec, self.split, self.data = spec, split, data
        self.array, self.labels, self.name = array, labels, name
        self._conditions: np.ndarray | None = None
        self.n = len(array) if array is not None else len(getattr(data, split))
        self._frozen: FrozenDraw | None = None
        self.part = 0

    def raw(self, rows: np.ndarray) -> np.ndarray:
        """Raw events (n, *event) of these rows."""
        if self.array is not None:
            return self.array[rows]
        assert self.data is not None
        return np.ascontiguousarray(self.data.events(getattr(self.data, self.split)[rows]))

    @property
    def frozen(self) -> FrozenDraw | None:
        """The fixed binary draw of validation and test images, if the observation is random."""
        if not isinstance(self.observation, Binary):
            return None
        if self._frozen is None:
            if self.data is not None and self.split in ("valid", "test"):
                parts = ("valid", "test") if self.split == "test" else ("valid",)
                readers = [Observed(self.composition, self.spec, p, self.data) for p in parts]
                self.part = len(parts) - 1
            else:
                readers = [self]
            fetch = [functools.partial(_between, r) for r in readers]
            self._frozen = FrozenDraw(self.observation, *fetch, sizes=tuple(r.n for r in readers))
        return self._frozen

    def groups(self, n: int | None = None) -> np.ndarray | None:
        """The group of each of the first n data, (n,); None if the data were not split by group."""
        group = None if self.data is None else getattr(self.data, self.split).group
        return None if group is None else group[: self.n if n is None else n]

    def draw_hash(self, n: int) -> str | None:
        """SHA-256 of the frozen binary draw of the first n rows."""
        return self.frozen.digest(self.part, n) if self.frozen is not None else None

    def condition(self, rows: np.ndarray, device: torch.device | str = "cpu") -> Tensor | None:
        """The condition of these rows, (n, C); None if the model is not conditional.

        Raises:
            ChoiceError: these data lack what the model is conditioned on.
        """
        wanted = self.composition.condition
        if wanted is None:
            return None
        if self._conditions is None:
            if self.array is None:
                assert self.data is not None
                self._conditions = wanted.of(getattr(self.data, self.split), self.data.label_names)
            elif self.labels is None:
                raise ChoiceError(
                    f"this run is conditional on {wanted.kind if wanted.kind != 'label' else 'labels'}: pass "
                    f"those of each datum as `labels`; {wanted.expected}"
                )
            else:
                self._conditions = wanted.encoded(self.labels, self.n)
        return torch.from_numpy(self._conditions[rows]).to(device)

    def labels_of(self, rows: np.ndarray) -> np.ndarray | None:
        """The conditions of these rows in the form of `labels` of raw data; None if the model is not conditional."""
        wanted, c = self.composition.condition, self.condition(rows)
        return None if wanted is None or c is None else wanted.decoded(c.numpy())

    def given(self, row: int) -> np.ndarray | None:
        """The condition of one datum in the form of `labels` of raw data; None if the model is not conditional."""
        return self.labels_of(np.array([row]))

    def __call__(self, rows: np.ndarray) -> Tensor:
        """x (n, *event), float32."""
        if self.frozen is not None:
            return torch.from_numpy(self.frozen.rows(self.part, rows, self.spec.shape)).float()
        device = next((b.device for b in self.observation.buffers()), torch.device("cpu"))
        raw = torch.from_numpy(np.ascontiguousarray(self.raw(rows))).to(device)
        with torch.no_grad():
            if self.observation.stochastic:
                return self.observation(raw, Noise.of(REFERENCE_SEED, torch.from_numpy(np.asarray(rows)).to(device)))
            return self.observation(raw)

    def chosen(self, rows: np.ndarray | None, n: int | None) -> np.ndarray:
        """The given row numbers, else those of the first n data.

        Raises:
            ChoiceError: a row does not exist.
        """
        if rows is None:
            return np.arange(self.n if n is None else min(n, self.n))
        if len(rows) and not (rows.min() >= 0 and rows.max() < self.n):
            raise ChoiceError(f"rows must lie in 0..{self.n - 1}, got {rows.min()} to {rows.max()}")
        return rows

    def batches(self, rows: np.ndarray | None, n: int | None, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """Yields (row numbers, x, c) per block, of the given rows or of the first n.

        Raises:
            ChoiceError: a row does not exist.
        """
        rows = self.chosen(rows, n)
        block = block_of(self.spec.dims)
        for a in range(0, len(rows), block):
            part = rows[a : a + block]
            yield part, self(part).to(device), self.condition(part, device)


def _between(reader: Observed, a: int, b: int) -> np.ndarray:
    return reader.raw(np.arange(a, b))


def gathered(blocks: Iterable[np.ndarray], n: int) -> np.ndarray:
    """Blocks of rows as one array of n rows; unlike `np.concatenate`, this never holds all of them twice."""
    whole = np.empty(0)
    done = 0
    for block in blocks:
        if not done:
            whole = np.empty((n, *block.shape[1:]), block.dtype)
        whole[done : done + len(block)] = block
        done += len(block)
    return whole


def block_of(dims: int) -> int:
    """The number of data encoded or decoded at once: a few million values of x."""
    return max(1, min(500, 4_000_000 // dims))


def decoded_size(spec: DataSpec) -> int:
    """The number of values that decoding one row takes: its elements, or more if it has columns of many categories."""
    return max(spec.dims, sum(len(column.categories) for column in spec.columns) // 16)


def blurred(data: Data, composition: Composition) -> str | None:
    """A warning if the data need float64 but the run's observation computes in float32; else None."""
    if not data.train.double or composition.observation.in_double:
        return None
    return (
        "float32 is too coarse for the differences between these data, but the observation "
        f"{composition.observation.kind!r} computes in float32: choose `observation='standardised'` (or "
        "Standardised(shape, double=True) in code), or subtract a constant from the data first"
    )


def laid_out(raw: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Raw rows in any layout that the run accepts -> (N, *event); one datum gives N = 1. Values are not checked.

    Raises:
        DataError: the rows have the wrong shape.
    """
    raw, shape = np.asarray(as_array(raw, "the rows")), spec.shape
    check_numbers(raw, "the rows")
    if raw.size == spec.dims and (raw.shape == shape or raw.shape[:1] != (1,)):
        raw = raw[None]
    if raw.shape[1:] == shape:
        return raw
    if raw.shape[1:] == (spec.dims,) and spec.kind in ("image", "signal"):  # flat rows, as accepted by `load(shape=)`
        row = spec.row or (shape[1:] if shape[0] == 1 else ())
        raw = raw.reshape(len(raw), *row) if row else raw
    plan = layout(spec.kind, raw.shape[1:])  # type: ignore[arg-type]
    if plan.shape != shape:
        named = f": its columns are {listed([c.name for c in spec.columns])}" if spec.columns else ""
        raise DataError(f"this run takes rows of shape {shape}, got {raw.shape[1:]}{named}")
    return raw.reshape(len(raw), *plan.pre).transpose(0, *(a + 1 for a in plan.axes))


def _whole(raw: np.ndarray, high: float) -> bool:
    """Whether floats are whole numbers 0..high, rather than fractions of `high` in [0, 1]."""
    known = raw[~np.isnan(raw)]
    return bool((known == np.round(known)).all()) and (high <= 1 or not len(known) or bool(known.max() > 1))


class Rows(Computed):
    """Rows (N, *event) of a sparse matrix as `events` returns them, dense only where they are indexed.

    Raises:
        DataError: as `events`.
    """

    def __init__(self, matrix: Any, spec: DataSpec, observation: Observation):
        self.matrix, self.double = matrix, spec.double
        self.shape, self.dtype = matrix.shape, row_dtype(matrix.dtype, spec.double)
        for first, part in blocks(matrix, double=True):
            try:
                events(part, spec, observation)
            except DataError:
                events(matrix[: first + len(part)], spec, observation)  # names the number of the row
                raise

    def rows(self, index: NDArray[np.int64]) -> np.ndarray:
        return cast(self.matrix.rows(index), self.double)


def rows_of(raw: Any, spec: DataSpec, observation: Observation) -> Any:
    """The events of raw rows in any layout that the run accepts; those of a sparse matrix stay sparse (`Rows`)."""
    of_all = spec.integer and isinstance(raw, Computed) and raw.dtype.kind == "f"  # floats are whole or in [0, 1]
    if isinstance(raw, Computed) and len(raw) > 1 and raw.shape[1:] == spec.shape and not of_all:
        return Rows(raw, spec, observation)
    return events(raw, spec, observation)


def events(raw: np.ndarray, spec: DataSpec, observation: Observation) -> np.ndarray:
    """Raw rows in any layout that the run accepts -> (N, *event).

    Raises:
        DataError: the rows have the wrong shape, or values outside the range that the run was trained on.
    """
    raw = cast(laid_out(raw, spec), double=True)
    for first, part in blocks(raw, double=True) if raw.dtype.kind == "f" else ():
        wrong, single = np.isinf(part) if spec.missing else ~np.isfinite(part), cast(part)
        large = np.isinf(single) & ~np.isinf(part) & ~wrong
        if wrong.any() or (large.any() and not spec.double):
            position = tuple(int(i) for i in np.argwhere(wrong | large)[0])
            where = f"column {spec.columns[position[1]].name!r}" if spec.columns else f"at {position[1:]}"
            raise DataError(
                f"row {first + position[0]}, {where}, is {part[position]:g}, which float32 cannot hold and is far "
                f"beyond the range of the training data ({spec.scale[0]:g}..{spec.scale[1]:g}): is it a mistake?"
                if large.any()
                else f"the data hold NaN or infinite values (row {first + position[0]}, {where}, is "
                f"{part[position]:g}): fill or drop them first, or train with missing values: `missing='mask'`"
            )
    low, high = spec.scale
    if spec.integer and raw.dtype.kind == "f" and not _whole(raw, high):
        raise DataError(
            f"this run was trained on whole numbers {low:g}..{high:g}, got {raw.dtype} from {raw.min():g} to "
            f"{raw.max():g}: pass the raw uint8 data (floats in [0, 1]: (x * {high:g}).round().astype('uint8'))"
        )
    if not spec.double:
        raw = cast(raw)
    if observation.bounded and len(raw):
        least, most = np.fmin.reduce(raw, None), np.fmax.reduce(raw, None)  # ignoring missing values
        if least < low or most > high:
            raise DataError(
                f"this run was trained on values {low:g}..{high:g}, got {raw.dtype} from {least:g} to {most:g}: "
                "rescale or clip the data to that range first"
            )
    observation.check(raw)
    return raw
