"""Progress of training in the output of a notebook's cell, and the choice between it and other receivers."""

from __future__ import annotations

import html
import sys
import time
from typing import Any

from .display import cells
from .progress import Figures, Live, Plain, Progress, Speed, left, say
from .wording import worded

EVERY = 0.25
"""Seconds between updates: more would fill the connection to the browser."""
NUMBERS = {"elbo": "ELBO", "rate": "rate", "distortion": "distortion"}


def in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this program, as in Jupyter, VS Code and Colab.

    IPython is not imported for it: where a kernel runs, it has been.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


class Cell(Progress):
    """A bar with the latest numbers, updated in place; it needs no widgets.

    Where the output is stored or shown as text, the last line of numbers stands in its place.
    """

    def __init__(self) -> None:
        self.speed, self.last, self.handle = Speed(), -EVERY, None
        self.notes: list[str] = []
        self.bar, self.text = "", "starting ..."

    def __enter__(self) -> Progress:
        self._show()
        return self

    def __exit__(self, *error: Any) -> None:
        self._show()

    def note(self, text: str) -> None:
        """Show a message below the numbers, where it stays."""
        self.notes.append(worded(text))
        self._show()

    def update(self, step: int, horizon: int, epoch: float, train: Figures, valid: Figures, per_second: float) -> None:
        """Show the numbers of a step, if an update is due."""
        remaining = self.speed.seconds_left(step, horizon)
        now = time.monotonic()
        head = [f"step {step:,}/{horizon:,}", f"epoch {epoch:.2f}"]
        head += [f"{per_second:,.0f} {self.unit}/s"] if per_second else []
        self.bar = _bar(step / max(horizon, 1), "   ".join([*head, *left(remaining)]), _numbers(train, valid))
        lines = [" ".join(f"{name} {values[key]:.2f}" for key, name in NUMBERS.items() if key in values)
                 for values in (train, valid)]  # fmt: skip
        self.text = "  ".join([*head, *filter(None, [lines[0], f"valid {lines[1]}" if lines[1] else ""])])
        if step >= horizon or now - self.last >= EVERY:
            self.last = now
            self._show()

    def _show(self) -> None:
        """Write the present state into the cell; if the notebook is gone, write lines instead."""
        from IPython.display import display

        notes = "".join(f"<div><small>{html.escape(note)}</small></div>" for note in self.notes)
        shown = {"text/html": f"{self.bar}{notes}" or self.text, "text/plain": "\n".join([self.text, *self.notes])}
        try:
            if self.handle is None:
                self.handle = display(shown, raw=True, display_id=True)
            else:
                self.handle.update(shown, raw=True)
        except OSError:
            say(self.text)


def progress_for() -> Progress:
    """A bar in a notebook, a live panel if standard error is a terminal, else plain lines."""
    if in_notebook():
        return Cell()
    return Live() if sys.stderr.isatty() else Plain()


def _bar(share: float, head: str, numbers: str) -> str:
    done = f"{100 * min(share, 1.0):.1f}"
    return (
        f'<div style="font-size:.9em"><div role="progressbar" aria-valuenow="{done}" aria-valuemin="0" '
        'aria-valuemax="100" style="width:min(100%,32rem);height:6px;border-radius:3px;background:#8883;margin:.3em 0">'
        f'<div style="width:{done}%;height:100%;border-radius:3px;background:#2f7fc1"></div></div>'
        f"<div>{html.escape(head)}</div>{numbers}</div>"
    )


def _numbers(train: Figures, valid: Figures) -> str:
    """The latest numbers of training and validation as a table."""
    names = [key for key in NUMBERS if key in train or key in valid]
    rows = []
    for part, values in (("train", train), (f"valid, step {valid['step']:,.0f}" if valid else "valid", valid)):
        if values:
            rows.append([part, *(f"{values[key]:.2f}" if key in values else "" for key in names)])
    head = ["nats per example", *(NUMBERS[key] for key in names)]
    return cells(rows, head, range(1, len(head))) if names else ""
