"""A server on this machine that answers what huggingface_hub asks of the Hugging Face hub; repositories in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_of_the_tests"


@dataclass
class Repo:
    """A repository: the files of each commit, and its branches."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    lfs: set[str] = field(default_factory=set)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        oid = hashlib.sha1(f"{len(self.commits)}{message}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        self.messages.append(message)
        return oid

    def at(self, revision: str | None) -> str | None:
        """The commit of a branch or of (the beginning of) a commit."""
        revision = revision or "main"
        return self.branches.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Hub:
    """The state of the server, and the requests that it got."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    large: tuple[str, ...] = ()  # suffixes of files that it takes by the LFS protocol

    def files(self, repo: str, revision: str | None = None) -> dict[str, bytes]:
        found = self.repos[repo]
        return found.commits[found.at(revision) or ""]


class Handler(BaseHTTPRequestHandler):
    """One request; `parts` are the segments of its path."""

    hub: Hub

    def log_message(self, *_: object) -> None:
        """Prints nothing."""

    def answer(self, value: object, status: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, one in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), one)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, status: int, code: str = "") -> None:
        self.answer({"error": code or "no"}, status, **({"X_Error_Code": code} if code else {}))

    def take(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def parsed(self) -> list[str]:
        path = urlsplit(self.path).path
        self.hub.asked.append((self.command, path))
        return [unquote(part) for part in path.strip("/").split("/")]

    def allowed(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.parsed()
        if parts[:2] == ["api", "models"]:
            name, rest = "/".join(parts[2:4]), parts[4:]
        else:  # /user/name/resolve/COMMIT/path
            name, rest = "/".join(parts[:2]), parts[2:]
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self.allowed()):
            return self.fail(404, "RepoNotFound")
        oid = repo.at(rest[1] if len(rest) > 1 else None)
        if oid is None:
            return self.fail(404, "RevisionNotFound")
        files = repo.commits[oid]
        if not rest or rest[0] == "revision":
            siblings = [{"rfilename": path} for path in files]
            return self.answer({"id": name, "sha": oid, "private": repo.private, "siblings": siblings, "tags": []})
        if rest[0] == "tree":
            return self.answer([self.entry(repo, path, content) for path, content in files.items()])
        path = "/".join(rest[2:])
        if path not in files:
            return self.fail(404, "EntryNotFound")
        self.answer(files[path], ETag=f'"{self.etag(repo, path, files[path])}"', X_Repo_Commit=oid)

    def etag(self, repo: Repo, path: str, content: bytes) -> str:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return hashlib.sha256(content).hexdigest() if path in repo.lfs else blob

    def entry(self, repo: Repo, path: str, content: bytes) -> dict[str, object]:
        of = {"oid": self.etag(repo, path, content), "size": len(content)}
        return {"type": "file", "path": path, **of, **({"lfs": {**of, "pointerSize": 1}} if path in repo.lfs else {})}

    def do_PUT(self) -> None:
        self.hub.blobs[self.parsed()[-1]] = self.take()
        self.answer({})

    def do_POST(self) -> None:
        parts, body = self.parsed(), self.take()
        if not self.allowed():
            return self.fail(401)
        if parts == ["api", "repos", "create"]:
            return self.create(json.loads(body))
        if parts == ["api", "validate-yaml"]:
            return self.answer({"errors": [], "warnings": []})
        if parts[-3:] == ["lfs", "objects", "batch"]:
            return self.batch(json.loads(body)["objects"])
        repo = self.hub.repos.get("/".join(parts[2:4]))
        if repo is None:
            return self.fail(404, "RepoNotFound")
        what, revision = parts[4], parts[5]
        if what == "branch":
            if revision in repo.branches:
                return self.fail(409)
            repo.branches[revision] = repo.branches["main"]
            return self.answer({})
        if repo.at(revision) is None:
            return self.fail(404, "RevisionNotFound")
        if what == "preupload":
            return self.answer({"files": [self.mode(one["path"]) for one in json.loads(body)["files"]]})
        assert what == "commit"
        self.commit("/".join(parts[2:4]), repo, revision, [json.loads(line) for line in body.splitlines()])

    def create(self, asked: dict[str, object]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        if name in self.hub.repos:
            return self.answer({"url": f"{self.hub.url}/{name}", "error": "exists"}, 409)
        self.hub.repos[name] = Repo(private)
        self.hub.repos[name].commit("main", {".gitattributes": b""}, "initial commit")
        self.answer({"url": f"{self.hub.url}/{name}"})

    def mode(self, path: str) -> dict[str, object]:
        kind = "lfs" if path.endswith(self.hub.large or ("\0",)) else "regular"
        return {"path": path, "uploadMode": kind, "shouldIgnore": False}

    def batch(self, objects: list[dict[str, object]]) -> None:
        there = [{**one, "actions": {"upload": {"href": f"{self.hub.url}/blobs/{one['oid']}"}}} for one in objects]
        self.answer({"transfer": "basic", "objects": there})

    def commit(self, name: str, repo: Repo, branch: str, lines: list[dict[str, dict[str, str]]]) -> None:
        files = dict(repo.commits[repo.branches[branch]])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
                repo.lfs.add(value["path"])
            else:
                assert line["key"] == "deletedFile"
                del files[value["path"]]
        oid = repo.commit(branch, files, lines[0]["value"]["summary"])
        self.answer({"commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"})


@contextmanager
def serving() -> Iterator[Hub]:
    """A running server."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def point_to(hub: Hub, patch: pytest.MonkeyPatch, cache: object) -> None:
    """Let huggingface_hub, which reads its environment when it is imported, ask this server, with its token."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs vaekit[hub]")
    patch.setenv("HF_TOKEN", TOKEN)
    patch.setenv("NO_PROXY", "127.0.0.1")
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_TOKEN_PATH", f"{cache}/token")
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
