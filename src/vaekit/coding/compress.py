"""Data of a run as archives, and back: `compress` and `decompress`."""

from __future__ import annotations

import hashlib
import itertools
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaekit.data.condition import Labels
from vaekit.data.observation import REFERENCE_SEED
from vaekit.errors import ChoiceError, DataError
from vaekit.models.library import SizedVAE
from vaekit.noise import Noise, fold
from vaekit.runs import example
from vaekit.runs.likelihood import per_datum
from vaekit.runs.new_data import SPLITS, DataLike, is_source
from vaekit.runs.observed import Observed
from vaekit.runs.saved import SavedRun
from vaekit.runs.trained import TrainedModel
from vaekit.utils.files import checked_path
from vaekit.utils.isolation import in_full_precision

from . import archive
from .ans import Desynchronised, Stack
from .archive import Archive
from .bitsback import scheme_of
from .known import Known
from .latents import UNIFORM_BITS
from .rounded import Rounded
from .rounding import TOLERANCE
from .scheme import Batch, Scheme
from .source import Source, in_units, little
from .tables import FEW

LEAST, MOST = 2.0**-44, 2.0**-8
"""Bounds of the tolerance."""
AT_ONCE = 64
"""The largest number of data whose networks are evaluated at once."""
GROWTH, SLOWEST = 4, 256
"""The smallest and the largest number of data that must be coded before for each of those that are coded at once."""
TOGETHER = 2**22
"""The largest number of parameters, and of entries of whole tables, of the data coded at once."""
TUNING = 64
"""The number of data by which grids are chosen."""
FEWEST, LANES, NUMBERS_PER_LANE = 8, 64, 1024
"""The smallest and the largest number of lanes, and the numbers of the data for each: a lane adds about 6 bytes."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Compressed:
    """The result of `compress`: an archive whose data were decoded again and compared.

    Attributes:
        path: the archive.
        n: number of data.
        dims: numbers per datum.
        size: bytes of the archive.
        start_up: bytes of it that do not grow with the data: header, unused bits of the lanes, and borrowed bits.
        known: bytes for what the model takes as known, such as conditions, which its ELBO does not count.
        elbo: the sum of the ELBOs of the data in nats, estimated with one draw of z each.
    """

    path: Path
    n: int
    dims: int
    size: int
    start_up: int
    known: int
    elbo: float

    @property
    def coded(self) -> int:
        """The bytes that the ELBO counts: without start-up and what is known."""
        return self.size - self.start_up - self.known

    @property
    def bits_per_dim(self) -> float:
        """Bits of the archive per number of the data."""
        return 8 * self.size / self.n / self.dims

    @property
    def expected(self) -> float:
        """The bytes that the ELBO predicts for `coded`."""
        return -self.elbo / math.log(2) / 8

    @property
    def excess(self) -> float:
        """`coded` relative to `expected`, minus 1."""
        return self.coded / self.expected - 1 if self.expected > 0 else math.inf


def digest_of(run: TrainedModel) -> str:
    """SHA-256 of the weights of model and observation."""
    sha = hashlib.sha256()
    for part in (run.composition.model, run.composition.observation):
        for name, tensor in sorted(part.state_dict().items()):
            sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            sha.update(little(tensor.detach().cpu().numpy()))
    return sha.hexdigest()


@in_full_precision()
@torch.no_grad()
def compress(
    run: TrainedModel,
    data: DataLike = "test",
    *,
    path: str | Path,
    n: int | None = None,
    labels: Labels | None = None,
    observed: bool = False,
    tolerance: float = TOLERANCE,
    progress: Progress | None = None,
) -> Compressed:
    """Compress data without loss by a run with a discrete likelihood, to about their negative ELBO.

    The archive has the numbers of the data as the run reads them, in their order, but no names or further columns. It
    is decoded with the run. Before it is written, it is decoded with disturbances as large as the tolerance, and every
    datum is compared.

    Arguments:
        run: the run.
        data: as for `encode`.
        path: the archive.
        n: compress only the first n data.
        labels: as for `encode`.
        observed: compress x, the data as the model observes them, such as the fixed binary draw of grey images. By
            default such data are refused, because x does not determine them.
        tolerance: how much the outputs of the networks may differ where the archive is decoded, relative to 1 + their
            size. The default is far above differences between machines in float64, in which networks are evaluated.
        progress: called as progress(done, of), through encoding and decoding.

    Raises:
        ChoiceError: the run has no discrete likelihood, or its latents cannot be coded.
        DataError: x does not determine the data, or the archive does not decode to them.
    """
    if not LEAST <= tolerance <= MOST:
        raise ChoiceError(f"`tolerance` must be between 2^-44 (6e-14) and 2^-8 (0.004), got {tolerance:g}")
    target, scheme = checked_path(path), scheme_of(run.model, tolerance)
    rows = _read(run, data, labels)
    chosen, source = rows.chosen(None, n), Source(run, rows, scheme, observed)
    if not len(chosen):
        raise ChoiceError("the number of data to compress must be 1 or more")
    scheme.top = source.top(chosen)  # checks the data, too
    elbo = float(per_datum(run, rows, 1, rows=chosen).elbo.sum())
    growth = _growth(scheme, -elbo / math.log(2) / len(chosen))
    made = _encoded(run, scheme, source, chosen, growth, progress)
    content, sizes = made.to_bytes()
    _check(run, archive.parsed(content), source, chosen, progress)
    archive.write(target, content)
    start_up = sizes["header"] + sizes["states"] + 4 * made.stack.missing - made.stack.held // 8
    return Compressed(target, len(chosen), run.spec.dims, len(content), start_up, sizes["known"], elbo)


def _read(run: TrainedModel, data: DataLike, labels: Labels | None) -> Observed:
    """The data by row number.

    Raises:
        DataError: a text is not a category that the run knows, so that it would come back as a missing value.
    """
    known = isinstance(data, Observed | int) or (isinstance(data, str) and (data in SPLITS or not is_source(data)))
    if known or not run.spec.missing:
        return run.observed(data, labels=labels)
    new = run.read(data, labels=labels, unseen=True)
    if new.unseen:
        (row, column), text = min(new.unseen.items())
        raise DataError(
            f"row {row}, column {run.columns[column].name!r}: {text!r} is not a category that this run was trained "
            "with, so it would come back as a missing value: leave this row out, or train a run on data with it"
        )
    return run.observed(new)


def _place_of(run: TrainedModel) -> str | None:
    """Where the run is from here, or only its name if it is not in the current folder; None for a model in memory."""
    if not isinstance(run, SavedRun):
        return None
    if run.path == example.PLACE:
        return example.NAME
    path, here = Path(run.path).resolve(), Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else run.name


def starts_of_rounds(n: int, most: int, growth: int) -> tuple[list[int], range]:
    """The first data of the rounds in which n data are coded, in order.

    A round has one datum at first, later a `growth`-th of those before it, and in the range at the end `most`.
    """
    ramp, done = [], 0
    while done < n and max(1, done // growth) < most:
        ramp.append(done)
        done += max(1, done // growth)
    return ramp, range(min(done, n), n, most)


def _most_at_once(run: TrainedModel, scheme: Scheme) -> int:
    """The largest number of data that are coded at once."""
    parameters = max(len(network.group) for network in scheme.networks.values())
    return max(1, min(AT_ONCE, TOGETHER // (parameters + FEW * run.spec.dims)))


def _growth(scheme: Scheme, bits: float) -> int:
    """How many data must be coded before for each that is coded at once, if a datum leaves so many bits.

    They then have left more bits than the latents of those coded at once take, and none need to be borrowed.
    """
    return min(max(GROWTH, math.ceil(UNIFORM_BITS * scheme.drawn / max(bits, 1.0))), SLOWEST)


def _lanes(numbers: int) -> int:
    """The number of lanes for so many numbers, a power of two."""
    return min(LANES, max(FEWEST, 1 << max(0, (numbers // NUMBERS_PER_LANE).bit_length() - 1)))


def _encoded(
    run: TrainedModel,
    scheme: Scheme,
    source: Source,
    rows: NDArray[np.int64],
    growth: int,
    progress: Progress | None,
) -> Archive:
    """The archive of these rows."""
    few = rows[np.unique(np.linspace(0, len(rows) - 1, TUNING).astype(np.int64))]
    x = source.x(few)
    batch, values = source.batch(few, x), source.values(few, x)
    scheme.fit(x, batch)
    scheme.tune(x, batch)
    scheme.tune_shifts(x, values, batch)
    stack, sha, batches = Stack(_lanes(len(rows) * run.spec.dims)), hashlib.sha256(), list[Batch]()
    most = _most_at_once(run, scheme)
    starts = list(itertools.chain(*starts_of_rounds(len(rows), most, growth)))
    for start, end in itertools.pairwise([*starts, len(rows)]):
        at = rows[start:end]
        x = source.x(at)
        batches.append(source.batch(at, x))
        scheme.encode(stack, x, source.values(at, x), batches[-1])
        sha.update(little(source.wanted(at, x)))
        if progress:
            progress(end, 2 * len(rows))
    header = {
        "version": archive.VERSION,
        "software": software(),
        "run": _place_of(run),
        "weights": digest_of(run),
        "likelihood": type(scheme.px.head).__name__,
        "n": len(rows),
        "shape": list(run.spec.shape),
        "dtype": source.wanted(few[:1]).dtype.newbyteorder("<").str,
        "observed": source.observed,
        "data": sha.hexdigest(),
        "at_once": most,
        "growth": growth,
        "tolerance": scheme.tolerance,
        "scheme": scheme.to_json(),
    }
    return Archive(header, stack, Known.of(batches).to_bytes())


def _decoded(
    run: TrainedModel, scheme: Scheme, found: Archive, progress: Progress | None = None, before: int = 0
) -> Iterator[tuple[int, Tensor]]:
    """Yields (first row, x) of the rounds, the last round first.

    Raises:
        DataError: the bits are not those of this run.
    """
    condition, n = run.composition.condition, found.n
    given = int(isinstance(scheme.exact, SizedVAE)), 0 if condition is None else condition.size
    try:
        known = Known.from_bytes(found.known, n, run.spec.dims, *given)
        scheme.from_json(found.header["scheme"])
        most, growth = (int(found.header[name]) for name in ("at_once", "growth"))
        if not (0 < most <= AT_ONCE and 0 < growth <= SLOWEST):
            raise ValueError("the sizes of its rounds are not possible")
    except (KeyError, TypeError, ValueError, OverflowError, zlib.error) as error:
        raise DataError(f"the archive does not fit this run ({error})") from None
    end = n
    for start in itertools.chain.from_iterable(map(reversed, starts_of_rounds(n, most, growth)[::-1])):
        batch = known.part(slice(start, end))
        yield start, scheme.x_of(scheme.decode(found.stack, batch), batch)
        end = start
        if progress:
            progress(before + n - start, before + n)
    if not found.stack.settled():
        raise Desynchronised


def software() -> dict[str, str]:
    """The versions of the programs that compute the tables."""
    return {name: version(name) for name in ("torch", "numpy", "scipy")}


def _check(
    run: TrainedModel, found: Archive, source: Source, rows: NDArray[np.int64], progress: Progress | None
) -> None:
    """Decode an archive with disturbed networks, and compare every datum.

    Raises:
        DataError: a datum differs.
    """
    scheme = scheme_of(run.model, source.scheme.tolerance)
    for name, network in scheme.networks.items():
        network.change = disturbance(scheme.tolerance, name)
    dtype = np.dtype(found.header["dtype"])
    for first, x in _decoded(run, scheme, found, progress, found.n):
        raw, wanted = in_units(run, x, source.observed, dtype), source.wanted(rows[first : first + len(x)])
        if not np.array_equal(raw, wanted, equal_nan=dtype.kind == "f"):
            raise DataError(f"the archive does not decode to rows {first} to {first + len(x) - 1} of the data")


def disturbance(tolerance: float, name: str) -> Callable[[Tensor], Tensor]:
    """A function that changes the outputs of a network by almost the tolerance, up or down at random."""
    calls = iter(range(2**62))
    base = fold(REFERENCE_SEED, *name.encode())

    def changed(raw: Tensor) -> Tensor:
        sign = torch.sign(Noise.of(fold(base, next(calls)), len(raw)).uniform(raw.shape[1:]) - 0.5)
        return raw + 0.99 * tolerance * sign * (1 + raw.abs())

    return changed


@in_full_precision()
@torch.no_grad()
def decompress(
    run: TrainedModel,
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float64,
    prepare: Callable[[Rounded], None] | None = None,
    progress: Progress | None = None,
) -> NDArray[Any]:
    """The data of an archive of `compress`, in their order: (N, *event), in the units and the dtype they had.

    Arguments:
        run: the run that the archive was made with.
        path: the archive.
        dtype: the precision in which networks are evaluated. Below float64, an archive needs a larger tolerance.
        prepare: called with each network before it is used, which it may replace by an equal one, such as a compiled
            one.
        progress: called as progress(done, of).

    Raises:
        DataError: the file is not an archive or is damaged, was made with another run, or cannot be decoded here.
        RunError: the file cannot be read.
    """
    file = checked_path(path)
    found = archive.read(file)
    if found.header.get("weights") != digest_of(run):
        raise DataError(f"{file} was made with another run: its weights differ from those of this one")
    try:
        kind = np.dtype(str(found.header["dtype"]))
        tolerance, seen = float(found.header["tolerance"]), bool(found.header["observed"])
        digest = str(found.header["data"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is damaged ({error}): copy it again") from None
    if found.shape != run.spec.shape or kind.kind not in "biuf" or not LEAST <= tolerance <= MOST:
        raise DataError(f"{file} has data of shape {found.shape}, but this run takes {run.spec.shape}")
    scheme = scheme_of(run.model, tolerance, dtype)
    if prepare:
        for network in scheme.networks.values():
            prepare(network)
    try:
        parts = [in_units(run, x, seen, kind) for _, x in _decoded(run, scheme, found, progress)]
        raw = np.concatenate(parts[::-1])
        if hashlib.sha256(little(raw)).hexdigest() != digest:
            raise Desynchronised
    except Desynchronised:
        raise DataError(f"{file}: {Desynchronised(_differing(found.header.get('software')))}") from None
    return raw


def _differing(made: Any) -> str:
    """A part of a sentence on the versions of the programs that an archive was made with, if others are here."""
    here = software()
    if not isinstance(made, dict) or made == here:
        return ""
    others = [name for name in here if made.get(name) != here[name]]
    then, now = (", ".join(f"{name} {ascii(some.get(name))[:20]}" for name in others) for some in (made, here))
    return f", or decode it with {then}, as it was made, instead of {now}"
