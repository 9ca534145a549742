"""Diseases of the samples of a trained model: blur and memorised training data."""

from __future__ import annotations

import numpy as np

from vaekit.metrics.samples import ABOVE, Reference, drawn_by, energies, ratio
from vaekit.metrics.samples.samplers import PRIOR

from .patient import Patient
from .registry import DATA, IMAGES, TRAINED, NotJudged, Symptom, disease

BLURRED = 0.25
"""A quarter of the energy of the finest details. Means of p(x|z) are always smoother than data: of sound runs on
Fashion-MNIST with 10 to 16 latents, they have 0.28 to 0.31."""
MEMORISED = 0.1
"""Independent samples prefer training data as much as validation data do, usually with 0.5; if a fifth are copies, by
0.1 more."""
MOST = 500
"""Test images, and samples, that are measured at most."""
FEW = 20
"""Validation rows that the floor of memorisation needs."""


@disease("blur", "Reconstructions are blurred", stage="after", severity="note", needs=[TRAINED, DATA, IMAGES])
def blur(patient: Patient) -> Symptom | NotJudged | None:
    """Reconstructions have much less fine detail than the data"""
    run = patient.saved
    n = min(MOST, len(run.data.test))
    observed = run.observed("test")
    real, made = observed.raw(np.arange(n)), run.reconstruct("test", n=n)
    if n < 2 or patient.known.missing:
        return NotJudged("values are missing" if n > 1 else "it needs 2 test examples")
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
def memorised(patient: Patient) -> Symptom | NotJudged | None:
    """Samples are nearer to training data than to held-out data, which both come from one source"""
    run = patient.saved
    reference = Reference(patient.known, n=MOST, features="raw")
    drawn = drawn_by(run, PRIOR, MOST, seed=2)
    found = next(one for one in reference.measure(drawn) if one.name == "memorisation")
    if len(reference.data.valid) < FEW or not np.isfinite(found.parts[ABOVE].low):
        return NotJudged(f"it needs {FEW} validation rows or more")
    value, above = found.estimate.value, found.parts[ABOVE]
    if not above.low > MEMORISED:
        return None
    evidence = (
        f"Samples prefer training data over held-out data with {value:.2f}, and validation data in their place with "
        f"{found.floor.value:.2f}: the difference is {above.value:.2f} (95% interval {above.low:.2f} to "
        f"{above.high:.2f}; limit {MEMORISED:g}), by distances of {reference.values.text}."
    )
    remedy = "Train with `patience=5`, more data, `augment='flip,shift'` for images, or fewer latents."
    numbers = {"preference": value, "above_validation_data": above.value, "low": above.low, "high": above.high}
    return Symptom(evidence, remedy, numbers)
