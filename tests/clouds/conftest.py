"""A server of ours in front of a provider on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlx_manager.backends.scripted import Step, script_of
from mlx_manager.catalog.settings import load_settings
from mlx_manager.ir import (
    ChoiceEnd,
    Finished,
    FinishReason,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    PromptReady,
    Usage,
)
from tests.clouds.upstream_server import KEY, Upstream, upstream_server
from tests.http.scripted_server import HELLO, Recorder, Served, Shelf, running, shelved

FAST = {"connect_s": 2.0, "first_token_s": 1.0, "between_tokens_s": 0.5, "total_s": 20.0}


def _part(text: str, *start: Any) -> tuple[Step, ...]:
    return PartStart(0, *start), PartDelta(0, text), PartEnd(0)


THINKS_AND_CALLS: tuple[Step, ...] = (
    PromptReady(11),
    *_part("I think", PartKind.REASONING),
    *_part('{"city": "Paris"}', PartKind.TOOL_CALL, "call_1", "get_weather"),
    *_part('{"city": "Oslo"}', PartKind.TOOL_CALL, "call_2", "get_weather"),
    ChoiceEnd(0, FinishReason.TOOL_CALLS),
    Finished(Usage(num_prompt_tokens=11, num_cached_tokens=4, num_completion_tokens=5)),
)


@dataclass(frozen=True)
class Cloud:
    """A server of ours with the provider `up`."""

    served: Served
    client: httpx.Client
    upstream: Upstream
    home: Path

    def ask(self, model: str = "gpt", **more: Any) -> httpx.Response:
        """One chat completion."""
        headers = more.pop("headers", {})
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
        return self.client.post("/v1/chat/completions", json=body, headers=headers)

    def provider(self, **more: Any) -> httpx.Response:
        """Add a provider."""
        body = {
            "name": "up",
            "kind": "openai",
            "base_url": self.upstream.base_url,
            "key": KEY,
            "allows_private_address": True,
            "max_retries": 0,
            "timeouts": FAST,
        }
        return self.client.post("/admin/providers", json=body | more)

    def route(self, name: str, targets: Sequence[dict[str, str]], pattern: str = "gpt", **more: Any) -> None:
        """Add a route."""
        body = {"name": name, "pattern": pattern, "targets": list(targets), **more}
        added = self.client.post("/admin/routes", json=body)
        assert added.status_code == 201, added.text

    def lead(self, model: str) -> None:
        """Lead `gpt` to a model of the provider, and to nobody else."""
        self.client.delete("/admin/routes/lead")
        self.route("lead", [{"provider": "up", "model": model}])


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """One provider for all tests."""
    with upstream_server() as running_upstream:
        yield running_upstream


@pytest.fixture(scope="session")
def shared_cloud(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One server for the tests that need nothing of their own."""
    scripts: dict[str, Sequence[Step]] = {"m": script_of(HELLO), "caller": THINKS_AND_CALLS}
    with cloud_of(upstream, tmp_path_factory.mktemp("cloud"), scripts) as made:
        yield made


@pytest.fixture
def cloud(shared_cloud: Cloud) -> Cloud:
    """A server with the provider `up` and nothing left of earlier tests.

    Of its local models `m` says hello, and `caller` does what the provider does for who wants thoughts and calls.
    """
    client = shared_cloud.client
    for what in ("routes", "providers"):
        for row in client.get(f"/admin/{what}").json()[what]:
            assert client.delete(f"/admin/{what}/{row['name']}").status_code == 204
    client.patch("/admin/settings", json={"use_cloud": None, "cloud_budget": None})
    assert shared_cloud.provider().status_code == 201
    return shared_cloud


@pytest.fixture
def scripted_cloud(upstream: Upstream, tmp_path: Path) -> Iterator[Callable[..., Cloud]]:
    """Makes a server whose local models follow scripts."""
    with ExitStack() as stack:

        def make(scripts: dict[str, Sequence[Step]], **settings: object) -> Cloud:
            return stack.enter_context(cloud_of(upstream, tmp_path, scripts, **settings))

        yield make


class cloud_of:  # noqa: N801 — used as a function
    """The context of one server."""

    def __init__(self, upstream: Upstream, home: Path, scripts: dict[str, Sequence[Step]], **settings: object) -> None:
        self._upstream = upstream
        self._settings = load_settings({}, {"home": str(home), "port": 0, **settings})
        self._recorder = Recorder(scripts)
        self._shelf = Shelf([shelved(name) for name in scripts], default_model=next(iter(scripts), None))
        self._stack = ExitStack()

    def __enter__(self) -> Cloud:
        served = self._stack.enter_context(running(self._settings, self._recorder, self._shelf))
        cloud = Cloud(served, self._stack.enter_context(served.http()), self._upstream, self._settings.home)
        assert cloud.provider().status_code == 201
        return cloud

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
