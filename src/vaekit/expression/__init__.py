"""Expression of counted features, such as genes: normalised by the model, and compared between groups of cells."""

from .differential import Differential, differential
from .normalised import normalised, shares

__all__ = ["Differential", "differential", "normalised", "shares"]
