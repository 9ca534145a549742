"""Measure training and scoring on a GPU beside Pythae's loop and the GPU's limit: `python bench/gpu.py`, 6 minutes.

On the same GPU: vaekit's training of `vae` (784-512-z16) and of `conv` (64 x 64 x 3) with batches of 100 and 1,000,
in fp32 and bf16, eager and compiled (the latter as a CUDA graph); the loop of Pythae's BaseTrainer, copied so that
nothing has to be installed (a `DataLoader` over host memory, Adam, the loss read at every step), in fp32, with the
dense network, the plain convolutions of vaekit's network, and Pythae's own network for this size; importance-weighted
scoring with K = 1,000 beside Pythae's way, one datum at a time; and what bf16 costs in nats. Convolutions in fp32 use
TF32 in all programs, as torch does by default, and matrix products do not.

The limit of a step is the time of its layers' products alone (forward, gradients of input and weights) in one CUDA
graph, plus 28 bytes per parameter at the bandwidth of a copy. Uses Fashion-MNIST if it is available, otherwise
generated images. A failure is recorded with its reason. Writes docs/speed-gpu.json and docs/speed-gpu.md.

    python bench/gpu.py [--device cuda] [--quick]

`--quick` takes a few steps of everything, to try the script on a CPU; it writes nothing.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

import vaekit as vk
from vaekit.errors import VaekitError
from vaekit.training import loop
from vaekit.utils.files import write_json, write_text
from vaekit.utils.progress import Silent

DOCS = Path(__file__).parent.parent / "docs"
WIDTH, LATENT, COLOUR_LATENT = 512, 16, 128
CHANNELS = (32, 64, 128, 256)  # of vaekit's `conv`
DENSE = {"recipe": "vae", "network": "dense", "hidden": (WIDTH,), "latent": LATENT, "activation": "relu", "lr": 1e-3}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MODES = tuple((precision, compiled) for precision in DTYPES for compiled in ("off", "on"))
Result = dict[str, Any]


def images(n: int) -> np.ndarray:
    """Fashion-MNIST's training images, or as many generated ones, (N, 28, 28) uint8."""
    try:
        return np.asarray(vk.load("fashion-mnist").train[:n]).reshape(-1, 28, 28)
    except VaekitError:
        return np.random.default_rng(0).integers(0, 256, (n, 7, 7), np.uint8).repeat(4, 1).repeat(4, 2)


def colour(n: int) -> np.ndarray:
    """Generated images, (N, 64, 64, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)


# --- vaekit ---------------------------------------------------------------------------------------------------------


class Marks(Silent):
    """The steps and times of the records of a training."""

    def __init__(self) -> None:
        self.marks: list[tuple[int, float]] = []

    def update(self, step: int, *rest: Any) -> None:
        """Note the time; a record reads values from the device, which waits for its work."""
        self.marks.append((step, time.perf_counter()))


def ours(x: np.ndarray, options: dict[str, Any], steps: int, device: str, **more: Any) -> float:
    """Milliseconds per step of vaekit, without the first quarter of the steps."""
    marks = Marks()
    loop.RECORD_STEPS = max(1, steps // 4)
    with tempfile.TemporaryDirectory() as folder:
        vk.fit(
            vk.from_arrays(x), out=f"{folder}/run", steps=steps, validate_steps=10**9, device=device, progress=marks,
            **options, **more,
        )  # fmt: skip
    (a, begun), (b, ended) = marks.marks[0], marks.marks[-1]
    return 1000 * (ended - begun) / (b - a)


# --- Pythae's networks and its loop ---------------------------------------------------------------------------------


class Plain(nn.Module):
    """A VAE of an encoder to means and log-variances and a decoder to logits, or to means for images in colour."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latent: int, loss: Callable[..., Tensor]):
        super().__init__()
        self.encoder, self.decoder, self.latent, self.loss = encoder, decoder, latent, loss

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, -1)
        return mean, log_variance

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.encode(x)
        decoded = self.decoder(mean + (0.5 * log_variance).exp() * torch.randn_like(mean))
        rate = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        return (self.loss(decoded, x, reduction="none").flatten(1).sum(-1) + rate).mean()


