"""Detection with a run: new files, holes, unseen categories, the stored threshold, the command line and ONNX."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from core_helpers import QUIET, blobs

import vaekit as vk
from vaekit.anomalies import held_out
from vaekit.anomalies.reasons import columns
from vaekit.anomalies.reference import FILE
from vaekit.anomalies.scoring import scores
from vaekit.cli import main
from vaekit.errors import ChoiceError, DataError
from vaekit.utils.files import read_tensors, write_tensors

COLUMNS = ["a", "b", "c", "kind", "same"]
KINDS = ["red", "green", "blue"]


def rows_of(n, seed):
    """Rows of a table: b is nearly 2 a, c is noise, kind has three values, same is constant."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    numbers = np.stack([a, 2 * a + 0.1 * rng.normal(size=n), rng.normal(size=n)], 1)
    return [[*map("{:.6f}".format, row), KINDS[rng.integers(3)], "7"] for row in numbers]


def write(path, rows, columns=COLUMNS):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("detect")


@pytest.fixture(scope="module")
def run(place):
    data = vk.load(write(place / "train.csv", rows_of(500, 0)), valid=0.1, test=0.3)
    return vk.fit(data, out=place / "run", steps=200, hidden=(32,), latent=3, seed=0, lr=0.01, **QUIET)


@pytest.fixture(scope="module")
def new(place):
    """40 rows like the others, then five unusual ones, with an id and a label that the model does not use."""
    rows = rows_of(45, 1)
    rows[40][1] = "9.0"  # b is far from 2 a
    rows[41][2] = "30"  # c alone
    rows[42][3] = "purple"  # no such kind
    rows[43][4] = "8"  # another value of the constant column
    rows[44][:3] = ["", "25", "0"]  # a is missing
    labelled = [[f"id{i}", *row, "bad" if i >= 40 else "good"] for i, row in enumerate(rows)]
    return write(place / "new.csv", labelled, ["id", *COLUMNS, "state"])


@pytest.fixture(scope="module")
def found(run, new):
    return run.detect(new, false_alarms=0.02, truth="state=bad", samples=30)


def test_unusual_rows_are_flagged_and_what_is_wrong_with_them_is_named(run, found):
    assert found.flagged[40:].all()
    assert found.flagged[:40].sum() <= 3  # 0.8 expected
    first = [found.reasons[i][0] for i in range(40, 45)]
    assert first[0].column in ("a", "b")
    assert first[1].column == "c"
    assert first[1].value == 30
    assert abs(first[1].expected) < 2
    assert (first[2].column, first[2].value) == ("kind", "purple")
    assert (first[3].column, first[3].value, first[3].expected) == ("same", 8, 7)
    assert first[4].column == "b"
    assert all(not reasons for reasons, flag in zip(found.reasons, found.flagged, strict=True) if not flag)
    for i in (42, 43):  # 1000 nats each, beside an ordinary rest
        assert -1100 < found.score[i] < -900
    n = held_out(run, 30).n
    assert found.held_out == n == 200
    assert found.p_value[40:].max() <= 0.02
    np.testing.assert_allclose(found.p_value * (n + 1), np.round(found.p_value * (n + 1)), atol=1e-6)
    assert found.measures[0]["name"] == "auroc"
    assert found.measures[0]["value"] > 0.95
    assert "5 of 45" in repr(found) or "6 of 45" in repr(found) or "7 of 45" in repr(found)


def test_a_complete_row_is_flagged_below_the_threshold(found):
    complete = np.arange(45) != 44
    np.testing.assert_array_equal(found.flagged[complete], found.score[complete] < found.threshold)


def test_the_result_as_a_frame(found):
    try:
        import pandas  # noqa: F401
    except ImportError:
        with pytest.raises(ChoiceError, match="to_frame needs pandas"):
            found.to_frame()
        return
    frame = found.to_frame()
    assert list(frame.columns)[:4] == ["index", "id", "state", "log_px"]
    np.testing.assert_array_equal(frame["flagged"], found.flagged)


