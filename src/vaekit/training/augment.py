"""Augmentation: random flips and shifts of training images at every step, which delay overfitting to small data sets.

It acts on raw images before the observation. Its noise is keyed by step and row, so that a resumed run is bit-exact.
Validation and test data are not augmented. (Simard et al. 2003, doi:10.1109/ICDAR.2003.1227801.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.noise import Noise
from vaekit.utils.suggest import meant

KINDS = ("flip", "shift")


class Augment:
    """Maps raw images (B, C, H, W) to images of the same shape and dtype; moves pixels without changing their values.

    Arguments:
        flip: whether to mirror a random half of the images left to right.
        shift: maximum shift in pixels, vertical and horizontal; all shifts are equally likely, the border is repeated.
    """

    def __init__(self, flip: bool = False, shift: int = 0):
        self.flip, self.shift = flip, shift

    @classmethod
    def parse(cls, text: str, kind: str, shape: Sequence[int]) -> Augment:
        """An augmentation from text: `flip`, `shift` (1/16 of the shorter side) or `shift:PIXELS`, joined by commas.

        Raises:
            ChoiceError: a word is unknown, the shift is too large, or the data are not images.
        """
        if kind != "image" or len(shape) != 3:
            raise ChoiceError(f"`augment` applies to images, but these data are of kind {kind}: omit it")
        most = min(shape[1:]) // 2
        augment = cls()
        for word in (w.strip().lower() for w in text.split(",")):
            name, _, size = word.partition(":")
            if name == "flip" and not size:
                augment.flip = True
            elif name == "shift" and (not size or size.isdecimal()):
                augment.shift = int(size) if size else max(1, min(shape[1:]) // 16)
                if not 1 <= augment.shift <= most:
                    raise ChoiceError(
                        f"`augment='shift:{size}'` must lie in 1..{most} for images of {shape[1]}x{shape[2]} pixels"
                    )
            else:
                near = meant(name, KINDS)
                hint = f": did you mean {near!r}?" if near and near != name else ""
                raise ChoiceError(f"`augment={word!r}` is not one of flip, shift, shift:PIXELS{hint}")
        return augment

    def __call__(self, raw: Tensor, noise: Noise) -> Tensor:
        b, c, h, w = raw.shape
        device = raw.device
        rows, columns = torch.arange(h, device=device).expand(b, h), torch.arange(w, device=device).expand(b, w)
        if self.shift:
            span = 2 * self.shift + 1
            moves = (noise.uniform((2,)) * span).long().clamp(max=span - 1) - self.shift
            rows = (rows - moves[:, :1]).clamp(0, h - 1)
            columns = (columns - moves[:, 1:]).clamp(0, w - 1)
        if self.flip:
            columns = torch.where(noise.uniform((1,)) < 0.5, w - 1 - columns, columns)
        batch = torch.arange(b, device=device)[:, None, None, None]
        channel = torch.arange(c, device=device)[None, :, None, None]
        return raw[batch, channel, rows[:, None, :, None], columns[:, None, None, :]]
