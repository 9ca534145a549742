"""vaekit in a scikit-learn pipeline: `VAE` is a transformer and a density with the estimators' manners.

    make_pipeline(StandardScaler(), VAE(latent=8, epochs=30), LogisticRegression()).fit(x, y)

What it trains is a run like any other: `estimator.run_` has the rest (evaluate, report, explore, ...).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from .data import from_arrays
from .run import open_run
from .train import fit

Array = NDArray[Any]
KEPT = ("run.json", "model.safetensors", "splits.safetensors", "log.jsonl")


class VAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A variational autoencoder, or any recipe of vaekit that needs no labels, as an estimator.

    Arguments:
        recipe: its name, as `vaekit recipes` lists them.
        latent: latent dimensions; the recipe's own default when None.
        epochs, steps, minutes: how long to train, one of them; the recipe's own default when none is given.
        settings: further choices of the recipe, and options of training, by name: {"beta": 4, "lr": 3e-4}.
        shape: what a row of X is, such as (1, 28, 28) for images; a vector when None.
        kind: `counts` for rows of counts; guessed from X when None.
        samples: importance samples of `score_samples`.
        valid: share of the rows that training is watched on and not fitted to.
        random_state: seed of the weights, the batches, the noise and the validation rows.
        out: directory to leave the run in; a temporary one when None.
        verbose: show training's progress.

    Attributes:
        run_: the trained `vaekit.Run`.
        n_features_in_: columns of X.
    """

    def __init__(
        self,
        recipe: str = "vae",
        *,
        latent: int | None = None,
        epochs: float | None = None,
        steps: int | None = None,
        minutes: float | None = None,
        settings: Mapping[str, Any] | None = None,
        shape: Sequence[int] | None = None,
        kind: str | None = None,
        samples: int = 50,
        valid: float = 0.1,
        random_state: Any = 0,
        out: str | Path | None = None,
        verbose: bool = False,
    ):
        self.recipe = recipe
        self.latent = latent
        self.epochs = epochs
        self.steps = steps
        self.minutes = minutes
        self.settings = settings
        self.shape = shape
        self.kind = kind
        self.samples = samples
        self.valid = valid
        self.random_state = random_state
        self.out = out
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: Any = None) -> VAE:
        """Train on the rows of X (N, D); y is not looked at.

        Raises:
            ValueError: X is no matrix of numbers, has too few rows, or does not suit the recipe.
        """
        x = validate_data(self, X, dtype="numeric", ensure_min_samples=3)
        seed = self.random_state or 0
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        order = np.random.default_rng(seed).permutation(len(x))
        held = min(max(1, round(self.valid * len(x))), len(x) - 2)
        # a run has test rows as well: here one, since whoever calls keeps data to test on away
        rows = {"valid": order[:held], "test": order[held : held + 1], "train": np.sort(order[held + 1 :])}
        data = from_arrays(self._events(x), kind=self.kind, splits=rows, name="X")
        self._folder = tempfile.TemporaryDirectory(prefix="vaekit-") if self.out is None else None
        lengths = {"epochs": self.epochs, "steps": self.steps, "minutes": self.minutes, "latent": self.latent}
        given = {k: v for k, v in lengths.items() if v is not None} | dict(self.settings or {})
        path = Path(self._folder.name) / "run" if self._folder else Path(self.out or "")
        self.run_ = fit(data, self.recipe, out=path, seed=int(seed), progress=self.verbose, **given)
        self._n_features_out = self.run_.encode(self._events(x[:1])).shape[1]
        return self

    def _events(self, x: Array) -> Array:
        return x if self.shape is None else x.reshape(len(x), *self.shape)

    def _checked(self, X: ArrayLike) -> Array:
        check_is_fitted(self, "run_")
        return self._events(validate_data(self, X, dtype="numeric", reset=False))

    def transform(self, X: ArrayLike) -> Array:
        """The posterior mean of each row: (N, latent)."""
        return self.run_.encode(self._checked(X))

    def inverse_transform(self, Z: ArrayLike) -> Array:
        """The decoder's mean for codes (N, latent), in the units of X: (N, D)."""
        check_is_fitted(self, "run_")
        z = np.asarray(Z, np.float32)
        return self.run_.decode(z).reshape(len(z), -1)

    def score_samples(self, X: ArrayLike) -> Array:
        """log p(x) of each row by importance sampling, in nats and the units of X: (N,).

        The samples' noise belongs to a row's place in X: the same X gives the same numbers.
        """
        return self.run_.score(self._checked(X), samples=self.samples)

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """The mean of `score_samples`: what a search over settings maximises."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Array:
        """New rows, means of p(x | z) for draws z of the prior: (n_samples, D)."""
        check_is_fitted(self, "run_")
        seed = check_random_state(random_state).randint(2**31 - 1)
        return self.run_.sample(n_samples, seed=seed).reshape(n_samples, -1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # codes are float32
        return tags

    # an estimator may be sent to another process: then the run goes along as the bytes of its files
    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "run_" in state:
            path = state.pop("run_").path
            state["_folder"] = {name: (path / name).read_bytes() for name in KEPT if (path / name).exists()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("_folder", None)
        super().__setstate__(state)
        if isinstance(files, dict):
            self._folder = tempfile.TemporaryDirectory(prefix="vaekit-")
            for name, content in files.items():
                (Path(self._folder.name) / name).write_bytes(content)
            self.run_ = open_run(self._folder.name)
