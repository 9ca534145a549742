"""Diseases that can be seen before training: of the data, and of the settings for these data."""

from __future__ import annotations

import math

import numpy as np

from vaekit.data.core import counted, listed
from vaekit.data.observation import Binary, Dequantised, Grey, Threshold
from vaekit.heads import LocationScale
from vaekit.objectives.schedules import unfinished
from vaekit.options import Options
from vaekit.recipes.composition import DataSpec
from vaekit.training.overfitting import small_set
from vaekit.training.prepare import constants, extreme, few_rows, piled_up

from .neighbours import compared, exact_copies, near_copies, share_at_least
from .patient import Patient
from .registry import DATA, SETTINGS, Need, NotJudged, Symptom, disease
from .spectrum import ROWS, kept

LEAKED = 0.01
"""Copies in more than this share of the test rows change a mean by more than its usual standard error."""
HELD_LITTLE = 0.5
"""A linear code that keeps less than this share of the variance loses more than it keeps."""
NARROW = 0.25
"""Data in a quarter of their range are usually divided by the wrong number, such as 255 for values up to 16."""
EPOCHS_AT_LEAST = 1.0
"""With fewer passes, some rows are never seen."""
MOVED_AT_LEAST = 0.1
"""Adam moves a weight by at most about the learning rate per step. Weights start at about 1 / sqrt(inputs), which is
0.03 to 0.1 for 100 to 1,000 inputs: a network whose weights can move by less than 0.1 in all stays near its start."""


def _in_memory(patient: Patient) -> str | None:
    return None if patient.in_memory else "the rows are computed when they are read"


IN_MEMORY = Need("rows in memory or on disk", _in_memory)


@disease("range", "The data do not fit the likelihood", stage="before", severity="serious", needs=[DATA])
def out_of_range(patient: Patient) -> Symptom | None:
    """The values lie outside the support of the likelihood, or use little of the range that it assumes"""
    low, high = patient.known.scale
    if patient.composition is not None:
        return _narrow(patient) if patient.in_memory else None
    evidence, _, remedy = patient.refusal.partition(": ")
    if not remedy:
        evidence, remedy = patient.refusal, "choose another recipe: `vaekit recipes` lists the data that each one suits"
    return Symptom(_sentence(evidence), _sentence(remedy), {"lowest": float(low), "highest": float(high)})


def _narrow(patient: Patient) -> Symptom | None:
    """The symptom of values that use little of the range that the observation divides by."""
    seen = patient.model.observation
    if not isinstance(seen, Binary | Grey | Dequantised | Threshold):
        return None
    low, high = patient.known.scale
    x = patient.rows("train")
    least, most = float(np.nanmin(x)), float(np.nanmax(x))
    if high <= low or (used := (most - least) / (high - low)) >= NARROW:
        return None
    evidence = (
        f"The training rows run from {least:g} to {most:g}, {used:.0%} of the range {low:g} to {high:g} that the "
        f"{seen.kind!r} observation divides by (limit {NARROW:.0%}): the model sees nearly constant data."
    )
    remedy = "Rescale the data to their range: floats in [0, 1] (x / x.max()), or uint8 up to 255."
    learned = isinstance(getattr(patient.model.model.likelihood, "head", None), LocationScale)
    numbers = {"lowest": least, "highest": most, "share_of_range": used}
    return Symptom(evidence, remedy, numbers, severity="warning" if learned else None)


@disease("extreme-values", "Extreme values hide the others", stage="before", severity="warning",
         needs=[DATA, SETTINGS, IN_MEMORY])  # fmt: skip
def extreme_values(patient: Patient) -> Symptom | None:
    """A few values are so extreme that the others look constant to the model"""
    said = extreme(patient.known, patient.model)
    if said is None:
        return None
    evidence, _, remedy = said.rpartition("; ")
    return Symptom(_sentence(evidence), _sentence(remedy), {})


@disease("sharp-density", "The density can grow without bound", stage="before", severity="warning",
         needs=[DATA, SETTINGS, IN_MEMORY])  # fmt: skip
def sharp_density(patient: Patient) -> Symptom | None:
    """Many values are exactly at an end of the range, where a continuous density can become arbitrarily high"""
    said = piled_up(patient.known, patient.model)
    if said is None:
        return None
    evidence, _, remedy = said.rpartition("; ")
    return Symptom(_sentence(evidence), _sentence(remedy), {})


@disease("constant-columns", "Columns are constant", stage="before", severity="note",
         needs=[DATA, SETTINGS, IN_MEMORY])  # fmt: skip
def constant_columns(patient: Patient) -> Symptom | None:
    """Columns with one value in all training rows carry no information, and another value later is a surprise"""
    spec_constant = _constant_of(patient)
    if not spec_constant:
        return None
    said = constants(patient.known, patient.model)
    data = patient.known
    names = [data.feature_names[i] if data.feature_names else str(i) for i, _ in spec_constant]
    evidence = said or (
        f"{counted(len(names), 'column')} of {math.prod(data.shape):,} ({listed(names, 6)}) "
        f"{'is' if len(names) == 1 else 'are'} constant in the training rows"
    )
    differ = said is not None and "rows differ)" in said
    remedy = "Drop these columns (`drop=['NAME']` for a table)."
    if differ:
        remedy = "Drop these columns (`drop=['NAME']` for a table), or split so that the training rows hold each value."
    return Symptom(
        _sentence(evidence),
        remedy,
        {"columns": len(names), "of": math.prod(data.shape)},
        severity="warning" if differ else None,
    )


