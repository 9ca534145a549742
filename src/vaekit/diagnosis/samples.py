"""Diseases of the samples of a trained model: blur and memorised training data."""

from __future__ import annotations

import math

import numpy as np
import torch

from vaekit.metrics.samples import energies, preference, ratio

from .patient import Patient
from .registry import DATA, IMAGES, TRAINED, Symptom, disease

BLURRED = 0.25
"""A quarter of the energy of the finest details. Means of p(x|z) are always smoother than data: of sound runs on
Fashion-MNIST with 10 to 16 latents, they have 0.28 to 0.31."""
MEMORISED = 0.6
"""Samples that know nothing of the training data prefer them with 0.5; at 0.6 every fifth sample is drawn to a copy."""
MOST = 500


@disease("blur", "Reconstructions are blurred", stage="after", severity="note", needs=[TRAINED, DATA, IMAGES])
def blur(patient: Patient) -> Symptom | None:
    """Reconstructions have much less fine detail than the data"""
    run = patient.saved
    n = min(MOST, len(run.data.test))
    observed = run.observed("test")
    real, made = observed.raw(np.arange(n)), run.reconstruct("test", n=n)
    if np.isnan(np.asarray(real, float)).any():
        return None
    name, fine = next(iter(energies(made).items()))
    group = observed.groups(n)
    found = ratio(fine, energies(real)[name], a_group=group, b_group=group)
    if not found.high < BLURRED:
        return None
    evidence = (
        f"Reconstructions of {n:,} test images have {found.value:.2f} times the energy of the data (95% interval "
        f"{found.low:.2f} to {found.high:.2f}; limit {BLURRED:g}) at {name}."
    )
    remedy = "Use more latents, `likelihood='discretised-logistic'`, or a smaller `beta`."
    return Symptom(evidence, remedy, {"ratio": found.value, "low": found.low, "high": found.high})


@disease("memorised-samples", "Samples are copies of training data", stage="after", severity="serious",
         needs=[TRAINED, DATA])  # fmt: skip
def memorised(patient: Patient) -> Symptom | None:
    """Samples are nearer to training data than to held-out data, which both come from one source"""
    run = patient.saved
    if patient.known.missing or any(column.kind == "categorical" for column in run.spec.columns):
        return None
    train, held = patient.rows("train"), patient.rows("test")
    drawn = np.asarray(run.sample(MOST, seed=2), np.float64).reshape(MOST, -1)
    scale = train.std(0) if patient.kind not in ("image", "signal") else np.ones(train.shape[1])
    scale = np.where(scale > 0, scale, 1)
    rows = [torch.from_numpy(np.asarray(x / scale, np.float32)) for x in (drawn, train, held)]
    found = preference(*rows)
    if not found.low > MEMORISED or not math.isfinite(found.value):
        return None
    evidence = (
        f"Samples prefer training data over held-out data with {found.value:.2f} (95% interval {found.low:.2f} to "
        f"{found.high:.2f}; 0.5 if they knew nothing of them, limit {MEMORISED:g})."
    )
    remedy = "Train with `patience=5`, more data, `augment='flip,shift'` for images, or fewer latents."
    return Symptom(evidence, remedy, {"preference": found.value, "low": found.low, "high": found.high})
