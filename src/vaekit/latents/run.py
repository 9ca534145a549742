"""A run and what is done with its codes: densities of them, samples, interpolation, edits and fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vaekit.data.condition import Labels
from vaekit.errors import ChoiceError
from vaekit.runs.new_data import DataLike
from vaekit.runs.observed import laid_out
from vaekit.runs.saved import SavedRun
from vaekit.utils.formerly import formerly

from .counterfactual import counterfactual_rows
from .coverage import widened
from .editing import code_of, codes_of, direction, edited, hidden_by, own_class, raw_of
from .fill import fill_masked, impute_rows
from .fitted import density_of, source_of
from .given import Best, Infilled, check_under, draws_rows, fill_rows, sample_given
from .paths import Mode, interpolate
from .resample import LatentDensity, draw_codes, fit_latents


class LatentRun(SavedRun):
    """A saved run with the methods that work on its codes; `vaekit.Run` has those that measure and show it as well."""

    def fit_latents(
        self,
        name: str,
        *,
        components: int | None = None,
        steps: int | None = None,
        seed: int | None = None,
        refit: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
        **choices: Any,
    ) -> LatentDensity:
        """A density of the run's codes (gmm, flow, two-stage or flow-matching), fitted once and stored with the run.

        `choices` are further arguments, such as `width` and `training`: see `vaekit.latents.resample.fit_latents`.
        """
        choices |= {"components": components, "steps": steps, "seed": seed, "refit": refit, "on_progress": progress}
        return fit_latents(self, name, **choices)

    @formerly("temperature", "seed", "labels", "latents")
    def sample_latents(
        self,
        n: int = 64,
        *,
        labels: Labels | None = None,
        latents: str | None = None,
        guidance: float = 1.0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> np.ndarray:
        """n codes (n, D) drawn from the prior, or from the density `latents` of the run's codes (`fit_latents`).

        For a conditional run, they have these labels, or by default those of each class in turn. Other runs take them
        with `latents="flow-matching"`, with `guidance` (`LatentDensity.sample`). "fitted" is the best stored density.
        """
        latents = source_of(self, latents, guidance=guidance)
        if latents is None:
            return super().sample_latents(n, labels=labels, temperature=temperature, seed=seed)
        given: dict[str, Any] = {"labels": labels, "guidance": guidance, "temperature": temperature, "seed": seed}
        return draw_codes(self, self.fit_latents(latents), n, **given)

    @formerly("temperature", "noise", "seed", "labels", "latents", "beyond_range")
    def sample(
        self,
        n: int = 64,
        *,
        labels: Labels | None = None,
        given: Mapping[str, Any] | None = None,
        like: int | np.ndarray | None = None,
        latents: str | None = None,
        guidance: float = 1.0,
        temperature: float = 1.0,
        noise: bool | None = None,
        beyond_range: bool = False,
        seed: int = 0,
    ) -> np.ndarray:
        """Generate n data in the data's own units: draws from p(x|z) for tables and counts, else its means.

        `noise` chooses: True for draws, False for means.
        Codes are drawn from the prior, or from the density that `latents` names (`fit_latents`); the command `vaekit
        sample` has the default "fitted", the best density that is stored with the run, or else the prior. Integer
        columns of a table get integers, and all values stay in the range of their column unless `beyond_range` is set.

        With `given`, such as `{"age": 30, "sex": "Female"}`, codes are drawn from p(z | the given values), and all rows
        have these values (`vaekit.latents.given.sample_given`).

        With `like`, a row of the test set by its index or a raw row, they are versions of this row in which the given
        values are changed and the others follow (`vaekit.latents.counterfactual.counterfactual_rows`).
        """
        if like is not None and given is None:
            raise ChoiceError("`like` needs the values to change: add `given`")
        if given is not None:
            if latents is not None or temperature != 1:
                raise ChoiceError("`given` draws codes from their posterior: omit `latents` and `temperature`")
            if like is not None:
                if noise is not None:
                    raise ChoiceError("versions of a row keep its own noise: omit `noise`")
                if isinstance(like, int | np.integer):
                    if labels is not None:
                        raise ChoiceError(f"row {like} of the test set has its own condition: `labels` is for raw data")
                    labels = self.observed("test").given(int(like))
                row = raw_of(self, like)
                return counterfactual_rows(self, row, given, n, labels=labels, beyond_range=beyond_range, seed=seed).x
            return sample_given(self, n, given, labels=labels, noise=noise, beyond_range=beyond_range, seed=seed).x
        of: dict[str, Any] = {"latents": latents, "guidance": guidance, "temperature": temperature, "seed": seed}
        z = self.sample_latents(n, labels=labels, **of)
        return self.new_rows(z, noise=noise, beyond_range=beyond_range, seed=seed)

    @formerly("steps", "mode", "labels")
    def interpolate(self, a: Any, b: Any, *, labels: Any = None, steps: int = 11, mode: Mode = "auto") -> np.ndarray:
        """Interpolate between two data in latent space, (steps, *event): see `vaekit.latents.paths.interpolate`.

        Arguments:
            a, b: each the index of a test row, or a raw example. For a conditional run, raw examples need `labels`.
        """
        return self.decode(interpolate(*codes_of(self, a, b, labels=labels), steps=steps, mode=mode))

    @formerly("strength", "steps", "against", "balance", "labels")
    def edit(
        self,
        datum: int | np.ndarray,
        attribute: str,
        *,
        labels: Labels | None = None,
        against: str | None = None,
        balance: bool = True,
        strength: float = 1.0,
        steps: int = 9,
    ) -> np.ndarray:
        """Edit an example along the direction of an attribute or class, from -strength to strength: (steps, *event).

        See `vaekit.latents.editing.direction` for the arguments. The direction towards a class starts from the class
        `against`, by default the own class of a test row. In a conditional run the condition moves with the code, and a
        raw example needs its condition (`labels`).
        """
        vector = direction(self, attribute, against=against or own_class(self, datum, attribute), balance=balance)
        return self.decode(edited(code_of(self, datum, labels=labels), vector, strength, steps)[0])

    @formerly("draws", "seed", "labels", what="data")
    def fill(
        self,
        data: DataLike,
        mask: str | np.ndarray | None = None,
        *,
        labels: Labels | None = None,
        latents: str | None = None,
        draws: int = 32,
        best: Best = "mean",
        interval: float | None = None,
        beyond_range: bool = False,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Infilled:
        """Fill in missing or masked parts of data from the visible parts, for any run, trained with holes or not.

        Rows of numbers and tables are filled from draws of p(x_hidden | x_visible) (`vaekit.latents.given.fill_rows`):
        single best values, completed rows with the noise of p(x|z), and intervals. For images, signals and
        autoencoders, one Gaussian q(z) is fitted to each visible part, or under flow matching, draws of the density
        are moved until they match it (`vaekit.latents.fill.fill_masked`). Draws are then means of p(x|z), and there is
        no interval.

        Arguments:
            data: the index of a test row, or new rows.
            mask: half, box, or bool (*event) (or one mask per row), True where hidden; by default the missing values
                (nan) of the rows, or `half` if no value is missing.
            labels: labels of raw rows, for a conditional run, as for `encode`.
            latents: for images, signals and autoencoders, the density that codes are inferred under: prior (the
                default), gmm, flow or flow-matching (`vaekit.latents.fitted.density_of`).
            draws: number of alternatives, multiple imputations of the hidden values.
            best: the single value of a number, mean or median; categories get the most likely one.
            interval: probability of the interval of each number, such as 0.95; None for no interval. Intervals are
                widened until they hold this share of hidden cells of the validation rows (`latents.coverage`).
            beyond_range: allow values of a table outside the range of their columns.
            seed: seed of the alternatives.
            progress: called as progress(done, of).

        Raises:
            ChoiceError: this run cannot fill, or has no interval.
            DataError: the rows do not fit this run.
        """
        new = None if isinstance(data, int | np.integer) else self.read(data, labels=labels)
        raw, labels = (raw_of(self, data), labels) if new is None else (new.x, new.labels)
        if isinstance(data, int | np.integer) and labels is None:
            labels = self.observed("test").given(int(data))
        hidden = mask if isinstance(mask, np.ndarray) else hidden_by(laid_out(raw, self.spec), mask)
        check_under(self, latents)
        if draws_rows(self):
            found = fill_rows(
                self, raw, hidden, labels=labels, draws=draws, best=best, interval=interval,
                beyond_range=beyond_range, seed=seed, progress=progress,
            )  # fmt: skip
            if interval is None:
                return found
            return widened(self, found, hidden, interval=interval, beyond_range=beyond_range, seed=seed)
        if interval is not None:
            raise ChoiceError("intervals are for rows of numbers and tables, and for models with a density")
        density = density_of(self, latents)
        return fill_masked(self, raw, hidden, labels=labels, latents=density, draws=draws, seed=seed, progress=progress)

    @formerly("samples", "seed", "labels", what="data")
    def impute(
        self, data: np.ndarray, *, labels: Labels | None = None, samples: int | None = None, seed: int = 0
    ) -> np.ndarray:
        """Fill in the missing values (nan) of raw rows by one pass of the encoder, (N, *event).

        Nothing is drawn by default, which is faster than `fill`, but needs a run that was trained with missing values.

        Arguments:
            data: raw rows: an array, or a frame, whose columns are matched by name.
            labels: labels of raw rows, for a conditional run, as for `encode`.
            samples: importance samples of the expectation; None decodes the code of each row.
            seed: seed of the samples.

        Raises:
            DataError: the run was trained without missing values, or the rows do not fit this run.
        """
        return impute_rows(self, data, labels=labels, samples=samples, seed=seed)
