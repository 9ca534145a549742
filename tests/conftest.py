"""What several test files share."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait must not spin beside other tests

import pytest


@pytest.fixture(scope="session")
def fashion_mnist():
    """Fashion-MNIST, or a skip with the reason where it can be had nowhere."""
    import vaekit as vk

    try:
        return vk.load("fashion-mnist")
    except vk.VaekitError as error:
        pytest.skip(f"no Fashion-MNIST here: {error}")
