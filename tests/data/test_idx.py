"""IDX files: every type and shape comes back as it was; every damage is refused by name."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vaekit.data import cache, load
from vaekit.data.arrays import is_map
from vaekit.data.readers import idx
from vaekit.errors import DataError

CODES = {np.dtype(kind): code for code, kind in idx.TYPES.items()}
FIXED = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ARRAYS = st.sampled_from(sorted(idx.TYPES.values())).flatmap(
    lambda kind: hnp.arrays(np.dtype(kind), hnp.array_shapes(min_dims=1, max_dims=4, max_side=5))
)


def encode(x: np.ndarray) -> bytes:
    big = x.astype(x.dtype.newbyteorder(">"))
    return bytes([0, 0, CODES[big.dtype], x.ndim]) + np.array(x.shape, ">u4").tobytes() + big.tobytes()


def write_mnist(folder: Path, train: int = 30, test: int = 6, *, pack: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    arrays = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (train, 5, 4), dtype=np.uint8),
        "train-labels-idx1-ubyte": rng.integers(0, 3, train, dtype=np.uint8),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (test, 5, 4), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": rng.integers(0, 3, test, dtype=np.uint8),
    }
    for name, array in arrays.items():
        if pack:
            (folder / f"{name}.gz").write_bytes(gzip.compress(encode(array)))
        else:
            (folder / name).write_bytes(encode(array))
    return arrays


@FIXED
@given(x=ARRAYS, pack=st.booleans())
def test_round_trip(tmp_path, x, pack):
    path = tmp_path / ("a.idx.gz" if pack else "a.idx")
    path.write_bytes(gzip.compress(encode(x)) if pack else encode(x))
    back = idx.read(path)
    assert back.dtype.newbyteorder("=") == x.dtype.newbyteorder("=")
    np.testing.assert_array_equal(back, x)
    assert isinstance(back, np.memmap) != pack


@FIXED
@given(x=ARRAYS, data=st.data(), pack=st.booleans())
def test_every_truncation_and_every_surplus_is_refused_by_name(tmp_path, x, data, pack):
    whole = encode(x)
    cut = data.draw(st.integers(0, len(whole) - 1) | st.just(len(whole) + 3))
    path = tmp_path / ("cut.idx.gz" if pack else "cut.idx")
    broken = (whole + b"abc")[:cut]
    path.write_bytes(gzip.compress(broken) if pack else broken)
    with pytest.raises(DataError, match=r"cut\.idx.*got"):
        idx.read(path)


def test_damaged_gzip_is_refused(tmp_path):
    packed = gzip.compress(encode(np.zeros((9, 2, 2), np.uint8)))
    for broken in (packed[:-9], b"no gzip", packed[:15] + b"\xff" * 9 + packed[24:]):
        (tmp_path / "a.idx.gz").write_bytes(broken)
        with pytest.raises(DataError, match="damaged or cut short"):
            idx.read(tmp_path / "a.idx.gz")


def test_lying_header_and_wrong_magic(tmp_path):
    path = tmp_path / "a-idx3-ubyte"
    path.write_bytes(bytes([0, 0, 8, 1]) + (2**31).to_bytes(4, "big") + b"abc")
    with pytest.raises(DataError, match="declares 2147483648"):
        load(path)
    path.write_bytes(b"\x89PNG and so on")
    with pytest.raises(DataError, match=r"not an IDX file.*89 50 4e 47"):
        load(path)


@pytest.mark.parametrize("pack", [True, False])
def test_folder_keeps_its_test_rows_and_order(tmp_path, pack):
    arrays = write_mnist(tmp_path / "set", pack=pack)
    data = load(tmp_path / "set")
    assert (len(data.train), len(data.valid), len(data.test)) == (27, 3, 6)
    np.testing.assert_array_equal(data.test[:], arrays["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(data.test.label, arrays["t10k-labels-idx1-ubyte"])
    assert data.shape == (1, 5, 4)
    with pytest.raises(DataError, match="come with their own test split"):
        load(tmp_path / "set", test=0.3)


def test_single_file_finds_its_labels(tmp_path):
    arrays = write_mnist(tmp_path / "set", pack=False)
    data = load(tmp_path / "set" / "train-images-idx3-ubyte")
    assert isinstance(data.train.raw, np.memmap)
    np.testing.assert_array_equal(data.train.label, arrays["train-labels-idx1-ubyte"][data.train.index])
    with pytest.raises(DataError, match="labels\\?"):
        load(tmp_path / "set" / "train-labels-idx1-ubyte")


def test_folder_that_does_not_fit_together(tmp_path):
    folder = tmp_path / "set"
    write_mnist(folder, pack=False)
    (folder / "train-labels-idx1-ubyte").write_bytes(encode(np.zeros(7, np.uint8)))
    with pytest.raises(DataError, match="one label for each of 30 images"):
        load(folder)
    (folder / "train-labels-idx1-ubyte").unlink()
    (folder / "other-train-images-idx3-ubyte").write_bytes(encode(np.zeros((7, 2, 2), np.uint8)))
    with pytest.raises(DataError, match="several IDX data sets"):
        load(folder)
    (folder / "other-train-images-idx3-ubyte").unlink()
    (folder / "train-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match="no training images"):
        load(folder)


def test_wide_big_endian_files_are_handed_out_in_native_order(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 3, 3))
    (tmp_path / "a.idx").write_bytes(encode(x))
    data = load(tmp_path / "a.idx")
    assert isinstance(data.train.raw, np.memmap)
    assert data.train[:].dtype == np.float32
    assert data.train[:].dtype.isnative
    np.testing.assert_allclose(data.train[:], x[data.train.index], rtol=1e-6)


@pytest.mark.parametrize("pack", [False, True])
def test_a_large_folder_is_mapped(tmp_path, monkeypatch, pack):
    write_mnist(tmp_path / "a", pack=pack)
    held = load(tmp_path / "a")
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "LARGE", 1)
    mapped = load(tmp_path / "a")
    assert is_map(mapped.train.raw)
    assert mapped.digest == held.digest
    np.testing.assert_array_equal(mapped.test[:], held.test[:])
    if pack:
        file = tmp_path / "a" / "train-images-idx3-ubyte.gz"
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(DataError, match=r"train-images.*damaged"):
            load(tmp_path / "a")


@pytest.mark.parametrize(
    ("lacking", "part"), [("t10k-labels-idx1-ubyte.gz", "test"), ("train-labels-idx1-ubyte.gz", "train")]
)
def test_labels_of_one_part_only_are_kept(tmp_path, lacking, part):
    arrays = write_mnist(tmp_path / "m")
    (tmp_path / "m" / lacking).unlink()
    data = load(tmp_path / "m")
    assert f"the {part} data have no labels" in data.notes
    known = {"train": data.train.label, "test": data.test.label}
    assert (known.pop(part) == -1).all()
    ((kept, label),) = known.items()
    whole = arrays[f"{'train' if kept == 'train' else 't10k'}-labels-idx1-ubyte"]
    np.testing.assert_array_equal(label, whole[data.train.index] if kept == "train" else whole)
