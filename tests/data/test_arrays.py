"""Arrays, tensors and Datasets: kinds, shapes, scales, and what is refused."""

import inspect
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vaekit.data import from_arrays, load, read_rows
from vaekit.data.core import digest
from vaekit.errors import ChoiceError, DataError, VaekitError

FIXED = settings(max_examples=60, derandomize=True, deadline=None)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


PARTS = {"train": range(9), "valid": range(9, 12), "test": range(12, 15)}


def random(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "dtype", "asked", "kind", "event"),
    [
        ((9, 5), np.float32, None, "vector", (5,)),
        ((9, 5), np.uint8, None, "vector", (5,)),
        ((9, 5), np.int64, None, "counts", (5,)),
        ((9,), np.float64, None, "vector", (1,)),
        ((9, 5, 7), np.uint8, None, "image", (1, 5, 7)),
        ((9, 5, 7, 1), np.uint8, None, "image", (1, 5, 7)),
        ((9, 5, 7, 2), np.float32, None, "image", (2, 5, 7)),
        ((9, 5, 7, 3), np.uint8, None, "image", (3, 5, 7)),
        ((9, 5, 7, 4), np.uint8, None, "image", (4, 5, 7)),
        ((9, 3, 5, 7), np.uint8, None, "image", (3, 5, 7)),
        ((9, 1, 5, 7), np.float32, None, "image", (1, 5, 7)),
        ((9, 5, 7, 13), np.uint8, "image", "image", (13, 5, 7)),
        ((9, 50), np.float32, "signal", "signal", (1, 50)),
        ((9, 50, 2), np.float32, "signal", "signal", (2, 50)),
        ((9, 5, 7), np.float32, "vector", "vector", (35,)),
        ((9, 5), np.uint8, "counts", "counts", (5,)),
    ],
)
def test_kinds_and_shapes(shape, dtype, asked, kind, event):
    data = from_arrays(random(*shape, dtype=dtype), kind=asked)
    assert (data.kind, data.shape) == (kind, event)
    raw = data.train[:3]
    events = data.events(raw)
    assert events.shape == (3, *event)
    assert np.shares_memory(events, raw)
    if kind == "image":
        shown = data.image(events)
        assert shown.shape == ((3, *event[1:]) if event[0] == 1 else (3, *event[1:], event[0]))
        np.testing.assert_array_equal(shown[1, 2, 3], events[1, :, 2, 3].squeeze())


def test_types_and_scales(rng):
    whole = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)
    assert from_arrays(whole).scale == (0.0, 255.0)
    assert from_arrays(whole).train.raw is whole
    bits = rng.random((20, 3, 3)) > 0.5
    assert (from_arrays(bits).scale, from_arrays(bits).train[:].dtype) == ((0.0, 1.0), np.uint8)
    assert from_arrays(bits.astype(np.uint8)).scale == (0.0, 1.0)
    floats = from_arrays(rng.normal(size=(50, 2)))
    assert floats.train.raw.dtype == np.float32
    assert floats.scale == (floats.train[:].min(), floats.train[:].max())
    assert from_arrays(random(9, 5, dtype=np.uint16)).train[:].dtype == np.int32


def test_split_numbering(rng):
    x = random(50, 4, 4)
    data = from_arrays(x, label=np.arange(50) % 5, columns={"a": np.arange(50)})
    split = data.valid
    np.testing.assert_array_equal(split[2:4], x[split.index[2:4]])
    np.testing.assert_array_equal(split[[3, 0]], x[split.index[[3, 0]]])
    head = data.train.head(7)
    assert len(head) == 7
    np.testing.assert_array_equal(head.label, head.index % 5)
    np.testing.assert_array_equal(head.columns["a"], head.index)
    assert len(data.train.head(10**6)) == len(data.train)


@FIXED
@given(n=st.integers(3, 40), values=st.integers(1, 6), start=st.integers(-3, 5))
def test_labels_become_class_numbers(n, values, start):
    given_labels = np.arange(n) % values + start
    data = from_arrays(np.arange(n)[:, None] * 1.0, label=given_labels)
    for split in (data.train, data.valid, data.test):
        if data.label_names is None:
            np.testing.assert_array_equal(split.label, given_labels[split.index])
        else:
            names = [data.label_names[code] if code >= 0 else "-1" for code in split.label]
            assert names == [str(value) for value in given_labels[split.index]]


