"""Medical images: slices hold the values of the file in its units, turned to known axes."""

import sys

import numpy as np
import pytest

from vaekit.data import cache as caches
from vaekit.data import load
from vaekit.data.arrays import is_map
from vaekit.errors import DataError

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


def volume(seed=0, shape=(6, 5, 4)):
    return np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)


def dicom(path, values, photometric="MONOCHROME2", slope=2, intercept=-10, **more):
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = pydicom.uid.CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = values.shape[-2:]
    if values.ndim == 3:
        dataset.NumberOfFrames = len(values)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    dataset.PixelData = values.tobytes()
    for name, value in more.items():
        setattr(dataset, name, value)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


@pytest.mark.parametrize("large", [False, True])
def test_slices_of_dicom_files_are_in_their_units(tmp_path, large, monkeypatch):
    monkeypatch.setattr(caches, "LARGE", 10 if large else 2**30)
    values = volume()
    for i, part in enumerate(values):
        dicom(tmp_path / f"{i}.dcm", part)
    data = load(tmp_path)
    np.testing.assert_array_equal(data.train.raw, 2.0 * values - 10)
    assert (data.kind, data.shape, data.train.raw.dtype) == ("image", (1, 5, 4), np.float32)
    assert data.scale == (float(data.train[:].min()), float(data.train[:].max()))
    assert is_map(data.train.raw) == large
    dicom(tmp_path / "all.dcm", values)
    np.testing.assert_array_equal(load(tmp_path / "all.dcm").train.raw, 2.0 * values - 10)
    dicom(tmp_path / "all.dcm", values, "MONOCHROME1")
    np.testing.assert_array_equal(load(tmp_path / "all.dcm").train.raw[0], 2.0 * (-1 - values[0]) - 10)


def test_what_is_bright_is_alike_in_all_files(tmp_path):
    values = (volume() + 1000).astype(np.uint16)
    for i, part in enumerate(values):
        more = {"PixelRepresentation": 0, "BitsStored": 12, "HighBit": 11}
        dicom(tmp_path / f"{i}.dcm", part, "MONOCHROME1", 1, 0, **more)
    np.testing.assert_array_equal(load(tmp_path).train.raw, 4095.0 - values)


@pytest.mark.parametrize("per_frame", [False, True])
def test_slope_and_intercept_of_frames_are_applied(tmp_path, per_frame):
    values, slopes = volume(), np.arange(1, 7)

    def group(slope):
        inner, outer = pydicom.Dataset(), pydicom.Dataset()
        inner.RescaleSlope, inner.RescaleIntercept = int(slope), -1024
        outer.PixelValueTransformationSequence = pydicom.Sequence([inner])
        return outer

    shared = pydicom.Dataset() if per_frame else group(3)
    more = {"SharedFunctionalGroupsSequence": pydicom.Sequence([shared])}
    if per_frame:
        more["PerFrameFunctionalGroupsSequence"] = pydicom.Sequence([group(slope) for slope in slopes])
    dicom(tmp_path / "a.dcm", values, slope=1, intercept=0, **more)
    slope = slopes[:, None, None] if per_frame else 3
    np.testing.assert_array_equal(load(tmp_path / "a.dcm").train.raw, values * slope - 1024.0)


def test_values_that_are_no_real_numbers_are_refused(tmp_path):
    for name, kind in (("complex", "c8"), ("colours", [("R", "u1"), ("G", "u1"), ("B", "u1")])):
        nibabel.save(nibabel.Nifti1Image(np.zeros((6, 5, 4), kind), np.eye(4)), tmp_path / "a.nii")
        with pytest.raises(DataError, match=f"holds {name}"):
            load(tmp_path / "a.nii")


