"""The commands that compress data by a run, and decompress them: compress and decompress."""

from __future__ import annotations

import json as jsons
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from vaekit.errors import ChoiceError, RunError

from .opening import open_given
from .output import TABLES, Bar, at_least, check_file, check_picture, make_folder, row_columns
from .parameters import FLAG, Described, First, Flag, Labels, NewSource, OwnData, RunFolder, Split

if TYPE_CHECKING:
    import numpy as np

    from vaekit.coding import Compressed
    from vaekit.run import Run

ARCHIVES = (".vk",)
ARRAYS = (".npz", ".npy", *TABLES)


def compress(
    run: RunFolder,
    source: NewSource = None,
    /,
    *,
    split: Split = None,
    n: First = None,
    label: Labels = None,
    table: Described = None,
    observed: Annotated[
        bool,
        FLAG,
        Parameter(help="Compress what the model observes of the data, such as the fixed binary draw of grey images."),
    ] = False,
    tolerance: float | None = None,
    data: OwnData = None,
    json: Flag = False,
    out: str = "data.vk",
) -> None:
    """Compress data without loss, to about their negative ELBO, by a run with a discrete likelihood.

    Bits-back coding with asymmetric numeral systems; see docs/guides/compression.md. The archive has the numbers of the
    data as the run reads them, but no names or further columns, and is decoded with the run. It is written only after
    decoding it again and comparing every example.

    Parameters
    ----------
    tolerance
        Largest difference, relative to 1 + their size, that the outputs of the networks may have on the machine that
        decodes the archive. The default, 1e-9, is far above such differences in double precision.
    json
        Print a JSON object instead of lines.
    out
        The archive, a .vk file.
    """
    from .sources import new_data

    at_least(1, n=n)
    path = check_file(out, ARCHIVES)
    opened = open_given(run, data)
    new = new_data(opened, source, split, label=label, table=table, unseen=bool(opened.spec.missing))
    from vaekit.coding import compress as compressed

    make_folder(path)
    chosen: dict[str, Any] = {} if tolerance is None else {"tolerance": tolerance}
    with Bar("compressing") as bar:
        made = compressed(opened, new, path=path, n=n, observed=observed, **chosen, progress=bar)
    print(jsons.dumps(_summary(made), indent=1) if json else _lines(made))
    if not json:
        print(path)


def _summary(made: Compressed) -> dict[str, Any]:
    """The sizes as JSON."""
    return {
        "archive": str(made.path),
        "n": made.n,
        "bytes": made.size,
        "start_up": made.start_up,
        "known": made.known,
        "coded": made.coded,
        "negative_elbo": made.expected,
        "bits_per_dim": made.bits_per_dim,
    }


def _lines(made: Compressed) -> str:
    """The sizes in lines for people."""
    known = f", and {made.known:,} for what the model takes as known" if made.known else ""
    excess = f"{100 * made.excess:+.2f}%" if math.isfinite(made.excess) else "not comparable"
    return (
        f"{made.n:,} examples in {made.size:,} bytes: {made.size / made.n:,.1f} per example, "
        f"{made.bits_per_dim:.3f} bits per dimension; all were decoded again and compared\n"
        f"of these, {made.start_up:,} bytes are start-up{known}\n"
        f"the other {made.coded:,} bytes are {excess} from the negative ELBO, {made.expected:,.0f} bytes"
    )


def decompress(
    archive: Annotated[str, Parameter(name="ARCHIVE", help="A file written by `vaekit compress`.")],
    /,
    *,
    run: Annotated[
        str | None, Parameter(help="The run that the archive was made with, if it is not where it was then.")
    ] = None,
    out: str | None = None,
) -> None:
    """Decompress an archive with the run that it was made with.

    Parameters
    ----------
    out
        .npz (x), .npy, or for a table .csv or .parquet; by default data.npz, or data.csv for a table.
    """
    from vaekit.runs.find import find_run, is_run
    from vaekit.utils.files import checked_path
    from vaekit.utils.hub import is_address

    path = None if out is None else check_file(out, ARRAYS)
    file = checked_path(archive)
    if not file.is_file():
        raise RunError(f"no archive at {archive}: give a file that `vaekit compress` wrote")
    from vaekit.coding import archive as archives

    place = archives.read(file).header.get("run") if run is None else run
    if run is None:
        if not isinstance(place, str):
            raise ChoiceError(f"{archive} was made with a run in memory: save it and add --run RUN")
        here = not Path(place).is_absolute() and not is_address(place)  # an archive chooses no folder and no download
        inside = here and ".." not in Path(place).parts
        if not (place == "example" or (inside and is_run(place))):
            raise ChoiceError(f"{archive} was made with the run {place}, which is not here: add --run RUN")
    found = find_run(str(place))
    opened = open_given(str(found))
    table = opened.spec.kind not in ("image", "signal")
    path = path or check_file("data.csv" if table else "data.npz", ARRAYS)
    check_picture(opened, path)
    from vaekit.coding import decompress as decompressed

    with Bar("decompressing") as bar:
        x = decompressed(opened, file, progress=bar)
    _write(path, opened, x)
    print(path)


def _write(path: Path, run: Run, x: np.ndarray) -> None:
    """Write decompressed data in the format of the path's suffix."""
    import numpy as np

    from vaekit.data.results import write_columns
    from vaekit.utils.files import write_atomically

    make_folder(path)
    suffix = path.suffix.lower()
    if suffix in TABLES:
        write_columns(path, row_columns(run, x))
        return

    def save(part: Path) -> None:
        with open(part, "wb") as file:  # if given a name, NumPy would append its suffix
            if suffix == ".npy":
                np.save(file, x)
            else:
                np.savez_compressed(file, x=x)

    write_atomically(path, save)
