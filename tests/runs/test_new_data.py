"""New data given to a trained run: mapped by the run's own names, or refused by name."""

import csv

import numpy as np
import pytest
from PIL import Image

import vaekit as vk
from vaekit.cli import main
from vaekit.data import read_rows
from vaekit.data.condition import Condition, class_codes
from vaekit.errors import ChoiceError, DataError, RunError

QUIET = {"progress": False, "compile": "off"}
TINY = {"latent": 2, "hidden": (8,), "steps": 40, **QUIET}
OUT = {"score": "scores.csv", "encode": "z.npz", "fill": "filled.csv"}
GRADES = np.array(["low", "mid", "high"])


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write(path, columns):
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(columns)
        out.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("new-data")


@pytest.fixture(scope="module")
def graded(folder):
    """A run conditional on the label of a table, whose classes differ much."""
    rng = np.random.default_rng(0)
    g = rng.integers(0, 3, 240)
    a, b = 6.0 * g + rng.normal(size=240), rng.normal(size=240) - 6 * g
    path = write(folder / "grades.csv", {"a": a.round(3), "b": b.round(3), "grade": GRADES[g]})
    data = vk.load(path, label="grade")
    return vk.fit(data, "vae", condition="label", out=folder / "graded", lr=0.02, **TINY | {"steps": 300})


@pytest.fixture(scope="module")
def new(folder):
    """Rows of a subset of the classes, in another order than the alphabet's."""
    return write(
        folder / "new.csv", {"a": [12.1, 11.8, 0.1], "b": [-12.0, -11.7, 0.2], "grade": ["high", "high", "low"]}
    )


X = np.array([[12.1, -12.0], [11.8, -11.7], [0.1, 0.2]], np.float32)


def test_classes_are_mapped_by_name_whatever_a_file_has_of_them(graded, new, folder, capsys):
    """log p(x | c) of a row is one number, whichever rows and classes stand beside it."""
    run = str(graded.path)
    assert main(["score", run, str(new), "--out", str(folder / "s.csv"), "--samples", "20"]) == 0
    all_rows = [float(row["log_px"]) for row in read(folder / "s.csv")]
    expected = graded.score(X, samples=20, labels=["high", "high", "low"])
    np.testing.assert_allclose(all_rows, expected, atol=2e-6)
    swapped = graded.score(X, samples=20, labels=["low", "low", "high"])
    assert (expected > swapped + 5).all()  # the classes do matter
    for i, row in enumerate(read(new)):
        one = write(folder / "one.csv", {name: [value] for name, value in row.items()})
        assert main(["score", run, str(one), "--out", str(folder / "s.csv"), "--samples", "20"]) == 0
        # the noise belongs to a row's place: the estimate differs a little, the class does not
        assert float(read(folder / "s.csv")[0]["log_px"]) == pytest.approx(expected[i], abs=1.0)
    codes = [graded.spec.classes.index(name) for name in ("high", "high", "low")]
    np.testing.assert_array_equal(graded.score(X, samples=20, labels=codes), expected)
    assert main(["encode", run, str(new), "--out", str(folder / "z.npz")]) == 0
    with np.load(folder / "z.npz") as held:
        np.testing.assert_array_equal(held["z"], graded.encode(X, labels=np.array(["high", "high", "low"])))
        np.testing.assert_array_equal(held["z"][:, 2:].argmax(1), codes)
    assert main(["evaluate", run, str(new), "--samples", "20", "--json"]) == 0
    measured = {m["name"]: m for m in vk.open(run).evaluate(X, samples=20, labels=["high", "high", "low"])}
    assert measured["log_px_iw"]["value"] == pytest.approx(expected.mean(), abs=1e-5)
    assert f"{measured['log_px_iw']['value']:.6f}"[:7] in capsys.readouterr().out
    assert not (graded.path / "metrics.json").exists()  # of other data


def test_what_a_conditional_run_cannot_know_is_refused_by_name_and_row(graded, folder, capsys):
    run = str(graded.path)
    unknown = write(folder / "u.csv", {"a": [1, 2, 3], "b": [1, 2, 3], "grade": ["low", "worst", "mid"]})
    empty = write(folder / "e.csv", {"a": [1, 2, 3], "b": [1, 2, 3], "grade": ["low", "mid", ""]})
    bare = write(folder / "b.csv", {"a": [1, 2, 3], "b": [1, 2, 3]})
    for path, said in (
        (unknown, "row 1 is of class 'worst', which this run was not trained on: choose from high, low, mid"),
        (empty, "row 2 has no label"),
        (bare, "--label high"),
    ):
        for command in ("score", "encode", "evaluate", "fill"):
            out = () if command == "evaluate" else ("--out", str(folder / OUT[command]))
            assert main([command, run, str(path), *out]) == 2
            assert said in capsys.readouterr().err
    for labels, said in (
        (["low", "worst", "mid"], "'worst'"),
        ([0, 1, 3], "row 2 is of class 3"),
        (["low", "mid"], r"shape \(3,\)"),
        (None, "`labels`"),
    ):
        with pytest.raises(ChoiceError, match=said):
            graded.score(X, samples=5, labels=labels)
    # one class of all rows, as the message says
    assert main(["score", run, str(bare), "--label", "mid", "--out", str(folder / "m.csv"), "--samples", "5"]) == 0
    x = np.array([[1, 1], [2, 2], [3, 3]], np.float32)
    found = [float(row["log_px"]) for row in read(folder / "m.csv")]
    np.testing.assert_allclose(found, graded.score(x, samples=5, labels="mid"), atol=2e-6)


def test_a_split_is_coded_by_the_names_of_the_run(graded):
    """The same rows under names in another order, as somebody's own `Data`."""
    names = ["mid", "high", "low"]
    own, train = graded.data, graded.data.train
    code = np.array([names.index(own.label_names[i]) for i in train.label])
    data = vk.from_arrays(train[:], label=code, label_names=names)
    condition = graded.composition.condition
    c = condition.of(data.train, data.label_names)
    want = np.array(own.label_names)[train.label[data.train.index]]
    assert np.array(condition.names)[c.argmax(1)].tolist() == want.tolist()


