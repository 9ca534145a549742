"""The run that comes with vaekit: a small VAE of Fashion-MNIST, with some test images.

`python tools/example.py` creates it.
"""

from __future__ import annotations

from pathlib import Path

from vaekit.utils.files import checked_path

NAME = "example"
PLACE = Path(__file__).parent


def place(path: str | Path) -> Path:
    """The path of a run; `example` is the packaged run unless a directory of that name exists."""
    path = checked_path(path)
    return PLACE if str(path) == NAME and not path.exists() else path
