"""Features of a network that is trained on the same data without labels, in which samples are compared.

The network sees a training datum that was corrupted in one of several ways, and learns (a) which way, by cross-entropy,
and (b) the principal components of the datum before, by squared error. So its features tell apart what samples of
generative models get wrong (noise, blur, parts that do not fit, two data in one) and hold what the data differ in,
whatever their kind: images and signals (convolutions), tables and counts (dense layers). No labels are used: a
classifier may ignore all that its classes have in common, and few data have classes.

Weights, batches and corruptions depend on the data and the seed only, and the number of steps is fixed, so that runs on
the same data are compared in the same features, up to rounding.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vaekit.data.core import Data
from vaekit.errors import RunError
from vaekit.networks.convolutional import default_levels, grid_sizes, halvings
from vaekit.utils.files import read_tensors, write_tensors
from vaekit.utils.isolation import seeded, undisturbed

from .moments import Components

Array = NDArray[Any]
Progress = Callable[[int, int], None]
SIZE, HIDDEN, CHANNELS = 64, 256, (16, 32, 64, 64)
STEPS, BATCH, RATE = 600, 128, 2e-3
LARGE = 4096
"""Inputs of more numbers than this are learned from in batches of half the size."""
SIDE = 64
"""The longest side of an image that the network sees; larger images are averaged over squares of pixels."""
LEARNED, TARGETS = 5000, 32
"""The number of training data for scales and principal components, and of the components that are predicted."""
WEIGHT = 0.05
"""The weight of the way of corruption, beside the components.

With 1, features are about little else than blur: on Fashion-MNIST, a filter of 0.7 pixels lowers precision to 0.03
(real data: 0.94), and recall has no meaning for samples that are slightly blurred.
"""
FORMAT = 1
FILE = "features.safetensors"


class Inputs(nn.Module):
    """Raw data as inputs (N, ...) of the network: standardised, and of a bounded size.

    Images and signals are standardised per channel, columns of a table one by one, and counts after log(1 + x).
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, kind: str, shape: tuple[int, ...]):
        super().__init__()
        self.kind, self.shape, self.spatial = kind, shape, kind in ("image", "signal")
        self.pool = max(1, math.ceil(max(shape[1:]) / SIDE)) if kind == "image" else 1
        size = tuple(math.ceil(side / self.pool) for side in shape[1:])
        self.event = (shape[0], *size) if self.spatial else (math.prod(shape),)
        wide = (shape[0], *(1 for _ in size)) if self.spatial else self.event
        self.register_buffer("mean", torch.zeros(wide))
        self.register_buffer("scale", torch.ones(wide))

    def plain(self, x: Array) -> Tensor:
        """Raw data (N, *event) before they are standardised."""
        rows = torch.from_numpy(np.ascontiguousarray(x, np.float32)).reshape(len(x), *self.shape)
        if not self.spatial:
            rows = rows.flatten(1)
            return torch.log1p(rows.clamp(min=0)) if self.kind == "counts" else rows
        return F.avg_pool2d(rows, self.pool, ceil_mode=True) if self.pool > 1 else rows

    def fit(self, x: Array) -> None:
        """Set mean and scale by these data."""
        rows = self.plain(x).double()
        axes = [0, *range(2, rows.dim())] if self.spatial else [0]
        spread = rows.std(axes, correction=0, keepdim=True)[0]
        self.mean.copy_(rows.mean(axes, keepdim=True)[0])
        self.scale.copy_(torch.where(spread > 0, spread, 1.0))

    def forward(self, x: Array) -> Tensor:
        return ((self.plain(x) - self.mean) / self.scale).clamp(-20, 20)


class FeatureNet(nn.Module):
    """Inputs (N, ...) to features (N, 64), standardised by those of training data."""

    centre: Tensor
    spread: Tensor

    def __init__(self, event: tuple[int, ...]):
        super().__init__()
        if len(event) > 1:
            channels = CHANNELS[: min(len(CHANNELS), default_levels(event[1:]))]
            grid = grid_sizes(event[1:], len(channels))[-1]
            convs = halvings(event[0], channels, len(event) - 1)
            self.net = nn.Sequential(*convs, nn.Flatten(), nn.Linear(channels[-1] * math.prod(grid), SIZE))
        else:
            first = [nn.Linear(event[0], HIDDEN), nn.SiLU(), nn.LayerNorm(HIDDEN)]
            second = [nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), nn.LayerNorm(HIDDEN)]
            self.net = nn.Sequential(*first, *second, nn.Linear(HIDDEN, SIZE))
        self.register_buffer("centre", torch.zeros(SIZE))
        self.register_buffer("spread", torch.ones(SIZE))

    def forward(self, x: Tensor) -> Tensor:
        return (self.net(x) - self.centre) / self.spread


