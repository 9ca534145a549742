"""Make the packaged run src/vaekit/runs/example/: `python tools/example.py` (two minutes on 2 cores).

It is a small VAE trained on Fashion-MNIST with the options of `vaekit fit`, without checkpoints. The package does not
include the data, so the first test images and a t-SNE map of their codes are stored with the run.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np

import vaekit as vk
from vaekit.explorer.maps import tsne
from vaekit.explorer.points import SHOWN

EXAMPLE = Path(__file__).parents[1] / "src/vaekit/runs/example"
KEPT = ("run.json", "log.jsonl", "metrics.json", "model.safetensors", "splits.safetensors")
SHOW = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.2)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        run = vk.fit("fashion-mnist", "vae", out=Path(folder) / "example", minutes=minutes, latent=10, hidden=(128,))
        run.evaluate(samples=100, n=1000)
        for name in KEPT:
            shutil.copyfile(run.path / name, EXAMPLE / name)
        z = run.encode("test", n=SHOW)
        test = run.data.test
        assert test.label is not None
        shown = {
            "x": test[:SHOW],
            "label": test.label[:SHOW].astype(np.uint8),
            "row": np.arange(SHOW, dtype=np.int32),
            "tsne": tsne(z, np.ones(z.shape[1], bool), SHOW, lambda *_: None).astype(np.float16),
        }
        np.savez_compressed(EXAMPLE / SHOWN, **shown)  # type: ignore[arg-type]
    size = sum(f.stat().st_size for f in EXAMPLE.iterdir() if f.is_file())
    print(f"{EXAMPLE}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
