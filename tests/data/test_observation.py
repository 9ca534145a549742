"""The frozen binary draw, observations, and which rows make a batch."""

import hashlib

import numpy as np
import pytest
import torch
from core_helpers import blobs, own_network

import vaekit as vk
from vaekit.data.batches import Order, Rows
from vaekit.data.observation import Binary, FrozenDraw, Grey, Levels, Threshold, moments
from vaekit.errors import ChoiceError, DataError
from vaekit.metrics.likelihood import entropy_floor
from vaekit.noise import Noise
from vaekit.recipes import Composition, DataSpec
from vaekit.runs.trained import TrainedModel


def binary_run(data):
    composition = own_network(data.shape[1:])
    return TrainedModel(composition, DataSpec.of(data), data)


def test_the_reference_draw_of_fashion_mnist_and_its_floor(fashion_mnist):
    run = binary_run(fashion_mnist)
    observed = run.observed("test")
    assert observed.n == 10_000
    assert observed.draw_hash(10_000).startswith("25f0d69b40ae46a7")
    assert observed.draw_hash(2_000) != observed.draw_hash(10_000)
    floor, error = entropy_floor(run, observed, 10_000)
    assert floor == pytest.approx(189.869, abs=5e-4)
    assert 0.5 < error < 1
    assert entropy_floor(run, observed, 2_000)[0] == pytest.approx(190.97, abs=5e-3)


@pytest.fixture(scope="module")
def data():
    return vk.from_arrays(blobs(60))


@pytest.mark.parametrize("split", ["valid", "test", "train"])
def test_the_draw_does_not_depend_on_the_order_of_access(data, split):
    n = len(getattr(data, split))
    whole = binary_run(data).observed(split)(np.arange(n))
    other = binary_run(data)
    rng = np.random.default_rng(0)
    if split != "valid":
        other.observed("valid")(np.arange(2))
    observed = other.observed(split)
    for _ in range(3):
        rows = rng.permutation(n)[: max(1, n // 2)]
        assert torch.equal(observed(rows), whole[rows])
    assert set(whole.unique().tolist()) == {0.0, 1.0}


def test_the_draw_is_numpys_legacy_one_over_valid_then_test(data):
    rng = np.random.RandomState(777)
    rows = [data.events(getattr(data, part)[:]) for part in ("valid", "test")]
    bits = [rng.binomial(1, r / 255.0).astype(bool) for r in rows]
    observed = binary_run(data).observed("test")
    assert np.array_equal(observed(np.arange(observed.n)).numpy() > 0.5, bits[1])
    packed = np.packbits(bits[1].reshape(len(bits[1]), -1), axis=1)
    assert observed.draw_hash(observed.n) == hashlib.sha256(packed.tobytes()).hexdigest()


@pytest.mark.parametrize("values", [5, 90, FrozenDraw.VALUES])
def test_a_draw_over_more_rows_than_a_block_is_one_stream(values, monkeypatch):
    monkeypatch.setattr(FrozenDraw, "VALUES", values)
    raw = blobs(2300, 3, 3)
    draw = FrozenDraw(Binary(), lambda a, b: raw[a:b], sizes=(2300,))
    whole = np.random.RandomState(777).binomial(1, raw / 255.0)
    assert np.array_equal(draw.rows(0, np.arange(2300), (3, 3)), whole)


def test_pixels_that_are_surely_0_or_1_stay_so_and_their_floor_is_0():
    raw = np.zeros((40, 4, 4), np.uint8)
    raw[::2, :2] = 255
    data = vk.from_arrays(raw)
    run = binary_run(data)
    observed = run.observed("train")
    x = observed(np.arange(observed.n)).numpy()
    assert np.array_equal(x, data.events(data.train[:]) / 255)
    assert entropy_floor(run, observed, observed.n)[0] == 0


def test_observations_go_there_and_back():
    raw = torch.arange(256, dtype=torch.uint8)[:, None]
    for observation in (Grey(0, 255), Grey(0, 255, 0.5), Levels(256)):
        assert torch.equal(observation.to_raw(observation(raw)).round(), raw.float())
        assert observation.support.check(observation(raw)).all()
    assert float(Grey(0, 255, 0.5)(raw).min()) == -0.5
    assert torch.equal(Threshold(0, 255)(raw)[:, 0], (torch.arange(256) > 127.5).float())
    with pytest.raises(ValueError, match="noise"):
        Binary()(raw)
    drawn = torch.stack([Binary()(raw, Noise.of(0, 256, i)) for i in range(400)]).mean(0)[:, 0]
    chance = torch.arange(256) / 255
    assert float((drawn - chance).abs().max()) < 5 * 0.5 / 20  # five standard errors of 400 draws at most


def test_an_opened_run_refuses_other_shapes_and_ranges(data):
    run = binary_run(data)
    with pytest.raises(DataError, match=r"shape \(1, 6, 5\)"):
        run.encode(blobs(3, 5, 6))
    with pytest.raises(DataError, match="uint8"):
        run.encode(blobs(3).astype(np.float32) / 255)
    with pytest.raises(ChoiceError, match="train, valid, test"):
        run.observed("nothing")
    assert isinstance(run.composition, Composition)


# --- batches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "batch"), [(12, 4), (10, 4), (7, 7), (5, 3), (9, 1), (3, 10)])
def test_every_row_comes_once_an_epoch(n, batch):
    order = Order(n, batch, 0)
    size = min(n, batch)
    stream = torch.cat([order.rows(step) for step in range(4 * n)])
    assert len(stream) == 4 * n * size
    for epoch in stream.split(n)[: 4 * size]:
        assert sorted(epoch.tolist()) == list(range(n))


def test_a_batch_is_a_function_of_seed_and_step():
    a, b = Order(20, 6, 1), Order(20, 6, 1)
    forward = [a.rows(s) for s in range(15)]
    for step in (14, 3, 0, 9, 9, 4):
        assert torch.equal(b.rows(step), forward[step])
    other = [Order(20, 6, 2).rows(s) for s in range(15)]
    assert not all(torch.equal(x, y) for x, y in zip(forward, other, strict=True))
    assert not torch.equal(a.permutation(0), a.permutation(1))
    state = torch.get_rng_state()
    a.rows(77)
    assert torch.equal(state, torch.get_rng_state())


def test_rows_are_the_same_resident_or_read():
    data = vk.from_arrays(blobs(30, 4, 5, 3))
    some = torch.tensor([3, 0, 3, 11])
    resident, read = Rows(data, data.train), Rows(data, data.train, resident_bytes=0)
    assert read.resident is None
    assert torch.equal(resident(some), read(some))
    assert resident(some).shape == (4, 3, 4, 5)
    assert np.array_equal(resident(some)[1].numpy(), data.events(data.train[:1])[0])


def test_moments_in_blocks_are_those_of_the_whole():
    x = torch.randn(101, 3, 2, dtype=torch.float64) * 7 + 100
    mean, variance = moments(lambda: x.split(10))
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close(variance, x.var(0, correction=0))