def test_rows_with_holes_are_compared_with_held_out_rows_of_which_the_same_values_are_hidden(run, place):
    rows = rows_of(40, 5)
    for i in range(40):
        rows[i][i % 2] = ""
    path = write(place / "holes.csv", rows)
    found = run.detect(path, false_alarms=0.1, samples=30)
    read = run.read(path, unseen=True)
    held = held_out(run, 30)
    hidden = np.array([[True, False, False, False, False]])
    reference = np.concatenate([scores(run, run.observed(split), 30, hidden=hidden) for split in held.splits])
    at_most = (reference <= found.score[0]).sum()
    assert found.p_value[0] == pytest.approx((1 + at_most) / (held.n + 1), abs=0.006)  # rounding can move one row
    assert np.isnan(read.x[0, 0])
    assert found.flagged.mean() < 0.3


def test_held_out_rows_are_compared_with_the_others(run):
    held = held_out(run, 30)
    found = run.detect("test", false_alarms=0.05, samples=30)
    start = len(run.data.valid)
    for i in (0, 7):
        others = np.delete(held.score, start + i)
        assert found.p_value[i] == pytest.approx((1 + (others <= found.score[i]).sum()) / held.n)
    assert found.notes == ()
    assert run.detect("train", false_alarms=0.05, samples=30, reasons=False).notes[0].startswith("the train rows")


def test_the_threshold_travels_with_the_run(run, new, found, place):
    """Copied elsewhere, without its data, the run detects as before; with other weights it asks for its data."""
    copied = place / "copied"
    shutil.copytree(run.path, copied)
    config = json.loads((copied / "run.json").read_text())
    config["data"]["source"] = str(place / "gone.csv")
    (copied / "run.json").write_text(json.dumps(config))
    complete = place / "complete.csv"
    write(complete, rows_of(30, 3))
    again, first = (r.detect(complete, false_alarms=0.02, samples=30) for r in (vk.open(copied), run))
    np.testing.assert_array_equal(again.p_value, first.p_value)
    assert again.reasons == first.reasons
    moved = vk.open(copied)
    moved.model.likelihood.net.out.bias.data += 0.1
    with pytest.raises(DataError, match=r"the threshold is not stored with .* and its data cannot be read"):
        moved.detect(complete, samples=30)
    (copied / FILE).write_bytes(b"no")
    with pytest.raises(vk.errors.RunError, match="not a whole safetensors file"):
        vk.open(copied).detect(complete)
    with pytest.raises(ChoiceError, match=r"needs 999 held-out rows or more, and there are 200"):
        run.detect(complete, false_alarms=0.001, samples=30)


def test_without_a_rate_it_is_the_smallest_that_few_held_out_rows_support(run, place, monkeypatch):
    monkeypatch.setattr("vaekit.anomalies.detection.FALSE_ALARMS", 0.001)
    found = run.detect("test", reasons=False, samples=30)
    assert found.false_alarms == 1 / found.held_out > 0.001
    assert found.flagged.any() == (found.p_value.min() == found.false_alarms)
    new = write(place / "few.csv", rows_of(3, 5))
    assert run.detect(new, reasons=False, samples=30).false_alarms == 1 / (found.held_out + 1)
    assert "instead of 0.001, which needs 999 held-out rows" in found.notes[0]


def test_a_run_that_cannot_be_written_detects_too(run, place, monkeypatch):
    monkeypatch.setattr("vaekit.anomalies.reference.is_writable", lambda folder: False)
    copied = place / "read-only"
    shutil.copytree(run.path, copied)
    (copied / FILE).unlink()
    opened = vk.open(copied)
    found = opened.detect(write(place / "few.csv", rows_of(9, 6)), false_alarms=0.05, samples=5, reasons=False)
    assert len(found.score) == 9
    assert not (copied / FILE).exists()
    assert FILE in opened.unstored


