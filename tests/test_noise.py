"""Keyed noise: its distribution, its independence, and that it depends only on its key."""

import itertools
import math

import numpy as np
import pytest
import torch
from core_helpers import needs_compiler
from scipy import stats

from vaekit.noise import Noise, fold

N = 40_000


def test_uniform_moments_and_shape_of_its_distribution():
    u = Noise.of(0, N).uniform((5,)).double().numpy().ravel()
    n = u.size
    assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n)  # five standard errors
    assert abs(u.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / n)  # var of (u - 1/2)^2 is 1/180
    assert stats.kstest(u, "uniform").pvalue > 1e-4


def test_normal_moments_and_shape_of_its_distribution():
    z = Noise.of(1, N).normal((5,)).double().numpy().ravel()
    n = z.size
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 5 * math.sqrt(variance / n), power
    assert stats.kstest(z, "norm").pvalue > 1e-4


def test_the_uniform_lies_in_the_open_interval_at_both_ends(monkeypatch):
    ends = torch.tensor([[-(2**31), -1, 0, 2**31 - 1]], dtype=torch.int32)
    monkeypatch.setattr(Noise, "bits", lambda self, event, k=None: ends)
    u = Noise.of(0, 1).uniform((4,))
    assert bool(((u > 0) & (u < 1)).all()), u
    z = Noise.of(0, 1).normal((4,))
    assert bool(torch.isfinite(z).all())
    assert float(z.abs().max()) < 5.9


def test_every_bit_is_fair():
    bits = Noise.of(2, N).bits((4,)).numpy().view(np.uint32).ravel()
    for place in range(32):
        ones = ((bits >> place) & 1).mean()
        assert abs(ones - 0.5) < 5 * 0.5 / math.sqrt(bits.size), place


def test_no_two_sources_of_variation_are_correlated():
    """Columns, draws, samples, neighbouring rows, seeds and steps: 5 standard errors over some 400 pairs."""
    noise = Noise.of(5, N)
    first, second = noise.normal((3,)), noise.normal((3,))
    sampled = noise.normal((3,), k=2)
    columns = [*first.T, *second.T, *sampled[0].T, *sampled[1].T, first.roll(1, 0)[:, 0], first.roll(2, 0)[:, 0]]
    columns += [Noise.of(6, N).normal((3,))[:, 0], Noise.of(5, N, 1).normal((3,))[:, 0]]
    columns += [Noise.of(5, N, 2).normal((3,))[:, 0]]
    r = np.corrcoef(torch.stack(columns).double().numpy())
    off = r[~np.eye(len(r), dtype=bool)]
    assert np.abs(off).max() < 5 / math.sqrt(N)
    # and the squares, which a shared radius or angle would tie together
    r = np.corrcoef(torch.stack(columns).double().numpy() ** 2)
    assert np.abs(r[~np.eye(len(r), dtype=bool)]).max() < 5 / math.sqrt(N)


def test_no_number_comes_twice():
    """2^18 draws of 32 bits collide 2^36 / 2^33 = 8 times by chance; a repeated row or column would by thousands."""
    noise = Noise.of(7, 256)
    bits = torch.cat([noise.bits((16, 32)).flatten(), noise.bits((32,), k=16).flatten()])
    assert len(bits) == 2**18
    assert len(bits) - len(torch.unique(bits)) < 8 + 5 * math.sqrt(8)


def test_bytes_turn_to_ones_with_exactly_their_chance(monkeypatch):
    """At the two draws either side of every threshold, and over many draws."""
    raw = torch.arange(256, dtype=torch.uint8)
    for top in (255, 16, 1, 15, 100):
        values = raw[: top + 1]
        limit = [-(-r * (2**32 - 1) // top) for r in range(top + 1)]  # the first draw that is not below its chance
        for offset, expected in ((-1, 1.0), (0, 0.0)):
            wanted = torch.tensor([min(max(v + offset, 0), 2**32 - 1) for v in limit])
            shift = 2**31 if (2**32 - 1) % top == 0 else 0  # which reading of the bits is compared
            signed = ((wanted - shift + 2**31) % 2**32 - 2**31).to(torch.int32)[None]
            monkeypatch.setattr(Noise, "bits", lambda self, event, k=None, signed=signed: signed)
            got = Noise.of(0, 1).bernoulli_of_bytes(values[None], top)[0]
            keep = torch.tensor([v > 0 for v in limit])  # a chance of 0 has no draw below it
            assert bool((got[keep] == expected).all()), (top, offset)
            assert float(got[0]) == 0.0


@pytest.mark.parametrize("top", [255, 16])
def test_bytes_turn_to_ones_as_often_as_they_should(top):
    raw = torch.arange(top + 1, dtype=torch.uint8).expand(N // 4, -1)
    drawn = Noise.of(8, len(raw)).bernoulli_of_bytes(raw, top)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    chance = np.arange(top + 1) / top
    z = (drawn.double().mean(0).numpy() - chance) / np.sqrt(np.maximum(chance * (1 - chance), 1e-12) / len(raw))
    assert np.abs(z[1:-1]).max() < 5
    assert float(drawn[:, 0].max()) == 0
    assert float(drawn[:, -1].min()) == 1


def test_samples_drawn_in_chunks_are_the_whole():
    whole = Noise.of(3, 7).normal((4,), k=9)
    rows = torch.arange(7)
    for cuts in ([0, 9], [0, 1, 5, 9], [0, 8, 9]):
        base = torch.tensor(fold(3))
        parts = [Noise(base, rows, a).normal((4,), k=b - a) for a, b in itertools.pairwise(cuts)]
        assert torch.equal(torch.cat(parts), whole)


def test_a_row_depends_on_no_other():
    whole = Noise.of(4, 100)
    few = Noise.of(4, torch.tensor([99, 3, 3, 50]))
    for _ in range(2):  # two draws
        a, b = whole.normal((2, 3)), few.normal((2, 3))
        assert torch.equal(b, a[[99, 3, 3, 50]])
    assert torch.equal(few.bits((5,), k=3), whole.bits((5,), k=3)[:, [99, 3, 3, 50]])


def test_fresh_noise_follows_torch_seed():
    torch.manual_seed(1)
    a, b = Noise.fresh(3).normal((2,)), Noise.fresh(3).normal((2,))
    torch.manual_seed(1)
    assert torch.equal(Noise.fresh(3).normal((2,)), a)
    assert not torch.equal(a, b)


@needs_compiler
def test_compiled_bits_are_the_eager_bits():
    """Widths that a compiled loop handles differently: odd widths are strided, and 1 and 20 leave a remainder."""
    widths = (1, 20, 33)

    def bits(base, rows):
        noise = Noise(base, rows)
        return [noise.bits((w,)) for w in widths]

    base, rows = torch.tensor(fold(11, 3)), torch.arange(100)
    torch._dynamo.reset()
    for a, b in zip(bits(base, rows), torch.compile(bits, fullgraph=True)(base, rows), strict=True):
        assert torch.equal(a, b), a.shape


def test_fold_tells_orders_and_signs_apart():
    keys = [
        fold(),
        fold(0),
        fold(0, 0),
        fold(1),
        fold(1, 2),
        fold(2, 1),
        fold(1, 2, 0),
        fold(-1),
        fold(2**63),
        fold(0, 1),
    ]
    assert len(set(keys)) == len(keys)
    assert all(-(2**63) <= k < 2**63 for k in keys)
    assert fold(3, 4) == fold(3, 4)
    many = {fold(seed, step) for seed in range(100) for step in range(1000)}
    assert len(many) == 100_000