def test_attributes_and_factors(rng):
    x = rng.normal(size=(20, 3))
    columns = {
        "smile": np.arange(20) % 2,
        "male": np.arange(20) % 2 * 2 - 1,
        "f": np.arange(20) % 2,
        "age": np.arange(20),
    }
    data = from_arrays(x, columns=columns, factor_names=["f"])
    assert (data.attribute_names, data.factor_names) == (["smile", "male"], ["f"])
    np.testing.assert_array_equal(data.train.columns["male"], data.train.index % 2)
    with pytest.raises(DataError, match="'g' is not a column"):
        from_arrays(x, columns=columns, factor_names=["g"])
    with pytest.raises(DataError, match="column 'age' must have one value for each of 20 rows"):
        from_arrays(x, columns={"age": np.arange(19)})


NAN = np.arange(40, dtype=np.float64).reshape(10, 4)
NAN[6, 2] = np.nan
HUGE = NAN.copy()
HUGE[6, 2] = 1e300


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (NAN, {}, "row 6, column 2 is nan"),
        (NAN, {"feature_names": list("abcd")}, "row 6, column 'c' is nan"),
        (HUGE, {}, r"row 6, column 2 is 1e\+300; the squares of numbers beyond"),
        (NAN.reshape(10, 2, 2), {}, r"row 6, column \(1, 0\) is nan"),
        (np.ones((10, 3)), {}, "all 10 rows are identical"),
        (np.ones((1, 3)), {}, "1 row, expected at least 3"),
        (np.arange(2)[:, None], {}, "2 rows for train.*at least 3"),
        (np.empty((0, 3)), {}, r"no data: got shape \(0, 3\)"),
        (np.empty((5, 0)), {}, "no data"),
        (np.float64(3), {}, "no data"),
        (np.array(["a", "b", "c"]), {}, "real numbers.*got <U1"),
        (np.array([{}] * 4), {}, "real numbers.*got object"),
        (np.ones((4, 2), complex), {}, "real numbers.*complex"),
        ([[1.0], [1.0, 2.0], [3.0]], {}, "all rows must have the same shape"),
        (random(9, 2, 5, 6, 7), {}, "cannot infer the kind of data of shape"),
        (random(9, 5, 7, 13), {}, "give `kind`"),
        (random(9, 5), {"kind": "image"}, r"kind 'image' needs rows of shape \(H, W\)"),
        (random(9, 5), {"kind": "sound"}, "kind must be one of image, signal, vector, counts, got 'sound'"),
        (NAN[:5] - 3, {"kind": "counts"}, "row 0, column 0 is -3; counts are whole"),
        (random(9, 5), {"label": np.arange(8)}, "label must have one value for each of 9 rows"),
        (random(9, 5), {"label": np.arange(9) + 0.5}, "labels must be whole numbers or text, got 0.5"),
        (random(9, 5), {"label": np.arange(9), "label_names": ["a"]}, r"labels must lie in 0\.\.0"),
        (random(9, 5), {"group": "person"}, "group='person'`: the data have no such column; they have no columns"),
        (random(9, 5), {"valid": 1.5}, "valid must be a fraction"),
        (random(9, 5), {"test": random(4, 6)}, "rows of one shape"),
        (random(9, 5), {"test": random(4, 5), "label": np.arange(9)}, "labels for all of train, test or for none"),
    ],
)
def test_refused(x, options, message):
    with pytest.raises(DataError, match=message) as caught:
        from_arrays(x, **options)
    assert isinstance(caught.value, VaekitError)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_own_test_rows(rng):
    x, y = random(20, 5), np.arange(20) % 3
    data = from_arrays(x, label=y, test=(random(6, 5) + 100, np.arange(6) % 3))
    assert (len(data.train), len(data.valid), len(data.test)) == (18, 2, 6)
    np.testing.assert_array_equal(data.test[:], random(6, 5) + 100)
    np.testing.assert_array_equal(data.test.label, np.arange(6) % 3)


