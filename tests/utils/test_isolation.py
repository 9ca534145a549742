"""Training is the same whatever the caller has set around it, and in threads; or it is refused in words."""

import threading

import numpy as np
import pytest
import torch
from core_helpers import QUIET, blobs, own_network, same

import vaekit as vk
from vaekit.errors import ChoiceError
from vaekit.run import fit
from vaekit.utils.isolation import in_full_precision, seeded, undisturbed

TINY = {**QUIET, "latent": 2, "hidden": (8,), "batch": 16, "steps": 8}


@pytest.fixture(scope="module")
def images():
    return vk.from_arrays(blobs(61), name="blobs")


@pytest.fixture(scope="module")
def alone(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    fit(images, "vae", out=out, **TINY)
    return out


@pytest.mark.parametrize(
    "around",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16), lambda: torch.device("meta")],
    ids=["no_grad", "inference_mode", "autocast", "a default device"],
)
def test_whatever_is_around_training_changes_nothing(images, alone, tmp_path, around):
    with around():
        fit(images, "vae", out=tmp_path / "run", **TINY)
    assert same(tmp_path / "run", alone)


def test_a_run_computes_alike_under_autocast(alone):
    run, raw = vk.open(alone), blobs(9)
    z, x, scores = run.encode(raw), run.reconstruct(raw), run.score(raw, samples=3)
    with torch.autocast("cpu", torch.bfloat16):
        for there, here in ((run.encode(raw), z), (run.reconstruct(raw), x), (run.score(raw, samples=3), scores)):
            np.testing.assert_array_equal(there, here)


def test_another_default_dtype_is_refused_in_words(images, alone, tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        for use in (lambda: fit(images, "vae", out=tmp_path / "run", **TINY), lambda: vk.open(alone)):
            with pytest.raises(ChoiceError, match=r"torch\.float64.*set_default_dtype\(torch\.float32\)"):
                use()
    finally:
        torch.set_default_dtype(torch.float32)
    assert not (tmp_path / "run").exists()


def test_compositions_that_cannot_be_trained_are_refused_in_words(images, tmp_path):
    with torch.inference_mode():
        frozen = own_network()
    double = own_network()
    double.model.double()
    for made, said in ((frozen, "inference_mode"), (double, r"torch\.float64.*\.float\(\)")):
        with pytest.raises(ChoiceError, match=said):
            fit(images, made, out=tmp_path / "run", steps=2, **QUIET)
    assert not (tmp_path / "run").exists()


def test_training_leaves_torch_as_it_was(images, tmp_path):
    made = own_network()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    fit(images, made, out=tmp_path / "run", steps=3, **QUIET)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(3):
        torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()
    assert float(torch.tensor(1e-310, dtype=torch.float64) * 1) != 0  # subnormal numbers are numbers again


def test_trainings_in_threads_are_those_of_one_thread(images, tmp_path):
    """Initial weights and dropout draw from torch's one generator: threads take turns. Opening a run seeds it too."""
    networks = {seed: own_network(seed=seed) for seed in range(3)}
    fit(images, "vae", out=tmp_path / "vae", seed=4, **TINY)
    for seed, made in networks.items():
        fit(images, made, out=tmp_path / f"{seed}", seed=seed, steps=8, **QUIET)
    together, failed = threading.Barrier(5), []

    def work(use):
        together.wait()
        try:
            use()
        except Exception as error:
            failed.append(error)

    def opening():
        for _ in range(5):
            vk.open(tmp_path / "vae")

    def training(seed, made):
        return lambda: fit(images, made, out=tmp_path / f"{seed}-thread", seed=seed, steps=8, **QUIET)

    uses = [training(seed, own_network(seed=seed)) for seed in networks]
    uses += [opening, lambda: fit(images, "vae", out=tmp_path / "vae-thread", seed=4, **TINY)]
    threads = [threading.Thread(target=work, args=(use,)) for use in uses]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed
    for name in ("vae", 0, 1, 2):
        assert same(tmp_path / f"{name}", tmp_path / f"{name}-thread"), name


@pytest.mark.parametrize("newer", [False, True])
def test_convolutions_are_measured_without_tf32_and_trained_as_before(newer):
    conv, inside = torch.backends.cudnn.conv, []

    @in_full_precision()
    def measure():
        inside.append(conv.fp32_precision)
        if not newer:
            assert torch.backends.cudnn.allow_tf32 is False
        raise KeyError

    before = conv.fp32_precision
    assert before == "tf32"
    try:
        if newer:  # torch refuses to read its older flag if conv and rnn differ
            torch.backends.cudnn.rnn.fp32_precision = "ieee"
        with undisturbed():
            assert conv.fp32_precision == before
            with pytest.raises(KeyError):
                measure()
        assert conv.fp32_precision == before
    finally:
        torch.backends.cudnn.rnn.fp32_precision = before
    assert inside != [before]
    assert torch.backends.cudnn.allow_tf32 is True
