"""Editing one datum by moving its code along the direction of an attribute; and masks by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vaekit.errors import ChoiceError
from vaekit.utils.formerly import formerly
from vaekit.utils.suggest import unknown

from .paths import attribute_direction

if TYPE_CHECKING:
    from vaekit.data import Data
    from vaekit.data.condition import Labels
    from vaekit.runs.trained import TrainedModel

MASKS = ("half", "box")
CODES = 20_000
"""The maximum number of training data that a direction is learned from."""


def named_mask(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The elements that a named mask hides, bool (*event).

    `half` hides the lower half of an image, or the second half of a signal or vector. `box` hides the middle; the box
    is half as high and half as wide as the image.

    Raises:
        ChoiceError: an unknown name.
    """
    if name not in MASKS:
        raise ChoiceError(f"{unknown('mask', name, MASKS)}, or pass an array that is True for hidden elements")
    hidden = np.full(shape, name == "box")
    if name == "half":
        axis = 1 if len(shape) == 3 else len(shape) - 1
        np.moveaxis(hidden, axis, 0)[shape[axis] // 2 :] = True
        return hidden
    for axis in range(1, len(shape)) if len(shape) > 1 else range(1):
        rows = np.moveaxis(hidden, axis, 0)
        rows[: shape[axis] // 4] = rows[shape[axis] - shape[axis] // 4 :] = False
    return hidden


def hidden_by(events: np.ndarray, mask: str | None) -> np.ndarray:
    """The elements that a named mask hides; without a name, the missing values, or the mask `half` if there is none."""
    missing = np.isnan(events) if mask is None and events.dtype.kind == "f" else np.zeros(1, bool)
    return missing if missing.any() else named_mask(mask or "half", events.shape[1:])


@formerly("labels")
def code_of(run: TrainedModel, datum: int | np.ndarray, *, labels: Labels | None = None) -> np.ndarray:
    """The posterior mean (D,) of a test row, given by its index, or of a raw datum, (*row) or (1, *row).

    The code of a conditional run ends in the condition, which `labels` gives for a raw datum: a class or attributes,
    (1, ...).

    Raises:
        ChoiceError: `labels` are given for a test row, which has its own condition.
    """
    if isinstance(datum, int | np.integer):
        if labels is not None:
            raise ChoiceError(f"row {datum} of the test set has its own condition: `labels` is for raw data")
        return run.encode("test", rows=[int(datum)])[0]
    return run.encode(one_row(run, datum), labels=labels)[0]


@formerly("labels")
def codes_of(
    run: TrainedModel, a: int | np.ndarray, b: int | np.ndarray, *, labels: Labels | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`code_of` each of two data; `labels` are the classes or attributes of the raw ones."""
    are_rows = [isinstance(datum, int | np.integer) for datum in (a, b)]
    first, second = (None if is_row and not all(are_rows) else labels for is_row in are_rows)
    return code_of(run, a, labels=first), code_of(run, b, labels=second)


def raw_of(run: TrainedModel, datum: int | np.ndarray) -> np.ndarray:
    """A datum, given as for `code_of`, in the data's own units: (1, *event)."""
    if isinstance(datum, int | np.integer):
        return run.observed("test").raw(np.array([int(datum)]))
    return run.events(one_row(run, datum))


def one_row(run: TrainedModel, datum: np.ndarray) -> np.ndarray:
    """A raw datum as an array with one row."""
    datum = np.asarray(datum)
    if datum.shape == run.spec.shape:
        return datum[None]
    return datum if len(datum) == 1 and datum.ndim > 1 else datum[None]


def walk_start(run: TrainedModel, means: np.ndarray) -> tuple[np.ndarray, int | None]:
    """The code at which a walk through the latents begins: the prior's centre, or a datum if the centre shows little.

    The centre shows little when the values of its decoded datum vary less than half as much as those of typical
    reconstructions: such an image has no visible shape that a latent could change.

    Arguments:
        means: (N, D) codes of the first N test data.

    Returns:
        The code (D,), and the index of the test datum, or None for the centre.
    """
    centre = run.sample_latents(1, temperature=0.0)[0]
    typical = means[:: max(1, len(means) // 64)]
    within = lambda x: x.reshape(len(x), -1).std(1)  # noqa: E731
    if float(within(run.decode(centre[None]))[0]) >= 0.5 * float(np.median(within(run.decode(typical)))):
        return centre, None
    row = int(((means - means.mean(0)) ** 2).sum(1).argmin())
    return means[row], row


def choices(data: Data) -> list[str]:
    """The names that `direction` accepts: the two-valued attributes and the classes."""
    return [*data.attribute_names, *(data.label_names or [])]


def _has(data: Data, name: str) -> np.ndarray:
    """1 for training data that have an attribute or belong to a class, 0 for the others: float (n,)."""
    train = data.train
    if name in data.attribute_names:
        return np.asarray(train.columns[name], float)
    names = [str(n) for n in data.label_names or []]
    if train.label is None or name not in names:
        known = choices(data)
        if not known:
            raise ChoiceError(f"unknown attribute {name!r}: the data have no attributes and no classes")
        raise ChoiceError(unknown("attribute", name, map(str, known)))
    return (train.label == names.index(name)).astype(float)


@formerly("against", "balance", "n", "codes")
def direction(
    run: TrainedModel,
    attribute: str,
    *,
    n: int = CODES,
    codes: np.ndarray | None = None,
    against: str | None = None,
    balance: bool = True,
) -> np.ndarray:
    """The direction in the run's latent space towards an attribute (or class) of its training data, (D,).

    One unit along it leads from the mean code without the attribute to the mean code with it. With `balance`, the
    other attributes and, for an attribute, the classes are held equal. If the data were split by a `group` within
    which the attribute varies, only differences within groups count. See `vaekit.latents.paths.attribute_direction`.

    Arguments:
        attribute: the name of a two-valued attribute or of a class.
        n: learn from the first n training data.
        codes: the codes of these data, (n, D), if they are already known.
        against: another such name: the direction leads from `against` to `attribute`, and is learned from the data
            that have exactly one of the two (see `own_class`).
        balance: hold the other attributes equal.

    Raises:
        ChoiceError: no such attribute, or it has no direction of its own.
    """
    data, train = run.data, run.data.train
    has = _has(data, attribute)
    used = np.arange(len(has)) < n
    if train.label is not None and attribute not in data.attribute_names:
        used &= train.label >= 0
    if against is not None:
        other = _has(data, against)
        used &= (has > 0) != (other > 0)
    rows = np.flatnonzero(used)
    if not len(rows) or not 0 < has[rows].mean() < 1:
        raise ChoiceError(f"{attribute!r} does not vary in the training data, so it has no direction")
    codes = run.encode("train", rows=rows) if codes is None else codes[rows]
    if not balance:
        return attribute_direction(codes, has[rows])
    others = [np.asarray(train.columns[a], float) for a in data.attribute_names if a not in (attribute, against)]
    if attribute in data.attribute_names and train.label is not None:
        others += [(train.label == c).astype(float) for c in np.unique(train.label)[1:]]
    rest = np.stack(others, 1)[rows] if others else None
    group = data.options.get("group")
    if group is not None:
        groups = np.unique(train.columns[group], return_inverse=True)[1][rows]
        both = np.bincount(groups, has[rows]) * np.bincount(groups, 1 - has[rows])
        if both.any():
            return attribute_direction(codes, has[rows], others=rest, groups=groups)
    return attribute_direction(codes, has[rows], others=rest)


def own_class(run: TrainedModel, datum: int | np.ndarray, attribute: str) -> str | None:
    """The class of a test row if `attribute` names another class, else None.

    The direction to a class starts from the datum's own class. Starting from the mean of all other classes would
    average over directions, most of which do not start near this datum.
    """
    data = run.data
    if not isinstance(datum, int | np.integer) or attribute in data.attribute_names or data.test.label is None:
        return None
    names, code = [str(n) for n in data.label_names or []], int(data.test.label[int(datum)])
    return names[code] if 0 <= code < len(names) and attribute in names and names[code] != attribute else None


def edited(z: np.ndarray, toward: np.ndarray, strength: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spaced codes (steps, D) from z - strength * toward to z + strength * toward, and their strengths (steps,).

    Arguments:
        z: (D,) the code to edit.
        toward: (D,) a `direction`.

    Raises:
        ChoiceError: fewer than 2 steps, or a strength that is not finite.
    """
    if steps < 2:
        raise ChoiceError(f"an edit takes 2 or more steps, got {steps}")
    if not np.isfinite(strength):
        raise ChoiceError(f"strength must be a finite number, got {strength}")
    strengths = np.linspace(-strength, strength, steps)
    return (z + strengths[:, None] * toward).astype(z.dtype), strengths
