"""SAP, the separated attribute predictability (Kumar et al. 2018): by regression and by classification."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .gaps import gap
from .information import Score, checked
from .parts import parts, ranked

Array = NDArray[Any]
COST = 0.01
"""The weight of the errors of the linear support vector machine, as in disentanglement_lib."""
STEPS = 100


def sap_regression(codes: Array, factors: Array) -> Score:
    """The gap between the two latents that best explain each factor linearly, by R^2: the mean over factors.

    R^2 is the squared correlation of a latent with the rank of the factor's value. It suits ordered factors: for
    shapes, it depends on how they are numbered, and an angle is not linear.

    Arguments:
        codes, factors: (N, D) and (N, F).

    Raises:
        ChoiceError: the shapes do not agree.
    """
    z, v = checked(codes, factors)
    z, y = z - z.mean(0), v - v.mean(0)
    square = (z**2).mean(0)[:, None] * (y**2).mean(0)
    explained = np.divide((z.T @ y / len(z)) ** 2, square, out=np.zeros_like(square), where=square > 1e-12)
    return gap(explained)


def sap_classifier(codes: Array, factors: Array, group: ArrayLike | None = None, *, seed: int = 0) -> Score:
    """The gap between the two latents that best predict each factor, by accuracy on other data: the mean over factors.

    As in disentanglement_lib, a linear support vector machine learns each factor from a single latent: the squared
    hinge loss with weight 0.01 and classes weighted by 1 / frequency, one class against the others. As there, codes
    are not standardised, so that a latent that hardly varies predicts little. With a single latent, the second
    accuracy is that of the most frequent value.

    Arguments and errors are those of `explicitness`.
    """
    data = parts(codes, factors, group, seed=seed, standardise=False)
    right, usual = np.zeros((data.z.shape[1], data.v.shape[1])), np.zeros(data.v.shape[1])
    for k in range(data.v.shape[1]):
        _, label, new = ranked(data.v[:, k], data.v_test[:, k])
        usual[k] = (new == np.bincount(label).argmax()).mean()
        for j in range(data.z.shape[1]):
            slope, offset = machine(data.z[:, j], label)
            height = data.z_test[:, j, None] * slope + offset
            predicted = height.argmax(1) if len(slope) > 1 else (height[:, 0] > 0).astype(int)
            right[j, k] = (predicted == new).mean()
    return gap(right, second=usual)


def machine(x: Array, label: NDArray[np.int64]) -> tuple[Array, Array]:
    r"""Slopes and offsets (K,) of linear support vector machines of x (N,), one for each of K classes; one for two.

    Each minimises (w^2 + b^2) / 2 + 0.01 sum_i c_i max(0, 1 - y_i (w x_i + b))^2 with y_i = 1 for its class and -1 for
    the others, where c_i = N / (K N_k) for the data of class k of N_k and 1 for the others; for two classes both are
    weighted. This is `LinearSVC(C=0.01, class_weight="balanced")`, solved by Newton's method in two dimensions, for
    all classes together.
    """
    counts = np.bincount(label)
    classes = len(counts)
    balanced = len(x) / (classes * counts)
    if classes == 2:
        sign = np.where(label == 1, 1.0, -1.0)[:, None]
        weight = COST * balanced[label][:, None]
    else:
        own = label[:, None] == np.arange(classes)
        sign, weight = np.where(own, 1.0, -1.0), COST * np.where(own, balanced, 1.0)
    w, b = np.zeros(sign.shape[1]), np.zeros(sign.shape[1])
    loss, slack = _loss(x, sign, weight, w, b)
    for _ in range(STEPS):
        active = np.where(slack > 0, weight, 0.0)
        pull = active * slack * sign
        gradient = np.stack([w - 2 * (x @ pull), b - 2 * pull.sum(0)])
        if np.abs(gradient).max() < 1e-10 * len(x):
            break
        aa, ab, bb = 1 + 2 * (x**2 @ active), 2 * (x @ active), 1 + 2 * active.sum(0)
        det = aa * bb - ab**2
        step = np.stack([bb * gradient[0] - ab * gradient[1], aa * gradient[1] - ab * gradient[0]]) / det
        length = np.ones_like(w)
        for _ in range(30):  # a full step may overshoot where the set of active data changes
            tried, others = _loss(x, sign, weight, w - length * step[0], b - length * step[1])
            worse = tried > loss * (1 + 1e-12)
            if not worse.any():
                break
            length = np.where(worse, length / 2, length)
        else:
            tried, others = _loss(x, sign, weight, w - length * step[0], b - length * step[1])
        w, b, loss, slack = w - length * step[0], b - length * step[1], tried, others
    return w, b


def _loss(x: Array, sign: Array, weight: Array, w: Array, b: Array) -> tuple[Array, Array]:
    """The losses (K,) and the slacks (N, K)."""
    slack = np.maximum(0.0, 1 - sign * (x[:, None] * w + b))
    return (w**2 + b**2) / 2 + (weight * slack**2).sum(0), slack
