"""How torch's threads wait: asleep while other programs use the cores, with the same results."""

import ctypes
import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from core_helpers import QUIET, blobs, same

import vaekit as vk
from vaekit.utils import waiting

linux = pytest.mark.skipif(sys.platform != "linux", reason="applies to Linux")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def names():
    return [thread.name for thread in threading.enumerate()]


def test_threads_sleep_at_the_first_contention_and_spin_again_after_a_calm_second():
    policy = waiting.Policy()
    assert not any(policy.update(share) for share in (0.0, 0.1, 0.24))
    assert policy.update(0.5)
    assert [policy.update(0.1) for _ in range(waiting.CALM)] == [True] * (waiting.CALM - 1) + [False]
    assert policy.update(0.5)
    assert all(policy.update(0.4) for _ in range(100))
    assert [policy.update(0.1) for _ in range(4)] == [True, True, False, False]  # the means are 0.34, 0.28 and 0.22


def test_the_delay_is_that_of_all_other_threads(tmp_path, monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=100.0)
    monkeypatch.setattr(waiting, "time", clock)

    def write(thread, milliseconds):
        (tmp_path / str(thread)).mkdir(exist_ok=True)
        (tmp_path / str(thread) / "schedstat").write_text(f"123 {milliseconds * 10**6} 7\n")

    own = threading.get_native_id()
    for thread, milliseconds in ((own, 0), (own + 1, 50), (own + 2, 10)):
        write(thread, milliseconds)
    delay = waiting.Delay(tmp_path)
    assert delay.known
    for thread, milliseconds in ((own, 900), (own + 1, 250), (own + 3, 100)):  # the last is new
        write(thread, milliseconds)
    (tmp_path / str(own + 2) / "schedstat").unlink()  # this one has ended
    clock.now += 2.0
    assert delay.share() == pytest.approx((0.2 + 0.1) / 2.0)
    (tmp_path / "empty").mkdir()
    assert not waiting.Delay(tmp_path / "empty").known
    assert not waiting.Delay(tmp_path / "absent").known


@linux
def test_a_crowd_is_a_team_of_threads_that_ends_with_it(two_threads):
    library = waiting.gnu_openmp()
    if library is None:
        pytest.skip("torch does not use GNU OpenMP here")

    def count():
        return len(os.listdir("/proc/self/task"))

    def until(reached):
        end = time.monotonic() + 20
        while not reached() and time.monotonic() < end:
            time.sleep(0.005)
        return reached()

    before, crowd = count(), waiting.Crowd(library)
    team = max(2, library.omp_get_num_procs())  # with torch's 2 threads, one more than there are cores
    for _ in range(2):
        crowd.set(True)
        crowd.set(True)
        assert until(lambda: count() == before + team)
        crowd.set(False)
        assert until(lambda: count() == before)


def test_one_thread_has_nobody_to_wait_for(monkeypatch):
    assert torch.get_num_threads() == 1
    assert waiting.gnu_openmp() is None
    monkeypatch.delitem(sys.modules, "torch")
    assert waiting.gnu_openmp() is None


def test_other_openmp_libraries_are_left_alone(monkeypatch, two_threads):
    class Library(set):
        def __getitem__(self, symbol):
            if symbol not in self:
                raise AttributeError(symbol)

    found = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: found)
    for symbols, gnu in (({"GOMP_parallel", "kmp_set_blocktime"}, False), (set(), False), ({"GOMP_parallel"}, True)):
        found.clear()
        found.update(symbols)
        assert (waiting.gnu_openmp() is found) == gnu


@linux
@pytest.mark.parametrize(("policy", "watched"), [(None, 1), ("passive", 0)])
def test_nested_contexts_share_one_watch_which_ends_with_them(monkeypatch, policy, watched):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    before = len(names())
    with waiting.adaptive_waiting():
        with waiting.adaptive_waiting():
            assert len(names()) == before + watched
        assert len(names()) == before + watched
    assert len(names()) == before


@linux
def test_results_do_not_depend_on_how_threads_wait(tmp_path, monkeypatch, two_threads):
    """Training switches between both ways at every measurement; validation and scoring too."""
    data, choices = vk.from_arrays(blobs(300, 12, 12)), dict(hidden=(64,), batch=100, steps=30, seed=3, **QUIET)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    kept = vk.fit(data, out=tmp_path / "kept", **choices)
    monkeypatch.delenv("OMP_WAIT_POLICY")
    switched, decide = [], waiting.Policy.update

    def update(self, share):
        switched.append(decide(self, 1.0 if len(switched) % 2 else 0.0))
        return switched[-1]

    monkeypatch.setattr(waiting, "INTERVAL", 0.002)
    monkeypatch.setattr(waiting, "CALM", 1)
    monkeypatch.setattr(waiting.Policy, "update", update)
    run = vk.fit(data, out=tmp_path / "switched", **choices)
    assert same(tmp_path / "kept", tmp_path / "switched")
    assert (run.score("test", samples=20) == kept.score("test", samples=20)).all()
    if waiting.gnu_openmp() is not None and Path("/proc/self/schedstat").exists():
        assert {True, False} <= set(switched)
