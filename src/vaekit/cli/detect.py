"""The command that finds unusual rows: detect."""

from __future__ import annotations

import json as jsons
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from vaekit.errors import ChoiceError

from .opening import open_given
from .output import Bar, at_least, check_file, check_results, make_folder, table, write_results
from .parameters import Described, Device, Flag, Labels, OwnData, RunFolder, Split

if TYPE_CHECKING:
    from pathlib import Path

    from vaekit.anomalies import Detection
    from vaekit.run import Run

SHOWN = 16
"""The maximum number of rows in a picture of maps."""


def detect(
    run: RunFolder,
    source: Annotated[str | None, Parameter(name="NEW")] = None,
    /,
    *,
    false_alarms: float | None = None,
    truth: str | None = None,
    samples: int = 50,
    split: Split = None,
    label: Labels = None,
    table: Described = None,
    maps: str | None = None,
    device: Device = "cpu",
    data: OwnData = None,
    json: Flag = False,
    out: str = "flagged.csv",
) -> None:
    """Flag unusual rows at a false-alarm rate, with the columns that make each of them unusual.

    Each row gets a p-value: its rank among held-out rows of the run's data (split conformal prediction). The
    probability of flagging a row that is like them is at most --false-alarms, for any model. The held-out rows are
    scored once, and their scores are kept with the run.

    Parameters
    ----------
    source
        Name or path of new data; by default the test split, whose rows are each compared with the other held-out rows.
    false_alarms
        The probability of flagging a row that is like the held-out rows; by default 0.01, which needs 99 held-out rows,
        or the smallest rate that they support.
    truth
        Column with labels, to measure AUROC, average precision and recall: COLUMN if it holds 0 and 1 (1 is anomalous),
        or COLUMN=VALUE with the value of anomalous rows.
    samples
        K: number of draws of z per example. All rows get the same draws.
    maps
        For images and signals, also write maps of what is unusual in the flagged rows: .png (image, reconstruction,
        map), or .npz.
    json
        Print a JSON object instead of lines.
    out
        .csv or .parquet: index, the columns of the data that the run does not use, log_px, percentile, p_value,
        flagged, and for flagged rows reason_1 (the most unusual column), its value, the value that the other columns
        suggest, reason_2, ...; .npz; .h5ad.
    """
    from .sources import new_data

    at_least(1, samples=samples)
    path = check_results(out)
    picture = None if maps is None else check_file(maps, (".png", ".npz"))
    opened = open_given(run, data, device)
    if picture is not None:
        _check_maps(opened, picture)
    new = new_data(opened, source, split, label=label, table=table, unseen=True)
    with Bar("scoring") as bar:
        found = opened.detect(new, false_alarms=false_alarms, truth=truth, samples=samples, progress=bar)
    if picture is not None:
        _write_maps(opened, found, picture)
    print(jsons.dumps(_summary(found), indent=1, ensure_ascii=False) if json else _lines(found))
    write_results(path, new, found.results())


def _summary(found: Detection) -> dict[str, Any]:
    """The result as a whole, as JSON."""
    drift = found.drift
    return {
        "n": len(found.score),
        "flagged": int(found.flagged.sum()),
        "expected_by_chance": found.false_alarms * len(found.score),
        "false_alarms": found.false_alarms,
        "threshold": found.threshold,
        "held_out": found.held_out,
        "drift": None
        if drift is None
        else {
            "p": drift.p_value,
            "scores": drift.scores,
            "codes": drift.codes,
            "columns": [
                {"column": c.column, "p": c.p_value, "distance": c.distance, "missing": c.missing}
                for c in drift.drifting
            ],
        },
        "measures": found.measures,
        "notes": list(found.notes),
    }


def _lines(found: Detection) -> str:
    """The result as a whole, in lines for people."""
    n = len(found.score)
    count, by_chance = int(found.flagged.sum()), found.false_alarms * n
    expected = f"{by_chance:,.0f}" if by_chance >= 10 else f"{by_chance:.2g}"
    lines = [
        f"{count:,} of {n:,} rows flagged; about {expected} expected if all are like the held-out rows",
        f"threshold: {found.unit} below {found.threshold:.6g}, at a false-alarm rate of "
        f"{100 * found.false_alarms:.3g}% from {found.held_out:,} held-out rows",
    ]
    if found.drift is not None:
        d = found.drift
        verdict = "these rows as a whole differ from the held-out rows" if d.p_value <= 0.05 else "none found"
        lines.append(f"drift: {verdict} (p = {d.p_value:.2g}; scores {d.scores:.2g}, codes {d.codes:.2g})")
        if named := d.named():
            lines.append(f"columns that differ most: {named}")
    lines += [f"note: {note}" for note in found.notes]
    if found.measures:
        rows = [("measure", "value", "95% interval", "rows")]
        names = {"auroc": "AUROC", "average_precision": "average precision", "false_alarms": "false alarms"}
        for m in found.measures:
            interval = f"{m['low']:.3f} to {m['high']:.3f}"
            rows.append((names.get(m["name"], m["name"]), f"{m['value']:.3f}", interval, f"{m['n']:,}"))
        lines.append(table(rows))
    return "\n".join(lines)


def _check_maps(run: Run, path: Path) -> None:
    """Raise ChoiceError if the run's data have no maps, or none as a picture."""
    if run.spec.kind not in ("image", "signal"):
        raise ChoiceError("--maps is for images and signals; for tables, the columns reason_1, ... say what is unusual")
    if path.suffix.lower() == ".png" and run.spec.kind != "image":
        raise ChoiceError(f"{run.spec.kind}s have no map as a picture: write --maps {path.with_suffix('.npz')}")


def _write_maps(run: Run, found: Detection, path: Path) -> None:
    """Write the maps of the flagged rows as a picture of the most unusual ones, or all of them as arrays."""
    import numpy as np

    from vaekit.utils.files import write_atomically

    maps, expected = found.maps, found.expected
    if maps is None or expected is None:
        print("the likelihood of this run does not factorise over pixels, so there are no maps")
        return
    rows = found.explained
    if not len(rows):
        print("no row is flagged, so there is no map to write")
        return
    make_folder(path)
    raw = found.rows(rows)
    if path.suffix.lower() == ".npz":

        def save(part: Path) -> None:
            with open(part, "wb") as file:  # if given a name, NumPy would append .npz to it
                np.savez_compressed(file, row=rows, x=raw, reconstruction=expected, map=maps)

        write_atomically(path, save)
    else:
        from vaekit.figures import channels_last, diverging, image_grid, save_png, to_uint8

        first = np.argsort(found.score[rows], kind="stable")[:SHOWN]
        grey = maps[first].sum(1)  # over channels
        limit = float(np.nanmax(np.abs(grey), initial=0.0)) or 1.0
        bands = [to_uint8(channels_last(x), run.spec.scale) for x in (raw[first], expected[first])]
        tiles = np.concatenate([*bands, diverging(grey, limit)])
        save_png(path, image_grid(tiles, len(first)))
    print(path)
