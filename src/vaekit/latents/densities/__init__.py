"""Densities of standardised codes, by name: a Gaussian mixture, a normalising flow, a second VAE, flow matching."""

# ruff: noqa: I001 - densities are listed in the order in which they are registered
from .base import BLOCK, DENSITIES, Density, OnProgress, Training, generator, latent_density
from .gaussians import Gaussians
from .normalising import NormalisingFlow
from .second_stage import SecondStage
from .posteriors import PosteriorDraw, Posteriors
from .flow_matching import FlowMatchingDensity

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
