"""Recipes by purpose and by data, for `vaekit recipes` and the documentation."""

from __future__ import annotations

PURPOSES: dict[str, tuple[str, ...]] = {
    "First models": ("vae", "conv"),
    "Images with codes that are small images, for samples": ("grid",),
    "Data with labels": ("conditional", "semi-supervised"),
    "Anomalies": ("robust",),
    "Disentangled latents, one factor each": ("beta", "tc", "factor", "dip", "annealed"),
    "Control of the KL, against unused latents": ("free-bits", "constrained", "info"),
    "Better densities: tighter bounds": ("iwae", "piwae", "ciwae"),
    "Better densities: learned priors": ("best", "vamp", "mixture", "flow-prior", "hierarchical"),
    "Better densities: richer posteriors": ("full-covariance", "iaf", "nsf", "ladder"),
    "Discrete codes": ("vq", "fsq", "lfq", "simvq", "residual-vq"),
    "Latents on a sphere": ("hyperspherical",),
    "Autoencoders: codes without log p(x)": ("ae", "sparse", "denoising", "rae-l2", "rae-gp", "wae", "aae"),
    "Published models and baselines": ("kingma2013", "unit-gaussian", "linear", "wake-sleep", "reweighted-wake-sleep"),
}
"""Every recipe once, by its purpose."""

FITTING: tuple[tuple[str, str], ...] = (
    ("any data, for a first model", "vaekit fit DATA"),
    ("photographs in colour", "vaekit fit FOLDER --recipe conv --size 64 --patience 10"),
    ("few images (below 2,000)", "vaekit fit FOLDER --augment flip,shift --patience 10"),
    ("a table of numbers and categories", "vaekit fit TABLE.csv"),
    ("a table with missing values", "vaekit fit TABLE.csv --missing mask"),
    ("counts: genes, words, events", "vaekit fit COUNTS.npz --kind counts"),
    ("single cells (.h5ad, 10x)", "vaekit fit CELLS.h5ad --genes 2000 --library observed --condition batch"),
    ("a model that finds anomalies in tables", "vaekit fit TABLE.csv --recipe robust"),
    ("classes, to sample from one of them", "vaekit fit DATA --recipe conditional"),
    ("labels for some of the data", "vaekit fit DATA --recipe semi-supervised"),
    ("latents that each encode one factor", "vaekit fit DATA --recipe tc"),
    ("the best log p(x)", "vaekit fit DATA --recipe best"),
    ("a model with too many unused latents", "vaekit fit DATA --recipe free-bits"),
    ("corrupted data to clean", "vaekit fit DATA --recipe denoising"),
    ("small codes, without sampling", "vaekit fit DATA --recipe ae"),
    ("discrete codes", "vaekit fit DATA --recipe vq"),
    ("a baseline like PCA", "vaekit fit DATA --recipe linear"),
)
"""Pairs of a situation (the data, or the aim) and the command for it."""
