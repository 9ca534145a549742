"""Time vaekit's trainer and scorer and the hardware limits on commands from standard input.

Reads one command per line and answers each with JSON: seconds, megabytes for `memory`, seconds by name for `parts`.
"""

import functools
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

import vaekit as vk
from vaekit.metrics import per_datum
from vaekit.training.cost import bf16_pays
from vaekit.training.loop import Trainer
from vaekit.training.parallel import rank_and_world
from vaekit.training.plan import plan_new
from vaekit.training.prepare import prepare
from vaekit.training.start import describe
from vaekit.utils import lowering
from vaekit.utils.progress import Silent

BATCH, STEPS = 100, 200
SHAPES = ((784, 512), (512, 32), (16, 512), (512, 784))
PARAMETERS = sum(k * n + n for k, n in SHAPES)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def trainer(data, folder: Path, precision: str) -> Trainer:
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
        precision=precision,
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


def training_products(dtype: torch.dtype) -> float:
    """Seconds of the matrix products of a training step in their fastest layouts."""
    products = []
    for i, (k, n) in enumerate(SHAPES):
        products.append(product(BATCH, k, n, dtype))  # forward
        products.append(product(k, BATCH, n, dtype))  # gradient of the weights
        if i:
            products.append(product(BATCH, n, k, dtype))  # gradient of the input
    return seconds(products, 5, 20)


def moving(cached: bool) -> float:
    """Seconds to move the 28 bytes per parameter that Adam reads and writes.

    At the bandwidth of copying 256 MB, or with `cached` at that of adding in place to arrays as large as Adam's.
    """
    if cached:
        source, target = torch.ones(2 * PARAMETERS), torch.ones(2 * PARAMETERS)
        per_byte = seconds([lambda: target.add_(source)], 5, 20) / (12 * len(target))
    else:
        source, target = torch.ones(64 << 20), torch.ones(64 << 20)
        per_byte = seconds([lambda: target.copy_(source)], 3, 2) / (8 * len(target))
    return 28 * PARAMETERS * per_byte


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


SCOPES: list[dict[str, Any]] = []
"""The globals of every compiled graph: its kernels by name, and `extern_kernels` with the matrix products."""


def loaded(*arguments: Any) -> Any:
    """`lowering.loaded`, which also keeps the globals of the graph."""
    graph = LOADED(*arguments)
    SCOPES.append(getattr(graph, "__func__", graph).__globals__)
    return graph


LOADED, lowering.loaded = lowering.loaded, loaded


@contextmanager
def timed_kernels(times: dict[str, float]) -> Iterator[None]:
    """Adds up the seconds of the matrix products and of the kernels of all graphs that have been compiled so far."""

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **named)
            times[part] = times.get(part, 0.0) + time.perf_counter() - start
            return result

        return call

    before = [dict(scope) for scope in SCOPES]
    for scope in SCOPES:
        scope.update({n: timed("pointwise kernels", f) for n, f in scope.items() if n.startswith("cpp_fused")})
        scope["extern_kernels"] = SimpleNamespace(mm=timed("products", torch.mm))
    try:
        yield
    finally:
        for scope, old in zip(SCOPES, before, strict=True):
            scope.update(old)


class Work:
    """Answers the commands; trainers and the run to score are made when first needed."""

    def __init__(self, folder: Path):
        self.data = vk.load("fashion-mnist")
        self.folder = folder
        self.trainers: dict[str, Trainer] = {}
        self.run: Any = None

    def trainer(self, precision: str = "fp32") -> Trainer:
        if precision not in self.trainers:
            folder = self.folder / precision
            folder.mkdir()
            self.trainers[precision] = trainer(self.data, folder, precision)
        return self.trainers[precision]

    def train(self, precision: str) -> float:
        own = self.trainer(precision)
        own.engine.module.train()
        start = time.perf_counter()
        for _ in range(STEPS):
            own.one_step()
            if own.step % 50 == 0:
                own.flush()
        value = time.perf_counter() - start
        own.records.clear()
        return value

    def score(self, n: str, samples: str, compile: bool | None = True) -> float:
        own = self.trainer()
        if self.run is None:
            config = json.loads(json.dumps(own.config))
            self.run = vk.Run(self.folder / "fp32", config, own.composition)
            self.run.use_data(self.data)
            self.observed = self.run.observed("test")
            self.observed(torch.arange(2).numpy())
        own.engine.module.eval()
        start = time.perf_counter()
        per_datum(self.run, self.observed, int(samples), n=int(n), compile=compile)
        return time.perf_counter() - start

    def memory(self, n: str, samples: str) -> float:
        self.score("2", samples="2", compile=None)  # loads the program
        before = peak_mb()
        self.score(n, samples=samples, compile=None)
        return peak_mb() - before

    def parts(self, command: str, *arguments: str) -> dict[str, float]:
        """Seconds of the parts of a command that has run before."""
        times: dict[str, float] = {}
        with timed_kernels(times):
            total = getattr(self, command)(*arguments)
        return {**times, "the rest": total - sum(times.values())}

    def answer(self, command: str, *arguments: str) -> Any:
        match command:
            case "bf16":
                return bf16_pays(torch.device("cpu"))
            case "products":
                return training_products(DTYPES[arguments[0]])
            case "moving":
                return moving(arguments == ("cached",))
            case "score-limit":
                return scoring_limit(int(arguments[0]) * int(arguments[1]))
        return getattr(self, command)(*arguments)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder))
        print('"ready"', flush=True)
        for line in sys.stdin:
            print(json.dumps(work.answer(*line.split())), flush=True)


if __name__ == "__main__":
    main()
