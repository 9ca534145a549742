"""Files are written whole or not at all, under names of their own, with the umask's mode."""

import errno
import os
import stat
import threading

import pytest
import torch

from vaekit.errors import RunError
from vaekit.utils import files
from vaekit.utils.files import part_of, remove_parts, write_atomically, write_json, write_tensors, write_text


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_of_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(2)})
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    for name in ("a.safetensors", "a.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask, name


def test_threads_that_write_one_file_leave_one_of_theirs_whole(tmp_path):
    path, together, failed = tmp_path / "x.json", threading.Barrier(8), []

    def write(number):
        together.wait()
        for _ in range(10):
            try:
                write_json(path, [number] * 1000)
            except RunError as error:
                failed.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed
    found = files.read_json(path)
    assert found == found[:1] * 1000
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError(errno.ENOSPC, "No space left on device")])
def test_nothing_is_left_of_a_file_that_failed(tmp_path, error):
    path = tmp_path / "x.json"
    write_json(path, 1)

    def half(part):
        part.write_text("[1,")
        raise error

    with pytest.raises((RunError, KeyboardInterrupt, ValueError)):
        write_atomically(path, half)
    assert files.read_json(path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_parts_of_dead_processes_are_removed_and_no_others(tmp_path, monkeypatch):
    mine = part_of(tmp_path / "x")
    monkeypatch.setattr(files, "_host", lambda: "01234567")
    elsewhere = part_of(tmp_path / "x")
    monkeypatch.undo()
    gone = tmp_path / mine.name.replace(f"-{os.getpid()}-", "-4194305-")  # above every process number of Linux
    earlier, users = tmp_path / ".run.json.part", tmp_path / "mine.part"
    for file in (mine, elsewhere, gone, earlier, users):
        file.write_text("half")
    os.utime(earlier, (0, 0))
    assert len({mine, elsewhere, gone, earlier, users}) == 5
    remove_parts(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {mine.name, elsewhere.name, users.name}
    os.utime(elsewhere, (0, 0))
    remove_parts(tmp_path)
    assert not elsewhere.exists()


def test_a_name_as_long_as_names_may_be_is_written(tmp_path):
    path = tmp_path / ("x" * 250 + ".json")
    write_json(path, 1)
    assert files.read_json(path) == 1


def test_text_that_is_not_unicode_is_not_written(tmp_path):
    with pytest.raises(RunError, match=r"a name in it is not Unicode text .*caf\\udce9"):
        write_text(tmp_path / "a.json", "the class caf\udce9")
    assert not list(tmp_path.iterdir())
