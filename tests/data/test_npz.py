""".npy and .npz: content comes back, maps stay maps, Python objects are never read."""

import io
import zipfile

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vaekit.data import cache as caches
from vaekit.data import from_arrays, load, load_rows, read_rows
from vaekit.data.arrays import is_map
from vaekit.data.core import row_dtype
from vaekit.data.readers import npz
from vaekit.errors import DataError
from vaekit.recipes import DataSpec

FIXED = settings(
    max_examples=50, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


@FIXED
@given(
    x=st.sampled_from(["u1", "i2", "u2", "i8", "f4", "f8", "?"]).flatmap(
        lambda kind: hnp.arrays(np.dtype(kind), hnp.array_shapes(min_dims=1, max_dims=4, max_side=5))
    ),
    packed=st.booleans(),
    fortran=st.booleans(),
)
def test_every_way_into_a_member_gives_the_same(tmp_path, x, packed, fortran):
    x = np.asfortranarray(x) if fortran else x
    path = tmp_path / "a.npz"
    (np.savez_compressed if packed else np.savez)(path, x=x, label=np.zeros(len(x), int))
    read = npz.source(path).x
    np.testing.assert_array_equal(read, x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caches, "LARGE", 0)
        patch.setattr(npz, "UNPACKED", 0)
        patch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
        mapped = npz.source(path).x
    assert isinstance(mapped, np.memmap)
    assert mapped.dtype == x.dtype
    np.testing.assert_array_equal(mapped, x)


def test_npy_stays_a_map_of_bytes(tmp_path, rng):
    x = rng.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", x)
    data = load(tmp_path / "a.npy")
    assert isinstance(data.train.raw, np.memmap)
    assert data.train.raw.dtype == np.uint8
    assert data.shape == (3, 6, 5)
    np.testing.assert_array_equal(data.events(data.train[[3, 1]]), x[data.train.index[[3, 1]]].transpose(0, 3, 1, 2))


def test_npy_of_float64_is_cast_row_by_row(tmp_path, rng):
    np.save(tmp_path / "a.npy", rng.normal(size=(40, 3)))
    data = load(tmp_path / "a.npy")
    assert isinstance(data.train.raw, np.memmap)
    assert data.train.raw.dtype == np.float64
    assert data.train[:2].dtype == np.float32


def test_compressed_member_is_unpacked_once(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(npz, "UNPACKED", 0)
    np.savez_compressed(tmp_path / "a.npz", x=rng.integers(0, 9, (20, 4, 4), dtype=np.uint8))
    load(tmp_path / "a.npz")
    (entry,) = (tmp_path / "cache" / "npz").iterdir()
    before = entry.stat().st_mtime_ns
    assert isinstance(load(tmp_path / "a.npz").train.raw, np.memmap)
    assert entry.stat().st_mtime_ns == before


def test_everything_beside_x_is_found(tmp_path, rng):
    n = 30
    np.savez(
        tmp_path / "cells.npz",
        counts=rng.poisson(3.0, (n, 4)).astype(np.uint16),
        genes=np.array(["a", "b", "c", "d"]),
        label=np.arange(n) % 3,
        label_names=np.array(["x", "y", "z"]),
        batch=np.arange(n) % 3,
        batch_names=np.array(["left", "right", "none"]),
        factors=np.stack([np.arange(n) % 2, np.arange(n) % 5], 1),
        factor_names=np.array(["p", "q"]),
        smiling=np.arange(n) % 2,
        donor=np.array([f"d{i % 6}" for i in range(n)]),
        names=np.array([f"cell{i}" for i in range(n)]),
        unrelated=np.zeros((3, 3)),
    )
    data = load(tmp_path / "cells.npz", group="donor")
    assert data.kind == "counts"
    assert data.feature_names == ["a", "b", "c", "d"]
    assert data.label_names == ["x", "y", "z"]
    assert data.factor_names == ["p", "q"]
    assert data.attribute_names == ["smiling"]
    for split in (data.train, data.valid, data.test):
        np.testing.assert_array_equal(split.columns["q"], split.index % 5)
        assert split.names == [f"cell{i}" for i in split.index]
    assert not set(data.train.columns["donor"]) & set(data.test.columns["donor"])
    assert load(tmp_path / "cells.npz", label="batch").label_names == ["left", "none", "right"]
    assert data.test.columns["batch"].tolist() == [["left", "right", "none"][i % 3] for i in data.test.index]
    assert load(tmp_path / "cells.npz", label="donor").label_names == [f"d{i}" for i in range(6)]
    with pytest.raises(DataError, match=r"label='nothing'.*no such column.*donor"):
        load(tmp_path / "cells.npz", label="nothing")


def test_given_test_rows(tmp_path, rng):
    arrays = {"x_train": rng.normal(size=(20, 3)), "x_test": rng.normal(size=(5, 3))}
    np.savez(tmp_path / "a.npz", **arrays, y_train=np.arange(20) % 2, y_test=np.arange(5) % 2)
    data = load(tmp_path / "a.npz")
    assert (len(data.train), len(data.valid), len(data.test)) == (18, 2, 5)
    np.testing.assert_allclose(data.test[:], arrays["x_test"], rtol=1e-6)
    np.testing.assert_array_equal(data.test.label, np.arange(5) % 2)
    np.savez(tmp_path / "b.npz", **arrays, y_train=np.arange(20))
    with pytest.raises(DataError, match="labels for some splits only"):
        load(tmp_path / "b.npz")


def test_x_key(tmp_path, rng):
    np.savez(tmp_path / "a.npz", first=rng.normal(size=(9, 2)), second=rng.normal(size=(9, 3)))
    assert load(tmp_path / "a.npz", x_key="second").shape == (3,)
    with pytest.raises(DataError, match=r"first \(9, 2\), second \(9, 3\).*`x_key`"):
        load(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"x_key='third'.*no such array"):
        load(tmp_path / "a.npz", x_key="third")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


def test_objects_are_never_unpickled(tmp_path, rng):
    bombs = np.array([Bomb()] * 4, dtype=object)
    np.savez(tmp_path / "a.npz", x=bombs)
    np.save(tmp_path / "a.npy", bombs)
    for path in (tmp_path / "a.npz", tmp_path / "a.npy"):
        with pytest.raises(DataError, match=r"Python objects.*never"):
            load(path)
    np.savez(tmp_path / "b.npz", x=rng.normal(size=(9, 2)), metadata=bombs)
    assert load(tmp_path / "b.npz").shape == (2,)  # not asked for, so left alone


def test_damage(tmp_path, rng):
    np.savez_compressed(tmp_path / "a.npz", x=rng.normal(size=(50, 9)))
    np.save(tmp_path / "a.npy", rng.normal(size=(50, 9)))
    for name in ("a.npz", "a.npy"):
        whole = (tmp_path / name).read_bytes()
        for broken in (b"", b"other", whole[: len(whole) // 2], whole[:9]):
            (tmp_path / name).write_bytes(broken)
            with pytest.raises(DataError, match=name.replace(".", r"\.")):
                load(tmp_path / name)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, ">u2", np.int16, np.float64])
def test_a_map_gives_the_facts_of_the_same_array_in_memory(tmp_path, rng, dtype):
    x = rng.integers(0, 3, (9, 4, 4)).astype(dtype) * np.ones((), dtype)
    np.save(tmp_path / "x.npy", x)
    mapped, held = DataSpec.of(load(tmp_path / "x.npy")), DataSpec.of(from_arrays(x))
    assert mapped == held
    assert mapped.integer == (np.dtype(dtype).itemsize == 1)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, np.float32, np.float64])
