"""Data that are larger than they may be in memory: no step of reading and training copies them."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from vaekit.data import batches, load
from vaekit.data.batches import Order, Rows
from vaekit.data.observation import Standardised


def private() -> int:
    """Bytes of memory of this process without mapped files."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured through /proc")
def test_a_file_of_400_mb_is_read_in_less_than_half_of_it(tmp_path):
    n, dims = 100_000, 1000
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "f4", (n, dims))  # mostly holes, which take no disk
    x[::50] = np.random.default_rng(0).normal(size=(len(x[::50]), dims))
    x.flush()
    del x
    most, over = [before := private()], threading.Event()

    def watch():
        while not over.wait(0.01):
            most.append(private())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        data = load(tmp_path / "x.npy", kind="vector")
        rows, order = Rows(data, data.train), Order(len(data.train), 64, 0)
        seen = Standardised((dims,))
        seen.fit(lambda: (rows(torch.arange(a, a + 1000)) for a in range(0, 80_000, 1000)))
        batch = rows(order.rows(3))
    finally:
        over.set()
        watcher.join()
    assert rows.resident is None
    assert max(most) - before < 200e6
    np.testing.assert_array_equal(batch.numpy(), data.train[order.rows(3).numpy()])


def test_small_splits_are_kept_in_memory_and_large_ones_read(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 4)))
    data = load(tmp_path / "x.npy")
    assert Rows(data, data.train).resident is not None
    monkeypatch.setattr(batches, "RESIDENT", 100)
    assert Rows(data, data.train).resident is None
