"""vaekit: variational autoencoders on your own data."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "audit": "auditing",
    "Batch": "objectives",
    "Callback": "callbacks",
    "Composition": "recipes",
    "Conditional": "heads",
    "Data": "data",
    "Defaults": "recipes",
    "ELBO": "objectives",
    "DataSpec": "recipes",
    "Latent": "models",
    "Model": "models",
    "Noise": "noise",
    "Objective": "objectives",
    "Options": "options",
    "Run": "run",
    "StandardNormal": "models",
    "Losses": "objectives",
    "Trace": "models",
    "VAE": "models",
    "VaekitError": "errors",
    "compare": "metrics",
    "datasets": "data",
    "doctor": "diagnosis",
    "evaluate": "metrics",
    "fit": "run",
    "from_arrays": "data",
    "gaussian_vae": "recipes",
    "get_recipe": "recipes",
    "load": "data",
    "open": "run",
    "study": "studies",
    "tune": "tuning",
}
_MODULES = {
    "densities": "densities",
    "figures": "figures",
    "heads": "heads",
    "latents": "latents",
    "metrics": "metrics",
    "models": "models",
    "networks": "networks",
    "objectives": "objectives",
    "priors": "models.priors",
    "recipes": "recipes",
    "schedules": "objectives.schedules",
    "studies": "studies",
    "terms": "objectives.terms",
}
_RENAMED = {
    "Facts": "DataSpec",
    "Terms": "Losses",
    "conditional": "heads",
    "distributions": "densities",
    "latent": "latents",
    "nets": "networks",
}

__all__ = sorted({*_HOMES, *_MODULES, "__version__"} - {"open"})
"""Without `vaekit.open`: `from vaekit import *` is not to hide Python's own `open`."""


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that `import vaekit` costs nothing."""
    if name in _RENAMED:
        warnings.warn(f"vaekit.{name} is now vaekit.{_RENAMED[name]}", FutureWarning, stacklevel=2)
        name = _RENAMED[name]
    if name in _MODULES:
        return importlib.import_module(f".{_MODULES[name]}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module 'vaekit' has no attribute {name!r}")
    module = importlib.import_module(f".{_HOMES[name]}", __name__)
    return getattr(module, "open_run" if name == "open" else name)


def __dir__() -> list[str]:
    return [*__all__, "open"]
