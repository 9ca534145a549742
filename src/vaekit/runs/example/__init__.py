"""The run that comes with vaekit: a small VAE of Fashion-MNIST, with some test images.

`python tools/example.py` creates it.
"""

from __future__ import annotations

from pathlib import Path

from vaekit.utils import hub
from vaekit.utils.files import checked_path

NAME = "example"
PLACE = Path(__file__).parent
PUBLISHED = ("run.json", "model.safetensors", "splits.safetensors", "log.jsonl", "metrics.json")
"""The files of a run that are published on the Hugging Face hub, beside its densities of codes."""
OF_DENSITIES = tuple(f"latents/*{suffix}" for suffix in (".json", ".jsonl", ".safetensors"))
"""Patterns of the files of its densities of codes."""


def place(path: str | Path) -> Path:
    """The path of a run; `example` is the packaged run unless a directory of that name exists.

    A run at an address of the Hugging Face hub is downloaded into the cache of huggingface_hub.
    """
    if hub.is_address(path):
        return hub.fetched(path, (*PUBLISHED, *OF_DENSITIES))
    path = checked_path(path)
    return PLACE if str(path) == NAME and not path.exists() else path


def why_fixed(path: Path) -> str | None:
    """Why nothing is stored in the run at `path`: it is the packaged one, or in the cache of the hub; or None."""
    if path == PLACE:
        return "the packaged run is never changed"
    source = hub.origin(path)
    return None if source is None else f"the copy of {source} in the cache is never changed"


def is_fixed(path: Path) -> bool:
    """Whether nothing is stored in the run at `path`: see `why_fixed`."""
    return why_fixed(path) is not None
