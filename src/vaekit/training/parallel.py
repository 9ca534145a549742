"""Training with several processes that share a global batch, by lightning-fabric; only gradients are summed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.runs.processes import place, processes_here

FEW = 8
"""Number of processes allowed on any machine, even with fewer cores."""


def launch(devices: int, device: str, batch: int) -> Any:
    """A launched Fabric for several processes (`devices` above 1, or under torchrun), else None.

    The other processes run the same program from its start; each loads the data and builds the same model. With
    torchrun they may be on several machines, which must see the same run directory.

    Raises:
        ChoiceError: `devices` exceeds the number of devices or of the rows of a batch, or lightning-fabric is not
            installed.
    """
    _, world = place()
    if max(devices, world) == 1:
        return None
    if batch < max(devices, world):  # the mean over no rows is not a number
        raise ChoiceError(
            f"a batch has {batch} rows, fewer than the {max(devices, world)} processes that share it: use a larger "
            "`batch` or fewer `devices`"
        )
    here, machines = processes_here() if world > 1 else (devices, 1)
    kind = device.split(":")[0]
    _check_number(here, kind)
    try:
        from lightning_fabric import Fabric
    except ImportError:
        raise ChoiceError("`devices` above 1 needs lightning-fabric: pip install 'vaekit[parallel]'") from None
    fabric = Fabric(accelerator=kind, devices=here, num_nodes=machines, strategy="ddp")
    fabric.launch()
    return fabric


def _check_number(devices: int, kind: str) -> None:
    """Raise ChoiceError for more processes than the machine can run; a run from another machine may ask for more."""
    if kind == "cuda":
        most, of_what = torch.cuda.device_count(), "GPUs"
    else:
        most, of_what = max(FEW, os.cpu_count() or 1), "processes"
    if devices > most:
        raise ChoiceError(f"`devices` is {devices}, but training on this machine can use at most {most} {of_what}")


def is_first(devices: int = 1) -> bool:
    """Whether this process has rank 0 among those that train together; works before Fabric is launched."""
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1 or devices > 1
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return not together or next((os.environ[n] for n in names if n in os.environ), "0") == "0"


def rank_and_world(fabric: Any) -> tuple[int, int]:
    """The rank of this process and the number of processes."""
    return (0, 1) if fabric is None else (fabric.global_rank, fabric.world_size)


def reducer(fabric: Any) -> Callable[[list[Tensor]], None] | None:
    """A function that sums tensors over the processes in place, in one message; None for a single process."""
    if fabric is None:
        return None

    def reduce(tensors: list[Tensor]) -> None:
        flat = torch.cat([t.reshape(-1).float() for t in tensors])
        total = fabric.all_reduce(flat, reduce_op="sum")
        for t, part in zip(tensors, total.split([t.numel() for t in tensors]), strict=True):
            t.copy_(part.reshape(t.shape))

    return reduce