def dense() -> Plain:
    """784-512-z16-512-784, Pythae's default network."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2 * LATENT))
    decoder = nn.Sequential(nn.Linear(LATENT, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 784))
    return Plain(encoder, decoder, LATENT, binary_cross_entropy_with_logits)


def same() -> Plain:
    """The convolutions of vaekit's `conv` in plain PyTorch, without the linear layers beside them."""
    down: list[nn.Module] = []
    for a, b in itertools.pairwise((3, *CHANNELS)):
        down += [nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.SiLU()]
    size = 64 >> len(CHANNELS)
    inner = CHANNELS[-1] * size**2
    up: list[nn.Module] = [nn.Linear(COLOUR_LATENT, inner), nn.Unflatten(1, (CHANNELS[-1], size, size))]
    for a, b in itertools.pairwise((*CHANNELS[::-1], 3)):
        up += [nn.GroupNorm(8, a), nn.SiLU(), nn.ConvTranspose2d(a, b, 4, 2, 1)]
    encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(inner, 2 * COLOUR_LATENT))
    return Plain(encoder, nn.Sequential(*up), COLOUR_LATENT, mse_loss)


def own() -> Plain:
    """Pythae's convolutional networks for 64 x 64 x 3 (its `nn.benchmarks.celeba`)."""
    down: list[nn.Module] = []
    for a, b in itertools.pairwise((3, 128, 256, 512, 1024)):
        down += [nn.Conv2d(a, b, 4, 2, 1), nn.BatchNorm2d(b), nn.ReLU()]
    up: list[nn.Module] = [nn.Linear(COLOUR_LATENT, 1024 * 64), nn.Unflatten(1, (1024, 8, 8))]
    for a, b, more in ((1024, 512, 1), (512, 256, 1), (256, 128, 1)):
        up += [nn.ConvTranspose2d(a, b, 5, 2, 2, output_padding=more), nn.BatchNorm2d(b), nn.ReLU()]
    up += [nn.ConvTranspose2d(128, 3, 5, 1, 2), nn.Sigmoid()]
    encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(1024 * 16, 2 * COLOUR_LATENT))
    return Plain(encoder, nn.Sequential(*up), COLOUR_LATENT, mse_loss)


