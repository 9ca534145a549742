"""Cells: .h5ad files, AnnData objects, 10x matrices, and the choice of genes."""

import gzip

import numpy as np
import pytest
from cell_helpers import AnnData, installed
from scipy import sparse

from vaekit.data import from_arrays, load
from vaekit.data.batches import Rows
from vaekit.data.genes import chosen, deviance
from vaekit.data.sparse import Sparse
from vaekit.errors import DataError

h5py = pytest.importorskip("h5py")
N, D = 40, 12
COUNTS = np.random.default_rng(0).poisson(np.random.default_rng(1).gamma(1, 2, (1, D)), (N, D)).astype(np.float32)


def put_matrix(group, name, x, form="csr"):
    matrix = getattr(sparse, f"{form}_array")(x)
    stored = group.create_group(name)
    stored.attrs["encoding-type"], stored.attrs["shape"] = f"{form}_matrix", x.shape
    for part in ("data", "indices", "indptr"):
        stored.create_dataset(part, data=getattr(matrix, part), compression="gzip")


def put_frame(file, name, index):
    frame = file.create_group(name)
    frame.attrs["_index"], frame.attrs["column-order"] = "_index", np.array([], h5py.string_dtype())
    frame["_index"] = np.array(index, object)
    return frame


@pytest.fixture
def h5ad(tmp_path):
    """A function that writes X and layers as a file in the layout of anndata 0.8 and later."""

    def write(x=COUNTS, form="csr", layers=(), raw=None, genes=None):
        path = tmp_path / "cells.h5ad"
        with h5py.File(path, "w") as file:
            if form == "dense":
                file["X"] = x
            else:
                put_matrix(file, "X", x, form)
            for name, layer in layers:
                put_matrix(file.require_group("layers"), name, layer)
            put_frame(file, "var", genes or [f"g{i}" for i in range(D)])
            if raw is not None:
                put_matrix(file.require_group("raw"), "X", raw)
                put_frame(file["raw"], "var", [f"r{i}" for i in range(raw.shape[1])])
            obs = put_frame(file, "obs", [f"c{i}" for i in range(N)])
            obs["batch/codes"], obs["batch/categories"] = np.arange(N) % 3 - 1, np.array(["a", "b"], object)
            obs["depth"] = COUNTS.sum(1)
            obs["n/values"], obs["n/mask"] = np.arange(N), np.arange(N) == 3
            obs["ok"] = np.arange(N) % 2 == 0
            obs.create_group("odd")
        return path

    return write


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_cells_of_h5ad(h5ad, form):
    data = load(h5ad(form=form))
    assert (data.kind, data.shape, data.feature_names) == ("counts", (D,), [f"g{i}" for i in range(D)])
    np.testing.assert_array_equal(np.asarray(data.train.raw[:]), COUNTS)
    assert isinstance(data.train.raw, Sparse) == (form != "dense")
    rows = data.train.index
    columns = data.train.columns
    np.testing.assert_array_equal(columns["batch"], np.array(["a", "b", ""])[np.arange(N) % 3 - 1][rows])
    np.testing.assert_array_equal(columns["n"], np.where(rows == 3, np.nan, rows))
    np.testing.assert_array_equal(columns["ok"], rows % 2 == 0)
    np.testing.assert_array_equal(columns["depth"], COUNTS.sum(1)[rows])
    assert data.train.names == [f"c{i}" for i in rows]
    assert any("columns of obs that cannot be read: odd" in note for note in data.notes)


def test_counts_are_found_where_they_are(h5ad):
    logs = np.log1p(COUNTS)
    data = load(h5ad(logs, layers=[("counts", COUNTS)]))
    np.testing.assert_array_equal(np.asarray(data.train.raw[:]), COUNTS)
    assert "layer 'counts' holds the counts and is read instead of X" in data.notes
    data = load(h5ad(logs, raw=COUNTS[:, :5]))
    assert data.feature_names == [f"r{i}" for i in range(5)]
    assert any("raw.X" in note for note in data.notes)
    data = load(h5ad(logs, layers=[("scaled", logs * 2)]))
    assert data.kind == "vector"
    assert any("real numbers" in note for note in data.notes)
    data = load(h5ad(logs, layers=[("scaled", logs * 2)]), layer="scaled")
    np.testing.assert_allclose(np.asarray(data.train.raw[:]), logs * 2)
    with pytest.raises(DataError, match="no matrix 'other'; it has X"):
        load(h5ad(logs), layer="other")


