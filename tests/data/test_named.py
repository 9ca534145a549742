"""Named sets and the downloads behind them, from a server on this machine."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import itertools
import tarfile
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vaekit.data import datasets, download, load, named
from vaekit.data.download import File, Pace, fetch
from vaekit.data.readers import idx
from vaekit.errors import DataError

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
GOOD = File("a.bin", "sha256", hashlib.sha256(CONTENT).hexdigest())


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder with ranges; below /short/ it promises more than it sends."""

    asked: list[tuple[str, str | None]]

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        path = Path(self.directory) / self.path.lstrip("/").removeprefix("short/")
        if not path.is_file():
            self.send_error(404)
            return
        body, first = path.read_bytes(), 0
        if wanted := self.headers.get("Range"):
            first = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if first else 200)
        if self.server.length != "unsaid":
            self.send_header("Content-Length", self.server.length or str(len(body) - first))
        if self.server.stuck == "headers":
            self.flush_headers()
            self.server.until_cut(self.wfile)
            return
        self.end_headers()
        if self.server.stuck == "body":
            self.wfile.write(body[:1])
            self.server.until_cut(self.wfile)
            return
        self.wfile.write(body[first : len(body) // 2 if self.path.startswith("/short/") else None])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    root = tmp_path / "served"
    root.mkdir()
    (root / "a.bin").write_bytes(CONTENT)
    (root / "wrong").mkdir()
    (root / "wrong" / "a.bin").write_bytes(b"x" * len(CONTENT))
    handler = functools.partial(Handler, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.asked, running.root, running.length, running.stuck = [], root, None, None
        running.address = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    """No cache but the test's, no system folder, no mirror outside."""
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VAEKIT_MIRROR", "http://127.0.0.1:9")
    monkeypatch.setattr(named, "SYSTEM", tmp_path / "nowhere")


def test_good_file(server, tmp_path):
    seen = []
    path = fetch(GOOD, tmp_path / "in", [server.address], progress=lambda *told: seen.append(told))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == ("downloading a.bin", len(CONTENT), len(CONTENT))
    assert [file.name for file in (tmp_path / "in").iterdir()] == ["a.bin"]


def test_second_mirror_after_404_and_wrong_checksum(server, tmp_path):
    mirrors = [f"{server.address}/absent", f"{server.address}/wrong", server.address]
    assert fetch(GOOD, tmp_path / "in", mirrors).read_bytes() == CONTENT
    with pytest.raises(DataError, match=r"absent/a\.bin: the server answers 404.*wrong sha256, expected"):
        fetch(replace(GOOD, checksum="0" * 64), tmp_path / "other", mirrors)
    assert not [*(tmp_path / "other").iterdir()]


def test_truncated_is_refused_then_continued_elsewhere(server, tmp_path):
    with pytest.raises(DataError, match=r"cut short|IncompleteRead"):
        fetch(GOOD, tmp_path / "in", [f"{server.address}/short"])
    assert not (tmp_path / "in" / "a.bin").exists()
    half = (tmp_path / "in" / "a.bin.part").stat().st_size
    assert 0 < half < len(CONTENT)
    assert fetch(GOOD, tmp_path / "in", [server.address]).read_bytes() == CONTENT
    assert server.asked[-1] == ("/a.bin", f"bytes={half}-")
    assert not (tmp_path / "in" / "a.bin.part").exists()


def test_part_of_something_else_is_started_again(server, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.bin.part").write_bytes(b"rubbish")
    assert fetch(GOOD, tmp_path / "in", [server.address]).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == ["bytes=7-", None]


def test_a_length_that_is_no_number_or_too_large(server, tmp_path):
    for length, says in (("many", "'many' bytes"), ("-1", "'-1' bytes"), (str(10**12), "at most 300001")):
        server.length = length
        with pytest.raises(DataError, match=says):
            fetch(replace(GOOD, most=300_001), tmp_path / "in", [server.address])
        assert not [*(tmp_path / "in").iterdir()]


def test_more_than_a_file_can_have_is_not_kept(server, tmp_path):
    server.length = "unsaid"
    with pytest.raises(DataError, match="more than 1000 bytes"):
        fetch(replace(GOOD, most=1000), tmp_path / "in", [server.address])
    assert not [*(tmp_path / "in").iterdir()]


@pytest.mark.parametrize("stuck", ["headers", "body"])
def test_a_connection_is_cut_when_its_time_is_over(server, tmp_path, monkeypatch, stuck):
    """Its timer is run as soon as the server is stuck; headers have the timeout, the whole file its seconds."""
    timers = []

    class Timer:
        def __init__(self, seconds, function):
            self.seconds, self.function, self.over = seconds, function, False
            timers.append(self)

        def start(self):
            pass

        def cancel(self):
            self.over = True

    def until_cut(to):
        (timer,) = [t for t in timers if not t.over]
        timer.function()
        with contextlib.suppress(OSError):
            while True:  # until the other side is gone
                to.write(b"x")

    monkeypatch.setattr(download, "threading", SimpleNamespace(Timer=Timer))
    server.stuck, server.until_cut = stuck, until_cut
    one = replace(GOOD, seconds=300, most=10**6)
    with pytest.raises(DataError, match=r"Connection|Remote end closed|cut short"):  # but not "sends more than"
        fetch(one, tmp_path / "in", [server.address], timeout=40, clock=lambda: 0.0)
    seconds = [
        t.seconds for t in timers
    ]  # headers that end where they are cut may be read as whole ones, without a body
    assert seconds == [40, 300] or (stuck == "headers" and seconds == [40])
    server.stuck = None
    assert fetch(GOOD, tmp_path / "in", [server.address]).read_bytes() == CONTENT  # goes on, or starts again
    assert all(t.over for t in timers[-2:])


def every(seconds: float):
    """A clock that is read at intervals of so many seconds."""
    return itertools.count(0, seconds).__next__


def test_a_server_that_drips_is_left_for_the_next(server, tmp_path):
    """The body comes in one or several pieces; between readings of the clock pass 1,000 s, or 1 s."""
    slow = every(1000.0)
    with pytest.raises(DataError, match=r"the server sends fewer than 1,000 bytes per second"):
        fetch(replace(GOOD, seconds=1e9), tmp_path / "in", [server.address], clock=slow)
    assert not (tmp_path / "in" / "a.bin").exists()
    with pytest.raises(DataError, match=r"not finished after 2 s; .*the time limit of 2 s for this file is exceeded"):
        fetch(replace(GOOD, seconds=2), tmp_path / "other", [server.address] * 2, clock=every(0.5))
    assert fetch(GOOD, tmp_path / "in", [server.address], clock=every(1.0)).read_bytes() == CONTENT


@pytest.mark.parametrize(("rate", "slow"), [(1, True), (999, True), (1000, False), (10**6, False)])
def test_the_pace_is_that_of_each_stretch(rate, slow):
    """One second between pieces: the verdict comes with the 30th, and a fast start does not excuse a slow end."""
    now = iter(range(200))
    pace = Pace(30.0, lambda: next(now))
    assert [pace.is_too_slow(10**6) for _ in range(30)] == [False] * 30
    assert [pace.is_too_slow(rate) for _ in range(30)] == [False] * 29 + [slow]


def encode(x: np.ndarray) -> bytes:
    return bytes([0, 0, 8, x.ndim]) + np.array(x.shape, ">u4").tobytes() + x.tobytes()


@pytest.fixture
def small(monkeypatch):
    """MNIST in small: 12 training and 4 test images under their true file names; returns {file name: gzip}."""
    rng = np.random.default_rng(0)
    shapes = [(12, 28, 28), (12,), (4, 28, 28), (4,)]
    content = [encode(rng.integers(0, 10, shape, dtype=np.uint8)) for shape in shapes]
    known = named.SETS["mnist"]
    files = tuple(
        replace(file, checksum=hashlib.sha256(data).hexdigest())
        for file, data in zip(known.files, content, strict=True)
    )
    monkeypatch.setitem(named.SETS, "mnist", replace(known, files=files, splits=(9, 12, 16)))
    return {file.name: gzip.compress(data) for file, data in zip(files, content, strict=True)}


def test_named_set_is_downloaded_checked_packed_once(small, server, monkeypatch, tmp_path):
    (server.root / "mnist").mkdir()
    for name, data in small.items():
        (server.root / "mnist" / name).write_bytes(data)
    monkeypatch.setenv("VAEKIT_MIRROR", server.address)
    data = load("mnist")
    assert (len(data.train), len(data.valid), len(data.test)) == (9, 3, 4)
    assert isinstance(data.train.raw, np.memmap)
    assert data.train.raw.dtype == np.uint8
    assert data.label_names == list("0123456789")
    x = idx.read(tmp_path / "cache" / "mnist" / "t10k-images-idx3-ubyte.gz")
    np.testing.assert_array_equal(data.test[:], x)
    asked = len(server.asked)
    assert load("mnist").digest == data.digest
    assert len(server.asked) == asked
    with pytest.raises(DataError, match="their own valid split"):
        load("mnist", valid=0.3)


def test_files_put_there_by_hand_or_by_the_system(small, tmp_path, monkeypatch):
    for place in (tmp_path / "cache" / "mnist", tmp_path / "system" / "mnist"):
        place.mkdir(parents=True)
        for name, data in small.items():
            (place / name).write_bytes(data)
        assert len(load("mnist").test) == 4
        monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "other"))
        monkeypatch.setattr(named, "SYSTEM", tmp_path / "system")
    (tmp_path / "system" / "mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(DataError, match=r"t10k-labels.*wrong sha256.*remove it"):
        load("mnist", cache=tmp_path / "third")


def test_all_mirrors_fail(tmp_path):
    with pytest.raises(DataError, match=r"apt-get install dataset-fashion-mnist.*by hand.*VAEKIT_MIRROR") as caught:
        load("fashion-mnist")
    assert "127.0.0.1:9/fashion-mnist/train-images-idx3-ubyte.gz" in str(caught.value)
    assert "\n" not in str(caught.value)


def archive(records: int, missing: str | None = None) -> bytes:
    rng = np.random.default_rng(1)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
            if name != missing:
                rows = rng.integers(0, 256, (records, 3073), dtype=np.uint8)
                rows[:, 0] %= 10
                info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                info.size = rows.nbytes
                tar.addfile(info, io.BytesIO(rows.tobytes()))
    return buffer.getvalue()


def test_cifar(tmp_path, monkeypatch):
    whole = archive(4)
    file = replace(named.SETS["cifar10"].files[0], checksum=hashlib.md5(whole).hexdigest())
    known = replace(named.SETS["cifar10"], files=(file,), splits=(18, 20, 24))
    monkeypatch.setitem(named.SETS, "cifar10", known)
    (tmp_path / "cache" / "cifar10").mkdir(parents=True)
    (tmp_path / "cache" / "cifar10" / file.name).write_bytes(whole)
    data = load("cifar10")
    assert (data.shape, len(data.train), len(data.test)) == ((3, 32, 32), 18, 4)
    record = np.random.default_rng(1).integers(0, 256, (4, 3073), dtype=np.uint8)[0]
    np.testing.assert_array_equal(data.events(data.train[:1])[0], record[1:].reshape(3, 32, 32))
    assert data.train.label[0] == record[0] % 10
    for broken in (archive(4, missing="data_batch_3.bin"), whole[:5000], b"no archive"):
        (tmp_path / "cache" / "cifar10" / file.name).write_bytes(broken)
        with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz"):
            named.read_cifar(tmp_path / "cache" / "cifar10", (file,))


def test_digits():
    data = load("digits")
    assert (data.shape, data.scale, data.kind) == ((1, 8, 8), (0.0, 16.0), "image")
    assert (data.train.raw.dtype, data.train.raw.max()) == (np.uint8, 16)
    assert [len(split) for split in (data.train, data.valid, data.test)] == [1437, 180, 180]


def test_list_of_datasets():
    listed = datasets()
    assert [entry["name"] for entry in listed] == ["fashion-mnist", "mnist", "cifar10", "dsprites", "digits"]
    assert all(set(entry) == {"name", "summary", "paper", "arguments"} for entry in listed)


def test_unknown_names_are_guessed():
    with pytest.raises(DataError, match="did you mean 'fashion-mnist'"):
        load("fashion_mnist")
    with pytest.raises(DataError, match="neither a data set nor a path"):
        load("/no/such/place")