def test_the_columns_that_drift_are_named(run, place, capsys):
    rows = rows_of(60, 11)
    for row in rows:
        row[2], row[3] = f"{float(row[2]) + 2:.6f}", "purple" if row[3] == "red" else row[3]
    path = write(place / "drift.csv", rows)
    drift = run.detect(path, false_alarms=0.05, samples=5, reasons=False).drift
    assert [c.column for c in drift.drifting] == ["c", "kind"]
    assert drift.p_value < 1e-6
    assert main(["detect", str(run.path), str(path), "--samples", "5", "--out", str(place / "f.csv")]) == 0
    assert "columns that differ most: c (p = " in capsys.readouterr().out
    assert not run.detect(write(place / "same.csv", rows_of(60, 12)), samples=5, reasons=False).drift.drifting


def test_columns_are_compared_by_a_record_of_an_earlier_version_if_the_data_are_there(run, place):
    """Such a record lacks the values of the columns: they are read again, or a note says that they are not compared."""
    run.detect("test", false_alarms=0.05, samples=5)
    copied, file = place / "earlier", place / "drift.csv"
    shutil.copytree(run.path, copied)
    if not file.exists():
        write(file, [[row[0], row[1], f"{float(row[2]) + 2:.6f}", *row[3:]] for row in rows_of(60, 11)])
    stored, meta = read_tensors(copied / FILE)
    assert "values" in stored
    old = {name: tensor for name, tensor in stored.items() if name != "values"}
    write_tensors(copied / FILE, old, meta)
    found = vk.open(copied).detect(file, samples=5, false_alarms=0.05)
    assert found.drift.columns == run.detect(file, samples=5, false_alarms=0.05).drift.columns
    assert found.drift.drifting[0].column == "c"
    torch.testing.assert_close(read_tensors(copied / FILE)[0]["values"], stored["values"], equal_nan=True)
    write_tensors(copied / FILE, old, meta)
    config = json.loads((copied / "run.json").read_text())
    config["data"]["source"] = str(place / "gone.csv")
    (copied / "run.json").write_text(json.dumps(config))
    found = vk.open(copied).detect(file, samples=5, false_alarms=0.05)
    assert (found.drift.columns, found.drift.p_value < 1e-6) == ((), True)
    assert any("not compared one by one" in note and "gone.csv" in note for note in found.notes)
    (copied / "splits.safetensors").unlink()  # the record needs no data
    found = vk.open(copied).detect(file, samples=5, false_alarms=0.05)
    assert any("not compared one by one" in note for note in found.notes)


def test_the_rows_do_not_depend_on_their_order(run, place):
    rows = rows_of(20, 9)
    one, other = write(place / "one.csv", rows), write(place / "other.csv", rows[::-1])
    first, second = (run.detect(path, false_alarms=0.05, samples=30, reasons=False) for path in (one, other))
    np.testing.assert_allclose(first.score, second.score[::-1], atol=1e-4)