def test_large_parts_are_joined_in_the_cache_once_and_mapped(tmp_path, rng, monkeypatch, dtype):
    parts = {f"x_{part}": rng.integers(0, 9, (n, 4, 3)).astype(dtype) for part, n in (("train", 20), ("test", 5))}
    np.savez(tmp_path / "a.npz", **parts)
    held = load(tmp_path / "a.npz")
    monkeypatch.setattr(caches, "LARGE", 1)
    seen = []
    mapped = load(tmp_path / "a.npz", progress=lambda *told: seen.append(told))
    assert seen[-1][1:] == (25, 25)
    assert is_map(mapped.train.raw)
    assert not is_map(held.train.raw)
    assert mapped.is_same(held.digest)
    assert mapped.scale == held.scale
    for part in ("train", "valid", "test"):
        np.testing.assert_array_equal(getattr(mapped, part)[:], getattr(held, part)[:])
    seen.clear()
    load(tmp_path / "a.npz", progress=lambda *told: seen.append(told))
    assert not seen
    arrays = from_arrays(parts["x_train"], test=parts["x_test"])
    assert arrays.is_same(held.digest)
    changed = from_arrays(parts["x_train"][::-1].copy(), test=parts["x_test"])
    assert changed.digest != held.digest


def test_rows_without_a_split(tmp_path, rng):
    for n in (1, 2):
        x = np.repeat(rng.integers(0, 9, (1, 4, 4), np.uint8), n, 0)
        np.savez(tmp_path / "a.npz", x=x, label=np.full(n, 7))
        raw, names, label = load_rows(tmp_path / "a.npz")
        np.testing.assert_array_equal(raw, x)
        assert names is None
        assert label.tolist() == [7] * n
    raw, _, label = load_rows("digits")
    assert raw.shape == (1797, 8, 8)
    assert label.shape == (1797,)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.float32, np.float64, ">u2"])
