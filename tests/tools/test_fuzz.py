"""A small share of `make fuzz`: damaged files and run directories are read, or refused in words."""

import itertools
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from vaekit.data.readers.registry import reader_of, readers

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import fuzz
import fuzz_seeds
from mutators import BY_SUFFIX


@pytest.fixture(scope="module")
def seeds():
    return fuzz_seeds.make()


def test_whole_files_are_accepted(seeds, tmp_path, monkeypatch):
    """Else the damaged ones would prove nothing."""
    monkeypatch.setattr(fuzz_seeds, "PAGES", 0)
    monkeypatch.setattr(fuzz_seeds, "_options", lambda rng, **more: {"size": "7x6"} if "size" in more else {})
    for name, seed in seeds.items():
        for key in ("0", "1", "7"):
            outcome = fuzz.attempt(fuzz.Input(name, key, seed.files), tmp_path / f"{name}{key}")
            assert outcome == ("accepted", ""), (name, key)


def test_every_format_has_a_seed(tmp_path):
    for package in ("pyarrow", "h5py", "openpyxl", "soundfile", "nibabel", "pydicom"):
        pytest.importorskip(package)
    found, suffixes, examples = set(), set(), fuzz_seeds.examples()
    for name, files in examples.items():
        for file, content in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            suffixes.add("".join(path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:]))
        found.add(reader_of(tmp_path / name / next(iter(files)).split("/")[0]).name)
    ours = [reader for reader in readers() if reader.read.__module__.startswith("vaekit.")]
    assert {one.name for one in ours} - found == {"arrays", "frame", "anndata", "named"}  # which are no files
    named = set(re.findall(r"\.[a-z0-9]+(?:\.gz)?", " ".join(one.files for one in ours)))
    assert named - suffixes <= {".gz", ".tsv", ".txt", ".data", ".mtx"}  # read like .csv; beside .mtx
    assert set(fuzz_seeds.SEEDS) - set(examples) == {"run", "run-table", "archive", "archive-table"}


def test_whole_runs_can_be_used_in_every_way(seeds, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_seeds, "PAGES", 0)
    for name, use in itertools.product(("run", "run-table"), fuzz_seeds.RUN_USES):
        monkeypatch.setattr(fuzz_seeds, "READ_BY", {"run/": (use,)})
        given = fuzz.Input(name, "0", seeds[name].files, ("run/any",))
        assert fuzz.attempt(given, tmp_path / name / use) == ("accepted", ""), (name, use)


@pytest.mark.parametrize("start", sorted(fuzz_seeds.READ_BY))
def test_a_use_of_a_damaged_file_reads_it(seeds, tmp_path, monkeypatch, start):
    """Else its damage would go unnoticed."""
    monkeypatch.setattr(fuzz_seeds, "PAGES", 0)
    damaged = [name for name in seeds["run"].files if name.startswith(start)]
    assert damaged
    use = fuzz_seeds.READ_BY[start][0]
    monkeypatch.setattr(fuzz_seeds, "READ_BY", {start: (use,)})
    files = seeds["run"].files | dict.fromkeys(damaged, b"damaged\n")
    outcome, text = fuzz.attempt(fuzz.Input("run", "0", files, tuple(damaged)), tmp_path)
    assert (outcome, start in text) == ("refused", True), text


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged tags
def test_damaged_files_are_read_or_refused(seeds, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_seeds, "PAGES", 0)
    counts = dict.fromkeys(("accepted", "refused"), 0)
    with np.errstate(all="ignore"):
        for number in range(200):
            given = fuzz.make_input(number, 0, seeds, None)
            outcome, text = fuzz.attempt(given, tmp_path / str(number))
            assert outcome in counts, f"{given.seed}, input {number} of seed 0: {text}"
            counts[outcome] += 1
    assert min(counts.values()) > 30  # neither everything nor nothing is damage


def test_an_input_is_a_function_of_its_number(seeds):
    for number in range(30):
        assert fuzz.make_input(number, 5, seeds, None) == fuzz.make_input(number, 5, seeds, None)


@pytest.mark.parametrize("suffix", sorted(BY_SUFFIX))
def test_damage_differs_from_the_whole(seeds, suffix):
    raw = next(c for s in seeds.values() for n, c in s.files.items() if n.endswith(suffix))
    damaged = {BY_SUFFIX[suffix](raw, random.Random(i)) for i in range(40)}
    assert len(damaged - {raw}) > 20


def test_a_finding_is_kept_and_replayed(tmp_path, monkeypatch, capsys):
    def broken(rng, damaged):
        raise KeyError(Path("a.bin").read_bytes())

    monkeypatch.setitem(fuzz.SEEDS, "broken", broken)
    given = fuzz.Input("broken", "0-0", {"a.bin": b"these"})
    outcome, text = fuzz.attempt(given, tmp_path / "here")
    assert outcome == "traceback"
    file = fuzz.save(given, tmp_path / "kept", outcome, text)
    assert fuzz.replay(file) == 1
    assert "KeyError: b'these'" in capsys.readouterr().out
