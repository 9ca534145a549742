"""Augmentation: training images moved a little at every step, which makes a small set last longer.

It acts on raw images before the observation, with noise keyed by step and row like all else, so that a resumed run
repeats it to the bit. Validation and test data are never touched. (Simard et al. 2003, doi:10.1109/ICDAR.2003.1227801.)
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
    """Raw images (B, C, H, W) to images of the same shape and kind, values unchanged.

    Arguments:
        flip: half of the images, taken at random, left to right.
        shift: by up to so many pixels up or down and left or right, each move as likely; the border is repeated.
    """

    def __init__(self, flip: bool = False, shift: int = 0):
        self.flip, self.shift = flip, shift

    @classmethod
    def parse(cls, text: str, kind: str, shape: Sequence[int]) -> Augment:
        """From `flip`, `shift` (a sixteenth of the shorter side), `shift:PIXELS`, joined by commas.

        Raises:
            ChoiceError: another word, too wide a shift, or data that are not images.
        """
        if kind != "image" or len(shape) != 3:
            raise ChoiceError(f"`augment` moves images, and these data are of kind {kind}: leave it out")
        most = min(shape[1:]) // 2
        found = cls()
        for word in (w.strip().lower() for w in text.split(",")):
            name, _, size = word.partition(":")
            if name == "flip" and not size:
                found.flip = True
            elif name == "shift" and (not size or size.isdecimal()):
                found.shift = int(size) if size else max(1, min(shape[1:]) // 16)
                if not 1 <= found.shift <= most:
                    raise ChoiceError(
                        f"`augment='shift:{size}'` must lie in 1..{most} for images of {shape[1]}x{shape[2]} pixels"
                    )
            else:
                near = meant(name, KINDS)
                hint = f": did you mean {near!r}?" if near and near != name else ""
                raise ChoiceError(f"`augment={word!r}` is not one of flip, shift, shift:PIXELS{hint}")
        return found

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