def test_tensors_and_datasets(rng):
    torch = pytest.importorskip("torch")
    x, y = random(12, 1, 6, 6), np.arange(12) % 3
    tensor, codes = torch.from_numpy(x), torch.from_numpy(y)

    class Items(torch.utils.data.Dataset):
        def __init__(self, make):
            self.make = make

        def __len__(self):
            return 12

        def __getitem__(self, i):
            return self.make(i)

    expected = from_arrays(x, label=y)
    for source, label in (
        (tensor, codes),
        (torch.utils.data.TensorDataset(tensor, codes), None),
        (Items(lambda i: (tensor[i], int(y[i]))), None),
        (Items(lambda i: {"image": x[i], "label": codes[i]}), None),
        (torch.utils.data.Subset(torch.utils.data.TensorDataset(tensor, codes), range(12)), None),
    ):
        data = from_arrays(source, label=label)
        assert data.digest == expected.digest
        np.testing.assert_array_equal(data.train.label, expected.train.label)
    assert from_arrays(Items(lambda i: x[i])).train.label is None
    assert from_arrays(tensor.bfloat16()).train.raw.dtype == np.float32
    with pytest.raises(DataError, match="all items must have the same shape"):
        from_arrays(Items(lambda i: x[i, :, : 5 + i % 2]))
    with pytest.raises(DataError, match="key x or image, got picture"):
        from_arrays(Items(lambda i: {"picture": x[i]}))

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(x)

    with pytest.raises(DataError, match="IterableDataset has no rows"):
        from_arrays(Stream())


def test_masked_values_are_missing():
    """NumPy drops the mask of an array when it is converted, and takes the values below it."""
    x = np.arange(60.0).reshape(15, 4)
    masked = np.ma.masked_greater(x, 50)
    with pytest.raises(DataError, match=r"row 12, column 3 is nan; .*missing='mask'"):
        from_arrays(masked)
    data = from_arrays(masked, missing="mask", splits=PARTS)
    np.testing.assert_array_equal(data.test[:], np.where(x > 50, np.nan, x)[12:].astype(np.float32))
    images = np.ma.masked_array(random(15, 5, 5), mask=np.arange(375).reshape(15, 5, 5) == 374)
    assert np.isnan(from_arrays(images, missing="mask", splits=PARTS).test[2]).sum() == 1
    assert from_arrays(np.ma.masked_array(x), splits=PARTS).digest == from_arrays(x, splits=PARTS).digest


def test_masked_labels_are_unknown():
    names = np.ma.masked_array(list("abcab" * 3), mask=np.arange(15) == 13)
    data = from_arrays(random(15, 4), label=names, splits=PARTS)
    assert (data.label_names, data.test.label.tolist()) == (["a", "b", "c"], [2, -1, 1])
    with pytest.raises(DataError, match="got nan: write -1 for unknown labels"):
        from_arrays(random(15, 4), label=np.ma.masked_array(np.arange(15) % 3, mask=np.arange(15) == 13))
    ages = np.ma.masked_array(np.arange(15), mask=np.arange(15) == 13)
    data = from_arrays(random(15, 4), columns={"age": ages}, splits=PARTS)
    np.testing.assert_array_equal(data.test.columns["age"], [12, np.nan, 14])


@pytest.mark.parametrize(
    ("mode", "shape", "as_mode"),
    [("RGB", (3, 6, 5), "RGB"), ("L", (1, 6, 5), "L"), ("1", (1, 6, 5), "L"), ("P", (3, 6, 5), "RGB"),
     ("CMYK", (3, 6, 5), "RGB"), ("HSV", (3, 6, 5), "RGB"), ("LA", (4, 6, 5), "RGBA"), ("RGBA", (4, 6, 5), "RGBA")],
)  # fmt: skip
def test_images_of_pillow_are_read_as_colours(mode, shape, as_mode):
    """The values of a palette image are indices of colours, those of CMYK inks."""
    images = [Image.fromarray(x).convert(mode) for x in random(12, 6, 5, 3)]
    data = from_arrays(images)
    assert data.shape == shape
    expected = np.asarray(images[data.test.index[0]].convert(as_mode))
    np.testing.assert_array_equal(data.test[0].reshape(expected.shape), expected)


def test_items_of_datasets(rng):
    torch = pytest.importorskip("torch")
    x = torch.rand(12, 4)

    def read(item, **options):
        items = type(
            "Items", (torch.utils.data.Dataset,), {"__len__": lambda _: 12, "__getitem__": lambda _, i: item(i)}
        )
        return from_arrays(items(), splits={"train": range(8), "valid": [8, 9], "test": [10, 11]}, **options)

    data = read(lambda i: (x[i], "ab"[i % 2] if i != 11 else None))
    assert (data.label_names, data.test.label.tolist()) == (["a", "b"], [0, -1])
    data = read(lambda i: (x[i], torch.eye(3)[i % 3]))  # one-hot
    assert data.test.label.tolist() == [1, 2]
    data = read(lambda i: (x[i], i % 2, "name"))
    assert data.notes == ("items have 3 parts: the first is x, the second the label, the others are not used",)
    with pytest.raises(DataError, match="must be a number or a text, got a dict with boxes"):
        read(lambda i: (x[i], {"boxes": [1, 2]}))
    image = Image.fromarray(random(6, 5, 3)).convert("P")
    np.testing.assert_array_equal(read(lambda i: image.rotate(90 * i)).train[0], np.asarray(image.convert("RGB")))


