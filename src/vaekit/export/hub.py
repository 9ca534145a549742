"""A run as a repository of the Hugging Face hub: a folder of safetensors, JSON, pictures and a model card."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.data.named import SETS
from vaekit.errors import ChoiceError, RunError
from vaekit.figures import channels_last, figure_png, image_grid, lines, png_bytes, theme
from vaekit.latents.fitted import stored_density
from vaekit.latents.resample import draw_codes
from vaekit.models.priors import Vamp
from vaekit.runs.configuration import FAILED
from vaekit.runs.example import OF_DENSITIES, PUBLISHED
from vaekit.runs.saved import SavedRun
from vaekit.utils.files import checked_path, is_part, read_json, read_tensors, write_atomically, write_json, write_text
from vaekit.utils.hub import LOGIN, Address, address, explained, is_address, library
from vaekit.utils.progress import say

from .card import FRONT, card

CARD, SAMPLES, RECONSTRUCTIONS = "README.md", "samples.png", "reconstructions.png"
OWN = (*PUBLISHED, *OF_DENSITIES, "checkpoint/*", SAMPLES, RECONSTRUCTIONS)
"""Patterns of the files that vaekit writes into a repository; an upload removes earlier ones that it does not replace.
"""
SHOWN, COLUMNS, ROWS = 64, 16, 8
"""The number of samples in a picture, the tiles per row, and the rows of a table of samples."""


# --- the folder -------------------------------------------------------------------------------------------------


def write_hub(
    run: SavedRun,
    out: str | Path,
    *,
    name: str | None = None,
    license: str | None = None,
    densities: bool = True,
    reconstructions: bool = False,
    checkpoints: bool = False,
) -> list[Path]:
    """Write the folder that `push` uploads: everything that is needed to open the run, and a model card.

    run.json and model.safetensors (the model), splits.safetensors (row numbers), log.jsonl, metrics.json, latents/
    (densities of codes), samples.png or rows of a table, and README.md. No data are among them, and run.json names
    neither the path of the data nor other paths of this machine. Notes say where the model itself tells of single
    training rows: the pseudo-inputs of a VampPrior, and the labels in a conditional density. `vk.open(out)` opens the
    folder.

    Arguments:
        out: the folder; it is made, or must hold an earlier export.
        name: of the repository, user/name, for the card; by default the name of the folder.
        license: an identifier of the hub such as apache-2.0, for the card.
        densities: whether to include the densities of codes (gmm, flow, two-stage, flow-matching) stored with the run.
        reconstructions: whether to show test examples above their reconstructions, which publishes these examples.
        checkpoints: whether to include the last states of training, with which it can be resumed.

    Returns:
        the files.

    Raises:
        RunError: `out` holds other files or cannot be written, or the run has no weights.
        DataError: the test data for reconstructions are unavailable.

    Example:
        >>> import tempfile, vaekit as vk
        >>> folder = tempfile.mkdtemp()
        >>> [file.name for file in write_hub(vk.open("example"), folder, name="user/clothes")][-2:]
        ['samples.png', 'README.md']
    """
    folder = checked_path(out)
    name = name or folder.resolve().name
    _emptied(folder, run)
    kept = list(_files(run.path, densities, checkpoints))
    for file in kept:
        target = folder / file.relative_to(run.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.name == "run.json":  # of the run, or of a density that was trained like one
            write_json(target, _published(read_json(file)))
        else:
            shutil.copyfile(file, target)
    pictures, rows = [], None
    x, how = _drawn(run, densities)
    if run.spec.kind in ("image", "signal"):
        write_atomically(folder / SAMPLES, lambda part: part.write_bytes(_picture(run, x)))
        pictures.append((SAMPLES, f"{len(x)} samples", how))
    else:
        rows = x[:ROWS]
    if reconstructions:
        _reconstructed(run, folder)
        pictures.append((RECONSTRUCTIONS, "reconstructions", "Test data, with reconstructions below or beside them."))
    write_text(folder / CARD, card(run, name, license, pictures, rows))
    for disclosed in _disclosed(run, kept):
        say(f"note: {disclosed}")
    written = [folder / file.relative_to(run.path) for file in kept]
    return [*written, *(folder / file for file, _, _ in pictures), folder / CARD]


def _emptied(folder: Path, run: SavedRun) -> None:
    """Make the folder, or remove an earlier export from it.

    Raises:
        RunError: it holds other files, or cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file: choose another `out` for the folder")
    if folder.is_dir() and any(folder.iterdir()):
        own = folder.resolve() == run.path.resolve() or (folder / "checkpoint").exists()  # a run to train further
        text = (folder / CARD).read_text(encoding="utf8", errors="replace") if (folder / CARD).is_file() else ""
        if own or not text.startswith(FRONT) or not (folder / "run.json").is_file():
            raise RunError(f"{folder} holds other files: name a new folder, such as `out={str(folder) + '-hub'!r}`")
        for file in [f for pattern in OWN for f in folder.glob(pattern) if f.is_file()]:
            file.unlink()
        shutil.rmtree(folder / "latents", ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the directory {folder}: {error.strerror}; choose another `out`") from error


def _files(path: Path, densities: bool, checkpoints: bool) -> Iterator[Path]:
    """The files of the run at `path` that are published, run.json first.

    Raises:
        RunError: it has no weights.
    """
    for name in PUBLISHED:
        if (path / name).is_file():
            yield path / name
        elif name in PUBLISHED[:2]:
            raise RunError(f"{path / name} is missing: train the run before it is published")
    wanted = [folder for folder, asked in (("latents", densities), ("checkpoint", checkpoints)) if asked]
    for file in sorted(f for folder in wanted for f in (path / folder).rglob("*")):
        inside = file.relative_to(path).parts
        state = "checkpoint" in inside[1:]  # of the training of a density
        if file.suffix in (".json", ".jsonl", ".safetensors") and not state and not is_part(file.name):
            yield file


def _disclosed(run: SavedRun, files: Sequence[Path]) -> Iterator[str]:
    """What these files of the run tell of single training rows."""
    if any(isinstance(module, Vamp) for module in run.model.modules()):
        yield "model.safetensors has the pseudo-inputs of the VampPrior, which began as rows of the training data"
    for file in files:
        if file.parent.name == "latents" and file.suffix == ".safetensors" and "labels" in read_tensors(file)[0]:
            yield f"latents/{file.name} has the labels of the training rows; `densities=False` leaves it out"


def _published(config: dict[str, Any]) -> dict[str, Any]:
    """The content of run.json without paths of this machine."""
    data = config["data"]
    if data["source"] not in SETS:
        data["source"] = None
    if "table" in data["options"]:
        data["options"]["table"] = Path(str(data["options"]["table"])).name
    if not is_address(config.get("init_from")):
        config.pop("init_from", None)
    if config["decided"]["compile_why"].startswith(FAILED):  # the compiler's message names its files
        config["decided"]["compile_why"] = FAILED
    return config


# --- pictures ---------------------------------------------------------------------------------------------------


def _drawn(run: SavedRun, densities: bool) -> tuple[np.ndarray, str]:
    """Samples (N, *event) with seed 0, as `vaekit sample` draws them by default, and how they were drawn."""
    density = stored_density(run) if densities else None
    z = run.sample_latents(SHOWN) if density is None else draw_codes(run, density, SHOWN)
    source = "the prior" if density is None else f"{density.name}, a density of the training codes"
    return run.new_rows(z), f"{SHOWN} samples with seed 0, not selected: z from {source}."


def _picture(run: SavedRun, x: np.ndarray) -> bytes:
    """Images in a grid, or signals in panels, as a PNG file."""
    if run.spec.kind == "image":
        return png_bytes(image_grid(channels_last(x), COLUMNS, scale=run.spec.scale))
    with theme("light"):
        return figure_png(lines(x[:16]))


def _reconstructed(run: SavedRun, folder: Path) -> None:
    """Write a picture of test data above their reconstructions."""
    if run.spec.kind not in ("image", "signal"):
        raise ChoiceError("rows of a table have no picture: omit `reconstructions`")
    observed = run.observed("test")
    n = min(COLUMNS, observed.n)
    x = observed.raw(np.arange(n))
    again = run.decode(run.encode(observed, n=n))
    if run.spec.kind == "image":
        png = png_bytes(image_grid(channels_last(np.concatenate([x, again])), n, scale=run.spec.scale))
    else:
        with theme("light"):
            png = figure_png(lines(x, again))
    write_atomically(folder / RECONSTRUCTIONS, lambda part: part.write_bytes(png))


# --- the upload -------------------------------------------------------------------------------------------------


def target(repo: str) -> Address:
    """The address of a repository: `user/name`, `hf://user/name` or either with `@branch`.

    Raises:
        RunError: it is of another form.
    """
    return address(repo if is_address(repo) else f"hf://{repo}")


def check_push(repo: str) -> Address:
    """The address of a repository, after a check that a run can be sent there.

    Raises:
        RunError: huggingface_hub is not installed, there is no token, or the name is not that of a repository.
    """
    wanted, hub = target(repo), library()
    from huggingface_hub.utils import validate_repo_id

    with explained(wanted):
        validate_repo_id(wanted.repo)
    if hub.get_token() is None:
        raise RunError(f"sending a run to the hub needs a token with write access: {LOGIN}")
    return wanted


def upload(
    folder: str | Path,
    repo: str,
    *,
    files: Sequence[Path] | None = None,
    revision: str | None = None,
    private: bool = False,
    message: str | None = None,
) -> str:
    """Send a folder that `write_hub` wrote to a repository of the hub, in one commit, and return its address.

    The repository is created if it does not exist. Files of an earlier upload that are not replaced are removed; other
    files in the repository are left alone.

    Arguments:
        folder: the folder.
        repo: user/name.
        files: those to send; by default all that `write_hub` writes.
        revision: a branch, created if it does not exist; by default main.
        private: whether a new repository is private.
        message: of the commit.

    Returns:
        hf://user/name@COMMIT, which stays valid when the branch moves on.

    Raises:
        RunError: huggingface_hub or a token is missing, access is refused, `private` is set and the repository is
            public, or the hub cannot be reached.
    """
    place, wanted = Path(folder), check_push(repo)
    wanted = Address(wanted.repo, revision or wanted.revision)
    chosen = [f for pattern in (*OWN, CARD) for f in place.glob(pattern)] if files is None else files
    sent = sorted({file.relative_to(place).as_posix() for file in chosen if file.is_file()})
    hub = library()
    api = hub.HfApi()
    with explained(wanted):
        api.create_repo(wanted.repo, private=private or None, exist_ok=True)
        if private and not api.model_info(wanted.repo).private:
            raise RunError(
                f"{wanted.repo} exists and is public: make it private in its settings, choose another name, or omit "
                "`private`"
            )
        if wanted.revision is not None:
            api.create_branch(wanted.repo, branch=wanted.revision, exist_ok=True)
        there = api.list_repo_files(wanted.repo, revision=wanted.revision)
        stale = [name for name in there if name not in sent and any(fnmatch(name, pattern) for pattern in OWN)]
        commit = api.create_commit(
            wanted.repo,
            operations=[
                *(hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=place / name) for name in sent),
                *(hub.CommitOperationDelete(path_in_repo=name) for name in stale),
            ],
            commit_message=message or "Upload a run of vaekit",
            revision=wanted.revision,
        )
    return str(Address(wanted.repo, commit.oid))


