"""Figures from arrays: `pictures` makes uint8 arrays without a plotting library; the other modules use matplotlib."""

from __future__ import annotations

from .calibration import coverage_curve, rank_histograms
from .compared import Mark, intervals, seed_curves
from .diagrams import Node, Plate, draw_graph
from .labelled import Labels, labelled_grid
from .notebook import show, show_pictures, table
from .panels import Line, bars, curves, error_spans, maps, matrices, scatter
from .pictures import channels_last, diverging, error_map, image_grid, png_bytes, save_png, to_uint8
from .plots import (
    active_units,
    compared_curves,
    histogram,
    kl_bars,
    latent_scatter,
    project,
    rate_distortion,
    training_curves,
)
from .series import families, heat, lines
from .style import PALETTE, current, figure_png, theme
from .sweeps import slices, trial_curves
from .tables import marginals

__all__ = [
    "PALETTE",
    "Labels",
    "Line",
    "Mark",
    "Node",
    "Plate",
    "active_units",
    "bars",
    "channels_last",
    "compared_curves",
    "coverage_curve",
    "current",
    "curves",
    "diverging",
    "draw_graph",
    "error_map",
    "error_spans",
    "families",
    "figure_png",
    "heat",
    "histogram",
    "image_grid",
    "intervals",
    "kl_bars",
    "labelled_grid",
    "latent_scatter",
    "lines",
    "maps",
    "marginals",
    "matrices",
    "png_bytes",
    "project",
    "rank_histograms",
    "rate_distortion",
    "save_png",
    "scatter",
    "seed_curves",
    "show",
    "show_pictures",
    "slices",
    "table",
    "theme",
    "to_uint8",
    "training_curves",
    "trial_curves",
]
