"""The provider behind the gateways that are compared: answers of a wanted length, as fast as one process can.

`python -m benchmarks.gateway_upstream PORT`. HTTP/1.1 by hand: a web framework would take longer than a gateway.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from typing import cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MODELS = b'{"object":"list","data":[{"id":"bench","object":"model","owned_by":"bench"}]}'


class Upstream(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A gateway has connected."""
        # uvloop's are of a class of their own
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, end)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < size:
                return
            body, self._buffer = self._buffer[end + 4 : size], self._buffer[size:]
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        if not body:
            self._transport.write(_whole(_MODELS))
            return
        asked = json.loads(body)
        num_tokens = asked.get("max_tokens") or asked.get("max_completion_tokens") or 16
        if asked.get("stream"):
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            self._write_next(_pieces(num_tokens))
        else:
            self._transport.write(_whole(_completion(num_tokens)))

    def _write_next(self, pieces: Iterator[bytes]) -> None:
        """One piece at a time, as a model writes them."""
        piece = next(pieces, None)
        if piece is None or self._transport.is_closing():
            return
        self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b"0\r\n\r\n")
        asyncio.get_running_loop().call_soon(self._write_next, pieces)


def _whole(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    return head + body


_HEAD = {"id": "chatcmpl-bench", "created": 1_700_000_000, "model": "bench"}


def _completion(num_tokens: int) -> bytes:
    message = {"role": "assistant", "content": "word " * num_tokens}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {**_HEAD, "object": "chat.completion", "choices": [choice], "usage": _usage(num_tokens)}
    return json.dumps(body).encode()


def _pieces(num_tokens: int) -> Iterator[bytes]:
    yield _event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
    piece = _event({"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]})
    for _ in range(num_tokens):
        yield piece
    yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    yield _event({"choices": [], "usage": _usage(num_tokens)})
    yield b"data: [DONE]\n\n"
    yield b""


def _event(more: dict[str, object]) -> bytes:
    return b"data: %b\n\n" % json.dumps({**_HEAD, "object": "chat.completion.chunk", **more}).encode()


def _usage(num_tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 10, "completion_tokens": num_tokens, "total_tokens": num_tokens + 10}


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
