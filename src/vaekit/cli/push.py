"""The command push: send a run to the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from .opening import open_given
from .parameters import Flag, OwnData, RunFolder


def push(
    run: RunFolder,
    repo: Annotated[str, Parameter(name="REPO", help="The repository, user/name; it is created if it does not exist.")],
    /,
    *,
    license: str | None = None,
    densities: bool = True,
    reconstructions: Flag = False,
    checkpoints: Flag = False,
    revision: str | None = None,
    private: Flag = False,
    message: str | None = None,
    dry_run: Flag = False,
    data: OwnData = None,
    out: str | None = None,
) -> None:
    """Send a run to the Hugging Face hub as safetensors, JSON and a model card; `hf://user/name` then opens it.

    The files are listed before they are sent. They have the model, its metrics, samples, row numbers of the splits and
    densities of codes, but no data. Sending needs `pip install 'vaekit[hub]'` and `hf auth login`.

    Parameters
    ----------
    license
        Licence of the model card, an identifier of the hub such as apache-2.0.
    densities
        Include the densities of codes that are stored with the run.
    reconstructions
        Show test images above their reconstructions on the model card, which publishes these images.
    checkpoints
        Include the last states of training, with which the run can be resumed.
    revision
        Branch to send to, which is created if it does not exist; by default main.
    private
        Create the repository as a private one.
    message
        Message of the commit.
    dry_run
        Write the folder, list its files and send nothing.
    out
        Folder of the files, which is kept; by default a temporary one, or NAME-hub with --dry-run.
    """
    from vaekit.export.hub import check_push
    from vaekit.export.hub import push as send

    if not dry_run:
        check_push(repo)  # before the run is opened
    chosen: dict[str, Any] = {"densities": densities, "reconstructions": reconstructions, "checkpoints": checkpoints}
    sending: dict[str, Any] = {"revision": revision, "private": private, "message": message, "dry_run": dry_run}
    print(send(open_given(run, data), repo, out=out, license=license, **chosen, **sending))
