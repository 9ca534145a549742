"""Give damaged files to every reader of vaekit, and keep those that are neither read nor properly refused, for replay.

    python tools/fuzz.py --minutes 5
    python tools/fuzz.py --inputs 100000 --seed 3
    python tools/fuzz.py --replay fuzz-findings/FILE.zip

An input is a function of (seed, number). Worker processes, forked after all imports, try one input after the other. A
finding is an exception other than a VaekitError, more than 20 s of CPU time, or more than 1 GB of memory beyond the
file's size.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_seeds import SEEDS, Seed, make
from mutators import mutate, of_bytes

SECONDS, MEMORY, ADDRESSES = 20.0, 10**9, 8 * 10**9
"""Limits per input: CPU seconds (wall-clock: ten times as many), bytes of memory beyond the input's size, and bytes of
address space."""
KEPT = 3
"""Number of files kept per finding."""
REPORTED, LEAKED = 1.0, 3 * 10**9
"""Seconds between a worker's reports, and bytes of memory at which it is replaced."""
PAGE = resource.getpagesize()


@dataclass
class Input:
    """A damaged copy of a seed: its files by relative path, the names of the damaged ones, and a key for their use."""

    seed: str
    key: str
    files: dict[str, bytes]
    damaged: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))


def make_input(number: int, seed: int, seeds: dict[str, Seed], only: str | None) -> Input:
    """Input `number`: a seed with one damaged file, sometimes two."""
    key = f"{seed}-{number}"
    rng = random.Random(key)
    kinds = [s for s in seeds.values() if s.name.startswith(only or "")]
    chosen = rng.choices(kinds, [s.weight for s in kinds])[0]
    files, names = dict(chosen.files), []
    for _ in range(rng.choice((1, 1, 1, 1, 2))):
        name = rng.choice(chosen.damaged)
        names.append(name)
        if chosen.is_run and rng.random() < 0.01:
            files.pop(name, None)
        elif name in files:
            whole = files[name] is chosen.files[name]
            files[name] = mutate(name, files[name], rng) if whole else of_bytes(files[name], rng)
    return Input(chosen.name, key, files, tuple(names))


# --- one input ------------------------------------------------------------------------------------------------------


def attempt(given: Input, folder: Path) -> tuple[str, str]:
    """Write the files into `folder` and use them; returns "accepted", "refused" or "traceback", and the message."""
    from vaekit.errors import VaekitError

    parents = {name.rpartition("/")[0] for name in given.files}
    for parent in parents:
        os.makedirs(folder / parent, exist_ok=True)
    for name, content in given.files.items():
        with open(f"{folder}/{name}", "wb", buffering=0) as file:
            file.write(content)
    rng = random.Random(f"use {given.key}")
    before = os.getcwd()
    os.chdir(folder)
    try:
        try:
            SEEDS[given.seed](rng, given.damaged)
            return "accepted", ""
        except VaekitError as error:
            str(error).encode()  # it must be possible to print
            return "refused", f"{type(error).__name__}: {error}"
    except Exception:
        return "traceback", traceback.format_exc()
    finally:
        os.chdir(before)


class Memory:
    """The memory that inputs need beyond what the process held; a system call per input, unless the peak rises."""

    def __init__(self) -> None:
        self.held, self.peak = self._held(), self._peak()

    def grown(self) -> int:
        """Bytes by which the peak has risen above the memory held before, if it is a new peak."""
        peak = self._peak()
        if peak == self.peak:
            return 0
        grown, self.peak = peak - self.held, peak
        if grown < MEMORY // 10:
            return grown
        Path("/proc/self/clear_refs").write_text("5")  # lowers the peak to what is held now
        self.held, self.peak = self._held(), self._peak()
        return grown

    @staticmethod
    def _held() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE

    @staticmethod
    def _peak() -> int:
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Serial:
    """In place of threads for opening images, which take a third of the time of small ones."""

    def __init__(self, workers: int):
        self.map = map

    def __enter__(self) -> Serial:
        return self

    def __exit__(self, *error: object) -> None: ...


