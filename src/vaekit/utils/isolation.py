"""Contexts that protect vaekit from torch's global state: generators, autocast, gradient mode, default device."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

from vaekit.errors import ChoiceError

_generators = threading.RLock()


@contextlib.contextmanager
def seeded(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Seed torch's generators of the CPU and of `device`, and restore their states afterwards.

    A process has one generator per device: threads wait for each other, so that each draws the same numbers as alone.
    """
    device = torch.device(device)
    with _generators:
        before = torch.default_generator.get_state()
        if device.type == "cuda":
            device_state = torch.cuda.get_rng_state(device)
        elif device.type == "mps":
            device_state = torch.mps.get_rng_state()
        try:
            torch.default_generator.manual_seed(seed)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            elif device.type == "mps":
                torch.mps.manual_seed(seed)
            yield
        finally:
            torch.default_generator.set_state(before)
            if device.type == "cuda":
                torch.cuda.set_rng_state(device_state, device)
            elif device.type == "mps":
                torch.mps.set_rng_state(device_state)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Gradients on, and no inference mode, autocast or default device, whatever the caller has set.

    Raises:
        ChoiceError: torch's default dtype is not float32.
    """
    check_default_dtype()
    with contextlib.ExitStack() as contexts:
        contexts.enter_context(torch.inference_mode(False))
        contexts.enter_context(torch.enable_grad())
        contexts.enter_context(without_autocast())
        if torch.get_default_device().type != "cpu":
            contexts.enter_context(torch.device("cpu"))
        yield


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """No autocast, whatever the caller has set."""
    with contextlib.ExitStack() as contexts:
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                contexts.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextlib.contextmanager
def in_full_precision() -> Iterator[None]:
    """No autocast, and no TF32 in convolutions, whatever the caller has set.

    By default, torch computes convolutions in float32 on a CUDA device by TF32, which keeps 10 of 23 bits.
    """
    conv = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # mypy sees the module behind it
    precision = conv.fp32_precision
    try:
        allowed: bool | None = torch.backends.cudnn.allow_tf32
    except RuntimeError:  # the caller has used the newer setting, which torch does not allow to be mixed with this one
        allowed = None
    with without_autocast():
        try:
            if allowed is None:
                conv.fp32_precision = "ieee"
            elif allowed:
                torch.backends.cudnn.allow_tf32 = False
            yield
        finally:
            if allowed is None:
                conv.fp32_precision = precision
            elif allowed:
                torch.backends.cudnn.allow_tf32 = True


def check_default_dtype() -> None:
    """Raise ChoiceError unless torch's default dtype is float32, the dtype that vaekit computes in."""
    if torch.get_default_dtype() != torch.float32:
        raise ChoiceError(
            f"torch's default dtype is {torch.get_default_dtype()}, and vaekit computes in float32: call "
            "torch.set_default_dtype(torch.float32) first"
        )