def test_rows_of_a_large_map_are_not_loaded(tmp_path, rng, monkeypatch, dtype):
    monkeypatch.setattr(caches, "LARGE", 1)
    x = rng.integers(0, 9, (6, 4, 4)).astype(dtype)
    np.save(tmp_path / "a.npy", x)
    raw, _, _ = load_rows(tmp_path / "a.npy")
    assert is_map(raw)
    assert raw.dtype == row_dtype(x.dtype, double=True)
    np.testing.assert_array_equal(raw, x)


SPARSE = {
    "csr": lambda m: m.tocsr(),
    "csc": lambda m: m.tocsc(),
    "coo": lambda m: m.tocoo(),
    "bsr": lambda m: m.tobsr((2, 5)),
    "dia": lambda m: sp.diags_array([np.arange(1.0, 41.0), np.ones(40)], offsets=[0, 1], shape=(40, 50)),
    "matrix": lambda m: sp.csr_matrix(m),
}


@pytest.mark.parametrize("form", SPARSE)
def test_a_sparse_matrix_is_its_dense_one(tmp_path, form):
    matrix = SPARSE[form](sp.random_array((40, 50), density=0.1, format="csr", rng=np.random.default_rng(0)))
    sp.save_npz(tmp_path / "s.npz", matrix)
    dense = matrix.toarray()
    for data in (load(tmp_path / "s.npz"), from_arrays(matrix)):
        assert data.shape == (50,)
        for split in (data.train, data.valid, data.test):
            np.testing.assert_allclose(split[:], dense[split.index], rtol=1e-6)
    assert data.scale == (dense[data.train.index].min(), pytest.approx(dense[data.train.index].max()))
    np.testing.assert_allclose(np.asarray(load_rows(tmp_path / "s.npz")[0]), dense, rtol=1e-6)


def test_a_sparse_matrix_may_have_labels_beside_it(tmp_path):
    sp.save_npz(tmp_path / "s.npz", sp.eye_array(12, format="csr"))
    parts = dict(np.load(tmp_path / "s.npz"))
    np.savez(tmp_path / "s.npz", **parts, label=np.arange(12) % 3)
    data = load(tmp_path / "s.npz")
    assert not data.notes
    for split in (data.train, data.test):
        np.testing.assert_array_equal(split.label, split.index % 3)


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("indices", [0, 1, 50]),
        ("indptr", [0, 2, 99]),
        ("indptr", [0, 3, 2]),
        ("indptr", [0, 2, 0]),
        ("shape", [2, -1]),
        ("shape", [2, 3, 4]),
    ],
)
def test_a_sparse_matrix_whose_parts_do_not_fit_is_refused(tmp_path, part, values):
    sp.save_npz(tmp_path / "s.npz", sp.csr_array(np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])))
    parts = dict(np.load(tmp_path / "s.npz")) | {part: np.array(values)}
    np.savez(tmp_path / "s.npz", **parts)
    with pytest.raises(DataError, match=r"sparse matrix"):
        load(tmp_path / "s.npz")


def test_a_sparse_matrix_too_wide_to_be_dense_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", format="coo", shape=(30, 2**49), data=np.ones(3), row=np.arange(3), col=np.arange(3))
    with pytest.raises(DataError, match=r"shape \(30, 562949953421312\) has rows too wide to be dense"):
        load(tmp_path / "a.npz")


def test_what_savez_names_by_itself_may_be_labels(tmp_path, rng):
    np.savez(tmp_path / "a.npz", rng.normal(size=(30, 4)), np.arange(30) % 3)
    data = load(tmp_path / "a.npz")
    assert "to use 'arr_1' as the labels, give `label='arr_1'`" in data.notes[0]
    assert load(tmp_path / "a.npz", label="arr_1").train.label is not None


