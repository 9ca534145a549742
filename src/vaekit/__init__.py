"""vaekit: variational autoencoders on your own data."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Batch": "objectives",
    "Composition": "composition",
    "Conditional": "conditional",
    "Data": "data",
    "Defaults": "composition",
    "ELBO": "objectives",
    "Facts": "composition",
    "Latent": "model",
    "Model": "model",
    "Noise": "noise",
    "Objective": "objectives",
    "Options": "options",
    "Run": "run",
    "StandardNormal": "priors",
    "Terms": "objectives",
    "Trace": "model",
    "VAE": "model",
    "VaekitError": "errors",
    "conditional": "",
    "datasets": "data",
    "distributions": "",
    "fit": "train",
    "from_arrays": "data",
    "gaussian_vae": "recipes",
    "get_recipe": "recipes",
    "latent": "",
    "load": "data",
    "nets": "",
    "objectives": "",
    "open": "run",
    "priors": "",
    "schedules": "",
    "studies": "",
    "study": "studies",
    "terms": "",
}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that `import vaekit` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vaekit' has no attribute {name!r}")
    home = _HOMES[name]
    if not home:
        return importlib.import_module(f".{name}", __name__)
    module = importlib.import_module(f".{home}", __name__)
    return getattr(module, "open_run" if name == "open" else name)


def __dir__() -> list[str]:
    return __all__
