"""Measure the speed and size of the explorer's page: `make bench-explorer`.

Uses two runs: `vae` on Fashion-MNIST with all its points, and `conv` with 512 latents on generated 64x64x3 pictures.
They are trained for a few steps only, since speed does not depend on quality. Their pages are opened from a file in
Chromium without a GPU. Writes docs/explorer.md.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

import vaekit as vk
from vaekit.utils.files import write_text

HERE = Path(__file__).parent
RUNS = HERE / ".runs" / "explorer"
DOCS = HERE.parent / "docs"
DECODES, FRAMES = 60, 60
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]

DECODE = """async (n) => {
    const D = vaekit.meta.latent.dims, z = new Float32Array(D);
    await vaekit.decode("bench", z);
    const start = performance.now();
    for (let k = 0; k < n; k++) { z[0] = Math.sin(k); await vaekit.decode("bench", z); }
    return n / ((performance.now() - start) / 1000);
}"""
DRAG = """async (n) => {  // change the code at every frame, as dragging does, and count the pictures shown
    const D = vaekit.meta.latent.dims, before = vaekit.timing.decodes, start = performance.now();
    for (let k = 0; k < n; k++) {
        vaekit.change({ z: Float32Array.from({ length: D }, (_, i) => Math.sin(k / 9 + i)), anchor: -1 });
        await new Promise(requestAnimationFrame);
    }
    return (vaekit.timing.decodes - before) / ((performance.now() - start) / 1000);
}"""
PAN = """async (n) => {
    const times = [];
    let last = performance.now();
    for (let k = 0; k < n; k++) {
        vaekit.plot.zoom(k % 2 ? 1.02 : 1 / 1.02);
        await new Promise(requestAnimationFrame);
        const now = performance.now();
        times.push(now - last);
        last = now;
    }
    return times.sort((a, b) => a - b)[n >> 1];
}"""


def fashion() -> vk.Run:
    path = RUNS / "fashion"
    return vk.open(path) if path.exists() else vk.fit("fashion-mnist", "vae", out=path, steps=50, progress=False)


def colour() -> vk.Run:
    rng = np.random.default_rng(0)
    shape = rng.integers(0, 256, (400, 4, 4, 3)).repeat(16, 1).repeat(16, 2).astype(np.uint8)
    data, path = vk.from_arrays(shape), RUNS / "colour"
    if path.exists():
        return vk.open(path, data=data)
    return vk.fit(data, "conv", out=path, steps=2, compile="off", progress=False)


def measured(browser: Any, run: vk.Run) -> dict[str, float]:
    page = run.explore(run.path / "explorer.html")
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    start = time.perf_counter()
    tab.goto(f"file://{page.resolve()}")
    tab.wait_for_selector("body[data-ready]", timeout=120_000)
    numbers = {
        "size_mb": page.stat().st_size / 1e6,
        "points": tab.evaluate("vaekit.meta.limits.points"),
        "first_picture_s": time.perf_counter() - start,
        "decodes_s": tab.evaluate(DECODE, DECODES),
        "dragging_s": tab.evaluate(DRAG, DECODES),
        "frame_ms": tab.evaluate(PAN, FRAMES),
    }
    tab.close()
    return numbers


def main() -> None:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    rows = []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=program, args=FLAGS)
        for name, run in (("`vae`, Fashion-MNIST", fashion()), ("`conv`, 64x64x3, 512 latents", colour())):
            m = measured(browser, run)
            cells = (f"{m['size_mb']:.1f}", f"{m['points']:,}", f"{m['first_picture_s']:.1f}")
            speeds = (f"{m[n]:.0f}" for n in ("decodes_s", "dragging_s", "frame_ms"))
            rows.append(f"| {' | '.join([name, *cells, *speeds])} |")
            print(rows[-1], flush=True)
        version = browser.version
        browser.close()
    lines = [
        "# The explorer's page: speed and size",
        "",
        f"Made by `make bench-explorer` with Chromium {version}, without a GPU, on {os.cpu_count()} cores; the load",
        f"average was {os.getloadavg()[0]:.1f} at the end. Pages were opened from a file.",
        "",
        "| run | MB | points | first picture, s | decodes per s | pictures per s, dragging | ms per map frame |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        "*Decodes* are sequential. While *dragging*, the [code](glossary.md#code) changes at every frame of",
        "the screen, at most 60 times per second. *Map frame* is the time between two frames while zooming.",
        "",
    ]
    write_text(DOCS / "explorer.md", "\n".join(lines))


if __name__ == "__main__":
    main()
