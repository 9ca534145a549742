"""Folders of images: every mode is flattened as it should be, decoded once, and trouble is named."""

import contextlib
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, features

from vaekit.data import cache, load, load_rows
from vaekit.data.readers import folders, image_file, images
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
    monkeypatch.setattr(images, "decode_image", lambda *_: pytest.fail("decoded again"))
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
    assert data.notes == ("1 of 9 images cannot be read and are left out",)
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
    assert data.notes == ("1 row of about.csv without an image: not used",)
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

    monkeypatch.setattr(images, "decode_image", stop)
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


def wide(path, ranges, mode="I;16", suffix="tif"):
    """Images 5x5 whose values run over these ranges, of more than 8 bits; the arrays."""
    path.mkdir()
    arrays = []
    for i, (low, high) in enumerate(ranges):
        values = np.linspace(low, high, 25).reshape(5, 5).astype({"F": "f4", "I": "i4", "I;16B": ">u2"}.get(mode, "u2"))
        Image.fromarray(values).save(path / f"{i}.{suffix}")
        arrays.append(values)
    return np.stack(arrays).astype(float)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_wide_images_are_spread_over_the_range_of_all(tmp_path, mode):
    values = wide(tmp_path / "set", [(100, 700), (300, 900), (200, 500), (150, 600)], mode)
    data = load(tmp_path / "set")
    expected = np.floor((values - 100) / 800 * 255 + 0.5)
    np.testing.assert_array_equal(data.train[:], expected[data.train.index])
    assert data.options["pixel_range"] == "100.0,900.0"
    assert any("values 100..900 are rescaled to 0..255" in note for note in data.notes)
    again = load(tmp_path / "set", **data.options)
    assert again.digest == data.digest
    few = wide(tmp_path / "new", [(100, 500)], mode)  # new rows are read by the run's range, not by their own
    found, _, _ = load_rows(tmp_path / "new", pixel_range=data.options["pixel_range"])
    np.testing.assert_array_equal(found, np.floor((few - 100) / 800 * 255 + 0.5))


def test_wide_images_that_use_their_range_keep_it(tmp_path):
    values = wide(tmp_path / "set", [(0, 65535), (10, 60000), (0, 30000)])
    data = load(tmp_path / "set")
    assert "pixel_range" not in data.options
    np.testing.assert_array_equal(data.train[:], np.floor(values / 257 + 0.5)[data.train.index])
    wide(tmp_path / "hot", [(100, 900), (100, 800), (90, 900)])
    for i in range(3):
        pixels = np.array(Image.open(tmp_path / "hot" / f"{i}.tif").resize((20, 20)))
        pixels[0, 0] = 65535
        Image.fromarray(pixels).save(tmp_path / "hot" / f"{i}.tif")
    assert any("`pixel_range=" in note and "few of 256 grey levels" in note for note in load(tmp_path / "hot").notes)
    with pytest.raises(DataError, match=r"pixel_range must be 'LOW,HIGH'"):
        load(tmp_path / "set", pixel_range="9,3")


def test_colour_of_16_bits_is_told(tmp_path):
    (tmp_path / "set").mkdir()
    for i in range(4):
        rows = b"".join(b"\0" + np.full((4, 3), 1000 * i + 7, ">u2").tobytes() for _ in range(4))
        chunks = [
            (b"IHDR", np.array([4, 4], ">u4").tobytes() + bytes([16, 2, 0, 0, 0])),
            (b"IDAT", zlib.compress(rows)),
        ]
        content = b"\x89PNG\r\n\x1a\n" + b"".join(
            len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
            for name, body in [*chunks, (b"IEND", b"")]
        )
        (tmp_path / "set" / f"{i}.png").write_bytes(content)
    data = load(tmp_path / "set")
    assert data.notes == ("4 of 4 images have more than 8 bits per channel: only the higher 8 bits are read",)


