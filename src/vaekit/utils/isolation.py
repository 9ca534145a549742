"""What torch keeps for a whole process or thread, held still for as long as something depends on it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

from vaekit.errors import ChoiceError

_generators = threading.RLock()


@contextlib.contextmanager
def seeded(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Torch's generators (of the CPU, and of `device`) seeded, and afterwards as they were.

    A process has one generator a device: threads take turns, so that each draws what it would draw alone.
    """
    device = torch.device(device)
    with _generators:
        before = torch.default_generator.get_state()
        if device.type == "cuda":
            there = torch.cuda.get_rng_state(device)
        elif device.type == "mps":
            there = torch.mps.get_rng_state()
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
                torch.cuda.set_rng_state(there, device)
            elif device.type == "mps":
                torch.mps.set_rng_state(there)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Gradients on, no inference mode, no autocast and no default device, whatever the caller has around this.

    Raises:
        ChoiceError: torch's default dtype is not float32.
    """
    check_default_dtype()
    with contextlib.ExitStack() as held:
        held.enter_context(torch.inference_mode(False))
        held.enter_context(torch.enable_grad())
        held.enter_context(in_full_precision())
        if torch.get_default_device().type != "cpu":
            held.enter_context(torch.device("cpu"))
        yield


@contextlib.contextmanager
def in_full_precision() -> Iterator[None]:
    """No autocast, whatever the caller has around this."""
    with contextlib.ExitStack() as held:
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                held.enter_context(torch.autocast(kind, enabled=False))
        yield


def check_default_dtype() -> None:
    """Raises ChoiceError unless torch's default dtype is float32, in which vaekit computes."""
    if torch.get_default_dtype() != torch.float32:
        raise ChoiceError(
            f"torch's default dtype is {torch.get_default_dtype()}, and vaekit computes in float32: call "
            "torch.set_default_dtype(torch.float32) first"
        )