def test_names_of_genes_that_repeat(h5ad):
    assert load(h5ad(genes=["a", "a", "a-1", "a", *"bcdefghi"])).feature_names[:4] == ["a", "a-2", "a-1", "a-3"]


@pytest.mark.parametrize("damage", ["link", "shape", "index", "size", "codes"])
def test_h5ad_that_lies(h5ad, tmp_path, damage):
    path = h5ad()
    with h5py.File(path, "a") as file:
        if damage == "link":
            del file["X"]
            file["X"] = h5py.ExternalLink("other.h5ad", "/X")
        elif damage == "shape":
            file["X"].attrs["shape"] = (10**12, D)
        elif damage == "index":
            file["X/indices"][3] = D
        elif damage == "size":
            del file["obs/_index"], file["X/data"]
            file.create_dataset("obs/_index", (10**11,), "S100", chunks=(1000,))
            file.create_dataset("X/data", (10**11,), "f4", chunks=(1000,))
        else:
            file["obs/batch/codes"][0] = 7
    if damage == "codes":
        assert "batch" not in load(path).train.columns
        return
    with pytest.raises(DataError, match=r"link to another place|cells|damaged|bytes are stored"):
        load(path)


def test_anndata_object_is_read_like_its_file(h5ad):
    cells = AnnData(COUNTS, batch=np.array(["ab"[i % 2] for i in range(N)]), depth=COUNTS.sum(1))
    with installed():
        of_file, of_object = load(h5ad(), genes=5), from_arrays(cells, label="batch", genes=5)
        assert of_file.digest == of_object.digest == load(cells, genes=5).digest
    assert of_object.label_names == ["a", "b"]
    assert of_object.feature_names == of_file.feature_names
    assert of_object.options == {"genes": 5, "label": "batch"}
    np.testing.assert_array_equal(of_object.train.columns["depth"], COUNTS.sum(1)[of_object.train.index])


def tenx_h5(path, version):
    with h5py.File(path, "w") as file:
        group, matrix = file.create_group("matrix" if version == 3 else "hg19"), sparse.csc_array(COUNTS.T.astype(int))
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(matrix, part)
        group["shape"], group["barcodes"] = [D, N], np.array([f"c{i}" for i in range(N)], "S")
        group["features/name" if version == 3 else "gene_names"] = np.array([f"g{i}" for i in range(D)], "S")
        if version == 3:
            group["features/feature_type"] = np.array(["Gene Expression"] * (D - 2) + ["Antibody Capture"] * 2, "S")
    return path


def tenx_folder(path, packed, prefix=""):
    from scipy.io import mmwrite

    path.mkdir()
    names = [f"E{i}\tg{i}\t{'Gene Expression' if i < D - 2 else 'Antibody Capture'}\n" for i in range(D)]
    mmwrite(path / "matrix.mtx", sparse.coo_array(COUNTS.T.astype(int)))
    contents = {
        "matrix.mtx": (path / "matrix.mtx").read_bytes(),
        "barcodes.tsv": "".join(f"c{i}\n" for i in range(N)).encode(),
        "features.tsv": "".join(names).encode(),
    }
    (path / "matrix.mtx").unlink()
    for name, content in contents.items():
        (path / f"{prefix}{name}{'.gz' if packed else ''}").write_bytes(gzip.compress(content) if packed else content)
    return path


def test_10x_matrices(tmp_path):
    sources = [
        tenx_h5(tmp_path / "v3.h5", 3),
        tenx_folder(tmp_path / "plain", False),
        tenx_folder(tmp_path / "packed", True, "GSM1_"),
    ]
    for source in sources:
        data = load(source)
        assert isinstance(data.train.raw, Sparse)
        assert data.kind == "counts"
        np.testing.assert_array_equal(np.asarray(data.train.raw[:]), COUNTS[:, : D - 2])
        assert data.feature_names == [f"g{i}" for i in range(D - 2)]
        assert data.train.names[0].startswith("c")
        assert "2 features that are not genes are left out (Antibody Capture)" in data.notes
    old = load(tenx_h5(tmp_path / "v2.h5", 2))
    np.testing.assert_array_equal(np.asarray(old.train.raw[:]), COUNTS)


