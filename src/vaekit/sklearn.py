"""vaekit with the scikit-learn API: `VAEEstimator`, a transformer and density estimator, and `VAEDetector` of outliers.

    make_pipeline(StandardScaler(), VAEEstimator(latent=8, epochs=30), LogisticRegression()).fit(x, y)
    VAEDetector(false_alarms=0.01).fit(x).predict(new)  # -1 for outliers, +1 for all others

Both train an ordinary run: `estimator.run_` gives access to `evaluate`, `report`, `explore` and the rest.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, OutlierMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from vaekit.anomalies.conformal import ROUNDING, HeldOutScores, check_rate, rows_needed
from vaekit.anomalies.reference import FILE as HELD_OUT
from vaekit.anomalies.reference import held_out
from vaekit.anomalies.scoring import scores
from vaekit.data import from_arrays
from vaekit.data.readers.memory import as_array
from vaekit.errors import ChoiceError
from vaekit.metrics import METRICS, evaluate
from vaekit.run import Run, fit, open_run
from vaekit.runs.find import is_run
from vaekit.runs.stored import read_config
from vaekit.utils.formerly import formerly
from vaekit.utils.suggest import unknown

Array = NDArray[Any]
KEPT = ("run.json", "model.safetensors", "splits.safetensors", "log.jsonl", HELD_OUT)


def _with_nan(X: Any) -> Any:
    """X with nan for the masked values of a masked array, whose mask scikit-learn drops; else X."""
    return as_array(X, "X") if np.ma.is_masked(X) else X


class _Trained(BaseEstimator):
    """The parts that the estimators share: training a run on the rows of X, checking new rows, and pickling."""

    run_: Run
    # the parameters of every estimator
    recipe: str
    latent: int | None
    epochs: float | None
    steps: int | None
    minutes: float | None
    settings: Mapping[str, Any] | None
    shape: Sequence[int] | None
    kind: str | None
    samples: int
    valid: float
    random_state: Any
    out: str | Path | None
    verbose: bool

    def _splits(self, order: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """The rows of each split, from all rows in a random order."""
        raise NotImplementedError

    def fit(self, X: ArrayLike, y: Any = None, **unknown: Any) -> Self:
        """Train on the rows of X (N, D); y is ignored.

        Raises:
            ValueError: X is not a dense matrix of finite numbers, has too few rows, or does not suit the recipe.
            TypeError: `sample_weight` or another unknown argument is given.
            KeyboardInterrupt: training was interrupted; an estimator that was fitted before is unchanged.
        """
        if unknown:
            why = "repeat rows to weight them" if "sample_weight" in unknown else "it takes only X and y"
            raise TypeError(f"{type(self).__name__}.fit does not take {', '.join(unknown)}: {why}")
        arguments = self._arguments()
        x = validate_data(self, _with_nan(X), dtype="numeric", ensure_min_samples=4)
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        rows = self._splits(np.random.default_rng(seed).permutation(len(x)))
        data = from_arrays(self._events(x), kind=self.kind, splits=rows, name="X")
        folder = tempfile.TemporaryDirectory(prefix="vaekit-") if self.out is None else None
        path = Path(folder.name) / "run" if folder else Path(self.out or "")
        run = fit(
            data,
            self.recipe,
            out=path,
            exists="replace" if _is_ours(path) else "error",
            seed=int(seed),
            progress=self.verbose,
            on_interrupt="raise",
            **arguments,
        )
        run.folder = folder
        self.run_ = run
        self._finish(x)
        return self

    def _finish(self, x: Array) -> None:
        """Set the attributes that depend on the run, which was trained on x."""

    def _arguments(self) -> dict[str, Any]:
        """Arguments of the recipe and options of training.

        Raises:
            ChoiceError: one is given twice, or belongs to another argument of the estimator.
        """
        own = {"epochs": self.epochs, "steps": self.steps, "minutes": self.minutes, "latent": self.latent}
        arguments, settings = {k: v for k, v in own.items() if v is not None}, dict(self.settings or {})
        if twice := sorted(set(arguments) & set(settings)):
            raise ChoiceError(f"{', '.join(twice)} given both as an argument and in settings: give it once")
        instead = {
            "seed": "random_state",
            "out": "out",
            "progress": "verbose",
            "options": "settings",
            "recipe": "recipe",
        }
        for name in settings:
            if name in instead or name in ("data", "resume", "extend", "exists", "on_start", "on_interrupt"):
                other = f"the argument {instead[name]!r}" if name in instead else "vaekit.fit"
                raise ChoiceError(f"settings cannot contain {name!r}: use {other}")
        if not (isinstance(self.valid, float | int) and 0 <= self.valid < 1):
            raise ChoiceError(f"`valid` must lie in [0, 1), got {self.valid!r}")
        return arguments | settings

    def _events(self, x: Array) -> Array:
        if self.shape is None:
            return x
        if math.prod(self.shape) != x.shape[1]:
            raise ChoiceError(f"shape {tuple(self.shape)} has {math.prod(self.shape)} numbers, a row of X {x.shape[1]}")
        return x.reshape(len(x), *self.shape)

    def _checked(self, X: ArrayLike) -> Array:
        check_is_fitted(self, "run_")
        return self._events(validate_data(self, _with_nan(X), dtype="numeric", reset=False))

    # a pickled estimator, as sent to another process, contains the files of its run
    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "run_" in state:
            path = state.pop("run_").path
            state["_files"] = {name: (path / name).read_bytes() for name in KEPT if (path / name).exists()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("_files", None) or state.pop("_folder", None)
        super().__setstate__(state)
        if isinstance(files, dict):
            folder = tempfile.TemporaryDirectory(prefix="vaekit-")
            for name, content in files.items():
                (Path(folder.name) / name).write_bytes(content)
            self.run_ = open_run(folder.name)
            self.run_.folder = folder


class VAEEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _Trained):
    """A variational autoencoder, or any recipe that needs no labels, as a scikit-learn estimator.

    Arguments:
        recipe: name of the recipe; `vaekit recipes` lists them.
        latent: number of latents; None for the recipe's default.
        epochs, steps, minutes: the length of training, at most one of them; by default the recipe's.
        settings: further arguments of the recipe and options of training, by name: {"beta": 4, "lr": 3e-4}.
        shape: shape of one example, such as (1, 28, 28) for images; None for vectors.
        kind: `counts` for counts; None to infer the kind from X.
        samples: number of importance samples in `score_samples`.
        metric: name of the metric that `score` returns (`vaekit metrics` lists them), such as `mse` for an autoencoder,
            which has no density; negated where lower is better.
        valid: share of the rows, in [0, 1), that are used for validation; at least one row.
        random_state: seed of the weights, the batches, the noise and the validation rows; None for a different seed
            each time.
        out: directory of the run, which a later fit replaces. None for a temporary directory, which grid searches and
            cross-validation need because they fit several estimators.
        verbose: whether to show the progress of training.

    Attributes:
        run_: the trained `vaekit.Run`.
        n_features_in_: number of columns of X.
        feature_names_in_: their names, if X is a data frame with column names.
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
        metric: str = "log_px_iw",
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
        self.metric = metric
        self.valid = valid
        self.random_state = random_state
        self.out = out
        self.verbose = verbose

    def _splits(self, order: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        held = min(max(1, round(self.valid * len(order))), len(order) - 3)  # leaves two training rows and one test row
        # a run needs a test row; the caller keeps test data apart, so one is enough
        return {"valid": order[:held], "test": order[held : held + 1], "train": np.sort(order[held + 1 :])}

    def _finish(self, x: Array) -> None:
        self._n_features_out = self.run_.encode(self._events(x[:1])).shape[1]

    def transform(self, X: ArrayLike) -> Array:
        """The posterior mean of each row of X (N, D): (N, latent)."""
        x = self._checked(X)
        return self.run_.encode(x)

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """The names of the columns of a transform: vae0, vae1, ..."""
        names = super().get_feature_names_out(input_features)
        return np.asarray([f"vae{i}" for i in range(len(names))], dtype=object)

    def inverse_transform(self, Z: ArrayLike) -> Array:
        """The decoder's mean for codes Z (N, latent), in the units of X: (N, D).

        Raises:
            ValueError: Z has another number of columns.
        """
        check_is_fitted(self, "run_")
        z = check_array(Z, dtype=np.float32)
        if z.shape[1] != self._n_features_out:
            raise ValueError(f"Z has {z.shape[1]} columns, expected the {self._n_features_out} of a code")
        return self.run_.decode(z).reshape(len(z), -1)

    def score_samples(self, X: ArrayLike) -> Array:
        """log p(x) of each row of X (N, D) by importance sampling, in nats and in the units of X: (N,).

        The noise depends on the row number, so the same X gives the same values.
        """
        x = self._checked(X)
        return self.run_.score(x, samples=self.samples)

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """The value of `metric` on the rows of X, negated where lower is better; searches over settings maximise it.

        By default it is the mean of `score_samples` in nats.

        Raises:
            ValueError: the metric is unknown, has no better direction, or cannot be computed for this recipe and X.
        """
        x = self._checked(X)
        usable = {name: one for name, one in METRICS.items() if one.better is not None}
        if self.metric not in usable:
            raise ChoiceError(unknown("metric to score by", self.metric, usable))
        (result,) = evaluate(self.run_, x, samples=self.samples, metrics=[self.metric], store=False)
        return float(result["value"] if usable[self.metric].better == "higher" else -result["value"])

    @formerly("random_state")
    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> Array:
        """New rows: draws from p(x | z), or its means for images, for samples z of the prior, (n_samples, D)."""
        check_is_fitted(self, "run_")
        seed = check_random_state(random_state).randint(2**31 - 1)
        return self.run_.sample(n_samples, seed=seed).reshape(n_samples, -1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # codes are float32
        return tags


class VAEDetector(OutlierMixin, _Trained):
    """A detector of outliers at a false-alarm rate, with the API of scikit-learn's outlier detectors.

    Some rows of X are held out from training, and the threshold is taken from their scores (split conformal
    prediction). The probability that a row like those of X is flagged is at most `false_alarms`, for any recipe and
    length of training. No contamination needs to be guessed. The default recipe, `robust`, leaves the least likely rows
    out of training, because some rows of X may be outliers; if none are, use
    `settings={"trim": 0, "prior": "mixture"}`.

    Names follow scikit-learn, where high scores are normal. `decision_scores_`, `labels_` and `threshold_` follow PyOD,
    where high scores are outliers and labels are 0 and 1.

    Arguments:
        recipe: name of the recipe; `vaekit recipes` lists them.
        false_alarms: the probability of flagging a row that is like the rows of X.
        latent: number of latents; None for the recipe's default.
        epochs, steps, minutes: the length of training, at most one of them; by default the recipe's.
        settings: further arguments of the recipe and options of training, by name: {"trim": 0.2, "lr": 3e-4}.
        samples: number of importance samples per score.
        held_out: share of the rows, in (0, 1), that the threshold is taken from; more if `false_alarms` needs more rows
            and there are enough.
        shape: shape of one example, such as (1, 28, 28) for images; None for vectors.
        kind: `counts` for counts; None to infer the kind from X.
        valid: share of the rows, in [0, 1), that are used for validation; the threshold is also taken from them unless
            training stops early by them (the option `patience`).
        random_state: seed of the weights, the batches, the noise and the held-out rows; None for a different seed
            each time.
        out: directory of the run, which a later fit replaces. None for a temporary directory.
        verbose: whether to show the progress of training.

    Attributes:
        run_: the trained `vaekit.Run`; `run_.detect(new)` also names the unusual columns of each flagged row.
        offset_: the threshold of `score_samples`.
        false_alarms_: the rate of the threshold: `false_alarms`, or the smallest rate that the held-out rows support.
        decision_scores_: (N,) the negative scores of the rows of X.
        labels_: (N,) 1 for outliers among the rows of X, else 0.
        threshold_: the threshold of `decision_scores_`, -offset_.
        n_features_in_: number of columns of X.
        feature_names_in_: their names, if X is a data frame with column names.
    """

    def __init__(
        self,
        recipe: str = "robust",
        *,
        false_alarms: float = 0.05,
        latent: int | None = None,
        epochs: float | None = None,
        steps: int | None = None,
        minutes: float | None = None,
        settings: Mapping[str, Any] | None = None,
        samples: int = 50,
        held_out: float = 0.2,
        shape: Sequence[int] | None = None,
        kind: str | None = None,
        valid: float = 0.1,
        random_state: Any = 0,
        out: str | Path | None = None,
        verbose: bool = False,
    ):
        self.recipe = recipe
        self.false_alarms = false_alarms
        self.latent = latent
        self.epochs = epochs
        self.steps = steps
        self.minutes = minutes
        self.settings = settings
        self.samples = samples
        self.held_out = held_out
        self.shape = shape
        self.kind = kind
        self.valid = valid
        self.random_state = random_state
        self.out = out
        self.verbose = verbose

    def _splits(self, order: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        n, rate = len(order), check_rate(self.false_alarms)
        if not (isinstance(self.held_out, float | int) and 0 < self.held_out < 1):
            raise ChoiceError(f"`held_out` must lie in (0, 1), got {self.held_out!r}")
        valid = min(max(1, round(self.valid * n)), n - 3)
        test = min(max(round(self.held_out * n), min(rows_needed(rate), n // 2), 1), n - valid - 2)
        return {"valid": order[:valid], "test": order[valid : valid + test], "train": np.sort(order[valid + test :])}

    def _finish(self, x: Array) -> None:
        held = self._held_out()
        rate = check_rate(self.false_alarms)
        if held.smallest_rate > rate + ROUNDING:
            warnings.warn(
                f"false_alarms={rate:g} needs {rows_needed(rate):,} held-out rows and has {held.n:,}: the rate is "
                f"{held.smallest_rate:.2g} instead; give more rows or a larger held_out",
                UserWarning,
                stacklevel=3,
            )
            rate = held.smallest_rate
        self.false_alarms_, self.offset_ = rate, held.threshold(rate)
        self.decision_scores_ = -self._scores(self._events(x))
        self.threshold_ = -self.offset_
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(int)

    def _held_out(self) -> HeldOutScores:
        return held_out(self.run_, self.samples).scores()

    def _scores(self, x: Array) -> Array:
        return scores(self.run_, self.run_.observed(x), self.samples)

    def score_samples(self, X: ArrayLike) -> Array:
        """log p(x) of each row of X (N, D) in nats, (N,); low for outliers.

        All rows are scored with the same draws, so a score depends on its row alone.
        """
        return self._scores(self._checked(X))

    def decision_function(self, X: ArrayLike) -> Array:
        """`score_samples` minus `offset_`, (N,): negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> Array:
        """-1 for each outlier among the rows of X (N, D) and +1 for each other row, (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: ArrayLike) -> Array:
        """The p-value of each row of X among the held-out rows, (N,): at most `false_alarms_` for outliers."""
        score = self.score_samples(X)
        return self._held_out().p_values(score)


_OLD = type(
    "VAE", (VAEEstimator,), {"__module__": __name__, "__doc__": "`VAEEstimator`, under its name in vaekit 0.1."}
)


def __getattr__(name: str) -> Any:
    """`VAE` was the name of the estimator; a pipeline or a pickle made with it keeps its names (`vae__latent`)."""
    if name != "VAE":
        raise AttributeError(f"module 'vaekit.sklearn' has no attribute {name!r}")
    warnings.warn("vaekit.sklearn.VAE is now vaekit.sklearn.VAEEstimator", FutureWarning, stacklevel=2)
    return _OLD


def _is_ours(path: Path) -> bool:
    """Whether the directory holds a run that an estimator made: its data are a matrix X in memory."""
    if not is_run(path):
        return False
    data = read_config(path)["data"]
    return data["name"] == "X" and data["source"] is None
