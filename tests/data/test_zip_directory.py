"""A damaged directory of a .zip or .npz file is refused, or the same is read; archives of other programs are read."""

import io
import shutil
import struct
import subprocess
import zipfile

import numpy as np
import pytest
from PIL import Image

from vaekit.data import load, load_rows
from vaekit.data.readers import archives, npz, zip_directory
from vaekit.errors import DataError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


def image(i):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (6, 5), dtype=np.uint8)).save(out, "png")
    return out.getvalue()


class Unseekable(io.RawIOBase):
    """A file that can only be written forwards, so that sizes and checksums follow the contents."""

    def __init__(self):
        self.content = b""

    def writable(self):
        return True

    def write(self, part):
        self.content += bytes(part)
        return len(part)


def zipped(files, out=None, packing=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(out := out or io.BytesIO(), "w", packing) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.content if isinstance(out, Unseekable) else out.getvalue()


def arrays(packed=False):
    out = io.BytesIO()
    x = np.arange(30, dtype=np.uint8).reshape(10, 3)
    (np.savez_compressed if packed else np.savez)(out, x=x, y=np.arange(10) % 3, label_names=np.array(["a", "b", "c"]))
    return out.getvalue()


FILES = {"train/a/0.png": image(0), "train/b/1.png": image(1), "test/a/2.png": image(2), "caf\xe9.txt": b"about"}


def of_npz(path):
    return {name: x.tolist() for name, x in npz.arrays(path).items()}


def of_zip(path):
    archive = archives.opened(path)
    return {name: archive.read(name) for name in archive.sizes}


READ = {
    "npz": (arrays(), of_npz),
    "npz packed": (arrays(True), of_npz),
    "zip": (zipped(FILES), of_zip),
    "zip streamed": (zipped(FILES, Unseekable()), of_zip),
}


@pytest.mark.parametrize("form", READ)
def test_no_flipped_bit_of_the_directory_changes_what_is_read(tmp_path, form):
    raw, read = READ[form]
    path = tmp_path / ("a.npz" if form.startswith("npz") else "a.zip")
    path.write_bytes(raw)
    want, refused, start = read(path), 0, raw.index(b"PK\1\2")
    for at in range(start, len(raw)):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :])
        try:
            assert read(path) == want, f"byte {at - start} of the directory"
        except DataError:
            refused += 1
    assert refused > (len(raw) - start) / 3


def changed(raw, name, other, nth):
    """A copy with another name, of the same length, in the nth place."""
    assert len(name) == len(other)
    parts = raw.split(name)
    return name.join(parts[:nth]) + other + name.join(parts[nth:])


@pytest.mark.parametrize("nth", [1, 2])
def test_names_that_differ_are_refused_also_of_files_that_are_not_read(tmp_path, nth):
    path = tmp_path / "a.npz"
    path.write_bytes(changed(arrays(), b"y.npy", b"y.npx", nth))
    with pytest.raises(
        DataError, match=r"a\.npz cannot be read .*header of 'y\.np[xy]' differ in its name.*save it again"
    ):
        load(path)
    path = tmp_path / "a.zip"
    path.write_bytes(changed(zipped(FILES), b"train/b/1.png", b"tsain/b/1.png", nth))
    with pytest.raises(DataError, match=r"a\.zip cannot be read as an archive .* differ in its name"):
        load(path)


@pytest.mark.parametrize(("at", "what"), [(8, "how it is packed"), (14, "its checksum"), (22, "its size")])
def test_what_the_header_of_a_file_says_must_be_what_the_directory_says(tmp_path, at, what):
    raw = zipped(FILES)
    start = raw.index(b"PK\3\4", 1)
    path = tmp_path / "a.zip"
    path.write_bytes(raw[: start + at] + bytes([raw[start + at] ^ 1]) + raw[start + at + 1 :])
    with pytest.raises(DataError, match=rf"'train/b/1\.png' differ in {what}"):
        load(path)


def test_the_stated_number_of_files_is_compared(tmp_path):
    raw = zipped(FILES)
    path = tmp_path / "a.zip"
    path.write_bytes(raw[:-14] + struct.pack("<HH", 3, 3) + raw[-10:])
    with pytest.raises(DataError, match="its directory has 4 entries, but states 3"):
        load(path)


def test_archives_of_other_programs_are_read(tmp_path, monkeypatch):
    """With something before or a comment behind, with sizes of 64 bits, or streamed, or by the program zip."""
    whole = {name: content for name, content in FILES.items() if name.endswith("png")}
    written = {
        "plain": zipped(whole),
        "before": b"#!/bin/sh\n" + zipped(whole),
        "streamed": zipped(whole, Unseekable()),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.comment = b"a comment"
        for name, content in whole.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(content)
    written["large"] = out.getvalue()
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)  # so that the number of files has 64 bits
    written["many"] = zipped(whole)
    assert b"PK\6\6" in written["many"]
    if shutil.which("zip"):
        for name, content in whole.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
        subprocess.run(["zip", "-q", "-r", "program.zip", "train", "test"], cwd=tmp_path, check=True)
        written["program"] = (tmp_path / "program.zip").read_bytes()
    for form, raw in written.items():
        (tmp_path / f"{form}.zip").write_bytes(raw)
        assert of_zip(tmp_path / f"{form}.zip") == whole, form


def test_headers_of_an_archive_of_many_files_are_compared_once(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MANY", 3)
    times = []
    check = zip_directory.check
    monkeypatch.setattr(zip_directory, "check", lambda *given: times.append(given) or check(*given))
    path = tmp_path / "a.zip"
    for raw, expected in ((zipped(FILES), 1), (zipped(FILES, packing=zipfile.ZIP_STORED), 2)):
        path.write_bytes(raw)
        for _ in range(2):
            assert len(load_rows(path)[0]) == 3
        assert len(times) == expected
    path.write_bytes(changed(zipped(FILES), b"train/b/1.png", b"train/b/1.pnf", 2))
    for _ in range(2):
        with pytest.raises(DataError, match="differ in its name"):
            load(path)


def test_a_sheet_with_a_renamed_part_is_refused(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book, out = openpyxl.Workbook(), io.BytesIO()
    for i in range(20):
        book.active.append(["size", "kind"] if not i else [i * 0.5, "ab"[i % 2]])
    book.save(out)
    path = tmp_path / "a.xlsx"
    path.write_bytes(out.getvalue())
    assert len(load_rows(path)[0]) == 19
    path.write_bytes(changed(out.getvalue(), b"xl/styles.xml", b"xl/stymes.xml", 2))
    with pytest.raises(DataError, match=r"a\.xlsx cannot be read .* differ in its name"):
        load(path)
