"""Images in archives: the same arrays as the folder that was packed; shards with labels; nothing leaves the archive."""

import gzip
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

import vaekit as vk
from vaekit.data import load, read_rows
from vaekit.data.readers import archives
from vaekit.errors import DataError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


def png(seed, mode="RGB"):
    """The bytes of an image of 6 x 5 pixels."""
    x = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(x).convert(mode).save(out, "png")
    return out.getvalue()


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


FILES = {f"{part}/{'ab'[i % 2]}/{i}.png": png(i) for i in range(12) for part in (["test"] if i > 8 else ["train"])}


def tar(path, files, packed=False):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(out.getvalue()) if packed else out.getvalue())
    return path


def packed_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(name, content)
    return path


@pytest.mark.parametrize("form", ["a.zip", "a.tar", "a.tar.gz", "a.TGZ"])
def test_an_archive_is_read_like_its_folder(tmp_path, form):
    for name, content in FILES.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    files = {"__MACOSX/._1.png": b"x", **dict(sorted(FILES.items())), "readme.txt": b"about"}
    path = (
        packed_zip(tmp_path / form, files)
        if form.endswith("zip")
        else tar(tmp_path / form, files, "gz" in form.lower())
    )
    one, other = load(path), load(tmp_path / "folder")
    assert one.digest == other.digest
    assert one.label_names == ["a", "b"]
    for part in ("train", "valid", "test"):
        mine, theirs = getattr(one, part), getattr(other, part)
        np.testing.assert_array_equal(mine[:], theirs[:])
        np.testing.assert_array_equal(mine.label, theirs.label)
        assert mine.names == theirs.names
    assert sorted(p.suffix for p in (tmp_path / "cache").rglob("*.*")) == [".json", ".json", ".npy", ".npy"]
    assert read_rows(path, size="4x4").x.shape == (12, 4, 4, 3)


def test_names_that_lead_out_of_the_archive_and_links_are_left_out(tmp_path):
    good = {f"{i}.png": png(i) for i in range(4)}
    path = tar(tmp_path / "a.tar", {**good, "../out.png": png(7), "/abs.png": png(8), "a/../../b.png": png(9)})
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    data = load(path)
    assert len(data.train.raw) == 4
    assert "left out 4 links and files with unsafe names" in data.notes
    assert not list(tmp_path.parent.glob("out.png"))
    assert len(load(packed_zip(tmp_path / "b.zip", {**good, "../out.png": png(7)})).train.raw) == 4


def test_archives_that_declare_too_much_are_refused_at_no_cost(tmp_path, monkeypatch):
    path = packed_zip(tmp_path / "a.zip", {f"{i}.bmp": bytes(10**6) for i in range(3)})
    monkeypatch.setattr(archives, "MOST_BYTES", 10**5)
    with pytest.raises(DataError, match=r"0\.bmp has 1,000,000 bytes, expected at most 100,000"):
        load(path)
    monkeypatch.setattr(archives, "RATIO", 10)
    with pytest.raises(DataError, match="declares files of 3,000,000 bytes"):
        load(path)
    big = tar(tmp_path / "a.tar", {"a.png": bytes(10**6), "b.png": png(1)})
    with pytest.raises(DataError, match=r"a\.png has 1,000,000 bytes"):
        load(big)


