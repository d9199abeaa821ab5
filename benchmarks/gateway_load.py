"""Load for a gateway: so many connections, each asking again as soon as it is answered.

HTTP/1.1 by hand, so that the client takes less of the machine than what it measures.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PIECE = b'"content":'
_PATIENCE_S = 60.0


@dataclass
class Load:
    """What one load came to."""

    wall_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    """Of each request, from its sending to the last byte of its answer."""
    num_pieces: int = 0
    """Pieces of text that streams brought."""
    num_failed: int = 0

    @property
    def requests_per_s(self) -> float:
        """Answered ones."""
        return len(self.latencies_s) / self.wall_s

    @property
    def pieces_per_s(self) -> float:
        """Of streams."""
        return self.num_pieces / self.wall_s

    def latency_ms(self, share: float) -> float:
        """The percentile of the latency; 0.5 is the median."""
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)]


async def play(port: int, *, num_clients: int, seconds: float, num_tokens: int, is_streamed: bool) -> Load:
    """Ask for that long. What is under way at the end is waited for, and counts."""
    body = {
        "model": "bench",
        "messages": [{"role": "user", "content": "Tell me a story about a lighthouse."}],
        "max_tokens": num_tokens,
        "stream": is_streamed,
    }
    request = _render(json.dumps(body).encode(), port)
    load = Load()
    began_s = time.perf_counter()
    await asyncio.gather(*(_client(port, request, began_s + seconds, load, is_streamed) for _ in range(num_clients)))
    load.wall_s = time.perf_counter() - began_s
    return load


def _render(body: bytes, port: int) -> bytes:
    lines: Sequence[bytes] = (
        b"POST /v1/chat/completions HTTP/1.1",
        b"host: 127.0.0.1:%d" % port,
        b"content-type: application/json",
        b"authorization: Bearer sk-bench",
        b"content-length: %d" % len(body),
    )
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def _client(port: int, request: bytes, until_s: float, load: Load, is_streamed: bool) -> None:
    loop = asyncio.get_running_loop()
    connection: _Connection | None = None
    while time.perf_counter() < until_s:
        if connection is None or connection.is_lost:
            _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
        began_s = time.perf_counter()
        answer = await asyncio.wait_for(connection.ask(request), _PATIENCE_S)
        if answer.startswith(b"HTTP/1.1 200") and (b"data: [DONE]" in answer or not is_streamed):
            load.latencies_s.append(time.perf_counter() - began_s)
            load.num_pieces += answer.count(_PIECE) if is_streamed else 0
        else:
            load.num_failed += 1
    if connection is not None:
        connection.close()


class _Connection(asyncio.Protocol):
    """Asks one thing at a time."""

    is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to ask."""
        # uvloop's are of a class of their own
        self._transport = cast(asyncio.Transport, transport)
        self._parts: list[bytes] = []
        self._answered: asyncio.Future[bytes] | None = None

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """The whole answer, head and body as they came."""
        self._answered = asyncio.get_running_loop().create_future()
        self._parts = []
        self._transport.write(request)
        return self._answered

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        self._parts.append(data)
        if self._answered is not None and not self._answered.done() and self._is_complete(data):
            self._answered.set_result(b"".join(self._parts))

    def connection_lost(self, error: Exception | None) -> None:
        """The other side hung up."""
        self.is_lost = True
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(b"".join(self._parts))

    def _is_complete(self, data: bytes) -> bool:
        if len(self._parts) == 1 or b"\r\n\r\n" not in self._parts[0]:
            self._parts = [b"".join(self._parts)]
        head_size = self._parts[0].find(b"\r\n\r\n")
        if head_size < 0:
            return False
        length = _LENGTH.search(self._parts[0], 0, head_size)
        if length is None:
            tail = data if len(data) >= 5 else b"".join(self._parts[-2:])
            return tail.endswith(b"0\r\n\r\n")
        return sum(map(len, self._parts)) >= head_size + 4 + int(length[1])
