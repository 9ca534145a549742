"""Random numbers that are a pure function of a key: seed, step, row, sample, draw and column.

A `Noise` hashes (base, row, sample, draw, column) to bits with plain integer operations of torch. The numbers are
therefore equal in eager and compiled code, on any device, in one process or several, and for any batch size.
Torch's generators guarantee none of this: they fail inside compiled graphs, and 99 + 1 rows differ from 100.

The mixing functions are the SplitMix64 finaliser of Steele, Lea and Flood (OOPSLA 2014) for the keys and two keyed
rounds of a 32-bit multiply-xorshift finaliser (with Wellons' `lowbias32` constants) for the bits of a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum, unique

import torch
from torch import Tensor

_MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _signed(value: int, bits: int = 64) -> int:
    """An unsigned integer as the signed integer of the same bits (two's complement), as torch stores it."""
    return value - (1 << bits) if value >= 1 << (bits - 1) else value


_M1, _M2 = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
_ROW, _SAMPLE = _signed(0xD1342543DE82EF95), _signed(0xAF251AF3B0F025B5)
_C1, _C2 = _signed(0x7FEB352D, 32), _signed(0x846CA68B, 32)


def fold(*parts: int) -> int:
    """Hash several integers, in order, to one signed 64-bit key: `fold(seed, step)`."""
    h = 0
    for part in parts:
        h = (h + _GOLDEN + (part & _MASK64)) & _MASK64
        h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & _MASK64
        h ^= h >> 31
    return _signed(h)


def _mix64(h: Tensor) -> Tensor:
    h = (h ^ ((h >> 30) & ((1 << 34) - 1))) * _M1
    h = (h ^ ((h >> 27) & ((1 << 37) - 1))) * _M2
    return h ^ ((h >> 31) & ((1 << 33) - 1))


def _mix32(h: Tensor) -> Tensor:
    h = (h ^ ((h >> 16) & 0xFFFF)) * _C1
    h = (h ^ ((h >> 15) & 0x1FFFF)) * _C2
    return h ^ ((h >> 16) & 0xFFFF)


def _unit(bits: Tensor) -> Tensor:
    """Bits as uniform numbers on the open interval (0, 1)."""
    return (((bits >> 9) & 0x7FFFFF).float() + 0.5) * 2.0**-23


def _box_muller(first: Tensor, second: Tensor) -> Tensor:
    """Independent standard normal numbers (..., 2 n) from uniform ones (..., n): Box and Muller (1958)."""
    radius, angle = torch.sqrt(-2 * torch.log(first)), (2 * math.pi) * second
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], -1)


@unique
class StepKey(IntEnum):
    """The uses of noise in training; the key is (seed, step, use), or (seed, epoch, BATCHES)."""

    OBSERVE = 1  # x from raw data
    TRAIN = 2  # the model's draws
    LAYERS = 3  # dropout and other layers with noise of their own
    AUGMENT = 4
    BATCHES = 0xBA7C4  # the order of an epoch


@unique
class Key(IntEnum):
    """The uses of noise outside training steps; the key is (seed, use). Each step of FILL adds 1000 to it."""

    PSEUDO_INPUTS = 1  # the choice of the data that they start from
    PSEUDO_SPREAD = 2
    DECODE = 11  # x from p(x | z)
    CODES = 12  # z from q(z | x) or p(z)
    VALIDATE = 21
    START = 31  # x from which heads and priors are initialised
    EVALUATE = 41
    SHUFFLE = 51  # the choice and order of codes that a density is fitted to
    HELD_OUT = 52
    SECOND_STAGE = 53
    POSTERIORS = 54  # versions of training data whose posteriors a density is fitted to
    LABELS = 55  # the condition of draws without a label
    PROBES = 56  # directions of the estimate of a divergence
    IMPUTE = 61
    GIVEN = 62  # codes and x given some elements
    FILL_DRAWS = 70
    FILL = 71
    ESTIMATE = 91  # draws and chains of the estimators of log p(x)
    SIMULATE = 92  # z and x of data that are simulated from the model
    DETECT = 81  # the draws of z that all rows share


