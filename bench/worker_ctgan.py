"""Draw synthetic rows with CTGAN or TVAE of the package ctgan, at its own defaults: worker_ctgan.py MODEL SEED IN OUT

Runs in the peer's environment. IN (.npz) holds `x` (N, D), `discrete` (D,) and `whole` (D,); OUT gets `x` (N, D) and
the CPU seconds of training.
"""

import sys
import time

import numpy as np
import pandas as pd
import torch
from ctgan import CTGAN, TVAE


def main() -> None:
    model, seed, source, out = sys.argv[1:]
    with np.load(source) as file:
        x, discrete, whole = file["x"], file["discrete"], file["whole"]
    torch.set_num_threads(1)
    torch.manual_seed(int(seed))
    np.random.seed(int(seed))
    names = [f"c{j}" for j in range(x.shape[1])]
    frame = pd.DataFrame({n: x[:, j].astype(int) if discrete[j] or whole[j] else x[:, j] for j, n in enumerate(names)})
    for j in np.flatnonzero(discrete):
        frame[names[j]] = frame[names[j]].astype(str)
    start = time.process_time()
    fitted = {"CTGAN": CTGAN, "TVAE": TVAE}[model](enable_gpu=False)
    fitted.fit(frame, [names[j] for j in np.flatnonzero(discrete)])
    seconds = time.process_time() - start
    drawn = fitted.sample(len(x))[names].astype(float).to_numpy()
    np.savez(out, x=drawn, seconds=seconds)


if __name__ == "__main__":
    main()
