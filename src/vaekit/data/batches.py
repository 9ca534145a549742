"""The row numbers of each batch, and the raw rows as tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vaekit.noise import StepKey, fold
from vaekit.utils.cuda import sent

from .core import BLOCK, Computed, Data, Split


class Order:
    """An endless sequence of shuffled epochs, cut into batches of exactly `batch` rows.

    Batch `step` is a pure function of (seed, step): it starts at position step * batch of the concatenated
    permutations. A batch may span two epochs, so that every batch is full and every row is used equally often.

    Arguments:
        n: number of rows.
        batch: rows per batch; at most n are used.
        seed: seed of the permutations.
    """

    def __init__(self, n: int, batch: int, seed: int):
        self.n, self.batch, self.seed = n, min(batch, n), seed
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.long)

    def permutation(self, epoch: int) -> Tensor:
        """The order of the rows in an epoch, int64 (n,)."""
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(fold(self.seed, epoch, StepKey.BATCHES) & (2**63 - 1))
            self._epoch, self._permutation = epoch, torch.randperm(self.n, generator=generator)
        return self._permutation

    def rows(self, step: int) -> Tensor:
        """The row numbers of batch `step`, int64 (batch,)."""
        epoch, offset = divmod(step * self.batch, self.n)
        head = self.permutation(epoch)[offset : offset + self.batch]
        missing = self.batch - len(head)
        return torch.cat([head, self.permutation(epoch + 1)[:missing]]) if missing else head


RESIDENT = 256 * 2**20
"""Bytes of a split up to which its rows are copied into memory for training on a CPU; more are read batch by batch."""


def _most_resident(device: torch.device) -> float:
    if device.type != "cuda":
        return RESIDENT
    return torch.cuda.get_device_properties(device).total_memory / 4


class Rows:
    """Raw rows by number as a tensor (n, *event), kept on the device if they fit, else read from the source.

    Arguments:
        data, split: the data set and the split with the rows.
        device: device of the tensors.
        resident_bytes: maximum size in bytes of a split that is kept on the device; by default 256 MiB, or a quarter of
            the memory of a CUDA device.
    """

    def __init__(
        self, data: Data, split: Split, device: torch.device | str = "cpu", resident_bytes: float | None = None
    ):
        self.data, self.split, self.device = data, split, torch.device(device)
        self.resident: Tensor | None = None
        most = _most_resident(self.device) if resident_bytes is None else resident_bytes
        computed = isinstance(split.raw, Computed) and not split.raw.resident
        if not computed and split.raw[:1].nbytes * len(split) <= most:
            self.resident = self._all()

    def _all(self) -> Tensor:
        """All rows on the device; they are read in blocks, so that memory never holds them twice."""
        block, whole = max(1, BLOCK // max(1, self.split.raw[:1].nbytes)), torch.empty(0)
        for a in range(0, len(self.split), block):
            rows = torch.from_numpy(np.ascontiguousarray(self.data.events(self.split[a : a + block])))
            if a == 0:
                whole = torch.empty((len(self.split), *rows.shape[1:]), dtype=rows.dtype, device=self.device)
            whole[a : a + block] = rows
        return whole

    def __call__(self, rows: Tensor) -> Tensor:
        if self.resident is not None:
            return self.resident.index_select(0, sent(rows, self.device))
        events = self.data.events(self.split[rows.numpy()])
        return sent(torch.from_numpy(np.ascontiguousarray(events)), self.device)
