"""Time vaekit's trainer and scorer and the hardware limits on commands from standard input.

Reads one command per line and answers each with a number: seconds, or megabytes for `memory`.
"""

import functools
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

import vaekit as vk
from vaekit.metrics import per_datum
from vaekit.training.loop import Trainer
from vaekit.training.parallel import rank_and_world
from vaekit.training.plan import plan_new
from vaekit.training.prepare import prepare
from vaekit.training.start import describe
from vaekit.utils.progress import Silent

BATCH, STEPS = 100, 200
SHAPES = ((784, 512), (512, 32), (16, 512), (512, 784))


def trainer(data, folder: Path) -> Trainer:
    torch.manual_seed(0)
    composition = vk.get_recipe("vae")(vk.DataSpec.of(data), latent=16, hidden=(512,), activation="relu")
    options = vk.Options(
        steps=10**6,
        batch=BATCH,
        optimiser="adam",
        lr=1e-3,
        schedule="constant",
        weight_decay=0.0,
        ema=0.0,
        compile="on",
        validate_steps=10**6,
    )
    plan = plan_new(options, composition, data)
    config = describe(data, "vae", {}, composition, plan)
    prepare(data, composition, plan.seed)
    assert rank_and_world(None) == (0, 1)
    built = Trainer(composition, data, plan, folder, config, Silent())
    built.engine.module.train()
    built.engine.compiled()
    return built


def seconds(functions, repeats: int = 5, n: int = 20) -> float:
    """Seconds per pass through all functions: the median over repeats of the mean over n passes."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(n):
            for f in functions:
                f()
        times.append((time.perf_counter() - start) / n)
    return sorted(times)[len(times) // 2]


@functools.cache
def product(m: int, k: int, n: int, dtype: torch.dtype):
    """An (m, k) x (k, n) matrix product in its fastest layout, written into an existing tensor.

    The layout is chosen once, before the rounds. Taking the fastest time in every round instead would give a limit
    that no product reaches, since the times are noisy.
    """
    products = []
    for a in (torch.randn(m, k).to(dtype), torch.randn(k, m).to(dtype).t()):
        for b in (torch.randn(k, n).to(dtype), torch.randn(n, k).to(dtype).t()):
            out, out_t = torch.empty(m, n, dtype=dtype), torch.empty(n, m, dtype=dtype)
            products.append(lambda a=a, b=b, out=out: torch.mm(a, b, out=out))
            products.append(lambda a=a, b=b, out=out_t: torch.mm(b.t(), a.t(), out=out))
    for candidate in products:
        seconds([candidate], 1, 5)
    return min(products, key=lambda candidate: seconds([candidate], 7, 10))


def training_limit(cached: bool, dtype: torch.dtype) -> float:
    """The hardware limit in seconds per step: matrix products in their fastest layouts, plus 28 bytes per parameter.

    The bandwidth is that of copying 256 MB, or with `cached` of copying an array as large as the parameters.
    """
    products = []
    for i, (k, n) in enumerate(SHAPES):
        products.append(product(BATCH, k, n, dtype))  # forward
        products.append(product(k, BATCH, n, dtype))  # gradient of the weights
        if i:
            products.append(product(BATCH, n, k, dtype))  # gradient of the input
    parameters = sum(k * n + n for k, n in SHAPES)
    size = parameters if cached else 64 << 20
    source, target = torch.ones(size), torch.ones(size)
    copy = seconds([lambda: target.copy_(source)], 5, 100 if cached else 3)
    return seconds(products, 5, 50) + 28 * parameters * copy / (8 * size)  # a copy reads and writes


@functools.cache
def scoring_block() -> int:
    """The number of latents per block at which the decoder's products are fastest per latent."""
    return min((250, 500, 1000, 2000, 4000), key=lambda b: seconds(decoder(b), 5, 5) / b)


def decoder(block: int):
    return [product(block, 16, 512, torch.float32), product(block, 512, 784, torch.float32)]


def scoring_limit(decodes: int) -> float:
    """Seconds of the decoder's float32 products for `decodes` latents, at the best block size and layouts."""
    block = scoring_block()
    return seconds(decoder(block), 3, decodes // block // 3) * decodes / block


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    data = vk.load("fashion-mnist")
    with tempfile.TemporaryDirectory() as folder:
        run = None
        own = None
        print("ready", flush=True)
        for line in sys.stdin:
            command = line.split()
            if command[0] == "train":
                own = own or trainer(data, Path(folder))
                start = time.perf_counter()
                for _ in range(STEPS):
                    own.one_step()
                    if own.step % 50 == 0:
                        own.flush()
                value = time.perf_counter() - start
                own.records.clear()
            elif command[0].startswith("train-limit"):
                own = own or trainer(data, Path(folder))
                dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[own.plan.precision]
                value = training_limit("cached" in command[0], dtype) * STEPS
            elif command[0] == "precision":
                own = own or trainer(data, Path(folder))
                value = 16 if own.plan.precision == "bf16" else 32
            elif command[0] == "score-limit":
                value = scoring_limit(int(command[1]) * int(command[2]))
            else:
                if run is None:
                    own = own or trainer(data, Path(folder))
                    run = vk.Run(Path(folder), json.loads(json.dumps(own.config)), own.composition)
                    run.use_data(data)
                    own.engine.module.eval()
                    observed = run.observed("test")
                    observed(torch.arange(2).numpy())
                n, samples = int(command[1]), int(command[2])
                before = peak_mb()
                start = time.perf_counter()
                per_datum(run, observed, samples, n=n, compile=True if command[0] == "score" else None)
                value = time.perf_counter() - start if command[0] == "score" else peak_mb() - before
            print(value, flush=True)


if __name__ == "__main__":
    main()