def _constant_of(patient: Patient) -> tuple[tuple[int, float], ...]:
    """Index and value of each element that is constant in the training rows; empty for images and signals."""
    return (patient.run.spec if patient.run is not None else DataSpec.of(patient.known)).constant


@disease("duplicates", "Rows occur in two splits", stage="before", severity="serious", needs=[DATA, IN_MEMORY])
def duplicates(patient: Patient) -> Symptom | NotJudged | None:
    """Test or validation rows are exact copies of training rows, so that held-out numbers are too good"""
    data = patient.known
    if not _continuous(patient):
        return NotJudged(REPEATED)
    found = {split: exact_copies(data, split) for split in ("valid", "test")}
    count, of = (sum(part[i] for part in found.values()) for i in (0, 1))
    part = compared(data)
    if not count:
        return None if part == 1 else NotJudged(_sampled(part))
    certain = share_at_least(count, of, LEAKED * part)
    evidence = (
        f"{count:,} of {of:,} validation and test rows ({count / of:.1%}) are equal to "
        f"{_one_of(part)}"
        f"{'' if certain else f', too few to change a mean by much (the limit is {LEAKED:.0%})'}."
    )
    remedy = "Remove the copies, or keep copies in one split with `group=COLUMN`."
    numbers = {"copies": count, "of": of, "share": count / of, "share_of_training_rows": part}
    return Symptom(evidence, remedy, numbers, severity="serious" if certain else "note")


@disease("near-duplicates", "Rows nearly occur in two splits", stage="before", severity="warning",
         needs=[DATA, IN_MEMORY])  # fmt: skip
def near_duplicates(patient: Patient) -> Symptom | NotJudged | None:
    """Test rows are nearly equal to training rows: versions of one image, or rows of one source"""
    data = patient.known
    if not _continuous(patient):
        return NotJudged(REPEATED)
    if data.missing:
        return NotJudged("values are missing")
    if len(data.train) < 100 or len(data.test) < 20:
        return NotJudged("it needs 100 training and 20 test rows")
    found = near_copies(patient)
    if not found.more_than_chance or not share_at_least(found.near, found.of, LEAKED * found.part):
        return None if found.part == 1 else NotJudged(_sampled(found.part))
    evidence = (
        f"{found.near:,} of {found.of:,} test rows ({found.near / found.of:.1%}) are {found.ratio:g} times nearer "
        f"to {_one_of(found.part)} than to their tenth-nearest one; data of {found.dimension:.0f} intrinsic dimensions "
        f"have {found.expected:.1%} of such rows by chance."
    )
    remedy = "Keep versions of one example in one split with `group=COLUMN`, or remove them."
    numbers = {
        "rows": found.near,
        "of": found.of,
        "expected_share": found.expected,
        "share_of_training_rows": found.part,
        "intrinsic_dimension": found.dimension,
    }
    return Symptom(evidence, remedy, numbers, certain=found.dimension >= 5)


REPEATED = "the columns have few values, so that equal rows are common"


def _sampled(part: float) -> str:
    return f"only {part:.0%} of the training rows were compared, and these have none"


def _one_of(part: float) -> str:
    return "a training row" if part == 1 else f"one of the training rows, of which {part:.0%} were compared,"


def _continuous(patient: Patient) -> bool:
    """Whether equal rows are unlikely: images and signals, and rows of a table whose numbers rarely repeat."""
    if patient.kind in ("image", "signal"):
        return True
    x = patient.rows("train", 1000)
    distinct = max((len(np.unique(column)) for column in x.T), default=0)
    return distinct > len(x) / 2


@disease("too-few-latents", "Too few latents for these data", stage="before", severity="warning",
         needs=[DATA, SETTINGS, IN_MEMORY])  # fmt: skip
def too_few_latents(patient: Patient) -> Symptom | NotJudged | None:
    """The code is much smaller than the number of directions in which the data vary"""
    found = kept(patient)
    if isinstance(found, NotJudged):
        return found
    if found.share >= HELD_LITTLE or found.latent >= found.needed:
        return None
    of, rest = "the variance", f"95% needs {found.needed}"
    if found.noise:
        of, rest = "the variance that exceeds noise", f"{found.needed} components exceed it"
    evidence = (
        f"As many principal components as latents ({found.latent}) hold {found.share:.0%} of {of}, less than half; "
        f"{rest}. A network can do better than a linear map, but it rarely makes up for this."
    )
    remedy = f"Use more latents, such as `latent={min(found.needed, 4 * found.latent)}`; a map needs only 2."
    numbers = {"latents": found.latent, "share_of_variance": found.share, "components_needed": found.needed}
    return Symptom(evidence, remedy, numbers, severity="note" if found.latent <= 3 else None, certain=False)


