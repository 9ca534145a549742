"""One training step: observe, trace, compute the gradients of all groups at the same parameters, update all groups.

The step is a function of tensors only, so that it runs eagerly or as one compiled graph, with the same noise.
Compilation fuses the arithmetic of the optimiser with the casts of the weights, which dominate the time on a CPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vaekit.errors import TrainingError
from vaekit.noise import Noise, StepKey, fold
from vaekit.objectives import Batch
from vaekit.recipes.composition import Composition
from vaekit.utils.compiled import WholeGraph, whole_graph
from vaekit.utils.cuda import CudaGraph, Replayed, sent
from vaekit.utils.functional import call, places
from vaekit.utils.isolation import seeded

from .augment import Augment
from .optimisers import Optimiser, optimiser


class _Pass(nn.Module):
    """Maps raw rows to the losses of the objective; the module that holds all parameters of a training step."""

    def __init__(self, composition: Composition, augment: Augment | None = None):
        super().__init__()
        self.model, self.objective = composition.model, composition.objective
        self.observation, self.augment = composition.observation, augment

    def forward(
        self, raw: Tensor, base: Tensor, rows: Tensor, step: Tensor, c: Tensor | None, y: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        with torch.autocast(raw.device.type, enabled=False):
            if self.augment is not None:
                raw = self.augment(raw, Noise(base[2], rows))
            x = self.observation(raw, Noise(base[0], rows) if self.observation.stochastic else None)
        terms = self.objective(self.model, Batch(x, Noise(base[1], rows), c, y), step)
        return terms.losses, terms.stats


Maybe = Tensor | None


@dataclass
class Settings:
    """Settings of the training step."""

    optimiser: Callable[[], Optimiser]
    lr: float
    clip: float | None = None
    ema: float | None = None
    precision: str = "fp32"
    augment: Augment | None = None
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    reduce: Callable[[list[Tensor]], None] | None = None  # sums tensors over processes, in place
    watch: Callable[[dict[str, Tensor]], None] | None = None  # is shown the gradients before each update


class Engine:
    """The parameters in training, with their optimiser states and running averages.

    `step(...)` is the training step; `tensors()` and `load(...)` write and read its state for checkpoints.
    """

    def __init__(self, composition: Composition, settings: Settings):
        self.settings = settings
        self.module = _Pass(composition, settings.augment).to(settings.device)
        parameter_groups = composition.objective.parameter_groups(composition.model)
        names = {id(p): n for n, p in self.module.named_parameters()}
        self.parameters = {n: p.detach() for n, p in self.module.named_parameters()}
        self.places = {place: names[id(t)] for place, t in places(self.module).items() if id(t) in names}
        self.groups = {group: [names[id(p)] for p in ps] for group, ps in parameter_groups.items()}
        owned = [n for ns in self.groups.values() for n in ns]
        if len(owned) != len(set(owned)):
            raise TrainingError("parameter groups must be disjoint")
        self.tuning = composition.objective.tuning
        self.rules = {group: self._rule(group) for group in self.groups}
        self.apart = settings.watch is not None or not all(rule.fuses for rule in self.rules.values())
        self.sizes = [len(rule.coefficients(0.0, 1)) for rule in self.rules.values()]
        self.memory = {n: s for group, ns in self.groups.items() for n, s in self._fresh(group, ns)}
        self.average = {n: self.parameters[n].clone() for n in owned} if settings.ema else {}
        self.stats: list[str] = []
        self._run: Callable[..., Any] | None = None
        self.eager()

    def _rule(self, group: str) -> Optimiser:
        tuning = self.tuning.get(group)
        return optimiser(tuning.optimiser, **(tuning.options or {})) if tuning else self.settings.optimiser()

    def _fresh(self, group: str, names: list[str]) -> Iterator[tuple[str, list[Tensor]]]:
        return zip(names, self.rules[group].state([self.parameters[n] for n in names]), strict=True)

    # --- the step as a function of tensors ----------------------------------------------------------------------

    def _gradients(
        self, raw: Tensor, base: Tensor, rows: Tensor, step: Tensor, c: Tensor | None, y: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses and stats as one float32 vector, and each group's gradients at the same parameters."""
        owned = {n for ns in self.groups.values() for n in ns}
        leaves = {n: p.detach().requires_grad_(n in owned) for n, p in self.parameters.items()}
        bf16 = self.settings.precision == "bf16"
        with torch.autocast(raw.device.type, torch.bfloat16) if bf16 else contextlib.nullcontext():
            replaced = {place: leaves[n] for place, n in self.places.items()}
            losses, stats = call(self.module, replaced, raw, base, rows, step, c, y)
        gradients: dict[str, Tensor] = {}
        left = len(losses)
        for group, names in self.groups.items():
            left -= 1
            wanted = [leaves[n] for n in names]
            group_gradients = torch.autograd.grad(losses[group], wanted, retain_graph=left > 0, allow_unused=True)
            for n, g in zip(names, group_gradients, strict=True):
                gradients[n] = torch.zeros_like(leaves[n]) if g is None else g
        self.stats = [*(f"loss/{p}" for p in losses), *stats]
        values = torch.stack([v.detach().float() for v in (*losses.values(), *stats.values())])
        return values, gradients

    def _update(self, gradients: dict[str, Tensor], numbers: Tensor) -> Tensor:
        """Clip the gradients, update every group and the averages; returns the norms of the gradients.

        `numbers` are the coefficients of all groups, then the weight of the new value in the averages.
        """
        norms = []
        *rates, decay = numbers.split([*self.sizes, 1])
        for (group, names), c in zip(self.groups.items(), rates, strict=True):
            rule = self.rules[group]
            scale = None
            if self.settings.clip is not None:
                each = [torch.linalg.vector_norm(gradients[n].float()) for n in names]
                norm = torch.linalg.vector_norm(torch.stack(each))
                scale = torch.clamp(self.settings.clip / (norm + 1e-6), max=1.0)
                norms.append(norm)
            for n in names:
                g = gradients[n] if scale is None else gradients[n] * scale
                rule.update(self.parameters[n], g, self.memory[n], c)
                if self.average:
                    self.average[n].lerp_(self.parameters[n], decay[0])
        return torch.stack(norms) if norms else torch.zeros(0)

    def _whole(self, raw: Tensor, keys: Tensor, rows: Tensor, c: Maybe, y: Maybe, numbers: Tensor) -> Tensor:
        """One step; `keys` are those of the noise, then the step for schedules; `numbers` are those of `_update`."""
        values, gradients = self._gradients(raw, keys[:-1], rows, keys[-1], c, y)
        with torch.no_grad():
            self._update(gradients, numbers)
        return values

    def _parts(self, raw: Tensor, keys: Tensor, rows: Tensor, c: Maybe, y: Maybe, numbers: Tensor) -> Tensor:
        """Like `_whole`, with the update apart from the gradients, which may be shown before it."""
        values, gradients = self._gradients(raw, keys[:-1], rows, keys[-1], c, y)
        with torch.no_grad():
            if self.settings.watch is not None:
                self.settings.watch(gradients)
            self._update(gradients, numbers)
        return values

    def _split(self, raw: Tensor, keys: Tensor, rows: Tensor, c: Maybe, y: Maybe, numbers: Tensor) -> Tensor:
        """Like `_whole`, with a sum over processes between gradients and update; each is weighted by its rows."""
        assert self.settings.reduce is not None
        buffers = [b for b in self.module.buffers() if b.is_floating_point()]
        before = [b.clone() for b in buffers]
        values, gradients = self._gradients(raw, keys[:-1], rows, keys[-1], c, y)
        with torch.no_grad():
            share = len(rows) / self._global_rows
            # running statistics change by the mean over all rows; unchanged ones stay bit-exact
            moves = [torch.where(b == a, 0, b - a).mul_(share) for b, a in zip(buffers, before, strict=True)]
            shared = [values.mul_(share), *(g.mul_(share) for g in gradients.values()), *moves]
            self.settings.reduce(shared)
            for b, a, move in zip(buffers, before, moves, strict=True):
                b.copy_(a + move)
            if self.settings.watch is not None:
                self.settings.watch(gradients)
            self._update(gradients, numbers)
        return values

    @property
    def _uncompiled(self) -> Callable[..., Tensor]:
        """The step as it runs if it is not one compiled graph."""
        if self.settings.reduce is not None:
            return self._split
        return self._parts if self.apart else self._whole

    # --- what the loop calls ------------------------------------------------------------------------------------

    def compiled(self) -> None:
        """Compile the step; or its gradients if the update is apart from them, as with several processes."""
        if self.settings.reduce is None and not self.apart:
            run, device = whole_graph(self._whole), self.settings.device
            self._run = Replayed(run, CudaGraph(device)) if device.type == "cuda" else run
        else:
            self._gradients = whole_graph(self._gradients)  # type: ignore[method-assign, assignment]

    def eager(self) -> None:
        """Undo `compiled`."""
        self._run = None
        self.__dict__.pop("_gradients", None)

    def step(
        self,
        raw: Tensor,
        step: int,
        lr_factor: float,
        rows: Tensor | None = None,
        global_rows: int | None = None,
        c: Tensor | None = None,
        y: Tensor | None = None,
        scheduled: int | None = None,
    ) -> Tensor:
        """Train one step on raw rows (B, *event); returns the values of `self.stats`, float32, on the device.

        `rows` are the positions of the rows in the global batch of `global_rows`, if this process has only a part.
        `scheduled` is the step for the objective's schedules, if it is not `step`.
        """
        device = self.settings.device
        rows = torch.arange(len(raw), device=device) if rows is None else rows
        self._global_rows = global_rows or len(rows)
        seed = self.settings.seed
        uses = [StepKey.OBSERVE, StepKey.TRAIN, *([StepKey.AUGMENT] if self.settings.augment is not None else [])]
        now = step if scheduled is None else scheduled
        keys = sent(torch.tensor([*(fold(seed, step, use) for use in uses), now]), device)
        numbers: list[float] = []
        for group, rule in self.rules.items():
            lr = t.lr if (t := self.tuning.get(group)) else self.settings.lr * lr_factor
            numbers += rule.coefficients(lr, step + 1)
        ema = self.settings.ema or 0.0
        numbers.append(1 - min(ema, (1 + step) / (10 + step)))
        run = self._run or self._uncompiled
        given = raw, keys, rows, c, y, sent(torch.tensor(numbers), device)
        if isinstance(run, WholeGraph) and not run.draws:
            return run(*given)
        # layers such as dropout draw from torch's generator, which is therefore seeded by the step
        with seeded(fold(seed, step, StepKey.LAYERS) & (2**63 - 1), device):
            return run(*given)

    def tensors(self) -> dict[str, Tensor]:
        """The state of training as tensors by name: weights, buffers, optimiser states and averages.

        Indices and masks that the model does not save are left out: they follow from its settings.
        """
        saved = set(self.module.state_dict())
        named = ((n, b) for n, b in self.module.named_buffers() if n in saved or b.is_floating_point())
        buffers = {f"buffer/{n}": b for n, b in named}
        memory = {f"memory/{n}/{i}": t for n, ts in self.memory.items() for i, t in enumerate(ts)}
        average = {f"average/{n}": t for n, t in self.average.items()}
        return {**{f"weight/{n}": p for n, p in self.parameters.items()}, **buffers, **memory, **average}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore the state that `tensors` returned, also in an earlier version, which included indices and masks.

        Raises:
            TrainingError: the tensors do not fit this model and its training, or are damaged.
        """
        mine = self.tensors()
        kept = {n: t for n, t in tensors.items() if n in mine or t.is_floating_point() or not n.startswith("buffer/")}
        wrong = sorted(set(mine) ^ set(kept)) or [n for n, t in mine.items() if t.shape != kept[n].shape]
        wrong = wrong or [n for n, t in mine.items() if t.is_floating_point() != kept[n].is_floating_point()]
        if wrong:
            raise TrainingError(f"the checkpoint does not fit this model and its training ({', '.join(wrong[:3])})")
        for n, t in mine.items():
            may_be_nan = n.startswith("buffer/") and not n.startswith("buffer/observation.")
            if not may_be_nan and not bool(torch.isfinite(kept[n]).all()):
                raise TrainingError(f"the checkpoint is damaged: {n} is not finite everywhere")
            t.copy_(kept[n])
        if not self.module.observation.sound:
            raise TrainingError("the checkpoint is damaged: its observation is one that no data give")

    def weights_to_use(self) -> dict[str, Tensor]:
        """The weights for evaluation: running averages where they are kept, plus buffers."""
        weights = {n: self.average.get(n, p) for n, p in self.parameters.items()}
        kept = set(self.module.state_dict())
        names = {id(p): n for n, p in self.module.named_parameters()}
        # the parameters of a layer that the model contains twice have two names
        tied = {n: weights[names[id(p)]] for n, p in self.module.named_parameters(remove_duplicate=False)}
        return {**tied, **{n: b for n, b in self.module.named_buffers(remove_duplicate=False) if n in kept}}

    @contextlib.contextmanager
    def using(self) -> Iterator[nn.Module]:
        """The module in evaluation mode with the weights to use; afterwards the weights of training are restored."""
        weights = self.weights_to_use()
        before = {n: self.parameters[n].clone() for n in self.parameters}
        training = self.module.training
        try:
            for n, p in self.parameters.items():
                p.copy_(weights[n])
            self.module.eval()
            yield self.module
        finally:
            for n, p in self.parameters.items():
                p.copy_(before[n])
            self.module.train(training)
