"""Suggestions for unknown names: the known name that the user probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

ELSEWHERE = {
    **{"b": "batch", "d": "device", "e": "epochs", "o": "out", "s": "seed"},
    "activation_fn": "activation",
    "augmentation": "augment",
    "batchsize": "batch",
    "batch_size": "batch",
    "beta_start": "beta_from",
    "bs": "batch",
    "checkpoint_dir": "out",
    "checkpoint_every": "checkpoint_steps",
    "checkpoint_interval": "checkpoint_steps",
    "class": "label",
    "count": "n",
    "clip_grad": "clip",
    "clip_grad_norm": "clip",
    "continue": "resume",
    "cuda": "device",
    "decay": "weight_decay",
    "dir": "out",
    "dtype": "precision",
    "early_stopping": "patience",
    "early_stopping_patience": "patience",
    "ema_decay": "ema",
    "embedding_dim": "latent",
    "epoch": "epochs",
    "eval_every": "validate_steps",
    "fp16": "precision",
    "gpu": "device",
    "gpus": "devices",
    "grad_clip": "clip",
    "gradient_clip_val": "clip",
    "hidden_dim": "hidden",
    "hidden_dims": "hidden",
    "hidden_layers": "hidden",
    "hidden_size": "hidden",
    "hidden_sizes": "hidden",
    "image_size": "size",
    "img_size": "size",
    "init": "init_from",
    "iterations": "steps",
    "iters": "steps",
    "kl_weight": "beta",
    "label_column": "label",
    "labels": "label",
    "latent_dim": "latent",
    "latent_dims": "latent",
    "latent_size": "latent",
    "latents": "latent",
    "layers": "hidden",
    "learning_rate": "lr",
    "learningrate": "lr",
    "logdir": "out",
    "loss": "objective",
    "lr_schedule": "schedule",
    "lr_scheduler": "schedule",
    "max_epochs": "epochs",
    "max_iter": "epochs",
    "max_steps": "steps",
    "method": "recipe",
    "missing_values": "missing",
    "model": "recipe",
    "n_components": "latent",
    "n_epochs": "epochs",
    "n_hidden": "hidden",
    "n_iter": "epochs",
    "n_latent": "latent",
    "n_samples": "n",
    "n_steps": "steps",
    "nb_epoch": "epochs",
    "nb_epochs": "epochs",
    "num": "n",
    "number": "n",
    "num_devices": "devices",
    "num_epochs": "epochs",
    "num_gpus": "devices",
    "num_hidden": "hidden",
    "num_latents": "latent",
    "num_samples": "n",
    "num_steps": "steps",
    "opt": "optimiser",
    "optim": "optimiser",
    "optimizer": "optimiser",
    "out_dir": "out",
    "outdir": "out",
    "output": "out",
    "output_dir": "out",
    "random_seed": "seed",
    "random_state": "seed",
    "recon_loss": "likelihood",
    "reconstruction_loss": "likelihood",
    "restore": "resume",
    "save_dir": "out",
    "scheduler": "schedule",
    "target": "label",
    "test_fraction": "test",
    "test_size": "test",
    "test_split": "test",
    "val_fraction": "valid",
    "val_size": "valid",
    "val_split": "valid",
    "valid_size": "valid",
    "validation": "valid",
    "validation_split": "valid",
    "warm_up": "warmup",
    "warmup_steps": "warmup",
    "wd": "weight_decay",
    "widths": "hidden",
    "y": "label",
    "z_dim": "latent",
    "zdim": "latent",
}
"""Names of arguments in other libraries and papers, and their names in vaekit."""
MODELS = {
    "autoencoder": "ae",
    "autoencoderkl": "grid",
    "betatcvae": "tc",
    "cnn": "conv",
    "convvae": "conv",
    "cvae": "conditional",
    "dae": "denoising",
    "dipvae": "dip",
    "factorvae": "factor",
    "gmvae": "mixture",
    "hvae": "ladder",
    "infovae": "info",
    "lvae": "ladder",
    "m2": "semi-supervised",
    "nvae": "ladder",
    "pca": "linear",
    "ppca": "linear",
    "rae": "rae-l2",
    "ssvae": "semi-supervised",
    "svae": "hyperspherical",
    "tcvae": "tc",
    "vampprior": "vamp",
    "vanilla": "vae",
    "vqvae": "vq",
    "wasserstein": "wae",
}
"""Names of models in papers, without hyphens, and the recipes in vaekit."""
FEW = 15
"""Up to this many names are all listed, even after a suggestion."""


def meant(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name in `known` that `name` most likely means: a synonym, else the closest spelling; None if none is close.

    Arguments:
        cutoff: minimum similarity of spellings, from 0 to 1, as for `difflib.get_close_matches`.
    """
    known = list(known)
    plain = name.lower().replace("-", "_")
    for synonym in (ELSEWHERE.get(plain), MODELS.get(plain.replace("_", ""))):
        if synonym in known:
            return synonym
    by_plain = {one.lower().replace("-", "_"): one for one in reversed(known)}
    near = difflib.get_close_matches(plain, by_plain, 1, cutoff)
    return by_plain[near[0]] if near else None


def unknown(what: str, name: object, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The message for an unknown `what` (such as "recipe"), with a suggestion or the names to choose from."""
    known = list(known)
    near = meant(str(name), known, cutoff)
    if near is None:
        return f"unknown {what} {name!r}; choose from {', '.join(known)}"
    rest = f" Choose from {', '.join(known)}" if len(known) <= FEW else ""
    return f"unknown {what} {name!r}: did you mean {near!r}?{rest}"
