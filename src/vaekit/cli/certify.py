"""`vaekit certify`: how far the numbers of a run can be off, and whether its densities are consistent."""

from __future__ import annotations

import json as jsons
from typing import TYPE_CHECKING, Annotated, Any

from vaekit.utils.wording import worded

from . import output
from .opening import open_given
from .output import Bar, at_least, check_file
from .parameters import Described, Device, Flag, Labels, N, NewSource, OwnData, RunFolder, Seed, Split

if TYPE_CHECKING:
    from vaekit.certificate import Certificate


def certify(
    run: RunFolder,
    source: NewSource = None,
    /,
    *,
    n: Annotated[int, N] = 32,
    samples: int = 1000,
    chains: int = 8,
    steps: int = 2000,
    tolerance: float = 1.0,
    split: Split = None,
    seed: Seed = 0,
    label: Labels = None,
    table: Described = None,
    device: Device = "cpu",
    data: OwnData = None,
    json: Flag = False,
    out: str | None = None,
) -> int:
    """Bound the error of each estimate of log p(x) for this very model, and check its densities.

    Data are simulated from the model, on which log p(x) is known in closed form, by quadrature or
    between the bounds of bidirectional Monte Carlo. The checks find an encoder that misses the
    posterior, a log q that is not the density of its draws, and a decoder whose scale does not fit
    the data. For models with one layer of continuous latents. Exit status 1 if a check fails.

    Parameters
    ----------
    n
        Number of examples, simulated and measured.
    samples
        K: number of draws from q per example.
    chains
        Chains of annealing per example.
    steps
        The most steps of annealing; it stops with fewer when the bounds are close.
    tolerance
        Nats between the bounds beyond which nothing is certified.
    json
        Print an object of JSON instead of lines.
    out
        Path of the page; by default certificate.html in the run.
    """
    from .sources import new_data, note_differing

    at_least(1, n=n, samples=samples, chains=chains, steps=steps)
    path = None if out is None else check_file(out, (".html",))
    opened = open_given(run, data, device)
    new = new_data(opened, source, split, label=label, table=table)
    note_differing(opened, new)
    chosen: dict[str, Any] = {"samples": samples, "chains": chains, "steps": steps, "tolerance": tolerance}
    with Bar("certifying") as bar:
        found = opened.certify(new, n=n, **chosen, seed=seed, progress=bar)
    from vaekit.report import write_certificate
    from vaekit.runs.example import is_fixed
    from vaekit.utils.files import is_writable

    page = write_certificate(opened, found, path)
    if source is None and path is None and is_writable(opened.path) and not is_fixed(opened.path):
        found.store(opened.path)  # for `vaekit doctor`
    print(jsons.dumps(found.as_json(), indent=1, ensure_ascii=False) if json else worded(_lines(found)))
    if not json:
        print(page)
    return 0 if found.passed else 1


def _lines(found: Certificate) -> str:
    """The certificate for people."""
    state = {True: "passed", False: "FAILED", None: "not judged"}
    lines = [f"{state[check.passed]:10} {check.name}: {check.words}" for check in found.checks]
    rows = [("estimator", "error on simulated data", "on the data", "verdict")]
    rows += [(v.estimate, f"{v.low:+.2f} to {v.high:+.2f}", f"{v.value:.2f}", v.words) for v in found.verdicts]
    return "\n".join([*lines, "", output.table(rows), found.tails])
