"""Make small valid files of every format and small trained runs, and define how damaged copies of them are used."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PICTURES = ("jpg", "tif", "bmp", "webp", "ppm", "tga", "pcx", "ico", "jp2", "sgi", "qoi", "im", "dds", "dib")
BITMAPS = ("xbm", "msp")
Use = Callable[[random.Random, Sequence[str]], object]
"""Uses files, given a random generator and the names of the damaged ones."""


@dataclass
class Seed:
    """Files by relative path, and the names of those to damage; a seed of larger weight is chosen more often."""

    name: str
    files: dict[str, bytes]
    damaged: list[str]
    weight: float = 1.0
    is_run: bool = False


def table(n: int = 30) -> str:
    rng = np.random.default_rng(1)
    rows = [f"{rng.normal():.3f},{rng.integers(0, 9)},{'abc'[i % 3]},{i % 2},{rng.integers(0, 4)}" for i in range(n)]
    return "\n".join(["size,number,kind,flag,label", *rows]) + "\n"


def saved(save: Callable[..., Any], *what: Any, **more: Any) -> bytes:
    out = io.BytesIO()
    save(out, *what, **more)
    return out.getvalue()


def idx_bytes(x: np.ndarray) -> bytes:
    return bytes([0, 0, 8, x.ndim]) + np.array(x.shape, ">u4").tobytes() + x.tobytes()


def pictures(form: str, mode: str = "RGB", **more: Any) -> dict[str, bytes]:
    from PIL import Image

    rng = np.random.default_rng(2)
    files, names = {}, {"jpg": "jpeg", "tif": "tiff", "jp2": "jpeg2000"}
    for i in range(4):
        x = rng.integers(0, 256, (7, 6, 4), dtype=np.uint8)
        image = Image.fromarray(x[..., :3]).convert("RGBA" if mode == "RGBA" else "RGB").convert(mode)
        name = f"pictures/{'ab'[i % 2]}/{i}.{form}"
        files[name] = saved(lambda out, im=image: im.save(out, format=names.get(form, form), **more))
    return files


# --- uses of data ---------------------------------------------------------------------------------------------------


def _options(rng: random.Random, **more: tuple[Any, ...]) -> dict[str, Any]:
    """Random options of the readers."""
    more = {"kind": (None, None, None, "image", "signal", "vector", "counts"), "missing": ("refuse", "mask"), **more}
    return {name: rng.choice(values) for name, values in more.items() if rng.random() < 0.5}


def loading(name: str, **more: tuple[Any, ...]) -> Use:
    """Load a file with random options and use a row, or read it as new rows for a model."""

    def use(rng: random.Random, damaged: Sequence[str]) -> object:
        from vaekit.data import load, load_rows
        from vaekit.data.core import Column

        if rng.random() < 0.3:
            schema = (Column("size", "real"), Column("kind", "categorical", ("a", "b", "c")), Column("flag", "binary"))
            tabular = name.endswith((".csv", ".csv.gz", "a.parquet", ".xlsx", "a.arrow", ".feather"))
            return load_rows(name, cache="cache", **({"schema": schema, "missing": "mask"} if tabular else {}))
        data = load(name, cache="cache", **_options(rng, **more))
        return data.events(data.train[:3]), repr(data), repr(data.test)

    return use


# --- uses of runs ---------------------------------------------------------------------------------------------------


def _page(rng: random.Random, run: Any) -> object:
    return run.report("page.html") if rng.random() < 0.7 else run.explore("explorer.html", points=8, tsne=0)


def _latents(rng: random.Random, run: Any) -> Any:
    """Sample from the density stored with the run, or from a quick one if that belongs to other weights."""
    name = rng.choice(("gmm", "flow"))
    run.fit_latents(name, steps=3, **({"components": 2} if name == "gmm" else {}))
    return run.sample(3, latents=name)


def _train(rng: random.Random, run: Any) -> object:
    """Resume the run, or train it for longer than planned."""
    from vaekit.run import fit

    source = "x.npy" if Path("x.npy").exists() else "table.csv"
    how = rng.choice(({"resume": True}, {"resume": True}, {"extend": True, "steps": 6}))
    return fit(source, out="run", progress=False, **how)


RUN_USES: dict[str, Callable[[random.Random, Any], object]] = {
    "look": lambda rng, run: (repr(run), run.log, run.metrics),
    "data": lambda rng, run: run.data,
    "codes": lambda rng, run: run.decode(run.encode("test", n=3)),
    "evaluate": lambda rng, run: run.evaluate(samples=2, n=3),
    "sample": lambda rng, run: run.sample(3),
    "latents": _latents,
    "reconstruct": lambda rng, run: run.reconstruct("valid", n=2),
    "train": _train,
}
READ_BY: dict[str, tuple[str, ...]] = {
    "run/model": ("codes", "evaluate", "sample", "reconstruct", "latents"),
    "run/splits": ("data", "codes", "train"),
    "run/checkpoint": ("train",),
    "run/log": ("look", "train"),
    "run/metrics": ("look", "evaluate"),
    "run/latents": ("latents",),
}
"""The uses that read a file, by the start of its name; run.json is read by all."""
PAGES = 0.005
"""Fraction of the uses of a run that write a page, each of which takes as long as dozens of others."""


def opening(rng: random.Random, damaged: Sequence[str]) -> object:
    """Open a run and use it in a way that reads a damaged file."""
    import vaekit as vk

    fitting = [
        use for start, uses in READ_BY.items() if any(name.startswith(start) for name in damaged) for use in uses
    ]
    if rng.random() < PAGES:
        return _page(rng, vk.open("run"))
    use = rng.choice(fitting or [*RUN_USES])
    return RUN_USES[use](rng, None if use == "train" else vk.open("run"))


def decompressing(rng: random.Random, damaged: Sequence[str]) -> object:
    """Decompress an archive with its run."""
    import vaekit as vk

    return vk.open("run").decompress("data.vk")


SEEDS: dict[str, Use] = {
    "npy": loading("a.npy"),
    "npz": loading("a.npz", x_key=(None, "x", "y"), label=(None, "label", "batch"), group=(None, "batch")),
    "npz-packed": loading("a.npz", x_key=(None, "x")),
    "csv": loading(
        "a.csv", label=(None, "kind", "label"), group=(None, "label"), types=(None, "kind=drop", "number=counts")
    ),
    "csv-packed": loading("a.csv.gz", label=(None, "kind")),
    "parquet": loading("a.parquet", label=(None, "kind"), types=(None, "kind=drop")),
    "arrow": loading("a.arrow", label=(None, "kind"), types=(None, "kind=drop")),
    "feather": loading("a.feather", label=(None, "kind")),
    "parquet-sums": loading("a.parquet", label=(None, "kind")),
    "vectors": loading("v.parquet", x_key=(None, "x", "image"), label=(None, "label")),
    "vectors-arrow": loading("v.arrow", label=(None, "label")),
    "paths": loading("paths/p.parquet", skip_bad=(False, True)),
    "saved": loading("saved", label=(None, "label"), x_key=(None, "x")),
    "saved-splits": loading("parts", label=(None, "label")),
    "zip": loading("a.zip", size=(None, "7x6", "4"), skip_bad=(False, True)),
    "tar": loading("a.tar", size=(None, "7x6", "4"), skip_bad=(False, True)),
    "tgz": loading("a.tar.gz", size=(None, "7x6", "4"), skip_bad=(False, True)),
    "shards": loading("shards", x_key=(None, "png"), label=(None, "cls", "more")),
    "shards-packed": loading("packed", label=(None, "cls", "more")),
    "tgz-bmp": loading("a.tgz"),
    "sounds": loading("sounds", window=(None, 16), group=(None, "recording")),
    "scans": loading("scans", group=(None, "volume")),
    "wav": loading("a.wav", window=(None, 16)),
    "flac": loading("a.flac", window=(None, 16)),
    "dicom": loading("a.dcm"),
    "nifti": loading("a.nii", plane=("axial", "coronal")),
    "nifti-packed": loading("a.nii.gz", plane=("axial", "sagittal")),
    "sheet": loading("a.xlsx", label=(None, "kind"), sheet=(None, "one", "two"), types=(None, "kind=drop")),
    "idx": loading("a-idx3-ubyte.idx"),
    "idx-gz": loading("a-idx3-ubyte.gz"),
    "mnist": loading("mnist-like"),
    "sparse": loading("a.npz"),
    "h5ad": loading(
        "a.h5ad", layer=(None, "X", "counts", "raw"), label=(None, "kind"), genes=(None, 3), min_cells=(None, 2)
    ),
    "10x-h5": loading("a.h5", genes=(None, 3)),
    "hdf5": loading("b.h5", x_key=(None, "more/z"), label=(None, "label", "batch")),
    "hdf5-old": loading("b.hdf5", x_key=(None, "more/z"), label=(None, "label", "batch")),
    "mat": loading("a.mat", x_key=(None, "z"), examples=(None, "first", "last")),
    "mat-packed": loading("a.mat", x_key=(None, "z"), examples=(None, "first", "last")),
    "mat-hdf5": loading("a.mat", x_key=(None, "z"), examples=(None, "first", "last")),
    "10x": loading("cells", genes=(None, 3)),
    **{
        f"pictures-{form}": loading(
            "pictures", size=(None, "7x6", "4"), skip_bad=(False, True), background=("white", "#102030")
        )
        for form in ("png", "png-grey", "png-alpha", "gif", *PICTURES, *BITMAPS)
    },
    "described": loading("pictures", table=("about.csv",), label=(None, "label")),
    "run": opening,
    "run-table": opening,
    "archive": decompressing,
    "archive-table": decompressing,
}


def examples() -> dict[str, dict[str, bytes]]:
    """Files of every format by relative path, by the name of the seed."""
    rng = np.random.default_rng(0)
    x = rng.random((30, 4))
    images = rng.integers(0, 256, (24, 5, 4), dtype=np.uint8)
    arrays = {
        "x": images,
        "label": np.arange(24) % 3,
        "batch": np.arange(24) % 4,
        "batch_names": np.array(list("abcd")),
    }
    files_of = {
        "npy": {"a.npy": saved(np.save, x)},
        "npz": {"a.npz": saved(np.savez, **arrays)},
        "npz-packed": {"a.npz": saved(np.savez_compressed, x_train=x, x_test=x[:5], y_train=np.arange(30) % 2,
                                      y_test=np.arange(5) % 2)},
        "csv": {"a.csv": table().encode()},
        "csv-packed": {"a.csv.gz": gzip.compress(table().encode(), 1)},
        "parquet": {"a.parquet": _parquet()},
        "sheet": {"a.xlsx": _workbook()},
        **_columns(rng), **_archives(), **_sounds(rng), **_medical(rng),
        "idx": {"a-idx3-ubyte.idx": idx_bytes(images)},
        "idx-gz": {"a-idx3-ubyte.gz": gzip.compress(idx_bytes(images), 1)},
        "mnist": {f"mnist-like/{name}.gz": gzip.compress(idx_bytes(array), 1) for name, array in (
            ("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", np.arange(24, dtype=np.uint8) % 3),
            ("t10k-images-idx3-ubyte", images[:6]), ("t10k-labels-idx1-ubyte", np.arange(6, dtype=np.uint8) % 3))},
        "sparse": {"a.npz": _sparse(x)},
        "h5ad": {"a.h5ad": _hdf5(_h5ad)},
        "10x-h5": {"a.h5": _hdf5(_tenx)},
        "hdf5": {"b.h5": _hdf5(_arrays)}, "hdf5-old": {"b.hdf5": _hdf5(_arrays, version="earliest")},
        "mat": {"a.mat": _matlab(False)}, "mat-packed": {"a.mat": _matlab(True)},
        "mat-hdf5": {"a.mat": _hdf5(_matlab7, b"MATLAB 7.3 MAT-file".ljust(512))},
        "10x": {"cells/matrix.mtx": _market(), "cells/barcodes.tsv": b"".join(b"c%d\n" % i for i in range(30)),
                "cells/features.tsv.gz": gzip.compress(b"".join(b"E%d\tg%d\tCRISPR\n" % (i, i) for i in range(6)))},
        "pictures-png-grey": pictures("png", "L"), "pictures-png-alpha": pictures("png", "RGBA"),
        "pictures-png": pictures("png"), "pictures-gif": pictures("gif", "P"),
        **{f"pictures-{form}": pictures(form) for form in PICTURES},
        **{f"pictures-{form}": pictures(form, "1") for form in BITMAPS},
    }  # fmt: skip
    about = "file,label,text\n" + "".join(f"{'ab'[i % 2]}/{i}.png,{i % 2},t{i}\n" for i in range(4))
    files_of["described"] = {**pictures("png"), "about.csv": about.encode()}
    return {name: files for name, files in files_of.items() if all(files.values())}


def make() -> dict[str, Seed]:
    """All seeds: files of every format, two trained runs that contain everything a run may contain, and archives."""
    seeds = {name: Seed(name, files, list(files)) for name, files in examples().items()}
    for name, seed in seeds.items():
        seed.weight = 0.25 if name.startswith("pictures") else 2.0  # there are twenty kinds of pictures
    seeds["described"].damaged = ["about.csv"]
    with tempfile.TemporaryDirectory(prefix="vaekit-fuzz-") as folder, contextlib.chdir(folder):
        np.save("x.npy", np.random.default_rng(0).integers(0, 256, (24, 5, 4), dtype=np.uint8))
        Path("table.csv").write_text(table())
        for name, source, choices in (("run", "x.npy", {}), ("run-table", "table.csv", {"condition": "label"})):
            seeds[name] = _trained(name, source, choices)
        cells = [f"{'abc'[i % 3]},{('yes', 'no', '')[i % 3]},{i * i},{i % 2}" for i in range(30)]
        Path("counts.csv").write_text("\n".join(["kind,flag,number,label", *cells]))
        seeds["archive"] = _compressed("archive", "x.npy", {}, {"likelihood": "discretised-logistic"})
        read = {"types": {"number": "counts"}, "missing": "mask", "label": "label"}
        seeds["archive-table"] = _compressed("archive-table", "counts.csv", read, {"condition": "label"})
    return seeds


def _parquet() -> bytes:
    try:
        import pyarrow as pa
        import pyarrow.csv as pc
        import pyarrow.parquet as pq
    except ImportError:
        return b""
    read = pc.read_csv(pa.BufferReader(table().encode()))
    return saved(lambda out: pq.write_table(read, out, compression="none"))


def _columns(rng: np.random.Generator) -> dict[str, dict[str, bytes]]:
    """A table as Arrow and Feather, vectors and images as Parquet, and a folder as `save_to_disk` writes it."""
    try:
        import pyarrow as pa
        import pyarrow.csv as pc
        import pyarrow.feather as pf
        import pyarrow.parquet as pq
    except ImportError:
        return {"arrow": {"a.arrow": b""}}
    read = pc.read_csv(pa.BufferReader(table().encode()))
    images = [{"bytes": content, "path": name} for name, content in pictures("png").items()]
    x = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(4 * 3)), 3)
    both = pa.table({"x": x, "image": images, "label": [0, 1, 0, 1]})
    outside = [one if i % 2 else {"bytes": None, "path": one["path"]} for i, one in enumerate(images)]
    stream, state = io.BytesIO(), {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    vectors = pa.table({"x": [[float(i), i * i, 1.0] for i in range(20)], "label": [i % 2 for i in range(20)]})
    names = {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}
    vectors = vectors.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": names}})})
    with pa.ipc.new_stream(stream, vectors.schema) as out:
        out.write_table(vectors, max_chunksize=7)
    folder = {
        "data-00000-of-00001.arrow": stream.getvalue(),
        "state.json": json.dumps(state).encode(),
        "dataset_info.json": b"{}",
    }
    return {
        "arrow": {"a.arrow": saved(lambda out: pf.write_feather(read, out, compression="uncompressed"))},
        "feather": {"a.feather": saved(lambda out: pf.write_feather(read, out, compression="lz4"))},
        "vectors": {"v.parquet": saved(lambda out: pq.write_table(both, out, compression="none"))},
        "paths": {
            "paths/p.parquet": saved(lambda out: pq.write_table(pa.table({"image": outside}), out, compression="none")),
            **{f"paths/{name}": content for name, content in pictures("png").items()},
        },
        "vectors-arrow": {"v.arrow": stream.getvalue()},
        "parquet-sums": {"a.parquet": saved(lambda out: pq.write_table(read, out, write_page_checksum=True))},
        "saved": {f"saved/{name}": content for name, content in folder.items()},
        "saved-splits": {
            "parts/dataset_dict.json": b'{"splits": ["train", "test"]}',
            **{f"parts/{part}/{name}": content for part in ("train", "test") for name, content in folder.items()},
        },
    }  # fmt: skip


def _archives() -> dict[str, dict[str, bytes]]:
    """Images in archives, and as shards of a WebDataset."""
    files = pictures("png")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(name, content)
    plain, shard = _tar(files), {}
    for i, content in enumerate(files.values()):
        shard |= {
            f"{i}.png": content,
            f"{i}.cls": str(i % 2).encode(),
            f"{i}.json": json.dumps({"more": i / 2, "box": [i, 0.5], "parts": [1] * i}).encode(),
        }
    return {
        "zip": {"a.zip": packed.getvalue()}, "tar": {"a.tar": plain}, "tgz": {"a.tar.gz": gzip.compress(plain, 1)},
        "shards": {"shards/train-000.tar": _tar(shard), "shards/test-000.tar": _tar(shard)},
        "shards-packed": {f"packed/{part}-0.tar.gz": gzip.compress(_tar(shard), 1) for part in ("train", "test")},
        "tgz-bmp": {"a.tgz": gzip.compress(_tar(pictures("bmp")), 1)},
    }  # fmt: skip


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return out.getvalue()


def _sounds(rng: np.random.Generator) -> dict[str, dict[str, bytes]]:
    try:
        import soundfile
    except (ImportError, OSError):
        return {}
    samples = rng.uniform(-0.5, 0.5, (5000, 2))
    content = {
        form: saved(lambda out, form=form: soundfile.write(out, samples, 8000, format=form.upper()))
        for form in ("wav", "flac")
    }
    files = {f"sounds/{'ab'[i % 2]}/{i}.{form}": content[form] for i, form in enumerate(("wav", "flac", "wav", "wav"))}
    return {"wav": {"a.wav": content["wav"]}, "flac": {"a.flac": content["flac"]}, "sounds": files}


def _medical(rng: np.random.Generator) -> dict[str, dict[str, bytes]]:
    try:
        import nibabel
        import pydicom
    except ImportError:
        return {}
    volume = rng.integers(-1000, 1000, (6, 5, 4)).astype(np.int16)
    nifti = nibabel.Nifti1Image(volume, np.diag([-1.0, 1, 1, 1])).to_bytes()
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = pydicom.uid.CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = volume.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -10
    dataset.PixelData = volume.tobytes()
    dicom = saved(lambda out: pydicom.dcmwrite(out, dataset, enforce_file_format=True))
    packed = gzip.compress(nifti, 1)
    return {
        "dicom": {"a.dcm": dicom}, "nifti": {"a.nii": nifti}, "nifti-packed": {"a.nii.gz": packed},
        "scans": {"scans/a/1.nii": nifti, "scans/b/2.nii.gz": packed, "scans/a/3.nii": nifti},
    }  # fmt: skip


def _workbook() -> bytes:
    try:
        import openpyxl
    except ImportError:
        return b""
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "one"
    for i, line in enumerate(table().splitlines()):
        cells = line.split(",")
        sheet.append(cells if not i else [float(cells[0]), int(cells[1]), cells[2], cells[3] == "1", int(cells[4])])
    book.create_sheet("two").append(["a", 1])
    return saved(book.save)


def _sparse(x: np.ndarray) -> bytes:
    import scipy.sparse as sp

    return saved(sp.save_npz, sp.csr_matrix(np.where(x > 0.6, x, 0)))


def _few_counts() -> Any:
    import scipy.sparse as sp

    return sp.csr_matrix(np.random.default_rng(3).poisson(0.7, (30, 6)).astype(np.int32))


def _hdf5(fill: Callable[[Any], None], before: bytes = b"", version: str = "latest") -> bytes:
    """The bytes of an HDF5 file that `fill` writes, after a block of other bytes; none without h5py."""
    try:
        import h5py
    except ImportError:
        return b""
    out = io.BytesIO()
    with h5py.File(out, "w", libver=version, userblock_size=len(before)) as file:
        fill(file)
    return before + out.getvalue()[len(before) :]


def _arrays(file: Any) -> None:
    """Arrays of several types, one of them compressed."""
    rng = np.random.default_rng(4)
    file.create_dataset(
        "x", data=rng.integers(0, 256, (24, 5, 4), dtype=np.uint8), chunks=(5, 5, 4), compression="gzip"
    )
    file["label"], file["batch"] = np.arange(24) % 3, np.array([f"b{i % 2}" for i in range(24)], object)
    file["more/z"] = rng.normal(size=(24, 3))


def _variables() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {
        "x": rng.normal(size=(24, 3)),
        "z": rng.integers(0, 256, (5, 4, 3, 24), dtype=np.uint8),
        "y": np.arange(24.0),
    }


def _matlab(packed: bool) -> bytes:
    from scipy.io import savemat

    texts = {"names": np.array(["a", "b"], object), "sparse": _few_counts().astype(float), "record": {"a": 1.0}}
    return saved(savemat, _variables() | texts, do_compression=packed)


def _matlab7(file: Any) -> None:
    """Variables as MATLAB 7.3 writes them, with their axes reversed."""
    for name, values in _variables().items():
        file.create_dataset(name, data=np.atleast_2d(values).T, compression="gzip")
        file[name].attrs["MATLAB_class"] = np.bytes_("uint8" if values.dtype == np.uint8 else "double")


def _h5ad(file: Any) -> None:
    """Cells in the layout of .h5ad files: X as real numbers, counts as a layer, and columns of each kind in obs."""
    counts = _few_counts()
    for name, matrix in (("X", counts * 0.5), ("layers/counts", counts)):
        group = file.create_group(name)
        group.attrs["encoding-type"], group.attrs["shape"] = "csr_matrix", matrix.shape
        for part in ("data", "indices", "indptr"):
            group.create_dataset(part, data=getattr(matrix, part), compression="gzip")
    for name, index in (("obs", [f"c{i}" for i in range(30)]), ("var", [f"g{i}" for i in range(6)])):
        group = file.create_group(name)
        group.attrs["_index"], group.attrs["column-order"] = "_index", ["kind", "size"] if name == "obs" else []
        group["_index"] = np.array(index, object)
    file["obs/kind/codes"] = (np.arange(30) % 3).astype(np.int8)
    file["obs/kind/categories"] = np.array(["a", "b", "c"], object)
    file["obs/size/values"], file["obs/size/mask"] = np.arange(30), np.arange(30) == 4
    file["obs/ok"] = np.arange(30) % 2 == 0


def _tenx(file: Any) -> None:
    counts, group = _few_counts(), file.create_group("matrix")
    for part in ("data", "indices", "indptr"):
        group[part] = getattr(counts, part)
    group["shape"], group["barcodes"] = [6, 30], np.array([f"c{i}" for i in range(30)], "S")
    group["features/name"] = np.array([f"g{i}" for i in range(6)], "S")


def _market() -> bytes:
    from scipy.io import mmwrite

    return saved(mmwrite, _few_counts().T)


SMALL = {"progress": False, "compile": "off", "device": "cpu", "batch": 8, "latent": 2, "hidden": (4,)}


def _compressed(name: str, source: str, read: dict[str, Any], choices: dict[str, Any]) -> Seed:
    """An archive of the training data of a run, and the run."""
    from vaekit.data import load
    from vaekit.run import fit

    with tempfile.TemporaryDirectory(prefix="vaekit-fuzz-") as folder:
        data = load(source, **read)
        run = fit(data, "vae", out=f"{folder}/run", steps=2, **SMALL, **choices)
        run.use_data(data)
        run.compress("train", path=f"{folder}/data.vk")
        names = ("run/run.json", "run/model.safetensors", "data.vk")
        return Seed(name, {file: Path(folder, file).read_bytes() for file in names}, ["data.vk"], weight=2.0)


def _trained(name: str, source: str, choices: dict[str, Any]) -> Seed:
    """A run that was stopped before its last step, with checkpoints, metrics and fitted latents."""
    from vaekit.run import fit

    run = fit(source, "vae", out=name, steps=5, checkpoint_steps=2, **SMALL, **choices)
    run.evaluate(samples=2, n=3)
    for latents in ("gmm", "flow"):
        run.fit_latents(latents, steps=3, **({"components": 2} if latents == "gmm" else {}))
    text = (run.path / "run.json").read_text().replace(os.fspath(Path(source).absolute()), source)
    (run.path / "run.json").write_text(json.dumps(json.loads(text) | {"state": "running", "step": 4}))
    (run.path / "checkpoint" / "000000005.safetensors").unlink()
    kept = {p.relative_to(run.path): p.read_bytes() for p in sorted(run.path.rglob("*")) if p.is_file()}
    files = {
        f"run/{path}": content for path, content in kept.items() if path.suffix in (".json", ".jsonl", ".safetensors")
    }
    damaged = [*files, "run/run.json", "run/run.json", "run/model.safetensors"]
    return Seed(name, files | {source: Path(source).read_bytes()}, damaged, weight=0.8, is_run=True)
