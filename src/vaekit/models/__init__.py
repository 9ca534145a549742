"""Models: VAEs with one or several latent layers, with classes or discrete codes, and their priors."""

from .priors import StandardNormal
from .vae import VAE, Latent, Model, Trace

__all__ = ["VAE", "Latent", "Model", "StandardNormal", "Trace"]