def forked(path: Path, seconds: int, memory: int) -> int:
    """In place of a new Python process for every HDF5 file, which takes 0.2 s: a fork of this one."""
    from vaekit.data.readers import hdf5_walk

    if not (child := os.fork()):
        code = 1
        try:
            code = hdf5_walk.walk(str(path), seconds, memory)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# --- workers --------------------------------------------------------------------------------------------------------


def work(numbers: Any, results: Any, current: Any, folder: Path, make_one: Callable[[int], Input]) -> None:
    """Run a worker: repeatedly take a number, try its input, and report the outcomes."""
    from vaekit.data.readers import hdf5, images
    from vaekit.training import parallel

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    images.ThreadPoolExecutor = Serial  # type: ignore[assignment, misc]
    hdf5._walked, hdf5.SECONDS = forked, 1  # seconds that each looping HDF5 file takes
    parallel.launch = lambda devices, device, batch: None  # a second process would run this very script
    os.environ["TORCHDYNAMO_DISABLE"] = "1"  # a damaged run.json may ask for 20 s of compiling
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the end
    memory = Memory()
    resource.setrlimit(resource.RLIMIT_AS, (memory.held + ADDRESSES, memory.held + ADDRESSES))
    where = open(folder.with_suffix(".trace"), "w+")  # noqa: SIM115
    faulthandler.register(signal.SIGUSR1, where)
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    reported = time.monotonic()
    while (number := numbers()) is not None:
        current[0], current[1], current[2] = number, time.time(), time.process_time()
        damaged = make_one(number)
        outcome, text = attempt(damaged, folder)
        if (grown := memory.grown()) > MEMORY + damaged.size:
            outcome, text = "memory", f"{grown / 1e9:.2f} GB for {damaged.size} bytes\n{text}"
        if outcome in ("accepted", "refused"):
            counts[damaged.seed, outcome] += 1
        else:
            results.send((number, damaged.seed, outcome, text))
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() - reported > REPORTED:
            results.send(counts)
            counts, reported = collections.Counter(), time.monotonic()
        if memory.held > LEAKED:
            break
    results.send(counts)
    results.close()


