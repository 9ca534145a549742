"""Arrow, Feather and Parquet: tables as in the same CSV, large ones mapped; columns of vectors and images."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from vaekit.data import cache as caches
from vaekit.data import load, read_rows
from vaekit.data.arrays import is_map
from vaekit.data.readers import columnar, vectors
from vaekit.errors import DataError, UnavailableError

pa = pytest.importorskip("pyarrow")
import pyarrow.feather as pf  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

N = 60


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


def table(missing=False):
    rng = np.random.default_rng(0)
    whole = [None if missing and i == 50 else int(i) for i in rng.integers(0, 40, N)]
    return pa.table({
        "size": rng.normal(size=N), "whole": whole, "kind": ["abc"[i % 3] for i in range(N)],
        "flag": [i % 2 for i in range(N)], "label": [i % 4 for i in range(N)],
        "narrow": rng.normal(size=N).astype("f4"),
    })  # fmt: skip


def as_csv(path, read):
    columns = read.to_pydict()
    lines = [
        ",".join(columns),
        *(
            ",".join("" if v is None else repr(v).strip("'") for v in row)
            for row in zip(*columns.values(), strict=True)
        ),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def write(path, read):
    if path.suffix == ".parquet":
        pq.write_table(read, path, row_group_size=17)
    elif path.suffix == ".feather":
        pf.write_feather(read, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, read.schema) as out:
            out.write_table(read, max_chunksize=13)
    return path


def png(i, size=(6, 5)):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)).save(out, "png")
    return out.getvalue()


@pytest.mark.parametrize("name", ["a.parquet", "a.feather", "a.arrow"])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("missing", [False, True])
def test_tables_are_read_like_the_same_csv_whether_mapped_or_not(tmp_path, name, large, missing, monkeypatch):
    read = table(missing)
    other = load(as_csv(tmp_path / "b.csv", read), missing="mask")
    monkeypatch.setattr(caches, "LARGE", 10 if large else 2**30)
    monkeypatch.setattr(columnar, "BATCH", 7)
    one = load(write(tmp_path / name, read), missing="mask")
    assert one.schema == other.schema
    np.testing.assert_array_equal(one.train.raw.astype("f4"), other.train.raw)
    np.testing.assert_array_equal(one.train.label, other.train.label)
    assert is_map(one.train.raw) == large
    rows = read_rows(tmp_path / name, schema=one.schema[:3], missing="mask")
    np.testing.assert_array_equal(rows.x.astype("f4"), one.train.raw[:, :3].astype("f4"))


@pytest.mark.parametrize("missing", [False, True])
def test_texts_and_times_of_a_large_table_are_read_in_parts_with_the_same_result(tmp_path, missing, monkeypatch):
    def column(*values, kind=None):
        return pa.array([None if missing and i % 9 == 4 else values[i % len(values)] for i in range(N)], kind)

    days, few = column(1, 5, 9, kind=pa.date32()), pa.dictionary(pa.int8(), pa.string())
    read = pa.table({
        "kind": column("a", " b ", "a", "ccc"), "number as text": column("1", "2", "", "-"),
        "price": column("3 €", "1,000", "2"), "code": column("007", "010"), "name": column(*map(str, range(N)), "x"),
        "dictionary": column("u", "v", kind=pa.string()).cast(few), "day": days, "time": days.cast(pa.timestamp("ns")),
        "flag": column(True, False), "long": column("x" * 1200, "y"), "wide": column("p", "q", kind=pa.large_string()),
        "x": column(*np.arange(0.5, 9)), "empty": pa.array([None] * N, pa.string()),
    })  # fmt: skip
    monkeypatch.setattr(columnar, "BATCH", 7)
    path = write(tmp_path / "a.parquet", read)
    for texts in ((), ("x", "kind", "number as text")):
        monkeypatch.setattr(caches, "LARGE", 2**30)
        whole = columnar.table_of(path, drop=("long",) if texts else (), texts=texts)
        monkeypatch.setattr(caches, "LARGE", 10)
        parts = columnar.table_of(path, drop=("long",) if texts else (), texts=texts)
        assert list(parts.columns) == list(whole.columns)
        for name, values in whole.columns.items():
            assert parts.columns[name].dtype == values.dtype, name
            np.testing.assert_array_equal(parts.columns[name], values, name)
        for field in ("names", "unnamed", "words", "notes", "options"):
            assert getattr(parts, field) == getattr(whole, field), field


def test_rows_that_a_large_file_declares_and_lacks(tmp_path, monkeypatch):
    monkeypatch.setattr(caches, "LARGE", 10)
    path = write(tmp_path / "a.parquet", table())
    for rows in (N - 5, N + 5):
        monkeypatch.setattr(columnar.Columnar, "counts", [rows])
        with pytest.raises(DataError, match=f"declares {rows} rows, but column .* has {N}: it is damaged"):
            load(path)


def test_integers_beyond_int64_become_floats(tmp_path, monkeypatch):
    big = pa.array([2**64 - 1 - i for i in range(N)], pa.uint64())
    write(tmp_path / "a.parquet", pa.table({"a": big, "b": list(range(N))}))
    small = load(tmp_path / "a.parquet").train[:]
    monkeypatch.setattr(caches, "LARGE", 10)
    np.testing.assert_array_equal(load(tmp_path / "a.parquet").train[:], small)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_columns_of_vectors_and_arrays(tmp_path, name, large, monkeypatch):
    monkeypatch.setattr(caches, "LARGE", 10 if large else 2**30)
    monkeypatch.setattr(vectors, "ROWS", 7)
    rng = np.random.default_rng(0)
    x, images = rng.normal(size=(N, 5)).astype("f4"), rng.integers(0, 256, (N, 4, 3), dtype=np.uint8)
    for cells, want in (
        (pa.array(list(x)), x),
        (pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 5), x),
        (pa.FixedShapeTensorArray.from_numpy_ndarray(images), images),
        (pa.array(images.tolist(), pa.list_(pa.list_(pa.uint8()))), images),
    ):
        data = load(
            write(
                tmp_path / name,
                pa.table({"emb": cells, "label": ["ab"[i % 2] for i in range(N)], "id": list(range(N))}),
            )
        )
        np.testing.assert_array_equal(data.train.raw, want)
        assert is_map(data.train.raw) == large
        assert data.label_names == ["a", "b"]
        assert data.train.columns["id"].tolist() == data.train.index.tolist()


def test_vectors_that_cannot_be_one_array_are_refused(tmp_path):
    for cells, message in (
        ([[1.0, 2.0]] * 9 + [[1.0]], "lists of 1 to 2 values"),
        ([[1.0, 2.0]] * 9 + [None], "cells without values"),
        ([[1.0, 2.0]] * 9 + [[1.0, None]], "missing numbers"),
    ):
        write(tmp_path / "a.parquet", pa.table({"x": cells}))
        with pytest.raises(DataError, match=message):
            load(tmp_path / "a.parquet")
    both = pa.table({"one": [[1.0, 2.0], [3.0, 1.0], [2.0, 2.0]], "two": [[1.0], [3.0], [2.0]]})
    write(tmp_path / "a.parquet", both)
    with pytest.raises(DataError, match=r"several columns of vectors or images \(one, two\)"):
        load(tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet", x_key="two").shape == (1,)


def features(**known):
    return {"huggingface": json.dumps({"info": {"features": known}})}


def test_columns_of_images_with_the_names_of_their_classes(tmp_path):
    cells = [{"bytes": png(i), "path": f"{i}.png"} for i in range(12)]
    read = pa.table({"image": cells, "label": [i % 2 for i in range(12)], "text": ["t"] * 12})
    read = read.replace_schema_metadata(features(label={"names": ["cat", "dog"], "_type": "ClassLabel"}))
    data = load(write(tmp_path / "a.parquet", read))
    assert (data.kind, data.shape, data.label_names) == ("image", (3, 6, 5), ["cat", "dog"])
    np.testing.assert_array_equal(data.train.raw[4], np.asarray(Image.open(io.BytesIO(png(4)))))
    assert data.train.label.tolist() == [i % 2 for i in data.train.index]
    cells[3] = {"bytes": b"no image", "path": "3.png"}
    bad = write(tmp_path / "b.parquet", pa.table({"image": cells, "label": list(range(12))}))
    with pytest.raises(DataError, match=r"b\.parquet/3 cannot be read as an image"):
        load(bad)
    data = load(bad, skip_bad=True)
    assert (len(data.train.raw), data.label_names) == (11, [str(i) for i in range(12) if i != 3])
    assert data.train.label.tolist() == data.train.index.tolist()
    assert load(tmp_path / "a.parquet", label="label").label_names == ["cat", "dog"]


def paths_only(paths):
    """A table of images by their paths, without bytes, as `datasets` keeps it in its cache."""
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    cells = pa.array([{"bytes": None, "path": path and str(path)} for path in paths], kind)
    return pa.table({"image": cells, "label": [i % 2 for i in range(len(paths))]})


def images_in(folder, n=8):
    folder.mkdir(parents=True)
    for i in range(n):
        (folder / f"{i}.png").write_bytes(png(i))
    return np.stack([np.asarray(Image.open(io.BytesIO(png(i)))) for i in range(n)])


@pytest.mark.parametrize("name", ["set/a.parquet", "set/a.arrow", "set/a.feather"])
@pytest.mark.parametrize("absolute", [False, True])
def test_images_at_paths_below_the_folder_of_the_file_are_read(tmp_path, name, absolute):
    pixels = images_in(tmp_path / "set/some")
    paths = [tmp_path / f"set/some/{i}.png" if absolute else f"some/{i}.png" for i in range(8)]
    path = write(tmp_path / name, paths_only(paths))
    read = read_rows(path)
    np.testing.assert_array_equal(read.x, pixels)
    where = tmp_path / "set"
    assert read.notes[0] == f"column 'image' holds the paths, not the bytes, of 8 of 8 images in {where}"
    (tmp_path / "set/some/3.png").write_bytes(png(30))  # the packed array of the cache is another
    np.testing.assert_array_equal(read_rows(path).x[3], np.asarray(Image.open(io.BytesIO(png(30)))))


def test_images_with_bytes_and_others_at_paths_keep_their_rows(tmp_path):
    pixels = images_in(tmp_path / "set/some")
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    cells = [{"bytes": png(i) if i % 3 else None, "path": f"some/{i}.png"} for i in range(8)]
    path = tmp_path / "set/a.parquet"
    pq.write_table(pa.table({"image": pa.array(cells, kind), "n": range(8)}), path, row_group_size=3)
    read = read_rows(path)
    np.testing.assert_array_equal(read.x, pixels)
    assert "of 3 of 8 images" in read.notes[0]
    for i in (0, 3, 6):
        (tmp_path / f"set/some/{i}.png").unlink()
    with pytest.raises(DataError, match=r"for 3 of 8 cells there is no such file in .*set, such as 'some/0\.png'"):
        load(path)
    read = read_rows(path, skip_bad=True)
    np.testing.assert_array_equal(read.x, pixels[[1, 2, 4, 5, 7]])
    assert read.columns["n"].tolist() == [1, 2, 4, 5, 7]
    assert any("there is no such file" in note for note in read.notes)
    whole = pa.table({"image": pa.array([{"bytes": png(i), "path": f"some/{i}.png"} for i in range(8)], kind)})
    assert not read_rows(write(tmp_path / "set/b.parquet", whole)).notes


@pytest.mark.parametrize("way", ["..", "absolute", "link", "folder link", "device", "long", "nul", "https"])
def test_paths_that_lead_out_of_the_folder_are_not_read(tmp_path, way):
    images_in(tmp_path / "other")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/link.png").symlink_to(tmp_path / "other/0.png")
    (tmp_path / "set/links").symlink_to(tmp_path / "other")
    path = {
        "..": "../other/0.png",
        "absolute": str(tmp_path / "other/0.png"),
        "link": "link.png",
        "folder link": "links/0.png",
        "device": "/dev/zero",
        "long": "x" * 5000,
        "nul": "a\0.png",
        "https": "https://example.org/0.png",
    }[way]
    for name in ("a.parquet", "a.arrow"):
        write(tmp_path / "set" / name, paths_only([path] * 5))
        with pytest.raises(DataError, match="holds paths without the bytes of the images") as raised:
            load(tmp_path / "set" / name, skip_bad=True)
        assert "files elsewhere are not read" in str(raised.value)
        assert len(str(raised.value)) < 1500


def test_structs_with_a_path_and_no_bytes_are_nested_cells_not_images(tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"image": [{"path": "0.png"}] * 8, "n": list(range(8))}))
    with pytest.raises(DataError, match="'image' is nested"):
        load(path)


def test_the_default_of_an_option_of_another_format_is_accepted(tmp_path):
    path = write(tmp_path / "a.parquet", table())
    np.testing.assert_array_equal(load(path, skip_bad=False).train.raw, load(path).train.raw)
    with pytest.raises(DataError, match="`skip_bad` applies to"):
        load(path, skip_bad=True)


def test_a_table_in_a_column_without_any_bytes_may_have_no_type(tmp_path):
    pixels = images_in(tmp_path / "set/some")
    path = tmp_path / "set/a.arrow"
    write(path, pa.table({"image": [{"bytes": None, "path": f"some/{i}.png"} for i in range(8)]}))
    np.testing.assert_array_equal(read_rows(path).x, pixels)


def test_a_table_with_a_column_of_lists_is_still_a_table(tmp_path):
    rng = np.random.default_rng(0)
    read = pa.table({**{f"c{i}": rng.normal(size=20) for i in range(5)}, "tags": [[1] * (i % 3) for i in range(20)]})
    path = write(tmp_path / "a.parquet", read)
    with pytest.raises(DataError, match=r"'tags' is nested"):
        load(path)
    assert load(path, drop="tags").shape == (5,)


@pytest.mark.parametrize("name", ["a.arrow", "a.feather"])
def test_damaged_arrow_files_are_refused(tmp_path, name):
    path = write(tmp_path / name, table())
    whole = path.read_bytes()
    for content in (b"", b"no", whole[:200], whole[: len(whole) - 300]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.(arrow|feather)"):
            load(path)


# --- data sets of Hugging Face ------------------------------------------------------------------------------------


def saved_by_hand(path, read, shards=2):
    """A folder as `save_to_disk` writes it."""
    path.mkdir(parents=True)
    size, names = -(-len(read) // shards), [f"data-{i:05}-of-{shards:05}.arrow" for i in range(shards)]
    for i, name in enumerate(names):
        write(path / name, read.slice(i * size, size))
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (path / "dataset_info.json").write_text("{}")


def test_saved_folders_are_read_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    x = np.random.default_rng(0).normal(size=(30, 4)).astype("f4")
    read = pa.table({"emb": list(x), "label": [i % 2 for i in range(30)]})
    read = read.replace_schema_metadata(features(label={"names": ["no", "yes"], "_type": "ClassLabel"}))
    saved_by_hand(tmp_path / "one", read)
    data = load(tmp_path / "one")
    np.testing.assert_array_equal(data.train.raw, x)
    assert data.label_names == ["no", "yes"]
    saved_by_hand(tmp_path / "all/train", read)
    saved_by_hand(tmp_path / "all/test", read.slice(0, 7))
    (tmp_path / "all/dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    data = load(tmp_path / "all")
    assert (len(data.train) + len(data.valid), len(data.test)) == (30, 7)
    np.testing.assert_array_equal(data.test[:], x[:7])
    (tmp_path / "all/dataset_dict.json").write_text(json.dumps({"splits": ["train", "../one"]}))
    with pytest.raises(DataError, match="expected a list of splits"):
        load(tmp_path / "all")
    (tmp_path / "one/state.json").write_text(json.dumps({"_data_files": [{"filename": "../x.arrow"}]}))
    with pytest.raises(DataError, match="expected the names of files"):
        load(tmp_path / "one")


def test_saved_folders_may_hold_images_at_paths(tmp_path):
    pixels = images_in(tmp_path / "all/train/some")
    images_in(tmp_path / "all/images", 3)
    saved_by_hand(tmp_path / "new/train", paths_only([f"some/{i}.png" for i in range(8)]))
    saved_by_hand(tmp_path / "new/test", paths_only([f"images/{i}.png" for i in range(3)]))
    for part in ("train", "test"):
        for file in (tmp_path / "new" / part).iterdir():
            (tmp_path / "all" / part).mkdir(exist_ok=True)
            file.rename(tmp_path / "all" / part / file.name)
    (tmp_path / "all/dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    data = load(tmp_path / "all")
    np.testing.assert_array_equal(data.train[:], pixels[data.train.index])
    np.testing.assert_array_equal(data.test[:], pixels[:3])


def test_the_call_that_the_message_names_stores_the_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    pixels = images_in(tmp_path / "other")
    read = paths_only([tmp_path / f"other/{i}.png" for i in range(8)])
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    whole = datasets.Dataset.from_dict(
        {"image": [str(tmp_path / "other/0.png")] * 8, "label": range(8)}, features=kinds
    )
    whole.save_to_disk(tmp_path / "a")
    write(tmp_path / "a/data-00000-of-00001.arrow", read)
    (tmp_path / "b").mkdir()
    for i, path in enumerate(
        (tmp_path / "a", *(write(tmp_path / f"b/c.{kind}", read) for kind in ("parquet", "arrow")))
    ):
        with pytest.raises(DataError, match=r"`datasets\..*save_to_disk\('NEW'\)`") as raised:
            load(path)
        call = str(raised.value).split("`")[1].replace("NEW", str(tmp_path / f"new{i}"))
        eval(call, {"datasets": datasets})
        np.testing.assert_array_equal(
            load(tmp_path / f"new{i}").train[:], pixels[load(tmp_path / f"new{i}").train.index]
        )


def test_images_of_a_downloaded_data_set_are_read_where_it_was_downloaded(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    asked = {
        "hub": tmp_path / "hub/datasets--user--hub/snapshots/1",
        "extracted": tmp_path / "cache/huggingface/downloads",
        "other": tmp_path / "hub/datasets--user--private/snapshots/1",
    }
    for folder in asked.values():
        pixels = images_in(folder)

    def load_dataset(name, subset, cache_dir):
        folder = asked[name.split("/")[1]]
        path = write(tmp_path / f"{folder.parent.name}.arrow", paths_only([folder / f"{i}.png" for i in range(8)]))
        return {"train": type("Part", (), {"cache_files": [{"filename": str(path)}], "__len__": lambda self: 8})()}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for name in ("hub", "extracted"):
        data = load(f"hf://datasets/user/{name}")
        np.testing.assert_array_equal(data.train[:], pixels[data.train.index])
    with pytest.raises(DataError, match=r"datasets\.load_dataset\('user/other'\)\.cast_column"):
        load("hf://datasets/user/other")


def test_saved_tables_are_tables(tmp_path):
    saved_by_hand(tmp_path / "one", table())
    one, other = load(tmp_path / "one"), load(write(tmp_path / "a.parquet", table()))
    assert one.schema == other.schema
    np.testing.assert_array_equal(one.train.raw, other.train.raw)


def test_the_real_library_writes_what_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    images = [Image.open(io.BytesIO(png(i))) for i in range(10)]
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    made = datasets.Dataset.from_dict({"image": images, "label": [i % 2 for i in range(10)]}, features=kinds)
    datasets.DatasetDict({"train": made, "validation": made.select(range(3)), "extra": made}).save_to_disk(
        tmp_path / "a"
    )
    data = load(tmp_path / "a")
    assert (len(data.train) + len(data.test), len(data.valid), data.label_names) == (10, 3, ["cat", "dog"])
    np.testing.assert_array_equal(data.valid[1], np.asarray(images[1]))
    assert any("left out 1 split: extra" in note for note in data.notes)


def test_names_are_downloaded_only_when_given_and_failures_say_what_to_do(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(name, subset, cache_dir, revision=None):
        asked.append((name, subset, revision))
        if name == "user/lost":
            raise ConnectionError("no route to the hub")
        made = datasets.Dataset.from_dict({"emb": [[float(i), i % 3] for i in range(20)]})
        path = tmp_path / "cached.arrow"
        write(path, made.data.table)
        return {"train": type("Part", (), {"cache_files": [{"filename": str(path)}], "__len__": lambda self: 20})()}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load("hf://datasets/user/name", subset="small")
    assert (data.name, data.source, data.options["subset"], data.shape) == (
        "name",
        "hf://datasets/user/name",
        "small",
        (2,),
    )
    with pytest.raises(
        UnavailableError, match=r"hf://datasets/user/lost cannot be loaded \(ConnectionError: no route.*save_to_disk"
    ):
        load("hf://datasets/user/lost")
    data = load("hf://datasets/user/name@refs/convert/v1")
    assert (data.name, data.source) == ("name", "hf://datasets/user/name@refs/convert/v1")
    assert asked == [("user/name", "small", None), ("user/lost", None, None), ("user/name", None, "refs/convert/v1")]
    for wrong in ("models/user/name", "datasets/user/name/more", "datasets/user/@v1"):
        with pytest.raises(DataError, match="expected hf://datasets/USER/NAME"):
            load(f"hf://{wrong}")
