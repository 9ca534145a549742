"""Calling a module with other tensors in place of its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def places(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by the path of the submodule that stores it.

    A submodule that is reachable by two paths (such as the posterior, also part of a VampPrior) is listed under the
    first; a tensor that two submodules share is listed twice.
    """
    return {
        f"{path}.{name}" if path else name: tensor
        for path, part in module.named_modules()
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]
        if tensor is not None
    }


def call(module: nn.Module, tensors: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """`module(*args, **kwargs)` with `tensors`, by their names in `places`, instead of its parameters.

    `tie_weights` is off: with it, torch swaps a submodule that is reachable by two paths twice and restores the
    swapped tensors instead of the parameters.
    """
    return functional_call(module, dict(tensors), args, kwargs, tie_weights=False)
