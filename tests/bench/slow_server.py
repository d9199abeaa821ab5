"""A tiny real HTTP server that streams chat completions with known delays."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mlx_manager.bench import Target

FIRST_S = 0.10
STEP_S = 0.02


class SlowServer:
    """Answers after FIRST_S, then one word each STEP_S. Two tokens a word; counts what it was asked."""

    def __init__(self, *, sends_usage: bool = True, breaks_after: int | None = None, status: int = 200) -> None:
        self.bodies: list[dict[str, object]] = []
        self.num_open = 0
        self.most_open = 0
        self._sends_usage = sends_usage
        self._breaks_after = breaks_after
        self._status = status

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if head.startswith("GET /v1/models "):
            await self._send(writer, "application/json", json.dumps({"data": [{"id": "slow"}]}))
        else:
            length = next(int(line.split(":")[1]) for line in head.lower().split("\r\n") if "content-length" in line)
            self.bodies.append(json.loads(await reader.readexactly(length)))
            self.num_open += 1
            self.most_open = max(self.most_open, self.num_open)
            await self._stream(writer, self.bodies[-1])
            self.num_open -= 1
        writer.close()
        await writer.wait_closed()

    async def _send(self, writer: asyncio.StreamWriter, kind: str, text: str) -> None:
        head = f"HTTP/1.1 {self._status} X\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n"
        writer.write((head + text).encode())
        await writer.drain()

    async def _stream(self, writer: asyncio.StreamWriter, body: dict[str, object]) -> None:
        if self._status != 200:
            await self._send(writer, "application/json", json.dumps({"error": {"message": "no room"}}))
            return
        await self._send(writer, "text/event-stream", ": a comment\n\n")
        await self._event(writer, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        messages = body["messages"]
        assert isinstance(messages, list)
        num_words = body["max_tokens"]
        assert isinstance(num_words, int)
        for place in range(num_words):
            await asyncio.sleep(STEP_S if place else FIRST_S)
            if place == self._breaks_after:
                await self._event(writer, {"error": {"message": "the worker died"}})
                return
            await self._event(writer, {"choices": [{"delta": {"content": f"word{place} "}}]})
        if self._sends_usage:
            num_prompt = 2 * sum(len(message["content"].split()) for message in messages)
            usage = {
                "prompt_tokens": num_prompt,
                "completion_tokens": num_words,
                "prompt_tokens_details": {"cached_tokens": 7},
            }
            await self._event(writer, {"choices": [], "usage": usage})
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()

    async def _event(self, writer: asyncio.StreamWriter, chunk: object) -> None:
        writer.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await writer.drain()


@asynccontextmanager
async def listening(slow: SlowServer) -> AsyncIterator[Target]:
    async with await asyncio.start_server(slow.answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield Target(f"http://127.0.0.1:{port}", "slow")
