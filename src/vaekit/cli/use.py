"""The commands that use a run: sample, reconstruct, interpolate, traverse."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vaekit.errors import ChoiceError
from vaekit.runs.find import find_run
from vaekit.utils.progress import say

from .opening import open_given
from .output import (
    ROWS,
    TABLES,
    Output,
    TaskProgress,
    at_least,
    in_rows,
    row_columns,
    write,
    write_results,
)
from .parameters import (
    Bare,
    Described,
    Device,
    DrawOrMean,
    DrawX,
    DrawZ,
    Flag,
    Labels,
    N,
    NewSource,
    OwnData,
    RunFolder,
    Seed,
    Split,
)

if TYPE_CHECKING:
    from vaekit.latents.given import Drawn
    from vaekit.latents.resample import LatentDensity
    from vaekit.run import Run

SHOWN = 8
"""The number of reconstructions in a picture by default."""


def sample(
    run: RunFolder,
    /,
    *,
    n: Annotated[int, N] = 64,
    temperature: float = 1.0,
    label: str | None = None,
    given: str | None = None,
    like: str | None = None,
    noise: DrawOrMean = None,
    latents: str | None = None,
    guidance: float = 1.0,
    components: int | None = None,
    refit: Flag = False,
    beyond_range: Flag = False,
    seed: Seed = 0,
    device: Device = "cpu",
    data: OwnData = None,
    bare: Bare = False,
    out: str | None = None,
) -> None:
    """Generate new data by decoding draws of z from the density fitted to the training codes, or from the prior.

    Parameters
    ----------
    n
        Number of samples.
    temperature
        Factor for the spread of z around the prior's centre, or around the mean of the codes.
    label
        For a conditional run, or with --latents flow-matching for data with labels, the class (or the attributes
        a,b,c) of all samples; by default each class in turn, or those of the data. If class names are numbers, a
        number is a name; otherwise it is a class code 0, 1, ...
    given
        Values that all samples have: COLUMN=VALUE,... such as "age=30,sex=Female"; a value with a comma is quoted as
        in CSV. Codes are drawn from p(z | these values), and rows from p(row | these values).
    like
        A row (test index or FILE.csv:ROW). Samples are versions of it: --given changes values, and the others follow.
    latents
        Where z is drawn from: prior, or a density of the codes: gmm (a Gaussian mixture), flow (a normalising flow),
        two-stage (a second VAE) or flow-matching (see `vaekit prior`), which is fitted once and stored with the run. By
        default the best stored density (docs/guides/samples.md), or the prior if none is better.
    guidance
        With --latents flow-matching and --label: above 1, samples are more typical of the label and less varied.
    components
        Number of components of the gmm (10).
    refit
        Fit the density of the codes again.
    beyond_range
        Allow values of a table outside the range of their columns.
    out
        .png (a grid), .npz (x, z), or .csv or .parquet (rows of a table).
    """
    from . import pictures
    from .sources import class_column, condition

    at_least(1, n=n, components=components)
    at_least(0, temperature=temperature)
    if latents in (None, "prior") and (components is not None or refit):
        raise ChoiceError(f"{'--refit' if refit else '--components'} applies to a fitted density: add --latents gmm")
    if guidance != 1 and label is None:
        raise ChoiceError("--guidance moves samples towards a label: add --latents flow-matching and --label")
    _check_given(given, like, noise, latents, temperature)
    output = Output(out, "samples")
    run = str(find_run(run))
    latents = _named(latents)
    opened = open_given(run, data, device)
    path = output.of(opened)
    fitted = None if given is not None else _source(opened, latents, components, refit)
    latents = None if fitted is None else fitted.name
    labels = None if like is not None else condition(opened, label, fitted)
    if given is not None:
        x, z, _ = _given(opened, n, given, like, label, noise=noise, beyond_range=beyond_range, seed=seed)
    else:
        z = opened.sample_latents(
            n, labels=labels, latents=latents, guidance=guidance, temperature=temperature, seed=seed
        )
        x = opened.new_rows(z, noise=noise, beyond_range=beyond_range, seed=seed)
    columns, words = pictures.of_samples(opened, n, label, latents, temperature, noise)
    write(path, opened, x, columns, {"x": x, "z": z}, None if bare else words, class_column(opened, z))


def _named(latents: str | None) -> str | None:
    """The name of a source of codes, checked."""
    if latents is None:
        return None
    from vaekit.latents.fitted import check_source

    check_source(latents.lower())
    return latents.lower()


def _source(run: Run, latents: str | None, components: int | None, refit: bool) -> LatentDensity | None:
    """The density that codes are drawn from, fitted and described in one line, or None for the prior."""
    from vaekit.latents.fitted import PRIOR, stored_density

    if latents == PRIOR:
        return None
    if latents is not None:
        with TaskProgress() as progress:
            fitted = run.fit_latents(latents, components=components, refit=refit, progress=progress)
        print(fitted)
        return fitted
    stored = stored_density(run)
    if stored is not None:
        say(f"codes from {stored.name}, fitted to the codes of this run; --latents {PRIOR} draws them from the prior")
    return stored


def _check_given(
    given: str | None, like: str | None, noise: bool | None, latents: str | None, temperature: float
) -> None:
    """Raise ChoiceError for --given or --like beside options that they exclude."""
    if like is not None and given is None:
        raise ChoiceError("--like needs the values to change: add --given COLUMN=VALUE")
    if like is not None and noise is not None:
        raise ChoiceError("versions of a row keep its own noise: omit --noise and --mean")
    if given is not None and (latents is not None or temperature != 1):
        raise ChoiceError("--given draws z from its posterior: omit --latents and --temperature")


def _given(
    run: Run, n: int, given: str, like: str | None, label: str | None, *, noise: bool | None, **options: Any
) -> Drawn:
    """n rows with the values of `--given`, or versions of the row of `--like`."""
    from vaekit.latents.counterfactual import counterfactual_rows
    from vaekit.latents.editing import raw_of
    from vaekit.latents.given import sample_given

    from .sources import condition, datum, given_values, labels

    values = given_values(given)
    if like is None:
        return sample_given(run, n, values, labels=condition(run, label), noise=noise, **options)
    row = datum(run, like)
    of_row = labels(run, row, label)
    if isinstance(row, int):
        return counterfactual_rows(run, raw_of(run, row), values, n, labels=run.observed("test").given(row), **options)
    return counterfactual_rows(run, raw_of(run, row.x), values, n, labels=of_row, **options)


def reconstruct(
    run: RunFolder,
    source: NewSource = None,
    /,
    *,
    split: Split = None,
    n: Annotated[int | None, N] = None,
    label: Labels = None,
    table: Described = None,
    noise: DrawX = False,
    sample: DrawZ = False,
    seed: Seed = 0,
    data: OwnData = None,
    bare: Bare = False,
    out: str | None = None,
) -> None:
    """Show test data or new data above their reconstructions, or write one reconstruction per row of new data.

    Parameters
    ----------
    n
        Use the first N examples; by default 8, or all rows of new data that are not shown as a picture.
    out
        .png (a grid), .npz (x, reconstruction, z), .csv or .parquet. For the run's own data, tables have each row, then
        its reconstruction. For new data, tables have the columns that the run does not use, then the reconstructed
        ones; .npz has the former as column.NAME; .h5ad has z in .obsm["X_vae"] and the reconstructions in
        .obsm["X_reconstruction"].
    """
    import numpy as np

    from . import pictures
    from .sources import new_data

    at_least(1, n=n)
    output = Output(out, "reconstructions", ROWS if source is None else (*ROWS, ".h5ad"))
    opened = open_given(run, data)
    path = output.of(opened)
    new = new_data(opened, source, split, label=label, table=table)
    by_row = source is not None and path.suffix.lower() != ".png"
    n = min(new.n, n or (new.n if by_row else SHOWN))
    observed = opened.observed(new)
    z = opened.encode(observed, n=n, sample=sample, seed=seed)
    decoded = opened.decode(z, noise=noise, seed=seed)
    if by_row and path.suffix.lower() in TABLES:
        return write_results(path, new, row_columns(opened, opened.as_rows(decoded)))
    arrays = {"x": observed.raw(np.arange(n)), "reconstruction": decoded, "z": z}
    if by_row:
        more = {"reconstruction": decoded, "z": opened.latents_of(z)}  # of .h5ad
        return write_results(path, new, arrays if path.suffix.lower() == ".npz" else more)
    if path.suffix.lower() in TABLES:  # each row above its reconstruction
        picture, columns = np.stack([arrays["x"], decoded], 1).reshape(-1, *decoded.shape[1:]), 1
    else:
        picture, columns = in_rows(arrays["x"], decoded)
    words = pictures.of_reconstructions(source or split or "test", len(picture) // columns)
    write(path, opened, picture, columns, arrays, None if bare else words)


def interpolate(
    run: RunFolder,
    a: str,
    b: str,
    /,
    *,
    steps: int = 11,
    mode: Literal["auto", "lerp", "slerp"] = "auto",
    label: str | None = None,
    noise: DrawX = False,
    sample: DrawZ = False,
    seed: Seed = 0,
    data: OwnData = None,
    bare: Bare = False,
    out: str | None = None,
) -> None:
    """Interpolate between two examples through the latent space.

    Parameters
    ----------
    a, b
        An index of the test set, an image file, or a .npy, .npz, .csv or .parquet file (its first row; rows.npy:3 for
        another).
    steps
        Number of points, including both ends.
    mode
        lerp (straight line), slerp (great circle), or auto, which decides by the number of latents.
    label
        For a conditional run and examples from files, the class (or the attributes a,b,c) of both ends.
        If class names are numbers, a number is a name; otherwise it is a class code 0, 1, ...
    out
        .png (a row) or .npz (x, z); for a table .csv, .parquet or .npz.
    """
    import numpy as np

    from vaekit.latents.paths import chosen_mode
    from vaekit.latents.paths import interpolate as interpolated

    from . import pictures
    from .sources import latent

    at_least(2, steps=steps)
    output = Output(out, "interpolation")
    opened = open_given(run, data)
    path = output.of(opened)
    ends = [latent(opened, end, sample, seed, position, label) for position, end in enumerate((a, b))]
    z = interpolated(ends[0], ends[1], steps=steps, mode=mode)
    x = opened.decode(z, noise=noise, seed=seed)
    words = pictures.of_interpolation(a, b, steps, chosen_mode(mode, z.shape[1]))
    write(path, opened, x, steps, {"x": x, "z": z}, None if bare else words, {"step": np.arange(1, steps + 1)})


def traverse(
    run: RunFolder,
    /,
    *,
    latents: int = 10,
    range: float | None = None,
    steps: int = 9,
    index: int | None = None,
    noise: DrawX = False,
    seed: Seed = 0,
    data: OwnData = None,
    bare: Bare = False,
    out: str | None = None,
) -> None:
    """Show what each latent changes: one row per latent, largest mean KL over the first 1,000 test data first.

    Parameters
    ----------
    latents
        Number of latents.
    range
        Vary each latent from -range to range; by default over the range of its values in the test data.
    steps
        Number of values per latent.
    index
        Row of the test set to start from; by default the prior's centre, or the test example whose code is nearest to
        the mean code if the picture at the centre is almost constant.
    out
        .png (a grid) or .npz (x, z, latents, names, values); `latents` are the varied columns of z. For a table .csv,
        .parquet or .npz.
    """
    import numpy as np

    from vaekit.latents.editing import walk_start
    from vaekit.latents.paths import traversal_values
    from vaekit.latents.paths import traverse as walk
    from vaekit.metrics import survey

    from . import pictures
    from .sources import latent

    at_least(1, latents=latents)
    at_least(2, steps=steps)
    if range is not None and not range > 0:
        raise ChoiceError(f"--range must be above 0, got {range:g}")
    output = Output(out, "traversal")
    opened = open_given(run, data)
    path = output.of(opened)
    means = opened.encode("test", n=1000)
    ranking = survey(opened)
    chosen = ranking.order[:latents]
    dims = ranking.places[chosen]
    if range is None:
        values = traversal_values(means, n=steps)[dims]
    else:
        values = np.tile(np.linspace(-range, range, steps), (len(dims), 1))
    origin = None if index is None else f"test row {index}"
    if index is None:
        start, row = walk_start(opened, means)
        origin = "the prior's centre" if row is None else f"test row {row}, because the prior's centre shows little"
    else:
        start = latent(opened, str(index))
    z = walk(start, dims, values).reshape(-1, means.shape[1])
    x = opened.decode(z, noise=noise, seed=seed)
    shape = (len(dims), steps)
    names = [ranking.names[i] for i in chosen]
    arrays = {"x": x.reshape(*shape, *x.shape[1:]), "z": z.reshape(*shape, -1), "latents": dims, "values": values}
    words = pictures.of_traversal(names, None if ranking.kl is None else ranking.kl[chosen], values, str(origin))
    beside = {"latent": np.repeat(names, steps), "z": np.float32(values).ravel()}
    write(path, opened, x, steps, {**arrays, "names": np.array(names)}, None if bare else words, beside)
    if index is None and row is not None:
        print(f"note: starts at {origin} (--index chooses another)", file=sys.stderr)
