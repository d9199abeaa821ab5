"""The real app on a real server: uvicorn on uvloop in a thread, on an ephemeral loopback port, answered by scripts."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from mlx_manager.app import Parts, PartsFactory, build_server, create_app
from mlx_manager.backends.scripted import ScriptedBackend, Step
from mlx_manager.catalog import ModelEntry
from mlx_manager.catalog.settings import Settings
from mlx_manager.ir import (
    DetokenizeRequest,
    EmbeddingRequest,
    Event,
    GenerationRequest,
    RerankRequest,
    TokenizeRequest,
    Tokens,
    Vectors,
)
from mlx_manager.pool import ModelState, ModelStatus

HELLO = ("Hel", "lo ", "wörld", " 🌍")
TEXT = "".join(HELLO)


class Recorder:
    """A scripted backend that remembers what reached it and when each of its streams was over."""

    name = "recorder"

    def __init__(self, scripts: Mapping[str, Sequence[Step]]) -> None:
        self._scripted = ScriptedBackend(scripts)
        self.requests: list[GenerationRequest] = []
        self.tokenized: list[TokenizeRequest | DetokenizeRequest] = []
        self.begun: queue.Queue[str] = queue.Queue()
        self.ended: queue.Queue[str] = queue.Queue()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The script's events."""
        self.requests.append(request)
        self.begun.put(request.request_id)
        try:
            async with aclosing(self._scripted.generate(request)) as events:
                async for event in events:
                    yield event
        finally:
            self.ended.put(request.request_id)

    async def embed(self, request: EmbeddingRequest | RerankRequest) -> Vectors:
        """The script's vectors."""
        return await self._scripted.embed(request)

    async def tokenize(self, request: TokenizeRequest | DetokenizeRequest) -> Tokens:
        """The script's tokens."""
        self.tokenized.append(request)
        return await self._scripted.tokenize(request)


@dataclass
class Shelf:
    """The models that the server says it has."""

    models: list[ModelStatus] = field(default_factory=list)
    default_model: str | None = None

    def statuses(self) -> list[ModelStatus]:
        """As the pool's."""
        return list(self.models)

    def progress(self, name: str) -> str | None:
        """Nothing is ever loaded."""
        return None


def shelved(name: str, state: ModelState = ModelState.READY, **fields: Any) -> ModelStatus:
    """A model in the given state."""
    entry = ModelEntry(
        name=name,
        path="models",
        created_unix_s=1_700_000_000,
        size_bytes=1,
        architecture="llama",
        quantization="4-bit",
        max_context=8192,
    )
    return ModelStatus(entry=entry, state=state, **fields)


@dataclass(frozen=True)
class Served:
    """A running server."""

    port: int
    backend: Recorder
    shelf: Shelf
    stop: Callable[[], None]
    """Tells the server to stop, as a signal would; returns at once."""

    @property
    def base_url(self) -> str:
        """For OpenAI clients."""
        return f"http://127.0.0.1:{self.port}/v1"

    def http(self) -> httpx.Client:
        """A plain client of the server's root."""
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)

    def last_request(self) -> GenerationRequest:
        """What reached the backend last."""
        return self.backend.requests[-1]


Serve = Callable[..., Served]


@contextmanager
def running(settings: Settings, backend: Recorder, shelf: Shelf) -> Iterator[Served]:
    """Serve until the context ends."""

    @asynccontextmanager
    async def parts(_: Settings) -> AsyncIterator[Parts]:
        yield Parts(backends=(backend,), models=shelf)

    with running_app(settings, parts) as (port, stop):
        yield Served(port, backend, shelf, stop)


@contextmanager
def running_app(settings: Settings, parts: PartsFactory) -> Iterator[tuple[int, Callable[[], None]]]:
    """Serve the app over `parts` until the context ends: its port, and what tells it to stop."""
    settings = msgspec.structs.replace(settings, shutdown_timeout_s=min(settings.shutdown_timeout_s, 1))
    server = build_server(create_app(settings, parts=parts), settings)

    def stop() -> None:
        server.should_exit = True

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline_s = time.monotonic() + 20
            while not server.started:
                assert thread.is_alive(), "the server ended while it started"
                assert time.monotonic() < deadline_s, "the server did not start in time"
                time.sleep(0.01)
            yield port, stop
        finally:
            stop()
            thread.join(20)
            assert not thread.is_alive()
