"""Addresses of the Hugging Face hub such as hf://user/name@revision: their download, and errors in plain words."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from vaekit.errors import RunError

from .progress import say

SCHEME = "hf:/"
"""An address begins with this: as a `Path`, hf:// has one slash."""
_ADDRESS = re.compile(r"hf:/{1,2}(?P<repo>[^/@\s]+/[^/@\s]+)(@(?P<revision>\S+))?")
_COMMIT = re.compile("[0-9a-f]{40}")
_FOLDER = "models--"
"""The cache of huggingface_hub keeps a commit in models--user--name/snapshots/COMMIT."""
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


class Address(NamedTuple):
    """A repository of the hub, and a branch, tag or commit of it; None for its main branch."""

    repo: str
    revision: str | None

    def __str__(self) -> str:
        return f"hf://{self.repo}" + (f"@{self.revision}" if self.revision else "")


def is_address(path: object) -> bool:
    """Whether a path is an address of the hub."""
    return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(SCHEME)


def address(text: str | Path) -> Address:
    """The address in a text that `is_address`.

    Raises:
        RunError: it is not of the form hf://user/name or hf://user/name@revision.
    """
    found = _ADDRESS.fullmatch(str(text).rstrip("/"))
    if found is None:
        raise RunError(f"{str(text)!r} is not an address of the hub: write hf://user/name or hf://user/name@revision")
    return Address(found["repo"], found["revision"])


def origin(path: Path) -> Address | None:
    """The address from which a folder, or one inside it, was downloaded; None for other folders."""
    parts = path.parts
    for i in range(2, len(parts)):
        cached = parts[i - 1] == "snapshots" and parts[i - 2].startswith(_FOLDER)
        if cached and _COMMIT.fullmatch(parts[i]):
            return Address(parts[i - 2].removeprefix(_FOLDER).replace("--", "/"), parts[i])
    return None


def library() -> ModuleType:
    """The module huggingface_hub.

    Raises:
        RunError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise RunError("the Hugging Face hub needs huggingface_hub: pip install 'vaekit[hub]'") from None
    return huggingface_hub


@contextlib.contextmanager
def explained(what: Address) -> Iterator[None]:
    """Turn the errors of huggingface_hub about `what` into a RunError that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except RunError:
        raise
    except errors.RevisionNotFoundError:
        raise RunError(
            f"{what.repo} has no revision {what.revision!r}: write a branch, a tag or a commit of it"
        ) from None
    except errors.GatedRepoError:
        raise RunError(
            f"{what} is gated: ask for access on the page of the repository, and {LOGIN} of an account that has it"
        ) from None
    except errors.RepositoryNotFoundError:
        raise RunError(
            f"the hub has no repository {what.repo}, or it is private: check the name, and for a private one {LOGIN} "
            "of an account that may read it"
        ) from None
    except errors.HFValidationError as error:
        raise RunError(f"{what.repo!r} is not the name of a repository: write user/name ({error})") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise RunError(f"the hub refused access to {what.repo}: {LOGIN} with a token that may do this") from None
        said = error.server_message or error
        raise RunError(f"the hub answered with error {status} about {what.repo}: {said}") from None
    except errors.LocalEntryNotFoundError as error:
        raise RunError(f"{what} is not in the cache, and the hub cannot be reached: {error}") from None
    except (errors.HTTPError, OSError) as error:
        raise RunError(f"the hub cannot be reached for {what}: {error}") from None
    except (ValueError, RuntimeError) as error:  # such as a licence that the hub does not know
        raise RunError(f"the hub refused this for {what}: {error}") from None


def fetched(text: str | Path, files: Sequence[str]) -> Path:
    """Download an address of the hub, and return the folder in the cache of huggingface_hub that holds it.

    Files that were downloaded before are not loaded again. If the hub cannot be reached, the version that was
    downloaded last is used, with a note.

    Arguments:
        text: the address.
        files: patterns of the files to load; no others are.

    Raises:
        RunError: huggingface_hub is not installed; the repository or revision is missing, or access is refused; or the
            hub cannot be reached and there is no copy.
    """
    wanted, hub = address(text), library()
    from huggingface_hub import errors

    asked = {"revision": wanted.revision, "allow_patterns": list(files)}
    with explained(wanted):
        if not _COMMIT.fullmatch(wanted.revision or ""):
            try:
                hub.HfApi().model_info(wanted.repo, revision=wanted.revision)
            except errors.HfHubHTTPError:
                raise
            except (errors.OfflineModeIsEnabled, errors.HTTPError) as error:
                folder = hub.snapshot_download(wanted.repo, local_files_only=True, **asked)
                say(f"note: the hub cannot be reached ({error}): opening the copy of {Path(folder).name} in the cache")
                return Path(folder)
        return Path(hub.snapshot_download(wanted.repo, **asked))