class Pool:
    """Starts workers, enforces their time limits, and counts the outcomes."""

    def __init__(self, size: int, make_one: Callable[[int], Input], keep: Path, last: int | None, until: float):
        self.make_one, self.keep, self.last, self.until = make_one, keep, last, until
        self.context = multiprocessing.get_context("fork")
        self.next = self.context.Value("q", 0)
        self.folder = Path(
            tempfile.mkdtemp(prefix="vaekit-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        )
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self.findings: collections.Counter[str] = collections.Counter()
        self.size, self.workers, self.made = size, [], 0

    def _numbers(self) -> int | None:
        with self.next.get_lock():
            number = self.next.value
            if time.time() > self.until or (self.last is not None and number >= self.last):
                return None
            self.next.value += 1
            return number

    def start(self) -> None:
        hear, tell = self.context.Pipe(duplex=False)
        current = self.context.Array("d", [-1.0, 0.0, 0.0], lock=False)
        self.made += 1
        folder = self.folder / str(self.made)
        process = self.context.Process(target=work, args=(self._numbers, tell, current, folder, self.make_one))
        process.start()
        tell.close()
        self.workers.append((process, hear, current, folder))

    def run(self) -> None:
        for _ in range(self.size):
            self.start()
        while self.workers:
            for ready in wait([hear for _, hear, _, _ in self.workers], timeout=1.0):
                worker = next(w for w in self.workers if w[1] is ready)
                try:
                    report = ready.recv()
                except EOFError:
                    self._ended(worker)
                    continue
                if isinstance(report, collections.Counter):
                    self.counts += report
                else:
                    self.count(*report)
            for worker in list(self.workers):
                number, started, used = worker[2]
                if number >= 0 and (cpu_of(worker[0].pid) - used > SECONDS or time.time() - started > 10 * SECONDS):
                    os.kill(worker[0].pid, signal.SIGUSR1)  # writes the trace
                    time.sleep(0.5)
                    self.count(int(number), "", "hang", worker[3].with_suffix(".trace").read_text())
                    worker[2][0] = -1
                    worker[0].kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _ended(self, worker: Any) -> None:
        self.workers.remove(worker)
        process, _, current, folder = worker
        process.join()
        shutil.rmtree(folder, ignore_errors=True)
        if process.exitcode and int(current[0]) >= 0:
            self.count(int(current[0]), "", "crash", f"the process ended with exit code {process.exitcode}")
        with self.next.get_lock():
            over = time.time() > self.until or (self.last is not None and self.next.value >= self.last)
        if not over:
            self.start()

    def count(self, number: int, seed: str, outcome: str, text: str) -> None:
        """Count a finding and keep its files."""
        given = self.make_one(number)
        self.counts[seed or given.seed, outcome] += 1
        name = f"{outcome}: {summary(text)}"
        self.findings[name] += 1
        if self.findings[name] <= KEPT:
            file = save(given, self.keep, outcome, text)
            print(f"{name}\n    {file}", flush=True)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process; wall-clock time is misleading when other programs run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def summary(text: str) -> str:
    """A finding in one line: the innermost line of vaekit and the error."""
    lines = text.strip().splitlines()
    ours = [line.strip() for line in lines if "/vaekit/" in line and "line" in line]
    place = ours[-1].split("/vaekit/")[-1].replace('"', "") if ours else ""
    return f"{place} {lines[-1][:150] if lines else ''}"


def save(given: Input, keep: Path, outcome: str, text: str) -> Path:
    keep.mkdir(parents=True, exist_ok=True)
    file = keep / f"{outcome}-{given.seed}-{given.key}.zip"
    with zipfile.ZipFile(file, "w") as out:
        about = {"seed": given.seed, "key": given.key, "damaged": given.damaged, "text": text}
        out.writestr("finding.json", json.dumps(about))
        for name, content in given.files.items():
            out.writestr(f"files/{name}", content)
    return file


def replay(file: Path) -> int:
    """Try a kept input again in this process and print the outcome."""
    with zipfile.ZipFile(file) as held:
        finding = json.loads(held.read("finding.json"))
        files = {n.removeprefix("files/"): held.read(n) for n in held.namelist() if n.startswith("files/")}
    with tempfile.TemporaryDirectory(prefix="vaekit-fuzz-") as folder:
        memory, started = Memory(), time.time()
        given = Input(finding["seed"], finding["key"], files, tuple(finding["damaged"]))
        outcome, text = attempt(given, Path(folder))
        grown = memory.grown()
    print(text)
    print(f"{outcome}, {time.time() - started:.1f} s, {grown / 1e6:.0f} MB of additional memory")
    return outcome not in ("accepted", "refused")


def fuzz(inputs: int | None, minutes: float, seed: int, workers: int, keep: Path, only: str | None = None) -> Pool:
    """Try `inputs` inputs, or as many as fit into `minutes`; returns the pool with its counts."""
    import torch

    torch.set_num_threads(1)
    np.seterr(all="ignore")
    seeds = make()
    until = float("inf") if inputs is not None else time.time() + 60 * minutes
    pool = Pool(workers, lambda number: make_input(number, seed, seeds, only), keep, inputs, until)
    pool.run()
    return pool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, help="number of inputs; default: as many as --minutes allows")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1) // 2))
    parser.add_argument("--only", help="only seeds whose name begins with this: npy, csv, run, ...")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="folder for findings")
    parser.add_argument("--replay", type=Path, help="try this kept finding again")
    asked = parser.parse_args()
    if asked.replay:
        return replay(asked.replay)
    started = time.time()
    pool = fuzz(asked.inputs, asked.minutes, asked.seed, asked.workers, asked.keep, asked.only)
    outcomes = ("accepted", "refused", "traceback", "hang", "memory", "crash")
    out = io.StringIO()
    print(f"{'seed':24}" + "".join(f"{o:>11}" for o in outcomes), file=out)
    for name in [*sorted({s for s, _ in pool.counts}), "all"]:
        row = [
            sum(n for (s, o), n in pool.counts.items() if o == outcome and name in (s, "all")) for outcome in outcomes
        ]
        print(f"{name:24}" + "".join(f"{n:>11,}" for n in row), file=out)
    print(out.getvalue() + f"{sum(pool.counts.values()):,} inputs in {time.time() - started:.0f} s")
    for name, n in pool.findings.most_common():
        print(f"{n:6} {name}")
    return bool(pool.findings)


if __name__ == "__main__":
    sys.exit(main())
