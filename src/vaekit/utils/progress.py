"""Progress of training: a live panel on a terminal, plain lines elsewhere; `cell` has that of notebooks."""

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
    """Print a line to `stream` (standard error); a closed pipe or terminal is ignored."""
    stream = sys.stderr if stream is None else stream
    with unless_broken(stream):
        print(worded(text), file=stream, flush=True)


@contextlib.contextmanager
def unless_broken(stream: TextIO) -> Iterator[None]:
    """If writing to `stream` fails inside this context, discard that text and all later text."""
    try:
        yield
    except (OSError, ValueError, SystemExit):  # rich exits on a broken pipe
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def is_interactive() -> bool:
    """Whether a person runs this program in a notebook or at Python's prompt."""
    return "ps1" in vars(sys) or "__IPYTHON__" in vars(builtins)


Figures = dict[str, float]
"""Numbers of a step by name: `elbo`, `rate`, `distortion`, ..."""


class Progress(ABC):
    """Receives the progress of training; abstract.

    Attributes:
        stop: set it to True to end training after the current step; the run is saved and marked `interrupted`,
            or `finished` if that was the last step.
        unit: the word for examples, in the plural: images, signals or rows.
    """

    stop = False
    unit = "images"

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    @abstractmethod
    def update(self, step: int, horizon: int, epoch: float, train: Figures, valid: Figures, per_second: float) -> None:
        """Report the numbers of a step.

        Arguments:
            step, horizon: steps done, and total steps.
            epoch: passes through the training data, as a fraction.
            train, valid: latest ELBO, rate and distortion in nats per example; `valid` also has the step.
            per_second: training examples per second.
        """

    @abstractmethod
    def note(self, text: str) -> None:
        """Report a message to the user."""


def unit(kind: str) -> str:
    """The word for examples of this kind of data, in the plural: images, signals or rows."""
    return f"{kind}s" if kind in ("image", "signal") else "rows"


class Silent(Progress):
    """Reports nothing."""

    def update(self, *args: Any) -> None:
        """Ignore the numbers of a step."""

    def note(self, text: str) -> None:
        """Ignore a message."""


def left(seconds: float) -> list[str]:
    """The remaining time in words; nothing while it is unknown."""
    if math.isnan(seconds):
        return []
    minutes, rest = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return [f"left {hours}:{minutes:02d}:{rest:02d}" if hours else f"left {minutes}:{rest:02d}"]


class Speed:
    """Estimates the remaining time from the steps of the last 30 seconds."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def seconds_left(self, step: int, horizon: int) -> float:
        """Seconds until step `horizon`; nan while unknown."""
        if step >= horizon:
            return 0.0
        now = time.monotonic()
        self.marks.append((now, step))
        while len(self.marks) > 2 and now - self.marks[0][0] > 30:
            self.marks.pop(0)
        (t0, s0), (t1, s1) = self.marks[0], self.marks[-1]
        steps_per_second = (s1 - s0) / (t1 - t0) if t1 > t0 else 0.0
        return (horizon - step) / steps_per_second if steps_per_second else math.nan


class Plain(Progress):
    """Prints a line at every tenth of the training, and otherwise at most one every 10 seconds."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.last, self.tenth, self.speed = 0.0, -1, Speed()

    def update(self, step: int, horizon: int, epoch: float, train: Figures, valid: Figures, per_second: float) -> None:
        """Print a line with the numbers of a step, if one is due."""
        remaining = self.speed.seconds_left(step, horizon)
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
        parts += left(remaining)
        say("  ".join(parts), self.stream)

    def note(self, text: str) -> None:
        """Print a message as a line."""
        say(text, self.stream)


class Live(Progress):
    """Shows a bar with the latest numbers below it, updated in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive
        from rich.text import Text

        self.console = Console(stderr=True)
        self.live = RichLive(Text("starting ..."), console=self.console, refresh_per_second=8, transient=False)
        self.speed = Speed()

    def __enter__(self) -> Progress:
        with unless_broken(sys.stderr):
            self.live.start()
        return self

    def __exit__(self, *error: Any) -> None:
        with unless_broken(sys.stderr):
            self.live.stop()

    def note(self, text: str) -> None:
        """Print a message above the panel."""
        with unless_broken(sys.stderr):
            self.live.console.print(worded(text), style="dim")

    def update(self, step: int, horizon: int, epoch: float, train: Figures, valid: Figures, per_second: float) -> None:
        """Show the numbers of a step."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        remaining = self.speed.seconds_left(step, horizon)
        head = Table.grid(padding=(0, 2))
        head.add_row(
            f"step {step:,}/{horizon:,}",
            f"epoch {epoch:.2f}",
            f"{per_second:,.0f} {self.unit}/s",
            *left(remaining),
        )
        numbers = Table.grid(padding=(0, 3))
        for part, style, values, unit in (
            ("train", "bold cyan", train, "nats"),
            ("valid", "green", valid, f"step {valid['step']:,}" if valid else ""),
        ):
            cells: list[Any] = [part]
            for name, heading in (("elbo", "ELBO"), ("rate", "rate"), ("distortion", "distortion")):
                if name in values:
                    cells += [heading, Text(f"{values[name]:.2f}", style=style if len(cells) == 1 else "")]
            if len(cells) > 1:
                numbers.add_row(*cells, Text(unit, style="dim"))
        self.live.update(
            Group(head, ProgressBar(total=max(horizon, 1), completed=min(step, horizon), width=60), numbers)
        )
