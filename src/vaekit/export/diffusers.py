"""A run as the AutoencoderKL of diffusers, with which latent diffusion models are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaekit import networks
from vaekit.data.observation import Grey
from vaekit.errors import ChoiceError, RunError
from vaekit.heads import Conditional, Gaussian, Head, LocationScale
from vaekit.heads.levels import DiscretisedLogisticHead
from vaekit.heads.posteriors import PointHead
from vaekit.models.vae import VAE
from vaekit.runs.saved import SavedRun
from vaekit.utils.files import checked_path, write_text
from vaekit.utils.progress import say

from .onnx import TOLERANCE

FILES = ("config.json", "diffusion_pytorch_model.safetensors", "README.md")
TITLE = "# AutoencoderKL trained with vaekit"
CHECKED = 4
"""The number of samples on which the exported model is compared with the run."""


class Parts(NamedTuple):
    """What AutoencoderKL takes from a run.

    Attributes:
        encoder, decoder: the networks.
        point: whether the posterior is a point.
        low: the lowest value of the images that the networks read and write; the highest is 1.
    """

    encoder: networks.KLEncoder
    decoder: networks.KLDecoder
    point: bool
    low: float


def write_diffusers(run: SavedRun, out: str | Path) -> list[Path]:
    """Write a folder that `diffusers.AutoencoderKL.from_pretrained` loads, after comparing it with the run.

    Means of q(z|x) and decoded images, the location of p(x|z), are those of the run. The run must have been trained
    with `network='autoencoder-kl'`, whose layers are those of AutoencoderKL. `scaling_factor` is that of the run.
    Standard deviations of q(z|x) can differ, because vaekit bounds them; a note says by how much.

    Arguments:
        out: the folder; its files are replaced only if an earlier export wrote them.

    Returns:
        config.json, diffusion_pytorch_model.safetensors and README.md, which says how images are scaled.

    Raises:
        ChoiceError: no AutoencoderKL computes what this run computes, or diffusers is not installed.
        RunError: the folder cannot be written, or holds other files of these names.
    """
    folder, parts = checked_path(out), _parts(run)
    _check_free(folder)
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise ChoiceError(f"this needs {error.name}: install it with `pip install 'vaekit[diffusers]'`") from None
    model: Any = AutoencoderKL(**_config(run, parts))
    model.load_state_dict(_weights(run, parts))
    model.eval()
    note = _compared(run, parts, model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder, safe_serialization=True)
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror or error}; choose another `out`") from error
    write_text(folder / FILES[2], _card(run, parts, note))
    if note:
        say(f"note: {note}")
    return [folder / name for name in FILES]


def _check_free(folder: Path) -> None:
    """Raise RunError if files in the folder that would be replaced are not those of an earlier export."""
    card = folder / FILES[2]
    text = card.read_text(encoding="utf8", errors="replace") if card.is_file() else ""
    if TITLE not in text and (there := [name for name in FILES if (folder / name).exists()]):
        raise RunError(
            f"{folder} holds another {there[0]}: name a new folder, such as `out={str(folder) + '-diffusers'!r}`"
        )


def _parts(run: SavedRun) -> Parts:
    """The parts of a run that AutoencoderKL can represent.

    Raises:
        ChoiceError: it cannot; says why and what to do.
    """
    model, observation = run.model, run.composition.observation
    q, p = getattr(model, "posterior", None), getattr(model, "likelihood", None)
    inner = q.net if isinstance(q, Conditional) else None
    scaled = isinstance(inner, networks.Rescaled)
    encoder = inner.net if isinstance(inner, networks.Rescaled) else inner
    decoder = p.net if isinstance(p, Conditional) else None
    if not (
        isinstance(model, VAE)
        and isinstance(q, Conditional)
        and isinstance(p, Conditional)
        and isinstance(encoder, networks.KLEncoder)
        and isinstance(decoder, networks.KLDecoder)
    ):
        raise ChoiceError(
            f"{run.path} has other layers than diffusers' AutoencoderKL (strides, normalisation, linear layers beside "
            "the convolutions): train with `network='autoencoder-kl'`, or export it with `format='onnx'`"
        )
    point = isinstance(q.head, PointHead)
    if not point and not (type(q.head) is Gaussian and q.head.scale == "learned"):
        raise ChoiceError("AutoencoderKL has a Gaussian posterior: train with `posterior='gaussian'`")
    levels = scaled and isinstance(p.head, DiscretisedLogisticHead)
    if not levels and not (isinstance(p.head, LocationScale) and _is_plain(p.head)):
        raise ChoiceError(
            "AutoencoderKL outputs pixels, which are no parameters of this likelihood: train with "
            "`likelihood='gaussian'`, or for colour images with 'discretised-logistic'"
        )
    if not levels and not (type(observation) is Grey and observation.shift == 0):
        raise ChoiceError(
            "AutoencoderKL scales all pixels alike, and this run does not: train with `observation='grey'`"
        )
    return Parts(encoder, decoder, point, -1.0 if levels else 0.0)


def _is_plain(head: Head) -> bool:
    """Whether the location of the density is the network's output."""
    return not isinstance(head, Gaussian) or head.squash == "none"


