"""The checksum of all samples that the header of a FLAC file states, and which libsndfile does not compare."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from vaekit.data.core import Array

HEADER = 42
"""Bytes of the mark fLaC and the block STREAMINFO."""


class Checksum:
    """The MD5 of samples, computed as they are read.

    Args:
        bits: bits per sample.
        stated: the MD5 in the header.
    """

    def __init__(self, bits: int, stated: bytes) -> None:
        self.bits, self.stated = bits, stated
        self.found = hashlib.md5(usedforsecurity=False)

    def update(self, samples: Array) -> None:
        """Add samples (n,) or (n, channels), int32, whose upper bits are those of the file, as soundfile gives them."""
        whole = np.ascontiguousarray(samples >> (32 - self.bits), "<i4")
        self.found.update(whole.reshape(-1).view(np.uint8).reshape(-1, 4)[:, : -(-self.bits // 8)].tobytes())

    @property
    def matches(self) -> bool:
        """Whether the samples so far are those of the header."""
        return self.found.digest() == self.stated


def checksum(path: Path) -> Checksum | None:
    """The checksum that a file states; None for another format, and for zeros, which stand for none."""
    with path.open("rb") as file:
        tag = file.read(10)
        # some programs write a tag of MP3 files first, whose length has seven bits per byte
        start = 10 + sum(byte << 7 * i for i, byte in enumerate(reversed(tag[6:]))) if tag[:3] == b"ID3" else 0
        file.seek(start)
        head = file.read(HEADER)
    if len(head) < HEADER or head[:4] != b"fLaC" or head[4] & 127 or not any(head[26:]):
        return None
    return Checksum((int.from_bytes(head[18:26], "big") >> 36 & 31) + 1, head[26:])
