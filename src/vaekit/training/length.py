"""The length of a training in steps, and the pace by which it is estimated if minutes are given."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

PLAN_SECONDS = 10.0


@dataclass
class Length:
    """The length of the run: a horizon in steps, which is estimated anew if the run is limited by minutes."""

    horizon: int
    minutes: float | None
    revised: bool = False

    def revise(self, step: int, seconds: float, per_step: float) -> bool:
        """Update the horizon after `seconds` in all; returns whether it changed by more than 1%."""
        assert self.minutes is not None
        self.revised = True
        remaining = max(self.minutes * 60 - seconds, 0.0)
        horizon = step + int(remaining / max(per_step, 1e-9))
        moved = abs(horizon - self.horizon) > 0.01 * self.horizon
        if moved:
            self.horizon = horizon
        return moved


class Clock:
    """Measures seconds per step over about a minute, every 10 seconds, without compilation and the first steps."""

    WARM = 20  # steps

    def __init__(self, step: int):
        self.first = step
        self.since: tuple[int, float] | None = None
        self.reported = -math.inf

    def per_step(self, step: int) -> float | None:
        """The current estimate, or None if none is due."""
        now = time.monotonic()
        if self.since is None:
            if step - self.first >= self.WARM:
                self.since = (step, now)
            return None
        if step - self.since[0] < self.WARM or now - self.reported < PLAN_SECONDS:
            return None
        estimate = (now - self.since[1]) / (step - self.since[0])
        self.reported = now
        if now - self.since[1] > 60:
            self.since = (step, now)
        return estimate