def test_text_in_other_encodings_is_named(tmp_path, rng):
    np.savez(tmp_path / "a.npz", x=rng.normal(size=(30, 4)), y=np.array([b"caf\xe9", b"tea"])[np.arange(30) % 2])
    with pytest.raises(DataError, match="array 'y' holds bytes that are not text in UTF-8"):
        load(tmp_path / "a.npz")


def test_sparse_validation_data_of_their_own(rng):
    train, valid = (sp.random_array((n, 6), density=0.5, format="csr", rng=rng) for n in (30, 8))
    data = from_arrays(train, valid=valid)
    np.testing.assert_allclose(data.valid[:], valid.toarray(), rtol=1e-6)
    np.testing.assert_allclose(data.train[:], train.toarray()[data.train.index], rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ("{}_images", "{}_labels"),
        ("X_{}", "y_{}"),
        ("x{}", "y{}"),
        ("{}_x", "{}_y"),
        ("{}_data", "{}_label"),
        ("{}", "{}Labels"),
        ("images-{}", "targets-{}"),
    ],
)
def test_splits_and_labels_by_many_names(tmp_path, rng, x, y):
    parts, sizes = {}, {"train": 20, "val": 6, "test": 5}
    for part, n in sizes.items():
        parts[x.format(part)] = rng.integers(0, 256, (n, 4, 4), dtype=np.uint8)
        parts[y.format(part)] = rng.integers(0, 3, (n, 1), dtype=np.uint8)
    np.savez(tmp_path / "m.npz", **parts)
    data = load(tmp_path / "m.npz")
    for part, split in (("train", data.train), ("val", data.valid), ("test", data.test)):
        np.testing.assert_array_equal(split[:], parts[x.format(part)])
        np.testing.assert_array_equal(split.label, parts[y.format(part)][:, 0])
    one = load(tmp_path / "m.npz", x_key=x.format("train"))  # only this array, with its own labels
    np.testing.assert_array_equal(one.test.label, parts[y.format("train")][one.test.index, 0])
    assert any("not used" in note and y.format("test") in note for note in one.notes)


def test_two_arrays_that_both_may_be_the_training_data(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.zeros((5, 2)), train_images=np.zeros((5, 2)), x_test=np.zeros((5, 2)))
    with pytest.raises(DataError, match=r"both 'x_train' and 'train_images' may be the train data"):
        load(tmp_path / "a.npz")


def test_labels_of_a_split_must_be_as_many_as_its_rows(tmp_path, rng):
    x = rng.normal(size=(20, 3))
    np.savez(tmp_path / "a.npz", x_train=x[:12], x_test=x[12:], y_train=np.arange(11) % 2, y_test=np.arange(9) % 2)
    with pytest.raises(DataError, match=r"y_train must have one label for each of 12 rows"):
        load(tmp_path / "a.npz")


def test_one_hot_labels_are_classes_and_others_columns(tmp_path, rng):
    x, codes = rng.normal(size=(30, 3)), np.arange(30) % 3
    np.savez(tmp_path / "a.npz", x=x, y=np.eye(3)[codes])
    data = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.test.label, codes[data.test.index])
    assert "one-hot" in data.notes[0]
    several = (rng.random((30, 4)) < 0.5).astype(np.uint8)
    np.savez(tmp_path / "b.npz", x=x, labels=several)
    data = load(tmp_path / "b.npz")
    assert data.train.label is None
    assert data.attribute_names == [f"label_{i}" for i in range(4)]
    np.testing.assert_array_equal(data.test.columns["label_2"], several[data.test.index, 2])
    target = rng.normal(size=30)
    np.savez(tmp_path / "c.npz", x=x, y=target)
    data = load(tmp_path / "c.npz")
    assert data.train.label is None
    np.testing.assert_array_equal(data.valid.columns["y"], target[data.valid.index])
    assert "fractions" in data.notes[0]
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(31))
    with pytest.raises(DataError, match=r"one value for each of 30 rows, got shape \(31,\)"):
        load(tmp_path / "d.npz")


def test_what_is_not_used_is_said(tmp_path, rng):
    np.savez(tmp_path / "a.npz", x=rng.normal(size=(9, 2)), mask=np.zeros((9, 2)), note=np.array("text"))
    (note,) = load(tmp_path / "a.npz").notes
    assert "mask (9, 2), note ()" in note