def push(
    run: SavedRun,
    repo: str,
    *,
    out: str | Path | None = None,
    license: str | None = None,
    densities: bool = True,
    reconstructions: bool = False,
    checkpoints: bool = False,
    revision: str | None = None,
    private: bool = False,
    message: str | None = None,
    dry_run: bool = False,
) -> str:
    """Write a run as a folder and send it to the Hugging Face hub: `write_hub`, then `upload`.

    The files and their sizes are printed before they are sent.

    Arguments:
        repo: user/name.
        out: the folder, which is kept; by default a temporary one, or NAME-hub for a dry run.
        license, densities, reconstructions, checkpoints: see `write_hub`.
        revision, private, message: see `upload`.
        dry_run: only write the folder; needs neither huggingface_hub nor a token.

    Returns:
        the address hf://user/name@COMMIT, or after a dry run the folder.

    Raises:
        RunError, DataError: as `write_hub` and `upload`.
    """
    wanted = target(repo)
    if not dry_run:
        check_push(repo)
    chosen: dict[str, Any] = {"densities": densities, "reconstructions": reconstructions, "checkpoints": checkpoints}
    with tempfile.TemporaryDirectory() as temporary:
        name = wanted.repo.rpartition("/")[2]
        folder = checked_path(out or (f"{name}-hub" if dry_run else Path(temporary) / name))
        files = write_hub(run, folder, name=wanted.repo, license=license, **chosen)
        say(f"{'not sent (dry run)' if dry_run else 'sending'} to {wanted}: {len(files)} files, {_size(files)}")
        for file in files:
            say(f"  {file.relative_to(folder).as_posix():32} {_size([file])}")
        if license is None:
            say("note: the model card states no licence: add one, such as `license='apache-2.0'`")
        if dry_run:
            return str(folder)
        return upload(folder, repo, files=files, revision=revision, private=private, message=message)


def _size(files: Sequence[Path]) -> str:
    """The size of files in words."""
    size = sum(file.stat().st_size for file in files)
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
