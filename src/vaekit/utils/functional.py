"""Calling a module with other tensors in the place of its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def places(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by the one place where it is stored, whole paths as names.

    A submodule that stands in two places (a Vamp prior's posterior) is listed under the first; a tensor that two
    submodules share is listed twice.
    """
    return {
        f"{path}.{name}" if path else name: tensor
        for path, part in module.named_modules()
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]
        if tensor is not None
    }


def call(module: nn.Module, tensors: Mapping[str, Tensor], *given: Any, **named: Any) -> Any:
    """`module(*given, **named)` with `tensors` in these `places`.

    torch's own untying is left out: it swaps a submodule that stands in two places twice, and then puts back the
    swapped tensors instead of the parameters.
    """
    return functional_call(module, dict(tensors), given, named, tie_weights=False)
