"""Which recipe is for what: shown by `vaekit recipes` and by the documentation."""

from __future__ import annotations

PURPOSES: dict[str, tuple[str, ...]] = {
    "To start with": ("vae", "conv"),
    "Data with labels": ("conditional", "semi-supervised"),
    "Latents that mean one thing each": ("beta", "tc", "factor", "dip", "annealed"),
    "A KL that is held, or codes that must be used": ("free-bits", "constrained", "info"),
    "Better densities: tighter bounds": ("iwae", "piwae", "ciwae"),
    "Better densities: learned priors": ("vamp", "mixture", "flow-prior", "hierarchical"),
    "Better densities: richer posteriors": ("full-covariance", "iaf", "nsf", "ladder"),
    "Discrete codes": ("vq", "fsq"),
    "Codes on a sphere": ("hyperspherical",),
    "Autoencoders: codes without a density": ("ae", "sparse", "denoising", "rae-l2", "rae-gp", "wae", "aae"),
    "Published models and baselines": ("kingma2013", "unit-gaussian", "linear", "wake-sleep"),
}
"""Every recipe once, by what it is for."""

FITTING: tuple[tuple[str, str], ...] = (
    ("anything, to start with", "vaekit fit DATA"),
    ("photographs in colour", "vaekit fit FOLDER --recipe conv --size 64 --patience 10"),
    ("few images (below 2,000)", "vaekit fit FOLDER --augment flip,shift --patience 10"),
    ("a table of numbers and categories", "vaekit fit TABLE.csv"),
    ("a table with missing values", "vaekit fit TABLE.csv --missing mask"),
    ("counts: genes, words, events", "vaekit fit COUNTS.npz --kind counts"),
    ("classes, and new data of a chosen one", "vaekit fit DATA --recipe conditional"),
    ("labels for some of the data", "vaekit fit DATA --recipe semi-supervised"),
    ("latents that each encode one factor", "vaekit fit DATA --recipe tc"),
    ("the best density: scores, anomalies", "vaekit fit DATA --recipe vamp"),
    ("a model that leaves latents unused", "vaekit fit DATA --recipe free-bits"),
    ("corrupted data to clean", "vaekit fit DATA --recipe denoising"),
    ("a small code, and no samples", "vaekit fit DATA --recipe ae"),
    ("discrete codes", "vaekit fit DATA --recipe vq"),
    ("a baseline like PCA", "vaekit fit DATA --recipe linear"),
)
"""Pairs of a situation and the command to write for it."""
