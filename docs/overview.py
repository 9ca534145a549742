"""Make the README's first picture from a trained run: python docs/overview.py RUN.

Top: test images and their reconstructions. Middle: decoder means of samples from the prior. Bottom: an interpolation
between two test images.
"""

import sys
from pathlib import Path

import numpy as np

import vaekit as vk
from vaekit.figures import channels_last, image_grid, save_png, to_uint8
from vaekit.latents.paths import interpolate

COLUMNS = 14


def main(path: str) -> None:
    run = vk.open(path)
    data, scale = run.data, run.spec.scale
    rows = np.array([int(np.flatnonzero(data.test.label == i % 10)[i // 10]) for i in range(COLUMNS)])
    raw = data.events(data.test[rows])
    z = run.encode("test", rows=rows)
    between = run.decode(interpolate(z[2], z[9], steps=COLUMNS))
    bands = [np.concatenate([raw, run.decode(z)]), run.sample(3 * COLUMNS, seed=4), between]
    pictures = [image_grid(to_uint8(channels_last(band), scale), COLUMNS, gap=2, zoom=2) for band in bands]
    space = np.full((14, pictures[0].shape[1], 3), 255, np.uint8)
    save_png(
        Path(__file__).parent / "images" / "overview.png",
        np.concatenate([pictures[0], space, pictures[1], space, pictures[2]]),
    )


if __name__ == "__main__":
    main(sys.argv[1])
