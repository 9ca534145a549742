"""Densities of standardised codes, by name: a Gaussian mixture, a normalising flow, a second VAE, flow matching."""

# isort: skip_file  # densities are listed in the order of their registration
from .base import BLOCK, DENSITIES, Density, OnProgress, Training, generator, latent_density
from .flow_matching import FlowMatchingDensity
from .gaussians import Gaussians
from .normalising import NormalisingFlow
from .posteriors import PosteriorDraw, Posteriors
from .second_stage import SecondStage

__all__ = [
    "BLOCK",
    "DENSITIES",
    "Density",
    "FlowMatchingDensity",
    "Gaussians",
    "NormalisingFlow",
    "OnProgress",
    "PosteriorDraw",
    "Posteriors",
    "SecondStage",
    "Training",
    "generator",
    "latent_density",
]