@disease("too-many-latents", "More latents than the data have directions", stage="before", severity="note",
         needs=[DATA, SETTINGS, IN_MEMORY])  # fmt: skip
def too_many_latents(patient: Patient) -> Symptom | NotJudged | None:
    """The code has more latents than the data have directions, so that some must stay unused"""
    found = kept(patient)
    if isinstance(found, NotJudged):
        return found
    if found.directions is None:
        too_few = found.latent >= min(len(patient.known.train), ROWS)
        return NotJudged("the rows are fewer than the latents") if too_few else None
    if found.latent <= found.directions:
        return None
    evidence = f"The code has {found.latent} latents, and the training rows vary in only {found.directions} directions."
    what = "the number of components above the noise" if found.noise else "the components that hold 95% of the variance"
    remedy = f"Use `latent={max(1, found.needed)}`, {what}."
    numbers = {"latents": found.latent, "directions": found.directions, "components_needed": found.needed}
    return Symptom(evidence, remedy, numbers)


@disease("batch-size", "The batch does not fit the data", stage="before", severity="warning", needs=[DATA])
def batch_size(patient: Patient) -> Symptom | None:
    """The batch is larger than the training data or than half of them, so that steps hardly differ"""
    n, batch = len(patient.known.train), patient.training.batch
    if batch <= n / 2 or n < 2:
        return None
    remainder = n % batch
    what = (
        f"is larger than the {n:,} training rows and is cut to them, so every step sees the same rows"
        if batch >= n
        else f"takes {batch / n:.0%} of the {n:,} training rows; an epoch leaves a remainder of {remainder:,}, which "
        "starts the next batch together with rows of the next epoch"
    )
    smaller = max(1, n // 10)
    evidence = f"A batch of {batch:,} {what}."
    usual = patient.composition is not None and batch == min(patient.composition.defaults.batch, n)
    remedy = f"Use a smaller batch, such as `batch={smaller}`: noise between steps helps, and more steps fit an epoch."
    numbers = {"batch": batch, "training_rows": n, "remainder": remainder}
    return Symptom(evidence, remedy, numbers, severity="note" if usual or batch < n else None)


@disease("too-few-steps", "Too few training steps", stage="before", severity="serious", needs=[DATA, SETTINGS])
def too_few_steps(patient: Patient) -> Symptom | None:
    """The training is too short to see every row, to move the weights, or to finish a schedule"""
    steps, epochs, lr = patient.steps, patient.epochs, patient.training.lr
    numbers = {"steps": steps, "epochs": epochs, "lr": lr}
    n = len(patient.known.train)
    one_epoch = math.ceil(n / min(patient.training.batch, n))
    if epochs < EPOCHS_AT_LEAST:
        evidence = f"{steps:,} steps are {epochs:.2g} passes through {n:,} rows, so most rows are seen at most once."
        if steps >= 2000:  # of a large data set, one pass teaches enough
            return Symptom(evidence, f"Use `epochs=1` or more ({one_epoch:,} steps).", numbers, severity="note")
        return Symptom(evidence, f"Use `epochs=5` or more ({5 * one_epoch:,} steps).", numbers)
    moved = steps * lr
    if patient.training.optimiser.lower().startswith("adam") and moved < MOVED_AT_LEAST:
        evidence = (
            f"{steps:,} steps with a learning rate of {lr:g} can move a weight by about {moved:.2g} in all, less than "
            f"{MOVED_AT_LEAST:g}, about the size of an initial weight: the networks stay near their start."
        )
        remedy = f"Use `steps={math.ceil(1 / lr):,}` or more, or `minutes=1`.".replace(",", "")
        return Symptom(evidence, remedy, numbers)
    if said := unfinished(patient.model.objective, steps):
        evidence, _, remedy = said.rpartition("; ")
        return Symptom(_sentence(evidence), _sentence(remedy), numbers, severity="warning")
    return None


@disease("few-rows", "Few training rows", stage="before", severity="note", needs=[DATA, SETTINGS])
def few_training_rows(patient: Patient) -> Symptom | None:
    """The training rows are so few that overfitting is likely"""
    said = few_rows(patient.known, patient.model)
    if said is None and (said := small_set(patient.known, _options(patient))) is not None:
        evidence, _, remedy = said.partition(". Remedies: ")
    elif said is not None:
        evidence, _, remedy = said.partition(": ")
    else:
        return None
    return Symptom(_sentence(evidence), _sentence(remedy), {"training_rows": len(patient.known.train)})


def _options(patient: Patient) -> Options:
    """The options of the run, or those of a training to come that matter for a warning."""
    return patient.run.options if patient.run is not None else Options(patience=patient.training.patience)


def _sentence(text: str) -> str:
    """The text with a capital letter at its start and a full stop at its end."""
    text = " ".join(text.split())
    start = text[:1].upper() if text[:1].isalpha() else text[:1]
    return f"{start}{text[1:]}{'' if text.endswith('.') else '.'}"
