"""Compare the bytes of data compressed by a run with those of general programs: python bench/bytes.py [--minutes M]

Sets: the 10,000 test images of Fashion-MNIST and of MNIST, each as a fixed binary draw (pixels are 1 with probability
value / 255) and with all 8 bits, and rows of Adult (https://doi.org/10.24432/C5XW20, `--adult adult.csv`) with its
numbers as counts. A run is trained on the training split of each for `--minutes` (10), with default settings but for
the likelihood; MNIST is named data, or `--mnist FOLDER` with its IDX files.

The others get the same test data as one file: binary images packed to one bit per pixel, 8-bit images one byte per
pixel, the table as CSV text. gzip, bz2 and xz are those of Python at their highest levels, zstd is at level 19 (the
module `compression.zstd` of Python 3.14, the package zstandard, or the program zstd; left out if there is none). PNG
(optimised) and WebP (lossless, method 6, quality 100) are Pillow's, of a sheet of 100 x 100 images. They know nothing
of the training data, and the size of the run, which is also given, does not count, as that of the programs does not.

Resumable: runs and results are kept in bench/.runs/bytes (--anew starts again). Writes docs/bytes.json and
docs/bytes.md.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import importlib.util
import io
import json
import lzma
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import vaekit as vk
from vaekit.coding import compress, decompress
from vaekit.metrics import per_datum
from vaekit.utils.files import write_json, write_text

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "bytes", HERE.parent / "docs"
SAMPLES = 100
SHEET = 100  # images per row of a sheet
BINARY: dict[str, Any] = {"likelihood": "bernoulli"}
LEVELS: dict[str, Any] = {"likelihood": "logistic-mixture"}
ANCHOR = "MNIST, binary"
WHOLE = ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")
"""The columns of Adult that are numbers."""


def zstd(content: bytes) -> bytes | None:
    """The content compressed at level 19, or None where zstd is missing."""
    if importlib.util.find_spec("compression") and importlib.util.find_spec("compression.zstd"):
        from compression import zstd as own

        return own.compress(content, level=19)
    if importlib.util.find_spec("zstandard"):
        import zstandard

        return zstandard.ZstdCompressor(level=19).compress(content)
    if program := shutil.which("zstd"):
        return subprocess.run([program, "-19", "-q", "-c"], input=content, capture_output=True, check=True).stdout
    return None


GENERAL: dict[str, Callable[[bytes], bytes | None]] = {
    "gzip": lambda content: gzip.compress(content, 9),
    "bz2": lambda content: bz2.compress(content, 9),
    "xz": lambda content: lzma.compress(content, preset=9 | lzma.PRESET_EXTREME),
    "zstd": zstd,
}


def sheet(x: np.ndarray) -> np.ndarray:
    """Grey images (N, 1, H, W) as one picture, padded with black."""
    n, _, height, width = x.shape
    rows = -(-n // SHEET)
    padded = np.zeros((rows * SHEET, height, width), x.dtype)
    padded[:n] = x[:, 0]
    return padded.reshape(rows, SHEET, height, width).swapaxes(1, 2).reshape(rows * height, SHEET * width)


def picture(x: np.ndarray, binary: bool, **options: Any) -> int:
    """The size of the sheet in a format of Pillow."""
    image = Image.fromarray(sheet((255 * x).astype(np.uint8) if binary else x))
    file = io.BytesIO()
    (image.convert("1") if binary and options["format"] == "PNG" else image).save(file, **options)
    return file.tell()


def of_images(data: Any, name: str, minutes: float, settings: dict[str, Any]) -> tuple[dict[str, Any], vk.Run]:
    binary = settings == BINARY
    run = trained(data, name, minutes, settings)
    observed = run.observed("test")
    at = np.arange(observed.n)
    x = np.concatenate([observed(part).numpy() for part in np.array_split(at, 20)]).astype(np.uint8)
    content = (np.packbits(x) if binary else x).tobytes()
    sizes = {one: None if (made := of(content)) is None else len(made) for one, of in GENERAL.items()}
    sizes["PNG"] = picture(x, binary, format="PNG", optimize=True)
    sizes["WebP"] = picture(x, binary, format="WEBP", lossless=True, method=6, quality=100)
    return {"raw": len(content), "numbers": x.size, "sizes": sizes}, run


def of_table(path: Path, name: str, minutes: float) -> tuple[dict[str, Any], vk.Run]:
    data = vk.load(path, types=dict.fromkeys(WHOLE, "counts"))
    run = trained(data, name, minutes, {})
    observed = run.observed("test")
    file = io.StringIO()
    rows = run.as_rows(observed.raw(np.arange(observed.n)))
    cells = [
        [column.categories[int(v)] if column.categories else str(int(v)) for v in rows[:, j]]
        for j, column in enumerate(run.columns)
    ]
    csv.writer(file, lineterminator="\n").writerows(zip(*cells, strict=True))
    content = file.getvalue().encode()
    sizes = {one: None if (made := of(content)) is None else len(made) for one, of in GENERAL.items()}
    return {"raw": len(content), "numbers": rows.size, "sizes": sizes}, run


def trained(data: Any, name: str, minutes: float, settings: dict[str, Any]) -> vk.Run:
    path = RUNS / "".join(c if c.isalnum() else "-" for c in name)
    run = vk.fit(
        data, "vae", out=path, minutes=minutes, resume=(path / "run.json").exists(), progress=False, **settings
    )
    run.use_data(data)
    return run


def measured(found: tuple[dict[str, Any], vk.Run], observed: bool) -> dict[str, Any]:
    """Sizes and times of the run, beside those of the others."""
    row, run = found
    archive = run.path / "test.vk"
    start = time.process_time()
    made = compress(run, "test", path=archive, observed=observed)
    middle = time.process_time()
    decompress(run, archive)
    end = time.process_time()
    elbo = per_datum(run, run.observed("test"), SAMPLES).elbo
    return row | {
        "n": made.n, "vaekit": made.size, "start_up": made.start_up, "known": made.known, "coded": made.coded,
        "negative_elbo": float(-elbo.sum() / np.log(2) / 8), "compress_seconds": middle - start,
        "decompress_seconds": end - middle, "steps": run.config["step"],
        "weights": (run.path / "model.safetensors").stat().st_size,
    }  # fmt: skip


def page(rows: dict[str, Any], minutes: float) -> str:
    methods = list(dict.fromkeys(m for row in rows.values() for m in row["sizes"]))
    out = [
        "# Bytes", "",
        f"Made by `make bench-bytes`; its header describes data and programs. Runs were trained for {minutes:g}",
        "minutes each.",
        "The [guide](guides/compression.md) explains how a run compresses.", "",
        "## Bits per number", "",
        "Bits of the whole archive or file per pixel, or per cell of the table; lower is better.", "",
        f"| data | raw | vaekit | {' | '.join(methods)} |", f"|---|{'---|' * (len(methods) + 2)}",
    ]  # fmt: skip
    for name, row in rows.items():
        sizes = [row["raw"], row["vaekit"], *(row["sizes"].get(m) for m in methods)]
        cells = ["-" if size is None else f"{8 * size / row['numbers']:.3f}" for size in sizes]
        out.append(f"| {name} | {' | '.join(cells)} |")
    out += [
        "", f"Townsend et al. (2019) report 0.19 bits per pixel for binary MNIST ({ANCHOR} above).", "",
        "## Against the ELBO", "",
        "The negative ELBO of the test data, estimated with "
        f"{SAMPLES} samples, is what bits-back coding should take without its start-up.", "",
        "| data | test examples | archive, bytes | start-up | known | the rest | negative ELBO | difference |"
        " run's weights | compress, CPU s | decompress, CPU s |",
        f"|---|{'---|' * 10}",
    ]  # fmt: skip
    for name, row in rows.items():
        gap = 100 * (row["coded"] / row["negative_elbo"] - 1)
        cells = [f"{row[key]:,.0f}" for key in ("n", "vaekit", "start_up", "known", "coded", "negative_elbo")]
        times = [f"{row[key]:.0f}" for key in ("compress_seconds", "decompress_seconds")]
        weights = f"{row['weights']:,}"
        out.append(f"| {name} | {' | '.join([*cells, f'{gap:+.2f}%', weights, *times])} |")
    version = f"torch {torch.__version__}, Python {platform.python_version()}"
    out += ["", f"{version}, {torch.get_num_threads()} thread(s).", ""]
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="training time of each run")
    parser.add_argument("--mnist", default="mnist", help="name, or folder with the IDX files")
    parser.add_argument("--adult", type=Path, help="adult.csv; without it, no table")
    parser.add_argument("--anew", action="store_true", help="train and measure everything again")
    asked = parser.parse_args()
    if asked.anew:
        shutil.rmtree(RUNS, ignore_errors=True)
    store = RUNS.with_suffix(".json")
    rows: dict[str, Any] = json.loads(store.read_text()) if store.exists() and not asked.anew else {}
    plans: dict[str, tuple[Callable[[str], tuple[dict[str, Any], vk.Run]], bool]] = {}
    for label, data in (("Fashion-MNIST", "fashion-mnist"), ("MNIST", asked.mnist)):
        for kind, settings in (("binary", BINARY), ("8 bits", LEVELS)):
            plans[f"{label}, {kind}"] = (
                lambda name, data=data, settings=settings: of_images(vk.load(data), name, asked.minutes, settings),
                settings == BINARY,
            )
    if asked.adult is not None:
        plans["Adult"] = lambda name: of_table(asked.adult, name, asked.minutes), False
    RUNS.mkdir(parents=True, exist_ok=True)
    for name, (make, observed) in plans.items():
        if name not in rows:
            rows[name] = measured(make(name), observed)
            print(name, rows[name], flush=True)
            write_json(store, rows)
    write_json(DOCS / "bytes.json", rows)
    text = page(rows, asked.minutes)
    write_text(DOCS / "bytes.md", text)
    print(text)


if __name__ == "__main__":
    main()
