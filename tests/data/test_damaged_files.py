"""Data files that are damaged or lie about themselves: refused by name, at no more than the cost of what they hold."""

import gzip
import io
import os
import resource
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from vaekit.data import cache, load
from vaekit.data.readers import idx, image_file, images, table
from vaekit.errors import DataError


def grown() -> int:
    """Bytes of memory that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_gzip_that_lies_about_its_length(tmp_path, monkeypatch):
    """The last four bytes say what is inside, and anybody can write them; the IDX header decides."""
    x = np.random.default_rng(0).integers(0, 256, (20, 5, 4), dtype=np.uint8)
    packed = gzip.compress(bytes([0, 0, 8, 3]) + np.array(x.shape, ">u4").tobytes() + x.tobytes())
    path = tmp_path / "a-idx3-ubyte.gz"
    path.write_bytes(packed[:-4] + struct.pack("<I", 2**32 - 1))
    with pytest.raises(DataError, match="damaged or cut short"):
        load(path, cache=tmp_path / "cache")
    # more than the header promises is read no further than shows it
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + np.array(x.shape, ">u4").tobytes() + bytes(2**28), 1))
    before = grown()
    with pytest.raises(DataError, match="a wrong header"):
        load(path, cache=tmp_path / "cache")
    assert grown() - before < 2**27
    monkeypatch.setattr(cache, "LARGE", 100)  # the same through the cache, which gets no more either
    with pytest.raises(DataError, match="a wrong header"):
        load(path, cache=tmp_path / "cache")
    assert sum(f.stat().st_size for f in (tmp_path / "cache").rglob("*.idx")) < 1000
    path.write_bytes(packed)
    np.testing.assert_array_equal(idx.read(path, tmp_path / "cache"), x)


def test_one_long_cell_costs_what_it_is_long(tmp_path):
    rows = [f"{i},word{i % 3}" for i in range(20_000)]
    rows[7] = "7," + "a" * 131_000
    (tmp_path / "a.csv").write_text("x,text\n" + "\n".join(rows) + "\n")
    before = grown()
    with pytest.raises(DataError, match=r"text hold.* text"):
        load(tmp_path / "a.csv")
    assert load(tmp_path / "a.csv", types="text=drop").shape == (1,)
    with pytest.raises(DataError, match="'text' has a text of 131,000 characters, expected short names"):
        load(tmp_path / "a.csv", label="text")
    assert grown() - before < 2**28
    assert table.read(tmp_path / "a.csv").columns["text"][7] == "a" * 131_000


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 4)}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (4, 10000000000000)}",
        b"{'descr': [], 'fortran_order': False, 'shape': (4, 4)}",
        b"{'descr': [[]], 'fortran_order': False, 'shape': (4, 4)}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (4, 4), 3: 4}",
        b"{'descr': '<q9', 'fortran_order': 1, 'shape': 4}",
        b"{[]: 1}",
        b"(" * 5000,
        b"-" * 9000 + b"1",
        b"'\\",
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_broken_npy_header(tmp_path, header, suffix):
    raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(4 * 4 * 8)
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        path.write_bytes(raw)
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x.npy", raw)
    with pytest.raises(DataError, match=r"a\.np|must hold real numbers"):
        load(path)


def test_npz_members_that_cannot_be_unpacked(tmp_path):
    x = io.BytesIO()
    np.save(x, np.random.default_rng(0).random((40, 5)))
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("x.npy", x.getvalue())
    assert load(path).shape == (5,)
    raw = bytearray(path.read_bytes())
    raw[60:90] = bytes(30)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.npz cannot be read"):
        load(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", x.getvalue())
    raw = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(mark) + offset] |= 1  # encrypted
    path.write_bytes(raw)
    with pytest.raises(DataError, match="without a password"):
        load(path)


def test_names_of_parquet_columns_that_are_no_text(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"naame": np.arange(20.0), "b": np.arange(20.0) ** 2}), tmp_path / "a.parquet")
    raw = (tmp_path / "a.parquet").read_bytes().replace(b"naame", b"n\xff\xfeme")
    (tmp_path / "a.parquet").write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.parquet cannot be read as Parquet"):
        load(tmp_path / "a.parquet")


def test_cells_of_parquet_that_are_not_utf8(tmp_path):
    pa = pytest.importorskip("pyarrow")
    texts = pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(np.int32([0, 1, 2, 3])), pa.py_buffer(b"a\xffb")])
    pytest.importorskip("pyarrow.parquet").write_table(
        pa.table({"x": [1, 2, 3], "word": texts}), tmp_path / "a.parquet"
    )
    with pytest.raises(DataError, match=r"column 'word' has a cell that is not text in UTF-8.*damaged"):
        load(tmp_path / "a.parquet")


def test_compressed_text_that_is_cut_short(tmp_path):
    rng = np.random.default_rng(0)
    lines = "x,y\n" + "".join(f"{a:.6f},{b:.6f}\n" for a, b in rng.normal(size=(300, 2)))
    for encoding in ("utf-8", "utf-16"):  # a byte-order mark decides the encoding before the rest is read
        (tmp_path / "a.csv.gz").write_bytes(gzip.compress(lines.encode(encoding))[:-1500])
        with pytest.raises(DataError, match=r"a\.csv\.gz cannot be read .*ended before"):
            load(tmp_path / "a.csv.gz")


def test_images_of_more_pixels_than_memory(tmp_path, monkeypatch):
    for module in (image_file, images):
        monkeypatch.setattr(module, "MOST_PIXELS", 100)
    for i in range(4):
        Image.fromarray(np.full((11, 10), 20 * i, np.uint8)).save(tmp_path / f"{i}.png")
    with pytest.raises(DataError, match=r"0\.png cannot be read .*10x11 pixels, expected at most 100"):
        load(tmp_path, cache=tmp_path / ".cache")
    with pytest.raises(DataError, match="size must be at most 100 pixels"):
        load(tmp_path, size="11x10", cache=tmp_path / ".cache")


def test_what_is_neither_file_nor_folder(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    for source in (tmp_path / "a.csv", "/dev/zero"):
        with pytest.raises(DataError, match="a device or a pipe"):
            load(source)
    for source in ("a" * 5000, "~nobody-of-this-name/x.npy", "a\0b"):
        with pytest.raises(DataError, match=r"neither a data set nor a path|cannot be a path"):
            load(source)


def test_a_picture_that_is_a_program_is_not_run(tmp_path):
    """Pillow would hand PostScript, whatever its name, to another program."""
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 7\n%%EndComments\nshowpage\n%%EOF\n"
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(text)
    with pytest.raises(DataError, match=r"0\.png cannot be read as an image"):
        load(tmp_path, cache=tmp_path / ".cache")
