"""Damaged HDF5 files, on which the HDF5 library itself loops or fills the memory, are refused in little time."""

import struct

import pytest

from vaekit.data.readers import hdf5
from vaekit.errors import DataError

h5py = pytest.importorskip("h5py")


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """A function that writes a file with an attribute and an array of texts, of which `damage` changes the bytes."""
    monkeypatch.setattr(hdf5, "SECONDS", 1)

    def write(damage):
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            file.attrs["unit"] = "text"
            file["names"] = ["one", "two"]
            file["numbers"] = [1.0, 2.0]
        content = bytearray(path.read_bytes())
        damage(content, content.index(b"GCOL"))  # the heap of texts
        path.write_bytes(content)
        return path

    return write


def refused(path):
    with pytest.raises(DataError) as caught, hdf5.opened(path):
        pass
    return str(caught.value)


def test_a_heap_on_which_the_library_loops_is_refused(damaged):
    def first_text_takes_no_bytes(content, heap):
        content[heap + 24 : heap + 32] = bytes(8)

    assert "reading its attributes and texts does not end" in refused(damaged(first_text_takes_no_bytes))


def test_a_text_longer_than_the_memory_is_refused(damaged):
    def first_name_is_long(content, heap):
        element = content.index(struct.pack("<IQI", 3, heap, 2))  # length, heap, number in the heap
        content[element : element + 4] = struct.pack("<I", 2**31 - 1)

    assert "reading its texts takes more than" in refused(damaged(first_name_is_long))


def test_damage_elsewhere_does_not_forbid_reading_the_rest(damaged):
    def first_name_lies_in_no_heap(content, heap):
        element = content.index(struct.pack("<IQI", 3, heap, 2))
        content[element + 12 : element + 16] = struct.pack("<I", 99)

    with hdf5.opened(damaged(first_name_lies_in_no_heap)) as file:
        assert hdf5.attribute(file, "unit") == "text"
        assert hdf5.array(hdf5.member(file, "numbers"), "numbers").tolist() == [1.0, 2.0]
        with pytest.raises((DataError, *hdf5.DAMAGE)):
            hdf5.array(hdf5.member(file, "names"), "names")


def test_a_group_that_contains_itself_is_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["inside/again"] = file
    with hdf5.opened(tmp_path / "a.h5") as file:
        assert hdf5.is_group(hdf5.member(file, "inside/again/inside"))
