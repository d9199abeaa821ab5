"""A provider on loopback that speaks OpenAI's and Anthropic's dialects, and fails in every way on demand.

The model that is asked for says what happens: see `_behave` and `_stream`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.clouds.odd_streams import ODD_STREAMS

TEXT = ("Good ", "day, ", "wörld")
KEY = "sk-upstream"


@dataclass
class Upstream:
    """A running provider, and what it was asked."""

    port: int
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: list[tuple[str, int]] = field(default_factory=list)
    """Where each request came from."""
    num_left: int = 0
    """Streams whose client went before their end."""
    num_failures_first: int = 0
    """So many requests to `flaky` fail before one is answered."""

    @property
    def base_url(self) -> str:
        """As a provider's."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def num_asked(self) -> int:
        """Requests so far."""
        return len(self.bodies)


@contextmanager
def upstream_server() -> Iterator[Upstream]:
    """A provider until the context ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        upstream = Upstream(listener.getsockname()[1])
        config = uvicorn.Config(
            _build_app(upstream), lifespan="off", access_log=False, log_config=None, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield upstream
        finally:
            server.should_exit = True
            thread.join(20)


def _build_app(upstream: Upstream) -> Starlette:
    async def answer(request: Request) -> Response:
        body = json.loads(await request.body())
        upstream.bodies.append(body)
        upstream.headers.append(dict(request.headers))
        if request.client is not None:
            upstream.connections.append((request.client.host, request.client.port))
        frames = ODD_STREAMS.get(body["model"]) or _FRAMES[request.url.path.rpartition("/v1/")[2]](body)
        return await _behave(upstream, body["model"], frames)

    async def embeddings(request: Request) -> Response:
        body = json.loads(await request.body())
        upstream.bodies.append(body)
        rows = [{"index": index, "embedding": [float(index), 0.5]} for index in range(len(body["input"]))]
        return JSONResponse({"data": rows[::-1], "usage": {"prompt_tokens": 3}})

    async def count(request: Request) -> Response:
        upstream.bodies.append(json.loads(await request.body()))
        return JSONResponse({"input_tokens": 42})

    async def models(request: Request) -> Response:
        if KEY not in (request.headers.get("authorization", "") + request.headers.get("x-api-key", "")):
            return JSONResponse({"error": {"message": "no such key"}}, 401)
        return JSONResponse({"object": "list", "data": [{"id": "ok"}, {"id": "flaky"}]})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", answer, methods=["POST"]),
            Route("/v1/completions", answer, methods=["POST"]),
            Route("/v1/messages", answer, methods=["POST"]),
            Route("/v1/messages/count_tokens", count, methods=["POST"]),
            Route("/v1/embeddings", embeddings, methods=["POST"]),
            Route("/v1/models", models),
        ]
    )


async def _behave(upstream: Upstream, model: str, frames: list[bytes]) -> Response:
    if model == "flaky" and upstream.num_failures_first > 0:
        upstream.num_failures_first -= 1
        model = "broken"
    if model.startswith("nobody"):
        return JSONResponse({"error": {"message": f"no model {model}"}}, 400)
    if model == "hang":
        await asyncio.sleep(30)
    if model == "html":
        return Response("<h1>hello</h1>", media_type="text/html")
    if model in _REFUSALS:
        status, message, headers = _REFUSALS[model]
        return JSONResponse({"error": {"message": message}}, status, headers=headers)
    return StreamingResponse(_stream(upstream, model, frames), media_type="text/event-stream")


_REFUSALS = {
    "refused": (400, "messages: too odd", {}),
    "no-key": (401, "bad key", {}),
    "busy": (429, "slow down", {"retry-after": "30"}),
    "busy-forever": (429, "slow down", {"retry-after": "inf"}),
    "busy-never": (503, "slow down", {"retry-after": "nan"}),
    "unknown": (404, "The model `unknown` does not exist", {}),
    "misled": (404, "Not Found", {}),
    "broken": (500, "oh no", {}),
    "elsewhere": (302, "", {"location": "http://127.0.0.1:9/"}),
}


async def _stream(upstream: Upstream, model: str, frames: list[bytes]) -> AsyncIterator[bytes]:
    is_complete = False
    try:
        yield b": a comment\n\n"
        for index, frame in enumerate(frames):
            if model == "malformed" and index == 0:
                yield b"data: {not json\n\n"
            if model == "other-form" and index == 0:
                yield b'data: {"choices": 5, "type": 5}\n\n'
            if model == "cut-first" or (model == "cut" and index == 3):
                return
            if model == "silent" and index == 3:
                await asyncio.sleep(30)
            if model == "drip":
                for position in range(0, len(frame), 7):
                    yield frame[position : position + 7]
                    await asyncio.sleep(0)
                continue
            if model == "lingers" and index == len(frames) - 1:
                yield frame
                await asyncio.sleep(3)
                break
            if model == "pauses" and index == 3:
                await asyncio.sleep(0.7)
            if model == "slow":
                await asyncio.sleep(0.2)
            yield frame
        is_complete = True
    finally:
        if not is_complete and model not in ("cut", "cut-first"):
            upstream.num_left += 1


def _openai_frames(body: dict[str, Any]) -> list[bytes]:
    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {"id": "c", "object": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    usage = {"prompt_tokens": 11, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
    chunks = [chunk({"role": "assistant", "content": ""})]
    if body.get("reasoning_effort"):
        chunks += [chunk({"reasoning_content": piece}) for piece in ("I ", "think")]
    if body.get("tools"):
        calls = [("call_1", "get_weather", ['{"city"', ': "Paris"}']), ("call_2", "get_weather", ['{"city": "Oslo"}'])]
        for index, (call_id, name, arguments) in enumerate(calls):
            first = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
            chunks.append(chunk({"tool_calls": [first]}))
            chunks += [
                chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}) for piece in arguments
            ]
        chunks.append(chunk({}, "tool_calls"))
    else:
        chunks += [chunk({"content": piece}) for piece in TEXT]
        chunks.append(chunk({}, "stop"))
    if body.get("model") != "no-usage":
        chunks.append({"id": "c", "object": "x", "choices": [], "usage": usage})
    chunks[0]["model"] = body.get("model")
    return _openai_stream(chunks, body)


def _openai_stream(chunks: list[dict[str, Any]], body: dict[str, Any]) -> list[bytes]:
    """The frames of `chunks`, which are said once for each choice that is asked for."""
    indexes = range(body.get("n", 1))
    for chunk in chunks:
        chunk["choices"] = [choice | {"index": index} for index in indexes for choice in chunk["choices"]]
    return [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks] + [b"data: [DONE]\n\n"]


def _completion_frames(body: dict[str, Any]) -> list[bytes]:
    ends = [None] * (len(TEXT) - 1) + ["stop"]
    rows = zip(TEXT, ends, strict=True)
    choices = [[{"index": 0, "text": text, "finish_reason": reason}] for text, reason in rows]
    chunks: list[dict[str, Any]] = [{"object": "text_completion", "choices": each} for each in choices]
    chunks.append({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 5}})
    return _openai_stream(chunks, body)


def _anthropic_frames(body: dict[str, Any]) -> list[bytes]:
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    if body.get("thinking", {}).get("type") == "enabled":
        thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in ("I ", "think")]
        signed = {"type": "signature_delta", "signature": "c2lnbmVk"}
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, [*thoughts, signed]))
    if body.get("tools"):
        for call_id, arguments in (("call_1", ['{"city"', ': "Paris"}']), ("call_2", ['{"city": "Oslo"}'])):
            start = {"type": "tool_use", "id": call_id, "name": "get_weather", "input": {}}
            blocks.append((start, [{"type": "input_json_delta", "partial_json": piece} for piece in arguments]))
    else:
        blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in TEXT]))
    usage = {"input_tokens": 7, "cache_read_input_tokens": 4, "output_tokens": 1}
    if body["model"] == "writes":
        usage["cache_creation_input_tokens"] = 100
    messages: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "role": "assistant", "content": [], "usage": usage}},
        {"type": "ping"},
    ]
    for index, (start, deltas) in enumerate(blocks):
        messages.append({"type": "content_block_start", "index": index, "content_block": start})
        messages += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        messages.append({"type": "content_block_stop", "index": index})
    reason = "tool_use" if body.get("tools") else "end_turn"
    end = {"stop_reason": reason, "stop_sequence": None}
    messages.append({"type": "message_delta", "delta": end, "usage": {"output_tokens": 5}})
    messages.append({"type": "message_stop"})
    return [f"event: {message['type']}\ndata: {json.dumps(message)}\n\n".encode() for message in messages]


_FRAMES = {"chat/completions": _openai_frames, "completions": _completion_frames, "messages": _anthropic_frames}
