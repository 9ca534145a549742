"""The cost of a training step on this machine, and the choices that depend on it: device, precision, compilation."""

from __future__ import annotations

import contextlib
import copy
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vaekit.errors import ChoiceError
from vaekit.noise import Noise
from vaekit.objectives import Batch
from vaekit.recipes.composition import Composition
from vaekit.utils.compiled import has_compiler
from vaekit.utils.isolation import seeded


def choose_device(name: str, double: bool = False) -> torch.device:
    """The device with this name; for `auto`, CUDA, else MPS (unless float64 is needed, `double`), else CPU.

    Raises:
        ChoiceError: the device is unavailable, or lacks float64.
    """
    if double and name.startswith("mps"):
        raise ChoiceError("these data need float64, which `device='mps'` lacks: use cpu or cuda")
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() and not double else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ChoiceError(f"`device={name!r}` cannot be used here ({reason}): use auto, cpu, cuda or mps") from None
    return device


@contextlib.contextmanager
def subnormals_as_zero() -> Iterator[None]:
    """Treat subnormal numbers (below 1e-38 in float32) as zero on a CPU inside this context.

    Optimiser states of weights without a gradient and negligible importance weights become subnormal. They do not
    affect training, but operations on them take ten times as long. A thread inherits the setting from the thread that
    starts it, so enter this context before the first large operation, which starts torch's worker threads.
    """
    before = float(torch.tensor(1e-310, dtype=torch.float64) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def bf16_pays(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 on this machine.

    On a CPU this is measured with a few products of a millisecond each: with AMX, bfloat16 is several times faster;
    with AVX-512 alone it can take twice as long, although both "support" it.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.cpu._is_avx512_bf16_supported():
        return False

    def seconds(dtype: torch.dtype) -> float:
        a, b = torch.ones(128, 1024, dtype=dtype), torch.ones(1024, 512, dtype=dtype)
        times = []
        for _ in range(12):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(torch.bfloat16) < 0.8 * seconds(torch.float32)


class Work(NamedTuple):
    """The cost of a training step.

    Attributes:
        dense, convolved: multiply-adds per example of the forward pass (encoder and decoder) outside convolutions, and
            in convolutions.
        operations: tensor operations that a step dispatches, forward and backward, for any batch size.
    """

    dense: int
    convolved: int
    operations: int = 300

    def seconds(self, batch: int, device: str = "cpu") -> float:
        """Approximate time of an eager step: 6 us per operation plus three passes at 100 GFLOP/s, or at 10 TFLOP/s.

        The latter is on a device of another type than `cpu`.
        """
        per_product = 6e-11 if device == "cpu" else 6e-13
        return 6e-6 * self.operations + per_product * (self.dense + self.convolved) * batch

    @property
    def convolutional(self) -> bool:
        """Whether most multiply-adds are in convolutions."""
        return self.convolved > self.dense

    @property
    def compilation(self) -> float:
        """Approximate time to compile the step for the first time on an idle machine, in seconds.

        Torch's code generator, which is in Python, and the C++ compiler take longer for more operations.
        """
        return 5.0 + 0.03 * self.operations


def work(composition: Composition, shape: Sequence[int]) -> Work:
    """The cost of a model, counted on zeros of this shape; the model is unchanged.

    If the model fails on these inputs, one multiply-add per parameter is assumed; the check of the first batch then
    reports the error.
    """
    model = composition.model
    size = composition.condition.size if composition.condition is not None else 0
    c = torch.zeros(2, size) if size else None
    training = {m: m.training for m in model.modules()}
    model.eval()
    try:
        with seeded(0), Count() as count:
            x = composition.observation(torch.zeros(2, *shape), Noise.of(0, 2)).detach()
            model.decode(model.encode(x[:1], None if c is None else c[:1]))
    except Exception:
        return Work(sum(p.numel() for p in model.parameters()), 0)
    finally:
        for module, mode in training.items():
            module.training = mode
    return Work(count.dense, count.convolved, _operations(composition, x, c))


class Count(TorchDispatchMode):
    """Counts tensor operations, and their multiply-adds outside convolutions and in them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.dense = self.convolved = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here; True would import torch's compiler, which takes 3 s

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        from torch.utils.flop_counter import flop_registry

        result = func(*args, **(kwargs or {}))
        self.count += 1
        if (flops := flop_registry.get(func._overloadpacket)) is not None:
            multiplied = flops(*args, **(kwargs or {}), out_val=result) // 2
            if "convolution" in str(func):
                self.convolved += multiplied
            else:
                self.dense += multiplied
        return result


def _operations(composition: Composition, x: Tensor, c: Tensor | None) -> int:
    """Operations of a training step, forward and backward, counted on two examples and a copy of the model."""
    model, objective = copy.deepcopy((composition.model, composition.objective))
    y = torch.zeros(len(x), dtype=torch.long) if composition.targets is not None else None
    try:
        with seeded(0), Count() as count:
            losses = objective(model, Batch(x, Noise.of(0, len(x)), c, y), torch.zeros(())).losses
            parameter_groups = objective.parameter_groups(model)
            for name, loss in losses.items():
                if loss.requires_grad and parameter_groups[name]:
                    torch.autograd.grad(loss, parameter_groups[name], retain_graph=True, allow_unused=True)
    except Exception:
        return 50 * sum(bool(list(m.parameters(recurse=False))) for m in model.modules())
    return count.count


def crowding() -> float:
    """By how much other programs slow down a thread here, estimated from the load of the last minute; 1 or more."""
    try:
        return max(1.0, (os.getloadavg()[0] + 1) / (os.cpu_count() or 1))
    except (AttributeError, OSError):  # Windows
        return 1.0


def decide_compile(
    asked: str, steps: float, cost: Work, batch: int, device: torch.device, crowded: float = 1.0
) -> tuple[bool, str]:
    """Whether to compile the step, and the reason; a cost model estimates the time that compiling saves in this run.

    Compilation saves 2/5 of the time that an eager step spends outside convolutions: 6 us per operation plus matrix
    products at 100 GFLOP/s (on a GPU, the operations only). Convolutional models take longer on a CPU if compiled: see
    docs/conv-speed.md. Beside other programs, compiling takes `crowded` times as long. The decision is recorded,
    because compiled and eager weights differ in the last bits.
    """
    if asked == "off":
        return False, "as requested"
    if device.type == "cpu" and not has_compiler():
        if asked == "on":
            raise ChoiceError("`compile='on'` needs a C++ compiler (g++): install one, or use `compile='auto'`")
        return False, "no C++ compiler here"
    if asked == "on":
        return True, "as requested"
    if device.type == "mps":
        return False, "not on MPS"
    if device.type == "cpu" and cost.convolutional:
        return False, "convolutions are not faster when compiled"
    saves = 0.4 * steps * cost._replace(convolved=0, dense=cost.dense if device.type == "cpu" else 0).seconds(batch)
    price = crowded * cost.compilation
    if saves < price:
        return False, f"compiling would take about {price:.0f} s and save {saves:.0f} s"
    return True, f"compiling takes about {price:.0f} s and saves {saves:.0f} s"
