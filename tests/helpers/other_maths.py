"""The special functions of another machine: results that differ from those here by a few units in the last place."""

import contextlib

import numpy as np
import pytest
import scipy.special
import torch

ULP = 2.0**-52
SPECIAL = {
    "ndtr": 4,
    "ndtri": 4,
    "expit": 4,
    "log_softmax": 4,
    "betainc": 2**10,
    "betaincc": 2**10,
    "gammainc": 2**10,
    "gammaincc": 2**10,
}
"""Units in the last place by which functions of `scipy.special` differ."""
OF_TORCH = ("exp", "log", "log_softmax", "softmax", "sigmoid", "tanh", "logsumexp", "cumsum")


@contextlib.contextmanager
def other_maths(seed=0):
    """Within this context, these functions and `numpy.exp` and `log` differ at random."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)

    def array(f, units):
        def changed(*given, **options):
            result = f(*given, **options)
            return result * (1 + units * ULP * rng.choice([-1.0, 0.0, 1.0], np.shape(result)))

        return changed

    def tensor(f, units=2):
        def changed(*given, **options):
            result = f(*given, **options)
            if result.dtype != torch.float64:
                return result
            sign = torch.randint(-1, 2, result.shape, generator=generator, dtype=result.dtype)
            return result * (1 + units * ULP * sign)

        return changed

    from vaekit.coding.latents import _standard

    _standard.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        for name, units in SPECIAL.items():
            patch.setattr(scipy.special, name, array(getattr(scipy.special, name), units))
        for name in ("exp", "log"):
            patch.setattr(np, name, array(getattr(np, name), 2))
        for name in OF_TORCH:
            for owner in (torch, torch.Tensor):
                if name in vars(owner) or name in dir(owner):
                    patch.setattr(owner, name, tensor(getattr(owner, name)))
        yield
    _standard.cache_clear()