def test_tensors_of_other_layouts_and_types():
    torch = pytest.importorskip("torch")
    x = torch.arange(40.0).reshape(10, 4) * (torch.arange(4) != 2)
    expected = from_arrays(x)
    for other in (x.to_sparse(), x.to_sparse_csr(), x.to_sparse_csc()):
        np.testing.assert_array_equal(from_arrays(other).train[:], expected.train[:])
    assert from_arrays(x.to(torch.float8_e4m3fn)).train[:].max() == 40  # 39, rounded to four bits
    for other in (
        x.to("meta"),
        torch.quantize_per_tensor(x, 0.5, 0, torch.qint8),
        torch.nested.nested_tensor([x, x[1:]]),
    ):
        with pytest.raises(DataError, match=r"cannot be read .* convert it to a dense array"):
            from_arrays(other)


def test_options_load_the_same_again(tmp_path, rng):
    np.savez(tmp_path / "a.npz", z=random(40, 6), other=np.arange(40))
    data = load(tmp_path / "a.npz", x_key="z", valid=0.25, split_seed=3, kind="signal", label="other")
    assert data.options == {"x_key": "z", "valid": 0.25, "split_seed": 3, "kind": "signal", "label": "other"}
    again = load(data.source, **json.loads(json.dumps(data.options)))
    np.testing.assert_array_equal(again.valid.index, data.valid.index)
    assert (again.digest, again.shape) == (data.digest, data.shape)
    rows = {"train": data.train.index, "valid": data.valid.index, "test": data.test.index[:2]}
    exact = load(tmp_path / "a.npz", x_key="z", splits=rows)
    np.testing.assert_array_equal(exact.test.index, data.test.index[:2])
    np.testing.assert_array_equal(
        load(data.source, **json.loads(json.dumps(exact.options))).test.index, exact.test.index
    )
    assert load(tmp_path / "a.npz", x_key="z").options == {"x_key": "z"}


def test_options_that_do_not_apply(tmp_path):
    np.save(tmp_path / "a.npy", random(9, 3))
    for option, value in {"size": "3", "table": "t.csv", "skip_bad": True, "background": "red", "x_key": "x"}.items():
        with pytest.raises(DataError, match=f"`{option}` applies to"):
            load(tmp_path / "a.npy", **{option: value})
    (tmp_path / "a.bin").write_text("1 2 3")
    with pytest.raises(DataError, match="unknown format"):
        load(tmp_path / "a.bin")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="a single image: give a folder"):
        load(tmp_path / "a.png")


def test_digest_depends_on_content_shape_and_type(monkeypatch):
    x = random(100, 4)
    other = x.copy()
    other[50, 2] ^= 1
    assert len({digest(x), digest(other), digest(x.reshape(50, 8)), digest(x.view(np.int8))}) == 4
    assert digest(x) == digest(np.asfortranarray(x)) == digest(x.copy())
    monkeypatch.setattr("vaekit.data.core.HASHED_WHOLE", 10)
    monkeypatch.setattr("vaekit.data.core.HASHED_ROWS", 10)
    assert digest(x).startswith("sampled:")


def test_events_and_images_of_the_wrong_shape():
    data = from_arrays(random(9, 5, 7, 3))
    with pytest.raises(DataError, match=r"rows must have shape \(B, 5, 7, 3\), got \(2, 5, 7\)"):
        data.events(random(2, 5, 7))
    with pytest.raises(DataError, match=r"events must have shape \(B, 3, 5, 7\)"):
        data.image(random(2, 5, 7, 3))
    with pytest.raises(DataError, match="cannot be shown as images"):
        from_arrays(random(9, 5)).image(random(9, 5))


