"""What several test files share."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait must not spin beside other tests

import copy
import functools
import getpass
import tempfile

import pytest
import torch
from hypothesis import settings

settings.register_profile("seeded", derandomize=True, deadline=None)  # no test may depend on the speed of the machine
settings.load_profile("seeded")


def pytest_collection_modifyitems(items):
    """The longest test by far comes first: one that starts last keeps a worker busy while the others have ended."""
    items.sort(key=lambda item: item.name != "test_commands_run")


# compiled code is kept apart by the processor's instructions: torch's cache of graphs does not tell them apart
CAPABILITY = torch.backends.cpu.get_cpu_capability().lower()
OWN = f"vaekit-tests-{getpass.getuser()}-{CAPABILITY}"
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(tempfile.gettempdir(), OWN))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tests run on one thread: their networks are tiny, and the sums of a product then come in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def fashion_mnist():
    """Fashion-MNIST, or a skip with the reason where it can be had nowhere."""
    import vaekit as vk

    try:
        return vk.load("fashion-mnist")
    except vk.VaekitError as error:
        pytest.skip(f"no Fashion-MNIST here: {error}")


class Clock:
    """Stands for the module `time` where studies and training read it: only steps and starts move it."""

    def __init__(self):
        self.now, self.per_step, self.per_start = 1000.0, 0.03, 0.05

    def monotonic(self):
        return self.now


@pytest.fixture
def study_clock(monkeypatch):
    """A clock for trainings and studies that are bounded by minutes, so that they do the same on any machine."""
    from vaekit.training.loop import Trainer

    found, step, run = Clock(), Trainer.one_step, Trainer.run

    def one_step(trainer):
        found.now += found.per_step
        step(trainer)

    def started(trainer):
        found.now += found.per_start
        return run(trainer)

    monkeypatch.setattr(Trainer, "one_step", one_step)
    monkeypatch.setattr(Trainer, "run", started)
    for module in ("vaekit.training.fit", "vaekit.training.loop", "vaekit.studies", "vaekit.studies.bench"):
        monkeypatch.setattr(f"{module}.time", found)
    return found


@pytest.fixture(scope="session")
def onnx_operators_once():
    """torch.onnx builds its table of operators anew at each export, a third of the time that it takes: once will do."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        build = ONNXRegistry.from_torchlib
    except (ImportError, AttributeError):  # private, so it may move: exports are slower then, and no different
        yield
        return
    built = functools.cache(build)

    def own(*args, **options):
        kept = built(*args, **options)
        table = copy.copy(kept)
        table.functions = {name: list(found) for name, found in kept.functions.items()}  # exports add their own to it
        return table

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(own))
        yield


@pytest.fixture
def coarse_paths(monkeypatch):
    """Log-densities of flow matching along few steps, where they are not tested: all of them take a second per fit."""
    from vaekit.latents.densities import FlowMatchingDensity

    path = functools.partialmethod(FlowMatchingDensity.path, steps=2)
    monkeypatch.setattr(FlowMatchingDensity, "path", path)


@pytest.fixture
def compiler():
    """Skips where there is no C++ compiler."""
    from vaekit.utils.compiled import has_compiler

    if not has_compiler():
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
