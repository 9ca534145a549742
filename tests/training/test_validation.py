"""Validation in blocks: what is held in memory does not change the results."""

import numpy as np
import pytest
from core_helpers import QUIET, blobs

import vaekit as vk
from vaekit.training import validation

KEPT = {"seconds": 0}


@pytest.fixture(scope="module")
def data():
    x = blobs(60)
    return vk.from_arrays(np.stack([x, 255 - x, x // 2], -1))


def log_of(data, path):
    run = vk.fit(data, out=path, steps=6, validate_steps=2, network="dense", latent=2, hidden=(8,), batch=10, **QUIET)
    return [record | KEPT for record in run.log], (path / "model.safetensors").read_bytes()


def numbers(record):
    return {name: value for name, value in record.items() if not isinstance(value, str)}


def test_x_that_is_read_again_for_each_validation_is_the_same(data, tmp_path, monkeypatch):
    held = log_of(data, tmp_path / "held")
    monkeypatch.setattr(validation, "HELD", 0)
    assert log_of(data, tmp_path / "again") == held


def test_large_images_are_measured_in_smaller_blocks(data, tmp_path, monkeypatch):
    log, weights = log_of(data, tmp_path / "whole")
    monkeypatch.setattr(validation, "VALUES", 2 * data.train[:1].size)
    blocks, kept = log_of(data, tmp_path / "blocks")
    assert kept == weights
    assert [numbers(one) for one in blocks] == [pytest.approx(numbers(one), rel=1e-5) for one in log]
