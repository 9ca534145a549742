"""Damage that a checksum or a length shows is refused, in every format that has one."""

import gzip
import io
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from vaekit.data import load, load_rows
from vaekit.errors import DataError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


def flipped(raw, place):
    """A copy with one bit flipped."""
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place:][1:]


def image(i, form):
    out = io.BytesIO()
    x = np.random.default_rng(i).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(x).save(out, form)
    return out.getvalue()


def archive(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return out.getvalue()


def check(path, whole, damaged, match):
    """Check that the whole file is read and the damaged one refused; returns the rows of the whole one, in order."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(whole)
    source = path.parent if path.suffix == ".png" else path
    rows = np.asarray(load_rows(source)[0])
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=match):
        load(source)
    return rows


def test_packed_archives(tmp_path):
    """Images without a checksum of their own, in an archive whose checksum lies behind its last file."""
    content = archive({f"{i}.bmp": image(i, "bmp") for i in range(4)})
    raw = gzip.compress(content, 1)
    check(tmp_path / "a.tar.gz", raw, flipped(raw, -8), r"a\.tar\.gz cannot be read as an archive \(CRC")
    pixel = content.index(b"BM") + 60
    other = gzip.compress(flipped(content, pixel), 1)
    check(tmp_path / "b.tgz", raw, other[:-8] + raw[-8:], r"b\.tgz cannot be read as an archive \(CRC")
    (tmp_path / "c.tgz").write_bytes(gzip.compress(content[:3300], 1))  # each image has a header and a block
    with pytest.raises(DataError, match=r"c\.tgz is cut short or damaged after 3 files"):
        load(tmp_path / "c.tgz")
    (tmp_path / "d.tgz").write_bytes(gzip.compress(content[:3072], 1))
    assert any("has no end mark: it may be cut short" in note for note in load(tmp_path / "d.tgz").notes)


def test_packed_volumes(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    volume = np.random.default_rng(0).integers(-100, 100, (20, 18, 10)).astype(np.int16)
    content = nibabel.Nifti1Image(volume, np.eye(4)).to_bytes()
    raw, other = gzip.compress(content, 1), gzip.compress(flipped(content, -6), 1)
    message = r"a\.nii\.gz cannot be read \(BadGzipFile: CRC"
    rows = check(tmp_path / "a.nii.gz", raw, other[:-8] + raw[-8:], message)
    np.testing.assert_array_equal(np.sort(rows, None), np.sort(volume, None))  # slices are turned


def test_packed_variables_of_matlab(tmp_path):
    out = io.BytesIO()
    x = np.random.default_rng(0).normal(size=(300, 3))
    savemat(out, {"x": x}, do_compression=True)  # more than its header
    raw = out.getvalue()
    message = r"a\.mat cannot be read as a MATLAB file \(x: .*incorrect data check"
    rows = check(tmp_path / "a.mat", raw, flipped(raw, -1), message)
    np.testing.assert_allclose(rows, x, rtol=1e-6)
    (size,) = struct.unpack_from("<I", raw, 132)
    short = raw[:132] + struct.pack("<I", size - 4) + raw[136:-4]  # without its checksum
    check(tmp_path / "b.mat", raw, short, r"b\.mat cannot be read as a MATLAB file \(x has no end\)")


def test_pixels_of_png(tmp_path):
    (tmp_path / "set").mkdir()
    for i in range(4):
        (tmp_path / "set" / f"{i}.png").write_bytes(image(i, "png"))
    raw = image(9, "png")
    damaged = flipped(raw, raw.index(b"IEND") - 5)
    check(tmp_path / "set" / "9.png", raw, damaged, r"9\.png cannot be read.*its chunk IDAT has a wrong checksum")
    assert any("1 of 5 images cannot be read" in note for note in load(tmp_path / "set", skip_bad=True).notes)


@pytest.mark.parametrize("packing", ["none", "snappy"])
def test_pages_of_parquet(tmp_path, packing):
    pa = pytest.importorskip("pyarrow")
    values = np.random.default_rng(0).normal(size=30)
    out = io.BytesIO()
    pytest.importorskip("pyarrow.parquet").write_table(
        pa.table({"a": values, "b": values**2}),
        out,
        compression=packing,
        write_page_checksum=True,
        use_dictionary=False,
    )
    raw = out.getvalue()
    place = raw.index(values[3:4].tobytes())  # random numbers are stored as they are
    message = r"a\.parquet cannot be read as Parquet \(.*checksum"
    rows = check(tmp_path / "a.parquet", raw, flipped(raw, place), message)
    np.testing.assert_allclose(rows, np.stack([values, values**2], 1), rtol=1e-6)


def test_sound_that_is_cut_short(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    out, samples = io.BytesIO(), np.random.default_rng(0).uniform(-0.5, 0.5, 1000)
    soundfile.write(out, samples, 8000, format="WAV")
    raw = out.getvalue()
    path, size = tmp_path / "a.wav", raw.index(b"data") + 4
    path.write_bytes(raw)
    whole = load(path, window=50)
    path.write_bytes(raw[:-300])
    with pytest.raises(DataError, match=r"a\.wav is cut short: it declares 2,000 bytes of samples, but has 1,700"):
        load(path, window=50)
    for unknown in (2**32 - 1, 2**31 - 1):  # written to a pipe
        path.write_bytes(raw[:size] + struct.pack("<I", unknown) + raw[size + 4 :])
        np.testing.assert_array_equal(load(path, window=50).train.raw, whole.train.raw)
