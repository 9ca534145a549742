"""Augmented images are exactly the moved ones, each as often as it should be, and a resumed run repeats them."""

import numpy as np
import pytest
import torch
from core_helpers import QUIET, blobs, needs_compiler, same, weekly
from scipy import stats

import vaekit as vk
from vaekit.errors import ChoiceError
from vaekit.noise import Noise
from vaekit.options import Options
from vaekit.run import fit
from vaekit.training.augment import Augment
from vaekit.training.loop import Trainer
from vaekit.training.overfitting import small_set
from vaekit.utils.progress import Silent


def moved(image: np.ndarray, down: int, right: int, flip: bool) -> np.ndarray:
    """An image (C, H, W) moved with its border repeated, and then read from the right."""
    s = max(abs(down), abs(right))
    _, h, w = image.shape
    wide = np.pad(image, ((0, 0), (s, s), (s, s)), mode="edge")
    image = wide[:, s - down : s - down + h, s - right : s - right + w]
    return image[:, :, ::-1] if flip else image


@pytest.mark.parametrize(("text", "flips", "shift"), [("flip", 2, 0), ("shift:2", 1, 2), ("shift:1,flip", 2, 1)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_each_move_is_as_likely(text, flips, shift, dtype):
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 7)).astype(np.uint8)
    n = 6000
    raw = torch.from_numpy(image).to(dtype).expand(n, 3, 5, 7)
    found = Augment.parse(text, "image", (3, 5, 7))(raw, Noise.of(1, n)).numpy()
    assert found.dtype == raw.numpy().dtype
    reach = range(-shift, shift + 1)
    versions = [moved(image, a, b, bool(f)) for a in reach for b in reach for f in range(flips)]
    counts = [int((found == v).reshape(n, -1).all(1).sum()) for v in versions]
    assert sum(counts) == n  # nothing else occurs
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_move_belongs_to_the_row_not_to_the_batch():
    raw = torch.from_numpy(blobs(9, 1, 6, 8))
    augment = Augment.parse("flip,shift", "image", (1, 6, 8))
    whole = augment(raw, Noise.of(5, 9))
    parts = [augment(raw[r], Noise.of(5, r)) for r in torch.arange(9).split(4)]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, raw)


@weekly
@needs_compiler
def test_compiled_as_eager():
    raw = torch.from_numpy(blobs(12, 3, 40, 33))
    augment = Augment.parse("flip,shift:5", "image", (3, 40, 33))
    noise = Noise.of(5, 12)
    graph = torch.compile(lambda raw, base, rows: augment(raw, Noise(base, rows)), fullgraph=True, dynamic=False)
    assert torch.equal(graph(raw, noise.base, noise.rows), augment(raw, noise))


@pytest.mark.parametrize(
    ("text", "kind", "shape", "told"),
    [
        ("flap", "image", (1, 8, 8), "did you mean 'flip'?"),
        ("shift:5", "image", (1, 8, 8), "must lie in 1..4"),
        ("shift:0", "image", (1, 8, 8), "must lie in 1..4"),
        ("shift:-1", "image", (1, 8, 8), "is not one of"),
        ("flip:2", "image", (1, 8, 8), "is not one of"),
        ("", "image", (1, 8, 8), "is not one of"),
        ("flip", "vector", (8,), "of kind vector"),
    ],
)
def test_what_cannot_be_done_is_refused(text, kind, shape, told):
    with pytest.raises(ChoiceError, match=told):
        Augment.parse(text, kind, shape)


def test_a_refusal_comes_before_anything_is_written(tmp_path):
    with pytest.raises(ChoiceError, match="of kind vector"):
        fit(np.random.default_rng(0).normal(size=(50, 4)), "vae", out=tmp_path / "a", steps=2, augment="flip", **QUIET)
    assert not (tmp_path / "a").exists()


def test_a_resumed_run_repeats_the_moves(tmp_path, monkeypatch):
    settings = {"hidden": (8,), "latent": 2, "augment": "flip,shift:1", "seed": 3, **QUIET}
    images = blobs(60, 6, 8)
    fit(images, "vae", out=tmp_path / "whole", steps=12, **settings)
    fit(images, "vae", out=tmp_path / "still", steps=12, **settings | {"augment": None})
    real, stop = Trainer.one_step, 5

    def stopped(self):
        if self.step == stop:
            raise RuntimeError("stopped")
        real(self)

    monkeypatch.setattr(Trainer, "one_step", stopped)
    with pytest.raises(RuntimeError, match="stopped"):
        fit(images, "vae", out=tmp_path / "twice", steps=12, checkpoint_steps=5, **settings)
    monkeypatch.setattr(Trainer, "one_step", real)
    fit(images, "vae", out=tmp_path / "twice", resume=True, **QUIET)
    assert same(tmp_path / "whole", tmp_path / "twice")
    assert not same(tmp_path / "whole", tmp_path / "still")


class Heard(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def test_a_small_set_of_images_is_told_what_it_can_give(tmp_path):
    few, heard = vk.from_arrays(blobs(300, 20, 20)), Heard()
    fit(few, "vae", out=tmp_path / "a", steps=2, hidden=(4,), latent=2, **QUIET | {"progress": heard})
    (told,) = heard.notes
    n = len(few.train)
    assert f"{n} training images are few" in told
    assert "`augment=" in told
    assert "`patience=" in told
    assert "`augment=" not in small_set(few, Options(augment="flip"))
    assert "`patience=" not in small_set(few, Options(patience=3))
    assert small_set(vk.from_arrays(blobs(300, 10, 10)), Options()) is None  # more images than numbers in one
    assert small_set(vk.from_arrays(np.random.default_rng(0).normal(size=(300, 900))), Options()) is None
