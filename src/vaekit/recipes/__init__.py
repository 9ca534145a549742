"""Recipes: named compositions of prior, posterior, likelihood, objective and observation."""

from vaekit.utils.arguments import Argument

from . import classic, named, quantised, special
from .architectures import NETWORKS, Architecture, network
from .classic import gaussian_vae
from .compose import compose
from .composition import Composition, DataSpec, Defaults
from .observations import OBSERVATIONS, observation
from .registry import BEFORE, RECIPES, Recipe, get_recipe, recipe, setting

__all__ = [
    "BEFORE",
    "NETWORKS",
    "OBSERVATIONS",
    "RECIPES",
    "Architecture",
    "Argument",
    "Composition",
    "DataSpec",
    "Defaults",
    "Recipe",
    "classic",
    "compose",
    "gaussian_vae",
    "get_recipe",
    "named",
    "network",
    "observation",
    "quantised",
    "recipe",
    "setting",
    "special",
]
