"""Live progress: a panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import builtins
import contextlib
import math
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, TextIO

from .wording import worded


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line to standard error; where nobody can read it any more (a closed pipe or terminal), go on without."""
    stream = sys.stderr if stream is None else stream
    with unless_broken(stream):
        print(worded(text), file=stream, flush=True)


@contextlib.contextmanager
def unless_broken(stream: TextIO) -> Iterator[None]:
    """Where writing to `stream` fails meanwhile, let that and whatever is written to it from now on vanish."""
    try:
        yield
    except (OSError, ValueError, SystemExit):  # rich exits on a broken pipe
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def is_interactive() -> bool:
    """Whether a person types at this program, in a notebook or at Python's prompt."""
    return hasattr(sys, "ps1") or hasattr(builtins, "__IPYTHON__")


class Progress(ABC):
    """What training tells as it goes on.

    Attributes:
        stop: set it to end the training after the present step; the run is saved and given back as `interrupted`.
        unit: what the data are: images, signals or rows.
    """

    stop = False
    unit = "images"

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    @abstractmethod
    def update(
        self,
        step: int,
        horizon: int,
        epoch: float,
        train: dict[str, float],
        valid: dict[str, float],
        per_second: float,
    ) -> None: ...

    @abstractmethod
    def note(self, text: str) -> None: ...


def unit(kind: str) -> str:
    """What data of this kind are called in the plural."""
    return f"{kind}s" if kind in ("image", "signal") else "rows"


class Silent(Progress):
    """Says nothing."""

    def update(self, *args: Any) -> None:
        return None

    def note(self, text: str) -> None:
        return None


def _clock(seconds: float) -> str:
    if math.isnan(seconds):
        return "?"
    seconds = int(max(seconds, 0))
    return (
        f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        if seconds >= 3600
        else f"{seconds // 60}:{seconds % 60:02d}"
    )


class _Speed:
    """Data per second and time left, over the last half minute."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def left(self, step: int, horizon: int) -> float:
        now = time.monotonic()
        self.marks.append((now, step))
        while len(self.marks) > 2 and now - self.marks[0][0] > 30:
            self.marks.pop(0)
        (t0, s0), (t1, s1) = self.marks[0], self.marks[-1]
        per_second = (s1 - s0) / (t1 - t0) if t1 > t0 else 0.0
        return (horizon - step) / per_second if per_second else math.nan


class Plain(Progress):
    """One line at every tenth of the way, and at most one every ten seconds besides."""

    def __init__(self, stream=None) -> None:
        self.stream = stream or sys.stderr
        self.last, self.tenth, self.speed = 0.0, -1, _Speed()

    def update(self, step, horizon, epoch, train, valid, per_second) -> None:
        left = self.speed.left(step, horizon)
        tenth = 10 * step // max(horizon, 1)
        now = time.monotonic()
        if tenth == self.tenth and now - self.last < 10:
            return
        self.last, self.tenth = now, tenth
        parts = [f"step {step}/{horizon}", f"epoch {epoch:.1f}"]
        if "elbo" in train:
            parts.append(f"ELBO {train['elbo']:.2f} (rate {train['rate']:.2f}, distortion {train['distortion']:.2f})")
        elif "distortion" in train:
            parts.append(f"distortion {train['distortion']:.2f}")
        if valid:
            parts.append(f"valid {valid.get('elbo', valid['distortion']):.2f}")
        if per_second:
            parts.append(f"{per_second:,.0f} {self.unit}/s")
        parts.append(f"left {_clock(left)}")
        say("  ".join(parts), self.stream)

    def note(self, text: str) -> None:
        say(text, self.stream)


class Live(Progress):
    """A bar and the numbers beneath it, drawn anew in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive
        from rich.text import Text

        self.console = Console(stderr=True)
        self.live = RichLive(Text("starting ..."), console=self.console, refresh_per_second=8, transient=False)
        self.speed = _Speed()

    def __enter__(self) -> Progress:
        with unless_broken(sys.stderr):
            self.live.start()
        return self

    def __exit__(self, *error: Any) -> None:
        with unless_broken(sys.stderr):
            self.live.stop()

    def note(self, text: str) -> None:
        with unless_broken(sys.stderr):
            self.live.console.print(worded(text), style="dim")

    def update(self, step, horizon, epoch, train, valid, per_second) -> None:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        left = self.speed.left(step, horizon)
        head = Table.grid(padding=(0, 2))
        head.add_row(
            f"step {step:,}/{horizon:,}",
            f"epoch {epoch:.2f}",
            f"{per_second:,.0f} {self.unit}/s",
            f"left {_clock(left)}",
        )
        numbers = Table.grid(padding=(0, 3))
        for what, style, values, unit in (
            ("train", "bold cyan", train, "nats"),
            ("valid", "green", valid, f"step {valid['step']:,}" if valid else ""),
        ):
            cells: list[Any] = [what]
            for name, heading in (("elbo", "ELBO"), ("rate", "rate"), ("distortion", "distortion")):
                if name in values:
                    cells += [heading, Text(f"{values[name]:.2f}", style=style if len(cells) == 1 else "")]
            if len(cells) > 1:
                numbers.add_row(*cells, Text(unit, style="dim"))
        self.live.update(
            Group(head, ProgressBar(total=max(horizon, 1), completed=min(step, horizon), width=60), numbers)
        )


def progress_for() -> Progress:
    """A panel where standard error is a terminal, else plain lines."""
    return Live() if sys.stderr.isatty() else Plain()
