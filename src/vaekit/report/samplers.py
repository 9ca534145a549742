"""The section of the report about the samplers of a run: the measures of each, and samples that are not selected."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial
from typing import Any

from vaekit import figures
from vaekit.data.core import listed
from vaekit.latents.densities import DENSITIES
from vaekit.metrics.samples import MEASURES, Sampled, drawn_by
from vaekit.metrics.samples.samplers import PRIOR, known, stored
from vaekit.utils.uncertainty import t_quantile

from . import densities  # noqa: F401 - its section comes first
from .blocks import Block, Strip, Strips, Table, Text, plot
from .look import Look
from .registry import figure

HEADS = {
    "frechet_distance": "Fréchet",
    "kernel_distance": "kernel",
    "sample_precision": "precision",
    "sample_recall": "recall",
    "sample_density": "density",
    "sample_coverage": "coverage",
    "sharpness": "sharpness",
    "memorisation": "memorisation",
}
"""The heads of the columns, by measure."""
REAL = "real data"
SHOWN, LINES = 10, 12
"""The number of images, and of other samples, that are shown of each sampler."""


def rows_of(measured: Sampled) -> tuple[list[str], list[list[str]]]:
    """The measures that have a column, and the rows of the table: each sampler, then real data in its place."""
    names = [name for name in MEASURES if measured.value(measured.rows[0]["name"], name) is not None]
    rows = [[row["name"], *(_cell(m) for m in row["measures"] if m["name"] in names)] for row in measured.rows]
    floors = [_cell(m["floor"]) for m in measured.rows[0]["measures"] if m["name"] in names]
    return names, [*rows, [REAL, *floors]]


def _cell(m: dict[str, Any]) -> str:
    """A value with its standard error, with three decimals at most: eight of them stand in a row."""
    if m["value"] is None:
        return "–"
    known = f"{m['value']:.3f}" if m["se"] is None or m["se"] < 0.05 else f"{m['value']:.2f}"
    error = "" if m["se"] is None else f" ± {m['se']:.{len(known.split('.')[1])}f}"
    return f"{known}{error}".replace("-0.000", "0.000").replace("-", "−")


def verdicts(measured: Sampled) -> list[str]:
    """What stands out, in sentences: the sampler nearest to the data, and whether samples repeat training data."""
    distance = next((name for name in ("frechet_distance", "kernel_distance") if _is_known(measured, name)), None)
    found = [] if distance is None or len(measured.rows) < 2 else [_nearest(measured, distance)]
    if not _is_known(measured, "frechet_distance"):
        found.append("The Fréchet distance was not measured: it needs at least 2 test data and samples per feature.")
    return [*found, *_memorised(measured)]


def _memorised(measured: Sampled) -> list[str]:
    """Which samplers repeat training data, judged against validation data; what cannot be excluded of the others."""
    above = {row["name"]: measured.above(row["name"]) for row in measured.rows}
    copying, found = measured.copying, []
    if copying:
        apart = ", ".join(f"{name} by {_interval(above[name])}" for name in copying)
        found.append(
            f"Samples prefer training data more than validation data do, beyond chance: {apart}. "
            + _cause(above, copying)
        )
    others = {name: one["high"] for name, one in above.items() if name not in copying}
    if known := {name: high for name, high in others.items() if high is not None}:
        found.append(
            f"Samples of {listed(list(known))} do not detectably prefer training data more than validation data do; a "
            f"difference of up to {max(0.0, *known.values()):.3f} cannot be excluded."
        )
    if unknown := [name for name in others if name not in known]:
        found.append(f"Memorisation by {listed(unknown)} is not judged: there are too few data for an error.")
    return found


def _interval(one: dict[str, Any]) -> str:
    return f"{one['value']:.3f} (95% interval {one['low']:.3f} to {one['high']:.3f})"


def _cause(measured: Collection[str], copying: list[str]) -> str:
    """What has memorised: the model, or perhaps only the densities of its codes."""
    if PRIOR in copying:
        return "The model has memorised training data."
    if PRIOR in measured:
        return f"Those of the prior do not detectably: {listed(copying)} may fit the codes of training data closely."
    return f"The model has memorised training data, or {listed(copying)} fits their codes too closely."


def _is_known(measured: Sampled, name: str) -> bool:
    return all(measured.value(row["name"], name) is not None for row in measured.rows)


def _nearest(measured: Sampled, distance: str) -> str:
    """Which of several samplers is the nearest to the data."""
    found = {
        row["name"]: (measured.value(row["name"], distance) or 0.0, measured.value(row["name"], distance, "se"))
        for row in measured.rows
    }
    best = min(found, key=lambda name: found[name][0])
    least, error = found.pop(best)
    # all are compared with the same data, so that this interval of a difference is rather too wide
    reach = t_quantile(0.05, math.inf)
    clear = error is not None and all(
        se is not None and value - least > reach * math.hypot(se, error) for value, se in found.values()
    )
    called = "Fréchet" if distance == "frechet_distance" else "kernel"
    doubt = "" if clear else ", but not clearly"
    return f"Samples of {best} are the nearest to the data by the {called} distance{doubt}."


CAPTION = (
    "± is the standard error. Fréchet and kernel distance: 0 for samples of the data's distribution; real data may be "
    "slightly below. Precision: the share of samples that look like data; recall: the share of data that samples "
    "resemble; density and coverage are similar and less sensitive to unusual data. Sharpness: the energy of fine "
    "detail, over that of data; below 1 is blurred. Memorisation: 0.5 if held-out data are as near to samples as "
    "training data, 1 if samples are copies; to be compared with real data."
)


@figure("samplers", "Samplers")
def samplers(look: Look) -> list[Block]:
    """The table of `vaekit samplers`, and samples of each sampler."""
    measured = stored(look.run)
    if measured is None:
        return []
    names, rows = rows_of(measured)
    how = measured.protocol
    floor = f"{REAL.capitalize()}: training data in place of samples (for memorisation, validation data)."
    words = (
        f"{how['n']:,} {how['x']} per sampler, and as many {how['split']} data; {how['features']}; memorisation by "
        f"distances of {how['distances']}. {floor} {CAPTION}"
    )
    blocks: list[Block] = [Table(["sampler", *(HEADS[name] for name in names)], rows, words,
                                 numeric=range(1, len(names) + 1))]  # fmt: skip
    blocks += [Text(words) for words in verdicts(measured)]
    if look.data is None:
        return [*blocks, Text("Not shown: samples of each, because the data are unavailable.", "note")]
    drawn = [row["name"] for row in measured.rows if row["name"] in known(look.run)]
    noise, seed = how["x"].startswith("draws"), how["seed"]
    label = {name: "the prior" if name == PRIOR else DENSITIES[name].traits["called"] for name in drawn}
    caption = f"The first samples of seed {seed}, not selected: {how['x']}."
    if look.is_image:
        strips = [
            Strip(name, look.tiles(drawn_by(look.run, name, SHOWN, noise=noise, seed=seed)), label[name])
            for name in drawn
        ]
        strips.append(Strip(REAL, look.tiles(look.raw), "test examples"))
        return [*blocks, Strips("samplers", strips, f"Rows of images sampled by {listed(drawn)}", caption)]
    for name in drawn:
        x = look.shown(drawn_by(look.run, name, LINES, noise=noise, seed=seed))
        draw = partial(figures.lines, x, names=look.features, unit=look.unit)
        blocks.append(plot(f"samplers-{name}", draw, f"Line plots of samples of {name}",
                           f"{label[name][0].upper()}{label[name][1:]}. {caption} Values in {look.unit}."))  # fmt: skip
    return blocks