def test_the_command_line_writes_flags_reasons_and_carried_columns(run, new, place, capsys):
    out = place / "flagged.csv"
    arguments = ["--false-alarms", "0.02", "--samples", "30", "--truth", "state=bad", "--out", str(out)]
    assert main(["detect", str(run.path), str(new), *arguments]) == 0
    said = capsys.readouterr().out
    assert "of 45 rows flagged; about 0.9 expected if all are like the held-out rows" in said
    assert "AUROC" in said
    assert "drift: " in said
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"id{i}" for i in range(45)]
    assert list(rows[0])[:7] == ["index", "id", "state", "log_px", "percentile", "p_value", "flagged"]
    assert (rows[42]["flagged"], rows[42]["reason_1"], rows[42]["reason_1_value"]) == ("1", "kind", "purple")
    assert rows[0]["reason_1"] == ""
    assert main(["detect", str(run.path), str(new), *arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.rsplit("}", 1)[0] + "}")
    assert (told["n"], told["held_out"], told["false_alarms"]) == (45, 200, 0.02)
    for wrong, why in (
        (["--false-alarms", "2"], "--false-alarms must lie between 0 and 1"),
        (["--false-alarms", "0.001"], "--false-alarms 0.001 needs 999 held-out rows"),
        (["--truth", "nobody"], "no column 'nobody'"),
        (["--maps", "m.png"], "--maps is for images"),
    ):
        assert main(["detect", str(run.path), str(new), *wrong, "--out", str(out)]) == 2
        assert why in capsys.readouterr().err


@pytest.mark.usefixtures("onnx_operators_once")
def test_the_exported_graph_flags_the_same_rows(run, place):
    pytest.importorskip("onnx", reason="needs vaekit[onnx]")
    runtime = pytest.importorskip("onnxruntime", reason="needs vaekit[onnx]")
    rows = rows_of(40, 4)
    rows[3][2] = "30"
    path = write(place / "graph.csv", rows)
    found = run.detect(path, false_alarms=0.05)
    (file,) = run.export(place / "graphs", graphs=["detect"])[:1]
    session = runtime.InferenceSession(str(file))
    log_px, p = session.run(None, {"x": run.read(path).x.astype(np.float32)})
    np.testing.assert_allclose(log_px, found.score, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(p, found.p_value, atol=0.006)  # float32 can move a row past one of 200
    unknown = write(place / "unknown.csv", [[*row[:3], "purple", "7"] for row in rows[:5]])
    purple = run.detect(unknown, false_alarms=0.05)
    for code in (3, -1, np.nan):  # any code beyond the known ones
        x = run.read(path).x.astype(np.float32)
        x[:5, 3] = code
        log_px, p = session.run(None, {"x": x})
        np.testing.assert_allclose(log_px[:5], purple.score, rtol=0, atol=0.05)
        np.testing.assert_allclose(log_px[5:], found.score[5:], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(p[:5], 1 / 201, rtol=1e-5)
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["thresholds"])["0.05"] == pytest.approx(found.threshold)
    assert told["held_out_rows"] == "200"


# --- other data -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(place):
    data = vk.from_arrays(blobs(120, 6, 5), valid=0.2, test=0.4)
    return vk.fit(data, out=place / "images", steps=60, hidden=(16,), latent=2, **QUIET)


def test_images_have_maps(images, place, capsys):
    x = blobs(20, 6, 5, seed=5)
    x[0, 2:4, 2:4] = 255 - x[0, 2:4, 2:4]
    x[1] = 255 - x[1]
    found = images.detect(x, false_alarms=0.05, samples=10)
    assert found.flagged[1]
    assert found.reasons == ()
    assert found.maps.shape == (found.flagged.sum(), 1, 6, 5)
    assert found.maps[np.flatnonzero(found.flagged).tolist().index(1)].mean() > 0
    np.save(place / "x.npy", x)
    for name in ("maps.png", "maps.npz"):
        words = [
            "--false-alarms",
            "0.05",
            "--samples",
            "10",
            "--maps",
            str(place / name),
            "--out",
            str(place / "f.csv"),
        ]
        assert main(["detect", str(images.path), str(place / "x.npy"), *words]) == 0, capsys.readouterr().err
    with np.load(place / "maps.npz") as arrays:
        np.testing.assert_allclose(arrays["map"], found.maps, atol=1e-4)
        np.testing.assert_array_equal(arrays["row"], np.flatnonzero(found.flagged))


def test_missing_values_of_a_run_trained_with_them(place):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(600, 1))
    x = (z * [1, 2, -1, 0.5] + 0.1 * rng.normal(size=(600, 4))).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    x = x[~np.isnan(x).all(1)]
    data = vk.from_arrays(x[:400], missing="mask", valid=0.1, test=0.4)
    run = vk.fit(data, out=place / "missing", steps=150, hidden=(16,), latent=2, lr=0.01, **QUIET)
    new = x[400:].copy()
    usual = run.detect(new, false_alarms=0.1, samples=10, reasons=False)
    m = len(new)
    assert abs(usual.flagged.mean() - 0.1) < 4 * np.sqrt(0.1 * 0.9 * (1 / m + 1 / usual.held_out))
    assert "rows that lack the same values" in usual.unit
    # the p-values do not depend on how many values a row has, although log p(x) does
    count = np.isnan(new).sum(1)
    assert abs(np.corrcoef(count, usual.p_value)[0, 1]) < 0.3
    row = np.flatnonzero(count == 1)[0]
    new[row, int(np.flatnonzero(~np.isnan(new[row]))[0])] += 20
    assert run.detect(new[row : row + 1], false_alarms=0.1, samples=10).flagged[0]
    hidden = np.zeros((20, 4), bool)
    hidden[:, 2] = True  # beside the values that are missing
    part = columns(run, run.observed(x[400:420]), np.arange(20), hidden=hidden)
    np.testing.assert_array_equal(np.isnan(part.log_p), np.isnan(x[400:420]) | hidden)


def test_rows_of_a_conditional_run_are_compared_with_their_class(place):
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 500)
    x = (rng.normal(size=(500, 3)) * np.where(y, 5.0, 0.5)[:, None]).astype(np.float32)
    data = vk.from_arrays(x, label=y, valid=0.1, test=0.4)
    run = vk.fit(data, "conditional", out=place / "conditional", steps=200, hidden=(16,), latent=2, **QUIET)
    new = (rng.normal(size=(400, 3)) * np.repeat([0.5, 5.0], 200)[:, None]).astype(np.float32)
    found = run.detect(new, labels=np.repeat([0, 1], 200), false_alarms=0.1, samples=10, reasons=False)
    for half in (slice(0, 200), slice(200, 400)):  # the rate holds in each class
        assert abs(found.flagged[half].mean() - 0.1) < 4 * np.sqrt(0.09 * (1 / 200 + 1 / 125))
    few = run.detect(new, labels=np.repeat([0, 1], 200), false_alarms=0.005, samples=10, reasons=False)
    assert "2 classes of these rows have fewer than 199 held-out rows" in few.notes[0]