@pytest.mark.parametrize("large", [0, 2**40])
@pytest.mark.parametrize("claimed", [b"(29, 4)", b"(31, 4)"])
def test_a_member_that_claims_other_rows_than_it_has(tmp_path, rng, monkeypatch, large, claimed):
    monkeypatch.setattr(caches, "LARGE", large)
    out = io.BytesIO()
    np.save(out, rng.normal(size=(30, 4)))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("x.npy", out.getvalue().replace(b"(30, 4)", claimed))
        file.writestr("other.npy", out.getvalue())
    with pytest.raises(DataError, match=r"array 'x' declares"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize("large", [0, 2**40])
def test_a_changed_byte_is_noticed_also_where_the_member_is_mapped(tmp_path, rng, monkeypatch, large):
    monkeypatch.setattr(caches, "LARGE", large)
    x = rng.normal(size=(30, 4))
    np.savez(tmp_path / "a.npz", x=x)
    np.testing.assert_allclose(load(tmp_path / "a.npz").train[:3], x[load(tmp_path / "a.npz").train.index[:3]], 1e-6)
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content.replace(x[7].tobytes(), x[8].tobytes()))
    with pytest.raises(DataError, match=r"Bad CRC-32.*damaged"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.ones((5, 2), complex), "real and imaginary"),
        (np.zeros((5, 2), "M8[s]"), "timedelta64"),
        (np.zeros(5, [("a", "f4"), ("b", "f4")]), "structured_to_unstructured"),
        (np.full((5, 2), "a"), "texts are read from tables"),
        (np.array(3.0), "holds no data"),
        (np.empty((0, 4)), "holds no data"),
        (np.array([[0, 1, 7], [1, 0, 0], [1, 1, 0]], np.uint8).view(bool), "bytes other than 0 and 1"),
    ],
)
def test_what_are_no_numbers_is_refused_with_what_to_do(tmp_path, x, says):
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "a.npz", x=x)
    for path in (tmp_path / "a.npy", tmp_path / "a.npz"):
        with pytest.raises(DataError, match=says):
            load(path)


@pytest.mark.parametrize("dtype", ["U3", "S3"])
@pytest.mark.parametrize("key", ["y", "label", "labels"])
def test_labels_that_are_texts_name_the_classes(tmp_path, key, dtype):
    names = np.array(["cat", "dog", "ant"] * 4)
    np.savez(tmp_path / "a.npz", x=np.arange(24.0).reshape(12, 2), **{key: names.astype(dtype)})
    data = load(tmp_path / "a.npz")
    assert (data.label_names, data.notes) == (["ant", "cat", "dog"], ())
    assert [data.label_names[c] for c in data.train.label] == names[data.train.index].tolist()
    assert load_rows(tmp_path / "a.npz")[2].tolist() == names.tolist()


def test_texts_that_may_be_labels_are_told_and_objects_are_not_read(tmp_path):
    x, names = np.arange(24.0).reshape(12, 2), np.array(["cat", "dog", "ant"] * 4)
    for key, values in (("species", names), ("target", np.arange(12) % 3), ("class", names[:, None].astype("S"))):
        np.savez(tmp_path / "a.npz", x=x, **{key: values})
        (note,) = load(tmp_path / "a.npz").notes
        assert note.endswith(f"give `label={key!r}`")
        assert not read_rows(tmp_path / "a.npz").notes  # of new rows it is no question
        data = load(tmp_path / "a.npz", label=key)
        assert not data.notes
        assert len(np.unique(np.concatenate([data.train.label, data.valid.label, data.test.label]))) == 3
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(12) % 3, label_names=np.unique(names).astype("S"))
    assert load(tmp_path / "a.npz").label_names == ["ant", "cat", "dog"]
    for key in ("y", "target", "classes"):
        np.savez(tmp_path / "a.npz", x=x, **{key: names.astype(object)})
        with pytest.raises(DataError, match=f"array '{key}' holds Python objects"):
            load(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x=x, species=names.astype(object))
    assert "('species': Python objects, which are never read; save texts" in load(tmp_path / "a.npz").notes[0]


def test_numbers_of_rows_named_as_splits_are_no_data(tmp_path, rng):
    x, path = rng.normal(size=(20, 3)), tmp_path / "a.npz"
    np.savez(path, features=x, labels=np.arange(20) % 2, train=np.arange(15), test=np.arange(15, 20))
    with pytest.raises(DataError, match=r"features \(20, 3\)"):
        load(path)
    np.testing.assert_array_equal(read_rows(path, x_key="features").x, x)
    np.savez(path, train=x[:15], test=x[15:])
    assert load(path).shape == (3,)
    np.savez(path, x_train=np.arange(15), x_test=np.arange(5))
    assert len(load(path).test) == 5
