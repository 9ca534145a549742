"""Optimiser updates as plain tensor arithmetic, so that a whole training step can be one compiled graph.

Each rule equals the class in torch.optim with the same name (a test compares them) and updates in place. Numbers that
depend only on the step (bias corrections, the learning rate) are computed outside and passed as a tensor of
coefficients, so that the graph does not change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.utils.suggest import unknown


class Optimiser(ABC):
    """The update rule of a parameter group; abstract.

    Attributes:
        slots: number of state tensors per parameter, each of its shape.
        fuses: whether the update can be part of a compiled graph.
    """

    slots: int = 0
    fuses: bool = True

    def __init__(self, weight_decay: float = 0.0):
        self.weight_decay = weight_decay

    def state(self, parameters: Sequence[Tensor]) -> list[list[Tensor]]:
        """The initial state: `slots` tensors of zeros for each parameter."""
        return [[torch.zeros_like(p) for _ in range(self.slots)] for p in parameters]

    @abstractmethod
    def coefficients(self, lr: float, t: int) -> list[float]:
        """The scalars of update number t = 1, 2, ... at learning rate `lr`."""

    @abstractmethod
    def update(self, p: Tensor, g: Tensor, state: Sequence[Tensor], c: Tensor) -> None:
        """Update the parameter `p` with gradient `g`, and its state, in place; `c` are the coefficients."""

    def _decayed(self, p: Tensor, g: Tensor) -> Tensor:
        """The gradient plus that of the L2 penalty."""
        return g + self.weight_decay * p if self.weight_decay else g


class SGD(Optimiser):
    """Plain stochastic gradient descent."""

    def coefficients(self, lr: float, t: int) -> list[float]:
        return [lr]

    def update(self, p: Tensor, g: Tensor, state: Sequence[Tensor], c: Tensor) -> None:
        p.sub_(c[0] * self._decayed(p, g))


class Adagrad(Optimiser):
    """Duchi, Hazan and Singer (2011)."""

    slots = 1

    def coefficients(self, lr: float, t: int) -> list[float]:
        return [lr]

    def update(self, p: Tensor, g: Tensor, state: Sequence[Tensor], c: Tensor) -> None:
        (total,) = state
        g = self._decayed(p, g)
        total.add_(g * g)
        p.sub_(c[0] * g / (total.sqrt() + 1e-10))


class Adam(Optimiser):
    """Kingma and Ba (2015)."""

    slots = 2

    def __init__(self, weight_decay: float = 0.0, beta1: float = 0.9, beta2: float = 0.999):
        super().__init__(weight_decay)
        self.beta1, self.beta2 = beta1, beta2

    def coefficients(self, lr: float, t: int) -> list[float]:
        return [lr / (1 - self.beta1**t), (1 - self.beta2**t) ** -0.5, 1 - lr * self.weight_decay, lr, t]

    def update(self, p: Tensor, g: Tensor, state: Sequence[Tensor], c: Tensor) -> None:
        if p.device.type != "cpu" or torch.compiler.is_compiling() or not p.is_contiguous():
            self.arithmetic(p, g, state, c)
            return
        mean, square = state
        self.kernel(
            [p], [g.contiguous()], [mean], [square], [], [c[4]], lr=c[3], beta1=self.beta1, beta2=self.beta2,
            weight_decay=self.weight_decay, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip

    kernel = staticmethod(torch._fused_adam_)
    """The update in one pass over memory, which must be contiguous: the kernel does not look at strides.

    The single operations of `arithmetic` take a dozen passes unless they are fused.
    """

    def arithmetic(self, p: Tensor, g: Tensor, state: Sequence[Tensor], c: Tensor) -> None:
        """The update in operations that a compiled graph fuses."""
        mean, square = state
        g = self._decayed(p, g)
        mean.lerp_(g, 1 - self.beta1)
        square.lerp_(g * g, 1 - self.beta2)
        p.sub_(c[0] * mean / (square.sqrt() * c[1] + 1e-8))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    kernel = staticmethod(torch._fused_adamw_)

    def _decayed(self, p: Tensor, g: Tensor) -> Tensor:
        return g

    def arithmetic(self, p: Tensor, g: Tensor, state: Sequence[Tensor], c: Tensor) -> None:
        if self.weight_decay:
            p.mul_(c[2])
        super().arithmetic(p, g, state, c)


class Adamax(Adam):
    """The variant of Adam with an infinity norm (Kingma and Ba 2015, section 7)."""

    def update(self, p: Tensor, g: Tensor, state: Sequence[Tensor], c: Tensor) -> None:
        mean, largest = state
        g = self._decayed(p, g)
        mean.lerp_(g, 1 - self.beta1)
        largest.copy_(torch.maximum(largest * self.beta2, g.abs() + 1e-8))
        p.sub_(c[0] * mean / largest)


OPTIMISERS: dict[str, type[Optimiser]] = {
    "sgd": SGD,
    "adagrad": Adagrad,
    "adam": Adam,
    "adamw": AdamW,
    "adamax": Adamax,
}


def optimiser(name: str, weight_decay: float = 0.0, **options: float) -> Optimiser:
    """The rule with this name, in upper or lower case. Raises ChoiceError for an unknown name."""
    if name.lower() not in OPTIMISERS:
        raise ChoiceError(unknown("`optimiser`", name, OPTIMISERS))
    return OPTIMISERS[name.lower()](weight_decay, **options)


def overshot(stats: Sequence[str], values: Tensor, lr: float) -> str | None:
    """A warning if the first steps increased the loss a lot and training has not recovered; else None.

    Arguments:
        stats: names of the columns of `values`.
        values: (steps, len(stats)), from the first step.
        lr: the learning rate.
    """
    if len(values) < 20 or not {"elbo", "loss/model"} <= set(stats):
        return None
    bound = values[:, stats.index("elbo")]
    loss = values[:, stats.index("loss/model")]  # with a KL weight near 0, the ELBO alone may fall in a sound run
    fallen, risen = float(bound[0] - bound[-10:].mean()), float(loss[-10:].mean() - loss[0])
    if fallen <= max(1.0, abs(float(bound[0]))) or risen <= max(1.0, abs(float(loss[0]))):
        return None
    return (
        f"the first steps at `lr={lr:g}` overshot: after {len(values)} steps the training ELBO is {fallen:,.0f} nats "
        f"below its value at the first step, and training may not recover; try a smaller rate such as `lr={lr / 10:g}`"
    )