def test_missing_packages_are_named(tmp_path, monkeypatch):
    nibabel.save(nibabel.Nifti1Image(volume(), np.eye(4)), tmp_path / "a.nii")
    dicom(tmp_path / "a.dcm", volume())
    for name, package in (("a.nii", "nibabel"), ("a.dcm", "pydicom")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(DataError, match=f"needs {package}: pip install"):
            load(tmp_path / name)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_slices_of_volumes_lie_in_the_plane_that_is_asked_for(tmp_path, name):
    values = volume()
    turned = nibabel.Nifti1Image(values.transpose(2, 0, 1)[:, ::-1], np.array(  # axes: superior, left, anterior
        [[0, -1, 0, 5], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float))  # fmt: skip
    for image in (nibabel.Nifti1Image(values, np.eye(4)), turned):
        nibabel.save(image, tmp_path / name)
        axial = load(tmp_path / name)
        np.testing.assert_array_equal(axial.train.raw, [values[:, ::-1, k].T for k in range(4)])
        coronal = load(tmp_path / name, plane="coronal").train.raw
        np.testing.assert_array_equal(coronal, [values[:, j, ::-1].T for j in range(5)])
        sagittal = load(tmp_path / name, plane="sagittal")
        np.testing.assert_array_equal(sagittal.train.raw, [values[i, :, ::-1].T for i in range(6)])
        assert sagittal.options == {"plane": "sagittal"}
    with pytest.raises(DataError, match="plane must be one of sagittal, coronal, axial"):
        load(tmp_path / name, plane="oblique")


def test_several_volumes_are_kept_together_and_must_have_one_size(tmp_path):
    for i in range(5):
        nibabel.save(nibabel.Nifti1Image(volume(i, (6, 5, 3)), np.eye(4)), tmp_path / f"{i}.nii.gz")
    data = load(tmp_path, group="volume")
    parts = [set(getattr(data, part).columns["volume"]) for part in ("train", "valid", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 5
    assert any("`group='volume'`" in note for note in load(tmp_path).notes)
    nibabel.save(nibabel.Nifti1Image(volume(9, (6, 7, 3)), np.eye(4)), tmp_path / "9.nii.gz")
    with pytest.raises(DataError, match=r"slices of 2 sizes \(height x width\): 5x6 \(5\), 7x6 \(1\)"):
        load(tmp_path)


def test_unusual_headers_are_a_note_and_not_written_to_standard_error(tmp_path, capfd):
    raw = bytearray(nibabel.Nifti1Image(volume(), np.eye(4)).to_bytes())
    raw[254:256] = b"\x02\x01"  # sform_code
    (tmp_path / "a.nii").write_bytes(raw)
    notes = load(tmp_path / "a.nii").notes
    assert notes[0] == "headers of NIfTI files are unusual: sform_code 258 not valid; setting to 0"
    assert capfd.readouterr().err == ""


def test_files_of_one_series_can_be_kept_together(tmp_path):
    for i, part in enumerate(np.concatenate([volume(), volume(1)])):
        dicom(tmp_path / f"{i:02}.dcm", part, SeriesInstanceUID=f"1.2.{i % 4}")
    assert any("`group='series'` keeps them in one" in note for note in load(tmp_path).notes)
    data = load(tmp_path, group="series")
    parts = [set(getattr(data, part).columns["series"]) for part in ("train", "valid", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 4
    assert set.union(*parts) == {f"{i:02}.dcm" for i in range(4)}


def test_damaged_medical_files_are_refused(tmp_path):
    dicom(tmp_path / "a.dcm", volume())
    nibabel.save(nibabel.Nifti1Image(volume(), np.eye(4)), tmp_path / "a.nii")
    for name in ("a.dcm", "a.nii"):
        whole = (tmp_path / name).read_bytes()
        for content in (b"", b"no", whole[: len(whole) - 60]):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(DataError, match=name.replace(".", r"\.")):
                load(tmp_path / name)
    dicom(tmp_path / "b.dcm", volume(), Rows=60000, Columns=60000)
    with pytest.raises(DataError, match="declares slices of shape"):
        load(tmp_path / "b.dcm")
