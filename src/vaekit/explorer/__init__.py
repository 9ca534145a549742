"""A run as one HTML file that decodes live in the browser."""

from .write import write_explorer

__all__ = ["write_explorer"]
