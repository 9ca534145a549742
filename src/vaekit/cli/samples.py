"""The command that measures every sampler of a run: samplers."""

from __future__ import annotations

import json as jsons
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from vaekit.utils.progress import say

from .opening import open_given
from .output import TaskProgress, at_least, check_file, make_folder, table
from .parameters import Device, DrawOrMean, First, Flag, OwnData, RunFolder, Seed

if TYPE_CHECKING:
    from vaekit.metrics.samples import Sampled


def samplers(
    run: RunFolder,
    /,
    *,
    n: First = None,
    latents: Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True)] = None,
    features: Literal["learned", "raw"] = "learned",
    noise: DrawOrMean = None,
    seed: Seed = 0,
    device: Device = "cpu",
    data: OwnData = None,
    json: Flag = False,
    out: str | None = None,
) -> None:
    """Measure the samples of each sampler of a run: how far from the data, what they miss, blur, and copies.

    One row per sampler (the prior, and densities of the codes), and one of real data in place of samples. The report of
    the run then shows the table with samples of each.

    Parameters
    ----------
    n
        Number of test examples, and of samples; by default all test examples.
    latents
        Samplers: prior, gmm, flow, two-stage, flow-matching, or all. Densities that are not stored with the run are
        fitted. By default the prior and the stored ones.
    features
        Compare samples in features of a network that is trained on the same training data (learned), or in principal
        components (raw).
    json
        Print a JSON object with all intervals instead of a table.
    out
        Also write this object to a .json file.
    """
    at_least(1, n=n)
    path = None if out is None else check_file(out, (".json",))
    names = [name for word in latents or () for name in word.lower().split(",") if name]
    opened = open_given(run, data, device)
    from vaekit.metrics.samples import measure_samplers
    from vaekit.metrics.samples.samplers import chosen, unfitted
    from vaekit.utils.files import write_json

    chosen(opened, names)  # an unknown name is refused before the data are read
    with TaskProgress() as progress:
        measured = measure_samplers(
            opened, n=n, latents=names, features=features, noise=noise, seed=seed, progress=progress
        )
    if path is not None:
        make_folder(path)
        write_json(path, measured.as_json())
    if json:
        print(jsons.dumps(measured.as_json(), indent=1, ensure_ascii=False))
        return
    print(_table(measured))
    if others := unfitted(opened):
        say(f"note: not fitted: {', '.join(others)}; --latents all fits and measures them too")


def _table(measured: Sampled) -> str:
    """The table, its protocol, and what stands out."""
    from vaekit.report.samplers import HEADS, rows_of, verdicts

    heads, rows = rows_of(measured)
    protocol: dict[str, Any] = measured.protocol
    lines = [
        f"{protocol['n']:,} {protocol['x']} and as many {protocol['split']} data of {protocol['data']}, seed "
        f"{protocol['seed']}; {protocol['features']}; memorisation by distances of {protocol['distances']}; ± standard "
        "error",
        *verdicts(measured),
    ]
    short = [HEADS[name] for name in heads]
    return "\n".join([table([("sampler", *short, ""), *((*row, "") for row in rows)]), *lines])