def test_the_package_is_light():
    heavy = ["torch", "pyarrow", "sklearn", "PIL", "matplotlib", "pandas"]
    code = f"import sys, vaekit.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_data_say_what_they_are_in_a_line(rng):
    x = rng.integers(0, 256, (1000, 3, 8, 8)).astype(np.uint8)
    data = from_arrays(x, label=np.arange(1000) % 4, name="squares", label_names=["a", "b", "c", "d"])
    assert repr(data) == (
        "squares: image data of 3 x 8 x 8, values 0 to 255; 800 train, 100 valid, 100 test, 4 classes"
    )
    assert repr(data.valid) == "100 rows of 3 x 8 x 8 uint8, classes"


def test_labels_of_minus_one_and_one_are_two_classes(rng):
    y = np.tile([-1, 1, 1], 10)
    for label in (y, y.astype(float)):
        data = from_arrays(rng.normal(size=(30, 2)), label=label)
        assert data.label_names == ["-1", "1"]
        np.testing.assert_array_equal(data.train.label, (y[data.train.index] == 1).astype(int))
    unknown = from_arrays(rng.normal(size=(30, 2)), label=np.tile([-1, 1, 0], 10))
    assert unknown.label_names is None
    assert set(unknown.train.label) == {-1, 0, 1}


def test_load_and_from_arrays_take_their_arguments_in_one_order():
    files, arrays = (list(inspect.signature(function).parameters)[1:] for function in (load, from_arrays))
    assert [name for name in files if name in arrays] == [name for name in arrays if name in files]
    assert {"size", "x_key", "delimiter"} <= set(files)
    assert "`size`: " in load.__doc__


def test_new_rows_take_the_options_of_their_format_only(tmp_path):
    np.save(tmp_path / "a.npy", random(9, 3))
    with pytest.raises(
        DataError, match=r"`delimiter` applies to a table \(\.csv, \.parquet, \.xlsx\), not to a \.npy file"
    ):
        read_rows(tmp_path / "a.npy", delimiter=",")
    with pytest.raises(ChoiceError, match="'delimeter': did you mean 'delimiter'"):
        read_rows(tmp_path / "a.npy", delimeter=",")
    Image.fromarray(random(4, 4).astype(np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.npy").unlink()
    with pytest.raises(DataError, match=r"`shape` does not apply to a folder of images .*`size`"):
        load(tmp_path, shape="2x8")


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.7z", "packed: unpack it"), ("a.csv.zst", "packed"), ("a.pkl", "pickle.*never reads"),
     ("a.loom", "scipy.sparse"), ("a.json", "as CSV or Parquet"), ("a.MP3", "sound"), ("a.mp4", "frames"),
     ("a.heic", "convert it"), ("a", "unknown format")],
)  # fmt: skip
def test_foreign_formats_are_named_with_a_remedy(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"data")
    with pytest.raises(DataError, match=message):
        load(tmp_path / name)


def test_an_empty_name_is_not_the_working_directory(tmp_path, monkeypatch):
    """A variable of the shell that is not set: vaekit fit "$DATA"."""
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        Image.fromarray(random(5, 4, 4)[i]).save(f"{i}.png")
    assert load(".").kind == "image"
    with pytest.raises(DataError, match="the name of the data is empty"):
        load("")


def test_a_path_that_a_run_could_not_store_is_refused(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    except OSError:
        pytest.skip("the file system needs UTF-8")
    np.save(tmp_path / os.fsdecode(b"caf\xe9") / "x.npy", random(9, 3))
    with pytest.raises(DataError, match=r"caf\\xe9/x\.npy is not UTF-8"):
        load(tmp_path / os.fsdecode(b"caf\xe9") / "x.npy")


def test_missing_values_and_rows_without_any_are_counted():
    x = np.random.default_rng(0).normal(size=(15, 4))
    assert from_arrays(x, missing="mask").notes == ()
    x[3], x[5, 1] = np.nan, np.nan
    assert from_arrays(x, missing="mask").notes == ("5 of 60 values are missing", "1 row without any value")


def test_whole_numbers_that_become_counts_are_noted():
    """They may be ages, or codes of categories."""
    x = np.random.default_rng(0).integers(0, 90, (15, 4))
    note = "whole numbers from 0 up are modelled as counts; `kind='vector'` models them as real numbers"
    assert from_arrays(x).notes == (note,)
    for other in (from_arrays(x, kind="counts"), from_arrays(x, kind="vector"), from_arrays(x - 1)):
        assert other.notes == ()