def _config(run: SavedRun, parts: Parts) -> dict[str, Any]:
    """The arguments of AutoencoderKL."""
    encoder, (channels, height, width) = parts.encoder, run.spec.shape
    levels = len(encoder.channels)
    return {
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": encoder.channels,
        "layers_per_block": encoder.blocks,
        "latent_channels": parts.decoder.grid[0],
        "norm_num_groups": encoder.groups,
        "sample_size": max(height, width),
        "scaling_factor": run.scaling_factor or 1.0,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": encoder.attention,
    }


def _weights(run: SavedRun, parts: Parts) -> dict[str, Tensor]:
    """The weights by their names in AutoencoderKL.

    Its encoder outputs mean and log variance, twice the log standard deviation; a point has the least log variance. Its
    decoder outputs the location of the likelihood only.
    """
    weights = {f"encoder.{name}": t.detach().clone().float() for name, t in parts.encoder.state_dict().items()}
    weights |= {f"decoder.{name}": t.detach().clone().float() for name, t in parts.decoder.state_dict().items()}
    latent, channels = parts.decoder.grid[0], run.spec.shape[0]
    for name in ("weight", "bias"):
        inner, outer = f"encoder.conv_out.{name}", f"decoder.conv_out.{name}"
        mean = weights[inner][:latent]
        spread = 0 * mean - 30.0 * (name == "bias") if parts.point else 2 * weights[inner][latent:]
        weights[inner] = torch.cat([mean, spread])
        weights[outer] = weights[outer][:channels].clone()
    return weights


@torch.no_grad()
def _compared(run: SavedRun, parts: Parts, model: Any) -> str:
    """Compare AutoencoderKL with the run on samples; returns a note where both differ by construction.

    Raises:
        ChoiceError: means or locations differ.
    """
    device, trained = run.device, run.model
    assert isinstance(trained, VAE)
    try:
        run.to("cpu")
        z = torch.from_numpy(run.sample_latents(CHECKED)).float()
        raw = torch.from_numpy(run.decode(z.numpy()))
        q = trained.posterior(run.composition.observation.expected(raw))
        location = parts.decoder(z).reshape(CHECKED, -1, *run.spec.shape[1:])[:, : run.spec.shape[0]]
    finally:
        run.to(device)
    low, high = run.spec.scale
    x = (raw.float() - low) / (high - low) * (1 - parts.low) + parts.low
    theirs = model.encode(x).latent_dist
    pairs = [(q.mean, theirs.mean.flatten(1)), (location, model.decode(z.reshape(CHECKED, *parts.decoder.grid)).sample)]
    for own, other in pairs:
        if not torch.allclose(own.float(), other, rtol=TOLERANCE, atol=TOLERANCE):
            raise ChoiceError(f"the exported AutoencoderKL differs from {run.path} by {(own - other).abs().max():.2g}")
    notes = []
    if not parts.point:
        ratio = (theirs.std.flatten(1) / q.stddev.float() - 1).abs().max()
        if ratio > TOLERANCE:
            notes.append(
                f"standard deviations of q(z|x) differ by up to {100 * ratio:.2g}%, because those of vaekit have a "
                "soft lower bound of e^-6, and may grow more slowly above 1"
            )
    if parts.low < 0:
        shown = (location.clamp(-1, 1) + 1) / 2 * (high - low) + low
        notes.append(
            "decoded images are the location of the logistic, and vaekit shows its mean: they differ by up to "
            f"{(shown - raw.float()).abs().max():.2g} levels"
        )
    return "; ".join(notes)


def _card(run: SavedRun, parts: Parts, note: str) -> str:
    """How to load the model and how images are scaled, as the model card of a folder."""
    low, high = run.spec.scale
    scaled = "-1 to 1, as in diffusers' pipelines"
    if parts.low == 0:
        scaled = "0 to 1; `VaeImageProcessor(do_normalize=False)` does that"
    more = f"\n{note[0].upper()}{note[1:]}.\n" if note else ""
    return f"""---
library_name: "diffusers"
tags:
  - "vaekit"
  - "vae"
---

{TITLE}

```python
from diffusers import AutoencoderKL

vae = AutoencoderKL.from_pretrained("PATH")
z = vae.encode(x).latent_dist.mean  # x: (N, {", ".join(map(str, run.spec.shape))})
x = vae.decode(z).sample
```

Pixels, {low:g} to {high:g} in the data, are scaled to {scaled}. `vae.config.scaling_factor` gives codes unit variance.
{more}"""
