"""Compare the bytes of data compressed by a run with those of general programs: python bench/bytes.py [--minutes M]

Sets: the 10,000 test images of Fashion-MNIST and of MNIST, each as a fixed binary draw (pixels are 1 with probability
value / 255) and with all 8 bits, and rows of Adult (https://doi.org/10.24432/C5XW20, `--adult adult.csv`) with its
numbers as counts. A run is trained on the training split of each for `--minutes` (3), with default settings but for
the likelihood; MNIST is named data, or `--mnist FOLDER` with its IDX files.

The others get the same test data as one file: binary images packed to one bit per pixel, 8-bit images one byte per
pixel, the table as CSV text without a header. gzip, bz2 and xz are those of Python at their highest levels, zstd is at
level 19 (the module `compression.zstd` of Python 3.14, the package zstandard, or the program zstd; left out if there is
none). PNG (optimised) and WebP (lossless, method 6, quality 100) are Pillow's, of a sheet of 100 x 100 images. These
programs have not seen the training data. The archives contain neither the run nor the program; the size of the run's
weights is given.

Resumable: runs and results are kept in bench/.runs/bytes (--anew starts again, --only NAME measures some of the sets).
Writes docs/bytes.json and docs/bytes.md.
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
from dataclasses import dataclass, field
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
SAMPLES = 10
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


@dataclass
class Found:
    """A run, its test data for other programs, and what is known of them."""

    run: vk.Run
    content: bytes
    numbers: int
    pictures: dict[str, int] = field(default_factory=dict)
    observed: bool = False


def of_images(data: Any, name: str, minutes: float, settings: dict[str, Any]) -> Found:
    binary = settings == BINARY
    run = trained(data, name, minutes, settings)
    observed = run.observed("test")
    x = np.concatenate([observed(part).numpy() for part in np.array_split(np.arange(observed.n), 20)]).astype(np.uint8)
    pictures = {
        "PNG": picture(x, binary, format="PNG", optimize=True),
        "WebP": picture(x, binary, format="WEBP", lossless=True, method=6, quality=100),
    }
    return Found(run, (np.packbits(x) if binary else x).tobytes(), x.size, pictures, binary)


def of_table(path: Path, name: str, minutes: float, settings: dict[str, Any]) -> Found:
    data = vk.load(path, types=dict.fromkeys(WHOLE, "counts"), missing="mask")
    run = trained(data, name, minutes, settings)
    rows = run.as_rows(run.observed("test").raw(np.arange(len(data.test))))
    cells = [
        ["" if np.isnan(v) else c.categories[int(v)] if c.categories else str(int(v)) for v in rows[:, j]]
        for j, c in enumerate(run.columns)
    ]
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(zip(*cells, strict=True))
    return Found(run, file.getvalue().encode(), rows.size)


def trained(data: Any, name: str, minutes: float, settings: dict[str, Any]) -> vk.Run:
    path = RUNS / "".join(c if c.isalnum() else "-" for c in name)
    run = vk.fit(
        data, "vae", out=path, minutes=minutes, resume=(path / "run.json").exists(), progress=False, **settings
    )
    run.use_data(data)
    return run


def measured(found: Found, minutes: float, settings: dict[str, Any]) -> dict[str, Any]:
    """Sizes and times of the run, beside those of the others."""
    run, observed = found.run, found.run.observed("test")
    archive = run.path / "test.vk"
    start = time.process_time()
    made = compress(run, "test", path=archive, observed=found.observed)
    middle = time.process_time()
    decompress(run, archive)
    end = time.process_time()
    nats = [-per_datum(run, observed, 1, seed=seed).elbo for seed in range(SAMPLES)]
    # the archive has one draw of z per datum, the estimate `SAMPLES`
    error = float(np.sqrt(np.var(nats, 0, ddof=1).sum() * (1 + 1 / SAMPLES)))
    sizes = {name: None if (out := of(found.content)) is None else len(out) for name, of in GENERAL.items()}
    return {
        "minutes": minutes, "settings": settings, "steps": run.config["step"],
        "latents": run.encode("test", n=1).shape[1],
        "weights": (run.path / "model.safetensors").stat().st_size, "n": made.n, "numbers": found.numbers,
        "raw": len(found.content), "vaekit": made.size, "start_up": made.start_up, "known": made.known,
        "coded": made.coded, "negative_elbo": float(np.mean(nats, 0).sum() / np.log(2) / 8),
        "error": error / np.log(2) / 8, "compress_seconds": middle - start, "decompress_seconds": end - middle,
        "sizes": sizes | found.pictures,
    }  # fmt: skip


def page(rows: dict[str, Any]) -> str:
    methods = list(dict.fromkeys(m for row in rows.values() for m in row["sizes"]))
    out = [
        "# Bytes", "",
        "Made by `make bench-bytes`; the header of `bench/bytes.py` describes data and programs. The",
        "[guide](guides/compression.md) explains how a run compresses.", "",
        "## Bits per number", "",
        "Bits of the whole archive or file per pixel of the test images, or per cell of the table; lower is better.",
        "",
        f"| data | raw | vaekit | {' | '.join(methods)} |", f"|---|{'---|' * (len(methods) + 2)}",
    ]  # fmt: skip
    for name, row in rows.items():
        sizes = [row["raw"], row["vaekit"], *(row["sizes"].get(m) for m in methods)]
        cells = ["-" if size is None else f"{8 * size / row['numbers']:.3f}" for size in sizes]
        out.append(f"| {name} | {' | '.join(cells)} |")
    out += [
        "", f"Townsend et al. (2019) report 0.19 bits per pixel for binary draws of MNIST ({ANCHOR} above).", "",
        "## Against the ELBO", "",
        f"Bytes. The negative ELBO of the test data is estimated with {SAMPLES} draws of z per datum, and the archive",
        "codes one draw per datum, so the difference has the standard error given after ±. *Known* is the size",
        "of what the model takes as given: which cells are missing.", "",
        "| data | test data | archive | start-up | known | the rest | negative ELBO | difference |",
        f"|---|{'---|' * 7}",
    ]  # fmt: skip
    for name, row in rows.items():
        gap, error = 100 * (row["coded"] / row["negative_elbo"] - 1), 100 * row["error"] / row["negative_elbo"]
        cells = [f"{row[key]:,.0f}" for key in ("n", "vaekit", "start_up", "known", "coded", "negative_elbo")]
        out.append(f"| {name} | {' | '.join([*cells, f'{gap:+.2f}% ± {error:.2f}%'])} |")
    out += [
        "", "## Runs", "",
        "The recipe is `vae`, trained on the training split for a short time: longer training would give better",
        "numbers. Seconds are CPU time for all test data, measured while the machine did other work; those of",
        "`compress` include decoding once.", "",
        "Decoding needs the run, whose weights are larger than each of these archives. Compression therefore saves",
        "space only for many more data than these, or where the receiver has the run anyway.", "",
        "| data | settings | training | steps | latents | weights, bytes | compress, s | decompress, s |",
        f"|---|{'---|' * 7}",
    ]  # fmt: skip
    for name, row in rows.items():
        settings = ", ".join(f"`{key}={value!r}`" for key, value in row["settings"].items()) or "defaults"
        cells = [settings, f"{row['minutes']:g} min", f"{row['steps']:,}", str(row["latents"]), f"{row['weights']:,}"]
        cells += [f"{row[key]:.0f}" for key in ("compress_seconds", "decompress_seconds")]
        out.append(f"| {name} | {' | '.join(cells)} |")
    version = f"torch {torch.__version__}, Python {platform.python_version()}"
    out += ["", f"{version}, {torch.get_num_threads()} thread(s).", ""]
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="training time of each run")
    parser.add_argument("--mnist", default="mnist", help="name, or folder with the IDX files")
    parser.add_argument("--adult", type=Path, help="adult.csv; without it, no table")
    parser.add_argument("--only", default="", help="only sets whose name contains this")
    parser.add_argument("--anew", action="store_true", help="train and measure everything again")
    asked = parser.parse_args()
    if asked.anew:
        shutil.rmtree(RUNS, ignore_errors=True)
    store = RUNS.with_suffix(".json")
    rows: dict[str, Any] = json.loads(store.read_text()) if store.exists() and not asked.anew else {}
    plans: dict[str, tuple[Callable[..., Found], Any, dict[str, Any]]] = {}
    for label, data in (("Fashion-MNIST", "fashion-mnist"), ("MNIST", asked.mnist)):
        for kind, settings in (("binary", BINARY), ("8 bits", LEVELS)):
            plans[f"{label}, {kind}"] = of_images, data, settings
    if asked.adult is not None:
        plans["Adult"] = of_table, asked.adult, {}
        plans["Adult, autoregressive"] = of_table, asked.adult, {"likelihood": "autoregressive"}
    RUNS.mkdir(parents=True, exist_ok=True)
    for name, (make, data, settings) in plans.items():
        if name not in rows and asked.only in name:
            given = data if make is of_table else vk.load(data)
            rows[name] = measured(make(given, name, asked.minutes, settings), asked.minutes, settings)
            print(name, rows[name], flush=True)
            write_json(store, rows)
    rows = {name: rows[name] for name in plans if name in rows}
    write_json(DOCS / "bytes.json", rows)
    text = page(rows)
    write_text(DOCS / "bytes.md", text)
    print(text)


if __name__ == "__main__":
    main()
