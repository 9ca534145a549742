"""The command that compares expression between groups."""

from __future__ import annotations

from vaekit.errors import ChoiceError

from .opening import open_given
from .output import Bar, at_least, check_results, make_folder
from .parameters import Device, NewSource, OwnData, RunFolder, Seed


def de(
    run: RunFolder,
    source: NewSource = None,
    /,
    *,
    groups: str,
    by: str | None = None,
    delta: float = 0.25,
    fdr: float = 0.05,
    draws: int = 50,
    permutations: int = 20,
    seed: Seed = 0,
    device: Device = "cpu",
    data: OwnData = None,
    out: str = "differential.csv",
) -> None:
    """Find the genes, or other counts, whose share differs between two groups of rows.

    Prints the false discovery rate measured with permuted groups, beside the one that the model expects. Without new
    data, all rows of the run's own data are used.

    Parameters
    ----------
    groups
        The two groups as A,B; a single A is compared with all other rows.
    by
        Column with the groups; by default the labels.
    delta
        Least fold change of interest, in log2.
    fdr
        Call as many genes as keep the false discovery rate that the model expects at or below this value.
    draws
        Number of posterior draws per row.
    permutations
        Number of permutations of the groups that measure the false discovery rate.
    out
        .csv or .parquet: one row per gene, the most probable differences first.
    """
    from vaekit.data.results import TABLES, write_columns

    at_least(1, draws=draws, permutations=permutations)
    path = check_results(out, TABLES)
    a, _, b = (word.strip() for word in groups.partition(","))
    if not a:
        raise ChoiceError("--groups expects A,B (two groups), or A (a group to compare with all other rows)")
    opened = open_given(run, data, device)
    with Bar("comparing") as bar:
        found = opened.differential(
            a, b or None, by=by, data=source, delta=delta, fdr=fdr, draws=draws, permutations=permutations, seed=seed,
            progress=bar,
        )  # fmt: skip
    make_folder(path)
    write_columns(path, found.table())
    print(found)
    print(path)
