"""Cells for tests: a stand-in for AnnData objects, which have the same parts."""

import sys
import types
from unittest import mock

import numpy as np
import pytest
from scipy import sparse


class AnnData:
    """The parts of an AnnData that vaekit reads, with a table of pyarrow as obs."""

    def __init__(self, counts, **obs):
        pa = pytest.importorskip("pyarrow")
        self.X, self.raw, self.layers = sparse.csr_array(counts), None, {}
        n, d = self.X.shape
        self.obs_names, self.var_names = [f"c{i}" for i in range(n)], [f"g{i}" for i in range(d)]
        self.obs = pa.table(obs or {"batch": np.array(["ab"[i % 2] for i in range(n)])})


def installed():
    """A context in which `AnnData` is the class of the package anndata."""
    return mock.patch.dict(sys.modules, {"anndata": types.SimpleNamespace(AnnData=AnnData)})
