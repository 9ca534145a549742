"""`vaekit compress` and `vaekit decompress`: files there and back, what they print, and what they refuse."""

import json

import numpy as np
import pytest
from core_helpers import QUIET, blobs

import vaekit as vk
from vaekit.cli import main
from vaekit.coding import archive as archives


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on 8-bit images, one on a table, and their data."""
    folder = tmp_path_factory.mktemp("pack")
    np.save(folder / "images.npy", blobs(80, 1, 6, 5))
    np.save(folder / "few.npy", blobs(9, 1, 6, 5, seed=1))
    rng = np.random.default_rng(0)
    rows = [f"{'ab'[i % 2]},{rng.poisson(3 + 9 * (i % 2))},note {i}" for i in range(90)]
    (folder / "table.csv").write_text("\n".join(["kind,events,text", *rows]))
    small = {"steps": 5, "latent": 2, "hidden": (8,), **QUIET}
    vk.fit(folder / "images.npy", out=folder / "run", likelihood="discretised-logistic", **small)
    data = vk.load(folder / "table.csv", types={"events": "counts"}, drop=["text"])
    vk.fit(data, out=folder / "rows", **small)
    return folder


def vaekit(capsys, *argv):
    code = main([str(word) for word in argv])
    return code, capsys.readouterr()


def test_arrays_there_and_back(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    code, said = vaekit(capsys, "compress", "run", "few.npy", "--out", "few.vk")
    assert code == 0
    assert "9 examples in " in said.out
    assert "all were decoded again and compared" in said.out
    assert said.out.splitlines()[-1] == "few.vk"
    assert vaekit(capsys, "decompress", "few.vk", "--out", "back.npy")[0] == 0
    back = np.load("back.npy")
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, blobs(9, 1, 6, 5, seed=1))
    code, said = vaekit(capsys, "compress", "run", "-n", 4, "--json", "--out", "test.vk")
    sizes = json.loads(said.out)
    assert sizes["n"] == 4
    parts = sum(sizes[part] for part in ("start_up", "known", "coded"))
    assert sizes["bytes"] == (folder / "test.vk").stat().st_size == parts
    vaekit(capsys, "decompress", "test.vk", "--out", "test.npz")
    assert np.load("test.npz")["x"].shape == (4, 1, 6, 5)


def test_a_table_comes_back_as_a_table(folder, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    assert vaekit(capsys, "compress", "rows", "table.csv", "--out", "rows.vk")[0] == 0
    assert archives.read(folder / "rows.vk").header["run"] == "rows"
    monkeypatch.chdir(tmp_path)  # where the run is not
    code, said = vaekit(capsys, "decompress", folder / "rows.vk", "--out", "rows.csv")
    assert code == 2
    assert "was made with the run rows, which is not here: add --run RUN" in said.err
    assert vaekit(capsys, "decompress", folder / "rows.vk", "--run", folder / "rows", "--out", "rows.csv")[0] == 0
    rows = [line.rsplit(",", 1)[0] for line in (folder / "table.csv").read_text().splitlines()]
    assert (tmp_path / "rows.csv").read_text().splitlines() == rows


def test_archives_neither_tell_nor_choose_folders(folder, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert vaekit(capsys, "compress", folder / "run", folder / "few.npy", "--out", "few.vk")[0] == 0
    found = archives.read(tmp_path / "few.vk")
    assert found.header["run"] == "run"
    for place in (str(folder / "run"), f"../{folder.name}/run"):
        found.header["run"] = place
        archives.write(tmp_path / "few.vk", found.to_bytes()[0])
        code, said = vaekit(capsys, "decompress", "few.vk")
        assert code == 2
        assert "which is not here" in said.err


def test_unknown_categories_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = "\n".join(["kind,flag", *(f"{'ab'[i % 2]},{['', 'no', 'yes'][i % 3]}" for i in range(60))])
    (tmp_path / "table.csv").write_text(table)
    small = {"steps": 2, "latent": 2, "hidden": (8,), **QUIET}
    vk.fit(vk.load(tmp_path / "table.csv", missing="mask"), out=tmp_path / "run", **small)
    (tmp_path / "new.csv").write_text("kind,flag\na,\nc,no\n")
    code, said = vaekit(capsys, "compress", "run", "new.csv", "--out", "new.vk")
    assert code == 2
    assert "row 1, column 'kind': 'c' is not a category" in said.err
    assert not (tmp_path / "new.vk").exists()


def test_damaged_archives_are_refused_in_one_line(folder, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    vaekit(capsys, "compress", "run", "few.npy", "--out", tmp_path / "few.vk")
    content = (tmp_path / "few.vk").read_bytes()
    for damaged, word in (
        (content[:-20], "damaged"), (content[:3], "not an archive"), (b"", "not an archive"),
        (content[:200] + b"x" + content[201:], "damaged"), (content + b"more", "damaged"),
    ):  # fmt: skip
        (tmp_path / "damaged.vk").write_bytes(damaged)
        code, said = vaekit(capsys, "decompress", tmp_path / "damaged.vk", "--out", tmp_path / "x.npy")
        assert code == 2
        assert word in said.err
        assert said.err.count("\n") == 1
        assert not (tmp_path / "x.npy").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("compress", "RUN"),
        ("compress run --out a.zip", ".vk"),
        ("compress run -n 0", "-n"),
        ("compress run few.npy --tolerance 2", "--tolerance must be"),
        ("decompress", "ARCHIVE"),
        ("decompress nothing.vk", "no archive at nothing.vk"),
        ("decompress few.npy", "not an archive"),
        ("decompress kept.vk --run rows", "made with another run"),
        ("decompress kept.vk --out a.csv", "not a table"),
        ("decompress kept.vk --out a.png", ".npz"),
        ("unpack kept.vk", "did you mean 'decompress'"),
    ],
)
def test_refusals_say_what_to_do(argv, said, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    if "kept.vk" in argv and not (folder / "kept.vk").exists():
        vaekit(capsys, "compress", "run", "few.npy", "--out", "kept.vk")
    code, printed = vaekit(capsys, *argv.split())
    assert code == 2
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert said in printed.err


def test_grey_images_and_a_binary_draw(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    small = {"steps": 2, "latent": 2, "hidden": (8,), **QUIET}
    vk.fit("images.npy", out="binary", likelihood="bernoulli", **small)
    code, said = vaekit(capsys, "compress", "binary", "--out", "draw.vk")
    assert code == 2
    assert "--observed" in said.err
    assert "--likelihood discretised-logistic" in said.err
    assert not (folder / "draw.vk").exists()
    assert vaekit(capsys, "compress", "binary", "--observed", "--out", "draw.vk")[0] == 0
    vaekit(capsys, "decompress", "draw.vk", "--out", "draw.npy")
    run = vk.open("binary")
    np.testing.assert_array_equal(np.load("draw.npy"), run.observed("test")(np.arange(len(run.data.test))).numpy())