def test_class_folders_that_are_a_subset(folder, capsys):
    rng = np.random.default_rng(1)
    shades = {"apple": 40, "berry": 120, "cherry": 220}
    images = {
        name: (shade + rng.normal(0, 4, (12, 6, 6))).clip(0, 255).astype(np.uint8) for name, shade in shades.items()
    }

    def save(place, classes):
        for name in classes:
            (place / name).mkdir(parents=True)
            for i, image in enumerate(images[name]):
                Image.fromarray(image).save(place / name / f"{i:02d}.png")
        return place

    data = vk.load(save(folder / "fruit", shades))
    run = vk.fit(data, "vae", condition="label", likelihood="gaussian", out=folder / "fruits", **TINY)
    whole = np.concatenate([images["berry"], images["cherry"]])
    expected = run.score(whole, samples=10, labels=["berry"] * 12 + ["cherry"] * 12)
    for place, some in (
        (save(folder / "two", ("berry", "cherry")), slice(0, 24)),
        (save(folder / "one", ("berry",)), slice(0, 12)),
        (folder / "one" / "berry", slice(0, 12)),
    ):
        assert main(["score", str(run.path), str(place), "--samples", "10", "--out", str(folder / "f.csv")]) == 0
        found = [float(row["log_px"]) for row in read(folder / "f.csv")]
        np.testing.assert_allclose(found, expected[some], atol=2e-6)


def test_label_arrays_are_read_by_name_or_by_value(folder):
    rng = np.random.default_rng(2)
    digit = rng.choice([3, 7, 9], 150)
    x = (digit[:, None] + rng.normal(0, 0.2, (150, 3))).astype(np.float32)
    np.savez(folder / "n.npz", x=x, label=digit)
    run = vk.fit(vk.load(folder / "n.npz"), "vae", condition="label", out=folder / "numbers", **TINY)
    np.savez(folder / "m.npz", x=x[digit != 3][:8], label=digit[digit != 3][:8])
    assert main(["score", str(run.path), str(folder / "m.npz"), "--samples", "5", "--out", str(folder / "n.csv")]) == 0
    expected = run.score(x[digit != 3][:8], samples=5, labels=digit[digit != 3][:8])
    np.testing.assert_allclose([float(row["log_px"]) for row in read(folder / "n.csv")], expected, atol=2e-6)
    np.savez(folder / "k.npz", x=x[:4], label=np.array([1, 0, 1, 0]), label_names=np.array(["9", "7"]))
    assert main(["encode", str(run.path), str(folder / "k.npz"), "--out", str(folder / "k-z.npz")]) == 0
    with np.load(folder / "k-z.npz") as held:
        assert held["z"][:, 2:].argmax(1).tolist() == [1, 2, 1, 2]
    with pytest.raises(ChoiceError, match="row 0 is of class 0"):  # a place is no name here
        run.score(x[:2], samples=5, labels=[0, 1])


def test_idx_pairs_and_single_rows_of_files(folder, capsys):
    """Labels beside images as in MNIST's files, with only some classes; and one row of a file, with its class."""

    def idx(path, array):
        sizes = b"".join(int(size).to_bytes(4, "big") for size in array.shape)
        path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())

    def pair(name, images, label):
        (folder / name).mkdir()
        idx(folder / name / "train-images-idx3-ubyte", images)
        idx(folder / name / "train-labels-idx1-ubyte", label)
        return folder / name

    rng = np.random.default_rng(6)
    digit = rng.choice([2, 5, 7], 60)
    images = 30 * digit[:, None, None] + rng.integers(0, 9, (60, 5, 5))
    data = vk.load(pair("idx", images, digit))
    run = vk.fit(data, "vae", condition="label", likelihood="gaussian", out=folder / "idx-run", **TINY)
    some = digit != 2
    where = ["2", "5", "7"].index
    expected = [where(str(d)) for d in digit[some]]
    assert (
        main(["encode", str(run.path), str(pair("idx2", images[some], digit[some])), "--out", str(folder / "i.npz")])
        == 0
    )
    with np.load(folder / "i.npz") as held:
        assert held["z"][:, 2:].argmax(1).tolist() == expected
    np.savez(folder / "i-rows.npz", x=images[some].astype(np.uint8), label=digit[some])
    ends = [f"{folder / 'i-rows.npz'}:{i}" for i in (0, 3)]
    assert main(["interpolate", str(run.path), *ends, "--out", str(folder / "i.npz")]) == 0
    with np.load(folder / "i.npz") as held:
        assert held["z"][[0, -1], 2:].argmax(1).tolist() == [expected[0], expected[3]]
    np.save(folder / "i.npy", images[:2].astype(np.uint8))
    capsys.readouterr()
    assert main(["interpolate", str(run.path), f"{folder / 'i.npy'}:0", "1", "--out", str(folder / "i.npz")]) == 2
    assert "--label 2" in capsys.readouterr().err
    ends = images[:2].astype(np.uint8)
    assert run.interpolate(ends[0], ends[1], steps=3, labels=5).shape == (3, 1, 5, 5)


