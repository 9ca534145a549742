"""Signals during training: the first asks it to stop, the second stops it at once."""

from __future__ import annotations

import signal
from typing import Any


class Signals:
    """Turns the first SIGINT, SIGTERM or SIGHUP into a flag; the second raises KeyboardInterrupt."""

    HANG_UP = tuple(s for s in signal.Signals if s.name == "SIGHUP")  # Windows has none

    def __enter__(self) -> Signals:
        self.asked: str | None = None
        self.old: dict[int, Any] = {}
        try:
            for s in (signal.SIGINT, signal.SIGTERM, *self.HANG_UP):
                if s not in self.HANG_UP or signal.getsignal(s) != signal.SIG_IGN:  # ignored under nohup
                    self.old[s] = signal.signal(s, self._note)
        except ValueError:  # only the main thread can handle signals
            self.old = {}
        return self

    def _note(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name

    def __exit__(self, *error: Any) -> None:
        for s, handler in self.old.items():
            signal.signal(s, signal.SIG_DFL if handler is None else handler)  # None: a handler not set by Python
