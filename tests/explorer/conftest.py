"""Each test of the explorer may export graphs to ONNX."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def every_export(onnx_operators_once):
    """Exports here share torch's table of operators."""