def test_attributes_of_new_images_come_from_their_own_table(folder, capsys):
    """Where all new images have the attribute, and it was written as -1 and 1 in training."""
    rng = np.random.default_rng(7)
    for name, n in (("faces", 40), ("new-faces", 4)):
        (folder / name).mkdir()
        for i in range(n):
            Image.fromarray(rng.integers(0, 255, (6, 6), dtype=np.uint8)).save(folder / name / f"{i:02d}.png")
        hat = [1] * n if n == 4 else [(-1, 1)[i % 2] for i in range(n)]
        table = {
            "file": [f"{i:02d}.png" for i in range(n)],
            "hat": hat,
            "beard": [(0, 1)[i // 2 % 2] for i in range(n)],
        }
        write(folder / name / "about.csv", table)
    data = vk.load(folder / "faces", table="about.csv")
    run = vk.fit(data, "vae", condition="attributes", likelihood="gaussian", out=folder / "faces-run", **TINY)
    out, new = ["--out", str(folder / "a.npz")], folder / "new-faces"
    assert main(["encode", str(run.path), str(new), *out]) == 0  # a table of the same name, beside the images
    with np.load(folder / "a.npz") as held:
        assert held["z"][:, 2:].tolist() == [[1, 0], [1, 0], [1, 1], [1, 1]]
    (new / "about.csv").rename(folder / "other.csv")
    capsys.readouterr()
    assert main(["encode", str(run.path), str(new), *out]) == 2
    assert "--label 1,0" in capsys.readouterr().err
    assert main(["encode", str(run.path), str(new), "--table", str(folder / "other.csv"), *out]) == 0
    assert main(["encode", str(run.path), str(new), "--label", "0,1", *out]) == 0
    with np.load(folder / "a.npz") as held:
        assert held["z"][:, 2:].tolist() == [[0, 1]] * 4


def test_values_that_name_classes():
    assert class_codes(np.array(["b", "a", "c", ""]), ("a", "b")).tolist() == [1, 0, -1, -1]
    assert class_codes(np.array([3.0, 1.0, np.nan]), ("1", "3")).tolist() == [1, 0, -1]
    assert class_codes(np.array(["3.0", "1_0", "007"]), ("3", "10", "7")).tolist() == [0, -1, 2]
    assert class_codes(np.array([2, 0, 3]), ("class 0", "class 1", "class 2")).tolist() == [2, 0, -1]


def test_attributes_are_read_as_they_were_written():
    """-1 and 1, or 0 and 1: also where new rows have only one of the two."""
    condition = Condition("attributes", ("hat", "beard"))
    for hat, want in (([-1, -1], [0, 0]), ([1, 1], [1, 1]), ([0, 1], [0, 1]), ([-1, 1], [0, 1])):
        c = condition.encoded(condition.carried(None, {"hat": np.array(hat), "beard": np.array([0, 1])}))
        np.testing.assert_array_equal(c, np.stack([want, [0, 1]], 1))
    for hat, said in (([-1, 0], "row 1 is 0, expected -1 or 1"), ([0, 2], "row 1 is 2, expected 0 or 1")):
        with pytest.raises(ChoiceError, match=said):
            condition.carried(None, {"hat": np.array(hat), "beard": np.array([0, 1])})
    with pytest.raises(ChoiceError, match="column 'beard'"):
        condition.carried(None, {"hat": np.array([0, 1])})


# --- a column of the table itself as the condition --------------------------------------------------------------


@pytest.fixture(scope="module")
def birds(folder):
    rng = np.random.default_rng(3)
    k = rng.integers(0, 3, 240)
    names = np.array(["adelie", "gentoo", "chinstrap"])
    columns = {"bill": (40 + 6 * k + rng.normal(size=240)).round(1), "species": names[k], "flipper": 190 + 9 * k}
    write(folder / "birds.csv", columns | {"flipper": (columns["flipper"] + rng.normal(size=240)).round(1)})
    words = ["--latent", "2", "--hidden", "8", "--steps", "300", "--compile", "off", "--lr", "0.02"]
    assert (
        main(["fit", str(folder / "birds.csv"), "--condition", "species", "--out", str(folder / "birds"), *words]) == 0
    )
    return folder / "birds"


def test_a_column_of_the_table_is_the_condition(birds, folder, capsys):
    """It leaves what is modelled, and everything that takes a condition takes its names."""
    run = vk.open(birds)
    assert [column.name for column in run.spec.columns] == ["bill", "flipper"]
    assert run.composition.condition.names == ("adelie", "chinstrap", "gentoo")
    assert run.data.shape == (2,)
    x = np.array([[52.0, 208.0], [46.0, 199.0]], np.float32)
    expected = run.score(x, samples=20, labels=["chinstrap", "gentoo"])
    assert (expected > run.score(x, samples=20, labels=["adelie", "chinstrap"]) + 5).all()
    new = write(folder / "nb.csv", {"species": ["chinstrap", "gentoo"], "flipper": [208, 199], "bill": [52, 46]})
    assert main(["score", str(birds), str(new), "--samples", "20", "--out", str(folder / "nb-s.csv")]) == 0
    np.testing.assert_allclose([float(r["log_px"]) for r in read(folder / "nb-s.csv")], expected, atol=2e-6)
    means = {name: run.sample(200, labels=name).mean(0) for name in run.composition.condition.names}
    assert means["adelie"][0] < means["gentoo"][0] < means["chinstrap"][0]
    assert main(["sample", str(birds), "-n", "3", "--label", "gentoo", "--out", str(folder / "nb.npz")]) == 0
    with np.load(folder / "nb.npz") as held:
        assert held["z"][:, 2:].argmax(1).tolist() == [2, 2, 2]
    assert main(["evaluate", str(birds), "--samples", "5"]) == 0
    holes = write(folder / "hb.csv", {"bill": ["", "46"], "flipper": [208, ""], "species": ["chinstrap", "gentoo"]})
    assert main(["fill", str(birds), str(holes), "--out", str(folder / "hb-f.csv")]) == 0
    filled = read(folder / "hb-f.csv")
    assert float(filled[0]["bill"]) == pytest.approx(52, abs=3)
    assert float(filled[1]["flipper"]) == pytest.approx(199, abs=3)
    lacking = write(folder / "lb.csv", {"bill": [52], "flipper": [208]})
    capsys.readouterr()
    assert main(["score", str(birds), str(lacking), "--out", str(folder / "no.csv")]) == 2
    told = capsys.readouterr().err
    assert "column 'species'" in told
    assert "--label adelie" in told


def test_the_same_from_python(folder, birds, tmp_path):
    """`Data` as they were loaded, resumed as trained: the run takes the column out again."""
    data = vk.load(folder / "birds.csv")
    assert data.shape == (3,)
    run = vk.fit(data, "vae", condition="species", out=tmp_path / "run", **TINY | {"steps": 5})
    assert run.spec.shape == (2,)
    assert vk.open(run.path, data=data).data.shape == (2,)
    assert vk.fit(data, "vae", condition="species", out=run.path, resume=True, **TINY | {"steps": 5}).data.shape == (2,)
    numbers = vk.fit(data, "vae", condition="bill", out=tmp_path / "numbers", **TINY | {"steps": 5})
    new = numbers.read(folder / "birds.csv")
    assert new.x.shape[1:] == numbers.spec.shape == (2,)
    bill = np.array([float(row["bill"]) for row in read(folder / "birds.csv")])
    np.testing.assert_array_equal(
        numbers.score(new, n=5, samples=3), numbers.score(new.x, labels={"bill": bill}, n=5, samples=3)
    )


# --- rows of tables come back as rows of tables -------------------------------------------------------------------


@pytest.fixture(scope="module")
def people(folder):
    """Whole numbers in a range, categories, an identifier that is not modelled, and a label."""
    rng = np.random.default_rng(4)
    n = 300
    columns = {
        "person": [f"00{i}" for i in range(n)],
        "age": rng.integers(18, 90, n),
        "gain": np.maximum(0, rng.normal(100, 400, n)).astype(int),
        "x": rng.normal(size=n).round(2),
        "kind": np.array(["a", "b", "c"])[rng.integers(0, 3, n)],
        "grade": GRADES[rng.integers(0, 3, n)],
    }
    write(folder / "people.csv", columns)
    words = ["--label", "grade", "--drop", "person", "--latent", "2", "--hidden", "8", "--steps", "60"]
    run = folder / "people"
    assert main(["fit", str(folder / "people.csv"), "--out", str(run), "--compile", "off", *words]) == 0
    return run


def test_samples_of_a_table_are_draws_unless_means_are_asked_for(people, folder):
    run, out = vk.open(people), folder / "drawn.csv"
    rows = {}
    for option in ("", "--noise", "--mean"):
        assert main(["sample", str(people), "-n", "300", *option.split(), "--out", str(out)]) == 0
        rows[option] = out.read_text()
    assert rows[""] == rows["--noise"] != rows["--mean"]
    drawn, means = run.sample(300), run.sample(300, noise=False)
    np.testing.assert_array_equal(drawn, run.sample(300, noise=True))
    np.testing.assert_array_equal(means, run.as_rows(run.decode(run.sample_latents(300))))
    assert drawn[:, 2].std() > 1.5 * means[:, 2].std()
    given = {"age": float(drawn[0, 0])}
    np.testing.assert_array_equal(run.sample(5, given=given), run.sample(5, given=given, noise=True))


def test_whole_numbers_stay_whole_and_within_their_range(people, folder):
    run = vk.open(people)
    age, gain = (next(c for c in run.spec.columns if c.name == name) for name in ("age", "gain"))
    assert age.integer
    assert (gain.low, gain.high) == (0, max(int(row["gain"]) for row in read(folder / "people.csv")))
    assert main(["sample", str(people), "-n", "200", "--noise", "--out", str(folder / "p.csv")]) == 0
    found = read(folder / "p.csv")
    assert {row["age"].isdigit() and row["gain"].isdigit() for row in found} == {True}
    assert all(age.low <= int(row["age"]) <= age.high for row in found)
    assert main(["sample", str(people), "-n", "2000", "--noise", "--beyond-range", "--out", str(folder / "p.csv")]) == 0
    beyond = read(folder / "p.csv")
    assert max(int(row["gain"]) for row in beyond) > gain.high
    x, free = run.sample(2000, noise=True), run.sample(2000, noise=True, beyond_range=True)
    assert [int(row["gain"]) for row in beyond] == free[:, 1].tolist()
    np.testing.assert_array_equal(x[:, 1], free[:, 1].clip(gain.low, gain.high))
    assert (x[:, :2] == x[:, :2].round()).all()
    assert (x[:, 2] != x[:, 2].round()).any()


LINES = [  # columns in another order, one that the run does not know, blanks and digits as somebody wrote them
    "note,kind,x,gain,age,grade,person",
    '"one, ""quoted""",a,1.50,0,33,low,0007',
    ",b,-0.3, 181,,high,0012",
    "x,,NA,7.0,40,mid,0003",
]


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_fill_gives_back_the_file_with_its_holes_filled(people, folder, delimiter, capsys):
    """Text for text: every column, in the file's order, as it stood there; for a run that was trained without holes."""
    rows = list(csv.reader(LINES))
    with open(folder / "h.csv", "w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    assert main(["fill", str(people), str(folder / "h.csv"), "--out", str(folder / "f.csv")]) == 0
    with open(folder / "f.csv", newline="") as file:
        filled = list(csv.reader(file, delimiter=delimiter))
    holes = {(2, 4), (3, 1), (3, 2)}
    assert len(filled) == len(rows)
    for i, (row, made) in enumerate(zip(rows, filled, strict=True)):
        assert len(row) == len(made)
        for j, (cell, new) in enumerate(zip(row, made, strict=True)):
            assert (new == cell) == ((i, j) not in holes)
    assert 18 <= int(filled[2][4]) <= 89
    assert filled[3][1] in "abc"
    float(filled[3][2])
    assert "3 values filled in, in 2 of 3 rows" in capsys.readouterr().err


def test_messages_count_the_rows_of_the_file(people, folder, capsys):
    """From 0, whichever rows are worked on."""
    lines = [*LINES[:2], *LINES[1:2] * 3, *LINES[2:]]  # the first hole is in row 4
    (folder / "r.csv").write_text("\n".join(lines) + "\n")
    assert main(["score", str(people), str(folder / "r.csv"), "--out", str(folder / "s.csv")]) == 2
    assert "row 4, column 'age'" in capsys.readouterr().err
    lines[5] = lines[5].replace(" 181", "inf")
    (folder / "r.csv").write_text("\n".join(lines) + "\n")
    assert main(["fill", str(people), str(folder / "r.csv"), "--out", str(folder / "s.csv")]) == 2
    assert "row 4, column 'gain'" in capsys.readouterr().err


def test_what_is_not_modelled_is_carried_along(people, folder):
    out = folder / "c.csv"
    (folder / "w.csv").write_text("\n".join(LINES[:2]) + "\n")
    assert main(["score", str(people), str(folder / "w.csv"), "--samples", "5", "--out", str(out)]) == 0
    (row,) = read(out)
    assert list(row) == ["index", "note", "grade", "person", "log_px"]
    assert (row["note"], row["grade"], row["person"]) == ('one, "quoted"', "low", "0007")
    assert main(["encode", str(people), str(folder / "w.csv"), "--out", str(out)]) == 0
    (row,) = read(out)
    assert list(row) == ["index", "note", "grade", "person", "z0", "z1"]
    assert main(["encode", str(people), str(folder / "w.csv"), "--out", str(folder / "c.npz")]) == 0
    with np.load(folder / "c.npz") as held:
        assert held["column.person"].tolist() == ["0007"]
        np.testing.assert_allclose(held["z"][0], [float(row["z0"]), float(row["z1"])], rtol=1e-4)


def test_methods_take_whatever_holds_the_rows(people, folder):
    """A path, a frame, what `read` returns: one result, and the rows of the source in their order."""
    (folder / "w.csv").write_text("\n".join(LINES[:2]) + "\n")
    run, path = vk.open(people), folder / "w.csv"
    new = run.read(path)
    assert (len(new), new.columns["grade"].tolist(), new.carried["person"]) == (1, ["low"], ["0007"])
    expected = run.score(new.x, samples=5)
    for rows in (new, path, str(path)):
        np.testing.assert_array_equal(run.score(rows, samples=5), expected)
    np.testing.assert_array_equal(run.encode(path), run.encode(new.x))
    np.testing.assert_array_equal(run.reconstruct(path), run.reconstruct(new.x))
    measured = run.evaluate(str(path), samples=5, metrics=["log_px_iw"])[0]
    assert measured["value"] == pytest.approx(expected[0])
    assert measured["protocol"]["data"] == str(path)
    assert not (people / "metrics.json").exists()
    assert new.write(folder / "own.csv", {"score": expected}) == folder / "own.csv"
    assert list(read(folder / "own.csv")[0]) == ["index", "note", "grade", "person", "score"]
    assert list(new.table({"score": expected})) == ["index", "note", "grade", "person", "score"]
    with pytest.raises(ChoiceError, match=r"unknown split 'tets'.*no data have this name or path"):
        run.score("tets")
    with pytest.raises(DataError, match="cannot be a path"):
        run.score("x" * 5000)


def test_the_condition_is_a_column_by_name(graded, new, folder):
    expected = graded.score(X, samples=5, labels=["high", "high", "low"])
    np.testing.assert_array_equal(graded.score(new, samples=5), expected)
    with open(new) as file:
        (folder / "renamed.csv").write_text(file.read().replace("grade", "mark"))
    np.testing.assert_array_equal(graded.score(folder / "renamed.csv", samples=5, labels="mark"), expected)
    swapped = graded.score(X, samples=5, labels="low")
    np.testing.assert_array_equal(graded.score(folder / "renamed.csv", samples=5, labels="low"), swapped)
    measured = graded.evaluate(new, samples=5, metrics=["log_px_iw"])[0]
    assert measured["value"] == pytest.approx(expected.mean())


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".h5ad", ".json"])
def test_commands_write_by_suffix(people, folder, suffix, capsys):
    (folder / "w.csv").write_text("\n".join(LINES[:2]) + "\n")
    out = folder / f"by{suffix}"
    if suffix == ".json":
        assert main(["score", str(people), str(folder / "w.csv"), "--out", str(out)]) == 2
        assert ".csv, .parquet, .npz or .h5ad" in capsys.readouterr().err
        return
    pytest.importorskip({".parquet": "pyarrow", ".npz": "numpy", ".h5ad": "h5py"}[suffix])
    for command in ("encode", "score"):
        assert main([command, str(people), str(folder / "w.csv"), "--out", str(out)]) == 0
        if suffix == ".parquet":
            import pyarrow.parquet as parquet

            assert parquet.read_table(out)["person"].to_pylist() == ["0007"]
        elif suffix == ".npz":
            with np.load(out) as held:
                assert held["column.person"].tolist() == ["0007"]
        else:
            import h5py

            with h5py.File(out) as file:
                assert file["obs/person"].asstr()[:].tolist() == ["0007"]
                assert "X_vae" in file["obsm"] or "log_px" in file["obs"]


def test_new_rows_are_reconstructed_in_their_order(people, folder, monkeypatch):
    (folder / "w.csv").write_text("\n".join(LINES[:2]) + "\n")
    run, source = vk.open(people), str(folder / "w.csv")
    expected = run.reconstruct(source)[0]
    assert main(["reconstruct", str(people), source, "--out", str(folder / "r.csv")]) == 0
    (row,) = read(folder / "r.csv")
    assert list(row) == ["index", "note", "grade", "person", *(column.name for column in run.columns)]
    assert row["person"] == "0007"
    for j, column in enumerate(run.columns):
        if column.categories:
            assert row[column.name] == column.categories[int(expected[j])]
        else:
            assert float(row[column.name]) == pytest.approx(column.fitted(expected[j : j + 1])[0])
    assert main(["reconstruct", str(people), source, "--out", str(folder / "r.npz")]) == 0
    with np.load(folder / "r.npz") as held:
        np.testing.assert_array_equal(held["reconstruction"][0], expected)
        assert held["column.person"].tolist() == ["0007"]
    monkeypatch.chdir(folder)
    assert main(["reconstruct", str(people), source]) == 0
    assert read("reconstructions.csv") == read("r.csv")


def test_rows_of_a_folder_have_the_names_of_their_files(folder, capsys, monkeypatch):
    monkeypatch.setenv("VAEKIT_CACHE", str(folder / "cache"))
    rng = np.random.default_rng(8)
    x = rng.integers(0, 255, (14, 5, 6), dtype=np.uint8)
    run = vk.fit(vk.from_arrays(x), "vae", likelihood="gaussian", out=folder / "five", **TINY | {"steps": 5})
    for i in (2, 0, 1):
        name = ("b/two.png", "a.png", "b/one.png")[i]
        (folder / "shots" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[i]).save(folder / "shots" / name)
    names, source = ["a.png", "b/one.png", "b/two.png"], str(folder / "shots")
    assert main(["encode", str(run.path), source, "--out", str(folder / "f.csv")]) == 0
    rows = read(folder / "f.csv")
    assert [row["file"] for row in rows] == names
    found = np.array([[float(row["z0"]), float(row["z1"])] for row in rows])
    np.testing.assert_allclose(found, run.encode(x[[1, 2, 0]]), atol=1e-5)
    assert main(["reconstruct", str(run.path), source, "--out", str(folder / "f.npz")]) == 0
    with np.load(folder / "f.npz") as held:
        assert held["column.file"].tolist() == names
        np.testing.assert_array_equal(held["x"][:, 0], x[[1, 2, 0]])
    assert main(["reconstruct", str(run.path), source, "--out", str(folder / "f.png")]) == 0
    with Image.open(folder / "f.png") as picture:
        assert picture.width > 3 * 6
    assert main(["fill", str(run.path), source, "--draws", "4", "--out", str(folder / "g.npz")]) == 0
    with np.load(folder / "g.npz") as held:
        assert held["column.file"].tolist() == names
        np.testing.assert_array_equal(held["filled"], run.fill(x[[1, 2, 0]], "half", draws=4).filled)
        np.testing.assert_array_equal(held["x"][:, 0], x[[1, 2, 0]])
        assert held["draws"].shape == (4, 3, 1, 5, 6)
    assert main(["fill", str(run.path), source, "--out", str(folder / "g.png")]) == 0
    assert main(["fill", str(run.path), "1", "--table", "t.csv", "--out", str(folder / "g.png")]) == 2
    assert "--table describes a folder" in capsys.readouterr().err
    # the labels and further arrays of a file
    np.savez(folder / "rows.npz", x=x[:2], label=np.array(["p", "q"]), day=np.array([3, 4]))
    assert (
        main(["score", str(run.path), str(folder / "rows.npz"), "--samples", "2", "--out", str(folder / "f.csv")]) == 0
    )
    assert [(row["label"], row["day"]) for row in read(folder / "f.csv")] == [("p", "3"), ("q", "4")]


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_frame_gets_its_index_and_its_other_columns_back(people, folder, library):
    module = pytest.importorskip(library)
    table = read(folder / "people.csv")[:3]
    columns = {"when": ["2026-01-01", "", "x"], "kind": [row["kind"] for row in table], "n": [3, 2, 1]}
    columns |= {name: [float(row[name]) for row in table] for name in ("age", "gain", "x")}
    frame = module.table(columns) if library == "pyarrow" else module.DataFrame(columns)
    if library == "pandas":
        frame.index = ["a", "b", "c"]
    run = vk.open(people)
    new = run.read(frame)
    new.write(folder / "frame.csv", {"log_px": run.score(new, samples=2)})
    rows = read(folder / "frame.csv")
    index = ["index (of the data)"] if library == "pandas" else []
    assert list(rows[0]) == ["index", *index, "when", "n", "log_px"]
    assert [row["n"] for row in rows] == ["3", "2", "1"]
    assert [row.get("index (of the data)", letter) for row, letter in zip(rows, "abc", strict=True)] == [*"abc"]


def test_sparse_rows_are_those_of_the_dense_array(folder, monkeypatch):
    sparse = pytest.importorskip("scipy.sparse")
    x = np.random.default_rng(1).poisson(0.5, (30, 6))
    run = vk.fit(vk.from_arrays(sparse.csr_array(x)), "vae", out=folder / "sparse", **TINY | {"steps": 3})
    expected = run.score(x[:5], samples=3)
    np.testing.assert_array_equal(run.score(sparse.csr_array(x[:5]), samples=3), expected)
    np.testing.assert_array_equal(run.score(sparse.csc_matrix(x[:5]), samples=3), expected)
    np.testing.assert_array_equal(run.encode(sparse.csr_array(x[:1])), run.encode(x[0]))
    monkeypatch.setattr("vaekit.data.core.BLOCK", 200)
    many = sparse.lil_array(np.tile(x, (4, 1)))
    observed = run.observed(many)
    assert not isinstance(observed.array, np.ndarray)  # dense only by block
    np.testing.assert_array_equal(run.encode(many), run.encode(many.toarray()))
    np.testing.assert_array_equal(run.encode(many, rows=[7, 3]), run.encode(x[[7, 3]]))
    many[100, 2] = -1
    with pytest.raises(DataError, match="row 100"):
        run.encode(many)
    sparse.save_npz(folder / "counts.npz", sparse.csr_array(x[:5]))
    np.testing.assert_array_equal(run.reconstruct(folder / "counts.npz"), run.reconstruct(x[:5]))


def test_cells_come_back_with_their_names_and_codes(folder):
    h5py = pytest.importorskip("h5py")
    from cell_helpers import AnnData, installed

    counts = np.random.default_rng(2).poisson(1.0, (24, 5)).astype(np.float32)
    with installed():
        run = vk.fit(vk.from_arrays(AnnData(counts)), "vae", out=folder / "cells", **TINY | {"steps": 3})
        new = run.read(AnnData(counts[:3]))
        z = run.encode(new)
        np.testing.assert_array_equal(z, run.encode(AnnData(counts[:3])))
    np.testing.assert_array_equal(z, run.encode(counts[:3]))
    assert {name: list(column) for name, column in new.carried.items()} == {
        "cell": ["c0", "c1", "c2"],
        "batch": [*"aba"],
    }
    new.write(folder / "codes.h5ad", {"z": z})
    with h5py.File(folder / "codes.h5ad") as file:
        assert file["obs/_index"].asstr()[:].tolist() == ["c0", "c1", "c2"]
        assert file["obs/batch"].asstr()[:].tolist() == [*"aba"]
        np.testing.assert_array_equal(file["obsm/X_vae"], z)


def test_a_parquet_file_gives_its_types_back(people, folder):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = read(folder / "people.csv")[:2]
    columns = {name: [float(row[name]) for row in table] for name in ("age", "gain", "x")}
    columns |= {"kind": [row["kind"] for row in table], "id": ["7", "08"], "day": pa.array([1, None], pa.date32())}
    parquet.write_table(pa.table({**columns, "n": [2**60, 1]}), folder / "typed.parquet")
    assert main(["score", str(people), str(folder / "typed.parquet"), "--out", str(folder / "t.parquet")]) == 0
    schema = parquet.read_schema(folder / "t.parquet")
    assert schema.names == ["index", "id", "day", "n", "log_px"]
    assert [str(schema.field(name).type) for name in ("id", "day", "n")] == ["string", "date32[day]", "int64"]


def test_columns_are_found_by_name_or_refused_by_name(people, folder, capsys):
    """In files, in frames, and in .npz files that name them."""
    run = vk.open(people)
    assert main(["encode", str(people), str(folder / "people.csv"), "--out", str(folder / "z.npz")]) == 0
    with np.load(folder / "z.npz") as held:
        z = held["z"]
    table = read(folder / "people.csv")
    reordered = {name: [row[name] for row in table[:9]] for name in ("kind", "grade", "x", "age", "gain")}
    write(folder / "o.csv", reordered)
    assert main(["encode", str(people), str(folder / "o.csv"), "--out", str(folder / "z.npz")]) == 0
    with np.load(folder / "z.npz") as held:
        np.testing.assert_allclose(held["z"], z[:9], atol=1e-6)
    lacking = write(folder / "l.csv", {name: cells for name, cells in reordered.items() if name != "age"})
    capsys.readouterr()
    assert main(["evaluate", str(people), str(lacking)]) == 2
    assert "no column 'age'; expected age, gain, x, kind" in capsys.readouterr().err
    with pytest.raises(vk.VaekitError, match=r"rows of shape \(4,\), got \(3,\): its columns are age, gain, x, kind"):
        run.score(np.zeros((2, 3), np.float32))


def test_arrays_with_names_are_mapped_by_them(folder, capsys):
    rng = np.random.default_rng(5)
    x = (rng.normal(size=(80, 3)) * [1, 5, 20]).astype(np.float32)
    np.savez(folder / "g.npz", x=x, feature_names=np.array(["p", "q", "r"]))
    run = vk.fit(vk.load(folder / "g.npz"), "vae", out=folder / "genes", **TINY)
    z = run.encode(x[:6])
    np.savez(folder / "g2.npz", x=x[:6, [2, 0, 1]], feature_names=np.array(["r", "p", "q"]))
    write(folder / "g2.csv", {"q": x[:6, 1], "id": list("abcdef"), "r": x[:6, 2], "p": x[:6, 0]})
    for name in ("g2.npz", "g2.csv"):
        assert main(["encode", str(run.path), str(folder / name), "--out", str(folder / "gz.npz")]) == 0
        with np.load(folder / "gz.npz") as held:
            np.testing.assert_allclose(held["z"], z, atol=1e-5)
    np.savez(folder / "g3.npz", x=x[:6], feature_names=np.array(["p", "q", "other"]))
    capsys.readouterr()
    assert main(["score", str(run.path), str(folder / "g3.npz"), "--out", str(folder / "g.csv")]) == 2
    assert "no column 'r'" in capsys.readouterr().err


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
def test_columns_of_frames_are_found_by_name(people, birds, folder, library):
    module = pytest.importorskip(library)
    table = read(folder / "people.csv")[:9]
    columns = {
        "kind": [row["kind"] for row in table],
        "x": [float(row["x"]) for row in table],
        "gain": [int(row["gain"]) for row in table],
        "age": [int(row["age"]) for row in table],
    }
    make = module.DataFrame if library == "pandas" else module.table
    run = vk.open(people)
    code = {"a": 0, "b": 1, "c": 2}
    x = np.array([[row["age"], row["gain"], row["x"], code[row["kind"]]] for row in table], np.float32)
    np.testing.assert_allclose(run.encode(make(columns)), run.encode(x), atol=1e-6)
    del columns["age"]
    with pytest.raises(vk.VaekitError, match="'age'"):
        run.score(make(columns))
    # the condition of a conditional run is in the frame, too
    bird = vk.open(birds)
    rows = make({"species": ["gentoo", "adelie"], "flipper": [199.0, 190.0], "bill": [46.0, 40.0]})
    values = np.array([[46, 199], [40, 190]], np.float32)
    np.testing.assert_array_equal(
        bird.score(rows, samples=5), bird.score(values, samples=5, labels=["gentoo", "adelie"])
    )


def test_labels_that_a_run_cannot_use_are_refused(graded, folder):
    plain = vk.fit(vk.from_arrays(np.random.default_rng(3).normal(size=(40, 2))), "vae", out=folder / "plain", **TINY)
    x = np.zeros((3, 2), np.float32)
    for use in (
        lambda: plain.encode(x, labels=[0, 1, 1]),
        lambda: plain.encode("test", labels=[0, 1, 1]),
        lambda: plain.score(x, samples=5, labels="a"),
        lambda: plain.reconstruct(x, labels=0),
        lambda: plain.evaluate(x, samples=5, labels=[0, 0, 0]),
        lambda: plain.fill(x, np.array([True, False]), labels=[0, 0, 0]),
        lambda: plain.fill(0, np.array([True, False]), labels=0),
        lambda: plain.sample(3, labels=0),
        lambda: plain.interpolate(x[0], x[1], labels=0),
    ):
        with pytest.raises(ChoiceError, match="not conditional, so it takes no `labels`"):
            use()
    with pytest.raises(ChoiceError, match="the test data have their own conditions"):
        graded.score("test", samples=5, labels="low")
    with pytest.raises(ChoiceError, match="row 0 of the test set has its own condition"):
        graded.interpolate(0, 1, labels="low")
    ends = graded.interpolate(0, X[0], steps=2, labels="high")  # of the raw end alone
    expected = [graded.reconstruct("test", n=1), graded.reconstruct(X[:1], labels="high")]
    np.testing.assert_allclose(ends, np.concatenate(expected), atol=1e-4)


def test_new_images_that_are_not_taken_as_they_are_are_told(folder, capsys, monkeypatch):
    """Another size, values beyond the run's range, fewer bits: counted in a note, for a folder and for one image."""
    monkeypatch.setenv("VAEKIT_CACHE", str(folder / "cache"))
    rng = np.random.default_rng(4)

    def save(place, images):
        (folder / place).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / place / f"{i:02d}.tif")
        return str(folder / place)

    wide = [rng.integers(100, 900, (6, 6)).astype(np.uint16) for _ in range(12)]
    wide[0][0, :2] = 100, 900
    run = vk.fit(vk.load(save("wide", wide)), "vae", likelihood="gaussian", out=folder / "deep", **TINY)
    assert run.config["data"]["options"]["pixel_range"] == "100.0,900.0"
    beyond = wide[1].copy()
    beyond[0, :3] = 99, 901, 5000
    new = save("odd", [wide[2], beyond, np.full((9, 12), 500, np.uint16), np.zeros((6, 6), np.uint8)])
    told = (
        "3 of 4 images have more than 8 bits: values 100..900",
        "1 of 4 images have 8 bits",
        "1 of 4 images have values outside 100..900, which are clipped: 3 values, 1.7% of all",
        "1 of 4 images have another size (9x12): resized to 6x6",
    )
    for command in ("score", "encode"):
        assert main([command, str(run.path), new, "--out", str(folder / f"odd-{OUT[command]}")]) == 0
        err = capsys.readouterr().err
        assert all(f"note: {note}" in err for note in told), err
    assert set(told) <= {
        note[: len(t)] for note in read_rows(new, size="6x6", pixel_range="100,900").notes for t in told
    }
    for i, note in ((1, "01.tif: the image has values outside 100..900"), (2, "02.tif: the image has another size")):
        picture = f"{new}/{i:02d}.tif"
        assert main(["score", str(run.path), picture, "--out", str(folder / "one.csv")]) == 0
        assert f"note: {note}" in capsys.readouterr().err
    other = save("other", [7 * image for image in wide])
    assert main(["score", str(run.path), other, "--split", "test", "--out", str(folder / "o.csv")]) == 0
    assert "values outside 100..900" in capsys.readouterr().err
    plain = [image.astype(np.uint8) for image in wide]
    run = vk.fit(vk.load(save("narrow", plain)), "vae", likelihood="gaussian", out=folder / "shallow", **TINY)
    assert main(["score", str(run.path), other, "--split", "test", "--out", str(folder / "o.csv")]) == 2
    assert "more than 8 bits and the range" in capsys.readouterr().err