@pytest.mark.parametrize("form", ["a.zip", "a.tar", "a.tar.gz"])
def test_damaged_archives_are_refused(tmp_path, form):
    files = {f"{i}.png": png(i) for i in range(5)}
    path = packed_zip(tmp_path / form, files) if form == "a.zip" else tar(tmp_path / form, files, form.endswith("gz"))
    whole = path.read_bytes()
    for content in (b"", b"no", whole[: min(2600, len(whole) - 100)], whole[: min(2300, len(whole) - 50)]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.(zip|tar)"):
            load(path)
    if form == "a.tar":
        path.write_bytes(whole[:3072])  # three images, each of a header and a block
        assert any("has no end mark: it may be cut short" in note for note in load(path).notes)
    with pytest.raises(DataError, match=r"holds no images, but \.csv"):
        load(packed_zip(tmp_path / "b.zip", {"table.csv": b"a,b\n1,2\n"}))


def shard(first, n=4, **extra):
    files = {}
    for i in range(first, first + n):
        files |= {f"{i:03}.png": png(i), f"{i:03}.cls": str(i % 3).encode()}
        files[f"{i:03}.json"] = json.dumps({"size": i / 2, "who": "xy"[i % 2], "boxes": [1, 2]}).encode()
    return files | extra


def test_webdataset_shards_give_labels_columns_and_splits(tmp_path):
    for i in range(3):
        tar(tmp_path / "set" / f"my-train-{i:03}.tar", shard(4 * i))
    tar(tmp_path / "set" / "my-test-000.tar", shard(12, 3))
    for source in (
        tmp_path / "set",
        tmp_path / "set" / "my-*.tar",
        f"{tmp_path}/set/my-{{train-{{000..002}},test-000}}.tar",
    ):
        data = load(source)
        assert (len(data.train) + len(data.valid), len(data.test)) == (12, 3)
        numbers = [int(name.split("/")[1][:3]) for name in data.test.names]
        assert data.test.label.tolist() == [i % 3 for i in numbers]
        assert data.test.columns["size"].tolist() == [i / 2 for i in numbers]
        assert data.test.columns["who"].tolist() == ["xy"[i % 2] for i in numbers]
        np.testing.assert_array_equal(data.test[0], pixels(png(numbers[0])))
        assert not any("left out" in note for note in data.notes)
    assert load(tmp_path / "set", label="who").label_names == ["x", "y"]
    with pytest.raises(DataError, match="has no such column; it has"):
        load(tmp_path / "set", label="zz")
    with pytest.raises(DataError, match="neither a data set nor a path"):
        load(tmp_path / "set" / "other-*.tar")


def described(path, about):
    """The data of a shard whose examples have these .json files, in the order of the shard."""
    files = {}
    for i, values in enumerate(about):
        files |= {f"{i:03}.png": png(i), f"{i:03}.json": json.dumps(values).encode()}
    return read_rows(tar(path, files))


@pytest.mark.parametrize("packed", [False, True])
def test_lists_of_numbers_beside_images_become_columns(tmp_path, packed):
    boxes = np.random.default_rng(0).normal(size=(6, 4)).round(3)
    kinds = (np.random.default_rng(1).random((6, 3)) < 0.5).astype(int)
    files = {}
    for i in range(6):
        about = {
            "box": boxes[i].tolist(),
            "label": [i % 2],
            "kinds": kinds[i].tolist(),
            "few": None if i else [1, None],
        }
        files |= {f"{i:03}.png": png(i), f"{i:03}.json": json.dumps(about).encode()}
    read = read_rows(tar(tmp_path / ("a.tar.gz" if packed else "a.tar"), files, packed))
    assert list(read.columns) == [*(f"box_{i}" for i in range(4)), *(f"kinds_{i}" for i in range(3)), "few_0", "few_1"]
    np.testing.assert_array_equal(np.stack([read.columns[f"box_{i}"] for i in range(4)], 1), boxes)
    np.testing.assert_array_equal(np.stack([read.columns[f"kinds_{i}"] for i in range(3)], 1), kinds)
    np.testing.assert_array_equal(read.columns["few_0"], [1, *[np.nan] * 5])
    assert read.label.tolist() == [0, 1, 0, 1, 0, 1]
    assert not read.notes


def test_values_beside_images_that_are_not_used_are_named_with_the_reason(tmp_path):
    about = [
        {
            "n": i,
            "boxes": [[0, 1, 2, 3]] * i,
            "parts": [0.5] * (i + 1),
            "tags": ["a", "b"],
            "meta": {"camera": "x"},
            "code": [0.5] * 101,
            "size": [3, 4],
            "size_1": i,
            "endless": float("inf"),
            "width": 7.5 if i else float("-inf"),
            "height": [1, 2] if i == 1 else i,
        }
        for i in range(6)
    ]
    read = described(tmp_path / "a.tar", about)
    assert {name: values.tolist()[1:] for name, values in read.columns.items() if name != "height"} == {
        "n": [1, 2, 3, 4, 5],
        "size_1": [1, 2, 3, 4, 5],
        "width": [7.5] * 5,
    }
    assert np.isnan(read.columns["width"][0])
    np.testing.assert_array_equal(read.columns["height"], [0, np.nan, 2, 3, 4, 5])
    *missing, unused = read.notes
    assert missing == [
        "column 'width': infinite numbers are read as missing values (1 of 6)",
        "column 'height': lists of 2 values are read as missing values (1 of 6)",
    ]
    for what in (
        "'boxes' (lists of 0 to 5 values, not only numbers)",
        "'parts' (lists of 1 to 6 values)",
        "'tags' (lists of 2 values, not only numbers)",
        "'meta' (objects)",
        "'code' (lists of 101 values)",
        "'size' (lists of 2 values)",
        "'endless' (infinite numbers)",
    ):
        assert what in unused
    with pytest.raises(DataError, match=r"has no such column, but objects of this name; it has n, "):
        load(tmp_path / "a.tar", label="meta")


def test_a_json_file_that_is_a_list_is_a_value_as_well(tmp_path):
    read = described(tmp_path / "a.tar", [[i, 2 * i] for i in range(4)])
    assert {name: values.tolist() for name, values in read.columns.items()} == {
        "json_0": [0, 1, 2, 3],
        "json_1": [0, 2, 4, 6],
    }
    read = described(tmp_path / "b.tar", [[i] * i for i in range(4)])
    assert not read.columns
    assert "not used: 'json' (lists of 0 to 3 values)" in read.notes[-1]


def test_names_that_are_not_utf8_have_labels_and_can_be_printed(tmp_path):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    files = {
        f"{name}-{i}.{kind}": png(i) if kind == "png" else b"%d" % (i % 2) for i in range(6) for kind in ("png", "cls")
    }
    data = load(tar(tmp_path / "a.tar", files))
    assert data.train.label.tolist() == [int(one.split("-")[1][0]) % 2 for one in data.train.names]
    with pytest.raises(DataError, match=r"caf.*-9\.png cannot be read") as raised:
        load(tar(tmp_path / "b.tar", {**files, f"{name}-9.png": b"no"}))
    assert str(raised.value).encode()


def test_examples_of_several_images_and_labels_as_texts(tmp_path):
    files = {}
    for i in range(6):
        files |= {f"x/{i}.img.png": png(i), f"x/{i}.seg.png": png(i + 50, "L"), f"x/{i}.txt": "ab"[i % 2].encode()}
    path = tar(tmp_path / "a.tar", files)
    with pytest.raises(DataError, match=r"several images per example \(img\.png, seg\.png\).*`x_key`"):
        load(path)
    data = load(path, x_key="img.png", label="txt")
    assert (data.shape, data.label_names) == ((3, 6, 5), ["a", "b"])
    bad = tar(tmp_path / "b.tar", {**{f"{i}.png": png(i) for i in range(4)}, "2.json": b"{"})
    with pytest.raises(DataError, match=r"2\.json is not JSON"):
        load(bad)


def test_a_model_of_an_archive_takes_folders_and_archives(tmp_path):
    path = packed_zip(tmp_path / "a.zip", {f"{'ab'[i % 2]}/{i}.png": png(i) for i in range(16)})
    run = vk.fit(path, out=tmp_path / "run", steps=2, latent=2, hidden=(4,), batch=8, compile="off", progress=False)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "0.png").write_bytes(png(3))
    other = tar(tmp_path / "b.tar", {"0.png": png(3)})
    np.testing.assert_allclose(run.encode(other), run.encode(tmp_path / "new"), rtol=1e-5)