@pytest.mark.parametrize("name", ["ppm", "sgi", "rle.sgi", "jp2", "j2k", "avif"])
def test_bits_beyond_eight_are_found_in_every_format(tmp_path, name):
    image, file = Image.new("RGB", (16, 16), (10, 99, 200)), tmp_path / f"image.{name}"
    if name == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    if name == "rle.sgi":  # bytes 2 and 3 of the header: compression, and bytes per channel
        image.save(file)
        content = bytearray(file.read_bytes())
        content[2:4] = b"\1\2"
        file.write_bytes(content)
        assert image_file.head_of(file).deep
        return
    image.save(file)
    assert not image_file.head_of(file).deep
    if name == "ppm":
        file.write_bytes(b"P6 16 16 1023\n" + np.full((16, 16, 3), 700, ">u2").tobytes())
    elif name == "sgi":
        image.save(file, bpc=2)
    else:
        marker, away, deep = (b"av1C", 6, 0x40) if name == "avif" else (b"\xff\x4f\xff\x51", 42, 15)
        content = bytearray(file.read_bytes())
        content[content.index(marker) + away] = deep
        file.write_bytes(content)
    if name == "avif":  # whose decoder compares the header with what it decodes
        assert image_file._bits_of_header(file) == 10
    else:
        assert image_file.head_of(file).deep


def test_bits_do_not_depend_on_the_files_that_are_open(tmp_path):
    """Pillow keeps the number of the open file among the arguments of its decoder of JPEG 2000."""
    Image.new("RGB", (16, 16), (10, 99, 200)).save(tmp_path / "image.jp2")
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context((tmp_path / "image.jp2").open("rb"))
            assert not image_file.head_of(tmp_path / "image.jp2").deep


def test_every_format_that_pillow_reads_is_read(tmp_path):
    formats = {"jfif": "JPEG", "bmp": "BMP", "tga": "TGA", "PNG": "PNG", "ppm": "PPM", "jp2": "JPEG2000", "Tif": "TIFF"}
    formats |= {"avif": "AVIF"} if features.check("avif") else {}
    (tmp_path / "set").mkdir()
    for i, (suffix, name) in enumerate(formats.items()):
        Image.new("RGB", (8, 8), (30 * i, 99, 200)).save(tmp_path / "set" / f"{i}.{suffix}", format=name)
    for name in ("photo.heic", "photo2.HEIC", "scan", "labels.csv", "Thumbs.db", ".hidden.png"):
        (tmp_path / "set" / name).write_bytes(b"")
    (tmp_path / "set" / "__MACOSX").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "set" / "__MACOSX" / "a.png")
    data = load(tmp_path / "set")
    assert sum(map(len, (data.train, data.valid, data.test))) == len(formats)
    assert data.notes == ("left out 3 files of other formats: .heic (2), without a suffix (1)",)


def test_pages_and_frames_that_are_left_out_are_counted(tmp_path):
    (tmp_path / "set").mkdir()
    pages = [Image.new("L", (4, 4), 20 * i) for i in range(5)]
    pages[0].save(tmp_path / "set" / "a.tif", save_all=True, append_images=pages[1:])
    pages[1].save(tmp_path / "set" / "b.gif", save_all=True, append_images=pages[2:])
    pages[2].save(tmp_path / "set" / "c.png")
    (note,) = load(tmp_path / "set").notes
    assert note.startswith(
        "2 of 3 files hold several images (pages, frames): only the first of each is read, 7 are left"
    )


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("turn", [3, 6, 8])
def test_every_format_stands_upright(tmp_path, suffix, turn):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    upright = np.zeros((24, 16, 3), np.uint8)
    upright[:8] = (200, 30, 30)
    upright[:, :4] = (20, 220, 40)
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    (tmp_path / "set").mkdir()
    for i in range(3):
        exif = Image.Exif()
        exif[image_file.ORIENTATION] = turn
        made = Image.fromarray((upright * (1 - i / 9)).astype(np.uint8)).transpose(turns[turn])
        options = {"lossless": True} if suffix == "webp" else {} if suffix in ("png", "tif") else {"quality": 95}
        made.save(tmp_path / "set" / f"{i}.{suffix}", exif=exif, **options)
    data = load(tmp_path / "set")
    assert data.shape == (3, 24, 16)
    first = data.train.raw[0].astype(int)
    assert np.abs(first - upright).mean() < (0.01 if suffix in ("png", "tif", "webp") else 6)


def tree(path, names):
    rng = np.random.default_rng(0)
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (3, 3), dtype=np.uint8)).save(path / name)
    return path