def test_notes_on_new_rows_are_given(graded, folder, capsys):
    """One-hot labels, labels that are missing: what `fit` says of data is said of new ones, too."""
    np.savez(folder / "hot.npz", x=X, label=np.eye(3)[[0, 1, 2]], beside=np.zeros((2, 2)))
    told = ("one-hot labels of 3 columns were read as 3 classes", "hot.npz: not used: beside (2, 2)")
    assert set(told) <= set(read_rows(folder / "hot.npz").notes)
    hot = ["encode", str(graded.path), str(folder / "hot.npz"), "--label", "mid"]
    assert main([*hot, "--out", str(folder / "hot-z.npz")]) == 0
    err = capsys.readouterr().err
    assert all(f"note: {note}" in err for note in told), err
    arrow = pytest.importorskip("pyarrow")
    graded.encode(arrow.table({"a": ["$1", "$2", "$3"], "b": [1.0, 2.0, 3.0], "grade": GRADES}))
    assert "note: the frame: " in capsys.readouterr().err


def test_images_that_an_earlier_version_read_otherwise_are_explained(folder, monkeypatch):
    """Run directories outlive changes of decoding, after which the same files have another digest."""
    monkeypatch.setenv("VAEKIT_CACHE", str(folder / "cache"))
    (folder / "changed").mkdir()
    for i in range(9):
        Image.new("L", (6, 6), 20 * i).save(folder / "changed" / f"{i}.png")
    run = vk.fit(vk.load(folder / "changed"), "vae", out=folder / "before", **TINY | {"steps": 3})
    run.config["data"]["digest"] = "0" * 64
    with pytest.raises(
        DataError, match=r"digests differ\); if the files are unchanged, an earlier vaekit .* train again"
    ):
        run.use_data()
    Image.new("L", (6, 6), 7).save(folder / "changed" / "0.png")
    with pytest.raises(RunError, match=r"the data differ .* an earlier vaekit"):
        vk.fit(vk.load(folder / "changed"), "vae", out=folder / "before", extend=True, **TINY | {"steps": 6})
    x = np.random.default_rng(0).normal(size=(40, 2))
    run = vk.fit(vk.from_arrays(x), "vae", out=folder / "of-array", **TINY | {"steps": 3})
    with pytest.raises(DataError, match=r"digests differ\)$"):
        run.use_data(vk.from_arrays(x + 1))


