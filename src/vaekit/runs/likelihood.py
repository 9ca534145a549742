"""ELBO, rate, distortion and log p(x) of each datum, streamed over the samples in constant memory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.estimators import k_hat, tail_size
from vaekit.models.vae import Model
from vaekit.noise import Key, Noise, fold
from vaekit.objectives.terms import Weights, has_closed_form, latent_rate, log_weights, rate_per_dim
from vaekit.recipes.composition import Composition
from vaekit.utils.compiled import has_compiler, is_compile_error, whole_graph
from vaekit.utils.formerly import formerly
from vaekit.utils.isolation import in_full_precision
from vaekit.utils.memory import reuse_large_blocks
from vaekit.utils.waiting import adaptive_waiting

from .observed import Observed, decoded_size, gathered
from .processes import shared

CHUNK_NUMBERS = 1_600_000
"""The number of values of x decoded at once, so large that matrix products run at full speed."""


class Placed(Protocol):
    """A composition on a device, with the graphs that were compiled for it on that device."""

    composition: Composition
    device: torch.device
    graphs: dict[Any, Any]


@dataclass
class PerDatum:
    """One number per datum, float64 (n,), in nats; densities are in the data's own units."""

    elbo: np.ndarray
    rate: np.ndarray
    distortion: np.ndarray
    log_px: np.ndarray
    ess: np.ndarray
    k_hat: np.ndarray  # shape of the tail of the weights (`vaekit.estimators.k_hat`); nan for few samples
    means: np.ndarray  # (n, D) posterior means
    kl: np.ndarray | None  # (n, D) KL of each latent, where q and p factorise


class _Chunk:
    """Adds k more samples of a batch to its running sums."""

    def __init__(self, model: Model, k: int, compile: bool):
        self.model, self.k = model, k
        self.graph = whole_graph(self.add) if compile else None

    def __call__(self, *arguments: Any) -> list[Tensor]:
        if self.graph is not None:
            try:
                return self.graph(*arguments)
            except Exception as error:
                if not is_compile_error(error):
                    raise
                self.graph = None  # eager sums are equal, but slower
                reason = str(error).strip().split("\n", 1)[0]
                warnings.warn(f"the scores cannot be compiled ({reason}): this takes longer", stacklevel=2)
        return self.add(*arguments)

    def add(
        self, x: Tensor, c: Tensor | None, base: Tensor, rows: Tensor, first: Tensor, sums: list[Tensor]
    ) -> list[Tensor]:
        trace = self.model.trace(x, c, k=self.k, noise=Noise(base, rows, first))
        log_px = trace.px.log_prob(x)  # (K, B)
        weights = log_weights(trace, x, log_px)
        top, total, squares, distortion, elbo, *largest = sums
        running = Weights(top, total, squares).add(weights)
        wide = distortion.dtype
        # the largest weights so far (B, M), if they are wanted
        largest = [torch.cat([t, weights.T.to(t)], 1).topk(t.shape[1], 1).values for t in largest]
        return [*running, distortion - log_px.sum(0, dtype=wide), elbo + weights.sum(0, dtype=wide), *largest]


