"""Kill training runs, fill their disk, and run several at once; check that the runs recover without loss.

    python tools/torture.py --kills 300
    python tools/torture.py --only disk --seed 3

- kill: a run is killed before or after its k-th step, rename, flush or removal, or while a file is half written: at
  every such event in turn, then up to three times more at random ones.
- disk: the size of a run's files is limited, as on a full disk.
- crowd: several processes train into one directory; then threads share one cache and measure one run.

After each, the resumed training must end with the same weights, checkpoint and records as an undisturbed one.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

OPTIONS: dict[str, Any] = {
    "steps": 10, "checkpoint_steps": 2, "validate_steps": 4, "patience": 50, "batch": 8, "latent": 2, "hidden": (4,),
    "device": "cpu", "compile": "off", "progress": False,
}  # fmt: skip
KILLED, REFUSED, BROKEN = 9, 3, 4
"""Exit status of a child: killed, ended by a VaekitError, ended by another exception."""
LATE = 120
"""Seconds after which a child is considered to hang."""
WAYS = ("before", "after", "half")
MOST_KILLS = 4
"""Maximum number of kills of one run."""


class Failure(Exception):
    """A run lost something or did not end as expected."""


# --- child processes ------------------------------------------------------------------------------------------------


def train(folder: Path) -> None:
    """Start or resume the training in `folder`."""
    from vaekit.run import fit

    begun = (folder / "run" / "run.json").exists()
    if begun:
        fit(folder / "x.npy", out=folder / "run", resume=True, progress=False)
    else:
        fit(folder / "x.npy", "vae", out=folder / "run", **OPTIONS)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def kill_at(event: int, way: str = "before") -> Callable[[], int]:
    """Kill this process before or after its `event`-th step, rename, flush or removal, or half through writing a file.

    Returns a function that counts events.
    """
    from vaekit.training import loop as trainer
    from vaekit.utils import files

    count = 0

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            mine = count == event
            if mine and way == "before":
                die()
            result = function(*given, **named)
            if mine:
                die()
            return result

        return call

    whole = files.write_atomically

    def cut(path: Path, write: Callable[[Path], object]) -> None:
        def halved(part: Path) -> None:
            nonlocal count
            write(part)
            count += 1
            if count == event:
                if way == "half":
                    os.truncate(part, part.stat().st_size // 2)
                die()

        whole(path, halved)

    for name in ("replace", "fsync", "unlink", "mkdir", "rename"):
        setattr(os, name, watched(getattr(os, name)))
    trainer.Trainer.one_step = watched(trainer.Trainer.one_step)  # type: ignore[method-assign]
    files.write_atomically = cut
    return lambda: count


def child(work: Callable[[], object]) -> tuple[int, str]:
    """Run `work` in a forked process; returns its exit status and its error message."""
    return ended(*start(work))


def start(work: Callable[[], object]) -> tuple[int, int]:
    """Start a forked process that runs `work`; returns its process ID and a pipe for its message."""
    hear, tell = os.pipe()
    pid = os.fork()
    if not pid:
        status, text = 0, ""
        try:
            os.close(hear)
            signal.signal(signal.SIGALRM, late)
            signal.alarm(LATE)
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the end
            warnings.simplefilter("ignore")
            text = str(work() or "")
        except BaseException as error:
            from vaekit.errors import VaekitError

            status, text = (REFUSED, str(error)) if isinstance(error, VaekitError) else (BROKEN, traceback.format_exc())
        finally:
            os.write(tell, text.encode("utf8", "replace")[-60_000:])
            os._exit(status)
    os.close(tell)
    return pid, hear


def late(number: int, frame: Any) -> None:
    raise TimeoutError(f"not done after {LATE} s")


def ended(pid: int, hear: int) -> tuple[int, str]:
    with os.fdopen(hear, "rb") as pipe:
        text = pipe.read().decode("utf8", "replace")
    _, status = os.waitpid(pid, 0)
    return (KILLED if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)), text


# --- comparison with an undisturbed run -----------------------------------------------------------------------------


def state(run: Path) -> dict[str, Any]:
    """Everything in a run that must not depend on interruptions: no times, no paths."""
    from vaekit.runs.stored import read_log
    from vaekit.utils.files import read_tensors

    config = json.loads((run / "run.json").read_text())
    last = sorted((run / "checkpoint").iterdir())[-1]
    tensors, meta = read_tensors(last)
    return {
        "weights": (run / "model.safetensors").read_bytes(),
        "splits": (run / "splits.safetensors").read_bytes(),
        "checkpoint": {n: t.numpy().tobytes() for n, t in tensors.items()},
        "meta": {k: v for k, v in meta.items() if k != "seconds"},
        "log": [{k: v for k, v in r.items() if k != "seconds"} for r in read_log(run)],
        "config": {k: config[k] for k in ("state", "step", "valid", "best", "training", "arguments")},
    }


def compare(run: Path, whole: dict[str, Any]) -> None:
    current = state(run)
    for name, value in whole.items():
        if current[name] != value:
            raise Failure(f"{name} differs from an undisturbed run")
    left = [p.name for p in run.rglob("*") if p.name.endswith(".part")]
    if left:
        raise Failure(f"unfinished files remain: {', '.join(left)}")


def looked_at(run: Path) -> str:
    """Open the run in its present state and describe it."""
    import vaekit as vk

    if not (run / "run.json").exists():
        return "nothing yet"
    opened = vk.open(run)
    return f"{opened.config['state']} {len(opened.log) > 0}"


# --- the disturbances -----------------------------------------------------------------------------------------------


def kill(
    folder: Path, rng: random.Random, whole: dict[str, Any], counts: collections.Counter[str], events: int, number: int
) -> None:
    """Kill one run up to `MOST_KILLS` times, open it after each kill, then let it finish.

    The first kills of successive rounds are at successive events, in one way after the other.
    """

    def doomed(event: int, way: str) -> None:
        kill_at(event, way)
        train(folder)

    for i in range(rng.randint(1, MOST_KILLS)):
        event, way = rng.randint(1, max(1, events // rng.choice((1, 2, 4, 8)))), rng.choice(WAYS)
        if i == 0:
            event, way = 1 + number % events, WAYS[number // events % len(WAYS)]
        status, text = child(lambda e=event, w=way: doomed(e, w))
        if status in (BROKEN, REFUSED):
            raise Failure(f"a run ended in an error instead of being killed: {text[-3000:]}")
        counts["kills"] += status == KILLED
        counts["kills at events in turn"] += status == KILLED and i == 0
        status, text = child(lambda: looked_at(folder / "run"))
        if status == BROKEN:
            raise Failure(f"a killed run could not be opened: {text[-3000:]}")
        counts["opened" if status == 0 else "not yet openable, with a proper message"] += 1
    status, text = child(lambda: train(folder))
    if status:
        raise Failure(f"a killed training does not resume: {text[-3000:]}")
    compare(folder / "run", whole)
    counts["ended in the same bytes"] += 1


def disk(
    folder: Path, rng: random.Random, whole: dict[str, Any], counts: collections.Counter[str], events: int, number: int
) -> None:
    """Train with a limit on file size, as on a full disk, then resume without the limit."""
    most = rng.choice((0, 1, 100, 1000, rng.randrange(16_000)))

    def starved() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        train(folder)

    status, text = child(starved)
    if status in (BROKEN, KILLED):
        raise Failure(f"with files limited to {most} bytes: {text[-3000:]}")
    counts["disk full, with a proper message" if status == REFUSED else "enough space"] += 1
    status, text = child(lambda: train(folder))
    if status:
        raise Failure(f"a run does not resume after a full disk: {text[-3000:]}")
    compare(folder / "run", whole)
    counts["ended in the same bytes"] += 1


def crowd(
    folder: Path, rng: random.Random, whole: dict[str, Any], counts: collections.Counter[str], events: int, number: int
) -> None:
    """Train in one directory from several processes at once, then read and measure the run from several threads."""
    begun = [start(lambda: train(folder)) for _ in range(3)]
    ends = [ended(*each) for each in begun]
    if broken := [text for status, text in ends if status not in (0, REFUSED)]:
        raise Failure(f"several processes in one directory: {broken[0][-3000:]}")
    counts["refused beside another"] += sum(status == REFUSED for status, _ in ends)
    status, text = child(lambda: train(folder))  # resumes if no process has finished
    if status:
        raise Failure(f"a run started by several processes does not resume: {text[-3000:]}")
    compare(folder / "run", whole)
    status, text = child(lambda: together(folder))
    if status:
        raise Failure(f"several threads: {text[-3000:]}")
    counts["ended in the same bytes"] += 1


def together(folder: Path) -> None:
    """Load one folder of images through one cache and measure one run, from several threads."""
    import torch
    from PIL import Image

    import vaekit as vk

    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for i, x in enumerate(np.load(folder / "x.npy")[:12]):
        Image.fromarray(x).save(pictures / f"{i}.png")
    found: list[Any] = []
    torch.set_num_threads(1)  # torch recreates its thread pool after a fork; do it in one thread first

    def use(i: int) -> None:
        try:
            data = vk.load(pictures, cache=folder / "cache")
            run = vk.open(folder / "run")
            metrics = run.evaluate(samples=2, n=4, seed=i)
            found.append((data.digest, len(metrics)))
        except BaseException:
            found.append(traceback.format_exc())

    threads = [threading.Thread(target=use, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(set(found)) != 1 or isinstance(found[0], str):
        raise RuntimeError(f"the threads' results differ: {[f for f in found if isinstance(f, str)] or found}")
    vk.open(folder / "run").metrics  # noqa: B018 - must be valid, whichever thread wrote last


TORTURES: dict[str, Callable[..., None]] = {"kill": kill, "disk": disk, "crowd": crowd}


def torture(
    kills: int, seed: int, only: str | None = None, say: Callable[[str], None] = print
) -> collections.Counter[str]:
    """Disturb runs until `kills` kills have happened (with `only="disk"` or "crowd": that many disturbances).

    Raises:
        Failure: something was lost.
    """
    import torch

    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp(prefix="vaekit-torture-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    counts: collections.Counter[str] = collections.Counter()
    try:
        x = np.random.default_rng(0).integers(0, 256, (40, 5, 4), dtype=np.uint8)
        np.save(root / "x.npy", x)

        def undisturbed() -> int:
            counted = kill_at(0)
            train(root)
            return counted()

        train(root)  # import all modules before forking
        looked_at(root / "run")
        shutil.rmtree(root / "run")
        status, events = child(undisturbed)
        if status:
            raise Failure(f"an undisturbed run failed: {events}")
        whole, round_ = state(root / "run"), 0
        say(f"{events} events in a training")
        while (counts["kills"] if only in (None, "kill") else round_) < kills:
            rng = random.Random(f"{seed}-{round_}")
            kind = only or rng.choice(("kill",) * 8 + ("disk", "crowd"))
            folder = root / str(round_)
            folder.mkdir()
            shutil.copy(root / "x.npy", folder)
            try:
                TORTURES[kind](folder, rng, whole, counts, int(events), counts[f"rounds of {kind}"])
            except Failure as failure:
                raise Failure(f"{kind}, --seed {seed}, round {round_}: {failure}") from None
            shutil.rmtree(folder)
            round_ += 1
            counts[f"rounds of {kind}"] += 1
            if round_ % 50 == 0:
                say(f"{round_} rounds, {counts['kills']} kills")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=TORTURES)
    asked = parser.parse_args()
    started = time.time()
    try:
        counts = torture(asked.kills, asked.seed, asked.only)
    except Failure as failure:
        print(f"LOST: {failure}")
        return 1
    for name, n in sorted(counts.items()):
        print(f"{n:6} {name}")
    print(f"in {time.time() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