class Noise:
    """Noise for the rows of one batch.

    Arguments:
        base: int64 scalar tensor: `fold(seed, step)` in training, `fold(seed)` in evaluation.
        rows: int64 (B,): rows of the global batch in training, row numbers of the data in evaluation.
        first_sample: index of the first of the K samples, so that many samples can be drawn in chunks.

    Each call of a method is one *draw*; the same calls in the same order return the same numbers.
    """

    def __init__(self, base: Tensor, rows: Tensor, first_sample: int | Tensor = 0):
        self.base, self.rows, self.first_sample = base, rows, first_sample
        self.draws = 0

    @classmethod
    def of(cls, seed: int, rows: int | Tensor, *more: int, device: torch.device | str = "cpu") -> Noise:
        """Noise for `rows` (a count, or row numbers) with the key (seed, *more)."""
        index = torch.arange(rows, device=device) if isinstance(rows, int) else rows
        return cls(torch.tensor(fold(seed, *more), device=index.device), index)

    @classmethod
    def fresh(cls, rows: int, device: torch.device | str = "cpu") -> Noise:
        """Noise with a key from torch's global generator: new at each call, repeatable with `torch.manual_seed`."""
        return cls(torch.randint(-(2**62), 2**62, (), device="cpu").to(device), torch.arange(rows, device=device))

    def bits(self, event: Sequence[int], k: int | None = None) -> Tensor:
        """32 random bits per element, int32: (B, *event), or (K, B, *event) with `k`."""
        self.draws += 1
        return self._bits(self.base + _signed(self.draws * _GOLDEN & _MASK64), event, k)

    def _bits(self, key: Tensor, event: Sequence[int], k: int | None) -> Tensor:
        """The bits of the draws with these keys (...), on leading axes."""
        key = _mix64(_mix64(key)[..., None] + self.rows * _ROW)
        if k is not None:
            sample = torch.arange(k, device=self.rows.device) + self.first_sample
            key = _mix64(key[..., None, :] + (sample[:, None] + 1) * _SAMPLE)
        low, high = key.to(torch.int32)[..., None], (key >> 32).to(torch.int32)[..., None]
        column = torch.arange(math.prod(event), device=self.rows.device, dtype=torch.int32)
        return _mix32(_mix32(column + low) ^ high).reshape(*key.shape, *event)

    def uniform(self, event: Sequence[int], k: int | None = None) -> Tensor:
        """Uniform on the open interval (0, 1): 2^23 equally spaced values, each exact in float32."""
        return _unit(self.bits(event, k))

    def normal(self, event: Sequence[int], k: int | None = None) -> Tensor:
        """Standard normal by the method of Box and Muller (1958); absolute values are below 5.8."""
        n = math.prod(event)
        half = (n + 1) // 2
        if torch.compiler.is_compiling():  # compilers copy the keys of two draws at once into every use of their bits
            first, second = self.uniform((half,), k), self.uniform((half,), k)
        else:
            number = torch.arange(self.draws + 1, self.draws + 3, device=self.rows.device)
            first, second = _unit(self._bits(self.base + number * _signed(_GOLDEN), (half,), k))
            self.draws += 2
        pair = _box_muller(first, second)[..., :n]
        return pair.reshape(*pair.shape[:-1], *event)

    def proposals(self, rounds: int, event: Sequence[int], k: int | None = None) -> tuple[Tensor, Tensor]:
        """The results of this many alternating calls of `normal` and `uniform`, (rounds, K?, B, *event) each.

        They are computed together, which is faster for small events.
        """
        if rounds == 1 or type(self) is not Noise:
            pairs = [(self.normal(event, k), self.uniform(event, k)) for _ in range(rounds)]
            return torch.stack([e for e, _ in pairs]), torch.stack([u for _, u in pairs])
        n = math.prod(event)
        number = self.draws + 1 + torch.arange(3 * rounds, device=self.rows.device).reshape(rounds, 3)
        first, second, u = _unit(self._bits(self.base + number * _signed(_GOLDEN), (n,), k)).unbind(1)
        self.draws += 3 * rounds
        half = (n + 1) // 2
        e = _box_muller(first[..., :half], second[..., :half])[..., :n]
        return e.reshape(*e.shape[:-1], *event), u.reshape(*u.shape[:-1], *event)

    @property
    def may_skip(self) -> bool:
        """Whether a caller may read the numbers and `skip` draws: only eagerly on a CPU, where reading is cheap."""
        return type(self) is Noise and self.rows.device.type == "cpu" and not torch.compiler.is_compiling()

    def skip(self, draws: int) -> None:
        """Skip this many draws."""
        self.draws += draws

    def bernoulli_of_bytes(self, raw: Tensor, top: int = 255) -> Tensor:
        """1 with probability raw / top, else 0, for integers raw (B, *event) in 0..top: float32, exact to 2^-32.

        A 32-bit draw is below raw * (2^32 - 1) / top with exactly this probability. Both sides are shifted down by
        2^31, so that they can be compared as int32.
        """
        step, rest = divmod(2**32 - 1, top)
        bits = self.bits(raw.shape[1:])
        if rest == 0:  # top divides 2^32 - 1 (255, 15, 3, 1 ...): the limits are whole numbers
            # raw * step - 2^31 in two parts that fit into int32: compilers may assume that sums do not overflow
            half = 1 << (top.bit_length() - 1)  # above top / 2
            high = (1 << 31) // half
            number = raw.to(torch.int32)
            return (bits < (half - number) * -high + number * (step - high)).float()
        return (((bits.long() & 0xFFFFFFFF) * top) < raw.long() * (2**32 - 1)).float()


class Mirrored(Noise):
    """The antithetic partner of the next draws of a noise: -e for each standard normal e, 1 - u for each uniform u.

    The mean of a draw and of its partner has a smaller variance than that of two independent draws; for a Gaussian it
    is the mean itself.
    """

    def __init__(self, noise: Noise):
        super().__init__(noise.base, noise.rows, noise.first_sample)
        self.draws = noise.draws

    def uniform(self, event: Sequence[int], k: int | None = None) -> Tensor:
        return 1 - super().uniform(event, k)

    def normal(self, event: Sequence[int], k: int | None = None) -> Tensor:
        partner = Noise(self.base, self.rows, self.first_sample)
        partner.draws = self.draws
        e = partner.normal(event, k)
        self.draws = partner.draws
        return -e
