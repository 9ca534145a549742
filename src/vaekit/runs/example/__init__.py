"""The run that comes with vaekit: a small VAE of Fashion-MNIST, and some test images to show with it.

`python tools/example.py` makes it.
"""

from __future__ import annotations

from pathlib import Path

from vaekit.utils.files import checked_path

NAME = "example"
PLACE = Path(__file__).parent


def place(path: str | Path) -> Path:
    """The path of a run; `example` is the packaged one where there is no such directory."""
    path = checked_path(path)
    return PLACE if str(path) == NAME and not path.exists() else path
