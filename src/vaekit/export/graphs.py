"""The computations of a run that can be exported, as modules from tensors to tensors: `NAMES`.

Inputs and outputs are in the data's own units. A graph contains no random number generator: random numbers (uniform or
standard normal) are further inputs, so that the caller controls them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaekit.data.observation import Binary, Centred, Counts, Dequantised, Levels, Observation, Standardised
from vaekit.densities import draw
from vaekit.errors import ChoiceError
from vaekit.heads.autoregressive import AutoregressiveHead
from vaekit.heads.posteriors import FullNormal
from vaekit.models.hierarchy import Chain, TopDownPass
from vaekit.models.library import SizedVAE
from vaekit.models.vae import VAE, Model, Trace
from vaekit.noise import Noise
from vaekit.runs.trained import TrainedModel
from vaekit.utils.suggest import unknown

from .detect import Detect, about, reference

PLAIN = ("decode", "draw", "encode", "weights")
"""The graphs that need only the weights of a run."""
NAMES = (*PLAIN, "detect")
EXAMPLE = 3
"""Rows of the example inputs for tracing: not 0 or 1, which tracers specialise on."""


@dataclass(frozen=True)
class Port:
    """One input or output of a graph.

    Attributes:
        name: its name.
        shape: its shape per example, without the batch axis.
        kind: "x" (the data's own units), "z" (a code), "c" (a condition), "uniform" (in (0, 1)) or "normal" (standard
            normal); for other outputs the same as the name.
    """

    name: str
    shape: tuple[int, ...]
    kind: str

    def as_json(self) -> dict[str, Any]:
        """The port as JSON, for graphs.json."""
        return {"name": self.name, "shape": list(self.shape), "kind": self.kind}

    @property
    def continuous(self) -> bool:
        """Whether a rounding error changes the output little: not that of a rank among other numbers."""
        return self.kind != "p_value"


@dataclass(frozen=True)
class Graph:
    """A module with named inputs and outputs, all float32, with a free batch axis.

    Attributes:
        name: one of `NAMES`.
        module: the computation.
        inputs, outputs: its ports, in order.
        says: a description for people.
        about: properties of the file as texts, such as thresholds.
    """

    name: str
    module: nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    says: str
    about: dict[str, str] = field(default_factory=dict)

    def example(self, n: int = EXAMPLE, seed: int = 0) -> tuple[Tensor, ...]:
        """Inputs for n examples: x is constant, codes and noise are random."""
        g = torch.Generator().manual_seed(seed)

        def of(port: Port) -> Tensor:
            shape = (n, *port.shape)
            if port.kind == "uniform":
                return torch.rand(shape, generator=g).clamp(1e-6, 1 - 1e-6)
            if port.kind == "c":
                return torch.eye(port.shape[0])[torch.arange(n) % port.shape[0]]
            return torch.zeros(shape) if port.kind == "x" else torch.randn(shape, generator=g)

        return tuple(of(port) for port in self.inputs)

    def as_json(self) -> dict[str, Any]:
        """The graph as JSON, for graphs.json."""
        ports = {"inputs": [p.as_json() for p in self.inputs], "outputs": [p.as_json() for p in self.outputs]}
        return {**ports, "says": self.says, **({"about": self.about} if self.about else {})}


# --- noise as an input -------------------------------------------------------------------------------------------


class _Recorder(Noise):
    """Records each request for random numbers: a pass with it shows which noise inputs a graph needs."""

    def __init__(self, n: int):
        super().__init__(torch.tensor(0), torch.arange(n))
        self.requests: list[tuple[str, tuple[int, ...]]] = []

    def bits(self, event: Sequence[int], k: int | None = None) -> Tensor:
        raise ChoiceError("its samples come from a special sampler, which cannot be exported")

    def uniform(self, event: Sequence[int], k: int | None = None) -> Tensor:
        self.requests.append(("uniform", tuple(event)))
        return torch.full((len(self.rows), *event), 0.5)

    def normal(self, event: Sequence[int], k: int | None = None) -> Tensor:
        self.requests.append(("normal", tuple(event)))
        return torch.zeros(len(self.rows), *event)


class _Supplied(Noise):
    """Random numbers from given tensors, one tensor per request."""

    def __init__(self, tensors: tuple[Tensor, ...]):
        super().__init__(torch.zeros((), dtype=torch.int64), torch.arange(tensors[0].shape[0] if tensors else 0))
        self.tensors: Iterator[Tensor] = iter(tensors)

    def bits(self, event: Sequence[int], k: int | None = None) -> Tensor:
        raise ChoiceError("its samples come from a special sampler, which cannot be exported")

    def uniform(self, event: Sequence[int], k: int | None = None) -> Tensor:
        return next(self.tensors)

    normal = uniform


class _Centre(Noise):
    """Normal random numbers that are all zero, so that a sample of a Gaussian is its mean."""

    def __init__(self, x: Tensor):
        super().__init__(torch.zeros((), dtype=torch.int64), torch.arange(x.shape[0]))
        self.x = x

    def normal(self, event: Sequence[int], k: int | None = None) -> Tensor:
        return self.x.new_zeros(self.x.shape[0], *event)


# --- the modules ------------------------------------------------------------------------------------------------


class Decode(nn.Module):
    """z (N, D) -> the mean of p(x|z), (N, *event)."""

    def __init__(self, model: Model, observation: Observation):
        super().__init__()
        self.model, self.observation = model, observation

    def forward(self, z: Tensor) -> Tensor:
        return self.observation.mean_in_units(self.model.decode(z))


class Draw(Decode):
    """z (N, D) and noise -> a sample of p(x|z), (N, *event)."""

    def forward(self, z: Tensor, *noise: Tensor) -> Tensor:
        return self.observation.to_raw(draw(self.model.decode(z), _Supplied(noise)))


class Encode(nn.Module):
    """x (N, *event) and a condition, if any -> the code (N, D), and for Gaussian q its standard deviations (N, D)."""

    def __init__(self, model: Model, observation: Observation):
        super().__init__()
        self.model, self.observation = model, observation

    def forward(self, raw: Tensor, *condition: Tensor) -> tuple[Tensor, ...]:
        x, c = self.observation.expected(raw), condition[0] if condition else None
        if isinstance(self.model, TopDownPass):
            latents = self.model.trace(x, c, noise=_Centre(x)).latents
            means, spreads = ([getattr(h.q, n).flatten(1) for h in latents] for n in ("mean", "stddev"))
        else:
            spread = _spread(_posterior(self.model, x, c))
            if spread is None:
                return (self.model.encode(x, c),)
            code = self.model.encode(x) if c is None else self.model.encode(x, c)
            return code, torch.cat([spread, torch.zeros_like(code[:, spread.shape[1] :])], -1)
        spread_of_condition = [torch.zeros_like(g) for g in condition]
        return torch.cat([*means, *condition], -1), torch.cat([*spreads, *spread_of_condition], -1)


class Weights(nn.Module):
    """x (N, *event), a condition, if any, and noise -> a sample z of q(z|x), log p(x|z), log p(z), log q(z|x).

    The densities are in nats and in the data's own units. With K samples per x, the log of the mean of exp(log p(x|z) +
    log p(z) - log q(z|x)) is a lower bound of log p(x) on average (Burda et al. 2016).
    """

    def __init__(self, model: Model, observation: Observation, event: tuple[int, ...], conditional: bool):
        super().__init__()
        self.model, self.observation, self.conditional = model, observation, conditional
        self.register_buffer("units", observation.log_units(event).float(), persistent=False)

    def forward(self, raw: Tensor, *more: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = certain(self.observation, raw)
        c, noise = (more[0], more[1:]) if self.conditional else (None, more)
        trace = self.model.trace(x, c, noise=_Supplied(noise))
        fixed = torch.where(torch.isnan(x), 0.0, self.get_buffer("units"))
        units = (self.observation.log_units_of(x) if self.observation.uneven else fixed).flatten(1).sum(1)
        log_pz = torch.stack([h.log_p.expand(x.shape[0]) for h in trace.latents]).sum(0)
        log_qz = torch.stack([h.log_q.expand(x.shape[0]) for h in trace.latents]).sum(0)
        return _code(self.model, trace, x, c), trace.px.log_prob(x) + units, log_pz, log_qz


def _code(model: Model, trace: Trace, x: Tensor, c: Tensor | None) -> Tensor:
    """The code of one pass: all layers, concatenated; of a chain only the lowest layer, which alone is decoded."""
    if isinstance(model, SizedVAE):
        return torch.cat([model.with_total(trace.latents[0].z, x), *(() if c is None else (c,))], -1)
    latents = trace.latents[-1:] if isinstance(model, Chain) else trace.latents
    return torch.cat([*(h.z.flatten(1) for h in latents), *(() if c is None else (c,))], -1)


def _posterior(model: Model, x: Tensor, c: Tensor | None) -> Distribution | None:
    """q(z|x) if it is a single density over codes, else None."""
    if isinstance(model, VAE):
        return model.posterior(x) if c is None else model.posterior(x, c)
    return model.posteriors[0](x) if isinstance(model, Chain) else None


def _spread(q: Distribution | None) -> Tensor | None:
    """The standard deviation of each latent, (N, D), if q is a Gaussian; else None."""
    gaussian = isinstance(q, FullNormal) or (isinstance(q, Independent) and isinstance(q.base_dist, Normal))
    return torch.sqrt(q.variance) if q is not None and gaussian else None


# --- deterministic observations ---------------------------------------------------------------------------------


def blur(observation: Observation) -> float:
    """The rounding error of raw data in float32, in standard deviations of the training data; 0 for a run in float32.

    The data and the mean that is subtracted are each rounded by half a unit in the last place.
    """
    if not (observation.in_double and isinstance(observation, Standardised | Centred)):
        return 0.0
    scale = (observation.std if isinstance(observation, Standardised) else observation.scale).cpu().double().numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        step = np.spacing(observation.mean.abs().cpu().numpy().astype(np.float32)).astype(np.float64)
        moved = np.where(scale > 0, step / np.where(scale > 0, scale, 1), 0)
    return float(moved.max()) if np.isfinite(moved).all() else math.inf


def rounding(run: TrainedModel) -> str:
    """A sentence on the precision that graphs lose, if the run is in float64; else "".

    Raises:
        ChoiceError: in float32 the rounding error exceeds the standard deviation of the data.
    """
    moved = blur(run.composition.observation)
    if moved > 1:
        raise ChoiceError(
            "exported graphs are in float32, which rounds the raw data of this run by more than their standard "
            "deviation: use the run itself, or train on data with a constant subtracted (such as the first time stamp)"
        )
    note = "Graphs are in float32, but the run is in float64: raw data are rounded by up to {:.2g} standard deviations."
    return note.format(moved) if moved else ""


def certain(observation: Observation, raw: Tensor) -> Tensor:
    """x of raw data with a density under the likelihood: binary observations are thresholded mid-range.

    Levels and counts are rounded to integers.
    """
    x = observation.expected(raw)
    if isinstance(observation, Binary):
        return torch.where(torch.isnan(x), x, (x > 0.5).to(x.dtype))
    if isinstance(observation, Levels | Counts):
        return x.round().clamp(0, observation.levels - 1 if isinstance(observation, Levels) else None)
    return x


_INPUT_NOTES = {
    Binary: (
        " Training draws each pixel as 0 or 1; x is the probability of 1.",
        " Pixels above the middle of the range count as 1, all others as 0; to use random pixels, draw them first.",
    ),
    Dequantised: (
        " Training adds uniform noise to each level; x is the middle of its level.",
        " x is the middle of its level.",
    ),
}
"""For each random observation, what is added to the descriptions of graphs that use its expectation, and `certain`."""


# --- graphs -----------------------------------------------------------------------------------------------------


def _check_chained(run: TrainedModel, name: str) -> None:
    """Raise ChoiceError if this graph of a run with the autoregressive likelihood is not exported."""
    why = None
    if name in ("decode", "draw"):
        why = "the autoregressive likelihood decodes a row column by column"
    elif name == "detect" and any(column.categories for column in run.spec.columns):
        why = "the autoregressive likelihood has no log p(x) of rows with new categories"
    if why:
        raise ChoiceError(
            f"{why}, so there is no graph {name}: choose encode and weights, or fit with `likelihood='mixed'`"
        )


def build(run: TrainedModel, name: str) -> Graph:
    """The graph `name` (one of `NAMES`) of a run.

    Raises:
        ChoiceError: the name is unknown, or this run has no such graph, with the reason.
    """
    if name not in NAMES:
        raise ChoiceError(unknown("graph", name, NAMES))
    if isinstance(getattr(run.model.likelihood, "head", None), AutoregressiveHead):
        _check_chained(run, name)
    precision_note = rounding(run)
    model, observation, event = run.model, run.composition.observation.for_export(), tuple(run.spec.shape)
    condition = run.composition.condition
    conditions = () if condition is None else (Port("c", (condition.size,), "c"),)
    example = torch.full((EXAMPLE, *event), float(run.spec.scale[0]))
    c = None if condition is None else torch.eye(condition.size)[torch.zeros(EXAMPLE, dtype=torch.long)]
    x, z = Port("x", event, "x"), Port("z", (code_size(run),), "z")
    expected_says, certain_says = _INPUT_NOTES.get(type(observation), ("", ""))
    precision_note = f" {precision_note}" if precision_note else ""
    with torch.no_grad():
        if name == "decode":
            says = "The mean of p(x|z) in the data's own units."
            return Graph(name, Decode(model, observation), (z,), (x,), says + precision_note)
        if name == "draw":
            recorder = _Recorder(EXAMPLE)
            draw(model.decode(torch.zeros(EXAMPLE, *z.shape)), recorder)
            says = "A sample from p(x|z) in the data's own units, computed from uniform and normal random inputs."
            return Graph(name, Draw(model, observation), (z, *_noise_ports(recorder)), (x,), says + precision_note)
        if name == "encode":
            module = Encode(model, observation)
            spread = (Port("sd", z.shape, "sd"),) if len(module(example, *(() if c is None else (c,)))) > 1 else ()
            says = (
                "The centre of q(z|x)"
                + (" and the standard deviation of each latent." if spread else ".")
                + expected_says
            )
            return Graph(name, module, (x, *conditions), (z, *spread), says + precision_note)
        if name == "detect":
            held = reference(run)
            says = (
                "log p(x) in nats, in the data's own units, and its p-value among held-out rows. A row is unusual at a "
                "false-alarm rate if its p-value is at most this rate."
            )
            return Graph(
                name,
                Detect(model, observation, held, example, c),
                (x, *conditions),
                (Port("log_px", (), "log_px"), Port("p_value", (), "p_value")),
                says + precision_note,
                about(held),
            )
        if model.no_density is not None:
            raise ChoiceError(model.no_density)
        recorder = _Recorder(EXAMPLE)
        model.trace(certain(observation, example), c, noise=recorder)
        weights = Weights(model, observation, event, condition is not None)
        numbers = tuple(Port(n, (), n) for n in ("log_px", "log_pz", "log_qz"))
        says = "A sample z of q(z|x) with log p(x|z), log p(z) and log q(z|x) in nats, in the data's own units."
        return Graph(
            name,
            weights,
            (x, *conditions, *_noise_ports(recorder)),
            (z, *numbers),
            says + certain_says + precision_note,
        )


def _noise_ports(recorder: _Recorder) -> tuple[Port, ...]:
    return tuple(Port(f"u{i}", shape, kind) for i, (kind, shape) in enumerate(recorder.requests))


def code_size(run: TrainedModel) -> int:
    """D, the size of a code, including the condition."""
    condition = run.composition.condition
    c = None if condition is None else torch.eye(condition.size)[:1]
    with torch.no_grad():
        return run.model.sample(1, c, Noise.of(0, 1)).shape[-1]
