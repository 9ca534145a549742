"""`vaekit certify`: how far the numbers of a run can be off, and whether its densities are consistent."""

from __future__ import annotations

import json as jsons
import math
from typing import TYPE_CHECKING, Annotated, Any

from vaekit.utils.wording import worded

from . import output
from .output import Bar, at_least, check_file
from .parameters import Described, Device, Flag, Labels, N, NewSource, OwnData, RunFolder, Seed, Split
from .use import _open

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
        The most steps of annealing; fewer are taken if the bounds are sharp before.
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
    opened = _open(run, data, device)
    new = new_data(opened, source, split, label=label, table=table)
    note_differing(opened, new)
    chosen: dict[str, Any] = {"samples": samples, "chains": chains, "steps": steps, "tolerance": tolerance}
    with Bar("certifying") as bar:
        found = opened.certify(new, n=n, **chosen, seed=seed, progress=bar)
    from vaekit.diagnosis.after import CERTIFICATE
    from vaekit.report import write_certificate
    from vaekit.runs.example import PLACE
    from vaekit.utils.files import is_writable, write_json

    page = write_certificate(opened, found, path)
    if source is None and path is None and is_writable(opened.path) and opened.path != PLACE:
        write_json(opened.path / CERTIFICATE, _plain(found.as_json()))  # for `vaekit doctor`
    print(jsons.dumps(found.as_json(), indent=1, ensure_ascii=False) if json else worded(_lines(found)))
    if not json:
        print(page)
    return 0 if found.passed else 1


def _plain(value: Any) -> Any:
    """JSON values, with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(found: Certificate) -> str:
    """The certificate for people."""
    state = {True: "passed", False: "FAILED", None: "not judged"}
    lines = [f"{state[check.passed]:10} {check.name}: {check.reason}" for check in found.checks]
    rows = [("estimator", "error on simulated data", "on the data", "verdict")]
    rows += [(v.name, f"{v.low:+.2f} to {v.high:+.2f}", f"{v.value:.2f}", v.words) for v in found.verdicts]
    tails = f"k-hat: median {found.k_hat['50%']:.2f}, above 0.7 for {found.k_hat['above 0.7']:.0%} of the examples"
    return "\n".join([*lines, "", output.table(rows), tails])