class LearnedFeatures(nn.Module):
    """Raw data (N, *event), an array, to features (N, 64) of the network, an array.

    Attributes:
        text: how the features were made, for protocols.
        size: their number.
    """

    size = SIZE

    def __init__(self, kind: str, shape: tuple[int, ...], text: str):
        super().__init__()
        self.text = text
        self.inputs = Inputs(kind, shape)
        self.features = FeatureNet(self.inputs.event)

    @torch.no_grad()
    def forward(self, x: Array) -> Array:
        step = max(1, min(1000, 4_000_000 // math.prod(self.inputs.event)))
        parts = [self.features(self.inputs(x[a : a + step])) for a in range(0, len(x), step)]
        return torch.cat(parts).numpy()


def corrupted(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (B, ...), each in one of several ways, and the way of each, (B,).

    0: as they are; 1: with noise; 2: with parts of another datum (one side of an image, or some columns); 3: mixed with
    another datum; 4: smoothed (images and signals).
    """
    way = torch.arange(len(x)) % (5 if x.dim() > 2 else 4)
    other = x.roll(1, 0)

    def uniform(low: float, high: float, shape: tuple[int, ...]) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    seen = x.clone()
    for kind in range(1, int(way.max()) + 1):
        rows = way == kind
        own, wide = x[rows], (int(rows.sum()), *(1 for _ in x.shape[1:]))
        if kind == 1:
            scale = torch.exp(uniform(math.log(0.05), 0.0, wide))
            seen[rows] = own + scale * torch.randn(own.shape, generator=generator)
        elif kind == 2:
            seen[rows] = torch.where(_part(own, wide, uniform), other[rows], own)
        elif kind == 3:
            seen[rows] = torch.lerp(other[rows], own, uniform(0.3, 0.7, wide))
        else:
            seen[rows] = torch.lerp(own, _smooth(own), uniform(0.3, 1.0, wide))
    return seen, way


def _smooth(x: Tensor) -> Tensor:
    """Signals or images after two means over three pixels."""
    pool = F.avg_pool1d if x.dim() == 3 else F.avg_pool2d
    for _ in range(2):
        x = pool(x, 3, stride=1, padding=1, count_include_pad=False)
    return x


def _part(x: Tensor, wide: tuple[int, ...], uniform: Callable[..., Tensor]) -> Tensor:
    """Which elements of inputs (B, ...) come from another datum: those beyond a line, or some columns."""
    if x.dim() == 2:
        return uniform(0.0, 1.0, tuple(x.shape)) < uniform(0.1, 0.5, wide)
    axis = 2 + int(uniform(0.0, x.dim() - 2.0, (1,)).item()) % (x.dim() - 2)
    shape = [1] * x.dim()
    shape[axis] = x.shape[axis]
    place = (torch.arange(x.shape[axis]) / x.shape[axis]).reshape(shape)
    return (place < uniform(0.25, 0.75, wide)).expand_as(x)


def learned_features(
    data: Data,
    *,
    steps: int | None = None,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> LearnedFeatures:
    """The features of a network that is trained on the training data, or that is stored for these in `folder`.

    Arguments:
        steps: the number of training steps, by default `STEPS`.
        seed: of the weights, the batches and the corruptions.
        folder: where the network is stored as features.safetensors, such as a run directory; None to store nothing.
        progress: called with (steps done, all steps).
    """
    steps = STEPS if steps is None else steps
    text = f"{SIZE} features of a network trained on {len(data.train):,} training data ({steps} steps, seed {seed})"
    found = LearnedFeatures(data.kind, tuple(data.shape), text)
    rows = hashlib.sha256(np.ascontiguousarray(data.train.index).tobytes()).hexdigest()
    known = {"format": FORMAT, "data": data.digest, "rows": rows, "steps": steps, "seed": seed}
    if folder is not None and _stored(found, folder / FILE, known):
        return found
    with undisturbed():
        _train(found, data, steps, seed, progress)
    if folder is not None:
        write_tensors(folder / FILE, found.state_dict(), known)
    return found


def _stored(features: LearnedFeatures, file: Path, known: dict[str, Any]) -> bool:
    """Load the network of a file into `features`; whether the file has one of these data and settings."""
    if not file.exists():
        return False
    try:
        tensors, meta = read_tensors(file)
    except RunError:  # a damaged file is written again
        return False
    own = {name: tensor.shape for name, tensor in features.state_dict().items()}
    if meta != known or own != {name: tensor.shape for name, tensor in tensors.items()}:
        return False
    features.load_state_dict(tensors)
    features.eval()
    return True


def _train(features: LearnedFeatures, data: Data, steps: int, seed: int, progress: Progress | None) -> None:
    first = data.events(data.train[slice(0, LEARNED)])
    features.inputs.fit(first)
    targets = Components(features.inputs(first).numpy(), TARGETS)
    axes, mean = (torch.from_numpy(np.asarray(part, np.float32)) for part in (targets.axes, targets.mean))
    root = torch.from_numpy(np.sqrt(targets.variances).astype(np.float32))
    generator = torch.Generator().manual_seed(seed)
    ways = 5 if features.inputs.spatial else 4
    with seeded(seed):
        net = FeatureNet(features.inputs.event)
        heads = nn.Sequential(nn.Linear(SIZE, 2 * SIZE), nn.SiLU(), nn.Linear(2 * SIZE, ways + targets.k))
    optimiser = torch.optim.Adam([*net.parameters(), *heads.parameters()], lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps + 1)
    n, large = len(data.train), math.prod(features.inputs.event) > LARGE
    batch = min(BATCH // 2 if large else BATCH, n)
    for step in range(steps):
        rows = torch.randint(n, (batch,), generator=generator).numpy()
        x = features.inputs(data.events(data.train[rows]))
        seen, way = corrupted(x, generator)
        out = heads(net(seen))
        wanted = (x.flatten(1) - mean) @ axes / root
        loss = WEIGHT * F.cross_entropy(out[:, :ways], way) + F.mse_loss(out[:, ways:], wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if progress and (step % 50 == 49 or step + 1 == steps):
            progress(step + 1, steps)
    features.features.load_state_dict(net.state_dict())
    features.eval()
    found = features(first).astype(np.float64)
    spread = found.std(0)
    features.features.centre.copy_(torch.from_numpy(found.mean(0)))
    features.features.spread.copy_(torch.from_numpy(np.where(spread > 0, spread, 1.0)))
