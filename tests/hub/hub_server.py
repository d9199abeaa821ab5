"""A small model hub on loopback: the endpoints that `huggingface_hub` calls, with faults to order."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from mlx_manager.hub.access import HubAccess

PAGE_SIZE = 3
"""Of a search; the client follows the links."""
_LARGE = 1024
"""From this size on a file counts as large: stored by its SHA-256, and sent by another path, as a redirect."""


@dataclass
class Repository:
    """One model on the hub."""

    files: dict[str, bytes]
    facts: dict[str, Any] = field(default_factory=dict)
    """Shown by searches: tags, downloads, pipeline_tag and so on."""
    is_gated: bool = False
    is_private: bool = False
    declared_sizes: dict[str, int] = field(default_factory=dict)
    """By file name, where the hub shall claim another size than the content has."""

    @property
    def commit(self) -> str:
        """Changes with the content."""
        listing = "".join(f"{name}:{git_hash(content)}" for name, content in sorted(self.files.items()))
        return hashlib.sha1(listing.encode()).hexdigest()

    def size(self, name: str) -> int:
        return self.declared_sizes.get(name, len(self.files[name]))


@dataclass
class Faults:
    """What goes wrong, each so many times; by file name where it is about a file."""

    cut_after: dict[str, list[int]] = field(default_factory=dict)
    """Bytes after which a connection is cut; one entry per request."""
    busy: int = 0
    """Requests answered with 429."""
    broken: int = 0
    """Requests answered with 500."""
    damaged: Counter[str] = field(default_factory=Counter)
    """Requests for the file answered with one byte changed."""
    short: Counter[str] = field(default_factory=Counter)
    """Requests for the file answered without its last bytes, as if it ended there."""
    slow_after: dict[str, int] = field(default_factory=dict)
    """Bytes after which the file comes to a halt until `go_on` is set."""
    go_on: threading.Event = field(default_factory=threading.Event)
    ignores_ranges: bool = False


@dataclass
class HubServer:
    """A running hub."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    token: str = "hf_right"
    """Opens what is gated or private."""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, Range) of every request."""
    tokens: set[str | None] = field(default_factory=set)
    """Every token that came along."""

    @property
    def storage_url(self) -> str:
        """Large files come from another host, as the real hub's do, and that one must not see the token."""
        return self.url.replace("127.0.0.1", "localhost")

    def access(self, cache: object, token: str | None = None) -> HubAccess:
        return HubAccess(endpoint=self.url, cache=str(cache), token=token)

    def ranges(self, name: str) -> list[str | None]:
        """The ranges in which a file's content was asked for."""
        return [ranged for method, path, ranged in self.asked if method == "GET" and path.endswith(f"/{name}")]


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def etag_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if len(content) >= _LARGE else git_hash(content)


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        self.status = status
        self.headers = headers | ({"X-Error-Code": code} if code else {}) | {"X-Error-Message": message or code}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def _serve(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        token = self.headers.get("authorization", "").removeprefix("Bearer ") or None
        self.hub.asked.append((self.command, path, self.headers.get("range")))
        self.hub.tokens.add(token)
        try:
            self._check_faults()
            if path == "/api/models":
                self._search(parse_qs(url.query))
            elif path.startswith("/api/models/"):
                self._describe(path.removeprefix("/api/models/"), token)
            elif path.startswith("/blob/"):
                if token is not None:
                    raise _Refused(400, message="the token was sent to the storage")
                self._send_file(*path.removeprefix("/blob/").split("::"))
            else:
                self._resolve(path.removeprefix("/"), token)
        except _Refused as refused:
            self._send(refused.status, b"", refused.headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _check_faults(self) -> None:
        faults = self.hub.faults
        if faults.busy > 0:
            faults.busy -= 1
            raise _Refused(429, message="slow down", **{"Retry-After": "0"})
        if faults.broken > 0:
            faults.broken -= 1
            raise _Refused(500, message="out of order")

    def _search(self, query: dict[str, list[str]]) -> None:
        begin = int(query.pop("cursor", ["0"])[0])
        words = query.get("search", [""])[0].lower()
        tags = set(query.get("filter", []))
        found = [
            {"id": name, "private": repository.is_private, "gated": "manual" if repository.is_gated else False}
            | repository.facts
            for name, repository in self.hub.repositories.items()
            if words in name.lower()
            and tags <= set(repository.facts.get("tags", []))
            and query.get("author", [name.split("/")[0]]) == [name.split("/")[0]]
            and query.get("pipeline_tag", [repository.facts.get("pipeline_tag")])
            == [repository.facts.get("pipeline_tag")]
        ]
        key = query.get("sort", ["downloads"])[0]
        found.sort(key=lambda facts: str(facts.get(key, 0)).zfill(12), reverse=True)
        headers = {}
        if begin + PAGE_SIZE < len(found):
            rest = urlsplit(self.path).query.split("&cursor=")[0]
            headers["Link"] = f'<{self.hub.url}/api/models?{rest}&cursor={begin + PAGE_SIZE}>; rel="next"'
        self._send(200, json.dumps(found[begin : begin + PAGE_SIZE]).encode(), headers)

    def _find(self, name: str, token: str | None) -> Repository:
        repository = self.hub.repositories.get(name)
        if token not in (None, self.hub.token):
            raise _Refused(401, message="Invalid credentials in Authorization header")
        if repository is None or (repository.is_private and token is None):
            raise _Refused(404 if token else 401, code="RepoNotFound")
        return repository

    def _check_gate(self, repository: Repository, token: str | None) -> None:
        if repository.is_gated and token is None:
            raise _Refused(401, code="GatedRepo")

    def _describe(self, rest: str, token: str | None) -> None:
        """/ORG/NAME, /ORG/NAME/revision/REVISION and /ORG/NAME/tree/REVISION."""
        org, name, *more = rest.split("/")
        repository = self._find(f"{org}/{name}", token)
        if len(more) > 1 and more[1] not in ("main", repository.commit):
            raise _Refused(404, code="RevisionNotFound")
        sizes = {name: repository.size(name) for name in repository.files}
        if more[:1] == ["tree"]:
            self._check_gate(repository, token)
            entries = [
                {"type": "file", "path": name, "size": sizes[name], "oid": git_hash(content)}
                | (
                    {"lfs": {"oid": etag_of(content), "size": sizes[name], "pointerSize": 130}}
                    if len(content) >= _LARGE
                    else {}
                )
                for name, content in repository.files.items()
            ]
            self._send(200, json.dumps(entries).encode())
            return
        siblings = [
            {"rfilename": name, "size": sizes[name], "blobId": git_hash(content)}
            | (
                {"lfs": {"sha256": etag_of(content), "size": sizes[name], "pointerSize": 130}}
                if len(content) >= _LARGE
                else {}
            )
            for name, content in repository.files.items()
        ]
        described = {"id": f"{org}/{name}", "sha": repository.commit, "siblings": siblings}
        gate = {"private": repository.is_private, "gated": "manual" if repository.is_gated else False}
        self._send(200, json.dumps(described | gate | repository.facts).encode())

    def _resolve(self, path: str, token: str | None) -> None:
        """/ORG/NAME/resolve/REVISION/FILE"""
        if path.count("/") < 4:
            raise _Refused(404)
        org, name, _, _, *rest = path.split("/")
        repository = self._find(f"{org}/{name}", token)
        self._check_gate(repository, token)
        file = "/".join(rest)
        if file not in repository.files:
            raise _Refused(404, code="EntryNotFound")
        content = repository.files[file]
        headers = {"X-Repo-Commit": repository.commit}
        if len(content) >= _LARGE:
            headers |= {"X-Linked-Etag": f'"{etag_of(content)}"', "X-Linked-Size": str(repository.size(file))}
            location = f"{self.hub.storage_url}/blob/{org}/{name}::{file}"
            self._send(302, b"", headers | {"Location": location, "ETag": '"pointer"'})
        else:
            self._send_content(file, content, ETag=f'"{etag_of(content)}"', **headers)

    def _send_file(self, repository: str, file: str) -> None:
        content = self.hub.repositories[repository].files[file]
        self._send_content(file, content, ETag='"of the storage"')

    def _send_content(self, name: str, content: bytes, **headers: str) -> None:
        faults = self.hub.faults
        if self.command == "GET" and faults.damaged[name] > 0:
            faults.damaged[name] -= 1
            content = content[:-1] + bytes([content[-1] ^ 1])
        if self.command == "GET" and faults.short[name] > 0:
            faults.short[name] -= 1
            content = content[:-7]
        begin, status = 0, 200
        if (ranged := self.headers.get("range")) and not faults.ignores_ranges:
            first, _, last = ranged.removeprefix("bytes=").partition("-")
            begin, status = int(first), 206
            if begin >= len(content):
                raise _Refused(416, **{"Content-Range": f"bytes */{len(content)}"})
            end = int(last) + 1 if last else len(content)
            headers["Content-Range"] = f"bytes {begin}-{min(end, len(content)) - 1}/{len(content)}"
            content = content[:end]
        self._send(status, content[begin:], headers, name=name, begin=begin)

    def _send(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, *, name: str = "", begin: int = 0
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        faults = self.hub.faults
        if cuts := faults.cut_after.get(name):
            self.wfile.write(body[: cuts.pop(0)])
            self.close_connection = True
        elif name in faults.slow_after and begin < faults.slow_after[name]:
            first = faults.slow_after[name] - begin
            self.wfile.write(body[:first])
            self.wfile.flush()
            faults.go_on.wait(20)
            self.wfile.write(body[first:])
        else:
            self.wfile.write(body)


@contextmanager
def running_hub() -> Iterator[HubServer]:
    """A hub on a free port, in threads; gone at the end."""
    hub = HubServer(url="")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.faults.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