def test_a_table_of_pixels_is_read_again_without_the_columns_that_were_dropped(folder, capsys):
    rng = np.random.default_rng(8)
    columns = {"id": np.arange(40) * 7 % 41, "note": rng.normal(size=40)}
    columns |= {f"p{i}": rng.integers(0, 256, 40) for i in range(12)}
    path = write(folder / "pixels.csv", columns)
    data = vk.load(path, shape="3x4", drop="id", types={"note": "drop"})
    run = vk.fit(data, "vae", out=folder / "pixels-run", **TINY)
    assert main(["encode", str(run.path), str(path), "--out", str(folder / "p.npz")]) == 0
    del columns["id"], columns["note"]
    bare = write(folder / "bare.csv", columns)
    assert main(["encode", str(run.path), str(bare), "--out", str(folder / "q.npz")]) == 0
    with np.load(folder / "p.npz") as one, np.load(folder / "q.npz") as other:
        np.testing.assert_array_equal(one["z"], other["z"])


def test_one_datum_is_a_batch_of_one(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (60, 4, 4)).astype(np.uint8)
    run = vk.fit(x, "vae", out=tmp_path / "r", likelihood="gaussian", **TINY | {"steps": 2})
    whole = run.encode("test")
    np.testing.assert_allclose(run.encode(3), whole[3:4], rtol=1e-5)
    np.testing.assert_allclose(run.encode(np.int64(3), sample=True), run.encode("test", sample=True)[3:4], rtol=1e-5)
    one = run.data.test.raw[run.data.test.index[3]]
    for same in (one, one.reshape(4, 4), one.reshape(16), one.reshape(1, 4, 4)):
        np.testing.assert_allclose(run.encode(same), whole[3:4], rtol=1e-5)
        np.testing.assert_allclose(run.reconstruct(same), run.reconstruct(3), rtol=1e-4)
        assert run.observed(same).n == len(run.score(same, samples=2)) == 1
        assert [m["protocol"]["n"] for m in run.evaluate(same, samples=2, metrics=["elbo"])] == [1]
        assert run.interpolate(3, same, steps=2).shape == (2, 1, 4, 4)
    assert run.reconstruct(3).shape == (1, 1, 4, 4)
    np.testing.assert_allclose(run.score(3, samples=4), run.score("test", samples=4)[3:4], rtol=1e-5)
    assert run.fill(one.reshape(4, 4), draws=2).filled.shape == run.fill(3, draws=2).filled.shape == (1, 1, 4, 4)
    with pytest.raises(ChoiceError, match=r"rows 0\.\.5, got 6"):
        run.encode(6)
    with pytest.raises(DataError, match="shape"):
        run.encode(one.reshape(16)[:15])


