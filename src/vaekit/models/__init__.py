"""Models: what one pass yields, one latent layer, several, classes, discrete codes, and priors."""

from .priors import StandardNormal
from .vae import VAE, Latent, Model, Trace

__all__ = ["VAE", "Latent", "Model", "StandardNormal", "Trace"]
