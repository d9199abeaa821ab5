"""A provider on loopback that speaks HTTP/2 and nothing else, and counts its connections."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded

TEXT = ("Hi ", "there")


def _frame(delta: dict[str, Any], reason: str | None = None) -> bytes:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, 'finish_reason': reason}]})}\n\n".encode()


_FRAMES = (*(_frame({"content": text}) for text in TEXT), _frame({}, "stop"), b"data: [DONE]\n\n")


@dataclass
class H2Provider:
    """A running one."""

    port: int = 0
    protocols: list[str | None] = field(default_factory=list)
    """What each connection agreed on."""
    num_answers: int = 0
    goes_away_after: int | None = None
    """Answers after which a connection is closed, as servers do now and then."""


@contextmanager
def h2_provider(certificate: Path, key: Path) -> Iterator[H2Provider]:
    """A provider until the context ends."""
    provider = H2Provider()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    started, stops = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    connections: set[_Connection] = set()

    async def serve() -> None:
        def connect() -> _Connection:
            connection = _Connection(provider)
            connections.add(connection)
            return connection

        async with await loop.create_server(connect, "127.0.0.1", 0, ssl=context) as server:
            provider.port = server.sockets[0].getsockname()[1]
            started.set()
            await stops.wait()
            for connection in list(connections):
                connection.abort()
            await asyncio.gather(*(connection.is_lost.wait() for connection in list(connections)))

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert started.wait(10)
        yield provider
    finally:
        loop.call_soon_threadsafe(stops.set)
        thread.join(10)
        loop.close()


class _Connection(asyncio.Protocol):
    def __init__(self, provider: H2Provider) -> None:
        self._provider = provider
        self.is_lost = asyncio.Event()
        self._h2 = H2Connection(H2Configuration(client_side=False))
        self._num_answers = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._provider.protocols.append(transport.get_extra_info("ssl_object").selected_alpn_protocol())
        self._h2.initiate_connection()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        for task in self._tasks:
            task.cancel()
        self.is_lost.set()

    def abort(self) -> None:
        """Close it at once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                task = asyncio.ensure_future(self._answer(event.stream_id))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        self._flush()

    async def _answer(self, stream_id: int) -> None:
        self._h2.send_headers(stream_id, [(":status", "200"), ("content-type", "text/event-stream")])
        for frame in _FRAMES:
            await asyncio.sleep(0.01)
            self._h2.send_data(stream_id, frame)
            self._flush()
        self._h2.end_stream(stream_id)
        self._flush()
        self._num_answers += 1
        self._provider.num_answers += 1
        if self._num_answers == self._provider.goes_away_after:
            self._h2.close_connection()
            self._flush()
            self._transport.close()

    def _flush(self) -> None:
        self._transport.write(self._h2.data_to_send())
