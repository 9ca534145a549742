"""What several test files share."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait must not spin beside other tests

import getpass
import tempfile

import pytest
import torch

# compiled code is kept apart by the processor's instructions: torch's cache of graphs does not tell them apart
CAPABILITY = torch.backends.cpu.get_cpu_capability().lower()
OWN = f"vaekit-tests-{getpass.getuser()}-{CAPABILITY}"
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(tempfile.gettempdir(), OWN))


@pytest.fixture(scope="session")
def fashion_mnist():
    """Fashion-MNIST, or a skip with the reason where it can be had nowhere."""
    import vaekit as vk

    try:
        return vk.load("fashion-mnist")
    except vk.VaekitError as error:
        pytest.skip(f"no Fashion-MNIST here: {error}")
