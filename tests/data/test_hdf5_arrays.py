"""HDF5 and MATLAB files: the arrays come back as they were written, by name, in MATLAB's order of axes."""

import io

import numpy as np
import pytest
from scipy.io import loadmat, savemat

import vaekit as vk
from vaekit.data import cache as caches
from vaekit.data import load, read_rows
from vaekit.data.arrays import is_map
from vaekit.data.readers import matlab5 as parser
from vaekit.errors import DataError

h5py = pytest.importorskip("h5py")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def matlab7(path, **variables):
    """A file as MATLAB's `save -v7.3` writes it: 512 bytes of its own, then HDF5 with the axes reversed."""
    names = {"u1": "uint8", "f8": "double", "f4": "single", "b1": "logical"}
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in variables.items():
            values = np.atleast_2d(values)
            stored = values.T.astype("u1") if values.dtype == bool else values.T
            file.create_dataset(name, data=stored, chunks=tuple(max(1, s // 2) for s in stored.shape), compression=4)
            file[name].attrs["MATLAB_class"] = np.bytes_(names[values.dtype.str[1:]])
        file.create_group("#refs#")["a"] = [1, 2, 3]
        file["note"] = np.array([[104], [105]], np.uint16)
        file["note"].attrs["MATLAB_class"] = np.bytes_("char")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")


def matlab5(path, packed=True, **variables):
    savemat(path, variables, do_compression=packed)


# --- HDF5 -------------------------------------------------------------------------------------------------------------


def test_arrays_are_read_by_name_like_those_of_npz(tmp_path, rng):
    arrays = {
        "x": rng.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8),
        "y": np.arange(30) % 3,
        "batch": np.arange(30) % 2,
        "batch_names": np.array(["one", "two"], object),
        "rest": rng.normal(size=(4, 4)),
    }
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, values in arrays.items():
            file[name] = values
    np.savez(tmp_path / "b.npz", **{k: v.astype(str) if v.dtype == object else v for k, v in arrays.items()})
    one, other = load(tmp_path / "a.h5"), load(tmp_path / "b.npz")
    assert (one.kind, one.shape, one.digest, one.label_names) == (other.kind, other.shape, other.digest, None)
    np.testing.assert_array_equal(one.train[:], other.train[:])
    np.testing.assert_array_equal(one.train.label, other.train.label)
    np.testing.assert_array_equal(one.train.columns["batch"], other.train.columns["batch"])
    assert any("not used: rest (4, 4)" in note for note in one.notes)


def test_the_only_array_is_taken_wherever_it_lies_and_others_are_listed(tmp_path, rng):
    x = rng.normal(size=(20, 4))
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["deep/inside/values"] = x
        file.attrs["about"] = "text"
    np.testing.assert_array_equal(load(tmp_path / "a.hdf5").train.raw, x.astype("f4"))
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["more/z"] = x[:, :2]
    with pytest.raises(DataError, match=r"it has deep/inside/values \(20, 4\), more/z \(20, 2\).*`x_key`"):
        load(tmp_path / "a.hdf5")
    assert load(tmp_path / "a.hdf5", x_key="/more/z").shape == (2,)
    with pytest.raises(DataError, match=r"x_key='other'.*has no such array"):
        load(tmp_path / "a.hdf5", x_key="other")


def test_the_values_of_an_enumeration_are_their_names(tmp_path, rng):
    names = ["cat", "dog", "cow", "pig"]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = rng.normal(size=(20, 4))
        kind = h5py.enum_dtype({name: i for i, name in enumerate(names)}, basetype="u1")
        file.create_dataset("y", data=np.arange(20, dtype="u1") % 4, dtype=kind)
        answer = h5py.enum_dtype({"False": 0, "True": 1}, basetype="i4")
        file.create_dataset("seen", data=np.arange(20, dtype="i4") % 2, dtype=answer)
    train = (data := load(tmp_path / "a.h5")).train
    assert [data.label_names[code] for code in train.label] == [names[i % 4] for i in train.index]
    np.testing.assert_array_equal(np.asarray(train.columns["seen"]).astype(bool), train.index % 2 == 1)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["y"][3] = 9
    with pytest.raises(DataError, match=r"y holds 9, which its enumeration does not name"):
        load(tmp_path / "a.h5")


@pytest.mark.parametrize("suffix", ["h5", "mat"])
def test_labels_are_not_taken_for_data_that_cannot_be_read(tmp_path, rng, suffix):
    path, x, y = tmp_path / f"a.{suffix}", rng.normal(size=(20, 4)), np.arange(20) % 3

    def write(**arrays):
        if suffix == "mat":
            matlab5(path, **arrays)
        else:
            with h5py.File(path, "w") as file:
                for name, values in arrays.items():
                    file[name] = values

    write(X=x * 1j, other=x)
    with pytest.raises(DataError, match="X holds neither real numbers nor texts: save it as"):
        load(path)
    np.testing.assert_array_equal(load(path, x_key="other").train.raw, x.astype("f4"))
    write(field=x * 1j, labels=y)
    with pytest.raises(DataError, match=r"it has labels \(20,\): choose one with `x_key`"):
        load(path)
    write(field=x * 1j, other=x)
    assert any("neither numbers nor texts, not read: field" in note for note in load(path).notes)


def test_groups_named_like_splits_are_the_splits(tmp_path, rng):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for part, n in (("train", 20), ("test", 6)):
            file[f"{part}/x"], file[f"{part}/y"] = rng.normal(size=(n, 3)), np.arange(n) % 2
    data = load(tmp_path / "a.h5")
    assert (len(data.train) + len(data.valid), len(data.test)) == (20, 6)


@pytest.mark.parametrize("packed", [None, "gzip"])
def test_large_arrays_are_maps(tmp_path, rng, monkeypatch, packed):
    monkeypatch.setattr(caches, "LARGE", 100)
    x = rng.normal(size=(50, 4, 3)).astype("f4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=x, compression=packed)
    raw = load(tmp_path / "a.h5").train.raw
    assert is_map(raw)
    np.testing.assert_array_equal(raw, x)
    copies = list((tmp_path / "cache").rglob("*.npy"))
    assert len(copies) == (packed is not None)  # one that lies in one piece is mapped in its file


def test_other_hdf5_files_are_refused_with_what_they_hold(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["text"] = "a"
    with pytest.raises(DataError, match="it has no arrays"):
        load(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_bytes(b"no")
    with pytest.raises(DataError, match=r"b\.h5 cannot be read as HDF5"):
        load(tmp_path / "b.h5")


# --- MATLAB -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [matlab5, matlab7, lambda *a, **b: matlab5(*a, packed=False, **b)])
def test_matlab_files_hold_the_array_as_matlab_shows_it(tmp_path, rng, write, monkeypatch):
    table = rng.normal(size=(30, 4))
    table[:, 1] = np.arange(30)  # whole numbers, which MATLAB stores as bytes
    write(tmp_path / "a.mat", X=table, y=np.arange(30.0) % 3 + 1)
    data = load(tmp_path / "a.mat")
    assert (data.kind, data.shape, data.train.raw.dtype) == ("vector", (4,), np.float32)
    np.testing.assert_array_equal(data.train.raw, table.astype("f4"))
    assert data.label_names == ["1", "2", "3"]
    monkeypatch.setattr(caches, "LARGE", 100)
    np.testing.assert_array_equal(load(tmp_path / "a.mat").train.raw, table)


@pytest.mark.parametrize("write", [matlab5, matlab7])
@pytest.mark.parametrize("large", [False, True])
def test_images_along_the_last_axis_are_found_by_their_labels_or_shape(tmp_path, rng, write, large, monkeypatch):
    monkeypatch.setattr(caches, "LARGE", 100 if large else 2**30)
    images = rng.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8)
    write(tmp_path / "a.mat", X=np.moveaxis(images, 0, -1), y=np.arange(30.0) % 2)  # as in SVHN
    data = load(tmp_path / "a.mat")
    assert (data.kind, data.shape, data.options["examples"]) == ("image", (3, 6, 5), "last")
    np.testing.assert_array_equal(data.train[:], images[data.train.index])
    assert any("the last axis of X (6, 5, 3, 30) is read as that of the examples" in note for note in data.notes)
    write(tmp_path / "b.mat", faces=rng.integers(0, 256, (20, 40), dtype=np.uint8))
    assert load(tmp_path / "b.mat").shape == (40,)
    faces = load(tmp_path / "b.mat", examples="last", shape="5x4")
    assert (faces.shape, len(faces.train.raw)) == ((1, 5, 4), 40)
    rows = read_rows(tmp_path / "b.mat", examples="last")
    assert rows.x.shape == (40, 20)


def test_logical_arrays_splits_and_other_variables_of_matlab(tmp_path, rng):
    bits = rng.random((20, 9)) < 0.5
    matlab7(tmp_path / "a.mat", data=bits)
    assert load(tmp_path / "a.mat").bits
    matlab5(tmp_path / "b.mat", x_train=bits, x_test=bits[:5], name="text", cells=np.array(["a", "b"], object))
    data = load(tmp_path / "b.mat")
    assert data.bits
    assert len(data.test) == 5
    matlab5(tmp_path / "c.mat", name="text", z=np.ones((3, 3)) * 1j)
    with pytest.raises(DataError, match=r"no variable that is an array of numbers|real numbers"):
        load(tmp_path / "c.mat")
    with pytest.raises(DataError, match="examples must be 'first' or 'last'"):
        load(tmp_path / "b.mat", examples="middle")


@pytest.mark.parametrize("packed", [False, True])
def test_every_type_of_number_is_read_as_scipy_reads_it(tmp_path, rng, packed):
    kinds = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
    made = {f"{kind}_{n}": rng.integers(0, 90, (n, 3)).astype(kind) for kind in kinds for n in (1, 2, 7)}
    made |= {"fractions": rng.normal(size=(4, 5, 6)), "bits": rng.random((5, 3)) < 0.5, "text": "abc"}
    savemat(tmp_path / "a.mat", made, do_compression=packed)
    known = loadmat(tmp_path / "a.mat", mat_dtype=True)
    found = parser.variables(tmp_path / "a.mat")
    assert {variable.name for variable in found} == set(made)
    for variable in found:
        if variable.name == "text":
            assert variable.dtype is None
            continue
        values = parser.read(tmp_path / "a.mat", variable)
        np.testing.assert_array_equal(values, known[variable.name])
        assert values.dtype == made[variable.name].dtype


def test_damaged_and_foreign_files_named_mat_are_refused(tmp_path, rng):
    out = io.BytesIO()
    savemat(out, {"x": rng.normal(size=(20, 3))}, do_compression=True)
    for content in (b"", b"no", out.getvalue()[:-40], out.getvalue()[:150] + bytes(60)):
        (tmp_path / "a.mat").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.mat"):
            load(tmp_path / "a.mat")


def test_a_model_trained_on_matlab_images_takes_other_files_like_them(tmp_path, rng):
    images = rng.integers(0, 256, (6, 5, 3, 40), dtype=np.uint8)
    matlab5(tmp_path / "a.mat", X=images, y=np.arange(40.0) % 2)
    matlab7(tmp_path / "b.mat", X=images[..., :7])
    run = vk.fit(
        tmp_path / "a.mat", out=tmp_path / "run", steps=2, latent=2, hidden=(4,), batch=8, compile="off", progress=False
    )
    rows = np.moveaxis(images, -1, 0)[:7]
    np.testing.assert_allclose(run.encode(tmp_path / "b.mat"), run.encode(rows), rtol=1e-5)
