"""The commands that use a run: sample, reconstruct, interpolate, traverse, report."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from vaekit.errors import ChoiceError
from vaekit.runs.find import find_run
from vaekit.utils.collecting import uncollected
from vaekit.utils.progress import say

from .output import (
    ROWS,
    TABLES,
    Output,
    TaskProgress,
    at_least,
    check_file,
    check_source,
    in_rows,
    make_folder,
    row_columns,
    table,
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
    First,
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
    opened = _open(run, data, device)
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
    opened = _open(run, data)
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
    opened = _open(run, data)
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
    opened = _open(run, data)
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


def report(
    runs: Annotated[tuple[str, ...], Parameter(name="RUN")],
    /,
    *,
    n: First = None,
    samples: int = 100,
    label: Labels = None,
    table: Described = None,
    synthetic: str | None = None,
    target: Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True)] = None,
    seed: Seed = 0,
    out: str | None = None,
    data: OwnData = None,
) -> None:
    """Write an HTML page about a run, about new data for a run (`vaekit report RUN NEW`), or about several runs.

    The page about new data shows their metrics, reconstructions, scores and codes beside those of held-out data.
    With --synthetic, the page compares synthetic rows of a table with the run's real rows: fidelity of columns and
    pairs, training on synthetic and testing on real rows, detectability and privacy, each beside the same measure of
    real rows. All numbers are also written to a .json file beside it.

    Parameters
    ----------
    runs
        The run directories; or one run directory, then the name or path of new data.
    n
        With new data, use only their first N rows.
    samples
        With new data, K: number of draws of z per row.
    synthetic
        File with synthetic rows, from `vaekit sample RUN --out new.csv` or any other program; or `sample`, for
        rows drawn from the run.
    target
        With --synthetic, the columns to predict in training on synthetic and testing on real rows; by default the last
        column of categories, or else the last column.
    out
        Path of the page; by default report.html in the run, report-NAME.html for new data, or synthetic.html with
        --synthetic.
    """
    if not runs:
        raise ChoiceError("report needs a run directory: vaekit report RUN [RUN ...], or vaekit report RUN NEW")
    path = None if out is None else check_file(out, (".html",))
    at_least(1, n=n, samples=samples)
    source = runs[-1] if len(runs) > 1 and _is_data(runs[-1]) else None
    runs = runs if source is None else runs[:-1]
    runs = tuple(str(find_run(run)) for run in runs)
    if synthetic is None and target is not None:
        raise ChoiceError("--target applies to synthetic rows: add --synthetic FILE")
    if synthetic is not None and len(runs) > 1:
        raise ChoiceError(f"--synthetic compares rows with one run, got {len(runs)}: write a page for each")
    if source is not None and (len(runs) > 1 or synthetic is not None):
        raise ChoiceError("a page about new data takes one run, and no --synthetic: vaekit report RUN NEW")
    if source is None and (n, label, table) != (None, None, None):
        raise ChoiceError("-n, --label and --table apply to new data: vaekit report RUN NEW")
    if path is not None:
        make_folder(path)
    if source is not None:
        from vaekit.report import write_new

        from .sources import new_data

        opened = _open(runs[0], data)
        new = new_data(opened, source, label=label, table=table)
        print(write_new(opened, new, path, n=n, samples=samples, seed=seed))
        return
    if synthetic is not None:
        _compare_synthetic(runs[0], synthetic, target, seed, path, data)
        return
    from vaekit.report import write_report

    print(write_report([_open(run, data) for run in runs], path))


def _is_data(given: str) -> bool:
    """Whether an argument is new data rather than a run: a named data set, a file, or a folder without runs."""
    from vaekit.data.named import SETS

    path = Path(given).expanduser()
    if path.is_dir():
        return not any(folder.joinpath("run.json").is_file() for folder in (path, *path.iterdir()))
    return path.is_file() or given in SETS


def _compare_synthetic(
    run: str, source: str, target: tuple[str, ...] | None, seed: int, path: Path | None, data: str | None
) -> None:
    """Compare synthetic rows with those of a run; print a table and write a page."""
    from vaekit.report.synthetic import conclusion, rows_of, without, write_synthetic
    from vaekit.synthetic import compare_synthetic

    from .sources import new_data

    opened = _open(run, data)
    if source != "sample":
        check_source(source)
    rows = None if source == "sample" else new_data(opened, source)
    with TaskProgress() as progress:
        comparison = compare_synthetic(opened, rows, target=target, seed=seed, progress=progress)
    print(table([("measure", "synthetic rows", "real rows", "verdict"), *rows_of(comparison)]))
    print(conclusion(comparison.measures))
    if words := without(comparison):
        say(f"note: {words[0].lower()}{words[1:]}")
    name = "rows drawn from the run" if source == "sample" else source
    print(write_synthetic(opened, comparison, path, source=name))


def _open(run: str, data: str | None = None, device: str = "cpu") -> Run:
    folder = find_run(run)  # before torch is imported
    if data is not None:
        check_source(data)
    with uncollected(lasting=True):
        from vaekit.run import open_run
        from vaekit.training.cost import choose_device

    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is None and (own := os.environ.get("LOCAL_RANK")):
        chosen = choose_device(f"cuda:{own}")  # each process that torchrun started has its own
    return open_run(folder, data=data).to(chosen)
