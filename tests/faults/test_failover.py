"""A worker killed under a load of fifty, with a provider to stand in: each request ends once, and has one account."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clouds.upstream_server import KEY, TEXT, Upstream, upstream_server
from tests.e2e.server_process import PATIENCE_S, ServerProcess, serving, wait_until

pytestmark = pytest.mark.faults
NUM_CLIENTS, NUM_BEGUN = 50, 20
SHORT = "Tell me a story about a lighthouse."
LONG = "The keeper climbed the stairs of the lighthouse once more, and looked out over the sea. " * 60


@dataclass(frozen=True)
class Guarded:
    """A server whose model has a provider to stand in for it."""

    server: ServerProcess
    upstream: Upstream

    def load(self) -> dict[str, Any]:
        """How the model stands."""
        status: dict[str, Any] = httpx.get(f"{self.server.url}/admin/models/{self.server.model}").json()
        return status

    def rows(self, since: float) -> list[dict[str, Any]]:
        """The audit of what arrived since then, once it has as many rows as there were clients, and a moment later."""

        def found() -> list[dict[str, Any]]:
            query: dict[str, Any] = {"since": since, "limit": 1000}
            page = httpx.get(f"{self.server.url}/admin/requests", params=query).json()
            return [row["record"] for row in page["requests"]]

        wait_until(lambda: len(found()) >= NUM_CLIENTS, 20, found)
        time.sleep(1.5)
        return found()


@dataclass
class Client:
    """One client, and what it got."""

    number: int
    prompt: str
    is_streamed: bool
    text: str = ""
    error: dict[str, Any] | None = None
    status: int | None = None
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def request_id(self) -> str:
        return f"client-{self.number}"

    @property
    def speaks_anthropic(self) -> bool:
        return self.number % 2 == 1

    async def ask(self, http: httpx.AsyncClient, model: str) -> None:
        """Send the request, and read its answer to the end."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": f"{self.number}. {self.prompt}"}],
            "max_tokens": 400,
            "stream": self.is_streamed,
        }
        path = "/v1/messages" if self.speaks_anthropic else "/v1/chat/completions"
        headers = {"x-request-id": self.request_id}
        async with http.stream("POST", path, json=body, headers=headers) as answer:
            self.status = answer.status_code
            if not self.is_streamed or self.status != 200:
                self._take_whole(json.loads(await answer.aread()))
                return
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    self._take_piece(json.loads(line.removeprefix("data: ")))

    def _take_whole(self, body: dict[str, Any]) -> None:
        self.error = body.get("error")
        if self.error is None:
            parts = body["content"] if self.speaks_anthropic else [{"text": body["choices"][0]["message"]["content"]}]
            self.text = parts[0]["text"]

    def _take_piece(self, piece: dict[str, Any]) -> None:
        if "error" in piece:
            assert self.error is None, "an answer ended twice"
            self.error = piece["error"]
        elif piece.get("type") == "content_block_delta":
            self.text += piece["delta"].get("text", "")
        elif piece.get("choices"):
            self.text += piece["choices"][0]["delta"].get("content") or ""
        if self.text:
            self.has_begun.set()


@pytest.fixture(scope="module")
def guarded(starter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """The starter model, with a route that leads to a provider when it fails."""
    with upstream_server() as upstream, serving(starter_folder, tmp_path_factory.mktemp("home")) as server:
        provider = {
            "name": "up",
            "kind": "openai",
            "base_url": upstream.base_url,
            "key": KEY,
            "allows_private_address": True,
        }
        route = {
            "name": "guarded",
            "pattern": server.model,
            "targets": [{"model": server.model}, {"provider": "up", "model": "ok"}],
        }
        for path, body in (("/admin/providers", provider), ("/admin/routes", route)):
            assert httpx.post(f"{server.url}{path}", json=body).status_code == 201
        yield Guarded(server, upstream)


async def asked(guarded: Guarded, clients: list[Client], *, until_begun: bool) -> None:
    """All clients at once; the worker is killed once it has all of them, or once twenty streams have begun."""
    limits = httpx.Limits(max_connections=NUM_CLIENTS + 5)
    server = guarded.server
    pid = server.model_health()["worker_pid"]
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S, limits=limits) as http:
        asking = [asyncio.create_task(client.ask(http, server.model)) for client in clients]
        if until_begun:
            beginnings = [client.has_begun.wait() for client in clients if client.is_streamed]
            for number, beginning in enumerate(asyncio.as_completed(beginnings), 1):
                await beginning
                if number == NUM_BEGUN:
                    break
        else:
            await asyncio.to_thread(
                wait_until, lambda: guarded.load()["num_in_flight"] == NUM_CLIENTS, 20, guarded.load
            )
        os.kill(pid, signal.SIGKILL)
        await asyncio.gather(*asking)


def check_books(guarded: Guarded, clients: list[Client], since: float, num_asked: int) -> Counter[str | None]:
    """Every client got one end, and there is one row for it that says the same; how many each backend answered."""
    rows = guarded.rows(since)
    assert sorted(row["request_id"] for row in rows) == sorted(client.request_id for client in clients)
    by_id = {row["request_id"]: row for row in rows}
    for client in clients:
        row = by_id[client.request_id]
        if client.error is None:
            assert (row["status"], row["error_code"]) == (200, None)
        else:
            assert row["error_code"] == "worker_died"
            assert "SIGKILL" in client.error["message"]
        if row["target"] == "up":
            assert (client.text, row["fallback_reason"]) == ("".join(TEXT), "worker_died")
            assert (row["num_attempts"], row["target_kind"], row["route"]) == (2, "openai", "guarded")
    by_target = Counter(row["target"] for row in rows)
    assert guarded.upstream.num_asked - num_asked == by_target["up"]
    return by_target


def test_killed_before_the_first_token(guarded: Guarded) -> None:
    clients = [Client(number, LONG, is_streamed=number % 4 < 2) for number in range(NUM_CLIENTS)]
    since, num_asked = time.time(), guarded.upstream.num_asked
    asyncio.run(asked(guarded, clients, until_begun=False))
    by_target = check_books(guarded, clients, since, num_asked)
    assert all(client.error is None or client.text for client in clients), "one was refused before its answer began"
    # the prompts take the machine many seconds: hardly one can have been through
    assert by_target["up"] >= NUM_CLIENTS - 5


def test_killed_after_the_first_token(guarded: Guarded) -> None:
    server = guarded.server
    answer = httpx.post(
        f"{server.url}/v1/chat/completions",
        json={"model": server.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5},
        timeout=PATIENCE_S,
        headers={"x-backend": "local"},
    )
    assert answer.headers["x-mlx-backend"] == "local", "another worker has taken over"
    clients = [Client(number, SHORT, is_streamed=number % 5 > 0) for number in range(NUM_CLIENTS)]
    since, num_asked = time.time(), guarded.upstream.num_asked
    asyncio.run(asked(guarded, clients, until_begun=True))
    check_books(guarded, clients, since, num_asked)
    broken = [client for client in clients if client.is_streamed and client.error is not None]
    assert len(broken) >= NUM_BEGUN - 1, "one may have been over before"
    assert all(client.text and client.status == 200 for client in broken)
    assert server.process.poll() is None
