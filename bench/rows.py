"""Score a million rows through Dask, and time a row: `python bench/rows.py`.

    python bench/rows.py [--rows 1000000] [--samples 20] [--partitions 20] [--workers 2]

Trains a small model on a table of 8 columns, writes the rows as Parquet in partitions, and scores each partition in its
own task, which opens the run once per process. Prints the time per row and the largest memory of a worker, and the time
per row of one `run.score` on a tenth of the rows. Nothing is kept.
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

import vaekit as vk

COLUMNS = 8


def made(n: int, seed: int) -> pd.DataFrame:
    """Rows of a mixture of four Gaussians."""
    rng = np.random.default_rng(seed)
    centres = 3 * np.random.default_rng(0).normal(size=(4, COLUMNS))
    x = centres[rng.integers(0, 4, n)] + rng.normal(size=(n, COLUMNS))
    return pd.DataFrame(x, columns=[f"x{i}" for i in range(COLUMNS)])


@functools.cache
def opened(path: str) -> vk.Run:
    return vk.open(path)


def scored(part: pd.DataFrame, path: str, samples: int) -> pd.DataFrame:
    """log p(x) of the rows of a partition, and the memory of this process in MB."""
    log_px = opened(path).score(part, samples=samples)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pd.DataFrame({"log_px": log_px, "memory": memory}, index=part.index)


def main() -> None:
    import dask
    import dask.dataframe as dd

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--partitions", type=int, default=20)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        made(20_000, 1).to_csv(place / "train.csv", index=False)
        run = vk.fit(str(place / "train.csv"), out=place / "run", steps=2000, progress=False)
        (place / "rows").mkdir()
        for i in range(asked.partitions):
            made(asked.rows // asked.partitions, 2 + i).to_parquet(place / "rows" / f"{i:04d}.parquet")
        alone = made(asked.rows // 10, 2)
        begun = time.perf_counter()
        run.score(alone, samples=asked.samples)
        alone_us = 1e6 * (time.perf_counter() - begun) / len(alone)
        begun = time.perf_counter()
        with dask.config.set(scheduler="processes", num_workers=asked.workers):
            table = dd.read_parquet(place / "rows")
            meta = {"log_px": "float64", "memory": "float64"}
            found = table.map_partitions(scored, str(run.path), asked.samples, meta=meta).compute()
        seconds = time.perf_counter() - begun
    assert np.isfinite(found.log_px).all()
    print(f"{len(found):,} rows, K = {asked.samples}, {asked.workers} processes: {seconds:.1f} s,", end=" ")
    print(f"{1e6 * seconds / len(found):.1f} us per row; at most {found.memory.max():.0f} MB per process")
    print(f"run.score on {len(alone):,} rows in one process: {alone_us:.1f} us per row")


if __name__ == "__main__":
    main()
