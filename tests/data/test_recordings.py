"""Sound: windows of the samples as they were written, with rate, channels and recordings kept."""

import numpy as np
import pytest

import vaekit as vk
from vaekit.data import cache as caches
from vaekit.data import load, read_rows
from vaekit.data.arrays import is_map
from vaekit.data.readers import recordings
from vaekit.errors import DataError

soundfile = pytest.importorskip("soundfile")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


def write(path, seed=0, n=1000, channels=1, rate=8000, **more):
    samples = np.random.default_rng(seed).integers(-(2**15), 2**15, (n, channels)).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples[:, 0] if channels == 1 else samples, rate, **more)
    return samples.astype("f4") / 2**15


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_windows_are_the_samples_of_the_file(tmp_path, suffix, channels, large, monkeypatch):
    monkeypatch.setattr(caches, "LARGE", 10 if large else 2**30)
    samples = write(tmp_path / f"a.{suffix}", channels=channels)
    data = load(tmp_path / f"a.{suffix}", window=64)
    want = samples[:960].reshape(15, 64, channels)
    np.testing.assert_array_equal(data.train.raw, want if channels == 2 else want[..., 0])
    assert (data.kind, data.shape, data.options) == ("signal", (channels, 64), {"window": 64, "sample_rate": 8000})
    assert is_map(data.train.raw) == large
    assert any("40 samples after the last whole window" in note for note in data.notes)
    assert data.train.columns["start"].tolist() == [i * 64 / 8000 for i in data.train.index]


def test_folders_give_labels_and_recordings_that_can_be_kept_together(tmp_path):
    for i in range(8):
        write(tmp_path / "set" / "ab"[i % 2] / f"{i}.wav", seed=i, n=200)
    data = load(tmp_path / "set", window=50, group="recording")
    assert (len(data.train.raw), data.label_names) == (32, ["a", "b"])
    parts = [set(getattr(data, part).columns["recording"]) for part in ("train", "valid", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 8
    assert any("`group='recording'`" in note for note in load(tmp_path / "set", window=50).notes)


def test_other_rates_and_channels_are_refused_with_the_command_that_converts(tmp_path):
    write(tmp_path / "a.wav")
    write(tmp_path / "b.wav", rate=16000)
    with pytest.raises(
        DataError, match=r"b\.wav has 16,000 samples per second, expected 8,000 as a\.wav.*ffmpeg -i b\.wav -ar 8000"
    ):
        load(tmp_path, window=64)
    with pytest.raises(DataError, match="expected 16,000 as `sample_rate`"):
        load(tmp_path / "a.wav", window=64, sample_rate=16000)
    write(tmp_path / "b.wav", channels=2)
    with pytest.raises(DataError, match=r"2 channels, expected 1 as a\.wav.*-ac 1"):
        load(tmp_path, window=64)
    with pytest.raises(DataError, match="no recording has 5,000 samples"):
        load(tmp_path / "a.wav", window=5000)


def test_damaged_sound_is_refused(tmp_path):
    for suffix in ("wav", "flac"):
        write(tmp_path / f"a.{suffix}")
        whole = (tmp_path / f"a.{suffix}").read_bytes()
        for content in (b"", b"no", whole[:20]):
            (tmp_path / f"a.{suffix}").write_bytes(content)
            with pytest.raises(DataError, match=rf"a\.{suffix} cannot be read as sound"):
                load(tmp_path / f"a.{suffix}")


def test_recordings_that_are_left_out_or_do_not_state_their_length_are_named(tmp_path):
    for i, n in enumerate((400, 30, 400)):
        write(tmp_path / f"{i}.flac", seed=i, n=n)
    notes = load(tmp_path, window=64).notes
    assert any("1 recording shorter than a window: left out: 1.flac" in note for note in notes)
    assert any(note.startswith("32 samples after the last whole window") for note in notes)
    content = bytearray((tmp_path / "0.flac").read_bytes())
    content[21] &= 0xF0  # the number of samples in STREAMINFO, 36 bits, 0 if unknown
    content[22:26] = bytes(4)
    (tmp_path / "0.flac").write_bytes(content)
    with pytest.raises(DataError, match=r"0\.flac does not state its length.*ffmpeg -i 0\.flac"):
        load(tmp_path, window=64)


def flac(path, subtype, channels, seed, n=1000):
    """A FLAC file, and its samples as float32."""
    samples = np.random.default_rng(seed).integers(-(2**31), 2**31, (n, channels)).astype(np.int32)
    soundfile.write(path, samples[:, 0] if channels == 1 else samples, 8000, format="FLAC", subtype=subtype)
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_the_checksum_of_flac_is_compared_with_all_samples(tmp_path, subtype, channels, monkeypatch):
    """MD5 is at byte 26 of the file; the frames of both files have valid checksums of their own."""
    monkeypatch.setattr(recordings, "BLOCK", 150)
    path = tmp_path / "a.flac"
    flac(path, subtype, channels, seed=1)
    other = path.read_bytes()[26:42]
    samples = flac(path, subtype, channels, seed=0)
    whole = path.read_bytes()
    assert any(whole[26:42])
    read = read_rows(path, window=64).x
    np.testing.assert_array_equal(np.asarray(read).reshape(960, channels), samples[:960])
    path.write_bytes(whole[:26] + other + whole[42:])
    with pytest.raises(DataError, match=r"a\.flac cannot be read as sound .*MD5 checksum.*: damaged; copy it again"):
        load(path, window=64)
    path.write_bytes(whole[:26] + bytes(16) + whole[42:])  # zeros stand for no checksum
    np.testing.assert_array_equal(read_rows(path, window=64).x, read)
    tag = b"ID3\4\0\0\0\0\2\7" + bytes(2 * 128 + 7)
    path.write_bytes(tag + whole)
    np.testing.assert_array_equal(read_rows(path, window=64).x, read)
    path.write_bytes(tag + whole[:26] + other + whole[42:])
    with pytest.raises(DataError, match="MD5 checksum"):
        load(path, window=64)


def test_a_large_flac_with_a_wrong_checksum_is_not_kept_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(caches, "LARGE", 10)
    path = tmp_path / "a.flac"
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:26] + b"x" * 16 + whole[42:])
    for _ in range(2):
        with pytest.raises(DataError, match="MD5 checksum"):
            load(path, window=64)
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_model_of_sound_takes_recordings_of_its_rate(tmp_path):
    write(tmp_path / "a.wav")
    data = load(tmp_path / "a.wav", window=32)
    run = vk.fit(data, out=tmp_path / "run", steps=2, latent=2, hidden=(4,), batch=8, compile="off", progress=False)
    write(tmp_path / "b.flac", seed=3)
    assert len(run.encode(tmp_path / "b.flac")) == 31
    write(tmp_path / "c.flac", seed=3, rate=44100)
    with pytest.raises(DataError, match="expected 8,000 as `sample_rate`"):
        run.encode(tmp_path / "c.flac")