def test_an_autoencoder_is_scored_by_log_p_of_x_given_its_code(place):
    x = np.random.default_rng(2).normal(size=(200, 4)).astype(np.float32)
    run = vk.fit(vk.from_arrays(x, test=0.4), "ae", out=place / "ae", steps=50, hidden=(8,), latent=1, **QUIET)
    new = np.concatenate([x[:5], x[:5] + 40])
    found = run.detect(new, false_alarms=0.05)
    assert found.flagged.tolist()[5:] == [True] * 5
    assert found.unit == "log p(x|z)"
    assert found.reasons[5][0].column in ("x0", "x1", "x2", "x3")


def test_a_category_that_only_held_out_rows_have_counts_as_unknown_to_them_and_to_new_rows(place):
    rows = rows_of(60, 8)
    for i in range(60):
        rows[i][3] = "gold" if i in (58, 59) else KINDS[i % 2]
    splits = {"train": np.arange(20), "valid": np.arange(20, 40), "test": np.arange(40, 60)}
    data = vk.load(write(place / "rare.csv", rows), splits=splits)
    run = vk.fit(data, out=place / "rare", steps=5, hidden=(8,), latent=2, **QUIET)
    held = held_out(run, 5)
    assert (held.score < -900).tolist() == [False] * 38 + [True] * 2
    found = run.detect(write(place / "gold.csv", [rows[58], rows[0]]), false_alarms=0.1, samples=5)
    assert found.reasons[0][0].column == "kind"
    # two of 40 held-out rows have an unknown category, too
    assert 1 / 41 <= found.p_value[0] <= 3 / 41
    own = run.detect(place / "rare.csv", false_alarms=0.1, samples=5, reasons=False)
    assert "these are the run's own data" in own.notes[0]


def test_held_out_rows_in_groups_count_as_groups(place):
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(60), 5)
    x = (rng.normal(size=(60, 2))[group] + 0.1 * rng.normal(size=(300, 2))).astype(np.float32)
    run = vk.fit(
        vk.from_arrays(x, columns={"person": group}, group="person", test=0.4),
        out=place / "grouped",
        steps=5,
        hidden=(8,),
        latent=1,
        **QUIET,
    )
    found = run.detect(x[:20] + 50, false_alarms=0.1, samples=5, reasons=False)
    held = held_out(run, 5)
    assert held.n == 5 * found.held_out
    assert found.drift is None
    assert "groups, which count as one row each" in found.notes[0]
    np.testing.assert_allclose(found.p_value, 1 / (found.held_out + 1))