def test_10x_matrices_that_lie(tmp_path):
    folder = tenx_folder(tmp_path / "a", False)
    good = (folder / "matrix.mtx").read_text()
    header, sizes = good.split("\n")[0], f"{D} {N}"
    for content, message in [
        (f"{header}\n{D} {N} 999999999\n1 1 1\n", "cut short"),
        (f"{header}\n{D} {N} 1\n99 1 1\n", "damaged"),
        (f"{header}\n9{sizes} 1\n1 1 1\n", "the files beside it"),
        (f"{header.replace('general', 'symmetric')}\n{sizes} 1\n1 1 1\n", "without symmetry"),
        (f"{header}\nwords\n", "sizes"),
        (good[:-20] + "\0" * 8 + good[-20:], "lines with a row"),  # SciPy 1.17 ends with signal 11, as with the next
        (f"{header}\n{sizes} 2\n1 1 1\n2 2 1 1", "lines with a row, a column and a number, got b'2 2 1 1'"),
        (f"{header}\n{sizes} 2\n1 1 1 4\n2 2 1\n", "got b'1 1 1 4'"),  # SciPy would read it as 1
        (f"{header}\n{sizes} 1\n1 1 1.5\n", "got b'1 1 1.5'"),  # SciPy would read it as 1
        (f"{header.replace('integer', 'complex')}\n{sizes} 1\n1 1 1 0\n", "integer or real or pattern, got complex"),
        (f"{header}\r{sizes} 1\r1 1 1\r", "sizes|without"),
    ]:
        (folder / "matrix.mtx").write_text(content)
        with pytest.raises(DataError, match=message):
            load(folder)
    (folder / "features.tsv").unlink()
    with pytest.raises(DataError, match=r"no features\.tsv or genes\.tsv"):
        load(folder)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = COUNTS
    assert load(tmp_path / "other.h5").shape == (D,)  # not 10x, but an array in HDF5


def test_deviance_is_the_formula():
    rows = np.arange(0, N, 2)
    x = COUNTS[rows].astype(np.float64)
    n, p = x.sum(1, keepdims=True), x.sum(0) / x.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(x > 0, x * np.log(x / (n * p)), 0) + (n - x) * np.log((n - x) / (n * (1 - p)))
    for stored in (COUNTS, Sparse(sparse.csr_array(COUNTS)), np.where(COUNTS == 0, np.nan, COUNTS)):
        np.testing.assert_allclose(deviance(stored, rows), 2 * gain.sum(0), rtol=1e-9)


def test_genes_are_chosen_on_training_rows():
    """A gene that varies in test rows only is not chosen; one found in few training rows is not, either."""
    x = np.random.default_rng(2).poisson(3.0, (60, 6)).astype(np.int32)
    x[:40, 1] *= np.where(np.arange(40) % 2, 10, 0)
    x[40:, 2] *= 100
    x[:40, 3], x[0, 3] = 0, 500
    rows = {"train": np.arange(40), "valid": np.arange(40, 50), "test": np.arange(50, 60)}
    data = from_arrays(x, splits=rows, genes=2, min_cells=5, feature_names=list("abcdef"))
    assert "b" in data.feature_names
    assert "c" not in data.feature_names
    assert data.shape == (2,)
    assert chosen(x, rows["train"], None, 5).tolist() == [0, 1, 2, 4, 5]
    assert chosen(x, rows["train"], 2, 1).tolist() == [1, 3]
    assert data.notes[-1].startswith("2 of 6 columns are kept: those of highest deviance")
    again = from_arrays(x, splits=rows, **{k: v for k, v in data.options.items() if k != "splits"})
    assert again.digest == data.digest
    with pytest.raises(DataError, match="choose columns of counts"):
        from_arrays(x * 0.5, genes=2)
    with pytest.raises(DataError, match="lower `min_cells`"):
        from_arrays(x, min_cells=1000)


def test_sparse_rows_stay_sparse_in_training():
    data = from_arrays(sparse.csr_array(COUNTS))
    rows = Rows(data, data.train)
    assert rows.resident is None
    import torch

    np.testing.assert_array_equal(rows(torch.tensor([3, 1])).numpy(), data.train[np.array([3, 1])])
