"""Folders of images: every mode is flattened as it should be, decoded once, and trouble is named."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from vaekit.data import cache, images, load
from vaekit.errors import DataError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """Nine 6x4 colour images (height x width) in three class folders."""
    rng = np.random.default_rng(0)
    for i in range(9):
        place = tmp_path / "set" / f"class{i % 3}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 4, 3), dtype=np.uint8)).save(place / f"{i}.png")
    return tmp_path / "set"


def one(path, image, **options):
    """How vaekit sees `image`, beside two black and white companions of its own size."""
    path.mkdir()
    image.save(path / "a.png", **options)
    for name, value in (("b", 0), ("c", 255)):
        Image.new("L", image.size, value).save(path / f"{name}.png")
    return load(path).train.raw[0]


def test_class_folders(folder):
    (folder / ".hidden.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image")
    data = load(folder)
    assert (data.kind, data.shape, data.scale) == ("image", (3, 6, 4), (0.0, 255.0))
    assert data.label_names == ["class0", "class1", "class2"]
    names = ["class0/0.png", "class0/3.png", "class0/6.png", "class1/1.png"]
    for split in (data.train, data.valid, data.test):
        for row, (name, label) in enumerate(zip(split.names, split.label, strict=True)):
            assert name.startswith(f"class{label}/")
            np.testing.assert_array_equal(split[row], np.array(Image.open(folder / name)))
    order = dict(zip([*data.train.index, *data.valid.index, *data.test.index],
                     [*data.train.names, *data.valid.names, *data.test.names], strict=True))  # fmt: skip
    assert [order[i] for i in range(4)] == names


def test_decoded_once_and_mapped(folder, monkeypatch):
    seen = []
    first = load(folder, progress=lambda what, done, total: seen.append((what, done, total)))
    assert ("decoding images", 9, 9) in seen
    monkeypatch.setattr(images, "_decode", lambda *_: pytest.fail("decoded again"))
    second = load(folder)
    assert isinstance(second.train.raw, np.memmap)
    assert second.train.raw.dtype == np.uint8
    assert second.digest == first.digest
    monkeypatch.undo()
    Image.new("RGB", (4, 6), "red").save(folder / "class0" / "0.png")
    assert load(folder).digest != first.digest


L = np.arange(24, dtype=np.uint8).reshape(6, 4) * 10
HOLES = np.where(L > 99, 255, 0).astype(np.uint8)
RGB = np.stack([L, L[::-1], 255 - L], -1)


@pytest.mark.parametrize(
    ("mode", "image", "expected"),
    [
        ("1", Image.fromarray(L > 99), np.where(L > 99, 255, 0)),
        ("L", Image.fromarray(L), L),
        ("I;16", Image.fromarray(L.astype(np.uint16) * 257), L),
        ("I;16 rounding", Image.fromarray(np.full((6, 4), 257 * 7 + 129, np.uint16)), np.full((6, 4), 8)),
        ("LA", Image.fromarray(np.stack([L, HOLES], -1), "LA"), np.where(HOLES, L, 255)),
        ("RGB", Image.fromarray(RGB), RGB),
        ("RGBA opaque", Image.fromarray(np.dstack([RGB, np.full_like(L, 255)])), RGB),
        ("RGBA clear", Image.fromarray(np.dstack([RGB, np.zeros_like(L)])), np.full_like(RGB, 255)),
        ("P of greys", Image.fromarray(L).convert("P"), L),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_modes(tmp_path, mode, image, expected):
    np.testing.assert_array_equal(one(tmp_path / "set", image), expected)


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (4, 6), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 0)
    flat = one(tmp_path / "set", image, transparency=0)
    assert flat[0, 0].tolist() == [255, 255, 255]
    assert flat[1, 1].tolist() == [200, 100, 50]


def test_background(tmp_path):
    clear = Image.new("LA", (4, 6), (9, 0))
    one(tmp_path / "set", clear)
    red = load(tmp_path / "set", background="red")
    assert red.shape == (3, 6, 4)  # grey images become coloured on a coloured ground
    assert red.train.raw[0, 0, 0].tolist() == [255, 0, 0]
    assert red.options == {"background": "red"}
    assert load(tmp_path / "set", background="black").train.raw[0].max() == 0
    with pytest.raises(DataError, match=r"background must be a colour.*'nocolour'"):
        load(tmp_path / "set", background="nocolour")


def test_turned_photographs_are_set_upright(tmp_path):
    (tmp_path / "set").mkdir()
    for i in range(3):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("L", (16, 8), 80 * i).save(tmp_path / "set" / f"{i}.jpg", exif=exif)
    assert load(tmp_path / "set").shape == (1, 16, 8)


def test_several_sizes(folder):
    Image.new("RGB", (5, 5)).save(folder / "class0" / "odd.png")
    with pytest.raises(DataError, match=r"2 sizes.*6x4 \(9, such as class0/0.png\), 5x5 \(1.*size='6x4'"):
        load(folder)
    data = load(folder, size="8x12")
    assert (data.shape, data.options) == ((3, 8, 12), {"size": "8x12"})
    assert load(folder, size="7").shape == (3, 7, 7)
    expected = Image.open(folder / "class0/0.png").resize((12, 8), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(data.train.raw[0], np.array(expected))
    for wrong in ("0", "8x", "big", "-4"):
        with pytest.raises(DataError, match="size must be like '64' or '64x48'"):
            load(folder, size=wrong)


@pytest.mark.parametrize(
    "damage", [lambda whole: b"no image", lambda whole: whole[: len(whole) // 2], lambda whole: b""]
)
def test_unreadable_images_are_named_or_counted(folder, damage):
    bad = folder / "class1" / "1.png"
    noise = np.random.default_rng(1).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).save(bad)
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.raises(DataError, match=r"class1/1\.png cannot be read as an image.*skip_bad=True"):
        load(folder)
    data = load(folder, skip_bad=True)
    assert sum(map(len, (data.train, data.valid, data.test))) == 8
    assert data.notes == ("1 of 9 images could not be read and were left out",)
    assert load(folder, skip_bad=True).notes == data.notes  # from the cache, too


def test_nothing_readable_and_nothing_there(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match=r"holds no images.*it is empty"):
        load(tmp_path / "set")
    (tmp_path / "set" / "data.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no images.*data\.npz"):
        load(tmp_path / "set")
    (tmp_path / "set" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of its 1 images can be read"):
        load(tmp_path / "set", skip_bad=True)


def test_train_and_test_folders_are_splits(tmp_path):
    rng = np.random.default_rng(0)
    for part, n in (("train", 10), ("test", 4)):
        for i in range(n):
            place = tmp_path / "set" / part / "ab"[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (3, 3), dtype=np.uint8)).save(place / f"{i}.png")
    data = load(tmp_path / "set")
    assert (len(data.train), len(data.valid), len(data.test)) == (9, 1, 4)
    assert all(name.startswith("test/") for name in data.test.names)
    assert data.label_names == ["a", "b"]


def test_table(folder):
    names = [f"class{i % 3}/{i}.png" for i in range(9)]
    rows = [f"{name},{i % 2},{i / 2},{i // 2},{'uvw'[i % 3]}" for i, name in enumerate(names)]
    (folder / "about.csv").write_text("\n".join(["file,smiling,age,person,mood", *rows, "gone.png,0,0,0,u"]))
    data = load(folder, table="about.csv", group="person")
    assert data.attribute_names == ["smiling"]
    assert data.notes == ("1 rows of about.csv belong to no image and were not used",)
    assert data.options == {"table": "about.csv", "group": "person"}
    for split in (data.train, data.valid, data.test):
        number = np.array([int(name[7]) for name in split.names])
        np.testing.assert_array_equal(split.columns["smiling"], number % 2)
        np.testing.assert_array_equal(split.columns["age"], number / 2)
    assert not set(data.train.columns["person"]) & set(data.test.columns["person"])
    assert load(folder, table="about.csv", label="mood").label_names == ["u", "v", "w"]
    for text, message in (
        ("name,a\nx,1\n", "needs a column 'file'"),
        ("\n".join(["file,a", *[f"{name},1" for name in names[1:]]]), r"no row for 1 of 9 images.*class0/0\.png"),
        ("\n".join(["file,a", *[f"{name},1" for name in (*names, names[0])]]), "several rows for the image"),
    ):
        (folder / "about.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            load(folder, table="about.csv")
    with pytest.raises(DataError, match="no such file"):
        load(folder, table="absent.csv")


def test_cache_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot write.*VAEKIT_CACHE"):
        load(folder, cache=tmp_path / "file")


def test_an_interrupted_decoding_leaves_nothing_behind(folder, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "_decode", stop)
    with pytest.raises(KeyboardInterrupt):
        load(folder)
    assert not [*(tmp_path / "cache" / "images").iterdir()]


def test_threads_that_decode_one_folder_at_once_have_the_same_data(folder, tmp_path):
    with ThreadPoolExecutor(6) as pool:
        digests = {data.digest for data in pool.map(lambda _: load(folder), range(18))}
    assert len(digests) == 1
    left = [p.suffix for p in (tmp_path / "cache" / "images").iterdir()]
    assert sorted(left) == [".json", ".npy"]


def test_where_the_cache_is(monkeypatch, tmp_path):
    assert cache.folder("/x/y").as_posix() == "/x/y"
    assert cache.folder() == tmp_path / "cache"
    monkeypatch.delenv("VAEKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "vaekit"