def test_missing_values_are_imputed_by_a_run_that_knows_them(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    x[::5, 1] = np.nan
    data = vk.from_arrays(x, missing="mask")
    run = vk.fit(data, "vae", out=tmp_path / "r", **TINY | {"steps": 2})
    for samples in (None, 5):
        filled = run.impute(x[:10], samples=samples)
        np.testing.assert_array_equal(filled[~np.isnan(x[:10])], x[:10][~np.isnan(x[:10])])
        assert np.isfinite(filled).all()
        np.testing.assert_allclose(run.impute(x[5]), run.impute(x[5:6]), rtol=1e-5)
    masked = np.ma.masked_invalid(np.ma.masked_array(np.nan_to_num(x, nan=7.0), mask=np.isnan(x)))
    np.testing.assert_array_equal(run.encode(masked), run.encode(x))  # not of the 7 below the mask
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(run.encode(torch.tensor(x, requires_grad=True)), run.encode(x))


@pytest.mark.parametrize("rows", [X + 1j, X.astype(str), X.astype(object), X.astype("M8[s]"), None, {"a": 1}])
def test_rows_that_are_no_numbers_are_refused(graded, rows):
    """Complex ones would lose their imaginary parts."""
    with pytest.raises(DataError, match="the rows must hold real numbers"):
        graded.score(rows, samples=2, labels=["low"] * 3)


def test_what_is_not_a_code_is_not_decoded(graded):
    codes = graded.encode("test", n=3)
    assert graded.decode(codes.tolist()).shape == (3, 2)
    for wrong, message in (
        (codes[:, :-1], "do not fit this model"),
        (codes[0], "expected codes"),
        (codes[:0], "expected codes"),
        (np.where(codes > 0.5, np.nan, codes), "not finite"),
        (np.ma.masked_greater(codes, 0.5), "not finite"),
        ([["a", "b"]], "real numbers"),
    ):
        with pytest.raises((ChoiceError, DataError), match=message):
            graded.decode(wrong)
    for n in (0, 2.5, "3"):
        with pytest.raises(ChoiceError, match=r"number of samples must be 1 or more .a whole number., got"):
            graded.sample(n)


def test_commands_of_a_table_write_a_table_by_default(people, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    header = LINES[0].split(",")
    for command, file, rows, further in [
        (["sample", "-n", "3"], "samples.csv", 3, []),
        (["reconstruct", "-n", "2"], "reconstructions.csv", 4, []),
        (["interpolate", "0", "1", "--steps", "3"], "interpolation.csv", 3, ["step"]),
        (["traverse", "--latents", "1", "--steps", "5"], "traversal.csv", 5, ["latent", "z"]),
    ]:
        assert main([command[0], str(people), *command[1:]]) == 0
        written = [line.split(",") for line in (tmp_path / file).read_text().splitlines()]
        assert set(written[0]) <= {*header, *further}
        assert set(further) <= set(written[0])
        assert len(written) == rows + 1


def test_the_default_table_is_checked_before_the_work(people, tmp_path, monkeypatch, capsys):
    from vaekit.run import Run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Run, "sample", lambda *given, **more: pytest.fail("it worked first"))
    (tmp_path / "samples.csv").mkdir()
    assert main(["sample", str(people), "-n", "3"]) == 2
    assert "samples.csv is a directory: name a file in it, such as samples.csv/out.csv" in capsys.readouterr().err