def pythae(model: Plain, x: np.ndarray, batch: int, steps: int, device: str) -> float:
    """Milliseconds per step of the loop of Pythae's BaseTrainer, without the first fifth of the steps."""
    tensor = torch.from_numpy(x).float() / 255
    data = torch.utils.data.TensorDataset(tensor.permute(0, 3, 1, 2).contiguous() if x.ndim == 4 else tensor.flatten(1))
    loader = torch.utils.data.DataLoader(data, batch, shuffle=True)
    model = model.to(device).train()
    rule = torch.optim.Adam(model.parameters(), lr=1e-3)
    done, total, begun, first = 0, 0.0, 0.0, max(1, steps // 5)
    while True:
        for (rows,) in loader:
            if done == first:
                begun = time.perf_counter()
            loss = model(rows.to(device))
            rule.zero_grad()
            loss.backward()
            rule.step()
            total += loss.item()
            done += 1
            if done == steps:
                return 1000 * (time.perf_counter() - begun) / (steps - first)


# --- the card's limit -----------------------------------------------------------------------------------------------


def waited(device: str) -> float:
    """The time, once the device has done its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def in_one_launch(run: Callable[[], None], device: str) -> Callable[[], None]:
    """`run` as a CUDA graph: launching single products would take longer than the products."""
    if not device.startswith("cuda"):
        return run
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        run()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def limit(model: Plain, event: tuple[int, ...], batch: int, precision: str, device: str, repeats: int) -> float:
    """Milliseconds of the products of a step with this network, and of its parameters through memory."""
    dtype, layers, hooks = DTYPES[precision], [], []
    model = model.to(device, dtype)
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            hooks.append(layer.register_forward_hook(lambda layer, given, out: layers.append((layer, given[0], out))))
    with torch.no_grad():
        mean, _ = model.encode(torch.rand(batch, *event, device=device, dtype=dtype))
        model.decoder(mean)
    for hook in hooks:
        hook.remove()
    layout = torch.channels_last if len(event) == 3 else torch.preserve_format
    for layer in (layer for layer, _, _ in layers if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)):
        layer.to(memory_format=layout)
    work = []
    for place, (layer, given, out) in enumerate(layers):
        shaped = layout if given.dim() == 4 else torch.preserve_format
        x = given.detach().to(memory_format=shaped).requires_grad_(place > 0)
        wanted = [layer.weight, *([x] if place else [])]
        work.append((layer, x, wanted, torch.rand_like(out, memory_format=torch.preserve_format)))

    def products() -> None:
        for layer, x, wanted, slope in work:
            torch.autograd.grad(layer(x), wanted, slope)

    run = in_one_launch(products, device)
    source, target = (torch.ones(64 << 20, device=device) for _ in range(2))
    for _ in range(2):
        run()
    begun = waited(device)
    for _ in range(repeats):
        run()
    middle = waited(device)
    for _ in range(3):
        target.copy_(source)
    copied = (waited(device) - middle) / 3
    moved = 28 * sum(p.numel() for p in model.parameters()) / (8 * source.numel())
    return 1000 * ((middle - begun) / repeats + moved * copied)


# --- scoring and precision ------------------------------------------------------------------------------------------


def scoring(x: np.ndarray, rows: int, samples: int, device: str) -> tuple[float, float]:
    """Seconds of log p of the first images: of vaekit, once compiled, and of a datum at a time, as Pythae does it."""
    with tempfile.TemporaryDirectory() as folder:
        run = vk.fit(vk.from_arrays(x), out=f"{folder}/run", steps=20, device=device, progress=False, **DENSE)
        run.to(device)
        run.score(x[:rows], samples=samples)
        begun = waited(device)
        run.score(x[:rows], samples=samples)
        middle = waited(device)
    model, few = dense().to(device), max(1, rows // 10)
    seen = torch.from_numpy(x[:few]).flatten(1).float().div(255).round().to(device)
    with torch.no_grad():
        for row in seen:
            found = []
            for first in range(0, samples, 100):  # Pythae's batches
                mean, log_variance = model.encode(row[None])
                noise = torch.randn(min(100, samples - first), LATENT, device=device)
                z = mean + (0.5 * log_variance).exp() * noise
                given = row.expand(len(z), -1)
                log_px = -binary_cross_entropy_with_logits(model.decoder(z), given, reduction="none").sum(-1)
                found.append(log_px + (0.5 * (noise.square() - z.square()) + 0.5 * log_variance).sum(-1))
            float(torch.cat(found).logsumexp(0))
    return middle - begun, (waited(device) - middle) * rows / few


def bound(x: np.ndarray, steps: int, device: str, precision: str) -> float:
    """IW-100 in nats on held-out images after training in this precision; equal seeds."""
    with tempfile.TemporaryDirectory() as folder:
        run = vk.fit(
            vk.from_arrays(x), out=f"{folder}/run", steps=steps, precision=precision, device=device, progress=False,
            **DENSE,
        )  # fmt: skip
        return float(run.score("valid", n=2000, samples=100).mean())


# --- the page -------------------------------------------------------------------------------------------------------


def measured(device: str, quick: bool) -> list[Result]:
    """All results, a dictionary per line of the page."""
    results: list[Result] = []

    def told(what: str, who: str, batch: int, measure: Callable[[], float], unit: str = "ms") -> None:
        result: Result = {"what": what, "who": who, "batch": batch}
        try:
            result[unit] = measure()
        except Exception as error:  # the other lines are still worth having
            result["failed"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        results.append(result)
        print(result, flush=True)

    steps, grey = (8, images(2000)) if quick else (3000, images(50_000))
    fewer, rgb = (4, colour(300)) if quick else (200, colour(4000))
    call = functools.partial
    for batch in (100, 1000):
        told("dense", "Pythae's loop, fp32", batch, call(pythae, dense(), grey, batch, steps // 4, device))
        for precision in DTYPES:
            told("dense", f"limit, {precision}", batch, call(limit, dense(), (784,), batch, precision, device, steps))
        for precision, compiled in MODES:
            options = DENSE | {"batch": batch, "precision": precision, "compile": compiled}
            who = f"vaekit, {precision}, {'compiled' if compiled == 'on' else 'eager'}"
            told("dense", who, batch, call(ours, grey, options, steps, device))
    for batch in (20,) if quick else (100, 1000):
        told("conv", "Pythae's loop, same network, fp32", batch, call(pythae, same(), rgb, batch, fewer, device))
        told("conv", "Pythae's loop, its own network, fp32", batch, call(pythae, own(), rgb, batch, fewer // 2, device))
        for precision in DTYPES:
            shape = (3, 64, 64)
            told("conv", f"limit, {precision}", batch, call(limit, same(), shape, batch, precision, device, fewer))
        for precision, compiled in MODES[::2] if quick else MODES:
            options = {"recipe": "conv", "batch": batch, "precision": precision, "compile": compiled}
            who = f"vaekit, {precision}, {'compiled' if compiled == 'on' else 'eager'}"
            told("conv", who, batch, call(ours, rgb, options, fewer, device))
    rows, samples = (10, 50) if quick else (1000, 1000)
    seconds = functools.cache(lambda: scoring(grey, rows, samples, device))
    told("scoring", "vaekit", rows, lambda: 1000 * seconds()[0])
    told("scoring", "a datum at a time, as Pythae, fp32", rows, lambda: 1000 * seconds()[1])
    for precision in DTYPES:
        told("IW-100", precision, 100, call(bound, grey, steps, device, precision), "nats")
    return results


def page(results: list[Result], card: str) -> str:
    lines = [
        "# Speed on a GPU",
        "",
        f"Made by `python bench/gpu.py` on {card}, torch {torch.__version__}; its header describes the protocol.",
        "",
        "| what | who | batch or images | ms (per step) | times as fast as Pythae's | of the limit | nats |",
        "|---|---|---|---|---|---|---|",
    ]
    known = {(r["what"], r["batch"], r["who"]): r["ms"] for r in results if "ms" in r}
    for r in results:
        ms, ratio, share = r.get("ms"), "", ""
        if ms is not None and r["who"].startswith("vaekit"):
            peers = [v for (what, batch, who), v in known.items() if (what, batch) == (r["what"], r["batch"])
                     and "Pythae" in who]  # fmt: skip
            ratio = " / ".join(f"{v / ms:.1f}" for v in peers)
            least = known.get((r["what"], r["batch"], f"limit, {'bf16' if 'bf16' in r['who'] else 'fp32'}"))
            share = "" if least is None or r["what"] == "scoring" else f"{least / ms:.2f}"
        shown = r.get("failed") or ("" if ms is None else f"{ms:.3f}")
        nats = f"{r['nats']:.2f}" if "nats" in r else ""
        lines.append(f"| {r['what']} | {r['who']} | {r['batch']} | {shown} | {ratio} | {share} | {nats} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    card = torch.cuda.get_device_name() if asked.device.startswith("cuda") else "the CPU"
    results = measured(asked.device, asked.quick)
    if asked.quick:
        print(page(results, card))
        return
    write_json(DOCS / "speed-gpu.json", {"card": card, "results": results})
    write_text(DOCS / "speed-gpu.md", page(results, card))


if __name__ == "__main__":
    main()