def _decodes(dims: int, device: torch.device) -> int:
    """The number of codes that are decoded at once into `dims` values each."""
    return max(1, (1 if device.type == "cpu" else 8) * CHUNK_NUMBERS // dims)


def _plan(decodes: int, samples: int, n: int) -> tuple[int, int]:
    """The numbers of (data, samples) decoded at once: at most `decodes` codes, with the least padding at the end.

    Samples come first, because each chunk encodes its data again.
    """
    most = min(samples, decodes)
    # prefer chunks of one size, because each size is compiled
    ks = [k for k in range(most, most // 2, -1) if samples % k == 0] or [most]

    def batch(k: int) -> int:
        batches = math.ceil(n / max(1, min(decodes // k, n)))
        return math.ceil(n / batches)  # spread evenly

    k = min(ks, key=lambda k: (math.ceil(n / batch(k)) * batch(k), -batch(k) * k))
    return batch(k), k


def _sums(
    run: Placed,
    x: Tensor,
    c: Tensor | None,
    rows: Tensor,
    base: Tensor,
    samples: int,
    plan: tuple[int, int, bool],
    progress: Callable[[int], None],
    largest: int = 0,
) -> list[Tensor]:
    """The sums of `_Chunk` over all samples for the data x (n, ...), float64 (n,) each.

    `plan` is how many data and samples are decoded at once, and whether this is compiled. With `largest`, the last
    result has this many of the largest log-weights of each datum, (n, largest).
    """
    b, k, compile = plan
    short = -len(x) % b if compile else 0
    x_, c_, rows_ = _pad(x, short), None if c is None else _pad(c, short), _pad(rows, short)
    zero = torch.zeros(len(x_), device=run.device)
    wide = torch.float32 if run.device.type == "mps" else torch.float64  # for sums over many samples
    # filled part by part: small tensors that are kept between large ones would fragment the memory
    totals = [*Weights.none(zero), *torch.zeros(2, len(x_), dtype=wide, device=run.device)]
    if largest:
        totals.append(torch.full((len(x_), largest), -math.inf, device=run.device))
    firsts = [(min(k, samples - i), torch.tensor(i, device=run.device)) for i in range(0, samples, k)]
    for i in range(0, len(x_), b):
        part = slice(i, i + b)
        sums, given = [t[part] for t in totals], None if c_ is None else c_[part]
        for size, first in firsts:
            key = (size, len(sums[0]), largest) if compile else (size, 0, 0)
            if key not in run.graphs:  # compiled once per run and shape
                run.graphs[key] = _Chunk(run.composition.model, size, compile)
            sums = run.graphs[key](x_[part], given, base, rows_[part], first, sums)
        for total, new in zip(totals, sums, strict=True):
            total[part] = new
        progress(min(i + b, len(x)))
    return [t[: len(x)].cpu().double() for t in totals]


class _Sampled(NamedTuple):
    """A block of n data with the sums over their importance samples, float64 (n,)."""

    x: Tensor
    c: Tensor | None
    weights: Weights
    distortion: Tensor
    elbo: Tensor
    largest: Tensor | None  # (n, M) the largest log-weights


class _Options(TypedDict, total=False):
    """The options of `_sampled`."""

    seed: int
    batch: int | None
    compile: bool | None
    progress: Callable[[int, int], None] | None


def _to_score(run: Placed, observed: Observed, samples: int, n: int | None, rows: np.ndarray | None) -> np.ndarray:
    """The numbers of the data to score, after a check of the arguments of `per_datum`."""
    if samples < 1:
        raise ChoiceError(f"the number of importance samples K must be 1 or more, got {samples}")
    rows = observed.chosen(rows, n)
    if len(rows) < 1:
        raise ChoiceError("the number of data to evaluate must be 1 or more")
    if (why := run.composition.model.no_density) is not None:
        raise ChoiceError(f"{why}: log p(x) cannot be estimated; use `metrics='distortion'` instead")
    return rows


def _sampled(
    run: Placed,
    observed: Observed,
    samples: int,
    rows: np.ndarray,
    *,
    seed: int = 0,
    batch: int | None = None,
    compile: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
    largest: int = 0,
) -> Iterator[_Sampled]:
    """Yields the data in blocks with their sums over the samples; see `per_datum` and `_sums` for the arguments."""
    reuse_large_blocks()
    n, dims = len(rows), decoded_size(observed.spec)
    decodes = _decodes(dims, run.device)
    b, k = _plan(decodes, samples, n)
    b = b if batch is None else batch
    if compile is None:
        compile = samples * n * dims > 4e8 and has_compiler()
    base = torch.tensor(fold(seed, Key.EVALUATE), device=run.device)
    together = b * max(1, decodes // b)  # data that are read, and encoded for their codes, at once

    def done(before: int) -> Callable[[int], None]:
        return lambda more: progress(before + more, n) if progress else None

    for a in range(0, n, together):
        block = rows[a : a + together]
        x = observed(block).to(run.device)
        c = observed.condition(block, run.device)
        numbers = torch.from_numpy(block).to(run.device)
        plan = b, k, compile
        top, total, squares, distortion, elbo, *more = _sums(run, x, c, numbers, base, samples, plan, done(a), largest)
        weights = Weights(top, total, squares)
        yield _Sampled(x, c, weights, distortion / samples, elbo / samples, more[0] if more else None)


@formerly("n", "seed", "batch", "compile", "progress", "rows")
@in_full_precision()
@adaptive_waiting()
@torch.no_grad()
def per_datum(
    run: Placed,
    observed: Observed,
    samples: int,
    *,
    n: int | None = None,
    rows: np.ndarray | None = None,
    seed: int = 0,
    batch: int | None = None,
    compile: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PerDatum:
    r"""Score the first n data, or those of the given rows, with K importance samples from q each.

    The bound is log p(x) >= E log 1/K sum_k p(x, z_k) / q(z_k | x) (Burda et al. 2016). Noise is keyed by (seed, datum,
    sample), so a result does not depend on `batch`. Memory does not grow with K. The distortion is averaged over the
    same samples; the rate has its closed form if there is one.

    Arguments:
        run: a `TrainedModel`.
        compile: compile the decoding; by default if there is enough work to repay the compilation.
        rows: (n,) indices of the data to score instead of the first n.
    """
    rows = _to_score(run, observed, samples, n, rows)
    options: _Options = {"seed": seed, "batch": batch, "compile": compile, "progress": progress}
    names: list[str] = []

    def arrays(found: PerDatum) -> list[np.ndarray]:
        known = {name: getattr(found, name) for name in PerDatum.__annotations__}
        names[:] = [name for name, array in known.items() if array is not None]
        return [known[name] for name in names]

    def joined(found: list[np.ndarray]) -> PerDatum:
        known: dict[str, Any] = {"kl": None, **dict(zip(names, found, strict=True))}
        return PerDatum(**known)

    return shared(rows, lambda part: _per_datum(run, observed, samples, part, options), arrays, joined)


def _per_datum(run: Placed, observed: Observed, samples: int, rows: np.ndarray, options: _Options) -> PerDatum:
    """`per_datum` in one process."""
    parts: dict[str, list[Tensor]] = {name: [] for name in PerDatum.__annotations__}
    units: list[Tensor] = []
    tail = tail_size(samples) + 1
    for block in _sampled(run, observed, samples, rows, **options, largest=tail):
        rate, kl, means = closed_form_rates(run.composition.model, block.x, block.c)
        if rate is None:
            rate = -block.elbo - block.distortion
        parts["rate"].append(rate)
        parts["distortion"].append(block.distortion)
        parts["elbo"].append(-(rate + block.distortion))
        parts["log_px"].append(block.weights.log_mean(samples))
        parts["ess"].append(block.weights.ess)
        assert block.largest is not None
        parts["k_hat"].append(k_hat(block.largest.T, samples=samples))
        parts["means"].append(means)
        if kl is not None:
            parts["kl"].append(kl)
        if _differs(run, observed):
            units.append(run.composition.observation.log_jacobian_of(block.x))
    jacobian = run.composition.observation.log_jacobian(observed.spec.shape)
    return _collected(parts, torch.cat(units).cpu().numpy() if units else jacobian)


@in_full_precision()
@adaptive_waiting()
@torch.no_grad()
def log_likelihood(
    run: Placed,
    observed: Observed,
    samples: int,
    *,
    n: int | None = None,
    rows: np.ndarray | None = None,
    **options: Unpack[_Options],
) -> np.ndarray:
    """`PerDatum.log_px` alone, (n,): `per_datum`, which has the same options, also encodes each datum again."""
    rows = _to_score(run, observed, samples, n, rows)

    def found(block: _Sampled) -> np.ndarray:
        return in_units(run, observed, block.x, block.weights.log_mean(samples)).numpy()

    def scored(part: np.ndarray) -> np.ndarray:
        return gathered(map(found, _sampled(run, observed, samples, part, **options)), len(part))

    return shared(rows, scored, lambda log_px: [log_px], lambda arrays: arrays[0])


def at_once(run: Placed, observed: Observed) -> int:
    """The number of codes of these data that are decoded at once."""
    return _decodes(decoded_size(observed.spec), run.device)


def in_units(run: Placed, observed: Observed, x: Tensor, log_px: Tensor) -> Tensor:
    """log p of x (n, *event) in the data's own units, float64 (n,) on the CPU."""
    observation = run.composition.observation
    if _differs(run, observed):
        return log_px + observation.log_jacobian_of(x)
    return log_px + observation.log_jacobian(observed.spec.shape)


def _differs(run: Placed, observed: Observed) -> bool:
    """Whether the units of x, and so its densities, differ between rows."""
    return observed.spec.missing or run.composition.observation.uneven


def _collected(found: dict[str, list[Tensor]], jacobian: float | np.ndarray) -> PerDatum:
    """The results of all batches, with densities in the data's own units."""
    whole = {name: torch.cat(parts).cpu().numpy() for name, parts in found.items() if parts}
    whole["elbo"] += jacobian
    whole["log_px"] += jacobian
    whole["distortion"] -= jacobian
    return PerDatum(**{"kl": None, **whole})  # type: ignore[arg-type]


def _pad(x: Tensor, short: int) -> Tensor:
    """x with its last row repeated `short` times."""
    return torch.cat([x, x[-1:].expand(short, *x.shape[1:])]) if short else x


def closed_form_rates(model: Model, x: Tensor, c: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """The closed-form KL per datum (B,) and per latent (B, D), if there is one, and the codes of the data (B, D)."""
    codes = model.encode(x, c)
    latents = model.trace(x, c, noise=Noise.of(0, len(x), device=x.device)).latents
    if len(latents) > 1 or not has_closed_form(latents[0].q, latents[0].p):
        return None, None, codes
    kl = rate_per_dim(latents[0])
    return latent_rate(latents[0]).cpu().double(), None if kl is None else kl.cpu().double().flatten(1), codes


def kl_of(run: Placed, rows: np.ndarray, x: Tensor, c: Tensor | None) -> np.ndarray | None:
    """The KL of each latent of each datum, with layers concatenated, (B, D) float64; None without a closed form."""
    model = run.composition.model
    if model.no_density is not None:
        return None
    noise = Noise.of(0, torch.from_numpy(rows).to(run.device))
    parts = [rate_per_dim(latent) for latent in model.trace(x, c, noise=noise).latents]
    if any(part is None for part in parts):
        return None
    return torch.cat([part.flatten(1) for part in parts if part is not None], 1).cpu().double().numpy()