@pytest.mark.parametrize(
    ("train", "valid", "test"),
    [
        ("Train", None, "Test"),
        ("training", "validation", "testing"),
        ("train_set", "val_set", "test_set"),
        ("train2017", "val2017", None),
        ("TRAIN", "dev", None),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_splits_by_many_names(tmp_path, train, valid, test, inside):
    parts = {"train": (train, 12), "valid": (valid, 5), "test": (test, 4)}
    made = [(part, c, i) for part, n in parts.values() if part for i in range(n) for c in "ab"]
    names = [f"{c}/{part}/{i}.png" if inside else f"{part}/{c}/{i}.png" for part, c, i in made]
    data = load(tree(tmp_path / "set", names))
    assert data.label_names == ["a", "b"]
    for part, (word, n) in parts.items():
        split = getattr(data, part)
        if word:
            assert all(word in name.split("/") for name in split.names)
            assert part == "train" or len(split) == 2 * n
        else:
            assert all(train in name.split("/") for name in split.names)  # drawn from train, and said
            assert any(f"{part} ({len(split)} rows) drawn from the train split" in note for note in data.notes)
        assert all(("a", "b")[label] in name.split("/") for name, label in zip(split.names, split.label, strict=True))


def test_images_outside_the_splits_are_left_out_and_counted(tmp_path):
    names = [f"{part}/{c}{i}.png" for part in ("training_set", "test_set") for c in "ab" for i in range(6)]
    data = load(tree(tmp_path / "set", [*names, "single_prediction/x.png", "y.png"]))
    assert (len(data.test), sum(map(len, (data.train, data.valid, data.test)))) == (12, 24)
    assert any("2 images outside the folders of the splits" in note for note in data.notes)
    assert len(load_rows(tmp_path / "set")[0]) == 26  # new data for a trained model are all wanted


def test_images_without_a_class_folder_have_no_label(tmp_path):
    names = [f"{part}/{c}/{i}.png" for part in ("train",) for c in "ab" for i in range(6)]
    data = load(tree(tmp_path / "set", [*names, *(f"test/{i}.png" for i in range(3))]))
    assert data.label_names == ["a", "b"]
    assert data.test.label.tolist() == [-1, -1, -1]
    assert "3 images outside the class folders: without a label" in data.notes
    assert load(tree(tmp_path / "classes", ["train/0.png", "train/1.png", "bus/2.png"])).label_names == ["bus", "train"]


def test_folders_inside_class_folders_are_told(tmp_path):
    data = load(tree(tmp_path / "set", ["pets/cat/0.png", "pets/dog/1.png", "cars/2.png"]))
    assert data.label_names == ["cars", "pets"]
    assert any("folders inside them (pets/cat, pets/dog) are not used" in note for note in data.notes)


def test_links_to_folders_are_followed_once(tmp_path):
    tree(tmp_path / "other", [f"{i}.png" for i in range(3)])
    path = tree(tmp_path / "set", [f"a/{i}.png" for i in range(3)])
    (path / "b").symlink_to(tmp_path / "other")
    (path / "a" / "loop").symlink_to(path)
    data = load(path)
    assert data.label_names == ["a", "b"]
    assert len(data.train) == 4
    (path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"gone\.png cannot be read as an image"):
        load(path)


def test_a_word_for_a_split():
    known = ["Train", "test_set", "val2017", "validation-images", "TestData", "dev", "seg_train", "pets2-test-images"]
    assert [folders.part_named(name) for name in known] == [
        ("train", ""), ("test", ""), ("valid", ""), ("valid", ""), ("test", ""), ("valid", ""), ("train", "seg"),
        ("test", "pets 2"),
    ]  # fmt: skip
    assert not any(map(folders.part_named, ["trainings", "contest", "tests", "train_or_test", "2017"]))


def test_splits_whose_folders_share_a_name_or_are_nested(tmp_path):
    """As in archives of Kaggle: seg_train/seg_train/sea/0.png."""
    names = [
        f"seg_{part}/seg_{part}/{c}/{i}.png" for part in ("train", "test") for c in ("ice", "sea") for i in range(6)
    ]
    data = load(tree(tmp_path / "set", [*names, "seg_pred/seg_pred/0.png"]))
    assert data.label_names == ["ice", "sea"]
    assert {name.split("/")[0] for name in (*data.train.names, *data.valid.names)} == {"seg_train"}
    assert {name.split("/")[0] for name in data.test.names} == {"seg_test"}
    assert any("left out 1 image outside the folders of the splits (in seg_pred)" in note for note in data.notes)
    names = [f"training_set/training_set/{c}/{i}.png" for c in "ab" for i in range(6)]
    data = load(tree(tmp_path / "twice", [*names, *(f"test_set/test_set/{c}/0.png" for c in "ab")]))
    assert (data.label_names, data.test.label.tolist()) == (["a", "b"], [0, 1])


def test_folders_that_may_be_splits_are_told(tmp_path):
    names = [f"{name}/{i}.png" for name in ("trainA", "trainB", "testA", "testB") for i in range(3)]
    data = load(tree(tmp_path / "set", names))
    assert data.label_names == ["testA", "testB", "trainA", "trainB"]
    assert any("splits are drawn at random from all of them" in note for note in data.notes)
    stations = load(
        tree(tmp_path / "words", [f"{name}/{i}.png" for name in ("train_station", "test_tube") for i in range(3)])
    )
    assert len(stations.label_names) == 2


def test_a_folder_for_each_image_is_told(tmp_path):
    data = load(tree(tmp_path / "set", [f"person{i:02d}/face.png" for i in range(12)]))
    said = "the labels are 12 classes (person00, person01, person02 and 9 more) in 12 rows: are they names of rows"
    assert any(said in note for note in data.notes)


def test_links_to_images_and_to_folders_above(tmp_path):
    """An image under two names could be in two splits."""
    path = tree(tmp_path / "set", [f"all/{i}.png" for i in range(6)])
    tree(tmp_path / "other", ["x.png", "y.png"])
    (path / "some").mkdir()
    for i in range(3):
        (path / "some" / f"{i}.png").symlink_to(path / "all" / f"{i}.png")
    (path / "some" / "x.png").symlink_to(tmp_path / "other" / "x.png")
    (path / "some" / "x2.png").symlink_to(tmp_path / "other" / "x.png")
    (path / "above").symlink_to(tmp_path)
    names, notes = folders.listing(path)
    assert names == [*(f"all/{i}.png" for i in range(6)), "some/x.png"]
    assert notes == ["left out 4 links to images that are in the folder as well"]
    assert folders.listing(path / "some")[0] == ["0.png", "1.png", "2.png", "x.png"]


def test_names_that_are_not_utf8(tmp_path):
    """Unpacked from archives of Windows; they could neither be printed nor stored."""
    path = tree(tmp_path / "set", [f"{c}/{i}.png" for c in "ab" for i in range(4)])
    try:
        (path / "a").rename(path / os.fsdecode(b"caf\xe9"))
    except OSError:
        pytest.skip("the file system needs UTF-8")
    data = load(path)
    assert data.label_names == ["b", r"caf\xe9"]
    np.testing.assert_array_equal(load(path).test[:], data.test[:])


def test_a_table_may_name_images_as_windows_does(folder):
    rows = "".join(f"class{i % 3}\\{i}.png,{i}\n" for i in range(9))
    (folder / "about.csv").write_text("file,age\n" + rows)
    data = load(folder, table="about.csv")
    assert all(
        name.endswith(f"/{age}.png") for name, age in zip(data.train.names, data.train.columns["age"], strict=True)
    )


def test_missing_labels_of_a_table_are_unknown_and_its_notes_are_kept(folder):
    moods = ["u", "NA", "v"] * 3
    rows = [f"class{i % 3}/{i}.png;{mood};{i},5\n" for i, mood in enumerate(moods)]
    (folder / "about.csv").write_text("file;label;age\n" + "".join(rows))
    data = load(folder, table="about.csv")
    assert data.label_names == ["u", "v"]
    labels = np.concatenate([part.label for part in (data.train, data.valid, data.test)])
    assert np.bincount(labels + 1).tolist() == [3, 3, 3]
    said = " ".join(data.notes)
    assert "about.csv: numbers have a decimal comma" in said
    assert "3 of 9 labels in column 'label' are missing" in said
    assert load(folder, table="about.csv", label="label").label_names == ["u", "v"]


@pytest.mark.skipif(not features.check("jpg_2000"), reason="needs JPEG 2000")
def test_a_box_that_declares_more_than_memory_holds(folder):
    """Pillow reads as many bytes as a box of a JPEG 2000 declares."""
    start = b"\0\0\0\x0cjP  \r\n\x87\n"
    (folder / "class0" / "z.jp2").write_bytes(start + struct.pack(">I4sQ", 1, b"jp2h", 2**62) + bytes(60))
    with pytest.raises(DataError, match=r"z\.jp2 cannot be read as an image \(.+\)"):
        load(folder)
