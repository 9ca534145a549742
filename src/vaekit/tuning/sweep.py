"""`Sweep`: what `tune` returns."""

from __future__ import annotations

from pathlib import Path

from vaekit.utils.files import checked_path

from .page import write_sweep
from .records import PAGE
from .stored import StoredSweep


class Sweep(StoredSweep):
    """The trials of a sweep, opened from its directory by `Sweep("sweeps/digits-vae")` or returned by `tune`.

    See `vaekit.tuning.stored.StoredSweep` for its attributes and methods.
    """

    def report(self, path: str | Path | None = None) -> Path:
        """Write the page about the sweep, and return its path; by default sweep.html in its directory."""
        return write_sweep(self, self.path / PAGE if path is None else checked_path(path))
